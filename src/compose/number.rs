//! Numbers as Go's `strconv` reads and writes them.

/// Why a text is no number, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.{function}: parsing {text:?}: {reason}")]
pub struct NumberError {
    /// The Go function that Compose calls.
    pub function: &'static str,
    /// The text.
    pub text: String,
    /// `invalid syntax` or `value out of range`.
    pub reason: &'static str,
}

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

/// Reads a signed 64-bit integer of a base; `function` is the one named in the error.
pub fn parse_int(text: &str, radix: u32, function: &'static str) -> Result<i64, NumberError> {
    let error = |reason| NumberError { function, text: text.to_owned(), reason };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(error(SYNTAX));
    }
    i64::from_str_radix(text, radix).map_err(|_| error(RANGE))
}

/// Reads a 64-bit float: decimal, hexadecimal, `inf` and `nan`, with `_` between digits.
pub fn parse_f64(text: &str) -> Result<f64, NumberError> {
    parse_float(text, |digits| digits.parse().ok(), f64::is_finite)
}

/// Reads a 32-bit float, as [`parse_f64`] does.
pub fn parse_f32(text: &str) -> Result<f32, NumberError> {
    parse_float(text, |digits| digits.parse().ok(), f32::is_finite)
}

trait Float: Copy {
    const NAN: Self;
    const INFINITY: Self;
    fn from_f64(number: f64) -> Self;
    fn negated(self) -> Self;
}

impl Float for f64 {
    const NAN: Self = f64::NAN;
    const INFINITY: Self = f64::INFINITY;
    fn from_f64(number: f64) -> Self {
        number
    }
    fn negated(self) -> Self {
        -self
    }
}

impl Float for f32 {
    const NAN: Self = f32::NAN;
    const INFINITY: Self = f32::INFINITY;
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
    fn from_f64(number: f64) -> Self {
        number as f32
    }
    fn negated(self) -> Self {
        -self
    }
}

fn parse_float<F: Float>(
    text: &str,
    decimal: impl Fn(&str) -> Option<F>,
    is_finite: impl Fn(F) -> bool,
) -> Result<F, NumberError> {
    let error = |reason| NumberError { function: "ParseFloat", text: text.to_owned(), reason };
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = body.to_ascii_lowercase();
    let magnitude = match lower.as_str() {
        "inf" | "infinity" => return Ok(if negative { F::INFINITY.negated() } else { F::INFINITY }),
        // Go takes no sign here.
        "nan" if body.len() == text.len() => return Ok(F::NAN),
        lower => {
            if !underscores_are_placed(lower) {
                return Err(error(SYNTAX));
            }
            let digits = lower.replace('_', "");
            if let Some(hexadecimal) = digits.strip_prefix("0x") {
                F::from_f64(parse_hexadecimal(hexadecimal).ok_or_else(|| error(SYNTAX))?)
            } else if digits.bytes().all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte)) {
                decimal(digits.strip_prefix(['+', '-']).map_or(digits.as_str(), |_| "")).ok_or_else(|| error(SYNTAX))?
            } else {
                return Err(error(SYNTAX));
            }
        }
    };
    if !is_finite(magnitude) {
        return Err(error(RANGE));
    }
    Ok(if negative { magnitude.negated() } else { magnitude })
}

/// Whether each `_` stands between two digits, or between a base prefix and a digit.
fn underscores_are_placed(text: &str) -> bool {
    if !text.contains('_') {
        return true;
    }
    let (hexadecimal, body) = match text.strip_prefix("0x") {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut after_digit = hexadecimal;
    let mut after_underscore = false;
    for byte in body.bytes() {
        let digit = byte.is_ascii_digit() || hexadecimal && byte.is_ascii_hexdigit();
        if byte == b'_' && !after_digit || byte != b'_' && !digit && after_underscore {
            return false;
        }
        after_underscore = byte == b'_';
        after_digit = digit;
    }
    !after_underscore
}

/// `1.8p-3`: hexadecimal digits with a point, and a binary exponent that must be there.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let exponent_digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if exponent_digits.is_empty() || !exponent_digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Beyond 4096 any exponent gives zero or infinity.
    let mut power: i32 =
        exponent.parse::<i64>().map_or(4096, |power| i32::try_from(power.clamp(-4096, 4096)).unwrap_or(0));
    let mut number = 0.0;
    for digit in whole.chars() {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    for digit in fraction.chars() {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
        power = power.saturating_sub(4);
    }
    Some(number * f64::from(power).exp2())
}

/// A float as Go's `%v` writes it: shortest, with an exponent of at least two digits below 1e-4 and from 1e6 on.
pub fn go_float_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    with_exponent(&scientific, number == 0.0, -4, 6, 2).unwrap_or_else(|| format!("{number}"))
}

/// A float as Go's JSON encoder writes it: shortest, with an exponent below 1e-6 and from 1e21 on.
pub fn json_f64_text(number: f64) -> String {
    with_exponent(&format!("{number:e}"), number == 0.0, -6, 21, 1).unwrap_or_else(|| format!("{number}"))
}

/// As [`json_f64_text`], for 32 bits.
pub fn json_f32_text(number: f32) -> String {
    with_exponent(&format!("{number:e}"), number == 0.0, -6, 21, 1).unwrap_or_else(|| format!("{number}"))
}

/// The form with an exponent, if it lies outside of `least..most`; its exponent has a sign and at least `width` digits.
fn with_exponent(scientific: &str, zero: bool, least: i32, most: i32, width: usize) -> Option<String> {
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if zero || (least..most).contains(&exponent) {
        return None;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Some(format!("{mantissa}e{sign}{:0width$}", exponent.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_read_as_go_reads_them() {
        for (text, number) in [
            ("1_0.5_0", 10.5),
            ("0x1p-2", 0.25),
            ("0x_1.8P1", 3.0),
            ("-0X.8p1", -1.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("+1E3", 1000.0),
            ("-Inf", f64::NEG_INFINITY),
            ("infinity", f64::INFINITY),
        ] {
            assert_eq!(parse_f64(text), Ok(number), "{text}");
        }
        assert!(parse_f64("NaN").unwrap().is_nan());
        assert_eq!(parse_f32("1.2345"), Ok(1.2345));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in
            ["", "+", ".", "1e", "1__0", "_1", "1_", "1_.5", "0x1", "0xp1", "+nan", "--1", "+-1", " 1", "0x1p_1"]
        {
            assert_eq!(parse_f64(text).map_err(|error| error.reason), Err(SYNTAX), "{text}");
        }
        assert_eq!(
            parse_f64("1e400").unwrap_err().to_string(),
            "strconv.ParseFloat: parsing \"1e400\": value out of range"
        );
        assert!(parse_f32("1e39").is_err());
    }

    #[test]
    fn integers_have_a_sign_and_digits_only() {
        assert_eq!(parse_int("+5", 10, "ParseInt"), Ok(5));
        assert_eq!(parse_int("-0440", 8, "ParseInt"), Ok(-0o440));
        for text in ["", "-", "1_0", "0x1", " 1", "8"] {
            assert_eq!(parse_int(text, 8, "ParseInt").map_err(|error| error.reason), Err(SYNTAX), "{text}");
        }
        let error = parse_int("99999999999999999999", 10, "Atoi").unwrap_err();
        assert_eq!(error.to_string(), "strconv.Atoi: parsing \"99999999999999999999\": value out of range");
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (number, text) in [
            (1.5, "1.5"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (123_456_789.5, "1.234567895e+08"),
            (1e-4, "0.0001"),
            (1.234e-5, "1.234e-05"),
            (1.5e300, "1.5e+300"),
            (-0.0, "-0"),
        ] {
            assert_eq!(go_float_text(number), text);
        }
        for (number, text) in
            [(0.33, "0.33"), (1.0, "1"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1e-7, "1e-7")]
        {
            assert_eq!(json_f32_text(number), text);
        }
        assert_eq!(json_f64_text(0.000_001), "0.000001");
    }

    proptest! {
        #[test]
        fn a_written_float_reads_back(number in proptest::num::f64::NORMAL) {
            prop_assert_eq!(parse_f64(&go_float_text(number)), Ok(number));
            prop_assert_eq!(parse_f64(&json_f64_text(number)), Ok(number));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "[-+0-9a-fxp._einty]{0,12}|.{0,8}") {
            let _ = (parse_f64(&text), parse_f32(&text), parse_int(&text, 10, "Atoi"));
        }
    }
}
