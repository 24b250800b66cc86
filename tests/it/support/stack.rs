//! A Compose project in a folder of its own, and a runner for it on the fakes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sense_orchestrator::backend::compose::{ComposeBackend, ComposeOptions};
use sense_orchestrator::bus::Bus;
use sense_orchestrator::compose::Options;
use sense_orchestrator::ledger::{Ledger, Limits};
use sense_orchestrator::names::ServiceName;
use sense_orchestrator::observer::ledger::LedgerWriter;
use sense_orchestrator::observer::redis_records::RedisRecords;
use sense_orchestrator::observer::status::Tally;
use sense_orchestrator::observer::{Events, log};
use sense_orchestrator::projects::Projects;
use sense_orchestrator::report::{RunReport, Trigger};
use sense_orchestrator::runner::{History, RunError, RunRequest, Runner, RunnerOptions, RunnerStages, ServiceOptions};
use sense_orchestrator::spec::Dialect;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bus::FakeBus;
use super::engine::FakeEngine;

/// A folder that is removed with its content when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sense-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A project on the fakes.
pub(crate) struct Stack {
    pub(crate) engine: Arc<FakeEngine>,
    pub(crate) bus: Arc<FakeBus>,
    pub(crate) folder: Folder,
    pub(crate) stages: RunnerStages,
    pub(crate) runner: Runner<ComposeBackend<FakeEngine>, FakeBus>,
    /// What the daemon remembers.
    pub(crate) ledger: Ledger,
    options: RunnerOptions,
    compose: ComposeOptions,
}

/// A service that needs nothing but its image and the default network.
pub(crate) const PLAIN: &str = "
name: p
services:
  weather: {image: 'busybox:test', profiles: [poll]}
  system: {image: 'busybox:test', profiles: [poll]}
";

impl Stack {
    /// The project of a Compose file, with 60 s for each run.
    pub(crate) fn new(compose: &str) -> Self {
        Self::with(compose, |_| {})
    }

    /// The same with other options.
    pub(crate) fn with(compose: &str, change: impl FnOnce(&mut RunnerOptions)) -> Self {
        let folder = Folder::new();
        folder.write("compose.yaml", compose);
        let default = ServiceOptions {
            limit: Duration::from_mins(1),
            proof: None,
            expects_readings: None,
            environment: BTreeMap::new(),
            profile: None,
            recreate_dependencies: false,
        };
        let mut options = RunnerOptions { default, services: BTreeMap::new(), tail: 64 << 10, tail_of_success: false };
        change(&mut options);
        Self::over(folder, FakeEngine::new(), FakeBus::new(), options, ComposeOptions::default(), ledger())
    }

    /// The project as another version of Compose writes it.
    pub(crate) fn written_as(self, dialect: Dialect) -> Self {
        let compose = ComposeOptions { dialect, ..self.compose };
        Self::over(self.folder, self.engine, self.bus, self.options, compose, self.ledger)
    }

    fn over(
        folder: Folder,
        engine: Arc<FakeEngine>,
        bus: Arc<FakeBus>,
        options: RunnerOptions,
        compose: ComposeOptions,
        ledger: Ledger,
    ) -> Self {
        let stages = RunnerStages {
            intake: CancellationToken::new(),
            abort: CancellationToken::new(),
            work: TaskTracker::new(),
        };
        let projects = Projects::open(Options { working_dir: folder.0.clone(), ..Options::default() }).unwrap();
        let projects = Arc::new(projects);
        let backend = ComposeBackend::new(Arc::clone(&engine), Arc::clone(&projects), compose.clone());
        let (backend, options_of_runner) = (Arc::new(backend), options.clone());
        let history = history(ledger.clone(), &bus);
        let runner = Runner::new(backend, Arc::clone(&bus), projects, options_of_runner, stages.clone(), history);
        Self { engine, bus, folder, stages, runner, ledger, options, compose }
    }

    /// The daemon's next life after a kill: nothing is left but the Engine, Redis and the files.
    pub(crate) fn reborn(self) -> Self {
        Self::over(self.folder, self.engine, self.bus, self.options, self.compose, ledger())
    }

    /// The next life after a kill where there is a state directory.
    pub(crate) fn reborn_with_its_memory(self) -> Self {
        Self::over(self.folder, self.engine, self.bus, self.options, self.compose, self.ledger)
    }

    /// Runs a service as the schedule does.
    pub(crate) async fn run(&self, service: &str) -> Result<RunReport, RunError> {
        self.run_with(service, &[]).await
    }

    /// Runs a service with variables.
    pub(crate) async fn run_with(&self, service: &str, environment: &[(&str, &str)]) -> Result<RunReport, RunError> {
        let report = self.verdict_of_run(service, environment).await;
        self.settled().await;
        report
    }

    /// The same, but returns with the verdict: the container is still to be removed.
    pub(crate) async fn verdict_of_run(
        &self,
        service: &str,
        environment: &[(&str, &str)],
    ) -> Result<RunReport, RunError> {
        let environment = environment.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        self.runner.run(RunRequest { environment, ..RunRequest::new(name(service), Trigger::Schedule) }).await
    }

    /// Waits until what was begun in the background has ended.
    pub(crate) async fn settled(&self) {
        while !self.stages.work.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A history that begins with a ledger, and goes on in it and in the log.
pub(crate) fn history<B: Bus>(ledger: Ledger, bus: &Arc<B>) -> History {
    let tally = Tally::default();
    let (redis_records, writer) = RedisRecords::new(Arc::clone(bus));
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(writer.run(CancellationToken::new()));
    }
    let events = Events::new(vec![
        Box::new(LedgerWriter::new(ledger.clone())),
        Box::new(log::Log::default()),
        Box::new(tally.clone()),
        Box::new(redis_records),
    ]);
    History { events, ledger, tally }
}

/// A ledger without a disk.
pub(crate) fn ledger() -> Ledger {
    Ledger::in_memory(Limits { records: 1000, age: Duration::from_hours(24 * 90), bytes: 1 << 20 })
}

/// A service name.
pub(crate) fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}
