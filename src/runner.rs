//! Does the work: runs, starts, stops and restarts services, one operation a service at a time.
//!
//! A run is a one-off container that `one_off` never leaves behind: not after a failure at any step, not past its limit,
//! not when the Engine goes away. What a crash of the daemon leaves, [`Runner::recover`] finds at the next start by the
//! containers' labels alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError};
use crate::compose::LoadErrors;
use crate::engine::{Engine, EngineError};
use crate::names::{RunId, ServiceName, SourceId};
use crate::report::Trigger;
use crate::spec::Dialect;

mod claims;
mod execute;
mod foresee;
mod ledger;
mod one_off;
mod prepare;
mod projects;
mod recover;
mod run;
mod services;

pub use ledger::Record;
pub use projects::Projects;
pub(crate) use run::random;

use claims::Claims;
use ledger::Ledger;

/// How one service is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Longest that a run may take, from its preparation to its exit; pulling its image does not count.
    pub limit: Duration,
    /// Whose status proves that a run did its work; none where exit code 0 is proof enough.
    pub proof: Option<SourceId>,
    /// Variables that every run gets, over those of the Compose file.
    pub environment: BTreeMap<String, String>,
    /// A Compose profile that is active for it, besides its own.
    pub profile: Option<String>,
}

/// How services are run.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// For services that `services` does not name.
    pub default: ServiceOptions,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceOptions>,
    /// Bytes of a failed run's output that are kept.
    pub tail: usize,
    /// The Compose version that containers are written as.
    pub dialect: Dialect,
    /// Variables that the client's `config.json` gives every container.
    pub proxies: BTreeMap<String, String>,
    /// The client's registry credentials as a `config.json`, for services with `use_api_socket`.
    pub registry_config: Option<String>,
}

impl RunnerOptions {
    fn service(&self, service: &ServiceName) -> &ServiceOptions {
        self.services.get(service).unwrap_or(&self.default)
    }
}

/// A wish to run an ephemeral service now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// Which service.
    pub service: ServiceName,
    /// Why.
    pub trigger: Trigger,
    /// Variables over those of the Compose file, as `-e` gives them.
    pub environment: BTreeMap<String, String>,
    /// Keys in Redis that the run is to write. They are deleted once no other run is in its way, and before it starts: what
    /// is there afterwards is its own.
    pub results: Vec<String>,
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
    /// The preparation or the operation failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What went wrong while a service was prepared, run, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The Compose files do not give this service.
    #[error("project not usable")]
    Project(#[source] LoadErrors),
    /// What is there and what is wanted do not go together.
    #[error(transparent)]
    Plan(crate::plan::PlanError),
    /// An Engine call failed.
    #[error("{step}")]
    Engine {
        /// What was being done.
        step: String,
        /// Why it failed.
        #[source]
        source: EngineError,
    },
    /// An image that a build makes is missing, and no registry has it.
    #[error("image of service {service} is missing: run `docker compose build {service}`")]
    NotBuilt {
        /// The service.
        service: ServiceName,
        /// Why it was not pulled.
        #[source]
        source: EngineError,
    },
    /// A file that a service refers to cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What an earlier run left in Redis cannot be told from this one's.
    #[error("earlier result not deleted")]
    Results(#[source] BusError),
    /// A hook ended with another code than 0.
    #[error("hook {command:?} of {container} exited {code}")]
    Hook {
        /// Where it ran.
        container: String,
        /// Its words.
        command: String,
        /// Its exit code.
        code: i64,
    },
    /// A hook went on for too long.
    #[error("hook {command:?} of {container} did not end within {}", humantime::format_duration(*.limit))]
    HookTooLong {
        /// Where it ran.
        container: String,
        /// Its words.
        command: String,
        /// What it was given.
        limit: Duration,
    },
    /// The time limit was reached before the container was started.
    #[error("not started within {}", humantime::format_duration(*.0))]
    TooLate(Duration),
    /// A dependency was not ready when the time limit was reached.
    #[error("dependency {dependency} not ready within {}", humantime::format_duration(*.limit))]
    NotReady {
        /// Which.
        dependency: ServiceName,
        /// The time limit.
        limit: Duration,
    },
}

/// Tells the runner of the daemon's end.
#[derive(Debug, Clone)]
pub struct RunnerStages {
    /// Closed when nothing new may start.
    pub intake: CancellationToken,
    /// Closed when what runs has to be stopped and removed.
    pub abort: CancellationToken,
}

struct Inner<E, B> {
    engine: Arc<E>,
    bus: Arc<B>,
    projects: Projects,
    options: RunnerOptions,
    stages: RunnerStages,
    claims: Claims,
    ledger: Ledger,
    /// Held while networks, volumes and dependencies are made: two runs must not make the same ones.
    preparation: tokio::sync::Mutex<()>,
}

/// Runs, starts, stops and restarts the project's services. Cheap to clone.
pub struct Runner<E, B> {
    inner: Arc<Inner<E, B>>,
}

impl<E, B> Clone for Runner<E, B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E: Engine, B: Bus> Runner<E, B> {
    /// A runner for the services of `projects`.
    pub fn new(engine: Arc<E>, bus: Arc<B>, projects: Projects, options: RunnerOptions, stages: RunnerStages) -> Self {
        let inner = Inner {
            engine,
            bus,
            projects,
            options,
            stages,
            claims: Claims::default(),
            ledger: Ledger::default(),
            preparation: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The run of a service that goes on.
    pub fn running(&self, service: &ServiceName) -> Option<RunId> {
        self.inner.claims.running(service)
    }

    /// What each service's runs came to since the daemon started.
    pub fn records(&self) -> BTreeMap<ServiceName, Record> {
        self.inner.ledger.records()
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

    /// Asks the Engine for the project's containers, to see whether it answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.observe(&self.inner.projects.name()).await.map(drop)
    }

    fn knows(&self, service: &ServiceName) -> bool {
        self.inner.projects.current().services().any(|(name, _)| name == service)
    }
}
