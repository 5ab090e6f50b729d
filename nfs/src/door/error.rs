//! What can be wrong on the way to a program and back.

use std::path::PathBuf;
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// There is no socket where programs have theirs.
    #[error(
        "no program with an admin door runs here: {}\n\
         Every program of this project opens one when it starts, unless its configuration says [admin] enabled = false. \
         If [admin] puts it elsewhere, name it: --socket PATH, or --address HOST:PORT for TCP", what_is_there(.directories, .dead)
    )]
    NoProgram {
        /// Where one would be.
        directories: Vec<PathBuf>,
        /// Sockets that are there and that nobody answers at.
        dead: Vec<PathBuf>,
    },
    /// Several have one.
    #[error("several programs run here: {}\nSay which: --program NAME", .0.join(", "))]
    Several(Vec<String>),
    /// None of this name.
    #[error("no program {name:?} runs here; there {}", those(.there))]
    NoSuchProgram {
        /// The name.
        name: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// The system does not let us in.
    #[error(
        "{place}: permission denied; who started the program may, and its group (try it as that user, or with sudo)"
    )]
    Denied {
        /// Where.
        place: String,
    },
    /// Nobody is there.
    #[error("{place}: nobody answers ({source}); has the program ended?")]
    Closed {
        /// Where.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It went away between question and answer.
    #[error("{place}: the program went away before it had answered ({why})")]
    Gone {
        /// Where.
        place: String,
        /// What was missing.
        why: String,
    },
    /// It takes too long.
    #[error("{place}: no answer within {} s (--timeout SECONDS waits longer)", .after.as_secs_f64())]
    Late {
        /// Where.
        place: String,
        /// How long was waited.
        after: Duration,
    },
    /// More than anybody wants.
    #[error("{place}: the answer is longer than {most} bytes, which no door's is")]
    TooLong {
        /// Where.
        place: String,
        /// The limit.
        most: usize,
    },
    /// Something else is there.
    #[error("{place}: what answers there is not an admin door: {why}")]
    NotADoor {
        /// Where.
        place: String,
        /// What was wrong with its answer.
        why: String,
    },
    /// The program says no, and why.
    #[error("{sentence}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// What it says.
        sentence: String,
    },
    /// We cannot even try.
    #[error("no runtime for input and output: {0}")]
    Runtime(std::io::Error),
}

impl DoorError {
    /// The exit status of a program that this ends: 1 for what was refused, 2 for what was not said well enough, 3
    /// where nothing was reached.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Several(_) => 2,
            _ => 3,
        }
    }
}

fn what_is_there(directories: &[PathBuf], dead: &[PathBuf]) -> String {
    match dead {
        [] => format!("there is no socket in {}", list(directories)),
        dead => format!("none answers at {}, which a program that was killed left behind", list(dead)),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

fn those(there: &[String]) -> String {
    match there {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        several => format!("are {}", several.join(", ")),
    }
}
