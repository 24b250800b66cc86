//! One run of an ephemeral service, from the decision to its container's removal.

use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use futures::FutureExt;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::one_off::{self, Bounds, End, Remains};
use super::{Failure, RunError, RunRequest, Runner, ServiceOptions};
use crate::bus::{self, Bus};
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::message;
use crate::names::{RunId, ServiceName};
use crate::plan::{self, Convergence, startup_order};
use crate::report::{Chain, Outcome, RunReport, Trigger};
use crate::spec::{OneOff, Slug, labels, own_name};

/// Run records that Redis keeps of a service.
const RECORDS_KEPT: u16 = 50;

/// Bytes of a failed run's output in its record.
const RECORDED_TAIL: usize = 2 << 10;

/// Why there is nothing to bury.
#[derive(Debug)]
pub(super) enum Unborn {
    Refused(RunError),
    Failed(Failure),
    TimedOut(Failure),
    Cancelled,
}

impl From<Failure> for Unborn {
    fn from(failure: Failure) -> Self {
        if matches!(failure, Failure::TooLate(_) | Failure::NotReady { .. }) {
            Self::TimedOut(failure)
        } else {
            Self::Failed(failure)
        }
    }
}

/// The time that a run has to come to its start.
#[derive(Debug)]
struct Time<'a> {
    deadline: Instant,
    limit: Duration,
    abort: &'a CancellationToken,
}

impl Time<'_> {
    /// Gives work up at the deadline or at the shutdown. For work that may be left half-way: looks, and waits.
    async fn bound<T, F: Into<Unborn>>(&self, work: impl Future<Output = Result<T, F>>) -> Result<T, Unborn> {
        tokio::select! {
            biased;
            done = work => done.map_err(Into::into),
            () = self.abort.cancelled() => Err(Unborn::Cancelled),
            () = sleep_until(self.deadline) => Err(Unborn::TimedOut(Failure::TooLate(self.limit))),
        }
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

impl<E: Engine, B: Bus> Runner<E, B> {
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
        let mut claim = inner.claims.run(service, &run_id).map_err(|other| RunError::Busy {
            service: service.clone(),
            container: format!("run {other}"),
            run_id: Some(other),
        })?;
        claim.turn().await;
        if inner.stages.intake.is_cancelled() {
            return Err(RunError::ShuttingDown);
        }
        let begun = Begun { instant: Instant::now(), at: Timestamp::now() };
        let options = inner.options.service(service);
        // A run with variables of its own does something else than the source's work, such as a scan.
        let proof = options.proof.as_ref().filter(|_| request.environment.is_empty());
        debug!(%service, %run_id, trigger = request.trigger.as_str(), "run begins");
        let ended = self.attempt(&request, slug, options).await;
        let identity = Identity { service: request.service, run_id, trigger: request.trigger };
        let mut report = match ended {
            Err(Unborn::Refused(error)) => return Err(error),
            Err(Unborn::Failed(failure)) => identity.unborn(begun, Outcome::Failed, Some(&failure)),
            Err(Unborn::TimedOut(failure)) => identity.unborn(begun, Outcome::TimedOut, Some(&failure)),
            Err(Unborn::Cancelled) => identity.unborn(begun, Outcome::Cancelled, None),
            Ok(remains) => identity.report(begun, remains, options.limit),
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

    /// Enters a run that ended into the records and tells of it.
    pub(super) async fn close(&self, report: &RunReport) {
        self.inner.ledger.enter(report);
        tell(report);
        let record = RunReport { tail: last_bytes(&report.tail, RECORDED_TAIL), ..report.clone() };
        let json = serde_json::to_string(&record).unwrap_or_default();
        let key = message::runs_key(&report.service);
        if let Err(error) = self.inner.bus.push(&key, &json, RECORDS_KEPT).await {
            debug!(error = %Chain(&error), "run not recorded");
        }
    }

    async fn attempt(&self, request: &RunRequest, slug: Slug, options: &ServiceOptions) -> Result<Remains, Unborn> {
        let inner = &self.inner;
        let abort = &inner.stages.abort;
        let service = &request.service;
        let limit = options.limit;
        let mut time = Time { deadline: Instant::now() + limit, limit, abort };
        time.bound(self.clear_the_way(service)).await?;
        inner.bus.delete(&request.results).await.map_err(Failure::Results)?;
        let project = inner.projects.select(service, options.profile.as_deref()).map_err(Failure::Project)?;
        let images = time.bound(self.look_at_images(&project)).await?;
        // A pull takes what the line gives. Cut off at the limit it would begin anew each time, and never end.
        let pulling = Instant::now();
        let images = tokio::select! {
            () = abort.cancelled() => return Err(Unborn::Cancelled),
            images = self.pull_images(&project, images) => images?,
        };
        time.deadline += pulling.elapsed();
        let how = Convergence::default();
        let turn = time.bound(self.preparation().map(Ok::<_, Failure>)).await?;
        // The service's own containers are none of a run's business, neither stopped nor recreated.
        self.ensure_surroundings(&project.without(service), &images, &how, turn).await?;
        for name in startup_order(&project).iter().flatten() {
            time.bound(self.await_dependencies(&project, name, (time.deadline, limit))).await?;
            if name != service {
                let turn = time.bound(self.preparation().map(Ok::<_, Failure>)).await?;
                self.start_containers(&project, name, &images, turn).await?;
            }
        }
        let spec_options = time.bound(self.service_options(&project, service, &images)).await?;
        let over = options.environment.iter().chain(&request.environment);
        let one_off =
            OneOff { slug, environment: over.map(|(key, value)| (key.clone(), Some(value.clone()))).collect() };
        let plan = plan::run_one_off(&project, service, &one_off, &spec_options).map_err(Failure::Plan)?;
        let grace = plan::grace(project.services.get(service));
        let bounds = Bounds { deadline: time.deadline, grace, tail: inner.options.tail, abort: abort.clone() };
        Ok(one_off::live(inner.engine.as_ref(), &plan, &bounds).await)
    }

    /// Makes sure that no run of the service is there, as the Engine sees it; removes what an earlier one left.
    async fn clear_the_way(&self, service: &ServiceName) -> Result<(), Unborn> {
        let found = self.one_offs(Some(service)).await?;
        for container in found {
            if container.lives {
                return Err(Unborn::Refused(RunError::Busy {
                    service: service.clone(),
                    run_id: container.run_id,
                    container: container.name,
                }));
            }
            if container.run_id.is_some() {
                warn!(%service, container = container.name, "removing the container of an earlier run");
                one_off::remove(self.inner.engine.as_ref(), &container.name).await;
            }
        }
        Ok(())
    }

    /// The project's one-off containers, of one service or of all.
    pub(super) async fn one_offs(&self, service: Option<&ServiceName>) -> Result<Vec<FoundOneOff>, Failure> {
        let project = self.inner.projects.name();
        let mut wanted = vec![format!("{}={project}", labels::PROJECT), format!("{}=True", labels::ONE_OFF)];
        wanted.extend(service.map(|service| format!("{}={service}", labels::SERVICE)));
        let listed = self
            .inner
            .engine
            .containers(&wanted)
            .await
            .map_err(|source| Failure::Engine { step: "look for earlier runs".into(), source })?;
        Ok(listed.into_iter().filter_map(|container| FoundOneOff::of(container, &project)).collect())
    }
}

/// A one-off container that the Engine has.
#[derive(Debug)]
pub(super) struct FoundOneOff {
    pub(super) name: String,
    pub(super) service: ServiceName,
    /// The run, where the container's slug is one of ours.
    pub(super) run_id: Option<RunId>,
    /// Running, paused or restarting.
    pub(super) lives: bool,
}

impl FoundOneOff {
    fn of(container: ContainerSummary, project: &crate::names::ProjectName) -> Option<Self> {
        let name = own_name(&container).map(str::to_owned);
        let labels = container.labels.unwrap_or_default();
        let service: ServiceName = labels.get(labels::SERVICE)?.parse().ok()?;
        let slug = labels.get(labels::SLUG).filter(|slug| Slug::is_ours(slug, project, &service));
        Some(Self {
            name: name.or(container.id)?,
            run_id: slug.and_then(|slug| slug.get(..12)?.parse().ok()),
            service,
            lives: matches!(
                container.state,
                Some(
                    ContainerSummaryStateEnum::RUNNING
                        | ContainerSummaryStateEnum::PAUSED
                        | ContainerSummaryStateEnum::RESTARTING
                )
            ),
        })
    }
}

impl Identity {
    /// The report of a run that had no container.
    fn unborn(self, begun: Begun, outcome: Outcome, failure: Option<&Failure>) -> RunReport {
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
    pub(super) fn report(self, begun: Begun, remains: Remains, limit: Duration) -> RunReport {
        let (outcome, exit_code, error) = match remains.end {
            End::Exited(0) => (Outcome::Succeeded, Some(0), None),
            End::Exited(code) if remains.out_of_memory => {
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
            tail: remains.tail,
        }
    }
}

/// One log line for a run that ended.
fn tell(report: &RunReport) {
    let RunReport { service, run_id, exit_code, error, .. } = report;
    let trigger = report.trigger.as_str();
    let duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
    let tail = (!report.tail.is_empty()).then_some(report.tail.as_str());
    match report.outcome {
        Outcome::Succeeded => info!(%service, %run_id, trigger, exit_code, duration_ms, "run succeeded"),
        Outcome::Failed => warn!(%service, %run_id, trigger, exit_code, duration_ms, error, tail, "run failed"),
        Outcome::TimedOut => warn!(%service, %run_id, trigger, duration_ms, error, tail, "run timed out"),
        Outcome::NoOutput => warn!(%service, %run_id, trigger, exit_code, duration_ms, error, "run left no output"),
        Outcome::Cancelled => warn!(%service, %run_id, trigger, duration_ms, error, tail, "run cancelled"),
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
