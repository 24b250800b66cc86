//! Whether the running daemon is well: asked over a socket that exists only in the kernel, so a read-only image will do.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Failed, RETRY};
use crate::backend::Backend;
use crate::bus::{Bus, Connection};
use crate::ledger::StoreStatus;
use crate::report::Chain;
use crate::runner::Runner;
use crate::settings::Settings;

/// How long an answer may take: less than the limit of the image's health check, 15 s, so that Docker keeps what is said.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the Engine may take to answer: less than that, so that it is named.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);

/// What the daemon says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Engine and Redis can be used. A broken project does not count: the last good one is in use.
    well: bool,
    /// `ok`, or why the Engine cannot be used.
    engine: String,
    /// `ok`, or why Redis cannot be used.
    redis: String,
    /// `ok`, or what is wrong with the Compose files as they are now.
    project: String,
    /// `ok`, `in memory`, or why the state directory cannot be used: the daemon goes on in memory, and is well.
    ledger: String,
}

/// The socket's name: the same for the daemon and for who asks with the same settings in the same directory.
fn address(settings: &Settings) -> io::Result<SocketAddr> {
    let here = std::env::current_dir()?;
    let identity = (here, &settings.compose.files, &settings.compose.project_name, &settings.docker.host);
    let identity = format!("{identity:?}");
    SocketAddr::from_abstract_name(format!("sense-orchestrator/{:x}", Sha256::digest(identity.as_bytes())))
}

/// Answers until the intake closes.
pub(super) async fn answer<K: Backend, B: Bus>(
    settings: Settings,
    runner: Runner<K, B>,
    bus: Arc<B>,
    ledger: watch::Receiver<StoreStatus>,
    intake: CancellationToken,
) {
    let listener = address(&settings).and_then(|address| StdListener::bind_addr(&address)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "health cannot be asked for, another daemon of this project may run");
            intake.cancelled().await;
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = intake.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            // There are too many open files, for example, which would be said again at once.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let answer = look(&runner, bus.as_ref(), &ledger).await;
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        // Who asked may be gone.
        let _ = timeout(LIMIT, stream.write_all(&text)).await;
    }
}

async fn look<K: Backend, B: Bus>(runner: &Runner<K, B>, bus: &B, ledger: &watch::Receiver<StoreStatus>) -> Answer {
    let engine = match timeout(ENGINE_LIMIT, runner.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(Chain(&failure).to_string()),
        Err(_) => Some("no answer in time".to_owned()),
    };
    let redis = match &*bus.connection().borrow() {
        Connection::Up { .. } => bus.refusals().borrow().first().cloned(),
        Connection::Down { reason } => Some(reason.clone()),
    };
    let project = runner.broken_project();
    let well = engine.is_none() && redis.is_none();
    let said = |fault: Option<String>| fault.unwrap_or_else(|| "ok".to_owned());
    Answer {
        well,
        engine: said(engine),
        redis: said(redis),
        project: said(project),
        ledger: ledger.borrow().to_string(),
    }
}

/// Asks the running daemon, prints what it says, and fails unless it is well.
pub(super) async fn ask(settings: &Settings) -> Result<(), Failed> {
    let asking = async {
        let stream = StdStream::connect_addr(&address(settings)?)?;
        stream.set_nonblocking(true)?;
        let mut text = String::new();
        UnixStream::from_std(stream)?.read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let text = timeout(LIMIT, asking).await.context("the daemon does not answer")?.context("no daemon runs here")?;
    super::commands::print_json(&text)?;
    let answer: Answer = serde_json::from_str(&text).context("the daemon's answer is not readable")?;
    if answer.well { Ok(()) } else { Err(Failed::Other(anyhow::anyhow!("the daemon is not well"))) }
}
