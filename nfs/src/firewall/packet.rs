//! What the firewall sees of a packet.

use super::connection::{End, FlowKey, KeyV4, KeyV6, key};
use super::tcp::Segment;
use nf_framework::headers::{
    EtherType, Headers, IcmpType, Icmpv6Type, IpProtocol, Network, QuotedPacket, QuotedTransport, TcpFlags, TcpHeader,
    Transport, VlanTag,
};
use nf_framework::{Annotation, Key, Mbuf, Ports};
use std::net::{IpAddr, Ipv4Addr};

/// What a packet is to the firewall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// For the rules.
    pub(super) key: Key,
    pub(super) dscp: u8,
    /// That it comes in by; 0 for none.
    pub(super) vlan: u16,
    /// It is one: where rules are asked, the first.
    pub(super) fragment: bool,
    pub(super) protocol: IpProtocol,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Of TCP and UDP.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Of a connection, or the beginning of one.
    Flow(Flow, Says),
    /// An ICMP error about this packet.
    Error(Quoted),
    /// An ICMP message that is of no connection: rules are asked about each.
    Message,
    /// What hosts on one link say to each other, RFC 4861 and RFC 4890 section 4.4.1.
    Neighbours,
}

/// A connection by its key, and which end sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) from_low: bool,
    pub(super) protocol: IpProtocol,
}

/// What a packet says within its connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    Tcp(Segment),
    /// An ICMP query, or the answer to one.
    Query {
        asks: bool,
    },
    /// A later fragment.
    Later,
    /// A later fragment of an ICMP echo: of a request, or, as this flow, of a reply.
    LaterOfQuery(Flow),
    /// Nothing but that it is there.
    Datagram,
}

/// What an ICMP error says of the packet that it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    pub(super) flow: Flow,
    /// Of TCP.
    pub(super) sequence: Option<u32>,
    /// The error goes to who sent the packet.
    pub(super) goes_back: bool,
}

/// Why a packet is not looked at further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotSeen {
    Arp,
    Other(EtherType),
    Malformed,
    Checksum,
    SourceRoute,
    /// From or to what is no host, or from and to the same address.
    Address,
    /// Neighbor Discovery that has been on another link, or in fragments (RFC 6980).
    Neighbours,
    /// An ICMP error in fragments, or about nothing.
    Error,
    /// A fragment of what may not come in any, or a later one of which nobody knows the first.
    Fragment,
}

/// A usual packet's key, and whether it comes from the lower end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Usual<K> {
    pub(super) key: K,
    pub(super) from_low: bool,
}

const ETHERNET: usize = 14;
/// All but SYN, FIN and RST; ACK is set.
const CARRYING: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0 | TcpFlags::ACK.0;

/// A packet that only carries something: UDP, or TCP with an acknowledgment and no signal, in IPv4 without tags,
/// options or fragments, and sound as far as what is read of it goes. [`look`] knows what else there is.
#[inline(always)]
pub(super) fn usual_v4(frame: &[u8]) -> Option<Usual<KeyV4>> {
    const IP: usize = 20;
    let head: &[u8; ETHERNET + IP + 8] = frame.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
    // Neither a fragment nor the first of others; it may forbid to make it one.
    let whole = u16::from_be_bytes([head[20], head[21]]) & 0x3fff == 0;
    let plain = head[12..15] == [0x08, 0x00, 0x45] && whole;
    if !plain || length > frame.len() - ETHERNET {
        return None;
    }
    let protocol = IpProtocol(head[23]);
    if !carries(protocol, [head[38], head[39]], frame.get(34..)?, length.checked_sub(IP)?) {
        return None;
    }
    let addresses = u64::from_be_bytes(*head[26..].first_chunk()?);
    let ports = u32::from_be_bytes(*head[34..].first_chunk()?);
    let turned = addresses.rotate_left(32);
    if addresses == turned {
        return None;
    }
    let from_low = addresses < turned;
    let (addresses, ports) = if from_low { (addresses, ports) } else { (turned, ports.rotate_left(16)) };
    let rest = u64::from(ports) << 32 | u64::from(protocol.0) << 24;
    let key = u128::from(addresses) << 64 | u128::from(rest);
    Some(Usual { key: key.to_be_bytes(), from_low })
}

/// The same of IPv6 without extension headers.
#[inline(always)]
pub(super) fn usual_v6(frame: &[u8]) -> Option<Usual<KeyV6>> {
    const IP: usize = 40;
    let head: &[u8; ETHERNET + IP + 8] = frame.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([head[18], head[19]]));
    let plain = head[12..14] == [0x86, 0xdd] && head[14] >> 4 == 6;
    let protocol = IpProtocol(head[20]);
    if !plain
        || length > frame.len() - ETHERNET - IP
        || !carries(protocol, [head[58], head[59]], frame.get(54..)?, length)
    {
        return None;
    }
    let source = u128::from_be_bytes(*head[22..].first_chunk()?);
    let destination = u128::from_be_bytes(*head[38..].first_chunk()?);
    let ports = u32::from_be_bytes(*head[54..].first_chunk()?);
    if source == destination {
        return None;
    }
    let from_low = source < destination;
    let (low, high, ports) =
        if from_low { (source, destination, ports) } else { (destination, source, ports.rotate_left(16)) };
    let mut key = [0; 40];
    key[..16].copy_from_slice(&low.to_be_bytes());
    key[16..32].copy_from_slice(&high.to_be_bytes());
    key[32..36].copy_from_slice(&ports.to_be_bytes());
    key[36] = protocol.0;
    Some(Usual { key, from_low })
}

/// Whether the rest of a packet, of so many octets, is a datagram or segment that only carries something. Behind
/// its ports stand two octets.
#[inline(always)]
fn carries(protocol: IpProtocol, behind_ports: [u8; 2], rest: &[u8], length: usize) -> bool {
    match protocol {
        IpProtocol::UDP => (8..=length).contains(&usize::from(u16::from_be_bytes(behind_ports))),
        IpProtocol::TCP => {
            let Some(tcp) = rest.first_chunk::<20>() else { return false };
            let offset = usize::from(tcp[12] >> 4) * 4;
            let known = match offset {
                20 => true,
                // Timestamps, as nearly all have them: RFC 7323 appendix A.
                32 => rest.get(20..24) == Some(&[1, 1, 8, 10]),
                _ => false,
            };
            known && offset <= length && tcp[13] & CARRYING == TcpFlags::ACK.0
        }
        _ => false,
    }
}

/// Sequence number, acknowledgment number, window and octets of data of a segment that [`usual_v4`] or
/// [`usual_v6`] has looked at.
#[inline(always)]
pub(super) fn usual_segment(frame: &[u8], six: bool) -> Option<(u32, u32, u16, u32)> {
    let (behind, length) = if six {
        (54, usize::from(u16::from_be_bytes([*frame.get(18)?, *frame.get(19)?])))
    } else {
        (34, usize::from(u16::from_be_bytes([*frame.get(16)?, *frame.get(17)?])).checked_sub(20)?)
    };
    let tcp: &[u8; 20] = frame.get(behind..)?.first_chunk()?;
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let data = length.checked_sub(usize::from(tcp[12] >> 4) * 4)?;
    Some((word(4), word(8), u16::from_be_bytes([tcp[14], tcp[15]]), u32::try_from(data).ok()?))
}

/// Whether a packet's checksums are right.
pub(super) fn is_sound(packet: &mut Mbuf) -> bool {
    Headers::parse(packet.data_mut()).is_ok_and(|headers| headers.verify_checksums().is_ok())
}

/// Looks at a packet.
pub(super) fn look(packet: &mut Mbuf) -> Result<Seen, NotSeen> {
    let beside = Annotation::of(packet).ports;
    let stripped = packet.stripped_vlan().map(|tag| tag & 0x0fff);
    look_at(packet.data_mut(), beside, stripped)
}

/// Looks at a frame; of a fragment, with what stands in its first one. A tag may have been taken off.
pub(super) fn look_at(frame: &mut [u8], beside: Option<Ports>, stripped: Option<u16>) -> Result<Seen, NotSeen> {
    let mut headers = Headers::parse(frame).map_err(|_| NotSeen::Malformed)?;
    let (source, destination, class, hops, options) = match &headers.network {
        Network::Ipv4 { header, options } => (
            IpAddr::from(header.source),
            IpAddr::from(header.destination),
            header.differentiated_services,
            header.time_to_live,
            &**options,
        ),
        Network::Ipv6 { header, .. } => {
            let [high, low, ..] = header.version_traffic_class_and_flow_label.get().to_be_bytes();
            let class = high << 4 | low >> 4;
            (header.source.into(), header.destination.into(), class, header.hop_limit, &[][..])
        }
        Network::Arp(_) => return Err(NotSeen::Arp),
        Network::Other(ether_type) => return Err(NotSeen::Other(*ether_type)),
    };
    if is_source_routed(options) || headers.network.pseudo_header().is_none() {
        return Err(NotSeen::SourceRoute);
    }
    if is_no_source(source) || is_no_destination(destination) || source == destination && !source.is_unspecified() {
        return Err(NotSeen::Address);
    }
    headers.verify_checksums().map_err(|_| NotSeen::Checksum)?;
    let fragment = headers.network.fragment();
    let came_by = stripped.or_else(|| headers.vlan.first().map(|tag| tag.id())).unwrap_or(0);
    let vlan = vlan(headers.vlan)?;
    let dscp = class >> 2;
    let rules = Key::of(&headers).ok_or(NotSeen::Malformed)?;
    let protocol = headers.transport.protocol().ok_or(NotSeen::Malformed)?;
    let ports = headers.transport.ports();
    let seen = |kind| {
        let fragment = fragment.is_some();
        Ok(Seen { key: rules, dscp, vlan: came_by, fragment, protocol, source, destination, ports, kind })
    };
    let flow = |ports: (u16, u16), says| {
        let found = key((source, ports.0), (destination, ports.1), protocol, vlan);
        let (key, from_low) = found.ok_or(NotSeen::Malformed)?;
        seen(Kind::Flow(Flow { key, from_low, protocol }, says))
    };
    let message = match &headers.transport {
        Transport::Tcp { header, options } => {
            let segment = segment(header, options, headers.payload.len(), fragment.is_some());
            return flow((header.source_port.get(), header.destination_port.get()), Says::Tcp(segment));
        }
        Transport::Udp(udp) => return flow((udp.source_port.get(), udp.destination_port.get()), Says::Datagram),
        Transport::Icmp(icmp) if icmp.message_type.has_identifier() => {
            let (asks, kind) = query_of(icmp.message_type);
            return flow(query_ports(asks, icmp.identifier(), kind), Says::Query { asks });
        }
        Transport::Icmpv6(icmp) if icmp.message_type.has_identifier() => {
            let asks = icmp.message_type == Icmpv6Type::ECHO_REQUEST;
            return flow(query_ports(asks, icmp.identifier(), 0), Says::Query { asks });
        }
        Transport::Fragment(_) => {
            return match beside {
                Some(Ports::Both(one, other)) => flow((one, other), Says::Later),
                // Of echoes alone: timestamps are short.
                Some(Ports::Identifier(identifier)) => {
                    let (ports, answer) = ((identifier, 0), (0, identifier));
                    let answer = key((source, answer.0), (destination, answer.1), protocol, vlan);
                    let (key, from_low) = answer.ok_or(NotSeen::Malformed)?;
                    flow(ports, Says::LaterOfQuery(Flow { key, from_low, protocol }))
                }
                Some(Ports::None) if !is_icmp(protocol, source) && length_with_ports(protocol).is_none() => {
                    flow((0, 0), Says::Later)
                }
                _ => Err(NotSeen::Fragment),
            };
        }
        Transport::Icmp(icmp) => icmp.message_type.is_error(),
        Transport::Icmpv6(icmp) => match icmp.message_type.0 {
            _ if icmp.message_type.is_error() => true,
            // RFC 4861 section 6.1, RFC 6980: it has not been on another link, and is in one piece.
            133..=137 if hops == 255 && fragment.is_none() => return seen(Kind::Neighbours),
            133..=137 => return Err(NotSeen::Neighbours),
            // Multicast listeners, RFC 2710 section 3 and RFC 3810 section 5.
            130..=132 | 143 if hops == 1 && is_local(source) && fragment.is_none() => return seen(Kind::Neighbours),
            _ => false,
        },
        transport => {
            let ports = match transport.protocol().and_then(length_with_ports) {
                Some(length) if headers.payload.len() < length => return Err(NotSeen::Malformed),
                Some(_) => Some(ports_of(headers.payload).ok_or(NotSeen::Malformed)?),
                None => None,
            };
            let seen = Seen { ports, ..flow(ports.unwrap_or((0, 0)), Says::Datagram)? };
            return Ok(seen);
        }
    };
    match (message, fragment) {
        // Nothing is remembered that later ones could follow.
        (false, Some(_)) => return Err(NotSeen::Fragment),
        (false, None) => return seen(Kind::Message),
        (true, Some(_)) => return Err(NotSeen::Error),
        (true, None) => {}
    }
    let quoted_ports = quoted_ports(headers.payload);
    let quoted =
        headers.quoted().and_then(|quoted| about(&quoted, quoted_ports, destination, vlan)).ok_or(NotSeen::Error)?;
    seen(Kind::Error(quoted))
}

/// Whether rules are asked about such a message as one that begins something: about what is of no connection, and about
/// what asks.
pub(super) fn may_begin_v4(message_type: IcmpType) -> bool {
    !message_type.is_error() && (!message_type.has_identifier() || query_of(message_type).0)
}

/// Nor about Neighbor Discovery.
pub(super) fn may_begin_v6(message_type: Icmpv6Type) -> bool {
    !message_type.is_error() && !matches!(message_type.0, 129 | 133..=137)
}

/// The ports that stand for the identifier of an ICMP query: who asks has it, and who answers has the kind of
/// query. So two hosts may ask each other with one identifier.
fn query_ports(asks: bool, identifier: u16, kind: u16) -> (u16, u16) {
    if asks { (identifier, kind) } else { (kind, identifier) }
}

/// Of ICMP in IPv4, whether it asks, and the kind.
fn query_of(message_type: IcmpType) -> (bool, u16) {
    let asks = matches!(message_type, IcmpType::ECHO_REQUEST | IcmpType::TIMESTAMP);
    let is_echo = matches!(message_type, IcmpType::ECHO_REQUEST | IcmpType::ECHO_REPLY);
    (asks, u16::from(!is_echo))
}

/// Of protocols beside TCP and UDP that begin with two ports as well, how long their headers are at least: DCCP (RFC 4340
/// section 5.1), SCTP (RFC 9260 section 3.1) and UDP-Lite (RFC 3828 section 3.1).
fn length_with_ports(protocol: IpProtocol) -> Option<usize> {
    match protocol.0 {
        33 | 132 => Some(12),
        136 => Some(8),
        _ => None,
    }
}

fn ports_of(header: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *header.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// What stands where a quoted packet has ports; of IPv6 with extension headers nothing.
fn quoted_ports(quoted: &[u8]) -> Option<(u16, u16)> {
    let start = match quoted.first()? >> 4 {
        4 => usize::from(quoted[0] & 15) * 4,
        _ if length_with_ports(IpProtocol(*quoted.get(6)?)).is_some() => 40,
        _ => return None,
    };
    ports_of(quoted.get(start..)?)
}

/// The connection that a quoted packet is of.
fn about(quoted: &QuotedPacket<'_>, beside: Option<(u16, u16)>, told: IpAddr, vlan: [u8; 3]) -> Option<Quoted> {
    let (source, destination): (IpAddr, IpAddr) = match &quoted.network {
        Network::Ipv4 { header, .. } => (header.source.into(), header.destination.into()),
        Network::Ipv6 { header, .. } => (header.source.into(), header.destination.into()),
        _ => return None,
    };
    let (protocol, ports, sequence) = match &quoted.transport {
        QuotedTransport::Tcp { start, .. } => {
            let ports = (start.source_port.get(), start.destination_port.get());
            (IpProtocol::TCP, ports, Some(start.sequence_number.get()))
        }
        QuotedTransport::Udp(udp) => (IpProtocol::UDP, (udp.source_port.get(), udp.destination_port.get()), None),
        QuotedTransport::Icmp(icmp) if icmp.message_type.has_identifier() => {
            let (asks, kind) = query_of(icmp.message_type);
            (IpProtocol::ICMP, query_ports(asks, icmp.identifier(), kind), None)
        }
        QuotedTransport::Icmpv6(icmp) if icmp.message_type.has_identifier() => {
            let asks = icmp.message_type == Icmpv6Type::ECHO_REQUEST;
            (IpProtocol::ICMPV6, query_ports(asks, icmp.identifier(), 0), None)
        }
        // Cut off before the ports.
        QuotedTransport::Other(IpProtocol::TCP | IpProtocol::UDP) => return None,
        QuotedTransport::Other(protocol) if is_icmp(*protocol, source) => return None,
        QuotedTransport::Other(protocol) if length_with_ports(*protocol).is_some() => (*protocol, beside?, None),
        QuotedTransport::Other(protocol) => (*protocol, (0, 0), None),
        QuotedTransport::Icmp(_) | QuotedTransport::Icmpv6(_) | QuotedTransport::Fragment(_) => return None,
    };
    let (source, destination): (End, End) = ((source, ports.0), (destination, ports.1));
    let (key, from_low) = key(source, destination, protocol, vlan)?;
    Some(Quoted { flow: Flow { key, from_low, protocol }, sequence, goes_back: told == source.0 })
}

/// Whether packets from or to an address are on no link: RFC 6890 section 2.2.2, RFC 4291 section 2.5.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [0 | 127 | 240.., ..]),
        IpAddr::V6(address) => address.is_loopback() || address.to_ipv4_mapped().is_some(),
    }
}

/// Who has no address yet is one that is sent from, RFC 1122 section 3.2.1.3.
pub(super) fn is_no_source(address: IpAddr) -> bool {
    address.is_multicast() || is_martian(address) && !address.is_unspecified()
}

pub(super) fn is_no_destination(address: IpAddr) -> bool {
    address.is_unspecified() || is_martian(address) && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether a protocol is the ICMP of its packet's family.
fn is_icmp(protocol: IpProtocol, source: IpAddr) -> bool {
    protocol == if source.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 }
}

fn is_local(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unspecified(),
    }
}

/// The identifiers of both tags, such that two tags are never the same as one. A tag for the priority alone is none, IEEE
/// 802.1Q section 6.9.1; around another one it hides that one's VLAN, and has the number that no VLAN has.
fn vlan(tags: &[VlanTag]) -> Result<[u8; 3], NotSeen> {
    let bits = match tags {
        [] => 0,
        [tag] => u32::from(tag.id()),
        [outer, ..] if outer.id() == RESERVED_VLAN => return Err(NotSeen::Malformed),
        [outer, inner, ..] => {
            let outer = if outer.id() == 0 { RESERVED_VLAN } else { outer.id() };
            u32::from(outer) << 12 | u32::from(inner.id())
        }
    };
    let [_, a, b, c] = bits.to_be_bytes();
    Ok([a, b, c])
}

/// No frame may have it, IEEE 802.1Q table 9-2.
const RESERVED_VLAN: u16 = 0xfff;

/// Whether IPv4 options have a source route, RFC 7126 section 4.3.
fn is_source_routed(mut options: &[u8]) -> bool {
    while let Some((kind, rest)) = options.split_first() {
        options = match kind {
            0 => return false,
            1 => rest,
            131 | 137 => return true,
            _ => rest.first().and_then(|length| options.get(usize::from((*length).max(2))..)).unwrap_or_default(),
        };
    }
    false
}

fn segment(header: &TcpHeader, options: &[u8], payload: usize, is_part: bool) -> Segment {
    let (scale, sacked) = tcp_options(options);
    Segment {
        flags: header.flags,
        sequence: header.sequence_number.get(),
        acknowledgment: header.acknowledgment_number.get(),
        window: header.window.get(),
        payload: u32::try_from(payload).unwrap_or(u32::MAX),
        scale,
        sacked,
        is_part,
    }
}

/// The options of a TCP header with what they say, as far as they make sense.
pub(super) fn options(mut options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (kind, rest) = options.split_first()?;
            if *kind == 1 {
                options = rest;
                continue;
            }
            let length = usize::from(*rest.first()?);
            if *kind == 0 || length < 2 {
                return None;
            }
            let option = options.get(2..length)?;
            options = options.get(length..).unwrap_or_default();
            return Some((*kind, option));
        }
    })
}

/// The window scale, and the highest edge of what is acknowledged selectively.
fn tcp_options(all: &[u8]) -> (Option<u8>, Option<u32>) {
    let (mut scale, mut sacked): (Option<u8>, Option<u32>) = (None, None);
    for (kind, option) in options(all) {
        match (kind, option) {
            (3, [shift]) => scale = Some(*shift),
            (5, blocks) => {
                for block in blocks.as_chunks::<8>().0 {
                    let edge = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                    let higher = sacked.is_none_or(|known| edge.wrapping_sub(known).cast_signed() > 0);
                    sacked = if higher { Some(edge) } else { sacked };
                }
            }
            _ => {}
        }
    }
    (scale, sacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::testing::Frame;

    #[test]
    fn a_usual_packet_has_the_key_that_a_closer_look_finds() {
        const A: [u8; 4] = [10, 0, 0, 1];
        const B: [u8; 4] = [192, 0, 2, 1];
        const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        for (what, frame, usual) in [
            ("UDP", Frame::new().ipv4(A, B).udp(5000, 53).payload(&[1; 5]), true),
            ("UDP back", Frame::new().ipv4(B, A).udp(53, 5000), true),
            ("TCP", Frame::new().ipv4(A, B).tcp(5000, 80).payload(&[1; 5]), true),
            ("TCP with timestamps", Frame::new().ipv4(B, A).tcp(80, 5000).tcp_options(&timestamps), true),
            (
                "TCP with SACK",
                Frame::new().ipv4(B, A).tcp(80, 5000).tcp_options(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
                false,
            ),
            ("a SYN", Frame::new().ipv4(A, B).tcp(5000, 80).flags(2), false),
            ("a FIN", Frame::new().ipv4(A, B).tcp(5000, 80).flags(0x11), false),
            ("a tag", Frame::new().vlan(5).ipv4(A, B).udp(5000, 53), false),
            ("options", Frame::new().ipv4(A, B).ipv4_options(&[1; 4]).udp(5000, 53), false),
            ("a fragment", Frame::new().ipv4(A, B).udp(5000, 53).payload(&[1; 16]).fragment(0, true), false),
            ("UDP in IPv6", Frame::new().ipv6(A6, B6).udp(5000, 53), true),
            ("TCP in IPv6 back", Frame::new().ipv6(B6, A6).tcp(80, 5000).payload(&[1; 7]), true),
            ("an extension header", Frame::new().ipv6(A6, B6).extension(60, &[1, 4, 0, 0, 0, 0]).udp(5000, 53), false),
        ] {
            let bytes = frame.build();
            let found = usual_v4(&bytes)
                .map(|usual| (FlowKey::V4(usual.key), usual.from_low))
                .or_else(|| usual_v6(&bytes).map(|usual| (FlowKey::V6(usual.key), usual.from_low)));
            assert_eq!(found.is_some(), usual, "{what}");
            let (seen, payload) = nf_framework::testing::lab(move |lab| {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(&bytes));
                let usual = usual_segment(packet.data(), bytes[12] == 0x86);
                (look(&mut packet).unwrap(), usual)
            });
            let Kind::Flow(flow, says) = seen.kind else { panic!("{what}") };
            if let Some(found) = found {
                assert_eq!(found, (flow.key, flow.from_low), "{what}");
                if let Says::Tcp(segment) = says {
                    let Segment { sequence, acknowledgment, window, payload: data, .. } = segment;
                    assert_eq!(payload, Some((sequence, acknowledgment, window, data)), "{what}");
                }
            }
        }
    }

    #[test]
    fn options_are_read_as_far_as_they_make_sense() {
        for (options, expected) in [
            (&[][..], (None, None)),
            (&[2, 4, 5, 180, 1, 3, 3, 7], (Some(7), None)),
            (&[3, 3, 7, 0, 3, 3, 9], (Some(7), None)),
            (&[1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 4], (None, Some(9))),
            (&[5, 10, 0, 0, 0, 1], (None, None)),
            (&[3, 1, 7], (None, None)),
            (&[3, 0, 7], (None, None)),
            (&[3], (None, None)),
        ] {
            assert_eq!(tcp_options(options), expected, "{options:?}");
        }
        for (options, expected) in [
            (&[][..], false),
            (&[1, 1, 131, 3, 4], true),
            (&[137, 3, 4], true),
            (&[7, 7, 4, 0, 0, 0, 0, 131, 3, 4], true),
            (&[0, 131, 3, 4], false),
            (&[7, 0, 131], true),
            (&[7], false),
        ] {
            assert_eq!(is_source_routed(options), expected, "{options:?}");
        }
    }
}
