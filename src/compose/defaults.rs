//! Fills in what the canonical form leaves open, and checks what can be checked before paths are resolved.

use std::net::IpAddr;

use super::canonical::set_default;
use super::error::{LoadError, LoadErrors};
use super::key_path::{CONTAINER_ELEMENTS, KeyPath};
use super::yaml::{Entry, Kind, Map, Node};

/// Sets the defaults of the canonical form.
pub(super) fn set_defaults(project: &mut Node) {
    for_services(project, |service| {
        if let Some(node) = service.get_mut("build") {
            let place = node.place.clone();
            if let Some(build) = node.as_map_mut() {
                set_default(build, &place, "context", Kind::Str(".".to_owned()));
            }
        }
        items(service, "secrets", |secret, place| {
            if let Some(source) = secret.get("source").and_then(Node::as_str) {
                let target = format!("/run/secrets/{source}");
                set_default(secret, place, "target", Kind::Str(target));
            }
        });
        items(service, "ports", |port, place| {
            set_default(port, place, "protocol", Kind::Str("tcp".to_owned()));
            set_default(port, place, "mode", Kind::Str("ingress".to_owned()));
        });
        items(service, "gpus", device_request);
        let reservations = ["deploy", "resources", "reservations"]
            .iter()
            .try_fold(service, |map, key| map.get_mut(key).and_then(Node::as_map_mut));
        if let Some(reservations) = reservations {
            items(reservations, "devices", device_request);
        }
    });
}

fn device_request(request: &mut Map, place: &super::yaml::Place) {
    if !request.contains_key("count") && !request.contains_key("device_ids") {
        set_default(request, place, "count", Kind::Str("all".to_owned()));
    }
}

fn for_services(project: &mut Node, mut change: impl FnMut(&mut Map)) {
    let Some(project) = project.as_map_mut() else { return };
    for element in CONTAINER_ELEMENTS {
        for service in project.get_mut(element).and_then(Node::as_map_mut).into_iter().flatten() {
            if let Some(map) = service.value.as_map_mut() {
                change(map);
            }
        }
    }
}

fn items(map: &mut Map, key: &str, mut change: impl FnMut(&mut Map, &super::yaml::Place)) {
    for item in map.get_mut(key).and_then(Node::as_seq_mut).into_iter().flatten() {
        let place = item.place.clone();
        if let Some(map) = item.as_map_mut() {
            change(map, &place);
        }
    }
}

/// Reports what contradicts itself, such as a secret with two sources.
pub(super) fn check(project: &Node, errors: &mut LoadErrors) {
    let Some(project) = project.as_map() else { return };
    for Entry { key, value, .. } in project {
        let path = KeyPath::ROOT.key(key);
        for resource in value.as_map().into_iter().flatten() {
            let path = path.key(&resource.key);
            let Some(map) = resource.value.as_map() else {
                if matches!(key.as_str(), "secrets" | "configs") {
                    file_object(resource, &Map::new(), sources(key), &path, errors);
                }
                continue;
            };
            match key.as_str() {
                "services" | "jobs" => service(map, &path, errors),
                "volumes" => external_volume(resource, map, &path, errors),
                "secrets" | "configs" => file_object(resource, map, sources(key), &path, errors),
                _ => {}
            }
        }
    }
}

fn sources(section: &str) -> &'static [&'static str] {
    if section == "configs" { &["file", "environment", "content"] } else { &["file", "environment"] }
}

fn service(service: &Map, service_path: &KeyPath<'_>, errors: &mut LoadErrors) {
    let ports = service_path.key("ports");
    for (index, port) in list(service.get("ports")) {
        let address = port.as_map().and_then(|map| map.get("host_ip"));
        if let Some(address @ Node { kind: Kind::Str(text), .. }) = address
            && !is_address(text)
        {
            let path = ports.item(index);
            errors.push(LoadError::new(format!("{path}: invalid ip address: {text}")).at(&address.place).of(path));
        }
    }
    let path = service_path.key("develop.watch");
    let watches = service.get("develop").and_then(Node::as_map).and_then(|map| map.get("watch"));
    for (index, watch) in list(watches) {
        if watch.as_map().and_then(|map| map.get("path")).and_then(Node::as_str) == Some("") {
            let path = path.item(index);
            let path = path.key("path");
            errors.push(LoadError::new(format!("{path}: value can't be blank")).at(&watch.place).of(path));
        }
    }
    let gpus = service_path.key("gpus");
    device_requests(service.get("gpus"), &gpus, errors);
    let reserved = ["deploy", "resources", "reservations"]
        .iter()
        .try_fold(service, |map, key| map.get(key).and_then(Node::as_map))
        .and_then(|map| map.get("devices"));
    let devices = service_path.key("deploy.resources.reservations.devices");
    device_requests(reserved, &devices, errors);
}

fn is_address(text: &str) -> bool {
    // Go accepts an IPv4 address embedded in IPv6, but no zone; both as Rust does.
    text.parse::<IpAddr>().is_ok()
}

fn list(node: Option<&Node>) -> impl Iterator<Item = (usize, &Node)> {
    node.and_then(Node::as_seq).into_iter().flatten().enumerate()
}

fn device_requests(requests: Option<&Node>, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    for (index, request) in list(requests) {
        let Some(map) = request.as_map() else { continue };
        if map.contains_key("count") && map.contains_key("device_ids") {
            let path = path.item(index);
            let message = format!("{path}: \"count\" and \"device_ids\" attributes are exclusive");
            errors.push(LoadError::new(message).at(&request.place).of(path));
        }
    }
}

fn external_volume(entry: &Entry, volume: &Map, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    if !matches!(volume.get("external"), Some(Node { kind: Kind::Bool(true), .. })) {
        return;
    }
    for Entry { key, place, .. } in volume {
        if !matches!(key.as_str(), "name" | "external") && !key.starts_with("x-") {
            let message = format!("{path}: conflicting parameters \"external\" and {key:?} specified");
            errors.push(LoadError::new(message).at(if volume.is_empty() { &entry.place } else { place }).of(path));
        }
    }
}

fn file_object(entry: &Entry, object: &Map, sources: &[&str], path: &KeyPath<'_>, errors: &mut LoadErrors) {
    let given = sources.iter().filter(|source| object.contains_key(source)).count();
    let message = match given {
        0 if object.contains_key("driver") || object.contains_key("external") => return,
        0 => format!("{path}: one of {} must be set", sources.join("|")),
        1 => return,
        _ => format!("{path}: {} attributes are mutually exclusive", sources.join("|")),
    };
    errors.push(LoadError::new(message).at(&entry.place).of(path));
}
