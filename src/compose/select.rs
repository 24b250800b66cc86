//! Narrows a model to the services that were asked for, and gives them their variables and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::check::{self, Services};
use super::dotenv;
use super::error::{LoadError, LoadErrors};
use super::files::Opener;
use super::project::{EnvFile, Project, Service};
use super::{FileKind, Model};
use crate::names::ServiceName;

/// Whether env files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvFiles {
    Read,
    Ignore,
}

pub(super) fn select(
    model: &Model,
    opener: &Opener<'_>,
    names: &[ServiceName],
    env_files: EnvFiles,
) -> Result<Project, LoadErrors> {
    let mut errors = LoadErrors::default();
    let by_profile = split(model, &model.profiles);
    check::consistency(model, &by_profile, &mut errors);
    errors = errors.into_result(LoadErrors::default())?;

    let mut profiles = model.profiles.clone();
    for name in names {
        if let Some(service) = by_profile.disabled.get(name) {
            profiles.extend(service.profiles.iter().cloned());
        }
    }
    let enabled = split(model, &profiles);
    let selected = if names.is_empty() {
        enabled.enabled.keys().map(|name| (*name).clone()).collect()
    } else {
        closure(&enabled, names).map_err(LoadErrors::from)?
    };
    for name in &selected {
        if !by_profile.enabled.contains_key(name) {
            check::references(model, &enabled, name, &mut errors);
        }
    }
    if env_files == EnvFiles::Read {
        check::container_names(model, &enabled, &selected, &mut errors);
    }
    errors = errors.into_result(LoadErrors::default())?;

    let mut warnings = model.warnings.clone();
    let mut project = Project {
        name: model.name.clone(),
        working_dir: model.working_dir.clone(),
        config_files: model.config_files.clone(),
        env_files: model.env_files.clone(),
        environment: model.environment.clone(),
        services: BTreeMap::new(),
        disabled: BTreeMap::new(),
        networks: model.decoded.networks.clone(),
        volumes: model.decoded.volumes.clone(),
        secrets: model.decoded.secrets.clone(),
        configs: model.decoded.configs.clone(),
        models: model.decoded.models.clone(),
        extensions: model.decoded.extensions.clone(),
        warnings: Vec::new(),
    };
    for (name, service) in &model.decoded.services {
        if !selected.contains(name) {
            project.disabled.insert(name.clone(), service.clone());
            continue;
        }
        let mut service = service.clone();
        if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
            deploy.replicas = Some(scale);
        }
        if !names.is_empty() {
            service.depends_on.retain(|name, _| selected.contains(name));
        }
        let mut reader = FileReader { model, opener, name, warnings: &mut warnings, errors: &mut errors };
        reader.labels(&mut service);
        if env_files == EnvFiles::Read {
            reader.environment(&mut service);
        }
        project.services.insert(name.clone(), service);
    }
    keep_used(&mut project);
    translate(&mut project, &model.host_paths);
    project.warnings = warnings;
    errors.into_result(project)
}

/// Which services are enabled by these profiles.
pub(super) fn split<'a>(model: &'a Model, profiles: &[String]) -> Services<'a> {
    let all = profiles.iter().any(|profile| profile == "*");
    let is_enabled = |service: &Service| {
        all || service.profiles.is_empty() || service.profiles.iter().any(|profile| profiles.contains(profile))
    };
    let (enabled, disabled) = model.decoded.services.iter().partition(|(_, service)| is_enabled(service));
    Services { enabled, disabled }
}

/// The named services and everything that they depend on.
fn closure(services: &Services<'_>, names: &[ServiceName]) -> Result<BTreeSet<ServiceName>, LoadError> {
    let mut selected = BTreeSet::new();
    let mut open: Vec<(&ServiceName, bool)> = names.iter().map(|name| (name, true)).collect();
    while let Some((name, required)) = open.pop() {
        match services.enabled.get(name) {
            Some(service) if selected.insert(name.clone()) => {
                let dependencies = service.depends_on.iter();
                open.extend(dependencies.map(|(name, dependency)| (name, dependency.required)));
            }
            None if required => {
                return Err(LoadError::new(format!("no such service: {name}")).of(format_args!("services.{name}")));
            }
            Some(_) | None => {}
        }
    }
    Ok(selected)
}

/// Reads the env and label files of one service.
struct FileReader<'a> {
    model: &'a Model,
    opener: &'a Opener<'a>,
    name: &'a ServiceName,
    warnings: &'a mut Vec<String>,
    errors: &'a mut LoadErrors,
}

impl FileReader<'_> {
    fn report(&mut self, key: &str, mut error: LoadError) {
        let path = ["services", self.name.as_str(), key];
        if error.place.is_none()
            && let Some(place) = self.model.place(&path)
        {
            error = error.at(place);
        }
        self.errors.push(error.of(path.join(".")));
    }

    fn labels(&mut self, service: &mut Service) {
        if service.label_file.is_empty() {
            return;
        }
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for file in &service.label_file {
            let known = labels.clone();
            match self.opener.kind(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.report("label_file", LoadError::new(format!("label file {file} not found")));
                    continue;
                }
                _ => {}
            }
            let mut read = BTreeMap::new();
            match self.read(&mut read, file, "", &|name| known.get(name).cloned()) {
                Ok(()) => labels.extend(read),
                Err(error) => self.report("label_file", error),
            }
        }
        labels.append(&mut service.labels);
        service.labels = labels;
    }

    fn environment(&mut self, service: &mut Service) {
        let outside = &self.model.environment;
        for (name, value) in &mut service.environment {
            if value.is_none() {
                *value = outside.get(name).cloned();
            }
        }
        let own = std::mem::take(&mut service.environment);
        let mut variables: BTreeMap<String, String> =
            own.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        let lookup = |name: &str| outside.get(name).cloned().or_else(|| own.get(name).cloned().flatten());
        for EnvFile { path, required, format } in std::mem::take(&mut service.env_file) {
            if path != "/dev/null"
                && let Err(error) = self.opener.kind(&path)
                && error.kind() == io::ErrorKind::NotFound
            {
                if required {
                    self.report("env_file", LoadError::new(format!("env file {path} not found")));
                }
                continue;
            }
            if let Err(error) = self.read(&mut variables, &path, &format, &lookup) {
                self.report("env_file", error);
            }
        }
        service.environment = variables.into_iter().map(|(name, value)| (name, Some(value))).collect();
        service.environment.extend(own);
    }

    /// Adds what a file says to `values`.
    fn read(
        &mut self,
        values: &mut BTreeMap<String, String>,
        file: &str,
        format: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), LoadError> {
        if matches!(self.opener.kind(file), Ok(FileKind::Directory)) {
            return Err(LoadError::new(format!("{file} is a directory")));
        }
        match format {
            "" => self.opener.add_variables(values, file, lookup, self.warnings),
            "raw" => {
                let text = self.opener.text(file).map_err(LoadError::new)?;
                let read = dotenv::parse_raw(&text, lookup).map_err(|error| self.opener.in_env_file(file, error))?;
                values.extend(read);
                Ok(())
            }
            other => Err(LoadError::new(format!("unsupported env_file format {other:?}"))),
        }
    }
}

/// Drops the resources that no selected service uses.
fn keep_used(project: &mut Project) {
    let services = || project.services.values();
    let networks: BTreeSet<&str> = services().flat_map(|service| service.networks.keys().map(String::as_str)).collect();
    let volumes: BTreeSet<&str> =
        services().flat_map(|service| service.volumes.iter().map(|mount| mount.source.as_str())).collect();
    let configs: BTreeSet<&str> =
        services().flat_map(|service| service.configs.iter().map(|config| config.source.as_str())).collect();
    let secrets: BTreeSet<&str> = services()
        .flat_map(|service| service.secrets.iter().chain(service.build.iter().flat_map(|build| &build.secrets)))
        .map(|secret| secret.source.as_str())
        .collect();
    let models: BTreeSet<&str> = services().flat_map(|service| service.models.keys().map(String::as_str)).collect();
    project.networks.retain(|key, _| networks.contains(key.as_str()));
    project.volumes.retain(|key, _| volumes.contains(key.as_str()));
    project.configs.retain(|key, _| configs.contains(key.as_str()));
    project.secrets.retain(|key, _| secrets.contains(key.as_str()));
    project.models.retain(|key, _| models.contains(key.as_str()));
}

/// Rewrites what the Engine opens, and what labels say, to the host's paths.
fn translate(project: &mut Project, host_paths: &[(PathBuf, PathBuf)]) {
    if host_paths.is_empty() {
        return;
    }
    let to_host = |path: &mut String| {
        for (client, host) in host_paths {
            if let Ok(rest) = std::path::Path::new(path.as_str()).strip_prefix(client) {
                // Joining an empty rest would end the path with a slash.
                let joined = if rest.as_os_str().is_empty() { host.clone() } else { host.join(rest) };
                *path = joined.to_string_lossy().into_owned();
                return;
            }
        }
    };
    to_host(&mut project.working_dir);
    project.config_files.iter_mut().chain(&mut project.env_files).for_each(to_host);
    for service in project.services.values_mut().chain(project.disabled.values_mut()) {
        let binds = service.volumes.iter_mut().filter(|mount| mount.kind == "bind");
        binds.for_each(|mount| to_host(&mut mount.source));
        service.label_file.iter_mut().for_each(to_host);
        service.env_file.iter_mut().for_each(|file| to_host(&mut file.path));
        let watches = service.develop.iter_mut().flat_map(|develop| &mut develop.watch);
        watches.for_each(|watch| to_host(&mut watch.path));
    }
    for object in project.secrets.values_mut().chain(project.configs.values_mut()) {
        to_host(&mut object.file);
    }
    for volume in project.volumes.values_mut() {
        if volume.driver == "local"
            && volume.driver_opts.get("o").is_some_and(|options| options == "bind")
            && let Some(device) = volume.driver_opts.get_mut("device")
        {
            to_host(device);
        }
    }
}
