//! A redis-server of a test's own, in a folder of its own, and a client that speaks the protocol past the code under test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sense_orchestrator::bus::redis::{Address, Endpoint, RedisBus};
use sense_orchestrator::message::OwnNames;
use sense_orchestrator::monitor::connection;
use sense_orchestrator::observer::{Events, log};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bounds::bounds;
use super::missing_server;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A redis-server without persistence, as the stack's is; it ends with this value.
pub(crate) struct RedisServer {
    folder: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts a server; none, after saying so, where there is no redis-server and none is promised.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more of its options, `--requirepass secret`.
    pub(crate) async fn start_with(arguments: &[&str]) -> Option<Self> {
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sense-redis-{}-{id}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for redis-server");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { folder, arguments, process: None };
        if !server.launch() {
            return missing_server("redis");
        }
        server.ready().await;
        Some(server)
    }

    fn launch(&mut self) -> bool {
        let process = Command::new("redis-server")
            .current_dir(&self.folder)
            .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = process.ok();
        self.process.is_some()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    async fn ready(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(self.socket()).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "redis-server does not answer on its socket");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its address, without credentials.
    pub(crate) fn address(&self) -> Address {
        Address { endpoint: Endpoint::Unix(self.socket()), tls: false, username: None, password: None, database: None }
    }

    /// A bus on it, running until it is dropped.
    pub(crate) fn bus(&self) -> RunningBus {
        RunningBus::on(&self.address())
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it again, empty.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "redis-server starts again");
        self.ready().await;
    }

    /// Stops the process without ending it, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let pid = self.process.as_ref().expect("the server runs").id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill is there");
        assert!(done.success());
    }

    /// A connection of a client of our own.
    pub(crate) async fn client(&self) -> RawClient {
        let stream = UnixStream::connect(self.socket()).await.expect("redis-server accepts");
        RawClient(BufStream::new(stream))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A bus that runs.
pub(crate) struct RunningBus {
    pub(crate) bus: Arc<RedisBus>,
    stop: CancellationToken,
    run: Option<JoinHandle<()>>,
}

impl RunningBus {
    pub(crate) fn on(address: &Address) -> Self {
        let bus = Arc::new(RedisBus::new(address, OwnNames::default(), bounds()).expect("the address is usable"));
        let stop = CancellationToken::new();
        let run = tokio::spawn({
            let (bus, stop) = (Arc::clone(&bus), stop.clone());
            let events = Events::new(vec![Box::new(log::Log::default())]);
            async move {
                tokio::join!(bus.run(stop.clone()), connection::tell(bus.as_ref(), &events, stop));
            }
        });
        Self { bus, stop, run: Some(run) }
    }

    /// Closes the bus as the daemon does at its end.
    pub(crate) async fn close(&mut self) {
        self.stop.cancel();
        self.run.take().expect("closed once").await.expect("the bus ends");
    }
}

impl Drop for RunningBus {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Text(String),
    Error(String),
    Number(i64),
    Nil,
    List(Vec<Answer>),
}

impl Answer {
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Number(number) => number,
            other => panic!("not a number: {other:?}"),
        }
    }
}

/// A client that speaks RESP2 over a socket, as any other service of the stack might.
pub(crate) struct RawClient(BufStream<UnixStream>);

impl RawClient {
    /// Sends a command and reads its answer.
    pub(crate) async fn call(&mut self, words: &[&str]) -> Answer {
        self.send(words).await;
        self.answer().await
    }

    /// Sends a command.
    pub(crate) async fn send(&mut self, words: &[&str]) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.write(&words).await;
        self.0.flush().await.unwrap();
    }

    /// Writes a command of any bytes, unflushed.
    pub(crate) async fn write(&mut self, words: &[&[u8]]) {
        self.0.write_all(format!("*{}\r\n", words.len()).as_bytes()).await.unwrap();
        for word in words {
            self.0.write_all(format!("${}\r\n", word.len()).as_bytes()).await.unwrap();
            self.0.write_all(word).await.unwrap();
            self.0.write_all(b"\r\n").await.unwrap();
        }
    }

    /// Reads one answer, or one message on a subscribed channel.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.0.flush().await.unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("redis answers");
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" => Answer::Text(rest.into()),
            "-" => Answer::Error(rest.into()),
            ":" => Answer::Number(rest.parse().unwrap()),
            "$" if rest == "-1" => Answer::Nil,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut text).await.unwrap();
                text.truncate(text.len() - 2);
                Answer::Text(String::from_utf8_lossy(&text).into_owned())
            }
            "*" => {
                let mut list = Vec::new();
                for _ in 0..rest.parse::<usize>().unwrap() {
                    list.push(Box::pin(self.answer()).await);
                }
                Answer::List(list)
            }
            other => panic!("not an answer of Redis: {other}{rest}"),
        }
    }
}
