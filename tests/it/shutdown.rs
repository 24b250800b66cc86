//! Both stages of shutdown.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use sense_orchestrator::supervisor::{ABORT_LIMIT, Supervisor, SupervisorError};
use tokio::time::{Instant, sleep};

use crate::support::log::Log;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(30);

/// Signals at these seconds after the start, and none after.
fn signals(at: &'static [u64]) -> impl stream::Stream<Item = &'static str> {
    let origin = Instant::now();
    stream::iter(at)
        .then(move |seconds| async move {
            tokio::time::sleep_until(origin + Duration::from_secs(*seconds)).await;
            "SIGTERM"
        })
        .chain(stream::pending())
}

/// A component that ends with the intake, and work that takes some seconds, or until it is aborted.
fn supervisor(seconds: u64) -> Supervisor {
    let mut supervisor = Supervisor::new();
    let stages = supervisor.stages();
    let intake = stages.intake.clone();
    supervisor.start("component", async move { intake.cancelled().await });
    supervisor.work().spawn(async move {
        tokio::select! {
            () = sleep(Duration::from_secs(seconds)) => {}
            () = stages.abort.cancelled() => sleep(2 * SECOND).await,
        }
    });
    supervisor
}

#[tokio::test(start_paused = true)]
async fn work_in_progress_may_end() {
    let begun = Instant::now();
    supervisor(20).run(signals(&[5]), GRACE, Vec::new).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn work_is_aborted_after_the_grace_period() {
    let begun = Instant::now();
    supervisor(999).run(signals(&[5]), GRACE, Vec::new).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 5 + 30 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_does_not_wait() {
    let begun = Instant::now();
    supervisor(999).run(signals(&[5, 9]), GRACE, Vec::new).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 9 + 2);
}

#[tokio::test(start_paused = true)]
async fn signals_within_a_second_of_the_first_are_the_first() {
    let begun = Instant::now();
    supervisor(20).run(signals(&[5, 5, 6]), GRACE, Vec::new).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 20, "what runs may end");
    let begun = Instant::now();
    supervisor(999).run(signals(&[5, 5, 7]), GRACE, Vec::new).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 7 + 2, "a later one counts");
}

#[tokio::test(start_paused = true)]
async fn what_the_shutdown_waits_for_is_named_every_few_seconds() {
    let log = Log::capture();
    let services = || vec!["backup".parse().unwrap(), "probe".parse().unwrap()];
    supervisor(18).run(signals(&[1]), GRACE, services).await.unwrap();
    let lines = log.lines("still running");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| line["services"] == "backup, probe" && line["running"] == 1), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_end_at_all_does_not_hold_up_the_process() {
    let supervisor = supervisor(1);
    supervisor.work().spawn(std::future::pending::<()>());
    let begun = Instant::now();
    supervisor.run(signals(&[5]), GRACE, Vec::new).await.unwrap();
    assert_eq!(begun.elapsed(), 5 * SECOND + GRACE + ABORT_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_component_that_ends_by_itself_ends_the_daemon_with_an_error() {
    let mut supervisor = supervisor(10);
    supervisor.start("frail", sleep(3 * SECOND));
    let begun = Instant::now();
    let error = supervisor.run(signals(&[]), GRACE, Vec::new).await.unwrap_err();
    assert!(matches!(error, SupervisorError::Ended("frail")), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10, "what runs may still end");
}
