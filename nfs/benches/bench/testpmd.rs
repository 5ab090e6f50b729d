//! DPDK's own forwarder, as the peer in the same run: started once, told by a pipe to
//! forward for a slice and to stop.

use crate::machine::{Memory, forwarding_cpu, other_cpu};
use crate::measure::{Sample, cpu_time};
use anyhow::Context as _;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Its lcore that forwards; the main one reads commands.
const FORWARDING_LCORE: u32 = 1;

/// A testpmd that waits for commands.
pub(crate) struct Testpmd {
    child: Child,
    commands: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The forwarding thread's account of CPU time.
    schedstat: PathBuf,
}

impl Testpmd {
    /// Starts it with these devices as ports 0, 1 and so on.
    pub(crate) fn start(
        memory: Memory,
        devices: &[&str],
        burst: usize,
        mbufs: u32,
        cache: u32,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd"]).args(memory.eal_arguments());
        command.arg(format!("--lcores=0@{},{FORWARDING_LCORE}@{}", other_cpu(), forwarding_cpu()));
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "--interactive", "--nb-cores=1", "--rxq=1", "--txq=1", "--rxd=512", "--txd=512"]);
        command.args(["--no-flush-rx", "--no-lsc-interrupt"]);
        command.arg(format!("--burst={burst}"));
        command.args([format!("--total-num-mbufs={mbufs}"), format!("--mbcache={cache}")]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("dpdk-testpmd does not start (Debian's package dpdk-dev has it)")?;
        let commands = child.stdin.take().context("stdin of dpdk-testpmd")?;
        let output = BufReader::new(child.stdout.take().context("stdout of dpdk-testpmd")?);
        let mut testpmd = Self { child, commands, output, schedstat: PathBuf::new() };
        testpmd.wait_for("Done")?;
        testpmd.schedstat = testpmd.forwarding_thread()?;
        Ok(testpmd)
    }

    /// Forwards between two ports for a slice. Before, if `first` says so, it sends that
    /// many bursts of its own from each, which then circulate.
    pub(crate) fn forward(
        &mut self,
        mode: &str,
        ports: [u16; 2],
        first: Option<u32>,
        slice: Duration,
    ) -> anyhow::Result<Sample> {
        self.tell(&format!("set fwd {mode}"))?;
        self.tell(&format!("set portlist {},{}", ports[0], ports[1]))?;
        let before = cpu_time(&self.schedstat)?;
        let start = Instant::now();
        match first {
            Some(bursts) => self.tell(&format!("start tx_first {bursts}"))?,
            None => self.tell("start")?,
        }
        std::thread::sleep(slice);
        self.tell("stop")?;
        let wall = start.elapsed();
        let said = self.wait_for("Done.")?;
        // So that it sleeps.
        std::thread::sleep(Duration::from_millis(1));
        let cpu = cpu_time(&self.schedstat)?.saturating_sub(before);
        let packets = accumulated(&said).with_context(|| format!("dpdk-testpmd's counters are not in {said:?}"))?;
        Ok(Sample { packets, cpu, wall })
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

    fn forwarding_thread(&self) -> anyhow::Result<PathBuf> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        // "lcore-worker-1" up to DPDK 22.11, then "dpdk-worker1".
        let ours = |task: &PathBuf| {
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            name.contains("worker") && name.trim_end().ends_with(&FORWARDING_LCORE.to_string())
        };
        let mut tasks = std::fs::read_dir(tasks)?.filter_map(|task| Some(task.ok()?.path()));
        Ok(tasks.find(ours).context("dpdk-testpmd has no worker thread")?.join("schedstat"))
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
