//! One operation a service at a time, and one run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::names::{RunId, ServiceName};

#[derive(Debug, Default)]
struct Service {
    /// Held by the operation that goes on; others wait their turn.
    operation: Arc<tokio::sync::Mutex<()>>,
    /// The run that goes on or waits for its turn.
    run: Mutex<Option<RunId>>,
}

/// Who may work on which service.
#[derive(Debug, Default)]
pub(super) struct Claims {
    services: Mutex<BTreeMap<ServiceName, Arc<Service>>>,
}

/// The right to work on a service, until dropped.
#[derive(Debug)]
pub(super) struct OperationClaim {
    _turn: OwnedMutexGuard<()>,
}

/// The right to run a service, until dropped.
#[derive(Debug)]
pub(super) struct RunClaim {
    service: Arc<Service>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for RunClaim {
    fn drop(&mut self) {
        *self.service.run.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl RunClaim {
    /// Waits for this run's turn among the service's operations.
    pub(super) async fn turn(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(Arc::clone(&self.service.operation).lock_owned().await);
        }
    }
}

impl Claims {
    fn service(&self, service: &ServiceName) -> Arc<Service> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(service.clone()).or_default())
    }

    /// Claims the service's one run, or names the run that is in the way.
    pub(super) fn run(&self, service: &ServiceName, run_id: &RunId) -> Result<RunClaim, RunId> {
        let service = self.service(service);
        {
            let mut run = service.run.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(other) = run.as_ref() {
                return Err(other.clone());
            }
            *run = Some(run_id.clone());
        }
        Ok(RunClaim { service, turn: None })
    }

    /// Waits for a turn among the service's operations.
    pub(super) async fn operation(&self, service: &ServiceName) -> OperationClaim {
        let operation = Arc::clone(&self.service(service).operation);
        OperationClaim { _turn: operation.lock_owned().await }
    }

    /// The services that a run or an operation goes on for, or waits.
    pub(super) fn occupied(&self) -> Vec<ServiceName> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = |service: &Service| service.run.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let occupied = |service: &Service| runs(service) || service.operation.try_lock().is_err();
        services.iter().filter(|(_, service)| occupied(service)).map(|(name, _)| name.clone()).collect()
    }

    /// The run that goes on or waits for its turn.
    pub(super) fn running(&self, service: &ServiceName) -> Option<RunId> {
        self.service(service).run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_run_is_refused_with_the_first_until_that_ends() {
        let claims = Claims::default();
        let (service, first, second) =
            ("a".parse().unwrap(), "000000000001".parse().unwrap(), "000000000002".parse().unwrap());
        let claim = claims.run(&service, &first).unwrap();
        assert_eq!(claims.run(&service, &second).unwrap_err(), first);
        assert!(claims.run(&"b".parse().unwrap(), &second).is_ok());
        drop(claim);
        assert!(claims.run(&service, &second).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_waits_for_the_run_that_has_its_turn() {
        let claims = Claims::default();
        let service = "a".parse().unwrap();
        let mut run = claims.run(&service, &"000000000001".parse().unwrap()).unwrap();
        run.turn().await;
        let second = tokio::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(second, claims.operation(&service)).await.is_err());
        drop(run);
        assert!(tokio::time::timeout(second, claims.operation(&service)).await.is_ok());
    }
}
