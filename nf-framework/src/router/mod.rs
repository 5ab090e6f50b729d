//! A router around the chain: what comes in is checked and finds its way before the functions see
//! it, and what they let pass is addressed to its next hop behind them.
//!
//! It owns what every router does (RFC 1812, RFC 8200): own addresses, routes, hops, ICMP errors.
//! It must not know flows. Nothing that it says depends on what it said before, but for the
//! neighbours, which one worker owns.

mod config;
mod egress;
mod icmp;
mod ingress;
mod tables;
mod trie;

pub use config::{InterfaceAddress, InterfaceConfig, Refuse, RouteConfig, RouterConfig, Side};
pub(crate) use tables::{PortFacts, Tables};
pub use tables::RouterError;

use crate::context::{Context, Position};
use crate::counters::bump;
use crate::forwarding::Forwarding;
use crate::function::Budget;
use crate::headers::MacAddress;
use crate::neighbours::{NeighbourTable, Neighbours, Outlet};
use crate::steering::{Entrance, hand_over};
use crate::time::Instant;
use crate::verdict::{DropReason, PortIx};
use crate::{Batch, Direction};
use dpdk_rs::{Burst, Mbuf, Producer};
use icmp::{IcmpError, TokenBucket};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tables::{Interface, Target};

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
    /// Whether there are no functions: then a packet may go back to the side that it came from.
    bare: bool,
    /// By slot, what the first half has found for the second.
    found: [Found; Burst::CAPACITY],
    /// Whether the batch in hand is the one that it was found for.
    arrived: bool,
    /// By next hop.
    hops: Vec<Option<Hop>>,
    /// The state of the neighbours that `hops` is of, and until when.
    hops_of: u64,
    hops_until: Instant,
    errors: TokenBucket,
}

/// Where a packet goes, as long as it has this destination.
#[derive(Clone, Copy)]
struct Found {
    destination: u128,
    target: Target,
}

/// A next hop whose MAC address is known.
#[derive(Clone, Copy)]
struct Hop {
    /// Its address, and ours, as they stand in a frame.
    addresses: [u8; 12],
    interface: u16,
}

/// How long a worker goes by what it knows of a next hop before it asks again, which is what keeps
/// the neighbour known.
const HOPS_LAST: Duration = Duration::from_secs(1);

impl Router {
    pub(crate) fn new(
        tables: Arc<Tables>,
        neighbours: Arc<NeighbourTable>,
        owner: Option<Neighbours>,
        to_owner: Option<Producer>,
        bare: bool,
        errors_per_second: u32,
    ) -> Self {
        let found = [Found { destination: 0, target: Target::NONE }; Burst::CAPACITY];
        let hops = vec![None; tables.next_hops.len()];
        Self {
            hops_of: neighbours.generation(),
            tables,
            neighbours,
            owner: owner.map(Box::new),
            to_owner,
            staged: Burst::new(),
            bare,
            found,
            arrived: false,
            hops,
            hops_until: Instant::START,
            errors: TokenBucket::new(errors_per_second),
        }
    }

    /// Tells the sender of a packet why it was not delivered, if it may be told and not too many
    /// were. `ip` is the packet from its IP header to its end; `forwarded`: its hops have been
    /// counted down.
    fn complain(&mut self, error: IcmpError, about: &Mbuf, forwarded: bool, cx: &mut Context<'_>) {
        let Some(ip) = ip_packet(about.data()) else { return };
        let Some(to) = icmp::who_is_told(ip) else { return };
        let came_in = self.came_in_by(about, cx.direction()).and_then(|index| self.tables.interface(index));
        let from = came_in
            .and_then(|interface| tables::source(interface, to.is_ipv4()))
            .or_else(|| tables::any_source(&self.tables.interfaces, to.is_ipv4()));
        let Some(from) = from else { return };
        if !self.errors.take(cx.now()) {
            return;
        }
        let Some(mut packet) = cx.allocate() else { return };
        if icmp::write_error(&mut packet, error, (from, to), ip, forwarded) {
            cx.emit(packet, cx.direction().reversed());
        } else {
            cx.drop_held(packet, DropReason::EMPTY);
        }
    }

    /// The interface that a packet came in by.
    fn came_in_by(&self, packet: &Mbuf, direction: Direction) -> Option<u16> {
        self.tables.entrance(direction, vlan(packet, &self.tables))
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
    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.arrive(batch, cx);
        self.flush(cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.leave(batch, cx);
        self.flush(cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        if let Some(owner) = &mut self.owner {
            let now = cx.now();
            owner.tick(now, budget, &mut Out { tables: &self.tables, errors: &mut self.errors, cx });
        }
    }

    fn held(&self) -> usize {
        self.owner.as_ref().map_or(0, |owner| owner.held())
    }
}

/// The VLAN whose tag was taken off a packet.
#[inline]
fn vlan(packet: &Mbuf, tables: &Tables) -> Option<u16> {
    const IDENTIFIER: u16 = 0x0fff;
    if !tables.tagged {
        return None;
    }
    // A tag of VLAN 0 is about priority alone: IEEE 802.1Q section 6.9.
    packet.stripped_vlan().map(|tag| tag & IDENTIFIER).filter(|vlan| *vlan != 0)
}

/// The IP packet in a frame without tags, and nothing behind it.
fn ip_packet(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(ETHERNET..)?;
    let length = match ip.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?])),
        _ => return None,
    };
    ip.get(..length)
}

const ETHERNET: usize = crate::headers::EthernetHeader::LENGTH;

/// Adds the interface's tag and sends a frame, past everything else.
fn send(tables: &Tables, interface: u16, mut frame: Mbuf, cx: &mut Context<'_>) {
    let Some(interface) = tables.interface(interface) else { return cx.drop_held(frame, DropReason::NO_SUCH_PORT) };
    if tag(&mut frame, interface) {
        cx.pending.push(frame, Position::leaving(interface.port), cx.counters);
    } else {
        cx.drop_held(frame, DropReason::NO_HEADROOM);
    }
}

/// Puts the interface's tag on. False if there is no room for it.
#[inline]
fn tag(frame: &mut Mbuf, interface: &Interface) -> bool {
    interface.vlan.is_none_or(|vlan| frame.insert_vlan(vlan))
}

/// What the owner of the neighbours does with packets.
struct Out<'a, 'w> {
    tables: &'a Tables,
    errors: &'a mut TokenBucket,
    cx: &'a mut Context<'w>,
}
