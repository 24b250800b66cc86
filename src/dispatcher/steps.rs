//! Carries out the steps of actions and reactions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::fault::Fault;
use super::result_turns::ResultTurns;
use super::run_reply::{failure, reply_data};
use crate::action::permission::NotAllowed;
use crate::action::{Action, Reaction, Report, Step, Target};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::jobs::Jobs;
use crate::message::{SourceStatus, status_key};
use crate::names::{RequestId, ServiceName, SourceId};
use crate::report::{Chain, RunReport, Trigger};
use crate::runner::{OperateError, RunError, RunRequest, Runner};

/// Life of a status that the daemon writes for a source, as the sources' own.
const STATUS_TTL: Duration = Duration::from_mins(2);

/// Longest list that a reply passes on, in bytes.
const LONGEST_LIST: usize = 256 * 1024;

/// What steps are carried out with.
pub(super) struct Steps<K, B> {
    pub(super) bus: Arc<B>,
    pub(super) runner: Runner<K, B>,
    pub(super) options: watch::Receiver<Arc<Options>>,
    pub(super) jobs: Jobs<K, B>,
    pub(super) intake: CancellationToken,
    pub(super) results: ResultTurns,
}

impl<K: Backend, B: Bus> Steps<K, B> {
    /// The options as they are now.
    pub(super) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.borrow())
    }

    /// Carries out an action and returns the `data` of its reply.
    pub(super) async fn action(
        &self,
        action: &Action,
        params: &Map<String, Value>,
        request_id: Option<&RequestId>,
    ) -> Result<Map<String, Value>, Fault> {
        let results: BTreeSet<String> = action.steps().iter().filter_map(result_key).collect();
        let listed = !results.is_empty();
        let (_turn, waited) = self.turn_for_results(action, params, &results).await?;
        // What is read later must have been written by this action. A run deletes it itself, once no other is in its way.
        let mut stale: Vec<String> = results.into_iter().collect();
        if !action.steps().iter().any(|step| matches!(step, Step::Run { .. })) {
            self.bus.delete(&std::mem::take(&mut stale)).await.map_err(|error| Fault::of(&error))?;
        }
        let mut data = Map::new();
        for step in action.steps() {
            let results = if matches!(step, Step::Run { .. }) { std::mem::take(&mut stale) } else { Vec::new() };
            let prepared = Prepared { results, waited, request_id };
            match self.step(step, params, prepared).await? {
                // Where a list is the result, it is the whole of it.
                Yield::Run(report) if !listed => data.extend(reply_data(&report)),
                Yield::Run(_) | Yield::Nothing => {}
                Yield::Fields(fields) => data.extend(fields),
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
        let mut started_since = false;
        for step in reaction.steps() {
            match step {
                Step::Stop(service) => {
                    let service = self.operated(service, payload)?;
                    let stopped = self.runner.stop_started_before(&service, event).await;
                    started_since |= !stopped.map_err(|error| Fault::of(&error))?;
                }
                // It would be told of a service that runs again.
                Step::Status { source, .. } if started_since => tracing::debug!(%source, "status left as it is"),
                step => drop(self.step(step, payload, Prepared::default()).await?),
            }
        }
        Ok(())
    }

    /// Waits until no other action is to read the same results, at most as long as its run would wait for its turn; returns
    /// the turn, and the time that this took. Else the other's run would end, and its result be deleted before it is read.
    async fn turn_for_results(
        &self,
        action: &Action,
        params: &Map<String, Value>,
        results: &BTreeSet<String>,
    ) -> Result<(Vec<OwnedMutexGuard<()>>, Duration), Fault> {
        let begun = Instant::now();
        let run = action.steps().iter().find_map(|step| {
            if let Step::Run { service, wait_for_turn, .. } = step { Some((service, *wait_for_turn)) } else { None }
        });
        let Some((service, wait)) = run else { return Ok((Vec::new(), Duration::ZERO)) };
        let Ok(turn) = timeout(wait, self.results.turn(results)).await else {
            let service = self.operated(service, params)?;
            let run_id = self.runner.running(&service);
            let container = run_id.as_ref().map_or_else(|| "another run".to_owned(), |run| format!("run {run}"));
            return Err(Fault::not_begun(&RunError::Busy { service, run_id, container }));
        };
        Ok((turn, begun.elapsed()))
    }

    /// Carries out one step.
    async fn step(&self, step: &Step, values: &Map<String, Value>, prepared: Prepared<'_>) -> Result<Yield, Fault> {
        match step {
            Step::Run { service, env, wait_for_turn } => {
                let service = self.operated(service, values)?;
                let environment = env.iter().map(|(name, text)| (name.clone(), text.fill(values))).collect();
                let request = RunRequest {
                    request_id: prepared.request_id.cloned(),
                    environment,
                    results: prepared.results,
                    wait_for_turn: wait_for_turn.saturating_sub(prepared.waited),
                    ..RunRequest::new(service, Trigger::Command)
                };
                self.run(request).await.map(Yield::Run)
            }
            Step::Start(service) => {
                let service = self.operated(service, values)?;
                self.runner.start(&service).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Stop(service) => {
                let service = self.operated(service, values)?;
                self.runner.stop(&service).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Restart(service) => self.restart(service, values).await.map(|()| Yield::Nothing),
            Step::CancelStart(service) => {
                self.runner.cancel_starts(&self.operated(service, values)?);
                Ok(Yield::Nothing)
            }
            Step::Publish { channel, message } => {
                let message = Value::Object(command(message)).to_string();
                self.bus.publish(channel, &message).await.map_err(|error| Fault::of(&error))?;
                Ok(Yield::Nothing)
            }
            Step::Reply { field, from } => Ok(Yield::Fields(Map::from_iter([(field.clone(), self.list(from).await?)]))),
            Step::Report(Report::Services) => Ok(Yield::Fields(self.jobs.status())),
            Step::Job(verb, job) => {
                let job = self.operated(job, values)?;
                self.jobs
                    .carry_out(*verb, &job)
                    .await
                    .map(Yield::Fields)
                    .map_err(|error| Fault::refused(Chain(&error).to_string()))
            }
            Step::Wait(span) => tokio::select! {
                biased;
                () = self.intake.cancelled() => Err(Fault::new("shutting down")),
                () = tokio::time::sleep(*span) => Ok(Yield::Nothing),
            },
            Step::Status { source, error } => self.status(source, error.fill(values)).await.map(|()| Yield::Nothing),
        }
    }

    /// The service that a step may run, start and stop.
    fn operated(&self, target: &Target, values: &Map<String, Value>) -> Result<ServiceName, Fault> {
        let service = self.named(target, values)?;
        match self.may_operate(target, &service) {
            Ok(()) => Ok(service),
            Err(why) => Err(Fault::refused(format!("service {service} is not allowed: {why}"))),
        }
    }

    fn may_operate(&self, target: &Target, service: &ServiceName) -> Result<(), NotAllowed> {
        let options = self.options();
        let permissions = &options.services.permissions;
        match target {
            // Who wrote the settings permitted it.
            Target::Fixed(_) => permissions.by_settings(service),
            Target::Param(_) => {
                let profiles = self.runner.profiles();
                permissions.operate(service, profiles.get(service).map_or(&[], Vec::as_slice))
            }
        }
    }

    /// Restarts a service; one that may not be started only with the containers that it has.
    async fn restart(&self, target: &Target, values: &Map<String, Value>) -> Result<(), Fault> {
        let service = self.named(target, values)?;
        let Err(why) = self.may_operate(target, &service) else {
            return self.runner.restart(&service).await.map_err(|error| Fault::of(&error));
        };
        if let Err(why) = self.options().services.permissions.restart(&service) {
            return Err(Fault::refused(format!("service {service} is not allowed: {why}")));
        }
        match self.runner.restart_existing(&service).await {
            Err(OperateError::NoContainer(_)) => {
                let error = format!("service {service} has no container to restart, and may not be started: {why}");
                Err(Fault::refused(error))
            }
            restarted => restarted.map_err(|error| Fault::of(&error)),
        }
    }

    /// The service that a step means.
    fn named(&self, target: &Target, values: &Map<String, Value>) -> Result<ServiceName, Fault> {
        let param = match target {
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
        let project = self.runner.projects().current();
        let known = |service: &ServiceName| project.services().any(|(name, _)| name == service);
        if known(&service) {
            return Ok(service);
        }
        // A service may be named as the schedule names it.
        let named =
            self.options().services.of(&project).into_iter().find(|(_, scheduled)| scheduled.key == service.as_str());
        match named {
            Some((named, _)) if known(&named) => Ok(named),
            Some(_) | None => Err(Fault::refused(format!("no such service: {service}"))),
        }
    }

    async fn run(&self, request: RunRequest) -> Result<RunReport, Fault> {
        match self.runner.run(request).await {
            Ok(report) if report.outcome.is_success() => Ok(report),
            Ok(report) => Err(Fault { error: failure(&report), data: reply_data(&report), refused: false }),
            Err(error) => Err(Fault::not_begun(&error)),
        }
    }

    pub(super) async fn list(&self, key: &str) -> Result<Value, Fault> {
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

    /// Writes the status of a source that has ended: what it said of itself before does not hold any more.
    async fn status(&self, source: &SourceId, error: String) -> Result<(), Fault> {
        let status = SourceStatus { last_error: Some(error), ..SourceStatus::new(source.clone()) };
        let json = serde_json::to_string(&status).unwrap_or_default();
        self.bus.set(&status_key(source), &json, Some(STATUS_TTL)).await.map_err(|error| Fault::of(&error))
    }
}

/// What a run of an action is given by what came before it.
#[derive(Default)]
struct Prepared<'a> {
    /// What it is to write.
    results: Vec<String>,
    /// For how long the action has waited for its turn already.
    waited: Duration,
    /// The command that asks for it.
    request_id: Option<&'a RequestId>,
}

/// What a step adds to the reply.
enum Yield {
    Nothing,
    Run(RunReport),
    Fields(Map<String, Value>),
}

fn result_key(step: &Step) -> Option<String> {
    match step {
        Step::Reply { from, .. } => Some(from.clone()),
        Step::Run { .. }
        | Step::Start(_)
        | Step::Stop(_)
        | Step::Restart(_)
        | Step::CancelStart(_)
        | Step::Publish { .. }
        | Step::Report(_)
        | Step::Job(..)
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

#[cfg(test)]
mod tests {
    use super::*;

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
