//! Rules that are never asked about what they ask for, as far as that can be told for sure: what no packet has, and what
//! is decided before any rule is asked.

use super::config::{Config, Passage, State};
use super::lint::Finding;
use super::packet::{is_no_destination, is_no_source, may_begin_v4, may_begin_v6};
use super::rule::{Conditions, Protocol, Rule};
use super::tcp::{self, Event};
use nf_framework::headers::{IcmpType, Icmpv6Type, IpProtocol, TcpFlags};
use nf_framework::terms::protocol_name;
use nf_framework::{AddressSet, Addresses, IcmpMatch, Invalid, Prefix};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong, and the key of the rule that it is about.
type Fault = (&'static str, String);

/// Refuses rules that no packet can match.
pub(super) fn check(rules: &[Rule], config: &Config, sets: &[AddressSet]) -> Result<(), Invalid> {
    let sets = Sets::new(sets).without_files(config);
    for (index, Rule { conditions, .. }) in rules.iter().enumerate() {
        let [source, destination] = sets.sides(conditions);
        let faults = [
            families(conditions, &source, &destination),
            source.hosts("source"),
            destination.hosts("destination"),
            messages(conditions),
            flags(conditions, config.mid_stream),
            fragments(conditions, config.fragments),
        ];
        if let Some((field, message)) = faults.into_iter().flatten().next() {
            return Err(Invalid::new(format!("rules[{index}].{field}"), message));
        }
    }
    Ok(())
}

/// Of rules that ask for several things, one that is of no use.
pub(super) fn lint(rules: &[Rule], sets: &[AddressSet]) -> Vec<Finding> {
    let sets = Sets::new(sets);
    let useless = |Rule { name, conditions, .. }: &Rule| {
        let message = conditions.protocols.iter().find_map(|protocol| {
            let icmp = protocol.icmp.iter().find(|icmp| !is_asked(conditions.state, protocol.number, icmp))?;
            Some(format!("{} {}", protocol_name(protocol.number), types(icmp)))
        });
        let [source, destination] = sets.sides(conditions);
        let host = |side: &Side, name: &str| side.no_host.map(|prefix| format!("the {name} {prefix}"));
        let what = message.or_else(|| host(&source, "source")).or_else(|| host(&destination, "destination"))?;
        Some(Finding::NeverAsked { rule: name.clone(), what })
    };
    rules.iter().filter_map(useless).collect()
}

/// What is known of the addresses that a rule asks for on one side.
#[derive(Clone, Copy, Default)]
struct Side {
    /// Whether some are IPv4, and some IPv6.
    families: [bool; 2],
    /// The first that no packet has which comes to a rule.
    no_host: Option<Prefix>,
    /// Whether some have.
    some: bool,
}

impl Side {
    fn add(&mut self, other: Self) {
        for (family, other) in self.families.iter_mut().zip(other.families) {
            *family |= other;
        }
        self.no_host = self.no_host.or(other.no_host);
        self.some |= other.some;
    }

    fn of(prefix: Prefix, is_none: fn(IpAddr) -> bool) -> Self {
        let four = prefix.address().is_ipv4();
        let no_host = Some(prefix).filter(|prefix| has_no_host(*prefix, is_none));
        Self { families: [four, !four], no_host, some: no_host.is_none() }
    }

    /// Of what is in a file: it may say something else tomorrow.
    const UNKNOWN: Self = Self { families: [true; 2], no_host: None, some: true };

    /// Where no addresses are asked for, all are.
    fn families(&self) -> [bool; 2] {
        if self.families == [false; 2] { [true; 2] } else { self.families }
    }

    fn hosts(&self, side: &'static str) -> Option<Fault> {
        let first = self.no_host.filter(|_| !self.some)?;
        let from = if side == "source" { "from" } else { "to" };
        let message = format!("what is {from} {first} is dropped before any rule is asked: leave the rule out");
        Some((side, message))
    }
}

/// Of each set, as a source and as a destination; once, as they may be large and many rules may name them.
struct Sets<'a>(HashMap<&'a str, [Side; 2]>);

/// Which addresses no packet has that comes to a rule, as a source and as a destination.
const NO_HOSTS: [fn(IpAddr) -> bool; 2] = [is_no_source, is_no_destination];

impl<'a> Sets<'a> {
    fn new(sets: &'a [AddressSet]) -> Self {
        let sides = |set: &AddressSet| {
            NO_HOSTS.map(|is_none| {
                let mut side = Side::default();
                set.prefixes.iter().for_each(|prefix| side.add(Side::of(*prefix, is_none)));
                side
            })
        };
        Self(sets.iter().map(|set| (set.name.as_str(), sides(set))).collect())
    }

    /// What is known for sure, and does not change with a file.
    fn without_files(mut self, config: &Config) -> Self {
        for (name, sides) in &mut self.0 {
            if config.sets.get(*name).is_some_and(|set| set.file.is_some()) {
                *sides = [Side::UNKNOWN; 2];
            }
        }
        self
    }

    fn sides(&self, conditions: &Conditions) -> [Side; 2] {
        let lists = [&conditions.sources, &conditions.destinations];
        let mut sides = [Side::default(); 2];
        for (((list, is_none), side), place) in lists.into_iter().zip(NO_HOSTS).zip(&mut sides).zip(0..) {
            for addresses in list {
                match addresses {
                    Addresses::Any => {}
                    Addresses::Prefix(prefix) => side.add(Side::of(*prefix, is_none)),
                    Addresses::Set(name) => {
                        side.add(self.0.get(name.as_str()).and_then(|of| of.get(place)).copied().unwrap_or_default());
                    }
                }
            }
        }
        sides
    }
}

fn families(conditions: &Conditions, source: &Side, destination: &Side) -> Option<Fault> {
    let name = |families: [bool; 2]| if families[0] { "IPv4" } else { "IPv6" };
    let (source, destination) = (source.families(), destination.families());
    let both = [source[0] && destination[0], source[1] && destination[1]];
    if both == [false; 2] {
        let (source, destination) = (name(source), name(destination));
        let message = format!("no packet is of two families: the source is {source}, and this is {destination}");
        return Some(("destination", message));
    }
    let of = |protocol: &Protocol| match protocol.number {
        IpProtocol::ICMP => [true, false],
        IpProtocol::ICMPV6 => [false, true],
        _ => [true; 2],
    };
    let fits = |protocol: &Protocol| of(protocol).into_iter().zip(both).any(|(of, addresses)| of && addresses);
    let first = conditions.protocols.first().filter(|_| !conditions.protocols.iter().any(fits))?;
    let (protocol, of, is) = (protocol_name(first.number), name(of(first)), name(both));
    let other = if both[0] { "icmp" } else { "icmpv6" };
    let message = format!("no packet is of two families: {protocol} is {of}, the addresses are {is} (write {other:?})");
    Some(("protocol", message))
}

/// Whether all addresses of a prefix are such. What both ends of it are, all is; but around the unspecified address, which is
/// none to send to, there are hosts further on.
fn has_no_host(prefix: Prefix, is_none: fn(IpAddr) -> bool) -> bool {
    let (first, length) = (prefix.address(), u32::from(prefix.length()));
    let (last, least) = match first {
        IpAddr::V4(first) => {
            let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
            (IpAddr::from(Ipv4Addr::from_bits(first.to_bits() | hosts)), 8)
        }
        IpAddr::V6(first) => {
            let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
            (Ipv6Addr::from_bits(first.to_bits() | hosts).into(), 127)
        }
    };
    is_none(first) && is_none(last) && (!first.is_unspecified() || length >= least)
}

fn messages(conditions: &Conditions) -> Option<Fault> {
    let mut all =
        conditions.protocols.iter().flat_map(|protocol| protocol.icmp.iter().map(|icmp| (protocol.number, icmp)));
    let (protocol, first) = all.clone().next()?;
    if all.any(|(protocol, icmp)| is_asked(conditions.state, protocol, icmp)) {
        return None;
    }
    let message = match conditions.state {
        State::Related => "what is related is an ICMP error, and this is none: leave the state out".to_owned(),
        State::New => {
            let (protocol, types) = (protocol_name(protocol), types(first));
            format!(
                "{protocol} {types} begins nothing, and no rule is asked about it: replies pass with their request, \
                 errors by state = \"related\", and Neighbor Discovery always"
            )
        }
    };
    Some(("icmp", message))
}

/// Whether rules of a state are asked about one of these messages.
fn is_asked(state: State, protocol: IpProtocol, icmp: &IcmpMatch) -> bool {
    let four = protocol == IpProtocol::ICMP;
    icmp.types.clone().any(|number| match (state, four) {
        (State::New, true) => may_begin_v4(IcmpType(number)),
        (State::New, false) => may_begin_v6(Icmpv6Type(number)),
        (State::Related, true) => IcmpType(number).is_error(),
        (State::Related, false) => Icmpv6Type(number).is_error(),
    })
}

fn types(icmp: &IcmpMatch) -> String {
    let (first, last) = (icmp.types.start(), icmp.types.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// A connection begins by a SYN, or by an acknowledgment where that is let be.
fn flags(conditions: &Conditions, mid_stream: bool) -> Option<Fault> {
    let asked = conditions.flags?;
    let begins = |flags: u8| match tcp::event(TcpFlags(flags)) {
        Some(Event::Syn) => true,
        Some(Event::Ack) => mid_stream,
        _ => false,
    };
    if (0..=u8::MAX).any(|flags| begins(flags) && flags & asked.of.0 == asked.set.0) {
        return None;
    }
    let acknowledgments = if mid_stream { " or an acknowledgment" } else { "" };
    let message = format!(
        "rules are asked about what begins a connection, a SYN{acknowledgments}, and no such segment has these flags: \
         leave the rule out, what belongs to no connection is dropped"
    );
    Some(("flags", message))
}

fn fragments(conditions: &Conditions, let_through: Passage) -> Option<Fault> {
    if conditions.fragment != Some(true) {
        return None;
    }
    if let_through == Passage::Drop {
        let message = "fragments = \"drop\" leaves none for a rule: leave the rule out, or let them through";
        return Some(("fragment", message.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Firewall;
    use super::*;
    use nf_framework::Function;

    #[test]
    fn a_prefix_has_no_host_if_none_of_its_addresses_is_one() {
        for (prefix, source, destination) in [
            ("0.0.0.0/0", false, false),
            ("0.0.0.0/1", false, false),
            ("0.0.0.0/7", false, false),
            ("0.0.0.0/8", false, true),
            ("0.0.0.0", false, true),
            ("0.1.0.0/16", true, true),
            ("10.0.0.0/8", false, false),
            ("127.0.0.0/8", true, true),
            ("126.0.0.0/7", false, false),
            ("224.0.0.0/4", true, false),
            ("224.0.0.0/3", true, false),
            ("240.0.0.0/5", true, true),
            ("255.255.255.255", true, false),
            ("::/0", false, false),
            ("::/96", false, false),
            ("::/127", false, true),
            ("::1", true, true),
            ("::", false, true),
            ("ff00::/8", true, false),
            ("::ffff:0:0/96", true, true),
            ("::fffe:0:0/95", false, false),
            ("2001:db8::/32", false, false),
        ] {
            let of = |is_none| has_no_host(prefix.parse().unwrap(), is_none);
            assert_eq!((of(is_no_source), of(is_no_destination)), (source, destination), "{prefix}");
        }
    }

    #[test]
    fn what_a_rule_names_for_nothing_is_found() {
        let sets = "[sets.some]\nprefixes = ['10.0.0.0/8', '224.0.0.0/4']\n";
        let nothing = |what: &str| vec![format!("rule \"r\" names {what} for nothing: no rule is asked about that")];
        for (conditions, expected) in [
            ("source = '@some'", nothing("the source 224.0.0.0/4")),
            ("destination = '@some'", vec![]),
            ("destination = ['127.0.0.1', '@some']", nothing("the destination 127.0.0.1/32")),
            ("source = '@some'\nprotocol = 'icmp'\nicmp = ['echo-request', 'echo-reply']", nothing("icmp 0")),
            ("source = '@some'\nprotocol = 'icmp'\nicmp = ['0-8', '3-4', '11-12/1']", nothing("icmp 11-12")),
            ("source = '10.0.0.0/8'\nprotocol = 'icmp'\nicmp = '0-8'", vec![]),
            ("protocol = ['icmp', 'icmpv6']\nicmp = 'echo-request'", vec![]),
        ] {
            let text = format!("{sets}[[rules]]\nname = 'r'\naction = 'drop'\n{conditions}\n");
            let policy = Firewall.policy(toml::from_str(&text).unwrap()).unwrap();
            let said: Vec<_> = lint(&policy.rules, &policy.sets).iter().map(ToString::to_string).collect();
            assert_eq!(said, expected, "{conditions}");
        }
    }
}
