//! What people see of the daemon's answers: tables as wide as the terminal, and times from now.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::control::{Explanation, Job, NextSlot};
use crate::record::{Record, State};
use crate::settings::Color;
use crate::text;

/// Blanks between two columns.
const GAP: usize = 2;

/// Where something is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// None: as wide as it comes.
    width: Option<usize>,
    colored: bool,
    now: Timestamp,
}

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Good,
    Bad,
    Faint,
}

type Cell = (String, Look);

impl Screen {
    /// Standard output.
    pub(super) fn stdout(color: Color) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal,
        };
        Self { width, colored, now: Timestamp::now() }
    }

    fn paint(self, text: &str, look: Look) -> String {
        let code = match look {
            Look::Plain => return text.to_owned(),
            Look::Good => 32,
            Look::Bad => 31,
            Look::Faint => 2,
        };
        if self.colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A table; what does not fit is cut off at its right.
    fn table(self, head: &[&str], rows: &[Vec<Cell>]) -> String {
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = head
            .iter()
            .enumerate()
            .map(|(at, title)| {
                let cells = rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| length(text));
                cells.max().unwrap_or_default().max(length(title))
            })
            .collect();
        let titles = head.iter().map(|title| ((*title).to_owned(), Look::Faint)).collect();
        let mut lines = Vec::new();
        for row in std::iter::once(&titles).chain(rows) {
            let (mut line, mut used, last) = (String::new(), 0, row.len().saturating_sub(1));
            for (at, ((text, look), width)) in row.iter().zip(&widths).enumerate() {
                let left = self.width.map_or(usize::MAX, |width| width.saturating_sub(used));
                let shown: String = if length(text) > left {
                    text.chars().take(left.saturating_sub(1)).chain(['…']).take(left).collect()
                } else {
                    text.clone()
                };
                let pad = if at == last { 0 } else { (width + GAP).saturating_sub(length(&shown)).min(left) };
                used += length(&shown) + pad;
                line += &self.paint(&shown, *look);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    /// A past or coming moment, from now.
    fn moment(self, at: Timestamp) -> String {
        let ago = self.now.seconds_since(at);
        // A moment that is about to come is not past because of a clock's last digit.
        if ago.abs() < 0.5 {
            "now".to_owned()
        } else if ago > 0.0 {
            format!("{} ago", span(ago))
        } else {
            format!("in {}", span(-ago))
        }
    }

    fn run(self, record: &Record) -> [Cell; 3] {
        let code = record.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let look = look(record.state);
        let at = record.finished_at.or(record.started_at).or(record.slot).unwrap_or(record.created_at);
        [(record.state.to_string(), look), (code, Look::Plain), (self.moment(at), Look::Plain)]
    }

    /// The table of `ls`.
    pub(super) fn jobs(self, jobs: &[Job]) -> String {
        let rows: Vec<Vec<Cell>> = jobs
            .iter()
            .map(|job| {
                let trigger = match job.interval {
                    Some(every) => format!("every {}", span(every)),
                    None => word(&job.trigger),
                };
                let none =
                    || [("-".to_owned(), Look::Plain), ("-".to_owned(), Look::Plain), ("never".into(), Look::Plain)];
                let [last, exit, when] = job.last_run.as_ref().map_or_else(none, |record| self.run(record));
                let next = job.next_fire.map_or_else(|| "-".to_owned(), |at| self.moment(at));
                let paused = if job.paused { ("yes".to_owned(), Look::Bad) } else { ("no".to_owned(), Look::Plain) };
                let plain = |text: String| (text, Look::Plain);
                vec![
                    plain(job.name.to_string()),
                    plain(trigger),
                    plain(word(&job.state)),
                    paused,
                    last,
                    exit,
                    when,
                    plain(next),
                ]
            })
            .collect();
        self.table(&["NAME", "TRIGGER", "STATE", "PAUSED", "LAST RUN", "EXIT", "WHEN", "NEXT"], &rows)
    }

    /// The table of `runs`.
    pub(super) fn records(self, records: &[Record]) -> String {
        let rows: Vec<Vec<Cell>> = records
            .iter()
            .map(|record| {
                let run = record.iteration.map_or_else(|| "-".to_owned(), |run| run.to_string());
                let [state, exit, _] = self.run(record);
                let begun = record.started_at.or(record.slot).unwrap_or(record.created_at);
                let took = record.duration_ms.map_or_else(|| "-".to_owned(), milliseconds);
                let reason = record.reason.map(|reason| reason.to_string());
                let why = match (reason, &record.error) {
                    (Some(reason), Some(error)) => format!("{reason}: {error}"),
                    (Some(only), None) => only,
                    (None, error) => error.clone().unwrap_or_default(),
                };
                let plain = |text: String| (text, Look::Plain);
                let trigger = plain(record.trigger.as_str().to_owned());
                let why = plain(text::one_line(&why).into_owned());
                vec![plain(run), state, exit, trigger, plain(self.moment(begun)), plain(took), why]
            })
            .collect();
        self.table(&["RUN", "STATE", "EXIT", "TRIGGER", "BEGUN", "TOOK", "WHY"], &rows)
    }

    /// The table of `next`.
    pub(super) fn next(self, slots: &[NextSlot]) -> String {
        let row = |slot: &NextSlot| {
            let paused = if slot.paused { "paused, will be skipped" } else { "" };
            vec![
                (self.moment(slot.at), Look::Plain),
                (seconds(slot.at), Look::Faint),
                (slot.name.to_string(), Look::Plain),
                (paused.to_owned(), Look::Bad),
            ]
        };
        let rows: Vec<_> = slots.iter().map(row).collect();
        self.table(&["IN", "AT", "NAME", ""], &rows)
    }

    /// The answer to `explain`.
    pub(super) fn explanation(self, explanation: &Explanation) -> String {
        let slot = explanation.slot.or_else(|| explanation.record.as_ref().map(|record| record.created_at));
        let slot = slot.map_or_else(String::new, |at| format!(", {} ({})", at.to_rfc3339(), self.moment(at)));
        let state = explanation
            .record
            .as_ref()
            .map(|record| format!(": {}", self.paint(record.state.as_str(), look(record.state))));
        let mut lines = vec![format!("{}{slot}{}", explanation.job, state.unwrap_or_default())];
        for (at, reason) in explanation.reasons.iter().enumerate() {
            let because = if at == 0 { "" } else { "because " };
            lines.push(format!("  {because}{}", text::one_line(reason)));
        }
        lines.join("\n")
    }

    /// The answer to `status`.
    pub(super) fn status(self, status: &Map<String, Value>) -> String {
        let said = |key: &str| match status.get(key) {
            Some(Value::String(text)) => text::one_line(text).into_owned(),
            Some(other) => other.to_string(),
            None => "-".to_owned(),
        };
        let well = status.get("well").and_then(Value::as_bool).unwrap_or_default();
        let (well, look) = if well { ("well", Look::Good) } else { ("not well", Look::Bad) };
        let services = status.get("services").and_then(Value::as_object);
        let running: Vec<&str> = services.map_or_else(Vec::new, |services| {
            let running = services.iter().filter(|(_, service)| service.get("running").is_some_and(Value::is_string));
            running.map(|(name, _)| name.as_str()).collect()
        });
        let mut lines = vec![format!("project {}: {}", said("project_name"), self.paint(well, look))];
        for key in ["version", "engine", "redis", "project", "ledger"] {
            lines.push(format!("  {key}: {}", said(key)));
        }
        for problem in status.get("problems").and_then(Value::as_array).into_iter().flatten() {
            lines.push(format!("  problem: {}", text::one_line(problem.as_str().unwrap_or_default())));
        }
        lines.push(format!("  slots: {} due, {} accounted for", said("slots_due"), said("slots_accounted")));
        lines
            .push(format!("  running: {}", if running.is_empty() { "nothing".to_owned() } else { running.join(", ") }));
        lines.join("\n")
    }

    /// An event as a line.
    pub(super) fn event(self, event: &Map<String, Value>) -> String {
        let text = |value: &Value| match value {
            Value::String(text) => text::one_line(text).into_owned(),
            other => text::one_line(&other.to_string()).into_owned(),
        };
        let get = |key: &str| event.get(key).map(text).unwrap_or_default();
        let record = event.get("record").or_else(|| event.get("report")).and_then(Value::as_object);
        let own = event.iter().filter(|(key, _)| !["at", "event", "record", "report"].contains(&key.as_str()));
        let of_record = record.into_iter().flatten();
        let of_record = of_record.filter(|(key, _)| {
            ["job", "service", "iteration", "state", "outcome", "reason", "exit_code", "error"].contains(&key.as_str())
        });
        let fields = own.chain(of_record).filter(|(_, value)| !value.is_null());
        let fields: Vec<String> = fields.map(|(key, value)| format!("{key}={}", text(value))).collect();
        format!("{}  {}  {}", self.paint(&get("at"), Look::Faint), get("event"), fields.join(" "))
    }
}

fn look(state: State) -> Look {
    match state {
        State::Succeeded => Look::Good,
        State::Failed | State::TimedOut | State::Missed => Look::Bad,
        State::Cancelled | State::Skipped => Look::Faint,
        State::Pending | State::Running => Look::Plain,
    }
}

/// The word of a value that is one in JSON.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn seconds(at: Timestamp) -> String {
    let text = at.to_rfc3339();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// How long a run took.
pub(super) fn milliseconds(span_ms: u64) -> String {
    let took = Duration::from_millis(span_ms).as_secs_f64();
    if took < 10.0 { format!("{took:.1}s") } else { span(took) }
}

/// A span in its largest two units.
fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default().as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = whole;
    for (size, unit) in units {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Prints a text of ours, made safe already.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: Option<usize>, colored: bool) -> Screen {
        Screen { width, colored, now: Timestamp(1_000_000.0) }
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        let spans = [0.2, 59.0, 61.0, 3_600.0, 90_061.0, 86_400.0 * 30.0 + 59.0].map(span);
        assert_eq!(spans, ["0s", "59s", "1m 1s", "1h", "1d 1h", "30d"]);
    }

    #[test]
    fn moments_are_told_from_now() {
        let screen = screen(None, false);
        let moments = [-90.0, -0.2, 0.0, 30.0].map(|offset| screen.moment(Timestamp(1_000_000.0 + offset)));
        assert_eq!(moments, ["1m 30s ago", "now", "now", "in 30s"]);
    }

    #[test]
    fn a_table_is_no_wider_than_the_terminal_and_coloured_only_where_it_may_be() {
        let rows = vec![vec![("a".to_owned(), Look::Good), ("a long explanation".to_owned(), Look::Plain)]];
        assert_eq!(screen(None, false).table(&["NAME", "WHY"], &rows), "NAME  WHY\na     a long explanation");
        assert_eq!(screen(Some(12), false).table(&["NAME", "WHY"], &rows), "NAME  WHY\na     a lon…");
        assert_eq!(screen(Some(3), false).table(&["NAME", "WHY"], &rows), "NA…\na");
        assert!(screen(None, true).table(&["NAME", "WHY"], &rows).contains("\u{1b}[32ma\u{1b}[0m"));
    }
}
