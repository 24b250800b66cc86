//! Starts each scheduled service's runs when they are due: one timer, no wake-ups between slots.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::backend::Backend;
use crate::bus::Bus;
use crate::names::ServiceName;
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
        runner,
        permits: Arc::new(Semaphore::new(parallel.get())),
        state: Arc::default(),
        work,
        intake: intake.clone(),
    };
    let wanted = Intervals::clone(&intervals.borrow_and_update());
    for change in timetable.update(wanted, origin.elapsed()) {
        info!(change = %change, "scheduled");
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
                    info!(change = %change, "schedule changed");
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
    runner: Runner<K, B>,
    permits: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
    work: TaskTracker,
    intake: CancellationToken,
}

impl<K: Backend, B: Bus> Launcher<K, B> {
    fn launch(&self, slot: Slot) {
        let service = slot.service;
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(since) = state.busy.get(&service) {
                let running = self.runner.running(&service);
                let busy_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                warn!(%service, run_id = running.as_ref().map(tracing::field::display), busy_ms, "slot skipped, still running");
                return;
            }
            state.busy.insert(service.clone(), Instant::now());
        }
        let (runner, permits, state) = (self.runner.clone(), Arc::clone(&self.permits), Arc::clone(&self.state));
        let intake = self.intake.clone();
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
                    note(&service, ended.err(), &mut state);
                }
                state.lock().unwrap_or_else(PoisonError::into_inner).busy.remove(&service);
            }
            .instrument(span),
        );
    }
}

/// Tells of a slot that gave no run. A run that was started tells of itself.
fn note(service: &ServiceName, refused: Option<RunError>, state: &mut State) {
    match refused {
        None => {
            state.unknown.remove(service);
        }
        Some(RunError::UnknownService(_)) => {
            if state.unknown.insert(service.clone()) {
                warn!(%service, "slot skipped, the project has no such service");
            }
        }
        Some(RunError::ShuttingDown) => debug!(%service, "slot skipped, shutting down"),
        Some(error @ RunError::Busy { .. }) => warn!(%service, %error, "slot skipped, still running"),
    }
}
