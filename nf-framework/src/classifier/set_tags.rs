//! Sets of addresses as tags: 64 bits for each address that say which sets it is in.
//!
//! Sets that have no address in common share a field of the tag, in which each has a number of
//! its own; sets that overlap have different fields. A rule on a set compares the set's field
//! with its number. A bit for each set would do as well, but DPDK builds its tries as though
//! any bits could come together: with thirty sets, thirty rules, each on one, are two to the
//! thirtieth ways to match. As numbers of one field they are thirty.

use super::address_map::Address;
use super::{AddressSet, MAX_SETS};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Which sets some addresses are in: a bit for each.
type Members = u64;

/// How tags say which sets an address is in.
#[derive(Debug)]
pub(super) struct SetTags {
    /// By set.
    codes: [Option<Code>; MAX_SETS],
}

/// A set's field and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Code {
    pub(super) bits: u64,
    pub(super) mask: u64,
}

/// The tags of those sets that `used` has a bit for, and the first address of each range of
/// addresses with the same tag.
pub(super) fn tag<A: Address>(sets: &[AddressSet], used: Members) -> (SetTags, Vec<(A, u64)>) {
    let members = ranges::<A>(sets, used);
    let together: BTreeSet<Members> = members.iter().map(|(_, members)| *members).collect();
    let tags = SetTags::new(&together);
    let ranges = members.into_iter().map(|(first, members)| (first, tags.of(members))).collect();
    (tags, ranges)
}

/// The first address of each range of addresses that are in the same sets.
fn ranges<A: Address>(sets: &[AddressSet], used: Members) -> Vec<(A, Members)> {
    // Where membership of a set begins or ends.
    let mut changes: Vec<(A, Members)> = Vec::new();
    for (set, bit) in sets.iter().zip(bits()).filter(|(_, bit)| used & bit != 0) {
        let mut parts: Vec<(A, A)> = set.prefixes.iter().filter_map(|prefix| A::range(*prefix)).collect();
        // Prefixes overlap only by one being within the other: the outer one is to come first.
        parts.sort_unstable_by_key(|(first, last)| (*first, Reverse(*last)));
        let mut covered: Option<A> = None;
        for (first, last) in parts {
            if covered.is_none_or(|covered| covered < first) {
                changes.push((first, bit));
                changes.extend(last.next().map(|after| (after, bit)));
                covered = Some(last);
            }
        }
    }
    changes.sort_unstable();
    let mut ranges = vec![(A::LEAST, 0)];
    let mut now = 0;
    for at_one_address in changes.chunk_by(|one, other| one.0 == other.0) {
        // Where a part of a set ends and the next begins, both cancel out.
        let change = at_one_address.iter().fold(0, |change, (_, bit)| change ^ bit);
        let Some((address, _)) = at_one_address.first().filter(|_| change != 0) else { continue };
        now ^= change;
        match ranges.last_mut().filter(|(first, _)| first == address) {
            Some(last) => last.1 = now,
            None => ranges.push((*address, now)),
        }
    }
    ranges
}

/// The bits of the sets, in their order.
fn bits() -> impl Iterator<Item = Members> {
    (0..MAX_SETS).map(|set| 1 << set)
}

impl SetTags {
    /// For sets that come together so and in no other way.
    fn new(together: &BTreeSet<Members>) -> Self {
        let bits: Vec<Members> = bits().collect();
        let overlapping =
            |bit: Members| together.iter().filter(|members| *members & bit != 0).fold(0, |all, members| all | members);
        // Sets that have an address, those that overlap the most others first.
        let mut sets: Vec<(usize, Members)> = bits.iter().map(|bit| overlapping(*bit)).enumerate().collect();
        sets.retain(|(_, overlapping)| *overlapping != 0);
        sets.sort_by_key(|(_, overlapping)| u32::MAX - overlapping.count_ones());
        // Each into the first field where it overlaps nothing.
        let mut fields: Vec<Members> = Vec::new();
        for (set, overlapping) in sets {
            match fields.iter_mut().find(|field| **field & overlapping == 0) {
                Some(field) => *field |= 1 << set,
                None => fields.push(1 << set),
            }
        }
        let mut codes = [None; MAX_SETS];
        let mut free = u64::BITS;
        for field in &fields {
            // Zero is none of them. Numbers of n sets have at most n bits, so there is room.
            let width = u64::BITS - u64::from(field.count_ones()).leading_zeros();
            free = free.saturating_sub(width);
            let members = codes.iter_mut().zip(&bits).filter(|(_, bit)| *field & **bit != 0);
            for ((code, _), number) in members.zip(1_u64..) {
                *code = Some(Code { bits: number << free, mask: ((1 << width) - 1) << free });
            }
        }
        Self { codes }
    }

    /// A set's code; nothing when no address of the family is in it.
    pub(super) fn code(&self, set: usize) -> Option<Code> {
        self.codes.get(set).copied().flatten()
    }

    /// The tag of addresses that are in these sets.
    fn of(&self, members: Members) -> u64 {
        let codes = self.codes.iter().zip(bits()).filter(|(_, bit)| members & bit != 0);
        codes.filter_map(|(code, _)| *code).fold(0, |tag, code| tag | code.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(prefixes: &[&str]) -> AddressSet {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        AddressSet { name: String::new(), prefixes }
    }

    #[test]
    fn ranges_begin_and_end_where_membership_does() {
        type Case<'a> = (&'a str, &'a [&'a [&'a str]], &'a [(u32, u64)]);
        const TEN: u32 = 0x0a00_0000;
        let cases: [Case<'_>; 10] = [
            ("no set", &[], &[(0, 0)]),
            ("an empty one, and one of the other family", &[&[], &["::/0"]], &[(0, 0)]),
            ("everything", &[&["0.0.0.0/0"]], &[(0, 1)]),
            ("the last address", &[&["255.255.255.255"]], &[(0, 0), (u32::MAX, 1)]),
            ("the first address", &[&["0.0.0.0"]], &[(0, 1), (1, 0)]),
            ("twice the same", &[&["10.0.0.0/8", "10.0.0.0/8"]], &[(0, 0), (TEN, 1), (TEN + (1 << 24), 0)]),
            (
                "one in the other, in any order",
                &[&["10.1.0.0/16", "10.0.0.0/16", "10.0.0.0/8", "10.255.255.255"]],
                &[(0, 0), (TEN, 1), (TEN + (1 << 24), 0)],
            ),
            ("side by side", &[&["10.0.0.0/9", "10.128.0.0/9"]], &[(0, 0), (TEN, 1), (TEN + (1 << 24), 0)]),
            (
                "two sets side by side",
                &[&["10.0.0.0/9"], &["10.128.0.0/9"]],
                &[(0, 0), (TEN, 1), (TEN + (1 << 23), 2), (TEN + (1 << 24), 0)],
            ),
            (
                "a set in a set",
                &[&["10.0.0.0/8"], &["10.0.0.7"]],
                &[(0, 0), (TEN, 1), (TEN + 7, 3), (TEN + 8, 1), (TEN + (1 << 24), 0)],
            ),
        ];
        for (description, sets, expected) in cases {
            let sets: Vec<AddressSet> = sets.iter().map(|prefixes| set(prefixes)).collect();
            assert_eq!(ranges::<u32>(&sets, u64::MAX), expected, "{description}");
        }
        assert_eq!(ranges::<u32>(&[set(&["0.0.0.0/0"])], 0), [(0, 0)], "a set that is not used");
    }

    #[test]
    fn every_tag_tells_exactly_the_sets_that_it_stands_for() {
        let shared: Vec<u64> = (0..64).map(|set| 1 << set).collect();
        let nested: Vec<u64> = (0..64).map(|set| u64::MAX >> set).collect();
        let pairs: Vec<u64> = (0..32).map(|set| 1 << set | 1 << (set + 32)).collect();
        let cases = [
            ("none", vec![0], 0),
            ("one", vec![0, 1 << 63], 1),
            ("64 apart from each other", shared, 1),
            ("64 within each other", nested, 64),
            ("32 pairs", pairs, 2),
            ("three in a row", vec![0b11, 0b110, 0b1], 2),
        ];
        for (description, together, fields) in cases {
            let tags = SetTags::new(&together.iter().copied().collect());
            let masks: BTreeSet<u64> = tags.codes.iter().flatten().map(|code| code.mask).collect();
            assert_eq!(masks.len(), fields, "{description}");
            for members in &together {
                let tag = tags.of(*members);
                for set in 0..MAX_SETS {
                    let inside = tags.code(set).is_some_and(|code| tag & code.mask == code.bits);
                    assert_eq!(inside, members & 1 << set != 0, "{description}: {members:b} has {set}");
                }
            }
        }
    }
}
