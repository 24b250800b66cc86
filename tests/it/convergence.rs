//! What a run does to containers that are there already.

use crate::support::engine::Script;
use crate::support::stack::{Stack, name};

const STACK: &str = "
name: p
services:
  db: {image: 'busybox:test', environment: {VERSION: '1'}, networks: [back]}
  job: {image: 'busybox:test', depends_on: {db: {condition: service_started, restart: true}}, networks: [back]}
networks: {back: {labels: {version: '1'}}}
";

/// Both services up, with their files changed since.
async fn changed(from: &str, to: &str) -> Stack {
    let stack = Stack::new(STACK);
    stack.engine.script("db", Script::stays());
    stack.engine.script("job", Script::stays());
    stack.runner.start(&name("job")).await.unwrap();
    stack.engine.script("job", Script::default());
    stack.folder.write("compose.yaml", &STACK.replace(from, to));
    stack.engine.transcript();
    stack
}

#[tokio::test(start_paused = true)]
async fn a_run_recreates_a_dependency_and_leaves_its_services_own_container_running() {
    let stack = changed("VERSION: '1'", "VERSION: '2'").await;
    assert!(stack.run("job").await.unwrap().outcome.is_success());
    insta::assert_snapshot!(stack.engine.transcript(), @r"
    0s create 000000000000_p-db-1
    0s stop p-db-1
    0s remove p-db-1
    0s rename 000000000000_p-db-1 to p-db-1
    0s start p-db-1
    0s create job
    0s start job
    1s remove job
    ");
    assert_eq!(stack.engine.running_names(), ["p-db-1", "p-job-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_does_not_stop_its_services_own_container_for_a_changed_network() {
    let stack = changed("version: '1'", "version: '2'").await;
    let report = stack.run("job").await.unwrap();
    insta::assert_snapshot!(stack.engine.transcript(), @r"
    0s stop p-db-1
    0s disconnect p-db-1 from p_back
    0s remove network p_back
    0s create network p_back
    0s connect p-db-1 to p_back
    0s start p-db-1
    0s create job
    0s start job
    1s remove job
    ");
    assert_eq!(stack.engine.running_names(), ["p-db-1", "p-job-1"], "{report:?}");
}
