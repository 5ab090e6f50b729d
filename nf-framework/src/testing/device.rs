//! What a device does with frames that a router leaves to it.

use crate::router::PortOffloads;
use dpdk_rs::{ChecksumStatus, Mbuf};

/// A device that does all that a router has a use for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    /// What it says about the IPv4 header of a frame without its tag.
    pub(super) checksum: fn(&[u8]) -> ChecksumStatus,
}

impl Device {
    pub(super) const OFFLOADS: PortOffloads =
        PortOffloads { strips_vlans: true, inserts_vlans: true, checks_ipv4: true };

    /// Makes of a packet that is as it was on the link what a driver hands over.
    pub(super) fn receive(self, packet: &mut Mbuf) {
        let mut frame = packet.data().to_vec();
        if let Some([0x81, 0x00, high, low]) = frame.get(12..16) {
            packet.set_stripped_vlan(u16::from_be_bytes([*high, *low]));
            frame.drain(12..16);
            assert!(packet.set_contents(&frame), "a frame that has become shorter fits");
        }
        packet.set_ipv4_checksum((self.checksum)(&frame));
    }
}

/// A packet's frame as it is on the link. A device that inserts no tags takes no notice of any.
pub(super) fn on_the_link(packet: &Mbuf, inserts_vlans: bool) -> Vec<u8> {
    let mut frame = packet.data().to_vec();
    if let Some(tag) = packet.vlan_to_insert().filter(|_| inserts_vlans) {
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high, low]);
    }
    frame
}
