//! Replays the captures under a directory through a router with a NAT in it, and looks that nothing
//! panics, leaks or goes missing. `scripts/replay-corpus --nat` is the way to run it.

#[path = "../../../nf-framework/examples/replay-corpus/command.rs"]
mod command;
mod natted;
mod readdress;
#[path = "../../../nf-framework/examples/replay-corpus/replay.rs"]
mod replay;

fn main() -> std::process::ExitCode {
    command::run(|| Box::new(natted::Natted::new()))
}
