//! The [`Bus`] on a Redis server; with its `subscriber` the only file that names fred.
//!
//! Each connection is a fresh pair, a fred client for commands and a `Subscriber` for messages, and neither reconnects by
//! itself: a command of an old connection cannot be sent on a new one, and a new one counts as up only once its
//! subscriptions are confirmed.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::prelude::{Builder, ClientLike, Expiration, KeysInterface, ListInterface, PubsubInterface, SetOptions};
use fred::socket2::TcpKeepalive;
use fred::types::config::{Config, ServerConfig, TcpConfig};
use fred::types::{ConnectHandle, RespVersion, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::subscriber::{Arrival, Subscriber};
use super::subscription::{Crowd, Feed, subscription};
use super::{Bus, BusError, Connection, Subscription};

mod subscriber;

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// First and longest wait between two attempts to connect. The longest is short, for all work waits for Redis' return.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A standing failure is logged this often.
const REMIND: Duration = Duration::from_hours(1);

/// How long a message waits for a reader that is behind.
const CROWD_LIMIT: Duration = Duration::from_millis(500);

/// Commands that may wait for fred to send them.
const MOST_COMMANDS: usize = 4096;

/// Where Redis is and how to log in; `Debug` shows no password.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// TLS, with a certificate that the system trusts; for [`Endpoint::Tcp`] only.
    pub tls: bool,
    /// User of the ACL; none: the default user.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<SecretString>,
    /// Number of the database; none: 0.
    pub database: Option<u16>,
}

/// Where Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// Path of a socket.
    Unix(PathBuf),
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The database number is too large.
    #[error("redis database {0} is out of reach; 255 is the highest")]
    Database(u16),
    /// TLS is wanted of a build without it.
    #[error("this build speaks no TLS to redis")]
    NoTls,
    /// The certificates to trust cannot be read.
    #[error("no certificates to trust for TLS to redis")]
    Certificates {
        /// What reading them said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The connection to Redis.
#[derive(Debug, Clone)]
pub struct RedisBus(Arc<Shared>);

struct Shared {
    config: Config,
    generation: AtomicU64,
    connection: watch::Sender<Connection>,
    commands: Mutex<Option<Client>>,
    feeds: Mutex<Vec<Feed>>,
    /// A subscription was added.
    subscribed: Notify,
    /// Redis has to prove that it answers.
    suspected: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("connection", &*self.connection.borrow()).finish_non_exhaustive()
    }
}

impl RedisBus {
    /// A bus that connects once [`RedisBus::run`] runs.
    pub fn new(address: &Address) -> Result<Self, AddressError> {
        let reason = "not connected yet".to_owned();
        Ok(Self(Arc::new(Shared {
            config: config(address)?,
            generation: AtomicU64::new(0),
            connection: watch::Sender::new(Connection::Down { reason }),
            commands: Mutex::default(),
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
            self.0.commands().take();
            trouble.log(&ended);
            self.0.connection.send_replace(Connection::Down { reason: ended.to_string() });
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(trouble.backoff()) => {}
            }
        }
        let commands = self.0.commands().take();
        self.0.connection.send_replace(Connection::Down { reason: "closed".to_owned() });
        for feed in self.0.feeds().iter() {
            feed.close();
        }
        if let Some(commands) = commands {
            let _ = commands.quit().await;
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
        let commands = builder(&self.0.config, version).build()?;
        let task = Task(commands.init().await?);
        let subscriber = Subscriber::connect(&self.0.config, ANSWER_LIMIT).await?;
        let mut session = Session { commands, task, subscriber };
        self.subscribe(&mut session).await?;
        Ok(session)
    }

    async fn subscribe(&self, session: &mut Session) -> Result<(), FredError> {
        let meanwhile = session.subscriber.subscribe(&self.0.channels()).await?;
        for arrival in meanwhile {
            self.0.hand_over(arrival);
        }
        Ok(())
    }

    async fn serve(&self, mut session: Session) -> FredError {
        let shared = &*self.0;
        *shared.commands() = Some(session.commands.clone());
        let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
        // Live before up: who waits for the connection may then rely on the subscriptions.
        shared.feeds().iter().for_each(|feed| feed.live(generation));
        shared.connection.send_replace(Connection::Up { generation });
        tracing::info!(generation, resp = ?session.commands.protocol_version(), "redis connected");
        loop {
            let answer_due = session.subscriber.answer_due;
            tokio::select! {
                ended = &mut session.task.0 => return end(ended),
                arrived = session.subscriber.next() => match arrived {
                    Ok(arrival) => {
                        // Redis holds back what is not read yet; here what waits is bounded, and more of it lost.
                        for crowd in shared.hand_over(arrival) {
                            let _ = tokio::time::timeout(CROWD_LIMIT, crowd.disperse()).await;
                        }
                        tokio::task::consume_budget().await;
                    }
                    Err(error) => return error.into(),
                },
                () = shared.subscribed.notified() => {
                    if let Err(error) = self.subscribe(&mut session).await {
                        return error;
                    }
                    shared.feeds().iter().for_each(|feed| feed.live(generation));
                }
                () = shared.suspected.notified() => {
                    let answers = futures::join!(session.commands.ping::<Value>(None), session.subscriber.ping());
                    match answers {
                        (Ok(_), Ok(())) => {}
                        (Err(error), _) => return error,
                        (_, Err(error)) => return error.into(),
                    }
                }
                () = async { tokio::time::sleep_until(answer_due.unwrap_or_else(tokio::time::Instant::now)).await },
                    if answer_due.is_some() => return FredError::new(ErrorKind::Timeout, "subscriber does not answer"),
            }
        }
    }

    /// Carries out a command on the present connection.
    async fn call<T, F, Fut>(&self, name: &'static str, command: F) -> Result<T, BusError>
    where
        F: FnOnce(Client) -> Fut + Send,
        Fut: Future<Output = Result<T, FredError>> + Send,
    {
        let client = self.0.commands().clone();
        let Some(client) = client else { return Err(self.0.down()) };
        command(client).await.map_err(|error| self.0.failed(name, error))
    }
}

impl Shared {
    fn commands(&self) -> MutexGuard<'_, Option<Client>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Gives a message to its subscriptions, and returns those whose readers are behind.
    fn hand_over(&self, arrival: Arrival) -> Vec<Crowd> {
        match arrival {
            Arrival::Message { channel, payload } => {
                let Ok(channel) = std::str::from_utf8(&channel) else { return Vec::new() };
                let feeds = self.feeds();
                feeds.iter().filter(|feed| feed.message(channel, &payload)).filter_map(Feed::crowded).collect()
            }
            Arrival::TooLong => {
                self.feeds().iter().for_each(|feed| feed.lost(1));
                Vec::new()
            }
            Arrival::Subscribed | Arrival::Answered => Vec::new(),
        }
    }

    fn down(&self) -> BusError {
        let reason = match &*self.connection.borrow() {
            Connection::Down { reason } => reason.clone(),
            Connection::Up { .. } | Connection::Off => "not connected".to_owned(),
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
    commands: Client,
    task: Task,
    subscriber: Subscriber,
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
    told: Option<Told>,
}

/// What was last logged of a standing failure.
#[derive(Clone, Copy)]
struct Told {
    at: tokio::time::Instant,
    refused: bool,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { version: RespVersion::RESP3, failures: 0, told: None }
    }
}

impl Trouble {
    /// Logs a failure: the news and an hourly reminder as warnings, the others for debugging.
    fn log(&mut self, error: &FredError) {
        let reason = tracing::field::display(error);
        if self.is_news(error) {
            tracing::warn!(reason, "redis unavailable");
        } else {
            tracing::debug!(reason, "redis still unavailable");
        }
    }

    /// True for the first failure, for the first refusal after Redis was merely away, and once an hour.
    fn is_news(&mut self, error: &FredError) -> bool {
        let refused = refuses(error);
        let news = self.told.is_none_or(|told| told.at.elapsed() >= REMIND || (refused && !told.refused));
        if news {
            self.told = Some(Told { at: tokio::time::Instant::now(), refused });
        }
        news
    }

    fn backoff(&mut self) -> Duration {
        let (first, longest) = BACKOFF;
        let wait = first.saturating_mul(2u32.saturating_pow(self.failures)).min(longest);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// The kernel finds a dead peer by itself: no timer of ours wakes up for it.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(3))
}

/// Whether what answers does not let us in, such as for a wrong password, and waiting alone will not help.
fn refuses(error: &FredError) -> bool {
    let away = matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Routing);
    // A certificate, and what a subscriber is told.
    !away || ["kind: InvalidData", "kind: Other"].iter().any(|sign| error.details().contains(sign))
}

/// Whether the server, or what stands before it, does not know RESP3.
fn lacks_resp3(error: &FredError) -> bool {
    let details = error.details().to_ascii_lowercase();
    ["noproto", "hello", "unknown command"].iter().any(|sign| details.contains(sign))
}

fn builder(config: &Config, version: RespVersion) -> Builder {
    let mut builder = Builder::from_config(Config { version, fail_fast: true, ..config.clone() });
    builder
        .with_connection_config(|connection| {
            connection.connection_timeout = ANSWER_LIMIT;
            connection.internal_command_timeout = ANSWER_LIMIT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = MOST_COMMANDS;
            connection.tcp = TcpConfig { nodelay: Some(true), keepalive: Some(keepalive()), ..TcpConfig::default() };
        })
        .with_performance_config(|performance| performance.default_command_timeout = ANSWER_LIMIT);
    builder
}

fn config(address: &Address) -> Result<Config, AddressError> {
    let server = match &address.endpoint {
        Endpoint::Tcp(host, port) => ServerConfig::new_centralized(host.clone(), *port),
        Endpoint::Unix(path) => ServerConfig::new_unix_socket(path.clone()),
    };
    let database = address.database.map(|number| u8::try_from(number).map_err(|_| AddressError::Database(number)));
    let config = Config {
        server,
        username: address.username.clone(),
        password: address.password.as_ref().map(|password| password.expose_secret().to_owned()),
        database: database.transpose()?,
        ..Config::default()
    };
    if address.tls { with_tls(config) } else { Ok(config) }
}

#[cfg(feature = "tls")]
fn with_tls(config: Config) -> Result<Config, AddressError> {
    let connector = fred::types::config::TlsConnector::default_rustls()
        .map_err(|error| AddressError::Certificates { source: error.into() })?;
    Ok(Config { tls: Some(connector.into()), ..config })
}

#[cfg(not(feature = "tls"))]
fn with_tls(_: Config) -> Result<Config, AddressError> {
    Err(AddressError::NoTls)
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
        self.0.suspected.notify_one();
        self.call("PING", |client| async move { client.ping::<Value>(None).await }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_refusal_is_news_after_an_absence_and_the_same_trouble_is_not() {
        let mut trouble = Trouble::default();
        let away = FredError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let late = FredError::new(ErrorKind::Timeout, "late");
        let refused = FredError::new(ErrorKind::Auth, "WRONGPASS");
        assert!(trouble.is_news(&away));
        assert!(!trouble.is_news(&late), "one outage, told once");
        assert!(trouble.is_news(&refused));
        for error in [&refused, &away, &refused] {
            assert!(!trouble.is_news(error), "{error}");
        }
    }

    #[test]
    fn a_certificate_and_a_subscribers_refusal_are_refusals() {
        for kind in [io::ErrorKind::InvalidData, io::ErrorKind::Other] {
            assert!(refuses(&io::Error::new(kind, "x").into()), "{kind:?}");
        }
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe, io::ErrorKind::TimedOut] {
            assert!(!refuses(&io::Error::new(kind, "x").into()), "{kind:?}");
        }
    }
}
