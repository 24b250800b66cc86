//! The `.env` grammar: characters, not lines, with quotes that may span lines.

use std::collections::BTreeMap;

use super::interpolate::{InterpolateError, interpolate};

/// Why a text is no env file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct DotenvError {
    /// Line of the file, from 1.
    pub line: u32,
    /// What is wrong there.
    pub kind: DotenvErrorKind,
}

/// What is wrong in an env file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant says it")]
pub enum DotenvErrorKind {
    #[error("key cannot contain a space")]
    SpaceInKey,
    #[error("unexpected character {character:?} in variable name {line:?}")]
    Character { character: String, line: String },
    #[error("zero length string")]
    NoKey,
    #[error("unterminated quoted value {0}")]
    Unterminated(String),
    #[error(transparent)]
    Interpolate(#[from] InterpolateError),
    #[error("no variable name on line '{0}'")]
    NoName(String),
    #[error("variable '{0}' contains whitespaces")]
    RawKey(String),
    #[error("line is longer than {MAX_RAW_LINE} bytes")]
    LongLine,
}

/// Bytes of a line of a raw env file from which Compose gives up.
const MAX_RAW_LINE: usize = 64 << 10;

/// Reads an env file.
///
/// A key without a value is taken from `lookup`, or left out. `$X` in a value looks in `lookup`, then at the keys before
/// it; `warn` is told the names that are in neither. Of equal keys the last wins.
///
/// # Errors
///
/// The first fault: the parser cannot know where the next statement starts.
pub fn parse(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    warn: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, String>, DotenvError> {
    let mut values = BTreeMap::new();
    parse_onto(&mut values, text, lookup, warn)?;
    Ok(values)
}

/// As [`parse`], onto the keys of the files before, which `$X` sees as if they stood in this one.
pub(super) fn parse_onto(
    values: &mut BTreeMap<String, String>,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    warn: &mut dyn FnMut(&str),
) -> Result<(), DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { whole: text, rest: text };
    while reader.skip_to_statement() {
        let (key, inherited) = reader.key()?;
        if key.contains(' ') {
            return Err(reader.error(DotenvErrorKind::SpaceInKey));
        }
        if inherited {
            if let Some(value) = lookup(key) {
                values.insert(key.to_owned(), value);
            }
            continue;
        }
        let value = reader.value(&|name| lookup(name).or_else(|| values.get(name).cloned()), warn)?;
        values.insert(key.to_owned(), value);
    }
    Ok(())
}

/// Reads an env file of `format: raw`: one `KEY=value` a line, the value as it stands.
///
/// # Errors
///
/// The first line that has no key, or blanks in it.
pub fn parse_raw(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut values = BTreeMap::new();
    for (number, line) in text.split('\n').enumerate() {
        let error = |kind| DotenvError { line: u32::try_from(number + 1).unwrap_or(u32::MAX), kind };
        if line.len() >= MAX_RAW_LINE {
            return Err(error(DotenvErrorKind::LongLine));
        }
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            return Err(error(DotenvErrorKind::NoName(line.to_owned())));
        }
        if key.contains([' ', '\t']) {
            return Err(error(DotenvErrorKind::RawKey(key.to_owned())));
        }
        if let Some(value) = value.map(str::to_owned).or_else(|| lookup(key)) {
            values.insert(key.to_owned(), value);
        }
    }
    Ok(values)
}

struct Reader<'a> {
    whole: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn error(&self, kind: DotenvErrorKind) -> DotenvError {
        let read = self.whole.len() - self.rest.len();
        let lines = self.whole.bytes().take(read).filter(|byte| *byte == b'\n').count();
        DotenvError { line: u32::try_from(lines + 1).unwrap_or(u32::MAX), kind }
    }

    /// Skips white space and comments; false at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            self.rest = self.rest.find('\n').and_then(|end| self.rest.get(end..)).unwrap_or_default();
        }
    }

    /// Reads a key, and whether it ended with its line and so inherits its value.
    fn key(&mut self) -> Result<(&'a str, bool), DotenvError> {
        if let Some(exported) = self.rest.strip_prefix("export")
            && exported.starts_with([' ', '\t', '\n', '\r', '\u{c}'])
        {
            self.rest = exported.trim_start_matches(is_blank);
        }
        let text = self.rest;
        if text.is_empty() {
            return Err(self.error(DotenvErrorKind::NoKey));
        }
        let mut key = "";
        let mut inherited = false;
        let mut after = text;
        for (at, character) in text.char_indices() {
            match character {
                '=' | ':' | '\n' => {
                    key = text.get(..at).unwrap_or_default();
                    after = text.get(at + 1..).unwrap_or_default();
                    inherited = character == '\n';
                    break;
                }
                '_' | '.' | '-' | '[' | ']' => {}
                _ if is_blank(character) || character.is_alphabetic() || character.is_numeric() => {}
                _ => {
                    let line = text.split('\n').next().unwrap_or_default().to_owned();
                    return Err(self.error(DotenvErrorKind::Character { character: character.to_string(), line }));
                }
            }
        }
        // At the end of the file a key without `=` is read as the value of an empty key.
        self.rest = after.trim_start_matches(is_blank);
        Ok((key.trim_end(), inherited))
    }

    fn value(
        &mut self,
        lookup: &dyn Fn(&str) -> Option<String>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<String, DotenvError> {
        let text = self.rest;
        let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
            let (line, after) = text.split_once('\n').unwrap_or((text, ""));
            let value = line.split_once(" #").map_or(line, |(value, _)| value).trim_end();
            let value = interpolate(value, lookup, warn).map_err(|error| self.error(error.into()))?;
            self.rest = after;
            return Ok(value);
        };
        let mut value = String::new();
        let mut escaped = false;
        for (at, character) in text.char_indices().skip(1) {
            if character == quote && !escaped {
                if quote == '"' {
                    value = interpolate(&unescape(&value), lookup, warn).map_err(|error| self.error(error.into()))?;
                }
                self.rest = text.get(at + 1..).unwrap_or_default();
                return Ok(value);
            }
            if escaped && character != quote {
                value.push('\\');
            } else if character == '\\' {
                escaped = true;
                continue;
            }
            escaped = false;
            value.push(character);
        }
        let line = text.split('\n').next().unwrap_or_default().to_owned();
        Err(self.error(DotenvErrorKind::Unterminated(line)))
    }
}

/// White space that does not end a line.
fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// Decodes the escapes of a double-quoted value; `\$` becomes `$$`, which interpolation turns into a dollar.
fn unescape(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        output.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        let decoded = match rest.chars().next() {
            Some('a') => "\u{7}",
            Some('b') => "\u{8}",
            Some('f') => "\u{c}",
            Some('n') => "\n",
            Some('r') => "\r",
            Some('t') => "\t",
            Some('v') => "\u{b}",
            Some('\\') => "\\",
            Some('"') => "\"",
            Some('$') => "$$",
            Some('0') => {
                let digits = rest.bytes().skip(1).take(3).take_while(u8::is_ascii_digit).count();
                let (escape, after) = rest.split_at(1 + digits);
                let octal = escape.get(1..).unwrap_or_default();
                match u8::from_str_radix(octal, 8) {
                    Ok(byte) if digits == 3 => output.push(char::from(byte)),
                    // Compose has dropped the zero by the time that it gives up.
                    _ => {
                        output.push('\\');
                        output.push_str(octal);
                    }
                }
                rest = after;
                continue;
            }
            _ => {
                output.push('\\');
                continue;
            }
        };
        output.push_str(decoded);
        rest = rest.get(1..).unwrap_or_default();
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "OUT").then(|| "out".to_owned())
    }

    fn read(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
        parse(text, &lookup, &mut |_| {}).map(|values| values.into_iter().collect())
    }

    fn value(text: &str) -> String {
        read(&format!("K={text}")).unwrap().into_iter().find(|(key, _)| key == "K").unwrap().1
    }

    #[test]
    fn statements_are_found_among_blanks_and_comments() {
        let text = "\u{feff}# one\n\n  export A=1\nB: 2 # two\n\tC = 3\nexport OUT\nNONE\nD.e-f[0]=4\nA=5\n";
        let expected = [("A", "5"), ("B", "2"), ("C", "3"), ("D.e-f[0]", "4"), ("OUT", "out")];
        assert_eq!(read(text).unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_last_key_without_newline_is_the_value_of_no_key() {
        assert_eq!(read("A=1\nOUT").unwrap(), [(String::new(), "OUT".to_owned()), ("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn an_unquoted_value_ends_at_a_comment_or_its_line() {
        for (text, expected) in [
            ("a b  ", "a b"),
            ("a #b", "a"),
            ("a\t#b", "a\t#b"),
            (" #x", "#x"),
            ("http://x/#frag", "http://x/#frag"),
            ("a\\nb", "a\\nb"),
            ("$OUT-${U:-d}", "out-d"),
            ("$$x", "$x"),
            ("a'b'", "a'b'"),
            ("", ""),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn double_quotes_decode_escapes_and_then_interpolate() {
        for (text, expected) in [
            (r#""a\nb\t\"q\" \\ \x""#, "a\nb\t\"q\" \\ \\x"),
            (r#""\$OUT $OUT""#, "$OUT out"),
            (r#""\0101 \01 \0 \0777 \c""#, "A \\1 \\ \\777 \\c"),
            ("\"a\nb\"", "a\nb"),
            (r#""a" # c"#, "a"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn single_quotes_keep_everything_but_an_escaped_quote() {
        assert_eq!(value(r"'a\'b \\ \n $OUT'"), r"a'b \\ \n $OUT");
    }

    #[test]
    fn parsing_goes_on_right_behind_a_closing_quote() {
        assert_eq!(read("P=\"a\"b=1\n").unwrap(), [("P".into(), "a".into()), ("b".into(), "1".into())]);
        assert_eq!(read("P=\"a\" garbage\n").unwrap(), [("P".into(), "a".into())]);
        assert!(read("P='it''s'\n").is_err());
    }

    #[test]
    fn values_see_the_outside_before_the_keys_above() {
        assert_eq!(
            read("OUT=in\nA=${OUT}\nB=${A}\n").unwrap(),
            [("A".into(), "out".into()), ("B".into(), "out".into()), ("OUT".into(), "in".into())]
        );
    }

    #[test]
    fn faults_are_told_with_their_line() {
        let error = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(error("A=1\nB C=2\n"), "line 2: key cannot contain a space");
        assert_eq!(error("A=1\n\nB%=2\n"), "line 3: unexpected character \"%\" in variable name \"B%=2\"");
        assert_eq!(error("A='x\ny\n"), "line 1: unterminated quoted value 'x");
        assert_eq!(
            error("A=${\n"),
            "line 1: invalid interpolation format, you may need to escape any $ with another $: ${"
        );
    }

    #[test]
    fn a_raw_file_keeps_its_values_as_they_stand() {
        let text = "# c\n  A='x' # y\nB=$A\\n\r\nOUT\nNONE\nE=\nF=a=b \n";
        let values = parse_raw(text, &lookup).unwrap();
        let expected = [("A", "'x' # y"), ("B", "$A\\n"), ("E", ""), ("F", "a=b "), ("OUT", "out")];
        assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let error = |text: &str| parse_raw(text, &lookup).unwrap_err().to_string();
        assert_eq!(error("A B=1"), "line 1: variable 'A B' contains whitespaces");
        assert_eq!(error("\n=1"), "line 2: no variable name on line '=1'");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "([A-C='\"\\\\ #\n:$\\{\\}0é]|export ){0,40}|.{0,40}") {
            let _ = (parse(&text, &lookup, &mut |_| {}), parse_raw(&text, &lookup));
        }

        #[test]
        fn a_single_quoted_value_comes_back(text in "[^'\\\\]{0,40}") {
            prop_assert_eq!(value(&format!("'{text}'\n")), text);
        }
    }
}
