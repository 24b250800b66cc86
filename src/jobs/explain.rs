//! Why a slot became what it is, from the records.

use std::time::Duration;

use futures::StreamExt;

use super::{JobError, Jobs};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::control::Explanation;
use crate::names::ServiceName;
use crate::record::{Reason, Record, State};
use crate::report::Trigger;
use crate::schedule::Interval;

/// A moment that was read off a table has no fraction of a second.
const FRACTION: f64 = 0.999;

impl<K: Backend, B: Bus> Jobs<K, B> {
    /// What became of the job's slot at a moment, or of its newest, and why.
    ///
    /// # Errors
    ///
    /// There is no such job, or nothing is known of it.
    pub async fn explain(&self, job: &ServiceName, at: Option<Timestamp>) -> Result<Explanation, JobError> {
        self.known(job)?;
        if let Some(at) = at.filter(|at| *at > Timestamp::now()) {
            return Ok(self.will_become(job, at));
        }
        let mut records = std::pin::pin!(self.records(job));
        let (mut found, mut oldest) = (None, None);
        while let Some(record) = records.next().await {
            let begins = record.slot.unwrap_or(record.created_at);
            if at.is_none_or(|at| begins.0 <= at.0 + FRACTION) {
                found = Some(record);
                break;
            }
            oldest = Some(begins);
        }
        let Some(record) = found else {
            let first = oldest.map(|oldest| format!("the oldest record is of {}", oldest.to_rfc3339()));
            let mut reasons = vec!["nothing is known of that moment".to_owned()];
            reasons.push(first.unwrap_or_else(|| format!("{job} has neither run nor had a slot yet")));
            return Ok(Explanation { job: job.clone(), slot: None, record: None, reasons, others: Vec::new() });
        };
        let mut reasons = vec![what(&record)];
        reasons.extend(record.reason.map(|reason| why(reason).to_owned()));
        let mut others = Vec::new();
        if record.reason == Some(Reason::Busy) {
            let slot = record.slot.unwrap_or(record.created_at);
            while let Some(other) = records.next().await {
                if other.run_id.is_none() || other.run_id == record.run_id {
                    continue;
                }
                let over = other.finished_at.is_some_and(|finished| finished.0 < slot.0) && other.state.is_over();
                if !over {
                    reasons.push(self.in_the_way(&other));
                    others.push(other);
                }
                break;
            }
        }
        if record.reason == Some(Reason::Paused) && self.ledger().paused(job) == Some(true) {
            reasons.push(format!("it is still paused: `resume {job}` ends that"));
        }
        if record.reason == Some(Reason::UnknownService) && self.runner.services().contains(job) {
            reasons.push("the Compose file has it by now".to_owned());
        }
        Ok(Explanation { job: job.clone(), slot: record.slot, record: Some(record), reasons, others })
    }

    /// What will become of a slot.
    fn will_become(&self, job: &ServiceName, at: Timestamp) -> Explanation {
        let now = Timestamp::now();
        let interval = self.intervals.borrow().get(job).copied().flatten().map(Interval::as_duration);
        let next = self.upcoming.next().remove(job);
        let slot = interval.zip(next).map(|(every, next)| {
            let slots = ((at.seconds_since(now) - next.as_secs_f64()) / every.as_secs_f64()).ceil().max(0.0);
            Timestamp(now.0 + next.as_secs_f64() + slots * every.as_secs_f64())
        });
        let reasons = match (slot, interval) {
            (Some(slot), Some(every)) if self.ledger().paused(job) == Some(true) => vec![
                format!("its slot at {} will be skipped, on an interval of {}", slot.to_rfc3339(), span(every)),
                format!("its schedule is paused: `resume {job}` ends that"),
            ],
            (Some(slot), Some(every)) => {
                vec![format!("it runs at {}, on an interval of {}", slot.to_rfc3339(), span(every))]
            }
            _ => vec!["it will not run by itself".to_owned(), "it has no interval".to_owned()],
        };
        Explanation { job: job.clone(), slot, record: None, reasons, others: Vec::new() }
    }

    fn in_the_way(&self, other: &Record) -> String {
        let trigger = match other.trigger {
            Trigger::Schedule => "its slot",
            Trigger::Command => "a command",
            Trigger::Adopted => "an earlier life of the daemon",
        };
        let run = other.iteration.unwrap_or_default();
        let begun = other.started_at.unwrap_or(other.created_at);
        let so_far = match other.duration_ms {
            Some(took) => format!("took {}: {}", span(Duration::from_millis(took)), what(other)),
            None if other.state.is_over() => what(other),
            None => "goes on".to_owned(),
        };
        let interval = self.intervals.borrow().get(&other.job).copied().flatten();
        let longer = interval
            .filter(|every| other.duration_ms.is_some_and(|took| Duration::from_millis(took) > every.as_duration()));
        let longer = longer.map_or_else(String::new, |every| format!("; that is longer than the interval of {every}"));
        format!("run {run} was in the way: it was begun by {trigger} at {} and {so_far}{longer}", begun.to_rfc3339())
    }
}

/// What became of it.
fn what(record: &Record) -> String {
    let run = record.iteration.map_or_else(|| "it".to_owned(), |run| format!("run {run}"));
    let error = record.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    match record.state {
        State::Pending => format!("{run} waits to begin"),
        State::Running => format!("{run} goes on"),
        State::Succeeded => format!("{run} succeeded"),
        State::Failed => format!("{run} failed{error}"),
        State::TimedOut => format!("{run} was past its time limit{error}"),
        State::Cancelled => format!("{run} was cancelled{error}"),
        State::Skipped => "its slot was skipped".to_owned(),
        State::Missed => error.strip_prefix(": ").unwrap_or("slots were missed").to_owned(),
    }
}

/// The reason in a sentence.
fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::NoOutput => "it exited 0, but did not report where its settings say that it does",
        Reason::NotStarted => "its container was not started",
        Reason::Interrupted => "the daemon ended in mid-run",
        Reason::Lost => "somebody else removed its container",
        Reason::EngineLost => "the Engine went down under it",
        Reason::OutOfMemory => "it needed more memory than its limit",
        Reason::Requested => "a command asked for it",
        Reason::Replaced => "a later run took its place",
        Reason::Shutdown => "the daemon was ending",
        Reason::Busy => "another run of the service went on",
        Reason::UnknownService => "the Compose file had no such service",
        Reason::QueueFull => "as many runs waited already as may",
        Reason::Paused => "its schedule was paused",
        Reason::Retry => "the run of an earlier slot was being tried again",
        Reason::Down => "the daemon did not run",
        Reason::Clock => "the machine slept, or its clock was set forward",
        Reason::Standby => "another daemon had the project",
    }
}

fn span(span: Duration) -> String {
    humantime::format_duration(Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))).to_string()
}
