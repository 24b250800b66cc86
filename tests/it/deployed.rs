//! The daemon in a container of the stack, under the real `docker compose`: files that a later `up` was given count.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::daemon::PATIENCE;
use crate::interop::Site;
use crate::support::docker;

/// A stack with the daemon as its service; busybox has no libraries, so the machine's are mounted.
fn stack(folder: &Path) -> String {
    let real = |path: &str| std::fs::canonicalize(path).ok();
    let mounts: Vec<(PathBuf, &str)> = [
        (Some(PathBuf::from(env!("CARGO_BIN_EXE_sense-orchestrator"))), "/orchestrator"),
        (Some(folder.to_path_buf()), "/project"),
        (real("/lib"), "/lib"),
        (real("/lib64"), "/lib64"),
        (Some(PathBuf::from(docker::host().trim_start_matches("unix://"))), "/var/run/docker.sock"),
    ]
    .into_iter()
    .filter_map(|(source, target)| Some((source?, target)))
    .collect();
    let volumes: Vec<String> =
        mounts.iter().map(|(source, target)| format!("'{}:{target}'", source.display())).collect();
    format!(
        "services:
  orchestrator:
    image: IMAGE
    command: [/orchestrator, --config, /project/settings.yaml, daemon]
    network_mode: none
    stop_grace_period: 3s
    healthcheck: {{test: [CMD, /orchestrator, --config, /project/settings.yaml, health], interval: 1s}}
    volumes: [{}]
  tick: {{image: IMAGE, network_mode: none, command: [echo, one], profiles: [jobs]}}
",
        volumes.join(", ")
    )
}

/// Waits until the daemon answers.
async fn answers(asked: &impl AsyncFn(&[&str]) -> Result<String, String>) {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = asked(&["ls"]).await {
        assert!(Instant::now() < end, "{error}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn files_that_a_later_up_was_given_count_where_our_own_service_is_in_them() {
    let Some(site) = Site::new("services: {}").await else { return };
    site.write(&stack(&site.folder.0));
    site.folder
        .write("settings.yaml", "preset: none\nservices: {tick: {every: 1h}}\nscheduler: {first_run: next_slot}\n");
    let asked = async |words: &[&str]| {
        let all = [&["exec", "-T", "orchestrator", "/orchestrator", "--config", "/project/settings.yaml"], words];
        site.run_compose(&all.concat()).await
    };
    // It is well without a Redis.
    site.compose(&["up", "-d", "--wait"]).await;
    let own = site.containers().await;
    answers(&asked).await;
    assert!(asked(&["run", "tick"]).await.unwrap().starts_with("one\n"));

    let late = "services: {tick: {command: [echo, two]}, web: {image: IMAGE, network_mode: none, command: [sleep, '1000'], stop_grace_period: 0s}}";
    site.folder.write("late.yaml", &late.replace("IMAGE", docker::IMAGE));
    site.compose(&["-f", "compose.yaml", "-f", "late.yaml", "up", "-d"]).await;
    let now = site.containers().await;
    assert!(own.iter().all(|(name, id)| now.get(name) == Some(id)), "the daemon's container is the old one");
    let said = asked(&["reload"]).await.unwrap();
    assert!(said.contains("web") && said.contains("late.yaml"), "{said}");
    assert!(asked(&["run", "tick"]).await.unwrap().starts_with("two\n"));
    let checked = asked(&["check"]).await.unwrap();
    assert!(checked.contains("file /project/compose.yaml\nfile /project/late.yaml\n"), "{checked}");

    let tools =
        "services: {tools: {image: IMAGE, network_mode: none, command: [sleep, '1000'], stop_grace_period: 0s}}";
    site.folder.write("tools.yaml", &tools.replace("IMAGE", docker::IMAGE));
    site.compose(&["-f", "tools.yaml", "up", "-d"]).await;
    assert_eq!(asked(&["reload"]).await.unwrap(), "nothing changed\n", "another stack under the same name");
    assert!(asked(&["run", "tick"]).await.unwrap().starts_with("two\n"));

    let refused = asked(&["stop", "orchestrator"]).await.unwrap_err();
    assert!(refused.contains("orchestrator's own service"), "{refused}");
    site.compose(&["restart", "orchestrator"]).await;
    answers(&asked).await;
    assert!(asked(&["run", "tick"]).await.unwrap().starts_with("two\n"), "after a restart, too");
    site.down().await;
}
