//! The lease in Redis of the one daemon that works on a project of an Engine.
//!
//! It is a key that expires unless its holder renews it. Who finds another's lets it be: a crashed holder's is gone within
//! [`TIME_TO_LIVE`]. A daemon knows its own of an earlier life by its state directory, whose lock it holds, and takes it
//! over at once. Each take-over has a higher token than all before, so that a holder that was given up, say because it was
//! stopped for a while, knows that it is not the holder any more.
//!
//! A lease is set only where there is none, or where it is our own; renewing looks at it. So no script is needed, which a
//! Redis may forbid: two that take over one lease at the same moment both find out which of them has it at the next renewal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::bus::{Bus, BusError};
use crate::engine::{Engine, EngineError};
use crate::names::ProjectName;
use crate::report::Chain;

/// How long a lease lives that nobody renews.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(10);

/// Time between two renewals: two may fail.
pub const RENEWAL: Duration = Duration::from_secs(3);

/// How long the Engine is waited for to say who it is.
const ENGINE_LIMIT: Duration = Duration::from_secs(3);

/// Who has the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The holder: the same over its restarts where it has a state directory.
    pub owner: String,
    /// Grows with each take-over.
    pub token: u64,
    /// The holder's process, as its own name space counts.
    pub pid: u32,
    /// Its host, or its container.
    pub host: String,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// Why the lease is not ours.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// Another daemon has it.
    #[error("another daemon works on project {project}: {claim}")]
    Other {
        /// The project.
        project: ProjectName,
        /// Who.
        claim: Claim,
    },
    /// Redis does not say.
    #[error("redis does not say who works on the project")]
    Redis(#[from] BusError),
    /// The Engine does not say which one it is.
    #[error("the engine does not say which one it is")]
    Engine(#[from] EngineError),
    /// Neither came to an answer in time.
    #[error("no answer in time")]
    Late,
}

/// The lease of a project, wanted or held by us.
pub struct Lease<E, B> {
    engine: Arc<E>,
    bus: Arc<B>,
    project: ProjectName,
    /// Once the Engine said who it is.
    key: Option<String>,
    own: Claim,
}

impl<E: Engine, B: Bus> Lease<E, B> {
    /// A lease that is not held yet. The token of `own` is of no account.
    #[must_use]
    pub fn new(engine: Arc<E>, bus: Arc<B>, project: ProjectName, own: Claim) -> Self {
        Self { engine, bus, project, key: None, own: Claim { token: 0, ..own } }
    }

    /// Takes the lease, or renews it.
    ///
    /// # Errors
    ///
    /// Another daemon has it, or it cannot be known.
    pub async fn take(&mut self) -> Result<(), NotHeld> {
        timeout(ENGINE_LIMIT, self.take_in_time()).await.map_err(|_| NotHeld::Late)?
    }

    async fn take_in_time(&mut self) -> Result<(), NotHeld> {
        let key = &self.key().await?;
        let found =
            if self.own.token == 0 { self.found(key).await? } else { self.bus.renew(key, TIME_TO_LIVE).await? };
        // What is no lease was not written by a daemon.
        match found.map(|text| serde_json::from_str::<Claim>(&text)) {
            Some(Ok(found)) if found == self.own => Ok(()),
            Some(Ok(found))
                if found.owner != self.own.owner || (self.own.token != 0 && found.token > self.own.token) =>
            {
                Err(NotHeld::Other { project: self.project.clone(), claim: found })
            }
            Some(found) => {
                let earlier = found.map_or(0, |found| found.token);
                self.own.token = self.next_token(key).await?.max(earlier.saturating_add(1));
                self.bus.set(key, &self.text(), Some(TIME_TO_LIVE)).await?;
                debug!(token = self.own.token, "lease taken over");
                Ok(())
            }
            None => {
                if self.own.token == 0 {
                    self.own.token = self.next_token(key).await?;
                }
                if self.bus.set_absent(key, &self.text(), Some(TIME_TO_LIVE)).await? {
                    debug!(token = self.own.token, "lease taken");
                    return Ok(());
                }
                // Somebody was faster.
                let found = self.found(key).await?;
                match found.and_then(|text| serde_json::from_str(&text).ok()) {
                    Some(claim) if claim != self.own => Err(NotHeld::Other { project: self.project.clone(), claim }),
                    Some(_) => Ok(()),
                    None => Err(NotHeld::Late),
                }
            }
        }
    }

    /// Keeps the lease until another daemon has it, which it returns.
    pub async fn keep(&mut self) -> NotHeld {
        loop {
            sleep(RENEWAL).await;
            match self.take().await {
                Ok(()) => {}
                Err(other @ NotHeld::Other { .. }) => return other,
                // That Redis or the Engine is away is said by others.
                Err(error) => debug!(error = %Chain(&error), "lease not renewed, trying on"),
            }
        }
    }

    /// Gives the lease back, so that the next daemon need not wait.
    pub async fn give_back(&self) {
        let Some(key) = self.key.as_ref().filter(|_| self.own.token != 0) else { return };
        let given_back = async {
            let found = self.found(key).await?;
            if found.is_some_and(|text| text == self.text()) {
                self.bus.delete(std::slice::from_ref(key)).await?;
            }
            Ok::<(), BusError>(())
        };
        if let Err(error) = given_back.await {
            debug!(error = %Chain(&error), "lease not given back, it expires");
        }
    }

    async fn key(&mut self) -> Result<String, NotHeld> {
        if self.key.is_none() {
            let engine = self.engine.id().await?;
            self.key = Some(self.bus.names().lease(&engine, &self.project));
        }
        Ok(self.key.clone().unwrap_or_default())
    }

    /// What is at the lease's key.
    async fn found(&self, key: &String) -> Result<Option<String>, BusError> {
        Ok(self.bus.get(std::slice::from_ref(key)).await?.into_iter().next().flatten())
    }

    async fn next_token(&self, key: &str) -> Result<u64, BusError> {
        self.bus.increment(&format!("{key}:token")).await
    }

    fn text(&self) -> String {
        serde_json::to_string(&self.own).unwrap_or_default()
    }
}
