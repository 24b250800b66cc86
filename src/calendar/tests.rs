use std::collections::{BTreeSet, HashSet};

use jiff::ToSpan;
use jiff::civil;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

fn parse(expression: &str) -> Result<Calendar, CalendarError> {
    Calendar::parse(expression, UTC, Grammar::Numbers)
}

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

/// The next moments after one, as text in the calendar's own zone.
fn fires(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let calendar = Calendar::parse(expression, zone, Grammar::Extended).unwrap();
    let zone = TimeZone::get(zone).unwrap();
    std::iter::successors(calendar.next_after(at(after)), |last| calendar.next_after(*last))
        .take(count)
        .map(|moment| moment.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string())
        .collect()
}

#[test]
fn five_fields_of_numbers_lists_ranges_and_steps_are_read() {
    for expression in ["* * * * *", "0 3 * * *", "*/15 0-6,22-23 1,15 1-12/2 0-7", " 5  4 3 2 1 ", "0 0 29 2 *"] {
        assert!(parse(expression).is_ok(), "{expression}");
    }
    assert_eq!(fires("0 0 * * 7", UTC, "2026-11-26T00:00:00Z", 1), ["2026-11-29 00:00:00 +00:00"]);
    assert_eq!(
        fires("0 0 * * 5-7", UTC, "2026-11-28T12:00:00Z", 2),
        ["2026-11-29 00:00:00 +00:00", "2026-12-04 00:00:00 +00:00"]
    );
    assert_eq!(
        fires("0 0 13 * 5", UTC, "2026-11-26T00:00:00Z", 4),
        [
            "2026-11-27 00:00:00 +00:00",
            "2026-12-04 00:00:00 +00:00",
            "2026-12-11 00:00:00 +00:00",
            "2026-12-13 00:00:00 +00:00"
        ],
        "either day field matches"
    );
}

#[test]
fn what_the_element_jobs_does_not_have_is_refused_and_said() {
    let told = |expression: &str| parse(expression).map(|_| ()).map_err(|error| error.to_string());
    for (expression, message) in [
        ("", "has 0 fields, not 5"),
        ("* * * *", "has 4 fields, not 5"),
        ("0 * * * * *", "has 6 fields, not 5"),
        ("@daily", "has 1 fields, not 5"),
        (
            "0 0 * * 1,MON",
            "\"MON\" is not a day of the week of 0 to 7, a range `a-b`, or `*`, with a step `/n` at most",
        ),
        ("60 * * * *", "\"60\" is not a minute of 0 to 59, a range `a-b`, or `*`, with a step `/n` at most"),
        ("0 0 31 2 *", "names no moment that ever comes"),
    ] {
        assert_eq!(told(expression), Err(message.to_owned()), "{expression}");
    }
    for expression in ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *"]
    {
        assert!(told(expression).is_err(), "{expression}");
    }
    for expression in ["0 0 L * *", "0 0 ? * *", "1,,2 * * * *", ", * * * *", "+5 * * * *", "5/2 * * * *"] {
        assert!(told(expression).is_err(), "{expression}");
    }
    for expression in ["22-2 * * * *", "1-2-3 * * * *", "1/2/3 * * * *", "*-5 * * * *", "5/* * * * *"] {
        assert!(told(expression).is_err(), "{expression}");
    }
    assert!(parse(&"0,".repeat(600)).is_err());
}

#[test]
fn names_nicknames_and_seconds_are_read_where_they_may_stand() {
    assert_eq!(fires("@daily", UTC, "2026-11-26T00:00:00Z", 1), ["2026-11-27 00:00:00 +00:00"]);
    assert_eq!(fires("30 0 0 1 jan *", UTC, "2026-11-26T00:00:00Z", 1), ["2027-01-01 00:00:30 +00:00"]);
    assert_eq!(fires("0 5 * * mon-fri", UTC, "2026-11-27T05:00:00Z", 1), ["2026-11-30 05:00:00 +00:00"]);
    for expression in ["@reboot", "0 0 * jan mon tue", "0 0 jan * *", "0 0 * * L", "0 0 * * 5#2", "0 0 * * monday"] {
        assert!(Calendar::parse(expression, UTC, Grammar::Extended).is_err(), "{expression}");
    }
}

#[test]
fn a_zone_has_a_name_of_the_iana_database() {
    let told = |zone: &str| Calendar::parse("0 3 * * *", zone, Grammar::Numbers).map(|calendar| calendar.to_string());
    assert_eq!(told("Europe/Zurich").unwrap(), "0 3 * * * Europe/Zurich");
    assert_eq!(
        told("Europe/Zürich").unwrap_err().to_string(),
        "\"Europe/Zürich\" is not the name of a time zone, such as `Europe/Zurich`"
    );
    for zone in ["", "Local", "+01:00", "../../etc/passwd"] {
        assert!(told(zone).is_err(), "{zone}");
    }
}

#[test]
fn the_next_moment_is_after_the_given_one_and_in_whole_seconds() {
    let calendar = parse("* * * * *").unwrap();
    for (after, next) in [(0.0, 60.0), (59.999, 60.0), (60.0, 120.0), (60.5, 120.0), (-5.0, 60.0)] {
        assert_eq!(calendar.next(Timestamp(after)), Some(Timestamp(next)), "{after}");
    }
    for after in [f64::INFINITY, 1e30] {
        assert_eq!(calendar.next(Timestamp(after)), None);
    }
}

#[test]
fn a_time_that_does_not_exist_or_comes_twice_is_one_fire() {
    let new_york = "America/New_York";
    assert_eq!(
        fires("30 2 * * *", new_york, "2026-03-08T05:00:00Z", 2),
        ["2026-03-08 03:00:00 -04:00", "2026-03-09 02:30:00 -04:00"]
    );
    assert_eq!(
        fires("30 1 * * *", new_york, "2026-11-01T04:00:00Z", 2),
        ["2026-11-01 01:30:00 -04:00", "2026-11-02 01:30:00 -05:00"]
    );
    assert_eq!(
        fires("*/30 * * * *", new_york, "2026-11-01T04:59:00Z", 4),
        [
            "2026-11-01 01:00:00 -04:00",
            "2026-11-01 01:30:00 -04:00",
            "2026-11-01 01:00:00 -05:00",
            "2026-11-01 01:30:00 -05:00"
        ]
    );
}

/// What a five-field expression names, found by walking over every minute.
struct Walk {
    minutes: BTreeSet<i64>,
    hours: BTreeSet<i64>,
    days: BTreeSet<i64>,
    months: BTreeSet<i64>,
    weekdays: BTreeSet<i64>,
    /// Both day fields are restricted: either counts.
    either: bool,
    /// The hour field is `*` or `*/n`.
    elapsed: bool,
}

impl Walk {
    fn of(expression: &str) -> Self {
        let words: Vec<&str> = expression.split(' ').collect();
        let set = |word: &str, low: i64, high: i64| -> BTreeSet<i64> {
            word.split(',')
                .flat_map(|part| {
                    let (range, step) = part.split_once('/').unwrap_or((part, "1"));
                    let (from, to) = match range.split_once('-') {
                        Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
                        None if range == "*" => (low, high),
                        None => (range.parse().unwrap(), range.parse().unwrap()),
                    };
                    (from..=to).step_by(step.parse().unwrap()).collect::<Vec<_>>()
                })
                .collect()
        };
        Self {
            minutes: set(words[0], 0, 59),
            hours: set(words[1], 0, 23),
            days: set(words[2], 1, 31),
            months: set(words[3], 1, 12),
            weekdays: set(words[4], 0, 6).into_iter().map(|day| day % 7).collect(),
            either: words[2] != "*" && words[4] != "*",
            elapsed: words[1] == "*" || words[1].starts_with("*/"),
        }
    }

    /// Whether it names a time, in seconds since 1970 on the zone's own clock.
    fn names(&self, local: i64) -> bool {
        let minute = local.div_euclid(60);
        if !self.minutes.contains(&minute.rem_euclid(60)) || !self.hours.contains(&minute.div_euclid(60).rem_euclid(24))
        {
            return false;
        }
        let date = civil::date(1970, 1, 1).checked_add(minute.div_euclid(24 * 60).days()).unwrap();
        let day = self.days.contains(&date.day().into());
        let weekday = self.weekdays.contains(&date.weekday().to_sunday_zero_offset().into());
        self.months.contains(&date.month().into()) && if self.either { day || weekday } else { day && weekday }
    }

    /// The fires in (`from`, `to`], in Unix seconds.
    fn fires(&self, zone: &TimeZone, from: i64, to: i64) -> Vec<i64> {
        let offset = |second: i64| i64::from(zone.to_offset(jiff::Timestamp::from_second(second).unwrap()).seconds());
        let mut fires = Vec::new();
        let mut shown = HashSet::new();
        // No clock has been set back by more than three hours since 2000.
        let mut second = from - from.rem_euclid(60) - 3 * 3600;
        let mut before = offset(second - 60);
        while second <= to {
            let now = offset(second);
            let local = second + now;
            // The clock was set forward: what it jumped over comes now.
            let jumped_over = (0..(now - before) / 60).any(|minute| self.names(second + before + minute * 60));
            let again = !shown.insert(local);
            if !self.elapsed && jumped_over || self.names(local) && (self.elapsed || !again) {
                fires.push(second);
            }
            second += 60;
            before = now;
        }
        fires.retain(|fire| (from + 1..=to).contains(fire));
        fires
    }
}

fn calendar_fires(calendar: &Calendar, from: i64, to: i64) -> Vec<i64> {
    let from = jiff::Timestamp::from_second(from).unwrap();
    std::iter::successors(calendar.next_after(from), |last| calendar.next_after(*last))
        .map(jiff::Timestamp::as_second)
        .take_while(|fire| *fire <= to)
        .collect()
}

fn agree(expression: &str, zone: &TimeZone, from: i64, to: i64) -> Result<(), TestCaseError> {
    let name = zone.iana_name().unwrap();
    let calendar = Calendar::parse(expression, name, Grammar::Numbers).unwrap();
    let expected = Walk::of(expression).fires(zone, from, to);
    let found = calendar_fires(&calendar, from, to);
    let first = (0..found.len().max(expected.len())).find(|at| found.get(*at) != expected.get(*at));
    if let Some(at) = first {
        let moment = |fire: Option<&i64>| {
            fire.map(|second| {
                jiff::Timestamp::from_second(*second).unwrap().to_zoned_datetime(zone.clone()).to_string()
            })
        };
        let (found, expected) = (moment(found.get(at)), moment(expected.get(at)));
        return Err(TestCaseError::fail(format!("{expression} {name}: {found:?}, by the walk {expected:?}")));
    }
    Ok(())
}

const EXPRESSIONS: [&str; 16] = [
    "30 2 * * *",
    "0 0 * * *",
    "15 */2 * * *",
    "30 * * * *",
    "*/20 * * * *",
    "5,35 1-3 * * *",
    "0 3 1 * *",
    "59 23 * * *",
    "*/10 2 * * *",
    "0 1 * * 0",
    "45 0 1-7 * 6",
    "0 */3 * * *",
    "20 0,1,2,3 * 3,4,9,10,11 *",
    "1 2 * * 1-5",
    "0 2-4/2 * * *",
    "30 */5 * * 0",
];

/// Two days around every change of the clock in every zone from 2000 to 2050, against a walk over each minute.
#[test]
fn around_every_change_of_every_clock_fires_are_those_of_a_walk_over_its_minutes() {
    let (start, end) = (at("2000-01-01T00:00:00Z"), at("2051-01-01T00:00:00Z").as_second());
    let mut seen = BTreeSet::new();
    let (mut zones, mut changes) = (0, 0_usize);
    for name in jiff::tz::db().available() {
        let Ok(zone) = TimeZone::get(name.as_str()) else { continue };
        if zone.iana_name().is_none() {
            continue;
        }
        let transitions: Vec<(i64, i32)> = zone
            .following(start)
            .map(|transition| (transition.timestamp().as_second(), transition.offset().seconds()))
            .take_while(|(second, _)| *second < end)
            .collect();
        // Many names are of one zone.
        if transitions.is_empty() || !seen.insert(transitions.clone()) {
            continue;
        }
        zones += 1;
        for (second, _) in transitions {
            let expression = EXPRESSIONS[changes % EXPRESSIONS.len()];
            changes += 1;
            agree(expression, &zone, second - 86_400, second + 86_400).unwrap();
        }
    }
    assert!(zones > 150 && changes > 5000, "{changes} changes of {zones} zones");
}

/// Random days, zones and expressions.
#[test]
fn on_random_days_fires_are_those_of_a_walk_over_its_minutes() {
    let zones: Vec<TimeZone> = jiff::tz::db()
        .available()
        .filter_map(|name| TimeZone::get(name.as_str()).ok())
        .filter(|zone| zone.iana_name().is_some())
        .collect();
    let field = |low: u32, high: u32| {
        prop_oneof![
            3 => Just("*".to_owned()),
            1 => (2_u32..20).prop_map(|step| format!("*/{step}")),
            2 => (low..=high).prop_map(|number| number.to_string()),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => prop::collection::btree_set(low..=high, 1..4).prop_map(|set| {
                set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }),
        ]
    };
    let fields = (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6));
    let case = (fields, 0..zones.len(), 946_684_800_i64..2_524_608_000);
    TestRunner::new(Config { cases: 10_000, failure_persistence: None, ..Config::default() })
        .run(&case, |((minute, hour, day, month, weekday), zone, from)| {
            let expression = format!("{minute} {hour} {day} {month} {weekday}");
            prop_assume!(parse(&expression).is_ok());
            agree(&expression, &zones[zone], from, from + 86_400)
        })
        .unwrap();
}
