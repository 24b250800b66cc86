//! Where the Compose project is: as the settings say, else as the labels of our own container and of newer ones say, else
//! where we stand.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::RETRY;
use super::deployed::{self, Chosen, Deployment};
use super::own_container::{self, DeployedFiles, OwnContainer};
use crate::compose::{LoadErrors, Options};
use crate::engine::Engine;
use crate::memory::MemoryBounds;
use crate::names::ServiceName;
use crate::projects::{self, Projects};
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

/// Where we stand: what tells where the project is, now and later.
pub(super) struct Place {
    settings: settings::Compose,
    here: PathBuf,
    /// The container that we run in.
    own: Option<OwnContainer>,
    deployment: Deployment,
}

/// Finds out where we stand. Waits for the Engine where our own container has to be asked for.
pub(super) async fn place(settings: &settings::Compose, engine: &impl Engine) -> Place {
    let own = match own_container::id() {
        Some(id) => asked(engine, &id).await,
        None => None,
    };
    Place::new(settings, own)
}

/// Finds the project. What the Engine does not say at once is not known.
pub(super) async fn locate_now(settings: &settings::Compose, engine: &impl Engine) -> Located {
    let own = match own_container::id() {
        Some(id) => own_container::inspect(engine, &id).await.ok().flatten(),
        None => None,
    };
    let mut place = Place::new(settings, own);
    let _ = place.look(engine).await;
    place.located()
}

/// How long the Engine may take to list the project's containers.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

impl Place {
    fn new(settings: &settings::Compose, own: Option<OwnContainer>) -> Self {
        let deployment = Deployment::new(own.as_ref().map(|own| own.files.clone()).unwrap_or_default());
        Self { settings: settings.clone(), here: here(settings), own, deployment }
    }

    /// Where the project is, by what is known.
    pub(super) fn located(&self) -> Located {
        let own = self.own.clone().unwrap_or_default();
        Located {
            options: self.options(&self.deployment.files),
            deployed_by: own.version,
            own_service: own.service.and_then(|name| name.parse().ok()),
        }
    }

    /// Loads the project. Where the files that count cannot be used, those of our own container are the last good ones.
    pub(super) fn open(&self) -> Result<Projects, LoadErrors> {
        let wanted = self.options(&self.deployment.files);
        match (Projects::open(wanted.clone()), &self.own) {
            (Err(_), Some(own)) if own.files != self.deployment.files => {
                let projects = Projects::open(self.options(&own.files))?;
                projects.follow(wanted);
                Ok(projects)
            }
            (opened, _) => opened,
        }
    }

    /// Looks whether the project was deployed with other files meanwhile; those that count from now on. Where the settings
    /// name files, and outside of a container of Compose, there is nothing to look at.
    pub(super) async fn look(&mut self, engine: &impl Engine) -> Option<Chosen> {
        let own = self.own.as_ref()?;
        let (project, service) = (own.project.as_deref()?, own.service.as_deref()?);
        if !self.settings.files.is_empty() {
            return None;
        }
        // An Engine that does not answer is asked again at the next look.
        let found = timeout(LOOK_LIMIT, deployed::containers(engine, project)).await.ok()?.ok()?;
        let counts = |files: &DeployedFiles| match projects::has_service(&self.options(files), service) {
            Some(has) => has,
            // Files that cannot be read are ours where one of them is: the project is broken then, and that is said.
            None => files.config_files.iter().any(|file| self.deployment.files.config_files.contains(file)),
        };
        let mut deployment = self.deployment.clone();
        let chosen = deployment.look(found, counts);
        self.deployment = deployment;
        chosen
    }

    fn options(&self, files: &DeployedFiles) -> Options {
        let Self { settings, here, own, .. } = self;
        let absolute = |path: &Path| here.join(path);
        let environment = environment(settings, own.as_ref().map(|_| files), here);
        let own = own.clone().unwrap_or_default();
        let mut options = Options {
            working_dir: here.clone(),
            project_directory: settings.project_directory.as_deref().map(absolute),
            files: settings.files.iter().map(|path| absolute(path)).collect(),
            env_files: settings.env_files.iter().map(|path| absolute(path)).collect(),
            project_name: settings.project_name.as_ref().map(ToString::to_string).or_else(|| own.project.clone()),
            profiles: settings.profiles.clone(),
            environment,
            host_paths: own.mounts.iter().filter(|(path, host)| path != host).cloned().collect(),
            limit: MemoryBounds::of_process().load,
        };
        if options.files.is_empty() && !files.config_files.is_empty() {
            options.files = files.config_files.iter().map(|file| own.to_own_path(file)).collect();
            if options.project_directory.is_none() {
                options.project_directory = files.working_dir.as_deref().map(|folder| own.to_own_path(folder));
            }
            if options.env_files.is_empty() {
                options.env_files = files.env_files.iter().map(|file| own.to_own_path(file)).collect();
            }
        }
        options
    }
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
fn environment(
    settings: &settings::Compose,
    deployed: Option<&DeployedFiles>,
    here: &Path,
) -> BTreeMap<String, String> {
    let mut variables = settings.environment.0.clone();
    let directory = deployed.map_or(Some(here), |files| files.working_dir.as_deref());
    if let Some(directory) = directory {
        variables.entry("PWD".to_owned()).or_insert_with(|| directory.to_string_lossy().into_owned());
    }
    if let (None, Some(home)) = (deployed, &settings.home) {
        variables.entry("HOME".to_owned()).or_insert_with(|| home.clone());
    }
    variables
}
