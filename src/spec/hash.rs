//! Config hashes: how Compose sees that an object was made from another configuration.

use sha2::{Digest, Sha256};

use super::json::Tree;
use super::{Dialect, SpecError};
use crate::compose::print::go_json;
use crate::compose::project::{Network, Service, Volume};

/// Order of a network's fields in compose-go 2.4.8.
const NETWORK_FIELDS_2_4: [&str; 7] =
    ["priority", "aliases", "ipv4_address", "ipv6_address", "link_local_ips", "mac_address", "driver_opts"];

/// The hash of a service whose references are resolved; `docker compose` compares it with the container's label.
///
/// # Errors
///
/// [`SpecError::Hash`]: a number of the service is not finite.
pub fn service(service: &Service, dialect: Dialect) -> Result<String, SpecError> {
    Ok(hash(&service_json(service, dialect)?))
}

/// The hash of a network.
///
/// # Errors
///
/// None that a loaded project can cause.
pub fn network(network: &Network) -> Result<String, SpecError> {
    Ok(hash(&write(network)?))
}

/// The hash of a volume.
///
/// # Errors
///
/// None that a loaded project can cause.
pub fn volume(volume: &Volume) -> Result<String, SpecError> {
    let mut volume = volume.clone();
    if volume.driver.is_empty() {
        "local".clone_into(&mut volume.driver);
    }
    Ok(hash(&write(&volume)?))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn write<T: serde::Serialize>(value: &T) -> Result<String, SpecError> {
    go_json(value).map_err(|error| SpecError::Hash(error.to_string()))
}

fn service_json(service: &Service, dialect: Dialect) -> Result<String, SpecError> {
    let mut service = service.clone();
    service.build = None;
    service.pull_policy.clear();
    service.scale = None;
    if let Some(deploy) = &mut service.deploy {
        deploy.replicas = None;
    }
    if !dialect.hashes_depends_on() {
        service.depends_on.clear();
    }
    if !dialect.hashes_profiles() {
        service.profiles.clear();
    }
    if dialect.hashes_as_compose_go_2_4() {
        service.label_file.clear();
    }
    let text = write(&service)?;
    if !dialect.hashes_as_compose_go_2_4() && !dialect.hashes_create_host_path_inverted() {
        return Ok(text);
    }
    let mut tree: Tree = serde_json::from_str(&text).map_err(|error| SpecError::Hash(error.to_string()))?;
    if dialect.hashes_as_compose_go_2_4() {
        order_networks(&mut tree);
        number_modes(&mut tree);
    }
    if dialect.hashes_create_host_path_inverted() {
        invert_create_host_path(&mut tree);
    }
    write(&tree)
}

fn order_networks(service: &mut Tree) {
    let Some(networks) = service.get_mut("networks").and_then(Tree::entries_mut) else { return };
    for fields in networks.iter_mut().filter_map(|(_, network)| network.entries_mut()) {
        fields.retain(|(name, _)| name != "gw_priority");
        fields.sort_by_key(|(name, _)| NETWORK_FIELDS_2_4.iter().position(|field| field == name));
    }
}

fn number_modes(service: &mut Tree) {
    for key in ["secrets", "configs"] {
        let Some(files) = service.get_mut(key) else { continue };
        for mode in files.items_mut().filter_map(|file| file.get_mut("mode")) {
            if let Tree::Text(octal) = mode
                && let Ok(number) = i64::from_str_radix(octal, 8)
            {
                *mode = Tree::Integer(number);
            }
        }
    }
}

fn invert_create_host_path(service: &mut Tree) {
    let Some(volumes) = service.get_mut("volumes") else { return };
    for bind in volumes.items_mut().filter_map(|volume| volume.get_mut("bind")).filter_map(Tree::entries_mut) {
        let before = bind.len();
        bind.retain(|(name, _)| name != "create_host_path");
        if bind.len() == before {
            let at = bind.iter().position(|(name, _)| name == "recursive").unwrap_or(before);
            bind.insert(at, ("create_host_path".to_owned(), Tree::Bool(false)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::project::{
        BindOptions, BlkioConfig, Build, Condition, Dependency, Deploy, FileReference, HealthCheck, Ipam, IpamPool,
        Logging, Mount, Port, Resource, Resources, ServiceNetwork, ThrottleDevice, TmpfsOptions, Ulimit, VolumeOptions,
        WeightDevice,
    };
    use crate::compose::value::{ByteSize, Cpus, Duration, FileMode};

    const V2_26: Dialect = Dialect::new(2, 26, 1);
    const V2_40: Dialect = Dialect::new(2, 40, 3);
    const V5: Dialect = Dialect::new(5, 0, 0);
    const SECOND: i64 = 1_000_000_000;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn busybox() -> Service {
        Service {
            image: "busybox:test".to_owned(),
            networks: [("default".to_owned(), None)].into(),
            ..Service::default()
        }
    }

    #[test]
    fn label_files_are_in_no_hash_of_compose_before_2_34() {
        let with_file = Service { label_file: words("labels"), ..busybox() };
        let hash = |service: &Service, dialect| super::service(service, dialect).unwrap();
        for dialect in [V2_26, Dialect::new(2, 33, 1)] {
            assert_eq!(hash(&with_file, dialect), hash(&busybox(), dialect), "{dialect}");
        }
        for dialect in [Dialect::new(2, 34, 0), V2_40, V5] {
            assert_ne!(hash(&with_file, dialect), hash(&busybox(), dialect), "{dialect}");
        }
    }

    fn check(service: &Service, dialect: Dialect, json: &str, hash: &str) {
        assert_eq!(service_json(service, dialect).unwrap(), json);
        assert_eq!(super::service(service, dialect).unwrap(), hash);
    }

    #[test]
    fn networks_hash_as_recorded() {
        let mut net = Network { name: "maprun1_default".to_owned(), ..Network::default() };
        assert_eq!(network(&net).unwrap(), "7f6c38a461b4ba7336be7f6b61db7d20d05e1319c0f53c1c91f33ccfc4ff2401");
        "mapt1_front".clone_into(&mut net.name);
        let pool = IpamPool { subnet: "10.99.1.0/24".to_owned(), ..IpamPool::default() };
        net.ipam = Ipam { config: vec![pool], ..Ipam::default() };
        assert_eq!(network(&net).unwrap(), "018bba899318fc8dfc1b4cce7eaf8edd30f34c954f903907158190fc0b2dd2f2");
    }

    #[test]
    fn volumes_hash_as_recorded() {
        let mut vol = Volume { name: "maprun1_named".to_owned(), ..Volume::default() };
        assert_eq!(volume(&vol).unwrap(), "737adcec3e33cc7fe5143cbed6985129a09f5afb0693d3a189d1b4f1a1605818");
        "mapt1_named".clone_into(&mut vol.name);
        vol.labels.insert("v".to_owned(), "1".to_owned());
        assert_eq!(volume(&vol).unwrap(), "387a8269e83e53fec7b50da35ee6d560b5e4785b8bd24d6b5d1801d4a282bcd0");
    }

    #[test]
    fn a_service_with_a_health_check_hashes_as_recorded() {
        let service = Service {
            command: Some(words("sleep 1000")),
            healthcheck: Some(HealthCheck {
                test: words("CMD true"),
                interval: Some(Duration(SECOND)),
                ..HealthCheck::default()
            }),
            // None of these is part of the hash.
            build: Some(Build { context: ".".to_owned(), ..Build::default() }),
            pull_policy: "never".to_owned(),
            scale: Some(3),
            profiles: words("poll"),
            depends_on: [(
                "db".parse().unwrap(),
                Dependency { condition: Condition::ServiceHealthy, restart: true, required: true },
            )]
            .into(),
            ..busybox()
        };
        check(
            &service,
            V2_40,
            r#"{"command":["sleep","1000"],"entrypoint":null,"healthcheck":{"test":["CMD","true"],"interval":"1s"},"image":"busybox:test","networks":{"default":null}}"#,
            "823ddf968aac923819018b7fc1aca595fb5e777e372f3644135c25247ca8b9af",
        );
    }

    #[test]
    fn a_service_with_two_networks_hashes_as_recorded() {
        let a = ServiceNetwork {
            driver_opts: [("foo".to_owned(), "bar".to_owned())].into(),
            gw_priority: 3,
            mac_address: "02:42:ac:11:65:44".to_owned(),
            priority: 5,
            ..ServiceNetwork::default()
        };
        let b = ServiceNetwork { gw_priority: 9, link_local_ips: words("169.254.8.8"), ..ServiceNetwork::default() };
        let service = Service {
            command: Some(words("sleep 1000")),
            networks: [("a".to_owned(), Some(a)), ("b".to_owned(), Some(b))].into(),
            ..busybox()
        };
        check(
            &service,
            V2_40,
            r#"{"command":["sleep","1000"],"entrypoint":null,"image":"busybox:test","networks":{"a":{"driver_opts":{"foo":"bar"},"gw_priority":3,"mac_address":"02:42:ac:11:65:44","priority":5},"b":{"gw_priority":9,"link_local_ips":["169.254.8.8"]}}}"#,
            "570eaf04d21548927a6792da4053b7c1aaa0bb168510ed31d2d4bc999d1e2241",
        );
        assert_eq!(
            service_json(&service, V2_26).unwrap(),
            r#"{"command":["sleep","1000"],"entrypoint":null,"image":"busybox:test","networks":{"a":{"priority":5,"mac_address":"02:42:ac:11:65:44","driver_opts":{"foo":"bar"}},"b":{"link_local_ips":["169.254.8.8"]}}}"#
        );
    }

    fn port(host_ip: &str, target: u32, published: &str, protocol: &str) -> Port {
        Port {
            mode: "ingress".to_owned(),
            host_ip: host_ip.to_owned(),
            target,
            published: published.to_owned(),
            protocol: protocol.to_owned(),
            ..Port::default()
        }
    }

    fn mount(kind: &str, source: &str, target: &str) -> Mount {
        let volume = (kind == "volume").then(VolumeOptions::default);
        Mount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            volume,
            ..Mount::default()
        }
    }

    #[test]
    fn a_service_with_ports_binds_and_limits_hashes_as_recorded() {
        let limits = Resource { cpus: Cpus(0.5), memory: ByteSize(67_108_864), ..Resource::default() };
        let service = Service {
            command: Some(words("sleep 600")),
            deploy: Some(Deploy {
                replicas: Some(2),
                resources: Resources { limits: Some(limits), reservations: None },
                ..Deploy::default()
            }),
            environment: [
                ("A".to_owned(), Some("1".to_owned())),
                ("B".to_owned(), Some("2".to_owned())),
                ("C".to_owned(), None),
            ]
            .into(),
            extra_hosts: [("h2".to_owned(), words("::1")), ("h1".to_owned(), words("1.2.3.4"))].into(),
            healthcheck: Some(HealthCheck {
                test: vec!["CMD-SHELL".to_owned(), "exit 0".to_owned()],
                timeout: Some(Duration(5 * SECOND)),
                interval: Some(Duration(90 * SECOND)),
                retries: Some(2),
                start_period: Some(Duration(3 * SECOND)),
                ..HealthCheck::default()
            }),
            labels: [("foo".to_owned(), "bar".to_owned())].into(),
            networks: [
                ("back".to_owned(), Some(ServiceNetwork { priority: 10, ..ServiceNetwork::default() })),
                (
                    "front".to_owned(),
                    Some(ServiceNetwork {
                        aliases: words("al1"),
                        ipv4_address: "10.99.1.7".to_owned(),
                        ..ServiceNetwork::default()
                    }),
                ),
            ]
            .into(),
            ports: vec![
                port("", 80, "18080", "tcp"),
                port("127.0.0.1", 81, "18081", "udp"),
                port("127.0.0.1", 82, "18082", "udp"),
                port("", 90, "", "tcp"),
            ],
            restart: "on-failure:3".to_owned(),
            stop_grace_period: Some(Duration(90 * SECOND)),
            tmpfs: words("/run /tmp:size=1m"),
            ulimits: [
                ("nproc".to_owned(), Ulimit::Single(50)),
                ("nofile".to_owned(), Ulimit::Pair { soft: 100, hard: 200 }),
            ]
            .into(),
            volumes: vec![
                Mount {
                    bind: Some(BindOptions { create_host_path: true, ..BindOptions::default() }),
                    ..mount("bind", "/srv/app/data", "/data")
                },
                mount("volume", "named", "/named"),
                mount("volume", "", "/anon"),
                Mount {
                    tmpfs: Some(TmpfsOptions { size: ByteSize(1_048_576), mode: 1023 }),
                    ..mount("tmpfs", "", "/t")
                },
            ],
            ..busybox()
        };
        let json = r#"{"command":["sleep","600"],"deploy":{"resources":{"limits":{"cpus":0.5,"memory":"67108864"}},"placement":{}},"entrypoint":null,"environment":{"A":"1","B":"2","C":null},"extra_hosts":["h1=1.2.3.4","h2=::1"],"healthcheck":{"test":["CMD-SHELL","exit 0"],"timeout":"5s","interval":"1m30s","retries":2,"start_period":"3s"},"image":"busybox:test","labels":{"foo":"bar"},"networks":{"back":{"priority":10},"front":{"aliases":["al1"],"ipv4_address":"10.99.1.7"}},"ports":[{"mode":"ingress","target":80,"published":"18080","protocol":"tcp"},{"mode":"ingress","host_ip":"127.0.0.1","target":81,"published":"18081","protocol":"udp"},{"mode":"ingress","host_ip":"127.0.0.1","target":82,"published":"18082","protocol":"udp"},{"mode":"ingress","target":90,"protocol":"tcp"}],"restart":"on-failure:3","stop_grace_period":"1m30s","tmpfs":["/run","/tmp:size=1m"],"ulimits":{"nofile":{"soft":100,"hard":200},"nproc":50},"volumes":[{"type":"bind","source":"/srv/app/data","target":"/data","bind":{"create_host_path":true}},{"type":"volume","source":"named","target":"/named","volume":{}},{"type":"volume","target":"/anon","volume":{}},{"type":"tmpfs","target":"/t","tmpfs":{"size":"1048576","mode":1023}}]}"#;
        check(&service, V2_40, json, "3cb5cebeccf0a0828a41addc0a24c6744fedde79b3cf22e63eda769340aca24d");
        let v5 = service_json(&service, V5).unwrap();
        assert_eq!(v5, json.replace(r#""bind":{"create_host_path":true}"#, r#""bind":{}"#));
    }

    #[test]
    fn a_one_off_hashes_as_recorded() {
        let variable = |(key, value): (&str, &str)| (key.to_owned(), Some(value.to_owned()));
        let service = Service {
            command: Some(vec!["sh".to_owned(), "-c".to_owned(), "env | sort; exit 7".to_owned()]),
            container_name: "maprun1-job-run-af06ae06ef61".to_owned(),
            deploy: Some(Deploy::default()),
            environment: [("A", "cli"), ("B", "2"), ("FROMFILE", "x"), ("K", "V")].map(variable).into(),
            expose: words("99"),
            networks: [(
                "default".to_owned(),
                Some(ServiceNetwork { aliases: words("al"), ..ServiceNetwork::default() }),
            )]
            .into(),
            stdin_open: true,
            stop_grace_period: Some(Duration(5 * SECOND)),
            volumes: vec![mount("volume", "", "/anon"), mount("volume", "named", "/n")],
            ..busybox()
        };
        check(
            &service,
            V2_40,
            r#"{"command":["sh","-c","env | sort; exit 7"],"container_name":"maprun1-job-run-af06ae06ef61","deploy":{"resources":{},"placement":{}},"entrypoint":null,"environment":{"A":"cli","B":"2","FROMFILE":"x","K":"V"},"expose":["99"],"image":"busybox:test","networks":{"default":{"aliases":["al"]}},"stdin_open":true,"stop_grace_period":"5s","volumes":[{"type":"volume","target":"/anon","volume":{}},{"type":"volume","source":"named","target":"/n","volume":{}}]}"#,
            "766e14cdc3e8ea48a2998f966cfe1ad7609a140d5771f115c687668a133596c3",
        );
    }

    #[test]
    fn escapes_and_units_hash_as_recorded() {
        let variable = |(key, value): (&str, &str)| (key.to_owned(), Some(value.to_owned()));
        let service = Service {
            attach: Some(false),
            blkio_config: Some(BlkioConfig {
                weight_device: vec![WeightDevice { path: "/dev/sda".to_owned(), weight: 3 }],
                device_read_bps: vec![ThrottleDevice { path: "/dev/sda".to_owned(), rate: ByteSize(1_048_576) }],
                ..BlkioConfig::default()
            }),
            command: Some(Vec::new()),
            deploy: Some(Deploy {
                resources: Resources {
                    limits: Some(Resource { cpus: Cpus(0.33), memory: ByteSize(1_610_612_736), ..Resource::default() }),
                    reservations: Some(Resource { memory: ByteSize(1_048_576), ..Resource::default() }),
                },
                ..Deploy::default()
            }),
            environment: [
                ("CTRL", "\u{1}\u{8}\u{c}\u{1b}"),
                ("EMO", "😀"),
                ("LT", "<a&b>"),
                ("Q", "\"\\/"),
                ("U", "é\u{2028}x"),
            ]
            .map(variable)
            .into(),
            healthcheck: Some(HealthCheck {
                timeout: Some(Duration(SECOND / 10)),
                interval: Some(Duration(SECOND + SECOND / 2)),
                start_period: Some(Duration(5400 * SECOND)),
                start_interval: Some(Duration(1000)),
                ..HealthCheck::default()
            }),
            init: Some(false),
            logging: Some(Logging { driver: "none".to_owned(), ..Logging::default() }),
            mem_limit: ByteSize(1_610_612_736),
            shm_size: ByteSize(67_108_864),
            stop_grace_period: Some(Duration(788_645_006_000_000)),
            ulimits: [("core".to_owned(), Ulimit::Single(0)), ("nofile".to_owned(), Ulimit::Pair { soft: 0, hard: 5 })]
                .into(),
            ..busybox()
        };
        check(
            &service,
            V2_40,
            "{\"attach\":false,\"blkio_config\":{\"weight_device\":[{\"Path\":\"/dev/sda\",\"Weight\":3}],\"device_read_bps\":[{\"Path\":\"/dev/sda\",\"Rate\":\"1048576\"}]},\"command\":[],\"deploy\":{\"resources\":{\"limits\":{\"cpus\":0.33,\"memory\":\"1610612736\"},\"reservations\":{\"memory\":\"1048576\"}},\"placement\":{}},\"entrypoint\":null,\"environment\":{\"CTRL\":\"\\u0001\\b\\f\\u001b\",\"EMO\":\"😀\",\"LT\":\"\\u003ca\\u0026b\\u003e\",\"Q\":\"\\\"\\\\/\",\"U\":\"é\\u2028x\"},\"healthcheck\":{\"timeout\":\"100ms\",\"interval\":\"1.5s\",\"start_period\":\"1h30m0s\",\"start_interval\":\"1µs\"},\"image\":\"busybox:test\",\"init\":false,\"logging\":{\"driver\":\"none\"},\"mem_limit\":\"1610612736\",\"networks\":{\"default\":null},\"shm_size\":\"67108864\",\"stop_grace_period\":\"219h4m5.006s\",\"ulimits\":{\"core\":{},\"nofile\":{\"hard\":5}}}",
            "3808af966666e44fd9f473da3e299bf3b7374e3c9eeef3596499ff8ccb32ce50",
        );
    }

    #[test]
    fn an_old_version_hashes_dependencies_profiles_and_numeric_modes() {
        let service = Service {
            profiles: words("p"),
            depends_on: [(
                "db".parse().unwrap(),
                Dependency { condition: Condition::ServiceStarted, restart: true, required: true },
            )]
            .into(),
            secrets: vec![FileReference {
                source: "s".to_owned(),
                mode: Some(FileMode(0o444)),
                ..FileReference::default()
            }],
            ..busybox()
        };
        assert_eq!(
            service_json(&service, V2_26).unwrap(),
            r#"{"profiles":["p"],"command":null,"depends_on":{"db":{"condition":"service_started","restart":true,"required":true}},"entrypoint":null,"image":"busybox:test","networks":{"default":null},"secrets":[{"source":"s","mode":292}]}"#
        );
        assert_eq!(
            service_json(&service, V2_40).unwrap(),
            r#"{"command":null,"entrypoint":null,"image":"busybox:test","networks":{"default":null},"secrets":[{"source":"s","mode":"0444"}]}"#
        );
    }

    #[test]
    fn version_5_writes_create_host_path_only_where_it_is_off() {
        let mut service = busybox();
        let bind = BindOptions {
            propagation: "rslave".to_owned(),
            recursive: "disabled".to_owned(),
            ..BindOptions::default()
        };
        service.volumes = vec![Mount { bind: Some(bind), ..mount("bind", "/a", "/b") }];
        assert!(
            service_json(&service, V5)
                .unwrap()
                .ends_with(r#""bind":{"propagation":"rslave","create_host_path":false,"recursive":"disabled"}}]}"#)
        );
    }
}
