//! One daemon works on a project: the others end, or stand by until it is gone.

use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::engine::Engine;
use sense_orchestrator::lease::{Claim, Lease, NotHeld, RENEWAL, TIME_TO_LIVE};
use tokio::time::{Instant, sleep};

use crate::daemon::Site;
use crate::support::bus::FakeBus;
use crate::support::engine::FakeEngine;
use crate::support::stack::Folder;

const KEY: &str = "attic:lease:FAKE:p";

fn lease(bus: &Arc<FakeBus>, owner: &str, pid: u32) -> Lease<FakeEngine, FakeBus> {
    let engine = FakeEngine::new();
    let own = Claim { owner: owner.to_owned(), token: 0, pid, host: "here".to_owned() };
    Lease::new(engine, Arc::clone(bus), "p".parse().unwrap(), own)
}

fn token(bus: &FakeBus) -> u64 {
    bus.json(KEY).unwrap()["token"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_crashed_daemons_lease_is_free_after_ten_seconds_and_the_next_has_a_higher_token() {
    let bus = FakeBus::with_prefix("attic:");
    lease(&bus, "a", 1).take().await.unwrap();
    let (first, begun) = (token(&bus), Instant::now());
    let mut second = lease(&bus, "b", 2);
    while let Err(error) = second.take().await {
        assert_eq!(error.to_string(), "another daemon works on project p: process 1 on here");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(begun.elapsed().as_secs(), TIME_TO_LIVE.as_secs());
    assert!(token(&bus) > first);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_takes_its_own_lease_over_at_once_twelve_times_in_a_row() {
    let bus = FakeBus::with_prefix("attic:");
    for life in 1..=12 {
        lease(&bus, "a", life).take().await.unwrap();
        assert_eq!((token(&bus), bus.json(KEY).unwrap()["pid"].as_u64()), (u64::from(life), Some(u64::from(life))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_kept_is_never_free_and_one_that_is_given_back_is_free_at_once() {
    let bus = FakeBus::with_prefix("attic:");
    let mut first = lease(&bus, "a", 1);
    first.take().await.unwrap();
    let others = async {
        for _ in 0..600 {
            assert!(matches!(lease(&bus, "b", 2).take().await, Err(NotHeld::Other { .. })));
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        error = first.keep() => panic!("{error}"),
        () = others => {}
    }
    first.give_back().await;
    lease(&bus, "b", 2).take().await.unwrap();
    first.give_back().await;
    assert_eq!(bus.json(KEY).unwrap()["owner"], "b", "another's lease is not given back");
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_another_took_while_redis_was_away_from_it_yields() {
    let bus = FakeBus::with_prefix("attic:");
    let mut first = lease(&bus, "a", 1);
    first.take().await.unwrap();
    sleep(2 * TIME_TO_LIVE).await;
    lease(&bus, "b", 2).take().await.unwrap();
    let begun = Instant::now();
    assert_eq!(first.keep().await.to_string(), "another daemon works on project p: process 2 on here");
    assert_eq!(begun.elapsed(), RENEWAL);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_taken_over_from_its_own_directory_yields_to_the_higher_token() {
    let bus = FakeBus::with_prefix("attic:");
    let (mut first, mut second) = (lease(&bus, "a", 1), lease(&bus, "a", 2));
    first.take().await.unwrap();
    second.take().await.unwrap();
    assert!(matches!(first.take().await, Err(NotHeld::Other { claim: Claim { pid: 2, .. }, .. })));
    second.take().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_redis_lost_is_taken_again_and_a_text_that_is_no_lease_stops_nobody() {
    let bus = FakeBus::with_prefix("attic:");
    let mut first = lease(&bus, "a", 1);
    first.take().await.unwrap();
    bus.forget();
    first.take().await.unwrap();
    bus.put_text(KEY, "no lease");
    first.take().await.unwrap();
    assert_eq!(bus.json(KEY).unwrap()["owner"], "a");
    assert!(bus.expires_in(KEY).unwrap() <= TIME_TO_LIVE);
}

#[tokio::test(start_paused = true)]
async fn without_redis_the_lease_is_neither_ours_nor_anothers() {
    let bus = FakeBus::with_prefix("attic:");
    let mut first = lease(&bus, "a", 1);
    bus.go_down();
    assert!(matches!(first.take().await, Err(NotHeld::Redis(_))));
    bus.come_back();
    first.take().await.unwrap();
}

const SERVICE: &str = "
  ok: {image: IMAGE, command: [sh, -c, 'sleep 0.3'], profiles: [poll]}
";

#[tokio::test]
async fn of_two_daemons_from_different_folders_with_one_redis_the_second_ends_and_the_next_takes_over() {
    let Some(site) = Site::new(SERVICE, "services: {ok: {every: 1s}}\n").await else { return };
    let mut first = site.start();
    first.says_all(&["run succeeded"]).await;
    let elsewhere = Folder::new();
    for file in ["compose.yaml", "settings.yaml"] {
        std::fs::copy(site.folder.0.join(file), elsewhere.0.join(file)).unwrap();
    }
    let second = |standby: &str| {
        let mut command = site.command(&[]);
        command.current_dir(&elsewhere.0).env("RUNTIME_DIRECTORY", &elsewhere.0);
        command.env("ORCHESTRATOR_DAEMON__STANDBY", standby);
        command
    };
    let ended = second("exit").output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let pid = first.id();
    assert!(said.contains(&format!("another daemon works on project {}: process {pid} on ", site.project)), "{said}");
    assert!(!said.contains("run succeeded"), "it did no work: {said}");

    let mut waits = Site::start_command(second("wait"));
    waits.says_all(&["waiting for the lease"]).await;
    first.signal("-KILL");
    first.ends().await;
    let begun = Instant::now();
    waits.says_all(&["the other daemon is gone", "run succeeded"]).await;
    assert!(begun.elapsed() < TIME_TO_LIVE + Duration::from_secs(5), "{:?}", begun.elapsed());
    waits.signal("-TERM");
    assert_eq!(waits.ends().await.code(), Some(0));
    site.close().await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_twelve_times_waits_for_no_lease_of_its_own_and_misses_no_slot() {
    let settings = "scheduler: {first_run: due}\nstate: {dir: state}\nservices: {ok: {every: 10s}}\n";
    let Some(site) = Site::new(SERVICE, settings).await else { return };
    for life in 1..=12 {
        let begun = Instant::now();
        let mut daemon = site.start();
        daemon.says_all(&["scheduled"]).await;
        assert!(begun.elapsed() < TIME_TO_LIVE * 4 / 5, "life {life} took {:?}", begun.elapsed());
        daemon.signal("-KILL");
        daemon.ends().await;
        let waited = ["waiting for the lease", "starting without a lease", "slots missed, the daemon did not run"];
        let said = daemon.seen.iter().find(|line| waited.iter().any(|message| line["message"] == *message));
        assert_eq!(said, None, "life {life}");
    }
    let mut daemon = site.start();
    daemon.says_all(&["run succeeded"]).await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn the_engine_has_an_id_that_stays() {
    let Some(engine) = crate::support::docker::engine().await else { return };
    let id = engine.id().await.unwrap();
    assert!(!id.is_empty());
    assert_eq!(engine.id().await.unwrap(), id);
}
