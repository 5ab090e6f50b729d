//! Packets that rules have decided about, as lines of JSON.

use super::config::LogConfig;
use super::packet::Seen;
use crate::json_log::{self, quoted};
use nf_framework::Direction;
use nf_framework::headers::IpProtocol;
use nf_framework::terms::protocol_name;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// What writes them down, from the first instance on, for all policies of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Option<json_log::Log<Event>>>>);

pub(super) type Events = json_log::Events<Event>;

impl Log {
    /// A worker's way to it.
    pub(super) fn channel(&self, config: &LogConfig) -> io::Result<json_log::Channel<Event>> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let log = match &mut *log {
            Some(log) => log,
            none => none.insert(json_log::Log::start(&config.file())?),
        };
        Ok(log.channel())
    }
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Accepted,
    Dropped,
    Rejected,
    /// It was too much.
    Limited,
    /// The program begins nothing any more.
    Draining,
    /// A rule of this action asked for the line; what becomes of the packet others say.
    Logged,
}

/// A packet that rules have decided about.
#[derive(Clone, Debug)]
pub(super) struct Event {
    what: What,
    /// Its name as JSON has it.
    rule: Option<Arc<str>>,
    protocol: IpProtocol,
    source: IpAddr,
    destination: IpAddr,
    ports: Option<(u16, u16)>,
    direction: Direction,
}

impl Event {
    pub(super) fn new(what: What, rule: Option<Arc<str>>, seen: &Seen, direction: Direction) -> Self {
        let &Seen { protocol, source, destination, ports, .. } = seen;
        Self { what, rule, protocol, source, destination, ports, direction }
    }
}

impl json_log::Event for Event {
    const FUNCTION: &'static str = "firewall";

    fn members(&self) -> String {
        let what = match self.what {
            What::Accepted => "accepted",
            What::Dropped => "dropped",
            What::Rejected => "rejected",
            What::Limited => "limited",
            What::Draining => "draining",
            What::Logged => "logged",
        };
        let from = if self.direction == Direction::Outbound { "inside" } else { "outside" };
        let (source, destination) = match self.ports {
            Some((from, to)) => {
                (SocketAddr::new(self.source, from).to_string(), SocketAddr::new(self.destination, to).to_string())
            }
            None => (self.source.to_string(), self.destination.to_string()),
        };
        let protocol = quoted(&protocol_name(self.protocol));
        let rule = self.rule.as_deref().unwrap_or("null");
        format!(
            "\"event\":\"{what}\",\"rule\":{rule},\"protocol\":{protocol},\"source\":\"{source}\",\"destination\":\
             \"{destination}\",\"from\":\"{from}\""
        )
    }
}
