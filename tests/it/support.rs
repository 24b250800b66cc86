//! Fakes of the two ports, and the real servers that tests start.

use std::io::Write as _;

pub(crate) mod bounds;
#[allow(dead_code, reason = "the twin uses the rest")]
pub(crate) mod bus;
pub(crate) mod docker;
#[allow(dead_code, reason = "the twin uses the rest")]
pub(crate) mod engine;
pub(crate) mod http_engine;
pub(crate) mod log;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod reference;
pub(crate) mod schema;
pub(crate) mod scripted_redis;
pub(crate) mod stack;
pub(crate) mod terminal;
#[allow(dead_code, reason = "the twin uses the rest")]
pub(crate) mod time;

/// Adds a line to a file of the folder that `scripts/test` reads at its end, where it is what runs the tests.
///
/// What a test that passes writes to its standard error is seen by nobody.
fn report(file: &str, line: &str) {
    let Ok(folder) = std::env::var("SENSE_TEST_REPORT") else { return };
    let path = std::path::Path::new(&folder).join(file);
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the folder is there");
    file.write_all(format!("{line}\n").as_bytes()).expect("the folder can be written");
}

/// Says a line at the end of all tests.
pub(crate) fn note(line: &str) {
    report("notes", line);
    eprintln!("{line}");
}

/// Says that a test skipped for want of a server, or fails where one was promised.
///
/// `SENSE_TEST_REQUIRE` lists the servers that have to be there: `docker`, `redis`, `compose`, by comma.
#[track_caller]
pub(crate) fn missing_server<T>(server: &str) -> Option<T> {
    let promised = std::env::var("SENSE_TEST_REQUIRE").unwrap_or_default();
    assert!(!promised.split(',').any(|name| name.trim() == server), "{server} is promised and does not answer");
    let thread = std::thread::current();
    let line = format!("{}: no {server} here", thread.name().unwrap_or("a test"));
    report("skipped", &line);
    eprintln!("skipped: {line}");
    None
}

/// Tells whoever runs the tests that this process makes objects on the Engine, all with its id in their names.
pub(crate) fn uses_engine() {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| report("processes", &std::process::id().to_string()));
}
