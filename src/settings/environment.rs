//! The process environment: read once, kept as text, and turned into layers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use figment::value::{Dict, Value};

use super::error::{Place, Problem, SettingsError, Source, nearest};
use super::layers::{Layer, NAMED_SECTIONS};
use super::sections::Every;
use crate::clock::Span;

/// Begins the variables that are ours alone.
const PREFIX: &str = "ORCHESTRATOR_";
/// The variable that names the user's file, as `--config` does.
pub(super) const CONFIG: &str = "ORCHESTRATOR_CONFIG";
/// Begins the variables that set a service's interval by its schedule key.
const SCHEDULE: &str = "SCHEDULE_";

/// Variables that people have already, and the key that each stands for.
const WELL_KNOWN: [(&str, &str, Form); 14] = [
    ("REDIS_URL", "redis.url", Form::Text),
    ("REDIS_URL_FILE", "redis.url_file", Form::Text),
    ("REDIS_USERNAME", "redis.username", Form::Text),
    ("REDIS_PASSWORD", "redis.password", Form::Text),
    ("REDIS_PASSWORD_FILE", "redis.password_file", Form::Text),
    ("DOCKER_HOST", "docker.host", Form::Text),
    ("DOCKER_TLS_VERIFY", "docker.tls_verify", Form::Present("true")),
    ("DOCKER_CERT_PATH", "docker.cert_path", Form::Text),
    ("DOCKER_CONFIG", "docker.config", Form::Text),
    ("COMPOSE_FILE", "compose.files", Form::Paths),
    ("COMPOSE_PROJECT_NAME", "compose.project_name", Form::Text),
    ("COMPOSE_PROFILES", "compose.profiles", Form::Text),
    ("COMPOSE_ENV_FILES", "compose.env_files", Form::Text),
    ("NO_COLOR", "log.color", Form::Present("never")),
];

/// How a well-known variable is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// As the key takes it.
    Text,
    /// A list of paths, separated by `COMPOSE_PATH_SEPARATOR`, by default a colon.
    Paths,
    /// Any text at all means this value.
    Present(&'static str),
}

/// The variables of our process, as they were at the start.
///
/// An empty variable counts as not set: Compose files pass `${NAME:-}` on.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>, BTreeSet<String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Keeps `variables`, as `std::env::vars_os` gives them; names that are not UTF-8 are no names of ours.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let (set, empty): (BTreeMap<_, _>, BTreeMap<_, _>) = named.partition(|(_, value)| !value.is_empty());
        Self(set, empty.into_keys().collect())
    }

    /// Whether `name` is there and empty.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        self.1.contains(name)
    }

    /// The value of `name`; none when it is not set, empty, or not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str()
    }

    /// The value of `name` as the operating system has it.
    pub(super) fn raw(&self, name: &str) -> Option<&OsString> {
        self.0.get(name)
    }

    /// One layer for each variable that is a setting, weakest first; `below` is what the files say.
    pub(super) fn layers(&self, below: &Dict) -> Said {
        let mut said = Said::default();
        for (name, path, form) in WELL_KNOWN {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            if let Some(text) = self.text(name, &path, &mut said) {
                let value = match form {
                    Form::Text => Value::from(text),
                    Form::Present(value) => Value::from(value),
                    Form::Paths => {
                        let separator = self.get("COMPOSE_PATH_SEPARATOR").unwrap_or(":");
                        Value::from(text.split(separator).filter(|path| !path.is_empty()).collect::<Vec<_>>())
                    }
                };
                said.layers.push(Layer::single(Source::Variable(name.into()), &path, value));
            }
        }
        self.schedule(below, &mut said);
        for name in self.0.keys().filter(|name| name.starts_with(PREFIX) && *name != CONFIG) {
            let path = path_of(name, below);
            if let Some(text) = self.text(name, &path, &mut said) {
                said.layers.push(Layer::single(Source::Variable(name.clone()), &path, Value::from(text)));
            }
        }
        said
    }

    fn text(&self, name: &str, path: &[String], said: &mut Said) -> Option<&str> {
        let text = self.0.get(name)?.to_str();
        if text.is_none() {
            let place = Place { source: Source::Variable(name.into()), line: None };
            said.faults.push(SettingsError { place, key: path.join("."), problem: Problem::NotUtf8 });
        }
        text
    }

    /// `SCHEDULE_NAME` is the interval of the service whose schedule key, or own name, is `name`.
    fn schedule(&self, below: &Dict, said: &mut Said) {
        let mut services: BTreeMap<String, &String> = BTreeMap::new();
        for (service, entry) in entries(below, "services") {
            let key = entry.as_dict().and_then(|entry| entry.get("schedule_key")).and_then(Value::as_str);
            services.insert(shouted(service), service);
            services.insert(shouted(key.unwrap_or(service)), service);
        }
        for name in self.0.keys() {
            let Some(key) = name.strip_prefix(SCHEDULE) else { continue };
            match services.get(key) {
                Some(service) => {
                    let path = ["services".to_owned(), (*service).clone(), "every".to_owned()];
                    match self.text(name, &path, said) {
                        Some(text) if is_interval(text) => {
                            said.layers.push(Layer::single(Source::Variable(name.clone()), &path, Value::from(text)));
                        }
                        // It seeds Redis as well, and a bad seed does not keep the daemon from starting.
                        Some(_) => said.warnings.push(SettingsWarning::NoInterval { variable: name.clone() }),
                        None => {}
                    }
                }
                None => said.warnings.push(SettingsWarning::NoService {
                    variable: name.clone(),
                    nearest: nearest(key, services.keys().map(String::as_str)).map(|near| format!("{SCHEDULE}{near}")),
                }),
            }
        }
    }
}

/// A variable that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsWarning {
    /// It looks like a setting of ours and is none.
    NoService {
        /// Its name.
        variable: String,
        /// The variable that was probably meant.
        nearest: Option<String>,
    },
    /// Its text is not how often a service runs.
    NoInterval {
        /// Its name.
        variable: String,
    },
}

impl std::fmt::Display for SettingsWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoService { variable, nearest } => {
                write!(f, "{variable}: no service has this schedule key")?;
                nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; did you mean `{nearest}`?"))
            }
            Self::NoInterval { variable } => {
                write!(f, "{variable}: not an interval of 1 s to 7 d, nor 0; not followed")
            }
        }
    }
}

fn is_interval(text: &str) -> bool {
    text.parse::<Span>().is_ok_and(|span| Every::try_from(span).is_ok())
}

/// What the environment says.
#[derive(Default)]
pub(super) struct Said {
    /// One layer for each variable.
    pub(super) layers: Vec<Layer>,
    /// Variables that cannot be read.
    pub(super) faults: Vec<SettingsError>,
    /// Variables that mean nothing.
    pub(super) warnings: Vec<SettingsWarning>,
}

fn entries<'a>(below: &'a Dict, section: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    below.get(section).and_then(Value::as_dict).into_iter().flatten()
}

fn shouted(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The key path of a variable of ours, such as `log.level` of `ORCHESTRATOR_LOG__LEVEL`.
///
/// The name of an entry is that of the entry below that is written the same in upper case with `_`; a new one is in
/// lower case with `-`. Names of environment variables stay as they are.
fn path_of(variable: &str, below: &Dict) -> Vec<String> {
    let levels: Vec<&str> = variable.strip_prefix(PREFIX).unwrap_or(variable).split("__").collect();
    let mut path: Vec<String> = Vec::with_capacity(levels.len());
    for (depth, level) in levels.iter().enumerate() {
        let named = path.first().filter(|section| NAMED_SECTIONS.contains(&section.as_str()));
        path.push(match (depth, named) {
            (1, Some(section)) => entries(below, section)
                .find(|(name, _)| shouted(name) == level.to_ascii_uppercase())
                .map_or_else(|| level.to_ascii_lowercase().replace('_', "-"), |(name, _)| name.clone()),
            (3.., Some(_)) if path.get(2).is_some_and(|key| key == "env") => (*level).to_owned(),
            _ => level.to_ascii_lowercase(),
        });
    }
    path
}

/// The variable of the interval of the service with this schedule key.
pub(super) fn schedule_variable(key: &str) -> String {
    format!("{SCHEDULE}{}", shouted(key))
}

/// The variable that stands for the key at `path`.
pub(super) fn variable_of(path: &[String]) -> String {
    let levels: Vec<String> = path.iter().map(|level| shouted(level)).collect();
    format!("{PREFIX}{}", levels.join("__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below() -> Dict {
        let entry = |key: &str| Value::from(Dict::from([("schedule_key".to_owned(), Value::from(key))]));
        let services = Dict::from([("job-a.b".to_owned(), entry("a")), ("other".to_owned(), Value::from(Dict::new()))]);
        Dict::from([("services".to_owned(), Value::from(services))])
    }

    #[test]
    fn a_variable_names_its_key_with_two_underscores_between_levels() {
        assert_eq!(path_of("ORCHESTRATOR_SCHEDULER__MAX_PARALLEL", &below()), ["scheduler", "max_parallel"]);
        assert_eq!(path_of("ORCHESTRATOR_LOG_LEVEL", &below()), ["log_level"]);
    }

    #[test]
    fn the_name_of_a_service_is_found_again_in_upper_case() {
        assert_eq!(path_of("ORCHESTRATOR_SERVICES__JOB_A_B__EVERY", &below()), ["services", "job-a.b", "every"]);
        assert_eq!(path_of("ORCHESTRATOR_SERVICES__NEW_JOB__EVERY", &below()), ["services", "new-job", "every"]);
        assert_eq!(path_of("ORCHESTRATOR_SERVICES__OTHER__ENV__Mode", &below()), ["services", "other", "env", "Mode"]);
    }

    #[test]
    fn a_schedule_variable_is_found_by_key_and_by_service_and_else_is_a_warning() {
        let variables =
            [("SCHEDULE_A", "10"), ("SCHEDULE_OTHER", "20"), ("SCHEDULE_OTHR", "30"), ("SCHEDULE_JOB_A_B", "")];
        let said = Environment::new(variables.map(|(name, value)| (name.into(), value.into()))).layers(&below());
        let sources: Vec<String> = said.layers.iter().map(|layer| layer.source.to_string()).collect();
        assert_eq!(sources, ["SCHEDULE_A", "SCHEDULE_OTHER"]);
        let nearest = Some("SCHEDULE_OTHER".into());
        let warning = SettingsWarning::NoService { variable: "SCHEDULE_OTHR".into(), nearest };
        assert_eq!(said.warnings, [warning]);
    }

    #[test]
    fn an_empty_variable_is_not_set_but_known() {
        let environment = Environment::new([("EMPTY".into(), "".into()), ("SET".into(), "x".into())]);
        assert_eq!((environment.get("EMPTY"), environment.is_empty("EMPTY")), (None, true));
        assert_eq!((environment.get("SET"), environment.is_empty("SET")), (Some("x"), false));
    }

    #[test]
    fn the_debug_form_of_the_environment_shows_names_only() {
        let environment = Environment::new([("TOKEN".into(), "s3cret".into())]);
        assert_eq!(format!("{environment:?}"), r#"{"TOKEN"}"#);
    }
}
