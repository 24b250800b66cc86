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

/// The names of all commands, as the help lists them.
fn commands(folder: &Folder) -> Vec<String> {
    let help = printed(folder, ("A", "b"), &["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).filter(|name| name != "help").collect()
}

#[test]
fn the_help_of_all_commands() {
    let folder = Folder::new();
    let mut all = printed(&folder, ("A", "b"), &["--help"]);
    for command in commands(&folder) {
        let help = printed(&folder, ("A", "b"), &[&command, "--help"]);
        all += &["\n$ ", &command, " --help\n", &help].concat();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn completions_and_the_manual_know_all_commands_also_while_the_settings_are_broken() {
    let folder = Folder::new();
    folder.write("broken.yaml", "nonsense: [");
    let names = commands(&folder);
    assert!(names.len() > 20, "{names:?}");
    let broken = ("ORCHESTRATOR_CONFIG", "broken.yaml");
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&folder, broken, &["completions", shell]);
        assert!(names.iter().all(|name| script.contains(name)), "{shell}");
    }
    let manual = printed(&folder, broken, &["man"]);
    for name in names {
        let section = manual.split(&format!(".SH {}\n", name.to_uppercase())).nth(1);
        assert!(section.is_some_and(|section| section.contains(".SS SYNOPSIS\n")), "{name}");
    }
    assert!(manual.contains("\\-\\-detach") && manual.contains("130 cancelled"), "{manual}");
    assert!(!manual.contains("(1)\n"), "there are no other pages");
}

#[test]
fn run_without_a_name_is_wrong_usage_and_names_the_daemon() {
    let output = Command::new(env!("CARGO_BIN_EXE_sense-orchestrator")).arg("run").env_clear().assert().code(2);
    let text = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(text.contains("sense-orchestrator daemon"), "{text}");
}

#[test]
fn config_prints_the_hashes_that_containers_are_labelled_with() {
    let folder = Folder::new();
    folder.write("compose.yaml", "{name: p, services: {a: {image: x, depends_on: [b]}, b: {image: x}}}");
    let hashes = ["2.26.1", "2.40.3"].map(|version| {
        let dialect = ("ORCHESTRATOR_COMPOSE__DIALECT", version);
        let hash = printed(&folder, dialect, &["config", "--hash", "a"]);
        let rendered: Value = serde_json::from_str(&printed(&folder, dialect, &["render", "a", "--offline"])).unwrap();
        let label = rendered["body"]["Labels"]["com.docker.compose.config-hash"].as_str().unwrap();
        assert_eq!(hash, format!("a {label}\n"), "{version}");
        hash
    });
    assert_ne!(hashes[0], hashes[1], "depends_on is hashed by the older one only");
}

#[test]
fn a_project_behind_a_symbolic_link_is_called_and_placed_as_the_link_says() {
    let folder = Folder::new();
    for name in ["real", "real/sub", "other"] {
        std::fs::create_dir(folder.0.join(name)).unwrap();
    }
    folder.write("real/compose.yaml", "services: {a: {image: x, volumes: ['./v:/v']}}");
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(folder.0.join("real"), &link).unwrap();
    let config = |below: &str, shell: &str, arguments: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_sense-orchestrator"))
            .args(arguments)
            .current_dir(link.join(below))
            .env_clear()
            .envs([("ORCHESTRATOR_PRESET", "none"), ("DOCKER_HOST", "unix:///nowhere")])
            .env("PWD", folder.0.join(shell))
            .assert()
            .success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    };
    for (below, shell, arguments, name) in [
        ("", "link", &["config"][..], "link"),
        ("sub", "link/sub", &["config"], "link"),
        ("", "link", &["--file", "compose.yaml", "config"], "link"),
        ("", "other", &["config"], "real"),
        ("", "gone", &["config"], "real"),
    ] {
        let config = config(below, shell, arguments);
        let source = config["services"]["a"]["volumes"][0]["source"].as_str().unwrap();
        assert_eq!(config["name"], name, "{arguments:?} in {below:?} of {shell}");
        assert_eq!(source, folder.0.join(name).join("v").to_string_lossy(), "{arguments:?} in {below:?} of {shell}");
    }
}
