//! Sixteen tags that are compared at once.

use core::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8};
use core::ptr;

/// Sixteen one-byte tags, each of which tells a little about the slot of a table that it
/// stands for. A tag of zero says that the slot is empty.
///
/// ```
/// use dpdk_rs::TagGroup;
/// let mut tags = TagGroup::default();
/// tags.set(3, 7);
/// tags.set(9, 7);
/// assert_eq!(tags.matches(7), 1 << 3 | 1 << 9);
/// assert_eq!(tags.empty(), !(1 << 3 | 1 << 9));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(16))]
pub struct TagGroup([u8; Self::SLOTS]);

impl TagGroup {
    /// Tags in a group.
    pub const SLOTS: usize = 16;

    /// Bit i is set where slot i has this tag.
    #[inline(always)]
    #[must_use]
    pub fn matches(&self, tag: u8) -> u16 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { compare(self, tag) }
    }

    /// Bit i is set where slot i is empty.
    #[inline(always)]
    #[must_use]
    pub fn empty(&self) -> u16 {
        self.matches(0)
    }

    /// Gives a slot its tag, zero to make it empty; without effect from slot 16 on.
    #[inline]
    pub fn set(&mut self, slot: usize, tag: u8) {
        if let Some(place) = self.0.get_mut(slot) {
            *place = tag;
        }
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn compare(group: &TagGroup, tag: u8) -> u16 {
    // SAFETY: 16 initialised bytes at an address that `repr(align)` makes a multiple of 16.
    let tags = unsafe { _mm_load_si128(ptr::from_ref(group).cast::<__m128i>()) };
    let same = _mm_cmpeq_epi8(tags, _mm_set1_epi8(tag.cast_signed()));
    #[allow(clippy::cast_possible_truncation, reason = "movemask of 16 bytes has 16 bits")]
    let mask = _mm_movemask_epi8(same).cast_unsigned() as u16;
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_found_in_every_slot_and_nowhere_else() {
        for tag in 0..=u8::MAX {
            let other = tag.wrapping_add(1);
            for slot in 0..TagGroup::SLOTS {
                let mut tags = TagGroup([other; TagGroup::SLOTS]);
                tags.set(slot, tag);
                assert_eq!(tags.matches(tag), 1 << slot, "tag {tag} in slot {slot}");
                assert_eq!(tags.matches(other), !(1 << slot), "tag {other} beside slot {slot}");
            }
        }
    }

    #[test]
    fn a_new_group_is_empty_and_a_slot_past_its_end_is_none() {
        let mut tags = TagGroup::default();
        assert_eq!(tags.empty(), u16::MAX);
        tags.set(TagGroup::SLOTS, 1);
        assert_eq!(tags.empty(), u16::MAX);
    }
}
