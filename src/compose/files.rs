//! Which files a project is read from, with which variables, and what it is called.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::budget::{Budget, LoadLimit};
use super::dotenv::{self, DotenvError, Position};
use super::error::{LoadError, LoadErrors};
use super::paths::{absolute, base_name, clean, parent};
use super::{FileKind, Files, Options};

/// Bytes of the largest file that is read.
pub const MAX_FILE_BYTES: usize = 10 << 20;

/// What a variable that is not set counts as.
const BLANK: &str = "Defaulting to a blank string.";

/// Warnings beyond which further ones are not kept.
const MAX_WARNINGS: usize = 200;

const MAIN_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDE_NAMES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// Opens files by their path in the project, bounded and checked.
pub(super) struct Opener<'a> {
    files: &'a dyn Files,
    host_paths: &'a [(PathBuf, PathBuf)],
    working_dir: String,
    budget: Budget,
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        files: &'a dyn Files,
        host_paths: &'a [(PathBuf, PathBuf)],
        working_dir: &Path,
        limit: LoadLimit,
    ) -> Self {
        let working_dir = clean(&working_dir.to_string_lossy());
        Self { files, host_paths, working_dir, budget: Budget::new(limit) }
    }

    /// What is left of the memory that this load may take.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Where we find a path that may be one of the host.
    fn local(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        for (client, host) in self.host_paths {
            if let Ok(rest) = path.strip_prefix(host)
                && !path.starts_with(client)
            {
                return client.join(rest);
            }
        }
        path.to_owned()
    }

    /// What is at a path.
    pub(super) fn kind(&self, path: &str) -> io::Result<FileKind> {
        self.files.kind(&self.local(path))
    }

    /// The text of a file, or the sentence that says why there is none.
    pub(super) fn text(&self, path: &str) -> Result<String, String> {
        utf8(path, self.bytes(path)?)
    }

    /// As [`Self::text`], where the file may also be UTF-16 with a byte order mark, as YAML may be.
    pub(super) fn yaml(&self, path: &str) -> Result<String, String> {
        let bytes = self.bytes(path)?;
        let word: fn([u8; 2]) -> u16 = match bytes.as_slice() {
            [0xFF, 0xFE, ..] => u16::from_le_bytes,
            [0xFE, 0xFF, ..] => u16::from_be_bytes,
            _ => return utf8(path, bytes),
        };
        let (pairs, rest) = bytes.as_chunks();
        let text = char::decode_utf16(pairs.iter().skip(1).map(|pair| word(*pair))).collect::<Result<String, _>>();
        text.ok()
            .filter(|_| rest.is_empty())
            .ok_or_else(|| format!("read {path}: is not the UTF-16 that its first bytes say"))
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        if path == "/dev/null" {
            return Ok(Vec::new());
        }
        match self.kind(path) {
            Ok(FileKind::File) => {}
            Ok(FileKind::Directory) => return Err(format!("read {path}: is a directory")),
            Ok(FileKind::Other) => return Err(format!("read {path}: is not a regular file")),
            Err(error) => return Err(unreadable(path, &error)),
        }
        let bytes = self.files.read(&self.local(path)).map_err(|error| unreadable(path, &error))?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(format!("read {path}: is larger than {} MiB", MAX_FILE_BYTES >> 20));
        }
        if bytes.len() > self.budget.left() {
            return Err(format!("read {path}: is larger than what is left of the memory that loading may take"));
        }
        Ok(bytes)
    }

    /// How a file is called in messages: from the directory we are in, where it is below it.
    pub(super) fn shown(&self, path: &str) -> Arc<str> {
        let rest = path.strip_prefix(self.working_dir.as_str()).and_then(|rest| rest.strip_prefix('/'));
        rest.unwrap_or(path).into()
    }

    /// Adds the variables of one env file to those of the files before it; returns the bytes that they take.
    pub(super) fn add_variables(
        &self,
        variables: &mut BTreeMap<String, String>,
        path: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
        warnings: &mut Vec<String>,
    ) -> Result<usize, LoadError> {
        let text = self.text(path).map_err(LoadError::new)?;
        let mut warn = |at: Position| {
            // Not by its name: with a `$` in it, a password reads like one.
            add_warning(format!("{}: a variable is not set. {BLANK}", at.place(self.shown(path))), warnings);
        };
        let most = self.budget.left().saturating_sub(text.len());
        let result = dotenv::parse_onto(variables, &text, lookup, &mut warn, most);
        result.map_err(|error| self.in_env_file(path, error))
    }

    /// A fault of an env file.
    pub(super) fn in_env_file(&self, path: &str, error: DotenvError) -> LoadError {
        LoadError::new(format!("failed to read {path}: {error}")).at(&error.at.place(self.shown(path)))
    }
}

fn utf8(path: &str, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1;
        format!("read {path}: line {line} is not UTF-8")
    })
}

fn unreadable(path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("open {path}: permission denied"),
        _ => format!("open {path}: {error}"),
    }
}

/// A project's files and variables, before any of them is parsed.
#[derive(Debug, Clone, Default)]
pub(super) struct Located {
    /// Absolute project directory.
    pub(super) directory: String,
    /// Absolute compose files, in the order in which they are merged.
    pub(super) compose_files: Vec<String>,
    /// Absolute env files, when they were given.
    pub(super) env_files: Vec<String>,
    /// The interpolation environment.
    pub(super) environment: BTreeMap<String, String>,
    /// The active profiles.
    pub(super) profiles: Vec<String>,
    /// A name that was given, by option or variable.
    pub(super) name: Option<String>,
}

/// Finds the files of a project as the command line of Compose does.
pub(super) fn locate(
    opener: &Opener<'_>,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Located, LoadErrors> {
    if options.files.iter().any(|file| file == Path::new("-")) {
        return Err(LoadError::new("a compose file cannot be read from standard input").into());
    }
    let cwd = opener.working_dir.clone();
    let from_cwd = |path: &Path| absolute(&cwd, &path.to_string_lossy());
    let mut search = Search {
        opener,
        cwd: cwd.clone(),
        project_directory: options.project_directory.as_deref().map(|path| clean(&from_cwd(path))),
        compose_files: options.files.iter().map(|path| from_cwd(path)).collect(),
        env_files: Vec::new(),
        environment: options.environment.clone(),
        process: options.environment.clone(),
    };
    let mut given: Vec<String> = options.env_files.iter().map(|path| from_cwd(path)).collect();
    if given.is_empty()
        && let Some(list) = options.environment.get("COMPOSE_ENV_FILES").filter(|list| !list.is_empty())
    {
        given = list.split(',').map(|path| absolute(&cwd, path)).collect();
    }
    search.settings_from_env_files(&given);
    search.environment.entry("PWD".to_owned()).or_insert_with(|| cwd.clone());
    search.read_env_files(&given, warnings)?;
    search.compose_files_from_variable()?;
    search.default_compose_files(warnings);
    search.read_env_files(&given, warnings)?;
    if search.compose_files.is_empty() {
        return Err(LoadError::new("no configuration file provided: not found").into());
    }
    let variable = |name: &str| search.environment.get(name).filter(|value| !value.is_empty());
    let profiles = if options.profiles.is_empty() {
        let list = variable("COMPOSE_PROFILES").map_or("", String::as_str);
        // No list is a list of one empty profile, which a service may have.
        list.split(',').map(|name| name.trim().to_owned()).collect()
    } else {
        options.profiles.clone()
    };
    let name = options.project_name.as_ref().filter(|name| !name.is_empty());
    Ok(Located {
        directory: search.directory(),
        name: name.or_else(|| variable("COMPOSE_PROJECT_NAME")).cloned(),
        profiles,
        env_files: given,
        compose_files: search.compose_files,
        environment: search.environment,
    })
}

struct Search<'a> {
    opener: &'a Opener<'a>,
    cwd: String,
    project_directory: Option<String>,
    compose_files: Vec<String>,
    env_files: Vec<String>,
    environment: BTreeMap<String, String>,
    /// The environment that was given, and the settings that env files add to it.
    process: BTreeMap<String, String>,
}

impl Search<'_> {
    fn directory(&self) -> String {
        match (&self.project_directory, self.compose_files.first()) {
            (Some(directory), _) => directory.clone(),
            (None, Some(file)) => parent(file),
            (None, None) => self.cwd.clone(),
        }
    }

    /// Chooses the env files for the directory known so far.
    fn choose_env_files(&mut self, given: &[String]) -> Result<(), LoadError> {
        if !given.is_empty() {
            self.env_files = given.to_vec();
            return Ok(());
        }
        if let Some(word) = self.process.get("COMPOSE_DISABLE_ENV_FILE") {
            match word.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => return Ok(()),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => {}
                _ => return Err(LoadError::new(format!("COMPOSE_DISABLE_ENV_FILE: {word:?} is not a boolean"))),
            }
        }
        let file = absolute(&self.directory(), ".env");
        if matches!(self.opener.kind(&file), Ok(FileKind::File | FileKind::Other)) {
            self.env_files = vec![file];
        }
        Ok(())
    }

    fn parse_env_files(&self, warnings: &mut Vec<String>) -> Result<BTreeMap<String, String>, LoadError> {
        env_from_files(self.opener, &self.env_files, &self.environment, warnings)
    }

    /// `COMPOSE_…` variables of the first env files count as settings. What is wrong with the files is said later.
    fn settings_from_env_files(&mut self, given: &[String]) {
        if self.choose_env_files(given).is_err() {
            return;
        }
        for (name, value) in self.parse_env_files(&mut Vec::new()).unwrap_or_default() {
            if name.starts_with("COMPOSE_") && !self.process.contains_key(&name) {
                self.process.insert(name.clone(), value.clone());
                self.environment.insert(name, value);
            }
        }
        self.env_files.clear();
    }

    fn read_env_files(&mut self, given: &[String], warnings: &mut Vec<String>) -> Result<(), LoadError> {
        self.choose_env_files(given)?;
        for (name, value) in self.parse_env_files(warnings)? {
            self.environment.entry(name).or_insert(value);
        }
        Ok(())
    }

    fn compose_files_from_variable(&mut self) -> Result<(), LoadErrors> {
        let Some(list) = self.environment.get("COMPOSE_FILE").filter(|_| self.compose_files.is_empty()) else {
            return Ok(());
        };
        let separator = self.environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let separator = separator.map_or(":", String::as_str);
        let mut errors = LoadErrors::default();
        let mut files = Vec::new();
        for file in list.split(separator) {
            let file = clean(&absolute(&self.cwd, file));
            if let Err(error) = self.opener.kind(&file) {
                errors.push(LoadError::new(format!("COMPOSE_FILE: {}", unreadable(&file, &error))));
            }
            files.push(file);
        }
        self.compose_files = files;
        errors.into_result(())
    }

    fn default_compose_files(&mut self, warnings: &mut Vec<String>) {
        if !self.compose_files.is_empty() {
            return;
        }
        let mut directory = self.directory();
        loop {
            let main = self.first_of(&MAIN_NAMES, &directory, warnings);
            if let Some(main) = main {
                self.compose_files.push(main);
                self.compose_files.extend(self.first_of(&OVERRIDE_NAMES, &directory, warnings));
                return;
            }
            let above = parent(&directory);
            if above == directory {
                return;
            }
            directory = above;
        }
    }

    fn first_of(&self, names: &[&str], directory: &str, warnings: &mut Vec<String>) -> Option<String> {
        let candidates = names.iter().map(|name| absolute(directory, name));
        let found: Vec<String> = candidates.filter(|file| self.opener.kind(file).is_ok()).collect();
        if found.len() > 1 {
            let all = found.join(", ");
            warnings.push(format!("Found multiple config files with supported names: {all}; using the first"));
        }
        found.into_iter().next()
    }
}

/// Notes that a variable is not set, once.
pub(super) fn warn_unset(name: &str, warnings: &mut Vec<String>) {
    add_warning(format!("The {name:?} variable is not set. {BLANK}"), warnings);
}

fn add_warning(warning: String, warnings: &mut Vec<String>) {
    if warnings.len() < MAX_WARNINGS && !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

/// Reads env files one after the other; a later one wins, and sees what was read before.
pub(super) fn env_from_files(
    opener: &Opener<'_>,
    files: &[String],
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, LoadError> {
    let mut variables = BTreeMap::new();
    for file in files {
        match opener.kind(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::new(format!("couldn't find env file: {file}")));
            }
            Ok(FileKind::Directory) => return Err(LoadError::new(format!("{file} is a directory"))),
            _ => {}
        }
        opener.add_variables(&mut variables, file, &|name| environment.get(name).cloned(), warnings)?;
    }
    Ok(variables)
}

/// The name of a project that was not given one: from its files, or else its directory.
pub(super) fn normalize_name(text: &str) -> String {
    let kept: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

/// The name that a project's directory gives it.
pub(super) fn name_of_directory(directory: &str) -> String {
    normalize_name(base_name(directory))
}
