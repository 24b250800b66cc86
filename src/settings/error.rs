//! What is wrong with the settings, each with its place.

use std::fmt;
use std::path::PathBuf;

use crate::file::FileFault;

/// All that is wrong with the settings; never empty.
#[derive(Debug)]
pub struct SettingsErrors(pub(super) Vec<SettingsError>);

impl SettingsErrors {
    /// The errors in the order of their sources and lines.
    pub fn as_slice(&self) -> &[SettingsError] {
        &self.0
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsErrors {}

/// One fault: where, which key, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {}{problem}", key_prefix(.key))]
pub struct SettingsError {
    /// The file and line, variable or option that said it.
    pub place: Place,
    /// Path of the key from the top, its levels joined by dots; empty for a whole file.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

/// What can be wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file could not be read.
    #[error("cannot read {}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: FileFault,
    },
    /// The file is not YAML, or not a mapping.
    #[error("{0}")]
    Syntax(String),
    /// The key twice in one mapping.
    #[error("already set on line {first}")]
    Duplicate {
        /// Line of the first.
        first: usize,
    },
    /// No such setting.
    #[error("unknown key{}", hint(.nearest.as_ref(), .known))]
    UnknownKey {
        /// The known key that is nearest, as the source would write it.
        nearest: Option<String>,
        /// The keys that could be here; empty where one is near.
        known: Vec<String>,
    },
    /// A value that the key does not take.
    #[error("{0}")]
    Invalid(String),
    /// Two settings of which only one may be given.
    #[error("cannot be given together with {other}")]
    Conflict {
        /// Path of the other.
        other: String,
    },
    /// The value is not valid UTF-8.
    #[error("not valid UTF-8")]
    NotUtf8,
}

fn hint(nearest: Option<&String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known here are {}", known.join(", ")),
    }
}

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What said it.
    pub source: Source,
    /// Line in the file, from 1; none where it is not known or there are no lines.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// What can say a setting, weakest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `config/default.yaml`, compiled in.
    Defaults,
    /// A compiled-in preset, by its name.
    Preset(String),
    /// The user's file.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
    /// An option of the command line, such as `--profile`.
    Argument(&'static str),
}

impl Source {
    /// Whether it is the user's, and not compiled in.
    #[must_use]
    pub fn is_users(&self) -> bool {
        match self {
            Self::Defaults | Self::Preset(_) => false,
            Self::File(_) | Self::Variable(_) | Self::Argument(_) => true,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("built-in defaults"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Argument(name) => f.write_str(name),
        }
    }
}

/// The candidate that `word` was most likely meant to be; none when no one is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    let near = 1 + word.len() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= near && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters and digits in lower case: `-`, `_` and `.` are where people differ without meaning to.
fn folded(word: &str) -> Vec<char> {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(64).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, &from) in a.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, &to) in b.iter().enumerate() {
            let at = |costs: &[usize], index: usize| costs.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut cost =
                (at(&last, column) + usize::from(from != to)).min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let swapped = column > 0 && previous == Some(to) && b.get(column - 1) == Some(&from);
            if swapped && from != to {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut last, next);
        previous = Some(from);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_over_slips_of_the_finger_and_not_over_other_words() {
        let keys = ["max_parallel", "first_run", "every", "env"];
        assert_eq!(nearest("max_paralel", keys), Some("max_parallel"));
        assert_eq!(nearest("max-parallel", keys), Some("max_parallel"));
        assert_eq!(nearest("evrey", keys), Some("every"));
        assert_eq!(nearest("evn", keys), Some("env"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("x", keys), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_step() {
        let chars = |word: &str| word.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("evrey"), &chars("every")), 1);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
