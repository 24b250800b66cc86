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

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, Health as HealthState};

    use super::super::testing::{busybox, name, project};
    use super::*;
    use crate::compose::project::{Condition::*, Service};

    fn container(status: Status, exit_code: i64, health: Option<Health>) -> ContainerInspectResponse {
        ContainerInspectResponse {
            name: Some("/p-db-1".to_owned()),
            state: Some(ContainerState {
                status: Some(status),
                exit_code: Some(exit_code),
                health: health.map(|status| HealthState { status: Some(status), ..HealthState::default() }),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    fn judge(condition: Condition, required: bool, containers: Vec<ContainerInspectResponse>) -> String {
        let dependency = Dependency { condition, restart: false, required };
        let web = Service { depends_on: [(name("db"), dependency)].into(), ..busybox() };
        let project = project([("web", web), ("db", busybox())]);
        let containers = [(name("db"), containers)].into();
        match readiness(&name("web"), &awaited(&project, &name("web")), &containers) {
            Ok(Readiness::Ready { warnings }) if warnings.is_empty() => "ready".to_owned(),
            Ok(Readiness::Ready { warnings }) => format!("ready, warning: {}", warnings.join(", ")),
            Ok(Readiness::NotYet { dependency }) => format!("waits for {dependency}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_condition_is_done_waits_or_fails_in_compose_s_words() {
        let running = |health| container(Status::RUNNING, 0, health);
        let exited = |code| container(Status::EXITED, code, None);
        for (condition, containers, expected) in [
            (ServiceStarted, vec![], "ready"),
            (ServiceHealthy, vec![], "web is missing dependency db"),
            (ServiceHealthy, vec![running(Some(Health::HEALTHY))], "ready"),
            (ServiceHealthy, vec![running(Some(Health::HEALTHY)), running(Some(Health::STARTING))], "waits for db"),
            (
                ServiceHealthy,
                vec![running(Some(Health::UNHEALTHY))],
                "dependency failed to start: container p-db-1 is unhealthy",
            ),
            (
                ServiceHealthy,
                vec![running(None)],
                "dependency failed to start: container p-db-1 has no healthcheck configured",
            ),
            (ServiceHealthy, vec![exited(5)], "dependency failed to start: container p-db-1 exited (5)"),
            (ServiceCompletedSuccessfully, vec![running(None)], "waits for db"),
            (ServiceCompletedSuccessfully, vec![exited(0)], "ready"),
            (ServiceCompletedSuccessfully, vec![running(None), exited(0)], "ready"),
            (ServiceCompletedSuccessfully, vec![exited(5)], "service \"db\" didn't complete successfully: exit 5"),
        ] {
            assert_eq!(judge(condition, true, containers), expected, "{condition:?}");
        }
    }

    #[test]
    fn an_optional_dependency_turns_each_failure_into_a_warning() {
        for (condition, containers, expected) in [
            (ServiceHealthy, vec![], "ready, warning: web is missing dependency db"),
            (
                ServiceHealthy,
                vec![container(Status::EXITED, 5, None)],
                "ready, warning: optional dependency \"db\" is not running or is unhealthy: container p-db-1 exited (5)",
            ),
            (
                ServiceCompletedSuccessfully,
                vec![container(Status::EXITED, 5, None)],
                "ready, warning: optional dependency \"db\" didn't complete successfully: exit 5",
            ),
        ] {
            assert_eq!(judge(condition, false, containers), expected);
        }
    }

    #[test]
    fn nothing_is_awaited_of_a_dependency_without_replicas() {
        let dependency = Dependency { condition: ServiceHealthy, restart: false, required: true };
        let web = Service { depends_on: [(name("db"), dependency)].into(), ..busybox() };
        let project = project([("web", web), ("db", Service { scale: Some(0), ..busybox() })]);
        assert!(awaited(&project, &name("web")).is_empty());
    }
}
