//! Checks that a project holds together: every reference has its target, and no two settings contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use super::error::{LoadError, LoadErrors};
use super::project::Service;
use crate::names::ServiceName;

/// The services of a project, by whether their profiles are active.
pub(super) struct Services<'a> {
    pub(super) enabled: BTreeMap<&'a ServiceName, &'a Service>,
    pub(super) disabled: BTreeMap<&'a ServiceName, &'a Service>,
}

struct Check<'a> {
    model: &'a Model,
    services: &'a Services<'a>,
    errors: &'a mut LoadErrors,
}

/// Reports everything that is inconsistent among the enabled services.
pub(super) fn consistency(model: &Model, services: &Services<'_>, errors: &mut LoadErrors) {
    let mut check = Check { model, services, errors };
    for (name, service) in &services.enabled {
        check.source(name, service);
        check.references(name, service);
        check.dependencies(name, service);
        check.build(name, service);
        check.limits(name, service);
        check.mounts(name, service);
    }
    check.secrets();
    check.cycles();
}

/// Reports services that are to be created together under one name.
pub(super) fn container_names(
    model: &Model,
    services: &Services<'_>,
    selected: &BTreeSet<ServiceName>,
    errors: &mut LoadErrors,
) {
    Check { model, services, errors }.container_names(selected);
}

/// Reports what a service refers to that is not there; for one that was enabled by its name only.
pub(super) fn references(model: &Model, services: &Services<'_>, name: &ServiceName, errors: &mut LoadErrors) {
    let Some(service) = services.enabled.get(name) else { return };
    let mut check = Check { model, services, errors };
    if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
        let message = format!("invalid service {:?}. Must specify either image or build", name.as_str());
        check.report(name, &[], message);
    }
    check.references(name, service);
    check.cycles();
}

/// The step of a path to a list's item.
fn item(index: usize) -> String {
    format!("[{index}]")
}

impl Check<'_> {
    /// Reports an error of a service, at the deepest of the given keys that is in a file.
    fn report(&mut self, name: &ServiceName, keys: &[&str], message: String) {
        let mut path = vec!["services", name.as_str()];
        path.extend(keys);
        let mut error = LoadError::new(message).of(path.join("."));
        if let Some(place) = self.model.place(&path) {
            error = error.at(place);
        }
        self.errors.push(error);
    }

    fn invalid(&mut self, name: &ServiceName, keys: &[&str], message: &str) {
        self.report(name, keys, format!("{message}: invalid compose project"));
    }

    fn source(&mut self, name: &ServiceName, service: &Service) {
        if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
            let message = format!("service {:?} has neither an image nor a build context specified", name.as_str());
            self.invalid(name, &[], &message);
        }
        if let Some(check) = &service.healthcheck
            && let Some(first) = check.test.first()
            && !matches!(first.as_str(), "CMD" | "CMD-SHELL" | "NONE")
        {
            let message = r#"healthcheck.test must start either by "CMD", "CMD-SHELL" or "NONE""#;
            self.report(name, &["healthcheck", "test"], message.to_owned());
        }
    }

    fn references(&mut self, name: &ServiceName, service: &Service) {
        let model = self.model;
        if !service.network_mode.is_empty() && !service.networks.is_empty() {
            let message = format!("service {name} declares mutually exclusive `network_mode` and `networks`");
            self.invalid(name, &["network_mode"], &message);
        }
        let named = |kind: &str, key: &str| format!("service {:?} refers to undefined {kind} {key}", name.as_str());
        for key in service.networks.keys().filter(|key| !model.decoded.networks.contains_key(*key)) {
            self.invalid(name, &["networks", key], &named("network", key));
        }
        for (index, mount) in service.volumes.iter().enumerate() {
            let key = &mount.source;
            if mount.kind == "volume" && !key.is_empty() && !model.decoded.volumes.contains_key(key) {
                self.invalid(name, &["volumes", &item(index)], &named("volume", key));
            }
        }
        for (index, reference) in service.configs.iter().enumerate() {
            if !model.decoded.configs.contains_key(&reference.source) {
                self.invalid(name, &["configs", &item(index)], &named("config", &reference.source));
            }
        }
        for (index, reference) in service.secrets.iter().enumerate() {
            if !model.decoded.secrets.contains_key(&reference.source) {
                self.invalid(name, &["secrets", &item(index)], &named("secret", &reference.source));
            }
        }
        for (index, reference) in service.build.iter().flat_map(|build| &build.secrets).enumerate() {
            if !model.decoded.secrets.contains_key(&reference.source) {
                self.invalid(name, &["build", "secrets", &item(index)], &named("build secret", &reference.source));
            }
        }
        for key in service.models.keys().filter(|key| !model.decoded.models.contains_key(*key)) {
            self.invalid(name, &["models", key], &named("model", key));
        }
    }

    fn dependencies(&mut self, name: &ServiceName, service: &Service) {
        for (target, dependency) in &service.depends_on {
            let known = self.services.enabled.contains_key(target)
                || (!dependency.required && self.services.disabled.contains_key(target));
            if !known {
                let message = format!("service {:?} depends on undefined service {:?}", name.as_str(), target.as_str());
                self.invalid(name, &["depends_on", target.as_str()], &message);
            }
        }
        if let Some(target) = service.network_mode.strip_prefix("service:")
            && !self.services.enabled.keys().any(|name| name.as_str() == target)
        {
            let message = format!("service {target:?} not found for network_mode 'service:{target}'");
            self.report(name, &["network_mode"], message);
        }
    }

    fn build(&mut self, name: &ServiceName, service: &Service) {
        let Some(build) = &service.build else { return };
        if !build.dockerfile_inline.is_empty() && !build.dockerfile.is_empty() {
            let message =
                format!("service {:?} declares mutually exclusive dockerfile and dockerfile_inline", name.as_str());
            self.invalid(name, &["build", "dockerfile_inline"], &message);
        }
        for (context, target) in &build.additional_contexts {
            let Some(target) = target.strip_prefix("service:") else { continue };
            let problem = match self.services.enabled.iter().find(|(name, _)| name.as_str() == target) {
                Some((_, service)) if service.build.is_some() => continue,
                Some(_) => "non-buildable",
                None => "unknown",
            };
            let message = format!(
                "service {:?} declares {problem} service {target:?} as additional contexts {context}",
                name.as_str()
            );
            self.report(name, &["build", "additional_contexts", context], message);
        }
        let platform = &service.platform;
        if !platform.is_empty() && !build.platforms.is_empty() && !build.platforms.contains(platform) {
            let message = format!("service.build.platforms MUST include service.platform {platform:?}");
            self.invalid(name, &["build", "platforms"], &message);
        }
    }

    fn limits(&mut self, name: &ServiceName, service: &Service) {
        let limits = service.deploy.as_ref().and_then(|deploy| deploy.resources.limits.as_ref());
        let reservations = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
        let replicas = service.deploy.as_ref().and_then(|deploy| deploy.replicas);
        let mut distinct = |differ: bool, key: &str, other: &str| {
            if differ {
                let message = format!("services.{name}: can't set distinct values on '{key}' and '{other}'");
                self.invalid(name, &[key], &message);
            }
        };
        distinct(
            matches!((service.scale, replicas), (Some(scale), Some(replicas)) if scale != replicas),
            "scale",
            "deploy.replicas",
        );
        #[allow(clippy::float_cmp, reason = "two settings of one value are the same bits")]
        let cpus = service.cpus.0 != 0.0 && limits.is_some_and(|limits| limits.cpus.0 != service.cpus.0);
        distinct(cpus, "cpus", "deploy.resources.limits.cpus");
        let memory = |value: super::value::ByteSize, other: Option<&super::project::Resource>| {
            value.0 != 0 && other.is_some_and(|other| other.memory != value)
        };
        distinct(memory(service.mem_limit, limits), "mem_limit", "deploy.resources.limits.memory");
        distinct(
            memory(service.mem_reservation, reservations),
            "mem_reservation",
            "deploy.resources.reservations.memory",
        );
        let pids = service.pids_limit != 0 && limits.is_some_and(|limits| limits.pids != service.pids_limit);
        distinct(pids, "pids_limit", "deploy.resources.limits.pids");
        let (count, attribute) = match (service.scale, replicas) {
            (Some(scale), _) => (scale, "scale"),
            (None, Some(replicas)) => (replicas, "deploy.replicas"),
            (None, None) => (1, "scale"),
        };
        if count < 0 {
            let message = format!("services.{name}.{attribute}: must be greater than or equal to 0");
            let keys: Vec<&str> = attribute.split('.').collect();
            self.report(name, &keys, message);
        }
        let container = &service.container_name;
        if count > 1 && !container.is_empty() {
            let message = format!(
                "services.{attribute}: can't set container_name and {container} as container name must be unique"
            );
            self.invalid(name, &["container_name"], &message);
        }
        for (index, watch) in service.develop.iter().flat_map(|develop| &develop.watch).enumerate() {
            if !matches!(watch.action.as_str(), "rebuild" | "restart") && watch.target.is_empty() {
                let message = format!("services.{name}.develop.watch: target is required for non-rebuild actions");
                self.invalid(name, &["develop", "watch", &item(index)], &message);
            }
        }
    }

    fn mounts(&mut self, name: &ServiceName, service: &Service) {
        let tmpfs = service.tmpfs.iter().map(|text| text.split(':').next().unwrap_or_default());
        let volumes = service.volumes.iter().map(|mount| mount.target.as_str());
        let tmpfs = tmpfs.enumerate().map(|(index, target)| (target, "tmpfs", item(index)));
        let volumes = volumes.enumerate().map(|(index, target)| (target, "volumes", item(index)));
        let mut targets: BTreeMap<&str, String> = BTreeMap::new();
        for (target, key, index) in tmpfs.chain(volumes) {
            let path = format!("services.{name}.{key}{index}");
            match targets.get(target) {
                Some(first) => {
                    let message = format!("{path}: target {target} already mounted as {first}");
                    self.report(name, &[key, &index], message);
                }
                None => {
                    targets.insert(target, path);
                }
            }
        }
    }

    fn secrets(&mut self) {
        let model = self.model;
        for (key, secret) in &model.decoded.secrets {
            if !secret.external && secret.file.is_empty() && secret.environment.is_empty() {
                let message =
                    format!("secret {key:?} must declare either `file` or `environment`: invalid compose project");
                let mut error = LoadError::new(message).of(format_args!("secrets.{key}"));
                if let Some(place) = model.place(&["secrets", key]) {
                    error = error.at(place);
                }
                self.errors.push(error);
            }
        }
    }

    fn container_names(&mut self, selected: &BTreeSet<ServiceName>) {
        let mut names: BTreeMap<&str, &ServiceName> = BTreeMap::new();
        let services = self.services;
        for (name, service) in &services.enabled {
            if service.container_name.is_empty() || !selected.contains(*name) {
                continue;
            }
            match names.get(service.container_name.as_str()) {
                Some(first) => {
                    let message = format!(
                        "services.{name}: container name {:?} is already in use by service {first}",
                        service.container_name
                    );
                    self.invalid(name, &["container_name"], &message);
                }
                None => {
                    names.insert(&service.container_name, name);
                }
            }
        }
    }

    /// Reports each cycle of dependencies once.
    fn cycles(&mut self) {
        let services = self.services;
        let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
        for start in services.enabled.keys().copied() {
            // A walk without recursion: chains may be long. Each step holds what is still to be looked at.
            let mut chain: Vec<(&ServiceName, Vec<&ServiceName>)> = Vec::new();
            let mut next = Some(start);
            loop {
                if let Some(name) = next.take()
                    && !done.contains(name)
                {
                    if let Some(at) = chain.iter().position(|(step, _)| *step == name) {
                        let steps = chain.iter().skip(at).map(|(step, _)| *step).chain([name]);
                        let shown: Vec<&str> = steps.map(ServiceName::as_str).collect();
                        let message = format!("dependency cycle detected: {}", shown.join(" -> "));
                        self.report(name, &["depends_on"], message);
                    } else {
                        let dependencies = services.enabled.get(name).map(|service| &service.depends_on);
                        let targets = dependencies.into_iter().flat_map(BTreeMap::keys).rev().collect();
                        chain.push((name, targets));
                    }
                }
                let Some((name, targets)) = chain.last_mut() else { break };
                next = targets.pop();
                if next.is_none() {
                    done.insert(name);
                    chain.pop();
                }
            }
        }
    }
}
