//! Hands events on to whoever listens for a while, and keeps the last of them for whoever comes later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::Observer;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::record::Record;
use crate::report::RunReport;

/// Events that are kept.
const KEPT: usize = 256;

/// Events that wait for a listener; one that falls behind further misses the oldest.
const AHEAD: usize = 256;

/// An event and when it was emitted.
#[derive(Debug, Clone)]
pub struct Stamped {
    /// When.
    pub at: Timestamp,
    /// What happened, without output.
    pub event: Event,
}

/// The events, for whoever listens and for the observer that hands them on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    recent: Arc<Mutex<VecDeque<Arc<Stamped>>>>,
    sender: broadcast::Sender<Arc<Stamped>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { recent: Arc::default(), sender: broadcast::Sender::new(AHEAD) }
    }
}

impl Feed {
    /// The events so far that are kept, and those that follow. None is between the two, and none in both.
    #[must_use]
    pub fn listen(&self) -> (Vec<Arc<Stamped>>, broadcast::Receiver<Arc<Stamped>>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        (recent.iter().cloned().collect(), self.sender.subscribe())
    }
}

impl Observer for Feed {
    fn observe(&self, event: &Event) {
        let stamped = Arc::new(Stamped { at: Timestamp::now(), event: without_output(event) });
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&stamped));
        // Nobody may listen.
        let _ = self.sender.send(stamped);
    }
}

/// Kept here it would hold 64 KiB for each run that fails.
fn without_output(event: &Event) -> Event {
    match event {
        Event::Recorded { record } => {
            Event::Recorded { record: Box::new(Record { tail: None, ..record.as_ref().clone() }) }
        }
        Event::RunEnded { report } => Event::RunEnded { report: RunReport { tail: String::new(), ..report.clone() } },
        Event::CommandAnswered { action, request_id, answer, reply: _, took } => Event::CommandAnswered {
            action: action.clone(),
            request_id: request_id.clone(),
            answer: answer.clone(),
            reply: None,
            took: *took,
        },
        other => other.clone(),
    }
}
