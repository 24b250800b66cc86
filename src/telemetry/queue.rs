//! Log lines on their way to a reader that may stall: nobody who logs ever waits for it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait.
const MAX_LINES: usize = 4096;

/// Most bytes that wait; one line alone may be longer, as a failed run's with all of its tail.
const MAX_BYTES: usize = 512 << 10;

/// Pause before a stream that takes nothing now, and does not let us wait for it, is tried again.
const FULL: Duration = Duration::from_millis(50);

/// The lines that wait, bounded in number and bytes. Cheap to clone.
///
/// A line that finds no room is dropped and counted; once half of the room is free again, `log lines dropped` says how
/// many.
#[derive(Debug, Clone, Default)]
pub struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told of each change.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// Of `lines` and of the line that is being written.
    bytes: usize,
    writing: bool,
    dropped: u64,
    closed: bool,
}

impl Waiting {
    fn half_free(&self) -> bool {
        self.lines.len() <= MAX_LINES / 2 && self.bytes <= MAX_BYTES / 2
    }
}

impl LogQueue {
    /// Takes a line, or drops it where there is no room.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let fits = waiting.lines.len() < MAX_LINES && waiting.bytes.saturating_add(line.len()) <= MAX_BYTES;
        if waiting.closed || !(fits || waiting.bytes == 0) {
            waiting.dropped = waiting.dropped.saturating_add(1);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_owned());
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// Writes lines as they come, until the queue is closed and empty. Blocks where `out` does.
    ///
    /// An `out` that fails loses the line, and nothing else happens: there is nowhere to say so.
    pub fn write_to(&self, mut out: impl Write) {
        loop {
            let mut waiting = self.lock();
            if waiting.dropped > 0 && waiting.half_free() && !waiting.closed {
                let count = std::mem::take(&mut waiting.dropped);
                drop(waiting);
                warn!(count, "log lines dropped");
                self.0.changed.notify_all();
                continue;
            }
            let Some(line) = waiting.lines.pop_front() else {
                if waiting.closed {
                    return;
                }
                drop(self.0.changed.wait(waiting));
                continue;
            };
            waiting.writing = true;
            drop(waiting);
            self.write_whole(&mut out, &line);
            let mut waiting = self.lock();
            waiting.writing = false;
            waiting.bytes = waiting.bytes.saturating_sub(line.len());
            drop(waiting);
            self.0.changed.notify_all();
        }
    }

    /// As `write_all`, also for a stream that somebody else has made non-blocking.
    fn write_whole(&self, out: &mut impl Write, mut line: &[u8]) {
        while !line.is_empty() {
            match out.write(line) {
                Ok(0) => return,
                Ok(count) => line = line.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let never = |waiting: &mut Waiting| !waiting.closed;
                    let slept = self.0.changed.wait_timeout_while(self.lock(), FULL, never);
                    if slept.is_ok_and(|(waiting, _)| waiting.closed) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        let _ = out.flush();
    }

    /// Waits until everything is written, for as long as `limit`; false where the reader stalls.
    pub fn flush(&self, limit: Duration) -> bool {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty() || waiting.dropped > 0;
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, busy);
        waited.is_ok_and(|(_, waited)| !waited.timed_out())
    }

    /// Takes no more lines; [`LogQueue::write_to`] returns once it has written those that wait.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One event's line: what is written at once is a line.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'writer> MakeWriter<'writer> for LogQueue {
    type Writer = Self;

    fn make_writer(&'writer self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that takes a line only when it is told to.
    struct Stalling {
        go_on: Receiver<()>,
        taken: Sender<String>,
    }

    impl Write for Stalling {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            let _ = self.taken.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalling(queue: &LogQueue) -> (Sender<()>, Receiver<String>) {
        let (told, go_on) = channel();
        let (taken, lines) = channel();
        let (queue, out) = (queue.clone(), Stalling { go_on, taken });
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(queue.clone()).finish();
        std::thread::spawn(move || tracing::subscriber::with_default(subscriber, || queue.write_to(out)));
        (told, lines)
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_told_of_once_there_is_room() {
        let queue = LogQueue::default();
        let (go_on, lines) = stalling(&queue);
        // One line may already be on its way, so one more than the room.
        for number in 0..MAX_LINES + 11 {
            queue.push(format!("{number}\n").as_bytes());
        }
        assert!(!queue.flush(Duration::from_millis(10)), "the reader stalls");
        drop(go_on);
        assert!(queue.flush(Duration::from_mins(1)));
        queue.close();
        let mut lines: Vec<String> = lines.iter().collect();
        let told = lines.iter().position(|line| line.contains("log lines dropped")).unwrap();
        let told = lines.remove(told);
        let dropped = MAX_LINES + 11 - lines.len();
        assert!((10..=11).contains(&dropped), "{dropped}");
        assert!(told.contains(&format!("count={dropped}")), "{told}");
        assert!(lines.iter().enumerate().all(|(place, line)| *line == format!("{place}\n")), "in order");
    }

    #[test]
    fn long_lines_are_bounded_in_bytes_and_one_alone_always_fits() {
        let queue = LogQueue::default();
        queue.push(&vec![b'x'; 2 * MAX_BYTES]);
        queue.push(b"no room\n");
        let waiting = queue.lock();
        assert_eq!((waiting.lines.len(), waiting.dropped), (1, 1));
    }

    #[test]
    fn a_stream_that_is_full_for_a_moment_loses_nothing() {
        struct Moody(Arc<Mutex<Vec<u8>>>, bool);
        impl Write for Moody {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.0.lock().unwrap().extend(bytes.first());
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, written) = (LogQueue::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (thread, out) = (queue.clone(), Moody(Arc::clone(&written), false));
        std::thread::spawn(move || thread.write_to(out));
        queue.push(b"abc\n");
        assert!(queue.flush(Duration::from_mins(1)));
        assert_eq!(*written.lock().unwrap(), b"abc\n");
    }
}
