//! Lets one action at a time write and read a key of results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedMutexGuard;

use super::lock;

/// Keys in Redis that one action at a time writes and reads.
#[derive(Debug, Default)]
pub(super) struct ResultTurns(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl ResultTurns {
    /// Waits for all of the keys, in the order in which everybody takes them.
    pub(super) async fn turn(&self, keys: &BTreeSet<String>) -> Vec<OwnedMutexGuard<()>> {
        let mut turns = Vec::new();
        for key in keys {
            let turn = Arc::clone(lock(&self.0).entry(key.clone()).or_default());
            turns.push(turn.lock_owned().await);
        }
        turns
    }
}
