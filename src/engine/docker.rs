//! The adapter to the Docker Engine over bollard.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummary, EndpointSettings, EventMessage, ExecConfig,
    ImageInspect, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, NetworkInspect,
    Volume, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptionsBuilder, InspectContainerOptions, InspectNetworkOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, RenameContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptions, UploadToContainerOptions, WaitContainerOptionsBuilder,
};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::time::timeout;

use super::{Engine, EngineError, EngineVersion, ExecCommand, PullImage, RemoveContainer, Upload};
use crate::spec::{CreateContainer, NetworkBody};

mod client_config;
mod connect;
mod pull;

pub use client_config::ClientConfig;
use connect::{CALL_LIMIT, Connection, failed};
pub use connect::{Host, ParseHostError, TlsFiles};

/// How many log lines are asked for; the byte limit usually cuts first.
const TAIL_LINES: &str = "500";

/// What a stop may take beyond the container's grace period.
const STOP_SLACK: Duration = Duration::from_secs(30);

/// The Docker Engine at a [`Host`]. Connects at the first call, and again after a broken connection.
pub struct Docker {
    host: Host,
    /// Folder of the client's `config.json`, for registry credentials.
    client_config: Option<PathBuf>,
    connection: Mutex<Option<Connection>>,
}

impl Docker {
    /// An Engine that is not yet connected to.
    #[must_use]
    pub fn new(host: Host, client_config: Option<PathBuf>) -> Self {
        Self { host, client_config, connection: Mutex::new(None) }
    }

    async fn connection(&self) -> Result<Connection, EngineError> {
        let open = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(open) = open {
            return Ok(open);
        }
        let fresh = Connection::open(&self.host).await?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh.clone());
        Ok(fresh)
    }

    /// Sorts an error, and forgets the connection when it broke: the Engine that comes back may be another version.
    fn failed(&self, call: &'static str, error: Error) -> EngineError {
        let error = failed(call, error);
        if matches!(error, EngineError::Unavailable { .. }) {
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        error
    }

    fn sorted<T>(&self, call: &'static str, result: Result<T, Error>) -> Result<T, EngineError> {
        result.map_err(|error| self.failed(call, error))
    }

    /// As [`Docker::sorted`], with `None` for what does not exist.
    fn found<T>(&self, call: &'static str, result: Result<T, Error>) -> Result<Option<T>, EngineError> {
        match self.sorted(call, result) {
            Ok(found) => Ok(Some(found)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Success where the call's aim is met already.
fn already(result: Result<(), EngineError>, met: fn(&EngineError) -> bool) -> Result<(), EngineError> {
    match result {
        Err(error) if met(&error) => Ok(()),
        other => other,
    }
}

fn is_missing(error: &EngineError) -> bool {
    matches!(error, EngineError::NotFound { .. })
}

fn to_json(call: &'static str, body: &impl Serialize) -> Result<bytes::Bytes, EngineError> {
    serde_json::to_vec(body).map(Into::into).map_err(|error| EngineError::Call {
        call,
        status: 0,
        message: error.to_string(),
    })
}

fn label_filter(labels: &[String]) -> HashMap<&'static str, Vec<String>> {
    HashMap::from([("label", labels.to_vec())])
}

impl Engine for Docker {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(self.connection().await?.version)
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInspect>, EngineError> {
        let engine = self.connection().await?.client;
        self.found("inspect image", engine.inspect_image(reference).await)
    }

    async fn pull_image(&self, image: &PullImage) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let credentials = pull::credentials(&engine, self.client_config.as_deref(), &image.reference).await;
        self.sorted("pull image", pull::pull(&engine, image, credentials).await)
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        let engine = self.connection().await?.client;
        self.found("inspect network", engine.inspect_network(name, None::<InspectNetworkOptions>).await)
    }

    async fn networks(&self, name: &str) -> Result<Vec<Network>, EngineError> {
        let engine = self.connection().await?.client;
        let filters = HashMap::from([("name", vec![name])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        self.sorted("list networks", engine.list_networks(Some(options)).await)
    }

    async fn create_network(&self, body: &NetworkBody) -> Result<(), EngineError> {
        let call = "create network";
        let engine = self.connection().await?.sending(to_json(call, body)?);
        self.sorted(call, engine.create_network(NetworkCreateRequest::default()).await).map(drop)
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        already(self.sorted("remove network", engine.remove_network(name).await), is_missing)
    }

    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &EndpointSettings,
    ) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let body = NetworkConnectRequest { container: container.into(), endpoint_config: Some(endpoint.clone()) };
        self.sorted("connect network", engine.connect_network(network, body).await)
    }

    async fn disconnect_network(&self, network: &str, container: &str) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let body = NetworkDisconnectRequest { container: container.into(), force: Some(true) };
        already(self.sorted("disconnect network", engine.disconnect_network(network, body).await), |error| {
            is_missing(error)
                || matches!(error, EngineError::Call { message, .. } if message.contains("is not connected"))
        })
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        let engine = self.connection().await?.client;
        self.found("inspect volume", engine.inspect_volume(name).await)
    }

    async fn create_volume(&self, body: &VolumeCreateRequest) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        self.sorted("create volume", engine.create_volume(body.clone()).await).map(drop)
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        already(self.sorted("remove volume", engine.remove_volume(name, None::<RemoveVolumeOptions>).await), is_missing)
    }

    async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>, EngineError> {
        let engine = self.connection().await?.client;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&label_filter(labels)).build();
        self.sorted("list containers", engine.list_containers(Some(options)).await)
    }

    async fn container(&self, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let engine = self.connection().await?.client;
        self.found("inspect container", engine.inspect_container(container, None::<InspectContainerOptions>).await)
    }

    async fn create_container(&self, container: &CreateContainer) -> Result<String, EngineError> {
        let call = "create container";
        let engine = self.connection().await?.sending(to_json(call, &container.body)?);
        let options = CreateContainerOptions {
            name: Some(container.name.clone()),
            platform: container.platform.clone().unwrap_or_default(),
        };
        let created = engine.create_container(Some(options), ContainerCreateBody::default()).await;
        Ok(self.sorted(call, created)?.id)
    }

    async fn start_container(&self, container: &str) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        self.sorted("start container", engine.start_container(container, None::<StartContainerOptions>).await)
    }

    async fn wait_container(&self, container: &str) -> Result<i64, EngineError> {
        let call = "wait for container";
        let engine = self.connection().await?.client;
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let answer = Box::pin(engine.wait_container(container, Some(options))).next().await;
        match answer {
            Some(Ok(answer)) => Ok(answer.status_code),
            // The client library makes an error of every exit code but 0.
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(self.failed(call, error)),
            None => Err(EngineError::Unavailable { call, source: "the answer ended early".into() }),
        }
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        let engine = self.connection().await?.within(grace.saturating_add(STOP_SLACK));
        self.sorted("stop container", engine.stop_container(container, None::<StopContainerOptions>).await)
    }

    async fn kill_container(&self, container: &str) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        already(
            self.sorted("kill container", engine.kill_container(container, Some(options)).await),
            |error| matches!(error, EngineError::Conflict { message, .. } if message.contains("not running")),
        )
    }

    async fn remove_container(&self, container: &str, options: RemoveContainer) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let options = RemoveContainerOptionsBuilder::new().force(options.force).v(options.volumes).build();
        already(self.sorted("remove container", engine.remove_container(container, Some(options)).await), is_missing)
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        self.sorted("rename container", engine.rename_container(container, options).await)
    }

    async fn logs_tail(&self, container: &str, limit: usize) -> Result<String, EngineError> {
        let call = "read logs";
        let engine = self.connection().await?.client;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(TAIL_LINES).build();
        let read = Box::pin(engine.logs(container, Some(options)))
            .try_fold(Vec::new(), |tail, output| async move { Ok(appended(tail, &output, limit)) });
        let Ok(tail) = timeout(CALL_LIMIT, read).await else {
            return Err(EngineError::Unavailable { call, source: "no end within the time limit".into() });
        };
        Ok(String::from_utf8_lossy(&self.sorted(call, tail)?).into_owned())
    }

    async fn upload(&self, container: &str, upload: &Upload) -> Result<(), EngineError> {
        let engine = self.connection().await?.client;
        let options = UploadToContainerOptions {
            path: "/".into(),
            no_overwrite_dir_non_dir: Some("true".into()),
            copy_uidgid: upload.copy_uid_gid.then(|| "true".into()),
        };
        let body = bollard::body_full(upload.archive.clone().into());
        self.sorted("copy into container", engine.upload_to_container(container, Some(options), body).await)
    }

    async fn exec(&self, container: &str, command: &ExecCommand) -> Result<i64, EngineError> {
        let call = "exec in container";
        let engine = self.connection().await?.client;
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let config = ExecConfig {
            cmd: Some(command.command.clone()),
            env: Some(command.environment.clone()),
            user: text(&command.user),
            working_dir: text(&command.working_dir),
            privileged: Some(command.privileged),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = self.sorted(call, engine.create_exec(container, config).await)?.id;
        if let StartExecResults::Attached { mut output, .. } =
            self.sorted(call, engine.start_exec(&exec, None).await)?
        {
            while let Some(output) = output.next().await {
                self.sorted(call, output)?;
            }
        }
        let ended = self.sorted(call, engine.inspect_exec(&exec).await)?;
        ended.exit_code.ok_or(EngineError::Call { call, status: 0, message: "no exit code".into() })
    }

    fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EventMessage, EngineError>> + Send {
        let mut filters = label_filter(labels);
        filters.insert("type", vec!["container".into()]);
        async move {
            let engine = self.connection().await?.client;
            let options = EventsOptionsBuilder::new().filters(&filters).build();
            let events = engine.events(Some(options));
            Ok::<_, EngineError>(events.map_err(|error| self.failed("watch events", error)))
        }
        .into_stream()
        .try_flatten()
    }
}

/// Appends output and drops what is more than `limit` bytes from the end.
fn appended(mut tail: Vec<u8>, output: &LogOutput, limit: usize) -> Vec<u8> {
    tail.extend_from_slice(output.as_ref());
    if tail.len() > limit {
        tail.drain(..tail.len() - limit);
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes() {
        let output = |text: &str| LogOutput::StdOut { message: text.to_owned().into() };
        let tail = appended(appended(Vec::new(), &output("abc"), 4), &output("def"), 4);
        assert_eq!(tail, b"cdef");
    }
}
