//! What the firewall says of a packet that is being traced.

use super::config::State;
use super::connection::NO_SLOT;
use super::instance::{Instance, question};
use super::packet::{Kind, look_at};
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
        let flow = match &seen.kind {
            Kind::Flow(flow, _) => Some(flow),
            Kind::Error(quoted) => Some(&quoted.flow),
            _ => None,
        };
        let place = flow.and_then(|flow| self.state.tracking.find(&flow.key));
        // A note is cut off where it is full, so nothing can go wrong.
        let _ = match (place.and_then(|place| self.state.tracking.get(place)), packet.verdict) {
            (Some(connection), _) => {
                let state = match flow.map(|flow| flow.protocol) {
                    Some(IpProtocol::TCP) => state_name(connection.tcp.state),
                    _ if connection.is_answered() => "ANSWERED",
                    _ => "UNANSWERED",
                };
                let rule = Some(connection.slot).filter(|slot| *slot != NO_SLOT);
                match rule.and_then(|slot| self.state.policy.slot_name(slot)) {
                    Some(rule) => write!(note, "connection {state}, rule {rule}"),
                    None => write!(note, "connection {state}"),
                }
            }
            (None, Some(Verdict::Drop(reason))) if reason == self.state.reasons.denied => {
                let decision = self.state.policy.decide_one(&question(&seen, State::New, direction));
                match decision.slot.and_then(|slot| self.state.policy.slot_name(slot)) {
                    Some(rule) => write!(note, "rule {rule}"),
                    None => Ok(()),
                }
            }
            (None, Some(Verdict::Drop(reason))) if reason == self.state.reasons.unmatched => {
                write!(note, "no rule matches")
            }
            _ => Ok(()),
        };
    }
}
