//! What Redis refuses at present: no room, read-only, keys of another type. It answers, and yet is of no use.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::log_limit::LogLimit;

/// Beginnings of errors that mean that nothing can be written.
const NO_WRITES: [&str; 4] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS"];

/// Most refusals that are kept.
const MOST: usize = 32;

/// Most lines a minute that tell of them: types of keys may be changed back and forth.
const LINES: (u32, std::time::Duration) = (10, std::time::Duration::from_mins(1));

/// A call, as a refusal is about it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The command, such as `SET`.
    pub name: &'static str,
    /// The key that it is about, if it is about one.
    pub key: Option<&'a str>,
    /// Whether it writes.
    pub writes: bool,
}

/// Follows which calls are refused, says the news, and shows what stands.
#[derive(Debug)]
pub struct Refusals {
    shown: watch::Sender<Vec<String>>,
    standing: BTreeMap<String, String>,
    limit: LogLimit<Instant>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { shown: watch::Sender::default(), standing: BTreeMap::new(), limit: LogLimit::new(LINES.0, LINES.1) }
    }
}

impl Refusals {
    /// One line for each refusal that stands.
    pub fn watch(&self) -> watch::Receiver<Vec<String>> {
        self.shown.subscribe()
    }

    /// Redis refused a call, in these words.
    pub fn refused(&mut self, call: Call<'_>, words: &str) {
        let code = words.split_whitespace().next().unwrap_or_default();
        let (topic, problem) = match call.key {
            _ if NO_WRITES.contains(&code) => ("writes".to_owned(), format!("redis refuses writes: {words}")),
            Some(key) if code == "WRONGTYPE" => (topic(key), format!("redis holds a value of another type at {key}")),
            _ => (call.name.to_owned(), format!("redis refuses {}: {words}", call.name)),
        };
        if self.standing.contains_key(&topic) || self.standing.len() >= MOST {
            return;
        }
        if let Some(line) = self.limit.allow(Instant::now()) {
            tracing::warn!(problem, suppressed = line.suppressed, "redis refuses");
        }
        self.standing.insert(topic, problem);
        self.show();
    }

    /// Redis carried out a call.
    pub fn accepted(&mut self, call: Call<'_>) {
        if self.standing.is_empty() {
            return;
        }
        let before = self.standing.len();
        self.standing.remove(call.name);
        if call.writes {
            self.standing.remove("writes");
        }
        if let Some(key) = call.key {
            self.standing.remove(&topic(key));
        }
        if self.standing.len() == before {
            return;
        }
        if self.standing.is_empty()
            && let Some(line) = self.limit.allow(Instant::now())
        {
            tracing::info!(suppressed = line.suppressed, "redis refuses nothing any more");
        }
        self.show();
    }

    fn show(&self) {
        self.shown.send_replace(self.standing.values().cloned().collect());
    }
}

fn topic(key: &str) -> String {
    format!("key {key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: Call<'_> = Call { name: "SET", key: Some("a"), writes: true };
    const PUSH: Call<'_> = Call { name: "LPUSH", key: Some("b"), writes: true };
    const READ: Call<'_> = Call { name: "STRLEN", key: Some("b"), writes: false };

    #[tokio::test(start_paused = true)]
    async fn a_redis_without_room_is_one_problem_until_something_is_written() {
        let mut refusals = Refusals::default();
        let shown = refusals.watch();
        for call in [SET, PUSH] {
            refusals.refused(call, "OOM command not allowed when used memory > 'maxmemory'.");
        }
        assert_eq!(shown.borrow().len(), 1, "{:?}", *shown.borrow());
        refusals.accepted(READ);
        assert_eq!(shown.borrow().len(), 1, "reading says nothing of writing");
        refusals.accepted(SET);
        assert!(shown.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_of_another_type_is_a_problem_of_that_key() {
        let mut refusals = Refusals::default();
        let shown = refusals.watch();
        refusals.refused(PUSH, "WRONGTYPE Operation against a key");
        refusals.accepted(SET);
        assert_eq!(*shown.borrow(), ["redis holds a value of another type at b"]);
        refusals.accepted(READ);
        assert!(shown.borrow().is_empty());
    }
}
