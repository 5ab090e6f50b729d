//! The tables of connections, one for each family, and what is counted of them: by source, and the half open
//! ones of each rule.

use super::config::Config;
use super::connection::{Connection, Ends, FlowKey, Generation, KeyV4, KeyV6};
use super::policy::Policy;
use super::refusal::Refusal;
use super::sources::Sources;
use super::timer::Timer;
use nf_framework::headers::IpProtocol;
use nf_framework::{
    Class, Deadline, FlowTable, FlowTableCounters, FlowTableError, Handle, HashKey, Insertion, Instant, Memory,
    Removed, WorkerSetup,
};
use std::net::IpAddr;
use std::ops::Range;

pub(super) type Table<K> = FlowTable<K, Connection>;

/// All connections of a worker.
#[derive(Debug)]
pub(super) struct Tracking {
    pub(super) v4: Table<KeyV4>,
    pub(super) v6: Table<KeyV6>,
    counts: Counts,
    /// By [`Timer`], when a connection ends that is used now.
    pub(super) deadlines: [Deadline; Timer::COUNT],
    /// What they were made for.
    reckoned: Option<Instant>,
    sweep_v6: bool,
    judgements: Judgements,
}

/// Which rules judge. What older ones have judged is made stale a part of the tables at a time, so that none is left of a
/// generation whose number comes again.
#[derive(Clone, Copy, Debug)]
struct Judgements {
    now: Generation,
    /// Nothing is left of those before it.
    oldest: Generation,
    /// How far the tables have been looked through, and what was now when that began.
    walk: Option<(usize, Generation)>,
}

/// What is counted of connections.
#[derive(Debug)]
struct Counts {
    sources: Option<Sources>,
    /// By slot, those that are half open, of rules that limit them.
    embryonic: Vec<u32>,
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
            v6: FlowTable::with_capacity(memory, config.connections_v6(), HashKey::random())?,
            counts: Counts {
                sources: Sources::new(config, Self::most(config), memory, workers)?,
                embryonic: Vec::new(),
            },
            deadlines: [Deadline::default(); Timer::COUNT],
            reckoned: None,
            sweep_v6: false,
            judgements: Judgements { now: Generation::FIRST, oldest: Generation::FIRST, walk: None },
        })
    }

    /// Shows how full the tables are. That of the sources has room for those of all connections.
    pub(super) fn show(&mut self, worker: &mut WorkerSetup) {
        self.v4.show(worker.occupancy("connections-ipv4"));
        self.v6.show(worker.occupancy("connections-ipv6"));
    }

    /// Bytes that a worker's tables take.
    pub(super) fn bytes(config: &Config) -> usize {
        let tables = Table::<KeyV4>::bytes(config.connections) + Table::<KeyV6>::bytes(config.connections_v6());
        tables + Sources::bytes(config, Self::most(config))
    }

    /// Connections that there may be at once: tables have an eighth more places than was asked for, in full rows.
    fn most(config: &Config) -> usize {
        [config.connections, config.connections_v6()].into_iter().map(|entries| entries + entries / 8 + 64).sum()
    }

    /// Goes on with another configuration, in which rules have so many slots.
    pub(super) fn adopt(&mut self, config: &Config, slots: usize, workers: usize) {
        self.reckoned = None;
        let Counts { sources, embryonic } = &mut self.counts;
        embryonic.resize(slots.max(embryonic.len()), 0);
        if let Some(sources) = sources {
            sources.adopt(config, workers);
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
        let counts = &mut self.counts;
        let connection = match place {
            Place::V4(handle) => self.v4.entry_mut(handle).map(|entry| entry.value),
            Place::V6(handle) => self.v6.entry_mut(handle).map(|entry| entry.value),
        };
        let Some(connection) = connection else { return };
        let (timer, class) = (connection.timer(protocol), connection.class(protocol));
        if connection.is_counted() && !connection.tcp.is_embryonic() {
            counts.is_open(connection);
        }
        let Some(deadline) = self.deadlines.get(timer as usize).copied() else { return };
        match place {
            Place::V4(handle) => settle(&mut self.v4, handle, deadline, class),
            Place::V6(handle) => settle(&mut self.v6, handle, deadline, class),
        }
    }

    /// Begins a connection, in place of one with its key that is over. So many of its slot may be half open, if that is limited.
    /// Limits are asked first, so that what is over stays what it was where nothing begins.
    pub(super) fn begin(
        &mut self,
        key: &FlowKey,
        mut connection: Connection,
        source: IpAddr,
        embryonic: Option<u32>,
        (timeout, now): (Instant, Instant),
    ) -> Result<Place, Refusal> {
        if let Some(most) = embryonic.filter(|_| connection.tcp.is_embryonic()) {
            self.counts.begin_embryonic(&mut connection, most)?;
        }
        let protocol = key.protocol();
        let over = if protocol == IpProtocol::TCP { self.find(key) } else { None };
        let ends = match key {
            FlowKey::V4(key) => key.ends(),
            FlowKey::V6(key) => key.ends(),
        };
        let before = over.and_then(|over| self.get(over)).map(|over| originator(ends, over));
        let begun = self.counts.sources.as_mut().map_or(Ok(()), |sources| sources.begin(source, before, now));
        if let Err(refusal) = begun {
            self.counts.is_open(&mut connection);
            return Err(refusal);
        }
        // Its place is free then, so that a full table refuses nothing that comes instead.
        if let Some(over) = over {
            self.end(over);
        }
        let (class, Self { v4, v6, counts, .. }) = (connection.class(protocol), self);
        let place = match key {
            FlowKey::V4(key) => insert(v4, *key, (connection, class), (timeout, now), counts).map(Place::V4),
            FlowKey::V6(key) => insert(v6, *key, (connection, class), (timeout, now), counts).map(Place::V6),
        };
        if place.is_none() {
            counts.is_open(&mut connection);
            if let Some(sources) = &mut counts.sources {
                sources.end(source);
            }
        }
        place.ok_or(Refusal::Full)
    }

    /// A connection is of another slot from here on, and not counted there.
    pub(super) fn move_to(&mut self, place: Place, slot: u16) {
        let connection = match place {
            Place::V4(handle) => self.v4.entry_mut(handle).map(|entry| entry.value),
            Place::V6(handle) => self.v6.entry_mut(handle).map(|entry| entry.value),
        };
        if let Some(connection) = connection {
            self.counts.is_open(connection);
            connection.slot = slot;
        }
    }

    /// Ends a connection.
    pub(super) fn end(&mut self, place: Place) {
        let Self { v4, v6, counts, .. } = self;
        match place {
            Place::V4(handle) => {
                if let Some(removed) = v4.remove(handle) {
                    counts.gone(&removed);
                }
            }
            Place::V6(handle) => {
                if let Some(removed) = v6.remove(handle) {
                    counts.gone(&removed);
                }
            }
        }
    }

    /// Lets go of what has expired, a part of the tables at a time.
    pub(super) fn tick(&mut self, now: Instant, budget: u32) {
        let Self { v4, v6, counts, .. } = self;
        self.sweep_v6 = !self.sweep_v6;
        if self.sweep_v6 {
            v6.expire(now, budget, |removed| counts.gone(&removed));
        } else {
            v4.expire(now, budget, |removed| counts.gone(&removed));
        }
        self.walk(budget as usize);
    }

    /// The rules that judge.
    #[inline]
    pub(super) fn generation(&self) -> Generation {
        self.judgements.now
    }

    /// Other rules judge from here on.
    pub(super) fn outdate(&mut self) {
        let next = self.judgements.now.next();
        // So many reloads in less time than a look through the tables takes.
        if next == self.judgements.oldest {
            self.walk(usize::MAX);
        }
        self.judgements.now = next;
    }

    /// Makes stale what older rules have judged, in so many slots.
    fn walk(&mut self, slots: usize) {
        let Judgements { now, oldest, walk } = self.judgements;
        if now == oldest {
            return;
        }
        let (from, began) = walk.unwrap_or((0, now));
        let (v4, all) = (self.v4.slots(), self.v4.slots() + self.v6.slots());
        let to = from.saturating_add(slots).min(all);
        outdate(&mut self.v4, from..to.min(v4), now);
        outdate(&mut self.v6, from.saturating_sub(v4)..to.saturating_sub(v4), now);
        self.judgements = if to == all {
            Judgements { now, oldest: began, walk: None }
        } else {
            Judgements { now, oldest, walk: Some((to, began)) }
        };
    }

    /// Connections of a slot that are half open, if they are limited.
    pub(super) fn embryonic(&self, slot: u16) -> u32 {
        self.counts.embryonic.get(usize::from(slot)).copied().unwrap_or(0)
    }

    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.v4.len(), self.v6.len())
    }

    pub(super) fn counters(&self) -> [&FlowTableCounters; 2] {
        [self.v4.counters(), self.v6.counters()]
    }
}

fn outdate<K: Ends>(table: &mut Table<K>, slots: Range<usize>, now: Generation) {
    for slot in slots {
        let Some((handle, ..)) = table.entries_in(slot..slot + 1).next() else { continue };
        if let Some(entry) = table.entry_mut(handle).filter(|entry| entry.value.generation() != now) {
            entry.value.set_generation(Generation::STALE);
        }
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
    (connection, class): (Connection, Class),
    (timeout, now): (Instant, Instant),
    counts: &mut Counts,
) -> Option<Handle> {
    let removed = |removed: Removed<K, Connection>| counts.gone(&removed);
    let inserted = table.insert(key, connection, class, now, timeout, removed);
    inserted.ok().map(|inserted| match inserted {
        Insertion::New(handle) | Insertion::Existing(handle, _) => handle,
    })
}

impl Counts {
    /// Counts a connection that begins, if it may.
    fn begin_embryonic(&mut self, connection: &mut Connection, most: u32) -> Result<(), Refusal> {
        let Some(count) = self.embryonic.get_mut(usize::from(connection.slot)) else { return Ok(()) };
        if *count >= most {
            return Err(Refusal::EmbryonicLimit);
        }
        *count += 1;
        connection.set_counted(true);
        Ok(())
    }

    /// A connection is not half open, or not there.
    fn is_open(&mut self, connection: &mut Connection) {
        if !connection.is_counted() {
            return;
        }
        connection.set_counted(false);
        if let Some(count) = self.embryonic.get_mut(usize::from(connection.slot)) {
            *count = count.saturating_sub(1);
        }
    }

    fn gone<K: Ends>(&mut self, removed: &Removed<K, Connection>) {
        let mut connection = removed.value;
        self.is_open(&mut connection);
        if let Some(sources) = &mut self.sources {
            sources.end(originator(removed.key.ends(), &connection));
        }
    }
}

/// Who began a connection between these ends.
fn originator((low, high): ((IpAddr, u16), (IpAddr, u16)), connection: &Connection) -> IpAddr {
    if connection.low_began() { low.0 } else { high.0 }
}
