//! The container that we run in: which it is, and what its labels and mounts say of the project.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::engine::{Engine, EngineError};
use crate::file::FileReader;
use crate::spec::{Dialect, labels};

/// Where the kernel lists our mounts; the Engine mounts files of the container's own folder into each container.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Reads that list, which may hold every mount of the host.
const MOUNT_LIST: FileReader = FileReader::new(4 << 20);

/// The container that we run in, as Compose labelled it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnContainer {
    pub(super) project: Option<String>,
    pub(super) service: Option<String>,
    pub(super) files: DeployedFiles,
    pub(super) version: Option<Dialect>,
    /// Our path and the host's, of each directory of the host that we see.
    pub(super) mounts: Vec<(PathBuf, PathBuf)>,
}

/// What a container was made from, as its labels say: paths on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeployedFiles {
    /// The project directory.
    pub(super) working_dir: Option<PathBuf>,
    /// The Compose files.
    pub(super) config_files: Vec<PathBuf>,
    /// The env files that were named.
    pub(super) env_files: Vec<PathBuf>,
}

/// The id of our container, none outside of one.
pub(super) fn id() -> Option<String> {
    id_in(&MOUNT_LIST.text(Path::new(MOUNTS)).ok()?)
}

fn id_in(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        // … / /etc/hostname …: its root is the file on the host, in the folder of the container.
        let mut fields = line.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        if !matches!(target, "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf") {
            return None;
        }
        let id = root.rsplit('/').nth(1)?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

/// What the Engine knows of our container; none where it does not know it.
pub(super) async fn inspect(engine: &impl Engine, id: &str) -> Result<Option<OwnContainer>, EngineError> {
    let Some(found) = engine.container(id).await? else { return Ok(None) };
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let mounts = found.mounts.unwrap_or_default().into_iter().filter(|mount| mount.typ.as_deref() == Some("bind"));
    let mounts = mounts.filter_map(|mount| Some((PathBuf::from(mount.destination?), PathBuf::from(mount.source?))));
    Ok(Some(OwnContainer { mounts: mounts.collect(), ..labelled(&labels) }))
}

fn text(of: &HashMap<String, String>, key: &str) -> Option<String> {
    of.get(key).filter(|text| !text.is_empty()).cloned()
}

fn labelled(of: &HashMap<String, String>) -> OwnContainer {
    OwnContainer {
        project: text(of, labels::PROJECT),
        service: text(of, labels::SERVICE),
        files: DeployedFiles::labelled(of),
        version: text(of, labels::VERSION).and_then(|version| version.parse().ok()),
        mounts: Vec::new(),
    }
}

impl DeployedFiles {
    pub(super) fn labelled(of: &HashMap<String, String>) -> Self {
        let paths = |key: &str| text(of, key).iter().flat_map(|list| list.split(',')).map(PathBuf::from).collect();
        Self {
            working_dir: text(of, labels::WORKING_DIR).map(PathBuf::from),
            config_files: paths(labels::CONFIG_FILES),
            env_files: paths(labels::ENVIRONMENT_FILE),
        }
    }
}

impl OwnContainer {
    /// Our path of a file of the host, through the mount that is nearest to it.
    pub(super) fn to_own_path(&self, host: &std::path::Path) -> PathBuf {
        let through =
            self.mounts.iter().filter_map(|(own, source)| Some((own, source, host.strip_prefix(source).ok()?)));
        let nearest = through.max_by_key(|(_, source, _)| source.as_os_str().len());
        nearest.map_or_else(|| host.to_path_buf(), |(own, _, rest)| own.join(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_from_the_engines_own_mounts() {
        let id = "ab".repeat(32);
        let mounts = format!(
            "700 600 0:50 / / rw - overlay overlay rw\n\
             710 700 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(id_in(&mounts), Some(id));
        assert_eq!(id_in("700 600 0:50 /etc/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"), None);
    }

    #[test]
    fn a_path_of_the_host_is_found_through_the_nearest_mount() {
        let mounts = vec![("/host".into(), "/".into()), ("/project".into(), "/srv/stack".into())];
        let own = OwnContainer { mounts, ..OwnContainer::default() };
        assert_eq!(own.to_own_path("/srv/stack/compose.yaml".as_ref()), PathBuf::from("/project/compose.yaml"));
        assert_eq!(own.to_own_path("/etc/x".as_ref()), PathBuf::from("/host/etc/x"));
    }
}
