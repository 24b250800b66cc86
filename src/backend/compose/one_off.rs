//! The life of a one-off container: created, started, waited for, and removed, whatever happens in between.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::execute;
use crate::backend::{Bounds, End, Failure, Finished};
use crate::clock::Timestamp;
use crate::engine::{Engine, EngineError, RemoveContainer};
use crate::plan::{Call, DEFAULT_GRACE, Plan};
use crate::report::Chain;

/// First and longest pause between two tries of a call that the Engine did not answer.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// How long the Engine may still be at a create whose answer was lost. It carries the request out all the same.
const LATE_CREATE: Duration = Duration::from_secs(10);

/// Time between two looks for such a container.
const LATE_LOOK: Duration = Duration::from_millis(250);

/// Longest that a container may take to end at its stop signal while the daemon shuts down.
const ABORT_GRACE: Duration = Duration::from_secs(10);

/// A run as a one-off container.
#[derive(Debug)]
pub struct OneOffRun {
    pub(super) container: String,
    /// Time between stop signal and kill.
    grace: Duration,
    /// Why it was not started, where it was not.
    not_started: Option<Unstarted>,
}

/// Why a container was not started.
#[derive(Debug)]
struct Unstarted {
    end: End,
    /// The Engine may still carry out what it was asked for last.
    unanswered: bool,
}

impl OneOffRun {
    /// A container that an earlier life of the daemon made.
    pub(super) fn found(container: String) -> Self {
        Self { container, grace: DEFAULT_GRACE, not_started: None }
    }
}

/// Carries out the plan that creates and starts a run's container, which may take `grace` to stop.
pub(super) async fn begin<E: Engine>(engine: &E, plan: &Plan, grace: Duration, bounds: &Bounds) -> OneOffRun {
    let created = plan.steps.iter().find_map(|step| match &step.call {
        Call::CreateContainer(container) => Some(container.name.clone()),
        _ => None,
    });
    let container = created.unwrap_or_default();
    let not_started = create_and_start(engine, plan, bounds).await.err();
    if not_started.is_none() {
        debug!(container, "container started");
    }
    OneOffRun { container, grace, not_started }
}

/// Waits for the end of a run's container, stops what still runs, and keeps what a failure left to read.
pub(super) async fn finish<E: Engine>(engine: &E, run: &mut OneOffRun, bounds: &Bounds) -> Finished {
    let end = match run.not_started.take() {
        None => await_end(engine, &run.container, bounds).await,
        Some(Unstarted { end, unanswered }) => {
            if unanswered {
                await_late_create(engine, &run.container).await;
            }
            end
        }
    };
    collect(engine, run, end, bounds).await
}

/// Since when a found container runs; notes its own grace period.
pub(super) async fn started_at<E: Engine>(engine: &E, run: &mut OneOffRun) -> Option<Timestamp> {
    let found = match engine.container(&run.container).await {
        Ok(found) => found.unwrap_or_default(),
        Err(error) => {
            warn!(container = run.container, error = %Chain(&error), "start of an adopted run not known");
            return None;
        }
    };
    let grace = found.config.and_then(|config| config.stop_timeout).and_then(|seconds| u64::try_from(seconds).ok());
    run.grace = grace.map_or(DEFAULT_GRACE, Duration::from_secs);
    found.state.and_then(|state| Timestamp::from_rfc3339(&state.started_at?))
}

/// Creates and starts the container.
async fn create_and_start<E: Engine>(engine: &E, plan: &Plan, bounds: &Bounds) -> Result<(), Unstarted> {
    for step in &plan.steps {
        if bounds.abort.is_cancelled() {
            return Err(Unstarted { end: End::Cancelled, unanswered: false });
        }
        if bounds.deadline <= Instant::now() {
            return Err(Unstarted { end: End::TooLate, unanswered: false });
        }
        let failure = tokio::select! {
            biased;
            done = execute::step(engine, step) => match done {
                Ok(()) => continue,
                Err(failure) => failure,
            },
            () = bounds.abort.cancelled() => return Err(Unstarted { end: End::Cancelled, unanswered: true }),
            () = sleep_until(bounds.deadline) => return Err(Unstarted { end: End::TooLate, unanswered: true }),
        };
        let unanswered = matches!(failure, Failure::Engine { source: EngineError::Unavailable { .. }, .. });
        return Err(Unstarted { end: End::Failed(failure), unanswered });
    }
    Ok(())
}

/// Waits until a container is there whose create was not answered, or until it will not come any more.
async fn await_late_create<E: Engine>(engine: &E, name: &str) {
    let mut absent_since = None;
    loop {
        match engine.container(name).await {
            Ok(Some(_)) => return,
            Ok(None) if absent_since.get_or_insert_with(Instant::now).elapsed() >= LATE_CREATE => return,
            Ok(None) => {}
            Err(error) => debug!(container = name, error = %Chain(&error), "not known whether it was created"),
        }
        sleep(LATE_LOOK).await;
    }
}

/// Waits for the end of a started container, over restarts and faults of the Engine.
async fn await_end<E: Engine>(engine: &E, name: &str, bounds: &Bounds) -> End {
    let (mut pause, mut told) = (RETRY_FIRST, false);
    loop {
        let answer = tokio::select! {
            biased;
            () = bounds.abort.cancelled() => return End::Cancelled,
            answer = engine.wait_container(name) => answer,
            () = sleep_until(bounds.deadline) => return End::TimedOut,
        };
        match answer {
            Ok(code) => return End::Exited(code),
            Err(source @ (EngineError::NotFound { .. } | EngineError::Conflict { .. })) => {
                return End::Failed(Failure::Engine { step: format!("follow container {name}"), source });
            }
            // The container may be well: its limit ends the tries.
            Err(error @ (EngineError::Unavailable { .. } | EngineError::Call { .. })) if told => {
                debug!(container = name, error = %Chain(&error), "engine lost while a container runs");
            }
            Err(error @ (EngineError::Unavailable { .. } | EngineError::Call { .. })) => {
                told = true;
                warn!(container = name, error = %Chain(&error), "engine lost while a container runs");
            }
        }
        tokio::select! {
            () = bounds.abort.cancelled() => return End::Cancelled,
            () = sleep(pause) => {}
            () = sleep_until(bounds.deadline) => return End::TimedOut,
        }
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// Stops what still runs, and keeps what a failure left to read.
async fn collect<E: Engine>(engine: &E, run: &OneOffRun, end: End, bounds: &Bounds) -> Finished {
    let name = &run.container;
    let mut finished = Finished { end, tail: String::new(), out_of_memory: false };
    if !matches!(finished.end, End::Exited(_)) {
        stop(engine, run, bounds).await;
    }
    if !matches!(finished.end, End::Exited(0)) {
        match engine.container(name).await {
            Ok(Some(found)) => {
                finished.out_of_memory = found.state.and_then(|state| state.oom_killed).unwrap_or(false);
                match engine.logs_tail(name, bounds.tail).await {
                    Ok(tail) => finished.tail = tail,
                    Err(error) => debug!(container = name, error = %Chain(&error), "no output to keep"),
                }
            }
            // Never created, or removed by somebody else.
            Ok(None) => {}
            Err(error) => debug!(container = name, error = %Chain(&error), "no output to keep"),
        }
    }
    finished
}

/// Stops a container with its grace period, then kills it. What fails here is left to the forced removal.
async fn stop<E: Engine>(engine: &E, run: &OneOffRun, bounds: &Bounds) {
    let (name, grace) = (run.container.as_str(), run.grace);
    let stopping = async {
        tokio::select! {
            stopped = engine.stop_container(name, grace) => stopped,
            // A container with a long grace period must not hold up the daemon's own.
            () = async { bounds.abort.cancelled().await; sleep(ABORT_GRACE).await } => engine.kill_container(name).await,
        }
    };
    // The Engine kills after the grace period by itself; if it does not come back from that, removal kills again.
    let stopped = timeout(grace.saturating_add(RETRY_LONGEST), stopping).await;
    match stopped {
        Ok(Ok(()) | Err(EngineError::NotFound { .. })) => {}
        Ok(Err(error)) => warn!(container = name, error = %Chain(&error), "container not stopped, killing it"),
        Err(_) => warn!(container = name, "container did not stop in its grace period, killing it"),
    }
}

/// Removes a container with its anonymous volumes, killing it where it still runs; tries until it is gone.
///
/// A create whose answer was lost may still be under way, so it is also gone only once the Engine says so.
pub(super) async fn remove<E: Engine>(engine: &E, name: &str) {
    let mut pause = RETRY_FIRST;
    let mut told = false;
    loop {
        let error = match engine.remove_container(name, RemoveContainer { force: true, volumes: true }).await {
            Ok(()) => match engine.container(name).await {
                Ok(None) => return,
                // Its removal is under way.
                Ok(Some(_)) => None,
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        if let Some(error) = error
            && !told
        {
            told = true;
            warn!(container = name, error = %Chain(&error), "container not removed yet, trying on");
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}
