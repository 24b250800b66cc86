//! The ledger: what it knows, its file under power cuts and damage, and its store going away and coming back.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::ledger::file::{self, Lock, LockError};
use sense_orchestrator::ledger::{Entry, FILE, Ledger, Limits, Query, Request, RunStart, StoreStatus};
use sense_orchestrator::names::{RunId, ServiceName};
use sense_orchestrator::record::{Missed, Reason, Record, State};
use sense_orchestrator::report::Trigger;

use cut_disk::{CutDisk, Dice};

mod cut_disk;

const LIMITS: Limits = Limits { records: 1000, age: Duration::from_hours(90 * 24), bytes: 16 * 1024 * 1024 };

fn job(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn run_id(number: u64) -> RunId {
    format!("{number:012x}").parse().unwrap()
}

/// A run in `state`, a second after the one with the number before it.
fn record(name: &str, number: u64, state: State) -> Record {
    let at = Timestamp(1_800_000_000.0 + f64::from(u32::try_from(number).unwrap()));
    let run = Record::pending(job(name), number, run_id(number), Trigger::Schedule, at);
    Record { state, slot: Some(at), container: Some(format!("project-{name}-run-{number:012x}")), ..run }
}

fn all(job_name: &str) -> Query {
    Query { job: Some(job(job_name)), limit: usize::MAX, ..Query::default() }
}

/// Iterations and states of a service's records, newest first.
async fn told(ledger: &Ledger, name: &str) -> Vec<(Option<u64>, State)> {
    let page = ledger.page(all(name)).await;
    page.records.iter().map(|record| (record.iteration, record.state)).collect()
}

fn open(disk: &CutDisk, limits: Limits) -> Ledger {
    Ledger::on_disk(disk.reopened(), limits)
}

/// Lets time pass and the store do what is due.
async fn pass(ledger: &Ledger, seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    ledger.tick();
}

#[tokio::test(start_paused = true)]
async fn a_later_life_knows_what_an_earlier_one_wrote() {
    let disk = CutDisk::default();
    let first = open(&disk, LIMITS);
    assert_eq!((first.next_iteration(&job("a")), first.next_iteration(&job("a"))), (1, 2));
    first.slots_due(3);
    for entry in [
        Entry::Record(record("a", 1, State::Pending)),
        Entry::Record(record("a", 1, State::Succeeded)),
        Entry::Record(record("a", 2, State::Pending)),
        Entry::Record(record("a", 2, State::Running)),
        Entry::Start(RunStart { run_id: run_id(2), boot_id: "boot".into(), boot_ms: 5 }),
        Entry::Record(Record::skipped(job("a"), Timestamp(1_800_000_003.0), Reason::Busy, Timestamp(1_800_000_003.0))),
        Entry::Paused { job: job("b"), paused: true },
    ] {
        assert!(first.write(&entry).wait().await);
    }
    assert_eq!(first.slots().due, first.slots().accounted);
    // As after kill -9: nothing is closed.
    let second = open(&disk, LIMITS);
    assert_eq!(second.next_iteration(&job("a")), 3);
    assert_eq!(second.next_iteration(&job("b")), 1);
    assert_eq!((second.paused(&job("b")), second.paused(&job("a"))), (Some(true), None));
    assert_eq!(second.all_paused().into_iter().collect::<Vec<_>>(), [job("b")]);
    let unfinished = second.unfinished();
    assert_eq!(unfinished.len(), 1, "{unfinished:?}");
    assert_eq!(unfinished[0].record.state, State::Running);
    assert_eq!(unfinished[0].start.as_ref().map(|start| start.boot_ms), Some(5));
    let expected = [(None, State::Skipped), (Some(2), State::Running), (Some(1), State::Succeeded)];
    assert_eq!(told(&second, "a").await, expected);
    assert_eq!((second.slots().due, second.slots().accounted), (3, 3));
    assert_eq!(second.run(&run_id(1)).await.unwrap().state, State::Succeeded);
    assert_eq!(*second.status().borrow(), StoreStatus::Disk);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_stays_whatever_is_said_later() {
    let ledger = Ledger::in_memory(LIMITS);
    let _ = ledger.record(record("a", 1, State::Pending));
    let _ = ledger.record(record("a", 1, State::TimedOut));
    for later in [State::Succeeded, State::Running, State::Pending, State::TimedOut] {
        let _ = ledger.record(record("a", 1, later));
    }
    assert_eq!(told(&ledger, "a").await, [(Some(1), State::TimedOut)]);
    assert!(ledger.unfinished().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_is_known_over_a_restart_with_its_reply() {
    let disk = CutDisk::default();
    let request = |reply: Option<&str>| Request {
        id: "r1".parse().unwrap(),
        at: Timestamp(1_800_000_000.0),
        fingerprint: "trigger a".into(),
        run_id: Some(run_id(1)),
        reply: reply.map(str::to_owned),
    };
    let ledger = open(&disk, LIMITS);
    let _ = ledger.write(&Entry::Request(request(None)));
    assert_eq!(open(&disk, LIMITS).request(&"r1".parse().unwrap()), Some(request(None)));
    let _ = ledger.write(&Entry::Request(request(Some("{}"))));
    assert_eq!(open(&disk, LIMITS).request(&"r1".parse().unwrap()), Some(request(Some("{}"))));
    assert_eq!(ledger.request(&"r2".parse().unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn commands_are_forgotten_by_number_and_size_the_newest_never() {
    let ledger = Ledger::in_memory(LIMITS);
    let say = |number: usize, reply: usize| {
        let request = Request {
            id: format!("r{number}").parse().unwrap(),
            at: Timestamp(1_800_000_000.0),
            fingerprint: String::new(),
            run_id: None,
            reply: Some("x".repeat(reply)),
        };
        let _ = ledger.write(&Entry::Request(request));
    };
    let known = |number: usize| ledger.request(&format!("r{number}").parse().unwrap()).is_some();
    (0..1500).for_each(|number| say(number, 10));
    assert!(!known(499) && known(500) && known(1499));
    (1500..1510).for_each(|number| say(number, 100_000));
    assert!(!known(1499) && !known(1507) && known(1508) && known(1509));
    say(1510, 500_000);
    assert!(known(1510) && !known(1509));
}

#[tokio::test(start_paused = true)]
async fn missed_slots_are_one_record_that_accounts_for_them_all() {
    let ledger = Ledger::in_memory(LIMITS);
    ledger.slots_due(12);
    let missed = Missed { slots: 12, last: Timestamp(1_800_000_600.0) };
    let _ = ledger.record(Record::missed(job("a"), Timestamp(1_800_000_000.0), missed, Reason::Down, Timestamp(1.8e9)));
    assert_eq!((ledger.slots().due, ledger.slots().accounted), (12, 12));
    assert_eq!(ledger.page(all("a")).await.records[0].missed_slots(), Some(missed));
}

#[tokio::test(start_paused = true)]
async fn records_are_kept_by_count_and_age_and_skipped_slots_push_no_run_out() {
    let disk = CutDisk::default();
    let limits = Limits { records: 10, age: Duration::from_secs(100), ..LIMITS };
    let ledger = open(&disk, limits);
    let _ = ledger.record(record("old", 1, State::Succeeded));
    for number in 50..80 {
        let _ = ledger.record(record("a", number, State::Pending));
        let _ = ledger.record(record("a", number, State::Failed));
    }
    let skipped = |second: u32| Timestamp(1_800_000_000.0 + f64::from(second));
    for second in 80..130 {
        let _ = ledger.record(Record::skipped(job("a"), skipped(second), Reason::Paused, skipped(second)));
    }
    for ledger in [ledger, open(&disk, limits)] {
        let told = told(&ledger, "a").await;
        assert_eq!(told.iter().filter(|(_, state)| *state == State::Failed).count(), 10);
        assert_eq!(told.iter().filter(|(_, state)| *state == State::Skipped).count(), 10);
        assert_eq!(told.last(), Some(&(Some(70), State::Failed)));
        assert_eq!(ledger.next_iteration(&job("old")), 2);
    }
    let old = open(&disk, limits);
    assert!(old.page(all("old")).await.records.is_empty(), "129 s after it nothing of it is kept");
}

#[tokio::test(start_paused = true)]
async fn a_service_with_much_output_pushes_out_its_own_records_only() {
    let limits = Limits { bytes: 100_000, ..LIMITS };
    let ledger = Ledger::in_memory(limits);
    for number in 1..=20 {
        let _ = ledger.record(record("quiet", number, State::Succeeded));
    }
    for number in 21..=60 {
        let loud = Record { tail: Some("x".repeat(20_000)), ..record("loud", number, State::Failed) };
        let _ = ledger.record(loud);
    }
    assert_eq!(told(&ledger, "quiet").await.len(), 20);
    assert_eq!(told(&ledger, "loud").await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_long_history_is_read_page_by_page() {
    let ledger = Ledger::in_memory(LIMITS);
    for number in 1..=25 {
        let _ = ledger.record(record(if number % 2 == 0 { "a" } else { "b" }, number, State::Succeeded));
    }
    let mut found = Vec::new();
    let mut query = Query { limit: 10, ..Query::default() };
    loop {
        let page = ledger.page(query.clone()).await;
        found.extend(page.records.iter().map(|record| record.iteration.unwrap()));
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    assert_eq!(found, (1..=25).rev().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_file_stays_in_proportion_to_what_is_kept() {
    let disk = CutDisk::default();
    let limits = Limits { records: 50, ..LIMITS };
    let ledger = open(&disk, limits);
    let mut largest = 0;
    for number in 1..=20_000 {
        let _ = ledger.record(record("a", number, State::Pending));
        let _ = ledger.record(record("a", number, State::Succeeded));
        ledger.tick();
        largest = largest.max(disk.bytes(FILE).len());
    }
    assert!(largest < 1_300_000, "{largest} bytes for 50 records");
    let later = open(&disk, limits);
    assert_eq!(told(&later, "a").await.len(), 50);
    assert_eq!(later.next_iteration(&job("a")), 20_001);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_a_thread_stays_small_however_many_commands_come() {
    let disk = CutDisk::default();
    let ledger = open(&disk, Limits { records: 50, bytes: 256 * 1024, ..LIMITS });
    let (mut written, mut rewritten) = (0, 0);
    for number in 0..4000 {
        let request = Request {
            id: format!("r{number}").parse().unwrap(),
            at: Timestamp(1_800_000_000.0),
            fingerprint: "status".into(),
            run_id: None,
            reply: Some("x".repeat(400)),
        };
        let _ = ledger.write(&Entry::Request(request));
        let length = disk.bytes(FILE).len();
        rewritten += usize::from(length < written);
        written = length;
        assert!(length < 2 << 20, "{length} bytes after {number} commands");
    }
    assert!((1..20).contains(&rewritten), "written anew {rewritten} times");
}

/// What a life has written, by run, and what of it is safe.
#[derive(Default)]
struct Promised {
    written: BTreeMap<u64, Vec<State>>,
    safe: BTreeMap<u64, State>,
}

#[tokio::test(start_paused = true)]
async fn a_thousand_power_cuts_lose_nothing_but_the_last_unsynced_second() {
    let mut dice = Dice(0x5eed_cafe_f00d_d1ce);
    let mut disk = CutDisk::default();
    let mut promised = Promised::default();
    let mut number = 0;
    // Small, so that the file is written anew every few lives.
    let limits = Limits { records: 40, bytes: 32 * 1024, ..LIMITS };
    for life in 0..1000 {
        let ledger = open(&disk, limits);
        assert_eq!(*ledger.status().borrow(), StoreStatus::Disk, "life {life} refused its store");
        // What arrived is as safe as what was waited for; what did not was never promised.
        let found = ledger.page(all("a")).await.records.into_iter().map(|run| (run.iteration.unwrap(), run.state));
        let found: BTreeMap<u64, State> = found.collect();
        for (run, safe) in promised.safe.iter().rev().take(30) {
            let written = &promised.written[run];
            let at = |state: &State| written.iter().position(|known| known == state);
            let is_there = found.get(run).is_some_and(|found| at(found) >= at(safe) && at(found).is_some());
            assert!(is_there, "life {life}: run {run} was {safe}, is {:?}", found.get(run));
        }
        promised.written.retain(|run, _| found.contains_key(run));
        let next = ledger.next_iteration(&job("a"));
        assert!(next > promised.safe.keys().next_back().copied().unwrap_or(0), "life {life}: {next} was used");
        for run in ledger.unfinished() {
            let run_number = run.record.iteration.unwrap();
            let _ = ledger.record(record("a", run_number, State::Cancelled));
            promised.written.entry(run_number).or_default().push(State::Cancelled);
        }
        assert!(ledger.unfinished().is_empty());
        promised.safe = found;
        number = number.max(next);
        for _ in 0..dice.below(12) {
            number += 1;
            for state in [State::Pending, State::Running, State::Failed].into_iter().take(1 + dice.below(3)) {
                let tail = Some("output ".repeat(dice.below(15)));
                let _ = ledger.record(Record { tail, ..record("a", number, state) });
                promised.written.entry(number).or_default().push(state);
            }
            if dice.below(3) == 0 {
                pass(&ledger, 1).await;
                let last = |states: &Vec<State>| *states.last().unwrap();
                promised.safe = promised.written.iter().map(|(run, states)| (*run, last(states))).collect();
            }
        }
        disk = disk.after_power_cut(&mut dice);
    }
    let aside: Vec<String> = disk.names().into_iter().filter(|name| name.contains("damaged")).collect();
    assert!(aside.is_empty(), "a power cut is no damage: {aside:?}");
}

#[tokio::test(start_paused = true)]
async fn a_file_cut_at_any_byte_opens_with_all_whole_lines() {
    let disk = CutDisk::default();
    let ledger = open(&disk, LIMITS);
    for number in 1..=4 {
        let _ = ledger.record(record("a", number, State::Succeeded));
    }
    let whole = disk.bytes(FILE);
    for cut in 0..whole.len() {
        let disk = CutDisk::default();
        disk.put(FILE, &whole[..cut]);
        let ledger = open(&disk, LIMITS);
        assert_eq!(*ledger.status().borrow(), StoreStatus::Disk, "cut at {cut}");
        let lines = whole[..cut].split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let records = lines.filter(|line| line.windows(8).any(|word| word == b"\"record\"")).count();
        assert_eq!(told(&ledger, "a").await.len(), records, "cut at {cut}");
        let _ = ledger.record(record("a", 9, State::Succeeded));
        assert_eq!(told(&open(&disk, LIMITS), "a").await.len(), records + 1, "cut at {cut}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_open_and_are_kept_aside(bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..4000)) {
        let disk = CutDisk::default();
        disk.put(FILE, &bytes);
        let ledger = open(&disk, LIMITS);
        let status = ledger.status().borrow().clone();
        proptest::prop_assert_eq!(status, StoreStatus::Disk);
        let aside = disk.names().into_iter().find(|name| name.starts_with("ledger.damaged-"));
        proptest::prop_assert_eq!(disk.bytes(&aside.unwrap()), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_line_costs_that_line_and_the_file_is_kept_aside() {
    let disk = CutDisk::default();
    let ledger = open(&disk, LIMITS);
    for number in 1..=9 {
        let _ = ledger.record(record("a", number, State::Succeeded));
        pass(&ledger, 1).await;
    }
    let mut bytes = disk.bytes(FILE);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    disk.put(FILE, &bytes);
    let ledger = open(&disk, LIMITS);
    assert_eq!(told(&ledger, "a").await.len(), 8);
    let aside = disk.names().into_iter().find(|name| name.starts_with("ledger.damaged-")).unwrap();
    assert_eq!(disk.bytes(&aside), bytes);
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_later_version_are_passed_over_and_carried_along() {
    let disk = CutDisk::default();
    let ledger = open(&disk, Limits { records: 5, ..LIMITS });
    let _ = ledger.record(record("a", 1, State::Succeeded));
    let later = b"7db7b4a2 {\"hologram\":{\"x\":1}}\n";
    let mut bytes = disk.bytes(FILE);
    bytes.extend_from_slice(later);
    disk.put(FILE, &bytes);
    let ledger = open(&disk, Limits { records: 5, ..LIMITS });
    for number in 2..5000 {
        let _ = ledger.record(record("a", number, State::Succeeded));
        ledger.tick();
    }
    let bytes = disk.bytes(FILE);
    assert!(bytes.len() < 1_300_000, "it was written anew");
    assert!(bytes.windows(later.len()).any(|found| found == later), "the line was carried along");
}

#[tokio::test(start_paused = true)]
async fn a_file_of_a_later_format_is_left_alone() {
    let disk = CutDisk::default();
    let header = b"70c61bca {\"ledger\":{\"version\":2}}\n";
    disk.put(FILE, header);
    let ledger = open(&disk, LIMITS);
    let status = ledger.status().borrow().clone();
    assert!(matches!(&status, StoreStatus::SetAside { reason } if reason.contains("format 2")), "{status:?}");
    let _ = ledger.record(record("a", 1, State::Succeeded));
    pass(&ledger, 61).await;
    assert_eq!(disk.bytes(FILE), header);
    assert_eq!(told(&ledger, "a").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_set_aside_and_gets_what_it_missed_when_it_is_back() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied] {
        let disk = CutDisk::default();
        let ledger = open(&disk, LIMITS);
        let _ = ledger.record(record("a", 1, State::Succeeded));
        let _ = ledger.record(record("a", 2, State::Pending));
        disk.fail(Some(kind));
        let _ = ledger.record(record("a", 2, State::Failed));
        assert!(matches!(*ledger.status().borrow(), StoreStatus::SetAside { .. }), "{kind}");
        let _ = ledger.record(record("a", 3, State::Pending));
        let _ = ledger.write(&Entry::Paused { job: job("a"), paused: true });
        let expected = [(Some(3), State::Pending), (Some(2), State::Failed), (Some(1), State::Succeeded)];
        assert_eq!(told(&ledger, "a").await, expected, "{kind}");
        pass(&ledger, 61).await;
        assert!(matches!(*ledger.status().borrow(), StoreStatus::SetAside { .. }), "{kind}: it is not back yet");
        disk.fail(None);
        pass(&ledger, 30).await;
        assert!(matches!(*ledger.status().borrow(), StoreStatus::SetAside { .. }), "{kind}: tried once a minute");
        pass(&ledger, 31).await;
        assert_eq!(*ledger.status().borrow(), StoreStatus::Disk, "{kind}");
        for ledger in [ledger, open(&disk, LIMITS)] {
            assert_eq!(told(&ledger, "a").await, expected, "{kind}");
            assert_eq!(ledger.unfinished().len(), 1);
            assert_eq!(ledger.paused(&job("a")), Some(true));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_opened_at_the_start_is_taken_in_later() {
    let disk = CutDisk::default();
    let first = open(&disk, LIMITS);
    for number in 1..=3 {
        let _ = first.record(record("a", number, State::Succeeded));
    }
    let _ = first.write(&Entry::Paused { job: job("a"), paused: true });
    disk.fail(Some(io::ErrorKind::PermissionDenied));
    let second = open(&disk, LIMITS);
    assert_eq!(second.paused(&job("a")), None);
    let _ = second.record(record("b", 7, State::Succeeded));
    disk.fail(None);
    pass(&second, 61).await;
    assert_eq!(*second.status().borrow(), StoreStatus::Disk);
    assert_eq!(second.paused(&job("a")), Some(true));
    assert_eq!(second.next_iteration(&job("a")), 4);
    let third = open(&disk, LIMITS);
    assert_eq!((told(&third, "a").await.len(), told(&third, "b").await.len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_file_removed_under_the_daemon_is_written_anew_with_all_that_it_held() {
    let disk = CutDisk::default();
    let ledger = open(&disk, LIMITS);
    let _ = ledger.record(record("a", 1, State::Succeeded));
    pass(&ledger, 1).await;
    disk.remove(FILE);
    let _ = ledger.record(record("a", 2, State::Succeeded));
    pass(&ledger, 1).await;
    assert_eq!(*ledger.status().borrow(), StoreStatus::Disk);
    assert_eq!(told(&open(&disk, LIMITS), "a").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_wakes_a_ledger_that_is_safe() {
    let disk = CutDisk::default();
    let ledger = open(&disk, LIMITS);
    assert_eq!(ledger.tick(), None);
    let _ = ledger.record(record("a", 1, State::Pending));
    assert_eq!(ledger.tick(), Some(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ledger.tick(), None);
}

/// A folder that is removed afterwards.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sense-ledger-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn opened(path: &Path) -> Ledger {
    file::open(path, LIMITS).await.unwrap()
}

#[tokio::test]
async fn what_is_waited_for_is_in_the_file() {
    let folder = Folder::new("wait");
    let ledger = opened(&folder.path().join("deep/er")).await;
    for number in 1..=50 {
        assert!(ledger.record(record("a", number, State::Succeeded)).wait().await);
        let text = std::fs::read_to_string(folder.path().join("deep/er").join(FILE)).unwrap();
        assert!(text.contains(&format!("\"run_id\":\"{number:012x}\"")), "{number}");
    }
    ledger.sync().await;
    let again = opened(&folder.path().join("deep/er")).await;
    assert_eq!(told(&again, "a").await.len(), 50);
    assert_eq!(again.next_iteration(&job("a")), 51);
}

#[tokio::test]
async fn a_place_that_cannot_hold_files_is_set_aside_and_nothing_is_lost_meanwhile() {
    let folder = Folder::new("places");
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let directory = folder.path().join("directory");
    std::fs::create_dir_all(directory.join(FILE)).unwrap();
    for place in [file.as_path(), directory.as_path(), Path::new("/proc/nowhere"), Path::new("/dev/null")] {
        let ledger = opened(place).await;
        assert!(matches!(*ledger.status().borrow(), StoreStatus::SetAside { .. }), "{}", place.display());
        assert!(ledger.record(record("a", 1, State::Failed)).wait().await, "{}", place.display());
        assert_eq!(told(&ledger, "a").await, [(Some(1), State::Failed)], "{}", place.display());
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_directory_is_locked_once_and_tells_its_holder() {
    let folder = Folder::new("lock");
    let lock = Lock::acquire(folder.path()).unwrap();
    let error = Lock::acquire(folder.path()).unwrap_err();
    let LockError::Held { holder: Some(holder), .. } = &error else { panic!("{error}") };
    assert_eq!(holder.pid, std::process::id());
    assert!(error.to_string().contains(&format!("process {} on ", holder.pid)), "{error}");
    drop(lock);
    Lock::acquire(folder.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_locked_is_no_second_daemon() {
    assert!(matches!(Lock::acquire(Path::new("/dev/null/x")), Err(LockError::Io { .. })));
}
