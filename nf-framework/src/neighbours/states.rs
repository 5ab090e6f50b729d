//! What becomes of a neighbour that is known, or looked for: RFC 4861 section 7.3.

use super::message::Frame;
use super::table::Key;
use super::{Entry, NeighbourConfig, NeighbourState, Neighbours, Outlet, Queue};
use crate::headers::MacAddress;
use crate::time::Instant;
use crate::verdict::DropReason;
use dpdk_rs::Mbuf;
use std::net::IpAddr;
use std::time::Duration;

impl Neighbours {
    /// Remembers one who asked us, if there is room: it will be sent something soon.
    pub(super) fn learn(
        &mut self,
        interface: u16,
        address: IpAddr,
        mac: MacAddress,
        now: Instant,
        out: &mut impl Outlet,
    ) {
        if let Some(slot) = self.create(interface, address, now) {
            self.told(slot, mac, false, now, out);
        }
    }

    /// A neighbour is at `mac`; `reached` if that shows that it hears us.
    pub(super) fn told(&mut self, slot: usize, mac: MacAddress, reached: bool, now: Instant, out: &mut impl Outlet) {
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
    pub(super) fn release(&mut self, slot: usize, mac: MacAddress, now: Instant, out: &mut impl Outlet) {
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
    pub(super) fn give_back(&mut self, slot: usize, out: &mut impl Outlet) {
        let Some(entry) = &mut self.entries[slot] else { return };
        while let Some(packet) = self.waiting.pop(&mut entry.queue) {
            out.unreachable(entry.interface, packet);
        }
    }

    pub(super) fn wait(&mut self, slot: usize, packet: Mbuf, out: &mut impl Outlet) {
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
    pub(super) fn create(&mut self, interface: u16, address: IpAddr, now: Instant) -> Option<usize> {
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
    pub(super) fn worth(&self, slot: usize) -> Option<(u8, Instant)> {
        let entry = self.entries[slot]?;
        match entry.state {
            NeighbourState::Unreachable => Some((0, entry.deadline)),
            // The one that has been there longest has the earliest deadline.
            NeighbourState::Stale if !self.table.is_used(slot) => Some((1, entry.deadline)),
            _ => None,
        }
    }

    pub(super) fn forget(&mut self, slot: usize) {
        debug_assert!(self.entries[slot].is_none_or(|entry| entry.queue.length() == 0));
        self.entries[slot] = None;
        self.table.remove(slot);
    }

    pub(super) fn enter(&mut self, slot: usize, state: NeighbourState, deadline: Instant) {
        let Some(entry) = &mut self.entries[slot] else { return };
        (entry.state, entry.tries, entry.deadline) = (state, 0, deadline);
        self.table.set_state(slot, state);
    }

    /// Readers that keep what they found ask again, which shows who is needed.
    pub(super) fn make_stale(&mut self, slot: usize, now: Instant) {
        self.enter(slot, NeighbourState::Stale, now + seconds(self.config.unused_seconds));
        self.table.take_used(slot);
        self.table.changed();
    }

    /// What time does to an entry: RFC 4861 section 7.3.3.
    pub(super) fn age(&mut self, slot: usize, entry: Entry, now: Instant, out: &mut impl Outlet) {
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
    pub(super) fn ask(&mut self, slot: usize, now: Instant, out: &mut impl Outlet) {
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

    /// How long an answer counts: between half and one and a half of the usual time, so that
    /// neighbours that were found together are not asked again together (RFC 4861 section 6.3.2).
    pub(super) fn reachable_time(&mut self) -> Duration {
        self.draws = self.draws.wrapping_add(1);
        let draw = self.random.hash(&self.draws.to_ne_bytes()) % 1000;
        Duration::from_millis(u64::from(self.config.reachable_seconds) * (500 + draw))
    }
}

pub(super) fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}
