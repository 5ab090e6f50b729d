//! Packets from one thread to another, without a lock.

use crate::burst::{Burst, u32_of};
use crate::running::Running;
use crate::{Eal, Errno};
use dpdk_sys as sys;
use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The name has a zero byte or is too long.
    #[error("a ring cannot be called {0:?}: 1 to 25 bytes, none of them zero")]
    Name(String),
    /// DPDK refused.
    #[error("the ring {name:?} for {capacity} packets was not created: {errno}")]
    Refused {
        /// The ring's name.
        name: String,
        /// Packets asked for.
        capacity: u32,
        /// Why.
        errno: Errno,
    },
}

/// A bounded queue of packets between two threads: makes its two ends.
///
/// ```compile_fail
/// fn two_consumers(end: dpdk_rs::Consumer) -> [dpdk_rs::Consumer; 2] { [end.clone(), end] }
/// ```
pub struct Ring {
    raw: NonNull<sys::rte_ring>,
    _running: Arc<Running>,
}

// SAFETY: the ring's own structure is made for one producer and one consumer on different
// threads, and `Producer` and `Consumer` are one each, used through `&mut`.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

/// The end that packets go into.
#[derive(Debug)]
pub struct Producer(Arc<Ring>);

/// The end that packets come out of.
#[derive(Debug)]
pub struct Consumer(Arc<Ring>);

impl Ring {
    /// Most packets in a ring. From 2^31 on, DPDK rounds the size up to zero and says yes
    /// (rte_align32pow2): packets would be written past the ring's end.
    const MOST: u32 = (1 << 30) - 1;

    /// A ring for exactly `capacity` packets. The name is for people, and for debuggers.
    ///
    /// # Errors
    ///
    /// [`RingError`].
    pub fn pair(eal: &Eal, name: &str, capacity: u32) -> Result<(Producer, Consumer), RingError> {
        let longest = sys::DPDK_RING_NAME_SIZE as usize - 1;
        let c_name = CString::new(name)
            .ok()
            .filter(|c_name| (1..=longest).contains(&c_name.as_bytes().len()))
            .ok_or_else(|| RingError::Name(name.to_owned()))?;
        let refused = |errno| RingError::Refused { name: name.to_owned(), capacity, errno };
        if capacity > Self::MOST {
            return Err(refused(Errno(libc::EINVAL)));
        }
        let flags = sys::RING_F_SP_ENQ | sys::RING_F_SC_DEQ | sys::RING_F_EXACT_SZ;
        // Of the heap, as there are only some thousand memory zones (RTE_MAX_MEMZONE) and
        // rte_ring_create takes one for each ring. One slot stays free (RING_F_EXACT_SZ).
        let slots = (capacity + 1).next_power_of_two();
        // SAFETY: any count may be asked about.
        let bytes = unsafe { sys::rte_ring_get_memsize(slots) };
        let bytes = usize::try_from(bytes).map_err(|_| refused(Errno(libc::EINVAL)))?;
        let alignment = u32_of(align_of::<sys::rte_ring>());
        // SAFETY: the EAL is up; a type for debugging may be missing.
        let memory = unsafe { sys::rte_malloc(std::ptr::null(), bytes, alignment) };
        let raw = NonNull::new(memory.cast::<sys::rte_ring>()).ok_or_else(|| refused(Errno(libc::ENOMEM)))?;
        // SAFETY: the memory is as large and as aligned as a ring of that many slots; the name is copied.
        let code = unsafe { sys::rte_ring_init(raw.as_ptr(), c_name.as_ptr(), capacity, flags) };
        if let Err(errno) = Errno::check(code) {
            // SAFETY: ours, and nobody else has it.
            unsafe { sys::rte_free(raw.as_ptr().cast()) };
            return Err(refused(errno));
        }
        let ring = Arc::new(Self { raw, _running: Arc::clone(eal.running()) });
        Ok((Producer(Arc::clone(&ring)), Consumer(ring)))
    }

    fn dequeue(&self, burst: &mut Burst) -> usize {
        let (len, room) = (burst.len(), burst.room());
        // SAFETY: len + room is at most the capacity of the array of slots.
        let free = unsafe { burst.pointers().add(len) };
        // SAFETY: callers are the only consumer; there is room for that many pointers.
        let count = unsafe { sys::shim_ring_dequeue_burst(self.raw.as_ptr(), free, u32_of(room)) } as usize;
        // SAFETY: the ring holds what `Producer::send` put in: packets of `Mbuf`s.
        unsafe { burst.grow(count) };
        count
    }
}

impl Producer {
    /// Puts the packets of the burst into the ring, in order, and returns how many went in.
    /// Those that found no room stay in the burst, at its beginning.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        burst.compact();
        let len = u32_of(burst.len());
        // SAFETY: `&mut self` of the only producer; the first `len` slots are packets.
        let sent = unsafe { sys::shim_ring_enqueue_burst(self.0.raw.as_ptr(), burst.pointers(), len) } as usize;
        burst.give_away(sent);
        sent
    }
}

impl Consumer {
    /// Takes packets out into the burst, up to its limit, and returns how many.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        self.0.dequeue(burst)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut burst = Burst::with_limit(Burst::CAPACITY);
        // Both ends are gone, so this is the only consumer.
        while self.dequeue(&mut burst) > 0 {
            burst.clear();
        }
        // SAFETY: both ends are gone and the ring is empty; the memory is of rte_malloc.
        unsafe { sys::rte_free(self.raw.as_ptr().cast()) };
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("raw", &self.raw).finish_non_exhaustive()
    }
}
