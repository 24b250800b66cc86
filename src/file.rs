//! Files, read whole and within a bound: nothing else in the program opens one.

use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Device number of `/dev/null`, wherever it is mounted.
const NULL_DEVICE: u64 = 0x103;

/// Reads regular files of at most so many bytes.
///
/// A FIFO, a socket or a device is refused before it is opened, and again once it is open, so that neither a writer that
/// never comes nor an end that never comes holds the caller up. `/dev/null` is an empty file, as people use it to say
/// "none".
#[derive(Debug, Clone, Copy)]
pub struct FileReader {
    limit: u64,
}

/// A file that was not read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    pub fault: FileFault,
}

/// Why a file was not read. No variant holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// The operating system refused it.
    #[error("{0}")]
    System(io::Error),
    /// It is a directory, a FIFO, a socket or a device.
    #[error("not a regular file")]
    NotRegular,
    /// It holds more than its reader takes.
    #[error("larger than {}", Size(*limit))]
    TooLarge {
        /// Bytes that the reader takes.
        limit: u64,
    },
    /// It is not text.
    #[error("line {line} is not UTF-8")]
    NotText {
        /// The line, from 1.
        line: usize,
    },
}

impl FileFault {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<FileFault> for io::Error {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::System(error) => error,
            FileFault::NotRegular | FileFault::TooLarge { .. } | FileFault::NotText { .. } => Self::other(fault),
        }
    }
}

/// Bytes in the largest unit that divides them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

impl FileReader {
    /// A reader of files of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit }
    }

    /// The content of a file.
    ///
    /// # Errors
    ///
    /// What is not there, not a regular file or too large.
    pub fn bytes(self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.content(path).map_err(|fault| FileError { path: path.to_owned(), fault })
    }

    /// The content of a file of UTF-8.
    ///
    /// # Errors
    ///
    /// As [`FileReader::bytes`], and what is not UTF-8.
    pub fn text(self, path: &Path) -> Result<String, FileError> {
        let text = String::from_utf8(self.bytes(path)?);
        text.map_err(|error| {
            let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
            let line = valid.filter(|byte| **byte == b'\n').count() + 1;
            FileError { path: path.to_owned(), fault: FileFault::NotText { line } }
        })
    }

    /// Whether a file can be read, for a library that opens it by itself.
    ///
    /// # Errors
    ///
    /// As [`FileReader::bytes`].
    pub fn check(self, path: &Path) -> Result<(), FileError> {
        self.bytes(path).map(drop)
    }

    fn content(self, path: &Path) -> Result<Vec<u8>, FileFault> {
        // To open some devices does something to them.
        if self.is_null_device(&std::fs::metadata(path).map_err(FileFault::System)?)? {
            return Ok(Vec::new());
        }
        // Meanwhile another thing may be there: opened like this, a FIFO does not wait for its writer.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        #[expect(clippy::disallowed_methods, reason = "the one place that opens files")]
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(FileFault::System)?;
        let metadata = file.metadata().map_err(FileFault::System)?;
        if self.is_null_device(&metadata)? {
            return Ok(Vec::new());
        }
        // A file of the kernel's has no size before it is read.
        let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        file.take(self.limit.saturating_add(1)).read_to_end(&mut content).map_err(FileFault::System)?;
        if content.len() as u64 > self.limit {
            return Err(FileFault::TooLarge { limit: self.limit });
        }
        Ok(content)
    }

    /// Whether it is `/dev/null`, unless it is something that is not read at all.
    fn is_null_device(self, metadata: &Metadata) -> Result<bool, FileFault> {
        if metadata.file_type().is_char_device() && metadata.rdev() == NULL_DEVICE {
            return Ok(true);
        }
        if !metadata.is_file() {
            return Err(FileFault::NotRegular);
        }
        if metadata.len() > self.limit {
            return Err(FileFault::TooLarge { limit: self.limit });
        }
        Ok(false)
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also moves where a tool sets `modified` back to what it was.
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file at a path; none where there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    const READER: FileReader = FileReader::new(4);

    /// A folder that is gone after the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sense-file-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn refused(path: &Path) -> String {
        READER.bytes(path).unwrap_err().fault.to_string()
    }

    #[test]
    fn a_file_is_read_up_to_its_bound_and_not_beyond() {
        let folder = Folder::new("bound");
        assert_eq!(READER.bytes(&folder.file("four", b"1234")).unwrap(), b"1234");
        assert_eq!(READER.text(&folder.file("none", b"")).unwrap(), "");
        assert_eq!(refused(&folder.file("five", b"12345")), "larger than 4 bytes");
        let sparse = folder.file("sparse", b"");
        std::fs::File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(refused(&sparse), "larger than 4 bytes");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = Folder::new("kinds");
        let fifo = folder.0.join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let link = folder.0.join("link");
        symlink("/dev/zero", &link).unwrap();
        for path in [&fifo, &link, &folder.0, &PathBuf::from("/dev/zero"), &PathBuf::from("/dev/tty")] {
            assert_eq!(refused(path), "not a regular file", "{}", path.display());
        }
        assert!(READER.bytes(&folder.0.join("gone")).unwrap_err().fault.is_not_found());
    }

    #[test]
    fn the_null_device_is_an_empty_file_by_any_name() {
        let folder = Folder::new("null");
        let link = folder.0.join("link");
        symlink("/dev/null", &link).unwrap();
        assert_eq!(READER.bytes(&link).unwrap(), b"");
    }

    #[test]
    fn a_file_of_the_kernel_without_a_size_is_read() {
        assert!(!FileReader::new(1 << 20).text(Path::new("/proc/self/status")).unwrap().is_empty());
        assert_eq!(refused(Path::new("/proc/self/status")), "larger than 4 bytes");
    }

    #[test]
    fn text_that_is_none_is_refused_by_its_line_alone() {
        let folder = Folder::new("text");
        let error = READER.text(&folder.file("a", b"\na\xff")).unwrap_err();
        assert_eq!(error.fault.to_string(), "line 2 is not UTF-8");
    }
}
