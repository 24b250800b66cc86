//! Keeps log lines that anybody can cause by a message each from filling the log.

use std::ops::Sub;
use std::time::Duration;

/// Leave to write a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// How many lines were not written since the last one; none where all were.
    pub suppressed: Option<u64>,
}

impl Line {
    /// How many lines this one stands for.
    #[must_use]
    pub fn count(self) -> u64 {
        self.suppressed.unwrap_or(0).saturating_add(1)
    }
}

/// Lets some lines through in each period and counts the others. `I` is a moment of the caller's clock.
#[derive(Debug)]
pub struct LogLimit<I> {
    most: u32,
    period: Duration,
    /// When the present period began, and the lines let through in it.
    began: Option<I>,
    passed: u32,
    suppressed: u64,
}

impl<I: Copy + Sub<I, Output = Duration>> LogLimit<I> {
    /// At most `most` lines in each `period`.
    #[must_use]
    pub const fn new(most: u32, period: Duration) -> Self {
        Self { most, period, began: None, passed: 0, suppressed: 0 }
    }

    /// Leave to write a line now, or none.
    pub fn allow(&mut self, now: I) -> Option<Line> {
        if self.began.is_none_or(|began| now - began >= self.period) {
            self.began = Some(now);
            self.passed = 0;
        }
        if self.passed >= self.most {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.passed += 1;
        let suppressed = Some(std::mem::take(&mut self.suppressed)).filter(|count| *count > 0);
        Some(Line { suppressed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_pass_in_each_period_and_the_next_says_how_many_did_not() {
        let mut limit = LogLimit::<Duration>::new(2, Duration::from_mins(1));
        let mut at = |seconds| limit.allow(Duration::from_secs(seconds)).map(Line::count);
        assert_eq!([at(0), at(1), at(2), at(59)], [Some(1), Some(1), None, None]);
        assert_eq!([at(60), at(61), at(62)], [Some(3), Some(1), None]);
        assert_eq!(at(600), Some(2));
    }
}
