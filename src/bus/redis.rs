//! The [`Bus`] on a Redis server; with its submodules the only file that names fred.
//!
//! Each connection is a fresh pair, a fred client for commands, behind a `Guard`, and a `Subscriber` for messages. Neither
//! reconnects by itself: a command of an old connection cannot be sent on a new one, and a new one counts as up only once
//! its subscriptions are confirmed.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::prelude::{Builder, ClientLike, Expiration, KeysInterface, ListInterface, PubsubInterface, SetOptions};
use fred::types::config::{Config, ServerConfig};
use fred::types::{ConnectHandle, RespVersion, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::address::Dialer;
use self::guard::Guard;
use self::socket::{Lost, one_line};
use self::subscriber::{Arrival, Subscriber};
use super::subscription::{Backlog, Feed, subscription};
use super::{Bus, BusError, Connection, Subscription};
use crate::backoff::Backoff;
use crate::report::Chain;

mod address;
mod framing;
mod guard;
mod socket;
mod subscriber;

pub use address::{Address, AddressError, Endpoint};

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// First and longest wait between two attempts to connect. The longest is short, for all work waits for Redis' return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// How long a message waits for a reader that is behind.
const BACKLOG_LIMIT: Duration = Duration::from_millis(500);

/// Commands that may wait for fred to send them.
const MOST_COMMANDS: usize = 4096;

/// Most bytes of an answer to a command.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// The connection to Redis.
#[derive(Debug, Clone)]
pub struct RedisBus(Arc<Shared>);

struct Shared {
    dialer: Dialer,
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
            dialer: Dialer::new(address.clone())?,
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
            let lost = tokio::select! {
                () = stop.cancelled() => break,
                lost = self.session(&mut trouble) => lost,
            };
            self.0.commands().take();
            trouble.log(&lost);
            self.0.connection.send_replace(Connection::Down { reason: Chain(&lost).to_string() });
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(trouble.backoff.wait()) => {}
            }
        }
        self.0.commands().take();
        self.0.connection.send_replace(Connection::Down { reason: "closed".to_owned() });
        for feed in self.0.feeds().iter() {
            feed.close();
        }
    }

    /// One connection, from the first attempt to its end; returns why it ended.
    async fn session(&self, trouble: &mut Trouble) -> Lost {
        let server = match socket::connect(&self.0.dialer, ANSWER_LIMIT).await {
            Ok(server) => server,
            Err(lost) => return lost,
        };
        let guard = match Guard::bind() {
            Ok(guard) => guard,
            Err(error) => return error.into(),
        };
        let path = guard.path().to_owned();
        let connected = async {
            match self.connect(&path).await {
                Ok(session) => {
                    *trouble = Trouble::default();
                    self.serve(session).await
                }
                Err(lost) => lost,
            }
        };
        tokio::select! {
            // It knows best why the connection ended.
            biased;
            lost = guard.carry(server, LONGEST_ANSWER) => lost,
            lost = connected => lost,
        }
    }

    async fn connect(&self, path: &Path) -> Result<Session, Lost> {
        let commands = builder(path).build().map_err(|error| client_lost(&error))?;
        let task = Task(commands.init().await.map_err(|error| client_lost(&error))?);
        let subscriber = Subscriber::connect(&self.0.dialer, ANSWER_LIMIT).await?;
        let mut session = Session { commands, task, subscriber };
        self.subscribe(&mut session).await?;
        Ok(session)
    }

    async fn subscribe(&self, session: &mut Session) -> Result<(), Lost> {
        let meanwhile = session.subscriber.subscribe(&self.0.channels()).await?;
        for arrival in meanwhile {
            self.0.hand_over(arrival);
        }
        Ok(())
    }

    async fn serve(&self, mut session: Session) -> Lost {
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
                ended = &mut session.task.0 => return task_lost(ended),
                arrived = session.subscriber.next() => match arrived {
                    Ok(arrival) => {
                        // Redis holds back what is not read yet; here what waits is bounded, and more of it lost.
                        for backlog in shared.hand_over(arrival) {
                            let _ = tokio::time::timeout(BACKLOG_LIMIT, backlog.wait_for_half()).await;
                        }
                        tokio::task::consume_budget().await;
                    }
                    Err(lost) => return lost,
                },
                () = shared.subscribed.notified() => {
                    if let Err(lost) = self.subscribe(&mut session).await {
                        return lost;
                    }
                    shared.feeds().iter().for_each(|feed| feed.live(generation));
                }
                () = shared.suspected.notified() => {
                    let answers = futures::join!(session.commands.ping::<Value>(None), session.subscriber.ping());
                    match answers {
                        (Ok(_), Ok(())) => {}
                        (Err(error), _) => return client_lost(&error),
                        (_, Err(lost)) => return lost,
                    }
                }
                () = async { tokio::time::sleep_until(answer_due.unwrap_or_else(tokio::time::Instant::now)).await },
                    if answer_due.is_some() => return Lost::Late,
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
        command(client).await.map_err(|error| self.0.failed(name, &error))
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
    fn hand_over(&self, arrival: Arrival) -> Vec<Backlog> {
        match arrival {
            Arrival::Message { channel, payload } => {
                let Ok(channel) = std::str::from_utf8(&channel) else { return Vec::new() };
                let feeds = self.feeds();
                feeds.iter().filter(|feed| feed.message(channel, &payload)).filter_map(Feed::backlog).collect()
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
            Connection::Up { .. } => "not connected".to_owned(),
        };
        BusError::Unavailable { source: reason.into() }
    }

    fn failed(&self, call: &'static str, error: &FredError) -> BusError {
        let source = one_line(error.details()).into();
        // A call that the end of the connection overtook gets an error of no kind.
        if self.commands().is_none() || error.details() == "channel closed" {
            return BusError::Unavailable { source };
        }
        match error.kind() {
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing => BusError::Unavailable { source },
            ErrorKind::Timeout => {
                self.suspected.notify_one();
                BusError::Unavailable { source }
            }
            _ => BusError::Refused { call, source },
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
fn task_lost(ended: Result<Result<(), FredError>, tokio::task::JoinError>) -> Lost {
    match ended {
        Ok(Ok(())) => Lost::Closed,
        Ok(Err(error)) => client_lost(&error),
        Err(error) => Lost::Client(error.to_string()),
    }
}

fn client_lost(error: &FredError) -> Lost {
    if matches!(error.kind(), ErrorKind::Timeout) { Lost::Late } else { Lost::Client(one_line(error.details())) }
}

/// What is remembered from one attempt to connect to the next.
struct Trouble {
    backoff: Backoff,
    /// What was warned of last was a refusal.
    refused: bool,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { backoff: BACKOFF, refused: false }
    }
}

impl Trouble {
    /// Logs a failure: the news and an hourly reminder as warnings, the others for debugging.
    fn log(&mut self, lost: &Lost) {
        let reason = tracing::field::display(Chain(lost));
        if self.is_news(lost) {
            tracing::warn!(reason, "redis unavailable");
        } else {
            tracing::debug!(reason, "redis still unavailable");
        }
    }

    /// True for the first failure, for the first refusal after Redis was merely away, and once an hour.
    fn is_news(&mut self, lost: &Lost) -> bool {
        let refused = lost.is_refusal();
        if refused && !self.refused {
            self.backoff.warn_again();
        }
        let news = self.backoff.should_warn();
        self.refused = if news { refused } else { self.refused };
        news
    }
}

/// A client of the guard, which is logged in already.
fn builder(path: &Path) -> Builder {
    let server = ServerConfig::new_unix_socket(path);
    let mut builder =
        Builder::from_config(Config { server, version: RespVersion::RESP2, fail_fast: true, ..Config::default() });
    builder
        .with_connection_config(|connection| {
            connection.connection_timeout = ANSWER_LIMIT;
            connection.internal_command_timeout = ANSWER_LIMIT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = MOST_COMMANDS;
        })
        .with_performance_config(|performance| performance.default_command_timeout = ANSWER_LIMIT);
    builder
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
        let away = Lost::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let refused = Lost::Login { call: "AUTH", code: Some("WRONGPASS") };
        assert!(trouble.is_news(&away));
        assert!(!trouble.is_news(&Lost::Late), "one outage, one warning");
        assert!(trouble.is_news(&refused));
        for lost in [&refused, &away, &refused] {
            assert!(!trouble.is_news(lost), "{lost}");
        }
    }
}
