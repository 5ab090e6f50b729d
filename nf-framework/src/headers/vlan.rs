//! VLAN tags.

use dpdk_rs::Mbuf;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::EtherType;

/// A packet's octets with the tag that it has beside them, as they are on the link: who reads them in a file knows no more.
pub(crate) fn on_the_link(packet: &Mbuf) -> impl Iterator<Item = u8> + Clone {
    const ADDRESSES: usize = 12;
    let (addresses, rest) = packet.data().split_at_checked(ADDRESSES).unwrap_or((packet.data(), &[]));
    let tag = packet.vlan_beside().filter(|_| addresses.len() == ADDRESSES).map(|tag| {
        let [high, low] = tag.to_be_bytes();
        [0x81, 0x00, high, low]
    });
    addresses.iter().copied().chain(tag.into_iter().flatten()).chain(rest.iter().copied())
}

/// How many tags the parser walks: a service tag and a customer tag.
pub const MAX_VLAN_TAGS: usize = 2;

/// What follows the EtherType of a tag: IEEE 802.1Q section 9.6, 4 octets.
///
/// The tag's own kind ([`EtherType::VLAN`] or [`EtherType::SERVICE_VLAN`]) stands before it, in
/// the Ethernet header or the tag outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub tag_control_information: U16,
    /// What follows the tag.
    pub ether_type: EtherType,
}

impl VlanTag {
    /// The VLAN identifier, 0 to 4095; 0 says that the tag only carries a priority.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u16 {
        self.tag_control_information.get() & 0x0fff
    }

    /// Writes the low 12 bits of `id` and leaves the priority alone.
    #[inline]
    pub fn set_id(&mut self, id: u16) {
        let others = self.tag_control_information.get() & 0xf000;
        self.tag_control_information.set(others | (id & 0x0fff));
    }

    /// The priority code point, 0 to 7.
    #[inline]
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.tag_control_information.to_bytes()[0] >> 5
    }

    /// Whether this frame is to be dropped before others under congestion.
    #[inline]
    #[must_use]
    pub fn drop_eligible(&self) -> bool {
        self.tag_control_information.get() & 0x1000 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_tag_do_not_disturb_each_other() {
        let mut tag = VlanTag { tag_control_information: U16::new(0xb064), ether_type: EtherType::IPV4 };
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.id()), (5, true, 100));
        tag.set_id(0xffff);
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.id()), (5, true, 4095));
        tag.set_id(0);
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.id()), (5, true, 0));
    }
}
