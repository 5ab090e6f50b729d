//! The first half: is it for us, is it sound, has it hops left, and where does it go?

use super::target::{Target, Way};
use super::{ETHERNET, Found, Out, PortOffloads, Router, complain, tag, vlan};
use crate::batch::{Batch, Slots};
use crate::context::Context;
use crate::direction::Direction;
use crate::headers::{EtherType, EthernetHeader, Icmpv6Type, IpProtocol, Ipv4Header, Ipv6Header, MacAddress, checksum};
use crate::icmp::{self, IcmpError, ip_packet};
use crate::position::Position;
use crate::steering::Entrance;
use crate::verdict::{DropReason, PortIx, Verdict};
use dpdk_rs::Mbuf;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use zerocopy::FromBytes as _;
use zerocopy::network_endian::U16;

/// What a look at a frame says.
enum Arrival {
    /// An IP packet, of IPv4 with its destination.
    V4([u8; 4]),
    /// The same, but to a group of stations on the link.
    ToStations([u8; 4]),
    V6([u8; 16]),
    /// ARP, or a message of Neighbor Discovery to a group, which came in by this interface.
    Neighbours(u16),
    Refused(DropReason),
    /// For more hosts than one, or no IP: forwarded to nobody, but for this host too.
    Group(DropReason),
}

impl Router {
    pub(super) fn arrive(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        batch.prefetch();
        let direction = cx.direction();
        let station = self.tables.station(direction).map_or(Station::NONE, Station::new);
        let (mut v4, others) = take_usual_v4(batch, (station, self.tables.offloads(direction)), &mut self.found.v4);
        let mut v6 = Slots::default();
        if !others.is_empty() {
            self.look_at(others, station, (&mut v4, &mut v6), batch, cx);
        }
        self.tables.look_up_v4(v4, &mut self.found.v4);
        let mut others = Slots::default();
        for (slot, packet) in batch.packets_in(v4) {
            if !self.found.v4.target(slot).leads(direction) || !count_down_v4(packet) {
                others.insert(slot);
            }
        }
        for slot in others {
            self.judge(slot, self.found.v4.target(slot), batch, cx);
        }
        if !v6.is_empty() {
            self.arrive_v6(v6, batch, cx);
        }
    }

    /// Looks at what is not usual for IPv4, in these slots.
    #[inline(never)]
    fn look_at(
        &mut self,
        slots: Slots,
        station: Station,
        (v4, v6): (&mut Slots, &mut Slots),
        batch: &mut Batch,
        cx: &mut Context<'_>,
    ) {
        let mut others = Slots::default();
        for (slot, packet) in batch.packets_in(slots) {
            if let Some(destination) = usual_v6(packet.data(), station) {
                self.found.v6.destinations[slot] = destination;
                v6.insert(slot);
            } else {
                others.insert(slot);
            }
        }
        for slot in others {
            match batch.packet(slot).map(|packet| self.look(packet, cx.direction())) {
                Some(Arrival::V4(destination)) => {
                    self.found.v4.destinations[slot] = destination;
                    v4.insert(slot);
                }
                Some(Arrival::V6(destination)) => {
                    self.found.v6.destinations[slot] = destination;
                    v6.insert(slot);
                }
                Some(Arrival::ToStations(destination)) => self.judge_group(slot, destination, batch, cx),
                Some(Arrival::Refused(reason)) => batch.decide(slot, Verdict::Drop(reason)),
                Some(Arrival::Group(reason)) => self.give_to_host(slot, reason, batch, cx),
                Some(Arrival::Neighbours(interface)) => self.give_to_neighbours(slot, interface, batch, cx),
                None => {}
            }
        }
    }

    /// What follows for packets of IPv6, in these slots, that were looked at.
    #[inline(never)]
    fn arrive_v6(&mut self, slots: Slots, batch: &mut Batch, cx: &mut Context<'_>) {
        let direction = cx.direction();
        self.tables.look_up_v6(slots, &mut self.found.v6);
        let mut others = Slots::default();
        for (slot, packet) in batch.packets_in(slots) {
            let goes_on = self.found.v6.target(slot).leads(direction) && !is_from_link_local(packet.data());
            if !goes_on || !count_down_v6(packet) {
                others.insert(slot);
            }
        }
        for slot in others {
            self.judge(slot, self.found.v6.target(slot), batch, cx);
        }
    }

    /// RFC 1812 section 5.2 and RFC 8200 section 3, up to where the destination is known.
    fn look(&self, packet: &Mbuf, direction: Direction) -> Arrival {
        let frame = packet.data();
        let came_in = self.tables.entrance(direction, vlan(packet, &self.tables));
        let Some((index, interface)) = came_in.and_then(|index| Some((index, self.tables.interface(index)?))) else {
            return Arrival::Refused(DropReason::UNKNOWN_VLAN);
        };
        let Ok((ethernet, rest)) = EthernetHeader::ref_from_prefix(frame) else {
            return Arrival::Refused(DropReason::MALFORMED);
        };
        let to_us = ethernet.destination == interface.mac;
        // Who would be answered?
        if ethernet.source.is_multicast() {
            return Arrival::Refused(DropReason::MALFORMED);
        }
        if !to_us && !ethernet.destination.is_multicast() {
            return Arrival::Refused(DropReason::OTHER_STATION);
        }
        match ethernet.ether_type {
            EtherType::IPV4 => look_v4(rest, to_us, self.tables.offloads(direction).has_good_checksum(packet)),
            EtherType::IPV6 => look_v6(rest, to_us, index),
            EtherType::ARP => Arrival::Neighbours(index),
            EtherType::VLAN | EtherType::SERVICE_VLAN => Arrival::Refused(DropReason::UNKNOWN_VLAN),
            _ => Arrival::Group(DropReason::NOT_IP),
        }
    }

    /// What becomes of a packet by its destination.
    fn judge(&mut self, slot: usize, target: Target, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(packet) = batch.packet_mut(slot) else { return };
        packet.set_marked(false);
        let refused = match target.way() {
            Way::Connected(interface) => self.forward(packet, interface, cx),
            Way::Via(hop) => {
                let interface = self.tables.next_hops.get(usize::from(hop)).map_or(u16::MAX, |hop| hop.interface);
                self.forward(packet, interface, cx)
            }
            Way::Function if discovery(packet.data()) == Some(true) => {
                return self.for_us(slot, batch, cx);
            }
            // Its hops count when it turns out to go on.
            Way::Function => None,
            Way::Own => {
                return self.for_us(slot, batch, cx);
            }
            Way::None if self.is_unnumbered(packet, cx.direction()) => {
                return self.give_to_host(slot, DropReason::NO_ROUTE, batch, cx);
            }
            Way::None => self.refuse(packet, IcmpError::NoRoute, DropReason::NO_ROUTE, cx),
            Way::Prohibited => self.refuse(packet, IcmpError::Prohibited, DropReason::PROHIBITED, cx),
            Way::Blackhole => Some(DropReason::BLACKHOLE),
            Way::Martian => Some(DropReason::MARTIAN),
            Way::Multicast => {
                return self.give_to_host(slot, DropReason::MULTICAST, batch, cx);
            }
            Way::Broadcast => {
                return self.give_to_host(slot, DropReason::BROADCAST, batch, cx);
            }
            Way::LinkLocal => Some(DropReason::LINK_LOCAL),
        };
        if let Some(reason) = refused {
            batch.decide(slot, Verdict::Drop(reason));
        }
    }

    /// Takes a hop off a packet that leaves by this interface; the reason if it may not.
    #[inline]
    fn forward(&mut self, packet: &mut Mbuf, interface: u16, cx: &mut Context<'_>) -> Option<DropReason> {
        let enters = self.tables.interface(interface).map(|interface| interface.enters);
        if enters == Some(cx.direction()) && self.functions > 0 {
            return Some(DropReason::SAME_SIDE);
        }
        if is_from_link_local(packet.data()) {
            return Some(DropReason::LINK_LOCAL);
        }
        if !count_down(packet) {
            return self.refuse(packet, IcmpError::TimeExceeded, DropReason::TTL_EXPIRED, cx);
        }
        None
    }

    /// Tells the sender; the reason comes back.
    #[cold]
    fn refuse(
        &mut self,
        packet: &Mbuf,
        error: IcmpError,
        reason: DropReason,
        cx: &mut Context<'_>,
    ) -> Option<DropReason> {
        // Not about what came to a group of stations.
        if EthernetHeader::ref_from_prefix(packet.data())
            .is_ok_and(|(ethernet, _)| !ethernet.destination.is_multicast())
        {
            complain(&self.tables, &mut self.errors, error, packet, cx);
        }
        Some(reason)
    }

    /// A packet for one of our own addresses.
    #[cold]
    fn for_us(&mut self, slot: usize, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(packet) = batch.packet_mut(slot) else { return };
        let came_in = self.came_in_by(packet, cx.direction());
        if let (Some(index), Some(protocol)) = (came_in, discovery(packet.data()))
            && protocol
        {
            return self.give_to_neighbours(slot, index, batch, cx);
        }
        let Some(packet) = batch.packet_mut(slot) else { return };
        if !source(packet.data()).is_some_and(|source| self.tables.is_other_host(source)) {
            return batch.decide(slot, Verdict::Drop(DropReason::MARTIAN));
        }
        if icmp::reply_to_echo(packet.data_mut()) {
            let interface = came_in.and_then(|index| self.tables.interface(index));
            let sent = interface.filter(|interface| tag(packet, interface)).map(|interface| interface.port);
            let verdict = sent.map_or(Verdict::Drop(DropReason::NO_HEADROOM), Verdict::Send);
            return batch.decide(slot, verdict);
        }
        if self.host_of(came_in).is_none() && is_udp(packet.data()) {
            complain(&self.tables, &mut self.errors, IcmpError::PortUnreachable, packet, cx);
        }
        self.give_to_host(slot, DropReason::NO_LISTENER, batch, cx);
    }

    /// Whether a packet is for a DHCP client, where the kernel still looks for an address (RFC 2131
    /// section 4.1).
    #[cold]
    fn is_unnumbered(&self, packet: &Mbuf, direction: Direction) -> bool {
        const CLIENT: [u8; 2] = 68_u16.to_be_bytes();
        let ip = ip_packet(packet.data()).unwrap_or_default();
        let is_dhcp = Ipv4Header::ref_from_prefix(ip).is_ok_and(|(header, _)| {
            header.version() == 4
                && header.protocol == IpProtocol::UDP
                && !header.is_fragment()
                && ip.get(header.header_length() + 2..).is_some_and(|ports| ports.starts_with(&CLIENT))
        });
        if !is_dhcp {
            return false;
        }
        let interface = self.came_in_by(packet, direction).and_then(|index| self.tables.interface(index));
        interface.is_some_and(|interface| {
            interface.host.is_some() && !interface.addresses.iter().any(|own| own.address.is_ipv4())
        })
    }

    pub(super) fn host_of(&self, interface: Option<u16>) -> Option<PortIx> {
        self.tables.interface(interface?)?.host
    }

    /// What was sent to a group of stations is for a group of hosts, or not for us: RFC 1812 section
    /// 5.3.4.
    #[cold]
    fn judge_group(&mut self, slot: usize, destination: [u8; 4], batch: &mut Batch, cx: &mut Context<'_>) {
        match self.tables.find(IpAddr::V4(destination.into())).way() {
            Way::Broadcast => self.give_to_host(slot, DropReason::BROADCAST, batch, cx),
            Way::Multicast => self.give_to_host(slot, DropReason::MULTICAST, batch, cx),
            Way::Martian => batch.decide(slot, Verdict::Drop(DropReason::MARTIAN)),
            _ => batch.decide(slot, Verdict::Drop(DropReason::OTHER_STATION)),
        }
    }

    /// Gives a packet to the kernel if it is on this link, or drops it.
    #[cold]
    fn give_to_host(&mut self, slot: usize, reason: DropReason, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(packet) = batch.packet(slot) else { return };
        let host = self.host_of(self.came_in_by(packet, cx.direction()));
        batch.decide(slot, host.map_or(Verdict::Drop(reason), Verdict::Send));
    }

    /// Gives what the neighbours say to their owner.
    #[cold]
    fn give_to_neighbours(&mut self, slot: usize, interface: u16, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(packet) = batch.take(slot) else { return };
        match &mut self.owner {
            Some(owner) => {
                if let Some(host) = self.tables.interface(interface).and_then(|interface| interface.host)
                    && is_answer(packet.data())
                    && let Some(mut copy) = cx.allocate()
                {
                    // The kernel looks for its neighbours itself.
                    if copy.set_contents(packet.data()) {
                        cx.pending.push(copy, Position::out_by(host), cx.counters);
                    } else {
                        cx.drop_held(copy, DropReason::EMPTY);
                    }
                }
                let now = cx.now();
                let out = &mut Out { tables: &self.tables, errors: &mut self.errors, functions: self.functions, cx };
                owner.receive(interface, packet, now, out);
                cx.counters.held_around.store(owner.held() as u64, Ordering::Relaxed);
            }
            None => self.stage(packet, Entrance::arriving(cx.direction()), cx),
        }
    }
}

/// RFC 3927 section 2.7: never forwarded.
const LINK_LOCAL_V4: [u8; 2] = [169, 254];

#[inline]
fn look_v4(ip: &[u8], to_us: bool, good_checksum: bool) -> Arrival {
    let Ok((header, rest)) = Ipv4Header::ref_from_prefix(ip) else {
        return Arrival::Refused(DropReason::MALFORMED);
    };
    let length = usize::from(header.total_length.get());
    let options = header.header_length().wrapping_sub(Ipv4Header::LENGTH);
    if header.version() != 4 || length < header.header_length() || length > ip.len() || options > 40 {
        return Arrival::Refused(DropReason::MALFORMED);
    }
    let options = if options == 0 { &[] } else { rest.get(..options).unwrap_or(&[]) };
    if !good_checksum && !checksum::ipv4_header_is_valid(header, options) {
        return Arrival::Refused(DropReason::BAD_CHECKSUM);
    }
    // No packet is so long (RFC 791 section 3.1).
    if usize::from(header.fragment_offset()) + length - header.header_length() > usize::from(u16::MAX) {
        return Arrival::Refused(DropReason::MALFORMED);
    }
    if header.source.starts_with(&LINK_LOCAL_V4) {
        return Arrival::Refused(DropReason::LINK_LOCAL);
    }
    // As sources: this network, loopback, groups and what is reserved (RFC 1812 section 5.3.7).
    if matches!(header.source[0], 0 | 127 | 224..) {
        return Arrival::Refused(DropReason::MARTIAN);
    }
    if !options.is_empty() && is_source_routed(options) {
        return Arrival::Refused(DropReason::SOURCE_ROUTED);
    }
    if to_us { Arrival::V4(header.destination) } else { Arrival::ToStations(header.destination) }
}

#[inline]
fn look_v6(ip: &[u8], to_us: bool, interface: u16) -> Arrival {
    let Ok((header, rest)) = Ipv6Header::ref_from_prefix(ip) else {
        return Arrival::Refused(DropReason::MALFORMED);
    };
    if header.version() != 6 || usize::from(header.payload_length.get()) > rest.len() {
        return Arrival::Refused(DropReason::MALFORMED);
    }
    if header.destination[0] == 0xff {
        let discovery = header.next_header == IpProtocol::ICMPV6 && rest.first().is_some_and(is_discovery);
        return if discovery { Arrival::Neighbours(interface) } else { Arrival::Group(DropReason::MULTICAST) };
    }
    let source = Ipv6Addr::from(header.source);
    let is_nobody = source.is_loopback() || source.is_unspecified() || source.to_ipv4_mapped().is_some();
    if source.is_multicast() || is_nobody {
        return Arrival::Refused(DropReason::MARTIAN);
    }
    if !to_us {
        return Arrival::Refused(DropReason::OTHER_STATION);
    }
    Arrival::V6(header.destination)
}

/// Whether there is a loose or strict source route (RFC 791 section 3.1), which RFC 7126 section
/// 4.3 has dropped. Options that contradict themselves count as one.
#[cold]
fn is_source_routed(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        match options {
            [] | [END, ..] => return false,
            [NO_OPERATION, rest @ ..] => options = rest,
            [LOOSE | STRICT, ..] | [_] => return true,
            [_, length, ..] => match options.get(usize::from(*length).max(2)..) {
                Some(rest) if *length >= 2 => options = rest,
                _ => return true,
            },
        }
    }
}

/// A station of ours, as eight octets of the frames that are for it alone and come from no group:
/// the bits of both addresses that say so.
#[derive(Clone, Copy)]
struct Station(u64);

impl Station {
    /// Octets 0 to 5, and of octet 6 the bit that groups have.
    const BITS: u64 = 0x0001_ffff_ffff_ffff;
    /// No frame is for it.
    const NONE: Self = Self(u64::MAX);

    fn new(mac: MacAddress) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[inline]
    fn is_met(self, frame: &[u8; 8]) -> bool {
        u64::from_le_bytes(*frame) & Self::BITS == self.0
    }
}

/// Writes the destinations of those undecided packets that are usual; these are the first slots returned, the
/// second are the others.
// Never: in a function of its own, the loop has all registers.
#[inline(never)]
fn take_usual_v4(
    batch: &mut Batch,
    (station, offloads): (Station, PortOffloads),
    found: &mut Found<4>,
) -> (Slots, Slots) {
    let (mut usual, mut others) = (Slots::default(), Slots::default());
    for (slot, packet) in batch.undecided_packets() {
        if let Some(destination) = usual_v4(packet.data(), station, || offloads.has_good_checksum(packet)) {
            found.destinations[slot] = destination;
            usual.insert(slot);
        } else {
            others.insert(slot);
        }
    }
    (usual, others)
}

/// The destination of what nearly every packet is: for this station, of IPv4 and sound, without
/// options, from a host. [`look_v4`] knows what else there is.
#[inline]
fn usual_v4(frame: &[u8], station: Station, good_checksum: impl Fn() -> bool) -> Option<[u8; 4]> {
    const END: usize = ETHERNET + Ipv4Header::LENGTH;
    // The EtherType, version and header's length, without the type of service between them and the rest.
    const PLAIN: u32 = u32::from_le_bytes([0x08, 0x00, 0x45, 0]);
    let head = frame.first_chunk::<END>()?;
    let (header, _) = Ipv4Header::ref_from_prefix(&head[ETHERNET..]).ok()?;
    let kind = u32::from_le_bytes(*head[ETHERNET - 2..].first_chunk()?);
    let length = usize::from(header.total_length.get());
    let usual = station.is_met(head.first_chunk()?)
        && kind & 0x00ff_ffff == PLAIN
        && length.wrapping_sub(Ipv4Header::LENGTH) <= frame.len() - END
        && !header.is_fragment()
        && (good_checksum() || is_sound(head.last_chunk()?))
        && !header.source.starts_with(&LINK_LOCAL_V4)
        && !matches!(header.source[0], 0 | 127 | 224..);
    usual.then_some(header.destination)
}

/// Whether the checksum of a header of IPv4 is right: its words add up to a multiple of 2^16 - 1 (RFC 1071),
/// and so do wider ones. Of the few whose sum needs a carry it says no.
#[inline]
fn is_sound(header: &[u8; Ipv4Header::LENGTH]) -> bool {
    // 2^16 - 1 times this is 2^64 - 1, which is -1. So by its negative the multiples of 2^16 - 1 come to how
    // often that is in them, which is not above it, and all other numbers to what is.
    const ONES: u64 = 0x0001_0001_0001_0001;
    let ([first, second], rest) = header.as_chunks::<8>() else { return false };
    let Some(third) = rest.first_chunk() else { return false };
    let sum = u64::from_le_bytes(*first).checked_add(u64::from_le_bytes(*second));
    let sum = sum.and_then(|sum| sum.checked_add(u32::from_le_bytes(*third).into()));
    sum.is_some_and(|sum| sum.wrapping_mul(ONES.wrapping_neg()) <= ONES)
}

/// The destination of what nearly every packet of IPv6 is. [`look_v6`] knows what else there is.
#[inline]
fn usual_v6(frame: &[u8], station: Station) -> Option<[u8; 16]> {
    const END: usize = ETHERNET + Ipv6Header::LENGTH;
    let head = frame.first_chunk::<END>()?;
    let (header, _) = Ipv6Header::ref_from_prefix(&head[ETHERNET..]).ok()?;
    // Neither unspecified nor loopback nor mapped.
    let from = u128::from_be_bytes(header.source);
    let usual = station.is_met(head.first_chunk()?)
        && head[ETHERNET - 2..ETHERNET] == [0x86, 0xdd]
        && header.version() == 6
        && usize::from(header.payload_length.get()) <= frame.len() - END
        && header.destination[0] != 0xff
        && header.source[0] != 0xff
        && from > 1
        && from >> 32 != 0xffff;
    usual.then_some(header.destination)
}

/// Takes a hop off a packet and marks it, or says that there is none left.
#[inline]
pub(super) fn count_down(packet: &mut Mbuf) -> bool {
    match packet.data().get(ETHERNET).map(|first| first >> 4) {
        Some(4) => count_down_v4(packet),
        _ => count_down_v6(packet),
    }
}

#[inline]
fn count_down_v4(packet: &mut Mbuf) -> bool {
    let Some(Ok((header, _))) = packet.data_mut().get_mut(ETHERNET..).map(Ipv4Header::mut_from_prefix) else {
        return false;
    };
    if header.time_to_live <= 1 {
        return false;
    }
    header.time_to_live -= 1;
    // RFC 1624: what is summed is smaller by 0x0100, so its complement is larger; with the octets as they lie
    // in memory, by 1 (RFC 1071 section 2(B)).
    let sum = u32::from(u16::from_le_bytes(header.header_checksum.to_bytes())) + 1;
    #[allow(clippy::cast_possible_truncation, reason = "the carry has been added")]
    let sum = (sum + u32::from(sum >= 0xffff)) as u16;
    header.header_checksum = U16::from_bytes(sum.to_le_bytes());
    packet.set_marked(true);
    true
}

#[inline]
fn count_down_v6(packet: &mut Mbuf) -> bool {
    let Some(Ok((header, _))) = packet.data_mut().get_mut(ETHERNET..).map(Ipv6Header::mut_from_prefix) else {
        return false;
    };
    if header.hop_limit <= 1 {
        return false;
    }
    header.hop_limit -= 1;
    packet.set_marked(true);
    true
}

/// Whether a packet comes from an address that counts on its link alone: RFC 4291 section 2.5.6.
#[inline]
fn is_from_link_local(frame: &[u8]) -> bool {
    matches!(frame.get(ETHERNET..), Some([0x60..=0x6f, _, _, _, _, _, _, _, 0xfe, 0x80..=0xbf, ..]))
}

/// Whether a frame is a message of Neighbor Discovery; `None` if it is not of IPv6.
fn discovery(frame: &[u8]) -> Option<bool> {
    let ip = frame.get(ETHERNET..)?;
    let (header, rest) = Ipv6Header::ref_from_prefix(ip).ok().filter(|(header, _)| header.version() == 6)?;
    Some(header.next_header == IpProtocol::ICMPV6 && rest.first().is_some_and(is_discovery))
}

/// Whether neighbours say in a frame where they are.
fn is_answer(frame: &[u8]) -> bool {
    if let Some([0x08, 0x06, _, _, _, _, _, _, operation @ ..]) = frame.get(12..) {
        return operation.starts_with(&[0, 2]);
    }
    let message_type = frame.get(ETHERNET + Ipv6Header::LENGTH).copied().map(Icmpv6Type);
    message_type == Some(Icmpv6Type::NEIGHBOR_ADVERTISEMENT)
}

fn is_discovery(message_type: &u8) -> bool {
    (Icmpv6Type::ROUTER_SOLICITATION.0..=Icmpv6Type::REDIRECT.0).contains(message_type)
}

/// Who sent an IP packet.
fn source(frame: &[u8]) -> Option<IpAddr> {
    let ip = frame.get(ETHERNET..)?;
    match ip.first()? >> 4 {
        4 => Some(Ipv4Addr::from(Ipv4Header::ref_from_prefix(ip).ok()?.0.source).into()),
        _ => Some(Ipv6Addr::from(Ipv6Header::ref_from_prefix(ip).ok()?.0.source).into()),
    }
}

fn is_udp(frame: &[u8]) -> bool {
    let Some(ip) = ip_packet(frame) else { return false };
    match ip.first().map(|first| first >> 4) {
        Some(4) => Ipv4Header::ref_from_prefix(ip).is_ok_and(|(header, _)| header.protocol == IpProtocol::UDP),
        _ => {
            let upper = Ipv6Header::ref_from_prefix(ip).ok();
            let upper = upper.and_then(|(header, rest)| crate::headers::upper_layer(header.next_header, rest));
            upper.is_some_and(|(protocol, _)| protocol == IpProtocol::UDP)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, 16 bits at a time.
    fn sums_up(header: &[u8; 20]) -> bool {
        let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    }

    fn with_checksum(mut header: [u8; 20]) -> [u8; 20] {
        let right = (0..=u16::MAX).find(|checksum| {
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            sums_up(&header)
        });
        header[10..12].copy_from_slice(&right.unwrap().to_be_bytes());
        header
    }

    #[test]
    fn the_short_way_leaves_a_right_checksum_to_the_long_one_only_where_its_sum_needs_a_carry() {
        let plain = [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
        let from = |source: [u8; 4]| {
            let mut header = plain;
            header[12..16].copy_from_slice(&source);
            with_checksum(header)
        };
        for (source, expected) in [([192, 0, 2, 1], true), ([10, 0, 190, 255], true), ([10, 0, 255, 255], false)] {
            assert!(sums_up(&from(source)));
            assert_eq!(is_sound(&from(source)), expected, "{source:?}");
        }
    }

    proptest! {
        #[test]
        fn no_wrong_checksum_takes_the_short_way(
            header in any::<[u8; 20]>(),
            difference in 1..u16::MAX,
            ends in prop::sample::select(vec![0, 0x7f, 0xfe, 0xff]),
        ) {
            let mut header = header;
            (header[0], header[7], header[15]) = (0x45, ends, ends);
            let header = with_checksum(header);
            let mut wrong = header;
            let checksum = u16::from_be_bytes([header[10], header[11]]).wrapping_add(difference);
            wrong[10..12].copy_from_slice(&checksum.to_be_bytes());
            prop_assert!(!is_sound(&wrong) || sums_up(&wrong));
            let wide = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
            if wide(0).checked_add(wide(8)).is_some_and(|sum| sum < u64::MAX >> 1) {
                prop_assert!(is_sound(&header));
            }
        }
    }
}
