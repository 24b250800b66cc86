//! Follows the configuration in Redis: applies its schedule, and says what another changed section means.
//!
//! A message that says so may be lost, so the sections are read again each minute and on every new connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::task::TaskTracker;

use super::schedule::{self, Refused};
use super::{Lifetime, Options};
use crate::action::{ConfigChange, WhenChanged};
use crate::backend::Backend;
use crate::bus::{Bus, BusError, Event, Subscription, Value};
use crate::event::Consequence;
use crate::event::Event::{ConfigChanged as SectionChanged, ScheduleRefused};
use crate::message::{CONFIG_CHANGED, ConfigChanged, SCHEDULE, config_key};
use crate::report::{Chain, Problems};
use crate::runner::Runner;
use crate::schedule::Intervals;

/// The topic of the schedule's problems.
const TOPIC: &str = "schedule";

/// Messages that are taken together, most at once.
const MOST_TOGETHER: usize = 1024;

pub(super) struct Changes<K, B> {
    pub(super) bus: Arc<B>,
    pub(super) runner: Runner<K, B>,
    pub(super) options: watch::Receiver<Arc<Options>>,
    pub(super) intervals: watch::Sender<Arc<Intervals>>,
    pub(super) problems: watch::Sender<Problems>,
    pub(super) work: TaskTracker,
}

/// What was seen of the sections.
#[derive(Debug, Default)]
struct Seen {
    values: BTreeMap<String, String>,
    /// The values that were followed already: a message that comes after its value was found is no second change.
    followed: BTreeMap<String, String>,
    refused: Vec<Refused>,
}

/// What there is to look at.
enum Look {
    /// These sections changed.
    Changed(BTreeSet<String>),
    /// Anything may have changed.
    All,
    /// The options changed.
    Options,
    /// There is nothing to look at any more.
    End,
}

impl<K: Backend, B: Bus> Changes<K, B> {
    pub(super) async fn run(mut self, lifetime: Lifetime) {
        let mut messages = self.bus.subscribe(&[CONFIG_CHANGED.to_owned()]);
        let mut ticks = interval_at(lifetime.epoch + lifetime.period, lifetime.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut seen = Seen::default();
        let mut before = Arc::clone(&self.options.borrow_and_update());
        let mut options_open = true;
        loop {
            let look = tokio::select! {
                biased;
                () = lifetime.intake.cancelled() => return,
                changed = self.options.changed(), if options_open => {
                    options_open = changed.is_ok();
                    if options_open { Look::Options } else { continue }
                }
                _ = ticks.tick() => Look::All,
                event = messages.next() => gather(event, &mut messages),
            };
            let looked = match look {
                Look::Changed(mut sections) => {
                    // A message can name anything: only what means something here becomes a key.
                    sections.retain(|section| self.follows(section));
                    self.look(&mut seen, &sections, true).await
                }
                Look::All => self.look_at_all(&mut seen).await,
                Look::Options => {
                    let options = Arc::clone(&self.options.borrow_and_update());
                    self.follow_settings(&before, &options).await;
                    before = options;
                    self.look_at_all(&mut seen).await
                }
                Look::End => return,
            };
            if let Err(error) = looked {
                tracing::debug!(error = %Chain(&error), "config not read");
            }
        }
    }

    /// Looks at each section that means something here.
    async fn look_at_all(&self, seen: &mut Seen) -> Result<(), BusError> {
        let options = self.options();
        let sections = options.config_changes.keys().cloned().chain([SCHEDULE.to_owned()]).collect();
        self.look(seen, &sections, false).await
    }

    fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.borrow())
    }

    /// Takes over the intervals of changed settings, where no schedule in Redis says others: that is looked at next.
    async fn follow_settings(&self, before: &Options, now: &Options) {
        if matches!(self.bus.read(&[config_key(SCHEDULE)]).await.as_deref(), Ok([Value::Text(_)])) {
            return;
        }
        let current = Arc::clone(&self.intervals.borrow());
        let wanted = schedule::rebase(&before.services.scheduled, &now.services.scheduled, &current);
        if wanted != *current {
            self.intervals.send_replace(Arc::new(wanted));
        }
    }

    fn follows(&self, section: &str) -> bool {
        let known = section == SCHEDULE || self.options().config_changes.contains_key(section);
        if !known {
            tracing::debug!(section, "config changed, nothing to do");
        }
        known
    }

    async fn look(&self, seen: &mut Seen, sections: &BTreeSet<String>, said: bool) -> Result<(), BusError> {
        let keys: Vec<String> = sections.iter().map(|section| config_key(section)).collect();
        let values = self.bus.read(&keys).await?;
        for (section, value) in sections.iter().zip(values) {
            if said {
                tracing::debug!(section, "config changed");
            }
            if section == SCHEDULE {
                self.look_at_schedule(seen, &value, said);
            }
            let value = value.text();
            let options = self.options();
            let Some(meaning) = options.config_changes.get(section) else { continue };
            let differs = match (seen.values.get(section), &value) {
                (Some(before), Some(now)) => before != now,
                (None, _) | (_, None) => false,
            };
            let known = value.is_some() && seen.followed.get(section) == value.as_ref();
            if let Some(value) = value {
                seen.values.insert(section.clone(), value.clone());
                if differs || said {
                    seen.followed.insert(section.clone(), value);
                }
            }
            if differs || (said && !known) {
                self.follow(section, meaning).await;
            }
        }
        Ok(())
    }

    fn look_at_schedule(&self, seen: &mut Seen, value: &Value, said: bool) {
        let current = Arc::clone(&self.intervals.borrow());
        let services = self.options().services.of(&self.runner.projects().current());
        let (wanted, refused) = match value {
            Value::Text(text) => schedule::read(text, &services, &current),
            // Somebody deleted it and said so.
            Value::Absent if said => (schedule::defaults(&services), Vec::new()),
            // It was evicted: what it said goes on.
            Value::Absent => return,
            Value::Unreadable(why) => {
                let refused = Refused::Unreadable { key: config_key(SCHEDULE), why: why.to_string() };
                (Intervals::clone(&current), vec![refused])
            }
        };
        if wanted != *current {
            self.intervals.send_replace(Arc::new(wanted));
        }
        if refused != seen.refused {
            for fault in &refused {
                self.runner.events().emit(&ScheduleRefused { error: fault.to_string() });
            }
            self.problems.send_modify(|problems| {
                problems.insert(TOPIC, refused.iter().map(ToString::to_string).collect());
            });
            seen.refused = refused;
        }
    }

    async fn follow(&self, section: &str, meaning: &ConfigChange) {
        let service = &meaning.service;
        let events = self.runner.events();
        let emit = |consequence| {
            events.emit(&SectionChanged { section: section.to_owned(), service: service.clone(), consequence });
        };
        match meaning.when_changed {
            WhenChanged::Warn => emit(Consequence::RestartRequired),
            WhenChanged::WarnIfRunning => match self.runner.is_up(service).await {
                Ok(true) => emit(Consequence::RestartRequired),
                Ok(false) => tracing::debug!(section, %service, "config changed, service does not run"),
                Err(error) => emit(Consequence::NotFoundOut { error: Chain(&error).to_string() }),
            },
            WhenChanged::Restart => {
                emit(Consequence::Restarting);
                let (runner, service, section) = (self.runner.clone(), service.clone(), section.to_owned());
                self.work.spawn(async move {
                    if let Err(error) = runner.restart(&service).await {
                        let consequence = Consequence::RestartFailed { error: Chain(&error).to_string() };
                        runner.events().emit(&SectionChanged { section, service, consequence });
                    }
                });
            }
        }
    }
}

/// Takes together what already waits: a burst is one look.
fn gather(first: Option<Event>, messages: &mut Subscription) -> Look {
    let mut sections = BTreeSet::new();
    let mut next = Some(first);
    for _ in 0..MOST_TOGETHER {
        match next {
            None => break,
            Some(None) => return Look::End,
            Some(Some(Event::Gap { .. })) => return Look::All,
            Some(Some(Event::Message(message))) => {
                if let Some(changed) = ConfigChanged::parse(&message.payload) {
                    sections.insert(changed.section);
                }
            }
        }
        next = messages.next().now_or_never();
    }
    Look::Changed(sections)
}
