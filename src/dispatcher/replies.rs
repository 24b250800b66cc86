//! Delivers replies: to whoever listens, whenever they begin to, and into a key for those who come late.
//!
//! Clients publish a command first and subscribe to its reply afterwards, so a reply that is sent at once reaches nobody. It
//! is published again until a subscriber of its channel received it; who listens by a pattern may hear it more than once. All
//! waiting replies share one task and one timer, and what waits is bounded in bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::bus::{Bus, BusError};
use crate::event::Event;
use crate::message::OwnNames;
use crate::names::RequestId;
use crate::observer::Events;
use crate::report::Chain;

/// First and longest wait between two attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), LONGEST_WAIT);
const LONGEST_WAIT: Duration = Duration::from_millis(640);

/// How long a reply is published for somebody to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);

/// The same while the daemon ends.
const LAST_LIMIT: Duration = Duration::from_millis(700);

/// Attempts under way at the same time.
const MOST_ATTEMPTS: usize = 64;

/// From so many waiting replies on, each is tried less often.
const MANY: usize = 256;

/// What a reply costs beside its text, in bytes.
const REPLY_COST: usize = 256;

/// A reply on its way.
#[derive(Debug)]
struct PendingReply {
    request: RequestId,
    channel: Arc<str>,
    json: Arc<str>,
    /// When it was accepted.
    since: Instant,
    kind: Kind,
    /// It is at its key, or does not belong there.
    kept: bool,
    /// The connection ended over a publish: it may have been received.
    in_doubt: bool,
    backoff: Backoff,
    /// Its part of the bytes.
    room: OwnedSemaphorePermit,
}

/// What a reply is to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The answer.
    Answer,
    /// The refusal of another command under the same id: the answer at the key stays, and is not published any more.
    Conflict,
}

/// Hands replies over for delivery. The delivery ends when all of these are gone.
#[derive(Clone)]
pub(super) struct Replies {
    sender: mpsc::Sender<PendingReply>,
    /// The bytes that are left.
    room: Arc<Semaphore>,
    /// Most bytes that one reply takes of them.
    most_of_one: usize,
    names: Arc<OwnNames>,
    events: Events,
}

impl Replies {
    /// Delivers the reply to a command that was carried out; waits while there is no room.
    pub(super) async fn send(&self, request: &RequestId, json: Arc<str>) {
        // The other end outlives this one, and nobody closes the semaphore.
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(self.cost(&json)).await {
            let _ = self.sender.send(self.pending(request, json, Kind::Answer, room)).await;
        }
    }

    /// Delivers a reply, unless there is no room.
    pub(super) fn send_or_drop(&self, request: &RequestId, json: Arc<str>) {
        self.try_send(request, json, Kind::Answer);
    }

    /// Delivers the refusal of a command whose id another one has, unless there is no room.
    pub(super) fn send_conflict(&self, request: &RequestId, json: Arc<str>) {
        self.try_send(request, json, Kind::Conflict);
    }

    fn try_send(&self, request: &RequestId, json: Arc<str>, kind: Kind) {
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.cost(&json));
        let sent = room.is_ok_and(|room| self.sender.try_send(self.pending(request, json, kind, room)).is_ok());
        if !sent {
            self.events.emit(&Event::ReplyDropped { request_id: request.clone() });
        }
    }

    fn pending(&self, request: &RequestId, json: Arc<str>, kind: Kind, room: OwnedSemaphorePermit) -> PendingReply {
        PendingReply {
            request: request.clone(),
            channel: self.names.reply(request).into(),
            json,
            since: Instant::now(),
            kind,
            kept: kind == Kind::Conflict,
            in_doubt: false,
            backoff: BACKOFF,
            room,
        }
    }

    /// What a reply takes of the bytes: of a very long one half of them, so that it finds room at all.
    fn cost(&self, json: &str) -> u32 {
        let bytes = json.len().saturating_add(REPLY_COST).min(self.most_of_one);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// What became of an attempt.
enum Attempt {
    /// A subscriber received it.
    Received(PendingReply),
    /// None did.
    Unheard(PendingReply),
    /// Redis did not take it.
    Failed(PendingReply, BusError),
}

/// The delivery of replies.
pub(super) struct Delivery<B> {
    bus: Arc<B>,
    keep: Duration,
    intake: CancellationToken,
    incoming: mpsc::Receiver<PendingReply>,
    waiting: BTreeMap<(Instant, u64), PendingReply>,
    waiting_bytes: usize,
    /// Most bytes that may wait for a listener; beyond that the next one to be tried is only in its key.
    most_waiting: usize,
    count: u64,
    /// Requests whose answer is not published any more, with when that was said.
    conflicts: BTreeMap<RequestId, Instant>,
}

/// A way to hand over replies, and their delivery. Each is kept at its key for `keep`; once the intake is closed they are
/// published for a short while only. Those on their way take `most_bytes`, and of these half may wait for a listener.
pub(super) fn replies<B: Bus>(
    bus: Arc<B>,
    events: Events,
    (keep, most_bytes): (Duration, usize),
    intake: CancellationToken,
) -> (Replies, Delivery<B>) {
    let (sender, incoming) = mpsc::channel((most_bytes / REPLY_COST).max(1));
    let half = most_bytes / 2;
    let replies = Replies {
        sender,
        room: Arc::new(Semaphore::new(most_bytes)),
        most_of_one: half,
        names: Arc::new(bus.names().clone()),
        events,
    };
    let (waiting, conflicts) = (BTreeMap::new(), BTreeMap::new());
    (
        replies,
        Delivery { bus, keep, intake, incoming, waiting, waiting_bytes: 0, most_waiting: half, count: 0, conflicts },
    )
}

impl<B: Bus> Delivery<B> {
    /// Delivers until the last [`Replies`] is gone and nothing waits any more.
    pub(super) async fn run(mut self) {
        let mut attempts = FuturesUnordered::new();
        let mut open = true;
        while open || !self.waiting.is_empty() || !attempts.is_empty() {
            let free = attempts.len() < MOST_ATTEMPTS;
            let next = self.waiting.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                // First attempts come before later ones.
                biased;
                Some(attempt) = attempts.next() => self.settle(attempt),
                received = self.incoming.recv(), if open && free => match received {
                    Some(reply) => {
                        if reply.kind == Kind::Conflict {
                            self.end_earlier(&reply.request);
                        }
                        attempts.push(attempt(Arc::clone(&self.bus), self.keep, reply));
                    }
                    None => open = false,
                },
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if free && next.is_some() => {
                    if let Some(reply) = self.take_next() {
                        attempts.push(attempt(Arc::clone(&self.bus), self.keep, reply));
                    }
                }
            }
        }
    }

    fn take_next(&mut self) -> Option<PendingReply> {
        let (_, reply) = self.waiting.pop_first()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(reply.room.num_permits());
        Some(reply)
    }

    /// Stops publishing the answer to a request.
    fn end_earlier(&mut self, request: &RequestId) {
        let now = Instant::now();
        self.conflicts.retain(|_, said| now - *said <= LISTEN_LIMIT);
        self.conflicts.insert(request.clone(), now);
        self.waiting.retain(|_, reply| reply.request != *request);
        self.waiting_bytes = self.waiting.values().map(|reply| reply.room.num_permits()).sum();
    }

    fn settle(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Received(reply) => tracing::debug!(request_id = %reply.request, "reply received"),
            Attempt::Unheard(reply) => self.again(reply, LISTEN_LIMIT),
            Attempt::Failed(reply, error) => {
                tracing::debug!(request_id = %reply.request, error = %Chain(&error), "reply not sent");
                match error {
                    // Somebody may still wait for it when Redis is back.
                    BusError::Unavailable { .. } => self.again(reply, self.keep),
                    BusError::Refused { .. } => self.again(reply, LISTEN_LIMIT),
                }
            }
        }
    }

    fn again(&mut self, mut reply: PendingReply, limit: Duration) {
        let limit = if self.intake.is_cancelled() { limit.min(LAST_LIMIT) } else { limit };
        let superseded = reply.kind == Kind::Answer
            && reply.kept
            && self.conflicts.get(&reply.request).is_some_and(|said| *said >= reply.since);
        let wait = reply.backoff.wait();
        if superseded || reply.since.elapsed() + wait > limit {
            tracing::debug!(request_id = %reply.request, "reply not received by anybody");
            return;
        }
        // Many that nobody listens to must not keep the few from being heard.
        let wait = if self.waiting.len() > MANY { LONGEST_WAIT } else { wait };
        self.count = self.count.wrapping_add(1);
        self.waiting_bytes = self.waiting_bytes.saturating_add(reply.room.num_permits());
        self.waiting.insert((Instant::now() + wait, self.count), reply);
        while self.waiting_bytes > self.most_waiting {
            if self.take_next().is_none() {
                break;
            }
        }
    }
}

async fn attempt<B: Bus>(bus: Arc<B>, keep: Duration, mut reply: PendingReply) -> Attempt {
    match try_deliver(bus.as_ref(), keep, &mut reply).await {
        Ok(0) => Attempt::Unheard(reply),
        Ok(_) => Attempt::Received(reply),
        Err(error) => Attempt::Failed(reply, error),
    }
}

/// Keeps and publishes a reply, and returns how many subscribers received it.
async fn try_deliver<B: Bus>(bus: &B, keep: Duration, reply: &mut PendingReply) -> Result<u64, BusError> {
    if reply.in_doubt && may_have_been_received(bus, reply).await? {
        return Ok(1);
    }
    reply.in_doubt = false;
    if !reply.kept {
        // The key first: who finds nobody publishing must find the key.
        match bus.set(&reply.channel, &reply.json, Some(keep)).await {
            Ok(()) => reply.kept = true,
            // It has no room, or does not let us: who listens can be told all the same.
            Err(error @ BusError::Refused { .. }) => {
                tracing::debug!(request_id = %reply.request, error = %Chain(&error), "reply not kept");
            }
            Err(error @ BusError::Unavailable { .. }) => return Err(error),
        }
    }
    let connected = bus.connection().borrow().is_up();
    let published = bus.publish(&reply.channel, &reply.json).await;
    reply.in_doubt = connected && matches!(published, Err(BusError::Unavailable { .. }));
    published
}

/// Whether a reply whose publishing was not answered is to count as received: Redis was not emptied meanwhile, and somebody
/// listens, as they may have done before. Who subscribed since finds it at the key.
async fn may_have_been_received<B: Bus>(bus: &B, reply: &mut PendingReply) -> Result<bool, BusError> {
    if reply.kind == Kind::Answer {
        let found = bus.get(&[reply.channel.to_string()]).await?;
        if found.into_iter().flatten().next().is_none() {
            reply.kept = false;
            return Ok(false);
        }
    }
    Ok(bus.subscribers(&reply.channel).await? > 0)
}
