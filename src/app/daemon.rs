//! The daemon on its ports: production gives it Docker and Redis, a simulation others.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio_util::sync::CancellationToken;

use super::components::Parts;
use super::{OWN_SOURCE, runner_options};
use crate::backend::compose::{ComposeBackend, ComposeOptions};
use crate::bus::Bus;
use crate::engine::Engine;
use crate::names::{NameError, ServiceName};
use crate::observer::{Events, log};
use crate::projects::Projects;
use crate::runner::{Runner, RunnerStages};
use crate::settings::Settings;
use crate::supervisor::{Supervisor, SupervisorError};

/// What the daemon is put together from.
pub struct Daemon<E, B> {
    /// What the user wants.
    pub settings: Settings,
    /// What runs containers.
    pub engine: Arc<E>,
    /// Where commands come from.
    pub bus: Arc<B>,
    /// The Compose files.
    pub projects: Arc<Projects>,
    /// How containers are written.
    pub compose: ComposeOptions,
    /// Our own service, which no command may touch.
    pub own_service: Option<ServiceName>,
}

/// The daemon with its components at work; whoever started it may add more of them.
pub struct Running<E, B> {
    /// Does the work.
    pub runner: Runner<ComposeBackend<E>, B>,
    /// Owns the components.
    pub supervisor: Supervisor,
    grace: Duration,
}

impl<E: Engine, B: Bus> Daemon<E, B> {
    /// Starts all components that need nothing but the ports.
    ///
    /// # Errors
    ///
    /// Our own name is none.
    pub fn start(self) -> Result<Running<E, B>, NameError> {
        let mut supervisor = Supervisor::new();
        let stages = supervisor.stages();
        let runner_stages = RunnerStages { intake: stages.intake, abort: stages.abort, work: supervisor.work() };
        let backend =
            ComposeBackend::new(self.engine, Arc::clone(&self.projects), self.compose).tracked_by(supervisor.work());
        let (backend, options) = (Arc::new(backend), runner_options(&self.settings));
        let events = Events::new(vec![Box::new(log::Log)]);
        let runner = Runner::new(backend, Arc::clone(&self.bus), self.projects, options, runner_stages, events.clone());
        let grace = self.settings.shutdown.grace;
        let parts = Parts {
            settings: self.settings,
            runner: runner.clone(),
            bus: self.bus,
            events,
            own_service: self.own_service,
            own_source: OWN_SOURCE.parse()?,
        };
        parts.start(&mut supervisor);
        Ok(Running { runner, supervisor, grace })
    }
}

impl<E: Engine, B: Bus> Running<E, B> {
    /// Runs until a signal arrives or a component ends, and then through both stages of shutdown. Then it closes `closing`:
    /// the connections outlive every component, as the last replies go over them.
    ///
    /// # Errors
    ///
    /// A component ended by itself.
    pub async fn run(
        self,
        signals: impl Stream<Item = &'static str>,
        closing: &CancellationToken,
    ) -> Result<(), SupervisorError> {
        let Self { runner, supervisor, grace } = self;
        let ended = supervisor.run(signals, grace, || runner.occupied()).await;
        closing.cancel();
        ended
    }
}
