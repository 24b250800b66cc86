//! What the daemon does, by capability: on fakes with paused time, and on a real Engine and a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests read their environment and spawn tasks")]

mod any_text;
mod architecture;
mod asking;
mod built_in;
mod bus;
mod chaos;
mod check;
mod command_line;
mod commands;
mod compose;
mod config_changes;
mod contract;
mod control;
mod convergence;
mod crashes;
mod daemon;
mod deployed;
mod documented_keys;
mod engine;
mod engine_answers;
mod engine_faults;
mod events;
mod files;
mod golden;
mod health;
mod interop;
mod ledger;
mod lifecycle;
mod memory;
mod process;
mod redis_attacks;
mod reload;
mod runs;
mod scheduling;
mod seeding;
mod settings;
mod shutdown;
mod spec;
mod standby;
mod support;
mod verdicts;
