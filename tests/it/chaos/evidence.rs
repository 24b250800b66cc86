//! What the Engine told of a project's one-offs by its events, and what the daemon's ledger says of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_client::models::EventMessage;
use bollard_client::query_parameters::EventsOptions;
use futures::StreamExt;
use sense_orchestrator::ledger::{Entry, Request};
use sense_orchestrator::record::{Record, State};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Most that two slots of a service may be off their grid: a record has whole milliseconds, and each start computes anew.
const GRID: f64 = 0.15;

/// A container, as the Engine's events tell it. Times are its nanoseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) service: String,
    pub(super) started: Option<i64>,
    pub(super) died: Option<(i64, i64)>,
    pub(super) destroyed: bool,
}

/// Listens to the Engine.
pub(super) struct Recorder {
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    listening: JoinHandle<()>,
}

impl Recorder {
    pub(super) async fn start(client: bollard_client::Docker, project: &str) -> Self {
        let label = format!("com.docker.compose.project={project}");
        let filters =
            HashMap::from([("type".to_owned(), vec!["container".to_owned()]), ("label".to_owned(), vec![label])]);
        let seen: Arc<Mutex<BTreeMap<String, Seen>>> = Arc::default();
        let into = Arc::clone(&seen);
        let listening = tokio::spawn(async move {
            let mut events =
                Box::pin(client.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() })));
            while let Some(event) = events.next().await {
                note(&mut into.lock().unwrap(), event.expect("the Engine goes on telling"));
            }
        });
        // The request has to be there before the first container is.
        sleep(Duration::from_millis(500)).await;
        Self { seen, listening }
    }

    /// All containers, once the Engine has told of the removal of each.
    pub(super) async fn stop(self) -> Vec<Seen> {
        for _ in 0..50 {
            if self.seen.lock().unwrap().values().all(|seen| seen.destroyed) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert!(!self.listening.is_finished(), "the Engine told everything");
        self.listening.abort();
        self.seen.lock().unwrap().values().cloned().collect()
    }
}

fn note(seen: &mut BTreeMap<String, Seen>, event: EventMessage) {
    let actor = event.actor.unwrap_or_default();
    let attributes = actor.attributes.unwrap_or_default();
    let attribute = |name: &str| attributes.get(name).cloned().unwrap_or_default();
    let at = event.time_nano.unwrap_or_default();
    let own = seen.entry(actor.id.unwrap_or_default()).or_insert_with(|| Seen {
        name: attribute("name"),
        service: attribute("com.docker.compose.service"),
        ..Seen::default()
    });
    match event.action.as_deref() {
        Some("start") => own.started = Some(at),
        Some("die") => own.died = Some((at, attribute("exitCode").parse().expect("a number"))),
        Some("destroy") => own.destroyed = true,
        _ => {}
    }
}

/// What the ledger's file says, read as anybody may read it.
pub(super) struct LedgerFile {
    runs: BTreeMap<String, Record>,
    without_run: Vec<Record>,
    requests: BTreeMap<String, Request>,
}

impl LedgerFile {
    pub(super) fn read(path: &Path) -> Self {
        let mut ledger = Self { runs: BTreeMap::new(), without_run: Vec::new(), requests: BTreeMap::new() };
        for line in std::fs::read_to_string(path).unwrap().lines() {
            // Checksum and blank, nine letters, stand before the object.
            match serde_json::from_str(line.get(9..).expect("a checksum")).expect("an entry") {
                Entry::Record(record) => match &record.run_id {
                    Some(run_id) => drop(ledger.runs.insert(run_id.to_string(), record)),
                    None => ledger.without_run.push(record),
                },
                Entry::Request(request) => drop(ledger.requests.insert(request.id.to_string(), request)),
                _ => {}
            }
        }
        ledger
    }

    /// Where ledger and Engine do not agree.
    pub(super) fn compare(&self, seen: &[Seen]) -> Vec<String> {
        let mut wrong = self.without_verdict();
        let by_name: BTreeMap<&str, &Seen> = seen.iter().map(|seen| (seen.name.as_str(), seen)).collect();
        for record in self.runs.values() {
            let container = record.container.as_deref().unwrap_or_default();
            let engine = by_name.get(container).copied();
            let told = engine.and_then(|seen| seen.died).map(|(_, code)| code);
            // Of what the daemon stopped itself there is no code: the verdict is that it was stopped.
            let stopped = record.exit_code.is_none() && matches!(record.state, State::TimedOut | State::Cancelled);
            if record.exit_code != told && !stopped {
                wrong.push(format!("{container}: the Engine said {told:?}, the ledger {}", brief(record)));
            }
            if record.started_at.is_some() != engine.is_some_and(|seen| seen.started.is_some()) {
                wrong.push(format!("{container}: started or not? {}", brief(record)));
            }
        }
        let recorded: BTreeSet<&str> = self.runs.values().filter_map(|record| record.container.as_deref()).collect();
        for seen in seen {
            if !recorded.contains(seen.name.as_str()) {
                wrong.push(format!("{}: not in the ledger", seen.name));
            }
            if !seen.destroyed {
                wrong.push(format!("{}: not removed", seen.name));
            }
        }
        wrong.extend(overlaps(seen));
        wrong.extend(self.commands());
        wrong
    }

    fn without_verdict(&self) -> Vec<String> {
        let open = self.runs.values().filter(|record| !record.state.is_over());
        let mut wrong: Vec<String> = open.map(|record| format!("no verdict: {}", brief(record))).collect();
        let mut iterations = BTreeSet::new();
        for record in self.runs.values() {
            if !iterations.insert((&record.job, record.iteration)) {
                wrong.push(format!("the same iteration twice: {}", brief(record)));
            }
        }
        wrong
    }

    /// Each command has its answer, and was done once.
    fn commands(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, request) in &self.requests {
            if request.reply.is_none() {
                wrong.push(format!("{id} was not answered"));
            }
            let runs = self.runs.values().filter(|record| record.request_id.as_ref() == Some(&request.id));
            if runs.count() > 1 {
                wrong.push(format!("{id} was done more than once"));
            }
        }
        wrong
    }

    /// Slots of a service's grid of which no record tells, and two that are too near.
    pub(super) fn slots_without_record(&self, intervals: &[(&str, f64)]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (service, every) in intervals {
            let records = self.runs.values().chain(&self.without_run);
            let mut slots: Vec<(f64, f64)> = records
                .filter(|record| record.job.as_str() == *service)
                .filter_map(|record| {
                    let first = record.slot?.0;
                    Some((first, record.missed_slots().map_or(first, |missed| missed.last.0)))
                })
                .collect();
            slots.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in slots.windows(2) {
                let step = pair[1].0 - pair[0].1;
                // A slot whose run was cut off before it started is tried again, and is the same slot.
                if step.abs() > GRID && (step - every).abs() > GRID {
                    wrong.push(format!(
                        "{service}: {step:.3} s between the slots {:.3} and {:.3}",
                        pair[0].1, pair[1].0
                    ));
                }
            }
        }
        wrong
    }

    /// What was seen, in a line.
    pub(super) fn summary(&self, seen: &[Seen]) -> String {
        let missed: u64 = self.without_run.iter().filter_map(Record::missed_slots).map(|missed| missed.slots).sum();
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        for record in self.runs.values().chain(self.without_run.iter().filter(|record| record.state != State::Missed)) {
            *states.entry(record.state.as_str()).or_default() += 1;
            if let Some(reason) = record.reason {
                *states.entry(reason.as_str()).or_default() += 1;
            }
        }
        let exits = self.runs.values().filter(|record| record.exit_code.is_some()).count();
        format!(
            "{} of them taken and answered, {} containers, {} runs, {exits} exit codes equal to the Engine's, {missed} slots missed: {states:?}",
            self.requests.len(),
            seen.len(),
            self.runs.len(),
        )
    }
}

/// Containers of one service that ran at the same time.
fn overlaps(seen: &[Seen]) -> Vec<String> {
    let mut by_service: BTreeMap<&str, Vec<(i64, i64, &str)>> = BTreeMap::new();
    for seen in seen {
        if let (Some(started), Some((died, _))) = (seen.started, seen.died) {
            by_service.entry(&seen.service).or_default().push((started, died, &seen.name));
        }
    }
    let mut wrong = Vec::new();
    for runs in by_service.values_mut() {
        runs.sort_unstable();
        for pair in runs.windows(2) {
            if pair[1].0 < pair[0].1 {
                wrong.push(format!("{} and {} overlap", pair[0].2, pair[1].2));
            }
        }
    }
    wrong
}

fn brief(record: &Record) -> String {
    let Record { job, iteration, run_id, state, reason, exit_code, error, .. } = record;
    format!("{job} {iteration:?} {run_id:?} {state} {reason:?} {exit_code:?} {error:?}")
}
