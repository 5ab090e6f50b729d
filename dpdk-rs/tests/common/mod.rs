//! What the tests share: an EAL without hugepages and devices of software, so that any
//! user can run them, many at once. DPDK starts once per process, so each file here is one
//! `#[test]` with a table of cases in it.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

mod skip;

use dpdk_rs::{Eal, Mbuf, Mempool, MempoolConfig};
pub(crate) use skip::skip;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// The CPUs that this process may use, as in `0-3,8`.
pub(crate) fn cpus() -> String {
    cpus_of("/proc/self/status")
}

pub(crate) fn cpus_of(status: &str) -> String {
    let status = std::fs::read_to_string(status).expect("procfs");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("a kernel that says which CPUs are allowed").trim().to_owned()
}

/// Arguments for two lcores that share whatever CPUs there are.
pub(crate) fn arguments(devices: &[&str]) -> Vec<String> {
    let cpus = cpus();
    let lcores = format!("0@({cpus}),1@({cpus})");
    let fixed = ["test", "--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "128", "--lcores", &lcores];
    fixed.iter().map(|arg| (*arg).to_owned()).chain(devices.iter().map(|device| format!("--vdev={device}"))).collect()
}

pub(crate) fn eal(devices: &[&str]) -> Eal {
    Eal::init(arguments(devices)).expect("an EAL without hugepages starts anywhere").0
}

/// A small pool.
pub(crate) fn pool(eal: &Eal, name: &str) -> Mempool {
    pool_of(eal, name, 1023)
}

pub(crate) fn pool_of(eal: &Eal, name: &str, size: u32) -> Mempool {
    let config = MempoolConfig { size, cache: 64.min(size / 2), ..MempoolConfig::default() };
    Mempool::new(eal, name, config).expect("memory for a small pool")
}

/// A packet that carries a number.
pub(crate) fn numbered(pool: &Mempool, number: u32) -> Mbuf {
    let mut packet = pool.alloc().expect("a packet is left in the pool");
    assert!(packet.set_contents(&[&[0x5a; 56], &number.to_be_bytes()[..]].concat()));
    packet
}

pub(crate) fn number(packet: &Mbuf) -> u32 {
    u32::from_be_bytes(*packet.data().last_chunk().expect("numbered packets have 60 bytes"))
}

/// Numbers of no great quality that are the same on every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).expect("below a usize")
    }
}

/// A sentence and what shows that it is true.
pub(crate) type Case = (&'static str, fn(&Eal));

/// Runs the cases of a table; the last name printed is the one that failed.
pub(crate) fn run(eal: &Eal, cases: &[Case]) {
    for (name, case) in cases {
        eprintln!("case: {name}");
        case(eal);
    }
}

/// Log lines of this process, from [`keep_log`] on.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("dpdk_rs") {
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

pub(crate) fn keep_log() {
    log::set_logger(&Keeper).expect("no other logger");
    log::set_max_level(log::LevelFilter::Warn);
}

/// What `dpdk-rs` itself logged since the last call.
pub(crate) fn logged() -> Vec<String> {
    std::mem::take(&mut LINES.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

/// The example program, which cargo builds beside the tests.
pub(crate) fn reflect() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // target/PROFILE/deps/TEST
    let profile = test.parent().and_then(Path::parent).expect("tests lie in deps");
    let program = profile.join("examples/reflect");
    assert!(program.is_file(), "{} is not there: cargo test builds it unless told which tests", program.display());
    program
}

/// A directory of this test's own, removed when dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dpdk-rs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program that refuses to run has to do: exit with a code, say one sentence on
/// stderr that has all of `parts`, and nothing on stdout.
pub(crate) fn assert_refuses(case: &str, output: &Output, parts: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code().is_some_and(|code| code != 0), "{case}: {:?}, stderr: {err}", output.status);
    assert_eq!(out, "", "{case}: nothing on stdout");
    assert_eq!(err.trim_end().lines().count(), 1, "{case}: one line on stderr, not: {err}");
    for part in parts {
        assert!(err.contains(part), "{case}: {part:?} in: {err}");
    }
}
