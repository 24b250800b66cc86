//! Reads `config:schedule`: which services run how often.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::names::ServiceName;
use crate::schedule::{Interval, Intervals};

/// A service that the schedule may name, and how often it runs where the schedule does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Its field in the schedule; its full name is one as well.
    pub key: String,
    /// Its own interval, none while it is paused.
    pub default: Option<Interval>,
    /// It has its place by the settings. Others have one only while the schedule names them.
    pub by_settings: bool,
}

/// The services of the schedule.
pub type ScheduledServices = BTreeMap<ServiceName, Scheduled>;

/// A field of the schedule that is not followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(super) enum Refused {
    /// The whole of it is no JSON object.
    #[error("schedule is not a JSON object")]
    NoObject,
    /// It is not read at all.
    #[error("schedule at {key} {why}")]
    Unreadable {
        /// Where it is.
        key: String,
        /// What is wrong with it, with the bound that it breaks.
        why: String,
    },
    /// No service that may be scheduled has that key.
    #[error("schedule names {0:?}, which is no poll service")]
    Unknown(String),
    /// The value is no interval.
    #[error("schedule of {field:?}: {value} is not a number of seconds from 1 to 604800, 0 or null")]
    Value {
        /// The field.
        field: String,
        /// Its value, cut.
        value: String,
    },
}

/// Longest part of a refused text that is shown.
const SHOWN: usize = 40;

/// Most refused fields that are told.
const MOST_REFUSED: usize = 20;

/// The intervals that a schedule asks for, and what of it is refused.
///
/// A field that is absent means the service's default, 0 or null that it is paused. A refused one leaves `current` as it is.
pub(super) fn read(text: &str, services: &ScheduledServices, current: &Intervals) -> (Intervals, Vec<Refused>) {
    let Ok(fields) = serde_json::from_str::<Map<String, Value>>(text) else {
        return (current.clone(), vec![Refused::NoObject]);
    };
    let mut refused = Vec::new();
    let mut intervals = Intervals::new();
    for (service, scheduled) in services {
        // The short key first: it is the one that the dashboard writes.
        let field = [scheduled.key.as_str(), service.as_str()].into_iter().find(|field| fields.contains_key(*field));
        let interval = match field.and_then(|field| Some((field, fields.get(field)?))) {
            None => scheduled.by_settings.then_some(scheduled.default),
            Some((field, value)) => {
                let keep = |()| {
                    refused.push(Refused::Value { field: field.to_owned(), value: shown(&value.to_string()) });
                    current.get(service).copied().or(scheduled.by_settings.then_some(scheduled.default))
                };
                seconds(value).map_or_else(keep, Some)
            }
        };
        intervals.extend(interval.map(|interval| (service.clone(), interval)));
    }
    let known =
        |field: &str| services.iter().any(|(service, scheduled)| scheduled.key == field || service.as_str() == field);
    refused.extend(fields.keys().filter(|field| !known(field)).map(|field| Refused::Unknown(shown(field))));
    refused.truncate(MOST_REFUSED);
    (intervals, refused)
}

/// The intervals once the services' own changed from `before` to `now`, where no schedule says others.
pub(super) fn rebase(before: &ScheduledServices, now: &ScheduledServices, current: &Intervals) -> Intervals {
    let mut intervals = current.clone();
    intervals.retain(|service, _| now.contains_key(service) || !before.contains_key(service));
    for (service, scheduled) in now.iter().filter(|(_, scheduled)| scheduled.by_settings) {
        let same = before.get(service).is_some_and(|earlier| earlier.default == scheduled.default);
        if !same || !intervals.contains_key(service) {
            intervals.insert(service.clone(), scheduled.default);
        }
    }
    intervals
}

/// The intervals where there is no schedule.
pub(super) fn defaults(services: &ScheduledServices) -> Intervals {
    let by_settings = services.iter().filter(|(_, scheduled)| scheduled.by_settings);
    by_settings.map(|(service, scheduled)| (service.clone(), scheduled.default)).collect()
}

fn seconds(value: &Value) -> Result<Option<Interval>, ()> {
    let seconds = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64().ok_or(())?,
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => return Err(()),
    };
    if seconds == 0.0 {
        return Ok(None);
    }
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| ())?;
    Interval::try_from(span).map(Some).map_err(|_| ())
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(seconds: u64) -> Option<Interval> {
        Duration::from_secs(seconds).try_into().ok()
    }

    fn services() -> ScheduledServices {
        let scheduled = |key: &str, seconds| Scheduled { key: key.into(), default: every(seconds), by_settings: true };
        [("job-a".parse().unwrap(), scheduled("a", 30)), ("job-b".parse().unwrap(), scheduled("b", 60))].into()
    }

    fn intervals(a: Option<Interval>, b: Option<Interval>) -> Intervals {
        [("job-a".parse().unwrap(), a), ("job-b".parse().unwrap(), b)].into()
    }

    fn read_over(current: &Intervals, text: &str) -> (Intervals, Vec<String>) {
        let (intervals, refused) = read(text, &services(), current);
        (intervals, refused.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn short_and_full_names_are_keys_and_the_short_one_wins() {
        let now = intervals(every(1), every(1));
        assert_eq!(read_over(&now, r#"{"a": 10, "job-b": 20}"#), (intervals(every(10), every(20)), vec![]));
        assert_eq!(read_over(&now, r#"{"a": 10, "job-a": 99, "b": 5.0}"#).0, intervals(every(10), every(5)));
    }

    #[test]
    fn a_key_taken_out_goes_back_to_its_default_and_zero_or_null_pauses() {
        let now = intervals(every(1), every(1));
        assert_eq!(read_over(&now, "{}").0, intervals(every(30), every(60)));
        assert_eq!(read_over(&now, r#"{"a": 0, "b": null}"#).0, intervals(None, None));
        assert_eq!(read_over(&now, r#"{"a": 0.0, "b": -0.0}"#).0, intervals(None, None));
    }

    #[test]
    fn a_bad_value_keeps_the_old_interval_and_is_named() {
        let now = intervals(every(7), None);
        for value in ["-1", "0.5", "604801", "1e300", "\"30\"", "true", "[30]", "{}"] {
            let (intervals, refused) = read_over(&now, &format!(r#"{{"a": {value}, "b": {value}}}"#));
            assert_eq!(intervals, now, "{value}");
            assert_eq!(refused.len(), 2, "{value}");
            assert!(refused[0].starts_with("schedule of \"a\": "), "{refused:?}");
        }
        for text in ["", "[]", "null", "{", &"[".repeat(100_000)] {
            assert_eq!(read_over(&now, text), (now.clone(), vec!["schedule is not a JSON object".to_owned()]));
        }
    }

    #[test]
    fn an_unknown_key_is_named_and_the_others_are_followed() {
        let long = "x".repeat(10_000);
        let (intervals, refused) = read_over(&intervals(every(1), every(1)), &format!(r#"{{"{long}": 1, "a": 10}}"#));
        assert_eq!(intervals.values().next(), Some(&every(10)));
        assert_eq!(refused, [format!("schedule names {:?}, which is no poll service", "x".repeat(SHOWN))]);
    }

    #[test]
    fn a_service_that_the_settings_do_not_schedule_is_scheduled_while_the_schedule_names_it() {
        let mut services = services();
        services.insert("job-c".parse().unwrap(), Scheduled { key: "c".into(), default: None, by_settings: false });
        let defaults = intervals(every(30), every(60));
        let with = |c| {
            let mut all = defaults.clone();
            all.insert("job-c".parse().unwrap(), c);
            all
        };
        assert_eq!(read("{}", &services, &defaults), (defaults.clone(), vec![]));
        assert_eq!(read(r#"{"c": 5}"#, &services, &defaults), (with(every(5)), vec![]));
        assert_eq!(read(r#"{"job-c": 0}"#, &services, &defaults), (with(None), vec![]));
        assert_eq!(read(r#"{"c": "x"}"#, &services, &with(every(5))).0, with(every(5)));
        assert_eq!(read(r#"{"c": "x"}"#, &services, &defaults).0, defaults);
    }
}
