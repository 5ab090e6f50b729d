//! The classifier against a scan of the rules one after the other: random rules, sets and
//! keys, and no difference, whatever the algorithm.
//!
//! The model compares addresses bit by bit and shares nothing with the classifier.
//!
//! `NF_MODEL_OPERATIONS` sets how many look-ups (100 000 unless told), `NF_MODEL_SEED` the seed,
//! which is printed. Ten million:
//! `NF_MODEL_OPERATIONS=10000000 cargo test --release -p nf-framework --test classifier_model -- --nocapture`
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::testing::{Lab, lab};
use nf_framework::{
    AclAlgorithm, AddressSet, Addresses, Classifier, FlagsMatch, IcmpMatch, Key, Prefix, Rule, RuleIndex,
};
use std::collections::BTreeSet;
use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn among<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn octet(&mut self) -> u8 {
        // Few of them, so that they meet, and those at the edges.
        let any = u8::try_from(self.below(256)).unwrap();
        self.among(&[0, 0, 1, 2, 127, 128, 254, 255, any])
    }

    fn port(&mut self) -> u16 {
        let any = u16::try_from(self.below(65_536)).unwrap();
        self.among(&[0, 1, 53, 255, 256, 443, 1023, 1024, 65_534, 65_535, any])
    }

    /// An address of 4 or 16 octets; most bits are the same.
    fn address(&mut self, octets: usize) -> Vec<u8> {
        let edge = self.among(&[0, 0, 255]);
        let mut address = vec![edge; octets];
        address[0] = self.among(&[10, 192, 255, 0]);
        for _ in 0..self.below(5) {
            let place = self.below(octets);
            address[place] = self.octet();
        }
        address
    }
}

/// The first bits of an address of 4 or 16 octets.
#[derive(Clone, Debug)]
struct Net {
    octets: Vec<u8>,
    length: usize,
}

fn bit(octets: &[u8], place: usize) -> bool {
    octets[place / 8] >> (7 - place % 8) & 1 == 1
}

impl Net {
    fn random(random: &mut Random, octets: usize) -> Self {
        let most = octets * 8;
        let any = random.below(most + 1);
        let length = random.among(&[0, 8, 16, 24, 31, 32, most - 1, most, any]);
        let mut net = Self { octets: random.address(octets), length };
        for place in length..most {
            net.octets[place / 8] &= !(1 << (7 - place % 8));
        }
        net
    }

    fn has(&self, address: &[u8]) -> bool {
        self.octets.len() == address.len()
            && (0..self.length).all(|place| bit(&self.octets, place) == bit(address, place))
    }

    /// An address in it: the first, the last, or any.
    fn some(&self, random: &mut Random) -> Vec<u8> {
        let (how, mut address) = (random.below(3), self.octets.clone());
        for place in self.length..address.len() * 8 {
            let set = [false, true, random.chance(50)][how];
            address[place / 8] |= u8::from(set) << (7 - place % 8);
        }
        address
    }

    fn prefix(&self) -> Prefix {
        Prefix::new(ip(&self.octets), u8::try_from(self.length).unwrap()).unwrap()
    }
}

fn ip(octets: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(four) => Ipv4Addr::from(four).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap()).into(),
    }
}

#[derive(Clone, Debug)]
enum Side {
    Any,
    Net(Net),
    Set(usize),
}

#[derive(Clone, Debug)]
struct PlainRule {
    source: Side,
    destination: Side,
    protocol: Option<u8>,
    source_ports: Option<(u16, u16)>,
    destination_ports: Option<(u16, u16)>,
    flags: Option<(u8, u8)>,
    icmp: Option<[(u8, u8); 2]>,
    marks: u8,
}

#[derive(Clone, Debug)]
struct PlainKey {
    source: Vec<u8>,
    destination: Vec<u8>,
    protocol: u8,
    ports: Option<(u16, u16)>,
    flags: Option<u8>,
    icmp: Option<(u8, u8)>,
    marks: u8,
}

type Sets = Vec<Vec<Net>>;

impl Side {
    fn has(&self, sets: &Sets, address: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Net(net) => net.has(address),
            Self::Set(set) => sets[*set].iter().any(|net| net.has(address)),
        }
    }
}

impl PlainRule {
    fn matches(&self, sets: &Sets, key: &PlainKey) -> bool {
        let within = |range: Option<(u16, u16)>, port: Option<u16>| {
            range.is_none_or(|(first, last)| port.is_some_and(|port| first <= port && port <= last))
        };
        self.source.has(sets, &key.source)
            && self.destination.has(sets, &key.destination)
            && self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && within(self.source_ports, key.ports.map(|ports| ports.0))
            && within(self.destination_ports, key.ports.map(|ports| ports.1))
            && self.flags.is_none_or(|(set, of)| key.flags.is_some_and(|flags| flags & of == set))
            && self.icmp.is_none_or(|[types, codes]| {
                key.icmp.is_some_and(|(kind, code)| {
                    types.0 <= kind && kind <= types.1 && codes.0 <= code && code <= codes.1
                })
            })
            && (0..5).all(|mark| self.marks >> mark & 1 <= key.marks >> mark & 1)
    }

    fn random(random: &mut Random, sets: usize) -> Self {
        let octets = random.among(&[4, 16]);
        let protocol =
            random.among(&[None, Some(6), Some(6), Some(17), Some(1), Some(58), Some(47), Some(0), Some(255)]);
        let messages = matches!(protocol, Some(1 | 58));
        let octets = if messages { [16, 4][usize::from(protocol == Some(1))] } else { octets };
        let side = |random: &mut Random| match random.below(10) {
            0..3 => Side::Any,
            3..7 if sets > 0 => Side::Set(random.below(sets)),
            _ => Side::Net(Net::random(random, octets)),
        };
        let (source, destination) = (side(random), side(random));
        let ports = |random: &mut Random| {
            let (one, other) = (random.port(), random.port());
            let range = random.among(&[(one.min(other), one.max(other)), (one, one), (0, 65_535)]);
            (!messages && random.chance(40)).then_some(range)
        };
        let (source_ports, destination_ports) = (ports(random), ports(random));
        let of = random.octet();
        let flags = (protocol == Some(6) && random.chance(40)).then(|| (random.octet() & of, of));
        let numbers = |random: &mut Random| {
            let (one, other) = (random.octet(), random.octet());
            random.among(&[(one.min(other), one.max(other)), (one, one), (0, 255)])
        };
        let icmp = (messages && random.chance(60)).then(|| [numbers(random), numbers(random)]);
        let marks = random.among(&[0, 0, 1, 2, 3, 12, 16]);
        Self { source, destination, protocol, source_ports, destination_ports, flags, icmp, marks }
    }

    fn rule(&self) -> Rule {
        let side = |side: &Side| match side {
            Side::Any => Addresses::Any,
            Side::Net(net) => Addresses::Prefix(net.prefix()),
            Side::Set(set) => Addresses::Set(format!("set {set}")),
        };
        Rule {
            source: side(&self.source),
            destination: side(&self.destination),
            protocol: self.protocol.map(IpProtocol),
            source_ports: self.source_ports.map(|(first, last)| first..=last),
            destination_ports: self.destination_ports.map(|(first, last)| first..=last),
            tcp_flags: self.flags.map(|(set, of)| FlagsMatch { set: TcpFlags(set), of: TcpFlags(of) }),
            icmp: self.icmp.map(|[types, codes]| IcmpMatch { types: types.0..=types.1, codes: codes.0..=codes.1 }),
            marks: self.marks,
        }
    }
}

impl PlainKey {
    fn random(random: &mut Random, octets: usize) -> Self {
        Self {
            source: random.address(octets),
            destination: random.address(octets),
            protocol: random.among(&[6, 6, 17, 1, 58, 47, 0, 255]),
            ports: random.chance(70).then(|| (random.port(), random.port())),
            flags: random.chance(50).then(|| random.octet()),
            icmp: random.chance(40).then(|| (random.octet(), random.octet())),
            marks: random.octet() & 31,
        }
    }

    /// One that a rule matches, if it can, and sometimes with something changed again.
    fn for_rule(random: &mut Random, rule: &PlainRule, sets: &Sets) -> Self {
        let sides = [&rule.source, &rule.destination];
        let family = |side: &Side| match side {
            Side::Net(net) => Some(net.octets.len()),
            Side::Any | Side::Set(_) => None,
        };
        let octets = sides.into_iter().find_map(family).unwrap_or(random.among(&[4, 16]));
        let mut key = Self::random(random, octets);
        for (side, address) in sides.into_iter().zip([&mut key.source, &mut key.destination]) {
            let nets = match side {
                Side::Any => Vec::new(),
                Side::Net(net) => vec![net],
                Side::Set(set) => sets[*set].iter().filter(|net| net.octets.len() == octets).collect(),
            };
            if !nets.is_empty() {
                *address = random.among(&nets).some(random);
            }
        }
        key.protocol = rule.protocol.unwrap_or(key.protocol);
        if rule.source_ports.is_some() || rule.destination_ports.is_some() {
            let mut port = |range: Option<(u16, u16)>| {
                let (first, last) = range.unwrap_or((0, 65_535));
                let any = usize::from(first) + random.below(usize::from(last - first) + 1);
                random.among(&[first, last, u16::try_from(any).unwrap()])
            };
            key.ports = Some((port(rule.source_ports), port(rule.destination_ports)));
        }
        key.flags = rule.flags.map_or(key.flags, |(set, of)| Some(set | random.octet() & !of));
        key.icmp = rule.icmp.map_or(key.icmp, |[types, codes]| {
            Some((random.among(&[types.0, types.1]), random.among(&[codes.0, codes.1])))
        });
        key.marks |= rule.marks;
        let other = Self::random(random, octets);
        match random.below(14) {
            0 => key.source = other.source,
            1 => key.destination = other.destination,
            2 => key.protocol = other.protocol,
            3 => key.ports = other.ports,
            4 => key.flags = other.flags,
            5 => key.icmp = other.icmp,
            6 => key.marks = other.marks,
            _ => {}
        }
        key
    }

    fn key(&self) -> Key {
        let protocol = IpProtocol(self.protocol);
        let mut key = match (ip(&self.source), ip(&self.destination)) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Key::ipv4(source, destination, protocol),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Key::ipv6(source, destination, protocol),
            _ => panic!("a key has one family"),
        };
        if let Some((source, destination)) = self.ports {
            key = key.ports(source, destination);
        }
        if let Some(flags) = self.flags {
            key = key.tcp_flags(TcpFlags(flags));
        }
        if let Some((kind, code)) = self.icmp {
            key = key.icmp(kind, code);
        }
        key.marks(self.marks)
    }
}

/// What a run has met.
#[derive(Default, Debug)]
struct Met {
    lookups: usize,
    hits: usize,
    rule_sets: usize,
    algorithms: BTreeSet<AclAlgorithm>,
}

fn some_nets(random: &mut Random) -> Vec<Net> {
    let count = random.below(12);
    let mut net = || {
        let octets = random.among(&[4, 16]);
        Net::random(random, octets)
    };
    (0..count).map(|_| net()).collect()
}

fn run(lab: &Lab<'_>, rules: usize, keys: usize, random: &mut Random, met: &mut Met) {
    let sets: Sets = (0..random.below(7)).map(|_| some_nets(random)).collect();
    let plain: Vec<PlainRule> = (0..rules).map(|_| PlainRule::random(random, sets.len())).collect();
    let address_sets: Vec<AddressSet> = sets
        .iter()
        .enumerate()
        .map(|(set, nets)| AddressSet { name: format!("set {set}"), prefixes: nets.iter().map(Net::prefix).collect() })
        .collect();
    let rules: Vec<Rule> = plain.iter().map(PlainRule::rule).collect();
    let mut classifier = Classifier::new(&lab.eal.memory(), &address_sets, &rules).unwrap();
    assert_eq!((classifier.len(), classifier.is_empty()), (rules.len(), rules.is_empty()));

    let plain_keys: Vec<PlainKey> = (0..keys)
        .map(|_| {
            let octets = random.among(&[4, 16]);
            // Those at the end are shadowed by the others, mostly.
            let rule = random.below(plain.len().max(1)) * random.below(3) / 2;
            match plain.get(rule) {
                Some(rule) if random.chance(75) => PlainKey::for_rule(random, rule, &sets),
                _ => PlainKey::random(random, octets),
            }
        })
        .collect();
    let keys: Vec<Key> = plain_keys.iter().map(PlainKey::key).collect();
    let expected: Vec<Option<usize>> =
        plain_keys.iter().map(|key| plain.iter().position(|rule| rule.matches(&sets, key))).collect();
    met.hits += expected.iter().flatten().count();
    met.lookups += keys.len();
    met.rule_sets += 1;

    let best = classifier.algorithm();
    assert!(classifier.use_algorithm(best));
    for algorithm in AclAlgorithm::ALL {
        if !classifier.use_algorithm(algorithm) {
            continue;
        }
        met.algorithms.insert(algorithm);
        let mut from = 0;
        while from < keys.len() {
            // Bursts of every size, and longer ones.
            let count = (1 + random.below(100)).min(keys.len() - from);
            let mut found = vec![None; count];
            classifier.classify(&keys[from..from + count], &mut found);
            for (index, found) in (from..).zip(found) {
                let found = found.map(RuleIndex::index);
                assert_eq!(
                    found,
                    expected[index],
                    "{algorithm}, {:?}\nfound {:?}\nexpected {:?}\nsets {sets:?}",
                    plain_keys[index],
                    found.map(|rule| &plain[rule]),
                    expected[index].map(|rule| &plain[rule])
                );
            }
            from += count;
        }
    }
    if let Some((key, expected)) = keys.iter().zip(&expected).next() {
        assert_eq!(classifier.classify_one(key).map(RuleIndex::index), *expected);
    }
}

fn given<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is to be a number, not {text:?}")))
}

#[test]
fn the_classifier_and_a_scan_of_the_rules_find_the_same_rule() {
    let operations = given("NF_MODEL_OPERATIONS").unwrap_or(100_000_usize);
    // Another one on every run: what is found is replayed by its seed.
    let of_the_day = || SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).subsec_nanos().into();
    let seed: u64 = given("NF_MODEL_SEED").unwrap_or_else(of_the_day);
    println!("NF_MODEL_SEED={seed} NF_MODEL_OPERATIONS={operations}");
    lab(move |lab| {
        let mut random = Random(seed);
        let mut met = Met::default();
        while met.lookups < operations {
            let most = random.among(&[2, 5, 20, 60]);
            let (rules, keys) = (random.below(most + 1), 20 + random.below(150));
            // Now and then many rules, which DPDK spreads over several tries.
            let (rules, keys) = if met.rule_sets % 100 == 99 { (300, 600) } else { (rules, keys) };
            run(lab, rules, keys, &mut random, &mut met);
        }
        println!("{met:?}");
        let share = met.hits * 100 / met.lookups;
        assert!((30..=70).contains(&share), "about half are to hit, not {share} %");
        assert!(met.algorithms.contains(&AclAlgorithm::Scalar));
    });
}
