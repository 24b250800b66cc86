//! Lines on a [`Disk`]: appended, found again by an index in memory, and written anew without what is no longer wanted.

use std::io;

use crate::clock::Timestamp;
use crate::record::Record;

use super::disk::Disk;
use super::entry::{Entry, LINE_LIMIT, Line, Request, VERSION};
use super::index::{Index, Indexed, Limits, Query};
use super::known::Known;

/// The ledger's file.
pub const FILE: &str = "ledger.jsonl";

/// The file that takes its place once it is whole.
const NEW: &str = "ledger.new";

/// Bytes that are read and written at once.
const CHUNK: usize = 64 * 1024;

/// Records, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// Where the next page begins; none where this is the last.
    pub next: Option<u64>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk does not do what it is asked.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// Its format is of a later version; it is left alone.
    #[error("{FILE} has format {version}, this version knows {VERSION}")]
    Later {
        /// The version that it says.
        version: u32,
    },
}

/// A line to be written.
#[derive(Debug, Clone)]
pub struct Queued {
    line: Vec<u8>,
    record: Option<Indexed>,
}

impl Queued {
    /// A line for an entry, without its long texts where it would be too long; none where that does not help.
    #[must_use]
    pub fn new(entry: &Entry) -> Option<Self> {
        let record = if let Entry::Record(record) = entry { Some(record.into()) } else { None };
        let shortened = || match entry {
            Entry::Record(long) => Entry::Record(Record { tail: None, error: None, ..long.clone() }).to_line(),
            Entry::Request(long) => Entry::Request(Request { reply: None, ..long.clone() }).to_line(),
            _ => None,
        };
        Some(Self { line: entry.to_line().or_else(shortened)?, record })
    }

    /// Its bytes on the disk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.line.len()
    }
}

/// The ledger's file and its index.
pub struct Journal {
    disk: Box<dyn Disk>,
    index: Index,
    length: u64,
    /// Bytes that are safe.
    synced: u64,
    /// What the file itself says of that.
    marked: u64,
    /// Bytes that were no records when the file was last written anew.
    others: u64,
}

impl Journal {
    /// A journal that is not loaded yet: it is empty, and nothing can be appended.
    #[must_use]
    pub fn new(disk: Box<dyn Disk>, limits: Limits) -> Self {
        Self { disk, index: Index::new(limits), length: 0, synced: 0, marked: 0, others: 0 }
    }

    /// Reads the file, takes its entries into `known`, and makes it whole where it is not. Says under what name a damaged
    /// file was kept, which has `stamp` in it.
    ///
    /// # Errors
    /// It cannot be read, or not be made whole.
    pub fn load(&mut self, known: &mut Known, stamp: Timestamp) -> Result<Option<String>, JournalError> {
        self.index.clear();
        (self.synced, self.marked) = (0, 0);
        let mut found = self.disk.open(FILE)?;
        if found.is_none() && self.disk.open(NEW)?.is_some_and(|length| length > 0) {
            // The power went away between the two names of a rewritten file, which was whole before the first.
            self.disk.rename(NEW, FILE)?;
            found = self.disk.open(FILE)?;
        }
        self.length = found.unwrap_or(0);
        let (mut version, mut first_broken, mut synced, mut lines) = (None, None, 0, 0_u64);
        let index = &mut self.index;
        scan(self.disk.as_mut(), self.length, |offset, bytes| {
            let line = Line::read(bytes.strip_suffix(b"\n").unwrap_or(b""));
            lines += u64::from(line != Line::Broken);
            match line {
                Line::Known(entry) => match *entry {
                    Entry::Ledger { version: said } => version = version.or(Some(said)),
                    Entry::Synced(length) => synced = synced.max(length),
                    entry => {
                        if let (true, Entry::Record(record)) = (known.apply(&entry), &entry) {
                            index.enter(&record.into(), offset, bytes.len());
                        }
                    }
                },
                Line::Later => index.enter_later(offset, bytes.len()),
                Line::Broken => first_broken = first_broken.or(Some(offset)),
            }
        })?;
        if let Some(version) = version.filter(|version| *version > VERSION) {
            self.index.clear();
            return Err(JournalError::Later { version });
        }
        self.index.drop_old();
        // Beyond what is known to have been safe a power cut may leave anything; a file without any line is not ours.
        let is_damaged = first_broken.is_some_and(|offset| offset < synced || lines == 0);
        let damaged = is_damaged.then(|| format!("ledger.damaged-{:.0}", stamp.0));
        if version.is_none() || first_broken.is_some() {
            self.rewrite(&known.snapshot(), damaged.as_deref())?;
        } else {
            self.disk.sync(FILE)?;
            self.synced = self.length;
        }
        Ok(damaged)
    }

    /// Length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends lines with one write.
    ///
    /// # Errors
    /// None of them is found again then.
    pub fn append(&mut self, lines: &[Queued]) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(lines.iter().map(Queued::bytes).sum::<usize>() + 64);
        if self.synced > self.marked {
            buffer.extend(Entry::Synced(self.synced).to_line().unwrap_or_default());
        }
        let mut offset = self.length + buffer.len() as u64;
        for queued in lines {
            buffer.extend_from_slice(&queued.line);
        }
        self.disk.append(FILE, &buffer)?;
        self.marked = self.synced;
        self.length += buffer.len() as u64;
        for queued in lines {
            if let Some(record) = &queued.record {
                self.index.enter(record, offset, queued.bytes());
            }
            offset += queued.bytes() as u64;
        }
        Ok(())
    }

    /// Waits until all that was appended is safe. False when somebody removed the file.
    ///
    /// # Errors
    /// It may not be safe.
    pub fn sync(&mut self) -> io::Result<bool> {
        self.disk.sync(FILE)?;
        self.synced = self.length;
        self.disk.is_in_place(FILE)
    }

    /// Whether more than half of the file, and enough to be worth it, is no longer wanted.
    pub fn wants_rewrite(&self) -> bool {
        self.length > self.index.file_limit(self.others)
    }

    /// Writes the file anew: `snapshot`, and the records that are kept. The old file is kept under the name `aside`.
    ///
    /// # Errors
    /// The old file and its index stay.
    pub fn rewrite(&mut self, snapshot: &[Entry], aside: Option<&str>) -> io::Result<()> {
        self.index.drop_old();
        let (length, offsets) = match self.write_new(snapshot) {
            Ok(written) => written,
            Err(error) => {
                // Gives its space back.
                let _ = self.disk.create(NEW);
                return Err(error);
            }
        };
        if let Some(aside) = aside {
            self.disk.rename(FILE, aside)?;
        }
        self.disk.rename(NEW, FILE)?;
        self.index.move_to(&offsets);
        (self.length, self.synced, self.marked) = (length, length, 0);
        self.others = length.saturating_sub(self.index.bytes());
        Ok(())
    }

    /// The new file's length, and the offset there of each line of the index; none where it cannot be read any more.
    fn write_new(&mut self, snapshot: &[Entry]) -> io::Result<(u64, Vec<Option<u64>>)> {
        self.disk.create(NEW)?;
        let (mut buffer, mut length) = (Vec::with_capacity(CHUNK), 0_u64);
        for entry in std::iter::once(&Entry::Ledger { version: VERSION }).chain(snapshot) {
            buffer.extend(entry.to_line().unwrap_or_default());
        }
        let (mut offsets, mut line) = (Vec::new(), Vec::new());
        for (offset, size) in self.index.lines() {
            if buffer.len() >= CHUNK {
                self.disk.append(NEW, &buffer)?;
                length += buffer.len() as u64;
                buffer.clear();
            }
            let is_whole = read_line(self.disk.as_mut(), offset, size, &mut line).is_ok();
            offsets.push(is_whole.then_some(length + buffer.len() as u64));
            if is_whole {
                buffer.extend_from_slice(&line);
            }
        }
        self.disk.append(NEW, &buffer)?;
        self.disk.sync(NEW)?;
        Ok((length + buffer.len() as u64, offsets))
    }

    /// The records that a query asks for.
    pub fn page(&mut self, query: &Query) -> Page {
        let (mut page, mut line, mut bytes) = (Page::default(), Vec::new(), 0);
        let mut places = self.index.find(query).into_iter().peekable();
        while let Some(place) = places.next_if(|_| page.records.len() < query.limit && bytes <= LINE_LIMIT) {
            bytes += place.length as usize;
            page.next = Some(place.order);
            if read_line(self.disk.as_mut(), place.offset, place.length, &mut line).is_ok()
                && let Line::Known(entry) = Line::read(line.trim_ascii_end())
                && let Entry::Record(record) = *entry
            {
                page.records.push(record);
            }
        }
        page.next = page.next.filter(|_| places.peek().is_some());
        page
    }

    /// All entries of the file, in their order.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entries(&mut self, mut visit: impl FnMut(Entry)) -> io::Result<()> {
        scan(self.disk.as_mut(), self.length, |_, bytes| {
            if let Line::Known(entry) = Line::read(bytes.trim_ascii_end()) {
                visit(*entry);
            }
        })
    }
}

/// Reads a line with its line break.
fn read_line(disk: &mut dyn Disk, offset: u64, length: u32, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    line.resize(length as usize, 0);
    let mut done = 0;
    while let Some(rest) = line.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match disk.read(FILE, offset + done as u64, rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    let is_whole = line.strip_suffix(b"\n").is_some_and(|line| Line::read(line) != Line::Broken);
    if is_whole { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Calls `visit` with every line's offset and bytes, its line break included. What has none is not whole: the end of the
/// file, or a line that is too long, whose bytes are not shown.
fn scan(disk: &mut dyn Disk, length: u64, mut visit: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let (mut pending, mut start, mut offset) = (Vec::new(), 0_u64, 0_u64);
    let mut chunk = vec![0; CHUNK];
    let mut is_too_long = false;
    while offset < length {
        let read = disk.read(FILE, offset, &mut chunk)?;
        if read == 0 {
            break;
        }
        offset += read as u64;
        for piece in chunk.get(..read).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(piece);
            let is_end = piece.ends_with(b"\n");
            if !is_end && pending.len() <= LINE_LIMIT {
                continue;
            }
            visit(start, if is_end && !is_too_long { &pending } else { b"" });
            is_too_long = !is_end;
            start += pending.len() as u64;
            pending.clear();
        }
    }
    if !pending.is_empty() {
        visit(start, b"");
    }
    Ok(())
}
