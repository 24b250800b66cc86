//! What each signal means to the daemon. None that can be asked for ends it with a run left behind.

use futures::stream::{Stream, StreamExt, select_all, unfold};
use libc::c_int;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::RETRY;

/// End the daemon, in both stages of shutdown.
const ENDING: [(c_int, &str); 3] = [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT"), (libc::SIGQUIT, "SIGQUIT")];

/// Has the settings and the Compose files read again, as daemons do. A terminal that goes away sends it, too.
const RELOADING: [(c_int, &str); 1] = [(libc::SIGHUP, "SIGHUP")];

/// Mean nothing to us, and would kill the daemon. So would the real-time signals.
const IGNORED: [(c_int, &str); 8] = [
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
];

/// The names of signals that end the daemon, as they arrive.
///
/// # Errors
///
/// When the process cannot listen for one of them.
pub(super) fn ending() -> std::io::Result<impl Stream<Item = &'static str>> {
    listen(ENDING.into_iter())
}

/// The names of signals that ask for a reload, as they arrive.
///
/// # Errors
///
/// When the process cannot listen for one of them.
pub(super) fn reloading() -> std::io::Result<impl Stream<Item = &'static str>> {
    listen(RELOADING.into_iter())
}

/// The names of signals that mean nothing to us, as they arrive: listening is what keeps them from killing us.
///
/// # Errors
///
/// When the process cannot listen for one of them.
pub(super) fn meaningless() -> std::io::Result<impl Stream<Item = String>> {
    let first = libc::SIGRTMIN();
    let real_time = (first..=libc::SIGRTMAX()).map(move |number| (number, format!("SIGRTMIN+{}", number - first)));
    listen(IGNORED.into_iter().map(|(number, name)| (number, name.to_owned())).chain(real_time))
}

/// Logs what `signals` yields until the intake closes, and not more often than a reader can follow.
pub(super) async fn ignore(signals: impl Stream<Item = String>, intake: CancellationToken) {
    let mut signals = std::pin::pin!(signals);
    let log = async {
        while let Some(signal) = signals.next().await {
            warn!(signal, "signal ignored");
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        biased;
        () = intake.cancelled() => {}
        () = log => {}
    }
}

fn listen<N: Clone>(signals: impl Iterator<Item = (c_int, N)>) -> std::io::Result<impl Stream<Item = N>> {
    let each = signals.map(|(number, name)| {
        let arrivals = signal(SignalKind::from_raw(number))?;
        Ok(Box::pin(unfold((arrivals, name), |(mut arrivals, name)| async {
            arrivals.recv().await?;
            Some((name.clone(), (arrivals, name)))
        })))
    });
    Ok(select_all(each.collect::<std::io::Result<Vec<_>>>()?))
}
