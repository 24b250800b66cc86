//! The bounded queue between a connection and the reader of its messages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// What a message that waits costs beside its payload, in bytes.
const MESSAGE_COST: usize = 128;

/// One message on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub channel: Arc<str>,
    /// What was published; anything at all.
    pub payload: Bytes,
}

impl Message {
    /// Bytes of memory that it takes.
    fn cost(&self) -> usize {
        self.payload.len().saturating_add(MESSAGE_COST)
    }
}

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Message),
    /// Messages may be missing here; those that follow are complete again.
    Gap {
        /// How many, when the reader fell behind; `None` after a new connection, the first one too.
        lost: Option<u64>,
    },
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Message>,
    bytes: usize,
    most_bytes: usize,
    lost: u64,
    generation: u64,
    reconnected: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
    /// The reader caught up to half of what may wait.
    taken: Notify,
}

impl Queue {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

/// The reader's end. It outlives connections.
#[derive(Debug)]
pub struct Subscription(Arc<Queue>);

/// The writer's end, for implementations of [`Bus`](super::Bus).
#[derive(Debug)]
pub struct Feed {
    channels: Vec<Arc<str>>,
    queue: Arc<Queue>,
}

/// A subscription whose reader is behind.
#[derive(Debug)]
pub struct Backlog(Arc<Queue>);

impl Backlog {
    /// Waits until the reader has caught up to half of what may wait.
    pub async fn wait_for_half(&self) {
        self.0.taken.notified().await;
    }
}

/// A subscription to channels, and its feed. The messages that wait for their reader take `most_bytes` at most.
pub fn subscription(channels: &[String], most_bytes: usize) -> (Feed, Subscription) {
    let state = Mutex::new(State { most_bytes, ..State::default() });
    let queue = Arc::new(Queue { state, ..Queue::default() });
    let channels = channels.iter().map(|channel| Arc::from(channel.as_str())).collect();
    (Feed { channels, queue: Arc::clone(&queue) }, Subscription(queue))
}

impl Subscription {
    /// The next event; none once the bus is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
                let behind = state.over_half();
                if let Some(event) = state.take() {
                    if behind && !state.over_half() {
                        self.0.taken.notify_one();
                    }
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl State {
    fn over_half(&self) -> bool {
        self.bytes > self.most_bytes / 2
    }

    fn take(&mut self) -> Option<Event> {
        if self.lost > 0 {
            return Some(Event::Gap { lost: Some(std::mem::take(&mut self.lost)) });
        }
        if std::mem::take(&mut self.reconnected) {
            return Some(Event::Gap { lost: None });
        }
        let message = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.cost());
        Some(Event::Message(message))
    }
}

impl Feed {
    /// The channels of the subscription.
    pub fn channels(&self) -> &[Arc<str>] {
        &self.channels
    }

    /// True when the subscription was dropped.
    pub fn is_orphan(&self) -> bool {
        Arc::strong_count(&self.queue) == 1
    }

    /// Hands over a message if it is of one of the channels, and says whether it was. The oldest go where there is no room.
    pub fn message(&self, channel: &str, payload: &Bytes) -> bool {
        let Some(channel) = self.channels.iter().find(|of| of.as_ref() == channel) else { return false };
        self.queue.change(|state| {
            let message = Message { channel: Arc::clone(channel), payload: payload.clone() };
            state.bytes = state.bytes.saturating_add(message.cost());
            state.waiting.push_back(message);
            while state.bytes > state.most_bytes {
                let Some(oldest) = state.waiting.pop_front() else { break };
                state.bytes = state.bytes.saturating_sub(oldest.cost());
                state.lost = state.lost.saturating_add(1);
            }
        });
        true
    }

    /// A handle to wait on where so much waits that the next messages may not find room.
    pub fn backlog(&self) -> Option<Backlog> {
        let behind = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).over_half();
        behind.then(|| Backlog(Arc::clone(&self.queue)))
    }

    /// Says that messages were lost on the way here.
    pub fn lost(&self, count: u64) {
        self.queue.change(|state| state.lost = state.lost.saturating_add(count));
    }

    /// Says that the subscription is live on a connection; the first time for each connection counts.
    pub fn live(&self, generation: u64) {
        self.queue.change(|state| {
            state.reconnected |= state.generation != generation;
            state.generation = generation;
        });
    }

    /// Ends the subscription, after what waits.
    pub fn close(&self) {
        self.queue.change(|state| state.closed = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_BYTES: usize = 1 << 20;

    fn of(channel: &str) -> (Feed, Subscription) {
        subscription(&[channel.to_owned()], MOST_BYTES)
    }

    #[tokio::test]
    async fn messages_of_its_channels_arrive_in_order() {
        let (feed, mut subscription) = of("a");
        feed.live(1);
        feed.live(1);
        assert!(feed.message("a", &Bytes::from_static(b"1")));
        assert!(!feed.message("b", &Bytes::from_static(b"2")));
        assert_eq!(subscription.next().await, Some(Event::Gap { lost: None }));
        let Some(Event::Message(message)) = subscription.next().await else { panic!("no message") };
        assert_eq!((message.channel.as_ref(), message.payload.as_ref()), ("a", b"1".as_slice()));
        feed.close();
        assert_eq!(subscription.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_fell_behind_gets_the_count_of_what_it_lost_and_goes_on() {
        let (feed, mut subscription) = of("a");
        for n in 0..MOST_BYTES / (MESSAGE_COST + 6) + 5 {
            feed.message("a", &Bytes::from(format!("{n:6}")));
        }
        assert_eq!(subscription.next().await, Some(Event::Gap { lost: Some(5) }));
        let Some(Event::Message(first)) = subscription.next().await else { panic!("no message") };
        assert_eq!(first.payload.as_ref(), b"     5");
    }

    #[tokio::test]
    async fn large_messages_are_bounded_by_their_bytes() {
        let (feed, mut subscription) = of("a");
        let large = Bytes::from(vec![b'x'; MOST_BYTES / 4 - MESSAGE_COST]);
        for _ in 0..6 {
            feed.message("a", &large);
        }
        assert_eq!(subscription.next().await, Some(Event::Gap { lost: Some(2) }));
    }

    #[tokio::test]
    async fn a_dropped_subscription_leaves_an_orphan() {
        let (feed, subscription) = of("a");
        assert!(!feed.is_orphan());
        drop(subscription);
        assert!(feed.is_orphan());
    }
}
