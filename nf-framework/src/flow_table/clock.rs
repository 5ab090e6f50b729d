//! Time in 32 bits: enough for deadlines, and small enough to stand beside every slot.

use crate::Instant;

/// Units of 2^20 nanoseconds, modulo 2^32 of them (52 days). Two are compared by the shorter
/// way round, which is right while they are less than 26 days apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Coarse(u32);

/// Stands for no time: it never passes. The unit of this number counts as the one before it.
const NEVER: Coarse = Coarse(u32::MAX);

/// Bits of a nanosecond count that a unit leaves out.
const SHIFT: u32 = 20;
/// How far ahead a deadline may be, in nanoseconds: 13 days, half of what can be compared, so
/// that the sweep has as long again to come by.
const HORIZON: u64 = 1 << (SHIFT + 30);

impl Coarse {
    /// More than all but the furthest deadlines are ahead.
    pub(super) const FAR: u32 = (1 << 30) - 1;

    /// The last moment that is not after this many nanoseconds.
    fn floor(nanoseconds: u64) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "time is kept modulo 2^32 units")]
        let units = (nanoseconds >> SHIFT) as u32;
        Self(if units == NEVER.0 { units - 1 } else { units })
    }

    #[inline(always)]
    pub(super) fn is_before(self, other: Self) -> bool {
        self != NEVER && (other == NEVER || self.0.wrapping_sub(other.0).cast_signed() < 0)
    }

    /// Whether this deadline is now or before.
    #[inline(always)]
    pub(super) fn has_passed(self, now: Self) -> bool {
        (self != NEVER) & (now.0.wrapping_sub(self.0).cast_signed() >= 0)
    }

    /// Units from now to this deadline, at most [`Coarse::FAR`]: none once it has passed.
    #[inline(always)]
    pub(super) fn ahead_of(self, now: Self) -> u32 {
        let ahead = self.0.wrapping_sub(now.0).cast_signed().max(0).cast_unsigned();
        if self == NEVER { Self::FAR } else { ahead.min(Self::FAR) }
    }
}

/// The last time that was told; it never goes back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticker(u64);

impl Ticker {
    pub(super) fn advance(&mut self, now: Instant) -> Coarse {
        self.0 = self.0.max(now.as_nanoseconds());
        Coarse::floor(self.0)
    }

    /// A deadline, rounded up to a unit, and at most the horizon away unless it never comes.
    #[inline]
    pub(super) fn deadline(self, deadline: Instant) -> Coarse {
        if deadline == Instant::NEVER {
            return NEVER;
        }
        let nanoseconds = deadline.as_nanoseconds().min(self.0.saturating_add(HORIZON));
        // One that has passed long ago must not look like one to come.
        let nanoseconds = nanoseconds.max(self.0.saturating_sub(HORIZON));
        Coarse::floor(nanoseconds.saturating_add((1 << SHIFT) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DAY: u64 = 24 * 3600 * 1_000_000_000;

    #[test]
    fn a_deadline_passes_within_a_unit_of_its_time_and_not_before_on_any_day() {
        for day in [0, 1, 25, 26, 27, 51, 52, 53, 100, 10_000, 200_000] {
            let (mut ticker, start) = (Ticker::default(), day * DAY);
            ticker.advance(Instant::from_nanoseconds(start));
            for ahead in [0, 1, (1 << SHIFT) - 1, 1 << SHIFT, 5_000_000_000, 12 * DAY] {
                let deadline = ticker.deadline(Instant::from_nanoseconds(start + ahead));
                if ahead > 0 {
                    let before = Ticker::default().advance(Instant::from_nanoseconds(start + ahead - 1));
                    assert!(!deadline.has_passed(before) || before == deadline, "day {day}, {ahead} ns");
                    assert!(!deadline.has_passed(Coarse::floor(start + ahead - 1)) || ahead - 1 == 0 && start == 0);
                }
                assert!(deadline.has_passed(Coarse::floor(start + ahead + (1 << SHIFT))), "day {day}, {ahead} ns");
            }
        }
    }

    #[test]
    fn a_deadline_out_of_sight_is_at_the_horizon() {
        let mut ticker = Ticker::default();
        let now = Instant::START + Duration::from_secs(100 * 24 * 3600);
        let coarse = ticker.advance(now);
        let late = ticker.deadline(Instant::from_nanoseconds(u64::MAX - 1));
        assert!(coarse.is_before(late));
        assert!(late.has_passed(Coarse::floor(now.as_nanoseconds() + HORIZON + (1 << SHIFT))));
        assert!(ticker.deadline(Instant::START).has_passed(coarse), "long ago");
    }

    #[test]
    fn what_never_comes_is_behind_all_that_does() {
        let never = Ticker::default().deadline(Instant::NEVER);
        for units in [0, 1, 1 << 31, u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 32] {
            let time = Coarse::floor(units << SHIFT);
            assert!(!never.has_passed(time) && time.is_before(never) && !never.is_before(time), "{units}");
            assert!(time.has_passed(time), "{units}");
        }
        assert!(!never.is_before(never));
    }

    #[test]
    fn time_does_not_go_back() {
        let mut ticker = Ticker::default();
        let late = ticker.advance(Instant::from_nanoseconds(DAY));
        assert_eq!(ticker.advance(Instant::START), late);
    }
}
