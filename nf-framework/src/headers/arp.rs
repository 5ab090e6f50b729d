//! ARP for IPv4 over Ethernet.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EtherType, MacAddress};

/// An ARP packet that maps IPv4 to Ethernet addresses, RFC 826: 28 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    /// The kind of hardware: [`HARDWARE_TYPE_ETHERNET`](Self::HARDWARE_TYPE_ETHERNET).
    pub hardware_type: U16,
    /// The kind of protocol address: [`EtherType::IPV4`].
    pub protocol_type: EtherType,
    /// Octets in a hardware address: 6.
    pub hardware_address_length: u8,
    /// Octets in a protocol address: 4.
    pub protocol_address_length: u8,
    /// Whether it asks or answers.
    pub operation: ArpOperation,
    /// The sender's Ethernet address.
    pub sender_hardware_address: MacAddress,
    /// The sender's IPv4 address, its octets.
    pub sender_protocol_address: [u8; 4],
    /// The target's Ethernet address; a request does not know it.
    pub target_hardware_address: MacAddress,
    /// The target's IPv4 address, its octets.
    pub target_protocol_address: [u8; 4],
}

/// What an ARP packet does, RFC 826, as IANA registers the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct ArpOperation([u8; 2]);

impl ArpPacket {
    /// Ethernet's number among the kinds of hardware.
    pub const HARDWARE_TYPE_ETHERNET: u16 = 1;

    /// Whether the packet says that it maps IPv4 to Ethernet addresses, as this view assumes.
    #[inline]
    #[must_use]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware_type.get() == Self::HARDWARE_TYPE_ETHERNET
            && self.protocol_type == EtherType::IPV4
            && self.hardware_address_length == 6
            && self.protocol_address_length == 4
    }
}

impl ArpOperation {
    /// Who has the target's protocol address?
    pub const REQUEST: Self = Self::new(1);
    /// The sender has it.
    pub const REPLY: Self = Self::new(2);

    /// From the number as it is written in documents.
    #[inline]
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// The number as it is written in documents.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}
