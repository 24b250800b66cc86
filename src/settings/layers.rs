//! What one source of settings says.

use figment::error::Actual;
use figment::value::{Dict, Empty, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::error::{Place, Problem, SettingsError, Source};
use super::places::Places;

/// Sections whose entries the user names; a null entry removes what a lower layer said.
pub(super) const NAMED_SECTIONS: [&str; 5] = ["services", "actions", "reactions", "config_changes", "seeds"];

/// What one source says.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Who says it.
    pub(super) source: Source,
    /// What it says.
    pub(super) values: Dict,
    /// The lines of its keys; empty for what is no file.
    pub(super) places: Places,
}

impl Layer {
    /// A layer of one value.
    pub(super) fn single(source: Source, path: &[String], value: Value) -> Self {
        let mut keys = path.iter().rev();
        let mut values = Dict::new();
        if let Some(last) = keys.next() {
            values.insert(last.clone(), value);
        }
        for key in keys {
            values = Dict::from([(key.clone(), Value::from(values))]);
        }
        Self { source, values, places: Places::default() }
    }

    /// A layer of a YAML text; what is wrong with it goes to `faults`, and the rest is still read.
    ///
    /// None when it is not YAML at all.
    pub(super) fn yaml(source: Source, text: &str, faults: &mut Vec<SettingsError>) -> Option<Self> {
        let mut fault = |line, key: &[String], problem| {
            faults.push(SettingsError { place: Place { source: source.clone(), line }, key: key.join("."), problem });
        };
        let places = match Places::read(text) {
            Ok(places) => places,
            Err(syntax) => {
                fault(syntax.line, &[], Problem::Syntax(syntax.reason));
                return None;
            }
        };
        for twice in &places.duplicates {
            fault(Some(twice.line), &twice.path, Problem::Duplicate { first: twice.first });
        }
        if !places.duplicates.is_empty() {
            return None;
        }
        let parsed = serde_yaml::from_str::<serde_yaml::Value>(text).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        let values = match parsed {
            Ok(serde_yaml::Value::Null) => Dict::new(),
            Ok(serde_yaml::Value::Mapping(mapping)) => to_dict(mapping, &mut Vec::new(), &mut |path, reason| {
                fault(places.line(path), path, Problem::Invalid(reason));
            }),
            Ok(_) => {
                fault(Some(1), &[], Problem::Syntax("not a mapping of settings".into()));
                return None;
            }
            Err(error) => {
                fault(error.location().map(|location| location.line()), &[], Problem::Syntax(error.to_string()));
                return None;
            }
        };
        // A section of which every key is commented out says nothing; it does not erase the section.
        let values = values.into_iter().filter(|(_, value)| !matches!(value, Value::Empty(..))).collect();
        Some(Self { source, values, places })
    }

    /// Takes out what has another shape than the defaults: a section that is none, a single value with keys below it.
    /// Merged, it would hide what the layers below say.
    pub(super) fn fit(&mut self, defaults: &Dict, faults: &mut Vec<SettingsError>) {
        let Self { source, values, places } = self;
        let mut fits = |path: &[&str], value: &Value, default: &Value| {
            let reason = match (default, value) {
                (Value::Dict(..), Value::Dict(..)) => return true,
                (Value::Dict(..), other) => format!("expected a mapping, found {}", described(&other.to_actual())),
                (_, Value::Dict(..)) => "expected a value, found a mapping".to_owned(),
                _ => return true,
            };
            let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
            let place = Place { source: source.clone(), line: places.line(&path) };
            faults.push(SettingsError { place, key: path.join("."), problem: Problem::Invalid(reason) });
            false
        };
        values.retain(|section, value| {
            let Some(default) = defaults.get(section) else { return true };
            if !fits(&[section], value, default) {
                return false;
            }
            if let (Value::Dict(_, keys), Value::Dict(_, known)) = (value, default) {
                keys.retain(|key, value| known.get(key).is_none_or(|default| fits(&[section, key], value, default)));
            }
            true
        });
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn to_dict(mapping: serde_yaml::Mapping, path: &mut Vec<String>, fault: &mut dyn FnMut(&[String], String)) -> Dict {
    let mut dict = Dict::new();
    for (key, value) in mapping {
        let key = match key {
            serde_yaml::Value::String(key) => key,
            serde_yaml::Value::Bool(key) => key.to_string(),
            serde_yaml::Value::Number(key) => key.to_string(),
            _ => {
                fault(path, "a key must be a text".into());
                continue;
            }
        };
        path.push(key.clone());
        if let Some(value) = to_value(value, path, fault) {
            dict.insert(key, value);
        }
        path.pop();
    }
    dict
}

/// The same value in figment's terms; none for one that has no meaning here.
fn to_value(
    value: serde_yaml::Value,
    path: &mut Vec<String>,
    fault: &mut dyn FnMut(&[String], String),
) -> Option<Value> {
    Some(match value {
        serde_yaml::Value::Null => Value::from(Empty::None),
        serde_yaml::Value::Bool(value) => Value::from(value),
        serde_yaml::Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        serde_yaml::Value::String(text) => Value::from(text),
        serde_yaml::Value::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                path.push(index.to_string());
                list.extend(to_value(item, path, fault));
                path.pop();
            }
            Value::from(list)
        }
        serde_yaml::Value::Mapping(mapping) => Value::from(to_dict(mapping, path, fault)),
        serde_yaml::Value::Tagged(tagged) => {
            fault(path, format!("the tag {} means nothing here", tagged.tag));
            return None;
        }
    })
}

/// What was found, never a text itself: it may be a secret.
pub(super) fn described(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(number) => format!("the number {number}"),
        Actual::Signed(number) => format!("the number {number}"),
        Actual::Float(number) => format!("the number {number}"),
        Actual::Str(_) | Actual::Char(_) => "a text".into(),
        Actual::Unit | Actual::Option => "nothing".into(),
        Actual::Seq => "a list".into(),
        Actual::Map => "a mapping".into(),
        other => other.to_string(),
    }
}
