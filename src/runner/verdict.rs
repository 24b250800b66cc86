//! What a run came to, as a report.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Bounds, End, Failure, Finished, NotStarted};
use crate::clock::Timestamp;
use crate::engine::EngineError;
use crate::names::{RunId, ServiceName};
use crate::record::Reason;
use crate::report::{Chain, Outcome, RunReport, Trigger};

/// Which run it is, and when it began on both clocks.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) service: ServiceName,
    pub(super) run_id: RunId,
    pub(super) trigger: Trigger,
    pub(super) instant: Instant,
    pub(super) at: Timestamp,
}

impl Begun {
    /// A run that begins now.
    pub(super) fn now(service: ServiceName, run_id: RunId, trigger: Trigger) -> Self {
        Self { service, run_id, trigger, instant: Instant::now(), at: Timestamp::now() }
    }

    /// The report of a run that ended before its container existed.
    pub(super) fn not_started(self, why: NotStarted, bounds: &Bounds) -> RunReport {
        let end = match why {
            NotStarted::Failed(failure) => End::Failed(failure),
            NotStarted::TimedOut(failure) => {
                let error = Some(Chain(&failure).to_string());
                return self.report(&Finished::not_started(End::TooLate), (Outcome::TimedOut, None, error), None);
            }
            NotStarted::Cancelled => End::Cancelled,
        };
        self.finished(&Finished::not_started(end), bounds)
    }

    /// The report of a run that has ended.
    pub(super) fn finished(self, finished: &Finished, bounds: &Bounds) -> RunReport {
        let limit = humantime::format_duration(bounds.limit);
        let failed = |code, error: String| (Outcome::Failed, code, Some(error));
        let verdict = match &finished.end {
            End::Exited(0) => (Outcome::Succeeded, Some(0), None),
            End::Exited(code) if finished.out_of_memory => failed(Some(*code), format!("exited {code}, out of memory")),
            End::Exited(code) => failed(Some(*code), format!("exited {code}")),
            End::TimedOut => {
                (Outcome::TimedOut, None, Some(format!("still running after {limit}, stopped and removed")))
            }
            End::TooLate => (Outcome::TimedOut, None, Some(Failure::TooLate(bounds.limit).to_string())),
            End::Cancelled if bounds.abort.is_cancelled() && finished.started_at.is_some() => {
                (Outcome::Cancelled, None, Some("stopped and removed at shutdown".to_owned()))
            }
            End::Cancelled if bounds.abort.is_cancelled() => (Outcome::Cancelled, None, None),
            End::Cancelled => (Outcome::Cancelled, None, Some("cancelled".to_owned())),
            End::EngineLost => failed(None, "the engine was lost while it ran, its exit code is not known".to_owned()),
            End::Interrupted => failed(None, "interrupted: the daemon ended before it was started".to_owned()),
            End::Failed(failure) => failed(None, Chain(failure).to_string()),
        };
        let reason = match &finished.end {
            End::Exited(0) | End::TimedOut | End::TooLate => None,
            End::Exited(_) => finished.out_of_memory.then_some(Reason::OutOfMemory),
            End::Cancelled if bounds.abort.is_cancelled() => Some(Reason::Shutdown),
            End::Cancelled => Some(Reason::Requested),
            End::EngineLost => Some(Reason::EngineLost),
            End::Interrupted => Some(Reason::Interrupted),
            End::Failed(_) if finished.started_at.is_none() => Some(Reason::NotStarted),
            End::Failed(Failure::Engine { source: EngineError::NotFound { .. }, .. }) => Some(Reason::Lost),
            End::Failed(_) => None,
        };
        self.report(finished, verdict, reason)
    }

    fn report(
        self,
        finished: &Finished,
        verdict: (Outcome, Option<i64>, Option<String>),
        reason: Option<Reason>,
    ) -> RunReport {
        let (outcome, exit_code, error) = verdict;
        RunReport {
            service: self.service,
            run_id: self.run_id,
            trigger: self.trigger,
            outcome,
            exit_code,
            started_at: self.at,
            duration: self.instant.elapsed(),
            error,
            tail: String::new(),
            note: None,
            warning: None,
            container_started_at: finished.started_at,
            container_finished_at: finished.finished_at,
            out_of_memory: finished.out_of_memory,
            reason,
        }
    }
}

impl RunReport {
    /// The report as that of a container which an earlier life began: its times are the Engine's.
    pub(super) fn by_the_engines_clock(mut self) -> Self {
        if let (Some(started), Some(finished)) = (self.container_started_at, self.container_finished_at) {
            self.started_at = started;
            // The wall clock may have been set in between: a time that can't be is none.
            self.duration = Duration::try_from_secs_f64(finished.seconds_since(started)).unwrap_or_default();
        }
        self
    }
}
