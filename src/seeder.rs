//! Writes the first values of the configuration, and writes them again when Redis lost them.
//!
//! Redis has no persistence here and evicts: any key can vanish at any time. What is written again is the last value that was
//! seen, so that a change made in the dashboard survives; only what was never seen comes from the environment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Event};
use crate::event::Event::{ConfigNotWritten, ConfigWritten};
use crate::message::{CONFIG_CHANGED, ConfigChanged, config_key};
use crate::observer::Events;
use crate::report::Chain;

pub mod seed;

use seed::Seeds;

/// Largest value that is remembered, in bytes.
const LARGEST_VALUE: usize = 256 * 1024;

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
    /// The value to write where there is none.
    value: Option<(String, Origin)>,
    /// It was in Redis once.
    written: bool,
}

impl Section {
    fn saw(&mut self, text: String) {
        self.written = true;
        if text.len() <= LARGEST_VALUE {
            self.value = Some((text, Origin::LastSeen));
        }
    }
}

/// Keeps the sections of the configuration present.
pub struct Seeder<B> {
    bus: Arc<B>,
    events: Events,
    sections: Vec<Section>,
    /// The last refusal was told.
    refused: bool,
}

impl<B: Bus> Seeder<B> {
    /// A seeder of the sections, with their variables from the environment. A variable that does not parse is warned of.
    pub fn new(bus: Arc<B>, events: Events, seeds: &Seeds, environment: &BTreeMap<String, String>) -> Self {
        let (mut first, bad) = seed::first_values(seeds, environment);
        for bad in bad {
            tracing::warn!(variable = bad.variable, expected = %bad.expected, "variable does not parse, default used");
        }
        let sections = seeds.keys().map(|name| Section {
            name: name.clone(),
            key: config_key(name),
            value: first
                .remove(name)
                .map(|object| (serde_json::Value::Object(object).to_string(), Origin::Environment)),
            written: false,
        });
        Self { sections: sections.collect(), bus, events, refused: false }
    }

    /// Writes the sections that are missing and remembers those that are there.
    pub async fn seed(&mut self) -> Result<(), BusError> {
        let keys: Vec<String> = self.sections.iter().map(|section| section.key.clone()).collect();
        let found = self.bus.get(&keys).await?;
        for (section, found) in self.sections.iter_mut().zip(found) {
            if let Some(text) = found {
                section.saw(text);
                continue;
            }
            let Some((value, origin)) = section.value.clone() else { continue };
            if self.bus.set_absent(&section.key, &value).await? {
                let again = std::mem::replace(&mut section.written, true);
                self.events.emit(&ConfigWritten { section: section.name.clone(), from: origin.as_str(), again });
            }
        }
        self.refused = false;
        Ok(())
    }

    async fn read(&mut self, name: &str) -> Result<(), BusError> {
        let Some(section) = self.sections.iter_mut().find(|section| section.name == name) else { return Ok(()) };
        if let Some(text) = self.bus.get(std::slice::from_ref(&section.key)).await?.into_iter().flatten().next() {
            section.saw(text);
        }
        Ok(())
    }

    /// Seeds on every new connection and each `period` since `epoch`, and watches the sections, until intake closes.
    pub async fn run(mut self, epoch: Instant, period: Duration, intake: CancellationToken) {
        let mut messages = self.bus.subscribe(&[CONFIG_CHANGED.to_owned()]);
        let mut ticks = interval_at(epoch + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let outcome = tokio::select! {
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
                self.tell(&error);
            }
        }
    }

    fn tell(&mut self, error: &BusError) {
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
