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
async fn the_status_keeps_what_the_source_said_of_itself() {
    let stack = streaming().await;
    let status = json!({"source_id": "network_camera", "last_poll": 5.5, "last_success": 4, "last_error": null,
        "poll_count": 7, "error_count": 2});
    stack.bus.put("status:network_camera", &status);
    stack.bus.send("stream:ended", ended("EOF"));
    sleep(Duration::from_secs(5)).await;
    let status = stack.bus.json("status:network_camera").unwrap();
    assert_eq!((&status["last_poll"], &status["last_success"]), (&json!(5.5), &json!(4.0)));
    assert_eq!((&status["poll_count"], &status["error_count"]), (&json!(7), &json!(2)));
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
    assert_eq!(stack.bus.json("status:network_camera").unwrap()["last_error"], "Stream ended: 0");
    stack.call("start_camera", json!({})).await;
    stack.bus.send("stream:ended", ended("again"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stops(&stack.engine.transcript()), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_of_the_camera_stops_nothing() {
    let stack = streaming().await;
    let long = json!({"source_id": "network_camera", "reason": "x".repeat(1 << 20)}).to_string();
    for text in [
        "",
        "[]",
        "null",
        "{",
        "\u{0}",
        &"[".repeat(100_000),
        &long,
        r#"{"source_id": "other"}"#,
        r#"{"source_id": 5}"#,
    ] {
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
