//! Who may work on which service: one run of it at a time, and its operations in their order.
//!
//! Runs and operations do not exclude each other: a run is a container of its own, beside those of the service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::names::{RunId, ServiceName};

#[derive(Debug)]
struct Service {
    /// Held by the run that goes on. Those that wait get it in the order in which they came.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The run that goes on.
    run: Mutex<Option<RunId>>,
    /// Held by the operation that goes on. Those that wait get it in the order in which they came.
    operation: Arc<tokio::sync::Mutex<()>>,
    /// Cancels the starts that were asked for since the last cancellation.
    starts: Mutex<CancellationToken>,
}

/// Who may work on which service.
#[derive(Debug)]
pub(super) struct Claims {
    services: Mutex<BTreeMap<ServiceName, Arc<Service>>>,
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
    _turn: OwnedMutexGuard<()>,
}

impl Drop for RunClaim {
    fn drop(&mut self) {
        *lock(&self.service.run) = None;
    }
}

impl Claims {
    /// No claims. `abort` cancels every start.
    pub(super) fn new(abort: CancellationToken) -> Self {
        Self { services: Mutex::default(), abort }
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

    /// Claims the service's one run, or names the run that is in the way.
    pub(super) fn run(&self, service: &ServiceName, run_id: &RunId) -> Result<RunClaim, Option<RunId>> {
        let service = self.service(service);
        match Arc::clone(&service.turn).try_lock_owned() {
            Ok(turn) => Ok(RunClaim::new(service, turn, run_id)),
            Err(_) => Err(lock(&service.run).clone()),
        }
    }

    /// The same, but waits for the run that is in the way, and for those that waited before, until a moment.
    pub(super) async fn run_by(
        &self,
        service: &ServiceName,
        run_id: &RunId,
        moment: Instant,
    ) -> Result<RunClaim, Option<RunId>> {
        if let Ok(claim) = self.run(service, run_id) {
            return Ok(claim);
        }
        let service = self.service(service);
        match timeout_at(moment, Arc::clone(&service.turn).lock_owned()).await {
            Ok(turn) => Ok(RunClaim::new(service, turn, run_id)),
            Err(_) => Err(lock(&service.run).clone()),
        }
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

    /// The services that a run or an operation goes on for.
    pub(super) fn occupied(&self) -> Vec<ServiceName> {
        let services = lock(&self.services);
        let occupied = |service: &Service| service.turn.try_lock().is_err() || service.operation.try_lock().is_err();
        services.iter().filter(|(_, service)| occupied(service)).map(|(name, _)| name.clone()).collect()
    }

    /// The run that goes on.
    pub(super) fn running(&self, service: &ServiceName) -> Option<RunId> {
        lock(&self.service(service).run).clone()
    }
}

impl RunClaim {
    fn new(service: Arc<Service>, turn: OwnedMutexGuard<()>, run_id: &RunId) -> Self {
        *lock(&service.run) = Some(run_id.clone());
        Self { service, _turn: turn }
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
        assert_eq!(claims.run(&service, &second).unwrap_err(), Some(first));
        assert!(claims.run(&"b".parse().unwrap(), &second).is_ok());
        drop(claim);
        assert_eq!(claims.running(&service), None);
        assert!(claims.run(&service, &second).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_waits_is_before_those_that_come_later_and_gives_up_at_its_moment() {
        let (claims, service, [first, second, third]) = (claims(), "a".parse().unwrap(), runs());
        let claim = claims.run(&service, &first).unwrap();
        let early = claims.run_by(&service, &second, Instant::now() + SECOND).await;
        assert_eq!(early.unwrap_err(), Some(first));
        let waits = claims.run_by(&service, &second, Instant::now() + SECOND);
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
