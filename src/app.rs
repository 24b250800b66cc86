//! Puts the daemon together: settings to components, and the subcommands that are not the daemon.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backend::compose::ComposeOptions;
use crate::bus::redis::{AddressError, RedisBus};
use crate::cli::Command;
use crate::engine::docker::{ClientConfig, Docker, Host, TlsFiles};
use crate::event;
use crate::memory::MemoryBounds;
use crate::report::Chain;
use crate::runner::{RunnerOptions, ServiceOptions};
use crate::settings::{self, DockerHost, KeepOutput, Origins, Reading, Settings, SettingsWarning, Sources};
use crate::spec::Dialect;

mod ask;
mod check;
mod client;
mod commands;
mod components;
mod control;
mod daemon;
mod deployed;
mod health;
mod live;
mod memory;
mod own_container;
mod project;
mod references;
mod reload;
mod show;
mod signals;
mod standby;

pub use daemon::{Daemon, Running};
use standby::Others;

/// Pause between two tries of what the daemon cannot start without.
const RETRY: Duration = Duration::from_secs(2);

/// Our name in `status:{source}`.
const OWN_SOURCE: &str = "orchestrator";

/// Exit code of a configuration that cannot be used, as `sysexits.h` has it.
pub const EX_CONFIG: u8 = 78;

/// Exit code of a wrong command line, as clap has it.
const USAGE: u8 = 2;

/// Why the process ends with another code than 0.
#[derive(Debug)]
pub enum Failed {
    /// The configuration cannot be used: each fault on a line of its own.
    Configuration(String),
    /// The command line asks for what there is not.
    Usage(String),
    /// What was asked for ended so, as everybody was told already.
    Exit(u8),
    /// Something else went wrong.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Failed {
    /// Exit code: 78 for the configuration, 2 for the command line, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(EX_CONFIG),
            Self::Usage(_) => ExitCode::from(USAGE),
            Self::Exit(code) => ExitCode::from(*code),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// Does what the command line asks for.
///
/// # Errors
///
/// A configuration that cannot be used, or a command that failed.
pub async fn run(command: Command, sources: Sources, reading: Reading) -> Result<(), Failed> {
    let sound = |reading: Reading| reading.into_sound().map_err(|errors| Failed::Configuration(errors.to_string()));
    match command {
        Command::Daemon => {
            let (settings, origins) = sound(reading)?;
            let life = || Box::pin(daemon(sources.clone(), settings.clone(), origins.clone()));
            standby::serve(settings.daemon.standby, life).await
        }
        Command::Check(check) => check::check(&sources, check).await,
        Command::Render(render) => commands::render(&sound(reading)?.0, &render).await,
        Command::Config(config) => commands::config(&sound(reading)?.0, &config).await,
        Command::Completions { shell } => commands::completions(shell),
        Command::Man => commands::man(),
        // Who asks the daemon needs only the place of its socket. A bad edit of the settings must not make it look dead.
        command => {
            let settings = reading.into_usable().map_err(|errors| Failed::Configuration(errors.to_string()))?;
            Box::pin(client::carry_out(&settings, command)).await
        }
    }
}

/// The Engine's adapter as the settings describe it.
fn engine(settings: &settings::Docker) -> Docker {
    let host = match &settings.host {
        DockerHost::Unix(path) => Host::Unix(path.clone()),
        DockerHost::Tcp(address) => {
            let folder = settings.cert_path.as_ref().filter(|_| settings.tls_verify);
            let tls = folder.map(|folder| TlsFiles {
                ca: folder.join("ca.pem"),
                cert: folder.join("cert.pem"),
                key: folder.join("key.pem"),
            });
            Host::Tcp { address: address.clone(), tls }
        }
    };
    Docker::new(host, settings.config.clone(), MemoryBounds::of_process())
}

/// Redis' adapter, where there is a Redis.
fn bus(settings: &Settings) -> Result<Option<RedisBus>, AddressError> {
    let address = settings.redis.as_ref();
    address.map(|address| RedisBus::new(address, settings.redis_names.clone(), MemoryBounds::of_process())).transpose()
}

/// The Compose version to write as: the configured one, else the one that deployed us.
fn dialect(settings: &settings::Compose, deployed_by: Option<Dialect>) -> Dialect {
    settings.dialect.or(deployed_by).unwrap_or_default()
}

fn compose_options(settings: &settings::Docker, dialect: Dialect) -> ComposeOptions {
    let client = ClientConfig::load(settings.config.as_deref());
    let proxies = client.proxies(&settings.host.to_string());
    ComposeOptions { dialect, proxies, registry_config: client.registry_config() }
}

fn runner_options(settings: &Settings) -> RunnerOptions {
    let services = settings.services.keys().map(|name| {
        let service = settings.service(name);
        let options = ServiceOptions {
            limit: service.timeout,
            proof: service.status.filter(|_| service.check_output).cloned(),
            expects_readings: service.status.filter(|_| service.expects_readings).cloned(),
            environment: service.env.cloned().unwrap_or_default(),
            profile: service.profile.map(str::to_owned),
            recreate_dependencies: service.recreate_dependencies,
        };
        (name.clone(), options)
    });
    RunnerOptions {
        default: ServiceOptions {
            limit: settings.runs.timeout,
            proof: None,
            expects_readings: None,
            environment: BTreeMap::new(),
            profile: None,
            recreate_dependencies: false,
        },
        services: services.collect(),
        tail: settings.runs.tail,
        tail_of_success: settings.runs.keep_output == KeepOutput::All,
    }
}

async fn daemon(sources: Sources, settings: Settings, origins: Origins) -> Result<(), Failed> {
    info!(version = env!("CARGO_PKG_VERSION"), events = event::VERSION, preset = settings.preset, engine = %settings.docker.host, "starting");
    for warning in &settings.warnings {
        match warning {
            SettingsWarning::NoService { variable, nearest } => warn!(variable, nearest, "variable is no setting"),
            SettingsWarning::NoInterval { variable } => {
                warn!(variable, expected = "an interval of 1 s to 7 d, or 0", "variable does not parse, default used");
            }
        }
    }
    let mut signals = Box::pin(signals::ending().context("cannot listen for signals")?);
    let hangups = signals::reloading().context("cannot listen for signals")?;
    let meaningless = signals::meaningless().context("cannot listen for signals")?;
    let engine = Arc::new(engine(&settings.docker));
    let placed = async {
        let mut place = project::place(&settings.compose, engine.as_ref()).await;
        let _ = place.look(engine.as_ref()).await;
        place
    };
    let place = tokio::select! {
        biased;
        Some(signal) = futures::StreamExt::next(&mut signals) => {
            info!(signal, "stopped before the start was over");
            return Ok(());
        }
        place = placed => place,
    };
    let projects = Arc::new(place.open().map_err(|errors| Failed::Configuration(errors.to_string()))?);
    let located = place.located();
    let dialect = dialect(&settings.compose, located.deployed_by);
    let files = projects.in_use().files().join(", ");
    info!(project = %projects.name(), files, compose_version = %dialect, "project loaded");
    let memory = tokio::select! {
        biased;
        Some(signal) = futures::StreamExt::next(&mut signals) => {
            info!(signal, "stopped before the start was over");
            return Ok(());
        }
        opened = memory::open(&settings) => opened?,
    };

    let bus = bus(&settings).map_err(|error| Failed::Configuration(Chain(&error).to_string()))?;
    let bus = Arc::new(bus);
    let closing = CancellationToken::new();
    let mut connected = std::pin::pin!(async {
        match bus.as_ref() {
            Some(redis) => redis.run(closing.clone()).await,
            None => closing.cancelled().await,
        }
    });
    let redis_by = Instant::now() + components::REDIS_FIRST;
    let mut lease = standby::lease(Arc::clone(&engine), Arc::clone(&bus), projects.name(), &memory.holder);
    tokio::select! {
        biased;
        Some(signal) = futures::StreamExt::next(&mut signals) => {
            info!(signal, "stopped before the start was over");
            return Ok(());
        }
        held = standby::await_lease(&mut lease, bus.as_ref(), redis_by, settings.daemon.standby) => held?,
        () = connected.as_mut() => {}
    }
    let daemon = Daemon {
        redis_by,
        settings: settings.clone(),
        engine: Arc::clone(&engine),
        bus: Arc::clone(&bus),
        projects,
        compose: compose_options(&settings.docker, dialect),
        own_service: located.own_service,
        bounds: MemoryBounds::of_process(),
        ledger: memory.ledger.clone(),
    };
    let mut running = daemon.start().context("own source id")?;
    let intake = running.supervisor.stages().intake;
    let (live, events) = (Arc::clone(&running.live), running.runner.events().clone());
    let (reload, reloading) = reload::reload(sources, origins, (place, engine), live, events);
    running.supervisor.start("settings", reloading.run(hangups, intake.clone()));
    let asked = control::Daemon {
        settings,
        reload,
        jobs: running.jobs.clone(),
        runner: running.runner.clone(),
        bus: Arc::clone(&bus),
        intervals: running.intervals.clone(),
        ledger: memory.ledger.status(),
    };
    running.supervisor.start("control", asked.answer(intake.clone()));
    running.supervisor.start("signals", signals::ignore(meaningless, intake));

    let others = Others::default();
    // The lease and the connection outlive every component: runs go on until then, and the last replies go over it.
    let over = CancellationToken::new();
    let leased = async {
        standby::hold_lease(&mut lease, bus.as_ref(), &over, &others).await;
        closing.cancel();
    };
    let (ended, (), ()) = tokio::join!(running.run(others.signals(signals), &over), leased, connected);
    memory.ledger.sync().await;
    ended.context("the daemon ended").map_err(Failed::Other)?;
    others.yielded_to().map_or(Ok(()), |other| Err(Failed::Other(other.into())))
}
