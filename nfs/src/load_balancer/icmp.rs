//! ICMP for service addresses that is of no flow: echo.

use nf_framework::Mbuf;
use nf_framework::headers::{Headers, IcmpType, Icmpv6Type, Network, PseudoHeader, Transport, checksum};

/// Hops of what comes out of this machine: RFC 1700.
pub(super) const HOPS: u8 = 64;

/// Makes an echo request, whole and without a routing header, the reply to it. False, and no change, if its checksum is
/// wrong.
pub(super) fn reply_to_echo(packet: &mut Mbuf) -> bool {
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
    if headers.verify_checksums().is_err() {
        return false;
    }
    match (&mut headers.network, &mut headers.transport) {
        (Network::Ipv4 { header, options }, Transport::Icmp(icmp)) => {
            icmp.message_type = IcmpType::ECHO_REPLY;
            icmp.checksum.set(checksum::icmp(icmp, headers.payload));
            std::mem::swap(&mut header.source, &mut header.destination);
            header.time_to_live = HOPS;
            header.header_checksum.set(checksum::ipv4_header(header, options));
        }
        (Network::Ipv6 { header, .. }, Transport::Icmpv6(icmp)) => {
            icmp.message_type = Icmpv6Type::ECHO_REPLY;
            std::mem::swap(&mut header.source, &mut header.destination);
            header.hop_limit = HOPS;
            let pseudo = PseudoHeader::Ipv6 { source: header.source, destination: header.destination };
            icmp.checksum.set(checksum::icmpv6(&pseudo, icmp, headers.payload));
        }
        _ => return false,
    }
    true
}
