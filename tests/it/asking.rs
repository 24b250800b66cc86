//! The running daemon is asked by the real binary, on the real Engine and without Redis.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::daemon::{PATIENCE, Site};

const JOBS: &str = r#"
  tick: {image: IMAGE, command: ['true'], profiles: [jobs]}
  bad: {image: IMAGE, command: [sh, -c, 'echo "x=$$X"; echo oh >&2; exit 3'], profiles: [jobs]}
  slow: {image: IMAGE, command: [sh, -c, 'echo begun; exec sleep 60'], profiles: [jobs], stop_grace_period: 0s}
  web: {image: IMAGE, command: [sleep, '1000'], stop_grace_period: 0s}
"#;

async fn asked(site: &Site, line: &str) -> Output {
    site.command(&line.split(' ').collect::<Vec<_>>()).output().await.unwrap()
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn json(site: &Site, line: &str) -> Value {
    let (code, stdout, stderr) = told(&asked(site, line).await);
    assert_eq!(code, Some(0), "{line}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line}: {error} in {stdout}"))
}

/// Asks until a condition holds.
async fn until(site: &Site, line: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = json(site, line).await;
        if holds(&said) {
            return said;
        }
        assert!(Instant::now() < end, "{line}: {said:#}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn everything_can_be_asked_for_without_redis() {
    let settings = "state: {dir: state}\nservices: {tick: {every: 2s}}\n";
    let Some(mut site) = Site::new(JOBS, settings).await else { return };
    site.environment.push(("REDIS_URL", "none".into()));
    let mut daemon = site.start();
    daemon.says("run succeeded", Some("tick")).await;

    let jobs = until(&site, "ls --json", |jobs| jobs[0]["last_run"]["state"] == "succeeded").await;
    let keys: Vec<&String> = jobs[0].as_object().unwrap().keys().collect();
    let mut wanted =
        ["name", "kind", "trigger", "state", "paused", "last_run", "next_fire", "interval", "engine_owned"];
    wanted.sort_unstable();
    let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(jobs[0]["interval"], 2.0);

    let (code, stdout, stderr) = told(&asked(&site, "run bad -e X=7").await);
    assert_eq!((code, stdout.as_str()), (Some(3), "x=7\n"), "{stderr}");
    assert!(stderr.contains("oh\n") && stderr.contains("run 1 of bad failed"), "{stderr}");
    let runs = json(&site, "runs bad --json").await;
    assert_eq!((&runs[0]["exit_code"], &runs[0]["trigger"]), (&Value::from(3), &Value::from("command")));
    assert_eq!(told(&asked(&site, "wait bad").await).0, Some(3));
    assert!(told(&asked(&site, "logs bad").await).1.contains("x=7"));
    assert_eq!(told(&asked(&site, "run bad --detach").await).1, "2\n");
    assert_eq!(told(&asked(&site, "run nosuch").await).0, Some(1));
    let (code, _, stderr) = told(&asked(&site, "run").await);
    assert!(code == Some(2) && stderr.contains("daemon"), "{stderr}");

    let run = site.command(&["run", "slow"]).spawn().unwrap();
    until(&site, "runs slow --json", |runs| runs[0]["state"] == "running").await;
    assert!(told(&asked(&site, "run slow").await).2.contains("already running"));
    assert_eq!(told(&asked(&site, "cancel slow").await).0, Some(0));
    let (code, stdout, stderr) = told(&run.wait_with_output().await.unwrap());
    assert_eq!((code, stdout.as_str()), (Some(130), "begun\n"), "{stderr}");

    assert_eq!(told(&asked(&site, "start web").await).0, Some(0));
    assert_eq!(told(&asked(&site, "stop web").await).0, Some(0));
    assert_eq!(told(&asked(&site, "pause web").await).0, Some(1), "it has no schedule");

    assert_eq!(told(&asked(&site, "pause tick").await).0, Some(0));
    until(&site, "runs tick --json", |runs| runs[0]["reason"] == "paused").await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    let mut daemon = site.start();
    daemon.says("project loaded", None).await;
    let end = Instant::now() + PATIENCE;
    while asked(&site, "ls").await.status.code() != Some(0) {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(100)).await;
    }
    let jobs = json(&site, "ls --json").await;
    let tick = jobs.as_array().unwrap().iter().find(|job| job["name"] == "tick").unwrap();
    assert_eq!((&tick["paused"], &tick["next_fire"]), (&Value::Bool(true), &Value::Null), "over a restart");
    let why = until(&site, "explain tick --json", |why| why["record"]["reason"] == "paused").await;
    assert!(why["reasons"][2].as_str().unwrap().contains("still paused"), "{why:#}");
    let status = json(&site, "status --json").await;
    assert_eq!(status["slots_due"], status["slots_accounted"], "{status:#}");
    assert_eq!(told(&asked(&site, "resume tick").await).0, Some(0));
    until(&site, "runs tick --json", |runs| runs[0]["state"] == "succeeded").await;
    let events = told(&asked(&site, "events --json").await).1;
    assert!(
        events.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|event| event["event"].is_string()))
    );
    assert!(events.contains("pause_changed"));

    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}
