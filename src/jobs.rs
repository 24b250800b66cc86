//! What can be done with jobs and be told of them, whoever asks: a command over Redis or a request on the control socket.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::control::{Job, JobKind, JobState, JobTrigger, NextSlot};
use crate::event::Event;
use crate::ledger::Ledger;
use crate::names::{RunId, ServiceName};
use crate::observer::feed::Feed;
use crate::record::{Record, State};
use crate::runner::{OperateError, RunError, Runner};
use crate::schedule::Intervals;
use crate::upcoming::Upcoming;

mod answer;
mod command;
mod explain;
mod follow;
mod records;

use records::with_start;

/// Why something was not done with a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is no such service.
    #[error("no such service: {0}")]
    Unknown(ServiceName),
    /// It is the daemon's own service.
    #[error("{0} is the orchestrator's own service: it would not live to answer")]
    Own(ServiceName),
    /// It has no schedule that could be paused.
    #[error("{0} has no schedule")]
    NoSchedule(ServiceName),
    /// Nothing goes on that could be cancelled.
    #[error("no run of {0} goes on")]
    NotRunning(ServiceName),
    /// It has no runs.
    #[error("{0} has not run yet")]
    NeverRan(ServiceName),
    /// It has no such run, or not any more.
    #[error("{job} has no run {run}, or its record is no longer kept")]
    NoRun {
        /// The job.
        job: ServiceName,
        /// The iteration.
        run: u64,
    },
    /// The run's output is gone.
    #[error(
        "the output of run {run} of {job} was not kept: `runs.keep_output: all` keeps that of runs that succeed too"
    )]
    NoOutput {
        /// The job.
        job: ServiceName,
        /// The iteration.
        run: u64,
    },
    /// No run was started.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The service was not started, stopped or restarted.
    #[error(transparent)]
    Operate(#[from] OperateError),
}

/// The jobs of the project.
pub struct Jobs<K, B> {
    runner: Runner<K, B>,
    intervals: watch::Receiver<Arc<Intervals>>,
    upcoming: Upcoming,
    feed: Feed,
    /// The daemon's own service.
    own: Option<ServiceName>,
}

impl<K, B> Clone for Jobs<K, B> {
    fn clone(&self) -> Self {
        let (runner, intervals, upcoming) = (self.runner.clone(), self.intervals.clone(), self.upcoming.clone());
        Self { runner, intervals, upcoming, feed: self.feed.clone(), own: self.own.clone() }
    }
}

impl<K: Backend, B: Bus> Jobs<K, B> {
    /// The jobs that `runner` runs on `intervals`; `own` is the daemon's own service.
    pub fn new(
        runner: Runner<K, B>,
        intervals: watch::Receiver<Arc<Intervals>>,
        upcoming: Upcoming,
        feed: Feed,
        own: Option<ServiceName>,
    ) -> Self {
        Self { runner, intervals, upcoming, feed, own }
    }

    fn ledger(&self) -> &Ledger {
        &self.runner.history().ledger
    }

    /// Every service that has a schedule or has run.
    #[must_use]
    pub fn list(&self) -> Vec<Job> {
        let intervals = Arc::clone(&self.intervals.borrow());
        let last = self.ledger().last_runs();
        let names: BTreeSet<&ServiceName> = intervals.keys().chain(last.keys()).collect();
        let (next, unfinished) = (self.upcoming.next(), self.unfinished());
        let one = |name: &&ServiceName| {
            let paused = self.is_paused(name, &intervals);
            let interval = intervals.get(*name).copied().flatten();
            let fire = next.get(*name).filter(|_| !paused);
            let running = self.runner.running(name);
            let waits = |run: &Record| run.job == **name && run.state == State::Pending && run.run_id != running;
            Job {
                name: (*name).clone(),
                kind: JobKind::Service,
                trigger: if intervals.contains_key(*name) { JobTrigger::Interval } else { JobTrigger::Manual },
                state: match &running {
                    Some(_) => JobState::Running,
                    None if unfinished.values().any(waits) => JobState::Queued,
                    None => JobState::Idle,
                },
                paused,
                last_run: last.get(*name).map(|record| with_start(record.clone(), &unfinished)),
                next_fire: fire.map(|until| Timestamp(Timestamp::now().0 + until.as_secs_f64())),
                interval: interval.map(|every| every.as_duration().as_secs_f64()),
                engine_owned: false,
            }
        };
        names.iter().map(one).collect()
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// There is no such service.
    pub fn job(&self, name: &ServiceName) -> Result<Job, JobError> {
        self.known(name)?;
        let never_ran = || Job {
            name: name.clone(),
            kind: JobKind::Service,
            trigger: JobTrigger::Manual,
            state: JobState::Idle,
            paused: false,
            last_run: None,
            next_fire: None,
            interval: None,
            engine_owned: false,
        };
        Ok(self.list().into_iter().find(|job| job.name == *name).unwrap_or_else(never_ran))
    }

    /// What runs next, the soonest first.
    #[must_use]
    pub fn next(&self) -> Vec<NextSlot> {
        let (now, paused) = (Timestamp::now(), self.ledger().all_paused());
        let mut next: Vec<_> = self.upcoming.next().into_iter().collect();
        next.sort_by_key(|(_, until)| *until);
        let slot = |(name, until): (ServiceName, std::time::Duration)| NextSlot {
            paused: paused.contains(&name),
            at: Timestamp(now.0 + until.as_secs_f64()),
            name,
        };
        next.into_iter().map(slot).collect()
    }

    /// Ends the run of a job that goes on, and names it.
    ///
    /// # Errors
    ///
    /// None goes on.
    pub fn cancel(&self, job: &ServiceName) -> Result<RunId, JobError> {
        self.known(job)?;
        self.runner.cancel(job).ok_or_else(|| JobError::NotRunning(job.clone()))
    }

    /// Has a job's slots skipped from now on, or no more; returns once that will survive a crash.
    ///
    /// # Errors
    ///
    /// It has no schedule.
    pub async fn pause(&self, job: &ServiceName, paused: bool) -> Result<(), JobError> {
        self.known(job)?;
        if !self.intervals.borrow().contains_key(job) && self.ledger().paused(job) != Some(true) {
            return Err(JobError::NoSchedule(job.clone()));
        }
        let events = self.runner.events();
        if self.ledger().paused(job).unwrap_or(false) != paused {
            events.emit(&Event::PauseChanged { service: job.clone(), paused });
        }
        events.settled().await;
        Ok(())
    }

    fn is_paused(&self, job: &ServiceName, intervals: &Intervals) -> bool {
        intervals.get(job).is_some_and(Option::is_none) || self.ledger().paused(job) == Some(true)
    }

    fn known(&self, job: &ServiceName) -> Result<(), JobError> {
        let is_known = self.runner.services().contains(job)
            || self.intervals.borrow().contains_key(job)
            || self.ledger().last_run(job).is_some();
        if is_known { Ok(()) } else { Err(JobError::Unknown(job.clone())) }
    }

    fn not_own(&self, job: &ServiceName) -> Result<(), JobError> {
        if self.own.as_ref() == Some(job) { Err(JobError::Own(job.clone())) } else { Ok(()) }
    }
}
