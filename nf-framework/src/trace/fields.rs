//! A packet in a line, and what is different between two of its looks.

use super::event::Look;
use crate::headers::{ArpOperation, Headers, IpProtocol, MacAddress, Network, TcpFlags, Transport};
use crate::next_hop::NextHops;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is told of a packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Fields {
    macs: Option<(MacAddress, MacAddress)>,
    vlans: Vec<u16>,
    /// Source and destination.
    addresses: Option<(IpAddr, IpAddr)>,
    protocol: Option<IpProtocol>,
    ports: Option<(u16, u16)>,
    /// Of ICMP: type, code, identifier.
    icmp: Option<(u8, u8, u16)>,
    /// Hops left.
    ttl: Option<u8>,
    dscp: Option<u8>,
    identification: Option<u16>,
    /// Flags, sequence and acknowledgment number.
    tcp: Option<(TcpFlags, u32, u32)>,
    fragment: Option<u16>,
    /// What it is if it is no IP packet.
    other: Option<String>,
    length: usize,
}

impl Fields {
    pub(super) fn of(look: &Look) -> Self {
        let mut frame = look.frame();
        let length = frame.len();
        let beside: Vec<u16> = look.vlan.into_iter().map(|tag| tag & 0xfff).collect();
        let Ok(headers) = Headers::parse(&mut frame) else {
            return Self { other: Some("no sound packet".to_owned()), vlans: beside, length, ..Self::default() };
        };
        let vlans = beside.into_iter().chain(headers.vlan.iter().map(|tag| tag.id())).collect();
        let macs = Some((headers.ethernet.source, headers.ethernet.destination));
        let fragment = headers.network.fragment().map(|fragment| fragment.offset);
        let (protocol, ports) = (headers.transport.protocol(), headers.transport.ports());
        let mut fields = Self { macs, vlans, protocol, ports, fragment, length, ..Self::default() };
        match &headers.network {
            Network::Ipv4 { header, .. } => {
                let address = |octets: [u8; 4]| IpAddr::from(Ipv4Addr::from(octets));
                fields.addresses = Some((address(header.source), address(header.destination)));
                fields.ttl = Some(header.time_to_live);
                fields.dscp = Some(header.differentiated_services_code_point());
                fields.identification = Some(header.identification.get());
            }
            Network::Ipv6 { header, .. } => {
                let address = |octets: [u8; 16]| IpAddr::from(Ipv6Addr::from(octets));
                fields.addresses = Some((address(header.source), address(header.destination)));
                fields.ttl = Some(header.hop_limit);
                fields.dscp = Some(header.traffic_class() >> 2);
            }
            Network::Arp(arp) => fields.other = Some(arp_text(arp)),
            Network::Other(ether_type) => fields.other = Some(format!("EtherType {ether_type}")),
        }
        match &headers.transport {
            Transport::Tcp { header, .. } => {
                let numbers = (header.sequence_number.get(), header.acknowledgment_number.get());
                fields.tcp = Some((header.flags, numbers.0, numbers.1));
            }
            Transport::Icmp(icmp) => fields.icmp = Some((icmp.message_type.0, icmp.code, icmp.identifier())),
            Transport::Icmpv6(icmp) => fields.icmp = Some((icmp.message_type.0, icmp.code, icmp.identifier())),
            _ => {}
        }
        fields
    }

    fn end(&self, source: bool) -> Option<String> {
        let choose = |(first, second): (IpAddr, IpAddr)| if source { first } else { second };
        let address = choose(self.addresses?);
        let port = self.ports.map(|(first, second)| if source { first } else { second });
        Some(port.map_or(address.to_string(), |port| SocketAddr::new(address, port).to_string()))
    }

    /// What is different in `after`, a sentence part each.
    pub(super) fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.protocol != after.protocol || self.other != after.other {
            changes.push(format!("becomes {after}"));
        } else {
            note(&mut changes, "source", &self.end(true), &after.end(true));
            note(&mut changes, "destination", &self.end(false), &after.end(false));
            note(&mut changes, "ICMP type", &self.icmp.map(|icmp| icmp.0), &after.icmp.map(|icmp| icmp.0));
            note(&mut changes, "identifier", &self.icmp.map(|icmp| icmp.2), &after.icmp.map(|icmp| icmp.2));
            let flags = |fields: &Self| fields.tcp.map(|tcp| flag_letters(tcp.0));
            note(&mut changes, "flags", &flags(self), &flags(after));
            note(&mut changes, "sequence", &self.tcp.map(|tcp| tcp.1), &after.tcp.map(|tcp| tcp.1));
            note(&mut changes, "acknowledgment", &self.tcp.map(|tcp| tcp.2), &after.tcp.map(|tcp| tcp.2));
        }
        note(&mut changes, "TTL", &self.ttl, &after.ttl);
        note(&mut changes, "DSCP", &self.dscp, &after.dscp);
        note(&mut changes, "identification", &self.identification, &after.identification);
        note(&mut changes, "length", &Some(self.length), &Some(after.length));
        let vlans = |fields: &Self| Some(fields.vlans.iter().map(u16::to_string).collect::<Vec<_>>().join("."));
        let vlans = [self, after].map(vlans).map(|text| text.filter(|text| !text.is_empty()));
        note(&mut changes, "VLAN", &vlans[0], &vlans[1]);
        let mac = |fields: &Self, of: fn((MacAddress, MacAddress)) -> MacAddress| fields.macs.map(of);
        note(&mut changes, "source MAC", &mac(self, |macs| macs.0), &mac(after, |macs| macs.0));
        note(&mut changes, "destination MAC", &mac(self, |macs| macs.1), &mac(after, |macs| macs.1));
        changes
    }
}

/// All that a part of the chain changed.
pub(super) fn changes(before: &Look, after: &Look, next_hops: &NextHops) -> Vec<String> {
    let mut changes = Fields::of(before).changes(&Fields::of(after));
    if changes.is_empty() && (before.bytes != after.bytes || before.length != after.length) {
        changes.push("other bytes".to_owned());
    }
    let next_hop = |look: &Look| look.next_hop.and_then(|next_hop| next_hops.address(next_hop));
    note(&mut changes, "next hop", &next_hop(before), &next_hop(after));
    changes
}

fn note<T: PartialEq + fmt::Display>(changes: &mut Vec<String>, what: &str, before: &Option<T>, after: &Option<T>) {
    if before != after {
        let text = |value: &Option<T>| value.as_ref().map_or("none".to_owned(), T::to_string);
        changes.push(format!("{what} {} -> {}", text(before), text(after)));
    }
}

fn arp_text(arp: &crate::headers::ArpPacket) -> String {
    let (sender, target) = (Ipv4Addr::from(arp.sender_protocol_address), Ipv4Addr::from(arp.target_protocol_address));
    match arp.operation {
        ArpOperation::REQUEST => format!("arp who-has {target} tell {sender}"),
        ArpOperation::REPLY => format!("arp {sender} is-at {}", arp.sender_hardware_address),
        other => format!("arp {other:?} from {sender}"),
    }
}

/// As tcpdump writes them.
fn flag_letters(flags: TcpFlags) -> String {
    const LETTERS: [(TcpFlags, char); 8] = [
        (TcpFlags::FIN, 'F'),
        (TcpFlags::SYN, 'S'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, '.'),
        (TcpFlags::URG, 'U'),
        (TcpFlags::ECE, 'E'),
        (TcpFlags::CWR, 'W'),
    ];
    let text: String = LETTERS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| *letter).collect();
    if text.is_empty() { "none".to_owned() } else { text }
}

fn protocol_text(protocol: IpProtocol) -> String {
    match protocol {
        IpProtocol::TCP => "tcp".to_owned(),
        IpProtocol::UDP => "udp".to_owned(),
        IpProtocol::ICMP => "icmp".to_owned(),
        IpProtocol::ICMPV6 => "icmp6".to_owned(),
        other => format!("protocol {other}"),
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for vlan in &self.vlans {
            write!(f, "vlan {vlan} ")?;
        }
        match (&self.other, self.end(true).zip(self.end(false)), self.protocol) {
            (None, Some((source, destination)), Some(protocol)) => {
                write!(f, "{} {source} > {destination}", protocol_text(protocol))?;
            }
            (Some(other), ..) => f.write_str(other)?,
            _ => f.write_str("a packet")?,
        }
        if let Some((flags, ..)) = self.tcp {
            write!(f, " [{}]", flag_letters(flags))?;
        }
        if let Some((kind, code, identifier)) = self.icmp {
            match (self.protocol, kind) {
                (Some(IpProtocol::ICMP), 8) | (_, 128) => write!(f, " echo request, id {identifier}")?,
                (Some(IpProtocol::ICMP), 0) | (_, 129) => write!(f, " echo reply, id {identifier}")?,
                _ => write!(f, " type {kind}, code {code}")?,
            }
        }
        if let Some(offset) = self.fragment {
            write!(f, ", fragment at {offset}")?;
        }
        write!(f, ", {} bytes", self.length)
    }
}
