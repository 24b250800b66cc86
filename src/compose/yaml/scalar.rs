//! How go-yaml v3 reads a scalar.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use granit_parser::Tag;

use super::{Kind, YamlErrorKind, dialect};

const NAMESPACE: &str = "tag:yaml.org,2002:";

/// Reads a scalar: by its tag, else as text when quoted, else by what it looks like.
pub(super) fn read(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Kind, YamlErrorKind> {
    let text = if plain { dialect::trimmed(text) } else { text };
    // The tag `!` says nothing.
    let Some(tag) = tag.filter(|tag| tag.parts() != ("", "!")) else {
        return Ok(if plain { resolve(text, true) } else { Kind::Str(text.to_owned()) });
    };
    let suffix = tag.suffix_in_namespace(NAMESPACE);
    let wrong = |found: &Kind| YamlErrorKind::Tag {
        tag: format!("!!{}", suffix.as_deref().unwrap_or_default()),
        found: core_tag(found),
    };
    match suffix.as_deref() {
        Some(name @ ("int" | "float" | "bool" | "null" | "timestamp")) => {
            let kind = resolve(text, name == "timestamp");
            match (name, &kind) {
                ("int", Kind::Int(_))
                | ("float", Kind::Float(_))
                | ("bool", Kind::Bool(_))
                | ("null", Kind::Null)
                | ("timestamp", Kind::Timestamp(_)) => Ok(kind),
                #[expect(clippy::cast_precision_loss, reason = "that is what the tag asks for")]
                ("float", Kind::Int(number)) => Ok(Kind::Float(*number as f64)),
                _ => Err(wrong(&kind)),
            }
        }
        Some("binary") => match decode_base64(text) {
            Some(bytes) => Ok(Kind::Str(String::from_utf8_lossy(&bytes).into_owned())),
            None => Err(YamlErrorKind::Binary),
        },
        _ => Ok(Kind::Str(text.to_owned())),
    }
}

fn core_tag(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "!!null",
        Kind::Bool(_) => "!!bool",
        Kind::Int(_) => "!!int",
        Kind::Float(_) => "!!float",
        Kind::Timestamp(_) => "!!timestamp",
        Kind::Str(_) => "!!str",
        Kind::Seq(_) => "!!seq",
        Kind::Map(_) => "!!map",
    }
}

/// What a plain scalar is.
fn resolve(text: &str, timestamps: bool) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Kind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Kind::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.bytes().next() {
        Some(b'.') => go_float(text).map(Kind::Float),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            if timestamps && let Some(time) = timestamp(text) {
                return Kind::Timestamp(time);
            }
            let digits = text.replace('_', "");
            integer(&digits).map(Kind::Int).or_else(|| float(&digits).map(Kind::Float))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Kind::Str(text.to_owned()))
}

/// Go's `ParseInt` and `ParseUint` with base 0: `0x`, `0o`, `0b` in either case, and octal after a leading zero.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let number = if negative { -magnitude } else { magnitude };
    let most = if text.starts_with('+') { i128::from(i64::MAX) } else { i128::from(u64::MAX) };
    (i128::from(i64::MIN)..=most).contains(&number).then_some(number)
}

/// `[-+]?(\.d+|d+(\.d*)?)([eE][-+]?d+)?`, when it is finite.
fn float(text: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = rest.get(whole..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if whole == 0 && count == 0 {
            return None;
        }
        rest = fraction.get(count..)?;
    } else if whole == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let count = digits(exponent);
        if count == 0 || count != exponent.len() {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Go's `ParseFloat` of a text that starts with a point: here `_` may stand between two digits, and nowhere else.
fn go_float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let separates = |at: usize| digit(at.checked_sub(1)) && digit(at.checked_add(1));
    let placed = bytes.iter().enumerate().all(|(at, &byte)| byte != b'_' || separates(at));
    if placed { float(&text.replace('_', "")) } else { None }
}

/// A date or time as go-yaml takes it, in RFC 3339 with the fraction of a second as short as can be.
fn timestamp(text: &str) -> Option<String> {
    let mut rest = Scan(text);
    let year = rest.digits(4, 4)?;
    rest.literal("-")?;
    let month = rest.digits(1, 2)?;
    rest.literal("-")?;
    let day = rest.digits(1, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > days {
        return None;
    }
    if rest.0.is_empty() {
        return Some(format!("{year:04}-{month:02}-{day:02}T00:00:00Z"));
    }
    let zoned = rest.literal("T").or_else(|| rest.literal("t")).is_some();
    if !zoned {
        rest.literal(" ")?;
    }
    let hour = rest.digits(1, 2).filter(|hour| *hour < 24)?;
    rest.literal(":")?;
    let minute = rest.digits(1, 2).filter(|minute| *minute < 60)?;
    rest.literal(":")?;
    let second = rest.digits(1, 2).filter(|second| *second < 60)?;
    let mut fraction = String::new();
    if rest.literal(".").or_else(|| rest.literal(",")).is_some() {
        let count = rest.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.0.split_at_checked(count).filter(|_| count > 0)?;
        let shown: String = digits.chars().take(9).collect();
        let shown = shown.trim_end_matches('0');
        if !shown.is_empty() {
            fraction = format!(".{shown}");
        }
        rest = Scan(after);
    }
    let zone = if !zoned || rest.literal("Z").is_some() {
        "Z".to_owned()
    } else {
        let sign = rest.literal("+").or_else(|| rest.literal("-"))?;
        let hours = rest.digits(2, 2).filter(|hours| *hours <= 24)?;
        rest.literal(":")?;
        let minutes = rest.digits(2, 2).filter(|minutes| *minutes <= 60)?;
        if hours == 0 && minutes == 0 { "Z".to_owned() } else { format!("{sign}{hours:02}:{minutes:02}") }
    };
    let date = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    rest.0.is_empty().then(|| format!("{date}{fraction}{zone}"))
}

struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    fn literal(&mut self, text: &'a str) -> Option<&'a str> {
        self.0 = self.0.strip_prefix(text)?;
        Some(text)
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(count).filter(|_| count >= least)?;
        self.0 = rest;
        digits.parse().ok()
    }
}

/// Standard base64 with padding, as Go decodes it: line ends are skipped, and bits behind the last byte may be anything.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    LENIENT.decode(text.replace(['\n', '\r'], "")).ok()
}
