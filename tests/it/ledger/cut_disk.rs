//! A disk in memory whose power can be cut.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use sense_orchestrator::ledger::disk::Disk;

/// A number that looks random and is the same in each test run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit.max(1) as u64)).unwrap()
    }
}

/// One file of a [`CutDisk`]: what is written, and how much of it is safe.
#[derive(Clone, Default)]
struct CutFile {
    bytes: Vec<u8>,
    safe: usize,
}

#[derive(Default)]
struct CutState {
    files: BTreeMap<String, u64>,
    /// By inode.
    contents: BTreeMap<u64, CutFile>,
    next: u64,
    /// The names as they are on the medium, and whether what came later may be there too.
    safe_names: BTreeMap<String, u64>,
    fails: Option<io::ErrorKind>,
}

/// A disk whose power can be cut: unsynced bytes are lost from a random one on, or page by page, out of order.
#[derive(Clone, Default)]
pub(super) struct CutDisk {
    state: Arc<Mutex<CutState>>,
    /// What this process has open.
    open: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// Bytes that reach the medium at once; small, so that lines span several.
const PAGE: usize = 64;

impl CutDisk {
    pub(super) fn fail(&self, kind: Option<io::ErrorKind>) {
        self.state.lock().unwrap().fails = kind;
    }

    pub(super) fn remove(&self, file: &str) {
        self.state.lock().unwrap().files.remove(file);
    }

    pub(super) fn bytes(&self, file: &str) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        state.files.get(file).map(|inode| state.contents[inode].bytes.clone()).unwrap_or_default()
    }

    pub(super) fn put(&self, file: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let inode = state.next;
        state.contents.insert(inode, CutFile { bytes: bytes.to_vec(), safe: bytes.len() });
        state.files.insert(file.to_owned(), inode);
        state.safe_names.insert(file.to_owned(), inode);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().files.keys().cloned().collect()
    }

    /// The disk as it may be found when the power is back.
    pub(super) fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let state = self.state.lock().unwrap();
        let files = if dice.below(2) == 0 { state.files.clone() } else { state.safe_names.clone() };
        let named = |inode: &u64| files.values().any(|file| file == inode);
        let mut contents = state.contents.clone();
        contents.retain(|inode, _| named(inode));
        for file in contents.values_mut() {
            let unsafe_bytes = file.bytes.len() - file.safe;
            match dice.below(3) {
                // Only a part arrived.
                0 => file.bytes.truncate(file.safe + dice.below(unsafe_bytes + 1)),
                // The length arrived, some pages did not: they read as zeros.
                1 => {
                    for page in file.bytes[file.safe..].chunks_mut(PAGE) {
                        if dice.below(2) == 0 {
                            page.fill(0);
                        }
                    }
                }
                // Some arrived, and the rest holds what was there before.
                _ => {
                    let from = file.safe + dice.below(unsafe_bytes + 1);
                    file.bytes[from..].iter_mut().for_each(|byte| *byte = u8::try_from(dice.below(256)).unwrap());
                }
            }
            file.safe = file.bytes.len();
        }
        let state = CutState { safe_names: files.clone(), files, contents, next: state.next, fails: None };
        Self { state: Arc::new(Mutex::new(state)), open: Arc::default() }
    }

    /// The same disk for a process that has nothing open yet.
    pub(super) fn reopened(&self) -> Box<dyn Disk> {
        Box::new(Self { state: Arc::clone(&self.state), open: Arc::default() })
    }

    fn check(&self) -> io::Result<()> {
        self.state.lock().unwrap().fails.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn inode(&self, file: &str) -> io::Result<u64> {
        self.open.lock().unwrap().get(file).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for CutDisk {
    fn open(&mut self, file: &str) -> io::Result<Option<u64>> {
        self.check()?;
        let state = self.state.lock().unwrap();
        let Some(inode) = state.files.get(file) else { return Ok(None) };
        self.open.lock().unwrap().insert(file.to_owned(), *inode);
        Ok(Some(state.contents[inode].bytes.len() as u64))
    }

    fn create(&mut self, file: &str) -> io::Result<()> {
        self.check()?;
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let inode = state.next;
        state.contents.insert(inode, CutFile::default());
        state.files.insert(file.to_owned(), inode);
        self.open.lock().unwrap().insert(file.to_owned(), inode);
        Ok(())
    }

    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let inode = self.inode(file)?;
        let state = self.state.lock().unwrap();
        let mut rest = state.contents[&inode].bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        io::Read::read(&mut rest, buffer)
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode(file)?;
        let failed = self.check();
        let mut state = self.state.lock().unwrap();
        // A full disk takes a part.
        let bytes = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        state.contents.get_mut(&inode).unwrap().bytes.extend_from_slice(bytes);
        failed
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.check()?;
        let inode = self.inode(file)?;
        let mut state = self.state.lock().unwrap();
        let content = state.contents.get_mut(&inode).unwrap();
        content.safe = content.bytes.len();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.check()?;
        let mut state = self.state.lock().unwrap();
        let inode = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), inode);
        state.safe_names = state.files.clone();
        let mut open = self.open.lock().unwrap();
        if let Some(inode) = open.remove(from) {
            open.insert(to.to_owned(), inode);
        }
        Ok(())
    }

    fn is_in_place(&mut self, file: &str) -> io::Result<bool> {
        self.check()?;
        Ok(self.state.lock().unwrap().files.get(file).copied() == Some(self.inode(file)?))
    }
}
