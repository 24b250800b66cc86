//! Reads a stack of compose files into one canonical document.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::budget;
use super::canonical::canonical;
use super::defaults;
use super::error::{LoadError, LoadErrors};
use super::extends::{Base, BaseKey};
use super::files::{Opener, warn_unset};
use super::interpolate::{InterpolateError, interpolate_tree};
use super::key_path::{CONTAINER_ELEMENTS, KeyPath};
use super::merge::{enforce_unicity, merge};
use super::normalize::resolve_environment;
use super::paths::{self, resolve_paths};
use super::schema;
use super::yaml::{self, Kind, Limits, Map, Node, Place, YamlErrorKind, take_tags};

/// Compose files that one project may read, each counted as often as it is read.
const MAX_FILES: usize = 2_000;

/// Services that one project may have.
const MAX_SERVICES: usize = 10_000;

/// What the files of one model are read with: those of the project, or those of one `include`.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// Tells scopes apart.
    pub(super) id: usize,
    /// What the paths in the files are relative to.
    pub(super) base: paths::Base,
    /// What the paths of further files, to include or extend, are relative to.
    pub(super) files_directory: String,
    pub(super) environment: Arc<BTreeMap<String, String>>,
}

/// Reads files, and keeps what was found wrong on the way.
pub(super) struct Loader<'a> {
    pub(super) opener: &'a Opener<'a>,
    pub(super) errors: LoadErrors,
    pub(super) warnings: Vec<String>,
    /// Files of `extends`, each read once a scope and directory.
    pub(super) bases: HashMap<BaseKey, Option<Base>>,
    pub(super) scopes: usize,
    /// Jobs by name: the element that they stand under, and where.
    pub(super) jobs: HashMap<String, (&'static str, Place)>,
    files: usize,
}

impl<'a> Loader<'a> {
    pub(super) fn new(opener: &'a Opener<'a>) -> Self {
        Self {
            opener,
            errors: LoadErrors::default(),
            warnings: Vec::new(),
            bases: HashMap::new(),
            scopes: 0,
            jobs: HashMap::new(),
            files: 0,
        }
    }

    /// A scope for files of one directory.
    pub(super) fn scope(
        &mut self,
        base: paths::Base,
        files_directory: String,
        environment: BTreeMap<String, String>,
    ) -> Scope {
        self.scopes += 1;
        Scope { id: self.scopes, base, files_directory, environment: Arc::new(environment) }
    }

    pub(super) fn report(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(LoadError::new(message).at(place));
    }

    /// Takes `bytes` from what the load may take, for what stands at a place; false when they do not fit.
    pub(super) fn spend(&mut self, bytes: usize, place: &Place, path: &KeyPath<'_>) -> bool {
        let budget = self.opener.budget();
        let fits = budget.take(bytes).is_ok();
        if !fits {
            self.errors.extend(budget.refusal(Some(place), path));
        }
        fits
    }

    /// Parses a file into its documents. `from` is where it was asked for, if not on the command line.
    pub(super) fn parse(&mut self, path: &str, from: Option<&Place>) -> Option<Vec<Node>> {
        self.files += 1;
        let parsed = if self.files > MAX_FILES {
            Err(LoadError::new(format!("the project reads more than {MAX_FILES} files")))
        } else {
            self.opener.yaml(path).map_err(LoadError::new).and_then(|text| self.documents(path, &text))
        };
        match (parsed, from) {
            (Ok(documents), _) => {
                let spent = |document| self.spend(budget::weight(document), &document.place, &KeyPath::ROOT);
                documents.iter().all(spent).then_some(documents)
            }
            (Err(error), Some(place)) if error.place.is_none() => {
                self.errors.push(error.at(place));
                None
            }
            (Err(error), _) => {
                self.errors.push(error);
                None
            }
        }
    }

    /// The documents of a file's text.
    fn documents(&self, path: &str, text: &str) -> Result<Vec<Node>, LoadError> {
        let budget = self.opener.budget();
        // The text is there as long as its values are being made.
        let limits = Limits { memory: budget.left().saturating_sub(text.len()), ..Limits::default() };
        yaml::parse(self.opener.shown(path), text, &limits).map_err(|error| {
            let message = match error.kind {
                YamlErrorKind::NonStringKey { .. } => error.kind.to_string(),
                YamlErrorKind::TooMuchMemory { path, .. } => {
                    let refusal = budget.refusal(Some(&error.place), &KeyPath::ROOT.key(&path));
                    return refusal.unwrap_or_else(|| LoadError::new("no memory is left for this file"));
                }
                kind => format!("failed to parse {path}: {kind}"),
            };
            LoadError::new(message).at(&error.place)
        })
    }

    /// Parses the files of one model, in order.
    pub(super) fn parse_all(&mut self, files: &[(String, Option<Place>)]) -> Vec<LoadFile> {
        let mut parsed = Vec::new();
        for (path, from) in files {
            if let Some(documents) = self.parse(path, from.as_ref()) {
                parsed.push(LoadFile { path: path.clone(), documents });
            }
        }
        parsed
    }

    /// Loads the files of one model, one over the other, up to absolute paths. `None` when something was wrong.
    ///
    /// `included` are the files that this model is included through, from the project's own.
    pub(super) fn model(&mut self, files: Vec<LoadFile>, scope: &Scope, included: &[String]) -> Option<Node> {
        let before = self.errors.len();
        let root = Place {
            file: files.first().map_or_else(|| "".into(), |file| self.opener.shown(&file.path)),
            line: 1,
            column: 1,
        };
        let mut model = Node::new(root, Kind::Map(Map::new()));
        for LoadFile { path, documents } in files {
            let chain = [included, std::slice::from_ref(&path)].concat();
            for document in documents {
                self.document(&mut model, document, &path, scope, &chain);
            }
        }
        if self.errors.len() > before {
            return None;
        }
        defaults::set_defaults(&mut model);
        defaults::check(&model, &mut self.errors);
        resolve_paths(&mut model, &scope.base, &mut self.errors);
        resolve_environment(&mut model, &scope.environment);
        (self.errors.len() == before).then_some(model)
    }

    /// Lays one document over the model.
    fn document(&mut self, model: &mut Node, document: Node, file: &str, scope: &Scope, included: &[String]) {
        let before = self.errors.len();
        let mut document = document;
        let mut tags = take_tags(&mut document);
        self.gather_jobs(&mut document, &mut tags);
        if !self.prepare(&mut document, scope) {
            return;
        }
        self.apply_extends(&mut document, &tags, file, scope);
        apply_tags(model, &tags);
        self.apply_include(&mut document, scope, included);
        self.lay(model, document);
        let elements = CONTAINER_ELEMENTS.iter().filter_map(|element| model.as_map()?.get(element)?.as_map());
        if elements.map(Map::len).sum::<usize>() > MAX_SERVICES {
            let place = model.place.clone();
            self.report(&place, format!("the project has more than {MAX_SERVICES} services and jobs"));
            return;
        }
        schema::check(model, &mut self.errors);
        if let Some(map) = model.as_map_mut()
            && map.remove("version").is_some()
        {
            self.warnings.push(format!("{file}: the attribute `version` is obsolete, it will be ignored"));
        }
        if self.errors.len() == before {
            self.canonical(model);
        }
    }

    /// Interpolates a parsed document whose tags are taken out; false when it is none.
    pub(super) fn prepare(&mut self, document: &mut Node, scope: &Scope) -> bool {
        let is_map = document.as_map().is_some();
        if is_map {
            self.interpolate(document, scope);
        } else {
            self.report(&document.place, "top-level object must be a mapping");
        }
        is_map
    }

    pub(super) fn interpolate(&mut self, node: &mut Node, scope: &Scope) {
        let lookup = |name: &str| scope.environment.get(name).cloned();
        let warnings = &mut self.warnings;
        let most = self.opener.budget().left();
        let result = interpolate_tree(node, &lookup, &mut |name: &str| warn_unset(name, warnings), most);
        let errors = match result {
            Ok(grown) => {
                self.spend(grown, &node.place, &KeyPath::ROOT);
                return;
            }
            Err(errors) => errors,
        };
        for error in errors {
            let message = match &error.error {
                InterpolateError::Format => format!(
                    "invalid interpolation format for {}. You may need to escape any $ with another $",
                    error.path
                ),
                other => format!("error while interpolating {}: {other}", error.path),
            };
            self.errors.push(LoadError::new(message).at(&error.place).of(error.path));
        }
    }

    /// Merges and removes duplicates.
    pub(super) fn lay(&mut self, model: &mut Node, document: Node) {
        merge(model, document, &KeyPath::ROOT, &mut self.errors);
        enforce_unicity(model, &KeyPath::ROOT, &mut self.errors);
    }

    /// Brings into long form, which can reveal further duplicates.
    pub(super) fn canonical(&mut self, model: &mut Node) {
        canonical(model, self.opener.budget(), &mut self.errors, &mut self.warnings);
        enforce_unicity(model, &KeyPath::ROOT, &mut self.errors);
    }
}

/// A parsed file.
#[derive(Debug, Clone)]
pub(super) struct LoadFile {
    /// Absolute path.
    pub(super) path: String,
    pub(super) documents: Vec<Node>,
}

/// Removes what the tags of a later document reset or override.
pub(super) fn apply_tags(model: &mut Node, tags: &[Vec<String>]) {
    for path in tags {
        let Some((last, steps)) = path.split_last() else { continue };
        let parent =
            steps.iter().try_fold(&mut *model, |node, step| node.as_map_mut().and_then(|map| map.get_mut(step)));
        if let Some(map) = parent.and_then(Node::as_map_mut) {
            map.remove(last);
        }
    }
}
