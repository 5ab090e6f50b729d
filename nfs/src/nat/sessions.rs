//! The state of one worker: sessions, the mappings that they share, the hosts that have them.
//!
//! A session is one line of one table, found by what the inside host sends. What comes from outside
//! finds its mapping by address and port without a search ([`Ports`]); only where a filter asks who
//! sent it there is a table of who may, with the packet's own addresses and ports as the key, as far
//! as the filter looks at them. Mappings and hosts are touched when sessions come and go.

use super::config::{Filtering, PortRange};
use super::flow::{FlowKey, FlowTuple, Protocol};
use super::log::Events;
use super::policy::{Endpoint, Policy, Pool, Timer};
use super::ports::{Mapping, Ports, Slot, Status, Wanted};
use super::tcp::TcpState;
use nf_framework::{Class, Entry, FlowTable, FlowTableError, Handle, HashKey, Instant, Memory, Removed};
use std::net::Ipv4Addr;

/// What is known of a session, beside its key: 8 bytes, so that an entry is half a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Session {
    /// The external address.
    pub(super) address: [u8; 4],
    /// The external port.
    pub(super) port: u16,
    pub(super) tcp: TcpState,
    /// The timer, and the bits below.
    flags: u8,
}

const TIMER: u8 = 0x07;
/// Something came back.
const CONFIRMED: u8 = 0x40;
/// Its packets go to an external address of ours.
const TURNS: u8 = 0x80;

impl Session {
    #[inline]
    pub(super) fn timer(&self) -> usize {
        usize::from(self.flags & TIMER)
    }

    #[inline]
    pub(super) fn is_confirmed(&self) -> bool {
        self.flags & CONFIRMED != 0
    }

    #[inline]
    pub(super) fn turns(&self) -> bool {
        self.flags & TURNS != 0
    }

    fn set_timer(&mut self, timer: Timer) {
        self.flags = self.flags & !TIMER | timer as u8;
    }

    /// Takes note of a TCP segment.
    pub(super) fn follow(&mut self, tcp: TcpState) {
        self.tcp = tcp;
        self.set_timer(tcp.timer());
    }
}

/// An inside host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Subscriber {
    /// The number of its external address.
    address: u16,
    ports: u32,
    sessions: u32,
}

/// Why there is no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It does not begin one.
    NoSession,
    Draining,
    SubscriberLimit,
    PortsExhausted,
    SessionsFull,
    SubscribersFull,
}

type MappingKey = [u8; 8];

/// All sessions of a worker.
pub(super) struct Sessions {
    pub(super) flows: FlowTable<FlowKey, Session>,
    /// External ports by inside ones.
    mappings: FlowTable<MappingKey, Slot>,
    subscribers: FlowTable<MappingKey, Subscriber>,
    /// With a filter: sessions by who may send.
    permits: Option<FlowTable<FlowKey, u32>>,
    pub(super) ports: Ports,
    pub(super) external: External,
    pub(super) events: Events,
    /// Sessions that are gone from their table, and from nowhere else yet.
    gone: Vec<Removed<FlowKey, Session>>,
    /// Where the search for sessions that the policy does not allow goes on.
    purge: Option<usize>,
}

/// Mappings and permits that there is room for, for each session. None of them goes to make place for
/// another, so their tables must not be full before that of the sessions is: a new session evicts one
/// there, and what that held goes with it.
const ROOM: usize = 2;
/// Sessions whose mappings and hosts are waited for together when they end.
const TOGETHER: usize = 16;
/// Ports that may be woken at once.
const WAKE: usize = 64;

impl Sessions {
    pub(super) fn new(policy: &Policy, memory: &Memory, ports: Ports, events: Events) -> Result<Self, FlowTableError> {
        let (sessions, subscribers) = (policy.config.sessions, policy.config.subscribers);
        let shared = sessions * ROOM;
        let permits = policy.filters().then(|| FlowTable::with_capacity(memory, shared, HashKey::random()));
        let mut new = Self {
            flows: FlowTable::with_capacity(memory, sessions, HashKey::random())?,
            mappings: FlowTable::with_capacity(memory, shared, HashKey::random())?,
            subscribers: FlowTable::with_capacity(memory, subscribers, HashKey::random())?,
            permits: permits.transpose()?,
            ports,
            external: External::default(),
            events,
            gone: Vec::with_capacity(256),
            purge: None,
        };
        new.adopt(policy);
        new.purge = None;
        Ok(new)
    }

    /// Bytes that they take.
    pub(super) fn bytes(policy: &Policy) -> usize {
        let (sessions, subscribers) = (policy.config.sessions, policy.config.subscribers);
        let shared = sessions * ROOM;
        let permits = if policy.filters() { FlowTable::<FlowKey, u32>::bytes(shared) } else { 0 };
        FlowTable::<FlowKey, Session>::bytes(sessions)
            + FlowTable::<MappingKey, Slot>::bytes(shared)
            + FlowTable::<MappingKey, Subscriber>::bytes(subscribers)
            + permits
    }

    /// Works by another policy from here on. Sessions that it does not allow go little by little.
    pub(super) fn adopt(&mut self, policy: &Policy) {
        let mut numbers = Vec::new();
        for pool in &policy.pools {
            let active = pool.addresses.iter().map(|address| (*address, Status::Active));
            let draining = pool.draining.iter().map(|address| (*address, Status::Draining));
            for (address, status) in active.chain(draining) {
                if let Some(number) = self.ports.set_address(address, pool.group, status) {
                    numbers.push((address, number));
                }
            }
        }
        self.ports.cut(|address| numbers.iter().any(|(of_pool, _)| *of_pool == address));
        self.external = External::new(policy, &numbers);
        self.purge = Some(0);
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The session of a key.
    pub(super) fn session(&self, key: &FlowKey) -> Option<(Handle, &Session)> {
        let handle = self.flows.lookup(key)?;
        Some((handle, self.flows.entry(handle)?.1))
    }

    /// What a packet is translated by that belongs to no session, only to a mapping.
    pub(super) fn passing(&self, address: Ipv4Addr, port: u16, destination: Ipv4Addr) -> Session {
        let flags = if self.external.has(destination) { TURNS } else { 0 };
        Session { address: address.octets(), port, flags, ..Session::default() }
    }

    /// Makes a session one that is kept under pressure, if its mapping has been answered to.
    #[inline(never)]
    pub(super) fn confirm_if_answered(&mut self, handle: Handle) {
        let Some((key, session)) = self.flows.entry(handle) else { return };
        let Some(flow) = FlowTuple::of_key(key) else { return };
        let slot = self.slot(&flow, session);
        if !slot.and_then(|slot| self.ports.mapping(slot)).is_some_and(|mapping| mapping.answered) {
            return;
        }
        if let Some(Entry { value: session, .. }) = self.flows.entry_mut(handle) {
            session.flags |= CONFIRMED;
        }
        self.flows.reclassify(handle, Class::ESTABLISHED);
    }

    /// Gives a TCP session the class of its state.
    pub(super) fn settle_class(&mut self, handle: Handle) {
        let Some(Entry { key, value: session, .. }) = self.flows.entry_mut(handle) else { return };
        if key.get(12) != Some(&Protocol::Tcp.number()) {
            return;
        }
        let established = session.timer() == Timer::TcpEstablished as usize;
        if established != session.is_confirmed() {
            session.flags ^= CONFIRMED;
            self.flows.reclassify(handle, if established { Class::ESTABLISHED } else { Class::EMBRYONIC });
        }
    }

    /// As [`Sessions::permits`], of up to 64 packets from outside: bit i is for the key i.
    #[inline]
    pub(super) fn permitted(&self, policy: &Policy, packets: &[FlowKey]) -> u64 {
        self.permits.as_ref().map_or(u64::MAX, |permits| Self::permitted_by(permits, policy, packets))
    }

    #[inline(never)]
    fn permitted_by(permits: &FlowTable<FlowKey, u32>, policy: &Policy, packets: &[FlowKey]) -> u64 {
        let (mut keys, mut found) = ([FlowKey::default(); 64], [None; 64]);
        let mut all = 0_u64;
        for (index, (key, packet)) in keys.iter_mut().zip(packets).enumerate() {
            *key = *packet;
            match Protocol::of_number(packet[12]).map(|protocol| policy.filtering(protocol)) {
                Some(Filtering::EndpointIndependent) => all |= 1 << index,
                Some(Filtering::AddressDependent) => key[8..10].fill(0),
                Some(Filtering::AddressAndPortDependent) | None => {}
            }
        }
        let count = packets.len().min(keys.len());
        permits.lookup_batch(&keys[..count], &mut found[..count]);
        found.iter().enumerate().fold(all, |mask, (index, found)| mask | u64::from(found.is_some()) << index)
    }

    /// Who may send to a mapping, as far as the filter of the protocol looks.
    fn permit(filtering: Filtering, protocol: Protocol, remote: (Ipv4Addr, u16), external: (Ipv4Addr, u16)) -> FlowKey {
        let port = if filtering == Filtering::AddressAndPortDependent { remote.1 } else { 0 };
        FlowTuple {
            protocol,
            source: remote.0,
            destination: external.0,
            source_port: port,
            destination_port: external.1,
        }
        .key()
    }

    /// Whether an outside host may send to a mapping.
    #[inline]
    pub(super) fn permits(&self, policy: &Policy, packet: &FlowTuple) -> bool {
        let filtering = policy.filtering(packet.protocol);
        let (Some(permits), true) = (&self.permits, filtering != Filtering::EndpointIndependent) else { return true };
        let remote = (packet.source, packet.source_port);
        let external = (packet.destination, packet.destination_port);
        permits.lookup(&Self::permit(filtering, packet.protocol, remote, external)).is_some()
    }

    /// The mapping of an external port.
    #[inline]
    pub(super) fn mapping(&self, protocol: Protocol, address: Ipv4Addr, port: u16) -> Option<(Slot, Mapping)> {
        let number = self.external.number(address)?;
        let slot = self.ports.slot(number, protocol, port)?;
        Some((slot, self.ports.mapping(slot)?))
    }

    /// The external address and port of an inside one towards what a pool serves.
    pub(super) fn mapped(
        &self,
        (policy, pool): (&Policy, &Pool),
        protocol: Protocol,
        inside: (Ipv4Addr, u16),
    ) -> Option<(Ipv4Addr, u16)> {
        let handle = self.mappings.lookup(&mapping_key(pool.group, Some(protocol), inside))?;
        let (_, slot) = self.mappings.entry(handle)?;
        if self.goes(policy, protocol, *slot) {
            return None;
        }
        Some((self.ports.address(slot.address())?, self.ports.port(*slot)))
    }

    /// Whether a mapping is one that the policy does not allow any more, and that is still to be found.
    fn goes(&self, policy: &Policy, protocol: Protocol, slot: Slot) -> bool {
        let Some(address) = self.ports.address(slot.address()) else { return true };
        let is_forwarded = || policy.forward.contains_key(&Endpoint { protocol, address, port: self.ports.port(slot) });
        self.ports.status(slot.address()) == Some(Status::Cut) || !policy.forward.is_empty() && is_forwarded()
    }

    /// Begins a session of an inside host.
    pub(super) fn open(
        &mut self,
        flow: &FlowTuple,
        tcp: Option<TcpState>,
        (policy, pool): (&Policy, &Pool),
        (draining, begins): (bool, bool),
        now: Instant,
    ) -> Result<Session, Refusal> {
        let inside = (flow.source, flow.source_port);
        let key = mapping_key(pool.group, Some(flow.protocol), inside);
        let known = self.mappings.lookup(&key).and_then(|handle| Some(*self.mappings.entry(handle)?.1));
        if known.is_none() && !begins {
            return Err(Refusal::NoSession);
        }
        // The search for those that go would not come by a new session of it: it begins when they are gone.
        if known.is_some_and(|slot| self.goes(policy, flow.protocol, slot)) {
            return Err(Refusal::NoSession);
        }
        if draining {
            return Err(Refusal::Draining);
        }
        let subscriber = self.subscriber(policy, pool, flow.source)?;
        let (slot, made) = match known {
            Some(slot) => (slot, None),
            None => match self.map(flow, subscriber, policy, pool, now) {
                Ok((slot, port)) => (slot, Some(port)),
                Err(refusal) => return self.give_up(pool, flow.source, refusal),
            },
        };
        if made.is_none() && !self.ports.join(slot) {
            return Err(Refusal::SubscriberLimit);
        }
        let address = self.ports.address(slot.address()).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut session = Session { address: address.octets(), port: self.ports.port(slot), ..Session::default() };
        match (flow.protocol, tcp) {
            (Protocol::Tcp, tcp) => session.follow(tcp.unwrap_or_default()),
            (Protocol::Udp, _) => session.set_timer(Timer::Udp),
            (Protocol::Icmp, _) => session.set_timer(Timer::Icmp),
        }
        if self.external.has(flow.destination) {
            session.flags |= TURNS;
        }
        if session.tcp.is_open() {
            session.flags |= CONFIRMED;
        }
        self.count(pool, flow.source, |subscriber| {
            subscriber.sessions += 1;
            subscriber.ports += u32::from(made.is_some());
        });
        let deadline = policy.timeouts.get(session.timer()).map_or(now, |timeout| now + *timeout);
        if !self.admit(policy, flow, &session) {
            self.unmap(flow, &session, policy, now);
            return Err(Refusal::SessionsFull);
        }
        let Self { flows, gone, .. } = self;
        // As one that takes no established one's place, whatever it is.
        let class = Class::EMBRYONIC;
        let inserted = flows.insert(flow.key(), session, class, now, deadline, |removed| gone.push(removed));
        match &inserted {
            Ok(inserted) if session.is_confirmed() => _ = flows.reclassify(inserted.handle(), Class::ESTABLISHED),
            Ok(_) => {}
            Err(_) => self.let_go(flow, &session, policy, now),
        }
        self.finish(policy, now);
        inserted.map(|_| session).map_err(|_| Refusal::SessionsFull)
    }

    /// The number of the address that a host uses, or would.
    fn subscriber(&mut self, policy: &Policy, pool: &Pool, host: Ipv4Addr) -> Result<Subscriber, Refusal> {
        let key = mapping_key(pool.group, None, (host, 0));
        if let Some((_, known)) = self.subscribers.lookup(&key).and_then(|handle| self.subscribers.entry(handle)) {
            let full = policy.config.sessions_per_subscriber.is_some_and(|most| known.sessions >= most);
            return if full { Err(Refusal::SubscriberLimit) } else { Ok(*known) };
        }
        let address = self.ports.any_address(pool.group).ok_or(Refusal::PortsExhausted)?;
        let new = Subscriber { address, ..Subscriber::default() };
        // Below those that are there, so that it takes nobody's place.
        let inserted = self.subscribers.insert(key, new, Class::EMBRYONIC, Instant::START, Instant::NEVER, |_| ());
        let inserted = inserted.map_err(|_| Refusal::SubscribersFull)?;
        self.subscribers.reclassify(inserted.handle(), Class::KEPT);
        Ok(new)
    }

    /// Forgets a host that has nothing.
    fn give_up(&mut self, pool: &Pool, host: Ipv4Addr, refusal: Refusal) -> Result<Session, Refusal> {
        self.count(pool, host, |_| ());
        Err(refusal)
    }

    /// Changes what is known of a host, and forgets it if it has nothing any more.
    fn count(&mut self, pool: &Pool, host: Ipv4Addr, change: impl FnOnce(&mut Subscriber)) {
        self.count_in(pool.group, host, change);
    }

    fn count_in(&mut self, group: u8, host: Ipv4Addr, change: impl FnOnce(&mut Subscriber)) {
        let Some(handle) = self.subscribers.lookup(&mapping_key(group, None, (host, 0))) else { return };
        let Some(Entry { value: subscriber, .. }) = self.subscribers.entry_mut(handle) else { return };
        change(subscriber);
        if subscriber.sessions == 0 {
            // What it held are numbers.
            let _ = self.subscribers.remove(handle);
        }
    }

    /// Finds an external port for an inside one that has none.
    fn map(
        &mut self,
        flow: &FlowTuple,
        subscriber: Subscriber,
        policy: &Policy,
        pool: &Pool,
        now: Instant,
    ) -> Result<(Slot, u16), Refusal> {
        if policy.config.ports_per_subscriber.is_some_and(|most| subscriber.ports >= most) {
            return Err(Refusal::SubscriberLimit);
        }
        self.ports.wake(now, policy.port_quiet, WAKE);
        let inside = (flow.source, flow.source_port);
        let key = mapping_key(pool.group, Some(flow.protocol), inside);
        let has_ports = flow.protocol != Protocol::Icmp;
        let wanted = Wanted {
            range: match policy.config.keep_range && has_ports && flow.source_port < 1024 {
                true => PortRange { first: 1, last: 1023 },
                false => pool.ports,
            },
            parity: Some(flow.source_port & 1).filter(|_| policy.config.keep_parity && has_ports),
            rather: Some(flow.source_port).filter(|_| policy.preserves_ports()),
        };
        let mut address = subscriber.address;
        if self.ports.status(address) != Some(Status::Active) || self.ports.group(address) != Some(pool.group) {
            // The host's own goes, with the mappings that it has, or is gone and its number another's.
            address = self.ports.any_address(pool.group).ok_or(Refusal::PortsExhausted)?;
            self.bind(pool, flow.source, address);
        }
        let mut found = self.take(address, flow, wanted, policy);
        // One that has no ports yet is bound to no address.
        let mut next = Some(0).filter(|_| !policy.paired() || subscriber.ports == 0);
        while let (None, Some(from)) = (found, next) {
            let other = self.ports.next_address(pool.group, from);
            found = other.and_then(|other| self.take(other, flow, wanted, policy));
            next = other.map(|other| other + 1);
        }
        let (slot, port) = found.ok_or(Refusal::PortsExhausted)?;
        if subscriber.ports == 0 && slot.address() != address {
            self.bind(pool, flow.source, slot.address());
        }
        let inserted = self.mappings.insert(key, slot, Class::EMBRYONIC, now, Instant::NEVER, |_| ());
        let Ok(inserted) = inserted else {
            self.ports.leave(slot, now, 0);
            return Err(Refusal::SessionsFull);
        };
        self.mappings.reclassify(inserted.handle(), Class::KEPT);
        self.events.mapping(true, flow.protocol, inside, (self.ports.address(slot.address()), port));
        Ok((slot, port))
    }

    /// From now on a host's ports are of this address.
    fn bind(&mut self, pool: &Pool, host: Ipv4Addr, address: u16) {
        let handle = self.subscribers.lookup(&mapping_key(pool.group, None, (host, 0)));
        if let Some(Entry { value: subscriber, .. }) = handle.and_then(|handle| self.subscribers.entry_mut(handle)) {
            subscriber.address = address;
        }
    }

    fn take(&mut self, address: u16, flow: &FlowTuple, wanted: Wanted, policy: &Policy) -> Option<(Slot, u16)> {
        let external = self.ports.address(address)?;
        let may = |port| {
            let endpoint = Endpoint { protocol: flow.protocol, address: external, port };
            policy.forward.is_empty() || !policy.forward.contains_key(&endpoint)
        };
        self.ports.take(address, flow.protocol, wanted, (flow.source, flow.source_port), may)
    }

    /// Lets the outside host of a new session send.
    fn admit(&mut self, policy: &Policy, flow: &FlowTuple, session: &Session) -> bool {
        let filtering = policy.filtering(flow.protocol);
        let (Some(permits), true) = (&mut self.permits, filtering != Filtering::EndpointIndependent) else {
            return true;
        };
        let remote = (flow.destination, flow.destination_port);
        let key = Self::permit(filtering, flow.protocol, remote, (session.address.into(), session.port));
        let inserted = permits.insert(key, 0, Class::EMBRYONIC, Instant::START, Instant::NEVER, |_| ());
        let Ok(inserted) = inserted else { return false };
        let handle = inserted.handle();
        permits.reclassify(handle, Class::KEPT);
        if let Some(Entry { value: sessions, .. }) = permits.entry_mut(handle) {
            *sessions += 1;
        }
        true
    }

    /// Gives back what sessions held that are gone from their table.
    pub(super) fn finish(&mut self, policy: &Policy, now: Instant) {
        while !self.gone.is_empty() {
            let kept = self.gone.len().saturating_sub(TOGETHER);
            let held = |removed: &Removed<FlowKey, Session>| {
                let flow = FlowTuple::of_key(&removed.key)?;
                let slot = self.slot(&flow, &removed.value)?;
                Some((flow, slot, self.ports.group(slot.address())?))
            };
            let all = || self.gone.get(kept..).unwrap_or_default().iter().filter_map(held);
            for (flow, slot, group) in all() {
                self.ports.prefetch(slot);
                self.prefetch(group, &flow);
            }
            for (flow, _, group) in all() {
                self.prefetch_entries(group, &flow);
            }
            while let Some(Removed { key, value, .. }) = self.gone.pop() {
                if let Some(flow) = FlowTuple::of_key(&key) {
                    self.let_go(&flow, &value, policy, now);
                }
                if self.gone.len() == kept {
                    break;
                }
            }
        }
    }

    /// Asks for what a session that begins will change beside its own table: of up to 64 packets, by the
    /// keys of their sessions.
    pub(super) fn prefetch_beginnings(&self, policy: &Policy, keys: &[FlowKey]) {
        let beginning = |key: &FlowKey| {
            let flow = FlowTuple::of_key(key)?;
            Some((flow, policy.pool(flow.source, flow.destination)?.group))
        };
        for (key, (flow, group)) in keys.iter().filter_map(|key| Some((key, beginning(key)?))) {
            self.flows.prefetch(key);
            self.prefetch(group, &flow);
        }
        for (key, (flow, group)) in keys.iter().filter_map(|key| Some((key, beginning(key)?))) {
            self.flows.prefetch_entry(key);
            self.prefetch_entries(group, &flow);
        }
    }

    fn prefetch(&self, group: u8, flow: &FlowTuple) {
        self.mappings.prefetch(&mapping_key(group, Some(flow.protocol), (flow.source, flow.source_port)));
        self.subscribers.prefetch(&mapping_key(group, None, (flow.source, 0)));
    }

    fn prefetch_entries(&self, group: u8, flow: &FlowTuple) {
        self.mappings.prefetch_entry(&mapping_key(group, Some(flow.protocol), (flow.source, flow.source_port)));
        self.subscribers.prefetch_entry(&mapping_key(group, None, (flow.source, 0)));
    }

    fn let_go(&mut self, flow: &FlowTuple, session: &Session, policy: &Policy, now: Instant) {
        let filtering = policy.filtering(flow.protocol);
        let external = (session.address.into(), session.port);
        if let (Some(permits), true) = (&mut self.permits, filtering != Filtering::EndpointIndependent) {
            let key = Self::permit(filtering, flow.protocol, (flow.destination, flow.destination_port), external);
            if let Some(handle) = permits.lookup(&key)
                && let Some(Entry { value: sessions, .. }) = permits.entry_mut(handle)
            {
                *sessions = sessions.saturating_sub(1);
                if *sessions == 0 {
                    // What it held is a number.
                    let _ = permits.remove(handle);
                }
            }
        }
        self.unmap(flow, session, policy, now);
    }

    /// The place of a session's external port, also if its address is ours no more.
    fn slot(&self, flow: &FlowTuple, session: &Session) -> Option<Slot> {
        let address = session.address.into();
        let number = self.external.number(address).or_else(|| self.ports.number_of(address))?;
        self.ports.slot(number, flow.protocol, session.port)
    }

    /// One session of a mapping less.
    fn unmap(&mut self, flow: &FlowTuple, session: &Session, policy: &Policy, now: Instant) {
        let external = (Ipv4Addr::from(session.address), session.port);
        let Some(slot) = self.slot(flow, session) else { return };
        let Some(group) = self.ports.group(slot.address()) else { return };
        let ended = self.ports.leave(slot, now, policy.port_quiet);
        if let Some(Mapping { inside, port, .. }) = ended {
            if let Some(handle) = self.mappings.lookup(&mapping_key(group, Some(flow.protocol), (inside, port))) {
                // Its port has been given back above.
                let _ = self.mappings.remove(handle);
            }
            self.events.mapping(false, flow.protocol, (inside, port), (Some(external.0), external.1));
        }
        self.count_in(group, flow.source, |subscriber| {
            subscriber.sessions = subscriber.sessions.saturating_sub(1);
            subscriber.ports = subscriber.ports.saturating_sub(u32::from(ended.is_some()));
        });
    }

    /// Ends sessions whose time has come, and those that the policy does not allow any more, as far as
    /// the budget goes.
    pub(super) fn tick(&mut self, policy: &Policy, now: Instant, budget: u32) {
        let Self { flows, gone, .. } = self;
        flows.expire(now, budget, |removed| gone.push(removed));
        self.finish(policy, now);
        self.ports.wake(now, policy.port_quiet, WAKE);
        if let Some(from) = self.purge {
            self.purge(from, policy, now, budget as usize);
        }
    }

    fn purge(&mut self, from: usize, policy: &Policy, now: Instant, budget: usize) {
        let forbidden = |flow: &FlowTuple, session: &Session, all: &Self| {
            let goes = all.slot(flow, session).is_none_or(|slot| all.goes(policy, flow.protocol, slot));
            goes || all.external.has(flow.destination) != session.turns()
        };
        self.purge = self.remove_where(from, budget, forbidden);
        self.finish(policy, now);
    }

    /// Takes sessions out of their table, as many slots as the budget says from this one on; where to
    /// go on, if there is more.
    fn remove_where(
        &mut self,
        from: usize,
        budget: usize,
        which: impl Fn(&FlowTuple, &Session, &Self) -> bool,
    ) -> Option<usize> {
        let to = from + budget;
        let wanted =
            |key: &FlowKey, session: &Session| FlowTuple::of_key(key).is_some_and(|flow| which(&flow, session, self));
        let entries = self.flows.entries_in(from..to).filter(|(_, key, session)| wanted(key, session));
        let handles: Vec<_> = entries.map(|(handle, ..)| handle).collect();
        for handle in handles {
            self.gone.extend(self.flows.remove(handle));
        }
        (to < self.flows.slots()).then_some(to)
    }

    /// Ends the sessions that a filter names, as many slots of the table as the budget says; how many,
    /// and where to go on.
    pub(super) fn clear(
        &mut self,
        from: usize,
        budget: usize,
        (policy, now): (&Policy, Instant),
        which: impl Fn(&FlowTuple, &Session) -> bool,
    ) -> (usize, Option<usize>) {
        let before = self.flows.len();
        let next = self.remove_where(from, budget, |flow, session, _| which(flow, session));
        let cleared = before - self.flows.len();
        self.finish(policy, now);
        (cleared, next)
    }

    /// Makes ports free again that a forward of an earlier policy had.
    pub(super) fn release_forwards(&mut self, before: &Policy, policy: &Policy) {
        for external in before.forward.keys().filter(|external| !policy.forward.contains_key(external)) {
            self.ports.give_back(external.address, external.protocol, external.port);
        }
    }

    /// Hosts with sessions.
    pub(super) fn hosts(&self) -> usize {
        self.subscribers.len()
    }

    /// Mappings.
    pub(super) fn mapped_ports(&self) -> usize {
        self.mappings.len()
    }
}

/// An inside port in a pool's group; without a protocol the host itself.
fn mapping_key(group: u8, protocol: Option<Protocol>, (address, port): (Ipv4Addr, u16)) -> MappingKey {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&address.octets());
    key[4..6].copy_from_slice(&port.to_be_bytes());
    key[6] = protocol.map_or(0, Protocol::number);
    key[7] = group;
    key
}

/// Which addresses are ours: an open table, small enough to stay near.
#[derive(Debug, Default)]
pub(super) struct External {
    /// The lowest, and how far the highest is from it.
    first: u32,
    span: u32,
    /// Address, and its number among the pools' or [`External::STATIC`]; a power of two of them.
    places: Vec<Option<(Ipv4Addr, u16)>>,
}

impl External {
    /// The number of an address that no pool has.
    const STATIC: u16 = u16::MAX;

    fn new(policy: &Policy, numbers: &[(Ipv4Addr, u16)]) -> Self {
        let all: Vec<_> = policy.external().collect();
        let first = all.iter().min().map_or(0, |address| address.to_bits());
        let span = all.iter().max().map_or(0, |address| address.to_bits() - first);
        let mut new = Self { first, span, places: vec![None; (4 * all.len()).next_power_of_two()] };
        for (address, number) in numbers {
            new.insert(*address, *number);
        }
        for address in all {
            if new.find(address).is_none() {
                new.insert(address, Self::STATIC);
            }
        }
        new
    }

    fn insert(&mut self, address: Ipv4Addr, number: u16) {
        let mask = self.places.len() - 1;
        let mut place = Self::hash(address) & mask;
        while self.places[place].is_some() {
            place = (place + 1) & mask;
        }
        self.places[place] = Some((address, number));
    }

    #[inline]
    fn hash(address: Ipv4Addr) -> usize {
        (address.to_bits().wrapping_mul(0x9e37_79b1) >> 8) as usize
    }

    #[inline]
    fn find(&self, address: Ipv4Addr) -> Option<u16> {
        // Most others are far from them.
        if address.to_bits().wrapping_sub(self.first) > self.span {
            return None;
        }
        let mask = self.places.len().wrapping_sub(1);
        let mut place = Self::hash(address) & mask;
        // A quarter is filled at most.
        while let Some((known, number)) = self.places.get(place).copied().flatten() {
            if known == address {
                return Some(number);
            }
            place = (place + 1) & mask;
        }
        None
    }

    /// Whether packets from outside may be for it.
    #[inline]
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.find(address).is_some()
    }

    /// The number of a pool's address.
    #[inline]
    pub(super) fn number(&self, address: Ipv4Addr) -> Option<u16> {
        self.find(address).filter(|number| *number != Self::STATIC)
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("len", &self.flows.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::Function as _;

    #[test]
    fn an_external_address_has_the_number_that_it_was_given() {
        let text = r#"
            forward = [{ protocol = "tcp", outside = "198.51.100.77", ports = "80", to = ["192.168.1.1:80"] },
                       { protocol = "tcp", outside = "10.0.3.3", ports = "80", to = ["192.168.1.2:80"] }]
            one_to_one = [{ inside = "192.168.2.0/28", outside = "203.0.113.0/28" }]
            [[pools]]
            addresses = ["10.0.0.0/22"]
            draining = ["10.1.0.0/30"]"#;
        let policy = crate::nat::Nat::new().policy(toml::from_str(text).unwrap()).unwrap();
        let of_pool = (0..1024).map(|host| Ipv4Addr::from_bits(0x0a00_0000 + host));
        let draining = (0..4).map(|host| Ipv4Addr::from_bits(0x0a01_0000 + host));
        let numbers: Vec<_> = of_pool.chain(draining).zip(100..).collect();
        let external = External::new(&policy, &numbers);
        for (address, number) in &numbers {
            assert_eq!((external.has(*address), external.number(*address)), (true, Some(*number)), "{address}");
        }
        // Those that no pool has are ours all the same; one that a pool has too is the pool's.
        let one_to_one = (0..16).map(|host| Ipv4Addr::new(203, 0, 113, host));
        for address in one_to_one.chain([Ipv4Addr::new(198, 51, 100, 77)]) {
            assert_eq!((external.has(address), external.number(address)), (true, None), "{address}");
        }
        for address in
            [[10, 0, 4, 0], [10, 1, 0, 4], [9, 255, 255, 255], [203, 0, 113, 16], [192, 168, 2, 1], [0; 4], [255; 4]]
        {
            assert!(!external.has(address.into()), "{address:?}");
        }
        // Before there is a policy there are none.
        assert!(!External::default().has(Ipv4Addr::UNSPECIFIED));
    }
}
