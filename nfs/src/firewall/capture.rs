//! What the rules say of the packets in a capture file, one after the other, with the connections that they
//! make: without DPDK, limits and full tables.

use super::capture_file::{self, CaptureFile, Captured};
use super::config::{Action, Passage, State};
use super::connection::{Connection, Course, FlowKey};
use super::explain::{Described, Explanation, is_inside};
use super::packet::{Flow, Kind, NotSeen, Says, look_at};
use super::policy::Policy;
use super::query::state_name;
use super::tcp::{self, Judgement, Tcp};
use super::terms::protocol_name;
use nf_framework::headers::{Headers, IpProtocol, Network, TcpFlags, Transport};
use nf_framework::{Direction, Ports, Prefix};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why a capture cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCapture {
    /// Another format.
    #[error("neither a pcap nor a pcapng file")]
    Format,
    /// Frames of another kind.
    #[error(
        "link type {0} is not Ethernet (1), raw IP (101) or Linux cooked (113, 276): capture on an interface of such"
    )]
    LinkType(u32),
}

/// What becomes of a captured packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// Its place in the file, from 1.
    pub number: usize,
    /// Since the first one.
    pub time: Duration,
    /// Protocol, ends and side.
    pub packet: String,
    /// Whether it passes.
    pub passes: bool,
    /// Why.
    pub why: Why,
}

/// Why a captured packet passes or does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// The rules were asked.
    Rules(Explanation),
    /// It belongs to the connection that this packet of the file began, in this state after it.
    Connection(usize, &'static str),
    /// Something else, in words.
    Because(&'static str),
    /// The capture has too little of it to tell.
    Unknown(&'static str),
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:.6} {}: ", self.number, self.time.as_secs_f64(), self.packet)?;
        let verdict = if self.passes { "accept" } else { "drop" };
        match &self.why {
            Why::Connection(number, state) => write!(f, "{verdict}, of the connection of #{number} ({state})"),
            Why::Because(why) => write!(f, "{verdict}, {why}"),
            Why::Unknown(why) => f.write_str(why),
            Why::Rules(explanation) => {
                let text = explanation.to_string();
                let (reasons, decision) = text.rsplit_once('\n').unwrap_or(("", &text));
                write!(f, "{decision}")?;
                reasons.lines().try_for_each(|reason| write!(f, "\n  {reason}"))
            }
        }
    }
}

impl Policy {
    /// What becomes of the packets of a pcap or pcapng file. Those from these prefixes come from inside; from private
    /// addresses, if there are none. What the capture has cut off is judged by its headers, if they are there.
    ///
    /// # Errors
    ///
    /// When it is no such file. One that breaks off is read as far as it goes, and the packet that is missing is said
    /// to be so.
    pub fn explain_capture(&self, bytes: &[u8], inside: &[Prefix]) -> Result<Vec<Explained>, InvalidCapture> {
        let mut replay = Replay { policy: self, inside, connections: HashMap::new(), fragments: HashMap::new() };
        let CaptureFile { packets, breaks_off } = capture_file::read(bytes)?;
        let first = packets.first().map_or(Duration::ZERO, |packet| packet.time);
        let last = packets.last().map_or(Duration::ZERO, |packet| packet.time.saturating_sub(first));
        let explain = |(captured, number): (Captured, usize)| {
            let Captured { time, mut frame, missing } = captured;
            let time = time.saturating_sub(first);
            let (packet, (passes, why)) = match missing {
                0 => replay.packet(&mut frame, number, time),
                _ => replay.cut_packet(frame, missing, number, time),
            };
            Explained { number, time, packet, passes, why }
        };
        let mut explained: Vec<Explained> = packets.into_iter().zip(1..).map(explain).collect();
        if breaks_off {
            let (number, packet) = (explained.len() + 1, "a packet".to_owned());
            let why = Why::Unknown("missing, as the file ends in the middle of it");
            explained.push(Explained { number, time: last, packet, passes: false, why });
        }
        Ok(explained)
    }
}

type Fate = (bool, Why);

/// The connections of a capture so far.
struct Replay<'a> {
    policy: &'a Policy,
    inside: &'a [Prefix],
    connections: HashMap<FlowKey, Known>,
    /// What first fragments have said, by addresses, protocol and identification.
    fragments: HashMap<(IpAddr, IpAddr, u32), Ports>,
}

struct Known {
    connection: Connection,
    deadline: Duration,
    /// The packet that began it.
    number: usize,
}

fn because(passes: bool, why: &'static str) -> Fate {
    (passes, Why::Because(why))
}

fn cut_off() -> (String, Fate) {
    let why = "cut off by the capture before its headers end (tcpdump takes all of a packet unless told -s)";
    ("a packet".to_owned(), (false, Why::Unknown(why)))
}

/// How many octets of a frame the verdict takes.
fn header_octets(headers: &Headers<'_>) -> usize {
    let network = match &headers.network {
        Network::Arp(_) => 28,
        Network::Ipv4 { options, .. } => 20 + options.len(),
        Network::Ipv6 { extensions, .. } => 40 + extensions.len(),
        Network::Other(_) => 0,
    };
    // Of an ICMP message what it may quote: a header with its options, and behind it ports and sequence number.
    let quoted = headers.payload.len().min(68);
    let transport = match &headers.transport {
        Transport::Udp(_) => 8,
        Transport::Tcp { options, .. } => 20 + options.len(),
        Transport::Icmp(icmp) if icmp.message_type.has_identifier() => 8,
        Transport::Icmpv6(icmp) if icmp.message_type.has_identifier() => 8,
        Transport::Icmp(_) | Transport::Icmpv6(_) => 8 + quoted,
        Transport::Fragment(_) | Transport::Other(_) | Transport::None => 0,
    };
    14 + 4 * headers.vlan.len() + network + transport
}

impl Replay<'_> {
    /// As [`packet`](Self::packet), of a frame that has lost so many octets at its end.
    fn cut_packet(&mut self, mut frame: Vec<u8>, missing: usize, number: usize, time: Duration) -> (String, Fate) {
        // Longer than any frame.
        const LONGEST: usize = 1 << 18;
        let captured = frame.len();
        frame.resize((captured + missing).min(LONGEST.max(captured)), 0);
        let Ok(mut headers) = Headers::parse(&mut frame) else { return cut_off() };
        if header_octets(&headers) > captured {
            return cut_off();
        }
        // They cannot be verified; what is in the place of the rest has others.
        headers.fill_checksums();
        let (packet, fate) = self.packet(&mut frame, number, time);
        (packet + ", cut off by the capture", fate)
    }

    /// What a packet is, in words, and what becomes of it.
    fn packet(&mut self, frame: &mut [u8], number: usize, time: Duration) -> (String, Fate) {
        let beside = self.beside(frame);
        let seen = match look_at(frame, beside, None) {
            Ok(seen) => seen,
            Err(not_seen) => {
                let (passes, what, why) = self.not_seen(not_seen);
                return (what.to_owned(), because(passes, why));
            }
        };
        let inside = is_inside(seen.source, self.inside);
        let direction = if inside { Direction::Outbound } else { Direction::Inbound };
        let end = |address, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        let words = format!(
            "{} {} > {} from {}",
            protocol_name(seen.protocol),
            end(seen.source, seen.ports.map(|ports| ports.0)),
            end(seen.destination, seen.ports.map(|ports| ports.1)),
            if inside { "inside" } else { "outside" }
        );
        let mut described = Described::of(&seen, direction);
        if let Ok(headers) = Headers::parse(frame) {
            match &headers.transport {
                Transport::Icmp(icmp) => described.icmp = Some((icmp.message_type.0, icmp.code)),
                Transport::Icmpv6(icmp) => described.icmp = Some((icmp.message_type.0, icmp.code)),
                _ => {}
            }
        }
        if seen.fragment && self.policy.config.fragments == Passage::Drop {
            return (words, because(false, "as fragments are not let through"));
        }
        let fate = match seen.kind {
            Kind::Neighbours => because(true, "as Neighbor Discovery is never blocked"),
            Kind::Message => self.ask(&described),
            Kind::Error(quoted) => {
                let related = quoted.goes_back
                    && self.find(&quoted.flow.key, time).is_some_and(|known| {
                        let of = known.connection.side(Course::new(quoted.flow.from_low, direction.reversed()));
                        let sent = |side| quoted.sequence.is_none_or(|at| known.connection.tcp.may_have_sent(side, at));
                        of.is_some_and(sent)
                    });
                described.state = State::Related;
                if related {
                    self.ask(&described)
                } else {
                    because(false, "an ICMP error about nothing that is known here")
                }
            }
            Kind::Flow(flow, says) => self.of_flow(&flow, says, &described, (number, time)),
        };
        (words, fate)
    }

    /// Of a fragment, what its first one has said.
    fn beside(&mut self, frame: &mut [u8]) -> Option<Ports> {
        let headers = Headers::parse(frame).ok()?;
        let fragment = headers.network.fragment()?;
        let (source, destination) = match &headers.network {
            Network::Ipv4 { header, .. } => (IpAddr::from(header.source), IpAddr::from(header.destination)),
            Network::Ipv6 { header, .. } => (header.source.into(), header.destination.into()),
            _ => return None,
        };
        let key = (source, destination, fragment.identification);
        let ports = match &headers.transport {
            Transport::Fragment(_) => return self.fragments.get(&key).copied(),
            Transport::Icmp(icmp) if icmp.message_type.has_identifier() => Ports::Identifier(icmp.identifier()),
            Transport::Icmpv6(icmp) if icmp.message_type.has_identifier() => Ports::Identifier(icmp.identifier()),
            transport => transport.ports().map_or(Ports::None, |(from, to)| Ports::Both(from, to)),
        };
        self.fragments.insert(key, ports);
        Some(ports)
    }

    fn not_seen(&self, not_seen: NotSeen) -> (bool, &'static str, &'static str) {
        let config = &self.policy.config;
        match not_seen {
            NotSeen::Arp => (config.arp == Passage::Accept, "arp", "as the configuration has it for ARP on a wire"),
            NotSeen::Other(ether_type) => (
                config.lets_through(ether_type),
                "no IP packet",
                "as the configuration has it for this Ethernet type on a wire",
            ),
            NotSeen::Malformed => (false, "malformed", "its lengths and headers contradict each other"),
            NotSeen::Checksum => (
                false,
                "a packet",
                "a checksum is wrong (if the capture was made on its sender, the device would have computed it later)",
            ),
            NotSeen::SourceRoute => {
                (false, "a packet", "it has a source route, or a routing header with stops to come")
            }
            NotSeen::Address => {
                (false, "a packet", "it is from or to what is no host, or from and to the same address")
            }
            NotSeen::Neighbours => (false, "Neighbor Discovery", "it has been on another link, or is in fragments"),
            NotSeen::Error => (false, "an ICMP error", "it is in fragments, or about nothing"),
            NotSeen::Fragment => (false, "a fragment", "its first one was not seen, or it may not come in fragments"),
        }
    }

    fn find(&mut self, key: &FlowKey, time: Duration) -> Option<&mut Known> {
        if self.connections.get(key).is_some_and(|known| known.deadline <= time) {
            self.connections.remove(key);
        }
        self.connections.get_mut(key)
    }

    fn ask(&self, described: &Described) -> Fate {
        let explanation = self.policy.explain(described);
        (explanation.action == Action::Accept, Why::Rules(explanation))
    }

    fn of_flow(&mut self, flow: &Flow, says: Says, described: &Described, (number, time): (usize, Duration)) -> Fate {
        const NONE: &str = "it belongs to no connection and begins none";
        let key = match says {
            Says::LaterOfQuery(other) if self.find(&flow.key, time).is_none() => other.key,
            _ => flow.key,
        };
        let timeouts = self.policy.timeouts;
        if let Some(known) = self.find(&key, time) {
            let Some(side) = known.connection.side(Course::new(flow.from_low, described.direction)) else {
                return because(false, "its connection has that end on the other side");
            };
            let began = known.number;
            let connection = &mut known.connection;
            match says {
                Says::Tcp(segment) => {
                    let Some(event) = tcp::event(segment.flags) else {
                        return because(false, "its set of TCP flags means nothing");
                    };
                    match connection.tcp.follow(side, event, &segment) {
                        Judgement::Follows => {}
                        Judgement::Ignored => return because(true, "its receiver knows better what it means"),
                        // In its place, if the rules accept it.
                        Judgement::BeginsAnew => return self.begin(flow, says, described, (number, time)),
                        Judgement::WrongState => {
                            return because(false, "its connection cannot have such a segment now");
                        }
                        Judgement::OutOfWindow => {
                            return because(false, "its sender cannot have these sequence numbers now");
                        }
                        Judgement::InexactReset => return because(false, "it is a reset without the exact number"),
                    }
                }
                Says::Query { asks } if asks != (side == tcp::ORIGINATOR) => return because(false, NONE),
                Says::Later | Says::LaterOfQuery(_) => {}
                Says::Query { .. } | Says::Datagram => connection.hear(side),
            }
            let timer = connection.timer(flow.protocol);
            known.deadline = time + timeouts.get(timer as usize).copied().unwrap_or_default();
            let state = match flow.protocol {
                IpProtocol::TCP => state_name(known.connection.tcp.state),
                _ if known.connection.is_answered() => "ANSWERED",
                _ => "UNANSWERED",
            };
            return (true, Why::Connection(began, state));
        }
        match says {
            Says::Tcp(segment) => match tcp::event(segment.flags) {
                None => return because(false, "its set of TCP flags means nothing"),
                Some(tcp::Event::Syn) => {}
                Some(tcp::Event::Ack) if self.policy.config.mid_stream => {}
                Some(_) => return because(false, NONE),
            },
            Says::Query { asks: false } => return because(false, NONE),
            Says::Later | Says::LaterOfQuery(_) => {
                return because(false, "it is a fragment of a packet that was not accepted");
            }
            Says::Query { asks: true } | Says::Datagram => {}
        }
        self.begin(flow, says, described, (number, time))
    }

    fn begin(&mut self, flow: &Flow, says: Says, described: &Described, (number, time): (usize, Duration)) -> Fate {
        let fate = self.ask(described);
        if fate.0 {
            let tcp = match says {
                Says::Tcp(segment) if segment.flags.contains(TcpFlags::SYN) => Tcp::begun(&segment),
                Says::Tcp(segment) => Tcp::picked_up(&segment),
                _ => Tcp::default(),
            };
            let connection = Connection::new(tcp, flow.from_low, described.direction);
            let timer = connection.timer(flow.protocol);
            let deadline = time + self.policy.timeouts.get(timer as usize).copied().unwrap_or_default();
            self.connections.insert(flow.key, Known { connection, deadline, number });
        }
        fate
    }
}
