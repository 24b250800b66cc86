//! Files that the settings are read from, with a limit: a wrong path may be a device without an end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Largest settings file, in bytes.
const MAX_SETTINGS: u64 = 1024 * 1024;
/// Largest file that holds a secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// The text of a settings file.
pub(super) fn settings(path: &Path) -> io::Result<String> {
    read(path, MAX_SETTINGS)
}

/// The secret in a file, without the line break at its end.
pub(super) fn secret(path: &Path) -> io::Result<String> {
    let mut text = read(path, MAX_SECRET)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(io::Error::other(format!("larger than {} KiB", limit / 1024)));
    }
    Ok(text)
}
