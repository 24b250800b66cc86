//! What `config:{section}` starts with: values of environment variables, with their JSON types.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The seeded sections, by name.
pub type Seeds = BTreeMap<String, Section>;

/// One section, an object at the key `config:{section}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Written even when none of its variables is set.
    #[serde(default)]
    pub always: bool,
    /// The fields of the object.
    pub fields: BTreeMap<String, Seed>,
}

/// One field of a section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Its environment variable. One that is empty counts as not set.
    pub env: String,
    /// Its JSON type.
    #[serde(default, rename = "as")]
    pub kind: Kind,
    /// Its value where the variable is not set or does not parse; the field is left out where this is absent.
    pub default: Option<Value>,
}

/// JSON type of a seeded field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The text as it is.
    #[default]
    String,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true`, `1` or `yes`, in any case; `false`, `0` or `no`.
    Bool,
    /// A JSON list.
    List,
}

impl Kind {
    /// The value that a text stands for.
    fn parse(self, text: &str) -> Option<Value> {
        let trimmed = text.trim();
        match self {
            Self::String => Some(Value::from(text)),
            Self::Int => trimmed.parse::<i64>().ok().map(Value::from),
            // `from_f64` has no number for infinities and NaN.
            Self::Float => trimmed.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
            Self::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => Some(Value::Bool(true)),
                "false" | "0" | "no" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::List => serde_json::from_str::<Vec<Value>>(trimmed).ok().map(Value::Array),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "a text",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Bool => "true or false",
            Self::List => "a JSON list",
        })
    }
}

/// A variable whose text is not what its field needs. The text is not kept: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVariable {
    /// The variable.
    pub variable: String,
    /// What it should have been.
    pub expected: Kind,
}

/// The sections' first values, and the variables that did not parse.
pub fn first_values(
    seeds: &Seeds,
    environment: &BTreeMap<String, String>,
) -> (BTreeMap<String, Map<String, Value>>, Vec<BadVariable>) {
    let mut values = BTreeMap::new();
    let mut bad = Vec::new();
    for (name, section) in seeds {
        let mut object = Map::new();
        let mut any_set = false;
        for (field, seed) in &section.fields {
            let text = environment.get(&seed.env).filter(|text| !text.is_empty());
            any_set |= text.is_some();
            let parsed = text.and_then(|text| seed.kind.parse(text));
            if text.is_some() && parsed.is_none() {
                bad.push(BadVariable { variable: seed.env.clone(), expected: seed.kind });
            }
            if let Some(value) = parsed.or_else(|| seed.default.clone()) {
                object.insert(field.clone(), value);
            }
        }
        if any_set || section.always {
            values.insert(name.clone(), object);
        }
    }
    (values, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seeds() -> Seeds {
        serde_yaml::from_str(
            "
            screen:
              fields:
                title: { env: TITLE }
                angle: { env: ANGLE, as: int, default: 0 }
                speed: { env: SPEED, as: float, default: 0.5 }
                dark: { env: DARK, as: bool, default: false }
                pages: { env: PAGES, as: list, default: [] }
            times: { always: true, fields: { a: { env: TIME_A, as: int, default: 30 } } }
            ",
        )
        .unwrap()
    }

    fn seed(environment: &[(&str, &str)]) -> (Value, Vec<String>) {
        let environment = environment.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let (values, bad) = first_values(&seeds(), &environment);
        (json!(values), bad.into_iter().map(|bad| bad.variable).collect())
    }

    #[test]
    fn a_section_is_written_when_one_of_its_variables_is_set() {
        assert_eq!(seed(&[]).0, json!({"times": {"a": 30}}));
        assert_eq!(seed(&[("ANGLE", "")]).0, json!({"times": {"a": 30}}));
        assert_eq!(
            seed(&[("ANGLE", "90")]).0["screen"],
            json!({"angle": 90, "speed": 0.5, "dark": false, "pages": []}),
            "a field without a value and a default is left out"
        );
    }

    #[test]
    fn values_have_their_json_types() {
        let environment =
            [("TITLE", "42"), ("ANGLE", " 90 "), ("SPEED", "2"), ("DARK", "YES"), ("PAGES", r#"[{"a": 1}]"#)];
        let (values, bad) = seed(&environment);
        assert_eq!(
            values["screen"].to_string(),
            r#"{"angle":90,"dark":true,"pages":[{"a":1}],"speed":2.0,"title":"42"}"#
        );
        assert!(bad.is_empty());
    }

    #[test]
    fn a_variable_that_does_not_parse_is_named_and_its_default_used() {
        let environment = [("ANGLE", "x"), ("SPEED", "inf"), ("DARK", "maybe"), ("PAGES", "{"), ("TIME_A", "1.5")];
        let (values, bad) = seed(&environment);
        assert_eq!(values["screen"], json!({"angle": 0, "speed": 0.5, "dark": false, "pages": []}));
        assert_eq!(values["times"], json!({"a": 30}));
        assert_eq!(bad, ["ANGLE", "DARK", "PAGES", "SPEED", "TIME_A"]);
    }
}
