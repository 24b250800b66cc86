//! `docs/compose.md` says of every key of a service what becomes of it: here it has to prove it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sense_orchestrator::compose::{self, FileKind, Files, LoadErrors, Options};
use sense_orchestrator::engine::ApiVersion;
use sense_orchestrator::names::ServiceName;
use sense_orchestrator::spec::{Dialect, Peer, SpecError, SpecOptions, hash, service_container};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/compose.md");

/// The keys in the table under a heading.
fn documented(heading: &str) -> Vec<&'static str> {
    let (_, section) = DOCUMENT.split_once(&format!("\n### {heading}")).unwrap();
    let section = section.split("\n#").next().unwrap();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// A value that is not the default, for each key.
fn sample(key: &str) -> &'static str {
    match key {
        "annotations" | "environment" | "labels" | "sysctls" | "storage_opt" => "{k: v}",
        "attach" => "false",
        "security_opt" => "['no-new-privileges:true']",
        "blkio_config" => "{weight: 5}",
        "build" => "{context: .}",
        "cap_add" | "cap_drop" | "dns_search" | "dns_opt" | "external_links" | "group_add" => "[value]",
        "cgroup" => "private",
        "command" | "entrypoint" => "[word]",
        "configs" => "[c]",
        "secrets" => "[s]",
        "cpu_count" | "cpu_percent" | "cpu_period" | "cpu_quota" | "cpu_rt_period" | "cpu_rt_runtime"
        | "cpu_shares" | "oom_score_adj" | "pids_limit" | "mem_swappiness" | "cpus" | "scale" => "5",
        "cpuset" | "container_name" | "cgroup_parent" | "domainname" | "hostname" | "runtime" | "user"
        | "userns_mode" | "image" | "ipc" | "uts" | "pid" | "stop_signal" | "working_dir" => "value",
        "credential_spec" => "{config: value}",
        "depends_on" | "links" | "volumes_from" => "[other]",
        "deploy" => "{resources: {limits: {pids: 7}}}",
        "develop" => "{watch: [{path: ./p, action: rebuild}]}",
        "device_cgroup_rules" => "['c 1:3 mr']",
        "devices" => "['/dev/null:/dev/value']",
        "dns" => "1.1.1.1",
        "env_file" | "label_file" => "empty.env",
        "expose" => "[80]",
        "extends" => "base",
        "extra_hosts" => "['h=1.2.3.4']",
        "gpus" => "all",
        "healthcheck" => "{test: value}",
        "isolation" => "hyperv",
        "init" | "oom_kill_disable" | "privileged" | "read_only" | "stdin_open" | "tty" | "use_api_socket" => "true",
        "logging" => "{driver: none}",
        "mac_address" => "'02:42:ac:11:65:43'",
        "mem_limit" | "mem_reservation" | "memswap_limit" | "shm_size" => "64m",
        "models" => "[m]",
        "network_mode" => "host",
        "networks" => "[n]",
        "platform" => "linux/arm64",
        "ports" => "['8080:80']",
        "post_start" | "pre_stop" => "[{command: value}]",
        "profiles" => "[p]",
        "provider" => "{type: value}",
        "pull_policy" | "restart" => "always",
        "pull_refresh_after" | "stop_grace_period" => "5s",
        "tmpfs" => "/t",
        "ulimits" => "{nofile: 5}",
        "volumes" => "['/a:/b']",
        other => panic!("docs/compose.md has the key {other}, which has no sample here"),
    }
}

struct OneFile(String);

impl Files for OneFile {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("compose.yaml") => Ok(self.0.clone().into_bytes()),
            Some("empty.env") => Ok(Vec::new()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.read(path).map(|_| FileKind::File)
    }
}

/// The create request, without the labels that tell of the configuration only, and the config hash.
fn rendered(key: &str, value: &str) -> Result<Result<(Value, String), SpecError>, LoadErrors> {
    let image = if key == "image" { "" } else { "    image: x\n" };
    let text = format!(
        "name: p\nservices:\n  a:\n{image}    {key}: {value}\n  base: {{image: x}}\n  other: {{image: x}}\nnetworks: {{n: }}\n\
         secrets: {{s: {{file: ./s}}}}\nconfigs: {{c: {{file: ./c}}}}\nmodels: {{m: {{model: x}}}}\n"
    );
    let options = Options {
        working_dir: "/p".into(),
        profiles: vec!["*".to_owned()],
        environment: BTreeMap::new(),
        ..Options::default()
    };
    let files = OneFile(text);
    let project = compose::load(&files, &options)?.select(&files, &[])?;
    let name: ServiceName = "a".parse().unwrap();
    let mut options = SpecOptions::new(ApiVersion { major: 1, minor: 51 }, Dialect::default());
    options.peers.add("other", Peer { name: "p-other-1".to_owned(), id: "f".repeat(64) });
    let hash = hash::service(&project.services[&name], Dialect::default()).unwrap();
    Ok(service_container(&project, &name, 1, None, &options).map(|container| {
        let mut body = serde_json::to_value(container).unwrap();
        forget(&mut body);
        (body, hash)
    }))
}

fn forget(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|key, _| {
            !matches!(key.as_str(), "com.docker.compose.config-hash" | "com.docker.compose.depends_on")
        });
        map.values_mut().for_each(forget);
    }
}

fn body(key: &str, value: &str) -> (Value, String) {
    rendered(key, value)
        .unwrap_or_else(|errors| panic!("{key}: {errors}"))
        .unwrap_or_else(|error| panic!("{key}: {error}"))
}

#[test]
fn a_key_of_the_first_table_changes_the_create_request() {
    let (without, _) = body("x-none", "1");
    for key in documented("In the request") {
        assert_ne!(body(key, sample(key)).0, without, "{key}");
    }
}

#[test]
fn a_key_that_is_honoured_elsewhere_or_carried_leaves_the_create_request_alone() {
    let (without, _) = body("x-none", "1");
    for key in [documented("Honoured elsewhere"), documented("Carried")].concat() {
        // A link adds the aliases of the containers that are there.
        if key != "links" {
            assert_eq!(body(key, sample(key)).0, without, "{key}");
        }
    }
}

#[test]
fn a_carried_key_is_part_of_the_hash_unless_compose_ignores_it_too() {
    let (_, without) = body("x-none", "1");
    for key in documented("Carried") {
        assert_eq!(body(key, sample(key)).1 != without, key != "pull_refresh_after", "{key}");
    }
}

#[test]
fn a_refused_key_loads_and_is_named_when_the_service_is_to_run() {
    for key in documented("Refused") {
        let refused = rendered(key, sample(key)).unwrap().unwrap_err();
        assert!(matches!(refused, SpecError::Unsupported { key: named, .. } if named == key), "{key}: {refused}");
    }
}
