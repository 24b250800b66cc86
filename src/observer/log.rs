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
use crate::report::{Outcome, RunReport};

// A line's `target`, by which `log.level` chooses: the part of the daemon that the event is from.
const SCHEDULER: &str = "sense_orchestrator::scheduler";
const RUNNER: &str = "sense_orchestrator::runner";
const DISPATCHER: &str = "sense_orchestrator::dispatcher";
const MONITOR: &str = "sense_orchestrator::monitor";
const SEEDER: &str = "sense_orchestrator::seeder";
const PROJECTS: &str = "sense_orchestrator::projects";

/// Most lines about commands in a minute: anybody can send thousands.
const COMMAND_LINES: u32 = 300;

/// Most lines about changes of the configuration in a minute: anybody may make them, back and forth.
const CONFIG_LINES: u32 = 40;

/// Most lines about connections in a minute: anybody who may end ours could fill the log.
const CONNECTION_LINES: u32 = 20;

/// The observer that logs.
///
/// Lines that anybody can cause by a message each are limited in number; one that is written after others were not says how
/// many, as `suppressed`.
#[derive(Debug)]
pub struct Log {
    commands: Mutex<LogLimit<Instant>>,
    config: Mutex<LogLimit<Instant>>,
    lost: Mutex<LogLimit<Instant>>,
    replies: Mutex<LogLimit<Instant>>,
    connections: Mutex<LogLimit<Instant>>,
}

impl Default for Log {
    fn default() -> Self {
        let limit = |most| Mutex::new(LogLimit::new(most, Duration::from_mins(1)));
        Self {
            commands: limit(COMMAND_LINES),
            config: limit(CONFIG_LINES),
            lost: limit(1),
            replies: limit(1),
            connections: limit(CONNECTION_LINES),
        }
    }
}

fn allow(limit: &Mutex<LogLimit<Instant>>) -> Option<Line> {
    limit.lock().unwrap_or_else(PoisonError::into_inner).allow(Instant::now())
}

impl Observer for Log {
    fn observe(&self, event: &Event) {
        match event {
            Event::Scheduled { change } => info!(target: SCHEDULER, change = %change, "scheduled"),
            Event::ScheduleChanged { change } => info!(target: SCHEDULER, change = %change, "schedule changed"),
            Event::ScheduleRefused { error } => {
                if let Some(Line { suppressed }) = allow(&self.config) {
                    warn!(target: DISPATCHER, error, suppressed, "schedule not followed");
                } else {
                    debug!(target: DISPATCHER, error, "schedule not followed");
                }
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
                info!(target: RUNNER, %service, other, "waiting for the run in the way");
            }
            Event::RunStarted { service, run_id } => debug!(target: RUNNER, %service, %run_id, "run started"),
            Event::RunEnded { report } => run_ended(report),
            Event::RunAdopted { service, run_id } => {
                info!(target: RUNNER, %service, %run_id, "adopting a run that goes on");
            }
            Event::LeftoverRemoved { service, run_id, leftover } => leftover_removed(service, run_id, leftover),
            Event::ForeignRun { service, run_id, older } => {
                warn!(target: RUNNER, %service, %run_id, older, "a run goes on that this daemon did not begin");
            }
            Event::LeftoversStay => {
                warn!(target: RUNNER, "containers of earlier runs do not go away, starting without them");
            }
            Event::ServiceOperated { service, operation, took } => {
                let duration_ms = milliseconds(*took);
                match operation {
                    Operation::Started => info!(target: RUNNER, %service, duration_ms, "service started"),
                    Operation::Stopped => info!(target: RUNNER, %service, duration_ms, "service stopped"),
                    Operation::Restarted => info!(target: RUNNER, %service, duration_ms, "service restarted"),
                }
            }
            Event::CommandTaken { action, request_id, fingerprint: _ } => {
                debug!(target: DISPATCHER, action, request_id = text(request_id.as_ref()), "command taken");
            }
            Event::CommandAnswered { action, request_id, answer, took, reply: _ } => {
                self.command_answered(action, request_id.as_ref(), answer, milliseconds(*took));
            }
            Event::MessagesIgnored { count, last } => warn!(target: DISPATCHER, count, last, "messages ignored"),
            Event::MessagesLost { lost } => {
                if let Some(Line { suppressed }) = allow(&self.lost) {
                    warn!(target: DISPATCHER, lost, suppressed, "messages lost");
                }
            }
            Event::ReplyDropped { request_id } => {
                if let Some(line) = allow(&self.replies) {
                    warn!(target: DISPATCHER, %request_id, dropped = line.count(), "too many replies wait, one dropped");
                }
            }
            Event::ReactionBegins { channel, payload } => info!(target: DISPATCHER, channel, payload, "event"),
            Event::ReactionEnded { channel, error: None } => info!(target: DISPATCHER, channel, "reaction done"),
            Event::ReactionEnded { channel, error } => warn!(target: DISPATCHER, channel, error, "reaction failed"),
            Event::ReactionsDropped { channel, count } => {
                warn!(target: DISPATCHER, channel, count, "events not followed, shutting down");
            }
            Event::ConfigWritten { section, from, again } => config_written(section, from, *again),
            Event::VariableIgnored { variable, expected } => {
                warn!(target: SEEDER, variable, expected, "variable does not parse, default used");
            }
            Event::ConfigNotWritten { error } => warn!(target: SEEDER, error, "config not seeded"),
            Event::ConfigChanged { section, service, consequence } => {
                self.config_changed(section, service, consequence);
            }
            Event::ConfigNotRemembered { key, problem } => {
                warn!(target: SEEDER, key, problem, "config not remembered");
            }
            Event::ConfigDeleted { section } => info!(target: SEEDER, section, "config deleted"),
            Event::ProjectChanged { project } => info!(target: PROJECTS, %project, "project loaded again"),
            Event::ProjectBroken { error } => {
                warn!(target: PROJECTS, error, "project not loaded, the last good one stays in use");
            }
            Event::ConnectionLost { peer, reason } => self.connection_lost(*peer, reason),
            Event::ConnectionBack { peer } => self.connection_back(*peer),
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

fn config_written(section: &str, from: &str, again: bool) {
    if again {
        info!(target: SEEDER, section, from, "config restored");
    } else {
        info!(target: SEEDER, section, from, "config seeded");
    }
}

fn recorded(record: &Record) {
    let (service, run_id) = (&record.job, record.run_id.as_ref().map(tracing::field::display));
    let (state, reason) = (record.state.as_str(), record.reason.map(Reason::as_str));
    debug!(target: RUNNER, %service, run_id, state, reason, "recorded");
}

fn run_ended(report: &RunReport) {
    let RunReport { service, run_id, exit_code, error, .. } = report;
    let trigger = report.trigger.as_str();
    let duration_ms = milliseconds(report.duration);
    let (tail, note) = ((!report.tail.is_empty()).then_some(report.tail.as_str()), report.note);
    match report.outcome {
        Outcome::Succeeded if report.warning.is_some() => {
            let warning = report.warning;
            warn!(target: RUNNER, %service, %run_id, trigger, exit_code, duration_ms, note, warning, "run succeeded");
        }
        Outcome::Succeeded => {
            info!(target: RUNNER, %service, %run_id, trigger, exit_code, duration_ms, note, "run succeeded");
        }
        Outcome::Failed => {
            warn!(target: RUNNER, %service, %run_id, trigger, exit_code, duration_ms, error, note, tail, "run failed");
        }
        Outcome::TimedOut => {
            warn!(target: RUNNER, %service, %run_id, trigger, duration_ms, error, note, tail, "run timed out");
        }
        Outcome::NoOutput => {
            warn!(
                target: RUNNER,
                %service, %run_id, trigger, exit_code, duration_ms, error, note, tail,
                "run left no output"
            );
        }
        Outcome::Cancelled => {
            warn!(target: RUNNER, %service, %run_id, trigger, duration_ms, error, note, tail, "run cancelled");
        }
    }
}

impl Log {
    fn command_answered(&self, action: &str, request_id: Option<&RequestId>, answer: &Answer, duration_ms: u64) {
        let request_id = text(request_id);
        // The sender learns of it.
        if let Answer::Refused { error } = answer {
            return debug!(target: DISPATCHER, action, request_id, error, "command refused");
        }
        let Some(Line { suppressed }) = allow(&self.commands) else { return };
        match answer {
            Answer::Failed { error } => {
                warn!(target: DISPATCHER, action, request_id, duration_ms, error, suppressed, "command failed");
            }
            Answer::Done | Answer::Refused { .. } => {
                info!(target: DISPATCHER, action, request_id, duration_ms, suppressed, "command done");
            }
        }
    }

    fn connection_lost(&self, peer: Peer, reason: &str) {
        let Some(Line { suppressed }) = allow(&self.connections) else { return };
        match peer {
            Peer::Engine => warn!(target: MONITOR, reason, suppressed, "engine unavailable"),
            Peer::Redis => warn!(target: MONITOR, reason, suppressed, "redis unavailable"),
        }
    }

    fn connection_back(&self, peer: Peer) {
        let Some(Line { suppressed }) = allow(&self.connections) else { return };
        match peer {
            Peer::Engine => info!(target: MONITOR, suppressed, "engine available"),
            Peer::Redis => info!(target: MONITOR, suppressed, "redis available"),
        }
    }

    fn config_changed(&self, section: &str, service: &ServiceName, consequence: &Consequence) {
        match consequence {
            Consequence::RestartRequired => {
                if let Some(Line { suppressed }) = allow(&self.config) {
                    warn!(target: DISPATCHER, section, %service, suppressed, "config changed, service restart required");
                }
            }
            Consequence::Restarting => info!(target: DISPATCHER, section, %service, "config changed, restarting"),
            Consequence::RestartFailed { error } => {
                warn!(target: DISPATCHER, section, %service, error, "restart failed");
            }
            Consequence::NotFoundOut { error } => {
                warn!(target: DISPATCHER, section, %service, error, "config changed, service not found out");
            }
        }
    }
}

fn text(request_id: Option<&RequestId>) -> Option<&str> {
    request_id.map(RequestId::as_str)
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
