//! The verbs that the configuration is written in: what a command does, what follows an event.
//!
//! There are no conditions, loops or expressions here: what needs one is Rust.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::Span;
use crate::names::{ServiceName, SourceId};

mod built_in;
pub mod permission;
pub mod text;

pub use built_in::built_in;

use text::{Root, Text};

/// The actions of the command channel, by the name that a command gives.
pub type Actions = BTreeMap<String, Action>;

/// What follows a message, by its channel.
pub type Reactions = BTreeMap<String, Reaction>;

/// What a changed section of the configuration means for a running service, by section.
pub type ConfigChanges = BTreeMap<String, ConfigChange>;

/// How long a run with variables of its own waits for a run of its service that goes on, where the step does not say.
const WAIT_FOR_TURN: Duration = Duration::from_secs(30);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawStep")]
pub enum Step {
    /// Run an ephemeral service and wait for its end.
    Run {
        /// Which service.
        service: Target,
        /// Variables added to the service's own.
        env: BTreeMap<String, Text>,
        /// Longest wait for a run of the service that goes on; it does not count against the limit of the run that waits.
        wait_for_turn: Duration,
    },
    /// Start a service.
    Start(Target),
    /// Stop a service.
    Stop(Target),
    /// Stop a service, then start it.
    Restart(Target),
    /// Cancel the starts of a service that have not come to its container yet.
    CancelStart(Target),
    /// Publish a command on a channel; `request_id`, `params` and `timestamp` are added where absent.
    Publish {
        /// The channel.
        channel: String,
        /// The message.
        message: Map<String, Value>,
    },
    /// Put the list at a key into the reply. The key is deleted before the action's first run, or its first step where it
    /// runs nothing, so that what is read was written by this action.
    Reply {
        /// Field of the reply's `data`.
        field: String,
        /// Key of a JSON list.
        from: String,
    },
    /// Put the state of the services into the reply, under `services`.
    Report(Report),
    /// Let time pass.
    Wait(Duration),
    /// Do something with a job, or tell of it. Built-in actions have such steps, those of the settings do not.
    Job(JobVerb, Target),
    /// Write an error into a source's status.
    Status {
        /// Which source.
        source: SourceId,
        /// Its `last_error`.
        error: Text,
    },
}

/// What is done with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobVerb {
    /// End its run.
    Cancel,
    /// Skip its slots from now on.
    Pause,
    /// Skip them no more.
    Resume,
    /// Put its newest records into the reply, as `runs`.
    Runs,
    /// Put the end of its newest run's output into the reply, as `logs`.
    Logs,
}

/// What a `report` step tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Every service with its interval and its runs.
    Services,
}

/// The service of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Always this one.
    Fixed(ServiceName),
    /// The one that a parameter of the command names, if that is permitted.
    Param(String),
}

/// Why a configured action is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// No verb, or several.
    #[error(
        "a step has exactly one of run, start, stop, restart, cancel_start, publish, reply, report, wait, status; here: {0}"
    )]
    Verbs(String),
    /// A key that another verb has.
    #[error("`{key}` does not belong to `{verb}`")]
    Foreign {
        /// The key.
        key: &'static str,
        /// The step's verb.
        verb: &'static str,
    },
    /// A key that the verb needs.
    #[error("`{verb}` needs `{key}`")]
    Lacks {
        /// The key.
        key: &'static str,
        /// The step's verb.
        verb: &'static str,
    },
    /// No steps.
    #[error("an action has at least one step")]
    Empty,
    /// A placeholder that has no value there.
    #[error("`{{{0}…}}` has no value here")]
    Placeholder(Root),
    /// A verb that has no sense there.
    #[error("`{0}` has no reply to write to here")]
    NoReply(&'static str),
    /// A service that is neither a name nor a parameter.
    #[error("{0:?} is neither a service name nor a single {{params.…}}")]
    Target(String),
    /// A text with a broken placeholder.
    #[error(transparent)]
    Text(#[from] text::TextError),
}

/// What a command does: one or more steps, carried out in order until one fails.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Vec<Step>")]
pub struct Action(Vec<Step>);

impl Action {
    /// The steps in their order.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl TryFrom<Vec<Step>> for Action {
    type Error = ActionError;

    fn try_from(steps: Vec<Step>) -> Result<Self, ActionError> {
        if steps.is_empty() {
            return Err(ActionError::Empty);
        }
        only(&steps, Root::Params)?;
        Ok(Self(steps))
    }
}

/// What follows a message on a channel: one or more steps. Messages that arrive meanwhile are followed after it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Vec<Step>")]
pub struct Reaction(Vec<Step>);

impl Reaction {
    /// The steps in their order.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether a message is about the source that the reaction writes the status of.
    ///
    /// Several sources may share a channel. A message that names no `source_id` concerns every reaction.
    pub fn concerns(&self, payload: &Map<String, Value>) -> bool {
        let mut sources = self.0.iter().filter_map(Step::reports_for);
        match payload.get("source_id") {
            None => true,
            Some(named) => sources.all(|source| named.as_str() == Some(source)),
        }
    }

    /// The fields of a message that the reaction's texts take, and no others.
    pub fn fields_used(&self, payload: &Map<String, Value>) -> Map<String, Value> {
        let used = self.0.iter().flat_map(Step::texts).flat_map(Text::fields);
        used.filter_map(|field| Some((field.to_owned(), text::scalar(payload.get(field)?)?.into()))).collect()
    }

    /// What the reaction does for a message, as far as messages differ in it: the variables of its runs. The text of a status
    /// is left out, because a later one replaces an earlier one. Of messages with the same effect only the last matters.
    pub fn effect(&self, payload: &Map<String, Value>) -> Vec<String> {
        let variables =
            self.0.iter().filter_map(|step| if let Step::Run { env, .. } = step { Some(env) } else { None });
        variables.flat_map(BTreeMap::values).map(|text| text.fill(payload)).collect()
    }
}

impl TryFrom<Vec<Step>> for Reaction {
    type Error = ActionError;

    fn try_from(steps: Vec<Step>) -> Result<Self, ActionError> {
        if steps.is_empty() {
            return Err(ActionError::Empty);
        }
        only(&steps, Root::Payload)?;
        match steps.iter().find(|step| matches!(step, Step::Reply { .. } | Step::Report(_))) {
            Some(step) => Err(ActionError::NoReply(step.verb())),
            None => Ok(Self(steps)),
        }
    }
}

/// Checks that no placeholder of the steps has another root.
fn only(steps: &[Step], root: Root) -> Result<(), ActionError> {
    match steps.iter().flat_map(Step::roots).find(|used| *used != root) {
        Some(used) => Err(ActionError::Placeholder(used)),
        None => Ok(()),
    }
}

impl Step {
    /// The verb as it is written.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Restart(_) => "restart",
            Self::CancelStart(_) => "cancel_start",
            Self::Publish { .. } => "publish",
            Self::Reply { .. } => "reply",
            Self::Report(_) => "report",
            Self::Wait(_) => "wait",
            Self::Job(JobVerb::Cancel, _) => "cancel",
            Self::Job(JobVerb::Pause, _) => "pause",
            Self::Job(JobVerb::Resume, _) => "resume",
            Self::Job(JobVerb::Runs, _) => "runs",
            Self::Job(JobVerb::Logs, _) => "logs",
            Self::Status { .. } => "status",
        }
    }

    /// The service that the step names, where it is always the same one.
    pub fn fixed_service(&self) -> Option<&ServiceName> {
        match self.target() {
            Some(Target::Fixed(service)) => Some(service),
            Some(Target::Param(_)) | None => None,
        }
    }

    fn target(&self) -> Option<&Target> {
        match self {
            Self::Run { service, .. }
            | Self::Start(service)
            | Self::Stop(service)
            | Self::Restart(service)
            | Self::CancelStart(service)
            | Self::Job(_, service) => Some(service),
            Self::Status { .. } | Self::Publish { .. } | Self::Reply { .. } | Self::Report(_) | Self::Wait(_) => None,
        }
    }

    /// The source whose status the step writes.
    fn reports_for(&self) -> Option<&str> {
        if let Self::Status { source, .. } = self { Some(source.as_str()) } else { None }
    }

    fn roots(&self) -> Vec<Root> {
        let param = self.target().filter(|target| matches!(target, Target::Param(_))).map(|_| Root::Params);
        param.into_iter().chain(self.texts().flat_map(Text::roots)).collect()
    }

    /// The texts with placeholders.
    fn texts(&self) -> impl Iterator<Item = &Text> {
        let (env, error) = match self {
            Self::Run { env, .. } => (Some(env), None),
            Self::Status { error, .. } => (None, Some(error)),
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::CancelStart(_)
            | Self::Publish { .. }
            | Self::Reply { .. }
            | Self::Report(_)
            | Self::Job(..)
            | Self::Wait(_) => (None, None),
        };
        env.into_iter().flat_map(BTreeMap::values).chain(error)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    run: Option<Target>,
    start: Option<Target>,
    stop: Option<Target>,
    restart: Option<Target>,
    cancel_start: Option<Target>,
    publish: Option<String>,
    reply: Option<String>,
    report: Option<Report>,
    wait: Option<Span>,
    status: Option<SourceId>,
    env: Option<BTreeMap<String, Text>>,
    wait_for_turn: Option<Span>,
    message: Option<Map<String, Value>>,
    from: Option<String>,
    error: Option<Text>,
}

impl TryFrom<RawStep> for Step {
    type Error = ActionError;

    fn try_from(raw: RawStep) -> Result<Self, ActionError> {
        let RawStep {
            run,
            start,
            stop,
            restart,
            cancel_start,
            publish,
            reply,
            report,
            wait,
            status,
            env,
            wait_for_turn,
            message,
            from,
            error,
        } = raw;
        let verbs: Vec<&'static str> = [
            run.as_ref().map(|_| "run"),
            start.as_ref().map(|_| "start"),
            stop.as_ref().map(|_| "stop"),
            restart.as_ref().map(|_| "restart"),
            cancel_start.as_ref().map(|_| "cancel_start"),
            publish.as_ref().map(|_| "publish"),
            reply.as_ref().map(|_| "reply"),
            report.map(|_| "report"),
            wait.map(|_| "wait"),
            status.as_ref().map(|_| "status"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [verb] = verbs.as_slice() else {
            return Err(ActionError::Verbs(if verbs.is_empty() { "none".into() } else { verbs.join(", ") }));
        };
        let keys = [
            ("env", "run", env.is_some()),
            ("wait_for_turn", "run", wait_for_turn.is_some()),
            ("message", "publish", message.is_some()),
            ("from", "reply", from.is_some()),
            ("error", "status", error.is_some()),
        ];
        if let Some((key, _, _)) = keys.into_iter().find(|(_, of, given)| *given && of != verb) {
            return Err(ActionError::Foreign { key, verb });
        }
        let lacks = |key| ActionError::Lacks { key, verb };
        if let Some(service) = run {
            let env = env.unwrap_or_default();
            // A run like any other is covered by the one that goes on; one with variables of its own is not.
            let default = if env.is_empty() { Duration::ZERO } else { WAIT_FOR_TURN };
            return Ok(Self::Run { service, env, wait_for_turn: wait_for_turn.map_or(default, |span| span.0) });
        }
        if let Some(channel) = publish {
            return Ok(Self::Publish { channel, message: message.ok_or_else(|| lacks("message"))? });
        }
        if let Some(field) = reply {
            return Ok(Self::Reply { field, from: from.ok_or_else(|| lacks("from"))? });
        }
        if let Some(source) = status {
            return Ok(Self::Status { source, error: error.ok_or_else(|| lacks("error"))? });
        }
        start
            .map(Self::Start)
            .or(stop.map(Self::Stop))
            .or(restart.map(Self::Restart))
            .or(cancel_start.map(Self::CancelStart))
            .or(report.map(Self::Report))
            .or(wait.map(|span| Self::Wait(span.0)))
            .ok_or_else(|| ActionError::Verbs("none".into()))
    }
}

impl TryFrom<String> for Target {
    type Error = ActionError;

    fn try_from(text: String) -> Result<Self, ActionError> {
        if let Ok(service) = text.parse() {
            return Ok(Self::Fixed(service));
        }
        match text.parse::<Text>()?.as_placeholder() {
            Some((Root::Params, field)) => Ok(Self::Param(field.to_owned())),
            Some((Root::Payload, _)) | None => Err(ActionError::Target(text)),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// What a changed section means for a service that read it at its start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// The service that does not see the change by itself.
    pub service: ServiceName,
    /// What to do.
    pub when_changed: WhenChanged,
}

/// What to do when a section of the configuration changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenChanged {
    /// Warn that the service needs a restart.
    Warn,
    /// The same, but only while the service runs.
    WarnIfRunning,
    /// Restart the service.
    Restart,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(service) => service.fmt(f),
            Self::Param(field) => write!(f, "{{params.{field}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(yaml: &str) -> Result<Step, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn every_verb_is_read_with_its_keys() {
        assert_eq!(
            step("{ run: worker, env: { MODE: scan } }").unwrap(),
            Step::Run {
                service: Target::Fixed("worker".parse().unwrap()),
                env: BTreeMap::from([("MODE".into(), "scan".parse().unwrap())]),
                wait_for_turn: Duration::from_secs(30),
            }
        );
        let turn = |yaml| match step(yaml) {
            Ok(Step::Run { wait_for_turn, .. }) => wait_for_turn.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(turn("run: worker"), 0);
        assert_eq!(turn("{ run: worker, wait_for_turn: 1m }"), 60);
        assert_eq!(turn("{ run: worker, env: { A: b }, wait_for_turn: 0 }"), 0);
        assert_eq!(step("cancel_start: worker").unwrap(), Step::CancelStart(Target::Fixed("worker".parse().unwrap())));
        assert_eq!(step("start: '{params.service}'").unwrap(), Step::Start(Target::Param("service".into())));
        assert_eq!(step("wait: 2s").unwrap(), Step::Wait(Duration::from_secs(2)));
        assert_eq!(step("report: services").unwrap(), Step::Report(Report::Services));
        assert!(matches!(step("{ reply: found, from: 'list:x' }"), Ok(Step::Reply { .. })));
        assert!(matches!(step("{ status: x, error: 'gone: {payload.reason}' }"), Ok(Step::Status { .. })));
        assert!(matches!(step("{ publish: c, message: { a: 1 } }"), Ok(Step::Publish { .. })));
    }

    #[test]
    fn a_wrong_step_is_an_error_that_names_the_fault() {
        for (yaml, fault) in [
            ("{ explode: worker }", "unknown field `explode`"),
            ("{ run: a, stop: b }", "run, stop"),
            ("{ env: { A: b } }", "here: none"),
            ("{ stop: a, env: { A: b } }", "`env` does not belong to `stop`"),
            ("{ start: a, wait_for_turn: 5s }", "`wait_for_turn` does not belong to `start`"),
            ("{ reply: found }", "`reply` needs `from`"),
            ("{ run: 'a/b' }", "\"a/b\" is neither a service name nor"),
            ("{ run: '{payload.service}' }", "neither a service name nor"),
            ("{ run: 'x-{params.service}' }", "neither a service name nor"),
            ("{ status: x, error: '{nobody.x}' }", "nobody"),
            ("{ report: tides }", "unknown variant `tides`"),
        ] {
            let error = step(yaml).unwrap_err();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }

    #[test]
    fn a_placeholder_without_a_value_is_refused_when_the_configuration_is_read() {
        let action = serde_yaml::from_str::<Action>("[ { status: x, error: '{payload.reason}' } ]");
        assert!(action.unwrap_err().to_string().contains("{payload.…}"));
        let reaction = serde_yaml::from_str::<Reaction>("[ { stop: '{params.service}' } ]");
        assert!(reaction.unwrap_err().to_string().contains("{params.…}"));
        let reaction = serde_yaml::from_str::<Reaction>("[ { reply: a, from: b } ]");
        assert!(reaction.unwrap_err().to_string().contains("`reply` has no reply to write to here"));
        assert!(serde_yaml::from_str::<Action>("[]").is_err());
    }
    #[test]
    fn messages_have_the_same_effect_unless_a_run_is_given_other_variables() {
        let payload = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let reaction: Reaction = serde_yaml::from_str(
            "[ { run: a, env: { FILE: '{payload.file}' } }, { status: x, error: '{payload.reason}' } ]",
        )
        .unwrap();
        let effect = |text| reaction.effect(&payload(text));
        assert_eq!(effect(r#"{"file": "a", "reason": "one"}"#), effect(r#"{"file": "a", "reason": "two", "more": 1}"#));
        assert_ne!(effect(r#"{"file": "a"}"#), effect(r#"{"file": "b"}"#));
        let used = reaction.fields_used(&payload(r#"{"file": "a", "reason": ["x"], "more": "long"}"#));
        assert_eq!(used, payload(r#"{"file": "a"}"#));
    }
}
