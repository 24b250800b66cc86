//! Carries out what follows an event: one reaction a channel at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::steps::Steps;
use super::{IgnoredMessages, lock};
use crate::action::Reactions;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::bus::subscription::Message;
use crate::clock::Timestamp;

/// Longest message that a reaction reads, in bytes.
const LONGEST_EVENT: usize = 16 * 1024;

/// Takes events and has their reactions carried out.
pub(super) struct ReactionHandler<K, B> {
    steps: Arc<Steps<K, B>>,
    reactions: Reactions,
    /// Channels whose reaction goes on.
    reacting: Arc<Mutex<BTreeSet<String>>>,
    work: TaskTracker,
    ignored: IgnoredMessages,
}

impl<K: Backend, B: Bus> ReactionHandler<K, B> {
    pub(super) fn new(steps: Arc<Steps<K, B>>, reactions: Reactions, work: TaskTracker) -> Self {
        Self { steps, reactions, reacting: Arc::default(), work, ignored: IgnoredMessages::default() }
    }

    /// The channels that something follows on.
    pub(super) fn channels(&self) -> impl Iterator<Item = &str> {
        self.reactions.keys().map(String::as_str)
    }

    /// Begins what follows an event.
    pub(super) fn take(&mut self, message: &Message) {
        let channel = message.channel.as_ref();
        let Some(reaction) = self.reactions.get(channel) else { return };
        let payload = if message.payload.len() > LONGEST_EVENT {
            None
        } else {
            serde_json::from_slice::<Map<_, _>>(&message.payload).ok()
        };
        let Some(payload) = payload else { return self.ignored.count(&format!("no JSON object on {channel}")) };
        if self.steps.intake.is_cancelled() || !reaction.concerns(&payload) {
            return tracing::debug!(channel, "event passed over");
        }
        if !lock(&self.reacting).insert(channel.to_owned()) {
            return tracing::debug!(channel, "event covered by the reaction that goes on");
        }
        tracing::info!(channel, payload = %shown(&payload), "event");
        let (steps, reacting, channel) = (Arc::clone(&self.steps), Arc::clone(&self.reacting), channel.to_owned());
        let span = tracing::info_span!("reaction", channel);
        let reaction = reaction.clone();
        let task = async move {
            match steps.reaction(&reaction, &payload, Timestamp::now()).await {
                Ok(()) => tracing::info!(channel, "reaction done"),
                Err(fault) => tracing::warn!(channel, error = fault.error, "reaction failed"),
            }
            lock(&reacting).remove(&channel);
        };
        self.work.spawn(task.instrument(span));
    }
}

/// The texts of an event, for the log.
fn shown(payload: &Map<String, Value>) -> String {
    const LONGEST: usize = 200;
    serde_json::to_string(payload).unwrap_or_default().chars().take(LONGEST).collect()
}
