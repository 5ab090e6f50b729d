//! A validated configuration, prepared for the packet path: what instances work by.

use super::config::{
    Action, Config, Denial, LEAST_ENTRIES, LEAST_ETHER_TYPE, LimitConfig, RuleConfig, State, SynCookies,
};
use super::lint::{self, Finding};
use super::lint_sets;
use super::log::Log;
use super::rule::{ALL_DSCP, Conditions, Protocol, Rule};
use super::sets;
use super::timer::Timer;
use super::views::{Asked, Views};
use crate::json_log::{self, quoted};
use nf_framework::headers::IpProtocol;
use nf_framework::{AddressSet, IcmpMatch, Invalid, Memory, SetupError};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
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
    /// What slots stand for, also of rules that are gone.
    slots: Vec<SlotName>,
    /// The rules that decide.
    views: Views,
    /// Those that only write down, if there are any.
    log_views: Option<Views>,
    pub(super) log: Log,
}

/// What is said of a packet that begins a connection, or is related to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Decision {
    pub(super) action: Action,
    /// The rule's place, unless none matched.
    pub(super) rule: Option<usize>,
    /// Its slot.
    pub(super) slot: Option<u16>,
    /// The place of a rule before it that wants the packet to be written down.
    pub(super) logged_by: Option<usize>,
}

impl Policy {
    /// The first policy of a program.
    pub(super) fn new(config: Config) -> Result<Self, Invalid> {
        Self::after(config, &[], Log::default())
    }

    /// The policy that follows another one.
    pub(super) fn following(config: Config, running: &Self) -> Result<Self, Invalid> {
        let before = &running.config;
        for (key, changed) in [
            ("connections", config.connections != before.connections),
            ("connections_v6", config.connections_v6() != before.connections_v6()),
            ("sources", config.sources != before.sources),
            ("source_bits_v6", config.source_bits_v6 != before.source_bits_v6),
            ("log", config.log != before.log),
            (
                "connections_per_source",
                config.connections_per_source.is_some() != before.connections_per_source.is_some(),
            ),
        ] {
            if changed {
                return Err(Invalid::new(key, "cannot change while the program runs: restart it"));
            }
        }
        let limits = |config: &Config| config.rules.iter().position(limits_sources);
        if let (Some(index), None) = (limits(&config), limits(before)) {
            let message = "a limit for each source needs a table: the first one takes a restart";
            return Err(Invalid::new(format!("rules[{index}].limit.per_source"), message));
        }
        let cookies = |config: &Config| config.rules.iter().position(makes_cookies);
        if let (Some(index), None) = (cookies(&config), cookies(before)) {
            let message = "SYN cookies need a table: the first rule that has them takes a restart";
            return Err(Invalid::new(format!("rules[{index}].syn_cookies"), message));
        }
        Self::after(config, &running.slots, running.log.clone())
    }

    fn after(config: Config, slots: &[SlotName], log: Log) -> Result<Self, Invalid> {
        check_numbers(&config)?;
        config.log.as_ref().map_or(Ok(()), |log| json_log::check(&log.file()))?;
        let timeouts = timeouts(&config)?;
        if let Some(index) = config.ether_types.iter().position(|ether_type| *ether_type < LEAST_ETHER_TYPE) {
            let message = "Ethernet types begin at 1536: what is less is a length, and passes by llc = \"accept\"";
            return Err(Invalid::new(format!("ether_types[{index}]"), message));
        }
        let sets = sets::read(&config.sets)?;
        let mut rules = rules(&config)?;
        if config.rfc4890 {
            rules.push(rfc4890());
        }
        let slots = number(&mut rules, &config, slots)?;
        let logs = |rule: &Rule| rule.action == Action::Log;
        let views = Views::new(&rules, |rule| !logs(rule), &sets)?;
        let log_views = rules.iter().any(logs).then(|| Views::new(&rules, logs, &sets)).transpose()?;
        let policy = Self { config, rules, sets, timeouts, slots, views, log_views, log };
        for finding in policy.findings() {
            ::log::warn!("firewall: {finding}");
        }
        Ok(policy)
    }

    /// What the author of the rules should know of them; nobody has written our own.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let written = self.rules.get(..self.config.rules.len()).unwrap_or_default();
        let mut findings = lint::lint(written, &self.sets);
        findings.extend(lint_sets::lint(written, &self.sets));
        findings
    }

    /// Builds the classifiers.
    pub(super) fn build(&self, memory: &Memory) -> Result<(), SetupError> {
        self.views.build(memory, &self.sets)?;
        self.log_views.as_ref().map_or(Ok(()), |views| views.build(memory, &self.sets))
    }

    /// How many slots of rules there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The name of the rule that a slot stands for.
    pub(super) fn slot_name(&self, slot: u16) -> Option<&str> {
        self.slots.get(usize::from(slot)).map(|slot| slot.name.as_str())
    }

    /// The slot of the rule in a place.
    pub(super) fn slot_of(&self, rule: Option<usize>) -> Option<u16> {
        rule.and_then(|rule| self.rules.get(rule)).map(|rule| rule.slot)
    }

    /// The limits of rules, by slot.
    pub(super) fn limits(&self) -> impl Iterator<Item = (u16, LimitConfig)> {
        self.rules.iter().filter_map(|rule| Some((rule.slot, rule.limit?)))
    }

    /// Whether a rule limits what each source may have.
    pub(super) fn limits_sources(&self) -> bool {
        self.config.rules.iter().any(limits_sources)
    }

    /// Whether a rule may answer by SYN cookies.
    pub(super) fn makes_cookies(&self) -> bool {
        self.config.rules.iter().any(makes_cookies)
    }

    /// The name of the rule in a place, for the log.
    pub(super) fn quoted(&self, rule: Option<usize>) -> Option<Arc<str>> {
        rule.and_then(|rule| self.rules.get(rule)).map(|rule| Arc::clone(&rule.quoted))
    }

    /// Decides about many packets; `decisions` beside them is written as far as both go.
    pub(super) fn decide(&self, asked: &[Asked], decisions: &mut [Decision]) {
        self.views.classify(asked, |place, rule| {
            if let (Some(decision), Some(asked)) = (decisions.get_mut(place), asked.get(place)) {
                *decision = self.decision(asked.state, rule);
            }
        });
        let Some(views) = &self.log_views else { return };
        views.classify(asked, |place, rule| {
            if let Some(decision) = decisions.get_mut(place) {
                decision.logged_by = rule.filter(|rule| decision.rule.is_none_or(|decides| *rule < decides));
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

    fn decision(&self, state: State, place: Option<usize>) -> Decision {
        let rule = place.and_then(|place| self.rules.get(place));
        let action = rule.map_or_else(|| self.unless_matched(state), |rule| rule.action);
        Decision { action, rule: place, slot: rule.map(|rule| rule.slot), logged_by: None }
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
        [("connections", config.connections), ("connections_v6", config.connections_v6()), ("sources", config.sources)]
    {
        if !(LEAST_ENTRIES..=1 << 28).contains(&value) {
            return Err(Invalid::new(key, format!("{value} is not from {LEAST_ENTRIES} to {}", 1 << 28)));
        }
    }
    if config.connections_per_source == Some(0) {
        let message = "0 would let nobody through: leave it out for no limit";
        return Err(Invalid::new("connections_per_source", message));
    }
    if !(536..=9216).contains(&config.syn_cookies_mss) {
        return Err(Invalid::new("syn_cookies_mss", format!("{} is not from 536 to 9216", config.syn_cookies_mss)));
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
        let fault = match name.as_str() {
            "" => Some("a name is not empty: give it one, or leave it out".to_owned()),
            RFC4890 => Some(format!("{RFC4890:?} is the name of our own rule for ICMPv6: choose another")),
            _ if !names.insert(name.clone()) => Some(format!("{name:?} is the name of another rule: choose another")),
            _ => None,
        };
        if let Some(message) = fault {
            return Err(Invalid::new(format!("{key}.name"), message));
        }
        check_sets(config, rule, &key)?;
        let conditions = Conditions::new(rule, &key)?;
        check_limit(rule, &key)?;
        check_cookies(rule, &conditions, &key)?;
        if rule.action == Action::Log && config.log.is_none() {
            let message = "there is no log: give it a file in [firewall.log]";
            return Err(Invalid::new(format!("{key}.action"), message));
        }
        rules.push(Rule {
            quoted: quoted(&name).into(),
            name,
            comment: rule.comment.clone(),
            slot: 0,
            conditions,
            action: rule.action,
            limit: rule.limit,
            syn_cookies: rule.syn_cookies,
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
        (".embryonic", limit.embryonic),
    ] {
        if value == Some(0) {
            return invalid(field, "0 would let nothing through: write action = \"drop\" instead");
        }
    }
    if limit.embryonic.is_some() && rule.state == State::Related {
        return invalid(".embryonic", "what is related begins no connection");
    }
    match (limit.connections_per_second, limit.packets_per_second) {
        (None, None) if limit.per_source => {
            invalid(".per_source", "what each source may have is connections_per_second, packets_per_second or both")
        }
        (None, None) if limit.embryonic.is_none() => {
            invalid("", "a limit is of connections_per_second, packets_per_second or embryonic")
        }
        (_, Some(_)) if rule.state == State::Related => {
            invalid(".packets_per_second", "what is related is limited by connections_per_second")
        }
        _ => Ok(()),
    }
}

fn check_cookies(rule: &RuleConfig, conditions: &Conditions, key: &str) -> Result<(), Invalid> {
    let is_tcp = |protocol: &Protocol| protocol.number == IpProtocol::TCP;
    let begins = rule.action == Action::Accept && rule.state == State::New;
    let may_be_tcp = conditions.protocols.is_empty() || conditions.protocols.iter().any(is_tcp);
    let has_limit = rule.limit.is_some_and(|limit| limit.embryonic.is_some());
    let message = match rule.syn_cookies {
        SynCookies::Never => return Ok(()),
        _ if !begins || !may_be_tcp => "only what begins a TCP connection is answered by SYN cookies",
        SynCookies::UnderAttack if !has_limit => {
            "an attack is known by limit = { embryonic = N }: give it, or write \"always\""
        }
        SynCookies::UnderAttack | SynCookies::Always => return Ok(()),
    };
    Err(Invalid::new(format!("{key}.syn_cookies"), message))
}

fn makes_cookies(rule: &RuleConfig) -> bool {
    rule.syn_cookies != SynCookies::Never
}

fn limits_sources(rule: &RuleConfig) -> bool {
    rule.limit.is_some_and(|limit| limit.per_source)
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
        vlans: Vec::new(),
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
    Rule {
        name: RFC4890.to_owned(),
        quoted: quoted(RFC4890).into(),
        comment,
        slot: 0,
        conditions,
        action: Action::Accept,
        limit: None,
        syn_cookies: SynCookies::Never,
    }
}

/// Gives each rule the slot that it had before, or one more; returns what stands for which by slot.
fn number(rules: &mut [Rule], config: &Config, before: &[SlotName]) -> Result<Vec<SlotName>, Invalid> {
    let mut slots = before.to_vec();
    // After so many reloads with other names, those that are gone make room: connections of theirs are then listed
    // under a wrong name.
    if slots.len() + rules.len() > MOST_SLOTS {
        slots.clear();
    }
    // Of one identity the slots of those before come first.
    let mut known: HashMap<Identity, VecDeque<usize>> = HashMap::new();
    for (slot, of) in slots.iter().enumerate() {
        known.entry(of.identity.clone()).or_default().push_back(slot);
    }
    for (index, rule) in rules.iter_mut().enumerate() {
        let identity = Identity::new(rule, config.rules.get(index));
        let slot = known.get_mut(&identity).and_then(VecDeque::pop_front).unwrap_or(slots.len());
        let of = SlotName { name: rule.name.clone(), identity };
        match slots.get_mut(slot) {
            // One without a name may have another place.
            Some(before) => *before = of,
            None => slots.push(of),
        }
        let many = || Invalid::new("rules", format!("more than {MOST_SLOTS} rules"));
        rule.slot = u16::try_from(slot).map_err(|_| many())?;
    }
    Ok(slots)
}

/// What a slot stands for.
#[derive(Clone, Debug)]
struct SlotName {
    /// For people.
    name: String,
    identity: Identity,
}

/// By what a rule is known again after a reload: by its name, or without one by all that it says, as others may come before
/// it. Of several that say the same the order counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Identity {
    Name(String),
    Text(u64),
}

impl Identity {
    fn new(rule: &Rule, config: Option<&RuleConfig>) -> Self {
        match config.filter(|config| config.name.is_none()) {
            Some(config) => {
                let mut hasher = DefaultHasher::new();
                format!("{config:?}").hash(&mut hasher);
                Self::Text(hasher.finish())
            }
            None => Self::Name(rule.name.clone()),
        }
    }
}
