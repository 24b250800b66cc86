//! What a run ended as, and how errors are told.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::names::{RunId, ServiceName};
use crate::record::Reason;

/// An error with all its sources, `outer: inner: innermost`, for a log line or a reply.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            // Some libraries say their source themselves.
            let text = error.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

/// What is wrong at present, by topic; it is told in `status:orchestrator`. Each topic has one writer.
pub type Problems = BTreeMap<&'static str, Vec<String>>;

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Its interval came round.
    Schedule,
    /// A command asked for it.
    Command,
    /// An earlier life of the daemon started it; this one saw it to its end.
    Adopted,
}

impl Trigger {
    /// The word in logs and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Command => "command",
            Self::Adopted => "adopted",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0, and the source reported where that is looked for.
    Succeeded,
    /// An exit code other than 0, or no exit at all.
    Failed,
    /// Past its limit: stopped and removed.
    TimedOut,
    /// Exit code 0, but the source did not refresh its status during the run.
    NoOutput,
    /// Ended by our own shutdown.
    Cancelled,
}

impl Outcome {
    /// The word in logs and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NoOutput => "no_output",
            Self::Cancelled => "cancelled",
        }
    }

    /// True for [`Outcome::Succeeded`] alone.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Succeeded)
    }
}

/// One run of an ephemeral service, from the decision to its container's removal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The service that ran.
    pub service: ServiceName,
    /// This run.
    pub run_id: RunId,
    /// Why it ran.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: Outcome,
    /// The container's exit code; none when it never ran.
    pub exit_code: Option<i64>,
    /// Wall-clock start.
    pub started_at: Timestamp,
    /// From the decision to the verdict; of an adopted run what the Engine says of its container.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// What went wrong, with its causes; none on success.
    pub error: Option<String>,
    /// The last lines of stdout and stderr of a failed run, 64 KiB at most; empty on success.
    pub tail: String,
    /// What else is to be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// What is wrong although it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<&'static str>,
    /// When the container was started; none for a run that never was.
    #[serde(skip)]
    pub container_started_at: Option<Timestamp>,
    /// When the container ended.
    #[serde(skip)]
    pub container_finished_at: Option<Timestamp>,
    /// The kernel killed it for want of memory.
    #[serde(skip)]
    pub out_of_memory: bool,
    /// More about the outcome, in one word.
    #[serde(skip)]
    pub reason: Option<Reason>,
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("talkative: {0}")]
    struct Talkative(#[source] Outer);

    #[test]
    fn a_chain_names_every_source_once() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(Chain(&error).to_string(), "outer: inner");
        assert_eq!(Chain(&Talkative(error)).to_string(), "talkative: outer: inner");
    }
}
