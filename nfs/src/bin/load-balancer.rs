//! Service addresses with backends behind them, between the two halves of a router.
#![forbid(unsafe_code)]

use nf_framework::App;
use nfs::load_balancer::LoadBalancer;
use std::process::ExitCode;

fn main() -> ExitCode {
    App::new("load-balancer")
        .about("Spreads connections to service addresses over backends (after Maglev)")
        .version(env!("CARGO_PKG_VERSION"))
        .function(LoadBalancer::new())
        .run_functions()
}
