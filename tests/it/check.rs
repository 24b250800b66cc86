//! `check`, and `check --strict` for CI: all that is wrong, at once, with its place.

use assert_cmd::Command;

use crate::daemon::Site;
use crate::support::stack::Folder;

/// What `check` prints to stdout and stderr, and its exit code.
fn check(folder: &Folder, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_sense-orchestrator"))
        .arg("check")
        .args(arguments)
        .current_dir(&folder.0)
        .env_clear()
        .envs([("ORCHESTRATOR_CONFIG", "s.yaml"), ("DOCKER_HOST", "unix:///nowhere"), ("COMPOSE_PROFILES", "nigth")])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

const COMPOSE: &str = "name: p
services:
  backup: {image: x, profiles: [night]}
  web:
    image: x
    restart: always
  db:
    image: x
    deploy: {restart_policy: {condition: any}}
  odd:
    image: x
    provider: {type: model}
";

const SETTINGS: &str = "preset: none
services:
  bakcup: {every: 1h}
  web: {every: 1m}
  db: {every: 1m}
  odd: {every: 1m}
  backup:
    every: 1h
    profile: nigt
actions:
  save:
    - run: backup
    - run: backpu
  any: [{run: '{params.service}'}]
reactions:
  done: [{stop: wep}]
config_changes:
  x: {service: wbe, when_changed: warn}
commands: {deny: [database], profiles: [night, day]}
";

#[test]
fn a_strict_check_names_all_that_names_nothing_or_cannot_work_with_its_place() {
    let folder = Folder::new();
    folder.write("compose.yaml", COMPOSE);
    folder.write("s.yaml", SETTINGS);
    let (_, errors, code) = check(&folder, &["--strict"]);
    insta::assert_snapshot!(errors.replace(&folder.0.display().to_string(), "…"), @r#"
    s.yaml:9: services.backup.profile: no service of the Compose file has the profile nigt; did you mean `night`?
    s.yaml:3: services.bakcup: no service bakcup in the Compose file; did you mean `backup`?
    s.yaml:5: services.db.every: the service's `deploy.restart_policy.condition` is any (compose.yaml:9:31): it runs all the time already
    s.yaml:4: services.web.every: the service's `restart` is always (compose.yaml:6:5): it runs all the time already
    s.yaml:13: actions.save: no service backpu in the Compose file; did you mean `backup`?
    s.yaml:16: reactions.done: no service wep in the Compose file; did you mean `web`?
    s.yaml:18: config_changes.x.service: no service wbe in the Compose file; did you mean `web`?
    s.yaml:19: commands.deny: no service database in the Compose file
    s.yaml:19: commands.profiles: no service of the Compose file has the profile day
    COMPOSE_PROFILES: compose.profiles: no service of the Compose file has the profile nigth; did you mean `night`?
    compose.yaml:12:5: service "odd" uses `provider`, which is not supported: the service is run by a Compose plugin
    "#);
    assert_eq!(code, Some(1));
    let (text, errors, code) = check(&folder, &[]);
    assert_eq!((errors.as_str(), code), ("", Some(0)), "{text}");
    assert!(text.contains("warning: s.yaml:3: services.bakcup: "), "{text}");
}

#[test]
fn a_strict_check_of_a_stack_that_holds_together_is_quiet_also_where_the_preset_names_more() {
    let folder = Folder::new();
    folder.write("compose.yaml", "{name: p, services: {backup: {image: x, profiles: [nigth], restart: 'no'}}}");
    for settings in ["{preset: none, services: {backup: {every: 1h}}}", "{services: {backup: {every: 1h}}}"] {
        folder.write("s.yaml", settings);
        let (text, errors, code) = check(&folder, &["--strict"]);
        assert_eq!((errors.as_str(), code), ("", Some(0)), "{text}");
    }
}

#[test]
fn what_cannot_be_read_stays_78_and_hides_no_later_stage() {
    let folder = Folder::new();
    folder.write("compose.yaml", "name: p\nservices:\n  a: {image: x}\n  b: {imge: x}\n");
    folder.write("s.yaml", "preset: none\nservices:\n  c: {evry: 1h}\n");
    let (_, errors, code) = check(&folder, &["--strict"]);
    assert!(errors.contains("s.yaml:3: services.c.evry: ") && errors.contains("imge"), "{errors}");
    assert_eq!(code, Some(78));
    folder.write("compose.yaml", "name: p\nservices:\n  a: {image: x}\n");
    let (_, errors, code) = check(&folder, &["--strict"]);
    assert!(errors.contains("s.yaml:3: services.c.evry: "), "{errors}");
    assert!(errors.contains("s.yaml:3: services.c: no service c in the Compose file"), "{errors}");
    assert_eq!(code, Some(78));
}

#[test]
fn the_hash_of_a_service_that_is_not_there_is_an_error_and_that_of_a_disabled_one_is_printed() {
    let folder = Folder::new();
    folder.write("compose.yaml", COMPOSE);
    let hash = |service: &str| {
        Command::new(env!("CARGO_BIN_EXE_sense-orchestrator"))
            .args(["config", "--hash", service])
            .current_dir(&folder.0)
            .env_clear()
            .envs([("ORCHESTRATOR_PRESET", "none"), ("DOCKER_HOST", "unix:///nowhere")])
            .assert()
    };
    let failed = hash("web,nosuch").code(1);
    assert!(String::from_utf8_lossy(&failed.get_output().stderr).contains("no such service: nosuch"));
    let printed = hash("backup").success();
    assert!(String::from_utf8_lossy(&printed.get_output().stdout).starts_with("backup "));
}

#[tokio::test]
async fn where_an_engine_and_a_daemon_answer_missing_images_and_the_intervals_in_force_are_told() {
    let services =
        "  a: {image: IMAGE, command: ['true']}\n  b: {image: 'sense-no-such-image:0', pull_policy: never}\n";
    let settings = "services: {a: {every: 1h}, b: {every: 2h}}\nscheduler: {first_run: next_slot}\n";
    let Some(site) = Site::new(services, settings).await else { return };
    let mut daemon = site.start();
    daemon.says("scheduled", None).await;
    let output = site.command(&["check", "--strict"]).output().await.unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("compose.yaml:4:") && errors.contains("no image sense-no-such-image:0"), "{errors}");
    assert!(text.contains("in force in the running daemon") && text.contains("  b: every 2h"), "{text}");
    daemon.signal("-TERM");
    assert!(daemon.ends().await.success());
    site.close().await;
}

/// Values that no container can be made of, each from a variable.
const UNUSABLE: [&str; 8] = [
    "restart: '${PW}'",
    "isolation: '${PW}'",
    "security_opt: ['${PW}']",
    "security_opt: ['seccomp:${PW}.json']",
    "pull_policy: 'every_${PW}'",
    "volumes: [{type: volume, source: '${PW}', target: /x}]",
    "network_mode: 'container:${PW}'",
    "mem_limit: '${PW}'",
];

#[test]
fn check_names_the_variable_whose_value_no_container_can_be_made_of_and_not_the_value() {
    for line in UNUSABLE {
        let folder = Folder::new();
        folder.write(".env", "PW=Hunter2Passw0rd\n");
        folder.write("compose.yaml", &format!("name: p\nservices:\n  weather:\n    image: x\n    {line}\n"));
        folder.write("s.yaml", "preset: none\nservices: {weather: {every: 1h}}\n");
        let (text, errors, _) = check(&folder, &["--strict"]);
        let told = format!("{text}{errors}").to_lowercase();
        assert!(!told.contains("hunter2") && !told.contains("passw0rd"), "{line}: {told}");
    }
}
