//! Narrows a model to the services that were asked for, and gives them their variables and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

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

/// What is selected of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    /// The services; none: all that are enabled.
    pub(super) services: &'a [ServiceName],
    /// A profile besides the active ones.
    pub(super) profile: Option<&'a str>,
    pub(super) env_files: EnvFiles,
}

/// Which sets of profiles were checked, so that no run checks the services of the others again.
///
/// A model never changes: what was found holds as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Checked(Mutex<BTreeMap<Vec<String>, Result<(), LoadErrors>>>);

impl Clone for Checked {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Checked {
    /// Whether the services hold together that these profiles enable.
    pub(super) fn holds_together(&self, model: &Model, profiles: &[String]) -> Result<(), LoadErrors> {
        let mut checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = checked.get(profiles) {
            return result.clone();
        }
        let mut errors = LoadErrors::default();
        check::consistency(model, &Services { all: &model.decoded.services, profiles }, &mut errors);
        let result = errors.into_result(());
        checked.insert(profiles.to_vec(), result.clone());
        result
    }
}

/// Narrows the model; the work is in proportion to what is selected, but for the first time with its profiles.
pub(super) fn select(
    model: &Model,
    opener: &Opener<'_>,
    Selection { services: names, profile, env_files }: Selection<'_>,
) -> Result<Project, LoadErrors> {
    let mut errors = LoadErrors::default();
    let mut profiles = model.profiles.clone();
    let is_active = |profile: &str| model.profiles.iter().any(|active| active == profile || active == "*");
    profiles.extend(profile.filter(|profile| !is_active(profile)).map(str::to_owned));
    model.checked.holds_together(model, &profiles)?;

    let by_profile = Services { all: &model.decoded.services, profiles: &profiles };
    let mut extended = profiles.clone();
    for name in names {
        if let Some(service) = by_profile.disabled(name.as_str()) {
            extended.extend(service.profiles.iter().cloned());
        }
    }
    let enabled = Services { all: &model.decoded.services, profiles: &extended };
    let selected = if names.is_empty() {
        enabled.enabled_ones().filter(|(_, service)| !service.is_job()).map(|(name, _)| name.clone()).collect()
    } else {
        closure(&enabled, names).map_err(LoadErrors::from)?
    };
    for name in &selected {
        if by_profile.enabled(name.as_str()).is_none() {
            check::references(model, &enabled, name, &mut errors);
        }
    }
    if env_files == EnvFiles::Read {
        check::container_names(model, &enabled, &selected, &mut errors);
    }
    errors = errors.into_result(LoadErrors::default())?;

    let mut warnings = model.warnings.clone();
    let mut services = BTreeMap::new();
    for (name, service) in selected.iter().filter_map(|name| model.decoded.services.get_key_value(name)) {
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
        services.insert(name.clone(), service);
    }
    // A run of some services does not look at the others.
    let others = env_files == EnvFiles::Ignore || names.is_empty();
    let unselected = model.decoded.services.iter().filter(|(name, _)| others && !selected.contains(*name));
    let disabled = unselected.map(|(name, service)| (name.clone(), service.clone())).collect();
    let used = Used::by(&services);
    let decoded = &model.decoded;
    let mut project = Project {
        name: model.name.clone(),
        working_dir: model.working_dir.clone(),
        config_files: model.config_files.clone(),
        env_files: model.env_files.clone(),
        environment: model.environment.clone(),
        networks: kept(&decoded.networks, &used.networks),
        volumes: kept(&decoded.volumes, &used.volumes),
        secrets: kept(&decoded.secrets, &used.secrets),
        configs: kept(&decoded.configs, &used.configs),
        models: kept(&decoded.models, &used.models),
        extensions: decoded.extensions.clone(),
        services,
        disabled,
        warnings,
    };
    translate(&mut project, &model.host_paths);
    errors.into_result(project)
}

/// Whether the label files of the enabled services can be read; env files are read by runs only.
pub(super) fn label_files(model: &Model, opener: &Opener<'_>, profiles: &[String]) -> Result<(), LoadErrors> {
    let (mut warnings, mut errors) = (Vec::new(), LoadErrors::default());
    let services = Services { all: &model.decoded.services, profiles };
    for (name, service) in services.enabled_ones().filter(|(_, service)| !service.label_file.is_empty()) {
        let mut reader = FileReader { model, opener, name, warnings: &mut warnings, errors: &mut errors };
        reader.labels(&mut Service { label_file: service.label_file.clone(), ..Service::default() });
    }
    errors.into_result(())
}

/// The named services and everything that they depend on.
fn closure(services: &Services<'_>, names: &[ServiceName]) -> Result<BTreeSet<ServiceName>, LoadError> {
    let mut selected = BTreeSet::new();
    let mut open: Vec<(&ServiceName, bool)> = names.iter().map(|name| (name, true)).collect();
    while let Some((name, required)) = open.pop() {
        match services.enabled(name.as_str()) {
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
        let element = self.model.decoded.services.get(self.name).map_or("services", Service::element);
        let path = [element, self.name.as_str(), key];
        if error.place.is_none()
            && let Some(place) = self.model.place(&path)
        {
            error = error.at(&place);
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
        let budget = self.opener.budget();
        let taken = match format {
            "" => self.opener.add_variables(values, file, lookup, self.warnings)?,
            "raw" => {
                let text = self.opener.text(file).map_err(LoadError::new)?;
                let most = budget.left().saturating_sub(text.len());
                dotenv::parse_raw_onto(values, &text, lookup, most)
                    .map_err(|error| self.opener.in_env_file(file, error))?
            }
            other => return Err(LoadError::new(format!("unsupported env_file format {other:?}"))),
        };
        // It fits: the reader was told what is left.
        let _ = budget.take(taken);
        Ok(())
    }
}

/// The keys of the resources that services use.
struct Used<'a> {
    networks: BTreeSet<&'a str>,
    volumes: BTreeSet<&'a str>,
    configs: BTreeSet<&'a str>,
    secrets: BTreeSet<&'a str>,
    models: BTreeSet<&'a str>,
}

impl<'a> Used<'a> {
    fn by(services: &'a BTreeMap<ServiceName, Service>) -> Self {
        let services = || services.values();
        let build_secrets = |service: &'a Service| service.build.iter().flat_map(|build| &build.secrets);
        let volumes = services().flat_map(|service| &service.volumes).filter(|mount| mount.kind == "volume");
        Self {
            networks: services().flat_map(|service| service.networks.keys().map(String::as_str)).collect(),
            volumes: volumes.map(|mount| mount.source.as_str()).collect(),
            configs: services().flat_map(|service| &service.configs).map(|config| config.source.as_str()).collect(),
            secrets: services()
                .flat_map(|service| service.secrets.iter().chain(build_secrets(service)))
                .map(|secret| secret.source.as_str())
                .collect(),
            models: services().flat_map(|service| service.models.keys().map(String::as_str)).collect(),
        }
    }
}

/// Copies of the resources that are used.
fn kept<T: Clone>(all: &BTreeMap<String, T>, used: &BTreeSet<&str>) -> BTreeMap<String, T> {
    used.iter().filter_map(|key| all.get_key_value(*key)).map(|(key, value)| (key.clone(), value.clone())).collect()
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
