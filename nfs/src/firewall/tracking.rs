//! The tables of connections, one for each family, and who has begun how many.

use super::config::Config;
use super::connection::{Connection, Ends, FlowKey, KeyV4, KeyV6};
use super::policy::Policy;
use super::timer::Timer;
use nf_framework::headers::IpProtocol;
use nf_framework::{
    Class, Deadline, FlowTable, FlowTableCounters, FlowTableError, Handle, HashKey, Insertion, Instant, Memory, Removed,
};
use std::net::IpAddr;

pub(super) type Table<K> = FlowTable<K, Connection>;

/// All connections of a worker.
#[derive(Debug)]
pub(super) struct Tracking {
    pub(super) v4: Table<KeyV4>,
    pub(super) v6: Table<KeyV6>,
    sources: Option<Sources>,
    /// By [`Timer`], when a connection ends that is used now.
    pub(super) deadlines: [Deadline; Timer::COUNT],
    /// What they were made for.
    reckoned: Option<Instant>,
    sweep_v6: bool,
}

/// How many connections each source has begun.
#[derive(Debug)]
struct Sources {
    table: FlowTable<[u8; 16], u32>,
    most: u32,
    bits_v6: u8,
}

/// Why a connection does not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Full,
    SourceLimit,
}

/// A connection's entry, of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    V4(Handle),
    V6(Handle),
}

/// How far apart in time deadlines are made anew: what a table tells apart.
const TICK: u64 = 1 << 20;

impl Tracking {
    pub(super) fn new(config: &Config, memory: &Memory, workers: usize) -> Result<Self, FlowTableError> {
        Ok(Self {
            v4: FlowTable::with_capacity(memory, config.connections, HashKey::random())?,
            v6: FlowTable::with_capacity(memory, config.connections_v6, HashKey::random())?,
            sources: Sources::new(config, memory, workers)?,
            deadlines: [Deadline::default(); Timer::COUNT],
            reckoned: None,
            sweep_v6: false,
        })
    }

    /// Bytes that a worker's tables take.
    pub(super) fn bytes(config: &Config) -> usize {
        let sources = config.connections_per_source.map_or(0, |_| FlowTable::<[u8; 16], u32>::bytes(config.sources));
        Table::<KeyV4>::bytes(config.connections) + Table::<KeyV6>::bytes(config.connections_v6) + sources
    }

    pub(super) fn adopt(&mut self, config: &Config, workers: usize) {
        self.reckoned = None;
        if let (Some(sources), Some(most)) = (&mut self.sources, config.connections_per_source) {
            sources.most = share(most, workers);
        }
    }

    /// Makes the deadlines of what is used at this time.
    #[inline]
    pub(super) fn reckon(&mut self, policy: &Policy, now: Instant) {
        if self.reckoned.is_none_or(|at| now.as_nanoseconds().wrapping_sub(at.as_nanoseconds()) >= TICK) {
            self.deadlines = policy.timeouts.map(|timeout| self.v4.deadline(now + timeout));
            self.reckoned = Some(now);
        }
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<Place> {
        match key {
            FlowKey::V4(key) => self.v4.lookup(key).map(Place::V4),
            FlowKey::V6(key) => self.v6.lookup(key).map(Place::V6),
        }
    }

    pub(super) fn get(&self, place: Place) -> Option<&Connection> {
        match place {
            Place::V4(handle) => self.v4.entry(handle).map(|(_, connection)| connection),
            Place::V6(handle) => self.v6.entry(handle).map(|(_, connection)| connection),
        }
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Connection> {
        match place {
            Place::V4(handle) => self.v4.entry_mut(handle).map(|entry| entry.value),
            Place::V6(handle) => self.v6.entry_mut(handle).map(|entry| entry.value),
        }
    }

    /// Gives a connection the time and the worth that its state has.
    pub(super) fn settle(&mut self, place: Place, protocol: IpProtocol) {
        let Some((timer, established)) =
            self.get(place).map(|connection| (connection.timer(protocol), connection.is_established(protocol)))
        else {
            return;
        };
        let class = if established { Class::ESTABLISHED } else { Class::EMBRYONIC };
        let Some(deadline) = self.deadlines.get(timer as usize).copied() else { return };
        match place {
            Place::V4(handle) => settle(&mut self.v4, handle, deadline, class),
            Place::V6(handle) => settle(&mut self.v6, handle, deadline, class),
        }
    }

    /// Begins a connection, for which there is none yet.
    pub(super) fn begin(
        &mut self,
        key: &FlowKey,
        connection: Connection,
        source: IpAddr,
        (timeout, now): (Instant, Instant),
    ) -> Result<Place, Refusal> {
        let Self { v4, v6, sources, .. } = self;
        if let Some(sources) = sources {
            sources.begin(source, now)?;
        }
        let place = match key {
            FlowKey::V4(key) => insert(v4, *key, connection, (timeout, now), sources).map(Place::V4),
            FlowKey::V6(key) => insert(v6, *key, connection, (timeout, now), sources).map(Place::V6),
        };
        if place.is_none()
            && let Some(sources) = sources
        {
            sources.end(source);
        }
        place.ok_or(Refusal::Full)
    }

    /// Ends a connection.
    pub(super) fn end(&mut self, place: Place) {
        let Self { v4, v6, sources, .. } = self;
        match place {
            Place::V4(handle) => {
                if let Some(removed) = v4.remove(handle) {
                    gone(sources, &removed);
                }
            }
            Place::V6(handle) => {
                if let Some(removed) = v6.remove(handle) {
                    gone(sources, &removed);
                }
            }
        }
    }

    /// Lets go of what has expired, a part of the tables at a time.
    pub(super) fn tick(&mut self, now: Instant, budget: u32) {
        let Self { v4, v6, sources, .. } = self;
        self.sweep_v6 = !self.sweep_v6;
        if self.sweep_v6 {
            v6.expire(now, budget, |removed| gone(sources, &removed));
        } else {
            v4.expire(now, budget, |removed| gone(sources, &removed));
        }
    }

    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.v4.len(), self.v6.len())
    }

    pub(super) fn counters(&self) -> [&FlowTableCounters; 2] {
        [self.v4.counters(), self.v6.counters()]
    }
}

#[inline]
fn settle<K: Ends>(table: &mut Table<K>, handle: Handle, deadline: Deadline, class: Class) {
    if let Some(mut entry) = table.entry_mut(handle) {
        entry.touch(deadline);
    }
    table.reclassify(handle, class);
}

fn insert<K: Ends>(
    table: &mut Table<K>,
    key: K,
    connection: Connection,
    (timeout, now): (Instant, Instant),
    sources: &mut Option<Sources>,
) -> Option<Handle> {
    let removed = |removed: Removed<K, Connection>| gone(sources, &removed);
    let inserted = table.insert(key, connection, Class::EMBRYONIC, now, timeout, removed);
    inserted.ok().map(|inserted| match inserted {
        Insertion::New(handle) | Insertion::Existing(handle, _) => handle,
    })
}

fn gone<K: Ends>(sources: &mut Option<Sources>, removed: &Removed<K, Connection>) {
    if let Some(sources) = sources {
        let (low, high) = removed.key.ends();
        sources.end(if removed.value.low_began() { low.0 } else { high.0 });
    }
}

impl Sources {
    fn new(config: &Config, memory: &Memory, workers: usize) -> Result<Option<Self>, FlowTableError> {
        let Some(most) = config.connections_per_source else { return Ok(None) };
        let table = FlowTable::with_capacity(memory, config.sources, HashKey::random())?;
        Ok(Some(Self { table, most: share(most, workers), bits_v6: config.source_bits_v6 }))
    }

    fn key(&self, source: IpAddr) -> [u8; 16] {
        match source {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => {
                let behind = u128::MAX.checked_shr(self.bits_v6.into()).unwrap_or(0);
                (address.to_bits() & !behind).to_be_bytes()
            }
        }
    }

    fn begin(&mut self, source: IpAddr, now: Instant) -> Result<(), Refusal> {
        let key = self.key(source);
        let handle = match self.table.lookup(&key) {
            Some(handle) => handle,
            None => {
                let inserted = self.table.insert(key, 0, Class::KEPT, now, Instant::NEVER, drop);
                inserted.map_err(|_| Refusal::SourceLimit)?.handle()
            }
        };
        match self.table.entry_mut(handle).map(|entry| entry.value) {
            Some(count) if *count < self.most => *count += 1,
            _ => return Err(Refusal::SourceLimit),
        }
        Ok(())
    }

    fn end(&mut self, source: IpAddr) {
        let key = self.key(source);
        let Some(handle) = self.table.lookup(&key) else { return };
        let left = self.table.entry_mut(handle).map_or(0, |entry| {
            *entry.value = entry.value.saturating_sub(1);
            *entry.value
        });
        if left == 0 {
            let _ = self.table.remove(handle);
        }
    }
}

/// A worker's part of a limit, as flows are spread over all workers.
fn share(most: u32, workers: usize) -> u32 {
    most.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX)).max(1)
}
