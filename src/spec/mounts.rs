//! Volumes, file secrets and file configs to `Binds` and `Mounts`.

use std::collections::BTreeMap;

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountImageOptions,
    MountTmpfsOptions, MountType, MountVolumeOptions,
};

use super::{Inherited, SpecError, SpecOptions, files, map, text};
use crate::compose::project::{BindOptions, Mount, Project, Service, Volume};
use crate::names::ServiceName;

/// The two lists of `HostConfig`, each sorted by target: Compose's order is random.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<String>,
    pub(super) mounts: Vec<EngineMount>,
}

/// One mount, by its target, in the form that the API takes it.
enum Entry {
    Bind(String),
    Mount(Box<EngineMount>),
}

/// All mounts of a container.
pub(super) fn mounts(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    inherited: Option<&Inherited>,
    options: &SpecOptions,
) -> Result<Mounts, SpecError> {
    let mut entries = BTreeMap::new();
    let anonymous = |mount: &Mount| mount.source.is_empty();
    for mount in inherited.iter().flat_map(|inherited| &inherited.mounts) {
        let Some(target) = &mount.destination else { continue };
        let kind = mount.typ.as_deref().unwrap_or_default();
        let of_image = inherited.is_some_and(|inherited| inherited.image_volumes.contains(target));
        let of_service = service.volumes.iter().find(|volume| volume.target == *target && anonymous(volume));
        if kind == "tmpfs" || !(of_image || of_service.is_some()) {
            continue;
        }
        let source = if kind == "volume" { &mount.name } else { &mount.source };
        let source = source.as_deref().unwrap_or_default();
        // What was no anonymous volume before is bound as what the service now says.
        let is_bound = |own: &Mount| match kind {
            "bind" => is_plain_bind(own.bind.as_ref(), options),
            "volume" => {
                let named = project.volumes.values().any(|volume| volume.name == source);
                named && options.dialect.binds_volumes() && is_plain_volume(own)
            }
            _ => false,
        };
        let entry = match of_service {
            Some(own) if is_bound(own) => Entry::Bind(bind_text(source, own)),
            Some(_) | None => Entry::Mount(Box::new(EngineMount {
                typ: Some(mount_type(name, kind)?),
                source: text(source),
                target: Some(target.clone()),
                read_only: (mount.rw == Some(false)).then_some(true),
                ..EngineMount::default()
            })),
        };
        entries.insert(target.clone(), entry);
    }
    for mount in &service.volumes {
        // Also a tmpfs, as it has no source either.
        if anonymous(mount) && entries.contains_key(&mount.target) {
            continue;
        }
        entries.insert(mount.target.clone(), entry(project, name, mount, options)?);
    }
    for (target, mount) in files::mounted(project, name, service, options.dialect)? {
        entries.entry(target).or_insert(Entry::Mount(Box::new(mount)));
    }

    let mut result = Mounts::default();
    for entry in entries.into_values() {
        match entry {
            Entry::Bind(bind) => result.binds.push(bind),
            Entry::Mount(mount) => result.mounts.push(*mount),
        }
    }
    Ok(result)
}

fn mount_type(name: &ServiceName, kind: &str) -> Result<MountType, SpecError> {
    Ok(match kind {
        "bind" => MountType::BIND,
        "volume" => MountType::VOLUME,
        "tmpfs" => MountType::TMPFS,
        "image" => MountType::IMAGE,
        "npipe" => MountType::NPIPE,
        "cluster" => MountType::CLUSTER,
        other => {
            return Err(SpecError::InvalidValue {
                service: name.to_string(),
                key: "volumes.type",
                value: other.to_owned(),
            });
        }
    })
}

fn entry(project: &Project, name: &ServiceName, mount: &Mount, options: &SpecOptions) -> Result<Entry, SpecError> {
    let kind = mount_type(name, &mount.kind)?;
    let mut source = mount.source.as_str();
    match kind {
        MountType::BIND if is_plain_bind(mount.bind.as_ref(), options) => {
            return Ok(Entry::Bind(bind_text(&mount.source, mount)));
        }
        MountType::VOLUME => {
            if let Some(Volume { name, .. }) = project.volumes.get(&mount.source) {
                source = name;
                if options.dialect.binds_volumes() && is_plain_volume(mount) {
                    return Ok(Entry::Bind(bind_text(name, mount)));
                }
            }
        }
        MountType::IMAGE if !options.at_least(48) => return Err(SpecError::ImageMountNeedsNewerEngine),
        MountType::BIND | MountType::IMAGE | MountType::TMPFS | MountType::NPIPE | MountType::CLUSTER => {}
    }
    Ok(Entry::Mount(Box::new(EngineMount {
        typ: Some(kind),
        source: text(source),
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        consistency: text(&mount.consistency),
        bind_options: match (kind, &mount.bind) {
            (MountType::BIND, Some(bind)) => Some(bind_options(name, bind, options)?),
            _ => None,
        },
        volume_options: mount.volume.as_ref().filter(|_| kind == MountType::VOLUME).map(|volume| MountVolumeOptions {
            no_copy: volume.nocopy.then_some(true),
            subpath: text(&volume.subpath),
            labels: map(&volume.labels),
            ..MountVolumeOptions::default()
        }),
        tmpfs_options: mount.tmpfs.as_ref().filter(|_| kind == MountType::TMPFS).map(|tmpfs| MountTmpfsOptions {
            size_bytes: super::number(tmpfs.size.0),
            mode: super::number(i64::from(tmpfs.mode)),
            ..MountTmpfsOptions::default()
        }),
        image_options: mount
            .image
            .as_ref()
            .filter(|_| kind == MountType::IMAGE)
            .map(|image| MountImageOptions { subpath: text(&image.subpath) }),
    })))
}

/// Whether the bind fits the short form, the only one that makes a missing host path on every Engine.
fn is_plain_bind(bind: Option<&BindOptions>, options: &SpecOptions) -> bool {
    let newer = options.dialect.binds_volumes();
    match bind {
        None => newer,
        Some(bind) => bind.create_host_path && (!newer || bind.recursive.is_empty() && bind.propagation.is_empty()),
    }
}

fn is_plain_volume(mount: &Mount) -> bool {
    mount.volume.as_ref().is_none_or(|volume| !volume.nocopy && volume.subpath.is_empty() && volume.labels.is_empty())
}

fn bind_text(source: &str, mount: &Mount) -> String {
    let mut text = format!("{source}:{}:{}", mount.target, if mount.read_only { "ro" } else { "rw" });
    for option in mount.bind.iter().flat_map(|bind| [&bind.selinux, &bind.propagation]).filter(|o| !o.is_empty()) {
        text.push(',');
        text.push_str(option);
    }
    text
}

fn bind_options(
    name: &ServiceName,
    bind: &BindOptions,
    spec_options: &SpecOptions,
) -> Result<MountBindOptions, SpecError> {
    let invalid =
        |key, value: &str| SpecError::InvalidValue { service: name.to_string(), key, value: value.to_owned() };
    let propagation = match bind.propagation.as_str() {
        "" => None,
        "private" => Some(Propagation::PRIVATE),
        "rprivate" => Some(Propagation::RPRIVATE),
        "shared" => Some(Propagation::SHARED),
        "rshared" => Some(Propagation::RSHARED),
        "slave" => Some(Propagation::SLAVE),
        "rslave" => Some(Propagation::RSLAVE),
        other => return Err(invalid("volumes.bind.propagation", other)),
    };
    let mut options = MountBindOptions {
        propagation,
        create_mountpoint: bind.create_host_path.then_some(true),
        ..MountBindOptions::default()
    };
    match bind.recursive.as_str() {
        _ if !spec_options.dialect.is_recent() => {}
        "disabled" => options.non_recursive = Some(true),
        "writable" => options.read_only_non_recursive = Some(true),
        "readonly" if !spec_options.at_least(44) => return Err(SpecError::RecursiveReadOnlyNeedsNewerEngine),
        "readonly" => options.read_only_force_recursive = Some(true),
        // Compose passes over any other word; the schema leaves only `enabled`.
        _ => {}
    }
    Ok(options)
}
