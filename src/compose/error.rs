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

/// Everything wrong with a project, in the order of files and lines; displayed one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadErrors(Vec<LoadError>);

impl LoadErrors {
    /// Adds one more.
    pub fn push(&mut self, error: LoadError) {
        if !self.0.contains(&error) {
            self.0.push(error);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things are wrong.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors, in the order of files and lines once [`LoadErrors::into_result`] has sorted them.
    pub fn iter(&self) -> impl Iterator<Item = &LoadError> {
        self.0.iter()
    }

    /// `value` if nothing is wrong, otherwise the sorted errors.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        let key = |error: &LoadError| {
            error.place.as_ref().map(|place| (std::sync::Arc::clone(&place.file), place.line, place.column))
        };
        self.0.sort_by_key(key);
        Err(self)
    }
}

impl From<LoadError> for LoadErrors {
    fn from(error: LoadError) -> Self {
        Self(vec![error])
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
        self.0.into_iter()
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}
