//! The first half: is it for us, is it sound, has it hops left, and where does it go?

use super::icmp::{self, IcmpError};
use super::tables::{Target, Way};
use super::{ETHERNET, Found, Out, Router, complain, tag, vlan};
use crate::batch::Batch;
use crate::context::{Context, Direction, Position};
use crate::headers::{EtherType, EthernetHeader, Icmpv6Type, IpProtocol, Ipv4Header, Ipv6Header, MacAddress, checksum};
use crate::steering::Entrance;
use crate::verdict::{DropReason, PortIx, Verdict};
use dpdk_rs::{Burst, Mbuf};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use zerocopy::FromBytes as _;

/// What a look at a frame says.
enum Arrival {
    /// An IP packet, of IPv4 with its destination.
    V4(u32),
    /// The same, but to a group of stations on the link.
    ToStations(u32),
    V6,
    /// ARP, or a message of Neighbor Discovery to a group, which came in by this interface.
    Neighbours(u16),
    Refused(DropReason),
    /// For more hosts than one, or no IP: forwarded to nobody, but for this host too.
    Group(DropReason),
}

/// Packets of a batch with their destinations, to be looked up together.
struct Wanted<A> {
    slots: [u8; Burst::CAPACITY],
    destinations: [A; Burst::CAPACITY],
    targets: [u32; Burst::CAPACITY],
    count: usize,
}

impl<A: Copy + Default> Wanted<A> {
    #[inline]
    fn new() -> Self {
        let (slots, destinations) = ([0; Burst::CAPACITY], [A::default(); Burst::CAPACITY]);
        Self { slots, destinations, targets: [0; Burst::CAPACITY], count: 0 }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "a batch has 64 slots")]
    fn push(&mut self, slot: usize, destination: A) {
        if let (Some(of_slot), Some(wanted)) = (self.slots.get_mut(self.count), self.destinations.get_mut(self.count)) {
            (*of_slot, *wanted) = (slot as u8, destination);
            self.count += 1;
        }
    }
}

impl Router {
    pub(super) fn arrive(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        batch.prefetch();
        let direction = cx.direction();
        let offloads = self.tables.offloads(direction);
        // Without VLANs a whole batch has come in by one interface.
        let untagged = if self.tables.tagged { None } else { self.tables.entrance(direction, None) };
        let mac = untagged.and_then(|index| self.tables.interface(index)).map(|interface| interface.mac);
        let mut v4 = Wanted::<u32>::new();
        let mut with_v6 = 0_u64;
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let good_checksum = || offloads.has_good_checksum(packet);
            if let Some(destination) = mac.and_then(|mac| usual_v4(packet.data(), mac, good_checksum)) {
                v4.push(slot, destination);
                continue;
            }
            if mac.is_some_and(|mac| is_usual_v6(packet.data(), mac)) {
                with_v6 |= 1 << slot;
                continue;
            }
            match self.look(packet, direction) {
                Arrival::V4(destination) => v4.push(slot, destination),
                Arrival::ToStations(destination) => self.judge_group(slot, destination, batch, cx),
                Arrival::V6 => with_v6 |= 1 << slot,
                Arrival::Refused(reason) => batch.decide(slot, Verdict::Drop(reason)),
                Arrival::Group(reason) => self.give_to_host(slot, reason, batch, cx),
                Arrival::Neighbours(interface) => self.give_to_neighbours(slot, interface, batch, cx),
            }
        }
        self.tables.look_up_v4(&v4.destinations[..v4.count], &mut v4.targets[..v4.count]);
        for ((slot, destination), target) in v4.slots.iter().zip(&v4.destinations).zip(&v4.targets).take(v4.count) {
            let (slot, target) = (usize::from(*slot), Target::from(*target));
            let goes_on = target.leads(direction) && batch.packet_mut(slot).is_some_and(count_down_v4);
            if goes_on || self.judge(slot, target, batch, cx) {
                self.found.v4[slot % Burst::CAPACITY] = Found { destination: *destination, target };
            }
        }
        if with_v6 != 0 {
            self.arrive_v6(with_v6, batch, cx);
        }
    }

    /// The same for packets of IPv6, in these slots, that were looked at.
    #[inline(never)]
    fn arrive_v6(&mut self, slots: u64, batch: &mut Batch, cx: &mut Context<'_>) {
        let direction = cx.direction();
        let mut v6 = Wanted::<[u8; 16]>::new();
        for slot in batch.undecided().filter(|slot| slots & 1 << slot != 0) {
            let header = batch.packet(slot).and_then(|packet| packet.data().get(ETHERNET..));
            if let Some(Ok((header, _))) = header.map(Ipv6Header::ref_from_prefix) {
                v6.push(slot, header.destination);
            }
        }
        self.tables.look_up_v6(&v6.destinations[..v6.count], &mut v6.targets[..v6.count]);
        for ((slot, destination), target) in v6.slots.iter().zip(&v6.destinations).zip(&v6.targets).take(v6.count) {
            let (slot, target) = (usize::from(*slot), Target::from(*target));
            let goes_on = |packet: &mut Mbuf| !is_from_link_local(packet.data()) && count_down_v6(packet);
            let goes_on = target.leads(direction) && batch.packet_mut(slot).is_some_and(goes_on);
            if goes_on || self.judge(slot, target, batch, cx) {
                self.found.v6[slot % Burst::CAPACITY] = Found { destination: *destination, target };
            }
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

    /// What becomes of a packet by its destination: whether it goes on.
    fn judge(&mut self, slot: usize, target: Target, batch: &mut Batch, cx: &mut Context<'_>) -> bool {
        let Some(packet) = batch.packet_mut(slot) else { return false };
        packet.set_marked(false);
        let refused = match target.way() {
            Way::Connected(interface) => self.forward(packet, interface, cx),
            Way::Via(hop) => {
                let interface = self.tables.next_hops.get(usize::from(hop)).map_or(u16::MAX, |hop| hop.interface);
                self.forward(packet, interface, cx)
            }
            Way::Function if discovery(packet.data()) == Some(true) => {
                self.for_us(slot, batch, cx);
                return false;
            }
            // Its hops count when it turns out to go on.
            Way::Function => None,
            Way::Own => {
                self.for_us(slot, batch, cx);
                return false;
            }
            Way::None if self.is_unnumbered(packet, cx.direction()) => {
                self.give_to_host(slot, DropReason::NO_ROUTE, batch, cx);
                return false;
            }
            Way::None => self.refuse(packet, IcmpError::NoRoute, DropReason::NO_ROUTE, cx),
            Way::Prohibited => self.refuse(packet, IcmpError::Prohibited, DropReason::PROHIBITED, cx),
            Way::Blackhole => Some(DropReason::BLACKHOLE),
            Way::Martian => Some(DropReason::MARTIAN),
            Way::Multicast => {
                self.give_to_host(slot, DropReason::MULTICAST, batch, cx);
                return false;
            }
            Way::Broadcast => {
                self.give_to_host(slot, DropReason::BROADCAST, batch, cx);
                return false;
            }
            Way::LinkLocal => Some(DropReason::LINK_LOCAL),
        };
        if let Some(reason) = refused {
            batch.decide(slot, Verdict::Drop(reason));
        }
        refused.is_none()
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
        let ip = super::ip_packet(packet.data()).unwrap_or_default();
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
    fn judge_group(&mut self, slot: usize, destination: u32, batch: &mut Batch, cx: &mut Context<'_>) {
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
    let destination = u32::from_be_bytes(header.destination);
    if to_us { Arrival::V4(destination) } else { Arrival::ToStations(destination) }
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
    Arrival::V6
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

/// The destination of what nearly every packet is: for this station, of IPv4 and sound, without
/// options, from a host. [`look_v4`] knows what else there is.
#[inline]
fn usual_v4(frame: &[u8], station: MacAddress, good_checksum: impl Fn() -> bool) -> Option<u32> {
    const END: usize = ETHERNET + Ipv4Header::LENGTH;
    let head = frame.first_chunk::<END>()?;
    let (ethernet, header) = EthernetHeader::ref_from_prefix(head).ok()?;
    let (header, _) = Ipv4Header::ref_from_prefix(header).ok()?;
    let length = usize::from(header.total_length.get());
    let (words, _) = head[ETHERNET..].as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let usual = ethernet.destination == station
        && head[ETHERNET - 2..=ETHERNET] == [0x08, 0x00, 0x45]
        && length.wrapping_sub(Ipv4Header::LENGTH) <= frame.len() - END
        // As a sum with the carries brought round (RFC 1071), which is nothing else than modulo 2^16 - 1.
        && (good_checksum() || sum.is_multiple_of(0xffff))
        && !header.is_fragment()
        && !header.source.starts_with(&LINK_LOCAL_V4)
        && ethernet.source.octets()[0] & 1 == 0
        && !matches!(header.source[0], 0 | 127 | 224..);
    usual.then(|| u32::from_be_bytes(header.destination))
}

/// Whether a packet is what nearly every one of IPv6 is. [`look_v6`] knows what else there is.
#[inline]
fn is_usual_v6(frame: &[u8], station: MacAddress) -> bool {
    let Ok((ethernet, ip)) = EthernetHeader::ref_from_prefix(frame) else { return false };
    let Ok((header, rest)) = Ipv6Header::ref_from_prefix(ip) else { return false };
    // Neither unspecified nor loopback nor a group.
    let from = u128::from_be_bytes(header.source);
    let source = from > 1 && from >> 32 != 0xffff && header.source[0] != 0xff && ethernet.source.octets()[0] & 1 == 0;
    ethernet.destination == station
        && ethernet.ether_type == EtherType::IPV6
        && header.version() == 6
        && usize::from(header.payload_length.get()) <= rest.len()
        && header.destination[0] != 0xff
        && source
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
    // RFC 1624: what is summed is smaller by 0x0100, so its complement is larger.
    let sum = u32::from(header.header_checksum.get()) + 0x0100;
    #[allow(clippy::cast_possible_truncation, reason = "the carry has been added")]
    header.header_checksum.set((sum + u32::from(sum >= 0xffff)) as u16);
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
    let Some(ip) = super::ip_packet(frame) else { return false };
    match ip.first().map(|first| first >> 4) {
        Some(4) => Ipv4Header::ref_from_prefix(ip).is_ok_and(|(header, _)| header.protocol == IpProtocol::UDP),
        _ => {
            let upper = Ipv6Header::ref_from_prefix(ip).ok();
            let upper = upper.and_then(|(header, rest)| crate::headers::upper_layer(header.next_header, rest));
            upper.is_some_and(|(protocol, _)| protocol == IpProtocol::UDP)
        }
    }
}
