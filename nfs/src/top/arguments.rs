//! The command line.

use crate::door::{Whereabouts, seconds};
use clap::Parser;
use std::time::Duration;

const HELP: &str = "\
Keys: q quits, 1 to 5 or Tab choose what is shown, the arrows scroll, p stops the picture, ? explains the columns.

Examples:
  nf-top                       the only program that runs here
  nf-top --program nat -i 0.5  the one named nat, twice a second
  nf-top --once                one picture as text; so is what goes into a pipe
  nf-top --plain --count 60 > minute.txt

With NO_COLOR in the environment there are no colours. The exit status is 0, 1 where the terminal fails, 2 if the
arguments make no sense, and 3 if no program was reached.";

/// Shows what a running program does right now: ports, workers, the cost of functions, drops, backends
#[derive(Debug, Parser)]
#[command(name = "nf-top", version, after_help = HELP, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) whereabouts: Whereabouts,

    /// Seconds between two pictures
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(super) interval: Duration,

    /// Write text instead of drawing on the terminal
    #[arg(long)]
    plain: bool,

    /// Write one picture as text, and end
    #[arg(long, conflicts_with = "count")]
    once: bool,

    /// Write so many pictures as text, and end
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Arguments {
    pub(super) fn is_plain(&self) -> bool {
        self.plain || self.once || self.count.is_some()
    }

    /// How many pictures are wanted; no end unless given.
    pub(super) fn pictures(&self) -> Option<u64> {
        if self.once { Some(1) } else { self.count }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        <super::Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
