//! Scheduled runs: when they start, how many go on at once, and what a slot does whose service is still running.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::schedule::{FirstSlot, Interval, Intervals};
use sense_orchestrator::scheduler;
use sense_orchestrator::upcoming::Upcoming;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::support::engine::Script;
use crate::support::log::Log;
use crate::support::stack::{Stack, name};

const SECOND: Duration = Duration::from_secs(1);

const THREE: &str = "
name: p
services:
  a: {image: 'busybox:test', network_mode: none}
  b: {image: 'busybox:test', network_mode: none}
  c: {image: 'busybox:test', network_mode: none}
";

fn intervals(pairs: &[(&str, u64)]) -> Arc<Intervals> {
    let every = |seconds: u64| (seconds > 0).then(|| Interval::try_from(Duration::from_secs(seconds)).unwrap());
    Arc::new(pairs.iter().map(|(service, seconds)| (name(service), every(*seconds))).collect())
}

struct Scheduled {
    stack: Stack,
    intervals: watch::Sender<Arc<Intervals>>,
    work: TaskTracker,
    task: JoinHandle<()>,
}

fn schedule(stack: Stack, first: &[(&str, u64)], parallel: usize) -> Scheduled {
    let (sender, receiver) = watch::channel(intervals(first));
    let work = TaskTracker::new();
    let parallel = NonZeroUsize::new(parallel).unwrap();
    let intake = stack.stages.intake.clone();
    let task = tokio::spawn(scheduler::run(
        stack.runner.clone(),
        receiver,
        Upcoming::default(),
        FirstSlot::Now,
        parallel,
        work.clone(),
        intake,
    ));
    Scheduled { stack, intervals: sender, work, task }
}

impl Scheduled {
    /// Ends the scheduler and waits for its runs.
    async fn end(self) -> String {
        self.stack.stages.intake.cancel();
        self.task.await.unwrap();
        self.work.close();
        self.work.wait().await;
        assert!(self.stack.engine.container_names().is_empty());
        starts(&self.stack)
    }
}

/// The starts of the transcript so far, one a line.
fn starts(stack: &Stack) -> String {
    let transcript = stack.engine.transcript();
    transcript.lines().filter(|line| line.contains(" start ")).fold(String::new(), |text, line| text + line + "\n")
}

#[tokio::test(start_paused = true)]
async fn everything_runs_at_the_start_and_then_on_its_interval() {
    let scheduled = schedule(Stack::new(THREE), &[("a", 30), ("b", 60), ("c", 0)], 8);
    sleep(125 * SECOND).await;
    insta::assert_snapshot!(scheduled.end().await, @r"
      0s start a
      0s start b
     30s start a
     60s start a
     60s start b
     90s start a
    120s start a
    120s start b
    ");
}

#[tokio::test(start_paused = true)]
async fn a_slot_whose_service_still_runs_is_skipped_and_the_grid_stays() {
    let stack = Stack::new(THREE);
    stack.engine.script("a", Script::exits(0, 35 * SECOND));
    let scheduled = schedule(stack, &[("a", 30)], 8);
    sleep(100 * SECOND).await;
    insta::assert_snapshot!(scheduled.end().await, @r"
      0s start a
     60s start a
    ");
}

#[tokio::test(start_paused = true)]
async fn runs_over_the_limit_wait_in_the_order_of_their_slots_and_none_is_lost() {
    let stack = Stack::new(THREE);
    for service in ["a", "b", "c"] {
        stack.engine.script(service, Script::exits(0, 10 * SECOND));
    }
    let scheduled = schedule(stack, &[("a", 60), ("b", 60), ("c", 60)], 1);
    sleep(40 * SECOND).await;
    insta::assert_snapshot!(scheduled.end().await, @r"
      0s start a
     10s start b
     20s start c
    ");
}

#[tokio::test(start_paused = true)]
async fn new_intervals_count_at_once_and_leave_the_others_alone() {
    let scheduled = schedule(Stack::new(THREE), &[("a", 30), ("b", 30)], 8);
    sleep(5 * SECOND).await;
    scheduled.intervals.send(intervals(&[("a", 30), ("b", 10), ("c", 20)])).unwrap();
    sleep(30 * SECOND).await;
    scheduled.intervals.send(intervals(&[("a", 30), ("b", 0)])).unwrap();
    sleep(30 * SECOND).await;
    insta::assert_snapshot!(scheduled.end().await, @r"
      0s start a
      0s start b
      5s start c
     10s start b
     20s start b
     25s start c
     30s start a
     30s start b
     60s start a
    ");
}

#[tokio::test(start_paused = true)]
async fn a_failing_service_keeps_its_interval_and_the_others_go_on() {
    let stack = Stack::new(THREE);
    stack.engine.script("a", Script::exits(1, SECOND));
    let scheduled = schedule(stack, &[("a", 20), ("b", 20), ("nothing", 20)], 8);
    sleep(30 * SECOND).await;
    insta::assert_snapshot!(scheduled.end().await, @r"
      0s start a
      0s start b
     20s start a
     20s start b
    ");
}

#[tokio::test(start_paused = true)]
async fn a_closed_intake_ends_the_scheduler_and_drops_what_waits() {
    let stack = Stack::new(THREE);
    for service in ["a", "b", "c"] {
        stack.engine.script(service, Script::exits(0, 10 * SECOND));
    }
    let scheduled = schedule(stack, &[("a", 60), ("b", 60), ("c", 60)], 1);
    sleep(5 * SECOND).await;
    assert_eq!(scheduled.end().await, "  0s start a\n");
}

/// The lines that say why a service's slots gave no run, as `message why`.
fn skipped(log: &Log, service: &str) -> Vec<String> {
    let lines = log.text();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_service = lines.filter(|line| line["service"] == service);
    let messages = of_service.filter_map(|line| Some(line["message"].as_str()?.to_owned()));
    messages.filter(|message| message.starts_with("slot")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_waits_for_a_free_place_is_told_apart_from_one_whose_run_goes_on() {
    let log = Log::capture();
    let stack = Stack::new(THREE);
    stack.engine.script("a", Script::exits(0, 35 * SECOND));
    let scheduled = schedule(stack, &[("a", 20), ("b", 20)], 1);
    sleep(30 * SECOND).await;
    assert_eq!(skipped(&log, "a"), ["slot skipped, still running"]);
    assert_eq!(skipped(&log, "b"), ["slot skipped, still waiting"]);
    let waiting = &log.lines("slot skipped, still waiting")[0];
    assert_eq!((waiting["waits_for"].as_str(), waiting["waiting_ms"].as_u64()), (Some("max_parallel"), Some(20_000)));
    scheduled.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_waits_at_the_end_is_told() {
    let log = Log::capture();
    let stack = Stack::new(THREE);
    stack.engine.script("a", Script::exits(0, 10 * SECOND));
    let scheduled = schedule(stack, &[("a", 60), ("b", 60), ("c", 60)], 1);
    sleep(5 * SECOND).await;
    scheduled.end().await;
    for service in ["b", "c"] {
        assert_eq!(skipped(&log, service), ["slot skipped, shutting down"]);
    }
    assert_eq!(log.lines("slot skipped, shutting down")[0]["waited_ms"], 5000);
}

#[tokio::test(start_paused = true)]
async fn slots_that_passed_while_the_daemon_was_held_up_are_counted() {
    let log = Log::capture();
    let scheduled = schedule(Stack::new(THREE), &[("a", 10)], 8);
    sleep(5 * SECOND).await;
    // As after SIGSTOP: the clock goes on, and nothing of ours does.
    tokio::time::advance(47 * SECOND).await;
    sleep(SECOND).await;
    let missed = log.lines("slots missed, the daemon did not run");
    assert_eq!(missed.len(), 1, "{}", log.text());
    assert_eq!((missed[0]["service"].as_str(), missed[0]["missed"].as_u64()), (Some("a"), Some(4)));
    scheduled.end().await;
}
