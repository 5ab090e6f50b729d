//! What keeps DPDK from being cleaned up: ports in use, and pools whose packets are not home.

use crate::port_info::PortId;
use dpdk_sys as sys;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// What must not be cleaned up while something of DPDK's is in use. Ports, pools and
/// rings hold it; packets do not, the pools count them.
#[derive(Default)]
pub(crate) struct Running {
    /// Ports that have a `Port`: a second one would poll the same queues.
    pub(crate) claimed: Mutex<BTreeSet<PortId>>,
    /// Pools without handles, not freed yet.
    pub(crate) retired: Mutex<Vec<Retired>>,
}

impl Running {
    pub(crate) fn retire(&self, pool: Retired) {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }

    /// Frees retired pools whose packets are all home.
    ///
    /// # Safety
    ///
    /// That of [`Retired::free`].
    pub(crate) unsafe fn free_retired(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: handed on to the caller.
        let still_out = retired.drain(..).filter_map(|pool| unsafe { pool.free() }.err()).collect();
        *retired = still_out;
    }
}

#[derive(Clone, Copy)]
pub(crate) struct RawPool(pub(crate) NonNull<sys::rte_mempool>);

// SAFETY: rte_mempool is made for use by many threads: its ring is multi-producer and
// multi-consumer, its caches are per lcore and used by that lcore's thread only.
unsafe impl Send for RawPool {}
// SAFETY: as above.
unsafe impl Sync for RawPool {}

impl RawPool {
    pub(crate) fn available(self) -> u32 {
        // SAFETY: a `RawPool` is in a `Pool` or in a `Retired` that has not been freed.
        unsafe { sys::rte_mempool_avail_count(self.0.as_ptr()) }
    }
}

/// A pool whose handles are gone.
pub(crate) struct Retired {
    pub(crate) raw: RawPool,
    pub(crate) name: String,
    pub(crate) size: u32,
}

impl Retired {
    /// Frees the pool if all packets are home, or gives it back.
    ///
    /// # Safety
    ///
    /// No lcore is at work. An lcore that frees a packet counts it as home a moment before
    /// it has finished writing to the pool's cache (rte_mempool_do_generic_put), so while
    /// one runs the count proves nothing; other threads have no cache and count it last.
    unsafe fn free(self) -> Result<(), Self> {
        if self.raw.available() < self.size {
            return Err(self);
        }
        // SAFETY: no handle is left (`Pool` was dropped), no packet is out, and no one is
        // still at work on the pool, by this function's precondition.
        unsafe { sys::rte_mempool_free(self.raw.0.as_ptr()) };
        Ok(())
    }

    pub(crate) fn describe(&self) -> String {
        let out = self.size.saturating_sub(self.raw.available());
        format!("{out} of the {} packets of the mempool {:?}", self.size, self.name)
    }
}
