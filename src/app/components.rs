//! The components as the settings describe them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::RETRY;
use super::live::{self, Live};
use crate::backend::Backend;
use crate::bus::{Bus, Connection};
use crate::dispatcher::{self, Lifetime, Outputs, ScheduledServices};
use crate::jobs::Jobs;
use crate::memory::MemoryBounds;
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
use crate::upcoming::Upcoming;

/// How long the start waits for Redis: what it says of the schedule should count from the first run on.
pub(super) const REDIS_FIRST: Duration = Duration::from_secs(3);

/// What all components are given.
pub(super) struct Parts<K, B> {
    /// Until when the start waits for Redis.
    pub(super) redis_by: Instant,
    pub(super) settings: Settings,
    pub(super) runner: Runner<K, B>,
    pub(super) bus: Arc<B>,
    pub(super) events: Events,
    pub(super) jobs: Jobs<K, B>,
    pub(super) intervals: watch::Sender<Arc<Intervals>>,
    pub(super) upcoming: Upcoming,
    /// Our own service, which no command may touch.
    pub(super) own_service: Option<ServiceName>,
    pub(super) bounds: MemoryBounds,
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
        let intervals = self.intervals.clone();
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
            dispatcher: watch::Sender::new(Arc::new(live::dispatcher(
                &self.settings,
                self.own_service.as_ref(),
                self.bounds.replies,
            ))),
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
        let jobs = self.jobs.clone();
        let lifetime = Lifetime { epoch, period, intake: intake.clone() };
        let (bus, runner, options) = (Arc::clone(&self.bus), self.runner.clone(), live.dispatcher.subscribe());
        if redis {
            supervisor.start("dispatcher", dispatcher::run(bus, runner, jobs, options, outputs, lifetime));
        }

        let schedule = live.dispatcher.borrow().services.of(&self.runner.projects().current());
        let first_run = match self.settings.scheduler.first_run {
            FirstRun::Immediate => crate::schedule::FirstSlot::Now,
            FirstRun::Due => crate::schedule::FirstSlot::WhereMissed,
            FirstRun::NextSlot => crate::schedule::FirstSlot::AfterInterval,
        };
        let parallel = NonZeroUsize::new(self.settings.scheduler.max_parallel).unwrap_or(NonZeroUsize::MIN);
        let (bus, runner, upcoming, intake) = (self.bus, self.runner, self.upcoming, intake.clone());
        let redis_by = self.redis_by;
        supervisor.start("scheduler", async move {
            let started = async {
                let seeder = if redis {
                    Some(first_look(bus.as_ref(), seeder, &schedule, &intervals, redis_by).await)
                } else {
                    None
                };
                recover(&runner).await;
                seeder
            };
            let seeder = tokio::select! {
                biased;
                () = intake.cancelled() => return,
                seeder = started => seeder,
            };
            let runs =
                scheduler::run(runner, intervals.subscribe(), upcoming, first_run, parallel, work, intake.clone());
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
            sources: live::sources(&self.settings),
            overdue_factor: self.settings.health.overdue_factor,
            remind: self.settings.health.remind,
            status_ttl: self.settings.health.status_ttl,
        }
    }
}

/// Seeds, and reads the schedule, before anything runs. Redis may be away: then the settings count until it is back.
async fn first_look<B: Bus>(
    bus: &B,
    mut seeder: Seeder<B>,
    schedule: &ScheduledServices,
    intervals: &watch::Sender<Arc<Intervals>>,
    redis_by: Instant,
) -> Seeder<B> {
    let mut connection = bus.connection();
    let up = connection.wait_for(Connection::is_up);
    if !matches!(timeout_at(redis_by, up).await, Ok(Ok(_))) {
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
