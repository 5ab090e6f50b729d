//! The EAL goes, by a panic, while a port, a pool and a ring are in use elsewhere.

mod common;

use dpdk_rs::{Burst, Eal, EalError, PortBuilder, Ring};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn ports_pools_and_rings_in_use_keep_dpdk_running() {
    common::keep_log();
    let eal = common::eal(&["net_ring0", "net_null0"]);
    let pool = common::pool(&eal, "packets");
    let port = eal.port_by_name("net_ring0").unwrap();
    let (port, mut queues) = PortBuilder::new(&eal, port).pool(&pool).start().unwrap();
    let (mut producer, mut consumer) = Ring::pair(&eal, "ring", 8).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _eal = eal;
        panic!("takes the EAL with it");
    }));
    assert!(unwound.is_err());
    assert_eq!(common::logged(), ["DPDK is left running: a port, a pool, a ring or a table is still in use"]);

    std::thread::spawn(move || {
        let mut burst = Burst::new();
        queues[0].tx.send_one(common::numbered(&pool, 1)).unwrap();
        assert_eq!(queues[0].rx.receive(&mut burst), 1);
        assert_eq!(producer.send(&mut burst), 1);
        assert_eq!(consumer.receive(&mut burst), 1);
        assert_eq!(burst.iter().map(common::number).collect::<Vec<_>>(), [1]);
        assert_eq!(port.stats().unwrap().rx_packets, 1);
        port.stop(queues).unwrap();
    })
    .join()
    .unwrap();
    assert!(matches!(Eal::init(common::arguments(&[])), Err(EalError::AlreadyInitialised)));
}
