//! Answers the commands that an earlier life of the daemon took and did not come to answer: with what their run came to,
//! which the runner has adopted, collected, or found to be gone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::fault::Fault;
use super::replies::Replies;
use super::run_reply::last_lines;
use super::steps::Steps;
use crate::action::{Action, Step};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::event::{Answer, Event};
use crate::ledger::Request;
use crate::message::Reply;
use crate::record::{Reason, Record, State};

/// Time between two looks at a run that goes on.
const LOOK: Duration = Duration::from_millis(500);

/// Answers a command once what it asked for is over. `action` is what its action is now.
pub(super) async fn answer<K: Backend, B: Bus>(
    steps: Arc<Steps<K, B>>,
    action: Option<Action>,
    replies: Replies,
    request: Request,
) {
    let Some(verdict) = verdict(&steps, &request).await else { return };
    let ended = match verdict {
        Some(record) => ended(&steps, action.as_ref(), &record).await,
        None => Err(Fault::new("interrupted: the daemon ended before this was done")),
    };
    let answer = match &ended {
        Ok(_) => Answer::Done,
        Err(fault) => Answer::Failed { error: fault.error.clone() },
    };
    let reply = match ended {
        Ok(data) => Reply::ok(request.id.clone(), data),
        Err(Fault { error, data, .. }) => Reply::error(request.id.clone(), error, data),
    };
    let json: Arc<str> = reply.to_json().into();
    let took = Duration::try_from_secs_f64(Timestamp::now().seconds_since(request.at)).unwrap_or_default();
    let action = request.fingerprint.split(' ').next().unwrap_or_default().to_owned();
    let (request_id, reply) = (Some(request.id.clone()), Some(Arc::clone(&json)));
    steps.runner.events().emit(&Event::CommandAnswered { action, request_id, answer, reply, took });
    steps.runner.events().settled().await;
    replies.send(&request.id, json).await;
}

/// The record of a command's run with its verdict, or none where it had come to no run; nothing where the daemon ends first.
async fn verdict<K: Backend, B: Bus>(steps: &Steps<K, B>, request: &Request) -> Option<Option<Record>> {
    let Some(run_id) = &request.run_id else { return Some(None) };
    loop {
        match steps.runner.history().ledger.run(run_id).await {
            Some(record) if !record.state.is_over() => {}
            record => return Some(record),
        }
        tokio::select! {
            biased;
            () = steps.intake.cancelled() => return None,
            () = sleep(LOOK) => {}
        }
    }
}

/// What the command's reply would have been after its run, as far as the steps that were left are replies only.
async fn ended<K: Backend, B: Bus>(
    steps: &Steps<K, B>,
    action: Option<&Action>,
    record: &Record,
) -> Result<Map<String, Value>, Fault> {
    let data = reply_data(record);
    if record.state != State::Succeeded {
        let why = record.error.clone().unwrap_or_else(|| record.state.to_string());
        return Err(Fault { data, ..Fault::new(format!("run of {}: {why}", record.job)) });
    }
    let all = action.map_or(&[][..], |action| action.steps());
    let run = all.iter().position(|step| matches!(step, Step::Run { .. }));
    let left = run.and_then(|run| all.get(run + 1..)).unwrap_or_default();
    let mut lists = Map::new();
    for step in left {
        let Step::Reply { field, from } = step else {
            return Err(Fault { data, ..Fault::new("interrupted: the daemon ended before all of this was done") });
        };
        lists.insert(field.clone(), steps.list(from).await?);
    }
    Ok(if lists.is_empty() { data } else { lists })
}

fn reply_data(record: &Record) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("run_id".to_owned(), json!(record.run_id));
    data.insert("exit_code".to_owned(), json!(record.exit_code));
    data.insert("duration_ms".to_owned(), json!(record.duration_ms.unwrap_or_default()));
    if record.state != State::Succeeded {
        let outcome = if record.reason == Some(Reason::NoOutput) { "no_output" } else { record.state.as_str() };
        data.insert("outcome".to_owned(), Value::from(outcome));
        data.insert("tail".to_owned(), Value::from(last_lines(record.tail.as_deref().unwrap_or_default())));
    }
    data
}
