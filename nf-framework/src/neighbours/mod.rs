//! Who is on the links of a router, and where: IPv4 by ARP (RFC 826, 1122, 5227), IPv6 by
//! Neighbour Discovery (RFC 4861, 4862).
//!
//! One worker owns [`Neighbours`]: it asks, answers, keeps alive and forgets, and it alone writes
//! the [`NeighbourTable`] that all workers read. A worker that does not find a neighbour there
//! sends its packet to the owner, where it waits for the answer ([`Neighbours::resolve`]).
//!
//! Nothing here knows ports, VLAN tags or a clock. What goes out, goes out by an [`Outlet`].
//!
//! # By which rules
//!
//! Both families follow the states of RFC 4861 section 7.3.2; ARP has no better ones. Deliberately
//! different from the RFCs:
//!
//! - Addresses of ours are used at once, without waiting to see whether anybody else has them (RFC
//!   4862 section 5.4, RFC 5227 section 2.1): a router that takes over cannot wait. The question
//!   goes out with the announcement, and an answer to it is counted and reported. The address is
//!   then defended, at most every ten seconds.
//! - Router solicitations, router advertisements and redirects are ignored: this router is
//!   configured, and no host is to learn from it.
//! - Nothing is learned from whom nobody asked: gratuitous ARP and unsolicited advertisements
//!   change what is known and add nothing, and an answer without a question is none.
//! - Nobody is answered for but ourselves: no proxy.

mod announcements;
mod config;
mod counters;
mod link;
mod message;
mod received;
mod states;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

pub use config::NeighbourConfig;
pub use counters::{DuplicateAddress, NeighbourCounters};
pub(crate) use link::Link;
pub use table::{Neighbour, NeighbourState, NeighbourTable};

use crate::headers::MacAddress;
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::verdict::DropReason;
use dpdk_rs::{HashKey, Mbuf};
use message::Frame;
use std::net::IpAddr;
use std::sync::Arc;
use table::{Key, TableWriter};
use waiting::{Queue, Waiting};

/// Where the owner of the neighbours gets packets from and gives them to.
pub(crate) trait Outlet {
    /// A new packet without data; `None` when the pool is empty, and what was to be said is then
    /// said another time.
    fn allocate(&mut self) -> Option<Mbuf>;

    /// Sends an Ethernet frame without VLAN tags by an interface.
    fn send(&mut self, interface: u16, frame: Mbuf);

    /// Lets a packet go on that was given to [`Neighbours::resolve`]: its neighbour is here.
    fn forward(&mut self, interface: u16, mac: MacAddress, packet: Mbuf);

    /// Gives such a packet back: its neighbour does not answer, or cannot be one.
    fn unreachable(&mut self, interface: u16, packet: Mbuf);

    /// Frees a packet that has served its purpose.
    fn consume(&mut self, packet: Mbuf);

    /// Frees a packet and counts it under a reason.
    fn drop(&mut self, packet: Mbuf, reason: DropReason);
}

/// What is known of a neighbour, in the slot that the table has for it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    interface: u16,
    address: IpAddr,
    /// Zero while it is not known.
    mac: MacAddress,
    state: NeighbourState,
    /// How often it was asked in this state.
    tries: u8,
    /// When this state ends, or it is asked again.
    deadline: Instant,
    queue: Queue,
}

/// An interface, and how often it answers.
#[derive(Debug)]
struct Interface {
    link: Link,
    answers: TokenBucket,
}

/// The neighbours of all interfaces: the one owner of what a [`NeighbourTable`] shows.
///
/// It allocates nothing after it was made, but in [`set_link`](Self::set_link).
#[derive(Debug)]
pub(crate) struct Neighbours {
    config: NeighbourConfig,
    table: TableWriter,
    /// One for each slot of the table.
    entries: Box<[Option<Entry>]>,
    waiting: Waiting,
    interfaces: Vec<Option<Interface>>,
    new_entries: TokenBucket,
    announcements: TokenBucket,
    /// Whether an address is still to be announced.
    announcing: bool,
    /// The slot that the next tick begins at.
    cursor: usize,
    random: HashKey,
    draws: u64,
    /// Where nobody can be asked: the address of whoever is not known.
    stand_in: Option<MacAddress>,
}

impl Neighbours {
    /// No neighbours yet, on interfaces that are to be set. The configuration has been
    /// [checked](NeighbourConfig::check).
    pub(crate) fn new(config: NeighbourConfig, key: HashKey) -> Self {
        let table = TableWriter::new(config.capacity as usize, key.clone());
        let (new, announcements) = (config.new_per_second, NeighbourConfig::ANNOUNCEMENTS_PER_SECOND);
        Self {
            entries: vec![None; table.slots()].into(),
            waiting: Waiting::new(config.waiting),
            interfaces: Vec::new(),
            new_entries: TokenBucket::new(new, new.saturating_mul(2)),
            announcements: TokenBucket::new(announcements, 32),
            announcing: false,
            cursor: 0,
            random: key,
            draws: 0,
            stand_in: None,
            table,
            config,
        }
    }

    /// What workers read.
    pub(crate) fn table(&self) -> &Arc<NeighbourTable> {
        self.table.readers()
    }

    /// Packets that wait here.
    pub(crate) fn held(&self) -> usize {
        self.waiting.held()
    }

    /// Has every neighbour that is not known at this address, and asks for none.
    pub(crate) fn stand_in(&mut self, mac: MacAddress) {
        self.stand_in = Some(mac);
    }

    /// Says what an interface is, or with `None` that it is gone. Addresses that it did not have
    /// before are announced by the ticks to come; neighbours that can be none any more are
    /// forgotten. Returns what it was, to be freed elsewhere.
    ///
    /// It looks at every neighbour, and allocates when the interface's number is new.
    pub(crate) fn set_link(
        &mut self,
        interface: u16,
        link: Option<Link>,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Link> {
        let index = usize::from(interface);
        if index >= self.interfaces.len() {
            self.interfaces.resize_with(index + 1, || None);
        }
        let rate = self.config.answers_per_second;
        let before = self.interfaces[index].take();
        let answers = before.as_ref().map_or(TokenBucket::new(rate, rate), |before| before.answers);
        let before = before.map(|before| before.link);
        if let Some(mut link) = link {
            link.follow(before.as_ref(), NeighbourConfig::ANNOUNCEMENTS, now);
            self.interfaces[index] = Some(Interface { link, answers });
            self.announcing = true;
        }
        let link = self.interfaces[index].as_ref().map(|interface| &interface.link);
        let other_station = match (link, &before) {
            (Some(link), Some(before)) => link.is_elsewhere(before),
            (link, before) => link.is_some() != before.is_some(),
        };
        for slot in 0..self.entries.len() {
            let Some(entry) = self.entries[slot].filter(|entry| entry.interface == interface) else { continue };
            let link = self.interfaces[index].as_ref().map(|interface| &interface.link);
            if other_station || !link.is_some_and(|link| link.can_be_neighbour(entry.address)) {
                self.give_back(slot, out);
                self.forget(slot);
            }
        }
        before
    }

    /// Whether an interface of this number is there.
    pub(crate) fn has_link(&self, interface: u16) -> bool {
        self.link(interface).is_some()
    }

    /// Announces all addresses again: we have taken over from another router.
    pub(crate) fn announce_all(&mut self, now: Instant) {
        for own in self.interfaces.iter_mut().flatten().flat_map(|interface| &mut interface.link.own) {
            (own.announcements, own.next, own.due) = (NeighbourConfig::ANNOUNCEMENTS, 0, now);
        }
        self.announcing = true;
    }

    /// Sends a packet to a neighbour that is not in the table: at once if it is known by now, else
    /// when it has answered. The packet comes back by [`Outlet::forward`] or
    /// [`Outlet::unreachable`], or is dropped.
    pub(crate) fn resolve(
        &mut self,
        interface: u16,
        address: IpAddr,
        packet: Mbuf,
        now: Instant,
        out: &mut impl Outlet,
    ) {
        if let Some(slot) = self.table.slot(Key::new(interface, address)) {
            return match self.entries[slot].map(|entry| (entry.state, entry.mac)) {
                Some((NeighbourState::Incomplete, _)) => self.wait(slot, packet, out),
                Some((NeighbourState::Unreachable, _)) | None => out.unreachable(interface, packet),
                Some((state, mac)) => {
                    if state == NeighbourState::Stale {
                        self.enter(slot, NeighbourState::Delay, now + NeighbourConfig::DELAY);
                    }
                    out.forward(interface, mac, packet);
                }
            };
        }
        let can_be_asked = self
            .link(interface)
            .is_some_and(|link| link.can_be_neighbour(address) && link.source_towards(address).is_some());
        if !can_be_asked {
            return out.unreachable(interface, packet);
        }
        if let Some(mac) = self.stand_in {
            return out.forward(interface, mac, packet);
        }
        let slot = if self.new_entries.take(now) { self.create(interface, address, now) } else { None };
        let Some(slot) = slot else { return out.drop(packet, DropReason::NEIGHBOUR_LIMIT) };
        self.wait(slot, packet, out);
        self.ask(slot, now, out);
    }

    /// Housekeeping: looks at `budget` places of the table, and sends what announcements are due.
    pub(crate) fn tick(&mut self, now: Instant, budget: usize, out: &mut impl Outlet) {
        for _ in 0..budget.min(self.entries.len()) {
            let slot = self.cursor;
            self.cursor = if slot + 1 == self.entries.len() { 0 } else { slot + 1 };
            if let Some(entry) = self.entries[slot] {
                self.age(slot, entry, now, out);
            }
        }
        if self.announcing {
            self.announcing = self.announce_due(now, out);
        }
    }

    /// Drops what waits; the program stops.
    pub(crate) fn stop(&mut self, out: &mut impl Outlet) {
        for entry in self.entries.iter_mut().flatten() {
            while let Some(packet) = self.waiting.pop(&mut entry.queue) {
                out.drop(packet, DropReason::STOPPED);
            }
        }
    }

    fn link(&self, interface: u16) -> Option<&Link> {
        Some(&self.interfaces.get(usize::from(interface))?.as_ref()?.link)
    }

    fn count(&self, counter: impl FnOnce(&counters::Cells) -> &std::sync::atomic::AtomicU64) {
        crate::counters::bump(counter(self.table().cells()), 1);
    }

    /// Sends a frame of ours, if there is a buffer for it.
    fn say(&self, interface: u16, frame: &Frame, out: &mut impl Outlet) -> bool {
        let Some(mut packet) = out.allocate() else {
            self.count(|counters| &counters.no_buffer);
            return false;
        };
        let fits = packet.set_contents(frame.bytes());
        if fits {
            out.send(interface, packet)
        } else {
            out.consume(packet)
        }
        fits
    }
}
