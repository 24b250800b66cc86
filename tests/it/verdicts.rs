//! What a run is told to have come to is what happened: by the Engine's own words, over faults, stops and lives of the daemon.

use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::report::Outcome;
use sense_orchestrator::runner::RunError;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::engine::{Fault, Script};
use crate::support::log::Log;
use crate::support::stack::{PLAIN, Stack, name};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_verdict_names_the_variable_whose_value_was_wrong_and_not_the_value() {
    for line in ["restart: '${PW}'", "security_opt: ['seccomp:${PW}.json']", "mem_limit: '${PW}'"] {
        let stack = Stack::new(PLAIN);
        stack.folder.write(".env", "PW=Hunter2Passw0rd\n");
        let services = format!("services: {{weather: {{image: 'busybox:test', {line}}}}}");
        stack.folder.write("compose.yaml", &format!("name: p\n{services}\n"));
        let told = match stack.run("weather").await {
            Ok(report) => report.error.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        let started = stack.runner.start(&"weather".parse().unwrap()).await;
        let broken = stack.runner.broken_project().unwrap_or_default();
        let told = format!("{told}; {}; {broken}", started.err().map(|error| error.to_string()).unwrap_or_default());
        assert!(told.contains("${PW}"), "{line}: {told}");
        assert!(!told.contains("Hunter2") && !told.contains("Passw0rd"), "{line}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_end_is_seen_only_after_its_limit_has_ended_by_itself() {
    for code in [0, 3] {
        let stack = Stack::new(PLAIN);
        stack.engine.script("weather", Script::exits(code, 50 * SECOND));
        // The Engine is away from 40 s on, and its containers go on; it is back after the limit.
        let engine = Arc::clone(&stack.engine);
        let away = async {
            sleep(40 * SECOND).await;
            engine.lose_connection();
            sleep(30 * SECOND).await;
            engine.come_back();
        };
        let (report, ()) = tokio::join!(stack.run("weather"), away);
        let report = report.unwrap();
        assert_eq!(report.exit_code, Some(code), "{report:?}");
        assert_eq!(report.outcome.is_success(), code == 0, "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_while_it_is_told_to_stop_has_ended_by_itself() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(7, 60 * SECOND));
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(7)), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_carried_out_and_not_answered_is_followed_to_its_end() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(4, 20 * SECOND));
    stack.engine.fail("start container", Fault::LostAnswer);
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(4)), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn only_what_never_started_is_told_as_not_started() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::stays());
    stack.engine.fail("start container", Fault::Unanswered);
    let report = stack.run("weather").await.unwrap();
    assert_eq!(report.outcome, Outcome::TimedOut);
    assert_eq!(report.error.as_deref(), Some("still running after 1m, stopped and removed"));
    stack.engine.fail("create container", Fault::Unanswered);
    let report = stack.run("weather").await.unwrap();
    assert_eq!(report.error.as_deref(), Some("not started within 1m"));
    assert_eq!(stack.engine.container_names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_killed_under_a_run_is_named_and_no_exit_code_made_up() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 30 * SECOND));
    let engine = Arc::clone(&stack.engine);
    let killed = async {
        sleep(10 * SECOND).await;
        engine.crash();
        sleep(10 * SECOND).await;
        engine.come_back();
    };
    let (report, ()) = tokio::join!(stack.run("weather"), killed);
    let report = report.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, None));
    assert!(report.error.as_ref().is_some_and(|error| error.contains("engine was lost")), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_exits_with_255_is_told_as_such() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(255, 30 * SECOND));
    assert_eq!(stack.run("weather").await.unwrap().exit_code, Some(255));
    // Its end was not seen, because the Engine was away for a while, and it is no end of the Engine's.
    let engine = Arc::clone(&stack.engine);
    let away = async {
        sleep(10 * SECOND).await;
        engine.lose_connection();
        sleep(5 * SECOND).await;
        engine.come_back();
    };
    let (report, ()) = tokio::join!(stack.run("weather"), away);
    assert!(report.unwrap().outcome == Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_the_daemon_was_away_is_told_with_code_output_and_times_before_it_is_removed() {
    for (code, message) in [(0, "run succeeded"), (9, "run failed")] {
        let stack = Stack::new(PLAIN);
        let script = Script { output: "the last words\n".into(), ..Script::exits(code, 40 * SECOND) };
        stack.engine.script("weather", script);
        assert!(timeout(10 * SECOND, stack.run("weather")).await.is_err());
        sleep(60 * SECOND).await;
        let stack = stack.reborn();
        let log = Log::capture();
        stack.runner.recover().await.unwrap();
        stack.settled().await;
        let lines = log.lines(message);
        assert_eq!(lines.len(), 1, "{}", log.text());
        assert_eq!(lines[0]["exit_code"], code);
        assert_eq!(lines[0]["note"], "ended while the daemon was away");
        assert_eq!(lines[0]["duration_ms"], 40_000);
        assert_eq!(lines[0]["tail"], if code == 0 { json!(null) } else { json!("the last words\n") });
        sleep(SECOND).await;
        let record: serde_json::Value = serde_json::from_str(&stack.bus.values("runs:weather")[0]).unwrap();
        assert_eq!(record["exit_code"], code);
        assert_eq!(stack.engine.container_names(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_the_engine_is_just_starting_is_adopted() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(5, 20 * SECOND));
    stack.engine.fail("start container", Fault::Late(3 * SECOND));
    assert!(timeout(SECOND, stack.run("weather")).await.is_err());
    let stack = stack.reborn();
    let log = Log::capture();
    stack.runner.recover().await.unwrap();
    stack.settled().await;
    assert_eq!(log.lines("run failed")[0]["exit_code"], 5, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn a_verdict_comes_before_the_removal_and_the_service_is_free_only_after_it() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 5 * SECOND));
    for _ in 0..3 {
        stack.engine.fail("remove container", Fault::Refused);
    }
    let report = stack.verdict_of_run("weather", &[]).await.unwrap();
    assert_eq!(report.duration.as_secs(), 5);
    assert_eq!(stack.runner.running(&name("weather")), None, "it has its verdict");
    assert_eq!(stack.engine.container_names().len(), 1);
    // A run that comes meanwhile waits, and is not refused.
    assert!(stack.verdict_of_run("weather", &[]).await.unwrap().outcome.is_success());
    let transcript = stack.engine.transcript();
    let (removed, created) = (transcript.find("remove weather").unwrap(), transcript.rfind("create weather").unwrap());
    assert!(removed < created, "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn exit_0_with_a_failure_in_the_status_tells_the_sources_own_error_and_its_output() {
    let stack = Stack::with(PLAIN, |options| options.default.proof = Some("weather".parse().unwrap()));
    stack.engine.script("weather", Script { output: "traceback\n".into(), ..Script::exits(0, SECOND) });
    let status = json!({"source_id": "weather", "last_success": 1.0, "last_error": "401 from the service"});
    stack.bus.put("status:weather", &status);
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::NoOutput, Some(0)));
    assert!(report.error.as_ref().is_some_and(|error| error.ends_with(": 401 from the service")), "{report:?}");
    assert_eq!(report.tail, "traceback\n");
}

#[tokio::test(start_paused = true)]
async fn a_success_without_a_reading_of_its_time_is_warned_of_and_is_no_failure() {
    let stack = Stack::with(PLAIN, |options| {
        let source = Some("weather".parse().unwrap());
        (options.default.proof, options.default.expects_readings) = (source.clone(), source);
    });
    stack.engine.script("weather", Script::exits(0, SECOND));
    let (now, log) = (Timestamp::now().0, Log::capture());
    stack.bus.put("status:weather", &json!({"source_id": "weather", "last_success": now + 5.0}));
    for n in 0..20 {
        stack.bus.put(&format!("source:other:{n}"), &json!({"value": 1, "timestamp": now + 5.0}));
        stack.bus.put(&format!("source:weather:{n}"), &json!({"value": 1, "timestamp": now - 60.0}));
    }
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.error.as_deref()), (Outcome::Succeeded, None));
    let line = &log.lines("run succeeded")[0];
    assert_eq!((&line["level"], &line["warning"]), (&json!("WARN"), &json!("reported success, wrote no readings")));
    let record: serde_json::Value = serde_json::from_str(&stack.bus.values("runs:weather")[0]).unwrap();
    assert_eq!(
        (&record["state"], &record["error"]),
        (&json!("succeeded"), &json!("reported success, wrote no readings"))
    );
    // One fresh reading is enough, also in whole seconds; what is no reading is passed over.
    stack.bus.put_text("source:weather:3", "[not JSON");
    stack.bus.put("source:weather:7", &json!({"value": 1, "timestamp": (now + 5.0).floor()}));
    assert_eq!(stack.run("weather").await.unwrap().warning, None);
    // A Redis that is not asked to its end says nothing either way.
    stack.bus.evict("source:weather:7");
    stack.bus.refuse(Some("SCAN"));
    assert_eq!(stack.run("weather").await.unwrap().warning, None);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_is_stopped_and_told_as_cancelled() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::stays());
    let cancel = async {
        sleep(10 * SECOND).await;
        assert!(stack.runner.cancel(&name("system")).is_none());
        stack.runner.cancel(&name("weather")).unwrap()
    };
    let (report, cancelled) = tokio::join!(stack.run("weather"), cancel);
    let report = report.unwrap();
    assert_eq!((&report.run_id, report.outcome), (&cancelled, Outcome::Cancelled));
    assert_eq!(report.error.as_deref(), Some("cancelled"));
    assert_eq!(stack.engine.container_names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_tried_again_touches_no_run_of_this_life() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 30 * SECOND));
    stack.engine.fail("list containers", Fault::Refused);
    assert!(stack.runner.recover().await.is_err());
    let again = async {
        sleep(5 * SECOND).await;
        stack.runner.recover().await.unwrap();
        stack.runner.look_round().await.unwrap();
    };
    let (report, ()) = tokio::join!(stack.run("weather"), again);
    assert!(report.unwrap().outcome.is_success());
    assert_eq!(stack.engine.transcript().matches("weather").count(), 3, "created, started, removed");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_comes_long_after_its_create_was_given_up_is_removed_by_the_next_look_round() {
    let stack = Stack::new(PLAIN);
    stack.engine.fail("create container", Fault::Late(30 * SECOND));
    assert_eq!(stack.run("weather").await.unwrap().outcome, Outcome::Failed);
    sleep(40 * SECOND).await;
    assert_eq!(stack.engine.container_names().len(), 1);
    // The run was one of this life: what is left of it is nobody's once it has ended.
    stack.runner.look_round().await.unwrap();
    stack.settled().await;
    assert_eq!(stack.engine.container_names(), [""; 0]);
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_somebody_renames_in_mid_run_is_followed_and_removed() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 20 * SECOND));
    let rename = async {
        sleep(5 * SECOND).await;
        let old = stack.engine.container_names().remove(0);
        sense_orchestrator::engine::Engine::rename_container(stack.engine.as_ref(), &old, "mine").await.unwrap();
    };
    let (report, ()) = tokio::join!(stack.run("weather"), rename);
    assert!(report.unwrap().outcome.is_success());
    assert_eq!(stack.engine.container_names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_forged_mark_lets_nothing_be_adopted_or_removed() {
    use sense_orchestrator::spec::Slug;
    let slug = Slug::new([7; 24], &"p".parse().unwrap(), &name("weather"));
    // The mark is right; the name is not ours, or the label of a one-off is missing, or the service is none of the file's.
    for (container, service, one_off) in [
        ("elsewhere", "weather", "True"),
        ("p-weather-run-070707070708", "weather", "True"),
        ("p-weather-run-070707070707", "weather", "False"),
        ("p-nobody-run-070707070707", "nobody", "True"),
    ] {
        for stays in [true, false] {
            let stack = Stack::new(PLAIN);
            stack.engine.put_one_off(container, service, slug.as_str(), one_off, stays).await;
            stack.runner.recover().await.unwrap();
            stack.runner.look_round().await.unwrap();
            sleep(600 * SECOND).await;
            assert_eq!(stack.engine.container_names(), [container], "{service} {one_off} {stays}");
            stack.engine.script("weather", Script::exits(0, SECOND));
            let run = stack.run("weather").await;
            if container == "p-weather-run-070707070708" && stays {
                let refused = run.unwrap_err();
                assert!(matches!(refused, RunError::Busy { run_id: None, .. }), "{refused}");
            } else {
                assert!(run.unwrap().outcome.is_success(), "{container} is in nobody's way");
            }
            assert_eq!(stack.engine.container_names(), [container], "{service} {one_off} {stays}");
        }
    }
}
