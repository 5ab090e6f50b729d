//! The TCP header and its flags.

use core::fmt;
use core::ops::BitOr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A TCP header without its options, RFC 9293 section 3.1: 20 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// The number of this segment's first octet, or of the SYN.
    pub sequence_number: U32,
    /// The number of the octet that the sender expects next.
    pub acknowledgment_number: U32,
    /// Data offset in 32-bit words (4 bits) and reserved (4 bits).
    pub data_offset_and_reserved: u8,
    /// What the segment does.
    pub flags: TcpFlags,
    /// Octets that the sender would take, before scaling.
    pub window: U16,
    /// The Internet checksum of pseudo-header, header, options and payload.
    pub checksum: U16,
    /// Where urgent data ends, as an offset from the sequence number.
    pub urgent_pointer: U16,
}

/// The control bits of a TCP segment, RFC 9293 section 3.1, under their registered names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpHeader {
    /// Octets in a header without options.
    pub const LENGTH: usize = 20;

    /// Octets from the start of this header to the data: 20 to 60 in every header that the
    /// parser gave.
    #[inline]
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.data_offset_and_reserved >> 4) * 4
    }
}

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers: a connection begins.
    pub const SYN: Self = Self(0x02);
    /// Reset: the connection is refused or broken off.
    pub const RST: Self = Self(0x04);
    /// Push: hand the data to the application now.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Echo of a congestion mark, RFC 3168.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced, RFC 3168.
    pub const CWR: Self = Self(0x80);

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any of `flags` is set.
    #[inline]
    #[must_use]
    pub const fn intersects(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<TcpFlags> for u8 {
    fn from(flags: TcpFlags) -> Self {
        flags.0
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(TcpFlags, &str); 8] = [
            (TcpFlags::FIN, "FIN"),
            (TcpFlags::SYN, "SYN"),
            (TcpFlags::RST, "RST"),
            (TcpFlags::PSH, "PSH"),
            (TcpFlags::ACK, "ACK"),
            (TcpFlags::URG, "URG"),
            (TcpFlags::ECE, "ECE"),
            (TcpFlags::CWR, "CWR"),
        ];
        f.write_str("TcpFlags(")?;
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = " ";
            }
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_tested_and_joined() {
        let both = TcpFlags::SYN | TcpFlags::ACK;
        assert_eq!(both, TcpFlags(0x12));
        assert_eq!(format!("{both:?}"), "TcpFlags(SYN ACK)");
        assert_eq!(format!("{:?}", TcpFlags(0)), "TcpFlags()");
        // flags asked for, all set, any set
        let cases = [
            (TcpFlags::SYN, true, true),
            (both, true, true),
            (TcpFlags::SYN | TcpFlags::FIN, false, true),
            (TcpFlags::RST, false, false),
        ];
        for (flags, all, any) in cases {
            assert_eq!(both.contains(flags), all, "{flags:?}");
            assert_eq!(both.intersects(flags), any, "{flags:?}");
        }
    }

    #[test]
    fn every_field_is_where_the_rfc_draws_it() {
        let octets = [0u8, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x6f, 0x12, 0, 5, 0, 6, 0, 7];
        let header: TcpHeader = zerocopy::transmute!(octets);
        assert_eq!(header.source_port.get(), 1);
        assert_eq!(header.destination_port.get(), 2);
        assert_eq!(header.sequence_number.get(), 3);
        assert_eq!(header.acknowledgment_number.get(), 4);
        assert_eq!(header.header_length(), 24);
        assert_eq!(header.flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(header.window.get(), 5);
        assert_eq!(header.checksum.get(), 6);
        assert_eq!(header.urgent_pointer.get(), 7);
    }
}
