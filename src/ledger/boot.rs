//! The clock that is never set: time since the machine's boot, sleep included, which goes on over restarts of the daemon.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use super::entry::RunStart;
use crate::file::FileReader;
use crate::names::RunId;

/// The id of the machine's boot, and the time since then.
type Boot = (String, Duration);

thread_local! {
    static BOOT_CLOCK: RefCell<Box<dyn Fn() -> Option<Boot>>> = RefCell::new(Box::new(the_kernels));
}

/// Reads the kernel's files, of a line each.
const LINE: FileReader = FileReader::new(4096);

fn the_kernels() -> Option<Boot> {
    let boot_id = LINE.text(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    Some((boot_id, parse_uptime(&LINE.text(Path::new("/proc/uptime")).ok()?)?))
}

/// Replaces this clock of this thread, which is the kernel's: it is a port, as the wall clock is.
pub fn set_boot_clock(read: impl Fn() -> Option<(String, Duration)> + 'static) {
    BOOT_CLOCK.set(Box::new(read));
}

impl RunStart {
    /// A run that starts now; none where the kernel does not tell the time since its boot.
    #[must_use]
    pub fn now(run_id: RunId) -> Option<Self> {
        let (boot_id, since_boot) = BOOT_CLOCK.with_borrow(|read| read())?;
        let boot_ms = u64::try_from(since_boot.as_millis()).ok()?;
        Some(Self { run_id, boot_id: boot_id.trim().to_owned(), boot_ms })
    }

    /// How long ago the run started, as of another moment; none where the machine was booted in between.
    #[must_use]
    pub fn age_at(&self, now: &Self) -> Option<Duration> {
        let same = self.boot_id == now.boot_id;
        same.then(|| now.boot_ms.checked_sub(self.boot_ms)).flatten().map(Duration::from_millis)
    }
}

/// The first number of `/proc/uptime`: seconds with two decimals.
fn parse_uptime(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(boot: &str, boot_ms: u64) -> RunStart {
        RunStart { run_id: "0123456789ab".parse().unwrap(), boot_id: boot.to_owned(), boot_ms }
    }

    #[test]
    fn uptime_is_read_in_seconds_with_their_decimals() {
        assert_eq!(parse_uptime("350735.47 234388.90\n"), Some(Duration::from_millis(350_735_470)));
        for text in ["", "x", "-1.0 2.0", "NaN 1"] {
            assert_eq!(parse_uptime(text), None, "{text}");
        }
    }

    #[test]
    fn moments_of_different_boots_have_no_time_between_them() {
        assert_eq!(start("a", 4000).age_at(&start("a", 9000)), Some(Duration::from_secs(5)));
        assert_eq!(start("b", 4000).age_at(&start("a", 9000)), None);
        assert_eq!(start("a", 9000).age_at(&start("a", 4000)), None);
    }

    #[test]
    fn this_machine_tells_the_time_since_its_boot() {
        let run_id = || "0123456789ab".parse().unwrap();
        let (first, second) = (RunStart::now(run_id()).unwrap(), RunStart::now(run_id()).unwrap());
        assert!(first.age_at(&second).is_some());
    }
}
