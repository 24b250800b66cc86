//! Starts, stops and restarts services, as `docker compose up -d` and `stop` do.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::OperationClaim;
use super::{OperateError, Runner};
use crate::backend::{Backend, Failure, NotStarted, UpSpec};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::compose::project::Project;
use crate::event::{Event, Operation};
use crate::names::ServiceName;
use crate::report::Chain;

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Brings a service and its dependencies up: what is missing is created, what differs recreated, what is stopped
    /// started. Returns once it is started; its own health is not waited for.
    ///
    /// # Errors
    ///
    /// The project has no such service, the daemon is about to end, or a step failed: what was done until then stays.
    pub async fn start(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.check(service)?;
        let cancel = self.inner.claims.start(service);
        let _operation = self.turn_to_start(service, &cancel).await?;
        let begun = Instant::now();
        self.up(service, &cancel).await?;
        self.done(service, Operation::Started, begun);
        Ok(())
    }

    /// Cancels the starts of a service that have not come to its container yet.
    pub fn cancel_starts(&self, service: &ServiceName) {
        self.inner.claims.cancel_starts(service);
    }

    /// Stops a service's containers, each with its grace period. Its one-offs and dependencies are left alone. Starts of it
    /// that were asked for before and have not come to its container yet are cancelled.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn stop(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.cancel_starts(service);
        self.stop_where(service, None).await.map(drop)
    }

    /// As [`Runner::stop`], but only what was started before a moment: a service that was started since is wanted. False
    /// where it was left running for that.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn stop_started_before(&self, service: &ServiceName, moment: Timestamp) -> Result<bool, OperateError> {
        self.stop_where(service, Some(moment)).await
    }

    async fn stop_where(&self, service: &ServiceName, before: Option<Timestamp>) -> Result<bool, OperateError> {
        if !self.knows(service) {
            return Err(OperateError::UnknownService(service.clone()));
        }
        let _operation = self.inner.claims.operation(service).await;
        let begun = Instant::now();
        let stopped = self.down(service, before).await?;
        if stopped {
            self.done(service, Operation::Stopped, begun);
        }
        Ok(stopped)
    }

    /// Stops a service, then starts it.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`].
    pub async fn restart(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.check(service)?;
        let cancel = self.inner.claims.start(service);
        let _operation = self.turn_to_start(service, &cancel).await?;
        let begun = Instant::now();
        self.down(service, None).await?;
        self.up(service, &cancel).await?;
        self.done(service, Operation::Restarted, begun);
        Ok(())
    }

    /// Stops the containers that a service has and starts them again, as they are: nothing is created or pulled.
    ///
    /// # Errors
    ///
    /// As [`Runner::start`], and when the service has no container.
    pub async fn restart_existing(&self, service: &ServiceName) -> Result<(), OperateError> {
        self.check(service)?;
        let cancel = self.inner.claims.start(service);
        let _operation = self.turn_to_start(service, &cancel).await?;
        let begun = Instant::now();
        let project = self.selected_for_stop(service)?;
        if !self.inner.backend.restart(&project, service).await.map_err(|failure| self.failed(&failure))? {
            return Err(OperateError::NoContainer(service.clone()));
        }
        self.done(service, Operation::Restarted, begun);
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

    /// Waits for a turn among the service's operations, unless the start that it is for is cancelled first.
    async fn turn_to_start(
        &self,
        service: &ServiceName,
        cancel: &CancellationToken,
    ) -> Result<OperationClaim, OperateError> {
        let operation = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(self.cancelled(service)),
            operation = self.inner.claims.operation(service) => operation,
        };
        self.check(service)?;
        Ok(operation)
    }

    fn cancelled(&self, service: &ServiceName) -> OperateError {
        if self.inner.stages.abort.is_cancelled() {
            OperateError::ShuttingDown
        } else {
            OperateError::StartCancelled(service.clone())
        }
    }

    async fn up(&self, service: &ServiceName, cancel: &CancellationToken) -> Result<(), OperateError> {
        let inner = &self.inner;
        let options = self.options();
        let own = options.service(service);
        let selected = inner.projects.select(service, own.profile.as_deref());
        let project = &selected.map_err(|errors| self.failed(&Failure::Project(errors)))?;
        let spec = UpSpec { project, service, recreate_dependencies: own.recreate_dependencies };
        match inner.backend.up(spec, cancel).await {
            Ok(()) => Ok(()),
            Err(NotStarted::Failed(failure) | NotStarted::TimedOut(failure)) => Err(self.failed(&failure)),
            Err(NotStarted::Cancelled) => Err(self.cancelled(service)),
        }
    }

    async fn down(&self, service: &ServiceName, before: Option<Timestamp>) -> Result<bool, OperateError> {
        let project = self.selected_for_stop(service)?;
        self.inner.backend.down(&project, service, before).await.map_err(|failure| self.failed(&failure))
    }

    fn selected_for_stop(&self, service: &ServiceName) -> Result<Project, OperateError> {
        let selected = self.inner.projects.select_for_stop(service);
        selected.map_err(|errors| self.failed(&Failure::Project(errors)))
    }

    fn failed(&self, failure: &Failure) -> OperateError {
        OperateError::Failed(self.inner.projects.redact(&Chain(failure).to_string()))
    }

    fn done(&self, service: &ServiceName, operation: Operation, begun: Instant) {
        let event = Event::ServiceOperated { service: service.clone(), operation, took: begun.elapsed() };
        self.inner.history.events.emit(&event);
    }
}
