//! The fakes of the other tests.

#[path = "../it/support/bounds.rs"]
pub(crate) mod bounds;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/support/bus.rs"]
pub(crate) mod bus;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/support/engine.rs"]
pub(crate) mod engine;
#[path = "../it/support/time.rs"]
pub(crate) mod time;
