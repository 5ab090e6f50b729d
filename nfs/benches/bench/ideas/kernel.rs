//! The ways through the kernel: packet sockets, its shared rings, and XDP, all fed by one
//! source over a pair of veth interfaces.

use crate::machine::allowed_cpus;
use crate::measure::Variant;
use crate::namespace::{Namespace, Program};
use crate::results::Sample;
use anyhow::{Context as _, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Two cables in a namespace, and a source that keeps the first one busy. All of it goes when
/// dropped.
pub(crate) struct Wires {
    source: Child,
    program: Program,
    namespace: Namespace,
}

/// What the function reads from, and what it writes to; nobody listens at the other end.
const IN: &str = "in0";
const OUT: &str = "out0";

impl Wires {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (program, namespace) = (Program::compile()?, Namespace::new("ideas")?);
        namespace.cable(IN, "in1")?;
        namespace.cable(OUT, "out1")?;
        let (source, _) = cpus();
        let source = namespace.command(source, program.path()).args(["source", "in1"]).spawn()?;
        Ok(Self { source, program, namespace })
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let _ = self.source.kill();
        let _ = self.source.wait();
    }
}

/// The source's CPU, and the function's.
pub(crate) fn cpus() -> (usize, usize) {
    let cpus = allowed_cpus();
    (cpus.first().copied().unwrap_or(0), cpus.last().copied().unwrap_or(0))
}

/// All of them, and the way without a kernel first.
pub(crate) fn variants(wires: &Wires) -> anyhow::Result<Vec<Variant<'_>>> {
    let (_, cpu) = cpus();
    let this = std::env::current_exe()?.to_str().context("a path in UTF-8")?.to_owned();
    let dpdk = |device: &'static str| {
        let this = this.clone();
        move |slice| measure(wires.namespace.command(cpu, &this).args(["--serve-device", device]), slice)
    };
    let socket = |mode: &'static str| {
        move |slice| measure(wires.namespace.command(cpu, wires.program.path()).args([mode, IN, OUT]), slice)
    };
    let ways = |name: &str| format!("from the wire: {name}");
    let none = ways("no kernel (DPDK, a ring as NIC)");
    Ok(vec![
        Variant::new(none.clone(), dpdk("ring")),
        Variant::new(ways("a ring below the stack (DPDK on af_xdp)"), dpdk("af_xdp")).ratio(&none),
        Variant::new(ways("the kernel's shared ring (DPDK on af_packet)"), dpdk("af_packet")).ratio(&none),
        Variant::new(ways("a system call for 32 packets (recvmmsg)"), socket("batch")).ratio(&none),
        Variant::new(ways("a system call for each packet (recv)"), socket("one")).ratio(&none),
    ])
}

/// What comes in over a wire comes in lumps.
const SHORTEST: Duration = Duration::from_millis(100);

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
        let [cpu, wall] = [cpu, wall].map(Duration::from_nanos);
        Ok(Sample::new(packets, cpu, wall))
    };
    // The program has only just come up, and its interfaces with it.
    ask(Duration::from_millis(50))?;
    ask(slice.max(SHORTEST))
}
