//! Labels by which Compose knows its objects, and the values that go into them.

use std::collections::{BTreeMap, HashMap};

use crate::compose::project::{Project, Service};

/// Name of the project.
pub const PROJECT: &str = "com.docker.compose.project";
/// Key of the service.
pub const SERVICE: &str = "com.docker.compose.service";
/// Key of the network.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of the volume.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Version of Compose that made the object.
pub const VERSION: &str = "com.docker.compose.version";
/// Hash of the configuration that made the object.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Number of the container among its service's, from 1.
pub const CONTAINER_NUMBER: &str = "com.docker.compose.container-number";
/// `True` on containers of `run`, `False` on others.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Random name of a one-off.
pub const SLUG: &str = "com.docker.compose.slug";
/// Id of the image that the container was made from.
pub const IMAGE: &str = "com.docker.compose.image";
/// `service:condition:restart`, joined by commas.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Name or service and number of the container that this one replaced.
pub const REPLACE: &str = "com.docker.compose.replace";
/// Absolute project directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Absolute paths of the Compose files, joined by commas.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// Absolute paths of explicitly given env files, joined by commas.
pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";

/// What makes one container of a service different from the others.
pub(super) struct Identity<'a> {
    pub(super) config_hash: String,
    pub(super) image_id: Option<&'a str>,
    /// Absent on one-offs since 2.30.
    pub(super) number: Option<u32>,
    /// Present on one-offs.
    pub(super) slug: Option<&'a str>,
    pub(super) replaces: Option<String>,
    pub(super) version: String,
}

/// The service's own labels under those of Compose.
pub(super) fn container_labels(
    project: &Project,
    name: &str,
    service: &Service,
    identity: Identity<'_>,
) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = service.labels.clone().into_iter().collect();
    let mut set = |key: &str, value: String| labels.insert(key.to_owned(), value);
    set(PROJECT, project.name.to_string());
    set(SERVICE, name.to_owned());
    set(VERSION, identity.version);
    set(CONFIG_HASH, identity.config_hash);
    set(ONE_OFF, if identity.slug.is_some() { "True" } else { "False" }.to_owned());
    set(DEPENDS_ON, depends_on(service));
    set(WORKING_DIR, project.working_dir.clone());
    set(CONFIG_FILES, project.config_files.join(","));
    if !project.env_files.is_empty() {
        set(ENVIRONMENT_FILE, project.env_files.join(","));
    }
    if let Some(number) = identity.number {
        set(CONTAINER_NUMBER, number.to_string());
    }
    if let Some(slug) = identity.slug {
        set(SLUG, slug.to_owned());
    }
    if let Some(image) = identity.image_id {
        set(IMAGE, image.to_owned());
    }
    if let Some(replaced) = identity.replaces {
        set(REPLACE, replaced);
    }
    labels
}

/// A network's or volume's own labels under those of Compose.
pub(super) fn resource_labels(
    project: &Project,
    own: &BTreeMap<String, String>,
    kind: &str,
    key: &str,
    version: String,
    config_hash: Option<String>,
) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = own.clone().into_iter().collect();
    labels.insert(kind.to_owned(), key.to_owned());
    labels.insert(PROJECT.to_owned(), project.name.to_string());
    labels.insert(VERSION.to_owned(), version);
    labels.extend(config_hash.map(|hash| (CONFIG_HASH.to_owned(), hash)));
    labels
}

/// Compose joins these in random order; the order of names is one of them.
fn depends_on(service: &Service) -> String {
    let entries: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, dependency)| format!("{name}:{}:{}", dependency.condition.as_str(), dependency.restart))
        .collect();
    entries.join(",")
}
