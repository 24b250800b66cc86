//! Loads a Compose project exactly as `docker compose` does: a function of files, variables and options.

pub mod project;
pub mod value;
pub mod yaml;
