//! Config hashes: how Compose sees that an object was made from another configuration.

use sha2::{Digest, Sha256};

use super::json::{self, Tree};
use super::{Dialect, SpecError};
use crate::compose::project::{Network, Service, Volume};

/// Order of a network's fields in compose-go 2.4.8.
const NETWORK_FIELDS_2_4: [&str; 8] = [
    "priority",
    "gw_priority",
    "aliases",
    "ipv4_address",
    "ipv6_address",
    "link_local_ips",
    "mac_address",
    "driver_opts",
];

/// The hash of a service whose references are resolved; `docker compose` compares it with the container's label.
///
/// # Errors
///
/// [`SpecError::Hash`]: a number of the service is not finite.
pub fn service(service: &Service, dialect: Dialect) -> Result<String, SpecError> {
    hash(&service_json(service, dialect)?)
}

/// The hash of a network.
///
/// # Errors
///
/// None that a loaded project can cause.
pub fn network(network: &Network) -> Result<String, SpecError> {
    hash(&write(network)?)
}

/// The hash of a volume.
///
/// # Errors
///
/// None that a loaded project can cause.
pub fn volume(volume: &Volume) -> Result<String, SpecError> {
    let mut volume = volume.clone();
    if volume.driver.is_empty() {
        "local".clone_into(&mut volume.driver);
    }
    hash(&write(&volume)?)
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hash(text: &str) -> Result<String, SpecError> {
    Ok(hex(&Sha256::digest(text)))
}

fn write<T: serde::Serialize>(value: &T) -> Result<String, SpecError> {
    json::to_string(value).map_err(|error| SpecError::Hash(error.to_string()))
}

fn service_json(service: &Service, dialect: Dialect) -> Result<String, SpecError> {
    let mut service = service.clone();
    service.build = None;
    service.pull_policy.clear();
    service.scale = None;
    if let Some(deploy) = &mut service.deploy {
        deploy.replicas = None;
    }
    if !dialect.hashes_depends_on() {
        service.depends_on.clear();
    }
    if !dialect.hashes_profiles() {
        service.profiles.clear();
    }
    let text = write(&service)?;
    if !dialect.hashes_as_compose_go_2_4() && !dialect.hashes_create_host_path_inverted() {
        return Ok(text);
    }
    let mut tree: Tree = serde_json::from_str(&text).map_err(|error| SpecError::Hash(error.to_string()))?;
    if dialect.hashes_as_compose_go_2_4() {
        order_networks(&mut tree);
        number_modes(&mut tree);
    }
    if dialect.hashes_create_host_path_inverted() {
        invert_create_host_path(&mut tree);
    }
    write(&tree)
}

fn order_networks(service: &mut Tree) {
    let Some(networks) = service.get_mut("networks").and_then(Tree::entries_mut) else { return };
    for fields in networks.iter_mut().filter_map(|(_, network)| network.entries_mut()) {
        fields.sort_by_key(|(name, _)| NETWORK_FIELDS_2_4.iter().position(|field| field == name));
    }
}

fn number_modes(service: &mut Tree) {
    for key in ["secrets", "configs"] {
        let Some(files) = service.get_mut(key) else { continue };
        for mode in files.items_mut().filter_map(|file| file.get_mut("mode")) {
            if let Tree::Text(octal) = mode
                && let Ok(number) = i64::from_str_radix(octal, 8)
            {
                *mode = Tree::Integer(number);
            }
        }
    }
}

fn invert_create_host_path(service: &mut Tree) {
    let Some(volumes) = service.get_mut("volumes") else { return };
    for bind in volumes.items_mut().filter_map(|volume| volume.get_mut("bind")).filter_map(Tree::entries_mut) {
        let before = bind.len();
        bind.retain(|(name, _)| name != "create_host_path");
        if bind.len() == before {
            let at = bind.iter().position(|(name, _)| name == "recursive").unwrap_or(before);
            bind.insert(at, ("create_host_path".to_owned(), Tree::Bool(false)));
        }
    }
}
