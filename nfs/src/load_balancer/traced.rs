//! What the load balancer says of a packet that is being traced.

use super::flow::look_at;
use super::instance::Instance;
use super::policy::Found;
use nf_framework::{Note, TracedPacket};
use std::fmt::Write as _;

impl Instance {
    /// The service and the backend that a packet's connection is on.
    pub(super) fn note(&self, packet: &mut TracedPacket<'_>, note: &mut Note) {
        let Ok(seen) = look_at(packet.frame, packet.annotation.ports) else { return };
        let flow = &seen.flow;
        let connection = self.state.connections.find(&flow.key());
        let backend = connection.and_then(|(_, connection)| self.policy.backends.get(usize::from(connection.backend)));
        // A note is cut off where it is full, so nothing can go wrong.
        let _ = match backend.and_then(Option::as_ref) {
            Some(backend) => write!(note, "service {}, backend {}", backend.identity.service, backend.name),
            None => match self.policy.find(flow.destination, flow.protocol, flow.destination_port) {
                Found::Service(place) => match self.policy.services.get(usize::from(place)) {
                    Some(service) => write!(note, "service {}", service.name),
                    None => Ok(()),
                },
                Found::NoService => write!(note, "no service on port {}", flow.destination_port),
                Found::Own | Found::Nobody => Ok(()),
            },
        };
    }
}
