//! The port to whoever wants to hear what happens: the core emits events, in order, and knows no observer by name.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, ready};

use crate::event::Event;

pub mod elder;
pub mod ledger;
pub mod log;
pub mod redis_records;
pub mod status;

/// Somebody who hears of every event.
///
/// It is told in the task of whoever emits, so it returns at once: what takes time goes through a bounded queue of its own.
pub trait Observer: Send + Sync + 'static {
    /// Takes notice of an event.
    fn observe(&self, event: &Event);

    /// Completes once everything that was observed so far will survive a crash. Nobody but the ledger has anything to wait
    /// for.
    fn settled(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

/// Where the core says what happened. Cheap to clone; by default nobody listens.
#[derive(Clone, Default)]
pub struct Events(Option<Arc<[Box<dyn Observer>]>>);

impl Events {
    /// Events that these observers hear of, each event in this order.
    #[must_use]
    pub fn new(observers: Vec<Box<dyn Observer>>) -> Self {
        Self(Some(observers.into()))
    }

    /// Says what happened. Waits for nobody.
    pub fn emit(&self, event: &Event) {
        for observer in self.observers() {
            observer.observe(event);
        }
    }

    /// Completes once what was said so far will survive a crash.
    pub async fn settled(&self) {
        for observer in self.observers() {
            observer.settled().await;
        }
    }

    fn observers(&self) -> &[Box<dyn Observer>] {
        self.0.as_deref().unwrap_or_default()
    }
}
