//! Where the Compose project is: as the settings say, else as our own container's labels say, else where we stand.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::RETRY;
use super::own_container::{self, OwnContainer};
use crate::compose::Options;
use crate::engine::Engine;
use crate::memory::MemoryBounds;
use crate::names::ServiceName;
use crate::report::Chain;
use crate::settings;
use crate::spec::Dialect;

/// Where the project is, and who deployed us.
#[derive(Debug, Clone, Default)]
pub(super) struct Located {
    pub(super) options: Options,
    /// The Compose version that made our container.
    pub(super) deployed_by: Option<Dialect>,
    /// Our own service: it is never restarted by a command.
    pub(super) own_service: Option<ServiceName>,
}

/// Finds the project. Waits for the Engine where our own container has to be asked.
pub(super) async fn locate(settings: &settings::Compose, engine: &impl Engine) -> Located {
    let own = match own_container::id() {
        Some(id) => asked(engine, &id).await,
        None => None,
    };
    located(settings, own, &here(settings))
}

/// As [`locate`], but does not wait: what the Engine does not say at once is not known.
pub(super) async fn locate_now(settings: &settings::Compose, engine: &impl Engine) -> Located {
    let own = match own_container::id() {
        Some(id) => own_container::inspect(engine, &id).await.ok().flatten(),
        None => None,
    };
    located(settings, own, &here(settings))
}

/// Where we stand, by the name that the shell has for it: behind a symbolic link the project is called, and its paths
/// are, as the link says. The root where it is gone.
///
/// Source: Go's `os.Getwd`, which Compose asks.
fn here(settings: &settings::Compose) -> PathBuf {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|folder| (folder.dev(), folder.ino()));
    let actual = place(Path::new("."));
    let shell = settings.shell_directory.as_deref().filter(|shell| shell.is_absolute());
    let same = shell.filter(|shell| actual.is_some() && place(shell) == actual);
    same.map_or_else(|| std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")), Path::to_owned)
}

async fn asked(engine: &impl Engine, id: &str) -> Option<OwnContainer> {
    let mut told = false;
    loop {
        match own_container::inspect(engine, id).await {
            Ok(Some(own)) => {
                info!(container = id, project = own.project, service = own.service, "running in a container");
                return Some(own);
            }
            Ok(None) => {
                debug!(container = id, "our container belongs to another engine");
                return None;
            }
            Err(error) if !told => {
                told = true;
                warn!(error = %Chain(&error), "engine not there yet, trying on");
            }
            Err(error) => debug!(error = %Chain(&error), "engine not there yet"),
        }
        sleep(RETRY).await;
    }
}

/// What `${…}` sees before `.env`: what the settings say, and where the project is on the host.
///
/// Of a shell's variables those two are the ones that files count on. In a container `HOME` is not the host's.
fn environment(settings: &settings::Compose, own: Option<&OwnContainer>, here: &Path) -> BTreeMap<String, String> {
    let mut variables = settings.environment.0.clone();
    let directory = own.map_or(Some(here), |own| own.working_dir.as_deref());
    if let Some(directory) = directory {
        variables.entry("PWD".to_owned()).or_insert_with(|| directory.to_string_lossy().into_owned());
    }
    if let (None, Some(home)) = (own, &settings.home) {
        variables.entry("HOME".to_owned()).or_insert_with(|| home.clone());
    }
    variables
}

fn located(settings: &settings::Compose, own: Option<OwnContainer>, here: &Path) -> Located {
    let absolute = |path: &Path| here.join(path);
    let environment = environment(settings, own.as_ref(), here);
    let own = own.unwrap_or_default();
    let mut options = Options {
        working_dir: here.to_path_buf(),
        project_directory: settings.project_directory.as_deref().map(absolute),
        files: settings.files.iter().map(|path| absolute(path)).collect(),
        env_files: settings.env_files.iter().map(|path| absolute(path)).collect(),
        project_name: settings.project_name.as_ref().map(ToString::to_string).or_else(|| own.project.clone()),
        profiles: settings.profiles.clone(),
        environment,
        host_paths: own.mounts.iter().filter(|(path, host)| path != host).cloned().collect(),
        limit: MemoryBounds::of_process().load,
    };
    if options.files.is_empty() && !own.config_files.is_empty() {
        options.files = own.config_files.iter().map(|file| own.to_own_path(file)).collect();
        if options.project_directory.is_none() {
            options.project_directory = own.working_dir.as_deref().map(|folder| own.to_own_path(folder));
        }
        if options.env_files.is_empty() {
            options.env_files = own.env_files.iter().map(|file| own.to_own_path(file)).collect();
        }
    }
    Located { options, deployed_by: own.version, own_service: own.service.and_then(|name| name.parse().ok()) }
}
