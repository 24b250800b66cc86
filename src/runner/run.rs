//! One run of an ephemeral service, from the decision to its container's removal.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::claims::RunClaim;
use super::{RunError, RunRequest, Runner, ServiceOptions};
use crate::backend::{Backend, Bounds, Due, End, Failure, Finished, NotStarted, RunSpec};
use crate::bus::{self, Bus};
use crate::clock::Timestamp;
use crate::event::{Event, Leftover};
use crate::names::{RunId, ServiceName};
use crate::report::{Chain, Outcome, RunReport, Trigger};
use crate::spec::Slug;

/// Run records that Redis keeps of a service.
const RECORDS_KEPT: u16 = 50;

/// Bytes of a failed run's output in its record.
const RECORDED_TAIL: usize = 2 << 10;

/// Time between two looks at a run that somebody else made and that is in the way.
const TURN_LOOK: Duration = Duration::from_secs(1);

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

/// When a run began, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) instant: Instant,
    pub(super) at: Timestamp,
}

/// Which run it is that ended.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) service: ServiceName,
    pub(super) run_id: RunId,
    pub(super) trigger: Trigger,
}

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Runs an ephemeral service now and waits for its end.
    ///
    /// A run that was begun gives a report, whatever it came to. Returns only once the run's container is gone.
    ///
    /// # Errors
    ///
    /// When no run was begun: another one goes on, the project has no such service, the daemon is about to end.
    pub async fn run(&self, request: RunRequest) -> Result<RunReport, RunError> {
        let inner = &self.inner;
        let service = &request.service;
        if !self.knows(service) {
            return Err(RunError::UnknownService(service.clone()));
        }
        let slug = Slug::new(random(), &inner.projects.name(), service);
        let run_id = slug.run_id();
        let turn_by = Instant::now() + request.wait_for_turn;
        let claim = self.claim(service, &run_id, turn_by).await?;
        let options = inner.options.service(service);
        // A run with variables of its own does something else than the source's work, such as a scan.
        let proof = options.proof.as_ref().filter(|_| request.environment.is_empty());
        let trigger = request.trigger;
        inner.events.emit(&Event::RunBegins { service: service.clone(), run_id: run_id.clone(), trigger });
        let (begun, ended) = loop {
            if inner.stages.intake.is_cancelled() {
                return Err(RunError::ShuttingDown);
            }
            let begun = Begun { instant: Instant::now(), at: Timestamp::now() };
            match self.attempt(&request, &slug, options).await {
                // A run that somebody else made is in the way: nobody tells us of its end.
                Err(NoRun::Refused(RunError::Busy { .. })) if Instant::now() < turn_by => {
                    sleep_until(turn_by.min(Instant::now() + TURN_LOOK)).await;
                }
                ended => break (begun, ended),
            }
        };
        let identity = Identity { service: request.service, run_id, trigger: request.trigger };
        let mut report = match ended {
            Err(NoRun::Refused(error)) => return Err(error),
            Err(NoRun::NotStarted(why)) => identity.not_started(begun, &why),
            Ok(finished) => identity.report(begun, finished, options.limit),
        };
        if let Some(source) = proof
            && report.outcome.is_success()
        {
            // A source may write its time in whole seconds.
            let since = Timestamp(begun.at.0.floor());
            match bus::reported_since(inner.bus.as_ref(), source, since).await {
                Ok(true) => {}
                Ok(false) => {
                    report.outcome = Outcome::NoOutput;
                    report.error = Some(format!("exited 0, but {source} reported no success during the run"));
                }
                Err(error) => debug!(error = %Chain(&error), "not known whether the run left output"),
            }
        }
        drop(claim);
        self.close(&report).await;
        Ok(report)
    }

    /// Claims the service's one run; waits for the run that is in the way until a moment.
    async fn claim(&self, service: &ServiceName, run_id: &RunId, turn_by: Instant) -> Result<RunClaim, RunError> {
        let inner = &self.inner;
        if let Ok(claim) = inner.claims.run(service, run_id) {
            return Ok(claim);
        }
        if Instant::now() < turn_by {
            let other = self.running(service);
            inner.events.emit(&Event::RunWaits { service: service.clone(), other });
        }
        tokio::select! {
            biased;
            () = inner.stages.intake.cancelled() => Err(RunError::ShuttingDown),
            claim = inner.claims.run_by(service, run_id, turn_by) => claim.map_err(|other| RunError::Busy {
                service: service.clone(),
                container: other.as_ref().map_or_else(|| "another run".to_owned(), |other| format!("run {other}")),
                run_id: other,
            }),
        }
    }

    /// Enters a run that ended into the records and tells of it.
    pub(super) async fn close(&self, report: &RunReport) {
        self.inner.ledger.enter(report);
        self.inner.events.emit(&Event::RunEnded { report: report.clone() });
        let record = RunReport { tail: last_bytes(&report.tail, RECORDED_TAIL), ..report.clone() };
        let json = serde_json::to_string(&record).unwrap_or_default();
        let key = self.inner.bus.names().runs(&report.service);
        if let Err(error) = self.inner.bus.push(&key, &json, RECORDS_KEPT).await {
            debug!(error = %Chain(&error), "run not recorded");
        }
    }

    async fn attempt(&self, request: &RunRequest, slug: &Slug, options: &ServiceOptions) -> Result<Finished, NoRun> {
        let inner = &self.inner;
        let (service, limit) = (&request.service, options.limit);
        let abort = inner.stages.abort.clone();
        let deadline = Instant::now() + limit;
        let mut bounds = Bounds { deadline, due: Due::at(deadline), limit, tail: inner.options.tail, abort };
        let _watched = self.watch(service, &slug.run_id(), &bounds);
        tokio::select! {
            biased;
            clear = self.clear_the_way(service) => clear?,
            () = bounds.abort.cancelled() => return Err(NotStarted::Cancelled.into()),
            () = tokio::time::sleep_until(bounds.deadline) => return Err(Failure::TooLate(limit).into()),
        }
        inner.bus.delete(&request.results).await.map_err(Failure::Results)?;
        let project = &inner.projects.select(service, options.profile.as_deref()).map_err(Failure::Project)?;
        let over = options.environment.iter().chain(&request.environment);
        let environment = &over.map(|(key, value)| (key.clone(), value.clone())).collect();
        let spec = RunSpec { project, service, slug, environment };
        let mut run = inner.backend.begin(spec, &mut bounds).await?;
        let finished = inner.backend.finish(&mut run, &bounds).await;
        inner.backend.remove(run).await;
        Ok(finished)
    }

    /// Makes sure that no run of the service is there, as the Engine sees it; removes what an earlier one left.
    async fn clear_the_way(&self, service: &ServiceName) -> Result<(), NoRun> {
        let backend = self.inner.backend.as_ref();
        for found in backend.runs(&self.inner.projects.name(), Some(service)).await? {
            if found.alive {
                return Err(NoRun::Refused(RunError::Busy {
                    service: service.clone(),
                    run_id: found.own.map(|(run_id, _)| run_id),
                    container: found.container,
                }));
            }
            if let Some((run_id, run)) = found.own {
                let (service, leftover) = (service.clone(), Leftover::Earlier { container: Some(found.container) });
                self.inner.events.emit(&Event::LeftoverRemoved { service, run_id, leftover });
                backend.remove(run).await;
            }
        }
        Ok(())
    }
}

impl Identity {
    /// The report of a run that ended before its container existed.
    fn not_started(self, begun: Begun, why: &NotStarted) -> RunReport {
        let (outcome, failure) = match why {
            NotStarted::Failed(failure) => (Outcome::Failed, Some(failure)),
            NotStarted::TimedOut(failure) => (Outcome::TimedOut, Some(failure)),
            NotStarted::Cancelled => (Outcome::Cancelled, None),
        };
        RunReport {
            service: self.service,
            run_id: self.run_id,
            trigger: self.trigger,
            outcome,
            exit_code: None,
            started_at: begun.at,
            duration: begun.instant.elapsed(),
            error: failure.map(|failure| Chain(failure).to_string()),
            tail: String::new(),
        }
    }

    /// The report of a run whose container is gone.
    pub(super) fn report(self, begun: Begun, finished: Finished, limit: Duration) -> RunReport {
        let (outcome, exit_code, error) = match finished.end {
            End::Exited(0) => (Outcome::Succeeded, Some(0), None),
            End::Exited(code) if finished.out_of_memory => {
                (Outcome::Failed, Some(code), Some(format!("exited {code}, out of memory")))
            }
            End::Exited(code) => (Outcome::Failed, Some(code), Some(format!("exited {code}"))),
            End::TimedOut => {
                let limit = humantime::format_duration(limit);
                (Outcome::TimedOut, None, Some(format!("still running after {limit}, stopped and removed")))
            }
            End::TooLate => (Outcome::TimedOut, None, Some(Failure::TooLate(limit).to_string())),
            End::Cancelled => (Outcome::Cancelled, None, Some("stopped and removed at shutdown".into())),
            End::Failed(failure) => (Outcome::Failed, None, Some(Chain(&failure).to_string())),
        };
        RunReport {
            service: self.service,
            run_id: self.run_id,
            trigger: self.trigger,
            outcome,
            exit_code,
            started_at: begun.at,
            duration: begun.instant.elapsed(),
            error,
            tail: finished.tail,
        }
    }
}

/// The end of a text, cut where a character begins.
fn last_bytes(text: &str, limit: usize) -> String {
    let from = text.len().saturating_sub(limit);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(from..).unwrap_or_default().to_owned()
}

/// Bytes for a slug: from the kernel, or in its absence from what differs between two runs.
pub(crate) fn random() -> [u8; 24] {
    let mut bytes = [0; 24];
    if getrandom::getrandom(&mut bytes).is_err() {
        let stamp = Timestamp::now().0.to_bits().to_le_bytes();
        bytes.iter_mut().zip(stamp.iter().cycle()).for_each(|(byte, stamp)| *byte = *stamp);
    }
    bytes
}
