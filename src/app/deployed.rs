//! Which Compose files the project was deployed with last: those on the labels of its newest containers.
//!
//! An `up` that is given an override file or another `-f` makes anew what differs by it, and our own container does not: its
//! labels are old. Several stacks may share a project's name, so files count only where our own service is in them. What we
//! make ourselves bears the files that count for us, also where somebody deployed others meanwhile: so containers that
//! were not there at the last look are told from those that were, and of the new ones it is those with other files that say
//! something.

use std::collections::BTreeSet;

use bollard::models::ContainerSummary;

use super::own_container::DeployedFiles;
use crate::engine::{Engine, EngineError};
use crate::spec::labels;

/// A container of the project, and the files that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deployed {
    id: String,
    name: String,
    files: DeployedFiles,
}

/// Files that count from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) files: DeployedFiles,
    /// The container that was made from them.
    pub(super) container: String,
}

/// The files that count, and what was seen when they were chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Deployment {
    /// None before the first look.
    seen: Option<BTreeSet<String>>,
    pub(super) files: DeployedFiles,
}

impl Deployment {
    /// Our own container's files count until others are seen.
    pub(super) fn new(own: DeployedFiles) -> Self {
        Self { seen: None, files: own }
    }

    /// Looks at the project's containers, the newest first; other files that count from now on. `counts` says whether our
    /// own service is in some files.
    pub(super) fn look(&mut self, found: Vec<Deployed>, counts: impl Fn(&DeployedFiles) -> bool) -> Option<Chosen> {
        let before = self.seen.replace(found.iter().map(|container| container.id.clone()).collect());
        let chosen = match before {
            // At the start the newest has the word, whoever made it.
            None => found.into_iter().find(|one| one.files == self.files || counts(&one.files)),
            Some(before) => {
                found.into_iter().find(|one| !before.contains(&one.id) && one.files != self.files && counts(&one.files))
            }
        };
        let Deployed { files, name, .. } = chosen.filter(|one| one.files != self.files)?;
        self.files = files.clone();
        Some(Chosen { files, container: name })
    }
}

/// The project's containers that are no one-offs and name their files, the newest first.
pub(super) async fn containers(engine: &impl Engine, project: &str) -> Result<Vec<Deployed>, EngineError> {
    let wanted = [format!("{}={project}", labels::PROJECT), format!("{}=False", labels::ONE_OFF)];
    let mut found = engine.containers(&wanted).await?;
    found.sort_by_key(|container| std::cmp::Reverse(container.created));
    Ok(found.into_iter().filter_map(deployed).collect())
}

fn deployed(container: ContainerSummary) -> Option<Deployed> {
    let files = DeployedFiles::labelled(&container.labels?);
    let name = container.names?.into_iter().next()?;
    let name = name.trim_start_matches('/').to_owned();
    (!files.config_files.is_empty()).then_some(Deployed { id: container.id?, name, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> DeployedFiles {
        DeployedFiles { config_files: names.iter().map(Into::into).collect(), ..DeployedFiles::default() }
    }

    fn made(id: &str, names: &[&str]) -> Deployed {
        Deployed { id: id.to_owned(), name: format!("p-{id}-1"), files: files(names) }
    }

    /// Our own service is in each list that begins with `a`.
    fn counts(files: &DeployedFiles) -> bool {
        files.config_files.first().is_some_and(|first| first.as_os_str() == "a")
    }

    fn names(chosen: Option<Chosen>) -> Option<String> {
        chosen.map(|chosen| chosen.container)
    }

    #[test]
    fn at_the_start_the_newest_container_that_our_service_belongs_to_says_which_files_count() {
        let look = |found: Vec<Deployed>| names(Deployment::new(files(&["a"])).look(found, counts));
        assert_eq!(look(vec![made("web", &["a", "b"]), made("own", &["a"])]), Some("p-web-1".into()));
        assert_eq!(look(vec![made("own", &["a"]), made("web", &["a", "b"])]), None);
        assert_eq!(look(vec![made("other", &["x"]), made("web", &["a", "b"])]), Some("p-web-1".into()));
        assert_eq!(look(vec![made("other", &["x"])]), None);
    }

    #[test]
    fn later_new_containers_with_other_files_count_and_those_that_we_made_ourselves_do_not() {
        let mut deployment = Deployment::new(files(&["a"]));
        let own = made("own", &["a"]);
        assert_eq!(deployment.look(vec![own.clone()], counts), None);
        // We started `db` after somebody had deployed `web` with another file.
        let (db, web) = (made("db", &["a"]), made("web", &["a", "b"]));
        let found = vec![db, web, own.clone()];
        assert_eq!(names(deployment.look(found.clone(), counts)), Some("p-web-1".into()));
        assert_eq!(deployment.look(found.clone(), counts), None, "db is not taken for a way back");
        let tools = [vec![made("tools", &["x"])], found.clone()].concat();
        assert_eq!(deployment.look(tools, counts), None, "another stack of the same name");
        let back = [vec![made("web2", &["a"])], found].concat();
        assert_eq!(names(deployment.look(back, counts)), Some("p-web2-1".into()));
    }
}
