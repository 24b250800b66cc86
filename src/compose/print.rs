//! A project as `docker compose config --format json` prints it, byte for byte.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::jobs::{Schedule, Triggers};
use super::number::{json_f32_text, json_f64_text};
use super::project::{Project, Service};

/// The project as indented JSON, without a newline at its end; each `$` is doubled, so that it could be read again.
///
/// # Errors
///
/// A number that is not finite, or an SSH key with a path: Compose has no JSON for them either.
pub fn config_json(project: &Project) -> Result<String, serde_json::Error> {
    let mut keys = project.services.values().filter_map(|service| service.build.as_ref()).flat_map(|build| &build.ssh);
    if keys.any(|key| key.contains('=')) {
        return Err(serde::ser::Error::custom("an ssh key with a path has no JSON form"));
    }
    let mut bytes = Vec::with_capacity(4096);
    let formatter = GoFormatter(PrettyFormatter::new());
    Whole(project).serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    let text = String::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
    Ok(text.replace('$', "$$"))
}

/// Sections and extensions of a project, in alphabetical order; empty ones are left out, but for the services, and so are
/// the models.
struct Whole<'a>(&'a Project);

impl Serialize for Whole<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(project) = self;
        let mut map = serializer.serialize_map(None)?;
        if !project.configs.is_empty() {
            map.serialize_entry("configs", &project.configs)?;
        }
        let (jobs, services): (BTreeMap<_, _>, BTreeMap<_, _>) =
            project.services.iter().partition(|(_, service)| service.is_job());
        if !jobs.is_empty() {
            let jobs: BTreeMap<_, _> = jobs.into_iter().map(|(name, service)| (name, Job::of(service))).collect();
            map.serialize_entry("jobs", &jobs)?;
        }
        map.serialize_entry("name", &project.name)?;
        if !project.networks.is_empty() {
            map.serialize_entry("networks", &project.networks)?;
        }
        if !project.secrets.is_empty() {
            map.serialize_entry("secrets", &project.secrets)?;
        }
        map.serialize_entry("services", &services)?;
        if !project.volumes.is_empty() {
            map.serialize_entry("volumes", &project.volumes)?;
        }
        // Their names start with `x-`: last in the alphabet of the others.
        for (key, value) in &project.extensions {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A job: what a service has, and what starts it.
#[derive(Serialize)]
struct Job<'a> {
    #[serde(flatten)]
    service: &'a Service,
    triggers: Option<&'a Triggers>,
}

impl<'a> Job<'a> {
    fn of(service: &'a Service) -> Self {
        Self { service, triggers: service.triggers.as_ref() }
    }
}

impl Serialize for Triggers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.manual || self.schedule.is_none() {
            map.serialize_entry("manual", &self.manual)?;
        }
        if let Some(schedule) = &self.schedule {
            map.serialize_entry("schedule", &[schedule])?;
        }
        map.end()
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("concurrency", &self.concurrency)?;
        map.serialize_entry("cron", self.calendar.expression())?;
        map.serialize_entry("missed_fires", &self.missed_fires)?;
        map.serialize_entry("timezone", self.calendar.zone())?;
        map.end()
    }
}

/// A value as compact JSON in Go's spelling, which is what Compose hashes.
///
/// # Errors
///
/// A number that is not finite.
pub(crate) fn go_json<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, GoFormatter(CompactFormatter)))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Go's spelling of numbers and texts: shortest floats, and `<`, `>`, `&`, U+2028 and U+2029 escaped. The layout is the
/// inner formatter's.
struct GoFormatter<F>(F);

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        finite(value.is_finite())?;
        writer.write_all(json_f32_text(value).as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        finite(value.is_finite())?;
        writer.write_all(json_f64_text(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let escaped = |character: &char| matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, character)| escaped(character)) {
            let (before, after) = rest.split_at(at);
            write!(writer, "{before}\\u{:04x}", u32::from(found))?;
            rest = after.strip_prefix(found).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

fn finite(finite: bool) -> io::Result<()> {
    if finite { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "number is not finite")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = "a<b>&\"\\/\u{2028}\u{2029}\u{7f}é😀\n\r\t\u{8}\u{c}\u{1}\u{1b}";
        assert_eq!(
            go_json(text).unwrap(),
            "\"a\\u003cb\\u003e\\u0026\\\"\\\\/\\u2028\\u2029\u{7f}é😀\\n\\r\\t\\b\\f\\u0001\\u001b\""
        );
    }

    #[test]
    fn floats_have_their_shortest_form_without_a_trailing_zero() {
        let cases: [(f32, &str); 9] = [
            (0.5, "0.5"),
            (1.0, "1"),
            (1.2345, "1.2345"),
            (0.33, "0.33"),
            (-2.0, "-2"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
        ];
        for (value, text) in cases {
            assert_eq!(go_json(&value).unwrap(), text);
            assert_eq!(go_json(&text.parse::<f64>().unwrap()).unwrap(), text);
        }
    }
}
