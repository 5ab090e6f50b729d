//! Rules that can be no rules, or not what was meant: found before anything runs.
//!
//! Rules are compared two by two, so what several rules together leave to a later one is not found.

use super::config::Action;
use super::rule::{Conditions, Protocol, Rule};
use nf_framework::{AddressSet, Addresses, FlagsMatch, Prefix};
use std::fmt;
use std::ops::RangeInclusive;

/// Something that a rule's author should know; rules are named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// An earlier rule takes all that it asks for and does something else: it never decides.
    Shadowed {
        /// The rule.
        rule: String,
        /// The earlier one.
        by: String,
    },
    /// An earlier rule takes all that it asks for and does the same: it may go.
    Redundant {
        /// The rule.
        rule: String,
        /// The earlier one.
        by: String,
    },
    /// Both ask for the same and do different things: the earlier one decides.
    Contradictory {
        /// The rule.
        rule: String,
        /// The earlier one.
        with: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadowed { rule, by } => {
                write!(f, "rule {rule:?} is shadowed: {by:?} before it takes all of it and does something else")
            }
            Self::Redundant { rule, by } => {
                write!(f, "rule {rule:?} is redundant: {by:?} before it takes all of it and does the same")
            }
            Self::Contradictory { rule, with } => {
                write!(f, "rule {rule:?} contradicts {with:?} before it, which asks for the same and decides")
            }
        }
    }
}

/// At most one finding for each rule, about the first that stands in its way.
pub(super) fn lint(rules: &[Rule], sets: &[AddressSet]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let covers = |earlier: &&Rule| covers(&earlier.conditions, &rule.conditions, sets);
        let Some(earlier) = rules[..index].iter().find(covers) else { continue };
        let (name, by) = (rule.name.clone(), earlier.name.clone());
        let same = earlier.action == rule.action && earlier.limit == rule.limit;
        // With a limit it leaves nothing over either: what is too much is dropped there.
        findings.push(if same {
            Finding::Redundant { rule: name, by }
        } else if earlier.action != Action::Accept && rule.action != Action::Accept {
            Finding::Shadowed { rule: name, by }
        } else if self::covers(&rule.conditions, &earlier.conditions, sets) {
            Finding::Contradictory { rule: name, with: by }
        } else {
            Finding::Shadowed { rule: name, by }
        });
    }
    findings
}

/// Whether every packet that fits the inner conditions fits the outer ones.
fn covers(outer: &Conditions, inner: &Conditions, sets: &[AddressSet]) -> bool {
    outer.state == inner.state
        && outer.direction.is_none_or(|direction| inner.direction == Some(direction))
        && outer.fragment.is_none_or(|fragment| inner.fragment == Some(fragment))
        && inner.dscp & !outer.dscp == 0
        && covers_flags(outer.flags, inner.flags)
        && covers_ports(&outer.source_ports, &inner.source_ports)
        && covers_ports(&outer.destination_ports, &inner.destination_ports)
        && covers_protocols(&outer.protocols, &inner.protocols)
        && covers_addresses(&outer.sources, &inner.sources, sets)
        && covers_addresses(&outer.destinations, &inner.destinations, sets)
}

fn covers_flags(outer: Option<FlagsMatch>, inner: Option<FlagsMatch>) -> bool {
    let Some(outer) = outer else { return true };
    inner.is_some_and(|inner| inner.of.contains(outer.of) && inner.set.0 & outer.of.0 == outer.set.0)
}

fn covers_ports(outer: &[RangeInclusive<u16>], inner: &[RangeInclusive<u16>]) -> bool {
    let within = |inner: &RangeInclusive<u16>| {
        outer.iter().any(|outer| outer.contains(inner.start()) && outer.contains(inner.end()))
    };
    outer.is_empty() || !inner.is_empty() && inner.iter().all(within)
}

fn covers_protocols(outer: &[Protocol], inner: &[Protocol]) -> bool {
    let within = |inner: &Protocol| {
        outer.iter().any(|outer| {
            let icmp = |inner: &nf_framework::IcmpMatch| {
                outer.icmp.iter().any(|outer| {
                    let types = outer.types.contains(inner.types.start()) && outer.types.contains(inner.types.end());
                    types && outer.codes.contains(inner.codes.start()) && outer.codes.contains(inner.codes.end())
                })
            };
            let types = outer.icmp.is_empty() || !inner.icmp.is_empty() && inner.icmp.iter().all(icmp);
            outer.number == inner.number && types
        })
    };
    outer.is_empty() || !inner.is_empty() && inner.iter().all(within)
}

fn covers_addresses(outer: &[Addresses], inner: &[Addresses], sets: &[AddressSet]) -> bool {
    let of_set = |name: &str| sets.iter().find(|set| set.name == name).map_or(&[][..], |set| &set.prefixes);
    let has = |outer: &Addresses, inner: Prefix| match outer {
        Addresses::Any => true,
        Addresses::Prefix(prefix) => contains(*prefix, inner),
        Addresses::Set(name) => of_set(name).iter().any(|prefix| contains(*prefix, inner)),
    };
    let within = |inner: &Addresses| match inner {
        Addresses::Any => outer.contains(&Addresses::Any),
        Addresses::Prefix(prefix) => outer.iter().any(|outer| has(outer, *prefix)),
        // Large sets are compared by name alone, so that a start takes no longer with them.
        Addresses::Set(name) if of_set(name).len() > LARGE => outer.contains(inner),
        Addresses::Set(name) => {
            outer.contains(inner)
                || outer.iter().all(|outer| !is_large(outer, sets))
                    && of_set(name).iter().all(|prefix| outer.iter().any(|outer| has(outer, *prefix)))
        }
    };
    outer.is_empty() || !inner.is_empty() && inner.iter().all(within)
}

const LARGE: usize = 64;

fn is_large(addresses: &Addresses, sets: &[AddressSet]) -> bool {
    matches!(addresses, Addresses::Set(name) if sets.iter().any(|set| set.name == *name && set.prefixes.len() > LARGE))
}

fn contains(outer: Prefix, inner: Prefix) -> bool {
    outer.length() <= inner.length() && outer.contains(inner.address())
}
