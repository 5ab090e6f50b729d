//! What a flow table is given, and what it gives back.

use super::clock::Coarse;
use super::layout::{self, SlotInfo};
use std::fmt;
use std::num::NonZeroU32;
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// What a flow is known by: plain bytes without padding, all of which count. 16, 32 or 40
/// bytes are hashed fastest.
pub trait FlowKey: Copy + IntoBytes + Immutable + FromZeros {}

impl<K: Copy + IntoBytes + Immutable + FromZeros> FlowKey for K {}

/// How much an entry is worth when the table is full: a higher class is never evicted for a
/// lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Class(pub(super) u8);

impl Class {
    /// How many there are, from 0.
    pub const COUNT: usize = 4;
    /// The lowest: seen once, and nothing proves that anyone waits for an answer.
    pub const EMBRYONIC: Self = Self(0);
    /// Confirmed by both sides.
    pub const ESTABLISHED: Self = Self(2);
    /// The highest: configured, or dear for another reason.
    pub const KEPT: Self = Self(3);

    /// The class of a rank below [`Class::COUNT`]; 1 has no name and is yours.
    #[must_use]
    pub const fn new(rank: u8) -> Option<Self> {
        if (rank as usize) < Self::COUNT { Some(Self(rank)) } else { None }
    }

    /// Its rank, higher for dearer.
    #[must_use]
    pub const fn rank(self) -> u8 {
        self.0
    }
}

/// Where an entry is, for as long as it is there: a handle of an entry that is gone leads to
/// nothing, also when its slot has another entry. It belongs to the table that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Handle {
    pub(super) index: u32,
    /// Odd: the generations of slots with an entry.
    pub(super) generation: NonZeroU32,
}

impl Handle {
    /// The slot that the entry stays in, below [`FlowTable::slots`](super::FlowTable::slots): for values that are kept
    /// beside a table, as only few entries have them.
    #[inline]
    #[must_use]
    pub fn slot(self) -> usize {
        self.index as usize
    }
}

/// When an entry is to go, as a table keeps it: [`FlowTable::deadline`](super::FlowTable::deadline).
/// Made once for all packets of a burst, it makes each touch cheaper.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deadline(pub(super) Coarse);

/// An entry of a [`FlowTable`](super::FlowTable), to be changed.
pub struct Entry<'a, K, V> {
    /// Its key.
    pub key: &'a K,
    /// Its value.
    pub value: &'a mut V,
    pub(super) deadline: &'a mut Coarse,
    pub(super) info: &'a mut [SlotInfo],
    pub(super) index: usize,
}

impl<K, V> Entry<'_, K, V> {
    /// Gives it a new deadline, later or sooner.
    #[inline]
    pub fn touch(&mut self, Deadline(deadline): Deadline) {
        let sooner = deadline.is_before(*self.deadline);
        *self.deadline = deadline;
        if sooner {
            layout::note_deadline(self.info, self.index, deadline);
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Entry<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.key).field("value", &self.value).finish_non_exhaustive()
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insertion<V> {
    /// There is a new entry.
    New(Handle),
    /// The key was there already: another packet of the flow came first. Its entry is as it
    /// was, and the value comes back, so that what it holds can be given back.
    Existing(Handle, V),
}

impl<V> Insertion<V> {
    /// The entry of the key.
    #[must_use]
    pub fn handle(&self) -> Handle {
        match self {
            Self::New(handle) | Self::Existing(handle, _) => *handle,
        }
    }
}

/// There is no room for an entry: all that could make place are of a higher class. The value
/// comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full<V>(pub V);

/// An entry that is gone, with all that it held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed<K, V> {
    /// Its key.
    pub key: K,
    /// Its value: ports and references in it are to be given back.
    pub value: V,
    /// Its class at the end.
    pub class: Class,
    /// Why it is gone.
    pub reason: Removal,
}

/// Why an entry is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Removal {
    /// Its deadline has passed.
    Expired,
    /// It made place for another, of its class or a higher one.
    Evicted,
    /// By [`FlowTable::remove`](super::FlowTable::remove) or [`FlowTable::clear`](super::FlowTable::clear).
    Removed,
}
