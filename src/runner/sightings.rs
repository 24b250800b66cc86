//! Tells the runs of another daemon, which works on the project while this one does, from what an earlier life left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::names::RunId;

/// For so long what another daemon may have begun is left alone: if that daemon lives, it is started or gone by then, or goes
/// on. What is still there is taken over.
const LEFT_ALONE: Duration = Duration::from_secs(20);

/// The runs on the Engine that this daemon did not begin.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// None before the first look at all runs.
    seen: Mutex<Option<BTreeMap<RunId, Seen>>>,
}

/// What is known of a run.
#[derive(Debug)]
enum Seen {
    /// It was there before.
    AtFirst,
    /// Its container came later, and was not started yet. An earlier life of this daemon may have asked for it.
    Created { since: Instant },
    /// It was started later, which takes a daemon that lives.
    Started { since: Instant },
}

/// What a run is that this daemon did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// An earlier life's, or one that nobody looks after any more.
    Left,
    /// Another daemon's, seen started for the first time.
    New,
    /// Another daemon's, of which that was said, or which may be one's.
    Known,
}

impl Sightings {
    /// A look saw a run that this daemon did not begin, and whether its container was started.
    pub(super) fn of(&self, run_id: &RunId, is_started: bool) -> Stranger {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = seen.as_mut() else { return Stranger::Left };
        let since = Instant::now();
        let (now, stranger) = match seen.get(run_id) {
            None | Some(Seen::Created { .. }) if is_started => (Seen::Started { since }, Stranger::New),
            None => (Seen::Created { since }, Stranger::Known),
            Some(Seen::Created { since } | Seen::Started { since }) if since.elapsed() < LEFT_ALONE => {
                return Stranger::Known;
            }
            Some(_) => return Stranger::Left,
        };
        seen.insert(run_id.clone(), now);
        stranger
    }

    /// A look at all runs saw these.
    pub(super) fn looked(&self, all: &BTreeSet<RunId>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.as_mut() {
            None => *seen = Some(all.iter().map(|run_id| (run_id.clone(), Seen::AtFirst)).collect()),
            Some(seen) => seen.retain(|run_id, _| all.contains(run_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_that_comes_after_the_first_look_is_anothers_until_it_stays_too_long() {
        let sightings = Sightings::default();
        let [first, later]: [RunId; 2] = ["0123456789ab", "ba9876543210"].map(|run_id| run_id.parse().unwrap());
        let look = |is_started| sightings.of(&later, is_started);
        assert_eq!(look(true), Stranger::Left, "nothing is known yet");
        sightings.looked(&[first.clone()].into());
        assert_eq!(
            (sightings.of(&first, true), look(true), look(true)),
            (Stranger::Left, Stranger::New, Stranger::Known)
        );
        tokio::time::advance(LEFT_ALONE).await;
        assert_eq!(look(true), Stranger::Left);
        sightings.looked(&BTreeSet::new());
        assert_eq!(
            look(false),
            Stranger::Known,
            "what is gone is forgotten, and one that is not started is no sign yet"
        );
        tokio::time::advance(LEFT_ALONE).await;
        assert_eq!(look(false), Stranger::Left, "nobody starts it");
        assert_eq!(look(true), Stranger::New, "somebody did");
    }
}
