//! Answers the requests of the control socket that are about jobs.

use std::future::{Future, ready};

use futures::future::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::{broadcast, mpsc};

use super::{JobError, Jobs};
use crate::backend::Backend;
use crate::bus::Bus;
use crate::control::{Answer, Request};
use crate::names::ServiceName;
use crate::observer::feed::Stamped;
use crate::record::Record;
use crate::report::Chain;

/// Lines that wait for a reader.
const AHEAD: usize = 16;

/// Where an answer's lines go.
pub(super) struct Lines(mpsc::Sender<Answer>);

impl Lines {
    /// Waits for the reader; one that is gone drops the whole answer.
    pub(super) async fn say(&self, line: Answer) {
        let _ = self.0.send(line).await;
    }

    pub(super) async fn record(&self, record: Record) {
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

    async fn events(self, follow: bool, lines: Lines) -> Result<(), JobError> {
        let (recent, mut events) = self.feed.listen();
        for stamped in recent {
            lines.say(Answer::Event(event(&stamped))).await;
        }
        if !follow {
            return Ok(());
        }
        loop {
            match events.recv().await {
                Ok(stamped) => lines.say(Answer::Event(event(&stamped))).await,
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

fn event(stamped: &Stamped) -> Map<String, Value> {
    let at = ("at".to_owned(), Value::from(stamped.at.to_rfc3339()));
    match serde_json::to_value(&stamped.event) {
        Ok(Value::Object(fields)) => std::iter::once(at).chain(fields).collect(),
        Ok(_) | Err(_) => Map::from_iter([at, ("event".to_owned(), stamped.event.name().into())]),
    }
}
