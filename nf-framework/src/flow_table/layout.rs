//! What stands where in the table's memory, and where a key may be.

use super::clock::Coarse;
use super::{Class, FlowKey, Handle};
use dpdk_rs::{HashKey, TagGroup, prefetch};
use std::num::NonZeroU32;

/// Groups whose tags share a cache line.
pub(super) const GROUPS_PER_ROW: usize = 4;
/// Groups that an entry may be in: those of its home row and of one other.
pub(super) const PROBES: usize = 2 * GROUPS_PER_ROW;

/// An entry, or the place of one.
pub(super) struct Slot<K, V> {
    /// Odd while there is an entry.
    pub(super) generation: u32,
    pub(super) deadline: Coarse,
    pub(super) key: K,
    pub(super) value: V,
}

impl<K: FlowKey, V: Default> Slot<K, V> {
    pub(super) fn empty() -> Self {
        Self { generation: 0, deadline: Coarse::default(), key: K::new_zeroed(), value: V::default() }
    }

    /// The handle of its entry, if there is one.
    #[inline(always)]
    pub(super) fn handle(&self, index: usize) -> Option<Handle> {
        #[allow(clippy::cast_possible_truncation, reason = "a table has fewer than 2^32 slots")]
        let index = index as u32;
        let generation = NonZeroU32::new(self.generation).filter(|generation| generation.get() % 2 == 1)?;
        Some(Handle { index, generation })
    }

    /// Asks for all of its lines.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(self);
        // It begins at a multiple of its size from a line's beginning.
        if 64 % size_of::<Self>() != 0 {
            prefetch(&self.value);
            prefetch(&self.generation);
            prefetch(&self.key);
        }
    }
}

/// What the sweep and the search for a victim know of the slots of a group.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct SlotInfo {
    /// Not after the entry's deadline; often before it, as touching leaves it alone.
    pub(super) not_before: [Coarse; TagGroup::SLOTS],
    pub(super) classes: [Class; TagGroup::SLOTS],
}

impl SlotInfo {
    /// Bit i: the time of slot i may have come.
    #[inline]
    pub(super) fn due(&self, now: Coarse) -> u16 {
        // Without branches the compiler compares several at once, and mostly there is none.
        if !self.not_before.iter().fold(false, |any, time| any | time.has_passed(now)) {
            return 0;
        }
        let bits = self.not_before.iter().zip(0..).map(|(time, slot)| u16::from(time.has_passed(now)) << slot);
        bits.fold(0, |due, bit| due | bit)
    }

    /// Of the slots of no higher class than this, that of the lowest and of those the one whose time comes
    /// first, with a rank that compares it with those of other groups.
    #[inline]
    pub(super) fn least(&self, class: Class, now: Coarse) -> Option<(u32, usize)> {
        let mut ranks = [u32::MAX; TagGroup::SLOTS];
        for ((rank, other), time) in ranks.iter_mut().zip(&self.classes).zip(&self.not_before) {
            let own = u32::from(other.0) << 30 | time.ahead_of(now);
            *rank = if other.0 > class.0 { u32::MAX } else { own };
        }
        let least = ranks.iter().copied().fold(u32::MAX, u32::min);
        let slot = ranks.iter().position(|rank| *rank == least)?;
        (self.classes.get(slot)?.0 <= class.0).then_some((least, slot))
    }
}

/// Notes beside a slot when its entry expires.
pub(super) fn note_deadline(info: &mut [SlotInfo], index: usize, deadline: Coarse) {
    let (group, slot) = split(index);
    if let Some(place) = info.get_mut(group).and_then(|info| info.not_before.get_mut(slot)) {
        *place = deadline;
    }
}

/// How many of a group's entries are elsewhere: at most 48 near and 64 far.
#[derive(Clone, Copy, Default)]
pub(super) struct Away {
    /// In another group of the row.
    pub(super) near: u8,
    /// In the other row.
    pub(super) far: u8,
}

impl Away {
    /// An entry came to `group` or went from there.
    pub(super) fn count(&mut self, home: usize, group: usize, change: i8) {
        if group == home {
            return;
        }
        let counter = if group / GROUPS_PER_ROW == home / GROUPS_PER_ROW { &mut self.near } else { &mut self.far };
        *counter = counter.saturating_add_signed(change);
    }
}

/// Where a key may be.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    hash: u64,
    /// The group where it belongs.
    pub(super) home: u32,
}

impl Place {
    /// What its slot is marked with, not zero.
    #[inline(always)]
    pub(super) fn tag(self) -> u8 {
        let [tag, ..] = self.hash.to_le_bytes();
        tag.max(1)
    }
}

/// Draws places from hashes.
pub(super) struct Places {
    groups: u32,
    rows: u32,
    key: HashKey,
}

impl Places {
    pub(super) fn new(groups: usize, key: HashKey) -> Self {
        let groups = u32::try_from(groups).unwrap_or(u32::MAX);
        #[allow(clippy::cast_possible_truncation, reason = "4")]
        let rows = groups / GROUPS_PER_ROW as u32;
        Self { groups, rows, key }
    }

    /// Groups that a key may be in: with one row there is no other.
    pub(super) fn probes(&self) -> usize {
        if self.rows > 1 { PROBES } else { GROUPS_PER_ROW }
    }

    #[inline(always)]
    pub(super) fn of(&self, key: &[u8]) -> Place {
        let hash = self.key.hash(key);
        Place { hash, home: below(self.groups, hash >> 32) }
    }

    /// The group that is looked into after so many others, below [`PROBES`].
    #[inline(always)]
    pub(super) fn group(&self, place: Place, distance: usize) -> usize {
        let start = if distance < GROUPS_PER_ROW { place.home } else { self.other(place) };
        // Rows begin at multiples of four: the last two bits stay within one.
        start as usize ^ (distance % GROUPS_PER_ROW)
    }

    /// A group of another row, if there is one: the home row's distance to it is drawn.
    #[inline]
    fn other(&self, place: Place) -> u32 {
        let step = 4 * below(self.rows.wrapping_sub(1), place.hash & 0xffff_ffff) + 4;
        let other = place.home + step;
        if other < self.groups { other } else { other - self.groups }
    }
}

/// Scales 32 random bits to a number below `limit`, zero if that is zero.
#[inline(always)]
fn below(limit: u32, bits: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "less than limit")]
    let scaled = ((u64::from(limit) * bits) >> 32) as u32;
    scaled
}

/// A slot's group, and its place there.
#[inline]
pub(super) fn split(index: usize) -> (usize, usize) {
    (index / TagGroup::SLOTS, index % TagGroup::SLOTS)
}

/// The places of the bits that are set, lowest first.
#[derive(Clone, Copy)]
pub(super) struct Bits(pub(super) u16);

impl Iterator for Bits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let place = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(place)
    }
}
