//! What the firewall says of a packet that is being traced.

use super::config::State;
use super::connection::NO_SLOT;
use super::instance::{Instance, question};
use super::packet::{Kind, Seen, look_at};
use super::query::state_name;
use nf_framework::headers::IpProtocol;
use nf_framework::{Direction, Note, TracedPacket, Verdict};
use std::fmt::Write as _;

impl Instance {
    /// The connection that a packet is of, and the rule that accepted it; or the rule that forbids it.
    pub(super) fn note(&self, packet: &mut TracedPacket<'_>, direction: Direction, note: &mut Note) {
        let Ok(seen) = look_at(packet.frame, packet.annotation.ports, packet.vlan.map(|tag| tag & 0x0fff)) else {
            return;
        };
        let reasons = &self.state.reasons;
        // A note is cut off where it is full, so nothing can go wrong.
        let _ = match packet.verdict {
            // Also of what is about a connection, or would take the place of one that is over.
            Some(Verdict::Drop(reason)) if reason == reasons.denied => {
                let state = if matches!(seen.kind, Kind::Error(_)) { State::Related } else { State::New };
                let decision = self.state.policy.decide_one(&question(&self.state.as_begun(&seen), state, direction));
                match decision.slot.and_then(|slot| self.state.policy.slot_name(slot)) {
                    Some(rule) => write!(note, "rule {rule}"),
                    None => Ok(()),
                }
            }
            Some(Verdict::Drop(reason)) if reason == reasons.unmatched => write!(note, "no rule matches"),
            _ => self.note_connection(&seen, note),
        };
    }

    fn note_connection(&self, seen: &Seen, note: &mut Note) -> std::fmt::Result {
        let flow = match &seen.kind {
            Kind::Flow(flow, _) => flow,
            Kind::Error(quoted) => &quoted.flow,
            _ => return Ok(()),
        };
        let place = self.state.tracking.find(&flow.key);
        let Some(connection) = place.and_then(|place| self.state.tracking.get(place)) else { return Ok(()) };
        let state = match flow.protocol {
            IpProtocol::TCP => state_name(connection.tcp.state),
            _ if connection.is_answered() => "ANSWERED",
            _ => "UNANSWERED",
        };
        let rule = Some(connection.slot).filter(|slot| *slot != NO_SLOT);
        match rule.and_then(|slot| self.state.policy.slot_name(slot)) {
            Some(rule) => write!(note, "connection {state}, rule {rule}"),
            None => write!(note, "connection {state}"),
        }
    }
}
