//! Keeps what variables hold out of errors and warnings, since it may be a secret: `${NAME}` is shown in its place.
//!
//! Errors quote values whole, in parts and in small letters, and not only those of the place where they stand. So not
//! their makers leave the values out: whatever a text has in common with one is taken out of it before it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::error::{LoadError, LoadErrors};
use super::yaml::Place;

/// Characters in a row that a text has in common with a value, from which on they are taken out of it.
const PART: usize = 6;

/// Characters of a shorter value, or of a quoted part of one, that are still told from words of the sentence.
const SHORT: std::ops::Range<usize> = 3..PART;

/// Words of the errors' own, which a value may have as well.
const WORDS: [&str; 10] =
    ["service", "network", "volume", "secret", "config", "project", "compose", "invalid", "undefined", "target"];

/// Bytes of values that the errors of one load are compared with; a hostile project has more, and its errors say less.
const MOST_COMPARED: usize = 4 << 20;

/// Which variables interpolation used, and where.
#[derive(Debug, Clone, Default)]
pub(super) struct UsedVariables {
    /// By the number of the scope: those of an included file have values of their own.
    scopes: BTreeMap<usize, Used>,
    places: BTreeSet<(Place, Arc<str>)>,
    /// Where the project is: part of many values, and of the path of each file that an error names.
    directory: String,
}

#[derive(Debug, Clone)]
struct Used {
    environment: Arc<BTreeMap<String, String>>,
    names: BTreeSet<Arc<str>>,
}

/// Bytes that it takes to remember where a variable was used.
pub(super) const USE: usize = 2 * size_of::<(Place, Arc<str>)>();

impl UsedVariables {
    /// Those of a project in a directory.
    pub(super) fn in_directory(directory: &str) -> Self {
        Self { directory: format!("{directory}/"), ..Self::default() }
    }

    /// Notes that a variable's value was put in, at a place that is kept where there is memory for it.
    pub(super) fn note(
        &mut self,
        scope: usize,
        environment: &Arc<BTreeMap<String, String>>,
        name: &str,
        place: Option<&Place>,
    ) {
        if is_ours(name) {
            return;
        }
        let new = || Used { environment: Arc::clone(environment), names: BTreeSet::new() };
        let names = &mut self.scopes.entry(scope).or_insert_with(new).names;
        let name = names.get(name).cloned().unwrap_or_else(|| {
            let name: Arc<str> = name.into();
            names.insert(Arc::clone(&name));
            name
        });
        self.places.extend(place.map(|place| (place.clone(), name)));
    }

    /// Forgets the places: what is found wrong after loading stands where keys do.
    pub(super) fn without_places(mut self) -> Self {
        self.places.clear();
        self
    }

    /// The errors without the values; one of a place where variables are used names them.
    pub(super) fn redacted(&self, errors: LoadErrors) -> LoadErrors {
        let size: usize = self.values().map(|(_, value)| value.len()).sum();
        let mut left = MOST_COMPARED;
        errors.map(|mut error| {
            let fits = left.checked_sub(size);
            left = fits.unwrap_or_default();
            if fits.is_some() {
                self.redact_error(&mut error);
            } else {
                "not shown: variables hold too much to be told from it".clone_into(&mut error.message);
                error.path = None;
            }
            error
        })
    }

    fn redact_error(&self, error: &mut LoadError) {
        let path = error.path.take().unwrap_or_default();
        // These steps are keys of a file, in which no variable counts.
        let keys = path.splitn(4, ['.', '[']).take(3).collect::<Vec<_>>();
        let name = keys.get(1).copied().unwrap_or_default();
        let literals = [keys.join("."), keys.iter().take(2).copied().collect::<Vec<_>>().join("."), name.to_owned()];
        let literals = || literals.iter().map(String::as_str);
        error.message = self.redact(&error.message, literals());
        error.path = (!path.is_empty()).then(|| self.redact(&path, literals()));
        let Some(place) = &error.place else { return };
        for (_, name) in self.places.range((place.clone(), Arc::from(""))..).take_while(|(other, _)| other == place) {
            let shown = format!("${{{name}}}");
            if !error.message.contains(&shown) {
                let _ = write!(error.message, ", where {shown} stands");
            }
        }
    }

    fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.scopes.values().flat_map(|used| {
            used.names.iter().filter_map(|name| Some((name.as_ref(), used.environment.get(name.as_ref())?.as_str())))
        })
    }

    /// A text without the values, but where they are no more than a part of one of the literals.
    pub(super) fn redact<'l>(&'l self, text: &str, literals: impl Iterator<Item = &'l str>) -> String {
        let mut comparison = Comparison::new(text);
        for (name, value) in self.values() {
            comparison.compare(name, value);
        }
        comparison.finish(literals.chain([self.directory.as_str()]).chain(WORDS))
    }
}

/// Whether a variable says where and how we run, not what a file wants to keep to itself.
fn is_ours(name: &str) -> bool {
    name.starts_with("COMPOSE_") || matches!(name, "PWD" | "HOME" | "USER" | "PATH" | "HOSTNAME")
}

/// A letter whatever its case.
fn folded(character: char) -> char {
    character.to_lowercase().next().unwrap_or(character)
}

/// A text, and which of its characters are some variable's.
struct Comparison<'a> {
    text: Vec<char>,
    owners: Vec<Option<&'a str>>,
    /// Where each of its parts stands, until it is known to be a value's.
    parts: BTreeMap<[char; PART], Vec<usize>>,
    /// What stands alone, and whether in quotes.
    words: Vec<Word>,
}

struct Word {
    start: usize,
    text: String,
    quoted: bool,
}

impl<'a> Comparison<'a> {
    fn new(text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        let letters: Vec<char> = text.iter().copied().map(folded).collect();
        let mut parts: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (start, part) in letters.array_windows::<PART>().enumerate() {
            parts.entry(*part).or_default().push(start);
        }
        Self { owners: vec![None; text.len()], words: words(&letters), text, parts }
    }

    fn compare(&mut self, name: &'a str, value: &str) {
        // A quoted text has its quotes and control characters escaped.
        let quoted = value.escape_debug();
        self.compare_parts(name, value.chars());
        self.compare_parts(name, quoted);
        let value: String = if self.words.is_empty() { String::new() } else { value.chars().map(folded).collect() };
        let owners = &mut self.owners;
        self.words.retain(|word| {
            let is_values = if word.quoted { value.contains(&word.text) } else { value == word.text };
            if is_values {
                own(owners, word.start, word.text.chars().count(), name);
            }
            !is_values
        });
    }

    fn compare_parts(&mut self, name: &'a str, value: impl Iterator<Item = char>) {
        let mut part = ['\0'; PART];
        for character in value {
            part.rotate_left(1);
            if let Some(last) = part.last_mut() {
                *last = folded(character);
            }
            for start in self.parts.remove(&part).unwrap_or_default() {
                own(&mut self.owners, start, PART, name);
            }
        }
    }

    /// The text, each variable's name in place of what is its.
    fn finish<'l>(mut self, literals: impl Iterator<Item = &'l str>) -> String {
        for literal in literals {
            self.free(literal);
        }
        let mut output = String::new();
        let mut before = None;
        for (character, owner) in self.text.iter().zip(&self.owners) {
            match owner {
                None => output.push(*character),
                Some(name) if before != Some(name) => {
                    let _ = write!(output, "${{{name}}}");
                }
                Some(_) => {}
            }
            before = owner.as_ref();
        }
        output
    }

    /// Gives back what is no more than a part of a literal, where that stands.
    fn free(&mut self, literal: &str) {
        let literal: Vec<char> = literal.chars().collect();
        if literal.is_empty() {
            return;
        }
        for start in 0..(self.text.len() + 1).saturating_sub(literal.len()) {
            let end = start + literal.len();
            let stands = self.text.get(start..end) == Some(&literal);
            let beside = |at: Option<usize>| at.and_then(|at| self.owners.get(at)).is_some_and(Option::is_some);
            if stands && !beside(start.checked_sub(1)) && !beside(Some(end)) {
                self.owners.get_mut(start..end).into_iter().flatten().for_each(|owner| *owner = None);
            }
        }
    }
}

/// Gives characters to a variable that are no other's.
fn own<'a>(owners: &mut [Option<&'a str>], start: usize, length: usize, name: &'a str) {
    for owner in owners.iter_mut().skip(start).take(length) {
        owner.get_or_insert(name);
    }
}

/// The short words of a text, and the short texts that stand in quotes.
fn words(text: &[char]) -> Vec<Word> {
    let is_end = |at: Option<usize>| at.and_then(|at| text.get(at)).is_none_or(|next| !next.is_alphanumeric());
    let quote = |at: Option<usize>| at.and_then(|at| text.get(at)).filter(|next| matches!(next, '"' | '\'' | '`'));
    let mut words = Vec::new();
    for length in SHORT {
        for (start, part) in text.windows(length).enumerate() {
            let (before, after) = (start.checked_sub(1), Some(start + length));
            let quoted = quote(before).is_some_and(|before| quote(after) == Some(before));
            if quoted || is_end(before) && is_end(after) {
                words.push(Word { start, text: part.iter().collect(), quoted });
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::Path;

    use super::super::schema::every_scalar;
    use super::super::{FileKind, Files, Options, load};
    use super::*;

    struct Memory(BTreeMap<&'static str, String>);

    impl Files for Memory {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            let text = self.0.get(path.to_str().unwrap_or_default());
            text.map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn kind(&self, path: &Path) -> io::Result<FileKind> {
            let known = self.0.contains_key(path.to_str().unwrap_or_default());
            if known { Ok(FileKind::File) } else { Err(io::ErrorKind::NotFound.into()) }
        }
    }

    /// All that loading, checking and selecting says of a project that uses `PW`: sentences and paths.
    fn said(files: &[(&'static str, &str)], secret: &str) -> Vec<String> {
        let files = Memory(files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect());
        let environment = [("PW", secret), ("HOME", "/home/me")];
        let options = Options {
            working_dir: "/project".into(),
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Options::default()
        };
        let mut said = Vec::new();
        let mut tell = |errors: LoadErrors| {
            said.extend(errors.iter().map(|error| format!("{error} [{}]", error.path.as_deref().unwrap_or_default())));
        };
        match load(&files, &options) {
            Err(errors) => tell(errors),
            Ok(model) => {
                if let Err(errors) = model.check(&files) {
                    tell(errors);
                }
                match model.select(&files, &[]) {
                    Err(errors) => tell(errors),
                    Ok(project) => said.extend(project.warnings),
                }
                said.extend(model.warnings().iter().cloned());
            }
        }
        said
    }

    /// The parts of a value that are found in a text, whatever their letters' case.
    fn leaked(text: &str, secret: &str) -> Vec<String> {
        let (text, secret): (String, Vec<char>) = (text.to_lowercase(), secret.to_lowercase().chars().collect());
        let parts = secret.windows(PART).map(|part| part.iter().collect::<String>());
        parts.filter(|part| text.contains(part) && !WORDS.iter().any(|word| word.contains(part))).collect()
    }

    const SECRETS: [&str; 16] = [
        "Hunter2-S3cr3tPassw0rd",
        "S3cr3t:P4ssw0rd/T0k3n=X",
        "98765432109876",
        "-7777777777",
        "1.5GigaPassw0rd",
        "9h8xPassw0rdUnit",
        "a 'quoted' \"S3cr3t\"",
        "service:Hunter2Passw0rd",
        "/etc/Hunter2/../Passw0rd:Xyzzy42:Secr3t",
        "10.98.76.543:65432109:80",
        "every_Hunter2Passw0rd",
        "k3y=Hunter2Passw0rd ",
        "x-Hunter2Passw0rd",
        "\u{1b}[31mHunter2\nPassw0rd",
        "ÄÖÜßéèêHunter2",
        "5y$t3m${Passw0rd",
    ];

    #[test]
    fn no_scalar_of_the_specification_shows_what_a_variable_holds() {
        let (mut named, mut unnamed) = (BTreeSet::new(), BTreeSet::new());
        let mut leaks = Vec::new();
        let all = every_scalar("${PW}");
        for (path, text) in &all {
            for secret in SECRETS {
                let said = said(&[("/project/compose.yaml", text)], secret).join("\n");
                let parts = leaked(&said, secret);
                if !parts.is_empty() {
                    leaks.push(format!("{path}: {secret:?}: {parts:?} of {said}"));
                }
                if said.contains("${PW}") {
                    named.insert(path);
                } else if !said.is_empty() {
                    unnamed.insert(path);
                }
            }
        }
        assert!(leaks.is_empty(), "{} leaks\n{}", leaks.len(), leaks.join("\n"));
        // Most texts Compose takes as they come.
        assert!(named.len() > 130, "{} of {} scalars were wrong", named.len(), all.len());
    }

    #[test]
    fn an_error_names_the_place_the_key_and_the_variable() {
        let told = |service: &str, value: &str| {
            let text = format!("services:\n  weather:\n    image: sense/weather\n    {service}\n");
            said(&[("/project/compose.yaml", &text)], value).join("; ").replace("compose.yaml:", "")
        };
        insta::assert_snapshot!(
            [
                told("mem_limit: ${PW}", "5quarts"),
                told("mem_limit: ${PW}", "hunter2Passw0rd"),
                told("tty: ${PW}", "hunter2"),
                told("ports: ['${PW}:80']", "hunter2"),
                told("ports: ['80', '${PW}']", "8080x"),
                told("pull_policy: x${PW:-never}y", "hunter2"),
                told("networks: ['${PW}']", "hunter2"),
                told("depends_on: ['${PW}']", "weather-station"),
                told("network_mode: service:${PW}", "hunter2"),
                told("container_name: ${PW}.${PW}!\n    scale: 2", "hunter2"),
                told("stop_grace_period: ${PW}", "9h2x"),
                told("imge: ${PW}\n    labels: ['A=${PW}']", "registry/weather:services.weather"),
                told("env_file: ${PW}.env", "hunter2"),
                told("env_file: ${PW}", "/project/weather.env"),
            ]
            .join("\n"),
            @r#"
        4:16: services.weather.mem_limit invalid suffix: '${PW}' [services.weather.mem_limit]
        4:16: services.weather.mem_limit strconv.ParseFloat: parsing "${PW}": invalid syntax [services.weather.mem_limit]
        4:10: error while interpolating services.weather.tty: failed to cast to expected type: invalid boolean, where ${PW} stands [services.weather.tty]
        4:13: services.weather.ports.[0]: invalid hostPort: ${PW} [services.weather.ports.[0]]
        4:19: services.weather.ports.[1]: invalid containerPort: ${PW} [services.weather.ports.[1]]
        4:18: services.weather.pull_policy 'x${PW}y' does not match pattern 'always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+' [services.weather.pull_policy]
        4:16: service "weather" refers to undefined network ${PW}: invalid compose project [services.weather.networks.${PW}]; 4:16: service "weather" refers to undefined network ${PW}: invalid compose project [services.weather.networks.${PW}]
        4:18: service "weather" depends on undefined service "${PW}": invalid compose project [services.weather.depends_on.${PW}]; 4:18: service "weather" depends on undefined service "${PW}": invalid compose project [services.weather.depends_on.${PW}]
        2:3: service "weather" depends on undefined service "${PW}": invalid compose project [services.weather.depends_on.${PW}]; 4:5: service "${PW}" not found for network_mode 'service:${PW}' [services.weather.network_mode]; 2:3: service "weather" depends on undefined service "${PW}": invalid compose project [services.weather.depends_on.${PW}]; 4:5: service "${PW}" not found for network_mode 'service:${PW}' [services.weather.network_mode]
        4:5: services.scale: can't set container_name and ${PW}.${PW}! as container name must be unique: invalid compose project [services.weather.container_name]; 4:5: services.scale: can't set container_name and ${PW}.${PW}! as container name must be unique: invalid compose project [services.weather.container_name]
        4:24: services.weather.stop_grace_period time: unknown unit "x" in duration "${PW}" [services.weather.stop_grace_period]
        4:5: services.weather additional properties 'imge' not allowed (did you mean 'image'?) [services.weather.imge]
        4:5: env file /project/${PW}.env not found [services.weather.env_file]
        4:5: env file ${PW} not found [services.weather.env_file]
        "#
        );
    }

    #[test]
    fn values_stay_out_of_the_errors_of_every_kind_of_file() {
        let secret = "Hunter2Passw0rd";
        let start = "services:\n  a:\n    image: i\n    ";
        for (what, files) in [
            (
                "default environment",
                vec![("/project/.env", "A=${PW}\nB=$A${x"), ("/project/compose.yaml", "services: {}")],
            ),
            (
                ".env",
                vec![
                    ("/project/.env", "A=x${PW}\n"),
                    ("/project/compose.yaml", "services: {a: {image: i, mem_limit: $A}}"),
                ],
            ),
            (
                "env file",
                vec![
                    ("/project/a.env", "A=${PW}\nB='${PW}\n"),
                    ("/project/compose.yaml", "services: {a: {image: i, env_file: a.env}}"),
                ],
            ),
            ("env file name", vec![("/project/compose.yaml", "services: {a: {image: i, env_file: '${PW}/a.env'}}")]),
            ("label file name", vec![("/project/compose.yaml", "services: {a: {image: i, label_file: '${PW}'}}")]),
            ("config", vec![("/project/compose.yaml", "services: {a: {image: i, configs: ['${PW}']}}")]),
            ("config labels", vec![("/project/compose.yaml", "configs: {a: {file: x, labels: {l: ['${PW}']}}}")]),
            (
                "extends file name",
                vec![("/project/compose.yaml", "services: {a: {extends: {file: '${PW}', service: b}}}")],
            ),
            ("extended service", vec![("/project/compose.yaml", "services: {a: {extends: {service: '${PW}'}}}")]),
            (
                "extended file",
                vec![
                    ("/project/b.yaml", "services: {b: {image: i, mem_limit: '${PW}', cpus: '${PW}'}}"),
                    ("/project/compose.yaml", "services: {a: {extends: {file: b.yaml, service: b}}}"),
                ],
            ),
            ("include name", vec![("/project/compose.yaml", "include: ['${PW}']")]),
            (
                "included file",
                vec![
                    ("/project/sub/b.yaml", "services: {b: {image: i, mem_limit: '${OTHER}'}}"),
                    ("/project/sub/.env", "OTHER=${PW}q"),
                    ("/project/compose.yaml", "include: [sub/b.yaml]"),
                ],
            ),
            ("project name", vec![("/project/compose.yaml", "name: ${PW}!\nservices: {a: {image: i, cpus: '${PW}'}}")]),
        ] {
            let said = said(&files, secret).join("\n");
            assert!(!said.is_empty() && leaked(&said, secret).is_empty(), "{what}: {said}");
        }
        let long = format!("{start}ports: ['{}${{PW}}']\n", "9".repeat(1990));
        let said = said(&[("/project/compose.yaml", &long)], secret).join("\n");
        assert!(said.contains('…') && leaked(&said, secret).is_empty(), "cut in the middle of a value: {said}");
    }

    #[test]
    fn a_project_whose_variables_hold_more_than_can_be_compared_says_less() {
        let text = format!(
            "services: {{{}}}",
            (0..100).map(|n| format!("a{n}: {{image: '${{PW}}', cpus: x}}")).collect::<Vec<_>>().join(", ")
        );
        let said = said(&[("/project/compose.yaml", &text)], &"Hunter2Passw0rd".repeat(20_000));
        assert_eq!(said.len(), 100);
        assert!(said.first().is_some_and(|first| first.contains("services.a0.cpus")), "{said:?}");
        assert!(said.last().is_some_and(|last| last.contains("1:") && last.contains("not shown")), "{said:?}");
    }
}
