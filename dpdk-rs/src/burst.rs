//! Up to 64 packets, received, handled and sent together.

use crate::mbuf::Mbuf;
use dpdk_sys as sys;
use std::fmt;

/// A row of slots for packets, held in place: it never allocates. Packets are pushed to the
/// end; [`Burst::take`] leaves an empty slot, so that the others keep their index.
///
/// Dropping or clearing it frees the packets, in bulk where they share a pool.
pub struct Burst {
    /// Slots at and past `len` are empty.
    slots: [Option<Mbuf>; Self::CAPACITY],
    len: usize,
    limit: usize,
}

// Handed to C as an array of pointers.
const _: () = assert!(size_of::<Option<Mbuf>>() == size_of::<*mut sys::rte_mbuf>());

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    /// Slots in every burst. Past 64, DPDK's per-lcore pool caches no longer hold the
    /// packets under way and the cost per packet doubles (measured on net_null).
    pub const CAPACITY: usize = 64;
    /// How many packets are received at once unless told otherwise.
    pub const USUAL: usize = 32;

    /// An empty burst that receives up to 32 packets.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_limit(Self::USUAL)
    }

    /// An empty burst that receives up to `limit` packets, between 1 and 64.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        let limit = if limit == 0 {
            1
        } else if limit > Self::CAPACITY {
            Self::CAPACITY
        } else {
            limit
        };
        Self { slots: [const { None }; Self::CAPACITY], len: 0, limit }
    }

    /// Number of slots in use, empty ones among them counted.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot is in use.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether [`Burst::push`] would give the packet back.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    /// Adds a packet at the end.
    ///
    /// # Errors
    ///
    /// Gives the packet back when all 64 slots are in use.
    #[inline]
    pub fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                // The slot is empty: nothing to drop, and the compiler need not look.
                std::mem::forget(slot.replace(packet));
                self.len += 1;
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// The packet in slot `index`.
    #[must_use]
    #[inline]
    pub fn packet(&self, index: usize) -> Option<&Mbuf> {
        self.slots.get(index)?.as_ref()
    }

    /// The packet in slot `index`, to be changed.
    #[must_use]
    #[inline]
    pub fn packet_mut(&mut self, index: usize) -> Option<&mut Mbuf> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Takes the packet out of slot `index` and leaves the slot empty.
    #[inline]
    pub fn take(&mut self, index: usize) -> Option<Mbuf> {
        self.slots.get_mut(index)?.take()
    }

    /// The packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Mbuf> {
        self.slots.iter().take(self.len).flatten()
    }

    /// The packets, to be changed, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Mbuf> {
        self.slots.iter_mut().take(self.len).flatten()
    }

    /// Takes all packets out, in order. Those that the iterator was not asked for are freed
    /// with it.
    pub fn drain(&mut self) -> impl Iterator<Item = Mbuf> {
        Drain { burst: self, next: 0 }
    }

    /// Declares all slots free, after every packet was taken; frees what was not.
    #[inline]
    pub fn reset(&mut self) {
        if self.slots.iter().take(self.len).any(Option::is_some) {
            self.clear();
        }
        self.len = 0;
    }

    /// Frees all packets and returns how many they were.
    pub fn clear(&mut self) -> usize {
        self.compact();
        let packets = self.len;
        let mut done = 0;
        while let Some(first) = self.packet(done) {
            let pool = first.pool();
            let run = self
                .slots
                .iter()
                .skip(done)
                .take_while(|slot| slot.as_ref().is_some_and(|p| p.pool() == pool && p.is_plain()));
            let run = run.count();
            if run == 0 {
                drop(self.take(done));
                done += 1;
                continue;
            }
            // SAFETY: done + run is at most the number of slots.
            let first = unsafe { self.pointers().add(done) };
            // SAFETY: slots done..done + run hold packets that we own, which are of this pool
            // and direct (checked above) and of one segment with one reference (`Mbuf`).
            unsafe { sys::shim_mbuf_raw_free_bulk(pool, first, u32_of(run)) };
            self.forget(done, run);
            done += run;
        }
        self.len = 0;
        packets
    }

    /// Moves the packets together, so that no slot below `len` is empty.
    #[inline]
    pub(crate) fn compact(&mut self) {
        if !self.slots.iter().take(self.len).all(Option::is_some) {
            self.compact_from(0);
        }
    }

    /// Moves the packets from `start` on together; those before it keep their slots.
    pub(crate) fn compact_from(&mut self, start: usize) {
        let mut to = start;
        for from in start..self.len {
            if self.slots[from].is_some() {
                self.slots.swap(to, from);
                to += 1;
            }
        }
        self.len = to;
    }

    /// The slots as C sees them: an array of 64 pointers, null where empty.
    pub(crate) fn pointers(&mut self) -> *mut *mut sys::rte_mbuf {
        // Option<Mbuf> has the layout of a nullable pointer: Mbuf is a transparent NonNull.
        self.slots.as_mut_ptr().cast()
    }

    /// How many more packets may be received.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.len)
    }

    /// Counts slots that C has filled behind the last one.
    ///
    /// # Safety
    ///
    /// The `count` slots from `len` on hold pointers for which [`Mbuf::from_raw`] is sound,
    /// and `len + count` is at most [`Burst::CAPACITY`].
    #[inline]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        self.len += count;
    }

    /// Empties slots whose packets C now owns, without freeing.
    #[inline]
    pub(crate) fn forget(&mut self, start: usize, count: usize) {
        for slot in self.slots.iter_mut().skip(start).take(count) {
            std::mem::forget(slot.take());
        }
    }

    /// Drops the first `count` slots, which are empty, and moves the others up.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        if count < self.len {
            for index in count..self.len {
                self.slots.swap(index - count, index);
            }
        }
        self.len -= count.min(self.len);
    }
}

/// See [`Burst::drain`]. The burst's length stays until the end, so that packets are not
/// lost if this is forgotten.
struct Drain<'a> {
    burst: &'a mut Burst,
    next: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    fn next(&mut self) -> Option<Mbuf> {
        while self.next < self.burst.len {
            let packet = self.burst.take(self.next);
            self.next += 1;
            if packet.is_some() {
                return packet;
            }
        }
        None
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.burst.reset();
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a burst has 64 slots")]
#[inline]
pub(crate) const fn u32_of(count: usize) -> u32 {
    count as u32
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
