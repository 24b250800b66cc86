//! Project and service to Engine create bodies.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerCreateBody, EndpointSettings, MountPoint, NetworkCreateRequest};
use serde::Serialize;

use crate::compose::project::{Project, Service};
use crate::names::ServiceName;
use crate::request::ApiVersion;

mod container;
pub mod dialect;
pub mod files;
pub mod hash;
mod host;
mod json;
pub mod labels;
mod mounts;
mod network;
pub mod render;
mod resolve;
pub mod slug;

pub use container::{
    OneOff, Replacement, container_name, hook_commands, one_off, one_off_name, service_container, service_hash,
    temporary_name,
};
pub use dialect::Dialect;
pub use network::network_body;
pub use resolve::{Peer, Peers, image_name, own_name, platform, volume_body};
pub use slug::{Birth, Slug};

/// A container to create, with the networks to join afterwards where the API version asks for that.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CreateContainer {
    /// Container name.
    pub name: String,
    /// `os/arch[/variant]` for the query, when the service or the environment names one.
    pub platform: Option<String>,
    /// The request's body.
    pub body: ContainerBody,
    /// Networks to connect between create and start, in order. Empty from API 1.44 on.
    pub connect: Vec<ConnectNetwork>,
}

/// The create body with the one field that the client library's type lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ContainerBody {
    /// All other fields.
    #[serde(flatten)]
    pub body: ContainerCreateBody,
    /// `MacAddress` of the container, for API versions before 1.44.
    #[serde(rename = "MacAddress", skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
}

/// A network to connect a created container to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectNetwork {
    /// Engine name of the network.
    pub network: String,
    /// How the container joins it.
    pub endpoint: EndpointSettings,
}

/// The network create body with the one field that the client library's type lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NetworkBody {
    /// All other fields.
    #[serde(flatten)]
    pub body: NetworkCreateRequest,
    /// Refuse a second network of the same name; needed before API 1.44.
    #[serde(rename = "CheckDuplicate", skip_serializing_if = "Option::is_none")]
    pub check_duplicate: Option<bool>,
}

/// What a create body depends on besides the project.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecOptions {
    /// Newest API version that the Engine speaks: what Compose gates features on.
    pub api: ApiVersion,
    /// The Compose version to write as.
    pub dialect: Dialect,
    /// Id of the service's local image (`sha256:…`), if there is one.
    pub image_id: Option<String>,
    /// Existing containers that `service:x` references and links are resolved to.
    pub peers: Peers,
    /// Variables that the client's `config.json` (`proxies`) gives every container.
    pub proxies: BTreeMap<String, String>,
    /// Contents of the files that [`files::referenced_files`] names, by the path that it gives.
    pub client_files: BTreeMap<String, String>,
    /// The client's registry credentials as a `config.json`, for `use_api_socket`.
    pub registry_config: Option<String>,
}

impl SpecOptions {
    /// Options for an Engine's API version and a dialect, with nothing observed yet.
    #[must_use]
    pub fn new(api: ApiVersion, dialect: Dialect) -> Self {
        Self {
            api,
            dialect,
            image_id: None,
            peers: Peers::default(),
            proxies: BTreeMap::new(),
            client_files: BTreeMap::new(),
            registry_config: None,
        }
    }

    /// Whether all endpoints belong into the create body.
    fn all_endpoints_at_create(&self) -> bool {
        self.api >= ApiVersion { major: 1, minor: 44 }
    }

    fn at_least(&self, minor: u16) -> bool {
        self.api >= ApiVersion { major: 1, minor }
    }
}

/// What a recreated container takes over from the one that it replaces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inherited {
    /// Mounts of the old container.
    pub mounts: Vec<MountPoint>,
    /// Paths that the service's image declares as `VOLUME`.
    pub image_volumes: Vec<String>,
}

/// Why a service cannot be run as its Compose file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the names in the message")]
pub enum SpecError {
    /// The selection lacks the service.
    #[error("no such service: {0}")]
    NoSuchService(ServiceName),
    /// A key that no daemon without Compose's plugins can honour.
    #[error("service {service:?} uses `{key}`, which is not supported: {why}")]
    Unsupported { service: String, key: &'static str, why: &'static str },
    /// A value that the Engine API has no word for.
    #[error("service {service:?}: invalid value {value:?} for `{key}`")]
    InvalidValue { service: String, key: &'static str, value: String },
    /// `healthcheck.start_interval` below API 1.44.
    #[error("can't set healthcheck.start_interval as feature require Docker Engine v25 or later")]
    StartIntervalNeedsNewerEngine,
    /// `healthcheck.start_interval` alone.
    #[error("healthcheck.start_interval requires healthcheck.start_period to be set")]
    StartIntervalNeedsStartPeriod,
    /// `interface_name` below API 1.49.
    #[error("interface_name requires Docker Engine v28.1 or later")]
    InterfaceNameNeedsNewerEngine,
    /// An image mount below API 1.48.
    #[error("volume with type=image require Docker Engine v28 or later")]
    ImageMountNeedsNewerEngine,
    /// `bind.recursive: readonly` below API 1.44.
    #[error("bind-recursive=readonly requires API v1.44 or later")]
    RecursiveReadOnlyNeedsNewerEngine,
    /// A network's `mac_address` below API 1.44.
    #[error(
        "\"specify mac-address per network\" requires API version 1.44, but the Docker daemon API version is {api_major}.{api_minor}"
    )]
    NetworkMacNeedsNewerEngine { api_major: u16, api_minor: u16 },
    /// Several networks' `mac_address` below API 1.44.
    #[error(
        "a MAC address is specified for multiple networks ({networks}), but this feature requires Docker Engine v25 or later"
    )]
    SeveralNetworkMacs { networks: String },
    /// The service's and its primary network's `mac_address` differ.
    #[error("the service-level mac_address should have the same value as network {network}")]
    MacAddressesDiffer { network: String },
    /// A referenced service has no container yet.
    #[error("cannot share {what} with service {service}: container missing")]
    PeerMissing { what: &'static str, service: String },
    /// A network, volume, secret or config that the project lacks.
    #[error("service {service:?} refers to undefined {kind} {name}")]
    Undefined { service: String, kind: &'static str, name: String },
    /// An external secret or config: only swarm has them.
    #[error("unsupported external {kind} {name}")]
    ExternalFile { kind: &'static str, name: String },
    /// A secret or config with a driver: only swarm has them.
    #[error("Docker Compose does not support {kind}s.*.{key}")]
    DriverOfFile { kind: &'static str, key: &'static str },
    /// Content cannot be copied into a read-only root.
    #[error("cannot create {kind} {name:?} in read-only service {service}: `file` is the sole supported option")]
    CopyIntoReadOnly { kind: &'static str, name: String, service: String },
    /// A secret's or config's variable is missing.
    #[error("environment variable {variable:?} required by {kind} {name:?} is not set")]
    VariableNotSet { variable: String, kind: &'static str, name: String },
    /// A file's owner is not a number, or too large for the archive that carries it.
    #[error("{kind} {name:?}: {key} {value:?} is not a number up to 2097151")]
    NotAnId { kind: &'static str, name: String, key: &'static str, value: String },
    /// An entry of `security_opt` without a value.
    #[error("invalid security-opt: {0:?}")]
    InvalidSecurityOpt(String),
    /// The seccomp profile was not readable.
    #[error("opening seccomp profile ({path}) failed")]
    SeccompUnreadable { path: String },
    /// The seccomp profile is not JSON.
    #[error("compacting json for seccomp profile ({path}) failed: {message}")]
    SeccompInvalid { path: String, message: String },
    /// The configuration could not be written as JSON: a number that is not finite.
    #[error("cannot hash the configuration: {0}")]
    Hash(String),
}

/// Text that is not empty.
fn text(value: &str) -> Option<String> {
    if value.is_empty() { None } else { Some(value.to_owned()) }
}

/// A list that is not empty.
fn list(values: &[String]) -> Option<Vec<String>> {
    if values.is_empty() { None } else { Some(values.to_vec()) }
}

/// A number that is not zero.
fn number(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

/// A map that is not empty.
fn map(values: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    if values.is_empty() { None } else { Some(values.clone().into_iter().collect()) }
}

fn service<'a>(project: &'a Project, name: &ServiceName) -> Result<&'a Service, SpecError> {
    project.services.get(name).ok_or_else(|| SpecError::NoSuchService(name.clone()))
}
