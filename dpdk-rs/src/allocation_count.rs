//! Counts of allocations by the calling thread, for tests that show there are none
//! (feature `allocation-count`).
//!
//! A program that refers to this module gets its `malloc`, and DPDK's `rte_malloc`,
//! counted, whoever calls them: the program's own definitions stand before those of the
//! shared libraries. With the feature `static` there are no shared libraries of DPDK, and
//! `rte_malloc` stays uncounted. Make [`CountingAllocator`] the global allocator to count Rust's too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static RUST: Cell<u64> = const { Cell::new(0) };
}

unsafe extern "C" {
    safe fn allocation_count_c() -> u64;
    safe fn allocation_count_dpdk() -> u64;
}

/// Calls made by one thread so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocationCount {
    /// To Rust's global allocator, if it is [`CountingAllocator`].
    pub rust: u64,
    /// To libc's `malloc` family.
    pub c: u64,
    /// To DPDK's `rte_malloc` family; always 0 in a static program.
    pub dpdk: u64,
}

impl AllocationCount {
    /// The calling thread's.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self { rust: RUST.get(), c: allocation_count_c(), dpdk: allocation_count_dpdk() }
    }
}

/// The system's allocator, counting.
#[derive(Debug)]
pub struct CountingAllocator;

// SAFETY: hands every call to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        RUST.set(RUST.get() + 1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        RUST.set(RUST.get() + 1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        RUST.set(RUST.get() + 1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
