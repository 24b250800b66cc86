//! The ledger as the settings describe it, and the lock of its directory.

use anyhow::Context;
use tracing::warn;

use super::{Failed, RETRY};
use crate::ledger::file::{self, Holder, Lock, LockError};
use crate::ledger::{Ledger, Limits};
use crate::report::Chain;
use crate::settings::{Settings, Standby};

/// Bytes of all records on the disk.
const BYTES: u64 = 16 * 1024 * 1024;

/// The ledger, and the lock that is held as long as it is used.
pub(super) struct Memory {
    pub(super) ledger: Ledger,
    /// Who we are: the same over restarts where the lock is held.
    pub(super) holder: Holder,
    _lock: Option<Lock>,
}

/// Opens the ledger. A directory that cannot be used stops nothing; one that another daemon uses does.
pub(super) async fn open(settings: &Settings) -> Result<Memory, Failed> {
    let limits = Limits { records: settings.runs.keep, age: settings.runs.keep_for, bytes: BYTES };
    let Some(directory) = &settings.state.dir else {
        return Ok(Memory { ledger: Ledger::in_memory(limits), holder: Holder::here(), _lock: None });
    };
    let mut said = false;
    let lock = loop {
        match Lock::acquire(directory) {
            Ok(lock) => break Some(lock),
            Err(error @ LockError::Held { .. }) if settings.daemon.standby == Standby::Wait => {
                if !std::mem::replace(&mut said, true) {
                    warn!(error = %Chain(&error), "standing by until the other daemon ends");
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error @ LockError::Held { .. }) => return Err(Failed::Other(error.into())),
            Err(error @ LockError::Io { .. }) => {
                warn!(error = %Chain(&error), "state directory not locked");
                break None;
            }
        }
    };
    let ledger = file::open(directory, limits).await.context("cannot start the ledger's thread")?;
    let holder = lock.as_ref().map_or_else(Holder::here, |lock| lock.holder().clone());
    Ok(Memory { ledger, holder, _lock: lock })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::settings::{Argument, Sources};

    fn settings(directory: &str) -> Settings {
        let argument = Argument { option: "--state", key: "state.dir", values: vec![directory.to_owned()] };
        Settings::load(&Sources { arguments: vec![argument], ..Sources::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_second_daemon_on_the_same_directory_is_told_who_has_it() {
        let directory = std::env::temp_dir().join(format!("sense-memory-{}", std::process::id()));
        let settings = settings(directory.to_str().unwrap());
        let first = open(&settings).await.ok().unwrap();
        let Err(Failed::Other(error)) = open(&settings).await else { panic!("it was opened twice") };
        assert!(error.to_string().starts_with("another daemon uses "), "{error}");
        drop(first);
        open(&settings).await.ok().unwrap().ledger.sync().await;
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_stands_by_takes_over_when_the_first_one_ends() {
        let directory = std::env::temp_dir().join(format!("sense-standby-{}", std::process::id()));
        let mut settings = settings(directory.to_str().unwrap());
        let first = open(&settings).await.ok().unwrap();
        settings.daemon.standby = Standby::Wait;
        let (second, ()) = tokio::join!(open(&settings), async {
            tokio::time::sleep(10 * RETRY).await;
            drop(first);
        });
        // Its thread may still write.
        second.ok().unwrap().ledger.sync().await;
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_used_stops_nothing() {
        let memory = open(&settings("/dev/null/state")).await.ok().unwrap();
        let status = memory.ledger.status().borrow().to_string();
        assert!(status.starts_with("set aside, in memory: "), "{status}");
    }
}
