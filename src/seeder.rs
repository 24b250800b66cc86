//! Writes the first values of the configuration, and writes them again when Redis lost them.
//!
//! Redis has no persistence here and evicts: any key can vanish at any time. What is written again is the last value that was
//! seen, so that a change made in the dashboard survives; only what was never seen comes from the environment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Event, Value};
use crate::event::Event::{ConfigDeleted, ConfigNotRemembered, ConfigNotWritten, ConfigWritten, VariableIgnored};
use crate::message::{CONFIG_CHANGED, ConfigChanged, config_key};
use crate::observer::Events;
use crate::report::Chain;

pub mod seed;

use seed::Seeds;

/// Where a section's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Environment,
    LastSeen,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::LastSeen => "last seen value",
        }
    }
}

#[derive(Debug)]
struct Section {
    name: String,
    key: String,
    /// What the variables say; none where nothing is written without them.
    first: Option<String>,
    /// The last value that was seen.
    last_seen: Option<String>,
    /// It was in Redis once.
    written: bool,
    /// What is at the key cannot be remembered; said once.
    odd: bool,
}

impl Section {
    /// The value to write where there is none.
    fn value(&self) -> Option<(&str, Origin)> {
        let last_seen = self.last_seen.as_deref().map(|text| (text, Origin::LastSeen));
        last_seen.or_else(|| self.first.as_deref().map(|text| (text, Origin::Environment)))
    }

    /// Remembers a value that is there. What no reader could use is not written again.
    fn saw(&mut self, found: Value, events: &Events) {
        let problem = match found {
            Value::Absent => return,
            Value::Text(text) if is_object(&text) => {
                self.last_seen = Some(text);
                None
            }
            Value::Text(_) => Some("is no JSON object".to_owned()),
            Value::Unreadable(why) => Some(why.to_string()),
        };
        self.written = true;
        let was_odd = std::mem::replace(&mut self.odd, problem.is_some());
        if let Some(problem) = problem.filter(|_| !was_odd) {
            events.emit(&ConfigNotRemembered { key: self.key.clone(), problem });
        }
    }
}

fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Keeps the sections of the configuration present.
pub struct Seeder<B> {
    bus: Arc<B>,
    events: Events,
    sections: Vec<Section>,
    /// The last refusal was logged.
    refused: bool,
}

impl<B: Bus> Seeder<B> {
    /// A seeder of the sections, with their variables from the environment. A variable that does not parse is warned of.
    pub fn new(bus: Arc<B>, events: Events, seeds: &Seeds, environment: &BTreeMap<String, String>) -> Self {
        let (mut first, bad) = seed::first_values(seeds, environment);
        for bad in bad {
            events.emit(&VariableIgnored { variable: bad.variable.clone(), expected: bad.expected.to_string() });
        }
        let sections = seeds.keys().map(|name| Section {
            name: name.clone(),
            key: config_key(name),
            first: first.remove(name).map(|object| serde_json::Value::Object(object).to_string()),
            last_seen: None,
            written: false,
            odd: false,
        });
        Self { sections: sections.collect(), bus, events, refused: false }
    }

    /// Writes the sections that are missing, and remembers those that are there.
    pub async fn seed(&mut self) -> Result<(), BusError> {
        let keys: Vec<String> = self.sections.iter().map(|section| section.key.clone()).collect();
        let found = self.bus.read(&keys).await?;
        for (section, found) in self.sections.iter_mut().zip(found) {
            if found == Value::Absent {
                write(self.bus.as_ref(), &self.events, section).await?;
            } else {
                section.saw(found, &self.events);
            }
        }
        self.refused = false;
        Ok(())
    }

    async fn read(&mut self, name: &str) -> Result<(), BusError> {
        let Some(section) = self.sections.iter_mut().find(|section| section.name == name) else { return Ok(()) };
        match self.bus.read(std::slice::from_ref(&section.key)).await?.pop() {
            // Somebody deleted it and said so: they want it anew.
            None | Some(Value::Absent) => {
                if section.last_seen.take().is_some() {
                    self.events.emit(&ConfigDeleted { section: section.name.clone() });
                }
                section.written = false;
                write(self.bus.as_ref(), &self.events, section).await
            }
            Some(found) => {
                section.saw(found, &self.events);
                Ok(())
            }
        }
    }

    /// Seeds on every new connection and each `period` since `epoch`, and watches the sections, until intake closes.
    pub async fn run(mut self, epoch: Instant, period: Duration, intake: CancellationToken) {
        let mut messages = self.bus.subscribe(&[CONFIG_CHANGED.to_owned()]);
        let mut ticks = interval_at(epoch + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let outcome = tokio::select! {
                biased;
                () = intake.cancelled() => return,
                _ = ticks.tick() => self.seed().await,
                event = messages.next() => match event {
                    None => return,
                    Some(Event::Gap { .. }) => self.seed().await,
                    Some(Event::Message(message)) => match ConfigChanged::parse(&message.payload) {
                        Some(changed) => self.read(&changed.section).await,
                        None => Ok(()),
                    },
                },
            };
            if let Err(error) = outcome {
                self.log(&error);
            }
        }
    }

    fn log(&mut self, error: &BusError) {
        match error {
            BusError::Refused { .. } if !self.refused => {
                self.refused = true;
                self.events.emit(&ConfigNotWritten { error: Chain(error).to_string() });
            }
            // The bus tells of its connection itself; the next one seeds.
            BusError::Refused { .. } | BusError::Unavailable { .. } => {
                tracing::debug!(error = %Chain(error), "config not seeded");
            }
        }
    }
}

/// Writes a section that is missing, if there is anything to write.
async fn write<B: Bus>(bus: &B, events: &Events, section: &mut Section) -> Result<(), BusError> {
    let Some((value, origin)) = section.value() else { return Ok(()) };
    if bus.set_absent(&section.key, value, None).await? {
        let from = origin.as_str();
        let again = std::mem::replace(&mut section.written, true);
        events.emit(&ConfigWritten { section: section.name.clone(), from, again });
    }
    Ok(())
}
