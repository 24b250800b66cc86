//! Passes a run's output on: as it is, but made safe where a terminal would obey it.

use std::io::{IsTerminal, Write};

use anyhow::Context;

use super::note;
use crate::control::Answer;
use crate::request::OutputStream;
use crate::text::OutputPieces;

/// The way of a run's two streams to ours.
#[derive(Default)]
pub(super) struct Passage {
    stdout: OutputPieces,
    stderr: OutputPieces,
}

impl Passage {
    /// Passes a piece of output on, and says what a person should know besides.
    pub(super) fn pass_on(&mut self, line: Answer) -> anyhow::Result<()> {
        let Answer::Output(output) = line else {
            note(&line);
            return Ok(());
        };
        let (stream, bytes) = (output.stream, output.bytes().context("the daemon's answer is not readable")?);
        let written = match stream {
            OutputStream::Stdout => written(&mut std::io::stdout().lock(), &mut self.stdout, &bytes),
            OutputStream::Stderr => written(&mut std::io::stderr().lock(), &mut self.stderr, &bytes),
        };
        written.context("cannot write the output")
    }

    /// Passes on what never was finished.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
        let stdout = stdout.write_all(self.stdout.end().as_bytes()).and_then(|()| stdout.flush());
        stdout.and_then(|()| stderr.write_all(self.stderr.end().as_bytes())).context("cannot write the output")
    }
}

fn written(stream: &mut (impl Write + IsTerminal), pieces: &mut OutputPieces, bytes: &[u8]) -> std::io::Result<()> {
    if stream.is_terminal() {
        stream.write_all(pieces.add(bytes).as_bytes())?;
    } else {
        stream.write_all(bytes)?;
    }
    stream.flush()
}
