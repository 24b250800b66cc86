//! Writes the record of each run that ended to `runs:{service}` in Redis, newest first.
//!
//! A Redis that is slow or away holds up nobody: records wait in a bounded queue, and what finds no room there is counted
//! and said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Observer;
use crate::bus::{Bus, BusError, Connection};
use crate::event::Event;
use crate::record::Record;
use crate::report::Chain;
use crate::text::last_bytes;

/// Records that Redis keeps of a service.
const KEPT: u16 = 50;

/// Bytes of a run's output in its record there.
const TAIL: usize = 2 << 10;

/// Pause before another try of a write that Redis did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// Records that wait for Redis.
const QUEUED: usize = 256;

/// The observer that writes to Redis.
pub struct RedisRecords {
    queue: mpsc::Sender<Record>,
    dropped: Arc<AtomicU64>,
}

/// What writes the queue to Redis.
pub struct Writer<B> {
    bus: Arc<B>,
    queue: mpsc::Receiver<Record>,
    dropped: Arc<AtomicU64>,
}

impl RedisRecords {
    /// The observer, and what writes for it.
    pub fn new<B: Bus>(bus: Arc<B>) -> (Self, Writer<B>) {
        let (sender, queue) = mpsc::channel(QUEUED);
        let dropped = Arc::<AtomicU64>::default();
        (Self { queue: sender, dropped: Arc::clone(&dropped) }, Writer { bus, queue, dropped })
    }
}

impl Observer for RedisRecords {
    fn observe(&self, event: &Event) {
        let Event::Recorded { record } = event else { return };
        if record.run_id.is_none() || !record.state.is_over() {
            return;
        }
        let record = Record {
            tail: record.tail.as_deref().map(|tail| last_bytes(tail, TAIL).to_owned()),
            ..record.as_ref().clone()
        };
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<B: Bus> Writer<B> {
    /// Writes until `closing` is cancelled. While Redis is away the records wait.
    pub async fn run(mut self, closing: CancellationToken) {
        loop {
            let record = tokio::select! {
                biased;
                record = self.queue.recv() => record,
                () = closing.cancelled() => return,
            };
            let Some(record) = record else { return };
            tokio::select! {
                biased;
                () = self.write(&record) => {}
                () = closing.cancelled() => return,
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                warn!(dropped, "records not written to redis, too many waited");
            }
        }
    }

    async fn write(&self, record: &Record) {
        let json = serde_json::to_string(record).unwrap_or_default();
        let mut connection = self.bus.connection();
        loop {
            match self.bus.push(&self.bus.names().runs(&record.job), &json, KEPT).await {
                Ok(()) => return,
                Err(error @ BusError::Refused { .. }) => {
                    return debug!(service = %record.job, error = %Chain(&error), "record not written to redis");
                }
                Err(BusError::Unavailable { .. }) => {
                    if !connection.borrow().is_up() && connection.wait_for(Connection::is_up).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}
