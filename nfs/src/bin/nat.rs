//! NAPT44 between its inside and its outside port.
#![forbid(unsafe_code)]

use nf_framework::App;
use nfs::nat::Nat;
use std::process::ExitCode;

fn main() -> ExitCode {
    App::new("nat")
        .about("Translates the addresses and ports of inside hosts to few external ones (NAPT44)")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Nat::new())
        .run_functions()
}
