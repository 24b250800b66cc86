//! What can be done with jobs and be told of them, whoever asks: a command over Redis or a request on the control socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use serde_json::{Map, Value, json};
use tokio::sync::{broadcast, watch};

use crate::action::JobVerb;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::control::{Job, JobKind, JobState, JobTrigger, NextSlot};
use crate::event::Event;
use crate::ledger::{Ledger, Query, RunStart};
use crate::names::{RunId, ServiceName};
use crate::observer::feed::{Feed, Told};
use crate::record::{Record, State};
use crate::runner::{OperateError, RunError, Runner};
use crate::schedule::Intervals;
use crate::upcoming::Upcoming;

mod answer;
mod explain;

/// Records that are read at a time.
const PAGE: usize = 64;

/// Most records that the reply to a command holds.
const REPLIED: usize = 20;

/// Most bytes of output that it holds.
const REPLIED_OUTPUT: usize = 64 << 10;

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

    /// A job's records, newest first.
    pub fn records(&self, job: &ServiceName) -> impl Stream<Item = Record> + Send + 'static {
        let (ledger, job) = (self.ledger().clone(), job.clone());
        let unfinished = self.unfinished();
        let pages = futures::stream::unfold(Some(None), move |before: Option<Option<u64>>| {
            let query = before.map(|before| Query { job: Some(job.clone()), before, limit: PAGE, run_id: None });
            let ledger = ledger.clone();
            async move {
                let page = ledger.page(query?).await;
                Some((page.records, page.next.map(Some)))
            }
        });
        pages.flat_map(futures::stream::iter).map(move |record| with_start(record, &unfinished))
    }

    /// A run of a job, with its output where it was kept; the newest where none is named.
    ///
    /// # Errors
    ///
    /// There is no such job or run.
    pub async fn run_record(&self, job: &ServiceName, run: Option<u64>) -> Result<Record, JobError> {
        self.known(job)?;
        let wanted = |record: &Record| record.run_id.is_some() && run.is_none_or(|run| record.iteration == Some(run));
        let mut records = std::pin::pin!(self.records(job));
        while let Some(record) = records.next().await {
            if wanted(&record) {
                return Ok(record);
            }
        }
        Err(run.map_or_else(|| JobError::NeverRan(job.clone()), |run| JobError::NoRun { job: job.clone(), run }))
    }

    /// Slots so far, and what each service does and did since the daemon started.
    #[must_use]
    pub fn status(&self) -> Map<String, Value> {
        let slots = self.runner.slots();
        let counts = [("slots_due", json!(slots.due)), ("slots_accounted", json!(slots.accounted))];
        let counts = counts.map(|(key, count)| (key.to_owned(), count));
        counts.into_iter().chain([("services".to_owned(), self.services())]).collect()
    }

    fn services(&self) -> Value {
        let records = self.runner.records();
        let intervals = Arc::clone(&self.intervals.borrow());
        let services = self.runner.services().into_iter().map(|service| {
            let record = records.get(&service);
            let every = intervals.get(&service).copied().flatten().map(|every| every.as_duration().as_secs_f64());
            let state = json!({
                "every": every,
                "paused": self.is_paused(&service, &intervals),
                "running": self.runner.running(&service),
                "runs": record.map_or(0, |record| record.runs),
                "failures": record.map_or(0, |record| record.failures),
                "last_success": record.and_then(|record| record.last_success_at),
                "last_run": record.and_then(|record| record.last.as_ref()),
            });
            (service.into(), state)
        });
        Value::Object(services.collect())
    }

    /// Does what a command asks for, and returns what its reply is to hold.
    ///
    /// # Errors
    ///
    /// There is no such job, or nothing that could be done.
    pub async fn carry_out(&self, verb: JobVerb, job: &ServiceName) -> Result<Map<String, Value>, JobError> {
        let field = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        match verb {
            JobVerb::Cancel => Ok(field("run_id", json!(self.cancel(job)?))),
            JobVerb::Pause => self.pause(job, true).await.map(|()| field("paused", true.into())),
            JobVerb::Resume => self.pause(job, false).await.map(|()| field("paused", false.into())),
            JobVerb::Runs => {
                self.known(job)?;
                let records = self.records(job).take(REPLIED).map(|record| json!(Record { tail: None, ..record }));
                Ok(field("runs", Value::Array(records.collect().await)))
            }
            JobVerb::Logs => {
                let record = self.run_record(job, None).await?;
                let logs = match &record.container {
                    Some(container) if record.state == State::Running => {
                        self.runner.tail(container, REPLIED_OUTPUT).await
                    }
                    _ => record.tail.clone(),
                };
                let run = record.iteration.unwrap_or_default();
                let logs = logs.ok_or_else(|| JobError::NoOutput { job: job.clone(), run })?;
                let from = logs.ceil_char_boundary(logs.len().saturating_sub(REPLIED_OUTPUT));
                let mut fields = field("logs", logs.get(from..).into());
                fields.insert("run_id".to_owned(), json!(record.run_id));
                Ok(fields)
            }
        }
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

    /// Runs without a verdict, as they are now.
    fn unfinished(&self) -> BTreeMap<RunId, Record> {
        let known = self.ledger().unfinished().into_iter();
        known.filter_map(|known| Some((known.record.run_id.clone()?, now_of(known.record, known.start)))).collect()
    }

    /// The verdict of a run, once it has one.
    async fn verdict(&self, run_id: &RunId, events: &mut broadcast::Receiver<Arc<Told>>) -> Option<Record> {
        loop {
            match events.recv().await {
                Ok(told) => match &told.event {
                    Event::Recorded { record } if record.run_id.as_ref() == Some(run_id) && record.state.is_over() => {
                        return Some(record.as_ref().clone());
                    }
                    _ => {}
                },
                // What was missed may have been it.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    if let Some(record) = self.ledger().run(run_id).await.filter(|record| record.state.is_over()) {
                        return Some(record);
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Waits until a run's container was started; false where it has its verdict before.
    async fn started(&self, run_id: &RunId, events: &mut broadcast::Receiver<Arc<Told>>) -> bool {
        loop {
            let unfinished = self.ledger().unfinished();
            match unfinished.iter().find(|known| known.record.run_id.as_ref() == Some(run_id)) {
                None => return false,
                Some(known) if known.start.is_some() => return true,
                Some(_) => {}
            }
            match events.recv().await {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return false,
            }
        }
    }
}

/// A run's record as it is now: the ledger has its start apart.
fn now_of(record: Record, start: Option<RunStart>) -> Record {
    let Some(start) = start.filter(|_| record.state == State::Pending) else { return record };
    let age = RunStart::now(start.run_id.clone()).and_then(|now| start.age_at(&now));
    let started_at = age.map(|age| Timestamp(Timestamp::now().0 - age.as_secs_f64()));
    Record { state: State::Running, started_at: record.started_at.or(started_at), ..record }
}

fn with_start(record: Record, unfinished: &BTreeMap<RunId, Record>) -> Record {
    let known = record.run_id.as_ref().filter(|_| !record.state.is_over()).and_then(|run_id| unfinished.get(run_id));
    known.cloned().unwrap_or(record)
}
