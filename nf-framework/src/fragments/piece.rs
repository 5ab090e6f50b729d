//! What a fragment says of itself: read from the frame's bytes, judged by nothing but them.

use super::behind_tags;
use crate::direction::Direction;
use crate::headers::{
    EtherType, Fragment, IcmpHeader, Icmpv6Header, IpProtocol, Ipv4Header, Ipv6Extensions, Ipv6Header, MAX_VLAN_TAGS,
    TcpHeader, UdpHeader,
};
use crate::steering::Ports;
use crate::verdict::DropReason;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the fragments of one packet have in common, and no others: the addresses, the
/// identification and, in IPv4, the protocol (RFC 791 section 3.2, RFC 8200 section 4.5); where they
/// came in; and their VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Key {
    pub(super) source: Source,
    destination: [u8; 16],
    identification: [u8; 4],
    /// Zero in IPv6, whose fragments need not agree about it.
    protocol: u8,
    /// Makes it three times 16 bytes, which the hash is fastest with.
    zero: [u8; 5],
}

/// Who sends, and where that comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Source {
    address: [u8; 16],
    version: u8,
    side: u8,
    /// Outermost first, without priorities; all ones where there is no tag.
    vlan: [[u8; 2]; MAX_VLAN_TAGS],
}

/// One fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) key: Key,
    /// Its place in the original packet, in octets: from `start` to before `end`.
    pub(super) start: u16,
    pub(super) end: u16,
    /// Whether it is the last one.
    pub(super) last: bool,
    /// What the transport header says, in the first one.
    pub(super) ports: Option<Ports>,
}

/// Whether a frame has to be looked at: of those that come in all day, few.
///
/// True for every fragment; for a packet that is none only if it is IPv6 with extension headers.
#[inline]
pub(super) fn may_be_fragment(frame: &[u8]) -> bool {
    // From the EtherType to IPv4's fragment offset; IPv6's next header is there as well.
    let Some(start) = frame.get(12..).and_then(|rest| rest.first_chunk::<10>()) else { return false };
    // As they lie in memory, which nearly every packet is judged by.
    if start[..2] == [0x08, 0x00] {
        return u16::from_ne_bytes([start[8], start[9]]) & const { u16::from_ne_bytes([0x3f, 0xff]) } != 0;
    }
    match u16::from_be_bytes([start[0], start[1]]) {
        0x86dd => IpProtocol(start[8]).is_ipv6_extension(),
        0x8100 | 0x88a8 => may_be_tagged_fragment(frame),
        _ => false,
    }
}

#[inline(never)]
fn may_be_tagged_fragment(frame: &[u8]) -> bool {
    let inner = behind_tags(frame).and_then(|(ether_type, _, start)| Some((ether_type, frame.get(start..)?)));
    match inner {
        Some((EtherType::IPV4, packet)) => {
            Ipv4Header::ref_from_prefix(packet).is_ok_and(|(header, _)| header.is_fragment())
        }
        Some((EtherType::IPV6, packet)) => {
            Ipv6Header::ref_from_prefix(packet).is_ok_and(|(header, _)| header.next_header.is_ipv6_extension())
        }
        _ => false,
    }
}

impl Piece {
    /// The fragment that a frame carries. `None` if it carries none: another packet, a whole one
    /// (an atomic fragment is one, RFC 6946), or one whose lengths cannot be believed, which is for
    /// the functions to refuse as they refuse others of its kind. An error is a fragment that is
    /// dropped for what it is, whatever comes with it. `stripped` is a tag that has been taken off.
    pub(super) fn of_frame(
        frame: &[u8],
        direction: Direction,
        stripped: Option<u16>,
    ) -> Option<Result<Self, DropReason>> {
        let (ether_type, mut vlan, start) = behind_tags(frame)?;
        if let (Some(tag), [outer, inner]) = (stripped, &mut vlan) {
            (*inner, *outer) = (*outer, (tag & 0x0fff).to_be_bytes());
        }
        let rest = frame.get(start..)?;
        let source = |version, address| Source { address, version, side: direction as u8, vlan };
        match ether_type {
            EtherType::IPV4 => Self::of_ipv4(rest, |address| source(4, address)),
            EtherType::IPV6 => Self::of_ipv6(rest, |address| source(6, address)),
            _ => None,
        }
    }

    fn of_ipv4(bytes: &[u8], source: impl Fn([u8; 16]) -> Source) -> Option<Result<Self, DropReason>> {
        let (header, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
        let long_enough = header.version() == 4 && header.header_length() >= Ipv4Header::LENGTH;
        if !long_enough || !header.is_fragment() {
            return None;
        }
        let data = bytes.get(header.header_length()..usize::from(header.total_length.get()))?;
        let key = Key {
            source: source(wide(header.source)),
            destination: wide(header.destination),
            identification: u32::from(header.identification.get()).to_be_bytes(),
            protocol: header.protocol.0,
            zero: [0; 5],
        };
        let fragment = Fragment {
            identification: u32::from(header.identification.get()),
            offset: header.fragment_offset(),
            more: header.more_fragments(),
        };
        let piece = Self::new(key, fragment, data.len(), header.header_length());
        Some(piece.and_then(|piece| piece.with_transport(header.protocol, IpProtocol::ICMP, data)))
    }

    fn of_ipv6(bytes: &[u8], source: impl Fn([u8; 16]) -> Source) -> Option<Result<Self, DropReason>> {
        let (header, rest) = Ipv6Header::ref_from_prefix(bytes).ok()?;
        if header.version() != 6 {
            return None;
        }
        let rest = rest.get(..usize::from(header.payload_length.get()))?;
        let mut extensions = Ipv6Extensions::new(header.next_header, rest);
        let mut unfragmentable = 0;
        let (fragment, protocol) = loop {
            let extension = extensions.next()?.ok()?;
            if let Some(fragment) = extension.fragment() {
                break (fragment, extension.next_header);
            }
            unfragmentable += extension.bytes.len();
        };
        if fragment.offset == 0 && !fragment.more {
            return None;
        }
        let data = rest.get(unfragmentable + 8..)?;
        let key = Key {
            source: source(header.source),
            destination: header.destination,
            identification: fragment.identification.to_be_bytes(),
            protocol: 0,
            zero: [0; 5],
        };
        let piece = Self::new(key, fragment, data.len(), unfragmentable);
        if fragment.offset != 0 {
            return Some(piece.and_then(|piece| piece.with_transport(protocol, IpProtocol::ICMPV6, data)));
        }
        // RFC 7112: the rest of the chain is in it, whole.
        let (mut protocol, mut behind) = (protocol, data);
        for extension in extensions {
            let extension = match extension {
                Ok(extension) if extension.kind != IpProtocol::IPV6_FRAGMENT => extension,
                _ => return Some(Err(DropReason::FRAGMENT_HEADERS)),
            };
            protocol = extension.next_header;
            behind = behind.get(extension.bytes.len()..)?;
        }
        Some(piece.and_then(|piece| piece.with_transport(protocol, IpProtocol::ICMPV6, behind)))
    }

    /// A fragment of so many octets. Those `before` it count into the reassembled packet's length,
    /// which has 16 bits.
    fn new(key: Key, fragment: Fragment, length: usize, before: usize) -> Result<Self, DropReason> {
        let end = usize::from(fragment.offset) + length;
        let fits = before + end <= usize::from(u16::MAX);
        if length == 0 || (fragment.more && !length.is_multiple_of(8)) || !fits {
            return Err(DropReason::FRAGMENT_LENGTH);
        }
        let end = u16::try_from(end).map_err(|_| DropReason::FRAGMENT_LENGTH)?;
        Ok(Self { key, start: fragment.offset, end, last: !fragment.more, ports: None })
    }

    /// What the transport header says, if this is the first fragment. It has to be there, whole,
    /// where nobody can write over it (RFC 1858, RFC 3128).
    fn with_transport(self, protocol: IpProtocol, icmp: IpProtocol, data: &[u8]) -> Result<Self, DropReason> {
        if self.start == 8 && protocol == IpProtocol::TCP {
            return Err(DropReason::FRAGMENT_HEADERS);
        }
        if self.start > 0 {
            return Ok(self);
        }
        let both = |source: u16, destination: u16| Some(Ports::Both(source, destination));
        let identifier = |of_query: Option<u16>| of_query.map_or(Ports::None, Ports::Identifier);
        let ports = match protocol {
            IpProtocol::TCP => TcpHeader::ref_from_prefix(data)
                .ok()
                // A data offset that no header has is for the functions to refuse.
                .filter(|(tcp, _)| tcp.header_length() <= data.len())
                .and_then(|(tcp, _)| both(tcp.source_port.get(), tcp.destination_port.get())),
            IpProtocol::UDP => UdpHeader::ref_from_prefix(data)
                .ok()
                .and_then(|(udp, _)| both(udp.source_port.get(), udp.destination_port.get())),
            IpProtocol::ICMP if protocol == icmp => IcmpHeader::ref_from_prefix(data)
                .ok()
                .map(|(message, _)| identifier(message.message_type.has_identifier().then(|| message.identifier()))),
            IpProtocol::ICMPV6 if protocol == icmp => Icmpv6Header::ref_from_prefix(data)
                .ok()
                .map(|(message, _)| identifier(message.message_type.has_identifier().then(|| message.identifier()))),
            _ => Some(Ports::None),
        };
        ports.map(|ports| Self { ports: Some(ports), ..self }).ok_or(DropReason::FRAGMENT_HEADERS)
    }
}

/// An IPv4 address with zeros behind it.
fn wide(address: [u8; 4]) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&address);
    octets
}
