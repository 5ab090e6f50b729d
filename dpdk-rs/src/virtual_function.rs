//! Virtual functions (SR-IOV): parts of a device whose physical function, on the hypervisor, decides
//! what they get.

use crate::port_info::PortInfo;
use std::sync::{Mutex, PoisonError};

/// Drivers of DPDK 22.11 to 25.11 that are for virtual functions only. Others drive both sorts by one
/// name, so it says nothing: `mlx5_pci`, `net_bnxt`, `net_hinic`, `net_sfc_efx`. On Marvell's OCTEON the
/// ports of the machine itself are virtual functions, and let everything through.
const DRIVERS: &[&str] = &[
    "net_bnx2xvf",
    "net_cxgbevf",
    "net_e1000_igb_vf",
    "net_hns3_vf",
    "net_i40e_vf",
    "net_iavf",
    "net_ixgbe_vf",
    "net_liovf",
    "net_nfp_vf",
    "net_ngbe_vf",
    "net_qede_vf",
    "net_txgbe_vf",
];

/// What a driver says when it invents a MAC address, and the address after it. No call tells.
const INVENTED: &str = "Assign randomly generated MAC address ";
/// The logs in which drivers say so (82576 and I350, 82599, Wangxun), at a level that is off unless asked for.
pub(crate) const LOGS: [&str; 3] = ["pmd.net.e1000.init", "pmd.net.ixgbe.init", "pmd.net.txgbe.init"];

/// Addresses that drivers have said they invented.
static ADDRESSES: Mutex<Vec<[u8; 6]>> = Mutex::new(Vec::new());

/// Takes note of a line of DPDK's log.
pub(crate) fn hear(line: &str) {
    if let Some(address) = line.split_once(INVENTED).and_then(|(_, text)| address(text)) {
        ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner).push(address);
    }
}

fn address(text: &str) -> Option<[u8; 6]> {
    let octets = text.trim().split(':').map(|octet| u8::from_str_radix(octet, 16).ok());
    octets.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

impl PortInfo {
    /// Whether the device is a virtual function, as far as its driver's name tells: one of a driver
    /// that is for physical functions too is not found out.
    #[must_use]
    pub fn is_virtual_function(&self) -> bool {
        DRIVERS.contains(&self.driver.as_str())
    }

    /// Whether the driver of a virtual function has invented the MAC address, as it does when the physical
    /// function is down or has none for it. Only some drivers say so, in DPDK's log: those of Intel's 1
    /// and 10 Gbit/s functions, and Wangxun's.
    #[must_use]
    pub fn has_invented_mac_address(&self) -> bool {
        let said = || ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.mac_address);
        self.is_virtual_function() && (self.mac_address == [0; 6] || said())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_function_is_told_by_its_driver_and_an_invented_address_by_what_that_says() {
        let (vf, pf) = ("net_e1000_igb_vf", "net_e1000_igb");
        hear("eth_igbvf_dev_init(): \tAssign randomly generated MAC address 86:2C:01:02:03:04");
        hear("eth_igbvf_dev_init(): \tAssign randomly generated MAC address 86:2C:01:02:03");
        hear("eth_igbvf_dev_init(): \tVF MAC address not assigned by Host PF");
        for (driver, mac_address, is_vf, invented) in [
            (vf, [0x86, 0x2c, 1, 2, 3, 4], true, true),
            (vf, [0; 6], true, true),
            (vf, [0x02, 0, 0, 0, 0, 1], true, false),
            ("net_iavf", [0x52, 0x54, 0, 0, 0, 1], true, false),
            (pf, [0x86, 0x2c, 1, 2, 3, 4], false, false),
            ("mlx5_pci", [0; 6], false, false),
        ] {
            let info = PortInfo { driver: driver.to_owned(), mac_address, ..PortInfo::fake() };
            assert_eq!((info.is_virtual_function(), info.has_invented_mac_address()), (is_vf, invented), "{info:?}");
        }
    }
}
