//! The interface of the kernel behind a port.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use dpdk_rs::PortInfo;
use std::path::Path;

#[test]
fn a_tap_port_says_which_interface_of_the_kernel_it_is() {
    let test = "a_tap_port_says_which_interface_of_the_kernel_it_is";
    if !common::is_root() {
        return common::skip(test, "only root can make a tap interface");
    }
    if !Path::new("/dev/net/tun").exists() {
        return common::skip(test, "there is no /dev/net/tun");
    }
    let name = format!("nfk{}", std::process::id());
    let eal = common::eal(&[&format!("net_tap0,iface={name}")]);
    let info = PortInfo::new(&eal, eal.port_by_name("net_tap0").unwrap()).unwrap();
    let index = std::fs::read_to_string(Path::new("/sys/class/net").join(&name).join("ifindex")).unwrap();
    assert_eq!(info.kernel_interface.map(|index| index.to_string()), Some(index.trim().to_owned()));
}
