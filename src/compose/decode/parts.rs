//! The parts of a service that are for building, deploying or developing it.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::project::{
    BlkioConfig, Build, Deploy, Develop, DeviceRequest, Hook, Placement, Provider, Resource, Resources, RestartPolicy,
    ThrottleDevice, UpdateConfig, Watch, WeightDevice,
};
use super::super::yaml::{Kind, Node};
use super::reader::Reader;
use super::service::{file_reference, hosts, ulimits};

pub(super) fn build(reader: Reader<'_>) -> Build {
    Build {
        context: reader.string("context"),
        dockerfile: reader.string("dockerfile"),
        dockerfile_inline: reader.string("dockerfile_inline"),
        entitlements: reader.strings("entitlements"),
        args: reader.nullable_map("args"),
        provenance: reader.string("provenance"),
        sbom: reader.string("sbom"),
        ssh: ssh(&reader),
        labels: reader.string_map("labels"),
        cache_from: reader.strings("cache_from"),
        cache_to: reader.strings("cache_to"),
        no_cache: reader.boolean("no_cache").unwrap_or_default(),
        additional_contexts: reader.string_map("additional_contexts"),
        pull: reader.boolean("pull").unwrap_or_default(),
        extra_hosts: hosts(&reader),
        isolation: reader.string("isolation"),
        network: reader.string("network"),
        target: reader.string("target"),
        secrets: reader.each("secrets", file_reference),
        shm_size: reader.bytes("shm_size"),
        tags: reader.strings("tags"),
        ulimits: ulimits(&reader),
        platforms: reader.strings("platforms"),
        privileged: reader.boolean("privileged").unwrap_or_default(),
    }
}

fn ssh(reader: &Reader<'_>) -> Vec<String> {
    let line = |(key, value): (String, Option<String>)| match value {
        Some(value) if !value.is_empty() => format!("{key}={value}"),
        _ => key,
    };
    if let Some(Node { kind: Kind::Map(_), .. }) = reader.get("ssh") {
        reader.nullable_map("ssh").into_iter().map(line).collect()
    } else {
        let keys = reader.strings("ssh");
        if let Some(node) = reader.get("ssh") {
            for key in keys.iter().filter(|key| *key != "default" && !key.contains('=')) {
                reader.report("ssh", node, format_args!("has the invalid ssh key {key:?}"));
            }
        }
        keys
    }
}

pub(super) fn develop(reader: Reader<'_>) -> Develop {
    Develop {
        watch: reader.each("watch", |watch| Watch {
            path: watch.string("path"),
            action: watch.string("action"),
            target: watch.string("target"),
            exec: watch.with("exec", hook).unwrap_or_default(),
            include: watch.strings("include"),
            ignore: watch.strings("ignore"),
            initial_sync: watch.boolean("initial_sync").unwrap_or_default(),
        }),
    }
}

pub(super) fn hook(reader: Reader<'_>) -> Hook {
    Hook {
        command: reader.command("command"),
        user: reader.string("user"),
        privileged: reader.boolean("privileged").unwrap_or_default(),
        working_dir: reader.string("working_dir"),
        environment: reader.nullable_map("environment"),
    }
}

pub(super) fn blkio(reader: Reader<'_>) -> BlkioConfig {
    let throttles =
        |key| reader.each(key, |device| ThrottleDevice { path: device.string("path"), rate: device.bytes("rate") });
    BlkioConfig {
        weight: reader.integer("weight").unwrap_or_default(),
        weight_device: reader.each("weight_device", |device| WeightDevice {
            path: device.string("path"),
            weight: device.integer("weight").unwrap_or_default(),
        }),
        device_read_bps: throttles("device_read_bps"),
        device_read_iops: throttles("device_read_iops"),
        device_write_bps: throttles("device_write_bps"),
        device_write_iops: throttles("device_write_iops"),
    }
}

pub(super) fn deploy(reader: Reader<'_>) -> Deploy {
    Deploy {
        mode: reader.string("mode"),
        replicas: reader.integer("replicas"),
        labels: reader.string_map("labels"),
        update_config: reader.with("update_config", update_config),
        rollback_config: reader.with("rollback_config", update_config),
        resources: reader
            .with("resources", |resources| Resources {
                limits: resources.with("limits", resource),
                reservations: resources.with("reservations", resource),
            })
            .unwrap_or_default(),
        restart_policy: reader.with("restart_policy", |policy| RestartPolicy {
            condition: policy.string("condition"),
            delay: policy.duration("delay"),
            max_attempts: policy.integer("max_attempts"),
            window: policy.duration("window"),
        }),
        placement: reader
            .with("placement", |placement| Placement {
                constraints: placement.strings("constraints"),
                preferences: placement.each("preferences", |preference| {
                    let spread = preference.string("spread");
                    if spread.is_empty() { BTreeMap::new() } else { BTreeMap::from([("spread".to_owned(), spread)]) }
                }),
                max_replicas_per_node: placement.integer("max_replicas_per_node").unwrap_or_default(),
            })
            .unwrap_or_default(),
        endpoint_mode: reader.string("endpoint_mode"),
    }
}

fn update_config(reader: Reader<'_>) -> UpdateConfig {
    UpdateConfig {
        parallelism: reader.integer("parallelism"),
        delay: reader.duration("delay").unwrap_or_default(),
        failure_action: reader.string("failure_action"),
        monitor: reader.duration("monitor").unwrap_or_default(),
        max_failure_ratio: reader.cpus("max_failure_ratio"),
        order: reader.string("order"),
    }
}

fn resource(reader: Reader<'_>) -> Resource {
    Resource {
        cpus: reader.cpu_limit("cpus"),
        memory: reader.bytes("memory"),
        pids: reader.integer("pids").unwrap_or_default(),
        devices: reader.each("devices", device_request),
        generic_resources: reader.each("generic_resources", |generic| {
            let spec = generic.with(
                "discrete_resource_spec",
                |spec| json!({"kind": spec.string("kind"), "value": spec.integer::<i64>("value").unwrap_or_default()}),
            );
            spec.map_or_else(|| json!({}), |spec| json!({"discrete_resource_spec": spec}))
        }),
    }
}

pub(super) fn device_request(reader: Reader<'_>) -> DeviceRequest {
    let count = match reader.get("count") {
        Some(node @ Node { kind: Kind::Str(word), .. }) if !word.eq_ignore_ascii_case("all") => {
            word.parse().unwrap_or_else(|_| {
                let message = format_args!("has the invalid value {word:?}, it is 'all' or a number");
                reader.report("count", node, message);
                0
            })
        }
        Some(Node { kind: Kind::Str(_), .. }) => -1,
        _ => reader.whole("count").unwrap_or_default(),
    };
    DeviceRequest {
        capabilities: reader.strings("capabilities"),
        driver: reader.string("driver"),
        count,
        device_ids: reader.strings("device_ids"),
        options: reader.string_map("options"),
    }
}

pub(super) fn provider(reader: Reader<'_>) -> Provider {
    Provider { kind: reader.string("type"), options: reader.options("options") }
}
