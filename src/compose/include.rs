//! `include`: models of other files, each with its own directory and variables, copied into the including one.

use super::FileKind;
use super::budget;
use super::error::LoadError;
use super::files::env_from_files;
use super::key_path::KeyPath;
use super::loader::{Loader, Scope};
use super::paths::{self, absolute, clean, parent};
use super::yaml::{Entry, Kind, Map, Node, Place};

/// Sections that an included model brings.
const SECTIONS: [&str; 7] = ["services", "jobs", "volumes", "networks", "secrets", "configs", "models"];

/// Files that include each other in one chain.
const MAX_DEPTH: usize = 50;

/// Whether a path names something that Compose would fetch from elsewhere.
pub(super) fn is_remote(path: &str) -> bool {
    path.contains("://") || path.starts_with("git@") || path.starts_with("github.com/")
}

/// One entry of `include`.
struct Include {
    paths: Vec<(String, Place)>,
    directory: Option<String>,
    env_files: Vec<(String, Place)>,
    place: Place,
}

impl Loader<'_> {
    /// Loads what a document includes and copies it in.
    pub(super) fn apply_include(&mut self, document: &mut Node, scope: &Scope, included: &[String]) {
        let Some(include) = document.as_map_mut().and_then(|map| map.remove("include")) else { return };
        let entries = match include.kind {
            Kind::Null => return,
            Kind::Seq(entries) => entries,
            _ => {
                self.report(&include.place, "`include` must be a list");
                return;
            }
        };
        for (index, entry) in entries.into_iter().enumerate() {
            let Some(entry) = self.entry(entry, index) else { continue };
            if let Some(model) = self.included(&entry, scope, included) {
                self.import(document, model);
            }
        }
    }

    fn entry(&mut self, node: Node, index: usize) -> Option<Include> {
        let place = node.place.clone();
        let path = KeyPath::ROOT.key("include");
        let path = path.item(index);
        let map = match node.kind {
            Kind::Str(path) => {
                return Some(Include {
                    paths: vec![(path, place.clone())],
                    directory: None,
                    env_files: Vec::new(),
                    place,
                });
            }
            Kind::Map(map) => map,
            Kind::Null => Map::new(),
            _ => {
                let error = LoadError::new(format!("{path} must be a string or a mapping"));
                self.errors.push(error.at(&place).of(path));
                return None;
            }
        };
        for Entry { key, place, .. } in &map {
            // Compose takes these without a word.
            if !matches!(key.as_str(), "path" | "project_directory" | "env_file") && !key.starts_with("x-") {
                self.warnings.push(format!("{place}: {path} has the unknown key '{key}', it is ignored"));
            }
        }
        let paths = self.texts(&map, "path", &path)?;
        if paths.is_empty() {
            self.warnings.push(format!("{place}: {path} has no path, it is ignored"));
            return None;
        }
        let env_files = self.texts(&map, "env_file", &path)?;
        let directory = self.directory(&map, &path)?;
        Some(Include { paths, directory: Some(directory).filter(|text| !text.is_empty()), env_files, place })
    }

    /// The project directory of an entry, empty where it gives none.
    fn directory(&mut self, map: &Map, path: &KeyPath<'_>) -> Option<String> {
        let key = "project_directory";
        match map.get(key) {
            None | Some(Node { kind: Kind::Null, .. }) => Some(String::new()),
            Some(Node { kind: Kind::Str(text), .. }) => Some(text.clone()),
            Some(Node { kind: Kind::Int(number), .. }) => Some(number.to_string()),
            Some(node) => {
                let path = path.key(key);
                let error = LoadError::new(format!("{path} must be a string"));
                self.errors.push(error.at(&node.place).of(path));
                None
            }
        }
    }

    fn texts(&mut self, map: &Map, key: &str, path: &KeyPath<'_>) -> Option<Vec<(String, Place)>> {
        let items = match map.get(key) {
            None | Some(Node { kind: Kind::Null, .. }) => return Some(Vec::new()),
            Some(Node { kind: Kind::Seq(items), .. }) => items.as_slice(),
            Some(node) => std::slice::from_ref(node),
        };
        let texts: Option<Vec<_>> =
            items.iter().map(|item| item.as_str().map(|text| (text.to_owned(), item.place.clone()))).collect();
        if texts.is_none()
            && let Some(node) = map.get(key)
        {
            let path = path.key(key);
            let error = LoadError::new(format!("{path} must be a string or a list of strings"));
            self.errors.push(error.at(&node.place).of(path));
        }
        texts
    }

    /// Loads one entry.
    fn included(&mut self, entry: &Include, scope: &Scope, included: &[String]) -> Option<Node> {
        let here = &scope.files_directory;
        if let Some((path, place)) = entry.paths.iter().find(|(path, _)| is_remote(path)) {
            let (path, place) = (path.clone(), place.clone());
            self.report(&place, format!("cannot include {path}: remote files are not supported"));
            return None;
        }
        let files: Vec<_> =
            entry.paths.iter().map(|(path, place)| (clean(&absolute(here, path)), Some(place.clone()))).collect();
        let main = files.first()?.0.clone();
        if included.contains(&main) {
            let mut chain = included.to_vec();
            chain.push(main);
            let message = format!("include cycle detected:\n{}", chain.join("\n include "));
            self.report(&entry.place, message);
            return None;
        }
        if included.len() > MAX_DEPTH {
            self.report(&entry.place, format!("more than {MAX_DEPTH} files include each other"));
            return None;
        }
        let directory = entry.directory.as_ref().map_or_else(|| parent(&main), |path| clean(&absolute(here, path)));
        // A relative directory that is not there gives way to the one around it, but for files to include and `.env`.
        let missing =
            |path: &String| !path.starts_with('/') && !matches!(self.opener.kind(&directory), Ok(FileKind::Directory));
        let base = if entry.directory.as_ref().is_some_and(missing) { parent(&directory) } else { directory.clone() };
        let env_files = self.env_files(entry, here, &directory)?;
        let variables = match env_from_files(self.opener, &env_files, &scope.environment, &mut self.warnings) {
            Ok(variables) => variables,
            Err(error) => {
                let place = error.place.clone().unwrap_or_else(|| entry.place.clone());
                self.errors.push(error.at(&place));
                return None;
            }
        };
        let bytes = budget::variables(&variables).saturating_add(budget::variables(scope.environment.as_ref()));
        if !self.spend(bytes, &entry.place, &KeyPath::ROOT.key("include")) {
            return None;
        }
        let mut environment = scope.environment.as_ref().clone();
        for (name, value) in variables {
            environment.entry(name).or_insert(value);
        }
        let base = paths::Base { directory: base, home: scope.base.home.clone() };
        let scope = self.scope(base, directory, environment);
        let expected = files.len();
        let files = self.parse_all(&files);
        if files.len() < expected {
            return None;
        }
        self.model(files, &scope, included)
    }

    fn env_files(&mut self, entry: &Include, here: &str, directory: &str) -> Option<Vec<String>> {
        if entry.env_files.is_empty() {
            let file = absolute(directory, ".env");
            let usable = matches!(self.opener.kind(&file), Ok(FileKind::File | FileKind::Other));
            return Some(if usable { vec![file] } else { Vec::new() });
        }
        let mut files = Vec::new();
        for (path, place) in &entry.env_files {
            if path == "/dev/null" {
                continue;
            }
            let file = clean(&absolute(here, path));
            match self.opener.kind(&file) {
                Ok(FileKind::File | FileKind::Other) => files.push(file),
                Ok(FileKind::Directory) => {
                    self.report(place, format!("{file} is not a file"));
                    return None;
                }
                Err(_) => {
                    self.report(place, format!("stat {file}: no such file or directory"));
                    return None;
                }
            }
        }
        Some(files)
    }

    /// Copies a model's resources; one that is there already must be the same.
    fn import(&mut self, document: &mut Node, mut model: Node) {
        let Some(target) = document.as_map_mut() else { return };
        for section in SECTIONS {
            let Some(Node { kind: Kind::Map(from), place, .. }) =
                model.as_map_mut().and_then(|map| map.remove(section))
            else {
                continue;
            };
            if target.get(section).is_none_or(Node::is_null) {
                target.insert(section.to_owned(), place.clone(), Node::new(place, Kind::Map(Map::new())));
            }
            let Some(to) = target.get_mut(section).and_then(Node::as_map_mut) else { continue };
            for Entry { key, place, value } in from {
                match to.entry(&key) {
                    Some(existing) if existing.value != value => {
                        let message = format!("{section}.{key} conflicts with imported resource");
                        let error = LoadError::new(format!("{message} of {place}")).at(&existing.place);
                        self.errors.push(error.of(format_args!("{section}.{key}")));
                    }
                    Some(_) => {}
                    None => {
                        to.insert(key, place, value);
                    }
                }
            }
        }
    }
}
