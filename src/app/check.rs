//! `check`: whether the settings and the project hold together, and what would run when.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::commands::{NEWEST, print};
use super::references::{self, Finding};
use super::{Failed, compose_options, dialect, engine, health, project, runner_options};
use crate::backend::compose::ComposeBackend;
use crate::bus::redis::RedisBus;
use crate::cli;
use crate::compose::project::Project;
use crate::engine::Engine as _;
use crate::engine::docker::Docker;
use crate::ledger::{Ledger, Limits};
use crate::names::ServiceName;
use crate::observer::Events;
use crate::observer::status::Tally;
use crate::projects::Projects;
use crate::report::Chain;
use crate::runner::{History, Runner, RunnerStages};
use crate::settings::{Reading, Settings, Sources};
use crate::spec::{self, SpecError, SpecOptions};

type ReadOnlyRunner = Runner<ComposeBackend<Docker>, Option<RedisBus>>;

/// What is wrong, by how bad it is.
#[derive(Default)]
struct Faults {
    /// What cannot be read or used: exit code 78.
    configuration: Vec<String>,
    /// What names nothing or cannot work: an error with `--strict`.
    findings: Vec<Finding>,
}

/// Loads everything and says what would run when, what the Engine would be told for it, and all that is wrong.
///
/// A stage that is wrong keeps no later one from being looked at, as far as it can be.
pub(super) async fn check(sources: &Sources, options: cli::Check) -> Result<(), Failed> {
    let Reading { settings, errors, origins } = Settings::read(sources);
    let mut faults = Faults::default();
    // Without a file that says where the project is, another one would be looked at.
    let located = !errors.iter().any(|error| error.key.is_empty() || error.key.starts_with("compose"));
    faults.configuration.extend(errors.iter().map(ToString::to_string));
    if let Some(settings) = settings.filter(|_| located) {
        for warning in &settings.warnings {
            print(&format!("warning: {warning}"))?;
        }
        let engine = Arc::new(engine(&settings.docker));
        let located = project::locate_now(&settings.compose, engine.as_ref()).await;
        let dialect = dialect(&settings.compose, located.deployed_by);
        match Projects::open(located.options) {
            Err(errors) => faults.configuration.push(errors.to_string()),
            Ok(projects) => {
                let projects = Arc::new(projects);
                let model = projects.current();
                faults.findings = references::findings(&settings, &origins, &model);
                let backend = compose_options(&settings.docker, dialect);
                let backend = ComposeBackend::new(Arc::clone(&engine), Arc::clone(&projects), backend);
                let runner = read_only_runner(&settings, backend, projects);
                let text = look(&settings, &runner, &engine, dialect, &mut faults).await;
                print(text.trim_end())?;
            }
        }
    }
    faults.end(options.strict)
}

impl Faults {
    fn end(self, strict: bool) -> Result<(), Failed> {
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        if !strict {
            for finding in &findings {
                print(&format!("warning: {finding}"))?;
            }
        }
        let all = |mut lines: Vec<String>| {
            if strict {
                lines.extend(findings.iter().cloned());
            }
            lines.join("\n")
        };
        match (self.configuration.is_empty(), findings.is_empty() || !strict) {
            (true, true) => Ok(()),
            (true, false) => Err(Failed::Other(anyhow!(all(Vec::new())))),
            (false, _) => Err(Failed::Configuration(all(self.configuration))),
        }
    }

    fn find(&mut self, projects: &Projects, path: &[&str], what: &str) {
        let place = projects.current().place(path).map(|place| place.to_string());
        let finding = Finding { place, what: projects.redact(what) };
        // A service is looked at again with each that depends on it.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// What would run when, as text; what is wrong with it goes to `faults`.
async fn look(
    settings: &Settings,
    runner: &ReadOnlyRunner,
    engine: &Docker,
    dialect: spec::Dialect,
    faults: &mut Faults,
) -> String {
    let projects = runner.projects();
    let known = projects.current();
    let reachable = runner.ping().await;
    let api = if reachable.is_ok() { engine.version().await.ok().map(|version| version.api) } else { None };
    let mut text = String::new();
    let _ = writeln!(text, "project {}", projects.name());
    for file in known.files() {
        let _ = writeln!(text, "file {file}");
    }
    let intervals = settings.intervals();
    for name in references::named_services(settings) {
        let every = intervals.get(name);
        if !known.services().any(|(other, _)| other == name) {
            if every.is_some() {
                let _ = writeln!(text, "{name}: not in the Compose file, skipped");
            }
            continue;
        }
        let selected = match projects.select(name, settings.service(name).profile) {
            Ok(selected) => selected,
            Err(errors) => {
                faults.configuration.push(errors.to_string());
                continue;
            }
        };
        let options = SpecOptions::new(api.unwrap_or(NEWEST), dialect);
        refused_keys(projects, &selected, &options, faults);
        if api.is_some() {
            missing_images(projects, &selected, engine, faults).await;
        }
        if let Some(every) = every {
            let limit = humantime::format_duration(settings.service(name).timeout);
            let when = every.map_or_else(|| "on command only".to_owned(), |every| format!("every {every}"));
            let needs: Vec<&str> = selected.services.keys().filter(|other| *other != name).map(AsRef::as_ref).collect();
            let after = if needs.is_empty() { String::new() } else { format!(", after {}", needs.join(", ")) };
            let _ = writeln!(text, "{name}: {when}, at most {limit}{after}");
            if reachable.is_ok() {
                print_plan(runner, name, &mut text).await;
            }
        }
    }
    if let Err(failure) = reachable {
        let _ = writeln!(text, "warning: what a run would do is not known: {}", Chain(&failure));
    }
    if let Ok(Some((pid, intervals))) = health::intervals(settings, projects.name()).await {
        let _ = writeln!(text, "in force in the running daemon (pid {pid}):");
        for (name, every) in intervals {
            let every = every.map_or_else(|| "paused".to_owned(), |every| format!("every {every}"));
            let _ = writeln!(text, "  {name}: {every}");
        }
    }
    text
}

/// Keys of the services that no container can be made of.
fn refused_keys(projects: &Projects, selected: &Project, options: &SpecOptions, faults: &mut Faults) {
    for name in selected.services.keys() {
        let mut options = options.clone();
        match projects.client_files(selected, name) {
            Ok(files) => options.client_files = files,
            Err(failure) => {
                faults.find(projects, &["services", name.as_str()], &format!("service {name}: {}", Chain(&failure)));
                continue;
            }
        }
        match spec::service_container(selected, name, 1, None, &options) {
            // What it shares with another service's container is known only once that is there.
            Ok(_) | Err(SpecError::PeerMissing { .. }) => {}
            Err(error) => {
                let key = match &error {
                    SpecError::Unsupported { key, .. } | SpecError::InvalidValue { key, .. } => *key,
                    _ => "",
                };
                let mut what = Chain(&error).to_string();
                if !what.contains(name.as_str()) {
                    what = format!("service {name}: {what}");
                }
                let path: Vec<&str> = ["services", name.as_str()].into_iter().chain(key.split('.')).collect();
                faults.find(projects, &path, &what);
            }
        }
    }
}

/// Images of the services that the Engine does not have: a run would pull them, where it can.
async fn missing_images(projects: &Projects, selected: &Project, engine: &Docker, faults: &mut Faults) {
    for (name, service) in &selected.services {
        let image = spec::image_name(selected, name, service);
        if let Ok(None) = engine.image(&image).await {
            let key = if service.image.is_empty() { "build" } else { "image" };
            faults.find(projects, &["services", name.as_str(), key], &format!("service {name}: no image {image}"));
        }
    }
}

/// A runner that is only asked what it would do.
fn read_only_runner(settings: &Settings, backend: ComposeBackend<Docker>, projects: Arc<Projects>) -> ReadOnlyRunner {
    let (intake, abort) = (CancellationToken::new(), CancellationToken::new());
    let stages = RunnerStages { intake, abort, work: TaskTracker::new() };
    Runner::new(Arc::new(backend), Arc::new(None), projects, runner_options(settings), stages, history())
}

/// No history: what does not run has none.
fn history() -> History {
    let limits = Limits { records: 0, age: Duration::ZERO, bytes: 0 };
    History { events: Events::default(), ledger: Ledger::in_memory(limits), tally: Tally::default() }
}

/// The calls of a run of the service with their causes, one a line.
async fn print_plan(runner: &ReadOnlyRunner, service: &ServiceName, text: &mut String) {
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
            let _ = writeln!(text, "  would fail: {}", runner.projects().redact(&Chain(&failure).to_string()));
        }
    }
}
