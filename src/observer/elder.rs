//! Notices that another daemon works on the project that was started before this one.

use tokio::sync::watch;

use super::Observer;
use crate::event::Event;
use crate::names::{RunId, ServiceName};

/// The observer that notices, and what it noticed.
#[derive(Debug, Clone, Default)]
pub struct Elder(watch::Sender<Option<(ServiceName, RunId)>>);

impl Elder {
    /// The first run of an older daemon that was seen.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<(ServiceName, RunId)>> {
        self.0.subscribe()
    }
}

impl Observer for Elder {
    fn observe(&self, event: &Event) {
        if let Event::ForeignRun { service, run_id, older: true } = event {
            self.0.send_if_modified(|seen| {
                let first = seen.is_none();
                seen.get_or_insert_with(|| (service.clone(), run_id.clone()));
                first
            });
        }
    }
}
