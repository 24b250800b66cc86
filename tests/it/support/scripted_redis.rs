//! A server that reads requests as Redis does and answers what a test says: any bytes, any number of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use sense_orchestrator::bus::redis::{Address, Endpoint};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// What the server answers to a request: bytes, or none to let `Redis` answer as a server without keys would.
pub(crate) type Script = Box<dyn Fn(&[String]) -> Option<Vec<u8>> + Send + Sync>;

/// The server; it ends with this value.
pub(crate) struct ScriptedRedis {
    socket: PathBuf,
    accepting: JoinHandle<()>,
    requests: Arc<Mutex<Vec<Vec<String>>>>,
    written: Arc<Mutex<u64>>,
}

impl ScriptedRedis {
    pub(crate) fn start(script: impl Fn(&[String]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::start_with(script, None)
    }

    /// A server without keys that is silent on one connection, by its number from 1, once it answered the login there.
    pub(crate) fn mute_on(connection: usize) -> Self {
        Self::start_with(|_| None, Some(connection))
    }

    fn start_with(
        script: impl Fn(&[String]) -> Option<Vec<u8>> + Send + Sync + 'static,
        mute_on: Option<usize>,
    ) -> Self {
        let script: Arc<Script> = Arc::new(Box::new(script));
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("sense-scripted-{}-{id}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket for the server");
        let (requests, written) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<u64>>::default());
        let (seen, sent) = (Arc::clone(&requests), Arc::clone(&written));
        let accepting = tokio::spawn(async move {
            let mut count = 0;
            while let Ok((stream, _)) = listener.accept().await {
                count += 1;
                let is_mute = mute_on == Some(count);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen), Arc::clone(&sent), is_mute));
            }
        });
        Self { socket, accepting, requests, written }
    }

    pub(crate) fn address(&self) -> Address {
        let endpoint = Endpoint::Unix(self.socket.clone());
        Address { endpoint, tls: false, username: None, password: None, database: None }
    }

    /// The requests so far, of all connections.
    pub(crate) fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().unwrap().clone()
    }

    /// How many bytes of scripted answers were taken from it.
    pub(crate) fn written(&self) -> u64 {
        *self.written.lock().unwrap()
    }
}

impl Drop for ScriptedRedis {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn serve(
    stream: UnixStream,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Vec<String>>>>,
    sent: Arc<Mutex<u64>>,
    is_mute: bool,
) -> Option<()> {
    let mut stream = BufStream::new(stream);
    let mut is_silent = false;
    loop {
        let words = request(&mut stream).await?;
        seen.lock().unwrap().push(words.clone());
        if is_silent {
            continue;
        }
        is_silent = is_mute;
        if let Some(answer) = script(&words) {
            for piece in answer.chunks(64 * 1024) {
                stream.write_all(piece).await.ok()?;
                *sent.lock().unwrap() += u64::try_from(piece.len()).unwrap();
            }
        } else {
            stream.write_all(&usual(&words)).await.ok()?;
        }
        stream.flush().await.ok()?;
    }
}

/// What a Redis without keys answers.
fn usual(words: &[String]) -> Vec<u8> {
    let answer = match words.first().map(|word| word.to_uppercase()).as_deref() {
        Some("PING") => "+PONG\r\n".to_owned(),
        Some("CLIENT" | "STRLEN" | "DEL" | "PUBLISH" | "LPUSH") => ":0\r\n".to_owned(),
        Some("INFO") => "$0\r\n\r\n".to_owned(),
        Some("MGET") => format!("*{}\r\n{}", words.len() - 1, "$-1\r\n".repeat(words.len() - 1)),
        Some("SUBSCRIBE") => {
            let channels = words.iter().skip(1);
            let confirmed =
                channels.map(|channel| format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:1\r\n", channel.len()));
            confirmed.collect::<Vec<_>>().concat()
        }
        _ => "+OK\r\n".to_owned(),
    };
    answer.into_bytes()
}

/// A request as a list; an inline one as its words. None at the end of the connection.
async fn request(stream: &mut BufStream<UnixStream>) -> Option<Vec<String>> {
    let first = line(stream).await?;
    let Some(count) = first.strip_prefix('*') else {
        return Some(first.split(' ').map(str::to_owned).collect());
    };
    let mut words = Vec::new();
    for _ in 0..count.parse::<usize>().ok()? {
        let length: usize = line(stream).await?.strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(length);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn line(stream: &mut BufStream<UnixStream>) -> Option<String> {
    let mut line = String::new();
    let count = stream.read_line(&mut line).await.ok()?;
    (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}
