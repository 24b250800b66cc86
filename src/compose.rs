//! Loads a Compose project exactly as `docker compose` does: a function of files, variables and options.
//!
//! | step | modules |
//! |---|---|
//! | which files, which variables, which name | `files`, [`dotenv`] |
//! | text to tree | [`yaml`], [`interpolate`] |
//! | one tree of many files | `loader`: `extends`, `include`, `merge`, `schema`, `canonical` |
//! | complete it | `defaults`, `paths`, `normalize` |
//! | tree to types | `decode`, [`project`], [`value`], [`shell`], `short` |
//! | what was asked for | `check`, `select` |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use self::budget::LoadLimit;
use self::decode::Decoded;
use self::files::{Located, Opener};
use self::key_path::{CONTAINER_ELEMENTS, KeyPath};
use self::loader::{LoadFile, Loader};
use self::places::Places;
use self::project::{Project, Service};
use self::select::{Checked, EnvFiles, Selection};
use self::yaml::{Kind, Node, Place};
use crate::names::{ProjectName, ServiceName};

mod budget;
mod canonical;
mod check;
mod decode;
mod defaults;
pub mod dotenv;
mod error;
mod extends;
mod files;
mod include;
pub mod interpolate;
pub mod jobs;
mod key_path;
mod loader;
mod merge;
mod normalize;
pub mod number;
mod paths;
mod places;
pub mod print;
pub mod project;
mod schema;
mod select;
pub mod shell;
pub mod short;
pub mod value;
pub mod yaml;

pub use self::error::{LoadError, LoadErrors};
pub use self::files::MAX_FILE_BYTES;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else, such as a FIFO or a device: it is not opened, but for `/dev/null`, which is empty.
    Other,
}

/// Reads files for the loader; what it read or missed is what a watcher has to look at.
pub trait Files {
    /// The content of a file. It may stop behind [`MAX_FILE_BYTES`] + 1 bytes: a larger file is refused.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// What is at a path, behind symbolic links.
    fn kind(&self, path: &Path) -> io::Result<FileKind>;
}

/// How a project is loaded: the global options of `docker compose`, and its environment.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Absolute directory in which we are: where the search for files starts.
    pub working_dir: PathBuf,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-f`, in order.
    pub files: Vec<PathBuf>,
    /// `--env-file`, in order.
    pub env_files: Vec<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--profile`; if empty, `COMPOSE_PROFILES` counts.
    pub profiles: Vec<String>,
    /// Plays the part of the process environment: it wins over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Prefixes of our paths with the host's in their place, for a daemon that sees the project elsewhere.
    pub host_paths: Vec<(PathBuf, PathBuf)>,
    /// What loading, and each selection of services, may take of the memory.
    pub limit: LoadLimit,
}

/// A whole project, before services are selected.
#[derive(Debug, Clone)]
pub struct Model {
    name: ProjectName,
    working_dir: String,
    config_files: Vec<String>,
    env_files: Vec<String>,
    environment: BTreeMap<String, String>,
    profiles: Vec<String>,
    decoded: Decoded,
    host_paths: Vec<(PathBuf, PathBuf)>,
    client_dir: PathBuf,
    warnings: Vec<String>,
    places: Places,
    limit: LoadLimit,
    checked: Checked,
}

/// Loads a project, with all its services whether enabled or not.
///
/// # Errors
///
/// Everything that is wrong with its files. Whether the enabled services hold together is for [`Model::select`] to say,
/// because it depends on the profiles.
pub fn load(files: &dyn Files, options: &Options) -> Result<Model, LoadErrors> {
    let opener = Opener::new(files, &options.host_paths, &options.working_dir, options.limit);
    let mut loader = Loader::new(&opener);
    let located = files::locate(&opener, options, &mut loader.warnings)?;
    // They are kept, and there twice more while files are read.
    if opener.budget().take(budget::variables(&located.environment).saturating_mul(3)).is_err() {
        let path = KeyPath::ROOT.key("environment");
        return Err(opener.budget().refusal(None, &path).map_or_else(LoadErrors::default, LoadErrors::from));
    }
    let base = paths::Base { directory: located.directory.clone(), home: located.environment.get("HOME").cloned() };
    let unnamed = loader.scope(base.clone(), located.directory.clone(), located.environment.clone());
    let stack: Vec<_> = located.compose_files.iter().map(|path| (path.clone(), None)).collect();
    let stack = loader.parse_all(&stack);
    let name = project_name(&mut loader, &located, &stack, &unnamed);
    let mut environment = located.environment;
    environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let scope = loader.scope(base, located.directory.clone(), environment.clone());
    let model = loader.model(stack, &scope, &[]);
    let mut errors = std::mem::take(&mut loader.errors);
    let Some(mut tree) = model else { return Err(errors.into_result(()).err().unwrap_or_default()) };
    if errors.is_empty() && tree.as_map().is_none_or(yaml::Map::is_empty) {
        errors.push(LoadError::new("empty compose file"));
    }
    let Ok(name) = name.parse::<ProjectName>() else {
        if errors.is_empty() {
            errors.push(LoadError::new("project name must not be empty"));
        }
        return Err(errors);
    };
    let mut errors = errors.into_result(LoadErrors::default())?;
    normalize::normalize(&mut tree, name.as_str(), &environment, &mut errors);
    for element in CONTAINER_ELEMENTS {
        let Some(services) = tree.as_map().and_then(|map| map.get(element)) else { continue };
        let Some(count) = services.as_map().map(yaml::Map::len) else { continue };
        loader.spend(count.saturating_mul(budget::SERVICE), &services.place, &KeyPath::ROOT.key(element));
        errors = std::mem::take(&mut loader.errors).into_result(errors)?;
    }
    let decoded = decode::decode(&tree, &mut errors);
    errors.into_result(Model {
        name,
        working_dir: located.directory,
        config_files: located.compose_files,
        env_files: located.env_files,
        environment,
        profiles: located.profiles,
        decoded,
        host_paths: options.host_paths.clone(),
        client_dir: options.working_dir.clone(),
        warnings: std::mem::take(&mut loader.warnings),
        places: Places::of(&tree),
        limit: options.limit,
        checked: Checked::default(),
    })
}

/// The project's name, or an empty text when nothing gives it one.
fn project_name(loader: &mut Loader<'_>, located: &Located, files: &[LoadFile], scope: &loader::Scope) -> String {
    if let Some(name) = &located.name {
        if *name != files::normalize_name(name) {
            loader.errors.push(LoadError::new(format!(
                "invalid project name {name:?}: must consist only of lowercase alphanumeric characters, hyphens, and \
                 underscores as well as start with a letter or number"
            )));
            return String::new();
        }
        return name.clone();
    }
    let mut names = files.iter().flat_map(|file| &file.documents).filter_map(|document| document.as_map()?.get("name"));
    let last = names.rfind(|name| matches!(&name.kind, Kind::Str(text) if !text.is_empty()));
    if let Some(node) = last {
        let mut map = yaml::Map::new();
        let place = node.place.clone();
        map.insert("name".to_owned(), place.clone(), node.clone());
        let mut document = Node::new(place, Kind::Map(map));
        loader.interpolate(&mut document, scope);
        let text = document.as_map().and_then(|map| map.get("name")).and_then(Node::as_str);
        return files::normalize_name(text.unwrap_or_default());
    }
    files::name_of_directory(&located.directory)
}

impl Model {
    /// The project's name.
    pub fn name(&self) -> &ProjectName {
        &self.name
    }

    /// All services and jobs, enabled or not.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &Service)> {
        self.decoded.services.iter()
    }

    /// Absolute project directory, as we see it.
    pub fn directory(&self) -> &str {
        &self.working_dir
    }

    /// Absolute compose files, as we see them.
    pub fn files(&self) -> &[String] {
        &self.config_files
    }

    /// The active profiles.
    pub fn profiles(&self) -> &[String] {
        &self.profiles
    }

    /// The variables that values were interpolated with.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// What loading noticed and Compose only warns of.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where a value stands, list items being steps such as `[0]`; for a value that was added by rule, where the deepest
    /// one around it stands.
    pub fn place(&self, path: &[&str]) -> Option<Place> {
        self.places.get(path)
    }
    /// The project that `docker compose … run|up SERVICE…` works on: enables the profiles of the named services, checks,
    /// keeps them and what they depend on, and reads their env files. Without names: all enabled services.
    ///
    /// # Errors
    ///
    /// What is inconsistent, missing or unreadable among them.
    pub fn select(&self, files: &dyn Files, services: &[ServiceName]) -> Result<Project, LoadErrors> {
        self.select_with(files, Selection { services, profile: None, env_files: EnvFiles::Read })
    }

    /// As [`Model::select`] with a further profile, as `--profile` beside the active ones.
    ///
    /// # Errors
    ///
    /// As [`Model::select`].
    pub fn select_in(
        &self,
        files: &dyn Files,
        services: &[ServiceName],
        profile: Option<&str>,
    ) -> Result<Project, LoadErrors> {
        self.select_with(files, Selection { services, profile, env_files: EnvFiles::Read })
    }

    /// The project that `docker compose stop SERVICE…` works on: as [`Model::select`], but no env file is read.
    ///
    /// # Errors
    ///
    /// What is inconsistent among them.
    pub fn select_for_stop(&self, files: &dyn Files, services: &[ServiceName]) -> Result<Project, LoadErrors> {
        self.select_with(files, Selection { services, profile: None, env_files: EnvFiles::Ignore })
    }

    /// Whether the services hold together that are enabled now, or else all of them, since a run may enable a profile.
    ///
    /// # Errors
    ///
    /// What is wrong with those that are enabled now, their label files included.
    pub fn check(&self, files: &dyn Files) -> Result<(), LoadErrors> {
        let check = |profiles: &[String]| {
            self.checked.holds_together(self, profiles)?;
            select::label_files(self, &self.opener(files), profiles)
        };
        check(&self.profiles).or_else(|errors| check(&["*".to_owned()]).map_err(|_| errors))
    }

    fn opener<'a>(&'a self, files: &'a dyn Files) -> Opener<'a> {
        Opener::new(files, &self.host_paths, &self.client_dir, self.limit)
    }

    fn select_with(&self, files: &dyn Files, selection: Selection<'_>) -> Result<Project, LoadErrors> {
        select::select(self, &self.opener(files), selection)
    }
}
