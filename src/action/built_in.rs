//! The actions that every stack has without any in its settings. Their parameter is `service`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, JobVerb, Report, Step, Target};

/// The action of this name. One of the settings with the same name takes its place.
#[must_use]
pub fn built_in(name: &str) -> Option<Action> {
    let service = || Target::Param("service".to_owned());
    let step = match name {
        "trigger" => Step::Run { service: service(), env: BTreeMap::new(), wait_for_turn: Duration::ZERO },
        "start_service" => Step::Start(service()),
        "stop_service" => Step::Stop(service()),
        "restart_service" => Step::Restart(service()),
        "status" => Step::Report(Report::Services),
        "cancel" => Step::Job(JobVerb::Cancel, service()),
        "pause" => Step::Job(JobVerb::Pause, service()),
        "resume" => Step::Job(JobVerb::Resume, service()),
        "runs" => Step::Job(JobVerb::Runs, service()),
        "logs" => Step::Job(JobVerb::Logs, service()),
        _ => return None,
    };
    Some(Action(vec![step]))
}
