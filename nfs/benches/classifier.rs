//! What it costs to find the first rule that matches: the classifier, with and without a set of
//! 100 000 prefixes, beside a scan of the rules one after the other.
//!
//! `cargo bench -p nfs --bench classifier -- [--quick] [--rounds N] [--rules 10000] [--simd 512]`
//!
//! Rules are like a firewall's: destinations of /24 and /32, sources from anywhere to /24, a
//! protocol, a port, a few ranges. With the set every tenth rule asks that the source be in it;
//! its prefixes are of /16 to /32 (IPv6: /32 to /64), and overlap. Half of the keys are made from
//! a rule, the others go where no rule does. Bursts of 32. Variants run in turn, slice by slice;
//! figures are of the thread's CPU time, and medians over the rounds, as are the ratios, of
//! figures of one round each. Build times are medians of three.
#![forbid(unsafe_code)]

use anyhow::{Context as _, bail, ensure};
use dpdk_rs::{Eal, Version};
use nf_framework::headers::IpProtocol;
use nf_framework::{AddressSet, Addresses, Classifier, Key, Memory, Prefix, Rule};
use std::fs::read_to_string;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use std::{array, env};

const BURST: usize = 32;
/// Look-ups from one reading of the clock to the next.
const PIECE: usize = 16 * BURST;
const KEYS: usize = 1 << 16;
const PREFIXES: usize = 100_000;

/// The same random numbers on every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() % u64::from(limit)).unwrap_or(0)
    }
}

/// A rule as it is drawn, and as a scan compares it.
#[derive(Clone, Copy)]
struct Plain {
    /// First address and bits that are compared.
    source: (u32, u32),
    destination: (u32, u32),
    protocol: u8,
    ports: (u16, u16),
    in_set: bool,
}

/// A packet as it is drawn.
#[derive(Clone, Copy)]
struct Packet {
    source: u32,
    destination: u32,
    protocol: u8,
    ports: (u16, u16),
}

fn mask(length: u32) -> u32 {
    u32::MAX.checked_shl(32 - length).unwrap_or(0)
}

impl Plain {
    fn random(random: &mut Random, in_set: bool) -> Self {
        let source = mask(if in_set { 0 } else { [0, 0, 16, 24][random.below(4) as usize] });
        let destination = mask([24, 32, 32][random.below(3) as usize]);
        let port = u16::try_from(random.below(50_000)).unwrap_or(0);
        let ports = match random.below(10) {
            0 => (0, u16::MAX),
            1 | 2 => (port, port + 1000),
            _ => (port % 1024, port % 1024),
        };
        Self {
            source: ((0xac10_0000 | random.below(1 << 20)) & source, source),
            destination: ((0x0a00_0000 | random.below(1 << 20)) & destination, destination),
            protocol: [6, 6, 17][random.below(3) as usize],
            ports,
            in_set,
        }
    }

    /// Without its set.
    fn matches(&self, packet: &Packet) -> bool {
        packet.destination & self.destination.1 == self.destination.0
            && packet.source & self.source.1 == self.source.0
            && self.protocol == packet.protocol
            && (self.ports.0..=self.ports.1).contains(&packet.ports.1)
    }

    fn rule(&self, ip: fn(u32) -> IpAddr) -> anyhow::Result<Rule> {
        let side = |(first, mask): (u32, u32)| -> anyhow::Result<Addresses> {
            if mask == 0 {
                return Ok(Addresses::Any);
            }
            // An IPv6 address has these 32 bits behind the 32 of its network.
            let before = if ip(first).is_ipv4() { 0 } else { 32 };
            Ok(Prefix::new(ip(first), u8::try_from(before + mask.count_ones())?)?.into())
        };
        let source = if self.in_set { Addresses::Set("set".to_owned()) } else { side(self.source)? };
        Ok(Rule {
            source,
            destination: side(self.destination)?,
            protocol: Some(IpProtocol(self.protocol)),
            destination_ports: Some(self.ports.0..=self.ports.1),
            ..Rule::default()
        })
    }
}

fn v4(address: u32) -> IpAddr {
    Ipv4Addr::from(address).into()
}

fn v6(address: u32) -> IpAddr {
    Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(address) << 64).into()
}

impl Packet {
    /// Half of them for some rule.
    fn random(random: &mut Random, rules: &[Plain], set: &[(u32, u32)]) -> Self {
        let rule = rules.get(random.below(u32::try_from(rules.len()).unwrap_or(1)) as usize);
        let Some(rule) = rule.filter(|_| random.below(2) == 0) else {
            // No rule's destination is there.
            let (source, destination) = (random.below(u32::MAX), 0xc000_0000 | random.below(1 << 24));
            let protocol = [6, 17][random.below(2) as usize];
            return Self {
                source,
                destination,
                protocol,
                ports: (1024, u16::try_from(random.below(1024)).unwrap_or(0)),
            };
        };
        let (source, source_mask) = match set.get(random.below(u32::try_from(set.len()).unwrap_or(1).max(1)) as usize) {
            Some(prefix) if rule.in_set => *prefix,
            _ => rule.source,
        };
        let mut within = |(first, mask): (u32, u32)| first | (random.below(u32::MAX) & !mask);
        let (source, destination) = (within((source, source_mask)), within(rule.destination));
        let port = u32::from(rule.ports.1 - rule.ports.0) + 1;
        let port = rule.ports.0 + u16::try_from(random.below(port)).unwrap_or(0);
        Self { source, destination, protocol: rule.protocol, ports: (1024, port) }
    }

    fn key(&self, ip: fn(u32) -> IpAddr) -> Key {
        let protocol = IpProtocol(self.protocol);
        let key = match (ip(self.source), ip(self.destination)) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Key::ipv4(source, destination, protocol),
            (source, destination) => Key::ipv6(wide(source), wide(destination), protocol),
        };
        key.ports(self.ports.0, self.ports.1)
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Something that finds rules for the packets.
enum Finder {
    Classifier(Box<Classifier>, Vec<Key>),
    Scan(Vec<Plain>, Vec<Packet>),
}

impl Finder {
    /// Looks up PIECE keys, and returns how many have a rule.
    fn find(&self, piece: usize) -> usize {
        let from = piece * PIECE % KEYS;
        match self {
            Self::Classifier(classifier, keys) => {
                let mut found = [None; BURST];
                let bursts = keys[from..from + PIECE].chunks(BURST);
                bursts
                    .map(|keys| {
                        classifier.classify(keys, &mut found);
                        black_box(&found).iter().flatten().count()
                    })
                    .sum()
            }
            Self::Scan(rules, packets) => {
                let packets = &packets[from..from + PIECE];
                packets.iter().filter(|packet| rules.iter().position(|rule| rule.matches(packet)).is_some()).count()
            }
        }
    }
}

struct Variant {
    name: String,
    finder: Finder,
    build: Duration,
    /// CPU nanoseconds per look-up, by round.
    costs: Vec<f64>,
    hits: f64,
}

struct Options {
    rounds: usize,
    slice: Duration,
    rules: Vec<usize>,
    simd: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    let huge = free_hugepages_mebibytes() >= 512;
    let eal = start(huge, options.simd.as_deref())?;
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    println!("processor  {}", processor.trim_start_matches([' ', '\t', ':']));
    println!("DPDK       {}; compiled for corei7 by Debian; ours for x86-64", Version::loaded());
    println!("memory     {}", if huge { "hugepages" } else { "ordinary pages (too few hugepages are free)" });
    println!(
        "method     burst {BURST}, half hits, {} rounds of {} ms in turn, after one to warm up",
        options.rounds,
        options.slice.as_millis()
    );
    for rules in &options.rules {
        run(&eal.memory(), *rules, &options).with_context(|| format!("{rules} rules"))?;
    }
    Ok(())
}

fn options() -> anyhow::Result<Options> {
    let (mut rounds, mut quick, mut rules, mut simd) = (None, false, Vec::new(), None);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).with_context(|| format!("{arg} N"));
        match arg.as_str() {
            "--quick" => quick = true,
            "--rounds" => rounds = Some(number()?),
            "--rules" => rules.push(number()?),
            "--simd" => simd = Some(format!("--force-max-simd-bitwidth={}", number()?)),
            "--bench" => {}
            _ => bail!("unknown argument {arg}: there are --quick, --rounds N, --rules N and --simd BITS"),
        }
    }
    if rules.is_empty() {
        rules = vec![10, 1_000, 10_000];
    }
    ensure!(rules.iter().all(|rules| (1..=Classifier::MAX_RULES).contains(rules)), "--rules takes 1 to 16384");
    let (usual, slice) = if quick { (5, 20) } else { (15, 50) };
    Ok(Options { rounds: rounds.unwrap_or(usual).max(1), slice: Duration::from_millis(slice), rules, simd })
}

fn free_hugepages_mebibytes() -> u64 {
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |name| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().find_map(|word| word.parse::<u64>().ok())
    };
    value("HugePages_Free:").unwrap_or(0) * value("Hugepagesize:").unwrap_or(0) / 1024
}

fn start(huge: bool, simd: Option<&str>) -> anyhow::Result<Eal> {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0").trim().to_owned();
    let cpu = cpus.rsplit([',', '-']).next().unwrap_or("0");
    let memory: &[&str] =
        if huge { &["--in-memory", "--iova-mode=va"] } else { &["--no-huge", "--no-shconf", "-m", "1024"] };
    let fixed = ["classifier", "--no-pci", "--no-telemetry", "--log-level=error"];
    let arguments = fixed.into_iter().chain(memory.iter().copied()).chain(simd).map(str::to_owned);
    Ok(Eal::init(arguments.chain([format!("--lcores=0@{cpu}")]))?.0)
}

fn run(memory: &Memory, rules: usize, options: &Options) -> anyhow::Result<()> {
    let mut variants = variants(memory, rules)?;
    for round in 0..=options.rounds {
        for variant in &mut variants {
            let (cpu, wall) = (cpu_time()?, Instant::now());
            let (mut pieces, mut hits) = (0, 0);
            while wall.elapsed() < options.slice {
                hits += variant.finder.find(round * 7 + pieces);
                pieces += 1;
            }
            let cpu = cpu_time()?.saturating_sub(cpu);
            if round > 0 {
                variant.costs.push(cpu.as_secs_f64() * 1e9 / (pieces * PIECE) as f64);
                variant.hits = hits as f64 / (pieces * PIECE) as f64;
            }
        }
    }
    report(rules, &variants)
}

fn variants(memory: &Memory, count: usize) -> anyhow::Result<Vec<Variant>> {
    let mut variants = Vec::new();
    for (family, ip) in [("IPv4", v4 as fn(u32) -> IpAddr), ("IPv6", v6)] {
        for with_set in [false, true] {
            let mut random = Random(count as u64);
            let prefixes: Vec<(u32, u32)> = (0..if with_set { PREFIXES } else { 0 })
                .map(|_| {
                    let mask = mask(16 + random.below(17));
                    (random.below(u32::MAX) & mask, mask)
                })
                .collect();
            let plain: Vec<Plain> =
                (0..count).map(|number| Plain::random(&mut random, with_set && number % 10 == 3)).collect();
            let packets: Vec<Packet> = (0..KEYS).map(|_| Packet::random(&mut random, &plain, &prefixes)).collect();
            let rules: Vec<Rule> = plain.iter().map(|plain| plain.rule(ip)).collect::<Result<_, _>>()?;
            let prefixes = prefixes.iter().map(|(first, mask)| {
                let before = if family == "IPv4" { 0 } else { 32 };
                Ok(Prefix::new(ip(*first), u8::try_from(before + mask.count_ones())?)?)
            });
            let set = AddressSet { name: "set".to_owned(), prefixes: prefixes.collect::<anyhow::Result<_>>()? };
            let mut times = Vec::new();
            let mut build = || {
                let start = Instant::now();
                let built = Classifier::new(memory, std::slice::from_ref(&set), &rules);
                times.push(start.elapsed());
                built
            };
            for _ in 0..2 {
                build()?;
            }
            let classifier = Box::new(build()?);
            times.sort_unstable();
            let [_, build, _] = times[..] else { bail!("three builds") };
            let keys: Vec<Key> = packets.iter().map(|packet| packet.key(ip)).collect();
            if !with_set && family == "IPv4" {
                agree(&classifier, &keys, &plain, &packets)?;
                let finder = Finder::Scan(plain, packets);
                let name = "scan, IPv4".to_owned();
                variants.push(Variant { name, finder, build: Duration::ZERO, costs: Vec::new(), hits: 0.0 });
            }
            let name = format!("{family}{}, {}", if with_set { " + set" } else { "" }, classifier.algorithm());
            let finder = Finder::Classifier(classifier, keys);
            variants.push(Variant { name, finder, build, costs: Vec::new(), hits: 0.0 });
        }
    }
    Ok(variants)
}

/// What finds other rules is not to be compared.
fn agree(classifier: &Classifier, keys: &[Key], rules: &[Plain], packets: &[Packet]) -> anyhow::Result<()> {
    for (key, packet) in keys.iter().zip(packets).take(1000) {
        let scanned = rules.iter().position(|rule| rule.matches(packet));
        ensure!(classifier.classify_one(key).map(|rule| rule.index()) == scanned, "{key:?} has rule {scanned:?}");
    }
    Ok(())
}

/// CPU time that this thread has had.
fn cpu_time() -> anyhow::Result<Duration> {
    // The kernel brings a running thread's account up to date when it sleeps.
    std::thread::sleep(Duration::from_millis(1));
    let text = read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("/proc/thread-self/schedstat")?))
}

fn report(rules: usize, variants: &[Variant]) -> anyhow::Result<()> {
    println!(
        "\n{:<26} {:>23}   {:>9} {:>6} {:>10} {:>10}",
        format!("{rules} rules"),
        "CPU ns per look-up",
        "scan is",
        "hits",
        "build",
        "memory"
    );
    println!(
        "{:<26} {:>7} {:>7} {:>7}   {:>9} {:>6} {:>10} {:>10}",
        "", "min", "median", "max", "slower by", "%", "ms", "KiB"
    );
    let scan = variants.iter().find(|variant| matches!(variant.finder, Finder::Scan(..))).context("a scan")?;
    for variant in variants {
        let costs = sorted(&variant.costs);
        let (Some(least), Some(most)) = (costs.first(), costs.last()) else { bail!("no rounds") };
        let ratios: Vec<f64> = scan.costs.iter().zip(&variant.costs).map(|(scan, own)| scan / own).collect();
        let memory = match &variant.finder {
            Finder::Classifier(classifier, _) => classifier.memory() / 1024,
            Finder::Scan(rules, _) => size_of_val(&rules[..]) / 1024,
        };
        println!(
            "{:<26} {least:>7.1} {:>7.1} {most:>7.1}   {:>9.1} {:>6.0} {:>10.1} {memory:>10}",
            variant.name,
            median(&variant.costs),
            median(&ratios),
            variant.hits * 100.0,
            variant.build.as_secs_f64() * 1e3,
        );
    }
    Ok(())
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
