//! Answers what arrives over Redis: commands, events, changes of the configuration.

pub mod replies;
pub mod schedule;
