//! The firewall compared with a plain model of it, frame by frame, on random traffic.
//!
//! A few seconds' worth with the other tests. For a million packets:
//!
//! ```sh
//! NF_MODEL_PACKETS=1000000 cargo test --release -p nfs --test firewall_model -- --nocapture
//! ```
//!
//! `NF_MODEL_SEED` repeats a run, `NF_MODEL_SETTING` picks one of the configurations by its name.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "firewall_model/mod.rs"]
mod firewall_model;

use firewall_model::bytes::{Ip, describe, hex, link};
use firewall_model::generator::{Generator, host};
use firewall_model::model::{Connection, End, Expected, Key, Model};
use firewall_model::proxy::PERIOD;
use firewall_model::random::Random;
use firewall_model::setting::{Action, Cookies, Limit, Rule, Setting, Term, Timeouts};
use firewall_model::tcp::State;
use firewall_model::{MILLISECOND, Nanoseconds, SECOND, Side};
use nf_framework::testing::{Lab, Outcome, Trial, lab};
use nf_framework::{Direction, FragmentsConfig, Function, Piece, WorkerSetup};
use nfs::firewall::{Config, ConnectionFilter, ConnectionView, Firewall, Instance, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a trial's clock has to pass for everything that is over to be gone: 256 ticks, and more.
const SWEEP: Nanoseconds = 30 * MILLISECOND;

const USUAL: Timeouts = Timeouts {
    syn_sent: 120,
    syn_received: 60,
    established: 7440,
    fin_wait: 120,
    close_wait: 60,
    last_ack: 30,
    time_wait: 120,
    close: 10,
    udp: 30,
    udp_answered: 300,
    icmp: 30,
    other: 60,
    other_answered: 600,
};

const SHORT: Timeouts = Timeouts {
    syn_sent: 9,
    syn_received: 6,
    established: 60,
    fin_wait: 12,
    close_wait: 8,
    last_ack: 4,
    time_wait: 7,
    close: 3,
    udp: 5,
    udp_answered: 20,
    icmp: 5,
    other: 6,
    other_answered: 15,
};

/// Everything may begin inside, and some things outside.
fn usual() -> Setting {
    let sets = vec![
        vec![
            (host(Side::Inside, false, 1), 32),
            (host(Side::Inside, true, 0), 126),
            (host(Side::Outside, false, 4), 31),
        ],
        vec![
            (host(Side::Inside, false, 4), 30),
            (host(Side::Outside, true, 2), 127),
            (host(Side::Outside, false, 0), 30),
        ],
    ];
    let servers = Rule {
        from: Some(Side::Outside),
        destinations: vec![Term::Set(0)],
        protocols: vec![6, 17],
        destination_ports: vec![(53, 80), (8080, 8080)],
        ..Rule::new("servers", Action::Accept)
    };
    let ping = Rule { protocols: vec![1], icmp: vec![[(8, 8), (0, 0)]], ..Rule::new("ping", Action::Accept) };
    Setting {
        name: "usual",
        rules: vec![Rule { from: Some(Side::Inside), ..Rule::new("out", Action::Accept) }, servers, ping],
        sets,
        room: 8192,
        rejects: false,
        per_source: None,
        mid_stream: false,
        all_checksums: false,
        rejudge: false,
        rfc4890: true,
        drop_fragments: false,
        drop_arp: false,
        ether_types: Vec::new(),
        llc: false,
        timeouts: USUAL,
        reloads: false,
    }
}

/// The configurations, and by how many workers each is run.
fn settings(seed: u64) -> Vec<(Setting, &'static [u16])> {
    let mut random = Generator::new(seed ^ 0x5e77);
    let limited = |mut rules: Vec<Rule>, random: &mut Generator| {
        for rule in rules.iter_mut().filter(|rule| rule.action == Action::Accept) {
            rule.limit = random.limit();
            rule.limit.embryonic = rule.limit.embryonic.filter(|_| rule.may_be_tcp());
            if rule.related {
                let connections = rule.limit.connections.or(Some(3));
                rule.limit = Limit { connections, packets: None, embryonic: None, ..rule.limit };
            }
        }
        rules
    };
    let with_embryonic = |mut rules: Vec<Rule>| {
        rules.iter_mut().for_each(|rule| rule.limit.embryonic = (!rule.related && rule.may_be_tcp()).then_some(20));
        rules
    };
    let with_few_embryonic = |mut rules: Vec<Rule>| {
        rules.iter_mut().for_each(|rule| rule.limit.embryonic = (!rule.related && rule.may_be_tcp()).then_some(6));
        rules
    };
    let with_cookies = |mut rules: Vec<Rule>, cookies| {
        rules.iter_mut().filter(|rule| rule.takes_cookies()).for_each(|rule| rule.cookies = cookies);
        rules
    };
    let usual = usual();
    let with_some = |rules: Vec<Rule>| [rules, usual.rules.clone()].concat();
    vec![
        (usual.clone(), &[1, 2]),
        (Setting { name: "short", timeouts: SHORT, all_checksums: true, ..usual.clone() }, &[1, 2]),
        (Setting { name: "many rules", rules: random.rules(60, "r"), timeouts: SHORT, ..usual.clone() }, &[1, 2]),
        (
            Setting {
                name: "rejecting",
                rules: with_some(random.rules(6, "r")),
                rejects: true,
                rfc4890: false,
                drop_arp: true,
                ether_types: vec![0x88cc],
                llc: true,
                ..usual.clone()
            },
            &[1, 2],
        ),
        (Setting { name: "loose", mid_stream: true, all_checksums: true, timeouts: SHORT, ..usual.clone() }, &[1, 2]),
        (Setting { name: "without fragments", drop_fragments: true, ..usual.clone() }, &[1, 2]),
        (
            Setting {
                name: "reloading",
                rules: random.rules(20, "r"),
                reloads: true,
                timeouts: SHORT,
                rejudge: true,
                ..usual.clone()
            },
            &[1, 2],
        ),
        (
            Setting {
                name: "cookies",
                // Some go without.
                rules: [
                    vec![Rule {
                        from: Some(Side::Inside),
                        protocols: vec![6],
                        destination_ports: vec![(53, 53)],
                        ..Rule::new("plain", Action::Accept)
                    }],
                    with_cookies(usual.rules.clone(), Cookies::Always),
                ]
                .concat(),
                timeouts: SHORT,
                ..usual.clone()
            },
            &[1, 2],
        ),
        (
            Setting {
                name: "cookies, reloading",
                rules: with_cookies(with_some(random.rules(10, "r")), Cookies::Always),
                reloads: true,
                rejudge: true,
                all_checksums: true,
                ..usual.clone()
            },
            &[1, 2],
        ),
        (
            Setting {
                name: "cookies under attack",
                rules: with_cookies(with_few_embryonic(usual.rules.clone()), Cookies::UnderAttack),
                per_source: Some(30),
                mid_stream: true,
                timeouts: SHORT,
                ..usual.clone()
            },
            &[1],
        ),
        // Of several workers each has a share, and nobody outside knows whose a flow is.
        (
            Setting {
                name: "limits",
                rules: limited(with_some(random.rules(10, "r")), &mut random),
                per_source: Some(3),
                timeouts: SHORT,
                ..usual.clone()
            },
            &[1],
        ),
        // What is let go for something else has to be asked for, which can be of one worker alone.
        (
            Setting {
                name: "full tables",
                rules: with_some(random.rules(4, "r")),
                room: 64,
                reloads: true,
                // What is answered stays, until nothing else has room.
                timeouts: Timeouts { udp_answered: 15_000, icmp: 15_000, other_answered: 15_000, ..USUAL },
                ..usual.clone()
            },
            &[1],
        ),
        (
            Setting {
                name: "full tables and limits",
                rules: with_embryonic(usual.rules.clone()),
                room: 64,
                per_source: Some(30),
                mid_stream: true,
                ..usual.clone()
            },
            &[1],
        ),
    ]
}

/// A connection: protocol, its ends, whether it began inside, its state, its rule, and whether
/// it began by a SYN cookie.
type Listed = (u8, End, End, bool, String, Option<String>, bool);

/// One run of one configuration.
struct Run {
    workers: u16,
    seed: u64,
    trial: Trial,
    policy: Policy,
    model: Model,
    generator: Generator,
    /// Its numbers decide about time alone.
    random: Random,
    held: i64,
    step: u64,
    packets: u64,
    drops: BTreeMap<String, u64>,
    left: u64,
}

fn direction(side: Side) -> Direction {
    if side == Side::Inside { Direction::Outbound } else { Direction::Inbound }
}

fn config(setting: &Setting) -> Config {
    let text = setting.toml();
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

impl Run {
    fn new(lab: &Lab<'_>, setting: Setting, workers: u16, seed: u64) -> Self {
        let policy = || Firewall.policy(config(&setting)).unwrap_or_else(|invalid| panic!("{invalid:?}"));
        let built = Arc::new(policy());
        Firewall.build(&built, &lab.pool.memory()).unwrap();
        let chain = |worker: &mut WorkerSetup| Firewall.instance(Arc::clone(&built), worker).unwrap().into();
        let trial = match workers {
            1 => lab.trial(chain),
            _ => lab.trial_at_wrong_workers(workers, Firewall.affinity(&built), chain),
        };
        let mut trial = trial.with_fragments(FragmentsConfig::default());
        trial.advance(Duration::ZERO);
        Self {
            workers,
            seed,
            trial,
            policy: policy(),
            model: Model::new(setting),
            generator: Generator::new(seed),
            random: Random::new(!seed),
            held: 0,
            step: 0,
            packets: 0,
            drops: BTreeMap::new(),
            left: 0,
        }
    }

    fn step(&mut self) {
        self.step += 1;
        let wait = match self.random.below(1000) {
            _ if self.model.fragments.open() > 30 => Some(3 * SECOND),
            _ if self.model.connections.len() > 2000 => Some(8000 * SECOND),
            0..600 => None,
            // Long enough for tables to fill.
            850..1000 if self.model.setting.is_small() => match self.random.below(3000) {
                0 => Some(self.random.below(20_000 * SECOND)),
                1..10 => Some(self.random.below(20 * SECOND)),
                _ => Some(self.random.below(SECOND / 2)),
            },
            600..850 => Some(self.random.below(MILLISECOND)),
            850..970 => Some(self.random.below(2 * SECOND)),
            970..990 => Some(self.random.below(20 * SECOND)),
            990..999 => Some(self.random.below(400 * SECOND)),
            _ => Some(self.random.below(10_000 * SECOND)),
        };
        if let Some(wait) = wait {
            self.wait(wait);
        }
        if self.random.below(if self.model.draining { 20 } else { 1000 }) == 0 {
            self.model.draining = !self.model.draining;
            self.trial.set_draining(self.model.draining);
        }
        if self.model.setting.reloads && self.random.below(60) == 0 {
            self.reload();
        }
        let (side, mut frames) = self.generator.burst(&self.model);
        if self.workers > 1 {
            // A trial has them arrive anywhere, and not where devices have the other fragments of theirs.
            frames.retain(|frame| fragment(frame).is_none_or(|ip| ip.transport_can_be()));
        }
        if self.model.setting.is_small() {
            // Lists of connections do not tell VLANs apart.
            frames.retain(|frame| link(frame).is_none_or(|link| link.tags.is_empty()));
        }
        // Fragments wait at the worker that they arrive at, while others go on to theirs.
        let apart =
            self.workers > 1 && frames.iter().any(|frame| fragment(frame).is_some()) || self.model.setting.is_small();
        for frames in frames.chunks(if apart { 1 } else { 64 }) {
            self.send(side, frames);
        }
    }

    /// Other rules, under the names of those before.
    fn reload(&mut self) {
        let mut rules = self.generator.rules(20, "r");
        if self.model.setting.name.starts_with("cookies") {
            rules.extend(usual().rules);
            for rule in rules.iter_mut().filter(|rule| rule.takes_cookies()) {
                rule.cookies = if self.random.percent(70) { Cookies::Always } else { Cookies::Never };
            }
        }
        let setting = Setting { rules, rejudge: self.random.percent(70), ..self.model.setting.clone() };
        let policy =
            || Firewall.replace(config(&setting), &self.policy).unwrap_or_else(|invalid| panic!("{invalid:?}"));
        let (for_workers, next) = (policy(), policy());
        self.policy = next;
        self.trial.publish(0, &Firewall, for_workers);
        self.model.reload(setting);
    }

    /// So much time passes, or a little more: never does it stop where something is just over.
    fn wait(&mut self, time: Nanoseconds) {
        let from = self.model.now;
        let mut to = from + time;
        let mut deadlines: Vec<Nanoseconds> = self.model.deadlines().collect();
        deadlines.sort_unstable();
        loop {
            let before = to;
            for deadline in &deadlines {
                if *deadline <= to + 4 * MILLISECOND {
                    to = to.max(deadline + SWEEP);
                }
            }
            // Nor where cookies are about to be too old.
            let turn = (to + 4 * MILLISECOND) / PERIOD * PERIOD;
            to = to.max(turn + SWEEP);
            if to == before {
                break;
            }
        }
        let outcome = self.trial.advance(Duration::from_nanos(to - from));
        let expected = self.model.advance(to);
        self.compare(Side::Inside, &[], expected, &outcome);
        self.compare_connections();
    }

    /// Has the firewall the connections that the model has? Of several workers only their number is known.
    fn compare_connections(&mut self) {
        let sessions: u64 = self.trial.report().functions.iter().map(|function| function.sessions).sum();
        let Self { workers, seed, step, model, .. } = self;
        let name = model.setting.name;
        let place = format!("{name:?} with {workers} worker(s), seed {seed}, step {step}");
        assert_eq!(sessions, model.connections.len() as u64, "{place}: connections");
        if self.workers > 1 {
            return;
        }
        let mut found = self.listed();
        let mut expected: Vec<_> = self
            .model
            .connections
            .values()
            .map(|of| {
                let state = match of.tcp.map(|tcp| tcp.state) {
                    _ if of.is_waiting() => "SYN_PROXY",
                    Some(state) => state_name(state),
                    None if of.answered => "ANSWERED",
                    None => "UNANSWERED",
                };
                let inside = of.side == Side::Inside;
                (of.protocol, of.source, of.destination, inside, state.to_owned(), of.rule.clone(), of.proxy.is_some())
            })
            .collect();
        found.sort();
        expected.sort();
        let missing: Vec<_> = expected.iter().filter(|of| !found.contains(of)).collect();
        let unexpected: Vec<_> = found.iter().filter(|of| !expected.contains(of)).collect();
        assert_eq!((missing, unexpected), (Vec::new(), Vec::new()), "{place}: missing, unexpected");
    }

    /// What the firewall says of its connections.
    fn listed(&mut self) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let all = ConnectionFilter::default();
            let Piece { items, next: further } =
                self.trial.command(0, |firewall: &mut Instance, _| firewall.list(&all, from));
            found.extend(items.into_iter().map(|(_, connection)| connection));
            next = further;
        }
        let listed = |of: ConnectionView| {
            let inside = of.direction == Direction::Outbound;
            (of.protocol.0, of.source, of.destination, inside, of.state.to_owned(), of.rule, of.proxied)
        };
        found.into_iter().map(listed).collect()
    }

    fn send(&mut self, side: Side, frames: &[Vec<u8>]) {
        self.packets += frames.len() as u64;
        let outcome = self.trial.send(direction(side), frames);
        let before = self.model.setting.is_small().then(|| self.model.connections.clone());
        self.model.told = if side == Side::Inside { &outcome.inside } else { &outcome.outside }.clone();
        self.model.full = before.is_some() && outcome.dropped.contains_key("firewall-connections-full");
        let expected = self.model.burst(side, frames);
        self.compare(side, frames, expected, &outcome);
        self.trial.check_for_leaks();
        if let Some(before) = before {
            self.make_room(&frames[0], &before);
        }
    }

    /// Has the model let go of what the firewall let go for a connection that has just begun: one at most, which is not
    /// established, and only of a table without room.
    fn make_room(&mut self, frame: &[u8], before: &BTreeMap<Key, Connection>) {
        let Self { workers, seed, step, model, .. } = self;
        let place = format!("{:?} with {workers} worker(s), seed {seed}, step {step}", model.setting.name);
        let (room, is_full) = (model.setting.room, model.full);
        let begun: Vec<bool> =
            model.connections.keys().filter(|key| !before.contains_key(*key)).map(|key| key.2.0.is_ipv6()).collect();
        let of_family = |six: bool| before.iter().filter(move |(key, _)| key.2.0.is_ipv6() == six);
        // A ping takes the place of other pings alone.
        let by_ping = packet(frame).is_some_and(|ip| matches!(ip.protocol, 1 | 58));
        let stays = |connection: &Connection| connection.is_established() || by_ping && !connection.is_ping();
        if is_full {
            let staying = |six| of_family(six).filter(|(_, connection)| stays(connection)).count();
            assert!(staying(false).max(staying(true)) >= room, "{place}: refused while there is room");
            model.count("refused for want of room");
        }
        if begun.is_empty() {
            return;
        }
        let found: BTreeSet<_> = self
            .listed()
            .into_iter()
            .map(|(protocol, source, destination, ..)| (protocol, source.min(destination), source.max(destination)))
            .collect();
        let model = &mut self.model;
        let gone: Vec<_> = model
            .connections
            .iter()
            .filter(|(key, _)| !found.contains(&(key.0, key.2, key.3)))
            .map(|(key, connection)| (*key, stays(connection)))
            .collect();
        assert!(gone.len() <= 1, "{place}: {gone:?} went for one");
        for (key, stays) in gone {
            let six = key.2.0.is_ipv6();
            assert!(!stays, "{place}: {key:?} was to stay");
            assert_eq!(begun, [six], "{place}: {key:?} went for nothing");
            assert!(of_family(six).count() >= room, "{place}: {key:?} went while there was room");
            model.connections.remove(&key);
            model.count("went for another");
        }
    }

    fn compare(&mut self, side: Side, frames: &[Vec<u8>], expected: Expected, outcome: &Outcome) {
        let Expected { mut passed, mut answers, dropped } = expected;
        let (there, here) = match side {
            Side::Inside => (&outcome.outside, &outcome.inside),
            Side::Outside => (&outcome.inside, &outcome.outside),
        };
        let (mut there, mut here) = (there.clone(), here.clone());
        self.left += there.len() as u64;
        // What the firewall says itself goes behind what passes.
        if self.workers > 1 || self.model.setting.has_cookies() {
            passed.sort();
            there.sort();
        }
        answers.sort();
        here.sort();
        let mut text = String::new();
        for (what, wanted, found) in [("that pass", &passed, &there), ("that answer", &answers, &here)] {
            if wanted != found {
                let _ = writeln!(text, "  frames {what}: {} expected, {} found", wanted.len(), found.len());
                for (title, one, other) in [("missing", wanted, found), ("unexpected", found, wanted)] {
                    for frame in one.iter().filter(|frame| !other.contains(frame)) {
                        let _ = writeln!(text, "  {title}: {}\n    {}", describe(frame), hex(frame));
                    }
                }
            }
        }
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for reason in dropped {
            *reasons.entry(reason.to_owned()).or_default() += 1;
        }
        if reasons != outcome.dropped {
            let _ = writeln!(text, "  dropped {:?}, expected {reasons:?}", outcome.dropped);
        }
        for (reason, count) in &outcome.dropped {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
        self.held += outcome.held;
        let held = i64::try_from(self.model.fragments.held()).unwrap();
        if self.held != held {
            let _ = writeln!(text, "  {} held, expected {held}", self.held);
        }
        if text.is_empty() {
            return;
        }
        let mut input = String::new();
        for frame in frames {
            let _ = writeln!(input, "  {}\n    {}", describe(frame), hex(frame));
        }
        let Self { workers, seed, step, packets, model, .. } = self;
        panic!(
            "{:?} with {workers} worker(s), seed {seed}, step {step}, packet {packets}, from {side:?}:\n{text}what came \
             in:\n{input}",
            model.setting.name
        );
    }

    fn report(&self, total: &mut Total) {
        let Self { workers, packets, left, step, model, .. } = self;
        println!("{:?} with {workers} worker(s): {packets} packets in, {left} out, {step} steps", model.setting.name);
        (total.packets, total.left) = (total.packets + packets, total.left + left);
        for (reason, count) in &self.drops {
            *total.drops.entry(reason.clone()).or_default() += count;
        }
        for (what, count) in &model.counts {
            *total.counts.entry(what.clone()).or_default() += count;
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::SynSent => "SYN_SENT",
        State::SynSent2 => "SYN_SENT2",
        State::SynReceived => "SYN_RECV",
        State::Established => "ESTABLISHED",
        State::FinWait => "FIN_WAIT",
        State::CloseWait => "CLOSE_WAIT",
        State::LastAck => "LAST_ACK",
        State::TimeWait => "TIME_WAIT",
        State::Close => "CLOSE",
    }
}

fn packet(frame: &[u8]) -> Option<Ip> {
    let link = link(frame).filter(|link| matches!(link.ether_type, 0x0800 | 0x86dd))?;
    Ip::read(&frame[link.start..], link.ether_type == 0x86dd).ok()
}

fn fragment(frame: &[u8]) -> Option<Ip> {
    packet(frame).filter(|ip| ip.piece.is_some())
}

/// Of all runs.
#[derive(Debug, Default)]
struct Total {
    packets: u64,
    left: u64,
    drops: BTreeMap<String, u64>,
    counts: BTreeMap<String, u64>,
}

impl Total {
    fn print(&self) {
        println!("{} packets in, {} out\ndropped {:?}\n{:?}", self.packets, self.left, self.drops, self.counts);
    }

    /// Looks whether the traffic was worth the name.
    fn check(&self) {
        if self.packets < 500_000 {
            return;
        }
        for reason in [
            "draining",
            "firewall-address",
            "firewall-arp",
            "firewall-checksum",
            "firewall-default",
            "firewall-denied",
            "firewall-embryonic-limit",
            "firewall-ether-type",
            "firewall-fragment",
            "firewall-neighbor-discovery",
            "firewall-no-connection",
            "firewall-rate-limit",
            "firewall-rejudged",
            "firewall-side",
            "firewall-source-limit",
            "firewall-source-route",
            "firewall-syn-cookie",
            "firewall-syn-proxy",
            "firewall-tcp-flags",
            "firewall-tcp-reset",
            "firewall-tcp-state",
            "firewall-tcp-window",
            "firewall-unrelated",
            "fragment-duplicate",
            "fragment-expired",
            "fragment-headers",
            "fragment-length",
            "fragment-overlap",
            "malformed",
        ] {
            assert!(self.drops.contains_key(reason), "nothing was dropped under {reason:?}");
        }
        for what in [
            "asked the server again",
            "begun anew",
            "begun by a cookie",
            "expired",
            "ignored",
            "opened by the firewall",
            "picked up",
            "refused by the server",
            "went for another",
            "SynSent to SynSent2",
            "SynSent to SynReceived",
            "SynReceived to Established",
            "Established to FinWait",
            "FinWait to CloseWait",
            "FinWait to LastAck",
            "LastAck to TimeWait",
            "Established to Close",
        ] {
            assert!(self.counts.contains_key(what), "{what:?} never happened");
        }
    }
}

fn given<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} cannot be {text:?}")))
}

#[test]
fn the_firewall_and_a_plain_model_of_it_agree_on_every_frame() {
    let packets: u64 = given("NF_MODEL_PACKETS").unwrap_or(15_000);
    // Another one on every run: what is found is replayed by its seed.
    let of_the_day = || SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).subsec_nanos().into();
    let seed: u64 = given("NF_MODEL_SEED").unwrap_or_else(of_the_day);
    let only: Option<String> = given("NF_MODEL_SETTING");
    println!("NF_MODEL_SEED={seed} NF_MODEL_PACKETS={packets}");
    let all = only.is_none();
    let settings: Vec<_> = settings(seed)
        .into_iter()
        .filter(|(setting, _)| only.as_ref().is_none_or(|only| *only == setting.name))
        .collect();
    assert!(!settings.is_empty(), "NF_MODEL_SETTING names no configuration");
    let runs: usize = settings.iter().map(|(_, workers)| workers.len()).sum();
    let share = packets.div_ceil(runs as u64);
    lab(move |lab| {
        let mut total = Total::default();
        for (setting, workers) in settings {
            for workers in workers {
                let mut run = Run::new(lab, setting.clone(), *workers, seed);
                while run.packets < share {
                    run.step();
                }
                // All that is held goes in the end.
                run.wait(20_000 * SECOND);
                run.trial.check_for_leaks();
                run.report(&mut total);
                assert_eq!((run.held, run.model.connections.len()), (0, 0));
            }
        }
        total.print();
        if all {
            total.check();
        }
    });
}
