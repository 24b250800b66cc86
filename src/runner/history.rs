//! Where the runner says what happens, and looks up what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{RunError, RunRequest};
use crate::clock::Timestamp;
use crate::event::Event;
use crate::ledger::{Ledger, RunStart};
use crate::names::{RunId, ServiceName};
use crate::observer::Events;
use crate::observer::status::Tally;
use crate::record::{Missed, Reason, Record, State};
use crate::report::{Outcome, RunReport, Trigger};
use crate::schedule::{LastSlot, PastSlots};

/// A run's exit code for a signal is that many more than the signal's number.
const SIGNALS: i64 = 128;

/// What happened in this life of the daemon and in earlier ones.
#[derive(Clone)]
pub struct History {
    /// Where it is said.
    pub events: Events,
    /// What is remembered of it; one of the observers writes it.
    pub ledger: Ledger,
    /// What the runs of this life came to; another one counts it.
    pub tally: Tally,
}

/// A run of an earlier life of the daemon.
pub(super) struct EarlierRun {
    pub(super) record: Record,
    /// How long ago it was started, on the clock that is never set.
    pub(super) age: Option<Duration>,
}

impl History {
    /// Says that a record has a new state.
    pub(super) fn record(&self, record: Record) {
        self.events.emit(&Event::Recorded { record: Box::new(record) });
    }

    /// Enters a run that was decided on.
    pub(super) fn begin(&self, request: &RunRequest, run_id: RunId, container: String) -> Record {
        let (service, trigger) = (request.service.clone(), request.trigger);
        let iteration = self.ledger.next_iteration(&service);
        let record = Record {
            slot: request.slot,
            request_id: request.request_id.clone(),
            container: Some(container),
            ..Record::pending(service, iteration, run_id, trigger, Timestamp::now())
        };
        self.record(record.clone());
        record
    }

    /// Enters that a run which was decided on was not begun.
    pub(super) fn give_up(&self, record: Record, why: &RunError) {
        let reason = match why {
            RunError::Busy { .. } | RunError::Removing(_) => Reason::Busy,
            RunError::UnknownService(_) => Reason::UnknownService,
            RunError::ShuttingDown => Reason::Shutdown,
        };
        let error = Some(why.to_string());
        self.record(Record { state: State::Cancelled, reason: Some(reason), error, ..record });
    }

    /// Enters a slot that gets no run.
    pub fn skip(&self, service: &ServiceName, slot: Timestamp, reason: Reason) {
        self.record(Record::skipped(service.clone(), slot, reason, Timestamp::now()));
    }

    /// Enters slots that nobody saw.
    pub fn miss(&self, service: &ServiceName, missed: PastSlots) {
        let now = Timestamp::now();
        let at = |ago: Duration| Timestamp(now.0 - ago.as_secs_f64());
        let slots = missed.slots;
        self.events.emit(&Event::SlotsMissed { service: service.clone(), missed: slots });
        let (first, missed) = (at(missed.first_ago), Missed { slots, last: at(missed.last_ago) });
        self.record(Record::missed(service.clone(), first, missed, Reason::Down, now));
    }

    /// The last slots that services had, as of now.
    #[must_use]
    pub fn last_slots(&self) -> BTreeMap<ServiceName, LastSlot> {
        let now = Timestamp::now();
        // A machine without a clock of its own has the time of its last shutdown, or 1970, until it is told.
        let dated = self.ledger.newest().is_none_or(|newest| newest <= now);
        let slots = self.ledger.last_slots().into_iter().map(|(service, slot)| {
            let since = Duration::try_from_secs_f64(now.seconds_since(slot.at)).ok().filter(|_| dated);
            let ago = |since| LastSlot::Ago { since, cut_off: slot.cut_off };
            (service, since.map_or(LastSlot::NotDated, ago))
        });
        slots.collect()
    }

    /// What is known of a run that an earlier life of the daemon began; one that nothing is known of is entered.
    pub(super) fn earlier(&self, service: &ServiceName, run_id: &RunId, container: &str) -> EarlierRun {
        let known = self.ledger.unfinished().into_iter().find(|known| known.record.run_id.as_ref() == Some(run_id));
        let Some(known) = known else {
            let request = RunRequest::new(service.clone(), Trigger::Adopted);
            return EarlierRun { record: self.begin(&request, run_id.clone(), container.to_owned()), age: None };
        };
        let now = RunStart::now(run_id.clone());
        let age = known.start.zip(now).and_then(|(start, now)| start.age_at(&now));
        EarlierRun { record: known.record, age }
    }

    /// Enters that nothing is left of the runs of an earlier life, but of those that `is_here` knows.
    pub(super) fn interrupt(&self, is_here: impl Fn(&ServiceName, &RunId) -> bool) {
        for known in self.ledger.unfinished() {
            let record = known.record;
            let Some(run_id) = record.run_id.clone().filter(|run_id| !is_here(&record.job, run_id)) else { continue };
            let age = known.start.zip(RunStart::now(run_id)).and_then(|(start, now)| start.age_at(&now));
            let started_at = age.map(|age| Timestamp(Timestamp::now().0 - age.as_secs_f64()));
            let (state, reason) = (State::Failed, Some(Reason::Interrupted));
            let error = Some("the daemon ended in mid-run, and the run's container is gone".to_owned());
            self.record(Record { state, reason, started_at, error, ..record });
        }
    }
}

/// A run's record with its verdict.
pub(super) fn verdict(record: Record, report: &RunReport) -> Record {
    let state = match report.outcome {
        Outcome::Succeeded => State::Succeeded,
        Outcome::Failed | Outcome::NoOutput => State::Failed,
        Outcome::TimedOut => State::TimedOut,
        Outcome::Cancelled => State::Cancelled,
    };
    let (started_at, finished_at) = (report.container_started_at, report.container_finished_at);
    let ran = started_at.zip(finished_at).map(|(started, finished)| finished.seconds_since(started));
    let ran = ran.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let signal = report.exit_code.filter(|code| (SIGNALS + 1..=SIGNALS + 64).contains(code));
    Record {
        state,
        reason: report.reason,
        exit_code: report.exit_code,
        signal: signal.and_then(|code| u8::try_from(code - SIGNALS).ok()),
        out_of_memory: (started_at.is_some() && !report.outcome.is_success()).then_some(report.out_of_memory),
        started_at,
        finished_at,
        duration_ms: ran.and_then(|ran| u64::try_from(ran.as_millis()).ok()),
        error: report.error.clone().or_else(|| report.warning.map(str::to_owned)),
        tail: (!report.tail.is_empty()).then(|| report.tail.clone()),
        ..record
    }
}
