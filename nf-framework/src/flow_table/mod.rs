//! The state of flows: a hash table of fixed size that is looked up a burst at a time.
//!
//! It knows keys, values, classes and deadlines, and nothing of packets or protocols.
//!
//! # How it is laid out
//!
//! Slots come in groups of 16 and groups in rows of four. Every slot has a tag of one byte;
//! the 64 tags of a row are one cache line, and one instruction compares 16. Key, value,
//! deadline and generation lie together, so a flow that is found costs its row's line of
//! tags and its own. A key's home group is drawn from its hash. When that is full its entry
//! goes to another group of the row, then to a group of one other row, so an entry is within
//! 8 groups of 128 slots or nowhere. Each group counts how many of its entries had to go
//! elsewhere, near and far, so a key that is not there is nearly always found missing after
//! one group; there are no tombstones. Entries never move.
//!
//! Beside each slot, in rows of their own, stand its class and a time before which it does
//! not expire. Touching an entry changes only its own line; that time is corrected when it
//! has come. So the sweep and the search for a victim read 16 entries from a line, not one.

mod clock;
mod layout;
#[cfg(test)]
mod tests;

use crate::Instant;
use clock::{Coarse, Ticker};
use dpdk_rs::{HashKey, HugeSlice, Memory, OutOfMemory, TagGroup, prefetch};
use layout::{GROUPS_PER_ROW, Place, Places, Slot, SlotInfo};
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// What a flow is known by: plain bytes without padding, all of which count. 16, 32 or 40
/// bytes are hashed fastest.
pub trait FlowKey: Copy + IntoBytes + Immutable + FromZeros {}

impl<K: Copy + IntoBytes + Immutable + FromZeros> FlowKey for K {}

/// How much an entry is worth when the table is full: a higher class is never evicted for a
/// lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Class(u8);

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
    index: u32,
    /// Odd: the generations of slots with an entry.
    generation: NonZeroU32,
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
    /// By [`FlowTable::remove`] or [`FlowTable::clear`].
    Removed,
}

/// Why there is no table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowTableError {
    /// More entries than a handle can number, or none.
    #[error("a flow table has 1 to {most} entries, not {entries}")]
    Capacity {
        /// Entries asked for.
        entries: usize,
        /// Most that there can be.
        most: usize,
    },
    /// It does not fit.
    #[error("the flow table for {entries} entries of {entry_bytes} bytes has {source}")]
    Memory {
        /// Entries asked for.
        entries: usize,
        /// Bytes of one of them, all told.
        entry_bytes: usize,
        /// What did not fit.
        source: OutOfMemory,
    },
}

/// What a table has counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowTableCounters {
    /// New entries.
    pub inserted: u64,
    /// Insertions of keys that were there.
    pub existing: u64,
    /// Insertions that found no room.
    pub refused: u64,
    /// Entries that were evicted, by their class.
    pub evicted: [u64; Class::COUNT],
    /// Entries that expired.
    pub expired: u64,
    /// Entries that were removed by their owner.
    pub removed: u64,
    /// New entries by the number of groups between their home and their place: 0 is home, 1
    /// to 3 the same row, 4 to 7 the other row.
    pub distance: [u64; layout::PROBES],
}

/// The state of flows, by key. One worker owns it; it allocates nothing after it was made.
///
/// ```
/// use nf_framework::HashKey;
/// use nf_framework::testing::lab;
/// use nf_framework::{Class, FlowTable, Insertion, Instant};
/// use std::time::Duration;
///
/// lab(|lab| {
///     // On a worker: setup.memory(), and HashKey::random().
///     let mut flows: FlowTable<[u8; 16], u64> =
///         FlowTable::with_capacity(&lab.eal.memory(), 1000, HashKey::from_seed(1)).unwrap();
///     let now = Instant::START;
///     let (key, soon) = ([7; 16], now + Duration::from_secs(5));
///     let flow = flows.insert(key, 1, Class::EMBRYONIC, now, soon, |gone| println!("{gone:?}")).unwrap().handle();
///
///     let mut found = [None; 2];
///     flows.lookup_batch(&[key, [8; 16]], &mut found);
///     assert_eq!(found, [Some(flow), None]);
///
///     *flows.entry_mut(flow).unwrap().1 += 1;
///     flows.touch(flow, now + Duration::from_secs(60));
///     flows.reclassify(flow, Class::ESTABLISHED);
///
///     assert_eq!(flows.expire(now + Duration::from_secs(61), 2000, |gone| assert_eq!(gone.value, 2)), 1);
///     assert_eq!(flows.entry(flow), None);
/// });
/// ```
///
/// | operation | cost |
/// |---|---|
/// | look-up, one | 8 groups at most, 1.2 on average when full; two cache misses |
/// | look-up, batch | the same, and the misses of up to 64 keys at once |
/// | [`entry`](Self::entry), [`touch`](Self::touch) | constant, on the line that a look-up brought |
/// | insertion | a look-up, and two lines; when full also up to 128 classes and times, and 8 entries |
/// | removal | constant |
/// | [`expire`](Self::expire) | one line per 16 slots, and the entries whose time has come |
///
/// **When it is full**, that is when none of a key's 128 slots is free, an insertion takes, in
/// this order: the slot of an entry that has expired; of the entry of the lowest class, not
/// above the newcomer's, that would expire first (the least recently used, if a class has one
/// timeout), out of the 64 slots of the home row; the same out of the other row. Else it is
/// refused ([`Full`]). To keep an insertion short, at most 8 entries are asked how recently they
/// were used. Without pressure an insertion lets go of two expired entries that it meets.
///
/// **Time** is kept in units of 2^20 ns, about a millisecond: an entry expires up to that much
/// after its deadline, never before. A deadline is at most 13 days after the last insertion or
/// sweep; a later one is taken as that, but for [`Instant::NEVER`]: such an entry does not expire. A
/// time that goes back is taken as the last one.
/// Until it is swept or reused, an entry past its deadline is found like any other, and a touch
/// saves it.
pub struct FlowTable<K, V> {
    /// By group.
    tags: HugeSlice<TagGroup>,
    /// By group: how many entries at home there are elsewhere.
    away: HugeSlice<layout::Away>,
    /// By group.
    info: HugeSlice<SlotInfo>,
    /// By slot, 16 for each group.
    slots: HugeSlice<Slot<K, V>>,
    places: Places,
    ticker: Ticker,
    len: usize,
    /// The group that the sweep goes on with.
    cursor: usize,
    counters: FlowTableCounters,
}

impl<K: FlowKey, V: Default> FlowTable<K, V> {
    /// Bytes for each slot, all told. Make key and value together 24 or 56 bytes or less, and
    /// multiples of what fills a line: an entry that crosses cache lines costs another miss.
    pub const SLOT_BYTES: usize = size_of::<Slot<K, V>>()
        + (size_of::<TagGroup>() + size_of::<layout::Away>() + size_of::<SlotInfo>()).div_ceil(TagGroup::SLOTS);

    /// Most entries that can be asked for.
    pub const MOST: usize = 1 << 31;

    /// Most keys that are looked up in one pass.
    const BATCH: usize = 64;

    /// Entries whose time is read from their own line during one insertion.
    const LOOKS: u32 = 8;

    /// Bytes of the EAL's memory that a table for so many entries takes; for
    /// [`Function::memory`](crate::Function::memory).
    #[must_use]
    pub const fn bytes(entries: usize) -> usize {
        let groups = Self::groups(entries);
        let group = TagGroup::SLOTS * size_of::<Slot<K, V>>()
            + size_of::<TagGroup>()
            + size_of::<layout::Away>()
            + size_of::<SlotInfo>();
        groups * group
    }

    /// An eighth more slots than entries, in full rows.
    const fn groups(entries: usize) -> usize {
        (entries + entries / 8).div_ceil(TagGroup::SLOTS * GROUPS_PER_ROW) * GROUPS_PER_ROW
    }

    /// A table that holds so many entries with hardly any refused: there is an eighth more
    /// slots than entries, and at least 64. `hash_key` is random but in tests.
    ///
    /// # Errors
    ///
    /// [`FlowTableError`] when the number is out of range, or does not fit into the memory.
    pub fn with_capacity(memory: &Memory, entries: usize, hash_key: HashKey) -> Result<Self, FlowTableError> {
        if !(1..=Self::MOST).contains(&entries) {
            return Err(FlowTableError::Capacity { entries, most: Self::MOST });
        }
        let groups = Self::groups(entries);
        let no_room = |source| FlowTableError::Memory { entries, entry_bytes: Self::SLOT_BYTES, source };
        Ok(Self {
            // The largest first: what does not fit fails before anything was filled.
            slots: memory.slice(groups * TagGroup::SLOTS, |_| Slot::empty()).map_err(no_room)?,
            info: memory.slice(groups, |_| SlotInfo::default()).map_err(no_room)?,
            tags: memory.slice(groups, |_| TagGroup::default()).map_err(no_room)?,
            away: memory.slice(groups, |_| layout::Away::default()).map_err(no_room)?,
            places: Places::new(groups, hash_key),
            ticker: Ticker::default(),
            len: 0,
            cursor: 0,
            counters: FlowTableCounters::default(),
        })
    }

    /// Entries in it, expired ones that were not met yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Slots in it: an eighth more than the entries that were asked for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> &FlowTableCounters {
        &self.counters
    }

    /// The entry of a key. For several keys use [`lookup_batch`](Self::lookup_batch).
    #[inline]
    #[must_use]
    pub fn lookup(&self, key: &K) -> Option<Handle> {
        self.find(key, self.places.of(key.as_bytes()))
    }

    /// The entries of many keys, written into `found` beside them, as far as both go. Each 64
    /// go through three passes: hash and ask for the tags; compare the tags and ask for the
    /// entries; compare the keys. So the memory is waited for twice, not twice for each key.
    #[inline]
    pub fn lookup_batch(&self, keys: &[K], found: &mut [Option<Handle>]) {
        for (keys, found) in keys.chunks(Self::BATCH).zip(found.chunks_mut(Self::BATCH)) {
            self.lookup_chunk(keys, found);
        }
    }

    /// An entry's key and value; nothing if it is gone.
    #[inline]
    #[must_use]
    pub fn entry(&self, handle: Handle) -> Option<(&K, &V)> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.generation == handle.generation.get()).then_some((&slot.key, &slot.value))
    }

    /// An entry's key, and its value to be changed; nothing if it is gone.
    #[inline]
    pub fn entry_mut(&mut self, handle: Handle) -> Option<(&K, &mut V)> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        (slot.generation == handle.generation.get()).then_some((&slot.key, &mut slot.value))
    }

    /// Gives an entry a new deadline, later or sooner. False if it is gone.
    #[inline]
    pub fn touch(&mut self, handle: Handle, deadline: Instant) -> bool {
        let deadline = self.ticker.deadline(deadline);
        let Some(slot) = self.slots.get_mut(handle.index as usize) else { return false };
        if slot.generation != handle.generation.get() {
            return false;
        }
        let sooner = deadline.is_before(slot.deadline);
        slot.deadline = deadline;
        if sooner {
            self.correct(handle.index as usize, deadline);
        }
        true
    }

    /// An entry's class; nothing if it is gone.
    #[must_use]
    pub fn class(&self, handle: Handle) -> Option<Class> {
        self.entry(handle)?;
        let (group, slot) = split(handle.index as usize);
        self.info.get(group)?.classes.get(slot).copied()
    }

    /// Gives an entry another class, as when both sides have answered. False if it is gone.
    pub fn reclassify(&mut self, handle: Handle, class: Class) -> bool {
        let (group, slot) = split(handle.index as usize);
        let there = self.entry(handle).is_some();
        match self.info.get_mut(group).and_then(|info| info.classes.get_mut(slot)) {
            Some(place) if there => *place = class,
            _ => return false,
        }
        true
    }

    /// Adds an entry, unless there is one with this key: then that is the answer, so two
    /// packets of a new flow in one burst make one entry. When there is no room an entry that
    /// has expired or is worth less goes; `removed` is told of those that do, which are two
    /// at most.
    ///
    /// # Errors
    ///
    /// [`Full`] when all that could go are of a higher class.
    pub fn insert(
        &mut self,
        key: K,
        value: V,
        class: Class,
        now: Instant,
        deadline: Instant,
        mut removed: impl FnMut(Removed<K, V>),
    ) -> Result<Insertion<V>, Full<V>> {
        let now = self.ticker.advance(now);
        let deadline = self.ticker.deadline(deadline);
        let place = self.places.of(key.as_bytes());
        if let Some(handle) = self.find(&key, place) {
            self.counters.existing += 1;
            return Ok(Insertion::Existing(handle, value));
        }
        let free = self.make_room(place, class, now, &mut removed);
        let Some(handle) = free.and_then(|(distance, index)| {
            let handle = self.occupy(index, place, key, class, deadline)?;
            bump(&mut self.counters.distance, distance);
            Some(handle)
        }) else {
            self.counters.refused += 1;
            return Err(Full(value));
        };
        if let Some((_, to)) = self.entry_mut(handle) {
            *to = value;
        }
        self.counters.inserted += 1;
        Ok(Insertion::New(handle))
    }

    /// Takes an entry out; nothing if it is gone.
    #[must_use = "what the entry held is to be given back"]
    pub fn remove(&mut self, handle: Handle) -> Option<Removed<K, V>> {
        self.entry(handle)?;
        self.vacate(handle.index as usize, Removal::Removed)
    }

    /// Looks at the next `budget` slots, in full groups of 16 and round the table once at most,
    /// and lets go of the entries whose deadline has passed. Returns how many went; `removed` is
    /// told of each. Call it at every tick.
    pub fn expire(&mut self, now: Instant, budget: u32, mut removed: impl FnMut(Removed<K, V>)) -> usize {
        let now = self.ticker.advance(now);
        let before = self.len;
        let groups = (budget as usize).div_ceil(TagGroup::SLOTS).min(self.tags.len());
        for _ in 0..groups {
            let group = self.cursor;
            self.cursor = if group + 1 < self.tags.len() { group + 1 } else { 0 };
            if let Some(next) = self.info.get(self.cursor) {
                prefetch(next);
            }
            for slot in self.due(group, now) {
                self.expire_if_due(group * TagGroup::SLOTS + slot, now, &mut removed);
            }
        }
        before - self.len
    }

    /// Takes every entry out; `removed` is told of each. Not for the packet path: it walks over
    /// the whole table.
    pub fn clear(&mut self, mut removed: impl FnMut(Removed<K, V>)) {
        for group in 0..self.tags.len() {
            for slot in self.occupied(group) {
                if let Some(entry) = self.vacate(group * TagGroup::SLOTS + slot, Removal::Removed) {
                    removed(entry);
                }
            }
        }
    }

    /// The entries of some slots, in no order: a list for people is made a piece at a time. Places
    /// behind the last slot have none.
    pub fn entries_in(&self, slots: Range<usize>) -> impl Iterator<Item = (Handle, &K, &V)> {
        let first = slots.start;
        let slots = self.slots.get(first..slots.end.min(self.slots.len())).unwrap_or_default();
        slots.iter().zip(first..).filter_map(|(slot, index)| Some((slot.handle(index)?, &slot.key, &slot.value)))
    }

    #[inline(always)]
    fn lookup_chunk(&self, keys: &[K], found: &mut [Option<Handle>]) {
        let mut places = [Place::default(); 64];
        for (place, key) in places.iter_mut().zip(keys) {
            *place = self.places.of(key.as_bytes());
            if let Some(tags) = self.tags.get(place.home as usize) {
                prefetch(tags);
            }
        }
        let mut candidates = [u32::MAX; 64];
        // Bit i: key i is not at home.
        let mut away = 0_u64;
        for (number, ((candidate, place), _)) in candidates.iter_mut().zip(&places).zip(keys).enumerate() {
            let matches = self.tags.get(place.home as usize).map_or(0, |tags| tags.matches(place.tag()));
            if matches == 0 {
                away |= 1 << number;
                if let Some(counts) = self.away.get(place.home as usize) {
                    prefetch(counts);
                }
            } else {
                *candidate = self.prefetch_matches(place.home as usize, matches);
            }
        }
        while away != 0 {
            let number = away.trailing_zeros() as usize;
            away &= away - 1;
            if let (Some(candidate), Some(place)) = (candidates.get_mut(number), places.get(number)) {
                *candidate = self.prefetch_elsewhere(*place);
            }
        }
        for (((found, key), place), &candidate) in found.iter_mut().zip(keys).zip(&places).zip(&candidates) {
            *found = match self.slots.get(candidate as usize) {
                Some(slot) if same(&slot.key, key) => slot.handle(candidate as usize),
                // Another key's, by one of 255 tags.
                Some(_) => self.find(key, *place),
                None => None,
            };
        }
    }

    /// Asks for the slots of a group that match, and says which is the first.
    #[inline(always)]
    fn prefetch_matches(&self, group: usize, matches: u16) -> u32 {
        for slot in Bits(matches) {
            if let Some(slot) = self.slots.get(group * TagGroup::SLOTS + slot) {
                slot.prefetch();
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "a table has fewer than 2^32 slots")]
        let group = group as u32;
        group * SLOTS_U32 + matches.trailing_zeros()
    }

    /// The same for a key that is not at home: the first match, `u32::MAX` if there is none.
    #[inline(never)]
    fn prefetch_elsewhere(&self, place: Place) -> u32 {
        for distance in self.elsewhere(place) {
            let group = self.places.group(place, distance);
            let matches = self.tags.get(group).map_or(0, |tags| tags.matches(place.tag()));
            if matches != 0 {
                return self.prefetch_matches(group, matches);
            }
        }
        u32::MAX
    }

    /// The distances at which there are entries that belong to this home.
    #[inline]
    fn elsewhere(&self, place: Place) -> impl Iterator<Item = usize> + use<K, V> {
        let away = self.away.get(place.home as usize).copied().unwrap_or_default();
        let near = if away.near > 0 { 1..GROUPS_PER_ROW } else { 0..0 };
        let far = if away.far > 0 { GROUPS_PER_ROW..layout::PROBES } else { 0..0 };
        near.chain(far)
    }

    /// The key's entry, wherever it can be.
    #[inline]
    fn find(&self, key: &K, place: Place) -> Option<Handle> {
        let home = self.find_in(place.home as usize, place.tag(), key);
        home.or_else(|| self.find_elsewhere(key, place))
    }

    #[inline(never)]
    fn find_elsewhere(&self, key: &K, place: Place) -> Option<Handle> {
        self.elsewhere(place).find_map(|distance| self.find_in(self.places.group(place, distance), place.tag(), key))
    }

    #[inline(always)]
    fn find_in(&self, group: usize, tag: u8, key: &K) -> Option<Handle> {
        for slot in Bits(self.tags.get(group)?.matches(tag)) {
            let index = group * TagGroup::SLOTS + slot;
            let slot = self.slots.get(index)?;
            if same(&slot.key, key) {
                return slot.handle(index);
            }
        }
        None
    }

    /// A free slot for the key, and how many groups from home it is.
    fn make_room(
        &mut self,
        place: Place,
        class: Class,
        now: Coarse,
        removed: &mut impl FnMut(Removed<K, V>),
    ) -> Option<(usize, usize)> {
        let mut looks = Self::LOOKS;
        for distance in 0..self.places.probes() {
            let group = self.places.group(place, distance);
            let mut free = None;
            for slot in self.due(group, now) {
                if looks == 0 {
                    break;
                }
                looks -= 1;
                let index = group * TagGroup::SLOTS + slot;
                if self.expire_if_due(index, now, removed) {
                    // And a second one, so that in the long run more go than come.
                    match free {
                        None => free = Some((distance, index)),
                        Some(_) => break,
                    }
                }
            }
            if free.is_some() {
                return free;
            }
            let empty = self.tags.get(group)?.empty();
            if empty != 0 {
                return Some((distance, group * TagGroup::SLOTS + empty.trailing_zeros() as usize));
            }
        }
        // One that has expired may be hidden behind a time that was not corrected yet; else
        // the least of those that may be evicted goes.
        let rows = [0..GROUPS_PER_ROW, GROUPS_PER_ROW..self.places.probes()];
        let (distance, index) = rows.into_iter().find_map(|row| self.victim(place, row, class))?;
        let passed = self.slots.get(index).is_some_and(|slot| slot.deadline.has_passed(now));
        let reason = if passed { Removal::Expired } else { Removal::Evicted };
        removed(self.vacate(index, reason)?);
        Some((distance, index))
    }

    /// Of these groups, all of them full, the entry of the lowest class that would expire first.
    fn victim(&mut self, place: Place, distances: std::ops::Range<usize>, class: Class) -> Option<(usize, usize)> {
        let mut looks = Self::LOOKS;
        // The best of those whose own deadline was read.
        let mut best: Option<(Class, Coarse, usize, usize)> = None;
        loop {
            let mut least: Option<(Class, Coarse, usize, usize)> = None;
            for distance in distances.clone() {
                let group = self.places.group(place, distance);
                let info = self.info.get(group)?;
                for (slot, (other, not_before)) in info.classes.iter().zip(&info.not_before).enumerate() {
                    let lower = least.is_none_or(|(least, first, ..)| {
                        *other < least || (*other == least && not_before.is_before(first))
                    });
                    if *other <= class && lower {
                        least = Some((*other, *not_before, distance, group * TagGroup::SLOTS + slot));
                    }
                }
            }
            let (other, not_before, distance, index) = least?;
            let deadline = self.slots.get(index)?.deadline;
            if deadline == not_before {
                return Some((distance, index));
            }
            self.correct(index, deadline);
            if best.is_none_or(|(_, first, ..)| deadline.is_before(first)) {
                best = Some((other, deadline, distance, index));
            }
            looks -= 1;
            if looks == 0 {
                return best.map(|(_, _, distance, index)| (distance, index));
            }
        }
    }

    /// The occupied slots of a group whose time may have come.
    #[inline]
    fn due(&self, group: usize, now: Coarse) -> Bits {
        let Some(info) = self.info.get(group) else { return Bits(0) };
        let mut due = 0;
        for (slot, not_before) in info.not_before.iter().enumerate() {
            due |= u16::from(not_before.has_passed(now)) << slot;
        }
        Bits(due & self.occupied(group).0)
    }

    fn occupied(&self, group: usize) -> Bits {
        Bits(self.tags.get(group).map_or(0, |tags| !tags.empty()))
    }

    /// Lets an entry go whose deadline has passed, or corrects the time that said so.
    fn expire_if_due(&mut self, index: usize, now: Coarse, removed: &mut impl FnMut(Removed<K, V>)) -> bool {
        let Some(deadline) = self.slots.get(index).map(|slot| slot.deadline) else { return false };
        if !deadline.has_passed(now) {
            self.correct(index, deadline);
            return false;
        }
        match self.vacate(index, Removal::Expired) {
            Some(entry) => removed(entry),
            None => return false,
        }
        true
    }

    /// Notes beside the slot when its entry expires.
    fn correct(&mut self, index: usize, deadline: Coarse) {
        let (group, slot) = split(index);
        if let Some(place) = self.info.get_mut(group).and_then(|info| info.not_before.get_mut(slot)) {
            *place = deadline;
        }
    }

    /// Makes a free slot the key's, with no value yet.
    fn occupy(&mut self, index: usize, place: Place, key: K, class: Class, deadline: Coarse) -> Option<Handle> {
        let (group, in_group) = split(index);
        let (tags, info) = (self.tags.get_mut(group)?, self.info.get_mut(group)?);
        let (away, slot) = (self.away.get_mut(place.home as usize)?, self.slots.get_mut(index)?);
        tags.set(in_group, place.tag());
        away.count(place.home as usize, group, 1);
        *info.classes.get_mut(in_group)? = class;
        *info.not_before.get_mut(in_group)? = deadline;
        slot.generation = slot.generation.wrapping_add(1);
        slot.deadline = deadline;
        slot.key = key;
        self.len += 1;
        slot.handle(index)
    }

    /// Takes the entry out of a slot, which handles do not lead to any more.
    fn vacate(&mut self, index: usize, reason: Removal) -> Option<Removed<K, V>> {
        let (group, in_group) = split(index);
        let (tags, info) = (self.tags.get_mut(group)?, self.info.get(group)?);
        let class = *info.classes.get(in_group)?;
        let slot = self.slots.get_mut(index)?;
        let place = self.places.of(slot.key.as_bytes());
        self.away.get_mut(place.home as usize)?.count(place.home as usize, group, -1);
        tags.set(in_group, 0);
        slot.generation = slot.generation.wrapping_add(1);
        self.len -= 1;
        match reason {
            Removal::Expired => self.counters.expired += 1,
            Removal::Evicted => bump(&mut self.counters.evicted, usize::from(class.0)),
            Removal::Removed => self.counters.removed += 1,
        }
        Some(Removed { key: slot.key, value: std::mem::take(&mut slot.value), class, reason })
    }
}

impl<K, V> fmt::Debug for FlowTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable")
            .field("len", &self.len)
            .field("slots", &self.slots.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "16")]
const SLOTS_U32: u32 = TagGroup::SLOTS as u32;

/// A slot's group, and its place there.
#[inline]
fn split(index: usize) -> (usize, usize) {
    (index / TagGroup::SLOTS, index % TagGroup::SLOTS)
}

#[inline(always)]
fn same<K: FlowKey>(one: &K, other: &K) -> bool {
    one.as_bytes() == other.as_bytes()
}

fn bump(counters: &mut [u64], which: usize) {
    if let Some(counter) = counters.get_mut(which) {
        *counter += 1;
    }
}

/// The places of the bits that are set, lowest first.
#[derive(Clone, Copy)]
struct Bits(u16);

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
