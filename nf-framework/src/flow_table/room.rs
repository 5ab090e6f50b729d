//! Making room: what has expired goes, and what is worth less than a newcomer.

use super::clock::Coarse;
use super::layout::{self, Bits, GROUPS_PER_ROW, Place, split};
use super::{Class, FlowKey, FlowTable, Instant, Removal, Removed};
use dpdk_rs::{TagGroup, prefetch};
use std::ops::Range;

impl<K: FlowKey, V: Default> FlowTable<K, V> {
    /// Entries whose time is read from their own line during one insertion.
    const LOOKS: u32 = 8;

    /// Looks at the next `budget` slots, in full groups of 16 and round the table once at most,
    /// and lets go of the entries whose deadline has passed. Returns how many went; `removed` is
    /// told of each. Call it at every tick.
    pub fn expire(&mut self, now: Instant, budget: u32, mut removed: impl FnMut(Removed<K, V>)) -> usize {
        let now = self.ticker.advance(now);
        let before = self.len;
        if before == 0 {
            self.show_len();
            return 0;
        }
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
        self.show_len();
        before - self.len
    }

    /// A free slot for the key, and how many groups from home it is.
    pub(super) fn make_room(
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
            if distance == 0 {
                self.prefetch_others(place);
            }
        }
        // One that has expired may be hidden behind a time that was not corrected yet; else
        // the least of those that may be evicted goes.
        let rows = [0..GROUPS_PER_ROW, GROUPS_PER_ROW..self.places.probes()];
        let (distance, index) = rows.into_iter().find_map(|row| self.victim(place, row, class, now))?;
        let passed = self.slots.get(index).is_some_and(|slot| slot.deadline.has_passed(now));
        let reason = if passed { Removal::Expired } else { Removal::Evicted };
        removed(self.vacate(index, reason)?);
        Some((distance, index))
    }

    /// Asks for what is known of the other groups of a key, all at once.
    fn prefetch_others(&self, place: Place) {
        for distance in 1..self.places.probes() {
            if let Some(info) = self.info.get(self.places.group(place, distance)) {
                prefetch(info);
                prefetch(&info.classes);
            }
        }
    }

    /// Of these groups, all of them full, the entry of the lowest class that would expire first.
    fn victim(&mut self, place: Place, distances: Range<usize>, class: Class, now: Coarse) -> Option<(usize, usize)> {
        let mut looks = Self::LOOKS;
        // The best of those whose own deadline was read.
        let mut best: Option<(Coarse, usize, usize)> = None;
        loop {
            let mut least: Option<(u32, usize, usize)> = None;
            for distance in distances.clone() {
                let group = self.places.group(place, distance);
                let Some((rank, slot)) = self.info.get(group)?.least(class, now) else { continue };
                if least.is_none_or(|(least, ..)| rank < least) {
                    least = Some((rank, distance, group * TagGroup::SLOTS + slot));
                }
            }
            let (_, distance, index) = least?;
            let (group, slot) = split(index);
            let not_before = *self.info.get(group)?.not_before.get(slot)?;
            let deadline = self.slots.get(index)?.deadline;
            if deadline == not_before {
                return Some((distance, index));
            }
            layout::note_deadline(&mut self.info, index, deadline);
            if best.is_none_or(|(first, ..)| deadline.is_before(first)) {
                best = Some((deadline, distance, index));
            }
            looks -= 1;
            if looks == 0 {
                return best.map(|(_, distance, index)| (distance, index));
            }
        }
    }

    /// The occupied slots of a group whose time may have come.
    #[inline]
    fn due(&self, group: usize, now: Coarse) -> Bits {
        match self.info.get(group).map_or(0, |info| info.due(now)) {
            0 => Bits(0),
            due => Bits(due & self.occupied(group).0),
        }
    }

    /// Lets an entry go whose deadline has passed, or corrects the time that said so.
    fn expire_if_due(&mut self, index: usize, now: Coarse, removed: &mut impl FnMut(Removed<K, V>)) -> bool {
        let Some(deadline) = self.slots.get(index).map(|slot| slot.deadline) else { return false };
        if !deadline.has_passed(now) {
            layout::note_deadline(&mut self.info, index, deadline);
            return false;
        }
        match self.vacate(index, Removal::Expired) {
            Some(entry) => removed(entry),
            None => return false,
        }
        true
    }
}
