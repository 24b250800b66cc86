//! The ledger's files in the state directory, the thread that writes them, and the lock of the directory.
#![expect(clippy::disallowed_methods, reason = "a store keeps its file open, and reads it piece by piece")]

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ledger;
use super::disk::Disk;
use super::index::Limits;
use crate::file::FileReader;
use crate::random;

/// Reads the name of our host.
const HOST_NAME: FileReader = FileReader::new(1 << 10);

/// The file that is locked while a daemon uses the directory.
const LOCK: &str = "lock";

/// Stack of the writing thread: it only copies lines.
const STACK: usize = 256 * 1024;

/// How long the start waits for the disk; a slower one is taken in when it answers.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// A ledger in the state directory, once its file is read. It is usable in any case: in memory while the disk is not.
///
/// # Errors
/// No thread can be started.
pub async fn open(directory: &Path, limits: Limits) -> io::Result<Ledger> {
    let disk = Directory { path: directory.to_owned(), files: BTreeMap::new() };
    let (ledger, writer) = Ledger::threaded(Box::new(disk), limits);
    let (opened, is_open) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("ledger".to_owned()).stack_size(STACK).spawn(move || writer.run(opened))?;
    let _ = tokio::time::timeout(OPEN_LIMIT, is_open).await;
    Ok(ledger)
}

/// Files in a directory.
struct Directory {
    path: PathBuf,
    files: BTreeMap<String, File>,
}

impl Directory {
    fn file(&self, name: &str) -> io::Result<&File> {
        self.files.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(0o600);
        options
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Disk for Directory {
    fn open(&mut self, name: &str) -> io::Result<Option<u64>> {
        self.files.remove(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let path = self.path.join(name);
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            // Opening a pipe would wait for its other end.
            Ok(metadata) if !metadata.is_file() => {
                return Err(io::Error::other(format!("{} is no regular file", path.display())));
            }
            Ok(_) => {}
        }
        let file = Self::options().open(&path)?;
        let length = file.metadata()?.len();
        self.files.insert(name.to_owned(), file);
        Ok(Some(length))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name);
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = Self::options().create_new(true).open(path)?;
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file(name)?.read_at(buffer, offset)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to.to_owned(), file);
        }
        self.sync_directory()
    }

    fn is_in_place(&mut self, name: &str) -> io::Result<bool> {
        let open = self.file(name)?.metadata()?;
        match std::fs::symlink_metadata(self.path.join(name)) {
            Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process, as its own name space counts.
    pub pid: u32,
    /// Its host, or its container.
    pub host: String,
    /// Names the directory: who locks it later finds it, and knows what an earlier holder left elsewhere.
    #[serde(default)]
    pub directory: String,
}

/// Why the state directory is not locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error("another daemon uses {}{}", directory.display(), said(holder.as_ref()))]
    Held {
        /// The directory.
        directory: PathBuf,
        /// What the lock file says of it.
        holder: Option<Holder>,
    },
    /// It cannot be locked at all.
    #[error("cannot lock {}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn said(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(": process {} on {}", holder.pid, holder.host))
}

/// The lock of a state directory, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    holder: Holder,
}

impl Lock {
    /// Locks the directory.
    ///
    /// # Errors
    /// Another daemon has it, or it cannot be locked.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { directory: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join(LOCK);
        if std::fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(failed(io::Error::other(format!("{} is no regular file", path.display()))));
        }
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).to_owned();
        // On a read-only file system the lock itself still works.
        let mut file = options().open(&path).or_else(|_| File::open(&path)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = (&mut file).take(4096).read_to_string(&mut text);
                let holder = serde_json::from_str(&text).ok();
                return Err(LockError::Held { directory: directory.to_owned(), holder });
            }
        }
        let mut text = String::new();
        let _ = (&mut file).take(4096).read_to_string(&mut text);
        let before = serde_json::from_str(&text).map(|before: Holder| before.directory);
        let mut holder = Holder::here();
        if let Some(directory) = before.ok().filter(|directory| !directory.is_empty()) {
            holder.directory = directory;
        }
        let text = serde_json::to_string(&holder).unwrap_or_default();
        let _ = file.set_len(0);
        let _ = file.write_all_at(text.as_bytes(), 0);
        Ok(Self { _file: file, holder })
    }

    /// Who holds it.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl Holder {
    /// This process, in a directory of its own.
    #[must_use]
    pub fn here() -> Self {
        let host = HOST_NAME.text(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
        let directory = random::bytes().map(|random| format!("{:032x}", u128::from_ne_bytes(random)));
        let pid = std::process::id();
        let host = host.trim().to_owned();
        Self { pid, directory: directory.unwrap_or_else(|_| format!("{host}/{pid}")), host }
    }
}
