//! Where the control socket is: in a directory that only we can write to, else in the kernel only.
//!
//! A socket without a file ("abstract") is seen by everyone in the network namespace, which may be the whole host's. So its
//! name holds our mount namespace, which tells containers apart, and a random part, so that nobody can take it before us.
//! Who asks finds such names in `/proc/net/unix`.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::net::UnixStream;

use crate::file::FileReader;

/// The directory that root gets where no other is named.
const SYSTEM: &str = "/run/sense-orchestrator";

/// The kernel's list of this network namespace's sockets.
const SOCKETS: &str = "/proc/self/net/unix";

/// Reads that list, which has a line of some 100 bytes for each socket.
const LISTING: FileReader = FileReader::new(8 << 20);

/// Longest part of a project's name in the name of a file: a socket's path has at most 107 bytes.
const NAME_LENGTH: usize = 40;

/// Where to make the socket, or to look for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The one place that the settings name; the others are not looked at then.
    pub socket: Option<PathBuf>,
    /// Directories, the best first.
    pub directories: Vec<PathBuf>,
}

impl Places {
    /// The usual places.
    ///
    /// `runtime` is what systemd gives a service in `RUNTIME_DIRECTORY`, `user` is `XDG_RUNTIME_DIR`.
    pub fn new(socket: Option<PathBuf>, runtime: Option<&str>, user: Option<&str>) -> Self {
        let runtime = runtime.into_iter().flat_map(|list| list.split(':')).filter(|path| !path.is_empty());
        let user = user.filter(|path| !path.is_empty()).map(|path| Path::new(path).join("sense-orchestrator"));
        let directories = runtime.map(PathBuf::from).chain([SYSTEM.into()]).chain(user).collect();
        Self { socket, directories }
    }

    /// Everything that may be a daemon's socket, by anybody.
    pub(super) fn sockets(&self) -> Vec<Address> {
        if let Some(path) = &self.socket {
            return vec![Address::Path(path.clone())];
        }
        let files = self.directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
        let files = files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "sock"));
        let prefix = prefix();
        let listed = LISTING.text(Path::new(SOCKETS)).unwrap_or_default();
        let names: BTreeSet<&str> = listed
            .lines()
            .filter_map(|line| line.split(' ').next_back()?.strip_prefix('@'))
            .filter(|name| name.starts_with(&prefix))
            .collect();
        let names = names.into_iter().map(|name| Address::Abstract(name.to_owned()));
        files.map(Address::Path).chain(names).collect()
    }
}

/// The address of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Path(PathBuf),
    Abstract(String),
}

impl Address {
    /// Connects; a socket whose queue is full is an error and not waited for.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Path(path) => UnixStream::connect(path).await,
            Self::Abstract(name) => UnixStream::connect(format!("\0{name}")).await,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// A socket that is listened on; its file goes with it.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: UnixListener,
    address: Address,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Address::Path(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

impl Bound {
    /// Makes the socket of the daemon of `project` on `engine`, in the best place that is to be had.
    ///
    /// # Errors
    ///
    /// When the place that the settings name is not to be had, or none at all.
    pub async fn new(places: &Places, project: &str, engine: &str, own_uid: u32, random: [u8; 8]) -> io::Result<Self> {
        if let Some(path) = &places.socket {
            return Self::at(path.clone()).await;
        }
        let identity = format!("{:x}", Sha256::digest(format!("{engine} {project}")));
        let file = format!("{project:.NAME_LENGTH$}-{identity:.8}.sock");
        for directory in places.directories.iter().filter(|directory| is_ours(directory, own_uid)) {
            if let Ok(bound) = Self::at(directory.join(&file)).await {
                return Ok(bound);
            }
        }
        let name = format!("{}{:016x}", prefix(), u64::from_le_bytes(random));
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        Ok(Self { listener, address: Address::Abstract(name) })
    }

    /// Makes a socket at a path, in place of one that nobody listens on any more.
    async fn at(path: PathBuf) -> io::Result<Self> {
        let stale = fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket())
            && UnixStream::connect(&path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if stale {
            fs::remove_file(&path)?;
        }
        let bound = Self { listener: UnixListener::bind(&path)?, address: Address::Path(path.clone()) };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(bound)
    }
}

/// True for a directory that nobody but us and root can change. It is made where only itself is missing.
fn is_ours(directory: &Path, own_uid: u32) -> bool {
    let _ = DirBuilder::new().mode(0o700).create(directory);
    fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && (found.uid() == own_uid || found.uid() == 0) && found.mode() & 0o022 == 0)
}

/// What the names of all daemons' sockets in our mount namespace begin with.
fn prefix() -> String {
    let namespace = fs::metadata("/proc/self/ns/mnt").map_or(0, |namespace| namespace.ino());
    format!("sense-orchestrator/{namespace}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sense-place-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn bound(places: &Places, project: &str) -> io::Result<Bound> {
        let own_uid = fs::metadata("/proc/self").unwrap().uid();
        Bound::new(places, project, "unix:///e", own_uid, [7; 8]).await
    }

    #[tokio::test]
    async fn the_socket_is_in_the_first_directory_that_is_ours_and_only_we_may_use_it() {
        let folder = Folder::new("first");
        let shared = folder.0.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        let (missing, made) = (folder.0.join("a/b"), folder.0.join("made"));
        let places = Places { socket: None, directories: vec![missing, shared, made.clone()] };
        let socket = bound(&places, "p").await.unwrap();
        let Address::Path(path) = &socket.address else { panic!("{socket}") };
        assert!(path.starts_with(&made), "{socket}");
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(places.sockets().iter().filter(|found| matches!(found, Address::Path(_))).count(), 1);
        let path = path.clone();
        drop(socket);
        assert!(!path.exists(), "its file goes with it");
    }

    #[tokio::test]
    async fn what_a_crash_left_is_replaced_and_what_lives_or_is_no_socket_is_not() {
        let folder = Folder::new("stale");
        let path = folder.0.join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        let places = Places { socket: Some(path.clone()), directories: vec![] };
        let socket = bound(&places, "p").await.unwrap();
        assert_eq!(bound(&places, "p").await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        fs::write(&path, "precious").unwrap();
        assert!(bound(&places, "p").await.is_err());
        assert_eq!(LISTING.text(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn long_names_of_projects_and_a_second_daemon_have_their_place_too() {
        let folder = Folder::new("long");
        let places = Places { socket: None, directories: vec![folder.0.clone()] };
        let long = "p".repeat(200);
        let first = bound(&places, &long).await.unwrap();
        let second = bound(&places, &long).await.unwrap();
        assert!(matches!(first.address, Address::Path(_)) && matches!(second.address, Address::Abstract(_)));
        assert_eq!(
            places.sockets().iter().filter(|found| [&first.address, &second.address].contains(found)).count(),
            2
        );
    }
}
