//! What an earlier life of the daemon left: containers that still run are adopted, others removed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::Runner;
use super::run::{Begun, Identity};
use crate::backend::{Backend, Bounds, Due, Failure};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::event::{Event, Leftover};
use crate::report::{RunReport, Trigger};

/// How long the start waits for removals: one that cannot be done must not keep the other services from running.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Removes the dead containers of earlier runs, and adopts those that still run: each is a task on `work`, the adopted
    /// ones held to what is left of their service's time limit. Returns without those that do not go away in good time.
    ///
    /// Call it before anything is started. Containers of other programs, `docker compose run` among them, are left alone.
    ///
    /// # Errors
    ///
    /// When the Engine does not answer; what was begun goes on.
    pub async fn recover(&self, work: &TaskTracker) -> Result<(), Failure> {
        let events = &self.inner.events;
        let mut removals = Vec::new();
        let remove = |run: K::Run| {
            let backend = Arc::clone(&self.inner.backend);
            work.spawn(async move { backend.remove(run).await })
        };
        for found in self.inner.backend.runs(&self.inner.projects.name(), None).await? {
            let Some((run_id, run)) = found.own else { continue };
            let service = found.service;
            if !found.alive {
                let leftover = Leftover::Earlier { container: None };
                events.emit(&Event::LeftoverRemoved { service, run_id, leftover });
                removals.push(remove(run));
                continue;
            }
            let Ok(claim) = self.inner.claims.run(&service, &run_id) else {
                events.emit(&Event::LeftoverRemoved { service, run_id, leftover: Leftover::Second });
                removals.push(remove(run));
                continue;
            };
            events.emit(&Event::RunAdopted { service: service.clone(), run_id: run_id.clone() });
            let runner = self.clone();
            let identity = Identity { service, run_id, trigger: Trigger::Adopted };
            work.spawn(async move {
                let report = runner.adopt(run, identity).await;
                drop(claim);
                runner.close(&report).await;
            });
        }
        if timeout(REMOVAL_LIMIT, join_all(removals)).await.is_err() {
            events.emit(&Event::LeftoversStay);
        }
        Ok(())
    }

    async fn adopt(&self, mut run: K::Run, identity: Identity) -> RunReport {
        let inner = &self.inner;
        let limit = inner.options.service(&identity.service).limit;
        let (now, at) = (Instant::now(), Timestamp::now());
        // The wall clock may have been set since: an age that cannot be is none.
        let started_at = inner.backend.started_at(&mut run).await.filter(|started| *started <= at);
        let age = started_at.map_or(Duration::ZERO, |started| {
            Duration::try_from_secs_f64(at.seconds_since(started)).unwrap_or_default()
        });
        let (tail, abort) = (inner.options.tail, inner.stages.abort.clone());
        let deadline = now + limit.saturating_sub(age);
        let bounds = Bounds { deadline, due: Due::at(deadline), limit, tail, abort };
        let _watched = self.watch(&identity.service, &identity.run_id, &bounds);
        let finished = inner.backend.finish(&mut run, &bounds).await;
        inner.backend.remove(run).await;
        let begun = Begun { instant: now.checked_sub(age).unwrap_or(now), at: started_at.unwrap_or(at) };
        identity.report(begun, finished, limit)
    }
}
