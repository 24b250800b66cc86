//! What the daemon does, by capability: on fakes with paused time, and on a real Engine and a real Redis.

mod settings;
mod scratch;
mod support;
