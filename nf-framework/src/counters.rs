//! Counters: written by one worker without locks, read by anyone.

use crate::crash::scene::Scene;
use crate::verdict::{DropReason, DropReasons};
use dpdk_rs::{Burst, Mbuf, Ticks};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One counter of one worker. Whoever has the `Counter` is its only writer; the framework
/// keeps the reading end and shows the sum over all workers.
#[derive(Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// A counter that goes on where its cell stands.
    pub(crate) fn of(cell: Arc<AtomicU64>) -> Self {
        Self(cell)
    }

    /// Adds to it.
    #[inline]
    pub fn add(&mut self, count: u64) {
        bump(&self.0, count);
    }

    /// What it stands at.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What there is of something on one worker, now. Whoever has the `Gauge` is its only writer; the framework keeps
/// the reading end and shows the sum over all workers.
#[derive(Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// One whose reading end is kept.
    pub(crate) fn of(cell: Arc<AtomicU64>) -> Self {
        Self(cell)
    }

    /// Says how much there is.
    #[inline]
    pub fn set(&mut self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// How full a table of one worker's is. Whoever has the `Occupancy` is its only writer; the framework keeps the reading
/// end and shows it for each worker, as long as it is there: a table that is full is full of one worker's.
#[derive(Debug, Default)]
pub struct Occupancy(Arc<Room>);

/// What an [`Occupancy`] says.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) entries: AtomicU64,
    pub(crate) limit: AtomicU64,
}

impl Occupancy {
    /// One whose reading end is kept.
    pub(crate) fn of(room: Arc<Room>) -> Self {
        Self(room)
    }

    /// Says how many entries there are, and how many there is room for. What has no bound has no limit to warn of, and
    /// is a [`Gauge`].
    #[inline]
    pub fn set(&mut self, entries: usize, limit: usize) {
        self.0.entries.store(entries as u64, Ordering::Relaxed);
        self.0.limit.store(limit as u64, Ordering::Relaxed);
    }
}

/// Adds to a counter that only the calling worker writes: a load and a store, no lock.
#[inline]
pub(crate) fn bump(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// Cuts a batch's time into parts: each ends where the next one begins, so a part costs one reading of the
/// time-stamp counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Laps(Ticks);

impl Laps {
    #[inline]
    pub(crate) fn begin() -> Self {
        Self(Ticks::now())
    }

    /// Of work that nobody takes the time of.
    pub(crate) fn untimed() -> Self {
        Self(Ticks(0))
    }

    /// Ends a part, which was one call.
    #[inline]
    pub(crate) fn end(&mut self, calls: &AtomicU64, cycles: &AtomicU64) {
        let now = Ticks::now();
        bump(calls, 1);
        bump(cycles, now.since(self.0));
        self.0 = now;
    }
}

/// What one worker counts on one port.
#[derive(Debug, Default)]
pub(crate) struct PortCounters {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    /// Whether its device brought a packet to the wrong queue after it was told how to spread.
    pub(crate) misled: AtomicU64,
}

/// How often one worker did one part of its work, and how long that took.
#[derive(Debug, Default)]
pub(crate) struct WorkCounters {
    pub(crate) calls: AtomicU64,
    pub(crate) packets: AtomicU64,
    /// Of the time-stamp counter.
    pub(crate) cycles: AtomicU64,
}

/// What one worker counts on one function of the chain.
#[derive(Debug, Default)]
pub(crate) struct FunctionCounters {
    pub(crate) calls: AtomicU64,
    /// Of the time-stamp counter, in its calls with packets.
    pub(crate) cycles: AtomicU64,
    pub(crate) seen: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) taken: AtomicU64,
    /// Packets that it holds now.
    pub(crate) held: AtomicU64,
    /// Sessions that it has, as of the last tick.
    pub(crate) sessions: AtomicU64,
}

/// All that one worker counts; aligned so that workers do not share cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerCounters {
    pub(crate) ports: Box<[PortCounters]>,
    pub(crate) functions: Box<[FunctionCounters]>,
    pub(crate) drops: [AtomicU64; DropReasons::CAPACITY],
    /// Packets made by functions.
    pub(crate) originated: AtomicU64,
    /// Packets that functions kept for good.
    pub(crate) consumed: AtomicU64,
    /// Packets on their way to their next function.
    pub(crate) pending: AtomicU64,
    /// Packets that what stands around the chain holds now.
    pub(crate) held_around: AtomicU64,
    /// Fragments that wait for the first one of their packet.
    pub(crate) fragments: AtomicU64,
    /// Packets put into the rings to other workers.
    pub(crate) handed_over: AtomicU64,
    /// Packets taken out of the rings from other workers.
    pub(crate) taken_over: AtomicU64,
    /// Of the functions' policies.
    pub(crate) generation: AtomicU64,
    pub(crate) rounds: AtomicU64,
    pub(crate) idle_rounds: AtomicU64,
    /// What it knew when it panicked.
    pub(crate) scene: OnceLock<Box<Scene>>,
    /// Of the time-stamp counter, in rounds with packets.
    pub(crate) busy_cycles: AtomicU64,
    pub(crate) idle_cycles: AtomicU64,
    /// What stands around the functions: before the first and behind the last.
    pub(crate) ingress: WorkCounters,
    pub(crate) egress: WorkCounters,
    /// Who sees packets that are dropped; mostly nobody.
    pub(crate) witness: OnceLock<Witness>,
}

/// Sees each packet that is dropped, and why, before it is gone.
pub(crate) struct Witness(pub(crate) Box<Tell>);

type Tell = dyn Fn(&Mbuf, DropReason) + Send + Sync;

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

impl WorkerCounters {
    pub(crate) fn new(ports: usize, functions: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            functions: (0..functions).map(|_| FunctionCounters::default()).collect(),
            drops: [const { AtomicU64::new(0) }; DropReasons::CAPACITY],
            originated: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            held_around: AtomicU64::new(0),
            fragments: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            rounds: AtomicU64::new(0),
            idle_rounds: AtomicU64::new(0),
            scene: OnceLock::new(),
            busy_cycles: AtomicU64::new(0),
            idle_cycles: AtomicU64::new(0),
            ingress: WorkCounters::default(),
            egress: WorkCounters::default(),
            witness: OnceLock::new(),
        }
    }

    /// Counts a packet that is about to be dropped.
    #[inline]
    pub(crate) fn count_drop(&self, packet: &Mbuf, reason: DropReason) {
        bump(&self.drops[reason.index()], 1);
        if let Some(Witness(see)) = self.witness.get() {
            see(packet, reason);
        }
    }

    /// Counts packets that are about to be dropped, all of them.
    pub(crate) fn count_drops(&self, burst: &Burst, reason: DropReason) {
        burst.iter().for_each(|packet| self.count_drop(packet, reason));
    }
}
