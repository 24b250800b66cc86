//! The daemon's end of the control socket.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::place::Bound;
use super::{Answer, Asked, Greeting, Request, VERSION};

/// Peers at the same time; more wait until one is done.
const MAX_PEERS: usize = 64;

/// Those among them whose answers take long: the others, such as the health check, are never kept waiting by them.
const MAX_LONG: usize = 48;

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 64 << 10;

/// How long a peer may take to send its request, and to take one line of the answer.
const PEER_LIMIT: Duration = Duration::from_secs(5);

/// How long a peer that follows something may take to take one line: its terminal may stand still for a while.
const FOLLOWER_LIMIT: Duration = Duration::from_mins(1);

/// Pause after a peer could not be let in: there are too many open files, for example, which would be so again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Who may ask: root and the daemon's own user.
///
/// # Errors
///
/// When the kernel does not say who the peer is.
pub(super) fn is_trusted(stream: &UnixStream, own_uid: u32) -> io::Result<bool> {
    let uid = stream.peer_cred()?.uid();
    Ok(uid == 0 || uid == own_uid)
}

/// The user that this process acts as.
///
/// # Errors
///
/// When there is no socket to be had to ask the kernel with.
pub fn own_uid() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

/// Answers until the intake closes: `answer` gives the lines for a request.
///
/// # Errors
///
/// When the socket cannot be used at all.
pub async fn run<F>(
    socket: Bound,
    greeting: Greeting,
    own_uid: u32,
    answer: F,
    intake: CancellationToken,
) -> io::Result<()>
where
    F: Fn(Request) -> BoxStream<'static, Answer> + Send + Sync,
{
    let listener = socket.listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let long = Semaphore::new(MAX_LONG);
    let mut peers = FuturesUnordered::new();
    loop {
        let may_come = peers.len() < MAX_PEERS;
        tokio::select! {
            biased;
            () = intake.cancelled() => return Ok(()),
            Some(()) = peers.next(), if !peers.is_empty() => {}
            accepted = accept(&listener, own_uid), if may_come => {
                if let Some(stream) = accepted {
                    peers.push(serve(stream, &greeting, &answer, &long));
                }
            }
        }
    }
}

/// The next peer that may ask; none where somebody else came.
async fn accept(listener: &UnixListener, own_uid: u32) -> Option<UnixStream> {
    let Ok((stream, _)) = listener.accept().await else {
        tokio::time::sleep(PAUSE).await;
        return None;
    };
    is_trusted(&stream, own_uid).is_ok_and(|trusted| trusted).then_some(stream)
}

async fn serve<F>(mut stream: UnixStream, greeting: &Greeting, answer: &F, long: &Semaphore)
where
    F: Fn(Request) -> BoxStream<'static, Answer>,
{
    let talk = async {
        let (reader, mut writer) = stream.split();
        limited(send(&mut writer, greeting)).await?;
        let mut line = Vec::new();
        let mut reader = BufReader::new(reader.take(MAX_REQUEST));
        limited(async { reader.read_until(b'\n', &mut line).await }).await?;
        let (mut lines, limit, _turn) = match understood(&line) {
            Ok(request) if request.is_long() => match long.try_acquire() {
                Ok(turn) => (answer(request), FOLLOWER_LIMIT, Some(turn)),
                Err(_) => (error(format!("{MAX_LONG} others wait for long answers already")), PEER_LIMIT, None),
            },
            Ok(request) => (answer(request), PEER_LIMIT, None),
            Err(reason) => (error(reason), PEER_LIMIT, None),
        };
        let mut rest = reader.into_inner().into_inner();
        loop {
            let next = tokio::select! {
                biased;
                next = lines.next() => next,
                // A peer that has gone would be noticed at the next line only.
                () = gone(&mut rest) => return Ok(()),
            };
            let Some(line) = next else { break };
            timeout(limit, send(&mut writer, &line)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        }
        limited(send(&mut writer, &Answer::End {})).await?;
        Ok::<_, io::Error>(())
    };
    // Who asked may be gone, which is none of our business.
    if let Err(error) = talk.await {
        debug!(%error, "control request not answered");
    }
}

fn error(reason: String) -> BoxStream<'static, Answer> {
    futures::stream::once(async { Answer::Error(reason) }).boxed()
}

/// Waits until the peer closes the connection; what it says is overlooked.
async fn gone(reader: &mut (impl AsyncReadExt + Unpin)) {
    let mut overlooked = [0; 256];
    while reader.read(&mut overlooked).await.is_ok_and(|read| read > 0) {}
}

fn understood(line: &[u8]) -> Result<Request, String> {
    if line.last() != Some(&b'\n') {
        return Err(format!("a request is one line of at most {MAX_REQUEST} bytes"));
    }
    // What a newer client asks for may have a form that is not known here: its version is looked at first.
    let asked: serde_json::Value = serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))?;
    match asked.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        _ => return Err(format!("version of the request is not known; this daemon understands {VERSION}")),
    }
    serde_json::from_value::<Asked>(asked).map(|asked| asked.request).map_err(|error| format!("no request: {error}"))
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), line: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

async fn limited<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PEER_LIMIT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
