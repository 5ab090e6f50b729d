//! Addresses and ports written into packets of either family, with all checksums that cover them.

use crate::identification::Identifications;
use nf_framework::headers::{
    ChecksumUpdate, Headers, IpProtocol, Network, QuotedPacket, QuotedTransport, TcpFlags, Transport, U16, checksum,
};
use nf_framework::{Annotation, Mbuf, Ports};
use std::net::IpAddr;

/// Which end of a packet is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Source,
    Destination,
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    pub(crate) end: End,
    /// Of the packet's own family, or nothing is written.
    pub(crate) address: IpAddr,
    /// Or identifier; `None` leaves it.
    pub(crate) port: Option<u16>,
    /// Of IPv4.
    pub(crate) identification: Option<u16>,
    /// The longest segment that a SYN may offer.
    pub(crate) mss: Option<u16>,
}

/// Writes an end of what nearly every packet is: TCP or UDP in IPv4, whole, without tags and options.
#[inline(always)]
pub(crate) fn write_usual(
    frame: &mut [u8],
    end: End,
    address: [u8; 4],
    port: u16,
    identification: impl FnOnce() -> u16,
) {
    const UDP_CHECKSUM: usize = 40;
    const TCP_CHECKSUM: usize = 50;
    const DONT_FRAGMENT: u8 = 0x40;
    let Some(head) = frame.first_chunk_mut::<42>() else { return };
    let is_tcp = IpProtocol(head[23]) == IpProtocol::TCP;
    let (at, port_at) = if end == End::Source { (26, 34) } else { (30, 36) };
    let port = port.to_be_bytes();
    let old = [head[at], head[at + 1], head[at + 2], head[at + 3]];
    let update = ChecksumUpdate::new().replace_bytes(old, address);
    let of_transport = update.replace_bytes([head[port_at], head[port_at + 1]], port);
    head[at..at + 4].copy_from_slice(&address);
    head[port_at..port_at + 2].copy_from_slice(&port);
    let mut of_header = update;
    if end == End::Source && head[20] & DONT_FRAGMENT == 0 {
        let new = identification().to_be_bytes();
        of_header = of_header.replace_bytes([head[18], head[19]], new);
        head[18..20].copy_from_slice(&new);
    }
    let mut checksum = U16::from_bytes([head[24], head[25]]);
    of_header.apply(&mut checksum);
    head[24..26].copy_from_slice(&checksum.to_bytes());
    if is_tcp {
        if let Some(field) = frame.get_mut(TCP_CHECKSUM..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            let mut checksum = U16::from_bytes(*field);
            of_transport.apply(&mut checksum);
            *field = checksum.to_bytes();
        }
    } else {
        let mut checksum = U16::from_bytes([head[UDP_CHECKSUM], head[UDP_CHECKSUM + 1]]);
        of_transport.apply_udp(&mut checksum);
        head[UDP_CHECKSUM..].copy_from_slice(&checksum.to_bytes());
    }
}

/// Makes what nearly every packet is (TCP or UDP in IPv4, whole, without tags and options) one of another flow:
/// addresses and ports as they stand in it.
#[inline(always)]
pub(crate) fn write_usual_flow_v4(frame: &mut [u8], flow: [u8; 12], identifications: Option<&mut Identifications>) {
    const TRANSPORT: usize = 34;
    const DONT_FRAGMENT: u8 = 0x40;
    let Some(head) = frame.first_chunk_mut::<{ TRANSPORT + 8 }>() else { return };
    let is_tcp = IpProtocol(head[23]) == IpProtocol::TCP;
    let Some(place) = head[26..].first_chunk_mut::<12>() else { return };
    let addresses = |&[a, b, c, d, e, f, g, h, ..]: &[u8; 12]| [a, b, c, d, e, f, g, h];
    let ports = |&[.., a, b, c, d]: &[u8; 12]| [a, b, c, d];
    let old = std::mem::replace(place, flow);
    let of_addresses = ChecksumUpdate::new().replace_bytes(addresses(&old), addresses(&flow));
    let of_transport = of_addresses.replace_bytes(ports(&old), ports(&flow));
    let mut of_header = of_addresses;
    if let Some(identifications) = identifications.filter(|_| head[20] & DONT_FRAGMENT == 0) {
        let new = identifications.next().to_be_bytes();
        of_header = of_header.replace_bytes([head[18], head[19]], new);
        head[18..20].copy_from_slice(&new);
    }
    let mut checksum = U16::from_bytes([head[24], head[25]]);
    of_header.apply(&mut checksum);
    head[24..26].copy_from_slice(&checksum.to_bytes());
    mend_usual::<TRANSPORT>(frame, is_tcp, of_transport);
}

/// The same in IPv6, without extension headers.
#[inline(always)]
pub(crate) fn write_usual_flow_v6(frame: &mut [u8], flow: [u8; 36]) {
    const TRANSPORT: usize = 54;
    let Some(head) = frame.first_chunk_mut::<{ TRANSPORT + 8 }>() else { return };
    let is_tcp = IpProtocol(head[20]) == IpProtocol::TCP;
    let Some(place) = head[22..].first_chunk_mut::<36>() else { return };
    let old = std::mem::replace(place, flow);
    mend_usual::<TRANSPORT>(frame, is_tcp, ChecksumUpdate::new().replace_bytes(old, flow));
}

/// Mends the checksum of a usual packet's TCP or UDP, which begins there.
#[inline(always)]
fn mend_usual<const TRANSPORT: usize>(frame: &mut [u8], is_tcp: bool, update: ChecksumUpdate) {
    let at = TRANSPORT + if is_tcp { 16 } else { 6 };
    let Some(field) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    let mut checksum = U16::from_bytes(*field);
    if is_tcp {
        update.apply(&mut checksum);
    } else {
        update.apply_udp(&mut checksum);
    }
    *field = checksum.to_bytes();
}

/// Writes an end of any packet that can be parsed.
pub(crate) fn write(packet: &mut Mbuf, writing: &Writing) {
    let known = Annotation::of(packet);
    if let (Some(ports), Some(port)) = (known.ports, writing.port) {
        let ports = match (ports, writing.end) {
            (Ports::Both(_, destination), End::Source) => Ports::Both(port, destination),
            (Ports::Both(source, _), End::Destination) => Ports::Both(source, port),
            (Ports::Identifier(_), _) => Ports::Identifier(port),
            (Ports::None, _) => Ports::None,
        };
        Annotation { ports: Some(ports), ..known }.write(packet);
    }
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return };
    let Some(of_addresses) = write_address(&mut headers.network, writing.end, writing.address) else { return };
    if let (Some(new), Network::Ipv4 { header, .. }) = (writing.identification, &mut headers.network) {
        let of_identification = ChecksumUpdate::new().replace_u16(header.identification.get(), new);
        header.identification.set(new);
        of_identification.apply(&mut header.header_checksum);
    }
    let field = |source, destination| if writing.end == End::Source { source } else { destination };
    let replace = |update: ChecksumUpdate, port: &mut U16| match writing.port {
        Some(new) => {
            let update = update.replace_u16(port.get(), new);
            port.set(new);
            update
        }
        None => update,
    };
    match &mut headers.transport {
        Transport::Udp(udp) => {
            let udp = &mut **udp;
            let update = replace(of_addresses, field(&mut udp.source_port, &mut udp.destination_port));
            update.apply_udp(&mut udp.checksum);
        }
        Transport::Tcp { header: tcp, options } => {
            let tcp = &mut **tcp;
            let mut update = replace(of_addresses, field(&mut tcp.source_port, &mut tcp.destination_port));
            if let Some(mss) = writing.mss.filter(|_| tcp.flags.contains(TcpFlags::SYN)) {
                update = clamp(options, mss, update);
            }
            update.apply(&mut tcp.checksum);
        }
        Transport::Icmp(icmp) if icmp.message_type.has_identifier() => {
            if let Some(new) = writing.port {
                let update = ChecksumUpdate::new().replace_u16(icmp.identifier(), new);
                icmp.set_identifier(new);
                update.apply(&mut icmp.checksum);
            }
        }
        Transport::Icmpv6(icmp) => {
            let mut update = of_addresses;
            if let Some(new) = writing.port.filter(|_| icmp.message_type.has_identifier()) {
                update = update.replace_u16(icmp.identifier(), new);
                icmp.set_identifier(new);
            }
            update.apply(&mut icmp.checksum);
        }
        // A later fragment, or a protocol whose own checksum covers no addresses.
        _ => {}
    }
}

/// Writes an address, and says what that does to checksums over the addresses. Nothing is written if it is of the
/// other family.
fn write_address(network: &mut Network<'_>, end: End, address: IpAddr) -> Option<ChecksumUpdate> {
    let update = ChecksumUpdate::new();
    match (network, address) {
        (Network::Ipv4 { header, .. }, IpAddr::V4(address)) => {
            let field = if end == End::Source { &mut header.source } else { &mut header.destination };
            let update = update.replace_bytes(*field, address.octets());
            *field = address.octets();
            update.apply(&mut header.header_checksum);
            Some(update)
        }
        (Network::Ipv6 { header, .. }, IpAddr::V6(address)) => {
            let field = if end == End::Source { &mut header.source } else { &mut header.destination };
            let update = update.replace_bytes(*field, address.octets());
            *field = address.octets();
            Some(update)
        }
        _ => None,
    }
}

/// Brings down the maximum segment size that a SYN offers: RFC 9293 section 3.7.1.
fn clamp(options: &mut [u8], mss: u16, mut update: ChecksumUpdate) -> ChecksumUpdate {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const MSS: u8 = 2;
    let mut at = 0;
    loop {
        match options.get(at..) {
            Some([NO_OPERATION, ..]) => at += 1,
            Some([MSS, 4, high, low, ..]) => {
                let offered = u16::from_be_bytes([*high, *low]);
                if offered > mss {
                    // A checksum is over words from even places: one that begins at an odd one counts
                    // with its octets exchanged.
                    let swapped = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
                    update = update.replace_u16(swapped(offered), swapped(mss));
                    if let Some(place) = options.get_mut(at + 2..at + 4) {
                        place.copy_from_slice(&mss.to_be_bytes());
                    }
                }
                return update;
            }
            None | Some([END | MSS, ..] | [_, 0 | 1, ..] | [] | [_]) => return update,
            Some([_, length, ..]) => at += usize::from(*length),
        }
    }
}

/// Writes ends of the packet that an ICMP or ICMPv6 error quotes, with the checksums there, and of the error
/// around it. False if the packet is no error.
pub(crate) fn write_error(
    packet: &mut Mbuf,
    quoted_ends: &[(End, IpAddr, Option<u16>)],
    ends: &[(End, IpAddr)],
    identification: Option<u16>,
) -> bool {
    {
        let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
        let Some(mut quoted) = headers.quoted() else { return false };
        for (end, address, port) in quoted_ends {
            write_quoted(&mut quoted, *end, *address, *port);
        }
        if !seal_error(&mut headers) {
            return false;
        }
    }
    for (end, address) in ends {
        write(packet, &Writing { end: *end, address: *address, port: None, identification, mss: None });
    }
    true
}

/// Computes the checksum of an error. Over what is quoted there is no update: of a checksum that is not quoted nobody
/// knows the change. False if the packet is no error.
fn seal_error(headers: &mut Headers<'_>) -> bool {
    let pseudo_header = headers.network.pseudo_header();
    match (&mut headers.transport, pseudo_header) {
        (Transport::Icmp(icmp), _) => icmp.checksum.set(checksum::icmp(icmp, headers.payload)),
        (Transport::Icmpv6(icmp), Some(pseudo_header)) => {
            icmp.checksum.set(checksum::icmpv6(&pseudo_header, icmp, headers.payload));
        }
        _ => return false,
    }
    true
}

/// What the numbers of a segment become where its two ends count differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Renumbering {
    /// Added to the sequence number.
    pub(crate) sequence: u32,
    /// Added to the acknowledgment number, and to the edges of SACK blocks.
    pub(crate) acknowledgment: u32,
    pub(crate) window: u16,
}

/// Writes the numbers of a segment.
pub(crate) fn renumber(packet: &mut Mbuf, by: Renumbering) {
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return };
    let Transport::Tcp { header, options } = &mut headers.transport else { return };
    let (sequence, acknowledgment) = (header.sequence_number.get(), header.acknowledgment_number.get());
    let mut update = ChecksumUpdate::new().replace_u16(header.window.get(), by.window);
    header.window.set(by.window);
    let new = sequence.wrapping_add(by.sequence);
    update = update.replace_u32(sequence, new);
    header.sequence_number.set(new);
    if header.flags.contains(TcpFlags::ACK) {
        let new = acknowledgment.wrapping_add(by.acknowledgment);
        update = update.replace_u32(acknowledgment, new);
        header.acknowledgment_number.set(new);
        update = renumber_selective_acknowledgments(options, by.acknowledgment, update);
    }
    update.apply(&mut header.checksum);
}

/// Adds a number to the edges of SACK blocks: RFC 2018 section 3.
fn renumber_selective_acknowledgments(options: &mut [u8], add: u32, mut update: ChecksumUpdate) -> ChecksumUpdate {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const SACK: u8 = 5;
    let mut at = 0;
    loop {
        let length = match options.get(at..) {
            Some([NO_OPERATION, ..]) => 1,
            None | Some([END, ..] | [_, 0 | 1, ..] | [] | [_]) => return update,
            Some([_, length, ..]) => usize::from(*length),
        };
        if let Some([SACK, edges @ ..]) = options.get_mut(at..(at + length).min(options.len())) {
            for edge in edges.get_mut(1..).unwrap_or_default().as_chunks_mut::<4>().0 {
                let new = u32::from_be_bytes(*edge).wrapping_add(add).to_be_bytes();
                // A checksum is over words from even places: at an odd one octets count exchanged, and the sum of a
                // number's words is that of its octets in any two of them.
                let word = |edge: [u8; 4]| if at % 2 == 0 { edge } else { [edge[1], edge[0], edge[3], edge[2]] };
                update = update.replace_bytes(word(*edge), word(new));
                *edge = new;
            }
        }
        at += length;
    }
}

/// Adds a number to that of a segment that an ICMP or ICMPv6 error quotes.
pub(crate) fn renumber_quoted(packet: &mut Mbuf, add: u32) {
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return };
    let Some(mut quoted) = headers.quoted() else { return };
    let QuotedTransport::Tcp { start, checksum } = &mut quoted.transport else { return };
    let old = start.sequence_number.get();
    let new = old.wrapping_add(add);
    start.sequence_number.set(new);
    if let Some(checksum) = checksum {
        ChecksumUpdate::new().replace_u32(old, new).apply(checksum);
    }
    seal_error(&mut headers);
}

/// Writes an end of a quoted packet. The error's own checksum is the caller's matter.
fn write_quoted(quoted: &mut QuotedPacket<'_>, end: End, address: IpAddr, port: Option<u16>) {
    let Some(of_addresses) = write_address(&mut quoted.network, end, address) else { return };
    let replace = |update: ChecksumUpdate, field: &mut U16| match port {
        Some(new) => {
            let update = update.replace_u16(field.get(), new);
            field.set(new);
            update
        }
        None => update,
    };
    match &mut quoted.transport {
        QuotedTransport::Udp(udp) => {
            let udp = &mut **udp;
            let field = if end == End::Source { &mut udp.source_port } else { &mut udp.destination_port };
            replace(of_addresses, field).apply_udp(&mut udp.checksum);
        }
        QuotedTransport::Tcp { start, checksum } => {
            let start = &mut **start;
            let field = if end == End::Source { &mut start.source_port } else { &mut start.destination_port };
            let update = replace(of_addresses, field);
            if let Some(checksum) = checksum {
                update.apply(checksum);
            }
        }
        QuotedTransport::Icmp(icmp) if icmp.message_type.has_identifier() => {
            if let Some(new) = port {
                let update = ChecksumUpdate::new().replace_u16(icmp.identifier(), new);
                icmp.set_identifier(new);
                update.apply(&mut icmp.checksum);
            }
        }
        QuotedTransport::Icmpv6(icmp) => {
            let mut update = of_addresses;
            if let Some(new) = port.filter(|_| icmp.message_type.has_identifier()) {
                update = update.replace_u16(icmp.identifier(), new);
                icmp.set_identifier(new);
            }
            update.apply(&mut icmp.checksum);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::testing::{Frame, lab};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const NEW4: Ipv4Addr = Ipv4Addr::new(10, 200, 3, 4);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    const NEW6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xffff, 2, 3, 4, 5, 6, 7);

    /// A packet between two hosts with these ports or this identifier.
    type Kind = fn(Frame, u16, u16) -> Frame;

    const KINDS4: [Kind; 5] = [
        |frame, from, to| frame.udp(from, to).payload(b"odd"),
        |frame, from, to| frame.udp(from, to).without_udp_checksum().payload(b"none"),
        |frame, from, to| frame.vlan(5).ipv4_options(&[1; 4]).tcp(from, to).tcp_options(&[1; 4]),
        // The two numbers are one.
        |frame, from, to| frame.icmp_echo_request(from.max(to), 9).payload(b"ping"),
        |frame, from, to| frame.icmp_echo_reply(from.max(to), 9),
    ];
    const KINDS6: [Kind; 5] = [
        |frame, from, to| frame.udp(from, to).payload(b"odd"),
        |frame, from, to| frame.extension(60, &[1, 4, 0, 0, 0, 0]).udp(from, to),
        |frame, from, to| frame.tcp(from, to).tcp_options(&[1; 8]).payload(&[7; 1000]),
        |frame, from, to| frame.icmpv6_echo_request(from.max(to), 9).payload(b"ping"),
        |frame, from, to| frame.icmpv6_echo_reply(from.max(to), 9),
    ];

    /// A frame, the same with a new source and port 7777, and with a new destination and port 7777; the new
    /// address, and the source's old one.
    fn frames() -> Vec<([Frame; 3], [IpAddr; 2])> {
        let v4 = |kind: Kind| {
            let between = |from: Ipv4Addr, to: Ipv4Addr| move |a, b| kind(Frame::new().ipv4(from, to), a, b);
            let frames = [between(A4, B4)(5000, 53), between(NEW4, B4)(7777, 53), between(A4, NEW4)(5000, 7777)];
            (frames, [NEW4.into(), A4.into()])
        };
        let v6 = |kind: Kind| {
            let between = |from: Ipv6Addr, to: Ipv6Addr| move |a, b| kind(Frame::new().ipv6(from, to), a, b);
            let frames = [between(A6, B6)(5000, 53), between(NEW6, B6)(7777, 53), between(A6, NEW6)(5000, 7777)];
            (frames, [NEW6.into(), A6.into()])
        };
        KINDS4.into_iter().map(v4).chain(KINDS6.into_iter().map(v6)).collect()
    }

    fn writing(end: End, address: IpAddr) -> Writing {
        Writing { end, address, port: Some(7777), identification: None, mss: None }
    }

    #[test]
    fn an_end_is_written_as_if_the_packet_had_been_made_with_it() {
        lab(|lab| {
            for ([frame, from, to], [new, old]) in frames() {
                let mut packet = lab.pool.alloc().unwrap();
                for (end, expected) in [(End::Source, from), (End::Destination, to)] {
                    assert!(packet.set_contents(&frame.build()));
                    write(&mut packet, &writing(end, new));
                    assert_eq!(packet.data(), expected.build(), "{end:?} of {frame:?}");
                }
                // And back.
                assert!(packet.set_contents(&frame.build()));
                write(&mut packet, &writing(End::Source, new));
                write(&mut packet, &Writing { port: Some(5000), ..writing(End::Source, old) });
                assert_eq!(packet.data(), frame.build(), "{frame:?}");
            }
        });
    }

    #[test]
    fn a_usual_packet_becomes_one_of_another_flow_as_if_it_had_been_made_so() {
        const USUAL: [Kind; 3] = [
            |frame, from, to| frame.udp(from, to).payload(b"odd"),
            |frame, from, to| frame.udp(from, to).without_udp_checksum(),
            |frame, from, to| frame.tcp(from, to).tcp_options(&[1; 4]).payload(b"segment"),
        ];
        let ports = |from: u16, to: u16| [from.to_be_bytes(), to.to_be_bytes()].concat();
        for kind in USUAL {
            let v4 = |from, to, a, b| kind(Frame::new().ipv4(from, to).dont_fragment(), a, b);
            let (mut frame, expected) = (v4(A4, B4, 5000, 53).build(), v4(NEW4, A4, 7777, 8888));
            let flow = [&NEW4.octets()[..], &A4.octets(), &ports(7777, 8888)].concat();
            write_usual_flow_v4(&mut frame, flow.try_into().unwrap(), None);
            assert_eq!(frame, expected.build(), "{expected:?}");
            let v6 = |from, to, a, b| kind(Frame::new().ipv6(from, to), a, b);
            let (mut frame, expected) = (v6(A6, B6, 5000, 53).build(), v6(NEW6, A6, 7777, 8888));
            let flow = [&NEW6.octets()[..], &A6.octets(), &ports(7777, 8888)].concat();
            write_usual_flow_v6(&mut frame, flow.try_into().unwrap());
            assert_eq!(frame, expected.build(), "{expected:?}");
        }
    }

    #[test]
    fn what_may_be_split_gets_an_identification_from_a_shared_address() {
        lab(|lab| {
            let mut identifications = Identifications::new(&lab.eal.memory(), 0, 1).unwrap();
            let before = identifications.next();
            let flow = [&NEW4.octets()[..], &A4.octets(), &[1, 2, 3, 4]].concat().try_into().unwrap();
            let made = |frame: Frame| frame.udp(0x0102, 0x0304).build();
            for (frame, expected) in [
                (
                    Frame::new().ipv4(A4, B4),
                    made(Frame::new().ipv4(NEW4, A4).identification(u32::from(before.wrapping_add(1)))),
                ),
                (Frame::new().ipv4(A4, B4).dont_fragment(), made(Frame::new().ipv4(NEW4, A4).dont_fragment())),
            ] {
                let mut frame = frame.udp(5000, 53).build();
                write_usual_flow_v4(&mut frame, flow, Some(&mut identifications));
                assert_eq!(frame, expected);
            }
        });
    }

    #[test]
    fn an_address_of_the_other_family_is_not_written() {
        lab(|lab| {
            for (frame, address) in [
                (Frame::new().ipv4(A4, B4).udp(1, 2), IpAddr::from(NEW6)),
                (Frame::new().ipv6(A6, B6).udp(1, 2), IpAddr::from(NEW4)),
                (Frame::new().arp_request(A4, B4), IpAddr::from(NEW4)),
            ] {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(&frame.build()));
                write(&mut packet, &writing(End::Source, address));
                assert_eq!(packet.data(), frame.build());
            }
        });
    }

    #[test]
    fn a_fragment_has_its_new_port_in_the_header_or_beside_it() {
        lab(|lab| {
            let frames = |from: Ipv4Addr, port| {
                Frame::new().ipv4(from, B4).identification(7).udp(port, 53).payload(&[3; 100]).build_fragments(64)
            };
            let (old, new) = (frames(A4, 5000), frames(NEW4, 7777));
            for (old, new) in old.iter().zip(&new).skip(1) {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(old));
                Annotation { ports: Some(Ports::Both(5000, 53)), ..Annotation::default() }.write(&mut packet);
                write(&mut packet, &writing(End::Source, NEW4.into()));
                assert_eq!(packet.data(), new);
                assert_eq!(Annotation::of(&packet).ports, Some(Ports::Both(7777, 53)));
            }
        });
    }

    #[test]
    fn an_error_is_written_with_what_it_quotes() {
        lab(|lab| {
            let (r4, r6) = (Ipv4Addr::new(203, 0, 113, 200), Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9));
            let error = |router: IpAddr, to: IpAddr, quoted: &Frame, octets: usize| {
                let quoted = quoted.build();
                let start = if quoted[12..14] == [0x81, 0] { 18 } else { 14 };
                let quoted = &quoted[start..];
                let quoted = &quoted[..octets.min(quoted.len())];
                let frame = match (router, to) {
                    (IpAddr::V4(router), IpAddr::V4(to)) => Frame::new().ipv4(router, to).icmp(3, 1, [0; 4]),
                    (IpAddr::V6(router), IpAddr::V6(to)) => Frame::new().ipv6(router, to).icmpv6(1, 0, [0; 4]),
                    _ => panic!("one family"),
                };
                frame.payload(quoted).build()
            };
            // All that there is, and with a transport header cut off behind 8 octets.
            for ([frame, from, _], [new, old]) in frames() {
                let router: IpAddr = if new.is_ipv4() { r4.into() } else { r6.into() };
                let short = if new.is_ipv4() { 20 + 4 + 8 } else { 40 + 8 + 8 };
                for octets in [2000, short] {
                    let mut packet = lab.pool.alloc().unwrap();
                    assert!(packet.set_contents(&error(router, new, &from, octets)));
                    let (quoted, outer) = ([(End::Source, old, Some(5000))], [(End::Destination, old)]);
                    assert!(write_error(&mut packet, &quoted, &outer, None));
                    assert_eq!(packet.data(), error(router, old, &frame, octets), "{octets} of {frame:?}");
                }
            }
            let mut packet = lab.pool.alloc().unwrap();
            assert!(packet.set_contents(&Frame::new().ipv4(A4, B4).udp(1, 2).build()));
            assert!(!write_error(&mut packet, &[], &[], None), "it is no error");
        });
    }

    /// A SYN with these options.
    fn syn(options: &[u8]) -> Vec<u8> {
        Frame::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2).flags(TcpFlags::SYN).tcp_options(options).build()
    }

    #[test]
    fn the_size_that_a_syn_offers_comes_down_wherever_it_stands() {
        // Options, and what they become at most 1280 (0x0500).
        let cases: [(&[u8], &[u8]); 12] = [
            (&[2, 4, 0x05, 0xb4], &[2, 4, 0x05, 0x00]),
            (&[1, 2, 4, 0x05, 0xb4, 1, 1, 1], &[1, 2, 4, 0x05, 0x00, 1, 1, 1]),
            (&[1, 1, 2, 4, 0xff, 0xff, 1, 1], &[1, 1, 2, 4, 0x05, 0x00, 1, 1]),
            (&[3, 3, 9, 2, 4, 0x12, 0x34, 0], &[3, 3, 9, 2, 4, 0x05, 0x00, 0]),
            (&[2, 4, 0x05, 0x00], &[2, 4, 0x05, 0x00]),
            (&[2, 4, 0x02, 0x18], &[2, 4, 0x02, 0x18]),
            // Behind the end, cut short, of another length, and none.
            (&[0, 2, 4, 0xff, 0xff, 0, 0, 0], &[0, 2, 4, 0xff, 0xff, 0, 0, 0]),
            (&[1, 2, 4, 0xff], &[1, 2, 4, 0xff]),
            (&[2, 3, 0xff, 1, 2, 4, 0xff, 0xff], &[2, 3, 0xff, 1, 2, 4, 0xff, 0xff]),
            (&[8, 0, 2, 4, 0xff, 0xff, 1, 1], &[8, 0, 2, 4, 0xff, 0xff, 1, 1]),
            (&[8, 200, 2, 4, 0xff, 0xff, 1, 1], &[8, 200, 2, 4, 0xff, 0xff, 1, 1]),
            (&[], &[]),
        ];
        for (before, after) in cases {
            let (mut frame, expected) = (syn(before), syn(after));
            let mut headers = Headers::parse(&mut frame).unwrap();
            let Transport::Tcp { header, options } = &mut headers.transport else { panic!("it is TCP") };
            clamp(options, 1280, ChecksumUpdate::new()).apply(&mut header.checksum);
            assert_eq!(frame, expected, "{before:?}");
        }
    }
}
