//! The tree: values, with a place and perhaps a tag on each.

use std::fmt;
use std::sync::Arc;

use super::map::Map;

/// Where a value or key stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file, as it is shown to people.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A Compose tag: what merging does with the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `!reset`: the attribute goes, here and in the files before. Its value means nothing.
    Reset,
    /// `!override`: the attribute replaces that of the files before, unmerged.
    Override,
}

/// A value, its tag and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// The Compose tag; any other tag only decides how a scalar is read.
    pub tag: Option<Tag>,
    /// Where the value starts.
    pub place: Place,
    /// The value.
    pub kind: Kind,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of 64 bits, with or without sign.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Str(String),
    /// A date or time, in RFC 3339. Only extensions (`x-…`) may hold one.
    Timestamp(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// Nodes are equal when their values are, wherever they stand.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag && self.kind == other.kind
    }
}

impl Node {
    /// A node without a tag.
    pub fn new(place: Place, kind: Kind) -> Self {
        Self { tag: None, place, kind }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Kind::Str(text) = &self.kind { Some(text) } else { None }
    }

    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Kind::Map(map) = &self.kind { Some(map) } else { None }
    }

    /// The mapping, to change it.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Kind::Map(map) = &mut self.kind { Some(map) } else { None }
    }

    /// The list, if it is one.
    pub fn as_seq(&self) -> Option<&[Node]> {
        if let Kind::Seq(items) = &self.kind { Some(items) } else { None }
    }

    /// The list, to change it.
    pub fn as_seq_mut(&mut self) -> Option<&mut Vec<Node>> {
        if let Kind::Seq(items) = &mut self.kind { Some(items) } else { None }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }
}

/// Takes the `!reset` nodes out of a tree, clears its `!override` tags, and returns the paths of both, in order.
///
/// Inside an overriding value nothing is looked for: it is taken as it is.
pub fn take_tags(node: &mut Node) -> Vec<Vec<String>> {
    fn visit(node: &mut Node, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> bool {
        match node.tag.take() {
            Some(Tag::Reset) => {
                found.push(path.clone());
                return false;
            }
            Some(Tag::Override) => {
                found.push(path.clone());
                return true;
            }
            None => {}
        }
        match &mut node.kind {
            Kind::Seq(items) => {
                let mut index = 0;
                items.retain_mut(|item| {
                    path.push(index.to_string());
                    index += 1;
                    let keep = visit(item, path, found);
                    path.pop();
                    keep
                });
            }
            Kind::Map(map) => map.retain_mut(|entry| {
                path.push(entry.key.clone());
                let keep = visit(&mut entry.value, path, found);
                path.pop();
                keep
            }),
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Timestamp(_) => {}
        }
        true
    }
    let mut found = Vec::new();
    if !visit(node, &mut Vec::new(), &mut found) {
        node.kind = Kind::Null;
    }
    found
}

/// Visits all nodes below one, and drops those for which `keep` says no.
pub(super) fn each_child(node: &mut Node, keep: &mut dyn FnMut(&mut Node) -> bool) {
    match &mut node.kind {
        Kind::Seq(items) => items.retain_mut(|item| {
            let kept = keep(item);
            if kept {
                each_child(item, keep);
            }
            kept
        }),
        Kind::Map(map) => map.retain_mut(|entry| {
            let kept = keep(&mut entry.value);
            if kept {
                each_child(&mut entry.value, keep);
            }
            kept
        }),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Timestamp(_) => {}
    }
}
