//! The real binary, killed with SIGKILL at random moments while it runs services, is sent commands, and its Compose file
//! is edited. In the end its ledger alone has to agree with what the Engine itself saw.
//!
//! `SENSE_CHAOS_KILLS` is the number of kills, `SENSE_CHAOS_SEED` repeats the random moments of an earlier run.

use std::time::Duration;

use bollard_client::query_parameters::RemoveVolumeOptions;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::daemon::Site;
use crate::support::{self, docker};

mod evidence;

use evidence::{LedgerFile, Recorder};

/// As many as fit into a minute of all the tests.
const KILLS: u32 = 10;

/// Longest life of a daemon before it is killed.
const LIFE: Duration = Duration::from_millis(3_500);

const SERVICES: &str = "
  zero: {image: IMAGE, command: [sh, -c, 'sleep 0.2; echo fine'], profiles: [poll], environment: {EDIT: '0'}}
  three: {image: IMAGE, command: [sh, -c, 'sleep 0.5; echo wrong; exit 3'], profiles: [poll], environment: {EDIT: '0'}}
  over: {image: IMAGE, command: [sleep, '300'], init: true, stop_grace_period: 1s, profiles: [poll]}
  hourly: {image: IMAGE, command: [sh, -c, 'sleep 2; exit 5'], profiles: [poll]}
  store: {image: IMAGE, command: [sh, -c, 'echo x >> /data/x; exit 4'], volumes: ['data:/data'], profiles: [poll]}
  asked: {image: IMAGE, command: [sh, -c, 'sleep 0.3; exit 6'], profiles: [poll], environment: {EDIT: '0'}}
volumes:
  data: {}
";

const SETTINGS: &str = "
state: {dir: state}
scheduler: {first_run: due}
health: {interval: 3s}
runs: {keep: 100000}
commands: {profiles: [poll]}
services:
  zero: {every: 1s}
  three: {every: 2s}
  over: {every: 5s, timeout: 1s}
  hourly: {every: 1h}
  store: {every: 3s}
  asked: {every: 0}
actions:
  ask: [ { run: asked, wait_for_turn: 10s } ]
";

/// Time between the slots of the scheduled services.
const INTERVALS: [(&str, f64); 5] = [("zero", 1.0), ("three", 2.0), ("over", 5.0), ("hourly", 3600.0), ("store", 3.0)];

/// Numbers that another seed makes others.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("SENSE_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::try_from(now.as_micros()).unwrap()
        }))
    }

    /// A time below `limit`; the numbers are those of `SplitMix64`.
    fn time(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let part = mixed % u64::try_from(limit.as_micros()).unwrap();
        Duration::from_micros(part)
    }
}

/// Sends a command each few hundred milliseconds, and edits the Compose file: now and then it is broken for a moment.
async fn disturb(site: &Site, stop: &CancellationToken) -> u32 {
    let good = std::fs::read_to_string(site.folder.0.join("compose.yaml")).unwrap();
    let mut client = site.redis.client().await;
    let mut turn = 0_u32;
    while stop.run_until_cancelled(sleep(Duration::from_millis(400))).await.is_some() {
        turn += 1;
        let command = json!({"action": "ask", "request_id": format!("chaos-{turn}"), "params": {}});
        client.call(&["PUBLISH", "cmd:orchestrator", &command.to_string()]).await;
        if turn.is_multiple_of(3) {
            let edited = good.replace("EDIT: '0'", &format!("EDIT: '{turn}'"));
            if turn.is_multiple_of(5) {
                site.folder.write("compose.yaml", &format!("{edited}\n  - : ["));
                sleep(Duration::from_millis(200)).await;
            }
            site.folder.write("compose.yaml", &edited);
        }
    }
    site.folder.write("compose.yaml", &good);
    turn
}

async fn kill_and_restart(site: &Site, kills: u32, dice: &mut Dice) {
    for kill in 0..kills {
        let mut daemon = site.start();
        // Each third life is so short that it ends in the start itself.
        let life = if kill % 3 == 2 { Duration::from_millis(300) } else { LIFE };
        sleep(dice.time(life)).await;
        daemon.signal("-KILL");
        daemon.ends().await;
        if kill % 4 == 3 {
            sleep(dice.time(Duration::from_secs(2))).await;
        }
    }
}

#[tokio::test]
async fn after_any_number_of_kills_the_ledger_says_what_the_engine_saw() {
    let kills = std::env::var("SENSE_CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let mut dice = Dice::new();
    let seed = dice.0;
    let Some(site) = Site::new(SERVICES, SETTINGS).await else { return };
    let client = docker::client(&docker::host().parse().unwrap()).unwrap();
    let recorder = Recorder::start(client.clone(), &site.project).await;

    let begun = Instant::now();
    let stop = CancellationToken::new();
    let (sent, ()) = tokio::join!(disturb(&site, &stop), async {
        kill_and_restart(&site, kills, &mut dice).await;
        stop.cancel();
    });
    // A last life that sees everything through.
    let mut last = site.start();
    last.says("run succeeded", Some("zero")).await;
    sleep(Duration::from_secs(4)).await;
    last.signal("-TERM");
    assert!(last.ends().await.success(), "seed {seed}: {:#?}", last.seen);
    let took = begun.elapsed();

    let containers = recorder.stop().await;
    let ledger = LedgerFile::read(&site.folder.0.join("state/ledger.jsonl"));
    let mut wrong = ledger.compare(&containers);
    wrong.extend(ledger.slots_without_record(&INTERVALS));
    if let left @ 1.. = site.one_offs().await.len() {
        wrong.push(format!("{left} containers are left"));
    }
    let hourly = containers.iter().filter(|run| run.service == "hourly" && run.started.is_some()).count();
    if hourly != 1 {
        wrong.push(format!("the hourly job ran {hourly} times"));
    }
    let summary = ledger.summary(&containers);
    support::note(&format!("chaos: {kills} kills in {} s, {sent} commands sent, {summary}", took.as_secs()));
    if !wrong.is_empty() {
        let kept = std::env::temp_dir().join(format!("sense-chaos-{seed}.jsonl"));
        std::fs::copy(site.folder.0.join("state/ledger.jsonl"), &kept).unwrap();
        eprintln!("the ledger is kept as {}", kept.display());
    }
    let volume = format!("{}_data", site.project);
    site.close().await;
    client.remove_volume(&volume, None::<RemoveVolumeOptions>).await.unwrap();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}
