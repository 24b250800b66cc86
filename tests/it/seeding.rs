//! The first values of the configuration, and their return when Redis forgot them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::log::Log;
use crate::support::reference::{PERIOD, Stack};

const SOON: Duration = Duration::from_millis(10);

const EVERYTHING: [(&str, &str); 20] = [
    ("PIHOLE_HOST", "http://pi.hole"),
    ("PIHOLE_PASSWORD", "s3cret"),
    ("WEATHER_LOCATION", "Berlin"),
    ("ARANET4_SENSORS", r#"[{"mac": "AA:BB", "name": "Office"}]"#),
    ("ARANET4_TIMEOUT", "15"),
    ("CAMERA_CONFIG", r#"[{"host": "10.0.0.5", "port": 554}]"#),
    ("DISPLAY_ROTATION", "180"),
    ("SCROLL_SPEED", "0.1"),
    ("ICON_DURATION", "2"),
    ("SLEEP_START", "22"),
    ("SLEEP_END", "6"),
    ("DISABLE_PI_LEDS", "Yes"),
    ("SCHEDULE_TAILSCALE", "31"),
    ("SCHEDULE_PIHOLE", "32"),
    ("SCHEDULE_SYSTEM", "33"),
    ("SCHEDULE_ARANET4", "61"),
    ("SCHEDULE_WEATHER", "301"),
    ("AUTH_ENABLED", "false"),
    ("AUTH_USERNAME", "admin"),
    ("AUTH_PASSWORD_HASH", "$2b$12$abc"),
];

const SECTIONS: [&str; 8] = ["pihole", "weather", "aranet4", "camera", "display", "sleep", "schedule", "auth"];

fn config(stack: &Stack, section: &str) -> Option<Value> {
    stack.bus.json(&format!("config:{section}"))
}

#[tokio::test(start_paused = true)]
async fn all_eight_sections_are_seeded_with_their_json_types() {
    let stack = Stack::with_environment(&EVERYTHING);
    stack.seeder().seed().await.unwrap();
    let seeded: Vec<Value> = SECTIONS.iter().map(|section| config(&stack, section).unwrap()).collect();
    assert_eq!(
        seeded,
        [
            json!({"host": "http://pi.hole", "password": "s3cret"}),
            json!({"location": "Berlin"}),
            json!({"sensors": [{"mac": "AA:BB", "name": "Office"}], "timeout": 15}),
            json!({"cameras": [{"host": "10.0.0.5", "port": 554}]}),
            json!({"rotation": 180, "scroll_speed": 0.1, "icon_duration": 2.0}),
            json!({"start_hour": 22, "end_hour": 6, "disable_pi_leds": true}),
            json!({"tailscale": 31, "pihole": 32, "system": 33, "aranet4": 61, "weather": 301}),
            json!({"enabled": false, "username": "admin", "password_hash": "$2b$12$abc"}),
        ]
    );
    assert!(SECTIONS.iter().all(|section| stack.bus.expires_in(&format!("config:{section}")).is_none()));
}

#[tokio::test(start_paused = true)]
async fn without_variables_only_the_schedule_is_seeded() {
    let stack = Stack::new();
    stack.seeder().seed().await.unwrap();
    let seeded: Vec<&str> = SECTIONS.into_iter().filter(|section| config(&stack, section).is_some()).collect();
    assert_eq!(seeded, ["schedule"]);
    let defaults = json!({"tailscale": 30, "pihole": 30, "system": 30, "aranet4": 60, "weather": 300});
    assert_eq!(config(&stack, "schedule").unwrap(), defaults);
}

#[tokio::test(start_paused = true)]
async fn one_variable_of_a_section_brings_the_others_defaults() {
    let stack = Stack::with_environment(&[("SLEEP_END", "8"), ("ARANET4_SENSORS", "[]"), ("AUTH_USERNAME", "me")]);
    stack.seeder().seed().await.unwrap();
    assert_eq!(config(&stack, "sleep"), Some(json!({"start_hour": 23, "end_hour": 8, "disable_pi_leds": false})));
    assert_eq!(config(&stack, "aranet4"), Some(json!({"sensors": [], "timeout": 10})));
    assert_eq!(config(&stack, "auth"), Some(json!({"enabled": true, "username": "me"})));
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_does_not_parse_takes_its_default() {
    let stack = Stack::with_environment(&[("ARANET4_SENSORS", "{"), ("SLEEP_START", "x"), ("CAMERA_CONFIG", "{}")]);
    stack.seeder().seed().await.unwrap();
    assert_eq!(config(&stack, "aranet4"), Some(json!({"sensors": [], "timeout": 10})));
    assert_eq!(config(&stack, "sleep").unwrap()["start_hour"], 23);
    assert_eq!(config(&stack, "camera"), Some(json!({"cameras": []})));
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_does_not_parse_is_warned_of_by_its_name_and_its_text_is_not_shown() {
    let log = Log::capture();
    let wrong = ["ARANET4_SENSORS", "AUTH_ENABLED", "SLEEP_START"];
    let stack = Stack::with_environment(&wrong.map(|variable| (variable, "{s3cret")));
    stack.seeder().seed().await.unwrap();
    let warned = log.lines("variable does not parse, default used");
    assert_eq!(warned.iter().map(|line| line["variable"].as_str().unwrap()).collect::<Vec<_>>(), wrong);
    assert!(warned.iter().all(|line| line["level"] == "WARN"), "{warned:?}");
    assert!(!log.text().contains("s3cret"), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn what_is_restored_is_told_with_its_origin() {
    let stack = Stack::with_environment(&[("WEATHER_LOCATION", "Bonn")]);
    stack.start_seeder();
    sleep(SOON).await;
    stack.bus.put("config:sleep", &json!({"start_hour": 1}));
    sleep(PERIOD).await;
    let log = Log::capture();
    stack.bus.forget();
    sleep(PERIOD).await;
    let restored = log.lines("config restored");
    let told: Vec<_> = restored.iter().map(|line| (line["section"].as_str(), line["from"].as_str())).collect();
    let from = Some("last seen value");
    assert_eq!(told, [(Some("schedule"), from), (Some("sleep"), from), (Some("weather"), from)]);
}

#[tokio::test(start_paused = true)]
async fn an_existing_key_is_not_overwritten() {
    let stack = Stack::with_environment(&EVERYTHING);
    stack.bus.put("config:weather", &json!({"location": "Oslo"}));
    stack.seeder().seed().await.unwrap();
    assert_eq!(config(&stack, "weather"), Some(json!({"location": "Oslo"})));
}

#[tokio::test(start_paused = true)]
async fn an_empty_redis_gets_the_dashboards_last_values_back() {
    let stack = Stack::with_environment(&EVERYTHING);
    stack.start_seeder();
    sleep(SOON).await;
    let changed = json!({"location": "Oslo"});
    stack.bus.put("config:weather", &changed);
    stack.bus.send("config:changed", r#"{"section": "weather"}"#);
    sleep(SOON).await;
    stack.bus.go_down();
    stack.bus.forget();
    stack.bus.come_back();
    sleep(SOON).await;
    assert_eq!(config(&stack, "weather"), Some(changed));
    assert_eq!(config(&stack, "pihole"), Some(json!({"host": "http://pi.hole", "password": "s3cret"})));
}

#[tokio::test(start_paused = true)]
async fn an_evicted_key_is_back_within_a_minute_with_the_last_value_that_was_seen() {
    let stack = Stack::new();
    stack.start_seeder();
    sleep(SOON).await;
    let changed = json!({"weather": 900});
    stack.bus.put("config:schedule", &changed);
    sleep(PERIOD).await;
    stack.bus.evict("config:schedule");
    sleep(PERIOD).await;
    assert_eq!(config(&stack, "schedule"), Some(changed));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_nobody_can_read_is_not_written_again() {
    let good = json!({"location": "Oslo"});
    for bad in ["\"text\"", "[1]", "{", "", &format!("{{\"x\": \"{}\"}}", "x".repeat(10 << 20))] {
        let (log, stack) = (Log::capture(), Stack::with_environment(&EVERYTHING));
        stack.bus.put("config:weather", &good);
        stack.start_seeder();
        sleep(SOON).await;
        stack.bus.put_text("config:weather", bad);
        stack.bus.send("config:changed", r#"{"section": "weather"}"#);
        sleep(3 * PERIOD).await;
        let warned = log.lines("config not remembered");
        assert!(warned.len() == 1 && warned[0]["key"] == "config:weather", "{warned:?}");
        stack.bus.evict("config:weather");
        sleep(PERIOD).await;
        assert_eq!(config(&stack, "weather"), Some(good.clone()), "{:?}", bad.get(..10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_section_that_somebody_deleted_and_said_so_is_seeded_anew() {
    let stack = Stack::with_environment(&EVERYTHING);
    stack.start_seeder();
    sleep(SOON).await;
    for section in ["weather", "schedule", "auth"] {
        let seeded = config(&stack, section);
        stack.bus.put(&format!("config:{section}"), &json!({"changed": true}));
        stack.bus.send("config:changed", json!({"section": section}).to_string());
        sleep(SOON).await;
        stack.bus.evict(&format!("config:{section}"));
        stack.bus.send("config:changed", json!({"section": section}).to_string());
        sleep(SOON).await;
        assert_eq!(config(&stack, section), seeded, "{section}");
        stack.bus.evict(&format!("config:{section}"));
        sleep(PERIOD).await;
        assert_eq!(config(&stack, section), seeded, "{section} is not remembered as it was");
    }
}

#[tokio::test(start_paused = true)]
async fn a_section_without_variables_that_was_deleted_stays_away() {
    let stack = Stack::new();
    stack.start_seeder();
    sleep(SOON).await;
    stack.bus.put("config:pihole", &json!({"host": "x"}));
    stack.bus.send("config:changed", r#"{"section": "pihole"}"#);
    sleep(SOON).await;
    stack.bus.evict("config:pihole");
    stack.bus.send("config:changed", r#"{"section": "pihole"}"#);
    sleep(2 * PERIOD).await;
    assert_eq!(config(&stack, "pihole"), None);
}

#[tokio::test(start_paused = true)]
async fn a_section_that_only_the_dashboard_wrote_is_restored_too() {
    let stack = Stack::new();
    stack.start_seeder();
    sleep(SOON).await;
    let written = json!({"host": "x", "password": "y"});
    stack.bus.put("config:pihole", &written);
    stack.bus.send("config:changed", r#"{"section": "pihole"}"#);
    sleep(SOON).await;
    stack.bus.evict("config:pihole");
    sleep(PERIOD).await;
    assert_eq!(config(&stack, "pihole"), Some(written));
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_refuses_to_be_written_is_tried_again_each_minute() {
    let stack = Stack::new();
    stack.bus.refuse(Some("SET"));
    stack.start_seeder();
    sleep(SOON).await;
    assert_eq!(config(&stack, "schedule"), None);
    stack.bus.refuse(None);
    sleep(PERIOD).await;
    assert!(config(&stack, "schedule").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_comes_late_is_seeded_when_it_comes() {
    let stack = Stack::new();
    stack.bus.go_down();
    stack.start_seeder();
    sleep(2 * PERIOD).await;
    assert_eq!(config(&stack, "schedule"), None);
    stack.bus.come_back();
    sleep(SOON).await;
    assert!(config(&stack, "schedule").is_some());
}
