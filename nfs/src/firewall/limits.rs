//! How much rules accept in a second, all together or of each source.

use super::config::LimitConfig;
use super::policy::Policy;
use super::sources::Prefixes;
use nf_framework::{
    Class, FlowTable, FlowTableError, HashKey, Instant, Memory, TokenBucket, TokenLevel, TokenRate, WorkerSetup,
};
use std::net::IpAddr;
use std::time::Duration;

/// A worker's share of the limits of all rules, by slot.
#[derive(Debug)]
pub(super) struct Limits {
    by_slot: Vec<Limit>,
    /// Where some are of each source.
    sources: Option<Sources>,
}

/// A worker's share of a rule's limits.
#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    connections: Option<TokenBucket>,
    packets: Option<TokenBucket>,
    per_source: bool,
    embryonic: Option<u32>,
}

/// What sources have saved up, of connections and of packets.
#[derive(Debug)]
struct Sources {
    table: FlowTable<SourceKey, [TokenLevel; 2]>,
    prefixes: Prefixes,
}

/// A source, and the slot of a rule.
type SourceKey = [u8; 24];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Connections,
    Packets,
}

impl Limits {
    /// Of a program that starts.
    pub(super) fn new(policy: &Policy, memory: &Memory, workers: usize) -> Result<Self, FlowTableError> {
        let sources = policy.limits_sources().then(|| Sources::new(policy, memory)).transpose()?;
        let mut limits = Self { by_slot: Vec::new(), sources };
        limits.adopt(policy, workers);
        Ok(limits)
    }

    /// Shows how many sources are known.
    pub(super) fn show(&mut self, worker: &mut WorkerSetup) {
        if let Some(sources) = &mut self.sources {
            sources.table.show(worker.occupancy("sources"));
        }
    }

    /// Bytes that it takes of a worker's memory.
    pub(super) fn bytes(policy: &Policy) -> usize {
        if policy.limits_sources() { FlowTable::<SourceKey, [TokenLevel; 2]>::bytes(policy.config.sources) } else { 0 }
    }

    /// Goes on with other rules: what is saved up stays, as far as the new limits let it. A slot that none of them has keeps
    /// its limits, for the connections that live on by it.
    pub(super) fn adopt(&mut self, policy: &Policy, workers: usize) {
        self.by_slot.resize(policy.slots().max(self.by_slot.len()), Limit::default());
        for (slot, config) in policy.limits() {
            if let Some(limit) = self.by_slot.get_mut(usize::from(slot)) {
                *limit = config.map_or(Limit::default(), |config| Limit::new(&config, workers).following(limit));
            }
        }
    }

    /// A slot will stand for another rule.
    pub(super) fn forget(&mut self, slot: usize) {
        if let Some(limit) = self.by_slot.get_mut(slot) {
            *limit = Limit::default();
        }
    }

    /// Whether one more connection that this source begins is within the limits of a slot.
    pub(super) fn connection(&mut self, slot: u16, source: IpAddr, now: Instant) -> bool {
        self.take(Of::Connections, slot, source, now)
    }

    /// Whether one more packet is, of a connection that this source has begun.
    #[inline]
    pub(super) fn packet(&mut self, slot: u16, source: IpAddr, now: Instant) -> bool {
        self.take(Of::Packets, slot, source, now)
    }

    /// Whether the packets of a slot are limited at all.
    pub(super) fn are_of_packets(&self, slot: u16) -> bool {
        self.by_slot.get(usize::from(slot)).is_some_and(|limit| limit.packets.is_some())
    }

    /// How many connections of a slot may be half open at once.
    pub(super) fn embryonic(&self, slot: u16) -> Option<u32> {
        self.by_slot.get(usize::from(slot))?.embryonic
    }

    /// Forgets sources that have been quiet for as long as it takes to save up everything.
    pub(super) fn tick(&mut self, now: Instant, budget: u32) {
        if let Some(sources) = &mut self.sources {
            sources.table.expire(now, budget, drop);
        }
    }

    #[inline]
    fn take(&mut self, of: Of, slot: u16, source: IpAddr, now: Instant) -> bool {
        let Some(limit) = self.by_slot.get_mut(usize::from(slot)) else { return true };
        let per_source = limit.per_source;
        let longest = limit.longest();
        let place = match of {
            Of::Connections => &mut limit.connections,
            Of::Packets => &mut limit.packets,
        };
        match (place, &mut self.sources) {
            (None, _) => true,
            (Some(bucket), None) => bucket.take(now),
            (Some(bucket), Some(_)) if !per_source => bucket.take(now),
            (Some(bucket), Some(sources)) => sources.take((slot, source), bucket.rate(), of, longest, now),
        }
    }
}

impl Limit {
    fn new(config: &LimitConfig, workers: usize) -> Self {
        let bucket = |per_second: u32| {
            let burst = config.burst.unwrap_or(per_second.div_ceil(10));
            // Each worker has one at least.
            let burst = burst.max(u32::try_from(workers).unwrap_or(u32::MAX));
            TokenBucket::of(TokenRate::shared(per_second, burst, workers))
        };
        let share = |most: u32| most.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX)).max(1);
        Self {
            connections: config.connections_per_second.map(bucket),
            packets: config.packets_per_second.map(bucket),
            per_source: config.per_source,
            embryonic: config.embryonic.map(share),
        }
    }

    fn following(mut self, before: &Self) -> Self {
        for (new, old) in [(&mut self.connections, &before.connections), (&mut self.packets, &before.packets)] {
            if let (Some(new), Some(old)) = (new, old) {
                *new = old.at(new.rate());
            }
        }
        self
    }

    /// The time in which all is saved up again.
    fn longest(&self) -> Duration {
        let time = |of: &Option<TokenBucket>| of.map_or(Duration::ZERO, |bucket| bucket.rate().time_to_fill());
        time(&self.connections).max(time(&self.packets))
    }
}

impl Sources {
    fn new(policy: &Policy, memory: &Memory) -> Result<Self, FlowTableError> {
        let table = FlowTable::with_capacity(memory, policy.config.sources, HashKey::random())?;
        Ok(Self { table, prefixes: Prefixes::new(&policy.config) })
    }

    /// When there are more sources than it has room for, who was quiet for the longest is forgotten.
    fn take(
        &mut self,
        (slot, source): (u16, IpAddr),
        rate: TokenRate,
        of: Of,
        longest: Duration,
        now: Instant,
    ) -> bool {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&self.prefixes.of(source));
        key[16..18].copy_from_slice(&slot.to_be_bytes());
        let forgotten = now + longest;
        let handle = match self.table.lookup(&key) {
            Some(handle) => handle,
            None => {
                // Each rate takes of it as much as it lets be saved up.
                let full = TokenLevel::FULL;
                match self.table.insert(key, [full; 2], Class::EMBRYONIC, now, forgotten, drop) {
                    Ok(inserted) => inserted.handle(),
                    Err(_) => return false,
                }
            }
        };
        let Some(levels) = self.table.entry_mut(handle).map(|entry| entry.value) else { return false };
        let is_within = rate.take(&mut levels[usize::from(of == Of::Packets)], now);
        self.table.touch(handle, forgotten);
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(config: LimitConfig, workers: usize) -> Limits {
        Limits { by_slot: vec![Limit::new(&config, workers)], sources: None }
    }

    const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_burst_goes_through_and_then_what_the_rate_allows() {
        let config = LimitConfig { connections_per_second: Some(10), burst: Some(4), ..LimitConfig::default() };
        // At this millisecond, so many of six tries: with one worker, and with two.
        for (workers, granted) in [(1, [(5000, 4), (5100, 1), (5400, 3)]), (2, [(5000, 2), (5100, 0), (5400, 2)])] {
            let mut limits = limit(config, workers);
            for (at, expected) in granted {
                let now = Instant::from_nanoseconds(at * 1_000_000);
                let count = (0..6).filter(|_| limits.connection(0, SOMEBODY, now)).count();
                assert_eq!(count, expected, "{workers} at {at} ms");
            }
            assert!((0..100).all(|_| limits.packet(0, SOMEBODY, Instant::START)), "packets are not limited");
            assert!((0..100).all(|_| limits.packet(1, SOMEBODY, Instant::START)), "nor is another slot");
        }
    }

    #[test]
    fn a_reload_gives_no_tokens_away() {
        let of =
            |per_second| LimitConfig { packets_per_second: Some(per_second), burst: Some(2), ..Default::default() };
        let mut before = limit(of(10), 1);
        assert!(before.packet(0, SOMEBODY, Instant::START) && before.packet(0, SOMEBODY, Instant::START));
        let after = Limit::new(&of(1000), 1).following(&before.by_slot[0]);
        let mut after = Limits { by_slot: vec![after], sources: None };
        assert!(!after.packet(0, SOMEBODY, Instant::START) && after.are_of_packets(0));
        assert!(after.packet(0, SOMEBODY, Instant::from_nanoseconds(1_000_000)));
    }
}
