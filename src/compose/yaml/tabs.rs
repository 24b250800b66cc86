//! Tabs where YAML wants spaces: granit-parser lets them pass, Compose does not.

use std::collections::HashSet;

use granit_parser::Span;

/// Where tabs stand in a document that has some, and what makes them harmless.
#[derive(Debug)]
pub(super) struct Tabs<'a> {
    lines: Vec<&'a str>,
    /// Flow collections that are open.
    flow: usize,
    /// Columns of the open block collections.
    blocks: Vec<usize>,
    /// First and last line of what may hold tabs: scalars of several lines, flow collections.
    covered: Vec<(usize, usize)>,
    /// Lines that a plain scalar swallows behind its end.
    swallowed: HashSet<usize>,
}

/// A tab at a line and column (both from 0), and whether it is one too early rather than one before a token.
pub(super) struct Misplaced {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: &'static str,
}

const TOKEN: &str = "found character that cannot start any token: a tab, where only spaces indent";
const INDENTATION: &str = "found a tab character that violates indentation";

impl<'a> Tabs<'a> {
    /// `None` if the text has no tab at all, as good files have.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        text.contains('\t').then(|| Self {
            lines: text.lines().collect(),
            flow: 0,
            blocks: Vec::new(),
            covered: Vec::new(),
            swallowed: HashSet::new(),
        })
    }

    /// A collection starts.
    pub(super) fn open(&mut self, span: Span, flow: bool) {
        if flow || self.flow > 0 {
            self.flow += 1;
        } else {
            self.blocks.push(span.start.col());
        }
    }

    /// A collection that started at `start` ends.
    pub(super) fn close(&mut self, start: Span, end: Span) {
        if self.flow == 0 {
            self.blocks.pop();
            return;
        }
        self.flow -= 1;
        if self.flow == 0 {
            self.cover(start.start.line(), end.end.line());
        }
    }

    /// A scalar was read.
    pub(super) fn scalar(&mut self, span: Span, plain: bool) {
        if self.flow > 0 {
            return;
        }
        let (first, last) = (span.start.line(), span.end.line());
        self.cover(first, last);
        if !plain || span.start == span.end {
            return;
        }
        let rest = self.line(last).chars().skip(span.end.col());
        if !rest.clone().all(is_blank) {
            return;
        }
        let indent = self.blocks.last().map_or(0, |column| column + 1);
        for number in last + 1..=self.lines.len() {
            let line = self.line(number);
            let spaces = line.len() - line.trim_start_matches(' ').len();
            let body = line.trim_start_matches(is_blank);
            if (body.is_empty() || body.starts_with('#')) && spaces >= indent {
                self.swallowed.insert(number);
            }
            if !body.is_empty() || spaces < indent {
                break;
            }
        }
    }

    /// A tab between a node and the dash before it.
    pub(super) fn before(&self, span: Span) -> Option<Misplaced> {
        if self.flow > 0 {
            return None;
        }
        let start = span.start.col();
        let before: Vec<char> = self.line(span.start.line()).chars().take(start).collect();
        let blanks = before.iter().rev().take_while(|character| is_blank(**character)).count();
        let (ahead, blanks) = before.split_at_checked(before.len() - blanks)?;
        let tab = blanks.iter().position(|character| *character == '\t')?;
        let dash = matches!(ahead.last(), Some('-' | '?'))
            && ahead.len().checked_sub(2).and_then(|at| ahead.get(at)).is_none_or(|before| is_blank(*before));
        dash.then(|| Misplaced { line: span.start.line(), column: ahead.len() + tab, message: TOKEN })
    }

    /// The first tab that indents, once all events were seen.
    pub(super) fn misplaced(&self) -> Option<Misplaced> {
        self.lines.iter().enumerate().find_map(|(index, line)| {
            let number = index + 1;
            let column = line.len() - line.trim_start_matches(' ').len();
            let tab = line.get(column..).is_some_and(|rest| rest.starts_with('\t'));
            if !tab || self.swallowed.contains(&number) || self.is_covered(number) {
                return None;
            }
            let behind_plain = index.checked_sub(1).is_some_and(|_| self.swallowed.contains(&index));
            Some(Misplaced { line: number, column, message: if behind_plain { INDENTATION } else { TOKEN } })
        })
    }

    fn cover(&mut self, first: usize, last: usize) {
        if first < last {
            self.covered.push((first, last));
        }
    }

    fn is_covered(&self, number: usize) -> bool {
        let behind = self.covered.partition_point(|(first, _)| *first < number);
        behind.checked_sub(1).and_then(|at| self.covered.get(at)).is_some_and(|(_, last)| number <= *last)
    }

    fn line(&self, number: usize) -> &'a str {
        number.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or_default()
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}
