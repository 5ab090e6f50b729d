//! The connections of one worker: which backend each flow is on.
//!
//! What began and was not heard of again makes room first. What goes on makes room for nothing, and how many flows are
//! remembered in a second is bounded: so no flood of new ones can wash the live ones out.

use super::config::Config;
use super::counters::OfWorker;
use super::flow::{Key, KeyV4, KeyV6};
use super::policy::{Policy, Timer};
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::{
    Class, Deadline, FlowKey, FlowTable, FlowTableError, Handle, HashKey, Insertion, Instant, Memory, Removal, Removed,
    TokenBucket, WorkerSetup,
};
use std::time::Duration;

/// What is known of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Connection {
    /// The slot of its backend.
    pub(super) backend: u16,
    pub(super) stage: Stage,
    pub(super) timer: Timer,
    /// Of the modes that translate: what they keep of it.
    pub(super) port: u16,
    pub(super) source: u8,
    /// [`TRANSLATED`](Self::TRANSLATED), [`INTRODUCED`](Self::INTRODUCED), [`ANSWERED`](Self::ANSWERED).
    pub(super) marks: u8,
}

/// How far it is, as far as its packets tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum Stage {
    /// Only what begins it was seen: SYNs, or one packet of what has none.
    #[default]
    Begun,
    /// One segment from its midst was seen.
    Midway,
    /// There was more.
    Established,
    /// Its client has ended it.
    Closing,
    /// Its client has reset it.
    Reset,
}

impl Stage {
    /// Of a TCP connection of which this is the first segment that was seen.
    pub(super) fn first(flags: TcpFlags) -> Self {
        match flags {
            flags if flags.contains(TcpFlags::RST) => Self::Reset,
            flags if flags.contains(TcpFlags::SYN) => Self::Begun,
            _ => Self::Midway,
        }
    }

    /// Of a TCP connection after another segment of its client's.
    pub(super) fn after(self, flags: TcpFlags) -> Self {
        if flags.contains(TcpFlags::RST) {
            return Self::Reset;
        }
        match self {
            // RFC 7857 section 2.2: traffic behind a reset says that it was none.
            _ if flags.contains(TcpFlags::FIN) => Self::Closing,
            Self::Begun | Self::Midway if flags.contains(TcpFlags::SYN) => Self::Begun,
            Self::Begun | Self::Midway | Self::Reset => Self::Established,
            stage => stage,
        }
    }

    /// What a connection that is so far is timed by.
    pub(super) fn timer(self, protocol: IpProtocol) -> Timer {
        match self {
            _ if protocol != IpProtocol::TCP => Timer::Udp,
            Self::Begun | Self::Midway => Timer::Syn,
            Self::Established => Timer::Established,
            Self::Closing | Self::Reset => Timer::Closing,
        }
    }

    /// Whether a SYN begins another connection.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Closing | Self::Reset)
    }
}

/// There is no room for a flow: all others are worth more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// Most entries that go before [`Connections::gone`] is emptied: in a tick, of which each family has a half.
const GONE: u16 = 256;

/// One worker's.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) v4: FlowTable<KeyV4, Connection>,
    pub(super) v6: FlowTable<KeyV6, Connection>,
    pub(super) backends: OfWorker,
    /// For SYNs, and for what else has no entry.
    beginnings: TokenBucket,
    others: TokenBucket,
    /// Those that have ended and held something, which whoever let them end gives back at once.
    pub(super) gone: Vec<(Key, Connection)>,
}

impl Connections {
    pub(super) fn new(config: &Config, memory: &Memory, backends: OfWorker) -> Result<Self, FlowTableError> {
        let bucket = || TokenBucket::new(config.insertions_per_second, config.insertions_per_second.div_ceil(10));
        Ok(Self {
            v4: FlowTable::with_capacity(memory, config.connections, HashKey::random())?,
            v6: FlowTable::with_capacity(memory, config.connections_ipv6, HashKey::random())?,
            backends,
            beginnings: bucket(),
            others: bucket(),
            gone: Vec::with_capacity(GONE.into()),
        })
    }

    /// Shows how full the tables are.
    pub(super) fn show(&mut self, worker: &mut WorkerSetup) {
        self.v4.show(worker.occupancy("connections-ipv4"));
        self.v6.show(worker.occupancy("connections-ipv6"));
    }

    /// Bytes that they take.
    pub(super) fn bytes(config: &Config) -> usize {
        FlowTable::<KeyV4, Connection>::bytes(config.connections)
            + FlowTable::<KeyV6, Connection>::bytes(config.connections_ipv6)
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// What is known of a flow.
    pub(super) fn find(&self, key: &Key) -> Option<(Handle, Connection)> {
        match key {
            Key::V4(key) => found(&self.v4, key),
            Key::V6(key) => found(&self.v6, key),
        }
    }

    /// Writes what is known of a flow now, which begins or goes on by it.
    pub(super) fn write(&mut self, key: &Key, handle: Handle, connection: Connection, deadline: Deadline) {
        let before = match key {
            Key::V4(_) => written(&mut self.v4, handle, connection, deadline),
            Key::V6(_) => written(&mut self.v6, handle, connection, deadline),
        };
        let Some(before) = before else { return };
        let is_another = before.stage.is_over() && connection.stage == Stage::Begun;
        if is_another || before.backend != connection.backend {
            self.backends.ended(before.backend, false);
            self.backends.begun(connection.backend);
        }
        let class = connection.class();
        if before.class() == class {
            return;
        }
        match key {
            Key::V4(_) => self.v4.reclassify(handle, class),
            Key::V6(_) => self.v6.reclassify(handle, class),
        };
    }

    /// Whether one more flow may be remembered now.
    pub(super) fn admits(&mut self, is_syn: bool, now: Instant) -> bool {
        if is_syn { self.beginnings.take(now) } else { self.others.take(now) }
    }

    /// Remembers a flow. What was known of it already stands; that is the answer.
    pub(super) fn begin(
        &mut self,
        key: &Key,
        connection: Connection,
        now: Instant,
        lifetime: Duration,
    ) -> Result<Connection, Full> {
        let Self { v4, v6, backends, gone, .. } = self;
        let deadline = now + lifetime;
        let begun = match key {
            Key::V4(key) => {
                insert(v4, *key, connection, (now, deadline), |old| note(backends, gone, Key::V4(old.key), &old))
            }
            Key::V6(key) => {
                insert(v6, *key, connection, (now, deadline), |old| note(backends, gone, Key::V6(old.key), &old))
            }
        };
        match begun {
            Some(None) => {
                self.backends.begun(connection.backend);
                Ok(connection)
            }
            Some(Some(known)) => Ok(known),
            None => Err(Full),
        }
    }

    /// Takes an entry out.
    pub(super) fn end(&mut self, key: &Key, handle: Handle) {
        let Self { v4, v6, backends, gone, .. } = self;
        match key {
            Key::V4(key) => drop(v4.remove(handle).map(|old| note(backends, gone, Key::V4(*key), &old))),
            Key::V6(key) => drop(v6.remove(handle).map(|old| note(backends, gone, Key::V6(*key), &old))),
        }
    }

    /// What one tick looks at in each table, so that [`gone`](Self::gone) has room for all that goes.
    pub(super) const PER_TICK: u32 = GONE as u32 / 2;

    /// Lets go of what has expired among the next [`PER_TICK`](Self::PER_TICK) places; [`gone`](Self::gone) is to be empty.
    pub(super) fn tick(&mut self, now: Instant) {
        let Self { v4, v6, backends, gone, .. } = self;
        let budget = Self::PER_TICK;
        v4.expire(now, budget, |old| note(backends, gone, Key::V4(old.key), &old));
        v6.expire(now, budget, |old| note(backends, gone, Key::V6(old.key), &old));
    }

    /// When flows of each kind end that are used now.
    pub(super) fn deadlines(&self, policy: &Policy, now: Instant) -> [Deadline; Timer::COUNT] {
        // The tables have one clock.
        policy.timeouts.map(|timeout| self.v4.deadline(now + timeout))
    }
}

impl Connection {
    /// It has an entry for answers.
    pub(super) const TRANSLATED: u8 = 1;
    /// Its backend has the header of the PROXY protocol, or is to have none.
    pub(super) const INTRODUCED: u8 = 2;
    /// Its backend has answered.
    pub(super) const ANSWERED: u8 = 4;

    /// One that begins with this packet: what was seen once is timed as SYNs are, whatever it says.
    pub(super) fn first(backend: u16, protocol: IpProtocol, flags: TcpFlags) -> Self {
        let is_tcp = protocol == IpProtocol::TCP;
        let stage = if is_tcp { Stage::first(flags) } else { Stage::Begun };
        Self { backend, stage, timer: Stage::Begun.timer(protocol), ..Self::default() }
    }

    /// Another packet of its client's came.
    pub(super) fn hear_client(&mut self, protocol: IpProtocol, flags: TcpFlags) {
        let after = if protocol == IpProtocol::TCP { self.stage.after(flags) } else { Stage::Established };
        // A client that nobody has answered may be anybody, with any address.
        if after != Stage::Established || self.is_heard() || protocol != IpProtocol::TCP {
            self.stage = after;
        }
        self.set_timer(protocol);
    }

    /// A packet of its backend's came; whether that refuses it.
    pub(super) fn hear_backend(&mut self, protocol: IpProtocol, flags: TcpFlags) -> bool {
        let mut is_refused = false;
        if protocol == IpProtocol::TCP && flags.contains(TcpFlags::RST) {
            is_refused = self.stage == Stage::Begun && !self.is_answered();
            self.stage = Stage::Reset;
        } else {
            self.marks |= Self::ANSWERED;
            if self.stage == Stage::Midway {
                self.stage = Stage::Established;
            }
        }
        self.set_timer(protocol);
        is_refused
    }

    fn set_timer(&mut self, protocol: IpProtocol) {
        self.timer = if self.is_heard() { self.stage } else { Stage::Begun }.timer(protocol);
    }

    /// Whether its backend has answered, where that can be seen.
    fn is_heard(self) -> bool {
        !self.is_translated() || self.is_answered()
    }

    /// What it is worth when there is no room.
    fn class(self) -> Class {
        match self.stage {
            Stage::Established | Stage::Closing if self.is_heard() => Class::ESTABLISHED,
            _ => Class::EMBRYONIC,
        }
    }

    #[inline(always)]
    pub(super) fn is_answered(self) -> bool {
        self.marks & Self::ANSWERED != 0
    }

    /// Whether it holds a port, or an entry elsewhere.
    #[inline(always)]
    pub(super) fn is_translated(self) -> bool {
        self.marks & Self::TRANSLATED != 0
    }

    #[inline(always)]
    pub(super) fn is_introduced(self) -> bool {
        self.marks & Self::INTRODUCED != 0
    }
}

fn found<K: FlowKey>(table: &FlowTable<K, Connection>, key: &K) -> Option<(Handle, Connection)> {
    let handle = table.lookup(key)?;
    Some((handle, *table.entry(handle)?.1))
}

/// What stood there before.
fn written<K: FlowKey>(
    table: &mut FlowTable<K, Connection>,
    handle: Handle,
    connection: Connection,
    deadline: Deadline,
) -> Option<Connection> {
    let mut entry = table.entry_mut(handle)?;
    let before = std::mem::replace(entry.value, connection);
    entry.touch(deadline);
    Some(before)
}

/// Nothing if there is no room; else what was there already.
fn insert<K: FlowKey>(
    table: &mut FlowTable<K, Connection>,
    key: K,
    connection: Connection,
    (now, deadline): (Instant, Instant),
    removed: impl FnMut(Removed<K, Connection>),
) -> Option<Option<Connection>> {
    match table.insert(key, connection, Class::EMBRYONIC, now, deadline, removed).ok()? {
        Insertion::New(_) => Some(None),
        Insertion::Existing(handle, _) => Some(table.entry(handle).map(|(_, known)| *known)),
    }
}

/// An entry is gone.
fn note<K>(backends: &OfWorker, gone: &mut Vec<(Key, Connection)>, key: Key, old: &Removed<K, Connection>) {
    let failed = old.reason == Removal::Expired && old.value.stage == Stage::Begun && old.value.timer == Timer::Syn;
    backends.ended(old.value.backend, failed);
    if old.value.is_translated() {
        debug_assert!(gone.len() < gone.capacity(), "what one of them held would be lost");
        gone.push((key, old.value));
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::Shared;
    use super::*;
    use nf_framework::testing::lab;

    #[test]
    fn of_all_that_expire_together_each_is_told_of() {
        lab(|lab| {
            let text = "connections = 4096\nconnections_ipv6 = 4096\nservices = []";
            let config: Config = toml::from_str(text).unwrap();
            let mut of = Connections::new(&config, &lab.eal.memory(), Shared::default().of_worker(0)).unwrap();
            let connection = Connection { marks: 1, ..Connection::default() };
            let (start, lifetime) = (Instant::START, Duration::from_secs(1));
            for number in 0..2000_u16 {
                let (mut v4, mut v6) = ([0; 16], [0; 40]);
                for key in [&mut v4[..], &mut v6[..]] {
                    key[..2].copy_from_slice(&number.to_be_bytes());
                }
                for key in [Key::V4(v4), Key::V6(v6)] {
                    assert_eq!(of.begin(&key, connection, start, lifetime), Ok(connection));
                }
            }
            let (room, mut told) = (of.gone.capacity(), 0);
            while of.len() > 0 {
                of.tick(start + 2 * lifetime);
                told += of.gone.drain(..).len();
            }
            assert_eq!((told, of.gone.capacity()), (4000, room), "and nothing was allocated for it");
        });
    }

    #[test]
    fn a_connection_is_as_far_as_its_client_says() {
        const SYN: TcpFlags = TcpFlags::SYN;
        const ACK: TcpFlags = TcpFlags::ACK;
        const FIN_ACK: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
        const RST: TcpFlags = TcpFlags::RST;
        for (what, flags, expected) in [
            ("begun", &[SYN][..], Stage::Begun),
            ("begun again", &[SYN, SYN], Stage::Begun),
            ("answered", &[SYN, ACK], Stage::Established),
            ("in its midst", &[ACK], Stage::Midway),
            ("and going on", &[ACK, ACK], Stage::Established),
            ("in its midst and begun again", &[ACK, SYN], Stage::Begun),
            ("in its midst and ended", &[ACK, FIN_ACK], Stage::Closing),
            ("at its end", &[FIN_ACK], Stage::Midway),
            ("behind its end", &[RST], Stage::Reset),
            ("with a SYN in its midst", &[SYN, ACK, SYN], Stage::Established),
            ("ended", &[SYN, ACK, FIN_ACK], Stage::Closing),
            ("acknowledging after its end", &[SYN, ACK, FIN_ACK, ACK], Stage::Closing),
            ("reset", &[SYN, ACK, RST], Stage::Reset),
            ("reset at once", &[SYN, RST], Stage::Reset),
            ("going on behind a reset", &[SYN, ACK, RST, ACK], Stage::Established),
            ("reset after its end", &[SYN, ACK, FIN_ACK, RST], Stage::Reset),
        ] {
            let stage = flags[1..].iter().fold(Stage::first(flags[0]), |stage, flags| stage.after(*flags));
            assert_eq!(stage, expected, "{what}");
        }
    }
}
