//! Logs: one event a line on standard error, so that what `check` and `render` print stays apart.
//!
//! Lines leave over a bounded queue and a thread of its own: who reads them may stall, the daemon must not.

use std::fmt::Debug;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tracing::error;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

use crate::settings::{Color, Log, LogFormat};
use crate::text;

mod queue;

pub use queue::LogQueue;

/// How long the end of the process waits for the reader of its last lines.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Our own modules begin with this; whatever does not is a library's.
const OURS: &str = "sense_orchestrator";

/// Why nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The process logs already.
    #[error("logs already")]
    Twice(#[from] tracing::dispatcher::SetGlobalDefaultError),
    /// There is no thread to be had.
    #[error("cannot start the thread that writes the log")]
    Thread(#[from] io::Error),
}

/// Starts logging to standard error for the rest of the process.
///
/// A panic is logged too, and its line waited for: the process may end with it.
///
/// # Errors
/// When the process logs already, or has no thread left.
pub fn start(settings: &Log) -> Result<LogQueue, TelemetryError> {
    let queue = LogQueue::default();
    tracing::dispatcher::set_global_default(dispatch(settings, io::stderr().is_terminal(), queue.clone()))?;
    let thread = queue.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || thread.write_to(io::stderr()))?;
    let panicking = queue.clone();
    std::panic::set_hook(Box::new(move |panic| {
        error!(%panic, "panicked");
        panicking.flush(FLUSH_LIMIT);
    }));
    Ok(queue)
}

/// What writes the events to `writer`, which is a `terminal` or not.
///
/// A writer that fails loses the line, and nothing else happens: there is nowhere to say so.
pub fn dispatch<W>(settings: &Log, terminal: bool, writer: W) -> tracing::Dispatch
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let text = match settings.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let color = match settings.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal,
    };
    let lines = fmt::layer().log_internal_errors(false);
    let lines = if text {
        lines.with_ansi(color).fmt_fields(debug_fn(text_field).delimited(" ")).with_writer(writer).boxed()
    } else {
        let lines = lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_span_list(false);
        lines.with_writer(SafeJson(writer)).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(capped(&settings.level.0))).into()
}

/// One field of the text form: any value may have come from outside.
fn text_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    let value = text::one_line(&value);
    match field.name() {
        "message" => write!(writer, "{value}"),
        name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Writes each line with everything escaped that a terminal obeys: JSON's own writer lets most of it through.
struct SafeJson<W>(W);

impl<W: Write> Write for SafeJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(text::json(text).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<'writer, W: MakeWriter<'writer>> MakeWriter<'writer> for SafeJson<W> {
    type Writer = SafeJson<W::Writer>;

    fn make_writer(&'writer self) -> Self::Writer {
        SafeJson(self.0.make_writer())
    }
}

/// The filter with the libraries at info at most: at debug they show containers' environments.
fn capped(filter: &Targets) -> Targets {
    let all = filter.default_level().unwrap_or(LevelFilter::OFF);
    let ours = |target: &str| target == OURS || target.strip_prefix(OURS).is_some_and(|rest| rest.starts_with("::"));
    filter
        .iter()
        .map(|(target, level)| (target.to_owned(), if ours(target) { level } else { level.min(LevelFilter::INFO) }))
        .fold(Targets::new().with_target(OURS, all), |capped, (target, level)| capped.with_target(target, level))
        .with_default(all.min(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(level: &str, format: LogFormat, color: Color) -> Log {
        Log { level: level.to_owned().try_into().unwrap(), format, color }
    }

    /// What is written to a subscriber of the test's own.
    ///
    /// Another one for the whole process is there first. Alone, the test's would be asked of an event's interest only
    /// where the thread that comes to it first is the test's.
    fn with_log(dispatch: &tracing::Dispatch, events: impl FnOnce()) {
        static FIRST: std::sync::Once = std::sync::Once::new();
        FIRST.call_once(|| {
            let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        });
        tracing::dispatcher::with_default(dispatch, events);
    }

    fn logged(settings: &Log, terminal: bool, events: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        with_log(&dispatch(settings, terminal, move || writer.clone()), events);
        written.text()
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let text = logged(&log("info", LogFormat::Json, Color::Auto), true, || {
            let run = tracing::info_span!("run", secret = "not shown");
            let _entered = run.enter();
            tracing::info!(service = "web", exit_code = 0, "run succeeded");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["exit_code", "level", "message", "service", "target", "timestamp"]);
        assert_eq!(line["message"], "run succeeded");
        let stamp = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(stamp).is_ok() && stamp.ends_with('Z') && stamp.contains('.'), "{stamp}");
    }

    #[test]
    fn a_message_with_a_line_break_stays_one_line_of_json() {
        let text = logged(&log("info", LogFormat::Json, Color::Auto), false, || {
            tracing::warn!(tail = "a\nb\"c", "run failed");
        });
        assert_eq!(text.lines().count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["tail"], "a\nb\"c");
    }

    #[test]
    fn auto_is_text_on_a_terminal_and_json_elsewhere() {
        let settings = log("info", LogFormat::Auto, Color::Auto);
        let event = || tracing::info!("started");
        assert!(logged(&settings, true, event).contains("\u{1b}["), "colours on a terminal");
        assert!(logged(&settings, false, event).starts_with('{'));
        let plain = logged(&log("info", LogFormat::Text, Color::Never), true, event);
        assert!(plain.contains("INFO") && !plain.contains('\u{1b}'), "{plain}");
    }

    #[test]
    fn libraries_are_never_below_info() {
        for level in ["trace", "debug,hyper=trace", "hyper=debug,trace"] {
            let filter = capped(&log(level, LogFormat::Json, Color::Auto).level.0);
            assert!(!filter.would_enable("hyper::client", &Level::DEBUG), "{level}");
            assert!(filter.would_enable("hyper::client", &Level::INFO), "{level}");
            assert!(filter.would_enable("sense_orchestrator::runner", &Level::DEBUG), "{level}");
        }
    }

    #[test]
    fn a_module_has_its_own_level() {
        let filter = capped(&log("warn,sense_orchestrator::runner=debug", LogFormat::Json, Color::Auto).level.0);
        assert!(filter.would_enable("sense_orchestrator::runner", &Level::DEBUG));
        assert!(!filter.would_enable("sense_orchestrator::scheduler", &Level::INFO));
        assert!(!filter.would_enable("hyper", &Level::INFO));
    }

    #[test]
    fn what_came_from_outside_neither_breaks_the_line_nor_reaches_the_terminal() {
        let hostile = "a\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}5m\u{202e}";
        let events = || tracing::warn!(shown = %hostile, debug = ?hostile, text = hostile, "said {hostile}");
        for (format, color) in
            [(LogFormat::Text, Color::Never), (LogFormat::Text, Color::Always), (LogFormat::Json, Color::Never)]
        {
            let text = logged(&log("info", format, color), true, events);
            assert_eq!(text.lines().count(), 1, "{format:?}: {text}");
            for raw in ["\u{1b}[2J", "\u{9b}", "\u{202e}"] {
                assert!(!text.contains(raw), "{format:?} {raw:?}: {text:?}");
            }
            if format == LogFormat::Json {
                assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["shown"], hostile);
            } else {
                assert!(text.contains("forged\\u{1b}[2J\\u{9b}5m\\u{202e}"), "{text}");
            }
        }
    }

    #[test]
    fn a_closed_stream_does_not_end_the_program() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        let settings = log("info", LogFormat::Json, Color::Auto);
        with_log(&dispatch(&settings, false, || Closed), || tracing::info!("lost"));
    }
}
