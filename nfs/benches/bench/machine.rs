//! Where and how a benchmark runs: what stands above its tables, so that figures can be judged.

use dpdk_rs::Version;
use serde::{Deserialize, Serialize};
use std::fs::read_to_string;

/// The memory of both sides of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    Hugepages,
    /// `--no-huge`, with so many MiB.
    Ordinary(u64),
}

impl Memory {
    /// Hugepages, if so many MiB of them are free.
    pub(crate) fn choose(mebibytes: u64) -> Self {
        let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
        let value = |key| field(&meminfo, key).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        let free = value("HugePages_Free").unwrap_or(0) * value("Hugepagesize").unwrap_or(0) / 1024;
        if free >= mebibytes { Self::Hugepages } else { Self::Ordinary(mebibytes) }
    }

    /// The same kind, with so many MiB.
    pub(crate) fn of_size(self, mebibytes: u64) -> Self {
        match self {
            Self::Hugepages => Self::Hugepages,
            Self::Ordinary(_) => Self::Ordinary(mebibytes),
        }
    }

    /// EAL arguments by which several programs run side by side and leave nothing behind.
    pub(crate) fn eal_arguments(self) -> Vec<String> {
        let fixed = ["--no-pci", "--no-telemetry", "--log-level=error"].map(str::to_owned).into_iter();
        match self {
            Self::Hugepages => fixed.chain(["--in-memory", "--iova-mode=va"].map(str::to_owned)).collect(),
            Self::Ordinary(mebibytes) => {
                fixed.chain(["--no-huge", "--no-shconf", "-m", &mebibytes.to_string()].map(str::to_owned)).collect()
            }
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Hugepages => "hugepages",
            Self::Ordinary(_) => "ordinary pages (--no-huge: too few hugepages are free)",
        }
    }
}

/// What figures depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) last_level_cache: String,
    pub(crate) kernel: String,
    pub(crate) dpdk: String,
    /// Whether our side links DPDK statically.
    pub(crate) linked: String,
    /// Compiler and flags of our side.
    pub(crate) compiler: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cache = read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").unwrap_or_default();
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: allowed_cpus().len(),
            last_level_cache: if cache.is_empty() { "unknown".to_owned() } else { cache.trim().to_owned() },
            kernel: kernel.trim().to_owned(),
            dpdk: Version::loaded().to_string(),
            linked: if cfg!(feature = "static") { "statically" } else { "as shared libraries" }.to_owned(),
            compiler: format!(
                "{}, {}",
                std::env::var("BENCH_COMPILER").unwrap_or_else(|_| "unknown (scripts/bench says it)".to_owned()),
                if cfg!(target_feature = "avx2") { "with AVX2" } else { "x86-64 baseline" },
            ),
        }
    }

    /// What it is, as names and values.
    pub(crate) fn lines(&self) -> [(&'static str, String); 4] {
        let Self { processor, cpus, last_level_cache, kernel, dpdk, linked, compiler } = self;
        [
            ("machine", format!("{processor}, {cpus} CPUs, last-level cache {last_level_cache}, Linux {kernel}")),
            ("DPDK", format!("{dpdk}, linked {linked} by our side; testpmd is the distribution's")),
            ("compiler", format!("ours: {compiler}; Debian compiles DPDK and testpmd for corei7")),
            (
                "cost",
                "CPU time of the threads that forward; wall is real time; quiet is what a tenth of the undisturbed rounds \
                 is below, and scores, ratios and Mpps are made of it; in brackets what single rounds gave"
                    .to_owned(),
            ),
        ]
    }

    /// Why figures of the two cannot be compared. What the programs are made with may differ.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let same = |what: &str, one: &str, two: &str| (one != two).then(|| format!("{what}: {one} / {two}"));
        [
            same("processor", &self.processor, &other.processor),
            same("CPUs", &self.cpus.to_string(), &other.cpus.to_string()),
            same("last-level cache", &self.last_level_cache, &other.last_level_cache),
            same("kernel", &self.kernel, &other.kernel),
            same("DPDK", &self.dpdk, &other.dpdk),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// How many threads wanted to run, over the last minute.
pub(crate) fn load() -> f64 {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// The CPUs that this process may use, in order. On an lcore that is its own, so ask before the
/// EAL pins the thread.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let list = field(&status, "Cpus_allowed_list").unwrap_or("0");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The CPUs that forward, the last ones first, for both sides.
pub(crate) fn forwarding_cpus() -> Vec<usize> {
    let mut cpus = allowed_cpus();
    cpus.reverse();
    cpus
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
