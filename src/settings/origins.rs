//! Who said a setting, for what can only be checked against the Compose files.

use super::error::Place;
use super::merged::Merged;

/// Who said each setting.
#[derive(Clone)]
pub struct Origins(Merged);

impl Origins {
    pub(super) fn new(merged: Merged) -> Self {
        Self(merged)
    }

    /// The settings that differ from those of `earlier`, by their paths.
    ///
    /// A file that a setting names, such as one with a password, is not looked into.
    #[must_use]
    pub fn changed_since(&self, earlier: &Self) -> Vec<String> {
        self.0.differences(&earlier.0)
    }

    /// Where the user says the setting at `path`, or one below it; none where only the defaults or a preset do.
    #[must_use]
    pub fn of_user(&self, path: &[&str]) -> Option<Place> {
        self.0.users_place(&path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>())
    }
}
