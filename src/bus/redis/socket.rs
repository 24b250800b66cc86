//! A connection to Redis before anything else is said on it: the login, and the ways in which connections end.
//!
//! The login is ours and not fred's: fred puts a password into `HELLO` as it is, where a blank begins another argument, and
//! repeats in its errors what the server says of it.

use std::io;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::address::Dialer;
use super::framing::BadAnswer;
use crate::text;

/// Longest answer to a login, in bytes.
const LONGEST_LINE: usize = 1024;

/// Longest part of a server's words that is shown.
const SHOWN: usize = 200;

/// What a refusal of the login begins with, as far as it is shown: the rest may repeat the password.
const CODES: [&str; 9] =
    ["WRONGPASS", "NOAUTH", "NOPERM", "DENIED", "LOADING", "BUSY", "MASTERDOWN", "UNKILLABLE", "ERR"];

/// Codes of a server that will let us in by itself.
const PASSING: [&str; 3] = ["LOADING", "BUSY", "MASTERDOWN"];

/// A stream of bytes to a server.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// It could not be made, or broke.
    #[error("connection to redis failed")]
    Connection(#[from] io::Error),
    /// Redis closed it.
    #[error("connection to redis closed")]
    Closed,
    /// Redis does not answer.
    #[error("no answer in time")]
    Late,
    /// Redis does not let us in.
    #[error("redis refused {call}{}", code.map(|code| format!(" ({code})")).unwrap_or_default())]
    Login { call: &'static str, code: Option<&'static str> },
    /// Redis refused something after the login.
    #[error("redis refused {call}: {words}")]
    Refused { call: &'static str, words: String },
    /// What answers is not Redis, or means harm.
    #[error(transparent)]
    Answer(#[from] BadAnswer),
    /// The client library gave up.
    #[error("connection to redis failed: {0}")]
    Client(String),
}

impl Lost {
    /// Whether somebody has to act: what answers does not let us in, such as for a wrong password, and waiting is no help.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Login { code, .. } => code.is_none_or(|code| !PASSING.contains(&code)),
            Self::Refused { .. } | Self::Answer(_) => true,
            // A certificate.
            Self::Connection(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other),
            Self::Closed | Self::Late | Self::Client(_) => false,
        }
    }
}

/// A request as a list of words, each of any bytes.
pub(super) fn request(words: &[&str]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// A server's words as one line that can be shown, cut.
pub(super) fn one_line(words: &str) -> String {
    let shown: String = words.trim().chars().take(SHOWN).collect();
    text::one_line(&shown).into_owned()
}

/// A connection that is logged in. Each of its steps takes at most `limit`.
pub(super) async fn connect(dialer: &Dialer, limit: Duration) -> Result<Box<dyn Socket>, Lost> {
    let address = &dialer.address;
    let mut socket = timeout(limit, dialer.open()).await.map_err(|_| Lost::Late)??;
    let mut ask = async |call, words: &[&str]| {
        let words: Vec<&str> = std::iter::once(call).chain(words.iter().copied()).collect();
        timeout(limit, ask(&mut socket, call, &words)).await.map_err(|_| Lost::Late)?
    };
    if let Some(password) = &address.password {
        let password = password.expose_secret();
        match &address.username {
            Some(user) => ask("AUTH", &[user, password]).await?,
            None => ask("AUTH", &[password]).await?,
        }
    }
    if let Some(database) = address.database {
        ask("SELECT", &[&database.to_string()]).await?;
    }
    // Without a password this is what tells whether one is needed.
    ask("PING", &[]).await?;
    Ok(socket)
}

/// Asks for what is answered by a line.
async fn ask(socket: &mut Box<dyn Socket>, call: &'static str, words: &[&str]) -> Result<(), Lost> {
    socket.write_all(&request(words)).await?;
    socket.flush().await?;
    let mut line = Vec::with_capacity(64);
    while !line.ends_with(b"\r\n") {
        if line.len() > LONGEST_LINE {
            return Err(BadAnswer::NotRedis.into());
        }
        let mut read = [0; 64];
        let count = socket.read(&mut read).await?;
        if count == 0 {
            return Err(Lost::Closed);
        }
        line.extend_from_slice(read.get(..count).unwrap_or_default());
        if !matches!(line.first(), Some(b'+' | b'-')) {
            return Err(BadAnswer::NotRedis.into());
        }
    }
    match line.split_first() {
        Some((b'+', _)) => Ok(()),
        _ => Err(Lost::Login { call, code: code(&line) }),
    }
}

/// The code that an error begins with, where it is one of Redis' own.
fn code(error: &[u8]) -> Option<&'static str> {
    let first = error.strip_prefix(b"-")?.split(u8::is_ascii_whitespace).next()?;
    CODES.into_iter().find(|code| code.as_bytes() == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_refused_login_is_a_code_of_ours() {
        assert_eq!(code(b"-WRONGPASS invalid s3cret\r\n"), Some("WRONGPASS"));
        for error in ["-s3cret\r\n", "-WRONGPASSs3cret\r\n", "-\r\n", "- ERR\r\n"] {
            assert_eq!(code(error.as_bytes()), None, "{error}");
        }
        let login = Lost::Login { call: "AUTH", code: code(b"-ERR unknown command 'AUTH', with args: 's3cret'\r\n") };
        assert_eq!(login.to_string(), "redis refused AUTH (ERR)");
    }

    #[test]
    fn a_refusal_and_a_certificate_need_somebody_and_an_absence_does_not() {
        let io = |kind| Lost::from(io::Error::new(kind, "x"));
        let login = |code| Lost::Login { call: "PING", code };
        for lost in [login(Some("NOAUTH")), login(None), BadAnswer::NotRedis.into(), io(io::ErrorKind::InvalidData)] {
            assert!(lost.is_refusal(), "{lost:?}");
        }
        for lost in [login(Some("LOADING")), Lost::Late, Lost::Closed, io(io::ErrorKind::ConnectionRefused)] {
            assert!(!lost.is_refusal(), "{lost:?}");
        }
    }

    #[test]
    fn a_servers_words_are_one_line_without_what_a_terminal_obeys() {
        let words = one_line(" NOPERM a\nb\x1b[2J\u{9b}c\u{202e}d ");
        assert_eq!(words, "NOPERM a\\nb\\u{1b}[2J\\u{9b}c\\u{202e}d");
        assert_eq!(one_line(&"x".repeat(10_000)).len(), SHOWN);
    }
}
