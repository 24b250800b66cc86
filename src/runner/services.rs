//! Starts, stops and restarts services, as `docker compose up -d` and `stop` do.

use tokio::time::Instant;
use tracing::info;

use super::{OperateError, Runner};
use crate::backend::{Backend, Failure, NotStarted, UpSpec};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::names::ServiceName;

impl<K: Backend, B: Bus> Runner<K, B> {
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
        log_done(service, begun, "service started");
        Ok(())
    }

    /// Stops a service's containers, each with its grace period. Its one-offs and dependencies are left alone.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn stop(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.stop_where(service, None).await
    }

    /// As [`Runner::stop`], but only what was started before a moment: a service that was started since is wanted.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn stop_started_before(&self, service: &ServiceName, moment: Timestamp) -> Result<(), OperateError> {
        self.stop_where(service, Some(moment)).await
    }

    async fn stop_where(&self, service: &ServiceName, before: Option<Timestamp>) -> Result<(), OperateError> {
        if !self.knows(service) {
            return Err(OperateError::UnknownService(service.clone()));
        }
        let _turn = self.inner.claims.operation(service).await;
        let begun = Instant::now();
        if self.down(service, before).await? {
            log_done(service, begun, "service stopped");
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
        self.down(service, None).await?;
        self.up(service).await?;
        log_done(service, begun, "service restarted");
        Ok(())
    }

    /// Whether a container of the service runs, one-offs left out.
    ///
    /// # Errors
    ///
    /// When the Engine does not answer.
    pub async fn is_up(&self, service: &ServiceName) -> Result<bool, Failure> {
        self.inner.backend.is_up(&self.inner.projects.name(), service).await
    }

    fn check(&self, service: &ServiceName) -> Result<(), OperateError> {
        if self.inner.stages.intake.is_cancelled() {
            return Err(OperateError::ShuttingDown);
        }
        if self.knows(service) { Ok(()) } else { Err(OperateError::UnknownService(service.clone())) }
    }

    async fn up(&self, service: &ServiceName) -> Result<(), OperateError> {
        let inner = &self.inner;
        let own = inner.options.service(service);
        let project = &inner.projects.select(service, own.profile.as_deref()).map_err(Failure::Project)?;
        let spec = UpSpec { project, service, recreate_dependencies: own.recreate_dependencies };
        match inner.backend.up(spec, &inner.stages.abort).await {
            Ok(()) => Ok(()),
            Err(NotStarted::Failed(failure) | NotStarted::TimedOut(failure)) => Err(failure.into()),
            Err(NotStarted::Cancelled) => Err(OperateError::ShuttingDown),
        }
    }

    async fn down(&self, service: &ServiceName, before: Option<Timestamp>) -> Result<bool, Failure> {
        let project = self.inner.projects.select_for_stop(service).map_err(Failure::Project)?;
        self.inner.backend.down(&project, service, before).await
    }
}

fn log_done(service: &ServiceName, begun: Instant, message: &'static str) {
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(%service, duration_ms, "{message}");
}
