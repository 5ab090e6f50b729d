//! What is said to who is rejected: RFC 9293 section 3.10.7.1 for TCP, ICMP for the rest.
//!
//! The answer comes from where the packet was going, as on a wire the firewall has no address.

use nf_framework::headers::{
    EthernetHeader, Headers, IcmpHeader, IcmpType, Icmpv6Header, Icmpv6Type, IpProtocol, Ipv4Header, Ipv6Header,
    Network, TcpFlags, TcpHeader, Transport,
};
use nf_framework::{Context, Mbuf};
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
    let Some(mut answer) = cx.allocate() else { return Told::Nothing };
    if !answer.set_contents(&writer.octets[..writer.length]) {
        return Told::Nothing;
    }
    let back = cx.direction().reversed();
    cx.emit(answer, back);
    Told::Sent
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
        let (destination, end, four): (IpAddr, usize, bool) = match &headers.network {
            Network::Ipv4 { header, .. } => (header.destination.into(), header.total_length.get().into(), true),
            Network::Ipv6 { header, .. } => {
                (header.destination.into(), Ipv6Header::LENGTH + usize::from(header.payload_length.get()), false)
            }
            _ => return None,
        };
        let is_host = match destination {
            IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified(),
            IpAddr::V6(address) => !address.is_multicast(),
        };
        let source_is_host = match &headers.network {
            Network::Ipv4 { header, .. } => header.source != [0; 4],
            Network::Ipv6 { header, .. } => header.source != [0; 16],
            _ => false,
        };
        let is_told = is_host && source_is_host && !headers.ethernet.destination.is_multicast();
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

fn reset(writer: &mut Writer, ip: &[u8], four: bool, about: &TcpHeader, payload: usize) -> Option<()> {
    let has = |flag| about.flags.contains(flag);
    let taken = u32::try_from(payload).ok()? + u32::from(has(TcpFlags::SYN)) + u32::from(has(TcpFlags::FIN));
    let (sequence, acknowledgment, flags) = if has(TcpFlags::ACK) {
        (about.acknowledgment_number.get(), 0, TcpFlags::RST)
    } else {
        (0, about.sequence_number.get().wrapping_add(taken), TcpFlags::RST | TcpFlags::ACK)
    };
    network(writer, ip, four, IpProtocol::TCP, TcpHeader::LENGTH)?;
    for port in [about.destination_port, about.source_port] {
        writer.put(&port.get().to_be_bytes())?;
    }
    writer.put(&sequence.to_be_bytes())?;
    writer.put(&acknowledgment.to_be_bytes())?;
    writer.put(&[0x50, flags.0, 0, 0, 0, 0, 0, 0])?;
    fill(writer)
}

fn unreachable(writer: &mut Writer, ip: &[u8], four: bool) -> Option<()> {
    // Forbidden by somebody on the way: code 13 of RFC 1812 section 5.2.7.1, code 1 of RFC 4443 section 3.1.
    if four {
        let quoted = ip.get(..ip.len().min(LONGEST_V4 - Ipv4Header::LENGTH - IcmpHeader::LENGTH))?;
        network(writer, ip, four, IpProtocol::ICMP, IcmpHeader::LENGTH + quoted.len())?;
        writer.put(&[IcmpType::DESTINATION_UNREACHABLE.0, 13, 0, 0, 0, 0, 0, 0])?;
        writer.put(quoted)?;
    } else {
        let quoted = ip.get(..ip.len().min(LONGEST_V6 - Ipv6Header::LENGTH - Icmpv6Header::LENGTH))?;
        network(writer, ip, four, IpProtocol::ICMPV6, Icmpv6Header::LENGTH + quoted.len())?;
        writer.put(&[Icmpv6Type::DESTINATION_UNREACHABLE.0, 1, 0, 0, 0, 0, 0, 0])?;
        writer.put(quoted)?;
    }
    fill(writer)
}

/// An IP header from the packet's destination to its source.
fn network(writer: &mut Writer, ip: &[u8], four: bool, protocol: IpProtocol, payload: usize) -> Option<()> {
    if four {
        let length = u16::try_from(Ipv4Header::LENGTH + payload).ok()?.to_be_bytes();
        writer.put(&[0x45, 0, length[0], length[1], 0, 0, 0x40, 0, HOPS, protocol.0, 0, 0])?;
        writer.put(ip.get(16..20)?)?;
        writer.put(ip.get(12..16)?)
    } else {
        let length = u16::try_from(payload).ok()?.to_be_bytes();
        writer.put(&[0x60, 0, 0, 0, length[0], length[1], protocol.0, HOPS])?;
        writer.put(ip.get(24..40)?)?;
        writer.put(ip.get(8..24)?)
    }
}

/// Computes the checksums of the frame.
fn fill(writer: &mut Writer) -> Option<()> {
    let frame = writer.octets.get_mut(..writer.length)?;
    Headers::parse(frame).ok()?.fill_checksums();
    Some(())
}
