//! Answers the commands of `cmd:orchestrator`: each once, beside each other, a limited number at a time.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use serde_json::Map;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::recent::{Earlier, Fingerprint, Recent};
use super::replies::Replies;
use super::steps::{Fault, Steps};
use super::{IgnoredMessages, lock};
use crate::action::Action;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::event::{Answer, Event};
use crate::ledger::Request;
use crate::message::{Command, Reply};
use crate::names::RequestId;

/// Takes commands, has their steps carried out, and hands the replies over for delivery.
pub(super) struct CommandHandler<K, B> {
    steps: Arc<Steps<K, B>>,
    replies: Replies,
    recent: Arc<Mutex<Recent>>,
    slots: Arc<Semaphore>,
    max_in_flight: usize,
    work: TaskTracker,
    ignored: IgnoredMessages,
    /// Commands that an earlier life of the daemon took.
    earlier: BTreeSet<RequestId>,
}

/// A command that is carried out.
struct InFlight<K, B> {
    steps: Arc<Steps<K, B>>,
    replies: Replies,
    recent: Arc<Mutex<Recent>>,
    command: Command,
    action: Action,
    _slot: OwnedSemaphorePermit,
}

impl<K: Backend, B: Bus> CommandHandler<K, B> {
    /// A handler that carries out `max_in_flight` commands at a time.
    pub(super) fn new(
        steps: Arc<Steps<K, B>>,
        replies: Replies,
        recent: Recent,
        max_in_flight: usize,
        work: TaskTracker,
    ) -> Self {
        let recent = Arc::new(Mutex::new(recent));
        let slots = Arc::new(Semaphore::new(max_in_flight));
        let (ignored, earlier) = (IgnoredMessages::default(), steps.runner.history().ledger.requests());
        Self { steps, replies, recent, slots, max_in_flight, work, ignored, earlier }
    }

    /// Begins what a message on the command channel asks for, or answers why not.
    pub(super) fn take(&mut self, payload: &[u8]) {
        let command = match Command::parse(payload) {
            Ok(command) => command,
            Err(malformed) => return self.refuse(malformed.request_id.as_ref(), &malformed.fault),
        };
        let request = command.request_id.as_ref();
        if self.steps.intake.is_cancelled() {
            return self.refuse(request, &"shutting down");
        }
        if let Some(request) = request {
            match lock(&self.recent).earlier(request, Fingerprint::of(&command), Instant::now()) {
                None => {}
                Some(Earlier::Other) => {
                    tracing::debug!(request_id = %request, "command refused, its id is another one's");
                    let error = format!("request_id {request} was used for another command");
                    let reply = Reply::error(request.clone(), error, Map::new()).to_json();
                    return self.replies.send_conflict(request, reply.into());
                }
                Some(Earlier::GoesOn) => {
                    return tracing::debug!(request_id = %request, "command repeated, still going on");
                }
                Some(Earlier::Answered(json)) => {
                    tracing::debug!(request_id = %request, "command repeated, answered again");
                    return self.replies.send_or_drop(request, json);
                }
            }
        }
        let fingerprint = command.fingerprint();
        let earlier = request.filter(|request| self.earlier.contains(*request));
        if let Some(earlier) = earlier.and_then(|request| self.steps.runner.history().ledger.request(request)) {
            return self.repeated(&earlier, &fingerprint);
        }
        let Some(action) = self.steps.options().action(&command.action) else {
            return self.refuse(request, &format!("unknown action {:?}", command.shown_action()));
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return self
                .refuse(request, &format!("too many commands at the same time, {} at most", self.max_in_flight));
        };
        if let Some(request) = request {
            lock(&self.recent).begin(request, Fingerprint::of(&command));
        }
        let (named, request_id) = (command.action.clone(), command.request_id.clone());
        self.steps.runner.events().emit(&Event::CommandTaken { action: named, request_id, fingerprint });
        let span =
            tracing::info_span!("command", action = command.action, request_id = request.map(tracing::field::display));
        let in_flight = InFlight {
            steps: Arc::clone(&self.steps),
            replies: self.replies.clone(),
            recent: Arc::clone(&self.recent),
            action,
            command,
            _slot: slot,
        };
        self.work.spawn(in_flight.run().instrument(span));
    }

    /// Answers a command that was taken before, if only by an earlier life of the daemon: it is not done again.
    fn repeated(&mut self, earlier: &Request, fingerprint: &str) {
        match &earlier.reply {
            _ if earlier.fingerprint != fingerprint => {
                let error = format!("request_id {} was used for another command", earlier.id);
                self.refuse(Some(&earlier.id), &error);
            }
            None => tracing::debug!(request_id = %earlier.id, "command repeated, still going on"),
            Some(reply) if reply.is_empty() => {
                self.refuse(Some(&earlier.id), &"was carried out already, its reply is no longer kept");
            }
            Some(reply) => self.replies.send_or_drop(&earlier.id, reply.as_str().into()),
        }
    }

    /// Answers a command that nothing is done for.
    fn refuse(&mut self, request: Option<&RequestId>, fault: &dyn Display) {
        let Some(request) = request else { return self.ignored.count(fault, self.steps.runner.events()) };
        tracing::debug!(request_id = %request, error = %fault, "command refused");
        let reply = Reply::error(request.clone(), fault.to_string(), Map::new()).to_json();
        self.replies.send_or_drop(request, reply.into());
    }
}

impl<K: Backend, B: Bus> InFlight<K, B> {
    async fn run(self) {
        let Self { steps, replies, recent, command, action, _slot } = self;
        let (begun, events) = (Instant::now(), steps.runner.events());
        // Who asks again after a crash is known, whatever became of it.
        events.settled().await;
        let ended = steps.action(&action, &command.params, command.request_id.as_ref()).await;
        let answer = answer(ended.as_ref().err());
        let reply = command.request_id.clone().map(|request| match ended {
            Ok(data) => Reply::ok(request, data),
            Err(Fault { error, data, .. }) => Reply::error(request, error, data),
        });
        // Only the text waits for its turn.
        let json: Option<Arc<str>> = reply.map(|reply| reply.to_json().into());
        events.emit(&Event::CommandAnswered {
            action: command.action,
            request_id: command.request_id.clone(),
            answer,
            took: begun.elapsed(),
            reply: json.clone(),
        });
        events.settled().await;
        let (Some(request), Some(json)) = (&command.request_id, json) else { return };
        let repeats = lock(&recent).end(request, &json, Instant::now());
        for _ in 0..=repeats {
            replies.send(request, Arc::clone(&json)).await;
        }
    }
}

fn answer(fault: Option<&Fault>) -> Answer {
    match fault {
        None => Answer::Done,
        Some(fault) if fault.refused => Answer::Refused { error: fault.error.clone() },
        Some(fault) => Answer::Failed { error: fault.error.clone() },
    }
}
