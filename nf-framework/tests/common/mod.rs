//! What the tests share: functions to make chains of, a DPDK for whole programs in this
//! process, capture files, and child processes that do not outlive their test.
#![allow(dead_code, reason = "each test program uses its part")]

use dpdk_rs::Eal;
use nf_framework::{
    Batch, Context, Control, Direction, Loaded, Mbuf, NetworkFunction, PacketFunction, Ports, Report, Runtime,
    RuntimeConfig, Tuple, Verdict,
};
use std::any::Any;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Writes its letter behind every packet that it sees, and lets it pass.
pub(crate) struct Mark(pub(crate) u8);

impl PacketFunction for Mark {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        packet.append(1).expect("room for a letter").fill(self.0);
        Verdict::Next
    }
}

/// Gives every packet the same verdict.
pub(crate) struct Always(pub(crate) Verdict);

impl PacketFunction for Always {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.0
    }
}

/// Sends what goes towards it back the way that it came from; two of them, face to face,
/// keep a packet between them for ever.
pub(crate) struct Mirror(pub(crate) Direction);

impl NetworkFunction for Mirror {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            if cx.direction() == self.0
                && let Some(packet) = batch.take(slot)
            {
                cx.emit(packet, self.0.reversed());
            }
        }
    }
}

/// Addresses and ports of a flow's packets in one of its directions.
pub(crate) type Flow = (IpAddr, IpAddr, Ports);

/// The flow of a tuple, whichever its direction.
pub(crate) fn flow_of(tuple: Tuple) -> Flow {
    let there = |tuple: Tuple| (tuple.source, tuple.destination, tuple.ports);
    let (one, other) = (there(tuple), there(tuple.reversed()));
    if tuple.source <= tuple.destination { one } else { other }
}

/// Numbers of no great quality that are the same on every run (splitmix64).
#[derive(Clone, Debug)]
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

/// The message of the panic that has to come.
pub(crate) fn panic_of<T>(doomed: impl FnOnce() -> T) -> String {
    let payload = panic::catch_unwind(AssertUnwindSafe(doomed)).err().expect("it panics");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned())).expect("with a message")
}

pub(crate) fn free_hugepages() -> bool {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return false };
    sizes
        .flatten()
        .any(|size| std::fs::read_to_string(size.path().join("free_hugepages")).is_ok_and(|free| free.trim() != "0"))
}

/// The CPUs that this process may use, as in `0-3,8`.
pub(crate) fn cpus() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("a kernel that says which CPUs are allowed").trim().to_owned()
}

/// Runs a program until a report says that it is enough.
pub(crate) fn run_until(
    eal: &Eal,
    config: &RuntimeConfig,
    functions: Vec<Loaded>,
    enough: fn(&Report) -> bool,
) -> Report {
    let control = |control: &Control| {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !enough(&control.report()) && !control.stopping() {
            assert!(Instant::now() < give_up, "not enough after a minute: {}", control.report());
            std::thread::yield_now();
        }
    };
    let runtime = Runtime::new(eal, config, functions).expect("a program that starts");
    let ((), report) = runtime.run(control).expect("a program that ends well");
    assert!(enough(&report), "{report}");
    assert_eq!(report.balance.unaccounted(), 0, "{report}");
    report
}

/// This many lcores that share whatever CPUs there are.
pub(crate) fn floating_lcores(count: usize) -> String {
    let cpus = cpus();
    let lcores: Vec<String> = (0..count).map(|lcore| format!("{lcore}@({cpus})")).collect();
    lcores.join(",")
}

/// EAL arguments that work for any user, many at once, with these devices.
pub(crate) fn eal_arguments(lcores: usize, devices: &[&str]) -> Vec<String> {
    let lcores = floating_lcores(lcores);
    let fixed = ["--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "256", "--lcores", &lcores];
    fixed.iter().map(|arg| (*arg).to_owned()).chain(devices.iter().map(|device| format!("--vdev={device}"))).collect()
}

type Job = Box<dyn FnOnce(&Eal) + Send>;

/// Runs a test on this process's DPDK, one test at a time. It starts with the first test,
/// with two lcores and the devices that `devices` says; they are the same in all tests of a
/// file.
pub(crate) fn on_eal<T: Send + 'static>(
    devices: fn() -> Vec<String>,
    test: impl FnOnce(&Eal) -> T + Send + 'static,
) -> T {
    static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            let devices = devices();
            let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
            let arguments = ["test", "--log-level=error"].map(str::to_owned).into_iter();
            // What a panic says here is shown by the test that it belongs to.
            panic::set_hook(Box::new(|info| {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string())
            }));
            let (eal, _) = Eal::init(arguments.chain(eal_arguments(2, &devices))).expect("an EAL without hugepages");
            jobs.iter().for_each(|job| job(&eal));
        });
        Mutex::new(sender)
    });
    let (answer, answers) = channel();
    let job: Job = Box::new(move |eal| {
        let _ = answer.send(panic::catch_unwind(AssertUnwindSafe(|| test(eal))));
    });
    jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job).expect("the EAL runs");
    let result: Result<T, Box<dyn Any + Send>> = answers.recv().expect("the EAL runs");
    let said = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    result.unwrap_or_else(|payload| {
        eprintln!("{}", said.join("\n"));
        panic::resume_unwind(payload)
    })
}

/// What panics said since the last test, those on lcores among them.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A directory of this test's own, removed when dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nf-framework-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a capture file: the classic format, Ethernet, microseconds.
pub(crate) fn write_capture(path: impl AsRef<Path>, frames: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 262_144, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (second, frame) in (1..).zip(frames) {
        let length = u32::try_from(frame.len()).expect("frames are short");
        for word in [second, 0, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).expect("a writable directory");
}

/// The frames of a capture file that libpcap wrote on this machine.
pub(crate) fn read_capture(path: impl AsRef<Path>) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).expect("a capture file");
    let mut rest = bytes.get(24..).expect("with its header");
    let mut frames = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes(*header[8..].first_chunk().expect("4 octets"));
        let (frame, after) = after.split_at(usize::try_from(length).expect("short"));
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}
