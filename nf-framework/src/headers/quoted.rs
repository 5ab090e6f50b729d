//! The packet that an ICMP error is about, as far as the error quotes it.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ipv6_extension::walk;
use super::{Headers, IcmpHeader, Icmpv6Header, IpProtocol, Ipv4Header, Ipv6Header, Network, Transport, UdpHeader};

/// The start of a packet that somebody could not deliver, mutable where it stands in the error
/// that came back: its IP header and at least 8 octets more in an ICMP error (RFC 792), mostly much
/// more (RFC 1812 section 4.3.2.3, RFC 4443 section 3).
///
/// Its lengths speak of the whole packet and are not checked against what is there, nor are its
/// checksums.
#[derive(Debug, PartialEq, Eq)]
pub struct QuotedPacket<'a> {
    /// The network layer.
    pub network: Network<'a>,
    /// The transport layer.
    pub transport: QuotedTransport<'a>,
}

/// What a quoted packet carried.
#[derive(Debug, PartialEq, Eq)]
pub enum QuotedTransport<'a> {
    /// UDP.
    Udp(&'a mut UdpHeader),
    /// TCP.
    Tcp {
        /// What an error quotes at least.
        start: &'a mut QuotedTcp,
        /// The checksum, if the quotation reaches that far.
        checksum: Option<&'a mut U16>,
    },
    /// ICMP in IPv4.
    Icmp(&'a mut IcmpHeader),
    /// ICMPv6 in IPv6.
    Icmpv6(&'a mut Icmpv6Header),
    /// A later fragment, which has no transport header.
    Fragment(IpProtocol),
    /// A protocol not understood here, or one whose header is cut short.
    Other(IpProtocol),
}

/// The first 8 octets of a TCP header, RFC 9293 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct QuotedTcp {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// The number of this segment's first octet, or of the SYN.
    pub sequence_number: U32,
}

impl Headers<'_> {
    /// The packet that this one, an ICMP or ICMPv6 error, quotes. `None` if it is no error, or
    /// quotes no IP header of its own version.
    #[inline]
    pub fn quoted(&mut self) -> Option<QuotedPacket<'_>> {
        match &self.transport {
            Transport::Icmp(icmp) if icmp.message_type.quotes_packet() => QuotedPacket::ipv4(self.payload),
            Transport::Icmpv6(icmp) if icmp.message_type.quotes_packet() => QuotedPacket::ipv6(self.payload),
            _ => None,
        }
    }
}

impl<'a> QuotedPacket<'a> {
    fn ipv4(bytes: &'a mut [u8]) -> Option<Self> {
        let (header, rest) = Ipv4Header::mut_from_prefix(bytes).ok()?;
        let options = header.header_length().checked_sub(Ipv4Header::LENGTH).filter(|_| header.version() == 4)?;
        let (options, rest) = rest.split_at_mut_checked(options)?;
        let transport = match header.protocol {
            protocol if header.fragment_offset() != 0 => QuotedTransport::Fragment(protocol),
            IpProtocol::ICMP => quoted_icmp(rest),
            protocol => QuotedTransport::with_ports(protocol, rest),
        };
        Some(Self { network: Network::Ipv4 { header, options }, transport })
    }

    fn ipv6(bytes: &'a mut [u8]) -> Option<Self> {
        let (header, rest) = Ipv6Header::mut_from_prefix(bytes).ok()?;
        let chain = walk(header.next_header, rest).ok().filter(|_| header.version() == 6)?;
        let (extensions, rest) = rest.split_at_mut_checked(chain.length)?;
        let transport = match chain.protocol {
            protocol if chain.fragment.is_some_and(|fragment| fragment.offset != 0) => {
                QuotedTransport::Fragment(protocol)
            }
            IpProtocol::ICMPV6 => quoted_icmpv6(rest),
            protocol => QuotedTransport::with_ports(protocol, rest),
        };
        Some(Self { network: Network::Ipv6 { header, extensions }, transport })
    }
}

fn quoted_icmp(bytes: &mut [u8]) -> QuotedTransport<'_> {
    let header = IcmpHeader::mut_from_prefix(bytes);
    header.map_or(QuotedTransport::Other(IpProtocol::ICMP), |(header, _)| QuotedTransport::Icmp(header))
}

fn quoted_icmpv6(bytes: &mut [u8]) -> QuotedTransport<'_> {
    let header = Icmpv6Header::mut_from_prefix(bytes);
    header.map_or(QuotedTransport::Other(IpProtocol::ICMPV6), |(header, _)| QuotedTransport::Icmpv6(header))
}

impl<'a> QuotedTransport<'a> {
    fn with_ports(protocol: IpProtocol, bytes: &'a mut [u8]) -> Self {
        match protocol {
            IpProtocol::UDP => {
                UdpHeader::mut_from_prefix(bytes).map_or(Self::Other(protocol), |(udp, _)| Self::Udp(udp))
            }
            IpProtocol::TCP => {
                let Ok((start, rest)) = QuotedTcp::mut_from_prefix(bytes) else { return Self::Other(protocol) };
                // Behind the start: acknowledgment number, data offset, flags and window.
                let checksum = rest.get_mut(8..).and_then(|rest| Some(U16::mut_from_prefix(rest).ok()?.0));
                Self::Tcp { start, checksum }
            }
            _ => Self::Other(protocol),
        }
    }

    /// The source and the destination port, of UDP and TCP.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Udp(udp) => Some((udp.source_port.get(), udp.destination_port.get())),
            Self::Tcp { start, .. } => Some((start.source_port.get(), start.destination_port.get())),
            _ => None,
        }
    }

    /// The identifier of an ICMP or ICMPv6 query.
    #[inline]
    #[must_use]
    pub fn identifier(&self) -> Option<u16> {
        match self {
            Self::Icmp(icmp) if icmp.message_type.has_identifier() => Some(icmp.identifier()),
            Self::Icmpv6(icmp) if icmp.message_type.has_identifier() => Some(icmp.identifier()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Frame;

    const A4: [u8; 4] = [192, 0, 2, 1];
    const B4: [u8; 4] = [198, 51, 100, 1];
    const A6: [u16; 8] = [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1];
    const B6: [u16; 8] = [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2];

    /// An error of A's router about the packet in this frame, of which it quotes so many octets.
    fn error(frame: &Frame, octets: usize) -> Vec<u8> {
        let packet = &frame.build()[14..];
        let (quoted, six) = (&packet[..octets.min(packet.len())], packet[0] >> 4 == 6);
        if six {
            Frame::new().ipv6(B6, A6).icmpv6(1, 0, [0; 4]).payload(quoted).build()
        } else {
            Frame::new().ipv4(B4, A4).icmp(3, 1, [0; 4]).payload(quoted).build()
        }
    }

    /// Ports, identifier, whether the TCP checksum is there; or nothing.
    type Seen = Option<(Option<(u16, u16)>, Option<u16>, bool)>;

    fn seen(mut frame: Vec<u8>) -> Seen {
        let mut headers = Headers::parse(&mut frame).unwrap();
        let quoted = headers.quoted()?;
        let checksum = matches!(quoted.transport, QuotedTransport::Tcp { checksum: Some(_), .. });
        Some((quoted.transport.ports(), quoted.transport.identifier(), checksum))
    }

    #[test]
    fn as_much_is_seen_as_is_quoted() {
        let v4 = || Frame::new().ipv4(A4, B4);
        let v6 = || Frame::new().ipv6(A6, B6);
        let ports = Some((1, 2));
        for (what, frame, expected) in [
            ("UDP, 8 octets", error(&v4().udp(1, 2).payload(&[0; 100]), 28), Some((ports, None, false))),
            ("TCP, 8 octets", error(&v4().tcp(1, 2), 28), Some((ports, None, false))),
            ("TCP, one short of its checksum", error(&v4().tcp(1, 2), 37), Some((ports, None, false))),
            ("TCP with its checksum", error(&v4().tcp(1, 2), 38), Some((ports, None, true))),
            ("TCP behind options", error(&v4().ipv4_options(&[1; 4]).tcp(1, 2), 44), Some((ports, None, true))),
            ("an echo request", error(&v4().icmp_echo_request(7, 8), 28), Some((None, Some(7), false))),
            ("an error", error(&v4().icmp(3, 1, [0; 4]), 28), Some((None, None, false))),
            (
                "a later fragment",
                error(&v4().udp(1, 2).payload(&[0; 16]).fragment(8, false), 28),
                Some((None, None, false)),
            ),
            ("UDP, 7 octets", error(&v4().udp(1, 2), 27), Some((None, None, false))),
            ("options cut short", error(&v4().ipv4_options(&[1; 4]).tcp(1, 2), 23), None),
            ("a header cut short", error(&v4().udp(1, 2), 19), None),
            ("nothing", error(&v4().udp(1, 2), 0), None),
            ("UDP in IPv6", error(&v6().udp(1, 2), 48), Some((ports, None, false))),
            (
                "TCP behind an extension header",
                error(&v6().extension(60, &[1, 4, 0, 0, 0, 0]).tcp(1, 2), 68),
                Some((ports, None, true)),
            ),
            ("an extension header cut short", error(&v6().extension(60, &[1, 4, 0, 0, 0, 0]).tcp(1, 2), 45), None),
            ("an echo of IPv6", error(&v6().icmpv6_echo_reply(7, 8), 48), Some((None, Some(7), false))),
            ("no error", v4().icmp_echo_request(7, 8).payload(&v4().udp(1, 2).build()[14..]).build(), None),
            ("no ICMP", v4().udp(1, 2).build(), None),
            (
                "the other version",
                Frame::new().ipv4(B4, A4).icmp(3, 1, [0; 4]).payload(&v6().udp(1, 2).build()[14..]).build(),
                None,
            ),
        ] {
            assert_eq!(seen(frame), expected, "{what}");
        }
    }

    #[test]
    fn what_is_written_is_written_to_the_error() {
        let mut frame = error(&Frame::new().ipv4(A4, B4).tcp(1, 2), 40);
        let mut headers = Headers::parse(&mut frame).unwrap();
        let quoted = headers.quoted().unwrap();
        let (Network::Ipv4 { header, .. }, QuotedTransport::Tcp { start, checksum }) =
            (quoted.network, quoted.transport)
        else {
            panic!("it is TCP in IPv4")
        };
        header.source = [10, 0, 0, 9];
        start.source_port.set(999);
        checksum.unwrap().set(0xabcd);
        // Ethernet 14, IPv4 20, ICMP 8, then the quotation.
        assert_eq!(frame[42 + 12..42 + 16], [10, 0, 0, 9]);
        assert_eq!(frame[62..64], 999_u16.to_be_bytes());
        assert_eq!(frame[78..80], [0xab, 0xcd]);
    }

    proptest! {
        #[test]
        fn no_quotation_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), six: bool) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 | *first & 0xf } else { 0x40 | *first & 0xf };
            }
            let frame = if six {
                Frame::new().ipv6(B6, A6).icmpv6(1, 0, [0; 4])
            } else {
                Frame::new().ipv4(B4, A4).icmp(3, 1, [0; 4])
            };
            let found = seen(frame.payload(&bytes).build());
            let header = if six { 40 } else { 20 };
            prop_assert!(found.is_none() || bytes.len() >= header);
        }
    }
}
