//! The port to Redis: keys, channels, and subscriptions that outlive connections.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;

use crate::message::OwnNames;

pub mod redis;
pub mod refusals;
mod source;
pub mod subscription;

pub use refusals::{Call, Refusals};
pub use source::{has_readings_since, source_status};
pub use subscription::{Event, Feed, Message, Subscription};

/// What is at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Absent,
    /// A text.
    Text(String),
    /// Something that is not read.
    Unreadable(Unreadable),
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// Why a value is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is larger than what may be held of a value.
    #[error("has {bytes} bytes, at most {most} are read")]
    TooLong {
        /// Its size.
        bytes: u64,
        /// What may be held.
        most: usize,
    },
    /// It is a list, a hash or the like, or no UTF-8.
    #[error("is not a text")]
    NotText,
}

/// Some of the keys that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysPage {
    /// The keys; there may be none although more follow.
    pub keys: Vec<String>,
    /// Where the next page begins; none after the last.
    pub next: Option<u64>,
}

/// What went wrong with a call, by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Redis did not answer: it is down, restarting, or the connection broke. The call may have had its effect.
    #[error("redis unavailable")]
    Unavailable {
        /// What the connection said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Redis refused the call.
    #[error("redis refused {call}")]
    Refused {
        /// The command, such as `SET`.
        call: &'static str,
        /// Redis' own words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// State of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// No attempt to make one has ended yet.
    Untried,
    /// There is none; it is being made, for as long as it takes.
    Down {
        /// Why not, in the words of the last attempt.
        reason: String,
        /// What answers does not let us in: somebody has to act, and waiting is no help.
        refused: bool,
    },
    /// It stands, and every subscription is live.
    Up {
        /// Counts the connections since the start, from 1. What Redis knew before may be gone with each.
        generation: u64,
    },
    /// There is no Redis, and none is wanted.
    Off,
}

impl Connection {
    /// True for [`Connection::Up`].
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// Redis.
///
/// Calls fail with [`BusError::Unavailable`] within 2 s when there is no connection, and work again by themselves once there
/// is one. A call that failed so is not sent later.
pub trait Bus: Send + Sync + 'static {
    /// The names of what is ours there.
    fn names(&self) -> &OwnNames;

    /// The state of the connection, to read or to wait on.
    fn connection(&self) -> watch::Receiver<Connection>;

    /// Subscribes to channels, for as long as the subscription is kept.
    ///
    /// Its first event is the [`Event::Gap`] that says that it is live.
    fn subscribe(&self, channels: &[String]) -> Subscription;

    /// What Redis refuses at present, one line for each; said in the log as it begins and ends.
    fn refusals(&self) -> watch::Receiver<Vec<String>>;

    /// Publishes a message and returns how many subscribers of exactly this channel received it; others may have received it
    /// by a pattern.
    fn publish(&self, channel: &str, payload: &str) -> impl Future<Output = Result<u64, BusError>> + Send;

    /// How many subscribe to exactly this channel.
    fn subscribers(&self, channel: &str) -> impl Future<Output = Result<u64, BusError>> + Send;

    /// What is at keys, in their order. What is too large is not fetched; without keys nothing is asked.
    fn read(&self, keys: &[String]) -> impl Future<Output = Result<Vec<Value>, BusError>> + Send;

    /// The texts at keys, in their order; what is no readable text counts as absent.
    fn get(&self, keys: &[String]) -> impl Future<Output = Result<Vec<Option<String>>, BusError>> + Send {
        async { Ok(self.read(keys).await?.into_iter().map(Value::text).collect()) }
    }

    /// A page of the keys that begin with a prefix; the first is at cursor 0. Over all pages each key is found that is there
    /// all the while, some of them more than once.
    fn keys(&self, prefix: &str, cursor: u64) -> impl Future<Output = Result<KeysPage, BusError>> + Send;

    /// Sets a key, for a time or for good.
    fn set(
        &self,
        key: &str,
        value: &str,
        expires: Option<Duration>,
    ) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Sets a key if it is absent, for a time or for good; false when it was there.
    fn set_absent(
        &self,
        key: &str,
        value: &str,
        expires: Option<Duration>,
    ) -> impl Future<Output = Result<bool, BusError>> + Send;

    /// Gives a key that is there a new time to live, and returns its text.
    fn renew(&self, key: &str, expires: Duration) -> impl Future<Output = Result<Option<String>, BusError>> + Send;

    /// Adds one to a number, and returns it; one that is absent counts as 0.
    fn increment(&self, key: &str) -> impl Future<Output = Result<u64, BusError>> + Send;

    /// Deletes keys; succeeds when they are absent. Without keys nothing is asked.
    fn delete(&self, keys: &[String]) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Puts a value at the head of a list and cuts the list to `keep` values.
    fn push(&self, key: &str, value: &str, keep: u16) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Makes sure that Redis answers on every connection, and replaces those on which it does not.
    fn heartbeat(&self) -> impl Future<Output = Result<(), BusError>> + Send;
}

/// The state of the connection where there is no Redis, which never changes.
static OFF: LazyLock<watch::Sender<Connection>> = LazyLock::new(|| watch::Sender::new(Connection::Off));

/// What is refused where there is no Redis: nothing, ever.
static NO_REFUSALS: LazyLock<watch::Sender<Vec<String>>> = LazyLock::new(watch::Sender::default);

/// The names of what is ours where there is no Redis.
static NAMES: LazyLock<OwnNames> = LazyLock::new(|| OwnNames::new(""));

/// No Redis at all, where there is none: nothing is written, nobody is told, and nothing can be read.
impl<B: Bus> Bus for Option<B> {
    fn names(&self) -> &OwnNames {
        self.as_ref().map_or_else(|| &*NAMES, Bus::names)
    }

    fn refusals(&self) -> watch::Receiver<Vec<String>> {
        self.as_ref().map_or_else(|| NO_REFUSALS.subscribe(), Bus::refusals)
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.as_ref().map_or_else(|| OFF.subscribe(), Bus::connection)
    }

    fn subscribe(&self, channels: &[String]) -> Subscription {
        self.as_ref().map_or_else(|| subscription::subscription(channels, 0).1, |bus| bus.subscribe(channels))
    }

    async fn publish(&self, channel: &str, payload: &str) -> Result<u64, BusError> {
        match self {
            Some(bus) => bus.publish(channel, payload).await,
            None => Ok(0),
        }
    }

    async fn subscribers(&self, channel: &str) -> Result<u64, BusError> {
        match self {
            Some(bus) => bus.subscribers(channel).await,
            None => Ok(0),
        }
    }

    async fn read(&self, keys: &[String]) -> Result<Vec<Value>, BusError> {
        match self {
            Some(bus) => bus.read(keys).await,
            None if keys.is_empty() => Ok(Vec::new()),
            None => Err(BusError::Unavailable { source: "there is none: redis.url is `none`".into() }),
        }
    }

    async fn keys(&self, prefix: &str, cursor: u64) -> Result<KeysPage, BusError> {
        match self {
            Some(bus) => bus.keys(prefix, cursor).await,
            None => Err(BusError::Unavailable { source: "there is none: redis.url is `none`".into() }),
        }
    }

    async fn set(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<(), BusError> {
        match self {
            Some(bus) => bus.set(key, value, expires).await,
            None => Ok(()),
        }
    }

    async fn set_absent(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<bool, BusError> {
        match self {
            Some(bus) => bus.set_absent(key, value, expires).await,
            None => Ok(false),
        }
    }

    async fn renew(&self, key: &str, expires: Duration) -> Result<Option<String>, BusError> {
        match self {
            Some(bus) => bus.renew(key, expires).await,
            None => Ok(None),
        }
    }

    async fn increment(&self, key: &str) -> Result<u64, BusError> {
        match self {
            Some(bus) => bus.increment(key).await,
            None => Ok(0),
        }
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BusError> {
        match self {
            Some(bus) => bus.delete(keys).await,
            None => Ok(()),
        }
    }

    async fn push(&self, key: &str, value: &str, keep: u16) -> Result<(), BusError> {
        match self {
            Some(bus) => bus.push(key, value, keep).await,
            None => Ok(()),
        }
    }

    async fn heartbeat(&self) -> Result<(), BusError> {
        match self {
            Some(bus) => bus.heartbeat().await,
            None => Ok(()),
        }
    }
}
