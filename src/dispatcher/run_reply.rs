//! What a reply tells of a run.

use serde_json::{Map, Value, json};

use crate::report::{Outcome, RunReport};
use crate::text::last_bytes;

/// Most of a run's output that a reply holds.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 4 * 1024;

/// The `data` of a reply.
pub(super) fn reply_data(report: &RunReport) -> Map<String, Value> {
    let duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
    let mut data = Map::new();
    data.insert("run_id".to_owned(), json!(report.run_id));
    data.insert("exit_code".to_owned(), json!(report.exit_code));
    data.insert("duration_ms".to_owned(), json!(duration_ms));
    if let Some(warning) = report.warning {
        data.insert("warning".to_owned(), json!(warning));
    }
    if !report.outcome.is_success() {
        data.insert("outcome".to_owned(), json!(report.outcome));
        data.insert("tail".to_owned(), Value::from(last_lines(&report.tail)));
    }
    data
}

/// The `error` of a reply.
pub(super) fn failure(report: &RunReport) -> String {
    let service = &report.service;
    match (&report.error, report.outcome) {
        (Some(error), _) => format!("run of {service}: {error}"),
        (None, Outcome::Cancelled) => format!("run of {service} was stopped by the shutdown"),
        (None, outcome) => format!("run of {service} {}", outcome.as_str()),
    }
}

/// The end of a run's output.
pub(super) fn last_lines(tail: &str) -> String {
    let skip = tail.lines().count().saturating_sub(TAIL_LINES);
    let lines: Vec<&str> = tail.lines().skip(skip).collect();
    last_bytes(&lines.join("\n"), TAIL_BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_its_last_lines_and_no_more_than_fits() {
        let lines: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(last_lines(&lines.join("\n")), lines[30..].join("\n"));
        assert_eq!(last_lines(""), "");
        assert!(last_lines(&"ä".repeat(10_000)).len() <= TAIL_BYTES);
    }
}
