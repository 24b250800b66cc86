//! The fields of a cron expression, as sets of numbers.

use jiff::civil::{Date, DateTime, Time};

/// Longest expression, in bytes: every minute of an hour, listed, is shorter.
const MOST_BYTES: usize = 1000;

/// How a cron expression may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// Five fields of numbers, lists, ranges and steps, as in the element `jobs`.
    Numbers,
    /// Names of months and days, nicknames such as `@daily`, and a field of seconds before the others as well.
    Extended,
}

/// Why a text is not a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It has a field too many or too few.
    #[error("has {found} fields, not {wanted}")]
    Count {
        /// How many it has.
        found: usize,
        /// How many it may have.
        wanted: &'static str,
    },
    /// It is longer than any sensible one.
    #[error("is longer than {MOST_BYTES} bytes")]
    TooLong,
    /// It starts with `@`, and is none of those that are known.
    #[error("{0:?} is not one of @yearly, @monthly, @weekly, @daily and @hourly")]
    Nickname(String),
    /// A part of a field is not what may stand there.
    #[error("{part:?} is not a {field} of {low} to {high}, a range `a-b`, or `*`, with a step `/n` at most")]
    Part {
        /// The part, between commas.
        part: String,
        /// Which field.
        field: &'static str,
        /// Its least number.
        low: u8,
        /// Its greatest number.
        high: u8,
    },
}

/// What one field may hold.
struct Kind {
    name: &'static str,
    low: u8,
    high: u8,
    /// Words for its numbers, from `low` on.
    words: &'static [&'static str],
}

const SECOND: Kind = Kind { name: "second", low: 0, high: 59, words: &[] };
const MINUTE: Kind = Kind { name: "minute", low: 0, high: 59, words: &[] };
const HOUR: Kind = Kind { name: "hour", low: 0, high: 23, words: &[] };
const DAY: Kind = Kind { name: "day of the month", low: 1, high: 31, words: &[] };
const MONTH: Kind = Kind {
    name: "month",
    low: 1,
    high: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 0 and 7 are Sunday.
const WEEKDAY: Kind =
    Kind { name: "day of the week", low: 0, high: 7, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Numbers below 64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.0.checked_shr(number).is_some_and(|bits| bits & 1 == 1))
    }

    fn add(&mut self, number: u8) {
        self.0 |= 1 << (number & 63);
    }

    /// The least number that is not below another.
    fn at_least(self, number: i8) -> Option<i8> {
        let rest = u32::try_from(number).ok().and_then(|number| self.0.checked_shr(number))?;
        (rest != 0).then_some(rest.trailing_zeros()).and_then(|more| i8::try_from(more).ok()?.checked_add(number))
    }
}

/// What an expression's fields name.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    seconds: Set,
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    /// Both day fields are restricted: either counts.
    either_day: bool,
    /// The hour field is `*` or `*/n`.
    pub(super) elapsed: bool,
}

impl Fields {
    pub(super) fn parse(expression: &str, grammar: Grammar) -> Result<Self, FieldError> {
        if expression.len() > MOST_BYTES {
            return Err(FieldError::TooLong);
        }
        let extended = grammar == Grammar::Extended;
        let mut text = expression.trim();
        if extended && text.starts_with('@') {
            let known = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            text = known.ok_or_else(|| FieldError::Nickname(shown(text)))?.1;
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (second, rest) = match words.as_slice() {
            [second, rest @ ..] if extended && rest.len() == 5 => (*second, rest),
            all => ("0", all),
        };
        let [minute, hour, day, month, weekday] = rest else {
            let wanted = if extended { "5, or 6 with seconds" } else { "5" };
            return Err(FieldError::Count { found: words.len(), wanted });
        };
        let mut weekdays = set(weekday, &WEEKDAY, extended)?;
        if weekdays.has(7) {
            weekdays.add(0);
        }
        Ok(Self {
            seconds: set(second, &SECOND, extended)?,
            minutes: set(minute, &MINUTE, extended)?,
            hours: set(hour, &HOUR, extended)?,
            days: set(day, &DAY, extended)?,
            months: set(month, &MONTH, extended)?,
            weekdays,
            either_day: *day != "*" && *weekday != "*",
            elapsed: *hour == "*" || hour.starts_with("*/") && !hour.contains(','),
        })
    }

    /// The first time named in [`from`, `end`).
    pub(super) fn next(&self, from: DateTime, end: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut earliest = from.time();
        if earliest.subsec_nanosecond() > 0 {
            earliest = earliest.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
        }
        while date <= end.date() {
            if !self.months.has(date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                earliest = Time::midnight();
                continue;
            }
            if self.names(date)
                && let Some(time) = self.next_time(earliest)
            {
                let named = date.to_datetime(time);
                return (named < end).then_some(named);
            }
            date = date.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    fn names(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        if self.either_day { day || weekday } else { day && weekday }
    }

    /// The first time of a day that is not before another.
    fn next_time(&self, from: Time) -> Option<Time> {
        let (mut hour, mut minute, mut second) = (from.hour(), from.minute(), from.second());
        loop {
            let next = self.hours.at_least(hour)?;
            if next > hour {
                (hour, minute, second) = (next, 0, 0);
            }
            let Some(next) = self.minutes.at_least(minute) else {
                (hour, minute, second) = (hour + 1, 0, 0);
                continue;
            };
            if next > minute {
                (minute, second) = (next, 0);
            }
            let Some(next) = self.seconds.at_least(second) else {
                (minute, second) = (minute + 1, 0);
                continue;
            };
            return Time::new(hour, minute, next, 0).ok();
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The numbers that a field names.
fn set(word: &str, kind: &Kind, extended: bool) -> Result<Set, FieldError> {
    let mut set = Set::default();
    for part in word.split(',') {
        let wrong = || FieldError::Part { part: shown(part), field: kind.name, low: kind.low, high: kind.high };
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0).ok_or_else(wrong)?)),
            None => (part, None),
        };
        let value = |text: &str| {
            let word = kind.words.iter().position(|word| extended && word.eq_ignore_ascii_case(text));
            let word = word.and_then(|at| u8::try_from(at).ok()?.checked_add(kind.low));
            word.or_else(|| number(text)).filter(|value| (kind.low..=kind.high).contains(value)).ok_or_else(wrong)
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (value(first)?, value(last)?),
            // `*/2` of the days of a week is every other one from Sunday on, and no second Sunday.
            None if range == "*" => (kind.low, if kind.high == WEEKDAY.high { kind.high - 1 } else { kind.high }),
            // A step needs something to step over.
            None if step.is_some() => return Err(wrong()),
            None => (value(range)?, value(range)?),
        };
        if first > last {
            return Err(wrong());
        }
        for number in (first..=last).step_by(step.unwrap_or(1).into()) {
            set.add(number);
        }
    }
    Ok(set)
}

fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
