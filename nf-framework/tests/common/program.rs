//! The example `port-block` as a child process that does not outlive its test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

/// The example program, which cargo builds beside the tests.
pub(crate) fn port_block() -> Command {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples/port-block");
    assert!(program.is_file(), "{} is not there: cargo test builds it unless told which tests", program.display());
    let mut command = Command::new(program);
    for variable in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// A child that does not outlive its test.
pub(crate) struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, said: String::new() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads its log up to a line that has this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let before = self.said.len();
            assert!(self.log.read_line(&mut self.said).unwrap() > 0, "no {text:?} in:\n{}", self.said);
            if self.said[before..].contains(text) {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// By a signal: its status, what it printed, and its log.
    pub(crate) fn stop(self, signal: &str) -> (ExitStatus, String, String) {
        self.signal(signal);
        self.end()
    }

    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.log.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap(), out, std::mem::take(&mut self.said))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
