//! Wall-clock time, for stamps only, and spans of time as people write them. Whatever is measured or waited for uses
//! `tokio::time`.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A moment as seconds since the Unix epoch, as the Redis contract writes it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub f64);

thread_local! {
    static WALL_CLOCK: RefCell<Box<dyn Fn() -> Timestamp>> = RefCell::new(Box::new(system_time));
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_time() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
}

/// Replaces the wall clock of this thread: the wall clock is a port, as tests on a clock that stands still need it.
pub fn set_wall_clock(read: impl Fn() -> Timestamp + 'static) {
    WALL_CLOCK.set(Box::new(read));
}

impl Timestamp {
    /// The present moment; 0 when the clock stands before 1970.
    #[must_use]
    pub fn now() -> Self {
        WALL_CLOCK.with_borrow(|read| read())
    }

    /// Reads a moment as the Engine writes it, RFC 3339 with any zone; none for what is before 1970, such as its zero time.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let zone = time.rfind(['Z', '+', '-'])?;
        let (clock, zone) = time.split_at(zone);
        let mut clock = clock.split(':');
        let hours: f64 = clock.next()?.parse().ok()?;
        let minutes: f64 = clock.next()?.parse().ok()?;
        let seconds: f64 = clock.next()?.parse().ok()?;
        let offset = match zone.split_once(':') {
            // A negative zone of less than an hour has its sign on `-00` only.
            Some((hours, minutes)) => {
                let sign = if hours.starts_with('-') { -60.0 } else { 60.0 };
                hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * sign
            }
            None => 0.0,
        };
        // Days since 1970 in the Gregorian calendar, counted in years that begin in March.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
        let days = f64::from(i32::try_from(days).ok()?);
        Some(Self(days * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds - offset))
    }

    /// The moment as records, log lines, command line and API write it: UTC, exactly three decimals, `Z`.
    ///
    /// Rounded to the nearest millisecond; before 1970 as 1970, after 9999 as its end.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        // Last millisecond of the year 9999.
        const END: u64 = 253_402_300_799_999;
        let span = Duration::try_from_secs_f64(self.0.max(0.0)).unwrap_or(Duration::MAX);
        let span = span.saturating_add(Duration::from_micros(500));
        let milliseconds = u64::try_from(span.as_millis()).unwrap_or(END).min(END);
        let (days, rest) = (milliseconds / 86_400_000, milliseconds % 86_400_000);
        // The Gregorian calendar repeats every 400 years; its years begin in March here, so that a leap day is the last.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
        format!("{:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", year + era * 400, rest % 1000)
    }

    /// Seconds from `earlier` to this moment; negative when the clock was set back between them.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0 - earlier.0
    }
}

/// Serde's `with` for moments in the form of [`Timestamp::to_rfc3339`].
pub mod rfc3339 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Timestamp;

    /// Writes the text.
    pub fn serialize<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&moment.to_rfc3339())
    }

    /// Reads the text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::from_rfc3339(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no moment")))
    }

    /// The same with null for none.
    pub mod option {
        use super::{Deserialize, Deserializer, Error, Serializer, Timestamp};

        /// Writes the text or null.
        pub fn serialize<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
            match moment {
                Some(moment) => super::serialize(moment, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads the text or null.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            let moment = |text: String| {
                Timestamp::from_rfc3339(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no moment")))
            };
            text.map(moment).transpose()
        }
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
    fn the_engines_stamps_are_read_with_their_fractions_and_any_zone() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("1970-01-01T00:01:00.5Z", 60.5),
            ("2024-02-29T12:30:15.25Z", 1_709_209_815.25),
            ("2024-02-29T12:30:15-01:30", 1_709_215_215.0),
            ("2024-02-29T12:30:15-00:30", 1_709_211_615.0),
            ("2000-03-01T00:00:00+00:00", 951_868_800.0),
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), Some(Timestamp(seconds)), "{text}");
        }
        let nanoseconds = Timestamp::from_rfc3339("2026-11-23T17:40:00.123456789Z").map(|at| Timestamp(at.0.floor()));
        assert_eq!(nanoseconds, Some(Timestamp(1_795_455_600.0)));
        for text in ["0001-01-01T00:00:00Z", "yesterday", "", "2024-02-29", "2024-02-29T12:30Z", "2024-13-01T00:00:00Z"]
        {
            assert_eq!(Timestamp::from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_written_in_utc_with_three_decimals() {
        for (seconds, text) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (-5.0, "1970-01-01T00:00:00.000Z"),
            (f64::NAN, "1970-01-01T00:00:00.000Z"),
            (60.5, "1970-01-01T00:01:00.500Z"),
            (59.9996, "1970-01-01T00:01:00.000Z"),
            (951_782_400.0, "2000-02-29T00:00:00.000Z"),
            (951_868_800.0, "2000-03-01T00:00:00.000Z"),
            (1_709_209_815.25, "2024-02-29T12:30:15.250Z"),
            (4_107_542_399.999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400.0, "2100-03-01T00:00:00.000Z"),
            (f64::INFINITY, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_rfc3339(), text, "{seconds}");
        }
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
        fn a_moment_reads_back_as_it_was_written(milliseconds in 0_u64..253_402_300_800_000) {
            let moment = Timestamp(Duration::from_millis(milliseconds).as_secs_f64());
            let text = moment.to_rfc3339();
            let written = std::time::UNIX_EPOCH + Duration::from_millis(milliseconds);
            proptest::prop_assert_eq!(&text, &humantime::format_rfc3339_millis(written).to_string());
            let read = Timestamp::from_rfc3339(&text).map(Timestamp::to_rfc3339);
            proptest::prop_assert_eq!(read, Some(text));
        }

        #[test]
        fn any_text_is_a_stamp_or_none(text in "[-+:.TZ0-9]{0,40}|.*") {
            let _ = Timestamp::from_rfc3339(&text);
        }

        #[test]
        fn a_span_reads_back_what_humantime_writes(milliseconds in 0_u64..30 * 86_400_000) {
            let written = Duration::from_millis(milliseconds);
            proptest::prop_assert_eq!(span(&humantime::format_duration(written).to_string()), Ok(written));
        }
    }
}
