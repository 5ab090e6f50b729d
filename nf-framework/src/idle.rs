//! What a worker does while nothing comes.

use crate::time::Instant;
use std::time::Duration;

/// What a worker does while nothing comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Idle {
    /// Looks again at once: no packet waits for the worker, and its CPU is always busy
    #[default]
    Spin,
    /// Sleeps between two looks for half as long as nothing has come, at most 0.3 ms: nearly all of an idle CPU is left to
    /// others, and what comes meanwhile waits in the queue, or is missed if that is full
    Sleep,
}

/// A worker to which packets come more often than this never sleeps.
const PATIENCE: Duration = Duration::from_micros(100);
/// The longest sleep between two looks. The time until a packet is seen is half of it at the median, and what the kernel
/// takes to wake a thread; what it takes of a CPU is the cost of one sleep by this.
const LONGEST: Duration = Duration::from_micros(300);

/// A worker's naps.
#[derive(Debug)]
pub(crate) struct Naps {
    idle: Idle,
    /// When the last packet came.
    since: Instant,
}

impl Naps {
    /// On the thread that will take them.
    pub(crate) fn new(idle: Idle) -> Self {
        if idle == Idle::Sleep {
            dpdk_rs::precise_sleeps();
        }
        Self { idle, since: Instant::START }
    }

    /// Takes one if it is time after a round that had packets, or had none.
    #[inline]
    pub(crate) fn after(&mut self, empty: bool, now: impl FnOnce() -> Instant) {
        if self.idle == Idle::Sleep
            && let Some(nap) = self.due(empty, now())
        {
            std::thread::sleep(nap);
        }
    }

    fn due(&mut self, empty: bool, now: Instant) -> Option<Duration> {
        if !empty {
            self.since = now;
        }
        let quiet = now.since(self.since);
        (quiet >= PATIENCE).then(|| (quiet / 2).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_grow_with_the_time_that_nothing_has_come_and_end_with_a_packet() {
        let mut naps = Naps::new(Idle::Sleep);
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
