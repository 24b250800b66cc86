//! Carries out the steps of actions and reactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::schedule::ScheduledServices;
use crate::action::{Action, Allowed, Reaction, Report, Step, Target};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::message::{SourceStatus, status_key};
use crate::names::{ServiceName, SourceId};
use crate::report::{Chain, Outcome, RunReport, Trigger};
use crate::runner::{RunError, RunRequest, Runner};
use crate::schedule::Intervals;

/// Life of a status that the daemon writes for a source, as the sources' own.
const STATUS_TTL: Duration = Duration::from_mins(2);

/// Most of a run's output that a reply holds.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 4 * 1024;

/// Longest list that a reply passes on, in bytes.
const LONGEST_LIST: usize = 256 * 1024;

/// Why an action stopped.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    /// For the reply and the log.
    pub(super) error: String,
    /// For the reply.
    pub(super) data: Map<String, Value>,
    /// The command was wrong: nothing was done for it.
    pub(super) refused: bool,
}

impl Fault {
    fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), data: Map::new(), refused: false }
    }

    fn refused(error: impl Into<String>) -> Self {
        Self { refused: true, ..Self::new(error) }
    }

    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Chain(error).to_string())
    }
}

/// What steps are carried out with.
pub(super) struct Steps<K, B> {
    pub(super) bus: Arc<B>,
    pub(super) runner: Runner<K, B>,
    pub(super) allowed: Box<dyn Fn() -> Allowed + Send + Sync>,
    pub(super) intervals: watch::Receiver<Arc<Intervals>>,
    pub(super) schedule: ScheduledServices,
    pub(super) intake: CancellationToken,
}

/// Which services a step may be given by a parameter.
#[derive(Debug, Clone, Copy)]
enum Permission {
    Operate,
    Restart,
}

impl<K: Backend, B: Bus> Steps<K, B> {
    /// Carries out an action and returns the `data` of its reply.
    pub(super) async fn action(
        &self,
        action: &Action,
        params: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Fault> {
        let results: Vec<String> = action.steps().iter().filter_map(result_key).collect();
        let listed = !results.is_empty();
        // What is read later must have been written by this action. A run deletes it itself, once no other is in its way.
        let mut stale = results;
        if !action.steps().iter().any(|step| matches!(step, Step::Run { .. })) {
            self.bus.delete(&std::mem::take(&mut stale)).await.map_err(|error| Fault::of(&error))?;
        }
        let mut data = Map::new();
        for step in action.steps() {
            let results = if matches!(step, Step::Run { .. }) { std::mem::take(&mut stale) } else { Vec::new() };
            match self.step(step, params, results).await? {
                // Where a list is the result, it is the whole of it.
                Yield::Run(report) if !listed => data.extend(told(&report)),
                Yield::Run(_) | Yield::Nothing => {}
                Yield::Field(field, value) => drop(data.insert(field, value)),
            }
        }
        Ok(data)
    }

    /// Carries out a reaction to what happened at `event`: what was started after that is not stopped.
    pub(super) async fn reaction(
        &self,
        reaction: &Reaction,
        payload: &Map<String, Value>,
        event: Timestamp,
    ) -> Result<(), Fault> {
        for step in reaction.steps() {
            if let Step::Stop(service) = step {
                let service = self.service(service, payload, Permission::Operate)?;
                self.runner.stop_started_before(&service, event).await.map_err(|error| Fault::of(&error))?;
            } else {
                self.step(step, payload, Vec::new()).await?;
            }
        }
        Ok(())
    }

    /// Carries out one step; a run is to write `results`.
    async fn step(&self, step: &Step, values: &Map<String, Value>, results: Vec<String>) -> Result<Yield, Fault> {
        match step {
            Step::Run { service, env } => {
                let service = self.service(service, values, Permission::Operate)?;
                let environment = env.iter().map(|(name, text)| (name.clone(), text.fill(values))).collect();
                let trigger = Trigger::Command;
                self.run(RunRequest { service, trigger, environment, results }).await.map(Yield::Run)
            }
            Step::Start(service) => {
                let service = self.service(service, values, Permission::Operate)?;
                self.runner.start(&service).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Stop(service) => {
                let service = self.service(service, values, Permission::Operate)?;
                self.runner.stop(&service).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Restart(service) => {
                let service = self.service(service, values, Permission::Restart)?;
                self.runner.restart(&service).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Publish { channel, message } => {
                let message = Value::Object(command(message)).to_string();
                self.bus.publish(channel, &message).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Reply { field, from } => Ok(Yield::Field(field.clone(), self.list(from).await?)),
            Step::Report(Report::Services) => Ok(Yield::Field("services".to_owned(), self.services())),
            Step::Wait(span) => tokio::select! {
                () = self.intake.cancelled() => Err(Fault::new("shutting down")),
                () = tokio::time::sleep(*span) => Ok(Yield::Nothing),
            },
            Step::Status { source, error } => self.status(source, error.fill(values)).await.map(|()| Yield::Nothing),
        }
    }

    /// The service that a step means.
    fn service(
        &self,
        target: &Target,
        values: &Map<String, Value>,
        permission: Permission,
    ) -> Result<ServiceName, Fault> {
        let param = match target {
            // Who wrote the configuration permitted it.
            Target::Fixed(service) => return Ok(service.clone()),
            Target::Param(param) => param,
        };
        let service: ServiceName = match values.get(param) {
            None | Some(Value::Null) => return Err(Fault::refused(format!("parameter `{param}` is missing"))),
            Some(Value::String(text)) => {
                text.parse().map_err(|error| Fault::refused(format!("parameter `{param}`: {error}")))?
            }
            Some(_) => return Err(Fault::refused(format!("parameter `{param}` is not a text"))),
        };
        let allowed = (self.allowed)();
        let permitted = match permission {
            Permission::Operate => &allowed.operate,
            Permission::Restart => &allowed.restart,
        };
        // A service may be named as the schedule names it.
        let service = match self.schedule.iter().find(|(_, scheduled)| scheduled.key == service.as_str()) {
            Some((named, _)) if !self.runner.services().contains(&service) => named.clone(),
            _ => service,
        };
        if permitted.contains(&service) {
            return Ok(service);
        }
        let known = self.runner.services().contains(&service);
        Err(Fault::refused(if known {
            format!("service {service} is not allowed here")
        } else {
            format!("no such service: {service}")
        }))
    }

    async fn run(&self, request: RunRequest) -> Result<RunReport, Fault> {
        match self.runner.run(request).await {
            Ok(report) if report.outcome.is_success() => Ok(report),
            Ok(report) => Err(Fault { error: failure(&report), data: told(&report), refused: false }),
            Err(error) => {
                let mut fault = Fault::of(&error);
                if let RunError::Busy { run_id: Some(run_id), .. } = &error {
                    fault.data.insert("run_id".to_owned(), json!(run_id));
                }
                Err(fault)
            }
        }
    }

    async fn list(&self, key: &str) -> Result<Value, Fault> {
        let found = self.bus.get(&[key.to_owned()]).await.map_err(|error| Fault::of(&error))?;
        let Some(text) = found.into_iter().flatten().next() else {
            return Err(Fault::new(format!("the run left no result at {key}")));
        };
        if text.len() > LONGEST_LIST {
            return Err(Fault::new(format!("the result at {key} is longer than {LONGEST_LIST} bytes")));
        }
        match serde_json::from_str(&text) {
            Ok(Value::Array(list)) => Ok(Value::Array(list)),
            Ok(_) | Err(_) => Err(Fault::new(format!("the result at {key} is not a JSON list"))),
        }
    }

    async fn status(&self, source: &SourceId, error: String) -> Result<(), Fault> {
        let key = status_key(source);
        let found = self.bus.get(std::slice::from_ref(&key)).await.map_err(|error| Fault::of(&error))?;
        let earlier = found.into_iter().flatten().next().and_then(|text| SourceStatus::parse(&text));
        let earlier = earlier.filter(|status| status.source_id == *source);
        let status = earlier.unwrap_or_else(|| SourceStatus::new(source.clone()));
        let status = SourceStatus { last_error: Some(error), ..status };
        let json = serde_json::to_string(&status).unwrap_or_default();
        self.bus.set(&key, &json, Some(STATUS_TTL)).await.map_err(|error| Fault::of(&error))
    }

    fn services(&self) -> Value {
        let records = self.runner.records();
        let intervals = Arc::clone(&self.intervals.borrow());
        let services = self.runner.services().into_iter().map(|service| {
            let record = records.get(&service);
            let every = intervals.get(&service).copied().flatten().map(|every| every.as_duration().as_secs_f64());
            let state = json!({
                "every": every,
                "paused": intervals.get(&service).is_some_and(Option::is_none),
                "running": self.runner.running(&service),
                "runs": record.map_or(0, |record| record.runs),
                "failures": record.map_or(0, |record| record.failures),
                "last_success": record.and_then(|record| record.last_success_at),
                "last_run": record.and_then(|record| record.last.as_ref()),
            });
            (service.into(), state)
        });
        Value::Object(services.collect())
    }
}

/// What a step adds to the reply.
enum Yield {
    Nothing,
    Run(RunReport),
    Field(String, Value),
}

fn result_key(step: &Step) -> Option<String> {
    match step {
        Step::Reply { from, .. } => Some(from.clone()),
        Step::Run { .. }
        | Step::Start(_)
        | Step::Stop(_)
        | Step::Restart(_)
        | Step::Publish { .. }
        | Step::Report(_)
        | Step::Wait(_)
        | Step::Status { .. } => None,
    }
}

/// A message with what every command has.
fn command(message: &Map<String, Value>) -> Map<String, Value> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = Timestamp::now();
    let id = format!("orchestrator-{:.6}-{}", now.0, COUNT.fetch_add(1, Ordering::Relaxed));
    let mut command = message.clone();
    command.entry("request_id").or_insert_with(|| Value::from(id));
    command.entry("params").or_insert_with(|| Value::Object(Map::new()));
    command.entry("timestamp").or_insert_with(|| json!(now));
    command
}

fn told(report: &RunReport) -> Map<String, Value> {
    let duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
    let mut data = Map::new();
    data.insert("run_id".to_owned(), json!(report.run_id));
    data.insert("exit_code".to_owned(), json!(report.exit_code));
    data.insert("duration_ms".to_owned(), json!(duration_ms));
    if !report.outcome.is_success() {
        data.insert("outcome".to_owned(), json!(report.outcome));
        data.insert("tail".to_owned(), Value::from(last_lines(&report.tail)));
    }
    data
}

fn failure(report: &RunReport) -> String {
    let service = &report.service;
    match (&report.error, report.outcome) {
        (Some(error), _) => format!("run of {service}: {error}"),
        (None, Outcome::Cancelled) => format!("run of {service} was stopped by the shutdown"),
        (None, outcome) => format!("run of {service} {}", outcome.as_str()),
    }
}

fn last_lines(tail: &str) -> String {
    let skip = tail.lines().count().saturating_sub(TAIL_LINES);
    let lines: Vec<&str> = tail.lines().skip(skip).collect();
    let text = lines.join("\n");
    let start = (text.len().saturating_sub(TAIL_BYTES)..=text.len()).find(|at| text.is_char_boundary(*at));
    start.and_then(|start| text.get(start..)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_its_last_lines_and_no_more_than_fits() {
        let lines: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(last_lines(&lines.join("\n")), lines[30..].join("\n"));
        assert_eq!(last_lines(""), "");
        assert!(last_lines(&"ä".repeat(10_000)).len() <= TAIL_BYTES);
    }

    #[test]
    fn a_command_of_ours_has_a_fresh_request_id() {
        let message = Map::from_iter([("action".to_owned(), json!("stop"))]);
        let (one, other) = (command(&message), command(&message));
        assert_eq!(one["action"], "stop");
        assert_eq!(one["params"], json!({}));
        assert!(one["timestamp"].is_f64());
        assert_ne!(one["request_id"], other["request_id"]);
        assert!(one["request_id"].as_str().unwrap().parse::<crate::names::RequestId>().is_ok());
    }
}
