//! A Redis in memory: keys that expire on tokio's clock, channels, and a connection that breaks when told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use sense_orchestrator::bus::subscription::{Feed, subscription};
use sense_orchestrator::bus::{
    Bus, BusError, Call, Connection, KeysPage, Refusals, Subscription, Unreadable, Value as Found,
};
use sense_orchestrator::message::OwnNames;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bounds::bounds;
use super::time::now;

/// Keys of one page.
const SCANNED: usize = 3;

#[derive(Debug, Clone)]
enum Stored {
    Text(String),
    List(VecDeque<String>),
}

#[derive(Debug)]
struct Entry {
    value: Stored,
    expires: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<String, Entry>,
    feeds: Vec<Feed>,
    published: Vec<(String, String)>,
    reads: Vec<String>,
    generation: u64,
    heartbeats: u32,
    refuse: Option<&'static str>,
    refusals: Refusals,
    lose_answers: bool,
    /// The answer of the call that is carried out will not arrive.
    lost: bool,
    written: Vec<Written>,
    oracle: Oracle,
}

/// What the daemon wrote, for those who judge it afterwards.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) at: Instant,
    pub(crate) call: &'static str,
    /// Key or channel.
    pub(crate) to: String,
    pub(crate) text: String,
    /// Subscribers that received it.
    pub(crate) received: u64,
}

/// A call that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusFault {
    /// Redis refuses the call.
    Refused,
    /// The connection breaks before the call arrives.
    Lost,
    /// The connection breaks after the call was carried out.
    LostAnswer,
}

/// Decides for each call what goes wrong.
type Decide = Box<dyn FnMut(&'static str) -> Option<BusFault> + Send>;

#[derive(Default)]
struct Oracle(Option<Decide>);

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Oracle")
    }
}

impl State {
    fn live(&mut self, key: &str) -> Option<&mut Entry> {
        if self.keys.get(key)?.expires.is_some_and(|at| at <= now()) {
            self.keys.remove(key);
        }
        self.keys.get_mut(key)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match &self.live(key)?.value {
            Stored::Text(text) => Some(text.clone()),
            Stored::List(_) => None,
        }
    }

    fn find(&mut self, key: &str) -> Found {
        match self.live(key).map(|entry| &entry.value) {
            None => Found::Absent,
            Some(Stored::Text(text)) if text.len() > bounds().value => {
                Found::Unreadable(Unreadable::TooLong { bytes: text.len() as u64, most: bounds().value })
            }
            Some(Stored::Text(text)) => Found::Text(text.clone()),
            Some(Stored::List(_)) => {
                self.refusals.refused(Call { name: "STRLEN", key: Some(key), writes: false }, "WRONGTYPE");
                Found::Unreadable(Unreadable::NotText)
            }
        }
    }

    fn subscribers(&mut self, channel: &str) -> u64 {
        self.feeds.retain(|feed| !feed.is_orphan());
        let of = self.feeds.iter().filter(|feed| feed.channels().iter().any(|name| name.as_ref() == channel));
        u64::try_from(of.count()).unwrap()
    }

    /// Writes down what the daemon wrote.
    fn note(&mut self, call: &'static str, to: &str, text: &str, received: u64) {
        if self.oracle.0.is_some() {
            let written = Written { at: now(), call, to: to.to_owned(), text: text.to_owned(), received };
            self.written.push(written);
        }
    }

    /// The answer to a call that was carried out, or its loss.
    fn answer(&mut self) -> Result<(), BusError> {
        if std::mem::take(&mut self.lost) {
            return Err(BusError::Unavailable { source: "answer lost by the test".into() });
        }
        Ok(())
    }

    fn deliver(&mut self, channel: &str, payload: &[u8]) -> u64 {
        self.published.push((channel.to_owned(), String::from_utf8_lossy(payload).into_owned()));
        self.feeds.retain(|feed| !feed.is_orphan());
        let payload = Bytes::copy_from_slice(payload);
        let received = self.feeds.iter().filter(|feed| feed.message(channel, &payload)).count();
        u64::try_from(received).unwrap()
    }
}

/// A Redis in memory.
#[derive(Debug)]
pub(crate) struct FakeBus {
    state: Mutex<State>,
    connection: watch::Sender<Connection>,
    names: OwnNames,
}

impl FakeBus {
    /// An empty Redis with a connection that stands.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_prefix("")
    }

    /// The same for a daemon whose own names begin with a prefix.
    pub(crate) fn with_prefix(prefix: &str) -> Arc<Self> {
        let connection = watch::Sender::new(Connection::Untried);
        let bus = Self { state: Mutex::default(), connection, names: OwnNames::new(prefix) };
        bus.come_back();
        Arc::new(bus)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Asks for each call what goes wrong.
    pub(crate) fn ask(&self, decide: impl FnMut(&'static str) -> Option<BusFault> + Send + 'static) {
        self.state().oracle = Oracle(Some(Box::new(decide)));
    }

    /// What the daemon wrote so far.
    pub(crate) fn written(&self) -> Vec<Written> {
        self.state().written.clone()
    }

    /// Breaks the connection.
    pub(crate) fn go_down(&self) {
        self.connection.send_replace(Connection::Down { reason: "gone".into(), refused: false });
    }

    /// Restores the connection.
    pub(crate) fn come_back(&self) {
        let mut state = self.state();
        state.generation += 1;
        let generation = state.generation;
        state.feeds.iter().for_each(|feed| feed.live(generation));
        drop(state);
        self.connection.send_replace(Connection::Up { generation });
    }

    /// Forgets all keys, as a restart without persistence does.
    pub(crate) fn forget(&self) {
        self.state().keys.clear();
    }

    /// Refuses all calls of one command from now on, or none.
    pub(crate) fn refuse(&self, call: Option<&'static str>) {
        self.state().refuse = call;
    }

    /// Carries out the next publish and breaks the connection before its answer.
    pub(crate) fn lose_the_next_answer(&self) {
        self.state().lose_answers = true;
    }

    /// Sets a key from outside to any text.
    pub(crate) fn put_text(&self, key: &str, text: &str) {
        self.state().keys.insert(key.into(), Entry { value: Stored::Text(text.into()), expires: None });
    }

    /// Sets a key from outside.
    pub(crate) fn put(&self, key: &str, value: &Value) {
        let value = Stored::Text(value.to_string());
        self.state().keys.insert(key.into(), Entry { value, expires: None });
    }

    /// Deletes a key from outside.
    pub(crate) fn evict(&self, key: &str) {
        self.state().keys.remove(key);
    }

    /// The JSON at a key.
    pub(crate) fn json(&self, key: &str) -> Option<Value> {
        self.state().text(key).map(|text| serde_json::from_str(&text).expect("the key holds JSON"))
    }

    /// The values of a list.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        match self.state().live(key).map(|entry| entry.value.clone()) {
            Some(Stored::List(values)) => values.into(),
            Some(Stored::Text(_)) | None => Vec::new(),
        }
    }

    /// How long a key still lives; none where it is absent or stays.
    pub(crate) fn expires_in(&self, key: &str) -> Option<Duration> {
        self.state().live(key)?.expires.map(|at| at - now())
    }

    /// Publishes from outside, any bytes, and returns how many received them.
    pub(crate) fn send(&self, channel: &str, payload: impl AsRef<[u8]>) -> u64 {
        self.state().deliver(channel, payload.as_ref())
    }

    /// What was published on a channel so far, as JSON.
    pub(crate) fn published(&self, channel: &str) -> Vec<Value> {
        let state = self.state();
        let on_channel = state.published.iter().filter(|(on, _)| on == channel);
        on_channel.map(|(_, payload)| serde_json::from_str(payload).expect("the message is JSON")).collect()
    }

    /// How many messages were published so far.
    pub(crate) fn count_published(&self) -> usize {
        self.state().published.len()
    }

    /// The keys that were read since this was last asked.
    pub(crate) fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.state().reads)
    }

    /// How often the connection was tried so far.
    pub(crate) fn heartbeats(&self) -> u32 {
        self.state().heartbeats
    }

    fn call(&self, call: &'static str) -> Result<MutexGuard<'_, State>, BusError> {
        if !self.connection.borrow().is_up() {
            return Err(BusError::Unavailable { source: "gone".into() });
        }
        let mut state = self.state();
        let fault = state.oracle.0.as_mut().and_then(|decide| decide(call));
        match fault {
            None => {}
            Some(BusFault::Refused) => {
                return Err(BusError::Refused { call, source: "refused by the test".into() });
            }
            Some(BusFault::Lost) => return Err(BusError::Unavailable { source: "lost by the test".into() }),
            Some(BusFault::LostAnswer) => state.lost = true,
        }
        let about = Call { name: call, key: None, writes: matches!(call, "SET" | "LPUSH") };
        match state.refuse {
            Some(refused) if refused == call => {
                state.refusals.refused(about, "OOM refused by the test");
                Err(BusError::Refused { call, source: "refused by the test".into() })
            }
            _ => {
                state.refusals.accepted(about);
                Ok(state)
            }
        }
    }
}

impl Bus for FakeBus {
    fn names(&self) -> &OwnNames {
        &self.names
    }

    fn refusals(&self) -> watch::Receiver<Vec<String>> {
        self.state().refusals.watch()
    }

    async fn subscribers(&self, channel: &str) -> Result<u64, BusError> {
        Ok(self.call("PUBSUB")?.subscribers(channel))
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    fn subscribe(&self, channels: &[String]) -> Subscription {
        let (feed, subscription) = subscription(channels, bounds().messages);
        let mut state = self.state();
        if self.connection.borrow().is_up() {
            feed.live(state.generation);
        }
        state.feeds.push(feed);
        subscription
    }

    async fn publish(&self, channel: &str, payload: &str) -> Result<u64, BusError> {
        let mut state = self.call("PUBLISH")?;
        let received = state.deliver(channel, payload.as_bytes());
        state.note("PUBLISH", channel, payload, received);
        state.answer()?;
        let lost = std::mem::take(&mut state.lose_answers);
        drop(state);
        if lost {
            self.go_down();
            return Err(BusError::Unavailable { source: "gone".into() });
        }
        Ok(received)
    }

    async fn read(&self, keys: &[String]) -> Result<Vec<Found>, BusError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.call("MGET")?;
        state.reads.extend_from_slice(keys);
        state.answer()?;
        Ok(keys.iter().map(|key| state.find(key)).collect())
    }

    async fn keys(&self, prefix: &str, cursor: u64) -> Result<KeysPage, BusError> {
        let state = self.call("SCAN")?;
        let now = now();
        let live = state.keys.iter().filter(|(_, entry)| entry.expires.is_none_or(|at| at > now));
        let from = usize::try_from(cursor).unwrap();
        let page: Vec<&String> = live.map(|(key, _)| key).skip(from).take(SCANNED).collect();
        let next = (page.len() == SCANNED).then(|| cursor + SCANNED as u64);
        let keys = page.into_iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        Ok(KeysPage { keys, next })
    }

    async fn set(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<(), BusError> {
        let expires = expires.map(|span| now() + span);
        let mut state = self.call("SET")?;
        state.keys.insert(key.into(), Entry { value: Stored::Text(value.into()), expires });
        state.note("SET", key, value, 0);
        state.answer()
    }

    async fn set_absent(&self, key: &str, value: &str, expires: Option<Duration>) -> Result<bool, BusError> {
        let mut state = self.call("SET")?;
        if state.live(key).is_some() {
            return Ok(false);
        }
        let expires = expires.map(|span| now() + span);
        state.keys.insert(key.into(), Entry { value: Stored::Text(value.into()), expires });
        state.note("SETNX", key, value, 0);
        state.answer().map(|()| true)
    }

    async fn renew(&self, key: &str, expires: Duration) -> Result<Option<String>, BusError> {
        let mut state = self.call("PEXPIRE")?;
        if let Some(entry) = state.live(key) {
            entry.expires = Some(now() + expires);
        }
        let text = state.text(key);
        state.answer().map(|()| text)
    }

    async fn increment(&self, key: &str) -> Result<u64, BusError> {
        let mut state = self.call("INCR")?;
        let number = state.text(key).map_or(0, |text| text.parse().unwrap()) + 1;
        state.keys.insert(key.into(), Entry { value: Stored::Text(number.to_string()), expires: None });
        state.answer().map(|()| number)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BusError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut state = self.call("DEL")?;
        for key in keys {
            state.keys.remove(key);
            state.refusals.accepted(Call { name: "DEL", key: Some(key), writes: false });
        }
        state.answer()
    }

    async fn push(&self, key: &str, value: &str, keep: u16) -> Result<(), BusError> {
        let mut state = self.call("LPUSH")?;
        let fresh = || Entry { value: Stored::List(VecDeque::new()), expires: None };
        state.live(key);
        match &mut state.keys.entry(key.into()).or_insert_with(fresh).value {
            Stored::List(values) => {
                values.push_front(value.into());
                values.truncate(keep.into());
                state.note("LPUSH", key, value, 0);
                state.answer()
            }
            Stored::Text(_) => Err(BusError::Refused { call: "LPUSH", source: "WRONGTYPE".into() }),
        }
    }

    async fn heartbeat(&self) -> Result<(), BusError> {
        self.call("PING")?.heartbeats += 1;
        Ok(())
    }
}
