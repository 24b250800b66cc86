//! The port to what carries services out: containers of one Engine today.
//!
//! It is cut by intent. A backend brings up what a run needs, begins the run, sees it to its end and removes it; it brings
//! services up and down. When, how often and how long is decided above it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::BusError;
use crate::clock::Timestamp;
use crate::compose::LoadErrors;
use crate::compose::project::Project;
use crate::engine::EngineError;
use crate::names::{ProjectName, RunId, ServiceName};
use crate::plan::{Graph, PlanError};
use crate::projects::FileError;
use crate::spec::{Birth, Slug};

pub mod compose;

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct RunSpec<'a> {
    /// The service and what it depends on.
    pub project: &'a Project,
    /// Which of its services.
    pub service: &'a ServiceName,
    /// Who the run is.
    pub slug: &'a Slug,
    /// Variables over those of the Compose file.
    pub environment: &'a BTreeMap<String, String>,
}

/// When a run is due to end, for those who look on while it goes on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Due(Arc<Mutex<Option<Instant>>>);

impl Due {
    /// Due at a moment.
    pub fn at(moment: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some(moment))))
    }

    /// Due at another moment from now on.
    pub fn move_to(&self, moment: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(moment);
    }

    /// Not due while what goes on does not count, such as the pull of an image.
    pub fn suspend(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// True once more than `by` has gone by since the moment.
    pub fn passed_by(&self, by: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|moment| moment.elapsed() > by)
    }
}

/// What is to be brought up.
#[derive(Debug, Clone, Copy)]
pub struct UpSpec<'a> {
    /// The service and what it depends on.
    pub project: &'a Project,
    /// Which of its services.
    pub service: &'a ServiceName,
    /// Whether its dependencies, too, are recreated where they run and differ from their files.
    pub recreate_dependencies: bool,
}

/// When a run has to end.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The moment at which the time limit is over.
    pub deadline: Instant,
    /// The same, for those who look on.
    pub due: Due,
    /// The time limit, for what is said of it.
    pub limit: Duration,
    /// The daemon's second stage of shutdown.
    pub abort: CancellationToken,
    /// Somebody asked for the run's end.
    pub cancel: CancellationToken,
}

impl Bounds {
    /// Waits until the run has to end before its time.
    pub async fn cancelled(&self) {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => {}
            () = self.cancel.cancelled() => {}
        }
    }

    /// Whether the run has to end before its time.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.abort.is_cancelled() || self.cancel.is_cancelled()
    }
}

/// Why a run ended before its container existed.
#[derive(Debug)]
pub enum NotStarted {
    /// Something on the way failed.
    Failed(Failure),
    /// The time limit was over.
    TimedOut(Failure),
    /// The daemon ends.
    Cancelled,
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        if matches!(failure, Failure::TooLate(_) | Failure::NotReady { .. } | Failure::Waiting { .. }) {
            Self::TimedOut(failure)
        } else {
            Self::Failed(failure)
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// By itself, with this code.
    Exited(i64),
    /// Past its limit: it was stopped.
    TimedOut,
    /// Its limit was reached before it had started.
    TooLate,
    /// It was stopped, by our shutdown or because somebody asked for it.
    Cancelled,
    /// The Engine was killed under it: the code that it tells is its own.
    EngineLost,
    /// An earlier life of the daemon ended before it was started.
    Interrupted,
    /// It could not be created, started or followed.
    Failed(Failure),
}

/// What a run came to.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// When it was started: by the Engine's clock where it was asked, else when the start was answered. None for a run
    /// that never was.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the same clock.
    pub finished_at: Option<Timestamp>,
    /// The kernel killed it for want of memory.
    pub out_of_memory: bool,
}

impl Finished {
    /// A run that was never started.
    #[must_use]
    pub fn not_started(end: End) -> Self {
        Self { end, started_at: None, finished_at: None, out_of_memory: false }
    }
}

/// What a found run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It was not started, or is being started.
    Created,
    /// It goes on.
    Alive,
    /// It ended.
    Ended,
}

/// A run that is there, whoever began it.
#[derive(Debug)]
pub struct FoundRun<R> {
    /// Its container's name.
    pub container: String,
    /// Of which service.
    pub service: ServiceName,
    /// Which run it is and how it is followed, where it is one of ours by its labels.
    pub own: Option<(RunId, R)>,
    /// Which daemon began it, where it is one of ours.
    pub begun_by: Option<Birth>,
    /// Its name is not as we write them: an operator gave it another one, or its labels came with an image.
    pub renamed: bool,
    /// What it is doing.
    pub state: RunState,
}

/// What carries services out.
///
/// Whatever a run leaves behind is gone once [`Backend::remove`] returned, also after faults and lost answers.
pub trait Backend: Send + Sync + 'static {
    /// A run that was begun or found.
    type Run: Send + 'static;

    /// Asks for the project's containers, to see whether there is an answer.
    fn ping(&self, project: &ProjectName) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Brings up what the service depends on, then creates and starts its run. What runs is left as it is.
    ///
    /// The deadline moves by what pulling images takes. A run whose creation was asked for is returned also where it
    /// failed: [`Backend::finish`] says how.
    fn begin(
        &self,
        spec: RunSpec<'_>,
        bounds: &mut Bounds,
    ) -> impl Future<Output = Result<Self::Run, NotStarted>> + Send;

    /// Waits for the end of a run, and stops it where its bounds say so.
    fn finish(&self, run: &mut Self::Run, bounds: &Bounds) -> impl Future<Output = Finished> + Send;

    /// Removes a run and whatever belongs to it alone; tries until it is gone.
    fn remove(&self, run: Self::Run) -> impl Future<Output = ()> + Send;

    /// The last lines of a run's stdout and stderr, `limit` bytes at most; empty where there are none to be had.
    fn tail(&self, run: &Self::Run, limit: usize) -> impl Future<Output = String> + Send;

    /// The project's runs that are there, of one service or of all.
    fn runs(
        &self,
        project: &ProjectName,
        service: Option<&ServiceName>,
    ) -> impl Future<Output = Result<Vec<FoundRun<Self::Run>>, Failure>> + Send;

    /// Brings a service and its dependencies up: what is missing is created, what is stopped started, and the service is
    /// recreated where it differs. Returns once it is started; its own health is not waited for. What was begun is finished
    /// also where nobody waits for it any more.
    fn up(&self, spec: UpSpec<'_>, abort: &CancellationToken) -> impl Future<Output = Result<(), NotStarted>> + Send;

    /// Stops the service's own containers, each with its grace period; false where it left them running because one was
    /// started after the moment `before`.
    fn down(
        &self,
        project: &Project,
        service: &ServiceName,
        before: Option<Timestamp>,
    ) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// Stops the containers that the service has and starts them again as they are; false where it has none. Nothing is
    /// created or pulled.
    fn restart(&self, project: &Project, service: &ServiceName) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// Whether a container of the service runs, runs left out.
    fn is_up(&self, project: &ProjectName, service: &ServiceName)
    -> impl Future<Output = Result<bool, Failure>> + Send;

    /// The calls that a run would make now, up to the start of its container. Nothing is changed.
    fn dry_run(&self, spec: RunSpec<'_>) -> impl Future<Output = Result<Graph, Failure>> + Send;
}

/// What went wrong while a service was prepared, run, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The Compose files do not give this service.
    #[error("project not usable")]
    Project(#[source] LoadErrors),
    /// What is there and what is wanted do not go together.
    #[error(transparent)]
    Plan(PlanError),
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
    #[error(transparent)]
    File(#[from] FileError),
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
    /// The time limit was reached while something was in the way.
    #[error("not started within {}: waits for {what}", humantime::format_duration(*.limit))]
    Waiting {
        /// The time limit.
        limit: Duration,
        /// What was waited for, and what is done to it.
        what: String,
    },
    /// A dependency was not ready when the time limit was reached.
    #[error("dependency {dependency} not ready within {}", humantime::format_duration(*.limit))]
    NotReady {
        /// Which.
        dependency: ServiceName,
        /// The time limit.
        limit: Duration,
    },
}
