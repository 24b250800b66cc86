//! Calendars: the moments that a cron expression names in a time zone.
//!
//! Where a zone's clock is set, an hour field of `*` or `*/n` follows elapsed time. Any other time comes once: the first
//! time of one that comes twice, and the first moment after one that does not exist.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, ToSpan};

use self::fields::Fields;
use crate::clock::Timestamp;

mod fields;

pub use self::fields::{FieldError, Grammar};

/// The zone of an expression that names none.
pub const UTC: &str = "UTC";

/// How far ahead a moment is looked for: 29 February comes at least every eight years.
const AHEAD: fn() -> Span = || 9.years();

/// No clock has been set back by more than this.
const LONGEST_STEP_BACK: SignedDuration = SignedDuration::from_hours(25);

/// A cron expression in a time zone.
#[derive(Clone)]
pub struct Calendar {
    expression: Box<str>,
    fields: Fields,
    zone: TimeZone,
}

/// Why a text is not a calendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The expression cannot be read.
    #[error(transparent)]
    Expression(#[from] FieldError),
    /// It is well written, and no day of any year is like that.
    #[error("names no moment that ever comes")]
    Never,
    /// The zone is not one of the IANA database.
    #[error("{0:?} is not the name of a time zone, such as `Europe/Zurich`")]
    Zone(String),
}

impl Calendar {
    /// Reads an expression, for a zone of the IANA database.
    ///
    /// # Errors
    ///
    /// What is wrong with either.
    pub fn parse(expression: &str, zone: &str, grammar: Grammar) -> Result<Self, CalendarError> {
        let zone = TimeZone::get(zone).map_err(|_| CalendarError::Zone(zone.chars().take(80).collect()))?;
        let calendar = Self { expression: expression.trim().into(), fields: Fields::parse(expression, grammar)?, zone };
        match calendar.next(Timestamp(0.0)) {
            Some(_) => Ok(calendar),
            None => Err(CalendarError::Never),
        }
    }

    /// The expression as it was written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone's name.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or(UTC)
    }

    /// The first moment after another one, in whole seconds; none before 1970 or beyond the year 9990.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and what is beyond jiff's years is refused"
        )]
        let second = after.0.max(0.0).floor() as i64;
        let next = self.next_after(jiff::Timestamp::from_second(second).ok()?)?;
        #[expect(clippy::cast_precision_loss, reason = "a double holds every second of the years that there are")]
        Some(Timestamp(next.as_second() as f64))
    }

    /// Walks over the spans of time between which the zone's clock is not set.
    fn next_after(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut from = after.checked_add(SignedDuration::from_secs(1)).ok()?;
        let limit = self.zone.to_datetime(from).checked_add(AHEAD()).ok()?;
        loop {
            let offset = self.zone.to_offset(from);
            let change = self.zone.following(from).next().map(|transition| transition.timestamp());
            let start = offset.to_datetime(from);
            if start > limit {
                return None;
            }
            let end = change.map_or(limit, |change| offset.to_datetime(change));
            let first = if self.fields.elapsed { start } else { start.max(self.shown_before(from)?) };
            if let Some(named) = self.fields.next(first, end) {
                return offset.to_timestamp(named).ok();
            }
            let change = change?;
            if !self.fields.elapsed {
                // What the clock jumps over comes at the jump.
                let jumped_to = self.zone.to_offset(change).to_datetime(change);
                if self.fields.next(end.max(first), jumped_to).is_some() {
                    return Some(change);
                }
            }
            from = change;
        }
    }

    /// The first time of day and date that the clock did not show before a moment.
    fn shown_before(&self, moment: jiff::Timestamp) -> Option<DateTime> {
        let since = moment.checked_sub(LONGEST_STEP_BACK).ok()?;
        let just_after = moment.checked_add(SignedDuration::from_secs(1)).ok()?;
        let changes = self.zone.preceding(just_after).map(|transition| transition.timestamp());
        let last_shown = changes.take_while(|change| *change > since).filter_map(|change| {
            let before = change.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            Some(self.zone.to_offset(before).to_datetime(change))
        });
        Some(last_shown.max().unwrap_or(DateTime::MIN))
    }
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.zone() == other.zone()
    }
}

impl Eq for Calendar {}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.zone())
    }
}

#[cfg(test)]
mod tests;
