//! Letting a program come to its end: no new sessions, and those that there are go on.

use super::control::Control;
use crate::counters::WorkerCounters;
use crate::mailbox::{WorkerStopped, ask_all};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a program still has to do: displays as a clause, `17 sessions are`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InUse {
    /// Sessions of all functions on all workers.
    pub sessions: u64,
    /// Packets that functions hold. (Those that only pass do not count: they may never end.)
    pub packets: u64,
}

impl InUse {
    /// Nothing is left.
    pub const NOTHING: Self = Self { sessions: 0, packets: 0 };
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, packets } = self;
        let verb = if sessions + packets == 1 { "is" } else { "are" };
        let plural = |count| if count == 1 { "" } else { "s" };
        match (*sessions, *packets) {
            (sessions, 0) => write!(f, "{sessions} session{} {verb}", plural(sessions)),
            (0, packets) => write!(f, "{packets} packet{} {verb}", plural(packets)),
            (sessions, packets) => {
                write!(f, "{sessions} session{} and {packets} packet{} {verb}", plural(sessions), plural(packets))
            }
        }
    }
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// Nothing was left, after so long.
    Empty(Duration),
    /// The time was over and this was left.
    TimeLimit(InUse),
    /// A worker has stopped, or the program was told to; this was left.
    Stopped(InUse),
}

impl Control {
    /// Whether the program takes on new sessions: all of its workers run, all of its ports are up, and it
    /// is neither being drained nor stopping. For those who send it traffic.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.shared.go.load(Ordering::Relaxed) && self.ports_are_up() && !self.draining.get() && !self.stopping()
    }

    /// Tells all functions to begin no new sessions ([`Context::draining`](crate::Context::draining))
    /// and makes the program unready. Returns when every worker knows; there is no way back.
    ///
    /// # Errors
    ///
    /// [`WorkerStopped`]; the program is unready all the same.
    pub fn begin_drain(&self) -> Result<(), WorkerStopped> {
        self.draining.set(true);
        let (mailboxes, stop) = (&self.shared.mailboxes, &self.shared.stop);
        ask_all(mailboxes, stop, |_, chain, cx| {
            chain.standing.draining = true;
            chain.gauge_sessions(cx.counters);
        })?;
        Ok(())
    }

    /// What is left to do, as of the workers' last ticks.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        let of_workers = |worker: &WorkerCounters| {
            let load = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
            let sessions = worker.functions.iter().map(|function| load(&function.sessions)).sum();
            let held: u64 = worker.functions.iter().map(|function| load(&function.held)).sum();
            InUse { sessions, packets: held }
        };
        self.shared.counters.iter().map(|worker| of_workers(worker)).fold(InUse::NOTHING, |sum, worker| InUse {
            sessions: sum.sessions + worker.sessions,
            packets: sum.packets + worker.packets,
        })
    }

    /// Drains the program: [begins](Self::begin_drain), and waits until nothing is left or the
    /// time is over.
    ///
    /// # Errors
    ///
    /// As [`begin_drain`](Self::begin_drain).
    pub fn drain(&self, limit: Duration) -> Result<Drained, WorkerStopped> {
        self.begin_drain()?;
        let start = Instant::now();
        loop {
            match self.in_use() {
                InUse::NOTHING => return Ok(Drained::Empty(start.elapsed())),
                left if self.stopping() => return Ok(Drained::Stopped(left)),
                left if start.elapsed() >= limit => return Ok(Drained::TimeLimit(left)),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}
