//! The real binary as a process among others: signals, a log that nobody reads, a resolver that does not answer.

use std::collections::BTreeSet;
use std::io::{PipeReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::{PATIENCE, Site};

const SLOW: &str = "
  slow: {image: IMAGE, command: [sleep, '300'], init: true, profiles: [poll]}
  chatty: {image: IMAGE, command: ['false'], profiles: [poll]}
";

const SLOW_SETTINGS: &str = "
services:
  slow: {every: 1h, timeout: 6s}
  chatty: {every: 1s}
";

/// Bytes that wait in a pipe, seen at its end for reading.
fn fill(pipe: &PipeReader) -> usize {
    // Through /proc the pipe is opened a second time, which can be made non-blocking without changing the daemon's end.
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut options = std::fs::OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    let mut end = options.open(path).unwrap();
    let mut written = 0;
    while let Ok(count) = end.write(&[b'\n'; 512]) {
        written += count;
    }
    written
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_limits_nor_health_nor_the_end() {
    let Some(site) = Site::new(SLOW, SLOW_SETTINGS).await else { return };
    let (unread, stderr) = std::io::pipe().unwrap();
    assert!(fill(&unread) > 0, "full from the first line on");
    let mut child = site.command(&[]).stderr(Stdio::from(stderr)).spawn().unwrap();
    let signal = |name: &str| {
        let id = child.id().expect("the daemon runs").to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    site.runs("slow").await;
    let begun = Instant::now();
    while site.one_offs().await.keys().any(|name| name.contains("-slow-run-")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the limit of 6 s holds");
        sleep(Duration::from_millis(200)).await;
    }
    let health = site.command(&["health"]).output().await.unwrap();
    assert!(health.status.success(), "{health:?}");
    signal("-TERM");
    let begun = Instant::now();
    let status = timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap();
    assert!(status.success() && begun.elapsed() < Duration::from_secs(20), "{status} {:?}", begun.elapsed());
    site.is_clean().await;
    site.close().await;
}

const LONG: &str = "
  long: {image: IMAGE, command: [sh, -c, 'sleep 8'], init: true, profiles: [poll]}
";

const LONG_SETTINGS: &str = "
services:
  long: {every: 1h, timeout: 100s}
";

#[tokio::test]
async fn signals_that_mean_nothing_to_us_do_not_kill_the_daemon() {
    let Some(site) = Site::new(LONG, LONG_SETTINGS).await else { return };
    let mut daemon = site.start();
    site.runs("long").await;
    for signal in ["-USR1", "-USR2", "-ALRM", "-VTALRM", "-PROF", "-IO", "-PWR", "-STKFLT", "-RTMIN", "-40"] {
        daemon.signal(signal);
    }
    daemon.says("signal ignored", None).await;
    daemon.says("run succeeded", Some("long")).await;
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

#[tokio::test]
async fn quit_ends_it_as_term_does_and_two_signals_at_once_are_one() {
    for signal in ["-QUIT", "-TERM"] {
        let Some(site) = Site::new(LONG, LONG_SETTINGS).await else { return };
        let mut daemon = site.start();
        site.runs("long").await;
        daemon.signal(signal);
        daemon.says("shutting down", None).await;
        daemon.signal("-TERM");
        let still = daemon.says("still running", None).await;
        assert_eq!(still["services"], "long", "{signal}");
        daemon.says("run succeeded", Some("long")).await;
        assert!(daemon.ends().await.success(), "{signal}");
        site.is_clean().await;
        site.close().await;
    }
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_does_not_hold_up_the_end() {
    let Some(mut site) = Site::new(LONG, "").await else { return };
    // glibc looks a plain name up in this file first, and nobody ever opens the other end.
    let stuck = site.folder.0.join("aliases");
    assert!(Command::new("mkfifo").arg(&stuck).status().unwrap().success());
    site.environment =
        vec![("REDIS_URL", "redis://nobody:6379".into()), ("HOSTALIASES", stuck.to_string_lossy().into_owned())];
    let mut daemon = site.start();
    daemon.says("starting without redis", None).await;
    let resolving = daemon.threads();
    // The kernel's names for the opening of a pipe that has no other end.
    let opens_pipe = |place: &String| ["wait_for_partner", "fifo_open"].contains(&place.as_str());
    assert!(resolving.values().any(opens_pipe), "it hangs where it should: {resolving:?}");
    daemon.signal("-TERM");
    daemon.says("stopped", None).await;
    let begun = Instant::now();
    assert!(daemon.ends().await.success());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    site.close().await;
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_what_waited() {
    let Some(site) = Site::new(SLOW, SLOW_SETTINGS).await else { return };
    let (unread, stderr) = std::io::pipe().unwrap();
    fill(&unread);
    let mut child = site.command(&[]).stderr(Stdio::from(stderr)).spawn().unwrap();
    site.runs("slow").await;
    let reader = tokio::task::spawn_blocking(move || std::io::read_to_string(unread).unwrap());
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap().success());
    let text = reader.await.unwrap();
    let lines: Vec<Value> =
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: BTreeSet<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert!(messages.contains("starting") && messages.contains("stopped"), "{messages:?}");
    site.is_clean().await;
    site.close().await;
}
