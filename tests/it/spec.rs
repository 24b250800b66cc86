//! Create bodies against those that the real `docker compose` sent for the same files, recorded on two Engines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use sense_orchestrator::compose::{self, FileKind, Files, Model, Options};
use sense_orchestrator::engine::ApiVersion;
use sense_orchestrator::names::ServiceName;
use sense_orchestrator::spec::{
    Dialect, OneOff, Peer, Slug, SpecError, SpecOptions, files, network_body, one_off, service_container, volume_body,
};
use serde_json::{Map, Value};

/// Where `scripts/parity-engine` copies a case to: paths are part of hashes.
const RECORDED_AT: &str = "/srv/parity-engine";
/// What the script writes in the place of the stand-in image's id.
const IMAGE_ID: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const OVERRIDE: &str = "parity-override.yaml";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The fixtures at the place where they were recorded.
struct Recorded;

impl Recorded {
    fn real(path: &Path) -> io::Result<PathBuf> {
        let inside = path.strip_prefix(RECORDED_AT).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(fixtures().join("parity").join(inside))
    }
}

impl Files for Recorded {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.ends_with(OVERRIDE) { Ok(b"services: {}\n".to_vec()) } else { std::fs::read(Self::real(path)?) }
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        if path.ends_with(OVERRIDE) {
            return Ok(FileKind::File);
        }
        let kind = std::fs::metadata(Self::real(path)?)?.file_type();
        Ok(if kind.is_dir() { FileKind::Directory } else { FileKind::File })
    }
}

struct Golden {
    title: String,
    record: Value,
    model: Model,
}

impl Golden {
    fn load(path: &Path) -> Self {
        let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |key: &str| record[key].as_str().unwrap().to_owned();
        let directory = Path::new(RECORDED_AT).join(text("case"));
        let options = Options {
            working_dir: directory.clone(),
            files: vec![directory.join("compose.yaml"), directory.join(OVERRIDE)],
            project_name: Some(text("project")),
            profiles: vec!["*".to_owned()],
            environment: [("HOME".to_owned(), text("home"))].into(),
            ..Options::default()
        };
        let model = compose::load(&Recorded, &options).unwrap();
        Self { title: path.file_stem().unwrap().to_string_lossy().into_owned(), record, model }
    }

    fn api(&self) -> ApiVersion {
        self.record["api"].as_str().unwrap().parse().unwrap()
    }

    fn dialect(&self) -> Dialect {
        self.record["version"].as_str().unwrap().parse().unwrap()
    }

    fn options(&self) -> SpecOptions {
        let mut options = SpecOptions::new(self.api(), self.dialect());
        options.image_id = Some(IMAGE_ID.to_owned());
        for (service, peers) in self.record["peers"].as_object().unwrap() {
            for peer in peers.as_array().unwrap() {
                let text = |key: &str| peer[key].as_str().unwrap().to_owned();
                options.peers.add(service, Peer { name: text("name"), id: text("id") });
            }
        }
        options
    }

    /// Compares everything recorded with ours; the differences, each with its place.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, recorded) in self.record["containers"].as_object().unwrap() {
            let labels = &recorded["body"]["Labels"];
            let label = |key: &str| labels[format!("com.docker.compose.{key}")].as_str().unwrap();
            let service: ServiceName = label("service").parse().unwrap();
            let (project, options) = self.selected(&service);
            let number = label("container-number").parse().unwrap();
            match service_container(&project, &service, number, None, &options) {
                Ok(ours) => differences(name, &meaning(&serde_json::to_value(ours).unwrap()), recorded, &mut wrong),
                // Where we see it first, the Engine refused the body.
                Err(_) if self.record["peers"][service.as_str()].is_null() => {}
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
            for key in project.networks.keys() {
                if let Some(body) = network_body(&project, key, options.api, options.dialect).unwrap() {
                    let recorded = &self.record["networks"][&body.body.name];
                    differences(key, &meaning(&serde_json::to_value(body).unwrap()), recorded, &mut wrong);
                }
            }
            for key in project.volumes.keys() {
                if let Some(body) = volume_body(&project, key, options.dialect).unwrap() {
                    let recorded = &self.record["volumes"][body.name.as_ref().unwrap()];
                    differences(key, &meaning(&serde_json::to_value(body).unwrap()), recorded, &mut wrong);
                }
            }
        }
        for (service, recorded) in self.record["one_offs"].as_object().unwrap() {
            let service: ServiceName = service.parse().unwrap();
            let (project, options) = self.selected(&service);
            let run = OneOff {
                slug: Slug::new([0xab; 24], &project.name, &service),
                environment: BTreeMap::from([("PARITY".to_owned(), Some("1".to_owned()))]),
            };
            match one_off(&project, &service, &run, &options) {
                Ok(mut ours) => {
                    let labels = ours.body.body.labels.as_mut().unwrap();
                    let slug = labels.remove("com.docker.compose.slug").unwrap();
                    assert!(Slug::is_ours(&slug, &project.name, &service));
                    differences(
                        &ours.name.clone(),
                        &meaning(&serde_json::to_value(ours).unwrap()),
                        recorded,
                        &mut wrong,
                    );
                }
                Err(error) => wrong.push(format!("run {service}: {error}")),
            }
        }
        wrong
    }

    fn selected(&self, service: &ServiceName) -> (compose::project::Project, SpecOptions) {
        let project = self.model.select(&Recorded, std::slice::from_ref(service)).unwrap();
        let mut options = self.options();
        for path in files::referenced_files(&project, &project.services[service]) {
            if let Ok(content) = Recorded.read(Path::new(&path)) {
                options.client_files.insert(path, String::from_utf8(content).unwrap());
            }
        }
        (project, options)
    }

    /// Services that the real thing sent no body of, with what we say about them.
    fn refused(&self) -> BTreeMap<String, Result<(), SpecError>> {
        let bodies = self.record["containers"].as_object().unwrap().values();
        let made: BTreeSet<&str> =
            bodies.map(|body| body["body"]["Labels"]["com.docker.compose.service"].as_str().unwrap()).collect();
        let names = self.model.services().map(|(name, _)| name.clone()).filter(|name| !made.contains(name.as_str()));
        names
            .map(|name| {
                let (project, options) = self.selected(&name);
                let ours = service_container(&project, &name, 1, None, &options).map(|_| ());
                (name.to_string(), ours)
            })
            .collect()
    }
}

/// Empty lists and objects that the Engine tells from absent ones, as in `scripts/parity-engine`.
const EMPTY_COUNTS: [&str; 14] = [
    "ExtraHosts",
    "PortBindings",
    "IPAMConfig",
    "Cmd",
    "Entrypoint",
    "VolumeOptions",
    "BindOptions",
    "TmpfsOptions",
    "ImageOptions",
    "MaskedPaths",
    "ReadonlyPaths",
    "Healthcheck",
    "ExposedPorts",
    "IPAM",
];
const TEXT_MAPS: [&str; 8] =
    ["Labels", "Tmpfs", "Sysctls", "StorageOpt", "DriverOpts", "Annotations", "Config", "Options"];
/// Maps of names of our own, in which every entry counts.
const NAMED: [&str; 3] = ["ExposedPorts", "EndpointsConfig", "PortBindings"];

/// A body without what the Engine takes as absent, in the order of the recorded ones.
fn meaning(value: &Value) -> Value {
    of_key(value, "")
}

fn of_key(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(members) if TEXT_MAPS.contains(&key) && members.values().all(Value::is_string) => {
            let mut members = members.clone();
            if let Some(Value::String(depends)) = members.get_mut("com.docker.compose.depends_on") {
                *depends = sorted(depends.split(',')).join(",");
            }
            Value::Object(members)
        }
        Value::Object(members) => {
            let kept = |(name, item): (&String, &Value)| {
                let item = of_key(item, name);
                let counts = NAMED.contains(&key)
                    || EMPTY_COUNTS.contains(&name.as_str()) && !item.is_null()
                    || !is_empty(&item);
                counts.then(|| (name.clone(), item))
            };
            Value::Object(members.iter().filter_map(kept).collect())
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(meaning).collect();
            match key {
                "Env" | "Binds" | "ExtraHosts" => items.sort_by_key(|item| item.as_str().unwrap().to_owned()),
                "Mounts" => items.sort_by_key(|item| item["Target"].as_str().unwrap().to_owned()),
                "Ulimits" => items.sort_by_key(|item| item["Name"].as_str().unwrap().to_owned()),
                _ => {}
            }
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn sorted<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    items.collect::<BTreeSet<_>>().into_iter().collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn differences(place: &str, ours: &Value, recorded: &Value, found: &mut Vec<String>) {
    match (ours, recorded) {
        (Value::Object(ours), Value::Object(recorded)) => {
            let none = Map::new();
            for key in ours.keys().chain(recorded.keys()).collect::<BTreeSet<_>>() {
                let side = |members: &Map<String, Value>| members.get(key).or(none.get(key)).cloned();
                // `connect` and `platform` are there without a value as well.
                let (ours, recorded) = (side(ours).unwrap_or_default(), side(recorded).unwrap_or_default());
                if !(place.find('.').is_none() && is_empty(&ours) && is_empty(&recorded)) {
                    differences(&format!("{place}.{key}"), &ours, &recorded, found);
                }
            }
        }
        _ if ours == recorded => {}
        _ => found.push(format!("{place}: ours {ours}, recorded {recorded}")),
    }
}

fn goldens() -> Vec<Golden> {
    let entries = std::fs::read_dir(fixtures().join("golden/engine")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 2, "no golden files");
    paths.iter().map(|path| Golden::load(path)).collect()
}

#[test]
fn our_bodies_are_those_that_docker_compose_sent() {
    let mut wrong = Vec::new();
    for golden in goldens() {
        wrong.extend(golden.check().into_iter().map(|line| format!("{}: {line}", golden.title)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_docker_compose_refused_is_refused_by_name() {
    let mut lines = String::new();
    for golden in goldens() {
        for (service, ours) in golden.refused() {
            let error = ours.expect_err(&service);
            writeln!(lines, "{} {service}: {error}", golden.title).unwrap();
        }
    }
    insta::assert_snapshot!(lines);
}
