//! The Ethernet header and the type numbers it carries.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MacAddress;

/// An Ethernet II header, RFC 894 and IEEE 802.3 section 3.1: 14 octets, no preamble, no frame
/// check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// The station that the frame is for.
    pub destination: MacAddress,
    /// The station that sent the frame.
    pub source: MacAddress,
    /// What follows. With a VLAN tag, the tag's kind: see [`Headers::ether_type`].
    ///
    /// [`Headers::ether_type`]: super::Headers::ether_type
    pub ether_type: EtherType,
}

impl EthernetHeader {
    /// Octets in the header.
    pub const LENGTH: usize = 14;
}

/// An IEEE 802 number for what a frame carries, RFC 9542 section 3, as IANA registers them.
///
/// It is kept as the wire has it, so that comparing costs no byte swap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct EtherType([u8; 2]);

impl EtherType {
    /// Internet Protocol version 4.
    pub const IPV4: Self = Self::new(0x0800);
    /// Address Resolution Protocol.
    pub const ARP: Self = Self::new(0x0806);
    /// Customer VLAN tag, IEEE 802.1Q.
    pub const VLAN: Self = Self::new(0x8100);
    /// Internet Protocol version 6.
    pub const IPV6: Self = Self::new(0x86dd);
    /// Service VLAN tag, IEEE 802.1Q (once 802.1ad).
    pub const SERVICE_VLAN: Self = Self::new(0x88a8);

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

    /// Whether a VLAN tag follows.
    #[inline]
    #[must_use]
    pub fn is_vlan(self) -> bool {
        self == Self::VLAN || self == Self::SERVICE_VLAN
    }
}

impl From<u16> for EtherType {
    fn from(value: u16) -> Self {
        Self::new(value)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.value())
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtherType({self})")
    }
}
