//! Replays the captures under a directory through a router with a firewall in it, and looks that nothing
//! panics, leaks or goes missing. `scripts/replay-corpus --firewall` is the way to run it.

#[path = "../../../nf-framework/examples/replay-corpus/command.rs"]
mod command;
mod guarded;
#[path = "../replay-corpus-nat/readdress.rs"]
mod readdress;
#[path = "../../../nf-framework/examples/replay-corpus/replay.rs"]
mod replay;

fn main() -> std::process::ExitCode {
    command::run(|| Box::new(guarded::Guarded::new()))
}
