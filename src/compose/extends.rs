//! `extends`: a service that starts from a copy of another one, of the same file or of another.

use std::collections::HashSet;

use super::budget;
use super::error::LoadError;
use super::key_path::KeyPath;
use super::loader::{Loader, Scope, apply_tags};
use super::merge::merge;
use super::paths::{self, absolute, parent, resolve_paths};
use super::yaml::{Kind, Map, Node, Place, take_tags};

/// Services that extend each other in one chain.
const MAX_CHAIN: usize = 200;

/// Which base file, read with which variables.
pub(super) type BaseKey = (usize, String);

/// A file that services are extended from: its services in canonical form, with absolute paths.
pub(super) struct Base {
    source: Source,
}

/// Services of one file, which may extend each other.
struct Source {
    /// The file's path.
    file: String,
    services: Map,
    tags: Vec<Vec<String>>,
    /// Services whose own `extends` is done.
    done: HashSet<String>,
    /// Directory that `extends.file` is relative to.
    directory: String,
}

/// Where a chain of services is.
#[derive(Clone, PartialEq, Eq)]
enum Origin {
    /// The document that is being loaded.
    Document,
    /// A base file.
    File(BaseKey),
}

impl Loader<'_> {
    /// Replaces each service of a document that has `extends` by its merge with what it extends.
    pub(super) fn apply_extends(&mut self, document: &mut Node, tags: &[Vec<String>], file: &str, scope: &Scope) {
        let services = match document.as_map_mut().and_then(|map| map.get_mut("services")) {
            Some(Node { kind: Kind::Map(services), .. }) => services,
            Some(Node { place, .. }) => {
                let error = LoadError::new("services must be a mapping").at(place).of("services");
                self.errors.push(error);
                return;
            }
            None => return,
        };
        let extends = |node: &Node| node.as_map().is_some_and(|map| map.contains_key("extends"));
        let names: Vec<String> =
            services.iter().filter(|entry| extends(&entry.value)).map(|entry| entry.key.clone()).collect();
        if names.is_empty() {
            return;
        }
        let source = Source {
            file: file.to_owned(),
            services: std::mem::take(services),
            tags: tags.to_vec(),
            done: HashSet::new(),
            directory: scope.files_directory.clone(),
        };
        let mut resolver = Resolver { loader: self, scope, document: source, chain: Vec::new() };
        for name in names {
            resolver.resolve(&Origin::Document, &name);
        }
        *services = resolver.document.services;
    }
}

struct Resolver<'l, 'a> {
    loader: &'l mut Loader<'a>,
    scope: &'l Scope,
    document: Source,
    /// The services that led here: file and name.
    chain: Vec<(String, String)>,
}

/// What a service extends.
struct Reference {
    service: String,
    file: Option<String>,
    place: Place,
}

impl Reference {
    /// Its long form, with an absolute path.
    fn into_node(self, directory: &str) -> Node {
        let place = self.place;
        let file = self.file.map(|file| ("file", absolute(directory, &file)));
        let mut map = Map::new();
        for (key, text) in file.into_iter().chain([("service", self.service)]) {
            map.insert(key.to_owned(), place.clone(), Node::new(place.clone(), Kind::Str(text)));
        }
        Node::new(place, Kind::Map(map))
    }
}

impl Resolver<'_, '_> {
    fn source(&mut self, origin: &Origin) -> Option<&mut Source> {
        match origin {
            Origin::Document => Some(&mut self.document),
            Origin::File(key) => self.loader.bases.get_mut(key)?.as_mut().map(|base| &mut base.source),
        }
    }

    /// Completes a service of a source by what it extends.
    fn resolve(&mut self, origin: &Origin, name: &str) {
        let Some(source) = self.source(origin) else { return };
        if !source.done.insert(name.to_owned()) {
            return;
        }
        let (file, directory) = (source.file.clone(), source.directory.clone());
        let Some(service) = source.services.get_mut(name).and_then(Node::as_map_mut) else { return };
        let Some(extends) = service.remove("extends") else { return };
        let Some(reference) = self.reference(name, &extends) else { return };
        let base_origin = match &reference.file {
            None => origin.clone(),
            Some(path) => match self.base(path, &directory, &reference) {
                Some(key) => Origin::File(key),
                None => return,
            },
        };
        self.chain.push((file.clone(), name.to_owned()));
        let sound = self.is_sound(&base_origin, name, &file, &reference);
        if sound {
            self.resolve(&base_origin, &reference.service);
        }
        self.chain.pop();
        if !sound {
            return;
        }
        let copy = self.source(&base_origin).and_then(|source| source.services.get(&reference.service)).cloned();
        if copy.as_ref().is_some_and(Node::is_null) {
            // Nothing to start from: Compose leaves such a service as it is.
            let service = self.source(origin).and_then(|source| source.services.get_mut(name));
            if let Some(map) = service.and_then(Node::as_map_mut) {
                let place = reference.place.clone();
                map.insert("extends".to_owned(), place, reference.into_node(&directory));
            }
            return;
        }
        let services = KeyPath::ROOT.key("services");
        let path = services.key(name);
        let fits = |base: &Node| self.loader.spend(budget::weight(base), &reference.place, &path);
        let Some(mut base) = copy.filter(fits) else { return };
        let Some(source) = self.source(origin) else { return };
        let tags: Vec<Vec<String>> = source
            .tags
            .iter()
            .filter_map(|tag| match tag.as_slice() {
                [section, service, rest @ ..] if section == "services" && service == name => Some(rest.to_vec()),
                _ => None,
            })
            .collect();
        apply_tags(&mut base, &tags);
        let Some(slot) = source.services.get_mut(name) else { return };
        let place = slot.place.clone();
        let own = std::mem::replace(slot, Node::new(place.clone(), Kind::Null));
        base.place = place;
        merge(&mut base, own, &path, &mut self.loader.errors);
        if let Some(map) = base.as_map_mut() {
            map.remove("extends");
        }
        if let Some(slot) = self.source(origin).and_then(|source| source.services.get_mut(name)) {
            *slot = base;
        }
    }

    fn reference(&mut self, name: &str, extends: &Node) -> Option<Reference> {
        let place = extends.place.clone();
        match &extends.kind {
            Kind::Str(service) => Some(Reference { service: service.clone(), file: None, place }),
            Kind::Map(map) => {
                let text = |key: &str| map.get(key).and_then(Node::as_str).map(str::to_owned);
                if let Some(file) = map.get("file").filter(|file| !file.is_null() && file.as_str().is_none()) {
                    self.loader.report(&file.place.clone(), format!("services.{name}.extends.file must be a string"));
                    return None;
                }
                if let Some(service) = text("service") {
                    return Some(Reference { service, file: text("file"), place });
                }
                self.loader.report(&place, format!("extends.{name}.service is required"));
                None
            }
            _ => {
                self.loader.report(&place, format!("services.{name}.extends must be a string or a mapping"));
                None
            }
        }
    }

    /// Whether the referenced service is there, and does not lead back here.
    fn is_sound(&mut self, base: &Origin, name: &str, file: &str, reference: &Reference) -> bool {
        let Some(source) = self.source(base) else { return false };
        let base_file = source.file.clone();
        let target = &reference.service;
        if !source.services.contains_key(target) {
            let within = if base_file == file { String::new() } else { format!(" in {base_file}") };
            let message = format!("cannot extend service {name:?} in {file}: service {target:?} not found{within}");
            self.loader
                .errors
                .push(LoadError::new(message).at(&reference.place).of(format_args!("services.{name}.extends")));
            return false;
        }
        let next = (base_file, target.clone());
        if self.chain.contains(&next) {
            let mut lines = String::from("Circular reference:");
            for (index, (file, service)) in self.chain.iter().chain([&next]).enumerate() {
                let word = if index == 0 { "" } else { "extends " };
                lines.extend(["\n  ", word, service, " in ", file]);
            }
            self.loader.report(&reference.place, lines);
            return false;
        }
        if self.chain.len() > MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} services extend each other in one chain");
            self.loader.report(&reference.place, message);
            return false;
        }
        true
    }

    /// Reads a base file, unless it was read before.
    fn base(&mut self, path: &str, directory: &str, reference: &Reference) -> Option<BaseKey> {
        if super::include::is_remote(path) {
            self.loader.report(&reference.place, format!("cannot read {path}: remote files are not supported"));
            return None;
        }
        let path = absolute(directory, path);
        let key: BaseKey = (self.scope.id, path.clone());
        if !self.loader.bases.contains_key(&key) {
            let base = self.read_base(&path, reference);
            self.loader.bases.insert(key.clone(), base);
        }
        self.loader.bases.get(&key)?.is_some().then_some(key)
    }

    fn read_base(&mut self, path: &str, reference: &Reference) -> Option<Base> {
        let before = self.loader.errors.len();
        let documents = self.loader.parse(path, Some(&reference.place))?;
        let mut model = Node::new(reference.place.clone(), Kind::Map(Map::new()));
        let mut tags = Vec::new();
        for mut document in documents {
            tags = take_tags(&mut document);
            if !self.loader.prepare(&mut document, self.scope) {
                return None;
            }
            apply_tags(&mut model, &tags);
            self.loader.lay(&mut model, document);
            if self.loader.errors.len() == before {
                self.loader.canonical(&mut model);
            }
        }
        let directory = parent(path);
        let base = paths::Base { directory: directory.clone(), home: self.scope.base.home.clone() };
        resolve_paths(&mut model, &base, &mut self.loader.errors);
        let Some(Node { kind: Kind::Map(services), .. }) = model.as_map_mut().and_then(|map| map.remove("services"))
        else {
            let message = format!("cannot extend service {:?} in {path}: no services section", reference.service);
            self.loader.report(&reference.place, message);
            return None;
        };
        let source = Source { file: path.to_owned(), services, tags, done: HashSet::new(), directory };
        (self.loader.errors.len() == before).then_some(Base { source })
    }
}
