//! What happened, as values: the core says it by these, and whoever wants to hear of it observes them.
//!
//! `docs/events.md` has every event with its line in the log; a test compares the two.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::names::{ProjectName, RequestId, RunId, ServiceName, SourceId};
use crate::record::Record;
use crate::report::{RunReport, Trigger};
use crate::schedule::Change;

/// Version of `docs/events.md`. It grows when a line or a field that was there is changed or taken away.
pub const VERSION: u32 = 1;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A service is in the schedule that the daemon starts with.
    Scheduled {
        /// Its interval.
        change: Change,
    },
    /// A service's interval is another one from now on.
    ScheduleChanged {
        /// What changed.
        change: Change,
    },
    /// A part of `config:schedule` cannot be followed.
    ScheduleRefused {
        /// Why not.
        error: String,
    },
    /// A service's slot fell due.
    SlotDue {
        /// The service.
        service: ServiceName,
        /// When.
        slot: Timestamp,
    },
    /// A slot waits before its run may begin.
    SlotQueued {
        /// The service.
        service: ServiceName,
        /// The setting or the thing that it waits for.
        waits_for: &'static str,
    },
    /// A slot that fell due gets no run.
    SlotSkipped {
        /// The service.
        service: ServiceName,
        /// Why.
        why: Skip,
    },
    /// Slots fell due while the daemon was not there to see them.
    SlotsMissed {
        /// The service.
        service: ServiceName,
        /// How many.
        missed: u64,
    },
    /// A run, or a slot without one, has a record, or another state in it.
    Recorded {
        /// The record.
        record: Box<Record>,
    },
    /// A run is being prepared.
    RunBegins {
        /// The service.
        service: ServiceName,
        /// The run.
        run_id: RunId,
        /// Why it runs.
        trigger: Trigger,
    },
    /// A run waits for the service's run that goes on.
    RunWaits {
        /// The service.
        service: ServiceName,
        /// The run that it waits for, where it is one of ours.
        other: Option<RunId>,
    },
    /// A run's container was started.
    RunStarted {
        /// The service.
        service: ServiceName,
        /// The run.
        run_id: RunId,
    },
    /// A run ended.
    RunEnded {
        /// What it came to.
        report: RunReport,
    },
    /// A run that an earlier life of the daemon began is followed to its end.
    RunAdopted {
        /// The service.
        service: ServiceName,
        /// The run.
        run_id: RunId,
    },
    /// The container of a run that nobody follows was found; it is removed.
    LeftoverRemoved {
        /// The service.
        service: ServiceName,
        /// The run.
        run_id: RunId,
        /// Whose it was.
        leftover: Leftover,
    },
    /// A run was begun since this daemon lives, and not by it: another daemon works on the project.
    ForeignRun {
        /// The service.
        service: ServiceName,
        /// The run.
        run_id: RunId,
        /// The other daemon was started before this one, which yields.
        older: bool,
    },
    /// The daemon starts without waiting for the removal of earlier runs' containers any longer.
    LeftoversStay,
    /// A service was started, stopped or restarted.
    ServiceOperated {
        /// The service.
        service: ServiceName,
        /// What was done.
        operation: Operation,
        /// How long it took.
        took: Duration,
    },
    /// A command was taken on.
    CommandTaken {
        /// Its action.
        action: String,
        /// Its id, where it has one.
        request_id: Option<RequestId>,
        /// Stands for its action and parameters: the same id with others is another command.
        fingerprint: String,
    },
    /// A command that was taken on was carried out, or not.
    CommandAnswered {
        /// Its action.
        action: String,
        /// Its id, where it has one.
        request_id: Option<RequestId>,
        /// What it came to.
        answer: Answer,
        /// The reply, where somebody can be answered.
        reply: Option<Arc<str>>,
        /// How long it took.
        took: Duration,
    },
    /// Messages arrived for which nothing is done and nobody can be answered.
    MessagesIgnored {
        /// How many, since it was last said.
        count: u64,
        /// Why the last of them.
        last: String,
    },
    /// Messages from Redis did not arrive here.
    MessagesLost {
        /// How many.
        lost: u64,
    },
    /// A reply that nobody waits for any more found no room among those to be delivered.
    ReplyDropped {
        /// The command's id.
        request_id: RequestId,
    },
    /// A message arrived that a reaction follows.
    ReactionBegins {
        /// Its channel.
        channel: String,
        /// Its text, cut.
        payload: String,
    },
    /// A reaction was carried out, or not.
    ReactionEnded {
        /// The channel.
        channel: String,
        /// Why not, where not.
        error: Option<String>,
    },
    /// Messages that wait for a reaction are not followed, because the daemon ends.
    ReactionsDropped {
        /// Their channel.
        channel: String,
        /// How many.
        count: usize,
    },
    /// A section of the configuration was written to Redis, where it was missing.
    ConfigWritten {
        /// The section.
        section: String,
        /// Where its value is from.
        from: &'static str,
        /// It was there before.
        again: bool,
    },
    /// A variable that a section takes its first value from does not parse: its default is used.
    VariableIgnored {
        /// Its name.
        variable: String,
        /// What it should be.
        expected: String,
    },
    /// A section of the configuration could not be written.
    ConfigNotWritten {
        /// Why not.
        error: String,
    },
    /// A section changed that a service reads only when it starts.
    ConfigChanged {
        /// The section.
        section: String,
        /// The service.
        service: ServiceName,
        /// What follows.
        consequence: Consequence,
    },
    /// A section that is there is not remembered: nobody could read it.
    ConfigNotRemembered {
        /// Its key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Somebody deleted a section and said so: it begins anew.
    ConfigDeleted {
        /// The section.
        section: String,
    },
    /// The Compose files changed: from now on runs are as they say.
    ProjectChanged {
        /// The project.
        project: ProjectName,
    },
    /// The Compose files changed and cannot be used: the last project that could be stays.
    ProjectBroken {
        /// What is wrong with them.
        error: String,
    },
    /// What the daemon depends on does not answer any more.
    ConnectionLost {
        /// Which.
        peer: Peer,
        /// Why.
        reason: String,
    },
    /// It answers again.
    ConnectionBack {
        /// Which.
        peer: Peer,
    },
    /// A service has had no success for too long.
    ServiceOverdue {
        /// The service.
        service: ServiceName,
        /// The source that it reports as.
        source: Option<SourceId>,
        /// Time since its last success.
        silent: Duration,
        /// Its interval.
        every: Duration,
    },
    /// A service that was overdue had a success.
    ServiceRecovered {
        /// The service.
        service: ServiceName,
    },
}

/// Why a slot gets no run.
#[derive(Debug, Clone, PartialEq)]
pub enum Skip {
    /// The run of an earlier slot goes on.
    Running {
        /// That run.
        run_id: Option<RunId>,
        /// For how long it has gone on.
        since: Duration,
    },
    /// An earlier slot still waits for its run to begin.
    Waiting {
        /// What it waits for.
        waits_for: &'static str,
        /// For how long it has waited.
        since: Duration,
    },
    /// Another run of the service is in the way.
    Busy {
        /// Which.
        error: String,
    },
    /// The project has no such service.
    UnknownService {
        /// It was said before.
        repeated: bool,
    },
    /// The daemon ends.
    ShuttingDown {
        /// For how long the slot had waited.
        waited: Duration,
    },
}

/// What was done with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It was started.
    Started,
    /// It was stopped.
    Stopped,
    /// It was stopped and started.
    Restarted,
}

/// Whose container it is that nobody follows any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// That of a run of an earlier life of the daemon.
    Earlier {
        /// Its name, where it was found before a run.
        container: Option<String>,
    },
    /// That of a second run at the same time.
    Second,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out.
    Done,
    /// It was wrong: nothing was done for it.
    Refused {
        /// Why.
        error: String,
    },
    /// It was not carried out, or not to its end.
    Failed {
        /// Why.
        error: String,
    },
}

/// What follows a change of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consequence {
    /// Somebody has to restart the service.
    RestartRequired,
    /// It is restarted.
    Restarting,
    /// It could not be restarted.
    RestartFailed {
        /// Why.
        error: String,
    },
    /// Whether it runs could not be found out.
    NotFoundOut {
        /// Why.
        error: String,
    },
}

/// What the daemon depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The Docker Engine.
    Engine,
    /// Redis.
    Redis,
}

impl Event {
    /// The event's name in `docs/events.md`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::ScheduleChanged { .. } => "schedule_changed",
            Self::ScheduleRefused { .. } => "schedule_refused",
            Self::SlotDue { .. } => "slot_due",
            Self::SlotQueued { .. } => "slot_queued",
            Self::SlotSkipped { .. } => "slot_skipped",
            Self::SlotsMissed { .. } => "slots_missed",
            Self::Recorded { .. } => "recorded",
            Self::RunBegins { .. } => "run_begins",
            Self::RunWaits { .. } => "run_waits",
            Self::RunStarted { .. } => "run_started",
            Self::RunEnded { .. } => "run_ended",
            Self::RunAdopted { .. } => "run_adopted",
            Self::LeftoverRemoved { .. } => "leftover_removed",
            Self::ForeignRun { .. } => "foreign_run",
            Self::LeftoversStay => "leftovers_stay",
            Self::ServiceOperated { .. } => "service_operated",
            Self::CommandTaken { .. } => "command_taken",
            Self::CommandAnswered { .. } => "command_answered",
            Self::MessagesIgnored { .. } => "messages_ignored",
            Self::MessagesLost { .. } => "messages_lost",
            Self::ReplyDropped { .. } => "reply_dropped",
            Self::ReactionBegins { .. } => "reaction_begins",
            Self::ReactionEnded { .. } => "reaction_ended",
            Self::ReactionsDropped { .. } => "reactions_dropped",
            Self::ConfigWritten { .. } => "config_written",
            Self::VariableIgnored { .. } => "variable_ignored",
            Self::ConfigNotWritten { .. } => "config_not_written",
            Self::ConfigChanged { .. } => "config_changed",
            Self::ConfigNotRemembered { .. } => "config_not_remembered",
            Self::ConfigDeleted { .. } => "config_deleted",
            Self::ProjectChanged { .. } => "project_changed",
            Self::ProjectBroken { .. } => "project_broken",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::ConnectionBack { .. } => "connection_back",
            Self::ServiceOverdue { .. } => "service_overdue",
            Self::ServiceRecovered { .. } => "service_recovered",
        }
    }
}
