//! DPDK's own hash table (`rte_hash`), as far as benchmarks need it to compare ours with.
//! Programs use `nf-framework`'s flow table.

use crate::running::Running;
use crate::{Eal, Errno};
use dpdk_sys as sys;
use std::array;
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Keys of 16 bytes, each with a position, from 0 to below the table's size, that never changes.
pub struct RteHash {
    raw: NonNull<sys::rte_hash>,
    _running: Arc<Running>,
}

impl RteHash {
    /// Most keys that are looked up at once.
    pub const BULK: usize = 64;

    /// A table for so many keys, with DPDK's default hash (CRC32 where the processor has it),
    /// to be used by one thread.
    ///
    /// # Errors
    ///
    /// What DPDK says.
    pub fn new(eal: &Eal, name: &str, entries: u32) -> Result<Self, Errno> {
        let name = CString::new(name).map_err(|_| Errno(libc::EINVAL))?;
        if name.as_bytes().len() >= sys::DPDK_HASH_NAME_SIZE as usize {
            return Err(Errno(libc::EINVAL));
        }
        let parameters = sys::rte_hash_parameters { name: name.as_ptr(), entries, key_len: 16, ..Default::default() };
        // SAFETY: the EAL is up, the name NUL-terminated and copied by DPDK, and zero is the
        // default of all other parameters.
        let raw = NonNull::new(unsafe { sys::rte_hash_create(&raw const parameters) }).ok_or_else(Errno::last)?;
        Ok(Self { raw, _running: Arc::clone(eal.running()) })
    }

    /// Adds a key and returns its position; that of the key which is there already.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when it is full.
    pub fn add(&mut self, key: &[u8; 16]) -> Result<u32, Errno> {
        // SAFETY: `key_len` bytes are there to be copied; `&mut self` of the only handle.
        let position = unsafe { sys::rte_hash_add_key(self.raw.as_ptr(), key.as_ptr().cast()) };
        Errno::check(position).map(i32::cast_unsigned)
    }

    /// Looks up to 64 keys up at once and writes their positions, negative for what is not
    /// there; what has no place in `positions` is left out.
    #[inline]
    pub fn lookup_bulk(&self, keys: &[[u8; 16]], positions: &mut [i32]) {
        let count = keys.len().min(positions.len()).min(Self::BULK);
        if count == 0 {
            return;
        }
        let mut pointers: [*const c_void; Self::BULK] =
            array::from_fn(|index| keys.get(index).map_or(ptr::null(), |key| key.as_ptr().cast()));
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let number = count as u32;
        // SAFETY: the first `count` pointers lead to keys of 16 bytes, there is room for as
        // many positions, and nobody changes the table, which is not `Sync`, meanwhile.
        unsafe { sys::rte_hash_lookup_bulk(self.raw.as_ptr(), pointers.as_mut_ptr(), number, positions.as_mut_ptr()) };
    }
}

impl Drop for RteHash {
    fn drop(&mut self) {
        // SAFETY: made by rte_hash_create, freed once.
        unsafe { sys::rte_hash_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for RteHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RteHash").finish_non_exhaustive()
    }
}
