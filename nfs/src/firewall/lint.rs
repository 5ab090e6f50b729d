//! Rules that can be no rules, or not what was meant: found before anything runs.
//!
//! Rules are compared two by two, so what several rules together leave to a later one is not found; those that cannot
//! take all of another one are not looked at ([`Candidates`]).

use super::candidates::Candidates;
use super::rule::{Conditions, Protocol, Rule};
use nf_framework::{AddressSet, Addresses, FlagsMatch, Prefix};
use std::fmt;
use std::ops::RangeInclusive;

/// Something that a rule's author should know; rules are named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Finding {
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
    /// The rule asks among others for something that it is never asked about.
    NeverAsked {
        /// The rule.
        rule: String,
        /// What, in words.
        what: String,
    },
    /// So many rules overlap that those from this one on were not compared with the ones before them.
    NotCompared {
        /// The first of them.
        rule: String,
    },
}

/// What a finding is about.
pub(super) enum Subject<'a> {
    /// The set of this name.
    Set(&'a str),
    /// The rule of this name.
    Rule(&'a str),
}

impl Finding {
    pub(super) fn subject(&self) -> Subject<'_> {
        match self {
            Self::UnusedSet { set } => Subject::Set(set),
            Self::EmptySet { rule, .. }
            | Self::Shadowed { rule, .. }
            | Self::Redundant { rule, .. }
            | Self::Contradictory { rule, .. }
            | Self::NeverAsked { rule, .. }
            | Self::NotCompared { rule } => Subject::Rule(rule),
        }
    }
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
            Self::NeverAsked { rule, what } => {
                write!(f, "rule {rule:?} names {what} for nothing: no rule is asked about that")
            }
            Self::NotCompared { rule } => {
                write!(f, "from rule {rule:?} on none was compared with those before it: too many overlap")
            }
        }
    }
}

/// Two rules are compared in some 100 ns, so that a start is not late for it.
const MOST_COMPARISONS: u32 = 1 << 20;

/// At most one finding for each rule, about the first that stands in its way.
pub(super) fn lint(rules: &[Rule], sets: &[AddressSet]) -> Vec<Finding> {
    lint_within(MOST_COMPARISONS, rules, sets)
}

/// As [`lint`], by so many comparisons at most.
fn lint_within(most: u32, rules: &[Rule], sets: &[AddressSet]) -> Vec<Finding> {
    let (mut findings, mut left) = (Vec::new(), most);
    // Those that write down are none: they leave packets to the later ones.
    let mut candidates = Candidates::new(rules, sets, LARGE);
    for (number, rule) in rules.iter().enumerate() {
        let mut earlier = None;
        for candidate in candidates.of(&rule.conditions).filter_map(|number| rules.get(number)) {
            let Some(rest) = left.checked_sub(1) else {
                findings.push(Finding::NotCompared { rule: rule.name.clone() });
                return findings;
            };
            left = rest;
            if covers(&candidate.conditions, &rule.conditions, sets) {
                earlier = Some(candidate);
                break;
            }
        }
        candidates.add(number, rule);
        let Some(earlier) = earlier else { continue };
        let (name, by) = (rule.name.clone(), earlier.name.clone());
        let does = |rule: &Rule| (rule.action, rule.limit, rule.syn_cookies);
        let same = does(earlier) == does(rule);
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
    use super::super::config::{Action, SynCookies};
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
            ("protocol = \"icmp\"\nicmp = \"5/0\"", "protocol = \"icmp\"\nicmp = 5", false),
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
        let cookies = "destination_ports = 443\naction = \"accept\"\nsyn_cookies = \"always\"";
        assert_eq!(of(ACCEPT, cookies), Some("shadowed"));
    }

    /// Rules as random as they may be, of few values, so that many take all of others.
    fn random_rules(random: &mut impl FnMut(usize) -> usize, count: usize) -> Vec<Rule> {
        let mut rules = Vec::new();
        while rules.len() < count {
            let mut text = String::new();
            let mut list = |key: &str, one_in: usize, values: &[&str], random: &mut dyn FnMut(usize) -> usize| {
                if random(one_in) == 0 {
                    let some: Vec<_> = (0..=random(3)).map(|_| values[random(values.len())]).collect();
                    text += &format!("{key} = {some:?}\n");
                }
            };
            let addresses = [
                "10.0.0.0/8",
                "10.0.0.0/24",
                "10.0.2.0/24",
                "10.0.2.7",
                "10.0.3.9",
                "0.0.0.0/0",
                "@office",
                "@large",
                "@empty",
                "@six",
                "2001:db8::/32",
                "2001:db8::7",
            ];
            list("source", 2, &addresses, random);
            list("destination", 2, &addresses, random);
            list("protocol", 2, &["tcp", "udp", "icmp", "47"], random);
            list("destination_ports", 2, &["80", "443", "1-1023", "1000-3000", "0-65535"], random);
            list("source_ports", 4, &["80", "1024-65535"], random);
            list("icmp", 6, &["3", "3/1", "8"], random);
            list("flags", 8, &["syn", "syn !ack"], random);
            list("vlans", 6, &["5", "6"], random);
            list("dscp", 8, &["8", "46"], random);
            text = text
                .replace("flags = [", "flags = ")
                .lines()
                .map(|line| match line.strip_prefix("flags = ") {
                    Some(flags) => format!("flags = {}\n", flags.split([',', ']']).next().unwrap()),
                    None => format!("{line}\n"),
                })
                .collect();
            for (line, one_in) in [
                ("from = \"inside\"", 4),
                ("from = \"outside\"", 6),
                ("fragment = true", 8),
                ("state = \"related\"", 9),
            ] {
                if random(one_in) == 0 && !text.contains(&line[..4]) {
                    text += &format!("{line}\n");
                }
            }
            text += ["action = \"accept\"", "action = \"drop\"", "action = \"log\""][random(3)];
            let config: super::super::RuleConfig =
                toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let Ok(conditions) = Conditions::new(&config, "rule") else { continue };
            rules.push(rule(rules.len(), conditions, config.action));
        }
        rules
    }

    fn rule(number: usize, conditions: Conditions, action: Action) -> Rule {
        let name = format!("r{number}");
        Rule {
            quoted: name.as_str().into(),
            name,
            comment: String::new(),
            slot: 0,
            conditions,
            action,
            limit: None,
            syn_cookies: SynCookies::Never,
        }
    }

    /// The first of all that come before it and take all of it, for each rule that has one.
    fn plain(rules: &[Rule], sets: &[AddressSet]) -> Vec<(String, String)> {
        let first = |(index, rule): (usize, &Rule)| {
            let takes =
                |earlier: &&Rule| earlier.action != Action::Log && covers(&earlier.conditions, &rule.conditions, sets);
            Some((rule.name.clone(), rules[..index].iter().find(takes)?.name.clone()))
        };
        rules.iter().enumerate().filter_map(first).collect()
    }

    #[test]
    fn the_same_is_found_as_by_comparing_each_with_each() {
        let prefixes = |list: &[&str]| list.iter().map(|prefix| prefix.parse().unwrap()).collect();
        let set = |name: &str, prefixes| AddressSet { name: name.to_owned(), prefixes };
        let large: Vec<_> = (0..=LARGE).map(|host| format!("10.0.3.{host}")).collect();
        let large: Vec<_> = large.iter().map(String::as_str).collect();
        let sets = [
            set("office", prefixes(&["10.0.0.0/24", "10.0.2.0/24"])),
            set("large", prefixes(&large)),
            set("empty", Vec::new()),
            set("six", prefixes(&["2001:db8::/48", "10.0.2.0/24"])),
        ];
        let mut found = 0;
        for seed in 1..=60_u64 {
            let mut state = seed;
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap() % below
            };
            let rules = random_rules(&mut random, 150);
            let said: Vec<_> = lint(&rules, &sets)
                .into_iter()
                .map(|finding| match finding {
                    Finding::Shadowed { rule, by } | Finding::Redundant { rule, by } => (rule, by),
                    Finding::Contradictory { rule, with } => (rule, with),
                    finding => panic!("{finding}"),
                })
                .collect();
            let expected = plain(&rules, &sets);
            found += expected.len();
            assert_eq!(said, expected, "seed {seed}");
        }
        assert!(found > 1000, "{found}");
    }

    fn many(count: usize, conditions: impl Fn(usize) -> String) -> Vec<Rule> {
        let config = |number| toml::from_str(&format!("action = \"accept\"\n{}", conditions(number))).unwrap();
        (0..count)
            .map(|number| rule(number, Conditions::new(&config(number), "rule").unwrap(), Action::Accept))
            .collect()
    }

    #[test]
    fn rules_that_have_nothing_in_common_are_not_compared() {
        let host = |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
        for (what, rules) in [
            ("sources", many(5000, |number| format!("source = \"{}\"", host(number)))),
            ("second destinations", many(5000, |number| format!("destination = [\"10.0.0.0\", \"{}\"]", host(number)))),
            ("ports", many(5000, |number| format!("protocol = \"tcp\"\ndestination_ports = {number}"))),
            ("source ports", many(5000, |number| format!("protocol = \"udp\"\nsource_ports = {}", number * 3))),
        ] {
            assert_eq!(lint_within(10, &rules, &[]), [], "{what}");
        }
    }

    #[test]
    fn too_many_comparisons_are_not_made_and_that_is_said() {
        let rules = many(10, |number| format!("dscp = {number}"));
        assert_eq!(lint_within(45, &rules, &[]), []);
        let found = lint_within(10, &rules, &[]);
        assert_eq!(found, [Finding::NotCompared { rule: "r5".to_owned() }]);
        let said = "from rule \"r5\" on none was compared with those before it: too many overlap";
        assert_eq!(found[0].to_string(), said);
    }

    #[test]
    fn a_finding_is_a_sentence_with_both_names() {
        let rules =
            "[[rules]]\naction = \"drop\"\n[[rules]]\nname = \"web\"\nprotocol = \"tcp\"\naction = \"accept\"\n";
        let said: Vec<_> = findings(rules).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["rule \"web\" is shadowed: \"rules[0]\" before it takes all of it and does something else"]);
    }
}
