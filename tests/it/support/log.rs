//! What is logged while a test runs.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use serde_json::Value;

thread_local! {
    /// What this thread has logged since its test began to listen.
    static TEXT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Adds to the log of the thread that writes, where its test listens.
struct OwnThread;

impl io::Write for OwnThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TEXT.with_borrow_mut(|text| {
            if let Some(text) = text {
                text.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of the test's own thread, from now until it is dropped.
///
/// One subscriber serves all tests. With one for each, whether an event is of interest would be cached by whichever
/// thread comes to it first, also by one whose test does not listen.
pub(crate) struct Log(());

impl Log {
    /// Begins to listen.
    pub(crate) fn capture() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| OwnThread);
            tracing::subscriber::set_global_default(subscriber.finish()).expect("no other subscriber in this process");
        });
        TEXT.set(Some(Vec::new()));
        Self(())
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        let Self(()) = self;
        String::from_utf8(TEXT.with_borrow(|text| text.clone().unwrap_or_default())).unwrap()
    }

    /// The lines with a message, as JSON.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        TEXT.set(None);
    }
}

#[test]
fn a_test_hears_its_own_thread_also_of_events_that_another_thread_came_to_first() {
    let event = || tracing::info!("heard");
    std::thread::spawn(event).join().unwrap();
    let log = Log::capture();
    std::thread::spawn(event).join().unwrap();
    assert_eq!(log.lines("heard").len(), 0);
    event();
    assert_eq!(log.lines("heard").len(), 1);
}
