//! One daemon works on a project: the others say so and end, or stand by.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Failed;
use crate::bus::{Bus, Connection};
use crate::engine::Engine;
use crate::lease::{Claim, Lease, NotHeld, TIME_TO_LIVE};
use crate::ledger::file::Holder;
use crate::names::{ProjectName, RunId, ServiceName};
use crate::report::Chain;
use crate::settings::Standby;

/// Time between two looks at another daemon's lease.
const LOOK: Duration = Duration::from_secs(1);

/// What is waited for beyond a lease's life: then it is somebody's who renews it.
const SLACK: Duration = Duration::from_secs(1);

/// Why a daemon does no work, or no more: another one has the project.
#[derive(Debug, thiserror::Error)]
pub(super) enum OtherDaemon {
    /// It has the lease.
    #[error(transparent)]
    Leased(#[from] NotHeld),
    /// It was started before this one, and runs services.
    #[error("another daemon works on the project: it began run {run_id} of {service}")]
    Seen {
        /// What it ran.
        service: ServiceName,
        /// The run.
        run_id: RunId,
    },
}

/// Serves until it is asked to end, or until another daemon has the project and that is not to be waited for.
pub(super) async fn serve<F>(standby: Standby, daemon: impl Fn() -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    loop {
        match daemon().await {
            // The end of a daemon of which only the runs were seen cannot be waited for: nothing tells it.
            Err(Failed::Other(error))
                if standby == Standby::Wait && matches!(error.downcast_ref(), Some(OtherDaemon::Leased(_))) =>
            {
                warn!(error = %Chain(error.as_ref()), "standing by until the other daemon ends");
            }
            ended => return ended,
        }
    }
}

/// The lease of a project, for who holds the state directory.
pub(super) fn lease<E: Engine, B: Bus>(
    engine: Arc<E>,
    bus: Arc<B>,
    project: ProjectName,
    holder: &Holder,
) -> Lease<E, B> {
    let Holder { pid, host, directory } = holder.clone();
    Lease::new(engine, bus, project, Claim { owner: directory, token: 0, pid, host })
}

/// Waits for the lease. Without a Redis that answers until `redis_by`, others decide.
///
/// # Errors
///
/// Another daemon has it, and keeps it, and that is not to be waited for.
pub(super) async fn await_lease<E: Engine, B: Bus>(
    lease: &mut Lease<E, B>,
    bus: &B,
    redis_by: Instant,
    standby: Standby,
) -> Result<(), Failed> {
    let mut connection = bus.connection();
    if *connection.borrow() == Connection::Off
        || !matches!(timeout_at(redis_by, connection.wait_for(Connection::is_up)).await, Ok(Ok(_)))
    {
        return Ok(());
    }
    let (begun, mut seen) = (Instant::now(), None::<Instant>);
    loop {
        match lease.take().await {
            Ok(()) => {
                if seen.is_some() {
                    info!("the other daemon is gone");
                }
                return Ok(());
            }
            Err(error @ NotHeld::Other { .. }) => {
                if standby == Standby::Exit && begun.elapsed() >= TIME_TO_LIVE + SLACK {
                    return Err(Failed::Other(OtherDaemon::from(error).into()));
                }
                if seen.replace(Instant::now()).is_none() {
                    warn!(error = %Chain(&error), "waiting for the lease");
                }
            }
            // A lease that was seen is waited for as long as it can live.
            Err(error) if seen.is_none_or(|seen| seen.elapsed() >= TIME_TO_LIVE) => {
                warn!(error = %Chain(&error), "starting without a lease");
                return Ok(());
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

/// Keeps the lease until all is over, then gives it back. Says in `others` who has it where another does.
pub(super) async fn hold_lease<E: Engine, B: Bus>(
    lease: &mut Lease<E, B>,
    bus: &B,
    over: &CancellationToken,
    others: &Others,
) {
    let wanted = *bus.connection().borrow() != Connection::Off;
    let kept = async {
        if wanted {
            others.found(lease.keep().await.into());
        }
        over.cancelled().await;
    };
    tokio::select! {
        biased;
        () = over.cancelled() => {}
        () = kept => {}
    }
    lease.give_back().await;
}

/// Whether another daemon turned out to work on the project while this one does.
#[derive(Debug, Default)]
pub(super) struct Others {
    found: watch::Sender<Option<OtherDaemon>>,
    /// A signal arrived: there is nothing to wait for any more.
    asked_to_end: AtomicBool,
}

impl Others {
    /// Another one does: this one yields.
    fn found(&self, other: OtherDaemon) {
        warn!(error = %Chain(&other), "yielding to another daemon");
        self.found.send_replace(Some(other));
    }

    /// The signals that end the daemon, and another daemon, which ends it as a signal does.
    ///
    /// `elder` is the first run that was seen of a daemon that was started before this one; `yields` is called before the
    /// shutdown begins.
    pub(super) fn signals(
        &self,
        signals: impl Stream<Item = &'static str>,
        mut elder: watch::Receiver<Option<(ServiceName, RunId)>>,
        yields: impl FnOnce(),
    ) -> impl Stream<Item = &'static str> {
        let mut found = self.found.subscribe();
        let yields = stream::once(async move {
            let seen = tokio::select! {
                biased;
                _ = found.wait_for(Option::is_some) => None,
                Ok(seen) = elder.wait_for(Option::is_some) => seen.clone(),
            };
            if let Some((service, run_id)) = seen {
                self.found(OtherDaemon::Seen { service, run_id });
            }
            yields();
            "another daemon"
        });
        let signals = signals.inspect(|_| self.asked_to_end.store(true, Ordering::Relaxed));
        stream::select(signals, yields)
    }

    /// The daemon that this one ended for.
    pub(super) fn yielded_to(&self) -> Option<OtherDaemon> {
        self.found.send_replace(None).filter(|_| !self.asked_to_end.load(Ordering::Relaxed))
    }
}
