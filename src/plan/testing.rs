//! Projects and containers for the tables of plan text.

use bollard::models::MountPoint;

use super::{Container, Stack, State};
use crate::compose::project::{Condition, Dependency, Ipam, Network, Project, Service};
use crate::names::ServiceName;
use crate::request::ApiVersion;
use crate::spec::{Dialect, SpecOptions, service_hash};

pub(super) const API_1_41: ApiVersion = ApiVersion { major: 1, minor: 41 };

/// Project `p` with these services on the default network.
pub(super) fn project<const N: usize>(services: [(&str, Service); N]) -> Project {
    let services = services
        .into_iter()
        .map(|(name, mut service)| {
            if service.networks.is_empty() && service.network_mode.is_empty() {
                service.networks.insert("default".to_owned(), None);
            }
            (name.parse().unwrap(), service)
        })
        .collect();
    Project {
        name: "p".parse().unwrap(),
        working_dir: "/srv/p".to_owned(),
        config_files: vec!["/srv/p/compose.yaml".to_owned()],
        env_files: Vec::new(),
        environment: <_>::default(),
        services,
        disabled: <_>::default(),
        networks: [("default".to_owned(), network("p_default"))].into(),
        volumes: <_>::default(),
        secrets: <_>::default(),
        configs: <_>::default(),
        models: <_>::default(),
        extensions: <_>::default(),
        warnings: Vec::new(),
    }
}

pub(super) fn network(name: &str) -> Network {
    Network { name: name.to_owned(), ipam: Ipam::default(), ..Network::default() }
}

pub(super) fn busybox() -> Service {
    Service { image: "busybox".to_owned(), ..Service::default() }
}

/// A service that depends on others.
pub(super) fn dependent<const N: usize>(on: [(&str, Condition); N]) -> Service {
    let dependency = |(name, condition): (&str, Condition)| {
        (name.parse().unwrap(), Dependency { condition, restart: false, required: true })
    };
    Service { depends_on: on.into_iter().map(dependency).collect(), ..busybox() }
}

pub(super) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// Options for an old Engine, with a local image.
pub(super) fn options(stack: &Stack) -> SpecOptions {
    let mut options = SpecOptions::new(API_1_41, Dialect::default());
    options.image_id = Some("sha256:1".to_owned());
    options.peers = stack.peers();
    options
}

/// A container that is what the project says, running on the default network.
pub(super) fn up_to_date(project: &Project, service: &str, number: u32) -> Container {
    let options = options(&Stack::default());
    Container {
        id: format!("{number:012x}{}", "f".repeat(52)),
        name: format!("p-{service}-{number}"),
        service: service.to_owned(),
        number: Some(number),
        one_off: false,
        state: State::Running,
        config_hash: service_hash(project, &name(service), &options).unwrap_or_default(),
        image: "sha256:1".to_owned(),
        slug: None,
        networks: vec!["id-default".to_owned()],
        mounts: Vec::new(),
    }
}

/// These containers on a default network that exists.
pub(super) fn stack<const N: usize>(containers: [Container; N]) -> Stack {
    Stack { containers: containers.into(), networks: [("default".to_owned(), "id-default".to_owned())].into() }
}

pub(super) fn volume_mount(name: &str, target: &str) -> MountPoint {
    MountPoint {
        typ: Some("volume".to_owned()),
        name: Some(name.to_owned()),
        source: Some(format!("/var/lib/docker/volumes/{name}/_data")),
        destination: Some(target.to_owned()),
        rw: Some(true),
        ..MountPoint::default()
    }
}
