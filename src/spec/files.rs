//! Secrets and configs: mounted where they are files, copied in before each start where they are content.

use bollard::models::{Mount as EngineMount, MountBindOptions, MountType};

use super::resolve::API_SOCKET_CONFIG;
use super::{Dialect, SpecError, SpecOptions, resolve};
use crate::compose::project::{FileObject, FileReference, Project, Service};
use crate::names::ServiceName;
use crate::request::Upload;

const SECRETS_DIR: &str = "/run/secrets/";
/// What Compose gives `use_api_socket` without any credentials.
const NO_CREDENTIALS: &str = "{\n\t\"auths\": {}\n}";
/// Mode of a copied file whose reference sets none.
const DEFAULT_MODE: u32 = 0o444;
/// The largest owner that fits the seven octal digits of a tar header.
const MAX_ID: u32 = 0o7_777_777;
/// tar works in blocks of this size.
const BLOCK: usize = 512;

/// A file to write into a created container before it starts.
#[derive(Clone, PartialEq, Eq)]
pub struct CopiedFile {
    /// Absolute path in the container.
    pub target: String,
    /// What to write; never empty.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The reference names an owner or a group.
    pub owned: bool,
}

impl std::fmt::Debug for CopiedFile {
    /// Without the content: it is a secret as a rule.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopiedFile")
            .field("target", &self.target)
            .field("mode", &format_args!("0{:o}", self.mode))
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

impl CopiedFile {
    /// The archive that writes the file; `modified` is its time in Unix seconds.
    #[must_use]
    pub fn to_upload(&self, modified: u64) -> Upload {
        Upload { archive: tar(self, modified), copy_uid_gid: self.owned }
    }
}

/// Secret or config: the same but for words and where a relative target lands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Secret,
    Config,
}

impl FileKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    fn target(self, reference: &FileReference) -> String {
        let path = if reference.target.is_empty() { &reference.source } else { &reference.target };
        match self {
            _ if path.starts_with('/') => path.clone(),
            Self::Secret => format!("{SECRETS_DIR}{path}"),
            Self::Config => format!("/{path}"),
        }
    }
}

/// Where the content of a secret or config is.
enum Source<'a> {
    File(&'a str),
    Variable(&'a str),
    Content(&'a str),
}

/// The service's file secrets and configs as mounts, with their targets.
pub(super) fn mounted(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    dialect: Dialect,
) -> Result<Vec<(String, EngineMount)>, SpecError> {
    let mut mounts = Vec::new();
    for (kind, reference) in references(service).filter(|(_, reference)| reference.source != API_SOCKET_CONFIG) {
        let object = object(project, name, kind, reference)?;
        if let Source::File(file) = source(kind, object)? {
            // A config of empty content counts as the file "", which Compose makes the project directory.
            let file = if file.is_empty() { &project.working_dir } else { file };
            let target = kind.target(reference);
            let mount = EngineMount {
                typ: Some(MountType::BIND),
                source: Some(file.to_owned()),
                target: Some(target.clone()),
                read_only: Some(true),
                bind_options: (kind == FileKind::Secret && dialect.is_recent()).then(MountBindOptions::default),
                ..EngineMount::default()
            };
            mounts.push((target, mount));
        }
    }
    Ok(mounts)
}

/// What to write into the service's containers before each start.
///
/// # Errors
///
/// A variable that is not set, a read-only container, an owner that is not a number.
pub fn copied_files(
    project: &Project,
    name: &ServiceName,
    options: &SpecOptions,
) -> Result<Vec<CopiedFile>, SpecError> {
    let mut service = super::service(project, name)?.clone();
    resolve::api_socket(&mut service);
    let mut files = Vec::new();
    for (kind, reference) in references(&service) {
        let (object_name, content) = if reference.source == API_SOCKET_CONFIG {
            (API_SOCKET_CONFIG, options.registry_config.as_deref().unwrap_or(NO_CREDENTIALS))
        } else {
            let object = object(project, name, kind, reference)?;
            let content = match source(kind, object)? {
                Source::File(_) => continue,
                Source::Content(content) => content,
                Source::Variable(variable) => {
                    object.environment_value.as_ref().or_else(|| project.environment.get(variable)).ok_or_else(
                        || SpecError::VariableNotSet {
                            variable: variable.to_owned(),
                            kind: kind.as_str(),
                            name: object.name.clone(),
                        },
                    )?
                }
            };
            (object.name.as_str(), content)
        };
        if service.read_only {
            return Err(SpecError::CopyIntoReadOnly {
                kind: kind.as_str(),
                name: object_name.to_owned(),
                service: name.to_string(),
            });
        }
        if content.is_empty() {
            continue;
        }
        let id = |key, value: &str| match value.parse() {
            Ok(id) if id <= MAX_ID => Ok(id),
            Err(_) if value.is_empty() => Ok(0),
            Ok(_) | Err(_) => Err(SpecError::NotAnId {
                kind: kind.as_str(),
                name: object_name.to_owned(),
                key,
                value: value.to_owned(),
            }),
        };
        files.push(CopiedFile {
            target: kind.target(reference),
            content: content.to_owned(),
            mode: reference.mode.and_then(|mode| u32::try_from(mode.0).ok()).unwrap_or(DEFAULT_MODE),
            uid: id("uid", &reference.uid)?,
            gid: id("gid", &reference.gid)?,
            owned: !reference.uid.is_empty() || !reference.gid.is_empty(),
        });
    }
    Ok(files)
}

/// Paths of the files whose content goes into the create body, for [`SpecOptions::client_files`].
///
/// They are opened by the client, so a daemon whose project directory is mounted elsewhere has to translate them.
#[must_use]
pub fn referenced_files(project: &Project, service: &Service) -> Vec<String> {
    service.security_opt.iter().filter_map(|option| seccomp_profile(project, option)).collect()
}

/// The absolute path of the seccomp profile that an entry of `security_opt` names.
pub(super) fn seccomp_profile(project: &Project, option: &str) -> Option<String> {
    let (key, file) = option.split_once('=').or_else(|| option.split_once(':'))?;
    let is_file = key == "seccomp" && file != "unconfined" && file != "builtin";
    is_file.then(|| if file.starts_with('/') { file.to_owned() } else { format!("{}/{file}", project.working_dir) })
}

fn references(service: &Service) -> impl Iterator<Item = (FileKind, &FileReference)> {
    let secrets = service.secrets.iter().map(|reference| (FileKind::Secret, reference));
    secrets.chain(service.configs.iter().map(|reference| (FileKind::Config, reference)))
}

fn object<'a>(
    project: &'a Project,
    name: &ServiceName,
    kind: FileKind,
    reference: &FileReference,
) -> Result<&'a FileObject, SpecError> {
    let objects = match kind {
        FileKind::Secret => &project.secrets,
        FileKind::Config => &project.configs,
    };
    objects.get(&reference.source).ok_or_else(|| SpecError::Undefined {
        service: name.to_string(),
        kind: kind.as_str(),
        name: reference.source.clone(),
    })
}

fn source(kind: FileKind, object: &FileObject) -> Result<Source<'_>, SpecError> {
    if object.external {
        return Err(SpecError::ExternalFile { kind: kind.as_str(), name: object.name.clone() });
    }
    if !object.driver.is_empty() {
        return Err(SpecError::DriverOfFile { kind: kind.as_str(), key: "driver" });
    }
    if !object.template_driver.is_empty() {
        return Err(SpecError::DriverOfFile { kind: kind.as_str(), key: "template_driver" });
    }
    Ok(if !object.environment.is_empty() {
        Source::Variable(&object.environment)
    } else if !object.content.is_empty() {
        Source::Content(&object.content)
    } else {
        Source::File(&object.file)
    })
}

/// A ustar archive with one regular file.
fn tar(file: &CopiedFile, modified: u64) -> Vec<u8> {
    let content = file.content.as_bytes();
    let path = file.target.as_bytes();
    let mut archive = Vec::with_capacity(4 * BLOCK + content.len().next_multiple_of(BLOCK));
    if path.len() > NAME_FIELD {
        // ustar has no room for it: GNU's extension puts a longer name in an entry of its own before the file.
        entry(&mut archive, b'L', b"././@LongLink", &[path, b"\0"].concat(), (0o644, 0, 0), 0);
    }
    entry(&mut archive, b'0', path, content, (file.mode, file.uid, file.gid), modified);
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

const NAME_FIELD: usize = 100;

fn entry(archive: &mut Vec<u8>, kind: u8, path: &[u8], content: &[u8], owner: (u32, u32, u32), modified: u64) {
    let (mode, uid, gid) = owner;
    let mut header = Vec::with_capacity(BLOCK);
    header.extend(path.iter().take(NAME_FIELD));
    header.resize(NAME_FIELD, 0);
    header.extend(format!("{:07o}\0{uid:07o}\0{gid:07o}\0", mode & 0o7777).bytes());
    header.extend(format!("{:011o}\0{modified:011o}\0", content.len()).bytes());
    let checksum_at = header.len();
    header.extend(b"        ");
    header.push(kind);
    header.resize(header.len() + NAME_FIELD, 0);
    header.extend(if kind == b'L' { b"ustar  \0" } else { b"ustar\x0000" });
    header.resize(BLOCK, 0);
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    let checksum = format!("{sum:06o}\0 ");
    for (byte, digit) in header.iter_mut().skip(checksum_at).zip(checksum.bytes()) {
        *byte = digit;
    }
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn file(target: &str, content: &str) -> CopiedFile {
        CopiedFile {
            target: target.to_owned(),
            content: content.to_owned(),
            mode: 0o640,
            uid: 10,
            gid: 20,
            owned: true,
        }
    }

    #[test]
    fn an_archive_holds_the_file_with_its_owner_mode_and_time() {
        let long = format!("/{}/x", "folder/".repeat(40));
        for (target, content) in [("/etc/a", "x"), (&long, "a long name"), ("/b", &"y".repeat(BLOCK))] {
            let upload = file(target, content).to_upload(1_700_000_000);
            assert!(upload.copy_uid_gid);
            assert_eq!(upload.archive.len() % BLOCK, 0);
            let mut archive = tar::Archive::new(upload.archive.as_slice());
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            let header = entry.header();
            assert_eq!(header.mode().unwrap(), 0o640);
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (10, 20));
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            assert_eq!(header.entry_type(), tar::EntryType::Regular);
            assert_eq!(entry.path_bytes().as_ref(), target.as_bytes());
            let mut read = String::new();
            entry.read_to_string(&mut read).unwrap();
            assert_eq!(read, content);
            assert!(entries.next().is_none());
        }
    }

    #[test]
    fn a_secret_is_not_shown_in_debug_output() {
        assert!(!format!("{:?}", file("/run/secrets/s", "hunter2")).contains("hunter2"));
    }
}
