//! The adapter to the Docker Engine: its HTTP API, in the version that was agreed on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, EndpointSettings, EventMessage, ExecConfig, ImageInspect, Network,
    NetworkConnectRequest, NetworkDisconnectRequest, NetworkInspect, Volume, VolumeCreateRequest,
};
use futures::{FutureExt, Stream, TryStreamExt};
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{ApiVersion, Engine, EngineError, EngineVersion, ExecCommand, Output, PullImage, RemoveContainer, Upload};
use crate::memory::MemoryBounds;
use crate::spec::{CreateContainer, NetworkBody};

mod answer;
mod client_config;
mod connect;
mod http;
mod pull;
mod stream;

use answer::{Created, Executed, IdAnswer, VersionAnswer, Waited, accepted, parsed, version_header};
pub use client_config::ClientConfig;
pub use connect::{Host, ParseHostError, TlsFiles};
use http::{Answer, Client, Failure, Request, Whole, reference, segment};
use stream::{Lines, Outputs, Tail};

/// Time limit of a call, to the last byte of its answer. An Engine under load takes its time to create a container.
const CALL_LIMIT: Duration = Duration::from_mins(2);

/// What a stop may take beyond the container's grace period.
const STOP_SLACK: Duration = Duration::from_secs(30);

/// How many log lines are asked for; the byte limit usually cuts first.
const TAIL_LINES: &str = "500";

/// The newest API version whose changes are known here. An Engine is spoken to in its own where that is older.
const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 53 };

/// The Docker Engine at a [`Host`]. Connects at the first call, keeps its connections, and connects again when they break.
pub struct Docker {
    client: Client,
    /// Folder of the client's `config.json`, for registry credentials.
    client_config: Option<PathBuf>,
    /// Empty until the first call, and again when the Engine may have become another one.
    agreed: Mutex<Arc<OnceCell<Agreed>>>,
}

/// What was agreed on with the Engine.
#[derive(Debug, Clone)]
struct Agreed {
    version: EngineVersion,
    /// Goes before the path of every call.
    prefix: String,
    /// What the Engine's answers tell of its newest version.
    header: Option<String>,
    /// The number of broken connections at the time.
    breaks: u64,
}

impl Docker {
    /// An Engine that is not yet connected to, whose answers are read within the bounds.
    #[must_use]
    pub fn new(host: Host, client_config: Option<PathBuf>, bounds: MemoryBounds) -> Self {
        Self { client: Client::new(host, bounds.engine_answer), client_config, agreed: Mutex::default() }
    }

    /// The version that is spoken. Asked for once, by whoever comes first, until a connection breaks.
    async fn agreed(&self) -> Result<Agreed, EngineError> {
        let cell = Arc::clone(&self.agreed.lock().unwrap_or_else(PoisonError::into_inner));
        let agreed = cell.get_or_try_init(|| self.agree()).await?;
        if agreed.breaks == self.client.breaks() {
            return Ok(agreed.clone());
        }
        self.forget(agreed);
        let cell = Arc::clone(&self.agreed.lock().unwrap_or_else(PoisonError::into_inner));
        cell.get_or_try_init(|| self.agree()).await.cloned()
    }

    /// Lets the next call agree anew, unless another one has done so since.
    fn forget(&self, old: &Agreed) {
        let mut cell = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if cell.get().is_some_and(|agreed| agreed.breaks == old.breaks && agreed.header == old.header) {
            *cell = Arc::default();
        }
    }

    async fn agree(&self) -> Result<Agreed, EngineError> {
        let call = "connect";
        let answer = self.client.send(&Request::get("/version"), "").await;
        let answer = accepted(call, answer.map_err(|failure| self.failed(call, failure))?).await?;
        let header = version_header(&answer);
        let whole = answer.read().await.map_err(|failure| self.failed(call, failure))?;
        let VersionAnswer { version: engine, api_version } = parsed(call, &whole.bytes)?;
        let api: ApiVersion =
            api_version.parse().map_err(|source| EngineError::Unavailable { call, source: Box::new(source) })?;
        if api < ApiVersion::OLDEST {
            let oldest = ApiVersion::OLDEST;
            let message = format!("Engine {engine} speaks API {api}; {oldest} (Engine 20.10) or later is needed");
            return Err(EngineError::Call { call, status: 0, message });
        }
        let prefix = format!("/v{}", NEWEST.min(api));
        Ok(Agreed { version: EngineVersion { engine, api }, prefix, header, breaks: self.client.breaks() })
    }

    /// Sends a request and returns with the head of its answer, which is no error. Without a time limit.
    ///
    /// Refused for its version, which happens after the Engine was replaced, it is sent again in another one.
    async fn send(&self, call: &'static str, request: &Request) -> Result<Answer<'_>, EngineError> {
        let mut again = true;
        loop {
            // Boxed here: else every future of a run would hold the room for the deepest call several times over.
            let agreed = Box::pin(self.agreed()).await?;
            let answer = Box::pin(self.client.send(request, &agreed.prefix)).await;
            let answer = answer.map_err(|failure| self.failed(call, failure))?;
            let header = version_header(&answer);
            if header.is_some() && header != agreed.header {
                self.forget(&agreed);
            }
            match accepted(call, answer).await {
                Err(EngineError::Unavailable { .. }) if again => {
                    again = false;
                    self.forget(&agreed);
                }
                other => return other,
            }
        }
    }

    /// Sends a request and reads its answer to the end, all of it within the limit.
    async fn call(&self, call: &'static str, request: Request, limit: Duration) -> Result<Whole<'_>, EngineError> {
        let answered = async {
            let answer = self.send(call, &request).await?;
            answer.read().await.map_err(|failure| self.failed(call, failure))
        };
        self.within(call, limit, answered).await
    }

    /// As [`Docker::call`], for an answer in JSON.
    async fn ask<T: DeserializeOwned>(
        &self,
        call: &'static str,
        request: Request,
        limit: Duration,
    ) -> Result<T, EngineError> {
        parsed(call, &self.call(call, request, limit).await?.bytes)
    }

    /// A call that changes something, and whose answer does not matter.
    async fn tell(&self, call: &'static str, request: Request) -> Result<(), EngineError> {
        self.call(call, request, CALL_LIMIT).await.map(drop)
    }

    async fn within<T>(
        &self,
        call: &'static str,
        limit: Duration,
        answered: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let late = |_| {
            self.client.note_break();
            let limit = humantime::format_duration(limit);
            EngineError::Unavailable { call, source: format!("no answer, or no end of it, within {limit}").into() }
        };
        timeout(limit, Box::pin(answered)).await.map_err(late)?
    }

    /// Sorts what went wrong by what a caller can do about it.
    fn failed(&self, call: &'static str, failure: Failure) -> EngineError {
        match failure {
            Failure::TooLong(_) | Failure::Request(_) => {
                EngineError::Call { call, status: 0, message: crate::report::Chain(&failure).to_string() }
            }
            Failure::Connect { .. } | Failure::Broken(_) => {
                self.client.note_break();
                EngineError::Unavailable { call, source: Box::new(failure) }
            }
        }
    }
}

fn json_body(call: &'static str, request: Request, body: &impl Serialize) -> Result<Request, EngineError> {
    request.json(body).map_err(|error| EngineError::Call { call, status: 0, message: error.to_string() })
}

/// `None` for what does not exist.
fn found<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(EngineError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
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

fn container_path(container: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", segment(container))
}

fn network_path(network: &str, rest: &str) -> String {
    format!("/networks/{}{rest}", segment(network))
}

impl Engine for Docker {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        Ok(self.within("connect", CALL_LIMIT, self.agreed()).await?.version)
    }

    async fn id(&self) -> Result<String, EngineError> {
        let answer: IdAnswer = self.ask("ask the engine's id", Request::get("/info"), CALL_LIMIT).await?;
        Ok(answer.id)
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInspect>, EngineError> {
        let request = Request::get(format!("/images/{}/json", reference(image)));
        found(self.ask("inspect image", request, CALL_LIMIT).await)
    }

    async fn pull_image(&self, image: &PullImage) -> Result<(), EngineError> {
        self.pull(image).await
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        found(self.ask("inspect network", Request::get(network_path(name, "")), CALL_LIMIT).await)
    }

    async fn networks(&self, name: &str) -> Result<Vec<Network>, EngineError> {
        let request = Request::get("/networks").query("filters", &json!({"name": [name]}).to_string());
        self.ask("list networks", request, CALL_LIMIT).await
    }

    async fn create_network(&self, body: &NetworkBody) -> Result<(), EngineError> {
        let call = "create network";
        self.tell(call, json_body(call, Request::post("/networks/create"), body)?).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        already(self.tell("remove network", Request::delete(network_path(name, ""))).await, is_missing)
    }

    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &EndpointSettings,
    ) -> Result<(), EngineError> {
        let call = "connect network";
        let body = NetworkConnectRequest { container: container.into(), endpoint_config: Some(endpoint.clone()) };
        self.tell(call, json_body(call, Request::post(network_path(network, "/connect")), &body)?).await
    }

    async fn disconnect_network(&self, network: &str, container: &str) -> Result<(), EngineError> {
        let call = "disconnect network";
        let body = NetworkDisconnectRequest { container: container.into(), force: Some(true) };
        let request = json_body(call, Request::post(network_path(network, "/disconnect")), &body)?;
        already(self.tell(call, request).await, |error| {
            is_missing(error)
                || matches!(error, EngineError::Call { message, .. } if message.contains("is not connected"))
        })
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        found(self.ask("inspect volume", Request::get(format!("/volumes/{}", segment(name))), CALL_LIMIT).await)
    }

    async fn create_volume(&self, body: &VolumeCreateRequest) -> Result<(), EngineError> {
        let call = "create volume";
        self.tell(call, json_body(call, Request::post("/volumes/create"), body)?).await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let request = Request::delete(format!("/volumes/{}", segment(name)));
        already(self.tell("remove volume", request).await, is_missing)
    }

    async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>, EngineError> {
        let request = Request::get("/containers/json").query("all", "true");
        let request = request.query("filters", &json!({"label": labels}).to_string());
        self.ask("list containers", request, CALL_LIMIT).await
    }

    async fn container(&self, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        found(self.ask("inspect container", Request::get(container_path(container, "/json")), CALL_LIMIT).await)
    }

    async fn create_container(&self, container: &CreateContainer) -> Result<String, EngineError> {
        let call = "create container";
        let mut request = Request::post("/containers/create").query("name", &container.name);
        if let Some(platform) = &container.platform {
            request = request.query("platform", platform);
        }
        let created: Created = self.ask(call, json_body(call, request, &container.body)?, CALL_LIMIT).await?;
        Ok(created.id)
    }

    async fn start_container(&self, container: &str) -> Result<(), EngineError> {
        self.tell("start container", Request::post(container_path(container, "/start"))).await
    }

    async fn wait_container(&self, container: &str) -> Result<i64, EngineError> {
        let call = "wait for container";
        let request = Request::post(container_path(container, "/wait")).query("condition", "not-running");
        let answer = self.send(call, &request).await?;
        let whole = answer.read().await.map_err(|failure| self.failed(call, failure))?;
        if whole.bytes.trim_ascii().is_empty() {
            return Err(EngineError::Unavailable { call, source: "the answer ended early".into() });
        }
        Ok(parsed::<Waited>(call, &whole.bytes)?.status_code)
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        let request = Request::post(container_path(container, "/stop"));
        self.call("stop container", request, grace.saturating_add(STOP_SLACK)).await.map(drop)
    }

    async fn kill_container(&self, container: &str) -> Result<(), EngineError> {
        let request = Request::post(container_path(container, "/kill")).query("signal", "SIGKILL");
        already(
            self.tell("kill container", request).await,
            |error| matches!(error, EngineError::Conflict { message, .. } if message.contains("not running")),
        )
    }

    async fn remove_container(&self, container: &str, options: RemoveContainer) -> Result<(), EngineError> {
        let request = Request::delete(container_path(container, ""))
            .query("v", &options.volumes.to_string())
            .query("force", &options.force.to_string());
        already(self.tell("remove container", request).await, is_missing)
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let request = Request::post(container_path(container, "/rename")).query("name", name);
        self.tell("rename container", request).await
    }

    async fn logs_tail(&self, container: &str, limit: usize) -> Result<String, EngineError> {
        let call = "read logs";
        let request = Request::get(container_path(container, "/logs"))
            .query("stdout", "true")
            .query("stderr", "true")
            .query("tail", TAIL_LINES);
        let read = async {
            let mut answer = self.send(call, &request).await?;
            let mut tail = Tail::new(limit);
            while let Some(piece) = answer.next().await.map_err(|failure| self.failed(call, failure))? {
                tail.add(piece);
            }
            answer.finish().await;
            Ok(tail.text())
        };
        self.within(call, CALL_LIMIT, read).await
    }

    fn logs(&self, container: &str, follow: bool) -> impl Stream<Item = Result<Output, EngineError>> + Send {
        let call = "read logs";
        let request = Request::get(container_path(container, "/logs"))
            .query("stdout", "true")
            .query("stderr", "true")
            .query("follow", if follow { "true" } else { "false" });
        async move {
            let answer = self.within(call, CALL_LIMIT, self.send(call, &request)).await?;
            let pieces = futures::stream::try_unfold(Outputs::new(answer), move |mut outputs| async move {
                let parts = outputs.next().await.map_err(|failure| self.failed(call, failure))?;
                Ok::<_, EngineError>(parts.map(|parts| (parts, outputs)))
            });
            Ok(pieces.map_ok(|parts| futures::stream::iter(parts.into_iter().map(Ok))).try_flatten())
        }
        .into_stream()
        .try_flatten()
    }

    async fn upload(&self, container: &str, upload: &Upload) -> Result<(), EngineError> {
        let mut request = Request::new(Method::PUT, container_path(container, "/archive"))
            .query("path", "/")
            .query("noOverwriteDirNonDir", "true");
        if upload.copy_uid_gid {
            request = request.query("copyUIDGID", "true");
        }
        let request = request.body("application/x-tar", upload.archive.clone().into());
        self.tell("copy into container", request).await
    }

    async fn exec(&self, container: &str, command: &ExecCommand) -> Result<i64, EngineError> {
        let call = "exec in container";
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
        let request = json_body(call, Request::post(container_path(container, "/exec")), &config)?;
        let Created { id } = self.ask(call, request, CALL_LIMIT).await?;
        let start = Request::post(format!("/exec/{}/start", segment(&id)));
        let start = json_body(call, start, &json!({"Detach": false, "Tty": false}))?;
        // Its output is read to its end, which is the command's, and dropped.
        let mut output = self.within(call, CALL_LIMIT, self.send(call, &start)).await?;
        while output.next().await.map_err(|failure| self.failed(call, failure))?.is_some() {}
        let request = Request::get(format!("/exec/{}/json", segment(&id)));
        let ended: Executed = self.ask(call, request, CALL_LIMIT).await?;
        ended.exit_code.ok_or(EngineError::Call { call, status: 0, message: "no exit code".into() })
    }

    fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EventMessage, EngineError>> + Send {
        let call = "watch events";
        let filters = json!({"type": ["container"], "label": labels}).to_string();
        async move {
            let request = Request::get("/events").query("filters", &filters);
            let lines = Lines::new(self.within(call, CALL_LIMIT, self.send(call, &request)).await?);
            Ok::<_, EngineError>(futures::stream::try_unfold(lines, move |mut lines| async move {
                let line = lines.next().await.map_err(|failure| self.failed(call, failure))?;
                line.map(|line: bytes::Bytes| Ok((parsed(call, &line)?, lines))).transpose()
            }))
        }
        .into_stream()
        .try_flatten()
    }
}
