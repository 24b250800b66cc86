//! The subcommands that look and print: `check`, `render`, `config`.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context;

use super::{Failed, dialect, engine, project};
use crate::cli;
use crate::compose::LoadErrors;
use crate::engine::{ApiVersion, Engine as _};
use crate::runner::{self, Projects};
use crate::settings::Settings;
use crate::spec::render::Rendered;
use crate::spec::{self, OneOff, Peers, Slug, SpecOptions};

/// The newest API version that we know of, for bodies that no Engine is asked about.
const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 51 };

/// Prints a line to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").context("cannot write to standard output")
}

fn configuration(errors: &LoadErrors) -> Failed {
    Failed::Configuration(errors.to_string())
}

/// Loads everything and says what would run when.
pub(super) async fn check(settings: &Settings) -> Result<(), Failed> {
    let located = project::locate_offline(&settings.compose).await;
    let projects = Projects::open(located.options).map_err(|errors| configuration(&errors))?;
    let known = projects.current();
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
        match projects.select(&service) {
            Ok(selected) => {
                let needs: Vec<&str> =
                    selected.services.keys().filter(|name| **name != service).map(AsRef::as_ref).collect();
                let after = if needs.is_empty() { String::new() } else { format!(", after {}", needs.join(", ")) };
                let _ = writeln!(text, "{service}: {when}, at most {limit}{after}");
            }
            Err(errors) => faults.push(errors.to_string()),
        }
    }
    print(text.trim_end())?;
    if faults.is_empty() { Ok(()) } else { Err(Failed::Configuration(faults.join("\n"))) }
}

/// Prints what the Engine would be sent for a service.
pub(super) async fn render(settings: &Settings, render: &cli::Render) -> Result<(), Failed> {
    let located = project::locate_offline(&settings.compose).await;
    let projects = Projects::open(located.options).map_err(|errors| configuration(&errors))?;
    let selected = projects.select(&render.service).map_err(|errors| configuration(&errors))?;
    let engine = engine(&settings.docker);
    let api = match render.api_version {
        Some(version) => version,
        None if render.offline => NEWEST,
        None => engine.version().await.context("the engine's version is needed, or --api-version")?.api,
    };
    let mut options = SpecOptions::new(api, dialect(&settings.compose, located.deployed_by));
    if !render.offline
        && let Some(service) = selected.services.get(&render.service)
    {
        let reference = spec::image_name(&selected, &render.service, service);
        let image = engine.image(&reference).await.context("the image's id is needed, or --offline")?;
        options.image_id = image.and_then(|image| image.id);
        let labels = [format!("{}={}", spec::labels::PROJECT, selected.name)];
        let containers =
            engine.containers(&labels).await.context("the project's containers are needed, or --offline")?;
        options.peers = Peers::of(&containers);
        for path in spec::files::referenced_files(&selected, service) {
            let content = std::fs::read_to_string(projects.to_client_path(&path));
            options.client_files.insert(path.clone(), content.with_context(|| format!("cannot read {path}"))?);
        }
    }
    let container = if render.one_off {
        let run = OneOff {
            slug: Slug::new(runner::random_bytes(), &selected.name, &render.service),
            environment: render.environment.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect(),
        };
        spec::one_off(&selected, &render.service, &run, &options)
    } else {
        spec::service_container(&selected, &render.service, 1, None, &options)
    };
    let rendered = container.and_then(|container| Rendered::new(&selected, container, &options));
    let json = rendered.context("the service cannot be run as its file says")?.to_json();
    Ok(print(&json.context("cannot write the body")?.to_string())?)
}

/// Prints the project as it was understood.
pub(super) async fn config(settings: &Settings, config: &cli::Config) -> Result<(), Failed> {
    let _ = (settings, config);
    Err(Failed::Other(anyhow::anyhow!("config needs compose::print")))
}
