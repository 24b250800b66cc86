//! The `.env` grammar: characters, not lines, with quotes that may span lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget;
use super::interpolate::{InterpolateError, interpolate};
use super::yaml::Place;

/// Why a text is no env file. It says where, and nothing of the text: a mistyped line is a secret as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {kind}", at.line, at.column)]
pub struct DotenvError {
    /// Where in the file.
    pub at: Position,
    /// What is wrong there.
    pub kind: DotenvErrorKind,
}

/// A place in an env file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// Where `rest`, the end of `whole`, begins.
    fn of(whole: &str, rest: &str) -> Self {
        let before = whole.get(..whole.len().saturating_sub(rest.len())).unwrap_or(whole);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
        Self { line: number(before.matches('\n').count()), column: number(line.chars().count()) }
    }

    /// The same place in a file, as it is shown to people.
    pub(super) fn place(self, file: Arc<str>) -> Place {
        Place { file, line: self.line, column: self.column }
    }
}

/// What is wrong in an env file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant says it")]
pub enum DotenvErrorKind {
    #[error("key cannot contain a space")]
    SpaceInKey,
    #[error("unexpected character in a variable's name")]
    Character,
    #[error("zero length string")]
    NoKey,
    #[error("unterminated quoted value")]
    Unterminated,
    #[error("invalid interpolation format, you may need to escape any $ with another $")]
    Format,
    #[error("a required variable is missing a value")]
    Required,
    #[error("the value grows too large, or its defaults are nested too deep")]
    TooLarge,
    #[error("the variables take more memory than loading may take")]
    OutOfMemory,
    #[error("no variable name before the =")]
    NoName,
    #[error("a variable's name contains white space")]
    RawKey,
    #[error("line is longer than {MAX_RAW_LINE} bytes")]
    LongLine,
}

/// Unset names of one file that are told: each is looked up from the start.
const MAX_UNSET: usize = 20;

/// Bytes of a line of a raw env file from which Compose gives up.
const MAX_RAW_LINE: usize = 64 << 10;

/// Reads an env file.
///
/// A key without a value is taken from `lookup`, or left out. `$X` in a value looks in `lookup`, then at the keys before
/// it; `warn` is told where a value uses a name that is in neither. Of equal keys the last wins.
///
/// # Errors
///
/// The first fault: the parser cannot know where the next statement starts.
pub fn parse(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    warn: &mut dyn FnMut(Position),
) -> Result<BTreeMap<String, String>, DotenvError> {
    let mut values = BTreeMap::new();
    parse_onto(&mut values, text, lookup, warn, usize::MAX)?;
    Ok(values)
}

/// As [`parse`], onto the keys of the files before, which `$X` sees as if they stood in this one.
///
/// The variables may take `most` bytes together. Returns how many they take.
pub(super) fn parse_onto(
    values: &mut BTreeMap<String, String>,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    warn: &mut dyn FnMut(Position),
    most: usize,
) -> Result<usize, DotenvError> {
    let mut taken = 0_usize;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { whole: text, rest: text, unset: 0 };
    while reader.skip_to_statement() {
        let (key, inherited) = reader.key()?;
        let before = reader.rest;
        let value = if inherited {
            let Some(value) = lookup(key) else { continue };
            value
        } else {
            reader.value(&|name| lookup(name).or_else(|| values.get(name).cloned()), warn)?
        };
        taken = taken.saturating_add(budget::variable(key, &value));
        if taken > most {
            return Err(DotenvError { at: Position::of(text, before), kind: DotenvErrorKind::OutOfMemory });
        }
        values.insert(key.to_owned(), value);
    }
    Ok(taken)
}

/// Reads an env file of `format: raw`: one `KEY=value` a line, the value as it stands.
///
/// # Errors
///
/// The first line that has no key, or blanks in it.
pub fn parse_raw(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, DotenvError> {
    let mut values = BTreeMap::new();
    parse_raw_onto(&mut values, text, lookup, usize::MAX)?;
    Ok(values)
}

/// As [`parse_raw`], over the keys of the files before. The variables may take `most` bytes together.
pub(super) fn parse_raw_onto(
    values: &mut BTreeMap<String, String>,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    most: usize,
) -> Result<usize, DotenvError> {
    let mut taken = 0_usize;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.split('\n').enumerate() {
        let whole = line;
        let error = |rest, kind| {
            let line = u32::try_from(number + 1).unwrap_or(u32::MAX);
            DotenvError { at: Position { line, ..Position::of(whole, rest) }, kind }
        };
        if line.len() >= MAX_RAW_LINE {
            return Err(error(whole, DotenvErrorKind::LongLine));
        }
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            return Err(error(whole, DotenvErrorKind::NoName));
        }
        if key.contains([' ', '\t']) {
            return Err(error(whole, DotenvErrorKind::RawKey));
        }
        if let Some(value) = value.map(str::to_owned).or_else(|| lookup(key)) {
            taken = taken.saturating_add(budget::variable(key, &value));
            if taken > most {
                return Err(error(whole, DotenvErrorKind::OutOfMemory));
            }
            values.insert(key.to_owned(), value);
        }
    }
    Ok(taken)
}

struct Reader<'a> {
    whole: &'a str,
    rest: &'a str,
    /// Values so far that use a name without a value.
    unset: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, kind: DotenvErrorKind) -> DotenvError {
        DotenvError { at: Position::of(self.whole, self.rest), kind }
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
                    self.rest = text.get(at..).unwrap_or_default();
                    return Err(self.error(DotenvErrorKind::Character));
                }
            }
        }
        let key = key.trim_end();
        if let Some(at) = key.find(' ') {
            self.rest = text.get(at..).unwrap_or_default();
            return Err(self.error(DotenvErrorKind::SpaceInKey));
        }
        // At the end of the file a key without `=` is read as the value of an empty key.
        self.rest = after.trim_start_matches(is_blank);
        Ok((key, inherited))
    }

    fn value(
        &mut self,
        lookup: &dyn Fn(&str) -> Option<String>,
        warn: &mut dyn FnMut(Position),
    ) -> Result<String, DotenvError> {
        let text = self.rest;
        let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
            let (line, after) = text.split_once('\n').unwrap_or((text, ""));
            let value = line.split_once(" #").map_or(line, |(value, _)| value).trim_end();
            let value = self.interpolate(value, lookup, warn)?;
            self.rest = after;
            return Ok(value);
        };
        let mut value = String::new();
        let mut escaped = false;
        for (at, character) in text.char_indices().skip(1) {
            if character == quote && !escaped {
                if quote == '"' {
                    value = self.interpolate(&unescape(&value), lookup, warn)?;
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
        Err(self.error(DotenvErrorKind::Unterminated))
    }

    /// Puts variables into a value that begins here.
    fn interpolate(
        &mut self,
        value: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
        warn: &mut dyn FnMut(Position),
    ) -> Result<String, DotenvError> {
        let (whole, rest, unset) = (self.whole, self.rest, &mut self.unset);
        let result = interpolate(value, lookup, &mut |_| {
            *unset += 1;
            if *unset <= MAX_UNSET {
                warn(Position::of(whole, rest));
            }
        });
        result.map_err(|error| {
            self.error(match error {
                InterpolateError::Required { .. } => DotenvErrorKind::Required,
                InterpolateError::TooLarge => DotenvErrorKind::TooLarge,
                InterpolateError::Format | InterpolateError::Cast(_) => DotenvErrorKind::Format,
            })
        })
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
        assert_eq!(error("A=1\nB C=2\n"), "line 2, column 2: key cannot contain a space");
        assert_eq!(error("A=1\n\nB%=2\n"), "line 3, column 2: unexpected character in a variable's name");
        assert_eq!(error("A='x\ny\n"), "line 1, column 3: unterminated quoted value");
        assert_eq!(error("A=1\n B=${C:?x}"), "line 2, column 4: a required variable is missing a value");
        let format = "invalid interpolation format, you may need to escape any $ with another $";
        assert_eq!(error("é=${\n"), format!("line 1, column 3: {format}"));
    }

    #[test]
    fn a_raw_file_keeps_its_values_as_they_stand() {
        let text = "# c\n  A='x' # y\nB=$A\\n\r\nOUT\nNONE\nE=\nF=a=b \n";
        let values = parse_raw(text, &lookup).unwrap();
        let expected = [("A", "'x' # y"), ("B", "$A\\n"), ("E", ""), ("F", "a=b "), ("OUT", "out")];
        assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let error = |text: &str| parse_raw(text, &lookup).unwrap_err().to_string();
        assert_eq!(error("A B=1"), "line 1, column 1: a variable's name contains white space");
        assert_eq!(error("\n=1"), "line 2, column 1: no variable name before the =");
    }

    proptest! {
        #[test]
        fn no_fault_says_anything_of_the_text(
            before in "[A-C= '\"#$\\{:?%-]{0,6}", after in "[A-C= '\"#$\\}:?%-]{0,6}"
        ) {
            let text = format!("{before}hunter2{after}\n");
            let mut told = String::new();
            for error in [
                parse(&text, &lookup, &mut |at| told.extend([at.line, at.column].map(|number| number.to_string()))).err(),
                parse_raw(&text, &lookup).err(),
            ].into_iter().flatten() {
                told.push_str(&error.to_string());
            }
            prop_assert!(!told.contains("hunter"), "{}", told);
        }

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
