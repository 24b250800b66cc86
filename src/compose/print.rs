//! A project as `docker compose config --format json` prints it, byte for byte.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::number::{json_f32_text, json_f64_text};
use super::project::Project;

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
    let formatter = GoFormatter { pretty: PrettyFormatter::new() };
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
        map.serialize_entry("name", &project.name)?;
        if !project.networks.is_empty() {
            map.serialize_entry("networks", &project.networks)?;
        }
        if !project.secrets.is_empty() {
            map.serialize_entry("secrets", &project.secrets)?;
        }
        map.serialize_entry("services", &project.services)?;
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

/// Go's `json.MarshalIndent`: two spaces, shortest floats, and `<`, `>`, `&`, U+2028 and U+2029 escaped.
struct GoFormatter<'a> {
    pretty: PrettyFormatter<'a>,
}

impl Formatter for GoFormatter<'_> {
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
        self.pretty.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(writer)
    }
}

fn finite(finite: bool) -> io::Result<()> {
    if finite { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "number is not finite")) }
}
