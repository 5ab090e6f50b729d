//! The UDP header.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A UDP header, RFC 768: 8 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// Octets in the datagram, this header among them.
    pub length: U16,
    /// The Internet checksum of pseudo-header, header and payload; zero says that the sender
    /// computed none.
    pub checksum: U16,
}

impl UdpHeader {
    /// Octets in the header.
    pub const LENGTH: usize = 8;
}
