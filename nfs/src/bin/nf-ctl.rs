//! Looks at a running program, and tells it what to do, through its admin door.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nfs::ctl::main()
}
