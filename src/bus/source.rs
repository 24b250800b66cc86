//! What a source has left on Redis: its status and its readings.

use super::{Bus, BusError};
use crate::clock::Timestamp;
use crate::message::{self, SourceStatus};
use crate::names::SourceId;

/// Most pages of keys that are looked through for a reading.
const MOST_PAGES: usize = 1000;

/// Readings that are read together: whatever they hold, they take little memory.
const TOGETHER: usize = 8;

/// The status that a source reported last, if it is still there.
pub async fn source_status<B: Bus>(bus: &B, source: &SourceId) -> Result<Option<SourceStatus>, BusError> {
    let values = bus.get(&[message::status_key(source)]).await?;
    Ok(values.into_iter().flatten().next().and_then(|text| SourceStatus::parse(&text)))
}

/// Whether a source has a reading of that moment or later; none where Redis holds too many keys to look through.
pub async fn has_readings_since<B: Bus>(
    bus: &B,
    source: &SourceId,
    moment: Timestamp,
) -> Result<Option<bool>, BusError> {
    let prefix = message::readings_prefix(source);
    let mut cursor = 0;
    for _ in 0..MOST_PAGES {
        let page = bus.keys(&prefix, cursor).await?;
        for keys in page.keys.chunks(TOGETHER) {
            let readings = bus.get(keys).await?;
            let mut stamps = readings.iter().flatten().filter_map(|text| message::reading_time(text));
            if stamps.any(|stamp| stamp >= moment) {
                return Ok(Some(true));
            }
        }
        match page.next {
            Some(next) => cursor = next,
            None => return Ok(Some(false)),
        }
    }
    Ok(None)
}
