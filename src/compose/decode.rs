//! Turns a normalised project into its typed form.

mod go;
mod parts;
mod reader;
mod service;

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::Value;

pub(super) use self::reader::{EXTENSIONS, Reader};
use super::error::{LoadError, LoadErrors};
use super::key_path::{CONTAINER_ELEMENTS, KeyPath};
use super::normalize::ENVIRONMENT_VALUE;
use super::project::{FileObject, Ipam, IpamPool, Network, Service, Volume};
use super::yaml::{Entry, Map, Node};
use crate::names::ServiceName;

/// The typed parts of a project.
#[derive(Debug, Clone, Default)]
pub(super) struct Decoded {
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) secrets: BTreeMap<String, FileObject>,
    pub(super) configs: BTreeMap<String, FileObject>,
    pub(super) models: BTreeMap<String, Value>,
    pub(super) extensions: BTreeMap<String, Value>,
}

/// Reads a normalised project.
pub(super) fn decode(project: &Node, errors: &mut LoadErrors) -> Decoded {
    let mut decoded = Decoded::default();
    let Some(map) = project.as_map() else { return decoded };
    let sink = RefCell::new(std::mem::take(errors));
    let reader = Reader { map, path: &KeyPath::ROOT, errors: &sink };
    for element in CONTAINER_ELEMENTS {
        reader.with(element, |services| {
            for Entry { key, place, value } in services.map {
                let name = match key.parse::<ServiceName>() {
                    Ok(name) => name,
                    Err(error) => {
                        let error = LoadError::new(format!("{element}.{key}: {error}")).at(place);
                        sink.borrow_mut().push(error.of(format_args!("{element}.{key}")));
                        continue;
                    }
                };
                let path = services.path.key(key);
                if decoded.services.contains_key(&name) {
                    let message = format!("{path} has the name of a service");
                    sink.borrow_mut().push(LoadError::new(message).at(place).of(path));
                    continue;
                }
                let empty = Map::new();
                let map = value.as_map().unwrap_or(&empty);
                let service = service::service(&Reader { map, path: &path, errors: &sink });
                decoded.services.insert(name, service);
            }
        });
    }
    decoded.networks = named(&reader, "networks", network);
    decoded.volumes = named(&reader, "volumes", volume);
    decoded.secrets = named(&reader, "secrets", file_object);
    decoded.configs = named(&reader, "configs", file_object);
    decoded.models = named(&reader, "models", |model| model.json());
    decoded.extensions = reader.extensions();
    decoded.extensions.values_mut().for_each(empty_lists_to_null);
    *errors = sink.into_inner();
    decoded
}

/// Compose loses the empty lists of extensions.
fn empty_lists_to_null(value: &mut Value) {
    match value {
        Value::Array(items) if items.is_empty() => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(empty_lists_to_null),
        Value::Object(map) => map.values_mut().for_each(empty_lists_to_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn named<T: Default>(reader: &Reader<'_>, section: &str, read: impl FnMut(Reader<'_>) -> T) -> BTreeMap<String, T> {
    let values = reader.each_named(section, read);
    values.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
}

fn network(reader: Reader<'_>) -> Network {
    Network {
        name: reader.string("name"),
        driver: reader.string("driver"),
        driver_opts: reader.string_map("driver_opts"),
        ipam: reader.with("ipam", ipam).unwrap_or_default(),
        external: reader.boolean("external").unwrap_or_default(),
        internal: reader.boolean("internal").unwrap_or_default(),
        attachable: reader.boolean("attachable").unwrap_or_default(),
        labels: reader.string_map("labels"),
        enable_ipv4: reader.boolean("enable_ipv4"),
        enable_ipv6: reader.boolean("enable_ipv6"),
    }
}

fn ipam(reader: Reader<'_>) -> Ipam {
    Ipam {
        driver: reader.string("driver"),
        config: reader.each("config", |pool| IpamPool {
            subnet: pool.string("subnet"),
            gateway: pool.string("gateway"),
            ip_range: pool.string("ip_range"),
            aux_addresses: pool.string_map("aux_addresses"),
        }),
    }
}

fn volume(reader: Reader<'_>) -> Volume {
    Volume {
        name: reader.string("name"),
        driver: reader.string("driver"),
        driver_opts: reader.string_map("driver_opts"),
        external: reader.boolean("external").unwrap_or_default(),
        labels: reader.string_map("labels"),
    }
}

fn file_object(reader: Reader<'_>) -> FileObject {
    let (environment, content) = (reader.string("environment"), reader.get("content").and_then(Node::as_str));
    let (content, value) = if environment.is_empty() { (content, None) } else { (None, content) };
    let value = reader.get(ENVIRONMENT_VALUE).and_then(Node::as_str).or(value);
    FileObject {
        name: reader.string("name"),
        file: reader.string("file"),
        environment,
        environment_value: value.map(str::to_owned),
        content: content.unwrap_or_default().to_owned(),
        external: reader.boolean("external").unwrap_or_default(),
        labels: reader.string_map("labels"),
        driver: reader.string("driver"),
        driver_opts: reader.string_map("driver_opts"),
        template_driver: reader.string("template_driver"),
    }
}
