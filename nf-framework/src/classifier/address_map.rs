//! From an address to the tag of the range that it lies in, a burst at a time.
//!
//! The ranges' first addresses stand in a search tree without pointers, level after level, the
//! root first. All addresses of a burst go down level by level: the upper levels stay in cache,
//! and below the processor waits for 32 lines at once. So 200 000 ranges cost 18 steps, without
//! a branch, in memory that grows with the prefixes and with nothing else.

use super::prefix::{host_bits_v4, host_bits_v6};
use dpdk_rs::{HugeSlice, Memory, OutOfMemory};
use std::net::IpAddr;

/// Most addresses that are looked up in one pass.
pub(super) const BURST: usize = 32;

/// An address as a number.
pub(super) trait Address: Copy + Ord {
    const LEAST: Self;
    const MOST: Self;

    /// The first and the last address of a prefix, if it is of this family.
    fn range(prefix: super::Prefix) -> Option<(Self, Self)>;

    /// The address after this one.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    const LEAST: Self = Self::MIN;
    const MOST: Self = Self::MAX;

    fn range(prefix: super::Prefix) -> Option<(Self, Self)> {
        let IpAddr::V4(address) = prefix.address() else { return None };
        Some((address.to_bits(), address.to_bits() | host_bits_v4(prefix.length())))
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    const LEAST: Self = Self::MIN;
    const MOST: Self = Self::MAX;

    fn range(prefix: super::Prefix) -> Option<(Self, Self)> {
        let IpAddr::V6(address) = prefix.address() else { return None };
        Some((address.to_bits(), address.to_bits() | host_bits_v6(prefix.length())))
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// Ranges of addresses, each with its tag; together they are all addresses.
pub(super) struct AddressMap<A> {
    /// First addresses, by place: the root is 1, and place p has 2p before it and 2p + 1 behind
    /// it. 0 is nobody's.
    firsts: HugeSlice<A>,
    /// By place.
    tags: HugeSlice<u64>,
    levels: u32,
}

impl<A: Address> AddressMap<A> {
    /// The first address of each range, ascending from the least address, and its tag.
    pub(super) fn new(memory: &Memory, ranges: &[(A, u64)]) -> Result<Self, OutOfMemory> {
        debug_assert!(ranges.first().is_some_and(|(first, _)| *first == A::LEAST) && ranges.is_sorted());
        let levels = usize::BITS - ranges.len().leading_zeros();
        // What fills the last level up is of the last range, whose addresses go on to the end.
        let filler = (A::MOST, ranges.last().map_or(0, |(_, tag)| *tag));
        let at = |place: usize| match rank(place, levels) {
            Some(rank) => ranges.get(rank).copied().unwrap_or(filler),
            None => (A::LEAST, 0),
        };
        Ok(Self {
            firsts: memory.slice(1 << levels, |place| at(place).0)?,
            tags: memory.slice(1 << levels, |place| at(place).1)?,
            levels,
        })
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.firsts) + size_of_val(&*self.tags)
    }

    /// Writes the tags of up to [`BURST`] addresses beside them.
    #[inline]
    pub(super) fn tags(&self, addresses: &[A], tags: &mut [u64]) {
        let firsts: &[A] = &self.firsts;
        let mut places = [1_u32; BURST];
        for _ in 0..self.levels {
            for (address, place) in addresses.iter().zip(&mut places) {
                let behind = firsts.get(*place as usize).is_some_and(|first| first <= address);
                *place = *place * 2 + u32::from(behind);
            }
        }
        for ((place, tag), _) in places.iter().zip(tags).zip(addresses) {
            // Back up to where the way last went behind a first address: that range it is.
            let range = place >> (place.trailing_zeros() + 1);
            *tag = self.tags.get(range as usize).copied().unwrap_or(0);
        }
    }
}

/// Which one, in order of addresses and from 0, stands at a place of a full tree.
fn rank(place: usize, levels: u32) -> Option<usize> {
    let level = place.checked_ilog2()?;
    let apart = 1 << (levels - level);
    Some((place - (1 << level)) * apart + apart / 2 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    fn check<A: Address + std::fmt::Debug>(memory: &Memory, firsts: &[A], asked: &[A]) {
        let ranges: Vec<(A, u64)> = firsts.iter().copied().zip(100..).collect();
        let map = AddressMap::new(memory, &ranges).unwrap();
        for asked in asked.chunks(BURST) {
            let mut tags = [u64::MAX; BURST + 1];
            map.tags(asked, &mut tags);
            for (address, tag) in asked.iter().zip(tags) {
                let expected = ranges.iter().rev().find(|(first, _)| first <= address).unwrap().1;
                assert_eq!(tag, expected, "{address:?} among {} ranges", ranges.len());
            }
            assert!(tags[asked.len()..].iter().all(|tag| *tag == u64::MAX), "the others are left alone");
        }
    }

    #[test]
    fn an_address_has_the_tag_of_the_last_range_that_begins_at_or_before_it() {
        lab(|lab| {
            let memory = &lab.eal.memory();
            for count in (1..70).chain([255, 256, 257, 272, 273, 1000, 4096, 4097, 5000]) {
                // With and without ranges at the very end.
                for step in [0xffff_ffff / count, 7] {
                    let firsts: Vec<u32> = (0..count).map(|number| number * step).collect();
                    let wide: Vec<u128> = firsts.iter().map(|first| u128::from(*first) << 96).collect();
                    let mut asked = vec![0, 1, u32::MAX - 1, u32::MAX];
                    for first in firsts.iter().step_by(1 + firsts.len() / 200).chain(firsts.last()) {
                        asked.extend([first.saturating_sub(1), *first, first.saturating_add(1)]);
                    }
                    let asked_wide: Vec<u128> = asked.iter().map(|address| u128::from(*address) << 96 | 5).collect();
                    check::<u32>(memory, &firsts, &asked);
                    check::<u128>(memory, &wide, &asked_wide);
                }
            }
            check::<u32>(memory, &[0, u32::MAX], &[0, u32::MAX - 1, u32::MAX]);
            check::<u128>(memory, &[0, u128::MAX], &[0, u128::MAX - 1, u128::MAX]);
        });
    }

    #[test]
    fn a_prefix_has_a_first_and_a_last_address_in_its_family_alone() {
        let cases = [
            ("0.0.0.0/0", Some((0, u32::MAX)), None),
            ("10.0.0.0/8", Some((0x0a00_0000, 0x0aff_ffff)), None),
            ("255.255.255.255", Some((u32::MAX, u32::MAX)), None),
            ("::/0", None, Some((0, u128::MAX))),
            ("2001:db8::/32", None, Some((0x2001_0db8 << 96, (0x2001_0db9 << 96) - 1))),
            ("::1", None, Some((1, 1))),
        ];
        for (text, four, six) in cases {
            let prefix = text.parse().unwrap();
            assert_eq!((u32::range(prefix), u128::range(prefix)), (four, six), "{text}");
        }
        assert_eq!((u32::MAX.next(), 7_u32.next(), u128::MAX.next()), (None, Some(8), None));
    }
}
