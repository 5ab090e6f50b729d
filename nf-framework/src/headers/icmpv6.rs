//! The header of ICMPv6 messages.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first 8 octets of an ICMPv6 message, RFC 4443 section 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmpv6Header {
    /// What the message is.
    pub message_type: Icmpv6Type,
    /// Which of its kind the message is.
    pub code: u8,
    /// The Internet checksum of pseudo-header and message.
    pub checksum: U16,
    /// What these 4 octets mean depends on the type.
    pub rest_of_header: [u8; 4],
}

/// What an ICMPv6 message is, RFC 4443 and RFC 4861, as IANA registers the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Icmpv6Type(pub u8);

impl Icmpv6Header {
    /// Octets in the header.
    pub const LENGTH: usize = 8;

    /// What tells one echo exchange from another; meaningful where
    /// [`Icmpv6Type::has_identifier`] says so.
    #[inline]
    #[must_use]
    pub fn identifier(&self) -> u16 {
        let [high, low, _, _] = self.rest_of_header;
        u16::from_be_bytes([high, low])
    }

    /// Writes the identifier.
    #[inline]
    pub fn set_identifier(&mut self, identifier: u16) {
        let [_, _, c, d] = self.rest_of_header;
        let [a, b] = identifier.to_be_bytes();
        self.rest_of_header = [a, b, c, d];
    }

    /// The number of a message within its exchange; meaningful where
    /// [`Icmpv6Type::has_identifier`] says so.
    #[inline]
    #[must_use]
    pub fn sequence_number(&self) -> u16 {
        let [_, _, high, low] = self.rest_of_header;
        u16::from_be_bytes([high, low])
    }

    /// Writes the sequence number.
    #[inline]
    pub fn set_sequence_number(&mut self, sequence_number: u16) {
        let [a, b, _, _] = self.rest_of_header;
        let [c, d] = sequence_number.to_be_bytes();
        self.rest_of_header = [a, b, c, d];
    }
}

impl Icmpv6Type {
    /// A packet could not be delivered; the code says why.
    pub const DESTINATION_UNREACHABLE: Self = Self(1);
    /// A packet was larger than the next link's MTU.
    pub const PACKET_TOO_BIG: Self = Self(2);
    /// A packet's hop limit, or its reassembly time, ran out.
    pub const TIME_EXCEEDED: Self = Self(3);
    /// A header field of a packet could not be processed.
    pub const PARAMETER_PROBLEM: Self = Self(4);
    /// Asks for an echo reply.
    pub const ECHO_REQUEST: Self = Self(128);
    /// The answer to an echo request.
    pub const ECHO_REPLY: Self = Self(129);
    /// Asks for router advertisements.
    pub const ROUTER_SOLICITATION: Self = Self(133);
    /// A router tells of itself.
    pub const ROUTER_ADVERTISEMENT: Self = Self(134);
    /// Asks for a neighbor's link-layer address.
    pub const NEIGHBOR_SOLICITATION: Self = Self(135);
    /// A neighbor tells its link-layer address.
    pub const NEIGHBOR_ADVERTISEMENT: Self = Self(136);
    /// Another router is nearer.
    pub const REDIRECT: Self = Self(137);

    /// Whether messages of this type carry an identifier and a sequence number.
    #[inline]
    #[must_use]
    pub const fn has_identifier(self) -> bool {
        matches!(self, Self::ECHO_REQUEST | Self::ECHO_REPLY)
    }

    /// Whether messages of this type are the errors of RFC 4443 section 3.
    #[inline]
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(self.0, 1..=4)
    }

    /// Whether messages of this type quote the packet that they are about: the errors, whose
    /// numbers are below 128 (RFC 4443 section 2.1).
    #[inline]
    #[must_use]
    pub const fn quotes_packet(self) -> bool {
        self.0 < 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_and_sequence_number_share_the_rest_of_the_header() {
        let octets = [128u8, 0, 0xab, 0xcd, 1, 2, 3, 4];
        let mut header: Icmpv6Header = zerocopy::transmute!(octets);
        assert_eq!(header.message_type, Icmpv6Type::ECHO_REQUEST);
        assert_eq!(header.checksum.get(), 0xabcd);
        assert_eq!(header.identifier(), 0x0102);
        assert_eq!(header.sequence_number(), 0x0304);
        header.set_identifier(0x0506);
        assert_eq!(header.rest_of_header, [5, 6, 3, 4]);
        header.set_sequence_number(0x0708);
        assert_eq!(header.rest_of_header, [5, 6, 7, 8]);
    }
}
