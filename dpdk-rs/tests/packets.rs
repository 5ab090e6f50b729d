//! Packets and pools, without a device.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{number, numbered, pool_of};
use dpdk_rs::{Burst, ChecksumStatus, Eal, Mbuf, Mempool, MempoolConfig, MempoolError, Ring, RingError};
use std::thread;

#[test]
fn packets_and_pools() {
    common::keep_log();
    let eal = common::eal(&[]);
    common::run(
        &eal,
        &[
            ("a packet goes home when it is dropped", dropped_packets_go_home),
            ("packets are allocated all at once or not at all", bulk_is_all_or_nothing),
            ("an empty pool gives nothing until a packet is back", an_empty_pool_gives_nothing),
            ("append, prepend, adj and trim stop at the buffer's ends", data_stays_in_the_buffer),
            ("contents are replaced if they fit", contents_are_replaced_if_they_fit),
            ("an annotation goes with its packet, through rings too, and not with the next", annotations_travel),
            ("tags go in and come out, by hand or by a device", tags_go_in_and_come_out),
            ("a device can say what it thinks of a checksum", a_device_can_say_what_it_thinks_of_a_checksum),
            ("an ordinary thread may drop packets", an_ordinary_thread_may_drop_packets),
            ("many threads may share a pool", many_threads_may_share_a_pool),
            ("a drain that stops early loses nothing", a_drain_that_stops_early_loses_nothing),
            ("packets of several pools are cleared together", packets_of_several_pools_are_cleared_together),
            ("a loop over slots sees those that hold packets", a_loop_over_slots_sees_those_that_hold_packets),
            ("a pool's name is free again once its packets are home", names_are_free_again),
            ("a packet may outlive the handles of its pool", a_packet_may_outlive_its_pool),
            ("what no pool can be is refused", impossible_pools_are_refused),
            ("what no ring can be is refused", impossible_rings_are_refused),
            ("a ring frees what is left in it", a_ring_frees_what_is_left),
            ("the ports that were asked for outlive the EAL as plain numbers", port_ids_are_plain),
        ],
    );
    drop(eal);
    assert_eq!(common::logged(), [""; 0], "everything was cleaned up");
    assert!(matches!(Eal::init(common::arguments(&[])), Err(dpdk_rs::EalError::AlreadyInitialised)));
}

fn dropped_packets_go_home(eal: &Eal) {
    let pool = pool_of(eal, "home", 127);
    assert_eq!(pool.available(), 127);
    let packets: Vec<Mbuf> = (0..10).map(|_| pool.alloc().unwrap()).collect();
    assert_eq!(pool.available(), 117);
    drop(packets);
    assert_eq!(pool.available(), 127);
    assert_eq!((pool.name(), pool.config().size), ("home", 127));
}

fn bulk_is_all_or_nothing(eal: &Eal) {
    let pool = pool_of(eal, "bulk", 127);
    let mut bursts: Vec<Burst> = (0..3).map(|_| Burst::with_limit(40)).collect();
    for burst in &mut bursts {
        assert!(pool.alloc_bulk(burst));
        assert_eq!(burst.len(), 40);
    }
    let mut last = Burst::with_limit(8);
    assert!(!pool.alloc_bulk(&mut last), "7 are left");
    assert!(last.is_empty());
    assert!(pool.alloc_bulk(&mut bursts[0]), "full to its limit, it needs none");
    assert_eq!(bursts[0].clear(), 40);
    assert!(pool.alloc_bulk(&mut last));
    drop((bursts, last));
    assert_eq!(pool.available(), 127);
}

fn an_empty_pool_gives_nothing(eal: &Eal) {
    let pool = pool_of(eal, "empty", 63);
    let mut packets: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(packets.len(), 63);
    assert!(pool.alloc().is_none());
    packets.pop();
    assert!(pool.alloc().is_some());
}

fn data_stays_in_the_buffer(eal: &Eal) {
    let config = MempoolConfig { size: 63, cache: 0, data_room: 256, socket: None };
    let pool = Mempool::new(eal, "bounds", config).unwrap();
    let mut packet = pool.alloc().unwrap();
    assert_eq!((packet.len(), packet.headroom(), packet.tailroom()), (0, 128, 256));
    assert_eq!(packet.data(), []);

    assert!(packet.append(257).is_none());
    assert!(packet.append(usize::MAX).is_none());
    packet.append(4).unwrap().copy_from_slice(&[1, 2, 3, 4]);
    packet.append(252).unwrap().fill(5);
    assert_eq!((packet.len(), packet.tailroom()), (256, 0));
    assert!(packet.append(1).is_none());
    assert_eq!(packet.append(0).unwrap(), []);

    assert!(packet.prepend(129).is_none());
    assert!(packet.prepend(usize::MAX).is_none());
    packet.prepend(2).unwrap().copy_from_slice(&[8, 9]);
    assert_eq!(packet.data()[..7], [8, 9, 1, 2, 3, 4, 5]);
    packet.prepend(126).unwrap().fill(7);
    assert_eq!((packet.len(), packet.headroom()), (384, 0));
    assert!(packet.prepend(1).is_none());

    assert!(!packet.trim(385));
    assert!(packet.trim(252));
    assert!(!packet.adj(133));
    assert!(packet.adj(128));
    assert_eq!(packet.data(), [1, 2, 3, 4]);
    assert!(packet.adj(4));
    assert!(!packet.adj(1) && !packet.trim(1) && packet.trim(0));
    assert_eq!((packet.len(), packet.headroom(), packet.tailroom()), (0, 132, 252));
    assert_eq!((packet.rss_hash(), packet.stripped_vlan(), packet.packet_type()), (None, None, 0));
    packet.prefetch();
}

fn contents_are_replaced_if_they_fit(eal: &Eal) {
    let config = MempoolConfig { size: 63, cache: 0, data_room: 256, socket: None };
    let pool = Mempool::new(eal, "contents", config).unwrap();
    let mut packet = pool.alloc().unwrap();
    assert!(packet.set_contents(&[1; 256]));
    assert!(packet.adj(200));
    assert!(!packet.set_contents(&[2; 257]));
    assert!(!packet.set_contents(&vec![2; 70_000]));
    assert_eq!(packet.data(), [1; 56]);
    assert!(packet.set_contents(&[3; 3]));
    assert_eq!((packet.data(), packet.headroom()), (&[3; 3][..], 128));
    packet.data_mut()[1] = 4;
    assert_eq!(packet.data(), [3, 4, 3]);

    let none = Mempool::new(eal, "no room", MempoolConfig { data_room: 0, ..config }).unwrap();
    let mut packet = none.alloc().unwrap();
    assert!(packet.append(1).is_none() && !packet.set_contents(&[1]) && packet.set_contents(&[]));
    packet.prepend(128).unwrap().fill(1);
}

fn tags_go_in_and_come_out(eal: &Eal) {
    let pool = pool_of(eal, "tags", 2);
    let plain: Vec<u8> = (0..20).collect();
    let tagged = [&plain[..12], &[0x81, 0, 0xa0, 0x07], &plain[12..]].concat();
    let service = [&plain[..12], &[0x88, 0xa8, 0xa0, 0x07], &plain[12..]].concat();
    let mut packet = pool.alloc().unwrap();
    for stripped_by_device in [false, true] {
        assert!(packet.set_contents(&tagged));
        packet.strip_vlan(false);
        // A second look, by somebody who thinks that a device has been there, or that none has.
        packet.strip_vlan(stripped_by_device);
        assert_eq!((packet.data(), packet.stripped_vlan()), (&plain[..], stripped_by_device.then_some(0xa007)));
        assert_eq!(packet.vlan_beside(), packet.stripped_vlan());
        assert!(packet.insert_vlan(0xa007, false));
        assert_eq!((packet.data(), packet.vlan_beside()), (&tagged[..], None), "it is among the bytes");
    }
    // The device has taken one out, and there is another.
    assert!(packet.set_contents(&tagged));
    packet.set_stripped_vlan(5);
    packet.strip_vlan(true);
    assert_eq!((packet.data(), packet.stripped_vlan()), (&tagged[..], Some(5)));
    for other in [&service, &plain, &tagged[..15].to_vec(), &tagged[..13].to_vec(), &vec![]] {
        assert!(packet.set_contents(other));
        packet.strip_vlan(false);
        assert_eq!((packet.data(), packet.stripped_vlan()), (&other[..], None), "not one of a VLAN's");
    }
    for by_device in [false, true] {
        assert!(packet.set_contents(&plain[..11]) && !packet.insert_vlan(7, by_device), "no addresses");
        assert!(packet.set_contents(&plain) && packet.prepend(125).is_some());
        assert!(!packet.insert_vlan(7, by_device), "no room");
        assert_eq!((packet.len(), packet.vlan_to_insert()), (145, None));
        packet.set_stripped_vlan(5);
        assert!(packet.adj(1) && packet.insert_vlan(7, by_device));
        assert_eq!((packet.len(), packet.vlan_to_insert()), if by_device { (144, Some(7)) } else { (148, None) });
        assert_eq!((packet.vlan_beside(), packet.stripped_vlan()), (by_device.then_some(7), None));
    }
    drop(packet);
    let packets = [pool.alloc().unwrap(), pool.alloc().unwrap()];
    for packet in &packets {
        let said = (packet.stripped_vlan(), packet.vlan_to_insert(), packet.ipv4_checksum());
        assert_eq!(said, (None, None, ChecksumStatus::Unknown), "the same buffer, another packet");
    }
}

fn a_device_can_say_what_it_thinks_of_a_checksum(eal: &Eal) {
    let pool = pool_of(eal, "checksums", 1);
    let mut packet = numbered(&pool, 7);
    let before = packet.offload_flags();
    for status in [ChecksumStatus::Good, ChecksumStatus::Bad, ChecksumStatus::Good, ChecksumStatus::Unknown] {
        packet.set_ipv4_checksum(status);
        assert_eq!(packet.ipv4_checksum(), status);
    }
    assert_eq!(packet.offload_flags(), before);
}

fn annotations_travel(eal: &Eal) {
    let pool = pool_of(eal, "annotations", 1);
    let mut packet = numbered(&pool, 7);
    assert_eq!(packet.annotation(), None);
    for value in [Some(u64::MAX), Some(0), None, Some(0x0123_4567_89ab_cdef)] {
        let flags = packet.offload_flags();
        packet.set_annotation(value);
        assert_eq!((packet.annotation(), packet.is_annotated()), (value, value.is_some()));
        assert_eq!(number(&packet), 7, "the data is elsewhere");
        assert!((flags ^ packet.offload_flags()).count_ones() <= 1, "one flag of DPDK's says so");
    }
    let (mut producer, mut consumer) = Ring::pair(eal, "annotated", 7).unwrap();
    let mut burst = Burst::new();
    burst.push(packet).unwrap();
    producer.send(&mut burst);
    assert_eq!(consumer.receive(&mut burst), 1);
    assert_eq!(burst.packet(0).unwrap().annotation(), Some(0x0123_4567_89ab_cdef));
    burst.clear();
    assert_eq!(pool.alloc().unwrap().annotation(), None, "the same buffer, another packet");
}

fn an_ordinary_thread_may_drop_packets(eal: &Eal) {
    let pool = pool_of(eal, "threads", 127);
    let packet = numbered(&pool, 7);
    let mut burst = Burst::new();
    assert!(pool.alloc_bulk(&mut burst));
    thread::spawn(move || {
        assert_eq!(number(&packet), 7);
        drop((packet, burst));
    })
    .join()
    .unwrap();
    assert_eq!(pool.available(), 127);
}

fn many_threads_may_share_a_pool(eal: &Eal) {
    let pool = pool_of(eal, "shared", 511);
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = pool.clone();
            scope.spawn(move || {
                let mut kept = Vec::new();
                for round in 0..2000_u32 {
                    kept.extend(pool.alloc().map(|mut packet| {
                        assert!(packet.set_contents(&(thread << 16 | round).to_be_bytes()));
                        (thread << 16 | round, packet)
                    }));
                    if kept.len() == 60 {
                        for (number, packet) in kept.drain(..) {
                            assert_eq!(packet.data(), number.to_be_bytes(), "no one else has this packet");
                        }
                    }
                }
            });
        }
    });
    assert_eq!(pool.available(), 511);
}

fn a_drain_that_stops_early_loses_nothing(eal: &Eal) {
    let pool = pool_of(eal, "drain", 127);
    let mut burst = Burst::new();
    let fill = |burst: &mut Burst| (0..5).for_each(|n| burst.push(numbered(&pool, n)).unwrap());
    fill(&mut burst);
    burst.take(1);
    let two: Vec<u32> = burst.drain().take(2).map(|packet| number(&packet)).collect();
    assert_eq!((two, burst.len(), pool.available()), (vec![0, 2], 0, 127));

    fill(&mut burst);
    let mut forgotten = burst.drain();
    drop(forgotten.next());
    std::mem::forget(forgotten);
    burst.push(numbered(&pool, 9)).unwrap();
    assert_eq!(burst.iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 4, 9]);
    burst.reset();
    assert_eq!((burst.len(), pool.available()), (0, 127));
}

fn packets_of_several_pools_are_cleared_together(eal: &Eal) {
    let pools = [pool_of(eal, "one", 127), pool_of(eal, "two", 127)];
    let mut burst = Burst::new();
    for pool in [0, 0, 1, 0, 1, 1, 1, 0] {
        burst.push(numbered(&pools[pool], 0)).unwrap();
    }
    burst.take(3);
    assert_eq!(burst.clear(), 7);
    assert_eq!(burst.clear(), 0);
    assert_eq!(pools.map(|pool| pool.available()), [127, 127]);
}

fn a_loop_over_slots_sees_those_that_hold_packets(eal: &Eal) {
    let pool = pool_of(eal, "slots", 127);
    for (len, taken, slots, expected) in [
        (0, &[][..], u64::MAX, &[][..]),
        (1, &[], u64::MAX, &[0]),
        (5, &[], 0b1_1010, &[1, 3, 4]),
        (5, &[], 0, &[]),
        (5, &[1, 4], 0b1_1010, &[3]),
        (5, &[1, 4], u64::MAX, &[0, 2, 3]),
        (5, &[0, 1, 2, 3, 4], u64::MAX, &[]),
        (64, &[], 1 << 63 | 1, &[0, 63]),
        (64, &[63], 1 << 63 | 1, &[0]),
    ] {
        let mut burst = Burst::with_limit(Burst::CAPACITY);
        (0..len).for_each(|index| burst.push(numbered(&pool, index)).unwrap());
        for index in taken {
            assert!(burst.take(*index).is_some());
        }
        burst.prefetch(slots);
        let mut seen = Vec::new();
        for (index, packet) in burst.packets_mut(slots) {
            assert_eq!(number(packet) as usize, index);
            packet.data_mut()[0] = 0xff;
            seen.push(index);
        }
        assert_eq!(seen, expected, "{len} {taken:?} {slots:b}");
        assert!(burst.packets_mut(slots).all(|(_, packet)| packet.data()[0] == 0xff));
        burst.compact();
        let left = burst.len();
        assert_eq!(burst.packets_mut(u64::MAX).count(), left);
    }
    assert_eq!(pool.available(), 127);
}

fn names_are_free_again(eal: &Eal) {
    let first = pool_of(eal, "name", 127);
    let again = Mempool::new(eal, "name", first.config());
    assert!(matches!(again, Err(MempoolError::Exists(name)) if name == "name"));
    let clone = first.clone();
    drop(first);
    assert!(matches!(Mempool::new(eal, "name", clone.config()), Err(MempoolError::Exists(_))));
    drop(clone);
    pool_of(eal, "name", 127);
}

fn a_packet_may_outlive_its_pool(eal: &Eal) {
    let pool = pool_of(eal, "outlived", 127);
    let config = pool.config();
    let packet = numbered(&pool, 5);
    drop(pool);
    assert!(matches!(Mempool::new(eal, "outlived", config), Err(MempoolError::Exists(_))), "a packet is out");
    assert_eq!(number(&packet), 5);
    thread::spawn(move || drop(packet)).join().unwrap();
    pool_of(eal, "outlived", 127);
}

fn impossible_pools_are_refused(eal: &Eal) {
    let config = MempoolConfig { size: 63, cache: 0, ..MempoolConfig::default() };
    for name in ["", "a name of more than 25 bytes", "zero\0byte"] {
        assert!(matches!(Mempool::new(eal, name, config), Err(MempoolError::Name(_))), "{name:?}");
    }
    // From 2^31 on DPDK's own sizes wrap to zero.
    for size in [1 << 24, (1 << 31) - 1, 1 << 31, u32::MAX] {
        let error = Mempool::new(eal, "large", MempoolConfig { size, ..config }).unwrap_err();
        assert!(matches!(error, MempoolError::NoMemory { .. }), "{error}");
    }
    for config in [
        MempoolConfig { size: 0, ..config },
        MempoolConfig { cache: 513, size: 1023, ..config },
        MempoolConfig { cache: 60, ..config },
        MempoolConfig { cache: u32::MAX, ..config },
        MempoolConfig { data_room: 65_408, ..config },
    ] {
        let error = Mempool::new(eal, "odd", config).unwrap_err();
        assert!(matches!(error, MempoolError::Refused { .. }), "{config:?}: {error}");
    }
}

fn impossible_rings_are_refused(eal: &Eal) {
    for name in ["", "a ring's name of more than 25 bytes", "zero\0byte"] {
        assert!(matches!(Ring::pair(eal, name, 8), Err(RingError::Name(_))), "{name:?}");
    }
    // From 2^31 on DPDK would make a ring without room and let packets be written past it.
    for capacity in [1 << 30, (1 << 31) - 1, 1 << 31, u32::MAX] {
        assert!(matches!(Ring::pair(eal, "large", capacity), Err(RingError::Refused { .. })), "{capacity}");
    }
    // More than DPDK has memory zones for.
    let rings: Vec<_> = (0..3000).map(|_| Ring::pair(eal, "ring", 8).unwrap()).collect();
    assert_eq!(rings.len(), 3000);
    drop(rings);
}

fn a_ring_frees_what_is_left(eal: &Eal) {
    let pool = pool_of(eal, "ring's", 127);
    let (mut producer, mut consumer) = Ring::pair(eal, "left", 5).unwrap();
    let mut burst = Burst::new();
    (0..7).for_each(|n| burst.push(numbered(&pool, n)).unwrap());
    burst.take(0);
    assert_eq!(producer.send(&mut burst), 5, "a ring for 5 takes 5");
    assert_eq!(burst.iter().map(number).collect::<Vec<_>>(), [6]);
    assert_eq!(producer.send(&mut burst), 0);
    let mut out = Burst::with_limit(2);
    assert_eq!(consumer.receive(&mut out), 2);
    assert_eq!(out.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(consumer.receive(&mut out), 0, "full to its limit");
    drop((burst, out, producer));
    assert_eq!(pool.available(), 124);
    drop(consumer);
    assert_eq!(pool.available(), 127);
    Ring::pair(eal, "left", 5).unwrap();
}

fn port_ids_are_plain(eal: &Eal) {
    let ports = eal.ports();
    assert_eq!(thread::spawn(move || ports.count()).join().unwrap(), 0);
    assert_eq!(eal.port_by_name("net_null0"), None);
}
