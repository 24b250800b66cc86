//! Keeps a ledger's store: writes what is given to it, makes it safe at most once a second, goes on in memory while the
//! disk cannot be used, and goes back to it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Timestamp;
use crate::report::Chain;

use super::StoreStatus;
use super::disk::{Disk, MemoryDisk};
use super::entry::Entry;
use super::index::{Limits, Query};
use super::journal::{Journal, JournalError, Page, Queued};
use super::known::Known;

/// Longest time that what was written is not safe.
const SYNC: Duration = Duration::from_secs(1);

/// Time between two tries of a store that was set aside.
const RETRY: Duration = Duration::from_mins(1);

/// Bytes of records that are kept in memory where there is no disk; before it is written anew it takes more than twice that.
const MEMORY_BYTES: u64 = 256 * 1024;

/// What is written at once where much waits.
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// A store that could not be used, and when it is tried again.
struct Aside {
    journal: Journal,
    retry_at: Instant,
}

/// The store of a ledger.
pub struct Writer {
    journal: Journal,
    aside: Option<Aside>,
    is_on_disk: bool,
    limits: Limits,
    known: Arc<Mutex<Known>>,
    status: watch::Sender<StoreStatus>,
    /// When the oldest write was done that may not be safe.
    dirty: Option<Instant>,
}

impl Writer {
    /// A store on `disk`, or in memory without one. What it holds is in `known` then.
    pub fn open(
        disk: Option<Box<dyn Disk>>,
        limits: Limits,
        known: Arc<Mutex<Known>>,
        status: watch::Sender<StoreStatus>,
    ) -> Self {
        let journal = in_memory(limits);
        let mut writer = Self { journal, aside: None, is_on_disk: false, limits, known, status, dirty: None };
        match disk {
            None => writer.start_in_memory(),
            Some(disk) => {
                let mut journal = Journal::new(disk, limits);
                let mut found = Known::default();
                match journal.load(&mut found, Timestamp::now()) {
                    Ok(damaged) => {
                        tell_damage(damaged.as_deref());
                        found.level_slots();
                        writer.known().absorb_all(found);
                        (writer.journal, writer.is_on_disk) = (journal, true);
                        writer.status.send_replace(StoreStatus::Disk);
                    }
                    Err(error) => writer.set_aside(Some(journal), &error),
                }
            }
        }
        writer
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines: to the disk, or to memory where that fails.
    pub fn append(&mut self, lines: &[Queued]) {
        if let Err(error) = self.journal.append(lines) {
            self.set_aside(None, &error.into());
            // Memory takes them all.
            let _ = self.journal.append(lines);
        }
        self.dirty = self.dirty.or_else(|| Some(Instant::now()));
    }

    /// Writes down what is known: entries before were dropped, because the disk did not keep up.
    pub(super) fn catch_up(&mut self) {
        warn!("ledger entries were lost, the disk did not keep up");
        let entries = self.state();
        self.append(&entries);
    }

    /// All that is known, but for records of what is over.
    fn state(&self) -> Vec<Queued> {
        let known = self.known();
        known.snapshot().iter().chain(&known.running()).filter_map(Queued::new).collect()
    }

    /// The records that a query asks for.
    ///
    /// While the disk is set aside, what it still answers comes after what is in memory.
    pub fn page(&mut self, query: &Query) -> Page {
        let mut page = self.journal.page(query);
        if let (Some(aside), None) = (&mut self.aside, page.next) {
            let left = query.limit.saturating_sub(page.records.len());
            let older = aside.journal.page(&Query { limit: left, before: None, ..query.clone() }).records;
            let known: Vec<_> = page.records.iter().map(|record| record.run_id.clone()).collect();
            page.records.extend(older.into_iter().filter(|old| old.run_id.is_none() || !known.contains(&old.run_id)));
        }
        page
    }

    /// Does what is due: safety, tidying, another try. Returns when it wants to be called again, if nothing is written.
    pub fn tick(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.dirty.is_some_and(|since| since + SYNC <= now) {
            self.sync();
        }
        self.tidy();
        if self.aside.as_ref().is_some_and(|aside| aside.retry_at <= now) {
            self.come_back(now);
        }
        let sync = self.dirty.map(|since| since + SYNC);
        let retry = self.aside.as_ref().map(|aside| aside.retry_at);
        let next = [sync, retry].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Writes the store anew where most of it is no longer wanted.
    pub(super) fn tidy(&mut self) {
        if self.journal.wants_rewrite() {
            self.rewrite();
        }
    }

    /// Makes everything safe now.
    pub fn sync(&mut self) {
        if self.dirty.take().is_none() {
            return;
        }
        match self.journal.sync() {
            Ok(true) => {}
            Ok(false) => {
                warn!("ledger file was removed, written anew");
                self.rewrite();
            }
            Err(error) => self.set_aside(None, &error.into()),
        }
    }

    fn rewrite(&mut self) {
        let snapshot = self.known().snapshot();
        if let Err(error) = self.journal.rewrite(&snapshot, None) {
            self.set_aside(None, &error.into());
        }
    }

    fn start_in_memory(&mut self) {
        let entries = self.state();
        // Memory has no errors but of names that are not there.
        let _ = self.journal.rewrite(&[], None);
        let _ = self.journal.append(&entries);
    }

    /// Goes on in memory; `journal`, by default the one in use, is tried again later.
    fn set_aside(&mut self, journal: Option<Journal>, error: &JournalError) {
        let failed = std::mem::replace(&mut self.journal, in_memory(self.limits));
        self.start_in_memory();
        if journal.is_none() && !self.is_on_disk {
            // Memory itself failed, which it does not; what is aside stays so.
            return;
        }
        let reason = Chain(error).to_string();
        warn!(error = reason, "ledger set aside, going on in memory");
        self.is_on_disk = false;
        self.dirty = None;
        self.aside = Some(Aside { journal: journal.unwrap_or(failed), retry_at: Instant::now() + RETRY });
        self.status.send_replace(StoreStatus::SetAside { reason });
    }

    /// Tries the disk again, and gives it what came while it was away.
    fn come_back(&mut self, now: Instant) {
        let Some(mut aside) = self.aside.take() else { return };
        match self.replay(&mut aside.journal) {
            Ok((damaged, found)) => {
                tell_damage(damaged.as_deref());
                self.known().absorb(found);
                self.journal = aside.journal;
                self.is_on_disk = true;
                self.dirty = None;
                self.status.send_replace(StoreStatus::Disk);
                info!("ledger is back");
            }
            Err(error) => {
                let reason = Chain(&error).to_string();
                self.aside = Some(Aside { retry_at: now + RETRY, ..aside });
                self.status.send_if_modified(|status| {
                    let next = StoreStatus::SetAside { reason };
                    let is_new = *status != next;
                    *status = next;
                    is_new
                });
            }
        }
    }

    fn replay(&mut self, journal: &mut Journal) -> Result<(Option<String>, Known), JournalError> {
        let mut found = Known::default();
        let damaged = journal.load(&mut found, Timestamp::now())?;
        let (mut lines, mut bytes, mut result) = (Vec::new(), 0, Ok(()));
        self.journal.entries(|entry| {
            if matches!(entry, Entry::Ledger { .. } | Entry::Synced(_)) || !found.apply(&entry) || result.is_err() {
                return;
            }
            lines.extend(Queued::new(&entry));
            bytes += lines.last().map_or(0, Queued::bytes);
            if bytes > BATCH_BYTES {
                result = journal.append(&lines);
                lines.clear();
                bytes = 0;
            }
        })?;
        result?;
        journal.append(&lines)?;
        if !journal.sync()? {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        Ok((damaged, found))
    }
}

fn in_memory(limits: Limits) -> Journal {
    Journal::new(Box::new(MemoryDisk::default()), Limits { bytes: limits.bytes.min(MEMORY_BYTES), ..limits })
}

fn tell_damage(kept_as: Option<&str>) {
    if let Some(kept_as) = kept_as {
        warn!(kept_as, "ledger file was damaged, what could be read of it was taken over");
    }
}
