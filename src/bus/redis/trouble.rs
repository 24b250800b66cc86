//! What is said of a connection that comes and goes, and how long to wait for the next attempt.

use std::time::Duration;

use tokio::time::Instant;

use super::socket::Lost;
use crate::backoff::Backoff;
use crate::log_limit::LogLimit;
use crate::report::Chain;

/// First and longest wait between two attempts to connect. The longest is short, for all work waits for Redis' return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Most lines about the connection in a while.
const LINES: (u32, Duration) = (20, Duration::from_mins(1));

/// What is remembered from one attempt to connect to the next.
pub(super) struct Trouble {
    backoff: Backoff,
    /// What was warned of last was a refusal.
    refused: bool,
    /// Anybody who may end our connections could fill the log.
    lines: LogLimit<Instant>,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { backoff: BACKOFF, refused: false, lines: LogLimit::new(LINES.0, LINES.1) }
    }
}

impl Trouble {
    /// The connection stands.
    pub(super) fn connected(&mut self, generation: u64) {
        (self.backoff, self.refused) = (BACKOFF, false);
        if let Some(line) = self.lines.allow(Instant::now()) {
            tracing::info!(generation, resp = "RESP2", suppressed = line.suppressed, "redis connected");
        }
    }

    /// The wait before the next attempt.
    pub(super) fn wait(&mut self) -> Duration {
        self.backoff.wait()
    }

    /// Logs a failure: the news and an hourly reminder as warnings, the others for debugging.
    pub(super) fn log(&mut self, lost: &Lost) {
        let reason = tracing::field::display(Chain(lost));
        let line = if self.is_news(lost) { self.lines.allow(Instant::now()) } else { None };
        if let Some(line) = line {
            tracing::warn!(reason, suppressed = line.suppressed, "redis unavailable");
        } else {
            tracing::debug!(reason, "redis still unavailable");
        }
    }

    /// True for the first failure, for the first refusal after Redis was merely away, and once an hour.
    fn is_news(&mut self, lost: &Lost) -> bool {
        let refused = lost.is_refusal();
        if refused && !self.refused {
            self.backoff.warn_again();
        }
        let news = self.backoff.should_warn();
        self.refused = if news { refused } else { self.refused };
        news
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_refusal_is_news_after_an_absence_and_the_same_trouble_is_not() {
        let mut trouble = Trouble::default();
        let away = Lost::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let refused = Lost::Login { call: "AUTH", code: Some("WRONGPASS") };
        assert!(trouble.is_news(&away));
        assert!(!trouble.is_news(&Lost::Late), "one outage, one warning");
        assert!(trouble.is_news(&refused));
        for lost in [&refused, &away, &refused] {
            assert!(!trouble.is_news(lost), "{lost}");
        }
    }
}
