//! From an address to the tag of the range that it lies in, a burst at a time.
//!
//! The ranges' first addresses stand in a search tree without pointers: a node is a few cache
//! lines of sorted addresses, and the nodes of a level lie side by side. So a look-up among
//! hundreds of thousands of ranges reads about six nodes, and those of a burst at once.

use super::prefix::host_mask;
use dpdk_rs::{HugeSlice, Memory, OutOfMemory, prefetch};
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
        #[allow(clippy::cast_possible_truncation, reason = "a mask of 32 bits")]
        let mask = host_mask(prefix.length(), 32) as Self;
        Some((address.to_bits(), address.to_bits() | mask))
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
        Some((address.to_bits(), address.to_bits() | host_mask(prefix.length(), 128)))
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// Ranges of addresses, each with its tag; together they are all addresses.
pub(super) struct AddressMap<A, const NODE: usize> {
    /// The root, then the nodes of each level below.
    nodes: HugeSlice<[A; NODE]>,
    /// From the root down.
    levels: Vec<Level>,
    /// By range.
    tags: HugeSlice<u64>,
}

struct Level {
    /// Its first node among all nodes.
    first: usize,
    /// The last that one can go on to: a node of the level below, or a range.
    last_below: usize,
}

impl<A: Address, const NODE: usize> AddressMap<A, NODE> {
    /// The first address of each range, ascending from the least address, and its tag.
    pub(super) fn new(memory: &Memory, ranges: &[(A, u64)]) -> Result<Self, OutOfMemory> {
        debug_assert!(ranges.first().is_some_and(|(first, _)| *first == A::LEAST) && ranges.is_sorted());
        // Of each level from the ranges up: the addresses that its nodes have.
        let mut rows: Vec<Vec<A>> = vec![ranges.iter().map(|(first, _)| *first).collect()];
        while let Some(row) = rows.last().filter(|row| row.len() > NODE) {
            let above = row.iter().step_by(NODE).copied().collect();
            rows.push(above);
        }
        rows.reverse();
        let mut levels = Vec::with_capacity(rows.len());
        let mut first = 0;
        for row in &rows {
            levels.push(Level { first, last_below: row.len().saturating_sub(1) });
            first += row.len().div_ceil(NODE);
        }
        let mut nodes = rows.iter().flat_map(|row| row.chunks(NODE)).map(|addresses| {
            // What fills a node up is never reached: it is cut off by `last_below`.
            let mut node = [A::MOST; NODE];
            node.iter_mut().zip(addresses).for_each(|(place, address)| *place = *address);
            node
        });
        Ok(Self {
            nodes: memory.slice(first, |_| nodes.next().unwrap_or([A::MOST; NODE]))?,
            levels,
            tags: memory.slice(ranges.len(), |index| ranges.get(index).map_or(0, |(_, tag)| *tag))?,
        })
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.tags)
    }

    /// Writes the tags of up to [`BURST`] addresses beside them.
    #[inline]
    pub(super) fn tags(&self, addresses: &[A], tags: &mut [u64]) {
        let mut places = [0_usize; BURST];
        for level in &self.levels {
            for (address, place) in addresses.iter().zip(&mut places) {
                let node = self.nodes.get(level.first + *place);
                // The first one never is above the address: it begins what led here.
                let passed =
                    node.map_or(1, |node| node.iter().map(|first| usize::from(first <= address)).sum::<usize>());
                *place = (*place * NODE + passed).saturating_sub(1).min(level.last_below);
            }
        }
        for place in places.iter().take(addresses.len()) {
            self.tags.get(*place).map(prefetch);
        }
        for ((place, tag), _) in places.iter().zip(tags).zip(addresses) {
            *tag = self.tags.get(*place).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    fn check<A: Address + std::fmt::Debug, const NODE: usize>(memory: &Memory, firsts: &[A], asked: &[A]) {
        let ranges: Vec<(A, u64)> = firsts.iter().copied().zip(100..).collect();
        let map: AddressMap<A, NODE> = AddressMap::new(memory, &ranges).unwrap();
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
                    check::<u32, 16>(memory, &firsts, &asked);
                    check::<u32, 2>(memory, &firsts, &asked);
                    check::<u128, 4>(memory, &wide, &asked_wide);
                }
            }
            check::<u32, 16>(memory, &[0, u32::MAX], &[0, u32::MAX - 1, u32::MAX]);
            check::<u128, 4>(memory, &[0, u128::MAX], &[0, u128::MAX - 1, u128::MAX]);
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
