//! A process of ours that does some work for a slice when it is told to, as often as it is told.

use crate::results::Sample;
use anyhow::Context as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Such a process, as seen by who tells it.
pub(crate) struct Served {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Served {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("a second process of ours")?;
        let commands = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, commands, answers })
    }

    pub(crate) fn run(&mut self, work: &str, slice: Duration) -> anyhow::Result<Sample> {
        writeln!(self.commands, "{work} {}", slice.as_micros())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("a second process of ours said {line:?}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = writeln!(self.commands, "end 0");
        let _ = self.child.wait();
    }
}

/// The other end: does what its input says, until that ends.
pub(crate) fn serve(mut run: impl FnMut(&str, Duration) -> anyhow::Result<Sample>) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (work, slice) = line.split_once(' ').context("a line that says no time")?;
        if work == "end" {
            break;
        }
        let sample = run(work, Duration::from_micros(slice.parse()?))?;
        println!("{}", serde_json::to_string(&sample)?);
    }
    Ok(())
}
