//! Files that the settings are read from.

use std::path::Path;

use crate::file::{FileFault, FileReader};

/// Reads settings files.
const SETTINGS: FileReader = FileReader::new(1 << 20);
/// Reads files that hold a secret.
const SECRET: FileReader = FileReader::new(64 << 10);

/// The text of a settings file.
pub(super) fn settings(path: &Path) -> Result<String, FileFault> {
    SETTINGS.text(path).map_err(|error| error.fault)
}

/// The secret in a file, without the line break at its end.
pub(super) fn secret(path: &Path) -> Result<String, FileFault> {
    let mut text = SECRET.text(path).map_err(|error| error.fault)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}
