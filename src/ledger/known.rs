//! What the ledger knows without asking its store: small, and the same whether or not there is a disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::Timestamp;
use crate::names::{RequestId, RunId, ServiceName};
use crate::record::{Reason, Record, State};

use super::entry::{Entry, Request, RunStart, Slots};

/// Commands that are remembered, newest first to stay.
const REQUESTS: usize = 1000;

/// Bytes of their replies; the newest is remembered in any case.
const REQUEST_BYTES: usize = 256 * 1024;

/// Runs that may be unfinished at once; a file that holds more was not written by us.
const UNFINISHED: usize = 10_000;

/// A run without a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// Its record so far.
    pub record: Record,
    /// When it started on the clock that is never set, where it did.
    pub start: Option<RunStart>,
}

/// What is known of a service.
#[derive(Debug, Clone, Default)]
struct Job {
    iteration: u64,
    /// None: never said.
    paused: Option<bool>,
    /// The newest run, without its tail.
    last: Option<Record>,
    last_slot: Option<KnownSlot>,
}

/// A service's newest slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownSlot {
    /// When it fell due.
    pub at: Timestamp,
    /// Its run was cut off before its container was started.
    pub cut_off: bool,
}

impl KnownSlot {
    fn of(record: &Record) -> Option<Self> {
        let at = record.missed_slots().map(|missed| missed.last).or(record.slot)?;
        let cut_off =
            record.state == State::Failed && record.reason == Some(Reason::Interrupted) && record.started_at.is_none();
        Some(Self { at, cut_off })
    }
}

/// The state that all entries so far come to.
#[derive(Debug, Clone, Default)]
pub struct Known {
    jobs: BTreeMap<ServiceName, Job>,
    unfinished: BTreeMap<RunId, Unfinished>,
    requests: VecDeque<Request>,
    slots: Slots,
    newest: Option<Timestamp>,
}

impl Known {
    /// Takes an entry in. False when it changes nothing and must not be written: a verdict stays as it is.
    pub fn apply(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Record(record) => return self.record(record),
            Entry::Start(start) => {
                if let Some(run) = self.unfinished.get_mut(&start.run_id) {
                    run.start = Some(start.clone());
                }
            }
            Entry::Paused { job, paused } => self.jobs.entry(job.clone()).or_default().paused = Some(*paused),
            Entry::Request(request) => {
                self.requests.retain(|known| known.id != request.id);
                self.requests.push_back(request.clone());
                let bytes = |requests: &VecDeque<Request>| -> usize { requests.iter().map(reply_bytes).sum() };
                while self.requests.len() > REQUESTS
                    || (self.requests.len() > 1 && bytes(&self.requests) > REQUEST_BYTES)
                {
                    self.requests.pop_front();
                }
            }
            Entry::Iterations(iterations) => {
                for (job, iteration) in iterations {
                    let job = self.jobs.entry(job.clone()).or_default();
                    job.iteration = job.iteration.max(*iteration);
                }
            }
            Entry::Slots(slots) => {
                self.slots.due = self.slots.due.max(slots.due);
                self.slots.accounted = self.slots.accounted.max(slots.accounted);
            }
            Entry::Ledger { .. } | Entry::Synced(_) => {}
        }
        true
    }

    fn record(&mut self, record: &Record) -> bool {
        let job = self.jobs.entry(record.job.clone()).or_default();
        let mut is_first = true;
        if let Some(run_id) = &record.run_id {
            let before = self.unfinished.get(run_id).map(|run| &run.record);
            let before = before.or_else(|| job.last.as_ref().filter(|last| last.run_id.as_ref() == Some(run_id)));
            let before = before.map(|before| before.state);
            if before.is_some_and(|before| before != record.state && !before.may_become(record.state))
                || before.is_some_and(|before| before == record.state && before.is_over())
            {
                return false;
            }
            is_first = before.is_none();
            if record.state.is_over() {
                self.unfinished.remove(run_id);
            } else if self.unfinished.len() < UNFINISHED || !is_first {
                let start = self.unfinished.remove(run_id).and_then(|run| run.start);
                self.unfinished.insert(run_id.clone(), Unfinished { record: record.clone(), start });
            }
            job.iteration = job.iteration.max(record.iteration.unwrap_or(0));
            if job.last.as_ref().is_none_or(|last| last.iteration <= record.iteration) {
                job.last = Some(Record { tail: None, ..record.clone() });
            }
        }
        if let Some(slot) = KnownSlot::of(record)
            && job.last_slot.is_none_or(|known| known.at <= slot.at)
        {
            job.last_slot = Some(slot);
        }
        if is_first {
            self.slots.accounted = self.slots.accounted.saturating_add(record.slots());
        }
        if self.newest.is_none_or(|newest| newest < record.created_at) {
            self.newest = Some(record.created_at);
        }
        true
    }

    /// The next iteration of a service, counted up.
    pub fn next_iteration(&mut self, job: &ServiceName) -> u64 {
        let job = self.jobs.entry(job.clone()).or_default();
        job.iteration = job.iteration.saturating_add(1);
        job.iteration
    }

    /// Counts slots that fell due.
    pub fn add_due(&mut self, slots: u64) {
        self.slots.due = self.slots.due.saturating_add(slots);
    }

    /// Both counts of slots, read at one instant.
    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// What an earlier life left between a slot's due time and its record is not accounted for ever: a missed record says
    /// what became of it, which counts anew.
    pub(super) fn level_slots(&mut self) {
        self.slots.due = self.slots.accounted;
    }

    /// Runs without a verdict.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.unfinished.values().cloned().collect()
    }

    /// The newest run of a service, without its tail.
    pub fn last_run(&self, job: &ServiceName) -> Option<&Record> {
        self.jobs.get(job)?.last.as_ref()
    }

    /// The newest run of each service that has run, without its tail.
    pub fn last_runs(&self) -> BTreeMap<ServiceName, Record> {
        self.jobs.iter().filter_map(|(job, known)| Some((job.clone(), known.last.clone()?))).collect()
    }

    /// All services that had a slot.
    pub fn last_slots(&self) -> BTreeMap<ServiceName, KnownSlot> {
        self.jobs.iter().filter_map(|(job, known)| Some((job.clone(), known.last_slot?))).collect()
    }

    /// The ids of all commands that are known.
    pub fn requests(&self) -> BTreeSet<RequestId> {
        self.requests.iter().map(|request| request.id.clone()).collect()
    }

    /// Commands that were taken and not answered.
    pub fn unanswered(&self) -> Vec<Request> {
        self.requests.iter().filter(|request| request.reply.is_none()).cloned().collect()
    }

    /// Whether a service is paused; none where nobody said.
    pub fn paused(&self, job: &ServiceName) -> Option<bool> {
        self.jobs.get(job)?.paused
    }

    /// All services that are paused.
    pub fn all_paused(&self) -> BTreeSet<ServiceName> {
        let paused = self.jobs.iter().filter(|(_, known)| known.paused == Some(true));
        paused.map(|(job, _)| job.clone()).collect()
    }

    /// The command with this id.
    pub fn request(&self, id: &RequestId) -> Option<&Request> {
        self.requests.iter().rev().find(|request| request.id == *id)
    }

    /// When the newest record was written: now cannot be earlier, unless the clock is not set yet.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Entries that come to this state again, but for records.
    pub(super) fn snapshot(&self) -> Vec<Entry> {
        let iterations = self.jobs.iter().filter(|(_, known)| known.iteration > 0);
        let mut entries =
            vec![Entry::Iterations(iterations.map(|(job, known)| (job.clone(), known.iteration)).collect())];
        entries.push(Entry::Slots(self.slots));
        let paused = self.jobs.iter().filter_map(|(job, known)| Some((job.clone(), known.paused?)));
        entries.extend(paused.map(|(job, paused)| Entry::Paused { job, paused }));
        entries.extend(self.requests.iter().cloned().map(Entry::Request));
        entries
    }

    /// Records and starts of runs without a verdict.
    pub(super) fn running(&self) -> Vec<Entry> {
        let record = |run: &Unfinished| Entry::Record(run.record.clone());
        let start = |run: &Unfinished| run.start.clone().map(Entry::Start);
        self.unfinished.values().flat_map(|run| [Some(record(run)), start(run)].into_iter().flatten()).collect()
    }

    /// Takes in what a store held at the start.
    pub(super) fn absorb_all(&mut self, found: Self) {
        let is_new = self.jobs.is_empty() && self.requests.is_empty() && self.unfinished.is_empty();
        if is_new {
            *self = Self { slots: Slots { due: found.slots.due + self.slots.due, ..found.slots }, ..found };
        } else {
            self.absorb(found);
        }
    }

    /// Takes in what a store knows that could not be read before: what was said since stays.
    pub(super) fn absorb(&mut self, older: Self) {
        for (name, old) in older.jobs {
            let job = self.jobs.entry(name).or_default();
            job.iteration = job.iteration.max(old.iteration);
            job.paused = job.paused.or(old.paused);
            job.last = job.last.take().or(old.last);
            job.last_slot = job.last_slot.or(old.last_slot);
        }
        for request in older.requests.into_iter().rev() {
            if self.requests.len() < REQUESTS && self.request(&request.id).is_none() {
                self.requests.push_front(request);
            }
        }
        if self.newest.is_none() {
            self.newest = older.newest;
        }
    }
}

fn reply_bytes(request: &Request) -> usize {
    request.reply.as_ref().map_or(0, String::len) + request.fingerprint.len()
}
