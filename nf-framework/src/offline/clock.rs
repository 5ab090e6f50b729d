//! Time that goes as captures say, and has functions tick meanwhile.

use crate::function::Budget;
use crate::time::Instant;
use crate::worker::{TICK_BUDGET, TICK_TIME};
use std::time::Duration;

/// Of a longer gap functions see this much: it is longer than any of their timers.
pub(super) const LONGEST_GAP: Duration = Duration::from_secs(400 * 24 * 3600);
/// A step is this part of the gap so far, if that is longer than a tick.
const PARTS: u32 = 64;
/// What a tick that stands for many may do at most, on the way, and at the end of a gap, where all that is to end has to.
const LARGEST_BUDGET: u32 = 1 << 16;
const LAST_BUDGET: u32 = 1 << 22;

/// The time of the captures, and the time that functions see, which begins with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Clock {
    now: Instant,
    stamp: Duration,
    /// What has gone since the last tick.
    since_tick: Duration,
    leaps: u64,
}

impl Clock {
    /// Begins at this time of the captures, with a tick due.
    pub(super) fn new(stamp: Duration) -> Self {
        Self { now: Instant::START, stamp, since_tick: TICK_TIME, leaps: 0 }
    }

    /// As functions see it.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// As captures write it.
    pub(super) fn stamp(&self) -> Duration {
        self.stamp
    }

    /// Gaps of which functions have not seen all.
    pub(super) fn leaps(&self) -> u64 {
        self.leaps
    }

    /// Goes on to a time of the captures, if that is later; `tick` is called wherever on the way a tick is due, with what
    /// it may do.
    pub(super) fn advance(&mut self, to: Duration, mut tick: impl FnMut(&Self, Budget)) {
        let gap = to.saturating_sub(self.stamp);
        let seen = gap.min(LONGEST_GAP);
        self.leaps += u64::from(seen < gap);
        let (now, stamp) = (self.now, self.stamp.saturating_add(gap - seen));
        let mut gone = Duration::ZERO;
        loop {
            // The last one is at the end of the gap: what ended in it has ended.
            let step = TICK_TIME.saturating_sub(self.since_tick).max(gone / PARTS).min(seen - gone);
            if self.since_tick + step < TICK_TIME {
                break;
            }
            gone += step;
            (self.now, self.stamp) = (now + gone, stamp.saturating_add(gone));
            let (stands_for, most) =
                if gone == seen { (gone, LAST_BUDGET) } else { (self.since_tick + step, LARGEST_BUDGET) };
            let ticks = stands_for.as_nanos() / TICK_TIME.as_nanos();
            let budget = u32::try_from(ticks).unwrap_or(u32::MAX).saturating_mul(TICK_BUDGET.0);
            self.since_tick = Duration::ZERO;
            tick(self, Budget(budget.clamp(TICK_BUDGET.0, most)));
        }
        self.since_tick += seen - gone;
        (self.now, self.stamp) = (now + seen, stamp.saturating_add(seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When functions tick on the way to a time, in nanoseconds since the start.
    fn ticks(clock: &mut Clock, to: Duration) -> Vec<u64> {
        let mut ticks = Vec::new();
        clock.advance(to, |clock, _| ticks.push(clock.now().as_nanoseconds()));
        ticks
    }

    const START: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn functions_tick_every_100_us_while_captures_go_on() {
        let mut clock = Clock::new(START);
        assert_eq!(ticks(&mut clock, START), [0], "at the start");
        assert_eq!(ticks(&mut clock, START + Duration::from_micros(99)), [0; 0]);
        assert_eq!(ticks(&mut clock, START + Duration::from_micros(250)), [100_000, 200_000]);
        assert_eq!(ticks(&mut clock, START + Duration::from_micros(299)), [0; 0]);
        assert_eq!(ticks(&mut clock, START + Duration::from_micros(300)), [300_000]);
        assert_eq!((clock.now().as_nanoseconds(), clock.stamp()), (300_000, START + Duration::from_micros(300)));
    }

    #[test]
    fn in_a_gap_they_tick_within_a_64th_of_it_and_a_year_is_not_much_work() {
        for (gap, most) in [(1, 450), (3600, 1000), (365 * 24 * 3600, 1600)] {
            let mut clock = Clock::new(START);
            let gap = Duration::from_secs(gap);
            let found = ticks(&mut clock, START + gap);
            assert!(found.len() < most, "{gap:?}: {}", found.len());
            assert_eq!(found[..3], [0, 100_000, 200_000]);
            assert_eq!(found.last().copied(), u64::try_from(gap.as_nanos()).ok(), "at the end of the gap");
            for pair in found.windows(2) {
                assert!(pair[1] - pair[0] <= (pair[0] / 64).max(100_000), "{gap:?}: {pair:?}");
            }
            assert_eq!((clock.now().since(Instant::START), clock.stamp()), (gap, START + gap));
        }
    }

    #[test]
    fn a_longer_tick_may_do_more() {
        let mut budgets = Vec::new();
        Clock::new(START).advance(START + Duration::from_secs(60), |_, budget| budgets.push(budget.0));
        assert_eq!((budgets.first(), budgets.last()), (Some(&128), Some(&LAST_BUDGET)));
        assert!(budgets.is_sorted());
    }

    #[test]
    fn time_that_goes_back_stands_still_and_endless_gaps_are_cut() {
        let mut clock = Clock::new(START);
        ticks(&mut clock, START);
        let before = clock;
        assert_eq!(ticks(&mut clock, START - Duration::from_secs(5)), [0; 0]);
        assert_eq!(clock, before);
        assert!(ticks(&mut clock, Duration::MAX).len() < 1600);
        assert_eq!((clock.now().since(Instant::START), clock.stamp(), clock.leaps()), (LONGEST_GAP, Duration::MAX, 1));
        assert_eq!(ticks(&mut clock, Duration::MAX), [0; 0]);
    }
}
