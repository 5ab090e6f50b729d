//! What of a packet decides which worker it belongs to.

use crate::Annotation;
use crate::headers::{Headers, IpProtocol, Network, QuotedPacket, QuotedTransport, Transport};
use dpdk_rs::Mbuf;
use std::net::IpAddr;

/// Addresses and ports of a packet as it is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What stands behind the addresses.
    pub ports: Ports,
}

/// What tells one exchange between two hosts from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Ports {
    /// Source and destination port of TCP or UDP.
    Both(u16, u16),
    /// The identifier of an ICMP query, which stands for either port.
    Identifier(u16),
    /// Nothing: another protocol, or any fragment that is known by its bytes alone, the first one
    /// too, so that the fragments of a packet stay together.
    None,
}

impl Tuple {
    /// The tuple of a frame. An ICMP error counts as a packet of the flow that it is about, in
    /// the direction that it goes. `None` if the frame carries no IP packet that can be read, or one of
    /// Neighbor Discovery (RFC 4861), which is about a link and of no flow, as ARP is.
    #[inline]
    pub fn of_frame(frame: &mut [u8]) -> Option<Self> {
        Self::of_frame_and(frame, Ports::None)
    }

    /// The tuple of a packet: as [`Tuple::of_frame`], but that of a fragment has the ports that
    /// virtual reassembly has found ([`Annotation::ports`]).
    #[inline]
    pub fn of_packet(packet: &mut Mbuf) -> Option<Self> {
        let ports = Annotation::of(packet).ports.unwrap_or(Ports::None);
        Self::of_frame_and(packet.data_mut(), ports)
    }

    #[inline]
    fn of_frame_and(frame: &mut [u8], of_fragment: Ports) -> Option<Self> {
        let mut headers = Headers::parse(frame).ok()?;
        let (source, destination) = addresses(&headers.network)?;
        let ports = match &headers.transport {
            _ if headers.network.fragment().is_some() => of_fragment,
            Transport::Icmp(icmp) if icmp.message_type.has_identifier() => Ports::Identifier(icmp.identifier()),
            Transport::Icmpv6(icmp) if icmp.message_type.has_identifier() => Ports::Identifier(icmp.identifier()),
            Transport::Icmpv6(icmp) if matches!(icmp.message_type.0, 133..=137) => return None,
            Transport::Icmp(_) | Transport::Icmpv6(_) => match headers.quoted().and_then(|quoted| Self::of(&quoted)) {
                Some(quoted) => return Some(quoted.reversed()),
                None => Ports::None,
            },
            transport => {
                transport.ports().map_or(Ports::None, |(source, destination)| Ports::Both(source, destination))
            }
        };
        Some(Self { source, destination, ports })
    }

    /// The tuple of a packet that an error is about; `None` if its ports should be there and are not.
    fn of(quoted: &QuotedPacket<'_>) -> Option<Self> {
        let (source, destination) = addresses(&quoted.network)?;
        let ports = match &quoted.transport {
            QuotedTransport::Other(IpProtocol::TCP | IpProtocol::UDP) => return None,
            transport => match (transport.ports(), transport.identifier()) {
                (Some((source, destination)), _) => Ports::Both(source, destination),
                (None, Some(identifier)) => Ports::Identifier(identifier),
                (None, None) => Ports::None,
            },
        };
        Some(Self { source, destination, ports })
    }

    /// The other direction.
    #[must_use]
    #[inline]
    pub fn reversed(self) -> Self {
        let ports = match self.ports {
            Ports::Both(source, destination) => Ports::Both(destination, source),
            same => same,
        };
        Self { source: self.destination, destination: self.source, ports }
    }
}

#[inline]
fn addresses(network: &Network<'_>) -> Option<(IpAddr, IpAddr)> {
    match network {
        Network::Ipv4 { header, .. } => Some((header.source.into(), header.destination.into())),
        Network::Ipv6 { header, .. } => Some((header.source.into(), header.destination.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Frame, lab};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const ROUTER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9);

    fn tuple(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, ports: Ports) -> Option<Tuple> {
        Some(Tuple { source: source.into(), destination: destination.into(), ports })
    }

    /// The packet without its Ethernet header, as an error quotes it, cut to so many octets.
    fn quote(frame: &Frame, octets: usize) -> Vec<u8> {
        frame.build()[14..][..octets].to_vec()
    }

    #[test]
    fn a_packet_is_known_by_its_addresses_and_ports() {
        let v4 = || Frame::new().ipv4(A4, B4);
        let v6 = || Frame::new().ipv6(A6, B6);
        for (what, frame, expected) in [
            ("UDP", v4().udp(1, 2), tuple(A4, B4, Ports::Both(1, 2))),
            ("TCP behind two tags", v4().vlan(3).service_vlan(4).tcp(1, 2), tuple(A4, B4, Ports::Both(1, 2))),
            ("TCP behind options", v4().ipv4_options(&[1, 1, 1, 0]).tcp(5, 6), tuple(A4, B4, Ports::Both(5, 6))),
            ("UDP in IPv6", v6().udp(65535, 0), tuple(A6, B6, Ports::Both(65535, 0))),
            ("an echo request", v4().icmp_echo_request(7, 8), tuple(A4, B4, Ports::Identifier(7))),
            ("an echo reply of IPv6", v6().icmpv6_echo_reply(7, 8), tuple(A6, B6, Ports::Identifier(7))),
            ("another ICMP message", v6().icmpv6(132, 0, [0; 4]), tuple(A6, B6, Ports::None)),
            ("a router solicitation", v6().icmpv6(133, 0, [0; 4]), None),
            ("a neighbor advertisement", v6().icmpv6(136, 0, [0; 4]).payload(&[0; 16]), None),
            ("another protocol", v4().protocol(47).payload(&[0; 8]), tuple(A4, B4, Ports::None)),
            ("a first fragment", v4().udp(1, 2).payload(&[0; 16]).fragment(0, true), tuple(A4, B4, Ports::None)),
            ("a later fragment", v6().udp(1, 2).payload(&[0; 16]).fragment(8, false), tuple(A6, B6, Ports::None)),
            ("ARP", Frame::new().arp_request(A4, B4), None),
        ] {
            assert_eq!(Tuple::of_frame(&mut frame.build()), expected, "{what}");
        }
        assert_eq!(Tuple::of_frame(&mut v4().udp(1, 2).build()[..30]), None, "cut short");
    }

    #[test]
    fn a_fragment_has_the_ports_that_stand_beside_it_and_a_whole_packet_its_own() {
        lab(|lab| {
            let v4 = || Frame::new().ipv4(A4, B4).udp(1, 2).payload(&[0; 16]);
            let v6 = || Frame::new().ipv6(A6, B6).icmpv6_echo_request(7, 8).payload(&[0; 16]);
            let (both, identifier) = (Ports::Both(3, 4), Ports::Identifier(5));
            for (what, frame, ports, expected) in [
                ("a later fragment", v4().fragment(8, false), Some(both), tuple(A4, B4, both)),
                ("a first fragment", v4().fragment(0, true), Some(both), tuple(A4, B4, both)),
                ("one of another protocol", v4().fragment(8, true), Some(Ports::None), tuple(A4, B4, Ports::None)),
                ("one that nobody has looked at", v4().fragment(8, true), None, tuple(A4, B4, Ports::None)),
                ("a later fragment of IPv6", v6().fragment(8, false), Some(identifier), tuple(A6, B6, identifier)),
                ("an atomic fragment", v6().fragment(0, false), Some(both), tuple(A6, B6, Ports::Identifier(7))),
                ("a whole packet", v4(), Some(both), tuple(A4, B4, Ports::Both(1, 2))),
            ] {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(&frame.build()));
                Annotation { ports, ..Annotation::default() }.write(&mut packet);
                assert_eq!(Tuple::of_packet(&mut packet), expected, "{what}");
            }
        });
    }

    #[test]
    fn an_icmp_error_belongs_to_the_flow_that_it_is_about() {
        let v4 = || Frame::new().ipv4(A4, B4);
        let v6 = || Frame::new().ipv6(A6, B6);
        let error4 = |quoted: &[u8]| Frame::new().ipv4(ROUTER4, A4).icmp(11, 0, [0; 4]).payload(quoted);
        let error6 = |quoted: &[u8]| Frame::new().ipv6(ROUTER6, A6).icmpv6(2, 0, [0; 4]).payload(quoted);
        let at_least = quote(&v4().udp(1, 2).payload(&[0; 100]), 28);
        for (what, frame, expected) in [
            ("no more than it must", error4(&at_least), tuple(B4, A4, Ports::Both(2, 1))),
            ("TCP", error4(&quote(&v4().tcp(1, 2), 40)), tuple(B4, A4, Ports::Both(2, 1))),
            ("an echo request", error4(&quote(&v4().icmp_echo_request(7, 8), 28)), tuple(B4, A4, Ports::Identifier(7))),
            ("another error", error4(&quote(&v4().icmp(3, 0, [0; 4]), 28)), tuple(B4, A4, Ports::None)),
            (
                "a first fragment, of which errors are sent (RFC 1122 section 3.2.2)",
                error4(&quote(&v4().udp(1, 2).payload(&[0; 16]).fragment(0, true), 28)),
                tuple(B4, A4, Ports::Both(2, 1)),
            ),
            (
                "a later fragment",
                error6(&quote(&v6().udp(1, 2).payload(&[0; 16]).fragment(8, true), 56)),
                tuple(B6, A6, Ports::None),
            ),
            ("IPv6", error6(&quote(&v6().udp(1, 2), 48)), tuple(B6, A6, Ports::Both(2, 1))),
            (
                "IPv6 with an extension header",
                error6(&quote(&v6().extension(60, &[1, 4, 0, 0, 0, 0]).tcp(1, 2), 56)),
                tuple(B6, A6, Ports::Both(2, 1)),
            ),
            (
                "an echo of IPv6",
                error6(&quote(&v6().icmpv6_echo_request(7, 8), 48)),
                tuple(B6, A6, Ports::Identifier(7)),
            ),
            // Nothing to go by but the error's own addresses.
            ("ports cut off", error4(&at_least[..22]), tuple(ROUTER4, A4, Ports::None)),
            ("nothing quoted", error6(&[]), tuple(ROUTER6, A6, Ports::None)),
            ("the other version", error4(&quote(&v6().udp(1, 2), 48)), tuple(ROUTER4, A4, Ports::None)),
        ] {
            assert_eq!(Tuple::of_frame(&mut frame.build()), expected, "{what}");
        }
    }
}
