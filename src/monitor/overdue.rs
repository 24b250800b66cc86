//! Which services are overdue: those without a success for some of their intervals. Pure.
//!
//! What is expected comes from the schedule and not from the keys in Redis, for a dead source's key is gone before the source
//! is overdue.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::names::ServiceName;
use crate::schedule::Intervals;

/// What was seen of a service's last success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Success {
    /// Nothing.
    Unseen,
    /// Its source says when, in wall-clock time.
    Stamped(Timestamp),
    /// Its last run that succeeded ended then.
    Ended(Instant),
}

/// A change that somebody should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A service has been without success for too long; told at the change and now and then while it lasts.
    Overdue {
        /// Which service.
        service: ServiceName,
        /// Time since its last success, or since it was first expected.
        silent: Duration,
        /// Its interval.
        every: Duration,
    },
    /// A service that was overdue had a success.
    Recovered {
        /// Which service.
        service: ServiceName,
    },
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    /// Its last success, or when it was first expected.
    baseline: Instant,
    stamp: Option<Timestamp>,
    /// When it was last told to be overdue, while it is.
    told: Option<Instant>,
}

/// The watch over all services.
#[derive(Debug)]
pub struct Watch {
    factor: u32,
    remind: Duration,
    watched: BTreeMap<ServiceName, Watched>,
    /// When the sources' words could last be read.
    read_at: Instant,
}

impl Watch {
    /// A watch that calls a service overdue after `factor` intervals, and again each `remind`.
    pub fn new(factor: u32, remind: Duration, now: Instant) -> Self {
        Self { factor, remind, watched: BTreeMap::new(), read_at: now }
    }

    /// Says that nothing could be read for a while until now: that time counts for nobody.
    pub fn excuse(&mut self, now: Instant) {
        let blind = now.saturating_duration_since(self.read_at);
        for watched in self.watched.values_mut() {
            watched.baseline = (watched.baseline + blind).min(now);
        }
    }

    /// Compares what was seen with what the schedule expects.
    pub fn observe(
        &mut self,
        now: Instant,
        wall: Timestamp,
        expected: &Intervals,
        seen: &BTreeMap<ServiceName, Success>,
    ) -> Vec<Notice> {
        self.read_at = now;
        self.watched.retain(|service, _| expected.get(service).is_some_and(Option::is_some));
        let mut notices = Vec::new();
        for (service, interval) in expected {
            let (Some(interval), Some(success)) = (interval, seen.get(service)) else { continue };
            let fresh = Watched { baseline: now, stamp: None, told: None };
            let watched = self.watched.entry(service.clone()).or_insert(fresh);
            watched.see(*success, now, wall);
            let silent = now.saturating_duration_since(watched.baseline);
            let every = interval.as_duration();
            if silent <= every.saturating_mul(self.factor) {
                if watched.told.take().is_some() {
                    notices.push(Notice::Recovered { service: service.clone() });
                }
            } else if watched.told.is_none_or(|told| now.saturating_duration_since(told) >= self.remind) {
                watched.told = Some(now);
                notices.push(Notice::Overdue { service: service.clone(), silent, every });
            }
        }
        notices
    }

    /// The services that are overdue, with the time since their last success.
    pub fn overdue(&self, now: Instant) -> Vec<(&ServiceName, Duration)> {
        let overdue = self.watched.iter().filter(|(_, watched)| watched.told.is_some());
        overdue.map(|(service, watched)| (service, now.saturating_duration_since(watched.baseline))).collect()
    }
}

impl Watched {
    fn see(&mut self, success: Success, now: Instant, wall: Timestamp) {
        let at = match success {
            Success::Unseen => return,
            Success::Ended(at) => at,
            Success::Stamped(stamp) => {
                // Only a stamp that changed is compared with the wall clock, which may be set at any time.
                if self.stamp.replace(stamp) == Some(stamp) {
                    return;
                }
                let age = Duration::try_from_secs_f64(wall.seconds_since(stamp)).unwrap_or(Duration::ZERO);
                now.checked_sub(age).unwrap_or(self.baseline)
            }
        };
        self.baseline = self.baseline.max(at.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    struct Case {
        watch: Watch,
        start: Instant,
        expected: Intervals,
    }

    fn case(every: Duration) -> Case {
        let start = Instant::now() + Duration::from_hours(1000);
        let expected = [("a".parse().unwrap(), Some(every.try_into().unwrap()))].into();
        Case { watch: Watch::new(3, Duration::from_hours(1), start), start, expected }
    }

    impl Case {
        /// Looks `after` the start; the wall clock reads the minutes since the start plus `wall_offset`.
        fn look(&mut self, after: Duration, success: Success, wall: f64) -> Vec<&'static str> {
            let seen = [("a".parse().unwrap(), success)].into();
            let notices = self.watch.observe(self.start + after, Timestamp(wall), &self.expected, &seen);
            let word = |notice: &Notice| match notice {
                Notice::Overdue { .. } => "overdue",
                Notice::Recovered { .. } => "recovered",
            };
            notices.iter().map(word).collect()
        }
    }

    #[test]
    fn a_service_that_never_succeeded_is_overdue_three_intervals_after_the_start() {
        let mut case = case(MINUTE);
        assert!(case.look(Duration::ZERO, Success::Unseen, 0.0).is_empty());
        assert!(case.look(3 * MINUTE, Success::Unseen, 180.0).is_empty());
        assert_eq!(case.look(4 * MINUTE, Success::Unseen, 240.0), ["overdue"]);
        assert_eq!(case.watch.overdue(case.start + 4 * MINUTE), [(&"a".parse().unwrap(), 4 * MINUTE)]);
    }

    #[test]
    fn it_counts_from_the_last_success_whether_or_not_the_key_still_exists() {
        let mut case = case(5 * MINUTE);
        case.look(Duration::ZERO, Success::Unseen, 0.0);
        assert!(case.look(MINUTE, Success::Stamped(Timestamp(50.0)), 60.0).is_empty());
        assert!(case.look(15 * MINUTE, Success::Unseen, 900.0).is_empty());
        assert_eq!(case.look(16 * MINUTE, Success::Unseen, 960.0), ["overdue"]);
    }

    #[test]
    fn it_is_told_once_an_hour_and_once_when_it_recovers() {
        let mut case = case(MINUTE);
        case.look(Duration::ZERO, Success::Unseen, 0.0);
        assert_eq!(case.look(5 * MINUTE, Success::Unseen, 300.0), ["overdue"]);
        assert!(case.look(64 * MINUTE, Success::Unseen, 3840.0).is_empty());
        assert_eq!(case.look(65 * MINUTE, Success::Unseen, 3900.0), ["overdue"]);
        let success = Success::Ended(case.start + 65 * MINUTE);
        assert_eq!(case.look(66 * MINUTE, success, 3960.0), ["recovered"]);
        assert!(case.look(67 * MINUTE, success, 4020.0).is_empty());
    }

    #[test]
    fn a_step_of_the_wall_clock_changes_nothing() {
        let mut case = case(MINUTE);
        let stamp = Success::Stamped(Timestamp(0.0));
        case.look(Duration::ZERO, stamp, 1.0);
        assert!(case.look(2 * MINUTE, stamp, 1e9).is_empty(), "set ahead by years");
        assert!(
            case.look(3 * MINUTE, Success::Stamped(Timestamp(5e9)), 1e9).is_empty(),
            "a stamp of the future is now"
        );
        assert_eq!(case.look(7 * MINUTE, Success::Stamped(Timestamp(5e9)), 0.0), ["overdue"]);
    }

    #[test]
    fn a_paused_service_is_not_expected_and_a_resumed_one_starts_afresh() {
        let mut case = case(MINUTE);
        case.look(Duration::ZERO, Success::Unseen, 0.0);
        let resumed = std::mem::replace(&mut case.expected, [("a".parse().unwrap(), None)].into());
        assert!(case.look(30 * MINUTE, Success::Unseen, 0.0).is_empty());
        case.expected = resumed;
        assert!(case.look(60 * MINUTE, Success::Unseen, 0.0).is_empty());
        assert_eq!(case.look(64 * MINUTE, Success::Unseen, 0.0), ["overdue"]);
    }

    #[test]
    fn time_in_which_nothing_could_be_read_counts_for_nobody() {
        let mut case = case(MINUTE);
        case.look(2 * MINUTE, Success::Unseen, 0.0);
        case.watch.excuse(case.start + 60 * MINUTE);
        assert!(case.look(60 * MINUTE, Success::Unseen, 0.0).is_empty());
        assert_eq!(case.look(64 * MINUTE, Success::Unseen, 0.0), ["overdue"]);
    }
}
