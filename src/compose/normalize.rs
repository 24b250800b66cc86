//! What Compose adds once the whole project is known: the default network, implied dependencies, engine names.

use std::collections::BTreeMap;

use super::error::{LoadError, LoadErrors};
use super::key_path::{CONTAINER_ELEMENTS, KeyPath};
use super::paths::clean;
use super::yaml::{Entry, Kind, Map, Node, Place};

/// Gives list entries of `environment` without a value the one of the interpolation environment, if any, and reads the
/// secrets and configs that are taken from it.
pub(super) fn resolve_environment(project: &mut Node, environment: &BTreeMap<String, String>) {
    let Some(project) = project.as_map_mut() else { return };
    for service in containers(project) {
        let list = service.value.as_map_mut().and_then(|map| map.get_mut("environment")).and_then(Node::as_seq_mut);
        for item in list.into_iter().flatten() {
            if let Kind::Str(text) = &mut item.kind
                && let Some(value) = environment.get(text)
            {
                *text = format!("{text}={value}");
            }
        }
    }
    // Under `content`, a config that was included and is checked once more contradicts itself: Compose refuses it.
    for (name, key) in [("secrets", ENVIRONMENT_VALUE), ("configs", "content")] {
        for resource in section(project, name) {
            let place = resource.place.clone();
            let Some(map) = resource.value.as_map_mut() else { continue };
            let value = map.get("environment").and_then(Node::as_str).and_then(|name| environment.get(name));
            if let Some(value) = value {
                let value = Node::new(place.clone(), Kind::Str(value.clone()));
                map.insert(key.to_owned(), place, value);
            }
        }
    }
}

/// Key under which a secret keeps the value that its variable had where it was declared.
pub(super) const ENVIRONMENT_VALUE: &str = "x-#value";

fn section<'a>(project: &'a mut Map, name: &str) -> impl Iterator<Item = &'a mut Entry> {
    project.get_mut(name).and_then(Node::as_map_mut).into_iter().flatten()
}

/// The services and jobs.
fn containers(project: &mut Map) -> impl Iterator<Item = &mut Entry> {
    let elements = project.iter_mut().filter(|entry| CONTAINER_ELEMENTS.contains(&entry.key.as_str()));
    elements.filter_map(|entry| entry.value.as_map_mut()).flatten()
}

/// Completes a project whose paths are resolved.
pub(super) fn normalize(
    project: &mut Node,
    name: &str,
    environment: &BTreeMap<String, String>,
    errors: &mut LoadErrors,
) {
    let root = project.place.clone();
    let Some(project) = project.as_map_mut() else { return };
    default_network(project, &root);
    for element in CONTAINER_ELEMENTS {
        let path = KeyPath::ROOT.key(element);
        for service in section(project, element) {
            let path = path.key(&service.key);
            if let Some(map) = service.value.as_map_mut() {
                self::service(map, &service.place, environment, &path, errors);
            }
        }
    }
    for name_of in ["networks", "volumes", "configs", "secrets"] {
        for resource in section(project, name_of) {
            name_resource(resource, name);
        }
    }
}

fn default_network(project: &mut Map, root: &Place) {
    let mut used = false;
    for service in containers(project) {
        let place = service.place.clone();
        let Some(map) = service.value.as_map_mut() else { continue };
        if map.contains_key("provider") || map.contains_key("network_mode") {
            continue;
        }
        match map.get("networks").and_then(Node::as_map) {
            Some(networks) if !networks.is_empty() => used |= networks.contains_key("default"),
            _ => {
                let mut networks = Map::new();
                networks.insert("default".to_owned(), place.clone(), Node::new(place.clone(), Kind::Null));
                map.insert("networks".to_owned(), place.clone(), Node::new(place, Kind::Map(networks)));
                used = true;
            }
        }
    }
    if !used {
        return;
    }
    let default = || Node::new(root.clone(), Kind::Null);
    match project.get_mut("networks").and_then(Node::as_map_mut) {
        Some(networks) if networks.contains_key("default") => {}
        Some(networks) => {
            networks.insert("default".to_owned(), root.clone(), default());
        }
        None => {
            let mut networks = Map::new();
            networks.insert("default".to_owned(), root.clone(), default());
            project.insert("networks".to_owned(), root.clone(), Node::new(root.clone(), Kind::Map(networks)));
        }
    }
}

fn service(
    service: &mut Map,
    place: &Place,
    environment: &BTreeMap<String, String>,
    path: &KeyPath<'_>,
    errors: &mut LoadErrors,
) {
    if let Some(Node { kind: Kind::Str(policy), .. }) = service.get_mut("pull_policy")
        && policy == "if_not_present"
    {
        "missing".clone_into(policy);
    }
    if let Some(build) = service.get_mut("build").and_then(Node::as_map_mut) {
        let given = |key: &str| build.get(key).is_some_and(|node| !node.is_null());
        if !given("context") {
            build.insert("context".to_owned(), place.clone(), Node::new(place.clone(), Kind::Str(".".to_owned())));
        }
        if !["dockerfile", "dockerfile_inline"].iter().any(|key| build.get(key).is_some_and(|node| !node.is_null())) {
            let dockerfile = Node::new(place.clone(), Kind::Str("Dockerfile".to_owned()));
            build.insert("dockerfile".to_owned(), place.clone(), dockerfile);
        }
        if let Some(args) = build.get_mut("args") {
            inherit(args, environment, false);
        }
    }
    if let Some(variables) = service.get_mut("environment") {
        inherit(variables, environment, true);
    }
    imply_dependencies(service, place);
    let volumes = path.key("volumes");
    for (index, volume) in service.get_mut("volumes").and_then(Node::as_seq_mut).into_iter().flatten().enumerate() {
        let place = volume.place.clone();
        if let Some(Node { kind: Kind::Str(target), .. }) = volume.as_map_mut().and_then(|map| map.get_mut("target")) {
            *target = clean(target);
        } else {
            let path = volumes.item(index);
            let message = format!("service volume {path} is missing a mount target");
            errors.push(LoadError::new(message).at(&place).of(path));
        }
    }
}

/// Looks up the keys without a value; those that have none stay only if `keep`.
fn inherit(node: &mut Node, environment: &BTreeMap<String, String>, keep: bool) {
    match &mut node.kind {
        Kind::Seq(items) => items.retain_mut(|item| {
            let Kind::Str(text) = &mut item.kind else { return false };
            if text.contains('=') {
                return true;
            }
            match environment.get(text) {
                Some(value) => {
                    *text = format!("{text}={value}");
                    true
                }
                None => keep,
            }
        }),
        Kind::Map(map) => map.retain_mut(|entry| {
            if !entry.value.is_null() {
                return true;
            }
            match environment.get(&entry.key) {
                Some(value) => {
                    entry.value.kind = Kind::Str(value.clone());
                    true
                }
                None => keep,
            }
        }),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Timestamp(_) => {}
    }
}

fn imply_dependencies(service: &mut Map, place: &Place) {
    let mut implied: Vec<(String, bool)> = Vec::new();
    let texts = |key: &str| -> Vec<String> {
        let items = service.get(key).and_then(Node::as_seq).unwrap_or_default();
        items.iter().filter_map(Node::as_str).map(str::to_owned).collect()
    };
    for link in texts("links") {
        let mut parts = link.split(':');
        let target = match (parts.next(), parts.next(), parts.next()) {
            (Some(target), Some(_), None) => target.to_owned(),
            _ => link,
        };
        implied.push((target, true));
    }
    for namespace in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let target = service.get(namespace).and_then(Node::as_str).and_then(|text| text.strip_prefix("service:"));
        implied.extend(target.map(|target| (target.to_owned(), true)));
    }
    for source in texts("volumes_from") {
        if !source.starts_with("container:") {
            implied.push((source.split(':').next().unwrap_or_default().to_owned(), false));
        }
    }
    if implied.is_empty() {
        return;
    }
    if service.get("depends_on").and_then(Node::as_map).is_none() {
        let empty = Node::new(place.clone(), Kind::Map(Map::new()));
        service.insert("depends_on".to_owned(), place.clone(), empty);
    }
    let Some(dependencies) = service.get_mut("depends_on").and_then(Node::as_map_mut) else { return };
    for (target, restart) in implied {
        if dependencies.contains_key(&target) {
            continue;
        }
        let node = |kind| Node::new(place.clone(), kind);
        let mut dependency = Map::new();
        dependency.insert("condition".to_owned(), place.clone(), node(Kind::Str("service_started".to_owned())));
        dependency.insert("restart".to_owned(), place.clone(), node(Kind::Bool(restart)));
        dependency.insert("required".to_owned(), place.clone(), node(Kind::Bool(true)));
        dependencies.insert(target, place.clone(), node(Kind::Map(dependency)));
    }
}

/// A resource without `name:` is called by its key; with the project's name in front unless it is external.
fn name_resource(resource: &mut Entry, project: &str) {
    if resource.value.is_null() {
        resource.value.kind = Kind::Map(Map::new());
    }
    let place = resource.place.clone();
    let Some(map) = resource.value.as_map_mut() else { return };
    if map.get("name").is_some_and(|name| !name.is_null()) {
        return;
    }
    let external = matches!(map.get("external"), Some(Node { kind: Kind::Bool(true), .. }));
    let name = if external { resource.key.clone() } else { format!("{project}_{}", resource.key) };
    map.insert("name".to_owned(), place.clone(), Node::new(place, Kind::Str(name)));
}
