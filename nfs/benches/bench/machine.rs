//! Where and how a benchmark runs: what stands above its table, so that figures can be judged.

use dpdk_rs::Version;
use serde::Serialize;
use std::fs::read_to_string;

/// Hugepages that two programs with small pools need, with room to spare.
const ENOUGH_HUGEPAGES: u64 = 128;

/// The memory of both sides of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    Hugepages,
    Ordinary,
}

impl Memory {
    /// Hugepages if enough of them are free.
    pub(crate) fn choose() -> Self {
        let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
        let value = |key| field(&meminfo, key).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        let free = value("HugePages_Free").unwrap_or(0);
        if free >= ENOUGH_HUGEPAGES { Self::Hugepages } else { Self::Ordinary }
    }

    /// EAL arguments by which several programs run side by side and leave nothing behind.
    pub(crate) fn eal_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Hugepages => &["--in-memory", "--no-pci", "--no-telemetry", "--iova-mode=va", "--log-level=error"],
            Self::Ordinary => {
                &["--no-huge", "-m", "128", "--no-shconf", "--no-pci", "--no-telemetry", "--log-level=error"]
            }
        }
    }
}

/// What figures depend on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    pub(crate) dpdk: String,
    pub(crate) memory: &'static str,
    /// Compiler and flags of our side.
    pub(crate) compiler: String,
    pub(crate) linked: &'static str,
}

impl Machine {
    pub(crate) fn new(memory: Memory) -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: allowed_cpus().len(),
            kernel: kernel.trim().to_owned(),
            dpdk: Version::loaded().to_string(),
            memory: match memory {
                Memory::Hugepages => "hugepages",
                Memory::Ordinary => "ordinary pages (--no-huge: no hugepages are free)",
            },
            compiler: format!(
                "{}, {}",
                std::env::var("BENCH_COMPILER").unwrap_or_else(|_| "unknown (scripts/bench says it)".to_owned()),
                if cfg!(target_feature = "avx2") { "with AVX2" } else { "x86-64 baseline" },
            ),
            linked: if cfg!(feature = "static") { "static" } else { "shared" },
        }
    }
}

/// The CPUs that this process may use, in order.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let list = field(&status, "Cpus_allowed_list").unwrap_or("0");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The CPU that forwards, for both sides.
pub(crate) fn forwarding_cpu() -> usize {
    allowed_cpus().last().copied().unwrap_or(0)
}

/// The CPU that testpmd's main thread sits on; it sleeps while packets flow.
pub(crate) fn other_cpu() -> usize {
    allowed_cpus().first().copied().unwrap_or(0)
}

/// A line "key : value" of a file in /proc.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()).next()
}
