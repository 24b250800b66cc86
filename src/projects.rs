//! The project as its files say it now: looked at before each use, read again when one of them changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::warn;

use crate::compose::project::Project;
use crate::compose::{self, FileKind, Files, LoadErrors, LoadLimit, MAX_FILE_BYTES, Model, Options};
use crate::event::Event;
use crate::file::{FileFault, FileReader, Stamp};
use crate::names::{ProjectName, ServiceName};
use crate::observer::Events;
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
    options: Options,
    model: Arc<Model>,
    files: Arc<Watched>,
    /// What is wrong with the files as they are now, when `model` is from before that.
    broken: Option<String>,
}

/// The project's files, and the last project that they gave.
pub struct Projects {
    limit: LoadLimit,
    host_paths: Vec<(PathBuf, PathBuf)>,
    loaded: Mutex<Loaded>,
    events: OnceLock<Events>,
}

impl Loaded {
    /// The project, and what became of its files since the last look.
    fn look(&mut self) -> (Arc<Model>, Option<Event>) {
        let news = if self.files.is_unchanged() { None } else { self.load_again() };
        (Arc::clone(&self.model), news)
    }

    fn load_again(&mut self) -> Option<Event> {
        let (files, model) = load(&self.options);
        self.files = files;
        let error = match model {
            Ok(model) if model.name() != self.model.name() => {
                let (from, to) = (self.model.name(), model.name());
                format!("the project's name changed from {from} to {to}: restart to follow")
            }
            Ok(model) => {
                warn_of(&model);
                let project = model.name().clone();
                self.model = Arc::new(model);
                self.broken = None;
                return Some(Event::ProjectChanged { project });
            }
            Err(errors) => errors.to_string(),
        };
        let known = self.broken.replace(error.clone());
        (known.as_ref() != Some(&error)).then_some(Event::ProjectBroken { error })
    }
}

fn load(options: &Options) -> (Arc<Watched>, Result<Model, LoadErrors>) {
    let files = Arc::new(Watched::new(Disk::new(options.limit)));
    // A project whose services do not hold together is as broken as one that cannot be read.
    let model = compose::load(files.as_ref(), options).and_then(|model| model.check(files.as_ref()).map(|()| model));
    (files, model)
}

/// Whether a project has a service, enabled or not; none where it cannot be loaded.
pub fn has_service(options: &Options, service: &str) -> Option<bool> {
    load(options).1.ok().map(|model| model.services().any(|(name, _)| name.as_str() == service))
}

impl Projects {
    /// Loads the project for the first time. Fails where there is none that could be kept.
    pub fn open(options: Options) -> Result<Self, LoadErrors> {
        let (files, model) = load(&options);
        let model = Arc::new(model?);
        warn_of(&model);
        let (limit, host_paths) = (options.limit, options.host_paths.clone());
        let loaded = Mutex::new(Loaded { options, model, files, broken: None });
        Ok(Self { limit, host_paths, loaded, events: OnceLock::new() })
    }

    /// From now on it is said here what becomes of the files; what is wrong with them already, at once. Only the first call
    /// counts.
    pub fn observed_by(&self, events: Events) {
        let error = self.broken();
        if self.events.set(events).is_ok() {
            self.tell(error.map(|error| Event::ProjectBroken { error }));
        }
    }

    /// Goes by other files from now on. While they are broken, the project stays as it was said last.
    pub fn follow(&self, options: Options) {
        let mut loaded = self.loaded();
        loaded.options = options;
        let news = loaded.load_again();
        drop(loaded);
        self.tell(news);
    }

    /// The project as its files say it now; while they are broken, as they said it last.
    pub fn current(&self) -> Arc<Model> {
        let (model, news) = self.loaded().look();
        self.tell(news);
        model
    }

    fn tell(&self, news: Option<Event>) {
        if let Some((news, events)) = news.zip(self.events.get()) {
            events.emit(&news);
        }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The project as it was looked at last.
    pub fn in_use(&self) -> Arc<Model> {
        Arc::clone(&self.loaded().model)
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
        let moved = self.host_paths.iter().find_map(|(client, host)| Some(client.join(path.strip_prefix(host).ok()?)));
        moved.unwrap_or_else(|| path.to_path_buf())
    }

    /// Reads what is read anew at each selection.
    fn unwatched(&self) -> Disk {
        Disk::new(self.limit)
    }

    /// A text that quotes the project, such as an error, without what variables hold.
    pub fn redact(&self, text: &str) -> String {
        let model = Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner).model);
        model.redact(text)
    }

    /// The project's name, which stays as long as the daemon runs.
    pub fn name(&self) -> ProjectName {
        self.loaded().model.name().clone()
    }

    /// What is wrong with the files as they are now, while an earlier project is used.
    pub fn broken(&self) -> Option<String> {
        self.loaded().broken.clone()
    }
}

fn warn_of(model: &Model) {
    for warning in model.warnings() {
        warn!(warning, "project loaded with a warning");
    }
}
