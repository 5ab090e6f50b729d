//! Which rule would decide about a packet, and why: by the rules as they are written, one after the other, and not
//! by what the packet path asks.

use super::config::{Action, State, SynCookies};
use super::packet::{Kind, Says, Seen};
use super::policy::Policy;
use super::rule::{Conditions, Rule};
use super::terms::{AddressTerm, DscpTerm, FlagsTerm, IcmpTerm, ProtocolTerm, VlanTerm, protocol_name};
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::{AddressSet, Addresses, Direction, IcmpMatch, Prefix};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A packet that begins something, in words (its side as its source says, unless they name it):
/// `tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside`,
/// `icmp 10.0.0.5 > 198.51.100.7 echo-request`, `udp [2001:db8::1]:53 > [2001:db8::2]:53 from outside dscp ef`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    protocol: IpProtocol,
    source: IpAddr,
    destination: IpAddr,
    /// Of TCP and UDP.
    ports: Option<(u16, u16)>,
    flags: TcpFlags,
    /// Of ICMP, type and code.
    pub(super) icmp: Option<(u8, u8)>,
    pub(super) direction: Direction,
    /// Why it is taken to come from that side, if nobody has said so.
    taken: Option<String>,
    dscp: u8,
    vlan: u16,
    fragment: bool,
    pub(super) state: State,
}

impl Described {
    /// A packet of which all is seen but its ICMP type.
    pub(super) fn of(seen: &Seen, direction: Direction) -> Self {
        let &Seen { protocol, source, destination, ports, dscp, vlan, fragment, .. } = seen;
        let flags = match seen.kind {
            Kind::Flow(_, Says::Tcp(segment)) => segment.flags,
            _ => TcpFlags(0),
        };
        let state = State::New;
        let taken = None;
        Self { protocol, source, destination, ports, flags, icmp: None, direction, taken, dscp, vlan, fragment, state }
    }

    /// The same packet, with the side that its source says, unless it was written: addresses in these prefixes are
    /// inside; private ones, if there are none.
    #[must_use]
    pub fn seen_from(mut self, inside: &[Prefix]) -> Self {
        if self.taken.is_some() {
            self.take_side(inside);
        }
        self
    }

    /// From which side the packet is taken to come, and why, if that was not written.
    #[must_use]
    pub fn taken_from(&self) -> Option<String> {
        self.taken.clone()
    }

    fn take_side(&mut self, inside: &[Prefix]) {
        let (source, is) = (self.source, is_inside(self.source, inside));
        self.direction = if is { Direction::Outbound } else { Direction::Inbound };
        let not = if is { "" } else { "not " };
        let why =
            if inside.is_empty() { format!("{not}a private address") } else { format!("{not}among those inside") };
        let side = if is { "inside" } else { "outside" };
        let message =
            format!("taken to come from {side}, as {source} is {why} (write \"from inside\" or \"from outside\")");
        self.taken = Some(message);
    }
}

/// Whether an address is in these prefixes; whether it is a private one, if there are none.
pub(super) fn is_inside(address: IpAddr, inside: &[Prefix]) -> bool {
    if !inside.is_empty() {
        return inside.iter().any(|prefix| prefix.contains(address));
    }
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local() || address.is_unspecified(),
    }
}

/// What is not a description of a packet, and what is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem} (write, for example, \"tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside\")")]
pub struct InvalidDescription {
    problem: String,
}

/// What a policy says of a described packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The rule that decides; none if it is the default.
    pub rule: Option<String>,
    /// What becomes of the packet.
    pub action: Action,
    /// Of each rule that was asked before: its name, and the first thing that the packet has not.
    pub passed_over: Vec<(String, String)>,
    /// The rule before it that writes the packet down.
    pub logged_by: Option<String>,
    /// When the packet, a SYN, is answered by a cookie.
    pub syn_cookies: SynCookies,
}

impl FromStr for Described {
    type Err = InvalidDescription;

    fn from_str(text: &str) -> Result<Self, InvalidDescription> {
        let wrong = |problem: String| InvalidDescription { problem };
        let mut words = text.split_whitespace();
        let mut next = |what: &str| words.next().ok_or_else(|| wrong(format!("{what} is missing")));
        let term: ProtocolTerm =
            next("the protocol")?.parse().map_err(|error: super::terms::InvalidTerm| wrong(error.to_string()))?;
        let protocol = term.0;
        let has_ports = [IpProtocol::TCP, IpProtocol::UDP].contains(&protocol);
        let source = end(next("the source")?, has_ports)?;
        if next("the \">\" between source and destination")? != ">" {
            return Err(wrong("the \">\" between source and destination is missing".to_owned()));
        }
        let destination = end(next("the destination")?, has_ports)?;
        if source.0.is_ipv4() != destination.0.is_ipv4() {
            return Err(wrong(format!("{} and {} are of two families", source.0, destination.0)));
        }
        let is_icmp = super::rule::is_icmp(protocol);
        let mut described = Self {
            protocol,
            source: source.0,
            destination: destination.0,
            ports: has_ports.then_some((source.1, destination.1)),
            flags: TcpFlags::SYN,
            icmp: is_icmp.then_some(if protocol == IpProtocol::ICMP { (8, 0) } else { (128, 0) }),
            direction: Direction::Outbound,
            taken: None,
            dscp: 0,
            vlan: 0,
            fragment: false,
            state: State::New,
        };
        described.take_side(&[]);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| wrong(format!("what follows {word:?} is missing")));
            match word {
                "from" => {
                    described.taken = None;
                    described.direction = match value()? {
                        "inside" => Direction::Outbound,
                        "outside" => Direction::Inbound,
                        side => return Err(wrong(format!("{side:?} is no side: inside or outside"))),
                    }
                }
                "dscp" => {
                    let parsed: Result<DscpTerm, _> = value()?.parse();
                    described.dscp = parsed.map_err(|error| wrong(error.to_string()))?.0;
                }
                "vlan" => {
                    let parsed: Result<VlanTerm, _> = value()?.parse();
                    described.vlan = parsed.map_err(|error| wrong(error.to_string()))?.0;
                }
                "flags" => {
                    let parsed: Result<FlagsTerm, _> = value()?.replace(',', " ").parse();
                    described.flags = parsed.map_err(|error| wrong(error.to_string()))?.0.set;
                }
                "fragment" => described.fragment = true,
                "related" => described.state = State::Related,
                _ if is_icmp => {
                    let parsed: Result<IcmpTerm, _> = word.parse();
                    let of = parsed.map_err(|error| wrong(error.to_string()))?.of(protocol);
                    let Some(IcmpMatch { types, codes }) = of else {
                        return Err(wrong(format!("{} has no type {word}", protocol_name(protocol))));
                    };
                    described.icmp = Some((*types.start(), *codes.start()));
                }
                _ => return Err(wrong(format!("{word:?} says nothing: from, vlan, dscp, flags, fragment or related"))),
            }
        }
        Ok(described)
    }
}

/// An address with a port, if there is to be one; that of IPv6 stands in brackets then.
fn end(text: &str, has_port: bool) -> Result<(IpAddr, u16), InvalidDescription> {
    let wrong = |what: &str| InvalidDescription { problem: format!("{text:?} is not {what}") };
    if !has_port {
        return text.parse().map(|address| (address, 0)).map_err(|_| wrong("an address"));
    }
    let socket: Result<std::net::SocketAddr, _> = text.parse();
    let socket = socket.map_err(|_| wrong("an address with a port, as in 10.0.0.5:4321 or [2001:db8::1]:4321"))?;
    Ok((socket.ip(), socket.port()))
}

impl Policy {
    /// Which rule decides about a packet, and why none before it does.
    #[must_use]
    pub fn explain(&self, packet: &Described) -> Explanation {
        let (mut passed_over, mut logged_by) = (Vec::new(), None);
        let is_syn = packet.protocol == IpProtocol::TCP && packet.flags == TcpFlags::SYN;
        for Rule { name, conditions, action, syn_cookies, .. } in &self.rules {
            match conditions.lacks(packet, &self.sets) {
                None if *action == Action::Log => logged_by = logged_by.or_else(|| Some(name.clone())),
                None => {
                    let syn_cookies = if is_syn { *syn_cookies } else { SynCookies::Never };
                    let rule = Some(name.clone());
                    return Explanation { rule, action: *action, passed_over, logged_by, syn_cookies };
                }
                Some(lack) => passed_over.push((name.clone(), lack)),
            }
        }
        let action = self.unless_matched(packet.state);
        Explanation { rule: None, action, passed_over, logged_by, syn_cookies: SynCookies::Never }
    }

    /// What is said beside a rule for people.
    #[must_use]
    pub fn comment(&self, rule: &str) -> Option<&str> {
        let found: Option<&Rule> = self.rules.iter().find(|of| of.name == rule);
        found.map(|rule| rule.comment.as_str()).filter(|comment| !comment.is_empty())
    }
}

impl Conditions {
    /// The first thing that a packet has not of what is asked for; nothing if it fits.
    fn lacks(&self, packet: &Described, sets: &[AddressSet]) -> Option<String> {
        if self.state != packet.state {
            let is = if packet.state == State::New { "new" } else { "related" };
            return Some(format!("the packet is {is}"));
        }
        if self.direction.is_some_and(|direction| direction != packet.direction) {
            let side = if packet.direction == Direction::Outbound { "inside" } else { "outside" };
            return Some(format!("it comes from {side}"));
        }
        if !self.has_vlan(packet.vlan) {
            return Some(if packet.vlan == 0 {
                "it has no VLAN".to_owned()
            } else {
                format!("its VLAN is {}", packet.vlan)
            });
        }
        for (what, list, address) in
            [("source", &self.sources, packet.source), ("destination", &self.destinations, packet.destination)]
        {
            if !list.is_empty() && !list.iter().any(|addresses| has(addresses, address, sets)) {
                let asked: Vec<String> = list.iter().map(name_of).collect();
                return Some(format!("{what} {address} is not in {}", asked.join(", ")));
            }
        }
        let with_number = || self.protocols.iter().filter(|protocol| protocol.number == packet.protocol);
        if !self.protocols.is_empty() && with_number().next().is_none() {
            let asked: Vec<String> = self.protocols.iter().map(|protocol| protocol_name(protocol.number)).collect();
            return Some(format!("the protocol is not {}", asked.join(", ")));
        }
        let fits_icmp = |icmp: &[IcmpMatch]| {
            icmp.is_empty()
                || packet.icmp.is_some_and(|(of_type, code)| {
                    icmp.iter().any(|icmp| icmp.types.contains(&of_type) && icmp.codes.contains(&code))
                })
        };
        if !self.protocols.is_empty() && !with_number().any(|protocol| fits_icmp(&protocol.icmp)) {
            return Some("the ICMP type is another".to_owned());
        }
        for (what, list, port) in [
            ("source", &self.source_ports, packet.ports.map(|ports| ports.0)),
            ("destination", &self.destination_ports, packet.ports.map(|ports| ports.1)),
        ] {
            if !list.is_empty() && !port.is_some_and(|port| list.iter().any(|ports| ports.contains(&port))) {
                let is = port.map_or_else(|| "there is none".to_owned(), |port| port.to_string());
                return Some(format!("the {what} port is another ({is})"));
            }
        }
        if self.flags.is_some_and(|flags| packet.flags.0 & flags.of.0 != flags.set.0) {
            return Some("the TCP flags are others".to_owned());
        }
        if self.dscp >> packet.dscp & 1 == 0 {
            return Some(format!("the DSCP is {}", packet.dscp));
        }
        match self.fragment {
            Some(true) if !packet.fragment => Some("it is no fragment".to_owned()),
            Some(false) if packet.fragment => Some("it is a fragment".to_owned()),
            _ => None,
        }
    }
}

fn has(addresses: &Addresses, address: IpAddr, sets: &[AddressSet]) -> bool {
    match addresses {
        Addresses::Any => true,
        Addresses::Prefix(prefix) => prefix.contains(address),
        Addresses::Set(name) => sets
            .iter()
            .find(|set| set.name == *name)
            .is_some_and(|set| set.prefixes.iter().any(|prefix| prefix.contains(address))),
    }
}

fn name_of(addresses: &Addresses) -> String {
    match addresses {
        Addresses::Any => "anything".to_owned(),
        Addresses::Prefix(prefix) => prefix.to_string(),
        Addresses::Set(name) => AddressTerm::Set(name.clone()).to_string(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, why) in &self.passed_over {
            writeln!(f, "  not {rule}: {why}")?;
        }
        let action = match self.action {
            Action::Accept => "accept",
            Action::Drop => "drop",
            Action::Reject => "reject",
            Action::Log => "log",
        };
        if let Some(rule) = &self.logged_by {
            writeln!(f, "  logged, by {rule}")?;
        }
        match &self.rule {
            Some(rule) => write!(f, "{action}, by {rule}"),
            None => write!(f, "{action}, as no rule matches"),
        }?;
        match self.syn_cookies {
            SynCookies::Never => Ok(()),
            SynCookies::UnderAttack => write!(f, "; under attack its SYN is answered by a cookie first"),
            SynCookies::Always => write!(f, "; its SYN is answered by a cookie first"),
        }
    }
}
