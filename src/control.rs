//! The control socket: how the running daemon is asked, and what it answers.
//!
//! The daemon greets whoever connects with a line that says who it is, a [`Greeting`]. The peer sends one line, an
//! [`Asked`], and gets one line for each [`Answer`]; the last is [`Answer::End`], and the connection ends with it. Every line
//! is a JSON object. New keys may come at any time and are to be overlooked; [`VERSION`] changes when old ones change their
//! meaning.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::{Timestamp, rfc3339};
use crate::names::{ProjectName, ServiceName};
use crate::record::Record;
use crate::request::{Output, OutputStream};

pub mod client;
pub mod place;
pub mod server;

/// Version of the requests and answers.
pub const VERSION: u32 = 1;

/// The daemon's first line: who answers here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Version of the requests that it understands.
    pub version: u32,
    /// Its project.
    pub project_name: ProjectName,
    /// Address of its Engine.
    pub engine: String,
    /// Its process, as it sees itself.
    pub pid: u32,
}

/// The peer's one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Version of the request.
    pub version: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Whether the daemon is well.
    Health,
    /// The intervals that are in force.
    Intervals,
    /// How the daemon and its services are.
    Status,
    /// All jobs.
    Ls,
    /// A job's records, newest first.
    Runs {
        /// The job.
        job: ServiceName,
        /// How many at most; none: all.
        #[serde(default)]
        limit: Option<usize>,
    },
    /// One job, or one run of it.
    Inspect {
        /// The job.
        job: ServiceName,
        /// The run's iteration.
        #[serde(default)]
        run: Option<u64>,
    },
    /// Run a job now: its record, its output as it comes, and its record with the verdict.
    Run {
        /// The job.
        job: ServiceName,
        /// Variables over those of the Compose file.
        #[serde(default)]
        environment: BTreeMap<String, String>,
        /// Only the first record is wanted.
        #[serde(default)]
        detach: bool,
    },
    /// A run's output.
    Logs {
        /// The job.
        job: ServiceName,
        /// The run's iteration; none: the newest.
        #[serde(default)]
        run: Option<u64>,
        /// Until its end, where it goes on.
        #[serde(default)]
        follow: bool,
    },
    /// The record of the run that goes on, once it has its verdict; of the newest where none goes on.
    Wait {
        /// The job.
        job: ServiceName,
    },
    /// End the run that goes on; its record once it has its verdict.
    Cancel {
        /// The job.
        job: ServiceName,
    },
    /// Skip the job's slots from now on.
    Pause {
        /// The job.
        job: ServiceName,
    },
    /// Skip them no more.
    Resume {
        /// The job.
        job: ServiceName,
    },
    /// Start a service.
    Start {
        /// The service.
        service: ServiceName,
    },
    /// Stop a service.
    Stop {
        /// The service.
        service: ServiceName,
    },
    /// Stop a service and start it.
    Restart {
        /// The service.
        service: ServiceName,
    },
    /// What runs next.
    Next,
    /// A job's slot, what became of it, and why.
    Explain {
        /// The job.
        job: ServiceName,
        /// The moment whose slot it is; none: the newest.
        #[serde(default, with = "rfc3339::option")]
        at: Option<Timestamp>,
    },
    /// The last events.
    Events {
        /// And those that follow.
        #[serde(default)]
        follow: bool,
    },
    /// Read the settings and the Compose files again.
    Reload,
}

impl Request {
    /// Whether the answer may take as long as a run does, or for ever.
    #[must_use]
    pub fn is_long(&self) -> bool {
        match self {
            Self::Run { detach, .. } => !detach,
            Self::Logs { follow, .. } | Self::Events { follow } => *follow,
            Self::Wait { .. } | Self::Cancel { .. } | Self::Start { .. } | Self::Stop { .. } | Self::Restart { .. } => {
                true
            }
            Self::Health
            | Self::Intervals
            | Self::Status
            | Self::Ls
            | Self::Runs { .. }
            | Self::Inspect { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Next
            | Self::Explain { .. }
            | Self::Reload => false,
        }
    }
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Health`].
    Health(Health),
    /// To [`Request::Status`].
    Status(Map<String, Value>),
    /// A job.
    Job(Box<Job>),
    /// A run, or a slot without one.
    Record(Box<Record>),
    /// A piece of a run's output.
    Output(OutputLine),
    /// A slot that is to come.
    Next(NextSlot),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// Something that happened.
    Event(Map<String, Value>),
    /// What was asked for is done; says what.
    Done(String),
    /// What a person should know, beside the answer.
    Notice(String),
    /// To [`Request::Intervals`]: seconds by service, null while it is paused.
    Intervals(BTreeMap<ServiceName, Option<u64>>),
    /// The request was not understood or not carried out.
    Error(String),
    /// Nothing follows.
    End {},
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: ServiceName,
    /// What it is.
    pub kind: JobKind,
    /// What starts it.
    pub trigger: JobTrigger,
    /// What it does now.
    pub state: JobState,
    /// Its slots are skipped, or it has none for now.
    pub paused: bool,
    /// Its newest run, without its output.
    pub last_run: Option<Record>,
    /// When its next slot falls due; none where it has none, or is paused.
    #[serde(default, with = "rfc3339::option")]
    pub next_fire: Option<Timestamp>,
    /// Its interval in seconds.
    pub interval: Option<f64>,
    /// The Engine keeps its schedule, not we.
    pub engine_owned: bool,
}

/// What a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A service of the Compose file.
    Service,
    /// A job of the Compose file.
    Job,
    /// A command in a running container.
    Exec,
}

/// What starts a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobTrigger {
    /// Its interval.
    Interval,
    /// Its calendar.
    Schedule,
    /// Nothing but commands.
    Manual,
}

/// What a job does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nothing.
    Idle,
    /// A run waits to begin.
    Queued,
    /// A run goes on.
    Running,
}

/// A piece of a run's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLine {
    /// Where it was written to.
    pub stream: OutputStream,
    /// What was written; in Base64 where `base64`.
    pub text: String,
    /// It is not UTF-8.
    #[serde(default)]
    pub base64: bool,
}

impl From<Output> for OutputLine {
    fn from(output: Output) -> Self {
        let stream = output.stream;
        match String::from_utf8(output.bytes.into()) {
            Ok(text) => Self { stream, text, base64: false },
            Err(other) => Self { stream, text: BASE64_STANDARD.encode(other.as_bytes()), base64: true },
        }
    }
}

impl OutputLine {
    /// What was written, byte by byte; none where it was not written as we do.
    #[must_use]
    pub fn bytes(self) -> Option<Vec<u8>> {
        if self.base64 { BASE64_STANDARD.decode(self.text).ok() } else { Some(self.text.into_bytes()) }
    }
}

/// A slot that is to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextSlot {
    /// Whose.
    pub name: ServiceName,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: Timestamp,
    /// It will be skipped unless the job is resumed.
    pub paused: bool,
}

/// What became of a slot, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The job.
    pub job: ServiceName,
    /// When the slot fell due or will; none for a run without one.
    #[serde(default, with = "rfc3339::option")]
    pub slot: Option<Timestamp>,
    /// What became of it; none where it is still to come.
    pub record: Option<Record>,
    /// What became of it and why, each sentence the reason of the one before.
    pub reasons: Vec<String>,
    /// Other runs that the sentences name.
    pub others: Vec<Record>,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Engine and Redis can be used, and there are no problems. A broken project does not count: the last good one is in use.
    pub well: bool,
    /// `ok`, or why the Engine cannot be used.
    pub engine: String,
    /// `ok`, or why Redis cannot be used; `ok` too where there is none and none is wanted.
    pub redis: String,
    /// `ok`, or what is wrong with the Compose files as they are now.
    pub project: String,
    /// `ok`, `in memory`, or why the state directory cannot be used: the daemon goes on in memory, and is well.
    pub ledger: String,
    /// `ok`, or what is wrong with the settings as they are now, while the last good ones are in use: the daemon is well.
    #[serde(default)]
    pub settings: String,
    /// What else is wrong, such as a run that goes on past its limit.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The project that the daemon is of.
    pub project_name: ProjectName,
    /// The daemon's process.
    pub pid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_on_the_wire_stays() {
        let asked = Asked { version: VERSION, request: Request::Health };
        let line = r#"{"version":1,"request":"health"}"#;
        assert_eq!(serde_json::to_string(&asked).unwrap(), line);
        assert_eq!(serde_json::from_str::<Asked>(line).unwrap(), asked);
        assert_eq!(serde_json::to_string(&Answer::Error("no".into())).unwrap(), r#"{"error":"no"}"#);
        let newer = r#"{"version":1,"request":"health","deep":true}"#;
        assert_eq!(serde_json::from_str::<Asked>(newer).unwrap(), asked, "keys of later versions are overlooked");
    }
}
