//! How often something may be done.

use crate::time::Instant;
use std::time::Duration;

/// A token bucket that is full at first. Its content is time: one token is as many nanoseconds as
/// pass between two at its rate.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: TokenRate,
    level: TokenLevel,
}

/// How fast a bucket fills and how much is in a full one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenRate {
    /// Nanoseconds.
    token: u64,
    most: u64,
}

/// What is in a bucket: by itself where many have one rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenLevel {
    content: u64,
    filled: Instant,
}

impl TokenBucket {
    /// Of so many in a second, and so many at once after a while without.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::of(TokenRate::new(per_second, burst))
    }

    /// Of this rate.
    #[must_use]
    pub fn of(rate: TokenRate) -> Self {
        Self { rate, level: TokenLevel::FULL }
    }

    /// For so many ICMP errors in a second: RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f).
    pub(crate) fn of_errors(per_second: u32) -> Self {
        Self::new(per_second, per_second.div_ceil(10))
    }

    /// Its rate.
    #[must_use]
    pub fn rate(&self) -> TokenRate {
        self.rate
    }

    /// The same bucket at another rate: its tokens stay, as far as they fit.
    #[must_use]
    pub fn at(self, rate: TokenRate) -> Self {
        let tokens = self.level.content.min(self.rate.most) / self.rate.token;
        let content = tokens.saturating_mul(rate.token).min(rate.most);
        Self { rate, level: TokenLevel { content, ..self.level } }
    }

    /// Takes a token, if there is one.
    #[inline]
    pub fn take(&mut self, now: Instant) -> bool {
        self.rate.take(&mut self.level, now)
    }
}

impl TokenLevel {
    /// Of a full bucket, whatever its rate.
    pub const FULL: Self = Self { content: u64::MAX, filled: Instant::START };
}

impl TokenRate {
    /// So many in a second, and so many at once after a while without.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::shared(per_second, burst, 1)
    }

    /// What each of some workers has of so many in a second, and of so many at once.
    #[must_use]
    pub fn shared(per_second: u32, burst: u32, workers: usize) -> Self {
        let workers = workers.max(1) as u64;
        let token = (1_000_000_000 * workers / u64::from(per_second.max(1))).max(1);
        Self { token, most: token.saturating_mul(u64::from(burst) / workers) }
    }

    /// How long an empty bucket takes to be full.
    #[must_use]
    pub fn time_to_fill(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// Takes a token out of a bucket of this rate, if there is one.
    #[inline]
    pub fn take(&self, level: &mut TokenLevel, now: Instant) -> bool {
        let passed = now.as_nanoseconds().saturating_sub(level.filled.as_nanoseconds());
        level.content = level.content.saturating_add(passed).min(self.most);
        level.filled = level.filled.max(now);
        let enough = level.content >= self.token;
        if enough {
            level.content -= self.token;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_what_the_rate_allows() {
        let mut bucket = TokenBucket::new(10, 3);
        // milliseconds, tries, granted
        for (at, tries, granted) in
            [(5000, 5, 3), (5099, 1, 0), (5100, 2, 1), (5000, 1, 0), (5350, 5, 2), (99_000, 9, 3)]
        {
            let now = Instant::from_nanoseconds(at * 1_000_000);
            assert_eq!((0..tries).filter(|_| bucket.take(now)).count(), granted, "at {at} ms");
        }
    }
    #[test]
    fn a_bucket_gets_another_rate_and_no_tokens() {
        let now = Instant::from_nanoseconds(5_000_000_000);
        for (left, rate, granted) in [(2, (10, 9), 2), (2, (1000, 9), 2), (2, (10, 1), 1), (0, (1000, 9), 0)] {
            let mut bucket = TokenBucket::new(10, 3);
            (0..3 - left).for_each(|_| assert!(bucket.take(now)));
            let mut bucket = bucket.at(TokenRate::new(rate.0, rate.1));
            assert_eq!((0..9).filter(|_| bucket.take(now)).count(), granted, "{left} {rate:?}");
        }
    }

    #[test]
    fn workers_share_a_rate() {
        let now = Instant::from_nanoseconds(5_000_000_000);
        let rate = TokenRate::shared(10, 9, 2);
        let mut level = TokenLevel::FULL;
        assert_eq!((0..9).filter(|_| rate.take(&mut level, now)).count(), 4);
        let later = now + rate.time_to_fill();
        assert_eq!(rate.time_to_fill(), Duration::from_millis(800));
        assert_eq!((0..9).filter(|_| rate.take(&mut level, later)).count(), 4);
    }
}
