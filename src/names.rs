//! Names that were checked once, at the edge.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {rule}")]
pub struct NameError {
    /// What it should have been, such as `service name`.
    pub kind: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
    /// The text, cut to 80 characters.
    pub text: String,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { kind: $kind, rule: $rule, text: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into_string()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn all(text: &str, also: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

name!(
    /// Key of a service in the Compose file.
    ///
    /// Source: compose-spec schema, `services` pattern `^[a-zA-Z0-9._-]+$`.
    ServiceName,
    "service name",
    "1 to 128 ASCII letters, digits, '.', '_' or '-'",
    |text| !text.is_empty() && text.len() <= 128 && all(text, b"._-")
);

name!(
    /// Name of the Compose project, the prefix of its engine names.
    ProjectName,
    "project name",
    "must consist only of lowercase alphanumeric characters, hyphens, and underscores as well as start with a letter or number",
    |text| {
        text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && all(text, b"_-")
            && !text.bytes().any(|byte| byte.is_ascii_uppercase())
    }
);

name!(
    /// Identifies one run: the twelve hexadecimal digits that also end its container's name.
    RunId,
    "run id",
    "12 lower-case hexadecimal digits",
    |text| text.len() == 12 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
);

impl RunId {
    /// The id of six random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 6]) -> Self {
        let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Self(format!("{number:012x}").into())
    }
}

name!(
    /// Identifies a command, chosen by its sender; part of the reply's channel and key.
    RequestId,
    "request id",
    "1 to 128 ASCII letters, digits, '.', '_', ':' or '-'",
    |text| !text.is_empty() && text.len() <= 128 && all(text, b"._:-")
);

name!(
    /// Identifies a source in `status:{source}`, as its own service reports it.
    SourceId,
    "source id",
    "1 to 128 ASCII letters, digits, '.', '_' or '-'",
    |text| !text.is_empty() && text.len() <= 128 && all(text, b"._-")
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_could_leave_their_key_or_channel() {
        for text in ["", "a b", "a/b", "a*", "a\0", "ü", &"x".repeat(129)] {
            assert!(text.parse::<ServiceName>().is_err(), "{text:?}");
            assert!(text.parse::<RequestId>().is_err(), "{text:?}");
        }
        assert!("cam:1".parse::<ServiceName>().is_err());
        assert!("cam:1".parse::<RequestId>().is_ok());
    }

    #[test]
    fn a_project_name_is_lower_case_and_starts_with_a_letter_or_digit() {
        assert!("9-my_app".parse::<ProjectName>().is_ok());
        for text in ["", "Foo", "-a", "_a", "a.b"] {
            assert!(text.parse::<ProjectName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_run_id_is_twelve_hexadecimal_digits() {
        assert!("0123456789ab".parse::<RunId>().is_ok());
        for text in ["0123456789a", "0123456789AB", "0123456789abc"] {
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
        }
    }
}
