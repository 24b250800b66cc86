//! The subcommands that print what the project means: `render`, `config`.

use std::io::Write as _;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::{Failed, dialect, engine, project};
use crate::cli;
use crate::compose::{self, LoadErrors};
use crate::engine::docker::ClientConfig;
use crate::engine::{ApiVersion, Engine as _};
use crate::names::ServiceName;
use crate::plan::Stack;
use crate::projects::Projects;
use crate::settings::Settings;
use crate::spec::render::Rendered;
use crate::spec::{self, OneOff, Slug, SpecOptions, labels};
use crate::text;

/// The name that we are called by.
const PROGRAM: &str = "sense-orchestrator";

/// The newest API version that we know of, for bodies that no Engine is asked about.
pub(super) const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 51 };

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
        let all = config.services || config.hash.iter().any(|wanted| wanted == "*");
        let wanted = if all { Vec::new() } else { known(&projects, &config.hash)? };
        // Compose hashes what the file says: env files are not merged into it.
        let project = projects.select_without_env_files(&wanted).map_err(|errors| configuration(&errors))?;
        for (name, service) in project.services.iter().filter(|(name, _)| all || wanted.contains(name)) {
            if config.services {
                print(name.as_str())?;
            } else {
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

/// Prints a script for a shell.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::Cli::command(), PROGRAM, &mut script);
    Ok(write_out(&script)?)
}

/// Prints the manual page: one, with all commands.
pub(super) fn man() -> Result<(), Failed> {
    Ok(write_out(&manual(cli::Cli::command()).context("no manual page")?)?)
}

fn manual(program: clap::Command) -> std::io::Result<Vec<u8>> {
    let commands: Vec<clap::Command> = program.get_subcommands().cloned().collect();
    let whole = Man::new(program);
    let mut page = Vec::new();
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    for command in commands {
        let name = command.get_name().to_owned();
        let command = Man::new(command.bin_name(format!("{PROGRAM} {name}")));
        let mut section = Vec::new();
        command.render_synopsis_section(&mut section)?;
        command.render_description_section(&mut section)?;
        command.render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section).replace("\n.SH ", "\n.SS ").replacen(".SH ", ".SS ", 1);
        page.extend_from_slice(format!(".SH {}\n{section}", name.to_uppercase()).as_bytes());
    }
    whole.render_extra_section(&mut page)?;
    Ok(page)
}

fn write_out(text: &[u8]) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text).context("cannot write to standard output")
}

/// The services of those names; fails where the project lacks one.
fn known(projects: &Projects, wanted: &[String]) -> anyhow::Result<Vec<ServiceName>> {
    let model = projects.current();
    let find = |wanted: &String| model.services().map(|(name, _)| name).find(|name| name.as_str() == wanted).cloned();
    let unknown: Vec<&str> = wanted.iter().filter(|wanted| find(wanted).is_none()).map(String::as_str).collect();
    anyhow::ensure!(unknown.is_empty(), "no such service: {}", unknown.join(", "));
    Ok(wanted.iter().filter_map(find).collect())
}
