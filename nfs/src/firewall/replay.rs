//! Packets one after the other as the packet path judges them, on plain maps: without DPDK, limits and full tables.
//! Both look at a packet by [`look_at`](super::packet::look_at), ask [`begins`] whether it begins a connection, and follow one
//! by [`Tcp`]; that they say the same of what lies between is tested packet by packet.

use super::begins::begins;
use super::config::{Passage, State};
use super::connection::{Connection, Course, FlowKey};
use super::explain::{Question, Why, icmp_of};
use super::packet::{Flow, Kind, NotSeen, Quoted, Says, look_at};
use super::policy::Policy;
use super::query::state_name;
use super::reasons::NAMED;
use super::tcp::{self, Judgement, Tcp};
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::{Described, Direction};
use std::collections::HashMap;
use std::time::Duration;

/// The connections so far.
pub(super) struct Replay<'a> {
    policy: &'a Policy,
    connections: HashMap<FlowKey, Known>,
}

struct Known {
    connection: Connection,
    deadline: Duration,
    /// The packet that began it.
    number: usize,
}

impl<'a> Replay<'a> {
    /// Without any.
    pub(super) fn new(policy: &'a Policy) -> Self {
        Self { policy, connections: HashMap::new() }
    }

    /// What becomes of a packet that is not looked at further.
    pub(super) fn not_seen(&self, not_seen: NotSeen) -> Why {
        const CONFIGURED: &str = "as the configuration has it on a wire";
        let config = &self.policy.config;
        match not_seen {
            NotSeen::Arp if config.arp == Passage::Accept => Why::Passes(CONFIGURED),
            NotSeen::Other(ether_type) if config.lets_through(ether_type) => Why::Passes(CONFIGURED),
            NotSeen::Checksum => Why::Dropped {
                reason: NAMED.checksum.name,
                why: "a wrong checksum (where the capture was made on its sender, the device would have computed it later)",
            },
            _ => Why::dropped(NAMED.of_named(not_seen)),
        }
    }

    /// What becomes of a packet with this number, at this time. An error is asked about as related where the question
    /// says that it is, or where it is about a connection that is known.
    pub(super) fn judge(&mut self, question: &Question<'_>, (number, time): (usize, Duration)) -> Why {
        match question.seen.kind {
            Kind::Neighbours => Why::Passes("as Neighbor Discovery is never blocked"),
            Kind::Message => self.policy.ask(question),
            Kind::Error(quoted) => {
                if question.state == State::Related || self.is_related(&quoted, question.direction, time) {
                    self.policy.ask(&Question { state: State::Related, ..*question })
                } else {
                    Why::dropped(NAMED.unrelated)
                }
            }
            Kind::Flow(..) if question.seen.fragment && self.policy.config.fragments == Passage::Drop => {
                Why::Dropped { reason: NAMED.fragment.name, why: "as fragments are not let through" }
            }
            Kind::Flow(flow, says) => self.of_flow(&flow, says, question, (number, time)),
        }
    }

    fn is_related(&mut self, quoted: &Quoted, direction: Direction, time: Duration) -> bool {
        let course = Course::new(quoted.flow.from_low, direction.reversed());
        let Some(Known { connection, .. }) = self.find(&quoted.flow.key, time) else { return false };
        let sent = |side| quoted.sequence.is_none_or(|sequence| connection.tcp.may_have_sent(side, sequence));
        quoted.goes_back && connection.side(course).is_some_and(sent)
    }

    fn find(&mut self, key: &FlowKey, time: Duration) -> Option<&mut Known> {
        if self.connections.get(key).is_some_and(|known| known.deadline <= time) {
            self.connections.remove(key);
        }
        self.connections.get_mut(key)
    }

    fn of_flow(&mut self, flow: &Flow, says: Says, question: &Question<'_>, at: (usize, Duration)) -> Why {
        let flow = match says {
            Says::LaterOfQuery(other) if self.find(&flow.key, at.1).is_none() => other,
            _ => *flow,
        };
        let timeouts = self.policy.timeouts;
        let Some(known) = self.find(&flow.key, at.1) else { return self.beginning(&flow, says, question, at) };
        let Some(side) = known.connection.side(Course::new(flow.from_low, question.direction)) else {
            return Why::dropped(NAMED.side);
        };
        let connection = &mut known.connection;
        let stays = match says {
            Says::Tcp(segment) => {
                let Some(event) = tcp::event(segment.flags) else { return Why::dropped(NAMED.tcp_flags) };
                match connection.tcp.follow(side, event, &segment) {
                    Judgement::Follows => false,
                    Judgement::Ignored => true,
                    // In its place, if the rules accept it.
                    Judgement::BeginsAnew => return self.begin(&flow, says, question, at),
                    Judgement::WrongState => return Why::dropped(NAMED.tcp_state),
                    Judgement::OutOfWindow => return Why::dropped(NAMED.tcp_window),
                    Judgement::InexactReset => return Why::dropped(NAMED.tcp_reset),
                }
            }
            Says::Query { asks } if asks != (side == tcp::ORIGINATOR) => return Why::dropped(NAMED.no_connection),
            // It tells nothing that its first one has not told.
            Says::Later | Says::LaterOfQuery(_) => true,
            Says::Query { .. } | Says::Datagram => {
                connection.hear(side);
                false
            }
        };
        if !stays {
            let timer = connection.timer(flow.protocol);
            known.deadline = at.1 + timeouts.get(timer as usize).copied().unwrap_or_default();
        }
        let state = match flow.protocol {
            IpProtocol::TCP => state_name(known.connection.tcp.state),
            _ if known.connection.is_answered() => "ANSWERED",
            _ => "UNANSWERED",
        };
        Why::Connection(known.number, state)
    }

    /// A packet without a connection.
    fn beginning(&mut self, flow: &Flow, says: Says, question: &Question<'_>, at: (usize, Duration)) -> Why {
        match begins(says, self.policy.config.mid_stream, &NAMED) {
            Ok(()) => self.begin(flow, says, question, at),
            Err(named) => Why::dropped(named),
        }
    }

    fn begin(&mut self, flow: &Flow, says: Says, question: &Question<'_>, (number, time): (usize, Duration)) -> Why {
        let why = self.policy.ask(question);
        if why.passes() {
            let tcp = match says {
                Says::Tcp(segment) if segment.flags.contains(TcpFlags::SYN) => Tcp::begun(&segment),
                Says::Tcp(segment) => Tcp::picked_up(&segment),
                _ => Tcp::default(),
            };
            let connection = Connection::new(tcp, flow.from_low, question.direction);
            let timer = connection.timer(flow.protocol);
            let deadline = time + self.policy.timeouts.get(timer as usize).copied().unwrap_or_default();
            self.connections.insert(flow.key, Known { connection, deadline, number });
        }
        why
    }
}

impl Policy {
    /// What becomes of a packet that is the first one an empty firewall sees, and why.
    #[must_use]
    pub fn explain(&self, packet: &Described) -> Why {
        let state = if packet.is_related() { State::Related } else { State::New };
        let why = self.explain_first(&mut packet.frame(), packet.direction(), state);
        if packet.is_error() && why.reason() == Some(NAMED.unrelated.name) {
            let why = "an ICMP error about nothing (write \"related\" for one about a live connection)";
            return Why::Dropped { reason: NAMED.unrelated.name, why };
        }
        why
    }

    /// The same of a packet as it comes to the firewall.
    pub(super) fn explain_first(&self, frame: &mut [u8], direction: Direction, state: State) -> Why {
        let (icmp, mut replay) = (icmp_of(frame), Replay::new(self));
        match look_at(frame, None, None) {
            Ok(seen) => replay.judge(&Question { seen: &seen, icmp, direction, state }, (1, Duration::ZERO)),
            Err(not_seen) => replay.not_seen(not_seen),
        }
    }
}
