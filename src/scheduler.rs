//! Starts each scheduled service's runs when they are due: one timer, no wake-ups between slots.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::backend::Backend;
use crate::bus::Bus;
use crate::event::{Event, Skip};
use crate::names::ServiceName;
use crate::observer::Events;
use crate::report::Trigger;
use crate::runner::{RunError, RunRequest, Runner};
use crate::schedule::{FirstSlot, Intervals, Slot, Timetable};

/// Starts what is due until the intake closes.
///
/// At the start everything is due, or after its interval where `first` says so. At most `parallel` scheduled runs go on at
/// once: the others wait in the order of their due times. A slot whose service is still waiting or running is skipped.
/// `intervals` replaces the timetable's intervals whenever it changes; services whose interval stays keep their grid.
pub async fn run<K: Backend, B: Bus>(
    runner: Runner<K, B>,
    mut intervals: watch::Receiver<Arc<Intervals>>,
    first: FirstSlot,
    parallel: NonZeroUsize,
    work: TaskTracker,
    intake: CancellationToken,
) {
    let origin = Instant::now();
    let mut timetable = Timetable::new(first);
    let launcher = Launcher {
        events: runner.events().clone(),
        runner,
        permits: Arc::new(Semaphore::new(parallel.get())),
        state: Arc::default(),
        work,
        intake: intake.clone(),
    };
    let wanted = Intervals::clone(&intervals.borrow_and_update());
    for change in timetable.update(wanted, origin.elapsed()) {
        launcher.events.emit(&Event::Scheduled { change });
    }
    loop {
        for slot in timetable.due(origin.elapsed()) {
            launcher.launch(slot);
        }
        let next = timetable.next_wake().map(|at| origin + at);
        tokio::select! {
            () = intake.cancelled() => return,
            () = sleep_until(next.unwrap_or(origin)), if next.is_some() => {}
            changed = intervals.changed() => {
                if changed.is_err() {
                    // Nobody can change the intervals any more: they stay as they are.
                    intake.cancelled().await;
                    return;
                }
                let wanted = Intervals::clone(&intervals.borrow_and_update());
                for change in timetable.update(wanted, origin.elapsed()) {
                    launcher.events.emit(&Event::ScheduleChanged { change });
                }
            }
        }
    }
}

/// What the runs of earlier slots are doing.
#[derive(Debug, Default)]
struct State {
    /// Services whose scheduled run waits for a permit or goes on, and since when.
    busy: BTreeMap<ServiceName, Instant>,
    /// Services that the project lacks, so that it is said once.
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
    fn launch(&self, slot: Slot) {
        let service = slot.service;
        self.events.emit(&Event::SlotDue { service: service.clone() });
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(since) = state.busy.get(&service) {
                let running = self.runner.running(&service);
                let why = Skip::Running { run_id: running, since: since.elapsed() };
                return self.events.emit(&Event::SlotSkipped { service, why });
            }
            state.busy.insert(service.clone(), Instant::now());
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
                if permit.is_some() {
                    let request = RunRequest {
                        service: service.clone(),
                        trigger: Trigger::Schedule,
                        environment: BTreeMap::new(),
                        results: Vec::new(),
                    };
                    // Apart, so that a slot that waits holds no room for a run.
                    let ended = Box::pin(runner.run(request)).await;
                    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    note(&events, &service, ended.err(), &mut state);
                }
                state.lock().unwrap_or_else(PoisonError::into_inner).busy.remove(&service);
            }
            .instrument(span),
        );
    }
}

/// Tells of a slot that gave no run. A run that was started tells of itself.
fn note(events: &Events, service: &ServiceName, refused: Option<RunError>, state: &mut State) {
    let why = match refused {
        None => {
            state.unknown.remove(service);
            return;
        }
        Some(RunError::UnknownService(_)) => Skip::UnknownService { repeated: !state.unknown.insert(service.clone()) },
        Some(RunError::ShuttingDown) => Skip::ShuttingDown { waited: std::time::Duration::ZERO },
        Some(error @ RunError::Busy { .. }) => Skip::Busy { error: error.to_string() },
    };
    events.emit(&Event::SlotSkipped { service: service.clone(), why });
}
