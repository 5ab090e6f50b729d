//! Runs a chain of functions that its configuration names, from inside to outside.
#![forbid(unsafe_code)]

use nf_framework::App;
use nfs::{firewall::Firewall, load_balancer::LoadBalancer, monitor::Monitor, nat::Nat, rate_limit::RateLimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    App::new("nf-chain")
        .about("Runs a chain of network functions (firewall, load-balancer, monitor, nat, rate-limit) in a wire or a router")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Firewall)
        .function(LoadBalancer::new())
        .function(Monitor)
        .function(Nat::new())
        .function(RateLimit)
        .run_functions()
}
