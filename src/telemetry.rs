//! Logs: one event a line on standard error, so that what `check` and `render` print stays apart.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

use crate::settings::{Color, Log, LogFormat};

/// Our own modules begin with this; whatever does not is a library's.
const OURS: &str = "sense_orchestrator";

/// Starts logging to standard error for the rest of the process.
///
/// # Errors
/// When the process logs already.
pub fn start(settings: &Log) -> Result<(), tracing::dispatcher::SetGlobalDefaultError> {
    tracing::dispatcher::set_global_default(dispatch(settings, std::io::stderr().is_terminal(), std::io::stderr))
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
    let lines = fmt::layer().log_internal_errors(false).with_writer(writer);
    let lines = if text {
        lines.with_ansi(color).boxed()
    } else {
        lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(capped(&settings.level.0))).into()
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
