//! Fakes of the two ports, and the real servers that tests start.

pub(crate) mod bus;
pub(crate) mod docker;
pub(crate) mod engine;
pub(crate) mod log;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod reference;
pub(crate) mod stack;

/// Says that a test skipped for want of a server, or fails where one was promised.
///
/// `SENSE_TEST_REQUIRE` lists the servers that have to be there: `docker`, `redis`, `compose`, by comma.
#[track_caller]
pub(crate) fn missing_server<T>(server: &str) -> Option<T> {
    let promised = std::env::var("SENSE_TEST_REQUIRE").unwrap_or_default();
    assert!(!promised.split(',').any(|name| name.trim() == server), "{server} is promised and does not answer");
    eprintln!("SKIPPED: no {server} here ({})", std::thread::current().name().unwrap_or("test"));
    None
}
