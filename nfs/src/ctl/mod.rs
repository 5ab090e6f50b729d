//! `nf-ctl`: what a running program knows, as tables or as the JSON that its door gives, and what it can be told.
//!
//! It is a client of the admin door and nothing else: no DPDK, no configuration, no state of its own. `arguments` says
//! what can be asked, `tables` what the answers look like, `values` what those look like that only a function knows.

mod arguments;
mod backends;
mod completions;
mod orders;
mod output;
mod questions;
mod tables;
mod topics;
mod traces;
mod values;

use crate::door::{Client, DoorError, say_error};
use arguments::{Arguments, Command};
use clap::Parser as _;
use output::Output;
use std::io;
use std::process::ExitCode;

/// Why it ends without what was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The program was not reached, or says no.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The words make no sense for this program.
    #[error("{0}")]
    Words(String),
    /// The program has no such thing.
    #[error("{0}")]
    Nothing(String),
    /// Nothing can be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// The program, with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::of_stdout(arguments.json);
    let result = match arguments.command {
        Command::Completions { shell } => output.bytes(completions::script(shell).as_bytes()).map_err(Failure::from),
        ref command => answer(command, &arguments, &mut output),
    };
    let result = result.and_then(|()| Ok(output.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as head does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = output.flush();
            say_error(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Door(error) => error.exit_status(),
            Self::Words(_) => 2,
            Self::Nothing(_) | Self::Output(_) => 1,
        }
    }
}

fn answer(command: &Command, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let place = arguments.whereabouts.find()?;
    let client = Client::new(place, arguments.whereabouts.timeout())?;
    match command {
        Command::Question(question) => questions::ask(question, client, arguments.limit, output),
        Command::Order(order) => orders::give(order, client, output),
        Command::Completions { .. } => Ok(()),
    }
}
