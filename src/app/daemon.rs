//! The daemon on its ports: production gives it Docker and Redis, a simulation others.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::components::Parts;
use super::live::Live;
use super::{OWN_SOURCE, runner_options};
use crate::backend::compose::{ComposeBackend, ComposeOptions};
use crate::bus::Bus;
use crate::engine::Engine;
use crate::jobs::Jobs;
use crate::ledger::Ledger;
use crate::memory::MemoryBounds;
use crate::monitor::connection;
use crate::names::{NameError, ServiceName};
use crate::observer::feed::Feed;
use crate::observer::ledger::LedgerWriter;
use crate::observer::redis_records::{self, RedisRecords};
use crate::observer::status::Tally;
use crate::observer::{Events, log};
use crate::projects::Projects;
use crate::runner::{History, Runner, RunnerStages};
use crate::schedule::Intervals;
use crate::settings::Settings;
use crate::supervisor::{Supervisor, SupervisorError};
use crate::upcoming::Upcoming;

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
    /// Until when the start waits for Redis.
    pub redis_by: Instant,
}

/// The daemon with its components at work; whoever started it may add more of them.
pub struct Running<E, B> {
    /// Does the work.
    pub runner: Runner<ComposeBackend<E>, B>,
    /// Answers what is asked of them.
    pub jobs: Jobs<ComposeBackend<E>, B>,
    /// Owns the components.
    pub supervisor: Supervisor,
    /// The intervals in force.
    pub intervals: watch::Receiver<Arc<Intervals>>,
    /// What of the settings can be told anew.
    pub(super) live: Arc<Live<ComposeBackend<E>, B>>,
    grace: Duration,
    bus: Arc<B>,
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
        let (feed, upcoming) = (Feed::default(), Upcoming::default());
        let (intervals, in_force) = watch::channel(Arc::new(self.settings.intervals()));
        // Whoever else wants to hear what happens is one more line.
        let events = Events::new(vec![
            Box::new(LedgerWriter::new(ledger.clone())),
            Box::new(log::Log::default()),
            Box::new(tally.clone()),
            Box::new(redis_records),
            Box::new(feed.clone()),
        ]);
        let history = History { events: events.clone(), ledger, tally };
        let runner = Runner::new(backend, Arc::clone(&self.bus), self.projects, options, runner_stages, history);
        let jobs = Jobs::new(runner.clone(), in_force.clone(), upcoming.clone(), feed, self.own_service.clone());
        let grace = self.settings.shutdown.grace;
        let parts = Parts {
            redis_by: self.redis_by,
            settings: self.settings,
            runner: runner.clone(),
            bus: Arc::clone(&self.bus),
            events,
            jobs: jobs.clone(),
            intervals,
            upcoming,
            own_service: self.own_service,
            bounds: self.bounds,
            own_source: OWN_SOURCE.parse()?,
        };
        let live = Arc::new(parts.start(&mut supervisor));
        Ok(Running { runner, jobs, supervisor, intervals: in_force, live, grace, bus: self.bus, records_to_redis })
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
        let Self { runner, supervisor, grace, bus, records_to_redis, .. } = self;
        let supervised = async {
            let ended = supervisor.run(signals, grace, || runner.occupied()).await;
            closing.cancel();
            ended
        };
        let connection = connection::tell(bus.as_ref(), runner.events(), closing.clone());
        tokio::join!(supervised, records_to_redis.run(closing.clone()), connection).0
    }
}
