//! The traps of Compose files: `tests/fixtures/traps` loads as `scripts/record-golden` saw the real `docker compose` load it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sense_orchestrator::compose::print::config_json;
use sense_orchestrator::compose::{self, FileKind, Files, LoadErrors, Options};
use sense_orchestrator::spec::{Dialect, hash};
use serde_json::{Value, json};

/// Where `scripts/record-golden` copied each fixture to: paths are part of the result.
const PLACE: &str = "/tmp/compose-golden";

/// A fixture's folder, seen as if it were at another place.
struct Moved {
    from: PathBuf,
    to: PathBuf,
}

impl Moved {
    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        match path.strip_prefix(&self.to) {
            Ok(rest) => Ok(self.from.join(rest)),
            Err(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Files for Moved {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(self.real(path)?)
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let kind = std::fs::metadata(self.real(path)?)?;
        Ok(if kind.is_dir() { FileKind::Directory } else { FileKind::File })
    }
}

fn options(case: &Value, folder: &Path) -> Options {
    let mut options = Options { working_dir: folder.to_owned(), ..Options::default() };
    options.environment.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    options.environment.insert("PWD".to_owned(), folder.to_str().unwrap().to_owned());
    for (name, value) in case["environment"].as_object().into_iter().flatten() {
        options.environment.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    let all_profiles = vec![json!("--profile"), json!("*")];
    for pair in case["arguments"].as_array().unwrap_or(&all_profiles).chunks(2) {
        let value = pair[1].as_str().unwrap();
        match pair[0].as_str().unwrap() {
            "-f" => options.files.push(value.into()),
            "-p" => options.project_name = Some(value.to_owned()),
            "--profile" => options.profiles.push(value.to_owned()),
            other => panic!("case.json has the unknown argument {other}"),
        }
    }
    options
}

/// The project and its hashes, in the form of the golden files.
fn loaded(fixture: &Path) -> Result<Value, LoadErrors> {
    let place = Path::new(PLACE).join(fixture.file_name().unwrap());
    let case =
        std::fs::read(fixture.join("case.json")).map_or(json!({}), |text| serde_json::from_slice(&text).unwrap());
    let files = Moved { from: fixture.to_owned(), to: place.clone() };
    let model = compose::load(&files, &options(&case, &place))?;
    let project = model.select(&files, &[])?.without_label_files();
    // Compose hashes what the file says: env files are not merged into it.
    let unread = model.select_for_stop(&files, &[])?.without_label_files();
    let hashes: BTreeMap<_, _> = unread
        .services
        .iter()
        .map(|(name, service)| (name.to_string(), hash::service(service, Dialect::default()).unwrap()))
        .collect();
    let config: Value = serde_json::from_str(&config_json(&project).unwrap()).unwrap();
    Ok(json!({ "config": config, "hashes": hashes }))
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traps");
    let mut fixtures: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    fixtures.sort();
    fixtures
}

fn golden(fixture: &Path) -> Value {
    let name = fixture.file_name().unwrap().to_str().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/golden/compose/{name}.json"));
    let text =
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}, run scripts/record-golden", path.display()));
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn every_trap_loads_as_the_real_compose_loads_it() {
    let mut differing = Vec::new();
    for fixture in fixtures() {
        let golden = golden(&fixture);
        match loaded(&fixture) {
            Ok(ours) if ours["config"] == golden["config"] && ours["hashes"] == golden["hashes"] => {}
            Err(_) if golden["rejected"].is_string() => {}
            Ok(ours) => differing.push(format!("{}\nours: {ours}\ntheirs: {golden}", fixture.display())),
            Err(errors) => differing.push(format!("{}\nours: {errors}\ntheirs: {golden}", fixture.display())),
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

#[test]
fn what_compose_rejects_is_told_with_its_place() {
    let mut told = String::new();
    for fixture in fixtures() {
        if let Some(theirs) = golden(&fixture)["rejected"].as_str() {
            let ours = loaded(&fixture).unwrap_err();
            let theirs = theirs.replace('\n', " ");
            let ours = ours.to_string().replace('\n', "\n         ");
            told = told + "compose: " + &theirs + "\n   here: " + &ours + "\n";
        }
    }
    insta::assert_snapshot!(told);
}
