//! DPDK's own forwarder, as the peer in the same run: started once, told by a pipe to
//! forward for a slice and to stop.

use crate::machine::{Memory, forwarding_cpus, other_cpu};
use crate::measure::{lcores_cpu_time, settle};
use crate::results::Sample;
use anyhow::Context as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// MiB that it needs, with small pools.
pub(crate) const MEBIBYTES: u64 = 128;
/// Packets in its pool, as in that of our side: few enough to stay in cache.
pub(crate) const MBUFS: u32 = 2047;
pub(crate) const CACHE: u32 = 256;
/// Of each queue; net_null and net_ring have none, but the pool must be larger than their sum.
pub(crate) const DESCRIPTORS: u16 = 256;
/// What a testpmd's packets come from.
#[derive(Clone, Copy)]
pub(crate) struct Pool {
    pub(crate) mbufs: u32,
    pub(crate) cache: u32,
    /// Bytes for the data of one packet, with the headroom, if not as usual.
    pub(crate) room: Option<u16>,
}

impl Pool {
    pub(crate) const USUAL: Self = Self { mbufs: MBUFS, cache: CACHE, room: None };
}

/// After so many seconds it is ended, whatever became of the rest.
const LIFETIME: &str = "1200";

/// A testpmd that waits for commands.
pub(crate) struct Testpmd {
    /// `timeout`, whose child it is.
    child: Child,
    commands: ChildStdin,
    output: BufReader<ChildStdout>,
    pid: u32,
    burst: usize,
}

impl Testpmd {
    /// Starts it with these devices as ports 0, 1 and so on, and so many cores that forward,
    /// each with a queue of every port.
    pub(crate) fn start(memory: Memory, devices: &[&str], cores: usize, burst: usize) -> anyhow::Result<Self> {
        Self::start_with(memory.of_size(MEBIBYTES), devices, cores, burst, Pool::USUAL)
    }

    /// The same with all of this memory and another pool.
    pub(crate) fn start_with(
        memory: Memory,
        devices: &[&str],
        cores: usize,
        burst: usize,
        pool: Pool,
    ) -> anyhow::Result<Self> {
        let lcores = (1..).zip(forwarding_cpus().into_iter().take(cores));
        let lcores: Vec<String> = lcores.map(|(lcore, cpu)| format!("{lcore}@{cpu}")).collect();
        let mut command = Command::new("timeout");
        // In our process group, so that Ctrl-C reaches it too.
        command.args(["--foreground", "--kill-after=3", LIFETIME, "stdbuf", "-oL", "dpdk-testpmd"]);
        command.args(memory.eal_arguments());
        command.arg(format!("--lcores=0@{},{}", other_cpu(), lcores.join(",")));
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "--interactive", "--no-flush-rx", "--no-lsc-interrupt"]);
        for (argument, value) in [
            ("--nb-cores", cores),
            ("--rxq", cores),
            ("--txq", cores),
            ("--rxd", DESCRIPTORS.into()),
            ("--txd", DESCRIPTORS.into()),
            ("--burst", burst),
            ("--total-num-mbufs", pool.mbufs as usize),
            ("--mbcache", pool.cache as usize),
        ] {
            command.arg(format!("{argument}={value}"));
        }
        command.args(pool.room.map(|room| format!("--mbuf-size={room}")));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("dpdk-testpmd does not start (Debian's package dpdk-dev has it)")?;
        let commands = child.stdin.take().context("stdin of dpdk-testpmd")?;
        let output = BufReader::new(child.stdout.take().context("stdout of dpdk-testpmd")?);
        let mut testpmd = Self { child, commands, output, pid: 0, burst };
        testpmd.wait_for("Done")?;
        let id = testpmd.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        testpmd.pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("no dpdk-testpmd")?;
        Ok(testpmd)
    }

    /// Forwards between two ports for a slice. Before, if `first` says so, it sends that
    /// many bursts of its own from each, which then circulate.
    pub(crate) fn forward(
        &mut self,
        mode: &str,
        ports: [u16; 2],
        burst: usize,
        first: Option<u32>,
        slice: Duration,
    ) -> anyhow::Result<Sample> {
        if burst != self.burst {
            self.tell(&format!("set burst {burst}"))?;
            self.burst = burst;
        }
        self.tell(&format!("set fwd {mode}"))?;
        self.tell(&format!("set portlist {},{}", ports[0], ports[1]))?;
        let before = lcores_cpu_time(self.pid)?;
        let start = Instant::now();
        match first {
            Some(bursts) => self.tell(&format!("start tx_first {bursts}"))?,
            None => self.tell("start")?,
        }
        std::thread::sleep(slice);
        self.tell("stop")?;
        let wall = start.elapsed();
        let said = self.wait_for("Done.")?;
        settle();
        let cpu = lcores_cpu_time(self.pid)?.saturating_sub(before);
        let packets = accumulated(&said).with_context(|| format!("dpdk-testpmd's counters are not in {said:?}"))?;
        Ok(Sample::new(packets, cpu, wall))
    }

    fn tell(&mut self, command: &str) -> anyhow::Result<()> {
        writeln!(self.commands, "{command}").context("dpdk-testpmd is gone")
    }

    /// Reads to the line that ends with a word; returns what came before it.
    fn wait_for(&mut self, end: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).context("dpdk-testpmd")? == 0 {
                anyhow::bail!("dpdk-testpmd ended; it said: {text}");
            }
            if line.trim_end().ends_with(end) {
                return Ok(text);
            }
            text.push_str(&line);
        }
    }
}

/// The packets received by all ports since the start.
fn accumulated(statistics: &str) -> Option<u64> {
    let (_, sum) = statistics.split_once("Accumulated forward statistics")?;
    let (_, count) = sum.split_once("RX-packets:")?;
    count.split_whitespace().next()?.parse().ok()
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.tell("quit");
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Not `timeout`, which would leave it behind.
        if self.pid != 0 {
            let _ = Command::new("kill").arg("-9").arg(self.pid.to_string()).status();
        }
        let _ = self.child.wait();
    }
}
