use sense_orchestrator::settings::{Environment, Settings, Sources};
#[test]
fn table() {
    let dir = std::env::temp_dir().join(format!("so-settings-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let files: &[&str] = &[
        "scheduler:\n  max_paralel: 3\n  first_run: imediate\nlog:\n  level: loud\n  format: jsn\n",
        "max_parallel: 3\nsheduler: {}\nfoo: 1\n",
        "scheduler:\n  max_parallel: 0\nruns:\n  timeout: 5 parsecs\n  tail: 2GB\nshutdown: { grace: 5M }\n",
        "scheduler:\n  max_parallel:\n  first_run: 3\nruns: 5\nhealth: [a]\n",
        "services:\n  backup: { every: 8d }\n  a: { evry: 5s, timeout: -3 }\n  b: { every: 0.5s }\n  c: { every: true }\n  d: { every: .nan }\n  'x y': { every: 3s }\n  e: 30s\n  f: { env: [A=b], status: 'a b' }\n",
        "a: [1\nb: 2\n",
        "a: 1\na: 2\nlog: {level: info, level: debug}\n",
        "- a\n- b\n",
        "hello",
        "",
        "log:\n\tlevel: info\n",
        "---\nlog: {}\n---\nlog: {}\n",
        "x: !!binary abc\nlog: !foo {level: info}\n",
        "redis:\n  password: 0123\n  database: 70000\n  url: http://me:s3cret@x\n",
        "redis:\n  password: 123\n  url: redis://me:s3cret@x/3\n  database: 4\n",
        "redis:\n  password: abc\n  password_file: /x\n",
        "redis: s3cret\n",
        "redis:\n  password_file: /nonexistent\n  url_file: /tmp\n",
        "docker:\n  host: ssh://me@x\n  tls_verify: maybe\n  cert_path: 5\n",
        "docker: { host: 'tcp://x', tls_verify: yes }\n",
        "docker: { host: 'tcp://x:2375', tls_verify: yes }\n",
        "compose:\n  dialect: 2.40\n  profiles: 5\n  project_name: Foo\n  files: [a, 5, b, [c]]\n  environment: [=x]\n",
        "preset: sense-puls\n",
        "preset: 5\n",
        "actions:\n  a: [ { run: worker, evn: {A: b} }, { explode: x }, { wait: 5s }, { stop: 'a/b' } ]\n  b: []\n  c: { run: x }\n  d: [ { reply: x } ]\n",
        "seeds:\n  x: { fields: { a: { as: int }, b: { env: B, as: integer }, c: { env: C, default: 1 } } }\n  y: {}\n",
        "config_changes:\n  auth: { service: web, when_changed: restrt }\n",
        "health: { interval: 60s, status_ttl: 30s }\n",
        "services: { a: { every: 5s, schedule_key: x }, b: { every: 5s, schedule_key: x } }\npreset: none\n",
        "commands:\n  max_in_flight: 1e9\n  deny: [a b]\n  reply_ttl: 2h\n",
        "services: &x\n  a: *x\n",
        "1: 2\n? [a]\n: b\n",
    ];
    for (i, text) in files.iter().enumerate() {
        let path = dir.join("c.yaml");
        std::fs::write(&path, text).unwrap();
        let sources = Sources { file: Some(path), ..Sources::default() };
        println!("--- {i}\n{text}=>");
        match Settings::load(&sources) {
            Ok(_) => println!("OK"),
            Err(e) => println!("{}", e.to_string().replace(dir.to_str().unwrap(), "")),
        }
    }
    let envs: &[&[(&str, &str)]] = &[
        &[
            ("ORCHESTRATOR_LOG_LEVEL", "debug"),
            ("ORCHESTRATOR_LOG__LEVL", "x"),
            ("ORCHESTRATOR_FOO", "1"),
            ("ORCHESTRATOR_MAX_PARALLEL", "3"),
            ("ORCHESTRATOR_", "x"),
            ("ORCHESTRATOR___", "x"),
            ("ORCHESTRATOR_LOG", "x"),
            ("ORCHESTRATOR_LOG__LEVEL__X", "x"),
        ],
        &[
            ("ORCHESTRATOR_SCHEDULER__MAX_PARALLEL", "many"),
            ("SCHEDULE_WEATHER", "abc"),
            ("SCHEDULE_WETHER", "3"),
            ("SCHEDULE_FOO", "3"),
            ("SCHEDULE_SYSTEM", "0"),
            ("SCHEDULE_PIHOLE", "-1"),
        ],
        &[("REDIS_URL", "redis:/x"), ("DOCKER_HOST", "foo"), ("COMPOSE_PROJECT_NAME", "Foo")],
        &[("REDIS_PASSWORD", "a"), ("REDIS_PASSWORD_FILE", "/x"), ("ORCHESTRATOR_REDIS__PASSWORD_FILE", "/y")],
        &[
            ("ORCHESTRATOR_SERVICES__SOURCE_WEATHER__EVRY", "3"),
            ("ORCHESTRATOR_SERVICES__NEW__EVERY", "3s"),
            ("ORCHESTRATOR_ACTIONS__X", "foo"),
        ],
        &[
            ("ORCHESTRATOR_CONFIG", "/nonexistent.yaml"),
            ("AUTH_PASSWORD_HASH_FILE", "/nope"),
            ("AUTH_USERNAME", "x"),
            ("AUTH_USERNAME_FILE", "y"),
        ],
        &[
            ("ORCHESTRATOR_PRESET", "none "),
            ("ORCHESTRATOR_COMPOSE__DIALECT", "2.40"),
            ("ORCHESTRATOR_RUNS__TIMEOUT", " 30 "),
        ],
    ];
    for e in envs {
        let environment = Environment::new(e.iter().map(|(a, b)| ((*a).into(), (*b).into())));
        println!("--- {e:?}\n=>");
        match Settings::load(&Sources { environment, ..Sources::default() }) {
            Ok(s) => println!("OK {:?}", s.warnings),
            Err(e) => println!("{e}"),
        }
    }
}
