//! Where a value stands in the project: `services.web.ports.[0]`.

use std::fmt;

/// Deepest path that a rule may name.
const DEPTH: usize = 8;

/// Elements of the file whose entries run as containers: what holds for the keys of a service holds for those of a job.
pub(super) const CONTAINER_ELEMENTS: [&str; 2] = ["services", "jobs"];

/// Stands for any list item in [`KeyPath::keys`].
const ITEM: &str = "[]";

/// A way from the root to a value; a step borrows the one before it, so that walking a tree allocates nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyPath<'a> {
    parent: Option<&'a KeyPath<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Item(usize),
}

impl<'a> KeyPath<'a> {
    /// The root of the project.
    pub(super) const ROOT: KeyPath<'static> = KeyPath { parent: None, step: Step::Root };

    /// A key of this mapping.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> KeyPath<'b>
    where
        'a: 'b,
    {
        KeyPath { parent: Some(self), step: Step::Key(key) }
    }

    /// An item of this list.
    pub(super) fn item<'b>(&'b self, index: usize) -> KeyPath<'b>
    where
        'a: 'b,
    {
        KeyPath { parent: Some(self), step: Step::Item(index) }
    }

    /// The steps for matching against a rule, `[]` for any item, and `services` for `jobs` too; no rule matches what is
    /// deeper than rules go.
    pub(super) fn keys(&self) -> Keys<'_> {
        let mut steps = [""; DEPTH];
        let mut depth = 0;
        let mut at = Some(self);
        while let Some(path) = at {
            let step = match path.step {
                Step::Root => break,
                Step::Key(key) => key,
                Step::Item(_) => ITEM,
            };
            if let Some(slot) = DEPTH.checked_sub(depth + 1).and_then(|slot| steps.get_mut(slot)) {
                *slot = step;
            }
            depth += 1;
            at = path.parent;
        }
        let [services, jobs] = CONTAINER_ELEMENTS;
        if let Some(element) = DEPTH.checked_sub(depth).and_then(|first| steps.get_mut(first))
            && *element == jobs
        {
            *element = services;
        }
        Keys { steps, depth }
    }
}

/// The steps of a path, as a slice to match on.
pub(super) struct Keys<'a> {
    steps: [&'a str; DEPTH],
    depth: usize,
}

impl<'a> Keys<'a> {
    /// The steps, from the root.
    pub(super) fn as_slice(&self) -> &[&'a str] {
        match DEPTH.checked_sub(self.depth) {
            Some(start) => self.steps.get(start..).unwrap_or_default(),
            None => &[],
        }
    }
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if !matches!(parent.step, Step::Root) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) => f.write_str(key),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_with_dots_and_matched_by_its_steps() {
        let services = KeyPath::ROOT.key("services");
        let web = services.key("web");
        let ports = web.key("ports");
        let first = ports.item(0);
        assert_eq!(first.to_string(), "services.web.ports.[0]");
        assert_eq!(first.keys().as_slice(), ["services", "web", "ports", "[]"]);
        let jobs = KeyPath::ROOT.key("jobs");
        let job = jobs.key("jobs");
        assert_eq!((job.to_string().as_str(), job.keys().as_slice()), ("jobs.jobs", &["services", "jobs"][..]));
        assert_eq!(KeyPath::ROOT.to_string(), "");
        assert!(KeyPath::ROOT.keys().as_slice().is_empty());
    }

    #[test]
    fn a_path_deeper_than_any_rule_matches_none() {
        fn below(path: &KeyPath<'_>, levels: usize) -> usize {
            if levels == 0 { path.keys().as_slice().len() } else { below(&path.key("k"), levels - 1) }
        }
        assert_eq!(below(&KeyPath::ROOT, 8), 8);
        assert_eq!(below(&KeyPath::ROOT, 9), 0);
    }
}
