//! The services' health, and the daemon's own status.

use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::bus::Bus;
use sense_orchestrator::clock::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::engine::Script;
use crate::support::log::Log;
use crate::support::reference::{PERIOD, Stack};

const SOON: Duration = Duration::from_millis(10);

fn status(stack: &Stack) -> Value {
    stack.bus.json("status:orchestrator").expect("the daemon tells of itself")
}

fn overdue(stack: &Stack) -> Vec<String> {
    let error = status(stack)["last_error"].as_str().unwrap_or_default().to_owned();
    error
        .split("; ")
        .filter_map(|fault| fault.split_once(" overdue, "))
        .map(|(service, _)| service.to_owned())
        .collect()
}

/// Lets a source report a success.
fn succeed(stack: &Stack, source: &str) {
    let now = Timestamp::now().0;
    let report = json!({"source_id": source, "last_poll": now, "last_success": now, "last_error": null,
        "poll_count": 1, "error_count": 0});
    stack.bus.put(&format!("status:{source}"), &report);
}

#[tokio::test(start_paused = true)]
async fn the_own_status_has_the_contracts_fields_and_no_others_and_is_always_there() {
    let stack = Stack::new();
    stack.start_monitor();
    sleep(SOON).await;
    let status = status(&stack);
    let fields: Vec<&str> = status.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["error_count", "last_error", "last_poll", "last_success", "poll_count", "source_id"]);
    assert_eq!(status["source_id"], "orchestrator");
    assert_eq!(status["last_error"], Value::Null);
    assert!(status["last_poll"].is_f64() && status["last_success"].is_f64(), "{status}");
    assert_eq!((&status["poll_count"], &status["error_count"]), (&json!(1), &json!(0)));
    assert_eq!(stack.bus.expires_in("status:orchestrator").map(|left| left.as_secs()), Some(119));
    for _ in 0..20 {
        sleep(PERIOD / 2).await;
        assert!(stack.bus.expires_in("status:orchestrator").unwrap() >= PERIOD, "refreshed in time");
    }
}

#[tokio::test(start_paused = true)]
async fn what_redis_refuses_is_in_the_own_status_until_it_is_accepted_again() {
    let stack = Stack::new();
    stack.start_monitor();
    stack.bus.refuse(Some("LPUSH"));
    stack.bus.push("runs:x", "1", 5).await.unwrap_err();
    sleep(PERIOD).await;
    assert!(status(&stack)["last_error"].as_str().unwrap().contains("redis refuses writes"), "{}", status(&stack));
    stack.bus.refuse(None);
    sleep(2 * PERIOD).await;
    let error = status(&stack)["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(!error.contains("redis"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_key_is_overdue_after_three_of_its_intervals() {
    let stack = Stack::new();
    stack.start_monitor();
    sleep(PERIOD + SOON).await;
    assert_eq!(overdue(&stack), [""; 0]);
    sleep(PERIOD).await;
    assert_eq!(overdue(&stack), ["source-pihole", "source-system", "source-tailscale"]);
    let error = status(&stack)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("source-pihole overdue, no success for 2m"), "{error}");
    sleep(14 * PERIOD).await;
    assert!(overdue(&stack).contains(&"source-weather".to_owned()), "its key would be gone for long");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_reports_under_another_name_is_found_and_recovers() {
    let stack = Stack::new();
    stack.start_monitor();
    sleep(4 * PERIOD + SOON).await;
    assert!(overdue(&stack).contains(&"source-aranet4".to_owned()));
    succeed(&stack, "co2");
    sleep(PERIOD).await;
    assert!(!overdue(&stack).contains(&"source-aranet4".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_overdue_source_is_warned_of_at_once_and_hourly_and_its_recovery_is_told() {
    let (log, stack) = (Log::capture(), Stack::new());
    stack.start_monitor();
    let of_weather = |message| log.lines(message).iter().filter(|line| line["service"] == "source-weather").count();
    sleep(15 * PERIOD + SOON).await;
    assert_eq!(of_weather("source overdue"), 0);
    sleep(PERIOD).await;
    assert_eq!(of_weather("source overdue"), 1);
    sleep(119 * PERIOD).await;
    assert_eq!(of_weather("source overdue"), 2);
    sleep(PERIOD).await;
    assert_eq!((of_weather("source overdue"), of_weather("source recovered")), (3, 0));
    succeed(&stack, "weather");
    sleep(5 * PERIOD).await;
    assert_eq!((of_weather("source overdue"), of_weather("source recovered")), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_service_is_not_expected() {
    let stack = Stack::new();
    let paused = stack.intervals.borrow().keys().map(|service| (service.clone(), None)).collect();
    stack.intervals.send_replace(Arc::new(paused));
    stack.start_monitor();
    sleep(30 * PERIOD).await;
    assert_eq!(overdue(&stack), [""; 0]);
    assert_eq!(status(&stack)["last_error"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_refused_schedule_is_named_at_once() {
    let stack = Stack::new();
    stack.start_monitor();
    stack.start_dispatcher();
    sleep(SOON).await;
    stack.bus.put("config:schedule", &json!({"weather": -5}));
    stack.bus.send("config:changed", r#"{"section": "schedule"}"#);
    sleep(SOON).await;
    let error = status(&stack)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("weather") && error.contains("-5"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_named_until_it_does() {
    let stack = Stack::new();
    stack.engine.shut_down();
    stack.start_monitor();
    sleep(SOON).await;
    let error = status(&stack)["last_error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("engine unreachable: "), "{error}");
    stack.engine.come_back();
    sleep(PERIOD).await;
    assert_eq!(status(&stack)["last_error"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_comes_back_empty_is_told_at_once_and_nobody_is_blamed_for_the_time_between() {
    let stack = Stack::new();
    stack.start_monitor();
    sleep(SOON).await;
    stack.bus.go_down();
    sleep(30 * PERIOD).await;
    stack.bus.forget();
    stack.bus.come_back();
    sleep(SOON).await;
    assert_eq!(status(&stack)["source_id"], "orchestrator");
    sleep(PERIOD).await;
    assert_eq!(overdue(&stack), [""; 0]);
}

/// Says how often a source means to succeed.
fn promise(stack: &Stack, source: &str, seconds: u64) {
    let meta = json!({"source_id": source, "name": source, "description": "", "refresh_interval": seconds,
        "enabled": true});
    stack.bus.put(&format!("meta:{source}"), &meta);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_runs_all_the_time_is_overdue_by_the_interval_that_it_says_itself() {
    let mut stack = Stack::new();
    let gateway = stack.settings.services.entry("web-gateway".parse().unwrap()).or_default();
    gateway.status = Some("gateway".parse().unwrap());
    stack.start_monitor();
    let is_overdue = |stack: &Stack| overdue(stack).contains(&"web-gateway".to_owned());
    sleep(10 * PERIOD + SOON).await;
    assert!(!is_overdue(&stack), "it has not said how often");
    promise(&stack, "gateway", 120);
    sleep(7 * PERIOD).await;
    assert!(!is_overdue(&stack));
    stack.bus.evict("meta:gateway");
    sleep(PERIOD).await;
    assert!(is_overdue(&stack), "also while nobody knows its interval any more");
    succeed(&stack, "gateway");
    sleep(PERIOD).await;
    assert!(!is_overdue(&stack));
}

#[tokio::test(start_paused = true)]
async fn a_service_on_demand_is_watched_while_it_runs() {
    let stack = Stack::new();
    let camera = "source-camera".parse().unwrap();
    stack.script("source-camera", Script::stays());
    promise(&stack, "network_camera", 60);
    stack.start_monitor();
    let is_overdue = |stack: &Stack| overdue(stack).contains(&"source-camera".to_owned());
    sleep(10 * PERIOD + SOON).await;
    assert!(!is_overdue(&stack), "it does not run");
    stack.runner.start(&camera).await.unwrap();
    sleep(4 * PERIOD).await;
    assert!(!is_overdue(&stack), "it has not run for three of its intervals");
    sleep(PERIOD).await;
    assert!(is_overdue(&stack));
    stack.runner.stop(&camera).await.unwrap();
    sleep(PERIOD).await;
    assert!(!is_overdue(&stack));
}

#[tokio::test(start_paused = true)]
async fn a_look_that_finds_something_wrong_is_counted_as_an_error() {
    let stack = Stack::new();
    stack.start_monitor();
    sleep(SOON).await;
    stack.engine.shut_down();
    sleep(2 * PERIOD).await;
    let status = status(&stack);
    assert_eq!((&status["poll_count"], &status["error_count"]), (&json!(3), &json!(2)));
}

#[tokio::test(start_paused = true)]
async fn each_look_tries_the_connection() {
    let stack = Stack::new();
    stack.start_monitor();
    sleep(2 * PERIOD + SOON).await;
    assert_eq!(stack.bus.heartbeats(), 3);
}
