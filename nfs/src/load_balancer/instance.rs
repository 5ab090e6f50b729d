//! The packet path of one worker.

use super::config::{Mode, OnBackendDown, WhenEmpty};
use super::connections::{Connection, Connections, Full};
use super::counters::Shared;
use super::encapsulate::readdress;
use super::flow::{ETHERNET, Flow, Key, Kind, NotSeen, Seen, destination, look};
use super::health::Door;
use super::icmp::reply_to_echo;
use super::policy::{Found, Policy, Service, Timer, Way};
use super::reasons::{Counters, Reasons};
use super::reset::reset;
use super::scratch::Scratch;
use super::translate::Translation;
use nf_framework::headers::{Headers, IpProtocol, TcpFlags};
use nf_framework::{
    Annotation, Batch, Budget, Context, Deadline, DropReason, Handle, IcmpError, Mbuf, NetworkFunction, Note,
    TracedPacket, Verdict,
};
use std::sync::Arc;

/// What handles the packets of one worker.
#[derive(Debug)]
pub struct Instance {
    pub(super) policy: Arc<Policy>,
    pub(super) state: WorkerState,
    /// At hand between batches.
    pub(super) scratch: Option<Box<Scratch>>,
}

/// What a worker knows and changes. The policy is beside it, so that both can be borrowed: a clone for each packet would
/// be two writes to a count that all workers share.
#[derive(Debug)]
pub(super) struct WorkerState {
    pub(super) connections: Connections,
    pub(super) shared: Shared,
    pub(super) translation: Translation,
    /// To health checks.
    pub(super) door: Door,
    pub(super) reasons: Reasons,
    pub(super) counters: Counters,
    /// By timer, when a connection ends that is used now.
    pub(super) deadlines: [Deadline; Timer::COUNT],
}

/// What becomes of a packet that was looked at closely.
enum Fate {
    Verdict(Verdict),
    /// It has become an answer to who sent it.
    Answer,
    /// It was for a health check, which has it.
    Check,
}

impl NetworkFunction for Instance {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        // Addressed to a backend already.
        if cx.turned() {
            return;
        }
        self.state.deadlines = self.state.connections.deadlines(&self.policy, cx.now());
        let others = self.usual(batch);
        let Self { policy, state, .. } = self;
        for slot in others {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            match state.closer(packet, policy, cx) {
                Fate::Verdict(verdict) => batch.decide(slot, verdict),
                Fate::Check => batch.take(slot).into_iter().for_each(|packet| cx.consume(packet)),
                Fate::Answer => {
                    if let Some(mut packet) = batch.take(slot) {
                        // It begins here: the router takes no hop off it.
                        packet.set_marked(true);
                        cx.emit(packet, cx.direction().reversed());
                    }
                }
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        let Self { policy, state, .. } = self;
        for _ in 0..budget.0.div_ceil(Connections::PER_TICK) {
            state.connections.tick(cx.now());
            state.release(policy);
        }
        state.translation.tick(cx, budget.0);
        state.send_probes(policy, cx);
        state.counters.follow(&state.connections);
    }

    fn sessions(&self) -> u64 {
        self.state.connections.len() as u64
    }

    fn trace_note(&mut self, packet: &mut TracedPacket<'_>, _: &Context<'_>, note: &mut Note) {
        self.note(packet, note);
    }
}

impl Instance {
    pub(super) fn new(
        policy: Arc<Policy>,
        (connections, shared): (Connections, Shared),
        (translation, door): (Translation, Door),
        reasons: Reasons,
        counters: Counters,
    ) -> Self {
        let deadlines = [Deadline::default(); Timer::COUNT];
        let state = WorkerState { connections, shared, translation, door, reasons, counters, deadlines };
        Self { policy, state, scratch: Some(Box::default()) }
    }

    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }
}

impl WorkerState {
    /// Any packet.
    #[cold]
    fn closer(&mut self, packet: &mut Mbuf, policy: &Policy, cx: &mut Context<'_>) -> Fate {
        let seen = match look(packet) {
            Ok(seen) => seen,
            // ARP, and what has no addresses that could be balanced.
            Err(NotSeen::Other) => return Fate::Verdict(Verdict::Next),
            Err(NotSeen::Malformed) => {
                let is_ours = destination(packet.data()).is_some_and(|of| policy.knows(of));
                return Fate::Verdict(if is_ours { Verdict::Drop(DropReason::MALFORMED) } else { Verdict::Next });
            }
        };
        if policy.probes.has(seen.destination) && self.is_for_check(packet, seen.kind) {
            return Fate::Check;
        }
        let verdict = match seen.kind {
            Kind::Discovery => Verdict::Next,
            Kind::Flow(flags) => self.flow(packet, &seen, flags, policy, cx),
            Kind::Error => self.error(packet, &seen, policy, cx),
            Kind::EchoRequest if policy.has_address(seen.destination) && !seen.is_fragment => {
                if reply_to_echo(packet) {
                    return Fate::Answer;
                }
                Verdict::Drop(self.reasons.icmp_checksum)
            }
            Kind::EchoRequest | Kind::ObscureError | Kind::Icmp => self.no_flow(packet, &seen, policy, cx),
        };
        Fate::Verdict(verdict)
    }

    /// What is of no flow that could be known.
    fn no_flow(&mut self, packet: &mut Mbuf, seen: &Seen, policy: &Policy, cx: &mut Context<'_>) -> Verdict {
        if let Some(verdict) = self.reply(packet, seen, cx) {
            return verdict;
        }
        if policy.has_address(seen.destination) { Verdict::Drop(self.reasons.icmp) } else { Verdict::Next }
    }

    /// A packet of TCP, UDP or another protocol.
    fn flow(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        flags: TcpFlags,
        policy: &Policy,
        cx: &mut Context<'_>,
    ) -> Verdict {
        let (flow, key) = (&seen.flow, seen.flow.key());
        if let Some((handle, connection)) = self.connections.find(&key) {
            return self.follow(packet, seen, (&key, handle, connection), flags, policy, cx);
        }
        if let Some(verdict) = self.reply(packet, seen, cx) {
            return verdict;
        }
        let service = match policy.find(flow.destination, flow.protocol, flow.destination_port) {
            Found::Nobody => return Verdict::Next,
            Found::Own => return Verdict::Drop(self.reasons.no_connection),
            Found::NoService => {
                cx.refuse_as(flow.destination, packet, IcmpError::PortUnreachable, cx.direction());
                return Verdict::Drop(self.reasons.no_service);
            }
            Found::Service(place) => policy.services.get(usize::from(place)),
        };
        let Some(service) = service else { return Verdict::Next };
        let is_tcp = flow.protocol == IpProtocol::TCP;
        let is_syn = is_tcp && flags.contains(TcpFlags::SYN);
        if cx.draining() && (is_syn || !is_tcp) {
            return Verdict::Drop(DropReason::DRAINING);
        }
        let Some(backend) = choose(policy, service, flow, &key, packet) else {
            return self.no_backend(packet, service, flow, cx);
        };
        let Some(way) = policy.ways.get(usize::from(backend)) else { return Verdict::Next };
        let mut connection = Connection::first(backend, flow.protocol, flags);
        let needs_entry = service.mode.translates();
        if needs_entry || !flags.contains(TcpFlags::RST) {
            match self.begin(flow, &key, (policy, way), &mut connection, (needs_entry, is_syn || !is_tcp), cx) {
                Ok(known) => connection = known,
                Err(reason) if needs_entry => return Verdict::Drop(reason),
                Err(_) => self.counters.without_entry.add(1),
            }
        }
        self.send(packet, seen, (&key, &connection), policy, cx)
    }

    /// Remembers a flow; what is known of it then comes back.
    fn begin(
        &mut self,
        flow: &Flow,
        key: &Key,
        (policy, way): (&Policy, &Way),
        connection: &mut Connection,
        (is_translated, is_first): (bool, bool),
        cx: &mut Context<'_>,
    ) -> Result<Connection, DropReason> {
        if !self.connections.admits(is_first, cx.now()) {
            return Err(self.reasons.too_many_new);
        }
        if is_translated {
            self.translation.prepare(flow, (policy, way), (connection, is_first), &self.reasons)?;
        }
        let lifetime = policy.timeouts.get(connection.timer as usize).copied().unwrap_or_default();
        let begun = self.connections.begin(key, *connection, cx.now(), lifetime);
        // What made room for it gives back what it held, so that there is room for this one's answers too.
        self.release(policy);
        let known = begun.map_err(|Full| self.reasons.connections_full)?;
        if is_translated && !self.translation.begin(flow, (policy, way), connection, cx.now()) {
            if let Some((handle, _)) = self.connections.find(key) {
                self.connections.end(key, handle);
                self.release(policy);
            }
            return Err(self.reasons.connections_full);
        }
        self.counters.begun.add(1);
        Ok(known)
    }

    /// A packet of a connection that is known.
    fn follow(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (key, handle, mut connection): (&Key, Handle, Connection),
        flags: TcpFlags,
        policy: &Policy,
        cx: &mut Context<'_>,
    ) -> Verdict {
        let flow = &seen.flow;
        let Some(way) = policy.ways.get(usize::from(connection.backend)) else { return Verdict::Next };
        let is_tcp = flow.protocol == IpProtocol::TCP;
        let begins = is_tcp && flags.contains(TcpFlags::SYN) && (connection.stage.is_over() || !way.is_up);
        // Whose it is now: its backend may be gone from there, or the service another one.
        let service = || policy.service(flow);
        let named = if way.may_be_named {
            let named = service().and_then(|service| with_payload(packet, |payload| service.named(flow, payload)));
            let is_up = |slot: &u16| policy.ways.get(usize::from(*slot)).is_some_and(|way| way.is_up);
            named.filter(|slot| *slot != connection.backend && is_up(slot))
        } else {
            None
        };
        if let Some(named) = named {
            self.counters.renamed.add(1);
            let translates = policy.ways.get(usize::from(named)).is_some_and(|way| way.mode.translates());
            if connection.is_translated() || translates {
                return self.begin_anew(packet, seen, (key, handle), flags, policy, cx);
            }
            connection.backend = named;
        } else if begins && cx.draining() {
            return Verdict::Drop(DropReason::DRAINING);
        } else if begins || !way.is_up {
            if !begins && way.on_down == OnBackendDown::Drop {
                return Verdict::Drop(self.reasons.backend_down);
            }
            let Some(service) = service() else {
                return self.begin_anew(packet, seen, (key, handle), flags, policy, cx);
            };
            let Some(chosen) = choose(policy, service, flow, key, packet) else {
                return self.no_backend(packet, service, flow, cx);
            };
            if connection.is_translated() || service.mode.translates() {
                // Behind another port another backend would not know it: so much its client may know at once.
                if !begins && is_tcp && service.mode == Mode::FullNat {
                    reset(packet, cx);
                } else if !begins {
                    self.counters.moved.add(1);
                }
                return self.begin_anew(packet, seen, (key, handle), flags, policy, cx);
            }
            if !begins {
                self.counters.moved.add(1);
            } else {
                self.counters.begun.add(1);
                connection = Connection::first(chosen, flow.protocol, flags);
            }
            connection.backend = chosen;
        }
        if !begins {
            connection.hear_client(flow.protocol, flags);
        }
        let deadline = self.deadlines.get(connection.timer as usize).copied().unwrap_or_default();
        self.connections.write(key, handle, connection, deadline);
        self.send(packet, seen, (key, &connection), policy, cx)
    }

    /// A connection that goes to another backend, and what it holds is of the old one, or what it needs it has not.
    fn begin_anew(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (key, handle): (&Key, Handle),
        flags: TcpFlags,
        policy: &Policy,
        cx: &mut Context<'_>,
    ) -> Verdict {
        self.connections.end(key, handle);
        self.release(policy);
        self.flow(packet, seen, flags, policy, cx)
    }

    /// An ICMP error, perhaps about a packet of a service: it goes where that came from.
    fn error(&mut self, packet: &mut Mbuf, seen: &Seen, policy: &Policy, cx: &mut Context<'_>) -> Verdict {
        if let Some(verdict) = self.reply(packet, seen, cx) {
            return verdict;
        }
        let flow = &seen.flow;
        if !policy.has_address(seen.destination) {
            return Verdict::Next;
        }
        // What it quotes has to be of this address.
        if flow.destination != seen.destination {
            return Verdict::Drop(self.reasons.icmp);
        }
        let key = flow.key();
        if let Some((_, connection)) = self.connections.find(&key) {
            return self.send(packet, seen, (&key, &connection), policy, cx);
        }
        let Found::Service(place) = policy.find(flow.destination, flow.protocol, flow.destination_port) else {
            return Verdict::Drop(self.reasons.icmp);
        };
        let service = policy.services.get(usize::from(place));
        let backend = service.and_then(|service| service.by_table(&policy.hash, flow, &key));
        let Some(backend) = backend else { return Verdict::Drop(self.reasons.no_backend) };
        self.send(packet, seen, (&key, &Connection { backend, ..Connection::default() }), policy, cx)
    }

    /// A packet of a backend's that answers a client, of the modes that translate; nothing if it is none.
    fn reply(&mut self, packet: &mut Mbuf, seen: &Seen, cx: &mut Context<'_>) -> Option<Verdict> {
        let Self { translation, connections, deadlines, reasons, .. } = self;
        translation.reply(packet, seen, (connections, deadlines), reasons, cx)
    }

    /// Nobody is there to take a new flow.
    fn no_backend(&mut self, packet: &Mbuf, service: &Service, flow: &Flow, cx: &mut Context<'_>) -> Verdict {
        if service.when_empty == WhenEmpty::Refuse {
            cx.refuse_as(flow.destination, packet, IcmpError::PortUnreachable, cx.direction());
        }
        Verdict::Drop(self.reasons.no_backend)
    }

    /// Sends a packet of a client's to its backend.
    fn send(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (key, connection): (&Key, &Connection),
        policy: &Policy,
        cx: &mut Context<'_>,
    ) -> Verdict {
        let length = ip_length(packet.data());
        let verdict = self.forward(packet, seen, (key, connection), policy, cx);
        if verdict == Verdict::Next {
            self.connections.backends.sent(connection.backend, length);
        }
        verdict
    }

    /// Puts a packet on its way to a backend.
    pub(super) fn forward(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (key, connection): (&Key, &Connection),
        policy: &Policy,
        cx: &mut Context<'_>,
    ) -> Verdict {
        let slot = connection.backend;
        let Some(way) = policy.ways.get(usize::from(slot)) else { return Verdict::Next };
        let length = ip_length(packet.data());
        let annotation = Annotation { may_turn: true, ..Annotation::of(packet) };
        match (&way.tunnel, way.mode) {
            (Some(tunnel), _) => {
                if length > usize::from(way.largest) && !tunnel.may_split() {
                    cx.refuse(packet, IcmpError::TooBig(way.largest));
                    return Verdict::Drop(self.reasons.too_big);
                }
                if !tunnel.enter(packet, length, policy.hash.of(key), &mut self.translation.identifications) {
                    return Verdict::Drop(DropReason::NO_HEADROOM);
                }
                packet.set_marked(true);
                // What was a fragment is in a whole packet now.
                Annotation { ports: None, ..annotation }.write(packet);
            }
            (None, Mode::Dsr) => {
                let next_hop = policy.next_hops.get().and_then(|all| all.get(usize::from(slot)).copied().flatten());
                Annotation { next_hop, ..annotation }.write(packet);
            }
            (None, Mode::Nat | Mode::FullNat) => {
                if let Err(reason) =
                    self.translation.forward(packet, seen, (policy, way), connection, &self.reasons, cx)
                {
                    return Verdict::Drop(reason);
                }
                Annotation { may_turn: true, ..Annotation::of(packet) }.write(packet);
            }
            (None, _) => {
                if !readdress(packet, way.address, way.dscp) {
                    return Verdict::Drop(DropReason::MALFORMED);
                }
                annotation.write(packet);
            }
        }
        Verdict::Next
    }

    /// Connections that have ended give back what they held.
    fn release(&mut self, policy: &Policy) {
        while let Some((key, connection)) = self.connections.gone.pop() {
            self.translation.release(&key, &connection, policy);
        }
    }
}

/// The backend that a packet of a flow without an entry goes to.
fn choose(policy: &Policy, service: &Service, flow: &Flow, key: &Key, packet: &mut Mbuf) -> Option<u16> {
    let named =
        if service.server_id_length > 0 { with_payload(packet, |payload| service.named(flow, payload)) } else { None };
    let is_up = |slot: &u16| policy.ways.get(usize::from(*slot)).is_some_and(|way| way.is_up);
    named.filter(is_up).or_else(|| service.by_table(&policy.hash, flow, key))
}

fn with_payload(packet: &mut Mbuf, of: impl FnOnce(&[u8]) -> Option<u16>) -> Option<u16> {
    Headers::parse(packet.data_mut()).ok().and_then(|headers| of(headers.payload))
}

/// Octets of the IP packet in a frame without tags that was looked at.
pub(super) fn ip_length(frame: &[u8]) -> usize {
    let field = |at: usize| frame.get(at..at + 2).map_or(0, |field| usize::from(field[0]) << 8 | usize::from(field[1]));
    match frame.get(ETHERNET).map(|first| first >> 4) {
        Some(4) => field(16),
        _ => 40 + field(18),
    }
}
