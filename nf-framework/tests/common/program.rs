//! The examples as child processes that do not outlive their test.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

/// An example program, which cargo builds beside the tests.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(name);
    assert!(program.is_file(), "{} is not there: cargo test builds it unless told which tests", program.display());
    let mut command = Command::new(program);
    for variable in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_LOG", "JOURNAL_STREAM", "NOTIFY_SOCKET"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn port_block() -> Command {
    example("port-block")
}

/// A child that does not outlive its test.
pub(crate) struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
    printed: String,
    logged: String,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, out, log, printed: String::new(), logged: String::new() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was read of its log.
    pub(crate) fn logged(&self) -> &str {
        &self.logged
    }

    /// Reads its log up to a line that has this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        assert!(read_up_to(&mut self.log, &mut self.logged, text), "no {text:?} in:\n{}", self.logged);
    }

    /// Reads what it prints up to a line that has this text.
    pub(crate) fn wait_for_output(&mut self, text: &str) {
        if !read_up_to(&mut self.out, &mut self.printed, text) {
            self.log.read_to_string(&mut self.logged).unwrap();
            panic!("no {text:?} in:\n{}{}", self.printed, self.logged);
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
        let Self { out, log, printed, logged, .. } = &mut self;
        // It may have more to write to either than a pipe holds.
        std::thread::scope(|scope| {
            scope.spawn(|| out.read_to_string(printed).unwrap());
            log.read_to_string(logged).unwrap();
        });
        (self.child.wait().unwrap(), std::mem::take(&mut self.printed), std::mem::take(&mut self.logged))
    }
}

/// Adds lines to what was read; whether one of them has this text.
fn read_up_to(from: &mut impl BufRead, read: &mut String, text: &str) -> bool {
    loop {
        let before = read.len();
        match from.read_line(read).unwrap() {
            0 => return false,
            _ if read[before..].contains(text) => return true,
            _ => {}
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
