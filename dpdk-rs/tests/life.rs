//! A port that is taken down and brought up again, whose device goes and comes back, and that says so.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{number, numbered, pool, pool_of};
use dpdk_rs::{Burst, Eal, Mempool, Port, PortBuilder, PortError, PortEvents, PortId, PortInfo, QueuePair};
use dpdk_sys as sys;
use std::ffi::{c_int, c_void};

#[test]
fn lives_of_ports() {
    common::keep_log();
    let two_ports = "net_ring1,nodeaction=one:0:CREATE,nodeaction=two:0:CREATE";
    let eal = common::eal(&["net_ring0", "net_null0,size=100", "net_null1", "net_null2", two_ports]);
    common::run(
        &eal,
        &[
            ("a port comes up again by its settings, with new queues", a_port_comes_up_again),
            ("a port is taken down with all its queues", a_port_is_taken_down_with_all_its_queues),
            ("packets in a device's queues are home or still in the device", packets_are_not_lost),
            ("a port that is down stops, and its device is free", a_port_that_is_down_stops),
            ("a device that was let go is found again, with its arguments", a_device_is_found_again),
            ("a device that comes back may be another port", a_device_may_be_another_port),
            ("devices may come back in another order", devices_may_come_back_in_another_order),
            ("a device with another port is not let go", a_device_with_another_port_is_not_let_go),
            ("a device is told of its VLANs at each start", a_device_is_told_of_its_vlans_at_each_start),
            ("what a device says is told once, and nothing of an earlier life", what_a_device_says_is_told_once),
        ],
    );
    drop(eal);
    assert_eq!(common::logged(), [""; 0]);
}

fn start(eal: &Eal, name: &str, pool: &Mempool, queues: u16) -> (Port, Vec<QueuePair>) {
    let port = eal.port_by_name(name).unwrap();
    PortBuilder::new(eal, port).pool(pool).queues(queues).mtu(1400).descriptors(256, 512).start().unwrap()
}

/// Each queue gives back what is sent into it.
fn echo(pool: &Mempool, queues: &mut [QueuePair]) {
    let mut burst = Burst::new();
    for (n, pair) in (0..).zip(queues.iter_mut()) {
        pair.tx.send_one(numbered(pool, n)).unwrap();
    }
    for (n, pair) in (0..).zip(queues) {
        assert_eq!(pair.rx.receive(&mut burst), 1);
        assert!(burst.drain().map(|packet| number(&packet)).eq([n]));
    }
}

fn a_port_comes_up_again(eal: &Eal) {
    let pool = pool(eal, "again");
    let (port, mut queues) = start(eal, "net_ring0", &pool, 3);
    for _ in 0..5 {
        assert!(port.is_up());
        echo(&pool, &mut queues);
        port.take_down(queues).unwrap();
        assert!(!port.is_up());
        port.take_down(Vec::new()).unwrap();
        assert!(matches!(PortBuilder::new(eal, port.id()).pool(&pool).start().unwrap_err(), PortError::InUse { .. }));
        queues = port.bring_up().unwrap();
        assert_eq!((queues.len(), port.mtu().unwrap()), (3, 1400));
        assert_eq!(port.bring_up().unwrap_err().to_string(), "port net_ring0 is up");
        assert_eq!(port.detach().unwrap_err().to_string(), "port net_ring0 is up");
    }
    // By a control thread, which the EAL does not know.
    port.take_down(queues).unwrap();
    let (port, mut queues) = std::thread::spawn(move || {
        let queues = port.bring_up().unwrap();
        (port, queues)
    })
    .join()
    .unwrap();
    echo(&pool, &mut queues);
    port.stop(queues).unwrap();
    assert_eq!(pool.available(), 1023);
}

fn a_port_is_taken_down_with_all_its_queues(eal: &Eal) {
    let pool = pool(eal, "all");
    let (port, mut queues) = start(eal, "net_ring0", &pool, 2);
    let last = queues.pop().unwrap();
    let error = port.take_down(queues).unwrap_err();
    assert_eq!(error.to_string(), "port net_ring0 cannot stop: 1 of its 2 queue pairs were not given back");
    assert!(port.is_up());
    drop((port, last));

    // Queues of an earlier start are not those of this one.
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    let (other, others) = start(eal, "net_null0", &pool, 1);
    assert!(matches!(port.take_down(others), Err(PortError::QueuesOut { missing: 1, queues: 1, .. })));
    drop((other, port, queues));
    start(eal, "net_ring0", &pool, 1);
}

fn packets_are_not_lost(eal: &Eal) {
    let pool = pool_of(eal, "kept", 255);
    let (port, mut queues) = start(eal, "net_ring0", &pool, 1);
    (0..7).for_each(|n| queues[0].tx.send_one(numbered(&pool, n)).unwrap());
    port.take_down(queues).unwrap();
    // net_ring keeps what was sent into it.
    let mut queues = port.bring_up().unwrap();
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx.receive(&mut burst), 7);
    assert!(burst.drain().map(|packet| number(&packet)).eq(0..7));
    port.stop(queues).unwrap();
    assert_eq!(pool.available(), 255);
}

fn a_port_that_is_down_stops(eal: &Eal) {
    let pool = pool(eal, "down");
    for stops in [true, false] {
        let (port, queues) = start(eal, "net_ring0", &pool, 1);
        port.take_down(queues).unwrap();
        if stops { port.stop(Vec::new()).unwrap() } else { drop(port) }
    }
    start(eal, "net_ring0", &pool, 1);
}

fn a_device_is_found_again(eal: &Eal) {
    let pool = pool(eal, "found");
    let (port, queues) = start(eal, "net_null0", &pool, 2);
    let before = port.info().unwrap();
    port.take_down(queues).unwrap();
    port.detach().unwrap();
    port.detach().unwrap();
    assert_eq!(eal.port_by_name("net_null0"), None);
    assert!(!port.is_up() && port.info().is_err() && port.stats().is_err());
    let mut queues = port.bring_up().unwrap();
    assert_eq!(eal.port_by_name("net_null0"), Some(port.id()));
    assert_eq!(port.info().unwrap(), PortInfo { mac_address: port.info().unwrap().mac_address, ..before });
    let mut burst = Burst::new();
    assert!(queues[1].rx.receive(&mut burst) > 0);
    assert!(burst.iter().all(|packet| packet.len() == 100 && packet.port() == port.id()), "its arguments say so");
    burst.clear();
    port.take_down(queues).unwrap();
    port.detach().unwrap();
    // One that ends while its device is away leaves nothing behind.
    port.stop(Vec::new()).unwrap();
    assert_eq!(pool.available(), 1023);
}

fn a_device_may_be_another_port(eal: &Eal) {
    // The one before has left its place free, and the next that comes takes it.
    let pool = pool(eal, "moved");
    let (port, queues) = start(eal, "net_null1", &pool, 1);
    let before = port.id();
    port.take_down(queues).unwrap();
    port.detach().unwrap();
    let mut queues = port.bring_up().unwrap();
    assert!(port.id() < before, "{} {before}", port.id());
    assert_eq!((port.name(), queues[0].port()), ("net_null1", port.id()));
    let mut burst = Burst::new();
    assert!(queues[0].rx.receive(&mut burst) > 0);
    assert!(burst.iter().all(|packet| packet.port() == port.id()));
    assert!(matches!(PortBuilder::new(eal, port.id()).pool(&pool).start(), Err(PortError::InUse { .. })));
    burst.clear();
    port.stop(queues).unwrap();
    let (port, queues) = start(eal, "net_null1", &pool, 1);
    port.stop(queues).unwrap();
}

fn devices_may_come_back_in_another_order(eal: &Eal) {
    let pool = pool(eal, "order");
    let ports: Vec<Port> = ["net_null1", "net_null2"]
        .into_iter()
        .map(|name| {
            let (port, queues) = start(eal, name, &pool, 1);
            port.take_down(queues).unwrap();
            port
        })
        .collect();
    let ids: Vec<PortId> = ports.iter().map(Port::id).collect();
    // The lower number becomes free, and the other device gets it.
    let (late, early) = if ids[0] < ids[1] { (&ports[0], &ports[1]) } else { (&ports[1], &ports[0]) };
    let lower = late.id();
    late.detach().unwrap();
    early.detach().unwrap();
    let early_queues = early.bring_up().unwrap();
    assert_eq!((early.id(), late.id()), (lower, PortId::NONE));
    assert!(late.info().is_err() && late.set_mac_address([2, 0, 0, 0, 0, 1]).is_err(), "it has no port to ask");
    let said = PortEvents { reset: true, ..PortEvents::default() };
    early.note(said);
    assert_eq!((late.events(), early.events()), (PortEvents::default(), said));
    let late_queues = late.bring_up().unwrap();
    for port in &ports {
        let second = PortBuilder::new(eal, port.id()).pool(&pool).start();
        assert!(matches!(second, Err(PortError::InUse { .. })), "{} has one owner", port.name());
    }
    early.take_down(early_queues).unwrap();
    late.take_down(late_queues).unwrap();
    drop(ports);
    // What the end of one lets go is not the other's.
    for name in ["net_null1", "net_null2"] {
        let (port, queues) = start(eal, name, &pool, 1);
        port.stop(queues).unwrap();
    }
}

fn a_device_with_another_port_is_not_let_go(eal: &Eal) {
    let pool = pool(eal, "two");
    let (one, queues) = start(eal, "one", &pool, 1);
    let (two, mut others) = start(eal, "two", &pool, 1);
    one.take_down(queues).unwrap();
    assert_eq!(one.detach().unwrap_err().to_string(), "port one: detach: Device or resource busy (errno 16)");
    echo(&pool, &mut others);
    let mut queues = one.bring_up().unwrap();
    echo(&pool, &mut queues);
    one.stop(queues).unwrap();
    two.stop(others).unwrap();
}

fn a_device_is_told_of_its_vlans_at_each_start(eal: &Eal) {
    let pool = pool(eal, "vlans");
    assert_eq!(common::logged(), [""; 0]);
    // This one cannot filter, which shows that it is asked.
    let refused = |vlans: &[u16]| -> Vec<String> {
        let line = |vlan| format!("net_ring0 (net_ring) does not let through frames of VLAN {vlan}: ");
        let logged = common::logged();
        assert_eq!(logged.len(), vlans.len(), "{logged:?}");
        vlans
            .iter()
            .zip(&logged)
            .filter(|(vlan, said)| !said.starts_with(&line(**vlan)))
            .map(|(_, said)| said.clone())
            .collect()
    };
    let id = eal.port_by_name("net_ring0").unwrap();
    let (port, queues) = PortBuilder::new(eal, id).pool(&pool).vlans([7]).start().unwrap();
    assert_eq!(refused(&[7]), [""; 0]);
    port.admit_vlans(&[7, 8]);
    assert_eq!(refused(&[8]), [""; 0]);
    port.take_down(queues).unwrap();
    port.admit_vlans(&[9]);
    assert_eq!(refused(&[]), [""; 0]);
    let queues = port.bring_up().unwrap();
    assert_eq!(refused(&[7, 8, 9]), [""; 0]);
    port.stop(queues).unwrap();
}

// What drivers call (ethdev_driver.h); the first port's device is where the devices begin.
unsafe extern "C" {
    static rte_eth_devices: c_void;
    fn rte_eth_dev_callback_process(device: *const c_void, event: u32, data: *mut c_void) -> c_int;
}

/// Has the driver of the first port say something.
fn say(event: u32) {
    let device = &raw const rte_eth_devices;
    // SAFETY: the first port's device, whose events carry no data.
    unsafe { rte_eth_dev_callback_process(device, event, std::ptr::null_mut()) };
}

fn what_a_device_says_is_told_once(eal: &Eal) {
    use sys::rte_eth_event_type::{RTE_ETH_EVENT_INTR_LSC, RTE_ETH_EVENT_INTR_RESET, RTE_ETH_EVENT_INTR_RMV};
    let pool = pool(eal, "events");
    let nothing = PortEvents::default();
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    assert_eq!((port.id().0, port.events()), (0, nothing));
    for (said, expected) in [
        (&[][..], nothing),
        (&[RTE_ETH_EVENT_INTR_LSC], PortEvents { link: true, ..nothing }),
        (&[RTE_ETH_EVENT_INTR_RESET, RTE_ETH_EVENT_INTR_RESET], PortEvents { reset: true, ..nothing }),
        (&[RTE_ETH_EVENT_INTR_RMV, RTE_ETH_EVENT_INTR_LSC], PortEvents { link: true, removed: true, reset: false }),
        (&[sys::rte_eth_event_type::RTE_ETH_EVENT_QUEUE_STATE], nothing),
    ] {
        std::thread::scope(|threads| {
            threads.spawn(|| said.iter().for_each(|event| say(*event)));
        });
        assert_eq!(port.events(), expected, "{said:?}");
        assert_eq!(port.events(), nothing);
    }
    // The start that a reset leads to answers it.
    port.take_down(queues).unwrap();
    say(RTE_ETH_EVENT_INTR_RESET);
    let queues = port.bring_up().unwrap();
    assert_eq!(port.events(), nothing);
    say(RTE_ETH_EVENT_INTR_RESET);
    assert!(port.events().reset, "it is listened to in its next life too");
    // That it is being taken away is no less true when it was started meanwhile.
    port.take_down(queues).unwrap();
    say(RTE_ETH_EVENT_INTR_RMV);
    let queues = port.bring_up().unwrap();
    assert_eq!(port.events(), PortEvents { removed: true, ..nothing });
    say(RTE_ETH_EVENT_INTR_RMV);
    port.stop(queues).unwrap();
    let (port, queues) = start(eal, "net_ring0", &pool, 1);
    assert_eq!(port.events(), nothing, "of an earlier port");
    port.stop(queues).unwrap();
}
