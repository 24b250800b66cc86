//! Loads a Compose project exactly as `docker compose` does: a function of files, variables and options.

pub mod dotenv;
pub mod interpolate;
pub mod number;
pub mod project;
pub mod shell;
pub mod value;
pub mod yaml;
