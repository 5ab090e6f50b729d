//! A validated configuration, prepared for the packet path: what instances work by.

use super::config::{Action, Config, Denial, LimitConfig, RuleConfig, State, SynCookies};
use super::lint::{self, Finding, Subject};
use super::lint_sets;
use super::log::Log;
use super::never;
use super::rule::{ALL_DSCP, Conditions, Protocol, Rule};
use super::sense;
use super::sets;
use super::slots::Slots;
use super::timer::Timer;
use super::views::{Asked, Views};
use crate::json_log::{self, quoted};
use nf_framework::headers::IpProtocol;
use nf_framework::{AddressSet, IcmpMatch, Invalid, Memory, SetupError};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Deadlines reach about so far: see [`FlowTable`](nf_framework::FlowTable).
const LONGEST_TIMEOUT: u32 = 1_000_000;
/// Rules as they are written; a classifier may have more, as a rule with lists is several there.
const MOST_RULES: usize = 1 << 14;

/// What instances work by.
#[derive(Debug)]
pub struct Policy {
    pub(super) config: Config,
    /// In the order in which they are asked: those of the configuration, and behind them our own.
    pub(super) rules: Vec<Rule>,
    pub(super) sets: Vec<AddressSet>,
    pub(super) timeouts: [Duration; Timer::COUNT],
    slots: Slots,
    tables: Tables,
    /// The rules that decide.
    views: Views,
    /// Those that only write down, if there are any.
    log_views: Option<Views>,
    pub(super) log: Log,
}

/// What workers have tables for beside connections since they started, whatever rules have come since.
#[derive(Clone, Copy, Debug)]
struct Tables {
    /// For limits of each source.
    sources: bool,
    /// For SYN cookies.
    cookies: bool,
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
        let has = |of: fn(&RuleConfig) -> bool| config.rules.iter().any(of);
        let tables = Tables { sources: has(limits_sources), cookies: has(makes_cookies) };
        Self::after(config, &Slots::default(), tables, Log::default())
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
        let first = |of: fn(&RuleConfig) -> bool| config.rules.iter().position(of);
        let tables = running.tables;
        if let Some(index) = first(limits_sources).filter(|_| !tables.sources) {
            let message = "a limit for each source needs a table: the first one takes a restart";
            return Err(Invalid::new(format!("rules[{index}].limit.per_source"), message));
        }
        if let Some(index) = first(makes_cookies).filter(|_| !tables.cookies) {
            let message = "SYN cookies need a table: the first rule that has them takes a restart";
            return Err(Invalid::new(format!("rules[{index}].syn_cookies"), message));
        }
        Self::after(config, &running.slots, tables, running.log.clone())
    }

    /// The policy that follows one with these slots, tables and log.
    fn after(config: Config, slots: &Slots, tables: Tables, log: Log) -> Result<Self, Invalid> {
        sense::check(&config)?;
        config.log.as_ref().map_or(Ok(()), |log| json_log::check(&log.file()))?;
        let timeouts = timeouts(&config)?;
        let sets = sets::read(&config.sets)?;
        let mut rules = rules(&config)?;
        never::check(&rules, &config, &sets)?;
        if config.rfc4890 {
            rules.push(rfc4890());
        }
        let slots = slots.followed_by(&mut rules, &config)?;
        let logs = |rule: &Rule| rule.action == Action::Log;
        let views = Views::new(&rules, |rule| !logs(rule), &sets)?;
        let log_views = rules.iter().any(logs).then(|| Views::new(&rules, logs, &sets)).transpose()?;
        Ok(Self { config, rules, sets, timeouts, slots, tables, views, log_views, log })
    }

    /// What the author of the rules should know of them, each with its key.
    pub(super) fn lint(&self) -> Vec<nf_framework::Finding> {
        let places: HashMap<&str, usize> = self.rules.iter().map(|rule| rule.name.as_str()).zip(0..).collect();
        let key = |finding: &Finding| match finding.subject() {
            Subject::Set(set) => format!("sets.{set}"),
            Subject::Rule(rule) => places.get(rule).map_or_else(String::new, |place| format!("rules[{place}]")),
        };
        let keyed = |finding: Finding| nf_framework::Finding::new(key(&finding), finding.to_string());
        self.findings().into_iter().map(keyed).collect()
    }

    /// The same without keys; nobody has written our own rules.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let written = self.rules.get(..self.config.rules.len()).unwrap_or_default();
        let mut findings = lint::lint(written, &self.sets);
        findings.extend(lint_sets::lint(written, &self.sets));
        findings.extend(never::lint(written, &self.sets));
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

    /// The slots that stand for another rule than in a policy before.
    pub(super) fn slots_reused_since(&self, before: &Self) -> impl Iterator<Item = usize> {
        self.slots.reused_since(&before.slots)
    }

    /// The name of the rule that a slot stands for.
    pub(super) fn slot_name(&self, slot: u16) -> Option<&str> {
        self.slots.name(slot)
    }

    /// The slot of the rule in a place.
    pub(super) fn slot_of(&self, rule: Option<usize>) -> Option<u16> {
        rule.and_then(|rule| self.rules.get(rule)).map(|rule| rule.slot)
    }

    /// The limits of rules, if they have any, by slot.
    pub(super) fn limits(&self) -> impl Iterator<Item = (u16, Option<LimitConfig>)> {
        self.rules.iter().map(|rule| (rule.slot, rule.limit))
    }

    /// Whether a rule limits what each source may have, or one did when the program started.
    pub(super) fn limits_sources(&self) -> bool {
        self.tables.sources
    }

    /// Whether a rule may answer by SYN cookies, or one might when the program started.
    pub(super) fn makes_cookies(&self) -> bool {
        self.tables.cookies
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

    /// A first policy whose rules, with those that have been, have room for so many slots.
    #[cfg(test)]
    pub(super) fn with_slots(config: Config, most: usize) -> Result<Self, Invalid> {
        let tables = Tables { sources: false, cookies: false };
        Self::after(config, &Slots::of_at_most(most), tables, Log::default())
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
        sense::check_rule(config, rule, &key)?;
        let conditions = Conditions::new(rule, &key)?;
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
