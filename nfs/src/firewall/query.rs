//! What a running firewall knows, for people and programs: asked by
//! [`Control::command`](nf_framework::Control::command), a piece at a time, on each worker.

use super::connection::{Connection, Ends, NO_SLOT};
use super::instance::Instance;
use super::tcp::State;
use super::tracking::Place;
use nf_framework::headers::IpProtocol;
use nf_framework::{Direction, FlowTable, Handle, Piece, Prefix};
use serde::{Deserialize, Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};

/// Slots of the tables that one question looks at: packets wait meanwhile, for a fraction of a
/// millisecond.
const SLOTS: usize = 1024;

/// A connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConnectionView {
    /// Its protocol.
    #[serde(serialize_with = "protocol_as_text")]
    pub protocol: IpProtocol,
    /// Who began it, with the port or, of ICMP, the identifier.
    #[serde(serialize_with = "as_text")]
    pub source: (IpAddr, u16),
    /// The other end.
    #[serde(serialize_with = "as_text")]
    pub destination: (IpAddr, u16),
    /// Which way the first packet went.
    #[serde(serialize_with = "direction_as_text")]
    pub direction: Direction,
    /// As conntrack calls it; of other protocols than TCP whether it was answered.
    pub state: &'static str,
    /// The rule that accepted it.
    pub rule: Option<String>,
    /// It began by a SYN cookie, so that its ends count differently; in `SYN_PROXY` its server was asked and has not
    /// answered.
    pub proxied: bool,
}

/// Connections that are meant; what is not given is all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Of this protocol.
    #[serde(default, deserialize_with = "protocol")]
    pub protocol: Option<IpProtocol>,
    /// Of which one end or the other is in this prefix.
    pub address: Option<Prefix>,
    /// Of which one end or the other has this port.
    pub port: Option<u16>,
    /// That the rule of this name has accepted.
    pub rule: Option<String>,
}

/// How often a rule has decided about a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RuleHits {
    /// Its name.
    pub name: String,
    /// What stands beside it for people.
    pub comment: String,
    /// Packets that would begin a connection, or were about one, since the program started.
    pub hits: u64,
}

/// An address with its port, as people write it.
fn as_text<S: Serializer>((address, port): &(IpAddr, u16), to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&SocketAddr::new(*address, *port))
}

fn protocol_as_text<S: Serializer>(protocol: &IpProtocol, to: S) -> Result<S::Ok, S::Error> {
    match NAMES.iter().find(|(_, of)| of == protocol) {
        Some((name, _)) => to.serialize_str(name),
        None => to.collect_str(&protocol.0),
    }
}

fn direction_as_text<S: Serializer>(direction: &Direction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    })
}

const NAMES: [(&str, IpProtocol); 4] =
    [("tcp", IpProtocol::TCP), ("udp", IpProtocol::UDP), ("icmp", IpProtocol::ICMP), ("icmpv6", IpProtocol::ICMPV6)];

/// By its name, or its number.
fn protocol<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<IpProtocol>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
    let protocol = named.or_else(|| text.parse().ok().map(IpProtocol));
    let unknown =
        || serde::de::Error::custom(format!("{text:?} is no protocol (known: tcp, udp, icmp, icmpv6, and numbers)"));
    protocol.map(Some).ok_or_else(unknown)
}

impl ConnectionFilter {
    fn fits(&self, view: &ConnectionView) -> bool {
        let ends = [view.source, view.destination];
        self.protocol.is_none_or(|protocol| protocol == view.protocol)
            && self.address.is_none_or(|prefix| ends.iter().any(|(address, _)| prefix.contains(*address)))
            && self.port.is_none_or(|port| ends.iter().any(|(_, of)| *of == port))
            && self.rule.as_ref().is_none_or(|rule| view.rule.as_ref() == Some(rule))
    }
}

impl Instance {
    /// Connections that a filter means, out of a part of the tables, each with its place there: from 0, and then from what is
    /// next, until that is `None`.
    #[must_use]
    pub fn list(&self, filter: &ConnectionFilter, from: usize) -> Piece<ConnectionView> {
        let (found, next) = self.part(from);
        let v4 = self.state.tracking.v4.slots();
        let slot = |place: &Place| match place {
            Place::V4(handle) => handle.slot(),
            Place::V6(handle) => v4 + handle.slot(),
        };
        let items = found.into_iter().filter(|(_, view)| filter.fits(view)).map(|(place, view)| (slot(&place), view));
        Piece { items: items.collect(), next }
    }

    /// Ends connections that a filter means, in a part of the tables as [`Instance::list`] goes through them;
    /// how many, and what to go on with.
    pub fn clear(&mut self, filter: &ConnectionFilter, from: usize) -> (usize, Option<usize>) {
        let (found, next) = self.part(from);
        let mut cleared = 0;
        for (place, _) in found.iter().filter(|(_, view)| filter.fits(view)) {
            self.state.tracking.end(*place);
            cleared += 1;
        }
        (cleared, next)
    }

    /// What each rule has decided about on this worker, in the order of the rules.
    #[must_use]
    pub fn rule_hits(&self) -> Vec<RuleHits> {
        let of = |slot: u16| self.state.hits.get(usize::from(slot)).copied().unwrap_or(0);
        let rules = self.state.policy.rules.iter();
        rules
            .map(|rule| RuleHits { name: rule.name.clone(), comment: rule.comment.clone(), hits: of(rule.slot) })
            .collect()
    }

    /// The tables of both families one behind the other.
    fn part(&self, from: usize) -> (Vec<(Place, ConnectionView)>, Option<usize>) {
        let (v4, v6) = (self.state.tracking.v4.slots(), self.state.tracking.v6.slots());
        let to = from.saturating_add(SLOTS);
        let mut found = Vec::new();
        self.views(&self.state.tracking.v4, from..to.min(v4), Place::V4, &mut found);
        self.views(&self.state.tracking.v6, from.saturating_sub(v4)..to.saturating_sub(v4), Place::V6, &mut found);
        (found, (to < v4 + v6).then_some(to))
    }

    fn views<K: Ends>(
        &self,
        table: &FlowTable<K, Connection>,
        slots: std::ops::Range<usize>,
        place: fn(Handle) -> Place,
        to: &mut Vec<(Place, ConnectionView)>,
    ) {
        to.extend(table.entries_in(slots).map(|(handle, key, connection)| (place(handle), self.view(key, connection))));
    }

    fn view<K: Ends>(&self, key: &K, connection: &Connection) -> ConnectionView {
        let (low, high) = key.ends();
        let (source, destination) = if connection.low_began() { (low, high) } else { (high, low) };
        let protocol = key.protocol();
        let rule = Some(connection.slot).filter(|slot| *slot != NO_SLOT);
        ConnectionView {
            protocol,
            source,
            destination,
            direction: connection.direction(),
            state: match protocol {
                IpProtocol::TCP if connection.is_proxied() && connection.tcp.state == State::SynSent => "SYN_PROXY",
                IpProtocol::TCP => state_name(connection.tcp.state),
                _ if connection.is_answered() => "ANSWERED",
                _ => "UNANSWERED",
            },
            rule: rule.and_then(|slot| self.state.policy.slot_name(slot)).map(str::to_owned),
            proxied: connection.is_proxied(),
        }
    }
}

/// The rules of all workers, which are the same, with what all have decided.
#[allow(clippy::needless_pass_by_value, reason = "it is given the answers")]
pub(super) fn added_up(workers: Vec<Vec<RuleHits>>) -> Vec<RuleHits> {
    let (first, others) = workers.split_first().unwrap_or((const { &Vec::new() }, &[]));
    let hits = |index: usize| others.iter().filter_map(move |rules| rules.get(index)).map(|rule| rule.hits);
    let rules = first.iter().enumerate();
    rules.map(|(index, rule)| RuleHits { hits: rule.hits + hits(index).sum::<u64>(), ..rule.clone() }).collect()
}

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::SynSent => "SYN_SENT",
        State::SynSent2 => "SYN_SENT2",
        State::SynReceived => "SYN_RECV",
        State::Established => "ESTABLISHED",
        State::FinWait => "FIN_WAIT",
        State::CloseWait => "CLOSE_WAIT",
        State::LastAck => "LAST_ACK",
        State::TimeWait => "TIME_WAIT",
        State::Close => "CLOSE",
    }
}
