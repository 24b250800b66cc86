//! JSON exactly as Go's `encoding/json` writes it, because Compose hashes those bytes.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::ser::Formatter;

/// Compact JSON with `<`, `>`, `&`, U+2028 and U+2029 escaped and floats in their shortest form.
///
/// # Errors
///
/// A float that is not finite: JSON has no word for it.
pub(super) fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, GoFormatter))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        let size = value.abs();
        let exponent = size != 0.0 && !(1e-6..1e21).contains(&size);
        write_float(writer, exponent, &value)
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        let exponent = size != 0.0 && !(1e-6..1e21).contains(&size);
        write_float(writer, exponent, &value)
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, found)) =
            rest.char_indices().find(|(_, c)| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'))
        {
            let (before, from) = rest.split_at(at);
            write!(writer, "{before}\\u{:04x}", u32::from(found))?;
            rest = from.split_at(found.len_utf8()).1;
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Go writes `1` and `1e+21`, where Rust's shortest form has `1.0` and `1e21`.
fn write_float<W, F>(writer: &mut W, exponent: bool, value: &F) -> io::Result<()>
where
    W: ?Sized + Write,
    F: fmt::Display + fmt::LowerExp,
{
    if !exponent {
        return write!(writer, "{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, power)) if !power.starts_with('-') => write!(writer, "{mantissa}e+{power}"),
        _ => writer.write_all(text.as_bytes()),
    }
}

/// JSON that keeps the order of its keys, for rewriting a form into another dialect's.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// An object, in order.
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// The value of a key of an object.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.entries_mut()?.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entries of an object.
    pub(super) fn entries_mut(&mut self) -> Option<&mut Vec<(String, Tree)>> {
        match self {
            Self::Object(entries) => Some(entries),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The items of a list, none where it is something else.
    pub(super) fn items_mut(&mut self) -> impl Iterator<Item = &mut Tree> {
        match self {
            Self::List(items) => items.iter_mut(),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) | Self::Text(_) | Self::Object(_) => {
                [].iter_mut()
            }
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(entries) => {
                let mut object = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    object.serialize_entry(key, value)?;
                }
                object.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Tree, E> {
        i64::try_from(value).map(Tree::Integer).map_err(E::custom)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = object.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = "a<b>&\"\\/\u{2028}\u{2029}\u{7f}é😀\n\r\t\u{8}\u{c}\u{1}\u{1b}";
        assert_eq!(
            to_string(text).unwrap(),
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
            assert_eq!(to_string(&value).unwrap(), text);
            assert_eq!(to_string(&text.parse::<f64>().unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn a_tree_keeps_the_order_of_keys() {
        let text = r#"{"b":1,"a":[null,true,-3,0.25,"x\u003c"],"c":{}}"#;
        let tree: Tree = serde_json::from_str(text).unwrap();
        assert_eq!(to_string(&tree).unwrap(), text);
    }
}
