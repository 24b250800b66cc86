//! Commands as they arrive: from anybody, in any form.

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::names::RequestId;

/// Longest command that is read, in bytes; of a longer one only the `request_id` is looked for.
const LONGEST: usize = 16 * 1024;

/// The key of the `request_id` in a message's text.
const KEY: &[u8] = b"\"request_id\"";

/// Longest action name that is repeated in an error.
const LONGEST_ACTION: usize = 64;

/// A command that can be looked at further.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What to do.
    pub action: String,
    /// Who asks; without it there is no reply.
    pub request_id: Option<RequestId>,
    /// The action's parameters.
    pub params: Map<String, Value>,
}

impl Command {
    /// Stands for the action and its parameters: `ACTION DIGEST`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let params = serde_json::to_string(&self.params).unwrap_or_default();
        format!("{} {:x}", self.action, Sha256::digest(params.as_bytes()))
    }
}

/// A message that is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Who asks, where that can be read.
    pub request_id: Option<RequestId>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a message on the command channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too long.
    #[error("a command has at most {LONGEST} bytes, not {0}")]
    Long(usize),
    /// Not JSON, or nested too deeply.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// A field of another type.
    #[error("`{field}` is not {expected}")]
    Type {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// No action.
    #[error("`action` is missing")]
    NoAction,
}

impl Command {
    /// Reads a message.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        if payload.len() > LONGEST {
            return Err(Malformed { request_id: request_id(payload), fault: Fault::Long(payload.len()) });
        }
        let mut fields: Map<String, Value> = serde_json::from_slice(payload)
            .map_err(|error| Malformed { request_id: request_id(payload), fault: Fault::Json(error.to_string()) })?;
        let request_id = match fields.remove("request_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => match text.parse() {
                Ok(id) => Some(id),
                Err(_) => {
                    return Err(wrong(None, "request_id", "1 to 128 ASCII letters, digits, '.', '_', ':' or '-'"));
                }
            },
            Some(_) => return Err(wrong(None, "request_id", "a text")),
        };
        let action = match fields.remove("action") {
            None | Some(Value::Null) => return Err(Malformed { request_id, fault: Fault::NoAction }),
            Some(Value::String(action)) => action,
            Some(_) => return Err(wrong(request_id, "action", "a text")),
        };
        let params = match fields.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(wrong(request_id, "params", "an object")),
        };
        Ok(Self { action, request_id, params })
    }

    /// The action's name, cut to 64 characters, for logs and errors.
    pub fn shown_action(&self) -> String {
        self.action.chars().take(LONGEST_ACTION).collect()
    }
}

fn wrong(request_id: Option<RequestId>, field: &'static str, expected: &'static str) -> Malformed {
    Malformed { request_id, fault: Fault::Type { field, expected } }
}

/// The `request_id` of a message that is not read as a whole: by its text where only one place can be meant, which is fast,
/// else by its structure.
fn request_id(payload: &[u8]) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct Envelope {
        request_id: Option<String>,
    }
    let mut places = memmem::find_iter(payload, KEY);
    let first = places.next()?;
    if places.next().is_some()
        && let Ok(envelope) = serde_json::from_slice::<Envelope>(payload)
    {
        return envelope.request_id?.parse().ok();
    }
    value_at(payload, first)
}

/// The text that follows the key at a place.
fn value_at(payload: &[u8], place: usize) -> Option<RequestId> {
    let rest = payload.get(place + KEY.len()..)?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', rest.get(..rest.len().min(LONGEST))?)?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn malformed(payload: &[u8]) -> (Option<String>, String) {
        let malformed = Command::parse(payload).unwrap_err();
        (malformed.request_id.map(String::from), malformed.fault.to_string())
    }

    #[test]
    fn all_but_the_action_may_be_missing() {
        let command = Command::parse(br#"{"action": "go"}"#).unwrap();
        assert_eq!(command, Command { action: "go".into(), request_id: None, params: Map::new() });
        let command = Command::parse(
            br#"{"action": "go", "request_id": "a-1", "params": {"service": "x"}, "timestamp": 1.5, "more": 1}"#,
        );
        let command = command.unwrap();
        assert_eq!(command.request_id.unwrap().as_str(), "a-1");
        assert_eq!(Value::Object(command.params), json!({"service": "x"}));
        assert!(Command::parse(br#"{"action": "go", "request_id": null, "params": null}"#).is_ok());
    }

    #[test]
    fn a_broken_message_keeps_a_readable_request_id() {
        let id = Some("r:1".to_owned());
        for payload in [
            r#"{"request_id": "r:1", "action": "go""#,
            r#"{"request_id"  :"r:1", nonsense"#,
            r#"{"request_id": "r:1"}"#,
            r#"{"request_id": "r:1", "action": 5}"#,
            r#"{"request_id": "r:1", "action": "go", "params": [1]}"#,
        ] {
            assert_eq!(malformed(payload.as_bytes()).0, id, "{payload}");
        }
        for payload in ["", "null", "[]", "\"x\"", r#"{"request_id": "a/b", "action": "go"}"#, r#"{"request_id": 5}"#] {
            assert_eq!(malformed(payload.as_bytes()).0, None, "{payload}");
        }
        assert_eq!(malformed(b"\xff\xfe{\"request_id\":\"r:1\"").0, id);
    }

    #[test]
    fn a_deeply_nested_or_long_message_is_refused_by_its_request_id() {
        let deep = format!(r#"{{"request_id": "r1", "action": "go", "params": {}"#, "[".repeat(10_000));
        let (id, fault) = malformed(deep.as_bytes());
        assert_eq!(id.as_deref(), Some("r1"));
        assert!(fault.contains("recursion limit"), "{fault}");

        let long = format!(r#"{{"action": "go", "params": {{"x": "{}"}}, "request_id": "r2"}}"#, "x".repeat(1 << 20));
        let (id, fault) = malformed(long.as_bytes());
        assert_eq!(id.as_deref(), Some("r2"));
        assert_eq!(fault, format!("a command has at most 16384 bytes, not {}", long.len()));

        let nested = format!(
            r#"{{"params": {{"request_id": "inner"}}, "x": "{}", "request_id": "outer"}}"#,
            "x".repeat(LONGEST)
        );
        assert_eq!(malformed(nested.as_bytes()).0.as_deref(), Some("outer"));
    }

    proptest! {
        #[test]
        fn no_message_panics(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Command::parse(&payload);
            let _ = request_id(&[br#"{"request_id":"#.as_slice(), &payload].concat());
        }
    }
}
