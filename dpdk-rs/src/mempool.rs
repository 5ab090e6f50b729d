//! Pools of packet buffers, allocated at start.

use crate::burst::{Burst, u32_of};
use crate::running::{RawPool, Retired, Running};
use crate::{Eal, Errno, Mbuf};
use dpdk_sys as sys;
use std::ffi::{CStr, CString};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// How a pool is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MempoolConfig {
    /// Packets in the pool; 2^n - 1 wastes least. Each port's queues hold as many as they
    /// have descriptors, and each lcore may keep one and a half times `cache` to itself.
    pub size: u32,
    /// Packets that an lcore keeps at hand without asking the others, at most 512.
    pub cache: u32,
    /// Bytes for the data of one packet, the headroom of 128 not counted. The default
    /// holds an Ethernet frame with two VLAN tags at an MTU of 1500 and what drivers round up.
    /// At most 65407.
    pub data_room: u16,
    /// NUMA node; `None` is that of the calling thread.
    pub socket: Option<u32>,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { size: 16_383, cache: 256, data_room: 2048, socket: None }
    }
}

impl MempoolConfig {
    /// Bytes of the EAL's memory that such a pool takes: packets, with what DPDK puts around
    /// each, the ring that they are kept in, and the lcores' caches. A packet lies within one
    /// page, so without hugepages each takes 4 KiB or more. The EAL need not be up.
    #[must_use]
    pub fn bytes(&self, hugepages: bool) -> u64 {
        let page: u64 = if hugepages { 2 << 20 } else { 4 << 10 };
        let packet = sys::DPDK_MBUF_SIZE + sys::RTE_PKTMBUF_HEADROOM + u32::from(self.data_room);
        // SAFETY: it computes; the third argument may be null (rte_mempool.c).
        let object = u64::from(unsafe { sys::rte_mempool_calc_obj_size(packet, 0, ptr::null_mut()) });
        let size = u64::from(self.size);
        // As rte_mempool_op_calc_mem_size_helper does.
        let packets = match page / object {
            0 => size * object.next_multiple_of(page),
            in_page => size.div_ceil(in_page) * page,
        };
        let ring = (size + 1).next_power_of_two() * size_of::<*const ()>() as u64;
        let lcores = if self.cache == 0 { 0 } else { u64::from(sys::RTE_MAX_LCORE) };
        packets + ring + lcores * size_of::<sys::rte_mempool_cache>() as u64
    }
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MempoolError {
    /// The name has a zero byte or is longer than the 25 bytes that DPDK takes.
    #[error("a mempool cannot be called {0:?}: 1 to 25 bytes, none of them zero")]
    Name(String),
    /// The name is taken.
    #[error("there is a mempool called {0:?} already")]
    Exists(String),
    /// It does not fit into what the EAL reserved.
    #[error(
        "no memory for the mempool {name:?} of {size} packets ({mebibytes} MiB): reserve more hugepages, or with --no-huge give the EAL more by -m"
    )]
    NoMemory {
        /// The pool's name.
        name: String,
        /// Packets asked for.
        size: u32,
        /// Memory that they need.
        mebibytes: u64,
    },
    /// DPDK refused.
    #[error("the mempool {name:?} was not created: {errno}")]
    Refused {
        /// The pool's name.
        name: String,
        /// Why.
        errno: Errno,
    },
}

/// A pool of packets, shared by whoever has a clone of this handle.
///
/// When the last handle is gone the pool is retired; its memory is given back once every
/// packet is home and no lcore is at work (when the next pool is made, or with the EAL). A
/// packet that is still out then keeps its pool, and the EAL, for ever: a log line says so.
#[derive(Clone)]
pub struct Mempool(Arc<Pool>);

struct Pool {
    raw: RawPool,
    name: String,
    config: MempoolConfig,
    running: Arc<Running>,
}

/// How packets at home are kept: in a ring for many producers and consumers. Named here
/// because `--mbuf-pool-ops-name` could choose one that only a single thread may use.
const OPS: &CStr = c"ring_mp_mc";

impl Mempool {
    /// Most packets in a pool. From 2^31 on, DPDK rounds the size of the pool's ring up to
    /// zero and writes past its end (rte_align32pow2).
    const MOST: u32 = 1 << 30;

    /// Allocates a pool under a name that no other has.
    ///
    /// # Errors
    ///
    /// [`MempoolError`] tells a bad or taken name from a lack of memory.
    pub fn new(eal: &Eal, name: &str, config: MempoolConfig) -> Result<Self, MempoolError> {
        eal.free_retired_pools();
        let longest = sys::DPDK_MEMPOOL_NAME_SIZE as usize - 1;
        let c_name = CString::new(name)
            .ok()
            .filter(|c_name| (1..=longest).contains(&c_name.as_bytes().len()))
            .ok_or_else(|| MempoolError::Name(name.to_owned()))?;
        #[allow(clippy::cast_possible_truncation, reason = "128")]
        let headroom = sys::RTE_PKTMBUF_HEADROOM as u16;
        let refused = |errno| MempoolError::Refused { name: name.to_owned(), errno };
        let no_memory = || MempoolError::NoMemory {
            name: name.to_owned(),
            size: config.size,
            mebibytes: config.bytes(eal.has_hugepages()) >> 20,
        };
        let room = config.data_room.checked_add(headroom).ok_or_else(|| refused(Errno(libc::EINVAL)))?;
        if config.size > Self::MOST {
            return Err(no_memory());
        }
        let socket = config.socket.and_then(|socket| i32::try_from(socket).ok()).unwrap_or(sys::SOCKET_ID_ANY);
        // SAFETY: the EAL is up, the name NUL-terminated and copied by DPDK.
        let raw = unsafe {
            sys::rte_pktmbuf_pool_create_by_ops(
                c_name.as_ptr(),
                config.size,
                config.cache,
                0,
                room,
                socket,
                OPS.as_ptr(),
            )
        };
        let raw = NonNull::new(raw).ok_or_else(|| match Errno::last() {
            Errno(libc::EEXIST) => MempoolError::Exists(name.to_owned()),
            // The second when there is no piece left that holds even one packet.
            Errno(libc::ENOMEM | libc::ENOBUFS) => no_memory(),
            errno => refused(errno),
        })?;
        Ok(Self(Arc::new(Pool {
            raw: RawPool(raw),
            name: name.to_owned(),
            config,
            running: Arc::clone(eal.running()),
        })))
    }

    /// One packet without data, or `None` when the pool is empty.
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as the handle.
        let raw = NonNull::new(unsafe { sys::shim_mbuf_alloc(self.raw()) })?;
        // SAFETY: fresh from the pool: one segment, one reference, direct, ours.
        Some(unsafe { Mbuf::from_raw(raw) })
    }

    /// Fills the burst up to its limit with packets without data; false and no change when
    /// the pool has too few.
    #[must_use]
    pub fn alloc_bulk(&self, burst: &mut Burst) -> bool {
        let room = burst.room();
        let len = burst.len();
        if room == 0 {
            return true;
        }
        // SAFETY: within the array of slots: len + room is at most its capacity.
        let free = unsafe { burst.pointers().add(len) };
        // SAFETY: the pool lives as long as the handle, `free` has room for that many.
        let result = unsafe { sys::shim_mbuf_alloc_bulk(self.raw(), free, u32_of(room)) };
        if result != 0 {
            return false;
        }
        // SAFETY: the slots hold fresh packets, as in `alloc`.
        unsafe { burst.grow(room) };
        true
    }

    /// Packets that are in the pool now, the lcores' caches included. Slow.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.raw.available()
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// As it was asked for.
    #[must_use]
    pub fn config(&self) -> MempoolConfig {
        self.0.config
    }

    pub(crate) fn running(&self) -> &Arc<Running> {
        &self.0.running
    }

    pub(crate) fn raw(&self) -> *mut sys::rte_mempool {
        self.0.raw.0.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.running.retire(Retired { raw: self.raw, name: std::mem::take(&mut self.name), size: self.config.size });
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool").field("name", &self.0.name).field("config", &self.0.config).finish_non_exhaustive()
    }
}
