//! Paths as text, on a Unix host: cleaned and joined lexically, never looked up.

use super::error::{LoadError, LoadErrors};
use super::key_path::KeyPath;
use super::yaml::{Kind, Map, Node};

/// The shortest path that means the same: no `.`, no empty step, `..` taken back where it can be.
pub(super) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => match steps.last() {
                Some(&last) if last != ".." => {
                    steps.pop();
                }
                _ if absolute => {}
                _ => steps.push(".."),
            },
            step => steps.push(step),
        }
    }
    match (absolute, steps.is_empty()) {
        (true, _) => format!("/{}", steps.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => steps.join("/"),
    }
}

/// `path` below `directory`, cleaned; an absolute one as it is.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { clean(&format!("{directory}/{path}")) }
}

/// The directory that a path is in.
pub(super) fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((directory, _)) => clean(&format!("{directory}/")),
        None => ".".to_owned(),
    }
}

/// The last step of a path: `/` for the root.
pub(super) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/")
}

/// What relative paths and `~` of a file are resolved against.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// Absolute directory.
    pub(super) directory: String,
    /// What `~` means, when the environment says it.
    pub(super) home: Option<String>,
}

impl Base {
    /// The path with the home directory in place of a leading `~`, and so for `~name` too: Compose knows no other home.
    pub(super) fn expand_user(&self, path: &str) -> String {
        match (path.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) => clean(&format!("{home}/{rest}")),
            _ => path.to_owned(),
        }
    }

    /// An absolute path; an empty one stays empty.
    pub(super) fn resolve(&self, path: &str) -> String {
        if path.is_empty() { String::new() } else { absolute(&self.directory, &self.expand_user(path)) }
    }

    /// An absolute path of the host, which may also be a Windows one.
    fn resolve_host(&self, path: &str) -> String {
        let path = self.expand_user(path);
        if is_windows_absolute(&path) { path } else { absolute(&self.directory, &path) }
    }

    /// A build context: a directory, or the address of something else.
    fn resolve_context(&self, context: &str) -> String {
        const REMOTE: [&str; 6] = ["https://", "http://", "git://", "ssh://", "github.com/", "git@"];
        let remote = context.contains("://")
            || context.starts_with("service:")
            || REMOTE.iter().any(|prefix| context.starts_with(prefix));
        if remote { context.to_owned() } else { self.resolve(context) }
    }
}

fn is_windows_absolute(path: &str) -> bool {
    if path.starts_with(r"\\") {
        return true;
    }
    let mut bytes = path.bytes();
    matches!(
        (bytes.next(), bytes.next(), bytes.next()),
        (Some(letter), Some(b':'), Some(b'\\' | b'/')) if letter.is_ascii_alphabetic()
    )
}

/// Makes the paths of a canonical project absolute.
pub(super) fn resolve_paths(project: &mut Node, base: &Base, errors: &mut LoadErrors) {
    for (section, resources) in sections(project) {
        let section_path = KeyPath::ROOT.key(&section);
        for resource in resources.iter_mut() {
            let path = section_path.key(&resource.key);
            let Some(map) = resource.value.as_map_mut() else { continue };
            match section.as_str() {
                "services" | "jobs" => service(map, base, &path, errors),
                "secrets" | "configs" => text(map, "file", |path| base.resolve_host(path)),
                "volumes" => driver_device(map, base),
                _ => {}
            }
        }
    }
}

fn sections(project: &mut Node) -> impl Iterator<Item = (String, &mut Map)> {
    let entries = project.as_map_mut().into_iter().flat_map(Map::iter_mut);
    entries.filter_map(|entry| entry.value.as_map_mut().map(|map| (entry.key.clone(), map)))
}

/// Changes a text of a mapping, where it is one.
fn text(map: &mut Map, key: &str, change: impl FnOnce(&str) -> String) {
    if let Some(Node { kind: Kind::Str(text), .. }) = map.get_mut(key) {
        *text = change(text);
    }
}

fn service(service: &mut Map, base: &Base, path: &KeyPath<'_>, errors: &mut LoadErrors) {
    if let Some(build) = service.get_mut("build").and_then(Node::as_map_mut) {
        text(build, "context", |context| base.resolve_context(context));
        for context in build.get_mut("additional_contexts").and_then(Node::as_map_mut).into_iter().flatten() {
            if let Kind::Str(target) = &mut context.value.kind {
                *target = base.resolve_context(target);
            }
        }
        for key in build.get_mut("ssh").and_then(Node::as_map_mut).into_iter().flatten() {
            if let Kind::Str(file) = &mut key.value.kind {
                *file = base.resolve_host(file);
            }
        }
    }
    for item in items(service, "env_file") {
        if let Some(map) = item.as_map_mut() {
            text(map, "path", |path| base.resolve(path));
        }
    }
    for item in items(service, "label_file") {
        if let Kind::Str(file) = &mut item.kind {
            *file = base.resolve(file);
        }
    }
    if let Some(extends) = service.get_mut("extends").and_then(Node::as_map_mut) {
        text(extends, "file", |file| base.resolve(file));
    }
    if let Some(develop) = service.get_mut("develop").and_then(Node::as_map_mut) {
        for item in items(develop, "watch") {
            if let Some(map) = item.as_map_mut() {
                text(map, "path", |path| clean(&base.resolve(path)));
            }
        }
    }
    let volumes = path.key("volumes");
    for (index, item) in items(service, "volumes").enumerate() {
        let place = item.place.clone();
        let Some(map) = item.as_map_mut() else { continue };
        if map.get("type").and_then(Node::as_str) != Some("bind") {
            continue;
        }
        if map.contains_key("source") {
            text(map, "source", |source| base.resolve_host(source));
        } else {
            let path = volumes.item(index);
            let message = format!(r#"{path}: invalid mount config for type "bind": field Source must not be empty"#);
            errors.push(LoadError::new(message).at(&place).of(path));
        }
    }
}

fn items<'a>(map: &'a mut Map, key: &str) -> impl Iterator<Item = &'a mut Node> {
    map.get_mut(key).and_then(Node::as_seq_mut).into_iter().flatten()
}

/// A local volume with `o: bind` is a bind of its device.
fn driver_device(volume: &mut Map, base: &Base) {
    if volume.get("driver").and_then(Node::as_str) != Some("local") {
        return;
    }
    let Some(options) = volume.get_mut("driver_opts").and_then(Node::as_map_mut) else { return };
    if options.get("o").and_then(Node::as_str) == Some("bind") {
        text(options, "device", |device| base.resolve_host(device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_without_looking_at_them() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("a/../../b", "../b"),
            ("/../a", "/a"),
            ("/a//b/./c/", "/a/b/c"),
            ("./", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path:?}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory_whatever_follows() {
        let base = Base { directory: "/p".to_owned(), home: Some("/home/me".to_owned()) };
        assert_eq!(base.resolve("~/x/../y"), "/home/me/y");
        assert_eq!(base.resolve("~"), "/home/me");
        assert_eq!(base.resolve("~you/x"), "/home/me/you/x");
        assert_eq!(base.resolve("./x"), "/p/x");
        assert_eq!(base.resolve(""), "");
    }

    #[test]
    fn a_windows_path_is_not_relative() {
        let base = Base { directory: "/p".to_owned(), home: None };
        assert_eq!(base.resolve_host(r"C:\x"), r"C:\x");
        assert_eq!(base.resolve_host(r"\\host\x"), r"\\host\x");
        assert_eq!(base.resolve_host("c/x"), "/p/c/x");
    }

    #[test]
    fn parents_and_names_are_taken_from_the_text() {
        assert_eq!(parent("/a/b.yaml"), "/a");
        assert_eq!(parent("/b.yaml"), "/");
        assert_eq!(parent("b.yaml"), ".");
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("/"), "/");
    }
}
