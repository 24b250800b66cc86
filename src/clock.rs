//! Wall-clock time, for stamps only, and spans of time as people write them. Whatever is measured or waited for uses
//! `tokio::time`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A moment as seconds since the Unix epoch, as the Redis contract writes it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub f64);

impl Timestamp {
    /// The present moment; 0 when the clock stands before 1970.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
    }

    /// Seconds from `earlier` to this moment; negative when the clock was set back between them.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0 - earlier.0
    }
}

/// A span of time as a configuration says it: `30s`, `5m`, `1h 30m`, `1.5h`, or a plain number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a text is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// It counts in `M`, months or years; `5M` would be five months.
    #[error("{0:?} counts in months or years; write days (`d`) or minutes (`m`)")]
    Calendar(String),
    /// It is anything else.
    #[error("{0:?} is not a duration; write it like `30s`, `5m` or `1h 30m`")]
    Unreadable(String),
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let shown = || text.chars().take(80).collect();
        let trimmed = text.trim();
        let plain = trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let mut units = trimmed.split(|c: char| !c.is_alphabetic());
        if units.any(|unit| unit == "M" || unit.starts_with("mon") || unit.starts_with('y')) {
            return Err(SpanError::Calendar(shown()));
        }
        let span = if plain {
            trimmed.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        } else {
            humantime_serde::deserialize(IntoDeserializer::<de::value::Error>::into_deserializer(trimmed)).ok()
        };
        span.map(Self).ok_or_else(|| SpanError::Unreadable(shown()))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `30s`")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span(Duration::from_secs(seconds)))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                seconds.to_string().parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                Duration::try_from_secs_f64(seconds)
                    .map(Span)
                    .map_err(|_| E::custom(SpanError::Unreadable(seconds.to_string())))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Result<Duration, SpanError> {
        text.parse::<Span>().map(|span| span.0)
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("5m", 300.0),
            ("1h 30m", 5400.0),
            ("1.5h", 5400.0),
            ("45", 45.0),
            ("0.5", 0.5),
            ("2d", 172_800.0),
            (" 1w ", 604_800.0),
            ("0", 0.0),
        ] {
            assert_eq!(span(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn months_years_and_nonsense_are_no_spans() {
        for text in ["5M", "1month", "2 months", "1y", "3 years"] {
            assert!(matches!(span(text), Err(SpanError::Calendar(_))), "{text}");
        }
        for text in ["", "-5s", "5 parsecs", "NaN", "1e3", "..", "5m!", "99999999999999999999999"] {
            assert!(matches!(span(text), Err(SpanError::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn a_number_is_seconds_and_never_negative() {
        let read = |text: &str| serde_yaml::from_str::<Span>(text).map(|span| span.0);
        assert_eq!(read("2").unwrap(), Duration::from_secs(2));
        assert_eq!(read("1.5").unwrap(), Duration::from_millis(1500));
        for text in ["-1", ".nan", "-.inf", "[1]", "true"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_span_or_an_error(text in ".*") {
            let _ = span(&text);
        }

        #[test]
        fn a_span_reads_back_what_humantime_writes(milliseconds in 0_u64..30 * 86_400_000) {
            let written = Duration::from_millis(milliseconds);
            proptest::prop_assert_eq!(span(&humantime::format_duration(written).to_string()), Ok(written));
        }
    }
}
