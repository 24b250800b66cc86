//! What each service's runs came to since the daemon started.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::names::ServiceName;
use crate::report::RunReport;

/// What a service's runs came to since the daemon started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
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

/// The records of all services.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: Mutex<BTreeMap<ServiceName, Record>>,
}

impl Ledger {
    /// Enters a run that ended.
    pub(super) fn enter(&self, report: &RunReport) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.entry(report.service.clone()).or_default();
        record.runs = record.runs.saturating_add(1);
        if report.outcome.is_success() {
            record.last_success = Some(Instant::now());
            record.last_success_at = Some(Timestamp::now());
        } else {
            record.failures = record.failures.saturating_add(1);
        }
        // The tail is in the log: kept here it would hold 64 KiB for each service that fails.
        record.last = Some(RunReport { tail: String::new(), ..report.clone() });
    }

    /// A copy of all records.
    pub(super) fn records(&self) -> BTreeMap<ServiceName, Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
