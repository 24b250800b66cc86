//! The memory that this process may take, as its control group limits it.

use std::path::{Path, PathBuf};

use crate::compose::LoadLimit;
use crate::file::FileReader;

/// What is taken for the limit where nothing limits the process. Answers and queues get no larger share than of this.
const UNLIMITED: u64 = 256 << 20;
/// Where the control groups are, as the kernel and every container engine mount them.
const GROUPS: &str = "/sys/fs/cgroup";
/// Reads the kernel's small files.
const KERNEL_FILE: FileReader = FileReader::new(64 << 10);

/// Bytes that the control group limits us to; none where it does not.
fn limit() -> Option<u64> {
    let own = KERNEL_FILE.text(Path::new("/proc/self/cgroup")).unwrap_or_default();
    limit_in(Path::new(GROUPS), &own)
}

/// What is held in memory at one time, by its kind: each a share of the limit, so that what comes from outside leaves room
/// for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Loading a project. The earlier one stays meanwhile, and the rest of the daemon goes on.
    pub load: LoadLimit,
    /// An answer of the Engine. Two that are large may be read at a time, and each is parsed.
    pub engine_answer: usize,
    /// An answer of Redis to a command.
    pub redis_answer: usize,
    /// A value in Redis.
    pub value: usize,
    /// Messages that wait for their reader, in each subscription.
    pub messages: usize,
    /// Replies on their way.
    pub replies: usize,
}

impl MemoryBounds {
    /// Bounds within a limit in bytes.
    #[must_use]
    pub fn within(limit: Option<u64>) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let limit = limit.unwrap_or(UNLIMITED);
        let share = |of: u64| bytes(limit.min(UNLIMITED) / of);
        Self {
            load: LoadLimit::bytes(bytes(limit / 4)),
            engine_answer: share(8),
            redis_answer: share(32),
            value: share(128),
            messages: share(16),
            replies: share(8),
        }
    }

    /// Bounds within what limits this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::within(limit())
    }
}

/// The smallest limit of our groups, `own` being the kernel's list of them.
///
/// Within a container the group's own files stand at the top; outside of one, or with the host's name space, below the
/// path that the list names. Version 1 has a folder for memory, and a number near 2^63 where nothing limits it.
fn limit_in(groups: &Path, own: &str) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    let mut files = vec![groups.join("memory.max"), groups.join("memory/memory.limit_in_bytes")];
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let below = |folder: PathBuf, name: &str| folder.join(path.trim_start_matches('/')).join(name);
        match controllers {
            "" => files.push(below(groups.to_owned(), "memory.max")),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                files.push(below(groups.join("memory"), "memory.limit_in_bytes"));
            }
            _ => {}
        }
    }
    let limits = files.iter().filter_map(|file| KERNEL_FILE.text(file).ok()?.trim().parse().ok());
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(name: &str, files: &[(&str, &str)], own: &str) -> Option<u64> {
        let folder = std::env::temp_dir().join(format!("sense-memory-{}-{name}", std::process::id()));
        for (file, text) in files {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let limit = limit_in(&folder, own);
        let _ = std::fs::remove_dir_all(&folder);
        limit
    }

    #[test]
    fn the_limit_is_found_in_both_versions_within_and_outside_of_a_container() {
        let v1 = "4:cpu,cpuacct:/\n5:memory:/docker/x\n0::/docker/x\n";
        for (name, files, own, limit) in [
            ("none", &[][..], "", None),
            ("v2", &[("memory.max", "33554432\n")], "0::/\n", Some(32 << 20)),
            ("v2-max", &[("memory.max", "max\n")], "0::/\n", None),
            ("v2-host", &[("a/b/memory.max", "1048576\n")], "0::/a/b\n", Some(1 << 20)),
            ("v1", &[("memory/memory.limit_in_bytes", "33554432\n")], v1, Some(32 << 20)),
            ("v1-none", &[("memory/memory.limit_in_bytes", "9223372036854771712\n")], v1, None),
            (
                "v1-host",
                &[
                    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("memory/docker/x/memory.limit_in_bytes", "4096\n"),
                ],
                v1,
                Some(4096),
            ),
        ] {
            assert_eq!(limit_of(name, files, own), limit, "{name}");
        }
    }

    #[test]
    fn bounds_are_in_proportion_to_the_limit() {
        let small = MemoryBounds::within(Some(32 << 20));
        let shares = MemoryBounds {
            load: LoadLimit::bytes(8 << 20),
            engine_answer: 4 << 20,
            redis_answer: 1 << 20,
            value: 256 << 10,
            messages: 2 << 20,
            replies: 4 << 20,
        };
        assert_eq!(small, shares);
        assert_eq!(MemoryBounds::within(Some(16 << 20)).value, 128 << 10);
        let unlimited = MemoryBounds::within(None);
        assert_eq!((unlimited.load, unlimited.engine_answer), (LoadLimit::bytes(64 << 20), 32 << 20));
        let large = MemoryBounds::within(Some(8 << 30));
        assert_eq!(large, MemoryBounds { load: LoadLimit::bytes(2 << 30), ..unlimited });
    }
}
