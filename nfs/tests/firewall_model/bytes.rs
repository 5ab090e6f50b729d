//! Frames as rows of octets: read, and summed up whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A frame's Ethernet header and tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The identifiers of the tags, outermost first.
    pub(crate) tags: Vec<u16>,
    pub(crate) ether_type: u16,
    /// Where the packet begins.
    pub(crate) start: usize,
}

/// Nothing if it is cut short. Of three tags the third is a type like any other.
pub(crate) fn link(frame: &[u8]) -> Option<Link> {
    let mut at = 12;
    let mut tags = Vec::new();
    loop {
        let ether_type = be16(frame.get(at..at + 2)?, 0);
        at += 2;
        if !matches!(ether_type, 0x8100 | 0x88a8) || tags.len() == 2 {
            return Some(Link { tags, ether_type, start: at });
        }
        tags.push(be16(frame.get(at..at + 2)?, 0) & 0xfff);
        at += 2;
    }
}

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) identification: u32,
    /// In octets.
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Type of service, traffic class.
    pub(crate) class: u8,
    pub(crate) hops: u8,
    /// None of a whole packet; an atomic fragment is one.
    pub(crate) piece: Option<Piece>,
    /// Octets in front of what is in fragments.
    pub(crate) before: usize,
    /// Of what follows all that is known here.
    pub(crate) protocol: u8,
    /// What follows; a part of it, if this is a fragment.
    pub(crate) message: Vec<u8>,
    /// The packet, as long as it says.
    pub(crate) whole: Vec<u8>,
    /// There is more to come of its way than its destination says.
    pub(crate) is_source_routed: bool,
    /// Of IPv4, the header's.
    pub(crate) checksum_is_right: bool,
}

/// What is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Its lengths and headers contradict each other.
    Malformed,
    /// A first fragment without all of the headers: RFC 7112.
    FirstFragment,
}

impl Ip {
    /// An IPv4 packet, or an IPv6 one.
    pub(crate) fn read(packet: &[u8], six: bool) -> Result<Self, Broken> {
        if six { Self::six(packet, false) } else { Self::four(packet, false).ok_or(Broken::Malformed) }
    }

    /// What an error quotes of it: its lengths are of the whole.
    pub(crate) fn quoted(packet: &[u8], six: bool) -> Option<Self> {
        if six { Self::six(packet, true).ok() } else { Self::four(packet, true) }
    }

    fn four(packet: &[u8], quoted: bool) -> Option<Self> {
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            return None;
        }
        let header = usize::from(packet[0] & 15) * 4;
        let length = if quoted { packet.len() } else { be16(packet, 2).into() };
        if header < 20 || length < header || length > packet.len() {
            return None;
        }
        let place = be16(packet, 6);
        let piece = Piece {
            identification: be16(packet, 4).into(),
            offset: usize::from(place & 0x1fff) * 8,
            more: place & 0x2000 != 0,
        };
        let address = |at| IpAddr::V4(Ipv4Addr::from(be32(packet, at)));
        Some(Self {
            source: address(12),
            destination: address(16),
            class: packet[1],
            hops: packet[8],
            piece: Some(piece).filter(|piece| piece.more || piece.offset != 0),
            before: header,
            protocol: packet[9],
            message: packet[header..length].to_vec(),
            whole: packet[..length].to_vec(),
            is_source_routed: has_source_route(&packet[20..header]),
            checksum_is_right: checksum(&packet[..header]) == 0,
        })
    }

    fn six(packet: &[u8], quoted: bool) -> Result<Self, Broken> {
        if packet.len() < 40 || packet[0] >> 4 != 6 {
            return Err(Broken::Malformed);
        }
        let length = if quoted { packet.len() } else { 40 + usize::from(be16(packet, 4)) };
        if length > packet.len() {
            return Err(Broken::Malformed);
        }
        let whole = packet[..length].to_vec();
        let (mut at, mut protocol, mut walked) = (40, packet[6], 0);
        let (mut piece, mut before, mut is_source_routed): (Option<Piece>, usize, bool) = (None, 0, false);
        // RFC 8200 section 4.1; what is behind a later fragment's header is data.
        while matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
            && piece.is_none_or(|piece| piece.offset == 0)
        {
            let is_first = piece.is_some_and(|piece| piece.more);
            let broken = if is_first { Broken::FirstFragment } else { Broken::Malformed };
            if walked == 8 || protocol == HOP_BY_HOP && walked > 0 {
                return Err(broken);
            }
            walked += 1;
            let start = whole.get(at..at + 4).ok_or(broken)?;
            let octets = match protocol {
                FRAGMENT => 8,
                AUTHENTICATION => (usize::from(start[1]) + 2) * 4,
                _ => (usize::from(start[1]) + 1) * 8,
            };
            let header = whole.get(at..at + octets).ok_or(broken)?;
            is_source_routed |= protocol == ROUTING && header[3] != 0;
            if protocol == FRAGMENT {
                if piece.is_some() {
                    return Err(broken);
                }
                let place = be16(header, 2);
                let (offset, more) = (usize::from(place & 0xfff8), place & 1 != 0);
                piece = Some(Piece { identification: be32(header, 4), offset, more });
                before = at - 40;
            }
            protocol = header[0];
            at += octets;
        }
        let address = |at: usize| {
            let octets: [u8; 16] = packet[at..at + 16].try_into().expect("16 octets");
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        Ok(Self {
            source: address(8),
            destination: address(24),
            class: packet[0] << 4 | packet[1] >> 4,
            hops: packet[7],
            piece: piece.filter(|piece| piece.more || piece.offset != 0),
            before,
            protocol,
            message: whole[at..].to_vec(),
            whole,
            is_source_routed,
            checksum_is_right: true,
        })
    }

    pub(crate) fn is_six(&self) -> bool {
        self.source.is_ipv6()
    }

    pub(crate) fn is_later(&self) -> bool {
        self.piece.is_some_and(|piece| piece.offset != 0)
    }

    /// Of the two ICMP the one of the packet's family.
    pub(crate) fn is_icmp(&self) -> bool {
        self.protocol == if self.is_six() { ICMPV6 } else { ICMP }
    }

    /// Whether its transport header is all there and can be. Of a later fragment there is none.
    pub(crate) fn transport_can_be(&self) -> bool {
        let length = self.message.len();
        if self.is_later() {
            return true;
        }
        match self.protocol {
            TCP => {
                let offset = |message: &[u8]| usize::from(message[12] >> 4) * 4;
                length >= 20 && (20..=length).contains(&offset(&self.message))
            }
            UDP if length < 8 => false,
            UDP => {
                let says = usize::from(be16(&self.message, 4));
                says >= 8 && (says <= length || self.piece.is_some())
            }
            _ if self.is_icmp() => length >= 8,
            _ => true,
        }
    }

    /// Whether its checksums are right, as far as all that they cover is here.
    pub(crate) fn is_sound(&self) -> bool {
        self.checksum_is_right && (self.piece.is_some() || self.transport_is_sound())
    }

    fn transport_is_sound(&self) -> bool {
        let known = self.is_icmp() || matches!(self.protocol, TCP | UDP);
        if !known {
            return true;
        }
        let mut message = self.message.clone();
        if self.protocol == UDP {
            message.truncate(be16(&message, 4).into());
            if be16(&message, 6) == 0 {
                return !self.is_six();
            }
        }
        let pseudo = if self.protocol == ICMP { Vec::new() } else { self.pseudo_header(message.len()) };
        checksum(&[pseudo, message].concat()) == 0
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        pseudo_header(self.source, self.destination, self.protocol, length)
    }
}

/// RFC 9293 section 3.1, RFC 8200 section 8.1; of an even number of octets.
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let length = u32::try_from(length).expect("a packet's length").to_be_bytes();
    [&octets(source)[..], &octets(destination), &length, &[0, 0, 0, protocol]].concat()
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// A checksum whose octets were others: RFC 1624.
pub(crate) fn adjusted(sum: u16, before: &[u8], after: &[u8]) -> u16 {
    // The complement of a sum is what takes it away.
    let without = [!sum, checksum(before)].map(u16::to_be_bytes).concat();
    checksum(&[&without[..], after].concat())
}

/// A frame of the firewall's around a message, to who sent a packet or where that goes.
pub(crate) fn around(
    (frame, link, ip): (&[u8], &Link, &Ip),
    back: bool,
    protocol: u8,
    mut message: Vec<u8>,
) -> Vec<u8> {
    let (from, to) = if back { (ip.destination, ip.source) } else { (ip.source, ip.destination) };
    let six = ip.is_six();
    let stations = if back { [&frame[6..12], &frame[..6]] } else { [&frame[..6], &frame[6..12]] };
    let pseudo = if protocol == ICMP { Vec::new() } else { pseudo_header(from, to, protocol, message.len()) };
    let sum = checksum(&[&pseudo[..], &message].concat());
    let at = if protocol == TCP { 16 } else { 2 };
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(message.len()).expect("short");
    let mut header = if six {
        [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, 64]].concat()
    } else {
        [&[0x45, 0][..], &(length + 20).to_be_bytes(), &[0, 0, 0x40, 0, 64, protocol, 0, 0]].concat()
    };
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    if !six {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    [&stations.concat(), &frame[12..link.start], &header, &message].concat()
}

/// Loose or strict, RFC 791 section 3.1. An option whose length cannot be ends them.
fn has_source_route(options: &[u8]) -> bool {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return false,
            1 => at += 1,
            131 | 137 => return true,
            _ => match options.get(at + 1) {
                Some(length) => at += usize::from(*length).max(2),
                None => return false,
            },
        }
    }
    false
}

/// As people read them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a frame says, in a line.
pub(crate) fn describe(frame: &[u8]) -> String {
    let Some(Link { tags, ether_type, start }) = link(frame) else { return format!("{} octets", frame.len()) };
    let ip = match ether_type {
        0x0800 => Ip::read(&frame[start..], false).ok(),
        0x86dd => Ip::read(&frame[start..], true).ok(),
        _ => None,
    };
    let Some(ip) = ip else { return format!("type {ether_type:#06x}, {} octets", frame.len()) };
    let mut text = format!("{} > {} protocol {} hops {}", ip.source, ip.destination, ip.protocol, ip.hops);
    if !tags.is_empty() {
        text += &format!(" tags {tags:?}");
    }
    if let Some(Piece { identification, offset, more }) = ip.piece {
        let more = if more { " more" } else { "" };
        text += &format!(" fragment {identification:#x} {offset}+{}{more}", ip.message.len());
    }
    let message = &ip.message;
    if !ip.is_later() && ip.transport_can_be() {
        text += &match ip.protocol {
            TCP => format!(
                " TCP {} > {} flags {:#04x} sequence {} acknowledgment {} window {} data {}",
                be16(message, 0),
                be16(message, 2),
                message[13],
                be32(message, 4),
                be32(message, 8),
                be16(message, 14),
                message.len() - usize::from(message[12] >> 4) * 4
            ),
            UDP => format!(" UDP {} > {}", be16(message, 0), be16(message, 2)),
            _ if ip.is_icmp() => format!(" ICMP {}/{} {:#x}", message[0], message[1], be32(message, 4)),
            _ => String::new(),
        };
    }
    if !ip.is_sound() {
        text += " (a wrong checksum)";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 section 3.
    #[test]
    fn a_checksum_is_the_complement_of_the_sum() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }

    #[test]
    fn a_packet_is_read_as_far_as_it_can_be() {
        let udp = [0, 1, 0, 2, 0, 9, 0, 0, 7];
        let mut packet = vec![0x45, 0, 0, 29, 1, 2, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 8, 8, 8, 8];
        packet.extend(udp);
        let ip = Ip::read(&packet, false).unwrap();
        assert!(ip.transport_can_be() && !ip.checksum_is_right && ip.piece.is_none());
        packet[6] = 0x20;
        assert_eq!(Ip::read(&packet, false).unwrap().piece.unwrap().offset, 0);
        packet[3] = 30;
        assert_eq!(Ip::read(&packet, false), Err(Broken::Malformed), "beyond the frame");
        let mut six = vec![0x60, 0, 0, 0, 0, 17, FRAGMENT, 64];
        six.extend([1; 32]);
        six.extend([UDP, 0, 0, 9, 0, 0, 0, 5]);
        six.extend(udp);
        let ip = Ip::read(&six, true).unwrap();
        assert_eq!((ip.protocol, ip.piece.unwrap()), (UDP, Piece { identification: 5, offset: 8, more: true }));
        assert!(has_source_route(&[1, 131, 3, 4]) && !has_source_route(&[7, 2, 0, 131]));
    }
}
