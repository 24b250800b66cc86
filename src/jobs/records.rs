//! A job's runs, and its slots without one, as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use tokio::sync::broadcast;

use super::{JobError, Jobs};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::ledger::{Query, RunStart};
use crate::names::{RunId, ServiceName};
use crate::observer::feed::Stamped;
use crate::record::{Record, State};

/// Records that are read at a time.
const PAGE: usize = 64;

impl<K: Backend, B: Bus> Jobs<K, B> {
    /// A job's records, newest first.
    pub fn records(&self, job: &ServiceName) -> impl Stream<Item = Record> + Send + 'static {
        let (ledger, job) = (self.ledger().clone(), job.clone());
        let unfinished = self.unfinished();
        let pages = futures::stream::unfold(Some(None), move |before: Option<Option<u64>>| {
            let query = before.map(|before| Query { job: Some(job.clone()), before, limit: PAGE, run_id: None });
            let ledger = ledger.clone();
            async move {
                let page = ledger.page(query?).await;
                Some((page.records, page.next.map(Some)))
            }
        });
        pages.flat_map(futures::stream::iter).map(move |record| with_start(record, &unfinished))
    }

    /// A run of a job, with its output where it was kept; the newest where none is named.
    ///
    /// # Errors
    ///
    /// There is no such job or run.
    pub async fn run_record(&self, job: &ServiceName, run: Option<u64>) -> Result<Record, JobError> {
        self.known(job)?;
        let wanted = |record: &Record| record.run_id.is_some() && run.is_none_or(|run| record.iteration == Some(run));
        let mut records = std::pin::pin!(self.records(job));
        while let Some(record) = records.next().await {
            if wanted(&record) {
                return Ok(record);
            }
        }
        Err(run.map_or_else(|| JobError::NeverRan(job.clone()), |run| JobError::NoRun { job: job.clone(), run }))
    }

    /// Runs without a verdict, as they are now.
    pub(super) fn unfinished(&self) -> BTreeMap<RunId, Record> {
        let known = self.ledger().unfinished().into_iter();
        known.filter_map(|known| Some((known.record.run_id.clone()?, now_of(known.record, known.start)))).collect()
    }

    /// The verdict of a run, once it has one.
    pub(super) async fn verdict(
        &self,
        run_id: &RunId,
        events: &mut broadcast::Receiver<Arc<Stamped>>,
    ) -> Option<Record> {
        loop {
            match events.recv().await {
                Ok(stamped) => match &stamped.event {
                    Event::Recorded { record } if record.run_id.as_ref() == Some(run_id) && record.state.is_over() => {
                        return Some(record.as_ref().clone());
                    }
                    _ => {}
                },
                // What was missed may have been it.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    if let Some(record) = self.ledger().run(run_id).await.filter(|record| record.state.is_over()) {
                        return Some(record);
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Waits until a run's container was started; false where it has its verdict before.
    pub(super) async fn started(&self, run_id: &RunId, events: &mut broadcast::Receiver<Arc<Stamped>>) -> bool {
        loop {
            let unfinished = self.ledger().unfinished();
            match unfinished.iter().find(|known| known.record.run_id.as_ref() == Some(run_id)) {
                None => return false,
                Some(known) if known.start.is_some() => return true,
                Some(_) => {}
            }
            match events.recv().await {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return false,
            }
        }
    }
}

/// A run's record as it is now: the ledger has its start apart.
fn now_of(record: Record, start: Option<RunStart>) -> Record {
    let Some(start) = start.filter(|_| record.state == State::Pending) else { return record };
    let age = RunStart::now(start.run_id.clone()).and_then(|now| start.age_at(&now));
    let started_at = age.map(|age| Timestamp(Timestamp::now().0 - age.as_secs_f64()));
    Record { state: State::Running, started_at: record.started_at.or(started_at), ..record }
}

/// A record, with the start of its run where it goes on.
pub(super) fn with_start(record: Record, unfinished: &BTreeMap<RunId, Record>) -> Record {
    let known = record.run_id.as_ref().filter(|_| !record.state.is_over()).and_then(|run_id| unfinished.get(run_id));
    known.cloned().unwrap_or(record)
}
