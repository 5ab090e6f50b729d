//! What is said to hosts beside their packets: ICMP and ICMPv6 errors, and answers to echo requests.

use crate::classifier::is_host;
use crate::headers::{
    EtherType, EthernetHeader, Headers, IcmpHeader, IcmpType, Icmpv6Header, Icmpv6Type, IpProtocol, Ipv4Header,
    Ipv6Header, MacAddress, Network, PseudoHeader, Transport, checksum,
};
use dpdk_rs::Mbuf;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::FromBytes as _;

/// Why a packet was not delivered, as its sender is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IcmpError {
    /// There is no way to its destination: RFC 1812 section 5.2.7.1, RFC 4443 section 3.1.
    NoRoute,
    /// The host does not answer.
    HostUnreachable,
    /// Somebody forbids it: code 13 of IPv4, 1 of IPv6.
    Prohibited,
    /// Nobody listens there.
    PortUnreachable,
    /// It has no hops left: RFC 1812 section 5.2.7.3, RFC 4443 section 3.3.
    TimeExceeded,
    /// With the MTU of the next link: RFC 1191 section 4, RFC 4443 section 3.2.
    TooBig(u16),
}

impl IcmpError {
    fn v4(self) -> (IcmpType, u8, [u8; 4]) {
        let unreachable = |code| (IcmpType::DESTINATION_UNREACHABLE, code, [0; 4]);
        match self {
            Self::NoRoute => unreachable(0),
            Self::HostUnreachable => unreachable(1),
            Self::PortUnreachable => unreachable(3),
            Self::Prohibited => unreachable(13),
            Self::TimeExceeded => (IcmpType::TIME_EXCEEDED, 0, [0; 4]),
            Self::TooBig(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                (IcmpType::DESTINATION_UNREACHABLE, 4, [0, 0, high, low])
            }
        }
    }

    fn v6(self) -> (Icmpv6Type, u8, [u8; 4]) {
        let unreachable = |code| (Icmpv6Type::DESTINATION_UNREACHABLE, code, [0; 4]);
        match self {
            Self::NoRoute => unreachable(0),
            Self::Prohibited => unreachable(1),
            Self::HostUnreachable => unreachable(3),
            Self::PortUnreachable => unreachable(4),
            Self::TimeExceeded => (Icmpv6Type::TIME_EXCEEDED, 0, [0; 4]),
            Self::TooBig(mtu) => (Icmpv6Type::PACKET_TOO_BIG, 0, u32::from(mtu).to_be_bytes()),
        }
    }
}

/// An error carries no more, so that it comes through everywhere: RFC 1812 section 4.3.2.3,
/// RFC 4443 section 2.4 (c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// RFC 1700's; internetwork control for errors, RFC 1812 section 4.3.2.5.
const HOPS: u8 = 64;
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// The IP packet in a frame without tags, and nothing behind it.
pub(crate) fn ip_packet(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(EthernetHeader::LENGTH..)?;
    let length = match ip.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?])),
        _ => return None,
    };
    ip.get(..length)
}

/// The IP packet in a frame, and its sender, if errors may be sent about it.
pub(crate) fn who_is_told(frame: &[u8]) -> Option<(&[u8], IpAddr)> {
    let ip = ip_packet(frame)?;
    let to_stations = EthernetHeader::ref_from_prefix(frame).is_ok_and(|(header, _)| header.destination.is_multicast());
    sender_told(ip).filter(|_| !to_stations).map(|to| (ip, to))
}

/// The sender of an IP packet, if errors may be sent about it: RFC 1812 section 4.3.2.7, RFC 4443
/// section 2.4 (e). Where the packet was going, the caller knows.
pub(crate) fn sender_told(ip: &[u8]) -> Option<IpAddr> {
    match ip.first()? >> 4 {
        4 => {
            let (header, rest) = Ipv4Header::ref_from_prefix(ip).ok()?;
            let source = Ipv4Addr::from(header.source).into();
            let after_options = rest.get(header.header_length().checked_sub(Ipv4Header::LENGTH)?..)?;
            let query = || after_options.first().is_some_and(|first| !IcmpType(*first).quotes_packet());
            let may = header.fragment_offset() == 0 && (header.protocol != IpProtocol::ICMP || query());
            (may && is_host(source)).then_some(source)
        }
        6 => {
            let (header, rest) = Ipv6Header::ref_from_prefix(ip).ok()?;
            let source = Ipv6Addr::from(header.source).into();
            let may = match crate::headers::upper_layer(header.next_header, rest) {
                // Errors have the types below 128; nobody answers a redirect with one.
                Some((IpProtocol::ICMPV6, message)) => {
                    message.first().is_some_and(|first| *first >= 128 && Icmpv6Type(*first) != Icmpv6Type::REDIRECT)
                }
                Some(_) => true,
                None => false,
            };
            (may && is_host(source)).then_some(source)
        }
        _ => None,
    }
}

/// Writes an error about an IP packet into an empty one, with an Ethernet header in front that is
/// still to be filled. `forwarded`: the packet's hops have been counted down already, and the
/// quotation shall show what was sent. False if there is no room.
pub(crate) fn write_error(
    packet: &mut Mbuf,
    error: IcmpError,
    (from, to): (IpAddr, IpAddr),
    about: &[u8],
    forwarded: bool,
) -> bool {
    let (fixed, longest) = match from {
        IpAddr::V4(_) => (Ipv4Header::LENGTH + IcmpHeader::LENGTH, LONGEST_V4),
        IpAddr::V6(_) => (Ipv6Header::LENGTH + Icmpv6Header::LENGTH, LONGEST_V6),
    };
    let quoted = about.len().min(longest - fixed);
    let Some(about) = about.get(..quoted) else { return false };
    let Some(frame) = packet.append(EthernetHeader::LENGTH + fixed + quoted) else { return false };
    let Ok((ethernet, ip)) = EthernetHeader::mut_from_prefix(frame) else { return false };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            *ethernet = unaddressed(EtherType::IPV4);
            let Ok((header, rest)) = Ipv4Header::mut_from_prefix(ip) else { return false };
            let Ok((icmp, quotation)) = IcmpHeader::mut_from_prefix(rest) else { return false };
            quotation.copy_from_slice(about);
            if forwarded {
                undo_hop_v4(quotation);
            }
            let (message_type, code, rest_of_header) = error.v4();
            *icmp = IcmpHeader { message_type, code, checksum: 0.into(), rest_of_header };
            icmp.checksum.set(checksum::icmp(icmp, quotation));
            *header = ipv4_header(from, to, fixed + quoted);
            header.header_checksum.set(checksum::ipv4_header(header, &[]));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            *ethernet = unaddressed(EtherType::IPV6);
            let Ok((header, rest)) = Ipv6Header::mut_from_prefix(ip) else { return false };
            let Ok((icmp, quotation)) = Icmpv6Header::mut_from_prefix(rest) else { return false };
            quotation.copy_from_slice(about);
            if forwarded && let Ok((quoted, _)) = Ipv6Header::mut_from_prefix(quotation) {
                quoted.hop_limit = quoted.hop_limit.saturating_add(1);
            }
            let (message_type, code, rest_of_header) = error.v6();
            *icmp = Icmpv6Header { message_type, code, checksum: 0.into(), rest_of_header };
            let pseudo = PseudoHeader::Ipv6 { source: from.octets(), destination: to.octets() };
            icmp.checksum.set(checksum::icmpv6(&pseudo, icmp, quotation));
            *header = ipv6_header(from, to, Icmpv6Header::LENGTH + quoted);
        }
        _ => return false,
    }
    true
}

/// Writes the source of an error that was written without one.
pub(crate) fn sign(frame: &mut [u8], source: IpAddr) -> bool {
    let Ok(headers) = Headers::parse(frame) else { return false };
    match (headers.network, headers.transport, source) {
        (Network::Ipv4 { header, options }, _, IpAddr::V4(source)) => {
            header.source = source.octets();
            header.header_checksum.set(checksum::ipv4_header(header, options));
        }
        (Network::Ipv6 { header, .. }, Transport::Icmpv6(icmp), IpAddr::V6(source)) => {
            header.source = source.octets();
            let pseudo = PseudoHeader::Ipv6 { source: header.source, destination: header.destination };
            icmp.checksum.set(0);
            icmp.checksum.set(checksum::icmpv6(&pseudo, icmp, headers.payload));
        }
        _ => return false,
    }
    true
}

/// Of a packet that is still to be routed.
fn unaddressed(ether_type: EtherType) -> EthernetHeader {
    EthernetHeader { destination: MacAddress::ZERO, source: MacAddress::ZERO, ether_type }
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Ipv4Header {
    Ipv4Header {
        version_and_header_length: 0x45,
        differentiated_services: INTERNETWORK_CONTROL,
        total_length: u16::try_from(length).unwrap_or(0).into(),
        // Never a part of anything: RFC 6864 section 4.1.
        identification: 0.into(),
        flags_and_fragment_offset: 0x4000.into(),
        time_to_live: HOPS,
        protocol: IpProtocol::ICMP,
        header_checksum: 0.into(),
        source: from.octets(),
        destination: to.octets(),
    }
}

fn ipv6_header(from: Ipv6Addr, to: Ipv6Addr, payload: usize) -> Ipv6Header {
    Ipv6Header {
        version_traffic_class_and_flow_label: (0x6000_0000 | u32::from(INTERNETWORK_CONTROL) << 20).into(),
        payload_length: u16::try_from(payload).unwrap_or(0).into(),
        next_header: IpProtocol::ICMPV6,
        hop_limit: HOPS,
        source: from.octets(),
        destination: to.octets(),
    }
}

/// A quotation as it was before this router counted its hops down.
fn undo_hop_v4(quotation: &mut [u8]) {
    let Ok((header, rest)) = Ipv4Header::mut_from_prefix(quotation) else { return };
    let options = header.header_length().saturating_sub(Ipv4Header::LENGTH);
    let Some(options) = rest.get(..options) else { return };
    header.time_to_live = header.time_to_live.saturating_add(1);
    header.header_checksum.set(checksum::ipv4_header(header, options));
}

/// Makes an echo request that came to one of our own addresses the reply to it, ready to go back
/// where it came from. False, and no change, if it is none, or is a fragment or broken.
pub(crate) fn reply_to_echo(frame: &mut [u8]) -> bool {
    let Ok(mut headers) = Headers::parse(frame) else { return false };
    if headers.network.fragment().is_some() || headers.verify_checksums().is_err() {
        return false;
    }
    match (&mut headers.network, &mut headers.transport) {
        (Network::Ipv4 { header, options }, Transport::Icmp(icmp))
            if icmp.message_type == IcmpType::ECHO_REQUEST && icmp.code == 0 =>
        {
            icmp.message_type = IcmpType::ECHO_REPLY;
            icmp.checksum.set(checksum::icmp(icmp, headers.payload));
            std::mem::swap(&mut header.source, &mut header.destination);
            header.time_to_live = HOPS;
            header.header_checksum.set(checksum::ipv4_header(header, options));
        }
        (Network::Ipv6 { header, extensions: [] }, Transport::Icmpv6(icmp))
            if icmp.message_type == Icmpv6Type::ECHO_REQUEST && icmp.code == 0 =>
        {
            icmp.message_type = Icmpv6Type::ECHO_REPLY;
            std::mem::swap(&mut header.source, &mut header.destination);
            header.hop_limit = HOPS;
            let pseudo = PseudoHeader::Ipv6 { source: header.source, destination: header.destination };
            icmp.checksum.set(checksum::icmpv6(&pseudo, icmp, headers.payload));
        }
        _ => return false,
    }
    std::mem::swap(&mut headers.ethernet.source, &mut headers.ethernet.destination);
    true
}
