//! The one walk over a frame that gives every layer at once.

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::ipv6_extension::walk;
use super::{
    ArpPacket, EtherType, EthernetHeader, IcmpHeader, Icmpv6Header, IpProtocol, Ipv4Header, Ipv6Header, MAX_VLAN_TAGS,
    ParseError, PseudoHeader, TcpHeader, UdpHeader, VlanTag,
};

/// All layers of one frame, each mutable, none overlapping another.
///
/// What follows the packet in the frame (Ethernet padding) belongs to no layer.
#[derive(Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// The Ethernet header.
    pub ethernet: &'a mut EthernetHeader,
    /// The VLAN tags, outermost first: none, one or two.
    pub vlan: &'a mut [VlanTag],
    /// The network layer.
    pub network: Network<'a>,
    /// The transport layer.
    pub transport: Transport<'a>,
    /// What the innermost header understood here carries.
    ///
    /// It ends where the IP length says, and for UDP where the UDP length says. Of a protocol
    /// not understood here it is everything to the end of the packet, and of an EtherType not
    /// understood here everything to the end of the frame. An ARP packet has none.
    pub payload: &'a mut [u8],
}

/// What the frame carries.
#[derive(Debug, PartialEq, Eq)]
pub enum Network<'a> {
    /// ARP for IPv4 over Ethernet.
    Arp(&'a mut ArpPacket),
    /// IPv4: version, lengths and header length are checked, the checksum is not.
    Ipv4 {
        /// The header without its options.
        header: &'a mut Ipv4Header,
        /// The options, 0 to 40 octets, uninterpreted.
        options: &'a mut [u8],
    },
    /// IPv6: version and lengths are checked.
    Ipv6 {
        /// The fixed header.
        header: &'a mut Ipv6Header,
        /// The extension headers: hop-by-hop options, destination options, routing, fragment and
        /// authentication, at most [`MAX_IPV6_EXTENSIONS`](super::MAX_IPV6_EXTENSIONS) of them.
        extensions: &'a mut [u8],
    },
    /// Something else, a third VLAN tag and an IEEE 802.3 length (below 1536) among it.
    Other(EtherType),
}

/// What the IP packet carries.
#[derive(Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// UDP. The length is checked, except in a first fragment, whose length field speaks of the
    /// whole datagram.
    Udp(&'a mut UdpHeader),
    /// TCP. The data offset is checked.
    Tcp {
        /// The header without its options.
        header: &'a mut TcpHeader,
        /// The options, 0 to 40 octets, uninterpreted.
        options: &'a mut [u8],
    },
    /// ICMP in IPv4.
    Icmp(&'a mut IcmpHeader),
    /// ICMPv6 in IPv6.
    Icmpv6(&'a mut Icmpv6Header),
    /// A later fragment of a packet of this protocol: the payload is data, and there are no
    /// ports. In IPv6 the protocol may be that of an extension header.
    Fragment(IpProtocol),
    /// A protocol not understood here.
    Other(IpProtocol),
    /// The frame carries no IP packet.
    None,
}

/// What a fragment says of its place in the original packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What the fragments of one packet have in common: 16 bits of it in IPv4.
    pub identification: u32,
    /// Where this fragment begins, in octets; a multiple of 8.
    pub offset: u16,
    /// Whether this is not the last one.
    pub more: bool,
}

/// How much of a packet is here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

/// Which protocol numbers mean what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Four,
    Six,
}

impl<'a> Headers<'a> {
    /// Walks the headers of `bytes`, a frame that begins with its Ethernet header.
    ///
    /// # Errors
    ///
    /// Where a header is cut short or contradicts itself or the frame. The bytes are never
    /// changed.
    // Always: a caller that asks for a few fields then pays for those alone. Left to itself the
    // compiler makes it a call that builds all of `Self` in memory, at twice the time.
    #[inline(always)]
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, ParseError> {
        let (ethernet, rest) = split::<EthernetHeader>(bytes, ParseError::EthernetShort)?;
        let (vlan, ether_type, rest) = split_tags(ethernet.ether_type, rest)?;
        let (network, transport, payload) = if ether_type == EtherType::IPV4 {
            split_ipv4(rest)?
        } else if ether_type == EtherType::IPV6 {
            split_ipv6(rest)?
        } else if ether_type == EtherType::ARP {
            split_arp(rest)?
        } else {
            (Network::Other(ether_type), Transport::None, rest)
        };
        Ok(Self { ethernet, vlan, network, transport, payload })
    }

    /// What the frame carries behind its Ethernet header and VLAN tags.
    #[inline]
    #[must_use]
    pub fn ether_type(&self) -> EtherType {
        match self.vlan.last() {
            Some(tag) => tag.ether_type,
            None => self.ethernet.ether_type,
        }
    }
}

impl Network<'_> {
    /// The packet's place in the packet that it is a fragment of; `None` if it is whole.
    ///
    /// An IPv6 packet with a fragment header but no other part (an atomic fragment, RFC 6946) is
    /// whole.
    #[inline]
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        match self {
            Self::Ipv4 { header, .. } if header.is_fragment() => Some(Fragment {
                identification: u32::from(header.identification.get()),
                offset: header.fragment_offset(),
                more: header.more_fragments(),
            }),
            Self::Ipv6 { header, extensions } if !extensions.is_empty() => {
                let fragment = walk(header.next_header, extensions).ok()?.fragment?;
                (fragment.part() != Part::Whole).then_some(fragment)
            }
            _ => None,
        }
    }

    /// What the checksums of the transports cover beside the transport.
    ///
    /// `None` if this is not IP, or if a routing header still has waypoints: then the final
    /// destination, which the checksum covers, is not in the fixed header (RFC 8200 section 8.1).
    #[inline]
    #[must_use]
    pub fn pseudo_header(&self) -> Option<PseudoHeader> {
        match self {
            Self::Ipv4 { header, .. } => {
                Some(PseudoHeader::Ipv4 { source: header.source, destination: header.destination })
            }
            Self::Ipv6 { header, extensions } => {
                let has_waypoints = !extensions.is_empty()
                    && walk(header.next_header, extensions).is_ok_and(|chain| chain.has_waypoints);
                (!has_waypoints)
                    .then_some(PseudoHeader::Ipv6 { source: header.source, destination: header.destination })
            }
            _ => None,
        }
    }
}

impl Transport<'_> {
    /// The source and the destination port, of UDP and TCP.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Udp(udp) => Some((udp.source_port.get(), udp.destination_port.get())),
            Self::Tcp { header, .. } => Some((header.source_port.get(), header.destination_port.get())),
            _ => None,
        }
    }

    /// The number of the protocol; `None` if the frame carries no IP packet.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Option<IpProtocol> {
        match self {
            Self::Udp(_) => Some(IpProtocol::UDP),
            Self::Tcp { .. } => Some(IpProtocol::TCP),
            Self::Icmp(_) => Some(IpProtocol::ICMP),
            Self::Icmpv6(_) => Some(IpProtocol::ICMPV6),
            Self::Fragment(protocol) | Self::Other(protocol) => Some(*protocol),
            Self::None => None,
        }
    }
}

impl Fragment {
    #[inline]
    fn part(self) -> Part {
        if self.offset != 0 {
            Part::Later
        } else if self.more {
            Part::First
        } else {
            Part::Whole
        }
    }
}

/// What is left of the frame behind the tags, parsed.
type Split<'a> = (Network<'a>, Transport<'a>, &'a mut [u8]);

#[inline(always)]
fn split<T: FromBytes + IntoBytes + KnownLayout>(
    bytes: &mut [u8],
    short: ParseError,
) -> Result<(&mut T, &mut [u8]), ParseError> {
    T::mut_from_prefix(bytes).map_err(|_| short)
}

#[inline(always)]
fn split_tags(outer: EtherType, bytes: &mut [u8]) -> Result<(&mut [VlanTag], EtherType, &mut [u8]), ParseError> {
    if !outer.is_vlan() {
        return Ok((&mut [], outer, bytes));
    }
    let mut count = 0;
    let mut ether_type = outer;
    let mut rest: &[u8] = bytes;
    while ether_type.is_vlan() && count < MAX_VLAN_TAGS {
        let (tag, after) = VlanTag::ref_from_prefix(rest).map_err(|_| ParseError::VlanShort)?;
        ether_type = tag.ether_type;
        rest = after;
        count += 1;
    }
    let (tags, rest) = <[VlanTag]>::mut_from_prefix_with_elems(bytes, count).map_err(|_| ParseError::VlanShort)?;
    Ok((tags, ether_type, rest))
}

#[inline(always)]
fn split_arp(bytes: &mut [u8]) -> Result<Split<'_>, ParseError> {
    let (arp, _padding) = split::<ArpPacket>(bytes, ParseError::ArpShort)?;
    if !arp.is_ipv4_over_ethernet() {
        return Err(ParseError::ArpNotIpv4OverEthernet);
    }
    Ok((Network::Arp(arp), Transport::None, &mut []))
}

#[inline(always)]
fn split_ipv4(bytes: &mut [u8]) -> Result<Split<'_>, ParseError> {
    let (header, rest) = split::<Ipv4Header>(bytes, ParseError::Ipv4Short)?;
    if header.version() != 4 {
        return Err(ParseError::Ipv4Version);
    }
    let options_length = header.header_length().checked_sub(Ipv4Header::LENGTH).ok_or(ParseError::Ipv4HeaderLength)?;
    let rest_length = usize::from(header.total_length.get())
        .checked_sub(Ipv4Header::LENGTH)
        .ok_or(ParseError::Ipv4TotalLengthBelowHeader)?;
    let rest = rest.get_mut(..rest_length).ok_or(ParseError::Ipv4TotalLengthBeyondFrame)?;
    let (options, rest) = rest.split_at_mut_checked(options_length).ok_or(ParseError::Ipv4TotalLengthBelowHeader)?;

    let part = if !header.is_fragment() {
        Part::Whole
    } else if header.fragment_offset() == 0 {
        Part::First
    } else {
        Part::Later
    };
    let (transport, payload) = split_transport(Version::Four, header.protocol, part, rest)?;
    Ok((Network::Ipv4 { header, options }, transport, payload))
}

#[inline(always)]
fn split_ipv6(bytes: &mut [u8]) -> Result<Split<'_>, ParseError> {
    let (header, rest) = split::<Ipv6Header>(bytes, ParseError::Ipv6Short)?;
    if header.version() != 6 {
        return Err(ParseError::Ipv6Version);
    }
    let rest =
        rest.get_mut(..usize::from(header.payload_length.get())).ok_or(ParseError::Ipv6PayloadLengthBeyondFrame)?;
    // Most packets have no extension header: they do not pay for the walk.
    let (length, protocol, part) = if header.next_header.is_ipv6_extension() {
        let chain = walk(header.next_header, rest)?;
        let part = chain.fragment.map_or(Part::Whole, Fragment::part);
        (chain.length, chain.protocol, part)
    } else {
        (0, header.next_header, Part::Whole)
    };
    let (extensions, rest) = rest.split_at_mut_checked(length).ok_or(ParseError::Ipv6ExtensionShort)?;
    let (transport, payload) = split_transport(Version::Six, protocol, part, rest)?;
    Ok((Network::Ipv6 { header, extensions }, transport, payload))
}

#[inline(always)]
fn split_transport(
    version: Version,
    protocol: IpProtocol,
    part: Part,
    bytes: &mut [u8],
) -> Result<(Transport<'_>, &mut [u8]), ParseError> {
    if part == Part::Later {
        return Ok((Transport::Fragment(protocol), bytes));
    }
    let split = split_transport_header(version, protocol, part, bytes);
    if part == Part::First { split.map_err(ParseError::of_first_fragment) } else { split }
}

#[inline(always)]
fn split_transport_header(
    version: Version,
    protocol: IpProtocol,
    part: Part,
    bytes: &mut [u8],
) -> Result<(Transport<'_>, &mut [u8]), ParseError> {
    match protocol {
        IpProtocol::TCP => split_tcp(bytes),
        IpProtocol::UDP => split_udp(part, bytes),
        IpProtocol::ICMP if version == Version::Four => {
            let (icmp, payload) = split::<IcmpHeader>(bytes, ParseError::IcmpShort)?;
            Ok((Transport::Icmp(icmp), payload))
        }
        IpProtocol::ICMPV6 if version == Version::Six => {
            let (icmpv6, payload) = split::<Icmpv6Header>(bytes, ParseError::Icmpv6Short)?;
            Ok((Transport::Icmpv6(icmpv6), payload))
        }
        other => Ok((Transport::Other(other), bytes)),
    }
}

#[inline(always)]
fn split_udp(part: Part, bytes: &mut [u8]) -> Result<(Transport<'_>, &mut [u8]), ParseError> {
    let (udp, rest) = split::<UdpHeader>(bytes, ParseError::UdpShort)?;
    let length =
        usize::from(udp.length.get()).checked_sub(UdpHeader::LENGTH).ok_or(ParseError::UdpLengthBelowHeader)?;
    let payload =
        if part == Part::First { rest } else { rest.get_mut(..length).ok_or(ParseError::UdpLengthBeyondPacket)? };
    Ok((Transport::Udp(udp), payload))
}

#[inline(always)]
fn split_tcp(bytes: &mut [u8]) -> Result<(Transport<'_>, &mut [u8]), ParseError> {
    let (header, rest) = split::<TcpHeader>(bytes, ParseError::TcpShort)?;
    let options_length = header.header_length().checked_sub(TcpHeader::LENGTH).ok_or(ParseError::TcpDataOffset)?;
    let (options, payload) = rest.split_at_mut_checked(options_length).ok_or(ParseError::TcpDataOffsetBeyondPacket)?;
    Ok((Transport::Tcp { header, options }, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::headers::{ArpOperation, IcmpType, Icmpv6Type, MAX_IPV6_EXTENSIONS, MacAddress, TcpFlags};
    use crate::testing::Frame;

    const A4: [u8; 4] = [192, 0, 2, 1];
    const B4: [u8; 4] = [198, 51, 100, 1];
    const A6: [u16; 8] = [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1];
    const B6: [u16; 8] = [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2];
    const ETHERNET: usize = 14;

    fn udp4() -> Frame {
        Frame::new().ipv4(A4, B4).udp(1000, 53).payload(b"hello")
    }

    fn tcp4() -> Frame {
        Frame::new().ipv4(A4, B4).tcp(1000, 80).payload(b"hello")
    }

    fn udp6() -> Frame {
        Frame::new().ipv6(A6, B6).udp(1000, 53).payload(b"hello")
    }

    #[test]
    fn each_layer_is_seen_and_the_payload_ends_where_its_length_says() {
        // description, frame, EtherType, tags, protocol, ports, payload
        type Case = (&'static str, Frame, EtherType, usize, Option<IpProtocol>, Option<(u16, u16)>, &'static [u8]);
        let v4 = EtherType::IPV4;
        let v6 = EtherType::IPV6;
        let udp = Some(IpProtocol::UDP);
        let tcp = Some(IpProtocol::TCP);
        let ports = Some((1000, 53));
        let cases: [Case; 19] = [
            ("UDP in IPv4", udp4(), v4, 0, udp, ports, b"hello"),
            ("padding", udp4().pad_to(60), v4, 0, udp, ports, b"hello"),
            ("UDP in IPv6", udp6(), v6, 0, udp, ports, b"hello"),
            ("padded", udp6().pad_to(90), v6, 0, udp, ports, b"hello"),
            ("TCP", tcp4(), v4, 0, tcp, Some((1000, 80)), b"hello"),
            ("one tag", udp4().vlan(7), v4, 1, udp, ports, b"hello"),
            ("two tags", udp4().service_vlan(7).vlan(8), v4, 2, udp, ports, b"hello"),
            ("IPv4 options", udp4().ipv4_options(&[1, 1, 1, 0]), v4, 0, udp, ports, b"hello"),
            (
                "TCP options",
                tcp4().tcp_options(&[2, 4, 5, 0xb4]).flags(TcpFlags::SYN),
                v4,
                0,
                tcp,
                Some((1000, 80)),
                b"hello",
            ),
            ("an empty datagram", Frame::new().ipv4(A4, B4).udp(1000, 53), v4, 0, udp, ports, b""),
            (
                "an echo request",
                Frame::new().ipv4(A4, B4).icmp_echo_request(1, 2).payload(b"hello"),
                v4,
                0,
                Some(IpProtocol::ICMP),
                None,
                b"hello",
            ),
            (
                "an ICMPv6 echo reply",
                Frame::new().ipv6(A6, B6).icmpv6_echo_reply(1, 2).payload(b"hello"),
                v6,
                0,
                Some(IpProtocol::ICMPV6),
                None,
                b"hello",
            ),
            (
                "another protocol",
                Frame::new().ipv4(A4, B4).protocol(47).payload(b"hello").pad_to(60),
                v4,
                0,
                Some(IpProtocol::GRE),
                None,
                b"hello",
            ),
            (
                "ICMPv6 in IPv4 is another protocol",
                Frame::new().ipv4(A4, B4).protocol(58).payload(b"hello"),
                v4,
                0,
                Some(IpProtocol::ICMPV6),
                None,
                b"hello",
            ),
            ("ARP", Frame::new().arp_request(A4, B4).pad_to(60), EtherType::ARP, 0, None, None, b""),
            (
                "another EtherType",
                Frame::new().ether_type(0x88cc).payload(b"hello"),
                EtherType::new(0x88cc),
                0,
                None,
                None,
                b"hello",
            ),
            (
                "a third tag is not walked",
                Frame::new().vlan(1).vlan(2).vlan(3).ether_type(0x88cc),
                EtherType::VLAN,
                2,
                None,
                None,
                &[0, 3, 0x88, 0xcc],
            ),
            ("a later fragment", udp4().fragment(16, false), v4, 0, udp, None, b"hello"),
            ("a later fragment of IPv6", udp6().fragment(16, false), v6, 0, udp, None, b"hello"),
        ];
        for (description, frame, ether_type, tags, protocol, ports, payload) in cases {
            let mut bytes = frame.build();
            let headers = Headers::parse(&mut bytes).expect(description);
            assert_eq!(headers.ether_type(), ether_type, "{description}");
            assert_eq!(headers.vlan.len(), tags, "{description}");
            assert_eq!(headers.transport.protocol(), protocol, "{description}");
            assert_eq!(headers.transport.ports(), ports, "{description}");
            assert_eq!(headers.payload, payload, "{description}");
            assert_eq!(headers.verify_checksums(), Ok(()), "{description}");
        }
    }

    #[test]
    fn the_views_read_what_the_builder_wrote() {
        let mut bytes = Frame::new()
            .ethernet([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8])
            .service_vlan(100)
            .vlan(200)
            .ipv4(A4, B4)
            .time_to_live(9)
            .identification(0x1234)
            .dont_fragment()
            .ipv4_options(&[7, 3, 4, 0])
            .tcp(1000, 80)
            .sequence_number(0x0102_0304)
            .acknowledgment_number(0x0506_0708)
            .flags(TcpFlags::SYN | TcpFlags::ACK)
            .window(512)
            .tcp_options(&[2, 4, 5, 0xb4])
            .build();
        let headers = Headers::parse(&mut bytes).unwrap();
        assert_eq!(headers.ethernet.source, MacAddress([2, 0, 0, 0, 0, 7]));
        assert_eq!(headers.ethernet.destination, MacAddress([2, 0, 0, 0, 0, 8]));
        assert_eq!(headers.ethernet.ether_type, EtherType::SERVICE_VLAN);
        assert_eq!(headers.vlan[0].id(), 100);
        assert_eq!(headers.vlan[0].ether_type, EtherType::VLAN);
        assert_eq!(headers.vlan[1].id(), 200);
        let Network::Ipv4 { header, options } = headers.network else {
            panic!("not IPv4");
        };
        assert_eq!((header.source, header.destination), (A4, B4));
        assert_eq!(header.time_to_live, 9);
        assert_eq!(header.identification.get(), 0x1234);
        assert!(header.dont_fragment() && !header.is_fragment());
        assert_eq!(header.header_length(), 24);
        assert_eq!(options, [7, 3, 4, 0]);
        let Transport::Tcp { header, options } = headers.transport else {
            panic!("not TCP");
        };
        assert_eq!(header.sequence_number.get(), 0x0102_0304);
        assert_eq!(header.acknowledgment_number.get(), 0x0506_0708);
        assert_eq!(header.flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(header.window.get(), 512);
        assert_eq!(options, [2, 4, 5, 0xb4]);

        let mut bytes = Frame::new().arp_reply(A4, B4).build();
        let headers = Headers::parse(&mut bytes).unwrap();
        let Network::Arp(arp) = headers.network else {
            panic!("not ARP");
        };
        assert_eq!(arp.operation, ArpOperation::REPLY);
        assert_eq!(arp.sender_hardware_address, headers.ethernet.source);
        assert_eq!(arp.target_hardware_address, headers.ethernet.destination);
        assert_eq!((arp.sender_protocol_address, arp.target_protocol_address), (A4, B4));

        let mut bytes = Frame::new().ipv4(A4, B4).icmp_echo_request(3, 4).build();
        let Transport::Icmp(icmp) = Headers::parse(&mut bytes).unwrap().transport else {
            panic!("not ICMP");
        };
        assert_eq!(icmp.message_type, IcmpType::ECHO_REQUEST);
        assert_eq!((icmp.code, icmp.identifier(), icmp.sequence_number()), (0, 3, 4));

        let mut bytes = Frame::new().ipv6(A6, B6).hop_limit(3).icmpv6_echo_request(3, 4).build();
        let headers = Headers::parse(&mut bytes).unwrap();
        let Network::Ipv6 { header, extensions } = headers.network else {
            panic!("not IPv6");
        };
        assert_eq!(header.hop_limit, 3);
        assert_eq!(header.destination[15], 2);
        assert!(extensions.is_empty());
        let Transport::Icmpv6(icmpv6) = headers.transport else {
            panic!("not ICMPv6");
        };
        assert_eq!(icmpv6.message_type, Icmpv6Type::ECHO_REQUEST);
        assert_eq!((icmpv6.identifier(), icmpv6.sequence_number()), (3, 4));
    }

    #[test]
    fn all_layers_are_written_at_once() {
        let mut bytes = udp4().vlan(1).build();
        let headers = Headers::parse(&mut bytes).unwrap();
        let Network::Ipv4 { header, .. } = headers.network else {
            panic!("not IPv4");
        };
        let Transport::Udp(udp) = headers.transport else {
            panic!("not UDP");
        };
        headers.ethernet.source = MacAddress([2, 0, 0, 0, 0, 99]);
        headers.vlan[0].set_id(2);
        header.source = [203, 0, 113, 5];
        udp.source_port.set(2000);
        headers.payload.copy_from_slice(b"HELLO");
        Headers::parse(&mut bytes).unwrap().fill_checksums();

        let expected = Frame::new()
            .ethernet([2, 0, 0, 0, 0, 99], Frame::DESTINATION)
            .vlan(2)
            .ipv4([203, 0, 113, 5], B4)
            .udp(2000, 53)
            .payload(b"HELLO");
        assert_eq!(bytes, expected.build());
    }

    #[test]
    fn a_malformed_frame_is_refused_for_its_own_reason() {
        const UDP: usize = ETHERNET + 20;
        const UDP_IN_6: usize = ETHERNET + 40;
        // description, frame, bytes to overwrite (offset, value), length to cut to, error
        type Case = (&'static str, Frame, &'static [(usize, u8)], usize, ParseError);
        let all = usize::MAX;
        let cases: [Case; 27] = [
            ("nothing", udp4(), &[], 0, ParseError::EthernetShort),
            ("13 octets", udp4(), &[], 13, ParseError::EthernetShort),
            ("half a tag", udp4().vlan(1), &[], 17, ParseError::VlanShort),
            ("half a second tag", udp4().vlan(1).vlan(2), &[], 21, ParseError::VlanShort),
            ("ARP of 27 octets", Frame::new().arp_request(A4, B4), &[], ETHERNET + 27, ParseError::ArpShort),
            (
                "ARP of other hardware",
                Frame::new().arp_request(A4, B4),
                &[(ETHERNET + 1, 6)],
                all,
                ParseError::ArpNotIpv4OverEthernet,
            ),
            (
                "ARP of longer addresses",
                Frame::new().arp_request(A4, B4),
                &[(ETHERNET + 5, 16)],
                all,
                ParseError::ArpNotIpv4OverEthernet,
            ),
            ("19 octets of IPv4", udp4(), &[], ETHERNET + 19, ParseError::Ipv4Short),
            ("version 6 in IPv4", udp4(), &[(ETHERNET, 0x65)], all, ParseError::Ipv4Version),
            ("a header of 16 octets", udp4(), &[(ETHERNET, 0x44)], all, ParseError::Ipv4HeaderLength),
            ("a total length of 0", udp4(), &[(ETHERNET + 3, 0)], all, ParseError::Ipv4TotalLengthBelowHeader),
            (
                "a total length of 20 with options",
                udp4().ipv4_options(&[1; 4]),
                &[(ETHERNET + 3, 20)],
                all,
                ParseError::Ipv4TotalLengthBelowHeader,
            ),
            (
                "a total length one beyond the frame",
                udp4(),
                &[(ETHERNET + 3, 20 + 8 + 6)],
                all,
                ParseError::Ipv4TotalLengthBeyondFrame,
            ),
            ("39 octets of IPv6", udp6(), &[], ETHERNET + 39, ParseError::Ipv6Short),
            ("version 4 in IPv6", udp6(), &[(ETHERNET, 0x40)], all, ParseError::Ipv6Version),
            (
                "a payload length one beyond the frame",
                udp6(),
                &[(ETHERNET + 5, 8 + 6)],
                all,
                ParseError::Ipv6PayloadLengthBeyondFrame,
            ),
            (
                "hop-by-hop options beyond the packet",
                udp6(),
                &[(ETHERNET + 6, 0), (UDP_IN_6 + 1, 200)],
                all,
                ParseError::Ipv6ExtensionShort,
            ),
            ("7 octets of UDP", udp4(), &[(ETHERNET + 3, 27)], all, ParseError::UdpShort),
            ("a UDP length of 7", udp4(), &[(UDP + 5, 7)], all, ParseError::UdpLengthBelowHeader),
            (
                "a UDP length one beyond the packet",
                udp4().pad_to(60),
                &[(UDP + 5, 8 + 6)],
                all,
                ParseError::UdpLengthBeyondPacket,
            ),
            ("19 octets of TCP", tcp4(), &[(ETHERNET + 3, 39)], all, ParseError::TcpShort),
            ("a data offset of 16 octets", tcp4(), &[(ETHERNET + 20 + 12, 0x40)], all, ParseError::TcpDataOffset),
            (
                "a data offset beyond the packet",
                tcp4().pad_to(64),
                &[(ETHERNET + 20 + 12, 0x70)],
                all,
                ParseError::TcpDataOffsetBeyondPacket,
            ),
            (
                "7 octets of ICMP",
                Frame::new().ipv4(A4, B4).icmp_echo_request(1, 1),
                &[(ETHERNET + 3, 27)],
                all,
                ParseError::IcmpShort,
            ),
            (
                "7 octets of ICMPv6",
                Frame::new().ipv6(A6, B6).icmpv6_echo_request(1, 1),
                &[(ETHERNET + 5, 7)],
                all,
                ParseError::Icmpv6Short,
            ),
            (
                "a first fragment without its TCP header",
                Frame::new().ipv4(A4, B4).protocol(6).payload(&[0; 16]).fragment(0, true),
                &[],
                all,
                ParseError::FirstFragmentShort,
            ),
            (
                "a first fragment whose UDP length is one that no datagram has",
                udp4().fragment(0, true),
                &[(UDP + 5, 7)],
                all,
                ParseError::UdpLengthBelowHeader,
            ),
        ];
        for (description, frame, changes, length, expected) in cases {
            let mut bytes = frame.build();
            for &(offset, value) in changes {
                bytes[offset] = value;
            }
            bytes.truncate(length);
            assert_eq!(Headers::parse(&mut bytes), Err(expected), "{description}");
        }
    }

    #[test]
    fn extension_headers_are_walked_up_to_the_bound() {
        let chain = |count: usize| (0..count).fold(udp6(), |frame, _| frame.extension(60, &[]));
        // description, frame, octets of extensions or the error
        let cases = [
            ("none", udp6(), Ok(0)),
            ("hop-by-hop", udp6().extension(0, &[5, 2, 0, 0]), Ok(8)),
            ("a long one", udp6().extension(60, &[0; 20]), Ok(24)),
            (
                "several",
                udp6().extension(0, &[]).extension(43, &[4, 0, 0, 0]).extension(51, &[0; 10]).extension(60, &[]),
                Ok(8 + 8 + 12 + 8),
            ),
            ("an atomic fragment", udp6().fragment(0, false), Ok(8)),
            ("a first fragment", udp6().fragment(0, true), Ok(8)),
            ("as many as allowed", chain(MAX_IPV6_EXTENSIONS), Ok(64)),
            ("one more", chain(MAX_IPV6_EXTENSIONS + 1), Err(ParseError::Ipv6TooManyExtensions)),
        ];
        for (description, frame, expected) in cases {
            let mut bytes = frame.build();
            let length = Headers::parse(&mut bytes).map(|headers| {
                assert_eq!(headers.transport.ports(), Some((1000, 53)), "{description}");
                assert_eq!(headers.payload, b"hello", "{description}");
                match headers.network {
                    Network::Ipv6 { extensions, .. } => extensions.len(),
                    other => panic!("{description}: {other:?}"),
                }
            });
            assert_eq!(length, expected, "{description}");
        }
    }

    #[test]
    fn f12_a_first_fragment_holds_all_headers_and_an_atomic_one_is_a_whole_packet() {
        let v4 =
            |protocol: u8, octets: usize| Frame::new().ipv4(A4, B4).protocol(protocol).payload(&vec![0x50; octets]);
        let v6 =
            |protocol: u8, octets: usize| Frame::new().ipv6(A6, B6).protocol(protocol).payload(&vec![0x50; octets]);
        let options = |protocol: u8, length: u8| [&[protocol, length], &[0; 6][..]].concat();
        let behind = |header: Vec<u8>| Frame::new().ipv6(A6, B6).protocol(60).payload(&header);
        let short = Err(ParseError::FirstFragmentShort);
        // description, packet, as a first fragment, as an atomic one
        let cases = [
            ("TCP", v6(6, 20), Ok(()), Ok(())),
            ("19 octets of TCP", v6(6, 19), short, Err(ParseError::TcpShort)),
            ("no octet of TCP", v6(6, 0), short, Err(ParseError::TcpShort)),
            ("UDP", v6(17, 8), Ok(()), Err(ParseError::UdpLengthBeyondPacket)),
            ("7 octets of UDP", v6(17, 7), short, Err(ParseError::UdpShort)),
            ("7 octets of ICMPv6", v6(58, 7), short, Err(ParseError::Icmpv6Short)),
            ("destination options that lead to nothing", behind(options(59, 0)), Ok(()), Ok(())),
            ("destination options, and then TCP", behind(options(6, 0)), short, Err(ParseError::TcpShort)),
            ("half of the destination options", behind(options(6, 1)), short, Err(ParseError::Ipv6ExtensionShort)),
            ("a protocol that nobody knows", v6(253, 0), Ok(()), Ok(())),
            ("19 octets of TCP in IPv4", v4(6, 19), short, Err(ParseError::TcpShort)),
            ("7 octets of ICMP in IPv4", v4(1, 7), short, Err(ParseError::IcmpShort)),
        ];
        for (description, packet, first, atomic) in cases {
            for (more, expected) in [(true, first), (false, atomic)] {
                let mut bytes = packet.clone().fragment(0, more).build();
                let fragment = Headers::parse(&mut bytes).map(|headers| headers.network.fragment().is_some());
                assert_eq!(fragment, expected.map(|()| more), "{description}, more {more}");
            }
        }
        let mut options_short = tcp4().tcp_options(&[1; 8]).fragment(0, true).build();
        options_short[ETHERNET + 3] = 40;
        assert_eq!(Headers::parse(&mut options_short), Err(ParseError::FirstFragmentShort), "TCP options cut off");
    }

    #[test]
    fn f12_hop_by_hop_options_stand_first_and_nothing_else_has_a_fixed_place() {
        // description, extension headers in order, error
        let cases = [
            ("first", &[0, 60, 43][..], None),
            ("twice", &[0, 0], Some(ParseError::Ipv6MisplacedHopByHop)),
            ("behind destination options", &[60, 0], Some(ParseError::Ipv6MisplacedHopByHop)),
            ("any order of the others", &[60, 51, 43, 60, 60], None),
        ];
        for (description, kinds, expected) in cases {
            let frame = kinds.iter().fold(udp6(), |frame, &kind| frame.extension(kind, &[]));
            assert_eq!(Headers::parse(&mut frame.build()).err(), expected, "{description}");
        }
    }

    #[test]
    fn f12_neighbour_discovery_is_read_behind_any_chain() {
        // RFC 4861: solicitations and advertisements; whether they may be fragmented (RFC 6980) is policy.
        for kind in 133..=137 {
            for frame in [Frame::new(), Frame::new().vlan(1), Frame::new().service_vlan(1).vlan(2)] {
                let frame = frame.ipv6(A6, B6).extension(0, &[]).extension(60, &[]).icmpv6(kind, 0, [0; 4]);
                let mut bytes = frame.payload(&[0; 16]).build();
                let Transport::Icmpv6(icmp) = Headers::parse(&mut bytes).unwrap().transport else {
                    panic!("{kind} is not ICMPv6");
                };
                assert_eq!(icmp.message_type, Icmpv6Type(kind));
            }
        }
    }

    #[test]
    fn every_fragment_tells_its_place_and_only_the_first_has_ports() {
        for frame in [udp4(), udp6(), tcp4()] {
            let frame = frame.payload(&[7; 100]).identification(0x1234);
            let mut payload = 0;
            let mut fragments = frame.build_fragments(48);
            let last = fragments.len() - 1;
            assert!(last >= 2);
            for (index, bytes) in fragments.iter_mut().enumerate() {
                let headers = Headers::parse(bytes).unwrap();
                let expected = Fragment {
                    identification: 0x1234,
                    offset: u16::try_from(index * 48).unwrap(),
                    more: index != last,
                };
                assert_eq!(headers.network.fragment(), Some(expected));
                assert_eq!(headers.transport.ports().is_some(), index == 0);
                let later = matches!(headers.transport, Transport::Fragment(_));
                assert_eq!(later, index != 0);
                payload += headers.payload.len();
            }
            assert_eq!(payload, 100);
        }
        for frame in [udp4(), udp6(), udp6().fragment(0, false)] {
            let mut bytes = frame.build();
            assert_eq!(Headers::parse(&mut bytes).unwrap().network.fragment(), None);
        }
    }

    #[test]
    fn the_udp_length_may_be_shorter_than_the_packet() {
        let mut bytes = udp4().build();
        bytes[ETHERNET + 20 + 5] = 8 + 2;
        assert_eq!(Headers::parse(&mut bytes).unwrap().payload, b"he");
    }

    /// Frames of every kind, to be mutated.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let kinds = vec![
            udp4(),
            udp4().vlan(1).ipv4_options(&[1; 8]),
            udp4().fragment(0, true),
            tcp4().service_vlan(1).vlan(2).tcp_options(&[1; 12]),
            Frame::new().ipv4(A4, B4).icmp_echo_request(1, 2),
            Frame::new().arp_request(A4, B4).pad_to(60),
            udp6(),
            udp6().extension(0, &[]).extension(43, &[4, 1]).fragment(0, true),
            udp6().extension(51, &[0; 10]).fragment(8, false),
            Frame::new().ipv6(A6, B6).tcp(1, 2).tcp_options(&[1; 40]),
            Frame::new().ipv6(A6, B6).icmpv6_echo_request(1, 2),
        ];
        proptest::sample::select(kinds).prop_map(|frame| frame.build())
    }

    /// Parses, walks everything that can be walked, and counts the octets of all layers.
    fn exercise(bytes: &mut [u8]) -> Result<usize, ParseError> {
        let mut headers = Headers::parse(bytes)?;
        let network = match &headers.network {
            Network::Arp(arp) => arp.as_bytes().len(),
            Network::Ipv4 { header, options } => header.as_bytes().len() + options.len(),
            Network::Ipv6 { header, extensions } => header.as_bytes().len() + extensions.len(),
            Network::Other(_) => 0,
        };
        let transport = match &headers.transport {
            Transport::Udp(udp) => udp.as_bytes().len(),
            Transport::Tcp { header, options } => header.as_bytes().len() + options.len(),
            Transport::Icmp(icmp) => icmp.as_bytes().len(),
            Transport::Icmpv6(icmpv6) => icmpv6.as_bytes().len(),
            Transport::Fragment(_) | Transport::Other(_) | Transport::None => 0,
        };
        let _ = (headers.network.fragment(), headers.verify_checksums());
        headers.fill_checksums();
        assert_eq!(headers.verify_checksums(), Ok(()));
        Ok(14 + headers.vlan.as_bytes().len() + network + transport + headers.payload.len())
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            ether_type in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8]),
        ) {
            let length = bytes.len();
            let _ = exercise(&mut bytes);
            if let Some(place) = bytes.get_mut(12..14) {
                place.copy_from_slice(&ether_type.to_be_bytes());
            }
            if let Ok(layers) = exercise(&mut bytes) {
                prop_assert!(layers <= length);
            }
        }

        #[test]
        fn no_mutation_of_a_valid_frame_makes_the_parser_panic(
            mut bytes in frames(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            for (index, value) in changes {
                *index.get_mut(&mut bytes) = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let length = bytes.len();
            if let Ok(layers) = exercise(&mut bytes) {
                prop_assert!(layers <= length);
            }
        }

        #[test]
        fn every_cut_of_a_frame_without_padding_is_refused(
            bytes in frames(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = bytes;
            let whole = exercise(&mut bytes);
            let length = *whole.as_ref().unwrap();
            bytes.truncate(cut.index(length));
            prop_assert!(exercise(&mut bytes).is_err());
        }
    }
}
