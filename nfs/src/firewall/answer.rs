//! What the firewall says itself. Who is rejected is told: RFC 9293 section 3.10.7.1 for TCP, ICMP for the rest. And it
//! says segments of TCP in the name of an end.
//!
//! An answer comes from where the packet was going, as on a wire the firewall has no address.

use nf_framework::headers::{
    EthernetHeader, Headers, IcmpHeader, IcmpType, Icmpv6Header, Icmpv6Type, IpProtocol, Ipv4Header, Ipv6Header,
    Network, TcpFlags, TcpHeader, Transport,
};
use nf_framework::{Context, Direction, Mbuf};
use std::net::IpAddr;

/// An ICMP error is not longer: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
const HOPS: u8 = 64;

/// Octets of a packet in the making, without the heap.
struct Writer {
    octets: [u8; LONGEST_V6 + 64],
    length: usize,
}

/// What became of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Sent,
    /// There are too many.
    Bounded,
    /// There is none, or no memory for it.
    Nothing,
}

/// A segment that the firewall makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made<'a> {
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) flags: TcpFlags,
    pub(super) window: u16,
    /// Whole words.
    pub(super) options: &'a [u8],
}

/// To whom a segment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum To {
    /// Who has sent the one that it is made for.
    Sender,
    Receiver,
}

/// Sends a segment to an end of a connection, in the name of the other end; a segment of the batch is of the same
/// connection. False without memory.
#[cold]
pub(super) fn say(packet: &mut Mbuf, to: To, made: &Made<'_>, cx: &mut Context<'_>) -> bool {
    let mut writer = Writer { octets: [0; LONGEST_V6 + 64], length: 0 };
    let direction = if to == To::Sender { cx.direction().reversed() } else { cx.direction() };
    make(packet, to, made, &mut writer).is_some() && send(&writer, direction, cx)
}

fn make(packet: &mut Mbuf, to: To, made: &Made<'_>, writer: &mut Writer) -> Option<()> {
    let (start, ports, four) = {
        let headers = Headers::parse(packet.data_mut()).ok().filter(are_hosts)?;
        let start = EthernetHeader::LENGTH + 4 * headers.vlan.len();
        (start, headers.transport.ports()?, matches!(headers.network, Network::Ipv4 { .. }))
    };
    let frame = packet.data();
    let (stations, ports) = match to {
        To::Sender => ([6..12, 0..6], [ports.1, ports.0]),
        To::Receiver => ([0..6, 6..12], [ports.0, ports.1]),
    };
    for station in stations {
        writer.put(frame.get(station)?)?;
    }
    writer.put(frame.get(12..start)?)?;
    segment(writer, frame.get(start..)?, (four, to), ports, made)
}

/// Sends the answer to a packet of the batch back, if there is one and it `may` be sent.
#[cold]
pub(super) fn reject(packet: &mut Mbuf, cx: &mut Context<'_>, may: impl FnOnce() -> bool) -> Told {
    let mut writer = Writer { octets: [0; LONGEST_V6 + 64], length: 0 };
    if write(packet, &mut writer).is_none() {
        return Told::Nothing;
    }
    if !may() {
        return Told::Bounded;
    }
    let back = cx.direction().reversed();
    if send(&writer, back, cx) { Told::Sent } else { Told::Nothing }
}

fn send(writer: &Writer, direction: Direction, cx: &mut Context<'_>) -> bool {
    let Some(mut packet) = cx.allocate() else { return false };
    // An empty one is dropped by its name.
    let is_full = packet.set_contents(&writer.octets[..writer.length]);
    cx.emit(packet, direction);
    is_full
}

impl Writer {
    fn put(&mut self, octets: &[u8]) -> Option<()> {
        self.octets.get_mut(self.length..self.length + octets.len())?.copy_from_slice(octets);
        self.length += octets.len();
        Some(())
    }
}

fn write(packet: &mut Mbuf, writer: &mut Writer) -> Option<()> {
    let frame_length = packet.len();
    let (start, end, is_told, tcp, four) = {
        let headers = Headers::parse(packet.data_mut()).ok()?;
        let start = EthernetHeader::LENGTH + 4 * headers.vlan.len();
        // RFC 1122 section 3.2.2: not to groups, and of fragments about the first alone.
        let is_told = are_hosts(&headers);
        let (end, four): (usize, bool) = match &headers.network {
            Network::Ipv4 { header, .. } => (header.total_length.get().into(), true),
            Network::Ipv6 { header, .. } => (Ipv6Header::LENGTH + usize::from(header.payload_length.get()), false),
            _ => return None,
        };
        let tcp = match &headers.transport {
            Transport::Tcp { header, .. } => Some((**header, headers.payload.len())),
            _ => None,
        };
        // Nor about errors, RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e).
        let is_error = match &headers.transport {
            Transport::Icmp(icmp) => icmp.message_type.quotes_packet(),
            Transport::Icmpv6(icmp) => icmp.message_type.quotes_packet(),
            _ => false,
        };
        (start, (start + end).min(frame_length), is_told && !is_error, tcp, four)
    };
    if !is_told {
        return None;
    }
    let frame = packet.data();
    // The way back, with the same tags.
    writer.put(frame.get(6..12)?)?;
    writer.put(frame.get(..6)?)?;
    writer.put(frame.get(12..start)?)?;
    let ip = frame.get(start..end)?;
    match tcp {
        Some((header, _)) if header.flags.contains(TcpFlags::RST) => None,
        Some((header, payload)) => reset(writer, ip, four, &header, payload),
        None => unreachable(writer, ip, four),
    }
}

/// Whether a packet goes from one host to another.
fn are_hosts(headers: &Headers<'_>) -> bool {
    let (source, destination): (IpAddr, IpAddr) = match &headers.network {
        Network::Ipv4 { header, .. } => (header.source.into(), header.destination.into()),
        Network::Ipv6 { header, .. } => (header.source.into(), header.destination.into()),
        _ => return false,
    };
    let is_host = match destination {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_multicast(),
    };
    is_host && !source.is_unspecified() && !headers.ethernet.destination.is_multicast()
}

fn reset(writer: &mut Writer, ip: &[u8], four: bool, about: &TcpHeader, payload: usize) -> Option<()> {
    let has = |flag| about.flags.contains(flag);
    let taken = u32::try_from(payload).ok()? + u32::from(has(TcpFlags::SYN)) + u32::from(has(TcpFlags::FIN));
    let (sequence, acknowledgment, flags) = if has(TcpFlags::ACK) {
        (about.acknowledgment_number.get(), 0, TcpFlags::RST)
    } else {
        (0, about.sequence_number.get().wrapping_add(taken), TcpFlags::RST | TcpFlags::ACK)
    };
    let ports = [about.destination_port, about.source_port].map(|port| port.get());
    segment(writer, ip, (four, To::Sender), ports, &Made { sequence, acknowledgment, flags, window: 0, options: &[] })
}

/// A whole segment, for the ends of an IP packet.
fn segment(writer: &mut Writer, ip: &[u8], (four, to): (bool, To), ports: [u16; 2], made: &Made<'_>) -> Option<()> {
    let length = TcpHeader::LENGTH + made.options.len();
    network(writer, ip, (four, to), IpProtocol::TCP, length)?;
    for port in ports {
        writer.put(&port.to_be_bytes())?;
    }
    writer.put(&made.sequence.to_be_bytes())?;
    writer.put(&made.acknowledgment.to_be_bytes())?;
    let offset = u8::try_from(length / 4).ok()? << 4;
    let [high, low] = made.window.to_be_bytes();
    writer.put(&[offset, made.flags.0, high, low, 0, 0, 0, 0])?;
    writer.put(made.options)?;
    fill(writer)
}

fn unreachable(writer: &mut Writer, ip: &[u8], four: bool) -> Option<()> {
    // Forbidden by somebody on the way: code 13 of RFC 1812 section 5.2.7.1, code 1 of RFC 4443 section 3.1.
    if four {
        let quoted = ip.get(..ip.len().min(LONGEST_V4 - Ipv4Header::LENGTH - IcmpHeader::LENGTH))?;
        network(writer, ip, (four, To::Sender), IpProtocol::ICMP, IcmpHeader::LENGTH + quoted.len())?;
        writer.put(&[IcmpType::DESTINATION_UNREACHABLE.0, 13, 0, 0, 0, 0, 0, 0])?;
        writer.put(quoted)?;
    } else {
        let quoted = ip.get(..ip.len().min(LONGEST_V6 - Ipv6Header::LENGTH - Icmpv6Header::LENGTH))?;
        network(writer, ip, (four, To::Sender), IpProtocol::ICMPV6, Icmpv6Header::LENGTH + quoted.len())?;
        writer.put(&[Icmpv6Type::DESTINATION_UNREACHABLE.0, 1, 0, 0, 0, 0, 0, 0])?;
        writer.put(quoted)?;
    }
    fill(writer)
}

/// An IP header between the ends of a packet.
fn network(writer: &mut Writer, ip: &[u8], (four, to): (bool, To), protocol: IpProtocol, payload: usize) -> Option<()> {
    let (source, destination) = if four {
        let length = u16::try_from(Ipv4Header::LENGTH + payload).ok()?.to_be_bytes();
        writer.put(&[0x45, 0, length[0], length[1], 0, 0, 0x40, 0, HOPS, protocol.0, 0, 0])?;
        (ip.get(12..16)?, ip.get(16..20)?)
    } else {
        let length = u16::try_from(payload).ok()?.to_be_bytes();
        writer.put(&[0x60, 0, 0, 0, length[0], length[1], protocol.0, HOPS])?;
        (ip.get(8..24)?, ip.get(24..40)?)
    };
    let (source, destination) = if to == To::Sender { (destination, source) } else { (source, destination) };
    writer.put(source)?;
    writer.put(destination)
}

/// Computes the checksums of the frame.
fn fill(writer: &mut Writer) -> Option<()> {
    let frame = writer.octets.get_mut(..writer.length)?;
    Headers::parse(frame).ok()?.fill_checksums();
    Some(())
}
