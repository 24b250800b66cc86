//! Leaf values as people write them: in a file with YAML's types, in a variable as text.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::clock::Span;

/// Seconds in the bounds of durations.
pub(super) const MINUTE: u64 = 60;
/// One hour in seconds.
pub(super) const HOUR: u64 = 60 * MINUTE;
/// One day in seconds.
pub(super) const DAY: u64 = 24 * HOUR;
/// 365 days in seconds.
pub(super) const YEAR: u64 = 365 * DAY;
/// Seven days in seconds, the longest interval.
pub(super) const WEEK: u64 = 7 * DAY;

/// Reads a size in bytes: `64KiB`, `64k`, `1MB`, or a plain number.
///
/// `k`, `kb` and `KiB` are all 1024, as Docker reads them.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is not a size; write it like `64KiB` or `1MiB`");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1_u64 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// A value that a number or a text can give.
struct Leaf<T, N, S> {
    expects: &'static str,
    number: N,
    text: S,
    out: PhantomData<T>,
}

impl<T, N, S> Visitor<'_> for Leaf<T, N, S>
where
    N: Fn(f64) -> Result<T, String>,
    S: Fn(&str) -> Result<T, String>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expects)
    }

    #[expect(clippy::cast_precision_loss, reason = "no setting is near 2^53")]
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        (self.number)(value as f64).map_err(E::custom)
    }

    #[expect(clippy::cast_precision_loss, reason = "no setting is near 2^53")]
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        (self.number)(value as f64).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        (self.number)(value).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }
}

/// A duration from `MIN` to `MAX` seconds.
pub(super) fn duration<'de, D, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    let Span(span) = Span::deserialize(deserializer)?;
    if span < Duration::from_secs(MIN) || span > Duration::from_secs(MAX) {
        let [span, min, max] =
            [span, Duration::from_secs(MIN), Duration::from_secs(MAX)].map(humantime::format_duration);
        return Err(de::Error::custom(format!("{span} is out of bounds: {min} to {max}")));
    }
    Ok(span)
}

/// A duration that may be null, with the bounds of [`duration`].
pub(super) fn optional_duration<'de, D, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Bounded<const MIN: u64, const MAX: u64>(Duration);
    impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            duration::<_, MIN, MAX>(deserializer).map(Self)
        }
    }
    Option::<Bounded<MIN, MAX>>::deserialize(deserializer).map(|value| value.map(|bounded| bounded.0))
}

/// A whole number from `MIN` to `MAX`.
pub(super) fn whole<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let bounded = |value: u64| match T::try_from(value) {
        Ok(number) if (MIN..=MAX).contains(&value) => Ok(number),
        _ => Err(format!("{value} is out of bounds: {MIN} to {MAX}")),
    };
    deserializer.deserialize_any(Leaf {
        expects: "a whole number",
        number: |value: f64| {
            if value.fract() != 0.0 || value < 0.0 {
                return Err(format!("{value} is not a whole number from {MIN} to {MAX}"));
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked above; `as` saturates"
            )]
            bounded(value as u64)
        },
        text: |text: &str| match text.trim().parse() {
            Ok(value) => bounded(value),
            Err(_) => Err(format!("{text:?} is not a whole number from {MIN} to {MAX}")),
        },
        out: PhantomData,
    })
}

/// A whole number that may be null, with the bounds of [`whole`].
pub(super) fn optional_whole<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    struct Bounded<T, const MIN: u64, const MAX: u64>(T);
    impl<'de, T: TryFrom<u64>, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<T, MIN, MAX> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            whole::<_, T, MIN, MAX>(deserializer).map(Self)
        }
    }
    Option::<Bounded<T, MIN, MAX>>::deserialize(deserializer).map(|value| value.map(|bounded| bounded.0))
}

/// A size in bytes from 0 to `MAX`.
pub(super) fn size<'de, D, const MAX: u64>(deserializer: D) -> Result<usize, D::Error>
where
    D: Deserializer<'de>,
{
    let bounded = |bytes: u64| match usize::try_from(bytes) {
        Ok(size) if bytes <= MAX => Ok(size),
        _ => Err(format!("{bytes} bytes are out of bounds: 0 to {MAX}")),
    };
    deserializer.deserialize_any(Leaf {
        expects: "a size such as `64KiB`",
        number: |value: f64| parse_size(&value.to_string()).and_then(bounded),
        text: |text: &str| parse_size(text).and_then(bounded),
        out: PhantomData,
    })
}

/// `true`, `yes`, `on`, `1` and their opposites, in any case.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Flag;
    impl Visitor<'_> for Flag {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<bool, E> {
            self.visit_str(&value.to_string())
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
            match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(true),
                "false" | "no" | "off" | "0" => Ok(false),
                _ => Err(E::custom(format!("{text:?} is neither true nor false"))),
            }
        }
    }
    deserializer.deserialize_any(Flag)
}

/// A list; a single text is split at its commas.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    struct Word<T>(T);
    impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Word<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?.trim().parse().map(Self).map_err(de::Error::custom)
        }
    }
    struct List<T>(PhantomData<T>);
    impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(|word| word.parse().map_err(E::custom)).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(Word(item)) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_any(List(PhantomData))
}

/// A secret that may be null; what was found in its place is never in the error.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    struct Secret(SecretString);
    impl<'de> Deserialize<'de> for Secret {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)
                .map(|text| Self(text.into()))
                .map_err(|_| de::Error::custom("not a text; put it in quotes"))
        }
    }
    Option::<Secret>::deserialize(deserializer).map(|value| value.map(|secret| secret.0))
}

/// Environment variables for a container, by name; `Debug` shows no value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text(String);
        impl<'de> Deserialize<'de> for Text {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct AnyScalar;
                impl Visitor<'_> for AnyScalar {
                    type Value = Text;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a text")
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                        Ok(Text(text.into()))
                    }

                    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
                        Ok(Text(value.to_string()))
                    }

                    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
                        Ok(Text(value.to_string()))
                    }

                    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
                        Ok(Text(value.to_string()))
                    }

                    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
                        Ok(Text(value.to_string()))
                    }
                }
                deserializer.deserialize_any(AnyScalar)
            }
        }
        let texts = BTreeMap::<String, Text>::deserialize(deserializer)?;
        Ok(Self(texts.into_iter().map(|(name, text)| (name, text.0)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [("64KiB", 65_536), ("64k", 65_536), ("1MB", 1 << 20), ("10", 10), ("0", 0)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5M", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_values_of_variables_are_not_in_their_debug_form() {
        let variables = Variables(BTreeMap::from([("TOKEN".into(), "s3cret".into())]));
        let text = format!("{variables:?}");
        assert!(text.contains("TOKEN") && !text.contains("s3cret"), "{text}");
    }
}
