//! Slices in the EAL's memory: made anywhere, dropped anywhere, never outliving DPDK.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::Case;
use dpdk_rs::{Eal, HugeSlice, Memory, OutOfMemory};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const CASES: &[Case] = &[
    ("elements are made in order and can be changed", |eal| {
        let mut slice = eal.memory().slice(1000, |index| index * 2).unwrap();
        slice[7] += 1;
        assert_eq!(slice.len(), 1000);
        assert!(slice.iter().enumerate().all(|(index, value)| *value == index * 2 + usize::from(index == 7)));
    }),
    ("a slice begins at a cache line, or at what its elements need", |eal| {
        #[repr(align(4096))]
        struct Page(u8);
        let bytes = [1, 3, 5].map(|len| eal.memory().slice(len, |_| 0_u8).unwrap());
        assert!(bytes.iter().all(|slice| slice.as_ptr().addr() % 64 == 0));
        let pages = eal.memory().slice(3, |_| Page(1)).unwrap();
        assert_eq!(pages.as_ptr().addr() % 4096, 0);
        assert_eq!(pages.iter().map(|page| page.0).sum::<u8>(), 3);
    }),
    ("elements are dropped once, with the slice", |eal| {
        let counted = Arc::new(());
        let slice = eal.memory().slice(100, |_| Arc::clone(&counted)).unwrap();
        assert_eq!(Arc::strong_count(&counted), 101);
        drop(slice);
        assert_eq!(Arc::strong_count(&counted), 1);
    }),
    ("a panic while elements are made drops those that were", |eal| {
        let counted = Arc::new(());
        let made = catch_unwind(AssertUnwindSafe(|| {
            eal.memory().slice(100, |index| {
                assert!(index < 50, "the fiftieth fails");
                Arc::clone(&counted)
            })
        }));
        assert!(made.is_err());
        assert_eq!(Arc::strong_count(&counted), 1);
    }),
    ("memory comes back, also after a panic", |eal| {
        // Together far more than the 128 MiB that there are.
        for round in 0..40 {
            let made = catch_unwind(AssertUnwindSafe(|| {
                let slice = eal.memory().slice(1 << 20, |_| 1_u64).unwrap();
                assert!(round % 2 == 0, "every other one");
                slice
            }));
            assert_eq!(made.is_ok(), round % 2 == 0);
        }
    }),
    ("what takes no room needs no memory", |eal| {
        let counted = Arc::new(());
        let none = eal.memory().slice(0, |_| Arc::clone(&counted)).unwrap();
        assert!(none.is_empty());
        let units = eal.memory().slice(1000, |_| ()).map(|units| units.len());
        assert_eq!(units, Ok(1000));
        assert_eq!(Arc::strong_count(&counted), 1);
    }),
    ("what does not fit is refused with its size and what to do", |eal| {
        let never = |_| -> u64 { panic!("nothing is made") };
        for len in [1 << 27, 1 << 38, 1 << 40, 1 << 50, 1 << 59] {
            assert_eq!(eal.memory().slice(len, never).unwrap_err().bytes, len * 8);
        }
        let text = eal.memory().slice(1 << 40, never).unwrap_err().to_string();
        assert!(text.contains("8796093022208 bytes") && text.contains("hugepages") && text.contains("-m"), "{text}");
        assert_eq!(eal.memory().slice(usize::MAX, never).unwrap_err().bytes, usize::MAX);
        for socket in [31, 1000, u32::MAX] {
            // With --no-huge there are no nodes, and DPDK takes any that could be one.
            match eal.memory().on_socket(socket).slice(16, |_| 0_u8) {
                Ok(slice) => assert_eq!(slice.len(), 16),
                Err(OutOfMemory { bytes, socket: asked, .. }) => assert_eq!((bytes, asked), (16, Some(socket))),
            }
        }
    }),
    ("a slice is made on an lcore and dropped on a thread that DPDK does not know", |eal| {
        let pool = common::pool(eal, "memory");
        let lcore = *eal.lcores().last().unwrap();
        let slice: HugeSlice<u64> = eal.scope(|scope| {
            let make = move || pool.memory().slice(1 << 16, |index| index as u64).unwrap();
            scope.launch(lcore, make).unwrap().join().unwrap()
        });
        std::thread::spawn(move || {
            let memory: Memory = slice.memory();
            assert_eq!(slice.iter().sum::<u64>(), (0..1 << 16).sum());
            drop(slice);
            drop(memory.slice(1 << 16, |_| 1_u8).unwrap());
        })
        .join()
        .unwrap();
    }),
    ("threads allocate and free at once", |eal| {
        std::thread::scope(|threads| {
            for thread in 0..4_u64 {
                let memory = eal.memory();
                threads.spawn(move || {
                    for round in 0..100 {
                        let len = usize::try_from((thread * 7919 + round * 104_729) % 20_000).unwrap();
                        let slice = memory.slice(len, |index| index as u64 ^ thread).unwrap();
                        assert!(slice.iter().enumerate().all(|(index, value)| *value == index as u64 ^ thread));
                    }
                });
            }
        });
    }),
];

#[test]
fn memory() {
    common::keep_log();
    let eal: Eal = common::eal(&[]);
    common::run(&eal, CASES);

    eprintln!("case: a slice that outlives the EAL keeps DPDK running");
    let slice = eal.memory().slice(1 << 16, |index| index).unwrap();
    drop(eal);
    assert_eq!(common::logged().len(), 1, "the log says so");
    assert_eq!(slice.iter().sum::<usize>(), (0..1 << 16).sum());
}
