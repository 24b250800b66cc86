//! One service's containers: reuse, start, recreate, scale.

use super::lifecycle::{create_steps, replicas, stop_steps};
use super::{Call, Cause, Container, Plan, PlanError, Stack, State};
use crate::compose::project::{Project, Service};
use crate::engine::RemoveContainer;
use crate::names::ServiceName;
use crate::spec::{
    Inherited, Replacement, SpecError, SpecOptions, container_name, service_container, service_hash, temporary_name,
};

/// When a container is recreated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recreate {
    /// When it is not what the configuration says.
    #[default]
    Diverged,
    /// Always.
    Force,
    /// Not even then.
    Never,
}

/// How a service is brought to what its file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Convergence {
    /// When containers are recreated.
    pub recreate: Recreate,
    /// A recreated container takes over anonymous volumes: true for `up`, false for the dependencies of a run.
    pub inherit: bool,
    /// Paths that the service's image declares as `VOLUME`.
    pub image_volumes: Vec<String>,
}

/// The steps that leave the service with as many containers as it wants, each up to date. Starting is another plan.
///
/// # Errors
///
/// The service cannot be run as its file says, or refers to a service without containers.
pub fn converge(
    project: &Project,
    name: &ServiceName,
    stack: &Stack,
    how: &Convergence,
    options: &SpecOptions,
) -> Result<Plan, PlanError> {
    let wrap = |source| PlanError::Spec { service: name.clone(), source };
    let service = project.services.get(name).ok_or_else(|| wrap(SpecError::NoSuchService(name.clone())))?;
    let expected = Expected {
        project,
        service,
        hash: service_hash(project, name, options).map_err(wrap)?,
        image: options.image_id.as_deref().unwrap_or_default(),
        stack,
    };
    let mut containers: Vec<(Option<Cause>, &Container)> =
        stack.of_service(name).map(|container| (expected.divergence(container, how.recreate), container)).collect();
    // Those up to date and of low number are kept.
    containers.sort_by_key(|(divergence, container)| (divergence.is_some(), container.number));

    let wanted = usize::try_from(replicas(service)).unwrap_or(usize::MAX);
    let mut plan = Plan::default();
    let mut dependents_stopped = false;
    for (index, (divergence, container)) in containers.iter().enumerate() {
        let Some(cause) = divergence.as_ref().filter(|_| index < wanted) else {
            if index >= wanted {
                stop_steps(project, name, container, &Cause::TooMany, &mut plan);
                let options = RemoveContainer { force: true, volumes: false };
                plan.push(Call::RemoveContainer { container: container.name.clone(), options }, Cause::TooMany);
            } else if matches!(container.state, State::Paused | State::Dead | State::Removing) {
                let call = Call::StartContainer { container: container.name.clone() };
                plan.push(call, Cause::NotRunning { state: container.state });
            }
            continue;
        };
        if options.dialect.stops_dependents_before_recreate() && !dependents_stopped {
            dependents_stopped = true;
            stop_dependents(project, name, stack, &mut plan);
        }
        recreate(project, name, service, container, cause, how, options, &mut plan).map_err(wrap)?;
    }

    let next = containers.iter().filter_map(|(_, container)| container.number).max().unwrap_or(0);
    let missing = u32::try_from(wanted.saturating_sub(containers.len())).unwrap_or(0);
    for number in (1..=missing).map(|more| next.saturating_add(more)) {
        let container = service_container(project, name, number, None, options).map_err(wrap)?;
        create_steps(container, Cause::NoContainer, &mut plan);
    }
    Ok(plan)
}

/// What a container has to be to stay.
struct Expected<'a> {
    project: &'a Project,
    service: &'a Service,
    hash: String,
    image: &'a str,
    stack: &'a Stack,
}

impl Expected<'_> {
    /// Why the container is to be recreated, if it is.
    fn divergence(&self, container: &Container, policy: Recreate) -> Option<Cause> {
        match policy {
            Recreate::Never => None,
            Recreate::Force => Some(Cause::Forced),
            Recreate::Diverged if container.config_hash != self.hash => Some(Cause::ConfigurationChanged),
            Recreate::Diverged if container.image != self.image => Some(Cause::ImageChanged),
            Recreate::Diverged => self.missing_network(container).or_else(|| self.missing_volume(container)),
        }
    }

    fn missing_network(&self, container: &Container) -> Option<Cause> {
        if container.state != State::Running {
            return None;
        }
        let connected = |key: &String| self.stack.networks.get(key).is_none_or(|id| container.networks.contains(id));
        let network = self.service.networks.keys().find(|key| !connected(key))?;
        Some(Cause::NetworkMissing { network: network.clone() })
    }

    fn missing_volume(&self, container: &Container) -> Option<Cause> {
        let mounted = |name: &str| {
            container
                .mounts
                .iter()
                .any(|mount| mount.typ.as_deref() == Some("volume") && mount.name.as_deref() == Some(name))
        };
        let mut named = self.service.volumes.iter().filter(|volume| volume.kind == "volume").filter_map(|volume| {
            Some((volume.source.as_str(), self.project.volumes.get(&volume.source)?.name.as_str()))
        });
        let (key, _) = named.find(|(_, name)| !mounted(name))?;
        Some(Cause::VolumeMissing { volume: key.to_owned() })
    }
}

/// Stops the containers of services that depend on this one with `restart: true`; they are started again later.
fn stop_dependents(project: &Project, name: &ServiceName, stack: &Stack, plan: &mut Plan) {
    let cause = Cause::Recreated { dependency: name.clone() };
    for (dependent, service) in &project.services {
        if service.depends_on.get(name).is_some_and(|dependency| dependency.restart) {
            for container in stack.of_service(dependent).filter(|container| container.state == State::Running) {
                stop_steps(project, dependent, container, &cause, plan);
            }
        }
    }
}

/// The new container is created beside the old one, under a temporary name, so that a failure leaves the old one.
#[expect(clippy::too_many_arguments, reason = "the one caller's locals")]
fn recreate(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    old: &Container,
    cause: &Cause,
    how: &Convergence,
    options: &SpecOptions,
    plan: &mut Plan,
) -> Result<(), SpecError> {
    let number = old.number.unwrap_or(1);
    let inherited =
        how.inherit.then(|| Inherited { mounts: old.mounts.clone(), image_volumes: how.image_volumes.clone() });
    let replacement = Replacement { id: old.id.clone(), inherited };
    let container = service_container(project, name, number, Some(&replacement), options)?;
    let final_name = container_name(project, name, service, number);
    create_steps(container, cause.clone(), plan);
    let replaces = || Cause::Replaces { container: old.name.clone() };
    stop_old(service, old, &replaces(), plan);
    let remove = Call::RemoveContainer { container: old.name.clone(), options: RemoveContainer::default() };
    plan.push(remove, replaces());
    let temporary = temporary_name(&old.id, &final_name);
    plan.push(Call::RenameContainer { container: temporary, name: final_name }, replaces());
    Ok(())
}

/// Without hooks, as Compose does where it recreates.
fn stop_old(service: &Service, old: &Container, cause: &Cause, plan: &mut Plan) {
    let grace = super::lifecycle::grace(Some(service));
    plan.push(Call::StopContainer { container: old.name.clone(), grace }, cause.clone());
}
