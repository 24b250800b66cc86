//! The subcommands that ask the running daemon.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::show::{Screen, print};
use super::{Failed, ask, commands, health};
use crate::cli::{self, Command, Moment};
use crate::clock::Timestamp;
use crate::control::client::Connection;
use crate::control::{Answer, Request};
use crate::record::{Record, State};
use crate::settings::Settings;
use crate::text;

mod output;
mod run;
mod spinner;

use output::Passage;
use spinner::spinning;

/// Rows of a table of runs where no other number is asked for.
const ROWS: usize = 20;

/// Exit code of a run that was cancelled, as of a program that was interrupted.
const CANCELLED: u8 = 130;

/// Exit code of a run that was past its limit, as `timeout` has it.
const TIMED_OUT: u8 = 124;

/// Asks the daemon for what a subcommand wants, and shows its answer.
pub(super) async fn carry_out(settings: &Settings, command: Command) -> Result<(), Failed> {
    let screen = Screen::stdout(settings.log.color);
    match command {
        Command::Ls(cli::Json { json }) => {
            let lines = ask::open(settings, Request::Ls).await?;
            let job = |answer| if let Answer::Job(job) = answer { Some(*job) } else { None };
            list(lines, json, job, |jobs| screen.jobs(jobs)).await
        }
        Command::Runs(cli::Runs { job, limit, output: cli::Json { json } }) => {
            let limit = limit.or((!json).then_some(ROWS));
            let lines = ask::open(settings, Request::Runs { job, limit }).await?;
            list(lines, json, record, |records| screen.records(records)).await
        }
        Command::Next(cli::Json { json }) => {
            let lines = ask::open(settings, Request::Next).await?;
            let slot = |answer| if let Answer::Next(slot) = answer { Some(slot) } else { None };
            list(lines, json, slot, |slots| screen.next(slots)).await
        }
        Command::Inspect(cli::OneRun { job, run }) => {
            match ask::first_line(settings, Request::Inspect { job, run }).await? {
                Answer::Job(job) => print_pretty(&job),
                Answer::Record(record) => print_pretty(&record),
                _ => Err(unexpected()),
            }
        }
        Command::Status(cli::Json { json }) => match ask::first_line(settings, Request::Status).await? {
            Answer::Status(status) if json => print_line(&status),
            Answer::Status(status) => Ok(print(&screen.status(&status))?),
            _ => Err(unexpected()),
        },
        Command::Explain(options) => explain(settings, options, screen).await,
        Command::Events(options) => events(settings, options, screen).await,
        Command::Health => health::ask(settings).await,
        Command::Reload => done(settings, Request::Reload, "reloading").await,
        Command::Run(cli::Run { job: None, .. }) => {
            Err(Failed::Usage("what is to be run? The daemon is started by `sense-orchestrator daemon`".to_owned()))
        }
        Command::Run(cli::Run { job: Some(job), environment, detach }) => {
            run::run(settings, job, environment.into_iter().collect(), detach).await
        }
        Command::Logs(cli::Logs { of: cli::OneRun { job, run }, follow }) => {
            let mut lines = ask::open(settings, Request::Logs { job, run, follow }).await?;
            let mut passage = Passage::default();
            while let Some(line) = lines.next().await.map_err(anyhow::Error::from)? {
                passage.pass_on(line)?;
            }
            Ok(passage.end()?)
        }
        Command::Wait(cli::OneJob { job }) => {
            let what = format!("waiting for {job}");
            let record = last_record(settings, Request::Wait { job }, &what).await?;
            say(&verdict(&record));
            ended(&record)
        }
        Command::Cancel(cli::OneJob { job }) => {
            let what = format!("cancelling {job}");
            let record = last_record(settings, Request::Cancel { job }, &what).await?;
            say(&verdict(&record));
            Ok(())
        }
        Command::Pause(cli::OneJob { job }) => done(settings, Request::Pause { job }, "").await,
        Command::Resume(cli::OneJob { job }) => done(settings, Request::Resume { job }, "").await,
        Command::Start(cli::OneService { service }) => {
            let what = format!("starting {service}");
            done(settings, Request::Start { service }, &what).await
        }
        Command::Stop(cli::OneService { service }) => {
            let what = format!("stopping {service}");
            done(settings, Request::Stop { service }, &what).await
        }
        Command::Restart(cli::OneService { service }) => {
            let what = format!("restarting {service}");
            done(settings, Request::Restart { service }, &what).await
        }
        Command::Daemon
        | Command::Check(_)
        | Command::Render(_)
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Man => Err(unexpected()),
    }
}

async fn explain(settings: &Settings, options: cli::Explain, screen: Screen) -> Result<(), Failed> {
    let cli::Explain { job, time, output: cli::Json { json } } = options;
    let at = time.map(|time| match time {
        Moment::At(at) => at,
        Moment::Ago(ago) => Timestamp(Timestamp::now().0 - ago.as_secs_f64()),
    });
    match ask::first_line(settings, Request::Explain { job, at }).await? {
        Answer::Explanation(explanation) if json => print_pretty(&explanation),
        Answer::Explanation(explanation) => Ok(print(&screen.explanation(&explanation))?),
        _ => Err(unexpected()),
    }
}

async fn events(settings: &Settings, options: cli::Events, screen: Screen) -> Result<(), Failed> {
    let cli::Events { follow, output: cli::Json { json } } = options;
    let mut lines = ask::open(settings, Request::Events { follow }).await?;
    while let Some(line) = lines.next().await.map_err(anyhow::Error::from)? {
        match line {
            Answer::Event(event) if json => print_line(&event)?,
            Answer::Event(event) => print(&screen.event(&event))?,
            other => note(&other),
        }
    }
    Ok(())
}

fn record(answer: Answer) -> Option<Record> {
    if let Answer::Record(record) = answer { Some(*record) } else { None }
}

fn unexpected() -> Failed {
    Failed::Other(anyhow::anyhow!("the daemon answered something else"))
}

/// Shows the lines of an answer: as a table, or as a JSON array while they come.
async fn list<T: Serialize>(
    mut lines: Connection,
    json: bool,
    one: impl Fn(Answer) -> Option<T>,
    table: impl Fn(&[T]) -> String,
) -> Result<(), Failed> {
    let (mut all, mut first) = (Vec::new(), true);
    while let Some(line) = lines.next().await.map_err(anyhow::Error::from)? {
        let one = one(line).ok_or_else(unexpected)?;
        if json {
            let text = serde_json::to_string(&one).context("it has no JSON form")?;
            write(&format!("{}{}", if first { "[\n" } else { ",\n" }, text::json(&text)))?;
            first = false;
        } else {
            all.push(one);
        }
    }
    match (json, first) {
        (true, true) => write("[]\n")?,
        (true, false) => write("\n]\n")?,
        (false, _) => print(&table(&all))?,
    }
    Ok(())
}

fn write(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn print_line(value: &impl Serialize) -> Result<(), Failed> {
    Ok(commands::print_json(&serde_json::to_string(value).context("it has no JSON form")?)?)
}

fn print_pretty(value: &impl Serialize) -> Result<(), Failed> {
    Ok(commands::print_json(&serde_json::to_string_pretty(value).context("it has no JSON form")?)?)
}

/// Says something on standard error, where nobody reads data.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::lines(line));
}

/// Says what a person should know besides.
fn note(line: &Answer) {
    if let Answer::Notice(notice) = line {
        say(notice);
    }
}

/// Asks for something that ends with one word.
async fn done(settings: &Settings, request: Request, what: &str) -> Result<(), Failed> {
    let mut lines = ask::open(settings, request).await?;
    while let Some(line) = spinning(what, lines.next()).await.map_err(anyhow::Error::from)? {
        match line {
            Answer::Done(done) => print(&text::lines(&done))?,
            other => note(&other),
        }
    }
    Ok(())
}

/// Asks for something that ends with a run's record.
async fn last_record(settings: &Settings, request: Request, what: &str) -> Result<Record, Failed> {
    let mut lines = ask::open(settings, request).await?;
    let mut last = None;
    while let Some(line) = spinning(what, lines.next()).await.map_err(anyhow::Error::from)? {
        last = record(line).or(last);
    }
    last.ok_or_else(unexpected)
}

/// What a run came to, in a line.
fn verdict(record: &Record) -> String {
    let run = record.iteration.unwrap_or_default();
    let took =
        record.duration_ms.map_or_else(String::new, |took| format!(" after {}", super::show::milliseconds(took)));
    let error = record.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    format!("run {run} of {} {}{took}{error}", record.job, record.state.as_str().replace('_', " "))
}

/// Ends as a run did.
fn ended(record: &Record) -> Result<(), Failed> {
    match exit_code(record) {
        0 => Ok(()),
        code => Err(Failed::Exit(code)),
    }
}

/// The exit code that stands for a run: its container's where there is one.
fn exit_code(record: &Record) -> u8 {
    match record.state {
        State::Succeeded => 0,
        State::Cancelled => CANCELLED,
        State::TimedOut => TIMED_OUT,
        State::Pending | State::Running | State::Failed | State::Skipped | State::Missed => {
            record.exit_code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Trigger;

    #[test]
    fn a_runs_exit_code_is_the_containers_or_says_why_there_is_none() {
        let of = |state, exit_code: Option<i64>| {
            let (job, run_id) = ("web".parse().unwrap(), "0123456789ab".parse().unwrap());
            let record = Record::pending(job, 1, run_id, Trigger::Command, Timestamp(0.0));
            super::exit_code(&Record { state, exit_code, ..record })
        };
        assert_eq!(of(State::Succeeded, Some(0)), 0);
        assert_eq!(of(State::Failed, Some(3)), 3);
        assert_eq!(of(State::Failed, Some(0)), 1, "it left no output");
        assert_eq!(of(State::Failed, None), 1);
        assert_eq!(of(State::Cancelled, Some(143)), 130);
        assert_eq!(of(State::TimedOut, None), 124);
    }
}
