//! The real binary on a state directory that fails: full, read-only, damaged, deleted, at the start and while it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::daemon::{Daemon, Site};
use crate::support::missing_server;

const SERVICE: &str = "
  ok: {image: IMAGE, command: ['true'], profiles: [poll]}
";

const ASIDE: &str = "ledger set aside, going on in memory";
const BACK: &str = "ledger is back";

/// Between two tries of a place that could not be used.
const RETRY: Duration = Duration::from_mins(1);

/// A small file system of its own, unmounted with this value.
struct Mount(PathBuf);

impl Mount {
    /// None, after saying so, where nothing can be mounted.
    fn at(place: &Path) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(place).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(place.to_owned()));
        }
        missing_server("right to mount")
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Leaves no byte for others.
    fn fill(&self) {
        let taken = std::fs::write(self.0.join("other"), vec![0; 4 << 20]).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("other")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn site() -> Option<Site> {
    Site::new(SERVICE, "state: {dir: state}\nservices: {ok: {every: 1s}}\n").await
}

/// The ledger as `health` shows it, which is well whatever the ledger does.
async fn ledger(site: &Site) -> String {
    let health = site.command(&["health"]).output().await.unwrap();
    let said: Value = serde_json::from_slice(&health.stdout).unwrap();
    assert!(health.status.success() && said["well"] == true, "{said}");
    said["ledger"].as_str().unwrap().to_owned()
}

/// Ends the daemon, and gives how often it said each of these.
async fn end(site: &Site, mut daemon: Daemon, messages: [&str; 2]) -> [usize; 2] {
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    daemon.rest().await;
    let times = messages.map(|message| daemon.seen.iter().filter(|line| line["message"] == message).count());
    site.is_clean().await;
    times
}

/// How the place fails, and how it is mended.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Full,
    ReadOnly,
}

async fn place_that_fails(fault: Fault, at_the_start: bool) {
    let Some(site) = site().await else { return };
    let Some(place) = Mount::at(&site.folder.0.join("state")) else { return };
    // A file that is open cannot become read-only by a mount, so that case is only there at the start.
    let spoil = || match fault {
        Fault::Full => place.fill(),
        Fault::ReadOnly => place.remount("ro"),
    };
    if at_the_start {
        spoil();
    }
    let mut daemon = site.start();
    daemon.says("run succeeded", None).await;
    if !at_the_start {
        assert_eq!(ledger(&site).await, "ok");
        spoil();
    }
    if !daemon.seen.iter().any(|line| line["message"] == ASIDE) {
        daemon.says(ASIDE, None).await;
    }
    for _ in 0..3 {
        daemon.says("run succeeded", None).await;
    }
    let shown = ledger(&site).await;
    assert!(shown.starts_with("set aside, in memory: "), "{fault:?} {at_the_start}: {shown}");
    match fault {
        Fault::Full => place.empty(),
        Fault::ReadOnly => place.remount("rw"),
    }
    sleep(RETRY / 2).await;
    daemon.says(BACK, None).await;
    assert_eq!(ledger(&site).await, "ok");
    let times = end(&site, daemon, [ASIDE, BACK]).await;
    assert_eq!(times, [1, 1], "{fault:?} {at_the_start}");
    let lines = std::fs::read_to_string(place.0.join("ledger.jsonl")).unwrap();
    let verdicts = lines.lines().filter(|line| line.contains("\"state\":\"succeeded\"")).count();
    assert!(verdicts > 20, "what the place missed is there: {verdicts}");
    drop(place);
    site.close().await;
}

#[tokio::test]
async fn a_full_or_read_only_place_stops_no_run_is_said_once_and_is_used_again_when_it_can_be() {
    futures::join!(
        place_that_fails(Fault::Full, false),
        place_that_fails(Fault::Full, true),
        place_that_fails(Fault::ReadOnly, true),
    );
}

#[tokio::test]
async fn a_deleted_file_is_written_anew_and_a_damaged_one_is_kept_while_the_schedule_goes_on() {
    let Some(site) = site().await else { return };
    let file = site.folder.0.join("state/ledger.jsonl");
    let mut daemon = site.start();
    daemon.says("run succeeded", None).await;
    let before = std::fs::read_to_string(&file).unwrap();
    let run = before.split("\"run_id\":\"").nth(1).unwrap().get(..12).unwrap().to_owned();
    std::fs::remove_file(&file).unwrap();
    daemon.says("ledger file was removed, written anew", None).await;
    daemon.says("run succeeded", None).await;
    assert!(std::fs::read_to_string(&file).unwrap().contains(&run), "with all that it held");
    assert_eq!(ledger(&site).await, "ok");
    daemon.signal("-KILL");
    daemon.ends().await;

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut daemon = site.start();
    daemon.says("ledger file was damaged, what could be read of it was taken over", None).await;
    daemon.says("run succeeded", None).await;
    assert_eq!(ledger(&site).await, "ok");
    let kept = std::fs::read_dir(site.folder.0.join("state")).unwrap();
    let kept =
        kept.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("ledger.damaged-"));
    assert_eq!(kept.count(), 1);
    let times = end(&site, daemon, [ASIDE, BACK]).await;
    assert_eq!(times, [0, 0]);
    site.close().await;
}
