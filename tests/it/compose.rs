//! Projects of `tests/fixtures/compose`, loaded from memory as if they were in `/project`.
//!
//! Each snapshot of a project is what `docker compose config --format json` prints for the same folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sense_orchestrator::compose::print::config_json;
use sense_orchestrator::compose::{self, FileKind, Files, LoadErrors, LoadLimit, MAX_FILE_BYTES, Options};
use sense_orchestrator::names::ServiceName;

/// Files in memory; what is a prefix of a file's path is a directory.
#[derive(Default)]
struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
    special: Vec<PathBuf>,
}

impl Memory {
    /// The files of a fixture, as if its folder were `/project`.
    fn fixture(name: &str) -> Self {
        fn visit(folder: &Path, to: &Path, memory: &mut Memory) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let target = to.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    visit(&entry.path(), &target, memory);
                } else {
                    memory.files.insert(target, std::fs::read(entry.path()).unwrap());
                }
            }
        }
        let mut memory = Self::default();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose").join(name);
        visit(&folder, Path::new("/project"), &mut memory);
        memory
    }

    fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (Path::new("/project").join(path), text.as_bytes().to_vec()));
        Self { files: files.collect(), special: Vec::new() }
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        if self.special.iter().any(|special| special == path) {
            Ok(FileKind::Other)
        } else if self.files.contains_key(path) {
            Ok(FileKind::File)
        } else if self.files.keys().any(|file| file.starts_with(path)) {
            Ok(FileKind::Directory)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

fn options() -> Options {
    Options {
        working_dir: "/project".into(),
        environment: BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]),
        ..Options::default()
    }
}

/// What Compose would print, or everything that is wrong.
fn config(files: &Memory, options: &Options, services: &[&str]) -> String {
    let services: Vec<ServiceName> = services.iter().map(|name| name.parse().unwrap()).collect();
    match compose::load(files, options).and_then(|model| model.select(files, &services)) {
        Ok(project) => config_json(&project.without_label_files()).unwrap(),
        Err(errors) => errors.to_string(),
    }
}

fn errors_of(files: &Memory) -> LoadErrors {
    compose::load(files, &options()).and_then(|model| model.select(files, &[])).unwrap_err()
}

#[test]
fn a_shared_container_name_is_an_error_among_selected_services_only() {
    let files = Memory::of(&[(
        "compose.yaml",
        "services:\n  a: {image: i, container_name: same}\n  b: {image: i, container_name: same}\n  c: {image: i, depends_on: [a, b]}\n",
    )]);
    let wrong = "services.b: container name \"same\" is already in use by service a";
    for (services, refused) in [(&[][..], true), (&["a"], false), (&["b"], false), (&["c"], true)] {
        assert_eq!(config(&files, &options(), services).contains(wrong), refused, "{services:?}");
    }
}

macro_rules! fixtures {
    ($($test:ident: $fixture:literal $(, profiles $profiles:expr)? $(, services $services:expr)?;)*) => {
        $(#[test]
        fn $test() {
            #[allow(unused_mut, reason = "only some fixtures set options")]
            let mut options = options();
            $(options.profiles = $profiles.iter().map(|profile: &&str| (*profile).to_owned()).collect();)?
            #[allow(unused_mut, unused_assignments, reason = "only some fixtures select services")]
            let mut services: &[&str] = &[];
            $(services = &$services;)?
            insta::assert_snapshot!(config(&Memory::fixture($fixture), &options, services));
        })*
    };
}

fixtures! {
    an_override_file_is_merged_field_by_field: "merge";
    tags_remove_and_replace: "tags";
    later_documents_and_the_last_name_win: "documents";
    services_extend_others_of_any_file: "extends";
    included_files_have_their_own_folder_and_variables: "include";
    short_forms_become_long: "canonical";
    networks_names_and_dependencies_are_implied: "implied";
    variables_come_from_where_compose_takes_them: "environment";
    without_profiles_only_services_without_profiles_are_enabled: "profiles";
    a_named_service_enables_its_profiles_but_not_those_of_its_dependencies: "profiles", services ["web"];
    an_enabled_service_cannot_depend_on_a_disabled_one: "profiles", profiles ["front"];
    a_missing_env_file_is_an_error_of_a_selected_service: "profiles", profiles ["back"], services ["web"];
    a_service_that_is_not_selected_needs_no_env_file: "profiles", profiles ["back"], services ["always"];
    all_errors_of_a_file_are_reported_with_their_places: "errors";
    all_inconsistencies_are_reported_with_their_places: "inconsistent";
}

#[test]
fn files_are_searched_upwards_and_both_env_files_count() {
    let options = Options { working_dir: "/project/deep/down".into(), ..options() };
    insta::assert_snapshot!(config(&Memory::fixture("search"), &options, &[]));
}

#[test]
fn settings_in_the_env_file_choose_files_profiles_and_name() {
    let options = Options { working_dir: "/project/here".into(), ..options() };
    insta::assert_snapshot!(config(&Memory::fixture("variable"), &options, &[]));
}

#[test]
fn a_project_seen_elsewhere_is_told_in_the_hosts_paths() {
    let files = Memory::fixture("canonical");
    let options = Options { host_paths: vec![("/project".into(), "/srv/app".into())], ..options() };
    let project = compose::load(&files, &options).unwrap().select(&files, &[]).unwrap();
    assert_eq!(project.working_dir, "/srv/app");
    assert_eq!(project.config_files, ["/srv/app/compose.yaml"]);
    assert_eq!(project.secrets["key"].file, "/srv/app/key");
    assert_eq!(project.volumes["store"].driver_opts["device"], "/srv/app/dev");
    let sources: Vec<&str> =
        project.services["web"].volumes.iter().map(|mount| mount.source.as_str()).filter(|s| s.contains('/')).collect();
    assert_eq!(sources, ["/srv/app/b", "/home/me/home", "/srv/app"]);
    assert_eq!(project.services["web"].labels["from"], "file", "label files are read where we see them");
}

#[test]
fn a_host_path_that_a_variable_brings_is_read_where_we_see_it() {
    let files = Memory::of(&[
        ("compose.yaml", "services: {web: {image: x, env_file: ['${PWD}/my.env'], volumes: ['${PWD}/d:/d']}}"),
        ("my.env", "A=1"),
    ]);
    let mut options = Options { host_paths: vec![("/project".into(), "/srv/app".into())], ..options() };
    options.environment.insert("PWD".to_owned(), "/srv/app".to_owned());
    let project = compose::load(&files, &options).unwrap().select(&files, &[]).unwrap();
    let web = &project.services["web"];
    assert_eq!(web.environment["A"].as_deref(), Some("1"));
    assert_eq!(web.volumes[0].source, "/srv/app/d");
}

#[test]
fn a_container_name_is_taken_only_by_a_service_that_is_created_too() {
    let text =
        "services:\n  a: {image: x, container_name: one}\n  b: {image: x, container_name: one, depends_on: [a]}\n";
    let files = Memory::of(&[("compose.yaml", text)]);
    let model = compose::load(&files, &options()).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<ServiceName>>();
    assert!(model.select(&files, &names(&["a"])).is_ok());
    assert!(model.select_for_stop(&files, &[]).is_ok(), "nothing is created");
    for selected in [&[][..], &["b"][..]] {
        let errors = model.select(&files, &names(selected)).unwrap_err().to_string();
        assert!(errors.contains("container name \"one\" is already in use by service a"), "{errors}");
    }
}

/// Compose says so only where it prints or hashes the number, which is before every container.
#[test]
fn a_number_that_is_not_finite_is_refused_at_its_place() {
    let errors = errors_of(&Memory::of(&[("compose.yaml", "services:\n  a:\n    image: x\n    cpus: .inf\n")]));
    assert_eq!(errors.to_string(), "compose.yaml:4:11: services.a.cpus must be a finite number");
}

#[test]
fn stopping_reads_no_env_file() {
    let files = Memory::of(&[("compose.yaml", "services: {web: {image: x, env_file: nowhere.env}}")]);
    let model = compose::load(&files, &options()).unwrap();
    assert!(model.select(&files, &[]).is_err());
    assert!(model.select_for_stop(&files, &[]).unwrap().services.contains_key("web"));
}

/// As `config`, `up web`, and `config --hash` of Compose do.
#[test]
fn only_services_that_are_kept_need_container_names_of_their_own() {
    let text = "services:\n  web: {image: x, container_name: same}\n  other: {image: x, container_name: same}\n";
    let files = Memory::of(&[("compose.yaml", text)]);
    let model = compose::load(&files, &options()).unwrap();
    let errors = model.select(&files, &[]).unwrap_err().to_string();
    assert!(
        errors.starts_with("compose.yaml:2:19: services.web: container name \"same\" is already in use"),
        "{errors}"
    );
    assert!(model.select(&files, &["web".parse().unwrap()]).is_ok());
    assert!(model.select_for_stop(&files, &[]).is_ok());
}

#[test]
fn a_secret_of_an_included_file_keeps_the_value_of_its_own_environment() {
    let files = Memory::fixture("include");
    let model = compose::load(&files, &options()).unwrap();
    let project = model.select(&files, &["inner".parse().unwrap()]).unwrap();
    assert_eq!(project.secrets["key"].environment_value.as_deref(), Some("parent-child"));
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let mut files = Memory::of(&[]);
    files.special.push("/project/compose.yaml".into());
    assert_eq!(errors_of(&files).to_string(), "read /project/compose.yaml: is not a regular file");
    let files = Memory::of(&[("compose.yaml/inner", "")]);
    assert_eq!(errors_of(&files).to_string(), "read /project/compose.yaml: is a directory");
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_its_line() {
    let mut files = Memory::of(&[]);
    files.files.insert("/project/compose.yaml".into(), b"services:\n  a: {image: \xff}\n".to_vec());
    assert_eq!(errors_of(&files).to_string(), "read /project/compose.yaml: line 2 is not UTF-8");
}

#[test]
fn a_file_beyond_the_limit_is_refused() {
    let text = format!("services: {{a: {{image: x}}}}\n#{}", " ".repeat(MAX_FILE_BYTES));
    let files = Memory::of(&[("compose.yaml", &text)]);
    assert_eq!(errors_of(&files).to_string(), "read /project/compose.yaml: is larger than 10 MiB");
}

#[test]
fn more_services_than_any_project_has_are_refused() {
    let services: Vec<String> = (0..=10_000).map(|index| format!(" s{index}: {{image: x}}\n")).collect();
    let files = Memory::of(&[("compose.yaml", &format!("services:\n{}", services.concat()))]);
    assert_eq!(errors_of(&files).to_string(), "compose.yaml:1:1: the project has more than 10000 services");
}

#[test]
fn a_chain_of_extends_that_grows_without_bound_is_refused() {
    let pairs: Vec<String> = (0..2_000).map(|index| format!("V{index}: x")).collect();
    let mut text = format!("services:\n s0: {{image: x, environment: {{{}}}}}\n", pairs.join(", "));
    text.extend((1..9_000).map(|index| format!(" s{index}: {{extends: s{}}}\n", index - 1)));
    let errors = errors_of(&Memory::of(&[("compose.yaml", &text)])).to_string();
    assert!(
        errors.contains("the project takes more than the 256 MiB of memory"),
        "{}",
        errors.lines().next().unwrap_or_default()
    );
}

#[test]
fn includes_that_multiply_are_refused() {
    let mut files: Vec<(String, String)> = (0..30)
        .map(|index| (format!("{index}.yaml"), format!("include: [{next}.yaml, {next}.yaml]\n", next = index + 1)))
        .collect();
    files.push(("30.yaml".to_owned(), "services: {a: {image: x}}".to_owned()));
    files.push(("compose.yaml".to_owned(), "include: [0.yaml]".to_owned()));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let errors = errors_of(&Memory::of(&files)).to_string();
    assert!(errors.contains("the project reads more than 2000 files"), "{errors}");
}

#[test]
fn a_long_chain_of_includes_is_refused() {
    let files: Vec<(String, String)> = (0..1_000)
        .map(|index| {
            let name = if index == 0 { "compose.yaml".to_owned() } else { format!("{index}.yaml") };
            (name, format!("include: [{}.yaml]\nservices: {{s{index}: {{image: x}}}}", index + 1))
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let errors = errors_of(&Memory::of(&files)).to_string();
    assert!(errors.contains("more than 50 files include each other"), "{errors}");
}

#[test]
fn a_long_chain_of_extends_is_refused() {
    let link = |text: String, index: usize| text + &format!(" s{index}: {{extends: s{}}}\n", index + 1);
    let text = (0..1_000).fold(String::new(), link);
    let text = format!("services:\n{text} s1000: {{image: x}}\n");
    let errors = errors_of(&Memory::of(&[("compose.yaml", &text)])).to_string();
    assert!(errors.contains("more than 200 services extend each other in one chain"), "{errors}");
}

#[test]
fn ranges_of_ports_that_multiply_are_refused() {
    let ports: Vec<String> = (1..=100).map(|last| format!("  - 127.0.0.{last}:1-60000:1-60000\n")).collect();
    let ports = ports.concat();
    let files = Memory::of(&[("compose.yaml", &format!("services:\n a:\n  image: x\n  ports:\n{ports}"))]);
    let errors = errors_of(&files).to_string();
    assert!(errors.contains("services.a.ports.[2]: the project takes more than the 256 MiB of memory"), "{errors}");
}

#[test]
fn thousands_of_errors_are_counted_and_not_kept() {
    let keys: Vec<String> = (0..10_000).map(|index| format!("  k{index}: x\n")).collect();
    let files = Memory::of(&[("compose.yaml", &format!("services:\n a:\n  image: x\n{}", keys.concat()))]);
    let errors = errors_of(&files).to_string();
    assert!(errors.lines().count() <= 501, "{}", errors.lines().count());
}

/// Lines that somebody mistyped, each with a secret in it, and the column that is named.
const MISTYPED: [(&str, u32); 8] = [
    ("PASSWORD=hunter2${x", 10),
    ("PASSWORD='hunter2", 10),
    ("PASSWORD=\"hunter2", 10),
    ("PASS WORD=hunter2", 5),
    ("PASSWORD hunter2=", 9),
    ("PASSWORD%=hunter2", 9),
    ("PASSWORD=${hunter2:?hunter2}", 10),
    ("PASSWORD=${U:-${hunter2", 10),
];

#[test]
fn a_mistyped_line_of_an_env_file_is_named_and_never_shown() {
    for (line, column) in MISTYPED {
        let text = format!("A=1\n{line}\n");
        for (env_file, file) in [("other.env", ".env"), ("my.env", "my.env")] {
            let compose = format!("services: {{a: {{image: x, env_file: [{{path: {env_file}, required: false}}]}}}}");
            let files = Memory::of(&[("compose.yaml", &compose), (file, &text)]);
            let said = errors_of(&files).to_string();
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.starts_with(&format!("{file}:2:{column}: ")), "{line}: {said}");
        }
    }
    let raw = "services: {a: {image: x, env_file: [{path: my.env, format: raw}]}}";
    for line in ["=hunter2", "PASS WORD=hunter2", "hunter2 =x"] {
        let said = errors_of(&Memory::of(&[("compose.yaml", raw), ("my.env", line)])).to_string();
        assert!(said.starts_with("my.env:1:1: ") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_variable_that_an_env_file_lacks_is_warned_of_by_its_place() {
    let files = Memory::of(&[("compose.yaml", "services: {a: {image: x}}"), (".env", "A=1\nPASSWORD=hun$ter2\n")]);
    let model = compose::load(&files, &options()).unwrap();
    assert_eq!(model.warnings(), [".env:2:10: a variable is not set. Defaulting to a blank string."]);
}

#[test]
fn no_error_of_a_compose_file_shows_what_a_variable_holds_or_a_mistyped_text() {
    let env = (".env", "SECRET=hunter2\n");
    for service in [
        "environment: {PASSWORD: 'hunter2${x'}",
        "environment: ['PASSWORD=hunter2${x']",
        "environment: {PASSWORD: '${U:?not $SECRET}'}",
        "environment: {PASSWORD: *hunter2}",
        "environment: {PASSWORD: !!int hunter2}",
        "tty: ${SECRET}",
        "scale: ${SECRET}",
        "cpus: ${SECRET}",
    ] {
        let text = format!("services:\n  a:\n    image: x\n    {service}\n");
        let said = errors_of(&Memory::of(&[("compose.yaml", &text), env])).to_string();
        assert!(said.starts_with("compose.yaml:4:") && !said.contains("hunter2"), "{service}: {said}");
    }
    let text = "services: {a: {image: x, scale: many}}";
    let said = errors_of(&Memory::of(&[("compose.yaml", text), env])).to_string();
    assert!(said.contains("parsing \"many\""), "a literal is shown: {said}");
}

/// A quarter of the memory that `compose.yaml` gives the daemon.
const SMALL: LoadLimit = LoadLimit::bytes(8 << 20);

/// What loading within [`SMALL`], or selecting all services, says of one file and `.env`.
fn said_within(compose: &str, variables: &str) -> String {
    let files = Memory::of(&[("compose.yaml", compose), (".env", variables)]);
    let options = Options { limit: SMALL, ..options() };
    match compose::load(&files, &options).and_then(|model| model.select(&files, &[])) {
        Ok(project) => format!("{} services", project.services.len()),
        Err(errors) => errors.to_string(),
    }
}

/// Lines made of their numbers.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

#[test]
fn what_takes_more_memory_than_a_load_may_is_refused_with_its_place() {
    let service = "services:\n a:\n  image: x\n";
    let laughs = (1..9).fold("x-a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{text}x-a{level}: &a{level} [{aliases}]\n")
    });
    let doubling = lines(40, |n| format!("A{}=${{A{n}}}${{A{n}}}\n", n + 1));
    for (name, compose, variables) in [
        ("aliases", format!("{laughs}{service}"), String::new()),
        ("ports", format!("{service}  ports: ['1-65535:1-65535']\n"), String::new()),
        ("expose", format!("{service}  expose: [{}]\n", lines(60_000, |n| format!("'{n}',"))), String::new()),
        (
            "environment",
            format!("{service}  environment:\n{}", lines(40_000, |n| format!("   V{n}: x\n"))),
            String::new(),
        ),
        (
            "environment list",
            format!("{service}  environment:\n{}", lines(40_000, |n| format!("   - V{n}=x\n"))),
            String::new(),
        ),
        ("volumes", format!("{service}  volumes:\n{}", lines(20_000, |n| format!("   - /a:/b{n}\n"))), String::new()),
        (
            "a chain",
            format!("services:\n{}", lines(5_000, |n| format!(" s{n}: {{image: x, depends_on: [s{}]}}\n", n + 1)))
                + " s5000: {image: x}\n",
            String::new(),
        ),
        ("services", format!("services:\n{}", lines(9_999, |n| format!(" s{n}: {{image: x}}\n"))), String::new()),
        ("a long text", format!("{service}  labels: {{l: '{}'}}\n", "x".repeat(9 << 20)), String::new()),
        ("a comment", format!("{service}#{}\n", "x".repeat(9 << 20)), String::new()),
        ("doubling", service.to_owned(), format!("A0=xx\n{doubling}")),
        ("variables", service.to_owned(), lines(60_000, |n| format!("V{n}=x\n"))),
        (
            "interpolation",
            format!("{service}  labels:\n{}", lines(2_000, |n| format!("   l{n}: $LONG\n"))),
            format!("LONG={}\n", "x".repeat(60_000)),
        ),
        (
            "merges",
            format!(
                "x-m: &m {{{}}}\nservices:\n{}",
                lines(500, |n| format!("k{n}: v,")),
                lines(500, |n| format!(" s{n}: {{image: x, labels: {{<<: *m}}}}\n"))
            ),
            String::new(),
        ),
        (
            "extends",
            format!("services:\n s0: {{image: x, labels: {{{}}}}}\n", lines(500, |n| format!("k{n}: v,")))
                + &lines(190, |n| format!(" s{}: {{extends: s{n}}}\n", n + 1)),
            String::new(),
        ),
    ] {
        let said = said_within(&compose, &variables);
        let first = said.lines().next().unwrap_or_default();
        let refused = [
            "of memory that loading it may take",
            "memory than loading may take",
            "memory that loading may take",
            "grows too large",
        ];
        assert!(refused.iter().any(|words| first.contains(words)), "{name}: {first}");
        assert!(first.contains("compose.yaml") || first.contains(".env"), "{name}: {first}");
        assert!(said.lines().count() <= 101, "{name}: it is said once");
    }
}

#[test]
fn an_env_file_of_a_service_counts_as_much_as_the_project() {
    let files = Memory::of(&[
        ("compose.yaml", "services: {a: {image: x, env_file: [my.env]}}"),
        ("my.env", &lines(60_000, |n| format!("V{n}=x\n"))),
    ]);
    let model = compose::load(&files, &Options { limit: SMALL, ..options() }).unwrap();
    let said = model.select(&files, &[]).unwrap_err().to_string();
    assert!(said.starts_with("my.env:") && said.contains("more memory than loading may take"), "{said}");
}

#[test]
fn a_large_project_that_people_have_fits_into_a_small_daemon() {
    let environment = lines(50, |n| format!("   V{n}: value number {n}\n"));
    let service = |n: usize| {
        format!(
            " s{n}:\n  image: x\n  ports: ['{n}:80', '8000-8010']\n  volumes: ['./{n}:/data', 'v:/v']\n  environment:\n{environment}"
        )
    };
    let compose = format!("services:\n{}volumes: {{v: }}\n", lines(100, service));
    assert_eq!(said_within(&compose, "A=1\n"), "100 services");
}

#[test]
fn a_volume_is_kept_for_a_mount_of_a_volume_only() {
    for (kind, kept) in [("image", false), ("tmpfs", false), ("npipe", false), ("cluster", false), ("volume", true)] {
        let text = format!(
            "services: {{a: {{image: x, volumes: [{{type: {kind}, source: data, target: /y}}]}}}}\nvolumes: {{data: }}\n"
        );
        let files = Memory::of(&[("compose.yaml", &text)]);
        let project = compose::load(&files, &options()).unwrap().select(&files, &[]).unwrap();
        assert_eq!(project.volumes.contains_key("data"), kept, "{kind}");
    }
}

#[test]
fn a_selection_copies_and_reads_nothing_of_the_services_that_it_leaves_out() {
    let files = Memory::of(&[(
        "compose.yaml",
        "services:\n  a: {image: i, depends_on: [b]}\n  b: {image: i}\n  c: {image: i, env_file: [gone.env], networks: [n]}\n\
         networks: {n: }\n",
    )]);
    let model = compose::load(&files, &options()).unwrap();
    let project = model.select(&files, &["a".parse().unwrap()]).unwrap();
    assert_eq!(project.services.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a", "b"]);
    assert!(project.disabled.is_empty() && !project.networks.contains_key("n"));
}
