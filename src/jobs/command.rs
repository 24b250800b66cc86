//! What the steps of an action do with jobs, and put into the reply.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Map, Value, json};

use super::{JobError, Jobs};
use crate::action::JobVerb;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::names::ServiceName;
use crate::record::{Record, State};

/// Most records that the reply to a command holds.
const REPLIED: usize = 20;

/// Most bytes of output that it holds.
const REPLIED_OUTPUT: usize = 64 << 10;

impl<K: Backend, B: Bus> Jobs<K, B> {
    /// Slots so far, and what each service does and did since the daemon started.
    #[must_use]
    pub fn status(&self) -> Map<String, Value> {
        let slots = self.runner.slots();
        let counts = [("slots_due", json!(slots.due)), ("slots_accounted", json!(slots.accounted))];
        let counts = counts.map(|(key, count)| (key.to_owned(), count));
        counts.into_iter().chain([("services".to_owned(), self.services())]).collect()
    }

    fn services(&self) -> Value {
        let records = self.runner.records();
        let intervals = Arc::clone(&self.intervals.borrow());
        let services = self.runner.services().into_iter().map(|service| {
            let record = records.get(&service);
            let every = intervals.get(&service).copied().flatten().map(|every| every.as_duration().as_secs_f64());
            let state = json!({
                "every": every,
                "paused": self.is_paused(&service, &intervals),
                "running": self.runner.running(&service),
                "runs": record.map_or(0, |record| record.runs),
                "failures": record.map_or(0, |record| record.failures),
                "last_success": record.and_then(|record| record.last_success_at),
                "last_run": record.and_then(|record| record.last.as_ref()),
            });
            (service.into(), state)
        });
        Value::Object(services.collect())
    }

    /// Does what a command asks for, and returns what its reply is to hold.
    ///
    /// # Errors
    ///
    /// There is no such job, or nothing that could be done.
    pub async fn carry_out(&self, verb: JobVerb, job: &ServiceName) -> Result<Map<String, Value>, JobError> {
        let field = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        match verb {
            JobVerb::Cancel => Ok(field("run_id", json!(self.cancel(job)?))),
            JobVerb::Pause => self.pause(job, true).await.map(|()| field("paused", true.into())),
            JobVerb::Resume => self.pause(job, false).await.map(|()| field("paused", false.into())),
            JobVerb::Runs => {
                self.known(job)?;
                let records = self.records(job).take(REPLIED).map(|record| json!(Record { tail: None, ..record }));
                Ok(field("runs", Value::Array(records.collect().await)))
            }
            JobVerb::Logs => {
                let record = self.run_record(job, None).await?;
                let logs = match &record.container {
                    Some(container) if record.state == State::Running => {
                        self.runner.tail(container, REPLIED_OUTPUT).await
                    }
                    _ => record.tail.clone(),
                };
                let run = record.iteration.unwrap_or_default();
                let logs = logs.ok_or_else(|| JobError::NoOutput { job: job.clone(), run })?;
                let from = logs.ceil_char_boundary(logs.len().saturating_sub(REPLIED_OUTPUT));
                let mut fields = field("logs", logs.get(from..).into());
                fields.insert("run_id".to_owned(), json!(record.run_id));
                Ok(fields)
            }
        }
    }
}
