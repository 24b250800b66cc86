//! Judges a run that exited with 0 by what its source left on Redis.

use tracing::debug;

use super::{Runner, ServiceOptions};
use crate::backend::Backend;
use crate::bus::{self, Bus};
use crate::clock::Timestamp;
use crate::names::SourceId;
use crate::record::Reason;
use crate::report::{Chain, Outcome, RunReport};

/// What is warned of when a run reported a success and left nothing else.
const NO_READINGS: &str = "reported success, wrote no readings";

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Judges a run by its source's status, and warns where it left no reading.
    pub(super) async fn check_source(&self, options: &ServiceOptions, since: Timestamp, report: &mut RunReport) {
        // A source may write its time in whole seconds.
        let since = Timestamp(since.0.floor());
        if let Some(source) = &options.proof
            && report.outcome.is_success()
        {
            self.check_status(source, since, report).await;
        }
        if let Some(source) = &options.expects_readings
            && report.outcome.is_success()
        {
            match bus::has_readings_since(self.inner.bus.as_ref(), source, since).await {
                Ok(found) => report.warning = (found == Some(false)).then_some(NO_READINGS),
                Err(error) => debug!(error = %Chain(&error), "not known whether the run wrote readings"),
            }
        }
    }

    async fn check_status(&self, source: &SourceId, since: Timestamp, report: &mut RunReport) {
        let status = match bus::source_status(self.inner.bus.as_ref(), source).await {
            Ok(status) => status,
            Err(error) => return debug!(error = %Chain(&error), "not known whether the run left output"),
        };
        if !status.as_ref().is_some_and(|status| status.succeeded_since(since)) {
            let last_error = status.and_then(|status| status.last_error).map(|error| format!(": {error}"));
            let last_error = last_error.unwrap_or_default();
            report.outcome = Outcome::NoOutput;
            report.reason = Some(Reason::NoOutput);
            report.error = Some(format!("exited 0, but {source} reported no success during the run{last_error}"));
        }
    }
}
