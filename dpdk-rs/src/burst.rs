//! Up to 64 packets, received, handled and sent together.

use crate::mbuf::Mbuf;
use dpdk_sys as sys;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

/// A row of slots for packets, held in place: it never allocates. Packets are pushed to the
/// end; [`Burst::take`] leaves an empty slot, so that the others keep their index.
///
/// Dropping or clearing it frees the packets, in bulk where they share a pool.
pub struct Burst {
    /// Slots at and past `len` mean nothing: they are left as they are when their packets
    /// go, and drivers may write there (vector code stores in fours). No one looks at them.
    slots: [Slot; Self::CAPACITY],
    len: usize,
    /// Empty slots below `len`.
    holes: usize,
    limit: usize,
}

/// Not dropped where it is overwritten or forgotten; [`Burst`] says when a packet goes.
type Slot = ManuallyDrop<Option<Mbuf>>;

// Handed to C as an array of pointers.
const _: () = assert!(size_of::<Slot>() == size_of::<*mut sys::rte_mbuf>());

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
        Self { slots: [const { ManuallyDrop::new(None) }; Self::CAPACITY], len: 0, holes: 0, limit }
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
                *slot = ManuallyDrop::new(Some(packet));
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
        self.used().get(index)?.as_ref()
    }

    /// The packet in slot `index`, to be changed.
    #[must_use]
    #[inline]
    pub fn packet_mut(&mut self, index: usize) -> Option<&mut Mbuf> {
        self.used_mut().get_mut(index)?.as_mut()
    }

    /// The packets in these slots, each with its slot, to be changed: bit `i` of `slots` stands for
    /// slot `i`. Slots that are empty or not in use are passed over.
    ///
    /// It costs a third of what [`packet_mut`](Self::packet_mut) does for each.
    #[inline]
    pub fn packets_mut(&mut self, slots: u64) -> impl Iterator<Item = (usize, &mut Mbuf)> {
        let left = slots & self.occupied();
        PacketsMut { slots: self.slots.as_mut_ptr(), left, burst: PhantomData::<&mut Self> }
    }

    /// Asks the processor to load what [`Mbuf::prefetch`] does of the packets in these slots.
    #[inline]
    pub fn prefetch(&self, slots: u64) {
        let mut left = slots & self.occupied();
        while left != 0 {
            if let Some(packet) = self.slots[left.trailing_zeros() as usize].as_ref() {
                packet.prefetch();
            }
            left &= left - 1;
        }
    }

    /// A bit for each slot that holds a packet.
    #[inline]
    fn occupied(&self) -> u64 {
        match self.len {
            _ if self.holes > 0 => self.occupied_between_holes(),
            Self::CAPACITY.. => u64::MAX,
            len => (1 << len) - 1,
        }
    }

    #[cold]
    fn occupied_between_holes(&self) -> u64 {
        let full = |(index, slot): (usize, &Slot)| u64::from(slot.is_some()) << index;
        self.used().iter().enumerate().map(full).sum()
    }

    /// Takes the packet out of slot `index` and leaves the slot empty.
    #[inline]
    pub fn take(&mut self, index: usize) -> Option<Mbuf> {
        let packet = self.used_mut().get_mut(index)?.take();
        self.holes += usize::from(packet.is_some());
        packet
    }

    /// The packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Mbuf> {
        self.used().iter().filter_map(|slot| slot.as_ref())
    }

    /// The packets, to be changed, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Mbuf> {
        self.used_mut().iter_mut().filter_map(|slot| slot.as_mut())
    }

    /// Takes all packets out, in order. Those that the iterator was not asked for are freed
    /// with it.
    pub fn drain(&mut self) -> impl Iterator<Item = Mbuf> {
        Drain { burst: self, next: 0 }
    }

    /// Declares all slots free, after every packet was taken; frees what was not.
    #[inline]
    pub fn reset(&mut self) {
        if self.holes < self.len {
            self.free_all();
        }
        self.len = 0;
        self.holes = 0;
    }

    /// Frees all packets and returns how many they were.
    #[inline]
    pub fn clear(&mut self) -> usize {
        if self.len == 0 { 0 } else { self.free_all() }
    }

    fn free_all(&mut self) -> usize {
        self.compact();
        let packets = self.len;
        let mut done = 0;
        while let Some(first) = self.packet(done) {
            let pool = first.pool();
            // By slots, as those before `done` may be empty now.
            let alike = |slot: &&Slot| slot.as_ref().is_some_and(|p| p.pool() == pool && p.is_plain());
            let run = self.used().iter().skip(done).take_while(alike).count();
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
            done += run;
        }
        self.len = 0;
        self.holes = 0;
        packets
    }

    /// Moves the packets together, so that no slot below [`Burst::len`] is empty.
    #[inline]
    pub fn compact(&mut self) {
        if self.holes > 0 {
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
        self.holes -= self.len - to;
        self.len = to;
    }

    #[inline]
    fn used(&self) -> &[Slot] {
        &self.slots[..self.len]
    }

    #[inline]
    fn used_mut(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.len]
    }

    /// The packets in the slots from `start` on.
    #[inline]
    pub(crate) fn packets_from(&mut self, start: usize) -> impl Iterator<Item = &mut Mbuf> {
        self.used_mut().iter_mut().skip(start).filter_map(|slot| slot.as_mut())
    }

    /// The slots as C sees them: an array of 64 pointers, null where empty.
    #[inline]
    pub(crate) fn pointers(&mut self) -> *mut *mut sys::rte_mbuf {
        // Option<Mbuf> has the layout of a nullable pointer: Mbuf is a transparent NonNull,
        // ManuallyDrop is transparent too.
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

    /// Drops the first `count` slots, whose packets C owns now, and moves the others up. No
    /// slot is empty: `compact` came before.
    #[inline]
    pub(crate) fn give_away(&mut self, count: usize) {
        if count < self.len {
            self.used_mut().rotate_left(count);
        }
        self.len -= count;
    }
}

/// See [`Burst::packets_mut`].
struct PacketsMut<'a> {
    slots: *mut Slot,
    /// A bit for each slot that is still to come, all of which hold packets.
    left: u64,
    burst: PhantomData<&'a mut Burst>,
}

impl<'a> Iterator for PacketsMut<'a> {
    type Item = (usize, &'a mut Mbuf);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let index = self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        // SAFETY: a word has 64 bits, a burst 64 slots.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: the burst is borrowed mutably for 'a, and each bit is there once, so nobody else has this
        // slot, now or later.
        let slot = unsafe { &mut *slot };
        // SAFETY: there was a packet when the bit was set (`Burst::occupied`), and nobody else has had the slot
        // since.
        let packet = unsafe { slot.as_mut().unwrap_unchecked() };
        Some((index, packet))
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
