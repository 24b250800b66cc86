//! Runs of ephemeral services: their life, their limit, and that nothing is left of them.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::HealthStatusEnum;
use sense_orchestrator::compose::Options;
use sense_orchestrator::projects::Projects;
use sense_orchestrator::report::Outcome;
use sense_orchestrator::runner::{RunError, ServiceOptions};
use sense_orchestrator::spec::Dialect;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::engine::{Fault, Script};
use crate::support::stack::{Folder, PLAIN, Stack, name};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_run_is_created_started_waited_for_and_removed() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 5 * SECOND));
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Succeeded, Some(0)));
    assert_eq!(report.duration.as_secs(), 5);
    insta::assert_snapshot!(stack.engine.transcript(), @r"
      0s create network p_default
      0s create weather
      0s start weather
      5s remove weather
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_past_its_limit_is_stopped_and_removed_and_only_then_the_service_is_free() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script { ignores_stop: true, ..Script::stays() });
    let first = stack.run("weather");
    let second = async {
        sleep(65 * SECOND).await;
        stack.run("weather").await
    };
    let (report, refused) = tokio::join!(first, second);
    let report = report.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::TimedOut, None));
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, RunError::Busy { run_id: Some(id), .. } if *id == report.run_id), "{refused}");
    insta::assert_snapshot!(stack.engine.transcript(), @r"
      0s create network p_default
      0s create weather
      0s start weather
     60s stop weather
     70s remove weather
    ");
    stack.engine.script("weather", Script::default());
    assert_eq!(stack.run("weather").await.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_limit_and_the_grace_period_are_the_services_own() {
    let stack =
        Stack::with("{name: p, services: {weather: {image: 'busybox:test', stop_grace_period: 3s}}}", |options| {
            let own = ServiceOptions { limit: 7 * SECOND, ..options.default.clone() };
            options.services.insert(name("weather"), own);
        });
    stack.engine.script("weather", Script { ignores_stop: true, ..Script::stays() });
    assert_eq!(stack.run("weather").await.unwrap().outcome, Outcome::TimedOut);
    let transcript = stack.engine.transcript();
    assert!(transcript.contains("  7s stop weather\n 10s remove weather\n"), "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_keeps_its_exit_code_and_the_end_of_its_output() {
    let stack = Stack::with(PLAIN, |options| options.tail = 10);
    let script = Script { output: "first line\nlast line\n".into(), ..Script::exits(7, SECOND) };
    stack.engine.script("weather", script);
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(7)));
    assert_eq!(report.error.as_deref(), Some("exited 7"));
    assert_eq!(report.tail, "last line\n");
    assert!(stack.engine.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_services_run_at_the_same_time_and_share_their_network() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 5 * SECOND));
    stack.engine.script("system", Script::exits(0, 5 * SECOND));
    let begun = Instant::now();
    let (weather, system) = tokio::join!(stack.run("weather"), stack.run("system"));
    assert!(weather.unwrap().outcome.is_success() && system.unwrap().outcome.is_success());
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(stack.engine.transcript().matches("create network").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_pulled_and_one_that_cannot_be_is_said() {
    let stack = Stack::new(
        "{name: p, services: {a: {image: 'there:1'}, b: {image: 'gone:1', pull_policy: never}, c: {image: 'gone:1'}}}",
    );
    stack.engine.offer_image("there:1");
    assert!(stack.run("a").await.unwrap().outcome.is_success());
    assert!(stack.engine.transcript().contains("pull there:1"));
    for service in ["b", "c"] {
        let report = stack.run(service).await.unwrap();
        assert_eq!(report.outcome, Outcome::Failed);
        assert!(report.error.as_ref().is_some_and(|error| error.contains("gone:1")), "{report:?}");
    }
    assert!(stack.engine.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_has_to_be_built_is_an_error_that_names_the_command() {
    let stack = Stack::new("{name: p, services: {a: {build: .}, b: {build: ., image: 'mine:1'}}}");
    for service in ["a", "b"] {
        let error = stack.run(service).await.unwrap().error.unwrap();
        assert!(error.contains(&format!("docker compose build {service}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_was_deleted_is_made_again_and_a_missing_external_one_is_said() {
    let stack = Stack::new(
        "{name: p, services: {a: {image: 'busybox:test'}, b: {image: 'busybox:test', networks: [out]}}, networks: {out: {external: true}}}",
    );
    assert!(stack.run("a").await.unwrap().outcome.is_success());
    sense_orchestrator::engine::Engine::remove_network(stack.engine.as_ref(), "p_default").await.unwrap();
    assert!(stack.run("a").await.unwrap().outcome.is_success());
    let error = stack.run("b").await.unwrap().error.unwrap();
    assert!(error.contains("network out declared as external, but could not be found"), "{error}");
    assert!(stack.engine.container_names().is_empty());
}

const WITH_DEPENDENCY: &str = "
name: p
services:
  db: {image: 'busybox:test', healthcheck: {test: [CMD, 'true']}}
  weather: {image: 'busybox:test', profiles: [poll], depends_on: {db: {condition: service_healthy}}}
";

#[tokio::test(start_paused = true)]
async fn a_run_waits_until_its_dependency_is_healthy_and_leaves_it_running() {
    let stack = Stack::new(WITH_DEPENDENCY);
    stack.engine.script("db", Script { health: Some((7 * SECOND, HealthStatusEnum::HEALTHY)), ..Script::stays() });
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
    insta::assert_snapshot!(stack.engine.transcript(), @r"
      0s create network p_default
      0s create p-db-1
      0s start p-db-1
      7s create weather
      7s start weather
      8s remove weather
    ");
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
    assert!(!stack.engine.transcript().contains("db"), "what is there is left as it is");
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_never_becomes_healthy_ends_with_the_limit() {
    let stack = Stack::new(WITH_DEPENDENCY);
    stack.engine.script("db", Script { health: Some((9999 * SECOND, HealthStatusEnum::HEALTHY)), ..Script::stays() });
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::TimedOut, 60));
    assert_eq!(report.error.as_deref(), Some("dependency db not ready within 1m"));
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_unhealthy_fails_the_run_by_name() {
    let stack = Stack::new(WITH_DEPENDENCY);
    stack.engine.script("db", Script { health: Some((SECOND, HealthStatusEnum::UNHEALTHY)), ..Script::stays() });
    let report = stack.run("weather").await.unwrap();
    assert_eq!(report.error.as_deref(), Some("dependency failed to start: container p-db-1 is unhealthy"));
}

const WITH_HOOK: &str = "
name: p
services:
  weather: {image: 'busybox:test', post_start: [{command: [warm, up]}]}
  system: {image: 'busybox:test'}
";

#[tokio::test(start_paused = true)]
async fn a_hook_that_does_not_end_is_held_to_the_runs_limit() {
    // Compose runs hooks in one-offs from version 5 on.
    let stack = Stack::new(WITH_HOOK).written_as(Dialect::new(5, 0, 0));
    stack.engine.script("weather", Script { exec_hangs: true, ..Script::stays() });
    let report = stack.run("weather").await.unwrap();
    assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::TimedOut, 60));
    assert!(stack.engine.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_a_service_that_does_not_end_fails_its_start() {
    let stack = Stack::new(WITH_HOOK);
    stack.engine.script("weather", Script { exec_hangs: true, ..Script::stays() });
    let error = stack.runner.start(&name("weather")).await.unwrap_err().to_string();
    assert_eq!(error, "hook \"warm up\" of p-weather-1 did not end within 5m");
    assert_eq!(stack.run("system").await.unwrap().outcome, Outcome::Succeeded);
}

/// The calls of a run in which something can go wrong.
const CALLS: [&str; 8] = [
    "list containers",
    "inspect image",
    "inspect network",
    "create network",
    "create container",
    "start container",
    "wait for container",
    "remove container",
];

#[tokio::test(start_paused = true)]
async fn no_fault_at_any_step_leaves_a_container_or_a_service_that_stays_busy() {
    for call in CALLS {
        for fault in [Fault::Refused, Fault::Lost, Fault::LostAnswer] {
            let stack = Stack::new(PLAIN);
            stack.engine.script("weather", Script::exits(0, 5 * SECOND));
            stack.engine.fail(call, fault);
            let report = stack.run("weather").await.unwrap();
            assert!(stack.engine.container_names().is_empty(), "{call}, {fault:?}: {report:?}");
            let after = stack.run("weather").await.unwrap();
            assert_eq!(after.outcome, Outcome::Succeeded, "{call}, {fault:?}: {after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_is_removed_once_the_engine_is_back() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 30 * SECOND));
    let engine = Arc::clone(&stack.engine);
    let restart = async {
        sleep(10 * SECOND).await;
        engine.shut_down();
        sleep(10 * SECOND).await;
        engine.come_back();
    };
    let (report, ()) = tokio::join!(stack.run("weather"), restart);
    let report = report.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, Some(137)));
    assert!(report.duration >= 20 * SECOND, "{report:?}");
    assert!(stack.engine.container_names().is_empty());
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_somebody_removes_fails_the_run() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::stays());
    let engine = Arc::clone(&stack.engine);
    let removal = async {
        sleep(10 * SECOND).await;
        engine.lose_container("weather");
    };
    let (report, ()) = tokio::join!(stack.run("weather"), removal);
    let report = report.unwrap();
    assert_eq!((report.outcome, report.exit_code), (Outcome::Failed, None));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_is_refused() {
    let stack = Stack::new(PLAIN);
    let refused = stack.run("nothing").await.unwrap_err();
    assert_eq!(refused.to_string(), "no such service: nothing");
}

#[tokio::test(start_paused = true)]
async fn variables_of_a_run_go_over_those_of_the_settings_and_of_the_file() {
    let compose = "{name: p, services: {a: {image: 'busybox:test', environment: {A: file, B: file, C: file}}}}";
    let stack = Stack::with(compose, |options| {
        let environment = [("B".into(), "settings".into()), ("C".into(), "settings".into())].into();
        options.services.insert(name("a"), ServiceOptions { environment, ..options.default.clone() });
    });
    stack.engine.script("a", Script::stays());
    let look = async {
        sleep(SECOND).await;
        let body = stack.engine.body(&stack.engine.container_names()[0]);
        stack.stages.abort.cancel();
        body.body.env.unwrap()
    };
    let (report, env) = tokio::join!(stack.run_with("a", &[("C", "run")]), look);
    assert_eq!(report.unwrap().outcome, Outcome::Cancelled);
    assert_eq!(env, ["A=file", "B=settings", "C=run"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_stops_and_removes_what_runs_and_starts_nothing_more() {
    let stack = Stack::new("{name: p, services: {weather: {image: 'busybox:test', stop_grace_period: 10m}}}");
    stack.engine.script("weather", Script { ignores_stop: true, ..Script::stays() });
    let shutdown = async {
        sleep(20 * SECOND).await;
        stack.stages.intake.cancel();
        stack.stages.abort.cancel();
        assert!(
            matches!(stack.runner.start(&name("weather")).await, Err(error) if error.to_string() == "shutting down")
        );
    };
    let (report, ()) = tokio::join!(stack.run("weather"), shutdown);
    assert_eq!(report.unwrap().outcome, Outcome::Cancelled);
    let transcript = stack.engine.transcript();
    assert!(transcript.contains(" 20s stop weather\n 30s kill weather\n 30s remove weather\n"), "{transcript}");
    assert!(matches!(stack.run("weather").await, Err(RunError::ShuttingDown)));
}

async fn killed_at(engine_step: &str) -> Stack {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::exits(0, 40 * SECOND));
    // Drops the run in the middle, as a kill does.
    if engine_step == "created" {
        stack.engine.fail("create container", Fault::Unanswered);
    }
    assert!(tokio::time::timeout(10 * SECOND, stack.run("weather")).await.is_err());
    if engine_step == "exited" {
        sleep(40 * SECOND).await;
    }
    assert_eq!(stack.engine.container_names().len(), 1, "{engine_step}");
    stack.reborn()
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_daemon_left_dead_is_removed_at_the_next_start() {
    for step in ["created", "exited"] {
        let stack = killed_at(step).await;
        stack.runner.recover().await.unwrap();
        assert!(stack.engine.container_names().is_empty(), "{step}");
        assert!(stack.stages.work.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_container_that_cannot_be_removed_holds_up_its_own_service_alone() {
    let stack = killed_at("exited").await;
    for _ in 0..1000 {
        stack.engine.fail("remove container", Fault::Refused);
    }
    let begun = Instant::now();
    stack.runner.recover().await.unwrap();
    assert!(begun.elapsed() <= 15 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(stack.engine.container_names().len(), 1);
    let begun = Instant::now();
    let weather = stack.verdict_of_run("weather", &[]).await.unwrap_err();
    assert!(matches!(weather, RunError::Removing(_)), "{weather}");
    assert_eq!(begun.elapsed().as_secs(), 60, "it waits for the removal, for as long as it may run");
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_daemon_left_dead_is_removed_before_the_next_run_as_well() {
    let stack = killed_at("exited").await;
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
    assert!(stack.engine.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_over_a_kill_is_adopted_and_stays_the_services_only_one() {
    let stack = killed_at("running").await;
    stack.runner.recover().await.unwrap();
    tokio::task::yield_now().await;
    let running = stack.runner.running(&name("weather")).unwrap();
    let refused = stack.run("weather").await.unwrap_err();
    assert!(matches!(refused, RunError::Busy { run_id: Some(id), .. } if id == running));
    stack.settled().await;
    assert!(stack.engine.container_names().is_empty());
    let record = &stack.runner.records()[&name("weather")];
    assert_eq!((record.runs, record.failures), (1, 0));
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
}

#[tokio::test(start_paused = true)]
async fn an_adopted_run_has_its_limit_anew() {
    let stack = Stack::new(PLAIN);
    stack.engine.script("weather", Script::stays());
    assert!(tokio::time::timeout(55 * SECOND, stack.run("weather")).await.is_err());
    let stack = stack.reborn();
    let begun = Instant::now();
    stack.runner.recover().await.unwrap();
    stack.settled().await;
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(stack.runner.records()[&name("weather")].failures, 1);
    assert!(stack.engine.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_adopted_run_is_stopped_with_its_own_grace_period() {
    let stack = Stack::new("{name: p, services: {a: {image: 'busybox:test', stop_grace_period: 25s}}}");
    stack.engine.script("a", Script { ignores_stop: true, ..Script::stays() });
    assert!(tokio::time::timeout(30 * SECOND, stack.run("a")).await.is_err());
    let stack = stack.reborn();
    let begun = Instant::now();
    stack.runner.recover().await.unwrap();
    stack.settled().await;
    assert_eq!(begun.elapsed().as_secs(), 60 + 25);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_somebody_else_is_in_the_way_and_is_left_alone() {
    let stack = Stack::new(PLAIN);
    // What `docker compose run` would have made.
    let slug = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    stack.engine.put_one_off("p-weather-run-0123456789ab", "weather", slug, "True", true).await;
    stack.runner.recover().await.unwrap();
    let refused = stack.run("weather").await.unwrap_err();
    assert!(
        matches!(&refused, RunError::Busy { run_id: None, container, .. } if container == "p-weather-run-0123456789ab"),
        "{refused}"
    );
    assert_eq!(stack.engine.running_names(), ["p-weather-run-0123456789ab"]);
}

fn with_proof() -> Stack {
    Stack::with(PLAIN, |options| {
        let own = ServiceOptions { proof: Some("weather".parse().unwrap()), ..options.default.clone() };
        options.services.insert(name("weather"), own);
    })
}

#[tokio::test(start_paused = true)]
async fn exit_code_0_without_a_fresh_status_is_no_output() {
    let stack = with_proof();
    let old = json!({"source_id": "weather", "last_success": 1.0, "last_poll": 1.0, "last_error": null});
    stack.bus.put("status:weather", &old);
    let report = stack.run("weather").await.unwrap();
    assert_eq!(report.outcome, Outcome::NoOutput);
    assert_eq!(stack.runner.records()[&name("weather")].failures, 1);
}

#[tokio::test(start_paused = true)]
async fn exit_code_0_with_a_fresh_status_is_success_also_in_whole_seconds() {
    let stack = with_proof();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    stack.bus.put("status:weather", &json!({"source_id": "weather", "last_success": now}));
    assert_eq!(stack.run("weather").await.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_run_with_variables_of_its_own_has_nothing_to_prove() {
    let stack = with_proof();
    assert_eq!(stack.run_with("weather", &[("MODE", "scan")]).await.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn without_redis_a_run_counts_by_its_exit_code() {
    let stack = with_proof();
    stack.bus.go_down();
    assert_eq!(stack.run("weather").await.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_recorded_in_redis() {
    let stack = Stack::new(PLAIN);
    let report = stack.run("weather").await.unwrap();
    sleep(SECOND).await;
    let records = stack.bus.values("runs:weather");
    let record: serde_json::Value = serde_json::from_str(&records[0]).unwrap();
    assert_eq!(record["run_id"], json!(report.run_id));
    assert_eq!((&record["state"], &record["job"]), (&json!("succeeded"), &json!("weather")));
}

#[test]
fn what_a_run_holds_does_not_grow_with_the_services_beside_it() {
    let folder = Folder::new();
    folder.write("compose.yaml", PLAIN);
    let projects = Projects::open(Options { working_dir: folder.0.clone(), ..Options::default() }).unwrap();
    let project = projects.select(&name("weather"), Some("poll")).unwrap();
    assert_eq!((project.services.len(), project.disabled.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_counts_from_the_next_run_on_and_a_broken_one_does_not() {
    let stack = Stack::new(PLAIN);
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
    stack.folder.write("compose.yaml", "{name: p, services: {weather: {image: 'gone:2', pull_policy: never}}}");
    let report = stack.run("weather").await.unwrap();
    assert!(report.error.is_some_and(|error| error.contains("gone:2")));
    stack.folder.write("compose.yaml", "{name: p, services: {weather: {imge: 'x'}}}");
    let report = stack.run("weather").await.unwrap();
    assert!(report.error.is_some_and(|error| error.contains("gone:2")), "the last good one stays");
    let broken = stack.runner.broken_project().unwrap();
    assert!(broken.contains("imge"), "{broken}");
    stack.folder.write("compose.yaml", PLAIN);
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
    assert_eq!(stack.runner.broken_project(), None);
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_services_do_not_hold_together_is_broken_too() {
    let stack = Stack::new(PLAIN);
    for service in ["image: x, depends_on: [nobody]", "image: x, networks: [nowhere]", "image: x, label_file: none"] {
        let text =
            format!("{{name: p, services: {{weather: {{image: 'gone:2', pull_policy: never}}, b: {{{service}}}}}}}");
        stack.folder.write("compose.yaml", &text);
        assert!(stack.run("weather").await.unwrap().outcome.is_success(), "{service}: the last good one stays");
        assert!(stack.runner.broken_project().is_some(), "{service}");
    }
    stack.folder.write("none", "");
    let report = stack.run("weather").await.unwrap();
    assert!(
        report.error.is_some_and(|error| error.contains("gone:2")),
        "the label file that was missing is looked for"
    );
    assert_eq!(stack.runner.broken_project(), None);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_in_a_profile_that_only_a_run_enables_is_no_fault() {
    let stack = Stack::new(PLAIN);
    let text = "{name: p, services: {weather: {image: 'gone:2', pull_policy: never}, \
                b: {image: x, depends_on: [c]}, c: {image: x, profiles: [later]}}}";
    stack.folder.write("compose.yaml", text);
    stack.run("weather").await.ok();
    assert_eq!(stack.runner.broken_project(), None);
}
