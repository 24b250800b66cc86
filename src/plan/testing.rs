//! Projects and containers for the tables of plan text.

use crate::compose::project::{Ipam, Network, Project, Service};

/// Project `p` with these services on the default network.
pub(super) fn project<const N: usize>(services: [(&str, Service); N]) -> Project {
    let network = Network { name: "p_default".to_owned(), ipam: Ipam::default(), ..Network::default() };
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
        networks: [("default".to_owned(), network)].into(),
        volumes: <_>::default(),
        secrets: <_>::default(),
        configs: <_>::default(),
        warnings: Vec::new(),
    }
}
