//! One service's containers: reuse, start, recreate, scale.

use std::collections::BTreeSet;

use super::lifecycle::{create_steps, replicas, stop_steps};
use super::{Call, Cause, Container, Difference, Plan, PlanError, Stack, State};
use crate::compose::project::{Project, Service};
use crate::names::ServiceName;
use crate::request::RemoveContainer;
use crate::spec::{
    Inherited, Replacement, SpecError, SpecOptions, container_name, service_container, service_hash, temporary_name,
};

/// How a service is brought to what its file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Convergence {
    /// The services whose containers may be stopped, recreated and removed while they run. Of the others only what does
    /// not run is recreated.
    pub movable: BTreeSet<ServiceName>,
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
        stack.of_service(name).map(|container| (expected.divergence(container), container)).collect();
    // Those up to date are kept, low numbers first; after them the others as the Engine lists them, newest first.
    containers.sort_by_key(|(divergence, container)| match divergence {
        None => (false, container.number),
        Some(_) => (true, None),
    });

    let wanted = usize::try_from(replicas(service)).unwrap_or(usize::MAX);
    let mut plan = Plan::default();
    let mut dependents_stopped = false;
    for (index, (divergence, container)) in containers.iter().enumerate() {
        if container.state.is_up() && !how.movable.contains(name) {
            let differs = divergence.clone().filter(|_| index < wanted).or((index >= wanted).then_some(Cause::TooMany));
            plan.left.extend(differs.map(|cause| Difference::Service { service: name.clone(), cause }));
            continue;
        }
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
            stop_dependents(project, name, stack, &how.movable, &mut plan);
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
    fn divergence(&self, container: &Container) -> Option<Cause> {
        if container.config_hash != self.hash {
            return Some(Cause::ConfigurationChanged);
        }
        if container.image != self.image {
            return Some(Cause::ImageChanged);
        }
        self.missing_network(container).or_else(|| self.missing_volume(container))
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
fn stop_dependents(
    project: &Project,
    name: &ServiceName,
    stack: &Stack,
    movable: &BTreeSet<ServiceName>,
    plan: &mut Plan,
) {
    let cause = Cause::Recreated { dependency: name.clone() };
    for (dependent, service) in project.services.iter().filter(|(dependent, _)| movable.contains(*dependent)) {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{busybox, name, network, options, project, stack, up_to_date, volume_mount};
    use super::*;
    use crate::compose::project::{Condition, Dependency, Deploy, Hook, Mount, Volume};
    use crate::request::ApiVersion;

    fn up() -> Convergence {
        let movable = ["web", "api", "log"].map(name).into();
        Convergence { movable, inherit: true, ..Convergence::default() }
    }

    fn plan(project: &Project, stack: &Stack, how: &Convergence) -> String {
        match converge(project, &name("web"), stack, how, &options(stack)) {
            Ok(plan) => plan.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn web() -> Project {
        project([("web", busybox())])
    }

    fn scaled(scale: i64) -> Project {
        project([("web", Service { scale: Some(scale), ..busybox() })])
    }

    #[test]
    fn a_service_without_containers_gets_one() {
        insta::assert_snapshot!(plan(&web(), &stack([]), &up()), @"create container p-web-1 (no container)");
    }

    #[test]
    fn further_networks_are_connected_after_the_creation_on_an_old_engine_only() {
        let mut project = web();
        project.networks.insert("back".to_owned(), network("p_back"));
        project.services.get_mut("web").unwrap().networks.insert("back".to_owned(), None);
        insta::assert_snapshot!(plan(&project, &stack([]), &up()), @r"
        create container p-web-1 (no container)
        connect container p-web-1 to network p_default (further network)
        ");
        let newer = SpecOptions { api: ApiVersion { major: 1, minor: 44 }, ..options(&stack([])) };
        let plan = converge(&project, &name("web"), &stack([]), &up(), &newer).unwrap();
        insta::assert_snapshot!(plan, @"create container p-web-1 (no container)");
    }

    #[test]
    fn a_container_that_is_up_to_date_is_left_alone_unless_it_is_stuck() {
        let project = web();
        for (state, expected) in [
            (State::Running, "nothing to do"),
            (State::Created, "nothing to do"),
            (State::Exited, "nothing to do"),
            (State::Restarting, "nothing to do"),
            (State::Paused, "start container p-web-1 (paused)"),
            (State::Dead, "start container p-web-1 (dead)"),
            (State::Removing, "start container p-web-1 (removing)"),
        ] {
            let stack = stack([Container { state, ..up_to_date(&project, "web", 1) }]);
            assert_eq!(plan(&project, &stack, &up()), expected, "{state}");
        }
    }

    #[test]
    fn a_container_of_another_configuration_is_replaced() {
        let project = web();
        let old = Container { config_hash: "0".to_owned(), ..up_to_date(&project, "web", 1) };
        insta::assert_snapshot!(plan(&project, &stack([old]), &up()), @r"
        create container 000000000001_p-web-1 (configuration changed)
        stop container p-web-1 (replaces p-web-1)
        remove container p-web-1 (replaces p-web-1)
        rename container 000000000001_p-web-1 to p-web-1 (replaces p-web-1)
        ");
    }

    #[test]
    fn each_divergence_has_its_cause() {
        let mut project = web();
        project.networks.insert("back".to_owned(), network("p_back"));
        project.volumes.insert("data".to_owned(), Volume { name: "p_data".to_owned(), ..Volume::default() });
        let service = project.services.get_mut("web").unwrap();
        service.networks.insert("back".to_owned(), None);
        service.volumes.push(Mount {
            kind: "volume".to_owned(),
            source: "data".to_owned(),
            target: "/data".to_owned(),
            ..Mount::default()
        });
        let good = Container {
            networks: vec!["id-default".to_owned(), "id-back".to_owned()],
            mounts: vec![volume_mount("p_data", "/data")],
            ..up_to_date(&project, "web", 1)
        };
        let first_line = |container: Container| {
            let mut stack = stack([container]);
            stack.networks.insert("back".to_owned(), "id-back".to_owned());
            plan(&project, &stack, &up()).lines().next().unwrap().to_owned()
        };
        let partly = vec!["id-default".to_owned()];
        let changed = "create container 000000000001_p-web-1";
        for (container, expected) in [
            (good.clone(), "nothing to do".to_owned()),
            (Container { image: "sha256:0".to_owned(), ..good.clone() }, format!("{changed} (image changed)")),
            (
                Container { networks: partly.clone(), ..good.clone() },
                format!("{changed} (not connected to network back)"),
            ),
            (Container { networks: partly, state: State::Exited, ..good.clone() }, "nothing to do".to_owned()),
            (Container { mounts: Vec::new(), ..good.clone() }, format!("{changed} (volume data not mounted)")),
        ] {
            assert_eq!(first_line(container), expected);
        }
    }

    #[test]
    fn what_runs_is_left_as_it_is_where_it_may_not_be_moved_and_what_differs_is_told() {
        let project = scaled(1);
        let run = Convergence::default();
        let old =
            |number, state| Container { config_hash: "0".to_owned(), state, ..up_to_date(&project, "web", number) };
        for (state, expected) in [
            (State::Running, "nothing to do; left: service web, configuration changed"),
            (State::Restarting, "nothing to do; left: service web, configuration changed"),
            (State::Exited, "create container 000000000001_p-web-1 (configuration changed); left: "),
            (State::Created, "create container 000000000001_p-web-1 (configuration changed); left: "),
        ] {
            let stack = stack([old(1, state)]);
            let plan = converge(&project, &name("web"), &stack, &run, &options(&stack)).unwrap();
            let left: Vec<String> = plan.left.iter().map(ToString::to_string).collect();
            let first = plan.to_string().lines().next().unwrap().to_owned();
            assert_eq!(format!("{first}; left: {}", left.join(", ")), expected);
        }
        let surplus = stack([up_to_date(&project, "web", 2), up_to_date(&project, "web", 1)]);
        let plan = converge(&project, &name("web"), &surplus, &run, &options(&surplus)).unwrap();
        assert_eq!((plan.to_string().as_str(), plan.left.len()), ("nothing to do", 1));
    }

    #[test]
    fn a_replacement_takes_over_anonymous_volumes_unless_it_is_for_a_run() {
        let mut project = web();
        let service = project.services.get_mut("web").unwrap();
        let mount = |source: &str, target: &str| Mount {
            kind: "volume".to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            ..Mount::default()
        };
        service.volumes = vec![mount("", "/anonymous"), mount("data", "/data")];
        project.volumes.insert("data".to_owned(), Volume { name: "p_data".to_owned(), ..Volume::default() });
        let mut tmpfs = volume_mount("", "/tmpfs");
        tmpfs.typ = Some("tmpfs".to_owned());
        let mut read_only = volume_mount("v2", "/image");
        read_only.rw = Some(false);
        let old = Container {
            config_hash: "0".to_owned(),
            mounts: vec![
                volume_mount("v1", "/anonymous"),
                read_only,
                volume_mount("p_data", "/data"),
                volume_mount("v3", "/gone"),
                tmpfs,
            ],
            ..up_to_date(&project, "web", 1)
        };
        let stack = stack([old]);
        let mounts = |inherit| {
            let how = Convergence { inherit, image_volumes: vec!["/image".to_owned()], ..up() };
            let plan = converge(&project, &name("web"), &stack, &how, &options(&stack)).unwrap();
            let Call::CreateContainer(container) = &plan.steps[0].call else { panic!("{plan}") };
            let host = container.body.body.host_config.clone().unwrap();
            let mounts: Vec<String> = host
                .mounts
                .unwrap()
                .into_iter()
                .map(|mount| {
                    let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
                    format!("{}:{}:{access}", mount.source.unwrap_or_default(), mount.target.unwrap())
                })
                .collect();
            (mounts.join(" "), host.binds.unwrap().join(" "))
        };
        assert_eq!(mounts(true), ("v1:/anonymous:rw v2:/image:ro".to_owned(), "p_data:/data:rw".to_owned()));
        assert_eq!(mounts(false), (":/anonymous:rw".to_owned(), "p_data:/data:rw".to_owned()));
    }

    #[test]
    fn what_was_no_anonymous_volume_before_is_bound_and_a_tmpfs_gives_way_to_the_old_volume() {
        let mut project = web();
        let mount =
            |kind: &str, target: &str| Mount { kind: kind.to_owned(), target: target.to_owned(), ..Mount::default() };
        project.services.get_mut("web").unwrap().volumes =
            vec![mount("volume", "/bind"), mount("volume", "/named"), mount("tmpfs", "/anonymous")];
        project.volumes.insert("data".to_owned(), Volume { name: "p_data".to_owned(), ..Volume::default() });
        let mut bind = volume_mount("", "/bind");
        (bind.typ, bind.source) = (Some("bind".to_owned()), Some("/host".to_owned()));
        let old = Container {
            config_hash: "0".to_owned(),
            mounts: vec![bind, volume_mount("p_data", "/named"), volume_mount("v1", "/anonymous")],
            ..up_to_date(&project, "web", 1)
        };
        let stack = stack([old]);
        let plan = converge(&project, &name("web"), &stack, &up(), &options(&stack)).unwrap();
        let Call::CreateContainer(container) = &plan.steps[0].call else { panic!("{plan}") };
        let host = container.body.body.host_config.clone().unwrap();
        assert_eq!(host.binds.unwrap(), ["/host:/bind:rw", "p_data:/named:rw"]);
        let mounts = host.mounts.unwrap();
        let mounts: Vec<_> = mounts.iter().map(|mount| (mount.source.as_deref(), mount.target.as_deref())).collect();
        assert_eq!(mounts, [(Some("v1"), Some("/anonymous"))]);
    }

    #[test]
    fn dependents_that_ask_for_it_are_stopped_before_a_recreation() {
        let on_web = |restart| {
            let dependency = Dependency { condition: Condition::ServiceStarted, restart, required: true };
            Service { depends_on: [(name("web"), dependency)].into(), ..busybox() }
        };
        let mut api = on_web(true);
        api.pre_stop = vec![Hook { command: Some(vec!["sync".to_owned()]), ..Hook::default() }];
        let project = project([("web", busybox()), ("api", api), ("log", on_web(false))]);
        let old = Container { config_hash: "0".to_owned(), ..up_to_date(&project, "web", 1) };
        let stack = stack([old, up_to_date(&project, "api", 1), up_to_date(&project, "log", 1)]);
        insta::assert_snapshot!(plan(&project, &stack, &up()), @r#"
        run "sync" in container p-api-1 (hook)
        stop container p-api-1 (web is recreated)
        create container 000000000001_p-web-1 (configuration changed)
        stop container p-web-1 (replaces p-web-1)
        remove container p-web-1 (replaces p-web-1)
        rename container 000000000001_p-web-1 to p-web-1 (replaces p-web-1)
        "#);
    }

    #[test]
    fn missing_replicas_are_numbered_after_the_highest() {
        let project = scaled(3);
        let two_and_three = stack([up_to_date(&project, "web", 3), up_to_date(&project, "web", 2)]);
        insta::assert_snapshot!(plan(&project, &two_and_three, &up()), @"create container p-web-4 (no container)");
        insta::assert_snapshot!(plan(&project, &stack([]), &up()), @r"
        create container p-web-1 (no container)
        create container p-web-2 (no container)
        create container p-web-3 (no container)
        ");
    }

    #[test]
    fn of_replicas_that_all_diverged_the_newest_are_kept() {
        let project = scaled(1);
        let old = |number| Container { config_hash: "0".to_owned(), ..up_to_date(&project, "web", number) };
        // The Engine lists the newest first.
        insta::assert_snapshot!(plan(&project, &stack([old(3), old(2), old(1)]), &up()), @r"
        create container 000000000003_p-web-3 (configuration changed)
        stop container p-web-3 (replaces p-web-3)
        remove container p-web-3 (replaces p-web-3)
        rename container 000000000003_p-web-3 to p-web-3 (replaces p-web-3)
        stop container p-web-2 (more than the replicas wanted)
        remove container p-web-2 by force (more than the replicas wanted)
        stop container p-web-1 (more than the replicas wanted)
        remove container p-web-1 by force (more than the replicas wanted)
        ");
    }

    #[test]
    fn replicas_too_many_are_removed_diverged_and_high_numbers_first() {
        let project = scaled(1);
        let old = Container { config_hash: "0".to_owned(), ..up_to_date(&project, "web", 1) };
        let stack = stack([old, up_to_date(&project, "web", 3), up_to_date(&project, "web", 2)]);
        insta::assert_snapshot!(plan(&project, &stack, &up()), @r"
        stop container p-web-3 (more than the replicas wanted)
        remove container p-web-3 by force (more than the replicas wanted)
        stop container p-web-1 (more than the replicas wanted)
        remove container p-web-1 by force (more than the replicas wanted)
        ");
    }

    #[test]
    fn scale_is_stronger_than_replicas_and_zero_removes_all() {
        let mut project = project([("web", busybox())]);
        let service = project.services.get_mut("web").unwrap();
        service.deploy = Some(Deploy { replicas: Some(0), ..Deploy::default() });
        assert_eq!(plan(&project, &stack([]), &up()), "nothing to do");
        project.services.get_mut("web").unwrap().scale = Some(1);
        assert_eq!(plan(&project, &stack([]), &up()), "create container p-web-1 (no container)");
        project.services.get_mut("web").unwrap().scale = Some(0);
        let stack = stack([up_to_date(&project, "web", 1)]);
        insta::assert_snapshot!(plan(&project, &stack, &up()), @r"
        stop container p-web-1 (more than the replicas wanted)
        remove container p-web-1 by force (more than the replicas wanted)
        ");
    }

    #[test]
    fn one_offs_are_none_of_the_service_s_containers() {
        let project = web();
        let one_off = Container { one_off: true, number: None, ..up_to_date(&project, "web", 1) };
        assert_eq!(plan(&project, &stack([one_off]), &up()), "create container p-web-1 (no container)");
    }

    #[test]
    fn a_dependant_that_shares_a_namespace_is_recreated_with_its_dependency() {
        let shares = Service { network_mode: "service:db".to_owned(), ..busybox() };
        let project = project([("db", busybox()), ("web", shares)]);
        let db = up_to_date(&project, "db", 1);
        let with_db = stack([db.clone()]);
        let hash = service_hash(&project, &name("web"), &options(&with_db)).unwrap();
        let web = Container { config_hash: hash, id: "b".repeat(64), ..up_to_date(&project, "web", 1) };
        assert_eq!(plan(&project, &stack([db.clone(), web.clone()]), &up()), "nothing to do");
        let new_db = Container { id: "c".repeat(64), ..db };
        assert!(
            plan(&project, &stack([new_db, web]), &up())
                .starts_with("create container bbbbbbbbbbbb_p-web-1 (configuration changed)")
        );
        let error = converge(&project, &name("web"), &stack([]), &up(), &options(&stack([]))).unwrap_err();
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "cannot share network namespace with service db: container missing"
        );
    }
}
