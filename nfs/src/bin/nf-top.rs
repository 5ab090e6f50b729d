//! A live view of a running program, in a terminal, through its admin door.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nfs::top::main()
}
