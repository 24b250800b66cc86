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
