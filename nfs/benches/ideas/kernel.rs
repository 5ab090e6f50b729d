//! The ways through the kernel: packet sockets, its shared rings, and XDP, all fed by one
//! source over a pair of veth interfaces.

use crate::Way;
use crate::measure::Sample;
use anyhow::{Context as _, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A namespace with two cables in it, and a source that keeps the first one busy. All of it
/// goes when dropped.
pub(crate) struct Wires {
    namespace: String,
    program: String,
    source: Child,
}

/// What the function reads from, and what it writes to; nobody listens at the other end.
const IN: &str = "in0";
const OUT: &str = "out0";

impl Wires {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let program = std::env::var("BENCH_KERNEL").context("scripts/bench builds the program that this needs")?;
        let namespace = format!("bench-ideas-{}", std::process::id());
        ip(&["netns", "add", &namespace]).context("a network namespace takes root")?;
        // Made whole at once, so that it is taken down whatever comes.
        let idle = Command::new("true").spawn()?;
        let mut wires = Self { namespace, program, source: idle };
        let _ = wires.source.wait();
        for (one, other) in [(IN, "in1"), (OUT, "out1")] {
            ip(&["-n", &wires.namespace, "link", "add", one, "type", "veth", "peer", "name", other])?;
            for interface in [one, other] {
                ip(&["-n", &wires.namespace, "link", "set", interface, "up"])?;
            }
        }
        wires.source = wires.command(0, &wires.program).args(["source", "in1"]).spawn()?;
        Ok(wires)
    }

    /// A program in the namespace, on a CPU of its own.
    fn command(&self, cpu: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "taskset", "-c", &cpu.to_string(), program]);
        command
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let _ = self.source.kill();
        let _ = self.source.wait();
        let _ = ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip (package iproute2)")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// All of them.
pub(crate) fn ways(wires: &Wires) -> anyhow::Result<Vec<Way<'_>>> {
    let socket =
        |mode: &'static str| move |slice| measure(wires.command(1, &wires.program).args([mode, IN, OUT]), slice);
    let this = std::env::current_exe()?;
    let this = this.to_str().context("a path in UTF-8")?.to_owned();
    let dpdk = |device: &'static str| {
        let this = this.clone();
        move |slice| measure(wires.command(1, &this).args(["--device", device]), slice)
    };
    Ok(vec![
        Way::new("no kernel (DPDK on a ring of its own)", dpdk("ring")),
        Way::new("a system call for each packet (packet socket)", socket("one")),
        Way::new("a system call for 32 (recvmmsg, sendmmsg)", socket("batch")),
        Way::new("the kernel's shared ring (DPDK on af_packet)", dpdk("af_packet")),
        Way::new("a ring below the kernel's stack (DPDK on af_xdp)", dpdk("af_xdp")),
    ])
}

/// Starts a program, has it work for a while, and reads what it did.
fn measure(command: &mut Command, slice: Duration) -> anyhow::Result<Sample> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let result = input.zip(output).context("no pipes").and_then(|(input, output)| converse(input, output, slice));
    // Its standard input is closed: it ends.
    let status = child.wait()?;
    ensure!(status.success(), "it ended with {status}");
    result
}

fn converse(mut input: ChildStdin, output: ChildStdout, slice: Duration) -> anyhow::Result<Sample> {
    let mut output = BufReader::new(output);
    let mut ask = |time: Duration| -> anyhow::Result<Sample> {
        writeln!(input, "{}", time.as_millis())?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [packets, cpu, wall] = numbers[..] else { anyhow::bail!("it says {line:?}") };
        Ok(Sample { packets, cpu: Duration::from_nanos(cpu), wall: Duration::from_nanos(wall) })
    };
    ask(Duration::from_millis(50))?;
    ask(slice)
}
