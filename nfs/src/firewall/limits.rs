//! How much rules accept in a second.

use super::config::LimitConfig;
use nf_framework::Instant;

/// A worker's share of a rule's limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limit {
    connections: Option<Bucket>,
    packets: Option<Bucket>,
}

/// Tokens, kept as the time that it takes to earn them.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Nanoseconds for one.
    token: u64,
    most: u64,
    content: u64,
    filled: Instant,
}

impl Limit {
    pub(super) fn new(config: &LimitConfig, workers: usize) -> Self {
        let bucket = |per_second: u32| Bucket::new(per_second, config.burst, workers as u64);
        Self { connections: config.connections_per_second.map(bucket), packets: config.packets_per_second.map(bucket) }
    }

    /// The same after a reload: what is saved up stays, as far as the new limit lets it.
    pub(super) fn following(mut self, before: &Self) -> Self {
        for (new, old) in [(&mut self.connections, &before.connections), (&mut self.packets, &before.packets)] {
            if let (Some(new), Some(old)) = (new, old) {
                let tokens = old.content / old.token.max(1);
                new.content = tokens.saturating_mul(new.token).min(new.most);
                new.filled = old.filled;
            }
        }
        self
    }

    /// Whether one more connection is within the limit.
    pub(super) fn connection(&mut self, now: Instant) -> bool {
        self.connections.as_mut().is_none_or(|bucket| bucket.take(now))
    }

    /// Whether one more packet is.
    #[inline]
    pub(super) fn packet(&mut self, now: Instant) -> bool {
        self.packets.as_mut().is_none_or(|bucket| bucket.take(now))
    }

    /// Whether packets are limited at all.
    pub(super) fn is_of_packets(&self) -> bool {
        self.packets.is_some()
    }
}

impl Bucket {
    fn new(per_second: u32, burst: Option<u32>, workers: u64) -> Self {
        let token = (1_000_000_000 * workers / u64::from(per_second.max(1))).max(1);
        let burst = u64::from(burst.unwrap_or(per_second.div_ceil(10))) / workers;
        let most = token.saturating_mul(burst.max(1));
        Self { token, most, content: most, filled: Instant::START }
    }

    fn take(&mut self, now: Instant) -> bool {
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
        let config = LimitConfig { connections_per_second: Some(10), burst: Some(4), ..LimitConfig::default() };
        // At this millisecond, so many of six tries: with one worker, and with two.
        for (workers, granted) in [(1, [(5000, 4), (5100, 1), (5400, 3)]), (2, [(5000, 2), (5100, 0), (5400, 2)])] {
            let mut limit = Limit::new(&config, workers);
            for (at, expected) in granted {
                let now = Instant::from_nanoseconds(at * 1_000_000);
                assert_eq!((0..6).filter(|_| limit.connection(now)).count(), expected, "{workers} at {at} ms");
            }
            assert!((0..100).all(|_| limit.packet(Instant::START)), "packets are not limited");
        }
    }

    #[test]
    fn a_reload_gives_no_tokens_away() {
        let of =
            |per_second| LimitConfig { packets_per_second: Some(per_second), burst: Some(2), ..Default::default() };
        let mut before = Limit::new(&of(10), 1);
        assert!(before.packet(Instant::START) && before.packet(Instant::START));
        let mut after = Limit::new(&of(1000), 1).following(&before);
        assert!(!after.packet(Instant::START) && after.is_of_packets());
        assert!(after.packet(Instant::from_nanoseconds(1_000_000)));
    }
}
