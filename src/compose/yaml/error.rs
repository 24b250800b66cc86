//! What can be wrong with a file's YAML.

use super::Place;

/// Why a file is not YAML that Compose takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct YamlError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub kind: YamlErrorKind,
}

/// What is wrong with a file's YAML. No variant holds a value: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant says it")]
pub enum YamlErrorKind {
    #[error("{0}")]
    Syntax(String),
    #[error("mapping key {key:?} already defined at line {first}")]
    DuplicateKey { key: String, first: u32 },
    #[error("non-string key {}: {key}", location(.path))]
    NonStringKey { path: String, key: String },
    #[error("invalid map key: a mapping or list cannot be a key")]
    ComplexKey,
    #[error("map merge requires map or sequence of maps as the value")]
    MergeValue,
    #[error("unknown anchor referenced: a text that starts with * stands in quotes")]
    UnknownAnchor,
    #[error("alias refers to the value that it is part of")]
    Cycle,
    #[error("cannot decode {found} as a {tag}")]
    Tag { tag: String, found: &'static str },
    #[error("!!binary value contains invalid base64 data")]
    Binary,
    #[error("file of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("mappings and lists are nested more than {limit} deep")]
    TooDeep { limit: usize },
    #[error("{path}: takes more than {memory} bytes of memory once aliases are expanded")]
    TooMuchMemory { path: String, memory: usize },
}

fn location(path: &str) -> String {
    if path.is_empty() { "at top level".to_owned() } else { format!("in {path}") }
}
