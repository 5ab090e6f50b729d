//! The numbers of the protocols that IP carries.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An assigned Internet protocol number: IPv4's protocol field (RFC 791 section 3.1) and IPv6's
/// next header field (RFC 8200 section 3), as IANA registers them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP_OPTIONS: Self = Self(0);
    /// Internet Control Message Protocol, of IPv4.
    pub const ICMP: Self = Self(1);
    /// Internet Group Management Protocol.
    pub const IGMP: Self = Self(2);
    /// IPv4 in IP.
    pub const IPV4: Self = Self(4);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// IPv6 in IP.
    pub const IPV6: Self = Self(41);
    /// IPv6 routing header.
    pub const IPV6_ROUTE: Self = Self(43);
    /// IPv6 fragment header.
    pub const IPV6_FRAGMENT: Self = Self(44);
    /// Generic Routing Encapsulation.
    pub const GRE: Self = Self(47);
    /// Encapsulating Security Payload.
    pub const ENCAPSULATING_SECURITY_PAYLOAD: Self = Self(50);
    /// Authentication header.
    pub const AUTHENTICATION_HEADER: Self = Self(51);
    /// Internet Control Message Protocol of IPv6.
    pub const ICMPV6: Self = Self(58);
    /// No next header: nothing follows in an IPv6 packet.
    pub const IPV6_NO_NEXT_HEADER: Self = Self(59);
    /// IPv6 destination options.
    pub const IPV6_DESTINATION_OPTIONS: Self = Self(60);
    /// Virtual Router Redundancy Protocol.
    pub const VRRP: Self = Self(112);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);

    /// Whether the IPv6 parser walks over this header to find the transport behind it.
    #[inline]
    #[must_use]
    pub const fn is_ipv6_extension(self) -> bool {
        matches!(
            self,
            Self::HOP_BY_HOP_OPTIONS
                | Self::IPV6_ROUTE
                | Self::IPV6_FRAGMENT
                | Self::AUTHENTICATION_HEADER
                | Self::IPV6_DESTINATION_OPTIONS
        )
    }
}

impl From<u8> for IpProtocol {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
