//! The components as the settings describe them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::RETRY;
use crate::action::permission::Permissions;
use crate::backend::Backend;
use crate::bus::{Bus, Connection};
use crate::dispatcher::{self, Lifetime, Outputs, PollServices, Scheduled, ScheduledServices};
use crate::message::{SCHEDULE, config_key};
use crate::monitor;
use crate::names::{ServiceName, SourceId};
use crate::observer::Events;
use crate::report::{Chain, Problems};
use crate::runner::Runner;
use crate::schedule::Intervals;
use crate::scheduler;
use crate::seeder::Seeder;
use crate::settings::{FirstRun, Settings};
use crate::supervisor::Supervisor;

/// How long the start waits for Redis: what it says of the schedule should count from the first run on.
const REDIS_FIRST: Duration = Duration::from_secs(3);

/// What all components are given.
pub(super) struct Parts<K, B> {
    pub(super) settings: Settings,
    pub(super) runner: Runner<K, B>,
    pub(super) bus: Arc<B>,
    pub(super) events: Events,
    /// Our own service, which no command may touch.
    pub(super) own_service: Option<ServiceName>,
    /// Our name in `status:{source}`.
    pub(super) own_source: SourceId,
}

impl<K: Backend, B: Bus> Parts<K, B> {
    /// Starts all components but the bus; gives what they can be told anew.
    pub(super) fn start(self, supervisor: &mut Supervisor) -> Live<K, B> {
        let (stages, work) = (supervisor.stages(), supervisor.work());
        let epoch = Instant::now();
        let period = self.settings.health.interval;
        let intake = &stages.intake;
        let intervals = watch::Sender::new(Arc::new(self.settings.intervals()));
        let problems = watch::Sender::<Problems>::default();
        let seeder = Seeder::new(
            Arc::clone(&self.bus),
            self.events.clone(),
            &self.settings.seeds,
            &self.settings.seed_variables.0,
        );

        // Commands, messages and the schedule's changes come over Redis only.
        let redis = self.settings.redis.is_some();
        let live = Live {
            runner: self.runner.clone(),
            intervals: intervals.clone(),
            problems: problems.clone(),
            monitor: watch::Sender::new(Arc::new(self.monitor())),
            dispatcher: watch::Sender::new(Arc::new(dispatcher_options(&self.settings, self.own_service.as_ref()))),
            redis,
            own_service: self.own_service.clone(),
            looks: (epoch, period),
        };

        let inputs = monitor::Inputs {
            options: live.monitor.subscribe(),
            intervals: intervals.subscribe(),
            problems: problems.subscribe(),
        };
        let (bus, runner) = (Arc::clone(&self.bus), self.runner.clone());
        supervisor.start("monitor", monitor::run(bus, runner, inputs, (epoch, period), intake.clone()));

        let outputs = Outputs { intervals: intervals.clone(), problems, work: work.clone() };
        let lifetime = Lifetime { epoch, period, intake: intake.clone() };
        let (bus, runner, options) = (Arc::clone(&self.bus), self.runner.clone(), live.dispatcher.subscribe());
        if redis {
            supervisor.start("dispatcher", dispatcher::run(bus, runner, options, outputs, lifetime));
        }

        let schedule = live.dispatcher.borrow().services.of(&self.runner.projects().current());
        let first_run = match self.settings.scheduler.first_run {
            FirstRun::Immediate => crate::schedule::FirstSlot::Now,
            FirstRun::Due => crate::schedule::FirstSlot::WhereMissed,
            FirstRun::NextSlot => crate::schedule::FirstSlot::AfterInterval,
        };
        let parallel = NonZeroUsize::new(self.settings.scheduler.max_parallel).unwrap_or(NonZeroUsize::MIN);
        let (bus, runner, intake) = (self.bus, self.runner, intake.clone());
        supervisor.start("scheduler", async move {
            let started = async {
                let seeder =
                    if redis { Some(first_look(bus.as_ref(), seeder, &schedule, &intervals).await) } else { None };
                recover(&runner).await;
                seeder
            };
            let seeder = tokio::select! {
                () = intake.cancelled() => return,
                seeder = started => seeder,
            };
            let runs = scheduler::run(runner, intervals.subscribe(), first_run, parallel, work, intake.clone());
            let seeding = async {
                if let Some(seeder) = seeder {
                    seeder.run(epoch, period, intake).await;
                }
            };
            tokio::join!(runs, seeding);
        });
        live
    }

    fn monitor(&self) -> monitor::Options {
        monitor::Options {
            own: self.own_source.clone(),
            sources: sources(&self.settings),
            overdue_factor: self.settings.health.overdue_factor,
            remind: self.settings.health.remind,
            status_ttl: self.settings.health.status_ttl,
        }
    }
}

/// What the components are told of the settings, and can be told anew while they run.
pub(super) struct Live<K, B> {
    runner: Runner<K, B>,
    intervals: watch::Sender<Arc<Intervals>>,
    problems: watch::Sender<Problems>,
    monitor: watch::Sender<Arc<monitor::Options>>,
    dispatcher: watch::Sender<Arc<dispatcher::Options>>,
    redis: bool,
    own_service: Option<ServiceName>,
    /// When components look at what may have changed: from then on, at this period.
    pub(super) looks: (Instant, Duration),
}

/// The settings that count at once where they change; all others count from the next start on.
const LIVE: [&str; 10] = [
    "preset",
    "services",
    "actions",
    "reactions",
    "config_changes",
    "commands.profiles",
    "commands.deny",
    "runs.timeout",
    "runs.tail",
    "runs.keep_output",
];

/// Whether a change of the setting at `path` counts at once.
pub(super) fn is_live(path: &str) -> bool {
    LIVE.iter().any(|live| path == *live || path.strip_prefix(live).is_some_and(|below| below.starts_with('.')))
}

impl<K: Backend, B: Bus> Live<K, B> {
    /// The intervals that are in force.
    pub(super) fn intervals(&self) -> watch::Receiver<Arc<Intervals>> {
        self.intervals.subscribe()
    }

    /// Reads the Compose files again, where they changed; what is wrong with them as they are now.
    pub(super) fn look_at_project(&self) -> Option<String> {
        self.runner.projects().current();
        self.runner.broken_project()
    }

    /// Says on the daemon's status what is wrong with the settings.
    pub(super) fn complain(&self, fault: Option<&str>) {
        let faults = fault.map(|fault| format!("settings not usable: {fault}")).into_iter().collect();
        self.problems.send_modify(|problems| drop(problems.insert("settings", faults)));
    }

    /// Puts changed settings in force, as far as that can be done. What goes on, goes on as it began.
    pub(super) fn apply(&self, settings: &Settings) {
        self.runner.reconfigure(super::runner_options(settings));
        let monitor =
            monitor::Options { sources: sources(settings), ..monitor::Options::clone(&self.monitor.borrow()) };
        self.monitor.send_replace(Arc::new(monitor));
        let now = Arc::new(dispatcher_options(settings, self.own_service.as_ref()));
        let before = self.dispatcher.send_replace(Arc::clone(&now));
        // With Redis the dispatcher does this, because its schedule has the last word.
        if !self.redis {
            self.intervals.send_if_modified(|current| {
                let wanted = dispatcher::rebased_intervals(&before.services, &now.services, current);
                let changed = **current != wanted;
                if changed {
                    *current = Arc::new(wanted);
                }
                changed
            });
        }
    }
}

fn sources(settings: &Settings) -> BTreeMap<ServiceName, SourceId> {
    settings.services.iter().filter_map(|(name, own)| Some((name.clone(), own.status.clone()?))).collect()
}

fn dispatcher_options(settings: &Settings, own_service: Option<&ServiceName>) -> dispatcher::Options {
    dispatcher::Options {
        actions: settings.actions.clone(),
        reactions: settings.reactions.clone(),
        config_changes: settings.config_changes.clone(),
        services: poll_services(settings, own_service),
        max_in_flight: settings.commands.max_in_flight,
        reply_ttl: settings.commands.reply_ttl,
    }
}

fn poll_services(settings: &Settings, own_service: Option<&ServiceName>) -> PollServices {
    let commands = &settings.commands;
    let permissions = Permissions {
        profiles: commands.profiles.iter().cloned().collect(),
        deny: commands.deny.iter().cloned().collect(),
        own: own_service.cloned(),
    };
    let services = settings.services.iter();
    let on_command = services.filter(|(_, own)| !own.is_scheduled()).map(|(name, _)| name.clone()).collect();
    let intervals = settings.intervals().into_iter();
    let scheduled = intervals.map(|(service, default)| {
        let key = settings.service(&service).schedule_key.to_owned();
        (service, Scheduled { key, default, by_settings: true })
    });
    PollServices { scheduled: scheduled.collect(), on_command, permissions }
}

/// Seeds, and reads the schedule, before anything runs. Redis may be away: then the settings count until it is back.
async fn first_look<B: Bus>(
    bus: &B,
    mut seeder: Seeder<B>,
    schedule: &ScheduledServices,
    intervals: &watch::Sender<Arc<Intervals>>,
) -> Seeder<B> {
    let mut connection = bus.connection();
    let up = connection.wait_for(Connection::is_up);
    if !matches!(timeout(REDIS_FIRST, up).await, Ok(Ok(_))) {
        warn!("starting without redis");
        return seeder;
    }
    if let Err(error) = seeder.seed().await {
        warn!(error = %Chain(&error), "config not seeded");
    }
    match bus.get(&[config_key(SCHEDULE)]).await {
        Ok(found) => {
            if let Some(text) = found.into_iter().flatten().next() {
                let wanted = dispatcher::wanted_intervals(&text, schedule, &intervals.borrow());
                intervals.send_if_modified(|current| {
                    let changed = **current != wanted;
                    if changed {
                        *current = Arc::new(wanted);
                    }
                    changed
                });
            }
        }
        Err(error) => warn!(error = %Chain(&error), "schedule not read"),
    }
    seeder
}

/// Cleans up after an earlier life, for as long as it takes the Engine to answer.
async fn recover<K: Backend, B: Bus>(runner: &Runner<K, B>) {
    let mut told = false;
    while let Err(error) = runner.recover().await {
        if !told {
            warn!(error = %Chain(&error), "engine not there yet, trying on");
            told = true;
        }
        tokio::time::sleep(RETRY).await;
    }
    if told {
        info!("engine is there");
    }
}
