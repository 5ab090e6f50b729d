//! Addresses and ports written into packets, with all checksums that cover them.

use super::flow::Protocol;
use nf_framework::headers::{
    ChecksumUpdate, Headers, IpProtocol, Ipv4Header, Network, QuotedPacket, QuotedTransport, TcpFlags, Transport, U16,
};
use nf_framework::{Annotation, Mbuf, Ports};
use std::net::Ipv4Addr;

/// Which end of a packet is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Source,
    Destination,
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    pub(super) end: End,
    pub(super) address: Ipv4Addr,
    /// Or identifier; `None` leaves it.
    pub(super) port: Option<u16>,
    pub(super) identification: Option<u16>,
    /// The longest segment that a SYN may offer.
    pub(super) mss: Option<u16>,
}

/// Writes an end of what nearly every packet is, see [`usual`](super::flow::usual).
#[inline(always)]
pub(super) fn write_usual(
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

/// Writes an end of any packet that the NAT has looked at.
pub(super) fn write(packet: &mut Mbuf, writing: &Writing) {
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
    let Network::Ipv4 { header, .. } = &mut headers.network else { return };
    let of_addresses = write_address(header, writing.end, writing.address);
    let mut of_header = of_addresses;
    if let Some(new) = writing.identification {
        of_header = of_header.replace_u16(header.identification.get(), new);
        header.identification.set(new);
    }
    of_header.apply(&mut header.header_checksum);
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
        // A later fragment, or a protocol whose own checksum covers no addresses.
        _ => {}
    }
}

/// What that does to checksums over the addresses.
fn write_address(header: &mut Ipv4Header, end: End, address: Ipv4Addr) -> ChecksumUpdate {
    let field = if end == End::Source { &mut header.source } else { &mut header.destination };
    let old = *field;
    *field = address.octets();
    ChecksumUpdate::new().replace_bytes(old, address.octets())
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

/// Writes an end of the packet that an ICMP error quotes, with the checksums there. The error's own
/// is the caller's matter.
pub(super) fn write_quoted(quoted: &mut QuotedPacket<'_>, end: End, address: Ipv4Addr, port: Option<u16>) {
    let Network::Ipv4 { header, .. } = &mut quoted.network else { return };
    let of_addresses = write_address(header, end, address);
    of_addresses.apply(&mut header.header_checksum);
    let Some(new) = port else { return write_quoted_addresses(quoted, of_addresses) };
    let replace = |update: ChecksumUpdate, port: &mut U16| {
        let update = update.replace_u16(port.get(), new);
        port.set(new);
        update
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
        QuotedTransport::Icmp(icmp) => {
            let update = ChecksumUpdate::new().replace_u16(icmp.identifier(), new);
            icmp.set_identifier(new);
            update.apply(&mut icmp.checksum);
        }
        _ => {}
    }
}

fn write_quoted_addresses(quoted: &mut QuotedPacket<'_>, update: ChecksumUpdate) {
    match &mut quoted.transport {
        QuotedTransport::Udp(udp) => update.apply_udp(&mut udp.checksum),
        QuotedTransport::Tcp { checksum: Some(checksum), .. } => update.apply(checksum),
        _ => {}
    }
}

/// The addresses and ports of a quoted packet; `None` for the ports where it has none.
pub(super) fn quoted_ends(quoted: &QuotedPacket<'_>) -> Option<QuotedEnds> {
    let Network::Ipv4 { header, .. } = &quoted.network else { return None };
    let (protocol, ports) = match &quoted.transport {
        QuotedTransport::Udp(_) => (Some(Protocol::Udp), quoted.transport.ports()),
        QuotedTransport::Tcp { .. } => (Some(Protocol::Tcp), quoted.transport.ports()),
        QuotedTransport::Icmp(_) => {
            let identifier = quoted.transport.identifier();
            (identifier.map(|_| Protocol::Icmp), identifier.map(|identifier| (identifier, identifier)))
        }
        _ => (None, None),
    };
    Some(QuotedEnds {
        source: header.source.into(),
        destination: header.destination.into(),
        flow: protocol.zip(ports).map(|(protocol, (source, destination))| (protocol, source, destination)),
    })
}

/// Who sent the packet that an error is about, and where it was to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotedEnds {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// Protocol, source port, destination port; a query's identifier is either.
    pub(super) flow: Option<(Protocol, u16, u16)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::testing::Frame;

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
