//! `HostConfig`: resources, devices, privileges and everything else that is not a mount or a network.

use bollard::models::{
    DeviceMapping, DeviceRequest as EngineDeviceRequest, HostConfig, HostConfigCgroupnsModeEnum as CgroupnsMode,
    HostConfigIsolationEnum as Isolation, HostConfigLogConfig, PortBinding, PortMap, ResourcesBlkioWeightDevice,
    ResourcesUlimits, RestartPolicy as EngineRestartPolicy, RestartPolicyNameEnum as RestartName,
    ThrottleDevice as EngineThrottleDevice,
};

use super::mounts::Mounts;
use super::{SpecError, SpecOptions, files, list, map, number, text};
use crate::compose::project::{DeviceRequest, Project, Service, ThrottleDevice, Ulimit};
use crate::names::ServiceName;

/// CPUs are given to the Engine in billionths.
const NANO: f32 = 1e9;

/// The host's side of a container.
pub(super) fn host_config(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    mounts: Mounts,
    options: &SpecOptions,
) -> Result<HostConfig, SpecError> {
    let security = security(project, service, options)?;
    let mut host = HostConfig {
        annotations: map(&service.annotations),
        binds: list(&mounts.binds),
        mounts: if mounts.mounts.is_empty() { None } else { Some(mounts.mounts) },
        cap_add: list(&capabilities(&service.cap_add, options)),
        cap_drop: list(&capabilities(&service.cap_drop, options)),
        cgroupns_mode: cgroup(name, &service.cgroup)?,
        dns: list(&service.dns),
        dns_options: list(&service.dns_opt),
        dns_search: list(&service.dns_search),
        // Present and empty, as inspect of Compose's containers has them.
        extra_hosts: Some(extra_hosts(service)),
        port_bindings: Some(port_bindings(service)),
        group_add: list(&service.group_add),
        init: service.init,
        ipc_mode: text(&service.ipc),
        isolation: isolation(name, &service.isolation)?,
        log_config: service
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: text(&logging.driver), config: map(&logging.options) }),
        masked_paths: security.unconfined.then(Vec::new),
        readonly_paths: security.unconfined.then(Vec::new),
        oom_score_adj: number(service.oom_score_adj),
        pid_mode: text(&service.pid),
        privileged: flag(service.privileged),
        readonly_rootfs: flag(service.read_only),
        restart_policy: restart_policy(name, service)?,
        runtime: text(&service.runtime),
        security_opt: list(&security.options),
        shm_size: number(service.shm_size.0),
        storage_opt: map(&service.storage_opt),
        sysctls: map(&service.sysctls),
        tmpfs: tmpfs(service),
        userns_mode: text(&service.userns_mode),
        uts_mode: text(&service.uts),
        volumes_from: list(&service.volumes_from),
        ..HostConfig::default()
    };
    resources(service, options, &mut host);
    Ok(host)
}

fn flag(value: bool) -> Option<bool> {
    value.then_some(true)
}

/// What goes into both `HostConfig` and the limits of a container.
fn resources(service: &Service, options: &SpecOptions, host: &mut HostConfig) {
    host.cgroup_parent = text(&service.cgroup_parent);
    host.cpu_count = number(service.cpu_count);
    host.cpu_percent = number(truncated(service.cpu_percent.0 * 100.0));
    host.cpu_period = number(service.cpu_period);
    host.cpu_quota = number(service.cpu_quota);
    host.cpu_realtime_period = number(service.cpu_rt_period);
    host.cpu_realtime_runtime = number(service.cpu_rt_runtime);
    host.cpu_shares = number(service.cpu_shares);
    host.cpuset_cpus = text(&service.cpuset);
    host.nano_cpus = number(truncated(service.cpus.0 * NANO));
    host.memory = number(service.mem_limit.0);
    host.memory_reservation = number(service.mem_reservation.0);
    host.memory_swap = number(service.memswap_limit.0);
    // Compose cannot set 0 either: it stands for "not set".
    host.memory_swappiness = number(service.mem_swappiness.0);
    host.oom_kill_disable = Some(service.oom_kill_disable);
    host.pids_limit = number(service.pids_limit);
    host.device_cgroup_rules = list(&service.device_cgroup_rules);
    block_io(service, host);

    let mut requests = Vec::new();
    let deployed = service.deploy.as_ref().map(|deploy| &deploy.resources);
    if let Some(limits) = deployed.and_then(|resources| resources.limits.as_ref()) {
        override_with(&mut host.nano_cpus, truncated(limits.cpus.0 * NANO));
        override_with(&mut host.memory, limits.memory.0);
        override_with(&mut host.pids_limit, limits.pids);
    }
    if let Some(reserved) = deployed.and_then(|resources| resources.reservations.as_ref()) {
        override_with(&mut host.memory_reservation, reserved.memory.0);
        requests.extend(reserved.devices.iter().map(|device| EngineDeviceRequest {
            options: map(&device.options).filter(|_| options.dialect.is_recent()),
            ..device_request(device, None)
        }));
    }
    let mut devices = Vec::new();
    let mut cdi = Vec::new();
    for device in &service.devices {
        if options.dialect.requests_cdi_devices() && device.source == device.target && is_cdi_name(&device.source) {
            cdi.push(device.source.clone());
        } else {
            devices.push(DeviceMapping {
                path_on_host: text(&device.source),
                path_in_container: text(&device.target),
                cgroup_permissions: text(&device.permissions),
            });
        }
    }
    if !cdi.is_empty() {
        requests.push(EngineDeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(cdi),
            ..EngineDeviceRequest::default()
        });
    }
    if options.dialect.requests_cdi_devices() {
        requests.extend(service.gpus.iter().map(|gpu| device_request(gpu, Some("gpu"))));
    }
    host.devices = if devices.is_empty() { None } else { Some(devices) };
    host.device_requests = if requests.is_empty() { None } else { Some(requests) };
    host.ulimits = ulimits(service);
}

fn block_io(service: &Service, host: &mut HostConfig) {
    let Some(blkio) = &service.blkio_config else { return };
    let rates = |devices: &[ThrottleDevice]| {
        let devices: Vec<_> = devices
            .iter()
            .map(|device| EngineThrottleDevice { path: text(&device.path), rate: Some(device.rate.0) })
            .collect();
        if devices.is_empty() { None } else { Some(devices) }
    };
    host.blkio_weight = (blkio.weight != 0).then_some(blkio.weight);
    host.blkio_weight_device = if blkio.weight_device.is_empty() {
        None
    } else {
        let devices = blkio.weight_device.iter();
        let engine = |(path, weight): (&String, u16)| ResourcesBlkioWeightDevice {
            path: text(path),
            weight: Some(usize::from(weight)),
        };
        Some(devices.map(|device| engine((&device.path, device.weight))).collect())
    };
    host.blkio_device_read_bps = rates(&blkio.device_read_bps);
    host.blkio_device_read_iops = rates(&blkio.device_read_iops);
    host.blkio_device_write_bps = rates(&blkio.device_write_bps);
    host.blkio_device_write_iops = rates(&blkio.device_write_iops);
}

fn override_with(field: &mut Option<i64>, value: i64) {
    if value != 0 {
        *field = Some(value);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "Compose truncates; `as` saturates where Go is undefined")]
fn truncated(value: f32) -> i64 {
    value as i64
}

fn device_request(device: &DeviceRequest, capability: Option<&str>) -> EngineDeviceRequest {
    let capabilities: Vec<String> =
        device.capabilities.iter().map(String::as_str).chain(capability).map(str::to_owned).collect();
    EngineDeviceRequest {
        driver: text(&device.driver),
        count: number(device.count),
        device_ids: list(&device.device_ids),
        capabilities: Some(vec![capabilities]),
        options: map(&device.options),
    }
}

/// Whether a device is a qualified CDI name, `vendor/class=device`.
///
/// Source: Container Device Interface specification, "Kind" and "Name".
fn is_cdi_name(text: &str) -> bool {
    fn is_word(word: &str, first: fn(char) -> bool, inner: &[char]) -> bool {
        word.starts_with(first)
            && word.ends_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(&c))
    }
    let letter = |c: char| c.is_ascii_alphabetic();
    let Some((kind, device)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    is_word(vendor, letter, &['_', '-', '.'])
        && is_word(class, letter, &['_', '-'])
        && is_word(device, |c| c.is_ascii_alphanumeric(), &['_', '-', '.', ':'])
}

fn ulimits(service: &Service) -> Option<Vec<ResourcesUlimits>> {
    let ulimits: Vec<_> = service
        .ulimits
        .iter()
        .map(|(name, limit)| {
            let (soft, hard) = match limit {
                Ulimit::Single(value) => (*value, *value),
                Ulimit::Pair { soft, hard } => (*soft, *hard),
            };
            ResourcesUlimits { name: Some(name.clone()), soft: Some(soft), hard: Some(hard) }
        })
        .collect();
    if ulimits.is_empty() { None } else { Some(ulimits) }
}

fn capabilities(names: &[String], options: &SpecOptions) -> Vec<String> {
    if !options.dialect.is_recent() {
        return names.to_vec();
    }
    let mut names: Vec<String> = names
        .iter()
        .map(|name| name.to_uppercase())
        .map(|name| if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn extra_hosts(service: &Service) -> Vec<String> {
    service
        .extra_hosts
        .iter()
        .flat_map(|(host, addresses)| addresses.iter().map(move |address| format!("{host}:{address}")))
        .collect()
}

fn port_bindings(service: &Service) -> PortMap {
    let mut bindings = PortMap::new();
    for port in &service.ports {
        let binding = PortBinding { host_ip: Some(port.host_ip.clone()), host_port: Some(port.published.clone()) };
        let key = format!("{}/{}", port.target, port.protocol);
        bindings.entry(key).or_default().get_or_insert_with(Vec::new).push(binding);
    }
    bindings
}

fn tmpfs(service: &Service) -> Option<std::collections::HashMap<String, String>> {
    let split = |entry: &String| {
        let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
        (path.to_owned(), options.to_owned())
    };
    if service.tmpfs.is_empty() { None } else { Some(service.tmpfs.iter().map(split).collect()) }
}

fn restart_policy(name: &ServiceName, service: &Service) -> Result<Option<EngineRestartPolicy>, SpecError> {
    let deployed = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
    let (key, condition, attempts) = match deployed {
        Some(policy) => ("deploy.restart_policy.condition", policy.condition.as_str(), policy.max_attempts),
        None if service.restart.is_empty() => return Ok(None),
        None => {
            let (condition, attempts) = service.restart.split_once(':').unwrap_or((&service.restart, ""));
            ("restart", condition, attempts.parse().ok())
        }
    };
    let policy = match condition {
        "" => RestartName::EMPTY,
        "none" | "no" => RestartName::NO,
        "on-failure" => RestartName::ON_FAILURE,
        "any" | "always" => RestartName::ALWAYS,
        "unless-stopped" => RestartName::UNLESS_STOPPED,
        other => {
            return Err(SpecError::InvalidValue { service: name.to_string(), key, value: other.to_owned() });
        }
    };
    let attempts = attempts.and_then(|attempts: u64| i64::try_from(attempts).ok());
    Ok(Some(EngineRestartPolicy {
        name: Some(policy),
        maximum_retry_count: attempts.filter(|attempts| *attempts != 0),
    }))
}

fn cgroup(name: &ServiceName, mode: &str) -> Result<Option<CgroupnsMode>, SpecError> {
    match mode {
        "" => Ok(None),
        "host" => Ok(Some(CgroupnsMode::HOST)),
        "private" => Ok(Some(CgroupnsMode::PRIVATE)),
        other => Err(SpecError::InvalidValue { service: name.to_string(), key: "cgroup", value: other.to_owned() }),
    }
}

fn isolation(name: &ServiceName, mode: &str) -> Result<Option<Isolation>, SpecError> {
    match mode {
        "" => Ok(None),
        "default" => Ok(Some(Isolation::DEFAULT)),
        "process" => Ok(Some(Isolation::PROCESS)),
        "hyperv" => Ok(Some(Isolation::HYPERV)),
        other => Err(SpecError::InvalidValue { service: name.to_string(), key: "isolation", value: other.to_owned() }),
    }
}

struct Security {
    options: Vec<String>,
    /// `systempaths=unconfined`: nothing of /proc and /sys is masked or read-only.
    unconfined: bool,
}

fn security(project: &Project, service: &Service, options: &SpecOptions) -> Result<Security, SpecError> {
    let mut security = Security { options: Vec::new(), unconfined: false };
    for option in &service.security_opt {
        if option == "systempaths=unconfined" {
            security.unconfined = true;
        } else if !option.contains(['=', ':']) && option != "no-new-privileges" {
            return Err(SpecError::InvalidSecurityOpt(option.clone()));
        } else if let Some(path) = files::seccomp_profile(project, option) {
            let Some(profile) = options.client_files.get(&path) else {
                return Err(SpecError::SeccompUnreadable { path });
            };
            let profile = compact_json(profile).map_err(|message| SpecError::SeccompInvalid { path, message })?;
            security.options.push(format!("seccomp={profile}"));
        } else {
            security.options.push(option.clone());
        }
    }
    Ok(security)
}

/// JSON without the space between its words; keys and escapes stay as they are.
fn compact_json(text: &str) -> Result<String, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| error.to_string())?;
    let mut in_string = false;
    let mut escaped = false;
    let mut compact = String::with_capacity(text.len());
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if matches!(c, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = c == '"';
        }
        compact.push(c);
    }
    Ok(compact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ApiVersion;
    use crate::spec::Dialect;

    #[test]
    fn capabilities_are_prefixed_sorted_and_not_trimmed() {
        let options = SpecOptions::new(ApiVersion { major: 1, minor: 41 }, Dialect::default());
        let names = ["net_admin", "all", "CAP_NET_ADMIN", " chown"].map(str::to_owned);
        assert_eq!(capabilities(&names, &options), ["ALL", "CAP_ CHOWN", "CAP_NET_ADMIN"]);
    }

    #[test]
    fn compact_json_keeps_strings_and_escapes_untouched() {
        let text = "{ \"a \\\" b\" : [ 1, \"\\\\\" , \"\\u003c <\" ],\n\t\"c\": { } }";
        assert_eq!(compact_json(text).unwrap(), r#"{"a \" b":[1,"\\","\u003c <"],"c":{}}"#);
        assert!(compact_json("{").is_err());
    }

    #[test]
    fn only_qualified_names_are_cdi_devices() {
        for name in ["vendor.com/class=device", "v/c=0", "nvidia.com/gpu=1:0"] {
            assert!(is_cdi_name(name), "{name}");
        }
        for path in ["/dev/null", "vendor/class", "1v/c=d", "v/c=", "v/c=d-", "/dev/x=y", "v/1c=d"] {
            assert!(!is_cdi_name(path), "{path}");
        }
    }
}
