//! The suite `router`: what a router costs around an empty chain, by family, number of routes, and
//! mbufs in rotation.

use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::{NULL, RING, Setting, config, devices, start_eal, start_ports, stop_ports, timed};
use crate::results::{Axis, Row};
use crate::routed::{Around, Destinations, FRAME, Keep, Routed};
use crate::scored::{COLD, HOT, SHARED};
use crate::source::{CIRCULATING, Circulation, Lent, Shelf, Store};
use crate::testpmd::Testpmd;
use anyhow::{Context as _, ensure};
use dpdk_rs::{Burst, Eal, Mbuf};
use nf_framework::{ForwardingKind, Runtime, RuntimeConfig};
use std::cell::RefCell;
use std::rc::Rc;

pub(crate) const ABOUT: &str = "a router: IPv4, IPv6, many routes, many neighbours";
pub(crate) const MEBIBYTES: u64 = 384;

pub(crate) const V4: &str = "IPv4, 1k routes";
pub(crate) const V4_MANY: &str = "IPv4, 100k routes";
pub(crate) const V6: &str = "IPv6, 1k routes";
pub(crate) const NEIGHBOURS: &str = "IPv4, 1k neighbours";

const ALL: [&str; 3] = [HOT, SHARED, COLD];
/// What packets there are, and from which sources.
const TRAFFIC: [(&str, Destinations, &[&str]); 4] = [
    (V4, Destinations::V4(1 << 10), &ALL),
    (V6, Destinations::V6(1 << 10), &ALL),
    (NEIGHBOURS, Destinations::Neighbours(1 << 10), &[HOT, SHARED]),
    (V4_MANY, Destinations::V4(100_000), &[HOT, SHARED]),
];

fn mbufs(source: &str) -> u32 {
    match source {
        SHARED => 16 << 10,
        COLD => 256 << 10,
        _ => CIRCULATING,
    }
}

pub(crate) fn notes() -> Vec<String> {
    [
        "score = 1 + (own - base) / testpmd macswap, costs of quiet rounds; base is the same worker and source with Wire",
        "64-byte UDP, both directions, burst 32, no function between; what a port sends comes back by it, and outside of \
         the router its headers are written anew: MAC addresses, TTL, checksum, the next destination, each once in no \
         order, then again; the base does that too",
        "routes: five in eight are /24 (/48), the others longer and shorter, half of them to each side through 4 next \
         hops there; neighbours: every destination is one; all have introduced themselves by ARP or Neighbor Discovery \
         before the first packet",
        "hot: 1792 mbufs; 16k and 256k mbufs: cold when they arrive, as from a NIC",
    ]
    .map(str::to_owned)
    .into()
}

/// Those of one side each.
struct Stores([Lent<Store>; 2]);

impl Keep for Stores {
    #[inline]
    fn exchange(&mut self, side: usize, packet: &mut Mbuf) {
        if let Some(store) = self.0[side].get() {
            store.exchange(packet);
        }
    }
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    // Before the EAL pins this thread.
    let testpmd = RefCell::new(Testpmd::start(memory, &devices(), 1, Burst::USUAL)?);
    let eal = start_eal(memory, 1)?;
    let more = TRAFFIC.iter().flat_map(|(_, _, sources)| *sources).map(|source| mbufs(source)).sum();
    let circulation = Circulation::new(&eal, more, 1)?;
    circulation.fill(&eal, Circulation::HOT)?;
    let mut variants = vec![Variant::new(MACSWAP, |slice| {
        testpmd.borrow_mut().forward("macswap", NULL.numbers, Burst::USUAL, None, slice)
    })];
    let macs = circulation.macs(&eal)?;
    for (name, to, sources) in TRAFFIC {
        let routed = Rc::new(Routed::new(to, macs)?);
        for source in sources {
            let fill = |side: usize, number: u32, packet: &mut Mbuf| routed.flows[side].fill(number as usize, packet);
            let stores = circulation.stores_of(mbufs(source), fill)?;
            let base = format!("{source}: base, {name}");
            let variant = |row: &str, forwarding| variant(&eal, row, forwarding, &routed, &stores);
            variants.push(variant(&base, ForwardingKind::Wire));
            let router = variant(&format!("{source}: {name}"), ForwardingKind::Router).score(&base, MACSWAP);
            variants.push(router.at(Axis::Mbufs, name, f64::from(mbufs(source))));
        }
    }
    let rows = interleave(variants, plan)?;
    circulation.drain(&eal)?;
    Ok(rows)
}

fn variant<'a>(
    eal: &'a Eal,
    row: &str,
    forwarding: ForwardingKind,
    routed: &Rc<Routed>,
    stores: &[Shelf<Store>; 2],
) -> Variant<'a> {
    let (routed, stores) = (Rc::clone(routed), stores.clone());
    let router = forwarding == ForwardingKind::Router;
    Variant::new(row, move |slice| {
        let config = RuntimeConfig {
            forwarding: Some(forwarding),
            router: router.then(|| routed.config.clone()),
            ..config(Setting::new(RING))
        };
        let (flows, stores) = (routed.flows.clone(), stores.clone());
        let runtime = Runtime::new(eal, &config, Vec::new())?.around(move |inner| {
            let lent = stores.each_ref().map(|store| store.take().expect("one worker at a time"));
            Box::new(Around::new(inner, &flows, router, Stores(lent)))
        });
        let (sample, report) = timed(runtime, slice)?;
        // What the router itself says comes back too, and is not for it.
        let dropped = report.balance.dropped - report.dropped("stopped");
        ensure!(dropped < 256, "packets were dropped: {report}");
        Ok(sample)
    })
}

impl Circulation {
    fn macs(&self, eal: &Eal) -> anyhow::Result<[[u8; 6]; 2]> {
        let ports = start_ports(eal, RING, self.unused(), 1)?;
        let macs = ports.each_ref().map(|(port, _)| port.info().map(|info| info.mac_address));
        stop_ports(ports)?;
        let [inside, outside] = macs;
        Ok([inside.context("a port's MAC address")?, outside.context("a port's MAC address")?])
    }
}

const _: () = assert!(FRAME == crate::source::FRAME);
