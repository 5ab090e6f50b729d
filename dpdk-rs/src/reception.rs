//! Which frames a started port lets through: of other stations, of groups, of VLANs.
//!
//! Where the port is a virtual function its physical function decides, and may say no. A program
//! that can do with less goes on then, and says what it will not see.

use crate::Errno;
use crate::port_info::{Offloads, PortId};
use dpdk_sys as sys;

/// What is asked of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reception {
    /// Frames for other stations are received too.
    pub(crate) promiscuous: bool,
    /// VLANs whose frames are received, where the device filters them.
    pub(crate) vlans: Vec<u16>,
}

/// What can be done to a device: a trait, so that tests have devices that refuse.
pub(crate) trait Filter {
    fn set_promiscuous(&self) -> Result<(), Errno>;
    fn set_all_multicast(&self) -> Result<(), Errno>;
    fn admit_vlan(&self, vlan: u16) -> Result<(), Errno>;
}

impl Filter for PortId {
    fn set_promiscuous(&self) -> Result<(), Errno> {
        // SAFETY: any id may be asked for; the caller has the right to configure the port.
        Errno::check(unsafe { sys::rte_eth_promiscuous_enable(self.0) }).map(|_| ())
    }

    fn set_all_multicast(&self) -> Result<(), Errno> {
        // SAFETY: as above.
        Errno::check(unsafe { sys::rte_eth_allmulticast_enable(self.0) }).map(|_| ())
    }

    fn admit_vlan(&self, vlan: u16) -> Result<(), Errno> {
        // SAFETY: as above.
        Errno::check(unsafe { sys::rte_eth_dev_vlan_filter(self.0, vlan, 1) }).map(|_| ())
    }
}

impl Reception {
    /// Asks the device, and returns what it refused and the program can do without, a clause for each.
    ///
    /// # Errors
    ///
    /// When a device that is no virtual function refuses promiscuous mode. Many virtual devices have no
    /// filter to switch off, which is no refusal.
    pub(crate) fn ask(&self, device: &impl Filter, virtual_function: bool) -> Result<Vec<String>, Errno> {
        let mut refused = Vec::new();
        if self.promiscuous {
            match device.set_promiscuous() {
                Err(errno) if virtual_function => {
                    refused.push(format!("frames for other stations: no promiscuous mode for this function: {errno}"));
                }
                Err(Errno(libc::ENOTSUP)) | Ok(()) => {}
                Err(errno) => return Err(errno),
            }
        }
        // A physical function may grant this and not the other, and neighbours ask groups for IPv6 addresses.
        if virtual_function && let Err(errno) = device.set_all_multicast() {
            refused.push(format!("frames for groups, if not let through one by one: {errno}"));
        }
        refused.extend(admit(device, &self.vlans));
        Ok(refused)
    }
}

/// The driver of 82576 and I350 virtual functions, which starts them without their physical function.
const STARTS_ALONE: &str = "net_e1000_igb_vf";
/// What it says of a message that nobody has answered (`E1000_ERR_MBX`, e1000_defines.h).
const NO_ANSWER: Errno = Errno(15);

/// What has to be asked of a device of this driver beside the rest, so that [`answers`] can tell.
pub(crate) fn asked_beside(driver: &str) -> Offloads {
    if driver == STARTS_ALONE { Offloads::RX_VLAN_FILTER } else { Offloads::NONE }
}

/// Whether the physical function of a started device answers, if it has one and the driver does not see to
/// that itself. Any answer will do; of what it can be asked this is what does nothing, as frames without a tag
/// come anyway.
pub(crate) fn answers(device: &impl Filter, driver: &str) -> bool {
    driver != STARTS_ALONE || device.admit_vlan(0) != Err(NO_ANSWER)
}

/// Has a device let frames of these VLANs through, and returns what it refused.
pub(crate) fn admit(device: &impl Filter, vlans: &[u16]) -> Vec<String> {
    let refusal = |vlan: &u16| {
        let errno = device.admit_vlan(*vlan).err()?;
        Some(format!("frames of VLAN {vlan}: {errno}"))
    };
    vlans.iter().filter_map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Refuses what is on a list, and keeps what it was asked.
    struct Fake {
        refuses: &'static [(&'static str, i32)],
        asked: RefCell<Vec<String>>,
    }

    impl Fake {
        fn ask(&self, what: String) -> Result<(), Errno> {
            let refusal = self.refuses.iter().find(|(refused, _)| *refused == what);
            self.asked.borrow_mut().push(what);
            refusal.map_or(Ok(()), |(_, errno)| Err(Errno(*errno)))
        }
    }

    impl Filter for Fake {
        fn set_promiscuous(&self) -> Result<(), Errno> {
            self.ask("promiscuous".to_owned())
        }

        fn set_all_multicast(&self) -> Result<(), Errno> {
            self.ask("groups".to_owned())
        }

        fn admit_vlan(&self, vlan: u16) -> Result<(), Errno> {
            self.ask(format!("vlan {vlan}"))
        }
    }

    #[test]
    fn a_physical_function_that_does_not_answer_is_noticed_and_any_answer_is_one() {
        let (silent, refuses) = (&[("vlan 0", 15)][..], &[("vlan 0", libc::EINVAL)][..]);
        for (driver, refuses, answered, asked) in [
            ("net_e1000_igb_vf", &[][..], true, &["vlan 0"][..]),
            ("net_e1000_igb_vf", silent, false, &["vlan 0"]),
            // It does not let a function choose that it has put into a VLAN itself.
            ("net_e1000_igb_vf", refuses, true, &["vlan 0"]),
            ("net_ixgbe_vf", silent, true, &[]),
            ("net_tap", silent, true, &[]),
        ] {
            let fake = Fake { refuses, asked: RefCell::default() };
            assert_eq!(answers(&fake, driver), answered, "{driver} {refuses:?}");
            assert_eq!(*fake.asked.borrow(), asked, "{driver}");
        }
    }

    #[test]
    fn a_device_is_asked_for_what_it_shall_let_through_and_what_it_refuses_is_said() {
        const ALL: &[&str] = &["promiscuous", "groups", "vlan 100", "vlan 200"];
        let (vf, other) = (true, false);
        let refused = |clauses: &[&str]| Ok(clauses.iter().map(|&clause| clause.to_owned()).collect::<Vec<_>>());
        for (virtual_function, promiscuous, refuses, asked, outcome) in [
            (other, true, &[][..], &["promiscuous", "vlan 100", "vlan 200"][..], refused(&[])),
            (other, false, &[], &["vlan 100", "vlan 200"], refused(&[])),
            (other, true, &[("promiscuous", libc::ENOTSUP)], &["promiscuous", "vlan 100", "vlan 200"], refused(&[])),
            (other, true, &[("promiscuous", libc::EIO)], &["promiscuous"], Err(Errno(libc::EIO))),
            (vf, true, &[], ALL, refused(&[])),
            (
                vf,
                true,
                &[("promiscuous", libc::EPERM), ("groups", libc::ENOTSUP), ("vlan 200", libc::EINVAL)],
                ALL,
                refused(&[
                    "frames for other stations: no promiscuous mode for this function: Operation not permitted (errno 1)",
                    "frames for groups, if not let through one by one: Operation not supported (errno 95)",
                    "frames of VLAN 200: Invalid argument (errno 22)",
                ]),
            ),
        ] {
            let fake = Fake { refuses, asked: RefCell::default() };
            let reception = Reception { promiscuous, vlans: vec![100, 200] };
            assert_eq!(reception.ask(&fake, virtual_function), outcome, "{refuses:?}");
            assert_eq!(*fake.asked.borrow(), asked, "{refuses:?}");
            // A port that is built anew is asked for the same.
            assert_eq!(reception.ask(&fake, virtual_function), outcome, "{refuses:?}");
        }
    }
}
