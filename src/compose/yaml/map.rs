//! A mapping that keeps the order of its file and finds keys fast.

use std::collections::{HashMap, hash_map};
use std::hash::{BuildHasher, RandomState};

use super::{Kind, Node, Place, Tag, YamlError, YamlErrorKind};

/// One key of a mapping, with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub value: Node,
}

/// A mapping in source order; keys are unique.
#[derive(Debug, Clone, Default)]
pub struct Map {
    entries: Vec<Entry>,
    /// Only of a mapping with more than [`SEARCHED`] keys.
    index: Option<Box<Index>>,
}

/// Keys that are found by looking at each.
const SEARCHED: usize = 16;

/// Positions by the hash of their key.
#[derive(Debug, Clone, Default)]
struct Index {
    state: RandomState,
    positions: HashMap<u64, usize>,
    /// Those whose hash another key has already.
    colliding: Vec<usize>,
}

impl Index {
    fn add(&mut self, key: &str, at: usize) {
        let hash = self.state.hash_one(key);
        match self.positions.entry(hash) {
            hash_map::Entry::Vacant(free) => {
                free.insert(at);
            }
            hash_map::Entry::Occupied(_) => self.colliding.push(at),
        }
    }
}

/// Mappings are equal when they hold the same values under the same keys, in any order.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|entry| other.get(&entry.key) == Some(&entry.value))
    }
}

impl Map {
    /// An empty mapping.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, key: &str) -> Option<usize> {
        let Some(index) = &self.index else { return self.entries.iter().position(|entry| entry.key == key) };
        let is_it = |at: &usize| self.entries.get(*at).is_some_and(|entry| entry.key == key);
        let likely = index.positions.get(&index.state.hash_one(key)).copied().filter(is_it);
        likely.or_else(|| index.colliding.iter().copied().find(is_it))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The key with its place and value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.position(key).and_then(|at| self.entries.get(at))
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.position(key).and_then(|at| self.entries.get_mut(at)).map(|entry| &mut entry.value)
    }

    /// Whether the key is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Sets a key: an existing one keeps its position, a new one comes last. Returns the value that was there.
    pub fn insert(&mut self, key: String, place: Place, value: Node) -> Option<Node> {
        if let Some(entry) = self.position(&key).and_then(|at| self.entries.get_mut(at)) {
            entry.place = place;
            return Some(std::mem::replace(&mut entry.value, value));
        }
        if let Some(index) = &mut self.index {
            index.add(&key, self.entries.len());
        }
        self.entries.push(Entry { key, place, value });
        if self.index.is_none() && self.entries.len() > SEARCHED {
            self.reindex();
        }
        None
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.position(key)?;
        let entry = self.entries.remove(at);
        self.reindex();
        Some(entry.value)
    }

    /// Keeps the entries for which `keep` says so. It must not change their keys.
    pub fn retain_mut(&mut self, keep: impl FnMut(&mut Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain_mut(keep);
        if self.entries.len() != before {
            self.reindex();
        }
    }

    fn reindex(&mut self) {
        self.index = (self.entries.len() > SEARCHED).then(|| {
            let mut index = Index::default();
            for (at, entry) in self.entries.iter().enumerate() {
                index.add(&entry.key, at);
            }
            Box::new(index)
        });
    }

    /// The entries, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The entries, in order, to change their values. Their keys must stay.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.entries.iter_mut()
    }
}

impl IntoIterator for Map {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Map {
    type Item = &'a mut Entry;
    type IntoIter = std::slice::IterMut<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Collects entries; of equal keys the last value wins.
impl FromIterator<Entry> for Map {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut map = Self::default();
        for Entry { key, place, value } in entries {
            map.insert(key, place, value);
        }
        map
    }
}

/// Adds what `<<` brings: own keys win over it, and earlier members of a list over later ones.
pub(super) fn merge_into(map: &mut Map, value: Node) -> Result<(), YamlError> {
    let wrong = |place| YamlError { place, kind: YamlErrorKind::MergeValue };
    let members = match value.kind {
        Kind::Seq(members) => members,
        kind => vec![Node { kind, ..value }],
    };
    for member in members {
        let Kind::Map(brought) = member.kind else { return Err(wrong(member.place)) };
        for Entry { key, place, value } in brought {
            match map.get_mut(&key) {
                None => {
                    map.insert(key, place, value);
                }
                // The key is reset for the files before; in this one the merged value is left.
                Some(own) if own.tag == Some(Tag::Reset) => *own = Node { tag: Some(Tag::Override), ..value },
                Some(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn place() -> Place {
        Place { file: "f".into(), line: 1, column: 1 }
    }

    fn numbered(count: usize) -> Map {
        let entry = |number: usize| Entry {
            key: format!("k{number}"),
            place: place(),
            value: Node::new(place(), Kind::Str(number.to_string())),
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn keys_are_found_in_small_and_large_mappings() {
        for count in [0, 1, SEARCHED, SEARCHED + 1, 1000] {
            let mut map = numbered(count);
            for number in 0..count {
                let found = map.get(&format!("k{number}")).and_then(Node::as_str);
                assert_eq!(found, Some(number.to_string().as_str()), "{number} of {count}");
            }
            assert!(map.get("k").is_none());
            let old = map.insert("k0".to_owned(), place(), Node::new(place(), Kind::Null));
            assert_eq!((old.is_some(), map.len()), (count > 0, count.max(1)));
            map.retain_mut(|entry| entry.key != "k5");
            assert!(map.remove("k0").is_some());
            assert!(map.iter().all(|entry| map.get(&entry.key) == Some(&entry.value)), "{count}");
            assert!(!map.contains_key("k0") && !map.contains_key("k5"));
        }
    }
}
