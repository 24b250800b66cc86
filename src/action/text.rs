//! Texts with placeholders, `stopped: {payload.reason}`, parsed once.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Where a placeholder's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The `params` of a command.
    Params,
    /// The message that a reaction answers.
    Payload,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Params => "params.",
            Self::Payload => "payload.",
        })
    }
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A brace without its other half.
    #[error("{0:?}: a `{{` or `}}` without its other half; write `{{{{` for a brace")]
    Brace(String),
    /// A placeholder that is neither `params.NAME` nor `payload.NAME`.
    #[error("{{{0}}}: a placeholder is {{params.NAME}} or {{payload.NAME}}")]
    Placeholder(String),
}

/// A text with placeholders. `{{` and `}}` stand for one brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Root, String),
}

/// Longest value that a placeholder takes, in characters; what is longer is cut.
const LONGEST_VALUE: usize = 1024;

impl Text {
    /// The text with the fields of `values` in place of its placeholders.
    ///
    /// Strings, numbers and booleans are taken, cut to 1024 characters and without control characters; what is absent or
    /// anything else becomes `unknown`.
    pub fn fill(&self, values: &Map<String, Value>) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Field(_, field) => match values.get(field).and_then(scalar) {
                    Some(text) => filled.push_str(&text),
                    None => filled.push_str("unknown"),
                },
            }
        }
        filled
    }

    /// Its one placeholder, if it is nothing else.
    pub fn as_placeholder(&self) -> Option<(Root, &str)> {
        match self.0.as_slice() {
            [Part::Field(root, field)] => Some((*root, field)),
            _ => None,
        }
    }

    /// The fields that its placeholders name.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Field(_, field) => Some(field.as_str()),
        })
    }

    /// The roots of its placeholders.
    pub fn roots(&self) -> impl Iterator<Item = Root> + '_ {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Field(root, _) => Some(*root),
        })
    }
}

/// What a placeholder shows of a value; none for null, lists and objects.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.chars().filter(|c| !c.is_control()).take(LONGEST_VALUE).collect()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl FromStr for Text {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let brace = || TextError::Brace(text.to_owned());
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '{' | '}' if rest.next_if_eq(&next).is_some() => literal.push(next),
                '{' => {
                    let inside: String = rest.by_ref().take_while(|c| *c != '}').collect();
                    if !text.contains('}') {
                        return Err(brace());
                    }
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                    parts.push(field(&inside)?);
                }
                '}' => return Err(brace()),
                other => literal.push(other),
            }
        }
        parts.push(Part::Literal(literal));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        Ok(Self(parts))
    }
}

fn field(inside: &str) -> Result<Part, TextError> {
    let unknown = || TextError::Placeholder(inside.to_owned());
    let (root, name) = inside.split_once('.').ok_or_else(unknown)?;
    let root = match root {
        "params" => Root::Params,
        "payload" => Root::Payload,
        _ => return Err(unknown()),
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(unknown());
    }
    Ok(Part::Field(root, name.to_owned()))
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(text: &str, values: &Value) -> String {
        text.parse::<Text>().unwrap().fill(values.as_object().unwrap())
    }

    #[test]
    fn placeholders_take_the_fields_values() {
        assert_eq!(fill("ended: {payload.reason}!", &json!({"reason": "EOF"})), "ended: EOF!");
        assert_eq!(fill("{payload.a}/{payload.b}", &json!({"a": 1, "b": true})), "1/true");
        assert_eq!(fill("{{{params.a}}}", &json!({"a": "x"})), "{x}");
    }

    #[test]
    fn what_is_absent_or_no_scalar_is_unknown_and_what_is_long_is_cut() {
        assert_eq!(fill("{payload.reason}", &json!({})), "unknown");
        assert_eq!(fill("{payload.reason}", &json!({"reason": ["x"]})), "unknown");
        assert_eq!(fill("{payload.reason}", &json!({"reason": "a\u{0}b\n"})), "ab");
        assert_eq!(fill("{payload.reason}", &json!({"reason": "x".repeat(10_000)})).len(), LONGEST_VALUE);
    }

    #[test]
    fn a_broken_placeholder_is_an_error() {
        for text in ["{", "}", "a {params.x", "{params}", "{params.}", "{params.a b}", "{env.x}"] {
            assert!(text.parse::<Text>().is_err(), "{text}");
        }
    }
}
