//! The create body of a service's container and of a one-off.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, NetworkingConfig};

use super::host::host_config;
use super::labels::{Identity, container_labels};
use super::network::{Joining, links, networking};
use super::{
    ConnectNetwork, ContainerBody, CreateContainer, Inherited, Slug, SpecError, SpecOptions, hash, list, mounts,
    resolve, service, text,
};
use crate::compose::project::{HealthCheck, Hook, NullableMap, Project, Service};
use crate::names::{ProjectName, RunId, ServiceName};
use crate::request::ExecCommand;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The container that a new one takes the place of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replacement {
    /// Full id of the old container.
    pub id: String,
    /// What the new container takes over; nothing where a dependency is recreated for a run.
    pub inherited: Option<Inherited>,
}

/// A run of a service: `docker compose run --rm -T SERVICE </dev/null`, but for `AutoRemove`.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOff {
    /// Its random name.
    pub slug: Slug,
    /// `-e`: over everything that the file says. Without a value it is taken from the project's environment, and where
    /// that lacks it the service's own value stays.
    pub environment: NullableMap,
}

/// The name of a service's container of that number.
#[must_use]
pub fn container_name(project: &Project, name: &ServiceName, service: &Service, number: u32) -> String {
    if service.container_name.is_empty() {
        format!("{}-{name}-{number}", project.name)
    } else {
        service.container_name.clone()
    }
}

/// The name that a container has while the one that it replaces still has the final one.
#[must_use]
pub fn temporary_name(replaced_id: &str, name: &str) -> String {
    let short: String = replaced_id.chars().take(12).collect();
    format!("{short}_{name}")
}

/// The container of that number of a service, as `docker compose up` creates it.
///
/// # Errors
///
/// What the service asks for and this Engine, or any without Compose's plugins, cannot give.
pub fn service_container(
    project: &Project,
    name: &ServiceName,
    number: u32,
    replaces: Option<&Replacement>,
    options: &SpecOptions,
) -> Result<CreateContainer, SpecError> {
    let service = resolved(project, name, options)?;
    let final_name = container_name(project, name, &service, number);
    let identity = Identity {
        config_hash: hash::service(&service, options.dialect)?,
        image_id: options.image_id.as_deref(),
        number: Some(number),
        slug: None,
        replaces: replaces.map(|_| {
            if service.container_name.is_empty() { format!("{name}-{number}") } else { service.container_name.clone() }
        }),
        version: options.dialect.to_string(),
    };
    let links = links(project, &service, i64::from(number), &options.peers);
    let joining = Joining { name, container_name: &final_name, service_aliases: true, links: &links };
    let inherited = replaces.and_then(|replaced| replaced.inherited.as_ref());
    let mut container = create(project, &service, identity, &joining, inherited, options)?;
    if let Some(replaced) = replaces {
        container.name = temporary_name(&replaced.id, &final_name);
    }
    Ok(container)
}

/// The name of a run's container.
#[must_use]
pub fn one_off_name(project: &ProjectName, service: &ServiceName, run_id: &RunId) -> String {
    format!("{project}-{service}-run-{run_id}")
}

/// The container of a run of a service, as `docker compose run --rm -T` creates it.
///
/// `AutoRemove` is left to the caller's own removal, so that the exit code cannot be lost with the container.
///
/// # Errors
///
/// As [`service_container`].
pub fn one_off(
    project: &Project,
    name: &ServiceName,
    run: &OneOff,
    options: &SpecOptions,
) -> Result<CreateContainer, SpecError> {
    let mut service = service(project, name)?.clone();
    service.container_name = one_off_name(&project.name, name, &run.slug.run_id());
    service.tty = false;
    service.stdin_open = true;
    service.ports.clear();
    service.restart.clear();
    if let Some(deploy) = &mut service.deploy {
        deploy.restart_policy = None;
    }
    for (key, value) in &run.environment {
        if let Some(value) = value.as_ref().or_else(|| project.environment.get(key)) {
            service.environment.insert(key.clone(), Some(value.clone()));
        }
    }
    complete(name, &mut service, options)?;

    let identity = Identity {
        config_hash: hash::service(&service, options.dialect)?,
        image_id: options.image_id.as_deref(),
        number: options.dialect.numbers_one_offs().then_some(1),
        slug: Some(run.slug.as_str()),
        replaces: None,
        version: options.dialect.to_string(),
    };
    let links = links(project, &service, -1, &options.peers);
    let joining = Joining { name, container_name: &service.container_name, service_aliases: false, links: &links };
    let mut container = create(project, &service, identity, &joining, None, options)?;
    container.body.body.attach_stdin = Some(true);
    container.body.body.stdin_once = Some(true);
    Ok(container)
}

/// The config hash that the service's containers have to carry to be up to date.
///
/// # Errors
///
/// A referenced service has no container, or a number is not finite.
pub fn service_hash(project: &Project, name: &ServiceName, options: &SpecOptions) -> Result<String, SpecError> {
    hash::service(&resolved(project, name, options)?, options.dialect)
}

/// `post_start` or `pre_stop` hooks as commands to run in the container.
#[must_use]
pub fn hook_commands(hooks: &[Hook]) -> Vec<ExecCommand> {
    hooks
        .iter()
        .map(|hook| ExecCommand {
            command: hook.command.clone().unwrap_or_default(),
            user: hook.user.clone(),
            privileged: hook.privileged,
            working_dir: hook.working_dir.clone(),
            environment: environment(&BTreeMap::new(), &hook.environment),
        })
        .collect()
}

fn resolved(project: &Project, name: &ServiceName, options: &SpecOptions) -> Result<Service, SpecError> {
    let mut service = service(project, name)?.clone();
    complete(name, &mut service, options)?;
    Ok(service)
}

fn complete(name: &ServiceName, service: &mut Service, options: &SpecOptions) -> Result<(), SpecError> {
    refuse_unsupported(name, service)?;
    resolve::references(service, &options.peers)?;
    resolve::api_socket(service);
    Ok(())
}

/// Keys that mean something at run time which only Compose's own plugins provide.
fn refuse_unsupported(name: &ServiceName, service: &Service) -> Result<(), SpecError> {
    let unsupported = |key, why| Err(SpecError::Unsupported { service: name.to_string(), key, why });
    if service.provider.is_some() {
        return unsupported("provider", "the service is run by a Compose plugin");
    }
    if !service.models.is_empty() {
        return unsupported("models", "models are served by Docker's model plugin");
    }
    Ok(())
}

fn create(
    project: &Project,
    service: &Service,
    identity: Identity<'_>,
    joining: &Joining<'_>,
    inherited: Option<&Inherited>,
    options: &SpecOptions,
) -> Result<CreateContainer, SpecError> {
    let name = joining.name;
    let mounts = mounts::mounts(project, name, service, inherited, options)?;
    let networking = networking(project, service, joining, options)?;
    let host = HostConfig {
        network_mode: Some(networking.mode),
        links: list(joining.links),
        ..host_config(project, name, service, mounts, options)?
    };

    let mut endpoints = networking.endpoints;
    let at_create = if options.all_endpoints_at_create() { endpoints.len() } else { endpoints.len().min(1) };
    let connect = endpoints
        .split_off(at_create)
        .into_iter()
        .map(|(network, endpoint)| ConnectNetwork { network, endpoint })
        .collect();
    let networking_config =
        (!endpoints.is_empty()).then(|| NetworkingConfig { endpoints_config: Some(endpoints.into_iter().collect()) });

    let body = ContainerCreateBody {
        hostname: text(&service.hostname),
        domainname: text(&service.domainname),
        user: text(&service.user),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: list(&exposed_ports(service, options)),
        tty: service.tty.then_some(true),
        open_stdin: service.stdin_open.then_some(true),
        env: list(&environment(&options.proxies, &service.environment)),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        healthcheck: service.healthcheck.as_ref().map(|check| health(check, options)).transpose()?,
        image: Some(resolve::image_name(project, name, service)),
        working_dir: text(&service.working_dir),
        network_disabled: (service.network_mode == "disabled").then_some(true),
        labels: Some(container_labels(project, name.as_str(), service, identity)),
        stop_signal: text(&service.stop_signal),
        stop_timeout: service.stop_grace_period.map(|grace| grace.0 / NANOS_PER_SECOND),
        host_config: Some(host),
        networking_config,
        ..ContainerCreateBody::default()
    };
    Ok(CreateContainer {
        name: joining.container_name.to_owned(),
        platform: resolve::platform(project, service).map(str::to_owned),
        body: ContainerBody { body, mac_address: networking.mac_address },
        connect,
    })
}

/// `K=V`, or `K` alone for a key without a value, by key; the service's own over the client's proxies.
fn environment(proxies: &BTreeMap<String, String>, own: &NullableMap) -> Vec<String> {
    let mut variables: BTreeMap<&str, Option<&str>> =
        proxies.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    variables.extend(own.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
    variables
        .into_iter()
        .map(|(key, value)| value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}")))
        .collect()
}

fn exposed_ports(service: &Service, options: &SpecOptions) -> Vec<String> {
    let mut ports: BTreeSet<String> =
        service.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol)).collect();
    for port in &service.expose {
        if options.dialect.parses_expose() {
            ports.extend(expanded(port));
        } else {
            ports.insert(port.clone());
        }
    }
    ports.into_iter().collect()
}

/// `80-82/udp` as its single ports, each with its protocol; anything unreadable as it is.
fn expanded(port: &str) -> Vec<String> {
    let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).map(|port| format!("{port}/{protocol}")).collect(),
        _ => vec![port.to_owned()],
    }
}

fn health(check: &HealthCheck, options: &SpecOptions) -> Result<HealthConfig, SpecError> {
    if check.start_interval.is_some() {
        if !options.all_endpoints_at_create() {
            return Err(SpecError::StartIntervalNeedsNewerEngine);
        }
        if check.start_period.is_none() && options.dialect.is_recent() {
            return Err(SpecError::StartIntervalNeedsStartPeriod);
        }
    }
    Ok(HealthConfig {
        test: if check.disable { Some(vec!["NONE".to_owned()]) } else { list(&check.test) },
        interval: check.interval.map(|time| time.0),
        timeout: check.timeout.map(|time| time.0),
        start_period: check.start_period.map(|time| time.0),
        start_interval: check.start_interval.map(|time| time.0),
        retries: check.retries.and_then(|retries| i64::try_from(retries).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::project::{Provider, ServiceModel};
    use crate::request::ApiVersion;
    use crate::spec::Dialect;

    fn refused(service: &Service) -> String {
        let name = "web".parse().unwrap();
        refuse_unsupported(&name, service).unwrap_err().to_string()
    }

    #[test]
    fn what_only_a_plugin_of_compose_provides_is_refused_by_name() {
        let provider = Service { provider: Some(Provider::default()), ..Service::default() };
        assert_eq!(
            refused(&provider),
            "service \"web\" uses `provider`, which is not supported: the service is run by a Compose plugin"
        );
        let models = [("llm".to_owned(), None::<ServiceModel>)].into();
        assert_eq!(
            refused(&Service { models, ..Service::default() }),
            "service \"web\" uses `models`, which is not supported: models are served by Docker's model plugin"
        );
    }

    #[test]
    fn ports_are_exposed_as_written_before_version_5_and_one_by_one_from_it_on() {
        let service = Service { expose: vec!["80".to_owned(), "90-92/udp".to_owned()], ..Service::default() };
        let ports = |dialect| exposed_ports(&service, &SpecOptions::new(ApiVersion { major: 1, minor: 51 }, dialect));
        assert_eq!(ports(Dialect::default()), ["80", "90-92/udp"]);
        assert_eq!(ports(Dialect::new(5, 0, 0)), ["80/tcp", "90/udp", "91/udp", "92/udp"]);
    }

    #[test]
    fn own_variables_win_over_proxies_and_stay_bare_without_a_value() {
        let proxies = [("http_proxy", "p"), ("NO_PROXY", "n")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let own = [("http_proxy".to_owned(), Some("mine".to_owned())), ("UNSET".to_owned(), None)];
        assert_eq!(environment(&proxies.into(), &own.into()), ["NO_PROXY=n", "UNSET", "http_proxy=mine"]);
    }
}
