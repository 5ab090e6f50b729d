//! The suite `io`: what it costs to receive and send a packet, bare and through the worker,
//! beside `dpdk-testpmd` on the same devices.
//!
//! Two ports of net_null, one lcore: what "arrives" on one is sent to the other, both ways.
//! net_null takes each packet from the pool and puts it back, and nobody looks at its bytes.
//! Two ports of net_ring, each of which receives what was sent to it: packets circulate and
//! the pool is not touched.

use crate::Options;
use crate::machine::{Machine, Memory, forwarding_cpu};
use crate::measure::{Sample, Variant, interleave, own_cpu_time};
use crate::report::{Suite, rows};
use crate::testpmd::Testpmd;
use anyhow::{Context as _, ensure};
use dpdk_rs::{Burst, Eal, Mbuf, Mempool, MempoolConfig, Port, PortBuilder, QueuePair};
use nf_framework::headers::Headers;
use nf_framework::testing::Frame;
use nf_framework::{
    Context, DropReason, ForwardingKind, Function, Invalid, Loaded, NetworkFunction, PacketFunction, PortsConfig,
    Runtime, RuntimeConfig, SetupError, Verdict, WorkerSetup,
};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BURST: usize = Burst::USUAL;
/// Packets in the pools of both sides: few enough to stay in cache.
const MBUFS: u32 = 2047;
const CACHE: u32 = 256;
/// Of each queue; net_null and net_ring have none, but the pool must be larger than their sum.
const DESCRIPTORS: u16 = 512;
/// Packets on their way in each net_ring at the start, in bursts; its rings hold 1023.
const CIRCULATING: u32 = 28;

/// Two devices, and their numbers in testpmd.
#[derive(Clone, Copy)]
struct Pair {
    names: [&'static str; 2],
    numbers: [u16; 2],
}

const NULL: Pair = Pair { names: ["net_null0", "net_null1"], numbers: [0, 1] };
const RING: Pair = Pair { names: ["net_ring0", "net_ring1"], numbers: [2, 3] };

const PEER: &str = "testpmd io";
const PEER_MACSWAP: &str = "testpmd macswap";
const PEER_RING: &str = "ring: testpmd io";

pub(crate) fn run(options: &Options) -> anyhow::Result<Suite> {
    let memory = Memory::choose();
    // Before the EAL pins this thread.
    let (machine, cpu) = (Machine::new(memory), forwarding_cpu());
    let devices = [NULL.names, RING.names].concat();
    let peer = RefCell::new(Testpmd::start(memory, &devices, BURST, MBUFS, CACHE)?);
    let eal = start_eal(memory, &devices)?;
    let config = MempoolConfig { size: MBUFS, cache: CACHE, ..MempoolConfig::default() };
    // It holds what circulates in the rings.
    let circulating = Mempool::new(&eal, "circulating", config)?;
    fill_rings(&eal, &circulating)?;

    let mut first = Some(CIRCULATING);
    let mut variants = [
        variant(PEER, &[], |slice| peer.borrow_mut().forward("io", NULL.numbers, None, slice)),
        variant("bare loop", &[PEER], |slice| bare(&eal, NULL, slice)),
        variant("worker, Wire", &[PEER, PEER_MACSWAP], |slice| worker(&eal, NULL, Vec::new(), slice)),
        variant("worker, a function, Wire", &[PEER, PEER_MACSWAP], |slice| {
            worker(&eal, NULL, loaded("pass", |_| Ok(Pass)), slice)
        }),
        variant("worker, header parse, Wire", &[PEER, PEER_MACSWAP], |slice| {
            worker(&eal, NULL, loaded("parse", Parse::new), slice)
        }),
        variant(PEER_MACSWAP, &[PEER], |slice| peer.borrow_mut().forward("macswap", NULL.numbers, None, slice)),
        variant(PEER_RING, &[], |slice| peer.borrow_mut().forward("io", RING.numbers, first.take(), slice)),
        variant("ring: bare loop", &[PEER_RING], |slice| bare(&eal, RING, slice)),
        variant("ring: worker, Wire", &[PEER_RING], |slice| worker(&eal, RING, Vec::new(), slice)),
    ];
    let samples = interleave(&mut variants, options.rounds, options.slice)?;
    let rows = rows(&variants, &samples);
    drop(variants);
    drain_rings(&eal, &circulating)?;
    Ok(Suite {
        suite: "io",
        machine,
        burst: BURST,
        rounds: options.rounds,
        slice_ms: options.slice.as_millis(),
        rows,
        notes: vec![
            format!(
                "two ports of net_null, both ways, one forwarding thread on CPU {cpu}; pool of {MBUFS} mbufs, cache {CACHE}; \
                 no packet's bytes are touched, but by macswap and by header parse"
            ),
            format!("ring: two ports of net_ring, {} mbufs circulate between them", CIRCULATING * 2 * 32),
            "header parse reads an IPv4 UDP frame of 64 bytes, the same in every packet, in cache".to_owned(),
            "Debian's DPDK is compiled for corei7; each cost in relation is of the same round".to_owned(),
        ],
    })
}

fn variant<'a>(
    name: &'static str,
    bases: &'static [&'static str],
    run: impl FnMut(Duration) -> anyhow::Result<Sample> + 'a,
) -> Variant<'a> {
    Variant { name, bases, run: Box::new(run) }
}

fn start_eal(memory: Memory, devices: &[&str]) -> anyhow::Result<Eal> {
    let devices = devices.iter().map(|device| format!("--vdev={device}"));
    let fixed = memory.eal_arguments().iter().map(|argument| (*argument).to_owned());
    let arguments = ["bench".to_owned(), format!("--lcores=0@{}", forwarding_cpu())];
    let (eal, _) = Eal::init(arguments.into_iter().chain(fixed).chain(devices))?;
    Ok(eal)
}

fn start_ports(eal: &Eal, pair: Pair, pool: &Mempool) -> anyhow::Result<([Port; 2], [QueuePair; 2])> {
    let start = |name| -> anyhow::Result<(Port, QueuePair)> {
        let id = eal.port_by_name(name).with_context(|| format!("no port {name}"))?;
        let (port, queues) = PortBuilder::new(eal, id).descriptors(DESCRIPTORS, DESCRIPTORS).pool(pool).start()?;
        Ok((port, queues.into_iter().next().context("no queues")?))
    };
    let [(port0, queues0), (port1, queues1)] = [start(pair.names[0])?, start(pair.names[1])?];
    Ok(([port0, port1], [queues0, queues1]))
}

fn stop_ports(ports: [Port; 2], queues: [QueuePair; 2]) -> anyhow::Result<()> {
    for (port, queues) in ports.into_iter().zip(queues) {
        port.stop(vec![queues])?;
    }
    Ok(())
}

fn fill_rings(eal: &Eal, pool: &Mempool) -> anyhow::Result<()> {
    let (ports, mut queues) = start_ports(eal, RING, pool)?;
    let mut burst = Burst::new();
    for queues in &mut queues {
        for _ in 0..CIRCULATING {
            ensure!(pool.alloc_bulk(&mut burst), "the pool of {MBUFS} is too small");
            let long_enough = burst.iter_mut().all(|packet| packet.append(64).is_some());
            ensure!(long_enough, "packets without room for 64 bytes");
            queues.tx.send(&mut burst);
            ensure!(burst.is_empty(), "a ring is full");
        }
    }
    stop_ports(ports, queues)
}

fn drain_rings(eal: &Eal, pool: &Mempool) -> anyhow::Result<()> {
    let (ports, mut queues) = start_ports(eal, RING, pool)?;
    let mut burst = Burst::new();
    for queues in &mut queues {
        while queues.rx.receive(&mut burst) > 0 {
            burst.clear();
        }
    }
    stop_ports(ports, queues)
}

/// What `RxQueue` and `TxQueue` cost by themselves, on the main lcore.
fn bare(eal: &Eal, pair: Pair, slice: Duration) -> anyhow::Result<Sample> {
    let config = MempoolConfig { size: MBUFS, cache: CACHE, ..MempoolConfig::default() };
    let pool = Mempool::new(eal, "bare", config)?;
    let (ports, mut queues) = start_ports(eal, pair, &pool)?;
    let stop = AtomicBool::new(false);
    let lcore = eal.lcores()[0];
    let before = own_cpu_time()?;
    let (packets, wall) = eal.scope(|scope| {
        scope.control("bench", || {
            std::thread::sleep(slice);
            stop.store(true, Ordering::Relaxed);
        })?;
        let start = Instant::now();
        let forwarding = scope.launch(lcore, || forward(&mut queues, &stop))?;
        let packets = forwarding.join().map_err(|_| anyhow::anyhow!("the loop panicked"))?;
        anyhow::Ok((packets, start.elapsed()))
    })?;
    let cpu = own_cpu_time()?.saturating_sub(before);
    stop_ports(ports, queues)?;
    Ok(Sample { packets, cpu, wall })
}

/// The bare loop: what came in on one port goes out by the other, until told to stop.
#[inline(never)]
fn forward(queues: &mut [QueuePair; 2], stop: &AtomicBool) -> u64 {
    let mut burst = Burst::with_limit(BURST);
    let mut packets = 0;
    let [first, second] = queues;
    while !stop.load(Ordering::Relaxed) {
        for (from, to) in [(&mut first.rx, &mut second.tx), (&mut second.rx, &mut first.tx)] {
            packets += from.receive(&mut burst) as u64;
            to.send(&mut burst);
            burst.clear();
        }
    }
    packets
}

/// The whole worker, as a program runs it.
fn worker(eal: &Eal, pair: Pair, functions: Vec<Loaded>, slice: Duration) -> anyhow::Result<Sample> {
    let [inside, outside] = pair.names.map(str::to_owned);
    let config = RuntimeConfig {
        chain: None,
        forwarding: Some(ForwardingKind::Wire),
        ports: PortsConfig { outside: Some(outside), descriptors: DESCRIPTORS, ..PortsConfig::new(inside) },
        burst: BURST,
        packets: Some(MBUFS),
    };
    let runtime = Runtime::new(eal, &config, functions)?;
    let before = own_cpu_time()?;
    let (wall, report) = runtime.run(|_| {
        let start = Instant::now();
        std::thread::sleep(slice);
        start.elapsed()
    })?;
    let cpu = own_cpu_time()?.saturating_sub(before);
    let packets = report.balance.received;
    ensure!(report.balance.sent == packets, "not every packet was sent: {:?}", report.balance);
    Ok(Sample { packets, cpu, wall })
}

/// A control object that makes its instances and has no configuration.
struct Made<M>(&'static str, M);

impl<I, M> Function for Made<M>
where
    I: NetworkFunction,
    M: Fn(&mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
{
    type Config = ();
    type Policy = ();
    type Instance = I;

    fn name(&self) -> &str {
        self.0
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<I, SetupError> {
        (self.1)(worker)
    }

    fn adopt(_: &mut I, _: Arc<()>) {}
}

fn loaded<I: NetworkFunction>(
    name: &'static str,
    make: impl Fn(&mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
) -> Vec<Loaded> {
    vec![Loaded::new(Made(name, make), ())]
}

/// Lets everything pass, unseen.
struct Pass;

impl PacketFunction for Pass {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        black_box(packet);
        Verdict::Next
    }
}

/// Parses and looks the destination port up, as a small firewall would.
struct Parse {
    blocked: Vec<bool>,
}

impl Parse {
    /// Writes a frame into every packet of the pool: net_null hands them out as they are.
    fn new(worker: &mut WorkerSetup) -> Result<Self, SetupError> {
        let frame = Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, 53).pad_to(64).build();
        let mut packets: Vec<Mbuf> = std::iter::from_fn(|| worker.pool().alloc()).collect();
        if !packets.iter_mut().all(|packet| packet.set_contents(&frame)) {
            return Err("the frame does not fit".into());
        }
        Ok(Self { blocked: (0..=u16::MAX).map(|port| port == 9).collect() })
    }
}

impl PacketFunction for Parse {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let Ok(headers) = Headers::parse(packet.data_mut()) else { return Verdict::Drop(DropReason::POLICY) };
        match headers.transport.ports() {
            Some((_, destination)) if !self.blocked[usize::from(destination)] => Verdict::Next,
            _ => Verdict::Drop(DropReason::POLICY),
        }
    }
}
