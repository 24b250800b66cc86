//! A sign of life for what takes longer than a second, on a terminal only.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

/// What takes no longer needs no sign of life.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two pictures.
const TURN: Duration = Duration::from_millis(100);

const PICTURES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Waits, and shows that it does; nothing is shown where `what` is empty.
pub(super) async fn spinning<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if what.is_empty() || !std::io::stderr().is_terminal() {
        return work.await;
    }
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(PATIENCE) => {}
    }
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for picture in PICTURES.into_iter().cycle() {
        tokio::select! {
            biased;
            done = &mut work => {
                let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
                return done;
            }
            _ = turns.tick() => {
                let _ = write!(std::io::stderr().lock(), "\r{picture} {what}");
            }
        }
    }
    work.await
}
