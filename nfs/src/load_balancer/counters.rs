//! What is counted of each backend: by its slot, on each worker, readable from anywhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Backends in one program, those included that are gone and still have connections.
pub(super) const MOST_BACKENDS: usize = 1 << 14;

/// One worker's counters of one backend; that worker alone writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct BackendCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
}

/// What was counted of a backend, all workers together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Totals {
    /// Packets that it was sent.
    pub packets: u64,
    /// Their octets, as they came in.
    pub bytes: u64,
    /// Connections that it was given, by a beginning or from another backend.
    pub begun: u64,
    /// Those that it has; a gauge.
    pub live: u64,
    /// Those of which nothing but the beginning was ever seen, or that it was seen to refuse.
    pub failed: u64,
}

/// The counters of one worker.
#[derive(Clone, Debug)]
pub(super) struct OfWorker(Arc<[BackendCounters]>);

/// The counters of all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<Option<OfWorker>>>>);

impl Shared {
    /// Those of a worker, who has no connections yet.
    pub(super) fn of_worker(&self, index: usize) -> OfWorker {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if workers.len() <= index {
            workers.resize(index + 1, None);
        }
        let new = || OfWorker((0..MOST_BACKENDS).map(|_| BackendCounters::default()).collect());
        workers[index].get_or_insert_with(new).clone()
    }

    /// What all workers have counted of a backend.
    pub(super) fn totals(&self, slot: u16) -> Totals {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = workers.iter().flatten().filter_map(|worker| worker.0.get(usize::from(slot)));
        cells.fold(Totals::default(), |sum, of| {
            let add = |sum: u64, counter: &AtomicU64| sum.wrapping_add(counter.load(Ordering::Relaxed));
            let begun = add(sum.begun, &of.begun);
            Totals {
                packets: add(sum.packets, &of.packets),
                bytes: add(sum.bytes, &of.bytes),
                begun,
                live: sum
                    .live
                    .wrapping_add(of.begun.load(Ordering::Relaxed))
                    .wrapping_sub(of.ended.load(Ordering::Relaxed)),
                failed: add(sum.failed, &of.failed),
            }
        })
    }
}

impl Totals {
    /// What came since others.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(before.packets),
            bytes: self.bytes.wrapping_sub(before.bytes),
            begun: self.begun.wrapping_sub(before.begun),
            live: self.live,
            failed: self.failed.wrapping_sub(before.failed),
        }
    }
}

/// Adds to a counter of which this is the only writer.
#[inline(always)]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl OfWorker {
    /// A backend is sent a packet.
    #[inline(always)]
    pub(super) fn sent(&self, slot: u16, bytes: usize) {
        if let Some(of) = self.0.get(usize::from(slot)) {
            add(&of.packets, 1);
            add(&of.bytes, bytes as u64);
        }
    }

    /// It has one connection more.
    pub(super) fn begun(&self, slot: u16) {
        if let Some(of) = self.0.get(usize::from(slot)) {
            add(&of.begun, 1);
        }
    }

    /// It has refused one, which it has until that ends.
    pub(super) fn refused(&self, slot: u16) {
        if let Some(of) = self.0.get(usize::from(slot)) {
            add(&of.failed, 1);
        }
    }

    /// It has one less.
    pub(super) fn ended(&self, slot: u16, failed: bool) {
        if let Some(of) = self.0.get(usize::from(slot)) {
            add(&of.ended, 1);
            add(&of.failed, u64::from(failed));
        }
    }
}
