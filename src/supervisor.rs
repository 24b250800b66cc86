//! Owns every task, and both stages of shutdown.
//!
//! **First stage**, at the first signal or when a component ends: nothing new starts (the intake closes), what runs goes on
//! for the grace period. **Second stage**, after the grace period or at a second signal: what still runs is stopped and
//! removed, which has [`ABORT_LIMIT`] to end. Then the components, which closed with the intake, are waited for.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How long the second stage may take: stopping a container takes 10 s where it ignores its stop signal.
pub const ABORT_LIMIT: Duration = Duration::from_secs(14);

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
    /// `signals` yields the name of each signal that arrives; `grace` is how long running work may go on.
    pub async fn run(
        mut self,
        signals: impl Stream<Item = &'static str>,
        grace: Duration,
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
        tokio::select! {
            () = self.work.wait() => {}
            () = tokio::time::sleep(grace) => warn!(running = self.work.len(), "grace period over, stopping what runs"),
            Some(signal) = signals.next() => warn!(signal, running = self.work.len(), "told again, stopping what runs"),
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
            error!(running = self.work.len(), "gave up waiting; the next start cleans up");
        }
        info!("stopped");
        ended
    }
}
