//! What no single key shows: values that must fit each other, and the files and variables that they name.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::environment::{self, Environment, SettingsWarning};
use super::error::{self, Place, Problem, SettingsError, Source};
use super::file;
use super::merged::Merged;
use super::sections::{Docker, DockerHost, RawRedis, Services};
use super::{PRESETS, Raw, Settings, Variables, redis};
use crate::bus::redis::Address;
use crate::control::place::Places;
use crate::message::OwnNames;
use crate::names::ServiceName;
use crate::seeder::seed::Seeds;

/// What `redis.url` says where there is no Redis.
const NO_REDIS: &str = "none";

/// What the checks need, and where their errors go.
pub(super) struct Check<'a> {
    pub(super) merged: &'a Merged,
    pub(super) environment: &'a Environment,
    pub(super) faults: &'a mut Vec<SettingsError>,
}

impl Check<'_> {
    /// The settings of what was read; where a part of them is wrong, that is among the errors.
    pub(super) fn settings(&mut self, raw: Raw, warnings: Vec<SettingsWarning>) -> Settings {
        self.preset(&raw.preset);
        let mut compose = raw.compose;
        compose.environment = self.interpolated(&compose.environment_names);
        compose.home = self.environment.get("HOME").map(str::to_owned);
        compose.shell_directory = self.environment.get("PWD").map(Into::into);
        let mut control = raw.control;
        let variable = |name| self.environment.get(name);
        control.places =
            Places::new(control.socket.clone(), variable("RUNTIME_DIRECTORY"), variable("XDG_RUNTIME_DIR"));
        self.docker(&raw.docker);
        // Where one of the two was wrong, the default stands in its place and would be compared.
        let sound = !self.faults.iter().any(|fault| fault.key.starts_with("health."));
        if sound && raw.health.status_ttl <= raw.health.interval {
            self.wrong(&["health", "status_ttl"], "must be longer than health.interval");
        }
        self.schedule_keys(&raw.services);
        let redis_names = self.redis_names(raw.redis.key_prefix.as_deref());
        let redis = self.redis(raw.redis);
        let seed_variables = self.seed_variables(&raw.seeds, &raw.services);
        Settings {
            preset: raw.preset,
            log: raw.log,
            compose,
            daemon: raw.daemon,
            docker: raw.docker,
            redis,
            redis_names,
            control,
            scheduler: raw.scheduler,
            runs: raw.runs,
            state: raw.state,
            shutdown: raw.shutdown,
            health: raw.health,
            commands: raw.commands,
            services: raw.services,
            actions: raw.actions,
            reactions: raw.reactions,
            config_changes: raw.config_changes,
            seeds: raw.seeds,
            seed_variables,
            warnings,
        }
    }

    fn fault(&mut self, path: &[&str], problem: Problem) {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        self.faults.push(self.merged.fault(&path, problem));
    }

    fn wrong(&mut self, path: &[&str], reason: impl Into<String>) {
        self.fault(path, Problem::Invalid(reason.into()));
    }

    fn preset(&mut self, preset: &str) {
        let mut known: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        known.push("none");
        if !known.contains(&preset) {
            let near = error::nearest(preset, known.iter().copied());
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            self.wrong(&["preset"], format!("{preset:?} is none of {}{near}", known.join(", ")));
        }
    }

    fn interpolated(&mut self, names: &[String]) -> Variables {
        let mut values = BTreeMap::new();
        for name in names {
            match name.split_once('=') {
                Some(("", _)) => self.wrong(&["compose", "environment"], format!("{name:?} names no variable")),
                Some((name, value)) => drop(values.insert(name.to_owned(), value.to_owned())),
                None => {
                    if let Some(value) = self.environment.get(name) {
                        values.insert(name.clone(), value.to_owned());
                    } else if self.environment.is_empty(name) {
                        values.insert(name.clone(), String::new());
                    } else if self.environment.raw(name).is_some() {
                        self.wrong(&["compose", "environment"], format!("the variable {name} is not valid UTF-8"));
                    }
                }
            }
        }
        Variables(values)
    }

    fn docker(&mut self, docker: &Docker) {
        match (&docker.host, docker.tls_verify, &docker.cert_path) {
            (DockerHost::Tcp(_), true, None) => {
                self.wrong(&["docker", "tls_verify"], "needs docker.cert_path (DOCKER_CERT_PATH)");
            }
            (DockerHost::Tcp(_), true, Some(_)) if !cfg!(feature = "tls") => {
                self.wrong(&["docker", "tls_verify"], "this program was built without TLS");
            }
            _ => {}
        }
    }

    fn schedule_keys(&mut self, services: &Services) {
        let mut owners: BTreeMap<&str, &ServiceName> = BTreeMap::new();
        for (service, own) in services.iter().filter(|(_, own)| own.is_scheduled()) {
            let key = own.schedule_key.as_deref().unwrap_or(service.as_str());
            if let Some(other) = owners.insert(key, service) {
                let reason = format!("{key:?} is also the schedule key of {other}");
                self.wrong(&["services", service.as_str(), "schedule_key"], reason);
            }
        }
    }

    /// The names of what is ours on Redis. The prefix becomes part of channels and keys.
    fn redis_names(&mut self, prefix: Option<&str>) -> OwnNames {
        const LONGEST: usize = 64;
        let prefix = prefix.unwrap_or_default();
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "._:-".contains(letter);
        if prefix.len() > LONGEST || !prefix.chars().all(fits) {
            self.wrong(&["redis", "key_prefix"], "needs at most 64 ASCII letters, digits, '.', '_', ':' or '-'");
        }
        OwnNames::new(prefix)
    }

    /// How Redis is reached; none where there is none, or where that is wrong, which is then among the errors.
    fn redis(&mut self, raw: RawRedis) -> Option<Address> {
        let password = match (raw.password, raw.password_file) {
            (_, Some(file)) => self.secret(&["redis", "password_file"], &file).map(|text| ("password_file", text)),
            (password, None) => password.map(|password| ("password", password)),
        };
        let (key, url) = match (raw.url, raw.url_file) {
            (_, Some(file)) => ("url_file", self.secret(&["redis", "url_file"], &file)?),
            (Some(url), None) => ("url", url),
            (None, None) => {
                self.wrong(&["redis", "url"], "needs a value; write `none` where there is no Redis");
                return None;
            }
        };
        if url.expose_secret().trim() == NO_REDIS {
            let given = [
                ("username", raw.username.is_some()),
                (password.as_ref().map_or("password", |(key, _)| key), password.is_some()),
                ("database", raw.database.is_some()),
            ];
            for (own, _) in given.into_iter().filter(|(_, given)| *given) {
                self.wrong(&["redis", own], "is given, but redis.url is `none`: say where Redis is, or take this away");
            }
            return None;
        }
        let mut redis = match redis::parse(&url) {
            Ok(redis) => redis,
            Err(reason) => {
                self.wrong(&["redis", key], reason);
                return None;
            }
        };
        if redis.tls && !cfg!(feature = "tls") {
            self.wrong(&["redis", key], "this program was built without TLS");
        }
        let twice = [
            ("username", redis.username.is_some() && raw.username.is_some()),
            (password.as_ref().map_or("password", |(key, _)| key), redis.password.is_some() && password.is_some()),
            ("database", redis.database.is_some() && raw.database.is_some()),
        ];
        for (own, _) in twice.into_iter().filter(|(_, twice)| *twice) {
            self.fault(&["redis", own], Problem::Conflict { other: format!("the one in redis.{key}") });
        }
        redis.username = redis.username.or(raw.username);
        redis.password = redis.password.or(password.map(|(_, password)| password));
        redis.database = redis.database.or(raw.database);
        Some(redis)
    }

    /// The text of a secret's file, without the line break at its end.
    fn secret(&mut self, path: &[&str], holder: &Path) -> Option<SecretString> {
        match file::secret(holder) {
            Ok(secret) => Some(secret.into()),
            Err(reason) => {
                self.fault(path, Problem::Unreadable { file: holder.to_owned(), reason });
                None
            }
        }
    }

    fn seed_variables(&mut self, seeds: &Seeds, services: &Services) -> Variables {
        let mut values = BTreeMap::new();
        for (section, field, seed) in seeds.iter().flat_map(|(name, section)| {
            section.fields.iter().map(move |(field, seed)| (name.as_str(), field.as_str(), seed))
        }) {
            let path = ["seeds", section, "fields", field];
            let name = &seed.env;
            let by_file = format!("{name}_FILE");
            let environment = self.environment;
            match (environment.raw(name).cloned(), environment.raw(&by_file).cloned()) {
                (Some(_), Some(_)) => self.variable_fault(&by_file, &path, Problem::Conflict { other: name.clone() }),
                (Some(value), None) => match value.into_string() {
                    Ok(value) => drop(values.insert(name.clone(), value)),
                    Err(_) => self.variable_fault(name, &path, Problem::NotUtf8),
                },
                (None, Some(holder)) => match file::secret(Path::new(&holder)) {
                    Ok(value) => drop(values.insert(name.clone(), value)),
                    Err(reason) => {
                        self.variable_fault(&by_file, &path, Problem::Unreadable { file: holder.into(), reason });
                    }
                },
                (None, None) => {}
            }
        }
        // The schedule in Redis starts as the settings have it, wherever they had it from.
        for (service, own) in services.iter().filter(|(_, own)| own.is_scheduled()) {
            let name = environment::schedule_variable(own.schedule_key.as_deref().unwrap_or(service.as_str()));
            let seconds = own.every.interval().map_or(0, |interval| interval.as_duration().as_secs());
            values.insert(name, seconds.to_string());
        }
        Variables(values)
    }

    fn variable_fault(&mut self, variable: &str, path: &[&str], problem: Problem) {
        let place = Place { source: Source::Variable(variable.into()), line: None };
        self.faults.push(SettingsError { place, key: path.join("."), problem });
    }
}
