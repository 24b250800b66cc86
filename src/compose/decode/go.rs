//! What Go makes of values that a field's type has no place for.

use super::super::value::scalar_text;
use super::super::yaml::{Entry, Kind, Node};

/// The text that Go has for a map, which is what Compose makes of the extensions of a mapping of texts.
pub(super) fn go_map_text(mut entries: Vec<&Entry>) -> String {
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let texts: Vec<String> = entries.iter().map(|entry| format!("{}:{}", entry.key, go_text(&entry.value))).collect();
    format!("map[{}]", texts.join(" "))
}

/// The text that Go has for a value.
pub(super) fn go_text(node: &Node) -> String {
    match &node.kind {
        Kind::Seq(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Kind::Map(map) => go_map_text(map.iter().collect()),
        kind => scalar_text(kind).unwrap_or_else(|| "<nil>".to_owned()),
    }
}

/// The integer types that Compose decodes to.
pub(in super::super) trait Integer {
    const SIGNED: bool;
    /// The value, without the bits for which the type has no place.
    fn low_bits(value: i128) -> Self;
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Integer for $type {
            const SIGNED: bool = <$type>::MIN != 0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is what Go does")]
            fn low_bits(value: i128) -> Self {
                value as Self
            }
        })*
    };
}

integers!(i64, u64, u32, u16);

/// What Go on amd64 makes of a float that is too large for an unsigned integer.
pub(super) const UNSIGNED_OVERFLOW: i128 = 1 << 63;

/// A float without its fraction, if that fits into 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and the range is looked at after")]
pub(super) fn truncated<T: TryFrom<i128>>(value: f64) -> Option<i128> {
    (!value.is_nan()).then_some(value as i128).filter(|value| T::try_from(*value).is_ok())
}
