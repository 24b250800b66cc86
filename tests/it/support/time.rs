//! The clock of the fakes: tokio's, which a simulation continues over several runtimes.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    /// A moment of this runtime's clock, and the same moment on the fakes'.
    static CONTINUED: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
}

/// The present moment.
pub(crate) fn now() -> Instant {
    CONTINUED.get().map_or_else(Instant::now, |(here, there)| there + (Instant::now() - here))
}

/// Waits until a moment.
pub(crate) async fn sleep_until(moment: Instant) {
    let here = CONTINUED.get().map_or(moment, |(here, there)| here + moment.saturating_duration_since(there));
    tokio::time::sleep_until(here).await;
}

/// Lets the clock of a new runtime go on from a moment.
pub(crate) fn go_on_from(moment: Instant) {
    CONTINUED.set(Some((Instant::now(), moment)));
}
