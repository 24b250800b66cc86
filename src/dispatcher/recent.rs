//! The commands of the last minute, so that a repeated one is not carried out again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::names::RequestId;

/// Most bytes of replies that are remembered; beyond that the oldest are forgotten early.
const MOST_BYTES: usize = 2 * 1024 * 1024;

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
}

/// The commands that go on, and those that ended within the last while.
#[derive(Debug)]
pub(super) struct Recent {
    keep: Duration,
    states: HashMap<RequestId, State>,
    /// Those that ended, oldest first.
    ended: VecDeque<(Instant, RequestId)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, states: HashMap::new(), ended: VecDeque::new(), bytes: 0 }
    }

    /// What became of an earlier command of that id. One that goes on is noted to be answered once more.
    pub(super) fn earlier(&mut self, request: &RequestId, now: Instant) -> Option<Earlier> {
        self.forget(now);
        match self.states.get_mut(request)? {
            State::GoesOn { repeats } => {
                *repeats = repeats.saturating_add(1);
                Some(Earlier::GoesOn)
            }
            State::Answered(json) => Some(Earlier::Answered(Arc::clone(json))),
        }
    }

    /// Notes that a command begins.
    pub(super) fn begin(&mut self, request: &RequestId) {
        self.states.insert(request.clone(), State::GoesOn { repeats: 0 });
    }

    /// Notes a command's reply, and returns how often it was repeated meanwhile.
    pub(super) fn end(&mut self, request: &RequestId, json: &Arc<str>, now: Instant) -> u32 {
        self.forget(now);
        self.bytes = self.bytes.saturating_add(json.len());
        self.ended.push_back((now, request.clone()));
        match self.states.insert(request.clone(), State::Answered(Arc::clone(json))) {
            Some(State::GoesOn { repeats }) => repeats,
            Some(State::Answered(_)) | None => 0,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.ended.front() {
            if now.saturating_duration_since(*at) < self.keep && self.bytes <= MOST_BYTES {
                break;
            }
            let Some((_, request)) = self.ended.pop_front() else { break };
            if let Some(State::Answered(json)) = self.states.remove(&request) {
                self.bytes = self.bytes.saturating_sub(json.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_mins(1);

    #[test]
    fn a_repeated_command_is_known_while_it_goes_on_and_a_minute_after_its_reply() {
        let (mut recent, start, id) = (Recent::new(KEEP), Instant::now(), "r".parse().unwrap());
        assert_eq!(recent.earlier(&id, start), None);
        recent.begin(&id);
        assert_eq!(recent.earlier(&id, start + 2 * KEEP), Some(Earlier::GoesOn));
        assert_eq!(recent.earlier(&id, start + 2 * KEEP), Some(Earlier::GoesOn));
        let ended = start + 3 * KEEP;
        assert_eq!(recent.end(&id, &"reply".into(), ended), 2);
        let almost = ended + KEEP - Duration::from_millis(1);
        assert_eq!(recent.earlier(&id, almost), Some(Earlier::Answered("reply".into())));
        assert_eq!(recent.earlier(&id, ended + KEEP), None);
        assert_eq!((recent.states.len(), recent.ended.len(), recent.bytes), (0, 0, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut recent, now) = (Recent::new(KEEP), Instant::now());
        let large: Arc<str> = "x".repeat(MOST_BYTES / 4).into();
        for n in 0..100 {
            let id: RequestId = n.to_string().parse().unwrap();
            recent.begin(&id);
            recent.end(&id, &large, now);
        }
        assert!(recent.states.len() <= 6, "{}", recent.states.len());
        assert!(recent.earlier(&"99".parse().unwrap(), now).is_some());
    }
}
