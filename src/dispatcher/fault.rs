//! Why an action stopped.

use serde_json::{Map, Value, json};

use crate::report::Chain;
use crate::runner::RunError;

/// Why an action stopped.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    /// For the reply and the log.
    pub(super) error: String,
    /// For the reply.
    pub(super) data: Map<String, Value>,
    /// The command was wrong: nothing was done for it.
    pub(super) refused: bool,
}

impl Fault {
    /// A fault without data.
    pub(super) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), data: Map::new(), refused: false }
    }

    /// A fault of the command itself.
    pub(super) fn refused(error: impl Into<String>) -> Self {
        Self { refused: true, ..Self::new(error) }
    }

    /// The fault that an error is.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Chain(error).to_string())
    }

    /// The fault that a run is not begun: nothing was done, and who sent the command learns why.
    pub(super) fn not_begun(error: &RunError) -> Self {
        let mut fault = Self { refused: true, ..Self::of(error) };
        if let RunError::Busy { run_id: Some(run_id), .. } = error {
            fault.data.insert("run_id".to_owned(), json!(run_id));
        }
        fault
    }
}
