//! Networks and volumes: create, use or make anew.

use std::collections::BTreeSet;

use super::{Call, Cause, Container, Difference, NetworkSeen, Plan, PlanError, Stack, VolumeSeen};
use crate::compose::project::{Project, Volume};
use crate::names::ServiceName;
use crate::spec::{SpecOptions, hash, labels, network_body, volume_body};

/// The id of the project's network among those seen, if it exists.
///
/// # Errors
///
/// As [`ensure_network`].
pub fn network_id(project: &Project, key: &str, seen: &[NetworkSeen]) -> Result<Option<String>, PlanError> {
    Ok(find(project, key, seen)?.map(|found| found.network.id.clone()))
}

/// Makes sure that the network of that key exists as configured.
///
/// `seen` is what the Engine has under the network's name or id, and where that is nothing, the networks whose names
/// contain it. One of another configuration is made anew, unless a container runs on it that is not of the `movable`
/// services. The containers of those have to be stopped before: they are those of `attached`.
///
/// # Errors
///
/// Someone else's network has the name, or an external one is missing.
pub fn ensure_network(
    project: &Project,
    key: &str,
    seen: &[NetworkSeen],
    stack: &Stack,
    movable: &BTreeSet<ServiceName>,
    options: &SpecOptions,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let Some(network) = project.networks.get(key) else { return Ok(plan) };
    let wrap = |source| PlanError::Resource { kind: "network", key: key.to_owned(), source };
    let Some(body) = network_body(project, key, options.api, options.dialect).map_err(wrap)? else {
        return match find(project, key, seen)? {
            Some(_) => Ok(plan),
            None => Err(PlanError::NoExternalNetwork { name: network.name.clone() }),
        };
    };
    let create = Call::CreateNetwork(Box::new(body));
    let Some(found) = find(project, key, seen)? else {
        plan.push(create, Cause::NoNetwork);
        return Ok(plan);
    };
    plan.warnings.extend(found.warning);
    let changed = match &found.network.config_hash {
        Some(hash) if found.exact => *hash != hash::network(network).map_err(wrap)?,
        Some(_) | None => false,
    };
    if !changed {
        return Ok(plan);
    }

    let cause = || Cause::NetworkChanged { network: network.name.clone() };
    if is_used_by_others(found.network, stack, movable) {
        plan.left.push(Difference::Network { network: network.name.clone() });
        return Ok(plan);
    }
    let containers = || attached(project, key, stack);
    for container in containers().filter(|container| container.networks.contains(&found.network.id)) {
        let (network, container) = (network.name.clone(), container.name.clone());
        plan.push(Call::DisconnectNetwork { network, container }, cause());
    }
    plan.push(Call::RemoveNetwork { network: network.name.clone() }, cause());
    plan.push(create, cause());
    for container in containers() {
        // With an empty endpoint, as Compose does: the aliases are gone until the container is recreated.
        let call = Call::ConnectNetwork {
            network: network.name.clone(),
            container: container.name.clone(),
            endpoint: Box::default(),
        };
        plan.push(call, cause());
    }
    Ok(plan)
}

/// The containers of the services that are on a network by the project, one-offs left out.
pub(super) fn attached<'a>(
    project: &'a Project,
    key: &'a str,
    stack: &'a Stack,
) -> impl Iterator<Item = &'a Container> {
    let on = move |name: &str| {
        project.services.iter().any(|(of, service)| of.as_str() == name && service.networks.contains_key(key))
    };
    stack.containers.iter().filter(move |container| !container.one_off && on(&container.service))
}

/// Whether a container runs on the network that may not be stopped.
fn is_used_by_others(network: &NetworkSeen, stack: &Stack, movable: &BTreeSet<ServiceName>) -> bool {
    let may_stop = |container: &Container| {
        !container.one_off && movable.iter().any(|service| service.as_str() == container.service)
    };
    let mut on_it = stack.containers.iter().filter(|container| container.networks.contains(&network.id));
    let is_known = |id: &String| stack.containers.iter().any(|container| container.id == *id && may_stop(container));
    on_it.any(|container| container.state.is_up() && !may_stop(container)) || !network.users.iter().all(is_known)
}

/// Removes the project's networks of that key but the oldest: other clients keep the same one.
pub fn surplus_networks(project: &Project, key: &str, seen: &[NetworkSeen]) -> Plan {
    let mut plan = Plan::default();
    let Some(wanted) = project.networks.get(key).filter(|wanted| !wanted.external) else { return plan };
    let own = |network: &&NetworkSeen| {
        network.name == wanted.name
            && network.project.as_deref() == Some(project.name.as_str())
            && network.key.as_deref() == Some(key)
    };
    let mut own: Vec<&NetworkSeen> = seen.iter().filter(own).collect();
    own.sort_by_key(|network| (&network.created, &network.id));
    for network in own.into_iter().skip(1) {
        plan.push(Call::RemoveNetwork { network: network.id.clone() }, Cause::NetworkTwice);
    }
    plan
}

struct Found<'a> {
    network: &'a NetworkSeen,
    /// The only network of that name, so that its labels have to be right.
    exact: bool,
    warning: Option<String>,
}

fn find<'a>(project: &Project, key: &str, seen: &'a [NetworkSeen]) -> Result<Option<Found<'a>>, PlanError> {
    let Some(wanted) = project.networks.get(key) else { return Ok(None) };
    let name = &wanted.name;
    let named: Vec<&NetworkSeen> = seen.iter().filter(|network| network.name == *name).collect();
    let found = match named.as_slice() {
        [] => match seen.iter().find(|network| network.id == *name) {
            Some(network) => network,
            None => return Ok(None),
        },
        [network] => network,
        [_, _, ..] if wanted.external => return Err(PlanError::AmbiguousNetwork { name: name.clone() }),
        [first, ..] => {
            let own = |network: &&&NetworkSeen| {
                network.project.as_deref() == Some(project.name.as_str()) && network.key.as_deref() == Some(key)
            };
            let own = named.iter().find(own);
            let warning = own.is_none().then(|| not_ours(name));
            return Ok(Some(Found { network: own.unwrap_or(first), exact: false, warning }));
        }
    };
    if wanted.external {
        return Ok(Some(Found { network: found, exact: false, warning: None }));
    }
    if found.key.as_deref() != Some(key) {
        return Err(PlanError::ForeignNetwork {
            name: name.clone(),
            found: found.key.clone().unwrap_or_default(),
            key: key.to_owned(),
        });
    }
    let warning = match found.project.as_deref() {
        None => Some(not_ours(name)),
        Some(owner) if owner != project.name.as_str() => Some(format!(
            "a network with name {name} exists but was not created for project {:?}. Set `external: true` to use an existing network",
            project.name.as_str()
        )),
        Some(_) => None,
    };
    Ok(Some(Found { network: found, exact: true, warning }))
}

fn not_ours(name: &str) -> String {
    format!(
        "a network with name {name} exists but was not created by compose. Set `external: true` to use an existing network"
    )
}

/// Makes sure that the volume of that key exists. One of another configuration is kept, with a warning: its data counts.
///
/// # Errors
///
/// An external volume is missing.
pub fn ensure_volume(
    project: &Project,
    key: &str,
    seen: Option<&VolumeSeen>,
    options: &SpecOptions,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let Some(Volume { name, external, .. }) = project.volumes.get(key) else { return Ok(plan) };
    let wrap = |source| PlanError::Resource { kind: "volume", key: key.to_owned(), source };
    let body = volume_body(project, key, options.dialect).map_err(wrap)?;
    let (body, seen) = match (body, seen) {
        (None, None) => return Err(PlanError::NoExternalVolume { name: name.clone() }),
        (None, Some(_)) => return Ok(plan),
        (Some(body), None) => {
            plan.push(Call::CreateVolume(Box::new(body)), Cause::NoVolume);
            return Ok(plan);
        }
        (Some(body), Some(seen)) => (body, seen),
    };
    debug_assert!(!external, "an external volume has no body");
    match seen.project.as_deref() {
        None => plan.warnings.push(format!(
            "volume {name:?} already exists but was not created by Docker Compose. Use `external: true` to use an existing volume"
        )),
        Some(owner) if owner != project.name.as_str() => plan.warnings.push(format!(
            "volume {name:?} already exists but was created for project {owner:?} (expected {:?}). Use `external: true` to use an existing volume",
            project.name.as_str()
        )),
        Some(_) => {}
    }
    let wanted = body.labels.as_ref().and_then(|labels| labels.get(labels::CONFIG_HASH));
    if seen.config_hash.is_some() && wanted.is_some() && seen.config_hash.as_ref() != wanted {
        plan.warnings.push(format!(
            "volume {name:?} exists but doesn't match configuration in compose file; it is kept, because recreating it would lose its data"
        ));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::testing::{busybox, dependent, name, options, project, stack, up_to_date};
    use super::*;
    use crate::compose::project::Condition::ServiceStarted;

    const OTHER_HASH: &str = "0";

    fn ours(hash: Option<&str>) -> NetworkSeen {
        NetworkSeen {
            id: "id-default".to_owned(),
            name: "p_default".to_owned(),
            project: Some("p".to_owned()),
            key: Some("default".to_owned()),
            config_hash: hash.map(str::to_owned),
            created: None,
            users: Vec::new(),
        }
    }

    fn network_plan(project: &Project, seen: &[NetworkSeen], stack: &Stack) -> String {
        let movable = ["web", "db"].map(name).into();
        match ensure_network(project, "default", seen, stack, &movable, &options(stack)) {
            Ok(plan) => plan.warnings.iter().fold(plan.to_string(), |text, warning| text + "\nwarning: " + warning),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_network_is_created_or_used_by_its_labels() {
        let project = project([("web", busybox())]);
        let right = hash::network(&project.networks["default"]).unwrap();
        let other_project = NetworkSeen { project: Some("q".to_owned()), ..ours(None) };
        let unlabelled = NetworkSeen { project: None, key: None, ..ours(None) };
        let longer = NetworkSeen { name: "p_default2".to_owned(), ..ours(None) };
        let table = [
            (vec![], "create network p_default (no network)"),
            (vec![longer], "create network p_default (no network)"),
            (vec![ours(Some(&right))], "nothing to do"),
            (vec![ours(None)], "nothing to do"),
            (
                vec![other_project.clone()],
                "nothing to do\nwarning: a network with name p_default exists but was not created for project \"p\". Set `external: true` to use an existing network",
            ),
            (
                vec![unlabelled.clone()],
                "network p_default was found but has incorrect label com.docker.compose.network set to \"\" (expected: \"default\")",
            ),
            (vec![unlabelled.clone(), ours(None)], "nothing to do"),
            (
                vec![unlabelled, other_project],
                "nothing to do\nwarning: a network with name p_default exists but was not created by compose. Set `external: true` to use an existing network",
            ),
        ];
        for (seen, expected) in table {
            assert_eq!(network_plan(&project, &seen, &stack([])), expected, "{seen:?}");
        }
    }

    #[test]
    fn a_network_of_another_configuration_is_made_anew_under_its_containers() {
        let project = project([("web", dependent([("db", ServiceStarted)])), ("db", busybox())]);
        let one_off = Container { one_off: true, state: State::Exited, ..up_to_date(&project, "web", 7) };
        let stack = stack([up_to_date(&project, "db", 1), up_to_date(&project, "web", 1), one_off]);
        insta::assert_snapshot!(network_plan(&project, &[ours(Some(OTHER_HASH))], &stack), @r"
        disconnect container p-db-1 from network p_default (configuration of network p_default changed)
        disconnect container p-web-1 from network p_default (configuration of network p_default changed)
        remove network p_default (configuration of network p_default changed)
        create network p_default (configuration of network p_default changed)
        connect container p-db-1 to network p_default (configuration of network p_default changed)
        connect container p-web-1 to network p_default (configuration of network p_default changed)
        ");
    }

    #[test]
    fn a_network_of_another_configuration_is_left_while_another_container_runs_on_it() {
        let project = project([("web", busybox()), ("db", busybox())]);
        let seen = ours(Some(OTHER_HASH));
        let left = |seen: &NetworkSeen, stack: &Stack, movable: &[&str]| {
            let movable = movable.iter().map(|service| name(service)).collect();
            let plan =
                ensure_network(&project, "default", std::slice::from_ref(seen), stack, &movable, &options(stack));
            plan.unwrap().left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let differs = "network p_default, configuration changed";
        let web = up_to_date(&project, "web", 1);
        assert_eq!(left(&seen, &stack([web.clone()]), &[]), differs);
        assert_eq!(left(&seen, &stack([web.clone()]), &["db"]), differs);
        assert_eq!(left(&seen, &stack([web.clone()]), &["web"]), "");
        assert_eq!(left(&seen, &stack([Container { state: State::Exited, ..web.clone() }]), &[]), "");
        assert_eq!(left(&seen, &stack([Container { one_off: true, ..web }]), &["web"]), differs, "a run");
        let foreign = NetworkSeen { users: vec!["somebody".to_owned()], ..seen };
        assert_eq!(left(&foreign, &stack([]), &["web", "db"]), differs, "a container of another project");
    }

    #[test]
    fn of_networks_that_were_made_at_the_same_time_the_oldest_stays() {
        let project = project([("web", busybox())]);
        let made = |id: &str, created: &str| NetworkSeen {
            id: id.to_owned(),
            created: Some(created.to_owned()),
            ..ours(None)
        };
        let (first, second) = (made("b", "2026-01-02T03:04:05.1Z"), made("a", "2026-01-02T03:04:05.2Z"));
        let foreign = NetworkSeen { project: None, ..made("c", "2026-01-02T03:04:05.3Z") };
        let plan = |seen: &[NetworkSeen]| surplus_networks(&project, "default", seen).to_string();
        assert_eq!(plan(&[second.clone(), foreign.clone(), first.clone()]), "remove network a (made twice)");
        assert_eq!(plan(&[first, foreign]), "nothing to do");
    }

    #[test]
    fn an_external_network_has_to_exist_once_by_name_or_by_id() {
        let mut project = project([("web", busybox())]);
        let network = project.networks.get_mut("default").unwrap();
        network.external = true;
        let foreign = NetworkSeen { project: None, key: None, ..ours(None) };
        assert_eq!(network_plan(&project, std::slice::from_ref(&foreign), &stack([])), "nothing to do");
        assert_eq!(
            network_plan(&project, &[], &stack([])),
            "network p_default declared as external, but could not be found"
        );
        assert_eq!(
            network_plan(&project, &[foreign.clone(), foreign.clone()], &stack([])),
            "multiple networks with name \"p_default\" were found. Use network ID as `name` to avoid ambiguity"
        );
        project.networks.get_mut("default").unwrap().name = "id-default".to_owned();
        assert_eq!(network_plan(&project, &[foreign], &stack([])), "nothing to do");
    }

    #[test]
    fn a_volume_is_created_or_kept_whatever_its_configuration() {
        let mut project = project([("web", busybox())]);
        let volume = Volume { name: "p_data".to_owned(), ..Volume::default() };
        let right = hash::volume(&volume).unwrap();
        project.volumes.insert("data".to_owned(), volume);
        let seen = |owner: Option<&str>, hash: Option<&str>| {
            Some(VolumeSeen { project: owner.map(str::to_owned), config_hash: hash.map(str::to_owned) })
        };
        let plan = |project: &Project, seen: Option<VolumeSeen>| match ensure_volume(
            project,
            "data",
            seen.as_ref(),
            &options(&stack([])),
        ) {
            Ok(plan) => format!("{plan}, {} warnings", plan.warnings.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(plan(&project, None), "create volume p_data (no volume), 0 warnings");
        assert_eq!(plan(&project, seen(Some("p"), Some(&right))), "nothing to do, 0 warnings");
        assert_eq!(plan(&project, seen(Some("p"), Some("other"))), "nothing to do, 1 warnings");
        assert_eq!(plan(&project, seen(Some("q"), Some(&right))), "nothing to do, 1 warnings");
        assert_eq!(plan(&project, seen(None, None)), "nothing to do, 1 warnings");
        project.volumes.get_mut("data").unwrap().external = true;
        assert_eq!(plan(&project, None), "external volume \"p_data\" not found");
        assert_eq!(plan(&project, seen(None, None)), "nothing to do, 0 warnings");
    }
}
