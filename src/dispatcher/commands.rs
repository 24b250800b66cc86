//! Answers the commands of `cmd:orchestrator`: each once, beside each other, a limited number at a time.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Map;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::recent::{Earlier, Fingerprint, Recent};
use super::replies::Replies;
use super::steps::{Fault, Steps};
use super::{IgnoredMessages, lock};
use crate::action::{Action, Actions};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::log_limit::LogLimit;
use crate::message::{Command, Reply};
use crate::names::RequestId;

/// Most lines about commands in a while: anybody can send thousands.
const COMMAND_LINES: (u32, Duration) = (300, Duration::from_mins(1));

/// Takes commands, has their steps carried out, and hands the replies over for delivery.
pub(super) struct CommandHandler<K, B> {
    steps: Arc<Steps<K, B>>,
    actions: Actions,
    replies: Replies,
    recent: Arc<Mutex<Recent>>,
    slots: Arc<Semaphore>,
    max_in_flight: usize,
    work: TaskTracker,
    ignored: IgnoredMessages,
    lines: Arc<Mutex<LogLimit<Instant>>>,
}

/// A command that is carried out.
struct InFlight<K, B> {
    steps: Arc<Steps<K, B>>,
    replies: Replies,
    recent: Arc<Mutex<Recent>>,
    command: Command,
    action: Action,
    lines: Arc<Mutex<LogLimit<Instant>>>,
    _slot: OwnedSemaphorePermit,
}

impl<K: Backend, B: Bus> CommandHandler<K, B> {
    /// A handler that carries out `max_in_flight` commands at a time, and remembers replies for `reply_ttl`.
    pub(super) fn new(
        steps: Arc<Steps<K, B>>,
        actions: Actions,
        replies: Replies,
        (max_in_flight, reply_ttl): (usize, Duration),
        work: TaskTracker,
    ) -> Self {
        let recent = Arc::new(Mutex::new(Recent::new(reply_ttl)));
        let slots = Arc::new(Semaphore::new(max_in_flight));
        let lines = Arc::new(Mutex::new(LogLimit::new(COMMAND_LINES.0, COMMAND_LINES.1)));
        let ignored = IgnoredMessages::default();
        Self { steps, actions, replies, recent, slots, max_in_flight, work, ignored, lines }
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
        let Some(action) = self.actions.get(&command.action) else {
            return self.refuse(request, &format!("unknown action {:?}", command.shown_action()));
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return self
                .refuse(request, &format!("too many commands at the same time, {} at most", self.max_in_flight));
        };
        if let Some(request) = request {
            lock(&self.recent).begin(request, Fingerprint::of(&command));
        }
        let span =
            tracing::info_span!("command", action = command.action, request_id = request.map(tracing::field::display));
        let in_flight = InFlight {
            steps: Arc::clone(&self.steps),
            replies: self.replies.clone(),
            recent: Arc::clone(&self.recent),
            action: action.clone(),
            lines: Arc::clone(&self.lines),
            command,
            _slot: slot,
        };
        self.work.spawn(in_flight.run().instrument(span));
    }

    /// Answers a command that nothing is done for.
    fn refuse(&mut self, request: Option<&RequestId>, fault: &dyn Display) {
        let Some(request) = request else { return self.ignored.count(fault) };
        tracing::debug!(request_id = %request, error = %fault, "command refused");
        let reply = Reply::error(request.clone(), fault.to_string(), Map::new()).to_json();
        self.replies.send_or_drop(request, reply.into());
    }
}

impl<K: Backend, B: Bus> InFlight<K, B> {
    async fn run(self) {
        let Self { steps, replies, recent, command, action, lines, _slot } = self;
        let begun = Instant::now();
        let ended = steps.action(&action, &command.params).await;
        log_done(&command, begun.elapsed(), ended.as_ref().err(), &lines);
        let Some(request) = &command.request_id else { return };
        let reply = match ended {
            Ok(data) => Reply::ok(request.clone(), data),
            Err(Fault { error, data, .. }) => Reply::error(request.clone(), error, data),
        };
        // Only the text waits for its turn.
        let json: Arc<str> = reply.to_json().into();
        drop(reply);
        let repeats = lock(&recent).end(request, &json, Instant::now());
        for _ in 0..=repeats {
            replies.send(request, Arc::clone(&json)).await;
        }
    }
}

/// Says what became of a command. One that was refused is told to its sender only.
fn log_done(command: &Command, took: Duration, fault: Option<&Fault>, lines: &Mutex<LogLimit<Instant>>) {
    let (action, request_id) = (command.action.as_str(), command.request_id.as_ref().map(RequestId::as_str));
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if let Some(fault) = fault.filter(|fault| fault.refused) {
        return tracing::debug!(action, request_id, error = fault.error, "command refused");
    }
    let Some(line) = lock(lines).allow(Instant::now()) else { return };
    let suppressed = line.suppressed;
    match fault {
        None => tracing::info!(action, request_id, duration_ms, suppressed, "command done"),
        Some(fault) => {
            tracing::warn!(action, request_id, duration_ms, suppressed, error = fault.error, "command failed");
        }
    }
}
