//! All layers merged by figment, who said each value, and the reading of it all with every error.

use std::collections::BTreeSet;

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::error::{Place, Problem, SettingsError, Source, nearest};
use super::layers::{Layer, NAMED_SECTIONS, described};
use super::places::Places;

/// All layers as one value whose parts remember who said them.
#[derive(Clone)]
pub(super) struct Merged {
    figment: Figment,
    value: Value,
    defaults: Dict,
    layers: Vec<(String, Source, Places)>,
}

impl Merged {
    /// Merges `layers`, the first of which is the defaults, each over those before it.
    pub(super) fn new(layers: &[Layer]) -> Self {
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        // Only a provider's failure could make this an error, and ours do not fail.
        let mut value = figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()));
        for section in NAMED_SECTIONS {
            if let Value::Dict(_, top) = &mut value
                && let Some(Value::Dict(_, entries)) = top.get_mut(section)
            {
                entries.retain(|_, entry| !matches!(entry, Value::Empty(..)));
            }
        }
        Self {
            figment,
            value,
            defaults: layers.first().map(|layer| layer.values.clone()).unwrap_or_default(),
            layers: layers
                .iter()
                .map(|layer| (layer.source.to_string(), layer.source.clone(), layer.places.clone()))
                .collect(),
        }
    }

    /// All that is said.
    pub(super) fn into_values(self) -> Dict {
        self.value.into_dict().unwrap_or_default()
    }

    /// Who said the value at `path`, or its nearest parent that was said.
    pub(super) fn place(&self, path: &[String]) -> Place {
        let mut at = &self.value;
        let mut depth = 0;
        for key in path {
            let Some(next) = child(at, key) else { break };
            (at, depth) = (next, depth + 1);
        }
        let name = self.figment.get_metadata(at.tag()).map(|metadata| metadata.name.clone());
        let layer = self.layers.iter().rev().find(|(layer, _, _)| Some(layer.as_str()) == name.as_deref());
        match layer {
            Some((_, source, places)) => {
                let said = path.get(..depth).unwrap_or_default();
                Place { source: source.clone(), line: places.line(path).or_else(|| places.line(said)) }
            }
            None => Place { source: Source::Defaults, line: None },
        }
    }

    /// Where the user says the value at `path`, or the first below it that the user says; none where only what is compiled
    /// in says it.
    pub(super) fn users_place(&self, path: &[String]) -> Option<Place> {
        let value = path.iter().try_fold(&self.value, |value, key| child(value, key))?;
        self.users_layer(value).map(|(source, places)| Place { source: source.clone(), line: places.line(path) })
    }

    fn users_layer(&self, value: &Value) -> Option<(&Source, &Places)> {
        let below = match value {
            Value::Dict(_, entries) => entries.values().find_map(|value| self.users_layer(value)),
            Value::Array(_, items) => items.iter().find_map(|value| self.users_layer(value)),
            _ => None,
        };
        below.or_else(|| {
            let name = self.figment.get_metadata(value.tag())?.name.as_ref();
            let layer = self.layers.iter().rev().find(|(layer, source, _)| layer == name && source.is_users());
            layer.map(|(_, source, places)| (source, places))
        })
    }

    /// Paths of what differs from `other`: of a section's keys, and for an entry that both name, of its own keys.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut paths = Vec::new();
        differences(&self.value, &other.value, &mut Vec::new(), &mut paths);
        paths
    }

    /// An error at `path`.
    pub(super) fn fault(&self, path: &[String], problem: Problem) -> SettingsError {
        SettingsError { place: self.place(path), key: path.join("."), problem }
    }

    /// Reads all as `T` and collects every error: each wrong value is replaced by its default, or taken out, and the
    /// reading starts again.
    pub(super) fn read<T: DeserializeOwned>(&self) -> (Option<T>, Vec<SettingsError>) {
        let mut faults = Vec::new();
        let mut value = self.value.clone();
        let mut removed = Removed::default();
        loop {
            let error = match T::deserialize(&value) {
                Ok(read) => return (Some(read), faults),
                Err(error) => error,
            };
            let path = removed.original(&value, &error.path);
            if !removed.explains(&path, &error.kind) {
                faults.push(self.explain(&path, &error.kind));
            }
            let default = find(&self.defaults, &path).filter(|default| find_in(&value, &error.path) != Some(default));
            let amended = match default {
                Some(default) => replace(&mut value, &error.path, default.clone()),
                None => removed.take(&mut value, &error.path, path),
            };
            if !amended {
                return (None, faults);
            }
        }
    }

    fn explain(&self, path: &[String], kind: &Kind) -> SettingsError {
        let problem = match kind {
            Kind::UnknownField(key, expected) => {
                let nearest = self.nearest_key(path, key, expected);
                let written = |known: Vec<String>| match self.place(path).source {
                    Source::Variable(_) => super::environment::variable_of(&known),
                    _ => known.join("."),
                };
                let known =
                    if nearest.is_none() { expected.iter().map(|key| (*key).to_owned()).collect() } else { vec![] };
                Problem::UnknownKey { nearest: nearest.map(written), known }
            }
            Kind::UnknownVariant(word, expected) => {
                let near = nearest(word, expected.iter().copied());
                let near = near.map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
                Problem::Invalid(format!("{word:?} is none of {}{near}", expected.join(", ")))
            }
            Kind::MissingField(key) => Problem::Invalid(format!("needs the key `{key}`")),
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                let quotes = match found {
                    Actual::Bool(_) | Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_)
                        if expected.contains("string") =>
                    {
                        "; put it in quotes"
                    }
                    _ => "",
                };
                let expected = match expected.as_str() {
                    text if text.starts_with("struct ") => "a mapping",
                    text if text.starts_with("enum ") => "a text",
                    "a string" | "string" => "a text",
                    "path string" => "a path",
                    "a map" | "map" => "a mapping",
                    "a sequence" => "a list",
                    other => other,
                };
                Problem::Invalid(format!("expected {expected}, found {}{quotes}", described(found)))
            }
            other => Problem::Invalid(other.to_string()),
        };
        self.fault(path, problem)
    }

    /// The known key that was probably meant: a neighbour, or one of the same name elsewhere.
    fn nearest_key(&self, path: &[String], key: &str, expected: &[&str]) -> Option<Vec<String>> {
        let parent = path.split_last().map_or(&[][..], |(_, parent)| parent);
        if let Some(near) = nearest(key, expected.iter().copied()) {
            let mut known = parent.to_vec();
            known.push(near.to_owned());
            return Some(known);
        }
        let mut known = Vec::new();
        paths(&self.defaults, &mut Vec::new(), &mut known);
        let same = known.iter().find(|known| known.last().is_some_and(|last| last == key)).cloned();
        same.or_else(|| {
            let names: Vec<String> = known.iter().map(|known| known.join(".")).collect();
            let near = nearest(&path.join("."), names.iter().map(String::as_str))?;
            Some(near.split('.').map(str::to_owned).collect())
        })
    }
}

fn differences(one: &Value, other: &Value, path: &mut Vec<String>, out: &mut Vec<String>) {
    match (one, other) {
        (Value::Dict(_, one), Value::Dict(_, other)) if path.len() < 3 => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                path.push(key.clone());
                match (one.get(key), other.get(key)) {
                    (Some(one), Some(other)) => differences(one, other, path, out),
                    (Some(_), None) | (None, Some(_)) => out.push(path.join(".")),
                    (None, None) => {}
                }
                path.pop();
            }
        }
        (one, other) if one != other => out.push(path.join(".")),
        _ => {}
    }
}

/// Paths of all keys in `values` and below.
fn paths(values: &Dict, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    for (key, value) in values {
        path.push(key.clone());
        out.push(path.clone());
        if let Value::Dict(_, values) = value {
            paths(values, path, out);
        }
        path.pop();
    }
}

fn child<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Dict(_, entries) => entries.get(key),
        Value::Array(_, items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The value at `path` in `values`.
pub(super) fn find<'a>(values: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    find_in(values.get(first)?, rest)
}

fn find_in<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| child(value, key))
}

fn find_mut<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Dict(_, entries) => entries.get_mut(key),
        Value::Array(_, items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

fn replace(value: &mut Value, path: &[String], with: Value) -> bool {
    find_mut(value, path).map(|at| *at = with).is_some()
}

/// What was taken out, by the paths of the text as it was written.
#[derive(Default)]
struct Removed(BTreeSet<Vec<String>>);

impl Removed {
    /// Takes the value at `path` out, or its nearest parent that is there; false at the top.
    fn take(&mut self, value: &mut Value, path: &[String], original: Vec<String>) -> bool {
        let Some((key, parent)) = path.split_last() else { return false };
        let taken = match find_mut(value, parent) {
            Some(Value::Dict(_, entries)) => entries.remove(key).is_some(),
            Some(Value::Array(_, items)) => {
                let index = key.parse().ok().filter(|index| *index < items.len());
                index.map(|index: usize| items.remove(index)).is_some()
            }
            _ => false,
        };
        if taken {
            self.0.insert(original);
            return true;
        }
        let outer = original.split_last().map(|(_, outer)| outer.to_vec()).unwrap_or_default();
        self.take(value, parent, outer)
    }

    /// `path` in `value` as the path in the text: items taken out of a list before it are counted again.
    fn original(&self, value: &Value, path: &[String]) -> Vec<String> {
        let mut original: Vec<String> = Vec::with_capacity(path.len());
        let mut at = Some(value);
        for key in path {
            let mut written = key.clone();
            if let (Some(Value::Array(..)), Ok(mut index)) = (at, key.parse::<usize>()) {
                let gone: BTreeSet<usize> = self
                    .0
                    .iter()
                    .filter(|gone| gone.len() == original.len() + 1 && gone.starts_with(&original))
                    .filter_map(|gone| gone.last()?.parse().ok())
                    .collect();
                for taken in gone {
                    index += usize::from(taken <= index);
                }
                written = index.to_string();
            }
            at = at.and_then(|at| child(at, key));
            original.push(written);
        }
        original
    }

    /// True when the error may only be there because something below `path` was taken out.
    fn explains(&self, path: &[String], kind: &Kind) -> bool {
        matches!(kind, Kind::MissingField(_) | Kind::InvalidLength(..) | Kind::Message(_))
            && self.0.iter().any(|gone| gone.len() > path.len() && gone.starts_with(path))
    }
}
