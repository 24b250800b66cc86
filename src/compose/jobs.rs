//! The element `jobs`: services that run to their end when something starts them.
//!
//! `x-jobs` holds the same map for a file that is also read by a Compose that does not know the element. A job goes
//! through every step of loading as a service does, with the rules of a service's keys; what it has besides is here.

use std::collections::hash_map::Entry as Slot;

use serde::Serialize;

use super::decode::Reader;
use super::error::LoadError;
use super::key_path::KeyPath;
use super::loader::Loader;
use super::value::parse_bool;
use super::yaml::{Entry, Kind, Map, Node};
use crate::calendar::{Calendar, Grammar, UTC};

/// The element as every Compose ignores it.
const EXTENSION: &str = "x-jobs";

/// The element.
const ELEMENT: &str = "jobs";

/// What starts a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggers {
    /// Whether somebody may start it by hand.
    pub manual: bool,
    /// When it starts by itself.
    pub schedule: Option<Schedule>,
}

/// When a job starts by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// `cron` and `timezone`, UTC where that is not given.
    pub calendar: Calendar,
    /// What becomes of a fire while a run goes on.
    pub concurrency: Concurrency,
    /// What becomes of fires that nobody was there to carry out.
    pub missed_fires: MissedFires,
}

/// What becomes of a fire while a run of its job goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// It is dropped.
    #[default]
    Forbid,
    /// One run follows the one that goes on.
    Queue,
}

/// What becomes of fires while the daemon was stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedFires {
    /// One run makes up for all of them.
    #[default]
    One,
    /// They do not run.
    Skip,
}

impl Loader<'_> {
    /// Moves the jobs of a document that stand under `x-jobs` to the others.
    pub(super) fn gather_jobs(&mut self, document: &mut Node, tags: &mut [Vec<String>]) {
        for element in tags.iter_mut().filter_map(|path| path.first_mut()).filter(|element| *element == EXTENSION) {
            ELEMENT.clone_into(element);
        }
        let Some(map) = document.as_map_mut() else { return };
        for element in [ELEMENT, EXTENSION] {
            for Entry { key, place, .. } in map.get(element).and_then(Node::as_map).into_iter().flatten() {
                match self.jobs.entry(key.clone()) {
                    Slot::Vacant(slot) => {
                        slot.insert((element, place.clone()));
                    }
                    Slot::Occupied(slot) if slot.get().0 != element => {
                        let (_, first) = slot.get();
                        let message =
                            format!("{element}.{key}: the job stands under `jobs` and `x-jobs`, also at {first}");
                        self.errors.push(LoadError::new(message).at(place).of(format_args!("{element}.{key}")));
                    }
                    Slot::Occupied(_) => {}
                }
            }
        }
        let Some(place) = map.entry(EXTENSION).map(|entry| entry.place.clone()) else { return };
        let Some(more) = map.remove(EXTENSION).filter(|node| !node.is_null()) else { return };
        let Kind::Map(more) = more.kind else {
            self.errors.push(LoadError::new("x-jobs must be a mapping").at(&more.place).of(EXTENSION));
            return;
        };
        if map.get(ELEMENT).is_none_or(Node::is_null) {
            map.insert(ELEMENT.to_owned(), place.clone(), Node::new(place, Kind::Map(Map::new())));
        }
        if let Some(jobs) = map.get_mut(ELEMENT).and_then(Node::as_map_mut) {
            for Entry { key, place, value } in more {
                jobs.insert(key, place, value);
            }
        }
    }
}

/// Reads `triggers`; what contradicts itself is reported.
pub(super) fn triggers(job: &Reader<'_>) -> Option<Triggers> {
    job.with("triggers", |triggers| {
        let manual = triggers.get("manual").and_then(|node| match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Str(word) => parse_bool(word),
            _ => None,
        });
        let entries = triggers.items("schedule");
        match (entries, manual) {
            ([], None) => job.report_at("triggers", "needs `manual` or `schedule`"),
            ([_, ..], Some(true)) => {
                triggers.report_at("manual", "goes without saying where there is a `schedule`; `false` forbids it");
            }
            ([_, second, ..], _) => {
                let message =
                    "has more than one entry; a later file takes the place of an earlier one's by `!override`";
                triggers.report("schedule", second, message);
            }
            _ => {}
        }
        let path = triggers.path.key("schedule");
        let schedule = entries.first().and_then(|entry| schedule(entry, &triggers, &path.item(0)));
        Triggers { manual: manual.unwrap_or(true), schedule }
    })
}

fn schedule(entry: &Node, triggers: &Reader<'_>, path: &KeyPath<'_>) -> Option<Schedule> {
    let get = |key: &str| entry.as_map().and_then(|map| map.get(key)).filter(|node| !node.is_null());
    let cron = entry.as_map().map_or(Some(entry), |_| get("cron"))?;
    let zone = get("timezone");
    let report = |node: &Node, key: &str, message: String| {
        let path = if entry.as_map().is_some() { path.key(key) } else { *path };
        triggers.errors.borrow_mut().push(LoadError::new(format!("{path} {message}")).at(&node.place).of(path));
    };
    let zone_name = zone.and_then(Node::as_str).unwrap_or(UTC);
    // The schema has said what is no text.
    let calendar = match Calendar::parse(cron.as_str()?, zone_name, Grammar::Numbers) {
        Ok(calendar) => calendar,
        Err(error @ crate::calendar::CalendarError::Zone(_)) => {
            report(zone.unwrap_or(cron), "timezone", error.to_string());
            return None;
        }
        Err(error) => {
            report(cron, "cron", error.to_string());
            return None;
        }
    };
    let word = |key: &str| get(key).and_then(Node::as_str);
    Some(Schedule {
        calendar,
        concurrency: if word("concurrency") == Some("queue") { Concurrency::Queue } else { Concurrency::Forbid },
        missed_fires: if word("missed_fires") == Some("skip") { MissedFires::Skip } else { MissedFires::One },
    })
}
