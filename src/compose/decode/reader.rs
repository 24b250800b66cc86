//! Reads typed values out of a mapping; what has the wrong type is reported and read as unset.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::super::error::{LoadError, LoadErrors};
use super::super::key_path::KeyPath;
use super::super::project::NullableMap;
use super::super::shell;
use super::super::value::{ByteSize, Cpus, Duration, FileMode, parse_bool, scalar_text};
use super::super::yaml::{Entry, Kind, Map, Node};
use super::go::{Integer, UNSIGNED_OVERFLOW, go_map_text, go_text, truncated};

/// A mapping, its path, and where its errors go.
#[derive(Clone, Copy)]
pub(in super::super) struct Reader<'a> {
    pub(in super::super) map: &'a Map,
    pub(in super::super) path: &'a KeyPath<'a>,
    pub(in super::super) errors: &'a RefCell<LoadErrors>,
}

impl<'a> Reader<'a> {
    /// The value of a key, when it has one.
    pub(in super::super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.map.get(key).filter(|node| !node.is_null())
    }

    /// Reports a value that cannot be read.
    pub(in super::super) fn report(&self, key: &str, node: &Node, message: impl Display) {
        let path = self.path.key(key);
        self.errors.borrow_mut().push(LoadError::new(format!("{path} {message}")).at(&node.place).of(path));
    }

    /// Reports the value of a key.
    pub(in super::super) fn report_at(&self, key: &str, message: impl Display) {
        if let Some(node) = self.map.get(key) {
            self.report(key, node, message);
        }
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str) {
        self.report(key, node, format_args!("must be {wanted}"));
    }

    /// The mapping under a key, if it is one.
    pub(in super::super) fn with<T>(&self, key: &str, read: impl FnOnce(Reader<'_>) -> T) -> Option<T> {
        let node = self.get(key)?;
        let Some(map) = node.as_map() else {
            self.wrong(key, node, "a mapping");
            return None;
        };
        let path = self.path.key(key);
        Some(read(Reader { map, path: &path, errors: self.errors }))
    }

    /// The items of a list that are mappings.
    pub(in super::super) fn each<T>(&self, key: &str, mut read: impl FnMut(Reader<'_>) -> T) -> Vec<T> {
        let path = self.path.key(key);
        let mut values = Vec::new();
        for (index, item) in self.items(key).iter().enumerate() {
            match item.as_map() {
                Some(map) => {
                    let path = path.item(index);
                    values.push(read(Reader { map, path: &path, errors: self.errors }));
                }
                None => self.wrong(key, item, "a list of mappings"),
            }
        }
        values
    }

    /// The values of a mapping of mappings; a null one reads as `None`.
    ///
    /// Inside a service, Compose moves `x-…` keys under one key of its own: they are nothing that there is.
    pub(in super::super) fn each_named<T>(
        &self,
        key: &str,
        mut read: impl FnMut(Reader<'_>) -> T,
    ) -> BTreeMap<String, Option<T>> {
        let mut values = BTreeMap::new();
        self.with(key, |reader| {
            for Entry { key, value, .. } in reader.map {
                let path = reader.path.key(key);
                let kept = reader.keeps_extensions() || !key.starts_with("x-");
                let read = match &value.kind {
                    // Under that one key, an extension has none of the keys that are known.
                    _ if !kept => Some(read(Reader { map: &Map::new(), path: &path, errors: reader.errors })),
                    Kind::Map(map) => Some(read(Reader { map, path: &path, errors: reader.errors })),
                    Kind::Null => None,
                    _ => {
                        reader.wrong(key, value, "a mapping");
                        None
                    }
                };
                let name = if kept { key } else { EXTENSIONS };
                values.insert(name.to_owned(), read);
            }
        });
        values
    }

    /// Whether the keys of this mapping are names even when they start with `x-`.
    fn keeps_extensions(&self) -> bool {
        let path = self.path.to_string();
        !path.contains('.') || path.ends_with(".depends_on")
    }

    /// The items of a list.
    pub(in super::super) fn items(&self, key: &str) -> &'a [Node] {
        match self.get(key) {
            Some(Node { kind: Kind::Seq(items), .. }) => items,
            Some(node) => {
                self.wrong(key, node, "a list");
                &[]
            }
            None => &[],
        }
    }

    /// A text.
    pub(in super::super) fn string(&self, key: &str) -> String {
        self.get(key).and_then(|node| self.text(key, node)).unwrap_or_default()
    }

    /// A text, or an integer of 64 bits as one; Compose takes no other number here.
    fn text(&self, key: &str, node: &Node) -> Option<String> {
        let text = match &node.kind {
            Kind::Str(text) => Some(text.clone()),
            Kind::Int(value) => i64::try_from(*value).ok().map(|value| value.to_string()),
            _ => None,
        };
        if text.is_none() {
            self.wrong(key, node, "a string");
        }
        text
    }

    /// A list of texts, or one text.
    pub(in super::super) fn strings(&self, key: &str) -> Vec<String> {
        match self.get(key) {
            Some(Node { kind: Kind::Seq(items), .. }) => items.iter().filter_map(|item| self.text(key, item)).collect(),
            Some(node) => self.text(key, node).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// A yes or no; words count as well.
    pub(in super::super) fn boolean(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        let value = match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Str(word) => parse_bool(word),
            _ => None,
        };
        if value.is_none() {
            self.wrong(key, node, "a boolean");
        }
        value
    }

    /// An integer, of which Go keeps the low bits where it does not fit; only a negative one is refused where none may be.
    pub(in super::super) fn integer<T: Integer>(&self, key: &str) -> Option<T> {
        let node = self.get(key)?;
        let value = match &node.kind {
            Kind::Int(value) => Some(*value),
            // Compose turns text into signed numbers only.
            Kind::Str(text) if T::SIGNED => text.parse().ok(),
            Kind::Float(value) if T::SIGNED => Some(truncated::<i64>(*value).unwrap_or(i64::MIN.into())),
            // What is above -1 would be cut to 0, Go looks at its sign before.
            Kind::Float(value) if *value < 0.0 => Some(-1),
            Kind::Float(value) => Some(truncated::<u64>(*value).unwrap_or(UNSIGNED_OVERFLOW)),
            _ => None,
        };
        let Some(value) = value else {
            self.wrong(key, node, "an integer");
            return None;
        };
        if value < 0 && !T::SIGNED {
            self.wrong(key, node, "a positive integer, or 0");
            return None;
        }
        Some(T::low_bits(value))
    }

    /// An integer of 64 bits that is written as one.
    pub(in super::super) fn whole(&self, key: &str) -> Option<i64> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Int(value) => i64::try_from(*value).map_err(|_| self.report(key, node, "is out of range")).ok(),
            Kind::Str(_) => {
                self.wrong(key, node, "an integer, not a text");
                None
            }
            _ => {
                self.wrong(key, node, "an integer");
                None
            }
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &str, node: &Node, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.report(key, node, error)).ok()
    }

    /// A span of time.
    pub(in super::super) fn duration(&self, key: &str) -> Option<Duration> {
        let node = self.get(key)?;
        let text = self.text(key, node)?;
        self.parsed(key, node, &text)
    }

    /// A number of bytes. Compose reads one with a fraction as 0, and one that does not fit.
    pub(in super::super) fn bytes(&self, key: &str) -> ByteSize {
        let Some(node) = self.get(key) else { return ByteSize::default() };
        match &node.kind {
            Kind::Int(value) => ByteSize((*value).try_into().unwrap_or_default()),
            Kind::Str(text) => self.parsed(key, node, text).unwrap_or_default(),
            _ => ByteSize::default(),
        }
    }

    /// A number of 32 bits with a fraction. One that is not finite has no JSON, and so Compose can do nothing with it.
    pub(in super::super) fn cpus(&self, key: &str) -> Cpus {
        let Some(node) = self.get(key) else { return Cpus::default() };
        let text = match &node.kind {
            Kind::Int(_) | Kind::Float(_) | Kind::Str(_) => scalar_text(&node.kind),
            _ => None,
        };
        let Some(text) = text else {
            self.wrong(key, node, "a number");
            return Cpus::default();
        };
        let cpus: Cpus = self.parsed(key, node, &text).unwrap_or_default();
        if cpus.0.is_finite() {
            return cpus;
        }
        self.wrong(key, node, "a finite number");
        Cpus::default()
    }

    /// As [`Self::cpus`], where an integer must fit into 64 bits.
    pub(in super::super) fn cpu_limit(&self, key: &str) -> Cpus {
        match self.get(key) {
            Some(node @ Node { kind: Kind::Int(value), .. }) if i64::try_from(*value).is_err() => {
                self.report(key, node, "is out of range");
                Cpus::default()
            }
            _ => self.cpus(key),
        }
    }

    /// Permission bits.
    pub(in super::super) fn mode(&self, key: &str) -> Option<FileMode> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Str(text) => self.parsed(key, node, text),
            _ => self.whole(key).map(FileMode),
        }
    }

    /// A command: words, or a text that is split into words. `None` when unset.
    pub(in super::super) fn command(&self, key: &str) -> Option<Vec<String>> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Str(text) => match shell::split(text) {
                Ok(words) => Some(words),
                Err(error) => {
                    self.report(key, node, error);
                    None
                }
            },
            _ => Some(self.strings(key)),
        }
    }

    /// A map of texts: a mapping, or a list of `key=value`. A key without a value is empty.
    pub(in super::super) fn string_map(&self, key: &str) -> BTreeMap<String, String> {
        self.nullable_map(key).into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
    }

    /// A map of texts in which a key may have no value: a mapping, or a list of `key=value`.
    pub(in super::super) fn nullable_map(&self, key: &str) -> NullableMap {
        let mut values = NullableMap::new();
        let Some(node) = self.get(key) else { return values };
        match &node.kind {
            Kind::Map(map) => {
                let (extensions, own): (Vec<_>, Vec<_>) = map.iter().partition(|entry| entry.key.starts_with("x-"));
                for entry in own {
                    let value = scalar_text(&entry.value.kind);
                    if value.is_none() && !entry.value.is_null() {
                        self.wrong(key, &entry.value, "a string");
                    }
                    values.insert(entry.key.clone(), value);
                }
                if !extensions.is_empty() {
                    values.insert(EXTENSIONS.to_owned(), Some(go_map_text(extensions)));
                }
            }
            Kind::Seq(items) => {
                for item in items {
                    let Some(text) = self.text(key, item) else { continue };
                    match text.split_once('=') {
                        Some((name, value)) => values.insert(name.to_owned(), Some(value.to_owned())),
                        None => values.insert(text, None),
                    };
                }
            }
            _ => self.wrong(key, node, "a mapping or a list"),
        }
        values
    }

    /// A mapping of one text or several, for which numbers and booleans may stand.
    pub(in super::super) fn options(&self, key: &str) -> BTreeMap<String, Vec<String>> {
        let read = |reader: Reader<'_>| {
            let (extensions, own): (Vec<_>, Vec<_>) = reader.map.iter().partition(|entry| entry.key.starts_with("x-"));
            let mut options: BTreeMap<_, _> = own
                .into_iter()
                .map(|Entry { key, value, .. }| match &value.kind {
                    Kind::Seq(items) => (key.clone(), items.iter().map(go_text).collect()),
                    _ => (key.clone(), vec![go_text(value)]),
                })
                .collect();
            if !extensions.is_empty() {
                options.insert(EXTENSIONS.to_owned(), vec![go_map_text(extensions)]);
            }
            options
        };
        self.with(key, read).unwrap_or_default()
    }

    /// A mapping of texts and nothing else.
    pub(in super::super) fn text_map(&self, key: &str) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        self.with(key, |reader| {
            for Entry { key, value, .. } in reader.map {
                if key.starts_with("x-") {
                    reader.wrong(key, value, "left out, an extension has no place here");
                } else if value.is_null() {
                    values.insert(key.clone(), String::new());
                } else if let Some(text) = reader.text(key, value) {
                    values.insert(key.clone(), text);
                }
            }
        });
        values
    }

    /// The mapping as JSON.
    pub(in super::super) fn json(&self) -> serde_json::Value {
        serde_json::Value::Object(self.map.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect())
    }

    /// The extensions of a mapping.
    pub(in super::super) fn extensions(&self) -> BTreeMap<String, serde_json::Value> {
        let entries = self.map.iter().filter(|entry| entry.key.starts_with("x-"));
        entries.map(|entry| (entry.key.clone(), json(&entry.value))).collect()
    }
}

/// The key under which Compose gathers the `x-…` keys of a mapping, also of one whose keys are data.
pub(in super::super) const EXTENSIONS: &str = "#extensions";

/// The key that Compose reads a key of data as.
pub(in super::super) fn within_extensions(key: &str) -> &str {
    if key.starts_with("x-") { EXTENSIONS } else { key }
}

/// A node as JSON.
pub(in super::super) fn json(node: &Node) -> serde_json::Value {
    use serde_json::{Number, Value};
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
            (Ok(value), _) => Value::from(value),
            (_, Ok(value)) => Value::from(value),
            _ => Value::String(value.to_string()),
        },
        Kind::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Kind::Str(text) | Kind::Timestamp(text) => Value::String(text.clone()),
        Kind::Seq(items) => Value::Array(items.iter().map(json).collect()),
        Kind::Map(map) => Value::Object(map.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect()),
    }
}
