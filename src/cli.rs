//! The command line: what it looks like, and nothing of what it does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::Timestamp;
use crate::engine::ApiVersion;
use crate::names::ServiceName;
use crate::settings::Argument;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 78 settings or Compose files that cannot be read. `run` and `wait` end as the
run did: with its exit code, 1 where it has none, 124 past its time limit, 130 cancelled.";

/// Runs a Compose stack's poll services on intervals and its on-demand services by command, through the Docker Engine
/// API, as `docker compose` itself would.
#[derive(Debug, Parser)]
#[command(name = "sense-orchestrator", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Settings file in YAML; without it the one that `ORCHESTRATOR_CONFIG` names, if any
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Control socket of the running daemon, where it is not in its usual place
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,

    /// What is told about the Compose project.
    #[command(flatten)]
    pub compose: ComposeArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Options with the names and meanings that they have in `docker compose`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Compose project")]
pub struct ComposeArgs {
    /// Compose file; may be repeated, later ones override
    #[arg(short, long = "file", value_name = "FILE", global = true)]
    pub files: Vec<PathBuf>,

    /// Directory that relative paths start from
    #[arg(long, value_name = "DIR", global = true)]
    pub project_directory: Option<PathBuf>,

    /// Project name
    #[arg(short, long, value_name = "NAME", global = true)]
    pub project_name: Option<String>,

    /// Profile to enable; may be repeated
    #[arg(long = "profile", value_name = "NAME", global = true)]
    pub profiles: Vec<String>,

    /// File to read instead of .env; may be repeated
    #[arg(long = "env-file", value_name = "FILE", global = true)]
    pub env_files: Vec<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon; so does no command at all, but for a person at a terminal, who gets this help
    Daemon,
    /// Check the settings and the Compose project, and say what would run when
    Check(Check),
    /// Print what the Engine would be sent for a service, as one JSON object
    Render(Render),
    /// Print the Compose project as it was understood, as JSON
    Config(Config),
    /// Have the running daemon read its settings and the Compose files again, and say what changed
    Reload,
    /// Exit with 0 while the running daemon is well, with 1 otherwise
    Health,
    /// List the jobs: what has a schedule or has run
    Ls(Json),
    /// List a job's runs, and its slots without one, newest first
    Runs(Runs),
    /// Print all that is known of a job, or of one of its runs, as JSON
    Inspect(OneRun),
    /// Run a job now, show its output, and end with its exit code
    Run(Run),
    /// Print the output of a job's newest run
    Logs(Logs),
    /// Wait for a job's run that goes on, and end with its exit code
    Wait(OneJob),
    /// End a job's run that goes on
    Cancel(OneJob),
    /// Skip a job's slots from now on, over restarts of the daemon too
    Pause(OneJob),
    /// Skip them no more
    Resume(OneJob),
    /// Start a service and what it depends on
    Start(OneService),
    /// Stop a service
    Stop(OneService),
    /// Stop a service and start it
    Restart(OneService),
    /// Say how the daemon and its services are
    Status(Json),
    /// Say what runs next
    Next(Json),
    /// Say what became of a job's slot, and why
    Explain(Explain),
    /// Print the last events
    Events(Events),
    /// Print a script that completes commands and options
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// A job.
#[derive(Debug, Args)]
pub struct OneJob {
    /// The job
    pub job: ServiceName,
}

/// A service.
#[derive(Debug, Args)]
pub struct OneService {
    /// The service of the Compose file
    pub service: ServiceName,
}

/// Options of `runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// The job
    pub job: ServiceName,

    /// How many at most; without it 20, and all with --json
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// The form of the output.
    #[command(flatten)]
    pub output: Json,
}

/// A job, or one run of it.
#[derive(Debug, Args)]
pub struct OneRun {
    /// The job
    pub job: ServiceName,

    /// One run of it, by its number
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The job
    pub job: Option<ServiceName>,

    /// Environment variable, over the Compose file's; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    pub environment: Vec<(String, String)>,

    /// Print the run's number and do not wait for it
    #[arg(short, long)]
    pub detach: bool,
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Which run.
    #[command(flatten)]
    pub of: OneRun,

    /// Go on until the run ends
    #[arg(long)]
    pub follow: bool,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The job
    pub job: ServiceName,

    /// A moment, as in 2026-11-26T06:00:00Z, or how long ago, as in 10m; without it the newest slot or run
    #[arg(value_parser = moment)]
    pub time: Option<Moment>,

    /// The form of the output.
    #[command(flatten)]
    pub output: Json,
}

/// Options of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// And those that follow
    #[arg(long)]
    pub follow: bool,

    /// The form of the output.
    #[command(flatten)]
    pub output: Json,
}

/// A moment as it is said on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// By the clock.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

/// Options of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Check {
    /// Exit with 1 where something that is named does not exist or cannot work, not only where something cannot be read
    #[arg(long)]
    pub strict: bool,
}

/// Options of `render`.
#[derive(Debug, Args)]
pub struct Render {
    /// Service of the Compose file
    pub service: ServiceName,

    /// A one-off container, as `docker compose run` creates it, instead of a service's own
    #[arg(long)]
    pub one_off: bool,

    /// Environment variable of the one-off, over the Compose file's; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = variable, requires = "one_off")]
    pub environment: Vec<(String, String)>,

    /// Engine API version to write for, such as 1.41; without it the Engine's own, and the newest when --offline
    #[arg(long, value_name = "VERSION", value_parser = api_version)]
    pub api_version: Option<ApiVersion>,

    /// Ask no Engine; leaves out the ids of images
    #[arg(long)]
    pub offline: bool,
}

/// Options of `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = ConfigFormat::Json)]
    pub format: ConfigFormat,

    /// Print the config hash of each of these services instead, one a line; `*` for all
    #[arg(long, value_name = "SERVICE", value_delimiter = ',', conflicts_with = "services")]
    pub hash: Vec<String>,

    /// Print the names of the services instead, one a line
    #[arg(long)]
    pub services: bool,
}

/// Form of what `config` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigFormat {
    /// JSON, as `docker compose config --format json` writes it.
    Json,
}

impl Cli {
    /// What to do. Where nothing was said that is the daemon, but for a person at a `terminal`: none, print the help.
    pub fn into_command(self, terminal: bool) -> Option<Command> {
        self.command.or_else(|| (!terminal).then_some(Command::Daemon))
    }

    /// The settings that the options give.
    ///
    /// Paths that are not UTF-8 are taken with replacement characters and fail when they are opened.
    pub fn arguments(&self) -> Vec<Argument> {
        let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let ComposeArgs { files, project_directory, project_name, profiles, env_files } = &self.compose;
        [
            ("--file", "compose.files", texts(files)),
            ("--project-directory", "compose.project_directory", texts(project_directory.as_slice())),
            ("--project-name", "compose.project_name", project_name.iter().cloned().collect()),
            ("--profile", "compose.profiles", profiles.clone()),
            ("--env-file", "compose.env_files", texts(env_files)),
            ("--socket", "control.socket", texts(self.socket.as_slice())),
        ]
        .into_iter()
        .filter(|(_, _, values): &(_, _, Vec<String>)| !values.is_empty())
        .map(|(option, key, values)| Argument { option, key, values })
        .collect()
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Some(at) = Timestamp::from_rfc3339(text) {
        return Ok(Moment::At(at));
    }
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    let ago = humantime::parse_duration(ago).map(Moment::Ago);
    ago.map_err(|_| "write it like 2026-11-26T06:00:00Z, or like 10m for ten minutes ago".into())
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like KEY=VALUE".into()),
    }
}

fn api_version(text: &str) -> Result<ApiVersion, String> {
    let version = text.strip_prefix('v').unwrap_or(text).split_once('.');
    version
        .and_then(|(major, minor)| Some(ApiVersion { major: major.parse().ok()?, minor: minor.parse().ok()? }))
        .ok_or_else(|| "write it like 1.41".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("sense-orchestrator").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_the_daemon_runs() {
        for (line, terminal) in [("", false), ("--config x.yaml", false), ("daemon", true), ("daemon", false)] {
            assert!(matches!(parse(line).unwrap().into_command(terminal), Some(Command::Daemon)), "{line}");
        }
        assert!(parse("").unwrap().into_command(true).is_none(), "a person gets the help");
    }

    #[test]
    fn options_of_the_project_stand_before_and_after_the_subcommand() {
        for line in ["-f a.yaml --profile poll check", "check -f a.yaml --profile poll"] {
            let cli = parse(line).unwrap();
            let arguments = cli.arguments();
            let keys: Vec<_> = arguments.iter().map(|argument| (argument.key, argument.values.join(","))).collect();
            assert_eq!(keys, [("compose.files", "a.yaml".into()), ("compose.profiles", "poll".into())], "{line}");
        }
    }

    #[test]
    fn render_takes_variables_and_a_version() {
        let cli = parse("render web --one-off -e A=b=c -e B= --api-version 1.41 --offline").unwrap();
        let Some(Command::Render(render)) = cli.into_command(false) else { panic!("not render") };
        assert_eq!(render.environment, [("A".into(), "b=c".into()), ("B".into(), String::new())]);
        assert_eq!(render.api_version, Some(ApiVersion { major: 1, minor: 41 }));
        assert!(render.one_off && render.offline);
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "nonsense",
            "render",
            "render a/b",
            "render web -e =x",
            "render web -e HOME",
            "render web --api-version new",
            "--frobnicate",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
