//! Checks that a project holds together: every reference has its target, and no two settings contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use super::decode::EXTENSIONS;
use super::error::{LoadError, LoadErrors};
use super::project::Service;
use crate::names::ServiceName;

/// The services of a project, and the profiles that are active.
#[derive(Clone, Copy)]
pub(super) struct Services<'a> {
    pub(super) all: &'a BTreeMap<ServiceName, Service>,
    pub(super) profiles: &'a [String],
}

impl<'a> Services<'a> {
    fn is_enabled(&self, service: &Service) -> bool {
        let is_active = |name: &String| self.profiles.contains(name);
        service.profiles.is_empty()
            || self.profiles.iter().any(|profile| profile == "*")
            || service.profiles.iter().any(is_active)
    }

    /// The service of a name, if it is enabled.
    pub(super) fn enabled(&self, name: &str) -> Option<&'a Service> {
        self.all.get(name).filter(|service| self.is_enabled(service))
    }

    /// The service of a name, if it is there and not enabled.
    pub(super) fn disabled(&self, name: &str) -> Option<&'a Service> {
        self.all.get(name).filter(|service| !self.is_enabled(service))
    }

    /// All enabled services.
    pub(super) fn enabled_ones(self) -> impl Iterator<Item = (&'a ServiceName, &'a Service)> {
        self.all.iter().filter(move |(_, service)| self.is_enabled(service))
    }
}

struct Check<'a> {
    model: &'a Model,
    services: Services<'a>,
    errors: &'a mut LoadErrors,
}

/// Reports everything that is inconsistent among the enabled services.
pub(super) fn consistency(model: &Model, services: &Services<'_>, errors: &mut LoadErrors) {
    let mut check = Check { model, services: *services, errors };
    for (name, service) in services.enabled_ones() {
        check.source(name, service);
        check.references(name, service);
        check.dependencies(name, service);
        check.build(name, service);
        check.limits(name, service);
        check.mounts(name, service);
    }
    check.secrets();
    check.cycles(services.enabled_ones().map(|(name, _)| name));
}

/// Reports containers of one name among the services that are kept; what else there is may have it, too.
pub(super) fn container_names(
    model: &Model,
    services: &Services<'_>,
    kept: &BTreeSet<ServiceName>,
    errors: &mut LoadErrors,
) {
    Check { model, services: *services, errors }.container_names(kept);
}

/// Reports what a service refers to that is not there; for one that was enabled by its name only.
pub(super) fn references(model: &Model, services: &Services<'_>, name: &ServiceName, errors: &mut LoadErrors) {
    let Some(service) = services.enabled(name.as_str()) else { return };
    let mut check = Check { model, services: *services, errors };
    if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
        let message = format!("invalid service {:?}. Must specify either image or build", name.as_str());
        check.report(name, &[], message);
    }
    check.references(name, service);
    check.cycles([name]);
}

/// The step of a path to a list's item.
fn item(index: usize) -> String {
    format!("[{index}]")
}

impl Check<'_> {
    /// Reports an error of a service, at the deepest of the given keys that is in a file.
    fn report(&mut self, name: &ServiceName, keys: &[&str], message: String) {
        let element = self.services.all.get(name).map_or("services", Service::element);
        let mut path = vec![element, name.as_str()];
        path.extend(keys);
        let mut error = LoadError::new(message).of(path.join("."));
        if let Some(place) = self.model.place(&path) {
            error = error.at(&place);
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
            let message = if key == EXTENSIONS {
                let start = "a network whose name starts with \"x-\", which makes an extension of it";
                format!("service {:?} refers to {start}", name.as_str())
            } else {
                named("network", key)
            };
            self.invalid(name, &["networks", key], &message);
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
        let models = service.models.keys().filter(|key| *key != EXTENSIONS);
        for key in models.filter(|key| !model.decoded.models.contains_key(*key)) {
            self.invalid(name, &["models", key], &named("model", key));
        }
    }

    fn dependencies(&mut self, name: &ServiceName, service: &Service) {
        for (target, dependency) in &service.depends_on {
            let known = self.services.enabled(target.as_str()).is_some()
                || (!dependency.required && self.services.disabled(target.as_str()).is_some());
            if !service.is_job() && self.services.enabled(target.as_str()).is_some_and(Service::is_job) {
                let message =
                    format!("service {:?} depends on job {:?}: only a job can", name.as_str(), target.as_str());
                self.invalid(name, &["depends_on", target.as_str()], &message);
            }
            if !known {
                let message = format!("service {:?} depends on undefined service {:?}", name.as_str(), target.as_str());
                self.invalid(name, &["depends_on", target.as_str()], &message);
            }
        }
        if let Some(target) = service.network_mode.strip_prefix("service:")
            && self.services.enabled(target).is_none()
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
            let problem = match self.services.enabled(target) {
                Some(service) if service.build.is_some() => continue,
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
                    error = error.at(&place);
                }
                self.errors.push(error);
            }
        }
    }

    fn container_names(&mut self, kept: &BTreeSet<ServiceName>) {
        let mut names: BTreeMap<&str, &ServiceName> = BTreeMap::new();
        let services = self.services;
        for name in kept {
            let Some(service) = services.enabled(name.as_str()) else { continue };
            if service.container_name.is_empty() {
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

    /// Reports each cycle of dependencies once, of those that some services lead to.
    fn cycles<'n>(&mut self, starts: impl IntoIterator<Item = &'n ServiceName>)
    where
        Self: 'n,
    {
        let services = self.services;
        let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
        for start in starts {
            // A walk without recursion: chains may be long. Each step holds what is still to be looked at.
            let mut chain: Vec<(&ServiceName, Vec<&ServiceName>)> = Vec::new();
            let mut open: BTreeSet<&ServiceName> = BTreeSet::new();
            let mut next = services.all.get_key_value(start).map(|(name, _)| name);
            loop {
                if let Some(name) = next.take()
                    && !done.contains(name)
                {
                    if open.contains(name) {
                        let steps = chain.iter().map(|(step, _)| *step).skip_while(|step| *step != name).chain([name]);
                        let shown: Vec<&str> = steps.map(ServiceName::as_str).collect();
                        let message = format!("dependency cycle detected: {}", shown.join(" -> "));
                        self.report(name, &["depends_on"], message);
                    } else {
                        let dependencies = services.enabled(name.as_str()).map(|service| &service.depends_on);
                        let targets = dependencies.into_iter().flat_map(BTreeMap::keys).rev().collect();
                        open.insert(name);
                        chain.push((name, targets));
                    }
                }
                let Some((name, targets)) = chain.last_mut() else { break };
                next = targets.pop();
                if next.is_none() {
                    done.insert(name);
                    open.remove(name);
                    chain.pop();
                }
            }
        }
    }
}
