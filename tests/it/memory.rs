//! What the ledger says of every slot, run and command, over the daemon's lives.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::ledger::{Ledger, Query};
use sense_orchestrator::record::{Reason, Record, State};
use sense_orchestrator::report::Trigger;
use sense_orchestrator::runner::RunRequest;
use sense_orchestrator::schedule::{FirstSlot, Interval, Intervals};
use sense_orchestrator::scheduler;
use sense_orchestrator::upcoming::Upcoming;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::engine::{Fault, Script};
use crate::support::stack::{PLAIN, Stack, name};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

const THREE: &str = "
name: p
services:
  a: {image: 'busybox:test', network_mode: none}
  b: {image: 'busybox:test', network_mode: none}
  c: {image: 'busybox:test', network_mode: none}
";

/// All records, oldest first.
async fn records(ledger: &Ledger) -> Vec<Record> {
    let mut records = ledger.page(Query { limit: 1000, ..Query::default() }).await.records;
    records.reverse();
    records
}

async fn states(ledger: &Ledger) -> Vec<(String, State, Option<Reason>)> {
    let told = |record: Record| (record.job.to_string(), record.state, record.reason);
    records(ledger).await.into_iter().map(told).collect()
}

/// A scheduler over the stack, until it is stopped or killed.
struct Life {
    _intervals: watch::Sender<Arc<Intervals>>,
    task: JoinHandle<()>,
}

fn live(stack: &Stack, every: &[(&str, Duration)], first: FirstSlot, parallel: usize) -> Life {
    let intervals: BTreeMap<_, _> =
        every.iter().map(|(service, every)| (name(service), Some(Interval::try_from(*every).unwrap()))).collect();
    let (sender, receiver) = watch::channel(Arc::new(intervals));
    let (runner, work, intake) = (stack.runner.clone(), stack.stages.work.clone(), stack.stages.intake.clone());
    let parallel = NonZeroUsize::new(parallel).unwrap();
    let task = tokio::spawn(scheduler::run(runner, receiver, Upcoming::default(), first, parallel, work, intake));
    Life { _intervals: sender, task }
}

/// A run of `a` as the scheduler begins it, to be killed.
fn begin(stack: &Stack) -> JoinHandle<()> {
    let request = RunRequest { slot: Some(Timestamp::now()), ..RunRequest::new(name("a"), Trigger::Schedule) };
    let (runner, accepted) = (stack.runner.clone(), stack.runner.accept(request).unwrap());
    tokio::spawn(async move { drop(runner.run_accepted(accepted).await) })
}

impl Life {
    /// Stops it as a SIGTERM does.
    async fn stop(self, stack: &Stack) {
        stack.stages.intake.cancel();
        self.task.await.unwrap();
        stack.stages.work.close();
        stack.stages.work.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_slot_is_accounted_at_any_moment_and_ends_in_one_verdict() {
    let stack = Stack::new(THREE);
    for service in ["a", "b", "c"] {
        stack.engine.script(service, Script::exits(0, 25 * SECOND));
    }
    let every = [("a", 10 * SECOND), ("b", 10 * SECOND), ("c", 30 * SECOND), ("nowhere", 20 * SECOND)];
    let life = live(&stack, &every, FirstSlot::Now, 1);
    for _ in 0..200 {
        sleep(Duration::from_millis(733)).await;
        let slots = stack.ledger.slots();
        assert_eq!(slots.due, slots.accounted);
    }
    assert!(stack.ledger.slots().due > 30, "{:?}", stack.ledger.slots());
    life.stop(&stack).await;
    let records = records(&stack.ledger).await;
    assert!(stack.ledger.unfinished().is_empty());
    assert_eq!(records.iter().map(Record::slots).sum::<u64>(), stack.ledger.slots().due);
    for record in &records {
        assert!(record.state.is_over(), "{record:?}");
        assert_eq!(record.iteration.is_some(), !record.state.is_without_run(), "{record:?}");
    }
    let shutdown = |record: &&Record| record.reason == Some(Reason::Shutdown);
    assert!(records.iter().filter(shutdown).count() >= 1, "what waited at the end is told of");
    let unknown = |record: &&Record| record.reason == Some(Reason::UnknownService);
    assert!(records.iter().filter(unknown).all(|record| record.job == name("nowhere")));
}

#[tokio::test(start_paused = true)]
async fn a_run_is_in_the_ledger_with_its_containers_name_before_that_is_created() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 10 * SECOND));
    let run = stack.run("weather");
    let look = async {
        sleep(SECOND).await;
        let unfinished = stack.ledger.unfinished();
        assert_eq!(unfinished.len(), 1);
        assert_eq!(unfinished[0].record.state, State::Pending);
        assert_eq!(unfinished[0].record.container.as_ref(), stack.engine.container_names().first());
        assert!(unfinished[0].start.is_some(), "it was started");
    };
    let (report, ()) = tokio::join!(run, look);
    let record = stack.ledger.last_run(&name("weather")).unwrap();
    assert_eq!((record.state, record.exit_code, record.iteration), (State::Succeeded, Some(0), Some(1)));
    assert_eq!(record.run_id, Some(report.unwrap().run_id));
    stack.run("weather").await.unwrap();
    assert_eq!(stack.ledger.last_run(&name("weather")).unwrap().iteration, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_nothing_is_left_was_interrupted_and_its_slot_is_run_again() {
    let stack = Stack::new(THREE);
    stack.engine.fail("create container", Fault::Hung);
    stack.ledger.slots_due(1);
    let run = begin(&stack);
    sleep(SECOND).await;
    run.abort();
    let stack = stack.reborn_with_its_memory();
    stack.runner.recover().await.unwrap();
    assert_eq!(states(&stack.ledger).await, [("a".to_owned(), State::Failed, Some(Reason::Interrupted))]);
    let life = live(&stack, &[("a", HOUR)], FirstSlot::WhereMissed, 8);
    sleep(10 * SECOND).await;
    life.stop(&stack).await;
    let records = records(&stack.ledger).await;
    assert_eq!(records.len(), 2, "{records:#?}");
    assert_eq!((records[1].state, records[1].slot), (State::Succeeded, records[0].slot));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_keeps_its_record_in_the_next_life() {
    let stack = Stack::new(THREE);
    stack.engine.script("a", Script::exits(3, 20 * SECOND));
    stack.ledger.slots_due(1);
    let run = begin(&stack);
    sleep(5 * SECOND).await;
    let before = stack.ledger.last_run(&name("a")).unwrap();
    run.abort();
    let stack = stack.reborn_with_its_memory();
    stack.runner.recover().await.unwrap();
    stack.stages.work.close();
    stack.stages.work.wait().await;
    let after = stack.ledger.last_run(&name("a")).unwrap();
    assert_eq!((after.state, after.exit_code, after.trigger), (State::Failed, Some(3), Trigger::Schedule));
    assert_eq!((&after.run_id, after.iteration, after.slot), (&before.run_id, before.iteration, before.slot));
    let slots = stack.ledger.slots();
    assert_eq!((slots.due, slots.accounted), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_runs_nothing_again_whose_interval_has_not_passed() {
    let mut stack = Stack::new(THREE);
    for _ in 0..5 {
        stack.runner.recover().await.unwrap();
        let life = live(&stack, &[("a", HOUR)], FirstSlot::WhereMissed, 8);
        sleep(14 * SECOND).await;
        life.task.abort();
        stack = stack.reborn_with_its_memory();
    }
    assert_eq!(states(&stack.ledger).await, [("a".to_owned(), State::Succeeded, None)]);
}

#[tokio::test(start_paused = true)]
async fn slots_of_the_time_away_are_one_record_with_their_number() {
    let stack = Stack::new(THREE);
    let slot = Timestamp(Timestamp::now().0 - 3.5 * 3600.0);
    let run_id = "0123456789ab".parse().unwrap();
    let earlier = Record { slot: Some(slot), ..Record::pending(name("a"), 7, run_id, Trigger::Schedule, slot) };
    drop(stack.ledger.record(earlier.clone()));
    drop(stack.ledger.record(Record { state: State::Succeeded, ..earlier }));
    stack.ledger.slots_due(1);
    let life = live(&stack, &[("a", HOUR)], FirstSlot::WhereMissed, 8);
    sleep(SECOND).await;
    life.stop(&stack).await;
    let records = records(&stack.ledger).await;
    let missed = records.iter().find(|record| record.state == State::Missed).unwrap();
    assert_eq!((missed.slots(), missed.reason), (2, Some(Reason::Down)), "{missed:?}");
    let run = records.last().unwrap();
    assert_eq!((run.state, run.iteration), (State::Succeeded, Some(8)), "the third of them is made up for");
    assert!((run.slot.unwrap().0 - slot.0 - 3.0 * 3600.0).abs() < 1.0, "{run:?}");
    let slots = stack.ledger.slots();
    assert_eq!((slots.due, slots.accounted), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn before_the_clock_is_set_an_interval_has_to_pass() {
    let stack = Stack::new(THREE);
    let ahead = Timestamp(Timestamp::now().0 + 86_400.0);
    let run_id = "0123456789ab".parse().unwrap();
    let later = Record { slot: Some(ahead), ..Record::pending(name("a"), 1, run_id, Trigger::Schedule, ahead) };
    drop(stack.ledger.record(Record { state: State::Succeeded, ..later }));
    let life = live(&stack, &[("a", HOUR)], FirstSlot::WhereMissed, 8);
    sleep(Duration::from_secs(3599)).await;
    assert_eq!(records(&stack.ledger).await.len(), 1);
    sleep(10 * SECOND).await;
    life.stop(&stack).await;
    assert_eq!(records(&stack.ledger).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_renamed_while_the_daemon_was_away_is_ours_where_the_ledger_has_it() {
    for remembers in [true, false] {
        let stack = Stack::new(THREE);
        stack.engine.script("a", Script::exits(3, 2 * SECOND));
        let run = begin(&stack);
        sleep(SECOND).await;
        run.abort();
        stack.engine.rename_by_hand(&stack.engine.container_names()[0], "mine");
        let stack = if remembers { stack.reborn_with_its_memory() } else { stack.reborn() };
        stack.runner.recover().await.unwrap();
        stack.stages.work.close();
        stack.stages.work.wait().await;
        let exit_code = stack.ledger.last_run(&name("a")).and_then(|record| record.exit_code);
        let left = stack.engine.container_names();
        if remembers {
            assert_eq!((exit_code, left), (Some(3), Vec::new()));
        } else {
            // Its labels alone may have come with an image.
            assert_eq!((exit_code, left), (None, vec!["mine".to_owned()]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_run_that_succeeds_is_kept_where_the_settings_ask_for_it() {
    for keep in [false, true] {
        let stack = Stack::with(PLAIN, |options| options.tail_of_success = keep);
        stack.engine.script("weather", Script { output: "done\n".into(), ..Script::exits(0, SECOND) });
        stack.run("weather").await.unwrap();
        let records = records(&stack.ledger).await;
        assert_eq!(records[0].tail.as_deref(), keep.then_some("done\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_daemon_was_killed_between_verdict_and_removal_has_one_record() {
    for start in [true, false] {
        let stack = Stack::new(THREE);
        stack.engine.script("a", Script::exits(3, SECOND));
        stack.engine.fail("remove container", Fault::Hung);
        assert_eq!(stack.verdict_of_run("a", &[]).await.unwrap().exit_code, Some(3));
        let stack = stack.reborn_with_its_memory();
        // The next life finds the container at its start, or before the service's next run.
        if start {
            stack.runner.recover().await.unwrap();
            stack.settled().await;
            assert_eq!(stack.engine.container_names(), [""; 0]);
        } else {
            stack.run("a").await.unwrap();
        }
        let runs: Vec<_> = records(&stack.ledger).await.into_iter().map(|record| record.iteration).collect();
        assert_eq!(runs.len(), if start { 1 } else { 2 }, "{runs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_comes_in_the_next_life_of_a_run_with_a_verdict_is_removed_without_a_word() {
    let stack = Stack::new(THREE);
    stack.engine.fail("create container", Fault::Late(60 * SECOND));
    assert_eq!(stack.verdict_of_run("a", &[]).await.unwrap().exit_code, None);
    sleep(30 * SECOND).await;
    let stack = stack.reborn_with_its_memory();
    stack.runner.recover().await.unwrap();
    sleep(40 * SECOND).await;
    stack.runner.look_round().await.unwrap();
    stack.settled().await;
    assert_eq!(stack.engine.container_names(), [""; 0]);
    assert_eq!(records(&stack.ledger).await.len(), 1);
}
