//! The suite `custom`: what a function of a user's own costs, one that looks at each packet,
//! and one that looks up and updates the state of each packet's flow, which is the least that
//! a stateful function costs.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::made;
use crate::port_block::PortBlock;
use crate::results::{Axis, Row};
use crate::scored::{self, Source, Stage, usual_flows};
use crate::source::{Flows, Lent, Shelf, key, key_of};
use anyhow::ensure;
use dpdk_rs::{Burst, Eal, HashKey};
use nf_framework::headers::{Headers, Network};
use nf_framework::{
    Affinity, Batch, Class, Context, Direction, Entry, FlowTable, Handle, Instant, Loaded, NetworkFunction,
};
use std::time::Duration;

pub(crate) const ABOUT: &str = "a function of your own: per packet, and with a flow look-up per packet";
/// Tables of 1k, 64k and 1M flows beside the packets.
pub(crate) const MEBIBYTES: u64 = scored::MEBIBYTES + 112;

pub(crate) const PER_PACKET: &str = "port-block";
const FLOWS: [(&str, u32); 3] = [("1k", 1 << 10), ("64k", 1 << 16), ("1M", 1 << 20)];

pub(crate) fn notes() -> Vec<String> {
    let own = [
        "64k mbufs: their lines just fit into a last cache that nobody else uses, so what they cost is what the \
         neighbours leave of it; they have a place in the plot, and no score",
        "port-block: the example of 40 lines, nf-framework/examples/port-block",
        "flow table: parses, looks the flow up by addresses and ports with its burst, counts the packet, renews the \
         deadline; 1k flows are 1024, 64k 65536, 1M 1048576",
    ];
    scored::notes().into_iter().chain(own.map(str::to_owned)).collect()
}

/// The row of a flow look-up.
pub(crate) fn stateful(flows: &str) -> String {
    format!("flow table, {flows} flows")
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(memory)?;
    let mut variants = vec![stage.macswap()];
    let mut tables = Vec::new();
    for (name, flows) in FLOWS {
        tables.push((name, flows, Shelf::new(Flow::table(&stage.eal, flows)?)));
    }
    for source in stage.rings()?.into_iter().chain([stage.generator()]) {
        if source.rotates() {
            variants.push(over_mbufs(stage.untouched(&source), "untouched", &source));
        }
        variants.push(over_mbufs(stage.base(&source), "base", &source));
        let per_packet = stage.scored(&source, PER_PACKET, usual_flows(), port_block);
        variants.push(over_mbufs(per_packet, PER_PACKET, &source));
        for (name, flows, table) in &tables {
            let (row, table) = (stateful(name), table.clone());
            let functions = move || {
                let table = table.clone();
                vec![made("flow-table", Affinity::Any, move |_| {
                    Ok(Stateful { flows: table.take().ok_or("another worker has the table")? })
                })]
            };
            let variant = over_mbufs(stage.scored(&source, &row, Flows::All(*flows), functions), &row, &source);
            variants.push(variant.at(Axis::Flows, source.name, f64::from(*flows)));
        }
    }
    let edge = stage.edge()?;
    variants.push(over_mbufs(stage.untouched(&edge), "untouched", &edge));
    variants.push(over_mbufs(stage.base(&edge), "base", &edge));
    variants.push(over_mbufs(stage.plain(&edge, PER_PACKET, port_block), PER_PACKET, &edge));
    let rows = interleave(variants, plan)?;
    stage.stop()?;
    Ok(rows)
}

/// A place in the plot over mbufs, which the second source has none in.
fn over_mbufs<'a>(variant: Variant<'a>, series: &str, source: &Source) -> Variant<'a> {
    if source.rotates() { variant.at(Axis::Mbufs, series, f64::from(source.mbufs)) } else { variant }
}

pub(crate) fn port_block() -> Vec<Loaded> {
    vec![made("port-block", Affinity::Any, PortBlock::new)]
}

/// What is kept of a flow: with its key it fills a line.
#[derive(Clone, Copy, Default, Debug)]
struct Flow {
    packets: u64,
    bytes: u64,
    last: u64,
    _rest: [u64; 2],
}

type Table = FlowTable<[u8; 16], Flow>;

impl Flow {
    const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

    fn table(eal: &Eal, flows: u32) -> anyhow::Result<Table> {
        let mut table = Table::with_capacity(&eal.memory(), flows as usize, HashKey::random())?;
        let (now, later) = (Instant::START, Instant::START + Self::TIMEOUT);
        let mut gone = 0;
        for number in 0..flows {
            let inserted = table.insert(key(number), Self::default(), Class::KEPT, now, later, |_| gone += 1);
            ensure!(inserted.is_ok(), "the flow table is full");
        }
        ensure!(gone <= flows / 200, "{gone} of {flows} flows were evicted");
        Ok(table)
    }
}

/// Looks up and updates the state of each packet's flow. Packets of unknown flows pass.
struct Stateful {
    flows: Lent<Table>,
}

impl NetworkFunction for Stateful {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(flows) = self.flows.get() else { return };
        let mut keys = [[0; 16]; Burst::CAPACITY];
        let mut slots = [0; Burst::CAPACITY];
        let mut found: [Option<Handle>; Burst::CAPACITY] = [None; Burst::CAPACITY];
        let mut count = 0;
        batch.prefetch();
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let Ok(headers) = Headers::parse(packet.data_mut()) else { continue };
            let (Network::Ipv4 { header, .. }, Some((from, to))) = (&headers.network, headers.transport.ports()) else {
                continue;
            };
            let (source, destination) = (header.source, header.destination);
            keys[count] = match cx.direction() {
                Direction::Outbound => key_of(source, destination, from, to),
                Direction::Inbound => key_of(destination, source, to, from),
            };
            slots[count] = slot;
            count += 1;
        }
        flows.lookup_batch(&keys[..count], &mut found[..count]);
        let deadline = cx.now() + Flow::TIMEOUT;
        for (slot, handle) in slots[..count].iter().zip(found) {
            let Some(handle) = handle else { continue };
            let bytes = batch.packet(*slot).map_or(0, |packet| packet.len() as u64);
            if let Some(Entry { value: flow, .. }) = flows.entry_mut(handle) {
                flow.packets += 1;
                flow.bytes += bytes;
                flow.last = deadline.as_nanoseconds();
            }
            flows.touch(handle, deadline);
        }
    }
}
