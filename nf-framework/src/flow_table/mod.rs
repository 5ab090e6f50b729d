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
mod counters;
mod entry;
mod error;
mod layout;
mod lookup;
mod room;
#[cfg(test)]
mod tests;

pub use counters::FlowTableCounters;
pub use entry::{Class, Deadline, Entry, FlowKey, Full, Handle, Insertion, Removal, Removed};
pub use error::FlowTableError;

use crate::{Instant, Occupancy};
use clock::{Coarse, Ticker};
use counters::bump;
use dpdk_rs::{HashKey, HugeSlice, Memory, TagGroup};
use layout::{Bits, GROUPS_PER_ROW, Place, Places, Slot, SlotInfo, split};
use std::fmt;
use std::ops::Range;

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
///     *flows.entry_mut(flow).unwrap().value += 1;
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
    /// Entries that were asked for.
    capacity: usize,
    /// Who is shown how full it is.
    occupancy: Option<Occupancy>,
}

impl<K: FlowKey, V: Default> FlowTable<K, V> {
    /// Bytes for each slot, all told. Make key and value together 24 or 56 bytes or less, and
    /// multiples of what fills a line: an entry that crosses cache lines costs another miss.
    pub const SLOT_BYTES: usize = size_of::<Slot<K, V>>()
        + (size_of::<TagGroup>() + size_of::<layout::Away>() + size_of::<SlotInfo>()).div_ceil(TagGroup::SLOTS);

    /// Most entries that can be asked for.
    pub const MOST: usize = 1 << 31;

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
            capacity: entries,
            occupancy: None,
        })
    }

    /// Shows how full it is, from now on and as of the last [`expire`](Self::expire). The limit is the number of entries
    /// that was asked for.
    pub fn show(&mut self, occupancy: Occupancy) {
        self.occupancy = Some(occupancy);
        self.show_len();
    }

    fn show_len(&mut self) {
        if let Some(occupancy) = &mut self.occupancy {
            occupancy.set(self.len, self.capacity);
        }
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

    /// An entry's key and value; nothing if it is gone.
    #[inline]
    #[must_use]
    pub fn entry(&self, handle: Handle) -> Option<(&K, &V)> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.generation == handle.generation.get()).then_some((&slot.key, &slot.value))
    }

    /// An entry to be changed; nothing if it is gone.
    #[inline]
    pub fn entry_mut(&mut self, handle: Handle) -> Option<Entry<'_, K, V>> {
        let index = handle.index as usize;
        let Slot { generation, deadline, key, value } = self.slots.get_mut(index)?;
        (*generation == handle.generation.get()).then_some(Entry { key, value, deadline, info: &mut self.info, index })
    }

    /// A deadline to give to entries with [`Entry::touch`].
    #[inline]
    pub fn deadline(&self, deadline: Instant) -> Deadline {
        Deadline(self.ticker.deadline(deadline))
    }

    /// Gives an entry a new deadline, later or sooner. False if it is gone.
    #[inline]
    pub fn touch(&mut self, handle: Handle, deadline: Instant) -> bool {
        let deadline = self.deadline(deadline);
        self.entry_mut(handle).map(|mut entry| entry.touch(deadline)).is_some()
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
        if let Some(entry) = self.entry_mut(handle) {
            *entry.value = value;
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

    fn occupied(&self, group: usize) -> Bits {
        Bits(self.tags.get(group).map_or(0, |tags| !tags.empty()))
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
