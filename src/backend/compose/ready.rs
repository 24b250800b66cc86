//! Waits until dependencies are ready: the Engine's events tell when to look.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, EventMessage};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::ComposeBackend;
use super::decide::doing;
use super::turns::Waits;
use crate::backend::Failure;
use crate::compose::project::Project;
use crate::engine::{Engine, EngineError};
use crate::names::ServiceName;
use crate::plan::{self, Awaited, Readiness, Stack};
use crate::spec::labels;

/// First and longest time between two looks without an event: the Engine may have lost one, or we our connection.
const LOOK_FIRST: Duration = Duration::from_secs(1);
const LOOK_LONGEST: Duration = Duration::from_secs(15);

/// Until when dependencies are waited for, and how long that was from the beginning.
pub(super) type Patience = (Instant, Duration);

impl<E: Engine> ComposeBackend<E> {
    /// Waits until the service's dependencies are as it asks. `stack` has the names of their containers.
    pub(super) async fn await_ready(
        &self,
        project: &Project,
        name: &ServiceName,
        stack: &Stack,
        waits: &Waits,
        (deadline, limit): Patience,
    ) -> Result<(), Failure> {
        let awaited = plan::awaited(project, name);
        if awaited.is_empty() {
            return Ok(());
        }
        let labels = [format!("{}={}", labels::PROJECT, project.name)];
        let mut events: Option<BoxStream<'_, Result<EventMessage, EngineError>>> = None;
        let mut pause = LOOK_FIRST;
        let mut inspected = self.inspect(&awaited, stack).await?;
        loop {
            if inspected.values().any(Vec::is_empty) {
                let stack = self.observe(&project.name).await?;
                inspected = self.inspect(&awaited, &stack).await?;
            }
            let dependency = match plan::readiness(name, &awaited, &inspected).map_err(Failure::Plan)? {
                Readiness::Ready { warnings } => {
                    for warning in warnings {
                        warn!(warning, "dependency not as wanted");
                    }
                    return Ok(());
                }
                Readiness::NotYet { dependency } => dependency,
            };
            debug!(service = %name, %dependency, "waiting for a dependency");
            let _waiting = waits.note(name, format!("dependency {dependency} to be ready"));
            let heard = events.get_or_insert_with(|| self.engine.events(&labels).boxed());
            tokio::select! {
                () = next_of(heard.as_mut(), &awaited) => {}
                () = sleep(pause) => pause = (pause * 2).min(LOOK_LONGEST),
                () = sleep_until(deadline) => return Err(Failure::NotReady { dependency, limit }),
            }
            inspected = self.inspect(&awaited, stack).await?;
        }
    }

    /// What the Engine says of the awaited services' containers.
    async fn inspect(
        &self,
        awaited: &[Awaited<'_>],
        stack: &Stack,
    ) -> Result<BTreeMap<ServiceName, Vec<ContainerInspectResponse>>, Failure> {
        let mut inspected = BTreeMap::new();
        for dependency in awaited {
            let mut containers = Vec::new();
            for container in stack.of_service(dependency.name) {
                let found = self.engine.container(&container.name).await;
                containers.extend(found.map_err(doing(format!("inspect container {}", container.name)))?);
            }
            inspected.insert(dependency.name.clone(), containers);
        }
        Ok(inspected)
    }
}

/// Waits for an event that may change the readiness of an awaited service; for ever once the connection broke.
async fn next_of(
    mut events: Pin<&mut (impl Stream<Item = Result<EventMessage, EngineError>> + ?Sized)>,
    awaited: &[Awaited<'_>],
) {
    while let Some(Ok(event)) = events.next().await {
        // Each health check is an exec with three events; what it comes to is a fourth.
        let is_exec = event.action.as_deref().is_some_and(|action| action.starts_with("exec_"));
        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        let service = attributes.get(labels::SERVICE);
        if !is_exec && awaited.iter().any(|awaited| service.is_some_and(|service| service == awaited.name.as_str())) {
            return;
        }
    }
    std::future::pending::<()>().await;
}
