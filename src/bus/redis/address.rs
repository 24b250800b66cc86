//! Where Redis is, and how a connection to it is opened.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fred::socket2::{SockRef, TcpKeepalive};
use secrecy::SecretString;
use tokio::net::{TcpStream, UnixStream};

use super::socket::Socket;

/// Where Redis is and how to log in; `Debug` shows no password.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// TLS, with a certificate that the system trusts; for [`Endpoint::Tcp`] only.
    pub tls: bool,
    /// User of the ACL; none: the default user.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<SecretString>,
    /// Number of the database; none: 0.
    pub database: Option<u16>,
}

/// Where Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// Path of a socket.
    Unix(PathBuf),
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// TLS is wanted of a build without it.
    #[error("this build speaks no TLS to redis")]
    NoTls,
    /// The certificates to trust cannot be read.
    #[error("no certificates to trust for TLS to redis")]
    Certificates {
        /// What reading them said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Opens connections to one address.
pub(super) struct Dialer {
    pub(super) address: Address,
    #[cfg(feature = "tls")]
    tls: Option<fred::types::config::TlsConnector>,
}

impl Dialer {
    #[cfg(feature = "tls")]
    pub(super) fn new(address: Address) -> Result<Self, AddressError> {
        let certificates = |error: fred::error::Error| AddressError::Certificates { source: error.into() };
        let connector = address.tls.then(fred::types::config::TlsConnector::default_rustls);
        Ok(Self { tls: connector.transpose().map_err(certificates)?, address })
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn new(address: Address) -> Result<Self, AddressError> {
        if address.tls { Err(AddressError::NoTls) } else { Ok(Self { address }) }
    }

    /// A new connection, not logged in.
    pub(super) async fn open(&self) -> io::Result<Box<dyn Socket>> {
        let (host, port) = match &self.address.endpoint {
            Endpoint::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Endpoint::Tcp(host, port) => (host.as_str(), *port),
        };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
        #[cfg(feature = "tls")]
        if let Some(fred::types::config::TlsConnector::Rustls(connector)) = &self.tls {
            let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            return Ok(Box::new(connector.connect(name, stream).await?));
        }
        Ok(Box::new(stream))
    }
}

/// The kernel finds a dead peer by itself: no timer of ours wakes up for it.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(3))
}
