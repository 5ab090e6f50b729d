//! The suite `linux`: what the kernel takes to forward a packet, to follow its connection and to
//! rewrite it, and what our worker takes between the same interfaces.
//!
//! Packets come out of a veth and leave by an ifb, which throws them away: sending costs neither
//! side a driver. The kernel's work is done by the NAPI thread of the veth, whose CPU time is
//! counted. It takes turns on one CPU with the source, which sends as many packets as the veth's
//! ring holds and lets the thread go on: so no packet is lost, none is waited for, and all come in
//! full batches, as from a busy NIC.

use crate::custom::port_block;
use crate::io::MACSWAP;
use crate::machine::{Memory, allowed_cpus, forwarding_cpus};
use crate::measure::{Plan, Variant, cpu_time, interleave};
use crate::namespace::{Namespace, Program, run as run_program};
use crate::ours::{NULL, Pair, Setting, devices, worker};
use crate::results::{Axis, Row, Sample};
use crate::served::{self, Served};
use crate::testpmd::Testpmd;
use anyhow::{Context as _, bail, ensure};
use dpdk_rs::{Burst, Eal};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str =
    "the kernel's forwarding, conntrack and masquerade, and our worker between the same interfaces";
/// For the worker.
pub(crate) const MEBIBYTES: u64 = 128;

pub(crate) const FORWARD: &str = "Linux: forwards";
pub(crate) const CONNTRACK: &str = "Linux: firewall, conntrack";
pub(crate) const MASQUERADE: &str = "Linux: masquerade";
const DROP: &str = "Linux: receives and drops (nft ingress)";
const WIRE: &str = "ours on af_packet: worker, Wire";
const FLOWS: [(&str, u32); 2] = [("1k", 1 << 10), ("16k", 1 << 14)];

/// The row of so many flows.
pub(crate) fn row(name: &str, flows: &str) -> String {
    format!("{name}, {flows} flows")
}

pub(crate) fn notes() -> Vec<String> {
    [
        "UDP of 64 bytes, one direction, from a veth to an ifb, which throws away what it is sent; flows differ by port, in \
         a permuted order; the source's cost is not counted",
        "Linux: CPU time of the veth's NAPI thread, in batches of up to 64 packets; it includes the receiving from the \
         veth, and freeing there what a socket on the same CPU has sent: a row shows what that is alone",
        "ours: the same thread up to the packet socket, for each packet that it took, and the worker on another CPU, \
         which copies packets out of the kernel's ring and sends through its stack; what the socket's ring \
         could not hold is lost. net_ring and net_null, in the other suites, are what a NIC is nearer to",
        "a slice is at least 100 ms here and a process has at most 10 rounds, as programs start in each of them",
        "what is a ratio of testpmd macswap is a score: 1 + (peer - macswap) / macswap",
    ]
    .map(str::to_owned)
    .into()
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let program = Program::compile()?;
    let mut testpmd = Testpmd::start(memory, &devices(), 1, Burst::USUAL)?;
    let (source_cpu, last_cpu) = cpus();
    let drop = Router::new("drop", last_cpu, Some(NFT_DROP))?;
    let forward = Router::new("forward", last_cpu, None)?;
    let conntrack = Router::new("conntrack", last_cpu, Some(NFT_CONNTRACK));
    let masquerade = Router::new("masquerade", last_cpu, Some(NFT_MASQUERADE));
    let ours = RefCell::new(Socket::new(source_cpu)?);

    let program = &program;
    let mut variants = vec![
        Variant::new(MACSWAP, |slice| testpmd.forward("macswap", NULL.numbers, Burst::USUAL, None, slice)),
        drop.variant(DROP, program, FLOWS[0].1),
        forward.variant(FORWARD, program, FLOWS[0].1).net(DROP),
    ];
    for (name, router) in [(CONNTRACK, &conntrack), (MASQUERADE, &masquerade)] {
        let router = match router {
            Ok(router) => router,
            Err(why) => {
                println!("note not measured: {name}: {why:#}");
                continue;
            }
        };
        for (size, flows) in FLOWS {
            let variant = router.variant(&row(name, size), program, flows).net(FORWARD);
            variants.push(variant.at(Axis::Flows, name, f64::from(flows)));
        }
    }
    for (name, work) in [(WIRE, Work::Wire), ("ours on af_packet: worker, port-block, Wire", Work::PortBlock)] {
        let ours = &ours;
        let measure = move |slice| ours.borrow_mut().measure(program, work, slice);
        let variant = Variant::new(name, measure).ratio(FORWARD);
        variants.push(if name == WIRE { variant } else { variant.net(WIRE) });
    }
    // Each starts programs in every round.
    interleave(variants, Plan { slice: plan.slice.max(SHORTEST), rounds: plan.rounds.min(MOST), ..plan })
}

/// What comes in is thrown away before the kernel has seen that it is IP.
const NFT_DROP: &str = "table netdev bench {
    chain ingress { type filter hook ingress device in0 priority 0; policy drop; }
}";
/// A stateful firewall that lets all of this traffic pass.
const NFT_CONNTRACK: &str = "table ip bench {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname \"in0\" accept
    }
}";
const NFT_MASQUERADE: &str = "table ip bench {
    chain postrouting { type nat hook postrouting priority 100; oifname \"out0\" masquerade; }
}";

/// Slices are longer than others, as the first packets of a flow cost more.
const SHORTEST: Duration = Duration::from_millis(100);
/// A round takes longer than those of other suites.
const MOST: usize = 10;
/// How long the source runs before anything counts: connections are made then.
const BEFORE: Duration = Duration::from_millis(30);

/// The CPU of the source where our worker has the other one, and that of everybody else.
fn cpus() -> (usize, usize) {
    let cpus = allowed_cpus();
    (cpus.first().copied().unwrap_or(0), cpus.last().copied().unwrap_or(0))
}

/// A namespace where packets come in by one interface and can leave by the other, and the thread
/// that receives them.
struct Router {
    namespace: Namespace,
    /// The CPU of the source and the thread.
    cpu: usize,
    thread: u32,
}

impl Router {
    /// One that forwards, with these rules.
    fn new(name: &str, cpu: usize, rules: Option<&str>) -> anyhow::Result<Self> {
        let router = Self::unaddressed(name, cpu)?;
        let namespace = &router.namespace;
        namespace.ip("addr add 10.0.0.254/24 dev in0")?;
        namespace.ip("addr add 198.51.100.1/24 dev out0")?;
        namespace.ip("route add default dev out0")?;
        namespace.exec("sysctl -qw net.ipv4.ip_forward=1")?;
        if let Some(rules) = rules {
            namespace.feed("nft -f -", rules).context("nft (package nftables)")?;
        }
        Ok(router)
    }

    fn unaddressed(name: &str, cpu: usize) -> anyhow::Result<Self> {
        let namespace = Namespace::new(name)?;
        namespace.cable("in0", "in1")?;
        namespace.ip("link set in0 address 02:00:00:00:00:02")?;
        namespace.ip("link add out0 type ifb")?;
        namespace.ip("link set out0 up")?;
        // A veth has NAPI if it may join segments, and uses it for what does not come joined.
        namespace.exec("ethtool -K in0 gro on").context("ethtool (package ethtool)")?;
        namespace.exec("ethtool -K in1 tso off")?;
        let before = napi_threads()?;
        namespace.feed("tee /sys/class/net/in0/threaded", "1")?;
        let after = napi_threads()?;
        let thread = *after.difference(&before).next().context("the kernel has started no NAPI thread")?;
        let process = thread.to_string();
        run_program(Command::new("taskset").args(["-pc", &cpu.to_string(), &process]))?;
        run_program(Command::new("chrt").args(["--fifo", "--pid", PRIORITY, &process]))?;
        Ok(Self { namespace, cpu, thread })
    }

    /// Starts the source of so many flows, which goes when dropped.
    fn source(&self, program: &Program, flows: u32) -> anyhow::Result<Source> {
        let mut command = self.namespace.command(self.cpu, "chrt");
        command.args(["--fifo", PRIORITY, program.path(), "turns", "in1", &flows.to_string()]);
        let source = Source(command.spawn().context("no source")?);
        std::thread::sleep(BEFORE);
        Ok(source)
    }

    /// What the thread and the source have done until now.
    fn count(&self, source: &Source) -> anyhow::Result<Count> {
        let process = source.0.id();
        let interfaces = format!("/proc/{process}/net/dev");
        let text = read_to_string(&interfaces).context(interfaces)?;
        let received = |name: &str| {
            let (_, rest) = text.split_once(&format!("{name}:")).with_context(|| format!("no interface {name}"))?;
            rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()).context("no count of packets")
        };
        Ok(Count {
            thread: cpu_time(Path::new(&format!("/proc/{}/schedstat", self.thread)))?,
            source: cpu_time(Path::new(&format!("/proc/{process}/schedstat")))?,
            came: received("in0")?,
            left: received("out0")?,
            at: Instant::now(),
        })
    }

    fn variant<'a>(&'a self, name: &str, program: &'a Program, flows: u32) -> Variant<'a> {
        Variant::new(name, move |slice| self.measure(program, flows, slice)).ratio(MACSWAP)
    }

    /// What the kernel takes for a packet, of those that have left, if any do.
    fn measure(&self, program: &Program, flows: u32, slice: Duration) -> anyhow::Result<Sample> {
        let source = self.source(program, flows)?;
        let before = self.count(&source)?;
        std::thread::sleep(slice);
        let done = self.count(&source)?.since(&before);
        let packets = if done.left > 0 { done.left } else { done.came };
        Ok(Sample::new(packets, done.thread, done.wall.saturating_sub(done.source)))
    }
}

/// The source and the thread have the same, so none of the two interrupts the other.
const PRIORITY: &str = "10";

struct Source(Child);

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Count {
    thread: Duration,
    source: Duration,
    came: u64,
    left: u64,
    at: Instant,
}

struct Done {
    thread: Duration,
    source: Duration,
    came: u64,
    left: u64,
    wall: Duration,
}

impl Count {
    fn since(&self, before: &Self) -> Done {
        Done {
            thread: self.thread.saturating_sub(before.thread),
            source: self.source.saturating_sub(before.source),
            came: self.came - before.came,
            left: self.left - before.left,
            wall: self.at - before.at,
        }
    }
}

/// The threads that receive for an interface in0, of any namespace.
fn napi_threads() -> anyhow::Result<BTreeSet<u32>> {
    let threads = read_dir("/proc")?.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = read_to_string(entry.path().join("comm")).ok()?;
        name.starts_with("napi/in0-").then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    Ok(threads.collect())
}

/// Our worker between the same interfaces, through packet sockets.
struct Socket {
    router: Router,
    worker: Served,
}

const SOCKETS: Pair = Pair { names: ["net_af_packet0", "net_af_packet1"], numbers: [0, 1] };

#[derive(Clone, Copy)]
enum Work {
    Wire,
    PortBlock,
}

impl Socket {
    fn new(cpu: usize) -> anyhow::Result<Self> {
        let router = Router::unaddressed("ours", cpu)?;
        let this = std::env::current_exe()?.to_str().context("a path in UTF-8")?.to_owned();
        let (_, own) = cpus();
        let worker = Served::start(router.namespace.command(own, &this).arg("--serve-interfaces"))?;
        Ok(Self { router, worker })
    }

    fn measure(&mut self, program: &Program, work: Work, slice: Duration) -> anyhow::Result<Sample> {
        let source = self.router.source(program, FLOWS[0].1)?;
        let before = self.router.count(&source)?;
        let work = if matches!(work, Work::Wire) { "wire" } else { "port-block" };
        let sample = self.worker.run(work, slice)?;
        let done = self.router.count(&source)?.since(&before);
        ensure!(done.came > 0, "no packets came");
        let delivery = done.thread.mul_f64(sample.packets as f64 / done.came as f64);
        let [cpu, wall] = [sample.cpu_ns, sample.wall_ns].map(Duration::from_nanos);
        Ok(Sample::new(sample.packets, cpu + delivery, wall))
    }
}

/// The process with the worker.
pub(crate) fn serve() -> anyhow::Result<()> {
    let cpu = forwarding_cpus().first().copied().unwrap_or(0);
    let arguments = ["bench".to_owned(), format!("--lcores=0@{cpu}")].into_iter();
    let arguments = arguments.chain(Memory::Ordinary(MEBIBYTES).eal_arguments());
    let devices = ["--vdev=net_af_packet0,iface=in0", "--vdev=net_af_packet1,iface=out0"].map(str::to_owned);
    let (eal, _) = Eal::init(arguments.chain(devices))?;
    served::serve(|work, slice| {
        let chain = match work {
            "wire" => Vec::new(),
            "port-block" => port_block(),
            _ => bail!("no work {work}"),
        };
        worker(&eal, Setting::new(SOCKETS), chain, slice)
    })
}
