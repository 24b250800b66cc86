//! Writes the log line of every event. Messages, levels and fields are a contract with whoever reads logs by program:
//! `docs/events.md` has them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Observer;
use crate::event::{Answer, Consequence, Event, Leftover, Operation, Peer, Skip};
use crate::log_limit::{Line, LogLimit};
use crate::names::{RequestId, RunId, ServiceName};
use crate::record::{Reason, Record};
use crate::report::{Outcome, RunReport, Trigger};

// A line's `target`, by which `log.level` chooses: the part of the daemon that the event is from.
const SCHEDULER: &str = "sense_orchestrator::scheduler";
const RUNNER: &str = "sense_orchestrator::runner";
const DISPATCHER: &str = "sense_orchestrator::dispatcher";
const MONITOR: &str = "sense_orchestrator::monitor";
const SEEDER: &str = "sense_orchestrator::seeder";
const PROJECTS: &str = "sense_orchestrator::projects";
const SETTINGS: &str = "sense_orchestrator::settings";

/// Most lines in a minute about what anybody can cause by a message each: thousands of them are soon sent.
const DONE_LINES: u32 = 300;
const FAILED_LINES: u32 = 60;
const RUN_LINES: u32 = 60;
const OPERATION_LINES: u32 = 60;
const REACTION_LINES: u32 = 120;
const CONFIG_LINES: u32 = 40;
const LOST_LINES: u32 = 1;

/// Most lines about connections in a minute: anybody who may end ours could fill the log.
const CONNECTION_LINES: u32 = 20;

type Limit = Mutex<LogLimit<Instant>>;

/// The observer that logs.
///
/// Lines that anybody can cause by a message each are limited in number; one that is written after others were not says how
/// many, as `suppressed`.
#[derive(Debug)]
pub struct Log {
    done: Limit,
    failed: Limit,
    runs: Limit,
    operations: Limit,
    reactions: Limit,
    config: Limit,
    lost: Limit,
    replies: Limit,
    connections: Limit,
}

impl Default for Log {
    fn default() -> Self {
        let limit = |most| Mutex::new(LogLimit::new(most, Duration::from_mins(1)));
        Self {
            done: limit(DONE_LINES),
            failed: limit(FAILED_LINES),
            runs: limit(RUN_LINES),
            operations: limit(OPERATION_LINES),
            reactions: limit(REACTION_LINES),
            config: limit(CONFIG_LINES),
            lost: limit(LOST_LINES),
            replies: limit(LOST_LINES),
            connections: limit(CONNECTION_LINES),
        }
    }
}

/// The lines of settings and Compose files that were read again.
fn files(event: &Event) {
    match event {
        Event::SettingsReloaded { changed } => {
            info!(target: SETTINGS, changed = changed.join(", "), "settings reloaded");
        }
        Event::SettingsNeedRestart { keys } => {
            warn!(target: SETTINGS, keys = keys.join(", "), "settings need a restart");
        }
        Event::SettingsRefused { error } => {
            warn!(target: SETTINGS, error, "settings not loaded, the last good ones stay in use");
        }
        Event::ProjectChanged { project } => info!(target: PROJECTS, %project, "project loaded again"),
        Event::ProjectBroken { error } => {
            warn!(target: PROJECTS, error, "project not loaded, the last good one stays in use");
        }
        Event::ProjectFilesChanged { files, container } => {
            info!(target: PROJECTS, files = files.join(", "), container, "other compose files count now");
        }
        _ => {}
    }
}

impl Log {
    /// What limits the line of an event; none for one that no message causes, and for one that is at debug.
    fn limit(&self, event: &Event) -> Option<&Limit> {
        match event {
            Event::CommandAnswered { answer: Answer::Done, .. } => Some(&self.done),
            Event::CommandAnswered { answer: Answer::Failed { .. }, .. }
            | Event::ReactionEnded { error: Some(_), .. } => Some(&self.failed),
            Event::RunWaits { .. } => Some(&self.runs),
            Event::RunEnded { report } if report.trigger == Trigger::Command => Some(&self.runs),
            Event::ServiceOperated { .. } | Event::PauseChanged { .. } => Some(&self.operations),
            Event::ReactionBegins { .. } | Event::ReactionEnded { error: None, .. } => Some(&self.reactions),
            Event::ScheduleChanged { .. }
            | Event::ScheduleRefused { .. }
            | Event::ConfigWritten { .. }
            | Event::ConfigNotWritten { .. }
            | Event::ConfigNotRemembered { .. }
            | Event::ConfigDeleted { .. }
            | Event::ConfigChanged { .. }
            | Event::VariableIgnored { .. } => Some(&self.config),
            Event::MessagesLost { .. } => Some(&self.lost),
            Event::ReplyDropped { .. } => Some(&self.replies),
            Event::ConnectionLost { .. } | Event::ConnectionBack { .. } => Some(&self.connections),
            // The dispatcher counts what it ignores, and says it once a minute.
            Event::MessagesIgnored { .. }
            | Event::CommandAnswered { answer: Answer::Refused { .. }, .. }
            | Event::CommandTaken { .. }
            | Event::RunEnded { .. }
            | Event::RunBegins { .. }
            | Event::RunStarted { .. }
            | Event::RunAdopted { .. }
            | Event::Recorded { .. }
            | Event::LeftoverRemoved { .. }
            | Event::LeftoversStay
            | Event::ForeignRun { .. }
            | Event::ReactionsDropped { .. }
            | Event::Scheduled { .. }
            | Event::SettingsReloaded { .. }
            | Event::SettingsNeedRestart { .. }
            | Event::SettingsRefused { .. }
            | Event::SlotDue { .. }
            | Event::SlotQueued { .. }
            | Event::SlotSkipped { .. }
            | Event::SlotsMissed { .. }
            | Event::ProjectChanged { .. }
            | Event::ProjectBroken { .. }
            | Event::ProjectFilesChanged { .. }
            | Event::ServiceOverdue { .. }
            | Event::ServiceRecovered { .. } => None,
        }
    }

    /// Leave to write an event's line, or none.
    fn allow(&self, event: &Event) -> Option<Line> {
        let Some(limit) = self.limit(event) else { return Some(Line { suppressed: None }) };
        limit.lock().unwrap_or_else(PoisonError::into_inner).allow(Instant::now())
    }
}

impl Observer for Log {
    fn observe(&self, event: &Event) {
        let Some(line) = self.allow(event) else { return };
        let suppressed = line.suppressed;
        match event {
            Event::Scheduled { change } => info!(target: SCHEDULER, change = %change, "scheduled"),
            Event::ScheduleChanged { change } => {
                info!(target: SCHEDULER, change = %change, suppressed, "schedule changed");
            }
            Event::ScheduleRefused { error } => {
                warn!(target: DISPATCHER, error, suppressed, "schedule not followed");
            }
            Event::PauseChanged { service, paused: true } => {
                info!(target: SCHEDULER, %service, suppressed, "schedule paused");
            }
            Event::PauseChanged { service, paused: false } => {
                info!(target: SCHEDULER, %service, suppressed, "schedule resumed");
            }
            Event::SlotDue { service, slot } => {
                debug!(target: SCHEDULER, %service, slot = slot.to_rfc3339(), "slot due");
            }
            Event::Recorded { record } => recorded(record),
            Event::SlotQueued { service, waits_for } => {
                debug!(target: SCHEDULER, %service, waits_for, "slot queued");
            }
            Event::SlotSkipped { service, why } => slot_skipped(service, why),
            Event::SlotsMissed { service, missed } => {
                warn!(target: SCHEDULER, %service, missed, "slots missed, the daemon did not run");
            }
            Event::RunBegins { service, run_id, trigger } => {
                debug!(target: RUNNER, %service, %run_id, trigger = trigger.as_str(), "run begins");
            }
            Event::RunWaits { service, other } => {
                let other = other.as_ref().map(tracing::field::display);
                info!(target: RUNNER, %service, other, suppressed, "waiting for the run in the way");
            }
            Event::RunStarted { service, run_id } => debug!(target: RUNNER, %service, %run_id, "run started"),
            Event::RunEnded { report } => run_ended(report, suppressed),
            Event::RunAdopted { service, run_id } => {
                info!(target: RUNNER, %service, %run_id, "adopting a run that goes on");
            }
            Event::LeftoverRemoved { service, run_id, leftover } => leftover_removed(service, run_id, leftover),
            Event::ForeignRun { service, run_id } => {
                warn!(target: RUNNER, %service, %run_id, "a run goes on that this daemon did not begin");
            }
            Event::LeftoversStay => {
                warn!(target: RUNNER, "containers of earlier runs do not go away, starting without them");
            }
            Event::ServiceOperated { service, operation, took } => {
                operated(service, *operation, milliseconds(*took), suppressed);
            }
            Event::CommandTaken { action, request_id, fingerprint: _ } => {
                debug!(target: DISPATCHER, action, request_id = text(request_id.as_ref()), "command taken");
            }
            Event::CommandAnswered { action, request_id, answer, took, reply: _ } => {
                command_answered(action, text(request_id.as_ref()), answer, milliseconds(*took), suppressed);
            }
            Event::MessagesIgnored { count, last } => warn!(target: DISPATCHER, count, last, "messages ignored"),
            Event::MessagesLost { lost } => warn!(target: DISPATCHER, lost, suppressed, "messages lost"),
            Event::ReplyDropped { request_id } => {
                warn!(target: DISPATCHER, %request_id, dropped = line.count(), "too many replies wait, one dropped");
            }
            Event::ReactionBegins { channel, payload } => {
                info!(target: DISPATCHER, channel, payload, suppressed, "event");
            }
            Event::ReactionEnded { channel, error } => reaction_ended(channel, error.as_deref(), suppressed),
            Event::ReactionsDropped { channel, count } => {
                warn!(target: DISPATCHER, channel, count, "events not followed, shutting down");
            }
            Event::ConfigWritten { section, from, again } => config_written(section, from, *again, suppressed),
            Event::VariableIgnored { variable, expected } => {
                warn!(target: SEEDER, variable, expected, suppressed, "variable does not parse, default used");
            }
            Event::ConfigNotWritten { error } => warn!(target: SEEDER, error, suppressed, "config not seeded"),
            Event::ConfigChanged { section, service, consequence } => {
                config_changed(section, service, consequence, suppressed);
            }
            Event::ConfigNotRemembered { key, problem } => {
                warn!(target: SEEDER, key, problem, suppressed, "config not remembered");
            }
            Event::ConfigDeleted { section } => info!(target: SEEDER, section, suppressed, "config deleted"),
            Event::ConnectionLost { peer, reason } => connection_lost(*peer, reason, suppressed),
            Event::ConnectionBack { peer } => connection_back(*peer, suppressed),
            Event::SettingsReloaded { .. }
            | Event::SettingsNeedRestart { .. }
            | Event::SettingsRefused { .. }
            | Event::ProjectChanged { .. }
            | Event::ProjectBroken { .. }
            | Event::ProjectFilesChanged { .. } => files(event),
            Event::ServiceOverdue { service, source, silent, every } => {
                let source = source.as_ref().map(tracing::field::display);
                let (silent_s, interval_s) = (silent.as_secs(), every.as_secs());
                warn!(target: MONITOR, %service, source, silent_s, interval_s, "source overdue");
            }
            Event::ServiceRecovered { service } => info!(target: MONITOR, %service, "source recovered"),
        }
    }
}

fn slot_skipped(service: &ServiceName, why: &Skip) {
    match why {
        Skip::Running { run_id, since } => {
            let (run_id, busy_ms) = (run_id.as_ref().map(tracing::field::display), milliseconds(*since));
            warn!(target: SCHEDULER, %service, run_id, busy_ms, "slot skipped, still running");
        }
        Skip::Waiting { waits_for, since } => {
            let waiting_ms = milliseconds(*since);
            warn!(target: SCHEDULER, %service, waits_for, waiting_ms, "slot skipped, still waiting");
        }
        Skip::Busy { error } => warn!(target: SCHEDULER, %service, error, "slot skipped, still running"),
        Skip::Paused => debug!(target: SCHEDULER, %service, "slot skipped, paused"),
        Skip::UnknownService { repeated: false } => {
            warn!(target: SCHEDULER, %service, "slot skipped, the project has no such service");
        }
        Skip::UnknownService { repeated: true } => {
            debug!(target: SCHEDULER, %service, "slot skipped, the project has no such service");
        }
        Skip::ShuttingDown { waited } => {
            info!(target: SCHEDULER, %service, waited_ms = milliseconds(*waited), "slot skipped, shutting down");
        }
    }
}

fn leftover_removed(service: &ServiceName, run_id: &RunId, leftover: &Leftover) {
    match leftover {
        Leftover::Earlier { container } => {
            warn!(target: RUNNER, %service, %run_id, container, "removing the container of an earlier run");
        }
        Leftover::Second => warn!(target: RUNNER, %service, %run_id, "removing a second run of a service"),
    }
}

fn config_written(section: &str, from: &str, again: bool, suppressed: Option<u64>) {
    if again {
        info!(target: SEEDER, section, from, suppressed, "config restored");
    } else {
        info!(target: SEEDER, section, from, suppressed, "config seeded");
    }
}

fn recorded(record: &Record) {
    let (service, run_id) = (&record.job, record.run_id.as_ref().map(tracing::field::display));
    let (state, reason) = (record.state.as_str(), record.reason.map(Reason::as_str));
    debug!(target: RUNNER, %service, run_id, state, reason, "recorded");
}

fn run_ended(report: &RunReport, suppressed: Option<u64>) {
    let RunReport { service, run_id, exit_code, error, .. } = report;
    let trigger = report.trigger.as_str();
    let duration_ms = milliseconds(report.duration);
    let (tail, note) = ((!report.tail.is_empty()).then_some(report.tail.as_str()), report.note);
    match report.outcome {
        Outcome::Succeeded if report.warning.is_some() => {
            let warning = report.warning;
            warn!(target: RUNNER, %service, %run_id, trigger, exit_code, duration_ms, note, warning, suppressed, "run succeeded");
        }
        Outcome::Succeeded => {
            info!(target: RUNNER, %service, %run_id, trigger, exit_code, duration_ms, note, suppressed, "run succeeded");
        }
        Outcome::Failed => {
            warn!(target: RUNNER, %service, %run_id, trigger, exit_code, duration_ms, error, note, tail, suppressed, "run failed");
        }
        Outcome::TimedOut => {
            warn!(target: RUNNER, %service, %run_id, trigger, duration_ms, error, note, tail, suppressed, "run timed out");
        }
        Outcome::NoOutput => {
            warn!(
                target: RUNNER,
                %service, %run_id, trigger, exit_code, duration_ms, error, note, tail, suppressed,
                "run left no output"
            );
        }
        Outcome::Cancelled => {
            warn!(target: RUNNER, %service, %run_id, trigger, duration_ms, error, note, tail, suppressed, "run cancelled");
        }
    }
}

fn operated(service: &ServiceName, operation: Operation, duration_ms: u64, suppressed: Option<u64>) {
    match operation {
        Operation::Started => info!(target: RUNNER, %service, duration_ms, suppressed, "service started"),
        Operation::Stopped => info!(target: RUNNER, %service, duration_ms, suppressed, "service stopped"),
        Operation::Restarted => info!(target: RUNNER, %service, duration_ms, suppressed, "service restarted"),
    }
}

fn command_answered(
    action: &str,
    request_id: Option<&str>,
    answer: &Answer,
    duration_ms: u64,
    suppressed: Option<u64>,
) {
    match answer {
        // The sender learns of it.
        Answer::Refused { error } => debug!(target: DISPATCHER, action, request_id, error, "command refused"),
        Answer::Failed { error } => {
            warn!(target: DISPATCHER, action, request_id, duration_ms, error, suppressed, "command failed");
        }
        Answer::Done => {
            info!(target: DISPATCHER, action, request_id, duration_ms, suppressed, "command done");
        }
    }
}

fn reaction_ended(channel: &str, error: Option<&str>, suppressed: Option<u64>) {
    match error {
        None => info!(target: DISPATCHER, channel, suppressed, "reaction done"),
        Some(error) => warn!(target: DISPATCHER, channel, error, suppressed, "reaction failed"),
    }
}

fn connection_lost(peer: Peer, reason: &str, suppressed: Option<u64>) {
    match peer {
        Peer::Engine => warn!(target: MONITOR, reason, suppressed, "engine unavailable"),
        Peer::Redis => warn!(target: MONITOR, reason, suppressed, "redis unavailable"),
    }
}

fn connection_back(peer: Peer, suppressed: Option<u64>) {
    match peer {
        Peer::Engine => info!(target: MONITOR, suppressed, "engine available"),
        Peer::Redis => info!(target: MONITOR, suppressed, "redis available"),
    }
}

fn config_changed(section: &str, service: &ServiceName, consequence: &Consequence, suppressed: Option<u64>) {
    match consequence {
        Consequence::RestartRequired => {
            warn!(target: DISPATCHER, section, %service, suppressed, "config changed, service restart required");
        }
        Consequence::Restarting => {
            info!(target: DISPATCHER, section, %service, suppressed, "config changed, restarting");
        }
        Consequence::RestartFailed { error } => {
            warn!(target: DISPATCHER, section, %service, error, suppressed, "restart failed");
        }
        Consequence::NotFoundOut { error } => {
            warn!(target: DISPATCHER, section, %service, error, suppressed, "config changed, service not found out");
        }
    }
}

fn text(request_id: Option<&RequestId>) -> Option<&str> {
    request_id.map(RequestId::as_str)
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
