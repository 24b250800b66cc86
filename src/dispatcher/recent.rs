//! The commands of the last minute, so that a repeated one is not carried out again.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::message::Command;
use crate::names::RequestId;

/// What a remembered command costs beside its reply.
const COST: usize = 512;

/// What a command asks for, in short: equal for equal actions and parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn of(command: &Command) -> Self {
        let mut hasher = DefaultHasher::new();
        command.action.hash(&mut hasher);
        hash_object(&command.params, &mut hasher);
        Self(hasher.finish())
    }
}

fn hash_object(object: &Map<String, Value>, hasher: &mut DefaultHasher) {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    for (name, value) in fields {
        name.hash(hasher);
        match value {
            Value::Object(object) => hash_object(object, hasher),
            value => value.to_string().hash(hasher),
        }
    }
    object.len().hash(hasher);
}

#[derive(Debug)]
struct Seen {
    fingerprint: Fingerprint,
    state: State,
}

#[derive(Debug)]
enum State {
    GoesOn { repeats: u32 },
    Answered(Arc<str>),
}

/// What an earlier command of the same id came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// It goes on; its reply will be sent once more.
    GoesOn,
    /// It was answered.
    Answered(Arc<str>),
    /// It asks for something else.
    Other,
}

/// The commands that go on, and those that ended within the last while.
#[derive(Debug)]
pub(super) struct Recent {
    keep: Duration,
    /// Most bytes of replies that are remembered; beyond that the oldest are forgotten early.
    most_bytes: usize,
    states: HashMap<RequestId, Seen>,
    /// Those that ended, oldest first.
    ended: VecDeque<(Instant, RequestId)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(keep: Duration, most_bytes: usize) -> Self {
        Self { keep, most_bytes, states: HashMap::new(), ended: VecDeque::new(), bytes: 0 }
    }

    /// What became of an earlier command of that id. One that goes on is noted to be answered once more.
    pub(super) fn earlier(&mut self, request: &RequestId, asks: Fingerprint, now: Instant) -> Option<Earlier> {
        self.forget(now);
        let seen = self.states.get_mut(request)?;
        if seen.fingerprint != asks {
            return Some(Earlier::Other);
        }
        match &mut seen.state {
            State::GoesOn { repeats } => {
                *repeats = repeats.saturating_add(1);
                Some(Earlier::GoesOn)
            }
            State::Answered(json) => Some(Earlier::Answered(Arc::clone(json))),
        }
    }

    /// Notes that a command begins.
    pub(super) fn begin(&mut self, request: &RequestId, fingerprint: Fingerprint) {
        self.states.insert(request.clone(), Seen { fingerprint, state: State::GoesOn { repeats: 0 } });
    }

    /// Notes a command's reply, and returns how often it was repeated meanwhile.
    pub(super) fn end(&mut self, request: &RequestId, json: &Arc<str>, now: Instant) -> u32 {
        self.forget(now);
        let Some(seen) = self.states.get_mut(request) else { return 0 };
        self.bytes = self.bytes.saturating_add(json.len() + COST);
        self.ended.push_back((now, request.clone()));
        match std::mem::replace(&mut seen.state, State::Answered(Arc::clone(json))) {
            State::GoesOn { repeats } => repeats,
            State::Answered(_) => 0,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.ended.front() {
            if now.saturating_duration_since(*at) < self.keep && self.bytes <= self.most_bytes {
                break;
            }
            let Some((_, request)) = self.ended.pop_front() else { break };
            if let Some(Seen { state: State::Answered(json), .. }) = self.states.remove(&request) {
                self.bytes = self.bytes.saturating_sub(json.len() + COST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_mins(1);
    const MOST_BYTES: usize = 1024 * 1024;

    fn asks(payload: &str) -> Fingerprint {
        Fingerprint::of(&Command::parse(payload.as_bytes()).unwrap())
    }

    #[test]
    fn what_a_command_asks_for_is_its_action_and_its_parameters_in_any_order() {
        let one = asks(r#"{"action": "a", "request_id": "1", "params": {"x": 1, "y": {"p": 1, "q": [2]}}}"#);
        assert_eq!(one, asks(r#"{"params": {"y": {"q": [2], "p": 1}, "x": 1}, "action": "a", "timestamp": 5}"#));
        for other in [
            r#"{"action": "b", "params": {"x": 1, "y": {"p": 1, "q": [2]}}}"#,
            r#"{"action": "a", "params": {"x": 1, "y": {"p": 1}, "q": [2]}}"#,
            r#"{"action": "a", "params": {"x": "1", "y": {"p": 1, "q": [2]}}}"#,
            r#"{"action": "a"}"#,
        ] {
            assert_ne!(one, asks(other), "{other}");
        }
    }

    #[test]
    fn a_repeated_command_is_known_while_it_goes_on_and_a_minute_after_its_reply() {
        let (mut recent, start, id) = (Recent::new(KEEP, MOST_BYTES), Instant::now(), "r".parse().unwrap());
        let (asks, other) = (asks(r#"{"action": "a"}"#), asks(r#"{"action": "b"}"#));
        assert_eq!(recent.earlier(&id, asks, start), None);
        recent.begin(&id, asks);
        assert_eq!(recent.earlier(&id, asks, start + 2 * KEEP), Some(Earlier::GoesOn));
        assert_eq!(recent.earlier(&id, asks, start + 2 * KEEP), Some(Earlier::GoesOn));
        assert_eq!(recent.earlier(&id, other, start + 2 * KEEP), Some(Earlier::Other));
        let ended = start + 3 * KEEP;
        assert_eq!(recent.end(&id, &"reply".into(), ended), 2);
        let almost = ended + KEEP - Duration::from_millis(1);
        assert_eq!(recent.earlier(&id, asks, almost), Some(Earlier::Answered("reply".into())));
        assert_eq!(recent.earlier(&id, other, almost), Some(Earlier::Other));
        assert_eq!(recent.earlier(&id, asks, ended + KEEP), None);
        assert_eq!((recent.states.len(), recent.ended.len(), recent.bytes), (0, 0, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut recent, now) = (Recent::new(KEEP, MOST_BYTES), Instant::now());
        let large: Arc<str> = "x".repeat(MOST_BYTES / 4).into();
        for n in 0..100 {
            let id: RequestId = n.to_string().parse().unwrap();
            recent.begin(&id, asks(r#"{"action": "a"}"#));
            recent.end(&id, &large, now);
        }
        assert!(recent.states.len() <= 6, "{}", recent.states.len());
        assert!(recent.earlier(&"99".parse().unwrap(), asks(r#"{"action": "a"}"#), now).is_some());
    }
}
