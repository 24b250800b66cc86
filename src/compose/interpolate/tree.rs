//! Interpolates a whole document, and turns texts into the numbers and booleans that their paths ask for.

use std::fmt::Write as _;

use super::{InterpolateError, interpolate};
use crate::compose::number::{NumberError, parse_f32, parse_f64, parse_int};
use crate::compose::value::parse_bool;
use crate::compose::yaml::{Kind, Node, Place};

/// A value that could not be interpolated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct TreeError {
    /// Where the value stands.
    pub place: Place,
    /// Its path, such as `services.a.ports[0].target`.
    pub path: String,
    /// What is wrong.
    pub error: InterpolateError,
}

/// Interpolates every value of a document, never its keys; `warn` is told the names of unset variables.
///
/// The values that it makes may take `most` bytes together. Returns how many they take.
///
/// # Errors
///
/// All of them, in order.
pub fn interpolate_tree(
    node: &mut Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    warn: &mut dyn FnMut(&str),
    most: usize,
) -> Result<usize, Vec<TreeError>> {
    let mut walk = Walk { lookup, warn, steps: Vec::new(), grown: 0, most, errors: Vec::new() };
    walk.visit(node);
    if walk.errors.is_empty() { Ok(walk.grown) } else { Err(walk.errors) }
}

/// Values that did not fit, of which further ones are not told.
const MOST_ERRORS: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Cast {
    Integer { function: &'static str },
    Float32,
    Float64,
    Bool,
}

enum Step {
    Key(String),
    Index(usize),
}

struct Walk<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    warn: &'a mut dyn FnMut(&str),
    steps: Vec<Step>,
    /// Bytes of the values that interpolation made.
    grown: usize,
    most: usize,
    errors: Vec<TreeError>,
}

impl Walk<'_> {
    fn visit(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::Str(text) => match self.value(text) {
                Ok(Some(kind)) => node.kind = kind,
                Ok(None) => {}
                // Once nothing fits any more, each value behind would be a fault.
                Err(InterpolateError::TooLarge) if self.errors.len() >= MOST_ERRORS => {}
                Err(error) => self.errors.push(TreeError { place: node.place.clone(), path: self.path(), error }),
            },
            Kind::Seq(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.steps.push(Step::Index(index));
                    self.visit(item);
                    self.steps.pop();
                }
            }
            Kind::Map(map) => {
                for entry in map.iter_mut() {
                    self.steps.push(Step::Key(entry.key.clone()));
                    self.visit(&mut entry.value);
                    self.steps.pop();
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Timestamp(_) => {}
        }
    }

    /// What the text becomes, or `None` if it stays.
    fn value(&mut self, text: &str) -> Result<Option<Kind>, InterpolateError> {
        let cast = self.cast();
        if cast.is_none() && !text.contains('$') {
            return Ok(None);
        }
        let new = interpolate(text, self.lookup, self.warn)?;
        self.grown = self.grown.saturating_add(new.len());
        if self.grown > self.most {
            return Err(InterpolateError::TooLarge);
        }
        // A literal is shown, what variables hold is not.
        let literal = !text.contains('$');
        let not_number = |error: NumberError| {
            InterpolateError::Cast(if literal { error.to_string() } else { error.reason.to_owned() })
        };
        Ok(Some(match cast {
            None => Kind::Str(new),
            Some(Cast::Integer { function }) => Kind::Int(parse_int(&new, 10, function).map_err(not_number)?.into()),
            Some(Cast::Float32) => Kind::Float(parse_f32(&new).map_err(not_number)?.into()),
            Some(Cast::Float64) => Kind::Float(parse_f64(&new).map_err(not_number)?),
            Some(Cast::Bool) => {
                let shown = if literal { format!(": {new}") } else { String::new() };
                Kind::Bool(parse_bool(&new).ok_or_else(|| InterpolateError::Cast(format!("invalid boolean{shown}")))?)
            }
        }))
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Step::Index(index) => {
                    let _ = write!(path, "[{index}]");
                }
            }
        }
        path
    }

    /// The type that belongs at the current path.
    ///
    /// Compose keeps paths as text: a dot in a service's name makes two steps of it, and its values are not cast.
    fn cast(&self) -> Option<Cast> {
        const MOST_STEPS: usize = 6;
        if self.steps.len() > MOST_STEPS {
            return None;
        }
        let mut steps = [""; MOST_STEPS + 1];
        let mut count = 0;
        for step in &self.steps {
            let parts = match step {
                Step::Key(key) => key.as_str(),
                Step::Index(_) => "[]",
            };
            for part in parts.split('.') {
                *steps.get_mut(count)? = part;
                count += 1;
            }
        }
        let (section, rest) = steps.get(..count)?.split_first()?;
        let (_, attribute) = rest.split_first()?;
        match *section {
            "jobs" if attribute == ["triggers", "manual"] => Some(Cast::Bool),
            "services" | "jobs" => service_cast(attribute),
            "networks" => match attribute {
                ["external" | "internal" | "attachable" | "enable_ipv4" | "enable_ipv6"] => Some(Cast::Bool),
                _ => None,
            },
            "volumes" | "secrets" | "configs" => (attribute == ["external"]).then_some(Cast::Bool),
            _ => None,
        }
    }
}

fn service_cast(attribute: &[&str]) -> Option<Cast> {
    const INT64: Cast = Cast::Integer { function: "ParseInt" };
    const INT: Cast = Cast::Integer { function: "Atoi" };
    Some(match attribute {
        [
            "cpu_count" | "cpu_period" | "cpu_quota" | "cpu_rt_period" | "cpu_rt_runtime" | "cpu_shares"
            | "oom_score_adj" | "pids_limit",
        ] => INT64,
        ["cpus"] => Cast::Float32,
        ["scale"]
        | ["ulimits", _]
        | ["ulimits", _, "hard" | "soft"]
        | ["ports", "[]", "target"]
        | ["healthcheck", "retries"]
        | ["deploy", "replicas"]
        | ["deploy", "update_config" | "rollback_config", "parallelism"]
        | ["deploy", "restart_policy", "max_attempts"]
        | ["deploy", "placement", "max_replicas_per_node"] => INT,
        ["cpu_percent"] | ["deploy", "update_config" | "rollback_config", "max_failure_ratio"] => Cast::Float64,
        ["init" | "privileged" | "read_only" | "stdin_open" | "tty" | "oom_kill_disable"]
        | ["healthcheck", "disable"]
        | ["volumes", "[]", "read_only"]
        | ["volumes", "[]", "volume", "nocopy"] => Cast::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::yaml::{Limits, parse};

    fn document(text: &str) -> Node {
        parse("f".into(), text, &Limits::default()).unwrap().remove(0)
    }

    fn lookup(name: &str) -> Option<String> {
        (name == "A").then(|| "5".to_owned())
    }

    #[test]
    fn values_are_interpolated_and_cast_by_their_path_and_keys_are_not() {
        let mut node = document(
            "services: {a: {scale: $A, image: $A, cpus: '1_0.5', tty: yes, ports: [{target: '$A', published: '1'}],
             labels: {$A: $A}, ulimits: {n: {soft: '1', hard: $A}}}}\n\
             volumes: {a.b: {external: 'true'}, c: {external: 'On'}}",
        );
        interpolate_tree(&mut node, &lookup, &mut |_| {}, usize::MAX).unwrap();
        let expected = document(
            "services: {a: {scale: 5, image: '5', cpus: 10.5, tty: true, ports: [{target: 5, published: '1'}],
             labels: {$A: '5'}, ulimits: {n: {soft: 1, hard: 5}}}}\n\
             volumes: {a.b: {external: 'true'}, c: {external: true}}",
        );
        assert_eq!(node, expected);
    }

    #[test]
    fn all_errors_are_told_with_place_and_path() {
        let mut node = document("services:\n  a:\n    tty: '${U}'\n    ports:\n      - target: x\n    image: ${\n");
        let errors = interpolate_tree(&mut node, &lookup, &mut |_| {}, usize::MAX).unwrap_err();
        let told: Vec<String> = errors.iter().map(|error| format!("{} {} {error}", error.place, error.path)).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        f:3:10 services.a.tty failed to cast to expected type: invalid boolean
        f:5:17 services.a.ports[0].target failed to cast to expected type: strconv.Atoi: parsing "x": invalid syntax
        f:6:12 services.a.image invalid interpolation format, you may need to escape any $ with another $
        "#);
    }
}
