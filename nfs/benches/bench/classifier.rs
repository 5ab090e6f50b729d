//! The suite `classifier`: what it costs to find the first rule that matches: the classifier, with
//! and without a set of 100 000 prefixes, beside a scan of the rules one after the other.
//!
//! Rules are like a firewall's: destinations of /24 and /32, sources from anywhere to /24, a
//! protocol, a port, a few ranges. With the set every tenth rule asks that the source be in it;
//! its prefixes are of /16 to /32 (IPv6: /32 to /64), and overlap. Half of the keys are made from
//! a rule, the others go where no rule does.

use crate::machine;
use crate::measure::{Plan, Variant, interleave, own_cpu_time};
use crate::ours::start_eal;
use crate::results::{Axis, Row, Sample};
use crate::statistics::Random;
use anyhow::{Context as _, ensure};
use nf_framework::headers::IpProtocol;
use nf_framework::{AddressSet, Addresses, Classifier, Key, Memory, Prefix, Rule};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "the first of many rules that matches: the classifier beside a scan";
/// Of what DPDK builds, the largest, and what it needs to build it.
pub(crate) const MEBIBYTES: u64 = 512;

const BURST: usize = 32;
/// Look-ups from one reading of the clock to the next.
const PIECE: usize = 16 * BURST;
const KEYS: usize = 1 << 16;
const PREFIXES: usize = 100_000;
const RULES: [(&str, usize); 3] = [("10", 10), ("1k", 1_000), ("10k", 10_000)];

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is that of a look-up, without the packet around it; bursts of 32; half of the look-ups find a rule",
        "set: every tenth rule asks for a source in a set of 100 000 prefixes",
    ]
    .map(str::to_owned)
    .into()
}

pub(crate) fn run(plan: Plan, memory: machine::Memory) -> anyhow::Result<Vec<Row>> {
    let eal = start_eal(memory, 1)?;
    let mut rows = Vec::new();
    for (name, count) in RULES {
        let variants = variants(&eal.memory(), name, count).with_context(|| format!("{name} rules"))?;
        rows.extend(interleave(variants, plan)?);
    }
    Ok(rows)
}

fn below(random: &mut Random, limit: u32) -> u32 {
    u32::try_from(random.next() % u64::from(limit)).unwrap_or(0)
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
        let source = mask(if in_set { 0 } else { [0, 0, 16, 24][below(random, 4) as usize] });
        let destination = mask([24, 32, 32][below(random, 3) as usize]);
        let port = u16::try_from(below(random, 50_000)).unwrap_or(0);
        let ports = match below(random, 10) {
            0 => (0, u16::MAX),
            1 | 2 => (port, port + 1000),
            _ => (port % 1024, port % 1024),
        };
        Self {
            source: ((0xac10_0000 | below(random, 1 << 20)) & source, source),
            destination: ((0x0a00_0000 | below(random, 1 << 20)) & destination, destination),
            protocol: [6, 6, 17][below(random, 3) as usize],
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
        let rule = rules.get(below(random, u32::try_from(rules.len()).unwrap_or(1)) as usize);
        let Some(rule) = rule.filter(|_| below(random, 2) == 0) else {
            // No rule's destination is there.
            let (source, destination) = (below(random, u32::MAX), 0xc000_0000 | below(random, 1 << 24));
            let protocol = [6, 17][below(random, 2) as usize];
            return Self {
                source,
                destination,
                protocol,
                ports: (1024, u16::try_from(below(random, 1024)).unwrap_or(0)),
            };
        };
        let (source, source_mask) = match set.get(below(random, u32::try_from(set.len()).unwrap_or(1).max(1)) as usize)
        {
            Some(prefix) if rule.in_set => *prefix,
            _ => rule.source,
        };
        let mut within = |(first, mask): (u32, u32)| first | (below(random, u32::MAX) & !mask);
        let (source, destination) = (within((source, source_mask)), within(rule.destination));
        let port = u32::from(rule.ports.1 - rule.ports.0) + 1;
        let port = rule.ports.0 + u16::try_from(below(random, port)).unwrap_or(0);
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
                packets.iter().filter(|packet| first_match(rules, packet).is_some()).count()
            }
        }
    }
}

fn variants(memory: &Memory, size: &str, count: usize) -> anyhow::Result<Vec<Variant<'static>>> {
    let row = |name: &str| format!("{size} rules: {name}");
    let scan = row("scan, IPv4");
    let mut variants = Vec::new();
    for (family, ip) in [("IPv4", v4 as fn(u32) -> IpAddr), ("IPv6", v6)] {
        for with_set in [false, true] {
            let mut random = Random(count as u64);
            let prefixes: Vec<(u32, u32)> = (0..if with_set { PREFIXES } else { 0 })
                .map(|_| {
                    let mask = mask(16 + below(&mut random, 17));
                    (below(&mut random, u32::MAX) & mask, mask)
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
            let start = Instant::now();
            let classifier = Box::new(Classifier::new(memory, std::slice::from_ref(&set), &rules)?);
            let (took, kibibytes) = (start.elapsed().as_millis(), classifier.memory() / 1024);
            let name = if with_set { format!("{family} + set") } else { family.to_owned() };
            println!("note {}: {}, built in {took} ms, {kibibytes} KiB", row(&name), classifier.algorithm());
            let keys: Vec<Key> = packets.iter().map(|packet| packet.key(ip)).collect();
            if !with_set && family == "IPv4" {
                agree(&classifier, &keys, &plain, &packets)?;
                let scan = Variant::new(&scan, slices(Finder::Scan(plain, packets)));
                variants.push(scan.at(Axis::Rules, "scan, IPv4", count as f64));
            }
            let variant = Variant::new(row(&name), slices(Finder::Classifier(classifier, keys))).ratio(&scan);
            variants.push(variant.at(Axis::Rules, name, count as f64));
        }
    }
    Ok(variants)
}

/// Runs a slice: another piece of the keys first each time.
fn slices(finder: Finder) -> impl FnMut(Duration) -> anyhow::Result<Sample> {
    let mut pieces = 0;
    move |slice| {
        pieces += 7;
        let (cpu, start, first) = (own_cpu_time()?, Instant::now(), pieces);
        while start.elapsed() < slice {
            black_box(finder.find(pieces));
            pieces += 1;
        }
        let wall = start.elapsed();
        Ok(Sample::new(((pieces - first) * PIECE) as u64, own_cpu_time()?.saturating_sub(cpu), wall))
    }
}

/// What a scan finds. By itself, so that it is compiled as well as it can be, whatever stands around.
#[inline(never)]
fn first_match(rules: &[Plain], packet: &Packet) -> Option<usize> {
    rules.iter().position(|rule| rule.matches(packet))
}

/// What finds other rules is not to be compared.
fn agree(classifier: &Classifier, keys: &[Key], rules: &[Plain], packets: &[Packet]) -> anyhow::Result<()> {
    for (key, packet) in keys.iter().zip(packets).take(1000) {
        let scanned = first_match(rules, packet);
        ensure!(classifier.classify_one(key).map(|rule| rule.index()) == scanned, "{key:?} has rule {scanned:?}");
    }
    Ok(())
}
