//! The weight of a backend that has come back: from a tenth to all of it, in tenths.

use std::time::Duration;

/// All of a weight.
pub(crate) const WHOLE: u8 = 10;

/// How many tenths of its weight a backend has that has been up for so long.
pub(super) fn tenths(up_for: Duration, slow_start: Duration) -> u8 {
    if up_for >= slow_start {
        return WHOLE;
    }
    let grown = up_for.as_nanos() * u128::from(WHOLE) / slow_start.as_nanos().max(1);
    u8::try_from(grown).unwrap_or(WHOLE).clamp(1, WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_grows_from_a_tenth_to_the_whole() {
        let slow_start = Duration::from_secs(20);
        let cases = [(0, 1), (1999, 1), (3999, 1), (4000, 2), (10_000, 5), (19_999, 9), (20_000, 10), (99_000, 10)];
        for (milliseconds, expected) in cases {
            assert_eq!(tenths(Duration::from_millis(milliseconds), slow_start), expected, "{milliseconds}");
        }
        assert_eq!(tenths(Duration::ZERO, Duration::ZERO), WHOLE);
    }
}
