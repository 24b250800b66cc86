//! Text that came from outside, made safe to show: names, output, errors of servers.
//!
//! A terminal obeys what is written to it, and a log reader takes a line for an event. So whatever we did not write
//! ourselves passes one of these functions before it reaches a text log or a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The text as one line: line breaks and tabs are escaped too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, is_obeyed, written)
}

/// The text with its line breaks and tabs; everything else that a terminal obeys is escaped.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |letter| is_obeyed(letter) && !matches!(letter, '\n' | '\t'), written)
}

/// A program's output as it comes: pieces may end within a letter or a colour, which are shown once they are whole.
#[derive(Debug, Default)]
pub struct OutputPieces {
    rest: Vec<u8>,
}

impl OutputPieces {
    /// Longest unfinished colour that is waited for, in bytes.
    const LONGEST_COLOR: usize = 32;

    /// What of the output so far can be shown now.
    pub fn add(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(piece);
        let unfinished = Self::unfinished(&bytes);
        self.rest = bytes.split_off(bytes.len() - unfinished);
        output(&String::from_utf8_lossy(&bytes))
    }

    /// What never was finished.
    pub fn end(&mut self) -> String {
        output(&String::from_utf8_lossy(&std::mem::take(&mut self.rest)))
    }

    /// Bytes at the end that more may follow on.
    fn unfinished(bytes: &[u8]) -> usize {
        let invalid = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        if std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) {
            return invalid.len();
        }
        let Some(color) = bytes.rsplit(|byte| *byte == 0x1b).next().filter(|color| color.len() < bytes.len()) else {
            return 0;
        };
        let begun = color.first().is_none_or(|first| *first == b'[')
            && color.iter().skip(1).all(|byte| byte.is_ascii_digit() || *byte == b';');
        if begun && color.len() < Self::LONGEST_COLOR { color.len() + 1 } else { 0 }
    }
}

/// A program's output with its line breaks, tabs, returns and colours; everything else that a terminal obeys is escaped.
pub fn output(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, part) in text.split('\u{1b}').enumerate() {
        let color = part.strip_prefix('[').and_then(|rest| {
            let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != ';')?;
            rest.get(end..)?.starts_with('m').then_some(end + 1)
        });
        match color.and_then(|length| part.split_at_checked(length + 1)) {
            Some((color, rest)) if at > 0 => {
                safe.push('\u{1b}');
                safe.push_str(color);
                safe.push_str(&shown(rest));
            }
            _ if at > 0 => {
                safe.push_str("\\u{1b}");
                safe.push_str(&shown(part));
            }
            _ => safe.push_str(&shown(part)),
        }
    }
    safe
}

fn shown(text: &str) -> Cow<'_, str> {
    escape(text, |letter| is_obeyed(letter) && !matches!(letter, '\n' | '\t' | '\r'), written)
}

/// The end of a text, of at most so many bytes, cut where a character begins.
pub fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(from..).unwrap_or_default()
}

/// A JSON text in which everything that a terminal obeys is escaped; its meaning stays the same.
///
/// JSON's own writers escape only what is below U+0020.
pub fn json(text: &str) -> Cow<'_, str> {
    let unsafe_in_json = |letter| is_obeyed(letter) && !matches!(letter, '\n' | '\t' | '\r');
    escape(text, unsafe_in_json, |letter, safe| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    })
}

/// True for what changes how text is shown instead of being shown: C0, DEL, C1, separators of lines, direction of writing.
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

fn written(letter: char, safe: &mut String) {
    let _ = write!(safe, "{}", letter.escape_default());
}

fn escape(text: &str, is_unsafe: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let Some(first) = text.find(&is_unsafe) else { return Cow::Borrowed(text) };
    let (clean, rest) = text.split_at(first);
    let mut safe = String::with_capacity(text.len() + 16);
    safe.push_str(clean);
    for letter in rest.chars() {
        if is_unsafe(letter) {
            write(letter, &mut safe);
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_cut_where_a_character_begins() {
        for (most, end) in [(0, ""), (1, ""), (2, "é"), (3, "é"), (4, "éé"), (9, "éé")] {
            assert_eq!(last_bytes("éé", most), end, "{most}");
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_rest_is_not() {
        for (text, safe) in [
            ("plain Ünïcode 😀 \\ \"", "plain Ünïcode 😀 \\ \""),
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("a\u{9b}31m\u{7f}", "a\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}", "a\\u{202e}b\\u{2066}c\\u{200f}\\u{61c}"),
            ("a\r\nb\tc\u{2028}", "a\\r\\nb\\tc\\u{2028}"),
        ] {
            assert_eq!(one_line(text), safe);
        }
        assert_eq!(lines("a\n\tb\rc\u{1b}"), "a\n\tb\\rc\\u{1b}");
    }

    #[test]
    fn a_programs_output_keeps_its_colours_and_moves_no_cursor() {
        let colours = "a\r\u{1b}[1;31mred\u{1b}[0m\n\u{1b}[mx";
        assert_eq!(output(colours), colours);
        assert_eq!(output("\u{1b}[2J\u{1b}]0;x\u{7}\u{1b}[31"), "\\u{1b}[2J\\u{1b}]0;x\\u{7}\\u{1b}[31");
        assert_eq!(output("[1m"), "[1m");
    }

    #[test]
    fn letters_and_colours_that_come_in_pieces_are_shown_whole() {
        let text = "ü\u{1b}[1;31mröd\u{1b}[0m😀\n";
        for size in 1..text.len() {
            let mut pieces = OutputPieces::default();
            let shown: String = text.as_bytes().chunks(size).map(|piece| pieces.add(piece)).collect();
            assert_eq!(shown + &pieces.end(), text, "{size}");
        }
        let mut pieces = OutputPieces::default();
        assert_eq!(pieces.add(b"a\xc3"), "a");
        assert_eq!(pieces.add(b"b\x1b["), "\u{fffd}b");
        assert_eq!(pieces.add(b"2J"), "\\u{1b}[2J");
        assert_eq!(pieces.add(b"\x1b[1"), "");
        assert_eq!(pieces.end(), "\\u{1b}[1");
    }

    proptest::proptest! {
        #[test]
        fn any_text_becomes_one_line_that_no_terminal_obeys(text in "\\PC*|[\\x00-\\u{2100}]*") {
            proptest::prop_assert!(!one_line(&text).chars().any(is_obeyed));
            proptest::prop_assert_eq!(lines(&text).matches('\n').count(), text.matches('\n').count());
        }

        #[test]
        fn escaped_json_means_the_same(text in "[\\x00-\\u{2100}]*|.*") {
            let written = serde_json::to_string(&text).unwrap();
            let safe = json(&written);
            proptest::prop_assert!(!safe.chars().any(is_obeyed));
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
