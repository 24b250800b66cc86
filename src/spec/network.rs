//! Networks: how a container joins them, and how they are created.

use bollard::models::{EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest};

use super::{Dialect, NetworkBody, Peers, SpecError, SpecOptions, hash, labels, list, map, text};
use crate::compose::project::{Project, Service, ServiceNetwork};
use crate::names::ServiceName;
use crate::request::ApiVersion;

/// Endpoint option that names the interface.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// How a container is connected.
pub(super) struct Networking {
    /// `HostConfig.NetworkMode`.
    pub(super) mode: String,
    /// Engine names and endpoints, the primary network first. Empty with `network_mode`.
    pub(super) endpoints: Vec<(String, EndpointSettings)>,
    /// `MacAddress` of the body.
    pub(super) mac_address: Option<String>,
}

/// Who joins: what the endpoints have in common.
pub(super) struct Joining<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) container_name: &'a str,
    /// Service name and configured aliases as well as the container's name.
    pub(super) service_aliases: bool,
    pub(super) links: &'a [String],
}

/// The body that creates a network; none for an external one.
///
/// # Errors
///
/// None that a loaded project can cause.
pub fn network_body(
    project: &Project,
    key: &str,
    api: ApiVersion,
    dialect: Dialect,
) -> Result<Option<NetworkBody>, SpecError> {
    let Some(network) = project.networks.get(key).filter(|network| !network.external) else { return Ok(None) };
    let hash = if dialect.labels_network_hash() { Some(hash::network(network)?) } else { None };
    let pools = network.ipam.config.iter().map(|pool| IpamConfig {
        subnet: text(&pool.subnet),
        ip_range: text(&pool.ip_range),
        gateway: text(&pool.gateway),
        auxiliary_addresses: map(&pool.aux_addresses),
    });
    let ipam = (!network.ipam.driver.is_empty() || !network.ipam.config.is_empty()).then(|| Ipam {
        driver: text(&network.ipam.driver),
        config: Some(pools.collect()),
        options: None,
    });
    let body = NetworkCreateRequest {
        name: network.name.clone(),
        driver: text(&network.driver),
        options: map(&network.driver_opts),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv4: network.enable_ipv4.filter(|_| dialect.is_recent()),
        enable_ipv6: network.enable_ipv6,
        ipam,
        labels: Some(labels::resource_labels(
            project,
            &network.labels,
            labels::NETWORK,
            key,
            dialect.to_string(),
            hash,
        )),
        ..NetworkCreateRequest::default()
    };
    // The newer Engine refuses duplicates by itself.
    let check_duplicate = (api < ApiVersion { major: 1, minor: 44 }).then_some(true);
    Ok(Some(NetworkBody { body, check_duplicate }))
}

/// The service's network keys, highest priority first, then by name.
pub(crate) fn by_priority(service: &Service) -> Vec<&str> {
    let mut keys: Vec<(i64, &str)> = service
        .networks
        .iter()
        .map(|(key, settings)| (settings.as_ref().map_or(0, |settings| settings.priority), key.as_str()))
        .collect();
    keys.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    keys.into_iter().map(|(_, key)| key).collect()
}

/// Links to containers of the project and outside it.
///
/// `number` is that of the container being created, -1 for a one-off: Compose puts it into the aliases of the *others*.
pub(super) fn links(project: &Project, service: &Service, number: i64, peers: &Peers) -> Vec<String> {
    let mut links = Vec::new();
    for link in &service.links {
        let (target, alias) = pair(link);
        for peer in peers.of_service(target) {
            links.push(format!("{}:{alias}", peer.name));
            links.push(format!("{}:{target}-{number}", peer.name));
            links.push(format!("{}:{}-{target}-{number}", peer.name, project.name));
        }
    }
    links.extend(service.external_links.iter().map(|link| {
        let (target, alias) = pair(link);
        format!("{target}:{alias}")
    }));
    links
}

/// `a:b` as it is, anything else as its first word twice.
fn pair(link: &str) -> (&str, &str) {
    let mut words = link.split(':');
    let target = words.next().unwrap_or_default();
    match (words.next(), words.next()) {
        (Some(alias), None) => (target, alias),
        _ => (target, target),
    }
}

/// Mode, endpoints and MAC address of a container.
pub(super) fn networking(
    project: &Project,
    service: &Service,
    joining: &Joining<'_>,
    options: &SpecOptions,
) -> Result<Networking, SpecError> {
    // A newer API takes the address with an endpoint only, and without one it is lost, with Compose too.
    let own_mac = text(&service.mac_address).filter(|_| !options.all_endpoints_at_create());
    if !service.network_mode.is_empty() {
        return Ok(Networking { mode: service.network_mode.clone(), endpoints: Vec::new(), mac_address: own_mac });
    }
    let keys = by_priority(service);
    let Some(primary) = keys.first() else {
        return Ok(Networking { mode: "none".to_owned(), endpoints: Vec::new(), mac_address: own_mac });
    };
    let mac_address = mac_address(service, primary, options)?;
    let mut endpoints = Vec::with_capacity(keys.len());
    for key in &keys {
        let network = project.networks.get(*key).ok_or_else(|| SpecError::Undefined {
            service: joining.name.to_string(),
            kind: "network",
            name: (*key).to_owned(),
        })?;
        let settings = service.networks.get(*key).and_then(Option::as_ref);
        endpoints.push((network.name.clone(), endpoint(settings, joining, options)?));
    }
    let in_body = options.all_endpoints_at_create();
    let takes_mac = options.dialect.is_recent() || service.networks.get(*primary).is_some_and(Option::is_some);
    if let (true, Some(mac), Some((_, endpoint))) = (in_body && takes_mac, &mac_address, endpoints.first_mut()) {
        endpoint.mac_address = Some(mac.clone());
    }
    let mode = endpoints.first().map(|(name, _)| name.clone()).unwrap_or_default();
    Ok(Networking { mode, endpoints, mac_address: mac_address.filter(|_| !in_body) })
}

/// The container's MAC address, from the service or its primary network.
fn mac_address(service: &Service, primary: &str, options: &SpecOptions) -> Result<Option<String>, SpecError> {
    let of_network = |settings: &Option<ServiceNetwork>| {
        settings.as_ref().map(|settings| settings.mac_address.clone()).filter(|mac| !mac.is_empty())
    };
    let of_primary = service.networks.get(primary).and_then(of_network);
    match (&of_primary, text(&service.mac_address)) {
        (Some(network), Some(own)) if *network != own => {
            Err(SpecError::MacAddressesDiffer { network: primary.to_owned() })
        }
        (_, own) if options.all_endpoints_at_create() => Ok(own),
        (of_primary, own) => {
            let with_mac = service.networks.iter().filter(|(_, settings)| of_network(settings).is_some());
            let with_mac: Vec<&str> = with_mac.map(|(key, _)| key.as_str()).collect();
            if with_mac.len() > 1 {
                Err(SpecError::SeveralNetworkMacs { networks: with_mac.join(", ") })
            } else if of_primary.is_some() {
                let ApiVersion { major, minor } = options.api;
                Err(SpecError::NetworkMacNeedsNewerEngine { api_major: major, api_minor: minor })
            } else {
                Ok(own)
            }
        }
    }
}

fn endpoint(
    settings: Option<&ServiceNetwork>,
    joining: &Joining<'_>,
    options: &SpecOptions,
) -> Result<EndpointSettings, SpecError> {
    let mut aliases = vec![joining.container_name.to_owned()];
    if joining.service_aliases {
        aliases.push(joining.name.to_string());
        aliases.extend(settings.iter().flat_map(|settings| settings.aliases.iter().cloned()));
    }
    let common = EndpointSettings { aliases: Some(aliases), links: list(joining.links), ..EndpointSettings::default() };
    let Some(settings) = settings else { return Ok(common) };
    let dialect = options.dialect;
    let mut driver_opts = if dialect.endpoint_driver_options() { settings.driver_opts.clone() } else { <_>::default() };
    if !settings.interface_name.is_empty() && dialect.endpoint_gateway_priority() {
        if !options.at_least(49) {
            return Err(SpecError::InterfaceNameNeedsNewerEngine);
        }
        driver_opts.insert(INTERFACE_NAME.to_owned(), settings.interface_name.clone());
    }
    Ok(EndpointSettings {
        // Present and empty where the file has settings but no address: inspect tells `{}` from null.
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: text(&settings.ipv4_address),
            ipv6_address: text(&settings.ipv6_address),
            link_local_ips: list(&settings.link_local_ips),
        }),
        ip_address: text(&settings.ipv4_address),
        // Compose itself puts the address into the gateway's field.
        ipv6_gateway: text(&settings.ipv6_address),
        mac_address: text(&settings.mac_address),
        driver_opts: map(&driver_opts),
        gw_priority: (settings.gw_priority != 0 && dialect.endpoint_gateway_priority()).then_some(settings.gw_priority),
        ..common
    })
}
