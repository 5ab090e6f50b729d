//! The suite `tables`: what a flow look-up costs, with the work of a packet between one and the
//! next: the flow table, DPDK's `rte_hash` looked up in bulk, and `hashbrown` looked up one by one.
//!
//! Each packet's flow is drawn uniformly from those that exist. Its state is read, goes
//! through 120 instructions each of which waits for the one before, and is written: without
//! that work the processor would look several keys up at once for those who do not batch.
//! For `rte_hash` the states of a burst are asked for ahead, as a good user would; without is
//! shown too. The bare work is done on states that need no look-up and stay in cache. Keys have
//! 16 bytes and states 40: one line for each flow where key and state lie together.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave, own_cpu_time};
use crate::ours::start_eal;
use crate::results::{Axis, Relation, Row, Sample};
use crate::source::{Key, key};
use crate::statistics::Random;
use anyhow::{Context as _, ensure};
use dpdk_rs::rte_hash::RteHash;
use dpdk_rs::{Eal, HashKey, HugeSlice, prefetch};
use hashbrown::HashMap;
use nf_framework::{Class, Entry, FlowTable, Handle, Instant};
use std::hint::black_box;
use std::rc::Rc;
use std::time::{self, Duration};

pub(crate) const ABOUT: &str = "flow look-ups: the flow table beside rte_hash and hashbrown";

const BURST: usize = 32;
/// Look-ups from one reading of the clock to the next.
const PIECE: usize = 512 * BURST;
/// Dependent instructions per packet.
const WORK: u32 = 120;

const BARE: &str = "bare work";
const BATCH: &str = "flow table, batch";
const BULK: &str = "rte_hash, bulk";
const MAP: &str = "hashbrown, one by one";

/// What a packet's work reads and writes.
#[derive(Clone, Copy, Default, Debug)]
struct State {
    packets: u64,
    last: u64,
    _rest: [u64; 3],
}

/// A packet's life without its look-up.
#[inline(always)]
fn work(state: &mut State, carried: u64) -> u64 {
    let mut x = carried ^ state.last;
    for _ in 0..WORK / 3 {
        // Each waits for the last, and nothing of it can be left out.
        x = black_box(x).rotate_left(7);
        x = x.wrapping_add(0x9e37);
        x ^= 0x5bd1;
    }
    state.packets += 1;
    state.last = x;
    x
}

/// Something that keeps states by key.
trait Flows {
    fn packets(&mut self, keys: &[Key], carried: u64) -> u64;
}

struct Bare(Vec<State>);

impl Flows for Bare {
    #[inline(never)]
    fn packets(&mut self, keys: &[Key], mut carried: u64) -> u64 {
        for keys in keys.chunks(self.0.len()) {
            for (key, state) in keys.iter().zip(&mut self.0) {
                carried = work(state, carried ^ u64::from(key[0]));
            }
        }
        carried
    }
}

struct Ours {
    table: FlowTable<Key, State>,
    touching: bool,
}

impl Flows for Ours {
    #[inline(never)]
    fn packets(&mut self, keys: &[Key], mut carried: u64) -> u64 {
        let mut found: [Option<Handle>; BURST] = [None; BURST];
        let later = Instant::from_nanoseconds(1 << 40);
        for keys in keys.chunks(BURST) {
            self.table.lookup_batch(keys, &mut found);
            for (key, handle) in keys.iter().zip(found) {
                let Some(handle) = handle else { continue };
                if self.touching {
                    self.table.touch(handle, later);
                }
                if let Some(Entry { value: state, .. }) = self.table.entry_mut(handle) {
                    carried = work(state, carried ^ u64::from(key[0]));
                }
            }
        }
        carried
    }
}

struct OursSingly(FlowTable<Key, State>);

impl Flows for OursSingly {
    #[inline(never)]
    fn packets(&mut self, keys: &[Key], mut carried: u64) -> u64 {
        for key in keys {
            let Some(handle) = self.0.lookup(key) else { continue };
            if let Some(Entry { value: state, .. }) = self.0.entry_mut(handle) {
                carried = work(state, carried ^ u64::from(key[0]));
            }
        }
        carried
    }
}

struct Dpdk {
    hash: Rc<RteHash>,
    states: HugeSlice<Line>,
    /// Whether all states of a burst are asked for before the first is used.
    prefetching: bool,
}

/// A state that does not cross cache lines, as a good user of rte_hash would have it.
#[repr(align(64))]
struct Line(State);

impl Flows for Dpdk {
    #[inline(never)]
    fn packets(&mut self, keys: &[Key], mut carried: u64) -> u64 {
        let mut positions = [0; BURST];
        for keys in keys.chunks(BURST) {
            self.hash.lookup_bulk(keys, &mut positions);
            if self.prefetching {
                for position in &positions {
                    if let Some(state) = usize::try_from(*position).ok().and_then(|position| self.states.get(position))
                    {
                        prefetch(state);
                    }
                }
            }
            for (key, position) in keys.iter().zip(positions) {
                let state = usize::try_from(position).ok().and_then(|position| self.states.get_mut(position));
                if let Some(Line(state)) = state {
                    carried = work(state, carried ^ u64::from(key[0]));
                }
            }
        }
        carried
    }
}

struct Map(HashMap<Key, State>);

impl Flows for Map {
    #[inline(never)]
    fn packets(&mut self, keys: &[Key], mut carried: u64) -> u64 {
        for key in keys {
            if let Some(state) = self.0.get_mut(key) {
                carried = work(state, carried ^ u64::from(key[0]));
            }
        }
        carried
    }
}

/// Numbers of flows, the largest of which a quick run leaves out.
fn sizes(quick: bool) -> &'static [(&'static str, u32)] {
    const ALL: [(&str, u32); 4] = [("1k", 1_000), ("64k", 64_000), ("1M", 1_000_000), ("4M", 4_000_000)];
    if quick { &ALL[..3] } else { &ALL }
}

/// MiB for three tables of ours and rte_hash with its states, twice.
pub(crate) fn mebibytes(quick: bool) -> u64 {
    let most = sizes(quick).iter().map(|(_, flows)| u64::from(*flows)).max().unwrap_or(0);
    64 + most * (3 * 80 + 230) / (1 << 20)
}

pub(crate) fn notes() -> Vec<String> {
    vec![
        format!("burst {BURST}, {WORK} dependent instructions per packet; net is without what those cost (bare work)"),
        "hashbrown's memory is malloc's, with transparent huge pages".to_owned(),
        "hash: flow table: keyed folded multiplication, random key; rte_hash: CRC32; hashbrown: foldhash".to_owned(),
        "1k flows are 1000, 64k 64000, and so on; all tables have room for an eighth to twice as many".to_owned(),
    ]
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let eal = start_eal(memory, 1)?;
    let mut rows = Vec::new();
    for (name, flows) in sizes(plan.quick) {
        rows.extend(interleave(variants(&eal, name, *flows)?, plan).with_context(|| format!("{name} flows"))?);
    }
    Ok(rows)
}

fn variants(eal: &Eal, size: &str, flows: u32) -> anyhow::Result<Vec<Variant<'static>>> {
    let memory = eal.memory();
    let ours = || -> anyhow::Result<FlowTable<Key, State>> {
        let mut table = FlowTable::with_capacity(&memory, flows as usize, HashKey::random())?;
        let (now, later) = (Instant::START, Instant::from_nanoseconds(1 << 40));
        let mut gone = 0;
        for number in 0..flows {
            let inserted = table.insert(key(number), State::default(), Class::KEPT, now, later, |_| gone += 1);
            ensure!(inserted.is_ok(), "the flow table is full");
        }
        // All flows are to be there for those who are compared.
        ensure!(gone <= flows / 200, "{gone} of {flows} flows were evicted");
        Ok(table)
    };
    let mut hash = RteHash::new(eal, &format!("flows{flows}"), flows.next_power_of_two())
        .map_err(|errno| anyhow::anyhow!("rte_hash: {errno}"))?;
    let states = || memory.slice(flows.next_power_of_two() as usize + 1, |_| Line(State::default()));
    let mut map = HashMap::with_capacity(flows as usize);
    for number in 0..flows {
        let added = hash.add(&key(number));
        added.map_err(|errno| anyhow::anyhow!("rte_hash takes {number} of {flows}: {errno}"))?;
        map.insert(key(number), State::default());
    }
    let hash = Rc::new(hash);
    let dpdk = |prefetching| -> anyhow::Result<_> {
        Ok(Box::new(Dpdk { hash: Rc::clone(&hash), states: states()?, prefetching }))
    };
    let mut random = Random(u64::from(flows));
    // A stream that is longer than what a predictor could learn, read in order by all.
    let stream: Rc<[Key]> = (0..(1_usize << 21).next_multiple_of(PIECE))
        .map(|_| key(u32::try_from(random.next() % u64::from(flows)).unwrap_or(0)))
        .collect();
    let row = |name: &str| format!("{size} flows: {name}");
    let variant = |name: &str, table: Box<dyn Flows>| {
        let variant = Variant::new(row(name), slices(table, Rc::clone(&stream)));
        if name == BARE {
            return variant;
        }
        let variant = variant.net(row(BARE)).at(Axis::Flows, name, f64::from(flows));
        [BULK, MAP].into_iter().filter(|base| name != *base && name.starts_with("flow")).fold(variant, |of, base| {
            of.ratio(row(base)).related(Relation::NetRatio { base: row(base), less: row(BARE) })
        })
    };
    Ok(vec![
        variant(BARE, Box::new(Bare(vec![State::default(); BURST]))),
        variant(BATCH, Box::new(Ours { table: ours()?, touching: false })),
        variant(BULK, dpdk(true)?),
        variant(MAP, Box::new(Map(map))),
        variant("flow table, batch + touch", Box::new(Ours { table: ours()?, touching: true })),
        variant("rte_hash, no state prefetch", dpdk(false)?),
        variant("flow table, one by one", Box::new(OursSingly(ours()?))),
    ])
}

/// Runs a slice: another piece of the stream first each time.
fn slices(mut flows: Box<dyn Flows>, stream: Rc<[Key]>) -> impl FnMut(Duration) -> anyhow::Result<Sample> {
    let (mut carried, mut first) = (1, 0);
    move |slice| {
        first += 37;
        let mut pieces = stream.chunks_exact(PIECE).cycle().skip(first % 128);
        let (cpu, start, mut packets) = (own_cpu_time()?, time::Instant::now(), 0);
        while start.elapsed() < slice {
            let keys = pieces.next().unwrap_or_default();
            carried = flows.packets(keys, carried);
            packets += keys.len() as u64;
        }
        let wall = start.elapsed();
        black_box(carried);
        Ok(Sample::new(packets, own_cpu_time()?.saturating_sub(cpu), wall))
    }
}
