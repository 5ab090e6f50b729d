//! Replays the captures under a directory through a router with functions in it, and looks that
//! nothing panics, leaks or goes missing. `scripts/replay-corpus` is the way to run it.

mod command;
mod functions;
mod replay;

fn main() -> std::process::ExitCode {
    command::run(|| Box::new(functions::chain))
}
