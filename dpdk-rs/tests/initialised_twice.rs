//! DPDK starts once per process, also when the first start failed.

mod common;

use dpdk_rs::{Eal, EalError};

#[test]
fn dpdk_starts_once() {
    let mut zero = common::arguments(&[]);
    zero.push("a\0b".to_owned());
    assert!(matches!(Eal::init(zero), Err(EalError::ZeroByte(_))), "nothing was started");

    let eal = common::eal(&[]);
    let second = std::thread::spawn(|| Eal::init(common::arguments(&[])).map(|_| ()).unwrap_err());
    let second = second.join().unwrap();
    assert!(matches!(second, EalError::AlreadyInitialised), "{second}");
    drop(eal);
    let third = Eal::init(common::arguments(&[])).unwrap_err();
    assert_eq!(third.to_string(), "the EAL was initialised before in this process, and DPDK allows it once");
}
