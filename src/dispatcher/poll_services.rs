//! The services that `config:schedule` may name: those that the settings schedule, and the project's other poll services.

use std::collections::{BTreeMap, BTreeSet};

use super::schedule::{Scheduled, ScheduledServices};
use crate::action::permission::Permissions;
use crate::compose::Model;
use crate::names::ServiceName;

/// What the settings say of the services that a schedule may name.
#[derive(Debug, Clone, Default)]
pub struct PollServices {
    /// Those that have a place in the schedule.
    pub scheduled: ScheduledServices,
    /// Those that run on command only, because the settings name them without an interval.
    pub on_command: BTreeSet<ServiceName>,
    /// What commands may run.
    pub permissions: Permissions,
}

impl PollServices {
    /// The services that a schedule may name while the project is so.
    ///
    /// Besides those of the settings these are the project's poll services: what a command may run too, what the settings do
    /// not keep for commands, and what does not run all the time by its restart policy. Such a service has its own name as
    /// key, and that name without the part before its first hyphen where no other service is meant by it.
    pub fn of(&self, project: &Model) -> ScheduledServices {
        let others: Vec<&ServiceName> = project
            .services()
            .filter(|(name, service)| {
                !self.scheduled.contains_key(*name)
                    && !self.on_command.contains(*name)
                    && !runs_all_the_time(&service.restart)
                    && self.permissions.operate(name, &service.profiles).is_ok()
            })
            .map(|(name, _)| name)
            .collect();
        let mut meant: BTreeMap<&str, usize> = BTreeMap::new();
        let named = project.services().map(|(name, _)| name.as_str());
        let keys = self.scheduled.values().map(|scheduled| scheduled.key.as_str());
        for key in named.chain(keys).chain(others.iter().filter_map(|name| short(name))) {
            *meant.entry(key).or_default() += 1;
        }
        let mut all = self.scheduled.clone();
        for name in others {
            let key = short(name).filter(|key| meant.get(key) == Some(&1)).unwrap_or(name.as_str());
            all.insert(name.clone(), Scheduled { key: key.to_owned(), default: None, by_settings: false });
        }
        all
    }
}

fn short(name: &ServiceName) -> Option<&str> {
    name.as_str().split_once('-').map(|(_, key)| key).filter(|key| !key.is_empty())
}

fn runs_all_the_time(restart: &str) -> bool {
    matches!(restart, "always" | "unless-stopped")
}
