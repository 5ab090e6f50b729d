//! Why a frame was refused.

use core::fmt;

/// Why [`Headers::parse`](super::Headers::parse) refused a frame: one variant for each failure.
///
/// It is one byte, so a drop can carry it and a counter can be kept for each
/// ([`ALL`](Self::ALL) lists them, [`name`](Self::name) labels them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ParseError {
    /// The frame ends within the Ethernet header.
    EthernetShort,
    /// The frame ends within a VLAN tag.
    VlanShort,
    /// The frame ends within the ARP packet.
    ArpShort,
    /// The ARP packet does not map IPv4 to Ethernet addresses.
    ArpNotIpv4OverEthernet,
    /// The frame ends within the IPv4 header.
    Ipv4Short,
    /// The EtherType says IPv4, the header's version does not.
    Ipv4Version,
    /// The IPv4 header length is below 20 octets.
    Ipv4HeaderLength,
    /// The IPv4 total length does not cover the header.
    Ipv4TotalLengthBelowHeader,
    /// The IPv4 total length reaches beyond the frame.
    Ipv4TotalLengthBeyondFrame,
    /// The frame ends within the IPv6 header.
    Ipv6Short,
    /// The EtherType says IPv6, the header's version does not.
    Ipv6Version,
    /// The IPv6 payload length reaches beyond the frame.
    Ipv6PayloadLengthBeyondFrame,
    /// The packet ends within an IPv6 extension header.
    Ipv6ExtensionShort,
    /// More IPv6 extension headers than the parser walks.
    Ipv6TooManyExtensions,
    /// A second IPv6 fragment header.
    Ipv6RepeatedFragment,
    /// IPv6 hop-by-hop options behind another extension header (RFC 8200 section 4.1).
    Ipv6MisplacedHopByHop,
    /// The first fragment ends within the headers, all of which have to be in it (RFC 7112 for
    /// IPv6, RFC 1858 for IPv4).
    FirstFragmentShort,
    /// The packet ends within the UDP header.
    UdpShort,
    /// The UDP length does not cover the header.
    UdpLengthBelowHeader,
    /// The UDP length reaches beyond the packet.
    UdpLengthBeyondPacket,
    /// The packet ends within the TCP header.
    TcpShort,
    /// The TCP data offset is below 20 octets.
    TcpDataOffset,
    /// The TCP data offset reaches beyond the packet.
    TcpDataOffsetBeyondPacket,
    /// The packet ends within the ICMP header.
    IcmpShort,
    /// The packet ends within the ICMPv6 header.
    Icmpv6Short,
}

impl ParseError {
    /// Every variant, in the order of declaration: `ALL[error as usize] == error`.
    pub const ALL: [Self; 25] = [
        Self::EthernetShort,
        Self::VlanShort,
        Self::ArpShort,
        Self::ArpNotIpv4OverEthernet,
        Self::Ipv4Short,
        Self::Ipv4Version,
        Self::Ipv4HeaderLength,
        Self::Ipv4TotalLengthBelowHeader,
        Self::Ipv4TotalLengthBeyondFrame,
        Self::Ipv6Short,
        Self::Ipv6Version,
        Self::Ipv6PayloadLengthBeyondFrame,
        Self::Ipv6ExtensionShort,
        Self::Ipv6TooManyExtensions,
        Self::Ipv6RepeatedFragment,
        Self::Ipv6MisplacedHopByHop,
        Self::FirstFragmentShort,
        Self::UdpShort,
        Self::UdpLengthBelowHeader,
        Self::UdpLengthBeyondPacket,
        Self::TcpShort,
        Self::TcpDataOffset,
        Self::TcpDataOffsetBeyondPacket,
        Self::IcmpShort,
        Self::Icmpv6Short,
    ];

    /// What it is called when it is a first fragment that is refused.
    #[inline]
    pub(super) const fn of_first_fragment(self) -> Self {
        match self {
            Self::UdpShort | Self::TcpShort | Self::TcpDataOffsetBeyondPacket | Self::IcmpShort | Self::Icmpv6Short => {
                Self::FirstFragmentShort
            }
            other => other,
        }
    }

    /// A name for metrics: lower case, underscores between words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EthernetShort => "ethernet_short",
            Self::VlanShort => "vlan_short",
            Self::ArpShort => "arp_short",
            Self::ArpNotIpv4OverEthernet => "arp_not_ipv4_over_ethernet",
            Self::Ipv4Short => "ipv4_short",
            Self::Ipv4Version => "ipv4_version",
            Self::Ipv4HeaderLength => "ipv4_header_length",
            Self::Ipv4TotalLengthBelowHeader => "ipv4_total_length_below_header",
            Self::Ipv4TotalLengthBeyondFrame => "ipv4_total_length_beyond_frame",
            Self::Ipv6Short => "ipv6_short",
            Self::Ipv6Version => "ipv6_version",
            Self::Ipv6PayloadLengthBeyondFrame => "ipv6_payload_length_beyond_frame",
            Self::Ipv6ExtensionShort => "ipv6_extension_short",
            Self::Ipv6TooManyExtensions => "ipv6_too_many_extensions",
            Self::Ipv6RepeatedFragment => "ipv6_repeated_fragment",
            Self::Ipv6MisplacedHopByHop => "ipv6_misplaced_hop_by_hop",
            Self::FirstFragmentShort => "first_fragment_short",
            Self::UdpShort => "udp_short",
            Self::UdpLengthBelowHeader => "udp_length_below_header",
            Self::UdpLengthBeyondPacket => "udp_length_beyond_packet",
            Self::TcpShort => "tcp_short",
            Self::TcpDataOffset => "tcp_data_offset",
            Self::TcpDataOffsetBeyondPacket => "tcp_data_offset_beyond_packet",
            Self::IcmpShort => "icmp_short",
            Self::Icmpv6Short => "icmpv6_short",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EthernetShort => "the frame ends within the Ethernet header",
            Self::VlanShort => "the frame ends within a VLAN tag",
            Self::ArpShort => "the frame ends within the ARP packet",
            Self::ArpNotIpv4OverEthernet => "the ARP packet does not map IPv4 to Ethernet addresses",
            Self::Ipv4Short => "the frame ends within the IPv4 header",
            Self::Ipv4Version => "the version in the IPv4 header is not 4",
            Self::Ipv4HeaderLength => "the IPv4 header length is below 20 octets",
            Self::Ipv4TotalLengthBelowHeader => "the IPv4 total length does not cover the header",
            Self::Ipv4TotalLengthBeyondFrame => "the IPv4 total length reaches beyond the frame",
            Self::Ipv6Short => "the frame ends within the IPv6 header",
            Self::Ipv6Version => "the version in the IPv6 header is not 6",
            Self::Ipv6PayloadLengthBeyondFrame => "the IPv6 payload length reaches beyond the frame",
            Self::Ipv6ExtensionShort => "the packet ends within an IPv6 extension header",
            Self::Ipv6TooManyExtensions => "the packet has too many IPv6 extension headers",
            Self::Ipv6RepeatedFragment => "the packet has two IPv6 fragment headers",
            Self::Ipv6MisplacedHopByHop => "the packet has IPv6 hop-by-hop options behind another header",
            Self::FirstFragmentShort => "the first fragment ends within the headers",
            Self::UdpShort => "the packet ends within the UDP header",
            Self::UdpLengthBelowHeader => "the UDP length does not cover the header",
            Self::UdpLengthBeyondPacket => "the UDP length reaches beyond the packet",
            Self::TcpShort => "the packet ends within the TCP header",
            Self::TcpDataOffset => "the TCP data offset is below 20 octets",
            Self::TcpDataOffsetBeyondPacket => "the TCP data offset reaches beyond the packet",
            Self::IcmpShort => "the packet ends within the ICMP header",
            Self::Icmpv6Short => "the packet ends within the ICMPv6 header",
        })
    }
}

impl core::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_listed_at_its_own_place_under_its_own_name() {
        let mut names = Vec::new();
        for (index, error) in ParseError::ALL.into_iter().enumerate() {
            assert_eq!(error as usize, index, "{error:?}");
            assert!(!names.contains(&error.name()), "{error:?}");
            names.push(error.name());
        }
        // The last of the declaration is the last of the list, so none is missing.
        assert_eq!(ParseError::Icmpv6Short as usize + 1, ParseError::ALL.len());
    }
}
