//! Connections of before a reload are judged by the rules of after it, each at its next packet.

use super::config::{Action, Live, State};
use super::connection::{Connection, Ends, FlowKey, NO_SLOT};
use super::packet::Flow;
use super::tracking::Place;
use super::views::Asked;
use super::worker_state::WorkerState;
use nf_framework::Key;
use nf_framework::headers::IpProtocol;
use std::net::IpAddr;

impl WorkerState {
    /// Whether a connection that other rules have accepted would be by these; it ends if not. Those that the last reload
    /// has kept are not asked about, whatever one before it was to do with them.
    #[cold]
    pub(super) fn rejudge(&mut self, place: Place, flow: &Flow) -> bool {
        let generation = self.tracking.generation();
        if self.policy.config.live == Live::Keep {
            return self.tracking.get_mut(place).map(|connection| connection.set_generation(generation)).is_some();
        }
        let Some(connection) = self.tracking.get(place).copied() else { return false };
        let Some(key) = first_key(&flow.key, &connection) else { return false };
        let (state, direction, vlan) = (State::New, connection.direction(), connection.vlan());
        let decision = self.policy.decide_one(&Asked { key, state, direction, dscp: 0, vlan, fragment: false });
        if decision.action != Action::Accept {
            self.tracking.end(place);
            return false;
        }
        let limited = self.is_limited(decision.slot);
        let slot = decision.slot.unwrap_or(NO_SLOT);
        if connection.slot != slot {
            self.tracking.move_to(place, slot);
        }
        if let Some(connection) = self.tracking.get_mut(place) {
            connection.set_generation(generation);
            connection.set_limited(limited);
        }
        true
    }
}

/// What rules would have been asked about the first packet of a connection.
fn first_key(key: &FlowKey, connection: &Connection) -> Option<Key> {
    let ((low, high), protocol) = match key {
        FlowKey::V4(key) => (key.ends(), key.protocol()),
        FlowKey::V6(key) => (key.ends(), key.protocol()),
    };
    let (from, to) = if connection.low_began() { (low, high) } else { (high, low) };
    let key = match (from.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Key::ipv4(source, destination, protocol),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Key::ipv6(source, destination, protocol),
        _ => return None,
    };
    Some(match protocol {
        IpProtocol::TCP => key.ports(from.1, to.1).tcp_flags(connection.tcp.first_flags()),
        IpProtocol::UDP => key.ports(from.1, to.1),
        // Of queries only the kind is known: an echo, or with 1 in the answerer's place a timestamp.
        IpProtocol::ICMP => key.icmp(if to.1 == 0 { 8 } else { 13 }, 0),
        IpProtocol::ICMPV6 => key.icmp(128, 0),
        _ => key,
    })
}
