//! What people see of the daemon's answers: tables as wide as the terminal, and times from now.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;

use crate::clock::Timestamp;
use crate::settings::Color;

mod answers;

/// Blanks between two columns.
const GAP: usize = 2;

/// Where something is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// None: as wide as it comes.
    width: Option<usize>,
    colored: bool,
    now: Timestamp,
}

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Good,
    Bad,
    Faint,
}

type Cell = (String, Look);

impl Screen {
    /// Standard output.
    pub(super) fn stdout(color: Color) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal,
        };
        Self { width, colored, now: Timestamp::now() }
    }

    fn paint(self, text: &str, look: Look) -> String {
        let code = match look {
            Look::Plain => return text.to_owned(),
            Look::Good => 32,
            Look::Bad => 31,
            Look::Faint => 2,
        };
        if self.colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A table; what does not fit is cut off at its right.
    fn table(self, head: &[&str], rows: &[Vec<Cell>]) -> String {
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = head
            .iter()
            .enumerate()
            .map(|(at, title)| {
                let cells = rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| length(text));
                cells.max().unwrap_or_default().max(length(title))
            })
            .collect();
        let titles = head.iter().map(|title| ((*title).to_owned(), Look::Faint)).collect();
        let mut lines = Vec::new();
        for row in std::iter::once(&titles).chain(rows) {
            let (mut line, mut used, last) = (String::new(), 0, row.len().saturating_sub(1));
            for (at, ((text, look), width)) in row.iter().zip(&widths).enumerate() {
                let left = self.width.map_or(usize::MAX, |width| width.saturating_sub(used));
                let shown: String = if length(text) > left {
                    text.chars().take(left.saturating_sub(1)).chain(['…']).take(left).collect()
                } else {
                    text.clone()
                };
                let pad = if at == last { 0 } else { (width + GAP).saturating_sub(length(&shown)).min(left) };
                used += length(&shown) + pad;
                line += &self.paint(&shown, *look);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    /// A past or coming moment, from now.
    fn moment(self, at: Timestamp) -> String {
        let ago = self.now.seconds_since(at);
        // A moment that is about to come is not past because of a clock's last digit.
        if ago.abs() < 0.5 {
            "now".to_owned()
        } else if ago > 0.0 {
            format!("{} ago", span(ago))
        } else {
            format!("in {}", span(-ago))
        }
    }
}

/// How long a run took.
pub(super) fn milliseconds(span_ms: u64) -> String {
    let took = Duration::from_millis(span_ms).as_secs_f64();
    if took < 10.0 { format!("{took:.1}s") } else { span(took) }
}

/// A span in its largest two units.
fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default().as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = whole;
    for (size, unit) in units {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Prints a text of ours, made safe already.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: Option<usize>, colored: bool) -> Screen {
        Screen { width, colored, now: Timestamp(1_000_000.0) }
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        let spans = [0.2, 59.0, 61.0, 3_600.0, 90_061.0, 86_400.0 * 30.0 + 59.0].map(span);
        assert_eq!(spans, ["0s", "59s", "1m 1s", "1h", "1d 1h", "30d"]);
    }

    #[test]
    fn moments_are_told_from_now() {
        let screen = screen(None, false);
        let moments = [-90.0, -0.2, 0.0, 30.0].map(|offset| screen.moment(Timestamp(1_000_000.0 + offset)));
        assert_eq!(moments, ["1m 30s ago", "now", "now", "in 30s"]);
    }

    #[test]
    fn a_table_is_no_wider_than_the_terminal_and_coloured_only_where_it_may_be() {
        let rows = vec![vec![("a".to_owned(), Look::Good), ("a long explanation".to_owned(), Look::Plain)]];
        assert_eq!(screen(None, false).table(&["NAME", "WHY"], &rows), "NAME  WHY\na     a long explanation");
        assert_eq!(screen(Some(12), false).table(&["NAME", "WHY"], &rows), "NAME  WHY\na     a lon…");
        assert_eq!(screen(Some(3), false).table(&["NAME", "WHY"], &rows), "NA…\na");
        assert!(screen(None, true).table(&["NAME", "WHY"], &rows).contains("\u{1b}[32ma\u{1b}[0m"));
    }
}
