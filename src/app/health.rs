//! Whether the running daemon is well: what it answers over the control socket, and the subcommand that asks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::control::Daemon;
use super::{Failed, ask};
use crate::backend::Backend;
use crate::bus::{Bus, Connection};
use crate::control::{Answer, Greeting, Health, Request};
use crate::names::{ProjectName, ServiceName};
use crate::report::Chain;
use crate::runner::Runner;
use crate::schedule::Interval;
use crate::settings::Settings;

/// How long an answer may take: less than the limit of the image's health check, 15 s, so that Docker keeps what is said.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the Engine may take to answer: less than that, so that it is named.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);

impl<K: Backend, B: Bus> Daemon<K, B> {
    /// How the daemon is.
    pub(super) async fn health(&self, asked: &Greeting) -> Health {
        let engine = match timeout(ENGINE_LIMIT, self.runner.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(Chain(&failure).to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let redis = match &*self.bus.connection().borrow() {
            Connection::Up { .. } => self.bus.refusals().borrow().first().cloned(),
            Connection::Off => None,
            Connection::Untried => Some("not connected yet".to_owned()),
            Connection::Down { reason, .. } => Some(reason.clone()),
        };
        let problems = problems(&self.runner);
        let project = self.runner.broken_project();
        let well = engine.is_none() && redis.is_none() && problems.is_empty();
        let said = |fault: Option<String>| fault.unwrap_or_else(|| "ok".to_owned());
        let (engine, redis, project) = (said(engine), said(redis), said(project));
        let settings = said(self.reload.broken());
        let ledger = self.ledger.borrow().to_string();
        let (project_name, pid) = (asked.project_name.clone(), asked.pid);
        Health { well, engine, redis, project, ledger, settings, problems, project_name, pid }
    }
}

/// What makes the daemon unwell besides a lost connection.
fn problems<K: Backend, B: Bus>(runner: &Runner<K, B>) -> Vec<String> {
    let overrun = runner.overrun().into_iter();
    overrun.map(|(service, run_id)| format!("run {run_id} of {service} goes on past its limit")).collect()
}

/// Asks the running daemon, prints what it says, and fails unless it is well.
pub(super) async fn ask(settings: &Settings) -> Result<(), Failed> {
    let answer =
        timeout(LIMIT, ask::first_line(settings, Request::Health)).await.context("the daemon does not answer")??;
    let Answer::Health(health) = answer else {
        return Err(Failed::Other(anyhow::anyhow!("the daemon answered something else")));
    };
    super::commands::print_json(&serde_json::to_string(&health).context("the answer has no JSON form")?)?;
    if health.well { Ok(()) } else { Err(Failed::Other(anyhow::anyhow!("the daemon is not well"))) }
}

/// The intervals in force in the daemon of `project`, with its process; none where no daemon answers.
pub(super) async fn intervals(
    settings: &Settings,
    project: ProjectName,
) -> anyhow::Result<Option<(u32, BTreeMap<ServiceName, Option<Interval>>)>> {
    let Ok(mut daemon) = ask::connect(settings, None, Some(project)).await else { return Ok(None) };
    daemon.ask(Request::Intervals).await?;
    let Some(Answer::Intervals(seconds)) = timeout(LIMIT, daemon.next()).await?? else { return Ok(None) };
    let interval = |seconds: Option<u64>| Interval::try_from(Duration::from_secs(seconds?)).ok();
    let intervals = seconds.into_iter().map(|(service, seconds)| (service, interval(seconds)));
    Ok(Some((daemon.greeting.pid, intervals.collect())))
}
