//! The sections of the settings, as the program uses them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{self, Deserializer};
use tracing_subscriber::filter::Targets;

use super::scalar::{self, DAY, HOUR, MINUTE, Variables, WEEK, YEAR};
use crate::clock::Span;
use crate::control::place::Places;
use crate::names::{ProjectName, ServiceName, SourceId};
use crate::schedule::{Interval, IntervalError};
use crate::spec::Dialect;

/// What is logged, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Least severe level, also per module.
    pub level: LogFilter,
    /// Form of a line.
    pub format: LogFormat,
    /// Colours of the text format.
    pub color: Color,
}

/// A level for all, and others for single modules: `info,sense_orchestrator::runner=debug`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(pub Targets);

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rule =
            || format!("{text:?} is no level; write error, warn, info, debug, trace or off, also `module=level`");
        // `Targets` takes a lone word that is no level for the name of a module, and would log it at every level.
        let words = || text.split(',').map(str::trim);
        let known = |word: &str| tracing_subscriber::filter::LevelFilter::from_str(word).is_ok();
        if !words().all(|word| word.rsplit('=').next().is_some_and(known)) {
            return Err(rule());
        }
        words().collect::<Vec<_>>().join(",").parse().map(Self).map_err(|_| rule())
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Whether the text format has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Where the Compose project is and how it is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compose {
    /// Compose files in their order; empty: to be found.
    #[serde(deserialize_with = "scalar::list")]
    pub files: Vec<PathBuf>,
    /// Base of the relative paths in the Compose files; none: the first file's directory.
    pub project_directory: Option<PathBuf>,
    /// The project's name; none: to be derived.
    pub project_name: Option<ProjectName>,
    /// Profiles that are always active.
    #[serde(deserialize_with = "scalar::list")]
    pub profiles: Vec<String>,
    /// Files instead of the project directory's `.env`.
    #[serde(deserialize_with = "scalar::list")]
    pub env_files: Vec<PathBuf>,
    /// What interpolation sees before `.env`; of our own variables only those that the setting names.
    #[serde(skip)]
    pub environment: Variables,
    /// Our own `HOME`, which is the host's only outside of a container.
    #[serde(skip)]
    pub home: Option<String>,
    /// `PWD`: what the shell that started us calls the directory, where that is the one that we are in.
    #[serde(skip)]
    pub shell_directory: Option<PathBuf>,
    /// The setting that [`Compose::environment`] is made of: `NAME` or `NAME=value`.
    #[serde(rename = "environment", deserialize_with = "scalar::list")]
    pub(super) environment_names: Vec<String>,
    /// Version of Docker Compose whose labels and hashes are written; none: the one that deployed us, else the default.
    #[serde(deserialize_with = "dialect")]
    pub dialect: Option<Dialect>,
}

fn dialect<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Dialect>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let version = text.strip_suffix(".x").map_or_else(|| text.clone(), |major| format!("{major}.0"));
    let wrong = || de::Error::custom(format!("{text:?} is neither auto nor a Docker Compose version such as 2.40.3"));
    if text == "auto" { Ok(None) } else { version.parse().map(Some).map_err(|_| wrong()) }
}

/// How the Engine is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docker {
    /// The Engine's address.
    pub host: DockerHost,
    /// TLS with a checked certificate; for [`DockerHost::Tcp`] only.
    #[serde(deserialize_with = "scalar::flag")]
    pub tls_verify: bool,
    /// Directory with `ca.pem`, `cert.pem` and `key.pem`.
    pub cert_path: Option<PathBuf>,
    /// Directory of the `config.json` with registry credentials.
    pub config: Option<PathBuf>,
}

/// Address of the Engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DockerHost {
    /// Path of a socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl TryFrom<String> for DockerHost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let address = address.trim_end_matches('/');
                let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
                if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                    return Err(format!("{text:?} needs a host and a port: tcp://host:port"));
                }
                Ok(Self::Tcp(address.into()))
            }
            Some((scheme @ ("ssh" | "http" | "https" | "npipe" | "fd"), _)) => {
                Err(format!("{scheme}:// is not supported; write unix:///path or tcp://host:port"))
            }
            _ => Err(format!("{text:?} is no address of an Engine; write unix:///path or tcp://host:port")),
        }
    }
}

impl std::fmt::Display for DockerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Where the running daemon is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The socket's path; none: in a directory that only we can write to, else without a file.
    pub socket: Option<PathBuf>,
    /// All places that the socket may be at.
    #[serde(skip)]
    pub places: Places,
}

/// How scheduled runs are started.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduler {
    /// Runs at the same time.
    #[serde(deserialize_with = "scalar::whole::<_, _, 1, 1000>")]
    pub max_parallel: usize,
    /// When services first run.
    pub first_run: FirstRun,
}

/// When a scheduled service first runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstRun {
    /// At our start.
    Immediate,
    /// At our start where it missed a slot, or never had one; else at its next slot.
    Due,
    /// At its next slot; one interval later where it never had one.
    NextSlot,
}

/// The daemon itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// What it does where another one has the state directory.
    pub standby: Standby,
}

/// What a daemon does where another one has the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standby {
    /// It says so and ends.
    Exit,
    /// It says so and waits until it can have it itself.
    Wait,
}

/// What holds for every run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// Time until a run is stopped and removed, where its service has no own.
    #[serde(deserialize_with = "scalar::duration::<_, 1, WEEK>")]
    pub timeout: Duration,
    /// Bytes that are kept of the end of a failed run's output.
    #[serde(deserialize_with = "scalar::size::<_, 1_048_576>")]
    pub tail: usize,
    /// Of which runs the output is kept.
    pub keep_output: KeepOutput,
    /// Records of each service that are kept, of runs and as many of slots without one.
    #[serde(deserialize_with = "scalar::whole::<_, _, 1, 100_000>")]
    pub keep: usize,
    /// Age up to which they are kept.
    #[serde(deserialize_with = "scalar::duration::<_, DAY, { 10 * YEAR }>")]
    pub keep_for: Duration,
}

/// Of which runs the output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepOutput {
    /// Of those that did not succeed.
    Failed,
    /// Of all: one more call to the Engine for each that succeeds.
    All,
}

/// Where the daemon keeps what it remembers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateDirectory {
    /// The directory; none: memory is all.
    pub dir: Option<PathBuf>,
}

/// How the daemon ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long runs may finish before they are stopped.
    #[serde(deserialize_with = "scalar::duration::<_, 0, HOUR>")]
    pub grace: Duration,
}

/// How services are watched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Time between two looks.
    #[serde(deserialize_with = "scalar::duration::<_, 1, HOUR>")]
    pub interval: Duration,
    /// Intervals without success after which a service is overdue.
    #[serde(deserialize_with = "scalar::whole::<_, _, 1, 1000>")]
    pub overdue_factor: u32,
    /// Time between two warnings of the same overdue service.
    #[serde(deserialize_with = "scalar::duration::<_, MINUTE, WEEK>")]
    pub remind: Duration,
    /// Life of `status:orchestrator` in Redis.
    #[serde(deserialize_with = "scalar::duration::<_, 1, WEEK>")]
    pub status_ttl: Duration,
}

/// What may be commanded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Compose profiles whose services may be run, started and stopped.
    #[serde(deserialize_with = "scalar::list")]
    pub profiles: Vec<String>,
    /// Services that may not be restarted.
    #[serde(deserialize_with = "scalar::list")]
    pub deny: Vec<ServiceName>,
    /// Commands at the same time.
    #[serde(deserialize_with = "scalar::whole::<_, _, 1, 10_000>")]
    pub max_in_flight: usize,
    /// How long a reply is kept, and a repeated request answered with it.
    #[serde(deserialize_with = "scalar::duration::<_, 1, HOUR>")]
    pub reply_ttl: Duration,
}

/// What is known of a service beyond its Compose file; what is absent has a default elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// When it runs by itself.
    #[serde(default)]
    pub every: Every,
    /// Time until its runs are stopped and removed; none: [`Runs::timeout`].
    #[serde(default, deserialize_with = "scalar::optional_duration::<_, 1, WEEK>")]
    pub timeout: Option<Duration>,
    /// Where it reports; none: nowhere.
    pub status: Option<SourceId>,
    /// Its name in the schedule section of Redis; none: its own.
    pub schedule_key: Option<String>,
    /// The Compose profile that its runs enable.
    pub profile: Option<String>,
    /// Environment of its runs, over the Compose file's.
    #[serde(default)]
    pub env: Variables,
    /// Whether a run that did not refresh [`Service::status`] has failed.
    #[serde(default, deserialize_with = "scalar::flag")]
    pub check_output: bool,
    /// Whether a run that wrote no readings of [`Service::status`]' source is warned of.
    #[serde(default, deserialize_with = "scalar::flag")]
    pub expects_readings: bool,
    /// Whether a start recreates its dependencies, too, where they run and differ from the Compose file.
    #[serde(default, deserialize_with = "scalar::flag")]
    pub recreate_dependencies: bool,
}

impl Service {
    /// True for a service that has a place in the schedule, if only a paused one.
    pub fn is_scheduled(&self) -> bool {
        self.every != Every::OnCommand || self.schedule_key.is_some()
    }
}

/// When a service runs by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Every {
    /// Nothing is said: on command only.
    #[default]
    OnCommand,
    /// 0 or null is said: not until the schedule in Redis says an interval.
    Paused,
    /// On this interval.
    Interval(Interval),
}

impl Every {
    /// The interval, if there is one.
    pub fn interval(self) -> Option<Interval> {
        match self {
            Self::Interval(interval) => Some(interval),
            Self::OnCommand | Self::Paused => None,
        }
    }
}

/// Why a span of time does not say when a service runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EveryError {
    /// A part of a second.
    #[error("an interval has whole seconds")]
    Fraction,
    /// Too short or too long.
    #[error(transparent)]
    Interval(#[from] IntervalError),
}

impl TryFrom<Span> for Every {
    type Error = EveryError;

    fn try_from(Span(span): Span) -> Result<Self, EveryError> {
        match span {
            Duration::ZERO => Ok(Self::Paused),
            span if span.subsec_nanos() != 0 => Err(EveryError::Fraction),
            span => Ok(Self::Interval(span.try_into()?)),
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Span>::deserialize(deserializer)? {
            None => Ok(Self::Paused),
            Some(span) => span.try_into().map_err(de::Error::custom),
        }
    }
}

/// The services of the settings.
pub type Services = BTreeMap<ServiceName, Service>;

/// Redis, as the settings say it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedis {
    #[serde(deserialize_with = "scalar::secret")]
    pub(super) url: Option<SecretString>,
    pub(super) url_file: Option<PathBuf>,
    pub(super) username: Option<String>,
    #[serde(deserialize_with = "scalar::secret")]
    pub(super) password: Option<SecretString>,
    pub(super) password_file: Option<PathBuf>,
    #[serde(deserialize_with = "scalar::optional_whole::<_, _, 0, 255>")]
    pub(super) database: Option<u16>,
    pub(super) key_prefix: Option<String>,
}
