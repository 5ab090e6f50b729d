//! Ports, queues and counters, over devices of software.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{number, numbered, pool, pool_of};
use dpdk_rs::{
    Burst, Eal, Mempool, MempoolConfig, Offloads, Port, PortBuilder, PortError, PortId, PortInfo, QueuePair,
};
use dpdk_sys as sys;
use std::ptr;

#[test]
fn ports_and_queues() {
    common::keep_log();
    // net_ring gives back what is sent; net_null drops it and makes packets of its own.
    let eal = common::eal(&["net_ring0", "net_ring1", "net_null0", "net_null1,size=9000"]);
    common::run(
        &eal,
        &[
            ("ports have ids, names and abilities", ports_have_ids_names_and_abilities),
            ("what is sent into a loop comes back stamped and in order", what_is_sent_comes_back),
            ("net_null makes packets and takes all", net_null_makes_packets_and_takes_all),
            ("refused packets stay with the caller", refused_packets_stay_with_the_caller),
            ("a queue handle may be used by any thread, one at a time", a_queue_may_be_used_by_any_thread),
            ("a port has one owner", a_port_has_one_owner),
            ("a port stops only with all its queues", a_port_stops_only_with_all_its_queues),
            ("queues are told apart by the start that made them", queues_are_told_apart),
            ("queues swapped between ports keep both up", swapped_queues_keep_both_up),
            ("a port that is dropped stays up for its queues", a_dropped_port_stays_up_for_its_queues),
            ("a stopped port starts again, with another pool", a_stopped_port_starts_again),
            ("what the device cannot do is said", what_the_device_cannot_do_is_said),
            ("offloads that break the rules are not to be had", unsound_offloads_are_refused),
            ("packets that an Mbuf cannot be are freed and counted", unsound_arrivals_are_counted),
            ("packets with outside data go home among those of several pools", outside_data_goes_home),
            ("a packet that claims more than its buffer holds is freed", oversized_arrivals_are_counted),
            ("link and counters are there", link_and_counters_are_there),
            ("a device may keep packets of another port's pool", a_device_may_keep_packets_of_another_pool),
        ],
    );
    drop(eal);
    assert_eq!(
        common::logged(),
        ["DPDK is left running: 3 of the 127 packets of the mempool \"kept\" are still in use"],
        "net_ring does not give back what it holds"
    );
}

fn start(eal: &Eal, name: &str, pool: &Mempool, queues: u16) -> (Port, Vec<QueuePair>) {
    let port = eal.port_by_name(name).unwrap();
    PortBuilder::new(eal, port).pool(pool).queues(queues).start().unwrap()
}

/// Why a port does not start when it is asked for like this.
fn refusal(eal: &Eal, name: &str, ask: impl FnOnce(PortBuilder<'_>) -> PortBuilder<'_>) -> PortError {
    let port = eal.port_by_name(name).unwrap();
    ask(PortBuilder::new(eal, port)).start().unwrap_err()
}

fn ports_have_ids_names_and_abilities(eal: &Eal) {
    let names: Vec<String> = eal.ports().map(|port| PortInfo::new(eal, port).unwrap().name).collect();
    assert_eq!(names, ["net_ring0", "net_ring1", "net_null0", "net_null1"]);
    assert_eq!(eal.port_by_name("net_null0"), Some(PortId(2)));
    assert_eq!(eal.port_by_name("net_tap0"), None);
    let info = PortInfo::new(eal, PortId(2)).unwrap();
    assert_eq!((info.id, info.driver.as_str()), (PortId(2), "net_null"));
    assert!(info.max_rx_queues >= 1 && info.max_tx_queues >= 1 && info.max_mtu >= 1500, "{info:?}");
    assert_eq!(info.kernel_interface, None);
    for absent in [4, 31, 32, 33, u16::MAX] {
        assert!(PortInfo::new(eal, PortId(absent)).is_err(), "{absent}");
    }
}

fn what_is_sent_comes_back(eal: &Eal) {
    let pool = pool(eal, "loop");
    let (port, mut queues) = start(eal, "net_ring1", &pool, 1);
    assert_eq!((port.name(), port.id(), queues[0].port()), ("net_ring1", PortId(1), PortId(1)));
    let QueuePair { rx, tx } = &mut queues[0];
    let mut burst = Burst::new();
    (0..20).for_each(|n| burst.push(numbered(&pool, n)).unwrap());
    burst.take(3);
    assert_eq!(tx.send(&mut burst), 19);
    assert!(burst.is_empty());
    assert_eq!(tx.send(&mut burst), 0);

    let mut back = Burst::with_limit(16);
    assert_eq!(rx.receive(&mut back), 16);
    assert_eq!(rx.receive(&mut back), 0, "full to its limit");
    assert!(back.iter().all(|packet| packet.port() == PortId(1)));
    assert!(back.iter().map(number).eq((0..17).filter(|n| *n != 3)));
    back.take(0);
    assert_eq!(back.drain().count(), 15);
    assert_eq!(rx.receive(&mut back), 3);
    assert_eq!(rx.receive(&mut back), 0);
    assert_eq!((rx.refused(), back.clear()), (0, 3));
    assert!(tx.send_one(numbered(&pool, 99)).is_ok());
    assert_eq!(rx.receive(&mut back), 1);
    assert_eq!(number(back.packet(0).unwrap()), 99);
    back.clear();
    assert_eq!(pool.available(), 1023);
    port.stop(queues).unwrap();
}

fn net_null_makes_packets_and_takes_all(eal: &Eal) {
    let pool = pool(eal, "null");
    let (port, mut queues) = start(eal, "net_null0", &pool, 1);
    let mut burst = Burst::with_limit(64);
    for _ in 0..1000 {
        assert_eq!(queues[0].rx.receive(&mut burst), 64);
        assert!(burst.iter().all(|packet| packet.len() == 64 && packet.port() == port.id()));
        assert_eq!(queues[0].tx.send(&mut burst), 64);
    }
    let stats = port.stats().unwrap();
    assert!(stats.rx_packets >= 64_000 && stats.tx_packets >= 64_000, "{stats:?}");
    port.stop(queues).unwrap();
    assert_eq!(pool.available(), 1023);

    let small = pool_of(eal, "small", 127);
    let (_port, mut queues) = start(eal, "net_null0", &small, 1);
    let all: Vec<_> = std::iter::from_fn(|| small.alloc()).collect();
    assert_eq!(queues[0].rx.receive(&mut burst), 0, "its pool is empty");
    drop(all);
    assert!(queues[0].rx.receive(&mut burst) > 0);
}

fn refused_packets_stay_with_the_caller(eal: &Eal) {
    let pool = pool_of(eal, "refused", 2047);
    let (port, mut queues) = start(eal, "net_ring0", &pool, 1);
    let queue = &mut queues[0];
    let mut burst = Burst::with_limit(64);
    let mut sent: u32 = 0;
    let left = loop {
        (0..64).for_each(|n| burst.push(numbered(&pool, sent + n)).unwrap());
        match queue.tx.send(&mut burst) {
            64 => sent += 64,
            some => {
                sent += u32::try_from(some).unwrap();
                break burst.iter().map(number).collect::<Vec<_>>();
            }
        }
    };
    assert!((sent..).zip(&left).all(|(expected, left)| expected == *left), "the rest, in order, at the beginning");
    assert_eq!(burst.len(), left.len());
    let refused = queue.tx.send_one(numbered(&pool, 77)).unwrap_err();
    assert_eq!(number(&refused), 77);
    drop(refused);
    burst.clear();
    assert_eq!(pool.available(), 2047 - sent);
    let mut next = 0;
    while queue.rx.receive(&mut burst) > 0 {
        for packet in burst.drain() {
            assert_eq!(number(&packet), next);
            next += 1;
        }
    }
    assert_eq!((next, pool.available()), (sent, 2047));
    port.stop(queues).unwrap();
}

fn a_queue_may_be_used_by_any_thread(eal: &Eal) {
    let pool = pool(eal, "moved");
    let (port, mut queues) = start(eal, "net_ring0", &pool, 1);
    for round in 0..4 {
        let (one, pool) = (queues.pop().unwrap(), pool.clone());
        queues.extend(
            std::thread::spawn(move || {
                let mut one = one;
                one.tx.send_one(numbered(&pool, round)).unwrap();
                let mut burst = Burst::new();
                assert_eq!(one.rx.receive(&mut burst), 1);
                one
            })
            .join(),
        );
    }
    // Control calls from one thread, the EAL on another.
    let id = port.id();
    let port = std::thread::scope(|scope| {
        let control = scope.spawn(move || {
            (0..200).for_each(|_| {
                port.stats().unwrap();
                port.link().unwrap();
            });
            port
        });
        (0..200).for_each(|_| assert_eq!(PortInfo::new(eal, id).unwrap().name, "net_ring0"));
        control.join().unwrap()
    });
    std::thread::spawn(move || port.stop(queues).unwrap()).join().unwrap();
    assert_eq!(pool.available(), 1023);
}

fn a_port_has_one_owner(eal: &Eal) {
    let pool = pool(eal, "owner");
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    let error = refusal(eal, "net_ring0", |builder| builder.pool(&pool));
    assert_eq!(error.to_string(), "port net_ring0 is in use already");
    assert!(matches!(error, PortError::InUse { .. }));
    drop(port);
    assert!(matches!(refusal(eal, "net_ring0", |builder| builder.pool(&pool)), PortError::InUse { .. }), "its queues");
    drop(queues);
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    drop(queues);
    assert!(matches!(refusal(eal, "net_ring0", |builder| builder.pool(&pool)), PortError::InUse { .. }), "its port");
    port.stop(Vec::new()).unwrap_err();
    start(eal, "net_ring0", &pool, 1);
}

fn a_port_stops_only_with_all_its_queues(eal: &Eal) {
    let pool = pool(eal, "stop");
    let (port, mut queues) = start(eal, "net_ring0", &pool, 2);
    let mut last = queues.pop().unwrap();
    let error = port.stop(queues).unwrap_err();
    assert_eq!(error.to_string(), "port net_ring0 cannot stop: 1 of its 2 queue pairs were not given back");
    last.tx.send_one(numbered(&pool, 1)).unwrap();
    let mut burst = Burst::new();
    assert_eq!(last.rx.receive(&mut burst), 1, "the port is still up");
    drop(last);
    let (port, queues) = start(eal, "net_ring0", &pool, 2);
    port.stop(queues).unwrap();
}

fn queues_are_told_apart(eal: &Eal) {
    let pool = pool(eal, "apart");
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    let (other, others) = start(eal, "net_ring1", &pool, 1);
    assert!(matches!(port.stop(others), Err(PortError::QueuesOut { missing: 1, queues: 1, .. })));
    drop((other, queues));

    // Halves of pairs changed places within a port: all there.
    let (port, mut queues) = start(eal, "net_ring0", &pool, 2);
    let [first, second] = &mut queues[..] else { panic!("two were asked for") };
    std::mem::swap(&mut first.rx, &mut second.rx);
    port.stop(queues).unwrap();
}

fn swapped_queues_keep_both_up(eal: &Eal) {
    let pool = pool(eal, "swapped");
    let (one, mut ones) = start(eal, "net_ring0", &pool, 1);
    let (two, mut twos) = start(eal, "net_ring1", &pool, 1);
    std::mem::swap(&mut ones[0].rx, &mut twos[0].rx);
    assert!(matches!(one.stop(ones), Err(PortError::QueuesOut { .. })));
    let in_use = refusal(eal, "net_ring0", |builder| builder.pool(&pool));
    assert!(matches!(in_use, PortError::InUse { .. }), "its receive queue is with the other: {in_use}");
    let mut burst = Burst::new();
    assert_eq!(twos[0].rx.receive(&mut burst), 0);
    twos[0].tx.send_one(numbered(&pool, 1)).unwrap();
    assert!(matches!(two.stop(twos), Err(PortError::QueuesOut { .. })));
    let (one, ones) = start(eal, "net_ring0", &pool, 1);
    let (two, mut twos) = start(eal, "net_ring1", &pool, 1);
    assert_eq!(twos[0].rx.receive(&mut burst), 1);
    one.stop(ones).unwrap();
    two.stop(twos).unwrap();
}

fn a_dropped_port_stays_up_for_its_queues(eal: &Eal) {
    let pool = pool(eal, "dropped");
    let (port, mut queues) = start(eal, "net_ring0", &pool, 1);
    drop(port);
    let outlived = std::thread::spawn(move || {
        queues[0].tx.send_one(numbered(&pool, 3)).unwrap();
        let mut burst = Burst::new();
        queues[0].rx.receive(&mut burst)
        // The last queue goes here, and stops the port from this thread.
    });
    assert_eq!(outlived.join().unwrap(), 1);
}

fn a_stopped_port_starts_again(eal: &Eal) {
    for queues in [1, 3, 2] {
        let pool = pool_of(eal, "again", 255);
        let (port, mut pairs) = start(eal, "net_ring0", &pool, queues);
        assert_eq!(pairs.len(), usize::from(queues));
        let mut burst = Burst::new();
        for (number, pair) in (0..).zip(&mut pairs) {
            pair.tx.send_one(numbered(&pool, number)).unwrap();
        }
        for (expected, pair) in (0..).zip(&mut pairs) {
            assert_eq!(pair.rx.receive(&mut burst), 1);
            assert!(burst.drain().map(|packet| number(&packet)).eq([expected]), "each queue has its own packets");
        }
        port.stop(pairs).unwrap();
    }
}

fn what_the_device_cannot_do_is_said(eal: &Eal) {
    let pool = pool(eal, "cannot");
    let info = PortInfo::new(eal, eal.port_by_name("net_ring0").unwrap()).unwrap();
    let none = PortBuilder::new(eal, PortId(9)).pool(&pool).start().unwrap_err();
    assert_eq!(none.to_string(), "there is no port 9; there are: net_ring0, net_ring1, net_null0, net_null1");
    assert!(PortBuilder::new(eal, PortId(u16::MAX)).pool(&pool).start().is_err());
    assert_eq!(
        refusal(eal, "net_ring0", |builder| builder).to_string(),
        "port net_ring0 was given no mempool to receive into"
    );
    assert_eq!(
        refusal(eal, "net_ring0", |builder| builder.pool(&pool).queues(0)).to_string(),
        "port net_ring0 was asked to start without queues"
    );
    assert_eq!(
        refusal(eal, "net_ring0", |builder| builder.pool(&pool).queues(1000)).to_string(),
        format!(
            "port net_ring0 (net_ring) has {} receive queue(s), 1000 are needed: one for each worker lcore",
            info.max_rx_queues
        )
    );
    let mtu = refusal(eal, "net_ring0", |builder| builder.pool(&pool).mtu(20));
    assert!(matches!(mtu, PortError::Mtu { mtu: 20, min, .. } if min == info.min_mtu), "{mtu}");
    let vlan = Offloads::RX_VLAN_STRIP | Offloads::RX_RSS_HASH;
    assert_eq!(info.rx_offloads & vlan, Offloads::NONE);
    assert_eq!(
        refusal(eal, "net_ring0", |builder| builder.pool(&pool).rx_offloads(vlan)).to_string(),
        "port net_ring0 (net_ring) has no receive offload VLAN_STRIP, RSS_HASH; it has: SCATTER"
    );
    assert_eq!(
        refusal(eal, "net_null0", |builder| builder.pool(&pool).tx_offloads(Offloads::TX_VLAN_INSERT)).to_string(),
        "port net_null0 (net_null) has no transmit offload VLAN_INSERT; it has: none"
    );

    let small = MempoolConfig { size: 63, cache: 0, data_room: 1525, socket: None };
    let small = Mempool::new(eal, "small room", small).unwrap();
    assert_eq!(
        refusal(eal, "net_ring0", |builder| builder.pool(&small)).to_string(),
        "an MTU of 1500 needs packets of 1526 bytes, but those of the mempool \"small room\" hold 1525: port net_ring0"
    );
    assert!(matches!(
        refusal(eal, "net_ring0", |builder| builder.pool(&pool).mtu(9000)),
        PortError::DataRoom { mtu: 9000, need: 9026, have: 2048, .. }
    ));
    // None of these left the port claimed.
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    port.stop(queues).unwrap();
}

fn unsound_offloads_are_refused(eal: &Eal) {
    let pool = pool(eal, "unsound");
    for rx in [sys::RTE_ETH_RX_OFFLOAD_SCATTER, sys::RTE_ETH_RX_OFFLOAD_TCP_LRO, sys::RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT] {
        let error = refusal(eal, "net_ring0", |builder| builder.pool(&pool).rx_offloads(Offloads(rx)));
        assert!(matches!(error, PortError::UnsoundOffloads { kind: "receive", .. }), "{error}");
    }
    for tx in [sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE, sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS] {
        let error = refusal(eal, "net_null0", |builder| builder.pool(&pool).tx_offloads(Offloads(tx)));
        assert!(matches!(error, PortError::UnsoundOffloads { kind: "transmit", .. }), "{error}");
    }
}

/// A port that receives what is put into a ring, and the ring.
fn injector(name: &std::ffi::CStr) -> (PortId, *mut sys::rte_ring) {
    // SAFETY: the EAL is up (callers hold it), the name is NUL-terminated.
    let ring = unsafe { sys::rte_ring_create(name.as_ptr(), 64, sys::SOCKET_ID_ANY, 0) };
    assert!(!ring.is_null());
    let mut rings = [ring];
    // SAFETY: one valid ring each way; it lives as long as the process.
    let port = unsafe { sys::rte_eth_from_rings(name.as_ptr(), rings.as_mut_ptr(), 1, rings.as_mut_ptr(), 1, 0) };
    (PortId(u16::try_from(port).unwrap()), ring)
}

fn unsound_arrivals_are_counted(eal: &Eal) {
    // Its packets are made by hand, so the pool is too.
    // SAFETY: the EAL is up, the name is NUL-terminated.
    let raw = unsafe { sys::rte_pktmbuf_pool_create(c"raw".as_ptr(), 63, 0, 0, 256, sys::SOCKET_ID_ANY) };
    assert!(!raw.is_null());
    let alloc = || {
        // SAFETY: the pool is never freed.
        let packet = unsafe { sys::shim_mbuf_alloc(raw) };
        assert!(!packet.is_null());
        packet
    };
    let (id, ring) = injector(c"inject");
    let pool = pool(eal, "arrivals");
    let (port, mut queues) = PortBuilder::new(eal, id).pool(&pool).start().unwrap();

    let (head, tail) = (alloc(), alloc());
    // SAFETY: both are ours alone, and C's own function chains them.
    assert_eq!(unsafe { chain(head, tail) }, 0);
    let shared = alloc();
    // SAFETY: ours alone; the reference that it adds is dropped below.
    unsafe { set_references(shared, 2) };
    let mut row = [alloc(), head, alloc(), shared, alloc()];
    // SAFETY: five pointers to packets, which the ring owns now; nobody else uses the ring.
    assert_eq!(unsafe { sys::shim_ring_enqueue_burst(ring, row.as_mut_ptr(), 5) }, 5);

    let rx = &mut queues[0].rx;
    let mut burst = Burst::new();
    (0..3).for_each(|n| burst.push(numbered(&pool, n)).unwrap());
    burst.take(1);
    assert_eq!(rx.receive(&mut burst), 3, "two were refused");
    assert_eq!(rx.refused(), 2);
    assert_eq!(burst.len(), 6);
    assert_eq!(burst.packet(0).map(number), Some(0));
    assert!(burst.packet(1).is_none(), "what was there keeps its slot");
    assert_eq!(burst.packet(2).map(number), Some(2));
    assert_eq!(burst.clear(), 5);
    // SAFETY: the reference of before, the last one now.
    unsafe { sys::shim_mbuf_free(shared) };
    // SAFETY: the pool is never freed.
    assert_eq!(unsafe { sys::rte_mempool_avail_count(raw) }, 63, "all segments are home");
    port.stop(queues).unwrap();
    assert_eq!(pool.available(), 1023);
}

/// rte_pktmbuf_chain, which is inline: offsets from C.
///
/// # Safety
///
/// Two packets of one segment that the caller owns.
unsafe fn chain(head: *mut sys::rte_mbuf, tail: *mut sys::rte_mbuf) -> i32 {
    let next = head.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_next as usize);
    let segments = head.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_nb_segs as usize);
    // SAFETY: a member of the caller's packet, by C's own offset.
    unsafe { next.cast::<*mut sys::rte_mbuf>().write(tail) };
    // SAFETY: as above.
    unsafe { segments.cast::<u16>().write(2) };
    0
}

/// # Safety
///
/// A packet that the caller owns.
unsafe fn set_references(packet: *mut sys::rte_mbuf, references: u16) {
    let field = packet.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_refcnt as usize);
    // SAFETY: a member of the caller's packet, by C's own offset.
    unsafe { field.cast::<u16>().write(references) };
}

fn outside_data_goes_home(eal: &Eal) {
    unsafe extern "C" fn keep(_: *mut std::ffi::c_void, _: *mut std::ffi::c_void) {}

    // SAFETY: the EAL is up, the name is NUL-terminated.
    let raw = unsafe { sys::rte_pktmbuf_pool_create(c"outside".as_ptr(), 63, 0, 0, 256, sys::SOCKET_ID_ANY) };
    assert!(!raw.is_null());
    // SAFETY: zero is a value of plain C data.
    let mut shared: sys::rte_mbuf_ext_shared_info = unsafe { std::mem::zeroed() };
    shared.free_cb = Some(keep);
    let shared = Box::leak(Box::new(shared));
    let references = ptr::from_mut(&mut shared.refcnt).cast::<u16>();
    // SAFETY: ours; a count of 16 bits in every version.
    unsafe { references.write(3) };
    let (id, ring) = injector(c"outside");
    let pools = [pool_of(eal, "first", 63), pool_of(eal, "second", 63)];
    let (port, mut queues) = PortBuilder::new(eal, id).pool(&pools[0]).start().unwrap();

    let mut row = [ptr::null_mut(); 3];
    for slot in &mut row {
        // SAFETY: the pool is never freed.
        let packet = unsafe { sys::shim_mbuf_alloc(raw) };
        let flags = packet.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_ol_flags as usize);
        // SAFETY: a member of our packet, by C's own offset.
        unsafe { flags.cast::<u64>().write(sys::RTE_MBUF_F_EXTERNAL) };
        let info = packet.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_shinfo as usize);
        // SAFETY: as above. The buffer that it calls outside is its own.
        unsafe { info.cast::<*mut sys::rte_mbuf_ext_shared_info>().write(shared) };
        *slot = packet;
    }
    // SAFETY: three pointers to packets, which the ring owns now; nobody else uses the ring.
    assert_eq!(unsafe { sys::shim_ring_enqueue_burst(ring, row.as_mut_ptr(), 3) }, 3);
    let mut burst = Burst::new();
    assert_eq!((queues[0].rx.receive(&mut burst), queues[0].rx.refused()), (3, 0));
    for pool in [0, 1, 0, 0, 0, 1, 1] {
        burst.push(numbered(&pools[pool], 0)).unwrap();
    }
    assert_eq!(burst.clear(), 10);
    assert_eq!(pools.map(|pool| pool.available()), [63, 63], "each in its own pool");
    // SAFETY: the pool is never freed.
    assert_eq!(unsafe { sys::rte_mempool_avail_count(raw) }, 63);
    port.stop(queues).unwrap();
}

fn oversized_arrivals_are_counted(eal: &Eal) {
    let pool = pool(eal, "oversized");
    let (port, mut queues) = start(eal, "net_null1", &pool, 1);
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx.receive(&mut burst), 0, "9000 bytes are not in a buffer of 2048");
    assert_eq!((queues[0].rx.refused(), burst.len(), pool.available()), (32, 0, 1023));
    port.stop(queues).unwrap();
}

fn link_and_counters_are_there(eal: &Eal) {
    let pool = pool(eal, "counters");
    let (port, mut queues) = start(eal, "net_ring0", &pool, 1);
    let before = port.stats().unwrap();
    let mut burst = Burst::new();
    for n in 0..10 {
        queues[0].tx.send_one(numbered(&pool, n)).unwrap();
    }
    assert_eq!(queues[0].rx.receive(&mut burst), 10);
    let after = port.stats().unwrap();
    assert_eq!((after.rx_packets - before.rx_packets, after.tx_packets - before.tx_packets), (10, 10));
    assert_eq!((after.rx_missed, after.rx_errors, after.rx_no_mbuf), (0, 0, 0));
    let xstats = port.xstats().unwrap();
    let good = xstats.iter().find(|stat| stat.name == "rx_good_packets").expect("every device has it");
    assert_eq!(good.value, after.rx_packets);
    let link = port.link().unwrap();
    assert!(link.up);
    assert_eq!(link.to_string().split(',').next(), Some("up"));
    assert_eq!(port.mtu().unwrap(), 1500);
    assert_eq!(port.info().unwrap().name, "net_ring0");
    port.stop(queues).unwrap();
}

fn a_device_may_keep_packets_of_another_pool(eal: &Eal) {
    let kept = pool_of(eal, "kept", 127);
    let own = pool(eal, "own");
    let (port, mut queues) = start(eal, "net_ring1", &own, 1);
    (0..3).for_each(|n| queues[0].tx.send_one(numbered(&kept, n)).unwrap());
    port.stop(queues).unwrap();
    drop(kept);
    let config = MempoolConfig { size: 127, cache: 0, ..MempoolConfig::default() };
    Mempool::new(eal, "kept", config).expect_err("three of its packets are in the device's ring");
}
