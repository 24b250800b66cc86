//! Typed values of the Compose file whose text form matters: durations, sizes, CPU shares, file modes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::number::{NumberError, go_float_text, parse_f32, parse_f64, parse_int};
use super::yaml::Kind;

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

/// Why a text is not a value of its type, in Compose's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant says it")]
pub enum ValueError {
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit { unit: String, text: String },
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
    #[error(transparent)]
    Number(#[from] NumberError),
}

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000 * MICROSECOND;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

/// Go's syntax (`1h30m`, `1.5s`, `-3ms`) plus days (`d`) and weeks (`w`).
impl FromStr for Duration {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let invalid = || ValueError::Duration(text.to_owned());
        let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let mut total = 0i64;
        while !rest.is_empty() {
            let (whole, after) = rest.split_at(digits(rest));
            let (fraction, after) = match after.strip_prefix('.') {
                Some(fraction) => fraction.split_at(digits(fraction)),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_end = after.find(|next: char| next == '.' || next.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            let nanoseconds = match unit {
                "" => return Err(ValueError::MissingUnit(text.to_owned())),
                "ns" => 1,
                "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
                "ms" => MILLISECOND,
                "s" => SECOND,
                "m" => MINUTE,
                "h" => HOUR,
                "d" => DAY,
                "w" => WEEK,
                _ => return Err(ValueError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
            };
            let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| invalid())? };
            let part = whole
                .checked_mul(nanoseconds)
                .and_then(|part| part.checked_add(fraction_of(fraction, nanoseconds)))
                .ok_or_else(invalid)?;
            total = total.checked_add(part).ok_or_else(invalid)?;
            rest = after;
        }
        Ok(Self(if text.starts_with('-') { -total } else { total }))
    }
}

/// The digits behind a point, times a unit, with Go's rounding.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "Go computes it in floats")]
fn fraction_of(digits: &str, unit: i64) -> i64 {
    let (mut value, mut scale) = (0i64, 1.0);
    for digit in digits.bytes() {
        // What no longer fits is below a nanosecond.
        let Some(next) = value.checked_mul(10).and_then(|value| value.checked_add(i64::from(digit - b'0'))) else {
            break;
        };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as i64
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanoseconds = self.0.unsigned_abs();
        let fraction = |unit: i64| {
            let unit = unit.unsigned_abs();
            let (whole, part) = (nanoseconds / unit, nanoseconds % unit);
            if part == 0 {
                return whole.to_string();
            }
            let width = unit.ilog10() as usize;
            format!("{whole}.{}", format!("{part:0width$}").trim_end_matches('0'))
        };
        let second = SECOND.unsigned_abs();
        match nanoseconds {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", fraction(MICROSECOND)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", fraction(MILLISECOND)),
            _ => {
                let (hours, minutes) = (nanoseconds / (3600 * second), nanoseconds / (60 * second) % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if nanoseconds >= 60 * second {
                    write!(f, "{minutes}m")?;
                }
                let rest = nanoseconds % (60 * second);
                write!(f, "{}", rest / second)?;
                if !rest.is_multiple_of(second) {
                    write!(f, ".{}", format!("{:09}", rest % second).trim_end_matches('0'))?;
                }
                f.write_str("s")
            }
        }
    }
}

/// A number, perhaps a space, and a unit: `b`, or `k m g t p` of 1024 with an optional `b` or `ib`, in any case.
impl FromStr for ByteSize {
    type Err = ValueError;

    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a byte is dropped")]
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let invalid = || ValueError::Size(text.to_owned());
        let last = text
            .rfind(|character: char| character.is_ascii_digit() || character == '.' || character == ' ')
            .ok_or_else(invalid)?;
        let (number, suffix) = text.split_at(last + 1);
        let mut size = parse_f64(number.strip_suffix(' ').unwrap_or(number))?;
        if size < 0.0 {
            return Err(invalid());
        }
        if suffix.len() > 3 {
            return Err(ValueError::Suffix(suffix.to_owned()));
        }
        let suffix = suffix.to_lowercase();
        let power = match suffix.chars().next() {
            None => 0,
            Some('b') if suffix == "b" => 0,
            Some('k') => 1,
            Some('m') => 2,
            Some('g') => 3,
            Some('t') => 4,
            Some('p') => 5,
            Some(_) => return Err(ValueError::Suffix(suffix)),
        };
        if power > 0 && !matches!(suffix.get(1..), Some("" | "b" | "ib")) {
            return Err(ValueError::Suffix(suffix));
        }
        size *= 1024f64.powi(power);
        // Go's conversion of a float that does not fit gives the least integer.
        let fits = size < 9_223_372_036_854_775_808.0;
        Ok(Self(if fits { size as i64 } else { i64::MIN }))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cpus {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(Self(parse_f32(text)?))
    }
}

/// Octal digits.
impl FromStr for FileMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(Self(parse_int(text, 8, "ParseInt")?))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "0{sign}{:o}", self.0.unsigned_abs())
    }
}

/// The words that Compose takes for a boolean where a text must become one: `true`, `y`, `yes`, `on` and their opposites.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A scalar as text, where a number or boolean may stand for one (environment, labels, options); `None` for null.
///
/// Mappings and lists have no such form and give `None` too: the schema has refused them.
pub fn scalar_text(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Bool(value) => Some(value.to_string()),
        Kind::Int(value) => Some(value.to_string()),
        Kind::Float(value) => Some(go_float_text(*value)),
        Kind::Str(text) | Kind::Timestamp(text) => Some(text.clone()),
        Kind::Null | Kind::Seq(_) | Kind::Map(_) => None,
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f32(self.0)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, shown) in [
            ("1m30s", "1m30s"),
            ("90m", "1h30m0s"),
            ("1w2d3h4m5.006s", "219h4m5.006s"),
            ("100ms", "100ms"),
            ("1us", "1\u{b5}s"),
            ("1.5\u{3bc}s", "1.5\u{b5}s"),
            ("0", "0s"),
            ("-1.5h", "-1h30m0s"),
            ("1.5s", "1.5s"),
            (".5s", "500ms"),
            ("5.s", "5s"),
            ("3ns", "3ns"),
            ("0.000000001s", "1ns"),
            ("1h1h", "2h0m0s"),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_in_gos_words() {
        let error = |text: &str| text.parse::<Duration>().unwrap_err().to_string();
        assert_eq!(error("5"), "time: missing unit in duration \"5\"");
        assert_eq!(error("5x"), "time: unknown unit \"x\" in duration \"5x\"");
        for text in ["", "-", ".s", "s", "9223372036854775808ns", "300000h10000000h", "1 s x"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_in_powers_of_1024() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("1 kb", 1024),
            ("10", 10),
            ("10B", 10),
            ("1P", 1 << 50),
            ("5.5", 5),
            ("1e3", 1000),
            ("9223372036854775808", i64::MIN),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        let error = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(error("-1"), "invalid size: '-1'");
        assert_eq!(error("5q"), "invalid suffix: 'q'");
        assert_eq!(error("k"), "invalid size: 'k'");
        assert_eq!(error("1kbb"), "invalid suffix: 'kbb'");
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!("0440".parse(), Ok(FileMode(0o440)));
        assert_eq!("440".parse(), Ok(FileMode(0o440)));
        assert!("9".parse::<FileMode>().is_err());
        assert_eq!(FileMode(0o440).to_string(), "0440");
        assert_eq!(FileMode(0).to_string(), "00");
        assert_eq!(FileMode(-1).to_string(), "0-1");
    }

    #[test]
    fn scalars_have_gos_text() {
        assert_eq!(scalar_text(&Kind::Float(1.5)).as_deref(), Some("1.5"));
        assert_eq!(scalar_text(&Kind::Int(511)).as_deref(), Some("511"));
        assert_eq!(scalar_text(&Kind::Bool(true)).as_deref(), Some("true"));
        assert_eq!(scalar_text(&Kind::Null), None);
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(nanoseconds in -(1i64 << 53)..(1i64 << 53)) {
            prop_assert_eq!(Duration(nanoseconds).to_string().parse(), Ok(Duration(nanoseconds)));
        }

        #[test]
        fn a_written_mode_reads_back(mode in 0..i64::MAX) {
            prop_assert_eq!(FileMode(mode).to_string().parse(), Ok(FileMode(mode)));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "[-+0-9.hmsunwdkbiGP \u{b5}é]{0,12}|.{0,10}") {
            let _ = (text.parse::<Duration>(), text.parse::<ByteSize>(), text.parse::<Cpus>(), text.parse::<FileMode>());
        }
    }
}
