//! Delivers replies: to whoever listens, whenever they begin to, and into a key for those who come late.
//!
//! Clients publish a command first and subscribe to its reply afterwards, so a reply that is sent at once reaches nobody. It
//! is published again until somebody received it. All waiting replies share one task and one timer: ten thousand of them
//! must not cost ten thousand tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError};
use crate::names::RequestId;
use crate::report::Chain;

/// Wait between the first two attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_millis(640);

/// How long a reply is published for somebody to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);

/// The same while the daemon ends.
const LAST_LIMIT: Duration = Duration::from_millis(700);

/// Attempts under way at the same time.
const MOST_ATTEMPTS: usize = 64;

/// From so many waiting replies on, each is tried less often.
const MANY: usize = 256;

/// Replies that wait for a listener; beyond that the oldest is only in its key.
const MOST_WAITING: usize = 16_384;

/// A reply on its way.
#[derive(Debug, Clone)]
struct Parcel {
    request: RequestId,
    channel: Arc<str>,
    json: Arc<str>,
    /// When it was accepted.
    since: Instant,
    kept: bool,
    wait: Duration,
}

/// Hands replies over for delivery. The delivery ends when all of these are gone.
#[derive(Debug, Clone)]
pub(super) struct Replies(mpsc::Sender<Parcel>);

impl Replies {
    /// Delivers the reply to a command that was carried out.
    pub(super) async fn send(&self, request: &RequestId, json: Arc<str>) {
        // The other end outlives this one.
        let _ = self.0.send(Parcel::new(request, json)).await;
    }

    /// Delivers a reply, unless thousands wait already.
    pub(super) fn offer(&self, request: &RequestId, json: Arc<str>) {
        if self.0.try_send(Parcel::new(request, json)).is_err() {
            tracing::warn!(request_id = %request, "too many replies wait, one dropped");
        }
    }
}

impl Parcel {
    fn new(request: &RequestId, json: Arc<str>) -> Self {
        let channel = crate::message::reply_channel(request).into();
        Self { request: request.clone(), channel, json, since: Instant::now(), kept: false, wait: FIRST_WAIT }
    }
}

/// What became of an attempt.
enum Attempt {
    /// Somebody received it.
    Received(Parcel),
    /// Nobody did.
    Unheard(Parcel),
    /// Redis did not take it.
    Failed(Parcel, BusError),
}

/// The delivery of replies.
pub(super) struct Delivery<B> {
    bus: Arc<B>,
    keep: Duration,
    intake: CancellationToken,
    incoming: mpsc::Receiver<Parcel>,
    waiting: BTreeMap<(Instant, u64), Parcel>,
    count: u64,
}

/// A way to hand over replies, and their delivery. Each is kept at its key for `keep`; once the intake is closed they are
/// published for a short while only.
pub(super) fn replies<B: Bus>(bus: Arc<B>, keep: Duration, intake: CancellationToken) -> (Replies, Delivery<B>) {
    let (sender, incoming) = mpsc::channel(MOST_WAITING);
    (Replies(sender), Delivery { bus, keep, intake, incoming, waiting: BTreeMap::new(), count: 0 })
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
                    Some(parcel) => attempts.push(attempt(Arc::clone(&self.bus), self.keep, parcel)),
                    None => open = false,
                },
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if free && next.is_some() => {
                    if let Some((_, parcel)) = self.waiting.pop_first() {
                        attempts.push(attempt(Arc::clone(&self.bus), self.keep, parcel));
                    }
                }
            }
        }
    }

    fn settle(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Received(parcel) => tracing::debug!(request_id = %parcel.request, "reply received"),
            Attempt::Unheard(parcel) => self.again(parcel, LISTEN_LIMIT),
            Attempt::Failed(parcel, error) => {
                tracing::debug!(request_id = %parcel.request, error = %Chain(&error), "reply not sent");
                match error {
                    // Somebody may still wait for it when Redis is back.
                    BusError::Unavailable { .. } => self.again(parcel, self.keep),
                    BusError::Refused { .. } => self.again(parcel, LISTEN_LIMIT),
                }
            }
        }
    }

    fn again(&mut self, mut parcel: Parcel, limit: Duration) {
        let limit = if self.intake.is_cancelled() { limit.min(LAST_LIMIT) } else { limit };
        if parcel.since.elapsed() + parcel.wait > limit {
            tracing::debug!(request_id = %parcel.request, "reply not received by anybody");
            return;
        }
        // Many that nobody listens to must not keep the few from being heard.
        let wait = if self.waiting.len() > MANY { LONGEST_WAIT } else { parcel.wait };
        let at = Instant::now() + wait;
        parcel.wait = parcel.wait.saturating_mul(2).min(LONGEST_WAIT);
        self.count = self.count.wrapping_add(1);
        self.waiting.insert((at, self.count), parcel);
        if self.waiting.len() > MOST_WAITING {
            self.waiting.pop_first();
        }
    }
}

async fn attempt<B: Bus>(bus: Arc<B>, keep: Duration, mut parcel: Parcel) -> Attempt {
    if !parcel.kept {
        // The key first: who finds nobody publishing must find the key.
        match bus.set(&parcel.channel, &parcel.json, Some(keep)).await {
            Ok(()) => parcel.kept = true,
            // It has no room, or does not let us: who listens can be told all the same.
            Err(error @ BusError::Refused { .. }) => {
                tracing::debug!(request_id = %parcel.request, error = %Chain(&error), "reply not kept");
            }
            Err(error @ BusError::Unavailable { .. }) => return Attempt::Failed(parcel, error),
        }
    }
    match bus.publish(&parcel.channel, &parcel.json).await {
        Ok(0) => Attempt::Unheard(parcel),
        Ok(_) => Attempt::Received(parcel),
        Err(error) => Attempt::Failed(parcel, error),
    }
}
