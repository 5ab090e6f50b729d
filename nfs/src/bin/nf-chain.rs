//! Runs a chain of functions that its configuration names, from inside to outside.
#![forbid(unsafe_code)]

use nf_framework::App;
use nfs::{monitor::Monitor, nat::Nat, rate_limit::RateLimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    App::new("nf-chain")
        .about("Runs a chain of network functions (monitor, nat, rate-limit) in a wire or a router")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Monitor)
        .function(Nat::new())
        .function(RateLimit)
        .run_functions()
}
