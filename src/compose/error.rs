//! What loading a project found wrong: all of it, each with its place.

use std::fmt;

use super::yaml::Place;

/// One thing wrong with a project.
///
/// Displayed as `compose.yaml:3:5: services.a additional properties 'imge' not allowed (did you mean 'image'?)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// Where in which file, when it has a place there.
    pub place: Option<Place>,
    /// Key path in the project, such as `services.a.image`, for programs; the message names it where a reader needs it.
    pub path: Option<String>,
    /// The whole sentence, in Compose's own words where it has some.
    pub message: String,
}

impl LoadError {
    /// An error without a place or path.
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, path: None, message: message.into() }
    }

    /// The same error, at a place.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// The same error, of a key path.
    #[must_use]
    pub fn of(mut self, path: impl fmt::Display) -> Self {
        self.path = Some(path.to_string());
        self
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Errors that are kept of one project. Nobody reads more, and a hostile file may have millions.
const MAX_ERRORS: usize = 500;

/// Characters of one error's sentence: a cycle names thousands of services where it has them.
const MAX_MESSAGE: usize = 2_000;

/// Everything wrong with a project, in the order of files and lines; displayed one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadErrors {
    errors: Vec<LoadError>,
    /// How many more there were.
    dropped: usize,
}

impl LoadErrors {
    /// Adds one more; a sentence that is longer than a reader reads is cut.
    pub fn push(&mut self, mut error: LoadError) {
        if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE) {
            error.message.truncate(end);
            error.message.push('…');
        }
        if self.errors.len() >= MAX_ERRORS {
            self.dropped += 1;
        } else if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// How many things are wrong.
    pub fn len(&self) -> usize {
        self.errors.len() + self.dropped
    }

    /// The errors, in the order of files and lines once [`LoadErrors::into_result`] has sorted them.
    pub fn iter(&self) -> impl Iterator<Item = &LoadError> {
        self.errors.iter()
    }

    /// The same errors, each as `change` makes it.
    #[must_use]
    pub(super) fn map(mut self, change: impl FnMut(LoadError) -> LoadError) -> Self {
        self.errors = self.errors.into_iter().map(change).collect();
        self
    }

    /// `value` if nothing is wrong, otherwise the sorted errors.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        let key = |error: &LoadError| {
            error.place.as_ref().map(|place| (std::sync::Arc::clone(&place.file), place.line, place.column))
        };
        self.errors.sort_by_key(key);
        Err(self)
    }
}

impl From<LoadError> for LoadErrors {
    fn from(error: LoadError) -> Self {
        Self { errors: vec![error], dropped: 0 }
    }
}

impl Extend<LoadError> for LoadErrors {
    fn extend<I: IntoIterator<Item = LoadError>>(&mut self, errors: I) {
        for error in errors {
            self.push(error);
        }
    }
}

impl IntoIterator for LoadErrors {
    type Item = LoadError;
    type IntoIter = std::vec::IntoIter<LoadError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        if self.dropped > 0 {
            write!(f, "\nand {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}
