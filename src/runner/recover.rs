//! What an earlier life of the daemon left: containers that still run are adopted, others removed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::one_off::{self, Bounds};
use super::run::{Begun, Identity};
use super::{Failure, Runner};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::plan::DEFAULT_GRACE;
use crate::report::{Chain, Trigger};

/// How long the start waits for removals: one that cannot be done must not keep the other services from running.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

impl<E: Engine, B: Bus> Runner<E, B> {
    /// Removes the dead containers of earlier runs, and adopts those that still run: each is a task on `work`, the adopted
    /// ones held to what is left of their service's time limit. Returns without those that do not go away in good time.
    ///
    /// Call it before anything is started. Containers of other programs, `docker compose run` among them, are left alone.
    ///
    /// # Errors
    ///
    /// When the Engine does not answer; what was begun goes on.
    pub async fn recover(&self, work: &TaskTracker) -> Result<(), Failure> {
        let mut removals = Vec::new();
        let remove = |name: String| {
            let engine = Arc::clone(&self.inner.engine);
            work.spawn(async move { one_off::remove(engine.as_ref(), &name).await })
        };
        for container in self.one_offs(None).await? {
            let Some(run_id) = container.run_id else { continue };
            let (service, name) = (container.service, container.name);
            if !container.lives {
                warn!(%service, %run_id, "removing the container of an earlier run");
                removals.push(remove(name));
                continue;
            }
            let Ok(mut claim) = self.inner.claims.run(&service, &run_id) else {
                warn!(%service, %run_id, "removing a second run of a service");
                removals.push(remove(name));
                continue;
            };
            info!(%service, %run_id, "adopting a run that goes on");
            let runner = self.clone();
            let identity = Identity { service, run_id, trigger: Trigger::Adopted };
            work.spawn(async move {
                claim.turn().await;
                let report = runner.adopt(&name, identity).await;
                drop(claim);
                runner.close(&report).await;
            });
        }
        if timeout(REMOVAL_LIMIT, join_all(removals)).await.is_err() {
            warn!("containers of earlier runs do not go away, starting without them");
        }
        Ok(())
    }

    async fn adopt(&self, name: &str, identity: Identity) -> crate::report::RunReport {
        let limit = self.inner.options.service(&identity.service).limit;
        let (now, at) = (Instant::now(), Timestamp::now());
        let found = match self.inner.engine.container(name).await {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => {
                warn!(container = name, error = %Chain(&error), "start of an adopted run not known");
                bollard::models::ContainerInspectResponse::default()
            }
        };
        // The wall clock may have been set since: an age that cannot be is none.
        let started_at =
            found.state.and_then(|state| Timestamp::from_rfc3339(&state.started_at?)).filter(|started| *started <= at);
        let age = started_at.map_or(Duration::ZERO, |started| {
            Duration::try_from_secs_f64(at.seconds_since(started)).unwrap_or_default()
        });
        let grace = found.config.and_then(|config| config.stop_timeout);
        let bounds = Bounds {
            deadline: now + limit.saturating_sub(age),
            grace: grace.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DEFAULT_GRACE, Duration::from_secs),
            tail: self.inner.options.tail,
            abort: self.inner.stages.abort.clone(),
        };
        let remains = one_off::outlive(self.inner.engine.as_ref(), name, &bounds).await;
        let begun = Begun { instant: now.checked_sub(age).unwrap_or(now), at: started_at.unwrap_or(at) };
        identity.report(begun, remains, limit)
    }
}
