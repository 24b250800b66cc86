//! Writes the first values of the configuration, and writes them again when Redis lost them.

pub mod seed;
