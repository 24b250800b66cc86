//! The connection for messages: a RESP2 subscriber of its own.
//!
//! fred decodes whatever a read brought before anybody else runs, and drops what its channel cannot hold: a burst of some
//! thousand messages, or few very large ones, would be lost or fill the memory. This one reads a piece at a time.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::address::Dialer;
use super::framing::BadAnswer;
use super::socket::{self, Lost, Socket, one_line, request};

/// Most bytes that one read brings.
const READ: usize = 64 * 1024;

/// Longest line of an error, a status or a length, in bytes.
const LONGEST_LINE: usize = 8 * 1024;

/// Most values that an answer holds; a server's answers to a subscriber hold three.
const LONGEST_ANSWER: usize = 16;

/// What arrives on the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A message.
    Message { channel: Bytes, payload: Bytes },
    /// A message that was too long, and skipped.
    TooLong,
    /// A subscription was confirmed.
    Subscribed,
    /// The server answered.
    Answered,
}

/// A connection that receives messages.
pub(super) struct Subscriber {
    socket: Box<dyn Socket>,
    buffer: BytesMut,
    /// Bytes of a payload that is too long, still to come.
    skip: usize,
    /// When the answer to a ping is due.
    pub(super) answer_due: Option<Instant>,
    limit: Duration,
    /// Longest payload that is handed over, in bytes; a longer one is skipped and counted as lost.
    longest_payload: usize,
}

impl Subscriber {
    /// Connects and logs in. Every answer comes within `limit`, or it is an error. A payload may have half of what may wait.
    pub(super) async fn connect(dialer: &Dialer, limit: Duration, most_waiting: usize) -> Result<Self, Lost> {
        let socket = socket::connect(dialer, limit).await?;
        let (buffer, longest_payload) = (BytesMut::new(), most_waiting / 2);
        Ok(Self { socket, buffer, skip: 0, answer_due: None, limit, longest_payload })
    }

    /// Subscribes to channels and waits for the confirmations. Messages that arrive meanwhile are returned.
    pub(super) async fn subscribe(&mut self, channels: &[String]) -> Result<Vec<Arrival>, Lost> {
        let mut meanwhile = Vec::new();
        let mut missing = channels.len();
        if missing > 0 {
            let words: Vec<&str> = std::iter::once("SUBSCRIBE").chain(channels.iter().map(String::as_str)).collect();
            self.send(&words).await?;
        }
        let deadline = Instant::now() + self.limit;
        while missing > 0 {
            match tokio::time::timeout_at(deadline, self.next()).await.map_err(|_| Lost::Late)?? {
                Arrival::Subscribed => missing -= 1,
                other => meanwhile.push(other),
            }
        }
        Ok(meanwhile)
    }

    /// Asks for an answer, which is due within the limit.
    pub(super) async fn ping(&mut self) -> Result<(), Lost> {
        self.answer_due.get_or_insert(Instant::now() + self.limit);
        self.send(&["PING"]).await
    }

    async fn send(&mut self, words: &[&str]) -> Result<(), Lost> {
        let sent = async {
            self.socket.write_all(&request(words)).await?;
            self.socket.flush().await
        };
        Ok(timeout(self.limit, sent).await.map_err(|_| Lost::Late)??)
    }

    /// The next arrival. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrival, Lost> {
        loop {
            if let Some(arrival) = self.parse()? {
                // Whatever arrives shows that the server is there; its answer may wait behind many messages.
                self.answer_due = None;
                return Ok(arrival);
            }
            if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(READ);
            let read = (&mut self.socket).take(READ as u64).read_buf(&mut self.buffer).await?;
            if read == 0 {
                return Err(Lost::Closed);
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Arrival>, Lost> {
        if self.skip > 0 {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            return Ok(if self.skip == 0 { Some(Arrival::TooLong) } else { None });
        }
        let mut reader = Reader { bytes: &self.buffer, at: 0, longest_payload: self.longest_payload };
        let parsed = reader.answer();
        let end = reader.at;
        match parsed {
            Parsed::More => Ok(None),
            Parsed::Broken => Err(BadAnswer::NotRedis.into()),
            Parsed::TooLong(length) => {
                self.buffer.advance(end);
                self.skip = length + 2;
                self.parse()
            }
            Parsed::Refused(range) => {
                let words = self.buffer.get(range).map(String::from_utf8_lossy).unwrap_or_default();
                Err(Lost::Refused { call: "SUBSCRIBE", words: one_line(&words) })
            }
            Parsed::Simple => {
                self.buffer.advance(end);
                Ok(Some(Arrival::Answered))
            }
            Parsed::List(words) => {
                // Copies: a slice would keep the whole of the buffer alive.
                let word = |n: usize| words.get(n).and_then(|range| self.buffer.get(range.clone())).unwrap_or_default();
                let arrival = match word(0) {
                    b"message" => Arrival::Message {
                        channel: Bytes::copy_from_slice(word(1)),
                        payload: Bytes::copy_from_slice(word(2)),
                    },
                    b"subscribe" => Arrival::Subscribed,
                    _ => Arrival::Answered,
                };
                self.buffer.advance(end);
                Ok(Some(arrival))
            }
        }
    }
}

type Range = std::ops::Range<usize>;

/// What the front of the buffer holds; ranges are of the buffer.
enum Parsed {
    /// Not all of it yet.
    More,
    /// Something else than an answer.
    Broken,
    /// The words of a list.
    List(Vec<Range>),
    /// A list with a word of that length, which begins where the reader stands.
    TooLong(usize),
    /// A line or a single word.
    Simple,
    /// An error line.
    Refused(Range),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    longest_payload: usize,
}

enum Word {
    Text(Range),
    Other,
    TooLong(usize),
    More,
    Broken,
}

impl Reader<'_> {
    fn line(&mut self) -> Option<Range> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.at..self.at + length;
        self.at = line.end + 2;
        Some(line)
    }

    /// What a line without an end means: more of it comes, unless it is longer than any line of Redis.
    fn unfinished<T>(&self, more: T, broken: T) -> T {
        if self.bytes.len().saturating_sub(self.at) > LONGEST_LINE { broken } else { more }
    }

    fn number(&self, line: Range) -> Option<i64> {
        std::str::from_utf8(self.bytes.get(line)?).ok()?.parse().ok()
    }

    fn answer(&mut self) -> Parsed {
        let Some(kind) = self.bytes.get(self.at).copied() else { return Parsed::More };
        if kind == b'$' {
            return match self.word() {
                Word::Text(_) | Word::Other => Parsed::Simple,
                Word::TooLong(_) | Word::Broken => Parsed::Broken,
                Word::More => Parsed::More,
            };
        }
        let Some(line) = self.line() else { return self.unfinished(Parsed::More, Parsed::Broken) };
        let rest = line.start + 1..line.end;
        match kind {
            b'+' | b':' => Parsed::Simple,
            b'-' => Parsed::Refused(rest),
            b'*' => match self.number(rest).and_then(|count| usize::try_from(count).ok()) {
                Some(count) if count <= LONGEST_ANSWER => self.list(count),
                Some(_) | None => Parsed::Broken,
            },
            _ => Parsed::Broken,
        }
    }

    fn list(&mut self, count: usize) -> Parsed {
        let mut words = Vec::with_capacity(count);
        for _ in 0..count {
            match self.word() {
                Word::Text(range) => words.push(range),
                Word::Other => words.push(0..0),
                Word::TooLong(length) => return Parsed::TooLong(length),
                Word::More => return Parsed::More,
                Word::Broken => return Parsed::Broken,
            }
        }
        Parsed::List(words)
    }

    fn word(&mut self) -> Word {
        let Some(kind) = self.bytes.get(self.at).copied() else { return Word::More };
        let Some(line) = self.line() else { return self.unfinished(Word::More, Word::Broken) };
        let Some(number) = self.number(line.start + 1..line.end) else { return Word::Broken };
        match (kind, usize::try_from(number)) {
            (b':', _) | (b'$', Err(_)) => Word::Other,
            (b'$', Ok(length)) if length > self.longest_payload => Word::TooLong(length),
            (b'$', Ok(length)) => {
                let text = self.at..self.at + length;
                if self.bytes.len() < text.end + 2 {
                    return Word::More;
                }
                self.at = text.end + 2;
                Word::Text(text)
            }
            _ => Word::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST_PAYLOAD: usize = 1 << 20;

    fn reading(bytes: &[u8]) -> Subscriber {
        let socket = Box::new(tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink()));
        let (buffer, limit) = (BytesMut::new(), Duration::from_secs(1));
        Subscriber { socket, buffer, skip: 0, answer_due: None, limit, longest_payload: LONGEST_PAYLOAD }
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let head = format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n${}\r\n", payload.len());
        [head.as_bytes(), payload, b"\r\n"].concat()
    }

    #[tokio::test]
    async fn messages_and_answers_are_told_apart() {
        let bytes = [
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n".to_vec(),
            message(b"x\r\ny"),
            b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
        ];
        let mut subscriber = reading(&bytes.concat());
        assert_eq!(subscriber.next().await.unwrap(), Arrival::Subscribed);
        subscriber.answer_due = Some(Instant::now());
        let (channel, payload) = (Bytes::from_static(b"a"), Bytes::from_static(b"x\r\ny"));
        assert_eq!(subscriber.next().await.unwrap(), Arrival::Message { channel, payload });
        assert!(subscriber.answer_due.is_none(), "a message shows as well that the server is there");
        assert_eq!(subscriber.next().await.unwrap(), Arrival::Answered);
        assert!(matches!(subscriber.next().await, Err(Lost::Closed)));
    }

    #[tokio::test]
    async fn a_payload_that_is_too_long_is_skipped_without_being_held() {
        let long = message(&vec![b'x'; LONGEST_PAYLOAD + 1]);
        let longest = message(&vec![b'x'; LONGEST_PAYLOAD]);
        let mut subscriber = reading(&[long, longest, message(b"next")].concat());
        assert_eq!(subscriber.next().await.unwrap(), Arrival::TooLong);
        assert!(subscriber.buffer.capacity() < 4 * READ, "{}", subscriber.buffer.capacity());
        assert!(
            matches!(subscriber.next().await.unwrap(), Arrival::Message { payload, .. } if payload.len() == LONGEST_PAYLOAD)
        );
        assert!(
            matches!(subscriber.next().await.unwrap(), Arrival::Message { payload, .. } if payload.as_ref() == b"next")
        );
    }

    #[tokio::test]
    async fn a_refusal_and_what_is_no_answer_end_the_connection() {
        let refused = reading(b"-NOPERM no\nmore\r\n").next().await.unwrap_err();
        assert_eq!(refused.to_string(), "redis refused SUBSCRIBE: NOPERM no\\nmore");
        let endless = [b"+".to_vec(), vec![b'x'; 2 * LONGEST_LINE]].concat();
        let nested = b"*1\r\n".repeat(5000);
        for bytes in
            [b"HTTP/1.1 200 OK\r\n".as_slice(), b"*999999999\r\n", b"*1\r\n!x\r\n", b"*1\r\n$x\r\n", &endless, &nested]
        {
            let lost = reading(bytes).next().await.unwrap_err();
            assert!(matches!(lost, Lost::Answer(BadAnswer::NotRedis)), "{lost:?}");
        }
    }
}
