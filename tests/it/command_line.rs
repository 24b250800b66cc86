//! The subcommands that look and print: they need no Engine.

use assert_cmd::Command;
use serde_json::Value;

use crate::support::stack::Folder;

/// What the binary prints in a folder, with the defaults and one variable.
fn printed(folder: &Folder, variable: (&str, &str), arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sense-orchestrator"))
        .args(arguments)
        .current_dir(&folder.0)
        .env_clear()
        .envs([("ORCHESTRATOR_PRESET", "none"), ("DOCKER_HOST", "unix:///nowhere"), variable])
        .assert()
        .success();
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

#[test]
fn the_home_of_who_starts_it_is_that_of_the_compose_file() {
    let folder = Folder::new();
    folder.write("compose.yaml", "{name: p, services: {a: {image: x, volumes: ['~/a:/a', '${HOME}/b:/b']}}}");
    let config: Value = serde_json::from_str(&printed(&folder, ("HOME", "/home/me"), &["config"])).unwrap();
    let volumes = &config["services"]["a"]["volumes"];
    assert_eq!((&volumes[0]["source"], &volumes[1]["source"]), (&"/home/me/a".into(), &"/home/me/b".into()));
}
