//! Runs that go on past all that they may take: something is stuck, and the daemon is not well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::Due;
use crate::names::{RunId, ServiceName};

/// What stopping and removing a run may take past its limit and its stop grace period.
const SLACK: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Watch {
    service: ServiceName,
    grace: Duration,
    due: Due,
}

/// The runs that go on.
#[derive(Debug, Default)]
pub(super) struct Overruns(Mutex<BTreeMap<RunId, Watch>>);

/// A run goes on until this is dropped.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    overruns: &'a Overruns,
    run_id: RunId,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.overruns.lock().remove(&self.run_id);
    }
}

impl Overruns {
    /// Watches a run that is to end when it is `due`, or its stop grace period later.
    pub(super) fn watch(&self, service: &ServiceName, run_id: &RunId, grace: Duration, due: Due) -> Watched<'_> {
        self.lock().insert(run_id.clone(), Watch { service: service.clone(), grace, due });
        Watched { overruns: self, run_id: run_id.clone() }
    }

    /// The runs that go on past their limit, their stop grace period and some slack.
    pub(super) fn list(&self) -> Vec<(ServiceName, RunId)> {
        let watched = self.lock();
        let late = watched.iter().filter(|(_, watch)| watch.due.passed_by(watch.grace + SLACK));
        late.map(|(run_id, watch)| (watch.service.clone(), run_id.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_is_late_once_limit_grace_and_slack_are_over_and_not_while_it_pulls() {
        let (overruns, due) = (Overruns::default(), Due::at(Instant::now() + Duration::from_mins(1)));
        let (service, run_id) = ("a".parse().unwrap(), "000000000001".parse().unwrap());
        let watched = overruns.watch(&service, &run_id, Duration::from_secs(10), due.clone());
        advance(Duration::from_secs(84)).await;
        assert_eq!(overruns.list(), []);
        advance(Duration::from_secs(2)).await;
        assert_eq!(overruns.list(), [(service, run_id)]);
        due.suspend();
        assert_eq!(overruns.list(), []);
        due.move_to(Instant::now());
        assert_eq!(overruns.list(), []);
        advance(Duration::from_secs(26)).await;
        assert_eq!(overruns.list().len(), 1);
        drop(watched);
        assert_eq!(overruns.list(), []);
    }
}
