//! The ways in which a packet for a service reaches a backend without being translated.
//!
//! What is in a tunnel is what the client sent, octet by octet. The header around it has 64 hops and the inner
//! packet's type of service, and comes from an address (in GUE a port too, in IPv6 a flow label) that the flow decides:
//! so receivers and routers spread flows, and keep each one's packets in order.

use super::config::Mode;
use super::flow::ETHERNET;
use crate::identification::Identifications;
use nf_framework::headers::{ChecksumUpdate, Headers, Network, Transport, U16};
use nf_framework::{Mbuf, Prefix};
use std::net::IpAddr;

/// Hops of what comes out of this machine: RFC 1700.
const HOPS: u8 = 64;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// The longest: Ethernet, IPv6 and UDP.
const MOST: usize = ETHERNET + 40 + 8;

/// What stands before the packets that go to one backend through a tunnel.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Tunnel {
    /// From the Ethernet header on, whose addresses the router writes.
    header: [u8; MOST],
    /// Octets of it.
    length: u8,
    /// Of IPv4 its sum as it stands, in 16-bit words.
    sum: u16,
    is_ipv6: bool,
    is_udp: bool,
    /// Whether routers may split it.
    may_split: bool,
    /// The bits of the source address that the flow decides.
    spread: u64,
}

/// What a tunnel is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) from: Prefix,
    pub(super) to: IpAddr,
    /// Whether IPv6 is in it.
    pub(super) carries_ipv6: bool,
    pub(super) gue_port: u16,
    pub(super) may_split: bool,
}

impl Tunnel {
    /// Of a mode that is one of a tunnel, between addresses of one family.
    pub(super) fn new(mode: Mode, ends: &Ends) -> Self {
        const IN_IPV4: u8 = 4;
        const IN_IPV6: u8 = 41;
        const UDP: u8 = 17;
        const GRE: u8 = 47;
        let inner = if ends.carries_ipv6 { IPV6 } else { IPV4 };
        let (protocol, behind) = match mode {
            Mode::Gue => {
                let [high, low] = ends.gue_port.to_be_bytes();
                // Ports, length and no checksum: RFC 6935 allows that for tunnels.
                (UDP, vec![0, 0, high, low, 0, 0, 0, 0])
            }
            Mode::Gre => (GRE, [[0, 0], inner].concat()),
            _ => (if ends.carries_ipv6 { IN_IPV6 } else { IN_IPV4 }, Vec::new()),
        };
        let mut header = vec![0; 12];
        let host_bits = |length: u8| u64::MAX.checked_shr(length.into()).unwrap_or(0);
        let spread = match (ends.from.address(), ends.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let flags = if ends.may_split { 0 } else { 0x40 };
                header.extend(IPV4);
                header.extend([0x45, 0, 0, 0, 0, 0, flags, 0, HOPS, protocol, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                host_bits(32 + ends.from.length())
            }
            (from, to) => {
                let octets = |address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                header.extend(IPV6);
                header.extend([0x60, 0, 0, 0, 0, 0, protocol, HOPS]);
                header.extend(octets(from));
                header.extend(octets(to));
                host_bits(ends.from.length().saturating_sub(64))
            }
        };
        let is_ipv6 = ends.to.is_ipv6();
        let sum = if is_ipv6 { 0 } else { sum(&header[ETHERNET..]) };
        header.extend(behind);
        let mut fixed = [0; MOST];
        fixed[..header.len()].copy_from_slice(&header);
        Self {
            header: fixed,
            length: u8::try_from(header.len()).unwrap_or(0),
            sum,
            is_ipv6,
            is_udp: mode == Mode::Gue,
            may_split: ends.may_split && !is_ipv6,
            spread,
        }
    }

    /// Octets that it adds to a packet.
    #[inline]
    pub(super) fn overhead(&self) -> usize {
        usize::from(self.length) - ETHERNET
    }

    /// Whether what it makes may be split by routers.
    #[inline]
    pub(super) fn may_split(&self) -> bool {
        self.may_split
    }

    /// Puts a sound IP packet of so many octets, behind an Ethernet header without tags, into it. The hash is the
    /// flow's; identifications serve routers that split it. False, and no change, if there is no room.
    #[inline(always)]
    pub(super) fn enter(
        &self,
        packet: &mut Mbuf,
        length: usize,
        hash: u64,
        identifications: &mut Identifications,
    ) -> bool {
        let padding = packet.len().saturating_sub(ETHERNET + length);
        let class = match packet.data() {
            [_, _, _, _, _, _, _, _, _, _, _, _, _, _, first, second, ..] if first >> 4 == 6 => {
                first << 4 | second >> 4
            }
            [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, class, ..] => *class,
            _ => return false,
        };
        if packet.prepend(self.overhead()).is_none() {
            return false;
        }
        // There is as much padding as was counted.
        let _ = packet.trim(padding);
        let outer = length + self.overhead();
        let frame = packet.data_mut();
        if self.is_ipv6 {
            self.write_v6(frame, outer, class, hash)
        } else {
            self.write_v4(frame, outer, class, hash, identifications)
        }
    }

    #[inline(always)]
    fn write_v4(
        &self,
        frame: &mut [u8],
        length: usize,
        class: u8,
        hash: u64,
        identifications: &mut Identifications,
    ) -> bool {
        const END: usize = ETHERNET + 20;
        let Some(head) = frame.first_chunk_mut::<END>() else { return false };
        head.copy_from_slice(&self.header[..END]);
        let length = low_16(length);
        let identification = if self.may_split { identifications.next() } else { 0 };
        #[allow(clippy::cast_possible_truncation, reason = "an address has 32 bits")]
        let host = (hash & self.spread) as u32;
        let [[a, b], [c, d]] = halves(host.to_be_bytes());
        let words = [length, class.into(), identification, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let sum = words.iter().fold(u32::from(self.sum), |sum, word| sum + u32::from(*word));
        let sum = (sum & 0xffff) + (sum >> 16);
        #[allow(clippy::cast_possible_truncation, reason = "the carry has been added")]
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        head[15] = class;
        head[16..18].copy_from_slice(&length.to_be_bytes());
        head[18..20].copy_from_slice(&identification.to_be_bytes());
        head[24..26].copy_from_slice(&checksum.to_be_bytes());
        for (octet, of_host) in head[26..30].iter_mut().zip(host.to_be_bytes()) {
            *octet |= of_host;
        }
        self.write_rest::<END>(frame, length - 20, hash)
    }

    #[inline(always)]
    fn write_v6(&self, frame: &mut [u8], length: usize, class: u8, hash: u64) -> bool {
        const END: usize = ETHERNET + 40;
        let Some(head) = frame.first_chunk_mut::<END>() else { return false };
        head.copy_from_slice(&self.header[..END]);
        let payload = low_16(length - 40);
        #[allow(clippy::cast_possible_truncation, reason = "a flow label has 20 bits")]
        let label = (hash >> 32) as u32 & 0x000f_ffff;
        let first = 6 << 28 | u32::from(class) << 20 | label;
        head[14..18].copy_from_slice(&first.to_be_bytes());
        head[18..20].copy_from_slice(&payload.to_be_bytes());
        for (octet, of_host) in head[30..38].iter_mut().zip((hash & self.spread).to_be_bytes()) {
            *octet |= of_host;
        }
        self.write_rest::<END>(frame, payload, hash)
    }

    /// What stands between the IP headers, from there on, with so many octets behind the outer one.
    #[inline(always)]
    fn write_rest<const FROM: usize>(&self, frame: &mut [u8], length: u16, hash: u64) -> bool {
        let to = usize::from(self.length);
        if to == FROM {
            return true;
        }
        let (Some(rest), Some(header)) = (frame.get_mut(FROM..to), self.header.get(FROM..to)) else { return false };
        rest.copy_from_slice(header);
        if self.is_udp
            && let Some(udp) = rest.first_chunk_mut::<8>()
        {
            // Of those that nobody is given: RFC 6335 section 6.
            let port = 0xc000 | low_16((hash >> 40) as usize & 0x3fff);
            udp[..2].copy_from_slice(&port.to_be_bytes());
            udp[4..6].copy_from_slice(&length.to_be_bytes());
        }
        true
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "no packet is longer")]
fn low_16(number: usize) -> u16 {
    number as u16
}

#[inline(always)]
fn halves([a, b, c, d]: [u8; 4]) -> [[u8; 2]; 2] {
    [[a, b], [c, d]]
}

/// The one's complement sum of words in network order, RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX)
}

/// Writes a code point into what nearly every packet is, of IPv4 without options; congestion marks stay.
#[inline(always)]
pub(super) fn mark_usual_v4(frame: &mut [u8], code_point: u8) {
    let Some(head) = frame.first_chunk_mut::<{ ETHERNET + 20 }>() else { return };
    let (old, class) = (head[15], code_point << 2 | head[15] & 3);
    let update = ChecksumUpdate::new().replace_bytes([head[14], old], [head[14], class]);
    head[15] = class;
    let mut checksum = U16::from_bytes([head[24], head[25]]);
    update.apply(&mut checksum);
    head[24..26].copy_from_slice(&checksum.to_bytes());
}

/// The same of IPv6, which has no checksum over it.
#[inline(always)]
pub(super) fn mark_usual_v6(frame: &mut [u8], code_point: u8) {
    let Some(head) = frame.first_chunk_mut::<{ ETHERNET + 2 }>() else { return };
    head[14] = head[14] & 0xf0 | code_point >> 2;
    head[15] = head[15] & 0x3f | code_point << 6;
}

/// Sends a packet to a backend's own address, and says by a code point which one it was sent to (L3 direct server
/// return). Congestion marks stay, and checksums are right. False if it is of another family.
#[inline]
pub(super) fn readdress(packet: &mut Mbuf, to: IpAddr, code_point: u8) -> bool {
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
    let update = match (&mut headers.network, to) {
        (Network::Ipv4 { header, .. }, IpAddr::V4(to)) => {
            let update = ChecksumUpdate::new().replace_bytes(header.destination, to.octets());
            let class = code_point << 2 | header.congestion_notification();
            let word = |class| u16::from_be_bytes([header.version_and_header_length, class]);
            let of_header = update.replace_u16(word(header.differentiated_services), word(class));
            header.destination = to.octets();
            header.differentiated_services = class;
            of_header.apply(&mut header.header_checksum);
            update
        }
        (Network::Ipv6 { header, .. }, IpAddr::V6(to)) => {
            let update = ChecksumUpdate::new().replace_bytes(header.destination, to.octets());
            let first = header.version_traffic_class_and_flow_label.get();
            let class = u32::from(code_point << 2 | header.traffic_class() & 3);
            header.version_traffic_class_and_flow_label.set(first & 0xf00f_ffff | class << 20);
            header.destination = to.octets();
            update
        }
        _ => return false,
    };
    match &mut headers.transport {
        Transport::Tcp { header, .. } => update.apply(&mut header.checksum),
        Transport::Udp(header) => update.apply_udp(&mut header.checksum),
        Transport::Icmpv6(header) => update.apply(&mut header.checksum),
        _ => {}
    }
    true
}
