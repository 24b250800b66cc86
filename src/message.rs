//! The wire types of the Redis contract, nothing else.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::names::{ProjectName, RequestId, ServiceName, SourceId};

pub mod command;

pub use command::{Command, Malformed};

/// Channel that says which section of the configuration changed.
pub const CONFIG_CHANGED: &str = "config:changed";

/// Section with the intervals, which the daemon itself applies.
pub const SCHEDULE: &str = "schedule";

/// Key of a section of the configuration.
#[must_use]
pub fn config_key(section: &str) -> String {
    format!("config:{section}")
}

/// The names of what is the daemon's own on Redis: daemons of different projects keep apart by a prefix. What sources and
/// dashboards write has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnNames {
    prefix: String,
}

impl OwnNames {
    /// Names that begin with a prefix, as it is.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Channel of the commands.
    #[must_use]
    pub fn commands(&self) -> String {
        format!("{}cmd:orchestrator", self.prefix)
    }

    /// Channel and key of a reply.
    #[must_use]
    pub fn reply(&self, request: &RequestId) -> String {
        format!("{}cmd:orchestrator:response:{request}", self.prefix)
    }

    /// Key of a service's run records.
    #[must_use]
    pub fn runs(&self, service: &ServiceName) -> String {
        format!("{}runs:{service}", self.prefix)
    }

    /// Key of the lease of the one daemon that works on a project of an Engine.
    #[must_use]
    pub fn lease(&self, engine: &str, project: &ProjectName) -> String {
        format!("{}lease:{engine}:{project}", self.prefix)
    }

    /// Key of the daemon's own status.
    #[must_use]
    pub fn status(&self, own: &SourceId) -> String {
        format!("{}{}", self.prefix, status_key(own))
    }
}

/// Key of a source's status.
#[must_use]
pub fn status_key(source: &SourceId) -> String {
    format!("status:{source}")
}

/// Key of what a source says of itself that does not change from one poll to the next.
#[must_use]
pub fn meta_key(source: &SourceId) -> String {
    format!("meta:{source}")
}

/// Beginning of the keys of a source's readings, `source:{source}:{sensor}`.
#[must_use]
pub fn readings_prefix(source: &SourceId) -> String {
    format!("source:{source}:")
}

/// When a reading was taken, by its own `timestamp`.
#[must_use]
pub fn reading_time(text: &str) -> Option<Timestamp> {
    let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
    fields.get("timestamp").and_then(Value::as_f64).map(Timestamp)
}

/// Whether a command did what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did.
    Ok,
    /// It did not; the reply's `error` says why.
    Error,
}

/// The answer to a command. All four keys are always present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The command's id.
    pub request_id: RequestId,
    /// Whether it worked.
    pub status: Verdict,
    /// What the action yields.
    pub data: Map<String, Value>,
    /// Why it did not work; null when it did.
    pub error: Option<String>,
}

impl Reply {
    /// The answer to a command that worked.
    #[must_use]
    pub fn ok(request_id: RequestId, data: Map<String, Value>) -> Self {
        Self { request_id, status: Verdict::Ok, data, error: None }
    }

    /// The answer to a command that did not.
    #[must_use]
    pub fn error(request_id: RequestId, error: impl Into<String>, data: Map<String, Value>) -> Self {
        Self { request_id, status: Verdict::Error, data, error: Some(error.into()) }
    }

    /// The answer as it is sent.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a source says of itself at `status:{source}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Which source.
    pub source_id: SourceId,
    /// When it last tried.
    pub last_poll: Option<Timestamp>,
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// What went wrong last; null while all is well.
    pub last_error: Option<String>,
    /// How often it tried.
    pub poll_count: u64,
    /// How often that failed.
    pub error_count: u64,
}

impl SourceStatus {
    /// Whether the source reported a success at that moment or later.
    #[must_use]
    pub fn succeeded_since(&self, moment: Timestamp) -> bool {
        self.last_success.is_some_and(|success| success >= moment)
    }

    /// The status of a source that never tried.
    #[must_use]
    pub fn new(source_id: SourceId) -> Self {
        Self { source_id, last_poll: None, last_success: None, last_error: None, poll_count: 0, error_count: 0 }
    }

    /// Reads a status field by field: one that is absent or of another type counts as null or 0. None where the text is no
    /// JSON object with a valid `source_id`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let stamp = |field| fields.get(field).and_then(Value::as_f64).map(Timestamp);
        let count = |field| fields.get(field).and_then(Value::as_u64).unwrap_or(0);
        Some(Self {
            source_id: fields.get("source_id").and_then(Value::as_str)?.parse().ok()?,
            last_poll: stamp("last_poll"),
            last_success: stamp("last_success"),
            last_error: fields.get("last_error").and_then(Value::as_str).map(str::to_owned),
            poll_count: count("poll_count"),
            error_count: count("error_count"),
        })
    }
}

/// What matters here of a source's `meta:{source}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceMeta {
    /// How often it means to succeed, in seconds; none where it says nothing that can be used.
    pub refresh_interval: Option<u64>,
    /// False where it says that it does nothing.
    pub enabled: bool,
}

impl SourceMeta {
    /// Reads it field by field; none where the text is no JSON object.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let enabled = fields.get("enabled").and_then(Value::as_bool).unwrap_or(true);
        Some(Self { refresh_interval: fields.get("refresh_interval").and_then(Value::as_u64), enabled })
    }
}

/// A message on [`CONFIG_CHANGED`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConfigChanged {
    /// Which section changed.
    pub section: String,
}

impl ConfigChanged {
    /// Longest message that is read, in bytes.
    const LONGEST: usize = 4096;

    /// Reads a message; none where it is not of that form.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > Self::LONGEST {
            return None;
        }
        serde_json::from_slice(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reply_always_has_its_four_keys() {
        let ok = Reply::ok("r1".parse().unwrap(), Map::new());
        assert_eq!(ok.to_json(), r#"{"request_id":"r1","status":"ok","data":{},"error":null}"#);
        let error = Reply::error("r1".parse().unwrap(), "no", Map::from_iter([("run_id".into(), json!("x"))]));
        assert_eq!(error.to_json(), r#"{"request_id":"r1","status":"error","data":{"run_id":"x"},"error":"no"}"#);
    }

    #[test]
    fn a_status_is_read_whatever_else_it_holds() {
        let status = SourceStatus::parse(r#"{"source_id": "x", "last_success": 5, "poll_count": "many", "more": []}"#);
        assert_eq!(
            status,
            Some(SourceStatus { last_success: Some(Timestamp(5.0)), ..SourceStatus::new("x".parse().unwrap()) })
        );
        for text in ["", "[]", "{}", r#"{"source_id": "a/b"}"#, "{"] {
            assert_eq!(SourceStatus::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_config_change_that_names_a_section_is_one() {
        assert_eq!(ConfigChanged::parse(br#"{"section": "a", "timestamp": 1.5}"#).unwrap().section, "a");
        for payload in [b"".as_slice(), b"{}", b"[]", br#"{"section": 5}"#, b"\xff", &[b' '; 5000]] {
            assert_eq!(ConfigChanged::parse(payload), None);
        }
    }
}
