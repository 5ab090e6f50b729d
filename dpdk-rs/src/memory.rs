//! Memory for tables: hugepages, on the NUMA node of who uses it.

use crate::running::Running;
use crate::{Eal, Mempool};
use dpdk_sys as sys;
use std::alloc::Layout;
use std::ffi::{c_int, c_uint};
use std::fmt;
use std::marker::PhantomData;
use std::num::TryFromIntError;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// A table does not fit into what the EAL has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[error(
    "no memory for {bytes} bytes in one piece{}: reserve more hugepages, or with --no-huge give the EAL more by -m",
    node(*.socket)
)]
pub struct OutOfMemory {
    /// Bytes asked for; `usize::MAX` when they cannot be counted.
    pub bytes: usize,
    /// The NUMA node asked for.
    pub socket: Option<u32>,
}

fn node(socket: Option<u32>) -> String {
    socket.map(|socket| format!(" on NUMA node {socket}")).unwrap_or_default()
}

/// Where tables get their memory: the heap of hugepages that the EAL has (ordinary pages
/// with `--no-huge`). A handle that any thread may have and clone, unlike [`Eal`], so that a
/// worker can make its tables on its own lcore, where they are near. Not for the packet path:
/// allocating takes a lock.
///
/// While a `Memory` or a [`HugeSlice`] is there, DPDK is not cleaned up.
#[derive(Clone)]
pub struct Memory {
    running: Arc<Running>,
    socket: Option<u32>,
}

impl Eal {
    /// Memory for tables, from any NUMA node, the calling thread's first.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory { running: Arc::clone(self.running()), socket: None }
    }
}

impl Eal {
    /// Whether its memory is hugepages; with `--no-huge` it is not.
    #[must_use]
    pub fn has_hugepages(&self) -> bool {
        // SAFETY: the EAL is up.
        unsafe { sys::rte_eal_has_hugepages() != 0 }
    }

    /// Bytes that the EAL has mapped and that nobody uses, on all NUMA nodes. With hugepages
    /// it maps more when that is used up, unless it was told not to.
    #[must_use]
    pub fn free_memory(&self) -> usize {
        // SAFETY: the EAL is up.
        let nodes = unsafe { sys::rte_socket_count() };
        let free = |index| {
            // SAFETY: below the number of nodes.
            let node = unsafe { sys::rte_socket_id_by_idx(index) };
            let mut stats = sys::rte_malloc_socket_stats::default();
            // SAFETY: any node may be asked about; `stats` is ours.
            let known = unsafe { sys::rte_malloc_get_socket_stats(node, &raw mut stats) } == 0;
            if known { stats.heap_freesz_bytes } else { 0 }
        };
        (0..nodes).map(free).sum()
    }
}

impl Mempool {
    /// Memory for tables, from any NUMA node, the calling thread's first: for those who have
    /// a pool and no [`Eal`], as workers.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory { running: Arc::clone(self.running()), socket: None }
    }
}

impl Memory {
    /// Most bytes in a slice, more than there are in a machine. DPDK counts the pages that an
    /// allocation needs in an `int`, which from 2^52 bytes on is wrong (try_expand_heap_primary).
    const MOST: usize = 1 << 42;

    /// The same, from this NUMA node and no other.
    #[must_use]
    pub fn on_socket(self, socket: u32) -> Self {
        Self { socket: Some(socket), ..self }
    }

    /// `len` elements, each made by `make` from its index, in one piece that begins at a
    /// cache line. They never move.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] says how much there was asked for; `make` was not called then.
    pub fn slice<T>(&self, len: usize, mut make: impl FnMut(usize) -> T) -> Result<HugeSlice<T>, OutOfMemory> {
        let block = self.allocate::<T>(len)?;
        let first = NonNull::new(block).unwrap_or(NonNull::dangling());
        // From here on a panic of `make` drops what was made and frees the memory.
        let mut slice = HugeSlice { first, len: 0, block, running: Arc::clone(&self.running), _elements: PhantomData };
        while slice.len < len {
            let element = make(slice.len);
            // SAFETY: below `len`, so inside of the allocation.
            let place = unsafe { slice.first.as_ptr().add(slice.len) };
            // SAFETY: `place` is aligned (`allocate`), allocated, ours and not initialised.
            unsafe { place.write(element) };
            slice.len += 1;
        }
        Ok(slice)
    }

    /// What keeps DPDK from being cleaned up.
    pub(crate) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// The NUMA node as DPDK numbers it.
    pub(crate) fn socket_id(&self) -> Result<c_int, TryFromIntError> {
        self.socket.map_or(Ok(sys::SOCKET_ID_ANY), c_int::try_from)
    }

    /// Room for `len` values of T, aligned for them and to a cache line. Null if that is no
    /// bytes.
    fn allocate<T>(&self, len: usize) -> Result<*mut T, OutOfMemory> {
        let refused = |bytes| OutOfMemory { bytes, socket: self.socket };
        let layout = Layout::array::<T>(len).map_err(|_| refused(usize::MAX))?;
        if layout.size() == 0 {
            return Ok(ptr::null_mut());
        }
        let refused = refused(layout.size());
        if layout.size() > Self::MOST {
            return Err(refused);
        }
        let align = layout.align().max(sys::RTE_CACHE_LINE_SIZE as usize);
        let Ok(align) = c_uint::try_from(align) else { return Err(refused) };
        let Ok(socket) = self.socket_id() else { return Err(refused) };
        // SAFETY: the EAL is up, as `running` is held. The alignment is a power of two. Any
        // thread may call: the heap has a lock, and only SOCKET_ID_ANY looks at the caller,
        // for its node, which an ordinary thread may be without (malloc_get_numa_socket).
        let block = unsafe { sys::rte_malloc_socket(ptr::null(), layout.size(), align, socket) };
        if block.is_null() { Err(refused) } else { Ok(block.cast()) }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A slice of fixed length in the EAL's memory, made by [`Memory::slice`]. Its elements are
/// dropped and its memory given back when it goes, on whatever thread.
///
/// ```compile_fail,E0277
/// fn to_another_thread(cells: dpdk_rs::HugeSlice<std::rc::Rc<u32>>) {
///     std::thread::spawn(move || drop(cells)); // no more `Send` than its elements
/// }
/// ```
pub struct HugeSlice<T> {
    first: NonNull<T>,
    /// Elements, all initialised.
    len: usize,
    /// What rte_malloc gave; null when the slice needs no memory.
    block: *mut T,
    /// DPDK's memory is there as long as this is.
    running: Arc<Running>,
    _elements: PhantomData<T>,
}

// SAFETY: it owns its elements as a `Box<[T]>` does, and rte_free may be called by any thread
// (see `drop`).
unsafe impl<T: Send> Send for HugeSlice<T> {}
// SAFETY: a shared one gives out shared references to its elements and nothing else.
unsafe impl<T: Sync> Sync for HugeSlice<T> {}

impl<T> HugeSlice<T> {
    /// Where to get more of the same memory.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory { running: Arc::clone(&self.running), socket: None }
    }
}

impl<T> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements from `first` on are initialised, ours, and at most
        // isize::MAX bytes (`Layout::array`); shared for as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeSlice<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and exclusive for as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for HugeSlice<T> {
    fn drop(&mut self) {
        /// Frees the memory also when an element's own `drop` panics.
        struct Free(*mut std::ffi::c_void);
        impl Drop for Free {
            fn drop(&mut self) {
                // SAFETY: from rte_malloc_socket or null, which rte_free takes, and given back
                // once. Any thread may free: rte_free finds the heap in the block's own header
                // and takes the heap's lock (malloc_heap_free); it uses nothing of an lcore's.
                unsafe { sys::rte_free(self.0) };
            }
        }
        let _free = Free(self.block.cast());
        let elements: *mut [T] = &raw mut **self;
        // SAFETY: all of them are initialised, and nobody sees them after this. `running`
        // goes after this function, so the EAL is up until the memory is given back.
        unsafe { ptr::drop_in_place(elements) };
    }
}

impl<T> fmt::Debug for HugeSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugeSlice").field("len", &self.len).finish_non_exhaustive()
    }
}
