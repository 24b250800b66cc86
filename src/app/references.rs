//! What the settings name that does not exist, and what cannot work with the Compose file as it is.

use std::fmt;

use crate::action::{Action, Reaction, Step};
use crate::compose::Model;
use crate::compose::project::Service;
use crate::names::ServiceName;
use crate::settings::{Origins, Settings, nearest};

/// Something that is wrong although it can be read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// File and line, variable or option.
    pub(super) place: Option<String>,
    /// What is wrong there.
    pub(super) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// All names of the settings that stand for nothing in the project, and schedules that its services contradict.
///
/// What only a preset names is not the user's fault: those services are skipped.
pub(super) fn findings(settings: &Settings, origins: &Origins, model: &Model) -> Vec<Finding> {
    let mut references = References { origins, model, found: Vec::new() };
    for (name, own) in &settings.services {
        references.service(&["services", name.as_str()], name);
        if let Some(profile) = &own.profile {
            references.profile(&["services", name.as_str(), "profile"], profile);
        }
        if own.every.interval().is_some() {
            references.restarts(&["services", name.as_str(), "every"], name);
        }
    }
    for (name, action) in &settings.actions {
        references.steps("actions", name, action.steps());
    }
    for (channel, reaction) in &settings.reactions {
        references.steps("reactions", channel, reaction.steps());
    }
    for (section, change) in &settings.config_changes {
        references.service(&["config_changes", section, "service"], &change.service);
    }
    for (index, name) in settings.commands.deny.iter().enumerate() {
        references.service(&["commands", "deny", &index.to_string()], name);
    }
    for (index, profile) in settings.commands.profiles.iter().enumerate() {
        references.profile(&["commands", "profiles", &index.to_string()], profile);
    }
    for (index, profile) in settings.compose.profiles.iter().enumerate() {
        references.profile(&["compose", "profiles", &index.to_string()], profile);
    }
    references.found
}

/// Services that the settings name, in actions and reactions, too.
pub(super) fn named_services(settings: &Settings) -> Vec<&ServiceName> {
    let actions = settings.actions.values().flat_map(Action::steps);
    let reactions = settings.reactions.values().flat_map(Reaction::steps);
    let mut names: Vec<&ServiceName> =
        settings.services.keys().chain(actions.chain(reactions).filter_map(Step::fixed_service)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

struct References<'a> {
    origins: &'a Origins,
    model: &'a Model,
    found: Vec<Finding>,
}

impl References<'_> {
    fn steps(&mut self, section: &str, name: &str, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            if let Some(service) = step.fixed_service() {
                self.service(&[section, name, &index.to_string()], service);
            }
        }
    }

    fn service(&mut self, path: &[&str], name: &ServiceName) {
        let known: Vec<&str> = self.model.services().map(|(name, _)| name.as_str()).collect();
        if !known.contains(&name.as_str()) {
            let near = hint(nearest(name.as_str(), known));
            self.push(path, &format!("no service {name} in the Compose file{near}"));
        }
    }

    fn profile(&mut self, path: &[&str], profile: &str) {
        let known: Vec<&str> =
            self.model.services().flat_map(|(_, service)| service.profiles.iter().map(String::as_str)).collect();
        if profile != "*" && !known.contains(&profile) {
            let near = hint(nearest(profile, known));
            self.push(path, &format!("no service of the Compose file has the profile {profile}{near}"));
        }
    }

    /// A service that the Engine starts again whenever it ends has no use for a schedule: it runs all the time.
    fn restarts(&mut self, path: &[&str], name: &ServiceName) {
        let Some((_, service)) = self.model.services().find(|(other, _)| *other == name) else { return };
        let Some((key, policy)) = restart_policy(service) else { return };
        let place: Vec<&str> = ["services", name.as_str()].into_iter().chain(key.split('.')).collect();
        let at = self.model.place(&place).map(|place| format!(" ({place})"));
        let at = at.unwrap_or_default();
        self.push(path, &format!("the service's `{key}` is {policy}{at}: it runs all the time already"));
    }

    fn push(&mut self, path: &[&str], what: &str) {
        // A list in a variable is one text, whose items have no place of their own.
        let list = path.split_last().map_or(path, |(_, list)| list);
        let items = path.last().is_some_and(|last| last.parse::<usize>().is_ok());
        let place = self.origins.of_user(path).or_else(|| if items { self.origins.of_user(list) } else { None });
        if let Some(place) = place {
            let key = if items { list } else { path }.join(".");
            self.found.push(Finding { place: Some(place.to_string()), what: format!("{key}: {what}") });
        }
    }
}

/// The key and the value that make the Engine start the service again however it ends.
fn restart_policy(service: &Service) -> Option<(&'static str, &str)> {
    // Where both are there, the Engine is told the first.
    let (key, policy) = match service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()) {
        Some(policy) => ("deploy.restart_policy.condition", policy.condition.as_str()),
        None => ("restart", service.restart.as_str()),
    };
    matches!(policy, "always" | "any" | "unless-stopped").then_some((key, policy))
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}
