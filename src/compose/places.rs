//! Where each value of a project stands: all that is kept of its tree once it is typed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::yaml::{Kind, Node, Place};

/// Steps of the longest path that is asked for.
const MOST_STEPS: usize = 6;

/// Places by the path of their value.
///
/// A path is known by a hash of 64 bits with a secret key: two of one project that share it would swap their places in
/// an error message.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    state: RandomState,
    spots: HashMap<u64, Spot>,
    files: Vec<Arc<str>>,
}

/// A place, its file by number.
#[derive(Debug, Clone, Copy)]
struct Spot {
    file: u32,
    line: u32,
    column: u32,
}

impl Places {
    /// The places of a tree.
    pub(super) fn of(tree: &Node) -> Self {
        let mut places = Self::default();
        places.add_below(tree, 0, 0);
        places.spots.shrink_to_fit();
        places
    }

    /// Where a value stands, list items being steps such as `[0]`; for one that was added by rule, where the deepest one
    /// around it stands.
    pub(super) fn get(&self, path: &[&str]) -> Option<Place> {
        let mut at = 0;
        let mut found = None;
        for step in path {
            at = self.below(at, step);
            let Some(spot) = self.spots.get(&at) else { break };
            found = Some(*spot);
        }
        let Spot { file, line, column } = found?;
        let file = self.files.get(usize::try_from(file).ok()?)?;
        Some(Place { file: Arc::clone(file), line, column })
    }

    fn below(&self, at: u64, step: &str) -> u64 {
        self.state.hash_one((at, step))
    }

    fn add_below(&mut self, node: &Node, at: u64, steps: usize) {
        if steps == MOST_STEPS {
            return;
        }
        match &node.kind {
            Kind::Map(map) => {
                for entry in map {
                    self.add(&entry.value, &entry.place, self.below(at, &entry.key), steps);
                }
            }
            Kind::Seq(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(item, &item.place, self.below(at, &format!("[{index}]")), steps);
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Timestamp(_) => {}
        }
    }

    fn add(&mut self, node: &Node, place: &Place, at: u64, steps: usize) {
        // Values come file by file: the file is the last one as a rule.
        let known = self.files.iter().rposition(|file| Arc::ptr_eq(file, &place.file) || *file == place.file);
        let file = known.unwrap_or_else(|| {
            self.files.push(Arc::clone(&place.file));
            self.files.len() - 1
        });
        let file = u32::try_from(file).unwrap_or(u32::MAX);
        self.spots.insert(at, Spot { file, line: place.line, column: place.column });
        self.add_below(node, at, steps + 1);
    }
}
