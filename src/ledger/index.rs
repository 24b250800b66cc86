//! Where each record's line is, and which records are kept.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::names::{RunId, ServiceName};
use crate::record::Record;

/// Bytes of lines of a later version that are carried along.
const LATER_BYTES: u64 = 64 * 1024;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs of each service, and as many of its slots without a run.
    pub records: usize,
    /// Age of a record, by its `created_at` against the newest.
    pub age: Duration,
    /// Bytes of all records; beyond, the service that takes most loses its oldest.
    pub bytes: u64,
}

/// Which records are asked for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of one service; none: of all.
    pub job: Option<ServiceName>,
    /// One run.
    pub run_id: Option<RunId>,
    /// From where an earlier page ended.
    pub before: Option<u64>,
    /// How many at most; a page also ends where it becomes large.
    pub limit: usize,
}

/// What the index wants to know of a record.
#[derive(Debug, Clone)]
pub(super) struct Indexed {
    job: ServiceName,
    run: Option<u64>,
    is_over: bool,
    created_at: f64,
}

impl From<&Record> for Indexed {
    fn from(record: &Record) -> Self {
        Self {
            job: record.job.clone(),
            run: record.run_id.as_ref().and_then(number),
            is_over: record.state.is_over(),
            created_at: record.created_at.0,
        }
    }
}

/// The twelve digits of a run id in the space of a number.
fn number(run_id: &RunId) -> Option<u64> {
    u64::from_str_radix(run_id.as_str(), 16).ok()
}

/// Where a record's line is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) length: u32,
    is_over: bool,
    run: Option<u64>,
    /// Counts records in the order in which they were first written.
    pub(super) order: u64,
    created_at: f64,
}

/// The records of one service: runs, and slots without one, which must not push the runs out.
#[derive(Debug, Default)]
struct Kept {
    runs: VecDeque<Place>,
    slots: VecDeque<Place>,
    bytes: u64,
}

impl Kept {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.runs.iter().chain(&self.slots)
    }

    /// Drops the oldest records that nothing can follow and that `is_unwanted` names, given the place and its queue's length.
    fn trim(&mut self, is_unwanted: impl Fn(&Place, usize) -> bool) {
        for queue in [&mut self.runs, &mut self.slots] {
            while let Some(oldest) = queue.front().filter(|place| place.is_over && is_unwanted(place, queue.len())) {
                self.bytes = self.bytes.saturating_sub(u64::from(oldest.length));
                queue.pop_front();
            }
        }
    }

    /// Drops the oldest record; false where there is none that nothing can follow.
    fn drop_oldest(&mut self) -> bool {
        let oldest =
            [&self.runs, &self.slots].into_iter().filter_map(|queue| queue.front()).filter(|place| place.is_over);
        let Some(order) = oldest.map(|place| place.order).min() else { return false };
        self.trim(|place, _| place.order == order);
        true
    }
}

/// Where all lines are that are kept.
#[derive(Debug)]
pub(super) struct Index {
    limits: Limits,
    jobs: BTreeMap<ServiceName, Kept>,
    /// Lines of a later version.
    later: VecDeque<(u64, u32)>,
    order: u64,
    newest: f64,
}

impl Index {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, jobs: BTreeMap::new(), later: VecDeque::new(), order: 0, newest: 0.0 }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Bytes of the records that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.jobs.values().map(|kept| kept.bytes).sum()
    }

    /// Bytes above which a file is worth writing anew that holds `others` beside the records.
    pub(super) fn file_limit(&self, others: u64) -> u64 {
        let slack = (self.limits.bytes / 16).min(1024 * 1024);
        self.bytes().saturating_add(others).saturating_mul(2).saturating_add(slack)
    }

    /// Enters a record's line: in the place of the same run's earlier line, else as the newest.
    pub(super) fn enter(&mut self, record: &Indexed, offset: u64, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if !self.jobs.contains_key(&record.job) {
            self.jobs.insert(record.job.clone(), Kept::default());
        }
        let Some(kept) = self.jobs.get_mut(&record.job) else { return };
        kept.bytes += u64::from(length);
        let queue = if record.run.is_some() { &mut kept.runs } else { &mut kept.slots };
        let mut open = queue.iter_mut().rev().filter(|place| record.run.is_some() && !place.is_over);
        if let Some(place) = open.find(|place| place.run == record.run) {
            kept.bytes = kept.bytes.saturating_sub(u64::from(place.length));
            (place.offset, place.length, place.is_over) = (offset, length, record.is_over);
        } else {
            self.order += 1;
            let (order, created_at) = (self.order, record.created_at);
            queue.push_back(Place { offset, length, is_over: record.is_over, run: record.run, order, created_at });
        }
        self.newest = self.newest.max(record.created_at);
        let (oldest, most) = (self.newest - self.limits.age.as_secs_f64(), self.limits.records);
        kept.trim(|place, count| count > most || place.created_at < oldest);
        while self.bytes() > self.limits.bytes {
            let greediest = self.jobs.values_mut().max_by_key(|kept| kept.bytes);
            if !greediest.is_some_and(Kept::drop_oldest) {
                break;
            }
        }
    }

    /// Enters a line of a later version.
    pub(super) fn enter_later(&mut self, offset: u64, length: usize) {
        self.later.push_back((offset, u32::try_from(length).unwrap_or(u32::MAX)));
        while self.later.iter().map(|(_, length)| u64::from(*length)).sum::<u64>() > LATER_BYTES {
            self.later.pop_front();
        }
    }

    /// Drops what became too old in services that have no new records.
    pub(super) fn drop_old(&mut self) {
        let oldest = self.newest - self.limits.age.as_secs_f64();
        self.jobs.values_mut().for_each(|kept| kept.trim(|place, _| place.created_at < oldest));
        self.jobs.retain(|_, kept| kept.places().next().is_some());
    }

    /// Offset and length of every line: those of a later version first, then the records as they were first written.
    pub(super) fn lines(&self) -> Vec<(u64, u32)> {
        let mut places: Vec<&Place> = self.jobs.values().flat_map(Kept::places).collect();
        places.sort_unstable_by_key(|place| place.order);
        let records = places.into_iter().map(|place| (place.offset, place.length));
        self.later.iter().copied().chain(records).collect()
    }

    /// Takes new offsets for [`Index::lines`]; what has none is lost.
    pub(super) fn move_to(&mut self, offsets: &[Option<u64>]) {
        let mut offsets = offsets.iter().copied();
        let later = self.later.drain(..).zip(offsets.by_ref());
        self.later = later.filter_map(|((_, length), offset)| Some((offset?, length))).collect();
        let mut places: Vec<&mut Place> =
            self.jobs.values_mut().flat_map(|kept| kept.runs.iter_mut().chain(&mut kept.slots)).collect();
        places.sort_unstable_by_key(|place| place.order);
        for (place, offset) in places.into_iter().zip(offsets) {
            place.offset = offset.unwrap_or(u64::MAX);
        }
        for kept in self.jobs.values_mut() {
            for queue in [&mut kept.runs, &mut kept.slots] {
                queue.retain(|place| place.offset != u64::MAX);
            }
            kept.bytes = kept.places().map(|place| u64::from(place.length)).sum();
        }
    }

    /// The places that a query asks for, newest first.
    pub(super) fn find(&self, query: &Query) -> Vec<Place> {
        let run = query.run_id.as_ref().map(number);
        let jobs = self.jobs.iter().filter(|(job, _)| query.job.as_ref().is_none_or(|wanted| wanted == *job));
        let wanted = |place: &&Place| {
            query.before.is_none_or(|before| place.order < before) && run.is_none_or(|run| place.run == run)
        };
        let mut places: Vec<Place> = jobs.flat_map(|(_, kept)| kept.places()).filter(wanted).copied().collect();
        places.sort_unstable_by_key(|place| std::cmp::Reverse(place.order));
        places
    }
}
