//! The port to the Docker Engine: what the daemon asks of it, and nothing more.

use std::future::Future;

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, EndpointSettings, EventMessage, ImageInspect, Network, NetworkInspect,
    Volume, VolumeCreateRequest,
};
use futures::Stream;

use crate::spec::{CreateContainer, NetworkBody};

pub mod docker;

/// What went wrong with an Engine call, by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An object of the call does not exist.
    #[error("{call}: {message}")]
    NotFound {
        /// The call, such as `create container`.
        call: &'static str,
        /// The Engine's own words, which name the object.
        message: String,
    },
    /// The object is in a state, or a name in use, that forbids the call.
    #[error("{call}: {message}")]
    Conflict {
        /// The call, such as `create container`.
        call: &'static str,
        /// The Engine's own words.
        message: String,
    },
    /// The Engine did not answer: it is down, restarting, or the connection broke. The call may have been carried out.
    #[error("{call}: engine unavailable")]
    Unavailable {
        /// The call, such as `create container`.
        call: &'static str,
        /// What the connection said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Engine refused the call.
    #[error("{call}: {message}")]
    Call {
        /// The call, such as `create container`.
        call: &'static str,
        /// HTTP status of the answer; 0 where there was none.
        status: u16,
        /// The Engine's own words.
        message: String,
    },
}

/// The Engine's version, for the choice of dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineVersion {
    /// Version of the Engine, such as `20.10.24`.
    pub engine: String,
    /// Newest API version that the Engine speaks.
    pub api: ApiVersion,
}

/// A version of the Engine API, such as 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Before the dot.
    pub major: u16,
    /// After the dot.
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest version that is spoken: Engine 20.10.
    pub const OLDEST: Self = Self { major: 1, minor: 41 };
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a text is not an API version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an API version such as 1.41")]
pub struct ParseApiVersionError(String);

impl std::str::FromStr for ApiVersion {
    type Err = ParseApiVersionError;

    fn from_str(text: &str) -> Result<Self, ParseApiVersionError> {
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }))
            .ok_or_else(|| ParseApiVersionError(text.chars().take(40).collect()))
    }
}

/// An image to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullImage {
    /// Image reference with its tag or digest.
    pub reference: String,
    /// `os/arch[/variant]`; the Engine's own where absent.
    pub platform: Option<String>,
}

/// A command to run inside a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecCommand {
    /// Words of the command.
    pub command: Vec<String>,
    /// User, or the container's where empty.
    pub user: String,
    /// With all privileges.
    pub privileged: bool,
    /// Working directory, or the container's where empty.
    pub working_dir: String,
    /// `K=V` variables.
    pub environment: Vec<String>,
}

/// Files to copy into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// A tar archive, unpacked at `/`.
    pub archive: Vec<u8>,
    /// Keep the archive's numeric owner and group.
    pub copy_uid_gid: bool,
}

/// The Docker Engine.
///
/// Containers and networks are named by id or by name. Every call has a time limit of its own, but for
/// [`Engine::wait_container`], [`Engine::pull_image`] and [`Engine::events`]. All fail with [`EngineError::Unavailable`]
/// when the Engine does not answer, and answer again by themselves once it does.
pub trait Engine: Send + Sync + 'static {
    /// The Engine's version, negotiated afresh.
    fn version(&self) -> impl Future<Output = Result<EngineVersion, EngineError>> + Send;

    /// The local image of that reference or id, if there is one.
    fn image(&self, reference: &str) -> impl Future<Output = Result<Option<ImageInspect>, EngineError>> + Send;

    /// Pulls an image; returns when it is complete.
    fn pull_image(&self, image: &PullImage) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The network of that name or id, if there is one.
    fn network(&self, name: &str) -> impl Future<Output = Result<Option<NetworkInspect>, EngineError>> + Send;

    /// Networks whose name contains `name`.
    fn networks(&self, name: &str) -> impl Future<Output = Result<Vec<Network>, EngineError>> + Send;

    /// Creates a network; `Conflict` when the name is taken.
    fn create_network(&self, body: &NetworkBody) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a network; succeeds when it is already gone.
    fn remove_network(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Connects a container to a network.
    fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &EndpointSettings,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Disconnects a container from a network, by force; succeeds when it is not connected.
    fn disconnect_network(
        &self,
        network: &str,
        container: &str,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The volume of that name, if there is one.
    fn volume(&self, name: &str) -> impl Future<Output = Result<Option<Volume>, EngineError>> + Send;

    /// Creates a volume; an equal existing one is left as it is.
    fn create_volume(&self, body: &VolumeCreateRequest) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a volume; succeeds when it is already gone.
    fn remove_volume(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Containers in any state that carry all of the labels, each `key` or `key=value`.
    fn containers(&self, labels: &[String]) -> impl Future<Output = Result<Vec<ContainerSummary>, EngineError>> + Send;

    /// The container of that name or id, if there is one.
    fn container(
        &self,
        container: &str,
    ) -> impl Future<Output = Result<Option<ContainerInspectResponse>, EngineError>> + Send;

    /// Creates a container and returns its id. Its `connect` list is the caller's to carry out.
    ///
    /// `NotFound` when the image is missing, `Conflict` when the name is taken.
    fn create_container(&self, container: &CreateContainer)
    -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Starts a container; succeeds when it is already running.
    fn start_container(&self, container: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Waits until a container does not run and returns its exit code, whatever it is.
    ///
    /// Answers 0 at once for a container that was never started: call it only after `start_container` came back.
    fn wait_container(&self, container: &str) -> impl Future<Output = Result<i64, EngineError>> + Send;

    /// Stops a container with its own grace period and signal; returns once it is stopped. Succeeds when it is not running.
    ///
    /// `grace` is the container's stop grace period, so that the call is not given up before it.
    fn stop_container(
        &self,
        container: &str,
        grace: std::time::Duration,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Sends SIGKILL; succeeds when the container is not running.
    fn kill_container(&self, container: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container; succeeds when it is already gone.
    fn remove_container(
        &self,
        container: &str,
        options: RemoveContainer,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Renames a container.
    fn rename_container(&self, container: &str, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The last lines of a container's stdout and stderr, `limit` bytes at most, as text.
    fn logs_tail(&self, container: &str, limit: usize) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Unpacks an archive at the container's `/`.
    fn upload(&self, container: &str, upload: &Upload) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Runs a command in a running container and returns its exit code.
    fn exec(&self, container: &str, command: &ExecCommand) -> impl Future<Output = Result<i64, EngineError>> + Send;

    /// The Engine's container events that carry all of the labels, from now on; ends when the connection breaks.
    fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EventMessage, EngineError>> + Send;
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveContainer {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes as well.
    pub volumes: bool,
}
