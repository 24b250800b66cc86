//! MemoryBounds of what Redis may answer, checked on the bytes as they arrive.
//!
//! fred's parser calls itself once per level of nesting and holds an answer as a whole: a server, or what stands in its place,
//! ends the process by 20 kB of nested lists and fills the memory by one long value.

/// Deepest nesting of lists in an answer; `EXEC` over `PUBSUB NUMSUB` has two.
const DEEPEST: usize = 4;

/// Longest line of an error, a status or a length, in bytes.
const LONGEST_LINE: usize = 8 * 1024;

/// What a value in a list costs in memory beside its bytes.
const VALUE_COST: usize = 64;

/// What no Redis answers to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    /// The bytes are no answer.
    #[error("what answers is not redis")]
    NotRedis,
    /// Lists in lists, too many of them.
    #[error("an answer of redis is nested more than {DEEPEST} deep")]
    Nested,
    /// It does not fit.
    #[error("an answer of redis has more than {bound} bytes")]
    TooLong { bound: usize },
}

#[derive(Debug)]
enum State {
    /// At the first byte of a value.
    Kind,
    /// In a line; of one that says a length, the length so far.
    Line { kind: u8, length: Option<Length>, bytes: usize, ends: bool },
    /// In a text, with so many bytes to come.
    Text(usize),
}

#[derive(Debug, Clone, Copy, Default)]
struct Length {
    negative: bool,
    digits: usize,
    value: usize,
}

/// Follows answers of RESP2, byte by byte, and stops at the first that breaks a bound.
#[derive(Debug)]
pub(super) struct Checker {
    /// Most bytes of an answer.
    bound: usize,
    /// What the present answer may still cost.
    left: usize,
    state: State,
    /// Values to come in each list that is open.
    open: Vec<usize>,
}

impl Checker {
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, left: bound, state: State::Kind, open: Vec::with_capacity(DEEPEST) }
    }

    /// Checks the next bytes.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), BadAnswer> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match &mut self.state {
                State::Text(left) => {
                    let taken = rest.len().min(*left);
                    *left -= taken;
                    rest = rest.get(taken..).unwrap_or_default();
                    if *left == 0 {
                        self.value_ends();
                    }
                    continue;
                }
                State::Kind => {
                    let length = match byte {
                        b'$' | b'*' | b':' => Some(Length::default()),
                        b'+' | b'-' => None,
                        _ => return Err(BadAnswer::NotRedis),
                    };
                    self.state = State::Line { kind: byte, length, bytes: 0, ends: false };
                }
                State::Line { kind, length, bytes, ends } => match (byte, *ends) {
                    (b'\r', false) => *ends = true,
                    (b'\n', true) => {
                        let (kind, length) = (*kind, *length);
                        self.line_ends(kind, length)?;
                    }
                    (_, true) => return Err(BadAnswer::NotRedis),
                    (_, false) => {
                        *bytes += 1;
                        if *bytes > LONGEST_LINE {
                            return Err(BadAnswer::NotRedis);
                        }
                        if let Some(length) = length {
                            length.push(byte)?;
                        }
                    }
                },
            }
            rest = after;
            self.cost(1)?;
        }
        Ok(())
    }

    fn cost(&mut self, bytes: usize) -> Result<(), BadAnswer> {
        // What ends an answer costs nothing: the next one has not begun.
        if matches!(self.state, State::Kind) && self.open.is_empty() {
            return Ok(());
        }
        self.left = self.left.checked_sub(bytes).ok_or(BadAnswer::TooLong { bound: self.bound })?;
        Ok(())
    }

    fn line_ends(&mut self, kind: u8, length: Option<Length>) -> Result<(), BadAnswer> {
        let Some(length) = length.filter(|_| kind != b':') else {
            self.value_ends();
            return Ok(());
        };
        if length.digits == 0 {
            return Err(BadAnswer::NotRedis);
        }
        match (kind, length.value) {
            // No value, and an empty list.
            (_, _) if length.negative => self.value_ends(),
            (b'*', 0) => self.value_ends(),
            (b'*', count) => {
                if self.open.len() == DEEPEST {
                    return Err(BadAnswer::Nested);
                }
                self.open.push(count);
                self.state = State::Kind;
                self.cost(count.saturating_mul(VALUE_COST))?;
            }
            (_, length) => {
                // The whole of it at once: nothing of a value that cannot fit is passed on.
                self.cost(length)?;
                self.state = State::Text(length.saturating_add(2));
            }
        }
        Ok(())
    }

    /// A value is complete, and with it each list that it is the last of.
    fn value_ends(&mut self) {
        self.state = State::Kind;
        while let Some(open) = self.open.last_mut() {
            *open = open.saturating_sub(1);
            if *open > 0 {
                return;
            }
            self.open.pop();
        }
        self.left = self.bound;
    }
}

impl Length {
    fn push(&mut self, byte: u8) -> Result<(), BadAnswer> {
        match byte {
            b'-' if self.digits == 0 && !self.negative => self.negative = true,
            b'0'..=b'9' => {
                self.digits += 1;
                self.value = self.value.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
            }
            _ => return Err(BadAnswer::NotRedis),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: usize = 1000;

    fn check(bytes: &[u8]) -> Result<(), BadAnswer> {
        Checker::new(BOUND).check(bytes)
    }

    #[test]
    fn what_redis_answers_passes_however_often() {
        let answers =
            b"+OK\r\n-ERR no\r\n:-5\r\n$3\r\n*9\r\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n*2\r\n$1\r\na\r\n:1\r\n$0\r\n\r\n";
        let mut checker = Checker::new(BOUND);
        for _ in 0..1000 {
            assert_eq!(checker.check(answers), Ok(()));
            assert!(matches!(checker.state, State::Kind) && checker.open.is_empty());
        }
    }

    #[test]
    fn nesting_and_length_are_bounded_at_the_first_byte_that_says_so() {
        assert_eq!(check(&b"*1\r\n".repeat(DEEPEST)), Ok(()));
        assert_eq!(check(&b"*1\r\n".repeat(DEEPEST + 1)), Err(BadAnswer::Nested));
        assert_eq!(check(&b"*2\r\n".repeat(20_000)), Err(BadAnswer::Nested));
        let too_long = Err(BadAnswer::TooLong { bound: BOUND });
        for bytes in ["$314572800\r\n", "$99999999999999999999999\r\n", "*1000000\r\n", "*2\r\n$600\r\n"] {
            let more = if bytes.starts_with("*2") { format!("{}\r\n$600\r\n", "x".repeat(600)) } else { String::new() };
            assert_eq!(check(format!("{bytes}{more}").as_bytes()), too_long, "{bytes}");
        }
        assert_eq!(check(&[b"+", "x".repeat(2 * BOUND).as_bytes()].concat()), too_long);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bytes in
            ["HTTP/1.1 200 OK\r\n", "%1\r\n", "_\r\n", ">3\r\n", "$x\r\n", "$\r\n", "*--1\r\n", "+a\rb\r\n", "\r\n"]
        {
            assert_eq!(check(bytes.as_bytes()), Err(BadAnswer::NotRedis), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_where_reads_end(
            bytes in prop::collection::vec(prop::sample::select(b"*$+-:0123\r\nx".to_vec()), 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let mut checker = Checker::new(BOUND);
            let (head, tail) = bytes.split_at(cut);
            prop_assert_eq!(checker.check(head).and_then(|()| checker.check(tail)), check(&bytes));
        }

        #[test]
        fn no_bytes_panic_and_what_is_open_stays_bounded(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut checker = Checker::new(BOUND);
            let _ = checker.check(&bytes);
            prop_assert!(checker.open.len() <= DEEPEST);
        }
    }
}
