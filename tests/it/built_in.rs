//! The actions that every stack has over Redis, without any in its settings.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::daemon::{PATIENCE, Site};
use crate::support::reference::reply_channel;

const JOBS: &str = "
  tick: {image: IMAGE, command: [echo, done], profiles: [jobs]}
  other: {image: IMAGE, command: [sh, -c, 'echo other; exit 3'], profiles: [jobs]}
";

const SETTINGS: &str = "
runs: {keep_output: all}
scheduler: {first_run: next_slot}
services: {tick: {every: 1h}}
actions:
  stop_service: [{run: other}]
";

/// Sends a command and waits for its reply.
async fn call(site: &Site, action: &str, service: Option<&str>) -> Value {
    let mut client = site.redis.client().await;
    let id = format!("{action}-{}", service.unwrap_or_default());
    let params = service.map_or_else(|| json!({}), |service| json!({"service": service}));
    let command = json!({"action": action, "request_id": id, "params": params}).to_string();
    let end = Instant::now() + PATIENCE;
    while client.call(&["PUBLISH", "cmd:orchestrator", &command]).await.number() == 0 {
        assert!(Instant::now() < end, "nobody listens");
        sleep(Duration::from_millis(100)).await;
    }
    loop {
        if let Some(reply) = client.call(&["GET", &reply_channel(&id)]).await.text() {
            return serde_json::from_str(&reply).unwrap();
        }
        assert!(Instant::now() < end, "no reply to {action}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stack_without_actions_has_those_that_are_built_in_for_the_services_of_its_schedule() {
    let Some(site) = Site::new(JOBS, SETTINGS).await else { return };
    let mut daemon = site.start();
    let ok = async |action: &str, service: Option<&str>| {
        let reply = call(&site, action, service).await;
        assert_eq!(reply["status"], "ok", "{action}: {reply}");
        reply["data"].clone()
    };
    let refused = async |action: &str, service: &str, why: &str| {
        let reply = call(&site, action, Some(service)).await;
        assert!(reply["status"] == "error" && reply["error"].as_str().unwrap().contains(why), "{action}: {reply}");
    };
    ok("trigger", Some("tick")).await;
    assert_eq!(ok("runs", Some("tick")).await["runs"][0]["state"], "succeeded");
    assert_eq!(ok("logs", Some("tick")).await["logs"], "done\n");
    assert_eq!(ok("pause", Some("tick")).await["paused"], true);
    assert_eq!(ok("status", None).await["services"]["tick"]["paused"], true);
    assert_eq!(ok("resume", Some("tick")).await["paused"], false);
    refused("cancel", "tick", "no run of tick goes on").await;
    for action in ["trigger", "start_service", "cancel", "pause", "resume", "runs", "logs"] {
        refused(action, "other", "service other is not allowed").await;
    }
    let own = call(&site, "stop_service", None).await;
    assert!(own["error"].as_str().unwrap().contains("exited 3"), "that of the settings, whose step is fixed: {own}");
    refused("nonsense", "tick", "unknown action").await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}
