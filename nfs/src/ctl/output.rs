//! Where the answers go.

use super::Failure;
use crate::door::{Client, printable};
use nf_framework::Table;
use serde::de::IgnoredAny;
use std::io::{self, BufWriter, IsTerminal as _, Write};

/// Standard output, or what stands for it.
pub(super) struct Output {
    to: Box<dyn Write>,
    /// Whether the program's JSON is wanted.
    pub(super) json: bool,
    /// Whether heads are set off.
    colours: bool,
    /// Whether anything was shown.
    begun: bool,
}

impl Output {
    pub(super) fn of_stdout(json: bool) -> Self {
        let stdout = io::stdout();
        let is_plain =
            std::env::var_os("NO_COLOR").is_some() || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let colours = stdout.is_terminal() && !is_plain;
        Self { to: Box::new(BufWriter::new(stdout.lock())), json, colours, begun: false }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.begun = true;
        self.to.write_all(bytes)
    }

    /// A line for people.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.begun = true;
        writeln!(self.to, "{}", printable(line))
    }

    /// The program's JSON as it came, if that is what it is.
    pub(super) fn document(&mut self, client: &Client, text: &str) -> Result<(), Failure> {
        client.parse::<IgnoredAny>(text)?;
        self.bytes(text.trim_end().as_bytes())?;
        Ok(self.bytes(b"\n")?)
    }

    /// An empty line between two things, and none before the first.
    pub(super) fn gap(&mut self) -> io::Result<()> {
        if self.begun { writeln!(self.to) } else { Ok(()) }
    }

    /// The rows of a table that have not been shown yet.
    pub(super) fn rows(&mut self, table: &mut Table, is_first: bool) -> io::Result<()> {
        for (index, line) in table.take_lines().into_iter().enumerate() {
            let is_head = is_first && index == 0;
            let (begin, end) = if is_head && self.colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            self.bytes(format!("{begin}{}{end}\n", printable(&line)).as_bytes())?;
        }
        Ok(())
    }

    /// A whole table, unless it is empty.
    pub(super) fn table(&mut self, mut table: Table) -> io::Result<()> {
        if table.is_empty() {
            return Ok(());
        }
        self.gap()?;
        self.rows(&mut table, true)
    }
}
