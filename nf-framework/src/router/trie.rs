//! The longest prefix that an address lies in, a burst at a time.
//!
//! A tree whose first level decides by 16 bits and each further one by 8. What a shorter prefix
//! says is written into every entry below it that no longer one claims, so a look-up ends at the
//! first entry that is no branch: at most 3 steps for IPv4, mostly 2, and 15 for IPv6, mostly 5.
//! It is built whole and never changed, so whoever reads it never sees half of a change.

use crate::batch::Slots;
use crate::classifier::Prefix;
use dpdk_rs::{Burst, HugeSlice, Memory, OutOfMemory};
use std::net::IpAddr;

/// Octets that the first level decides by; each further one decides by one.
const ROOT_OCTETS: usize = 2;
const ROOT: usize = 1 << 16;
const NODE: usize = 1 << 8;
/// Set in an entry that leads on, to the node of the number in the other bits.
const BRANCH: u32 = 1 << 31;

/// A value for each prefix, and one for what lies in none.
pub(super) struct Trie {
    root: HugeSlice<u32>,
    nodes: HugeSlice<u32>,
}

impl Trie {
    /// What a value may be at most: one bit is the tree's own.
    #[cfg(test)]
    const MOST: u32 = BRANCH - 1;

    /// Of prefixes of one family, each with its value; of two that are the same the last one counts.
    pub(super) fn new(memory: &Memory, otherwise: u32, prefixes: &[(Prefix, u32)]) -> Result<Self, OutOfMemory> {
        let mut entries = Entries { root: vec![otherwise; ROOT], nodes: Vec::new() };
        // The shorter ones first, so that no entry which leads on is ever written over.
        let mut by_length: Vec<&(Prefix, u32)> = prefixes.iter().collect();
        by_length.sort_by_key(|(prefix, _)| prefix.length());
        for (prefix, value) in by_length {
            match prefix.address() {
                IpAddr::V4(address) => entries.insert(&address.octets(), prefix.length().into(), *value),
                IpAddr::V6(address) => entries.insert(&address.octets(), prefix.length().into(), *value),
            }
        }
        let of = |entries: &[u32]| memory.slice(entries.len(), |at| entries.get(at).copied().unwrap_or(otherwise));
        Ok(Self { root: of(&entries.root)?, nodes: of(&entries.nodes)? })
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.root) + size_of_val(&*self.nodes)
    }

    /// Writes the value of each address in these slots beside it.
    #[inline]
    pub(super) fn look_up<const N: usize>(
        &self,
        slots: Slots,
        addresses: &[[u8; N]; Burst::CAPACITY],
        values: &mut [u32; Burst::CAPACITY],
    ) {
        // Level after level for all of them, so that the processor waits for their lines at once.
        let mut open = Slots::default();
        let Some(root) = self.root.first_chunk::<ROOT>() else { return };
        for slot in slots {
            values[slot] = root[root_index(&addresses[slot])];
            // With a branch, which is guessed right where there are many routes, so that the next level need not
            // wait for all of this one. Further down lengths differ.
            if values[slot] & BRANCH != 0 {
                open.insert(slot);
            }
        }
        let mut level = ROOT_OCTETS;
        while !open.is_empty() && level < N {
            for slot in std::mem::take(&mut open) {
                values[slot] = self.next(values[slot], addresses[slot][level]);
                open.insert_if(values[slot] & BRANCH != 0, slot);
            }
            level += 1;
        }
    }

    /// The value of one address.
    pub(super) fn find<const N: usize>(&self, address: [u8; N]) -> u32 {
        let mut value = self.root.get(root_index(&address)).copied().unwrap_or(0);
        for octet in &address[ROOT_OCTETS..] {
            if value & BRANCH != 0 {
                value = self.next(value, *octet);
            }
        }
        value
    }

    /// Where an entry that leads on leads by the next octet.
    #[inline]
    fn next(&self, branch: u32, octet: u8) -> u32 {
        self.nodes.get(node_index(branch & !BRANCH, octet)).copied().unwrap_or(0)
    }
}

#[inline]
fn root_index(address: &[u8]) -> usize {
    address.first_chunk().map_or(0, |first| u16::from_be_bytes(*first).into())
}

#[inline]
fn node_index(node: u32, octet: u8) -> usize {
    node as usize * NODE + usize::from(octet)
}

/// A tree that is being built.
struct Entries {
    root: Vec<u32>,
    nodes: Vec<u32>,
}

impl Entries {
    fn insert(&mut self, address: &[u8], length: usize, value: u32) {
        // None is the root.
        let (mut node, mut end) = (None::<u32>, ROOT_OCTETS);
        loop {
            let next = u32::try_from(self.nodes.len() / NODE).unwrap_or(0);
            let (level, place) = match node {
                None => (&mut self.root, root_index(address)),
                Some(node) => (&mut self.nodes, node_index(node, address[end - 1])),
            };
            if length <= 8 * end {
                // All entries that begin with the prefix's bits.
                level[place..place + (1 << (8 * end - length))].fill(value);
                return;
            }
            let above = level[place];
            if above & BRANCH == 0 {
                level[place] = BRANCH | next;
                self.nodes.extend(std::iter::repeat_n(above, NODE));
            }
            node = Some(if above & BRANCH == 0 { next } else { above & !BRANCH });
            end += 1;
        }
    }
}

impl std::fmt::Debug for Trie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trie").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Of every other slot, so that a burst has some that nobody asks for.
    fn look_up<const N: usize>(trie: &Trie, addresses: &[[u8; N]]) -> Vec<u32> {
        let mut found = Vec::new();
        for some in addresses.chunks(Burst::CAPACITY / 2) {
            let (mut slots, mut wanted) = (Slots::default(), [[0; N]; Burst::CAPACITY]);
            let mut values = [NOT_ASKED; Burst::CAPACITY];
            for (index, address) in some.iter().enumerate() {
                slots.insert(2 * index);
                wanted[2 * index] = *address;
            }
            trie.look_up(slots, &wanted, &mut values);
            let (asked, others): (Vec<_>, Vec<_>) = values.as_chunks::<2>().0.iter().map(|[a, b]| (*a, *b)).unzip();
            assert!(others.iter().chain(&asked[some.len()..]).all(|value| *value == NOT_ASKED));
            assert!(some.iter().zip(&asked).all(|(address, value)| trie.find(*address) == *value));
            found.extend(&asked[..some.len()]);
        }
        found
    }

    const NOT_ASKED: u32 = u32::MAX;

    fn found(prefixes: &[(&str, u32)], addresses: &[&str]) -> Vec<u32> {
        let prefixes: Vec<_> = prefixes.iter().map(|(prefix, value)| (prefix.parse().unwrap(), *value)).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        lab(move |lab| {
            let trie = Trie::new(&lab.pool.memory(), 0, &prefixes).unwrap();
            let find = |address: &IpAddr| match address {
                IpAddr::V4(address) => trie.find(address.octets()),
                IpAddr::V6(address) => trie.find(address.octets()),
            };
            addresses.iter().map(find).collect()
        })
    }

    #[test]
    fn the_longest_prefix_counts() {
        let prefixes = [
            ("0.0.0.0/0", 1),
            ("10.0.0.0/8", 2),
            ("10.1.0.0/16", 3),
            ("10.1.2.0/23", 4),
            ("10.1.2.0/24", 5),
            ("10.1.2.3/32", 6),
            ("10.1.2.4/30", 7),
            ("255.255.255.255/32", Trie::MOST),
        ];
        let addresses = [
            "9.255.255.255",
            "10.0.0.0",
            "10.2.0.0",
            "10.1.0.0",
            "10.1.3.9",
            "10.1.2.0",
            "10.1.2.3",
            "10.1.2.7",
            "10.1.2.8",
            "255.255.255.254",
            "255.255.255.255",
        ];
        assert_eq!(found(&prefixes, &addresses), [1, 2, 2, 3, 4, 5, 6, 7, 5, 1, Trie::MOST]);
        assert_eq!(found(&[], &["0.0.0.0", "::"]), [0, 0]);
        assert_eq!(found(&[("10.0.0.0/8", 1), ("10.0.0.0/8", 2)], &["10.0.0.0"]), [2]);
    }

    #[test]
    fn prefixes_of_ipv6_may_have_any_length() {
        let prefixes = [("::/0", 1), ("2001:db8::/32", 2), ("2001:db8::/47", 3), ("2001:db8::1/128", 4), ("::/127", 5)];
        let addresses =
            ["ff::", "2001:db8:8000::", "2001:db8:1::", "2001:db8:2::", "2001:db8::1", "2001:db8::", "::1", "::2"];
        assert_eq!(found(&prefixes, &addresses), [1, 2, 3, 2, 4, 3, 5, 1]);
    }

    proptest! {
        /// Against the definition: of the prefixes that contain the address, the longest.
        #[test]
        fn every_address_finds_its_longest_prefix(
            prefixes in prop::collection::vec((any::<u32>(), 0..=32u8, 1..1000u32), 0..40),
            wide in prop::collection::vec((any::<u128>(), 0..=128u8, 1..1000u32), 0..40),
            others in prop::collection::vec(any::<u32>(), 0..64),
        ) {
            let cut = |address: IpAddr, length| match Prefix::new(address, length) {
                Ok(prefix) => prefix,
                Err(crate::InvalidPrefix::HostBits { meant, .. }) => meant,
                Err(error) => panic!("{error}"),
            };
            let four = |bits: u32| IpAddr::V4(Ipv4Addr::from_bits(bits));
            let six = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
            let v4: Vec<(Prefix, u32)> = prefixes.iter().map(|&(bits, length, value)| (cut(four(bits), length), value)).collect();
            let v6: Vec<(Prefix, u32)> = wide.iter().map(|&(bits, length, value)| (cut(six(bits), length), value)).collect();
            // The first and the last address of each prefix, and their neighbours.
            let mut asked4 = others;
            for (prefix, _) in &v4 {
                let IpAddr::V4(first) = prefix.address() else { unreachable!() };
                let last = first.to_bits() | u32::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
                asked4.extend([first.to_bits(), first.to_bits().wrapping_sub(1), last, last.wrapping_add(1)]);
            }
            let mut asked6 = Vec::new();
            for (prefix, _) in &v6 {
                let IpAddr::V6(first) = prefix.address() else { unreachable!() };
                let last = first.to_bits() | u128::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
                asked6.extend([first.to_bits(), first.to_bits().wrapping_sub(1), last, last.wrapping_add(1)]);
            }
            let longest = |prefixes: &[(Prefix, u32)], address: IpAddr| {
                let matching = prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
                matching.max_by_key(|(prefix, _)| prefix.length()).map_or(0, |(_, value)| *value)
            };
            let expected4: Vec<u32> = asked4.iter().map(|&bits| longest(&v4, four(bits))).collect();
            let expected6: Vec<u32> = asked6.iter().map(|&bits| longest(&v6, six(bits))).collect();
            let asked4: Vec<[u8; 4]> = asked4.iter().map(|bits| bits.to_be_bytes()).collect();
            let asked6: Vec<[u8; 16]> = asked6.iter().map(|bits| bits.to_be_bytes()).collect();
            let (found4, found6) = lab(move |lab| {
                let memory = lab.pool.memory();
                let (v4, v6) = (Trie::new(&memory, 0, &v4).unwrap(), Trie::new(&memory, 0, &v6).unwrap());
                (look_up(&v4, &asked4), look_up(&v6, &asked6))
            });
            prop_assert_eq!(found4, expected4);
            prop_assert_eq!(found6, expected6);
        }
    }
}
