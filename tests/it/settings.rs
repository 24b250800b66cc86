//! Settings as a user meets them: layers, variables, secrets, and all errors at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;
use sense_orchestrator::bus::redis::Endpoint;
use sense_orchestrator::names::ServiceName;
use sense_orchestrator::schedule::Interval;
use sense_orchestrator::settings::{
    Argument, Color, DEFAULTS, DockerHost, Environment, Every, FirstRun, Problem, Settings, SettingsErrors, Sources,
};

const REFERENCE: &str = include_str!("../../docs/settings.md");

/// A folder of its own that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sense-settings-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Settings, SettingsErrors> {
    Settings::load(&Sources { environment: environment(variables), ..Sources::default() })
}

fn with_file(name: &str, text: &str) -> Result<Settings, String> {
    let folder = Folder::new(name);
    let sources = Sources { file: Some(folder.write("settings.yaml", text)), ..Sources::default() };
    Settings::load(&sources).map_err(|errors| errors.to_string().replace(&format!("{}/", folder.0.display()), ""))
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn every(settings: &Settings, name: &str) -> Option<Duration> {
    settings.service(&service(name)).every.map(Interval::as_duration)
}

#[test]
fn the_preset_schedules_the_reference_stack() {
    let settings = with_variables(&[]).unwrap();
    let intervals: Vec<_> = settings.intervals().into_iter().map(|(name, every)| (name.to_string(), every)).collect();
    let seconds: Vec<_> =
        intervals.iter().map(|(name, every)| (name.as_str(), every.unwrap().as_duration().as_secs())).collect();
    assert_eq!(
        seconds,
        [
            ("source-aranet4", 60),
            ("source-pihole", 30),
            ("source-system", 30),
            ("source-tailscale", 30),
            ("source-weather", 300)
        ]
    );
    let co2 = service("source-aranet4");
    let own = settings.service(&co2);
    assert_eq!((own.schedule_key, own.profile, own.check_output), ("aranet4", Some("poll"), true));
    assert!(own.expects_readings);
    assert_eq!(own.status.map(AsRef::as_ref), Some("co2"));
    assert_eq!(settings.commands.profiles, ["poll", "camera"]);
    assert!(settings.commands.deny.contains(&service("redis")));
}

#[test]
fn without_a_preset_nothing_is_scheduled_or_commanded() {
    let settings = with_variables(&[("ORCHESTRATOR_PRESET", "none")]).unwrap();
    assert!(settings.services.is_empty() && settings.actions.is_empty() && settings.reactions.is_empty());
    assert!(settings.seeds.is_empty() && settings.config_changes.is_empty() && settings.commands.profiles.is_empty());
}

#[test]
fn a_service_that_no_settings_name_has_the_defaults() {
    let settings = with_variables(&[]).unwrap();
    let unknown = service("unheard-of");
    let own = settings.service(&unknown);
    assert_eq!((own.every, own.timeout, own.schedule_key), (None, Duration::from_mins(1), "unheard-of"));
    assert!(!own.check_output && !own.expects_readings && own.status.is_none());
}

#[test]
fn each_layer_is_over_those_before_it() {
    let folder = Folder::new("layers");
    let file =
        folder.write("s.yaml", "scheduler: { max_parallel: 3 }\ncompose: { profiles: [file], files: [file.yaml] }\n");
    let mut sources = Sources { file: Some(file), ..Sources::default() };
    assert_eq!(Settings::load(&sources).unwrap().scheduler.max_parallel, 3);
    assert_eq!(Settings::load(&sources).unwrap().scheduler.first_run, FirstRun::Immediate, "the rest stays");

    sources.environment = environment(&[
        ("ORCHESTRATOR_SCHEDULER__MAX_PARALLEL", "4"),
        ("COMPOSE_PROFILES", "known"),
        ("ORCHESTRATOR_COMPOSE__PROFILES", "ours, too"),
        ("COMPOSE_FILE", "a.yaml:b.yaml"),
    ]);
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.scheduler.max_parallel, 4);
    assert_eq!(settings.compose.profiles, ["ours", "too"]);
    assert_eq!(settings.compose.files, [Path::new("a.yaml"), Path::new("b.yaml")]);

    let argument = |option, key, value: &str| Argument { option, key, values: vec![value.to_owned()] };
    sources.arguments = vec![
        argument("--file", "compose.files", "one,with a comma.yaml"),
        argument("--project-name", "compose.project_name", "named"),
    ];
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.compose.files, [Path::new("one,with a comma.yaml")]);
    assert_eq!(settings.compose.project_name.unwrap().as_str(), "named");
}

#[test]
fn the_file_is_named_by_the_option_before_the_variable() {
    let folder = Folder::new("which");
    let (one, two) = (folder.write("1", "runs: {timeout: 1s}"), folder.write("2", "runs: {timeout: 2s}"));
    let environment = environment(&[("ORCHESTRATOR_CONFIG", two.to_str().unwrap())]);
    let named = Sources { environment, ..Sources::default() };
    assert_eq!(Settings::load(&named).unwrap().runs.timeout, Duration::from_secs(2));
    let both = Sources { file: Some(one), ..named };
    assert_eq!(Settings::load(&both).unwrap().runs.timeout, Duration::from_secs(1));
}

#[test]
fn every_well_known_variable_reaches_its_key() {
    let settings = with_variables(&[
        ("REDIS_URL", "rediss://cache:7000"),
        ("REDIS_USERNAME", "me"),
        ("REDIS_PASSWORD", "0123"),
        ("DOCKER_HOST", "tcp://engine:2376"),
        ("DOCKER_TLS_VERIFY", "0"),
        ("DOCKER_CERT_PATH", "/certs"),
        ("DOCKER_CONFIG", "/etc/docker-config"),
        ("COMPOSE_FILE", "a.yaml;b.yaml"),
        ("COMPOSE_PATH_SEPARATOR", ";"),
        ("COMPOSE_PROJECT_NAME", "pulse"),
        ("COMPOSE_PROFILES", "a,b"),
        ("COMPOSE_ENV_FILES", "x.env,y.env"),
        ("NO_COLOR", "1"),
        ("SCHEDULE_WEATHER", "10m"),
    ])
    .unwrap();
    assert_eq!(settings.redis.as_ref().unwrap().endpoint, Endpoint::Tcp("cache".into(), 7000));
    assert!(settings.redis.as_ref().unwrap().tls);
    assert_eq!(settings.redis.as_ref().unwrap().username.as_deref(), Some("me"));
    assert_eq!(settings.redis.as_ref().unwrap().password.as_ref().unwrap().expose_secret(), "0123");
    assert_eq!(settings.docker.host, DockerHost::Tcp("engine:2376".into()));
    assert!(settings.docker.tls_verify, "docker takes any text for yes");
    assert_eq!(settings.docker.cert_path.as_deref(), Some(Path::new("/certs")));
    assert_eq!(settings.docker.config.as_deref(), Some(Path::new("/etc/docker-config")));
    assert_eq!(settings.compose.files, [Path::new("a.yaml"), Path::new("b.yaml")]);
    assert_eq!(settings.compose.project_name.unwrap().as_str(), "pulse");
    assert_eq!(settings.compose.profiles, ["a", "b"]);
    assert_eq!(settings.compose.env_files, [Path::new("x.env"), Path::new("y.env")]);
    assert_eq!(settings.log.color, Color::Never);
    assert_eq!(
        settings.services[&service("source-weather")].every.interval().unwrap().as_duration(),
        Duration::from_mins(10)
    );
}

#[test]
fn texts_in_variables_stay_texts() {
    for text in ["0123", "true", "null", "[x, y]", "1e3", "~", "{a: b}", "\"quoted\"", " spaced "] {
        let settings = with_variables(&[("ORCHESTRATOR_REDIS__PASSWORD", text)]).unwrap();
        assert_eq!(settings.redis.as_ref().unwrap().password.as_ref().unwrap().expose_secret(), text);
    }
    let variables = [("ORCHESTRATOR_SERVICES__SOURCE_SYSTEM__ENV__Mode", "007")];
    let settings = with_variables(&variables).unwrap();
    assert_eq!(settings.service(&service("source-system")).env.unwrap()["Mode"], "007");
}

#[test]
fn typed_variables_are_read_as_people_write_them() {
    let settings = with_variables(&[
        ("ORCHESTRATOR_RUNS__TIMEOUT", "90"),
        ("ORCHESTRATOR_RUNS__TAIL", "1k"),
        ("ORCHESTRATOR_SERVICES__SOURCE_SYSTEM__CHECK_OUTPUT", "off"),
        ("ORCHESTRATOR_SERVICES__NIGHTLY_BACKUP__EVERY", "1d"),
        ("ORCHESTRATOR_COMMANDS__DENY", "redis, vpn"),
        ("ORCHESTRATOR_REDIS__DATABASE", "3"),
    ])
    .unwrap();
    assert_eq!(settings.runs.timeout, Duration::from_secs(90));
    assert_eq!(settings.runs.tail, 1024);
    assert_eq!((settings.runs.keep, settings.runs.keep_for), (1000, Duration::from_hours(90 * 24)));
    assert_eq!(settings.state.dir, None);
    assert!(!settings.service(&service("source-system")).check_output);
    assert_eq!(every(&settings, "nightly-backup"), Some(Duration::from_hours(24)));
    assert_eq!(settings.commands.deny, [service("redis"), service("vpn")]);
    assert_eq!(settings.redis.as_ref().unwrap().database, Some(3));
}

#[test]
fn a_key_prefix_is_before_what_is_the_daemons_own() {
    let settings = with_variables(&[("ORCHESTRATOR_REDIS__KEY_PREFIX", "attic:")]).unwrap();
    let names = &settings.redis_names;
    assert_eq!(names.commands(), "attic:cmd:orchestrator");
    assert_eq!(names.reply(&"r1".parse().unwrap()), "attic:cmd:orchestrator:response:r1");
    assert_eq!(names.runs(&service("x")), "attic:runs:x");
    assert_eq!(names.status(&"orchestrator".parse().unwrap()), "attic:status:orchestrator");
    assert_eq!(with_variables(&[]).unwrap().redis_names.commands(), "cmd:orchestrator");
    for wrong in ["a b", "a*", "ä", "\n", &"x".repeat(65)] {
        let error = with_variables(&[("ORCHESTRATOR_REDIS__KEY_PREFIX", wrong)]).unwrap_err().to_string();
        assert!(error.contains("key_prefix"), "{wrong:?}: {error}");
    }
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let empty = ["REDIS_URL", "DOCKER_HOST", "SCHEDULE_WEATHER", "ORCHESTRATOR_LOG__LEVEL", "ORCHESTRATOR_NONSENSE"];
    let settings = with_variables(&empty.map(|name| (name, ""))).unwrap();
    assert_eq!(every(&settings, "source-weather"), Some(Duration::from_mins(5)));
}

#[test]
fn null_takes_a_name_away_and_zero_pauses() {
    let settings = with_file(
        "null",
        "services:\n  source-pihole: null\n  source-system: { every: 0 }\n  source-weather: { every: null }\nactions: { trigger: null }\nlog:\n",
    )
    .unwrap();
    assert!(!settings.services.contains_key(&service("source-pihole")));
    assert!(!settings.actions.contains_key("trigger") && settings.actions.contains_key("start_camera"));
    let intervals = settings.intervals();
    assert_eq!(intervals.get(&service("source-system")), Some(&None));
    assert_eq!(intervals.get(&service("source-weather")), Some(&None));
    assert_eq!(intervals.get(&service("source-pihole")), None);
    assert_eq!(settings.service(&service("source-weather")).timeout, Duration::from_mins(1), "its other keys stay");
}

#[test]
fn anchors_and_merge_keys_work_in_a_file() {
    let text = "services:\n  a: &job { every: 5s, timeout: 9s }\n  b: { <<: *job, every: 7s }\n";
    let settings = with_file("anchors", text).unwrap();
    assert_eq!(every(&settings, "b"), Some(Duration::from_secs(7)));
    assert_eq!(settings.service(&service("b")).timeout, Duration::from_secs(9));
}

#[test]
fn secrets_are_read_from_files_without_the_line_break() {
    let folder = Folder::new("secrets");
    let (password, hash) = (folder.write("password", "p@ss\n"), folder.write("hash", "$2b$12$abc\r\n"));
    let settings = with_variables(&[
        ("REDIS_URL", "redis://cache"),
        ("REDIS_PASSWORD_FILE", password.to_str().unwrap()),
        ("AUTH_PASSWORD_HASH_FILE", hash.to_str().unwrap()),
    ])
    .unwrap();
    assert_eq!(settings.redis.as_ref().unwrap().password.as_ref().unwrap().expose_secret(), "p@ss");
    assert_eq!(settings.seed_variables.0["AUTH_PASSWORD_HASH"], "$2b$12$abc");
}

#[test]
fn a_stronger_layers_secret_replaces_the_file_of_a_weaker_one() {
    let folder = Folder::new("replaced");
    let file = folder.write("s.yaml", "redis: { password_file: /nowhere, url_file: /nowhere }");
    let environment = environment(&[("REDIS_PASSWORD", "abc"), ("REDIS_URL", "redis://cache")]);
    let settings = Settings::load(&Sources { file: Some(file), environment, ..Sources::default() }).unwrap();
    assert_eq!(settings.redis.as_ref().unwrap().endpoint, Endpoint::Tcp("cache".into(), 6379));
    assert_eq!(settings.redis.as_ref().unwrap().password.as_ref().unwrap().expose_secret(), "abc");
}

#[test]
fn no_secret_is_in_the_debug_form_or_in_an_error() {
    let folder = Folder::new("shown");
    let huge = folder.write("huge", "s3cret".repeat(20_000));
    let variables = [
        ("REDIS_URL", "redis://me:s3cret@cache"),
        ("AUTH_PASSWORD_HASH", "s3cret"),
        ("TZ", "s3cret"),
        ("ORCHESTRATOR_SERVICES__SOURCE_SYSTEM__ENV__TOKEN", "s3cret"),
        ("UNRELATED", "s3cret"),
    ];
    let settings = format!("{:?}", with_variables(&variables).unwrap());
    assert!(settings.contains("AUTH_PASSWORD_HASH") && !settings.contains("s3cret"), "{settings}");

    for variables in [
        [("REDIS_URL", "http://s3cret"), ("REDIS_PASSWORD", "s3cret")],
        [("REDIS_URL", "redis://:s3cret@cache"), ("REDIS_PASSWORD", "s3cret")],
        [("ORCHESTRATOR_REDIS", "s3cret"), ("REDIS_URL", "redis://h/s3cret")],
        [("REDIS_PASSWORD_FILE", huge.to_str().unwrap()), ("REDIS_URL", "redis://h:s3cret")],
    ] {
        let errors = with_variables(&variables).unwrap_err();
        assert!(!errors.to_string().contains("s3cret") && !format!("{errors:?}").contains("s3cret"), "{errors}");
    }
    let error = with_file("number", "redis:\n  password: 31337\n").unwrap_err();
    assert_eq!(error, "settings.yaml:2: redis.password: not a text; put it in quotes");
}

#[test]
fn only_the_named_variables_reach_the_compose_files() {
    let folder = Folder::new("interpolation");
    let file = folder.write("s.yaml", "compose: { environment: [TZ, UNSET, 'HOME=/home/pi'] }");
    let environment = environment(&[("TZ", "Europe/Berlin"), ("HOME", "/root"), ("TOKEN", "x")]);
    let settings = Settings::load(&Sources { file: Some(file), environment, ..Sources::default() }).unwrap();
    let expected = [("HOME", "/home/pi"), ("TZ", "Europe/Berlin")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(settings.compose.environment.0, BTreeMap::from(expected));
}

#[test]
fn seeds_get_their_variables_and_the_schedule_as_it_is() {
    let variables =
        [("WEATHER_LOCATION", "Bonn"), ("SCHEDULE_SYSTEM", "2m"), ("SCHEDULE_PIHOLE", "0"), ("HOME", "/root")];
    let seeded = with_variables(&variables).unwrap().seed_variables.0;
    assert_eq!(seeded["WEATHER_LOCATION"], "Bonn");
    assert_eq!((seeded["SCHEDULE_SYSTEM"].as_str(), seeded["SCHEDULE_PIHOLE"].as_str()), ("120", "0"));
    assert_eq!(seeded["SCHEDULE_WEATHER"], "300");
    assert!(!seeded.contains_key("HOME"));

    let settings = with_file("seeded", "services: { source-weather: { every: 45s } }").unwrap();
    assert_eq!(settings.seed_variables.0["SCHEDULE_WEATHER"], "45", "wherever the interval comes from");
}

#[test]
fn a_schedule_variable_without_a_service_is_a_warning() {
    let settings = with_variables(&[("SCHEDULE_WETHER", "3"), ("SCHEDULE_OF_THE_BAND", "x")]).unwrap();
    let warnings: Vec<_> = settings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "SCHEDULE_OF_THE_BAND: no service has this schedule key",
            "SCHEDULE_WETHER: no service has this schedule key; did you mean `SCHEDULE_WEATHER`?"
        ]
    );
}

#[test]
fn a_schedule_variable_that_is_no_interval_is_a_warning_without_its_text_and_not_followed() {
    for wrong in ["8d", "0.5", "-1", "NaN", "abc"] {
        let settings = with_variables(&[("SCHEDULE_WEATHER", wrong)]).unwrap();
        assert_eq!(every(&settings, "source-weather"), Some(Duration::from_mins(5)), "{wrong}");
        assert_eq!(settings.seed_variables.0["SCHEDULE_WEATHER"], "300", "{wrong}");
        let warnings: Vec<_> = settings.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, ["SCHEDULE_WEATHER: not an interval of 1 s to 7 d, nor 0; not followed"], "{wrong}");
    }
}

#[test]
fn intervals_are_bounded_and_whole() {
    for wrong in ["8d", "0.5", "999ms", "-1", "NaN", "1500ms", "abc", "1month"] {
        let own = "ORCHESTRATOR_SERVICES__SOURCE_WEATHER__EVERY";
        assert!(with_variables(&[(own, wrong)]).is_err(), "{wrong}");
    }
    for (right, seconds) in [("1", 1), ("7d", 604_800), ("1s", 1), ("1m 30s", 90)] {
        let settings = with_variables(&[("SCHEDULE_WEATHER", right)]).unwrap();
        assert_eq!(every(&settings, "source-weather"), Some(Duration::from_secs(seconds)), "{right}");
    }
    let paused = with_variables(&[("SCHEDULE_WEATHER", "0")]).unwrap();
    assert_eq!(paused.services[&service("source-weather")].every, Every::Paused);
}

#[test]
fn all_errors_of_all_layers_are_told_at_once_with_their_places() {
    let folder = Folder::new("errors");
    let file = folder.write(
        "settings.yaml",
        r#"
scheduler:
  max_paralel: 3
  first_run: imediate
runs: { timeout: 5 parsecs, tail: 2GB }
sheduler: {}
log: loud
services:
  backup: { every: 8d, evry: 5s }
  "x y": {}
health: { interval: 60s, status_ttl: 30 }
redis:
  password_file: /nonexistent/secret
  password: 0123
compose:
  dialect: 2.40
  files: [a, 5, b, [c]]
actions:
  go: [ { run: worker, evn: {} }, { explode: x }, { stop: a/b } ]
  none: []
seeds:
  s: { fields: { a: { as: int }, b: { env: B, as: integer } } }
config_changes:
  auth: { service: web, when_changed: restrt }
docker: { host: "ssh://pi" }
"#,
    );
    let environment = environment(&[
        ("ORCHESTRATOR_LOG_LEVEL", "debug"),
        ("ORCHESTRATOR_SCHEDULER__MAX_PARALLEL", "many"),
        ("ORCHESTRATOR_SERVICES__SOURCE_WEATHER__EVERY", "sometimes"),
        ("COMPOSE_PROJECT_NAME", "Pulse"),
        ("AUTH_USERNAME", "me"),
        ("AUTH_USERNAME_FILE", "/me"),
    ]);
    let errors = Settings::load(&Sources { file: Some(file), environment, ..Sources::default() }).unwrap_err();
    let text = errors.to_string().replace(&format!("{}/", folder.0.display()), "");
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_no_yaml_is_an_error_with_its_line() {
    for (text, line, part) in [
        ("a: [1\nb: 2\n", ":2: ", "':'"),
        ("log:\n\tlevel: info\n", ":2: ", "tab"),
        ("log: {level: info,\n  level: debug}\n", ":2: ", "log.level: already set on line 1"),
        ("- a\n", ":1: ", "not a mapping"),
        ("log: {}\n---\nlog: {}\n", ":2: ", "more than one document"),
        ("log:\n  level: !new info\n", ":2: ", "the tag !new"),
    ] {
        let error = with_file("syntax", text).unwrap_err();
        assert!(error.contains(line) && error.contains(part), "{text}: {error}");
    }
}

#[test]
fn hostile_files_are_errors_in_bounded_time() {
    for text in
        ["{a: ".repeat(100_000), "[".repeat(100_000), "&a [*a]".into(), "a: &a [*a, *a]\n".into(), "\u{0}".into()]
    {
        assert!(with_file("hostile", &text).is_err());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_who_asked_for_it() {
    let folder = Folder::new("unreadable");
    let errors = with_variables(&[("ORCHESTRATOR_CONFIG", "/nonexistent/s.yaml")]).unwrap_err().to_string();
    assert!(errors.starts_with("ORCHESTRATOR_CONFIG: cannot read /nonexistent/s.yaml: "), "{errors}");
    let binary = folder.write("binary", [0xff, 0xfe, 0x00]);
    let errors = Settings::load(&Sources { file: Some(binary), ..Sources::default() }).unwrap_err().to_string();
    assert!(errors.starts_with("--config: cannot read "), "{errors}");
    let endless = Sources { file: Some("/dev/zero".into()), ..Sources::default() };
    let errors = Settings::load(&endless).unwrap_err().to_string();
    assert_eq!(errors, "--config: cannot read /dev/zero: not a regular file");
}

#[cfg(unix)]
#[test]
fn a_variable_of_ours_that_is_not_utf_8_is_an_error_and_another_is_not() {
    use std::os::unix::ffi::OsStringExt;
    let broken = || std::ffi::OsString::from_vec(vec![0xff]);
    let environment = Environment::new([("REDIS_URL".into(), broken()), ("UNRELATED".into(), broken())]);
    let errors = Settings::load(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert_eq!(errors.as_slice().len(), 1);
    assert!(matches!(errors.as_slice()[0].problem, Problem::NotUtf8));
}

/// Keys of the defaults that hold a value, not a mapping of keys.
fn keys_of_the_defaults() -> BTreeMap<String, serde_yaml::Value> {
    let defaults: serde_yaml::Mapping = serde_yaml::from_str(DEFAULTS).unwrap();
    let mut keys = BTreeMap::new();
    for (section, value) in defaults {
        let section = section.as_str().unwrap().to_owned();
        match value {
            serde_yaml::Value::Mapping(values) if !values.is_empty() => {
                keys.extend(
                    values.into_iter().map(|(key, value)| (format!("{section}.{}", key.as_str().unwrap()), value)),
                );
            }
            value => drop(keys.insert(section, value)),
        }
    }
    keys
}

/// The rows of the reference: key and default, as they are written between backticks.
fn rows_of_the_reference() -> BTreeMap<String, String> {
    let rows = REFERENCE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.strip_suffix('`')?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '*'));
        let default = cells.next()?.trim_matches('`');
        is_key.then(|| (key.to_owned(), default.to_owned()))
    });
    rows.collect()
}

#[test]
fn the_reference_has_every_key_with_its_default_and_no_other() {
    let (keys, rows) = (keys_of_the_defaults(), rows_of_the_reference());
    let documented: BTreeSet<_> = rows.keys().filter(|key| !key.contains('*')).collect();
    assert_eq!(documented, keys.keys().collect());
    for (key, value) in &keys {
        let documented: serde_yaml::Value = serde_yaml::from_str(&rows[key]).unwrap();
        assert_eq!(&documented, value, "{key}");
    }
}

#[test]
fn the_reference_has_every_key_of_a_service_and_no_other() {
    let error = with_file("known", "services: { x: { zzzzzz: 1 } }").unwrap_err();
    let known: BTreeSet<&str> = error.rsplit_once("known here are ").unwrap().1.split(", ").collect();
    let rows = rows_of_the_reference();
    let documented: BTreeSet<&str> = rows.keys().filter_map(|key| key.strip_prefix("services.*.")).collect();
    assert_eq!(documented, known);
    for key in known {
        let named = DEFAULTS.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key}: ")));
        assert!(named, "{key} is not in the example of the defaults");
    }
}

#[test]
fn every_variable_that_the_defaults_name_is_in_the_reference() {
    let mentioned =
        DEFAULTS.lines().filter_map(|line| line.split_once("Also ")).flat_map(|(_, names)| names.split([',', ';']));
    let names: Vec<&str> =
        mentioned.map(|name| name.trim().trim_end_matches('.')).filter(|name| !name.is_empty()).collect();
    let names = names.iter().filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let names: Vec<_> = names.collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(REFERENCE.contains(&format!("`{name}`")), "{name}");
    }
}

fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```{language}\n");
    REFERENCE
        .split("\n```")
        .filter_map(move |part| format!("```{part}").starts_with(&fence).then(|| part.split_once('\n'))?)
        .map(|(_, text)| text)
}

#[test]
fn the_examples_of_the_reference_are_valid() {
    assert!(blocks("yaml").count() >= 2 && blocks("sh").count() >= 1);
    for text in blocks("yaml") {
        with_file("example", text).unwrap();
    }
    for text in blocks("sh") {
        let variables: Vec<_> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
        assert!(with_variables(&variables).unwrap().warnings.is_empty());
    }
}

#[test]
fn without_the_preset_there_is_no_redis_until_one_is_named() {
    let none = ("ORCHESTRATOR_PRESET", "none");
    assert!(with_variables(&[none]).unwrap().redis.is_none());
    assert!(with_variables(&[]).unwrap().redis.is_some(), "the preset names one");
    assert!(with_variables(&[("REDIS_URL", "none")]).unwrap().redis.is_none());
    assert!(with_variables(&[none, ("REDIS_URL", "redis://cache")]).unwrap().redis.is_some());
    assert!(with_file("redis", "preset: none\nredis: {url: redis://cache}\n").unwrap().redis.is_some());
}

#[test]
fn credentials_for_no_redis_are_an_error() {
    let none = ("ORCHESTRATOR_PRESET", "none");
    for (variable, key) in [
        ("REDIS_PASSWORD", "redis.password"),
        ("REDIS_USERNAME", "redis.username"),
        ("ORCHESTRATOR_REDIS__DATABASE", "redis.database"),
    ] {
        let errors = with_variables(&[none, (variable, "3")]).unwrap_err().to_string();
        assert!(errors.contains(key) && errors.contains("redis.url is `none`"), "{errors}");
    }
}
