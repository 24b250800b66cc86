//! The typed project: what a Compose file says once everything in it is resolved.
//!
//! Field order and the rules for leaving a field out are those of the JSON that Compose hashes and prints
//! (`config --format json`), so serialising a [`Service`] *is* the canonical form; [`crate::spec`] clears what the hash
//! leaves out. Maps are sorted by key, as Go's encoder writes them.
//!
//! It is over 400 lines because it is one table: the specification's types and their fields, in their order.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::jobs::Triggers;
use super::value::{ByteSize, Cpus, Duration, FileMode};
use crate::names::{ProjectName, ServiceName};

/// A map whose values may be null, such as `environment` with a key that has no value.
pub type NullableMap = BTreeMap<String, Option<String>>;

/// A loaded project, narrowed to the services that were asked for and what they depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Name that prefixes every engine name of the project.
    pub name: ProjectName,
    /// Absolute project directory: the base of relative paths, and the `project.working_dir` label.
    pub working_dir: String,
    /// Absolute paths of the files as loaded, overrides included: the `project.config_files` label.
    pub config_files: Vec<String>,
    /// Absolute paths of explicitly given env files: the `project.environment_file` label. Empty for the implicit `.env`.
    pub env_files: Vec<String>,
    /// The interpolation environment: what `environment:` secrets and configs are read from.
    pub environment: BTreeMap<String, String>,
    /// Enabled services, by name, and the jobs that were asked for.
    pub services: BTreeMap<ServiceName, Service>,
    /// Services that exist but are not selected: their containers are not orphans.
    pub disabled: BTreeMap<ServiceName, Service>,
    /// Networks, by key.
    pub networks: BTreeMap<String, Network>,
    /// Named volumes, by key.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets, by key.
    pub secrets: BTreeMap<String, FileObject>,
    /// Configs, by key.
    pub configs: BTreeMap<String, FileObject>,
    /// Models, by key: carried, for the one who refuses to run a service that uses them.
    pub models: BTreeMap<String, Value>,
    /// Top-level `x-…` keys.
    pub extensions: BTreeMap<String, Value>,
    /// What loading noticed and Compose only warns of, such as unset variables.
    pub warnings: Vec<String>,
}

impl Project {
    /// The project with one service disabled: what is left is what that service depends on.
    #[must_use]
    pub fn without(&self, name: &ServiceName) -> Self {
        let mut project = self.clone();
        for service in project.services.values_mut() {
            service.depends_on.remove(name);
        }
        project.disabled.extend(project.services.remove_entry(name));
        project
    }

    /// The project as `docker compose config` prints and hashes it: label files are in the labels, and not named again.
    #[must_use]
    pub fn without_label_files(mut self) -> Self {
        self.services.values_mut().for_each(|service| service.label_file.clear());
        self
    }
}

/// One service of the project, or a job, which has all that a service has.
///
/// Source: compose-spec 05-services.md; order as in compose-go 2.9.1.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Service {
    #[serde(skip_serializing_if = "is_default")]
    pub profiles: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub attach: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub build: Option<Build>,
    #[serde(skip_serializing_if = "is_default")]
    pub develop: Option<Develop>,
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_config: Option<BlkioConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_count: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_percent: Cpus,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_runtime: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub cpus: Cpus,
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: i64,
    /// `None` takes the image's; an empty list clears it. Never left out.
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<FileReference>,
    #[serde(skip_serializing_if = "is_default")]
    pub container_name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub credential_spec: Option<CredentialSpec>,
    #[serde(skip_serializing_if = "is_default")]
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    #[serde(skip_serializing_if = "is_default")]
    pub deploy: Option<Deploy>,
    #[serde(skip_serializing_if = "is_default")]
    pub device_cgroup_rules: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub dns_opt: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: String,
    /// `None` takes the image's; an empty list clears it. Never left out.
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub provider: Option<Provider>,
    #[serde(skip_serializing_if = "is_default")]
    pub environment: NullableMap,
    #[serde(skip_serializing_if = "is_default")]
    pub env_file: Vec<EnvFile>,
    #[serde(skip_serializing_if = "is_default")]
    pub expose: Vec<String>,
    /// Left only where the base is an empty service, which Compose takes for none.
    #[serde(skip_serializing_if = "is_default")]
    pub extends: Option<Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub external_links: Vec<String>,
    /// Addresses by host name. Serialised as the sorted list of `host=ip`.
    #[serde(skip_serializing_if = "is_default", serialize_with = "super::value::serialize_hosts")]
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub group_add: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: Vec<DeviceRequest>,
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    pub healthcheck: Option<HealthCheck>,
    #[serde(skip_serializing_if = "is_default")]
    pub image: String,
    #[serde(skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: String,
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub label_file: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub links: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "is_default")]
    pub mem_limit: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub mem_reservation: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub memswap_limit: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub mem_swappiness: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: String,
    #[serde(skip_serializing_if = "is_default")]
    pub models: BTreeMap<String, Option<ServiceModel>>,
    #[serde(skip_serializing_if = "is_default")]
    pub network_mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub networks: BTreeMap<String, Option<ServiceNetwork>>,
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub pid: String,
    #[serde(skip_serializing_if = "is_default")]
    pub pids_limit: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub platform: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub pull_policy: String,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub restart: String,
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: String,
    #[serde(skip_serializing_if = "is_default")]
    pub scale: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileReference>,
    #[serde(skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub shm_size: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub stop_grace_period: Option<Duration>,
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "is_default")]
    pub storage_opt: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(skip_serializing_if = "is_default")]
    pub use_api_socket: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub userns_mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub uts: String,
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Vec<Mount>,
    #[serde(skip_serializing_if = "is_default")]
    pub volumes_from: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub post_start: Vec<Hook>,
    #[serde(skip_serializing_if = "is_default")]
    pub pre_stop: Vec<Hook>,
    /// `x-…` keys of the service: carried for `config`, not hashed.
    #[serde(skip)]
    pub extensions: BTreeMap<String, Value>,
    /// What starts it, where it is a job.
    #[serde(skip)]
    pub triggers: Option<Triggers>,
}

impl Service {
    /// Whether it stands under `jobs`.
    #[must_use]
    pub fn is_job(&self) -> bool {
        self.triggers.is_some()
    }

    /// The element of the file that it stands under.
    pub(super) fn element(&self) -> &'static str {
        if self.is_job() { "jobs" } else { "services" }
    }
}

/// `build`: carried for `config` only, and to know that the image has a default name.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Build {
    #[serde(skip_serializing_if = "is_default")]
    pub context: String,
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile: String,
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile_inline: String,
    #[serde(skip_serializing_if = "is_default")]
    pub entitlements: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub args: NullableMap,
    #[serde(skip_serializing_if = "is_default")]
    pub provenance: String,
    #[serde(skip_serializing_if = "is_default")]
    pub sbom: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ssh: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub cache_from: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub cache_to: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub additional_contexts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub pull: bool,
    /// Addresses by host name. Serialised as the sorted list of `host=ip`.
    #[serde(skip_serializing_if = "is_default", serialize_with = "super::value::serialize_hosts")]
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub network: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileReference>,
    #[serde(skip_serializing_if = "is_default")]
    pub shm_size: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(skip_serializing_if = "is_default")]
    pub platforms: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
}

/// `provider`: something else that runs the service; carried for the hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Provider {
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, Vec<String>>,
}

/// What a service needs of another before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// When the dependency counts as ready.
    pub condition: Condition,
    /// Restart the dependent when this dependency is recreated.
    #[serde(skip_serializing_if = "is_default")]
    pub restart: bool,
    /// False turns a missing or failed dependency into a warning.
    pub required: bool,
}

/// When a dependency counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its containers were started.
    ServiceStarted,
    /// All its containers report healthy.
    ServiceHealthy,
    /// Its first exited container has code 0.
    ServiceCompletedSuccessfully,
}

impl Condition {
    /// The word of the Compose file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceStarted => "service_started",
            Self::ServiceHealthy => "service_healthy",
            Self::ServiceCompletedSuccessfully => "service_completed_successfully",
        }
    }
}

/// `deploy`: what of it matters to one host, and the rest for the hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Deploy {
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub replicas: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub rollback_config: Option<UpdateConfig>,
    pub resources: Resources,
    #[serde(skip_serializing_if = "is_default")]
    pub restart_policy: Option<RestartPolicy>,
    pub placement: Placement,
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_mode: String,
}

/// `deploy.update_config` and `deploy.rollback_config`: carried for the hash only.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct UpdateConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub parallelism: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub delay: Duration,
    #[serde(skip_serializing_if = "is_default")]
    pub failure_action: String,
    #[serde(skip_serializing_if = "is_default")]
    pub monitor: Duration,
    #[serde(skip_serializing_if = "is_default")]
    pub max_failure_ratio: Cpus,
    #[serde(skip_serializing_if = "is_default")]
    pub order: String,
}

/// `deploy.resources`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Resources {
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Resource>,
    #[serde(skip_serializing_if = "is_default")]
    pub reservations: Option<Resource>,
}

/// `deploy.resources.limits` or `.reservations`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Resource {
    #[serde(skip_serializing_if = "is_default")]
    pub cpus: Cpus,
    #[serde(skip_serializing_if = "is_default")]
    pub memory: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub pids: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceRequest>,
    #[serde(skip_serializing_if = "is_default")]
    pub generic_resources: Vec<Value>,
}

/// `deploy.restart_policy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct RestartPolicy {
    #[serde(skip_serializing_if = "is_default")]
    pub condition: String,
    #[serde(skip_serializing_if = "is_default")]
    pub delay: Option<Duration>,
    #[serde(skip_serializing_if = "is_default")]
    pub max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub window: Option<Duration>,
}

/// `deploy.placement`: carried for the hash only.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Placement {
    #[serde(skip_serializing_if = "is_default")]
    pub constraints: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub preferences: Vec<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub max_replicas_per_node: u64,
}

/// A request for devices: `gpus` and `deploy.resources.reservations.devices`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct DeviceRequest {
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    /// -1 is `all`.
    #[serde(skip_serializing_if = "is_default")]
    pub count: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub device_ids: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// `blkio_config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct BlkioConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_bps: Vec<ThrottleDevice>,
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_iops: Vec<ThrottleDevice>,
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_bps: Vec<ThrottleDevice>,
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_iops: Vec<ThrottleDevice>,
}

/// A device's share of block I/O.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

/// A device's I/O limit, in bytes or operations a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: ByteSize,
}

/// `devices[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Device {
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub permissions: String,
}

/// `credential_spec`: accepted and ignored, as Compose does; hashed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct CredentialSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub config: String,
    #[serde(skip_serializing_if = "is_default")]
    pub file: String,
    #[serde(skip_serializing_if = "is_default")]
    pub registry: String,
}

/// `healthcheck`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct HealthCheck {
    #[serde(skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: Option<Duration>,
    #[serde(skip_serializing_if = "is_default")]
    pub interval: Option<Duration>,
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: Option<Duration>,
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: Option<Duration>,
    #[serde(skip_serializing_if = "is_default")]
    pub disable: bool,
}

/// `logging`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Logging {
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// How a service joins one network.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct ServiceNetwork {
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub gw_priority: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub interface_name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4_address: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6_address: String,
    #[serde(skip_serializing_if = "is_default")]
    pub link_local_ips: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: String,
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i64,
}

/// `ports[]`, in long form.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Port {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub host_ip: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub published: String,
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: String,
    #[serde(skip_serializing_if = "is_default")]
    pub app_protocol: String,
}

/// `volumes[]`, in long form.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, `image`, `npipe` or `cluster`.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<BindOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<TmpfsOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOptions>,
}

/// `volumes[].bind`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct BindOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub selinux: String,
    #[serde(skip_serializing_if = "is_default")]
    pub propagation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub create_host_path: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub recursive: String,
}

/// `volumes[].volume`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct VolumeOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub nocopy: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: String,
}

/// `volumes[].tmpfs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct TmpfsOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub size: ByteSize,
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
}

/// `volumes[].image`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct ImageOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: String,
}

/// A service's use of a secret or config.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct FileReference {
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub uid: String,
    #[serde(skip_serializing_if = "is_default")]
    pub gid: String,
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<FileMode>,
}

/// A secret or config of the project.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct FileObject {
    /// Engine name: `name:` if given, else `<project>_<key>`.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub file: String,
    #[serde(skip_serializing_if = "is_default")]
    pub environment: String,
    /// What that variable held where the object was declared: an `include` may have an environment of its own.
    #[serde(skip)]
    pub environment_value: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub content: String,
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub template_driver: String,
}

/// A limit on a resource of the process: one value, or soft and hard.
#[derive(Debug, Clone, PartialEq)]
pub enum Ulimit {
    /// Soft and hard are the same.
    Single(i64),
    /// Soft and hard differ.
    Pair {
        /// What the process starts with.
        soft: i64,
        /// What it may raise it to.
        hard: i64,
    },
}

impl Serialize for Ulimit {
    /// One number, or an object without its zero members: a single zero is `{}`, as Compose writes it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = match *self {
            Self::Single(0) => [("soft", 0), ("hard", 0)],
            Self::Single(value) => return serializer.serialize_i64(value),
            Self::Pair { soft, hard } => [("soft", soft), ("hard", hard)],
        };
        serializer.collect_map(members.into_iter().filter(|(_, value)| *value != 0))
    }
}

/// `env_file[]` as it was in the file; dropped from a selected service, where its values are in `environment`.
///
/// Serialised as its path if it is required, for Compose hashes it so.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct EnvFile {
    pub path: String,
    pub required: bool,
    pub format: String,
}

impl Serialize for EnvFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.required {
            return serializer.serialize_str(&self.path);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("required", &self.required)?;
        if !self.format.is_empty() {
            map.serialize_entry("format", &self.format)?;
        }
        map.end()
    }
}

/// A command that runs in the container after its start or before its stop.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Hook {
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub environment: NullableMap,
}

/// `develop`: carried for the hash only.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Develop {
    #[serde(skip_serializing_if = "is_default")]
    pub watch: Vec<Watch>,
}

/// `develop.watch[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Watch {
    pub path: String,
    pub action: String,
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    pub exec: Hook,
    #[serde(skip_serializing_if = "is_default")]
    pub include: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ignore: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub initial_sync: bool,
}

/// How a service is told of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct ServiceModel {
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_var: String,
    #[serde(skip_serializing_if = "is_default")]
    pub model_var: String,
}

/// A network of the project.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Network {
    /// Engine name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    pub ipam: Ipam,
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv4: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv6: Option<bool>,
}

/// `ipam` of a network. Its `options` are dropped, as Compose does.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Ipam {
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_default")]
    pub config: Vec<IpamPool>,
}

/// `ipam.config[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct IpamPool {
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: String,
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "is_default")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// A named volume of the project.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names of the Compose specification")]
pub struct Volume {
    /// Engine name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
