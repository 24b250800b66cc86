//! The settings: compiled-in defaults, a preset, a file, the environment and the command line, each over those before.
//!
//! Everything that is wrong is reported at once, each fault with the file and line, variable or option that said it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::{Dict, Value};
use serde::Deserialize;

use crate::action::{Actions, ConfigChanges, Reactions};
use crate::bus::redis::Address;
use crate::message::OwnNames;
use crate::names::{ServiceName, SourceId};
use crate::schedule::{Interval, Intervals};
use crate::seeder::seed::Seeds;

mod check;
mod environment;
mod error;
mod file;
mod layers;
mod merged;
mod origins;
mod places;
mod redis;
mod scalar;
mod sections;

pub use environment::{Environment, SettingsWarning};
pub(crate) use error::nearest;
pub use error::{Place, Problem, SettingsError, SettingsErrors, Source};
pub use origins::Origins;
pub use scalar::Variables;
pub use sections::{
    Color, Commands, Compose, Control, Daemon, Docker, DockerHost, Every, FirstRun, Health, KeepOutput, Log, LogFilter,
    LogFormat, Runs, Scheduler, Service, Services, Shutdown, Standby, StateDirectory,
};

use check::Check;
use layers::Layer;
use merged::Merged;
use sections::RawRedis;

/// The compiled-in defaults: every setting, commented.
pub const DEFAULTS: &str = include_str!("../config/default.yaml");

/// The compiled-in presets, by name.
const PRESETS: [(&str, &str); 1] = [("sense-pulse", include_str!("../config/sense-pulse.yaml"))];

/// A secret and the file that may hold it in its place; one source says one of the two.
const EITHER: [[&str; 3]; 2] = [["redis", "url", "url_file"], ["redis", "password", "password_file"]];

/// Where the settings come from, besides what is compiled in.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The user's file; none: the one that `ORCHESTRATOR_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// The process environment.
    pub environment: Environment,
    /// What the command line says.
    pub arguments: Vec<Argument>,
}

/// A setting on the command line.
#[derive(Debug, Clone)]
pub struct Argument {
    /// The option, such as `--profile`.
    pub option: &'static str,
    /// Path of the key that it sets, its levels joined by dots.
    pub key: &'static str,
    /// The values; more than one for a list.
    pub values: Vec<String>,
}

/// The settings of the daemon, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The preset that they build on.
    pub preset: String,
    /// What is logged, and how.
    pub log: Log,
    /// Where the Compose project is and how it is read.
    pub compose: Compose,
    /// The daemon itself.
    pub daemon: Daemon,
    /// How the Engine is reached.
    pub docker: Docker,
    /// How Redis is reached; none: there is none, and nothing is missing.
    pub redis: Option<Address>,
    /// What is ours on Redis is called.
    pub redis_names: OwnNames,
    /// Where the running daemon is asked.
    pub control: Control,
    /// How scheduled runs are started.
    pub scheduler: Scheduler,
    /// What holds for every run.
    pub runs: Runs,
    /// Where the daemon keeps what it remembers.
    pub state: StateDirectory,
    /// How the daemon ends.
    pub shutdown: Shutdown,
    /// How services are watched.
    pub health: Health,
    /// What may be commanded.
    pub commands: Commands,
    /// What is known of services beyond their Compose file; [`Settings::service`] has it with the defaults.
    pub services: Services,
    /// What commands do.
    pub actions: Actions,
    /// What follows messages.
    pub reactions: Reactions,
    /// What a changed section of the configuration in Redis means.
    pub config_changes: ConfigChanges,
    /// First values of the configuration in Redis.
    pub seeds: Seeds,
    /// The variables that [`Settings::seeds`] name, of those that are set.
    ///
    /// A service's `SCHEDULE_*` is always there, as the whole seconds of its effective interval, 0 while paused.
    pub seed_variables: Variables,
    /// Variables that look like settings and are none.
    pub warnings: Vec<SettingsWarning>,
}

/// What holds for one service, defaults included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceSettings<'a> {
    /// Interval of its runs; none: on command only, or paused.
    pub every: Option<Interval>,
    /// Time until its runs are stopped and removed.
    pub timeout: Duration,
    /// Where it reports; none: nowhere.
    pub status: Option<&'a SourceId>,
    /// Its name in the schedule section of Redis.
    pub schedule_key: &'a str,
    /// The Compose profile that its runs enable.
    pub profile: Option<&'a str>,
    /// Environment of its runs, over the Compose file's.
    pub env: Option<&'a BTreeMap<String, String>>,
    /// Whether a run that did not refresh [`ServiceSettings::status`] has failed.
    pub check_output: bool,
    /// Whether a run that wrote no readings of that source is warned of.
    pub expects_readings: bool,
    /// Whether a start recreates its dependencies, too, where they run and differ.
    pub recreate_dependencies: bool,
}

/// The whole of the settings as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    preset: String,
    log: Log,
    compose: Compose,
    daemon: Daemon,
    docker: Docker,
    redis: RawRedis,
    control: Control,
    scheduler: Scheduler,
    runs: Runs,
    state: StateDirectory,
    shutdown: Shutdown,
    health: Health,
    commands: Commands,
    services: Services,
    actions: Actions,
    reactions: Reactions,
    config_changes: ConfigChanges,
    seeds: Seeds,
}

/// What was read of all layers.
pub struct Reading {
    /// The settings; where a part of them is wrong, without that part or with its default. None where nothing could be
    /// made of them.
    pub settings: Option<Settings>,
    /// All that is wrong, in the order of sources and lines.
    pub errors: Vec<SettingsError>,
    /// Who said what.
    pub origins: Origins,
}

impl Reading {
    /// The settings, where nothing is wrong with them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn into_sound(self) -> Result<(Settings, Origins), SettingsErrors> {
        match self.settings {
            Some(settings) if self.errors.is_empty() => Ok((settings, self.origins)),
            _ => Err(SettingsErrors(self.errors)),
        }
    }

    /// What is right of the settings, whatever is wrong besides.
    ///
    /// # Errors
    /// Everything that is wrong with them, where nothing can be made of the rest.
    pub fn into_usable(self) -> Result<Settings, SettingsErrors> {
        self.settings.ok_or(SettingsErrors(self.errors))
    }
}

impl Settings {
    /// Reads and checks all layers.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(sources: &Sources) -> Result<Self, SettingsErrors> {
        Self::read(sources).into_sound().map(|(settings, _)| settings)
    }

    /// Reads and checks all layers, and gives what is right of them beside what is wrong.
    pub fn read(sources: &Sources) -> Reading {
        let mut faults = Vec::new();
        let (layers, warnings) = layers(sources, &mut faults);
        let merged = Merged::new(&layers);
        let (raw, wrong) = merged.read::<Raw>();
        faults.extend(wrong);
        let settings = raw.map(|raw| {
            Check { merged: &merged, environment: &sources.environment, faults: &mut faults }.settings(raw, warnings)
        });
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        Reading { settings, errors: faults, origins: Origins::new(merged) }
    }

    /// What holds for `service`, whether or not the settings name it.
    pub fn service<'a>(&'a self, service: &'a ServiceName) -> ServiceSettings<'a> {
        let own = self.services.get(service);
        ServiceSettings {
            every: own.and_then(|own| own.every.interval()),
            timeout: own.and_then(|own| own.timeout).unwrap_or(self.runs.timeout),
            status: own.and_then(|own| own.status.as_ref()),
            schedule_key: own.and_then(|own| own.schedule_key.as_deref()).unwrap_or(service.as_str()),
            profile: own.and_then(|own| own.profile.as_deref()),
            env: own.map(|own| &own.env.0),
            check_output: own.is_some_and(|own| own.check_output),
            expects_readings: own.is_some_and(|own| own.expects_readings),
            recreate_dependencies: own.is_some_and(|own| own.recreate_dependencies),
        }
    }

    /// The services of the schedule with their intervals; those that are paused, or scheduled only once Redis says an
    /// interval, have none.
    pub fn intervals(&self) -> Intervals {
        let scheduled = self.services.iter().filter(|(_, own)| own.is_scheduled());
        scheduled.map(|(service, own)| (service.clone(), own.every.interval())).collect()
    }
}

/// All layers, weakest first.
fn layers(sources: &Sources, faults: &mut Vec<SettingsError>) -> (Vec<Layer>, Vec<SettingsWarning>) {
    let mut layers: Vec<Layer> = Layer::yaml(Source::Defaults, DEFAULTS, faults).into_iter().collect();
    let defaults = layers.first().map(|layer| layer.values.clone()).unwrap_or_default();
    let file = named_file(sources, faults).and_then(|(source, text)| Layer::yaml(source, &text, faults));
    let preset = preset(sources, file.as_ref(), &defaults);
    if let Some((name, text)) = PRESETS.iter().find(|(name, _)| Some(*name) == preset.as_deref()) {
        layers.extend(Layer::yaml(Source::Preset((*name).into()), text, faults));
    }
    layers.extend(file);
    for layer in &mut layers {
        layer.fit(&defaults, faults);
        either(layer, faults);
    }
    let said = sources.environment.layers(&Merged::new(&layers).into_values());
    faults.extend(said.faults);
    let mut variables = said.layers;
    for layer in &mut variables {
        layer.fit(&defaults, faults);
    }
    layers.extend(variables_either(variables, faults));
    for argument in &sources.arguments {
        let path: Vec<String> = argument.key.split('.').map(str::to_owned).collect();
        let is_list = |value: &Value| matches!(value, Value::Array(..));
        let value = match argument.values.as_slice() {
            [one] if !merged::find(&defaults, &path).is_some_and(is_list) => Value::from(one.as_str()),
            values => Value::from(values.to_vec()),
        };
        layers.push(Layer::single(Source::Argument(argument.option), &path, value));
    }
    (layers, said.warnings)
}

impl Sources {
    /// The user's file.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| self.environment.raw(environment::CONFIG).map(PathBuf::from))
    }
}

/// The user's file and its text.
fn named_file(sources: &Sources, faults: &mut Vec<SettingsError>) -> Option<(Source, String)> {
    let (path, source) = match (&sources.file, sources.environment.raw(environment::CONFIG)) {
        (Some(path), _) => (path.clone(), Source::Argument("--config")),
        (None, Some(path)) => (PathBuf::from(path), Source::Variable(environment::CONFIG.into())),
        (None, None) => return None,
    };
    match file::settings(&path) {
        Ok(text) => Some((Source::File(path), text)),
        Err(reason) => {
            let problem = Problem::Unreadable { file: path, reason };
            faults.push(SettingsError { place: Place { source, line: None }, key: String::new(), problem });
            None
        }
    }
}

/// The preset that the strongest layer names.
fn preset(sources: &Sources, file: Option<&Layer>, defaults: &Dict) -> Option<String> {
    let said = |values: &Dict| values.get("preset")?.as_str().map(str::to_owned);
    let variable = sources.environment.get("ORCHESTRATOR_PRESET").map(str::to_owned);
    variable.or_else(|| said(&file?.values)).or_else(|| said(defaults))
}

/// Lets a layer that gives a secret in one of its two ways take the other back.
fn either(layer: &mut Layer, faults: &mut Vec<SettingsError>) {
    let given = |value: Option<&Value>| value.is_some_and(|value| !matches!(value, Value::Empty(..)));
    for [section, direct, by_file] in EITHER {
        let Some(Value::Dict(_, keys)) = layer.values.get_mut(section) else { continue };
        match (given(keys.get(direct)), given(keys.get(by_file))) {
            (true, true) => {
                let key = [section.to_owned(), by_file.to_owned()];
                faults.push(SettingsError {
                    place: Place { source: layer.source.clone(), line: layer.places.line(&key) },
                    key: key.join("."),
                    problem: Problem::Conflict { other: format!("{section}.{direct}") },
                });
                keys.remove(by_file);
            }
            (true, false) => drop(keys.insert(by_file.into(), Value::from(figment::value::Empty::None))),
            (false, true) => drop(keys.insert(direct.into(), Value::from(figment::value::Empty::None))),
            (false, false) => {}
        }
    }
}

/// The same for variables, which are one layer in the eyes of the user.
fn variables_either(mut layers: Vec<Layer>, faults: &mut Vec<SettingsError>) -> Vec<Layer> {
    let says = |layer: &Layer, section: &str, key: &str| {
        layer.values.get(section).and_then(Value::as_dict).is_some_and(|keys| keys.contains_key(key))
    };
    for [section, direct, by_file] in EITHER {
        let first = layers.iter().find(|layer| says(layer, section, direct));
        let second = layers.iter().find(|layer| says(layer, section, by_file));
        if let (Some(first), Some(second)) = (first, second) {
            faults.push(SettingsError {
                place: Place { source: second.source.clone(), line: None },
                key: format!("{section}.{by_file}"),
                problem: Problem::Conflict { other: first.source.to_string() },
            });
        }
    }
    for layer in &mut layers {
        either(layer, faults);
    }
    layers
}
