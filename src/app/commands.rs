//! The subcommands that look and print: `check`, `render`, `config`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failed, compose_options, dialect, engine, project, runner_options};
use crate::backend::compose::ComposeBackend;
use crate::bus::redis::RedisBus;
use crate::cli;
use crate::compose::{self, LoadErrors};
use crate::engine::docker::{ClientConfig, Docker};
use crate::engine::{ApiVersion, Engine as _};
use crate::ledger::{Ledger, Limits};
use crate::names::ServiceName;
use crate::observer::Events;
use crate::observer::status::Tally;
use crate::plan::Stack;
use crate::projects::Projects;
use crate::report::Chain;
use crate::runner::{History, Runner, RunnerStages};
use crate::settings::Settings;
use crate::spec::render::Rendered;
use crate::spec::{self, OneOff, Slug, SpecOptions, labels};
use crate::text;

/// The newest API version that we know of, for bodies that no Engine is asked about.
const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 51 };

/// Prints lines to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text::lines(text)).context("cannot write to standard output")
}

/// Prints a JSON text to standard output.
pub(super) fn print_json(json: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text::json(json)).context("cannot write to standard output")
}

fn configuration(errors: &LoadErrors) -> Failed {
    Failed::Configuration(errors.to_string())
}

/// Loads everything and says what would run when, and what the Engine would be told for it.
pub(super) async fn check(settings: &Settings) -> Result<(), Failed> {
    let engine = Arc::new(engine(&settings.docker));
    let located = project::locate_now(&settings.compose, engine.as_ref()).await;
    let runner = read_only_runner(settings, &engine, located)?;
    let projects = runner.projects();
    let known = projects.current();
    let reachable = runner.ping().await;
    for warning in &settings.warnings {
        print(&format!("warning: {warning}"))?;
    }
    let mut text = String::new();
    let mut faults = Vec::new();
    let _ = writeln!(text, "project {}", projects.name());
    for (service, every) in settings.intervals() {
        let own = settings.service(&service);
        let limit = humantime::format_duration(own.timeout);
        let when = match every {
            None => "on command only".to_owned(),
            Some(every) => format!("every {every}"),
        };
        if !known.services().any(|(name, _)| *name == service) {
            let _ = writeln!(text, "{service}: not in the Compose file, skipped");
            continue;
        }
        match projects.select(&service, own.profile) {
            Ok(selected) => {
                let needs: Vec<&str> =
                    selected.services.keys().filter(|name| **name != service).map(AsRef::as_ref).collect();
                let after = if needs.is_empty() { String::new() } else { format!(", after {}", needs.join(", ")) };
                let _ = writeln!(text, "{service}: {when}, at most {limit}{after}");
                if reachable.is_ok() {
                    print_plan(&runner, &service, &mut text).await;
                }
            }
            Err(errors) => faults.push(errors.to_string()),
        }
    }
    if let Err(failure) = reachable {
        let _ = writeln!(text, "warning: what a run would do is not known: {}", Chain(&failure));
    }
    print(text.trim_end())?;
    if faults.is_empty() { Ok(()) } else { Err(Failed::Configuration(faults.join("\n"))) }
}

/// A runner that is only asked what it would do.
fn read_only_runner(
    settings: &Settings,
    engine: &Arc<Docker>,
    located: project::Located,
) -> Result<Runner<ComposeBackend<Docker>, Option<RedisBus>>, Failed> {
    let projects = Arc::new(Projects::open(located.options).map_err(|errors| configuration(&errors))?);
    let bus = Arc::new(super::bus(settings).context("Redis address")?);
    let (intake, abort) = (CancellationToken::new(), CancellationToken::new());
    let stages = RunnerStages { intake, abort, work: TaskTracker::new() };
    let options = compose_options(&settings.docker, dialect(&settings.compose, located.deployed_by));
    let backend = ComposeBackend::new(Arc::clone(engine), Arc::clone(&projects), options);
    Ok(Runner::new(Arc::new(backend), bus, projects, runner_options(settings), stages, history()))
}

/// The calls of a run of the service with their causes, one a line.
async fn print_plan(
    runner: &Runner<ComposeBackend<Docker>, Option<RedisBus>>,
    service: &ServiceName,
    text: &mut String,
) {
    match runner.dry_run(service).await {
        Ok(plan) => {
            for warning in &plan.warnings {
                let _ = writeln!(text, "  warning: {warning}");
            }
            for difference in &plan.left {
                let _ = writeln!(text, "  left as it is: {difference}; {} applies it", difference.remedy());
            }
            for line in plan.to_string().lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        Err(failure) => {
            let _ = writeln!(text, "  would fail: {}", Chain(&failure));
        }
    }
}

/// Prints what the Engine would be sent for a service.
pub(super) async fn render(settings: &Settings, render: &cli::Render) -> Result<(), Failed> {
    let located = project::locate_now(&settings.compose, &engine(&settings.docker)).await;
    let dialect = dialect(&settings.compose, located.deployed_by);
    let projects = Projects::open(located.options).map_err(|errors| configuration(&errors))?;
    let name = &render.service;
    let selected = projects.select(name, settings.service(name).profile).map_err(|errors| configuration(&errors))?;
    let engine = engine(&settings.docker);
    let api = match render.api_version {
        Some(version) => version,
        None if render.offline => NEWEST,
        None => engine.version().await.context("the engine's version is needed, or --api-version")?.api,
    };
    let mut options = SpecOptions::new(api, dialect);
    options.proxies = ClientConfig::load(settings.docker.config.as_deref()).proxies(&settings.docker.host.to_string());
    options.client_files = projects.client_files(&selected, name).map_err(|failure| Failed::Other(failure.into()))?;
    if !render.offline
        && let Some(service) = selected.services.get(name)
    {
        let reference = spec::image_name(&selected, name, service);
        let image = engine.image(&reference).await.context("the image's id is needed, or --offline")?;
        options.image_id = image.and_then(|image| image.id);
        let wanted = [format!("{}={}", labels::PROJECT, selected.name), labels::CONFIG_HASH.to_owned()];
        let containers =
            engine.containers(&wanted).await.context("the project's containers are needed, or --offline")?;
        options.peers = Stack::of(&containers).peers();
    }
    let container = if render.one_off {
        let slug = Slug::new(crate::runner::random(), &selected.name, name);
        let environment = render.environment.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        let one_off = OneOff { slug, environment };
        spec::one_off(&selected, name, &one_off, &options)
    } else {
        spec::service_container(&selected, name, 1, None, &options)
    };
    let rendered = container.and_then(|container| Rendered::new(&selected, container, &options));
    let json = rendered.context("the service cannot be run")?.to_json().context("the service has no JSON form")?;
    print_json(&serde_json::to_string_pretty(&json).context("the service has no JSON form")?)?;
    Ok(())
}

/// Prints the project as it was understood.
pub(super) async fn config(settings: &Settings, config: &cli::Config) -> Result<(), Failed> {
    let located = project::locate_now(&settings.compose, &engine(&settings.docker)).await;
    let dialect = dialect(&settings.compose, located.deployed_by);
    let projects = Projects::open(located.options).map_err(|errors| configuration(&errors))?;
    if config.services || !config.hash.is_empty() {
        // Compose hashes what the file says: env files are not merged into it.
        let project = projects.select_all_without_env_files().map_err(|errors| configuration(&errors))?;
        for (name, service) in &project.services {
            if config.services {
                print(name.as_str())?;
            } else if config.hash.iter().any(|wanted| wanted == "*" || wanted == name.as_str()) {
                let hash = spec::hash::service(service, dialect).context("the service has no hash")?;
                print(&format!("{name} {hash}"))?;
            }
        }
        return Ok(());
    }
    let project = projects.select_all().map_err(|errors| configuration(&errors))?;
    print_json(&compose::print::config_json(&project).context("the project has no JSON form")?)?;
    Ok(())
}

/// No history: what does not run has none.
fn history() -> History {
    let limits = Limits { records: 0, age: Duration::ZERO, bytes: 0 };
    History { events: Events::default(), ledger: Ledger::in_memory(limits), tally: Tally::default() }
}
