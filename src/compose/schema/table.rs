//! The Compose specification as a table: keys in alphabetical order, with the values that they take.
//!
//! One table, longer than a file should be: cutting it would only hide where a key is.
//!
//! Source: compose-spec 05-services.md to 10-include.md, as Compose 2.40 checks them.

use super::rule::{Names, Object, Pattern, Rule, Types, Value};

macro_rules! keys {
    ($($key:literal: $rule:expr),* $(,)?) => { &[$(($key, $rule)),*] };
}

macro_rules! rule {
    ($value:expr) => {{
        static VALUE: Value = $value;
        Rule::Value(&VALUE)
    }};
}

macro_rules! object {
    ($object:expr) => {{
        static OBJECT: Object = $object;
        rule!(Value::object(&OBJECT))
    }};
}

const BOOLEAN: Rule = rule!(Value::of(Types::BOOLEAN));
const INTEGER: Rule = rule!(Value::of(Types::INTEGER));
const NUMBER: Rule = rule!(Value::of(Types::NUMBER));
const STRING: Rule = rule!(Value::of(Types::STRING));
const NULL: Rule = rule!(Value::of(Types::NULL));
const BOOLEAN_OR_STRING: Rule = rule!(Value::of(Types::BOOLEAN.or(Types::STRING)));
const INTEGER_OR_STRING: Rule = rule!(Value::of(Types::INTEGER.or(Types::STRING)));
const NUMBER_OR_STRING: Rule = rule!(Value::of(Types::NUMBER.or(Types::STRING)));
const WORD: Rule = rule!(Value::of(Types::STRING.or(Types::NUMBER).or(Types::BOOLEAN)));
const WORD_OR_NULL: Rule = rule!(Value::of(Types::STRING.or(Types::NUMBER).or(Types::BOOLEAN).or(Types::NULL)));
/// Strings, none of them twice.
const STRINGS: Rule = rule!(Value::set(STRING));
/// Strings.
const STRING_LIST: Rule = rule!(Value::list(STRING));
const STRING_OR_STRINGS: Rule = Rule::OneOf(&[STRING, STRINGS]);
const STRING_OR_LIST: Rule = Rule::OneOf(&[STRING, STRING_LIST]);
const COMMAND: Rule = Rule::OneOf(&[NULL, STRING, STRING_LIST]);
const PAIRS: Rule = Rule::OneOf(&[object!(Object::of(Names::Any, WORD_OR_NULL)), STRINGS]);
const DRIVER_OPTIONS: Rule = object!(Object::of(Names::Line, NUMBER_OR_STRING).opened());

const EXTRA_HOSTS: Rule = Rule::OneOf(&[object!(Object::of(Names::Any, Rule::OneOf(&[STRING, STRING_LIST]))), STRINGS]);

const ULIMITS: Rule = object!(
    Object::of(
        Names::Lower,
        Rule::OneOf(&[
            INTEGER_OR_STRING,
            object!(Object::with(keys! { "hard": INTEGER_OR_STRING, "soft": INTEGER_OR_STRING }, &["soft", "hard"])),
        ])
    )
    .opened()
);

const FILE_REFERENCES: Rule = rule!(Value::list(Rule::OneOf(&[
    STRING,
    object!(Object::with(
        keys! {
            "gid": STRING,
            "mode": NUMBER_OR_STRING,
            "source": STRING,
            "target": STRING,
            "uid": STRING,
        },
        &[]
    )),
])));

const HOOK: Rule = object!(Object::with(
    keys! {
        "command": COMMAND,
        "environment": PAIRS,
        "privileged": BOOLEAN_OR_STRING,
        "user": STRING,
        "working_dir": STRING,
    },
    &["command"]
));

const HOOKS: Rule = rule!(Value::list(HOOK));

static DEVICE_REQUEST_KEYS: &[(&str, Rule)] = keys! {
    "capabilities": STRINGS,
    "count": INTEGER_OR_STRING,
    "device_ids": STRINGS,
    "driver": STRING,
    "options": PAIRS,
};

static UPDATE_CONFIG: Value = Value::object(&Object::with(
    keys! {
        "delay": STRING,
        "failure_action": STRING,
        "max_failure_ratio": NUMBER_OR_STRING,
        "monitor": STRING,
        "order": rule!(Value::words(&["start-first", "stop-first"])),
        "parallelism": INTEGER_OR_STRING,
    },
    &[],
));

const BUILD: Rule = Rule::OneOf(&[
    STRING,
    object!(Object::with(
        keys! {
            // The specification takes numbers as well, Compose does not.
            "additional_contexts": Rule::OneOf(&[object!(Object::of(Names::Any, STRING)), STRINGS]),
            "args": PAIRS,
            "cache_from": STRING_LIST,
            "cache_to": STRING_LIST,
            "context": STRING,
            "dockerfile": STRING,
            "dockerfile_inline": STRING,
            "entitlements": STRING_LIST,
            "extra_hosts": EXTRA_HOSTS,
            "isolation": STRING,
            "labels": PAIRS,
            "network": STRING,
            "no_cache": BOOLEAN_OR_STRING,
            "platforms": STRING_LIST,
            "privileged": BOOLEAN_OR_STRING,
            "provenance": BOOLEAN_OR_STRING,
            "pull": BOOLEAN_OR_STRING,
            "sbom": BOOLEAN_OR_STRING,
            "secrets": FILE_REFERENCES,
            "shm_size": INTEGER_OR_STRING,
            "ssh": PAIRS,
            "tags": STRING_LIST,
            "target": STRING,
            "ulimits": ULIMITS,
        },
        &[]
    )),
]);

const BLKIO_LIMITS: Rule =
    rule!(Value::list(object!(Object::with(keys! { "path": STRING, "rate": INTEGER_OR_STRING }, &[]).closed())));

const BLKIO_CONFIG: Rule = object!(
    Object::with(
        keys! {
            "device_read_bps": BLKIO_LIMITS,
            "device_read_iops": BLKIO_LIMITS,
            "device_write_bps": BLKIO_LIMITS,
            "device_write_iops": BLKIO_LIMITS,
            "weight": INTEGER_OR_STRING,
            "weight_device": rule!(Value::list(object!(
                Object::with(keys! { "path": STRING, "weight": INTEGER_OR_STRING }, &[]).closed()
            ))),
        },
        &[]
    )
    .closed()
);

const DEPENDS_ON: Rule = Rule::OneOf(&[
    STRINGS,
    object!(Object::of(
        Names::Resource,
        object!(Object::with(
            keys! {
                "condition": rule!(Value::words(&[
                    "service_started", "service_healthy", "service_completed_successfully"
                ])),
                "required": BOOLEAN,
                "restart": BOOLEAN_OR_STRING,
            },
            &["condition"]
        ))
    )),
]);

const DEPLOY: Rule = {
    static OBJECT: Object = Object::with(
        keys! {
            "endpoint_mode": STRING,
            "labels": PAIRS,
            "mode": STRING,
            "placement": object!(Object::with(
                keys! {
                    "constraints": STRING_LIST,
                    "max_replicas_per_node": INTEGER_OR_STRING,
                    "preferences": rule!(Value::list(object!(Object::with(keys! { "spread": STRING }, &[])))),
                },
                &[]
            )),
            "replicas": INTEGER_OR_STRING,
            "resources": object!(Object::with(
                keys! { "limits": LIMITS, "reservations": RESERVATIONS },
                &[]
            )),
            "restart_policy": object!(Object::with(
                keys! {
                    "condition": STRING,
                    "delay": STRING,
                    "max_attempts": INTEGER_OR_STRING,
                    "window": STRING,
                },
                &[]
            )),
            "rollback_config": Rule::Value(&UPDATE_CONFIG),
            "update_config": Rule::Value(&UPDATE_CONFIG),
        },
        &[],
    );
    rule!(Value::object(&OBJECT).also(Types::NULL))
};

const LIMITS: Rule =
    object!(Object::with(keys! { "cpus": NUMBER_OR_STRING, "memory": STRING, "pids": INTEGER_OR_STRING }, &[]));

const RESERVATIONS: Rule = object!(Object::with(
    keys! {
        "cpus": NUMBER_OR_STRING,
        "devices": rule!(Value::list(object!(Object::with(DEVICE_REQUEST_KEYS, &["capabilities"])))),
        "generic_resources": rule!(Value::list(object!(Object::with(
            keys! {
                "discrete_resource_spec": object!(Object::with(
                    keys! { "kind": STRING, "value": NUMBER_OR_STRING },
                    &[]
                )),
            },
            &[]
        )))),
        "memory": STRING,
    },
    &[]
));

const DEVELOP: Rule = {
    static OBJECT: Object = Object::with(
        keys! {
            "watch": rule!(Value::list(object!(Object::with(
                keys! {
                    "action": rule!(Value::words(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
                    "exec": HOOK,
                    "ignore": STRING_OR_STRINGS,
                    "include": STRING_OR_STRINGS,
                    "initial_sync": BOOLEAN,
                    "path": STRING,
                    "target": STRING,
                },
                &["path", "action"]
            )))),
        },
        &[],
    );
    rule!(Value::object(&OBJECT).also(Types::NULL))
};

const DEVICES: Rule = rule!(Value::list(Rule::OneOf(&[
    STRING,
    object!(Object::with(keys! { "permissions": STRING, "source": STRING, "target": STRING }, &["source"])),
])));

const ENV_FILE: Rule = Rule::OneOf(&[
    STRING,
    rule!(Value::list(Rule::OneOf(&[
        STRING,
        object!(
            Object::with(keys! { "format": STRING, "path": STRING, "required": BOOLEAN_OR_STRING }, &["path"]).closed()
        ),
    ]))),
]);

const EXTENDS: Rule =
    Rule::OneOf(&[STRING, object!(Object::with(keys! { "file": STRING, "service": STRING }, &["service"]).closed())]);

const GPUS: Rule = Rule::OneOf(&[
    rule!(Value::words(&["all"])),
    rule!(Value::list(object!(Object::with(DEVICE_REQUEST_KEYS, &[]).opened()))),
]);

const HEALTHCHECK: Rule = object!(Object::with(
    keys! {
        "disable": BOOLEAN_OR_STRING,
        "interval": STRING,
        "retries": NUMBER_OR_STRING,
        "start_interval": STRING,
        "start_period": STRING,
        "test": STRING_OR_LIST,
        "timeout": STRING,
    },
    &[]
));

const LOGGING: Rule = object!(Object::with(
    keys! {
        "driver": STRING,
        "options": object!(
            Object::of(Names::Line, rule!(Value::of(Types::STRING.or(Types::NUMBER).or(Types::NULL)))).opened()
        ),
    },
    &[]
));

const SERVICE_MODELS: Rule = Rule::OneOf(&[
    STRINGS,
    object!(
        Object::of(
            Names::Resource,
            Rule::OneOf(&[object!(Object::with(keys! { "endpoint_var": STRING, "model_var": STRING }, &[])), NULL])
        )
        .opened()
    ),
]);

const SERVICE_NETWORKS: Rule = Rule::OneOf(&[
    STRINGS,
    object!(Object::of(
        Names::Resource,
        Rule::OneOf(&[
            object!(Object::with(
                keys! {
                    "aliases": STRINGS,
                    "driver_opts": DRIVER_OPTIONS,
                    "gw_priority": NUMBER,
                    "interface_name": STRING,
                    "ipv4_address": STRING,
                    "ipv6_address": STRING,
                    "link_local_ips": STRINGS,
                    "mac_address": STRING,
                    "priority": NUMBER,
                },
                &[]
            )),
            NULL,
        ])
    )),
]);

const PORTS: Rule = rule!(Value::set(Rule::OneOf(&[
    NUMBER,
    STRING,
    object!(Object::with(
        keys! {
            "app_protocol": STRING,
            "host_ip": STRING,
            "mode": STRING,
            "name": STRING,
            "protocol": STRING,
            "published": INTEGER_OR_STRING,
            "target": INTEGER_OR_STRING,
        },
        &[]
    )),
])));

const PROVIDER: Rule = object!(Object::with(
    keys! {
        "options": object!(
            Object::of(Names::Line, Rule::OneOf(&[WORD, rule!(Value::list(WORD))])).opened()
        ),
        "type": STRING,
    },
    &["type"]
));

const VOLUMES: Rule = rule!(Value::set(Rule::OneOf(&[
    STRING,
    object!(Object::with(
        keys! {
            "bind": object!(Object::with(
                keys! {
                    "create_host_path": BOOLEAN_OR_STRING,
                    "propagation": STRING,
                    "recursive": rule!(Value::words(&["enabled", "disabled", "writable", "readonly"])),
                    "selinux": rule!(Value::words(&["z", "Z"])),
                },
                &[]
            )),
            "consistency": STRING,
            "image": object!(Object::with(keys! { "subpath": STRING }, &[])),
            "read_only": BOOLEAN_OR_STRING,
            "source": STRING,
            "target": STRING,
            "tmpfs": object!(Object::with(
                keys! {
                    "mode": NUMBER_OR_STRING,
                    "size": Rule::OneOf(&[rule!(Value::of(Types::INTEGER).within(0, i128::MAX)), STRING]),
                },
                &[]
            )),
            "type": rule!(Value::words(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
            "volume": object!(Object::with(
                keys! { "labels": PAIRS, "nocopy": BOOLEAN_OR_STRING, "subpath": STRING },
                &[]
            )),
        },
        &["type"]
    )),
])));

const NAMES_OR_NUMBERS: Rule = rule!(Value::set(NUMBER_OR_STRING));

/// Source: `container_name` of the specification's schema; the expression is not anchored.
const CONTAINER_NAME: Pattern = Pattern {
    text: "[a-zA-Z0-9][a-zA-Z0-9_.-]+",
    matches: |text| {
        text.as_bytes().windows(2).any(|pair| {
            matches!(pair, [first, second]
                if first.is_ascii_alphanumeric() && (second.is_ascii_alphanumeric() || b"_.-".contains(second)))
        })
    },
};

/// Source: `pull_policy` of the specification's schema; the expression is not anchored.
const PULL_POLICY: Pattern = Pattern {
    text: "always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+",
    matches: |text| {
        let words = ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
        let period = |rest: &str| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && rest.get(digits..).is_some_and(|unit| unit.starts_with(['w', 'd', 'h', 'm', 's']))
        };
        words.iter().any(|word| text.contains(word)) || text.split("every_").skip(1).any(period)
    },
};

/// A service.
pub(super) static SERVICE: Object = Object::with(
    keys! {
        "annotations": PAIRS,
        "attach": BOOLEAN_OR_STRING,
        "blkio_config": BLKIO_CONFIG,
        "build": BUILD,
        "cap_add": STRINGS,
        "cap_drop": STRINGS,
        "cgroup": rule!(Value::words(&["host", "private"])),
        "cgroup_parent": STRING,
        "command": COMMAND,
        "configs": FILE_REFERENCES,
        "container_name": rule!(Value::of(Types::STRING).like(CONTAINER_NAME)),
        "cpu_count": Rule::OneOf(&[STRING, rule!(Value::of(Types::INTEGER).within(0, i128::MAX))]),
        "cpu_percent": Rule::OneOf(&[STRING, rule!(Value::of(Types::INTEGER).within(0, 100))]),
        "cpu_period": NUMBER_OR_STRING,
        "cpu_quota": NUMBER_OR_STRING,
        "cpu_rt_period": NUMBER_OR_STRING,
        "cpu_rt_runtime": NUMBER_OR_STRING,
        "cpu_shares": NUMBER_OR_STRING,
        "cpus": NUMBER_OR_STRING,
        "cpuset": STRING,
        "credential_spec": object!(Object::with(
            keys! { "config": STRING, "file": STRING, "registry": STRING },
            &[]
        )),
        "depends_on": DEPENDS_ON,
        "deploy": DEPLOY,
        "develop": DEVELOP,
        "device_cgroup_rules": STRINGS,
        "devices": DEVICES,
        "dns": STRING_OR_STRINGS,
        "dns_opt": STRINGS,
        "dns_search": STRING_OR_STRINGS,
        "domainname": STRING,
        "entrypoint": COMMAND,
        "env_file": ENV_FILE,
        "environment": PAIRS,
        "expose": NAMES_OR_NUMBERS,
        "extends": EXTENDS,
        "external_links": STRINGS,
        "extra_hosts": EXTRA_HOSTS,
        "gpus": GPUS,
        "group_add": NAMES_OR_NUMBERS,
        "healthcheck": HEALTHCHECK,
        "hostname": STRING,
        "image": STRING,
        "init": BOOLEAN_OR_STRING,
        "ipc": STRING,
        "isolation": STRING,
        "label_file": STRING_OR_LIST,
        "labels": PAIRS,
        "links": STRINGS,
        "logging": LOGGING,
        "mac_address": STRING,
        "mem_limit": NUMBER_OR_STRING,
        "mem_reservation": INTEGER_OR_STRING,
        "mem_swappiness": INTEGER_OR_STRING,
        "memswap_limit": NUMBER_OR_STRING,
        "models": SERVICE_MODELS,
        "network_mode": STRING,
        "networks": SERVICE_NETWORKS,
        "oom_kill_disable": BOOLEAN_OR_STRING,
        "oom_score_adj": Rule::OneOf(&[STRING, rule!(Value::of(Types::INTEGER).within(-1000, 1000))]),
        // The specification takes null as well, Compose does not.
        "pid": STRING,
        "pids_limit": NUMBER_OR_STRING,
        "platform": STRING,
        "ports": PORTS,
        "post_start": HOOKS,
        "pre_stop": HOOKS,
        "privileged": BOOLEAN_OR_STRING,
        "profiles": STRINGS,
        "provider": PROVIDER,
        "pull_policy": rule!(Value::of(Types::STRING).like(PULL_POLICY)),
        "pull_refresh_after": STRING,
        "read_only": BOOLEAN_OR_STRING,
        "restart": STRING,
        "runtime": STRING,
        "scale": INTEGER_OR_STRING,
        "secrets": FILE_REFERENCES,
        "security_opt": STRINGS,
        "shm_size": NUMBER_OR_STRING,
        "stdin_open": BOOLEAN_OR_STRING,
        "stop_grace_period": STRING,
        "stop_signal": STRING,
        "storage_opt": rule!(Value::of(Types::MAPPING)),
        "sysctls": PAIRS,
        "tmpfs": STRING_OR_STRINGS,
        "tty": BOOLEAN_OR_STRING,
        "ulimits": ULIMITS,
        "use_api_socket": BOOLEAN,
        "user": STRING,
        "userns_mode": STRING,
        "uts": STRING,
        "volumes": VOLUMES,
        "volumes_from": STRINGS,
        "working_dir": STRING,
    },
    &[],
);

/// What starts a job. The rest of its rules, which need more than one key, are in `compose::jobs`.
const TRIGGERS: Rule = object!(Object::with(
    keys! {
        "manual": BOOLEAN_OR_STRING,
        "schedule": rule!(Value::list(Rule::OneOf(&[
            STRING,
            object!(Object::with(
                keys! {
                    "concurrency": rule!(Value::words(&["forbid", "queue"])),
                    "cron": STRING,
                    "missed_fires": rule!(Value::words(&["one", "skip"])),
                    "timezone": STRING,
                },
                &["cron"]
            )),
        ]))),
    },
    &[]
));

/// A job: a service that runs to its end when something starts it.
static JOB: Object = Object::with(keys! { "triggers": TRIGGERS }, &["triggers"]).like(
    &SERVICE,
    &[
        "attach",
        "container_name",
        "deploy",
        "develop",
        "extends",
        "external_links",
        "links",
        "post_start",
        "pre_start",
        "pre_stop",
        "provider",
        "restart",
        "scale",
    ],
);

const EXTERNAL: Rule = {
    static OBJECT: Object = Object::with(keys! { "name": STRING }, &[]);
    rule!(Value::object(&OBJECT).also(Types::BOOLEAN.or(Types::STRING)))
};

/// As [`EXTERNAL`], where any key may stand beside the name.
const EXTERNAL_OPEN: Rule = {
    static OBJECT: Object = Object::with(keys! { "name": STRING }, &[]).opened();
    rule!(Value::object(&OBJECT).also(Types::BOOLEAN.or(Types::STRING)))
};

const NETWORK: Rule = {
    static OBJECT: Object = Object::with(
        keys! {
            "attachable": BOOLEAN_OR_STRING,
            "driver": STRING,
            "driver_opts": DRIVER_OPTIONS,
            "enable_ipv4": BOOLEAN_OR_STRING,
            "enable_ipv6": BOOLEAN_OR_STRING,
            "external": EXTERNAL,
            "internal": BOOLEAN_OR_STRING,
            "ipam": object!(Object::with(
                keys! {
                    "config": rule!(Value::list(object!(Object::with(
                        keys! {
                            "aux_addresses": object!(Object::of(Names::Line, STRING)),
                            "gateway": STRING,
                            "ip_range": STRING,
                            "subnet": STRING,
                        },
                        &[]
                    )))),
                    "driver": STRING,
                    "options": object!(Object::of(Names::Line, STRING)),
                },
                &[]
            )),
            "labels": PAIRS,
            "name": STRING,
        },
        &[],
    );
    rule!(Value::object(&OBJECT).also(Types::NULL))
};

const VOLUME: Rule = {
    static OBJECT: Object = Object::with(
        keys! {
            "driver": STRING,
            "driver_opts": DRIVER_OPTIONS,
            "external": EXTERNAL,
            "labels": PAIRS,
            "name": STRING,
        },
        &[],
    );
    rule!(Value::object(&OBJECT).also(Types::NULL))
};

const SECRET: Rule = object!(Object::with(
    keys! {
        "driver": STRING,
        "driver_opts": DRIVER_OPTIONS,
        "environment": STRING,
        "external": EXTERNAL_OPEN,
        "file": STRING,
        "labels": PAIRS,
        "name": STRING,
        "template_driver": STRING,
    },
    &[]
));

const CONFIG: Rule = object!(Object::with(
    keys! {
        "content": STRING,
        "environment": STRING,
        "external": EXTERNAL_OPEN,
        "file": STRING,
        "labels": PAIRS,
        "name": STRING,
        "template_driver": STRING,
    },
    &[]
));

const MODEL: Rule = object!(Object::with(
    keys! {
        "context_size": INTEGER,
        "model": STRING,
        "name": STRING,
        "runtime_flags": STRING_LIST,
    },
    &["model"]
));

const INCLUDE: Rule = rule!(Value::list(Rule::OneOf(&[
    STRING,
    object!(
        Object::with(
            keys! { "env_file": STRING_OR_STRINGS, "path": STRING_OR_STRINGS, "project_directory": STRING },
            &[]
        )
        .closed()
    ),
])));

/// The whole file.
pub(super) static PROJECT: Value = Value::object(&Object::with(
    keys! {
        "configs": object!(Object::of(Names::Resource, CONFIG)),
        "include": INCLUDE,
        "jobs": object!(Object::of(Names::Resource, rule!(Value::object(&JOB)))),
        "models": object!(Object::of(Names::Resource, MODEL).opened()),
        "name": STRING,
        "networks": object!(Object::of(Names::Resource, NETWORK).opened()),
        "secrets": object!(Object::of(Names::Resource, SECRET)),
        "services": object!(Object::of(Names::Resource, rule!(Value::object(&SERVICE)))),
        "version": STRING,
        "volumes": object!(Object::of(Names::Resource, VOLUME)),
    },
    &[],
));
