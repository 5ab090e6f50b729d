//! Which rule decides about a packet, and why: by the rules as they are written, one after the other, and not by what
//! the packet path asks. And in words, what becomes of a packet for whatever reason.

use super::config::{Action, State, SynCookies};
use super::packet::{Kind, Says, Seen};
use super::policy::Policy;
use super::reasons::{NAMED, Named};
use super::rule::{Conditions, Rule};
use super::tcp::{self, Event};
use nf_framework::headers::{Headers, TcpFlags, Transport};
use nf_framework::terms::{AddressTerm, protocol_name};
use nf_framework::{AddressSet, Addresses, Direction, IcmpMatch};
use std::fmt;
use std::net::IpAddr;

/// What rules are asked about a packet.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) seen: &'a Seen,
    /// Of ICMP, type and code.
    pub(super) icmp: Option<(u8, u8)>,
    pub(super) direction: Direction,
    pub(super) state: State,
}

/// What becomes of a packet, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// The rules were asked.
    Rules(Explanation),
    /// It belongs to the connection that this packet of the file began, in this state after it.
    Connection(usize, &'static str),
    /// It passes without a rule, in words.
    Passes(&'static str),
    /// It is dropped without a rule.
    Dropped {
        /// Under which reason the packet path counts it.
        reason: &'static str,
        /// What that means.
        why: &'static str,
    },
    /// The capture has too little of it to tell.
    Unknown(&'static str),
}

/// What the rules say of a packet.
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

impl Why {
    /// Whether the packet passes. One that is answered by a cookie does, in so far as its connection begins.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Rules(explanation) => explanation.action == Action::Accept,
            Self::Connection(..) | Self::Passes(_) => true,
            Self::Dropped { .. } | Self::Unknown(_) => false,
        }
    }

    /// Under which reason the packet path counts the packet, if it is dropped.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Rules(explanation) => explanation.reason(),
            Self::Dropped { reason, .. } => Some(reason),
            Self::Connection(..) | Self::Passes(_) | Self::Unknown(_) => None,
        }
    }

    pub(super) fn dropped(Named { name, help }: Named) -> Self {
        Self::Dropped { reason: name, why: help }
    }
}

impl Explanation {
    fn reason(&self) -> Option<&'static str> {
        let named = if self.rule.is_some() { NAMED.denied } else { NAMED.unmatched };
        (self.action != Action::Accept).then_some(named.name)
    }
}

impl Policy {
    /// Which rule decides about a packet that rules are asked about, and why none before it does.
    pub(super) fn ask(&self, packet: &Question<'_>) -> Why {
        let (mut passed_over, mut logged_by) = (Vec::new(), None);
        for Rule { name, conditions, action, syn_cookies, .. } in &self.rules {
            match conditions.lacks(packet, &self.sets) {
                None if *action == Action::Log => logged_by = logged_by.or_else(|| Some(name.clone())),
                None => {
                    let syn_cookies = match cookies(packet.seen, *syn_cookies) {
                        Ok(syn_cookies) => syn_cookies,
                        Err(named) => return Why::dropped(named),
                    };
                    let rule = Some(name.clone());
                    return Why::Rules(Explanation { rule, action: *action, passed_over, logged_by, syn_cookies });
                }
                Some(lack) => passed_over.push((name.clone(), lack)),
            }
        }
        let action = self.unless_matched(packet.state);
        Why::Rules(Explanation { rule: None, action, passed_over, logged_by, syn_cookies: SynCookies::Never })
    }

    /// What is said beside a rule for people.
    #[must_use]
    pub fn comment(&self, rule: &str) -> Option<&str> {
        let found: Option<&Rule> = self.rules.iter().find(|of| of.name == rule);
        found.map(|rule| rule.comment.as_str()).filter(|comment| !comment.is_empty())
    }
}

/// Of an ICMP message of its family, type and code.
pub(super) fn icmp_of(frame: &mut [u8]) -> Option<(u8, u8)> {
    match &Headers::parse(frame).ok()?.transport {
        Transport::Icmp(icmp) => Some((icmp.message_type.0, icmp.code)),
        Transport::Icmpv6(icmp) => Some((icmp.message_type.0, icmp.code)),
        _ => None,
    }
}

/// When a packet that a rule with these cookies accepts is answered by one. Where all begin by one, no whole SYN is
/// dropped.
fn cookies(seen: &Seen, of_rule: SynCookies) -> Result<SynCookies, Named> {
    let Kind::Flow(_, Says::Tcp(segment)) = seen.kind else { return Ok(SynCookies::Never) };
    match (tcp::event(segment.flags), seen.fragment) {
        (Some(Event::Syn), false) => Ok(of_rule),
        _ if of_rule != SynCookies::Always => Ok(SynCookies::Never),
        (Some(Event::Syn), true) => Err(NAMED.fragment),
        _ => Err(NAMED.no_connection),
    }
}

impl Conditions {
    /// The first thing that a packet has not of what is asked for; nothing if it fits.
    fn lacks(&self, packet: &Question<'_>, sets: &[AddressSet]) -> Option<String> {
        if self.state != packet.state {
            let is = if packet.state == State::New { "new" } else { "related" };
            return Some(format!("the packet is {is}"));
        }
        if self.direction.is_some_and(|direction| direction != packet.direction) {
            let side = if packet.direction == Direction::Outbound { "inside" } else { "outside" };
            return Some(format!("it comes from {side}"));
        }
        if !self.has_vlan(packet.seen.vlan) {
            return Some(if packet.seen.vlan == 0 {
                "it has no VLAN".to_owned()
            } else {
                format!("its VLAN is {}", packet.seen.vlan)
            });
        }
        for (what, list, address) in [
            ("source", &self.sources, packet.seen.source),
            ("destination", &self.destinations, packet.seen.destination),
        ] {
            if !list.is_empty() && !list.iter().any(|addresses| has(addresses, address, sets)) {
                let asked: Vec<String> = list.iter().map(name_of).collect();
                return Some(format!("{what} {address} is not in {}", asked.join(", ")));
            }
        }
        let with_number = || self.protocols.iter().filter(|protocol| protocol.number == packet.seen.protocol);
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
            ("source", &self.source_ports, packet.seen.ports.map(|ports| ports.0)),
            ("destination", &self.destination_ports, packet.seen.ports.map(|ports| ports.1)),
        ] {
            if !list.is_empty() && !port.is_some_and(|port| list.iter().any(|ports| ports.contains(&port))) {
                let is = port.map_or_else(|| "there is none".to_owned(), |port| port.to_string());
                return Some(format!("the {what} port is another ({is})"));
            }
        }
        if self.flags.is_some_and(|flags| flags_of(packet.seen).0 & flags.of.0 != flags.set.0) {
            return Some("the TCP flags are others".to_owned());
        }
        if self.dscp >> packet.seen.dscp & 1 == 0 {
            return Some(format!("the DSCP is {}", packet.seen.dscp));
        }
        match self.fragment {
            Some(true) if !packet.seen.fragment => Some("it is no fragment".to_owned()),
            Some(false) if packet.seen.fragment => Some("it is a fragment".to_owned()),
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

fn flags_of(seen: &Seen) -> TcpFlags {
    match seen.kind {
        Kind::Flow(_, Says::Tcp(segment)) => segment.flags,
        _ => TcpFlags(0),
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(explanation) => explanation.fmt(f),
            Self::Connection(number, state) => write!(f, "accept, of the connection of #{number} ({state})"),
            Self::Passes(why) => write!(f, "accept, {why}"),
            Self::Dropped { reason, why } => write!(f, "drop ({reason}), {why}"),
            Self::Unknown(why) => f.write_str(why),
        }
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
        f.write_str(action)?;
        if let Some(reason) = self.reason() {
            write!(f, " ({reason})")?;
        }
        match &self.rule {
            Some(rule) => write!(f, ", by {rule}"),
            None => f.write_str(", as no rule matches"),
        }?;
        match self.syn_cookies {
            SynCookies::Never => Ok(()),
            SynCookies::UnderAttack => write!(f, "; under attack its SYN is answered by a cookie first"),
            SynCookies::Always => write!(f, "; its SYN is answered by a cookie first"),
        }
    }
}
