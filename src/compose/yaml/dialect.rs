//! Where go-yaml and granit-parser do not agree on what YAML is: what one takes and the other does not, and plain texts
//! inside `[]` and `{}` that go-yaml reads to another end.

use std::ops::Range;

use granit_parser::{Event, ScalarStyle, Span};

/// A fault at a line (from 1).
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: &'static str,
}

/// A text to put in the place of another, so that granit-parser reads what go-yaml reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) at: Range<usize>,
    pub(super) text: String,
}

/// What is wrong between documents: an unknown directive, or a document behind `...` that nothing starts.
pub(super) fn between_documents(text: &str) -> Option<Fault> {
    let marks = |line: &str, mark: &str| {
        line.strip_prefix(mark).is_some_and(|rest| rest.trim_start() != rest || rest.is_empty())
    };
    let (mut between, mut first) = (true, true);
    for (index, line) in text.lines().enumerate() {
        let message = if !between {
            between = marks(line, "...");
            first = false;
            continue;
        } else if let Some(directive) = line.strip_prefix('%') {
            match directive.split_whitespace().next() {
                Some("YAML" | "TAG") => continue,
                _ => "found unknown directive name, there are %YAML and %TAG",
            }
        } else if line.trim().is_empty() || line.trim_start().starts_with('#') || marks(line, "...") {
            continue;
        } else if first || marks(line, "---") {
            between = false;
            continue;
        } else {
            "did not find expected <document start>: `---` must be behind `...`"
        };
        return Some(Fault { line: index + 1, message });
    }
    None
}

/// What go-yaml refuses of a node. `in_flow` is inside `[]` or `{}`.
pub(super) fn refused(source: &str, event: &Event<'_>, span: Span, in_flow: bool) -> Option<&'static str> {
    let behind_tag = span.tag_span().and_then(|tag| source.get(tag.byte_range()?.end..));
    if behind_tag.is_some_and(|rest| rest.starts_with([',', ']', '}'])) {
        return Some("did not find expected whitespace or line break behind a tag");
    }
    let Event::Scalar(text, style, ..) = event else { return None };
    match style {
        ScalarStyle::Plain if in_flow && text.contains('?') => {
            Some("found a '?' inside [] or {}: such a text needs quotes")
        }
        ScalarStyle::Plain if in_flow && text.starts_with(':') => {
            Some("did not find expected node content: a text that starts with ':' needs quotes inside [] or {}")
        }
        ScalarStyle::Plain if trimmed(text).contains(is_break) => Some(BREAK),
        ScalarStyle::Literal | ScalarStyle::Folded if text.contains(is_break) => Some(BREAK),
        ScalarStyle::DoubleQuoted => span.slice(source).and_then(unknown_escape),
        _ => None,
    }
}

const BREAK: &str = "found a Unicode line break (U+0085, U+2028 or U+2029) in an unquoted text";

/// What ends a line for go-yaml, beside the usual.
pub(super) fn is_break(character: char) -> bool {
    matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// A plain text without the line breaks at its end, which are no part of it for go-yaml.
pub(super) fn trimmed(text: &str) -> &str {
    if text.ends_with(is_break) {
        text.trim_end_matches(|last| is_break(last) || matches!(last, ' ' | '\t'))
    } else {
        text
    }
}

/// An escape that JSON has and YAML 1.1 has not.
fn unknown_escape(source: &str) -> Option<&'static str> {
    let mut rest = source;
    while let Some((_, escape)) = rest.split_once('\\') {
        match escape.as_bytes() {
            [b'/', ..] => return Some("found unknown escape character '/'"),
            [b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..] => {
                return Some("found invalid Unicode character escape code: half of a surrogate pair");
            }
            _ => {}
        }
        let mut characters = escape.chars();
        characters.next();
        rest = characters.as_str();
    }
    None
}

/// What go-yaml takes in the name of an anchor.
pub(super) fn is_anchor(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// `*name:` is a key for go-yaml, where granit-parser wants a space before the colon.
pub(super) fn alias_as_key(name: &str, span: Span) -> Option<Patch> {
    let colon = span.byte_range()?.end.checked_sub(1)?;
    let is_key = name.strip_suffix(':').is_some_and(|name| !name.is_empty() && is_anchor(name));
    is_key.then(|| Patch { at: colon..colon, text: " ".to_owned() })
}

/// A colon that a comma or closing bracket follows: inside `[]` and `{}` it belongs to the plain text before it.
pub(super) fn text_with_colon(source: &str, text: Range<usize>) -> Option<Patch> {
    let behind = source.get(text.end..)?;
    let colon = text.end + (behind.len() - behind.trim_start_matches([' ', '\t']).len());
    let rest = source.get(colon..)?.strip_prefix(':')?;
    if !rest.starts_with([',', ']', '}']) {
        return None;
    }
    let at = text.start..colon + 1;
    let quoted = format!("'{}'", source.get(at.clone())?.replace('\'', "''"));
    Some(Patch { at, text: quoted })
}

/// A dash that a comma or closing bracket follows is a text.
pub(super) fn lone_dash(source: &str, at: usize) -> Option<Patch> {
    let rest = source.get(at..)?.strip_prefix('-')?;
    rest.starts_with([',', ']', '}']).then(|| Patch { at: at..at + 1, text: "'-'".to_owned() })
}

/// In double quotes `\'` is a quote, which granit-parser does not know. `at` is where the quoted text starts.
pub(super) fn escaped_quotes(source: &str, at: usize) -> Option<Patch> {
    let rest = source.get(at..)?.strip_prefix('"')?;
    let mut text = String::from('"');
    let mut characters = rest.char_indices();
    let mut found = false;
    while let Some((offset, character)) = characters.next() {
        let next = if character == '\\' { characters.next() } else { None };
        match next {
            Some((_, '\'')) => {
                text.push('\'');
                found = true;
            }
            Some((_, next)) => text.extend([character, next]),
            None => text.push(character),
        }
        if character == '"' {
            return found.then_some(Patch { at: at..at + offset + 2, text });
        }
    }
    None
}

/// A comment may follow the `|` or `>` of a block at once. `at` is where it stands.
pub(super) fn comment_at_header(source: &str, at: usize) -> Option<Patch> {
    let (before, behind) = source.split_at_checked(at)?;
    let header = before.trim_end_matches(|last: char| last.is_ascii_digit() || matches!(last, '+' | '-'));
    let found = behind.starts_with('#') && header.ends_with(['|', '>']);
    found.then(|| Patch { at: at..at, text: " ".to_owned() })
}

/// The first of these line breaks that ends a comment too early: what is behind it on its line is no comment any more.
pub(super) fn uncommented(source: &str, breaks: impl IntoIterator<Item = usize>) -> Option<Fault> {
    breaks.into_iter().find_map(|at| {
        let (before, behind) = source.split_at_checked(at)?;
        let mut characters = behind.chars();
        characters.next();
        let behind = characters.as_str().split(|next| is_break(next) || next == '\n').next()?.trim();
        if behind.is_empty() || behind.starts_with('#') {
            return None;
        }
        let line = before.matches('\n').count() + 1;
        Some(Fault { line, message: "found a Unicode line break (U+0085, U+2028 or U+2029), which ends a comment" })
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{error, one, value};
    use super::super::{Kind, Tag};

    fn texts(source: &str) -> Vec<String> {
        let Kind::Seq(items) = value(source) else { panic!("{source}") };
        items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn inside_brackets_a_last_colon_or_dash_is_text() {
        assert_eq!(texts("[CMD, http:]"), ["CMD", "http:"]);
        assert_eq!(texts("[cat, -, 'x', -]"), ["cat", "-", "x", "-"]);
        assert_eq!(texts("[it's:, a :, b]"), ["it's:", "a :", "b"]);
        let map = one("{a: b:, c:, d: {e: f:}}");
        let map = map.as_map().unwrap();
        assert_eq!(map.get("a").unwrap().as_str(), Some("b:"));
        assert!(map.get("c:").unwrap().is_null());
        assert_eq!(map.get("d").unwrap().as_map().unwrap().get("e").unwrap().as_str(), Some("f:"));
        assert_eq!(texts("['a', \"b\"]"), ["a", "b"]);
        assert!(one("{'a':}").as_map().unwrap().get("a").unwrap().is_null());
    }

    #[test]
    fn inside_brackets_some_texts_need_quotes() {
        assert!(error("k: [a, http://x/?y]").starts_with("f.yaml:1:8: found a '?'"));
        assert!(error("k: {a: what?}").contains("found a '?'"));
        assert!(error("k: [::1]").contains("starts with ':'"));
        assert_eq!(texts("['a?', \"::1\"]"), ["a?", "::1"]);
        assert_eq!(value("a?b"), Kind::Str("a?b".to_owned()));
    }

    #[test]
    fn an_alias_before_a_colon_is_a_key() {
        let map = one("k: &a foo\nl: {*a: 1}\nm:\n  *a: 2\nn:\n  *a : 3\n");
        for (key, number) in [("l", 1), ("m", 2), ("n", 3)] {
            let inner = map.as_map().unwrap().get(key).unwrap().as_map().unwrap();
            assert_eq!(inner.get("foo").unwrap().kind, Kind::Int(number), "{key}");
        }
        assert!(error("k: {*b: 1}").contains("unknown anchor referenced"));
    }

    #[test]
    fn names_of_anchors_are_plain() {
        assert!(error("k: &a.b 1").contains("did not find expected alphabetic or numeric character"));
        assert!(error("k: &é 1").contains("alphabetic"));
        assert_eq!(value("&a-b_C1 1"), Kind::Int(1));
    }

    #[test]
    fn escapes_of_json_only_are_refused() {
        assert!(error(r#"k: "a\/b""#).contains("found unknown escape character '/'"));
        assert!(error(r#"k: "\ud83d\ude00""#).contains("surrogate"));
        assert_eq!(value(r#""\\/\u00e9""#), Kind::Str("\\/é".to_owned()));
        assert_eq!(value(r"'a\/b'"), Kind::Str("a\\/b".to_owned()));
    }

    #[test]
    fn quotes_may_be_escaped_and_comments_follow_headers() {
        assert_eq!(value(r#""it\'s \"so\", \\""#), Kind::Str("it's \"so\", \\".to_owned()));
        assert_eq!(value("|#c\n  a\n"), Kind::Str("a\n".to_owned()));
        assert_eq!(value(">-#c\n  a\n"), Kind::Str("a".to_owned()));
    }

    #[test]
    fn directives_and_document_ends_are_those_of_yaml_1_1() {
        assert!(error("%YAML 1.2\n---\nk: 1\n").contains("found incompatible YAML document"));
        assert!(error("%FOO\n---\nk: 1\n").starts_with("f.yaml:1:1: found unknown directive name"));
        assert!(error("k: 1\n...\nk: 2\n").starts_with("f.yaml:3:1: did not find expected <document start>"));
        for taken in ["# c\n%YAML 1.1\n---\nk: 1\n", "k: 1\n...\n# c\n...\n", "k: 1\n...\n---\nk: 2\n", "k: |\n  %a\n"]
        {
            one(taken);
        }
    }

    #[test]
    fn a_tag_ends_with_a_space() {
        assert!(error("k: [!!str, x]").contains("behind a tag"));
        assert!(error("k: {a: !reset}").contains("behind a tag"));
        assert_eq!(value("! 1"), Kind::Int(1));
        assert_eq!(value("!"), Kind::Null);
        assert_eq!(value("! '1'"), Kind::Str("1".to_owned()));
    }

    #[test]
    fn unicode_line_breaks_end_lines() {
        assert!(error("k: a\u{2028}  b\n").contains("Unicode line break"));
        assert!(error("# a\u{2028} b\nk: 1\n").starts_with("f.yaml:1:1: found a Unicode line break"));
        assert!(error("k: |\n  a\u{85}b\n").contains("Unicode line break"));
        assert_eq!(value("a\u{2028} \n"), Kind::Str("a".to_owned()));
        assert_eq!(value("1 # a\u{2028}\n"), Kind::Int(1));
        assert_eq!(value("'a\u{2028}b'"), Kind::Str("a\u{2028}b".to_owned()));
    }

    #[test]
    fn what_is_reset_beside_a_merge_key_is_what_that_brings() {
        let map = one("x: &x {a: 1, b: 2}\nk:\n  <<: *x\n  a: !reset null\n");
        let inner = map.as_map().unwrap().get("k").unwrap().as_map().unwrap();
        let reset = inner.get("a").unwrap();
        assert_eq!((reset.tag, &reset.kind), (Some(Tag::Override), &Kind::Int(1)));
        assert_eq!(inner.get("b").unwrap().tag, None);
    }
}
