//! Containers of one Engine, as `docker compose run`, `up -d` and `stop` make and stop them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::{Stream, TryStreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Backend, Bounds, Failure, Finished, FoundRun, NotStarted, RunSpec, UpSpec};
use crate::clock::Timestamp;
use crate::compose::project::Project;
use crate::engine::Engine;
use crate::names::{ProjectName, ServiceName};
use crate::plan::{Graph, State};
use crate::projects::Projects;
use crate::request::Output;
use crate::spec::Dialect;

mod carry;
mod decide;
mod execute;
mod one_off;
mod ready;
mod run;
mod services;
mod turns;

pub use one_off::OneOffRun;

use turns::Turns;

/// How containers are written.
#[derive(Debug, Clone, Default)]
pub struct ComposeOptions {
    /// The Compose version that containers are written as.
    pub dialect: Dialect,
    /// Variables that the client's `config.json` gives every container.
    pub proxies: BTreeMap<String, String>,
    /// The client's registry credentials as a `config.json`, for services with `use_api_socket`.
    pub registry_config: Option<String>,
}

/// The containers of a Compose project on one Engine. A clone is the same backend.
pub struct ComposeBackend<E> {
    engine: Arc<E>,
    projects: Arc<Projects>,
    options: Arc<ComposeOptions>,
    /// Who works on what.
    turns: Arc<Turns>,
    /// What was told of each object that differs from its files.
    warned: Arc<Mutex<BTreeMap<String, String>>>,
    /// Where work goes on that has to be finished whoever asked for it.
    work: TaskTracker,
}

impl<E> Clone for ComposeBackend<E> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            projects: Arc::clone(&self.projects),
            options: Arc::clone(&self.options),
            turns: Arc::clone(&self.turns),
            warned: Arc::clone(&self.warned),
            work: self.work.clone(),
        }
    }
}

impl<E: Engine> ComposeBackend<E> {
    /// A backend for the services of `projects`.
    pub fn new(engine: Arc<E>, projects: Arc<Projects>, options: ComposeOptions) -> Self {
        let (turns, warned, work) = (Arc::default(), Arc::default(), TaskTracker::new());
        Self { engine, projects, options: Arc::new(options), turns, warned, work }
    }

    /// The same, with its work on the tracker of who waits for it.
    #[must_use]
    pub fn tracked_by(self, work: TaskTracker) -> Self {
        Self { work, ..self }
    }
}

impl<E: Engine> Backend for ComposeBackend<E> {
    type Run = OneOffRun;

    async fn ping(&self, project: &ProjectName) -> Result<(), Failure> {
        self.observe(project).await.map(drop)
    }

    async fn begin(&self, spec: RunSpec<'_>, bounds: &mut Bounds) -> Result<OneOffRun, NotStarted> {
        self.begin_run(spec, bounds).await
    }

    async fn finish(&self, run: &mut OneOffRun, bounds: &Bounds) -> Finished {
        one_off::finish(self.engine.as_ref(), run, bounds).await
    }

    async fn remove(&self, run: OneOffRun) {
        one_off::remove(self.engine.as_ref(), &run).await;
    }

    async fn tail(&self, run: &OneOffRun, limit: usize) -> String {
        one_off::tail(self.engine.as_ref(), run, limit).await
    }

    fn output(&self, container: &str, follow: bool) -> impl Stream<Item = Result<Output, Failure>> + Send {
        let output = self.engine.logs(container, follow);
        output.map_err(|source| Failure::Engine { step: "read output".into(), source })
    }

    async fn runs(
        &self,
        project: &ProjectName,
        service: Option<&ServiceName>,
    ) -> Result<Vec<FoundRun<OneOffRun>>, Failure> {
        self.found_runs(project, service).await
    }

    async fn up(&self, spec: UpSpec<'_>, abort: &CancellationToken) -> Result<(), NotStarted> {
        self.bring_up(spec, abort).await
    }

    async fn down(&self, project: &Project, service: &ServiceName, before: Option<Timestamp>) -> Result<bool, Failure> {
        self.bring_down(project, service, before).await
    }

    async fn restart(&self, project: &Project, service: &ServiceName) -> Result<bool, Failure> {
        self.restart_containers(project, service).await
    }

    async fn is_up(&self, project: &ProjectName, service: &ServiceName) -> Result<bool, Failure> {
        let stack = self.observe(project).await?;
        Ok(stack.of_service(service).any(|container| container.state == State::Running))
    }

    async fn dry_run(&self, spec: RunSpec<'_>) -> Result<Graph, Failure> {
        self.plan_run(spec).await
    }
}
