//! Changes of the configuration in Redis.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use sense_orchestrator::action::WhenChanged;

use crate::support::engine::Script;
use crate::support::log::Log;
use crate::support::reference::{PERIOD, Stack};

const SOON: Duration = Duration::from_millis(10);

async fn change(stack: &Stack, section: &str) {
    stack.bus.send("config:changed", json!({"section": section, "timestamp": 1.5}).to_string());
    sleep(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_schedule_is_applied_at_once() {
    let stack = Stack::dispatching().await;
    assert_eq!((stack.every("source-weather"), stack.every("source-system")), (Some(300), Some(30)));
    stack.bus.put("config:schedule", &json!({"weather": 600, "source-system": 10}));
    assert_eq!(stack.every("source-weather"), Some(300), "nobody said so yet");
    change(&stack, "schedule").await;
    assert_eq!((stack.every("source-weather"), stack.every("source-system")), (Some(600), Some(10)));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_out_goes_back_to_its_default_and_zero_pauses() {
    let stack = Stack::dispatching().await;
    stack.bus.put("config:schedule", &json!({"weather": 600, "pihole": 0, "system": null}));
    change(&stack, "schedule").await;
    assert_eq!((stack.every("source-weather"), stack.every("source-pihole")), (Some(600), None));
    assert_eq!(stack.every("source-system"), None);
    stack.bus.put("config:schedule", &json!({}));
    change(&stack, "schedule").await;
    assert_eq!((stack.every("source-weather"), stack.every("source-pihole")), (Some(300), Some(30)));
}

#[tokio::test(start_paused = true)]
async fn a_bad_value_keeps_the_old_one_and_is_named_as_a_problem_until_it_is_gone() {
    let stack = Stack::dispatching().await;
    stack.bus.put("config:schedule", &json!({"weather": 600}));
    change(&stack, "schedule").await;
    stack.bus.put("config:schedule", &json!({"weather": "often", "system": 5}));
    let log = Log::capture();
    change(&stack, "schedule").await;
    let warned = log.lines("schedule not followed");
    assert!(warned.len() == 1 && warned[0]["error"].as_str().unwrap().contains("weather"), "{warned:?}");
    assert_eq!((stack.every("source-weather"), stack.every("source-system")), (Some(600), Some(5)));
    let problems = stack.problems.borrow()["schedule"].clone();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("weather") && problems[0].contains("often"), "{problems:?}");
    stack.bus.put("config:schedule", &json!({"weather": 60, "system": 5}));
    change(&stack, "schedule").await;
    assert_eq!(stack.every("source-weather"), Some(60));
    assert!(stack.problems.borrow()["schedule"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_schedule_whose_message_was_lost_is_found_within_a_minute_and_on_a_new_connection() {
    let stack = Stack::dispatching().await;
    stack.bus.put("config:schedule", &json!({"weather": 600}));
    sleep(PERIOD).await;
    assert_eq!(stack.every("source-weather"), Some(600));
    stack.bus.go_down();
    stack.bus.put("config:schedule", &json!({"weather": 700}));
    stack.bus.come_back();
    sleep(SOON).await;
    assert_eq!(stack.every("source-weather"), Some(700));
}

#[tokio::test(start_paused = true)]
async fn only_sections_that_mean_something_are_read() {
    let stack = Stack::dispatching().await;
    stack.bus.reads();
    for section in ["nothing", "a/b", "*", "\0", &"x".repeat(4000)] {
        change(&stack, section).await;
    }
    assert_eq!(stack.bus.reads(), [""; 0]);
    change(&stack, "auth").await;
    assert_eq!(stack.bus.reads(), ["config:auth"]);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_was_evicted_goes_on_and_one_that_was_deleted_is_the_settings() {
    let stack = Stack::dispatching().await;
    stack.bus.put("config:schedule", &json!({"weather": 600}));
    change(&stack, "schedule").await;
    stack.bus.evict("config:schedule");
    sleep(2 * PERIOD).await;
    assert_eq!(stack.every("source-weather"), Some(600), "nobody said so");
    change(&stack, "schedule").await;
    assert_eq!(stack.every("source-weather"), Some(300));
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_too_large_is_refused_with_its_place_and_the_last_good_one_stays() {
    let stack = Stack::dispatching().await;
    stack.bus.put("config:schedule", &json!({"weather": 600}));
    change(&stack, "schedule").await;
    let log = Log::capture();
    stack.bus.put_text("config:schedule", &format!("{{\"weather\": {}1}}", " ".repeat(10 << 20)));
    change(&stack, "schedule").await;
    assert_eq!(stack.every("source-weather"), Some(600));
    let problem = "schedule at config:schedule has 10485774 bytes, at most 262144 are read";
    assert_eq!(stack.problems.borrow()["schedule"], [problem]);
    let warned = log.lines("schedule not followed");
    assert!(warned.len() == 1 && warned[0]["error"] == problem, "{warned:?}");
    stack.bus.put("config:schedule", &json!({"weather": 60}));
    change(&stack, "schedule").await;
    assert_eq!(stack.every("source-weather"), Some(60));
    assert!(stack.problems.borrow()["schedule"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_changed_back_and_forth_does_not_fill_the_log() {
    let (log, stack) = (Log::capture(), Stack::dispatching().await);
    for n in 0..1000 {
        stack.bus.put("config:schedule", &json!({format!("none{n}"): 1}));
        change(&stack, "schedule").await;
    }
    let warned = log.lines("schedule not followed").len();
    assert!((10..=100).contains(&warned), "{warned} lines");
}

#[tokio::test(start_paused = true)]
async fn a_changed_auth_is_a_warning_and_a_changed_camera_only_while_it_runs() {
    let (log, stack) = (Log::capture(), Stack::dispatching().await);
    let mut told = Vec::new();
    let mut tell = |stack: &Stack, section: &'static str| {
        stack.bus.put(&format!("config:{section}"), &json!({"n": told.len()}));
        stack.bus.send("config:changed", json!({"section": section}).to_string());
        told.push(section);
    };
    for section in ["auth", "camera", "display"] {
        tell(&stack, section);
    }
    sleep(SOON).await;
    stack.script("source-camera", Script::stays());
    stack.call("start_camera", json!({})).await;
    tell(&stack, "camera");
    sleep(SOON).await;
    let warned = log.lines("config changed, service restart required");
    let warned: Vec<_> = warned.iter().map(|line| (line["section"].as_str(), line["service"].as_str())).collect();
    assert_eq!(warned, [(Some("auth"), Some("web-gateway")), (Some("camera"), Some("source-camera"))]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_auth_restarts_the_gateway_where_that_is_wanted() {
    for (when_changed, restarts) in [(WhenChanged::Warn, 0), (WhenChanged::Restart, 1)] {
        let stack = Stack::new();
        stack.start_dispatcher_with(|options| {
            options.config_changes.get_mut("auth").unwrap().when_changed = when_changed;
        });
        stack.script("web-gateway", Script::stays());
        sleep(SOON).await;
        stack.runner.start(&"web-gateway".parse().unwrap()).await.unwrap();
        stack.engine.transcript();
        change(&stack, "auth").await;
        sleep(Duration::from_secs(5)).await;
        let transcript = stack.engine.transcript();
        let stopped = transcript.lines().filter(|line| line.contains(" stop ")).count();
        assert_eq!(stopped, restarts, "{when_changed:?}\n{transcript}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_auth_whose_message_was_lost_is_found_and_followed_once() {
    let stack = Stack::new();
    stack.bus.put("config:auth", &json!({"enabled": true}));
    stack.start_dispatcher_with(|options| {
        options.config_changes.get_mut("auth").unwrap().when_changed = WhenChanged::Restart;
    });
    stack.script("web-gateway", Script::stays());
    stack.runner.start(&"web-gateway".parse().unwrap()).await.unwrap();
    sleep(PERIOD + SOON).await;
    assert!(!stack.engine.transcript().contains(" stop "), "what is there at the start is no change");
    stack.bus.put("config:auth", &json!({"enabled": false}));
    sleep(PERIOD).await;
    change(&stack, "auth").await;
    sleep(2 * PERIOD).await;
    let transcript = stack.engine.transcript();
    assert_eq!(transcript.lines().filter(|line| line.contains(" stop ")).count(), 1, "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn any_poll_service_of_the_project_can_be_scheduled_and_is_not_any_more_when_its_key_goes() {
    for key in ["source-ups", "ups"] {
        let stack = Stack::dispatching().await;
        stack.add_services("  source-ups: { image: 'busybox:test', profiles: [poll] }\n");
        assert_eq!(stack.every("source-ups"), None);
        stack.bus.put("config:schedule", &json!({key: 20}));
        change(&stack, "schedule").await;
        assert_eq!(stack.every("source-ups"), Some(20), "{key}");
        assert_eq!(stack.problems.borrow().get("schedule").map_or(0, Vec::len), 0);
        stack.bus.put("config:schedule", &json!({}));
        change(&stack, "schedule").await;
        assert!(!stack.intervals.borrow().contains_key("source-ups"), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_poll_service_is_not_scheduled() {
    let stack = Stack::dispatching().await;
    stack.add_services("  source-siren: { image: 'busybox:test', profiles: [poll], restart: always }\n");
    // On command only, running all the time by two reasons, ours, and not there at all.
    let others = ["source-camera", "source-siren", "web-gateway", "redis", "orchestrator", "nothing"];
    stack.bus.put("config:schedule", &others.iter().map(|name| ((*name).to_owned(), json!(20))).collect());
    change(&stack, "schedule").await;
    for name in others {
        assert_eq!(stack.every(name), None, "{name}");
        let problem = format!("schedule names {name:?}, which is no poll service");
        assert!(stack.problems.borrow()["schedule"].contains(&problem), "{:?}", stack.problems.borrow());
    }
}
