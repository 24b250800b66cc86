//! When a service that is new to the timetable is first due, by what is known of its slots in earlier lives of the daemon.

use std::time::Duration;

/// When a service that is new to the timetable is first due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirstSlot {
    /// At once.
    #[default]
    Now,
    /// At once where it has missed a slot, or never had one; else at its next slot.
    WhereMissed,
    /// At its next slot; after its interval where it never had one.
    AfterInterval,
}

/// What is known of a service's last slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LastSlot {
    /// It never had one.
    #[default]
    Never,
    /// When it was is known, but not how long ago: the clock is not set yet.
    NotDated,
    /// It was this long ago.
    Ago {
        /// Time since.
        since: Duration,
        /// Its run was cut off before its container was started.
        cut_off: bool,
    },
}

/// Slots that fell due while nobody was there, in time before the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastSlots {
    /// Their number.
    pub slots: u64,
    /// How long ago the first was.
    pub first_ago: Duration,
    /// How long ago the last was.
    pub last_ago: Duration,
}

impl PastSlots {
    /// That many slots of an interval, the last of them some time ago; none for no slots.
    #[must_use]
    pub fn new(slots: u64, every: Duration, last_ago: Duration) -> Option<Self> {
        let earlier = u32::try_from(slots.checked_sub(1)?).unwrap_or(u32::MAX);
        Some(Self { slots, first_ago: last_ago.saturating_add(every.saturating_mul(earlier)), last_ago })
    }
}

/// A service's first slot in this life of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    /// How long ago the first slot to take was: it is due at once. None: it is still to come.
    pub(super) due_ago: Option<Duration>,
    /// In what time the slot after that, or the first one, is due.
    pub(super) next_in: Duration,
    /// Slots that no run makes up for.
    pub(super) missed: Option<PastSlots>,
}

impl FirstSlot {
    /// The first slot of a service with an interval.
    pub(super) fn of(self, every: Duration, last: LastSlot) -> First {
        let at_once = First { due_ago: Some(Duration::ZERO), next_in: every, missed: None };
        let later = First { due_ago: None, next_in: every, missed: None };
        let (since, cut_off) = match (last, self) {
            (LastSlot::Never, Self::Now | Self::WhereMissed) | (LastSlot::NotDated, Self::Now) => return at_once,
            (LastSlot::Never, Self::AfterInterval) | (LastSlot::NotDated, Self::WhereMissed | Self::AfterInterval) => {
                return later;
            }
            (LastSlot::Ago { since, cut_off }, _) => (since, cut_off),
        };
        let passed = u64::try_from(since.as_nanos() / every.as_nanos().max(1)).unwrap_or(u64::MAX);
        let into = Duration::from_nanos(u64::try_from(since.as_nanos() % every.as_nanos().max(1)).unwrap_or(0));
        let next_in = every.saturating_sub(into);
        // What a run at the start makes up for is the newest of them.
        let others = PastSlots::new(passed.saturating_sub(1), every, into.saturating_add(every));
        match self {
            Self::Now => First { missed: others, ..at_once },
            Self::WhereMissed if passed > 0 || cut_off => First { due_ago: Some(into), next_in, missed: others },
            Self::WhereMissed => First { next_in, ..later },
            Self::AfterInterval => First { next_in, missed: PastSlots::new(passed, every, into), ..later },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn ago(since: Duration) -> LastSlot {
        LastSlot::Ago { since, cut_off: false }
    }

    #[test]
    fn an_hourly_job_that_ran_ten_minutes_ago_is_next_due_in_fifty() {
        let hour = 60 * MINUTE;
        let first = FirstSlot::WhereMissed.of(hour, ago(10 * MINUTE));
        assert_eq!(first, First { due_ago: None, next_in: 50 * MINUTE, missed: None });
        let first = FirstSlot::AfterInterval.of(hour, ago(10 * MINUTE));
        assert_eq!(first, First { due_ago: None, next_in: 50 * MINUTE, missed: None });
        assert_eq!(FirstSlot::Now.of(hour, ago(10 * MINUTE)).due_ago, Some(Duration::ZERO));
    }

    #[test]
    fn of_several_missed_slots_one_is_made_up_for_and_the_phase_stays() {
        let first = FirstSlot::WhereMissed.of(10 * MINUTE, ago(34 * MINUTE));
        let missed = PastSlots { slots: 2, first_ago: 24 * MINUTE, last_ago: 14 * MINUTE };
        assert_eq!(first, First { due_ago: Some(4 * MINUTE), next_in: 6 * MINUTE, missed: Some(missed) });
        let missed = PastSlots { slots: 3, first_ago: 24 * MINUTE, last_ago: 4 * MINUTE };
        let first = FirstSlot::AfterInterval.of(10 * MINUTE, ago(34 * MINUTE));
        assert_eq!(first, First { due_ago: None, next_in: 6 * MINUTE, missed: Some(missed) });
    }

    #[test]
    fn a_slot_whose_run_never_started_is_tried_again() {
        let last = LastSlot::Ago { since: MINUTE, cut_off: true };
        let first = FirstSlot::WhereMissed.of(10 * MINUTE, last);
        assert_eq!(first, First { due_ago: Some(MINUTE), next_in: 9 * MINUTE, missed: None });
    }

    #[test]
    fn before_the_clock_is_set_an_interval_has_to_pass() {
        for first in [FirstSlot::WhereMissed, FirstSlot::AfterInterval] {
            let first = first.of(MINUTE, LastSlot::NotDated);
            assert_eq!(first, First { due_ago: None, next_in: MINUTE, missed: None });
        }
    }

    proptest! {
        #[test]
        fn every_slot_of_the_time_away_is_made_up_for_or_missed(every in 1_u64..100_000, since in 0_u64..10_000_000) {
            let (every, since) = (Duration::from_millis(every), Duration::from_millis(since));
            let passed = u64::try_from(since.as_nanos() / every.as_nanos()).unwrap();
            for policy in [FirstSlot::WhereMissed, FirstSlot::AfterInterval] {
                let first = policy.of(every, ago(since));
                let missed = first.missed.map_or(0, |missed| missed.slots);
                prop_assert_eq!(missed + u64::from(first.due_ago.is_some()), passed);
                prop_assert!(first.next_in > Duration::ZERO && first.next_in <= every);
                prop_assert_eq!((since + first.next_in).as_nanos() % every.as_nanos(), 0, "the phase stays");
            }
        }
    }
}
