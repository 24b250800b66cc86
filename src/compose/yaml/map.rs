//! A mapping that keeps the order of its file and finds keys fast.

use super::{Node, Place};

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
    /// Positions in `entries`, sorted by key.
    sorted: Vec<u32>,
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

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|&at| self.entries.get(at as usize).map_or("", |entry| &entry.key).cmp(key))
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.find(key).ok().and_then(|slot| self.sorted.get(slot)).map(|&at| at as usize)
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
        self.find(key).is_ok()
    }

    /// Sets a key: an existing one keeps its position, a new one comes last. Returns the value that was there.
    pub fn insert(&mut self, key: String, place: Place, value: Node) -> Option<Node> {
        match self.find(&key) {
            Ok(_) => {
                let at = self.position(&key)?;
                let entry = self.entries.get_mut(at)?;
                entry.place = place;
                Some(std::mem::replace(&mut entry.value, value))
            }
            Err(slot) => {
                self.sorted.insert(slot, u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                self.entries.push(Entry { key, place, value });
                None
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.position(key)?;
        let entry = self.entries.remove(at);
        self.index();
        Some(entry.value)
    }

    /// Keeps the entries for which `keep` says so. It must not change their keys.
    pub fn retain_mut(&mut self, keep: impl FnMut(&mut Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain_mut(keep);
        if self.entries.len() != before {
            self.index();
        }
    }

    fn index(&mut self) {
        self.sorted = (0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX)).collect();
        let entries = &self.entries;
        self.sorted.sort_by(|&a, &b| {
            let key = |at: u32| entries.get(at as usize).map(|entry| entry.key.as_str());
            key(a).cmp(&key(b))
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
