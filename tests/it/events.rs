//! `docs/events.md` says how each event looks in the log: here it has to prove it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::event::{self, Answer, Consequence, Event, Leftover, Operation, Peer, Skip};
use sense_orchestrator::names::{RequestId, RunId, ServiceName};
use sense_orchestrator::observer::{Events, Observer, log};
use sense_orchestrator::record::{Reason, Record};
use sense_orchestrator::report::{Outcome, RunReport, Trigger};
use sense_orchestrator::schedule::Change;
use sense_orchestrator::settings::{Color, Log, LogFormat};
use sense_orchestrator::telemetry;
use serde_json::Value;

use crate::support::log::Log as Captured;
use crate::support::stack::{Stack, name};

const DOCUMENT: &str = include_str!("../../docs/events.md");
const SOURCE: &str = include_str!("../../src/event.rs");

const SECOND: Duration = Duration::from_secs(1);

/// An event's name, and the level, message and fields of its line.
type Line = (String, String, String, BTreeSet<String>);

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split(" | ").map(str::trim).collect()
}

/// What a cell has between backticks, outside of brackets.
fn quoted(cell: &str) -> Vec<String> {
    let (mut depth, mut text) = (0, String::new());
    for letter in cell.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => text.push(letter),
            _ => {}
        }
    }
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn documented() -> BTreeSet<Line> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let cells = cells(row);
        let [event, levels, message] = [0, 1, 2].map(|at| cells[at]);
        let fields: BTreeSet<String> = cells.get(3).map(|cell| quoted(cell)).unwrap_or_default().into_iter().collect();
        let levels = levels.split(", ").map(|level| level.split(' ').next().unwrap().to_uppercase());
        let (event, message) = (quoted(event).remove(0), message.trim_matches('`').to_owned());
        levels.map(move |level| (event.clone(), level, message.clone(), fields.clone())).collect::<Vec<_>>()
    })
    .collect()
}

/// Every name that `Event::name` gives: the compiler sees to it that each variant has one.
fn names() -> BTreeSet<&'static str> {
    let (_, body) = SOURCE.split_once("pub fn name(").unwrap();
    body.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

fn run_report(outcome: Outcome) -> RunReport {
    RunReport {
        service: name("web"),
        run_id: run_id(),
        trigger: Trigger::Schedule,
        outcome,
        exit_code: Some(1),
        started_at: Timestamp(0.0),
        duration: SECOND,
        error: Some("why".to_owned()),
        tail: "words".to_owned(),
        note: Some("more"),
        warning: None,
        container_started_at: None,
        container_finished_at: None,
        out_of_memory: false,
        reason: None,
    }
}

fn report(outcome: Outcome) -> Event {
    Event::RunEnded { report: run_report(outcome) }
}

fn record() -> Record {
    let record = Record::pending(name("web"), 1, run_id(), Trigger::Schedule, Timestamp(0.0));
    Record { reason: Some(Reason::Interrupted), ..record }
}

fn run_id() -> RunId {
    "0123456789ab".parse().unwrap()
}

/// Every event, in each of its forms.
fn samples() -> Vec<Event> {
    let service = || -> ServiceName { name("web") };
    let change = || Change::Added(service(), Duration::from_secs(30).try_into().unwrap());
    let why = || "why".to_owned();
    let (channel, section, action) = (|| "a:b".to_owned(), || "weather".to_owned(), || "trigger".to_owned());
    let request_id = || Some("r1".parse::<RequestId>().unwrap());
    let mut samples = vec![
        Event::Scheduled { change: change() },
        Event::ScheduleChanged { change: change() },
        Event::ScheduleRefused { error: why() },
        Event::PauseChanged { service: service(), paused: true },
        Event::PauseChanged { service: service(), paused: false },
        Event::SlotDue { service: service(), slot: Timestamp(0.0) },
        Event::Recorded { record: Box::new(record()) },
        Event::SlotQueued { service: service(), waits_for: "max_parallel" },
        Event::SlotsMissed { service: service(), missed: 3 },
        Event::RunBegins { service: service(), run_id: run_id(), trigger: Trigger::Schedule },
        Event::RunWaits { service: service(), other: Some(run_id()) },
        Event::RunStarted { service: service(), run_id: run_id() },
        Event::RunAdopted { service: service(), run_id: run_id() },
        Event::ForeignRun { service: service(), run_id: run_id() },
        Event::LeftoversStay,
        Event::CommandTaken { action: action(), request_id: request_id(), fingerprint: why() },
        Event::MessagesIgnored { count: 3, last: why() },
        Event::MessagesLost { lost: 3 },
        Event::ReactionBegins { channel: channel(), payload: "{}".to_owned() },
        Event::ReactionEnded { channel: channel(), error: None },
        Event::ReactionEnded { channel: channel(), error: Some(why()) },
        Event::ReactionsDropped { channel: channel(), count: 3 },
        Event::ConfigWritten { section: section(), from: "environment", again: false },
        Event::ConfigWritten { section: section(), from: "last seen value", again: true },
        Event::ConfigNotWritten { error: why() },
        Event::VariableIgnored { variable: "A".to_owned(), expected: why() },
        Event::ReplyDropped { request_id: "r1".parse().unwrap() },
        Event::ConfigNotRemembered { key: why(), problem: why() },
        Event::ConfigDeleted { section: section() },
        Event::ProjectChanged { project: "p".parse().unwrap() },
        Event::ProjectBroken { error: why() },
        Event::SettingsReloaded { changed: vec!["services.a.every".to_owned()] },
        Event::SettingsNeedRestart { keys: vec!["docker.host".to_owned()] },
        Event::SettingsRefused { error: why() },
        Event::ProjectFilesChanged { files: vec!["/srv/compose.yaml".to_owned()], container: "p-web-1".to_owned() },
        Event::ServiceOverdue { service: service(), source: "s".parse().ok(), silent: SECOND, every: SECOND },
        Event::ServiceRecovered { service: service() },
    ];
    let skips = [
        Skip::Running { run_id: Some(run_id()), since: SECOND },
        Skip::Waiting { waits_for: "max_parallel", since: SECOND },
        Skip::Busy { error: why() },
        Skip::Paused,
        Skip::UnknownService { repeated: false },
        Skip::UnknownService { repeated: true },
        Skip::ShuttingDown { waited: SECOND },
    ];
    samples.extend(skips.map(|why| Event::SlotSkipped { service: service(), why }));
    samples.extend(
        [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::NoOutput, Outcome::Cancelled].map(report),
    );
    let warned = RunReport { warning: Some("less"), ..run_report(Outcome::Succeeded) };
    samples.push(Event::RunEnded { report: warned });
    let leftovers = [Leftover::Earlier { container: Some("c".to_owned()) }, Leftover::Second];
    samples.extend(leftovers.map(|leftover| Event::LeftoverRemoved { service: service(), run_id: run_id(), leftover }));
    let operations = [Operation::Started, Operation::Stopped, Operation::Restarted];
    samples.extend(operations.map(|operation| Event::ServiceOperated { service: service(), operation, took: SECOND }));
    let answers = [Answer::Done, Answer::Refused { error: why() }, Answer::Failed { error: why() }];
    samples.extend(answers.map(|answer| Event::CommandAnswered {
        action: action(),
        request_id: request_id(),
        answer,
        took: SECOND,
        reply: Some(why().into()),
    }));
    let consequences = [
        Consequence::RestartRequired,
        Consequence::Restarting,
        Consequence::RestartFailed { error: why() },
        Consequence::NotFoundOut { error: why() },
    ];
    samples.extend(consequences.map(|consequence| Event::ConfigChanged {
        section: section(),
        service: service(),
        consequence,
    }));
    for peer in [Peer::Engine, Peer::Redis] {
        samples.extend([Event::ConnectionLost { peer, reason: why() }, Event::ConnectionBack { peer }]);
    }
    samples
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line of an event, as the daemon writes it.
fn logged(event: &Event) -> Line {
    let (written, settings) = (
        Written::default(),
        Log { level: "debug".to_owned().try_into().unwrap(), format: LogFormat::Json, color: Color::Never },
    );
    let writer = written.clone();
    let dispatch = telemetry::dispatch(&settings, false, move || writer.clone());
    tracing::dispatcher::with_default(&dispatch, || Events::new(vec![Box::new(log::Log::default())]).emit(event));
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?} of {event:?}"));
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    let common = ["timestamp", "level", "message", "target"];
    let fields = line.as_object().unwrap().keys().filter(|key| !common.contains(&key.as_str())).cloned().collect();
    (event.name().to_owned(), text("level"), text("message"), fields)
}

#[test]
fn every_event_is_logged_as_the_document_says() {
    // The process has another subscriber besides: with one alone, interest in an event is cached by who comes first.
    let _others = Captured::capture();
    let logged: BTreeSet<Line> = samples().iter().map(logged).collect();
    let documented = documented();
    let undocumented: Vec<&Line> = logged.difference(&documented).collect();
    let unseen: Vec<&Line> = documented.difference(&logged).collect();
    assert!(undocumented.is_empty() && unseen.is_empty(), "not documented {undocumented:#?}, not logged {unseen:#?}");
    let sampled: BTreeSet<&str> = logged.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(sampled, names());
    assert!(DOCUMENT.contains(&format!("version {} of the contract", event::VERSION)));
}

#[test]
fn observers_hear_of_events_in_their_order() {
    struct Names(Arc<Mutex<Vec<String>>>, &'static str);
    impl Observer for Names {
        fn observe(&self, event: &Event) {
            self.0.lock().unwrap().push(format!("{} {}", self.1, event.name()));
        }
    }
    let heard = Arc::default();
    let observer = |name| -> Box<dyn Observer> { Box::new(Names(Arc::clone(&heard), name)) };
    let events = Events::new(vec![observer("first"), observer("second")]);
    events.emit(&Event::SlotDue { service: name("web"), slot: Timestamp(0.0) });
    events.emit(&Event::LeftoversStay);
    let expected = ["first slot_due", "second slot_due", "first leftovers_stay", "second leftovers_stay"];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_compose_files_is_said_once_whether_it_can_be_used_or_not() {
    let stack = Stack::new("name: p\nservices:\n  a: {image: x}\n");
    let log = Captured::capture();
    let mut said = Vec::new();
    for text in ["services: [\n", "services: [\n", "name: p\nservices:\n  a: {image: yy}\n"] {
        stack.folder.write("compose.yaml", text);
        stack.runner.projects().current();
        stack.runner.projects().current();
        said.push(
            ["project not loaded, the last good one stays in use", "project loaded again"].map(|m| log.lines(m).len()),
        );
    }
    assert_eq!(said, [[1, 0], [1, 0], [1, 1]], "{}", log.text());
    let targets = log.lines("project loaded again");
    assert_eq!(
        (targets[0]["project"].as_str(), targets[0]["target"].as_str()),
        (Some("p"), Some("sense_orchestrator::projects"))
    );
}

/// Events that no message causes, and `messages_ignored`, which the dispatcher says once a minute.
const NOT_BY_A_MESSAGE_EACH: [&str; 18] = [
    "scheduled",
    "slot_skipped",
    "slots_missed",
    "run_adopted",
    "foreign_run",
    "leftovers_stay",
    "leftover_removed",
    "messages_ignored",
    "reactions_dropped",
    "service_overdue",
    "service_recovered",
    "project_changed",
    "project_broken",
    "project_files_changed",
    "settings_reloaded",
    "settings_need_restart",
    "settings_refused",
    "run_ended",
];

#[tokio::test(start_paused = true)]
async fn lines_that_anybody_can_cause_by_a_message_each_are_limited_in_number() {
    const MANY: usize = 1000;
    let mut samples = samples();
    samples.extend(
        [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::NoOutput]
            .map(|outcome| Event::RunEnded { report: RunReport { trigger: Trigger::Command, ..run_report(outcome) } }),
    );
    for event in samples {
        let log = Captured::capture();
        let events = Events::new(vec![Box::new(log::Log::default())]);
        (0..MANY).for_each(|_| events.emit(&event));
        let written = log.text().lines().count();
        let by_command = matches!(&event, Event::RunEnded { report } if report.trigger == Trigger::Command);
        if NOT_BY_A_MESSAGE_EACH.contains(&event.name()) && !by_command {
            assert!([0, MANY].contains(&written), "{event:?}: {written}");
            continue;
        }
        assert!(written <= 300, "{event:?}: {written} lines in a minute");
        tokio::time::advance(Duration::from_mins(1)).await;
        events.emit(&event);
        if let Some(last) = log.text().lines().last() {
            let last: Value = serde_json::from_str(last).unwrap();
            let left_out = MANY - written;
            let says = last["suppressed"] == left_out || last["dropped"] == left_out + 1;
            assert!(says, "{last}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_commands_that_fail_leaves_room_for_those_that_are_done() {
    let log = Captured::capture();
    let events = Events::new(vec![Box::new(log::Log::default())]);
    let answered = |answer| Event::CommandAnswered {
        action: "trigger".to_owned(),
        request_id: None,
        answer,
        took: SECOND,
        reply: None,
    };
    (0..1000).for_each(|_| events.emit(&answered(Answer::Failed { error: "why".to_owned() })));
    events.emit(&answered(Answer::Done));
    assert_eq!((log.lines("command failed").len(), log.lines("command done").len()), (60, 1));
}
