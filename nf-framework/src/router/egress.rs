//! The second half: what the functions let pass is addressed to its next hop and sent.

use super::interfaces::{Interface, source};
use super::tables::Tables;
use super::target::{Target, Way};
use super::{ETHERNET, FoundAll, Hop, Out, Router, complain, ingress, send, tag};
use crate::annotation::Annotation;
use crate::batch::{Batch, Slots};
use crate::context::Context;
use crate::direction::Direction;
use crate::fragments::{SplitError, split_ipv4};
use crate::headers::{EtherType, EthernetHeader, Ipv4Header, Ipv6Header, MacAddress};
use crate::icmp::{self, IcmpError, ip_packet};
use crate::next_hop::NextHop;
use crate::steering::Entrance;
use crate::token_bucket::TokenBucket;
use crate::verdict::{DropReason, PortIx, Verdict};
use dpdk_rs::{Mbuf, PortId};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use zerocopy::FromBytes as _;

/// What becomes of a packet at the end.
enum Departure {
    /// It is ready to leave by this port.
    By(PortIx),
    Refused(DropReason),
    /// Back through the chain.
    Turned,
    /// Its neighbour is still to be found: the next hop's address on its interface.
    Unresolved(u16, IpAddr),
    /// For what this interface takes; it is addressed.
    TooLong(u16),
}

impl Router {
    pub(super) fn leave(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let generation = self.neighbours.generation();
        if generation != self.hops_of {
            self.hops.fill(Hop::UNKNOWN);
            self.hops_of = generation;
        }
        let (exit, direction) = (cx.exit(), cx.direction());
        for slot in address_usual(batch, &self.found, &self.hops, direction) {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            match self.address(slot, packet, cx) {
                // Decided below, together.
                Departure::By(port) if port == exit => {}
                Departure::By(port) => batch.decide(slot, Verdict::Send(port)),
                Departure::Refused(reason) => batch.decide(slot, Verdict::Drop(reason)),
                Departure::Turned => batch.decide(slot, Verdict::Turn),
                Departure::Unresolved(interface, address) => self.resolve(slot, interface, address, batch, cx),
                Departure::TooLong(interface) => self.too_long(slot, interface, batch, cx),
            }
        }
        batch.decide_all(Verdict::Send(exit));
    }

    /// Finds a packet's next hop and writes the Ethernet header.
    fn address(&mut self, slot: usize, packet: &mut Mbuf, cx: &mut Context<'_>) -> Departure {
        let Some(destination) = destination(packet.data()) else {
            return Departure::Refused(DropReason::NOT_IP);
        };
        let known = Annotation::of(packet);
        if let Some(chosen) = known.next_hop {
            return self.address_to(packet, chosen, cx);
        }
        let target = self.found.of(slot, packet.data()).unwrap_or_else(|| self.tables.find(destination));
        if known.unsigned && !self.sign(packet, target) {
            return Departure::Refused(DropReason::NO_ROUTE);
        }
        let (interface, next_hop) = match target.way() {
            Way::Via(index) => {
                if let Some(hop) = self.hops.get(usize::from(index)).filter(|hop| **hop != Hop::UNKNOWN) {
                    return self.write(packet, *hop, cx);
                }
                let Some(next_hop) = self.tables.next_hops.get(usize::from(index)) else {
                    return Departure::Refused(DropReason::NO_ROUTE);
                };
                (next_hop.interface, next_hop.address)
            }
            Way::Connected(interface) => (interface, destination),
            Way::None => return self.refused(packet, IcmpError::NoRoute, DropReason::NO_ROUTE, cx),
            Way::Prohibited => return self.refused(packet, IcmpError::Prohibited, DropReason::PROHIBITED, cx),
            Way::Blackhole => return Departure::Refused(DropReason::BLACKHOLE),
            // What a function says to a function's address, perhaps its own: it comes from outside there, as in
            // an error about a packet that turned.
            Way::Function if was_made(packet) && !cx.turned() => return Departure::Turned,
            // No function has taken it.
            Way::Own | Way::Function => {
                let host = self.host_of(self.came_in_by(packet, cx.direction()));
                return host.map_or(Departure::Refused(DropReason::NO_LISTENER), Departure::By);
            }
            Way::Martian => return Departure::Refused(DropReason::MARTIAN),
            Way::Multicast => return Departure::Refused(DropReason::MULTICAST),
            Way::Broadcast => return Departure::Refused(DropReason::BROADCAST),
            Way::LinkLocal => return Departure::Refused(DropReason::LINK_LOCAL),
        };
        let hop = match self.hop_to(interface, next_hop, packet, cx) {
            Ok(hop) => hop,
            Err(departure) => return departure,
        };
        if let Way::Via(index) = target.way()
            && let Some(known) = self.hops.get_mut(usize::from(index))
        {
            *known = hop;
        }
        self.write(packet, hop, cx)
    }

    /// Writes the address of the interface that a packet leaves by as its source.
    #[cold]
    fn sign(&self, packet: &mut Mbuf, target: Target) -> bool {
        let interface = match target.way() {
            Way::Connected(interface) => Some(interface),
            Way::Via(index) => self.tables.next_hops.get(usize::from(index)).map(|hop| hop.interface),
            _ => None,
        };
        let interface = interface.and_then(|index| self.tables.interface(index));
        let is_ipv4 = destination(packet.data()).is_some_and(|to| to.is_ipv4());
        let source = interface.and_then(|interface| source(interface, is_ipv4));
        packet.set_annotation(None);
        source.is_some_and(|source| icmp::sign(packet.data_mut(), source))
    }

    /// To the next hop that a function has chosen, on the interface that it is a neighbour on.
    #[inline]
    fn address_to(&mut self, packet: &mut Mbuf, chosen: NextHop, cx: &mut Context<'_>) -> Departure {
        let Some(address) = self.chosen.address(chosen) else { return Departure::Refused(DropReason::NO_ROUTE) };
        let Way::Connected(interface) = self.tables.find(address).way() else {
            return Departure::Refused(DropReason::NO_ROUTE);
        };
        let hop = match self.hop_to(interface, address, packet, cx) {
            Ok(hop) => hop,
            Err(departure) => return departure,
        };
        if Annotation::of(packet).unsigned && !self.sign(packet, self.tables.find(address)) {
            return Departure::Refused(DropReason::NO_ROUTE);
        }
        self.write(packet, hop, cx)
    }

    /// The hop to this neighbour if its MAC address is known; else what becomes of the packet.
    fn hop_to(
        &mut self,
        interface: u16,
        address: IpAddr,
        packet: &mut Mbuf,
        cx: &mut Context<'_>,
    ) -> Result<Hop, Departure> {
        let mac = self.neighbours.find(interface, address);
        if let Some(hop) = mac.and_then(|mac| self.hop(interface, mac)) {
            return Ok(hop);
        }
        let enters = self.tables.interface(interface).map(|interface| interface.enters);
        let enters = enters.ok_or(Departure::Refused(DropReason::NO_SUCH_PORT))?;
        // What waits is ready to leave.
        Err(self.held_back(packet, enters, cx).unwrap_or(Departure::Unresolved(interface, address)))
    }

    fn hop(&self, interface: u16, mac: MacAddress) -> Option<Hop> {
        let own = self.tables.interface(interface)?;
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&mac.octets());
        addresses[6..].copy_from_slice(&own.mac.octets());
        let longest = u16::try_from(ETHERNET + usize::from(own.mtu)).unwrap_or(u16::MAX);
        Some(Hop { addresses, interface, longest_untagged: if own.vlan.is_none() { longest } else { 0 } })
    }

    #[inline]
    fn write(&mut self, packet: &mut Mbuf, hop: Hop, cx: &mut Context<'_>) -> Departure {
        let Some(enters) = self.tables.interface(hop.interface).map(|interface| interface.enters) else {
            return Departure::Refused(DropReason::NO_SUCH_PORT);
        };
        if let Some(departure) = self.held_back(packet, enters, cx) {
            return departure;
        }
        // Done with: net_ring hands buffers round as they are.
        packet.set_annotation(None);
        let Some(interface) = self.tables.interface(hop.interface) else {
            return Departure::Refused(DropReason::NO_SUCH_PORT);
        };
        if let Some(addresses) = packet.data_mut().first_chunk_mut() {
            *addresses = hop.addresses;
        }
        if is_too_long(packet, interface) {
            return Departure::TooLong(hop.interface);
        }
        if !tag(packet, interface) {
            return Departure::Refused(DropReason::NO_HEADROOM);
        }
        Departure::By(interface.port)
    }

    /// Why a packet may not leave by an interface of this side, whether its neighbour is known or not.
    #[inline]
    fn held_back(&mut self, packet: &mut Mbuf, enters: Direction, cx: &mut Context<'_>) -> Option<Departure> {
        if enters == cx.direction() && self.functions > 0 {
            let turns = Annotation::of(packet).may_turn && !cx.turned();
            return Some(if turns { Departure::Turned } else { Departure::Refused(DropReason::SAME_SIDE) });
        }
        // What was for a function, and now is for somebody else, has not been counted down yet.
        if !packet.is_marked() && !ingress::count_down(packet) {
            return Some(self.refused(packet, IcmpError::TimeExceeded, DropReason::TTL_EXPIRED, cx));
        }
        None
    }

    #[cold]
    fn refused(&mut self, packet: &Mbuf, error: IcmpError, reason: DropReason, cx: &mut Context<'_>) -> Departure {
        complain(&self.tables, &mut self.errors, error, packet, cx);
        Departure::Refused(reason)
    }

    /// Lets a packet wait until its neighbour is known, at the owner of the neighbours.
    #[cold]
    fn resolve(&mut self, slot: usize, interface: u16, address: IpAddr, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(packet) = batch.take(slot) else { return };
        match &mut self.owner {
            Some(owner) => {
                let now = cx.now();
                let out = &mut Out { tables: &self.tables, errors: &mut self.errors, functions: self.functions, cx };
                owner.resolve(interface, address, packet, now, out);
                cx.counters.held_around.store(owner.held() as u64, Ordering::Relaxed);
            }
            None => self.stage(packet, Entrance::leaving(cx.direction()), cx),
        }
    }

    #[cold]
    fn too_long(&mut self, slot: usize, interface: u16, batch: &mut Batch, cx: &mut Context<'_>) {
        if let Some(packet) = batch.take(slot) {
            shorten(&self.tables, &mut self.errors, interface, packet, cx);
        }
    }
}

/// Does for undecided packets what nearly every one needs: its next hop is known, and it leaves by the exit, as it
/// is but for its addresses. Those that need more are returned: [`Router::address`] knows what else there is.
// Never: in a function of its own, the loop has all registers.
#[inline(never)]
fn address_usual(batch: &mut Batch, found: &FoundAll, hops: &[Hop], direction: Direction) -> Slots {
    let mut others = Slots::default();
    for (slot, packet) in batch.undecided_packets() {
        let via = found.of(slot, packet.data()).and_then(|target| target.via_towards(direction));
        let hop = via.and_then(|index| hops.get(index));
        if let Some(hop) = hop
            && packet.is_marked()
            && !packet.is_annotated()
            && packet.len() <= usize::from(hop.longest_untagged)
            && let Some(addresses) = packet.data_mut().first_chunk_mut()
        {
            *addresses = hop.addresses;
        } else {
            others.insert(slot);
        }
    }
    others
}

/// Whether a packet came in by no port, for which DPDK sets all bits.
fn was_made(packet: &Mbuf) -> bool {
    packet.port() == PortId(u16::MAX)
}

/// Whether a packet without a tag is longer than this interface takes.
#[inline]
pub(super) fn is_too_long(packet: &Mbuf, interface: &Interface) -> bool {
    let mtu = usize::from(interface.mtu);
    packet.len() > ETHERNET + mtu && ip_packet(packet.data()).is_none_or(|ip| ip.len() > mtu)
}

/// A packet that is longer than its next link takes leaves in fragments (RFC 791 section 3.2), or
/// its sender is told: RFC 1812 section 5.2.6, RFC 8200 section 5. It is addressed, and the error goes
/// back from the end of the chain that the context is at.
#[cold]
pub(super) fn shorten(tables: &Tables, errors: &mut TokenBucket, interface: u16, packet: Mbuf, cx: &mut Context<'_>) {
    let mtu = tables.interface(interface).map_or(0, |interface| interface.mtu);
    let here = RefCell::new(&mut *cx);
    let allocate = || here.borrow_mut().allocate();
    let leave = |fragment| send(tables, interface, fragment, &mut here.borrow_mut());
    match split_ipv4(&packet, mtu.into(), allocate, leave) {
        Ok(_) => cx.consume(packet),
        Err(SplitError::NoPacket) => cx.drop_held(packet, DropReason::NO_BUFFERS),
        Err(_) => {
            complain(tables, errors, IcmpError::TooBig(mtu), &packet, cx);
            cx.drop_held(packet, DropReason::TOO_BIG);
        }
    }
}

/// Where an IP packet in a frame without tags goes.
#[inline]
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let (ethernet, ip) = EthernetHeader::ref_from_prefix(frame).ok()?;
    match ethernet.ether_type {
        EtherType::IPV4 => Some(Ipv4Addr::from(Ipv4Header::ref_from_prefix(ip).ok()?.0.destination).into()),
        EtherType::IPV6 => Some(Ipv6Addr::from(Ipv6Header::ref_from_prefix(ip).ok()?.0.destination).into()),
        _ => None,
    }
}
