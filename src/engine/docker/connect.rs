//! How the Engine is reached: socket, TCP or TLS, the version that is spoken, and what a failed call means.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest};
use bytes::Bytes;

use crate::engine::{ApiVersion, EngineError, EngineVersion};
#[cfg(feature = "tls")]
use crate::file::FileReader;

/// Time limit of a call, up to its response's headers. An Engine under load takes its time to create a container.
pub(super) const CALL_LIMIT: Duration = Duration::from_mins(2);

/// Reads PEM files, before the client library does so without a bound.
#[cfg(feature = "tls")]
const PEM_FILE: FileReader = FileReader::new(1 << 20);

/// Where the Engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Path of its Unix socket.
    Unix(PathBuf),
    /// `host:port`, with TLS where files are given.
    Tcp {
        /// `host:port`.
        address: String,
        /// Certificates of an Engine that asks for them.
        tls: Option<TlsFiles>,
    },
}

/// PEM files for an Engine behind TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that sign the Engine's.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a text does not say where an Engine listens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Engine address: unix:///path or tcp://host:port is")]
pub struct ParseHostError(String);

impl FromStr for Host {
    type Err = ParseHostError;

    /// Reads a `DOCKER_HOST`, without TLS.
    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        match text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"))
            .map(|rest| rest.trim_end_matches('/'))
        {
            Some(address) if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                Ok(Self::Tcp { address: address.into(), tls: None })
            }
            _ => Err(ParseHostError(text.into())),
        }
    }
}

/// A connection whose API version was agreed on.
#[derive(Clone)]
#[expect(clippy::disallowed_types, reason = "this is the adapter")]
pub(super) struct Connection {
    pub(super) client: bollard::Docker,
    pub(super) version: EngineVersion,
    /// The version that is spoken: the client library's newest, or the Engine's where that is older.
    spoken: ApiVersion,
}

impl Connection {
    /// Connects and agrees on a version.
    pub(super) async fn open(host: &Host) -> Result<Self, EngineError> {
        let call = "connect";
        let client = dial(host).map_err(|error| failed(call, error))?;
        let answer = client.version().await.map_err(|error| failed(call, error))?;
        let engine = answer.version.unwrap_or_default();
        let api = answer.api_version.unwrap_or_default();
        let api: ApiVersion =
            api.parse().map_err(|source| EngineError::Unavailable { call, source: Box::new(source) })?;
        if api < ApiVersion::OLDEST {
            return Err(EngineError::Call {
                call,
                status: 0,
                message: format!(
                    "Engine {engine} speaks API {api}; {} (Engine 20.10) or later is needed",
                    ApiVersion::OLDEST
                ),
            });
        }
        let ours = ApiVersion {
            major: u16::try_from(API_DEFAULT_VERSION.major_version).unwrap_or(1),
            minor: u16::try_from(API_DEFAULT_VERSION.minor_version).unwrap_or(u16::MAX),
        };
        let spoken = ours.min(api);
        let client = client.with_request_modifier(move |request| prefixed(request, spoken));
        Ok(Self { client, version: EngineVersion { engine, api }, spoken })
    }

    /// The same connection with another time limit.
    #[expect(clippy::disallowed_types, reason = "this is the adapter")]
    pub(super) fn within(&self, limit: Duration) -> bollard::Docker {
        // The client truncates to whole seconds.
        self.client.clone().with_timeout(limit + Duration::from_secs(1))
    }

    /// The same connection, sending `body` in place of what the next call would send.
    ///
    /// For requests with fields that the client library's types lack.
    #[expect(clippy::disallowed_types, reason = "this is the adapter")]
    pub(super) fn sending(&self, body: Bytes) -> bollard::Docker {
        let spoken = self.spoken;
        self.client.clone().with_request_modifier(move |request| {
            let mut request = prefixed(request, spoken);
            *request.body_mut() = bollard::body_full(body.clone());
            request
        })
    }
}

#[expect(clippy::disallowed_types, reason = "this is the adapter")]
fn dial(host: &Host) -> Result<bollard::Docker, Error> {
    let limit = CALL_LIMIT.as_secs();
    match host {
        Host::Unix(path) => bollard::Docker::connect_with_unix(&path.to_string_lossy(), limit, API_DEFAULT_VERSION),
        Host::Tcp { address, tls: None } => bollard::Docker::connect_with_http(address, limit, API_DEFAULT_VERSION),
        #[cfg(feature = "tls")]
        Host::Tcp { address, tls: Some(files) } => {
            for file in [&files.ca, &files.cert, &files.key] {
                PEM_FILE.check(file).map_err(|error| Error::IOError { err: std::io::Error::other(error) })?;
            }
            bollard::Docker::connect_with_ssl(address, &files.key, &files.cert, &files.ca, limit, API_DEFAULT_VERSION)
        }
        #[cfg(not(feature = "tls"))]
        Host::Tcp { tls: Some(_), .. } => {
            Err(Error::UnsupportedURISchemeError { uri: "TLS to the Engine: built without the feature `tls`".into() })
        }
    }
}

/// Puts the agreed version before the path, which bollard 0.21.1 leaves out: without it the Engine answers in its newest.
fn prefixed(mut request: BollardRequest, version: ApiVersion) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
    if path.starts_with("/v1.") {
        return request;
    }
    if let Ok(path) = format!("/v{version}{path}").parse() {
        parts.path_and_query = Some(path);
        if let Ok(uri) = parts.try_into() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Sorts a client error by what a caller can do about it.
pub(super) fn failed(call: &'static str, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code: 404, message } => EngineError::NotFound { call, message },
        Error::DockerResponseServerError { status_code: 409, message } => EngineError::Conflict { call, message },
        // After an Engine was replaced by an older one: agree on a version again.
        Error::DockerResponseServerError { status_code: 400, message } if message.contains("client version") => {
            EngineError::Unavailable { call, source: message.into() }
        }
        // The words of a proxy before the socket: the Engine did not answer it, or not in the proxy's time.
        Error::DockerResponseServerError { status_code: status @ (502 | 504), message } => {
            EngineError::Unavailable { call, source: format!("proxy: {status} {message}").into() }
        }
        Error::DockerResponseServerError { status_code, message } => {
            EngineError::Call { call, status: status_code, message }
        }
        Error::DockerStreamError { error } => EngineError::Call { call, status: 0, message: error },
        Error::JsonDataError { message, .. } => {
            EngineError::Call { call, status: 0, message: format!("unexpected answer: {message}") }
        }
        error => EngineError::Unavailable { call, source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_unix_socket_or_a_tcp_address() {
        assert_eq!("unix:///run/docker.sock".parse(), Ok(Host::Unix("/run/docker.sock".into())));
        assert_eq!("tcp://proxy:2375".parse(), Ok(Host::Tcp { address: "proxy:2375".into(), tls: None }));
        for text in
            ["", "unix://", "unix://relative", "tcp://host", "tcp://host:port", "ssh://host:22", "/run/docker.sock"]
        {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_refused_connection_is_unavailable_and_a_404_is_not_found() {
        let gone = failed("x", Error::SocketNotFoundError("/run/docker.sock".into()));
        assert!(matches!(gone, EngineError::Unavailable { .. }), "{gone}");
        let missing =
            failed("x", Error::DockerResponseServerError { status_code: 404, message: "No such image".into() });
        assert!(matches!(missing, EngineError::NotFound { .. }), "{missing}");
    }

    #[test]
    fn what_a_proxy_says_of_an_engine_that_does_not_answer_is_unavailable() {
        let answer = |status_code| Error::DockerResponseServerError { status_code, message: String::new() };
        for status in [502, 504] {
            assert!(matches!(failed("x", answer(status)), EngineError::Unavailable { .. }), "{status}");
        }
        for status in [500, 503] {
            assert!(matches!(failed("x", answer(status)), EngineError::Call { .. }), "{status}: the Engine's own");
        }
    }
}
