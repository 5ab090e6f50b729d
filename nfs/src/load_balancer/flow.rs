//! What the load balancer sees of a packet.

use nf_framework::headers::{Headers, IcmpType, Icmpv6Type, IpProtocol, Network, QuotedTransport, TcpFlags, Transport};
use nf_framework::{Annotation, Mbuf, Ports};
use std::net::IpAddr;

/// Octets before the IP header of a frame without tags.
pub(super) const ETHERNET: usize = 14;

/// Addresses, ports and protocol of IPv4 as they stand in a packet.
pub(super) type KeyV4 = [u8; 16];
/// The same of IPv6.
pub(super) type KeyV6 = [u8; 40];

/// A [`Flow`] as a key of tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    V4(KeyV4),
    V6(KeyV6),
}

/// One direction of an exchange between two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: IpProtocol,
    /// 0 where the protocol has none.
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

impl Flow {
    pub(super) fn key(&self) -> Key {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut key = [0; 16];
                key[..4].copy_from_slice(&source.octets());
                key[4..8].copy_from_slice(&destination.octets());
                key[8..10].copy_from_slice(&self.source_port.to_be_bytes());
                key[10..12].copy_from_slice(&self.destination_port.to_be_bytes());
                key[12] = self.protocol.0;
                Key::V4(key)
            }
            (source, destination) => {
                let octets = |address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                let mut key = [0; 40];
                key[..16].copy_from_slice(&octets(source));
                key[16..32].copy_from_slice(&octets(destination));
                key[32..34].copy_from_slice(&self.source_port.to_be_bytes());
                key[34..36].copy_from_slice(&self.destination_port.to_be_bytes());
                key[36] = self.protocol.0;
                Key::V6(key)
            }
        }
    }

    pub(super) fn of_v4(key: &KeyV4) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, protocol, ..] = *key;
        Self {
            source: [a, b, c, d].into(),
            destination: [e, f, g, h].into(),
            protocol: IpProtocol(protocol),
            source_port: u16::from_be_bytes([i, j]),
            destination_port: u16::from_be_bytes([k, l]),
        }
    }

    pub(super) fn of_v6(key: &KeyV6) -> Self {
        let address = |at: usize| -> IpAddr {
            let mut octets = [0; 16];
            octets.copy_from_slice(&key[at..at + 16]);
            octets.into()
        };
        Self {
            source: address(0),
            destination: address(16),
            protocol: IpProtocol(key[36]),
            source_port: u16::from_be_bytes([key[32], key[33]]),
            destination_port: u16::from_be_bytes([key[34], key[35]]),
        }
    }

    /// The other direction.
    #[must_use]
    pub(super) fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

impl Key {
    pub(super) fn flow(&self) -> Flow {
        match self {
            Self::V4(key) => Flow::of_v4(key),
            Self::V6(key) => Flow::of_v6(key),
        }
    }
}

/// What else there is to know of a usual packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    /// Octets from the IP header on.
    pub(super) length: u16,
    /// It has a flag that changes what is known of its connection.
    pub(super) signals: bool,
}

/// Flags that do.
const SIGNALS: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0);

/// The key of what nearly every packet is: TCP or UDP in IPv4, whole, without tags and options, and sound as far as
/// what is written to it goes. [`look`] knows what else there is.
#[inline(always)]
pub(super) fn usual_v4(frame: &[u8]) -> Option<(KeyV4, Head)> {
    const IP: usize = 20;
    let head: &[u8; ETHERNET + IP + 8] = frame.first_chunk()?;
    let length = u16::from_be_bytes([head[16], head[17]]);
    let protocol = head[23];
    let plain = head[12..15] == [0x08, 0x00, 0x45] && head[20] & 0x3f == 0 && head[21] == 0;
    if !plain || usize::from(length) > frame.len() - ETHERNET {
        return None;
    }
    let signals = sound(protocol, &frame[ETHERNET + IP..], i32::from(length) - 20)?;
    let mut key = [0; 16];
    key[..12].copy_from_slice(&head[26..38]);
    key[12] = protocol;
    Some((key, Head { length, signals }))
}

/// The same of IPv6, without extension headers.
#[inline(always)]
pub(super) fn usual_v6(frame: &[u8]) -> Option<(KeyV6, Head)> {
    const IP: u16 = 40;
    let head: &[u8; ETHERNET + IP as usize + 8] = frame.first_chunk()?;
    let payload = u16::from_be_bytes([head[18], head[19]]);
    let protocol = head[20];
    let plain = head[12..14] == [0x86, 0xdd] && head[14] >> 4 == 6;
    if !plain || usize::from(payload) > frame.len() - ETHERNET - usize::from(IP) {
        return None;
    }
    let signals = sound(protocol, &frame[ETHERNET + usize::from(IP)..], payload.into())?;
    let mut key = [0; 40];
    key[..36].copy_from_slice(&head[22..58]);
    key[36] = protocol;
    // No frame is longer.
    Some((key, Head { length: payload.saturating_add(IP), signals }))
}

/// Whether what follows the IP header, so many octets, signals something; nothing unless it is TCP or UDP with lengths
/// that agree. Below 0 the IP packet is shorter than its header.
#[inline(always)]
fn sound(protocol: u8, transport: &[u8], length: i32) -> Option<bool> {
    match IpProtocol(protocol) {
        IpProtocol::UDP => {
            let head = transport.first_chunk::<8>()?;
            let udp = i32::from(u16::from_be_bytes([head[4], head[5]]));
            (udp >= 8 && udp <= length).then_some(false)
        }
        IpProtocol::TCP => {
            let &[offset, flags] = transport.get(12..14)?.first_chunk()?;
            let offset = i32::from(offset >> 4) * 4;
            (offset >= 20 && offset <= length).then_some(TcpFlags(flags).intersects(SIGNALS))
        }
        _ => None,
    }
}

/// What a packet is to the load balancer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Of an ICMP error, that of the packet that it is about, turned round: so it is the flow that the error goes with.
    pub(super) flow: Flow,
    /// Of the packet itself.
    pub(super) destination: IpAddr,
    pub(super) kind: Kind,
    pub(super) is_fragment: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A packet of a flow, of TCP with its flags (none in a later fragment).
    Flow(TcpFlags),
    EchoRequest,
    /// An ICMP error about a packet that went the other way.
    Error,
    /// An ICMP error that does not say what it is about, or is a part of one.
    ObscureError,
    /// Other ICMP.
    Icmp,
    /// Neighbor Discovery.
    Discovery,
}

/// What has no addresses that could be balanced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotSeen {
    Other,
    Malformed,
}

/// Looks at a packet.
pub(super) fn look(packet: &mut Mbuf) -> Result<Seen, NotSeen> {
    let beside = Annotation::of(packet).ports;
    look_at(packet.data_mut(), beside)
}

/// Looks at a frame; of a fragment, with what stands in its first one.
pub(super) fn look_at(frame: &mut [u8], beside: Option<Ports>) -> Result<Seen, NotSeen> {
    let Ok(mut headers) = Headers::parse(frame) else { return Err(NotSeen::Malformed) };
    let (source, destination) = addresses(&headers.network).ok_or(NotSeen::Other)?;
    let is_fragment = headers.network.fragment().is_some();
    let quotes = |icmp: &Transport<'_>| match icmp {
        Transport::Icmp(icmp) => icmp.message_type.quotes_packet() && icmp.message_type != IcmpType::REDIRECT,
        Transport::Icmpv6(icmp) => icmp.message_type.quotes_packet(),
        _ => false,
    };
    let protocol = headers.transport.protocol().ok_or(NotSeen::Other)?;
    let mut ports = headers.transport.ports().unwrap_or((0, 0));
    let kind = match (&headers.transport, beside) {
        (Transport::Icmp(_) | Transport::Icmpv6(_), _) if is_fragment => Kind::ObscureError,
        (Transport::Fragment(IpProtocol::ICMP | IpProtocol::ICMPV6), _) => Kind::ObscureError,
        (Transport::Fragment(_), Some(Ports::Both(source, destination))) => {
            ports = (source, destination);
            Kind::Flow(TcpFlags(0))
        }
        (transport, _) if quotes(transport) => {
            let quoted = headers.quoted().and_then(|quoted| {
                let (source, destination) = addresses(&quoted.network)?;
                let (source_port, destination_port) = quoted.transport.ports().unwrap_or((0, 0));
                let protocol = match quoted.transport {
                    QuotedTransport::Udp(_) => IpProtocol::UDP,
                    QuotedTransport::Tcp { .. } => IpProtocol::TCP,
                    // Cut short, or without what tells whose it was.
                    QuotedTransport::Other(IpProtocol::TCP | IpProtocol::UDP)
                    | QuotedTransport::Fragment(_)
                    | QuotedTransport::Icmp(_)
                    | QuotedTransport::Icmpv6(_) => return None,
                    QuotedTransport::Other(protocol) => protocol,
                };
                Some(Flow { source, destination, protocol, source_port, destination_port })
            });
            return Ok(match quoted {
                Some(quoted) => Seen { flow: quoted.reversed(), destination, kind: Kind::Error, is_fragment },
                None => {
                    let flow = Flow { source, destination, protocol, source_port: 0, destination_port: 0 };
                    Seen { flow, destination, kind: Kind::ObscureError, is_fragment }
                }
            });
        }
        (Transport::Icmp(icmp), _) if icmp.message_type == IcmpType::ECHO_REQUEST => Kind::EchoRequest,
        (Transport::Icmpv6(icmp), _) if icmp.message_type == Icmpv6Type::ECHO_REQUEST => Kind::EchoRequest,
        (Transport::Icmpv6(icmp), _) if matches!(icmp.message_type.0, 133..=137) => Kind::Discovery,
        (Transport::Icmp(_) | Transport::Icmpv6(_), _) => Kind::Icmp,
        (Transport::Tcp { header, .. }, _) => Kind::Flow(header.flags),
        _ => Kind::Flow(TcpFlags(0)),
    };
    let flow = Flow { source, destination, protocol, source_port: ports.0, destination_port: ports.1 };
    Ok(Seen { flow, destination, kind, is_fragment })
}

/// Where an IP packet is going in a frame that may be malformed behind its addresses.
pub(super) fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?.into()),
        [0x86, 0xdd] => Some(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?.into()),
        _ => None,
    }
}

fn addresses(network: &Network<'_>) -> Option<(IpAddr, IpAddr)> {
    match network {
        Network::Ipv4 { header, .. } => Some((header.source.into(), header.destination.into())),
        Network::Ipv6 { header, .. } => Some((header.source.into(), header.destination.into())),
        Network::Arp(_) | Network::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_usual_if_its_lengths_agree() {
        for (protocol, least) in [(IpProtocol::UDP, 28), (IpProtocol::TCP, 40)] {
            let mut frame = [0; 60];
            frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
            frame[23] = protocol.0;
            // A length of UDP's, and the offset of TCP's data.
            (frame[39], frame[46]) = (8, 0x50);
            for length in 0..=60_u16 {
                frame[16..18].copy_from_slice(&length.to_be_bytes());
                let is_usual = (least..=46).contains(&length);
                assert_eq!(usual_v4(&frame).is_some(), is_usual, "{protocol:?} of {length}");
            }
        }
    }
}
