//! Typed values of the Compose file whose text form matters: durations, sizes, CPU shares, file modes.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// A span of time in nanoseconds, written as Go writes it (`1m30s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub i64);

/// A number of bytes, written as a decimal string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub i64);

/// A number of CPUs (or a ratio, or a percentage), kept in 32 bits as Compose keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Cpus(pub f32);

/// Permission bits of a file, written as an octal string (`"0440"`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileMode(pub i64);

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f32(self.0)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0{:o}", self.0))
    }
}

/// Writes `extra_hosts` as the sorted list of `host=ip`.
pub(super) fn serialize_hosts<S: Serializer>(
    hosts: &BTreeMap<String, Vec<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut lines: Vec<String> =
        hosts.iter().flat_map(|(host, addresses)| addresses.iter().map(move |ip| format!("{host}={ip}"))).collect();
    lines.sort_unstable();
    serializer.collect_seq(lines)
}
