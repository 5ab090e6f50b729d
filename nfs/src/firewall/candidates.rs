//! Which earlier rules may take all that a rule asks for: few of many, found without comparing two by two.
//!
//! For each thing that rules ask for, it is known which of them leave it open and which ask for a value; a rule that
//! takes all of another one is among those that leave open, or whose values contain, each value of that one. Rules are
//! bits of a row, so that what all things say together is an AND.

use super::config::{Action, State};
use super::rule::{Conditions, Rule};
use nf_framework::headers::IpProtocol;
use nf_framework::{AddressSet, Addresses, Direction, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Values of a list that are looked up; what the others say is for who compares.
const MOST_VALUES: usize = 8;

/// The rules that came so far.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    sets: Sets<'a>,
    /// Those that leave no packets to later rules.
    decide: Bits,
    related: Bits,
    /// Those of one direction alone.
    directed: [Bits; 2],
    sources: Dimension<Place<'a>>,
    destinations: Dimension<Place<'a>>,
    protocols: Dimension<IpProtocol>,
    source_ports: Dimension<Block>,
    destination_ports: Dimension<Block>,
}

/// A bit for each rule.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

/// Rules by what they say of one thing.
#[derive(Debug)]
struct Dimension<T> {
    open: Bits,
    by_value: HashMap<T, Members>,
    words: usize,
}

/// Few rules, or many.
#[derive(Debug)]
enum Members {
    Few(Vec<usize>),
    Many(Bits),
}

/// Addresses that a rule names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place<'a> {
    Prefix(Prefix),
    Set(&'a str),
}

/// Ports that begin with the same bits: how many differ, and the bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Block(u8, u16);

/// The sets of addresses, by what is in them.
#[derive(Debug)]
struct Sets<'a> {
    prefixes: BTreeMap<&'a str, &'a [Prefix]>,
    by_prefix: HashMap<Prefix, Vec<&'a str>>,
    /// Lengths that prefixes have at all, of rules and sets, IPv4 first.
    lengths: [BTreeSet<u8>; 2],
    large: usize,
}

impl<'a> Candidates<'a> {
    /// For these rules, in their order; sets of more than so many prefixes are known by name alone.
    pub(super) fn new(rules: &[Rule], sets: &'a [AddressSet], large: usize) -> Self {
        let words = rules.len().div_ceil(64);
        let bits = || Bits(vec![0; words]);
        let mut known = Sets {
            prefixes: sets.iter().map(|set| (set.name.as_str(), set.prefixes.as_slice())).collect(),
            by_prefix: HashMap::new(),
            lengths: Default::default(),
            large,
        };
        for set in sets {
            for prefix in &set.prefixes {
                known.take(*prefix);
                known.by_prefix.entry(*prefix).or_default().push(&set.name);
            }
        }
        for conditions in rules.iter().map(|rule| &rule.conditions) {
            for addresses in conditions.sources.iter().chain(&conditions.destinations) {
                if let Addresses::Prefix(prefix) = addresses {
                    known.take(*prefix);
                }
            }
        }
        Self {
            sets: known,
            decide: bits(),
            related: bits(),
            directed: [bits(), bits()],
            sources: Dimension::new(words),
            destinations: Dimension::new(words),
            protocols: Dimension::new(words),
            source_ports: Dimension::new(words),
            destination_ports: Dimension::new(words),
        }
    }

    /// Adds the rule of this number.
    pub(super) fn add(&mut self, number: usize, rule: &'a Rule) {
        let Conditions { state, direction, sources, destinations, protocols, .. } = &rule.conditions;
        if rule.action == Action::Log {
            return;
        }
        self.decide.set(number);
        if *state == State::Related {
            self.related.set(number);
        }
        if let Some(direction) = direction {
            self.directed[*direction as usize].set(number);
        }
        for (dimension, addresses) in [(&mut self.sources, sources), (&mut self.destinations, destinations)] {
            let open = addresses.is_empty() || addresses.contains(&Addresses::Any);
            dimension.add(number, open, addresses.iter().filter_map(place));
        }
        self.protocols.add(number, protocols.is_empty(), protocols.iter().map(|of| of.number));
        for (dimension, ports) in [
            (&mut self.source_ports, &rule.conditions.source_ports),
            (&mut self.destination_ports, &rule.conditions.destination_ports),
        ] {
            dimension.add(number, ports.is_empty(), ports.iter().flat_map(blocks));
        }
    }

    /// The numbers of those that were added and may take all that this asks for, in their order: all that do, and some
    /// more.
    pub(super) fn of(&self, conditions: &Conditions) -> impl Iterator<Item = usize> + use<> {
        let mut found = self.decide.clone();
        found.keep(&self.related, conditions.state == State::Related);
        for direction in [Direction::Outbound, Direction::Inbound] {
            if conditions.direction != Some(direction) {
                found.keep(&self.directed[direction as usize], false);
            }
        }
        let protocols = conditions.protocols.iter().map(|of| vec![of.number]);
        self.protocols.keep(protocols, &mut found);
        self.keep_addresses(&self.sources, &conditions.sources, &mut found);
        self.keep_addresses(&self.destinations, &conditions.destinations, &mut found);
        let with_first = |ports: &RangeInclusive<u16>| blocks_with(*ports.start()).collect();
        self.source_ports.keep(conditions.source_ports.iter().map(with_first), &mut found);
        self.destination_ports.keep(conditions.destination_ports.iter().map(with_first), &mut found);
        found.into_ones()
    }

    fn keep_addresses(&self, dimension: &Dimension<Place<'a>>, asked: &[Addresses], found: &mut Bits) {
        // What is in no set of a few prefixes may be anywhere.
        let known = asked.iter().filter_map(|addresses| match addresses {
            Addresses::Any => Some(Vec::new()),
            Addresses::Prefix(prefix) => Some(self.sets.around(*prefix)),
            Addresses::Set(name) => {
                let (&name, prefixes) = self.sets.prefixes.get_key_value(name.as_str())?;
                let mut around = match prefixes.first() {
                    None => return None,
                    Some(first) if prefixes.len() <= self.sets.large => self.sets.around(*first),
                    Some(_) => Vec::new(),
                };
                around.push(Place::Set(name));
                Some(around)
            }
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() && !asked.is_empty() {
            return;
        }
        dimension.keep(known.into_iter(), found);
    }
}

impl<'a> Sets<'a> {
    /// Prefixes of this length are looked for from now on.
    fn take(&mut self, prefix: Prefix) {
        self.lengths[usize::from(prefix.address().is_ipv6())].insert(prefix.length());
    }

    /// The prefixes that contain this one, and the sets that have one of those.
    fn around(&self, prefix: Prefix) -> Vec<Place<'a>> {
        let lengths = &self.lengths[usize::from(prefix.address().is_ipv6())];
        let mut around = Vec::new();
        for length in lengths.range(..=prefix.length()) {
            let Ok(shorter) = Prefix::new(first_of(prefix.address(), *length), *length) else { continue };
            around.push(Place::Prefix(shorter));
            let sets = self.by_prefix.get(&shorter);
            around.extend(sets.into_iter().flatten().map(|name| Place::Set(name)));
        }
        around
    }
}

impl<T: Hash + Eq> Dimension<T> {
    fn new(words: usize) -> Self {
        Self { open: Bits(vec![0; words]), by_value: HashMap::new(), words }
    }

    fn add(&mut self, number: usize, open: bool, values: impl Iterator<Item = T>) {
        if open {
            self.open.set(number);
        }
        for value in values {
            let members = self.by_value.entry(value).or_insert_with(|| Members::Few(Vec::new()));
            members.add(number, self.words);
        }
    }

    /// Keeps the rules that leave this open, or have one of the values around each of those asked for.
    fn keep(&self, asked: impl Iterator<Item = Vec<T>>, found: &mut Bits) {
        let mut any = false;
        for around in asked.take(MOST_VALUES) {
            any = true;
            let mut members = self.open.clone();
            for value in &around {
                match self.by_value.get(value) {
                    None => {}
                    Some(Members::Few(few)) => few.iter().for_each(|number| members.set(*number)),
                    Some(Members::Many(many)) => members.join(many),
                }
            }
            found.keep(&members, true);
        }
        if !any {
            found.keep(&self.open, true);
        }
    }
}

impl Members {
    fn add(&mut self, number: usize, words: usize) {
        match self {
            Self::Many(many) => many.set(number),
            Self::Few(few) if few.len() < words => few.push(number),
            Self::Few(few) => {
                let mut many = Bits(vec![0; words]);
                few.iter().chain([&number]).for_each(|number| many.set(*number));
                *self = Self::Many(many);
            }
        }
    }
}

impl Bits {
    fn set(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Keeps those that are among others, or that are not.
    fn keep(&mut self, others: &Self, among: bool) {
        let mask = if among { 0 } else { u64::MAX };
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word &= other ^ mask);
    }

    fn join(&mut self, others: &Self) {
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word |= other);
    }

    fn into_ones(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().zip((0..).step_by(64)).flat_map(|(word, first)| {
            let rest = |left: &u64| Some(left & left.wrapping_sub(1)).filter(|left| *left != 0);
            std::iter::successors(Some(word).filter(|word| *word != 0), rest)
                .map(move |left| first + left.trailing_zeros() as usize)
        })
    }
}

fn place(addresses: &Addresses) -> Option<Place<'_>> {
    match addresses {
        Addresses::Any => None,
        Addresses::Prefix(prefix) => Some(Place::Prefix(*prefix)),
        Addresses::Set(name) => Some(Place::Set(name)),
    }
}

/// The first address of the prefix of this length that an address is in.
fn first_of(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// The blocks that ports from one to another are made of.
fn blocks(ports: &RangeInclusive<u16>) -> Vec<Block> {
    let (mut first, last) = (u32::from(*ports.start()), u32::from(*ports.end()));
    let mut blocks = Vec::new();
    while first <= last {
        // As large as its place lets it be, and what is left.
        let bits = first.trailing_zeros().min((last - first + 1).ilog2()).min(16);
        blocks.push(block(first, bits));
        first += 1 << bits;
    }
    blocks
}

/// All that a port is in.
fn blocks_with(port: u16) -> impl Iterator<Item = Block> {
    (0..=16).map(move |bits| block(port.into(), bits))
}

#[allow(clippy::cast_possible_truncation, reason = "16 bits at most, of a port")]
fn block(port: u32, bits: u32) -> Block {
    Block(bits as u8, (port >> bits) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_made_of_blocks_that_each_of_them_is_in() {
        for (first, last) in [(0, 0), (0, 65535), (1, 65535), (80, 80), (1024, 2047), (1000, 3000), (65535, 65535)] {
            let blocks = blocks(&(first..=last));
            assert!(blocks.len() <= 30, "{first}-{last}: {blocks:?}");
            for port in
                (0..=65535).filter(|port| port % 7 == 0 || first.abs_diff(*port) < 3 || last.abs_diff(*port) < 3)
            {
                let is_in = blocks_with(port).filter(|block| blocks.contains(block)).count();
                assert_eq!(is_in, usize::from((first..=last).contains(&port)), "{port} of {first}-{last}");
            }
        }
    }

    #[test]
    fn bits_are_found_again_in_their_order() {
        let mut bits = Bits(vec![0; 3]);
        let numbers = [0, 1, 63, 64, 100, 190, 191];
        numbers.iter().for_each(|number| bits.set(*number));
        bits.set(192);
        assert_eq!(bits.into_ones().collect::<Vec<_>>(), numbers);
    }
}
