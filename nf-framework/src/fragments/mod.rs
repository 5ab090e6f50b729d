//! Virtual reassembly: later fragments get to know the ports that stand in the first one.
//!
//! It happens at the worker that receives, before steering: all fragments of a packet come to one
//! worker, as devices spread them by addresses alone. A first fragment goes on at once and its
//! ports are remembered; later ones follow it, each with those ports beside it
//! ([`Annotation::ports`]). What comes before its first fragment is held until that comes. Nothing
//! is put together: what leaves are the fragments that came.
//!
//! All of it is bounded (datagrams, packets held, both for each source) and has a reason for each
//! packet that it drops. Overlapping fragments end their datagram in both families (RFC 5722), and a
//! first fragment has all headers in it (RFC 1858, RFC 7112).
//!
//! [`split_ipv4`] is for the other end: a packet that is longer than its next link takes.
//!
//! This module knows what fragments are, and nothing of flows, workers or policies.

mod config;
mod piece;
mod split;
mod table;
#[cfg(test)]
mod tests;

pub use config::FragmentsConfig;
pub use split::{SplitError, split_ipv4};

use crate::annotation::Annotation;
use crate::batch::Batch;
use crate::counters::{Occupancy, WorkerCounters};
use crate::direction::Direction;
use crate::function::WorkerSetup;
use crate::headers::{EtherType, EthernetHeader, MAX_VLAN_TAGS, VlanTag};
use crate::time::Instant;
use crate::verdict::DropReason;
use dpdk_rs::{Burst, HashKey, Mbuf};
use piece::{Piece, may_be_fragment};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use table::{Outcome, Table};
use zerocopy::FromBytes;

/// Of 64 datagrams each: what one tick looks through.
const BUCKETS_PER_TICK: usize = 2;

/// What a frame carries behind its Ethernet header and tags, the identifiers of the tags (outermost
/// first, all ones where there is none), and where it begins.
fn behind_tags(frame: &[u8]) -> Option<(EtherType, [[u8; 2]; MAX_VLAN_TAGS], usize)> {
    let (ethernet, mut rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let (mut ether_type, mut vlan) = (ethernet.ether_type, [[0xff; 2]; MAX_VLAN_TAGS]);
    for id in &mut vlan {
        if ether_type.is_vlan() {
            let (tag, inner) = VlanTag::ref_from_prefix(rest).ok()?;
            *id = tag.id().to_be_bytes();
            (ether_type, rest) = (tag.ether_type, inner);
        }
    }
    Some((ether_type, vlan, frame.len() - rest.len()))
}

/// One worker's virtual reassembly.
#[derive(Debug)]
pub(crate) struct Fragments {
    table: Table<Mbuf>,
    /// A batch's packets while they are looked at.
    arrived: Burst,
    /// What goes on and found no room in its batch.
    ready: VecDeque<Mbuf>,
    /// Of datagrams, and of packets that wait.
    occupancy: [Occupancy; 2],
}

impl Fragments {
    pub(crate) fn new(config: &FragmentsConfig, hash: HashKey) -> Self {
        let limits = config.limits();
        let ready = VecDeque::with_capacity(Burst::CAPACITY + limits.held);
        Self { table: Table::new(limits, hash), arrived: Burst::new(), ready, occupancy: Default::default() }
    }

    /// Shows from now on how full it is.
    pub(crate) fn show(&mut self, worker: &mut WorkerSetup) {
        "(fragments)".clone_into(&mut worker.function);
        self.occupancy = ["datagrams", "held"].map(|table| worker.occupancy(table));
        self.show_occupancy();
    }

    fn show_occupancy(&mut self) {
        for (shown, (entries, limit)) in self.occupancy.iter_mut().zip(self.table.occupancy()) {
            shown.set(entries, limit);
        }
    }

    /// Looks at packets that have come in. What is held or dropped is gone from the batch, what
    /// goes on and finds no room there comes with [`Fragments::refill`].
    #[inline]
    pub(crate) fn look_at(&mut self, batch: &mut Batch, side: Direction, now: Instant, counters: &WorkerCounters) {
        batch.prefetch();
        // A ring that stands for a port may bring a packet that has been here before.
        let look = |packet: &Mbuf| packet.is_annotated() | may_be_fragment(packet.data());
        if batch.undecided_packets().fold(false, |any, (_, packet)| any | look(packet)) {
            self.take_in(batch, side, now, counters);
        }
    }

    #[inline(never)]
    fn take_in(&mut self, batch: &mut Batch, side: Direction, now: Instant, counters: &WorkerCounters) {
        let Self { table, arrived, ready, .. } = self;
        for slot in batch.undecided() {
            if let Some(packet) = batch.take(slot) {
                // As many as a batch has slots find room.
                drop(arrived.push(packet));
            }
        }
        batch.empty();
        let mut go_on = |packet| {
            let packet = if ready.is_empty() { batch.push(packet) } else { Err(packet) };
            ready.extend(packet.err());
        };
        for mut packet in arrived.drain() {
            packet.set_annotation(None);
            match Piece::of_frame(packet.data(), side, packet.stripped_vlan()) {
                None => go_on(packet),
                Some(Err(reason)) => discard(packet, reason, counters),
                Some(Ok(piece)) => table.take(&piece, packet, now, &mut |mut packet, outcome| match outcome {
                    Outcome::Drop(reason) => discard(packet, reason, counters),
                    Outcome::On(ports) => {
                        Annotation { ports: Some(ports), ..Annotation::default() }.write(&mut packet);
                        go_on(packet);
                    }
                }),
            }
        }
        counters.fragments.store(self.table.held() as u64, Ordering::Relaxed);
    }

    /// Puts packets that found no room into a batch that has gone; false if there are none.
    #[inline]
    pub(crate) fn refill(&mut self, batch: &mut Batch) -> bool {
        let any = !self.ready.is_empty();
        for packet in self.ready.drain(..self.ready.len().min(Burst::CAPACITY)) {
            // As many as a batch has slots find room.
            drop(batch.push(packet));
        }
        any
    }

    /// Drops what has waited for too long.
    pub(crate) fn tick(&mut self, now: Instant, counters: &WorkerCounters) {
        let to = &mut |packet, outcome| {
            if let Outcome::Drop(reason) = outcome {
                discard(packet, reason, counters);
            }
        };
        self.table.expire(now, BUCKETS_PER_TICK, to);
        self.show_occupancy();
        counters.fragments.store(self.table.held() as u64, Ordering::Relaxed);
    }

    /// Drops what is held; the program stops.
    pub(crate) fn stop(&mut self, counters: &WorkerCounters) {
        self.table.clear(|packet| discard(packet, DropReason::STOPPED, counters));
        counters.fragments.store(0, Ordering::Relaxed);
    }

    /// Packets that wait for a first fragment.
    pub(crate) fn held(&self) -> usize {
        self.table.held()
    }
}

fn discard(packet: Mbuf, reason: DropReason, counters: &WorkerCounters) {
    counters.count_drop(&packet, reason);
    drop(packet);
}
