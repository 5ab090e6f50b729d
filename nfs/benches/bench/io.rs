//! The suite `io`: what it costs to receive and send a packet, bare and through the worker,
//! beside `dpdk-testpmd` on the same devices, and over the size of a burst.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::{NULL, Pair, RING, Setting, bare, devices, made, start_eal, worker};
use crate::results::{Axis, Row};
use crate::source::Circulation;
use crate::testpmd::Testpmd;
use dpdk_rs::Burst;
use nf_framework::{Affinity, Context, Mbuf, PacketFunction, Verdict};
use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

pub(crate) const ABOUT: &str = "receive and send: bare, through the worker, and testpmd's";
pub(crate) const MEBIBYTES: u64 = 128;
const BURST: usize = Burst::USUAL;
const BURSTS: [usize; 6] = [1, 2, 4, 8, 16, 64];

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
        format!("burst {BURST} unless said"),
    ]
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let peer = RefCell::new(Testpmd::start(memory, &devices(), 1, BURST)?);
    let eal = start_eal(memory, 1)?;
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
    let rows = interleave(variants, plan)?;
    circulation.drain(&eal)?;
    Ok(rows)
}

fn at_burst<'a>(variant: Variant<'a>, series: &str, burst: usize) -> Variant<'a> {
    variant.at(Axis::Burst, series, burst as f64)
}

/// Lets everything pass, unseen.
pub(crate) struct Pass;

impl PacketFunction for Pass {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        black_box(packet);
        Verdict::Next
    }
}
