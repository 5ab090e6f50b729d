//! What the NAT says of a packet that is being traced.

use super::flow::{FlowTuple, Kind, Protocol, look_at};
use super::instance::Instance;
use super::unsolicited;
use nf_framework::{Context, Direction, Note, TracedPacket};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

impl Instance {
    /// The session that a packet from inside is of, or the mapping that one from outside is for; of one that is held,
    /// what comes of it.
    pub(super) fn note(&self, packet: &mut TracedPacket<'_>, cx: &Context<'_>, note: &mut Note) {
        let direction = cx.direction();
        if packet.verdict.is_none() {
            let _ = unsolicited::note(cx, note);
            return;
        }
        let Ok(seen) = look_at(packet.frame, packet.annotation.ports) else { return };
        let (protocol, source_port, destination_port) = match (seen.kind, direction) {
            (Kind::Flow(protocol, source, destination, _), _) => (protocol, source, destination),
            (Kind::Query { identifier, .. }, Direction::Outbound) => (Protocol::Icmp, identifier, 0),
            (Kind::Query { identifier, .. }, Direction::Inbound) => (Protocol::Icmp, 0, identifier),
            _ => return,
        };
        let (source, destination) = (seen.source, seen.destination);
        // A note is cut off where it is full, so nothing can go wrong.
        let _ = match direction {
            Direction::Outbound => {
                let flow = FlowTuple { protocol, source, destination, source_port, destination_port };
                let found =
                    self.sessions.flows.lookup(&flow.key()).and_then(|handle| self.sessions.flows.entry(handle));
                let Some((_, session)) = found else { return };
                let (address, port) = (Ipv4Addr::from(session.address), session.port);
                let is = if session.is_confirmed() { "confirmed" } else { "begun" };
                write!(note, "session behind {address}:{port}, {is}")
            }
            Direction::Inbound => match self.sessions.mapping(protocol, destination, destination_port) {
                Some((_, mapping)) => write!(note, "mapping to {}:{}", mapping.inside, mapping.port),
                None => Ok(()),
            },
        };
    }
}
