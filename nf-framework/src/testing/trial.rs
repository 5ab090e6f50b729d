//! Packets through a chain on virtual time, and what became of them.

use crate::batch::Batch;
use crate::chain::Chain;
use crate::context::{Context, Direction};
use crate::counters::WorkerCounters;
use crate::forwarding::{Forwarding, Wire};
use crate::function::{NetworkFunction, Registry};
use crate::report::{Balance, Report};
use crate::time::Instant;
use crate::verdict::PortIx;
use crate::worker::{Pipeline, Transmit};
use dpdk_rs::{Burst, Mempool};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const INSIDE: PortIx = PortIx(0);
const OUTSIDE: PortIx = PortIx(1);

/// What became of the packets of one [`Trial::send`] or [`Trial::advance`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Frames that left by the inside port, in order.
    pub inside: Vec<Vec<u8>>,
    /// Frames that left by the outside port, in order.
    pub outside: Vec<Vec<u8>>,
    /// Packets dropped, by the name of the reason.
    pub dropped: BTreeMap<String, u64>,
    /// Packets that functions consumed.
    pub consumed: u64,
    /// By how many the packets that functions hold have become more, or less.
    pub held: i64,
}

/// A chain in a test, with two ports and a clock that moves when told to.
#[derive(Debug)]
pub struct Trial {
    pipeline: Pipeline,
    batch: Batch,
    now: Instant,
    registry: Arc<Registry>,
    counters: Arc<WorkerCounters>,
    names: Vec<String>,
    wire: Ports,
    /// What stood at the end of the last outcome.
    balance: Balance,
    drops: BTreeMap<String, u64>,
    /// Packets that were out of the pool before.
    out: u32,
}

/// What left, and what the ports take.
#[derive(Debug)]
struct Ports {
    sent: [Vec<Vec<u8>>; 2],
    full: bool,
    longest: usize,
}

impl Default for Ports {
    fn default() -> Self {
        Self { sent: Default::default(), full: false, longest: usize::MAX }
    }
}

impl Transmit for Ports {
    fn send(&mut self, port: PortIx, burst: &mut Burst) {
        let Some(sent) = self.sent.get_mut(usize::from(port.0)) else { return };
        // As drivers do: it stops at the first that it cannot send.
        let mut kept = Burst::with_limit(Burst::CAPACITY);
        for packet in burst.drain() {
            if !self.full && kept.is_empty() && packet.len() <= self.longest {
                sent.push(packet.data().to_vec());
            } else {
                drop(kept.push(packet));
            }
        }
        for packet in kept.drain() {
            drop(burst.push(packet));
        }
    }
}

impl Trial {
    pub(crate) fn new(chain: Chain, pool: Mempool, registry: Arc<Registry>) -> Self {
        let counters = Arc::new(WorkerCounters::new(2, chain.len()));
        let names = chain.names().map(str::to_owned).collect();
        let forwarding: Option<Box<dyn Forwarding>> = Some(Box::new(Wire));
        let pipeline = Pipeline::new(chain, forwarding, (INSIDE, OUTSIDE), pool, Arc::clone(&counters));
        let batch = Batch::with_limit(Burst::CAPACITY);
        let out = out_of(&pipeline.pool);
        Self {
            pipeline,
            batch,
            now: Instant::START,
            registry,
            counters,
            names,
            wire: Ports::default(),
            balance: Balance::default(),
            drops: BTreeMap::new(),
            out,
        }
    }

    /// Without forwarding: what no function decides about is dropped.
    #[must_use]
    pub fn without_forwarding(mut self) -> Self {
        self.pipeline.forwarding = None;
        self
    }

    /// With ports that cannot send frames of more than so many bytes.
    pub fn set_longest_frame(&mut self, bytes: usize) {
        self.wire.longest = bytes;
    }

    /// With both ports' queues full, or no longer so.
    pub fn set_ports_full(&mut self, full: bool) {
        self.wire.full = full;
    }

    /// With a program around it that is being drained, or not.
    pub fn set_draining(&mut self, draining: bool) {
        self.pipeline.chain.standing.draining = draining;
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Gives the chain frames that came in together, at most 64.
    ///
    /// # Panics
    ///
    /// When there are more, a frame is longer than a packet of the pool, or the pool is empty.
    pub fn send(&mut self, direction: Direction, frames: &[Vec<u8>]) -> Outcome {
        for frame in frames {
            let mut packet = self.pipeline.pool.alloc().expect("the tests' pool is empty");
            assert!(packet.set_contents(frame), "a frame of {} bytes does not fit into a packet", frame.len());
            assert!(self.batch.push(packet).is_ok(), "more than {} frames at once", Burst::CAPACITY);
        }
        let port = if direction == Direction::Outbound { INSIDE } else { OUTSIDE };
        crate::counters::bump(&self.counters.ports[usize::from(port.0)].received, frames.len() as u64);
        self.pipeline.process(&mut self.batch, direction, self.now, &mut self.wire);
        self.outcome()
    }

    /// Lets time pass, and the functions tick at its end.
    pub fn advance(&mut self, time: Duration) -> Outcome {
        self.now = self.now + time;
        self.pipeline.tick(&mut self.batch, self.now, &mut self.wire);
        self.outcome()
    }

    /// Does something with a function of the chain between two bursts, as a command or a new
    /// policy would. What becomes of packets by it is in the next outcome.
    ///
    /// # Panics
    ///
    /// When there is no function of this type at this place.
    pub fn command<F: NetworkFunction, R>(
        &mut self,
        index: usize,
        command: impl FnOnce(&mut F, &mut Context<'_>) -> R,
    ) -> R {
        let (chain, mut cx) = self.pipeline.outside_of_batches(self.now);
        let answer = chain.command(index, &mut cx, command);
        self.counters.pending.store(self.pipeline.pending.len() as u64, std::sync::atomic::Ordering::Relaxed);
        answer.expect("there is a function of this type at this place")
    }

    #[cfg(test)]
    pub(crate) fn work(&mut self, mailbox: &crate::mailbox::Mailbox) {
        while mailbox.has_mail() {
            let (chain, mut cx) = self.pipeline.outside_of_batches(self.now);
            mailbox.open_next(chain, &mut cx);
        }
    }

    /// The counters, as a program would show them.
    #[must_use]
    pub fn report(&self) -> Report {
        self.pipeline.chain.gauge_sessions(&self.counters);
        let mut report = Report::new(&[], &self.names, &[Arc::clone(&self.counters)], &self.registry);
        let count = |of: fn(&crate::counters::PortCounters) -> &std::sync::atomic::AtomicU64| {
            self.counters.ports.iter().map(|port| of(port).load(std::sync::atomic::Ordering::Relaxed)).sum()
        };
        report.balance =
            Balance { received: count(|port| &port.received), sent: count(|port| &port.sent), ..report.balance };
        report
    }

    /// What came about since the last one.
    fn outcome(&mut self) -> Outcome {
        let report = self.report();
        let after = report.balance;
        assert_eq!(after.unaccounted(), 0, "the packet balance does not close: {after}");
        let held = self.pipeline.chain.held() + self.pipeline.pending.len();
        assert_eq!(after.held, held as u64, "the functions' held() and their counters differ");
        let drops: BTreeMap<String, u64> = report.drops.into_iter().map(|drop| (drop.reason, drop.count)).collect();
        let drops_before = std::mem::replace(&mut self.drops, drops.clone());
        let mut dropped = drops;
        for (reason, count) in &mut dropped {
            *count -= drops_before.get(reason).copied().unwrap_or(0);
        }
        dropped.retain(|_, count| *count > 0);
        let before = std::mem::replace(&mut self.balance, after);
        let [inside, outside] = std::mem::take(&mut self.wire.sent);
        let difference =
            |after: u64, before: u64| i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(i64::MAX);
        Outcome {
            inside,
            outside,
            dropped,
            consumed: after.consumed - before.consumed,
            held: difference(after.held, before.held),
        }
    }

    /// Fails unless the packets that are out of the pool are those that functions hold.
    ///
    /// # Panics
    ///
    /// When they are not. Two trials at once share the pool, and see each other's packets.
    pub fn check_for_leaks(&self) {
        let out = i64::from(out_of(&self.pipeline.pool)) - i64::from(self.out);
        let held = self.pipeline.chain.held() + self.pipeline.pending.len();
        assert_eq!(
            out,
            i64::try_from(held).unwrap_or(i64::MAX),
            "packets out of the pool, and packets that functions hold"
        );
    }
}

fn out_of(pool: &Mempool) -> u32 {
    pool.config().size - pool.available()
}
