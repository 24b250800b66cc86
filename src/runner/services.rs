//! Starts, stops and restarts services, as `docker compose up -d` and `stop` do.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::prepare::{Images, doing};
use super::{Failure, OperateError, Runner};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::names::ServiceName;
use crate::plan::{self, Convergence, Stack, State, startup_order};

/// Longest that a start may wait for dependencies to become ready. Compose itself waits for ever.
const START_LIMIT: Duration = Duration::from_mins(5);

impl<E: Engine, B: Bus> Runner<E, B> {
    /// Brings a service and its dependencies up: what is missing is created, what differs recreated, what is stopped
    /// started. Returns once it is started; its own health is not waited for.
    ///
    /// # Errors
    ///
    /// The project has no such service, the daemon is about to end, or a step failed: what was done until then stays.
    pub async fn start(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.check(service)?;
        let _turn = self.inner.claims.operation(service).await;
        self.check(service)?;
        let begun = Instant::now();
        self.up(service).await?;
        told(service, begun, "service started");
        Ok(())
    }

    /// Stops a service's containers, each with its grace period. Its one-offs and dependencies are left alone.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn stop(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.stop_where(service, async |_: &Stack| Ok(true)).await
    }

    /// As [`Runner::stop`], but only what was started before a moment: a service that was started since is wanted.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn stop_started_before(&self, service: &ServiceName, moment: Timestamp) -> Result<(), OperateError> {
        self.stop_where(service, async |stack: &Stack| {
            for container in stack.of_service(service).filter(|container| container.state == State::Running) {
                let found = self.inner.engine.container(&container.name).await;
                let found = found.map_err(doing(format!("inspect container {}", container.name)))?;
                let started = found.and_then(|found| Timestamp::from_rfc3339(&found.state?.started_at?));
                if started.is_some_and(|started| started > moment) {
                    info!(%service, container = container.name, "left running, started since");
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    async fn stop_where(
        &self,
        service: &ServiceName,
        wanted: impl AsyncFnOnce(&Stack) -> Result<bool, Failure>,
    ) -> Result<(), OperateError> {
        if !self.knows(service) {
            return Err(OperateError::UnknownService(service.clone()));
        }
        let _turn = self.inner.claims.operation(service).await;
        let begun = Instant::now();
        let stack = self.observe(&self.inner.projects.name()).await?;
        if wanted(&stack).await? {
            self.down(service, &stack).await?;
            told(service, begun, "service stopped");
        }
        Ok(())
    }

    /// Stops a service, then starts it.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn restart(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.check(service)?;
        let _turn = self.inner.claims.operation(service).await;
        self.check(service)?;
        let begun = Instant::now();
        let stack = self.observe(&self.inner.projects.name()).await?;
        self.down(service, &stack).await?;
        self.up(service).await?;
        told(service, begun, "service restarted");
        Ok(())
    }

    /// Whether a container of the service runs, one-offs left out.
    ///
    /// # Errors
    ///
    /// When the Engine does not answer.
    pub async fn is_up(&self, service: &ServiceName) -> Result<bool, Failure> {
        let stack = self.observe(&self.inner.projects.name()).await?;
        Ok(stack.of_service(service).any(|container| container.state == State::Running))
    }

    fn check(&self, service: &ServiceName) -> Result<(), OperateError> {
        if self.inner.stages.intake.is_cancelled() {
            return Err(OperateError::ShuttingDown);
        }
        if self.knows(service) { Ok(()) } else { Err(OperateError::UnknownService(service.clone())) }
    }

    async fn up(&self, service: &ServiceName) -> Result<(), OperateError> {
        let inner = &self.inner;
        let profile = inner.options.service(service).profile.as_deref();
        let project = inner.projects.select(service, profile).map_err(Failure::Project)?;
        let abort = &inner.stages.abort;
        let images: Images = tokio::select! {
            () = abort.cancelled() => return Err(OperateError::ShuttingDown),
            images = async { self.pull_images(&project, self.look_at_images(&project).await?).await } => images?,
        };
        let how = Convergence { inherit: true, ..Convergence::default() };
        let deadline = Instant::now() + START_LIMIT;
        let turn = self.preparation().await;
        self.ensure_surroundings(&project, &images, &how, turn).await?;
        for name in startup_order(&project).iter().flatten() {
            tokio::select! {
                () = abort.cancelled() => return Err(OperateError::ShuttingDown),
                () = tokio::time::sleep_until(deadline) => return Err(Failure::TooLate(START_LIMIT).into()),
                ready = self.await_dependencies(&project, name, (deadline, START_LIMIT)) => ready?,
            }
            self.start_containers(&project, name, &images, self.preparation().await).await?;
        }
        Ok(())
    }

    async fn down(&self, service: &ServiceName, stack: &Stack) -> Result<(), Failure> {
        let project = self.inner.projects.select_for_stop(service).map_err(Failure::Project)?;
        self.execute(&plan::stop(&project, service, stack)).await
    }
}

fn told(service: &ServiceName, begun: Instant, message: &'static str) {
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(%service, duration_ms, "{message}");
}
