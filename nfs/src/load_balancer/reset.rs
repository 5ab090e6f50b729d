//! What a client is told whose connection of TCP cannot go on: a reset, as one says who knows no such connection.

use super::icmp::HOPS;
use super::proxy_protocol::carry;
use nf_framework::headers::{Headers, Network, TcpFlags, TcpHeader, Transport};
use nf_framework::{Context, Mbuf};

/// Answers a segment by a reset, from where it was going: RFC 9293 section 3.10.7.1. False if there is none for it: for
/// a reset, for what acknowledges nothing, for a part of a segment, for one that is not sound, or without memory.
#[cold]
pub(super) fn reset(segment: &Mbuf, cx: &mut Context<'_>) -> bool {
    let Some(mut answer) = cx.allocate() else { return false };
    if !answer.set_contents(segment.data()) || !turn(&mut answer) {
        cx.consume(answer);
        return false;
    }
    let back = cx.direction().reversed();
    cx.emit(answer, back);
    true
}

fn turn(packet: &mut Mbuf) -> bool {
    const OFFSET: u8 = 5 << 4;
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
    if headers.verify_checksums().is_err() || headers.network.fragment().is_some() {
        return false;
    }
    let Transport::Tcp { header, .. } = &mut headers.transport else { return false };
    if !header.flags.contains(TcpFlags::ACK) || header.flags.contains(TcpFlags::RST) {
        return false;
    }
    **header = TcpHeader {
        source_port: header.destination_port,
        destination_port: header.source_port,
        sequence_number: header.acknowledgment_number,
        acknowledgment_number: 0.into(),
        data_offset_and_reserved: OFFSET,
        flags: TcpFlags::RST,
        window: 0.into(),
        urgent_pointer: 0.into(),
        ..**header
    };
    match &mut headers.network {
        Network::Ipv4 { header, .. } => {
            std::mem::swap(&mut header.source, &mut header.destination);
            header.time_to_live = HOPS;
        }
        Network::Ipv6 { header, .. } => {
            std::mem::swap(&mut header.source, &mut header.destination);
            header.hop_limit = HOPS;
        }
        _ => return false,
    }
    // Its options go with its data.
    carry(packet, &[])
}
