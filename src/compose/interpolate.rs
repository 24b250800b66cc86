//! Puts variables into text: `$X`, `${X}`, `${X:-default}` and the like, with Compose's corner cases.

mod tree;

pub use self::tree::{TreeError, interpolate_tree};

/// Defaults inside defaults, beyond which a text is refused.
const MAX_DEPTH: usize = 100;

/// Bytes that one text may grow to.
const MAX_TEXT: usize = 4 << 20;

/// Why a text cannot be interpolated. No variant holds a variable's value or the text itself: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpolateError {
    /// A `${` that starts no expression.
    #[error("invalid interpolation format, you may need to escape any $ with another $")]
    Format,
    /// `${X:?reason}` or `${X?reason}` whose variable is missing.
    #[error("required variable {name} is missing a value{}{reason}", if .reason.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        name: String,
        /// What the file says about it, before anything is put into it.
        reason: String,
    },
    /// The result is no value of the type that belongs at its path.
    #[error("failed to cast to expected type: {0}")]
    Cast(String),
    /// A hostile text.
    #[error("text grows too large, or its defaults are nested more than {MAX_DEPTH} deep")]
    TooLarge,
}

/// Interpolates a text; `warn` is told the names of unset variables that have no default.
///
/// # Errors
///
/// The first fault of the text. What stands behind it is still looked at, for its warnings.
pub fn interpolate(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    warn: &mut dyn FnMut(&str),
) -> Result<String, InterpolateError> {
    if !text.contains('$') {
        return Ok(text.to_owned());
    }
    substitute(text, &mut Context { lookup, warn, depth: 0 })
}

struct Context<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    warn: &'a mut dyn FnMut(&str),
    depth: usize,
}

/// What an expression does with its word, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Default,
    Alternative,
    Required,
}

/// A `$` and what belongs to it; ends are positions in the text.
enum Token {
    Escaped,
    Named {
        end: usize,
    },
    /// `greedy` is behind the last `}` of the line, up to which Compose first reads.
    Braced {
        name_end: usize,
        greedy: usize,
    },
    Invalid,
}

fn substitute(text: &str, context: &mut Context<'_>) -> Result<String, InterpolateError> {
    if context.depth > MAX_DEPTH {
        return Err(InterpolateError::TooLarge);
    }
    let mut output = String::with_capacity(text.len());
    let mut fault = None;
    let mut lines = Lines { text, end: 0, last_brace: None };
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('$')) {
        let dollar = at + found;
        output.push_str(text.get(at..dollar).unwrap_or_default());
        at = match token(text, dollar, &mut lines) {
            None => {
                output.push('$');
                dollar + 1
            }
            Some(Token::Escaped) => {
                output.push('$');
                dollar + 2
            }
            Some(Token::Named { end }) => {
                output.push_str(&plain(text.get(dollar + 1..end).unwrap_or_default(), context));
                end
            }
            Some(Token::Invalid) => {
                fault.get_or_insert(InterpolateError::Format);
                dollar + 2
            }
            Some(Token::Braced { name_end, greedy }) => {
                let whole = text.get(dollar..greedy).unwrap_or_default();
                let closing = closing_brace(whole).unwrap_or(whole.len().saturating_sub(1));
                let end = dollar + closing + 1;
                let name = text.get(dollar + 2..name_end).unwrap_or_default();
                let operation = text.get(name_end..end.saturating_sub(1)).unwrap_or_default();
                match expression(name, operation, context) {
                    Ok(value) => output.push_str(&value),
                    Err(error) => {
                        fault.get_or_insert(error);
                    }
                }
                end
            }
        };
        if output.len() > MAX_TEXT {
            return Err(InterpolateError::TooLarge);
        }
    }
    output.push_str(text.get(at..).unwrap_or_default());
    match fault {
        Some(error) => Err(error),
        None => Ok(output),
    }
}

/// A text for an error: the start of a long one says enough.
fn shown(text: &str) -> String {
    const MOST_SHOWN: usize = 1000;
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The last `}` of the line that a position is in, found once a line.
struct Lines<'a> {
    text: &'a str,
    end: usize,
    last_brace: Option<usize>,
}

impl Lines<'_> {
    fn last_brace(&mut self, from: usize) -> Option<usize> {
        if from >= self.end {
            let rest = self.text.get(from..)?;
            self.end = from + rest.find('\n').map_or(rest.len(), |length| length + 1);
            self.last_brace = self.text.get(from..self.end)?.rfind('}').map(|at| from + at);
        }
        self.last_brace.filter(|brace| *brace >= from)
    }
}

fn is_name_start(character: char) -> bool {
    // The two that Go's case folding takes for `s` and `k`.
    character == '_' || character.is_ascii_alphabetic() || matches!(character, '\u{17f}' | '\u{212a}')
}

fn name_length(text: &str) -> usize {
    let mut characters = text.char_indices();
    match characters.next() {
        Some((_, first)) if is_name_start(first) => characters
            .find(|(_, character)| !(is_name_start(*character) || character.is_ascii_digit()))
            .map_or(text.len(), |(at, _)| at),
        _ => 0,
    }
}

/// What stands at a `$`, or `None` if it is just that.
fn token(text: &str, dollar: usize, lines: &mut Lines<'_>) -> Option<Token> {
    let rest = text.get(dollar + 1..)?;
    if rest.starts_with('$') {
        return Some(Token::Escaped);
    }
    let Some(braced) = rest.strip_prefix('{') else {
        let length = name_length(rest);
        return (length > 0).then_some(Token::Named { end: dollar + 1 + length });
    };
    let length = name_length(braced);
    if length == 0 {
        return Some(Token::Invalid);
    }
    let name_end = dollar + 2 + length;
    let after = braced.get(length..)?;
    if after.strip_prefix(':').unwrap_or(after).starts_with(['-', '+', '?']) {
        if let Some(last) = lines.last_brace(name_end) {
            return Some(Token::Braced { name_end, greedy: last + 1 });
        }
    } else if after.starts_with('}') {
        return Some(Token::Braced { name_end, greedy: name_end + 1 });
    }
    Some(Token::Invalid)
}

/// Where the first expression ends, by counting braces; the byte behind each `{` is skipped, as Compose does.
fn closing_brace(expression: &str) -> Option<usize> {
    let mut open = 0usize;
    let mut bytes = expression.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'}' => {
                open = open.saturating_sub(1);
                if open == 0 {
                    return Some(at);
                }
            }
            b'{' => {
                open += 1;
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

fn plain(name: &str, context: &mut Context<'_>) -> String {
    (context.lookup)(name).unwrap_or_else(|| {
        (context.warn)(name);
        String::new()
    })
}

fn expression(name: &str, operation: &str, context: &mut Context<'_>) -> Result<String, InterpolateError> {
    let (empty_counts, operation) = match operation.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, operation),
    };
    let mut characters = operation.chars();
    let operator = match characters.next() {
        Some('-') => Operator::Default,
        Some('+') => Operator::Alternative,
        Some('?') => Operator::Required,
        _ => return Ok(plain(name, context)),
    };
    context.depth += 1;
    // The word counts even when it is not used: a required variable in it is required.
    let word = substitute(characters.as_str(), context);
    context.depth -= 1;
    let word = word?;
    let value = (context.lookup)(name);
    let present = value.as_ref().is_some_and(|value| !empty_counts || !value.is_empty());
    match operator {
        Operator::Default => Ok(value.filter(|_| present).unwrap_or(word)),
        Operator::Alternative => Ok(if present { word } else { value.unwrap_or_default() }),
        Operator::Required => {
            let reason = || shown(characters.as_str());
            let required = || InterpolateError::Required { name: name.to_owned(), reason: reason() };
            value.filter(|_| present).ok_or_else(required)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "E" => Some(String::new()),
            "D" => Some("${A}".to_owned()),
            _ => None,
        }
    }

    fn run(text: &str) -> Result<String, InterpolateError> {
        interpolate(text, &lookup, &mut |_| {})
    }

    const FORMAT: Result<String, InterpolateError> = Err(InterpolateError::Format);

    #[test]
    fn a_long_text_full_of_faults_is_refused_soon_and_briefly() {
        for fault in ["${", "${A", "${A:x}"] {
            let error = interpolate(&fault.repeat(200_000), &|_| None, &mut |_| {}).unwrap_err();
            assert!(error.to_string().len() < 2000, "{fault}");
        }
    }

    #[test]
    fn every_operator_does_what_its_table_says() {
        for (text, result) in [
            ("$A-${A}", "a-a"),
            ("$U${U}", ""),
            ("${A:-w}${E:-w}${U:-w}", "aww"),
            ("${A-w}${E-w}${U-w}", "aw"),
            ("${A:+w}[${E:+w}][${U:+w}]", "w[][]"),
            ("${A+w}${E+w}[${U+w}]", "ww[]"),
            ("${A:?w}${A?w}${E?w}", "aa"),
            ("${D}", "${A}"),
            ("${U:-${U:-$A}}", "a"),
            ("${U:-a:-b?c+d 'e' \"f\"}", "a:-b?c+d 'e' \"f\""),
        ] {
            assert_eq!(run(text), Ok(result.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_dollar_that_starts_nothing_is_itself() {
        for text in ["$1", "$ ", "$(x)", "a$", "$.", "$-", "$}"] {
            assert_eq!(run(text), Ok(text.to_owned()));
        }
        assert_eq!(run("$$A$$$A$${A}"), Ok("$A$a${A}".to_owned()));
    }

    #[test]
    fn braces_are_matched_greedily_and_counted_as_compose_does() {
        for (text, result) in [
            ("${U:-{x}", "{x"),
            ("${U:-{}}", "{}"),
            ("${U:-a}b}", "ab}"),
            ("${U:-a}${A}", "aa"),
            ("${U:-a} ${U:-b}", "a b"),
        ] {
            assert_eq!(run(text), Ok(result.to_owned()), "{text}");
        }
        assert_eq!(run("${U:-{}}${A}"), FORMAT);
        assert_eq!(run("${U:-a\nb}"), FORMAT);
        assert_eq!(run("${A}\n${U:-b}"), Ok("a\nb".to_owned()));
    }

    #[test]
    fn what_is_no_expression_is_an_error_that_does_not_quote_the_text() {
        for text in ["${", "${}", "${ A}", "${1A}", "${A:x}", "${A.b}", "${A:=x}", "x${A"] {
            assert_eq!(run(text), FORMAT, "{text}");
        }
        assert_eq!(run("${U:-a}${}}"), FORMAT);
    }

    #[test]
    fn a_required_variable_is_required_even_in_an_unused_default() {
        let required = |name: &str, reason: &str| {
            Err(InterpolateError::Required { name: name.to_owned(), reason: reason.to_owned() })
        };
        assert_eq!(run("${U:?no $A}"), required("U", "no $A"), "the reason shows no variable's value");
        assert_eq!(run("${E:?}"), required("E", ""));
        assert_eq!(run("${A:-${U?x}}"), required("U", "x"));
        assert_eq!(run("${U?x}").unwrap_err().to_string(), "required variable U is missing a value: x");
        assert_eq!(run("${U?}").unwrap_err().to_string(), "required variable U is missing a value");
    }

    #[test]
    fn unset_names_are_told_unless_they_have_a_default() {
        let mut unset = Vec::new();
        interpolate("$U ${V} ${W:-x} ${W+x} ${W:-$X}", &lookup, &mut |name| unset.push(name.to_owned())).unwrap();
        assert_eq!(unset, ["U", "V", "X"]);
    }

    #[test]
    fn hostile_texts_end_soon() {
        assert_eq!(
            run(&format!("{}{}", "${U:-".repeat(200_000), "}".repeat(200_000))),
            Err(InterpolateError::TooLarge)
        );
        assert!(run(&"${U:-x}".repeat(200_000)).is_ok());
        assert!(run(&"${U:-{".repeat(200_000)).is_err());
        assert!(run(&"${U:-{x}".repeat(200_000)).is_err());
        let big = |_: &str| Some("x".repeat(1 << 20));
        assert_eq!(interpolate(&"$A".repeat(100), &big, &mut |_| {}), Err(InterpolateError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([$ {}:AUE?+-]|\\$\\{U|\\$\\{A:-|\n|é){0,40}") {
            let _ = run(&text);
        }

        #[test]
        fn an_escaped_text_comes_back(text in ".{0,60}") {
            prop_assert_eq!(run(&text.replace('$', "$$")), Ok(text));
        }
    }
}
