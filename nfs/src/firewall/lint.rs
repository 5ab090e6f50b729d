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
    /// No rule names the set.
    UnusedSet {
        /// The set.
        set: String,
    },
    /// The rule asks for what is in sets that are empty: no packet has it.
    EmptySet {
        /// The rule.
        rule: String,
        /// One of them.
        set: String,
    },
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
            Self::UnusedSet { set } => write!(f, "the set {set:?} is not used: no rule names it"),
            Self::EmptySet { rule, set } => write!(f, "rule {rule:?} matches nothing: the set {set:?} is empty"),
            Self::Shadowed { rule, by } => {
                write!(f, "rule {rule:?} is shadowed: {by:?} before it takes all of it and does something else")
            }
            Self::Redundant { rule, by } => {
                write!(f, "rule {rule:?} is redundant: {by:?} before it takes all of it and does the same")
            }
            Self::Contradictory { rule, with } => {
                write!(
                    f,
                    "rule {rule:?} is never reached: {with:?} before it asks for the same and does something else"
                )
            }
        }
    }
}

/// At most one finding for each rule, about the first that stands in its way.
pub(super) fn lint(rules: &[Rule], sets: &[AddressSet]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        // Those that write down leave packets to the later ones.
        let covers =
            |earlier: &&Rule| earlier.action != Action::Log && covers(&earlier.conditions, &rule.conditions, sets);
        let Some(earlier) = rules[..index].iter().find(covers) else { continue };
        let (name, by) = (rule.name.clone(), earlier.name.clone());
        let same = earlier.action == rule.action && earlier.limit == rule.limit;
        // With a limit it leaves nothing over either: what is too much is dropped there.
        findings.push(if same {
            Finding::Redundant { rule: name, by }
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
        && (outer.vlans.is_empty() || !inner.vlans.is_empty() && inner.vlans.iter().all(|vlan| outer.has_vlan(*vlan)))
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

#[cfg(test)]
mod tests {
    use super::super::Firewall;
    use super::*;
    use nf_framework::Function;

    fn findings(rules: &str) -> Vec<Finding> {
        let sets = "[sets.office]\nprefixes = [\"10.0.0.0/24\", \"10.0.2.0/24\"]\n";
        let config = toml::from_str(&format!("rfc4890 = false\n{sets}{rules}")).unwrap();
        let policy = Firewall.policy(config).unwrap();
        lint(&policy.rules, &policy.sets)
    }

    /// What is found of the second of two rules.
    fn of(first: &str, second: &str) -> Option<&'static str> {
        let rules = [("first", first), ("second", second)];
        let rules: String =
            rules.iter().map(|(name, rule)| format!("[[rules]]\nname = \"{name}\"\n{rule}\n")).collect();
        match findings(&rules).as_slice() {
            [] => None,
            [Finding::Shadowed { rule, by }] if rule == "second" && by == "first" => Some("shadowed"),
            [Finding::Redundant { rule, by }] if rule == "second" && by == "first" => Some("redundant"),
            [Finding::Contradictory { rule, with }] if rule == "second" && with == "first" => Some("contradictory"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_an_earlier_rule_takes_is_found() {
        const ACCEPT: &str = "action = \"accept\"";
        const DROP: &str = "action = \"drop\"";
        for (first, second, expected) in [
            ("", "", true),
            ("", "source = \"10.0.0.0/8\"", true),
            ("source = \"10.0.0.0/8\"", "source = \"10.1.0.0/16\"", true),
            ("source = \"10.1.0.0/16\"", "source = \"10.0.0.0/8\"", false),
            ("source = \"10.0.0.0/8\"", "source = \"@office\"", true),
            ("source = \"@office\"", "source = \"10.0.2.7\"", true),
            ("source = \"@office\"", "source = \"10.0.1.7\"", false),
            ("source = \"10.0.0.0/8\"", "destination = \"10.0.0.0/8\"", false),
            ("protocol = \"tcp\"", "protocol = \"tcp\"\ndestination_ports = 80", true),
            ("protocol = \"tcp\"", "protocol = [\"tcp\", \"udp\"]", false),
            ("destination_ports = \"1-100\"", "destination_ports = [80, 90]", true),
            ("destination_ports = \"1-100\"", "destination_ports = [80, 190]", false),
            ("protocol = \"icmp\"\nicmp = \"3-5\"", "protocol = \"icmp\"\nicmp = \"4/1\"", true),
            ("protocol = \"icmp\"\nicmp = \"3/0\"", "protocol = \"icmp\"\nicmp = 3", false),
            ("protocol = \"tcp\"\nflags = \"syn\"", "protocol = \"tcp\"\nflags = \"syn !ack\"", true),
            ("protocol = \"tcp\"\nflags = \"syn !ack\"", "protocol = \"tcp\"\nflags = \"syn\"", false),
            ("from = \"inside\"", "from = \"inside\"\ndscp = 8", true),
            ("from = \"inside\"", "from = \"outside\"", false),
            ("dscp = 8", "", false),
            ("vlans = [5, 6]", "vlans = 6", true),
            ("vlans = [5, 6]", "vlans = [6, 7]", false),
            ("vlans = 0", "", false),
            ("fragment = true", "fragment = false", false),
            ("state = \"related\"", "", false),
        ] {
            let said = of(&format!("{first}\n{ACCEPT}"), &format!("{second}\n{ACCEPT}"));
            assert_eq!(said, expected.then_some("redundant"), "{first} | {second}");
            let said = of(&format!("{first}\n{DROP}"), &format!("{second}\n{ACCEPT}"));
            let otherwise = if first == second { "contradictory" } else { "shadowed" };
            assert_eq!(said, expected.then_some(otherwise), "{first} | {second}");
        }
        let limited = format!("{ACCEPT}\nlimit = {{ packets_per_second = 1 }}");
        assert_eq!(of(&limited, "source = \"10.0.0.1\"\naction = \"accept\""), Some("shadowed"));
        assert_eq!(of(DROP, "action = \"reject\""), Some("contradictory"));
    }

    #[test]
    fn a_finding_is_a_sentence_with_both_names() {
        let rules =
            "[[rules]]\naction = \"drop\"\n[[rules]]\nname = \"web\"\nprotocol = \"tcp\"\naction = \"accept\"\n";
        let said: Vec<_> = findings(rules).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["rule \"web\" is shadowed: \"rules[0]\" before it takes all of it and does something else"]);
    }
}
