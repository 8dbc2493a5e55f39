//! How results are printed: the one way for every command, so that `-o json` means the same everywhere.
//!
//! Results go to standard output through a [`Printer`]; progress, warnings and errors go to standard error as text, whatever `-o` says.

use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON document a line
    Json,
}

/// Whoever read the results has gone, as `head` does when it has enough: a reason to end, not an error.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct ReaderGone;

/// Prints results.
pub struct Printer {
    output: Output,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// A printer, which holds standard output until it is dropped. Call [`Printer::finish`] at the end.
    pub fn printer(self) -> Printer {
        Printer { output: self, out: BufWriter::with_capacity(64 << 10, std::io::stdout().lock()) }
    }

    /// Prints the only result of a command.
    pub fn print(self, result: &(impl Display + Serialize)) -> anyhow::Result<()> {
        let mut printer = self.printer();
        printer.print(result)?;
        printer.finish()
    }
}

impl Printer {
    /// Prints one result: its text, or its JSON on one line.
    pub fn print(&mut self, result: &(impl Display + Serialize)) -> anyhow::Result<()> {
        let written = match self.output {
            Output::Text => writeln!(self.out, "{result}"),
            Output::Json => serde_json::to_writer(&mut self.out, result).map_err(Into::into).and_then(|()| writeln!(self.out)),
        };
        checked(written)
    }

    /// Hands on what was printed.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        checked(self.out.flush())
    }

    /// Hands on what was printed; the last call.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.flush()
    }
}

fn checked(written: std::io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        other => Ok(other?),
    }
}
