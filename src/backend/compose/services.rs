//! Brings services up and down, as `docker compose up -d` and `stop` do.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::ComposeBackend;
use super::prepare::{Images, doing};
use crate::backend::{Failure, NotStarted};
use crate::clock::Timestamp;
use crate::compose::project::Project;
use crate::engine::Engine;
use crate::names::ServiceName;
use crate::plan::{self, Convergence, Stack, State, startup_order};

/// Longest that a start may wait for dependencies to become ready. Compose itself waits for ever.
const START_LIMIT: Duration = Duration::from_mins(5);

impl<E: Engine> ComposeBackend<E> {
    pub(super) async fn bring_up(
        &self,
        project: &Project,
        service: &ServiceName,
        abort: &CancellationToken,
    ) -> Result<(), NotStarted> {
        debug_assert!(project.services.contains_key(service), "the project is selected for its service");
        let images: Images = tokio::select! {
            () = abort.cancelled() => return Err(NotStarted::Cancelled),
            images = async { self.pull_images(project, self.look_at_images(project).await?).await } => images?,
        };
        let how = Convergence { inherit: true, ..Convergence::default() };
        let deadline = Instant::now() + START_LIMIT;
        let turn = self.preparation().await;
        self.ensure_surroundings(project, &images, &how, turn).await?;
        for name in startup_order(project).iter().flatten() {
            tokio::select! {
                () = abort.cancelled() => return Err(NotStarted::Cancelled),
                () = tokio::time::sleep_until(deadline) => return Err(Failure::TooLate(START_LIMIT).into()),
                ready = self.await_dependencies(project, name, (deadline, START_LIMIT)) => ready?,
            }
            self.start_containers(project, name, &images, self.preparation().await).await?;
        }
        Ok(())
    }

    pub(super) async fn bring_down(
        &self,
        project: &Project,
        service: &ServiceName,
        before: Option<Timestamp>,
    ) -> Result<bool, Failure> {
        let stack = self.observe(&project.name).await?;
        if let Some(moment) = before
            && self.started_since(service, &stack, moment).await?
        {
            return Ok(false);
        }
        self.execute(&plan::stop(project, service, &stack)).await?;
        Ok(true)
    }

    pub(super) async fn restart_containers(&self, project: &Project, service: &ServiceName) -> Result<bool, Failure> {
        let stack = self.observe(&project.name).await?;
        if stack.of_service(service).next().is_none() {
            return Ok(false);
        }
        self.execute(&plan::stop(project, service, &stack)).await?;
        self.start_containers(project, service, &Images::new(), self.preparation().await).await?;
        Ok(true)
    }

    /// Whether a container of the service was started after a moment.
    async fn started_since(&self, service: &ServiceName, stack: &Stack, moment: Timestamp) -> Result<bool, Failure> {
        for container in stack.of_service(service).filter(|container| container.state == State::Running) {
            let found = self.engine.container(&container.name).await;
            let found = found.map_err(doing(format!("inspect container {}", container.name)))?;
            let started = found.and_then(|found| Timestamp::from_rfc3339(&found.state?.started_at?));
            if started.is_some_and(|started| started > moment) {
                info!(%service, container = container.name, "left running, started since");
                return Ok(true);
            }
        }
        Ok(false)
    }
}
