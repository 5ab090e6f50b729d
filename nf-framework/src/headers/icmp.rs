//! The header of ICMP messages.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first 8 octets of an ICMP message, RFC 792.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    /// What the message is.
    pub message_type: IcmpType,
    /// Which of its kind the message is.
    pub code: u8,
    /// The Internet checksum of the whole message.
    pub checksum: U16,
    /// What these 4 octets mean depends on the type.
    pub rest_of_header: [u8; 4],
}

/// What an ICMP message is, RFC 792, as IANA registers the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct IcmpType(pub u8);

impl IcmpHeader {
    /// Octets in the header.
    pub const LENGTH: usize = 8;

    /// What tells one echo exchange from another; meaningful where
    /// [`IcmpType::has_identifier`] says so.
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
    /// [`IcmpType::has_identifier`] says so.
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

impl IcmpType {
    /// The answer to an echo request.
    pub const ECHO_REPLY: Self = Self(0);
    /// A packet could not be delivered; the code says why.
    pub const DESTINATION_UNREACHABLE: Self = Self(3);
    /// Asks the sender to send more slowly; RFC 6633 says that nobody does so any more.
    pub const SOURCE_QUENCH: Self = Self(4);
    /// Another router is nearer.
    pub const REDIRECT: Self = Self(5);
    /// Asks for an echo reply.
    pub const ECHO_REQUEST: Self = Self(8);
    /// A packet's time to live, or its reassembly time, ran out.
    pub const TIME_EXCEEDED: Self = Self(11);
    /// A header field of a packet could not be processed.
    pub const PARAMETER_PROBLEM: Self = Self(12);
    /// Asks for a timestamp reply.
    pub const TIMESTAMP: Self = Self(13);
    /// The answer to a timestamp message.
    pub const TIMESTAMP_REPLY: Self = Self(14);

    /// Whether messages of this type carry an identifier and a sequence number.
    #[inline]
    #[must_use]
    pub const fn has_identifier(self) -> bool {
        matches!(self, Self::ECHO_REPLY | Self::ECHO_REQUEST | Self::TIMESTAMP | Self::TIMESTAMP_REPLY)
    }

    /// Whether messages of this type are errors about a packet of a connection. What else quotes packets is of none: redirects
    /// are for the link (RFC 1122 section 3.2.2), and nobody sends quenches (RFC 6633).
    #[inline]
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(self, Self::DESTINATION_UNREACHABLE | Self::TIME_EXCEEDED | Self::PARAMETER_PROBLEM)
    }

    /// Whether messages of this type quote the packet that they are about.
    #[inline]
    #[must_use]
    pub const fn quotes_packet(self) -> bool {
        matches!(
            self,
            Self::DESTINATION_UNREACHABLE
                | Self::SOURCE_QUENCH
                | Self::REDIRECT
                | Self::TIME_EXCEEDED
                | Self::PARAMETER_PROBLEM
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_and_sequence_number_share_the_rest_of_the_header() {
        let octets = [8u8, 0, 0xab, 0xcd, 1, 2, 3, 4];
        let mut header: IcmpHeader = zerocopy::transmute!(octets);
        assert_eq!(header.message_type, IcmpType::ECHO_REQUEST);
        assert_eq!(header.checksum.get(), 0xabcd);
        assert_eq!(header.identifier(), 0x0102);
        assert_eq!(header.sequence_number(), 0x0304);
        header.set_identifier(0x0506);
        assert_eq!(header.rest_of_header, [5, 6, 3, 4]);
        header.set_sequence_number(0x0708);
        assert_eq!(header.rest_of_header, [5, 6, 7, 8]);
    }
}
