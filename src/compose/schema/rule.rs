//! The words in which the specification's table is written.

use std::fmt;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Value(&'static Value),
    /// Alternatives that exclude each other.
    OneOf(&'static [Rule]),
}

/// The types that a value may have, and what holds for each.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) types: Types,
    /// The only texts allowed; empty for any.
    pub(super) words: &'static [&'static str],
    pub(super) pattern: Option<Pattern>,
    /// Least and most of an integer.
    pub(super) range: Option<(i128, i128)>,
    pub(super) items: Option<Rule>,
    pub(super) unique: bool,
    pub(super) object: Option<&'static Object>,
}

/// What a text must look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    /// The regular expression, for the error.
    pub(super) text: &'static str,
    pub(super) matches: fn(&str) -> bool,
}

/// The keys of a mapping.
#[derive(Debug)]
pub(super) struct Object {
    /// Sorted by key.
    pub(super) keys: &'static [(&'static str, Rule)],
    /// A mapping whose keys this one takes too, but for some.
    pub(super) like: Option<(&'static Object, &'static [&'static str])>,
    pub(super) required: &'static [&'static str],
    /// Keys that the file chooses.
    pub(super) names: Option<(Names, Rule)>,
    /// Whether keys starting `x-` are allowed.
    pub(super) extensions: bool,
    /// Whether any other key is allowed.
    pub(super) open: bool,
}

/// What a key that the file chooses must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// ASCII letters, digits, `.`, `_` and `-`.
    Resource,
    /// Small letters.
    Lower,
    /// Anything with a character that does not end the line.
    Any,
    /// Anything of one line.
    Line,
    /// `x-…`.
    Extension,
}

impl Names {
    pub(super) fn take(self, key: &str) -> bool {
        match self {
            Self::Resource => {
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            }
            Self::Lower => !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase()),
            Self::Any => key.chars().any(|character| character != '\n'),
            Self::Line => !key.is_empty() && !key.contains('\n'),
            Self::Extension => key.starts_with("x-"),
        }
    }
}

/// A set of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const NULL: Self = Self(1);
    pub(super) const BOOLEAN: Self = Self(2);
    pub(super) const INTEGER: Self = Self(4);
    pub(super) const NUMBER: Self = Self(8);
    pub(super) const STRING: Self = Self(16);
    pub(super) const ARRAY: Self = Self(32);
    pub(super) const MAPPING: Self = Self(64);

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = [
            (Self::ARRAY, "array"),
            (Self::BOOLEAN, "boolean"),
            (Self::INTEGER, "integer"),
            (Self::MAPPING, "mapping"),
            (Self::NULL, "null"),
            (Self::NUMBER, "number"),
            (Self::STRING, "string"),
        ]
        .into_iter()
        .filter_map(|(one, name)| self.contains(one).then_some(name))
        .collect();
        match names.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, rest)) => write!(f, "{} or {last}", rest.join(", ")),
            None => Ok(()),
        }
    }
}

impl Value {
    pub(super) const fn of(types: Types) -> Self {
        Self { types, words: &[], pattern: None, range: None, items: None, unique: false, object: None }
    }

    pub(super) const fn words(words: &'static [&'static str]) -> Self {
        Self { words, ..Self::of(Types::STRING) }
    }

    pub(super) const fn list(items: Rule) -> Self {
        Self { items: Some(items), ..Self::of(Types::ARRAY) }
    }

    pub(super) const fn set(items: Rule) -> Self {
        Self { unique: true, ..Self::list(items) }
    }

    pub(super) const fn object(object: &'static Object) -> Self {
        Self { object: Some(object), ..Self::of(Types::MAPPING) }
    }

    pub(super) const fn also(self, types: Types) -> Self {
        Self { types: self.types.or(types), ..self }
    }

    pub(super) const fn within(self, least: i128, most: i128) -> Self {
        Self { range: Some((least, most)), ..self }
    }

    pub(super) const fn like(self, pattern: Pattern) -> Self {
        Self { pattern: Some(pattern), ..self }
    }
}

impl Object {
    /// A mapping with these keys, required ones among them, and extensions.
    pub(super) const fn with(keys: &'static [(&'static str, Rule)], required: &'static [&'static str]) -> Self {
        Self { keys, like: None, required, names: None, extensions: true, open: false }
    }

    /// A mapping with keys that the file chooses, and no others.
    pub(super) const fn of(names: Names, rule: Rule) -> Self {
        Self { keys: &[], like: None, required: &[], names: Some((names, rule)), extensions: false, open: false }
    }

    /// With the keys of another mapping, but for some.
    pub(super) const fn like(self, other: &'static Self, without: &'static [&'static str]) -> Self {
        Self { like: Some((other, without)), ..self }
    }

    /// Without extensions.
    pub(super) const fn closed(self) -> Self {
        Self { extensions: false, ..self }
    }

    /// With any other key.
    pub(super) const fn opened(self) -> Self {
        Self { open: true, ..self }
    }

    pub(super) fn key(&self, key: &str) -> Option<&'static Rule> {
        let at = self.keys.binary_search_by(|(known, _)| (*known).cmp(key)).ok();
        let inherited =
            || self.like.filter(|(_, without)| !without.contains(&key)).and_then(|(other, _)| other.key(key));
        at.and_then(|at| self.keys.get(at)).map(|(_, rule)| rule).or_else(inherited)
    }

    /// The known key that an unknown one was most likely meant to be.
    pub(super) fn nearest(&self, key: &str) -> Option<&'static str> {
        // A key of which more than every third letter is wrong is something else.
        let most = 1 + key.chars().count() / 4;
        let inherited = self
            .like
            .into_iter()
            .flat_map(|(other, without)| other.keys.iter().filter(|(known, _)| !without.contains(known)));
        self.keys
            .iter()
            .chain(inherited)
            .map(|(known, _)| (distance(key, known, most), *known))
            .filter(|(distance, _)| *distance <= most)
            .min()
            .map(|(_, known)| known)
    }
}

/// Letters to change, add, drop or swap with their neighbour to get from one text to the other; more than `most` counts
/// as `most + 1`.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let above = rows.last().map_or(&[][..], Vec::as_slice);
            let mut best = (cell(above, j) + usize::from(x != y)).min(cell(above, j + 1) + 1).min(cell(&row, j) + 1);
            let swapped = j > 0 && i > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped && let Some(before) = rows.get(i - 1) {
                best = best.min(cell(before, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or_default()
}
