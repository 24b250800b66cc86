//! The order in which services start.

use std::collections::BTreeSet;

use crate::compose::project::Project;
use crate::names::ServiceName;

/// The project's services in levels: each level depends on earlier ones only, so its services can be worked on together.
///
/// The reverse is the order of stopping. Loading refuses cycles; services of one would form the last level.
#[must_use]
pub fn startup_order(project: &Project) -> Vec<Vec<ServiceName>> {
    let mut levels = Vec::new();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<&ServiceName> = project.services.keys().collect();
    while !left.is_empty() {
        let (mut ready, blocked): (Vec<_>, Vec<_>) = left.iter().copied().partition(|name| {
            project.services.get(*name).is_none_or(|service| {
                service
                    .depends_on
                    .keys()
                    .all(|needed| placed.contains(needed.as_str()) || !project.services.contains_key(needed))
            })
        });
        left = blocked;
        if ready.is_empty() {
            ready = std::mem::take(&mut left);
        }
        placed.extend(ready.iter().map(|name| name.as_str()));
        levels.push(ready.into_iter().cloned().collect());
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::super::testing::{busybox, dependent, project};
    use super::*;
    use crate::compose::project::Condition::ServiceStarted;

    #[test]
    fn a_service_comes_after_everything_that_it_depends_on() {
        let project = project([
            ("api", dependent([("db", ServiceStarted), ("cache", ServiceStarted)])),
            ("cache", busybox()),
            ("db", busybox()),
            ("web", dependent([("api", ServiceStarted), ("elsewhere", ServiceStarted)])),
        ]);
        let order: Vec<String> = startup_order(&project)
            .iter()
            .map(|level| level.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(order, ["cache db", "api", "web"]);
    }
}
