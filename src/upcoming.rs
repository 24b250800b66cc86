//! The timetable in force, for the scheduler, which goes by it, and for whoever wants to know what comes next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::names::ServiceName;
use crate::schedule::{Interval, Timetable};

/// What comes when. Cheap to clone; empty until the scheduler begins.
#[derive(Debug, Clone)]
pub struct Upcoming {
    timetable: Arc<Mutex<Timetable>>,
    /// When time began for the timetable, but for the slots of an interval before that.
    start: Instant,
}

impl Default for Upcoming {
    fn default() -> Self {
        Self { timetable: Arc::default(), start: Instant::now() }
    }
}

impl Upcoming {
    /// Room for the slots of an interval before the start.
    const BEFORE: Duration = Interval::LONGEST;

    /// The timetable. Not to be held over an await.
    pub fn timetable(&self) -> MutexGuard<'_, Timetable> {
        self.timetable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present moment as the timetable counts.
    #[must_use]
    pub fn now(&self) -> Duration {
        Self::BEFORE + self.start.elapsed()
    }

    /// The moment that the timetable calls `at`.
    #[must_use]
    pub fn instant(&self, at: Duration) -> Instant {
        self.start + at.saturating_sub(Self::BEFORE)
    }

    /// How long it is until each service's next slot.
    #[must_use]
    pub fn next(&self) -> BTreeMap<ServiceName, Duration> {
        let now = self.now();
        self.timetable().next().map(|(service, at)| (service.clone(), at.saturating_sub(now))).collect()
    }
}
