//! Lays one document over another: mappings merge, lists add up, scalars replace, and special keys have their own rule.

mod unique;

use super::error::{LoadError, LoadErrors};
use super::key_path::KeyPath;
use super::value::scalar_text;
use super::yaml::{Entry, Kind, Map, Node, Place};

pub(super) use unique::enforce_unicity;

/// How two values of one path become one.
enum Rule {
    /// Mappings merge, lists add up, scalars replace.
    General,
    /// The later one, whole.
    Replace,
    /// Both as lists of `key=value`, one after the other.
    Pairs,
    /// Both as lists; entries that are there already are not added.
    NewPairs,
    /// A build: text is its context.
    Build,
    /// Lists are mappings to a dependency's defaults.
    Dependencies,
    /// Lists are mappings to null.
    Names,
    /// Options merge while the driver stays.
    Logging,
    /// Address pools, matched by subnet.
    Pools,
}

fn rule(path: &KeyPath<'_>) -> Rule {
    match path.keys().as_slice() {
        ["networks", _, "ipam", "config"] => Rule::Pools,
        ["networks" | "volumes", _, "labels"]
        | ["services", _, "build", "args" | "additional_contexts" | "labels"]
        | ["services", _, "deploy", "labels"]
        | ["services", _, "volumes", _, "volume", "labels"]
        | [
            "services",
            _,
            "annotations" | "dns" | "dns_opt" | "dns_search" | "env_file" | "label_file" | "environment" | "labels"
            | "sysctls" | "tmpfs",
        ] => Rule::Pairs,
        ["services", _, "extra_hosts"] | ["services", _, "build", "extra_hosts"] => Rule::NewPairs,
        ["services", _, "build"] => Rule::Build,
        ["services", _, "command" | "entrypoint"]
        | ["services", _, "healthcheck", "test"]
        | ["services", _, "ulimits", _] => Rule::Replace,
        ["services", _, "depends_on"] => Rule::Dependencies,
        ["services", _, "networks" | "models"] => Rule::Names,
        ["services", _, "logging"] => Rule::Logging,
        _ => Rule::General,
    }
}

/// Lays `over` on `base`. What cannot be overridden is reported, and stays as it was.
pub(super) fn merge(base: &mut Node, over: Node, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    let rule = rule(path);
    match rule {
        Rule::General if base.is_null() => *base = over,
        // Null keeps the earlier value.
        Rule::General if over.is_null() => {}
        Rule::General => general(base, over, path, errors),
        Rule::Replace => *base = over,
        Rule::Pairs => {
            let (mut items, more) = (pairs(base), pairs(&over));
            items.extend(more);
            base.kind = Kind::Seq(items);
        }
        Rule::NewPairs => {
            let mut items = pairs(base);
            for item in pairs(&over) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            base.kind = Kind::Seq(items);
        }
        Rule::Build => {
            let place = base.place.clone();
            *base = with_context(std::mem::replace(base, Node::new(place, Kind::Null)));
            as_mappings(base, with_context(over), path, errors);
        }
        Rule::Dependencies => named(base, over, path, errors, &|place| {
            let text = Node::new(place.clone(), Kind::Str("service_started".to_owned()));
            let required = Node::new(place.clone(), Kind::Bool(true));
            let mut map = Map::new();
            map.insert("condition".to_owned(), place.clone(), text);
            map.insert("required".to_owned(), place.clone(), required);
            Kind::Map(map)
        }),
        Rule::Names => named(base, over, path, errors, &|_| Kind::Null),
        Rule::Logging => {
            let driver = |node: &Node| node.as_map().and_then(|map| map.get("driver")).cloned();
            match (driver(base), driver(&over)) {
                _ if base.as_map().is_none() || over.as_map().is_none() => {
                    errors.push(LoadError::new(format!("cannot override {path}")).at(&over.place).of(path));
                }
                (Some(one), Some(other)) if one != other => *base = over,
                _ => general(base, over, path, errors),
            }
        }
        Rule::Pools => pools(base, over, path, errors),
    }
}

fn general(base: &mut Node, over: Node, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    match (&mut base.kind, over.kind) {
        (Kind::Map(map), Kind::Map(over)) => mappings(map, over, path, errors),
        (Kind::Seq(items), Kind::Seq(over)) => items.extend(over),
        (Kind::Map(_) | Kind::Seq(_), _) => {
            errors.push(LoadError::new(format!("cannot override {path}")).at(&over.place).of(path));
        }
        (_, kind) => *base = Node { kind, ..over },
    }
}

fn mappings(base: &mut Map, over: Map, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    for Entry { key, place, value } in over {
        match base.get_mut(&key) {
            Some(existing) => merge(existing, value, &path.key(&key), errors),
            None => {
                base.insert(key, place, value);
            }
        }
    }
}

/// The value as a list of `key=value`: the entries of a mapping sorted by their text, a key alone for null.
fn pairs(node: &Node) -> Vec<Node> {
    match &node.kind {
        Kind::Seq(items) => items.clone(),
        Kind::Str(_) => vec![node.clone()],
        Kind::Map(map) => {
            let mut items: Vec<Node> = map.iter().flat_map(pair).collect();
            items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            items
        }
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Timestamp(_) => Vec::new(),
    }
}

fn pair(entry: &Entry) -> Vec<Node> {
    let line = |text: String| Node::new(entry.place.clone(), Kind::Str(text));
    match &entry.value.kind {
        Kind::Null => vec![line(entry.key.clone())],
        Kind::Seq(items) => items.iter().map(|item| line(format!("{}={}", entry.key, go_text(item)))).collect(),
        _ => vec![line(format!("{}={}", entry.key, go_text(&entry.value)))],
    }
}

/// The text of any value as Go prints it, also where only scalars make sense.
fn go_text(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "<nil>".to_owned(),
        Kind::Seq(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Kind::Map(map) => {
            let mut entries: Vec<&Entry> = map.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            let texts: Vec<String> =
                entries.iter().map(|entry| format!("{}:{}", entry.key, go_text(&entry.value))).collect();
            format!("map[{}]", texts.join(" "))
        }
        kind => scalar_text(kind).unwrap_or_default(),
    }
}

fn with_context(node: Node) -> Node {
    let Kind::Str(_) = node.kind else { return node };
    let place = node.place.clone();
    let mut map = Map::new();
    map.insert("context".to_owned(), place.clone(), node);
    Node::new(place, Kind::Map(map))
}

/// Merges two mappings that may be written as lists of their keys.
fn named(base: &mut Node, over: Node, path: &KeyPath<'_>, errors: &mut LoadErrors, value: &dyn Fn(&Place) -> Kind) {
    let place = base.place.clone();
    let left = from_names(std::mem::replace(base, Node::new(place, Kind::Null)), value);
    *base = left;
    let over = from_names(over, value);
    if matches!((&base.kind, &over.kind), (Kind::Seq(_), _) | (_, Kind::Seq(_))) {
        errors.push(LoadError::new(format!("cannot override {path}")).at(&over.place).of(path));
        return;
    }
    as_mappings(base, over, path, errors);
}

/// Merges what should be mappings: anything else is an empty one to Compose, and nothing can be laid on it.
fn as_mappings(base: &mut Node, over: Node, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    let Kind::Map(over) = over.kind else {
        if base.as_map().is_none() {
            base.kind = Kind::Map(Map::new());
        }
        return;
    };
    match &mut base.kind {
        Kind::Map(map) => mappings(map, over, path, errors),
        _ if over.is_empty() => base.kind = Kind::Map(over),
        _ => errors.push(LoadError::new(format!("{path} must be a mapping")).at(&base.place).of(path)),
    }
}

/// A list of keys as a mapping of those keys.
pub(super) fn from_names(node: Node, value: &dyn Fn(&Place) -> Kind) -> Node {
    let Kind::Seq(items) = &node.kind else { return node };
    let mut map = Map::new();
    for item in items {
        if let Kind::Str(name) = &item.kind {
            map.insert(name.clone(), item.place.clone(), Node::new(item.place.clone(), value(&item.place)));
        } else {
            return node;
        }
    }
    Node { kind: Kind::Map(map), ..node }
}

/// Which list an address pool of the result comes from.
#[derive(Clone, Copy)]
enum Pool {
    Base(usize),
    Over(usize),
}

fn subnet(pool: Option<&Node>) -> Option<&Node> {
    pool.and_then(Node::as_map).and_then(|map| map.get("subnet"))
}

/// Merges address pools exactly as Compose does: equal subnets merge; a base pool without an equal one takes the
/// place, and the gateway, of a later pool that is already there. The project must come out the same, odd or not.
fn pools(base: &mut Node, over: Node, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    let (Kind::Seq(bases), Kind::Seq(mut overs)) = (&mut base.kind, over.kind) else {
        errors.push(LoadError::new(format!("{path}: unexpected type, must be a list")).at(&over.place).of(path));
        return;
    };
    let mut result: Vec<Pool> = Vec::new();
    for original in 0..bases.len() {
        for later in 0..overs.len() {
            let position = |wanted: Option<&Node>, bases: &[Node], result: &[Pool]| {
                result.iter().position(|pool| {
                    let node = match *pool {
                        Pool::Base(index) => bases.get(index),
                        Pool::Over(index) => overs.get(index),
                    };
                    subnet(node) == wanted
                })
            };
            let wanted = subnet(overs.get(later));
            if subnet(bases.get(original)) != wanted && position(wanted, bases, &result).is_none() {
                result.push(Pool::Over(later));
                continue;
            }
            if let (Some(target), Some(source)) = (bases.get_mut(original), overs.get(later)) {
                general(target, source.clone(), path, errors);
            }
            match position(subnet(bases.get(original)), bases, &result) {
                Some(at) => result.splice(at..=at, [Pool::Base(original)]).for_each(drop),
                None => result.push(Pool::Base(original)),
            }
        }
    }
    let merged = result
        .into_iter()
        .filter_map(|pool| match pool {
            Pool::Base(index) => bases.get(index).cloned(),
            Pool::Over(index) => overs.get_mut(index).map(|node| node.clone()),
        })
        .collect();
    base.kind = Kind::Seq(merged);
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Limits, parse};
    use super::*;

    fn document(text: &str) -> Node {
        parse("f".into(), text, &Limits::default()).unwrap().remove(0)
    }

    /// The merge of two services, without their places.
    fn merged(base: &str, over: &str) -> (Node, String) {
        let wrap = |service: &str| document(&format!("services: {{a: {{{service}}}}}"));
        let (mut base, mut errors) = (wrap(base), LoadErrors::default());
        merge(&mut base, wrap(over), &KeyPath::ROOT, &mut errors);
        enforce_unicity(&mut base, &KeyPath::ROOT, &mut errors);
        (base, errors.to_string())
    }

    #[test]
    fn each_field_is_merged_by_its_own_rule() {
        for (base, over, result) in [
            ("hostname: a", "hostname: b", "hostname: b"),
            ("hostname: a", "hostname: null", "hostname: a"),
            ("command: [a]", "command: null", "command: null"),
            ("cap_add: [A, B]", "cap_add: [C, A]", "cap_add: [A, B, C]"),
            ("environment: {B: 1, A: 2, C: }", "environment: [A=3]", "environment: [A=3, B=1, C]"),
            ("dns: 1.1.1.1", "dns: [2.2.2.2]", "dns: [1.1.1.1, 2.2.2.2]"),
            ("extra_hosts: [h=1]", "extra_hosts: {h: 2}", "extra_hosts: [h=1, h=2]"),
            ("build: x", "build: {target: t}", "build: {context: x, target: t}"),
            ("networks: [n]", "networks: {n: {priority: 1}}", "networks: {n: {priority: 1}}"),
            ("logging: {driver: a, options: {x: y}}", "logging: {driver: b}", "logging: {driver: b}"),
            ("logging: {options: {x: y}}", "logging: {driver: b}", "logging: {driver: b, options: {x: y}}"),
            ("ulimits: {n: {soft: 1, hard: 2}}", "ulimits: {n: 3}", "ulimits: {n: 3}"),
            ("build: x", "build: [y]", "build: {context: x}"),
            ("networks: {n: }", "networks: text", "networks: {n: }"),
            ("dns: 1.1.1.1", "dns: null", "dns: [1.1.1.1]"),
            ("volumes: ['./a:/x', /y]", "volumes: ['vol:/x']", "volumes: ['vol:/x', /y]"),
        ] {
            let expected = document(&format!("services: {{a: {{{result}}}}}"));
            assert_eq!(merged(base, over), (expected, String::new()), "{base} + {over}");
        }
    }

    #[test]
    fn a_list_cannot_be_overridden_by_a_mapping() {
        let (result, errors) = merged("cap_add: [a]", "cap_add: {a: b}");
        assert_eq!(errors, "f:1:25: cannot override services.a.cap_add");
        assert_eq!(result, document("services: {a: {cap_add: [a]}}"), "the rest of the project can still be looked at");
    }

    #[test]
    fn nothing_can_be_laid_on_what_is_no_mapping() {
        for (base, over, error) in [
            ("build: null", "build: {target: t}", "f:1:23: services.a.build must be a mapping"),
            ("networks: text", "networks: [n]", "f:1:26: services.a.networks must be a mapping"),
            ("networks: [n]", "networks: [1]", "f:1:26: cannot override services.a.networks"),
            ("logging: {driver: a}", "logging: null", "f:1:25: cannot override services.a.logging"),
            ("logging: text", "logging: {driver: a}", "f:1:25: cannot override services.a.logging"),
        ] {
            assert_eq!(merged(base, over).1, error, "{base} + {over}");
        }
    }

    #[test]
    fn address_pools_are_merged_with_the_oddities_of_compose() {
        let pools = |text: &str| document(&format!("networks: {{n: {{ipam: {{config: [{text}]}}}}}}"));
        for (base, over, result) in [
            ("{subnet: a}", "{subnet: a, gateway: g}, {subnet: b}", "{subnet: a, gateway: g}, {subnet: b}"),
            ("{subnet: a}, {subnet: b, gateway: g}", "{subnet: c}", "{subnet: c, gateway: g}"),
            (
                "{subnet: a}, {subnet: b, gateway: g}",
                "{subnet: c}, {subnet: b, ip_range: r}",
                "{subnet: b, gateway: g, ip_range: r}, {subnet: b, ip_range: r}",
            ),
        ] {
            let (mut base, mut errors) = (pools(base), LoadErrors::default());
            merge(&mut base, pools(over), &KeyPath::ROOT, &mut errors);
            assert_eq!(base, pools(result));
            assert!(errors.is_empty(), "{errors}");
        }
    }
}
