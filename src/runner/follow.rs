//! Who reads a run's output while it goes on: its container stays until they have read it to the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Runner;
use crate::backend::{Backend, Failure};
use crate::bus::Bus;
use crate::names::RunId;
use crate::request::Output;

/// How long a run's container waits for a reader that does not get on: the service's next run waits with it.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The readers of each run.
#[derive(Debug, Default)]
pub(super) struct Followers {
    counts: Mutex<BTreeMap<RunId, usize>>,
    gone: Notify,
}

impl Followers {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<RunId, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, run_id: &RunId) -> Follower {
        *self.counts().entry(run_id.clone()).or_default() += 1;
        Follower { followers: Arc::clone(self), run_id: run_id.clone() }
    }

    /// Waits until nobody reads the run's output any more, within a limit.
    pub(super) async fn have_read(&self, run_id: &RunId) {
        let read = async {
            loop {
                let mut gone = std::pin::pin!(self.gone.notified());
                gone.as_mut().enable();
                if !self.counts().contains_key(run_id) {
                    return;
                }
                gone.await;
            }
        };
        let _ = timeout(READ_LIMIT, read).await;
    }
}

/// Holds a run's container after the run's end, until dropped.
#[derive(Debug)]
pub struct Follower {
    followers: Arc<Followers>,
    run_id: RunId,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut counts = self.followers.counts();
        if let Some(count) = counts.get_mut(&self.run_id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.run_id);
            }
        }
        drop(counts);
        self.followers.gone.notify_waiters();
    }
}

impl<K: Backend, B: Bus> Runner<K, B> {
    /// Announces that somebody is to read a run's output to its end.
    pub fn follow(&self, run_id: &RunId) -> Follower {
        self.inner.followers.follow(run_id)
    }

    /// The last bytes so far of the output of the run in this container; none where they cannot be had.
    pub async fn tail(&self, container: &str, limit: usize) -> Option<String> {
        let mut output = std::pin::pin!(self.output(container, false));
        let mut tail = Vec::new();
        while let Some(piece) = output.next().await {
            tail.extend_from_slice(&piece.ok()?.bytes);
            let surplus = tail.len().saturating_sub(limit);
            tail.drain(..surplus);
        }
        Some(String::from_utf8_lossy(&tail).into_owned())
    }

    /// The output of the run in this container, from its first byte on; `follow`: until it ends, else until now.
    pub fn output(&self, container: &str, follow: bool) -> impl Stream<Item = Result<Output, Failure>> + Send {
        self.inner.backend.output(container, follow)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_container_waits_for_its_last_reader_and_not_for_one_that_stalls() {
        let (followers, run_id): (Arc<Followers>, RunId) = (Arc::default(), "000000000001".parse().unwrap());
        let follower = || followers.follow(&run_id);
        followers.have_read(&run_id).await;
        let (first, second) = (follower(), follower());
        let begun = Instant::now();
        tokio::join!(followers.have_read(&run_id), async {
            drop(first);
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(second);
        });
        assert_eq!(begun.elapsed().as_secs(), 2);
        let _stalls = follower();
        followers.have_read(&run_id).await;
        assert_eq!(begun.elapsed().as_secs(), 12);
    }
}
