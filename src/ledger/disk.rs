//! The little that a ledger wants of a file system, so that tests can cut its power.

use std::collections::BTreeMap;
use std::io;

/// A folder with the ledger's files.
///
/// Files are named; only [`Disk::append`] writes to them. What was written is safe once [`Disk::sync`] returned.
pub trait Disk: Send {
    /// Opens a file and tells its length; none where there is no such file.
    ///
    /// Files are named again after a failure: what was open before is opened anew.
    ///
    /// # Errors
    /// The folder or file cannot be used, or is none.
    fn open(&mut self, file: &str) -> io::Result<Option<u64>>;

    /// Makes an empty file, in place of one of that name.
    ///
    /// # Errors
    /// The folder cannot be written.
    fn create(&mut self, file: &str) -> io::Result<()>;

    /// Reads from an open file; less than asked for at its end.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes at the end of an open file.
    ///
    /// # Errors
    /// Not all of it was written: a part may have been.
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Waits until all of an open file is safe.
    ///
    /// # Errors
    /// It may not be.
    fn sync(&mut self, file: &str) -> io::Result<()>;

    /// Gives a file another name, in place of one that has it, and waits until that is safe.
    ///
    /// # Errors
    /// It may have either name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Whether the open file is still the one of that name: somebody may have removed it.
    ///
    /// # Errors
    /// The folder cannot be looked at.
    fn is_in_place(&mut self, file: &str) -> io::Result<bool>;
}

/// Files in memory, where there is no state directory or it cannot be used.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemoryDisk {
    fn file(&mut self, file: &str) -> io::Result<&mut Vec<u8>> {
        self.files.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn open(&mut self, file: &str) -> io::Result<Option<u64>> {
        Ok(self.files.get(file).map(|bytes| bytes.len() as u64))
    }

    fn create(&mut self, file: &str) -> io::Result<()> {
        self.files.insert(file.to_owned(), Vec::new());
        Ok(())
    }

    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = self.file(file)?.get(offset..).unwrap_or_default();
        io::Read::read(&mut rest, buffer)
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(file)?.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.file(file).map(drop)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let bytes = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn is_in_place(&mut self, file: &str) -> io::Result<bool> {
        Ok(self.files.contains_key(file))
    }
}
