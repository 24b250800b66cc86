//! Stands between fred and the server: fred's connection goes to a socket of ours, and what the server answers reaches it only
//! once it is checked.
//!
//! fred takes no stream, only a place to connect to, so the place is a socket in the kernel's namespace that nobody else can
//! use. A call costs one more hop within the process.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::framing::Checker;
use super::socket::{Lost, Socket};

/// Most bytes that one read brings.
const READ: usize = 16 * 1024;

/// A place for one connection of fred's.
pub(super) struct Guard {
    listener: UnixListener,
    path: PathBuf,
}

impl Guard {
    pub(super) fn bind() -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::getrandom(&mut random).map_err(io::Error::other)?;
        let name = format!("sense-orchestrator/redis/{:032x}", u128::from_ne_bytes(random));
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let path = OsString::from_vec([b"\0", name.as_bytes()].concat());
        Ok(Self { listener: UnixListener::from_std(listener)?, path: path.into() })
    }

    /// Where fred connects to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Carries bytes between fred and the server until one of them ends, or an answer has more than `bound` bytes or is none.
    pub(super) async fn carry(self, server: Box<dyn Socket>, bound: usize) -> Lost {
        match self.accept().await {
            Ok(client) => carry(client, server, bound).await,
            Err(error) => error.into(),
        }
    }

    /// Waits for fred. Another process that found the socket would speak to Redis with our rights.
    async fn accept(self) -> io::Result<UnixStream> {
        loop {
            let (client, _) = self.listener.accept().await?;
            let process = client.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
            if process == Some(std::process::id()) {
                return Ok(client);
            }
        }
    }
}

async fn carry(client: UnixStream, server: Box<dyn Socket>, bound: usize) -> Lost {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let requests = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_server).await;
        copied.map_or_else(Lost::from, |_| Lost::Closed)
    };
    let answers = async {
        let mut checker = Checker::new(bound);
        let mut buffer = vec![0; READ];
        loop {
            let read = match from_server.read(&mut buffer).await {
                Ok(0) => return Lost::Closed,
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) => return error.into(),
            };
            if let Err(bad) = checker.check(read) {
                return bad.into();
            }
            if let Err(error) = to_client.write_all(read).await {
                return error.into();
            }
        }
    };
    tokio::select! {
        lost = answers => lost,
        lost = requests => lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_checked_is_carried_and_what_breaks_a_bound_is_not() {
        let guard = Guard::bind().unwrap();
        let (mut server, end) = tokio::io::duplex(4096);
        let path = guard.path().to_owned();
        let script = async {
            let mut client = UnixStream::connect(path).await.unwrap();
            client.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
            let mut request = [0; 14];
            server.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"*1\r\n$4\r\nPING\r\n");
            server.write_all(b"+PONG\r\n").await.unwrap();
            let mut answer = [0; 7];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"+PONG\r\n");
            server.write_all(b"$101\r\n").await.unwrap();
            std::future::pending::<()>().await;
        };
        let lost = tokio::select! {
            lost = guard.carry(Box::new(end), 100) => lost,
            () = script => unreachable!(),
        };
        assert_eq!(lost.to_string(), "an answer of redis has more than 100 bytes");
    }
}
