//! What the NAT sees of a packet.

use crate::identification::Identification;
use nf_framework::headers::{Headers, IcmpType, IpProtocol, Network, TcpFlags, Transport};
use nf_framework::{Annotation, Mbuf, Ports};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// What has ports, or identifiers in their place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP queries.
    Icmp,
}

impl Protocol {
    pub(super) const COUNT: usize = 3;

    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => IpProtocol::TCP.0,
            Self::Udp => IpProtocol::UDP.0,
            Self::Icmp => IpProtocol::ICMP.0,
        }
    }

    #[inline]
    pub(super) fn of_number(number: u8) -> Option<Self> {
        match IpProtocol(number) {
            IpProtocol::TCP => Some(Self::Tcp),
            IpProtocol::UDP => Some(Self::Udp),
            IpProtocol::ICMP => Some(Self::Icmp),
            _ => None,
        }
    }
}

/// Addresses and ports as they stand in a packet: source address, destination address, source port,
/// destination port, and the number of the protocol. An ICMP identifier stands for the port of the
/// inside host, and the other one is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowTuple {
    pub(super) protocol: Protocol,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

/// A [`FlowTuple`] as a key of tables.
pub(super) type FlowKey = [u8; 16];

impl FlowTuple {
    pub(super) fn key(&self) -> FlowKey {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&self.source.octets());
        key[4..8].copy_from_slice(&self.destination.octets());
        key[8..10].copy_from_slice(&self.source_port.to_be_bytes());
        key[10..12].copy_from_slice(&self.destination_port.to_be_bytes());
        key[12] = self.protocol.number();
        key
    }

    /// Of a key; nothing if it is none.
    pub(super) fn of_key(key: &FlowKey) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, protocol, ..] = *key;
        Some(Self {
            protocol: Protocol::of_number(protocol)?,
            source: Ipv4Addr::new(a, b, c, d),
            destination: Ipv4Addr::new(e, f, g, h),
            source_port: u16::from_be_bytes([i, j]),
            destination_port: u16::from_be_bytes([k, l]),
        })
    }
}

/// Where the addresses begin in an untagged frame of IPv4.
const ADDRESSES: usize = 26;
/// Behind the ports.
const BEHIND_PORTS: usize = 38;

/// The key of what nearly every packet is: TCP or UDP in IPv4, whole, without tags and options, and
/// sound as far as what is written to it goes. [`look`] knows what else there is.
#[inline(always)]
pub(super) fn usual(frame: &[u8]) -> Option<FlowKey> {
    const ETHERNET: usize = 14;
    const IP: usize = 20;
    let head: &[u8; ETHERNET + IP + 8] = frame.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
    let protocol = head[23];
    let plain = head[12..15] == [0x08, 0x00, 0x45] && head[20] & 0x3f == 0 && head[21] == 0;
    if !plain || length > frame.len() - ETHERNET {
        return None;
    }
    let sound = match IpProtocol(protocol) {
        IpProtocol::UDP => {
            let udp = usize::from(u16::from_be_bytes([head[38], head[39]]));
            udp >= 8 && udp + IP <= length
        }
        IpProtocol::TCP => {
            let offset = frame.get(46).map_or(0, |octet| usize::from(octet >> 4) * 4);
            offset >= 20 && offset + IP <= length
        }
        _ => false,
    };
    if !sound {
        return None;
    }
    let mut key = [0; 16];
    key[..12].copy_from_slice(&head[ADDRESSES..BEHIND_PORTS]);
    key[12] = protocol;
    Some(key)
}

/// The flags of a packet that is [`usual`] and TCP.
#[inline(always)]
pub(super) fn usual_flags(frame: &[u8]) -> TcpFlags {
    TcpFlags(frame.get(47).copied().unwrap_or(0))
}

/// What a packet is to the NAT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) kind: Kind,
    /// It has an identification that means something: RFC 6864 section 4.
    pub(super) identification: Option<Identification>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// TCP with its flags (none in a later fragment), UDP.
    Flow(Protocol, u16, u16, TcpFlags),
    /// ICMP with an identifier; whether it asks or answers, which a later fragment does not tell.
    Query { identifier: u16, asks: Option<bool> },
    /// An ICMP error about another packet; whether it is a fragment.
    Error { is_fragment: bool },
    /// An ICMP redirect, which means nothing behind a router.
    Redirect,
    /// What has none of these.
    Other,
}

/// What is not for the NAT to translate.
pub(super) enum NotSeen {
    Ipv6,
    Arp,
    NotIp,
    Malformed,
}

/// Looks at a packet.
pub(super) fn look(packet: &mut Mbuf) -> Result<Seen, NotSeen> {
    let beside = Annotation::of(packet).ports;
    look_at(packet.data_mut(), beside)
}

/// Looks at a frame; of a fragment, with what stands in its first one.
pub(super) fn look_at(frame: &mut [u8], beside: Option<Ports>) -> Result<Seen, NotSeen> {
    let Ok(headers) = Headers::parse(frame) else { return Err(NotSeen::Malformed) };
    let header = match &headers.network {
        Network::Ipv4 { header, .. } => header,
        Network::Ipv6 { .. } => return Err(NotSeen::Ipv6),
        Network::Arp(_) => return Err(NotSeen::Arp),
        _ => return Err(NotSeen::NotIp),
    };
    let is_fragment = header.is_fragment();
    let kind = match (&headers.transport, beside) {
        (Transport::Tcp { header: tcp, .. }, _) => {
            Kind::Flow(Protocol::Tcp, tcp.source_port.get(), tcp.destination_port.get(), tcp.flags)
        }
        (Transport::Udp(udp), _) => {
            Kind::Flow(Protocol::Udp, udp.source_port.get(), udp.destination_port.get(), TcpFlags(0))
        }
        (Transport::Icmp(icmp), _) if icmp.message_type.has_identifier() => Kind::Query {
            identifier: icmp.identifier(),
            asks: Some(matches!(icmp.message_type, IcmpType::ECHO_REQUEST | IcmpType::TIMESTAMP)),
        },
        (Transport::Icmp(icmp), _) if icmp.message_type == IcmpType::REDIRECT => Kind::Redirect,
        (Transport::Icmp(icmp), _) if icmp.message_type.quotes_packet() => Kind::Error { is_fragment },
        (Transport::Fragment(protocol), Some(Ports::Both(source, destination))) => {
            match Protocol::of_number(protocol.0) {
                Some(protocol @ (Protocol::Tcp | Protocol::Udp)) => {
                    Kind::Flow(protocol, source, destination, TcpFlags(0))
                }
                _ => Kind::Other,
            }
        }
        (Transport::Fragment(IpProtocol::ICMP), Some(Ports::Identifier(identifier))) => {
            Kind::Query { identifier, asks: None }
        }
        (Transport::Fragment(IpProtocol::ICMP), _) => Kind::Error { is_fragment },
        _ => Kind::Other,
    };
    let identification = (is_fragment || !header.dont_fragment()).then(|| Identification {
        value: header.identification.get(),
        protocol: header.protocol.0,
        is_fragment,
    });
    Ok(Seen { source: header.source.into(), destination: header.destination.into(), kind, identification })
}
