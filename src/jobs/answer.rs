//! Answers the requests of the control socket that are about jobs.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, FutureExt, select};
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;

use super::{JobError, Jobs};
use crate::backend::{Backend, Failure};
use crate::bus::Bus;
use crate::control::{Answer, OutputLine, Request, Stream};
use crate::names::{RunId, ServiceName};
use crate::observer::feed::Told;
use crate::record::{Record, State};
use crate::report::{Chain, Trigger};
use crate::runner::{Follower, RunError, RunRequest};

/// Lines that wait for a reader.
const AHEAD: usize = 16;

/// How long a run's output may go on after its verdict: its container is kept as long.
const OUTPUT_LIMIT: Duration = Duration::from_secs(10);

/// Where an answer's lines go.
struct Lines(mpsc::Sender<Answer>);

impl Lines {
    /// Waits for the reader; one that is gone drops the whole answer.
    async fn say(&self, line: Answer) {
        let _ = self.0.send(line).await;
    }

    async fn record(&self, record: Record) {
        self.say(Answer::Record(Box::new(record))).await;
    }
}

/// The lines that some work says, and its error as the last.
fn lines_of<W>(work: impl FnOnce(Lines) -> W) -> BoxStream<'static, Answer>
where
    W: Future<Output = Result<(), JobError>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let said = stream::poll_fn(move |context| receiver.poll_recv(context));
    let failed = work(Lines(sender.clone())).map(move |done| (done, sender)).then(|(done, sender)| async move {
        let error = done.err().map(|error| Chain(&error).to_string());
        if let Some(error) = error {
            Lines(sender).say(Answer::Error(error)).await;
        }
    });
    stream::select(said, failed.into_stream().filter_map(|()| ready(None))).boxed()
}

fn one(answer: Answer) -> BoxStream<'static, Answer> {
    stream::once(ready(answer)).boxed()
}

impl<K: Backend, B: Bus> Jobs<K, B> {
    /// The lines of the answer. What concerns the daemon as a whole is answered above.
    pub fn answer(&self, request: Request) -> BoxStream<'static, Answer> {
        let jobs = self.clone();
        match request {
            Request::Health | Request::Intervals | Request::Reload => {
                one(Answer::Error("this daemon does not answer that".to_owned()))
            }
            Request::Status => one(Answer::Status(self.status())),
            Request::Ls => stream::iter(self.list()).map(|job| Answer::Job(Box::new(job))).boxed(),
            Request::Next => stream::iter(self.next()).map(Answer::Next).boxed(),
            Request::Runs { job, limit } => lines_of(|lines| async move {
                jobs.known(&job)?;
                let mut records = std::pin::pin!(jobs.records(&job).take(limit.unwrap_or(usize::MAX)));
                while let Some(record) = records.next().await {
                    lines.record(record).await;
                }
                Ok(())
            }),
            Request::Inspect { job, run: None } => lines_of(|lines| async move {
                let mut found = jobs.job(&job)?;
                if found.last_run.is_some() {
                    found.last_run = jobs.run_record(&job, None).await.ok();
                }
                lines.say(Answer::Job(Box::new(found))).await;
                Ok(())
            }),
            Request::Inspect { job, run } => lines_of(|lines| async move {
                lines.record(jobs.run_record(&job, run).await?).await;
                Ok(())
            }),
            Request::Run { job, environment, detach } => lines_of(|lines| jobs.run(job, environment, detach, lines)),
            Request::Logs { job, run, follow } => lines_of(|lines| jobs.logs(job, run, follow, lines)),
            Request::Wait { job } => lines_of(|lines| jobs.wait(job, lines)),
            Request::Cancel { job } => lines_of(|lines| async move {
                let (_, mut events) = jobs.feed.listen();
                let run_id = jobs.cancel(&job)?;
                if let Some(record) = jobs.verdict(&run_id, &mut events).await {
                    lines.record(record).await;
                }
                Ok(())
            }),
            Request::Pause { job } => lines_of(|lines| async move {
                jobs.pause(&job, true).await?;
                lines.say(Answer::Done(format!("{job} is paused"))).await;
                Ok(())
            }),
            Request::Resume { job } => lines_of(|lines| async move {
                jobs.pause(&job, false).await?;
                let unset = jobs.intervals.borrow().get(&job).is_some_and(Option::is_none);
                lines.say(Answer::Done(format!("{job} is resumed"))).await;
                if unset {
                    let notice = format!("{job} has no interval for now: its settings or `config:schedule` say 0");
                    lines.say(Answer::Notice(notice)).await;
                }
                Ok(())
            }),
            Request::Start { service } => jobs.operate(service, Operation::Start),
            Request::Stop { service } => jobs.operate(service, Operation::Stop),
            Request::Restart { service } => jobs.operate(service, Operation::Restart),
            Request::Explain { job, at } => lines_of(|lines| async move {
                let explanation = jobs.explain(&job, at).await?;
                lines.say(Answer::Explanation(Box::new(explanation))).await;
                Ok(())
            }),
            Request::Events { follow } => lines_of(|lines| jobs.events(follow, lines)),
        }
    }

    async fn run(
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
        mut events: broadcast::Receiver<Arc<Told>>,
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

    async fn logs(self, job: ServiceName, run: Option<u64>, follow: bool, lines: Lines) -> Result<(), JobError> {
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
                lines.say(Answer::Output(OutputLine { stream: Stream::Stdout, text, base64: false })).await;
                Ok(())
            }
        }
    }

    async fn wait(self, job: ServiceName, lines: Lines) -> Result<(), JobError> {
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

    async fn events(self, follow: bool, lines: Lines) -> Result<(), JobError> {
        let (recent, mut events) = self.feed.listen();
        for told in recent {
            lines.say(Answer::Event(event(&told))).await;
        }
        if !follow {
            return Ok(());
        }
        loop {
            match events.recv().await {
                Ok(told) => lines.say(Answer::Event(event(&told))).await,
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    lines.say(Answer::Notice(format!("{lost} events were not shown: too many at once"))).await;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Starts, stops or restarts a service, whoever waits for it.
    fn operate(self, service: ServiceName, operation: Operation) -> BoxStream<'static, Answer> {
        lines_of(|lines| async move {
            self.not_own(&service)?;
            let (runner, name) = (self.runner.clone(), service.clone());
            let work = async move {
                match operation {
                    Operation::Start => runner.start(&name).await,
                    Operation::Stop => runner.stop(&name).await,
                    Operation::Restart => runner.restart(&name).await,
                }
            };
            // An error of the task itself is a panic, which the log has.
            if let Ok(done) = self.runner.work().spawn(work).await {
                done?;
            }
            let done = match operation {
                Operation::Start => "started",
                Operation::Stop => "stopped",
                Operation::Restart => "restarted",
            };
            lines.say(Answer::Done(format!("{service} is {done}"))).await;
            Ok(())
        })
    }
}

/// What is done with a service.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Start,
    Stop,
    Restart,
}

fn event(told: &Told) -> Map<String, Value> {
    let at = ("at".to_owned(), Value::from(told.at.to_rfc3339()));
    match serde_json::to_value(&told.event) {
        Ok(Value::Object(fields)) => std::iter::once(at).chain(fields).collect(),
        Ok(_) | Err(_) => Map::from_iter([at, ("event".to_owned(), told.event.name().into())]),
    }
}
