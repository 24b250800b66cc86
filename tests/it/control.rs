//! The control socket of the real binary: whom it answers, whom the client believes, and which of several is meant.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::daemon::{Daemon, PATIENCE, Site};

const PLAIN: &str = "  a: {image: IMAGE}\n";

/// What `health` says and its exit code.
async fn health(mut command: Command) -> (Option<i32>, Value, String) {
    let output = command.output().await.unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What it says once a daemon answers, well or not.
async fn answered(command: impl Fn() -> Command) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let (_, said, error) = health(command()).await;
        if !said.is_null() {
            return said;
        }
        assert!(Instant::now() < end, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn end(mut daemon: Daemon) {
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

#[tokio::test]
async fn each_of_two_daemons_answers_for_itself_only_and_none_for_one_that_is_gone() {
    let (Some(mut one), Some(mut two)) = (Site::new(PLAIN, "").await, Site::new(PLAIN, "").await) else { return };
    let shared = one.folder.0.to_string_lossy().into_owned();
    for site in [&mut one, &mut two] {
        site.environment.push(("RUNTIME_DIRECTORY", shared.clone()));
    }
    let (first, second) = (one.start(), two.start());
    for site in [&one, &two] {
        let said = answered(|| site.command(&["health"])).await;
        assert_eq!(said["project_name"], Value::from(site.project.as_str()));
    }
    let by_name = answered(|| two.command(&["health", "--project-name", &one.project])).await;
    assert_eq!(by_name["project_name"], Value::from(one.project.as_str()));
    end(first).await;
    let (code, _, error) = health(one.command(&["health"])).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("no daemon runs here") && error.contains(&two.project), "{error}");
    end(second).await;
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_place_of_ones_own_is_said_by_option_or_setting_and_only_its_user_may_use_it() {
    let Some(site) = Site::new(PLAIN, "control: {socket: own.sock}\n").await else { return };
    let daemon = site.start();
    let said = answered(|| site.command(&["health"])).await;
    assert_eq!(said["problems"], Value::Array(Vec::new()));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(site.folder.0.join("own.sock")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, error) = health(site.command(&["health", "--socket", "other.sock"])).await;
    assert_eq!(code, Some(1), "{error}");
    end(daemon).await;
    assert!(!site.folder.0.join("own.sock").exists());
    site.close().await;
}

#[tokio::test]
async fn garbage_silence_and_endless_requests_do_not_stop_it_from_answering() {
    let Some(site) = Site::new(PLAIN, "control: {socket: own.sock}\n").await else { return };
    let daemon = site.start();
    answered(|| site.command(&["health"])).await;
    let connect = || UnixStream::connect(site.folder.0.join("own.sock"));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect().await.unwrap());
    }
    let endless = vec![b'x'; 100 << 10];
    for request in [&b"\xff\x00{]\n"[..], b"\n", b"{\"version\":1,\"request\":\"make tea\"}\n", &endless] {
        let mut peer = connect().await.unwrap();
        let mut said = Vec::new();
        // It may close before it has read everything.
        let _ = peer.write_all(request).await;
        let _ = peer.read_to_end(&mut said).await;
        let said = String::from_utf8(said).unwrap();
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["project_name"], Value::from(site.project.as_str()));
        assert!(lines[1]["error"].is_string(), "{said}");
    }
    let mut newer = connect().await.unwrap();
    newer.write_all(b"{\"version\":2,\"request\":\"health\"}\n").await.unwrap();
    let mut said = String::new();
    newer.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("this daemon understands 1"), "{said}");
    // One that listens beside it and says nothing.
    let beside = std::os::unix::net::UnixListener::bind(site.folder.0.join("beside.sock")).unwrap();
    answered(|| site.command(&["health"])).await;
    end(daemon).await;
    drop((silent, beside));
    site.close().await;
}

#[tokio::test]
async fn another_users_daemon_of_the_same_project_is_not_believed() {
    if !is_root() {
        eprintln!("skipped: only root can be two users");
        return;
    }
    let Some(site) = Site::new(PLAIN, "").await else { return };
    // It can write to none of the directories, so its socket has no file.
    let mut command = site.command(&[]);
    command.as_std_mut().uid(65534).gid(65534);
    let mut squatter = command.stderr(Stdio::null()).spawn().unwrap();
    let client = || site.command(&["health"]);
    let end_of_patience = Instant::now() + PATIENCE;
    loop {
        let (code, said, error) = health(client()).await;
        assert_eq!((code, said), (Some(1), Value::Null), "{error}");
        if error.contains("another user's socket was not believed") {
            break;
        }
        assert!(Instant::now() < end_of_patience, "{error}");
        sleep(Duration::from_millis(100)).await;
    }
    let own = site.start();
    let said = answered(client).await;
    assert_ne!(said["pid"], squatter.id().unwrap());
    end(own).await;
    squatter.kill().await.unwrap();
    site.close().await;
}

/// The one child of a process.
async fn child_of(parent: &Child) -> String {
    let id = parent.id().unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.to_owned();
        }
        assert!(Instant::now() < end, "no child of {id}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_containers_health_check_needs_none_of_the_daemons_options() {
    if !is_root() {
        eprintln!("skipped: only root makes namespaces");
        return;
    }
    let Some(site) = Site::new(PLAIN, "").await else { return };
    let binary = env!("CARGO_BIN_EXE_sense-orchestrator");
    // As in a container on the host's network: its own processes and mounts, and no directory to write to.
    let options = ["--config", "settings.yaml", "--file", "compose.yaml"];
    let mut daemons = Vec::new();
    for project in ["named-one", "named-two"] {
        let mut command = site.command(&[]);
        let given: Vec<_> =
            command.as_std().get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"])
            .args(["mount -t tmpfs -o ro none /run && exec \"$0\" \"$@\"", binary])
            .args(options)
            .args(["--project-name", project])
            .current_dir(&site.folder.0)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(given.into_iter().filter_map(|(name, value)| Some((name, value?))))
            .env("RUNTIME_DIRECTORY", "/proc/self")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command = unshare;
        daemons.push((project, command.spawn().unwrap()));
    }
    for (project, daemon) in &daemons {
        let inside = child_of(daemon).await;
        let said = answered(|| {
            let mut command = Command::new("nsenter");
            command
                .args(["--target", &inside, "--mount", "--pid", binary, "health"])
                .current_dir(&site.folder.0)
                .env_clear()
                .env("ORCHESTRATOR_PRESET", "none")
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            command
        })
        .await;
        assert_eq!((&said["project_name"], &said["pid"]), (&Value::from(*project), &Value::from(1)));
    }
    for (_, mut daemon) in daemons {
        daemon.kill().await.unwrap();
    }
    site.close().await;
}

#[tokio::test]
async fn without_redis_the_schedule_runs_health_is_well_and_nothing_is_warned_of() {
    let jobs = "  job: {image: IMAGE, command: ['true'], profiles: [jobs]}\n";
    let Some(mut site) = Site::new(jobs, "services: {job: {every: 1h}}\n").await else { return };
    site.environment.push(("REDIS_URL", "none".into()));
    let mut daemon = site.start();
    daemon.says("run succeeded", Some("job")).await;
    let said = answered(|| site.command(&["health"])).await;
    assert_eq!(said["redis"], "ok");
    daemon.signal("-TERM");
    daemon.says("stopped", None).await;
    assert!(daemon.ends().await.success());
    let bad: Vec<_> = daemon.seen.iter().filter(|line| line["level"] == "WARN" || line["level"] == "ERROR").collect();
    assert!(bad.is_empty(), "{bad:#?}");
    site.close().await;
}
