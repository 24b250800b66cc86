//! The layers of ARCHITECTURE.md, held by reading the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, from the vocabulary to the process.
const LAYERS: [&[&str]; 8] = [
    &["names", "clock", "report", "record", "text", "backoff", "log_limit", "random"],
    &["compose", "spec", "plan", "request", "schedule", "action", "message", "event", "control"],
    &["engine", "bus", "file", "ledger", "observer"],
    &["projects", "memory", "upcoming"],
    &["backend"],
    &[
        "engine::docker",
        "bus::redis",
        "ledger::file",
        "ledger::boot",
        "observer::ledger",
        "observer::log",
        "observer::redis_records",
        "backend::compose",
    ],
    &["runner", "jobs", "scheduler", "dispatcher", "monitor", "seeder", "lease"],
    &[
        "settings",
        "telemetry",
        "supervisor",
        "control::client",
        "control::place",
        "control::server",
        "app",
        "cli",
        "main",
        "lib",
    ],
];

const ADAPTERS: usize = 5;
const COMPONENTS: usize = 6;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the source is where this test looks");
    found
}

/// The module of a file, such as `engine::docker`: as long a name as the table of layers has.
fn module(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let full = relative.with_extension("").to_string_lossy().replace('/', "::");
    known(&full).unwrap_or_else(|| panic!("{} belongs to no layer", relative.display()))
}

fn known(path: &str) -> Option<String> {
    let all: BTreeSet<&str> = LAYERS.iter().copied().flatten().copied().collect();
    let mut parts: Vec<&str> = path.split("::").collect();
    while !parts.is_empty() {
        let name = parts.join("::");
        if all.contains(name.as_str()) {
            return Some(name);
        }
        parts.pop();
    }
    None
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|modules| modules.contains(&module)).unwrap()
}

/// Source without comments and test modules.
fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Modules of ours that a piece of source names after `crate::`, those of a list in braces included.
fn used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or_default();
            found.extend(list.split(',').filter_map(|item| known(item.trim())));
        } else {
            let path: String =
                rest.chars().take_while(|letter| letter.is_alphanumeric() || "_:".contains(*letter)).collect();
            found.extend(known(path.trim_end_matches(':')));
        }
    }
    found
}

#[test]
fn a_module_uses_only_layers_below_its_own() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let module = module(&path);
        for other in used(&code(&text)) {
            let (from, to) = (layer(&module), layer(&other));
            let same_module = other == module || other.split("::").next() == module.split("::").next();
            let allowed = match from {
                COMPONENTS => to < from && to != ADAPTERS || ["runner", "jobs"].contains(&other.as_str()),
                0 | 1 | 7 => to <= from,
                _ => to < from,
            };
            if !allowed && !same_module {
                broken.push(format!("{} (layer {from}) uses {other} (layer {to})", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_domain_neither_waits_nor_reads_nor_logs_nor_looks_at_the_clock() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if layer(&module(&path)) > 1 {
            continue;
        }
        let text = code(&text);
        for word in [
            "async ",
            ".await",
            "tokio::",
            "std::fs",
            "tracing::",
            "TcpStream",
            "UnixStream",
            "Instant::now",
            "Timestamp::now",
        ] {
            let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
            if text.split(word).skip(1).any(|rest| !word.ends_with('t') || is_whole(rest)) {
                broken.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What is worth a line is an event, which an observer logs: that is the contract of `docs/events.md`.
#[test]
fn components_log_for_debugging_only() {
    for (path, text) in sources() {
        let module = module(&path);
        if layer(&module) != COMPONENTS {
            continue;
        }
        for word in ["info!(", "warn!(", "error!("] {
            assert!(!code(&text).contains(word), "{} logs by {word}..)", path.display());
        }
    }
}

#[test]
fn clients_are_named_in_their_adapters_only() {
    for (path, text) in sources() {
        let (module, text) = (module(&path), code(&text));
        assert!(module == "bus::redis" || !text.contains("fred::"), "{} names fred", path.display());
        assert!(module == "engine::docker" || !text.contains("hyper::"), "{} names hyper", path.display());
    }
}

#[test]
fn select_tries_its_branches_in_the_order_in_which_they_are_written() {
    for (path, text) in sources() {
        for branches in code(&text).split("select! {").skip(1) {
            let first = branches.lines().map(str::trim).find(|line| !line.is_empty());
            assert_eq!(first, Some("biased;"), "{}: at random it is not replayed by a seed", path.display());
        }
    }
}

#[test]
fn random_bytes_come_over_their_port() {
    for (path, text) in sources() {
        assert!(module(&path) == "random" || !text.contains("getrandom::"), "{} names getrandom", path.display());
    }
}

/// Maps without an order are the Engine's types, or looked up by key and never gone through.
#[test]
fn maps_without_an_order_are_in_files_that_do_not_go_through_them() {
    const LOOKED_UP: [&str; 9] = [
        "compose/extends.rs",
        "compose/yaml/tabs.rs",
        "compose/loader.rs",
        "compose/yaml/map.rs",
        "compose/places.rs",
        "compose/schema.rs",
        "compose/merge/unique.rs",
        "compose/yaml.rs",
        "dispatcher/recent.rs",
    ];
    const THE_ENGINES: [&str; 5] =
        ["spec.rs", "spec/host.rs", "spec/labels.rs", "plan/observe.rs", "app/own_container.rs"];
    for (path, text) in sources() {
        let known = LOOKED_UP.iter().chain(&THE_ENGINES).any(|known| path.ends_with(Path::new("src").join(known)));
        for word in ["HashMap", "HashSet"] {
            assert!(known || !code(&text).contains(word), "{} names {word}: use an ordered one", path.display());
        }
    }
}

#[test]
fn the_source_knows_nothing_of_the_preset() {
    for (path, text) in sources() {
        let text = text.to_lowercase();
        for word in ["camera", "aranet", "pihole", "tailscale", "stream:ended", "web-gateway"] {
            assert!(!text.contains(word), "{} says {word}: it belongs into config/sense-pulse.yaml", path.display());
        }
    }
}

#[test]
fn a_file_holds_at_most_400_lines_of_code_or_says_why() {
    for (path, text) in sources() {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = product.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        let excused = text.lines().take(12).any(|line| {
            line.starts_with("//!")
                && ["over 400 lines", "longer than a file should be"].iter().any(|why| line.contains(why))
        });
        assert!(lines <= 400 || excused, "{} has {lines} lines of code", path.display());
    }
}
