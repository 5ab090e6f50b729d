//! A worker's part of a trace: packets that are meant go through the chain one at a time, so that what changes
//! meanwhile is their doing. No function has to know of it.

use super::event::{Event, Fate, Look, Place, What};
use super::{Note, TracedPacket};
use crate::annotation::Annotation;
use crate::batch::Batch;
use crate::context::{Context, Pending};
use crate::counters::WorkerCounters;
use crate::position::Position;
use crate::verdict::{DropReason, DropReasons, PortIx, Verdict};
use dpdk_rs::{Mbuf, PacketFilter, Ticks};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What a part of the chain has to say of a packet that it has had.
pub(crate) trait Remark: FnOnce(&mut TracedPacket<'_>, &Context<'_>, &mut Note) {}

impl<F: FnOnce(&mut TracedPacket<'_>, &Context<'_>, &mut Note)> Remark for F {}

/// Looks on while the chain is run.
pub(crate) trait Watch {
    /// Before a part of the chain sees a batch.
    fn before(&mut self, batch: &Batch, cx: &Context<'_>);
    /// After it has.
    fn after(&mut self, place: Place, remark: impl Remark, batch: &Batch, cx: &mut Context<'_>);
    /// Before what was decided is carried out.
    fn settles(&mut self, batch: &Batch);
}

/// Looks away: all packets but those that are traced.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    #[inline(always)]
    fn before(&mut self, _: &Batch, _: &Context<'_>) {}
    #[inline(always)]
    fn after(&mut self, _: Place, _: impl Remark, _: &Batch, _: &mut Context<'_>) {}
    #[inline(always)]
    fn settles(&mut self, _: &Batch) {}
}

/// What one worker does for a trace.
#[derive(Debug)]
pub(crate) struct Tracer {
    worker: usize,
    filter: Arc<PacketFilter>,
    /// Packets that all workers together may still begin with.
    left: Arc<AtomicU32>,
    /// As much as there is room for from the start.
    pub(crate) events: Vec<Event>,
    /// Events that there was no room for.
    pub(crate) lost: u64,
    /// As it was before the part of the chain that has the packet now; `None` if that does not see it.
    before: Option<Before>,
    /// Its bytes then.
    frame: Vec<u8>,
    /// What was decided about it in the end.
    decided: Option<(Verdict, Look)>,
    /// What stood before that part, and before the packet came into the chain.
    marks: [Marks; 2],
}

/// A packet before a part of the chain has it.
#[derive(Clone, Copy, Debug)]
struct Before {
    identity: usize,
    look: Look,
    annotation: Annotation,
}

/// No frame is longer.
const LONGEST: usize = 1 << 16;

/// Which of the marks.
const OF_PART: usize = 0;
const OF_WALK: usize = 1;

/// Counters at one moment.
#[derive(Clone, Debug)]
struct Marks {
    drops: [u64; DropReasons::CAPACITY],
    sent: u64,
    consumed: u64,
    handed_over: u64,
    pending: usize,
}

impl Default for Marks {
    fn default() -> Self {
        Self { drops: [0; DropReasons::CAPACITY], sent: 0, consumed: 0, handed_over: 0, pending: 0 }
    }
}

impl Marks {
    fn take(&mut self, counters: &WorkerCounters, pending: &Pending) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.drops.iter_mut().zip(&counters.drops).for_each(|(mark, drops)| *mark = load(drops));
        (self.sent, self.consumed) = (sent(counters), load(&counters.consumed));
        (self.handed_over, self.pending) = (load(&counters.handed_over), pending.len());
    }

    /// What became of the only packet that was on its way since.
    fn fate(&self, counters: &WorkerCounters) -> Option<Fate> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dropped = self.drops.iter().zip(&counters.drops).position(|(mark, drops)| load(drops) != *mark);
        if let Some(reason) = dropped.and_then(DropReason::at) {
            return Some(Fate::Drop(reason));
        }
        let counted = |mark: u64, counter: &AtomicU64, fate| (load(counter) != mark).then_some(fate);
        counted(self.handed_over, &counters.handed_over, Fate::HandedOver)
            .or_else(|| counted(self.consumed, &counters.consumed, Fate::Consumed))
    }
}

fn sent(counters: &WorkerCounters) -> u64 {
    counters.ports.iter().map(|port| port.sent.load(Ordering::Relaxed)).sum()
}

impl Tracer {
    pub(crate) fn new(worker: usize, filter: Arc<PacketFilter>, left: Arc<AtomicU32>, room: usize) -> Self {
        let (events, marks) = (Vec::with_capacity(room), Default::default());
        Self {
            worker,
            filter,
            left,
            events,
            lost: 0,
            before: None,
            decided: None,
            frame: Vec::with_capacity(LONGEST),
            marks,
        }
    }

    /// Begins with the packets of a batch that are meant; whether there are any.
    pub(crate) fn mark(&mut self, batch: &mut Batch, port: PortIx) -> bool {
        let mut any = false;
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let means = self.left.load(Ordering::Relaxed) > 0 && self.filter.matches(packet.data());
            let less = |left: u32| left.checked_sub(1);
            let traced = means && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
            packet.set_traced(traced);
            if traced {
                any = true;
                self.write(packet.identity(), What::Arrived(port), Look::at(packet), Note::default());
            }
        }
        any
    }

    /// The packet of a batch of one, before it goes into the chain.
    pub(crate) fn begin(&mut self, counters: &WorkerCounters, pending: &Pending) {
        self.marks[OF_WALK].take(counters, pending);
    }

    /// It goes in here.
    pub(crate) fn enters(&mut self, packet: &Mbuf, position: Position) {
        self.write(packet.identity(), What::Enters(position), Look::at(packet), Note::default());
    }

    /// Whether nothing was written down of a packet but that it came in.
    pub(crate) fn has_only_arrived(&self, packet: usize) -> bool {
        let last = self.events.iter().rev().find(|event| event.packet == packet);
        last.is_some_and(|event| matches!(event.what, What::Arrived(_)))
    }

    /// It came in and did not come into the chain.
    pub(crate) fn gone(&mut self, (packet, look): (usize, Look), counters: &WorkerCounters) {
        let fate = self.marks[OF_WALK].fate(counters).unwrap_or(Fate::Held);
        self.write(packet, What::Left(fate), look, Note::default());
    }

    /// What was decided about it has been carried out.
    pub(crate) fn settled(&mut self, packet: usize, counters: &WorkerCounters, pending: &mut Pending) {
        // Of what was taken on the way that was written down there.
        let Some((verdict, look)) = self.decided.take() else { return };
        let marks = &self.marks[OF_WALK];
        let fate = match verdict {
            Verdict::Send(port) if sent(counters) != marks.sent => Some(Fate::Sent(port)),
            Verdict::Turn if pending.since(marks.pending).any(|(waits, _)| waits.identity() == packet) => {
                Some(Fate::Turn)
            }
            Verdict::Drop(reason) => Some(Fate::Drop(reason)),
            _ => marks.fate(counters),
        };
        self.write(packet, What::Left(fate.unwrap_or(Fate::Held)), look, Note::default());
    }

    /// Packets that another worker has handled and that leave by a queue of this one's.
    pub(crate) fn leaves(&mut self, packet: &Mbuf, port: PortIx) {
        self.write(packet.identity(), What::Left(Fate::Sent(port)), Look::at(packet), Note::default());
    }

    fn write(&mut self, packet: usize, what: What, look: Look, note: Note) {
        // It must not grow, as the worker must not allocate.
        if self.events.len() < self.events.capacity() {
            self.events.push(Event { at: Ticks::now(), worker: self.worker, packet, what, look, note });
        } else {
            self.lost += 1;
        }
    }

    /// What waits to go on since the mark was made: the packet itself, or others that were made for its sake, which
    /// are followed from here on.
    fn follow_pending(&mut self, packet: usize, pending: &mut Pending) -> Option<(Fate, Look)> {
        let mut fate = None;
        let from = self.marks[OF_PART].pending;
        for (waiting, position) in pending.since(from) {
            if waiting.identity() == packet {
                fate = Some((Fate::Resumed(*position), Look::at(waiting)));
            } else if !waiting.is_traced() {
                waiting.set_traced(true);
                let made = What::Made { by: packet, position: *position };
                self.write(waiting.identity(), made, Look::at(waiting), Note::default());
            }
        }
        fate
    }
}

impl Watch for Tracer {
    fn before(&mut self, batch: &Batch, cx: &Context<'_>) {
        let packet = batch.undecided().next().and_then(|slot| batch.packet(slot));
        self.before = packet.map(|packet| {
            self.frame.clear();
            self.frame.extend_from_slice(packet.data());
            Before { identity: packet.identity(), look: Look::at(packet), annotation: Annotation::of(packet) }
        });
        self.marks[OF_PART].take(cx.counters, cx.pending);
    }

    fn after(&mut self, place: Place, remark: impl Remark, batch: &Batch, cx: &mut Context<'_>) {
        let Some(Before { identity, look, annotation }) = self.before.take() else { return };
        let packet = batch.packet(0);
        let verdict = packet.map(|_| batch.verdict(0));
        let (mut note, vlan) = (Note::default(), look.vlan);
        remark(&mut TracedPacket { frame: &mut self.frame, annotation, vlan, verdict }, cx, &mut note);
        let waits = self.follow_pending(identity, cx.pending);
        let (fate, look) = match (packet, waits) {
            (Some(packet), _) => (batch.verdict(0).into(), Look::at(packet)),
            (None, Some(waits)) => waits,
            (None, None) => (self.marks[OF_PART].fate(cx.counters).unwrap_or(Fate::Held), look),
        };
        self.write(identity, What::Seen(place, cx.position.direction, fate), look, note);
    }

    fn settles(&mut self, batch: &Batch) {
        self.decided = batch.packet(0).map(|packet| (batch.verdict(0), Look::at(packet)));
    }
}
