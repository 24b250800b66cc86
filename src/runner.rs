//! Does the work: runs, starts, stops and restarts services. Of each service there is one run at a time and, independent of
//! it, one operation.
//!
//! A run is carried out by the [`Backend`], which never leaves its container behind: not after a failure at any step, not past its limit,
//! not when the Engine goes away. What a crash of the daemon leaves, [`Runner::recover`] finds at the next start by the
//! containers' labels alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, Bounds, Failure, RunSpec};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::ledger::Slots;
use crate::names::{RequestId, RunId, ServiceName, SourceId};
use crate::observer::Events;
use crate::observer::status::ServiceTally;
use crate::plan::{self, Graph};
use crate::projects::Projects;
use crate::report::Trigger;
use crate::spec::{Birth, Slug};

mod claims;
mod history;
mod overrun;
mod recover;
mod run;
mod services;
mod sightings;
mod source;
mod verdict;

pub use history::History;
pub use run::AcceptedRun;
pub(crate) use run::random;

use claims::{Claims, RunClaim};
use overrun::{Overruns, Watched};
use sightings::Sightings;

/// How one service is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Longest that a run may take, from its preparation to its exit; pulling its image does not count.
    pub limit: Duration,
    /// Whose status proves that a run did its work; none where exit code 0 is proof enough.
    pub proof: Option<SourceId>,
    /// Whose readings a run is expected to write; a run that writes none is warned of.
    pub expects_readings: Option<SourceId>,
    /// Variables that every run gets, over those of the Compose file.
    pub environment: BTreeMap<String, String>,
    /// A Compose profile that is active for it, besides its own.
    pub profile: Option<String>,
    /// Its dependencies, too, are recreated where they run and differ, when it is started.
    pub recreate_dependencies: bool,
}

/// How services are run.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// For services that `services` does not name.
    pub default: ServiceOptions,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceOptions>,
    /// Bytes of a run's output that are kept.
    pub tail: usize,
    /// Whether the output of runs that succeed is kept too.
    pub tail_of_success: bool,
}

impl RunnerOptions {
    fn service(&self, service: &ServiceName) -> &ServiceOptions {
        self.services.get(service).unwrap_or(&self.default)
    }
}

/// A wish to run an ephemeral service now.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// Which service.
    pub service: ServiceName,
    /// Why.
    pub trigger: Trigger,
    /// When the slot fell due that it is for.
    pub slot: Option<Timestamp>,
    /// The command that asks for it.
    pub request_id: Option<RequestId>,
    /// Variables over those of the Compose file, as `-e` gives them.
    pub environment: BTreeMap<String, String>,
    /// Keys in Redis that the run is to write. They are deleted once no other run is in its way, and before it starts: what
    /// is there afterwards is its own.
    pub results: Vec<String>,
    /// Longest wait for a run of the service that goes on. It does not count against this run's limit.
    pub wait_for_turn: Duration,
}

impl RunRequest {
    /// A wish without variables, results, or patience.
    #[must_use]
    pub fn new(service: ServiceName, trigger: Trigger) -> Self {
        Self {
            service,
            trigger,
            slot: None,
            request_id: None,
            environment: BTreeMap::new(),
            results: Vec::new(),
            wait_for_turn: Duration::ZERO,
        }
    }
}

/// Why no run was started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A run of the service goes on.
    #[error("service {service} is already running ({container})")]
    Busy {
        /// The service.
        service: ServiceName,
        /// The run that is in the way; none when it is not one of ours.
        run_id: Option<RunId>,
        /// Its container, or the run while it has none.
        container: String,
    },
    /// The last run has ended, and its container does not go away.
    #[error("service {0} is not free: the container of its last run is still being removed")]
    Removing(ServiceName),
    /// The project has no such service.
    #[error("no such service: {0}")]
    UnknownService(ServiceName),
    /// The daemon is about to end.
    #[error("shutting down")]
    ShuttingDown,
}

/// Why a service was not started, stopped or restarted.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The project has no such service.
    #[error("no such service: {0}")]
    UnknownService(ServiceName),
    /// The daemon is about to end.
    #[error("shutting down")]
    ShuttingDown,
    /// A later command cancelled the start before the service's container was started.
    #[error("start of service {0} was cancelled by a later stop")]
    StartCancelled(ServiceName),
    /// There is no container of the service that could be restarted.
    #[error("service {0} has no container")]
    NoContainer(ServiceName),
    /// The preparation or the operation failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Tells the runner of the daemon's end.
#[derive(Debug, Clone)]
pub struct RunnerStages {
    /// Closed when nothing new may start.
    pub intake: CancellationToken,
    /// Closed when what runs has to be stopped and removed.
    pub abort: CancellationToken,
    /// Where what outlives its asker goes on, such as removals.
    pub work: TaskTracker,
}

struct Inner<K, B> {
    backend: Arc<K>,
    bus: Arc<B>,
    projects: Arc<Projects>,
    options: RunnerOptions,
    stages: RunnerStages,
    claims: Claims,
    history: History,
    overruns: Overruns,
    sightings: Sightings,
    /// Told to other daemons by the slug of each run.
    birth: Birth,
    /// Cancelled when another daemon has the project: runs that this one did not begin are left to it.
    yields: CancellationToken,
    /// Claims of the runs that were left so. They are no one else's in this process.
    left: Mutex<Vec<RunClaim>>,
}

/// Runs, starts, stops and restarts the project's services. Cheap to clone.
pub struct Runner<K, B> {
    inner: Arc<Inner<K, B>>,
}

impl<K, B> Clone for Runner<K, B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Backend, B: Bus> Runner<K, B> {
    /// A runner for the services of `projects`, with the daemon's `history`, which it adds to.
    pub fn new(
        backend: Arc<K>,
        bus: Arc<B>,
        projects: Arc<Projects>,
        options: RunnerOptions,
        stages: RunnerStages,
        history: History,
    ) -> Self {
        projects.observed_by(history.events.clone());
        let claims = Claims::new(stages.abort.clone());
        let overruns = Overruns::default();
        let birth = Birth::new(Timestamp::now(), crate::random::bytes().unwrap_or_default());
        let (sightings, yields, left) = (Sightings::default(), CancellationToken::new(), Mutex::default());
        Self {
            inner: Arc::new(Inner {
                backend,
                bus,
                projects,
                options,
                stages,
                claims,
                history,
                overruns,
                sightings,
                birth,
                yields,
                left,
            }),
        }
    }

    /// Where the core says what happens.
    pub fn events(&self) -> &Events {
        &self.inner.history.events
    }

    /// The run of a service that goes on.
    pub fn running(&self, service: &ServiceName) -> Option<RunId> {
        self.inner.claims.running(service)
    }

    /// Leaves the runs that this daemon adopted to another one, which has the project. They are not stopped when this one
    /// ends.
    pub fn yield_adopted(&self) {
        self.inner.yields.cancel();
    }

    /// The services that a run or an operation goes on for.
    pub fn occupied(&self) -> Vec<ServiceName> {
        self.inner.claims.occupied()
    }

    /// Runs that go on past their limit, their stop grace period and some slack.
    pub fn overrun(&self) -> Vec<(ServiceName, RunId)> {
        self.inner.overruns.list()
    }

    /// Ends a service's run before its time, with its stop grace period; names it.
    pub fn cancel(&self, service: &ServiceName) -> Option<RunId> {
        self.inner.claims.cancel(service)
    }

    /// What each service's runs came to since the daemon started.
    pub fn records(&self) -> BTreeMap<ServiceName, ServiceTally> {
        self.inner.history.tally.services()
    }

    /// What happened in this life of the daemon and in earlier ones.
    pub fn history(&self) -> &History {
        &self.inner.history
    }

    /// Slots that fell due and slots that have a record, read at one instant.
    pub fn slots(&self) -> Slots {
        self.inner.history.ledger.slots()
    }

    /// The project's files.
    pub fn projects(&self) -> &Projects {
        &self.inner.projects
    }

    /// All services of the project, enabled or not.
    pub fn services(&self) -> BTreeSet<ServiceName> {
        self.inner.projects.current().services().map(|(name, _)| name.clone()).collect()
    }

    /// The profiles of all services of the project.
    pub fn profiles(&self) -> BTreeMap<ServiceName, Vec<String>> {
        let project = self.inner.projects.current();
        project.services().map(|(name, service)| (name.clone(), service.profiles.clone())).collect()
    }

    /// What is wrong with the Compose files as they are now, while an earlier project is used.
    pub fn broken_project(&self) -> Option<String> {
        self.inner.projects.broken()
    }

    /// Asks the backend for the project's containers, to see whether it answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.inner.backend.ping(&self.inner.projects.name()).await
    }

    /// The calls that a run of the service would make now, up to the start of its container. Nothing is changed.
    ///
    /// # Errors
    ///
    /// What would fail the run before its container is there: the files, the Engine, or a plan that cannot be made.
    pub async fn dry_run(&self, service: &ServiceName) -> Result<Graph, Failure> {
        let inner = &self.inner;
        let own = inner.options.service(service);
        let project = &inner.projects.select(service, own.profile.as_deref()).map_err(Failure::Project)?;
        let slug = &Slug::new(random(), &project.name, service);
        inner.backend.dry_run(RunSpec { project, service, slug, environment: &own.environment }).await
    }

    /// Watches a run until the answer is dropped.
    fn watch(&self, service: &ServiceName, run_id: &RunId, bounds: &Bounds) -> Watched<'_> {
        let project = self.inner.projects.current();
        let grace = plan::grace(project.services().find(|(name, _)| *name == service).map(|(_, service)| service));
        self.inner.overruns.watch(service, run_id, grace, bounds.due.clone())
    }

    fn knows(&self, service: &ServiceName) -> bool {
        self.inner.projects.current().services().any(|(name, _)| name == service)
    }
}
