//! The IPv6 header.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::IpProtocol;

/// The fixed IPv6 header, RFC 8200 section 3: 40 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8 bits) and flow label (20 bits).
    pub version_traffic_class_and_flow_label: U32,
    /// Octets that follow this header, extension headers among them.
    pub payload_length: U16,
    /// What follows this header: an extension header or the transport.
    pub next_header: IpProtocol,
    /// Hops that the packet may still make.
    pub hop_limit: u8,
    /// The sender's address, its octets.
    pub source: [u8; 16],
    /// The receiver's address, its octets; the next waypoint's, under a routing header.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Octets in the header without extension headers.
    pub const LENGTH: usize = 40;

    /// The version that the header claims; 6, in every header that the parser gave.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_traffic_class_and_flow_label.to_bytes()[0] >> 4
    }

    /// Differentiated services (6 bits) and congestion notification (2 bits).
    #[inline]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        let [first, second, ..] = self.version_traffic_class_and_flow_label.to_bytes();
        (first << 4) | (second >> 4)
    }

    /// The flow label, 20 bits.
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.version_traffic_class_and_flow_label.get() & 0x000f_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_where_the_rfc_draws_it() {
        let mut octets = [0u8; 40];
        octets[..8].copy_from_slice(&[0x6b, 0xa1, 0x23, 0x45, 0x01, 0x02, 17, 64]);
        octets[8..24].fill(1);
        octets[24..].fill(2);
        let header: Ipv6Header = zerocopy::transmute!(octets);
        assert_eq!(header.version(), 6);
        assert_eq!(header.traffic_class(), 0xba);
        assert_eq!(header.flow_label(), 0x12345);
        assert_eq!(header.payload_length.get(), 0x0102);
        assert_eq!(header.next_header, IpProtocol::UDP);
        assert_eq!(header.hop_limit, 64);
        assert_eq!(header.source, [1; 16]);
        assert_eq!(header.destination, [2; 16]);
    }
}
