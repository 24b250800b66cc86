//! What loading a project may take of the memory.

use std::cell::Cell;
use std::fmt;

use super::error::LoadError;
use super::key_path::KeyPath;
use super::project::Service;
use super::yaml::{Entry, Kind, Node, Place};

/// Bytes that loading one project may take: its files, its tree of values, and the variables that values are made with.
///
/// Each value counts with what it takes at the worst moment, when its mapping moves to a larger piece of memory. An
/// earlier project that stays in use meanwhile is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimit(usize);

impl LoadLimit {
    /// At most so many bytes.
    #[must_use]
    pub const fn bytes(bytes: usize) -> Self {
        Self(bytes)
    }

    /// How many bytes.
    #[must_use]
    pub const fn as_bytes(self) -> usize {
        self.0
    }
}

impl Default for LoadLimit {
    /// 256 MiB, for a program that has a machine to itself: far beyond any project.
    fn default() -> Self {
        Self(256 << 20)
    }
}

impl fmt::Display for LoadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 1 << 20 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

/// Something did not fit into what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverBudget;

/// What is left of a [`LoadLimit`].
#[derive(Debug)]
pub(super) struct Budget {
    limit: LoadLimit,
    left: Cell<usize>,
    refused: Cell<bool>,
}

/// Bytes of a key with its value, without their texts: a growing mapping is there twice for a moment.
pub(super) const ENTRY: usize = 2 * size_of::<Entry>();

/// Bytes of a variable without its name and value.
const VARIABLE: usize = 160;

/// Bytes that the long form of a port, mount or another short text takes.
pub(super) const LONG_FORM: usize = 7 * ENTRY;

/// Bytes of a service, once it is typed.
pub(super) const SERVICE: usize = size_of::<Service>();

impl Budget {
    pub(super) fn new(limit: LoadLimit) -> Self {
        Self { limit, left: Cell::new(limit.as_bytes()), refused: Cell::new(false) }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.left.get()
    }

    /// Takes `bytes`, all that is left where that is less.
    pub(super) fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(bytes));
        if bytes <= left { Ok(()) } else { Err(OverBudget) }
    }

    /// The error of the first value that does not fit any more; those behind it are not worth a line.
    pub(super) fn refusal(&self, place: Option<&Place>, path: &KeyPath<'_>) -> Option<LoadError> {
        if self.refused.replace(true) {
            return None;
        }
        self.left.set(0);
        let named = path.to_string();
        let named = if named.is_empty() { named } else { format!("{named}: ") };
        let limit = self.limit;
        let error = LoadError::new(format!(
            "{named}the project takes more than the {limit} of memory that loading it may take"
        ));
        Some(match place {
            Some(place) => error.at(place).of(path),
            None => error.of(path),
        })
    }
}

/// Bytes of variables.
pub(super) fn variables<'a>(values: impl IntoIterator<Item = (&'a String, &'a String)>) -> usize {
    values.into_iter().map(|(name, value)| variable(name, value)).fold(0, usize::saturating_add)
}

/// Bytes of one variable.
pub(super) fn variable(name: &str, value: &str) -> usize {
    VARIABLE.saturating_add(name.len()).saturating_add(value.len())
}

/// Bytes of a value with all values below it.
pub(super) fn weight(node: &Node) -> usize {
    let below = match &node.kind {
        Kind::Seq(items) => items.iter().map(weight).fold(0, usize::saturating_add),
        Kind::Map(map) => map.iter().map(|entry| entry.key.len().saturating_add(weight(&entry.value))).sum(),
        Kind::Str(text) | Kind::Timestamp(text) => text.len(),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => 0,
    };
    below.saturating_add(ENTRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_used_up_by_what_is_too_much() {
        let budget = Budget::new(LoadLimit::bytes(10));
        assert_eq!((budget.take(10), budget.take(0), budget.take(1)), (Ok(()), Ok(()), Err(OverBudget)));
        let refusal = || budget.refusal(None, &KeyPath::ROOT);
        let said = refusal().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(said, "the project takes more than the 0 KiB of memory that loading it may take");
        assert_eq!((refusal(), budget.left()), (None, 0), "it is said once");
    }
}
