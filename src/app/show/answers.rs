//! Each kind of answer as people see it.

use serde_json::{Map, Value};

use super::{Cell, Look, Screen, milliseconds, span};
use crate::clock::Timestamp;
use crate::control::{Explanation, Job, NextSlot};
use crate::record::{Record, State};
use crate::text;

impl Screen {
    fn run(self, record: &Record) -> [Cell; 3] {
        let code = record.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let look = look(record.state);
        let at = record.finished_at.or(record.started_at).or(record.slot).unwrap_or(record.created_at);
        [(record.state.to_string(), look), (code, Look::Plain), (self.moment(at), Look::Plain)]
    }

    /// The table of `ls`.
    pub(in crate::app) fn jobs(self, jobs: &[Job]) -> String {
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
    pub(in crate::app) fn records(self, records: &[Record]) -> String {
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
    pub(in crate::app) fn next(self, slots: &[NextSlot]) -> String {
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
    pub(in crate::app) fn explanation(self, explanation: &Explanation) -> String {
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
    pub(in crate::app) fn status(self, status: &Map<String, Value>) -> String {
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
    pub(in crate::app) fn event(self, event: &Map<String, Value>) -> String {
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
