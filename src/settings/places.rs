//! Lines of a YAML text's keys: the reader of the values knows none.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, Span, StrInput};

/// Keys and list items beyond which a text is no settings file.
const MAX_PLACES: usize = 20_000;

/// Levels of nesting at which a settings file is no longer one.
const MAX_DEPTH: usize = 64;

/// Where each key and list item of a text stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    lines: BTreeMap<Vec<String>, usize>,
    /// Keys that are twice in one mapping.
    pub(super) duplicates: Vec<Twice>,
}

/// A key that is twice in one mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Twice {
    /// Path of the key.
    pub(super) path: Vec<String>,
    /// Line of the second.
    pub(super) line: usize,
    /// Line of the first.
    pub(super) first: usize,
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(super) struct Syntax {
    /// The line, from 1.
    pub(super) line: Option<usize>,
    /// What the parser says.
    pub(super) reason: String,
}

impl Places {
    /// Reads the places of `text`.
    pub(super) fn read(text: &str) -> Result<Self, Syntax> {
        let mut reader = Reader { parser: Parser::new_from_str(text), places: Self::default(), path: Vec::new() };
        let mut documents = 0;
        loop {
            let (event, span) = reader.next()?;
            match event {
                Event::StreamEnd => return Ok(reader.places),
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(syntax(&span, "more than one document"));
                    }
                }
                Event::StreamStart | Event::DocumentEnd => {}
                event => reader.node(&event)?,
            }
        }
    }

    /// Line of `path`, or of its nearest parent that is there.
    pub(super) fn line(&self, path: &[String]) -> Option<usize> {
        (1..=path.len()).rev().find_map(|depth| self.lines.get(path.get(..depth)?)).copied()
    }
}

fn syntax(span: &Span, reason: &str) -> Syntax {
    Syntax { line: Some(span.start.line()), reason: reason.into() }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    places: Places,
    path: Vec<String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Syntax> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(Syntax { line: Some(error.marker().line()), reason: error.info() }),
            None => Err(Syntax { line: None, reason: "the text ends too early".into() }),
        }
    }

    /// Reads the node that `event` begins, to its end.
    fn node(&mut self, event: &Event<'a>) -> Result<(), Syntax> {
        match event {
            Event::MappingStart(..) => self.mapping(),
            Event::SequenceStart(..) => self.sequence(),
            _ => Ok(()),
        }
    }

    fn mapping(&mut self) -> Result<(), Syntax> {
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(syntax(&span, "a key must be a text")),
            };
            self.enter(key, &span)?;
            let (value, _) = self.next()?;
            self.node(&value)?;
            self.path.pop();
        }
    }

    fn sequence(&mut self) -> Result<(), Syntax> {
        for index in 0_usize.. {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                break;
            }
            self.enter(index.to_string(), &span)?;
            self.node(&event)?;
            self.path.pop();
        }
        Ok(())
    }

    fn enter(&mut self, key: String, span: &Span) -> Result<(), Syntax> {
        if self.path.len() == MAX_DEPTH {
            return Err(syntax(span, "nested too deep"));
        }
        if self.places.lines.len() == MAX_PLACES {
            return Err(syntax(span, "more keys and list items than settings have"));
        }
        self.path.push(key);
        let line = span.start.line();
        if let Some(&first) = self.places.lines.get(&self.path) {
            self.places.duplicates.push(Twice { path: self.path.clone(), line, first });
        } else {
            self.places.lines.insert(self.path.clone(), line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn a_key_is_found_in_block_and_flow_style_and_an_unknown_one_at_its_parent() {
        let places = Places::read("a:\n  b: 1\n  c: { d: 2,\n    e: 3 }\nl:\n  - x\n  - y: 1\n").unwrap();
        for (key, line) in [("a", 1), ("a.b", 2), ("a.c.d", 3), ("a.c.e", 4), ("l.0", 6), ("l.1.y", 7), ("l.1.z", 7)] {
            assert_eq!(places.line(&path(key)), Some(line), "{key}");
        }
        assert_eq!(places.line(&path("q")), None);
    }

    #[test]
    fn a_key_given_twice_is_named_with_both_lines() {
        let places = Places::read("a:\n  b: 1\n  c: 2\n  b: 3\n").unwrap();
        assert_eq!(places.duplicates, [Twice { path: path("a.b"), line: 4, first: 2 }]);
    }

    #[test]
    fn nesting_has_a_limit() {
        assert!(Places::read(&"{a: ".repeat(1000)).is_err());
    }

    #[test]
    fn broken_text_is_an_error_with_its_line() {
        let error = Places::read("a: 1\nb: [1\nc: 2\n").unwrap_err();
        assert!(error.line.is_some_and(|line| line >= 2), "{error:?}");
    }
}
