//! What a ledger's file holds: a checksum and one JSON object a line.
//!
//! ```text
//! 8a1f03c2 {"record":{"job":"backup","iteration":7,…}}
//! ```
//!
//! The checksum is CRC-32 (that of zip and Ethernet) of the object's bytes, as eight hexadecimal digits. Whatever comes of
//! a power cut, a line that is not whole is known by it, and the lines around it stay readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, rfc3339};
use crate::names::{RequestId, RunId, ServiceName};
use crate::record::Record;

/// Version of the format; a file of a higher one is left alone.
pub const VERSION: u32 = 1;

/// Longest line that is written and read, the line break included.
pub const LINE_LIMIT: usize = 512 * 1024;

/// Bytes before the JSON object: the checksum and a blank.
const PREFIX: usize = 9;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first line: the version of the format.
    Ledger {
        /// See [`VERSION`].
        version: u32,
    },
    /// A run or a slot without one; a later record of the same run takes its place.
    Record(Record),
    /// When a run started on the clock that is never set.
    Start(RunStart),
    /// Whether a service's schedule is paused.
    Paused {
        /// The service.
        job: ServiceName,
        /// False: resumed.
        paused: bool,
    },
    /// A command that was taken, later the same with its reply.
    Request(Request),
    /// The highest iteration of each service: its records may be gone.
    Iterations(BTreeMap<ServiceName, u64>),
    /// Slots so far, over all lives.
    Slots(Slots),
    /// This many bytes before were on the disk: what cannot be read there was damaged, not cut off.
    Synced(u64),
}

/// When a run started, for what is left of its limit after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// The run.
    pub run_id: RunId,
    /// The Linux boot id; with another one the machine was restarted in between.
    pub boot_id: String,
    /// Milliseconds since the boot.
    pub boot_ms: u64,
}

/// A command, so that it is not done twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by its sender.
    pub id: RequestId,
    /// When it was taken.
    #[serde(with = "rfc3339")]
    pub at: Timestamp,
    /// Stands for its action and parameters: the same id with another one is another command.
    pub fingerprint: String,
    /// The run that it asked for.
    pub run_id: Option<RunId>,
    /// The reply as it was sent; none while it is carried out.
    pub reply: Option<String>,
}

/// Slots that fell due, and those that have a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Fell due.
    pub due: u64,
    /// Have a record.
    pub accounted: u64,
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// An entry.
    Known(Box<Entry>),
    /// Whole, but of a kind that a later version wrote.
    Later,
    /// Not whole.
    Broken,
}

impl Entry {
    /// The entry as a line, with the line break; none where it is longer than [`LINE_LIMIT`].
    #[must_use]
    pub fn to_line(&self) -> Option<Vec<u8>> {
        let mut line = vec![b'0'; PREFIX];
        serde_json::to_writer(&mut line, self).ok()?;
        let (prefix, json) = line.split_at_mut(PREFIX);
        prefix.copy_from_slice(format!("{:08x} ", crc32(json)).as_bytes());
        line.push(b'\n');
        (line.len() <= LINE_LIMIT).then_some(line)
    }
}

impl Line {
    /// Reads a line without its line break.
    #[must_use]
    pub fn read(line: &[u8]) -> Self {
        let Some((prefix, json)) = line.split_at_checked(PREFIX) else { return Self::Broken };
        if prefix != format!("{:08x} ", crc32(json)).as_bytes() {
            return Self::Broken;
        }
        serde_json::from_slice(json).map_or(Self::Later, |entry| Self::Known(Box::new(entry)))
    }
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let (mut value, mut bit) = (index, 0);
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[index as usize] = value;
        }
        index += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        CRC_TABLE.get(usize::from(low ^ byte)).map_or(0, |value| value ^ (crc >> 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_line_of_a_later_version_is_told_from_a_broken_one() {
        let line = Entry::Synced(7).to_line().unwrap();
        assert_eq!(Line::read(&line[..line.len() - 1]), Line::Known(Box::new(Entry::Synced(7))));
        let later = br#"{"hologram":{"x":1}}"#;
        let later = [format!("{:08x} ", crc32(later)).as_bytes(), later].concat();
        assert_eq!(Line::read(&later), Line::Later);
        assert_eq!(Line::read(&later[..later.len() - 1]), Line::Broken);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_line_or_a_broken_one(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert_eq!(Line::read(&bytes), Line::Broken);
        }

        #[test]
        fn a_line_with_one_byte_changed_is_broken(at in 0_usize..15, byte in proptest::num::u8::ANY) {
            let whole = Entry::Synced(1234).to_line().unwrap();
            let mut line = whole[..whole.len() - 1].to_vec();
            let before = std::mem::replace(&mut line[at], byte);
            proptest::prop_assert_eq!(Line::read(&line) == Line::Broken, before != byte);
        }
    }
}
