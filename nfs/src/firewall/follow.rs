//! A packet that is looked at closely, for itself or as one of its connection.

use super::begins::begins;
use super::config::{Checksums, Passage, State};
use super::connection::{Course, NO_SLOT};
use super::fate::Fate;
use super::packet::{Flow, Kind, NotSeen, Quoted, Says, Seen, look};
use super::tcp::{self, Judgement};
use super::tracking::Place;
use super::worker_state::WorkerState;
use nf_framework::headers::TcpFlags;
use nf_framework::{Context, Mbuf};
use std::net::IpAddr;
use std::ops::ControlFlow;

impl WorkerState {
    /// Any packet; whether others before it wait for the rules.
    #[cold]
    pub(super) fn closer(&mut self, packet: &mut Mbuf, others_wait: bool, cx: &mut Context<'_>) -> Fate {
        let verify = self.policy.config.checksums == Checksums::All;
        if let Some(proxy) = &self.proxy
            && proxy.carry_renumbered(packet, verify, &mut self.tracking, cx)
        {
            return Fate::Pass;
        }
        let seen = match look(packet) {
            Ok(seen) => seen,
            Err(not_seen) => return self.not_seen(not_seen),
        };
        match seen.kind {
            Kind::Neighbours => Fate::Pass,
            Kind::Message => Fate::Ask(seen, State::New),
            Kind::Error(quoted) => self.error(&seen, &quoted, others_wait, cx),
            _ if seen.fragment && self.refuses_fragments() => Fate::Drop(self.reasons.fragment),
            Kind::Flow(flow, says) => self.of_flow(packet, &seen, (&flow, says), others_wait, cx),
        }
    }

    fn refuses_fragments(&self) -> bool {
        self.policy.config.fragments == Passage::Drop
    }

    fn not_seen(&self, not_seen: NotSeen) -> Fate {
        let passes = match not_seen {
            NotSeen::Arp => self.policy.config.arp == Passage::Accept,
            NotSeen::Other(ether_type) => self.policy.config.lets_through(ether_type),
            _ => false,
        };
        if passes { Fate::Pass } else { Fate::Drop(self.reasons.of(not_seen)) }
    }

    /// A packet of a connection, or that begins one.
    pub(super) fn of_flow(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (flow, says): (&Flow, Says),
        others_wait: bool,
        cx: &mut Context<'_>,
    ) -> Fate {
        let found = self.tracking.find(&flow.key).map(|place| (place, *flow));
        let found = match (found, says) {
            // Its request may be among those.
            (None, Says::LaterOfQuery(_)) if others_wait => return Fate::Wait(*seen, self.reasons.fragment),
            (None, Says::LaterOfQuery(other)) => self.tracking.find(&other.key).map(|place| (place, other)),
            (found, _) => found,
        };
        match found {
            Some((place, _)) if others_wait && self.may_be_replaced(place) => {
                Fate::Wait(self.as_begun(seen), self.reasons.no_connection)
            }
            Some((place, flow)) => self.follow(packet, place, seen, (&flow, says), cx),
            None => self.beginning(seen, says),
        }
    }

    /// Whether a SYN that the rules are still to be asked about may take a connection's place.
    fn may_be_replaced(&self, place: Place) -> bool {
        self.tracking.get(place).is_some_and(|connection| connection.tcp.is_over())
    }

    /// What the rules are to be asked about where this packet begins a connection: about one that brings a cookie back, as
    /// its SYN would have been.
    pub(super) fn as_begun(&self, seen: &Seen) -> Seen {
        let key = if self.returned(seen).is_some() { seen.key.tcp_flags(TcpFlags::SYN) } else { seen.key };
        Seen { key, ..*seen }
    }

    /// A packet without a connection.
    fn beginning(&self, seen: &Seen, says: Says) -> Fate {
        if self.returned(seen).is_some() {
            return Fate::Ask(self.as_begun(seen), State::New);
        }
        match begins(says, self.policy.config.mid_stream, &self.reasons) {
            Ok(()) => Fate::Ask(*seen, State::New),
            Err(reason) => Fate::Wait(*seen, reason),
        }
    }

    /// A packet of a connection.
    fn follow(
        &mut self,
        packet: &mut Mbuf,
        place: Place,
        seen: &Seen,
        (flow, says): (&Flow, Says),
        cx: &mut Context<'_>,
    ) -> Fate {
        let Some(connection) = self.tracking.get(place).copied() else { return self.beginning(seen, says) };
        let Some(side) = connection.side(Course::new(flow.from_low, cx.direction())) else {
            return Fate::Drop(self.reasons.side);
        };
        if connection.generation() != self.tracking.generation() && !self.rejudge(place, flow) {
            return Fate::Drop(self.reasons.ended);
        }
        // It stays as it is until the rules have accepted what is to take its place.
        if let Says::Tcp(segment) = says
            && (connection.tcp.begins_anew(side, &segment) || connection.tcp.is_over() && self.returned(seen).is_some())
        {
            return self.beginning(seen, says);
        }
        // A new rule may have another slot.
        let slot = self.tracking.get(place).map_or(NO_SLOT, |connection| connection.slot);
        if connection.is_limited() && !self.limits.packet(slot, begun_by(seen, side), cx.now()) {
            return Fate::Drop(self.reasons.rate_limit);
        }
        let says = match &mut self.proxy {
            Some(proxy) if connection.is_proxied() => {
                match proxy.proxied(packet, (place, seen, side), says, (&mut self.tracking, &self.reasons), cx) {
                    ControlFlow::Continue(says) => says,
                    ControlFlow::Break(fate) => return fate,
                }
            }
            _ => says,
        };
        let Some(connection) = self.tracking.get_mut(place) else { return Fate::Drop(self.reasons.ended) };
        match says {
            Says::Tcp(segment) => {
                let Some(event) = tcp::event(segment.flags) else { return Fate::Drop(self.reasons.tcp_flags) };
                match connection.tcp.follow(side, event, &segment) {
                    Judgement::Follows => {}
                    Judgement::Ignored => return Fate::Pass,
                    Judgement::BeginsAnew => return Fate::Ask(*seen, State::New),
                    Judgement::WrongState => return Fate::Drop(self.reasons.tcp_state),
                    Judgement::OutOfWindow => return Fate::Drop(self.reasons.tcp_window),
                    Judgement::InexactReset => return Fate::Drop(self.reasons.tcp_reset),
                }
            }
            Says::Query { asks } if asks != (side == tcp::ORIGINATOR) => return Fate::Drop(self.reasons.no_connection),
            // It tells nothing that its first one has not told.
            Says::Later | Says::LaterOfQuery(_) => return Fate::Pass,
            Says::Query { .. } | Says::Datagram => connection.hear(side),
        }
        self.tracking.settle(place, flow.protocol);
        Fate::Pass
    }

    /// An ICMP error: about a packet of a connection, going the way back to its sender.
    pub(super) fn error(&mut self, seen: &Seen, quoted: &Quoted, others_wait: bool, cx: &Context<'_>) -> Fate {
        let unrelated = Fate::Drop(self.reasons.unrelated);
        let found = self.tracking.find(&quoted.flow.key).filter(|place| !others_wait || !self.may_be_replaced(*place));
        let found = found.and_then(|place| Some((place, self.tracking.get(place).copied()?)));
        let Some((place, connection)) = found else { return Fate::Wait(*seen, self.reasons.unrelated) };
        let Some(side) = connection.side(Course::new(quoted.flow.from_low, cx.direction().reversed())) else {
            return unrelated;
        };
        let ahead = self.proxy.as_ref().map_or(0, |proxy| proxy.ahead(place, side, &self.tracking));
        let sequence = quoted.sequence.map(|sequence| sequence.wrapping_add(ahead));
        let was_sent = sequence.is_none_or(|sequence| connection.tcp.may_have_sent(side, sequence));
        if !quoted.goes_back || !was_sent {
            return unrelated;
        }
        if connection.generation() != self.tracking.generation() && !self.rejudge(place, &quoted.flow) {
            return Fate::Drop(self.reasons.ended);
        }
        Fate::Ask(*seen, State::Related)
    }
}

/// Who began a connection that this packet of a side is of.
fn begun_by(seen: &Seen, side: usize) -> IpAddr {
    if side == tcp::ORIGINATOR { seen.source } else { seen.destination }
}
