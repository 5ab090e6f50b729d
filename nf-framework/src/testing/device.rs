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

/// What an honest device says of the IPv4 header of a frame without tags, if there is one whole.
#[must_use]
pub fn honest_checksum(frame: &[u8]) -> ChecksumStatus {
    let Some([0x08, 0x00, first, ..]) = frame.get(12..) else { return ChecksumStatus::Unknown };
    let length = usize::from(first & 15) * 4;
    let Some(header) = frame.get(14..14 + length).filter(|_| length >= 20) else { return ChecksumStatus::Unknown };
    // RFC 1071 section 1.
    let mut sum = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if sum == 0xffff { ChecksumStatus::Good } else { ChecksumStatus::Bad }
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
