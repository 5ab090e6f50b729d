//! The counters of the feature `allocation-count` count, whoever allocates.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]
#![cfg(feature = "allocation-count")]

mod common;

use dpdk_rs::allocation_count::{AllocationCount, CountingAllocator};
use dpdk_rs::{Burst, Mempool, MempoolConfig, PortBuilder};
use dpdk_sys as sys;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What an action adds to the counts, and what it returns.
fn counted<T>(action: impl FnOnce() -> T) -> (AllocationCount, T) {
    let before = AllocationCount::of_this_thread();
    let result = action();
    let after = AllocationCount::of_this_thread();
    let added =
        AllocationCount { rust: after.rust - before.rust, c: after.c - before.c, dpdk: after.dpdk - before.dpdk };
    (added, result)
}

#[test]
fn every_allocation_is_counted_and_the_packet_path_has_none() {
    let eal = common::eal(&["net_null0"]);

    let (none, _) = counted(|| black_box(1));
    assert_eq!((none.rust, none.c, none.dpdk), (0, 0, 0));

    // Rust's goes through C's malloc.
    let (rust, _vector) = counted(|| black_box(vec![1_u8; 1000]));
    assert_eq!((rust.rust, rust.c, rust.dpdk), (1, 1, 0));
    let (grown, _vector) = counted(|| {
        let mut vector = black_box(vec![0_u8; 10]);
        vector.reserve(1000);
        vector
    });
    assert_eq!((grown.rust, grown.c), (2, 2));

    let (called, pointer) = counted(|| {
        // SAFETY: any size may be asked for.
        black_box(unsafe { libc::malloc(100) })
    });
    assert_eq!((called.rust, called.c, called.dpdk), (0, 1, 0));
    // SAFETY: from malloc, used no more.
    unsafe { libc::free(pointer) };

    // From inside of libc: stdio's and strdup's.
    let (duplicated, pointer) = counted(|| {
        // SAFETY: a NUL-terminated string.
        black_box(unsafe { libc::strdup(c"text".as_ptr()) })
    });
    assert_eq!((duplicated.rust, duplicated.c), (0, 1));
    // SAFETY: from malloc, used no more.
    unsafe { libc::free(pointer.cast()) };

    // rte_malloc from the program.
    let (dpdk, pointer) = counted(|| {
        // SAFETY: the EAL is up; the type is for debugging and may be null.
        black_box(unsafe { sys::rte_malloc(std::ptr::null(), 100, 0) })
    });
    assert!(!pointer.is_null());
    assert_eq!((dpdk.rust, dpdk.c), (0, 0));
    // In a static program these cannot be counted.
    let shared = u64::from(!cfg!(feature = "static"));
    assert!(dpdk.dpdk >= shared);
    // SAFETY: from rte_malloc, used no more.
    unsafe { sys::rte_free(pointer) };

    // From inside of DPDK's libraries: the EAL has a list of devices made by malloc, a pool's entry in DPDK's list
    // is made by rte_zmalloc in librte_mempool, and a driver loaded at run time sets its queues up by it too.
    let config = MempoolConfig { size: 1023, cache: 64, ..MempoolConfig::default() };
    let (pooled, pool) = counted(|| Mempool::new(&eal, "packets", config).unwrap());
    assert!(pooled.dpdk >= shared, "{pooled:?}");
    let port = eal.ports().next().unwrap();
    let (started, (port, mut queues)) = counted(|| PortBuilder::new(&eal, port).pool(&pool).start().unwrap());
    assert!(started.dpdk >= shared, "{started:?}");
    let (asked, _) = counted(|| {
        let mut iterator = sys::rte_dev_iterator::default();
        // SAFETY: a NUL-terminated filter; the iterator is ours.
        unsafe { sys::rte_dev_iterator_init(&raw mut iterator, c"bus=vdev".as_ptr()) };
    });
    assert!(asked.c >= 1 && asked.rust == 0, "{asked:?}");

    let mut burst = Burst::new();
    let (path, packets) = counted(|| {
        let mut packets = 0;
        for _ in 0..10_000 {
            packets += queues[0].rx.receive(&mut burst);
            drop(burst.take(0));
            queues[0].tx.send(&mut burst);
            burst.clear();
            assert!(pool.alloc_bulk(&mut burst));
            burst.clear();
        }
        packets
    });
    assert_eq!((packets, path.rust, path.c, path.dpdk), (320_000, 0, 0, 0));
    port.stop(queues).unwrap();
}
