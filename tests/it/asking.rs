//! The running daemon is asked by the real binary, on the real Engine and without Redis.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::{Daemon, PATIENCE, Site};
use crate::support::schema::Schema;
use crate::support::terminal::Terminal;

const JOBS: &str = r#"
  long: {image: IMAGE, command: [sleep, '5'], profiles: [jobs], stop_grace_period: 0s}
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

/// A stack without Redis, and its daemon once it answers.
async fn started(settings: &str) -> Option<(Site, Daemon)> {
    let mut site = Site::new(JOBS, settings).await?;
    site.environment.push(("REDIS_URL", "none".into()));
    let daemon = site.start();
    answers(&site).await;
    Some((site, daemon))
}

async fn answers(site: &Site) {
    let end = Instant::now() + PATIENCE;
    while asked(site, "ls").await.status.code() != Some(0) {
        assert!(Instant::now() < end, "it does not answer");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn end(site: Site, mut daemon: Daemon) {
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn everything_can_be_asked_for_without_redis() {
    let settings = "state: {dir: state}\nservices: {tick: {every: 2s}}\n";
    let Some((site, mut daemon)) = started(settings).await else { return };
    let schema = Schema::of_the_command_line();
    daemon.says("run succeeded", Some("tick")).await;

    let jobs = until(&site, "ls --json", |jobs| jobs[0]["last_run"]["state"] == "succeeded").await;
    schema.holds("ls", &jobs);
    assert_eq!((&jobs[0]["name"], &jobs[0]["interval"]), (&Value::from("tick"), &Value::from(2.0)));

    let (code, stdout, stderr) = told(&asked(&site, "run bad -e X=7").await);
    assert_eq!((code, stdout.as_str()), (Some(3), "x=7\n"), "{stderr}");
    assert!(stderr.contains("oh\n") && stderr.contains("run 1 of bad failed"), "{stderr}");
    let runs = json(&site, "runs bad --json").await;
    schema.holds("runs", &runs);
    for (line, name) in [("status --json", "status"), ("next --json", "next"), ("health", "health")] {
        schema.holds(name, &json(&site, line).await);
    }
    for line in ["inspect bad", "inspect bad --run 1", "inspect web"] {
        schema.holds("inspect", &json(&site, line).await);
    }
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

    for (line, done) in [("start web", "started"), ("restart web", "restarted"), ("stop web", "stopped")] {
        let (code, stdout, _) = told(&asked(&site, line).await);
        assert_eq!((code, stdout), (Some(0), format!("web is {done}\n")));
        assert_eq!(site.is_up("web").await, done != "stopped", "{line}");
    }
    assert_eq!(told(&asked(&site, "pause web").await).0, Some(1), "it has no schedule");

    assert_eq!(told(&asked(&site, "pause tick").await).0, Some(0));
    until(&site, "runs tick --json", |runs| runs[0]["reason"] == "paused").await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    let daemon = site.start();
    answers(&site).await;
    let jobs = json(&site, "ls --json").await;
    let tick = jobs.as_array().unwrap().iter().find(|job| job["name"] == "tick").unwrap();
    assert_eq!((&tick["paused"], &tick["next_fire"]), (&Value::Bool(true), &Value::Null), "over a restart");
    let why = until(&site, "explain tick --json", |why| why["record"]["reason"] == "paused").await;
    schema.holds("explain", &why);
    assert!(why["reasons"][2].as_str().unwrap().contains("still paused"), "{why:#}");
    let status = json(&site, "status --json").await;
    assert_eq!(status["slots_due"], status["slots_accounted"], "{status:#}");
    assert_eq!(told(&asked(&site, "resume tick").await).0, Some(0));
    until(&site, "runs tick --json", |runs| runs[0]["state"] == "succeeded").await;
    let events = told(&asked(&site, "events --json").await).1;
    for line in events.lines() {
        schema.holds("event", &serde_json::from_str(line).unwrap());
    }
    assert!(events.contains("pause_changed"));
    end(site, daemon).await;
}

#[tokio::test]
async fn explain_says_which_run_was_in_the_way_of_a_slot() {
    let Some((site, daemon)) = started("services: {long: {every: 2s}}\n").await else { return };
    let why = until(&site, "explain long --json", |why| why["record"]["reason"] == "busy").await;
    Schema::of_the_command_line().holds("explain", &why);
    assert_eq!(why["others"][0]["state"], "running", "{why:#}");
    let slot = why["slot"].as_str().unwrap();
    let (_, text, _) = told(&asked(&site, &format!("explain long {slot}")).await);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert!(lines[0].starts_with(&format!("long, {slot} (")) && lines[0].ends_with(": skipped"), "{text}");
    assert_eq!(lines[1..3], ["its slot was skipped", "because another run of the service went on"]);
    assert!(lines[3].starts_with("because run 1 was in the way: it was begun by its slot at "), "{text}");
    let (code, _, error) = told(&asked(&site, "explain nosuch").await);
    assert_eq!((code, error.as_str()), (Some(1), "no such service: nosuch\n"));
    end(site, daemon).await;
}

#[tokio::test]
async fn a_run_that_is_cut_short_ends_with_130_or_124() {
    let Some((site, daemon)) = started("services: {slow: {timeout: 2s}}\n").await else { return };
    assert_eq!(told(&asked(&site, "run slow").await).0, Some(124), "past its limit");
    end(site, daemon).await;

    let Some((site, daemon)) = started("").await else { return };
    let run = site.command(&["run", "slow"]).spawn().unwrap();
    until(&site, "runs slow --json", |runs| runs[0]["state"] == "running").await;
    let id = run.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let (code, stdout, stderr) = told(&run.wait_with_output().await.unwrap());
    assert_eq!((code, stdout.as_str()), (Some(130), "begun\n"), "{stderr}");
    let runs = json(&site, "runs slow --json").await;
    assert_eq!((&runs[0]["state"], &runs[0]["reason"]), (&"cancelled".into(), &"requested".into()));
    assert_eq!(told(&asked(&site, "wait slow").await).0, Some(130));
    assert_eq!(told(&asked(&site, "cancel slow").await).0, Some(1), "nothing goes on");

    let mut followed = site.command(&["run", "slow", "--detach"]);
    assert_eq!(told(&followed.output().await.unwrap()).1, "2\n");
    let logs = site.command(&["logs", "slow", "--follow"]).spawn().unwrap();
    until(&site, "runs slow --json", |runs| runs[0]["state"] == "running").await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(told(&asked(&site, "cancel slow").await).0, Some(0));
    assert_eq!(told(&logs.wait_with_output().await.unwrap()).1, "begun\n");
    end(site, daemon).await;
}

#[tokio::test]
async fn the_newest_runs_come_first_and_as_many_as_are_asked_for() {
    let Some((site, daemon)) = started("").await else { return };
    for _ in 0..22 {
        asked(&site, "run bad").await;
    }
    let runs = async |line: &str| json(&site, line).await.as_array().unwrap().clone();
    let all: Vec<_> = runs("runs bad --json").await.iter().map(|run| run["iteration"].as_u64().unwrap()).collect();
    assert_eq!(all, (1..=22).rev().collect::<Vec<_>>());
    assert_eq!(runs("runs bad --json --limit 3").await.len(), 3);
    assert_eq!(told(&asked(&site, "runs bad").await).1.lines().count(), 1 + 20);
    assert_eq!(told(&asked(&site, "runs bad --limit 21").await).1.lines().count(), 1 + 21);
    assert_eq!(json(&site, "inspect bad --run 2").await["iteration"], 2);
    let (code, _, error) = told(&asked(&site, "inspect bad --run 23").await);
    assert_eq!((code, error.as_str()), (Some(1), "bad has no run 23, or its record is no longer kept\n"));
    end(site, daemon).await;
}

#[tokio::test]
async fn a_run_that_waits_for_a_place_is_queued_and_events_are_told_as_they_happen() {
    let settings = "scheduler: {max_parallel: 1}\nservices: {long: {every: 1h}, slow: {every: 1h}}\n";
    let Some((site, daemon)) = started(settings).await else { return };
    let mut events = site.command(&["events", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let jobs = until(&site, "ls --json", |jobs| jobs[0]["state"] != "idle" && jobs[1]["state"] != "idle").await;
    let mut states = [jobs[0]["state"].as_str().unwrap(), jobs[1]["state"].as_str().unwrap()];
    states.sort_unstable();
    assert_eq!(states, ["queued", "running"], "{jobs:#}");
    assert_eq!(told(&asked(&site, "run bad").await).0, Some(3), "a run by hand waits for no place");
    let ended = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("they go on");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "run_ended" && event["report"]["service"] == "bad" {
                return event;
            }
        }
    };
    let event = timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(event["report"]["exit_code"], 3);
    end(site, daemon).await;
}

/// A text with each number as 0, and columns two blanks apart.
fn blurred(text: &str) -> String {
    let mut blurred = String::new();
    for letter in text.chars() {
        let letter = if letter.is_ascii_digit() { '0' } else { letter };
        let repeats = blurred.ends_with(letter) && letter == '0' || blurred.ends_with("  ") && letter == ' ';
        if !repeats {
            blurred.push(letter);
        }
    }
    blurred
}

#[tokio::test]
async fn people_get_tables() {
    let settings = "scheduler: {first_run: next_slot}\nservices: {tick: {every: 10h}, long: {every: 20h}}\n";
    let Some((site, daemon)) = started(settings).await else { return };
    asked(&site, "run bad").await;
    asked(&site, "pause long").await;
    sleep(Duration::from_secs(1)).await;
    let mut all = String::new();
    for line in ["ls", "runs bad", "next", "status", "explain bad", "explain tick", "explain long 2030-01-01T00:00:00Z"]
    {
        let (code, text, error) = told(&asked(&site, line).await);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{line}");
        all += &["$ ", line, "\n", &blurred(&text.replace(&site.project, "p")), "\n"].concat();
    }
    insta::assert_snapshot!(all);
    end(site, daemon).await;
}

#[tokio::test]
async fn on_a_terminal_there_is_help_colour_and_a_question_before_a_run_is_cancelled() {
    let Some((mut site, daemon)) = started("services: {tick: {every: 1h}}\n").await else { return };
    until(&site, "ls --json", |jobs| jobs[0]["last_run"]["state"] == "succeeded").await;

    let (status, help) = Terminal::start(site.command(&[]), 80).ends().await;
    assert!(status.success() && help.contains("Usage: sense-orchestrator"), "{help}");

    let (_, table) = Terminal::start(site.command(&["ls"]), 30).ends().await;
    assert!(table.contains("\u{1b}[2mNAME\u{1b}[0m"), "{table:?}");
    site.environment.push(("NO_COLOR", "1".into()));
    let (_, table) = Terminal::start(site.command(&["ls"]), 30).ends().await;
    assert!(!table.contains('\u{1b}') && table.lines().all(|line| line.chars().count() <= 30), "{table:?}");

    let mut run = Terminal::start(site.command(&["run", "slow"]), 80);
    run.shows("begun").await;
    run.interrupt();
    run.shows("cancel slow? [y]es, [N]o, [d]etach: ").await;
    run.types("n");
    sleep(Duration::from_millis(500)).await;
    run.interrupt();
    run.shows("cancel slow?").await;
    run.types("d");
    let (status, text) = run.ends().await;
    assert!(status.success() && text.contains("slow goes on: `logs slow --follow` shows its output"), "{text}");

    let mut logs = Terminal::start(site.command(&["wait", "slow"]), 80);
    logs.shows("⠋ waiting for slow").await;
    logs.shows("⠙ waiting for slow").await;
    assert_eq!(told(&asked(&site, "cancel slow").await).0, Some(0));
    assert_eq!(logs.ends().await.0.code(), Some(130));

    let mut run = Terminal::start(site.command(&["run", "slow"]), 80);
    run.shows("begun").await;
    run.interrupt();
    run.shows("cancel slow?").await;
    run.types("y");
    assert_eq!(run.ends().await.0.code(), Some(130));
    end(site, daemon).await;
}
