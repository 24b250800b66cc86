//! Whatever stands where a file is expected, reading it ends at once, and says which file and why.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use sense_orchestrator::compose::Options;
use sense_orchestrator::engine::docker::ClientConfig;
use sense_orchestrator::projects::Projects;
use sense_orchestrator::settings::{Environment, Settings, Sources};

use crate::support::stack::Folder;

/// Things that are no file, or no file that anything should be read from.
const KINDS: [&str; 4] = ["fifo", "endless", "sparse", "directory"];

/// Puts a thing of a kind at a path.
fn place(kind: &str, path: &Path) {
    match kind {
        "fifo" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "endless" => symlink("/dev/zero", path).unwrap(),
        "sparse" => File::create(path).unwrap().set_len(1 << 30).unwrap(),
        _ => std::fs::create_dir(path).unwrap(),
    }
}

/// What `read` says, which has to be soon: a FIFO without a writer would hold it up for ever.
fn soon<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(read()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("the reader is held up")
}

fn refused(kind: &str, said: &str) {
    let reason = ["not a regular file", "larger than", "is a directory", "is not a file"];
    assert!(reason.iter().any(|reason| said.contains(reason)), "{kind}: {said}");
}

/// The project of a folder, narrowed to its service `a`, or what is wrong with it.
fn project(folder: PathBuf) -> Result<String, String> {
    soon(move || {
        let options = Options { working_dir: folder, ..Options::default() };
        let projects = Projects::open(options).map_err(|errors| errors.to_string())?;
        let name = "a".parse().unwrap();
        let project = projects.select(&name, None).map_err(|errors| errors.to_string())?;
        let files = projects.client_files(&project, &name);
        files.map(|files| format!("{files:?}")).map_err(|failure| {
            let source = std::error::Error::source(&failure).map(ToString::to_string);
            format!("{failure}: {}", source.unwrap_or_default())
        })
    })
}

#[test]
fn no_file_of_a_project_holds_the_daemon_up() {
    for kind in KINDS {
        for (file, service) in [
            ("compose.yaml", ""),
            ("other.yaml", "extends: {file: other.yaml, service: a}"),
            ("my.env", "env_file: my.env"),
            ("labels", "label_file: labels"),
            ("seccomp.json", "security_opt: ['seccomp:seccomp.json']"),
            (".env", ""),
        ] {
            // A folder called `.env` is no env file to Compose, and is not looked at.
            if (kind, file) == ("directory", ".env") {
                continue;
            }
            let folder = Folder::new();
            if file != "compose.yaml" {
                folder.write("compose.yaml", &format!("services:\n  a:\n    image: x\n    {service}\n"));
            }
            place(kind, &folder.0.join(file));
            let said = project(folder.0.clone()).unwrap_err();
            refused(&format!("{kind} as {file}"), &said);
            assert!(said.contains(file), "{kind} as {file}: {said}");
        }
    }
}

#[test]
fn no_file_of_the_settings_holds_the_daemon_up() {
    for kind in KINDS {
        for variable in ["ORCHESTRATOR_CONFIG", "REDIS_PASSWORD_FILE", "REDIS_URL_FILE"] {
            let folder = Folder::new();
            let path = folder.0.join("holder");
            place(kind, &path);
            let said = soon(move || {
                let environment = Environment::new([(variable.into(), path.into_os_string())]);
                Settings::load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string()
            });
            refused(&format!("{kind} as {variable}"), &said);
            assert!(said.contains("holder"), "{said}");
        }
    }
}

#[test]
fn a_client_configuration_that_is_no_file_counts_as_empty() {
    for kind in KINDS {
        let folder = Folder::new();
        place(kind, &folder.0.join("config.json"));
        let path = folder.0.clone();
        assert_eq!(soon(move || ClientConfig::load(Some(&path)).registry_config()), None, "{kind}");
    }
}
