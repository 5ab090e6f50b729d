//! Network namespaces for the suites that measure the kernel, and the program in C that sends and
//! receives in them.

use anyhow::{Context as _, ensure};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What names begin with, of namespaces and of files: scripts/bench takes away what is left of
/// these when it is stopped.
fn prefix() -> String {
    std::env::var("BENCH_NAMESPACE").unwrap_or_else(|_| format!("bench-{}", std::process::id()))
}

/// A network namespace. It goes when dropped, and its interfaces with it.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let name = format!("{}-{name}", prefix());
        run(Command::new("ip").args(["netns", "add", &name])).context("a network namespace takes root")?;
        let namespace = Self(name);
        // Nothing sends on its own account.
        namespace.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
        Ok(namespace)
    }

    /// Two interfaces at the ends of a cable, both up.
    pub(crate) fn cable(&self, one: &str, other: &str) -> anyhow::Result<()> {
        self.ip(&format!("link add {one} type veth peer name {other}"))?;
        self.ip(&format!("link set {one} up"))?;
        self.ip(&format!("link set {other} up"))
    }

    /// `ip` in it, with these words.
    pub(crate) fn ip(&self, words: &str) -> anyhow::Result<()> {
        run(Command::new("ip").args(["-n", &self.0]).args(words.split(' ')))
    }

    /// A program in it, with these words.
    pub(crate) fn exec(&self, words: &str) -> anyhow::Result<()> {
        run(Command::new("ip").args(["netns", "exec", &self.0]).args(words.split(' ')))
    }

    /// Gives `text` to a program in it.
    pub(crate) fn feed(&self, words: &str, text: &str) -> anyhow::Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(words.split(' '));
        feed(&mut command, text.as_bytes())
    }

    /// A program in it, on this CPU.
    pub(crate) fn command(&self, cpu: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, "taskset", "-c", &cpu.to_string(), program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.0]));
    }
}

/// What kernel.c becomes, as there are no safe bindings of packet sockets. It goes when dropped.
pub(crate) struct Program(String);

impl Program {
    pub(crate) fn compile() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("{}-kernel", prefix()));
        let program = Self(path.to_str().context("a path in UTF-8")?.to_owned());
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-x", "c", "-", "-o", &program.0]);
        feed(&mut compiler, include_bytes!("kernel.c")).context("cc (package build-essential)")?;
        Ok(program)
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a program to its end; what it says to its standard error is the error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{what} does not start"))?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn feed(command: &mut Command, text: &[u8]) -> anyhow::Result<()> {
    let what = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("{what} does not start"))?;
    child.stdin.take().context("stdin")?.write_all(text)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
