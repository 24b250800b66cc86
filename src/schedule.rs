//! The timetable: which service is due when. Pure: times are spans since an origin that the caller keeps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::time::Duration;

use crate::names::ServiceName;

mod first;

pub use first::{FirstSlot, LastSlot, PastSlots};

/// Time between two runs of a service: 1 second to 7 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

/// Why a span of time is not an interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an interval is 1 s to 7 d, not {}", humantime::format_duration(*.0))]
pub struct IntervalError(Duration);

impl Interval {
    /// The shortest interval, 1 s.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// The longest interval, 7 d.
    pub const LONGEST: Duration = Duration::from_hours(7 * 24);

    /// The interval as a span of time.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<Duration> for Interval {
    type Error = IntervalError;

    fn try_from(span: Duration) -> Result<Self, IntervalError> {
        if (Self::SHORTEST..=Self::LONGEST).contains(&span) { Ok(Self(span)) } else { Err(IntervalError(span)) }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// What is wanted: each scheduled service's interval, or `None` for one that is paused.
pub type Intervals = BTreeMap<ServiceName, Option<Interval>>;

/// A service's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Whose turn it is.
    pub service: ServiceName,
    /// When it became due.
    pub at: Duration,
    /// Its service's slots that fell due after it and are past as well: they do not come again.
    pub missed: Option<PastSlots>,
}

/// One difference between two sets of intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The service runs on an interval now, and did not before.
    Added(ServiceName, Interval),
    /// The service's interval is another one.
    Changed {
        /// Which service.
        service: ServiceName,
        /// Its interval so far.
        from: Interval,
        /// Its interval from now on.
        to: Interval,
    },
    /// The service stays in the schedule but no longer runs by itself.
    Paused(ServiceName),
    /// The service is no longer in the schedule.
    Removed(ServiceName),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(service, every) => write!(f, "{service}: every {every}"),
            Self::Changed { service, from, to } => write!(f, "{service}: every {to} (was {from})"),
            Self::Paused(service) => write!(f, "{service}: paused"),
            Self::Removed(service) => write!(f, "{service}: removed"),
        }
    }
}

/// What `to` asks for that `from` did not, by service.
#[must_use]
pub fn changes(from: &Intervals, to: &Intervals) -> Vec<Change> {
    let mut changes = Vec::new();
    for (service, every) in to {
        match (from.get(service).copied(), every) {
            (Some(Some(from)), Some(to)) if from != *to => {
                changes.push(Change::Changed { service: service.clone(), from, to: *to });
            }
            (None | Some(None), Some(every)) => changes.push(Change::Added(service.clone(), *every)),
            (None | Some(Some(_)), None) => changes.push(Change::Paused(service.clone())),
            (Some(Some(_)), Some(_)) | (Some(None), None) => {}
        }
    }
    changes.extend(from.keys().filter(|service| !to.contains_key(*service)).cloned().map(Change::Removed));
    changes
}

/// Stale slots that a small timetable may keep.
const MOST_STALE: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Entry {
    every: Interval,
    /// The slot before `next`, or the moment that a first slot is an interval after; none where that is due at once.
    last: Option<Duration>,
    next: Duration,
}

/// Which service is due when.
///
/// A service's slots stay on the grid that its first slot opened: they do not drift, however late they are taken.
#[derive(Debug, Clone, Default)]
pub struct Timetable {
    wanted: Intervals,
    entries: BTreeMap<ServiceName, Entry>,
    first: FirstSlot,
    /// The last slots of services that are not in the timetable.
    last: BTreeMap<ServiceName, LastSlot>,
    /// Slots before this life of the daemon that no run makes up for.
    missed: Vec<(ServiceName, PastSlots)>,
    /// Slots by time. One that is not its entry's `next` any more is stale, and dropped when it comes up.
    slots: BinaryHeap<Reverse<(Duration, ServiceName)>>,
}

impl Timetable {
    /// An empty timetable, with the last slots that services had in earlier lives of the daemon.
    #[must_use]
    pub fn new(first: FirstSlot, last: BTreeMap<ServiceName, LastSlot>) -> Self {
        Self { first, last, ..Self::default() }
    }

    /// Takes the slots of earlier times that no run makes up for.
    pub fn take_missed(&mut self) -> Vec<(ServiceName, PastSlots)> {
        std::mem::take(&mut self.missed)
    }

    /// Replaces the intervals and tells what changed.
    ///
    /// A service whose interval stays keeps its grid. A new one is due as the [`FirstSlot`] says. One with another
    /// interval is next due that interval after its last slot, or `now` where that has passed.
    pub fn update(&mut self, wanted: Intervals, now: Duration) -> Vec<Change> {
        let changes = changes(&self.wanted, &wanted);
        for change in &changes {
            match change {
                Change::Added(service, every) => {
                    let first = self.first.of(every.0, self.last.remove(service).unwrap_or_default());
                    self.missed.extend(first.missed.map(|missed| (service.clone(), missed)));
                    let next = match first.due_ago {
                        Some(ago) => now.saturating_sub(ago),
                        None => now.saturating_add(first.next_in),
                    };
                    let last = first.due_ago.is_none().then(|| next.saturating_sub(every.0));
                    self.set(service, Entry { every: *every, last, next });
                }
                Change::Changed { service, to, .. } => {
                    let last = self.entries.get(service).and_then(|entry| entry.last);
                    let next = last.map_or(now, |last| last.saturating_add(to.0).max(now));
                    self.set(service, Entry { every: *to, last, next });
                }
                Change::Paused(service) | Change::Removed(service) => {
                    self.entries.remove(service);
                }
            }
        }
        self.wanted = wanted;
        changes
    }

    fn set(&mut self, service: &ServiceName, entry: Entry) {
        self.slots.push(Reverse((entry.next, service.clone())));
        self.entries.insert(service.clone(), entry);
        // Intervals that change all the time leave a stale slot each, which may come up in a week only.
        if self.slots.len() > 2 * self.entries.len() + MOST_STALE {
            let Self { slots, entries, .. } = self;
            slots.retain(|Reverse((at, service))| entries.get(service).is_some_and(|entry| entry.next == *at));
        }
    }

    fn is_current(&self, at: Duration, service: &ServiceName) -> bool {
        self.entries.get(service).is_some_and(|entry| entry.next == at)
    }

    /// Takes the slots that are due, in the order of their times; slots that were missed since count once.
    pub fn due(&mut self, now: Duration) -> Vec<Slot> {
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = self.slots.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, service))) = self.slots.pop() else { break };
            if !self.is_current(at, &service) {
                continue;
            }
            if let Some(entry) = self.entries.get(&service).copied() {
                let missed = past(at, entry.every.0, now);
                let next = at.saturating_add(entry.every.0.saturating_mul(missed.saturating_add(1)));
                self.set(&service, Entry { every: entry.every, last: Some(at), next });
                let last_ago = now.saturating_sub(next.saturating_sub(entry.every.0));
                let missed = PastSlots::new(missed.into(), entry.every.0, last_ago);
                due.push(Slot { service, at, missed });
            }
        }
        due
    }

    /// When each service's next slot becomes due.
    pub fn next(&self) -> impl Iterator<Item = (&ServiceName, Duration)> {
        self.entries.iter().map(|(service, entry)| (service, entry.next))
    }

    /// When the next slot becomes due.
    pub fn next_wake(&mut self) -> Option<Duration> {
        while let Some(Reverse((at, service))) = self.slots.peek() {
            if self.is_current(*at, service) {
                return Some(*at);
            }
            self.slots.pop();
        }
        None
    }
}

/// How many points of the grid through `at` lie between it and `now`.
fn past(at: Duration, every: Duration, now: Duration) -> u32 {
    let past = now.saturating_sub(at).as_nanos() / every.as_nanos().max(1);
    u32::try_from(past).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    fn intervals(pairs: &[(&str, u64)]) -> Intervals {
        let every =
            |seconds: u64| (seconds > 0).then(|| Interval::try_from(S * u32::try_from(seconds).unwrap()).unwrap());
        pairs.iter().map(|(name, seconds)| (name.parse().unwrap(), every(*seconds))).collect()
    }

    fn names(slots: &[Slot]) -> Vec<&str> {
        slots.iter().map(|slot| slot.service.as_str()).collect()
    }

    #[test]
    fn an_interval_is_a_second_to_a_week() {
        assert!(Interval::try_from(Duration::from_millis(999)).is_err());
        assert!(Interval::try_from(S).is_ok());
        assert!(Interval::try_from(Interval::LONGEST).is_ok());
        let error = Interval::try_from(Interval::LONGEST + S).unwrap_err();
        assert_eq!(error.to_string(), "an interval is 1 s to 7 d, not 7days 1s");
    }

    #[test]
    fn everything_is_due_at_the_start_and_then_on_its_grid() {
        let mut table = Timetable::new(FirstSlot::Now, BTreeMap::new());
        table.update(intervals(&[("slow", 60), ("fast", 30)]), S);
        assert_eq!(names(&table.due(S)), ["fast", "slow"]);
        assert_eq!(table.next_wake(), Some(31 * S));
        assert!(table.due(30 * S).is_empty());
        assert_eq!(names(&table.due(31 * S)), ["fast"]);
        assert_eq!(names(&table.due(61 * S)), ["fast", "slow"]);
    }

    #[test]
    fn the_first_slot_may_wait_for_the_interval() {
        let mut table = Timetable::new(FirstSlot::AfterInterval, BTreeMap::new());
        table.update(intervals(&[("a", 30)]), S);
        assert_eq!(table.next_wake(), Some(31 * S));
    }

    #[test]
    fn the_first_slot_waits_for_an_interval_that_is_changed_before_it() {
        let mut table = Timetable::new(FirstSlot::AfterInterval, BTreeMap::new());
        table.update(intervals(&[("a", 30)]), S);
        table.update(intervals(&[("a", 60)]), 2 * S);
        assert_eq!(table.next_wake(), Some(61 * S));
    }

    #[test]
    fn a_slot_that_is_taken_late_does_not_move_the_grid_and_missed_slots_count_once() {
        let mut table = Timetable::new(FirstSlot::Now, BTreeMap::new());
        table.update(intervals(&[("a", 10)]), Duration::ZERO);
        table.due(Duration::ZERO);
        assert_eq!(names(&table.due(47 * S)), ["a"]);
        assert_eq!(table.next_wake(), Some(50 * S));
    }

    #[test]
    fn an_interval_that_stays_keeps_its_grid() {
        let mut table = Timetable::new(FirstSlot::Now, BTreeMap::new());
        table.update(intervals(&[("a", 30), ("b", 30)]), Duration::ZERO);
        table.due(Duration::ZERO);
        let changes = table.update(intervals(&[("a", 30), ("b", 10)]), 7 * S);
        assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b: every 10s (was 30s)"]);
        assert_eq!(table.next_wake(), Some(10 * S));
        assert_eq!(names(&table.due(10 * S)), ["b"]);
        assert_eq!(names(&table.due(30 * S)), ["b", "a"], "b's slot at 20 s came first");
    }

    #[test]
    fn a_shorter_interval_that_has_passed_already_is_due_now() {
        let mut table = Timetable::new(FirstSlot::Now, BTreeMap::new());
        table.update(intervals(&[("a", 300)]), Duration::ZERO);
        table.due(Duration::ZERO);
        table.update(intervals(&[("a", 10)]), 100 * S);
        assert_eq!(table.next_wake(), Some(100 * S));
    }

    #[test]
    fn a_paused_service_is_not_due_until_it_is_resumed() {
        let mut table = Timetable::new(FirstSlot::Now, BTreeMap::new());
        table.update(intervals(&[("a", 10)]), Duration::ZERO);
        table.due(Duration::ZERO);
        assert_eq!(table.update(intervals(&[("a", 0)]), S), [Change::Paused("a".parse().unwrap())]);
        assert_eq!(table.next_wake(), None);
        assert!(table.due(100 * S).is_empty());
        table.update(intervals(&[("a", 10)]), 200 * S);
        assert_eq!(names(&table.due(200 * S)), ["a"]);
        assert_eq!(table.update(Intervals::new(), 201 * S), [Change::Removed("a".parse().unwrap())]);
        assert_eq!(table.next_wake(), None);
    }

    #[test]
    fn intervals_that_change_all_the_time_leave_nothing_behind() {
        let mut table = Timetable::new(FirstSlot::AfterInterval, BTreeMap::new());
        for every in 100_000..110_000 {
            table.update(intervals(&[("a", every)]), Duration::ZERO);
        }
        assert!(table.slots.len() <= MOST_STALE + 3, "{}", table.slots.len());
    }

    proptest! {
        #[test]
        fn every_slot_lies_on_the_grid_of_the_first(every in 1u64..500, steps in prop::collection::vec(0u64..2_000, 1..40)) {
            let mut table = Timetable::new(FirstSlot::Now, BTreeMap::new());
            table.update(intervals(&[("a", every)]), Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut last = None;
            for step in steps {
                now += Duration::from_millis(step * 731);
                for slot in table.due(now) {
                    prop_assert!(slot.at <= now);
                    prop_assert_eq!(slot.at.as_nanos() % Duration::from_secs(every).as_nanos(), 0);
                    prop_assert!(last.is_none_or(|last| slot.at > last));
                    last = Some(slot.at);
                }
                prop_assert!(table.next_wake().is_some_and(|next| next > now));
            }
        }
    }
}
