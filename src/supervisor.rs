//! Owns every task, and both stages of shutdown.
//!
//! **First stage**, at the first signal or when a component ends: nothing new starts (the intake closes), what runs goes on
//! for the grace period. **Second stage**, after the grace period or at a second signal: what still runs is stopped and
//! removed, which has [`ABORT_LIMIT`] to end. Then the components, which closed with the intake, are waited for.
//!
//! A second signal is one that comes more than [`REPEAT`] after the first: some senders send each twice.

use std::future::{Future, ready};
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::names::ServiceName;

/// How long the second stage may take: stopping a container takes 10 s where it ignores its stop signal.
pub const ABORT_LIMIT: Duration = Duration::from_secs(14);

/// A signal that follows sooner belongs to the first: `timeout` and terminals signal a process and its group.
pub const REPEAT: Duration = Duration::from_secs(1);

/// Time between two lines that say what the shutdown waits for.
const STILL_RUNNING: Duration = Duration::from_secs(5);

/// Why the daemon ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A component returned while it was wanted.
    #[error("component {0} ended by itself")]
    Ended(&'static str),
    /// A component panicked.
    #[error("a component panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Tells tasks to take no more work, and running work to end.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    /// Closed at the first stage: nothing new starts.
    pub intake: CancellationToken,
    /// Closed at the second stage: what runs is stopped and removed.
    pub abort: CancellationToken,
}

/// Every task of the daemon: components, which run until told, and the work that they start.
#[derive(Debug, Default)]
pub struct Supervisor {
    stages: Stages,
    work: TaskTracker,
    components: JoinSet<&'static str>,
}

impl Supervisor {
    /// A supervisor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens of both stages.
    #[must_use]
    pub fn stages(&self) -> Stages {
        self.stages.clone()
    }

    /// Where components start their work.
    #[must_use]
    pub fn work(&self) -> TaskTracker {
        self.work.clone()
    }

    /// Starts a component. It returns once the intake is closed.
    pub fn start(&mut self, name: &'static str, component: impl Future<Output = ()> + Send + 'static) {
        self.components.spawn(async move {
            component.await;
            name
        });
    }

    /// Runs until a signal arrives or a component ends, and then through both stages of shutdown.
    ///
    /// `signals` yields the name of each signal that arrives; `grace` is how long running work may go on; `occupied` names
    /// the services that are worked on.
    pub async fn run(
        mut self,
        signals: impl Stream<Item = &'static str>,
        grace: Duration,
        occupied: impl Fn() -> Vec<ServiceName>,
    ) -> Result<(), SupervisorError> {
        let mut signals = pin!(signals.fuse());
        let ended = tokio::select! {
            Some(signal) = signals.next() => {
                info!(signal, running = self.work.len(), "shutting down");
                Ok(())
            }
            Some(ended) = self.components.join_next() => {
                let error = match ended {
                    Ok(name) => SupervisorError::Ended(name),
                    Err(panic) => SupervisorError::Panicked(panic),
                };
                error!(%error, "shutting down");
                Err(error)
            }
        };
        self.stages.intake.cancel();
        self.work.close();
        let begun = Instant::now();
        let mut again = signals.skip_while(|_| ready(begun.elapsed() <= REPEAT));
        let work = self.work.clone();
        let names = || occupied().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let still_running = async {
            loop {
                tokio::time::sleep(STILL_RUNNING).await;
                info!(running = work.len(), services = names(), "still running");
            }
        };
        let stop = async {
            tokio::select! {
                () = self.work.wait() => {}
                () = tokio::time::sleep(grace) => {
                    warn!(running = self.work.len(), services = names(), "grace period over, stopping what runs");
                }
                Some(signal) = again.next() => {
                    warn!(signal, running = self.work.len(), services = names(), "told again, stopping what runs");
                }
            }
            self.stages.abort.cancel();
            let drain = async {
                self.work.wait().await;
                while let Some(ended) = self.components.join_next().await {
                    if let Err(error) = ended {
                        error!(%error, "component failed in shutdown");
                    }
                }
            };
            if timeout(ABORT_LIMIT, drain).await.is_err() {
                error!(running = self.work.len(), services = names(), "gave up waiting; the next start cleans up");
            }
        };
        tokio::select! {
            () = stop => {}
            () = still_running => {}
        }
        info!("stopped");
        ended
    }
}
