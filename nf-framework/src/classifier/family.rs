//! The rules of one address family, as DPDK's tries and a map of the sets.

use super::address_map::{Address, AddressMap, BURST};
use super::key::{ICMP, MARKS_SHIFT, PORTS, TCP_FLAGS};
use super::set_tags::{Code, SetTags, tag};
use super::{AddressSet, Addresses, ClassifierError, IpFamily, Key, MAX_SETS, Prefix, Rule, RuleIndex, key};
use dpdk_rs::{Acl, AclAlgorithm, AclField, AclRule, AclValue, Memory};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

/// Words of the tags of source and destination, at the end of a key. There, because most rules
/// do not name sets, and what few rules ask for multiplies all that DPDK looks at after it:
/// before the addresses, tags cost up to a hundred times the memory.
const TAG_WORDS: usize = 4;

/// Rules may take so many bytes, as a part of them lets expect. Nothing stops DPDK once it
/// builds, and it takes up to sixteen times as much of the heap meanwhile.
const MOST_BYTES: usize = 128 << 20;

/// So many rules are built without trying a part of them first.
const FEW_RULES: usize = 512;

/// A family's addresses in keys and rules of so many fields and words.
pub(super) trait Family: Address {
    const FAMILY: IpFamily;
    /// Source and destination, if the key is of this family.
    fn of(key: &Key) -> Option<(Self, Self)>;
    /// Writes an address as it is in packets; as many words as it has.
    fn write(self, words: &mut [u32]);
}

impl Family for u32 {
    const FAMILY: IpFamily = IpFamily::V4;

    #[inline]
    fn of(key: &Key) -> Option<(Self, Self)> {
        match key.addresses {
            key::Addresses::V4(source, destination) => Some((source, destination)),
            key::Addresses::V6(..) => None,
        }
    }

    #[inline]
    fn write(self, words: &mut [u32]) {
        words.iter_mut().take(1).for_each(|word| *word = self.to_be());
    }
}

impl Family for u128 {
    const FAMILY: IpFamily = IpFamily::V6;

    #[inline]
    fn of(key: &Key) -> Option<(Self, Self)> {
        match key.addresses {
            key::Addresses::V4(..) => None,
            key::Addresses::V6(source, destination) => Some((source, destination)),
        }
    }

    #[inline]
    fn write(self, words: &mut [u32]) {
        for (word, octets) in words.iter_mut().zip(self.to_be_bytes().as_chunks().0) {
            *word = u32::from_ne_bytes(*octets);
        }
    }
}

/// The rules of a family whose keys have so many words, and its sets.
pub(super) struct FamilyRules<A, const WORDS: usize> {
    acl: Acl<WORDS>,
    sets: AddressMap<A>,
    /// Whether some rule names a set for the source; otherwise nobody needs its tag.
    source_sets: bool,
    destination_sets: bool,
}

impl<A: Family, const WORDS: usize> FamilyRules<A, WORDS> {
    /// Words of an address in a key: there are a word for the protocol, two addresses, a word
    /// for ports and one for the rest, and the tags.
    const ADDRESS_WORDS: usize = (WORDS - 3 - TAG_WORDS) / 2;

    /// `FIELDS` is 13 for IPv4 and 19 for IPv6.
    pub(super) fn new<const FIELDS: usize>(
        memory: &Memory,
        sets: &[AddressSet],
        rules: &[Rule],
    ) -> Result<Self, ClassifierError> {
        let named = |set: &str| sets.iter().position(|other| other.name == set).unwrap_or(MAX_SETS);
        let is_ours = |rule: &Rule| rule.family().is_none_or(|family| family == A::FAMILY);
        let mut used = 0;
        for rule in rules.iter().filter(|rule| is_ours(rule)) {
            for set in [&rule.source, &rule.destination].into_iter().filter_map(Addresses::set) {
                used |= 1_u64.checked_shl(named(set).try_into().unwrap_or(u32::MAX)).unwrap_or(0);
            }
        }
        let (tags, ranges) = tag::<A>(sets, used);
        let address_map = AddressMap::new(memory, &ranges).map_err(|source| ClassifierError::Sets {
            family: A::FAMILY,
            ranges: ranges.len(),
            source,
        })?;
        drop(ranges);

        let side = |addresses: &Addresses| Side::of(addresses, &tags, named);
        let numbered = rules.iter().zip(1..).filter(|(rule, _)| is_ours(rule)).filter_map(|(rule, answer)| {
            // A set without addresses of the family: nothing of the family can match.
            Some((rule, side(&rule.source)?, side(&rule.destination)?, NonZeroU32::new(answer)?))
        });
        let numbered: Vec<(&Rule, Side, Side, NonZeroU32)> = numbered.collect();
        let fields: [AclField; FIELDS] = row(Self::fields(), AclField::Bits(1));
        // Every so manieth rule.
        let build = |part: usize| -> Result<Acl<WORDS>, ClassifierError> {
            let rules = numbered.iter().step_by(part).map(|(rule, source, destination, answer)| AclRule {
                answer: *answer,
                fields: row(Self::values(rule, *source, *destination), AclValue::default()),
            });
            let (family, count) = (A::FAMILY, numbered.len());
            let built = Acl::new(memory, &fields, rules);
            built.map_err(|source| ClassifierError::TooLarge { family, rules: count, source })
        };
        let parts: &[usize] = if numbered.len() > FEW_RULES { &[16, 4] } else { &[] };
        for part in parts {
            let expected = || -> Result<usize, ClassifierError> { Ok(build(*part)?.bytes() * part) };
            // Twice before it is refused: what others allocate meanwhile is counted too.
            let bytes = expected()?;
            if bytes > MOST_BYTES && expected()? > MOST_BYTES {
                let (family, rules) = (A::FAMILY, numbered.len());
                return Err(ClassifierError::TooManyOverlaps { family, rules, bytes, most: MOST_BYTES });
            }
        }
        let acl = build(1)?;
        let some = |side: fn(&(&Rule, Side, Side, NonZeroU32)) -> Side| {
            numbered.iter().any(|rule| matches!(side(rule), Side::Set(_)))
        };
        let (source_sets, destination_sets) = (some(|rule| rule.1), some(|rule| rule.2));
        Ok(Self { acl, sets: address_map, source_sets, destination_sets })
    }

    /// The fields of a key, in its order.
    fn fields() -> Vec<AclField> {
        use AclField::{Bits, Prefix, Range};
        let mut fields = vec![Bits(1)];
        fields.extend([Prefix(4); 2].repeat(Self::ADDRESS_WORDS));
        fields.extend([Range(2), Range(2), Bits(1), Bits(1), Range(1), Range(1)]);
        fields.extend([Bits(4); TAG_WORDS]);
        fields
    }

    /// What a rule says of them.
    fn values(rule: &Rule, source: Side, destination: Side) -> Vec<AclValue> {
        let any = AclValue::default();
        let protocol = rule.protocol.map_or(any, |protocol| bits(protocol.0, u8::MAX));
        let mut has = rule.marks << MARKS_SHIFT;
        let mut ports = |ports: &Option<RangeInclusive<u16>>| match ports {
            Some(ports) => {
                has |= PORTS;
                range(*ports.start(), *ports.end())
            }
            None => range(u16::MIN, u16::MAX),
        };
        let [source_ports, destination_ports] = [ports(&rule.source_ports), ports(&rule.destination_ports)];
        let flags = rule.tcp_flags.map_or(any, |flags| {
            has |= TCP_FLAGS;
            bits(flags.set.0, flags.of.0)
        });
        let every = range(u8::MIN, u8::MAX);
        let [types, codes] = rule.icmp.as_ref().map_or([every; 2], |icmp| {
            has |= ICMP;
            [&icmp.types, &icmp.codes].map(|numbers| range(*numbers.start(), *numbers.end()))
        });
        let mut values = vec![protocol];
        values.extend([source, destination].into_iter().flat_map(|side| side.prefix(Self::ADDRESS_WORDS)));
        values.extend([source_ports, destination_ports, bits(has, has), flags, types, codes]);
        values.extend([source, destination].into_iter().flat_map(Side::tag));
        values
    }

    /// Writes the first rule that matches each key of this family beside it.
    #[inline]
    pub(super) fn classify(&self, keys: &[Key], found: &mut [Option<RuleIndex>]) {
        for (keys, found) in keys.chunks(BURST).zip(found.chunks_mut(BURST)) {
            if keys.iter().any(|key| A::of(key).is_some()) {
                self.classify_burst(keys, found);
            }
        }
    }

    fn classify_burst(&self, keys: &[Key], found: &mut [Option<RuleIndex>]) {
        let mut words = [[0; WORDS]; BURST];
        let mut sources = [A::LEAST; BURST];
        let mut destinations = [A::LEAST; BURST];
        let mut places = [0; BURST];
        let mut count = 0;
        let own = keys.iter().zip(0_usize..).filter_map(|(key, place)| Some((key, place, A::of(key)?)));
        let rooms = words.iter_mut().zip(&mut sources).zip(&mut destinations).zip(&mut places);
        for ((key, place, (source, destination)), (((words, to_source), to_destination), to_place)) in own.zip(rooms) {
            (*to_source, *to_destination, *to_place) = (source, destination, place);
            words[0] = u32::from_ne_bytes([key.protocol.0, 0, 0, 0]);
            source.write(&mut words[1..]);
            destination.write(&mut words[1 + Self::ADDRESS_WORDS..]);
            words[1 + 2 * Self::ADDRESS_WORDS] = u32::from_ne_bytes(key.ports);
            words[2 + 2 * Self::ADDRESS_WORDS] = u32::from_ne_bytes(key.detail);
            count += 1;
        }
        for (used, addresses, at) in [
            (self.source_sets, &sources, WORDS - TAG_WORDS),
            (self.destination_sets, &destinations, WORDS - TAG_WORDS / 2),
        ] {
            if used {
                let mut tags = [0; BURST];
                self.sets.tags(&addresses[..count], &mut tags);
                for (words, tag) in words.iter_mut().zip(tags).take(count) {
                    for (word, octets) in words[at..].iter_mut().zip(tag.to_be_bytes().as_chunks().0) {
                        *word = u32::from_ne_bytes(*octets);
                    }
                }
            }
        }
        let mut answers = [0; BURST];
        self.acl.classify(&words[..count], &mut answers);
        for (place, answer) in places.iter().zip(answers).take(count) {
            if let Some(found) = found.get_mut(*place) {
                *found = NonZeroU32::new(answer).map(RuleIndex);
            }
        }
    }

    pub(super) fn algorithm(&self) -> AclAlgorithm {
        self.acl.algorithm()
    }

    pub(super) fn use_algorithm(&mut self, algorithm: AclAlgorithm) -> bool {
        self.acl.use_algorithm(algorithm)
    }

    pub(super) fn has_rules(&self) -> bool {
        self.acl.bytes() != 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.acl.bytes() + self.sets.bytes()
    }
}

/// As many as there are fields, in a row of that length.
fn row<T: Copy, const FIELDS: usize>(parts: Vec<T>, filler: T) -> [T; FIELDS] {
    debug_assert_eq!(parts.len(), FIELDS);
    let mut row = [filler; FIELDS];
    row.iter_mut().zip(parts).for_each(|(place, part)| *place = part);
    row
}

fn bits(value: u8, mask: u8) -> AclValue {
    AclValue { value: value.into(), extent: mask.into() }
}

fn range<T: Into<u32>>(first: T, last: T) -> AclValue {
    AclValue { value: first.into(), extent: last.into() }
}

/// Source or destination of a rule, as this family has it.
#[derive(Clone, Copy)]
enum Side {
    Any,
    Prefix(Prefix),
    Set(Code),
}

impl Side {
    /// Nothing for a set that has no addresses here.
    fn of(addresses: &Addresses, tags: &SetTags, named: impl Fn(&str) -> usize) -> Option<Self> {
        Some(match addresses {
            Addresses::Any => Self::Any,
            Addresses::Prefix(prefix) => Self::Prefix(*prefix),
            Addresses::Set(name) => Self::Set(tags.code(named(name))?),
        })
    }

    /// The words of the tag.
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
    fn tag(self) -> [AclValue; TAG_WORDS / 2] {
        let Self::Set(Code { bits, mask }) = self else { return [AclValue::default(); TAG_WORDS / 2] };
        [32, 0].map(|shift| AclValue { value: (bits >> shift) as u32, extent: (mask >> shift) as u32 })
    }

    /// The words of the prefix: the first ones whole, one in part, the last not at all.
    fn prefix(self, words: usize) -> Vec<AclValue> {
        let Self::Prefix(prefix) = self else { return vec![AclValue::default(); words] };
        let octets = match prefix.address() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let numbers = octets.as_chunks().0.iter().map(|octets| u32::from_be_bytes(*octets));
        let lengths = (0..).map(|word| u32::from(prefix.length()).saturating_sub(32 * word).min(32));
        numbers.zip(lengths).map(|(value, extent)| AclValue { value, extent }).collect()
    }
}
