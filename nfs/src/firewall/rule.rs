//! A rule as it was validated: what it asks for, and what follows.

use super::config::{Action, LimitConfig, RuleConfig, State, SynCookies};
use super::marks;
use nf_framework::headers::IpProtocol;
use nf_framework::terms::{AddressTerm, protocol_name};
use nf_framework::{Addresses, Direction, FlagsMatch, IcmpMatch, Invalid};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Every class of differentiated services.
pub(super) const ALL_DSCP: u64 = u64::MAX;

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Its name as JSON has it, for the log.
    pub(super) quoted: Arc<str>,
    pub(super) comment: String,
    /// What stands for it in connections and counters; it stays the same as long as the name does.
    pub(super) slot: u16,
    pub(super) conditions: Conditions,
    pub(super) action: Action,
    pub(super) limit: Option<LimitConfig>,
    pub(super) syn_cookies: SynCookies,
}

/// What a rule asks for: a packet matches that fits one of each list. An empty list, or nothing, asks for
/// nothing.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) state: State,
    pub(super) direction: Option<Direction>,
    pub(super) vlans: Vec<u16>,
    pub(super) sources: Vec<Addresses>,
    pub(super) destinations: Vec<Addresses>,
    pub(super) protocols: Vec<Protocol>,
    pub(super) source_ports: Vec<RangeInclusive<u16>>,
    pub(super) destination_ports: Vec<RangeInclusive<u16>>,
    pub(super) flags: Option<FlagsMatch>,
    /// A bit for each class.
    pub(super) dscp: u64,
    pub(super) fragment: Option<bool>,
}

/// A protocol that a rule asks for, and of ICMP which messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Protocol {
    pub(super) number: IpProtocol,
    pub(super) icmp: Vec<IcmpMatch>,
}

impl Conditions {
    /// Whether a packet that comes in by this VLAN may fit.
    pub(super) fn has_vlan(&self, vlan: u16) -> bool {
        self.vlans.is_empty() || self.vlans.contains(&vlan)
    }

    /// Those of a rule; `key` is where it stands.
    pub(super) fn new(config: &RuleConfig, key: &str) -> Result<Self, Invalid> {
        let addresses = |terms: &[AddressTerm]| {
            let addresses = terms.iter().map(|term| match term {
                AddressTerm::Prefix(prefix) => Addresses::Prefix(*prefix),
                AddressTerm::Set(name) => Addresses::Set(name.clone()),
            });
            addresses.collect()
        };
        let ports = |terms: &[nf_framework::terms::PortTerm]| terms.iter().map(|port| port.first..=port.last).collect();
        let invalid = |field: &str, message: String| Err(Invalid::new(format!("{key}.{field}"), message));
        let protocols = protocols(config, key)?;
        if config.flags.is_some() && !protocols.iter().all(|protocol| protocol.number == IpProtocol::TCP)
            || config.flags.is_some() && protocols.is_empty()
        {
            return invalid("flags", "only TCP has TCP flags: write protocol = \"tcp\"".to_owned());
        }
        let with_ports = [IpProtocol::TCP, IpProtocol::UDP];
        let without = protocols.iter().find(|protocol| !with_ports.contains(&protocol.number));
        for (field, list) in [("source_ports", &config.source_ports), ("destination_ports", &config.destination_ports)]
        {
            if let Some(protocol) = without.filter(|_| !list.0.is_empty()) {
                let name = protocol_name(protocol.number);
                return invalid(field, format!("{name} has no ports: name tcp or udp, or leave the protocol out"));
            }
        }
        if config.state == State::Related && protocols.iter().any(|protocol| !is_icmp(protocol.number)) {
            return invalid("protocol", "what is related to a connection is ICMP or ICMPv6".to_owned());
        }
        Ok(Self {
            state: config.state,
            direction: config.from.map(super::config::Side::direction),
            vlans: config.vlans.0.iter().map(|vlan| vlan.0).collect(),
            sources: addresses(&config.source.0),
            destinations: addresses(&config.destination.0),
            protocols,
            source_ports: ports(&config.source_ports.0),
            destination_ports: ports(&config.destination_ports.0),
            flags: config.flags.map(|flags| flags.0.0),
            dscp: match config.dscp.0.iter().fold(0, |all, term| all | 1 << term.0) {
                0 => ALL_DSCP,
                some => some,
            },
            fragment: config.fragment,
        })
    }

    /// How many rules of a classifier it is at most: one for each combination of what its lists name.
    pub(super) fn combinations(&self) -> usize {
        let or_one = |length: usize| length.max(1);
        let messages = self.protocols.iter().map(|protocol| or_one(protocol.icmp.len())).sum();
        let lists =
            [self.sources.len(), self.destinations.len(), self.source_ports.len(), self.destination_ports.len()];
        lists.into_iter().map(or_one).fold(or_one(messages), usize::saturating_mul)
    }

    /// As rules of a classifier, of which a packet fits one if it fits these but for what a classifier does
    /// not see. None where all would be of two families at once.
    pub(super) fn classifier_rules(&self) -> Vec<nf_framework::Rule> {
        fn or_any<T: Clone>(list: &[T]) -> Vec<Option<T>> {
            if list.is_empty() { vec![None] } else { list.iter().cloned().map(Some).collect() }
        }
        let any_addresses = |list: &[Addresses]| if list.is_empty() { vec![Addresses::Any] } else { list.to_vec() };
        let mut messages: Vec<(Option<IpProtocol>, Option<IcmpMatch>)> = Vec::new();
        for protocol in &self.protocols {
            messages.extend(or_any(&protocol.icmp).into_iter().map(|icmp| (Some(protocol.number), icmp)));
        }
        if messages.is_empty() {
            messages.push((None, None));
        }
        let mut rules = Vec::new();
        for source in any_addresses(&self.sources) {
            for destination in any_addresses(&self.destinations) {
                for (protocol, icmp) in &messages {
                    let families = [family_of(&source), family_of(&destination), icmp_family(*protocol)];
                    let mut families = families.into_iter().flatten();
                    let first = families.next();
                    if families.any(|family| Some(family) != first) {
                        continue;
                    }
                    for source_ports in or_any(&self.source_ports) {
                        for destination_ports in or_any(&self.destination_ports) {
                            rules.push(nf_framework::Rule {
                                source: source.clone(),
                                destination: destination.clone(),
                                protocol: *protocol,
                                source_ports: source_ports.clone(),
                                destination_ports,
                                tcp_flags: self.flags,
                                icmp: icmp.clone(),
                                marks: marks::of(self.direction, self.fragment),
                            });
                        }
                    }
                }
            }
        }
        rules
    }
}

/// Whether addresses are IPv4; nothing if they may be either.
fn family_of(addresses: &Addresses) -> Option<bool> {
    match addresses {
        Addresses::Prefix(prefix) => Some(prefix.address().is_ipv4()),
        Addresses::Any | Addresses::Set(_) => None,
    }
}

/// Whether messages of a protocol are IPv4's; nothing if it is of either.
fn icmp_family(protocol: Option<IpProtocol>) -> Option<bool> {
    match protocol {
        Some(IpProtocol::ICMP) => Some(true),
        Some(IpProtocol::ICMPV6) => Some(false),
        _ => None,
    }
}

pub(super) fn is_icmp(protocol: IpProtocol) -> bool {
    icmp_family(Some(protocol)).is_some()
}

fn protocols(config: &RuleConfig, key: &str) -> Result<Vec<Protocol>, Invalid> {
    let mut protocols: Vec<Protocol> =
        config.protocol.0.iter().map(|term| Protocol { number: term.0, icmp: Vec::new() }).collect();
    if config.icmp.0.is_empty() {
        return Ok(protocols);
    }
    if protocols.is_empty() || protocols.iter().any(|protocol| !is_icmp(protocol.number)) {
        let message = "an ICMP type has its meaning by the protocol: write protocol = \"icmp\", \"icmpv6\" or both";
        return Err(Invalid::new(format!("{key}.icmp"), message));
    }
    for protocol in &mut protocols {
        for (index, term) in config.icmp.0.iter().enumerate() {
            let Some(found) = term.of(protocol.number) else {
                let name = protocol_name(protocol.number);
                return Err(Invalid::new(format!("{key}.icmp[{index}]"), format!("{name} has no such type")));
            };
            protocol.icmp.push(found);
        }
    }
    Ok(protocols)
}
