//! Finding entries, a burst at a time: the misses of all keys are waited for together.

use super::layout::{self, Bits, GROUPS_PER_ROW, Place};
use super::{FlowKey, FlowTable, Handle};
use dpdk_rs::{TagGroup, prefetch};

impl<K: FlowKey, V: Default> FlowTable<K, V> {
    /// Most keys that are looked up in one pass.
    const BATCH: usize = 64;

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

    /// Asks for what says where the entry of a key is or could be, ahead of an insertion or a removal.
    /// For several keys at once, so that the misses are waited for together; then, for each,
    /// [`prefetch_entry`](Self::prefetch_entry).
    pub fn prefetch(&self, key: &K) {
        let home = self.places.of(key.as_bytes()).home as usize;
        if let (Some(tags), Some(away), Some(info)) = (self.tags.get(home), self.away.get(home), self.info.get(home)) {
            prefetch(tags);
            prefetch(away);
            prefetch(info);
            prefetch(&info.classes);
        }
    }

    /// Asks for the entry of a key, or for the place that it would get, as far as that is at home.
    pub fn prefetch_entry(&self, key: &K) {
        let place = self.places.of(key.as_bytes());
        let home = place.home as usize;
        let Some(tags) = self.tags.get(home) else { return };
        match tags.matches(place.tag()) {
            0 => _ = self.prefetch_matches(home, tags.empty() & tags.empty().wrapping_neg()),
            matches => _ = self.prefetch_matches(home, matches),
        }
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
    pub(super) fn find(&self, key: &K, place: Place) -> Option<Handle> {
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
}

#[allow(clippy::cast_possible_truncation, reason = "16")]
const SLOTS_U32: u32 = TagGroup::SLOTS as u32;

#[inline(always)]
fn same<K: FlowKey>(one: &K, other: &K) -> bool {
    one.as_bytes() == other.as_bytes()
}
