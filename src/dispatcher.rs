//! Answers what arrives over Redis: commands, events, changes of the configuration.
//!
//! Nothing is awaited between two messages: a command, a reaction, a reply each go on beside the others, so that a long scan
//! delays nobody. At the end of the daemon commands are still answered, with a refusal, until its work is done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Map;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::action::{Actions, Allowed, ConfigChanges, Reaction, Reactions};
use crate::backend::Backend;
use crate::bus::subscription::Message;
use crate::bus::{Bus, Event};
use crate::clock::Timestamp;
use crate::log_limit::LogLimit;
use crate::message::{Command, Reply};
use crate::names::RequestId;
use crate::report::Problems;
use crate::runner::Runner;
use crate::schedule::Intervals;

mod changes;
mod recent;
mod replies;
mod schedule;
mod steps;

pub use schedule::{Scheduled, ScheduledServices};

/// The intervals that the text of `config:schedule` asks for; what of it is refused stays as in `current`.
pub fn wanted_intervals(text: &str, services: &ScheduledServices, current: &Intervals) -> Intervals {
    schedule::read(text, services, current).0
}

use changes::Changes;
use recent::{Earlier, Fingerprint, Recent};
use replies::{Delivery, Replies, replies};
use steps::{Fault, Steps};

/// Longest message that a reaction reads, in bytes.
const LONGEST_EVENT: usize = 16 * 1024;

/// Time between two warnings of messages that nobody can be answered for.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Most lines about commands in a while: anybody can send thousands.
const COMMAND_LINES: (u32, Duration) = (300, Duration::from_mins(1));

/// What the dispatcher does with what arrives.
pub struct Options {
    /// What commands do.
    pub actions: Actions,
    /// What follows messages.
    pub reactions: Reactions,
    /// What a changed section of the configuration means.
    pub config_changes: ConfigChanges,
    /// What commands may name in their parameters, asked for each of them.
    pub allowed: Box<dyn Fn() -> Allowed + Send + Sync>,
    /// The services of `config:schedule`.
    pub schedule: ScheduledServices,
    /// Commands at the same time; more are refused.
    pub max_in_flight: usize,
    /// How long a reply is kept, and a repeated request answered with it.
    pub reply_ttl: Duration,
}

/// What the dispatcher tells others.
pub struct Outputs {
    /// The intervals, from `config:schedule`; what they are when it starts holds until that is read.
    pub intervals: watch::Sender<Arc<Intervals>>,
    /// What is wrong with the configuration in Redis.
    pub problems: watch::Sender<Problems>,
    /// Where commands, reactions and restarts run.
    pub work: TaskTracker,
}

/// The dispatcher's own clock and end.
#[derive(Debug, Clone)]
pub struct Lifetime {
    /// What is looked at regularly is looked at each `period` from here, as other components do: one wake-up for all.
    pub epoch: Instant,
    /// The time between two looks.
    pub period: Duration,
    /// Closes when nothing new may start.
    pub intake: CancellationToken,
}

/// Answers until the intake is closed and the work is done.
pub async fn run<K: Backend, B: Bus>(
    bus: Arc<B>,
    runner: Runner<K, B>,
    options: Options,
    outputs: Outputs,
    lifetime: Lifetime,
) {
    let Options { actions, reactions, config_changes, allowed, schedule, max_in_flight, reply_ttl } = options;
    let Outputs { intervals, problems, work } = outputs;
    let (replies, delivery) = replies(Arc::clone(&bus), reply_ttl, lifetime.intake.clone());
    let changes = Changes {
        bus: Arc::clone(&bus),
        runner: runner.clone(),
        meanings: config_changes,
        services: schedule.clone(),
        intervals: intervals.clone(),
        problems,
        work: work.clone(),
    };
    let desk = Desk {
        commands: bus.names().commands(),
        steps: Arc::new(Steps {
            bus,
            runner,
            allowed,
            intervals: intervals.subscribe(),
            schedule,
            intake: lifetime.intake.clone(),
        }),
        actions,
        reactions,
        replies,
        recent: Arc::new(Mutex::new(Recent::new(reply_ttl))),
        slots: Arc::new(Semaphore::new(max_in_flight)),
        max_in_flight,
        reacting: Arc::default(),
        work,
        unanswered: Unanswered::default(),
        lines: Arc::new(Mutex::new(LogLimit::new(COMMAND_LINES.0, COMMAND_LINES.1))),
    };
    tokio::join!(serve(desk, lifetime.intake.clone()), changes.run(lifetime), Delivery::run(delivery));
}

async fn serve<K: Backend, B: Bus>(mut desk: Desk<K, B>, intake: CancellationToken) {
    let channels: Vec<String> = std::iter::once(&desk.commands).chain(desk.reactions.keys()).cloned().collect();
    let mut messages = desk.steps.bus.subscribe(&channels);
    let work = desk.work.clone();
    let mut lost_lines = LogLimit::new(1, WARN_EVERY);
    let mut done = std::pin::pin!(async {
        intake.cancelled().await;
        work.wait().await;
    });
    loop {
        tokio::select! {
            biased;
            event = messages.next() => match event {
                Some(Event::Message(message)) => {
                    desk.take(&message);
                    // The replies are delivered in the same task, and have their turn in a burst.
                    tokio::task::consume_budget().await;
                }
                Some(Event::Gap { lost: Some(lost) }) => {
                    if let Some(line) = lost_lines.allow(Instant::now()) {
                        tracing::warn!(lost, suppressed = line.suppressed, "messages lost");
                    }
                }
                Some(Event::Gap { lost: None }) => tracing::debug!("listening for messages"),
                None => return,
            },
            () = &mut done => return,
        }
    }
}

struct Desk<K, B> {
    /// Channel of the commands.
    commands: String,
    steps: Arc<Steps<K, B>>,
    actions: Actions,
    reactions: Reactions,
    replies: Replies,
    recent: Arc<Mutex<Recent>>,
    slots: Arc<Semaphore>,
    max_in_flight: usize,
    /// Channels whose reaction goes on.
    reacting: Arc<Mutex<BTreeSet<String>>>,
    work: TaskTracker,
    unanswered: Unanswered,
    lines: Arc<Mutex<LogLimit<Instant>>>,
}

impl<K: Backend, B: Bus> Desk<K, B> {
    fn take(&mut self, message: &Message) {
        if *message.channel == *self.commands {
            self.take_command(&message.payload);
        } else if let Some(reaction) = self.reactions.get(message.channel.as_ref()) {
            let reaction = reaction.clone();
            self.react(&message.channel, reaction, &message.payload);
        }
    }

    fn take_command(&mut self, payload: &[u8]) {
        let command = match Command::parse(payload) {
            Ok(command) => command,
            Err(malformed) => match malformed.request_id {
                Some(request) => return self.refuse(Some(&request), &malformed.fault),
                None => return self.unanswered.tell(&malformed.fault),
            },
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
        let (steps, replies, recent) = (Arc::clone(&self.steps), self.replies.clone(), Arc::clone(&self.recent));
        let lines = Arc::clone(&self.lines);
        let action = action.clone();
        let (named, asked) = (command.action.clone(), request.map(ToString::to_string));
        let task = async move {
            let begun = Instant::now();
            let ended = steps.action(&action, &command.params).await;
            log_done(&named, asked.as_deref(), begun.elapsed(), ended.as_ref().err(), &lines);
            if let Some(request) = &command.request_id {
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
            drop(slot);
        };
        self.work.spawn(task.instrument(span));
    }

    /// Answers a command that nothing is done for.
    fn refuse(&mut self, request: Option<&RequestId>, fault: &dyn std::fmt::Display) {
        let Some(request) = request else { return self.unanswered.tell(fault) };
        tracing::debug!(request_id = %request, error = %fault, "command refused");
        let reply = Reply::error(request.clone(), fault.to_string(), Map::new()).to_json();
        self.replies.send_or_drop(request, reply.into());
    }

    fn react(&mut self, channel: &str, reaction: Reaction, payload: &[u8]) {
        let parsed =
            if payload.len() > LONGEST_EVENT { None } else { serde_json::from_slice::<Map<_, _>>(payload).ok() };
        let Some(payload) = parsed else { return self.unanswered.tell(&format!("no JSON object on {channel}")) };
        if self.steps.intake.is_cancelled() || !reaction.concerns(&payload) {
            return tracing::debug!(channel, "event passed over");
        }
        if !lock(&self.reacting).insert(channel.to_owned()) {
            return tracing::debug!(channel, "event covered by the reaction that goes on");
        }
        tracing::info!(channel, payload = %shown(&payload), "event");
        let (steps, reacting, channel) = (Arc::clone(&self.steps), Arc::clone(&self.reacting), channel.to_owned());
        let span = tracing::info_span!("reaction", channel);
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

/// Says what became of a command. One that was refused is told to its sender only.
fn log_done(
    action: &str,
    request_id: Option<&str>,
    took: Duration,
    fault: Option<&Fault>,
    lines: &Mutex<LogLimit<Instant>>,
) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let refused = fault.filter(|fault| fault.refused);
    if let Some(fault) = refused {
        return tracing::debug!(action, request_id, error = fault.error, "command refused");
    }
    let Some(line) = lock(lines).allow(Instant::now()) else { return };
    match fault {
        None => tracing::info!(action, request_id, duration_ms, suppressed = line.suppressed, "command done"),
        Some(fault) => {
            tracing::warn!(
                action,
                request_id,
                duration_ms,
                suppressed = line.suppressed,
                error = fault.error,
                "command failed"
            );
        }
    }
}

/// The texts of an event, for the log.
fn shown(payload: &Map<String, serde_json::Value>) -> String {
    const LONGEST: usize = 200;
    serde_json::to_string(payload).unwrap_or_default().chars().take(LONGEST).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages that nobody can be answered for, warned of now and then: anybody can send thousands.
#[derive(Debug)]
struct Unanswered(LogLimit<Instant>);

impl Default for Unanswered {
    fn default() -> Self {
        Self(LogLimit::new(1, WARN_EVERY))
    }
}

impl Unanswered {
    fn tell(&mut self, fault: &dyn std::fmt::Display) {
        if let Some(line) = self.0.allow(Instant::now()) {
            tracing::warn!(count = line.count(), last = %fault, "messages ignored");
        }
    }
}
