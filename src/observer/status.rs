//! Counts what each service's runs came to since the daemon started, for the answer to `status` and the watch over health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Observer;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::names::ServiceName;
use crate::report::RunReport;

/// What a service's runs came to since the daemon started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceTally {
    /// Runs that ended, whatever they came to.
    pub runs: u64,
    /// Runs among them that did not succeed.
    pub failures: u64,
    /// When the last run that succeeded ended, on the clock that is never set.
    pub last_success: Option<Instant>,
    /// The same as wall-clock time, for the status.
    pub last_success_at: Option<Timestamp>,
    /// The last run that ended, without its tail.
    pub last: Option<RunReport>,
}

/// The counts of all services, for whoever reads them and for the observer that keeps them.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<ServiceName, ServiceTally>>>);

impl Tally {
    /// A copy of all counts.
    #[must_use]
    pub fn services(&self) -> BTreeMap<ServiceName, ServiceTally> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, ServiceTally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Tally {
    fn observe(&self, event: &Event) {
        let Event::RunEnded { report } = event else { return };
        let mut services = self.lock();
        let tally = services.entry(report.service.clone()).or_default();
        tally.runs = tally.runs.saturating_add(1);
        if report.outcome.is_success() {
            tally.last_success = Some(Instant::now());
            tally.last_success_at = Some(Timestamp::now());
        } else {
            tally.failures = tally.failures.saturating_add(1);
        }
        // The tail is in the log: kept here it would hold 64 KiB for each service that fails.
        tally.last = Some(RunReport { tail: String::new(), ..report.clone() });
    }
}
