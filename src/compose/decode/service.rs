//! A service, field by field, in the order of its type.

use std::collections::BTreeMap;

use super::super::error::LoadError;
use super::super::jobs;
use super::super::project::{
    BindOptions, Condition, CredentialSpec, Dependency, Device, EnvFile, FileReference, HealthCheck, ImageOptions,
    Logging, Mount, Port, Service, ServiceModel, ServiceNetwork, TmpfsOptions, Ulimit, VolumeOptions,
};
use super::super::short;
use super::super::yaml::{Entry, Kind, Node};
use super::parts::{blkio, build, deploy, develop, device_request, hook, provider};
use super::reader::{Reader, json, within_extensions};
use crate::names::ServiceName;

#[allow(clippy::too_many_lines, reason = "one line a field")]
pub(super) fn service(reader: &Reader<'_>) -> Service {
    Service {
        profiles: reader.strings("profiles"),
        annotations: reader.string_map("annotations"),
        attach: reader.boolean("attach"),
        build: reader.with("build", build),
        develop: reader.with("develop", develop),
        blkio_config: reader.with("blkio_config", blkio),
        cap_add: reader.strings("cap_add"),
        cap_drop: reader.strings("cap_drop"),
        cgroup_parent: reader.string("cgroup_parent"),
        cgroup: reader.string("cgroup"),
        cpu_count: reader.integer("cpu_count").unwrap_or_default(),
        cpu_percent: reader.cpus("cpu_percent"),
        cpu_period: reader.integer("cpu_period").unwrap_or_default(),
        cpu_quota: reader.integer("cpu_quota").unwrap_or_default(),
        cpu_rt_period: reader.integer("cpu_rt_period").unwrap_or_default(),
        cpu_rt_runtime: reader.integer("cpu_rt_runtime").unwrap_or_default(),
        cpus: reader.cpus("cpus"),
        cpuset: reader.string("cpuset"),
        cpu_shares: reader.integer("cpu_shares").unwrap_or_default(),
        command: reader.command("command"),
        configs: reader.each("configs", file_reference),
        container_name: reader.string("container_name"),
        credential_spec: reader.with("credential_spec", |spec| CredentialSpec {
            config: spec.string("config"),
            file: spec.string("file"),
            registry: spec.string("registry"),
        }),
        depends_on: dependencies(reader),
        deploy: reader.with("deploy", deploy),
        device_cgroup_rules: reader.strings("device_cgroup_rules"),
        devices: reader.each("devices", |device| Device {
            source: device.string("source"),
            target: device.string("target"),
            permissions: device.string("permissions"),
        }),
        dns: reader.strings("dns"),
        dns_opt: reader.strings("dns_opt"),
        dns_search: reader.strings("dns_search"),
        domainname: reader.string("domainname"),
        entrypoint: reader.command("entrypoint"),
        provider: reader.with("provider", provider),
        environment: environment(reader),
        env_file: reader.each("env_file", |file| EnvFile {
            path: file.string("path"),
            required: file.boolean("required").unwrap_or(true),
            format: file.string("format"),
        }),
        expose: reader.strings("expose"),
        extends: reader.map.get("extends").map(json),
        external_links: reader.strings("external_links"),
        extra_hosts: hosts(reader),
        group_add: reader.strings("group_add"),
        gpus: reader.each("gpus", device_request),
        hostname: reader.string("hostname"),
        healthcheck: reader.with("healthcheck", health_check),
        image: reader.string("image"),
        init: reader.boolean("init"),
        ipc: reader.string("ipc"),
        isolation: reader.string("isolation"),
        labels: reader.string_map("labels"),
        label_file: reader.strings("label_file"),
        links: reader.strings("links"),
        logging: reader.with("logging", |logging| Logging {
            driver: logging.string("driver"),
            options: logging.string_map("options"),
        }),
        mem_limit: reader.bytes("mem_limit"),
        mem_reservation: reader.bytes("mem_reservation"),
        memswap_limit: reader.bytes("memswap_limit"),
        mem_swappiness: reader.bytes("mem_swappiness"),
        mac_address: reader.string("mac_address"),
        models: reader.each_named("models", |model| ServiceModel {
            endpoint_var: model.string("endpoint_var"),
            model_var: model.string("model_var"),
        }),
        network_mode: reader.string("network_mode"),
        networks: reader.each_named("networks", network),
        oom_kill_disable: reader.boolean("oom_kill_disable").unwrap_or_default(),
        oom_score_adj: reader.integer("oom_score_adj").unwrap_or_default(),
        pid: reader.string("pid"),
        pids_limit: reader.integer("pids_limit").unwrap_or_default(),
        platform: reader.string("platform"),
        ports: reader.each("ports", port),
        privileged: reader.boolean("privileged").unwrap_or_default(),
        pull_policy: reader.string("pull_policy"),
        read_only: reader.boolean("read_only").unwrap_or_default(),
        restart: reader.string("restart"),
        runtime: reader.string("runtime"),
        scale: reader.integer("scale"),
        secrets: reader.each("secrets", file_reference),
        security_opt: reader.strings("security_opt"),
        shm_size: reader.bytes("shm_size"),
        stdin_open: reader.boolean("stdin_open").unwrap_or_default(),
        stop_grace_period: reader.duration("stop_grace_period"),
        stop_signal: reader.string("stop_signal"),
        storage_opt: reader.text_map("storage_opt"),
        sysctls: reader.string_map("sysctls"),
        tmpfs: reader.strings("tmpfs"),
        tty: reader.boolean("tty").unwrap_or_default(),
        ulimits: ulimits(reader),
        use_api_socket: reader.boolean("use_api_socket").unwrap_or_default(),
        user: reader.string("user"),
        userns_mode: reader.string("userns_mode"),
        uts: reader.string("uts"),
        volumes: reader.each("volumes", mount),
        volumes_from: reader.strings("volumes_from"),
        working_dir: reader.string("working_dir"),
        post_start: reader.each("post_start", hook),
        pre_stop: reader.each("pre_stop", hook),
        extensions: reader.extensions(),
        triggers: jobs::triggers(reader),
    }
}

pub(super) fn file_reference(reader: Reader<'_>) -> FileReference {
    FileReference {
        source: reader.string("source"),
        target: reader.string("target"),
        uid: reader.string("uid"),
        gid: reader.string("gid"),
        mode: reader.mode("mode"),
    }
}

fn dependencies(reader: &Reader<'_>) -> BTreeMap<ServiceName, Dependency> {
    let mut dependencies = BTreeMap::new();
    for (name, dependency) in reader.each_named("depends_on", |dependency| {
        let condition = match dependency.get("condition").and_then(Node::as_str) {
            None | Some("service_started") => Condition::ServiceStarted,
            Some("service_healthy") => Condition::ServiceHealthy,
            Some("service_completed_successfully") => Condition::ServiceCompletedSuccessfully,
            Some(other) => {
                if let Some(node) = dependency.get("condition") {
                    dependency.report("condition", node, format_args!("has the unknown value {other:?}"));
                }
                Condition::ServiceStarted
            }
        };
        let restart = dependency.boolean("restart").unwrap_or_default();
        Dependency { condition, restart, required: dependency.boolean("required").unwrap_or(true) }
    }) {
        let default = Dependency { condition: Condition::ServiceStarted, restart: false, required: true };
        match name.parse() {
            Ok(name) => {
                dependencies.insert(name, dependency.unwrap_or(default));
            }
            Err(_) => undefined_dependency(reader, &name),
        }
    }
    dependencies
}

/// What is no name of a service cannot be one that is there.
fn undefined_dependency(reader: &Reader<'_>, name: &str) {
    let shown = reader.path.to_string();
    let service = shown.strip_prefix("services.").unwrap_or(&shown);
    let message = format!("service {service:?} depends on undefined service {name:?}: invalid compose project");
    let mut error = LoadError::new(message).of(reader.path.key("depends_on"));
    if let Some(node) = reader.get("depends_on") {
        error = error.at(&node.place);
    }
    reader.errors.borrow_mut().push(error);
}

fn environment(reader: &Reader<'_>) -> BTreeMap<String, Option<String>> {
    if let Some(Node { kind: Kind::Seq(items), .. }) = reader.get("environment") {
        for item in items {
            let name = item.as_str().and_then(|line| line.split('=').next()).unwrap_or_default();
            let message = format_args!("variable {name} is declared with a trailing space");
            match name.as_bytes().last() {
                Some(9..=13 | 32) => reader.report("environment", item, message),
                // The last bytes of some letters, such as `à`, are spaces in Latin-1, and so to Compose.
                Some(0x85 | 0xA0) => {
                    reader.report("environment", item, format_args!("{message}, or what Compose takes for one"));
                }
                _ => {}
            }
        }
    }
    reader.nullable_map("environment")
}

pub(super) fn hosts(reader: &Reader<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(node) = reader.get("extra_hosts") else { return BTreeMap::new() };
    short::extra_hosts(node).unwrap_or_else(|error| {
        reader.report("extra_hosts", node, error);
        BTreeMap::new()
    })
}

fn health_check(reader: Reader<'_>) -> HealthCheck {
    HealthCheck {
        test: match reader.get("test") {
            Some(Node { kind: Kind::Str(text), .. }) => vec!["CMD-SHELL".to_owned(), text.clone()],
            _ => reader.strings("test"),
        },
        timeout: reader.duration("timeout"),
        interval: reader.duration("interval"),
        retries: reader.integer("retries"),
        start_period: reader.duration("start_period"),
        start_interval: reader.duration("start_interval"),
        disable: reader.boolean("disable").unwrap_or_default(),
    }
}

fn network(reader: Reader<'_>) -> ServiceNetwork {
    ServiceNetwork {
        aliases: reader.strings("aliases"),
        driver_opts: reader.string_map("driver_opts"),
        gw_priority: reader.integer("gw_priority").unwrap_or_default(),
        interface_name: reader.string("interface_name"),
        ipv4_address: reader.string("ipv4_address"),
        ipv6_address: reader.string("ipv6_address"),
        link_local_ips: reader.strings("link_local_ips"),
        mac_address: reader.string("mac_address"),
        priority: reader.integer("priority").unwrap_or_default(),
    }
}

fn port(reader: Reader<'_>) -> Port {
    Port {
        name: reader.string("name"),
        mode: reader.string("mode"),
        host_ip: reader.string("host_ip"),
        target: reader.integer("target").unwrap_or_default(),
        published: reader.string("published"),
        protocol: reader.string("protocol"),
        app_protocol: reader.string("app_protocol"),
    }
}

const NO_LIMIT: Ulimit = Ulimit::Pair { soft: 0, hard: 0 };

pub(super) fn ulimits(reader: &Reader<'_>) -> BTreeMap<String, Ulimit> {
    let mut limits = BTreeMap::new();
    reader.with("ulimits", |reader| {
        for Entry { key, value, .. } in reader.map {
            let limit = match &value.kind {
                _ if key.starts_with("x-") => Some(NO_LIMIT),
                Kind::Map(_) => reader.with(key, |pair| Ulimit::Pair {
                    soft: pair.whole("soft").unwrap_or_default(),
                    hard: pair.whole("hard").unwrap_or_default(),
                }),
                Kind::Null => {
                    reader.report(key, value, "must be an integer or a mapping");
                    None
                }
                // Compose cannot tell zero from unset.
                _ => reader.whole(key).map(|limit| if limit == 0 { NO_LIMIT } else { Ulimit::Single(limit) }),
            };
            limits.extend(limit.map(|limit| (within_extensions(key).to_owned(), limit)));
        }
    });
    limits
}

fn mount(reader: Reader<'_>) -> Mount {
    Mount {
        kind: reader.string("type"),
        source: reader.string("source"),
        target: reader.string("target"),
        read_only: reader.boolean("read_only").unwrap_or_default(),
        consistency: reader.string("consistency"),
        bind: reader.with("bind", |bind| BindOptions {
            selinux: bind.string("selinux"),
            propagation: bind.string("propagation"),
            create_host_path: bind.boolean("create_host_path").unwrap_or_default(),
            recursive: bind.string("recursive"),
        }),
        volume: reader.with("volume", |volume| VolumeOptions {
            labels: volume.string_map("labels"),
            nocopy: volume.boolean("nocopy").unwrap_or_default(),
            subpath: volume.string("subpath"),
        }),
        tmpfs: reader.with("tmpfs", |tmpfs| TmpfsOptions { size: tmpfs.bytes("size"), mode: tmpfs_mode(&tmpfs) }),
        image: reader.with("image", |image| ImageOptions { subpath: image.string("subpath") }),
    }
}

/// Unlike other modes, this one is a plain number.
fn tmpfs_mode(reader: &Reader<'_>) -> u32 {
    match reader.get("mode") {
        Some(node @ Node { kind: Kind::Str(_), .. }) => {
            reader.report("mode", node, "must be a number, such as 0o1777");
            0
        }
        _ => reader.integer("mode").unwrap_or_default(),
    }
}
