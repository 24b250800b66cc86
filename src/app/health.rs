//! Whether the running daemon is well: what it answers over the control socket, and the subcommand that asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{Failed, engine, own_container, project};
use crate::backend::Backend;
use crate::bus::{Bus, Connection};
use crate::control::client::{self, Meant};
use crate::control::place::Bound;
use crate::control::{Answer, Greeting, Health, Request, VERSION, server};
use crate::ledger::StoreStatus;
use crate::names::{ProjectName, ServiceName};
use crate::projects::Projects;
use crate::report::Chain;
use crate::runner::Runner;
use crate::schedule::{Interval, Intervals};
use crate::settings::Settings;

/// How long an answer may take: less than the limit of the image's health check, 15 s, so that Docker keeps what is said.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the Engine may take to answer: less than that, so that it is named.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);

/// What is told beside what the runner and the bus know.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) ledger: watch::Receiver<StoreStatus>,
    pub(super) intervals: watch::Receiver<Arc<Intervals>>,
}

/// Answers on the control socket until the intake closes.
pub(super) async fn answer<K: Backend, B: Bus>(
    settings: Settings,
    runner: Runner<K, B>,
    bus: Arc<B>,
    watched: Watched,
    intake: CancellationToken,
) {
    let greeting = Greeting {
        version: VERSION,
        project_name: runner.projects().name(),
        engine: settings.docker.host.to_string(),
        pid: std::process::id(),
    };
    if let Err(error) = serve(&settings, greeting, runner, bus, watched, intake.clone()).await {
        error!(error = %Chain(&error), "no control socket, health cannot be asked for");
        intake.cancelled().await;
    }
}

async fn serve<K: Backend, B: Bus>(
    settings: &Settings,
    greeting: Greeting,
    runner: Runner<K, B>,
    bus: Arc<B>,
    watched: Watched,
    intake: CancellationToken,
) -> std::io::Result<()> {
    let own_uid = server::own_uid()?;
    let mut random = [0; 8];
    random.iter_mut().zip(crate::runner::random()).for_each(|(byte, from)| *byte = from);
    let places = &settings.control.places;
    let socket = Bound::new(places, greeting.project_name.as_str(), &greeting.engine, own_uid, random).await?;
    debug!(%socket, "control socket");
    let asked = greeting.clone();
    let answer = move |request| match request {
        Request::Health => {
            let (runner, bus, watched, asked) = (runner.clone(), Arc::clone(&bus), watched.clone(), asked.clone());
            stream::once(async move { Answer::Health(look(&runner, bus.as_ref(), &watched, asked).await) }).boxed()
        }
        Request::Intervals => {
            let intervals = Arc::clone(&watched.intervals.borrow());
            let seconds = |every: &Interval| every.as_duration().as_secs();
            let all = intervals.iter().map(|(service, every)| (service.clone(), every.as_ref().map(seconds)));
            let answer = Answer::Intervals(all.collect());
            stream::once(async { answer }).boxed()
        }
    };
    server::run(socket, greeting, own_uid, answer, intake).await
}

async fn look<K: Backend, B: Bus>(runner: &Runner<K, B>, bus: &B, watched: &Watched, asked: Greeting) -> Health {
    let engine = match timeout(ENGINE_LIMIT, runner.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(Chain(&failure).to_string()),
        Err(_) => Some("no answer in time".to_owned()),
    };
    let redis = match &*bus.connection().borrow() {
        Connection::Up { .. } => bus.refusals().borrow().first().cloned(),
        Connection::Off => None,
        Connection::Untried => Some("not connected yet".to_owned()),
        Connection::Down { reason, .. } => Some(reason.clone()),
    };
    let problems = problems(runner);
    let project = runner.broken_project();
    let well = engine.is_none() && redis.is_none() && problems.is_empty();
    let said = |fault: Option<String>| fault.unwrap_or_else(|| "ok".to_owned());
    let (engine, redis, project) = (said(engine), said(redis), said(project));
    let ledger = watched.ledger.borrow().to_string();
    Health { well, engine, redis, project, ledger, problems, project_name: asked.project_name, pid: asked.pid }
}

/// What makes the daemon unwell besides a lost connection.
fn problems<K: Backend, B: Bus>(runner: &Runner<K, B>) -> Vec<String> {
    let overrun = runner.overrun().into_iter();
    overrun.map(|(service, run_id)| format!("run {run_id} of {service} goes on past its limit")).collect()
}

/// Asks the running daemon, prints what it says, and fails unless it is well.
pub(super) async fn ask(settings: &Settings) -> Result<(), Failed> {
    let answer = timeout(LIMIT, asked(settings, Request::Health)).await.context("the daemon does not answer")??;
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
    let in_container = own_container::id().is_some();
    let meant = Meant { named: None, implied: Some(project), engine: settings.docker.host.to_string(), in_container };
    let own_uid = server::own_uid().context("cannot find out who we are")?;
    let Ok(mut daemon) = client::Connection::open(&settings.control.places, &meant, own_uid).await else {
        return Ok(None);
    };
    daemon.ask(Request::Intervals).await?;
    let Some(Answer::Intervals(seconds)) = timeout(LIMIT, daemon.next()).await?? else { return Ok(None) };
    let interval = |seconds: Option<u64>| Interval::try_from(Duration::from_secs(seconds?)).ok();
    let intervals = seconds.into_iter().map(|(service, seconds)| (service, interval(seconds)));
    Ok(Some((daemon.greeting.pid, intervals.collect())))
}

/// The first line of the answer of the daemon that is meant.
async fn asked(settings: &Settings, request: Request) -> anyhow::Result<Answer> {
    let in_container = own_container::id().is_some();
    let named = settings.compose.project_name.clone();
    let implied = if in_container || named.is_some() { None } else { implied(settings).await };
    let meant = Meant { named, implied, engine: settings.docker.host.to_string(), in_container };
    let own_uid = server::own_uid().context("cannot find out who we are")?;
    let mut daemon = client::Connection::open(&settings.control.places, &meant, own_uid).await?;
    daemon.ask(request).await?;
    daemon.next().await?.context("the daemon closed the connection")
}

/// The project that we stand in, where there is one that can be read.
async fn implied(settings: &Settings) -> Option<ProjectName> {
    let located = project::locate_now(&settings.compose, &engine(&settings.docker)).await;
    Projects::open(located.options).ok().map(|projects| projects.name())
}
