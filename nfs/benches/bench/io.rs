//! The suite `io`: what it costs to receive and send a packet, bare and through the worker,
//! beside `dpdk-testpmd` on the same devices, and over the size of a burst.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::{NULL, Pair, RING, Setting, bare, bare_with, devices, made, start_eal, start_ports_as, worker};
use crate::results::{Axis, Row};
use crate::source::Circulation;
use crate::testpmd::{Pool, Testpmd};
use dpdk_rs::{Burst, Eal, Mempool, MempoolConfig};
use nf_framework::{Affinity, Context, Mbuf, PacketFunction, Verdict};
use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

pub(crate) const ABOUT: &str = "receive and send: bare, through the worker, and testpmd's";
pub(crate) const MEBIBYTES: u64 = 128 + 2 * ROTATING_MEBIBYTES;
const BURST: usize = Burst::USUAL;
const BURSTS: [usize; 6] = [1, 2, 4, 8, 16, 64];

/// Mbufs in rotation.
const ROTATING: [(&str, u32); 3] = [("2k", 2047), ("16k", 16_383), ("256k", 262_143)];
/// MiB for all of them, on either side.
const ROTATING_MEBIBYTES: u64 = 192;
/// Bytes that these have room for behind the headroom, so that many fit, and the frames that do.
const ROOM: u16 = 256;
const MTU: u16 = 128;

pub(crate) const TESTPMD: &str = "testpmd io";
pub(crate) const MACSWAP: &str = "testpmd macswap";
pub(crate) const BARE: &str = "bare loop";
pub(crate) const WORKER: &str = "worker, Wire";
const RING_TESTPMD: &str = "ring: testpmd io";
const RING_MACSWAP: &str = "ring: testpmd macswap";

pub(crate) fn notes() -> Vec<String> {
    vec![
        "two ports of net_null, both ways, one forwarding core, 2047 mbufs, mempool cache 256: no packet's bytes are \
         touched, but by macswap"
            .to_owned(),
        "ring: two ports of net_ring, 1792 mbufs circulate between them; UDP packets of 64 bytes".to_owned(),
        "rotating: net_null and mempools without a cache, where a packet that was sent comes back after all others; MAC \
         addresses are swapped"
            .to_owned(),
        format!("burst {BURST} unless said"),
    ]
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let peer = RefCell::new(Testpmd::start(memory, &devices(), 1, BURST)?);
    let rotating = ROTATING.map(|(_, mbufs)| Rotation::peer(memory, mbufs));
    // It pins this thread, and with it what is started afterwards.
    let eal = start_eal(memory, 1)?;
    let rotations = rotating.into_iter().zip(ROTATING);
    let rotations = rotations.map(|(peer, (name, mbufs))| Rotation::new(peer?, &eal, name, mbufs));
    let rotations = rotations.collect::<anyhow::Result<Vec<_>>>()?;
    let circulation = Circulation::new(&eal, 0, 1)?;
    circulation.fill(&eal, Circulation::HOT)?;
    let mut first = Some(Circulation::HOT);
    let peer_forward = |mode: &'static str, pair: Pair, burst: usize| {
        let peer = &peer;
        move |slice: Duration| peer.borrow_mut().forward(mode, pair.numbers, burst, None, slice)
    };
    let bare_loop = |pair: Pair, burst: usize| {
        let eal = &eal;
        move |slice: Duration| bare(eal, pair, burst, slice)
    };
    let wire = |pair: Pair, burst: usize| {
        let eal = &eal;
        move |slice: Duration| worker(eal, Setting { burst, ..Setting::new(pair) }, Vec::new(), slice)
    };
    let mut variants = vec![
        at_burst(Variant::new(TESTPMD, peer_forward("io", NULL, BURST)), TESTPMD, BURST),
        at_burst(Variant::new(BARE, bare_loop(NULL, BURST)).ratio(TESTPMD), BARE, BURST),
        at_burst(Variant::new(WORKER, wire(NULL, BURST)).ratio(TESTPMD).ratio(MACSWAP), WORKER, BURST),
        Variant::new("worker, a function, Wire", |slice| {
            let pass = made("pass", Affinity::Any, |_| Ok(Pass));
            worker(&eal, Setting::new(NULL), vec![pass], slice)
        })
        .ratio(TESTPMD)
        .ratio(MACSWAP),
        Variant::new(MACSWAP, peer_forward("macswap", NULL, BURST)).ratio(TESTPMD),
        Variant::new(RING_TESTPMD, |slice| peer.borrow_mut().forward("io", RING.numbers, BURST, first.take(), slice)),
        Variant::new("ring: bare loop", bare_loop(RING, BURST)).ratio(RING_TESTPMD),
        Variant::new("ring: worker, Wire", wire(RING, BURST)).ratio(RING_TESTPMD).ratio(RING_MACSWAP),
        Variant::new(RING_MACSWAP, peer_forward("macswap", RING, BURST)).ratio(RING_TESTPMD),
        Variant::new("ring: testpmd 5tswap", peer_forward("5tswap", RING, BURST)).ratio(RING_TESTPMD),
    ];
    for burst in BURSTS {
        let name = |series: &str| format!("burst {burst}: {series}");
        let testpmd = name(TESTPMD);
        variants.extend([
            at_burst(Variant::new(testpmd.clone(), peer_forward("io", NULL, burst)), TESTPMD, burst),
            at_burst(Variant::new(name(BARE), bare_loop(NULL, burst)).ratio(&testpmd), BARE, burst),
            at_burst(Variant::new(name(WORKER), wire(NULL, burst)).ratio(&testpmd), WORKER, burst),
        ]);
    }
    for rotation in &rotations {
        variants.extend(rotation.variants(&eal));
    }
    let rows = interleave(variants, plan)?;
    circulation.drain(&eal)?;
    Ok(rows)
}

fn at_burst<'a>(variant: Variant<'a>, series: &str, burst: usize) -> Variant<'a> {
    variant.at(Axis::Burst, series, burst as f64)
}

/// As many packets on both sides, which take turns whatever is done with them.
struct Rotation {
    name: &'static str,
    testpmd: RefCell<Testpmd>,
    pool: Mempool,
}

impl Rotation {
    fn peer(memory: Memory, mbufs: u32) -> anyhow::Result<Testpmd> {
        let pool = Pool { mbufs, cache: 0, room: Some(128 + ROOM) };
        Testpmd::start_with(memory.of_size(2 * ROTATING_MEBIBYTES), &NULL.names, 1, BURST, pool)
    }

    fn new(testpmd: Testpmd, eal: &Eal, name: &'static str, mbufs: u32) -> anyhow::Result<Self> {
        let config = MempoolConfig { size: mbufs, cache: 0, data_room: ROOM, ..MempoolConfig::default() };
        let pool = Mempool::new(eal, &format!("rotating-{name}"), config)?;
        Ok(Self { name, testpmd: RefCell::new(testpmd), pool })
    }

    fn variants<'a>(&'a self, eal: &'a Eal) -> [Variant<'a>; 2] {
        let mbufs = f64::from(self.pool.config().size);
        let row = |name: &str| format!("{} mbufs rotate: {name}", self.name);
        let peer = move |slice| self.testpmd.borrow_mut().forward("macswap", NULL.numbers, BURST, None, slice);
        let ours = move |slice| {
            let ports = start_ports_as(eal, NULL, |port| port.pool(&self.pool).mtu(MTU))?;
            bare_with(eal, ports, BURST, swap_macs, slice)
        };
        let own = "bare loop, macswap";
        [
            Variant::new(row(MACSWAP), peer).at(Axis::Mbufs, MACSWAP, mbufs),
            Variant::new(row(own), ours).ratio(row(MACSWAP)).at(Axis::Mbufs, own, mbufs),
        ]
    }
}

fn swap_macs(burst: &mut Burst) {
    burst.iter().for_each(Mbuf::prefetch);
    for packet in burst.iter_mut() {
        let Some(head) = packet.data_mut().first_chunk_mut::<12>() else { continue };
        let (destination, source) = head.split_at_mut(6);
        destination.swap_with_slice(source);
    }
}

/// Lets everything pass, unseen.
pub(crate) struct Pass;

impl PacketFunction for Pass {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        black_box(packet);
        Verdict::Next
    }
}
