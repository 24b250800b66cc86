//! Rewrites every short syntax into its long form, so that later steps know one form only.

use super::budget::{Budget, ENTRY, LONG_FORM};
use super::error::{LoadError, LoadErrors};
use super::key_path::KeyPath;
use super::merge::from_names;
use super::short;
use super::value::scalar_text;
use super::yaml::{Entry, Kind, Map, Node, Place};

/// Brings a merged document into canonical form.
pub(super) fn canonical(project: &mut Node, budget: &Budget, errors: &mut LoadErrors, warnings: &mut Vec<String>) {
    let Some(map) = project.as_map_mut() else { return };
    let mut sink = Sink { budget, errors };
    for entry in map.iter_mut() {
        let path = KeyPath::ROOT.key(&entry.key);
        let Some(resources) = entry.value.as_map_mut() else { continue };
        match entry.key.as_str() {
            "services" | "jobs" => {
                for service in resources.iter_mut() {
                    let path = path.key(&service.key);
                    if let Some(map) = service.value.as_map_mut() {
                        self::service(map, &path, &mut sink);
                    }
                }
            }
            "networks" | "volumes" | "secrets" | "configs" => {
                for resource in resources.iter_mut() {
                    external(resource, &path, sink.errors, warnings);
                }
            }
            _ => {}
        }
    }
}

/// What a rewriting step takes memory from, and reports to.
struct Sink<'a> {
    budget: &'a Budget,
    errors: &'a mut LoadErrors,
}

impl Sink<'_> {
    /// Takes `bytes` for what stands at a node; false when they do not fit.
    fn spend(&mut self, bytes: usize, node: &Node, path: &KeyPath<'_>) -> bool {
        let fits = self.budget.take(bytes).is_ok();
        if !fits {
            self.errors.extend(self.budget.refusal(Some(&node.place), path));
        }
        fits
    }
}

fn service(service: &mut Map, path: &KeyPath<'_>, sink: &mut Sink<'_>) {
    service.retain_mut(|entry| {
        let path = path.key(&entry.key);
        let value = &mut entry.value;
        match entry.key.as_str() {
            "build" => build(value, &path, sink),
            "depends_on" => dependencies(value, &path, sink),
            "env_file" => {
                listed(value);
                expect(value, matches!(value.kind, Kind::Seq(_)), "a text or a list", &path, sink.errors);
                let short = |item: &&Node| item.as_str().is_some();
                let count = value.as_seq().into_iter().flatten().filter(short).count();
                if sink.spend(count.saturating_mul(3 * ENTRY), value, &path) {
                    each(value, env_file);
                }
            }
            "label_file" => listed(value),
            "dns" => {
                listed(value);
                if let Some(items) = value.as_seq_mut() {
                    items.retain(|item| item.as_str() != Some(""));
                }
            }
            "gpus" => {
                gpus(value);
                expect(value, matches!(value.kind, Kind::Seq(_)), "`all` or a list", &path, sink.errors);
            }
            "networks" | "models" => {
                replace(value, |node| from_names(node, &|_| Kind::Null));
                let named = !matches!(value.kind, Kind::Seq(_));
                expect(value, named, "a mapping or a list of names", &path, sink.errors);
            }
            "volumes" => each_item(value, &path, sink, |item, text| {
                *item = short::volume(text, &item.place)?;
                Ok(())
            }),
            "devices" => each_item(value, &path, sink, |item, text| {
                *item = short::device(text, &item.place)?;
                Ok(())
            }),
            "secrets" | "configs" => sources(value, &path, sink),
            "ports" => ports(value, &path, sink),
            _ => {}
        }
        true
    });
}

/// Reports a value that has no long form. Only in a file that is extended the schema has not said so before.
fn expect(node: &Node, holds: bool, what: &str, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    if !holds {
        errors.push(LoadError::new(format!("{path} must be {what}")).at(&node.place).of(path));
    }
}

/// References to secrets or configs.
fn sources(list: &mut Node, path: &KeyPath<'_>, sink: &mut Sink<'_>) {
    for (index, item) in list.as_seq_mut().into_iter().flatten().enumerate() {
        let path = path.item(index);
        if item.as_str().is_some() && !sink.spend(2 * ENTRY, item, &path) {
            return;
        }
        wrap(item, "source");
        expect(item, item.as_map().is_some(), "a text or a mapping", &path, sink.errors);
    }
}

fn each(list: &mut Node, mut change: impl FnMut(&mut Node)) {
    for item in list.as_seq_mut().into_iter().flatten() {
        change(item);
    }
}

/// Changes the items that are text, and reports those that cannot be read.
fn each_item(
    list: &mut Node,
    path: &KeyPath<'_>,
    sink: &mut Sink<'_>,
    mut change: impl FnMut(&mut Node, &str) -> Result<(), String>,
) {
    for (index, item) in list.as_seq_mut().into_iter().flatten().enumerate() {
        let path = path.item(index);
        let Kind::Str(text) = &item.kind else {
            expect(item, item.as_map().is_some(), "a text or a mapping", &path, sink.errors);
            continue;
        };
        let text = text.clone();
        if !sink.spend(LONG_FORM, item, &path) {
            return;
        }
        if let Err(message) = change(item, &text) {
            sink.errors.push(LoadError::new(format!("{path}: {message}")).at(&item.place).of(path));
        }
    }
}

fn replace(node: &mut Node, change: impl FnOnce(Node) -> Node) {
    let place = node.place.clone();
    let old = std::mem::replace(node, Node::new(place, Kind::Null));
    *node = change(old);
}

fn text(place: &Place, text: &str) -> Node {
    Node::new(place.clone(), Kind::Str(text.to_owned()))
}

/// Sets a key at its mapping's place where it is missing.
pub(super) fn set_default(map: &mut Map, place: &Place, key: &str, kind: Kind) {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), place.clone(), Node::new(place.clone(), kind));
    }
}

/// Text becomes a mapping with that text under one key.
fn wrap(node: &mut Node, key: &str) {
    if let Kind::Str(_) = node.kind {
        replace(node, |node| {
            let place = node.place.clone();
            let mut map = Map::new();
            map.insert(key.to_owned(), place.clone(), node);
            Node::new(place, Kind::Map(map))
        });
    }
}

/// Text becomes a list of one.
fn listed(node: &mut Node) {
    if let Kind::Str(_) = node.kind {
        replace(node, |node| Node::new(node.place.clone(), Kind::Seq(vec![node])));
    }
}

fn build(node: &mut Node, path: &KeyPath<'_>, sink: &mut Sink<'_>) {
    wrap(node, "context");
    expect(node, node.as_map().is_some(), "a text or a mapping", path, sink.errors);
    let Some(build) = node.as_map_mut() else { return };
    for entry in build.iter_mut() {
        let path = path.key(&entry.key);
        let value = &mut entry.value;
        match entry.key.as_str() {
            "secrets" => sources(value, &path, sink),
            "provenance" | "sbom" => {
                if let Some(word) = scalar_text(&value.kind) {
                    value.kind = Kind::Str(word);
                }
            }
            "additional_contexts" => {
                let Kind::Seq(items) = &value.kind else {
                    expect(value, value.as_map().is_some(), "a mapping or a list", &path, sink.errors);
                    continue;
                };
                let mut map = Map::new();
                for (index, item) in items.iter().enumerate() {
                    if let Some((name, target)) = item.as_str().and_then(|text| text.split_once('=')) {
                        map.insert(name.to_owned(), item.place.clone(), text(&item.place, target));
                    } else {
                        let given = scalar_text(&item.kind).unwrap_or_default();
                        let message = format!("{path}: invalid value {given}, expected key=value");
                        sink.errors.push(LoadError::new(message).at(&item.place).of(path.item(index)));
                    }
                }
                value.kind = Kind::Map(map);
            }
            _ => {}
        }
    }
}

fn dependencies(node: &mut Node, path: &KeyPath<'_>, sink: &mut Sink<'_>) {
    let short = node.as_seq().map_or(0, <[Node]>::len);
    if !sink.spend(short.saturating_mul(3 * ENTRY), node, path) {
        return;
    }
    replace(node, |node| from_names(node, &|_| Kind::Map(Map::new())));
    expect(node, node.as_map().is_some(), "a mapping or a list of names", path, sink.errors);
    for Entry { place, value, .. } in node.as_map_mut().into_iter().flatten() {
        if let Some(map) = value.as_map_mut() {
            set_default(map, place, "condition", Kind::Str("service_started".to_owned()));
            set_default(map, place, "required", Kind::Bool(true));
        }
    }
}

fn env_file(item: &mut Node) {
    wrap(item, "path");
    let place = item.place.clone();
    if let Some(map) = item.as_map_mut() {
        set_default(map, &place, "required", Kind::Bool(true));
    }
}

fn gpus(node: &mut Node) {
    if let Kind::Str(_) = node.kind {
        replace(node, |node| {
            let place = node.place.clone();
            let mut map = Map::new();
            map.insert("count".to_owned(), place.clone(), node);
            Node::new(place.clone(), Kind::Seq(vec![Node::new(place, Kind::Map(map))]))
        });
    }
}

fn ports(node: &mut Node, path: &KeyPath<'_>, sink: &mut Sink<'_>) {
    expect(node, node.as_seq().is_some(), "a list", path, sink.errors);
    let Some(items) = node.as_seq_mut() else { return };
    let mut long = Vec::with_capacity(items.len());
    for (index, item) in std::mem::take(items).into_iter().enumerate() {
        let path = path.item(index);
        let text = match &item.kind {
            Kind::Str(text) => text.clone(),
            Kind::Int(number) => number.to_string(),
            _ => {
                expect(&item, item.as_map().is_some(), "a number, a text or a mapping", &path, sink.errors);
                long.push(item);
                continue;
            }
        };
        if !sink.spend(short::port_count(&text).saturating_mul(LONG_FORM), &item, &path) {
            break;
        }
        match short::ports(&text, &item.place) {
            Ok(ports) => long.extend(ports.into_iter().map(without_zero_target)),
            Err(message) => {
                sink.errors.push(LoadError::new(format!("{path}: {message}")).at(&item.place).of(path));
            }
        }
    }
    *items = long;
}

/// A short port 0 is a port without a target to Compose.
fn without_zero_target(mut port: Node) -> Node {
    if let Some(map) = port.as_map_mut()
        && map.get("target").is_some_and(|target| target.kind == Kind::Int(0))
    {
        map.remove("target");
    }
    port
}

/// `external: {name: n}` is the old spelling of `external: true, name: n`.
fn external(resource: &mut Entry, path: &KeyPath<'_>, errors: &mut LoadErrors, warnings: &mut Vec<String>) {
    let path = path.key(&resource.key);
    let Some(map) = resource.value.as_map_mut() else { return };
    let Some(Node { kind: Kind::Map(old), place, .. }) = map.get("external") else { return };
    let (old_name, place) = (old.get("name").cloned(), place.clone());
    map.insert("external".to_owned(), place.clone(), Node::new(place.clone(), Kind::Bool(true)));
    let Some(old_name) = old_name else { return };
    warnings.push(format!("{path}: external.name is deprecated. Please set name and external: true"));
    match map.get("name") {
        Some(name) if *name != old_name => errors.push(
            LoadError::new(format!("{path}: name and external.name conflict; only use name")).at(&place).of(path),
        ),
        Some(_) => {}
        None => {
            map.insert("name".to_owned(), place, old_name);
        }
    }
}
