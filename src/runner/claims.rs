//! Who may work on which service: one run of it at a time, and its operations in their order.
//!
//! Runs and operations do not exclude each other: a run is a container of its own, beside those of the service.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::names::{RunId, ServiceName};

/// Runs that are remembered after their end.
const REMEMBERED: usize = 256;

/// A run that goes on.
#[derive(Debug)]
struct ActiveRun {
    run_id: RunId,
    /// Ends it before its time.
    cancel: CancellationToken,
    /// It has its verdict: what is left to do is its removal.
    ended: bool,
}

#[derive(Debug)]
struct Service {
    /// Held by the run that goes on. Those that wait get it in the order in which they came.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The run that goes on.
    run: Mutex<Option<ActiveRun>>,
    /// Held by the operation that goes on. Those that wait get it in the order in which they came.
    operation: Arc<tokio::sync::Mutex<()>>,
    /// Cancels the starts that were asked for since the last cancellation.
    starts: Mutex<CancellationToken>,
}

/// Who may work on which service.
#[derive(Debug)]
pub(super) struct Claims {
    services: Mutex<BTreeMap<ServiceName, Arc<Service>>>,
    /// The runs that ended in this life of the daemon, the last of them, and when.
    ended: Arc<Mutex<VecDeque<(RunId, Instant)>>>,
    /// The runs of earlier lives that are being told of and removed.
    leftovers: Arc<Mutex<BTreeSet<RunId>>>,
    /// Cancels every start: the daemon's second stage of shutdown.
    abort: CancellationToken,
}

/// The right to work on a service, until dropped.
#[derive(Debug)]
pub(super) struct OperationClaim {
    _operation: OwnedMutexGuard<()>,
}

/// The right to run a service, until dropped.
#[derive(Debug)]
pub(super) struct RunClaim {
    service: Arc<Service>,
    ended: Arc<Mutex<VecDeque<(RunId, Instant)>>>,
    cancel: CancellationToken,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for RunClaim {
    fn drop(&mut self) {
        let Some(run) = lock(&self.service.run).take() else { return };
        let mut ended = lock(&self.ended);
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back((run.run_id, Instant::now()));
    }
}

/// The right to tell of a run that an earlier life left, and to remove it, until dropped.
#[derive(Debug)]
pub(super) struct LeftoverClaim {
    run_id: RunId,
    leftovers: Arc<Mutex<BTreeSet<RunId>>>,
}

impl Drop for LeftoverClaim {
    fn drop(&mut self) {
        lock(&self.leftovers).remove(&self.run_id);
    }
}

/// What is known of a run that the Engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: an earlier life of the daemon began it.
    No,
    /// It goes on, or did when the Engine was asked.
    Active,
    /// It had its verdict before the Engine was asked.
    Ended,
}

/// Why a service's run can't be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InTheWay {
    /// A run goes on; it may not have an id yet.
    Running(Option<RunId>),
    /// A run that ended is being removed.
    Removing,
}

impl Claims {
    /// No claims. `abort` cancels every start.
    pub(super) fn new(abort: CancellationToken) -> Self {
        Self { services: Mutex::default(), ended: Arc::default(), leftovers: Arc::default(), abort }
    }

    fn service(&self, service: &ServiceName) -> Arc<Service> {
        let fresh = || Service {
            turn: Arc::default(),
            run: Mutex::default(),
            operation: Arc::default(),
            starts: Mutex::new(self.abort.child_token()),
        };
        Arc::clone(lock(&self.services).entry(service.clone()).or_insert_with(|| Arc::new(fresh())))
    }

    /// Claims the service's one run, or names what is in the way.
    pub(super) fn run(&self, service: &ServiceName, run_id: &RunId) -> Result<RunClaim, InTheWay> {
        let service = self.service(service);
        match Arc::clone(&service.turn).try_lock_owned() {
            Ok(turn) => Ok(self.claim(service, turn, run_id)),
            Err(_) => Err(service.in_the_way()),
        }
    }

    /// The same, but waits for the run that is in the way, and for those that waited before, until a moment, and for a
    /// removal until another.
    pub(super) async fn run_by(
        &self,
        service: &ServiceName,
        run_id: &RunId,
        (moment, removed_by): (Instant, Instant),
    ) -> Result<RunClaim, InTheWay> {
        let service = self.service(service);
        let mut turn = std::pin::pin!(Arc::clone(&service.turn).lock_owned());
        match timeout_at(moment, turn.as_mut()).await {
            Ok(turn) => Ok(self.claim(service, turn, run_id)),
            Err(_) => match service.in_the_way() {
                InTheWay::Removing => match timeout_at(removed_by, turn).await {
                    Ok(turn) => Ok(self.claim(service, turn, run_id)),
                    Err(_) => Err(service.in_the_way()),
                },
                running @ InTheWay::Running(_) => Err(running),
            },
        }
    }

    fn claim(&self, service: Arc<Service>, turn: OwnedMutexGuard<()>, run_id: &RunId) -> RunClaim {
        let cancel = CancellationToken::new();
        let run = ActiveRun { run_id: run_id.clone(), cancel: cancel.clone(), ended: false };
        *lock(&service.run) = Some(run);
        RunClaim { service, ended: Arc::clone(&self.ended), cancel, _turn: turn }
    }

    /// What is known of a run that the Engine named when it was asked at that moment.
    pub(super) fn known(&self, service: &ServiceName, run_id: &RunId, asked: Instant) -> Known {
        if lock(&self.service(service).run).as_ref().is_some_and(|run| run.run_id == *run_id) {
            return Known::Active;
        }
        match lock(&self.ended).iter().find(|(ended, _)| ended == run_id) {
            Some((_, at)) if *at >= asked => Known::Active,
            Some(_) => Known::Ended,
            None => Known::No,
        }
    }

    /// Claims a run that an earlier life left; none while somebody is at it.
    pub(super) fn leftover(&self, run_id: &RunId) -> Option<LeftoverClaim> {
        let claimed = lock(&self.leftovers).insert(run_id.clone());
        claimed.then(|| LeftoverClaim { run_id: run_id.clone(), leftovers: Arc::clone(&self.leftovers) })
    }

    /// Ends the service's run before its time; names it.
    pub(super) fn cancel(&self, service: &ServiceName) -> Option<RunId> {
        let service = self.service(service);
        let run = lock(&service.run);
        let run = run.as_ref().filter(|run| !run.ended)?;
        run.cancel.cancel();
        Some(run.run_id.clone())
    }

    /// The services that a run or an operation goes on for.
    pub(super) fn occupied(&self) -> Vec<ServiceName> {
        let services = lock(&self.services);
        let occupied = |service: &Service| service.turn.try_lock().is_err() || service.operation.try_lock().is_err();
        services.iter().filter(|(_, service)| occupied(service)).map(|(name, _)| name.clone()).collect()
    }

    /// Waits for a turn among the service's operations.
    pub(super) async fn operation(&self, service: &ServiceName) -> OperationClaim {
        OperationClaim { _operation: Arc::clone(&self.service(service).operation).lock_owned().await }
    }

    /// What cancels a start of the service that is asked for now.
    pub(super) fn start(&self, service: &ServiceName) -> CancellationToken {
        lock(&self.service(service).starts).clone()
    }

    /// Cancels the starts of the service that were asked for until now.
    pub(super) fn cancel_starts(&self, service: &ServiceName) {
        std::mem::replace(&mut *lock(&self.service(service).starts), self.abort.child_token()).cancel();
    }

    /// The run that goes on.
    pub(super) fn running(&self, service: &ServiceName) -> Option<RunId> {
        lock(&self.service(service).run).as_ref().filter(|run| !run.ended).map(|run| run.run_id.clone())
    }
}

impl Service {
    fn in_the_way(&self) -> InTheWay {
        match lock(&self.run).as_ref() {
            Some(ActiveRun { ended: true, .. }) => InTheWay::Removing,
            Some(run) => InTheWay::Running(Some(run.run_id.clone())),
            None => InTheWay::Running(None),
        }
    }
}

impl RunClaim {
    /// Closed when the run has to end before its time.
    pub(super) fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// The run has its verdict: what is left to do is its removal.
    pub(super) fn ended(&self) {
        if let Some(run) = lock(&self.service.run).as_mut() {
            run.ended = true;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn claims() -> Claims {
        Claims::new(CancellationToken::new())
    }

    fn runs() -> [RunId; 3] {
        ["000000000001", "000000000002", "000000000003"].map(|id| id.parse().unwrap())
    }

    #[tokio::test]
    async fn a_second_run_is_refused_with_the_first_until_that_ends() {
        let (claims, service, [first, second, _]) = (claims(), "a".parse().unwrap(), runs());
        let claim = claims.run(&service, &first).unwrap();
        assert_eq!(claims.run(&service, &second).unwrap_err(), InTheWay::Running(Some(first)));
        assert!(claims.run(&"b".parse().unwrap(), &second).is_ok());
        drop(claim);
        assert_eq!(claims.running(&service), None);
        assert!(claims.run(&service, &second).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_waits_is_before_those_that_come_later_and_gives_up_at_its_moment() {
        let (claims, service, [first, second, third]) = (claims(), "a".parse().unwrap(), runs());
        let claim = claims.run(&service, &first).unwrap();
        let early = claims.run_by(&service, &second, (Instant::now() + SECOND, Instant::now() + SECOND)).await;
        assert_eq!(early.unwrap_err(), InTheWay::Running(Some(first)));
        let waits = claims.run_by(&service, &second, (Instant::now() + SECOND, Instant::now() + SECOND));
        let (waited, ()) = tokio::join!(waits, async {
            tokio::time::sleep(SECOND / 2).await;
            drop(claim);
            assert!(claims.run(&service, &third).is_err(), "it has not waited");
        });
        assert_eq!(claims.running(&service), Some(second));
        drop(waited);
    }

    #[tokio::test(start_paused = true)]
    async fn operations_wait_for_each_other_and_not_for_runs() {
        let (claims, service, [first, ..]) = (claims(), "a".parse().unwrap(), runs());
        let _run = claims.run(&service, &first).unwrap();
        let operation = tokio::time::timeout(SECOND, claims.operation(&service)).await.unwrap();
        assert!(tokio::time::timeout(SECOND, claims.operation(&service)).await.is_err());
        drop(operation);
        assert!(tokio::time::timeout(SECOND, claims.operation(&service)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_being_removed_is_waited_for_over_the_moment_and_is_not_running() {
        let (claims, service, [first, second, _]) = (claims(), "a".parse().unwrap(), runs());
        let claim = claims.run(&service, &first).unwrap();
        claim.ended();
        assert_eq!(claims.running(&service), None);
        assert_eq!(claims.run(&service, &second).unwrap_err(), InTheWay::Removing);
        assert_eq!(claims.cancel(&service), None);
        let (waited, ()) =
            tokio::join!(claims.run_by(&service, &second, (Instant::now(), Instant::now() + 2 * SECOND)), async {
                tokio::time::sleep(SECOND).await;
                drop(claim);
            });
        let _second = waited.unwrap();
        let now = Instant::now();
        assert_eq!(claims.known(&service, &first, now), Known::Active, "it ended while the engine was asked");
        assert_eq!(claims.known(&service, &first, now + SECOND), Known::Ended);
        assert_eq!(claims.known(&service, &second, now + SECOND), Known::Active);
        assert_eq!(claims.known(&service, &"000000000009".parse().unwrap(), now), Known::No);
    }

    #[tokio::test]
    async fn a_cancellation_is_for_the_starts_before_it() {
        let (claims, service) = (claims(), "a".parse().unwrap());
        let before = claims.start(&service);
        claims.cancel_starts(&service);
        let after = claims.start(&service);
        assert!(before.is_cancelled() && !after.is_cancelled());
        claims.abort.cancel();
        assert!(after.is_cancelled());
    }
}
