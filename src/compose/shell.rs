//! Splits a command text into words as Compose does: quotes and backslashes, no expansion.

/// A command text with an open quote, a lone backslash at its end, or a bracket outside of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid command line string")]
pub struct ShellError;

/// The words of a command. What follows a `;`, `&`, `|`, `<` or `>` outside of quotes is dropped.
///
/// # Errors
///
/// When quotes or brackets are not balanced.
pub fn split(text: &str) -> Result<Vec<String>, ShellError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let (mut escaped, mut double, mut single, mut back, mut dollar) = (false, false, false, false, false);
    for character in text.chars() {
        if escaped {
            word.push(character);
            escaped = false;
            started = true;
            continue;
        }
        match character {
            '\\' if !single => {
                escaped = true;
                continue;
            }
            // Only here does the backslash not start a word: a quote is open.
            '\\' => {
                word.push('\\');
                continue;
            }
            ' ' | '\t' | '\r' | '\n' => {
                if single || double || back || dollar {
                    word.push(character);
                } else if started {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
                continue;
            }
            '`' if !single && !double && !dollar => back = !back,
            ')' if !single && !double && !back => dollar = !dollar,
            '(' if !single && !double && !back => {
                if dollar || !word.ends_with('$') {
                    return Err(ShellError);
                }
                dollar = true;
                word.push('(');
                continue;
            }
            '"' if !single && !dollar => {
                started |= double;
                double = !double;
                continue;
            }
            '\'' if !double && !dollar => {
                started |= single;
                single = !single;
                continue;
            }
            ';' | '&' | '|' | '<' | '>' if !(single || double || back || dollar) => {
                // `2>` names a file descriptor, not a word.
                if character == '>' && word.starts_with(|first: char| first.is_ascii_digit()) {
                    started = false;
                }
                break;
            }
            _ => {}
        }
        started = true;
        word.push(character);
    }
    if started {
        words.push(word);
    }
    if escaped || single || double || back || dollar { Err(ShellError) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_end_at_blanks_outside_of_quotes() {
        for (text, words) in [
            ("", &[][..]),
            ("  ", &[]),
            ("echo a  b\t'c d' \"e f\"", &["echo", "a", "b", "c d", "e f"]),
            ("a\\ b \"x\\\"y\" 'x\\y'", &["a b", "x\"y", "x\\y"]),
            ("'' \"\" a''b", &["", "", "ab"]),
            ("$HOME `date x` $(echo a)", &["$HOME", "`date x`", "$(echo a)"]),
            ("echo a | b", &["echo", "a"]),
            ("echo a 2>/dev/null", &["echo", "a"]),
            ("a;b", &["a"]),
            ("'a|b' c", &["a|b", "c"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_is_not_balanced_is_an_error() {
        for text in ["'", "\"a", "a\\", "`a", "(a)", "a)", "$(a"] {
            assert_eq!(split(text), Err(ShellError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[^'\\\\]{1,8}", 0..6)) {
            let text = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&text), Ok(words));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a '\"\\\\`$()|;<>&2\n]{0,20}") {
            let _ = split(&text);
        }
    }
}
