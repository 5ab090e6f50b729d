//! `nf-top`: what a running program does right now.
//!
//! It is a client of the admin door, like [`ctl`](crate::ctl). Everything goes one way: `sample` asks the door, [`picture`]
//! makes rates of two samples, [`sections`] makes tables of that, and either [`screen`] draws them in a terminal, which
//! `live` keeps, or `plain` writes them one after the other. Only `live` and `plain` know a terminal or a clock.

mod arguments;
mod keys;
mod live;
pub mod picture;
mod plain;
mod sample;
pub mod screen;
pub mod sections;

pub use crate::door::Backend;
pub use keys::{Key, Looks, View};
pub use sample::{Answered, Sample};

use crate::door::say_error;
use arguments::Arguments;
use clap::Parser as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

/// The program, with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_plain = arguments.is_plain() || !io::stdout().is_terminal() || !io::stdin().is_terminal();
    let result = if is_plain { plain::run(&arguments) } else { live::run(&arguments) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            say_error(&failure);
            let status = if let Failure::Door(error) = failure { error.exit_status() } else { 1 };
            ExitCode::from(status)
        }
    }
}

/// Why it ends by itself.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// There is no program to look at.
    #[error(transparent)]
    Door(#[from] crate::door::DoorError),
    /// The terminal is not to be had.
    #[error("the terminal: {0}")]
    Output(#[from] io::Error),
}
