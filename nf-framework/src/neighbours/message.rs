//! What neighbours say to each other: ARP (RFC 826) and Neighbour Discovery (RFC 4861).

use crate::headers::checksum;
use crate::headers::{
    ArpOperation, ArpPacket, EtherType, EthernetHeader, Headers, Icmpv6Header, Icmpv6Type, IpProtocol, Ipv6Header,
    MacAddress, Network, PseudoHeader, Transport, U16, U32,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a frame says, checked as far as that can be without knowing who receives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// ARP, either operation.
    Arp { is_request: bool, sender: Ipv4Addr, mac: MacAddress, target: Ipv4Addr },
    /// A neighbour solicitation.
    Solicitation {
        /// `None` when the sender asks for an address that it wants to have (RFC 4862 section 5.4).
        source: Option<Ipv6Addr>,
        /// The frame's source.
        station: MacAddress,
        /// The source link-layer address option.
        mac: Option<MacAddress>,
        target: Ipv6Addr,
    },
    /// A neighbour advertisement.
    Advertisement {
        station: MacAddress,
        /// The target link-layer address option.
        mac: Option<MacAddress>,
        target: Ipv6Addr,
        solicited: bool,
        replaces: bool,
    },
    /// Of routers to hosts or of hosts to routers, which do not concern us; or not of neighbours
    /// at all.
    Other,
}

/// A message that must not be acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

impl Message {
    pub(super) fn parse(bytes: &mut [u8]) -> Result<Self, Malformed> {
        let headers = Headers::parse(bytes).map_err(|_| Malformed)?;
        let station = headers.ethernet.source;
        match (&headers.network, &headers.transport) {
            (Network::Arp(arp), _) => Self::arp(arp),
            (Network::Ipv6 { header, extensions }, Transport::Icmpv6(icmpv6)) => {
                let pseudo_header = PseudoHeader::Ipv6 { source: header.source, destination: header.destination };
                // RFC 4861 sections 6.1 and 7.1: nobody beyond the link can have sent it. And RFC
                // 6980 forbids fragments; other extension headers nobody uses here.
                let is_sound = header.hop_limit == 255
                    && icmpv6.code == 0
                    && extensions.is_empty()
                    && checksum::icmpv6_is_valid(&pseudo_header, icmpv6, headers.payload);
                match icmpv6.message_type {
                    Icmpv6Type::NEIGHBOR_SOLICITATION if is_sound => {
                        Self::solicitation(header, station, headers.payload)
                    }
                    Icmpv6Type::NEIGHBOR_ADVERTISEMENT if is_sound => {
                        Self::advertisement(header, icmpv6, station, headers.payload)
                    }
                    Icmpv6Type::NEIGHBOR_SOLICITATION | Icmpv6Type::NEIGHBOR_ADVERTISEMENT => Err(Malformed),
                    _ => Ok(Self::Other),
                }
            }
            _ => Ok(Self::Other),
        }
    }

    fn arp(arp: &ArpPacket) -> Result<Self, Malformed> {
        let is_request = arp.operation == ArpOperation::REQUEST;
        let mac = arp.sender_hardware_address;
        let is_sound = (is_request || arp.operation == ArpOperation::REPLY) && mac.is_unicast();
        let (sender, target) = (arp.sender_protocol_address.into(), arp.target_protocol_address.into());
        if is_sound { Ok(Self::Arp { is_request, sender, mac, target }) } else { Err(Malformed) }
    }

    /// RFC 4861 section 7.1.1.
    fn solicitation(header: &Ipv6Header, station: MacAddress, payload: &[u8]) -> Result<Self, Malformed> {
        let (target, options) = target_and_options(payload)?;
        let mac = link_layer_address(options, SOURCE_LINK_LAYER_ADDRESS)?;
        let (source, destination) = (Ipv6Addr::from(header.source), Ipv6Addr::from(header.destination));
        if source.is_unspecified() {
            let is_sound = destination == solicited_node(target) && mac.is_none();
            return if is_sound {
                Ok(Self::Solicitation { source: None, station, mac, target })
            } else {
                Err(Malformed)
            };
        }
        if source.is_multicast() || !station.is_unicast() {
            return Err(Malformed);
        }
        Ok(Self::Solicitation { source: Some(source), station, mac, target })
    }

    /// RFC 4861 section 7.1.2.
    fn advertisement(
        header: &Ipv6Header,
        icmpv6: &Icmpv6Header,
        station: MacAddress,
        payload: &[u8],
    ) -> Result<Self, Malformed> {
        let (target, options) = target_and_options(payload)?;
        let mac = link_layer_address(options, TARGET_LINK_LAYER_ADDRESS)?;
        let [flags, ..] = icmpv6.rest_of_header;
        let (solicited, replaces) = (flags & SOLICITED != 0, flags & OVERRIDE != 0);
        if solicited && Ipv6Addr::from(header.destination).is_multicast() {
            return Err(Malformed);
        }
        Ok(Self::Advertisement { station, mac, target, solicited, replaces })
    }
}

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// What follows the ICMPv6 header, with a target that can be one host's.
fn target_and_options(payload: &[u8]) -> Result<(Ipv6Addr, &[u8]), Malformed> {
    let (target, options) = payload.split_first_chunk::<16>().ok_or(Malformed)?;
    let target = Ipv6Addr::from(*target);
    if target.is_multicast() { Err(Malformed) } else { Ok((target, options)) }
}

/// The first link-layer address option of this kind. All options are looked at: one that has no
/// length, or more than is there, makes the message malformed (RFC 4861 sections 4.6 and 7.1).
fn link_layer_address(mut options: &[u8], kind: u8) -> Result<Option<MacAddress>, Malformed> {
    let mut found = None;
    while let [option, units, ..] = *options {
        let length = usize::from(units) * 8;
        let (body, rest) = options.split_at_checked(length).filter(|_| length > 0).ok_or(Malformed)?;
        if option == kind && found.is_none() {
            // Ethernet's has one unit (RFC 2464 section 6).
            let [_, _, mac @ ..] = *body.as_array::<8>().ok_or(Malformed)?;
            found = Some(MacAddress(mac));
        }
        options = rest;
    }
    match found {
        Some(mac) if !mac.is_unicast() => Err(Malformed),
        // A lone octet is no option.
        _ if !options.is_empty() => Err(Malformed),
        _ => Ok(found),
    }
}

/// The group of all that may have an address, RFC 4291 section 2.7.1.
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | (address.to_bits() & 0xff_ffff))
}

/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The station address of a group, RFC 2464 section 7.
fn group_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

/// An ARP packet in the shortest frame that Ethernet has.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ArpFrame {
    ethernet: EthernetHeader,
    arp: ArpPacket,
    padding: [u8; 18],
}

/// A solicitation or an advertisement, with room for one option.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiscoveryFrame {
    ethernet: EthernetHeader,
    ipv6: Ipv6Header,
    body: DiscoveryBody,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiscoveryBody {
    icmpv6: Icmpv6Header,
    target: [u8; 16],
    option: [u8; 2],
    mac: MacAddress,
}

/// A frame of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    bytes: [u8; size_of::<DiscoveryFrame>()],
    length: usize,
}

impl Frame {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn new(from: &[u8]) -> Self {
        let mut bytes = [0; size_of::<DiscoveryFrame>()];
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Self { bytes, length: from.len().min(bytes.len()) }
    }

    /// Asks where `target` is: everyone, or the station that it was at.
    ///
    /// `None` when the two are of different families.
    pub(super) fn question(mac: MacAddress, source: IpAddr, target: IpAddr, at: Option<MacAddress>) -> Option<Self> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let to = (at.unwrap_or(MacAddress::BROADCAST), MacAddress::ZERO, target);
                Some(Self::arp(ArpOperation::REQUEST, (mac, source), to))
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let group = solicited_node(target);
                let to = at.map_or((group_mac(group), group), |at| (at, target));
                Some(Self::solicitation((mac, source), to, target))
            }
            _ => None,
        }
    }

    /// Tells everyone that `address` is here: an ARP announcement (RFC 5227 section 2.3) or an
    /// unsolicited advertisement (RFC 4861 section 7.2.6).
    pub(super) fn announcement(mac: MacAddress, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                Self::arp(ArpOperation::REQUEST, (mac, address), (MacAddress::BROADCAST, MacAddress::ZERO, address))
            }
            IpAddr::V6(address) => Self::advertisement((mac, address), None),
        }
    }

    /// Asks whether somebody else has an address of ours, RFC 4862 section 5.4.2; of IPv4's an
    /// announcement does.
    pub(super) fn duplicate_question(mac: MacAddress, address: Ipv6Addr) -> Self {
        let group = solicited_node(address);
        let frame = Self::solicitation((mac, Ipv6Addr::UNSPECIFIED), (group_mac(group), group), address);
        debug_assert_eq!(frame.length, size_of::<DiscoveryFrame>() - 8);
        frame
    }

    /// The answer to an ARP request.
    pub(super) fn arp_reply(from: (MacAddress, Ipv4Addr), (mac, address): (MacAddress, Ipv4Addr)) -> Self {
        Self::arp(ArpOperation::REPLY, from, (mac, mac, address))
    }

    fn arp(operation: ArpOperation, from: (MacAddress, Ipv4Addr), to: (MacAddress, MacAddress, Ipv4Addr)) -> Self {
        let (destination, target_hardware_address, target) = to;
        let frame = ArpFrame {
            ethernet: EthernetHeader { destination, source: from.0, ether_type: EtherType::ARP },
            arp: ArpPacket {
                hardware_type: U16::new(ArpPacket::HARDWARE_TYPE_ETHERNET),
                protocol_type: EtherType::IPV4,
                hardware_address_length: 6,
                protocol_address_length: 4,
                operation,
                sender_hardware_address: from.0,
                sender_protocol_address: from.1.octets(),
                target_hardware_address,
                target_protocol_address: target.octets(),
            },
            padding: [0; 18],
        };
        Self::new(frame.as_bytes())
    }

    fn solicitation(from: (MacAddress, Ipv6Addr), to: (MacAddress, Ipv6Addr), target: Ipv6Addr) -> Self {
        Self::discovery(from, to, Icmpv6Type::NEIGHBOR_SOLICITATION, 0, target, SOURCE_LINK_LAYER_ADDRESS)
    }

    /// Says that an address is here: to who asked, or without one to all (RFC 4861 section 7.2.4).
    pub(super) fn advertisement(from: (MacAddress, Ipv6Addr), asked: Option<(MacAddress, Ipv6Addr)>) -> Self {
        let flags = ROUTER | OVERRIDE | if asked.is_some() { SOLICITED } else { 0 };
        let to = asked.unwrap_or((group_mac(ALL_NODES), ALL_NODES));
        Self::discovery(from, to, Icmpv6Type::NEIGHBOR_ADVERTISEMENT, flags, from.1, TARGET_LINK_LAYER_ADDRESS)
    }

    fn discovery(
        (mac, source): (MacAddress, Ipv6Addr),
        (destination_mac, destination): (MacAddress, Ipv6Addr),
        message_type: Icmpv6Type,
        flags: u8,
        target: Ipv6Addr,
        option: u8,
    ) -> Self {
        // Who has no address yet says none of its station (RFC 4861 section 4.3).
        let without = if source.is_unspecified() { 8 } else { 0 };
        let rest_of_header = [flags, 0, 0, 0];
        let icmpv6 = Icmpv6Header { message_type, code: 0, checksum: U16::ZERO, rest_of_header };
        let mut body = DiscoveryBody { icmpv6, target: target.octets(), option: [option, 1], mac };
        let length = size_of::<DiscoveryBody>() - without;
        let pseudo_header = PseudoHeader::Ipv6 { source: source.octets(), destination: destination.octets() };
        let payload = &body.as_bytes()[Icmpv6Header::LENGTH..length];
        let checksum = checksum::icmpv6(&pseudo_header, &icmpv6, payload);
        body.icmpv6.checksum.set(checksum);
        let frame = DiscoveryFrame {
            ethernet: EthernetHeader { destination: destination_mac, source: mac, ether_type: EtherType::IPV6 },
            ipv6: Ipv6Header {
                version_traffic_class_and_flow_label: U32::new(6 << 28),
                payload_length: U16::new(u16::try_from(length).unwrap_or(u16::MAX)),
                next_header: IpProtocol::ICMPV6,
                hop_limit: 255,
                source: source.octets(),
                destination: destination.octets(),
            },
            body,
        };
        Self::new(&frame.as_bytes()[..size_of::<DiscoveryFrame>() - without])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Frame as Test;
    use proptest::prelude::*;

    const US: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xaa]);
    const THEM: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xbb]);
    const OURS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x11, 0x2233);
    const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x44, 0x5566);

    fn option(kind: u8, mac: MacAddress) -> Vec<u8> {
        [&[kind, 1], &mac.octets()[..]].concat()
    }

    fn body(target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        [&target.octets(), options].concat()
    }

    fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Test {
        let to = if destination.is_multicast() { group_mac(destination) } else { US };
        Test::new().ethernet(THEM, to).ipv6(source, destination).hop_limit(255).icmpv6(135, 0, [0; 4]).payload(body)
    }

    fn advertisement(destination: Ipv6Addr, flags: u8, body: &[u8]) -> Test {
        let frame = Test::new().ethernet(THEM, US).ipv6(THEIRS, destination);
        frame.hop_limit(255).icmpv6(136, 0, [flags, 0, 0, 0]).payload(body)
    }

    #[test]
    fn what_is_sent_is_what_the_rfcs_draw() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let all_nodes = MacAddress([0x33, 0x33, 0, 0, 0, 1]);
        let group: Ipv6Addr = "ff02::1:ff44:5566".parse().unwrap();
        let group_mac = MacAddress([0x33, 0x33, 0xff, 0x44, 0x55, 0x66]);
        let own_group: Ipv6Addr = "ff02::1:ff11:2233".parse().unwrap();
        let own_group_mac = MacAddress([0x33, 0x33, 0xff, 0x11, 0x22, 0x33]);
        let discovery = |to: MacAddress, source: Ipv6Addr, destination: Ipv6Addr| {
            Test::new().ethernet(US, to).ipv6(source, destination).hop_limit(255)
        };
        let (source_mac, target_mac) = (option(1, US), option(2, US));
        // ARP requests do not know the target's address; of a reply it is the frame's destination.
        let unicast = Test::new().ethernet(US, THEM).arp_request(a, b).pad_to(60).build();
        let cases = [
            (
                "a request to all",
                Frame::question(US, a.into(), b.into(), None).unwrap(),
                Test::new().ethernet(US, [0xff; 6]).arp_request(a, b).pad_to(60).build(),
            ),
            ("a request to one", Frame::question(US, a.into(), b.into(), Some(THEM)).unwrap(), unwrap_target(unicast)),
            (
                "a reply",
                Frame::arp_reply((US, a), (THEM, b)),
                Test::new().ethernet(US, THEM).arp_reply(a, b).pad_to(60).build(),
            ),
            (
                "an announcement",
                Frame::announcement(US, a.into()),
                Test::new().ethernet(US, [0xff; 6]).arp_request(a, a).pad_to(60).build(),
            ),
            (
                "a solicitation to the group",
                Frame::question(US, OURS.into(), THEIRS.into(), None).unwrap(),
                discovery(group_mac, OURS, group).icmpv6(135, 0, [0; 4]).payload(&body(THEIRS, &source_mac)).build(),
            ),
            (
                "a solicitation to one",
                Frame::question(US, OURS.into(), THEIRS.into(), Some(THEM)).unwrap(),
                discovery(THEM, OURS, THEIRS).icmpv6(135, 0, [0; 4]).payload(&body(THEIRS, &source_mac)).build(),
            ),
            (
                "a solicited advertisement",
                Frame::advertisement((US, OURS), Some((THEM, THEIRS))),
                discovery(THEM, OURS, THEIRS).icmpv6(136, 0, [0xe0, 0, 0, 0]).payload(&body(OURS, &target_mac)).build(),
            ),
            (
                "an unsolicited advertisement",
                Frame::announcement(US, OURS.into()),
                discovery(all_nodes, OURS, "ff02::1".parse().unwrap())
                    .icmpv6(136, 0, [0xa0, 0, 0, 0])
                    .payload(&body(OURS, &target_mac))
                    .build(),
            ),
            (
                "a question for duplicates",
                Frame::duplicate_question(US, OURS),
                discovery(own_group_mac, Ipv6Addr::UNSPECIFIED, own_group)
                    .icmpv6(135, 0, [0; 4])
                    .payload(&body(OURS, &[]))
                    .build(),
            ),
        ];
        for (description, frame, expected) in cases {
            assert_eq!(frame.bytes(), expected, "{description}");
        }
        assert!(Frame::question(US, a.into(), THEIRS.into(), None).is_none());
    }

    /// A request's target hardware address is zero, whomever the frame is sent to.
    fn unwrap_target(mut frame: Vec<u8>) -> Vec<u8> {
        frame[32..38].fill(0);
        frame
    }

    #[test]
    fn what_the_rfcs_have_checked_is_checked() {
        let group = solicited_node(OURS);
        let other_group = solicited_node(THEIRS);
        let none = Ipv6Addr::UNSPECIFIED;
        let (mac1, mac2) = (option(1, THEM), option(2, THEM));
        let plain = body(OURS, &mac1);
        let ask = |source, mac| {
            let source = Some(source).filter(|source: &Ipv6Addr| !source.is_unspecified());
            Ok(Message::Solicitation { source, station: THEM, mac, target: OURS })
        };
        let say = |mac, solicited, replaces| {
            Ok(Message::Advertisement { station: THEM, mac, target: THEIRS, solicited, replaces })
        };
        let theirs = body(THEIRS, &mac2);
        let bad = Err(Malformed);
        let cases: [(&str, Test, Result<Message, Malformed>); 35] = [
            ("7.1.1 a solicitation to the group", solicitation(THEIRS, group, &plain), ask(THEIRS, Some(THEM))),
            ("7.1.1 one to us", solicitation(THEIRS, OURS, &body(OURS, &[])), ask(THEIRS, None)),
            ("7.1.1 tagged", solicitation(THEIRS, OURS, &plain).vlan(7), ask(THEIRS, Some(THEM))),
            ("7.1.1 hop limit 254", solicitation(THEIRS, group, &plain).hop_limit(254), bad),
            ("7.1.1 code 1", solicitation(THEIRS, group, &plain).icmpv6(135, 1, [0; 4]), bad),
            ("7.1.1 23 octets", solicitation(THEIRS, group, &plain[..15]), bad),
            ("7.1.1 a multicast target", solicitation(THEIRS, group, &body(group, &[])), bad),
            ("7.1.1 a multicast source", solicitation(group, OURS, &plain), bad),
            ("7.1.1 an option of length 0", solicitation(THEIRS, group, &body(OURS, &[1, 0, 0, 0, 0, 0, 0, 0])), bad),
            ("4.6 an option beyond the end", solicitation(THEIRS, group, &body(OURS, &[14, 2, 0, 0, 0, 0, 0, 0])), bad),
            ("4.6 half an option", solicitation(THEIRS, group, &body(OURS, &mac1[..7])), bad),
            ("4.6 one octet of an option", solicitation(THEIRS, group, &body(OURS, &[1])), bad),
            ("4.6 a longer address", solicitation(THEIRS, group, &body(OURS, &[&[1, 2][..], &[2; 14]].concat())), bad),
            ("4.6 a multicast address", solicitation(THEIRS, group, &body(OURS, &option(1, MacAddress([3; 6])))), bad),
            ("4.6 a zero address", solicitation(THEIRS, group, &body(OURS, &option(1, MacAddress::ZERO))), bad),
            (
                "4.6 an unknown option is skipped",
                solicitation(THEIRS, group, &body(OURS, &[&[14, 1, 0, 0, 0, 0, 0, 0], &mac1[..]].concat())),
                ask(THEIRS, Some(THEM)),
            ),
            (
                "4.6 of two addresses the first counts",
                solicitation(THEIRS, group, &body(OURS, &[&mac1[..], &option(1, US)].concat())),
                ask(THEIRS, Some(THEM)),
            ),
            (
                "4.6 what follows the address is still checked",
                solicitation(THEIRS, group, &body(OURS, &[&mac1[..], &[14, 0]].concat())),
                bad,
            ),
            (
                "4.6 the target's address is not the source's",
                solicitation(THEIRS, group, &body(OURS, &mac2)),
                ask(THEIRS, None),
            ),
            ("7.1.1 from nobody to the group", solicitation(none, group, &body(OURS, &[])), ask(none, None)),
            ("7.1.1 from nobody to one", solicitation(none, OURS, &body(OURS, &[])), bad),
            ("7.1.1 from nobody to another group", solicitation(none, other_group, &body(OURS, &[])), bad),
            ("7.1.1 from nobody with an address", solicitation(none, group, &plain), bad),
            ("RFC 6980 an atomic fragment", solicitation(THEIRS, group, &plain).fragment(0, false), bad),
            ("RFC 6980 hop-by-hop options", solicitation(THEIRS, group, &plain).extension(0, &[]), bad),
            ("7.1.2 an advertisement to us", advertisement(OURS, 0x60, &theirs), say(Some(THEM), true, true)),
            ("7.1.2 without an address", advertisement(OURS, 0x40, &body(THEIRS, &[])), say(None, true, false)),
            ("7.1.2 to all", advertisement(ALL_NODES, 0x20, &theirs), say(Some(THEM), false, true)),
            ("7.1.2 solicited to all", advertisement(ALL_NODES, 0x40, &theirs), bad),
            ("7.1.2 hop limit 1", advertisement(OURS, 0x60, &theirs).hop_limit(1), bad),
            ("7.1.2 a multicast target", advertisement(OURS, 0x60, &body(group, &mac2)), bad),
            ("a router solicitation", solicitation(THEIRS, group, &plain).icmpv6(133, 0, [0; 4]), Ok(Message::Other)),
            ("a router advertisement", advertisement(OURS, 0, &plain).icmpv6(134, 0, [0; 4]), Ok(Message::Other)),
            ("a redirect", advertisement(OURS, 0, &plain).icmpv6(137, 0, [0; 4]), Ok(Message::Other)),
            ("no message of neighbours", Test::new(), Ok(Message::Other)),
        ];
        for (description, frame, expected) in cases {
            assert_eq!(Message::parse(&mut frame.build()), expected, "{description}");
        }
        // 7.1.1, 7.1.2: the checksum, of each octet that it covers.
        for octet in 14 + 8..14 + 40 + 32 {
            let mut frame = solicitation(THEIRS, group, &plain).build();
            frame[octet] ^= 0x10;
            let said = Message::parse(&mut frame);
            assert!(!matches!(said, Ok(Message::Solicitation { .. })), "octet {octet}: {said:?}");
        }
    }

    #[test]
    fn arp_says_who_and_nothing_that_is_no_station() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let said = |is_request| Ok(Message::Arp { is_request, sender: a, mac: THEM, target: b });
        let request = Test::new().ethernet(THEM, US).arp_request(a, b);
        let reply = Test::new().ethernet(THEM, US).arp_reply(a, b);
        // description, frame, octets to overwrite, what is said
        type Case<'a> = (&'a str, &'a Test, &'a [(usize, u8)], Result<Message, Malformed>);
        let cases: [Case<'_>; 8] = [
            ("a request", &request, &[], said(true)),
            ("a reply", &reply, &[], said(false)),
            ("another operation", &request, &[(21, 8)], Err(Malformed)),
            ("a sender that is a group", &request, &[(22, 3)], Err(Malformed)),
            ("a sender that is everyone", &reply, &[(22, 255), (23, 255), (24, 255)], Err(Malformed)),
            ("a sender that is nobody", &request, &[(22, 0), (27, 0)], Err(Malformed)),
            ("other hardware", &request, &[(15, 6)], Err(Malformed)),
            ("longer addresses", &request, &[(19, 16)], Err(Malformed)),
        ];
        for (description, frame, changes, expected) in cases {
            let mut bytes = frame.build();
            changes.iter().for_each(|&(octet, value)| bytes[octet] = value);
            assert_eq!(Message::parse(&mut bytes), expected, "{description}");
        }
    }

    proptest! {
        #[test]
        fn any_options_are_refused_or_walked_to_their_end(options in proptest::collection::vec(0_u8..4, 0..64)) {
            // The reference: where each option begins, by its length octet alone.
            let (mut at, mut first, mut sound) = (0, None, true);
            while at < options.len() {
                let length = options.get(at + 1).map_or(0, |units| usize::from(*units) * 8);
                sound &= length > 0 && at + length <= options.len();
                if !sound {
                    break;
                }
                if options[at] == 1 && first.is_none() {
                    first = Some(&options[at..at + length]);
                }
                at += length;
            }
            let is_station = |option: &[u8]| option.len() == 8 && option[2].is_multiple_of(2) && option[2..] != [0; 6];
            let expected = match first {
                _ if !sound => Err(Malformed),
                None => Ok(None),
                Some(option) if is_station(option) => Ok(Some(MacAddress(option[2..].try_into().unwrap()))),
                Some(_) => Err(Malformed),
            };
            prop_assert_eq!(link_layer_address(&options, 1), expected);
        }
    }
}
