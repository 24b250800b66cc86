//! The record of a run or of a slot without one, in the form that the ledger, the command line, the API, Redis and
//! notifications show: `docs/records.md` explains it to their readers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, rfc3339};
use crate::names::{RequestId, RunId, ServiceName};
use crate::report::Trigger;

/// Where a run stands, or what became of a slot that had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Decided and written down; its container may not exist yet.
    Pending,
    /// Its container was started.
    Running,
    /// Exit code 0, and whatever else the service's settings ask for.
    Succeeded,
    /// An exit code other than 0, no exit at all, or no output where some was expected.
    Failed,
    /// Past its limit: stopped and removed.
    TimedOut,
    /// Ended by a command or by the daemon's own end.
    Cancelled,
    /// A slot that fell due and got no run.
    Skipped,
    /// Slots that nobody was there to see; one record for all of them.
    Missed,
}

impl State {
    /// All states, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Skipped,
        Self::Missed,
    ];

    /// The word in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    /// True once nothing follows.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// True for the states of a slot that got no run.
    #[must_use]
    pub fn is_without_run(self) -> bool {
        matches!(self, Self::Skipped | Self::Missed)
    }

    /// Whether a record in this state may be written anew in `next`: forwards only, and a verdict stays.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => next != Self::Pending && !next.is_without_run(),
            Self::Running => next.is_over() && !next.is_without_run(),
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Skipped | Self::Missed => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a record has its state, in one word, where the state alone does not say it.
        ///
        /// The list is closed: `docs/records.md` has every word, and a test compares the two.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in records.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// `failed`: exit code 0, but the service did not report where its settings say that it does.
    NoOutput = "no_output",
    /// `failed`: no container was started; `error` says why.
    NotStarted = "not_started",
    /// `failed`: the daemon ended in mid-run, and what the run came to could not be found out.
    Interrupted = "interrupted",
    /// `failed`: the container was gone before its exit code was read; somebody else removed it.
    Lost = "lost",
    /// `failed`: the Engine went down under the run and took its container with it.
    EngineLost = "engine_lost",
    /// `failed`: the kernel ended it at its memory limit.
    OutOfMemory = "out_of_memory",
    /// `cancelled`: a command asked for it.
    Requested = "requested",
    /// `cancelled`: a later run takes its place.
    Replaced = "replaced",
    /// `cancelled`, `skipped`: the daemon was ending.
    Shutdown = "shutdown",
    /// `skipped`, `cancelled`: another run of the service goes on.
    Busy = "busy",
    /// `skipped`: the project has no such service.
    UnknownService = "unknown_service",
    /// `skipped`: as many runs wait already as may.
    QueueFull = "queue_full",
    /// `skipped`: the service's schedule is paused.
    Paused = "paused",
    /// `skipped`: the run of an earlier slot is being tried again.
    Retry = "retry",
    /// `missed`: the daemon did not run.
    Down = "down",
    /// `missed`: the machine slept, or its clock was set forward.
    Clock = "clock",
    /// `missed`: another daemon had the project.
    Standby = "standby",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One run, or slots without one; its JSON has exactly these keys, null where there is nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The service.
    pub job: ServiceName,
    /// Counts the service's runs from 1 and is never used twice; none for slots without a run.
    pub iteration: Option<u64>,
    /// The run; none for slots without one.
    pub run_id: Option<RunId>,
    /// Why it ran.
    pub trigger: Trigger,
    /// When its slot fell due, the first one where there were several; none for runs without a slot.
    #[serde(default, with = "rfc3339::option")]
    pub slot: Option<Timestamp>,
    /// The command that asked for it.
    pub request_id: Option<RequestId>,
    /// Where it stands.
    pub state: State,
    /// More about the state, in one word.
    pub reason: Option<Reason>,
    /// The container's exit code; none before its end, and where there was none.
    pub exit_code: Option<i64>,
    /// Number of the signal that ended it.
    pub signal: Option<u8>,
    /// Whether the kernel ended it at its memory limit, where the Engine was asked.
    pub out_of_memory: Option<bool>,
    /// Name of its container.
    pub container: Option<String>,
    /// Image of its container.
    pub image: Option<String>,
    /// The machine that ran it, where there are several.
    pub node: Option<String>,
    /// When this record was first written.
    #[serde(with = "rfc3339")]
    pub created_at: Timestamp,
    /// When the container was started, by the Engine's clock where it was asked.
    #[serde(default, with = "rfc3339::option")]
    pub started_at: Option<Timestamp>,
    /// When the container ended, by the Engine's clock where it was asked.
    #[serde(default, with = "rfc3339::option")]
    pub finished_at: Option<Timestamp>,
    /// How long the container ran.
    pub duration_ms: Option<u64>,
    /// What went wrong, with its causes; the text form of [`Missed`] for missed slots.
    pub error: Option<String>,
    /// The end of its output, where it is kept.
    pub tail: Option<String>,
}

impl Record {
    /// A run that was decided on and has no container yet.
    #[must_use]
    pub fn pending(job: ServiceName, iteration: u64, run_id: RunId, trigger: Trigger, now: Timestamp) -> Self {
        Self { iteration: Some(iteration), run_id: Some(run_id), ..Self::blank(job, trigger, State::Pending, now) }
    }

    /// A slot that fell due and gets no run.
    #[must_use]
    pub fn skipped(job: ServiceName, slot: Timestamp, reason: Reason, now: Timestamp) -> Self {
        Self { slot: Some(slot), reason: Some(reason), ..Self::blank(job, Trigger::Schedule, State::Skipped, now) }
    }

    /// Slots that nobody saw, the `first` of them and their number.
    #[must_use]
    pub fn missed(job: ServiceName, first: Timestamp, missed: Missed, reason: Reason, now: Timestamp) -> Self {
        Self {
            slot: Some(first),
            reason: Some(reason),
            error: Some(missed.to_string()),
            ..Self::blank(job, Trigger::Schedule, State::Missed, now)
        }
    }

    fn blank(job: ServiceName, trigger: Trigger, state: State, now: Timestamp) -> Self {
        Self {
            job,
            iteration: None,
            run_id: None,
            trigger,
            slot: None,
            request_id: None,
            state,
            reason: None,
            exit_code: None,
            signal: None,
            out_of_memory: None,
            container: None,
            image: None,
            node: None,
            created_at: now,
            started_at: None,
            finished_at: None,
            duration_ms: None,
            error: None,
            tail: None,
        }
    }

    /// How many slots were missed, and until when; none unless that is its state.
    #[must_use]
    pub fn missed_slots(&self) -> Option<Missed> {
        self.error.as_deref().filter(|_| self.state == State::Missed)?.parse().ok()
    }

    /// How many slots this record accounts for.
    #[must_use]
    pub fn slots(&self) -> u64 {
        match self.missed_slots() {
            Some(missed) => missed.slots,
            None => u64::from(self.slot.is_some()),
        }
    }
}

/// How many slots were missed; a record's `error` has it as text, such as
/// `12 slots missed, the last at 2026-11-26T06:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Missed {
    /// Their number.
    pub slots: u64,
    /// The last of them.
    pub last: Timestamp,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.slots == 1 { "" } else { "s" };
        write!(f, "{} slot{plural} missed, the last at {}", self.slots, self.last.to_rfc3339())
    }
}

impl FromStr for Missed {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (slots, rest) = text.split_once(" slot").ok_or(())?;
        let last = rest.trim_start_matches('s').strip_prefix(" missed, the last at ").ok_or(())?;
        Ok(Self { slots: slots.parse().map_err(|_| ())?, last: Timestamp::from_rfc3339(last).ok_or(())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../docs/records.md");

    fn job() -> ServiceName {
        "backup".parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::from_rfc3339(text).unwrap()
    }

    /// First column of the table under a heading.
    fn documented(heading: &str) -> Vec<&'static str> {
        let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}")).unwrap();
        let section = section.split("\n#").next().unwrap();
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
    }

    fn keys(record: &Record) -> Vec<String> {
        let text = serde_json::to_string(record).unwrap();
        let keys = text.split("\",\"").flat_map(|part| part.split(",\""));
        let mut keys: Vec<String> = keys.filter_map(|part| Some(part.split_once("\":")?.0.to_owned())).collect();
        if let Some(first) = keys.first_mut() {
            *first = first.trim_start_matches("{\"").to_owned();
        }
        keys
    }

    #[test]
    fn the_json_has_the_documented_keys_in_their_order_and_null_where_there_is_nothing() {
        let record = Record::pending(job(), 7, "0123456789ab".parse().unwrap(), Trigger::Schedule, Timestamp(0.5));
        assert_eq!(keys(&record), documented("Keys"));
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["iteration"], 7);
        assert_eq!(json["created_at"], "1970-01-01T00:00:00.500Z");
        let set = ["job", "iteration", "run_id", "trigger", "state", "created_at"];
        for (key, value) in json.as_object().unwrap() {
            assert_eq!(value.is_null(), !set.contains(&key.as_str()), "{key}");
        }
    }

    #[test]
    fn every_state_and_every_reason_is_documented() {
        assert_eq!(documented("States"), State::ALL.map(State::as_str));
        let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(documented("Reasons"), reasons);
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn a_verdict_is_never_followed_by_another() {
        for state in State::ALL {
            assert!(!state.may_become(State::Pending) && !state.may_become(state), "{state}");
            let next = State::ALL.into_iter().filter(|next| state.may_become(*next)).count();
            assert_eq!(next > 0, !state.is_over(), "{state}");
        }
        assert!(State::Pending.may_become(State::Failed), "a run whose container could not be created");
    }

    #[test]
    fn a_missed_record_tells_the_number_of_its_slots_and_the_last_of_them() {
        for slots in [1, 2, 10_368] {
            let missed = Missed { slots, last: at("2026-11-26T06:00:00.250Z") };
            let record = Record::missed(job(), at("2026-11-25T06:00:00Z"), missed, Reason::Down, Timestamp(0.0));
            let read: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
            assert_eq!(read.missed_slots(), Some(missed), "{:?}", read.error);
            assert_eq!((read.slots(), read.iteration), (slots, None));
        }
        let failed = Record { error: Some("3 slots missed, the last at x".into()), ..skipped() };
        assert_eq!((failed.missed_slots(), failed.slots()), (None, 1));
    }

    fn skipped() -> Record {
        Record::skipped(job(), Timestamp(30.0), Reason::Busy, Timestamp(30.0))
    }

    #[test]
    fn keys_of_a_later_version_are_passed_over_and_missing_ones_are_null() {
        let text =
            r#"{"job":"a","state":"skipped","trigger":"schedule","created_at":"2026-11-26T06:00:00.000Z","new":1}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!((record.slot, record.run_id, record.tail), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(milliseconds in 0_u64..4_000_000_000_000, tail in ".*") {
            let seconds = std::time::Duration::from_millis(milliseconds).as_secs_f64();
            let record = Record { tail: Some(tail), finished_at: Some(Timestamp(seconds)), ..skipped() };
            let text = serde_json::to_string(&record).unwrap();
            proptest::prop_assert!(!text.contains('\n'));
            let read: Record = serde_json::from_str(&text).unwrap();
            proptest::prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }
}
