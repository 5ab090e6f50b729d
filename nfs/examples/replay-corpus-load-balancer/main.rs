//! Replays the captures under a directory through a router with a load balancer in it, and looks that nothing
//! panics, leaks or goes missing. `scripts/replay-corpus --load-balancer` is the way to run it.

mod balanced;
#[path = "../../../nf-framework/examples/replay-corpus/command.rs"]
mod command;
#[path = "../replay-corpus-nat/readdress.rs"]
mod readdress;
#[path = "../../../nf-framework/examples/replay-corpus/replay.rs"]
mod replay;

fn main() -> std::process::ExitCode {
    command::run(|| Box::new(balanced::Balanced::new()))
}
