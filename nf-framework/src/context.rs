//! What a function may ask for, and do beside its verdicts, while it handles a batch.

use crate::annotation::Annotation;
use crate::batch::{Batch, Slots};
use crate::counters::{Laps, WorkerCounters, bump};
use crate::direction::Direction;
use crate::icmp::{self, IcmpError};
use crate::position::Position;
use crate::steering::Sorter;
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::verdict::{DropReason, PortIx};
use dpdk_rs::{Mbuf, Mempool};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// Packets that wait to go on: emitted, resumed or turned.
#[derive(Debug)]
pub(crate) struct Pending {
    queue: VecDeque<(Mbuf, Position)>,
}

impl Pending {
    /// How many wait at once, for each worker; one more is dropped as `pending-full`.
    pub(crate) const CAPACITY: usize = 256;

    pub(crate) fn new() -> Self {
        Self { queue: VecDeque::with_capacity(Self::CAPACITY) }
    }

    pub(crate) fn push(&mut self, packet: Mbuf, position: Position, counters: &WorkerCounters) {
        if self.queue.len() == Self::CAPACITY {
            counters.count_drop(&packet, DropReason::PENDING_FULL);
        } else {
            self.queue.push_back((packet, position));
        }
    }

    /// Takes those that wait where the first one does, at most `most`, in order; the others
    /// keep theirs.
    pub(crate) fn pop(&mut self, most: usize, mut to: impl FnMut(Mbuf)) -> Option<Position> {
        let position = self.queue.front().map(|(_, position)| *position)?;
        let mut taken = 0;
        for _ in 0..self.queue.len() {
            let Some((packet, at)) = self.queue.pop_front() else { break };
            if at == position && taken < most {
                taken += 1;
                to(packet);
            } else {
                self.queue.push_back((packet, at));
            }
        }
        Some(position)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Drops all of them.
    pub(crate) fn clear(&mut self, reason: DropReason, counters: &WorkerCounters) {
        self.queue.drain(..).for_each(|(packet, _)| counters.count_drop(&packet, reason));
        counters.pending.store(0, Ordering::Relaxed);
    }

    /// Those that have come since there were so many.
    pub(crate) fn since(&mut self, count: usize) -> impl Iterator<Item = &mut (Mbuf, Position)> {
        self.queue.iter_mut().skip(count)
    }
}

/// What the control thread has told a worker; it changes between two bursts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// Of the functions' policies.
    pub(crate) generation: u64,
    pub(crate) draining: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { generation: 1, draining: false }
    }
}

/// What surrounds a function while it handles a batch or a tick: the time, the way the
/// packets go, and the means to make, hold and resume packets.
#[derive(Debug)]
pub struct Context<'w> {
    pub(crate) now: Instant,
    pub(crate) position: Position,
    pub(crate) inside: PortIx,
    pub(crate) outside: PortIx,
    pub(crate) pending: &'w mut Pending,
    pub(crate) counters: &'w WorkerCounters,
    pub(crate) pool: &'w Mempool,
    pub(crate) standing: Standing,
    /// How many ICMP errors functions may still send; `None` where nobody routes them.
    pub(crate) errors: &'w mut Option<TokenBucket>,
    /// With several workers: what hands packets over.
    pub(crate) sorter: &'w mut Option<Sorter>,
    /// Of the batch, what may belong to another worker behind this function.
    pub(crate) crossing: Slots,
    /// How long each function takes.
    pub(crate) laps: Laps,
}

impl Context<'_> {
    /// The time, read once for the burst.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The way the batch goes. A tick has no batch; it is [`Direction::Outbound`] there.
    #[must_use]
    #[inline]
    pub fn direction(&self) -> Direction {
        self.position.direction
    }

    /// Whether the batch comes in a second time, from the end that it was about to leave by:
    /// [`Verdict::Turn`](crate::Verdict::Turn).
    #[must_use]
    #[inline]
    pub fn turned(&self) -> bool {
        self.position.turned
    }

    /// The port at the end of that way.
    #[must_use]
    #[inline]
    pub fn exit(&self) -> PortIx {
        self.port_towards(self.position.direction)
    }

    /// The port that packets going this way leave by.
    #[must_use]
    #[inline]
    pub fn port_towards(&self, direction: Direction) -> PortIx {
        match direction {
            Direction::Outbound => self.outside,
            Direction::Inbound => self.inside,
        }
    }

    /// This function's place and the batch's direction, to be kept with a packet that is
    /// held, for [`Context::resume`].
    #[must_use]
    #[inline]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Which generation of policies all functions work by: 1 at the start, and one more with
    /// each that is published. A packet meets one on its way through the chain.
    #[must_use]
    #[inline]
    pub fn generation(&self) -> u64 {
        self.standing.generation
    }

    /// Whether the program is being drained: it ends when no session is left, so a function
    /// begins no new ones ([`DropReason::DRAINING`]).
    #[must_use]
    #[inline]
    pub fn draining(&self) -> bool {
        self.standing.draining
    }

    /// A new packet without data, or `None` when the pool is empty. It is then part of the
    /// packet balance: emit it, or consume it.
    #[must_use]
    pub fn allocate(&mut self) -> Option<Mbuf> {
        let mut packet = self.pool.alloc()?;
        // Who makes a packet is not on its way: the Router takes no hop off it.
        packet.set_marked(true);
        bump(&self.counters.originated, 1);
        Some(packet)
    }

    /// Sends a packet from this function's place: it meets the functions between here and
    /// the end of the chain in that direction, and is then forwarded like any other. The
    /// packet may be new, or one that was taken: to answer a packet, take it, turn its
    /// addresses round, and emit it in the direction opposite to [`Context::direction`].
    ///
    /// A packet without data, as [`Context::allocate`] makes it, is dropped as `empty`.
    pub fn emit(&mut self, packet: Mbuf, direction: Direction) {
        if packet.len() == 0 {
            return self.drop_held(packet, DropReason::EMPTY);
        }
        let position = Position { at: self.position.at, direction, turned: false };
        self.pending.push(packet, position, self.counters);
    }

    /// Lets a packet that was taken go on from where it was held.
    pub fn resume(&mut self, packet: Mbuf, position: Position) {
        self.pending.push(packet, position, self.counters);
    }

    /// Says of a packet of this batch that it may belong to another worker from here on: it is handed over to
    /// that one and goes on there behind this function, if there is a function to come. (In a chain of more than 31
    /// functions it stays.) For what goes on by other
    /// means than ports of this worker's, see
    /// [`Affinity::TranslatedPort`](crate::Affinity::TranslatedPort).
    #[inline]
    pub fn cross(&mut self, slot: usize) {
        self.crossing.insert(slot);
    }

    /// Frees a packet that was taken and has served its purpose (a reply to us, a fragment
    /// that was put together); it is counted as consumed.
    pub fn consume(&mut self, packet: Mbuf) {
        drop(packet);
        bump(&self.counters.consumed, 1);
    }

    /// Tells the sender of a packet of this batch by an ICMP or ICMPv6 error why it is not delivered,
    /// from the address of the interface that the error leaves by. Nothing is sent where RFC 1812
    /// section 4.3.2.7 or RFC 4443 section 2.4 (e) forbid it, when too many errors were sent, or
    /// without a router. What becomes of the packet itself is for a verdict to say.
    #[cold]
    pub fn refuse(&mut self, packet: &Mbuf, error: IcmpError) {
        self.tell(packet, error, None, self.direction());
    }

    /// As [`Context::refuse`], of a packet that went this way, from an address of this function's own.
    #[cold]
    pub fn refuse_as(&mut self, from: IpAddr, packet: &Mbuf, error: IcmpError, direction: Direction) {
        self.tell(packet, error, Some(from), direction);
    }

    /// Whether anybody can be told so: there is a router. How many errors are sent is limited all the same.
    #[must_use]
    pub fn can_refuse(&self) -> bool {
        self.errors.is_some()
    }

    fn tell(&mut self, about: &Mbuf, error: IcmpError, from: Option<IpAddr>, direction: Direction) {
        let Some((ip, to)) = icmp::who_is_told(about.data()) else { return };
        let now = self.now;
        if !self.errors.as_mut().is_some_and(|errors| errors.take(now)) {
            return;
        }
        let Some(mut packet) = self.allocate() else { return };
        let source = from.unwrap_or(match to {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
        if !icmp::write_error(&mut packet, error, (source, to), ip, about.is_marked()) {
            return self.drop_held(packet, DropReason::EMPTY);
        }
        Annotation { unsigned: from.is_none(), ..Annotation::default() }.write(&mut packet);
        self.emit(packet, direction.reversed());
    }

    /// Hands over what crosses to another worker, where functions are still to come.
    #[cold]
    pub(crate) fn hand_over_crossing(&mut self, batch: &mut Batch, functions: usize) {
        let crossing = std::mem::take(&mut self.crossing);
        let Position { at, direction, .. } = self.position;
        let last = Position::exit(direction, functions).at - if direction == Direction::Outbound { 1 } else { -1 };
        if let Some(sorter) = self.sorter.as_mut().filter(|_| at != last) {
            sorter.cross(batch, crossing, self.position, self.counters);
        }
    }

    /// Drops what waits to go on.
    pub(crate) fn drop_pending(&mut self, reason: DropReason) {
        self.pending.clear(reason, self.counters);
    }

    /// Frees a packet that was taken, and counts it under a reason.
    pub fn drop_held(&mut self, packet: Mbuf, reason: DropReason) {
        self.counters.count_drop(&packet, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    #[test]
    fn packets_that_wait_at_one_place_go_on_together_and_in_order() {
        lab(|lab| {
            let counters = WorkerCounters::new(0, 0);
            let mut pending = Pending::new();
            let there = Position::entrance(Direction::Inbound, 2);
            let turned = Position { turned: true, ..there };
            let here = Position { at: 1, direction: Direction::Outbound, turned: false };
            for (number, position) in (0..).zip([here, there, here, turned, here, there]) {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(&[number]));
                pending.push(packet, position, &counters);
            }
            let mut pop = |most| {
                let mut numbers = Vec::new();
                let position = pending.pop(most, |packet| numbers.push(packet.data()[0]));
                (position, numbers)
            };
            assert_eq!(pop(64), (Some(here), vec![0, 2, 4]));
            assert_eq!(pop(1), (Some(there), vec![1]));
            // The second one has waited longer than what is behind it by now, but comes in its turn.
            assert_eq!(pop(64), (Some(turned), vec![3]));
            assert_eq!(pop(64), (Some(there), vec![5]));
            assert_eq!(pop(64), (None, vec![]));
        });
    }

    #[test]
    fn one_more_than_may_wait_is_dropped_and_counted() {
        lab(|lab| {
            let counters = WorkerCounters::new(0, 0);
            let mut pending = Pending::new();
            let position = Position::entrance(Direction::Outbound, 0);
            let dropped = || counters.drops[DropReason::PENDING_FULL.index()].load(Ordering::Relaxed);
            for _ in 0..Pending::CAPACITY {
                pending.push(lab.pool.alloc().unwrap(), position, &counters);
            }
            assert_eq!((pending.len(), dropped()), (256, 0));
            pending.push(lab.pool.alloc().unwrap(), position, &counters);
            assert_eq!((pending.len(), dropped()), (256, 1));
            pending.clear(DropReason::STOPPED, &counters);
            let stopped = counters.drops[DropReason::STOPPED.index()].load(Ordering::Relaxed);
            assert_eq!((stopped, pending.len()), (256, 0));
        });
    }
}
