//! What the components are told of the settings, and can be told anew while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::action::permission::Permissions;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::compose::Options;
use crate::dispatcher::{self, PollServices, Scheduled};
use crate::monitor;
use crate::names::{ServiceName, SourceId};
use crate::report::Problems;
use crate::runner::Runner;
use crate::schedule::Intervals;
use crate::settings::Settings;

/// The settings that count at once where they change; all others count from the next start on.
const LIVE: [&str; 10] = [
    "preset",
    "services",
    "actions",
    "reactions",
    "config_changes",
    "commands.profiles",
    "commands.deny",
    "runs.timeout",
    "runs.tail",
    "runs.keep_output",
];

/// Whether a change of the setting at `path` counts at once.
pub(super) fn is_live(path: &str) -> bool {
    LIVE.iter().any(|live| path == *live || path.strip_prefix(live).is_some_and(|below| below.starts_with('.')))
}

/// Where the components hear of changed settings.
pub(super) struct Live<K, B> {
    pub(super) runner: Runner<K, B>,
    pub(super) intervals: watch::Sender<Arc<Intervals>>,
    pub(super) problems: watch::Sender<Problems>,
    pub(super) monitor: watch::Sender<Arc<monitor::Options>>,
    pub(super) dispatcher: watch::Sender<Arc<dispatcher::Options>>,
    /// Whether there is a dispatcher, which only Redis has anything for.
    pub(super) redis: bool,
    pub(super) own_service: Option<ServiceName>,
    /// When components look at what may have changed: from then on, at this period.
    pub(super) looks: (Instant, Duration),
}

impl<K: Backend, B: Bus> Live<K, B> {
    /// Reads the Compose files again, where they changed, and says whether they did.
    ///
    /// # Errors
    ///
    /// What is wrong with them as they are now.
    pub(super) fn look_at_project(&self) -> Result<bool, String> {
        let projects = self.runner.projects();
        let before = projects.in_use();
        let now = projects.current();
        match projects.broken() {
            Some(fault) => Err(fault),
            None => Ok(!Arc::ptr_eq(&before, &now)),
        }
    }

    /// Goes by other Compose files from now on.
    ///
    /// # Errors
    ///
    /// What is wrong with them: the last good ones stay in use.
    pub(super) fn follow(&self, files: Options) -> Result<(), String> {
        self.runner.projects().follow(files);
        self.runner.projects().broken().map_or(Ok(()), Err)
    }

    /// Says on the daemon's status what is wrong with the settings.
    pub(super) fn complain(&self, fault: Option<&str>) {
        let faults = fault.map(|fault| format!("settings not usable: {fault}")).into_iter().collect();
        self.problems.send_modify(|problems| drop(problems.insert("settings", faults)));
    }

    /// Puts changed settings in force, as far as that can be done. What goes on, goes on as it began.
    pub(super) fn apply(&self, settings: &Settings) {
        self.runner.reconfigure(super::runner_options(settings));
        let monitor =
            monitor::Options { sources: sources(settings), ..monitor::Options::clone(&self.monitor.borrow()) };
        self.monitor.send_replace(Arc::new(monitor));
        let reply_bytes = self.dispatcher.borrow().reply_bytes;
        let now = Arc::new(dispatcher(settings, self.own_service.as_ref(), reply_bytes));
        let before = self.dispatcher.send_replace(Arc::clone(&now));
        // With Redis the dispatcher does this, because its schedule has the last word.
        if !self.redis {
            self.intervals.send_if_modified(|current| {
                let wanted = dispatcher::rebased_intervals(&before.services, &now.services, current);
                let changed = **current != wanted;
                if changed {
                    *current = Arc::new(wanted);
                }
                changed
            });
        }
    }
}

/// Where services report, by service.
pub(super) fn sources(settings: &Settings) -> BTreeMap<ServiceName, SourceId> {
    settings.services.iter().filter_map(|(name, own)| Some((name.clone(), own.status.clone()?))).collect()
}

/// What the dispatcher is told.
pub(super) fn dispatcher(
    settings: &Settings,
    own_service: Option<&ServiceName>,
    reply_bytes: usize,
) -> dispatcher::Options {
    dispatcher::Options {
        actions: settings.actions.clone(),
        reactions: settings.reactions.clone(),
        config_changes: settings.config_changes.clone(),
        services: poll_services(settings, own_service),
        max_in_flight: settings.commands.max_in_flight,
        reply_ttl: settings.commands.reply_ttl,
        reply_bytes,
    }
}

fn poll_services(settings: &Settings, own_service: Option<&ServiceName>) -> PollServices {
    let commands = &settings.commands;
    let permissions = Permissions {
        profiles: commands.profiles.iter().cloned().collect(),
        // Without a preset, and without a word on commands, these are what somebody else's stack has for them.
        allow: if settings.preset == "none" && commands.profiles.is_empty() {
            settings.intervals().into_keys().collect()
        } else {
            BTreeSet::new()
        },
        deny: commands.deny.iter().cloned().collect(),
        own: own_service.cloned(),
    };
    let services = settings.services.iter();
    let on_command = services.filter(|(_, own)| !own.is_scheduled()).map(|(name, _)| name.clone()).collect();
    let intervals = settings.intervals().into_iter();
    let scheduled = intervals.map(|(service, default)| {
        let key = settings.service(&service).schedule_key.to_owned();
        (service, Scheduled { key, default, by_settings: true })
    });
    PollServices { scheduled: scheduled.collect(), on_command, permissions }
}
