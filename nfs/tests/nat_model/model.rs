//! The NAT itself: sessions, mappings, and what becomes of a packet by them.
//!
//! What cannot be foreseen it learns from what left, after a look at whether it was allowed: external
//! ports, identifications, which of several servers.

use crate::nat_model::bytes::{Change, ICMP, Ip, TCP, UDP, be16, checksum, put16, rewrite};
use crate::nat_model::fragments::Ports;
use crate::nat_model::seen::{Seen, Serial, is_error, number};
use crate::nat_model::setting::{Endpoint, Filtering, Setting};
use crate::nat_model::{Nanoseconds, SECOND};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// How long a SYN is held that nobody waits for, and how many are at once.
const SYN_HELD: Nanoseconds = 6 * SECOND;
const MOST_SYNS: usize = 64;

/// Protocol, inside, remote; the identifier of an ICMP query is the inside port.
pub(crate) type SessionKey = (u8, Endpoint, Endpoint);
/// Protocol, inside, pool.
type MappingKey = (u8, Endpoint, usize);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Of UDP and ICMP, all the time.
    Plain,
    Opening,
    Established,
    Closing,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) state: State,
    pub(crate) deadline: Nanoseconds,
    pool: usize,
    /// SYNs and FINs seen: outbound, inbound.
    syn: [bool; 2],
    fin: [bool; 2],
    /// Closing because of a RST.
    reset: bool,
    /// Something came back on its mapping, and something was sent after that.
    answered: bool,
    confirmed: bool,
    /// It may have been evicted, or was and has begun anew.
    pub(crate) doubtful: bool,
    tainted: bool,
}

#[derive(Clone, Debug)]
struct Mapping {
    /// Unknown until something leaves by it.
    external: Option<Endpoint>,
}

/// A SYN that waits.
#[derive(Clone, Debug)]
struct HeldSyn {
    packet: Vec<u8>,
    external: Endpoint,
    remote: Endpoint,
    due: Nanoseconds,
    /// As its sender sent it, if it has turned.
    sent: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Pass(Vec<u8>),
    Turn(Vec<u8>),
    /// Under one of these reasons; mostly there is only one.
    Drop(Vec<&'static str>),
    /// The same, and the sender is told.
    Refuse(Vec<&'static str>),
    Hold,
}

fn dropped(reason: &'static str) -> Verdict {
    Verdict::Drop(vec![reason])
}

/// What became of a held SYN.
pub(crate) struct Released {
    /// The packet, the address that answers that there is nobody, and the packet as it was sent if it has
    /// turned; nothing if there is somebody.
    pub(crate) answer: Option<(Vec<u8>, Ipv4Addr, Option<Vec<u8>>)>,
}

/// What of a packet the NAT goes by.
struct Part {
    ports: Ports,
    /// Of a TCP header that is here, none in later fragments.
    flags: Option<u8>,
    /// Of an ICMP header that is here.
    kind: Option<u8>,
}

impl Part {
    /// Nothing if the transport header is broken.
    fn read(packet: &[u8], ip: &Ip, of_fragment: Ports) -> Option<Self> {
        let message = &packet[ip.header..ip.length];
        if ip.offset != 0 {
            let flags = (ip.protocol == TCP).then_some(0);
            return Some(Self { ports: of_fragment, flags, kind: None });
        }
        let both = |message: &[u8]| Some((be16(message, 0), be16(message, 2)));
        match ip.protocol {
            TCP => {
                let header = usize::from(message.get(12)? >> 4) * 4;
                let readable = message.len() >= 20 && header >= 20 && header <= message.len();
                readable.then(|| Self { ports: both(message), flags: Some(message[13]), kind: None })
            }
            UDP => {
                let length = usize::from(if message.len() >= 8 { be16(message, 4) } else { 0 });
                let readable = length >= 8 && (ip.more || length <= message.len());
                readable.then(|| Self { ports: both(message), flags: None, kind: None })
            }
            ICMP => {
                let kind = *message.first().filter(|_| message.len() >= 8)?;
                let ports = matches!(kind, 0 | 8 | 13 | 14).then(|| (be16(message, 4), be16(message, 4)));
                Some(Self { ports, flags: None, kind: Some(kind) })
            }
            _ => Some(Self { ports: None, flags: None, kind: None }),
        }
    }

    /// An error's later fragment says no more than that it is of ICMP, and of no query.
    fn is_error(&self, ip: &Ip) -> bool {
        self.kind.is_some_and(is_error) || (ip.protocol == ICMP && ip.offset != 0 && self.ports.is_none())
    }
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) setting: Setting,
    workers: usize,
    now: Nanoseconds,
    pub(crate) draining: bool,
    pub(crate) sessions: BTreeMap<SessionKey, Session>,
    mappings: BTreeMap<MappingKey, Mapping>,
    by_external: BTreeMap<(u8, Endpoint), MappingKey>,
    /// Ports given back: not before the first, and not after the second time.
    quiet: BTreeMap<(u8, Endpoint), (Nanoseconds, Nanoseconds)>,
    /// Servers, by protocol, client and external port.
    chosen: BTreeMap<(u8, Endpoint, Endpoint), Endpoint>,
    held: Vec<HeldSyn>,
    /// Held ones that were dropped since somebody asked.
    pub(crate) cancelled: usize,
    /// Whether sessions may have been evicted in this burst.
    pressed: bool,
    /// New identifications, by source, destination, protocol and old one.
    identifications: BTreeMap<(Ipv4Addr, Ipv4Addr, u8, u16), u16>,
    /// What was learned and should not be.
    pub(crate) faults: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Model {
    pub(crate) fn new(setting: Setting, workers: usize) -> Self {
        Self {
            setting,
            workers,
            now: 0,
            draining: false,
            sessions: BTreeMap::new(),
            mappings: BTreeMap::new(),
            by_external: BTreeMap::new(),
            quiet: BTreeMap::new(),
            chosen: BTreeMap::new(),
            held: Vec::new(),
            cancelled: 0,
            pressed: false,
            identifications: BTreeMap::new(),
            faults: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Packets that wait in it.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Times at which something ends.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Nanoseconds> {
        let sessions = self.sessions.values().map(|session| session.deadline);
        sessions.chain(self.held.iter().map(|syn| syn.due))
    }

    /// External ports in use: protocol, external and inside; in an order that does not hang on what the
    /// NAT has chosen.
    pub(crate) fn externals(&self) -> Vec<(u8, Endpoint, Endpoint)> {
        let known = self.mappings.iter().filter_map(|(key, mapping)| Some((key.0, mapping.external?, key.1)));
        known.collect()
    }

    pub(crate) fn external_of(&self, key: &SessionKey) -> Option<Endpoint> {
        self.mappings.get(&(key.0, key.1, self.sessions.get(key)?.pool))?.external
    }

    /// Connections that wait for an inside host to begin them too: from inside, and to where.
    pub(crate) fn awaited(&self) -> Vec<(Endpoint, Endpoint)> {
        let inside = |syn: &HeldSyn| self.by_external.get(&(TCP, syn.external)).map(|mapping| mapping.1);
        // Of one that turned the port may be unknown.
        let foreign = self.held.iter().filter(|syn| !self.setting.is_external(syn.remote.0));
        foreign.filter_map(|syn| Some((inside(syn)?, syn.remote))).collect()
    }

    /// Whether the external port is known by which an inside one sends to this destination.
    pub(crate) fn is_mapped(&self, protocol: u8, inside: Endpoint, destination: Ipv4Addr) -> bool {
        let mapping = self.setting.pool_for(inside.0, destination).map(|pool| (protocol, inside, pool));
        mapping.and_then(|mapping| self.mappings.get(&mapping)).is_some_and(|mapping| mapping.external.is_some())
    }

    /// Mappings of which no packet has left yet: protocol and inside.
    pub(crate) fn unknown(&self) -> Vec<(u8, Endpoint, usize)> {
        let unknown = self.mappings.iter().filter(|(_, mapping)| mapping.external.is_none());
        unknown.map(|(mapping, _)| *mapping).collect()
    }

    /// Time has come so far.
    pub(crate) fn tick(&mut self, now: Nanoseconds) -> Vec<Released> {
        self.now = now;
        let over: Vec<_> = self.sessions.iter().filter(|(_, session)| session.deadline <= now).collect();
        let over: Vec<_> = over.into_iter().map(|(key, session)| (*key, session.deadline)).collect();
        for (key, deadline) in over {
            self.remove(&key, deadline);
            self.count("sessions expired");
        }
        if self.identifications.len() > 10_000 {
            self.identifications.clear();
        }
        let (due, held) = self.held.drain(..).partition(|syn| syn.due <= now);
        self.held = held;
        let due: Vec<HeldSyn> = due;
        due.into_iter().map(|syn| Released { answer: Some((syn.packet, syn.external.0, syn.sent)) }).collect()
    }

    /// Takes a session out, and its mapping if it was the last one.
    fn remove(&mut self, key: &SessionKey, not_before: Nanoseconds) {
        let Some(session) = self.sessions.remove(key) else { return };
        let mapping = (key.0, key.1, session.pool);
        if !self.sessions_of(mapping).any(|_| true) {
            self.remove_mapping(mapping, not_before);
        }
    }

    fn remove_mapping(&mut self, key: MappingKey, not_before: Nanoseconds) {
        let sessions: Vec<SessionKey> = self.sessions_of(key).map(|(session, _)| *session).collect();
        for session in sessions {
            self.sessions.remove(&session);
        }
        if let Some(Mapping { external: Some(external) }) = self.mappings.remove(&key) {
            self.by_external.remove(&(key.0, external));
            self.quiet.insert((key.0, external), (not_before, self.now));
        }
    }

    fn sessions_of(&self, (protocol, inside, pool): MappingKey) -> impl Iterator<Item = (&SessionKey, &Session)> {
        let least = (Ipv4Addr::UNSPECIFIED, 0);
        let most = (Ipv4Addr::BROADCAST, u16::MAX);
        self.sessions
            .range((protocol, inside, least)..=(protocol, inside, most))
            .filter(move |(_, session)| session.pool == pool)
    }

    fn timeout(&self, protocol: u8, state: State) -> Nanoseconds {
        let timeouts = &self.setting.timeouts;
        let seconds = match (protocol, state) {
            (UDP, _) => timeouts.udp,
            (ICMP, _) => timeouts.icmp,
            (_, State::Established) => timeouts.tcp_established,
            (_, State::Closing) => timeouts.tcp_closing,
            _ => timeouts.tcp_opening,
        };
        seconds * SECOND
    }

    /// What becomes of a packet from inside.
    pub(crate) fn outbound(&mut self, packet: &[u8], of_fragment: Ports, seen: &Seen) -> Verdict {
        let ip = Ip::read(packet).expect("the router lets nothing else through");
        let Some(part) = Part::read(packet, &ip, of_fragment) else { return dropped("malformed") };
        if ip.is_fragment() && ip.offset == 0 {
            self.identifications.remove(&(ip.source, ip.destination, ip.protocol, ip.identification));
        }
        if part.is_error(&ip) {
            return self.error_out(packet, &ip, seen);
        }
        let tuple = part.ports.map(|(port, remote)| {
            let remote = if ip.protocol == ICMP { 0 } else { remote };
            ((ip.source, port), (ip.destination, remote))
        });
        if let Some((inside, remote)) = tuple {
            let key = (ip.protocol, inside, remote);
            self.settle_doubt(&key, packet, seen);
            if self.sessions.contains_key(&key) {
                return self.on_session(key, packet, &part, seen);
            }
        }
        if self.setting.is_excluded(ip.destination) {
            self.count("excluded");
            return Verdict::Pass(packet.to_vec());
        }
        if let Some(outside) = self.setting.outside_of(ip.source) {
            self.count("one to one, outbound");
            let change = Change { source: Some(outside), ..Change::default() };
            return self.leave_translated(packet, change, false, seen);
        }
        if let Some((inside, _)) = tuple
            && matches!(ip.protocol, TCP | UDP)
            && let Some((address, port)) = self.setting.external_of_server(ip.protocol, inside)
        {
            self.count("servers' answers");
            let change = Change { source: Some(address), source_port: Some(port), ..Change::default() };
            return self.leave_translated(packet, change, true, seen);
        }
        match (tuple, ip.protocol) {
            (Some((inside, remote)), TCP | UDP | ICMP) => {
                self.begin((ip.protocol, inside, remote), packet, &part, seen)
            }
            _ => dropped("nat-protocol"),
        }
    }

    /// A packet of a session that there is.
    fn on_session(&mut self, key: SessionKey, packet: &[u8], part: &Part, seen: &Seen) -> Verdict {
        self.count("on a session, outbound");
        let now = self.now;
        let session = self.sessions.get_mut(&key).expect("there is one");
        if let Some(flags) = part.flags {
            follow(session, flags, 0);
        }
        session.confirmed |= session.answered;
        let state = session.state;
        let pool = session.pool;
        let deadline = now + self.timeout(key.0, state);
        self.sessions.get_mut(&key).expect("there is one").deadline = deadline;
        self.leave(key, pool, packet, seen)
    }

    /// A packet that no session is there for.
    fn begin(&mut self, key: SessionKey, packet: &[u8], part: &Part, seen: &Seen) -> Verdict {
        let (protocol, inside, remote) = key;
        let serial = number(packet).map_or(0, |(serial, _)| serial);
        // An answer, or what may be a part of one.
        if protocol == ICMP && !matches!(part.kind, Some(8 | 13)) {
            return dropped("nat-no-session");
        }
        let Some(pool) = self.setting.pool_for(inside.0, remote.0) else {
            return Verdict::Refuse(vec!["nat-no-pool"]);
        };
        let mapping = (protocol, inside, pool);
        let known = self.mappings.get(&mapping).and_then(|mapping| mapping.external);
        let elsewhere = source_as_seen(seen, serial) != known && !seen.is_refused(serial);
        if known.is_some() && elsewhere && self.may_be_gone(mapping) {
            self.count("found evicted");
            self.remove_mapping(mapping, 0);
        }
        let mapped = self.mappings.contains_key(&mapping);
        let flags = part.flags.unwrap_or(0);
        if protocol == TCP {
            let fresh = flags & (SYN | ACK | RST | FIN) == SYN;
            if !mapped && !fresh {
                return dropped("nat-no-session");
            }
            if flags & RST != 0 {
                self.count("RST without a session");
                return self.leave(key, pool, packet, seen);
            }
        }
        if self.draining {
            return dropped("draining");
        }
        let ports = self.mappings.keys().filter(|of| of.1.0 == inside.0 && of.2 == pool).count();
        let sessions = self.sessions.iter().filter(|(of, session)| of.1.0 == inside.0 && session.pool == pool).count();
        let too_many_ports = !mapped && self.setting.ports_per_subscriber.is_some_and(|most| ports >= most);
        let too_many_sessions = self.setting.sessions_per_subscriber.is_some_and(|most| sessions >= most);
        if too_many_ports || too_many_sessions {
            return Verdict::Refuse(vec!["nat-subscriber-limit"]);
        }
        // About a later fragment nobody is told, and there is none without a session unless it was refused.
        let later = Ip::read(packet).is_some_and(|ip| ip.offset != 0);
        let unseen = seen.on(serial).is_none() && !(mapped && self.setting.is_external(remote.0));
        if seen.is_refused(serial) || (later && unseen) {
            return self.refused(mapping);
        }
        if !mapped {
            self.mappings.insert(mapping, Mapping { external: None });
            self.count("mappings made");
        }
        let session = begun(protocol, pool, part.flags);
        let deadline = self.now + self.timeout(protocol, session.state);
        self.sessions.insert(key, Session { deadline, ..session });
        self.count("sessions made");
        self.note_pressure(key);
        let verdict = self.leave(key, pool, packet, seen);
        if protocol == TCP {
            self.cancel_syns(mapping, remote);
        }
        verdict
    }

    /// The NAT has said that there is no room: whether that can be.
    fn refused(&mut self, mapping: MappingKey) -> Verdict {
        let mut reasons = Vec::new();
        if !self.mappings.contains_key(&mapping) && self.may_be_exhausted(mapping) {
            reasons.push("nat-ports-exhausted");
        }
        // Tables are rows, of which one may be full before the others; with several workers each has
        // tables of its own.
        if self.sessions.len() * 4 * self.workers >= self.setting.sessions {
            reasons.push("nat-sessions-full");
        }
        let hosts: BTreeSet<Ipv4Addr> = self.sessions.keys().map(|key| key.1.0).collect();
        if hosts.len() * 2 * self.workers >= self.setting.subscribers {
            reasons.push("nat-subscribers-full");
        }
        if reasons.is_empty() {
            let own = self.own_addresses(mapping);
            let in_use = self.by_external.len();
            self.fault(format!("{mapping:?} was refused, and there is room: of {own:?}, {in_use} ports are in use"));
        }
        Verdict::Refuse(reasons)
    }

    /// The ports that a mapping may get, as far as configuration says.
    fn range(&self, (protocol, inside, pool): MappingKey) -> (u16, u16) {
        if protocol != ICMP && self.setting.keep_range && inside.1 < 1024 {
            (1, 1023)
        } else {
            self.setting.pools[pool].ports
        }
    }

    /// RFC 4787 REQ-4 is about ports.
    fn keeps_parity(&self, protocol: u8) -> bool {
        self.setting.keep_parity && protocol != ICMP
    }

    fn own_addresses(&self, (_, inside, pool): MappingKey) -> BTreeSet<Ipv4Addr> {
        let is_there = |key: MappingKey| self.sessions_of(key).any(|(_, session)| !session.doubtful);
        let of_host = |key: &MappingKey| key.1.0 == inside.0 && key.2 == pool && is_there(*key);
        let mappings = self.mappings.iter().filter(|(key, _)| of_host(key));
        mappings.filter_map(|(_, mapping)| Some(mapping.external?.0)).collect()
    }

    /// Whether no port is left, or, with several workers, few enough are.
    fn may_be_exhausted(&self, mapping: MappingKey) -> bool {
        let pool = &self.setting.pools[mapping.2];
        let active = pool.addresses.iter().copied().filter(|address| !pool.draining.contains(address));
        let (own, active): (BTreeSet<_>, Vec<_>) = (self.own_addresses(mapping), active.collect());
        let unseen = |key: &MappingKey| key.1.0 == mapping.1.0 && key.2 == mapping.2;
        let is_bound = self.mappings.iter().any(|(key, other)| unseen(key) && other.external.is_none());
        match (self.setting.paired, own.is_empty()) {
            (true, false) => own.iter().all(|address| self.is_full(mapping, *address)),
            // To one of them.
            (true, true) if is_bound => active.iter().any(|address| self.is_full(mapping, *address)),
            _ => active.iter().all(|address| self.is_full(mapping, *address)),
        }
    }

    fn is_full(&self, mapping: MappingKey, address: Ipv4Addr) -> bool {
        let (first, last) = self.range(mapping);
        let (mut all, mut free) = (0_usize, 0_usize);
        let quiet = (self.setting.timeouts.port_quiet + 2) * SECOND;
        for port in (first..=last).filter(|port| !self.keeps_parity(mapping.0) || port % 2 == mapping.1.1 % 2) {
            let of = (mapping.0, (address, port));
            let rests = self.quiet.get(&of).is_some_and(|(_, latest)| self.now < latest + quiet);
            if self.setting.servers(mapping.0, of.1).is_none() {
                all += 1;
                free += usize::from(!rests && !self.by_external.contains_key(&of));
            }
        }
        // Each worker has the ports that lead to it, and nobody says here which those are.
        let unknown = self.mappings.values().filter(|mapping| mapping.external.is_none()).count();
        if self.workers == 1 { free <= unknown } else { free <= all * 3 / 4 }
    }

    /// Learns an external port, if it was allowed.
    fn learn(&mut self, mapping: MappingKey, external: Endpoint) {
        let (protocol, inside, pool) = mapping;
        let (address, port) = external;
        let of = &self.setting.pools[pool];
        let (first, last) = self.range(mapping);
        let mut faults = Vec::new();
        if !of.addresses.contains(&address) || of.draining.contains(&address) {
            faults.push("which is no address of the pool");
        }
        if !(first..=last).contains(&port) {
            faults.push("out of the range of ports");
        }
        if self.keeps_parity(protocol) && port % 2 != inside.1 % 2 {
            faults.push("of another parity");
        }
        let own = self.own_addresses(mapping);
        if self.setting.paired && !own.is_empty() && !own.contains(&address) {
            faults.push("not the address that the host has");
        }
        if self.setting.servers(protocol, external).is_some() {
            faults.push("which leads to a server");
        }
        let quiet = self.setting.timeouts.port_quiet * SECOND;
        if self.quiet.get(&(protocol, external)).is_some_and(|(freed, _)| self.now < freed + quiet) {
            faults.push("given back too short a while ago");
        }
        let stale = self.by_external.get(&(protocol, external)).copied();
        if let Some(other) = stale {
            if self.may_be_gone(other) {
                self.remove_mapping(other, 0);
            } else {
                faults.push("which another mapping has");
            }
        }
        let wanted = (protocol, (address, inside.1));
        let rests = self.quiet.get(&wanted).is_some_and(|(_, latest)| self.now < latest + quiet + 2 * SECOND);
        let free = (first..=last).contains(&inside.1) && !rests && !self.by_external.contains_key(&wanted);
        // One that nobody has seen yet may have it.
        let others =
            self.mappings.iter().filter(|(of, other)| of.0 == protocol && **of != mapping && other.external.is_none());
        let unknown = others.count() > 0;
        let free = free && !unknown && self.setting.servers(protocol, wanted.1).is_none();
        if self.setting.preserve && self.workers == 1 && free && port != inside.1 {
            faults.push("though its own was free");
        }
        let text = format!("{inside:?} of protocol {protocol} got {external:?}");
        self.faults.extend(faults.iter().map(|fault| format!("{text}, {fault}")));
        if port == inside.1 {
            self.count("ports preserved");
        }
        self.mappings.insert(mapping, Mapping { external: Some(external) });
        self.by_external.insert((protocol, external), mapping);
    }

    /// Learns the external port of a mapping that no packet was seen to leave by, from one that came in.
    fn learn_unseen(&mut self, protocol: u8, inside: Endpoint, external: Endpoint) {
        let known = self.by_external.contains_key(&(protocol, external));
        let unseen = self
            .mappings
            .iter()
            .find(|(key, mapping)| (key.0, key.1) == (protocol, inside) && mapping.external.is_none() && !known);
        if let Some(mapping) = unseen.map(|(key, _)| *key) {
            self.learn(mapping, external);
        }
    }

    /// A translated packet leaves, by the mapping of its session.
    fn leave(&mut self, key: SessionKey, pool: usize, packet: &[u8], seen: &Seen) -> Verdict {
        let mapping = (key.0, key.1, pool);
        let serial = number(packet).map_or(0, |(serial, _)| serial);
        if self.mappings.get(&mapping).is_some_and(|mapping| mapping.external.is_none())
            && let Some(external) = source_as_seen(seen, serial)
        {
            self.learn(mapping, external);
        }
        let external = self.mappings.get(&mapping).and_then(|mapping| mapping.external);
        // A query that turned left with the identifier of the inside host that it is for.
        let query_turned = key.0 == ICMP && self.setting.is_external(key.2.0);
        if let (Some(expected), Some(seen)) = (external, source_as_seen(seen, serial))
            && expected != seen
            && !query_turned
        {
            self.fault(format!("{key:?} left from {seen:?}, not {expected:?}: {:?}", self.sessions.get(&key)));
        }
        // Of a later fragment the address can be seen. What left unseen has turned and was dropped then.
        let address = seen.on(serial).and_then(|(_, packet)| Some(Ip::read(packet)?.source));
        let address = address.unwrap_or(self.setting.pools[pool].addresses[0]);
        let (address, port) = external.unwrap_or((address, 0));
        let change = Change { source: Some(address), source_port: Some(port), ..Change::default() };
        self.leave_translated(packet, change, true, seen)
    }

    /// A packet leaves with another source.
    fn leave_translated(&mut self, packet: &[u8], change: Change, shared: bool, seen: &Seen) -> Verdict {
        let ip = Ip::read(packet).expect("read before");
        let mut change = Change { mss: self.setting.mss, ..change };
        if shared && !ip.is_atomic() {
            change.identification = self.new_identification(packet, &ip, seen);
        }
        let mut packet = packet.to_vec();
        rewrite(&mut packet, change);
        if self.setting.is_external(ip.destination) {
            self.count("turned");
            return Verdict::Turn(packet);
        }
        Verdict::Pass(packet)
    }

    /// Which identification a packet was given: the same for all fragments of a datagram, another one
    /// than others'.
    fn new_identification(&mut self, packet: &[u8], ip: &Ip, seen: &Seen) -> Option<u16> {
        let (serial, _) = number(packet)?;
        let new = seen.on(serial).map(|(_, packet)| be16(packet, 4))?;
        self.count("identifications");
        if new == ip.identification {
            self.count("identifications as before");
        }
        let key = (ip.source, ip.destination, ip.protocol, ip.identification);
        if ip.offset != 0
            && let Some(of_first) = self.identifications.get(&key).copied()
            && of_first != new
        {
            self.fault(format!(
                "{key:?}: the identification {of_first:#x} of the first fragment is {new:#x} in another"
            ));
        }
        if ip.is_fragment() && ip.offset == 0 {
            self.identifications.insert(key, new);
        }
        Some(new)
    }

    /// The inside host begins the connection that a SYN from outside wanted.
    fn cancel_syns(&mut self, mapping: MappingKey, remote: Endpoint) {
        let Some(external) = self.mappings.get(&mapping).and_then(|mapping| mapping.external) else { return };
        let before = self.held.len();
        self.held.retain(|syn| (syn.external, syn.remote) != (external, remote));
        let cancelled = before - self.held.len();
        self.cancelled += cancelled;
        (0..cancelled).for_each(|_| self.count("SYNs cancelled"));
    }

    /// What becomes of a packet from outside, or of one that has turned.
    pub(crate) fn inbound(&mut self, packet: &[u8], of_fragment: Ports, turned: bool, seen: &Seen) -> Verdict {
        let ip = Ip::read(packet).expect("the router lets nothing else through");
        let Some(part) = Part::read(packet, &ip, of_fragment) else { return dropped("malformed") };
        if !turned && self.setting.is_external(ip.source) {
            return dropped("nat-spoofed");
        }
        if part.is_error(&ip) {
            return self.error_in(packet, &ip, seen);
        }
        if let Some(inside) = self.setting.inside_of(ip.destination) {
            self.count("one to one, inbound");
            return self.arrive(packet, (inside, None));
        }
        let serial = number(packet).map_or(0, |(serial, _)| serial);
        if let Some((remote, port)) = part.ports
            && matches!(ip.protocol, TCP | UDP)
            && let external = (ip.destination, port)
            && let Some(servers) = self.setting.servers(ip.protocol, external)
        {
            let client = (ip.source, remote);
            let server = self.server(ip.protocol, client, external, &servers, destination_as_seen(seen, serial));
            self.count("to servers");
            return self.arrive(packet, (server.0, Some(server.1)));
        }
        if !self.setting.is_external(ip.destination) {
            if self.setting.is_excluded(ip.source) {
                return Verdict::Pass(packet.to_vec());
            }
            return dropped("nat-not-translated");
        }
        let (Some((remote, port)), TCP | UDP | ICMP) = (part.ports, ip.protocol) else {
            return dropped("nat-protocol");
        };
        if matches!(part.kind, Some(8 | 13)) {
            return dropped("nat-no-mapping");
        }
        let remote = (ip.source, if ip.protocol == ICMP { 0 } else { remote });
        self.reach_mapping(packet, &ip, &part, (ip.destination, port), remote, seen)
    }

    /// The server that a client is led to.
    fn server(
        &mut self,
        protocol: u8,
        client: Endpoint,
        external: Endpoint,
        servers: &[Endpoint],
        seen: Option<Endpoint>,
    ) -> Endpoint {
        let key = (protocol, client, external);
        if let Some(server) = self.chosen.get(&key) {
            return *server;
        }
        match seen.filter(|seen| servers.contains(seen)) {
            Some(server) => {
                self.chosen.insert(key, server);
                server
            }
            None => servers[0],
        }
    }

    /// A packet for an external port of a pool.
    fn reach_mapping(
        &mut self,
        packet: &[u8],
        ip: &Ip,
        part: &Part,
        external: Endpoint,
        remote: Endpoint,
        seen: &Seen,
    ) -> Verdict {
        let serial = number(packet).map_or(0, |(serial, _)| serial);
        if let Some(inside) = destination_as_seen(seen, serial) {
            self.learn_unseen(ip.protocol, inside, external);
        }
        let Some(mapping) = self.by_external.get(&(ip.protocol, external)).copied() else {
            return self.unsolicited(packet, part, external, remote, vec!["nat-no-mapping"]);
        };
        let filtering = if ip.protocol == TCP { self.setting.tcp } else { self.setting.udp };
        let lets_through = |key: &SessionKey| match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => key.2.0 == remote.0,
            Filtering::AddressAndPortDependent => key.2 == remote,
        };
        let matching: Vec<(SessionKey, bool)> = self
            .sessions_of(mapping)
            .filter(|(key, _)| lets_through(key))
            .map(|(key, session)| (*key, session.doubtful))
            .collect();
        if matching.is_empty() {
            let reasons =
                if self.may_be_gone(mapping) { vec!["nat-filtered", "nat-no-mapping"] } else { vec!["nat-filtered"] };
            return self.unsolicited(packet, part, external, remote, reasons);
        }
        if matching.iter().all(|(_, doubtful)| *doubtful) && !seen.went_on(serial) {
            for (key, _) in matching {
                self.remove(&key, 0);
            }
            self.count("found evicted");
            return self.unsolicited(packet, part, external, remote, vec!["nat-filtered", "nat-no-mapping"]);
        }
        self.count("to a mapping, inbound");
        let of_mapping: Vec<SessionKey> = self.sessions_of(mapping).map(|(key, _)| *key).collect();
        for key in of_mapping {
            self.sessions.get_mut(&key).expect("listed").answered = true;
        }
        let key = (ip.protocol, mapping.1, remote);
        if let Some(flags) = part.flags
            && let Some(session) = self.sessions.get_mut(&key).filter(|session| session.pool == mapping.2)
        {
            let before = session.state;
            follow(session, flags, 1);
            let after = session.state;
            // One that has begun anew unseen may know less, and so change its state where this one does not.
            let may_change = session.tainted && flags & (SYN | FIN | RST) != 0;
            session.doubtful |= may_change;
            if after != before || may_change {
                let deadline = self.now + self.timeout(ip.protocol, after);
                self.sessions.get_mut(&key).expect("there is one").deadline = deadline;
            }
        }
        self.arrive(packet, (mapping.1.0, Some(mapping.1.1)))
    }

    /// A packet goes on to an inside host.
    fn arrive(&mut self, packet: &[u8], (address, port): (Ipv4Addr, Option<u16>)) -> Verdict {
        let mut packet = packet.to_vec();
        let change =
            Change { destination: Some(address), destination_port: port, mss: self.setting.mss, ..Change::default() };
        rewrite(&mut packet, change);
        Verdict::Pass(packet)
    }

    /// Nobody waits for a packet from outside.
    fn unsolicited(
        &mut self,
        packet: &[u8],
        part: &Part,
        external: Endpoint,
        remote: Endpoint,
        reasons: Vec<&'static str>,
    ) -> Verdict {
        let begins = part.flags.is_some_and(|flags| flags & (SYN | ACK | RST) == SYN);
        if !begins || !self.setting.refuse_syn || self.held.len() >= MOST_SYNS {
            return Verdict::Drop(reasons);
        }
        self.held.push(HeldSyn { packet: packet.to_vec(), external, remote, due: self.now + SYN_HELD, sent: None });
        self.count("SYNs held");
        Verdict::Hold
    }

    /// How the SYN was sent that was held last.
    pub(crate) fn note_sent(&mut self, sent: Option<Vec<u8>>) {
        self.held.last_mut().expect("one was held").sent = sent;
    }

    /// An ICMP error from inside, about a packet from outside.
    fn error_out(&mut self, packet: &[u8], ip: &Ip, seen: &Seen) -> Verdict {
        let about = match About::read(packet, ip) {
            Ok(about) => about,
            Err(reason) => return dropped(reason),
        };
        let inside = (about.ip.destination, about.ports.map_or(0, |ports| ports.1));
        let remote = (about.ip.source, about.ports.map_or(0, |ports| ports.0));
        let serial = number(packet).map_or(0, |(serial, _)| serial);
        if let Some(external) = quoted_as_seen(seen, serial, true) {
            self.learn_unseen(about.ip.protocol, inside, external);
        }
        let external = self.external_of_error(&about, inside, remote);
        let untranslated = about.ip.source == ip.destination && self.setting.is_excluded(ip.destination);
        // A mapping that may be gone was there if the packet went on by it.
        let by_it = seen.went_on(serial) && !(untranslated && quoted_as_seen(seen, serial, true) == Some(inside));
        let external = external.filter(|_| by_it || !self.is_doubtful(about.ip.protocol, inside, remote));
        let Some((address, port)) = external else {
            return if untranslated { Verdict::Pass(packet.to_vec()) } else { dropped("nat-no-mapping") };
        };
        self.count("errors, outbound");
        let mut packet = packet.to_vec();
        let change = Change { destination: Some(address), destination_port: port, ..Change::default() };
        rewrite_quoted(&mut packet, ip, change);
        let source = self.setting.outside_of(ip.source);
        let change = Change { source: Some(source.unwrap_or(address)), ..Change::default() };
        self.leave_translated(&packet, change, source.is_none(), seen)
    }

    fn external_of_error(
        &mut self,
        about: &About,
        inside: Endpoint,
        remote: Endpoint,
    ) -> Option<(Ipv4Addr, Option<u16>)> {
        let protocol = about.ip.protocol;
        let remote = if protocol == ICMP { (remote.0, 0) } else { remote };
        if about.ports.is_some()
            && let Some(external) = self.external_of(&(protocol, inside, remote))
        {
            return Some((external.0, Some(external.1)));
        }
        if self.setting.is_excluded(remote.0) {
            return None;
        }
        if let Some(outside) = self.setting.outside_of(inside.0) {
            return Some((outside, None));
        }
        about.ports?;
        if let Some((address, port)) = self.setting.external_of_server(protocol, inside) {
            return Some((address, Some(port)));
        }
        let filtering = if protocol == TCP { self.setting.tcp } else { self.setting.udp };
        if filtering != Filtering::EndpointIndependent {
            return None;
        }
        let pool = self.setting.pool_for(inside.0, remote.0)?;
        let (address, port) = self.mappings.get(&(protocol, inside, pool))?.external?;
        Some((address, Some(port)))
    }

    /// An ICMP error from outside, about a packet from inside.
    fn error_in(&mut self, packet: &[u8], ip: &Ip, seen: &Seen) -> Verdict {
        let about = match About::read(packet, ip) {
            Ok(about) => about,
            Err(reason) => return dropped(reason),
        };
        let protocol = about.ip.protocol;
        let external = (about.ip.source, about.ports.map_or(0, |ports| ports.0));
        let remote = (about.ip.destination, about.ports.map_or(0, |ports| ports.1));
        let inside = if let Some(inside) = self.setting.inside_of(external.0) {
            Some((inside, None))
        } else if about.ports.is_none() {
            None
        } else if let Some(servers) = self.setting.servers(protocol, external) {
            let serial = number(packet).map_or(0, |(serial, _)| serial);
            let seen = quoted_as_seen(seen, serial, false);
            let (address, port) = self.server(protocol, remote, external, &servers, seen);
            Some((address, Some(port)))
        } else {
            let serial = number(packet).map_or(0, |(serial, _)| serial);
            if let Some(inside) = quoted_as_seen(seen, serial, false) {
                self.learn_unseen(protocol, inside, external);
            }
            let inside = self.inside_of_error(protocol, external, remote);
            let is_doubtful = |(address, port): &(Ipv4Addr, Option<u16>)| {
                self.is_doubtful(protocol, (*address, port.unwrap_or(0)), remote)
            };
            inside.filter(|inside| seen.went_on(serial) || !is_doubtful(inside))
        };
        let Some((address, port)) = inside else {
            let untranslated = about.ip.source == ip.destination
                && !self.setting.is_external(ip.destination)
                && self.setting.is_excluded(about.ip.destination);
            return if untranslated { Verdict::Pass(packet.to_vec()) } else { dropped("nat-no-mapping") };
        };
        self.count("errors, inbound");
        let mut packet = packet.to_vec();
        let change = Change { source: Some(address), source_port: port, ..Change::default() };
        rewrite_quoted(&mut packet, ip, change);
        rewrite(&mut packet, Change { destination: Some(address), ..Change::default() });
        Verdict::Pass(packet)
    }

    fn inside_of_error(&self, protocol: u8, external: Endpoint, remote: Endpoint) -> Option<(Ipv4Addr, Option<u16>)> {
        let mapping = self.by_external.get(&(protocol, external))?;
        let remote = if protocol == ICMP { (remote.0, 0) } else { remote };
        let session = self.sessions.get(&(protocol, mapping.1, remote));
        let filtering = if protocol == TCP { self.setting.tcp } else { self.setting.udp };
        let known = session.is_some_and(|session| session.pool == mapping.2);
        let may = known || filtering == Filtering::EndpointIndependent;
        may.then_some((mapping.1.0, Some(mapping.1.1)))
    }

    /// Whether the session that an error is about, or all of its mapping, may have gone.
    fn is_doubtful(&self, protocol: u8, inside: Endpoint, remote: Endpoint) -> bool {
        let remote = if protocol == ICMP { (remote.0, 0) } else { remote };
        if let Some(session) = self.sessions.get(&(protocol, inside, remote)) {
            return session.doubtful;
        }
        let of_inside = self.sessions.iter().filter(|(key, _)| (key.0, key.1) == (protocol, inside));
        of_inside.clone().count() > 0 && of_inside.into_iter().all(|(_, session)| session.doubtful)
    }

    fn may_be_gone(&self, mapping: MappingKey) -> bool {
        self.sessions_of(mapping).all(|(_, session)| session.doubtful)
    }

    /// After a new session: where the table is nearly full, those that are not established may have
    /// gone for it.
    fn note_pressure(&mut self, new: SessionKey) {
        if !self.setting.has_small_tables() || self.sessions.len() * 10 * self.workers < self.setting.sessions * 6 {
            return;
        }
        self.count("sessions made under pressure");
        self.pressed = true;
        for (_, session) in self.sessions.iter_mut().filter(|(key, _)| **key != new) {
            session.doubtful |= !session.is_established();
        }
    }

    /// A burst is over, whose packets the NAT may have handled in another order.
    pub(crate) fn burst_is_over(&mut self) {
        if std::mem::take(&mut self.pressed) {
            for session in self.sessions.values_mut() {
                session.doubtful |= !session.is_established();
            }
        }
    }

    /// Before a packet of a session that may have gone: what left says whether it has.
    fn settle_doubt(&mut self, key: &SessionKey, packet: &[u8], seen: &Seen) {
        let Some(session) = self.sessions.get(key).filter(|session| session.doubtful) else { return };
        let mapping = (key.0, key.1, session.pool);
        let serial = number(packet).map_or(0, |(serial, _)| serial);
        let known = self.mappings.get(&mapping).and_then(|mapping| mapping.external);
        match source_as_seen(seen, serial) {
            Some(external) if Some(external) == known => {
                let session = self.sessions.get_mut(key).expect("looked up");
                (session.doubtful, session.tainted) = (false, true);
                // It may have been made anew, on the mapping that was still there.
                self.note_pressure(*key);
            }
            Some(_) => {
                self.count("found evicted");
                self.remove_mapping(mapping, 0);
            }
            // A later fragment says no more.
            None if seen.went_on(serial) => self.note_pressure(*key),
            None => {
                self.count("found evicted");
                self.remove(key, 0);
            }
        }
    }
}

impl Session {
    fn is_established(&self) -> bool {
        let established = match self.state {
            State::Plain => self.confirmed,
            State::Established => true,
            State::Opening | State::Closing => false,
        };
        established && !self.tainted && !self.doubtful
    }
}

/// A session as it begins with a packet from inside.
fn begun(protocol: u8, pool: usize, flags: Option<u8>) -> Session {
    let mut session = Session {
        state: if protocol == TCP { State::Opening } else { State::Plain },
        deadline: 0,
        pool,
        syn: [false; 2],
        fin: [false; 2],
        reset: false,
        answered: false,
        confirmed: false,
        doubtful: false,
        tainted: false,
    };
    if let Some(flags) = flags {
        follow(&mut session, flags, 0);
    }
    session
}

/// A segment goes by: outbound (0) or inbound (1).
fn follow(session: &mut Session, flags: u8, way: usize) {
    if flags & RST != 0 {
        session.reset = true;
    } else {
        if way == 0 {
            if session.state == State::Closing && flags & SYN != 0 {
                // What goes out on a connection that is over begins a new one.
                (session.syn, session.fin) = ([false; 2], [false; 2]);
            }
            session.reset = false;
        }
        session.syn[way] |= flags & SYN != 0;
        session.fin[way] |= flags & FIN != 0;
        if way == 0 && flags & (SYN | ACK) == SYN | ACK {
            // It answers one that came in.
            session.syn = [true; 2];
        }
    }
    session.state = if session.reset || session.fin == [true; 2] {
        State::Closing
    } else if session.syn == [true; 2] {
        State::Established
    } else {
        State::Opening
    };
}

/// The packet that an ICMP error is about.
struct About {
    ip: Ip,
    ports: Ports,
}

impl About {
    fn read(packet: &[u8], ip: &Ip) -> Result<Self, &'static str> {
        let message = &packet[ip.header..ip.length];
        if ip.offset == 0 && message[0] == 5 {
            return Err("nat-protocol");
        }
        if ip.is_fragment() {
            return Err("nat-icmp-fragment");
        }
        if checksum(message) != 0 {
            return Err("nat-icmp-checksum");
        }
        let quoted = &message[8..];
        let of_quoted = Ip::header(quoted).ok_or("nat-no-mapping")?;
        if checksum(&quoted[..of_quoted.header]) != 0 {
            return Err("nat-icmp-checksum");
        }
        let transport = &quoted[of_quoted.header..];
        let readable = of_quoted.offset == 0 && transport.len() >= 8;
        let ports = match of_quoted.protocol {
            TCP | UDP if readable => Some((be16(transport, 0), be16(transport, 2))),
            ICMP if readable && matches!(transport[0], 0 | 8 | 13 | 14) => {
                Some((be16(transport, 4), be16(transport, 4)))
            }
            _ => None,
        };
        Ok(Self { ip: of_quoted, ports })
    }
}

/// Changes the packet that an error quotes, and its checksum.
fn rewrite_quoted(packet: &mut [u8], ip: &Ip, change: Change) {
    let message = &mut packet[ip.header..ip.length];
    rewrite(&mut message[8..], change);
    put16(message, 2, 0);
    let sum = checksum(message);
    put16(message, 2, sum);
}

/// The source that the packet of this number left with.
fn source_as_seen(seen: &Seen, serial: Serial) -> Option<Endpoint> {
    let (_, packet) = seen.on(serial)?;
    let ip = Ip::read(packet).filter(|ip| ip.offset == 0)?;
    let at = if ip.protocol == ICMP { 4 } else { 0 };
    Some((ip.source, be16(packet, ip.header + at)))
}

fn destination_as_seen(seen: &Seen, serial: Serial) -> Option<Endpoint> {
    let (_, packet) = seen.on(serial)?;
    let ip = Ip::read(packet).filter(|ip| ip.offset == 0)?;
    let at = if ip.protocol == ICMP { 4 } else { 2 };
    Some((ip.destination, be16(packet, ip.header + at)))
}

/// The source, or the destination, of the packet that the error of this number quotes.
fn quoted_as_seen(seen: &Seen, serial: Serial, destination: bool) -> Option<Endpoint> {
    let (_, packet) = seen.on(serial)?;
    let ip = Ip::read(packet)?;
    let quoted = packet.get(ip.header + 8..ip.length)?;
    let of_quoted = Ip::header(quoted).filter(|ip| quoted.len() >= ip.header + 8)?;
    let (address, at) = if destination { (of_quoted.destination, 2) } else { (of_quoted.source, 0) };
    let at = if of_quoted.protocol == ICMP { 4 } else { at };
    Some((address, be16(quoted, of_quoted.header + at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat_model::Side;
    use crate::nat_model::bytes::{ETHERNET, fill_checksums};
    use crate::nat_model::setting::{Forward, Pool, Timeouts};

    const A: Endpoint = (Ipv4Addr::new(10, 0, 0, 1), 5000);
    const B: Endpoint = (Ipv4Addr::new(10, 0, 0, 2), 5000);
    const SERVER: Endpoint = (Ipv4Addr::new(10, 0, 8, 1), 80);
    const STATIC: Endpoint = (Ipv4Addr::new(10, 0, 9, 1), 7);
    const R: Endpoint = (Ipv4Addr::new(8, 8, 8, 8), 53);
    const S: Endpoint = (Ipv4Addr::new(8, 8, 8, 9), 53);
    const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const X: Endpoint = (POOL, 2000);
    const Y: Endpoint = (POOL, 2001);
    const LAST: [u8; 4] = [9, 0, 0, 1];

    fn setting(filtering: Filtering) -> Setting {
        let pool = Pool {
            addresses: vec![POOL],
            draining: Vec::new(),
            subscribers: Vec::new(),
            to: Vec::new(),
            ports: (2000, 3000),
        };
        Setting {
            name: "tests",
            sessions: 1000,
            subscribers: 1000,
            pools: vec![pool],
            ports_per_subscriber: Some(2),
            sessions_per_subscriber: Some(3),
            tcp: filtering,
            udp: filtering,
            paired: true,
            preserve: false,
            keep_range: true,
            keep_parity: false,
            refuse_syn: true,
            mss: None,
            forward_ipv6: false,
            exclude: vec![(Ipv4Addr::new(9, 9, 9, 0), 24)],
            one_to_one: vec![(STATIC.0, Ipv4Addr::new(203, 0, 113, 101))],
            forward: vec![Forward { protocol: TCP, outside: POOL, ports: (8080, 8080), to: vec![SERVER] }],
            timeouts: Timeouts {
                udp: 300,
                tcp_opening: 240,
                tcp_established: 7440,
                tcp_closing: 230,
                icmp: 60,
                port_quiet: 120,
            },
        }
    }

    /// Independent of what the model makes of it, but for the sums.
    fn packet(protocol: u8, from: Endpoint, to: Endpoint, flags: u8) -> Vec<u8> {
        let mut message = match protocol {
            ICMP => vec![flags, 0, 0, 0],
            _ => [from.1.to_be_bytes(), to.1.to_be_bytes()].concat(),
        };
        match protocol {
            TCP => message.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]),
            UDP => message.extend([0, 12, 0, 0]),
            ICMP => message.extend(if matches!(flags, 8 | 13) { from.1 } else { to.1 }.to_be_bytes()),
            _ => {}
        }
        message.extend([0; 2][..if protocol == ICMP { 2 } else { 0 }].iter());
        message.extend(LAST);
        let length = u8::try_from(20 + message.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, length, 0, 9, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(from.0.octets());
        packet.extend(to.0.octets());
        packet.extend(message);
        fill_checksums(&mut packet);
        packet
    }

    fn left(side: Side, packet: &[u8]) -> Seen {
        let frame = [&[0; ETHERNET][..], packet].concat();
        Seen::new([(side, &frame)].into_iter())
    }

    struct Bench(Model);

    impl Bench {
        fn new(filtering: Filtering) -> Self {
            Self(Model::new(setting(filtering), 1))
        }

        /// A packet leaves with this source.
        fn out(&mut self, protocol: u8, from: Endpoint, to: Endpoint, flags: u8, external: Endpoint) -> Verdict {
            let as_left = packet(protocol, external, to, flags);
            self.0.outbound(&packet(protocol, from, to, flags), None, &left(Side::Outside, &as_left))
        }

        /// And it is what the model expects.
        fn goes_out(&mut self, protocol: u8, from: Endpoint, to: Endpoint, flags: u8, external: Endpoint) {
            let verdict = self.out(protocol, from, to, flags, external);
            assert_eq!(verdict, Verdict::Pass(packet(protocol, external, to, flags)));
            assert_eq!(self.0.faults, Vec::<String>::new());
        }

        fn refuses(&mut self, protocol: u8, from: Endpoint, to: Endpoint, flags: u8) -> Verdict {
            self.0.outbound(&packet(protocol, from, to, flags), None, &Seen::default())
        }

        fn inbound(&mut self, protocol: u8, from: Endpoint, to: Endpoint, flags: u8) -> Verdict {
            self.0.inbound(&packet(protocol, from, to, flags), None, false, &Seen::default())
        }

        fn deadline(&self, protocol: u8, remote: Endpoint) -> u64 {
            self.0.sessions[&(protocol, A, remote)].deadline / SECOND
        }
    }

    #[test]
    fn a_mapping_is_the_same_for_all_destinations_and_lives_as_long_as_its_sessions() {
        let mut bench = Bench::new(Filtering::EndpointIndependent);
        bench.goes_out(UDP, A, R, 0, X);
        bench.0.tick(10 * SECOND);
        bench.goes_out(UDP, A, S, 0, X);
        bench.goes_out(UDP, B, R, 0, Y);
        bench.0.tick(300 * SECOND);
        assert_eq!(bench.inbound(UDP, R, X, 0), Verdict::Pass(packet(UDP, R, A, 0)));
        bench.0.tick(310 * SECOND);
        assert_eq!(bench.inbound(UDP, R, X, 0), dropped("nat-no-mapping"), "inbound traffic does not refresh");
    }

    #[test]
    fn an_external_port_that_may_not_be_is_a_fault() {
        for (what, before, after, external) in [
            ("out of the range", None, 0, (POOL, 1999)),
            ("no address of the pool", None, 0, (Ipv4Addr::new(203, 0, 113, 9), 2000)),
            ("which another mapping has", Some(X), 0, X),
            ("too short a while ago", Some(X), 419, X),
        ] {
            let mut bench = Bench::new(Filtering::EndpointIndependent);
            if let Some(external) = before {
                bench.goes_out(UDP, B, R, 0, external);
            }
            bench.0.tick(after * SECOND);
            bench.out(UDP, A, R, 0, external);
            assert!(bench.0.faults.iter().any(|fault| fault.contains(what)), "{what}: {:?}", bench.0.faults);
        }
        let mut bench = Bench::new(Filtering::EndpointIndependent);
        bench.goes_out(UDP, B, R, 0, X);
        bench.0.tick(300 * SECOND);
        bench.0.tick(420 * SECOND);
        bench.goes_out(UDP, A, R, 0, X);
    }

    #[test]
    fn who_may_answer_is_as_configured() {
        use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let other_port = (R.0, 99);
        for (filtering, passes) in [
            (EndpointIndependent, [true, true, true]),
            (AddressDependent, [true, true, false]),
            (AddressAndPortDependent, [true, false, false]),
        ] {
            let mut bench = Bench::new(filtering);
            bench.goes_out(UDP, A, R, 0, X);
            for (remote, passes) in [R, other_port, S].into_iter().zip(passes) {
                let passed = Verdict::Pass(packet(UDP, remote, A, 0));
                let expected = if passes { passed } else { dropped("nat-filtered") };
                assert_eq!(bench.inbound(UDP, remote, X, 0), expected, "{filtering:?} {remote:?}");
            }
        }
    }

    #[test]
    fn a_connection_is_timed_by_what_both_sides_have_said() {
        let (out, back) = (true, false);
        for (what, segments, deadline) in [
            ("opening", &[(SYN, out)][..], 240),
            ("open", &[(SYN, out), (SYN | ACK, back)], 7440),
            ("a FIN of one side", &[(SYN, out), (SYN | ACK, back), (FIN | ACK, out)], 7440),
            ("FINs of both", &[(SYN, out), (SYN | ACK, back), (FIN, out), (FIN, back)], 230),
            ("late data behind FINs", &[(SYN, out), (SYN | ACK, back), (FIN, out), (FIN, back), (ACK, out)], 230),
            ("a reset", &[(SYN, out), (SYN | ACK, back), (RST, back)], 230),
            ("data behind a reset", &[(SYN, out), (SYN | ACK, back), (RST, back), (ACK, out)], 7440),
            ("a new beginning", &[(SYN, out), (SYN | ACK, back), (RST, out), (SYN, out)], 240),
            ("both begin at once", &[(SYN, out), (SYN, back)], 7440),
        ] {
            let mut bench = Bench::new(Filtering::AddressAndPortDependent);
            for (flags, outbound) in segments {
                if *outbound {
                    bench.goes_out(TCP, A, R, *flags, X);
                } else {
                    assert!(matches!(bench.inbound(TCP, R, X, *flags), Verdict::Pass(_)), "{what}");
                }
            }
            assert_eq!(bench.deadline(TCP, R), deadline, "{what}");
        }
    }

    #[test]
    fn a_connection_begins_with_a_syn_unless_there_is_a_mapping() {
        let mut bench = Bench::new(Filtering::EndpointIndependent);
        for flags in [ACK, SYN | ACK, RST, FIN] {
            assert_eq!(bench.refuses(TCP, A, R, flags), dropped("nat-no-session"), "{flags:#x}");
        }
        bench.goes_out(TCP, A, R, SYN, X);
        bench.goes_out(TCP, A, S, SYN | ACK, X);
        assert_eq!(bench.deadline(TCP, S), 7440, "it answers one from outside");
        let other = (S.0, 99);
        bench.goes_out(TCP, A, other, RST, X);
        assert_eq!(bench.0.sessions.len(), 2, "a RST begins nothing");
    }

    #[test]
    fn what_has_no_ports_of_the_pool_is_treated_by_its_own_rules() {
        let mut bench = Bench::new(Filtering::EndpointIndependent);
        let outside = (Ipv4Addr::new(203, 0, 113, 101), STATIC.1);
        let excluded = (Ipv4Addr::new(9, 9, 9, 9), 1);
        bench.goes_out(47, STATIC, R, 0, outside);
        bench.goes_out(TCP, SERVER, R, ACK, (POOL, 8080));
        bench.goes_out(47, A, excluded, 0, A);
        assert_eq!(bench.inbound(47, R, outside, 0), Verdict::Pass(packet(47, R, STATIC, 0)));
        assert_eq!(bench.inbound(TCP, R, (POOL, 8080), SYN), Verdict::Pass(packet(TCP, R, SERVER, SYN)));
        assert_eq!(bench.inbound(UDP, excluded, A, 0), Verdict::Pass(packet(UDP, excluded, A, 0)));
        for (what, verdict, reason) in [
            ("another protocol out", bench.refuses(47, A, R, 0), "nat-protocol"),
            ("another protocol in", bench.inbound(47, R, X, 0), "nat-protocol"),
            ("an answer to no question", bench.refuses(ICMP, A, R, 0), "nat-no-session"),
            ("a question from outside", bench.inbound(ICMP, R, X, 8), "nat-no-mapping"),
            ("from one of ours", bench.inbound(UDP, Y, X, 0), "nat-spoofed"),
            ("to an inside host", bench.inbound(UDP, R, A, 0), "nat-not-translated"),
        ] {
            assert_eq!(verdict, dropped(reason), "{what}");
        }
    }

    #[test]
    fn a_host_has_so_many_ports_and_sessions_and_no_more() {
        let mut bench = Bench::new(Filtering::EndpointIndependent);
        bench.goes_out(UDP, A, R, 0, X);
        bench.goes_out(UDP, (A.0, 1), R, 0, (POOL, 1));
        let limit = Verdict::Refuse(vec!["nat-subscriber-limit"]);
        assert_eq!(bench.refuses(TCP, A, R, SYN), limit, "a third port");
        bench.goes_out(UDP, A, S, 0, X);
        assert_eq!(bench.refuses(UDP, A, (S.0, 1), 0), limit, "a fourth session");
        bench.goes_out(UDP, B, R, 0, Y);
    }

    #[test]
    fn an_unwanted_syn_waits_six_seconds() {
        let mut bench = Bench::new(Filtering::EndpointIndependent);
        assert_eq!(bench.inbound(TCP, R, X, SYN), Verdict::Hold);
        assert_eq!(bench.inbound(TCP, R, X, SYN | ACK), dropped("nat-no-mapping"));
        assert!(bench.0.tick(5 * SECOND).is_empty());
        let released = bench.0.tick(6 * SECOND);
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].answer, Some((packet(TCP, R, X, SYN), POOL, None)));
    }

    fn error(from: Ipv4Addr, to: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
        let message = [&[3, 1, 0, 0, 1, 0, 2, 3], quoted].concat();
        let length = u8::try_from(20 + message.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, length, 0, 9, 0x40, 0, 64, ICMP, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(message);
        fill_checksums(&mut packet);
        packet
    }

    #[test]
    fn an_error_is_translated_with_the_packet_that_it_quotes() {
        let mut bench = Bench::new(Filtering::AddressAndPortDependent);
        bench.goes_out(UDP, A, R, 0, X);
        let (middle, gateway) = (Ipv4Addr::new(8, 1, 1, 1), Ipv4Addr::new(10, 5, 5, 5));
        let nobody = Seen::default();
        let inbound = error(middle, POOL, &packet(UDP, X, R, 0));
        let expected = error(middle, A.0, &packet(UDP, A, R, 0));
        assert_eq!(bench.0.inbound(&inbound, None, false, &nobody), Verdict::Pass(expected));
        let outbound = error(gateway, R.0, &packet(UDP, R, A, 0));
        let expected = error(POOL, R.0, &packet(UDP, R, X, 0));
        assert_eq!(bench.0.outbound(&outbound, None, &nobody), Verdict::Pass(expected));
        for (what, at, reason) in
            [("the message", 23, "nat-icmp-checksum"), ("the quoted header", 28 + 9, "nat-icmp-checksum")]
        {
            let mut broken = inbound.clone();
            broken[at] ^= 1;
            assert_eq!(bench.0.inbound(&broken, None, false, &nobody), dropped(reason), "{what}");
        }
        let foreign = error(middle, POOL, &packet(UDP, X, S, 0));
        assert_eq!(bench.0.inbound(&foreign, None, false, &nobody), dropped("nat-no-mapping"));
    }
}
