//! Which keys the Compose specification has, and which values they take.
//!
//! Errors are in Compose's words (`services.a.ports must be a array`). Compose tells one of them; here all are told,
//! each at its place, and an unknown key with the known one that is nearest.

mod rule;
mod table;

use super::error::{LoadError, LoadErrors};
use super::yaml::{Entry, Kind, Map, Node};

use self::rule::{Names, Object, Rule, Types, Value};

/// Items of a list that are compared with each other, where they are not texts.
const MOST_COMPARED: usize = 2000;

/// Errors of one object after which no known key is looked for in the place of an unknown one.
const MOST_HINTS: usize = 100;

/// Checks a merged project against the specification, before short syntaxes are rewritten.
pub(super) fn check(project: &Node, errors: &mut LoadErrors) {
    let mut found = Vec::new();
    visit(project, &Rule::Value(&table::PROJECT), "", &mut found);
    for Fault { error, .. } in found {
        errors.push(error);
    }
}

/// An error and how deep it lies: of the alternatives that a value has, Compose tells the one that it fits best.
struct Fault {
    error: LoadError,
    depth: usize,
}

fn fault(node: &Node, path: &str, message: impl std::fmt::Display) -> Fault {
    let error = LoadError::new(format!("{path} {message}")).at(&node.place).of(path);
    Fault { error, depth: depth(path) }
}

fn depth(path: &str) -> usize {
    path.split('.').count()
}

fn join(path: &str, step: impl std::fmt::Display) -> String {
    if path.is_empty() { step.to_string() } else { format!("{path}.{step}") }
}

fn visit(node: &Node, rule: &Rule, path: &str, faults: &mut Vec<Fault>) {
    match rule {
        Rule::Value(value) => visit_value(node, value, path, faults),
        Rule::OneOf(alternatives) => {
            let mut best: Option<Vec<Fault>> = None;
            for alternative in *alternatives {
                let mut tried = Vec::new();
                visit(node, alternative, path, &mut tried);
                if tried.is_empty() {
                    return;
                }
                // An alternative for this type of value says most about it; else the deepest error does.
                let weight = |faults: &[Fault]| faults.iter().map(|fault| fault.depth).max().unwrap_or_default();
                let own_type = alternative.takes(node);
                if own_type {
                    best = Some(tried);
                    break;
                }
                if best.as_ref().is_none_or(|best| weight(best) < weight(&tried)) {
                    best = Some(tried);
                }
            }
            faults.extend(best.into_iter().flatten());
        }
    }
}

fn visit_value(node: &Node, value: &Value, path: &str, faults: &mut Vec<Fault>) {
    if matches!(node.kind, Kind::Timestamp(_)) {
        faults.push(fault(node, path, "invalid jsonType time.Time"));
        return;
    }
    if !value.types.take(&node.kind) {
        faults.push(fault(node, path, format_args!("must be a {}", value.types)));
        return;
    }
    match &node.kind {
        Kind::Str(text) => {
            if !value.words.is_empty() && !value.words.contains(&text.as_str()) {
                let words: Vec<String> = value.words.iter().map(|word| format!("'{word}'")).collect();
                let one = if words.len() == 1 { "" } else { "one of " };
                faults.push(fault(node, path, format_args!("value must be {one}{}", words.join(", "))));
            }
            if let Some(pattern) = value.pattern
                && !(pattern.matches)(text)
            {
                faults.push(fault(node, path, format_args!("'{text}' does not match pattern '{}'", pattern.text)));
            }
        }
        Kind::Int(number) => faults.extend(out_of_range(value, *number).map(|bound| fault(node, path, bound))),
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, beyond any range")]
        Kind::Float(number) => {
            faults.extend(out_of_range(value, *number as i128).map(|bound| fault(node, path, bound)));
        }
        Kind::Seq(items) => {
            if let Some(rule) = &value.items {
                for (index, item) in items.iter().enumerate() {
                    visit(item, rule, &join(path, index), faults);
                }
            }
            if value.unique
                && let Some((first, second)) = first_repetition(items)
            {
                let place = items.get(second).unwrap_or(node);
                faults.push(fault(place, path, format_args!("items at {first} and {second} are equal")));
            }
        }
        Kind::Map(map) => {
            if let Some(object) = &value.object {
                visit_object(node, map, object, path, faults);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Timestamp(_) => {}
    }
}

/// Which bound a number is beyond.
fn out_of_range(value: &Value, number: i128) -> Option<String> {
    let (least, most) = value.range?;
    match number {
        _ if number < least => Some(format!("minimum: got {number}, want {least}")),
        _ if number > most => Some(format!("maximum: got {number}, want {most}")),
        _ => None,
    }
}

fn visit_object(node: &Node, map: &Map, object: &Object, path: &str, faults: &mut Vec<Fault>) {
    let missing: Vec<String> =
        object.required.iter().filter(|key| !map.contains_key(key)).map(|key| format!("'{key}'")).collect();
    if !missing.is_empty() {
        let word = if missing.len() == 1 { "property" } else { "properties" };
        faults.push(fault(node, path, format_args!("missing {word} {}", missing.join(", "))));
    }
    for entry in map {
        let named = object.names.as_ref().filter(|(names, _)| names.take(&entry.key));
        if let Some(rule) = object.key(&entry.key) {
            visit(&entry.value, rule, &join(path, &entry.key), faults);
        } else if let Some((_, rule)) = named {
            visit(&entry.value, rule, &join(path, &entry.key), faults);
        } else if !(object.open || object.extensions && Names::Extension.take(&entry.key)) {
            // Who has so many unknown keys has not mistyped them.
            faults.push(unknown(entry, object, path, faults.len() < MOST_HINTS));
        }
    }
}

fn unknown(entry: &Entry, object: &Object, path: &str, hints: bool) -> Fault {
    let nearest = if hints { object.nearest(&entry.key) } else { None };
    let hint = nearest.map(|key| format!(" (did you mean '{key}'?)")).unwrap_or_default();
    let message = format!("{path} additional properties '{}' not allowed{hint}", entry.key);
    let error = LoadError::new(message).at(&entry.place).of(join(path, &entry.key));
    Fault { error, depth: depth(path) + 1 }
}

/// The first two items that are equal, numbers by their values.
fn first_repetition(items: &[Node]) -> Option<(usize, usize)> {
    /// A number is also what an earlier text says, but not the other way round: so Compose compares.
    fn equal(a: &Node, b: &Node) -> bool {
        match (&a.kind, &b.kind) {
            #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "80 and \"80\" are the same port")]
            (Kind::Int(int), Kind::Str(text)) => text.parse::<f64>().is_ok_and(|number| number == *int as f64),
            #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "80 and 80.0 are the same port")]
            (Kind::Int(int), Kind::Float(float)) | (Kind::Float(float), Kind::Int(int)) => *int as f64 == *float,
            (Kind::Seq(a), Kind::Seq(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
            (Kind::Map(a), Kind::Map(b)) => {
                a.len() == b.len()
                    && a.iter().all(|entry| b.get(&entry.key).is_some_and(|other| equal(&entry.value, other)))
            }
            (a, b) => a == b,
        }
    }
    let texts: Option<Vec<&str>> = items.iter().map(Node::as_str).collect();
    if let Some(texts) = texts {
        let mut seen = std::collections::HashMap::new();
        return texts.into_iter().enumerate().find_map(|(index, text)| seen.insert(text, index).map(|at| (at, index)));
    }
    // Anything but texts is rare and short; a hostile list is cut off.
    let items = items.get(..items.len().min(MOST_COMPARED))?;
    items.iter().enumerate().find_map(|(second, item)| {
        items.iter().take(second).position(|earlier| equal(item, earlier)).map(|first| (first, second))
    })
}

impl Types {
    fn take(self, kind: &Kind) -> bool {
        self.contains(match kind {
            Kind::Null => Types::NULL,
            Kind::Bool(_) => Types::BOOLEAN,
            Kind::Int(_) => return self.contains(Types::INTEGER) || self.contains(Types::NUMBER),
            Kind::Float(number) if number.fract() == 0.0 => {
                return self.contains(Types::INTEGER) || self.contains(Types::NUMBER);
            }
            Kind::Float(_) => Types::NUMBER,
            Kind::Str(_) => Types::STRING,
            Kind::Seq(_) => Types::ARRAY,
            Kind::Map(_) => Types::MAPPING,
            Kind::Timestamp(_) => return false,
        })
    }
}

impl Rule {
    /// Whether values of this type are taken at all.
    fn takes(&self, node: &Node) -> bool {
        match self {
            Self::Value(value) => value.types.take(&node.kind),
            Self::OneOf(alternatives) => alternatives.iter().any(|alternative| alternative.takes(node)),
        }
    }
}

/// Every scalar of the specification with its path, in a project that has it as `value` and is otherwise as small as can
/// be.
#[cfg(test)]
pub(super) fn every_scalar(value: &str) -> Vec<(String, String)> {
    use serde_json::{Value as Json, json};

    fn least(rule: &Rule) -> Json {
        match rule {
            Rule::OneOf(alternatives) => least(alternatives.last().unwrap()),
            Rule::Value(value) => match (value.words.first(), value.items, value.object) {
                (Some(word), ..) => json!(word),
                (_, Some(items), _) => json!([least(&items)]),
                (.., Some(object)) => least_object(object),
                _ if value.types.contains(Types::STRING) => json!("x"),
                _ => json!(1),
            },
        }
    }
    fn least_object(object: &Object) -> Json {
        object.required.iter().map(|key| ((*key).to_owned(), least(object.key(key).unwrap()))).collect()
    }
    fn variants(rule: &Rule, path: &str, scalar: &str, found: &mut Vec<(String, Json)>) {
        let value = match rule {
            Rule::OneOf(alternatives) => {
                alternatives.iter().for_each(|rule| variants(rule, path, scalar, found));
                return;
            }
            Rule::Value(value) => value,
        };
        if let Some(items) = &value.items {
            let mut below = Vec::new();
            variants(items, &format!("{path}[]"), scalar, &mut below);
            found.extend(below.into_iter().map(|(path, item)| (path, json!([item]))));
        } else if let Some(object) = value.object {
            let named = object.names.map(|(names, rule)| (if names == Names::Extension { "x-a" } else { "a" }, rule));
            for (key, rule) in object.keys.iter().copied().chain(named) {
                let mut below = Vec::new();
                variants(&rule, &join(path, key), scalar, &mut below);
                found.extend(below.into_iter().map(|(path, value)| {
                    let mut parent = least_object(object);
                    if let Some(target) = object.key("target") {
                        parent["target"] = least(target);
                    }
                    parent[key] = value;
                    (path, parent)
                }));
            }
        } else if value.types != Types::NULL {
            found.push((path.to_owned(), json!(scalar)));
        }
    }
    let mut found = Vec::new();
    variants(&Rule::Value(&table::PROJECT), "", value, &mut found);
    let complete = |(path, mut project): (String, Json)| {
        if project.get("services").is_none() {
            project["services"] = json!({"a": {}});
        }
        let service = &mut project["services"]["a"];
        if service.get("image").is_none() && service.get("build").is_none() {
            service["image"] = json!("i");
        }
        (path, project.to_string())
    };
    found.into_iter().map(complete).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compose::yaml::{Limits, parse};

    fn errors(text: &str) -> Vec<String> {
        let mut errors = LoadErrors::default();
        for document in parse("f".into(), text, &Limits::default()).unwrap() {
            check(&document, &mut errors);
        }
        errors.iter().map(ToString::to_string).collect()
    }

    fn service(body: &str) -> String {
        errors(&format!("services: {{a: {{{body}}}}}")).join("; ").replace("f:1:", "")
    }

    #[test]
    fn every_table_is_sorted_so_that_its_keys_are_found() {
        fn check_rule(rule: &Rule) {
            match rule {
                Rule::OneOf(alternatives) => alternatives.iter().for_each(check_rule),
                Rule::Value(value) => {
                    value.items.iter().for_each(check_rule);
                    if let Some(object) = value.object {
                        assert!(object.keys.is_sorted_by(|(a, _), (b, _)| a < b), "{:?}", object.keys);
                        object.keys.iter().for_each(|(_, rule)| check_rule(rule));
                        object.names.iter().for_each(|(_, rule)| check_rule(rule));
                        assert!(object.required.iter().all(|key| object.key(key).is_some()));
                    }
                }
            }
        }
        check_rule(&Rule::Value(&table::PROJECT));
    }

    #[test]
    fn the_reference_page_has_every_key_of_a_service_once() {
        let page = include_str!("../../docs/compose.md");
        let (_, page) = page.split_once("\n## Keys of a service").unwrap();
        let page = page.split("\n## ").next().unwrap();
        let mut told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        told.sort_unstable();
        let known: Vec<&str> = table::SERVICE.keys.iter().map(|(key, _)| *key).collect();
        assert_eq!(told, known);
    }

    #[test]
    fn unknown_keys_are_told_with_their_nearest_neighbour() {
        assert_eq!(
            errors("services:\n  a:\n    imge: x\n    whatever: 1\nfoo: 1\nsrvices: {}\n"),
            [
                "f:3:5: services.a additional properties 'imge' not allowed (did you mean 'image'?)",
                "f:4:5: services.a additional properties 'whatever' not allowed",
                "f:5:1:  additional properties 'foo' not allowed",
                "f:6:1:  additional properties 'srvices' not allowed (did you mean 'services'?)",
            ]
        );
    }

    #[test]
    fn wrong_types_are_told_in_composes_words() {
        for (body, message) in [
            ("image: 1", "services.a.image must be a string"),
            ("ports: 1", "services.a.ports must be a array"),
            ("ports: [[]]", "services.a.ports.0 must be a number"),
            ("ports: [{target: []}]", "services.a.ports.0.target must be a integer or string"),
            ("environment: {a: []}", "services.a.environment.a must be a boolean, null, number or string"),
            ("environment: 1", "services.a.environment must be a mapping"),
            ("cgroup: foo", "services.a.cgroup value must be one of 'host', 'private'"),
            (
                "container_name: '.'",
                "services.a.container_name '.' does not match pattern '[a-zA-Z0-9][a-zA-Z0-9_.-]+'",
            ),
            ("depends_on: {b: {}}", "services.a.depends_on.b missing property 'condition'"),
            ("depends_on: 1", "services.a.depends_on must be a array"),
            ("depends_on: [1]", "services.a.depends_on.0 must be a string"),
            ("networks: {n: {foo: 1}}", "services.a.networks.n additional properties 'foo' not allowed"),
            ("deploy: 1", "services.a.deploy must be a mapping or null"),
            ("gpus: foo", "services.a.gpus value must be 'all'"),
            ("command: 1", "services.a.command must be a null"),
            ("command: [1]", "services.a.command.0 must be a string"),
            ("develop: {watch: [{}]}", "services.a.develop.watch.0 missing properties 'path', 'action'"),
            ("hostname: 2001-01-01", "services.a.hostname invalid jsonType time.Time"),
            ("ports: [80, 80.0]", "services.a.ports items at 0 and 1 are equal"),
            ("group_add: [\"1\", 1]", "services.a.group_add items at 0 and 1 are equal"),
            (
                "pull_policy: foo",
                "services.a.pull_policy 'foo' does not match pattern \
              'always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+'",
            ),
            ("labels: {'': x}", "services.a.labels additional properties '' not allowed"),
        ] {
            let told = service(body);
            assert!(told.ends_with(message), "{body}: {told}");
        }
    }

    #[test]
    fn a_value_of_a_type_that_is_taken_is_told_what_else_is_wrong_with_it() {
        assert!(service("volumes: [{target: /x}]").ends_with("services.a.volumes.0 missing property 'type'"));
        assert!(service("ulimits: {a: {soft: 1}}").ends_with("services.a.ulimits.a missing property 'hard'"));
        assert!(service("cpu_percent: 101").ends_with("services.a.cpu_percent maximum: got 101, want 100"));
    }

    #[test]
    fn all_errors_are_told_at_their_places() {
        assert_eq!(
            errors("services:\n  a:\n    image: 1\n    ports: x\nvolumes:\n  b c: {}\n"),
            [
                "f:3:12: services.a.image must be a string",
                "f:4:12: services.a.ports must be a array",
                "f:6:3: volumes additional properties 'b c' not allowed",
            ]
        );
    }

    #[test]
    fn extensions_hold_anything_where_the_specification_has_them() {
        assert_eq!(service("x-a: 2001-01-01, ports: [{x-b: [1]}], deploy: {x-c: {d: 1}}"), "");
        assert!(service("blkio_config: {x-a: 1}").ends_with("additional properties 'x-a' not allowed"));
        assert!(!errors("services: {x-a: 1}").is_empty());
    }

    proptest! {
        #[test]
        fn no_document_makes_the_check_panic(text in "([a-c\\[\\]{}:, ]|services: |image|ports|volumes|deploy|null|1){0,30}") {
            let mut errors = LoadErrors::default();
            for document in parse("f".into(), &text, &Limits::default()).unwrap_or_default() {
                check(&document, &mut errors);
            }
        }
    }
}
