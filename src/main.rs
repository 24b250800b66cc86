//! The daemon's entry point: settings, telemetry, runtime, and the result as an exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use sense_orchestrator::app::{self, Failed};
use sense_orchestrator::cli::{Cli, Command};
use sense_orchestrator::settings::{Environment, Reading, Settings, Sources};
use sense_orchestrator::telemetry::{self, FLUSH_LIMIT};
use sense_orchestrator::text;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let environment = Environment::new(std::env::vars_os());
    let sources = Sources { file: cli.config.clone(), environment, arguments: cli.arguments() };
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let Some(command) = cli.into_command(terminal) else {
        return if Cli::command().print_help().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let reading = Settings::read(&sources);
    let log = match (&command, &reading.settings) {
        (Command::Daemon, Some(settings)) if reading.errors.is_empty() => match telemetry::start(&settings.log) {
            Ok(log) => Some(log),
            Err(error) => return say(&error.to_string(), ExitCode::FAILURE),
        },
        _ => None,
    };
    let (code, text) = run(command, sources, reading);
    match (log, text) {
        (Some(log), text) => {
            // Who reads our standard error may have stalled: nothing is written past the queue any more.
            if let Some(text) = text {
                log.push(format!("{}\n", text::lines(&text)).as_bytes());
            }
            log.flush(FLUSH_LIMIT);
            code
        }
        (None, Some(text)) => say(&text, code),
        (None, None) => code,
    }
}

/// Does what was asked for; the exit code, and why it is not 0.
fn run(command: Command, sources: Sources, reading: Reading) -> (ExitCode, Option<String>) {
    #[cfg(feature = "tls")]
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (ExitCode::FAILURE, Some(format!("cannot start: {error}"))),
    };
    let done = runtime.block_on(app::run(command, sources, reading));
    // Without waiting for its blocking threads: one may ask a resolver that does not answer.
    runtime.shutdown_background();
    match done {
        Ok(()) => (ExitCode::SUCCESS, None),
        Err(failed) => {
            let text = match &failed {
                Failed::Configuration(text) | Failed::Usage(text) => Some(text.clone()),
                Failed::Exit(_) => None,
                Failed::Other(error) => Some(format!("{error:#}")),
            };
            (failed.exit_code(), text)
        }
    }
}

/// Says why the process ends, where somebody may still read it.
fn say(text: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::lines(text));
    code
}
