//! YAML as Compose reads it: a tree with the place of every key and value.
//!
//! granit-parser gives the events; scalars, merge keys, tags and duplicate keys follow go-yaml v3, which Compose uses.
//! Aliases are copied, within a budget. Where the two read a text differently, it is patched and read again.

mod dialect;
mod error;
mod map;
mod node;
mod scalar;
mod tabs;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, StructureStyle};

use self::dialect::Patch;
pub use self::error::{YamlError, YamlErrorKind};
use self::map::merge_into;
pub use self::map::{Entry, Map};
use self::node::each_child;
pub use self::node::{Kind, Node, Place, Tag, take_tags};
use self::tabs::{Misplaced, Tabs};
use super::budget::ENTRY;

/// Bounds on what a file may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub bytes: usize,
    /// Mappings and lists inside each other.
    pub depth: usize,
    /// Bytes that the values take, counted again at every alias.
    pub memory: usize,
}

impl Default for Limits {
    /// 10 MiB, 128 deep, 256 MiB of memory: far beyond any project.
    fn default() -> Self {
        Self { bytes: 10 << 20, depth: 128, memory: 256 << 20 }
    }
}

/// Bytes that may be read again because of patches.
const MOST_READ_AGAIN: usize = 32 << 20;

/// Reads every document of a file.
///
/// A file without any content holds no document; an empty document is a null.
///
/// # Errors
///
/// The first fault: the parser cannot go on behind it.
#[expect(clippy::needless_pass_by_value, reason = "callers name the file for this alone")]
pub fn parse(file: Arc<str>, text: &str, limits: &Limits) -> Result<Vec<Node>, YamlError> {
    let at_line =
        |line: usize| Place { file: Arc::clone(&file), line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 };
    if text.len() > limits.bytes {
        let kind = YamlErrorKind::TooLarge { bytes: text.len(), limit: limits.bytes };
        return Err(YamlError { place: at_line(1), kind });
    }
    if let Some(fault) = dialect::between_documents(text) {
        let kind = YamlErrorKind::Syntax(fault.message.to_owned());
        return Err(YamlError { place: at_line(fault.line), kind });
    }
    let mut text = Cow::Borrowed(text);
    let mut read = 0;
    loop {
        let mut builder = Builder::new(Arc::clone(&file), &text, limits);
        let result = builder.documents();
        read += text.len();
        match builder.patch.take() {
            Some(patch) if result.is_err() && read < MOST_READ_AGAIN => {
                text.to_mut().replace_range(patch.at, &patch.text);
            }
            _ => return result,
        }
    }
}

/// An anchored value and what each alias to it costs.
struct Anchored {
    node: Node,
    cost: usize,
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    file: Arc<str>,
    limits: Limits,
    spent: usize,
    anchors: HashMap<usize, Anchored>,
    /// What the anchors of this document are called.
    names: HashMap<usize, String>,
    /// Anchors of the documents before, by name: with go-yaml they last as long as the file.
    kept: HashMap<String, Anchored>,
    /// Only of a text that has tabs.
    tabs: Option<Tabs<'a>>,
    /// Flow collections that are open.
    flow: usize,
    /// The plain scalar that was read last.
    plain: Range<usize>,
    /// Unicode line breaks that are still to come.
    breaks: VecDeque<usize>,
    /// Those before, outside of scalars.
    stray_breaks: Vec<usize>,
    /// What would help against the error that is returned.
    patch: Option<Patch>,
}

impl<'a> Builder<'a> {
    fn new(file: Arc<str>, text: &'a str, limits: &Limits) -> Self {
        let mut options = Options::default();
        options.block_scalar_eof_without_line_feed = true;
        options.emit_unresolved_aliases = true;
        options.emit_anchor_events = true;
        Self {
            text,
            parser: Parser::new_from_str_with_options(text, options),
            file,
            limits: *limits,
            spent: 0,
            anchors: HashMap::new(),
            names: HashMap::new(),
            kept: HashMap::new(),
            tabs: Tabs::of(text),
            flow: 0,
            plain: 0..0,
            breaks: text.match_indices(dialect::is_break).map(|(at, _)| at).collect(),
            stray_breaks: Vec::new(),
            patch: None,
        }
    }

    fn documents(&mut self) -> Result<Vec<Node>, YamlError> {
        let mut documents = Vec::new();
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_, version) => {
                    if version.is_some_and(|version| (version.major, version.minor) != (1, 1)) {
                        let message = "found incompatible YAML document: its %YAML directive must say 1.1, or go";
                        return Err(self.error(span, YamlErrorKind::Syntax(message.to_owned())));
                    }
                    self.keep_anchors();
                }
                Event::StreamEnd => break,
                event => documents.push(self.node(event, span, 0)?),
            }
        }
        if let Some(tab) = self.tabs.as_ref().and_then(Tabs::misplaced) {
            return Err(self.misplaced(&tab));
        }
        let breaks = self.stray_breaks.iter().chain(&self.breaks).copied();
        match dialect::uncommented(self.text, breaks) {
            Some(fault) => {
                let place = self.place_at(fault.line, 0);
                Err(YamlError { place, kind: YamlErrorKind::Syntax(fault.message.to_owned()) })
            }
            None => Ok(documents),
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, YamlError> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Anchor(anchor, name), span))) => {
                    if !dialect::is_anchor(&name) {
                        let message = "did not find expected alphabetic or numeric character in the name of an anchor";
                        return Err(self.error(span, YamlErrorKind::Syntax(message.to_owned())));
                    }
                    self.names.insert(anchor, name.into_owned());
                }
                Some(Ok(next)) => return Ok(Some(next)),
                Some(Err(error)) => {
                    let marker = error.marker();
                    self.patch = marker.byte_offset().and_then(|at| {
                        let colon = || dialect::text_with_colon(self.text, self.plain.clone());
                        dialect::lone_dash(self.text, at)
                            .or_else(|| dialect::escaped_quotes(self.text, at))
                            .or_else(|| dialect::comment_at_header(self.text, at))
                            .or_else(|| colon().filter(|patch| patch.at.contains(&at)))
                    });
                    let place = self.place_at(marker.line(), marker.col());
                    return Err(YamlError { place, kind: YamlErrorKind::Syntax(error.info()) });
                }
            }
        }
    }

    /// Puts the anchors of a document by, for the documents behind it.
    fn keep_anchors(&mut self) {
        let mut named: Vec<(usize, String)> = self.names.drain().collect();
        named.sort_unstable();
        for (anchor, name) in named {
            if let Some(anchored) = self.anchors.remove(&anchor) {
                self.kept.insert(name, anchored);
            }
        }
        self.anchors.clear();
    }

    /// The next event inside a collection, where the stream cannot end.
    fn inner(&mut self, outer: Span) -> Result<(Event<'a>, Span), YamlError> {
        match self.next()? {
            Some(next) => Ok(next),
            None => Err(self.error(outer, YamlErrorKind::Syntax("unexpected end of the document".to_owned()))),
        }
    }

    fn place_at(&self, line: usize, column: usize) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column.saturating_add(1)).unwrap_or(u32::MAX),
        }
    }

    fn place(&self, span: Span) -> Place {
        self.place_at(span.start.line(), span.start.col())
    }

    fn error(&self, span: Span, kind: YamlErrorKind) -> YamlError {
        YamlError { place: self.place(span), kind }
    }

    fn misplaced(&self, tab: &Misplaced) -> YamlError {
        let place = self.place_at(tab.line, tab.column);
        YamlError { place, kind: YamlErrorKind::Syntax(tab.message.to_owned()) }
    }

    /// Tells the look-out for tabs what was read.
    fn watch_tabs(&mut self, event: &Event<'a>, span: Span) -> Result<(), YamlError> {
        let Some(tabs) = &mut self.tabs else { return Ok(()) };
        let misplaced = tabs.before(span);
        match event {
            Event::Scalar(_, style, ..) => tabs.scalar(span, *style == ScalarStyle::Plain),
            Event::SequenceStart(style, ..) | Event::MappingStart(style, ..) => {
                tabs.open(span, *style == StructureStyle::Flow);
            }
            _ => {}
        }
        misplaced.map_or(Ok(()), |tab| Err(self.misplaced(&tab)))
    }

    /// Refuses what go-yaml does not take.
    fn check_dialect(&mut self, event: &Event<'a>, span: Span) -> Result<(), YamlError> {
        if let Some(message) = dialect::refused(self.text, event, span, self.flow > 0) {
            return Err(self.error(span, YamlErrorKind::Syntax(message.to_owned())));
        }
        if let (Event::Scalar(_, style, ..), Some(range)) = (event, span.byte_range()) {
            while let Some(at) = self.breaks.pop_front_if(|at| *at < range.end) {
                if at < range.start {
                    self.stray_breaks.push(at);
                }
            }
            if *style == ScalarStyle::Plain {
                self.plain = range;
            }
        }
        Ok(())
    }

    fn spend(&mut self, span: Span, cost: usize) -> Result<(), YamlError> {
        self.spent = self.spent.saturating_add(cost);
        let memory = self.limits.memory;
        if self.spent > memory {
            return Err(self.error(span, YamlErrorKind::TooMuchMemory { path: String::new(), memory }));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        if depth > self.limits.depth {
            return Err(self.error(span, YamlErrorKind::TooDeep { limit: self.limits.depth }));
        }
        let before = self.spent;
        let text = if let Event::Scalar(text, ..) = &event { text.len() } else { 0 };
        self.spend(span, ENTRY.saturating_add(text))?;
        self.watch_tabs(&event, span)?;
        self.check_dialect(&event, span)?;
        let flow = match &event {
            Event::SequenceStart(style, ..) | Event::MappingStart(style, ..) => {
                self.flow > 0 || *style == StructureStyle::Flow
            }
            _ => false,
        };
        self.flow += usize::from(flow);
        let place = self.place(span);
        let (anchor, tag, kind) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::UnresolvedAlias(name) => return self.alias_of_earlier_document(&name, span),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                let kind = scalar::read(&text, style == ScalarStyle::Plain, tag)
                    .map_err(|kind| YamlError { place: place.clone(), kind })?;
                (anchor, tag.and_then(compose_tag), kind)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    let (event, item_span) = self.inner(span)?;
                    if event == Event::SequenceEnd {
                        self.close(span, item_span);
                        break;
                    }
                    let index = items.len();
                    items.push(self.node(event, item_span, depth + 1).map_err(|e| inside(e, &format!("[{index}]")))?);
                }
                (anchor, tag.as_deref().and_then(compose_tag), Kind::Seq(items))
            }
            Event::MappingStart(_, anchor, tag) => {
                let map = self.mapping(span, depth)?;
                (anchor, tag.as_deref().and_then(compose_tag), Kind::Map(map))
            }
            _ => return Err(self.error(span, YamlErrorKind::Syntax("unexpected event".to_owned()))),
        };
        self.flow -= usize::from(flow);
        let mut node = Node { tag, place, kind };
        if tag == Some(Tag::Override) {
            each_child(&mut node, &mut |child| {
                child.tag = None;
                true
            });
        }
        if anchor > 0 {
            let cost = self.spent - before;
            // The copy that is kept for the aliases takes memory as well.
            self.spend(span, cost)?;
            let mut kept = node.clone();
            each_child(&mut kept, &mut |child| child.tag != Some(Tag::Reset));
            self.anchors.insert(anchor, Anchored { node: kept, cost });
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, YamlError> {
        let Some(cost) = self.anchors.get(&anchor).map(|anchored| anchored.cost) else {
            return Err(self.error(span, YamlErrorKind::Cycle));
        };
        self.spend(span, cost)?;
        match self.anchors.get(&anchor) {
            Some(anchored) => Ok(anchored.node.clone()),
            None => Err(self.error(span, YamlErrorKind::Cycle)),
        }
    }

    fn close(&mut self, start: Span, end: Span) {
        if let Some(tabs) = &mut self.tabs {
            tabs.close(start, end);
        }
    }

    fn alias_of_earlier_document(&mut self, name: &str, span: Span) -> Result<Node, YamlError> {
        let Some(Anchored { node, cost }) = self.kept.get(name) else {
            self.patch = dialect::alias_as_key(name, span);
            return Err(self.error(span, YamlErrorKind::UnknownAnchor));
        };
        let (node, cost) = (node.clone(), *cost);
        self.spend(span, cost)?;
        Ok(node)
    }

    fn mapping(&mut self, outer: Span, depth: usize) -> Result<Map, YamlError> {
        let mut map = Map::default();
        let mut spelled: HashMap<String, u32> = HashMap::new();
        let mut merge = None;
        loop {
            let (event, key_span) = self.inner(outer)?;
            if event == Event::MappingEnd {
                self.close(outer, key_span);
                break;
            }
            let key = self.key(event, key_span, depth)?;
            self.spend(key_span, key.spelling.len())?;
            let line = self.place(key_span).line;
            if let Some(first) = spelled.insert(key.spelling.clone(), line) {
                return Err(self.error(key_span, YamlErrorKind::DuplicateKey { key: key.spelling, first }));
            }
            let (event, span) = self.inner(key_span)?;
            let value = self.node(event, span, depth + 1).map_err(|error| inside(error, &key.spelling))?;
            if key.merges {
                merge = Some(value);
                continue;
            }
            if let Some(text) = key.text {
                map.insert(text, self.place(key_span), value)
            } else {
                let kind = YamlErrorKind::NonStringKey { path: String::new(), key: key.shown };
                return Err(self.error(key_span, kind));
            };
        }
        if let Some(value) = merge {
            merge_into(&mut map, value)?;
        }
        Ok(map)
    }

    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Key, YamlError> {
        let (spelling, merges) = match &event {
            Event::Scalar(text, style, _, tag) => {
                (text.to_string(), *style == ScalarStyle::Plain && text == "<<" && tag.is_none())
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => (format!("*{}", self.place(span)), false),
            _ => return Err(self.error(span, YamlErrorKind::ComplexKey)),
        };
        let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
        let node = self.node(event, span, depth)?;
        if plain && self.flow > 0 {
            self.patch = dialect::text_with_colon(self.text, self.plain.clone());
            if self.patch.is_some() {
                return Err(self.error(span, YamlErrorKind::Syntax("found a key that is a text".to_owned())));
            }
        }
        let (text, shown) = match node.kind {
            Kind::Str(text) => (Some(text), String::new()),
            Kind::Null => (None, "null".to_owned()),
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Timestamp(_) => (None, spelling.clone()),
            Kind::Seq(_) | Kind::Map(_) => return Err(self.error(span, YamlErrorKind::ComplexKey)),
        };
        Ok(Key { spelling, shown, text, merges })
    }
}

struct Key {
    /// As written: two keys are the same when their spellings are.
    spelling: String,
    /// For the error about a key that is no text.
    shown: String,
    text: Option<String>,
    merges: bool,
}

/// Puts the step that an error passed on its way up in front of its path.
fn inside(mut error: YamlError, step: &str) -> YamlError {
    if let YamlErrorKind::NonStringKey { path, .. } | YamlErrorKind::TooMuchMemory { path, .. } = &mut error.kind {
        let separator = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = format!("{step}{separator}{path}");
    }
    error
}

fn compose_tag(tag: &granit_parser::Tag) -> Option<Tag> {
    match tag.parts() {
        ("!", "reset") => Some(Tag::Reset),
        ("!", "override") => Some(Tag::Override),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Node>, YamlError> {
        parse("f.yaml".into(), text, &Limits::default())
    }

    pub(super) fn one(text: &str) -> Node {
        read(text).unwrap().into_iter().next().unwrap()
    }

    pub(super) fn value(text: &str) -> Kind {
        one(&format!("k: {text}\n")).as_map().unwrap().get("k").unwrap().kind.clone()
    }

    pub(super) fn error(text: &str) -> String {
        let error = read(text).unwrap_err();
        format!("{}: {error}", error.place)
    }

    fn text(text: &str) -> Kind {
        Kind::Str(text.to_owned())
    }

    #[test]
    fn plain_integers_are_read_as_go_reads_them() {
        for (source, number) in [
            ("0777", 0o777),
            ("0o17", 15),
            ("0O7", 7),
            ("0x1F", 31),
            ("0x_1F", 31),
            ("0b11", 3),
            ("1_000", 1000),
            ("1__", 1),
            ("+_1", 1),
            ("+5", 5),
            ("-0x1F", -31),
            ("-0o7", -7),
            ("18446744073709551615", i128::from(u64::MAX)),
            ("!!int \"3\"", 3),
        ] {
            assert_eq!(value(source), Kind::Int(number), "{source}");
        }
    }

    #[test]
    fn plain_floats_are_read_as_go_reads_them() {
        for (source, number) in [
            ("1.10", 1.1),
            ("1e3", 1000.0),
            ("08", 8.0),
            ("0_8", 8.0),
            (".5", 0.5),
            (".5_0", 0.5),
            ("1_23.50_0e1", 1235.0),
            ("-.5", -0.5),
            ("1.", 1.0),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("!!float 3", 3.0),
        ] {
            assert_eq!(value(source), Kind::Float(number), "{source}");
        }
        assert_eq!(value("-.inf"), Kind::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn what_only_looks_like_a_number_stays_text() {
        for source in
            ["12:30", "yes", "on", "1e400", "._5", ".", "0x", "0b2", "0x1p4", "1e", "_1", "-.e1", "2001-13-01", "1.2.3"]
        {
            assert_eq!(value(source), text(source));
        }
        assert_eq!(value("'1'"), text("1"));
        assert_eq!(value("!!str 1"), text("1"));
        assert_eq!(value("!foo 0777"), text("0777"));
        for (source, bytes) in [("aGk=", "hi"), ("aGl=", "hi"), ("aA==", "h"), ("'aG\n\n  k='", "hi"), ("''", "")] {
            assert_eq!(value(&format!("!!binary {source}")), text(bytes), "{source}");
        }
        for source in ["aGk", "aG=k", "a===", "aG k="] {
            assert!(read(&format!("k: !!binary {source}")).is_err(), "{source}");
        }
    }

    #[test]
    fn nulls_and_booleans_are_few() {
        for source in ["", "~", "null", "Null", "NULL", "!!null ''"] {
            assert_eq!(value(source), Kind::Null, "{source}");
        }
        for source in ["true", "True", "TRUE"] {
            assert_eq!(value(source), Kind::Bool(true), "{source}");
        }
        assert_eq!(value("nULL"), text("nULL"));
    }

    #[test]
    fn timestamps_are_told_from_text() {
        for (source, shown) in [
            ("2001-01-02", "2001-01-02T00:00:00Z"),
            ("2001-1-2 3:4:5", "2001-01-02T03:04:05Z"),
            ("2001-12-14t21:59:43.10-05:00", "2001-12-14T21:59:43.1-05:00"),
            ("2001-12-14T21:59:43Z", "2001-12-14T21:59:43Z"),
        ] {
            assert_eq!(value(source), Kind::Timestamp(shown.to_owned()), "{source}");
        }
    }

    #[test]
    fn own_keys_win_over_merged_ones_and_earlier_members_over_later_ones() {
        let merged = one("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 0}\n");
        let map = merged.as_map().unwrap().get("c").unwrap().as_map().unwrap();
        let values: Vec<_> = map.iter().map(|entry| (entry.key.as_str(), entry.value.kind.clone())).collect();
        assert_eq!(values, [("x", Kind::Int(0)), ("y", Kind::Int(1)), ("z", Kind::Int(2))]);
    }

    #[test]
    fn a_quoted_merge_key_is_a_key() {
        assert!(one("'<<': {a: 1}").as_map().unwrap().contains_key("<<"));
    }

    #[test]
    fn faults_are_told_with_their_place() {
        insta::assert_snapshot!(
            [
                error("a: 1\nb:\n  c: 1\n  'c': 2\n"),
                error("a: {<<: 1}"),
                error("a: {<<: {b: 1}, <<: {c: 1}}"),
                error("services:\n  a:\n    environment:\n      - {1: x}\n"),
                error("~: x"),
                error("? [a]\n: b"),
                error("a: &a [*a]"),
                error("a: *b"),
                error("a: !!int 1.5"),
                error("a: \"b"),
                error("\ta: b"),
            ]
            .join("\n"),
            @r#"
        f.yaml:4:3: mapping key "c" already defined at line 3
        f.yaml:1:9: map merge requires map or sequence of maps as the value
        f.yaml:1:17: mapping key "<<" already defined at line 1
        f.yaml:4:10: non-string key in services.a.environment[0]: 1
        f.yaml:1:1: non-string key at top level: null
        f.yaml:1:3: invalid map key: a mapping or list cannot be a key
        f.yaml:1:8: alias refers to the value that it is part of
        f.yaml:1:4: unknown anchor referenced: a text that starts with * stands in quotes
        f.yaml:1:10: cannot decode !!float as a !!int
        f.yaml:1:4: unclosed quote
        f.yaml:1:1: found character that cannot start any token: a tab, where only spaces indent
        "#
        );
    }

    #[test]
    fn a_tab_does_not_indent() {
        for text in
            ["\ta: b", "a:\n\tb: c", "a:\n  \t\n", "a: 'x'\n\t# c\n", "a:\n  -\tb\n", "a:\n- \t- b\n", "a: b\n\t\n"]
        {
            assert!(matches!(read(text).unwrap_err().kind, YamlErrorKind::Syntax(_)), "{text:?}");
        }
    }

    #[test]
    fn a_tab_within_or_behind_a_value_is_let_be() {
        for text in [
            "a:\tb\t# c\n",
            "{\n\ta: b,\n\tc: [\n\t\td ] }\n",
            "a: |\n  b\n  \tc\n",
            "a: 'b\n\tc'\n",
            "a: b\n \t\n \t# c\n",
            "a: b\n \tc\n",
        ] {
            assert!(read(text).is_ok(), "{text:?} {:?}", read(text));
        }
    }

    #[test]
    fn tags_are_taken_out_with_their_paths() {
        let mut node = one("a: !reset 1\nb: [x, !reset y, !override [!reset z]]\nc: !override {d: !override 1}\n");
        assert_eq!(take_tags(&mut node), [vec!["a"], vec!["b", "1"], vec!["b", "2"], vec!["c"]]);
        assert_eq!(node, one("b: [x, [z]]\nc: {d: '1'}\n"));
    }

    #[test]
    fn an_alias_to_a_reset_resets_and_one_to_its_parent_does_not() {
        let mut node = one("a: &a {b: !reset 1}\nc: *a\nd: &d !reset x\ne: *d\n");
        assert_eq!(take_tags(&mut node), [vec!["a", "b"], vec!["d"], vec!["e"]]);
        assert_eq!(node, one("a: {}\nc: {}\n"));
    }

    #[test]
    fn documents_are_told_apart_and_an_empty_file_has_none() {
        assert_eq!(read("").unwrap().len(), 0);
        assert_eq!(read("# nothing\n").unwrap().len(), 0);
        assert_eq!(read("---\n").unwrap().len(), 1);
        assert_eq!(read("a: 1\n---\nb: 2\n---\n").unwrap().len(), 3);
    }

    #[test]
    fn anchors_last_over_documents() {
        let documents = read("a: &x 1\nb: &x 2\n---\nc: *x\nd: &x 3\n---\ne: *x\n").unwrap();
        assert_eq!(documents[1], one("c: 2\nd: 3\n"));
        assert_eq!(documents[2], one("e: 3\n"));
        assert!(read("a: *x\n---\nb: &x 1\n").is_err());
    }

    #[test]
    fn bombs_are_refused() {
        let laughs = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
            let aliases = vec![format!("*a{}", level - 1); 9].join(",");
            format!("{text}a{level}: &a{level} [{aliases}]\n")
        });
        let merges = (1..30).fold("a0: &a0 {x: y}\n".to_owned(), |text, level| {
            let below = level - 1;
            format!("{text}a{level}: &a{level} {{<<: [*a{below}, *a{below}], k{level}: [*a{below}, *a{below}]}}\n")
        });
        let texts = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 10_000].join(","));
        for bomb in [laughs, merges, texts] {
            assert!(matches!(read(&bomb).unwrap_err().kind, YamlErrorKind::TooMuchMemory { .. }));
        }
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&"{a: ".repeat(100_000)).is_err());
        assert!(read(&format!("{}x{}", "[".repeat(100), "]".repeat(100))).is_ok());
    }

    #[test]
    fn a_file_over_the_limit_is_refused_unread() {
        let limits = Limits { bytes: 3, ..Limits::default() };
        let error = parse("f".into(), "abcd", &limits).unwrap_err();
        assert_eq!(error.kind, YamlErrorKind::TooLarge { bytes: 4, limit: 3 });
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn nothing_like_yaml_makes_the_reader_panic(text in "([a&*b!<:\\[\\]{}, \n\"'|>#?-]|<<: |!reset |\n  |: ){0,60}") {
            let _ = read(&text);
        }

        #[test]
        fn a_map_finds_what_was_put_in(keys in proptest::collection::vec("[a-d]{1,2}", 0..40), gone in "[a-d]{1,2}") {
            let place = Place { file: "f".into(), line: 1, column: 1 };
            let mut map = Map::new();
            for (at, key) in keys.iter().enumerate() {
                map.insert(key.clone(), place.clone(), Node::new(place.clone(), Kind::Int(at as i128)));
            }
            map.remove(&gone);
            for key in &keys {
                let last = keys.iter().rposition(|other| other == key).unwrap();
                let expected = (*key != gone).then_some(Kind::Int(last as i128));
                prop_assert_eq!(map.get(key).map(|node| node.kind.clone()), expected);
            }
        }
    }
}
