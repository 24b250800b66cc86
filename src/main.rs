//! The daemon's entry point: settings, telemetry, runtime, and the result as an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use sense_orchestrator::app::{self, EX_CONFIG, Failed};
use sense_orchestrator::cli::{Cli, Command};
use sense_orchestrator::settings::{Environment, Settings, Sources};
use sense_orchestrator::telemetry;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let environment = Environment::new(std::env::vars_os());
    let sources = Sources { file: cli.config.clone(), environment, arguments: cli.arguments() };
    let settings = match Settings::load(&sources) {
        Ok(settings) => settings,
        Err(errors) => return say(&errors.to_string(), ExitCode::from(EX_CONFIG)),
    };
    let command = cli.into_command();
    if matches!(command, Command::Run)
        && let Err(error) = telemetry::start(&settings.log)
    {
        return say(&error.to_string(), ExitCode::FAILURE);
    }
    #[cfg(feature = "tls")]
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(&format!("cannot start: {error}"), ExitCode::FAILURE),
    };
    match runtime.block_on(app::run(command, settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            let text = match &failed {
                Failed::Configuration(text) => text.clone(),
                Failed::Other(error) => format!("{error:#}"),
            };
            say(&text, failed.exit_code())
        }
    }
}

/// Says why the process ends, where somebody may still read it.
fn say(text: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    code
}
