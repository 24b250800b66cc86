//! How the Engine is reached: socket, TCP or TLS.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

#[cfg(feature = "tls")]
use crate::file::FileReader;

/// Largest file with a key or certificates.
#[cfg(feature = "tls")]
const PEM_FILE: FileReader = FileReader::new(1 << 20);

/// Where the Engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Path of its Unix socket.
    Unix(PathBuf),
    /// `host:port`, with TLS where files are given.
    Tcp {
        /// `host:port`.
        address: String,
        /// Certificates of an Engine that asks for them.
        tls: Option<TlsFiles>,
    },
}

/// PEM files for an Engine behind TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that sign the Engine's.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a text does not say where an Engine listens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Engine address: unix:///path or tcp://host:port is")]
pub struct ParseHostError(String);

impl FromStr for Host {
    type Err = ParseHostError;

    /// Reads a `DOCKER_HOST`, without TLS.
    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        match text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"))
            .map(|rest| rest.trim_end_matches('/'))
        {
            Some(address) if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                Ok(Self::Tcp { address: address.into(), tls: None })
            }
            _ => Err(ParseHostError(text.into())),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { address, .. } => f.write_str(address),
        }
    }
}

/// Bytes to and from the Engine.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Opens a connection.
pub(super) async fn dial(host: &Host) -> io::Result<Box<dyn Socket>> {
    match host {
        Host::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Host::Tcp { address, tls } => {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            match tls {
                None => Ok(Box::new(socket)),
                Some(files) => secure(socket, address, files).await,
            }
        }
    }
}

/// TLS with our certificate. The Engine's is signed by the given one and by no other, as with Docker's own client.
#[cfg(feature = "tls")]
async fn secure(socket: TcpStream, address: &str, files: &TlsFiles) -> io::Result<Box<dyn Socket>> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

    let unreadable = |path: &std::path::Path, error: rustls::pki_types::pem::Error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    };
    let bytes = |path: &std::path::Path| PEM_FILE.bytes(path).map_err(io::Error::other);
    let certificates = |path: &std::path::Path| {
        let all = CertificateDer::pem_slice_iter(&bytes(path)?).collect::<Result<Vec<_>, _>>();
        all.map_err(|error| unreadable(path, error))
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&files.ca)?);
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?).map_err(|error| unreadable(&files.key, error))?;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.cert)?, key)
        .map_err(io::Error::other)?;
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name).trim_matches(['[', ']']);
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, socket).await?))
}

#[cfg(not(feature = "tls"))]
async fn secure(_: TcpStream, _: &str, _: &TlsFiles) -> io::Result<Box<dyn Socket>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "TLS to the Engine: built without the feature `tls`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_unix_socket_or_a_tcp_address() {
        assert_eq!("unix:///run/docker.sock".parse(), Ok(Host::Unix("/run/docker.sock".into())));
        assert_eq!("tcp://proxy:2375".parse(), Ok(Host::Tcp { address: "proxy:2375".into(), tls: None }));
        for text in
            ["", "unix://", "unix://relative", "tcp://host", "tcp://host:port", "ssh://host:22", "/run/docker.sock"]
        {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
