//! Whatever the files hold, loading ends, without a panic.
//!
//! `PROPTEST_CASES` says how often it is tried: 2,000,000 keep a core busy for about an hour. `fuzz/` does the same with
//! coverage, on a nightly compiler.

use std::io;
use std::path::Path;

use proptest::prelude::*;
use sense_orchestrator::compose::print::config_json;
use sense_orchestrator::compose::{self, FileKind, Files, Options};

struct Texts {
    main: String,
    other: Option<String>,
    variables: String,
}

impl Files for Texts {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = match path.file_name().and_then(|name| name.to_str()) {
            Some("compose.yaml") => Some(&self.main),
            Some("compose.override.yaml" | "a.yaml") => self.other.as_ref(),
            Some(".env" | "e.env") => Some(&self.variables),
            _ => None,
        };
        text.map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.read(path).map(|_| FileKind::File)
    }
}

/// Values as people write them, rightly and wrongly.
fn value(depth: u32) -> BoxedStrategy<String> {
    let scalar = prop_oneof![
        "[a-z]{1,4}",
        "-?[0-9]{1,4}(\\.[0-9]{1,2})?",
        "'[ -&(-~]{0,12}'",
        proptest::sample::select(vec![
            "null",
            "true",
            "yes",
            "~",
            "''",
            "0777",
            "1e3",
            "2001-01-01",
            "'${U:-d}'",
            "'${U:?m}'",
            "'$A'",
            "'${'",
            "a.yaml",
            "e.env",
            "'8-11:8-11'",
            "'127.0.0.1:80:80/udp'",
            "./a:/b:ro",
            "v:/x",
            "a:/b",
            "/dev/a:/dev/b:r",
            "a=b",
            "h=1.2.3.4",
            "5s",
            "1h30m",
            "64m",
            "service:b",
            "b",
            "*anchor",
            "!reset null",
            "!override [a]",
        ])
        .prop_map(str::to_owned),
    ];
    if depth == 0 {
        return scalar.boxed();
    }
    let inner = value(depth - 1);
    prop_oneof![
        3 => scalar,
        1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
        1 => proptest::collection::vec(("[a-c]|<<|image|target|source|type|path|x-a|soft|test|condition", inner), 0..4).prop_map(
            |entries| {
                let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", entries.join(", "))
            }
        ),
    ]
    .boxed()
}

const KEYS: [&str; 40] = [
    "image",
    "build",
    "ports",
    "volumes",
    "environment",
    "env_file",
    "labels",
    "label_file",
    "networks",
    "depends_on",
    "extends",
    "profiles",
    "command",
    "entrypoint",
    "healthcheck",
    "deploy",
    "devices",
    "extra_hosts",
    "secrets",
    "configs",
    "tmpfs",
    "ulimits",
    "logging",
    "dns",
    "expose",
    "cpus",
    "mem_limit",
    "stop_grace_period",
    "network_mode",
    "links",
    "volumes_from",
    "gpus",
    "models",
    "develop",
    "post_start",
    "blkio_config",
    "cap_add",
    "scale",
    "x-a",
    "imge",
];

fn service() -> impl Strategy<Value = String> {
    proptest::collection::btree_map(proptest::sample::select(&KEYS[..]), value(3), 0..6).prop_map(|attributes| {
        let attributes: Vec<String> = attributes.iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
        format!("    x-anchor: &anchor {{image: i}}\n{}", attributes.concat())
    })
}

fn file() -> impl Strategy<Value = String> {
    let sections = proptest::sample::select(vec![
        "networks", "volumes", "secrets", "configs", "models", "include", "name", "x-top",
    ]);
    let whole = (service(), service(), proptest::collection::btree_map(sections, value(3), 0..3)).prop_map(
        |(first, second, sections)| {
            let sections: Vec<String> = sections.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
            format!("services:\n  a:\n{first}  b:\n{second}{}", sections.concat())
        },
    );
    prop_oneof![9 => whole, 1 => "([a-c:\\[\\]{}&*!<>|'\", \n\t#$-]|services: |---\n){0,60}"]
}

proptest! {
    #[test]
    fn any_files_load_or_are_refused(
        main in file(),
        other in proptest::option::of(file()),
        variables in "([A-C]=[ -~]{0,6}\n){0,3}",
    ) {
        let files = Texts { main, other, variables };
        let options = Options { working_dir: "/project".into(), profiles: vec!["*".to_owned()], ..Options::default() };
        match compose::load(&files, &options).and_then(|model| model.select(&files, &[])) {
            Ok(project) => prop_assert!(config_json(&project).is_ok()),
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
