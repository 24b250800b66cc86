//! An Engine at a socket whose every answer is written by the test, byte for byte.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sense_orchestrator::engine::docker::{Docker, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::bounds::bounds;
use super::stack::Folder;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes, and then the next request.
    Bytes(Vec<u8>),
    /// These bytes, and then silence on an open connection.
    Stall(Vec<u8>),
    /// These bytes, and then the end of the connection.
    Close(Vec<u8>),
    /// This piece of a body again and again, for so many bytes.
    Endless { head: Vec<u8>, piece: Vec<u8>, total: usize },
}

/// An answer with a body in JSON.
pub(crate) fn json(status: u16, body: &str) -> Reply {
    with_version("1.41", status, body)
}

/// The same from an Engine of that API version.
pub(crate) fn with_version(api: &str, status: u16, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nApi-Version: {api}\r\nContent-Type: application/json\r\n");
    Reply::Bytes(format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes())
}

/// The head of an answer without a length.
pub(crate) const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

type Answers = dyn Fn(&str) -> Reply + Send + Sync;

/// The Engine; it ends when dropped.
pub(crate) struct HttpEngine {
    folder: Folder,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for HttpEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpEngine {
    /// Answers each request as told, from method and path such as `GET /v1.41/images/x/json`.
    pub(crate) fn start(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.0.join("engine.sock")).unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let (answers, log, count): (Arc<Answers>, _, _) =
            (Arc::new(answers), Arc::clone(&requests), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (answers, log) = (Arc::clone(&answers), Arc::clone(&log));
                tokio::spawn(async move { serve(socket, &*answers, &log).await.ok() });
            }
        });
        Self { folder, requests, connections, task }
    }

    /// The adapter under test, at this Engine.
    pub(crate) fn client(&self) -> Docker {
        Docker::new(Host::Unix(self.folder.0.join("engine.sock")), None, bounds())
    }

    /// Method and path of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut socket: UnixStream, answers: &Answers, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        socket.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
        let line = head.lines().next().unwrap_or_default();
        let (method, rest) = line.split_once(' ').unwrap_or_default();
        let request = format!("{} {}", method.to_uppercase(), rest.trim_end_matches(" http/1.1"));
        log.lock().unwrap().push(request.clone());
        match answers(&request) {
            Reply::Bytes(bytes) => socket.write_all(&bytes).await?,
            Reply::Stall(bytes) => {
                socket.write_all(&bytes).await?;
                std::future::pending::<()>().await;
            }
            Reply::Close(bytes) => return socket.write_all(&bytes).await,
            Reply::Endless { head, piece, total } => {
                socket.write_all(&head).await?;
                for _ in 0..total / piece.len() {
                    socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                    socket.write_all(&piece).await?;
                    socket.write_all(b"\r\n").await?;
                }
                socket.write_all(b"0\r\n\r\n").await?;
            }
        }
    }
}
