//! `run`: the output of a run as it comes, and its end as ours.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::Passage;
use super::spinner::spinning;
use super::{ended, say, unexpected, verdict};
use crate::app::{Failed, ask};
use crate::control::client::Connection;
use crate::control::{Answer, Request};
use crate::names::ServiceName;
use crate::record::Record;
use crate::settings::Settings;

/// What is to become of the run after Ctrl-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Cancel,
    GoOn,
    Detach,
}

/// Runs a job, shows its output, and ends as it does.
pub(super) async fn run(
    settings: &Settings,
    job: ServiceName,
    environment: BTreeMap<String, String>,
    detach: bool,
) -> Result<(), Failed> {
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let request = Request::Run { job: job.clone(), environment, detach };
    let mut lines = ask::open(settings, request).await?;
    let mut last: Option<Record> = None;
    let (mut quiet, mut passage) = (true, Passage::default());
    loop {
        let what = if quiet { format!("{job} begins") } else { String::new() };
        let next = or_interrupt(settings, &job, &what, &mut lines, &mut interrupts).await?;
        match next {
            Next::Line(Answer::Record(record)) => last = Some(*record),
            Next::Line(line) => {
                quiet &= !matches!(line, Answer::Output(_));
                passage.pass_on(line)?;
            }
            Next::End => break,
            Next::Detached => {
                say(&format!("{job} goes on: `logs {job} --follow` shows its output, `wait {job}` its end"));
                return Ok(());
            }
        }
    }
    passage.end()?;
    let record = last.ok_or_else(unexpected)?;
    if detach {
        return Ok(super::print(&record.iteration.unwrap_or_default().to_string())?);
    }
    say(&verdict(&record));
    ended(&record)
}

/// What comes next.
enum Next {
    Line(Answer),
    End,
    Detached,
}

/// Waits for the next line; at Ctrl-C, asks what is to become of the run.
async fn or_interrupt(
    settings: &Settings,
    job: &ServiceName,
    what: &str,
    lines: &mut Connection,
    interrupts: &mut Signal,
) -> Result<Next, Failed> {
    let mut next = std::pin::pin!(lines.next());
    loop {
        tokio::select! {
            biased;
            line = spinning(what, next.as_mut()) => {
                return Ok(line.map_err(anyhow::Error::from)?.map_or(Next::End, Next::Line));
            }
            _ = interrupts.recv() => {}
        }
        match choice(job, interrupts).await {
            Choice::GoOn => {}
            Choice::Detach => return Ok(Next::Detached),
            // Its verdict comes on our own connection.
            Choice::Cancel => {
                if let Err(error) = ask::open(settings, Request::Cancel { job: job.clone() }).await {
                    say(&format!("not cancelled: {error:#}"));
                }
            }
        }
    }
}

/// Asks the person at the terminal; nobody there, or a second Ctrl-C, means to cancel.
async fn choice(job: &ServiceName, interrupts: &mut Signal) -> Choice {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Choice::Cancel;
    }
    let _ = write!(std::io::stderr().lock(), "\r\u{1b}[Kcancel {job}? [y]es, [N]o, [d]etach: ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        biased;
        answer = answer => match answer {
            Ok(Ok(answer)) => chosen(&answer),
            _ => Choice::Detach,
        },
        _ = interrupts.recv() => Choice::Cancel,
    }
}

fn chosen(answer: &str) -> Choice {
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Choice::Cancel,
        "d" | "detach" => Choice::Detach,
        _ => Choice::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_cancels() {
        let choices = ["y\n", " YES", "d", "", "n", "quit"].map(chosen);
        assert_eq!(choices[..3], [Choice::Cancel, Choice::Cancel, Choice::Detach]);
        assert!(choices[3..].iter().all(|choice| *choice == Choice::GoOn));
    }
}
