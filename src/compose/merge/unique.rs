//! Drops earlier entries of a list that a later one replaces: the first keeps its position, the last its value.

use std::collections::HashMap;

use super::super::error::{LoadError, LoadErrors};
use super::super::key_path::KeyPath;
use super::super::short;
use super::super::value::scalar_text;
use super::super::yaml::{Kind, Node};

/// What makes two entries of a list the same.
#[derive(Clone, Copy)]
enum Identity {
    /// Text before the first `=`.
    Key,
    /// Where a volume is mounted.
    VolumeTarget,
    /// What a device is called in the container.
    DeviceTarget,
    /// Address, published port, target and protocol.
    Port,
    /// The text.
    Text,
    /// The path of an env file.
    Path,
    /// Where a secret or config is mounted, below this folder by default.
    File(&'static str),
}

fn identity(path: &KeyPath<'_>) -> Option<Identity> {
    Some(match path.keys().as_slice() {
        ["networks", _, "labels"]
        | ["services", _, "build", "args" | "additional_contexts" | "platform" | "tags" | "labels"]
        | ["services", _, "deploy", "labels"]
        | ["services", _, "networks", _, "aliases" | "link_local_ips"]
        | [
            "services",
            _,
            "annotations" | "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search" | "environment" | "labels"
            | "links" | "profiles" | "sysctls" | "tmpfs",
        ] => Identity::Key,
        ["services", _, "volumes"] => Identity::VolumeTarget,
        ["services", _, "devices"] => Identity::DeviceTarget,
        ["services", _, "ports"] => Identity::Port,
        ["services", _, "expose"] => Identity::Text,
        ["services", _, "env_file"] => Identity::Path,
        ["services", _, "configs"] => Identity::File(""),
        ["services", _, "secrets"] => Identity::File("/run/secrets"),
        _ => return None,
    })
}

/// Makes the lists of a project that have an identity rule unique by it.
pub(in super::super) fn enforce_unicity(node: &mut Node, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    match &mut node.kind {
        Kind::Map(map) => {
            for entry in map.iter_mut() {
                enforce_unicity(&mut entry.value, &path.key(&entry.key), errors);
            }
        }
        Kind::Seq(items) => {
            let Some(identity) = identity(path) else { return };
            let mut positions: HashMap<String, usize> = HashMap::new();
            let mut kept: Vec<Node> = Vec::with_capacity(items.len());
            for (index, item) in std::mem::take(items).into_iter().enumerate() {
                let key = match key(identity, &item, &path.item(index)) {
                    Ok(key) => key,
                    Err(message) => {
                        errors.push(LoadError::new(message).at(&item.place).of(path.item(index)));
                        continue;
                    }
                };
                if let Some(earlier) = positions.get(&key).and_then(|&at| kept.get_mut(at)) {
                    *earlier = item;
                } else {
                    positions.insert(key, kept.len());
                    kept.push(item);
                }
            }
            *items = kept;
        }
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Timestamp(_) => {}
    }
}

fn key(identity: Identity, item: &Node, path: &KeyPath<'_>) -> Result<String, String> {
    let get = |key: &str| item.as_map().and_then(|map| map.get(key));
    let text_of = |key: &str| get(key).and_then(|node| scalar_text(&node.kind));
    // To Compose a number and its text are not the same port.
    let typed = |node: &Node| {
        let text = scalar_text(&node.kind).unwrap_or_default();
        if node.as_str().is_some() { format!("{text:?}") } else { text }
    };
    let unexpected = || format!("{path}: unexpected type, must be a string");
    match (identity, &item.kind) {
        (Identity::Key, Kind::Str(text)) => Ok(text.split_once('=').map_or(text.as_str(), |(key, _)| key).to_owned()),
        (Identity::VolumeTarget, Kind::Str(text)) => {
            let mount = short::volume(text, &item.place).map_err(|message| format!("{path}: {message}"))?;
            Ok(mount.as_map().and_then(|map| map.get("target")).and_then(Node::as_str).unwrap_or_default().to_owned())
        }
        (Identity::VolumeTarget, Kind::Map(_)) => {
            text_of("target").ok_or_else(|| format!("service volume {path} is missing a mount target"))
        }
        (Identity::DeviceTarget, Kind::Str(text)) => Ok(text.split(':').nth(1).unwrap_or(text).to_owned()),
        (Identity::DeviceTarget, Kind::Map(_)) => {
            text_of("target").ok_or_else(|| format!("service device {path} is missing a mount target"))
        }
        (Identity::Port | Identity::Text | Identity::Path, Kind::Str(text)) => Ok(text.clone()),
        (Identity::Port, Kind::Map(_)) => {
            let target = get("target").ok_or_else(|| format!("service ports {path} is missing a target port"))?;
            let published = get("published").map_or_else(String::new, typed);
            let host = text_of("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = text_of("protocol").unwrap_or_else(|| "tcp".to_owned());
            let target = typed(target);
            Ok(format!("{host}:{published}:{target}/{protocol}"))
        }
        (Identity::Port | Identity::Text, Kind::Int(number)) => Ok(number.to_string()),
        (Identity::Path, Kind::Map(_)) => {
            text_of("path").ok_or_else(|| format!("environment path attribute {path} is missing"))
        }
        (Identity::File(folder), Kind::Str(text)) => Ok(format!("{folder}/{text}")),
        (Identity::File(folder), Kind::Map(_)) => {
            Ok(text_of("target").unwrap_or_else(|| format!("{folder}/{}", text_of("source").unwrap_or_default())))
        }
        // Compose gives these one common key; what is wrong with them the schema says.
        (Identity::Port | Identity::VolumeTarget | Identity::DeviceTarget, _) => Ok(String::new()),
        _ => Err(unexpected()),
    }
}
