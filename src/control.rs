//! The control socket: how the running daemon is asked, and what it answers.
//!
//! The daemon greets whoever connects with a line that says who it is, a [`Greeting`]. The peer sends one line, an
//! [`Asked`], and gets one line for each [`Answer`]; the connection ends with the last. Every line is a JSON object. New
//! keys may come at any time and are to be overlooked; [`VERSION`] changes when old ones change their meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{ProjectName, ServiceName};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Version of the request.
    pub version: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Whether the daemon is well.
    Health,
    /// The intervals that are in force.
    Intervals,
    /// Read the settings and the Compose files again.
    Reload,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Health`].
    Health(Health),
    /// To [`Request::Intervals`]: seconds by service, null while it is paused.
    Intervals(BTreeMap<ServiceName, Option<u64>>),
    /// What was asked for is done; says what.
    Done(String),
    /// The request was not understood or not carried out.
    Error(String),
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
