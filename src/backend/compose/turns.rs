//! Who works on which network, volume or service: one at a time, and others can see what is being done to it.
//!
//! A turn is for one object. Work that holds a service's turn waits for no turns but those of services that it depends on,
//! and work on a network or volume for none, so that no two can wait for each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::names::ServiceName;

/// What work is done on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    /// A network, by its Engine name.
    Network(String),
    /// A volume, by its Engine name.
    Volume(String),
    /// A service's containers, runs left out.
    Service(ServiceName),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network {name}"),
            Self::Volume(name) => write!(f, "volume {name}"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// A moment in the order of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Moment(u64);

#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// What is being done to the object.
    doing: Option<&'static str>,
    /// When work on it ended last.
    changed: Moment,
}

#[derive(Debug, Default)]
struct Slots {
    now: Moment,
    slots: BTreeMap<Object, Slot>,
}

/// The turns of all objects.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Slots>);

/// The right to work on an object, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    object: Object,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.now.0 += 1;
        let now = state.now;
        if let Some(slot) = state.slots.get_mut(&self.object) {
            (slot.doing, slot.changed) = (None, now);
        }
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now: to be asked before the Engine is observed.
    pub(super) fn now(&self) -> Moment {
        self.lock().now
    }

    /// Whether work on the object ended after that moment.
    pub(super) fn changed_since(&self, object: &Object, seen_at: Moment) -> bool {
        self.lock().slots.get(object).is_some_and(|slot| slot.changed > seen_at)
    }

    /// Whether the object may be another than was observed after that moment.
    pub(super) fn is_stale(&self, object: &Object, seen_at: Moment) -> bool {
        self.doing(object).is_some() || self.changed_since(object, seen_at)
    }

    /// What is being done to the object by somebody else.
    pub(super) fn doing(&self, object: &Object) -> Option<&'static str> {
        self.lock().slots.get(object)?.doing
    }

    /// Everything that is being worked on, for people.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let state = self.lock();
        let busy = state.slots.iter().filter_map(|(object, slot)| Some(format!("{object} is being {}", slot.doing?)));
        busy.collect()
    }

    /// Waits for a turn; `doing` tells others what is done during it.
    pub(super) async fn take(self: &Arc<Self>, object: &Object, doing: &'static str) -> Turn {
        let turn = Arc::clone(&self.lock().slots.entry(object.clone()).or_default().turn);
        let guard = turn.lock_owned().await;
        self.lock().slots.entry(object.clone()).or_default().doing = Some(doing);
        Turn { turns: Arc::clone(self), object: object.clone(), _guard: guard }
    }

    /// The same without waiting: none where somebody works on the object.
    pub(super) fn try_take(self: &Arc<Self>, object: &Object, doing: &'static str) -> Option<Turn> {
        let mut state = self.lock();
        let slot = state.slots.entry(object.clone()).or_default();
        let guard = Arc::clone(&slot.turn).try_lock_owned().ok()?;
        slot.doing = Some(doing);
        Some(Turn { turns: Arc::clone(self), object: object.clone(), _guard: guard })
    }
}

/// What a piece of work waits for, for who asked for it.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<BTreeMap<String, String>>);

/// An entry of [`Waits`], until dropped.
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    who: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.lock().remove(&self.who);
    }
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what `who` waits for.
    pub(super) fn note(&self, who: impl fmt::Display, what: String) -> Waiting<'_> {
        let who = who.to_string();
        self.lock().insert(who.clone(), what);
        Waiting { waits: self, who }
    }

    /// What is waited for now.
    pub(super) fn first(&self) -> Option<String> {
        self.lock().values().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_for_one_and_what_was_seen_before_it_ended_counts_no_more() {
        let turns = Arc::new(Turns::default());
        let (db, cache) = (Object::Service("db".parse().unwrap()), Object::Service("cache".parse().unwrap()));
        let seen_at = turns.now();
        let turn = turns.take(&db, "recreated").await;
        assert_eq!(turns.doing(&db), Some("recreated"));
        assert_eq!(turns.unfinished(), ["service db is being recreated"]);
        assert!(turns.try_take(&db, "started").is_none() && turns.try_take(&cache, "started").is_some());
        drop(turn);
        assert!(turns.is_stale(&db, seen_at) && !turns.is_stale(&db, turns.now()));
        assert!(turns.try_take(&db, "started").is_some() && turns.unfinished().is_empty());
    }
}
