//! Settings that change while the daemon runs: what counts at once, what waits for a restart, and what a bad edit does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::daemon::{Daemon, Site};
use crate::support::reference::Stack;

const SERVICES: &str = "  a: {image: IMAGE, command: [sh, -c, 'echo $$WORD; exit 3']}\n  b: {image: IMAGE}\n";

/// A site without Redis, with these settings after what every test needs.
async fn site(settings: &str) -> Option<Site> {
    let mut site = Site::new(SERVICES, "").await?;
    site.environment.push(("REDIS_URL", "none".to_owned()));
    edit(&site, settings);
    Some(site)
}

fn edit(site: &Site, settings: &str) {
    let fixed = "preset: none\nlog: {level: debug}\nscheduler: {first_run: next_slot}\n";
    site.folder.write("settings.yaml", &format!("{fixed}{settings}"));
}

async fn end(mut daemon: Daemon, site: Site) {
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

/// Runs the subcommand against the daemon: exit code, stdout, stderr.
async fn asked(site: &Site, command: &str) -> (Option<i32>, String, String) {
    let output = site.command(&[command]).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_hang_up_ends_nothing_and_puts_the_changed_settings_in_force() {
    let Some(site) = site("services: {a: {every: 1h}, b: {every: 1h}}\n").await else { return };
    let mut daemon = site.start();
    daemon.says_all(&["scheduled", "control socket"]).await;
    edit(&site, "services: {a: {every: 2s, env: {WORD: changed}}, b: {every: 1h}}\n");
    daemon.signal("-HUP");
    let line = daemon.says("settings reloaded", None).await;
    assert_eq!(line["changed"], "services.a.env, services.a.every");
    assert_eq!(daemon.says("schedule changed", None).await["change"], "a: every 2s (was 1h)");
    let failed = daemon.says("run failed", Some("a")).await;
    assert!(failed["tail"].as_str().unwrap().contains("changed"), "{failed}");
    let changes = daemon.seen.iter().filter(|line| line["message"] == "schedule changed").count();
    assert_eq!(changes, 1, "b keeps its interval and its grid");
    daemon.signal("-HUP");
    daemon.says("run failed", Some("a")).await;
    end(daemon, site).await;
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_settings_and_is_said_once_with_its_place() {
    let Some(site) = site("services: {a: {every: 1h}}\n").await else { return };
    let mut daemon = site.start();
    daemon.says_all(&["scheduled", "control socket"]).await;
    edit(&site, "services: {a: {evry: 2s}}\n");
    daemon.signal("-HUP");
    let line = daemon.says("settings not loaded, the last good ones stay in use", None).await;
    let error = line["error"].as_str().unwrap();
    assert!(error.starts_with("settings.yaml:4: services.a.evry: unknown key; did you mean"), "{error}");
    let (code, _, said) = asked(&site, "reload").await;
    assert_eq!(code, Some(1));
    assert!(said.contains("settings.yaml:4: services.a.evry"), "{said}");
    let (code, health, _) = asked(&site, "health").await;
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((code, &health["settings"]), (Some(0), &Value::from(error)), "{health}");
    edit(&site, "services: {a: {every: 1h}}\nruns: {keep: 10}\ndocker: {host: 'unix:///elsewhere'}\n");
    let (code, said, _) = asked(&site, "reload").await;
    assert_eq!((code, said.as_str()), (Some(0), "these need a restart of the daemon: runs.keep\n"));
    assert_eq!(daemon.says("settings need a restart", None).await["keys"], "runs.keep");
    let (_, health, _) = asked(&site, "health").await;
    assert!(health.contains("\"settings\":\"ok\""), "{health}");
    let (_, said, _) = asked(&site, "reload").await;
    assert_eq!(said, "these need a restart of the daemon: runs.keep\n", "they still do");
    edit(&site, "services: {a: {every: 1h}}\n");
    assert_eq!(asked(&site, "reload").await.1, "nothing changed\n");
    let refusals =
        daemon.seen.iter().filter(|line| line["message"].as_str().unwrap().starts_with("settings not loaded"));
    assert_eq!(refusals.count(), 1);
    assert_eq!(daemon.seen.iter().filter(|line| line["message"] == "settings need a restart").count(), 1);
    end(daemon, site).await;
}

#[tokio::test]
async fn an_edit_counts_by_itself_within_the_period() {
    let Some(site) = site("health: {interval: 1s}\nservices: {a: {every: 1h}}\n").await else { return };
    let mut daemon = site.start();
    daemon.says("scheduled", None).await;
    edit(&site, "health: {interval: 1s}\nservices: {a: null, b: {every: 2h}}\n");
    daemon.says("settings reloaded", None).await;
    daemon.says_all(&["schedule changed", "schedule changed"]).await;
    let text = format!("name: {}\nservices:\n{SERVICES}  c: {{image: x}}\n", site.project);
    site.folder.write("compose.yaml", &text.replace("IMAGE", "busybox:1"));
    daemon.says("project loaded again", None).await;
    end(daemon, site).await;
}

#[tokio::test(start_paused = true)]
async fn actions_reactions_and_intervals_change_under_a_dispatcher_that_goes_on() {
    let stack = Stack::new();
    let options = watch::Sender::new(Arc::new(stack.dispatcher_options()));
    stack.start_dispatcher_on(options.subscribe());
    sleep(Duration::from_millis(1)).await;
    let refused = stack.call("hello", json!({})).await;
    assert_eq!(refused["status"], "error", "{refused}");
    options.send_modify(|options| {
        let options = Arc::make_mut(options);
        let steps = json!([{"publish": "greetings", "message": {"word": "hello"}}]);
        options.actions.insert("hello".to_owned(), serde_json::from_value(steps.clone()).unwrap());
        options.reactions.insert("doorbell".to_owned(), serde_json::from_value(steps).unwrap());
        let weather = options.services.scheduled.get_mut("source-weather").unwrap();
        weather.default = Duration::from_secs(77).try_into().ok();
    });
    sleep(Duration::from_millis(10)).await;
    assert_eq!(stack.every("source-weather"), Some(77));
    let done = stack.call("hello", json!({})).await;
    assert_eq!(done["status"], "ok", "{done}");
    stack.bus.send("doorbell", "{}");
    sleep(Duration::from_millis(10)).await;
    assert_eq!(stack.bus.published("greetings").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_redis_says_of_the_schedule_stays_over_changed_settings() {
    let stack = Stack::new();
    stack.bus.put("config:schedule", &json!({"weather": 5}));
    let options = watch::Sender::new(Arc::new(stack.dispatcher_options()));
    stack.start_dispatcher_on(options.subscribe());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(stack.every("source-weather"), Some(5));
    let changes = stack.intervals.subscribe();
    options.send_modify(|options| {
        let scheduled = &mut Arc::make_mut(options).services.scheduled;
        scheduled.get_mut("source-weather").unwrap().default = Duration::from_secs(77).try_into().ok();
    });
    sleep(Duration::from_mins(2)).await;
    assert_eq!(stack.every("source-weather"), Some(5));
    assert!(!changes.has_changed().unwrap(), "not even for a moment");
}
