//! A run as it goes on: its output as it comes, and its verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::answer::Lines;
use super::{JobError, Jobs};
use crate::backend::{Backend, Failure};
use crate::bus::Bus;
use crate::control::{Answer, OutputLine};
use crate::names::{RunId, ServiceName};
use crate::observer::feed::Stamped;
use crate::record::{Record, State};
use crate::report::{Chain, Trigger};
use crate::request::OutputStream;
use crate::runner::{Follower, RunError, RunRequest};

/// How long a run's output may go on after its verdict: its container is kept as long.
const OUTPUT_LIMIT: Duration = Duration::from_secs(10);

impl<K: Backend, B: Bus> Jobs<K, B> {
    /// Runs a job, and passes on what comes of it.
    pub(super) async fn run(
        self,
        job: ServiceName,
        environment: BTreeMap<String, String>,
        detach: bool,
        lines: Lines,
    ) -> Result<(), JobError> {
        self.not_own(&job)?;
        if let Some(run_id) = self.runner.running(&job) {
            let container = format!("run {run_id}");
            return Err(RunError::Busy { service: job, run_id: Some(run_id), container }.into());
        }
        let request = RunRequest { environment, ..RunRequest::new(job, Trigger::Command) };
        let accepted = self.runner.accept(request)?;
        let record = accepted.record().clone();
        let (_, events) = self.feed.listen();
        let follower = record.run_id.as_ref().filter(|_| !detach).map(|run_id| self.runner.follow(run_id));
        // It goes on where nobody looks on any more.
        let runner = self.runner.clone();
        self.runner.work().spawn(async move { Box::pin(runner.run_accepted(accepted)).await.ok() });
        lines.record(record.clone()).await;
        if let Some(follower) = follower {
            self.follow(record, follower, events, &lines).await;
        }
        Ok(())
    }

    /// Passes on the output of a run that begins or goes on, and its record once it has its verdict.
    async fn follow(
        &self,
        record: Record,
        follower: Follower,
        mut events: broadcast::Receiver<Arc<Stamped>>,
        lines: &Lines,
    ) {
        let (Some(run_id), Some(container)) = (record.run_id, record.container) else { return };
        let mut of_start = events.resubscribe();
        let output = async {
            if self.started(&run_id, &mut of_start).await
                && let Err(failure) = self.pass_on(&container, true, lines).await
            {
                lines.say(Answer::Notice(format!("the rest of the output is lost: {}", Chain(&failure)))).await;
            }
            drop(follower);
        };
        let verdict = std::pin::pin!(self.verdict(&run_id, &mut events));
        let verdict = match select(std::pin::pin!(output), verdict).await {
            Either::Left(((), verdict)) => verdict.await,
            Either::Right((verdict, output)) => {
                let _ = timeout(OUTPUT_LIMIT, output).await;
                verdict
            }
        };
        if let Some(record) = verdict {
            lines.record(record).await;
        }
    }

    async fn pass_on(&self, container: &str, follow: bool, lines: &Lines) -> Result<(), Failure> {
        let mut output = std::pin::pin!(self.runner.output(container, follow));
        while let Some(piece) = output.next().await {
            lines.say(Answer::Output(piece?.into())).await;
        }
        Ok(())
    }

    /// Passes on the output of a run.
    pub(super) async fn logs(
        self,
        job: ServiceName,
        run: Option<u64>,
        follow: bool,
        lines: Lines,
    ) -> Result<(), JobError> {
        let (_, events) = self.feed.listen();
        let record = self.run_record(&job, run).await?;
        let iteration = record.iteration.unwrap_or_default();
        match (&record.run_id, &record.container, record.state) {
            (Some(run_id), Some(_), State::Pending | State::Running) if follow => {
                let follower = self.runner.follow(run_id);
                self.follow(record, follower, events, &lines).await;
                Ok(())
            }
            (Some(run_id), Some(container), State::Running) => {
                let _follower = self.runner.follow(run_id);
                if let Err(failure) = self.pass_on(container, false, &lines).await {
                    lines.say(Answer::Notice(format!("not all of the output: {}", Chain(&failure)))).await;
                }
                Ok(())
            }
            (_, _, State::Pending) => Ok(()),
            _ => {
                let text = record.tail.ok_or(JobError::NoOutput { job, run: iteration })?;
                lines.say(Answer::Output(OutputLine { stream: OutputStream::Stdout, text, base64: false })).await;
                Ok(())
            }
        }
    }

    /// Tells what the run that goes on, or the newest, came to.
    pub(super) async fn wait(self, job: ServiceName, lines: Lines) -> Result<(), JobError> {
        let (_, mut events) = self.feed.listen();
        self.known(&job)?;
        let unfinished = self.unfinished();
        let waiting = || unfinished.iter().filter(|(_, run)| run.job == job).max_by_key(|(_, run)| run.iteration);
        let run_id: Option<RunId> = self.runner.running(&job).or_else(|| waiting().map(|(run_id, _)| run_id.clone()));
        let record = match run_id {
            Some(run_id) => match self.ledger().run(&run_id).await.filter(|record| record.state.is_over()) {
                Some(record) => Some(record),
                None => self.verdict(&run_id, &mut events).await,
            },
            None => Some(self.run_record(&job, None).await?),
        };
        if let Some(record) = record {
            lines.record(record).await;
        }
        Ok(())
    }
}
