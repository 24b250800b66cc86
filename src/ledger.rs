//! The daemon's memory: what became of every run, slot and command, over restarts where there is a state directory.
//!
//! What decisions are made by is in memory and answered at once. Everything that is said to the ledger also goes, as a line
//! of its own, to the store: a file that a thread of its own writes ([`mod@file`]), or bounded memory. Who must know that an
//! entry was written before it goes on waits for [`Written`]: it was handed to the operating system then, so a crash of the
//! daemon loses nothing, and a power cut at most the last second. A store that cannot be used stops nothing: it is set
//! aside, and tried again each minute. `docs/ledger.md` tells why it is built like this.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::names::{RequestId, RunId, ServiceName};
use crate::record::Record;

mod boot;
pub mod disk;
pub mod entry;
pub mod file;
mod index;
mod journal;
mod known;
mod writer;

pub use boot::set_boot_clock;
pub use entry::{Entry, Request, RunStart, Slots};
pub use index::{Limits, Query};
pub use journal::{FILE, Journal, JournalError, Page, Queued};
pub use known::{Known, KnownSlot, Unfinished};
pub use writer::Writer;

use disk::Disk;

/// How long anybody waits for the disk: a run is worth more than its record.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Bytes that wait for a disk that does not answer; beyond, entries are lost to it.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Whether what is written stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStatus {
    /// There is no state directory.
    Memory,
    /// It is on the disk.
    Disk,
    /// The disk cannot be used; it is tried again each minute.
    SetAside {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for StoreStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("in memory"),
            Self::Disk => f.write_str("ok"),
            Self::SetAside { reason } => write!(f, "set aside, in memory: {reason}"),
        }
    }
}

/// An entry on its way to the store.
#[derive(Debug)]
#[must_use = "dropping it means not to wait"]
pub struct Written {
    /// None: it is there.
    awaited: Option<(watch::Receiver<u64>, u64)>,
}

impl Written {
    /// Waits until the entry was handed to the operating system. False when that takes too long: it is in memory then.
    pub async fn wait(self) -> bool {
        let Some((mut written, sequence)) = self.awaited else { return true };
        let done = written.wait_for(|written| *written >= sequence);
        timeout(WRITE_LIMIT, done).await.is_ok_and(|done| done.is_ok())
    }
}

/// What the writing thread is told.
enum Command {
    Append { line: Queued, sequence: u64 },
    Read { query: Query, reply: oneshot::Sender<Page> },
    Sync { done: oneshot::Sender<()> },
}

/// Where lines go.
enum Store {
    /// Written by who says them: memory, or a disk in a simulation.
    Inline(Box<Mutex<Writer>>),
    /// Written by a thread.
    Thread { commands: mpsc::Sender<Command>, queued: Arc<Queue>, written: watch::Receiver<u64> },
}

/// Lines on their way to the thread.
#[derive(Default)]
struct Queue {
    bytes: AtomicUsize,
    /// Some were dropped, because the disk does not keep up.
    overran: AtomicBool,
}

struct Shared {
    known: Arc<Mutex<Known>>,
    /// Orders entries; counts those that went to the thread.
    sequence: Mutex<u64>,
    store: Store,
    status: watch::Receiver<StoreStatus>,
}

/// The ledger, to be shared.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

impl Ledger {
    /// A ledger without a disk.
    #[must_use]
    pub fn in_memory(limits: Limits) -> Self {
        Self::inline(None, limits)
    }

    /// A ledger on a disk that is written by who says something; [`Ledger::tick`] does what a thread would.
    #[must_use]
    pub fn on_disk(disk: Box<dyn Disk>, limits: Limits) -> Self {
        Self::inline(Some(disk), limits)
    }

    fn inline(disk: Option<Box<dyn Disk>>, limits: Limits) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let (sender, status) = watch::channel(StoreStatus::Memory);
        let writer = Writer::open(disk, limits, Arc::clone(&known), sender);
        let store = Store::Inline(Box::new(Mutex::new(writer)));
        Self { shared: Arc::new(Shared { known, sequence: Mutex::new(0), store, status }) }
    }

    /// A ledger whose lines go to a thread, and what that thread runs.
    fn threaded(disk: Box<dyn Disk>, limits: Limits) -> (Self, Commands) {
        let known = Arc::new(Mutex::new(Known::default()));
        let (sender, status) = watch::channel(StoreStatus::Memory);
        let (commands, intake) = mpsc::channel();
        let (said, written) = watch::channel(0);
        let queued = Arc::new(Queue::default());
        let work = Commands {
            disk,
            limits,
            known: Arc::clone(&known),
            status: sender,
            intake,
            queued: Arc::clone(&queued),
            written: said,
        };
        let store = Store::Thread { commands, queued, written };
        (Self { shared: Arc::new(Shared { known, sequence: Mutex::new(0), store, status }) }, work)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.shared.known)
    }

    /// Takes an entry in, and hands it to the store.
    ///
    /// A record that would follow a verdict is dropped: the first verdict stays.
    pub fn write(&self, entry: &Entry) -> Written {
        let there = Written { awaited: None };
        // Held until the line is on its way: lines come to the store in the order of what they say.
        let mut sequence = lock(&self.shared.sequence);
        if !self.known().apply(entry) {
            return there;
        }
        let Some(line) = Queued::new(entry) else { return there };
        match &self.shared.store {
            Store::Inline(writer) => {
                let mut writer = lock(writer);
                writer.append(&[line]);
                writer.tidy();
                there
            }
            Store::Thread { commands, queued, written } => {
                let bytes = line.bytes();
                if queued.bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES {
                    queued.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    queued.overran.store(true, Ordering::Relaxed);
                    return there;
                }
                *sequence += 1;
                let sequence = *sequence;
                match commands.send(Command::Append { line, sequence }) {
                    Ok(()) => Written { awaited: Some((written.clone(), sequence)) },
                    Err(_) => there,
                }
            }
        }
    }

    /// Writes a record down.
    pub fn record(&self, record: Record) -> Written {
        self.write(&Entry::Record(record))
    }

    /// The number of a service's next run, which no other run gets.
    #[must_use]
    pub fn next_iteration(&self, job: &ServiceName) -> u64 {
        self.known().next_iteration(job)
    }

    /// Counts slots that fell due; their records account for them.
    pub fn slots_due(&self, slots: u64) {
        self.known().add_due(slots);
    }

    /// Slots due and accounted, read at one instant.
    #[must_use]
    pub fn slots(&self) -> Slots {
        self.known().slots()
    }

    /// Runs without a verdict; right after the start those of an earlier life.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.known().unfinished()
    }

    /// A service's newest run, without its tail.
    #[must_use]
    pub fn last_run(&self, job: &ServiceName) -> Option<Record> {
        self.known().last_run(job).cloned()
    }

    /// The newest run of each service that has run, without its tail.
    #[must_use]
    pub fn last_runs(&self) -> BTreeMap<ServiceName, Record> {
        self.known().last_runs()
    }

    /// The newest slot of each service that had one, whatever became of it.
    #[must_use]
    pub fn last_slots(&self) -> BTreeMap<ServiceName, KnownSlot> {
        self.known().last_slots()
    }

    /// The ids of all commands that are known; right after the start those of an earlier life.
    #[must_use]
    pub fn requests(&self) -> BTreeSet<RequestId> {
        self.known().requests()
    }

    /// Commands that were taken and not answered; right after the start those of an earlier life.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Request> {
        self.known().unanswered()
    }

    /// When the newest record was written; a clock that is before it is not set yet.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.known().newest()
    }

    /// Whether a service's schedule is paused; none where nobody ever said.
    #[must_use]
    pub fn paused(&self, job: &ServiceName) -> Option<bool> {
        self.known().paused(job)
    }

    /// All services whose schedule is paused.
    #[must_use]
    pub fn all_paused(&self) -> BTreeSet<ServiceName> {
        self.known().all_paused()
    }

    /// What is known of a command.
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<Request> {
        self.known().request(id).cloned()
    }

    /// Records, newest first. Empty when the store does not answer in time.
    pub async fn page(&self, query: Query) -> Page {
        match &self.shared.store {
            Store::Inline(writer) => lock(writer).page(&query),
            Store::Thread { commands, .. } => {
                let (reply, page) = oneshot::channel();
                let _ = commands.send(Command::Read { query, reply });
                timeout(WRITE_LIMIT, page).await.ok().and_then(Result::ok).unwrap_or_default()
            }
        }
    }

    /// The record of a run.
    pub async fn run(&self, run_id: &RunId) -> Option<Record> {
        let query = Query { run_id: Some(run_id.clone()), limit: 1, ..Query::default() };
        self.page(query).await.records.into_iter().next()
    }

    /// Whether what is written stays, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<StoreStatus> {
        self.shared.status.clone()
    }

    /// Does what is due in a store without a thread; returns in what time it wants to be called again.
    pub fn tick(&self) -> Option<Duration> {
        match &self.shared.store {
            Store::Inline(writer) => lock(writer).tick(),
            Store::Thread { .. } => None,
        }
    }

    /// Makes all that was written safe, power cuts included: the last thing before the process ends.
    pub async fn sync(&self) {
        match &self.shared.store {
            Store::Inline(writer) => lock(writer).sync(),
            Store::Thread { commands, .. } => {
                let (done, safe) = oneshot::channel();
                let _ = commands.send(Command::Sync { done });
                let _ = timeout(WRITE_LIMIT, safe).await;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the writing thread needs.
pub(crate) struct Commands {
    disk: Box<dyn Disk>,
    limits: Limits,
    known: Arc<Mutex<Known>>,
    status: watch::Sender<StoreStatus>,
    intake: mpsc::Receiver<Command>,
    queued: Arc<Queue>,
    written: watch::Sender<u64>,
}

impl Commands {
    /// Opens the store, says so, and writes until every ledger is dropped.
    fn run(self, opened: oneshot::Sender<()>) {
        let mut writer = Writer::open(Some(self.disk), self.limits, self.known, self.status);
        let _ = opened.send(());
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(command) => Ok(command),
                None => match writer.tick() {
                    Some(wait) => self.intake.recv_timeout(wait),
                    None => self.intake.recv().map_err(RecvTimeoutError::from),
                },
            };
            match first {
                Ok(Command::Append { line, mut sequence }) => {
                    let (mut lines, mut bytes) = (vec![line], 0);
                    while bytes < writer::BATCH_BYTES {
                        match self.intake.try_recv() {
                            Ok(Command::Append { line, sequence: later }) => {
                                bytes += line.bytes();
                                sequence = later;
                                lines.push(line);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    if self.queued.overran.swap(false, Ordering::Relaxed) {
                        writer.catch_up();
                    }
                    writer.append(&lines);
                    self.queued.bytes.fetch_sub(lines.iter().map(Queued::bytes).sum(), Ordering::Relaxed);
                    self.written.send_replace(sequence);
                }
                Ok(Command::Read { query, reply }) => drop(reply.send(writer.page(&query))),
                Ok(Command::Sync { done }) => {
                    writer.sync();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return writer.sync(),
            }
        }
    }
}
