//! Service references, image names and volumes: what a service's words stand for on the Engine.

use std::collections::BTreeMap;

use bollard::models::{ContainerSummary, VolumeCreateRequest};

use super::{Dialect, SpecError, hash, labels};
use crate::compose::project::{BindOptions, FileReference, Mount, Project, Service};
use crate::names::ServiceName;

/// Path of the Engine's socket, in the container and on the host, for `use_api_socket`.
const API_SOCKET: &str = "/var/run/docker.sock";
const API_SOCKET_CONFIG_DIR: &str = "/run/secrets/docker";
/// Key of the config that `use_api_socket` adds; no file can use it.
pub(super) const API_SOCKET_CONFIG: &str = "#apisocket";

/// The platform that a service's image is pulled and its container created for; none where the Engine decides.
///
/// What the service says, else `DOCKER_DEFAULT_PLATFORM` of the project's environment.
#[must_use]
pub fn platform<'a>(project: &'a Project, service: &'a Service) -> Option<&'a str> {
    let default = || project.environment.get("DOCKER_DEFAULT_PLATFORM").map(String::as_str);
    Some(service.platform.as_str())
        .filter(|own| !own.is_empty())
        .or_else(default)
        .filter(|platform| !platform.is_empty())
}

/// An existing container of the project, as far as others refer to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Container name, without the Engine's leading slash.
    pub name: String,
    /// Full id.
    pub id: String,
}

/// A listed container's own name, without the Engine's leading slash: on the default network it also has those that
/// others link it by, `/other/alias`.
#[must_use]
pub fn own_name(container: &ContainerSummary) -> Option<&str> {
    let names = || container.names.iter().flatten().map(|name| name.trim_start_matches('/'));
    names().find(|name| !name.contains('/')).or_else(|| names().next())
}

/// The project's existing containers by service, one-offs left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers(BTreeMap<String, Vec<Peer>>);

impl Peers {
    /// Adds a container of a service.
    pub fn add(&mut self, service: &str, peer: Peer) {
        let peers = self.0.entry(service.to_owned()).or_default();
        peers.push(peer);
        peers.sort();
    }

    /// Containers of a service, by name.
    pub(super) fn of_service(&self, service: &str) -> &[Peer] {
        self.0.get(service).map_or(&[], Vec::as_slice)
    }

    fn first_id(&self, service: &str, what: &'static str) -> Result<&str, SpecError> {
        self.of_service(service)
            .first()
            .map(|peer| peer.id.as_str())
            .ok_or_else(|| SpecError::PeerMissing { what, service: service.to_owned() })
    }
}

/// The image that a service's containers are made from: as written, or the name that a build gives it.
#[must_use]
pub fn image_name(project: &Project, name: &ServiceName, service: &Service) -> String {
    if service.image.is_empty() { format!("{}-{name}", project.name) } else { service.image.clone() }
}

/// The body that creates a named volume; none for an external one.
///
/// # Errors
///
/// None that a loaded project can cause.
pub fn volume_body(project: &Project, key: &str, dialect: Dialect) -> Result<Option<VolumeCreateRequest>, SpecError> {
    let Some(volume) = project.volumes.get(key).filter(|volume| !volume.external) else { return Ok(None) };
    let hash = if dialect.labels_volume_hash() { Some(hash::volume(volume)?) } else { None };
    let labels = labels::resource_labels(project, &volume.labels, labels::VOLUME, key, dialect.to_string(), hash);
    Ok(Some(VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: super::text(&volume.driver),
        driver_opts: super::map(&volume.driver_opts),
        labels: Some(labels),
        ..VolumeCreateRequest::default()
    }))
}

/// Replaces `service:x` by the id of x's first container; the result is what is hashed.
pub(super) fn references(service: &mut Service, peers: &Peers) -> Result<(), SpecError> {
    for source in &mut service.volumes_from {
        let mut words = source.split(':');
        let first = words.next().unwrap_or_default();
        // Compose drops the access mode of either form.
        *source = match words.next() {
            Some(container) if first == "container" => container.to_owned(),
            _ => peers.first_id(first, "volume")?.to_owned(),
        };
    }
    for (mode, what) in [
        (&mut service.network_mode, "network namespace"),
        (&mut service.ipc, "IPC namespace"),
        (&mut service.pid, "PID namespace"),
    ] {
        if let Some(peer) = mode.strip_prefix("service:") {
            *mode = format!("container:{}", peers.first_id(peer, what)?);
        }
    }
    Ok(())
}

/// What `use_api_socket` adds to the service; the config's content comes from the client.
pub(super) fn api_socket(service: &mut Service) {
    if !service.use_api_socket {
        return;
    }
    service.volumes.push(Mount {
        kind: "bind".to_owned(),
        source: API_SOCKET.to_owned(),
        target: API_SOCKET.to_owned(),
        bind: None::<BindOptions>,
        ..Mount::default()
    });
    let own = || Some(API_SOCKET_CONFIG_DIR.to_owned());
    service.environment.entry("DOCKER_CONFIG".to_owned()).or_insert_with(own);
    service.configs.push(FileReference {
        source: API_SOCKET_CONFIG.to_owned(),
        target: format!("{API_SOCKET_CONFIG_DIR}/config.json"),
        ..FileReference::default()
    });
}
