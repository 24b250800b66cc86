//! Runs on an Engine that loses requests, answers late, or does not answer at all.

use std::time::Duration;

use sense_orchestrator::report::Outcome;
use tokio::time::{Instant, sleep, timeout};

use crate::support::engine::{Fault, Script};
use crate::support::stack::{PLAIN, Stack, name};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_container_that_is_there_only_after_its_create_was_given_up_is_removed() {
    let stack = Stack::new(PLAIN);
    stack.engine.fail("create container", Fault::Late(5 * SECOND));
    let report = stack.run("weather").await.unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.error.is_some_and(|error| error.contains("create container")));
    sleep(60 * SECOND).await;
    assert_eq!(stack.engine.container_names(), [""; 0]);
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_carried_out_late_is_late_for_its_own_container_only() {
    let stack = Stack::new(PLAIN);
    for service in ["weather", "system"] {
        stack.engine.script(service, Script::exits(3, SECOND));
    }
    let mut starts = 0;
    stack.engine.ask(Duration::MAX, move |call| {
        starts += u32::from(call == "start container");
        (call == "start container" && starts == 2).then_some(Fault::Late(5 * SECOND))
    });
    let (first, second) = tokio::join!(stack.run("weather"), stack.run("system"));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!([first.exit_code, second.exit_code], [Some(3); 2]);
    let mut ran = [first.duration.as_secs(), second.duration.as_secs()];
    ran.sort_unstable();
    assert_eq!(ran, [1, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_never_arrived_is_not_waited_for_for_long() {
    let stack = Stack::new(PLAIN);
    stack.engine.fail("create container", Fault::Lost);
    let report = stack.run("weather").await.unwrap();
    assert!(report.duration < 15 * SECOND, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_for_calls_that_the_engine_does_not_answer() {
    for call in ["list containers", "create container", "start container"] {
        let stack = Stack::new(PLAIN);
        stack.engine.script("weather", Script::stays());
        stack.engine.fail(call, Fault::Unanswered);
        let report = timeout(80 * SECOND, stack.run("weather")).await.unwrap().unwrap();
        assert_eq!(report.outcome, Outcome::TimedOut, "{call}: {report:?}");
        // Only what never started is told as not started.
        let error = if call == "start container" {
            "still running after 1m, stopped and removed"
        } else {
            "not started within 1m"
        };
        assert_eq!(report.error.as_deref(), Some(error), "{call}");
        assert_eq!(stack.engine.container_names(), [""; 0], "{call}");
        stack.engine.script("weather", Script::default());
        assert!(stack.run("weather").await.unwrap().outcome.is_success(), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_runs_whose_network_is_never_made_both_end_with_their_own_limit() {
    let stack = Stack::new(PLAIN);
    stack.engine.fail("create network", Fault::Unanswered);
    let (first, second) = tokio::join!(stack.run("weather"), stack.run("system"));
    for report in [first.unwrap(), second.unwrap()] {
        assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::TimedOut, 60));
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_a_limit_for_every_call_of_a_runs_preparation() {
    for call in ["inspect image", "inspect network", "inspect volume", "create volume", "connect"] {
        let stack =
            Stack::new("{name: p, services: {a: {image: 'busybox:test', volumes: ['data:/v']}}, volumes: {data: {}}}");
        stack.engine.fail(call, Fault::Hung);
        let report = timeout(61 * SECOND, stack.run("a")).await.unwrap().unwrap();
        assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::TimedOut, 60), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_answer_and_leaves_no_container() {
    for call in ["list containers", "create container", "start container"] {
        let stack = Stack::new(PLAIN);
        stack.engine.script("weather", Script::stays());
        stack.engine.fail(call, Fault::Unanswered);
        let abort = async {
            sleep(10 * SECOND).await;
            stack.stages.intake.cancel();
            stack.stages.abort.cancel();
        };
        let (report, ()) = tokio::join!(stack.run("weather"), abort);
        let report = report.unwrap();
        assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::Cancelled, 10), "{call}");
        assert_eq!(stack.engine.container_names(), [""; 0], "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_refuses_to_tell_of_a_container_for_a_while_does_not_end_its_run() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 20 * SECOND));
    for _ in 0..5 {
        stack.engine.fail("wait for container", Fault::Refused);
    }
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::Succeeded, 20));
}

#[tokio::test(start_paused = true)]
async fn a_container_of_an_earlier_life_that_does_not_go_away_does_not_hold_up_the_start() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 40 * SECOND));
    assert!(timeout(35 * SECOND, stack.run("weather")).await.is_err());
    sleep(10 * SECOND).await;
    for _ in 0..20 {
        stack.engine.fail("remove container", Fault::Refused);
    }
    let stack = stack.reborn();
    let begun = Instant::now();
    stack.runner.recover().await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(stack.engine.container_names().len(), 1);
    assert!(stack.run("system").await.unwrap().outcome.is_success());
    stack.settled().await;
    assert_eq!(stack.engine.container_names(), [""; 0]);
    assert_eq!(stack.runner.records()[&name("weather")].failures, 0);
}
