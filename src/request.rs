//! What the Engine is asked for besides its own models, as plain values.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where a container writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output; all output of a container with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a container's output, as it was written: it may begin and end anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it was written to.
    pub stream: OutputStream,
    /// What was written.
    pub bytes: Bytes,
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

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveContainer {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes as well.
    pub volumes: bool,
}
