//! What runs and starts do to containers that are there already, and to each other.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::engine::Engine;
use sense_orchestrator::report::{Outcome, RunReport};
use sense_orchestrator::runner::ServiceOptions;
use sense_orchestrator::spec::NetworkBody;
use tokio::time::{Instant, sleep, timeout};

use crate::support::engine::{Fault, Script};
use crate::support::log::Log;
use crate::support::stack::{PLAIN, Stack, name};

const SECOND: Duration = Duration::from_secs(1);

const STACK: &str = "
name: p
services:
  db: {image: 'busybox:test', environment: {VERSION: '1'}, networks: [back]}
  job: {image: 'busybox:test', depends_on: {db: {condition: service_started, restart: true}}, networks: [back]}
networks: {back: {labels: {version: '1'}}}
";

/// Both services up, with their files changed since.
async fn changed(from: &str, to: &str) -> Stack {
    changed_with(from, to, false).await
}

async fn changed_with(from: &str, to: &str, recreate_dependencies: bool) -> Stack {
    let stack = Stack::with(STACK, |options| options.default.recreate_dependencies = recreate_dependencies);
    stack.engine.script("db", Script::stays());
    stack.engine.script("job", Script::stays());
    stack.runner.start(&name("job")).await.unwrap();
    stack.engine.script("job", Script::default());
    stack.folder.write("compose.yaml", &STACK.replace(from, to));
    stack.engine.transcript();
    stack
}

#[tokio::test(start_paused = true)]
async fn a_run_recreates_nothing_that_runs() {
    for (from, to) in [("VERSION: '1'", "VERSION: '2'"), ("version: '1'", "version: '2'")] {
        let stack = changed(from, to).await;
        assert!(stack.run("job").await.unwrap().outcome.is_success());
        insta::allow_duplicates! {
            insta::assert_snapshot!(stack.engine.transcript(), @r"
            0s create job
            0s start job
            1s remove job
            ");
        }
        assert_eq!(stack.engine.running_names(), ["p-db-1", "p-job-1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_recreates_a_stopped_dependency_that_differs_and_starts_it() {
    let stack = changed("VERSION: '1'", "VERSION: '2'").await;
    stack.engine.stop_container("p-db-1", SECOND).await.unwrap();
    stack.engine.transcript();
    assert!(stack.run("job").await.unwrap().outcome.is_success());
    insta::assert_snapshot!(stack.engine.transcript(), @r"
    0s create 000000000000_p-db-1
    0s remove p-db-1
    0s rename 000000000000_p-db-1 to p-db-1
    0s start p-db-1
    0s create job
    0s start job
    1s remove job
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_makes_a_network_anew_that_nothing_runs_on() {
    let stack = changed("version: '1'", "version: '2'").await;
    for container in ["p-db-1", "p-job-1"] {
        stack.engine.stop_container(container, SECOND).await.unwrap();
    }
    stack.engine.transcript();
    assert!(stack.run("job").await.unwrap().outcome.is_success());
    let transcript = stack.engine.transcript();
    assert!(transcript.contains("remove network p_back\n  0s create network p_back"), "{transcript}");
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_converges_its_own_service_and_its_dependencies_only_where_the_settings_say_so() {
    for (recreate_dependencies, recreated) in [(false, vec![]), (true, vec!["db"])] {
        let stack = changed_with("VERSION: '1'", "VERSION: '2'", recreate_dependencies).await;
        stack.runner.start(&name("job")).await.unwrap();
        let transcript = stack.engine.transcript();
        for service in ["db", "job"] {
            let renamed = transcript.contains(&format!("to p-{service}-1"));
            assert_eq!(renamed, recreated.contains(&service), "{recreate_dependencies}: {transcript}");
        }
        assert_eq!(stack.engine.running_names(), ["p-db-1", "p-job-1"], "{transcript}");
        stack.runner.start(&name("db")).await.unwrap();
        let transcript = stack.engine.transcript();
        assert_eq!(transcript.contains("to p-db-1"), !recreate_dependencies, "{transcript}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_makes_a_network_anew_that_its_own_containers_alone_run_on() {
    let stack = changed("version: '1'", "version: '2'").await;
    stack.runner.start(&name("job")).await.unwrap();
    assert_eq!(stack.engine.transcript(), "", "a dependency runs on it");
    stack.engine.stop_container("p-db-1", SECOND).await.unwrap();
    stack.engine.transcript();
    stack.runner.start(&name("job")).await.unwrap();
    insta::assert_snapshot!(stack.engine.transcript(), @r"
    0s stop p-job-1
    0s disconnect p-db-1 from p_back
    0s disconnect p-job-1 from p_back
    0s remove network p_back
    0s create network p_back
    0s connect p-db-1 to p_back
    0s connect p-job-1 to p_back
    0s start p-db-1
    0s start p-job-1
    ");
}

/// A service without dependencies, one with, and the one that it depends on, which takes its time to stop.
const BUSY: &str = "
name: p
services:
  fast: {image: 'busybox:test'}
  dep: {image: 'busybox:test', depends_on: [db]}
  db: {image: 'busybox:test', environment: {VERSION: '1'}, stop_grace_period: 40s}
";

/// All of [`BUSY`] once run, and `db`'s environment changed while it runs.
async fn busy(grace: &str) -> Stack {
    let compose = BUSY.replace("40s", grace);
    let stack = Stack::with(&compose, |options| {
        let own = ServiceOptions { limit: 15 * SECOND, ..options.default.clone() };
        options.services.insert(name("dep"), own);
    });
    stack.engine.script("db", Script { ignores_stop: true, ..Script::stays() });
    assert!(stack.run("dep").await.unwrap().outcome.is_success());
    stack.folder.write("compose.yaml", &compose.replace("VERSION: '1'", "VERSION: '2'"));
    stack.engine.transcript();
    stack
}

/// What runs of a service came to that are started each so often for a minute, and how long the longest took.
async fn poll(stack: &Stack, service: &str, every: Duration) -> (Vec<RunReport>, Duration) {
    let (end, mut reports) = (Instant::now() + 60 * SECOND, Vec::new());
    while Instant::now() < end {
        let next = Instant::now() + every;
        reports.push(stack.run(service).await.unwrap());
        tokio::time::sleep_until(next).await;
    }
    let longest = reports.iter().map(|report| report.duration).max().unwrap_or_default();
    (reports, longest)
}

fn db_environment(stack: &Stack) -> Vec<String> {
    stack.engine.body("p-db-1").body.env.unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn polls_go_on_beside_a_service_that_differs_and_do_not_touch_it() {
    let stack = busy("40s").await;
    let ((fast, longest), (dep, longest_dep)) =
        tokio::join!(poll(&stack, "fast", 2 * SECOND), poll(&stack, "dep", 10 * SECOND));
    assert_eq!((fast.len(), longest.as_secs(), dep.len(), longest_dep.as_secs()), (30, 1, 6, 1));
    assert!(fast.iter().chain(&dep).all(|report| report.outcome.is_success()));
    assert!(!stack.engine.transcript().contains("p-db"), "db is not recreated by a run");
    assert_eq!(db_environment(&stack), ["VERSION=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_recreates_a_service_holds_up_only_the_runs_that_need_it_and_those_to_their_limit() {
    let stack = busy("25s").await;
    let start = async {
        sleep(3 * SECOND).await;
        stack.runner.start(&name("db")).await
    };
    let (started, (fast, longest), (dep, longest_dep)) =
        tokio::join!(start, poll(&stack, "fast", 2 * SECOND), poll(&stack, "dep", 5 * SECOND));
    started.unwrap();
    assert_eq!((fast.len(), longest.as_secs()), (30, 1));
    assert!(fast.iter().all(|report| report.outcome.is_success()));
    assert_eq!(longest_dep.as_secs(), 15);
    let timed_out: Vec<&RunReport> = dep.iter().filter(|report| report.outcome == Outcome::TimedOut).collect();
    assert_eq!(timed_out.len(), 1, "{dep:?}");
    let waits = "not started within 15s: waits for service db, which is being recreated";
    assert_eq!(timed_out[0].error.as_deref(), Some(waits));
    assert_eq!(db_environment(&stack), ["VERSION=2"]);
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
}

/// `db` of [`BUSY`] up, which takes 10 s to stop.
async fn with_db() -> Stack {
    let stack = Stack::new(&BUSY.replace("40s", "10s"));
    stack.engine.script("db", Script { ignores_stop: true, ..Script::stays() });
    stack.runner.start(&name("db")).await.unwrap();
    stack
}

#[tokio::test(start_paused = true)]
async fn operations_on_a_service_are_carried_out_in_their_order() {
    let (stack, db) = (with_db().await, name("db"));
    let after = async || sleep(SECOND).await;
    let start = async {
        after().await;
        stack.runner.start(&db).await
    };
    let (stopped, started) = tokio::join!(stack.runner.stop(&db), start);
    stopped.and(started).unwrap();
    assert_eq!(stack.engine.running_names(), ["p-db-1"], "the start came last");

    stack.runner.stop(&db).await.unwrap();
    stack.engine.fail("start container", Fault::Slow(5 * SECOND));
    let stop = async {
        after().await;
        stack.runner.stop(&db).await
    };
    let (started, stopped) = tokio::join!(stack.runner.start(&db), stop);
    started.and(stopped).unwrap();
    assert_eq!(stack.engine.running_names(), [""; 0], "the stop came last");
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_for_its_turn_beside_a_stop_of_its_dependency_and_starts_it_again() {
    let (stack, db) = (with_db().await, name("db"));
    let run = async {
        sleep(SECOND).await;
        stack.run("dep").await
    };
    let (stopped, report) = tokio::join!(stack.runner.stop(&db), run);
    stopped.unwrap();
    let report = report.unwrap();
    assert!(report.outcome.is_success() && report.duration >= 9 * SECOND, "{report:?}");
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_is_finished_also_when_nobody_waits_for_it_any_more() {
    let stack = busy("25s").await;
    assert!(timeout(5 * SECOND, stack.runner.start(&name("db"))).await.is_err());
    assert!(!stack.engine.running_names().is_empty(), "it is still being stopped");
    sleep(30 * SECOND).await;
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
    assert_eq!(db_environment(&stack), ["VERSION=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_dependency_is_started_again_although_the_run_that_wanted_it_is_over() {
    let stack = busy("25s").await;
    stack.engine.kill_container("p-db-1").await.unwrap();
    stack.engine.fail("create container", Fault::Slow(20 * SECOND));
    let report = stack.run("dep").await.unwrap();
    assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::TimedOut, 15));
    let error = report.error.unwrap();
    assert!(error.contains("waits for the engine's answer to `create container"), "{error}");
    sleep(10 * SECOND).await;
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
    assert_eq!(db_environment(&stack), ["VERSION=2"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_recreation_stopped_is_started_also_when_the_daemon_ends() {
    let stack = busy("5s").await;
    let abort = async {
        sleep(SECOND).await;
        stack.stages.intake.cancel();
        stack.stages.abort.cancel();
    };
    let db = name("db");
    let (started, ()) = tokio::join!(stack.runner.start(&db), abort);
    started.unwrap();
    assert_eq!(stack.engine.running_names(), ["p-db-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_not_answered_for_holds_up_only_those_that_need_it_and_those_to_their_limit() {
    let stack = Stack::new(
        "
name: p
services:
  a: {image: 'busybox:test', networks: [one]}
  b: {image: 'busybox:test', networks: [one]}
  c: {image: 'busybox:test', networks: [two]}
  d: {image: 'busybox:test', network_mode: none}
networks: {one: {}, two: {}}
",
    );
    stack.engine.fail("create network", Fault::Unanswered);
    let (a, b, c, d) = tokio::join!(stack.run("a"), stack.run("b"), stack.run("c"), stack.run("d"));
    for (report, what) in
        [(a, "the engine's answer to `create network p_one`"), (b, "network p_one, which is being created")]
    {
        let report = report.unwrap();
        assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::TimedOut, 60));
        assert_eq!(report.error, Some(format!("not started within 1m: waits for {what}")));
    }
    for report in [c, d] {
        let report = report.unwrap();
        assert_eq!((report.outcome, report.duration.as_secs()), (Outcome::Succeeded, 1), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependency_waits_for_its_own_dependencies() {
    let stack = Stack::new(
        "
name: p
services:
  cache: {image: 'busybox:test', healthcheck: {test: 'true'}}
  api: {image: 'busybox:test', depends_on: {cache: {condition: service_healthy}}}
  job: {image: 'busybox:test', depends_on: [api]}
",
    );
    let health = Some((20 * SECOND, bollard::models::HealthStatusEnum::HEALTHY));
    stack.engine.script("cache", Script { health, ..Script::stays() });
    stack.engine.script("api", Script::stays());
    assert!(stack.run("job").await.unwrap().outcome.is_success());
    insta::assert_snapshot!(stack.engine.transcript(), @r"
      0s create network p_default
      0s create p-cache-1
      0s create p-api-1
      0s start p-cache-1
     20s start p-api-1
     20s create job
     20s start job
     21s remove job
    ");
}

#[tokio::test(start_paused = true)]
async fn a_network_that_somebody_else_made_first_is_used() {
    let stack = Stack::new(PLAIN);
    stack.engine.fail("create network", Fault::Slow(SECOND));
    let mut body = NetworkBody::default();
    body.body.name = "p_default".to_owned();
    let labels = [("com.docker.compose.project", "p"), ("com.docker.compose.network", "default")];
    body.body.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let other = async {
        sleep(SECOND / 2).await;
        stack.engine.create_network(&body).await.unwrap();
    };
    let (report, ()) = tokio::join!(stack.run("weather"), other);
    assert_eq!(report.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(stack.engine.transcript().matches("create network").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pull_does_not_count_against_the_limit_and_the_image_that_it_brings_is_the_one_that_is_used() {
    let stack = Stack::new("{name: p, services: {a: {image: 'there:1'}}}");
    stack.engine.offer_slow_image("there:1", 600 * SECOND);
    stack.engine.script("a", Script::exits(0, 50 * SECOND));
    let (engine, runner) = (Arc::clone(&stack.engine), stack.runner.clone());
    let look = async move {
        sleep(300 * SECOND).await;
        assert_eq!(runner.overrun(), [], "it is no run that does not end");
        sleep(310 * SECOND).await;
        let running = engine.running_names();
        engine.body(&running[0]).body.labels.unwrap()["com.docker.compose.image"].clone()
    };
    let (report, image) = tokio::join!(stack.run("a"), look);
    assert_eq!(report.unwrap().outcome, Outcome::Succeeded);
    let expected = stack.engine.image("there:1").await.unwrap().unwrap().id.unwrap();
    assert_eq!(image, expected);
}

#[tokio::test(start_paused = true)]
async fn a_start_uses_the_image_that_its_pull_brings() {
    let stack = Stack::new("{name: p, services: {a: {image: 'there:1'}}}");
    stack.engine.offer_image("there:1");
    stack.engine.script("a", Script::stays());
    stack.runner.start(&name("a")).await.unwrap();
    let image = stack.engine.body("p-a-1").body.labels.unwrap()["com.docker.compose.image"].clone();
    assert_eq!(Some(image), stack.engine.image("there:1").await.unwrap().unwrap().id);
}

#[tokio::test(start_paused = true)]
async fn what_a_service_shares_with_one_that_is_created_beside_it_is_named_by_its_id() {
    let stack = Stack::new(
        "
name: p
services:
  web: {image: 'busybox:test'}
  sidecar: {image: 'busybox:test', network_mode: 'service:web'}
  job: {image: 'busybox:test', network_mode: 'service:sidecar'}
",
    );
    for service in ["web", "sidecar", "job"] {
        stack.engine.script(service, Script::stays());
    }
    let look = async {
        sleep(SECOND).await;
        let mut modes = Vec::new();
        for container in stack.engine.container_names() {
            let mode = stack.engine.body(&container).body.host_config.unwrap().network_mode.unwrap();
            let shared = mode.strip_prefix("container:");
            let Some(id) = shared else { continue };
            modes.push(stack.engine.container(id).await.unwrap().unwrap().name.unwrap());
            assert_eq!(id.len(), 64, "{container}: {id}");
        }
        modes.sort_unstable();
        modes
    };
    let (_, modes) = tokio::join!(timeout(2 * SECOND, stack.run("job")), look);
    assert_eq!(modes, ["/p-sidecar-1", "/p-web-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_differs_and_runs_is_told_once_with_what_applies_it() {
    let log = Log::capture();
    let stack = changed("VERSION: '1'", "VERSION: '2'").await;
    for _ in 0..3 {
        stack.run("job").await.unwrap();
    }
    let told = log.lines("differs from its configuration, left as it is while it runs");
    assert_eq!(told.len(), 1, "{told:?}");
    for word in ["service db", "configuration changed", "start_service db", "docker compose up -d db"] {
        assert!(told[0].to_string().contains(word), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_that_changes_its_name_is_not_followed_and_says_so() {
    let stack = Stack::new(PLAIN);
    stack.folder.write("compose.yaml", &PLAIN.replace("name: p", "name: other"));
    assert!(stack.run("weather").await.unwrap().outcome.is_success());
    assert!(stack.engine.transcript().contains("create network p_default"));
    let broken = stack.runner.broken_project().unwrap();
    assert!(broken.contains("name changed from p to other"), "{broken}");
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_same_size_whose_time_was_set_back_is_seen() {
    let stack = Stack::new(PLAIN);
    let path = stack.folder.0.join("compose.yaml");
    let before = std::fs::metadata(&path).unwrap();
    let edited = PLAIN.replace("weather: {image: 'busybox:test'", "weather: {image: 'missing:test'");
    assert_eq!(edited.len(), PLAIN.len());
    let changed = |path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    // The kernel's clock for files has a coarse grain.
    while changed(&path) == (before.ctime(), before.ctime_nsec()) {
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, edited.as_bytes()).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    }
    let report = stack.run("weather").await.unwrap();
    assert!(report.error.is_some_and(|error| error.contains("missing:test")));
}
