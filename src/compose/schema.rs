//! Which keys and types the Compose specification allows where.

use super::error::LoadErrors;
use super::yaml::Node;

/// Checks a merged document.
pub(super) fn check(_project: &Node, _errors: &mut LoadErrors) {}
