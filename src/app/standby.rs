//! One daemon works on a project: the others say so and end, or stand by.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Failed;
use crate::bus::{Bus, Connection};
use crate::engine::Engine;
use crate::lease::{Claim, Lease, NotHeld, TIME_TO_LIVE};
use crate::ledger::file::Holder;
use crate::names::ProjectName;
use crate::report::Chain;
use crate::settings::Standby;

/// Time between two looks at another daemon's lease.
const LOOK: Duration = Duration::from_millis(250);

/// What is waited for beyond a lease's life: it is somebody's who renews it.
const SLACK: Duration = Duration::from_secs(1);

/// Waits for the lease. Without a Redis that answers, others decide.
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
    if *connection.borrow() == Connection::Off {
        return Ok(());
    }
    if !matches!(timeout_at(redis_by, connection.wait_for(Connection::is_up)).await, Ok(Ok(_))) {
        return Ok(());
    }
    let (first, mut seen) = (Instant::now(), None::<Instant>);
    loop {
        match lease.take().await {
            Ok(()) => {
                if seen.is_some() {
                    info!("the other daemon is gone");
                }
                return Ok(());
            }
            Err(error @ NotHeld::Other { .. }) => {
                if standby == Standby::Exit && first.elapsed() >= TIME_TO_LIVE + SLACK {
                    return Err(Failed::Other(error.into()));
                }
                if seen.replace(Instant::now()).is_none() {
                    warn!(error = %Chain(&error), "waiting for the lease");
                }
            }
            Err(error) if seen.is_none_or(|seen| seen.elapsed() >= TIME_TO_LIVE) => {
                warn!(error = %Chain(&error), "starting without a lease");
                return Ok(());
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
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

/// Keeps the lease until all is over, then gives it back. Says in `lost` who has it where another does.
pub(super) async fn hold_lease<E: Engine, B: Bus>(
    lease: &mut Lease<E, B>,
    wanted: bool,
    over: &CancellationToken,
    lost: &watch::Sender<Option<NotHeld>>,
) {
    let kept = async {
        if wanted {
            let other = lease.keep().await;
            warn!(error = %Chain(&other), "yielding to another daemon");
            lost.send_replace(Some(other));
        }
        over.cancelled().await;
    };
    tokio::select! {
        () = over.cancelled() => {}
        () = kept => {}
    }
    lease.give_back().await;
}
