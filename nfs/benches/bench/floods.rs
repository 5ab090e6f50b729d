//! The suite `floods`: what a router forwards while a second lcore gives its neighbours work.
//!
//! Two workers on net_null. The first forwards; to the second one come only requests of ARP, or
//! packets to neighbours that there are not, as fast as it takes them, and what it cannot do by
//! itself it gives to the first, which owns the neighbours.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave, own_cpu_time};
use crate::ours::{NULL, Setting, config, start_eal, start_ports, stop_ports};
use crate::results::{Row, Sample};
use crate::routed::{Destinations, Flood, Flow, Routed};
use anyhow::{Context as _, ensure};
use dpdk_rs::{Mempool, MempoolConfig};
use nf_framework::{Batch, Budget, Context, Forwarding, ForwardingKind, Runtime, RuntimeConfig, Verdict};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a router's forwarding while a second lcore floods its neighbours";
pub(crate) const MEBIBYTES: u64 = 192;

const QUIET: &str = "no flood";

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is the CPU time of the first worker for each packet that it forwards: goodput as a ratio to that without \
         a flood is the inverse of the ratio",
        "net_null, IPv4, 1k routes; the second worker has as many packets without a flood, and drops them",
        "what was offered, and the process's memory before and after, is said while it runs",
    ]
    .map(str::to_owned)
    .into()
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let eal = start_eal(memory, 2)?;
    let pool = Mempool::new(&eal, "unused", MempoolConfig { size: 4095, ..MempoolConfig::default() })?;
    let ports = start_ports(&eal, NULL, &pool, 1)?;
    let macs = ports.each_ref().map(|(port, _)| port.info().map(|info| info.mac_address));
    stop_ports(ports)?;
    let [inside, outside] = macs;
    let routed = Rc::new(Routed::new(Destinations::V4(1 << 10), [inside?, outside?])?);
    let kinds = [(QUIET, None), ("ARP requests", Some(Flood::Arp)), ("to nobody", Some(Flood::ToNobody))];
    let totals: Vec<(&str, Arc<AtomicU64>, Arc<AtomicU64>)> =
        kinds.iter().map(|(name, _)| (*name, Arc::default(), Arc::default())).collect();
    let before = resident()?;
    let mut variants = Vec::new();
    for ((name, flood), (_, offered_in_all, time_in_all)) in kinds.iter().zip(&totals) {
        let (eal, routed) = (&eal, Rc::clone(&routed));
        let flood = flood.map(|flood| Flow::flood(flood, routed.flows[0].router()));
        let run = move |slice: Duration| {
            let (sent, offered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let config = RuntimeConfig {
                forwarding: Some(ForwardingKind::Router),
                router: Some(routed.config.clone()),
                ..config(Setting::new(NULL))
            };
            let (flows, flood) = (routed.flows.clone(), flood.clone());
            let (main, both) = (std::thread::current().id(), (Arc::clone(&sent), Arc::clone(&offered)));
            let runtime = Runtime::new(eal, &config, Vec::new())?.around(move |inner| {
                let first = std::thread::current().id() == main;
                Box::new(Source {
                    inner,
                    flows: flows.clone(),
                    flood: flood.clone(),
                    first,
                    next: 0,
                    said: [0; 2],
                    ticked: false,
                    sent: Arc::clone(&both.0),
                    offered: Arc::clone(&both.1),
                })
            });
            let cpu = own_cpu_time()?;
            let (wall, report) = runtime.run(|_| {
                let start = Instant::now();
                std::thread::sleep(slice);
                start.elapsed()
            })?;
            let cpu = own_cpu_time()?.saturating_sub(cpu);
            ensure!(report.balance.held == 0, "packets are held: {report}");
            let offered = offered.load(Ordering::Relaxed);
            offered_in_all.fetch_add(offered, Ordering::Relaxed);
            time_in_all.fetch_add(u64::try_from(wall.as_nanos())?, Ordering::Relaxed);
            Ok(Sample::new(sent.load(Ordering::Relaxed), cpu, wall))
        };
        let variant = Variant::new(*name, run);
        variants.push(if *name == QUIET { variant } else { variant.ratio(QUIET) });
    }
    let rows = interleave(variants, plan)?;
    for (name, offered, time) in &totals {
        let rate = offered.load(Ordering::Relaxed) as f64 * 1000.0 / time.load(Ordering::Relaxed) as f64;
        eprintln!("floods: {name}: {rate:.2} million flood packets offered in a second");
    }
    eprintln!("floods: resident memory {before} KiB before, {} KiB after", resident()?);
    Ok(rows)
}

/// The process's memory in KiB.
pub(crate) fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

/// Writes the packets that arrive at a worker.
struct Source {
    inner: Box<dyn Forwarding>,
    flows: [Flow; 2],
    flood: Option<Flow>,
    /// Whether this worker forwards; the other one is flooded.
    first: bool,
    next: usize,
    /// By side: hellos.
    said: [usize; 2],
    ticked: bool,
    sent: Arc<AtomicU64>,
    offered: Arc<AtomicU64>,
}

impl Forwarding for Source {
    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let side = usize::from(cx.direction() == nf_framework::Direction::Inbound);
        let mut written = 0;
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            self.next = self.next.wrapping_add(1);
            let fits = match (self.first, &self.flood) {
                (true, _) if !self.ticked => false,
                (true, _) => match self.flows[side].hello(self.said[side]) {
                    Some(hello) => {
                        self.said[side] += 1;
                        packet.set_contents(hello)
                    }
                    None => self.flows[side].fill(self.next, packet),
                },
                (false, Some(flood)) if side == 0 => {
                    written += 1;
                    flood.fill(self.next, packet)
                }
                (false, _) => false,
            };
            if !fits {
                batch.decide(slot, Verdict::Drop(nf_framework::DropReason::POLICY));
            }
        }
        self.offered.fetch_add(written, Ordering::Relaxed);
        self.inner.ingress(batch, cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let slots = batch.undecided();
        self.inner.egress(batch, cx);
        if self.first {
            let gone = |slot: &usize| matches!(batch.verdict(*slot), Verdict::Send(_)) && batch.packet(*slot).is_some();
            self.sent.fetch_add(slots.filter(gone).count() as u64, Ordering::Relaxed);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.ticked = true;
        self.inner.tick(cx, budget);
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        self.inner.stop(cx);
    }

    fn held(&self) -> usize {
        self.inner.held()
    }
}
