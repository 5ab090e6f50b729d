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

mod config;
mod counters;
mod link;
mod message;
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
use message::{Frame, Message};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
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

/// What becomes of a message that was received.
enum Outcome {
    /// It has been acted on.
    Done,
    /// Its buffer takes the answer.
    Answer(Frame),
    Drop(DropReason),
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

    /// Takes in a frame that arrived by an interface and carries ARP or ICMPv6 of the types 133
    /// to 137, tagged or not.
    pub(crate) fn receive(&mut self, interface: u16, mut packet: Mbuf, now: Instant, out: &mut impl Outlet) {
        let outcome = match Message::parse(packet.data_mut()) {
            Ok(message) => {
                self.act(interface, message, now, out).unwrap_or(Outcome::Drop(DropReason::NEIGHBOUR_IGNORED))
            }
            Err(message::Malformed) => Outcome::Drop(DropReason::NEIGHBOUR_INVALID),
        };
        match outcome {
            Outcome::Answer(frame) if packet.set_contents(frame.bytes()) => {
                self.count(|counters| &counters.answers);
                out.send(interface, packet);
            }
            Outcome::Answer(_) | Outcome::Done => out.consume(packet),
            Outcome::Drop(reason) => out.drop(packet, reason),
        }
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

    /// `None` of a message that is of no concern to us.
    fn act(&mut self, interface: u16, message: Message, now: Instant, out: &mut impl Outlet) -> Option<Outcome> {
        match message {
            Message::Arp { is_request, sender, mac, target } => {
                self.arp(interface, is_request, (mac, sender), target, now, out)
            }
            Message::Solicitation { source, station, mac, target } => {
                self.solicitation(interface, source, (station, mac), target, now, out)
            }
            Message::Advertisement { station, mac, target, solicited, replaces } => {
                let at = mac.unwrap_or(station);
                if let Some(own) = self.link(interface)?.own_index(target.into()) {
                    return self.claimed(interface, own, target.into(), at, now, out);
                }
                self.advertisement(interface, mac, target, (solicited, replaces), now, out)
            }
            Message::Other => None,
        }
    }

    /// RFC 826, "Packet Reception", without its creation of entries for whom nobody asked.
    fn arp(
        &mut self,
        interface: u16,
        is_request: bool,
        (mac, sender): (MacAddress, Ipv4Addr),
        target: Ipv4Addr,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let link = self.link(interface)?;
        if let Some(own) = link.own_index(sender.into()) {
            return self.claimed(interface, own, sender.into(), mac, now, out);
        }
        let (our_mac, asks_us) = (link.mac(), link.own_index(target.into()).is_some());
        // A probe (RFC 5227 section 2.1.1) says nothing of its sender, but is to be answered.
        let is_probe = sender.is_unspecified();
        if mac == our_mac {
            return Some(Outcome::Drop(DropReason::OWN_MAC));
        }
        // One with an address of another link is answered, and nothing is learned of it: a router may ask
        // from a loopback address.
        let is_stranger = link.is_off_link(sender.into());
        if !(is_probe || link.can_be_neighbour(sender.into()) || is_stranger && is_request && asks_us) {
            return None;
        }
        let known = self.table.slot(Key::new(interface, sender.into()));
        if let Some(slot) = known {
            let waits = self.entries[slot].is_some_and(|entry| {
                matches!(entry.state, NeighbourState::Incomplete | NeighbourState::Delay | NeighbourState::Probe)
            });
            self.told(slot, mac, asks_us && !is_request && waits, now, out);
        }
        if !is_request || !asks_us {
            return known.map(|_| Outcome::Done);
        }
        if !self.may_answer(interface, now) {
            return Some(Outcome::Drop(DropReason::NEIGHBOUR_FLOOD));
        }
        if known.is_none() && !is_probe && !is_stranger {
            self.learn(interface, sender.into(), mac, now, out);
        }
        Some(Outcome::Answer(Frame::arp_reply((our_mac, target), (mac, sender))))
    }

    /// RFC 4861 section 7.2.3.
    fn solicitation(
        &mut self,
        interface: u16,
        source: Option<Ipv6Addr>,
        (station, mac): (MacAddress, Option<MacAddress>),
        target: Ipv6Addr,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let link = self.link(interface)?;
        let our_mac = link.mac();
        if let Some(source) = source {
            if let Some(own) = link.own_index(source.into()) {
                return self.claimed(interface, own, source.into(), mac.unwrap_or(station), now, out);
            }
            if !link.can_be_neighbour(source.into()) {
                return None;
            }
        }
        // What we ask ourselves comes back on some links.
        if station == our_mac || mac == Some(our_mac) {
            return Some(Outcome::Drop(DropReason::OWN_MAC));
        }
        link.own_index(target.into())?;
        if !self.may_answer(interface, now) {
            return Some(Outcome::Drop(DropReason::NEIGHBOUR_FLOOD));
        }
        if let (Some(source), Some(mac)) = (source, mac) {
            match self.table.slot(Key::new(interface, source.into())) {
                Some(slot) => self.told(slot, mac, false, now, out),
                None => self.learn(interface, source.into(), mac, now, out),
            }
        }
        // One that is known to have us in its table need not say where it is; the answer then goes
        // back to where the question came from, and nothing is learned.
        let asked = source.map(|source| (mac.unwrap_or(station), source));
        Some(Outcome::Answer(Frame::advertisement((our_mac, target), asked)))
    }

    /// RFC 4861 section 7.2.5.
    fn advertisement(
        &mut self,
        interface: u16,
        mac: Option<MacAddress>,
        target: Ipv6Addr,
        (solicited, replaces): (bool, bool),
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let slot = self.table.slot(Key::new(interface, target.into()))?;
        let entry = self.entries[slot]?;
        let mac = match (entry.state, mac) {
            (NeighbourState::Incomplete | NeighbourState::Unreachable, mac) => mac?,
            (NeighbourState::Reachable, Some(mac)) if mac != entry.mac && !replaces => {
                self.make_stale(slot, now);
                return Some(Outcome::Done);
            }
            (_, Some(mac)) if mac != entry.mac && !replaces => return None,
            (_, mac) => mac.unwrap_or(entry.mac),
        };
        if self.link(interface)?.mac() == mac {
            return None;
        }
        self.told(slot, mac, solicited, now, out);
        Some(Outcome::Done)
    }

    /// Somebody else speaks for an address of ours: RFC 5227 section 2.4, and the same for IPv6.
    fn claimed(
        &mut self,
        interface: u16,
        own: usize,
        address: IpAddr,
        by: MacAddress,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let link = &mut self.interfaces.get_mut(usize::from(interface))?.as_mut()?.link;
        let our_mac = link.mac();
        if by == our_mac {
            return None;
        }
        let own = &mut link.own[own];
        let is_due = own.defended.is_none_or(|last| now.since(last) >= NeighbourConfig::DEFEND_INTERVAL);
        let is_news = is_due && own.claimed_by != by;
        if is_due {
            (own.defended, own.claimed_by) = (Some(now), by);
            self.say(interface, &Frame::announcement(our_mac, address), out);
        }
        self.count(|counters| &counters.duplicates);
        if is_news {
            self.table.report(interface, address, by);
        }
        Some(Outcome::Done)
    }

    fn may_answer(&mut self, interface: u16, now: Instant) -> bool {
        let interface = self.interfaces.get_mut(usize::from(interface)).and_then(Option::as_mut);
        interface.is_some_and(|interface| interface.answers.take(now))
    }

    /// Remembers one who asked us, if there is room: it will be sent something soon.
    fn learn(&mut self, interface: u16, address: IpAddr, mac: MacAddress, now: Instant, out: &mut impl Outlet) {
        if let Some(slot) = self.create(interface, address, now) {
            self.told(slot, mac, false, now, out);
        }
    }

    /// A neighbour is at `mac`; `reached` if that shows that it hears us.
    fn told(&mut self, slot: usize, mac: MacAddress, reached: bool, now: Instant, out: &mut impl Outlet) {
        let Some(entry) = &mut self.entries[slot] else { return };
        let (was, before) = (entry.state, entry.mac);
        entry.mac = mac;
        self.table.set_mac(slot, mac);
        if before == MacAddress::ZERO {
            self.count(|counters| &counters.learned);
        } else if before != mac {
            self.count(|counters| &counters.moved);
        }
        let is_new = matches!(was, NeighbourState::Incomplete | NeighbourState::Unreachable);
        if reached {
            let time = self.reachable_time();
            self.enter(slot, NeighbourState::Reachable, now + time);
        } else if is_new || before != mac {
            self.make_stale(slot, now);
        }
        if is_new {
            self.release(slot, mac, now, out);
        }
    }

    /// Lets what waited go on, in order.
    fn release(&mut self, slot: usize, mac: MacAddress, now: Instant, out: &mut impl Outlet) {
        let Some(entry) = &mut self.entries[slot] else { return };
        let (interface, is_stale) = (entry.interface, entry.state == NeighbourState::Stale);
        let any = entry.queue.length() > 0;
        while let Some(packet) = self.waiting.pop(&mut entry.queue) {
            out.forward(interface, mac, packet);
        }
        if any && is_stale {
            self.enter(slot, NeighbourState::Delay, now + NeighbourConfig::DELAY);
        }
    }

    /// What waited can go nowhere.
    fn give_back(&mut self, slot: usize, out: &mut impl Outlet) {
        let Some(entry) = &mut self.entries[slot] else { return };
        while let Some(packet) = self.waiting.pop(&mut entry.queue) {
            out.unreachable(entry.interface, packet);
        }
    }

    fn wait(&mut self, slot: usize, packet: Mbuf, out: &mut impl Outlet) {
        let Some(entry) = &mut self.entries[slot] else { return out.drop(packet, DropReason::NEIGHBOUR_LIMIT) };
        let is_full = entry.queue.length() >= self.config.waiting_for_one || self.waiting.is_full();
        if is_full && let Some(oldest) = self.waiting.pop(&mut entry.queue) {
            out.drop(oldest, DropReason::NEIGHBOUR_QUEUE_FULL);
        }
        if let Err(packet) = self.waiting.push(&mut entry.queue, packet) {
            out.drop(packet, DropReason::NEIGHBOUR_QUEUE_FULL);
        }
    }

    /// A new entry, about which nothing is known; the least useful that stands in its way goes.
    fn create(&mut self, interface: u16, address: IpAddr, now: Instant) -> Option<usize> {
        let key = Key::new(interface, address);
        let candidates = self.table.candidates(key);
        let slot = candidates.into_iter().find(|slot| self.entries[*slot].is_none()).or_else(|| {
            let victim = candidates.into_iter().filter_map(|slot| Some((self.worth(slot)?, slot))).min()?.1;
            self.count(|counters| &counters.evicted);
            self.forget(victim);
            Some(victim)
        })?;
        self.table.insert(slot, key);
        self.entries[slot] = Some(Entry {
            interface,
            address,
            mac: MacAddress::ZERO,
            state: NeighbourState::Incomplete,
            tries: 0,
            deadline: now,
            queue: Queue::EMPTY,
        });
        self.table.set_state(slot, NeighbourState::Incomplete);
        Some(slot)
    }

    /// The lowest goes first when there is no room; `None` of what stays.
    fn worth(&self, slot: usize) -> Option<(u8, Instant)> {
        let entry = self.entries[slot]?;
        match entry.state {
            NeighbourState::Unreachable => Some((0, entry.deadline)),
            // The one that has been there longest has the earliest deadline.
            NeighbourState::Stale if !self.table.is_used(slot) => Some((1, entry.deadline)),
            _ => None,
        }
    }

    fn forget(&mut self, slot: usize) {
        debug_assert!(self.entries[slot].is_none_or(|entry| entry.queue.length() == 0));
        self.entries[slot] = None;
        self.table.remove(slot);
    }

    fn enter(&mut self, slot: usize, state: NeighbourState, deadline: Instant) {
        let Some(entry) = &mut self.entries[slot] else { return };
        (entry.state, entry.tries, entry.deadline) = (state, 0, deadline);
        self.table.set_state(slot, state);
    }

    /// Readers that keep what they found ask again, which shows who is needed.
    fn make_stale(&mut self, slot: usize, now: Instant) {
        self.enter(slot, NeighbourState::Stale, now + seconds(self.config.unused_seconds));
        self.table.take_used(slot);
        self.table.changed();
    }

    /// What time does to an entry: RFC 4861 section 7.3.3.
    fn age(&mut self, slot: usize, entry: Entry, now: Instant, out: &mut impl Outlet) {
        if entry.state == NeighbourState::Stale && self.table.take_used(slot) {
            return self.enter(slot, NeighbourState::Delay, now + NeighbourConfig::DELAY);
        }
        if entry.deadline > now {
            return;
        }
        match entry.state {
            NeighbourState::Incomplete | NeighbourState::Probe if entry.tries < NeighbourConfig::TRIES => {
                self.ask(slot, now, out);
            }
            NeighbourState::Incomplete => {
                self.count(|counters| &counters.failed);
                self.give_back(slot, out);
                self.enter(slot, NeighbourState::Unreachable, now + seconds(self.config.unreachable_seconds));
            }
            NeighbourState::Reachable => self.make_stale(slot, now),
            NeighbourState::Delay => {
                self.enter(slot, NeighbourState::Probe, now);
                self.ask(slot, now, out);
            }
            // It may have moved: the next packet for it has everyone asked.
            NeighbourState::Probe => {
                self.count(|counters| &counters.failed);
                self.forget(slot);
            }
            NeighbourState::Stale | NeighbourState::Unreachable => {
                self.count(|counters| &counters.expired);
                self.forget(slot);
            }
        }
    }

    /// Asks for a neighbour once more: all, or in the state of probing itself.
    fn ask(&mut self, slot: usize, now: Instant, out: &mut impl Outlet) {
        let Some(entry) = &mut self.entries[slot] else { return };
        entry.tries += 1;
        entry.deadline = now + NeighbourConfig::RETRANSMIT;
        let entry = *entry;
        let at = (entry.state == NeighbourState::Probe).then_some(entry.mac);
        let Some(link) = self.link(entry.interface) else { return };
        let source = link.source_towards(entry.address);
        let frame = source.and_then(|source| Frame::question(link.mac(), source, entry.address, at));
        if let Some(frame) = frame
            && self.say(entry.interface, &frame, out)
        {
            self.count(|counters| &counters.questions);
        }
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

    /// Sends announcements that are due, as far as the rate allows; whether any are left, now or
    /// later.
    fn announce_due(&mut self, now: Instant, out: &mut impl Outlet) -> bool {
        let mut any = false;
        for index in 0..self.interfaces.len() {
            let count = self.interfaces[index].as_ref().map_or(0, |interface| interface.link.own.len());
            for own in 0..count {
                while let Some(due) = self.announcement_due(index, own) {
                    any = true;
                    if due > now || !self.announcements.take(now) || !self.announce_next(index, own, now, out) {
                        break;
                    }
                }
            }
        }
        any
    }

    /// When an address is next to be announced, if it is.
    fn announcement_due(&self, index: usize, own: usize) -> Option<Instant> {
        let own = &self.interfaces[index].as_ref()?.link.own[own];
        (own.announcements > 0 && own.announced() > 0).then_some(own.due)
    }

    /// Announces the next address; false if there was no buffer for it.
    fn announce_next(&mut self, index: usize, own: usize, now: Instant, out: &mut impl Outlet) -> bool {
        let Some(link) = self.interfaces[index].as_ref().map(|interface| &interface.link) else { return false };
        let (mac, before) = (link.mac(), link.own[own]);
        let address = before.address(before.next);
        let interface = u16::try_from(index).unwrap_or(u16::MAX);
        if let IpAddr::V6(address) = address
            && before.announcements == NeighbourConfig::ANNOUNCEMENTS
            && !self.say(interface, &Frame::duplicate_question(mac, address), out)
        {
            return false;
        }
        if !self.say(interface, &Frame::announcement(mac, address), out) {
            return false;
        }
        self.count(|counters| &counters.announcements);
        if let Some(interface) = &mut self.interfaces[index] {
            let own = &mut interface.link.own[own];
            own.next += 1;
            if own.next >= own.announced() {
                (own.next, own.announcements) = (0, own.announcements - 1);
                own.due = now + NeighbourConfig::ANNOUNCE_INTERVAL;
            }
        }
        true
    }

    /// How long an answer counts: between half and one and a half of the usual time, so that
    /// neighbours that were found together are not asked again together (RFC 4861 section 6.3.2).
    fn reachable_time(&mut self) -> Duration {
        self.draws = self.draws.wrapping_add(1);
        let draw = self.random.hash(&self.draws.to_ne_bytes()) % 1000;
        Duration::from_millis(u64::from(self.config.reachable_seconds) * (500 + draw))
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}
