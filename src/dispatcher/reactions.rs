//! Carries out what follows an event: one reaction a channel at a time, and no event lost with its effect.
//!
//! An event that comes while its channel's reaction goes on is held and followed afterwards. Of held events with the same
//! effect the newest stands for all: what it stops and writes includes what the older ones would have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::steps::Steps;
use super::{IgnoredMessages, lock};
use crate::action::Reaction;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::bus::subscription::Message;
use crate::clock::Timestamp;
use crate::event::Event;

/// Longest message that a reaction reads, in bytes.
const LONGEST_EVENT: usize = 16 * 1024;

/// Events with different effects that are held on one channel. One that comes then is not followed.
const MOST_HELD: usize = 64;

/// Takes events and has their reactions carried out.
pub(super) struct ReactionHandler<K, B> {
    steps: Arc<Steps<K, B>>,
    /// The events that wait, by the channels whose reaction goes on.
    held: Arc<Mutex<BTreeMap<String, VecDeque<ReceivedEvent>>>>,
    work: TaskTracker,
    ignored: IgnoredMessages,
}

/// An event, as far as its reaction needs it.
struct ReceivedEvent {
    /// When it came. What was started since is none of its business.
    at: Timestamp,
    /// The fields that the reaction's texts take.
    fields: Map<String, Value>,
    /// Its text, cut, for the log.
    shown: String,
}

impl<K: Backend, B: Bus> ReactionHandler<K, B> {
    pub(super) fn new(steps: Arc<Steps<K, B>>, work: TaskTracker) -> Self {
        Self { steps, held: Arc::default(), work, ignored: IgnoredMessages::default() }
    }

    /// Follows an event, now or once the reaction that goes on is done.
    pub(super) fn take(&mut self, message: &Message) {
        let channel = message.channel.as_ref();
        let options = self.steps.options();
        let Some(reaction) = options.reactions.get(channel) else { return };
        let length = message.payload.len();
        if length > LONGEST_EVENT {
            let fault = format!("an event on {channel} has at most {LONGEST_EVENT} bytes, not {length}");
            return self.ignored.count(&fault, self.steps.runner.events());
        }
        // What is no JSON object says nothing of itself, but it happened.
        let payload: Map<String, Value> = serde_json::from_slice(&message.payload).unwrap_or_default();
        if self.steps.intake.is_cancelled() || !reaction.concerns(&payload) {
            return tracing::debug!(channel, "event passed over");
        }
        let fields = reaction.fields_used(&payload);
        let event = ReceivedEvent { at: Timestamp::now(), fields, shown: shown(&payload) };
        if let Some(held) = lock(&self.held).get_mut(channel) {
            if let Err(fault) = hold(held, event, reaction) {
                self.ignored.count(&format!("{fault} on {channel}"), self.steps.runner.events());
            }
            return;
        }
        lock(&self.held).insert(channel.to_owned(), VecDeque::new());
        let span = tracing::info_span!("reaction", channel);
        let reacting = Reacting {
            steps: Arc::clone(&self.steps),
            held: Arc::clone(&self.held),
            channel: channel.to_owned(),
            reaction: reaction.clone(),
        };
        self.work.spawn(reacting.run(event).instrument(span));
    }
}

/// Puts an event in the place of one with the same effect, or behind the others.
fn hold(held: &mut VecDeque<ReceivedEvent>, event: ReceivedEvent, reaction: &Reaction) -> Result<(), &'static str> {
    tracing::debug!(payload = event.shown, "event held until the reaction that goes on is done");
    let effect = reaction.effect(&event.fields);
    if let Some(equal) = held.iter_mut().find(|earlier| reaction.effect(&earlier.fields) == effect) {
        *equal = event;
    } else if held.len() < MOST_HELD {
        held.push_back(event);
    } else {
        return Err("too many different events wait");
    }
    Ok(())
}

/// The reactions of one channel, one after the other.
struct Reacting<K, B> {
    steps: Arc<Steps<K, B>>,
    held: Arc<Mutex<BTreeMap<String, VecDeque<ReceivedEvent>>>>,
    channel: String,
    reaction: Reaction,
}

impl<K: Backend, B: Bus> Reacting<K, B> {
    async fn run(self, first: ReceivedEvent) {
        let mut next = Some(first);
        while let Some(event) = next {
            let events = self.steps.runner.events();
            events.emit(&Event::ReactionBegins { channel: self.channel.clone(), payload: event.shown });
            let ended = self.steps.reaction(&self.reaction, &event.fields, event.at).await;
            let error = ended.err().map(|fault| fault.error);
            events.emit(&Event::ReactionEnded { channel: self.channel.clone(), error });
            next = self.next();
        }
    }

    /// The event that is followed next; none when the channel's reactions are done, or the daemon is about to end.
    fn next(&self) -> Option<ReceivedEvent> {
        let mut held = lock(&self.held);
        let waiting = held.get_mut(&self.channel)?;
        if self.steps.intake.is_cancelled() && !waiting.is_empty() {
            let (channel, count) = (self.channel.clone(), waiting.len());
            self.steps.runner.events().emit(&Event::ReactionsDropped { channel, count });
            waiting.clear();
        }
        let next = waiting.pop_front();
        if next.is_none() {
            held.remove(&self.channel);
        }
        next
    }
}

/// The text of an event, for the log.
fn shown(payload: &Map<String, Value>) -> String {
    const LONGEST: usize = 200;
    serde_json::to_string(payload).unwrap_or_default().chars().take(LONGEST).collect()
}
