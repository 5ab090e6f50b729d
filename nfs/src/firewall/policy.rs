//! A validated configuration, prepared for the packet path: what instances work by.

use super::config::{Action, Config, Denial, LimitConfig, RuleConfig, State};
use super::lint;
use super::rule::{ALL_DSCP, Conditions, Protocol, Rule};
use super::sets;
use super::timer::Timer;
use super::views::{Asked, Views};
use nf_framework::headers::IpProtocol;
use nf_framework::{AddressSet, IcmpMatch, Invalid, Memory, SetupError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Deadlines reach about so far: see [`FlowTable`](nf_framework::FlowTable).
const LONGEST_TIMEOUT: u32 = 1_000_000;
/// Rules as they are written; a classifier may have more, as a rule with lists is several there.
const MOST_RULES: usize = 1 << 14;
/// Slots are numbered in 16 bits, and one stands for none.
const MOST_SLOTS: usize = u16::MAX as usize;

/// What instances work by.
#[derive(Debug)]
pub struct Policy {
    pub(super) config: Config,
    /// In the order in which they are asked: those of the configuration, and behind them our own.
    pub(super) rules: Vec<Rule>,
    pub(super) sets: Vec<AddressSet>,
    pub(super) timeouts: [Duration; Timer::COUNT],
    /// Names that slots stand for, also of rules that are gone.
    slots: Vec<String>,
    views: Views,
}

/// What is said of a packet that begins a connection, or is related to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    pub(super) action: Action,
    /// The slot of the rule, unless none matched.
    pub(super) slot: Option<u16>,
}

impl Policy {
    /// The first policy of a program.
    pub(super) fn new(config: Config) -> Result<Self, Invalid> {
        Self::after(config, &[])
    }

    /// The policy that follows another one.
    pub(super) fn following(config: Config, running: &Self) -> Result<Self, Invalid> {
        let before = &running.config;
        for (key, changed) in [
            ("connections", config.connections != before.connections),
            ("connections_v6", config.connections_v6 != before.connections_v6),
            ("sources", config.sources != before.sources),
            ("source_bits_v6", config.source_bits_v6 != before.source_bits_v6),
            (
                "connections_per_source",
                config.connections_per_source.is_some() != before.connections_per_source.is_some(),
            ),
        ] {
            if changed {
                return Err(Invalid::new(key, "cannot change while the program runs: restart it"));
            }
        }
        Self::after(config, &running.slots)
    }

    fn after(config: Config, slots: &[String]) -> Result<Self, Invalid> {
        check_numbers(&config)?;
        let timeouts = timeouts(&config)?;
        if let Some(index) = config.ether_types.iter().position(|ether_type| *ether_type < 0x600) {
            let message = "Ethernet types begin at 1536: what is less is a length";
            return Err(Invalid::new(format!("ether_types[{index}]"), message));
        }
        let sets = sets::read(&config.sets)?;
        let mut rules = rules(&config)?;
        if config.rfc4890 {
            rules.push(rfc4890());
        }
        let slots = number(&mut rules, slots)?;
        let views = Views::new(&rules, &sets)?;
        for finding in lint::lint(&rules, &sets) {
            log::warn!("firewall: {finding}");
        }
        Ok(Self { config, rules, sets, timeouts, slots, views })
    }

    /// Builds the classifiers.
    pub(super) fn build(&self, memory: &Memory) -> Result<(), SetupError> {
        self.views.build(memory, &self.sets)
    }

    /// How many slots of rules there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The name of the rule that a slot stands for.
    pub(super) fn slot_name(&self, slot: u16) -> Option<&str> {
        self.slots.get(usize::from(slot)).map(String::as_str)
    }

    /// The limits of rules, by slot.
    pub(super) fn limits(&self) -> impl Iterator<Item = (u16, LimitConfig)> {
        self.rules.iter().filter_map(|rule| Some((rule.slot, rule.limit?)))
    }

    /// Decides about many packets; `decisions` beside them is written as far as both go.
    pub(super) fn decide(&self, asked: &[Asked], decisions: &mut [Decision]) {
        self.views.classify(asked, |place, rule| {
            if let (Some(decision), Some(asked)) = (decisions.get_mut(place), asked.get(place)) {
                *decision = self.decision(asked.state, rule);
            }
        });
    }

    /// Decides about one packet.
    pub(super) fn decide_one(&self, asked: &Asked) -> Decision {
        let mut decision = [self.decision(asked.state, None)];
        self.decide(std::slice::from_ref(asked), &mut decision);
        let [decision] = decision;
        decision
    }

    fn decision(&self, state: State, rule: Option<usize>) -> Decision {
        match rule.and_then(|rule| self.rules.get(rule)) {
            Some(rule) => Decision { action: rule.action, slot: Some(rule.slot) },
            None => Decision { action: self.unless_matched(state), slot: None },
        }
    }

    /// What becomes of a packet that no rule matches.
    pub(super) fn unless_matched(&self, state: State) -> Action {
        match (state, self.config.default) {
            (State::Related, _) => Action::Accept,
            (State::New, Denial::Drop) => Action::Drop,
            (State::New, Denial::Reject) => Action::Reject,
        }
    }
}

fn check_numbers(config: &Config) -> Result<(), Invalid> {
    for (key, value) in
        [("connections", config.connections), ("connections_v6", config.connections_v6), ("sources", config.sources)]
    {
        if !(64..=1 << 28).contains(&value) {
            return Err(Invalid::new(key, format!("{value} is not from 64 to {}", 1 << 28)));
        }
    }
    if config.connections_per_source == Some(0) {
        let message = "0 would let nobody through: leave it out for no limit";
        return Err(Invalid::new("connections_per_source", message));
    }
    if !(16..=128).contains(&config.source_bits_v6) {
        return Err(Invalid::new("source_bits_v6", format!("{} is not from 16 to 128", config.source_bits_v6)));
    }
    Ok(())
}

fn timeouts(config: &Config) -> Result<[Duration; Timer::COUNT], Invalid> {
    let mut timeouts = [Duration::ZERO; Timer::COUNT];
    for ((key, seconds), timeout) in Timer::keys(&config.timeouts).into_iter().zip(&mut timeouts) {
        if !(1..=LONGEST_TIMEOUT).contains(&seconds) {
            let message = format!("{seconds} seconds are not from 1 to {LONGEST_TIMEOUT}");
            return Err(Invalid::new(format!("timeouts.{key}"), message));
        }
        *timeout = Duration::from_secs(seconds.into());
    }
    Ok(timeouts)
}

/// The rules of the configuration.
fn rules(config: &Config) -> Result<Vec<Rule>, Invalid> {
    if config.rules.len() > MOST_RULES {
        let message = format!("{} rules are more than {MOST_RULES}", config.rules.len());
        return Err(Invalid::new("rules", message));
    }
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for (index, rule) in config.rules.iter().enumerate() {
        let key = format!("rules[{index}]");
        let name = rule.name.clone().unwrap_or_else(|| key.clone());
        if name.is_empty() || name == RFC4890 || !names.insert(name.clone()) {
            let message = format!("{name:?} is the name of another rule, or none: a name stands for one rule");
            return Err(Invalid::new(format!("{key}.name"), message));
        }
        check_sets(config, rule, &key)?;
        let conditions = Conditions::new(rule, &key)?;
        check_limit(rule, &key)?;
        rules.push(Rule {
            name,
            comment: rule.comment.clone(),
            slot: 0,
            conditions,
            action: rule.action,
            limit: rule.limit,
        });
    }
    Ok(rules)
}

fn check_sets(config: &Config, rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    for (field, list) in [("source", &rule.source), ("destination", &rule.destination)] {
        for term in &list.0 {
            if let super::terms::AddressTerm::Set(name) = term
                && !config.sets.contains_key(name)
            {
                let known: Vec<_> = config.sets.keys().map(String::as_str).collect();
                let message = format!("there is no set {name:?} (known: {})", known.join(", "));
                return Err(Invalid::new(format!("{key}.{field}"), message));
            }
        }
    }
    Ok(())
}

fn check_limit(rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    let Some(limit) = rule.limit else { return Ok(()) };
    let invalid = |field: &str, message: &str| Err(Invalid::new(format!("{key}.limit{field}"), message));
    if rule.action != Action::Accept {
        return invalid("", "only what is accepted can be limited");
    }
    for (field, value) in [
        (".connections_per_second", limit.connections_per_second),
        (".packets_per_second", limit.packets_per_second),
        (".burst", limit.burst),
    ] {
        if value == Some(0) {
            return invalid(field, "0 would let nothing through: write action = \"drop\" instead");
        }
    }
    match (limit.connections_per_second, limit.packets_per_second) {
        (None, None) => invalid("", "a limit is of connections_per_second, packets_per_second or both"),
        (_, Some(_)) if rule.state == State::Related => {
            invalid(".packets_per_second", "what is related is limited by connections_per_second")
        }
        _ => Ok(()),
    }
}

const RFC4890: &str = "rfc4890";

/// ICMPv6 in transit, RFC 4890 section 4.3: echo requests pass (4.3.1), and what mobile nodes ask of their home
/// (4.3.2). Errors pass as related to a connection, whatever rules there are; Neighbor Discovery is not in transit.
fn rfc4890() -> Rule {
    let types = |types| IcmpMatch { types, codes: 0..=255 };
    let icmpv6 = Protocol { number: IpProtocol::ICMPV6, icmp: vec![types(128..=128), types(144..=147)] };
    let conditions = Conditions {
        state: State::New,
        direction: None,
        sources: Vec::new(),
        destinations: Vec::new(),
        protocols: vec![icmpv6],
        source_ports: Vec::new(),
        destination_ports: Vec::new(),
        flags: None,
        dscp: ALL_DSCP,
        fragment: None,
    };
    let comment = "ICMPv6 that RFC 4890 section 4.3 wants to pass".to_owned();
    Rule { name: RFC4890.to_owned(), comment, slot: 0, conditions, action: Action::Accept, limit: None }
}

/// Gives each rule the slot that its name had before, or one more; returns the names by slot.
fn number(rules: &mut [Rule], before: &[String]) -> Result<Vec<String>, Invalid> {
    let mut slots = before.to_vec();
    // After so many reloads with other names, those that are gone make room: connections of theirs are then listed
    // under a wrong name.
    if slots.len() + rules.len() > MOST_SLOTS {
        slots.clear();
    }
    let mut known: BTreeMap<String, usize> = slots.iter().cloned().zip(0..).collect();
    for rule in rules {
        let slot = *known.entry(rule.name.clone()).or_insert_with(|| {
            slots.push(rule.name.clone());
            slots.len() - 1
        });
        let many = || Invalid::new("rules", format!("more than {MOST_SLOTS} rules"));
        rule.slot = u16::try_from(slot).map_err(|_| many())?;
    }
    Ok(slots)
}
