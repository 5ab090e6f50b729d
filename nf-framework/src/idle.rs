//! What a worker does while nothing comes.

use std::time::Duration;

/// What a worker does while nothing comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Idle {
    /// Looks again at once: no packet waits for the worker, and its CPU is always busy
    #[default]
    Spin,
    /// Sleeps 0.1 ms between two looks once nothing has come for a while: most of the CPU is left to others, and what
    /// comes meanwhile waits in the queue, or is missed if that is full
    Sleep,
}

/// Rounds without a packet after which a worker sleeps: while packets come more often it never does.
const ROUNDS: u32 = 1000;
/// How long, between two looks. In a virtual machine the timer alone makes an idle worker take 18 % of a CPU.
const NAP: Duration = Duration::from_micros(100);

/// A worker's naps.
#[derive(Debug)]
pub(crate) struct Naps {
    idle: Idle,
    /// Rounds without a packet since the last one.
    empty: u32,
}

impl Naps {
    /// On the thread that will take them.
    pub(crate) fn new(idle: Idle) -> Self {
        if idle == Idle::Sleep {
            dpdk_rs::precise_sleeps();
        }
        Self { idle, empty: 0 }
    }

    /// Takes one if it is time after a round that had packets, or had none.
    #[inline]
    pub(crate) fn after(&mut self, empty: bool) {
        if self.idle == Idle::Sleep && self.is_due(empty) {
            std::thread::sleep(NAP);
        }
    }

    #[inline]
    fn is_due(&mut self, empty: bool) -> bool {
        self.empty = if empty { (self.empty + 1).min(ROUNDS) } else { 0 };
        self.empty == ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_begin_when_nothing_has_come_for_a_while_and_end_with_a_packet() {
        let mut naps = Naps::new(Idle::Sleep);
        let mut dues = |rounds: u32, empty: bool| (0..rounds).filter(|_| naps.is_due(empty)).count();
        assert_eq!(dues(ROUNDS - 1, true), 0, "not yet");
        assert_eq!(dues(10, true), 10, "one after each look");
        assert_eq!(dues(1, false), 0);
        assert_eq!(dues(ROUNDS - 1, true), 0, "the while begins anew");
    }
}
