//! HTTP/1.1 to the Engine over connections that are kept, with every answer bounded in bytes.
//!
//! A connection is driven by the call that uses it, not by a task: a call that is dropped ends its connection, and an
//! idle one wakes nobody.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connect::{Host, Socket, dial};

/// Answers that are longer than this are read few at a time, so that many calls at once don't add up.
const SMALL_ANSWER: usize = 64 << 10;

/// How many answers over [`SMALL_ANSWER`] are read at a time.
const LARGE_ANSWERS: usize = 2;

/// Longest head of an answer, and largest piece of a body, in bytes.
const BUFFER_LIMIT: usize = 64 << 10;

/// Connections that are kept while no call uses them.
const IDLE_LIMIT: usize = 16;

/// What stands for itself in a path's segment and in a query's value.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// The same with what image references also hold.
const REFERENCE: AsciiSet = PLAIN.remove(b'/').remove(b'@');

/// A name or id as a segment of a path.
pub(super) fn segment(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, &PLAIN)
}

/// An image reference as a part of a path.
pub(super) fn reference(reference: &str) -> impl std::fmt::Display {
    utf8_percent_encode(reference, &REFERENCE)
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("connection broke")]
    Broken(#[source] hyper::Error),
    #[error("request cannot be written")]
    Request(#[from] hyper::http::Error),
    #[error("the answer is longer than {0} bytes, which is the limit")]
    TooLong(usize),
}

/// A request, but for the version that goes before its path.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: Method,
    target: String,
    content_type: Option<&'static str>,
    registry_auth: Option<String>,
    body: Bytes,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, target: path.into(), content_type: None, registry_auth: None, body: Bytes::new() }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Adds a parameter to the query.
    pub(super) fn query(mut self, key: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(key);
        self.target.push('=');
        self.target.extend(utf8_percent_encode(value, &PLAIN));
        self
    }

    /// Sends a value as JSON.
    pub(super) fn json(self, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.body("application/json", serde_json::to_vec(body)?.into()))
    }

    pub(super) fn body(self, content_type: &'static str, body: Bytes) -> Self {
        Self { content_type: Some(content_type), body, ..self }
    }

    pub(super) fn registry_auth(self, registry_auth: Option<String>) -> Self {
        Self { registry_auth, ..self }
    }

    /// Asked twice, it does what it does once.
    fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    fn to_http(&self, prefix: &str, host: &Host) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let authority = match host {
            Host::Unix(_) => "localhost",
            Host::Tcp { address, .. } => address,
        };
        let request = hyper::Request::builder().method(self.method.clone()).uri(format!("{prefix}{}", self.target));
        let mut request = request.header(HOST, authority);
        if let Some(content_type) = self.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(registry_auth) = &self.registry_auth {
            request = request.header("X-Registry-Auth", registry_auth);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

type Http = http1::Connection<TokioIo<Box<dyn Socket>>, Full<Bytes>>;

/// The half of a connection that reads and writes; none once it has ended.
struct Driver(Option<Pin<Box<Http>>>);

impl Driver {
    /// Carries on with both the connection and some work on it, until the work is done.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }
}

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
}

/// Why a request was not answered.
struct Unanswered {
    error: hyper::Error,
    /// Not a byte of it left.
    unsent: bool,
}

impl Connection {
    async fn open(host: &Host) -> Result<Self, Failure> {
        let socket = dial(host).await.map_err(|source| Failure::Connect { address: host.to_string(), source })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_LIMIT)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(Failure::Broken)?;
        Ok(Self { sender, driver: Driver(Some(Box::pin(connection))) })
    }

    /// Whether the other side has not closed it while it was idle.
    async fn is_open(&mut self) -> bool {
        let sender = &self.sender;
        self.driver.drive(poll_fn(|_| Poll::Ready(sender.is_ready()))).await
    }

    async fn exchange(
        &mut self,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, Unanswered> {
        let answer = self.sender.try_send_request(request);
        self.driver.drive(answer).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            Unanswered { error: error.into_error(), unsent }
        })
    }
}

/// The Engine's side of all connections.
pub(super) struct Client {
    host: Host,
    /// Longest answer that is read into memory, in bytes.
    answer_limit: usize,
    idle: Mutex<Vec<Connection>>,
    /// How often a connection ended that was in use or to be used again.
    breaks: AtomicU64,
    large: Semaphore,
}

impl Client {
    pub(super) fn new(host: Host, answer_limit: usize) -> Self {
        let large = Semaphore::new(LARGE_ANSWERS);
        Self { host, answer_limit, idle: Mutex::default(), breaks: AtomicU64::new(0), large }
    }

    /// How often a connection broke: the Engine that answers may be another one since.
    pub(super) fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Relaxed)
    }

    pub(super) fn note_break(&self) {
        self.breaks.fetch_add(1, Ordering::Relaxed);
    }

    async fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.is_open().await {
                return Some(connection);
            }
            self.note_break();
        }
    }

    /// Sends a request and returns with the head of its answer.
    ///
    /// On a connection that was idle, which the other side may close at that moment, it is sent again when none of it had
    /// left or when it may arrive twice.
    pub(super) async fn send(&self, request: &Request, prefix: &str) -> Result<Answer<'_>, Failure> {
        loop {
            let message = request.to_http(prefix, &self.host)?;
            let (mut connection, was_idle) = match self.idle().await {
                Some(connection) => (connection, true),
                None => (Connection::open(&self.host).await?, false),
            };
            match connection.exchange(message).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    return Ok(Answer { client: self, connection, status: head.status, headers: head.headers, body });
                }
                Err(Unanswered { error, unsent }) => {
                    self.note_break();
                    if !(was_idle && (unsent || request.is_idempotent())) {
                        return Err(Failure::Broken(error));
                    }
                }
            }
        }
    }
}

/// An answer, whose body is still to be read.
pub(super) struct Answer<'a> {
    client: &'a Client,
    connection: Connection,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
}

/// A body that was read to its end.
pub(super) struct Whole<'a> {
    pub(super) bytes: Bytes,
    /// Held until a large body was made use of.
    _turn: Option<SemaphorePermit<'a>>,
}

impl<'a> Answer<'a> {
    /// The next piece of the body; none at its end. To be called again after a call was dropped is safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.connection.driver.drive(self.body.frame()).await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(error)) => {
                    self.client.note_break();
                    return Err(Failure::Broken(error));
                }
            }
        }
    }

    /// Keeps the connection of an answer that was read to its end for the next call.
    pub(super) async fn finish(self) {
        let Connection { mut sender, mut driver } = self.connection;
        drop(self.body);
        if driver.drive(poll_fn(|context| sender.poll_ready(context))).await.is_ok() {
            let mut idle = self.client.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_LIMIT {
                idle.push(Connection { sender, driver });
            }
        }
    }

    /// Most bytes of the body that may be held at a time.
    pub(super) fn limit(&self) -> usize {
        self.client.answer_limit
    }

    /// Reads the body to its end, or fails when it is longer than the limit.
    pub(super) async fn read(mut self) -> Result<Whole<'a>, Failure> {
        let limit = self.limit();
        if self.body.size_hint().lower() > limit as u64 {
            return Err(Failure::TooLong(limit));
        }
        let (mut all, mut turn) = (BytesMut::new(), None);
        while let Some(piece) = self.next().await? {
            let length = all.len() + piece.len();
            if length > limit {
                return Err(Failure::TooLong(limit));
            }
            if length > SMALL_ANSWER && turn.is_none() {
                turn = self.client.large.acquire().await.ok();
            }
            all.extend_from_slice(&piece);
        }
        self.finish().await;
        Ok(Whole { bytes: all.freeze(), _turn: turn })
    }

    /// Reads the beginning of the body, `limit` bytes at most.
    pub(super) async fn read_some(mut self, limit: usize) -> Result<Bytes, Failure> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
            if all.len() > limit {
                all.truncate(limit);
                return Ok(all.freeze());
            }
        }
        self.finish().await;
        Ok(all.freeze())
    }
}
