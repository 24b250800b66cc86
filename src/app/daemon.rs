//! The daemon on its ports: production gives it Docker and Redis, a simulation others.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::components::Parts;
use super::{OWN_SOURCE, runner_options};
use crate::backend::compose::{ComposeBackend, ComposeOptions};
use crate::bus::Bus;
use crate::engine::Engine;
use crate::ledger::Ledger;
use crate::memory::MemoryBounds;
use crate::names::{NameError, ServiceName};
use crate::observer::ledger::LedgerWriter;
use crate::observer::redis_records::{self, RedisRecords};
use crate::observer::status::Tally;
use crate::observer::{Events, log};
use crate::projects::Projects;
use crate::runner::{History, Runner, RunnerStages};
use crate::schedule::Intervals;
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
    /// What it may hold in memory.
    pub bounds: MemoryBounds,
    /// What it remembers.
    pub ledger: Ledger,
}

/// The daemon with its components at work; whoever started it may add more of them.
pub struct Running<E, B> {
    /// Does the work.
    pub runner: Runner<ComposeBackend<E>, B>,
    /// Owns the components.
    pub supervisor: Supervisor,
    /// The intervals in force.
    pub intervals: watch::Receiver<Arc<Intervals>>,
    grace: Duration,
    records_to_redis: redis_records::Writer<B>,
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
        let (ledger, tally) = (self.ledger, Tally::default());
        let (redis_records, records_to_redis) = RedisRecords::new(Arc::clone(&self.bus));
        // Whoever else wants to hear what happens is one more line.
        let events = Events::new(vec![
            Box::new(LedgerWriter::new(ledger.clone())),
            Box::new(log::Log::default()),
            Box::new(tally.clone()),
            Box::new(redis_records),
        ]);
        let history = History { events: events.clone(), ledger, tally };
        let runner = Runner::new(backend, Arc::clone(&self.bus), self.projects, options, runner_stages, history);
        let grace = self.settings.shutdown.grace;
        let parts = Parts {
            settings: self.settings,
            runner: runner.clone(),
            bus: self.bus,
            events,
            own_service: self.own_service,
            bounds: self.bounds,
            own_source: OWN_SOURCE.parse()?,
        };
        let intervals = parts.start(&mut supervisor);
        Ok(Running { runner, supervisor, intervals, grace, records_to_redis })
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
        let Self { runner, supervisor, grace, records_to_redis, .. } = self;
        let supervised = async {
            let ended = supervisor.run(signals, grace, || runner.occupied()).await;
            closing.cancel();
            ended
        };
        tokio::join!(supervised, records_to_redis.run(closing.clone())).0
    }
}
