//! A router around the chain: what comes in is checked and finds its way before the functions see
//! it, and what they let pass is addressed to its next hop behind them.
//!
//! It owns what every router does (RFC 1812, RFC 8200): own addresses, routes, hops, ICMP errors.
//! It must not know flows. Nothing that it says depends on what it said before, but for the
//! neighbours, which one worker owns.

mod config;
mod egress;
mod ingress;
mod interfaces;
mod offloads;
mod tables;
mod target;
mod traced;
mod trie;
mod vlans;
mod ways;

pub use config::{InterfaceAddress, InterfaceConfig, Refuse, RouteConfig, RouterConfig, Side};
pub(crate) use interfaces::{Interface, PortFacts, with_host};
pub(crate) use offloads::PortOffloads;
pub use tables::RouterError;
pub(crate) use tables::Tables;

use crate::context::Context;
use crate::forwarding::Forwarding;
use crate::function::Budget;
use crate::headers::{EtherType, EthernetHeader, Ipv4Header, Ipv6Header, MacAddress};
use crate::icmp::{self, IcmpError, ip_packet};
use crate::neighbours::{NeighbourTable, Neighbours, Outlet};
use crate::next_hop::NextHops;
use crate::position::Position;
use crate::steering::{Entrance, hand_over};
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::trace::{Note, TracedPacket};
use crate::verdict::{DropReason, PortIx, Verdict};
use crate::{Batch, Direction};
use dpdk_rs::{Burst, Mbuf, Producer};
use interfaces::{MOST_INTERFACES, any_source, source};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use target::Target;
use zerocopy::FromBytes as _;

/// One worker's router.
pub(crate) struct Router {
    tables: Arc<Tables>,
    neighbours: Arc<NeighbourTable>,
    /// On one worker.
    owner: Option<Box<Neighbours>>,
    /// On the others: the way to that one.
    to_owner: Option<Producer>,
    /// On its way there; empty between two halves.
    staged: Burst,
    /// How many there are between its halves. Without any a packet may go back to the side that it
    /// came from.
    functions: usize,
    /// By slot, what the first half has found for the second. It stays true until there are other
    /// tables, whatever packet is in the slot.
    found: FoundAll,
    /// By next hop.
    hops: Vec<Hop>,
    /// Those that functions choose.
    chosen: NextHops,
    /// The generation of the neighbours that `hops` is of.
    hops_of: u64,
    /// Whether the owner of the neighbours knows the interfaces.
    linked: bool,
    errors: TokenBucket,
}

/// By slot: where packets to a destination go.
struct Found<const N: usize> {
    destinations: [[u8; N]; Burst::CAPACITY],
    /// Each a [`Target`].
    targets: [u32; Burst::CAPACITY],
}

impl<const N: usize> Found<N> {
    fn new(target_of_zero: Target) -> Self {
        Self { destinations: [[0; N]; Burst::CAPACITY], targets: [target_of_zero.into(); Burst::CAPACITY] }
    }

    #[inline]
    fn target(&self, slot: usize) -> Target {
        self.targets[slot % Burst::CAPACITY].into()
    }

    /// The same, if that is the destination.
    #[inline]
    fn of(&self, slot: usize, destination: [u8; N]) -> Option<Target> {
        (destination == self.destinations[slot % Burst::CAPACITY]).then(|| self.target(slot))
    }
}

/// Of both families.
struct FoundAll {
    v4: Found<4>,
    v6: Found<16>,
}

impl FoundAll {
    fn new(tables: &Tables) -> Self {
        let of = |address: IpAddr| tables.find(address);
        Self { v4: Found::new(of(Ipv4Addr::UNSPECIFIED.into())), v6: Found::new(of(Ipv6Addr::UNSPECIFIED.into())) }
    }

    /// Where a frame without tags goes, if it has the destination still.
    #[inline]
    fn of(&self, slot: usize, frame: &[u8]) -> Option<Target> {
        let head = frame.first_chunk::<{ ETHERNET + Ipv4Header::LENGTH }>()?;
        let (ethernet, ip) = EthernetHeader::ref_from_prefix(head).ok()?;
        if ethernet.ether_type == EtherType::IPV4 {
            self.v4.of(slot, Ipv4Header::ref_from_prefix(ip).ok()?.0.destination)
        } else if ethernet.ether_type == EtherType::IPV6 {
            self.v6.of(slot, Ipv6Header::ref_from_prefix(frame.get(ETHERNET..)?).ok()?.0.destination)
        } else {
            None
        }
    }
}

/// A next hop.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hop {
    /// Its address, and ours, as they stand in a frame.
    addresses: [u8; 12],
    interface: u16,
    /// Octets in the longest frame that leaves there as it is. None does where frames get a tag, or
    /// while the MAC address is not known.
    longest_untagged: u16,
}

impl Hop {
    const UNKNOWN: Self = Self { addresses: [0; 12], interface: u16::MAX, longest_untagged: 0 };
}

impl Router {
    pub(crate) fn new(
        tables: Arc<Tables>,
        neighbours: Arc<NeighbourTable>,
        owner: Option<Neighbours>,
        to_owner: Option<Producer>,
        chosen: NextHops,
        functions: usize,
        errors_per_second: u32,
    ) -> Self {
        let found = FoundAll::new(&tables);
        let hops = vec![Hop::UNKNOWN; tables.next_hops.len()];
        Self {
            hops_of: neighbours.generation(),
            tables,
            neighbours,
            owner: owner.map(Box::new),
            to_owner,
            staged: Burst::new(),
            functions,
            found,
            hops,
            chosen,
            linked: false,
            errors: TokenBucket::of_errors(errors_per_second),
        }
    }

    /// The interface that a packet came in by.
    fn came_in_by(&self, packet: &Mbuf, direction: Direction) -> Option<u16> {
        self.tables.entrance(direction, vlan(packet, &self.tables))
    }

    /// Works by other tables from here on, between two batches.
    pub(crate) fn adopt(&mut self, tables: &Arc<Tables>) {
        self.tables = Arc::clone(tables);
        self.found = FoundAll::new(tables);
        self.hops.clear();
        self.hops.resize(tables.next_hops.len(), Hop::UNKNOWN);
        self.linked = false;
    }

    /// Announces all addresses again, to neighbours that may think them elsewhere.
    pub(crate) fn announce(&mut self, now: Instant) {
        if let Some(owner) = &mut self.owner {
            owner.announce_all(now);
        }
    }

    /// Gives a packet to the worker that owns the neighbours, to go on there at this place.
    fn stage(&mut self, mut packet: Mbuf, entrance: Entrance, cx: &mut Context<'_>) {
        entrance.write(&mut packet);
        if let Err(packet) = self.staged.push(packet) {
            cx.drop_held(packet, DropReason::HAND_OVER_FULL);
        }
    }

    fn flush(&mut self, cx: &Context<'_>) {
        if let (Some(ring), false) = (&mut self.to_owner, self.staged.is_empty()) {
            hand_over(ring, &mut self.staged, cx.counters);
        }
    }
}

impl Forwarding for Router {
    fn separate(&mut self, batch: &mut Batch, direction: Direction, inbound: &mut Batch) {
        vlans::separate(&self.tables, batch, direction, inbound);
    }

    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.arrive(batch, cx);
        self.flush(cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.leave(batch, cx);
        self.flush(cx);
    }

    fn trace_note(&mut self, first: bool, packet: &mut TracedPacket<'_>, _: &Context<'_>, note: &mut Note) {
        traced::note(&self.tables, &self.chosen, first, packet, note);
    }

    fn host_sent(&mut self, batch: &mut Batch, port: PortIx) {
        let Some(interface) = self.tables.interfaces.iter().find(|interface| interface.host == Some(port)) else {
            return;
        };
        if interface.vlan.is_some() {
            for slot in batch.undecided() {
                if batch.packet_mut(slot).is_some_and(|packet| !tag(packet, interface)) {
                    batch.decide(slot, Verdict::Drop(DropReason::NO_HEADROOM));
                }
            }
        }
        batch.decide_all(Verdict::Send(interface.port));
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        let Some(owner) = &mut self.owner else { return };
        let now = cx.now();
        let mut out = Out { tables: &self.tables, errors: &mut self.errors, functions: self.functions, cx };
        if !std::mem::replace(&mut self.linked, true) {
            for index in 0..MOST_INTERFACES {
                let link = self.tables.link(index);
                if link.is_none() && !owner.has_link(index) {
                    break;
                }
                owner.set_link(index, link, now, &mut out);
            }
        }
        owner.tick(now, budget.0 as usize, &mut out);
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        if let Some(owner) = &mut self.owner {
            owner.stop(&mut Out { tables: &self.tables, errors: &mut self.errors, functions: self.functions, cx });
        }
    }

    fn held(&self) -> usize {
        self.owner.as_ref().map_or(0, |owner| owner.held())
    }
}

/// Tells the sender of a packet why it was not delivered, if it may be told and not too many were.
/// The error goes back from the end of the chain that the context is at.
fn complain(tables: &Tables, errors: &mut TokenBucket, error: IcmpError, about: &Mbuf, cx: &mut Context<'_>) {
    let Some(ip) = ip_packet(about.data()) else { return };
    let Some(to) = icmp::sender_told(ip).filter(|to| tables.is_other_host(*to)) else { return };
    let came_in = tables.entrance(cx.direction(), vlan(about, tables)).and_then(|index| tables.interface(index));
    let from = came_in
        .and_then(|interface| source(interface, to.is_ipv4()))
        .or_else(|| any_source(&tables.interfaces, to.is_ipv4()));
    let Some(from) = from.filter(|_| errors.take(cx.now())) else { return };
    let Some(mut packet) = cx.allocate() else { return };
    if icmp::write_error(&mut packet, error, (from, to), ip, about.is_marked()) {
        cx.emit(packet, cx.direction().reversed());
    } else {
        cx.drop_held(packet, DropReason::EMPTY);
    }
}

/// The VLAN whose tag was taken off a packet.
#[inline]
fn vlan(packet: &Mbuf, tables: &Tables) -> Option<u16> {
    const IDENTIFIER: u16 = 0x0fff;
    if !tables.tagged {
        return None;
    }
    // Where there are VLANs, a tag of number 0 is about priority alone: IEEE 802.1Q section 6.9.
    packet.stripped_vlan().map(|tag| tag & IDENTIFIER).filter(|vlan| *vlan != 0 || !tables.has_vlans)
}

const ETHERNET: usize = EthernetHeader::LENGTH;

/// Adds the interface's tag and sends a frame, past everything else.
fn send(tables: &Tables, interface: u16, mut frame: Mbuf, cx: &mut Context<'_>) {
    let Some(interface) = tables.interface(interface) else { return cx.drop_held(frame, DropReason::NO_SUCH_PORT) };
    if tag(&mut frame, interface) {
        cx.pending.push(frame, Position::out_by(interface.port), cx.counters);
    } else {
        cx.drop_held(frame, DropReason::NO_HEADROOM);
    }
}

/// Puts the interface's tag on, or has the device do it when the frame is sent. False if there is no room for it.
#[inline]
fn tag(frame: &mut Mbuf, interface: &Interface) -> bool {
    interface.vlan.is_none_or(|vlan| frame.insert_vlan(vlan, interface.inserts_vlans))
}

/// What the owner of the neighbours does with packets.
struct Out<'a, 'w> {
    tables: &'a Tables,
    errors: &'a mut TokenBucket,
    functions: usize,
    cx: &'a mut Context<'w>,
}

impl Outlet for Out<'_, '_> {
    fn allocate(&mut self) -> Option<Mbuf> {
        self.cx.allocate()
    }

    fn send(&mut self, interface: u16, frame: Mbuf) {
        send(self.tables, interface, frame, self.cx);
    }

    fn forward(&mut self, interface: u16, mac: MacAddress, mut packet: Mbuf) {
        let Some(by) = self.tables.interface(interface) else {
            return self.cx.drop_held(packet, DropReason::NO_SUCH_PORT);
        };
        if let Some([destination, source]) = packet.data_mut().as_chunks_mut().0.first_chunk_mut() {
            (*destination, *source) = (mac.octets(), by.mac.octets());
        }
        if egress::is_too_long(&packet, by) {
            let here = std::mem::replace(&mut self.cx.position, Position::exit(by.enters.reversed(), self.functions));
            egress::shorten(self.tables, self.errors, interface, packet, self.cx);
            self.cx.position = here;
            return;
        }
        send(self.tables, interface, packet, self.cx);
    }

    fn unreachable(&mut self, interface: u16, packet: Mbuf) {
        let direction = self.tables.interface(interface).map(|interface| interface.enters.reversed());
        if let Some(direction) = direction {
            // Back from the end where it was about to leave.
            let here = std::mem::replace(&mut self.cx.position, Position::exit(direction, self.functions));
            complain(self.tables, self.errors, IcmpError::HostUnreachable, &packet, self.cx);
            self.cx.position = here;
        }
        self.cx.drop_held(packet, DropReason::NEIGHBOUR_UNREACHABLE);
    }

    fn consume(&mut self, packet: Mbuf) {
        self.cx.consume(packet);
    }

    fn drop(&mut self, packet: Mbuf, reason: DropReason) {
        self.cx.drop_held(packet, reason);
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("owner", &self.owner.is_some()).finish_non_exhaustive()
    }
}
