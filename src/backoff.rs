//! Growing waits between attempts, and which failures are worth a warning.

use std::time::Duration;

/// A standing failure is warned of again after waits of so long.
const REMIND: Duration = Duration::from_hours(1);

/// The waits between attempts at one thing: each twice as long as the one before, up to a longest.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    /// Time waited since the last warning; none before the first.
    warned: Option<Duration>,
}

impl Backoff {
    /// Waits from `first` to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, warned: None }
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.min(self.longest);
        self.next = wait.saturating_mul(2);
        self.warned = self.warned.map(|since| since.saturating_add(wait));
        wait
    }

    /// Whether to warn of a failure: the first since a success, and then each hour of waiting.
    pub fn should_warn(&mut self) -> bool {
        let news = self.warned.is_none_or(|since| since >= REMIND);
        if news {
            self.warned = Some(Duration::ZERO);
        }
        news
    }

    /// Warns of the next failure whatever was warned of before: it is of another kind.
    pub fn warn_again(&mut self) {
        self.warned = None;
    }

    /// The attempt succeeded.
    pub fn reset(&mut self) {
        *self = Self::new(self.first, self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let waits: Vec<u64> = (0..5).map(|_| backoff.wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.wait(), SECOND);
    }

    #[test]
    fn the_first_failure_is_warned_of_and_then_one_an_hour() {
        let mut backoff = Backoff::new(SECOND, SECOND);
        let mut warnings = 0;
        for _ in 0..=2 * 3600 {
            warnings += u32::from(backoff.should_warn());
            backoff.wait();
        }
        assert_eq!(warnings, 3);
        backoff.warn_again();
        assert!(backoff.should_warn());
        assert!(!backoff.should_warn());
        backoff.reset();
        assert!(backoff.should_warn(), "the next outage is another one");
    }
}
