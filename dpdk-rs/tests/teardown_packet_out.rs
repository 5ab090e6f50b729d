//! The EAL goes while a packet is out: it must stay usable.

mod common;

use dpdk_rs::{Eal, EalError};

#[test]
fn a_packet_that_is_out_keeps_dpdk_running() {
    common::keep_log();
    let eal = common::eal(&["net_ring0"]);
    let pool = common::pool(&eal, "packets");
    let mut packet = common::numbered(&pool, 7);
    drop((pool, eal));
    assert_eq!(
        common::logged(),
        ["DPDK is left running: 1 of the 1023 packets of the mempool \"packets\" are still in use"]
    );
    packet.append(100).unwrap().fill(1);
    assert_eq!(packet.len(), 160);
    std::thread::spawn(move || drop(packet)).join().unwrap();

    let again = Eal::init(common::arguments(&[])).unwrap_err();
    assert!(matches!(again, EalError::AlreadyInitialised), "{again}");
}
