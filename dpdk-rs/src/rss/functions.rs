//! Which headers a device hashes.

use dpdk_sys as sys;
use std::fmt;

/// Which packets a device hashes, and by what: a set of `RTE_ETH_RSS_*` bits.
///
/// The constants here leave out the functions for IPv6 extension headers
/// (`RTE_ETH_RSS_IPV6_EX` and the like): they hash an address that the sender wrote into an
/// extension header in place of the one that the packet came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RssFunctions(pub u64);

impl RssFunctions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// IPv4 by addresses: all that is not hashed with ports. Some devices have one function for
    /// that, others one for fragments and one for the rest.
    pub const IPV4: Self =
        Self(sys::RTE_ETH_RSS_IPV4 | sys::RTE_ETH_RSS_FRAG_IPV4 | sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER);
    /// TCP over IPv4 by addresses and ports.
    pub const IPV4_TCP: Self = Self(sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP);
    /// UDP over IPv4 by addresses and ports.
    pub const IPV4_UDP: Self = Self(sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP);
    /// IPv6 by addresses, as [`IPV4`](Self::IPV4).
    pub const IPV6: Self =
        Self(sys::RTE_ETH_RSS_IPV6 | sys::RTE_ETH_RSS_FRAG_IPV6 | sys::RTE_ETH_RSS_NONFRAG_IPV6_OTHER);
    /// TCP over IPv6 by addresses and ports.
    pub const IPV6_TCP: Self = Self(sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP);
    /// UDP over IPv6 by addresses and ports.
    pub const IPV6_UDP: Self = Self(sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP);
    /// IPv4 by addresses, with the ports of TCP and UDP.
    pub const IPV4_FLOWS: Self = Self(Self::IPV4.0 | Self::IPV4_TCP.0 | Self::IPV4_UDP.0);
    /// IPv6 by addresses, with the ports of TCP and UDP.
    pub const IPV6_FLOWS: Self = Self(Self::IPV6.0 | Self::IPV6_TCP.0 | Self::IPV6_UDP.0);
    /// Addresses of both families, with the ports of TCP and UDP.
    pub const FLOWS: Self = Self(Self::IPV4_FLOWS.0 | Self::IPV6_FLOWS.0);

    /// What of this set a device lacks that has `offered`. The one function for all of an IP
    /// version and the two for fragments and the rest stand for each other.
    #[must_use]
    pub fn missing_from(self, offered: Self) -> Self {
        let whole_and_parts = [
            (sys::RTE_ETH_RSS_IPV4, sys::RTE_ETH_RSS_FRAG_IPV4 | sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER),
            (sys::RTE_ETH_RSS_IPV6, sys::RTE_ETH_RSS_FRAG_IPV6 | sys::RTE_ETH_RSS_NONFRAG_IPV6_OTHER),
        ];
        let covered = whole_and_parts.into_iter().fold(offered.0, |covered, (whole, parts)| {
            if offered.0 & whole != 0 || offered.0 & parts == parts { covered | whole | parts } else { covered }
        });
        Self(self.0 & !covered)
    }
}

impl std::ops::BitOr for RssFunctions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitAnd for RssFunctions {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// By the names that testpmd has for them; what has none here as a number.
impl fmt::Display for RssFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("ipv4", sys::RTE_ETH_RSS_IPV4),
            ("ipv4-frag", sys::RTE_ETH_RSS_FRAG_IPV4),
            ("ipv4-tcp", sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP),
            ("ipv4-udp", sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP),
            ("ipv4-sctp", sys::RTE_ETH_RSS_NONFRAG_IPV4_SCTP),
            ("ipv4-other", sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER),
            ("ipv6", sys::RTE_ETH_RSS_IPV6),
            ("ipv6-frag", sys::RTE_ETH_RSS_FRAG_IPV6),
            ("ipv6-tcp", sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP),
            ("ipv6-udp", sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP),
            ("ipv6-sctp", sys::RTE_ETH_RSS_NONFRAG_IPV6_SCTP),
            ("ipv6-other", sys::RTE_ETH_RSS_NONFRAG_IPV6_OTHER),
        ];
        let (mut rest, mut between) = (self.0, "");
        for (name, bit) in names {
            if self.0 & bit != 0 {
                write!(f, "{between}{name}")?;
                (rest, between) = (rest & !bit, ", ");
            }
        }
        match (rest, self.0) {
            (_, 0) => f.write_str("none"),
            (0, _) => Ok(()),
            _ => write!(f, "{between}{rest:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_lacks_what_it_has_under_neither_name() {
        let whole = RssFunctions(sys::RTE_ETH_RSS_IPV4);
        let fragments = RssFunctions(sys::RTE_ETH_RSS_FRAG_IPV4);
        let parts = fragments | RssFunctions(sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER);
        for (need, offered, missing) in [
            (RssFunctions::IPV4, RssFunctions::IPV4, "none"),
            (RssFunctions::IPV4, whole, "none"),
            (RssFunctions::IPV4, parts, "none"),
            (RssFunctions::IPV4, fragments, "ipv4, ipv4-other"),
            (RssFunctions::IPV4, RssFunctions::IPV6_FLOWS, "ipv4, ipv4-frag, ipv4-other"),
            (RssFunctions::IPV4_FLOWS, whole | RssFunctions::IPV4_TCP, "ipv4-udp"),
            (RssFunctions::IPV6, RssFunctions(sys::RTE_ETH_RSS_IPV6), "none"),
            (RssFunctions::FLOWS, RssFunctions::IPV4_FLOWS, "ipv6, ipv6-frag, ipv6-tcp, ipv6-udp, ipv6-other"),
            (RssFunctions::FLOWS, RssFunctions(u64::MAX), "none"),
            (RssFunctions(sys::RTE_ETH_RSS_L2_PAYLOAD | 1 << 63), RssFunctions::FLOWS, "0x8000000000004000"),
            (whole | RssFunctions(1 << 63), RssFunctions::NONE, "ipv4, 0x8000000000000000"),
        ] {
            assert_eq!(need.missing_from(offered).to_string(), missing, "{need} of {offered}");
        }
    }
}
