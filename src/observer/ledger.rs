//! Enters what happens into the ledger, the daemon's memory. The core waits for this observer, and for no other.

use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};

use super::Observer;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::ledger::{Entry, Ledger, Request, RunStart, Written};
use crate::record::State;

/// Longest reply that is remembered, in bytes; of a longer one only that there was one.
const LONGEST_REPLY: usize = 4096;

/// The observer that remembers.
pub struct LedgerWriter {
    ledger: Ledger,
    /// The last entry that is on its way to the disk: those before it are there first.
    last: Mutex<Option<Written>>,
}

impl LedgerWriter {
    /// An observer that writes to a ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, last: Mutex::default() }
    }

    fn keep(&self, request: Request) {
        self.note(self.ledger.write(&Entry::Request(request)));
    }

    fn note(&self, written: Written) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
    }
}

impl Observer for LedgerWriter {
    fn observe(&self, event: &Event) {
        match event {
            Event::SlotDue { .. } => self.ledger.slots_due(1),
            Event::Recorded { record } => {
                // Nobody saw these fall due.
                if record.state == State::Missed {
                    self.ledger.slots_due(record.slots());
                }
                self.note(self.ledger.record(record.as_ref().clone()));
                let asked_for_by = record.request_id.as_ref().filter(|_| record.state == State::Pending);
                if let Some(request) = asked_for_by.and_then(|id| self.ledger.request(id)) {
                    self.keep(Request { run_id: record.run_id.clone(), ..request });
                }
            }
            Event::RunStarted { run_id, .. } => {
                if let Some(start) = RunStart::now(run_id.clone()) {
                    self.note(self.ledger.write(&Entry::Start(start)));
                }
            }
            Event::PauseChanged { service, paused } => {
                self.note(self.ledger.write(&Entry::Paused { job: service.clone(), paused: *paused }));
            }
            Event::CommandTaken { request_id: Some(id), fingerprint, .. } => {
                let (id, fingerprint, at) = (id.clone(), fingerprint.clone(), Timestamp::now());
                self.keep(Request { id, at, fingerprint, run_id: None, reply: None });
            }
            Event::CommandAnswered { request_id: Some(id), reply: Some(reply), .. } => {
                if let Some(request) = self.ledger.request(id) {
                    let reply = if reply.len() <= LONGEST_REPLY { reply.to_string() } else { String::new() };
                    self.keep(Request { reply: Some(reply), ..request });
                }
            }
            _ => {}
        }
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        async {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(written) = last {
                // A disk that does not answer stops no run; the store says so itself.
                written.wait().await;
            }
        }
        .boxed()
    }
}
