//! The port to the Docker Engine: what the daemon asks of it, and nothing more.

use std::future::Future;

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, EndpointSettings, EventMessage, ImageInspect, Network, NetworkInspect,
    Volume, VolumeCreateRequest,
};
use futures::Stream;

pub use crate::request::{
    ApiVersion, EngineVersion, ExecCommand, Output, OutputStream, ParseApiVersionError, PullImage, RemoveContainer,
    Upload,
};
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

/// The Docker Engine.
///
/// Containers and networks are named by id or by name. Every call has a time limit of its own, to the last byte of its
/// answer, but for [`Engine::wait_container`], [`Engine::pull_image`], [`Engine::exec`], [`Engine::logs`] and
/// [`Engine::events`]; and every answer has a limit in bytes, but for those that are handed on as they come. All fail with
/// [`EngineError::Unavailable`] when the Engine does not answer, and answer again by themselves once it does.
pub trait Engine: Send + Sync + 'static {
    /// The Engine's version. Asked for again only after a connection broke or the Engine told of another one.
    fn version(&self) -> impl Future<Output = Result<EngineVersion, EngineError>> + Send;

    /// The id that the Engine gave itself, the same over its restarts.
    fn id(&self) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// The local image of that reference or id, if there is one.
    fn image(&self, reference: &str) -> impl Future<Output = Result<Option<ImageInspect>, EngineError>> + Send;

    /// Pulls an image; returns when it is complete. Given up when nothing is heard of it for minutes.
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

    /// A container's stdout and stderr from its first byte on, in the order in which it wrote them; `follow`: until the
    /// container ends, else until now.
    fn logs(&self, container: &str, follow: bool) -> impl Stream<Item = Result<Output, EngineError>> + Send;

    /// Unpacks an archive at the container's `/`.
    fn upload(&self, container: &str, upload: &Upload) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Runs a command in a running container and returns its exit code.
    fn exec(&self, container: &str, command: &ExecCommand) -> impl Future<Output = Result<i64, EngineError>> + Send;

    /// The Engine's container events that carry all of the labels, from now on; ends when the connection breaks.
    fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EventMessage, EngineError>> + Send;
}
