//! The IPv4 header.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::IpProtocol;

/// An IPv4 header without its options, RFC 791 section 3.1: 20 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and Internet header length in 32-bit words (4 bits).
    pub version_and_header_length: u8,
    /// Differentiated services code point (6 bits, RFC 2474) and explicit congestion
    /// notification (2 bits, RFC 3168): what RFC 791 calls the type of service.
    pub differentiated_services: u8,
    /// Octets in the packet, this header among them.
    pub total_length: U16,
    /// What the fragments of one packet have in common.
    pub identification: U16,
    /// Flags (3 bits) and fragment offset in 8-octet units (13 bits).
    pub flags_and_fragment_offset: U16,
    /// Hops that the packet may still make.
    pub time_to_live: u8,
    /// What follows this header.
    pub protocol: IpProtocol,
    /// The Internet checksum of this header and its options.
    pub header_checksum: U16,
    /// The sender's address, its octets.
    pub source: [u8; 4],
    /// The receiver's address, its octets.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Octets in a header without options.
    pub const LENGTH: usize = 20;

    const DONT_FRAGMENT: u16 = 0x4000;
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;

    /// The version that the header claims; 4, in every header that the parser gave.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_and_header_length >> 4
    }

    /// Octets in the header with its options: 20 to 60 in every header that the parser gave.
    #[inline]
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.version_and_header_length & 0x0f) * 4
    }

    /// The differentiated services code point, 0 to 63.
    #[inline]
    #[must_use]
    pub fn differentiated_services_code_point(&self) -> u8 {
        self.differentiated_services >> 2
    }

    /// The explicit congestion notification bits, 0 to 3.
    #[inline]
    #[must_use]
    pub fn congestion_notification(&self) -> u8 {
        self.differentiated_services & 0x03
    }

    /// Whether routers must not fragment the packet.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_and_fragment_offset.get() & Self::DONT_FRAGMENT != 0
    }

    /// Whether this is a fragment and not the last one.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.flags_and_fragment_offset.get() & Self::MORE_FRAGMENTS != 0
    }

    /// Where in the original packet's payload this one's begins, in octets.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_and_fragment_offset.get() & Self::OFFSET) << 3
    }

    /// Whether this is a part of a packet: the first, the last or between.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.flags_and_fragment_offset.get() & (Self::MORE_FRAGMENTS | Self::OFFSET) != 0
    }

    /// Sets or clears the don't-fragment flag.
    #[inline]
    pub fn set_dont_fragment(&mut self, dont_fragment: bool) {
        let others = self.flags_and_fragment_offset.get() & !Self::DONT_FRAGMENT;
        let flag = if dont_fragment { Self::DONT_FRAGMENT } else { 0 };
        self.flags_and_fragment_offset.set(others | flag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(octets: [u8; 20]) -> Ipv4Header {
        zerocopy::transmute!(octets)
    }

    #[test]
    fn every_field_is_where_the_rfc_draws_it() {
        let header =
            header([0x46, 0xba, 0x01, 0x02, 0x03, 0x04, 0x60, 0x05, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
        assert_eq!(header.version(), 4);
        assert_eq!(header.header_length(), 24);
        assert_eq!(header.differentiated_services_code_point(), 46);
        assert_eq!(header.congestion_notification(), 2);
        assert_eq!(header.total_length.get(), 0x0102);
        assert_eq!(header.identification.get(), 0x0304);
        assert!(header.dont_fragment());
        assert!(header.more_fragments());
        assert_eq!(header.fragment_offset(), 40);
        assert_eq!(header.time_to_live, 6);
        assert_eq!(header.protocol, IpProtocol(7));
        assert_eq!(header.header_checksum.get(), 0x0809);
        assert_eq!(header.source, [10, 11, 12, 13]);
        assert_eq!(header.destination, [14, 15, 16, 17]);
    }

    #[test]
    fn a_fragment_has_an_offset_or_more_to_come() {
        // flags and offset, is a fragment, offset in octets
        let cases = [
            (0x0000, false, 0),
            (0x4000, false, 0),
            (0x8000, false, 0),
            (0x2000, true, 0),
            (0x2001, true, 8),
            (0x0001, true, 8),
            (0x1fff, true, 65528),
        ];
        for (bits, fragment, offset) in cases {
            let mut header = header([0; 20]);
            header.flags_and_fragment_offset.set(bits);
            assert_eq!(header.is_fragment(), fragment, "{bits:#06x}");
            assert_eq!(header.fragment_offset(), offset, "{bits:#06x}");
        }
    }

    #[test]
    fn setting_dont_fragment_leaves_the_offset_alone() {
        let mut header = header([0; 20]);
        header.flags_and_fragment_offset.set(0x3fff);
        header.set_dont_fragment(true);
        assert_eq!(header.flags_and_fragment_offset.get(), 0x7fff);
        header.set_dont_fragment(false);
        assert_eq!(header.flags_and_fragment_offset.get(), 0x3fff);
    }
}
