//! Which packets for a probe address are answers to a check, and to which: asked of every one of them, on whichever
//! worker it arrives.

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The local ports of TCP and UDP, and the identifiers of ICMP, that checks are told by: each belongs to one check
/// at a time.
pub(crate) const PORTS: RangeInclusive<u16> = 61_000..=61_999;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// What a packet says before any stack has seen it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    /// Of [`PORTS`].
    pub(crate) port: u16,
    pub(super) from: IpAddr,
    /// The address and port that nobody listens at, where a packet says so of UDP that was sent from here.
    pub(super) nobody_at: Option<(IpAddr, u16)>,
}

/// Looks at an IP packet, from its first byte; `None` if it is not for a check. Whole TCP, UDP and echo replies
/// without IPv6 extension headers are, and what says of UDP that nobody listens.
#[inline]
pub(crate) fn arrival(packet: &[u8]) -> Option<Arrival> {
    let Layers { protocol, source, payload, .. } = layers(packet)?;
    let port = match protocol {
        TCP | UDP => number(payload, 2)?,
        // Echo replies: RFC 792, and RFC 4443 section 4.2.
        ICMP if payload.first() == Some(&0) => number(payload, 4)?,
        ICMPV6 if payload.first() == Some(&129) => number(payload, 4)?,
        // Protocol or port unreachable: RFC 792, and RFC 4443 section 3.1. Nothing is made of other errors.
        ICMP if matches!(payload, [3, 2 | 3, ..]) => return nobody(source, payload),
        ICMPV6 if matches!(payload, [1, 4, ..]) => return nobody(source, payload),
        _ => return None,
    };
    PORTS.contains(&port).then_some(Arrival { port, from: source, nobody_at: None })
}

/// An ICMP error by which nobody listens where UDP was sent to: only whom it was sent to can say that.
fn nobody(from: IpAddr, message: &[u8]) -> Option<Arrival> {
    let Layers { protocol, destination, payload, .. } = layers(message.get(8..)?)?;
    let (port, remote) = (number(payload, 0)?, number(payload, 2)?);
    let is_his = protocol == UDP && destination == from && PORTS.contains(&port);
    is_his.then_some(Arrival { port, from, nobody_at: Some((from, remote)) })
}

/// An IP packet.
struct Layers<'a> {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    /// What follows the header.
    payload: &'a [u8],
}

#[inline]
fn layers(packet: &[u8]) -> Option<Layers<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let is_later_fragment = number(packet, 6)? & 0x1fff != 0;
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let (source, destination) = (address(12)?, address(16)?);
            let payload = packet.get(header..)?;
            let layers = Layers { protocol: packet[9], source, destination, payload };
            (header >= 20 && !is_later_fragment).then_some(layers)
        }
        6 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            let (source, destination) = (address(8)?, address(24)?);
            Some(Layers { protocol: packet[6], source, destination, payload: packet.get(40..)? })
        }
        _ => None,
    }
}

#[inline]
fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, without checksums, which nobody looks at here.
    fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        packet.extend_from_slice(&[0xfe; 16]);
        packet.extend_from_slice(&[0xfd; 16]);
        packet.extend_from_slice(payload);
        packet
    }

    fn ports(source: u16, destination: u16) -> Vec<u8> {
        [source.to_be_bytes(), destination.to_be_bytes(), [0, 8], [0, 0]].concat()
    }

    fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        [&[kind, code, 0, 0][..], rest].concat()
    }

    fn error(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
        icmp(kind, code, &[&[0; 4][..], quoted].concat())
    }

    #[test]
    fn a_packet_is_for_the_check_whose_port_or_identifier_it_has() {
        let echo = [61_007_u16.to_be_bytes(), [0, 1]].concat();
        let sent = ports(61_007, 53);
        let from = |address: &str| Some(Arrival { port: 61_007, from: address.parse().unwrap(), nobody_at: None });
        let (here, here6) = (from("192.0.2.1"), from("fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe"));
        let nobody = |from: Option<Arrival>| from.map(|from| Arrival { nobody_at: Some((from.from, 53)), ..from });
        // What was sent to whom others are from.
        let to = |mut packet: Vec<u8>| {
            let (first, length) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
            packet[first..first + 2 * length].rotate_left(length);
            packet
        };
        let (to4, to6) =
            (|protocol, sent: &[u8]| to(v4(protocol, 0, sent)), |protocol, sent: &[u8]| to(v6(protocol, sent)));
        let cases = [
            ("TCP", v4(TCP, 0, &ports(80, 61_007)), here),
            ("TCP over IPv6", v6(TCP, &ports(80, 61_007)), here6),
            ("UDP", v4(UDP, 0, &ports(80, 61_007)), here),
            ("the first port", v4(UDP, 0, &ports(80, 61_000)), here.map(|here| Arrival { port: 61_000, ..here })),
            ("a port below", v4(UDP, 0, &ports(61_007, 60_999)), None),
            ("a port above", v4(UDP, 0, &ports(61_007, 62_000)), None),
            ("a first fragment", v4(UDP, 0x2000, &ports(80, 61_007)), here),
            ("a later fragment", v4(UDP, 1, &ports(80, 61_007)), None),
            ("an echo reply", v4(ICMP, 0, &icmp(0, 0, &echo)), here),
            ("an echo reply over IPv6", v6(ICMPV6, &icmp(129, 0, &echo)), here6),
            ("an echo request", v4(ICMP, 0, &icmp(8, 0, &echo)), None),
            ("an echo request over IPv6", v6(ICMPV6, &icmp(128, 0, &echo)), None),
            ("nobody at a port", v4(ICMP, 0, &error(3, 3, &to4(UDP, &sent))), nobody(here)),
            ("nobody of a protocol", v4(ICMP, 0, &error(3, 2, &to4(UDP, &sent))), nobody(here)),
            ("nobody over IPv6", v6(ICMPV6, &error(1, 4, &to6(UDP, &sent))), nobody(here6)),
            ("nobody, says another one", v4(ICMP, 0, &error(3, 3, &v4(UDP, 0, &sent))), None),
            ("nobody, says another one over IPv6", v6(ICMPV6, &error(1, 4, &v6(UDP, &sent))), None),
            ("no way to a host", v4(ICMP, 0, &error(3, 1, &to4(UDP, &sent))), None),
            ("too big", v6(ICMPV6, &error(2, 0, &to6(TCP, &sent))), None),
            ("of TCP nobody says it by ICMP", v4(ICMP, 0, &error(3, 3, &to4(TCP, &sent))), None),
            ("about an echo", v4(ICMP, 0, &error(3, 3, &to4(ICMP, &icmp(8, 0, &echo)))), None),
            ("about another's packet", v4(ICMP, 0, &error(3, 3, &to4(UDP, &ports(53, 61_007)))), None),
            ("another protocol", v4(47, 0, &ports(80, 61_007)), None),
        ];
        for (what, packet, expected) in cases {
            assert_eq!(arrival(&packet), expected, "{what}");
            // However short it is cut, it is looked at.
            for length in 0..packet.len() {
                let _ = arrival(&packet[..length]);
            }
        }
        assert_eq!(arrival(&[0x41; 60]), None);
        assert_eq!(arrival(&[0x00; 60]), None);
    }
}
