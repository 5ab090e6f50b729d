//! The packet path of one worker.

use super::flow::{FlowKey, FlowTuple, Kind, NotSeen, Protocol, Seen, look, usual, usual_flags};
use super::occupancy::Occupancies;
use super::policy::{Endpoint, Policy, Timer};
use super::ports::Slot;
use super::reasons::{Counters, Reasons};
use super::sessions::{Refusal, Session, Sessions};
use super::tcp::{TcpState, Way};
use super::unsolicited::Unsolicited;
use crate::identification::Identifications;
use crate::rewrite::{End, Writing, write, write_usual};
use nf_framework::headers::TcpFlags;
use nf_framework::{
    Batch, Budget, Context, Deadline, Direction, DropReason, Handle, IcmpError, Instant, Mbuf, NetworkFunction, Note,
    Slots, TracedPacket, Verdict,
};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What handles the packets of one worker.
#[derive(Debug)]
pub struct Instance {
    pub(super) policy: Arc<Policy>,
    pub(super) sessions: Sessions,
    occupancies: Occupancies,
    pub(super) identifications: Identifications,
    pub(super) unsolicited: Unsolicited,
    pub(super) reasons: Reasons,
    pub(super) counters: Counters,
    /// By timer, when a session ends that is used now.
    deadlines: [Deadline; Timer::COUNT],
    /// Of a batch; kept, as to clear it each time takes a while. At hand between batches.
    scratch: Option<Box<Scratch>>,
}

/// The usual packets of a batch.
#[derive(Debug)]
struct Scratch {
    keys: [FlowKey; MOST],
    found: [Option<Handle>; MOST],
    places: [Slot; MOST],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { keys: [FlowKey::default(); MOST], found: [None; MOST], places: [Slot::default(); MOST] }
    }
}

/// As many as a batch has slots.
const MOST: usize = 64;

impl NetworkFunction for Instance {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        // The packets' first lines are here: the framework has looked whether they are fragments.
        self.deadlines = self.policy.timeouts.map(|timeout| self.sessions.flows.deadline(cx.now() + timeout));
        match cx.direction() {
            Direction::Outbound => self.outbound(batch, cx),
            Direction::Inbound => self.inbound(batch, cx),
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.sessions.tick(&self.policy, cx.now(), budget.0);
        self.sessions.events.tick();
        self.identifications.tick(cx.now(), budget.0);
        self.unsolicited.tick(&self.reasons, cx);
        self.counters.follow(&self.sessions);
        self.occupancies.follow(&self.sessions, &self.policy, cx.now());
    }

    fn held(&self) -> usize {
        self.unsolicited.len()
    }

    fn sessions(&self) -> u64 {
        self.sessions.len() as u64
    }

    fn trace_note(&mut self, packet: &mut TracedPacket<'_>, cx: &Context<'_>, note: &mut Note) {
        self.note(packet, cx, note);
    }
}

impl Instance {
    pub(super) fn new(
        policy: Arc<Policy>,
        (sessions, occupancies): (Sessions, Occupancies),
        identifications: Identifications,
        reasons: Reasons,
        counters: Counters,
    ) -> Self {
        let unsolicited = Unsolicited::new();
        let deadlines = [Deadline::default(); Timer::COUNT];
        let scratch = Some(Box::default());
        Self { policy, sessions, occupancies, identifications, unsolicited, reasons, counters, deadlines, scratch }
    }

    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        self.sessions.adopt(&policy);
        self.sessions.release_forwards(&self.policy, &policy);
        self.policy = policy;
    }

    fn outbound(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(mut scratch) = self.scratch.take() else { return };
        let Scratch { keys, found, .. } = &mut *scratch;
        let mut count = 0;
        let (mut all_usual, mut others, mut turning) = (Slots::default(), Slots::default(), Slots::default());
        for (slot, packet) in batch.undecided_packets() {
            match usual(packet.data()) {
                Some(key) => {
                    keys[count % MOST] = key;
                    count += 1;
                    all_usual.insert(slot);
                }
                None => others.insert(slot),
            }
        }
        let count = count.min(MOST);
        self.sessions.flows.lookup_batch(&keys[..count], &mut found[..count]);
        let mut unknown = 0;
        for (index, ((slot, packet), found)) in batch.packets_in(all_usual).zip(&found[..count]).enumerate() {
            match found.and_then(|handle| self.known_outbound(packet, handle)) {
                Some(false) => {}
                Some(true) => turning.insert(slot),
                None => {
                    others.insert(slot);
                    keys[unknown] = keys[index];
                    unknown += 1;
                }
            }
        }
        self.sessions.prefetch_beginnings(&self.policy, &keys[..unknown]);
        self.scratch = Some(scratch);
        for slot in turning {
            self.counters.hairpins.add(1);
            batch.decide(slot, Verdict::Turn);
        }
        for slot in others {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let verdict = self.closer_outbound(packet, cx);
            match verdict {
                Verdict::Turn => self.counters.hairpins.add(1),
                // What has no port of this worker's may have another owner outside.
                Verdict::Next => cx.cross(slot),
                _ => {}
            }
            batch.decide(slot, verdict);
        }
    }

    /// Translates a usual packet of a session in which nothing new happens; whether it turns.
    #[inline(always)]
    fn known_outbound(&mut self, packet: &mut Mbuf, handle: Handle) -> Option<bool> {
        let Self { sessions, identifications, deadlines, .. } = self;
        let mut entry = sessions.flows.entry_mut(handle)?;
        let (session, is_tcp) = (*entry.value, entry.key[12] == Protocol::Tcp.number());
        if is_tcp && (session.tcp.is_reset() || usual_flags(packet.data()).intersects(TcpState::SIGNALS)) {
            return None;
        }
        entry.touch(*deadlines.get(session.timer())?);
        if !is_tcp && !session.is_confirmed() {
            sessions.confirm_if_answered(handle);
        }
        write_usual(packet.data_mut(), End::Source, session.address, session.port, || identifications.next());
        Some(session.turns())
    }

    /// Any packet from inside.
    #[cold]
    fn closer_outbound(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        let seen = match look(packet) {
            Ok(seen) => seen,
            Err(not_seen) => return self.not_ours(not_seen),
        };
        let (protocol, source_port, destination_port, flags) = match seen.kind {
            Kind::Error { is_fragment: true } => return Verdict::Drop(self.reasons.icmp_fragment),
            Kind::Error { .. } => return self.error_from_inside(packet, &seen),
            Kind::Redirect => return Verdict::Drop(self.reasons.protocol),
            Kind::Other => {
                let verdict = self.static_outbound(packet, &seen, cx.now());
                return verdict.unwrap_or(Verdict::Drop(self.reasons.protocol));
            }
            Kind::Flow(protocol, source, destination, flags) => (protocol, source, destination, flags),
            Kind::Query { identifier, .. } => (Protocol::Icmp, identifier, 0, TcpFlags(0)),
        };
        let Seen { source, destination, .. } = seen;
        let flow = FlowTuple { protocol, source, destination, source_port, destination_port };
        let session = match self.follow_outbound(&flow, flags) {
            Some(session) => session,
            None => {
                if let Some(verdict) = self.static_outbound(packet, &seen, cx.now()) {
                    return verdict;
                }
                match self.begin(&flow, &seen, flags, cx) {
                    Ok(session) => session,
                    Err(refusal) => return self.refuse(packet, refusal, cx),
                }
            }
        };
        let now = cx.now();
        let identification =
            seen.identification.map(|old| self.identifications.of((seen.source, seen.destination), old, now));
        let mss = self.policy.config.mss;
        let (address, port) = (Ipv4Addr::from(session.address).into(), Some(session.port));
        write(packet, &Writing { end: End::Source, address, port, identification, mss });
        if session.turns() { Verdict::Turn } else { Verdict::Next }
    }

    /// The session of a packet from inside, if there is one, with what the packet says of it.
    fn follow_outbound(&mut self, flow: &FlowTuple, flags: TcpFlags) -> Option<Session> {
        let handle = self.sessions.flows.lookup(&flow.key())?;
        let mut entry = self.sessions.flows.entry_mut(handle)?;
        if flow.protocol == Protocol::Tcp {
            entry.value.follow(entry.value.tcp.after(flags, Way::Out));
        }
        let session = *entry.value;
        entry.touch(*self.deadlines.get(session.timer())?);
        self.sessions.settle_class(handle);
        if !session.is_confirmed() && flow.protocol != Protocol::Tcp {
            self.sessions.confirm_if_answered(handle);
        }
        Some(session)
    }

    /// Begins a session.
    fn begin(
        &mut self,
        flow: &FlowTuple,
        seen: &Seen,
        flags: TcpFlags,
        cx: &mut Context<'_>,
    ) -> Result<Session, Option<Refusal>> {
        // No clone: all workers share the count of references.
        let Self { policy, sessions, unsolicited, reasons, counters, .. } = self;
        let is_first_part = !matches!(seen.kind, Kind::Query { asks: None | Some(false), .. });
        if !is_first_part {
            return Err(Some(Refusal::NoSession));
        }
        let pool = policy.pool(flow.source, flow.destination).ok_or(None)?;
        let is_tcp = flow.protocol == Protocol::Tcp;
        if is_tcp && flags.contains(TcpFlags::RST) {
            // It belongs to something that is over: it goes as what it was, and nothing begins.
            let (address, port) = sessions
                .mapped((policy, pool), flow.protocol, (flow.source, flow.source_port))
                .ok_or(Some(Refusal::NoSession))?;
            return Ok(sessions.passing(address, port, flow.destination));
        }
        let others = TcpFlags(TcpFlags::ACK.0 | TcpFlags::FIN.0);
        let begins = !is_tcp || flags.contains(TcpFlags::SYN) && !flags.intersects(others);
        let tcp = is_tcp.then(|| TcpState::default().after(flags, Way::Out));
        let session = sessions.open(flow, tcp, (policy, pool), (cx.draining(), begins), cx.now()).map_err(Some)?;
        counters.sessions_created.add(1);
        if is_tcp && unsolicited.len() > 0 {
            let out = FlowTuple { source: session.address.into(), source_port: session.port, ..*flow };
            unsolicited.begun(&out, reasons, cx);
        }
        Ok(session)
    }

    /// Drops a packet that there is no session for, and tells its sender where the RFCs say so: RFC
    /// 5508 REQ-8.
    fn refuse(&mut self, packet: &Mbuf, refusal: Option<Refusal>, cx: &mut Context<'_>) -> Verdict {
        let reason = refusal.map_or(self.reasons.no_pool, |refusal| self.reasons.of(refusal));
        if !matches!(refusal, Some(Refusal::NoSession | Refusal::Draining)) {
            cx.refuse(packet, IcmpError::Prohibited);
        }
        Verdict::Drop(reason)
    }

    /// What the configuration says of a packet from inside without a session: untranslated, one to one,
    /// or from a server.
    fn static_outbound(&mut self, packet: &mut Mbuf, seen: &Seen, now: Instant) -> Option<Verdict> {
        if self.policy.is_excluded(seen.destination) {
            return Some(Verdict::Next);
        }
        let mss = self.policy.config.mss;
        let mut writing =
            Writing { end: End::Source, address: seen.source.into(), port: None, identification: None, mss };
        if let Some(outside) = self.policy.one_to_one_outside(seen.source) {
            writing.address = outside.into();
        } else {
            let Kind::Flow(protocol, port, ..) = seen.kind else { return None };
            let server = Endpoint { protocol, address: seen.source, port };
            let external = self.policy.external_of_server(&server)?;
            let old = seen.identification;
            writing.address = external.address.into();
            writing.port = Some(external.port);
            writing.identification = old.map(|old| self.identifications.of((seen.source, seen.destination), old, now));
        }
        write(packet, &writing);
        Some(if self.sessions.external.has(seen.destination) { Verdict::Turn } else { Verdict::Next })
    }

    fn inbound(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(mut scratch) = self.scratch.take() else { return };
        let Scratch { keys, places, .. } = &mut *scratch;
        let mut count = 0;
        let (mut all_usual, mut others) = (Slots::default(), Slots::default());
        let turned = cx.turned();
        for (slot, packet) in batch.undecided_packets() {
            let key = usual(packet.data());
            match key.and_then(|key| Some((key, self.place(&key, turned)?))) {
                Some((key, place)) => {
                    self.sessions.ports.prefetch(place);
                    (keys[count % MOST], places[count % MOST]) = (key, place);
                    count += 1;
                    all_usual.insert(slot);
                }
                None => others.insert(slot),
            }
        }
        let count = count.min(MOST);
        let permitted = self.sessions.permitted(&self.policy, &keys[..count]);
        let known = keys[..count].iter().zip(&places[..count]).enumerate();
        for ((slot, packet), (index, (key, &place))) in batch.packets_in(all_usual).zip(known) {
            if permitted >> index & 1 == 0 || !self.known_inbound(packet, key, place) {
                others.insert(slot);
            }
        }
        self.scratch = Some(scratch);
        for slot in others {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            match self.closer_inbound(packet, cx) {
                // And another one inside.
                Fate::Verdict(Verdict::Next) => cx.cross(slot),
                Fate::Verdict(verdict) => batch.decide(slot, verdict),
                Fate::Hold(flow) => {
                    if let Some(packet) = batch.take(slot) {
                        self.unsolicited.hold(packet, flow, cx.now());
                    }
                }
            }
        }
    }

    /// Where the mapping of a usual packet from outside is, unless it says that it comes from ourselves.
    #[inline(always)]
    fn place(&self, key: &FlowKey, turned: bool) -> Option<Slot> {
        let [a, b, c, d, e, f, g, h, _, _, high, low, protocol, ..] = *key;
        if !turned && self.sessions.external.has(Ipv4Addr::new(a, b, c, d)) {
            return None;
        }
        let number = self.sessions.external.number(Ipv4Addr::new(e, f, g, h))?;
        let protocol = Protocol::of_number(protocol)?;
        self.sessions.ports.slot(number, protocol, u16::from_be_bytes([high, low]))
    }

    /// Translates a usual packet for a mapping that is there, if nothing needs a closer look.
    #[inline(always)]
    fn known_inbound(&mut self, packet: &mut Mbuf, key: &FlowKey, place: Slot) -> bool {
        let Some(mapping) = self.sessions.ports.mapping(place) else { return false };
        if key[12] == Protocol::Tcp.number() && usual_flags(packet.data()).intersects(TcpState::SIGNALS) {
            return false;
        }
        if !mapping.answered {
            self.sessions.ports.answered(place);
        }
        write_usual(packet.data_mut(), End::Destination, mapping.inside.octets(), mapping.port, || 0);
        true
    }

    /// Any packet from outside, or that turned.
    #[cold]
    fn closer_inbound(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Fate {
        let seen = match look(packet) {
            Ok(seen) => seen,
            Err(not_seen) => return Fate::Verdict(self.not_ours(not_seen)),
        };
        let Seen { source, destination, .. } = seen;
        if !cx.turned() && self.sessions.external.has(source) {
            return Fate::Verdict(Verdict::Drop(self.reasons.spoofed));
        }
        let (protocol, source_port, destination_port, flags) = match seen.kind {
            Kind::Error { is_fragment: true } => return Fate::Verdict(Verdict::Drop(self.reasons.icmp_fragment)),
            Kind::Error { .. } => return Fate::Verdict(self.error_from_outside(packet, &seen)),
            Kind::Redirect => return Fate::Verdict(Verdict::Drop(self.reasons.protocol)),
            Kind::Other => {
                let verdict = self.static_inbound(packet, &seen).or_else(|| self.untranslated(&seen));
                return Fate::Verdict(verdict.unwrap_or(Verdict::Drop(self.reasons.protocol)));
            }
            Kind::Flow(protocol, source, destination, flags) => (protocol, source, destination, flags),
            Kind::Query { identifier, .. } => (Protocol::Icmp, 0, identifier, TcpFlags(0)),
        };
        if let Some(verdict) = self.static_inbound(packet, &seen).or_else(|| self.untranslated(&seen)) {
            return Fate::Verdict(verdict);
        }
        let flow = FlowTuple { protocol, source, destination, source_port, destination_port };
        let asks = matches!(seen.kind, Kind::Query { asks: Some(true), .. });
        let mapping = self.sessions.mapping(protocol, destination, destination_port).filter(|_| !asks);
        let reason = match mapping {
            None => self.reasons.no_mapping,
            Some(_) if !self.sessions.permits(&self.policy, &flow) => self.reasons.filtered,
            Some((place, mapping)) => {
                self.sessions.ports.answered(place);
                if protocol == Protocol::Tcp {
                    let inside = FlowTuple {
                        protocol,
                        source: mapping.inside,
                        destination: source,
                        source_port: mapping.port,
                        destination_port: source_port,
                    };
                    self.follow_inbound(&inside, (destination, destination_port), flags);
                }
                let mss = self.policy.config.mss;
                let (address, port) = (mapping.inside.into(), Some(mapping.port));
                write(packet, &Writing { end: End::Destination, address, port, identification: None, mss });
                return Fate::Verdict(Verdict::Next);
            }
        };
        let others = TcpFlags(TcpFlags::ACK.0 | TcpFlags::RST.0);
        let is_syn = protocol == Protocol::Tcp && flags.contains(TcpFlags::SYN) && !flags.intersects(others);
        if is_syn && self.policy.refuses_syn() && self.unsolicited.has_room() {
            return Fate::Hold(flow);
        }
        Fate::Verdict(Verdict::Drop(reason))
    }

    /// What a segment from outside says of its session, given as the inside host sends.
    fn follow_inbound(&mut self, inside: &FlowTuple, external: (Ipv4Addr, u16), flags: TcpFlags) {
        if !flags.intersects(TcpState::SIGNALS) {
            return;
        }
        let Some(handle) = self.sessions.flows.lookup(&inside.key()) else { return };
        let Some(mut entry) = self.sessions.flows.entry_mut(handle) else { return };
        let session = &mut *entry.value;
        // Of another pool the host may have another external port, which is not what this one leaves by.
        if (session.address.into(), session.port) != external {
            return;
        }
        let before = session.timer();
        session.follow(session.tcp.after(flags, Way::In));
        let timer = session.timer();
        // What says nothing new does not prolong it: RFC 4787 REQ-6.
        if let Some(deadline) = self.deadlines.get(timer).filter(|_| timer != before) {
            entry.touch(*deadline);
        }
        self.sessions.settle_class(handle);
    }

    /// What the configuration says of a packet from outside: one to one, or to a server.
    fn static_inbound(&mut self, packet: &mut Mbuf, seen: &Seen) -> Option<Verdict> {
        let mss = self.policy.config.mss;
        let mut writing =
            Writing { end: End::Destination, address: seen.destination.into(), port: None, identification: None, mss };
        if let Some(inside) = self.policy.one_to_one_inside(seen.destination) {
            writing.address = inside.into();
        } else {
            let Kind::Flow(protocol, port_of_client, port, _) = seen.kind else { return None };
            let external = Endpoint { protocol, address: seen.destination, port };
            let server = self.policy.server(&external, seen.source, port_of_client)?;
            writing.address = server.address.into();
            writing.port = Some(server.port);
            self.counters.forwarded.add(1);
        }
        write(packet, &writing);
        Some(Verdict::Next)
    }

    /// What becomes of a packet from outside for an address that is none of ours.
    fn untranslated(&self, seen: &Seen) -> Option<Verdict> {
        if self.sessions.external.has(seen.destination) {
            return None;
        }
        let excluded = self.policy.is_excluded(seen.source);
        Some(if excluded { Verdict::Next } else { Verdict::Drop(self.reasons.not_translated) })
    }

    fn not_ours(&self, not_seen: NotSeen) -> Verdict {
        match not_seen {
            NotSeen::Ipv6 if self.policy.forwards_ipv6() => Verdict::Next,
            NotSeen::Ipv6 => Verdict::Drop(self.reasons.ipv6),
            // Where there is no router: neighbours find each other through the NAT.
            NotSeen::Arp => Verdict::Next,
            // It may have an IPv4 packet in it that ought to be translated.
            NotSeen::NotIp => Verdict::Drop(DropReason::NOT_IP),
            NotSeen::Malformed => Verdict::Drop(DropReason::MALFORMED),
        }
    }
}

/// What becomes of a packet from outside.
enum Fate {
    Verdict(Verdict),
    /// It is held for a while.
    Hold(FlowTuple),
}
