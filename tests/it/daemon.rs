//! The real binary on the real Engine and a real Redis: signals, exit codes, log lines, faults.

use std::collections::HashMap;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sense_orchestrator::engine::docker::Docker;
use sense_orchestrator::engine::{Engine, RemoveContainer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::support::docker::{self, IMAGE};
use crate::support::redis::RedisServer;
use crate::support::stack::Folder;

/// Longest wait for a log line.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A project of its own on the real Engine, removed with all that it made.
pub(crate) struct Site {
    pub(crate) engine: Arc<Docker>,
    pub(crate) redis: RedisServer,
    pub(crate) folder: Folder,
    pub(crate) project: String,
    /// `DOCKER_HOST` of the daemon.
    pub(crate) host: String,
    /// Variables of the daemon, over the usual ones.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Site {
    /// None where there is no Engine or no Redis, and none is promised.
    pub(crate) async fn new(services: &str, settings: &str) -> Option<Self> {
        Self::with_redis(RedisServer::start().await?, services, settings).await
    }

    async fn with_redis(redis: RedisServer, services: &str, settings: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let engine = docker::engine().await?;
        let project = format!("sense-daemon-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder::new();
        folder.write("compose.yaml", &format!("name: {project}\nservices:\n{services}").replace("IMAGE", IMAGE));
        folder.write("settings.yaml", &format!("preset: none\nlog: {{level: debug}}\n{settings}"));
        Some(Self { engine, redis, folder, project, host: docker::host(), environment: Vec::new() })
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sense-orchestrator"));
        command
            .args(["--config", "settings.yaml", "--file", "compose.yaml"])
            .args(arguments)
            .current_dir(&self.folder.0)
            .env_clear()
            .env("DOCKER_HOST", &self.host)
            .env("RUNTIME_DIRECTORY", &self.folder.0)
            .env("REDIS_URL", format!("redis+unix://{}", self.redis.socket().display()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn start(&self) -> Daemon {
        Self::start_command(self.command(&[]))
    }

    pub(crate) fn start_command(mut command: Command) -> Daemon {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("a JSON object a line: {line}"));
                let _ = sender.send(line);
            }
        });
        Daemon { child, log, seen: Vec::new() }
    }

    fn label(&self) -> Vec<String> {
        vec![format!("com.docker.compose.project={}", self.project)]
    }

    /// The project's one-off containers with their states.
    pub(crate) async fn one_offs(&self) -> HashMap<String, String> {
        let mut labels = self.label();
        labels.push("com.docker.compose.oneoff=True".into());
        let found = self.engine.containers(&labels).await.unwrap().into_iter();
        let name = |names: Option<Vec<String>>| names.unwrap_or_default().concat();
        found
            .map(|container| (name(container.names), container.state.map_or_else(String::new, |s| s.to_string())))
            .collect()
    }

    /// Whether a container of the service runs, which is no one-off.
    pub(crate) async fn is_up(&self, service: &str) -> bool {
        let mut labels = self.label();
        labels.extend([format!("com.docker.compose.service={service}"), "com.docker.compose.oneoff=False".into()]);
        let found = self.engine.containers(&labels).await.unwrap();
        found.iter().any(|container| container.state.is_some_and(|state| state.to_string() == "running"))
    }

    /// Waits until the project has no one-off: what ran is removed after its verdict.
    pub(crate) async fn has_no_one_offs(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.one_offs().await;
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{left:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a one-off of the service runs.
    pub(crate) async fn runs(&self, service: &str) {
        let end = Instant::now() + PATIENCE;
        let part = format!("-{service}-run-");
        while !self.one_offs().await.iter().any(|(name, state)| name.contains(&part) && state == "running") {
            assert!(Instant::now() < end, "{service} does not run");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the project has no one-off container.
    pub(crate) async fn is_clean(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.one_offs().await;
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {left:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn close(self) {
        for container in self.engine.containers(&self.label()).await.unwrap() {
            let options = RemoveContainer { force: true, volumes: true };
            self.engine.remove_container(&container.id.unwrap(), options).await.unwrap();
        }
        for network in self.engine.networks(&self.project).await.unwrap() {
            self.engine.remove_network(&network.id.unwrap()).await.unwrap();
        }
    }
}

pub(crate) struct Daemon {
    child: Child,
    log: mpsc::UnboundedReceiver<Value>,
    pub(crate) seen: Vec<Value>,
}

impl Daemon {
    /// Waits for a line with that message, of that service where one is named.
    pub(crate) async fn says(&mut self, message: &str, service: Option<&str>) -> Value {
        let wanted =
            |line: &Value| line["message"] == message && service.is_none_or(|service| line["service"] == service);
        let found = timeout(PATIENCE, async {
            loop {
                let line = self.log.recv().await?;
                self.seen.push(line.clone());
                if wanted(&line) {
                    return Some(line);
                }
            }
        });
        match found.await {
            Ok(Some(line)) => line,
            _ => panic!("no {message:?} of {service:?} in {:#?}", self.seen),
        }
    }

    /// Waits for lines with these messages, in any order.
    pub(crate) async fn says_all(&mut self, messages: &[&str]) {
        let mut wanted = messages.to_vec();
        while !wanted.is_empty() {
            let Ok(Some(line)) = timeout(PATIENCE, self.log.recv()).await else {
                panic!("no {wanted:?} in {:#?}", self.seen)
            };
            wanted.retain(|message| line["message"] != *message);
            self.seen.push(line);
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the daemon runs")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().expect("the daemon runs").to_string();
        let sent = std::process::Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// What each of its threads waits in, by the thread's id.
    pub(crate) fn threads(&self) -> HashMap<String, String> {
        let folder = format!("/proc/{}/task", self.child.id().expect("the daemon runs"));
        let threads = std::fs::read_dir(folder).unwrap().map(|thread| thread.unwrap().path());
        let name = |thread: &std::path::Path| thread.file_name().unwrap().to_string_lossy().into_owned();
        threads
            .map(|thread| (name(&thread), std::fs::read_to_string(thread.join("wchan")).unwrap_or_default()))
            .collect()
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("an end in time").unwrap()
    }
}

const MIXED: &str = "
  ok: {image: IMAGE, command: [sh, -c, 'echo fine'], profiles: [poll]}
  seven: {image: IMAGE, command: [sh, -c, 'echo out; echo wrong >&2; exit 7'], profiles: [poll]}
  deaf: {image: IMAGE, command: [sh, -c, \"trap '' TERM; while true; do sleep 0.2; done\"], stop_grace_period: 1s, profiles: [poll]}
  slow: {image: IMAGE, command: [sleep, '300'], init: true, profiles: [poll]}
  unpulled: {image: 'sense-no-such-image:0', pull_policy: never, profiles: [poll]}
  built: {build: ., profiles: [poll]}
  lost: {image: IMAGE, command: ['true'], networks: [away], profiles: [poll]}
networks:
  away: {external: true, name: sense-no-such-network}
";

const MIXED_SETTINGS: &str = "
services:
  ok: {every: 2s}
  seven: {every: 60s}
  deaf: {every: 60s, timeout: 2s}
  slow: {every: 60s, timeout: 2s}
  unpulled: {every: 60s}
  built: {every: 60s}
  lost: {every: 60s}
";

#[tokio::test]
async fn every_kind_of_failure_has_its_line_and_leaves_nothing_while_the_others_go_on() {
    let Some(site) = Site::new(MIXED, MIXED_SETTINGS).await else { return };
    let mut daemon = site.start();
    let mut ended = HashMap::new();
    let kinds = ["run succeeded", "run failed", "run timed out"];
    while ended.len() < 7 {
        let Ok(Some(line)) = timeout(PATIENCE, daemon.log.recv()).await else { panic!("{ended:#?}") };
        if kinds.iter().any(|kind| line["message"] == *kind) {
            ended.entry(line["service"].as_str().unwrap().to_owned()).or_insert(line);
        }
    }
    let line = |service: &str| &ended[service];
    let error = |service: &str| line(service)["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(line("ok")["message"], "run succeeded");
    assert_eq!((&line("ok")["exit_code"], &line("ok")["trigger"]), (&Value::from(0), &Value::from("schedule")));
    assert!(line("ok")["duration_ms"].is_u64() && line("ok")["run_id"].as_str().unwrap().len() == 12);
    assert_eq!(line("seven")["exit_code"], 7);
    let tail = line("seven")["tail"].as_str().unwrap();
    assert!(tail.contains("out") && tail.contains("wrong"), "{tail:?}");
    for service in ["deaf", "slow"] {
        assert_eq!(line(service)["message"], "run timed out", "{service}");
        assert!(line(service)["duration_ms"].as_u64().unwrap() >= 2_000, "{service}");
    }
    assert!(error("unpulled").contains("sense-no-such-image:0"), "{}", error("unpulled"));
    assert!(error("built").contains("docker compose build built"), "{}", error("built"));
    assert!(error("lost").contains("sense-no-such-network"), "{}", error("lost"));
    daemon.says("run succeeded", Some("ok")).await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.is_clean().await;
    site.close().await;
}

const LONG: &str = "
  long: {image: IMAGE, command: [sleep, '300'], init: true, stop_grace_period: 2s, profiles: [poll]}
  short: {image: IMAGE, command: ['true'], profiles: [poll]}
";

const LONG_SETTINGS: &str = "
services:
  long: {every: 1h, timeout: 200s}
  short: {every: 2s}
";

#[tokio::test]
async fn a_run_outlives_a_kill_of_the_daemon_and_is_adopted_by_the_next() {
    let Some(site) = Site::new(LONG, LONG_SETTINGS).await else { return };
    let mut first = site.start();
    first.says("run succeeded", Some("short")).await;
    site.runs("long").await;
    first.signal("-KILL");
    assert!(!first.ends().await.success());
    let mut second = site.start();
    let adopted = second.says("adopting a run that goes on", Some("long")).await;
    let skipped = second.says("slot skipped, still running", Some("long")).await;
    let error = skipped["error"].as_str().unwrap();
    assert!(error.contains(adopted["run_id"].as_str().unwrap()), "{error}");
    second.signal("-TERM");
    second.says("shutting down", None).await;
    second.signal("-TERM");
    let cancelled = second.says("run cancelled", Some("long")).await;
    assert_eq!(cancelled["trigger"], "adopted");
    assert!(second.ends().await.success());
    site.is_clean().await;
    site.close().await;
}

#[tokio::test]
async fn scheduling_goes_on_while_redis_is_away_and_health_says_which_is_missing() {
    let Some(mut site) = Site::new(LONG, LONG_SETTINGS).await else { return };
    let mut daemon = site.start();
    daemon.says("run succeeded", Some("short")).await;
    let health = site.command(&["health"]).output().await.unwrap();
    assert!(health.status.success(), "{health:?}");
    site.redis.kill();
    daemon.says("redis unavailable", None).await;
    daemon.says("run succeeded", Some("short")).await;
    daemon.says("run succeeded", Some("short")).await;
    let health = site.command(&["health"]).output().await.unwrap();
    assert_eq!(health.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!((&said["engine"], &said["well"]), (&Value::from("ok"), &Value::from(false)), "{said}");
    daemon.signal("-INT");
    daemon.signal("-INT");
    assert!(daemon.ends().await.success());
    site.is_clean().await;
    let health = site.command(&["health"]).output().await.unwrap();
    assert_eq!(health.status.code(), Some(1));
    site.close().await;
}

#[tokio::test]
async fn redis_is_reached_over_tls_where_its_certificate_is_trusted() {
    let file = |name: &str| format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (number, certificate, key) = (port.to_string(), file("server.pem"), file("server.key"));
    let tls = ["--tls-port", &number, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let trusting_nobody = ["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"];
    let Some(redis) = RedisServer::start_with(&[tls.as_slice(), &trusting_nobody].concat()).await else { return };
    let Some(mut site) = Site::with_redis(redis, "  a: {image: IMAGE}\n", "").await else { return };
    let url = format!("rediss://127.0.0.1:{port}");
    site.environment = vec![("REDIS_URL", url), ("SSL_CERT_FILE", certificate)];
    let mut daemon = site.start();
    let line = daemon.says("redis unavailable", None).await;
    assert!(line["reason"].as_str().unwrap().contains("UnknownIssuer"), "{line}");
    daemon.signal("-TERM");
    daemon.ends().await;

    site.environment[1].1 = file("ca.pem");
    let mut daemon = site.start();
    daemon.says("redis available", None).await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn a_bad_configuration_is_exit_code_78_with_every_fault_and_wrong_usage_is_2() {
    let Some(site) = Site::new("  a: {imge: x}\n", "scheduler: {max_paralel: 3}\nfoo: 1\n").await else { return };
    let output = site.command(&["check"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("max_paralel") && text.contains("max_parallel") && text.contains("foo"), "{text}");
    site.folder.write("settings.yaml", "preset: none\n");
    let output = site.command(&[]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("compose.yaml:") && text.contains("imge"), "{text}");
    let output = site.command(&["frobnicate"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    site.close().await;
}

#[tokio::test]
async fn check_says_what_would_run_when_and_render_what_the_engine_would_be_sent() {
    let Some(site) = Site::new(LONG, LONG_SETTINGS).await else { return };
    let output = site.command(&["check"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("long: every 1h, at most 3m 20s"), "{text}");
    assert!(text.contains(&format!("  create network {}_default (no network)\n", site.project)), "{text}");
    assert!(text.contains(&format!("  create container {}-long-run-", site.project)), "{text}");
    let output = site.command(&["render", "long", "--one-off", "-e", "A=b"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let rendered: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rendered["body"]["Env"], serde_json::json!(["A=b"]));
    assert!(rendered["body"]["Labels"]["com.docker.compose.image"].is_string());
    assert_eq!(rendered["networks"][0]["Name"], format!("{}_default", site.project));
    site.close().await;
}
