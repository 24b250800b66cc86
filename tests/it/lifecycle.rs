//! What follows events: a stream that ended is cleaned up.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::engine::Script;
use crate::support::reference::Stack;

async fn streaming() -> Stack {
    let stack = Stack::dispatching().await;
    stack.script("source-camera", Script::stays());
    stack.call("start_camera", json!({})).await;
    stack.engine.transcript();
    stack
}

fn ended(reason: &str) -> String {
    json!({"source_id": "network_camera", "reason": reason, "timestamp": 1.5}).to_string()
}

fn stops(transcript: &str) -> usize {
    transcript.lines().filter(|line| line.contains(" stop ")).count()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ended_is_stopped_after_two_seconds_and_its_status_says_why() {
    let stack = streaming().await;
    stack.bus.send("stream:ended", ended("ffmpeg exited"));
    sleep(Duration::from_millis(1900)).await;
    assert_eq!(stack.engine.running_names().len(), 1);
    sleep(Duration::from_secs(2)).await;
    assert!(stack.engine.running_names().is_empty());
    assert_eq!(
        stack.bus.json("status:network_camera").unwrap(),
        json!({
            "source_id": "network_camera",
            "last_poll": null,
            "last_success": null,
            "last_error": "Stream ended: ffmpeg exited",
            "poll_count": 0,
            "error_count": 0
        })
    );
    let expires = stack.bus.expires_in("status:network_camera").unwrap();
    assert!(expires > Duration::from_secs(115) && expires <= Duration::from_mins(2), "{expires:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_source_said_of_itself_does_not_hold_after_its_end() {
    let stack = streaming().await;
    let status = json!({"source_id": "network_camera", "last_poll": 5.5, "last_success": 4, "last_error": null,
        "poll_count": 7, "error_count": 2});
    stack.bus.put("status:network_camera", &status);
    stack.bus.send("stream:ended", ended("EOF"));
    sleep(Duration::from_secs(5)).await;
    let status = stack.bus.json("status:network_camera").unwrap();
    assert_eq!((&status["last_success"], &status["poll_count"]), (&Value::Null, &json!(0)));
    assert_eq!(status["last_error"], "Stream ended: EOF");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_events_cleans_up_once_and_a_later_event_again() {
    let stack = streaming().await;
    for n in 0..100 {
        stack.bus.send("stream:ended", ended(&n.to_string()));
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stops(&stack.engine.transcript()), 1);
    assert_eq!(
        stack.bus.json("status:network_camera").unwrap()["last_error"],
        "Stream ended: 99",
        "the last of them counts"
    );
    stack.call("start_camera", json!({})).await;
    stack.bus.send("stream:ended", ended("again"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stops(&stack.engine.transcript()), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_of_the_camera_stops_nothing() {
    let stack = streaming().await;
    let long = json!({"source_id": "network_camera", "reason": "x".repeat(1 << 20)}).to_string();
    for text in [&"[".repeat(100_000), &long, r#"{"source_id": "other"}"#, r#"{"source_id": 5}"#] {
        stack.bus.send("stream:ended", text);
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(stack.engine.running_names().len(), 1);
    assert_eq!(stack.bus.json("status:network_camera"), None);
}

#[tokio::test(start_paused = true)]
async fn a_reason_of_another_type_is_unknown() {
    let stack = streaming().await;
    stack.bus.send("stream:ended", json!({"source_id": "network_camera", "reason": ["x"]}).to_string());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stack.bus.json("status:network_camera").unwrap()["last_error"], Value::from("Stream ended: unknown"));
}

// In real time, because what was started since is told by the wall clock.
#[tokio::test]
async fn a_stream_that_was_started_again_meanwhile_is_left_running() {
    let stack = streaming().await;
    sleep(Duration::from_millis(50)).await;
    stack.bus.send("stream:ended", ended("lost"));
    sleep(Duration::from_millis(50)).await;
    stack.call("restart_service", json!({"service": "source-camera"})).await;
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(stack.engine.running_names(), ["sense-source-camera-1"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_no_json_counts_and_its_reason_is_unknown() {
    for text in ["", "[]", "null", "{", "gone", "\u{0}", "\u{fffd}{\"source_id\": \"other\"}"] {
        let stack = streaming().await;
        stack.bus.send("stream:ended", text);
        sleep(Duration::from_secs(5)).await;
        assert!(stack.engine.running_names().is_empty(), "{text:?}");
        let status = stack.bus.json("status:network_camera").unwrap();
        assert_eq!(status["last_error"], "Stream ended: unknown", "{text:?}");
    }
}

// In real time, as above.
#[tokio::test]
async fn a_stream_that_ended_again_while_the_first_end_was_followed_is_stopped_too() {
    let stack = streaming().await;
    sleep(Duration::from_millis(50)).await;
    stack.bus.send("stream:ended", ended("first"));
    sleep(Duration::from_millis(50)).await;
    stack.call("restart_service", json!({"service": "source-camera"})).await;
    sleep(Duration::from_millis(50)).await;
    stack.bus.send("stream:ended", ended("second"));
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(stack.engine.running_names().len(), 1, "the first end was before its start");
    assert_eq!(stack.bus.json("status:network_camera"), None, "it runs");
    sleep(Duration::from_secs(2)).await;
    assert!(stack.engine.running_names().is_empty());
    assert_eq!(stack.bus.json("status:network_camera").unwrap()["last_error"], "Stream ended: second");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_during_a_discovery_is_cleaned_up_in_time() {
    let stack = streaming().await;
    stack.script("source-camera", Script::exits(0, Duration::from_secs(40)));
    let _ = tokio::join!(stack.call("discover_cameras", json!({})), async {
        sleep(Duration::from_secs(3)).await;
        stack.bus.send("stream:ended", ended("lost"));
        sleep(Duration::from_millis(2500)).await;
        assert!(!stack.engine.running_names().contains(&"sense-source-camera-1".to_owned()));
    });
}

/// A stack that reacts to a full disk.
fn reacting(reaction: &str) -> Stack {
    let stack = Stack::new();
    stack.start_dispatcher_with(|options| {
        options.reactions.insert("disk:full".into(), serde_yaml::from_str(reaction).unwrap());
    });
    stack
}

#[tokio::test(start_paused = true)]
async fn events_with_different_effects_are_each_followed_and_equal_ones_once() {
    let stack = reacting("[ { run: source-weather, env: { DISK: '{payload.disk}' } } ]");
    stack.script("source-weather", Script::exits(0, Duration::from_secs(5)));
    sleep(Duration::from_millis(1)).await;
    for disk in ["a", "b", "c", "b", "c", "a"] {
        stack.bus.send("disk:full", json!({"disk": disk}).to_string());
    }
    let mut disks = Vec::new();
    for _ in 0..6 {
        sleep(Duration::from_secs(3)).await;
        let names = stack.engine.container_names();
        let environment = names.first().and_then(|name| stack.engine.body(name).body.env).unwrap_or_default();
        disks.extend(environment.into_iter().filter(|variable| variable.starts_with("DISK=")));
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(disks, ["DISK=a", "DISK=b", "DISK=c", "DISK=a"]);
}

#[tokio::test(start_paused = true)]
async fn no_reaction_begins_in_shutdown() {
    let stack = reacting("[ { stop: source-camera }, { status: network_camera, error: '{payload.disk}' } ]");
    stack.script("source-camera", Script { ignores_stop: true, ..Script::stays() });
    stack.runner.start(&"source-camera".parse().unwrap()).await.unwrap();
    stack.runner.start(&"source-weather".parse().unwrap()).await.unwrap();
    stack.engine.transcript();
    stack.bus.send("disk:full", r#"{"disk": "first"}"#);
    sleep(Duration::from_secs(1)).await;
    let hold = stack.work.token();
    stack.bus.send("disk:full", r#"{"disk": "held"}"#);
    sleep(Duration::from_secs(1)).await;
    stack.intake.cancel();
    stack.work.close();
    sleep(Duration::from_secs(30)).await;
    stack.bus.send("disk:full", r#"{"disk": "late"}"#);
    sleep(Duration::from_secs(30)).await;
    drop(hold);
    assert_eq!(stops(&stack.engine.transcript()), 1);
    let status = stack.bus.json("status:network_camera").unwrap();
    assert_eq!(status["last_error"], "first", "neither the one that was held was begun nor the one that came later");
}
