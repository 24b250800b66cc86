//! The real binary on a real Engine that loses calls, and with kills of either in the middle of a run.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest};
use sense_orchestrator::engine::Engine;
use sense_orchestrator::spec::{ContainerBody, CreateContainer, Slug};
use tokio::time::{Instant, sleep};

use crate::daemon::{PATIENCE, Site};
use crate::support::docker;
use crate::support::proxy::{Mishap, Proxy};

const SHORT: &str = "
  short: {image: IMAGE, command: [sh, -c, 'sleep 1; exit 3'], init: true, stop_grace_period: 1s, profiles: [poll]}
";

const SHORT_SETTINGS: &str = "
health: {interval: 1s}
services:
  short: {every: 1h}
";

const LIMITED_SETTINGS: &str = "
services:
  short: {every: 1h, timeout: 15s}
";

const CREATE: &[&str] = &["POST", "/containers/create", "-short-run-"];
const START: &[&str] = &["POST", "-short-run-", "/start"];
// Once it is created a container is spoken of by its id.
const WAIT: &[&str] = &["POST", "/containers/", "/wait"];
const REMOVE: &[&str] = &["DELETE", "/containers/"];

/// A site whose daemon reaches the Engine through a proxy.
async fn site(services: &str, settings: &str) -> Option<(Site, Proxy)> {
    let mut site = Site::new(services, settings).await?;
    let socket = site.folder.0.join("engine.sock");
    site.host = format!("unix://{}", socket.display());
    let proxy = Proxy::start(&socket, &docker::host());
    Some((site, proxy))
}

#[tokio::test]
async fn a_kill_in_any_call_of_a_run_leaves_nothing_that_the_next_start_does_not_clean_up() {
    let Some((site, proxy)) = site(SHORT, SHORT_SETTINGS).await else { return };
    for (count, call) in [CREATE, START, WAIT, REMOVE].into_iter().enumerate() {
        proxy.expect(call, Mishap::Held(Duration::from_millis(700)));
        let mut first = site.start();
        let end = Instant::now() + PATIENCE;
        while proxy.met() <= count {
            assert!(Instant::now() < end, "no {call:?}");
            sleep(Duration::from_millis(10)).await;
        }
        first.signal("-KILL");
        assert!(!first.ends().await.success());
        // What was held back arrives before or after the next look: both have to do.
        let mut second = site.start();
        second.says("run failed", Some("short")).await;
        second.signal("-TERM");
        assert!(second.ends().await.success());
        sleep(Duration::from_secs(1)).await;
        let mut third = site.start();
        third.says("run failed", Some("short")).await;
        third.signal("-TERM");
        assert!(third.ends().await.success());
        site.has_no_one_offs().await;
    }
    site.close().await;
}

#[tokio::test]
async fn calls_that_are_carried_out_and_answered_wrongly_leave_no_container() {
    let Some((site, proxy)) = site(SHORT, SHORT_SETTINGS).await else { return };
    for (call, mishap) in [
        (CREATE, Mishap::Cut),
        (CREATE, Mishap::Refused),
        (START, Mishap::Cut),
        (START, Mishap::Refused),
        (REMOVE, Mishap::Cut),
        (REMOVE, Mishap::Refused),
    ] {
        proxy.expect(call, mishap);
        let mut daemon = site.start();
        let line = daemon.says("run failed", Some("short")).await;
        site.has_no_one_offs().await;
        // A start that was carried out is followed, whatever was answered.
        let exited = call != CREATE;
        assert_eq!(line["exit_code"] == 3, exited, "{call:?} {mishap:?}: {line}");
        daemon.signal("-TERM");
        assert!(daemon.ends().await.success());
    }
    assert_eq!(proxy.met(), 6);
    site.close().await;
}

#[tokio::test]
async fn calls_that_are_carried_out_and_never_answered_leave_no_container() {
    let Some((site, proxy)) = site(SHORT, LIMITED_SETTINGS).await else { return };
    let messages = [(CREATE, "run timed out", "not started within 15s"), (START, "run failed", "exited 3")];
    for (count, (call, message, error)) in messages.into_iter().enumerate() {
        proxy.expect(call, Mishap::Unanswered);
        let mut daemon = site.start();
        let line = daemon.says(message, Some("short")).await;
        assert_eq!(line["error"], error, "{call:?}");
        assert_eq!(proxy.met(), count + 1, "{call:?}");
        site.has_no_one_offs().await;
        daemon.signal("-TERM");
        assert!(daemon.ends().await.success());
    }
    site.close().await;
}

const STALLED: &str = "
  short: {image: IMAGE, command: [sh, -c, 'exit 3'], profiles: [poll]}
  other: {image: IMAGE, command: ['true'], network_mode: none, profiles: [poll]}
";

const STALLED_SETTINGS: &str = "
services:
  short: {every: 6s, timeout: 5s}
  other: {every: 1s}
";

#[tokio::test]
async fn an_answer_that_stalls_ends_its_own_run_at_its_limit_and_holds_up_no_other() {
    let Some((site, proxy)) = site(STALLED, STALLED_SETTINGS).await else { return };
    proxy.expect(&["GET", "/networks/"], Mishap::Stalled);
    let mut daemon = site.start();
    let line = daemon.says("run timed out", Some("short")).await;
    assert_eq!((line["error"].as_str(), proxy.met()), (Some("not started within 5s"), 1));
    let others = daemon.seen.iter().filter(|line| line["message"] == "run succeeded" && line["service"] == "other");
    assert!(others.count() >= 2, "{:#?}", daemon.seen);
    daemon.says("run failed", Some("short")).await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

const STUCK: &str = "
  stuck: {image: IMAGE, command: [sleep, '300'], init: true, stop_grace_period: 1s, network_mode: none, profiles: [poll]}
";

const STUCK_SETTINGS: &str = "
services:
  stuck: {every: 1h, timeout: 1s}
";

#[tokio::test]
async fn a_run_that_does_not_end_after_its_limit_and_its_grace_makes_the_daemon_unwell() {
    let Some((site, proxy)) = site(STUCK, STUCK_SETTINGS).await else { return };
    for call in [&["POST", "/containers/", "/stop"], &["POST", "/containers/", "/kill"]] {
        proxy.expect(call, Mishap::Held(Duration::from_hours(1)));
    }
    let mut daemon = site.start();
    site.runs("stuck").await;
    let begun = Instant::now();
    let health = loop {
        let asked = site.command(&["health"]).output().await.unwrap();
        let health: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        if health["well"] == false {
            assert_eq!(asked.status.code(), Some(1));
            break health;
        }
        assert!(begun.elapsed() < PATIENCE, "{asked:?}");
        sleep(Duration::from_millis(500)).await;
    };
    // Its limit, its grace period, and 15 s, of which the start of the container took a part.
    assert!((13..25).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let problem = health["problems"][0].as_str().unwrap_or_default();
    assert!(problem.starts_with("run ") && problem.ends_with(" of stuck goes on past its limit"), "{health}");
    daemon.signal("-KILL");
    assert!(!daemon.ends().await.success());
    let mut next = site.start();
    site.has_no_one_offs().await;
    next.signal("-TERM");
    assert!(next.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn a_daemon_without_an_engine_waits_for_it_and_then_runs_everything() {
    let Some((site, proxy)) = site(SHORT, SHORT_SETTINGS).await else { return };
    drop(proxy);
    let mut daemon = site.start();
    daemon.says_all(&["engine not there yet, trying on", "engine unavailable"]).await;
    let proxy = Proxy::start(&site.folder.0.join("engine.sock"), &docker::host());
    daemon.says_all(&["engine is there", "engine available", "run failed"]).await;
    drop(proxy);
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn a_network_that_two_clients_made_at_the_same_time_is_one_again_at_the_next_run() {
    let Some(site) = Site::new(SHORT, SHORT_SETTINGS).await else { return };
    let client = docker::client(&docker::host().parse().unwrap()).unwrap();
    let name = format!("{}_default", site.project);
    let labels = [("com.docker.compose.project", site.project.as_str()), ("com.docker.compose.network", "default")];
    let labels: HashMap<String, String> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    for _ in 0..2 {
        let request = NetworkCreateRequest {
            name: name.clone(),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        // Newer Engines refuse the second.
        let _ = client.create_network(request).await;
    }
    let mut daemon = site.start();
    let line = daemon.says("run failed", Some("short")).await;
    assert_eq!(line["exit_code"], 3, "{line}");
    assert_eq!(site.engine.networks(&name).await.unwrap().len(), 1);
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn a_one_off_with_our_labels_and_another_name_is_in_nobodys_way_and_stays() {
    let Some(site) = Site::new(SHORT, SHORT_SETTINGS).await else { return };
    let (project, service) = (site.project.parse().unwrap(), "short".parse().unwrap());
    let slug = Slug::new([7; 24], &project, &service);
    let labels = HashMap::from([
        ("com.docker.compose.project".to_owned(), site.project.clone()),
        ("com.docker.compose.service".to_owned(), "short".to_owned()),
        ("com.docker.compose.oneoff".to_owned(), "True".to_owned()),
        ("com.docker.compose.slug".to_owned(), slug.as_str().to_owned()),
    ]);
    let forged = ["live", "dead"].map(|what| format!("{project}-forged-{what}"));
    for (name, script) in forged.iter().zip(["sleep 1000", "true"]) {
        let body = ContainerCreateBody {
            image: Some(docker::IMAGE.to_owned()),
            cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            labels: Some(labels.clone()),
            host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let container = CreateContainer {
            name: name.clone(),
            platform: None,
            body: ContainerBody { body, mac_address: None },
            connect: Vec::new(),
        };
        site.engine.create_container(&container).await.unwrap();
        site.engine.start_container(name).await.unwrap();
    }
    let mut daemon = site.start();
    let line = daemon.says("run failed", Some("short")).await;
    assert_eq!(line["exit_code"], 3, "it ran: {line}");
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    let mut left: Vec<String> = site.one_offs().await.into_keys().collect();
    left.sort_unstable();
    assert_eq!(left, ["dead", "live"].map(|what| format!("/{project}-forged-{what}")));
    assert_eq!(site.one_offs().await[&left[1]], "running");
    site.close().await;
}
