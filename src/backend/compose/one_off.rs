//! The life of a one-off container: created, started, waited for, and removed, whatever happens in between.
//!
//! What a run came to is what the Engine says of its container: an answer that came late, or not at all, is looked up.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status};
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

/// How long the Engine may still be at a create or a start whose answer was lost. It carries the request out all the same;
/// a container that comes even later is found by the look round of each minute.
const LATE_CREATE: Duration = Duration::from_secs(10);
const LATE_START: Duration = Duration::from_secs(5);

/// Time between two looks for such a container.
const LATE_LOOK: Duration = Duration::from_millis(250);

/// Longest that a container may take to end at its stop signal while the daemon shuts down.
const ABORT_GRACE: Duration = Duration::from_secs(10);

/// What the Engine says of a container that ran while the Engine itself was killed.
const ENGINE_LOST: i64 = 255;

/// A run as a one-off container.
#[derive(Debug)]
pub struct OneOffRun {
    /// The container's name, or its id once it is known: somebody may rename it.
    container: String,
    /// Time between stop signal and kill; none while it is not known.
    grace: Option<Duration>,
    start: Start,
}

/// What is known of a container's start.
#[derive(Debug)]
enum Start {
    /// It was answered then.
    Answered(Timestamp),
    /// It failed, or its time was over.
    Not(End),
    /// The Engine may still carry out what it was asked for last.
    Unanswered { asked: Asked, end: End },
}

/// What the Engine was asked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Create,
    Start,
    /// The start was refused, which does not mean that it was not carried out.
    RefusedStart,
    /// By an earlier life of the daemon: either.
    Unknown,
}

impl OneOffRun {
    /// A container that an earlier life of the daemon made.
    pub(super) fn found(id: String) -> Self {
        Self { container: id, grace: None, start: Start::Unanswered { asked: Asked::Unknown, end: End::Interrupted } }
    }

    /// What the Engine is told: the id, or the name while that is not known.
    pub(super) fn container(&self) -> &str {
        &self.container
    }
}

/// Carries out the plan that creates and starts a run's container, which may take `grace` to stop.
pub(super) async fn begin<E: Engine>(engine: &E, plan: &Plan, grace: Duration, bounds: &Bounds) -> OneOffRun {
    let mut run = OneOffRun { container: String::new(), grace: Some(grace), start: Start::Not(End::Cancelled) };
    for step in &plan.steps {
        let asked = match &step.call {
            Call::CreateContainer(container) => {
                run.container.clone_from(&container.name);
                Asked::Create
            }
            Call::StartContainer { .. } => Asked::Start,
            _ => Asked::Unknown,
        };
        if bounds.is_cancelled() {
            return run;
        }
        if bounds.deadline <= Instant::now() {
            run.start = Start::Not(End::TooLate);
            return run;
        }
        let carried_out = async {
            if let Call::CreateContainer(container) = &step.call {
                let created = engine.create_container(container).await;
                return created.map(Some).map_err(|source| Failure::Engine { step: step.call.to_string(), source });
            }
            execute::step(engine, step).await.map(|()| None)
        };
        run.start = tokio::select! {
            biased;
            done = carried_out => match done {
                Ok(id) => {
                    // The steps that follow name the container, and what follows them its id.
                    if let Some(id) = id {
                        run.container = id;
                    }
                    continue;
                }
                Err(failure @ Failure::Engine { source: EngineError::Unavailable { .. }, .. }) => {
                    Start::Unanswered { asked, end: End::Failed(failure) }
                }
                Err(failure) if asked == Asked::Start => {
                    Start::Unanswered { asked: Asked::RefusedStart, end: End::Failed(failure) }
                }
                Err(failure) => Start::Not(End::Failed(failure)),
            },
            () = bounds.cancelled() => Start::Unanswered { asked, end: End::Cancelled },
            () = sleep_until(bounds.deadline) => Start::Unanswered { asked, end: End::TooLate },
        };
        return run;
    }
    debug!(container = run.container, "container started");
    run.start = Start::Answered(Timestamp::now());
    run
}

/// Waits for the end of a run's container, and stops it where its bounds say so.
pub(super) async fn finish<E: Engine>(engine: &E, run: &mut OneOffRun, bounds: &Bounds) -> Finished {
    let (started_at, late) = match std::mem::replace(&mut run.start, Start::Not(End::Interrupted)) {
        Start::Answered(at) => (Some(at), false),
        Start::Not(end) => return Finished::not_started(end),
        Start::Unanswered { asked, end } => match (await_late_start(engine, run, asked).await, end) {
            (None, end) => return Finished::not_started(end),
            // It goes on, whatever became of the answer.
            (Some(at), End::Failed(_) | End::Interrupted) => (Some(at), true),
            (Some(at), end) => {
                let end = if matches!(end, End::TooLate) { End::TimedOut } else { end };
                return settle(engine, run, Seen { end, lost: None, late: true }, Some(at), bounds).await;
            }
        },
    };
    let mut seen = await_end(engine, run.container(), bounds).await;
    seen.late |= late;
    settle(engine, run, seen, started_at, bounds).await
}

/// Since when the container runs or ran, where its create or its start may still be under way; none where it never did.
async fn await_late_start<E: Engine>(engine: &E, run: &mut OneOffRun, asked: Asked) -> Option<Timestamp> {
    let (mut absent_since, mut created_since) = (None, None);
    loop {
        match engine.container(run.container()).await {
            Ok(Some(found)) => {
                run.learn(&found);
                if let Some(started) = found.state.as_ref().and_then(started_at) {
                    return Some(started);
                }
                // By its own age too: else each life of a daemon that is killed again and again would wait anew.
                let made = found.created.as_deref().and_then(Timestamp::from_rfc3339);
                let old = made.is_some_and(|made| Timestamp::now().seconds_since(made) > LATE_START.as_secs_f64());
                let waits = !old && created_since.get_or_insert_with(Instant::now).elapsed() < LATE_START;
                if matches!(asked, Asked::Create | Asked::RefusedStart) || !waits {
                    return None;
                }
            }
            // One that is known by its id was there.
            Ok(None) if asked != Asked::Create => return None,
            Ok(None) if absent_since.get_or_insert_with(Instant::now).elapsed() >= LATE_CREATE => return None,
            Ok(None) => {}
            Err(error) => {
                debug!(container = run.container(), error = %Chain(&error), "not known whether it was started");
            }
        }
        sleep(LATE_LOOK).await;
    }
}

impl OneOffRun {
    /// Takes over what an inspection tells.
    fn learn(&mut self, found: &ContainerInspectResponse) {
        if let Some(id) = &found.id {
            self.container.clone_from(id);
        }
        if self.grace.is_none() {
            let seconds = found.config.as_ref().and_then(|config| u64::try_from(config.stop_timeout?).ok());
            self.grace = Some(seconds.map_or(DEFAULT_GRACE, Duration::from_secs));
        }
    }
}

/// When a container was started; none for one that never was.
fn started_at(state: &ContainerState) -> Option<Timestamp> {
    Timestamp::from_rfc3339(state.started_at.as_deref()?)
}

/// How the end of a container was learnt.
#[derive(Debug)]
struct Seen {
    end: End,
    /// When the Engine was lost first while the container ran, and when it was asked last.
    lost: Option<(Timestamp, Timestamp)>,
    /// The answer did not come at once: only an inspection tells what happened.
    late: bool,
}

/// Waits for the end of a started container, over restarts and faults of the Engine.
async fn await_end<E: Engine>(engine: &E, name: &str, bounds: &Bounds) -> Seen {
    let (mut pause, mut lost) = (RETRY_FIRST, None);
    let seen = |end, lost: Option<_>| Seen { end, late: lost.is_some() || bounds.deadline <= Instant::now(), lost };
    loop {
        if let Some((_, asked)) = &mut lost {
            *asked = Timestamp::now();
        }
        let answer = tokio::select! {
            biased;
            answer = engine.wait_container(name) => answer,
            () = bounds.cancelled() => return seen(End::Cancelled, lost),
            () = sleep_until(bounds.deadline) => return seen(End::TimedOut, lost),
        };
        match answer {
            Ok(code) => return seen(End::Exited(code), lost),
            Err(source @ (EngineError::NotFound { .. } | EngineError::Conflict { .. })) => {
                return seen(End::Failed(Failure::Engine { step: format!("follow container {name}"), source }), lost);
            }
            // The container may be well: its limit ends the tries.
            Err(error @ (EngineError::Unavailable { .. } | EngineError::Call { .. })) if lost.is_some() => {
                debug!(container = name, error = %Chain(&error), "engine lost while a container runs");
            }
            Err(error @ (EngineError::Unavailable { .. } | EngineError::Call { .. })) => {
                lost = Some((Timestamp::now(), Timestamp::now()));
                warn!(container = name, error = %Chain(&error), "engine lost while a container runs");
            }
        }
        tokio::select! {
            biased;
            () = bounds.cancelled() => return seen(End::Cancelled, lost),
            () = sleep_until(bounds.deadline) => return seen(End::TimedOut, lost),
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// Decides how a container ended, by the Engine's own words where its answer leaves room for doubt, and stops it where it
/// still runs.
async fn settle<E: Engine>(
    engine: &E,
    run: &mut OneOffRun,
    seen: Seen,
    started_at: Option<Timestamp>,
    bounds: &Bounds,
) -> Finished {
    if let (End::Exited(0), false) = (&seen.end, seen.late) {
        let finished_at = Some(Timestamp::now());
        return Finished { end: seen.end, started_at, finished_at, out_of_memory: false };
    }
    let (asked, since) = (Timestamp::now(), Instant::now());
    let mut found = inspect(engine, run, &seen).await;
    let mut stopped = false;
    if found.as_ref().is_some_and(is_running) && !matches!(seen.end, End::Exited(_)) {
        stop(engine, run, bounds).await;
        stopped = true;
        found = inspect(engine, run, &seen).await;
    }
    let Some(state) = found else {
        // Removed by somebody else: what is known is what was answered.
        let finished_at = Some(Timestamp::now());
        return Finished { end: seen.end, started_at, finished_at, out_of_memory: false };
    };
    let finished_at = state.finished_at.as_deref().and_then(Timestamp::from_rfc3339);
    // One that ended just before it was told to has ended by itself: by the clock as it was then and, should it have been
    // set since, as it is now.
    let asked = asked.0.min(Timestamp::now().0 - since.elapsed().as_secs_f64());
    let by_itself = !is_running(&state) && (!stopped || finished_at.is_some_and(|finished| finished.0 < asked));
    let end = match (seen.end, state.exit_code) {
        (_, Some(ENGINE_LOST)) if by_itself && died_with_the_engine(seen.lost, finished_at) => End::EngineLost,
        (_, Some(code)) if by_itself => End::Exited(code),
        (end, _) => end,
    };
    let out_of_memory = state.oom_killed.unwrap_or(false);
    Finished { end, started_at: self::started_at(&state).or(started_at), finished_at, out_of_memory }
}

/// An Engine that was killed finds, before it answers again, that a container is gone, and stamps its end with that moment.
fn died_with_the_engine(lost: Option<(Timestamp, Timestamp)>, finished_at: Option<Timestamp>) -> bool {
    matches!((lost, finished_at), (Some((lost, asked)), Some(finished)) if (lost..=asked).contains(&finished))
}

fn is_running(state: &ContainerState) -> bool {
    matches!(state.status, Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING))
}

/// The container's state; none where it is gone. Tries until the Engine answers, but for a code that is known already.
async fn inspect<E: Engine>(engine: &E, run: &mut OneOffRun, seen: &Seen) -> Option<ContainerState> {
    let (mut pause, mut warned) = (RETRY_FIRST, false);
    loop {
        match engine.container(run.container()).await {
            Ok(Some(found)) => {
                run.learn(&found);
                return found.state;
            }
            Ok(None) => return None,
            Err(error) => {
                if matches!(seen.end, End::Exited(_)) && !seen.late {
                    debug!(container = run.container(), error = %Chain(&error), "not known how the container ended");
                    return None;
                }
                if !std::mem::replace(&mut warned, true) {
                    let container = run.container();
                    warn!(container, error = %Chain(&error), "not known how the container ended, asking on");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// The last lines of a run's output; empty where there is none to be had.
pub(super) async fn tail<E: Engine>(engine: &E, run: &OneOffRun, limit: usize) -> String {
    match engine.logs_tail(run.container(), limit).await {
        Ok(tail) => tail,
        Err(error) => {
            debug!(container = run.container(), error = %Chain(&error), "no output to keep");
            String::new()
        }
    }
}

/// Stops a container with its grace period, then kills it. What fails here is left to the forced removal.
async fn stop<E: Engine>(engine: &E, run: &OneOffRun, bounds: &Bounds) {
    let (name, grace) = (run.container(), run.grace.unwrap_or(DEFAULT_GRACE));
    let stopping = async {
        tokio::select! {
            biased;
            stopped = engine.stop_container(name, grace) => stopped,
            // A container with a long grace period must not hold up the daemon's own.
            () = async { bounds.abort.cancelled().await; sleep(ABORT_GRACE).await } => engine.kill_container(name).await,
        }
    };
    // The Engine kills after the grace period by itself; if it does not come back from that, we do.
    let stopped = timeout(grace.saturating_add(RETRY_LONGEST), stopping).await;
    match stopped {
        Ok(Ok(()) | Err(EngineError::NotFound { .. })) => return,
        Ok(Err(error)) => warn!(container = name, error = %Chain(&error), "container not stopped, killing it"),
        Err(_) => warn!(container = name, "container did not stop in its grace period, killing it"),
    }
    if let Err(error) = engine.kill_container(name).await {
        debug!(container = name, error = %Chain(&error), "not killed, left to the removal");
    }
}

/// Removes a container with its anonymous volumes, killing it where it still runs; tries until it is gone.
///
/// A create whose answer was lost may still be under way, so it is also gone only once the Engine says so.
pub(super) async fn remove<E: Engine>(engine: &E, run: &OneOffRun) {
    let name = run.container();
    let mut pause = RETRY_FIRST;
    let mut warned = false;
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
            && !std::mem::replace(&mut warned, true)
        {
            warn!(container = name, error = %Chain(&error), "container not removed yet, trying on");
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}
