//! What a classifier is asked about.

use crate::headers::{Headers, IpProtocol, Network, TcpFlags, Transport};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What rules are asked about: the addresses and the protocol of a packet, and of ports, TCP
/// flags and ICMP type and code those that it has.
///
/// What a packet does not have matches no rule that asks for it, whatever it asks: a packet
/// without ports is not one with port 0.
///
/// | packet | ports | TCP flags | ICMP type and code |
/// |---|---|---|---|
/// | UDP | yes | | |
/// | TCP | yes | yes | |
/// | ICMP in IPv4, ICMPv6 in IPv6 | | | yes |
/// | another protocol, or ICMP in the wrong family | | | |
/// | a first fragment | as a whole packet | | |
/// | a later fragment | none, whatever the protocol | | |
///
/// So a rule with ports does not see later fragments: who filters by ports puts fragments
/// together first, or gives them the ports of their first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Key {
    pub(super) addresses: Addresses,
    pub(super) protocol: IpProtocol,
    /// Source and destination, as in the packet.
    pub(super) ports: [u8; 4],
    /// What the key has ([`PORTS`] and the like, and marks), TCP flags, ICMP type, ICMP code.
    pub(super) detail: [u8; 4],
}

/// Source and destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Addresses {
    V4(u32, u32),
    V6(u128, u128),
}

/// The key has ports.
pub(super) const PORTS: u8 = 1;
/// The key has TCP flags.
pub(super) const TCP_FLAGS: u8 = 2;
/// The key has an ICMP type and code.
pub(super) const ICMP: u8 = 4;
/// Marks stand above these.
pub(super) const MARKS_SHIFT: u32 = 3;

impl Key {
    /// The marks that there are: five.
    pub const MARKS: u8 = u8::MAX >> MARKS_SHIFT;

    /// A key of IPv4 without ports.
    #[inline]
    #[must_use]
    pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol) -> Self {
        Self::new(Addresses::V4(source.to_bits(), destination.to_bits()), protocol)
    }

    /// A key of IPv6 without ports. An IPv4-mapped address is an IPv6 address.
    #[inline]
    #[must_use]
    pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, protocol: IpProtocol) -> Self {
        Self::new(Addresses::V6(source.to_bits(), destination.to_bits()), protocol)
    }

    #[inline]
    fn new(addresses: Addresses, protocol: IpProtocol) -> Self {
        Self { addresses, protocol, ports: [0; 4], detail: [0; 4] }
    }

    /// The same with ports, source first.
    #[inline]
    #[must_use]
    pub fn ports(mut self, source: u16, destination: u16) -> Self {
        let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
        self.ports = [a, b, c, d];
        self.detail[0] |= PORTS;
        self
    }

    /// The same with TCP flags.
    #[inline]
    #[must_use]
    pub fn tcp_flags(mut self, flags: TcpFlags) -> Self {
        self.detail[0] |= TCP_FLAGS;
        self.detail[1] = flags.0;
        self
    }

    /// The same with the type and code of an ICMP or ICMPv6 message.
    #[inline]
    #[must_use]
    pub fn icmp(mut self, message_type: u8, code: u8) -> Self {
        let [has, flags, _, _] = self.detail;
        self.detail = [has | ICMP, flags, message_type, code];
        self
    }

    /// The same with marks, of [`Key::MARKS`]: what else is known of a packet, as the side that it comes from, for rules
    /// that ask for it ([`Rule::marks`](super::Rule::marks)).
    #[inline]
    #[must_use]
    pub fn marks(mut self, marks: u8) -> Self {
        self.detail[0] = self.detail[0] & !(Self::MARKS << MARKS_SHIFT) | marks << MARKS_SHIFT;
        self
    }

    /// The key of a packet; nothing when it is not IP.
    #[inline]
    #[must_use]
    pub fn of(headers: &Headers<'_>) -> Option<Self> {
        let protocol = headers.transport.protocol()?;
        let key = match &headers.network {
            Network::Ipv4 { header, .. } => Self::ipv4(header.source.into(), header.destination.into(), protocol),
            Network::Ipv6 { header, .. } => Self::ipv6(header.source.into(), header.destination.into(), protocol),
            _ => return None,
        };
        Some(match &headers.transport {
            Transport::Udp(udp) => key.ports(udp.source_port.get(), udp.destination_port.get()),
            Transport::Tcp { header, .. } => {
                key.ports(header.source_port.get(), header.destination_port.get()).tcp_flags(header.flags)
            }
            Transport::Icmp(icmp) => key.icmp(icmp.message_type.0, icmp.code),
            Transport::Icmpv6(icmp) => key.icmp(icmp.message_type.0, icmp.code),
            Transport::Fragment(_) | Transport::Other(_) | Transport::None => key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Frame;

    const A4: [u8; 4] = [192, 0, 2, 1];
    const B4: [u8; 4] = [198, 51, 100, 1];
    const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    #[test]
    fn a_packet_has_in_its_key_what_it_has_and_nothing_else() {
        let four = |protocol| Key::ipv4(A4.into(), B4.into(), protocol);
        let six = |protocol| Key::ipv6(A6.into(), B6.into(), protocol);
        let syn = TcpFlags::SYN;
        let v4 = || Frame::new().ipv4(A4, B4);
        let v6 = || Frame::new().ipv6(A6, B6);
        let cases = [
            ("udp", v4().udp(1, 2), Some(four(IpProtocol::UDP).ports(1, 2))),
            ("udp without ports is another key", v4().udp(0, 0), Some(four(IpProtocol::UDP).ports(0, 0))),
            ("tcp", v4().tcp(3, 4).flags(syn), Some(four(IpProtocol::TCP).ports(3, 4).tcp_flags(syn))),
            ("icmp", v4().icmp_echo_request(1, 2), Some(four(IpProtocol::ICMP).icmp(8, 0))),
            ("a first fragment", v4().udp(1, 2).fragment(0, true), Some(four(IpProtocol::UDP).ports(1, 2))),
            ("a later fragment", v4().udp(1, 2).fragment(8, true), Some(four(IpProtocol::UDP))),
            ("udp in v6", v6().udp(1, 2), Some(six(IpProtocol::UDP).ports(1, 2))),
            ("icmpv6", v6().icmpv6_echo_request(1, 2), Some(six(IpProtocol::ICMPV6).icmp(128, 0))),
            ("a later fragment in v6", v6().udp(1, 2).fragment(8, false), Some(six(IpProtocol::UDP))),
            ("arp", Frame::new().arp_request(A4, B4), None),
        ];
        assert_ne!(four(IpProtocol::UDP), four(IpProtocol::UDP).ports(0, 0));
        for (description, frame, expected) in cases {
            let mut bytes = frame.build();
            let headers = Headers::parse(&mut bytes).unwrap();
            assert_eq!(Key::of(&headers), expected, "{description}");
        }
    }
}
