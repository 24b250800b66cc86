//! Runs a Compose stack's poll services on intervals and its on-demand services by command, through the Docker Engine
//! API, as `docker compose` itself would.
//!
//! | layer | modules |
//! |---|---|
//! | vocabulary | [`names`], [`clock`], [`report`], [`record`], [`text`], [`backoff`], [`log_limit`], [`random`] |
//! | domain, pure | [`compose`] → [`spec`] → [`plan`]; [`calendar`], [`request`], [`schedule`], [`action`], [`message`], [`event`] |
//! | ports | [`engine`] (Docker), [`bus`] (Redis), [`mod@file`], [`memory`], [`ledger`] (what is remembered), [`observer`] (who hears of events); above them [`backend`], what carries services out |
//! | adapters | [`engine::docker`], [`bus::redis`], [`ledger::file`]; [`projects`], the Compose files as they are now |
//! | backends | [`backend::compose`] |
//! | components | [`runner`], which claims, limits and reports runs; [`scheduler`], [`dispatcher`], [`monitor`], [`seeder`] |
//! | process | [`settings`], [`telemetry`], [`supervisor`], [`control`], [`app`], [`cli`] |

pub mod action;
pub mod app;
pub mod backend;
pub mod backoff;
pub mod bus;
pub mod calendar;
pub mod cli;
pub mod clock;
pub mod compose;
pub mod control;
pub mod dispatcher;
pub mod engine;
pub mod event;
pub mod file;
pub mod ledger;
pub mod log_limit;
pub mod memory;
pub mod message;
pub mod monitor;
pub mod names;
pub mod observer;
pub mod plan;
pub mod projects;
pub mod random;
pub mod record;
pub mod report;
pub mod request;
pub mod runner;
pub mod schedule;
pub mod scheduler;
pub mod seeder;
pub mod settings;
pub mod spec;
pub mod supervisor;
pub mod telemetry;
pub mod text;
