//! Starts each scheduled service's runs when they are due: one timer, no wake-ups between slots.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::event::{Event, Skip};
use crate::names::ServiceName;
use crate::observer::Events;
use crate::record::Reason;
use crate::report::Trigger;
use crate::runner::{RunError, RunRequest, Runner};
use crate::schedule::{Change, FirstSlot, Intervals, Slot, Timetable};
use crate::upcoming::Upcoming;

/// Starts what is due until the intake closes.
///
/// At the start everything is due, or after its interval where `first` says so. At most `parallel` scheduled runs go on at
/// once: the others wait in the order of their due times. A slot whose service is still waiting or running is skipped.
/// Every slot has an event that says what became of it: its run's end, or why there was none.
/// A paused service's slots are skipped. `intervals` replaces the timetable's intervals whenever it changes; services whose
/// interval stays keep their grid.
pub async fn run<K: Backend, B: Bus>(
    runner: Runner<K, B>,
    mut intervals: watch::Receiver<Arc<Intervals>>,
    upcoming: Upcoming,
    first: FirstSlot,
    parallel: NonZeroUsize,
    work: TaskTracker,
    intake: CancellationToken,
) {
    *upcoming.timetable() = Timetable::new(first, runner.history().last_slots());
    let launcher = Launcher {
        events: runner.events().clone(),
        runner,
        permits: Arc::new(Semaphore::new(parallel.get())),
        state: Arc::default(),
        work,
        intake: intake.clone(),
    };
    let wanted = Intervals::clone(&intervals.borrow_and_update());
    for change in launcher.follow(wanted, &upcoming) {
        launcher.events.emit(&Event::Scheduled { change });
    }
    loop {
        let due = upcoming.timetable().due(upcoming.now());
        for slot in due {
            launcher.launch(slot, upcoming.now());
        }
        let next = upcoming.timetable().next_wake().map(|at| upcoming.instant(at));
        tokio::select! {
            biased;
            () = intake.cancelled() => return,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            changed = intervals.changed() => {
                if changed.is_err() {
                    // Nobody can change the intervals any more: they stay as they are.
                    intake.cancelled().await;
                    return;
                }
                let wanted = Intervals::clone(&intervals.borrow_and_update());
                for change in launcher.follow(wanted, &upcoming) {
                    launcher.events.emit(&Event::ScheduleChanged { change });
                }
            }
        }
    }
}

/// What became of a service's last slot, while it is not done.
#[derive(Debug, Clone, Copy)]
enum Pending {
    /// It waits for one of the runs that go on to end.
    Waits { since: Instant },
    /// Its run goes on.
    Runs { since: Instant },
}

/// What a slot waits for where all places are taken.
const PLACES: &str = "max_parallel";

/// What the runs of earlier slots are doing.
#[derive(Debug, Default)]
struct State {
    /// The slots that are not done, by service.
    pending: BTreeMap<ServiceName, Pending>,
    /// Services that the project lacks, so that one warning is enough.
    unknown: BTreeSet<ServiceName>,
}

struct Launcher<K, B> {
    events: Events,
    runner: Runner<K, B>,
    permits: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
    work: TaskTracker,
    intake: CancellationToken,
}

impl<K: Backend, B: Bus> Launcher<K, B> {
    /// Goes by other intervals from now on; tells what changed, and enters what was missed.
    fn follow(&self, wanted: Intervals, upcoming: &Upcoming) -> Vec<Change> {
        let mut timetable = upcoming.timetable();
        let changes = timetable.update(wanted, upcoming.now());
        for (service, missed) in timetable.take_missed() {
            self.runner.history().miss(&service, missed);
        }
        changes
    }

    /// Sees to a slot that is due. It is in the ledger before anything else is done: with its run, or as skipped.
    fn launch(&self, slot: Slot, now: Duration) {
        let Slot { service, at, missed } = slot;
        let history = self.runner.history();
        let slot = Timestamp(Timestamp::now().0 - now.saturating_sub(at).as_secs_f64());
        self.events.emit(&Event::SlotDue { service: service.clone(), slot });
        let pending = lock(&self.state).pending.get(&service).copied();
        let paused = history.ledger.paused(&service) == Some(true);
        let why = match pending {
            _ if paused => Some(Skip::Paused),
            None => None,
            Some(Pending::Waits { since }) => Some(Skip::Waiting { waits_for: PLACES, since: since.elapsed() }),
            Some(Pending::Runs { since }) => {
                Some(Skip::Running { run_id: self.runner.running(&service), since: since.elapsed() })
            }
        };
        if let Some(missed) = missed {
            history.miss(&service, missed);
        }
        if let Some(why) = why {
            let reason = if paused { Reason::Paused } else { Reason::Busy };
            history.skip(&service, slot, reason);
            return self.events.emit(&Event::SlotSkipped { service, why });
        }
        let request = RunRequest { slot: Some(slot), ..RunRequest::new(service.clone(), Trigger::Schedule) };
        let accepted = match self.runner.accept(request) {
            Ok(accepted) => accepted,
            Err(refused) => {
                history.skip(&service, slot, Reason::UnknownService);
                let why = skip(&service, Instant::now(), Some(refused), &mut lock(&self.state).unknown);
                return why.into_iter().for_each(|why| {
                    self.events.emit(&Event::SlotSkipped { service: service.clone(), why });
                });
            }
        };
        let due = Instant::now();
        lock(&self.state).pending.insert(service.clone(), Pending::Waits { since: due });
        if self.permits.available_permits() == 0 {
            self.events.emit(&Event::SlotQueued { service: service.clone(), waits_for: PLACES });
        }
        let (runner, permits, state) = (self.runner.clone(), Arc::clone(&self.permits), Arc::clone(&self.state));
        let (intake, events) = (self.intake.clone(), self.events.clone());
        let span = info_span!("slot", %service);
        self.work.spawn(
            async move {
                let permit = tokio::select! {
                    biased;
                    () = intake.cancelled() => None,
                    permit = permits.acquire() => permit.ok(),
                };
                let refused = if permit.is_some() {
                    lock(&state).pending.insert(service.clone(), Pending::Runs { since: Instant::now() });
                    // Apart, so that a slot that waits holds no room for a run.
                    Box::pin(runner.run_accepted(accepted)).await.err()
                } else {
                    runner.give_up(accepted, &RunError::ShuttingDown);
                    Some(RunError::ShuttingDown)
                };
                let mut state = lock(&state);
                if let Some(why) = skip(&service, due, refused, &mut state.unknown) {
                    events.emit(&Event::SlotSkipped { service: service.clone(), why });
                }
                state.pending.remove(&service);
            }
            .instrument(span),
        );
    }
}

/// Why a slot gave no run, where it gave none.
fn skip(
    service: &ServiceName,
    due: Instant,
    refused: Option<RunError>,
    unknown: &mut BTreeSet<ServiceName>,
) -> Option<Skip> {
    match refused {
        None => {
            unknown.remove(service);
            None
        }
        Some(RunError::UnknownService(_)) => Some(Skip::UnknownService { repeated: !unknown.insert(service.clone()) }),
        Some(RunError::ShuttingDown) => Some(Skip::ShuttingDown { waited: due.elapsed() }),
        Some(error @ (RunError::Busy { .. } | RunError::Removing(_))) => Some(Skip::Busy { error: error.to_string() }),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
