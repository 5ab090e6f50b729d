//! Asking a classifier allocates nothing: Rust's, C's and DPDK's allocations are counted.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use dpdk_rs::allocation_count::{AllocationCount, CountingAllocator};
use nf_framework::headers::IpProtocol;
use nf_framework::testing::lab;
use nf_framework::{AclAlgorithm, AddressSet, Addresses, Classifier, Key, Rule};
use std::net::{Ipv4Addr, Ipv6Addr};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn no_look_up_allocates_whatever_the_algorithm() {
    lab(|lab| {
        let set = AddressSet {
            name: "some".to_owned(),
            prefixes: ["10.0.0.0/8", "2001:db8::/32"].map(|prefix| prefix.parse().unwrap()).into(),
        };
        let rules = [
            Rule { source: Addresses::Set("some".to_owned()), destination_ports: Some(53..=53), ..Rule::default() },
            Rule { destination: Addresses::Set("some".to_owned()), ..Rule::default() },
        ];
        let before = AllocationCount::of_this_thread();
        let mut classifier = Classifier::new(&lab.eal.memory(), &[set], &rules).unwrap();
        let built = AllocationCount::of_this_thread();
        assert!(built.rust > before.rust && built.c > before.c && built.dpdk > before.dpdk, "building is counted");

        let keys: [Key; Classifier::BURST] = std::array::from_fn(|index| {
            let number = u8::try_from(index).unwrap();
            let (four, six) =
                (Ipv4Addr::new(number % 20, 0, 0, 1), Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number)));
            let key = match index % 2 {
                0 => Key::ipv4(four, four, IpProtocol::UDP),
                _ => Key::ipv6(six, six, IpProtocol::UDP),
            };
            key.ports(1, [53, 54][index / 2 % 2])
        });
        let mut found = [None; Classifier::BURST];
        let mut hits = 0;
        for algorithm in AclAlgorithm::ALL {
            if classifier.use_algorithm(algorithm) {
                let before = AllocationCount::of_this_thread();
                for _ in 0..1000 {
                    classifier.classify(&keys, &mut found);
                    hits += found.iter().flatten().count();
                }
                let after = AllocationCount::of_this_thread();
                let counts = |count: AllocationCount| [count.rust, count.c, count.dpdk];
                assert_eq!(counts(after), counts(before), "{algorithm}");
            }
        }
        assert!(hits > 10_000, "{hits}");
    });
}
