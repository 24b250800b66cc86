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
use fred::types::{ConnectHandle, RespVersion, Value as FredValue};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::address::Dialer;
use self::counted::{exact, publish_and_count};
use self::guard::Guard;
use self::socket::{Lost, one_line};
use self::subscriber::{Arrival, Subscriber};
use super::subscription::{Backlog, Feed, subscription};
use super::{Bus, BusError, Call, Connection, KeysPage, Refusals, Subscription, Value};
use crate::backoff::Backoff;
use crate::memory::MemoryBounds;
use crate::message::OwnNames;
use crate::report::Chain;

mod address;
mod counted;
mod framing;
mod guard;
mod socket;
mod subscriber;
mod values;

pub use address::{Address, AddressError, Endpoint};

/// First and longest wait between two attempts to connect. The longest is short, for all work waits for Redis' return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long a message waits for a reader that is behind.
const BACKLOG_LIMIT: Duration = Duration::from_millis(500);

/// Commands that may wait for fred to send them.
const MOST_COMMANDS: usize = 4096;

/// The connection to Redis.
#[derive(Debug, Clone)]
pub struct RedisBus(Arc<Shared>);

struct Shared {
    dialer: Dialer,
    bounds: MemoryBounds,
    names: OwnNames,
    generation: AtomicU64,
    connection: watch::Sender<Connection>,
    commands: Mutex<Option<Client>>,
    refusals: Mutex<Refusals>,
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
    pub fn new(address: &Address, names: OwnNames, bounds: MemoryBounds) -> Result<Self, AddressError> {
        Ok(Self(Arc::new(Shared {
            dialer: Dialer::new(address.clone())?,
            bounds,
            names,
            generation: AtomicU64::new(0),
            connection: watch::Sender::new(Connection::Untried),
            commands: Mutex::default(),
            refusals: Mutex::default(),
            feeds: Mutex::default(),
            subscribed: Notify::new(),
            suspected: Notify::new(),
        })))
    }

    /// Keeps the connection up until `stop`, then closes it and ends the subscriptions.
    pub async fn run(&self, stop: CancellationToken) {
        let mut backoff = BACKOFF;
        loop {
            let lost = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                lost = self.session(&mut backoff) => lost,
            };
            self.0.commands().take();
            let (reason, refused) = (Chain(&lost).to_string(), lost.is_refusal());
            tracing::debug!(reason, refused, "no connection to redis");
            self.0.connection.send_replace(Connection::Down { reason, refused });
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
        self.0.commands().take();
        self.0.connection.send_replace(Connection::Down { reason: "closed".to_owned(), refused: false });
        for feed in self.0.feeds().iter() {
            feed.close();
        }
    }

    /// One connection, from the first attempt to its end; returns why it ended.
    async fn session(&self, backoff: &mut Backoff) -> Lost {
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
                Ok(session) => self.serve(session, backoff).await,
                Err(lost) => lost,
            }
        };
        tokio::select! {
            // It knows best why the connection ended.
            biased;
            lost = guard.carry(server, self.0.bounds.redis_answer) => lost,
            lost = connected => lost,
        }
    }

    async fn connect(&self, path: &Path) -> Result<Session, Lost> {
        let commands = builder(path).build().map_err(|error| client_lost(&error))?;
        let task = Task(commands.init().await.map_err(|error| client_lost(&error))?);
        let subscriber = Subscriber::connect(&self.0.dialer, ANSWER_LIMIT, self.0.bounds.messages).await?;
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

    async fn serve(&self, mut session: Session, backoff: &mut Backoff) -> Lost {
        let shared = &*self.0;
        *shared.commands() = Some(session.commands.clone());
        let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
        // Live before up: who waits for the connection may then rely on the subscriptions.
        shared.feeds().iter().for_each(|feed| feed.live(generation));
        shared.connection.send_replace(Connection::Up { generation });
        backoff.reset();
        tracing::debug!(generation, resp = "RESP2", "connected to redis");
        loop {
            let answer_due = session.subscriber.answer_due;
            tokio::select! {
                biased;
                ended = &mut session.task.0 => return task_lost(ended),
                () = shared.subscribed.notified() => {
                    if let Err(lost) = self.subscribe(&mut session).await {
                        return lost;
                    }
                    shared.feeds().iter().for_each(|feed| feed.live(generation));
                }
                () = shared.suspected.notified() => {
                    let answers = futures::join!(session.commands.ping::<FredValue>(None), session.subscriber.ping());
                    match answers {
                        (Ok(_), Ok(())) => {}
                        (Err(error), _) => return client_lost(&error),
                        (_, Err(lost)) => return lost,
                    }
                }
                // After what is asked of the connection: messages may come all the time.
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
                () = async { tokio::time::sleep_until(answer_due.unwrap_or_else(Instant::now)).await },
                    if answer_due.is_some() => return Lost::Late,
            }
        }
    }

    /// Carries out a command on the present connection.
    async fn call<T, F, Fut>(&self, call: Call<'_>, command: F) -> Result<T, BusError>
    where
        F: FnOnce(Client) -> Fut + Send,
        Fut: Future<Output = Result<T, FredError>> + Send,
    {
        let client = self.0.client()?;
        match command(client).await {
            Ok(answer) => {
                self.0.refusals().accepted(call);
                Ok(answer)
            }
            Err(error) => Err(self.0.failed(call, &error)),
        }
    }
}

impl Shared {
    fn commands(&self) -> MutexGuard<'_, Option<Client>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<Client, BusError> {
        self.commands().clone().ok_or_else(|| self.down())
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
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
            Connection::Down { reason, .. } => reason.clone(),
            Connection::Untried | Connection::Up { .. } | Connection::Off => "not connected".to_owned(),
        };
        BusError::Unavailable { source: reason.into() }
    }

    /// Whether an error is the connection's and not Redis' own.
    fn is_unavailable(&self, error: &FredError) -> bool {
        let broken =
            [ErrorKind::IO, ErrorKind::Canceled, ErrorKind::Routing, ErrorKind::Timeout].contains(error.kind());
        // A call that the end of the connection overtook gets an error of no kind.
        broken || self.commands().is_none() || error.details() == "channel closed"
    }

    fn failed(&self, call: Call<'_>, error: &FredError) -> BusError {
        let words = one_line(error.details());
        if self.is_unavailable(error) {
            if matches!(error.kind(), ErrorKind::Timeout) {
                self.suspected.notify_one();
            }
            return BusError::Unavailable { source: words.into() };
        }
        self.refusals().refused(call, &words);
        BusError::Refused { call: call.name, source: words.into() }
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

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn expiration(span: Duration) -> Expiration {
    Expiration::PX(milliseconds(span))
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
    fn names(&self) -> &OwnNames {
        &self.0.names
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.0.connection.subscribe()
    }

    fn subscribe(&self, channels: &[String]) -> Subscription {
        let (feed, subscription) = subscription(channels, self.0.bounds.messages);
        self.0.feeds().push(feed);
        self.0.subscribed.notify_one();
        subscription
    }

    fn refusals(&self) -> watch::Receiver<Vec<String>> {
        self.0.refusals().watch()
    }

    async fn publish(&self, channel: &str, payload: &str) -> Result<u64, BusError> {
        let call = Call { name: "PUBLISH", key: None, writes: false };
        let client = self.0.client()?;
        match publish_and_count(&client, channel.to_owned(), payload.to_owned()).await {
            Ok(received) => {
                self.0.refusals().accepted(call);
                Ok(received)
            }
            Err(error) if self.0.is_unavailable(&error) => Err(self.0.failed(call, &error)),
            // A user of the ACL may publish and not count.
            Err(_) => {
                let (channel, payload) = (channel.to_owned(), payload.to_owned());
                self.call(call, |client| async move { client.publish(channel, payload).await }).await
            }
        }
    }

    async fn subscribers(&self, channel: &str) -> Result<u64, BusError> {
        let call = Call { name: "PUBSUB", key: None, writes: false };
        let channel = channel.to_owned();
        self.call(call, |client| async move { client.pubsub_numsub::<FredValue, _>(channel).await }).await.map(exact)
    }

    async fn read(&self, keys: &[String]) -> Result<Vec<Value>, BusError> {
        self.read_bounded(keys).await
    }

    async fn keys(&self, prefix: &str, cursor: u64) -> Result<KeysPage, BusError> {
        self.page_of_keys(prefix, cursor).await
    }

    async fn set(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<(), BusError> {
        let call = Call { name: "SET", key: Some(key), writes: true };
        let (key, value) = (key.to_owned(), value.to_owned());
        let expires = expires.map(expiration);
        self.call(call, |client| async move { client.set::<(), _, _>(key, value, expires, None, false).await }).await
    }

    async fn set_absent(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<bool, BusError> {
        let call = Call { name: "SET", key: None, writes: true };
        let (key, value, expires) = (key.to_owned(), value.to_owned(), expires.map(expiration));
        let set: Option<String> = self
            .call(call, |client| async move { client.set(key, value, expires, Some(SetOptions::NX), false).await })
            .await?;
        Ok(set.is_some())
    }

    async fn renew(&self, key: &str, expires: Duration) -> Result<Option<String>, BusError> {
        let call = Call { name: "PEXPIRE", key: Some(key), writes: false };
        let (renewed, expires) = (key.to_owned(), milliseconds(expires));
        self.call(call, |client| async move { client.pexpire::<(), _>(renewed, expires, None).await }).await?;
        Ok(self.read_bounded(&[key.to_owned()]).await?.into_iter().next().and_then(Value::text))
    }

    async fn increment(&self, key: &str) -> Result<u64, BusError> {
        let call = Call { name: "INCR", key: Some(key), writes: true };
        let key = key.to_owned();
        self.call(call, |client| async move { client.incr::<u64, _>(key).await }).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BusError> {
        if keys.is_empty() {
            return Ok(());
        }
        let call = Call { name: "DEL", key: None, writes: false };
        let deleted = keys.to_vec();
        self.call(call, |client| async move { client.del::<(), _>(deleted).await }).await?;
        let mut refusals = self.0.refusals();
        for key in keys {
            refusals.accepted(Call { key: Some(key), ..call });
        }
        Ok(())
    }

    async fn push(&self, key: &str, value: &str, keep: u16) -> Result<(), BusError> {
        let call = Call { name: "LPUSH", key: Some(key), writes: true };
        let (key, value, last) = (key.to_owned(), value.to_owned(), i64::from(keep) - 1);
        self.call(call, |client| async move {
            client.lpush::<(), _, _>(key.clone(), value).await?;
            client.ltrim::<(), _>(key, 0, last).await
        })
        .await
    }

    async fn heartbeat(&self) -> Result<(), BusError> {
        self.0.suspected.notify_one();
        let call = Call { name: "PING", key: None, writes: false };
        self.call(call, |client| async move { client.ping::<FredValue>(None).await }).await.map(drop)
    }
}
