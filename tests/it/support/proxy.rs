//! A proxy before the real Engine's socket that delays, drops and falsifies chosen calls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// An answer that the Engine did not give.
const REFUSAL: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n\
    Content-Length: 21\r\n\r\n{\"message\":\"made up\"}";

/// What happens to a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// It is passed on after that time.
    Held(Duration),
    /// It is passed on, and the connection closed at once.
    Cut,
    /// It is carried out, and answered with 500.
    Refused,
    /// It is carried out, and never answered.
    Unanswered,
    /// It is carried out, and its answer stops after 8 bytes of its body.
    Stalled,
}

/// Bytes of a body that arrive of an answer that stalls.
const BEFORE_STALL: usize = 8;

#[derive(Debug, Default)]
struct State {
    /// Words of a request line, all of which the call has, and what happens to the first such call.
    mishaps: Vec<(&'static [&'static str], Mishap)>,
    /// Calls that met with a mishap.
    met: usize,
}

/// The proxy; it ends when dropped.
pub(crate) struct Proxy {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Proxy {
    /// Listens at `path` and passes on to the socket of the Engine, an address such as `unix:///path`.
    pub(crate) fn start(path: &Path, engine: &str) -> Self {
        let engine: PathBuf = engine.strip_prefix("unix://").expect("the engine under test is at a socket").into();
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (engine, state) = (engine.clone(), Arc::clone(&shared));
                // Who broke the connection is of no interest here.
                tokio::spawn(async move { pass(client, &engine, &state).await.ok() });
            }
        });
        Self { path: path.to_owned(), state, task }
    }

    /// Lets the next call whose request line has all of these words meet with a mishap.
    pub(crate) fn expect(&self, words: &'static [&'static str], mishap: Mishap) {
        self.state.lock().unwrap().mishaps.push((words, mishap));
    }

    /// How many calls met with a mishap.
    pub(crate) fn met(&self) -> usize {
        self.state.lock().unwrap().met
    }
}

async fn pass(mut client: UnixStream, engine: &Path, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let end = head.iter().position(|byte| *byte == b'\r').unwrap();
    let line = String::from_utf8_lossy(&head[..end]).into_owned();
    let mishap = {
        let mut state = state.lock().unwrap();
        let met = state.mishaps.iter().position(|(words, _)| words.iter().all(|word| line.contains(word)));
        state.met += usize::from(met.is_some());
        met.map(|at| state.mishaps.remove(at).1)
    };
    if let Some(Mishap::Held(time)) = mishap {
        sleep(time).await;
    }
    // One call a connection, so that the next one is seen as well.
    let mut upstream = UnixStream::connect(engine).await?;
    upstream.write_all(&head[..end]).await?;
    upstream.write_all(b"\r\nConnection: close").await?;
    upstream.write_all(&head[end..]).await?;
    match mishap {
        None | Some(Mishap::Held(_)) => {
            copy_bidirectional(&mut client, &mut upstream).await?;
        }
        Some(mishap) => {
            let length = String::from_utf8_lossy(&head).to_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            client.read_exact(&mut body).await?;
            upstream.write_all(&body).await?;
            let mut answer = Vec::new();
            if matches!(mishap, Mishap::Refused | Mishap::Unanswered | Mishap::Stalled) {
                upstream.read_to_end(&mut answer).await?;
            }
            match mishap {
                Mishap::Stalled => {
                    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
                    client.write_all(&answer[..head + BEFORE_STALL]).await?;
                    std::future::pending::<()>().await;
                }
                Mishap::Unanswered => std::future::pending::<()>().await,
                Mishap::Refused => client.write_all(REFUSAL).await?,
                Mishap::Cut | Mishap::Held(_) => {}
            }
        }
    }
    Ok(())
}
