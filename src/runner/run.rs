//! One run of an ephemeral service, from the decision to its container's removal.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::claims::{InTheWay, RunClaim};
use super::history;
use super::verdict::Begun;
use super::{RunError, RunRequest, Runner, ServiceOptions};
use crate::backend::{Backend, Bounds, Due, Failure, Finished, FoundRun, Naming, NotStarted, RunSpec, RunState};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::event::{Event, Leftover};
use crate::names::{RunId, ServiceName};
use crate::record::Record;
use crate::report::RunReport;
use crate::spec::{Slug, one_off_name};

/// Time between two looks at a run that somebody else made and that is in the way.
const TURN_LOOK: Duration = Duration::from_secs(1);

/// A run that was decided on and is in the ledger.
#[derive(Debug)]
pub struct AcceptedRun {
    request: RunRequest,
    slug: Slug,
    record: Record,
}

impl AcceptedRun {
    /// What the ledger has of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// Why an attempt gave no run.
#[derive(Debug)]
enum NoRun {
    Refused(RunError),
    NotStarted(NotStarted),
}

impl<F: Into<NotStarted>> From<F> for NoRun {
    fn from(failure: F) -> Self {
        Self::NotStarted(failure.into())
    }
}

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Runs an ephemeral service now and waits for its end.
    ///
    /// A run that was begun gives a report, whatever it came to. Its container is removed after that: until it is gone, the
    /// service is not free, and a further run waits.
    ///
    /// # Errors
    ///
    /// When no run was begun: another one goes on, the project has no such service, the daemon is about to end.
    pub async fn run(&self, request: RunRequest) -> Result<RunReport, RunError> {
        let slug = self.slug(&request.service)?;
        let turn_by = Instant::now() + request.wait_for_turn;
        let claim = self.claim(&request.service, &slug.run_id(), turn_by).await?;
        let record = self.begin(&request, &slug);
        self.carry_out(AcceptedRun { request, slug, record }, claim, turn_by).await
    }

    /// Decides on a run and enters it into the ledger, for [`Runner::run_accepted`].
    ///
    /// # Errors
    ///
    /// The project has no such service.
    pub fn accept(&self, request: RunRequest) -> Result<AcceptedRun, RunError> {
        let slug = self.slug(&request.service)?;
        let record = self.begin(&request, &slug);
        Ok(AcceptedRun { request, slug, record })
    }

    /// As [`Runner::run`], for a run that is in the ledger already.
    ///
    /// # Errors
    ///
    /// As [`Runner::run`]; the ledger has that as well.
    pub async fn run_accepted(&self, accepted: AcceptedRun) -> Result<RunReport, RunError> {
        let turn_by = Instant::now() + accepted.request.wait_for_turn;
        match self.claim(&accepted.request.service, &accepted.slug.run_id(), turn_by).await {
            Ok(claim) => self.carry_out(accepted, claim, turn_by).await,
            Err(why) => {
                self.give_up(accepted, &why);
                Err(why)
            }
        }
    }

    /// Enters that a run which was accepted is not begun.
    pub fn give_up(&self, accepted: AcceptedRun, why: &RunError) {
        self.inner.history.give_up(accepted.record, why);
    }

    fn slug(&self, service: &ServiceName) -> Result<Slug, RunError> {
        if !self.knows(service) {
            return Err(RunError::UnknownService(service.clone()));
        }
        Ok(Slug::new(random(), &self.inner.projects.name(), service))
    }

    fn begin(&self, request: &RunRequest, slug: &Slug) -> Record {
        let run_id = slug.run_id();
        let container = one_off_name(&self.inner.projects.name(), &request.service, &run_id);
        self.inner.history.begin(request, run_id, container)
    }

    /// Runs a service that is claimed for it; the run has its turn at `turn_by` at the latest.
    async fn carry_out(&self, accepted: AcceptedRun, claim: RunClaim, turn_by: Instant) -> Result<RunReport, RunError> {
        let AcceptedRun { request, slug, record: _ } = &accepted;
        let (service, run_id, trigger) = (request.service.clone(), slug.run_id(), request.trigger);
        self.inner.history.events.emit(&Event::RunBegins { service, run_id, trigger });
        let all = self.options();
        let options = all.service(&request.service);
        let (run, mut report) = match self.attempts(request, slug, options, &claim, turn_by).await {
            Ok(ended) => ended,
            Err(why) => {
                self.give_up(accepted, &why);
                return Err(why);
            }
        };
        // A run with variables of its own does something else than the source's work, such as a scan.
        if request.environment.is_empty() {
            self.check_source(options, report.started_at, &mut report).await;
        }
        self.conclude(run, &mut report, accepted.record, Some(claim)).await;
        Ok(report)
    }

    /// Tries to run a service until no run that somebody else made is in the way: nobody tells us of its end.
    async fn attempts(
        &self,
        request: &RunRequest,
        slug: &Slug,
        options: &ServiceOptions,
        claim: &RunClaim,
        turn_by: Instant,
    ) -> Result<(Option<K::Run>, RunReport), RunError> {
        loop {
            if self.inner.stages.intake.is_cancelled() {
                return Err(RunError::ShuttingDown);
            }
            let begun = Begun::now(request.service.clone(), slug.run_id(), request.trigger);
            let mut bounds = self.bounds(options.limit, claim);
            match self.attempt(request, slug, options, &mut bounds).await {
                Err(NoRun::Refused(RunError::Busy { .. })) if Instant::now() < turn_by => {
                    sleep_until(turn_by.min(Instant::now() + TURN_LOOK)).await;
                }
                Err(NoRun::Refused(error)) => return Err(error),
                Err(NoRun::NotStarted(why)) => return Ok((None, begun.not_started(why, &bounds))),
                Ok((run, finished)) => return Ok((Some(run), begun.finished(&finished, &bounds))),
            }
        }
    }

    /// What holds for a run that begins now.
    pub(super) fn bounds(&self, limit: Duration, claim: &RunClaim) -> Bounds {
        let abort = self.inner.stages.abort.clone();
        let deadline = Instant::now() + limit;
        Bounds { deadline, due: Due::at(deadline), limit, abort, cancel: claim.cancel() }
    }

    /// Tells and records a verdict, then removes what the run left, which is the task that it returns; only then is the
    /// service free.
    pub(super) async fn conclude(
        &self,
        run: Option<K::Run>,
        report: &mut RunReport,
        record: Record,
        claim: Option<RunClaim>,
    ) -> Option<JoinHandle<()>> {
        let inner = &self.inner;
        if let Some(run) = &run
            && (self.options().tail_of_success || !report.outcome.is_success())
            && report.container_started_at.is_some()
        {
            report.tail = inner.backend.tail(run, self.options().tail).await;
        }
        report.error = report.error.take().map(|error| inner.projects.redact(&error));
        if let Some(claim) = &claim {
            claim.ended();
        }
        self.close(report, record).await;
        let (run, backend) = (run?, Arc::clone(&inner.backend));
        let (followers, run_id) = (Arc::clone(&inner.followers), report.run_id.clone());
        Some(inner.stages.work.spawn(async move {
            followers.have_read(&run_id).await;
            backend.remove(run).await;
            drop(claim);
        }))
    }

    /// Claims the service's one run; waits for the run that is in the way until a moment.
    async fn claim(&self, service: &ServiceName, run_id: &RunId, turn_by: Instant) -> Result<RunClaim, RunError> {
        let inner = &self.inner;
        match inner.claims.run(service, run_id) {
            Ok(claim) => return Ok(claim),
            Err(InTheWay::Running(other)) if Instant::now() < turn_by => {
                inner.history.events.emit(&Event::RunWaits { service: service.clone(), other });
            }
            Err(InTheWay::Running(_) | InTheWay::Removing) => {}
        }
        let removed_by = Instant::now() + self.options().service(service).limit;
        tokio::select! {
            biased;
            () = inner.stages.intake.cancelled() => Err(RunError::ShuttingDown),
            claim = inner.claims.run_by(service, run_id, (turn_by, removed_by)) => claim.map_err(|in_the_way| {
                let InTheWay::Running(run_id) = in_the_way else { return RunError::Removing(service.clone()) };
                let container = run_id.as_ref().map_or_else(|| "another run".to_owned(), |other| format!("run {other}"));
                RunError::Busy { service: service.clone(), container, run_id }
            }),
        }
    }

    /// Says what a run came to, and returns once that will survive a crash.
    async fn close(&self, report: &RunReport, record: Record) {
        let history = &self.inner.history;
        history.record(history::verdict(record, report));
        history.events.emit(&Event::RunEnded { report: report.clone() });
        history.events.settled().await;
    }

    async fn attempt(
        &self,
        request: &RunRequest,
        slug: &Slug,
        options: &ServiceOptions,
        bounds: &mut Bounds,
    ) -> Result<(K::Run, Finished), NoRun> {
        let inner = &self.inner;
        let service = &request.service;
        let _watched = self.watch(service, &slug.run_id(), bounds);
        tokio::select! {
            biased;
            clear = self.clear_the_way(service, bounds) => clear?,
            () = bounds.cancelled() => return Err(NotStarted::Cancelled.into()),
            () = sleep_until(bounds.deadline) => return Err(Failure::TooLate(bounds.limit).into()),
        }
        inner.bus.delete(&request.results).await.map_err(Failure::Results)?;
        let project = &inner.projects.select(service, options.profile.as_deref()).map_err(Failure::Project)?;
        let over = options.environment.iter().chain(&request.environment);
        let environment = &over.map(|(key, value)| (key.clone(), value.clone())).collect();
        let spec = RunSpec { project, service, slug, environment };
        // What comes after this leaves a container behind where the daemon is killed: the ledger has its name.
        inner.history.events.settled().await;
        let mut run = inner.backend.begin(spec, bounds).await?;
        let (of, run_id) = (service.clone(), slug.run_id());
        inner.history.events.emit(&Event::RunStarted { service: of, run_id });
        let finished = inner.backend.finish(&mut run, bounds).await;
        Ok((run, finished))
    }

    /// Makes sure that no run of the service is there, as the Engine sees it; tells of one that an earlier life of the
    /// daemon left, and removes it.
    async fn clear_the_way(&self, service: &ServiceName, bounds: &Bounds) -> Result<(), NoRun> {
        let backend = self.inner.backend.as_ref();
        let asked = Instant::now();
        for found in backend.runs(&self.inner.projects.name(), Some(service)).await? {
            let FoundRun { container, own, naming, state, .. } = found;
            let own = match own {
                Some((run_id, _)) if naming != Naming::AsOurs && !self.has_begun(service, &run_id, asked).await => None,
                own => own,
            };
            match (state, own) {
                // Its labels could be anyone's: with them alone, anyone could keep a service from running.
                (RunState::Alive, None) if naming == Naming::Otherwise => {}
                (RunState::Alive, own) => {
                    let (service, run_id) = (service.clone(), own.map(|(run_id, _)| run_id));
                    return Err(NoRun::Refused(RunError::Busy { service, run_id, container }));
                }
                (RunState::Created | RunState::Ended, Some((run_id, mut run))) => {
                    let Some(_leftover) = self.inner.claims.leftover(&run_id) else {
                        // It is gone once whoever is at it is done.
                        while self.inner.claims.leftover(&run_id).is_none() {
                            sleep(TURN_LOOK).await;
                        }
                        continue;
                    };
                    let found_container = container.clone();
                    let leftover = Leftover::Earlier { container: Some(container) };
                    let (name, id) = (service.clone(), run_id.clone());
                    self.inner.history.events.emit(&Event::LeftoverRemoved { service: name, run_id: id, leftover });
                    if !self.has_verdict(&run_id).await {
                        let record = self.inner.history.earlier(service, &run_id, &found_container).record;
                        let mut report = self.see_to_its_end(service, run_id, &mut run, state, bounds).await;
                        self.conclude(None, &mut report, record, None).await;
                    }
                    backend.remove(run).await;
                }
                // Somebody else's, who may want to look at it.
                (RunState::Created | RunState::Ended, None) => {}
            }
        }
        Ok(())
    }
}

/// Bytes for a slug: from the kernel, or in its absence from what differs between two runs.
pub(crate) fn random() -> [u8; 24] {
    crate::random::bytes().unwrap_or_else(|_| {
        let stamp = Timestamp::now().0.to_bits().to_le_bytes();
        let mut stamp = stamp.iter().cycle();
        std::array::from_fn(|_| stamp.next().copied().unwrap_or_default())
    })
}
