//! Says when the connection to Redis is lost, and when it is back.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Connection};
use crate::event::{Event, Peer};
use crate::observer::Events;

/// A connection that stays away is said again after so long.
const REMIND: Duration = Duration::from_hours(1);

/// Says what becomes of the connection, until `closing` is cancelled.
pub async fn tell<B: Bus>(bus: &B, events: &Events, closing: CancellationToken) {
    let mut connection = bus.connection();
    let mut outage = Outage::default();
    loop {
        let now = connection.borrow_and_update().clone();
        match now {
            Connection::Untried | Connection::Off => {}
            Connection::Up { .. } => {
                outage = Outage::default();
                events.emit(&Event::ConnectionBack { peer: Peer::Redis });
            }
            Connection::Down { reason, refused } => {
                if outage.is_news(refused, Instant::now()) {
                    events.emit(&Event::ConnectionLost { peer: Peer::Redis, reason });
                }
            }
        }
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            changed = connection.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// What was said since the connection stood last.
#[derive(Debug, Default)]
struct Outage {
    said: Option<Instant>,
    /// What was said last was a refusal.
    refused: bool,
}

impl Outage {
    /// True for the first failure, for the first refusal after Redis was merely away, and once an hour.
    fn is_news(&mut self, refused: bool, now: Instant) -> bool {
        let news = refused && !self.refused || self.said.is_none_or(|said| now - said >= REMIND);
        if news {
            *self = Self { said: Some(now), refused };
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_said_once_then_each_hour_and_again_when_it_is_a_refusal() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let seconds = (0..=2 * 3600).filter(|second| outage.is_news(false, start + Duration::from_secs(*second)));
        assert_eq!(seconds.collect::<Vec<_>>(), [0, 3600, 7200]);
        let later = start + Duration::from_secs(7201);
        assert!(outage.is_news(true, later), "a refusal after an absence");
        for refused in [true, false, true] {
            assert!(!outage.is_news(refused, later), "the same trouble");
        }
        outage = Outage::default();
        assert!(outage.is_news(false, later), "the next outage is another one");
    }
}
