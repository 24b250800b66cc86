//! Answers what arrives over Redis: commands, events, changes of the configuration.
//!
//! Nothing is awaited between two messages: a command, a reaction, a reply each go on beside the others, so that a long scan
//! delays nobody. At the end of the daemon commands are still answered, with a refusal, until its work is done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::action::{Action, Actions, ConfigChanges, Reactions, built_in};
use crate::backend::Backend;
use crate::bus::{Bus, Event};
use crate::event::Event::{MessagesIgnored, MessagesLost};
use crate::jobs::Jobs;
use crate::log_limit::LogLimit;
use crate::observer::Events;
use crate::report::Problems;
use crate::runner::Runner;
use crate::schedule::Intervals;

mod changes;
mod commands;
mod poll_services;
mod reactions;
mod recent;
mod replies;
mod resume;
mod schedule;
mod steps;

pub use poll_services::PollServices;
pub use schedule::{Scheduled, ScheduledServices};

/// The intervals that the text of `config:schedule` asks for; what of it is refused stays as in `current`.
pub fn wanted_intervals(text: &str, services: &ScheduledServices, current: &Intervals) -> Intervals {
    schedule::read(text, services, current).0
}

/// The intervals once the settings changed from `before` to `now`: of services whose own interval is another one, that;
/// all others stay as in `current`.
pub fn rebased_intervals(before: &PollServices, now: &PollServices, current: &Intervals) -> Intervals {
    schedule::rebase(&before.scheduled, &now.scheduled, current)
}

use changes::Changes;
use commands::CommandHandler;
use reactions::ReactionHandler;
use recent::Recent;
use replies::{Delivery, replies};
use steps::{ResultTurns, Steps};

/// Time between two warnings of messages that nobody can be answered for.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Of the bytes that replies on their way may have, the share that those have which are remembered.
const REMEMBERED_SHARE: usize = 4;

/// What the dispatcher does with what arrives. All but the last three may change while it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// What commands do.
    pub actions: Actions,
    /// What follows messages.
    pub reactions: Reactions,
    /// What a changed section of the configuration means.
    pub config_changes: ConfigChanges,
    /// What commands may name in their parameters, and `config:schedule` in its fields.
    pub services: PollServices,
    /// Commands at the same time; more are refused.
    pub max_in_flight: usize,
    /// How long a reply is kept, and a repeated request answered with it.
    pub reply_ttl: Duration,
    /// Most bytes of replies on their way.
    pub reply_bytes: usize,
}

impl Options {
    /// The action of this name: of the settings, else a built-in one.
    fn action(&self, name: &str) -> Option<Action> {
        self.actions.get(name).cloned().or_else(|| built_in(name))
    }
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
    jobs: Jobs<K, B>,
    options: watch::Receiver<Arc<Options>>,
    outputs: Outputs,
    lifetime: Lifetime,
) {
    let (max_in_flight, reply_ttl, reply_bytes) = {
        let options = options.borrow();
        (options.max_in_flight, options.reply_ttl, options.reply_bytes)
    };
    let events = runner.events().clone();
    let Outputs { intervals, problems, work } = outputs;
    let (replies, delivery) =
        replies(Arc::clone(&bus), events.clone(), (reply_ttl, reply_bytes), lifetime.intake.clone());
    let changes = Changes {
        bus: Arc::clone(&bus),
        runner: runner.clone(),
        options: options.clone(),
        intervals: intervals.clone(),
        problems,
        work: work.clone(),
    };
    let steps = Arc::new(Steps {
        bus: Arc::clone(&bus),
        runner,
        options: options.clone(),
        jobs,
        intake: lifetime.intake.clone(),
        results: ResultTurns::default(),
    });
    let all = steps.options();
    for request in steps.runner.history().ledger.unanswered() {
        let action = request.fingerprint.split(' ').next().and_then(|name| all.action(name));
        work.spawn(resume::answer(Arc::clone(&steps), action, replies.clone(), request));
    }
    let recent = Recent::new(reply_ttl, reply_bytes / REMEMBERED_SHARE);
    let handlers = Handlers {
        events,
        commands: CommandHandler::new(Arc::clone(&steps), replies, recent, max_in_flight, work.clone()),
        reactions: ReactionHandler::new(steps, work.clone()),
        options,
        work,
    };
    tokio::join!(handlers.run(bus.as_ref(), lifetime.intake.clone()), changes.run(lifetime), Delivery::run(delivery));
}

/// Who takes the messages that arrive.
struct Handlers<K, B> {
    events: Events,
    commands: CommandHandler<K, B>,
    reactions: ReactionHandler<K, B>,
    options: watch::Receiver<Arc<Options>>,
    work: TaskTracker,
}

impl<K: Backend, B: Bus> Handlers<K, B> {
    /// Hands on what arrives until the intake is closed and the work is done.
    async fn run(mut self, bus: &B, intake: CancellationToken) {
        let commands = bus.names().commands();
        let mut channels = channels(&commands, &self.options.borrow_and_update());
        let mut messages = bus.subscribe(&channels);
        let mut options_open = true;
        let work = self.work.clone();
        let mut done = std::pin::pin!(async {
            intake.cancelled().await;
            work.wait().await;
        });
        loop {
            tokio::select! {
                biased;
                event = messages.next() => match event {
                    Some(Event::Message(message)) => {
                        if message.channel.as_ref() == commands {
                            self.commands.take(&message.payload);
                        } else {
                            self.reactions.take(&message);
                        }
                        // The replies are delivered in the same task, and have their turn in a burst.
                        tokio::task::consume_budget().await;
                    }
                    Some(Event::Gap { lost: Some(lost) }) => self.events.emit(&MessagesLost { lost }),
                    Some(Event::Gap { lost: None }) => tracing::debug!("listening for messages"),
                    None => return,
                },
                changed = self.options.changed(), if options_open => {
                    options_open = changed.is_ok();
                    let wanted = self::channels(&commands, &self.options.borrow_and_update());
                    if wanted != channels {
                        // The new subscription is there before the old one goes.
                        messages = bus.subscribe(&wanted);
                        channels = wanted;
                    }
                }
                () = &mut done => return,
            }
        }
    }
}

/// The channel of commands and those that something follows on.
fn channels(commands: &str, options: &Options) -> Vec<String> {
    std::iter::once(commands).chain(options.reactions.keys().map(String::as_str)).map(str::to_owned).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts messages that nothing is done for and nobody can be answered for. Anybody can send thousands, so only one warning
/// a minute is written, with their number since the one before.
#[derive(Debug)]
struct IgnoredMessages(LogLimit<Instant>);

impl Default for IgnoredMessages {
    fn default() -> Self {
        Self(LogLimit::new(1, WARN_EVERY))
    }
}

impl IgnoredMessages {
    fn count(&mut self, fault: &dyn std::fmt::Display, events: &Events) {
        if let Some(line) = self.0.allow(Instant::now()) {
            events.emit(&MessagesIgnored { count: line.count(), last: fault.to_string() });
        }
    }
}
