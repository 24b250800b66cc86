//! Decisions about the Engine's objects as data: each step is one Engine call and says its cause.
//!
//! [`arrange()`] makes one [`Graph`] of all that a run or a start needs, from what was observed once: stages, each for one
//! network, volume or service, and which stages each waits for. What does not wait can be carried out together.
//! Containers are named, so that a step can speak of what an earlier one creates.

use std::fmt;
use std::time::Duration;

use bollard::models::{EndpointSettings, VolumeCreateRequest};

use crate::names::ServiceName;
use crate::request::{ExecCommand, PullImage, RemoveContainer};
use crate::spec::files::CopiedFile;
use crate::spec::{CreateContainer, NetworkBody, SpecError};

mod arrange;
mod converge;
mod graph;
mod images;
mod lifecycle;
mod observe;
mod order;
mod resources;
mod wait;

pub use arrange::{Seen, Wanted, arrange, needs_containers};
pub use converge::{Convergence, converge};
pub use graph::{Graph, Node, Stage};
pub use images::{ImageSeen, ensure_images};
pub use lifecycle::{DEFAULT_GRACE, grace, run_one_off, start, stop};
pub use observe::{Container, NetworkSeen, Stack, State, VolumeSeen};
pub use order::startup_order;
pub use resources::{ensure_network, ensure_volume, network_id, surplus_networks};
pub use wait::{Awaited, Readiness, awaited, readiness};

/// One Engine call.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Pull an image.
    PullImage(PullImage),
    /// Create a network.
    CreateNetwork(Box<NetworkBody>),
    /// Remove a network.
    RemoveNetwork {
        /// Engine name or id.
        network: String,
    },
    /// Connect a container to a network.
    ConnectNetwork {
        /// Engine name of the network.
        network: String,
        /// Container name.
        container: String,
        /// How it joins.
        endpoint: Box<EndpointSettings>,
    },
    /// Disconnect a container from a network, by force.
    DisconnectNetwork {
        /// Engine name or id of the network.
        network: String,
        /// Container name.
        container: String,
    },
    /// Create a volume.
    CreateVolume(Box<VolumeCreateRequest>),
    /// Create a container; its `connect` list is in steps of its own.
    CreateContainer(Box<CreateContainer>),
    /// Write a file into a container.
    CopyFile {
        /// Container name.
        container: String,
        /// The file.
        file: CopiedFile,
    },
    /// Start a container.
    StartContainer {
        /// Container name.
        container: String,
    },
    /// Run a hook in a container; an exit code other than 0 is a failure.
    Exec {
        /// Container name.
        container: String,
        /// The hook.
        command: ExecCommand,
    },
    /// Stop a container with its own grace period.
    StopContainer {
        /// Container name.
        container: String,
        /// How long it may take: the service's stop grace period.
        grace: Duration,
    },
    /// Remove a container.
    RemoveContainer {
        /// Container name.
        container: String,
        /// How.
        options: RemoveContainer,
    },
    /// Rename a container.
    RenameContainer {
        /// Container name.
        container: String,
        /// Its new name.
        name: String,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage(image) => write!(f, "pull image {}", image.reference),
            Self::CreateNetwork(network) => write!(f, "create network {}", network.body.name),
            Self::RemoveNetwork { network } => write!(f, "remove network {network}"),
            Self::ConnectNetwork { network, container, .. } => {
                write!(f, "connect container {container} to network {network}")
            }
            Self::DisconnectNetwork { network, container } => {
                write!(f, "disconnect container {container} from network {network}")
            }
            Self::CreateVolume(volume) => write!(f, "create volume {}", volume.name.as_deref().unwrap_or_default()),
            Self::CreateContainer(container) => write!(f, "create container {}", container.name),
            Self::CopyFile { container, file } => write!(f, "copy {} into container {container}", file.target),
            Self::StartContainer { container } => write!(f, "start container {container}"),
            Self::Exec { container, command } => {
                write!(f, "run {:?} in container {container}", command.command.join(" "))
            }
            Self::StopContainer { container, .. } => write!(f, "stop container {container}"),
            Self::RemoveContainer { container, options } => {
                write!(f, "remove container {container}{}", if options.force { " by force" } else { "" })
            }
            Self::RenameContainer { container, name } => write!(f, "rename container {container} to {name}"),
        }
    }
}

/// Why a step is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The image is not there.
    NoImage {
        /// The service whose build would make it, where one does.
        buildable: Option<ServiceName>,
    },
    /// `pull_policy: always`.
    PullAlways,
    /// The local image was tagged longer ago than the pull policy allows.
    ImageOld,
    /// The network is not there.
    NoNetwork,
    /// The network was made from another configuration.
    NetworkChanged {
        /// Its engine name.
        network: String,
    },
    /// Two clients made the network at the same time. Until Engine 24 that gives two of the same name, of which no
    /// container can start.
    NetworkTwice,
    /// The volume is not there.
    NoVolume,
    /// The service has no container of that number.
    NoContainer,
    /// The configuration changed since the container was created.
    ConfigurationChanged,
    /// The image changed since the container was created.
    ImageChanged,
    /// The container runs without one of the service's networks.
    NetworkMissing {
        /// Key of the network.
        network: String,
    },
    /// The container has not mounted one of the service's volumes.
    VolumeMissing {
        /// Key of the volume.
        volume: String,
    },
    /// The step belongs to the recreation of that container.
    Replaces {
        /// Name of the old container.
        container: String,
    },
    /// More containers than replicas.
    TooMany,
    /// A service that this one depends on is recreated, and asks for a restart.
    Recreated {
        /// The dependency.
        dependency: ServiceName,
    },
    /// The container joins this network after its creation.
    FurtherNetwork,
    /// The container needs the file before it starts.
    Content,
    /// The container does not run.
    NotRunning {
        /// What it does instead.
        state: State,
    },
    /// The service's `post_start` or `pre_stop`.
    Hook,
    /// A run of the service.
    Run,
    /// Stopping was asked for.
    Asked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage { buildable: None } => f.write_str("no image"),
            Self::NoImage { buildable: Some(service) } => {
                write!(f, "no image; `docker compose build {service}` makes it")
            }
            Self::PullAlways => f.write_str("pull policy always"),
            Self::ImageOld => f.write_str("image older than its pull policy allows"),
            Self::NoNetwork => f.write_str("no network"),
            Self::NetworkChanged { network } => write!(f, "configuration of network {network} changed"),
            Self::NetworkTwice => f.write_str("made twice"),
            Self::NoVolume => f.write_str("no volume"),
            Self::NoContainer => f.write_str("no container"),
            Self::ConfigurationChanged => f.write_str("configuration changed"),
            Self::ImageChanged => f.write_str("image changed"),
            Self::NetworkMissing { network } => write!(f, "not connected to network {network}"),
            Self::VolumeMissing { volume } => write!(f, "volume {volume} not mounted"),
            Self::Replaces { container } => write!(f, "replaces {container}"),
            Self::TooMany => f.write_str("more than the replicas wanted"),
            Self::Recreated { dependency } => write!(f, "{dependency} is recreated"),
            Self::FurtherNetwork => f.write_str("further network"),
            Self::Content => f.write_str("content of a secret or config"),
            Self::NotRunning { state } => write!(f, "{state}"),
            Self::Hook => f.write_str("hook"),
            Self::Run => f.write_str("run"),
            Self::Asked => f.write_str("asked for"),
        }
    }
}

/// One Engine call and why it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The call.
    pub call: Call,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.call, self.cause)
    }
}

/// Steps to take in order; the first that fails ends it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What Compose would warn of: nothing is done about it.
    pub warnings: Vec<String>,
    /// What differs and was left as it is, because it runs.
    pub left: Vec<Difference>,
}

/// What is not as the files say, and stays so because it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A service's container.
    Service {
        /// The service.
        service: ServiceName,
        /// Why it would be recreated.
        cause: Cause,
    },
    /// A network that a running container uses.
    Network {
        /// Engine name.
        network: String,
    },
}

impl Difference {
    /// What differs.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::Service { service, .. } => format!("service {service}"),
            Self::Network { network } => format!("network {network}"),
        }
    }

    /// In what it differs.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Service { cause, .. } => cause.to_string(),
            Self::Network { .. } => Cause::ConfigurationChanged.to_string(),
        }
    }

    /// What makes it as the files say.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Service { service, .. } => format!("start_service {service}, or docker compose up -d {service}"),
            Self::Network { .. } => "docker compose up -d".to_owned(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.object(), self.what())
    }
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn push(&mut self, call: Call, cause: Cause) {
        self.steps.push(Step { call, cause });
    }
}

impl fmt::Display for Plan {
    /// One step a line; `nothing to do` for an empty plan.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("nothing to do");
        }
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{step}")?;
        }
        Ok(())
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the names in the message")]
pub enum PlanError {
    /// The service cannot be run as its file says.
    #[error("cannot create a container of service {service}")]
    Spec {
        service: ServiceName,
        #[source]
        source: SpecError,
    },
    /// A network or volume cannot be described.
    #[error("cannot describe {kind} {key}")]
    Resource {
        kind: &'static str,
        key: String,
        #[source]
        source: SpecError,
    },
    /// A network of that name is someone else's.
    #[error(
        "network {name} was found but has incorrect label com.docker.compose.network set to {found:?} (expected: {key:?})"
    )]
    ForeignNetwork { name: String, found: String, key: String },
    /// An external network that is not there.
    #[error("network {name} declared as external, but could not be found")]
    NoExternalNetwork { name: String },
    /// An external network's name fits several.
    #[error("multiple networks with name {name:?} were found. Use network ID as `name` to avoid ambiguity")]
    AmbiguousNetwork { name: String },
    /// An external volume that is not there.
    #[error("external volume {name:?} not found")]
    NoExternalVolume { name: String },
    /// The image is made by a build, which the daemon does not do.
    #[error("image {image} of service {service} is missing: run `docker compose build {service}`")]
    ImageNotBuilt { service: ServiceName, image: String },
    /// A pull policy that is none.
    #[error("service {service}: unsupported pull policy {policy:?}")]
    PullPolicy { service: ServiceName, policy: String },
    /// A service without containers is to be started.
    #[error("service {service:?} has no container to start")]
    NothingToStart { service: String },
    /// A dependency has no container.
    #[error("{service} is missing dependency {dependency}")]
    MissingDependency { service: ServiceName, dependency: ServiceName },
    /// A dependency is not healthy, or never will be.
    #[error("dependency failed to start: {reason}")]
    DependencyFailed { reason: String },
    /// A dependency that had to complete did not.
    #[error("service {dependency:?} didn't complete successfully: exit {code}")]
    DependencyExited { dependency: String, code: i64 },
}

#[cfg(test)]
mod testing;
