//! How often something may be done.

use crate::time::Instant;

/// A token bucket that is full at first. Its content is time: one token is as many nanoseconds as
/// pass between two at its rate.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    token: u64,
    most: u64,
    content: u64,
    filled: Instant,
}

impl TokenBucket {
    /// Of so many in a second, and so many at once after a while without.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let token = 1_000_000_000 / u64::from(per_second.max(1));
        let most = token * u64::from(burst);
        Self { token, most, content: most, filled: Instant::START }
    }

    /// For so many ICMP errors in a second: RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f).
    pub(crate) fn of_errors(per_second: u32) -> Self {
        Self::new(per_second, per_second.div_ceil(10))
    }

    /// Takes a token, if there is one.
    #[inline]
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.as_nanoseconds().saturating_sub(self.filled.as_nanoseconds());
        self.content = self.content.saturating_add(passed).min(self.most);
        self.filled = self.filled.max(now);
        let enough = self.content >= self.token;
        if enough {
            self.content -= self.token;
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
}
