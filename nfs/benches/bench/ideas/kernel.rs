//! The ways through the kernel: packet sockets, its shared rings, and XDP, all fed by one
//! source over a pair of veth interfaces.

use crate::machine::allowed_cpus;
use crate::measure::Variant;
use crate::results::Sample;
use anyhow::{Context as _, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A namespace with two cables in it, and a source that keeps the first one busy. All of it
/// goes when dropped.
pub(crate) struct Wires {
    namespace: String,
    /// Where the program of kernel.c is.
    program: String,
    source: Option<Child>,
}

/// What the function reads from, and what it writes to; nobody listens at the other end.
const IN: &str = "in0";
const OUT: &str = "out0";

impl Wires {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let number = std::process::id();
        let program = std::env::temp_dir().join(format!("bench-ideas-{number}"));
        let program = program.to_str().context("a path in UTF-8")?.to_owned();
        let namespace = format!("bench-ideas-{number}");
        // Whole from here on, so that it is taken down whatever comes.
        let mut wires = Self { namespace, program, source: None };
        compile(&wires.program)?;
        ip(&["netns", "add", &wires.namespace]).context("a network namespace takes root")?;
        for (one, other) in [(IN, "in1"), (OUT, "out1")] {
            ip(&["-n", &wires.namespace, "link", "add", one, "type", "veth", "peer", "name", other])?;
            for interface in [one, other] {
                ip(&["-n", &wires.namespace, "link", "set", interface, "up"])?;
            }
        }
        let (source, _) = cpus();
        wires.source = Some(wires.command(source, &wires.program).args(["source", "in1"]).spawn()?);
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
        if let Some(source) = &mut self.source {
            let _ = source.kill();
            let _ = source.wait();
        }
        let _ = ip(&["netns", "del", &self.namespace]);
        let _ = std::fs::remove_file(&self.program);
    }
}

/// The ways through the kernel are written in C, as there are no safe bindings of packet sockets.
fn compile(program: &str) -> anyhow::Result<()> {
    let mut compiler = Command::new("cc")
        .args(["-O2", "-x", "c", "-", "-o", program])
        .stdin(Stdio::piped())
        .spawn()
        .context("cc (package build-essential)")?;
    compiler.stdin.take().context("stdin")?.write_all(include_bytes!("kernel.c"))?;
    ensure!(compiler.wait()?.success(), "kernel.c does not compile");
    Ok(())
}

/// The source's CPU, and the function's.
fn cpus() -> (usize, usize) {
    let cpus = allowed_cpus();
    (cpus.first().copied().unwrap_or(0), cpus.last().copied().unwrap_or(0))
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip (package iproute2)")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// All of them, and the way without a kernel first.
pub(crate) fn variants(wires: &Wires) -> anyhow::Result<Vec<Variant<'_>>> {
    let (_, cpu) = cpus();
    let this = std::env::current_exe()?.to_str().context("a path in UTF-8")?.to_owned();
    let dpdk = |device: &'static str| {
        let this = this.clone();
        move |slice| measure(wires.command(cpu, &this).args(["--serve-device", device]), slice)
    };
    let socket =
        |mode: &'static str| move |slice| measure(wires.command(cpu, &wires.program).args([mode, IN, OUT]), slice);
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
        Ok(Sample { packets, cpu_ns: cpu, wall_ns: wall })
    };
    // The program has only just come up, and its interfaces with it.
    ask(Duration::from_millis(50))?;
    ask(slice.max(SHORTEST))
}
