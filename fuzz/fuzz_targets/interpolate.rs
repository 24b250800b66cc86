//! Any text as a value and as an env file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sense_orchestrator::compose::{dotenv, interpolate::interpolate, shell};

fuzz_target!(|text: &str| {
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.to_owned());
    let _ = interpolate(text, &lookup, &mut |_| {});
    let _ = dotenv::parse(text, &lookup, &mut |_| {});
    let _ = dotenv::parse_raw(text, &lookup);
    let _ = shell::split(text);
});
