//! The [`Bus`] on a Redis server; the only file that names fred.
//!
//! Each connection is a fresh pair of clients, one for commands and one for subscriptions, and neither of them reconnects by
//! itself: a command of an old connection cannot be sent on a new one, and a new one counts as up only once its
//! subscriptions are confirmed.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::prelude::{
    Builder, ClientLike, EventInterface, Expiration, KeysInterface, ListInterface, PubsubInterface, SetOptions,
};
use fred::socket2::TcpKeepalive;
use fred::types::config::{Config, ServerConfig, TcpConfig};
use fred::types::{ConnectHandle, RespVersion, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::subscription::{Feed, subscription};
use super::{Bus, BusError, Connection, Subscription};

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// First and longest wait between two attempts to connect. The longest is short, for all work waits for Redis' return.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A standing failure is logged this often.
const REMIND: Duration = Duration::from_hours(1);

/// Messages that fred holds until they are taken over. It decodes a whole read at once: several thousand small messages.
const FRED_CAPACITY: usize = 8192;

/// Where Redis is and how to log in; `Debug` shows no password.
#[derive(Clone)]
struct Address(Config);

/// Why a URL cannot be used. The URL is not repeated, for it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Another scheme.
    #[error("the Redis URL starts with redis://, rediss://, valkey://, valkeys:// or unix://")]
    Scheme,
    /// Unreadable.
    #[error("the Redis URL is malformed: {0}")]
    Malformed(String),
}

/// The connection to Redis.
#[derive(Debug, Clone)]
pub struct RedisBus(Arc<Shared>);

struct Shared {
    address: Address,
    generation: AtomicU64,
    connection: watch::Sender<Connection>,
    link: Mutex<Option<Link>>,
    feeds: Mutex<Vec<Feed>>,
    /// A subscription was added.
    subscribed: Notify,
    /// A call was not answered in time.
    suspected: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("connection", &*self.connection.borrow()).finish_non_exhaustive()
    }
}

/// The clients of one connection.
#[derive(Clone)]
struct Link {
    commands: Client,
    subscriber: Client,
    version: RespVersion,
}

impl RedisBus {
    /// A bus that connects once [`RedisBus::run`] runs.
    ///
    /// URLs: `redis://[user:password@]host[:port][/database]`, the same with `rediss` for TLS, with `valkey` and `valkeys`, and
    /// `unix://[user:password@]/path[?db=database]`. User and password are percent-encoded.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let reason = "not connected yet".to_owned();
        Ok(Self(Arc::new(Shared {
            address: Address(address(url)?),
            generation: AtomicU64::new(0),
            connection: watch::Sender::new(Connection::Down { reason }),
            link: Mutex::default(),
            feeds: Mutex::default(),
            subscribed: Notify::new(),
            suspected: Notify::new(),
        })))
    }

    /// Keeps the connection up until `stop`, then closes it and ends the subscriptions.
    pub async fn run(&self, stop: CancellationToken) {
        let mut trouble = Trouble::default();
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.session(&mut trouble) => ended,
            };
            self.0.link().take();
            let reason = ended.to_string();
            trouble.log(&reason);
            self.0.connection.send_replace(Connection::Down { reason });
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(trouble.backoff()) => {}
            }
        }
        let link = self.0.link().take();
        self.0.connection.send_replace(Connection::Down { reason: "closed".to_owned() });
        for feed in self.0.feeds().iter() {
            feed.close();
        }
        if let Some(link) = link {
            let _ = link.commands.quit().await;
            let _ = link.subscriber.quit().await;
        }
    }

    /// One connection, from the first attempt to its end; returns why it ended.
    async fn session(&self, trouble: &mut Trouble) -> FredError {
        match self.connect(trouble.version.clone()).await {
            Ok(session) => {
                *trouble = Trouble { version: trouble.version.clone(), ..Trouble::default() };
                self.serve(session).await
            }
            Err(error) => {
                if trouble.version == RespVersion::RESP3 && lacks_resp3(&error) {
                    trouble.version = RespVersion::RESP2;
                }
                error
            }
        }
    }

    async fn connect(&self, version: RespVersion) -> Result<Session, FredError> {
        let builder = self.0.address.builder(version.clone());
        let (commands, subscriber) = (builder.build()?, builder.build()?);
        let messages = subscriber.message_rx();
        let tasks = [Task(commands.init().await?), Task(subscriber.init().await?)];
        let session = Session { link: Link { commands, subscriber, version }, messages, tasks };
        session.subscribe(&self.0.channels()).await?;
        Ok(session)
    }

    async fn serve(&self, mut session: Session) -> FredError {
        let shared = &*self.0;
        *shared.link() = Some(session.link.clone());
        let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
        // Live before up: who waits for the connection may then rely on the subscriptions.
        shared.feeds().iter().for_each(|feed| feed.live(generation));
        shared.connection.send_replace(Connection::Up { generation });
        tracing::info!(generation, resp = session.link.resp(), "redis connected");
        loop {
            let [commands, subscriber] = &mut session.tasks;
            tokio::select! {
                ended = &mut commands.0 => return end(ended),
                ended = &mut subscriber.0 => return end(ended),
                received = session.messages.recv() => match received {
                    Ok(message) => shared.hand_over(&message.channel, message.value),
                    Err(RecvError::Lagged(lost)) => shared.feeds().iter().for_each(|feed| feed.lost(lost)),
                    Err(RecvError::Closed) => return FredError::new(ErrorKind::IO, "subscriber closed"),
                },
                () = shared.subscribed.notified() => {
                    let channels = shared.channels();
                    if let Err(error) = session.subscribe(&channels).await {
                        return error;
                    }
                    shared.feeds().iter().for_each(|feed| feed.live(generation));
                }
                () = shared.suspected.notified() => {
                    if let Err(error) = session.link.ping().await {
                        return error;
                    }
                }
            }
        }
    }

    /// Carries out a command on the present connection.
    async fn call<T, F, Fut>(&self, name: &'static str, command: F) -> Result<T, BusError>
    where
        F: FnOnce(Client) -> Fut + Send,
        Fut: Future<Output = Result<T, FredError>> + Send,
    {
        let client = self.0.link().as_ref().map(|link| link.commands.clone());
        let Some(client) = client else { return Err(self.0.down()) };
        command(client).await.map_err(|error| self.0.failed(name, error))
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feeds(&self) -> MutexGuard<'_, Vec<Feed>> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|feed| !feed.is_orphan());
        feeds
    }

    fn channels(&self) -> Vec<String> {
        let mut channels: Vec<String> =
            self.feeds().iter().flat_map(Feed::channels).map(|channel| channel.as_ref().to_owned()).collect();
        channels.sort_unstable();
        channels.dedup();
        channels
    }

    fn hand_over(&self, channel: &str, payload: Value) {
        let Some(payload) = payload.into_bytes() else { return };
        // A copy, for fred's bytes would keep the whole of a large read alive.
        let payload = Bytes::copy_from_slice(&payload);
        for feed in self.feeds().iter() {
            feed.message(channel, &payload);
        }
    }

    fn down(&self) -> BusError {
        let reason = match &*self.connection.borrow() {
            Connection::Down { reason } => reason.clone(),
            Connection::Up { .. } => "not connected".to_owned(),
        };
        BusError::Unavailable { source: reason.into() }
    }

    fn failed(&self, call: &'static str, error: FredError) -> BusError {
        match error.kind() {
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing => BusError::Unavailable { source: error.into() },
            ErrorKind::Timeout => {
                self.suspected.notify_one();
                BusError::Unavailable { source: error.into() }
            }
            _ => BusError::Refused { call, source: error.into() },
        }
    }
}

/// A connection that stands.
struct Session {
    link: Link,
    messages: broadcast::Receiver<fred::types::Message>,
    tasks: [Task; 2],
}

impl Session {
    /// Subscribes, and returns once Redis confirmed it.
    async fn subscribe(&self, channels: &[String]) -> Result<(), FredError> {
        if !channels.is_empty() {
            self.link.subscriber.subscribe(channels.to_vec()).await?;
        }
        // fred does not wait for the confirmation; the answer to what is sent behind it comes behind it.
        self.link.subscriber.ping::<Value>(None).await.map(drop)
    }
}

impl Link {
    async fn ping(&self) -> Result<(), FredError> {
        let answers = futures::join!(self.commands.ping::<Value>(None), self.subscriber.ping::<Value>(None));
        answers.0.and(answers.1).map(drop)
    }

    fn resp(&self) -> u8 {
        match self.version {
            RespVersion::RESP2 => 2,
            RespVersion::RESP3 => 3,
        }
    }
}

/// A client's task, which ends with the connection. Its end closes the socket.
struct Task(ConnectHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a client's task ended.
fn end(ended: Result<Result<(), FredError>, tokio::task::JoinError>) -> FredError {
    match ended {
        Ok(Ok(())) => FredError::new(ErrorKind::IO, "connection closed"),
        Ok(Err(error)) => error,
        Err(error) => FredError::new(ErrorKind::Unknown, error.to_string()),
    }
}

/// What is remembered from one attempt to connect to the next.
struct Trouble {
    version: RespVersion,
    failures: u32,
    told: Option<tokio::time::Instant>,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { version: RespVersion::RESP3, failures: 0, told: None }
    }
}

impl Trouble {
    /// Logs a failure: the first one and hourly as a warning, the others for debugging.
    fn log(&mut self, reason: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= REMIND) {
            self.told = Some(tokio::time::Instant::now());
            tracing::warn!(reason, "redis unavailable");
        } else {
            tracing::debug!(reason, "redis still unavailable");
        }
    }

    fn backoff(&mut self) -> Duration {
        let (first, longest) = BACKOFF;
        let wait = first.saturating_mul(2u32.saturating_pow(self.failures)).min(longest);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// Whether the server, or what stands before it, does not know RESP3.
fn lacks_resp3(error: &FredError) -> bool {
    let details = error.details().to_ascii_lowercase();
    ["noproto", "hello", "unknown command"].iter().any(|sign| details.contains(sign))
}

impl Address {
    fn builder(&self, version: RespVersion) -> Builder {
        let mut builder = Builder::from_config(Config { version, fail_fast: true, ..self.0.clone() });
        builder
            .with_connection_config(|connection| {
                connection.connection_timeout = ANSWER_LIMIT;
                connection.internal_command_timeout = ANSWER_LIMIT;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = FRED_CAPACITY;
                // The kernel finds a dead peer by itself: no timer of ours wakes up for it.
                let keepalive =
                    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(3));
                connection.tcp = TcpConfig { nodelay: Some(true), keepalive: Some(keepalive), ..TcpConfig::default() };
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = ANSWER_LIMIT;
                performance.broadcast_channel_capacity = FRED_CAPACITY;
            });
        builder
    }
}

fn address(url: &str) -> Result<Config, UrlError> {
    let malformed = |error: FredError| UrlError::Malformed(error.details().to_owned());
    let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
    match scheme {
        "redis" | "valkey" => Config::from_url_centralized(url).map_err(malformed),
        "rediss" | "valkeys" if cfg!(feature = "tls") => Config::from_url_centralized(url).map_err(malformed),
        "rediss" | "valkeys" => Err(UrlError::Malformed("this build has no TLS".to_owned())),
        "unix" | "redis+unix" | "valkey+unix" => socket_address(rest),
        _ => Err(UrlError::Scheme),
    }
}

/// `[user:password@]/path[?db=N]`
fn socket_address(rest: &str) -> Result<Config, UrlError> {
    let malformed = |what: &str| UrlError::Malformed(what.to_owned());
    let (rest, database) = match rest.split_once("?db=") {
        Some((rest, database)) => {
            let database = database.parse().map_err(|_| malformed("the database is a number from 0 to 255"))?;
            (rest, Some(database))
        }
        None => (rest, None),
    };
    let at = rest.find('/').ok_or_else(|| malformed("the path of the socket is absolute"))?;
    let (credentials, path) = rest.split_at(at);
    let credentials = credentials.strip_suffix('@').unwrap_or(credentials);
    // fred reads credentials only where there is a host as well, and drops the host.
    let parsed = Config::from_url_centralized(&format!(
        "redis://{credentials}{}localhost",
        if credentials.is_empty() { "" } else { "@" }
    ))
    .map_err(|error| UrlError::Malformed(error.details().to_owned()))?;
    Ok(Config { server: ServerConfig::new_unix_socket(path), database, ..parsed })
}

impl Bus for RedisBus {
    fn connection(&self) -> watch::Receiver<Connection> {
        self.0.connection.subscribe()
    }

    fn subscribe(&self, channels: &[String]) -> Subscription {
        let (feed, subscription) = subscription(channels);
        self.0.feeds().push(feed);
        self.0.subscribed.notify_one();
        subscription
    }

    async fn publish(&self, channel: &str, payload: &str) -> Result<u64, BusError> {
        let (channel, payload) = (channel.to_owned(), payload.to_owned());
        self.call("PUBLISH", |client| async move { client.publish(channel, payload).await }).await
    }

    async fn get(&self, keys: &[String]) -> Result<Vec<Option<String>>, BusError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        let values: Value = self.call("MGET", |client| async move { client.mget(keys).await }).await?;
        Ok(match values {
            Value::Array(values) => values.into_iter().map(Value::into_string).collect(),
            single => vec![single.into_string()],
        })
    }

    async fn set(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<(), BusError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let expires = expires.map(|span| Expiration::PX(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)));
        self.call("SET", |client| async move { client.set::<(), _, _>(key, value, expires, None, false).await }).await
    }

    async fn set_absent(&self, key: &str, value: &str) -> Result<bool, BusError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let set: Option<String> = self
            .call("SET", |client| async move { client.set(key, value, None, Some(SetOptions::NX), false).await })
            .await?;
        Ok(set.is_some())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BusError> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys = keys.to_vec();
        self.call("DEL", |client| async move { client.del::<(), _>(keys).await }).await
    }

    async fn push(&self, key: &str, value: &str, keep: u16) -> Result<(), BusError> {
        let (key, value, last) = (key.to_owned(), value.to_owned(), i64::from(keep) - 1);
        self.call("LPUSH", |client| async move {
            client.lpush::<(), _, _>(key.clone(), value).await?;
            client.ltrim::<(), _>(key, 0, last).await
        })
        .await
    }

    async fn heartbeat(&self) -> Result<(), BusError> {
        let link = self.0.link().clone();
        let Some(link) = link else { return Err(self.0.down()) };
        link.ping().await.map_err(|error| {
            self.0.suspected.notify_one();
            self.0.failed("PING", error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_host_user_password_database_and_socket() {
        let config = address("redis://user:p%40ss%2F@host:6380/3").unwrap();
        assert_eq!(config.server, ServerConfig::new_centralized("host", 6380));
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("user"), Some("p@ss/")));
        assert_eq!(config.database, Some(3));

        let config = address("redis://:secret@host").unwrap();
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (None, Some("secret")));

        let config = address("unix://u:p%3A@/run/redis.sock?db=2").unwrap();
        assert_eq!(config.server, ServerConfig::new_unix_socket("/run/redis.sock"));
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("u"), Some("p:")));
        assert_eq!(config.database, Some(2));
        assert!(address("unix:///run/redis.sock").unwrap().password.is_none());
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "",
            "host:6379",
            "http://host",
            "redis-cluster://host",
            "redis://u:hunter2@",
            "unix://x?db=x",
            "redis://:hunter2@h/x",
        ] {
            let error = address(url).map(drop).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
