//! Finds the runs that nobody here has: those that an earlier life of the daemon began, and those whose container came late.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Runner;
use super::claims::{Known, LeftoverClaim, RunClaim};
use super::history::EarlierRun;
use super::verdict::Begun;
use crate::backend::{Backend, Bounds, Due, Failure, FoundRun, Naming, RunState};
use crate::bus::Bus;
use crate::event::{Event, Leftover};
use crate::names::{RunId, ServiceName};
use crate::report::{RunReport, Trigger};

/// How long the start waits for removals: one that cannot be done must not keep the other services from running.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// What is said of a run whose end nobody saw.
const ENDED_AWAY: &str = "ended while the daemon was away";

/// A run that nobody here has.
struct Found<R> {
    service: ServiceName,
    run_id: RunId,
    run: R,
    /// What is known of it.
    earlier: EarlierRun,
    _leftover: LeftoverClaim,
}

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Adopts the runs of an earlier life of the daemon that go on, and tells of those that ended before it removes them.
    /// Each is a task of its own. Returns without those that do not go away in good time.
    ///
    /// Call it before anything is started. Containers of other programs, `docker compose run` among them, are left alone.
    ///
    /// # Errors
    ///
    /// When the Engine does not answer; what was begun goes on.
    pub async fn recover(&self) -> Result<(), Failure> {
        let asked = Instant::now();
        let (ends, found) = self.look_round_at(true).await?;
        if timeout(REMOVAL_LIMIT, join_all(ends)).await.is_err() {
            self.inner.history.events.emit(&Event::LeftoversStay);
        }
        let begun_now = |service: &ServiceName, run_id: &RunId| {
            !matches!(self.inner.claims.known(service, run_id, asked), Known::No)
        };
        self.inner.history.interrupt(|service, run_id| found.contains(run_id) || begun_now(service, run_id));
        Ok(())
    }

    /// The same while the daemon runs, for what the Engine made late: a create can be carried out long after its answer
    /// was given up.
    ///
    /// # Errors
    ///
    /// When the Engine does not answer.
    pub async fn look_round(&self) -> Result<(), Failure> {
        self.look_round_at(false).await.map(drop)
    }

    /// Takes over what nobody has, and returns the ends of what does not go on, and all runs that are there.
    async fn look_round_at(&self, start: bool) -> Result<(Vec<JoinHandle<()>>, BTreeSet<RunId>), Failure> {
        let inner = &self.inner;
        let asked = Instant::now();
        let (mut ends, mut all) = (Vec::new(), BTreeSet::new());
        for found in inner.backend.runs(&inner.projects.name(), None).await? {
            let FoundRun { container, service, own, naming, state } = found;
            let Some((run_id, run)) = own else { continue };
            if naming != Naming::AsOurs && !self.has_begun(&service, &run_id, asked).await {
                continue;
            }
            all.insert(run_id.clone());
            if !self.knows(&service) {
                continue;
            }
            // A removal may take longer than the time between two looks.
            let Some(leftover) = inner.claims.leftover(&run_id) else { continue };
            let told = match inner.claims.known(&service, &run_id, asked) {
                Known::Active => continue,
                Known::Ended => true,
                Known::No => self.has_verdict(&run_id).await,
            };
            let claim = if told { None } else { inner.claims.run(&service, &run_id).ok() };
            let (name, id) = (service.clone(), run_id.clone());
            let removed = |leftover| Event::LeftoverRemoved { service: name.clone(), run_id: id.clone(), leftover };
            let event = match (state, &claim) {
                (RunState::Alive, Some(_)) => Event::RunAdopted { service: name, run_id: id },
                (RunState::Alive, None) if start && !told => removed(Leftover::Second),
                // Another daemon's, by its looks.
                (RunState::Alive, None) if !told => {
                    inner.history.events.emit(&Event::ForeignRun { service: name, run_id: id });
                    continue;
                }
                (RunState::Alive | RunState::Created | RunState::Ended, _) => {
                    removed(Leftover::Earlier { container: None })
                }
            };
            inner.history.events.emit(&event);
            let end = if told {
                // Without a word: asking the ledger what is known of it would enter it a second time.
                let backend = Arc::clone(&inner.backend);
                inner.stages.work.spawn(async move {
                    backend.remove(run).await;
                    drop(leftover);
                })
            } else {
                let earlier = inner.history.earlier(&service, &run_id, &container);
                let found = Found { service, run_id, run, earlier, _leftover: leftover };
                inner.stages.work.spawn(self.clone().end_found(found, state, claim))
            };
            if state != RunState::Alive {
                ends.push(end);
            }
        }
        Ok((ends, all))
    }

    /// Whether a run was begun here or, as the ledger has it, in an earlier life. Labels alone can come with an image.
    pub(super) async fn has_begun(&self, service: &ServiceName, run_id: &RunId, asked: Instant) -> bool {
        !matches!(self.inner.claims.known(service, run_id, asked), Known::No)
            || self.inner.history.ledger.run(run_id).await.is_some_and(|record| record.job == *service)
    }

    /// Whether an earlier life of the daemon told what became of a run, and did not come to its removal.
    pub(super) async fn has_verdict(&self, run_id: &RunId) -> bool {
        self.inner.history.ledger.run(run_id).await.is_some_and(|record| record.state.is_over())
    }

    /// Follows a found run to its end, which is at once where it has no claim, and removes it.
    async fn end_found(self, found: Found<K::Run>, state: RunState, claim: Option<RunClaim>) {
        let Found { service, run_id, mut run, earlier, _leftover } = found;
        let limit = self.options().service(&service).limit;
        let cancel = claim.as_ref().map(RunClaim::cancel).unwrap_or_default();
        if claim.is_none() && state == RunState::Alive {
            cancel.cancel();
        }
        // The wall clock may have been set since: where the other clock does not tell, its limit begins anew.
        let left = limit.saturating_sub(earlier.age.unwrap_or_default());
        let abort = self.inner.stages.abort.clone();
        let deadline = Instant::now() + left;
        let bounds = Bounds { deadline, due: Due::at(deadline), limit, abort, cancel };
        let _watched = self.watch(&service, &run_id, &bounds);
        let mut report = self.see_to_its_end(&service, run_id, &mut run, state, &bounds).await;
        if let Some(removal) = self.conclude(Some(run), &mut report, earlier.record, claim).await {
            removal.await.ok();
        }
    }

    /// Follows a found run to its end.
    pub(super) async fn see_to_its_end(
        &self,
        service: &ServiceName,
        run_id: RunId,
        run: &mut K::Run,
        state: RunState,
        bounds: &Bounds,
    ) -> RunReport {
        let begun = Begun::now(service.clone(), run_id, Trigger::Adopted);
        let finished = self.inner.backend.finish(run, bounds).await;
        let mut report = begun.finished(&finished, bounds).by_the_engines_clock();
        report.note = (state == RunState::Ended).then_some(ENDED_AWAY);
        report
    }
}
