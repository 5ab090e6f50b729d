//! What a worker does while nothing comes.

use crate::time::Instant;
use crate::worker_port::WorkerPort;
use dpdk_rs::{RxInterrupts, RxQueue};
use std::time::Duration;

/// What a worker does while nothing comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Idle {
    /// Looks again at once: no packet waits for the worker, and its CPU is always busy
    #[default]
    Spin,
    /// Sleeps until a port's receive interrupt, at most 1 ms. Where a port has none, or other workers hand packets over,
    /// it sleeps between two looks for half as long as nothing has come, at most 0.3 ms. Nearly all of an idle CPU is left
    /// to others, and what comes meanwhile waits in the queue, or is missed if that is full
    Sleep,
}

/// A worker to which packets come more often than this never sleeps.
const PATIENCE: Duration = Duration::from_micros(100);
/// The longest sleep between two looks. The time until a packet is seen is half of it at the median, and what the kernel
/// takes to wake a thread; what it takes of a CPU is the cost of one sleep by this.
const LONGEST: Duration = Duration::from_micros(300);
/// The longest wait for an interrupt, which all that is no packet waits for too: letters from the control thread,
/// housekeeping, the end. It is the shortest that epoll_wait(2) knows.
const LONGEST_WAIT: Duration = Duration::from_millis(1);

/// A worker's naps.
#[derive(Debug)]
pub(crate) struct Naps {
    idle: Idle,
    /// When the last packet came.
    since: Instant,
    /// Where interrupts are waited for, unless something else than its own queues brings the worker packets.
    interrupts: Option<RxInterrupts>,
    /// Whether the interrupts of all queues were enabled before the last round.
    enabled: bool,
}

impl Naps {
    /// On the thread that will take them: one that receives by its own queues `alone`, or also from other workers.
    pub(crate) fn new(idle: Idle, alone: bool) -> Self {
        if idle == Idle::Sleep {
            dpdk_rs::precise_sleeps();
        }
        let interrupts = (idle == Idle::Sleep && alone).then(RxInterrupts::new).and_then(Result::ok);
        Self { idle, since: Instant::START, interrupts, enabled: false }
    }

    /// Takes one if it is time after a round that had packets, or had none.
    #[inline]
    pub(crate) fn after(&mut self, empty: bool, now: impl Fn() -> Instant, ports: &mut [WorkerPort]) {
        if self.idle == Idle::Sleep {
            self.sleep(empty, now, ports);
        }
    }

    /// Interrupts are enabled, then comes a round, which looks at every queue once more, and then the wait: so what came
    /// before they were enabled is not waited for.
    fn sleep(&mut self, empty: bool, now: impl Fn() -> Instant, ports: &mut [WorkerPort]) {
        let nap = self.due(empty, now());
        if std::mem::take(&mut self.enabled) {
            // The driver may still be about to learn of what an interrupt has told: it is looked for a while.
            if nap.is_some() && self.interrupts.as_ref().is_some_and(|interrupts| interrupts.wait(LONGEST_WAIT)) {
                self.since = now();
            }
            rx_queues(ports).for_each(RxQueue::disable_interrupt);
        } else if let Some(nap) = nap {
            self.enabled = self.enable(ports);
            if !self.enabled {
                std::thread::sleep(nap);
            }
        }
    }

    /// Whether every queue will end a wait. A port that is down has none.
    fn enable(&self, ports: &mut [WorkerPort]) -> bool {
        let Some(interrupts) = &self.interrupts else { return false };
        let enabled = rx_queues(ports).all(|queue| queue.has_interrupt())
            && rx_queues(ports).all(|queue| interrupts.enable(queue).is_ok());
        if !enabled {
            rx_queues(ports).for_each(RxQueue::disable_interrupt);
        }
        enabled
    }

    fn due(&mut self, empty: bool, now: Instant) -> Option<Duration> {
        if !empty {
            self.since = now;
        }
        let quiet = now.since(self.since);
        (quiet >= PATIENCE).then(|| (quiet / 2).min(LONGEST))
    }
}

fn rx_queues(ports: &mut [WorkerPort]) -> impl Iterator<Item = &mut RxQueue> {
    ports.iter_mut().filter_map(|port| Some(&mut port.queues.as_mut()?.rx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_grow_with_the_time_that_nothing_has_come_and_end_with_a_packet() {
        let mut naps = Naps::new(Idle::Sleep, false);
        let at = |microseconds| Instant::START + Duration::from_micros(microseconds);
        for (microseconds, empty, expected) in [
            (0, true, None),
            (99, true, None),
            (100, true, Some(50)),
            (150, true, Some(75)),
            (1000, true, Some(300)),
            (9000, true, Some(300)),
            (9010, false, None),
            (9100, true, None),
            (9110, true, Some(50)),
            (9120, false, None),
            (9121, false, None),
            (9219, true, None),
        ] {
            let expected = expected.map(Duration::from_micros);
            assert_eq!(naps.due(empty, at(microseconds)), expected, "after {microseconds} us");
        }
    }
}
