//! The NAT compared with a plain model of it, frame by frame, on random traffic.
//!
//! A few seconds' worth with the other tests. For a million packets:
//!
//! ```sh
//! NF_MODEL_PACKETS=1000000 cargo test --release -p nfs --test nat_model -- --nocapture
//! ```
//!
//! `NF_MODEL_SEED` repeats a run, `NF_MODEL_SETTING` picks one of the configurations by its name. The NAT's
//! own random numbers are others each time: what hangs on a certain port may need a few runs to come again.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "nat_model/mod.rs"]
mod nat_model;

use nat_model::bytes::{describe, hex};
use nat_model::generator::Generator;
use nat_model::model::Model;
use nat_model::random::Random;
use nat_model::seen::Seen;
use nat_model::setting::{Filtering, Forward, Pool, Setting, Timeouts};
use nat_model::world::{CONFIGURATION, Expected, NEXT, NEXT_V4, OWN, ROUTER, World, tally};
use nat_model::{MILLISECOND, Nanoseconds, SECOND, Side};
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Affinity, Chain, Direction, FragmentsConfig, Function, Piece, WorkerSetup};
use nfs::nat::{Config, Instance, Nat, Protocol, SessionFilter};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{env, mem};

/// What a trial's clock has to pass for everything that is over to be gone: 256 ticks.
const SWEEP: Nanoseconds = 30 * MILLISECOND;

fn pool_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

fn usual() -> Setting {
    let pool = Pool {
        addresses: (1..=4).map(pool_address).collect(),
        draining: Vec::new(),
        subscribers: Vec::new(),
        to: Vec::new(),
        ports: (1024, u16::MAX),
    };
    let server = |last, port| (Ipv4Addr::new(10, 0, 8, last), port);
    Setting {
        name: "usual",
        sessions: 4096,
        subscribers: 256,
        pools: vec![pool],
        ports_per_subscriber: None,
        sessions_per_subscriber: None,
        tcp: Filtering::EndpointIndependent,
        udp: Filtering::EndpointIndependent,
        paired: true,
        preserve: false,
        keep_range: true,
        keep_parity: false,
        refuse_syn: true,
        mss: None,
        forward_ipv6: false,
        // External addresses are not, whatever prefix they are in.
        exclude: vec![(Ipv4Addr::new(9, 9, 9, 0), 24), (pool_address(100), 30)],
        one_to_one: vec![
            (Ipv4Addr::new(10, 0, 9, 1), pool_address(101)),
            (Ipv4Addr::new(10, 0, 9, 2), pool_address(102)),
        ],
        forward: vec![
            Forward { protocol: 6, outside: pool_address(1), ports: (8080, 8080), to: vec![server(1, 80)] },
            Forward {
                protocol: 17,
                outside: pool_address(103),
                ports: (5000, 5003),
                to: vec![server(2, 6000), server(3, 7000), server(4, 6000)],
            },
        ],
        timeouts: Timeouts {
            udp: 300,
            tcp_opening: 240,
            tcp_established: 7440,
            tcp_closing: 240,
            icmp: 60,
            port_quiet: 120,
        },
    }
}

/// The configurations, and how many inside hosts there are.
fn settings() -> Vec<(Setting, u8)> {
    let usual = usual();
    let pool = &usual.pools[0];
    let small_pool =
        |last: u8, ports| Pool { addresses: (1..=last).map(pool_address).collect(), ports, ..pool.clone() };
    let short = Timeouts { udp: 20, tcp_opening: 20, tcp_established: 40, tcp_closing: 15, icmp: 10, port_quiet: 5 };
    // Where sessions may be evicted unseen, no state makes a difference.
    let alike = Timeouts { tcp_opening: 40, tcp_established: 40, tcp_closing: 40, port_quiet: 0, ..short };
    vec![
        (Setting { name: "usual", ..usual.clone() }, 24),
        (
            Setting {
                name: "by address",
                tcp: Filtering::AddressDependent,
                udp: Filtering::AddressDependent,
                mss: Some(1200),
                ..usual.clone()
            },
            24,
        ),
        (
            Setting {
                name: "by address and port",
                tcp: Filtering::AddressAndPortDependent,
                udp: Filtering::AddressAndPortDependent,
                refuse_syn: false,
                timeouts: short,
                ..usual.clone()
            },
            24,
        ),
        (Setting { name: "small tables", sessions: 64, timeouts: alike, ..usual.clone() }, 24),
        (
            Setting {
                name: "few subscribers",
                subscribers: 64,
                udp: Filtering::AddressDependent,
                timeouts: alike,
                ..usual.clone()
            },
            250,
        ),
        (
            Setting {
                name: "few ports",
                pools: vec![small_pool(2, (2000, 2063))],
                forward: Vec::new(),
                keep_range: false,
                timeouts: short,
                ..usual.clone()
            },
            24,
        ),
        (
            Setting {
                name: "parity",
                pools: vec![small_pool(2, (2000, 9999))],
                keep_parity: true,
                preserve: true,
                paired: false,
                mss: Some(536),
                timeouts: short,
                ..usual.clone()
            },
            24,
        ),
        (
            Setting {
                name: "preserve",
                preserve: true,
                tcp: Filtering::AddressAndPortDependent,
                forward_ipv6: true,
                ..usual.clone()
            },
            24,
        ),
        (
            Setting {
                name: "limits",
                pools: vec![
                    Pool {
                        addresses: vec![pool_address(1), pool_address(2)],
                        draining: vec![pool_address(3)],
                        subscribers: vec![(Ipv4Addr::new(10, 0, 0, 0), 16)],
                        to: vec![(Ipv4Addr::new(8, 8, 0, 0), 24), (Ipv4Addr::new(203, 0, 113, 0), 24)],
                        ports: (5000, 6000),
                    },
                    Pool {
                        addresses: vec![pool_address(10)],
                        draining: Vec::new(),
                        subscribers: vec![(Ipv4Addr::new(10, 0, 0, 0), 24), (Ipv4Addr::new(10, 1, 0, 0), 30)],
                        to: Vec::new(),
                        ports: (1024, 2047),
                    },
                ],
                ports_per_subscriber: Some(8),
                sessions_per_subscriber: Some(12),
                timeouts: short,
                ..usual.clone()
            },
            24,
        ),
    ]
}

/// One run of one configuration.
struct Run {
    setting: Setting,
    workers: u16,
    seed: u64,
    trial: Trial,
    world: World,
    generator: Generator,
    /// Its numbers decide about time alone.
    random: Random,
    held: i64,
    /// The router wants to know whether its neighbours are still there.
    asked: bool,
    step: u64,
    packets: u64,
    drops: BTreeMap<String, u64>,
    left: u64,
}

/// What the station on a link says: at first it asks for the router, and then it answers.
fn station(side: Side, answers: bool) -> Vec<Vec<u8>> {
    let at = usize::from(side == Side::Outside);
    let third = [1, 2][at];
    let own = Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, 1);
    let next = Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, 9);
    let frame = |to| Frame::new().ethernet(NEXT[at], to);
    if answers {
        let v6 = frame(ROUTER[at]).neighbour_advertisement(next, own);
        return vec![frame(ROUTER[at]).arp_reply(NEXT_V4[at], OWN[at]).build(), v6.build()];
    }
    let v4 = frame([0xff; 6]).arp_request(NEXT_V4[at], OWN[at]);
    vec![v4.build(), frame([0xff; 6]).neighbour_solicitation(next, own).build()]
}

fn direction(side: Side) -> Direction {
    if side == Side::Inside { Direction::Outbound } else { Direction::Inbound }
}

impl Run {
    fn new(lab: &Lab<'_>, setting: Setting, hosts: u8, workers: u16, seed: u64) -> Self {
        let config: Config = toml::from_str(&setting.toml()).unwrap_or_else(|error| panic!("{error}"));
        let nat = Nat::new();
        let policy = nat.policy(config).unwrap_or_else(|invalid| panic!("{invalid:?}"));
        nat.build(&policy, &lab.pool.memory()).unwrap();
        let policy = Arc::new(policy);
        let addresses: Vec<String> = nat.addresses(&policy).iter().map(ToString::to_string).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let chain = |worker: &mut WorkerSetup| -> Chain { nat.instance(Arc::clone(&policy), worker).unwrap().into() };
        let trial = match workers {
            1 => lab.trial(chain),
            _ => lab.trial_at_wrong_workers(workers, Affinity::TranslatedPort { block_bits: 3 }, chain),
        };
        let trial = trial.with_router(CONFIGURATION, &addresses).with_fragments(FragmentsConfig::default());
        let small = setting.has_small_tables();
        let world = World::new(Model::new(setting.clone(), workers.into()));
        let mut run = Self {
            setting,
            workers,
            seed,
            trial,
            world,
            generator: Generator::new(seed, hosts, small),
            random: Random::new(!seed),
            held: 0,
            asked: false,
            step: 0,
            packets: 0,
            drops: BTreeMap::new(),
            left: 0,
        };
        run.introduce();
        run
    }

    /// The router knows its neighbours, and has announced its addresses.
    fn introduce(&mut self) {
        self.trial.advance(Duration::ZERO);
        for side in [Side::Inside, Side::Outside] {
            let said = self.trial.send(direction(side), &station(side, false));
            assert_eq!(said.inside.len() + said.outside.len(), 2, "{said:?}");
        }
        for _ in 0..2 {
            self.trial.advance(Duration::from_secs(3));
        }
        self.world.now = 6 * SECOND;
        self.world.advance(6 * SECOND, &Seen::default());
    }

    /// The stations answer if the router has asked whether they are still there.
    fn answer_router(&mut self) {
        if mem::take(&mut self.asked) {
            for side in [Side::Inside, Side::Outside] {
                let said = self.trial.send(direction(side), &station(side, true));
                assert_eq!((said.inside.len(), said.outside.len(), said.held), (0, 0, 0), "{said:?}");
            }
        }
    }

    fn step(&mut self) {
        self.step += 1;
        let open = self.world.fragments.open();
        let held = self.world.nat.held();
        let wait = match self.random.below(1000) {
            _ if open > 30 => Some(3 * SECOND),
            // Of several workers each has room for so many of its own.
            _ if held > 40 && self.workers > 1 => Some(7 * SECOND),
            _ if self.world.nat.sessions.len() > 1500 => Some(8000 * SECOND),
            0..600 => None,
            600..900 => Some(self.random.below(MILLISECOND)),
            900..970 => Some(self.random.below(3 * SECOND)),
            970..990 => Some(self.random.below(20 * SECOND)),
            990..999 => Some(self.random.below(400 * SECOND)),
            _ => Some(self.random.below(10_000 * SECOND)),
        };
        if let Some(wait) = wait {
            self.wait(wait);
        }
        let turns = if self.world.nat.draining { 20 } else { 1000 };
        // Where nobody knows which mappings are gone, nobody knows what would begin something.
        if self.random.below(turns) == 0 && !self.setting.has_small_tables() {
            self.world.nat.draining = !self.world.nat.draining;
            self.trial.set_draining(self.world.nat.draining);
        }
        let (side, frames) = self.generator.burst(&self.world);
        self.send(side, &frames);
        let probes = self.generator.probes(&self.world);
        if !probes.is_empty() {
            self.send(Side::Inside, &probes);
        }
    }

    /// So much time passes, or a little more: never does it stop where something is just over.
    fn wait(&mut self, time: Nanoseconds) {
        let from = self.world.now;
        let mut to = from + time;
        let mut deadlines: Vec<Nanoseconds> =
            self.world.nat.deadlines().chain(self.world.fragments.deadlines()).collect();
        deadlines.sort_unstable();
        for deadline in deadlines {
            if deadline <= to + 4 * MILLISECOND {
                to = to.max(deadline + SWEEP);
            }
        }
        let outcome = self.trial.advance(Duration::from_nanos(to - from));
        let expected = self.world.advance(to, &Seen::new(left(&outcome).iter().map(|(side, frame)| (*side, frame))));
        self.compare("time passes", &[], expected, &outcome);
        self.compare_sessions();
        self.answer_router();
    }

    /// Has the NAT the sessions that the model has? Where none can have been evicted unseen,
    /// and only one worker is there to be asked.
    fn compare_sessions(&mut self) {
        if self.workers > 1 || self.setting.has_small_tables() {
            return;
        }
        let found = self.trial.command(0, |nat: &mut Instance, _| {
            let mut all = Vec::new();
            let mut next = Some(0);
            while let Some(from) = next {
                let Piece { items, next: further } = nat.list(&SessionFilter::default(), from);
                all.extend(items.into_iter().map(|(_, session)| session));
                next = further;
            }
            all
        });
        let number = |protocol| match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Icmp => 1,
        };
        let found: BTreeSet<_> = found.iter().map(|of| (number(of.protocol), of.inside, of.remote)).collect();
        let expected: BTreeSet<_> = self.world.nat.sessions.keys().copied().collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        let unexpected: Vec<_> = found.difference(&expected).collect();
        let Self { setting, workers, seed, step, .. } = self;
        assert!(
            missing.is_empty() && unexpected.is_empty(),
            "{:?} with {workers} worker(s), seed {seed}, step {step}: sessions missing {missing:?}, unexpected {unexpected:?}",
            setting.name
        );
    }

    fn send(&mut self, side: Side, frames: &[Vec<u8>]) {
        self.packets += frames.len() as u64;
        let outcome = self.trial.send(direction(side), frames);
        let left = left(&outcome);
        let seen = Seen::new(left.iter().map(|(side, frame)| (*side, frame)));
        let expected = self.world.burst(side, frames, &seen);
        self.compare(&format!("from {side:?}"), frames, expected, &outcome);
        self.left += left.len() as u64;
        for (side, frame) in &left {
            if frame[12..14] == [8, 0] {
                self.generator.note(*side, frame);
            }
        }
        self.answer_router();
        self.trial.check_for_leaks();
    }

    fn compare(&mut self, what: &str, frames: &[Vec<u8>], expected: Expected, outcome: &Outcome) {
        let Expected { frames: wanted, dropped, in_order } = expected;
        let mut text = String::new();
        for fault in mem::take(&mut self.world.nat.faults) {
            let _ = writeln!(text, "  {fault}");
        }
        for (side, found) in [(Side::Inside, &outcome.inside), (Side::Outside, &outcome.outside)] {
            let (asks, found): (Vec<Vec<u8>>, Vec<_>) =
                found.iter().cloned().partition(|frame| is_about_neighbours(frame));
            self.asked |= !asks.is_empty();
            let wanted = wanted.iter().filter(|(to, _)| *to == side).map(|(_, frame)| frame.clone());
            let wanted: Vec<Vec<u8>> = wanted.collect();
            let (wanted_of, found_of) = (tally(&wanted), tally(&found));
            let mut differs = false;
            for (title, one, other) in [("missing", &wanted_of, &found_of), ("unexpected", &found_of, &wanted_of)] {
                for (frame, count) in one.iter().filter(|(frame, count)| other.get(*frame).unwrap_or(&0) < count) {
                    differs = true;
                    let _ = writeln!(text, "  {title} {side:?}, {count} of: {}\n    {}", describe(frame), hex(frame));
                }
            }
            if !differs && self.workers == 1 && in_order && wanted != found {
                let _ = writeln!(text, "  the order of frames that left by {side:?} differs");
            }
        }
        if !outcome.host.is_empty() || outcome.consumed != 0 {
            let _ = writeln!(text, "  {} to the kernel, {} consumed", outcome.host.len(), outcome.consumed);
        }
        text += &drops_differ(&dropped, &outcome.dropped);
        for (reason, count) in &outcome.dropped {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
        self.held += outcome.held;
        let held = i64::try_from(self.world.held()).unwrap();
        if self.held != held {
            let _ = writeln!(text, "  {} held, expected {held}", self.held);
        }
        if text.is_empty() {
            return;
        }
        let occupancy = self.trial.command(0, |nat: &mut Instance, _| nat.occupancy());
        let _ = writeln!(text, "  the first worker at {:?}: {occupancy:?}", self.trial.now());
        let mut input = String::new();
        for frame in frames {
            let _ = writeln!(input, "  {}\n    {}", describe(frame), hex(frame));
        }
        let Self { setting, workers, seed, step, packets, .. } = self;
        panic!(
            "{:?} with {workers} worker(s), seed {seed}, step {step}, packet {packets}, {what}:\n{text}what came in:\n\
             {input}",
            setting.name
        );
    }

    fn report(&self, total: &mut Total) {
        let Self { setting, workers, packets, left, step, .. } = self;
        println!("{:?} with {workers} worker(s): {packets} packets in, {left} out, {step} steps", setting.name);
        (total.packets, total.left) = (total.packets + packets, total.left + left);
        for (reason, count) in &self.drops {
            *total.drops.entry(reason.clone()).or_default() += count;
        }
        for (what, count) in &self.world.nat.counts {
            *total.counts.entry(what).or_default() += count;
        }
    }
}

/// Of all runs.
#[derive(Debug, Default)]
struct Total {
    packets: u64,
    left: u64,
    drops: BTreeMap<String, u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Total {
    /// Prints it, and looks whether the traffic was worth the name.
    fn check(&self) {
        println!("{} packets in, {} out\ndropped {:?}\n{:?}", self.packets, self.left, self.drops, self.counts);
        let of = |what| self.counts.get(what).copied().unwrap_or(0);
        // By chance one in 65536, and not where 300 are tried.
        let same = of("identifications as before");
        assert!(same * 100 <= of("identifications"), "{same} packets kept their identification");
        if self.packets < 500_000 {
            return;
        }
        for reason in [
            "bad-checksum",
            "draining",
            "fragment-duplicate",
            "fragment-expired",
            "fragment-headers",
            "fragment-length",
            "fragment-overlap",
            "malformed",
            "nat-filtered",
            "nat-icmp-checksum",
            "nat-icmp-fragment",
            "nat-ipv6",
            "nat-no-mapping",
            "nat-no-pool",
            "nat-no-session",
            "nat-not-translated",
            "nat-ports-exhausted",
            "nat-protocol",
            "nat-spoofed",
            "nat-subscriber-limit",
            "nat-subscribers-full",
            "nat-unsolicited-syn",
            "not-ip",
            "same-side",
            "ttl-expired",
        ] {
            assert!(self.drops.contains_key(reason), "nothing was dropped under {reason:?}");
        }
        for what in [
            "RST without a session",
            "SYNs cancelled",
            "errors, inbound",
            "errors, outbound",
            "excluded",
            "found evicted",
            "one to one, inbound",
            "one to one, outbound",
            "ports preserved",
            "servers' answers",
            "sessions expired",
            "to servers",
            "turned",
            "turned SYNs answered",
        ] {
            assert!(of(what) > 0, "{what:?} never happened");
        }
    }
}

/// The frames that left, each with its side.
fn left(outcome: &Outcome) -> Vec<(Side, Vec<u8>)> {
    let of = |side, frames: &[Vec<u8>]| frames.iter().map(|frame| (side, frame.clone())).collect::<Vec<_>>();
    [of(Side::Inside, &outcome.inside), of(Side::Outside, &outcome.outside)].concat()
}

fn is_about_neighbours(frame: &[u8]) -> bool {
    let icmpv6 = frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58;
    frame[12..14] == [0x08, 0x06] || icmpv6
}

/// Each drop has one of several reasons: are the counts such?
fn drops_differ(expected: &[Vec<&'static str>], found: &BTreeMap<String, u64>) -> String {
    let mut left: BTreeMap<&str, u64> = found.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let mut text = String::new();
    let mut sorted: Vec<_> = expected.iter().collect();
    sorted.sort_by_key(|reasons| reasons.len());
    for reasons in sorted {
        match reasons.iter().find(|reason| left.get(*reason).is_some_and(|count| *count > 0)) {
            Some(reason) => *left.get_mut(reason).unwrap() -= 1,
            None => {
                let _ = writeln!(text, "  no packet was dropped under {reasons:?}");
            }
        }
    }
    for (reason, count) in left.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "  {count} dropped under {reason:?}, unexpected");
    }
    text
}

fn given<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} cannot be {text:?}")))
}

#[test]
fn the_nat_and_a_plain_model_of_it_agree_on_every_frame() {
    let packets: u64 = given("NF_MODEL_PACKETS").unwrap_or(18_000);
    // Another one on every run: what is found is replayed by its seed.
    let of_the_day = || SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).subsec_nanos().into();
    let seed: u64 = given("NF_MODEL_SEED").unwrap_or_else(of_the_day);
    let only: Option<String> = given("NF_MODEL_SETTING");
    println!("NF_MODEL_SEED={seed} NF_MODEL_PACKETS={packets}");
    let settings: Vec<_> =
        settings().into_iter().filter(|(setting, _)| only.as_ref().is_none_or(|only| *only == setting.name)).collect();
    assert!(!settings.is_empty(), "NF_MODEL_SETTING names no configuration");
    let share = packets / (2 * settings.len() as u64);
    let all = only.is_none();
    lab(move |lab| {
        let mut total = Total::default();
        for (setting, hosts) in settings {
            for workers in [1, 2] {
                let mut run = Run::new(lab, setting.clone(), hosts, workers, seed);
                while run.packets < share {
                    run.step();
                }
                // All that is held goes in the end.
                run.wait(20_000 * SECOND);
                run.trial.check_for_leaks();
                run.report(&mut total);
                assert_eq!((run.held, run.world.nat.sessions.len()), (0, 0));
            }
        }
        if all {
            total.check();
        }
    });
}
