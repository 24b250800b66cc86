//! The project as its files say it now: looked at before each use, read again when one of them changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use crate::compose::project::Project;
use crate::compose::{self, FileKind, Files, LoadErrors, LoadLimit, MAX_FILE_BYTES, Model, Options};
use crate::file::{FileFault, FileReader, Stamp};
use crate::names::{ProjectName, ServiceName};
use crate::spec;

/// A file that a service refers to cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct FileError {
    /// Which.
    pub path: String,
    /// Why.
    #[source]
    pub source: FileFault,
}

/// Reads the files that a container's body quotes: seccomp profiles, of which the Engine's own has 12 kB.
const CLIENT_FILE: FileReader = FileReader::new(1 << 20);

/// Files of the disk, none larger than what a load may take.
#[derive(Debug, Clone, Copy)]
struct Disk {
    reader: FileReader,
}

impl Disk {
    fn new(limit: LoadLimit) -> Self {
        Self { reader: FileReader::new(limit.as_bytes().min(MAX_FILE_BYTES) as u64) }
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.reader.bytes(path).map_err(|error| error.fault.into())
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let kind = std::fs::metadata(path)?.file_type();
        Ok(if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_file() {
            FileKind::File
        } else {
            FileKind::Other
        })
    }
}

/// Reads files and remembers which, so that a change of any of them is seen: also of one that was not there.
#[derive(Debug)]
struct Watched {
    disk: Disk,
    seen: Mutex<BTreeMap<PathBuf, Option<Stamp>>>,
}

impl Watched {
    fn new(disk: Disk) -> Self {
        Self { disk, seen: Mutex::default() }
    }

    fn note(&self, path: &Path) {
        let stamp = Stamp::of(path);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_path_buf()).or_insert(stamp);
    }

    fn is_unchanged(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }
}

impl Files for Watched {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.note(path);
        self.disk.read(path)
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.note(path);
        self.disk.kind(path)
    }
}

struct Loaded {
    model: Arc<Model>,
    files: Arc<Watched>,
    /// What is wrong with the files as they are now, when `model` is from before that.
    broken: Option<String>,
}

/// The project's files, and the last project that they gave.
pub struct Projects {
    options: Options,
    loaded: Mutex<Loaded>,
}

fn load(options: &Options) -> (Arc<Watched>, Result<Model, LoadErrors>) {
    let files = Arc::new(Watched::new(Disk::new(options.limit)));
    // A project whose services do not hold together is as broken as one that cannot be read.
    let model = compose::load(files.as_ref(), options).and_then(|model| model.check(files.as_ref()).map(|()| model));
    (files, model)
}

impl Projects {
    /// Loads the project for the first time. Fails where there is none that could be kept.
    pub fn open(options: Options) -> Result<Self, LoadErrors> {
        let (files, model) = load(&options);
        let model = Arc::new(model?);
        warn_of(&model);
        Ok(Self { options, loaded: Mutex::new(Loaded { model, files, broken: None }) })
    }

    /// The project as its files say it now; while they are broken, as they said it last.
    pub fn current(&self) -> Arc<Model> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.files.is_unchanged() {
            return Arc::clone(&loaded.model);
        }
        let (files, model) = load(&self.options);
        loaded.files = files;
        match model {
            Ok(model) if model.name() != loaded.model.name() => {
                let (from, to) = (loaded.model.name(), model.name());
                let error = format!("the project's name changed from {from} to {to}: restart to follow");
                complain(&mut loaded.broken, error);
            }
            Ok(model) => {
                info!(project = %model.name(), "project loaded again");
                warn_of(&model);
                loaded.model = Arc::new(model);
                loaded.broken = None;
            }
            Err(errors) => complain(&mut loaded.broken, errors.to_string()),
        }
        Arc::clone(&loaded.model)
    }

    /// The project narrowed to a service and its dependencies, its env files read.
    ///
    /// A `profile` is enabled besides the active ones, as `--profile` does: a dependency may be in it.
    pub fn select(&self, service: &ServiceName, profile: Option<&str>) -> Result<Project, LoadErrors> {
        let model = self.current();
        let services = std::slice::from_ref(service);
        model.select_in(&self.unwatched(), services, profile)
    }

    /// All enabled services, as `docker compose config` prints them.
    pub fn select_all(&self) -> Result<Project, LoadErrors> {
        self.current().select(&self.unwatched(), &[]).map(Project::without_label_files)
    }

    /// The named services, without names all enabled ones, without their env files, as `docker compose config --hash` hashes
    /// them.
    pub fn select_without_env_files(&self, services: &[ServiceName]) -> Result<Project, LoadErrors> {
        self.current().select_for_stop(&self.unwatched(), services).map(Project::without_label_files)
    }

    /// The files that a service's container body quotes, by the path that the service gives.
    pub fn client_files(&self, project: &Project, name: &ServiceName) -> Result<BTreeMap<String, String>, FileError> {
        let mut contents = BTreeMap::new();
        let Some(service) = project.services.get(name) else { return Ok(contents) };
        for path in spec::files::referenced_files(project, service) {
            let content = CLIENT_FILE
                .text(&self.to_client_path(&path))
                .map_err(|error| FileError { path: path.clone(), source: error.fault })?;
            contents.insert(path, content);
        }
        Ok(contents)
    }

    /// As [`Projects::select`] for a stop: env files are not read, and so cannot be missing.
    pub fn select_for_stop(&self, service: &ServiceName) -> Result<Project, LoadErrors> {
        self.current().select_for_stop(&self.unwatched(), std::slice::from_ref(service))
    }

    /// Where we find a file that the Engine's host has at `path`.
    fn to_client_path(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let moved =
            self.options.host_paths.iter().find_map(|(client, host)| Some(client.join(path.strip_prefix(host).ok()?)));
        moved.unwrap_or_else(|| path.to_path_buf())
    }

    /// Reads what is read anew at each selection.
    fn unwatched(&self) -> Disk {
        Disk::new(self.options.limit)
    }

    /// The project's name, which stays as long as the daemon runs.
    pub fn name(&self) -> ProjectName {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).model.name().clone()
    }

    /// What is wrong with the files as they are now, while an earlier project is used.
    pub fn broken(&self) -> Option<String> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).broken.clone()
    }
}

fn complain(broken: &mut Option<String>, error: String) {
    if broken.as_deref() != Some(error.as_str()) {
        warn!(error, "project not loaded, the last good one stays in use");
        *broken = Some(error);
    }
}

fn warn_of(model: &Model) {
    for warning in model.warnings() {
        warn!(warning, "project loaded with a warning");
    }
}
