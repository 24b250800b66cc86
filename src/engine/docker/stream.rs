//! Answers that are read as they come: a JSON value a line, and containers' output in frames.

use bytes::{Buf, Bytes, BytesMut};

use super::http::{Answer, Failure};
use crate::request::{Output, OutputStream};

/// The share of what a whole answer may have that a line may have. An event holds all labels of its container.
const LINE_SHARE: usize = 4;

/// An answer line by line.
pub(super) struct Lines<'a> {
    answer: Answer<'a>,
    buffer: BytesMut,
    /// So much of the buffer holds no line end.
    searched: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(answer: Answer<'a>) -> Self {
        Self { answer, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line that is not blank; none at the end. A call that is dropped loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', unsearched) {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                let line = line.slice(..line.len() - 1);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            let limit = self.answer.limit() / LINE_SHARE;
            if self.searched > limit {
                return Err(Failure::TooLong(limit));
            }
            let Some(piece) = self.answer.next().await? else {
                self.searched = 0;
                let rest = self.buffer.split().freeze();
                return Ok((!rest.trim_ascii().is_empty()).then_some(rest));
            };
            self.buffer.extend_from_slice(&piece);
        }
    }

    /// Ends the reading after the last line.
    pub(super) async fn finish(self) {
        self.answer.finish().await;
    }
}

/// Bytes before each frame: the stream, three zeros, and the length of what follows.
const HEADER: usize = 8;

/// A container's output, as it comes: in frames, or bare from a container with a terminal.
struct Frames {
    header: Vec<u8>,
    stream: OutputStream,
    /// What is left of the frame; none before the first header.
    left: Option<usize>,
    bare: bool,
}

impl Frames {
    fn new() -> Self {
        Self { header: Vec::with_capacity(HEADER), stream: OutputStream::Stdout, left: None, bare: false }
    }

    /// Takes in a piece of the answer. No frame is ever held: its length is whatever the Engine says.
    fn add(&mut self, mut piece: Bytes, mut take: impl FnMut(Output)) {
        while !piece.is_empty() {
            if self.bare {
                return take(Output { stream: self.stream, bytes: piece });
            }
            if let Some(left) = self.left.filter(|left| *left > 0) {
                let bytes = piece.split_to(left.min(piece.len()));
                self.left = Some(left - bytes.len());
                take(Output { stream: self.stream, bytes });
                continue;
            }
            let wanted = (HEADER - self.header.len()).min(piece.len());
            self.header.extend_from_slice(&piece.split_to(wanted));
            match *self.header.as_slice() {
                [stream @ 0..=2, 0, 0, 0, a, b, c, d] => {
                    self.stream = if stream == 2 { OutputStream::Stderr } else { OutputStream::Stdout };
                    self.left = Some(usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX));
                    self.header.clear();
                }
                // No frame begins so.
                [_, _, _, _, _, _, _, _] => take(self.become_bare()),
                _ => {}
            }
        }
    }

    fn become_bare(&mut self) -> Output {
        self.bare = true;
        Output { stream: self.stream, bytes: std::mem::take(&mut self.header).into() }
    }

    /// What is left at the end: a text shorter than a header, from a terminal.
    fn rest(&mut self) -> Option<Output> {
        (self.left.is_none() && !self.header.is_empty()).then(|| self.become_bare())
    }
}

/// The last bytes of a container's output.
pub(super) struct Tail {
    limit: usize,
    kept: Vec<u8>,
    frames: Frames,
}

impl Tail {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), frames: Frames::new() }
    }

    /// Takes in a piece of the answer.
    pub(super) fn add(&mut self, piece: Bytes) {
        let Self { limit, kept, frames } = self;
        frames.add(piece, |output| keep(kept, &output.bytes, *limit));
    }

    /// What was kept.
    pub(super) fn text(mut self) -> String {
        if let Some(rest) = self.frames.rest() {
            keep(&mut self.kept, &rest.bytes, self.limit);
        }
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

fn keep(kept: &mut Vec<u8>, mut bytes: &[u8], limit: usize) {
    bytes.advance(bytes.len().saturating_sub(limit));
    let surplus = (kept.len() + bytes.len()).saturating_sub(limit);
    kept.drain(..surplus);
    kept.extend_from_slice(bytes);
}

/// A container's output, piece by piece.
pub(super) struct Outputs<'a> {
    answer: Option<Answer<'a>>,
    frames: Frames,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(answer: Answer<'a>) -> Self {
        Self { answer: Some(answer), frames: Frames::new() }
    }

    /// What came next, at least one piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Output>>, Failure> {
        let mut parts = Vec::new();
        while let Some(answer) = &mut self.answer {
            if let Some(piece) = answer.next().await? {
                self.frames.add(piece, |output| parts.push(output));
            } else {
                if let Some(answer) = self.answer.take() {
                    answer.finish().await;
                }
                parts.extend(self.frames.rest());
            }
            if !parts.is_empty() {
                return Ok(Some(parts));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(pieces: &[&[u8]], limit: usize) -> String {
        let mut tail = Tail::new(limit);
        for piece in pieces {
            tail.add(Bytes::copy_from_slice(piece));
        }
        tail.text()
    }

    #[test]
    fn a_tail_keeps_the_last_bytes_of_frames_however_they_are_cut() {
        let whole = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x03def";
        assert_eq!(tail(&[whole], 4), "cdef");
        for at in 0..whole.len() {
            let (first, second) = whole.split_at(at);
            assert_eq!(tail(&[first, second], 100), "abcdef", "{at}");
        }
    }

    #[test]
    fn a_terminals_output_has_no_frames() {
        assert_eq!(tail(&[b"plain ", b"text, long"], 100), "plain text, long");
        assert_eq!(tail(&[b"short"], 100), "short");
        assert_eq!(tail(&[], 100), "");
    }

    #[test]
    fn a_frame_that_says_it_is_four_gigabytes_long_costs_no_memory() {
        let mut tail = Tail::new(8);
        tail.add(Bytes::from_static(b"\x01\0\0\0\xff\xff\xff\xff"));
        for _ in 0..1_000 {
            tail.add(Bytes::from_static(&[b'x'; 1_000]));
        }
        assert!(tail.kept.capacity() < 4_000, "{}", tail.kept.capacity());
        assert_eq!(tail.text(), "xxxxxxxx");
    }
}
