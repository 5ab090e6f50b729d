//! Virtual functions (SR-IOV): parts of a device whose physical function, on the hypervisor, decides
//! what they get.

use crate::port_info::PortInfo;

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

/// Prefixes of locally administered MAC addresses that a hypervisor's management gives: libvirt and
/// QEMU, OpenStack.
const ASSIGNED: &[[u8; 3]] = &[[0x52, 0x54, 0x00], [0xfa, 0x16, 0x3e]];

impl PortInfo {
    /// Whether the device is a virtual function, as far as its driver's name tells: one of a driver
    /// that is for physical functions too is not found out.
    #[must_use]
    pub fn is_virtual_function(&self) -> bool {
        DRIVERS.contains(&self.driver.as_str())
    }

    /// Whether the MAC address looks as if the driver of a virtual function had invented it, as it
    /// does when the physical function is down or has none for it (`rte_eth_random_addr`). Those are
    /// locally administered (IEEE 802-2014 section 8.4), and so may be one that somebody has chosen.
    #[must_use]
    pub fn has_invented_mac_address(&self) -> bool {
        let [first, second, third, ..] = self.mac_address;
        let local = first & 2 != 0 || self.mac_address == [0; 6];
        self.is_virtual_function() && local && !ASSIGNED.contains(&[first, second, third])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invented_address_is_one_of_a_virtual_function_that_nobody_is_known_to_give() {
        let (igb, vf) = ("net_e1000_igb", "net_e1000_igb_vf");
        for (driver, mac_address, is_vf, invented) in [
            (vf, [0x86, 0x2c, 1, 2, 3, 4], true, true),
            (vf, [0; 6], true, true),
            ("net_iavf", [0x02, 0, 0, 0, 0, 1], true, true),
            (vf, [0x00, 0x1b, 0x21, 1, 2, 3], true, false),
            (vf, [0x52, 0x54, 0x00, 1, 2, 3], true, false),
            (vf, [0xfa, 0x16, 0x3e, 1, 2, 3], true, false),
            (igb, [0x86, 0x2c, 1, 2, 3, 4], false, false),
            ("net_tap", [0x02, 0, 0, 0, 0, 1], false, false),
            ("mlx5_pci", [0x02, 0, 0, 0, 0, 1], false, false),
        ] {
            let info = PortInfo { driver: driver.to_owned(), mac_address, ..PortInfo::fake() };
            assert_eq!((info.is_virtual_function(), info.has_invented_mac_address()), (is_vf, invented), "{info:?}");
        }
    }
}
