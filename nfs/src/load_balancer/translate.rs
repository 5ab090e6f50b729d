//! Destination NAT and full NAT.
//!
//! A connection of these modes has a second entry, by what its backend answers with. That one holds the first one's
//! key, lasts as long as the first one does, and goes with it: what a backend sends prolongs the first.

use super::config::Mode;
use super::connections::{Connection, Connections, Stage};
use super::flow::{Flow, Key, KeyV4, KeyV6, Kind, Seen};
use super::policy::{Policy, Timer, Way};
use super::proxy_protocol::{Header, Introduction, Step};
use super::reasons::Reasons;
use super::source_ports::SourcePorts;
use crate::identification::{Identification, Identifications};
use crate::rewrite::{End, Writing, write, write_error};
use nf_framework::headers::{Headers, IpProtocol, Network, TcpFlags, checksum};
use nf_framework::{
    Annotation, Class, Context, Deadline, Direction, DropReason, FlowKey, FlowTable, FlowTableError, Handle, HashKey,
    Instant, Mbuf, Memory, Ports, SetupError, Tuple, Verdict, WorkerSetup,
};
use std::net::{IpAddr, Ipv4Addr};

/// One worker's translations.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) v4: FlowTable<KeyV4, Answer<KeyV4>>,
    pub(super) v6: FlowTable<KeyV6, Answer<KeyV6>>,
    ports: SourcePorts,
    pub(super) identifications: Identifications,
}

/// What a backend's answers belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<K> {
    /// The connection, as its client sends.
    pub(super) of: K,
    pub(super) introduction: Introduction,
}

impl Default for Answer<KeyV4> {
    fn default() -> Self {
        Self { of: [0; 16], introduction: Introduction::default() }
    }
}

impl Default for Answer<KeyV6> {
    fn default() -> Self {
        Self { of: [0; 40], introduction: Introduction::default() }
    }
}

/// How many of a family there are answers of where no service needs any.
const FEWEST: usize = 64;

impl Translation {
    pub(super) fn new(policy: &Policy, worker: &mut WorkerSetup) -> Result<Self, SetupError> {
        // Answers come to the worker that has their destination port, whoever they are from.
        let answer = |port| Tuple {
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            ports: Ports::Both(0, port),
        };
        let ports = SourcePorts::new(|port| worker.owns(Direction::Outbound, &answer(port)));
        let (memory, (v4, v6)) = (worker.memory(), capacities(policy));
        Ok(Self {
            v4: table(&memory, v4)?,
            v6: table(&memory, v6)?,
            ports,
            identifications: Identifications::new(&memory, worker.index(), worker.workers())?,
        })
    }

    /// Bytes that it takes.
    pub(super) fn bytes(policy: &Policy) -> usize {
        let (v4, v6) = capacities(policy);
        FlowTable::<KeyV4, Answer<KeyV4>>::bytes(v4)
            + FlowTable::<KeyV6, Answer<KeyV6>>::bytes(v6)
            + Identifications::bytes()
    }

    /// Before a connection of a mode that translates is remembered: what it needs for that is written into it.
    pub(super) fn prepare(
        &mut self,
        flow: &Flow,
        (policy, way): (&Policy, &Way),
        (connection, is_first): (&mut Connection, bool),
        reasons: &Reasons,
    ) -> Result<(), DropReason> {
        if way.mode == Mode::FullNat {
            if !ports(flow) {
                return Err(reasons.not_translated);
            }
            // Behind another port than before a backend would not know it.
            if !is_first {
                return Err(reasons.no_connection);
            }
            let (source, port) = self.source_of(flow, (policy, way)).ok_or(reasons.ports_exhausted)?;
            (connection.source, connection.port) = (source, port);
        }
        let answer = answer(flow, (policy, way), connection).ok_or(reasons.not_translated)?;
        let is_free = match answer.key() {
            Key::V4(answer) => self.v4.lookup(&answer).is_none(),
            Key::V6(answer) => self.v6.lookup(&answer).is_none(),
        };
        // Else the same client has a connection with the same backend by another service.
        if !is_free {
            return Err(reasons.ports_exhausted);
        }
        connection.marks |= Connection::TRANSLATED;
        // As the service is now: whatever it becomes, its backend is told so or never.
        if !way.proxy_protocol {
            connection.marks |= Connection::INTRODUCED;
        }
        Ok(())
    }

    /// Remembers whose the answers of a connection will be; whether there was room for that.
    pub(super) fn begin(
        &mut self,
        flow: &Flow,
        (policy, way): (&Policy, &Way),
        connection: &Connection,
        now: Instant,
    ) -> bool {
        match (flow.key(), answer(flow, (policy, way), connection).map(|answer| answer.key())) {
            (Key::V4(of), Some(Key::V4(answer))) => {
                insert(&mut self.v4, answer, Answer { of, ..Answer::default() }, now)
            }
            (Key::V6(of), Some(Key::V6(answer))) => {
                insert(&mut self.v6, answer, Answer { of, ..Answer::default() }, now)
            }
            _ => false,
        }
    }

    /// A connection that has ended gives back what it held.
    pub(super) fn release(&mut self, key: &Key, connection: &Connection, policy: &Policy) {
        let Some(way) = policy.ways.get(usize::from(connection.backend)) else { return };
        let Some(answer) = answer(&key.flow(), (policy, way), connection) else { return };
        match (key, answer.key()) {
            (Key::V4(of), Key::V4(answer)) => remove(&mut self.v4, &answer, |known| known.of == *of),
            (Key::V6(of), Key::V6(answer)) => remove(&mut self.v6, &answer, |known| known.of == *of),
            _ => {}
        }
    }

    /// Translates a packet of a client's to its backend.
    pub(super) fn forward(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (policy, way): (&Policy, &Way),
        connection: &Connection,
        reasons: &Reasons,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        if !connection.is_translated() {
            return Err(reasons.no_connection);
        }
        let flow = &seen.flow;
        let backend = (way.address, way.port);
        let source = (way.mode == Mode::FullNat)
            .then(|| Some((policy.source_address(connection.source)?, connection.port)))
            .flatten();
        if seen.kind == Kind::Error {
            if !is_sound_error(packet) {
                return Err(reasons.icmp_checksum);
            }
            // It is about what the backend has sent.
            let port = backend.1.filter(|_| ports(flow));
            let to_backend = (End::Source, backend.0, port);
            let quoted = [to_backend, source.map_or(to_backend, |(own, port)| (End::Destination, own, Some(port)))];
            let to_backend = (End::Destination, backend.0);
            let outer = [to_backend, source.map_or(to_backend, |(own, _)| (End::Source, own))];
            let identification = self.identification(packet, source.is_some(), cx.now());
            let done = write_error(packet, &quoted, &outer, identification);
            return if done { Ok(()) } else { Err(DropReason::MALFORMED) };
        }
        let mut behind = None;
        if let (false, Kind::Flow(flags)) = (connection.is_introduced(), seen.kind) {
            behind = self.introduce(packet, flow, (policy, way), connection, flags, cx);
        }
        for packet in [Some(packet), behind.as_mut()].into_iter().flatten() {
            if let Some((address, port)) = source {
                let identification = self.identification(packet, true, cx.now());
                let writing = Writing { end: End::Source, address, port: Some(port), identification, mss: None };
                write(packet, &writing);
            }
            let (address, port) = (backend.0, backend.1.filter(|_| ports(flow)));
            write(packet, &Writing { end: End::Destination, address, port, identification: None, mss: None });
        }
        if let Some(mut behind) = behind {
            Annotation { may_turn: true, ..Annotation::of(&behind) }.write(&mut behind);
            cx.emit(behind, cx.direction());
        }
        Ok(())
    }

    /// Puts the PROXY protocol's header where it is due; what goes behind the packet then comes back.
    fn introduce(
        &mut self,
        packet: &mut Mbuf,
        flow: &Flow,
        (policy, way): (&Policy, &Way),
        connection: &Connection,
        flags: TcpFlags,
        cx: &mut Context<'_>,
    ) -> Option<Mbuf> {
        let answer = answer(flow, (policy, way), connection)?.key();
        let mut introduction = self.introduction(&answer)?;
        let before = introduction;
        if flags.contains(TcpFlags::SYN) && connection.stage == Stage::Begun {
            introduction = Introduction::begun_by(packet)?;
        }
        let step = introduction.of_client(packet);
        if introduction != before {
            self.set_introduction(&answer, introduction);
        }
        let header = Header::new((flow.source, flow.source_port), (flow.destination, flow.destination_port))?;
        match step {
            Step::Pass => None,
            Step::Replace => {
                introduction.replace(packet, &header);
                None
            }
            Step::Precede => {
                let mut first = cx.allocate()?;
                if !introduction.precede(packet, &header, &mut first) {
                    cx.consume(first);
                    return None;
                }
                // As much on its way as what made it necessary.
                first.set_marked(packet.is_marked());
                Annotation::of(packet).write(&mut first);
                std::mem::swap(packet, &mut first);
                Some(first)
            }
        }
    }

    /// Translates a packet of a backend's that answers a client, an error among them; nothing if it is none.
    pub(super) fn reply(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (connections, deadlines): (&mut Connections, &[Deadline; Timer::COUNT]),
        reasons: &Reasons,
        cx: &mut Context<'_>,
    ) -> Option<Verdict> {
        if !matches!(seen.kind, Kind::Flow(_) | Kind::Error) {
            return None;
        }
        let answer = seen.flow.key();
        let of = match answer {
            Key::V4(answer) => Key::V4(self.v4.entry(self.v4.lookup(&answer)?)?.1.of),
            Key::V6(answer) => Key::V6(self.v6.entry(self.v6.lookup(&answer)?)?.1.of),
        };
        let (handle, mut connection) = connections.find(&of)?;
        let flow = of.flow();
        let (client, service) = ((flow.source, flow.source_port), (flow.destination, flow.destination_port));
        let identification = self.identification(packet, true, cx.now());
        match seen.kind {
            Kind::Flow(flags) => {
                if connection.hear_backend(flow.protocol, flags) {
                    connections.backends.refused(connection.backend);
                }
                if let Some(mut introduction) = self.introduction(&answer).filter(|of| !of.is_over()) {
                    introduction.of_backend(packet);
                    self.set_introduction(&answer, introduction);
                    if introduction.is_over() {
                        connection.marks |= Connection::INTRODUCED;
                    }
                }
                let deadline = deadlines.get(connection.timer as usize).copied().unwrap_or_default();
                connections.write(&of, handle, connection, deadline);
                let port = |port| Some(port).filter(|_| ports(&flow));
                let source =
                    Writing { end: End::Source, address: service.0, port: port(service.1), identification, mss: None };
                write(packet, &source);
                let (address, port) = (client.0, port(client.1));
                write(packet, &Writing { end: End::Destination, address, port, identification: None, mss: None });
            }
            _ => {
                if !is_sound_error(packet) {
                    return Some(Verdict::Drop(reasons.icmp_checksum));
                }
                // It is about what the client has sent.
                let port = |port| Some(port).filter(|_| ports(&flow));
                let quoted = [(End::Source, client.0, port(client.1)), (End::Destination, service.0, port(service.1))];
                let outer = [(End::Source, service.0), (End::Destination, client.0)];
                if !write_error(packet, &quoted, &outer, identification) {
                    return Some(Verdict::Drop(DropReason::MALFORMED));
                }
            }
        }
        Annotation { may_turn: true, ..Annotation::of(packet) }.write(packet);
        Some(Verdict::Next)
    }

    pub(super) fn tick(&mut self, cx: &mut Context<'_>, budget: u32) {
        self.identifications.tick(cx.now(), budget);
    }

    /// Which of our addresses, by its number, and which port a connection gets towards its backend.
    fn source_of(&mut self, flow: &Flow, (policy, way): (&Policy, &Way)) -> Option<(u8, u16)> {
        let all = &policy.config.source_addresses;
        let first = all.iter().position(|address| address.is_ipv4() == way.address.is_ipv4())?;
        let of_family = || all.iter().enumerate().skip(first).filter(|(_, of)| of.is_ipv4() == way.address.is_ipv4());
        let Self { v4, v6, ports, .. } = self;
        let (number, port) = ports.choose(of_family().count(), |number, port| {
            let Some((_, address)) = of_family().nth(number) else { return false };
            let answer = answer_of(flow, way, (*address, port));
            match answer.key() {
                Key::V4(key) => v4.lookup(&key).is_none(),
                Key::V6(key) => v6.lookup(&key).is_none(),
            }
        })?;
        let (place, _) = of_family().nth(number)?;
        Some((u8::try_from(place).ok()?, port))
    }

    fn introduction(&self, answer: &Key) -> Option<Introduction> {
        Some(match answer {
            Key::V4(answer) => self.v4.entry(self.v4.lookup(answer)?)?.1.introduction,
            Key::V6(answer) => self.v6.entry(self.v6.lookup(answer)?)?.1.introduction,
        })
    }

    fn set_introduction(&mut self, answer: &Key, to: Introduction) {
        let place = match answer {
            Key::V4(answer) => place(&mut self.v4, answer).map(|of| &mut of.introduction),
            Key::V6(answer) => place(&mut self.v6, answer).map(|of| &mut of.introduction),
        };
        if let Some(place) = place {
            *place = to;
        }
    }

    /// What a packet of IPv4 is known by from an address that hosts share; nothing where it means nothing.
    fn identification(&mut self, packet: &mut Mbuf, is_shared: bool, now: Instant) -> Option<u16> {
        let headers = Headers::parse(packet.data_mut()).ok().filter(|_| is_shared)?;
        let Network::Ipv4 { header, .. } = &headers.network else { return None };
        let is_fragment = header.is_fragment();
        if !is_fragment && header.dont_fragment() {
            return None;
        }
        let old = Identification { value: header.identification.get(), protocol: header.protocol.0, is_fragment };
        Some(self.identifications.of((header.source.into(), header.destination.into()), old, now))
    }
}

/// What the backend of a connection answers with.
fn answer(flow: &Flow, (policy, way): (&Policy, &Way), connection: &Connection) -> Option<Flow> {
    let client = match way.mode {
        Mode::FullNat => (policy.source_address(connection.source)?, connection.port),
        _ => (flow.source, flow.source_port),
    };
    Some(answer_of(flow, way, client))
}

/// What a backend answers with to whom it sees.
fn answer_of(flow: &Flow, way: &Way, client: (IpAddr, u16)) -> Flow {
    let port = way.port.filter(|_| ports(flow)).unwrap_or(flow.destination_port);
    Flow {
        source: way.address,
        source_port: port,
        destination: client.0,
        destination_port: client.1,
        protocol: flow.protocol,
    }
}

fn ports(flow: &Flow) -> bool {
    matches!(flow.protocol, IpProtocol::TCP | IpProtocol::UDP)
}

/// Entries for answers of each family: as many as there can be connections, which fill their tables to the last slot
/// when they have to.
fn capacities(policy: &Policy) -> (usize, usize) {
    let slots = |connections: usize| connections + connections.div_ceil(8);
    let config = &policy.config;
    if policy.translates() { (slots(config.connections), slots(config.connections_ipv6)) } else { (FEWEST, FEWEST) }
}

fn table<K: FlowKey>(memory: &Memory, entries: usize) -> Result<FlowTable<K, Answer<K>>, FlowTableError>
where
    Answer<K>: Default,
{
    FlowTable::with_capacity(memory, entries, HashKey::random())
}

fn insert<K: FlowKey>(table: &mut FlowTable<K, Answer<K>>, key: K, answer: Answer<K>, now: Instant) -> bool
where
    Answer<K>: Default,
{
    // None goes for another one: each lasts as long as its connection.
    let inserted = table.insert(key, answer, Class::EMBRYONIC, now, Instant::NEVER, |_| ());
    inserted.is_ok_and(|inserted| table.reclassify(inserted.handle(), Class::KEPT))
}

fn place<'a, K: FlowKey>(table: &'a mut FlowTable<K, Answer<K>>, key: &K) -> Option<&'a mut Answer<K>>
where
    Answer<K>: Default,
{
    let handle: Handle = table.lookup(key)?;
    table.entry_mut(handle).map(|entry| entry.value)
}

fn remove<K: FlowKey>(table: &mut FlowTable<K, Answer<K>>, key: &K, is_it: impl FnOnce(&Answer<K>) -> bool)
where
    Answer<K>: Default,
{
    if let Some(handle) = table.lookup(key)
        && table.entry(handle).is_some_and(|(_, known)| is_it(known))
    {
        let _gone = table.remove(handle);
    }
}

/// Whether an error's own checksum is right, and that of the header that it quotes: RFC 5508 REQ-3.
fn is_sound_error(packet: &mut Mbuf) -> bool {
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
    if headers.verify_checksums().is_err() {
        return false;
    }
    headers.quoted().is_some_and(|quoted| match &quoted.network {
        Network::Ipv4 { header, options } => checksum::ipv4_header_is_valid(header, options),
        _ => true,
    })
}
