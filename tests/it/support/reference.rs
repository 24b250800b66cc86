//! The reference stack on both fakes: its Compose file, the preset, and the dispatcher, seeder and monitor that a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sense_orchestrator::action::permission::Permissions;
use sense_orchestrator::backend::compose::{ComposeBackend, ComposeOptions};
use sense_orchestrator::bus::{Bus, Event};
use sense_orchestrator::compose;
use sense_orchestrator::dispatcher::{self, Lifetime, Outputs, PollServices, Scheduled};
use sense_orchestrator::jobs::Jobs;
use sense_orchestrator::monitor;
use sense_orchestrator::observer::feed::Feed;
use sense_orchestrator::projects::Projects;
use sense_orchestrator::report::Problems;
use sense_orchestrator::runner::{Runner, RunnerOptions, RunnerStages, ServiceOptions};
use sense_orchestrator::schedule::Intervals;
use sense_orchestrator::seeder::Seeder;
use sense_orchestrator::settings::{Environment, Settings, Sources};
use sense_orchestrator::upcoming::Upcoming;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::bounds;
use super::bus::FakeBus;
use super::engine::{FakeEngine, Script};
use super::stack::{history, ledger};

const COMPOSE: &str = "
name: sense
services:
  redis: { image: 'busybox:test' }
  orchestrator: { image: 'busybox:test' }
  web-gateway: { image: 'busybox:test' }
  source-tailscale: { image: 'busybox:test', profiles: [poll] }
  source-pihole: { image: 'busybox:test', profiles: [poll] }
  source-system: { image: 'busybox:test', profiles: [poll] }
  source-aranet4: { image: 'busybox:test', profiles: [poll] }
  source-weather: { image: 'busybox:test', profiles: [poll] }
  source-camera: { image: 'busybox:test', profiles: [camera] }
";

/// How often the components look at what they look at regularly.
pub(crate) const PERIOD: Duration = Duration::from_mins(1);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The stack, and what its components were given.
pub(crate) struct Stack<B: Bus = FakeBus> {
    pub(crate) engine: Arc<FakeEngine>,
    pub(crate) bus: Arc<B>,
    pub(crate) runner: Runner<ComposeBackend<FakeEngine>, B>,
    pub(crate) settings: Settings,
    pub(crate) intervals: watch::Sender<Arc<Intervals>>,
    pub(crate) problems: watch::Sender<Problems>,
    pub(crate) intake: CancellationToken,
    pub(crate) abort: CancellationToken,
    pub(crate) work: TaskTracker,
    pub(crate) epoch: Instant,
    folder: PathBuf,
}

impl Stack {
    /// The stack with the preset and no component.
    pub(crate) fn new() -> Self {
        Self::with_environment(&[])
    }

    /// The same with variables in the daemon's environment.
    pub(crate) fn with_environment(environment: &[(&str, &str)]) -> Self {
        Self::on(FakeBus::new(), environment)
    }

    /// The stack with a dispatcher that listens.
    pub(crate) async fn dispatching() -> Self {
        let stack = Self::new();
        stack.start_dispatcher();
        sleep(Duration::from_millis(1)).await;
        stack
    }

    /// Sends a command as the web gateway does: first the command, then the subscription.
    pub(crate) async fn call(&self, action: &str, params: Value) -> Value {
        let id = format!("req-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.call_as(&id, action, params).await
    }

    /// The same with a `request_id` of its own.
    pub(crate) async fn call_as(&self, id: &str, action: &str, params: Value) -> Value {
        let command = json!({"action": action, "request_id": id, "params": params, "timestamp": 1.5});
        self.bus.send("cmd:orchestrator", command.to_string());
        sleep(Duration::from_millis(30)).await;
        self.reply(id).await
    }

    /// Waits for a reply on its channel.
    pub(crate) async fn reply(&self, id: &str) -> Value {
        let mut replies = self.bus.subscribe(&[reply_channel(id)]);
        let reply = async {
            loop {
                match replies.next().await {
                    Some(Event::Message(message)) => return serde_json::from_slice(&message.payload).unwrap(),
                    Some(Event::Gap { .. }) => {}
                    None => panic!("the bus closed"),
                }
            }
        };
        timeout(Duration::from_mins(1), reply).await.unwrap_or_else(|_| panic!("no reply to {id}"))
    }
}

impl<B: Bus> Stack<B> {
    /// The stack on another bus.
    pub(crate) fn on(bus: Arc<B>, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let sources = Sources { environment: Environment::new(environment), ..Sources::default() };
        let settings = Settings::load(&sources).expect("the preset is well");
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sense-stack-{}-{id}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("compose.yaml"), COMPOSE).unwrap();
        let engine = FakeEngine::new();
        let (intake, abort) = (CancellationToken::new(), CancellationToken::new());
        let work = TaskTracker::new();
        let stages = RunnerStages { intake: intake.clone(), abort: abort.clone(), work: work.clone() };
        let runner = runner(&engine, &bus, &folder, stages);
        let intervals = watch::Sender::new(Arc::new(settings.intervals()));
        Self {
            engine,
            bus,
            runner,
            settings,
            intervals,
            problems: watch::Sender::default(),
            intake,
            abort,
            work,
            epoch: Instant::now(),
            folder,
        }
    }

    /// Adds services to the Compose file.
    pub(crate) fn add_services(&self, services: &str) {
        std::fs::write(self.folder.join("compose.yaml"), format!("{COMPOSE}{services}")).unwrap();
    }

    /// A runner that knows nothing of ours, as a second daemon has.
    pub(crate) fn other_runner(&self) -> Runner<ComposeBackend<FakeEngine>, B> {
        let (intake, abort) = (self.intake.clone(), self.abort.clone());
        let stages = RunnerStages { intake, abort, work: TaskTracker::new() };
        runner(&self.engine, &self.bus, &self.folder, stages)
    }

    pub(crate) fn start_dispatcher(&self) -> tokio::task::JoinHandle<()> {
        self.start_dispatcher_with(|_| {})
    }

    pub(crate) fn start_dispatcher_with(
        &self,
        change: impl FnOnce(&mut dispatcher::Options),
    ) -> tokio::task::JoinHandle<()> {
        let mut options = self.dispatcher_options();
        change(&mut options);
        self.start_dispatcher_on(watch::Sender::new(Arc::new(options)).subscribe())
    }

    /// What the settings tell the dispatcher.
    pub(crate) fn dispatcher_options(&self) -> dispatcher::Options {
        let commands = &self.settings.commands;
        let permissions = Permissions {
            profiles: commands.profiles.iter().cloned().collect(),
            allow: BTreeSet::new(),
            deny: commands.deny.iter().cloned().collect(),
            own: Some("orchestrator".parse().unwrap()),
        };
        let scheduled = self.settings.intervals().into_iter().map(|(service, default)| {
            let key = self.settings.service(&service).schedule_key.to_owned();
            (service, Scheduled { key, default, by_settings: true })
        });
        let on_command = ["source-camera".parse().unwrap()].into();
        dispatcher::Options {
            actions: self.settings.actions.clone(),
            reactions: self.settings.reactions.clone(),
            config_changes: self.settings.config_changes.clone(),
            services: PollServices { scheduled: scheduled.collect(), on_command, permissions },
            max_in_flight: self.settings.commands.max_in_flight,
            reply_ttl: self.settings.commands.reply_ttl,
            reply_bytes: bounds().replies,
        }
    }

    /// A dispatcher whose options may change.
    pub(crate) fn start_dispatcher_on(
        &self,
        options: watch::Receiver<Arc<dispatcher::Options>>,
    ) -> tokio::task::JoinHandle<()> {
        let outputs =
            Outputs { intervals: self.intervals.clone(), problems: self.problems.clone(), work: self.work.clone() };
        let lifetime = Lifetime { epoch: self.epoch, period: PERIOD, intake: self.intake.clone() };
        let (runner, intervals) = (self.runner.clone(), self.intervals.subscribe());
        let jobs = Jobs::new(runner.clone(), intervals, Upcoming::default(), Feed::default(), None);
        tokio::spawn(dispatcher::run(Arc::clone(&self.bus), runner, jobs, options, outputs, lifetime))
    }

    pub(crate) fn seeder(&self) -> Seeder<B> {
        Seeder::new(
            Arc::clone(&self.bus),
            history(ledger(), &self.bus).events,
            &self.settings.seeds,
            &self.settings.seed_variables.0,
        )
    }

    pub(crate) fn start_seeder(&self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.seeder().run(self.epoch, PERIOD, self.intake.clone()))
    }

    pub(crate) fn start_monitor(&self) -> tokio::task::JoinHandle<()> {
        let health = &self.settings.health;
        let services = self.settings.services.iter();
        let options = monitor::Options {
            own: "orchestrator".parse().unwrap(),
            sources: services.filter_map(|(name, own)| Some((name.clone(), own.status.clone()?))).collect(),
            overdue_factor: health.overdue_factor,
            remind: health.remind,
            status_ttl: health.status_ttl,
        };
        let options = watch::Sender::new(Arc::new(options)).subscribe();
        let inputs =
            monitor::Inputs { options, intervals: self.intervals.subscribe(), problems: self.problems.subscribe() };
        let (bus, runner) = (Arc::clone(&self.bus), self.runner.clone());
        tokio::spawn(monitor::run(bus, runner, inputs, (self.epoch, PERIOD), self.intake.clone()))
    }

    /// Says what a service's containers do.
    pub(crate) fn script(&self, service: &str, script: Script) -> &Self {
        self.engine.script(service, script);
        self
    }

    /// The interval of a service, in seconds; none while it is paused.
    pub(crate) fn every(&self, service: &str) -> Option<u64> {
        let every = self.intervals.borrow().get(service).copied().flatten();
        every.map(|every| every.as_duration().as_secs())
    }
}

fn runner<B: Bus>(
    engine: &Arc<FakeEngine>,
    bus: &Arc<B>,
    folder: &Path,
    stages: RunnerStages,
) -> Runner<ComposeBackend<FakeEngine>, B> {
    let compose = compose::Options { working_dir: folder.to_owned(), ..Default::default() };
    let projects = Arc::new(Projects::open(compose).unwrap());
    let limit = Duration::from_mins(1);
    let options = RunnerOptions {
        default: ServiceOptions {
            limit,
            proof: None,
            expects_readings: None,
            environment: BTreeMap::new(),
            profile: None,
            recreate_dependencies: false,
        },
        services: BTreeMap::new(),
        tail: 64 * 1024,
        tail_of_success: false,
    };
    let backend = ComposeBackend::new(Arc::clone(engine), Arc::clone(&projects), ComposeOptions::default());
    Runner::new(Arc::new(backend), Arc::clone(bus), projects, options, stages, history(ledger(), bus))
}

impl<B: Bus> Drop for Stack<B> {
    fn drop(&mut self) {
        self.intake.cancel();
        self.abort.cancel();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The channel and key of a reply.
pub(crate) fn reply_channel(id: &str) -> String {
    format!("cmd:orchestrator:response:{id}")
}
