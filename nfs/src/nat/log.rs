//! Mappings as lines of JSON, as they come and go.

use super::flow::Protocol;
use crate::json_log;
use std::net::Ipv4Addr;

/// Something that happened to a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    begins: bool,
    protocol: Protocol,
    inside: (Ipv4Addr, u16),
    outside: (Ipv4Addr, u16),
}

pub(super) type Events = json_log::Events<Event>;
pub(super) type Log = json_log::Log<Event>;

impl Events {
    /// Notes that a mapping has come or gone.
    pub(super) fn mapping(
        &mut self,
        begins: bool,
        protocol: Protocol,
        inside: (Ipv4Addr, u16),
        (address, port): (Option<Ipv4Addr>, u16),
    ) {
        if let Some(address) = address {
            self.tell(Event { begins, protocol, inside, outside: (address, port) });
        }
    }
}

impl json_log::Event for Event {
    const FUNCTION: &'static str = "nat";

    fn members(&self) -> String {
        let what = if self.begins { "mapping-created" } else { "mapping-deleted" };
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        let ((inside, inside_port), (outside, outside_port)) = (self.inside, self.outside);
        format!(
            "\"event\":\"{what}\",\"protocol\":\"{protocol}\",\"inside\":\"{inside}:{inside_port}\",\"outside\":\
             \"{outside}:{outside_port}\""
        )
    }
}
