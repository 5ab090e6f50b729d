//! What a flow look-up costs, with the work of a packet between one and the next: the flow
//! table, DPDK's `rte_hash` looked up in bulk, and `hashbrown` looked up one by one.
//!
//! `cargo bench -p nfs --bench tables -- [--quick] [--rounds N] [--flows 1000000]`
//!
//! Each packet's flow is drawn uniformly from those that exist. Its state is read, goes
//! through 120 instructions each of which waits for the one before, and is written: without
//! that work the processor would look several keys up at once for those who do not batch.
//! For `rte_hash` the states of a burst are asked for
//! ahead, as a good user would; without is shown too. `bare` does the same work on states that need no look-up and stay in cache. Keys have 16
//! bytes and states 40: one line for each flow where key and state lie together. Variants run
//! in turn, slice by slice; figures are of the thread's CPU time, and medians over the rounds,
//! as are the ratios, of figures of one round each.
#![forbid(unsafe_code)]

use anyhow::{Context as _, bail, ensure};
use dpdk_rs::rte_hash::RteHash;
use dpdk_rs::{Eal, HashKey, HugeSlice, Version, prefetch};
use hashbrown::HashMap;
use nf_framework::{Class, FlowTable, Handle, Instant};
use std::fs::read_to_string;
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;
use std::time::{self, Duration};
use std::{array, env, fmt};

const BURST: usize = 32;
/// Look-ups from one reading of the clock to the next.
const PIECE: usize = 512 * BURST;
/// Dependent instructions per packet.
const WORK: u32 = 120;

type Key = [u8; 16];

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
                if let Some((_, state)) = self.table.entry_mut(handle) {
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
            if let Some((_, state)) = self.0.entry_mut(handle) {
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

/// The same random numbers on every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Flow `number`: an IPv4 tuple of a client in 10/8 and a server.
fn key(number: u32) -> Key {
    let client = (0x0a00_0000_u32 | number >> 4).to_be_bytes();
    let port = (1024 + (number & 15) * 2731).to_be_bytes();
    let mut key = [0; 16];
    key[..4].copy_from_slice(&client);
    key[4..8].copy_from_slice(&[192, 0, 2, 1]);
    key[8..10].copy_from_slice(&port[2..]);
    key[10..12].copy_from_slice(&443_u16.to_be_bytes());
    key[12] = 6;
    key
}

struct Variant {
    name: &'static str,
    flows: Box<dyn Flows>,
    /// CPU nanoseconds per packet, by round.
    costs: Vec<f64>,
    wall: Vec<f64>,
}

struct Options {
    rounds: usize,
    slice: Duration,
    sizes: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if env::var_os(TUNABLES).is_none() {
        // The C library reads it at start: malloc then asks for transparent huge pages.
        let program = env::current_exe().context("no path to this program")?;
        let error = Command::new(program).args(env::args_os().skip(1)).env(TUNABLES, "glibc.malloc.hugetlb=1").exec();
        return Err(error).context("cannot start again with huge pages for malloc");
    }
    let options = options()?;
    let huge = needs_less_than_free(options.sizes.iter().copied().max().unwrap_or(0));
    let eal = start(huge)?;
    describe(&options, huge);
    for flows in &options.sizes {
        run(&eal, *flows, &options).with_context(|| format!("{flows} flows"))?;
    }
    Ok(())
}

fn options() -> anyhow::Result<Options> {
    let (mut rounds, mut quick, mut sizes) = (None, false, Vec::new());
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).with_context(|| format!("{arg} N"));
        match arg.as_str() {
            "--quick" => quick = true,
            "--rounds" => rounds = Some(number()? as usize),
            "--flows" => sizes.push(number()?),
            "--bench" => {}
            _ => bail!("unknown argument {arg}: there are --quick, --rounds N and --flows N"),
        }
    }
    if sizes.is_empty() {
        sizes = vec![1_000, 64_000, 1_000_000, 4_000_000];
    }
    ensure!(sizes.iter().all(|flows| (1..=1 << 26).contains(flows)), "--flows takes 1 to 67108864");
    let (usual, slice) = if quick { (5, 100) } else { (9, 400) };
    Ok(Options { rounds: rounds.unwrap_or(usual).max(1), slice: Duration::from_millis(slice), sizes })
}

/// What the EAL gets, in MiB: three tables of ours, rte_hash with its states, twice.
fn mebibytes(flows: u32) -> u64 {
    64 + u64::from(flows) * (3 * 80 + 230) / (1 << 20)
}

fn needs_less_than_free(flows: u32) -> bool {
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |name| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().find_map(|word| word.parse::<u64>().ok())
    };
    let free = value("HugePages_Free:").unwrap_or(0) * value("Hugepagesize:").unwrap_or(0) / 1024;
    free >= mebibytes(flows)
}

fn start(huge: bool) -> anyhow::Result<Eal> {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0").trim().to_owned();
    let cpu = cpus.rsplit([',', '-']).next().unwrap_or("0");
    let memory: &[&str] =
        if huge { &["--in-memory", "--iova-mode=va"] } else { &["--no-huge", "--no-shconf", "-m", "2048"] };
    let fixed = ["tables", "--no-pci", "--no-telemetry", "--log-level=error"];
    let arguments = fixed.into_iter().chain(memory.iter().copied()).map(str::to_owned);
    Ok(Eal::init(arguments.chain([format!("--lcores=0@{cpu}")]))?.0)
}

fn describe(options: &Options, huge: bool) {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    println!("processor  {}", processor.trim_start_matches([' ', '\t', ':']));
    println!("DPDK       {}; compiled for corei7 by Debian; ours for x86-64", Version::loaded());
    let memory = if huge { "hugepages" } else { "ordinary pages (too few hugepages are free)" };
    println!(
        "memory     flow table and rte_hash with its states: {memory}; hashbrown: malloc with transparent huge pages"
    );
    println!(
        "method     burst {BURST}, {WORK} dependent instructions per packet, {} rounds of {} ms in turn, after one to warm up",
        options.rounds,
        options.slice.as_millis()
    );
    println!("hash       flow table: keyed folded multiplication, random key; rte_hash: CRC32; hashbrown: foldhash");
}

fn run(eal: &Eal, flows: u32, options: &Options) -> anyhow::Result<()> {
    let mut variants = variants(eal, flows)?;
    let mut random = Random(u64::from(flows));
    // A stream that is longer than what a predictor could learn, read in order by all.
    let stream: Vec<Key> = (0..(1_usize << 21).next_multiple_of(PIECE))
        .map(|_| key(u32::try_from(random.next() % u64::from(flows)).unwrap_or(0)))
        .collect();
    let mut carried = 1;
    for round in 0..=options.rounds {
        for variant in &mut variants {
            let mut pieces = stream.chunks_exact(PIECE).cycle().skip(round * 37 % 128);
            let (cpu, wall, mut packets) = (cpu_time()?, time::Instant::now(), 0);
            while wall.elapsed() < options.slice {
                let keys = pieces.next().unwrap_or_default();
                carried = variant.flows.packets(keys, carried);
                packets += keys.len();
            }
            let wall = wall.elapsed();
            let cpu = cpu_time()?.saturating_sub(cpu);
            if round > 0 {
                variant.costs.push(cpu.as_secs_f64() * 1e9 / packets as f64);
                variant.wall.push(wall.as_secs_f64() * 1e9 / packets as f64);
            }
        }
    }
    black_box(carried);
    println!("\n{}", Report { flows, variants: &variants });
    Ok(())
}

fn variants(eal: &Eal, flows: u32) -> anyhow::Result<[Variant; 7]> {
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
        println!(
            "\nflow table: {flows} flows in {} slots of {} bytes, {gone} evicted, distances {:?}",
            table.slots(),
            FlowTable::<Key, State>::SLOT_BYTES,
            table.counters().distance
        );
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
    let variant = |name, flows| Variant { name, flows, costs: Vec::new(), wall: Vec::new() };
    Ok([
        variant("bare work", Box::new(Bare(vec![State::default(); BURST]))),
        variant("flow table, batch", Box::new(Ours { table: ours()?, touching: false })),
        variant("rte_hash, bulk", dpdk(true)?),
        variant("hashbrown, one by one", Box::new(Map(map))),
        variant("flow table, batch + touch", Box::new(Ours { table: ours()?, touching: true })),
        variant("rte_hash, no state prefetch", dpdk(false)?),
        variant("flow table, one by one", Box::new(OursSingly(ours()?))),
    ])
}

/// CPU time that this thread has had.
fn cpu_time() -> anyhow::Result<Duration> {
    // The kernel brings a running thread's account up to date when it sleeps.
    std::thread::sleep(Duration::from_millis(1));
    let text = read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("/proc/thread-self/schedstat")?))
}

struct Report<'a> {
    flows: u32,
    variants: &'a [Variant],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_name = |name| self.variants.iter().find(|variant| variant.name == name);
        let [bare, bulk, map] = ["bare work", "rte_hash, bulk", "hashbrown, one by one"].map(by_name);
        writeln!(
            f,
            "{:<28} {:>24} {:>8} {:>8}   {:>15} {:>15}",
            format!("{} flows", self.flows),
            "CPU ns per packet, whole",
            "wall",
            "net of",
            "of rte_hash's",
            "of hashbrown's"
        )?;
        writeln!(
            f,
            "{:<28} {:>8} {:>7} {:>7} {:>8} {:>8}   {:>7} {:>7} {:>7} {:>7}",
            "", "min", "median", "max", "median", "work", "whole", "net", "whole", "net"
        )?;
        for variant in self.variants {
            let of = |base: Option<&Variant>, work: Option<&Variant>| {
                let zeros = vec![0.0; variant.costs.len()];
                let work = work.map_or(&zeros, |work| &work.costs);
                let base = base.map_or(&zeros, |base| &base.costs);
                let rounds = variant.costs.iter().zip(base).zip(work);
                rounds.map(|((own, base), work)| (own - work) / (base - work)).collect::<Vec<_>>()
            };
            let net = variant.costs.iter().zip(bare.map_or(&[][..], |bare| &bare.costs)).map(|(own, work)| own - work);
            let [least, .., most] = sorted(&variant.costs)[..] else { return writeln!(f, "one round is not enough") };
            let ratios = [of(bulk, None), of(bulk, bare), of(map, None), of(map, bare)].map(|ratios| median(&ratios));
            writeln!(
                f,
                "{:<28} {least:>8.1} {:>7.1} {most:>7.1} {:>8.1} {:>8.1}   {:>7.2} {:>7.2} {:>7.2} {:>7.2}",
                variant.name,
                median(&variant.costs),
                median(&variant.wall),
                median(&net.collect::<Vec<_>>()),
                ratios[0],
                ratios[1],
                ratios[2],
                ratios[3]
            )?;
        }
        Ok(())
    }
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures
}

fn median(figures: &[f64]) -> f64 {
    let figures = sorted(figures);
    let middle: [f64; 2] =
        array::from_fn(|side| figures.get((figures.len().wrapping_sub(1) + side) / 2).copied().unwrap_or(f64::NAN));
    (middle[0] + middle[1]) / 2.0
}
