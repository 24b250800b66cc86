//! Whether a service's dependencies are ready.

use std::collections::BTreeMap;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum as Status, HealthStatusEnum as Health};

use super::PlanError;
use crate::compose::project::{Condition, Dependency, Project};
use crate::names::ServiceName;

/// What a service waits for before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Awaited<'a> {
    /// The dependency.
    pub name: &'a ServiceName,
    /// What is asked of it.
    pub dependency: &'a Dependency,
}

/// How far the dependencies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// All are ready; optional ones that never will be are warnings.
    Ready {
        /// What Compose would warn of.
        warnings: Vec<String>,
    },
    /// Wait for an event of that service, and observe again.
    NotYet {
        /// One of the dependencies that are not ready.
        dependency: ServiceName,
    },
}

/// The dependencies that the service waits for: those with a condition that the order of starting does not fulfil.
#[must_use]
pub fn awaited<'a>(project: &'a Project, name: &ServiceName) -> Vec<Awaited<'a>> {
    let dependencies = project.services.get(name).into_iter().flat_map(|service| &service.depends_on);
    dependencies
        .filter(|(_, dependency)| dependency.condition != Condition::ServiceStarted)
        .filter(|(name, _)| {
            project
                .services
                .get(*name)
                .is_some_and(|service| super::lifecycle::replicas(service) > 0 && service.provider.is_none())
        })
        .map(|(name, dependency)| Awaited { name, dependency })
        .collect()
}

/// Judges the awaited dependencies by their containers, one-offs left out.
///
/// # Errors
///
/// A required dependency has no container, failed, or cannot become healthy.
pub fn readiness(
    name: &ServiceName,
    awaited: &[Awaited<'_>],
    containers: &BTreeMap<ServiceName, Vec<ContainerInspectResponse>>,
) -> Result<Readiness, PlanError> {
    let mut warnings = Vec::new();
    let mut not_yet = None;
    for Awaited { name: needed, dependency } in awaited {
        let containers = containers.get(*needed).map_or(&[][..], Vec::as_slice);
        let judged = if containers.is_empty() {
            Err(PlanError::MissingDependency { service: name.clone(), dependency: (*needed).clone() })
        } else {
            match dependency.condition {
                Condition::ServiceStarted => Ok(true),
                Condition::ServiceHealthy => healthy(containers),
                Condition::ServiceCompletedSuccessfully => completed(needed, containers),
            }
        };
        match judged {
            Ok(true) => {}
            Ok(false) => not_yet = not_yet.or_else(|| Some((*needed).clone())),
            Err(error) if dependency.required => return Err(error),
            Err(error) => warnings.push(match error {
                PlanError::DependencyFailed { reason } => {
                    format!("optional dependency {:?} is not running or is unhealthy: {reason}", needed.as_str())
                }
                PlanError::DependencyExited { dependency, code } => {
                    format!("optional dependency {dependency:?} didn't complete successfully: exit {code}")
                }
                other => other.to_string(),
            }),
        }
    }
    Ok(match not_yet {
        Some(dependency) => Readiness::NotYet { dependency },
        None => Readiness::Ready { warnings },
    })
}

fn healthy(containers: &[ContainerInspectResponse]) -> Result<bool, PlanError> {
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
        let failed = |what: String| Err(PlanError::DependencyFailed { reason: format!("container {name} {what}") });
        let state = container.state.as_ref();
        if state.is_some_and(|state| state.status == Some(Status::EXITED)) {
            let code = state.and_then(|state| state.exit_code).unwrap_or_default();
            return failed(format!("exited ({code})"));
        }
        match state.and_then(|state| state.health.as_ref()).and_then(|health| health.status) {
            None | Some(Health::EMPTY | Health::NONE) => return failed("has no healthcheck configured".to_owned()),
            Some(Health::UNHEALTHY) => return failed("is unhealthy".to_owned()),
            Some(Health::STARTING) => return Ok(false),
            Some(Health::HEALTHY) => {}
        }
    }
    Ok(true)
}

fn completed(name: &ServiceName, containers: &[ContainerInspectResponse]) -> Result<bool, PlanError> {
    let exited = containers
        .iter()
        .filter_map(|container| container.state.as_ref())
        .find(|state| state.status == Some(Status::EXITED));
    match exited.map(|state| state.exit_code.unwrap_or_default()) {
        None => Ok(false),
        Some(0) => Ok(true),
        Some(code) => Err(PlanError::DependencyExited { dependency: name.to_string(), code }),
    }
}
