//! What is aimed at, and how far it is: the figures that a reader wants first.

use crate::results::{Relation, Results, Suite};
use crate::scored::{COLD, HOT, SHARED};
use crate::{chain, custom, firewall, io, linux, load_balancer, nat, router, workers};
use std::fmt;

/// What a figure shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    fn reached(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, figure) = match self {
            Self::AtMost(most) => ('≤', most),
            Self::AtLeast(least) => ('≥', least),
        };
        write!(f, "{sign} {figure:.2}")
    }
}

/// One kind of work, with what was measured.
pub(crate) struct Reached {
    /// The suite that measures it.
    suite: &'static str,
    pub(crate) work: String,
    /// Of [`SOURCES`].
    pub(crate) figures: [Option<f64>; 3],
    pub(crate) aim: Option<Aim>,
    pub(crate) verdict: &'static str,
    pub(crate) peer: &'static str,
}

impl Reached {
    fn new(
        suite: &'static str,
        work: impl Into<String>,
        figures: [Option<f64>; 3],
        aim: Option<Aim>,
        peer: &'static str,
    ) -> Self {
        let measured: Vec<f64> = figures.into_iter().flatten().collect();
        let reaches = |figures: &[f64]| aim.map(|aim: Aim| figures.iter().all(|figure| aim.reached(*figure)));
        let verdict = match reaches(&measured) {
            _ if measured.is_empty() => "not measured",
            None => "",
            Some(true) => "reached",
            Some(false) if reaches(&measured[..1]) == Some(true) => "reached with hot packets",
            Some(false) => "not reached",
        };
        Self { suite, work: work.into(), figures, aim, verdict, peer }
    }
}

/// Where a kind of work has figures.
const SOURCES: [&str; 3] = [HOT, SHARED, COLD];

/// Every kind of work that there is or will be in the suites of a run. Peers' figures are scores
/// too, converted from nanoseconds that were measured on one machine with testpmd beside them.
pub(crate) fn reached(results: &Results) -> Vec<Reached> {
    let asked =
        |suite: &str| results.suite(suite).is_some() || results.absent.iter().any(|absent| absent.suite == suite);
    all(results).into_iter().filter(|reached| asked(reached.suite)).collect()
}

fn all(results: &Results) -> Vec<Reached> {
    let suite = |name: &str| results.suite(name);
    let ratio = |of: &str, row: &str, base: &str| suite(of).and_then(|suite| figure(suite, row, Some(base)));
    let scores = |of: &str, name: &str| SOURCES.map(|source| figure(suite(of)?, &format!("{source}: {name}"), None));
    let hot = |figure| [figure, None, None];
    let most = |most| Some(Aim::AtMost(most));
    let mut goals = vec![
        Reached::new(
            "io",
            "bare receive and send, testpmd io's cost",
            hot(ratio("io", io::BARE, io::TESTPMD)),
            most(0.95),
            "0.85 (rpkt) to 1",
        ),
        Reached::new(
            "io",
            "worker with Wire, testpmd macswap's cost",
            hot(ratio("io", io::WORKER, io::MACSWAP)),
            most(1.1),
            "0.97 (rpkt)",
        ),
        Reached::new(
            "custom",
            "function of your own, per packet (score)",
            scores("custom", custom::PER_PACKET),
            most(1.3),
            "-",
        ),
    ];
    for flows in ["1k", "64k", "1M"] {
        let work = format!("flow look-up per packet, {flows} flows (score)");
        goals.push(Reached::new("custom", work, scores("custom", &custom::stateful(flows)), None, "-"));
    }
    let name = format!("{} (score)", chain::ALL);
    goals.push(Reached::new("chain", name, scores("chain", chain::ALL), None, "-"));
    for (name, aim, peer) in [
        (router::V4, most(1.7), "1.6 (l3fwd LPM)"),
        (router::V4_MANY, None, "-"),
        (router::V6, None, "-"),
        (router::NEIGHBOURS, None, "-"),
    ] {
        goals.push(Reached::new("router", format!("router, {name} (score)"), scores("router", name), aim, peer));
    }
    for (sessions, aim, peer) in [
        ("1k", most(2.2), "5.4 (VPP)"),
        ("64k", most(2.8), "16 (VPP)"),
        ("1M", most(4.5), "17 (VPP)"),
        ("4M", None, "-"),
    ] {
        let work = format!("NAT, {sessions} sessions (score)");
        goals.push(Reached::new("nat", work, scores("nat", &nat::row(sessions)), aim, peer));
    }
    for (sessions, aim) in [("64k", 15.0), ("1M", 30.0)] {
        let work = format!("first packet of a session, NAT, at {sessions} (score)");
        let score = suite("new-sessions").and_then(|suite| figure(suite, &nat::first(sessions), None));
        goals.push(Reached::new("new-sessions", work, hot(score), most(aim), "-"));
    }
    for (mode, connections, aim, peer) in [
        (load_balancer::DSR, "1k", 2.2, "3.6 (VPP)"),
        (load_balancer::DSR, "64k", 2.6, "5.1 (VPP)"),
        (load_balancer::DSR, "1M", 4.2, "7.9 (VPP)"),
        (load_balancer::TUNNEL, "1k", 2.2, "3.6 (VPP)"),
        (load_balancer::TUNNEL, "64k", 2.6, "5.1 (VPP)"),
        (load_balancer::TUNNEL, "1M", 4.2, "7.9 (VPP)"),
    ] {
        let work = format!("load balancer, {mode}, {connections} (score)");
        let scores = scores("load-balancer", &load_balancer::row(mode, connections));
        goals.push(Reached::new("load-balancer", work, scores, most(aim), peer));
    }
    for (connections, aim, peer) in [("1k", 2.2, "-"), ("64k", 2.8, "5.9 (VPP)"), ("1M", 4.5, "98 (FastClick)")] {
        for rules in ["10", "10k"] {
            let work = format!("firewall, {connections} established, {rules} rules (score)");
            goals.push(Reached::new(
                "firewall",
                work,
                scores("firewall", &firewall::row(connections, rules)),
                most(aim),
                peer,
            ));
        }
    }
    let together = scores("firewall", firewall::WITH_NAT);
    goals.push(Reached::new("firewall", "firewall + NAT in one chain, 64k (score)", together, most(4.2), "-"));
    for (name, row) in [
        ("forwards", linux::FORWARD.to_owned()),
        ("follows connections, 16k", linux::row(linux::CONNTRACK, "16k")),
        ("masquerades, 16k", linux::row(linux::MASQUERADE, "16k")),
    ] {
        let work = format!("for comparison, Linux {name} (score)");
        goals.push(Reached::new("linux", work, hot(ratio("linux", &row, io::MACSWAP)), None, "-"));
    }
    for (name, row) in [
        ("", workers::OURS),
        (" with NAT", workers::NAT),
        (" with load balancer", workers::BALANCER),
        (" with firewall", workers::FIREWALL),
    ] {
        let work = format!("gain of a second worker{name}, testpmd's gain");
        let gain = suite("workers").and_then(|suite| gain(suite, row));
        goals.push(Reached::new("workers", work, hot(gain), Some(Aim::AtLeast(0.95)), "1"));
    }
    goals
}

/// A row's score, or its ratio to a base.
fn figure(suite: &Suite, row: &str, base: Option<&str>) -> Option<f64> {
    let row = suite.row(row)?;
    let wanted = |relation: &&Relation| match (relation, base) {
        (Relation::Score { .. }, None) => true,
        (Relation::Ratio { base }, Some(wanted)) => base == wanted,
        _ => false,
    };
    Some(suite.relation(row, row.relations.iter().find(wanted)?)?.figure)
}

/// What our second worker gains at some work in relation to what testpmd's second core does.
fn gain(suite: &Suite, work: &str) -> Option<f64> {
    let cost_of_second = |name: &str| figure(suite, &workers::row(2, name), Some(&workers::row(1, name)));
    Some(cost_of_second(workers::TESTPMD)? / cost_of_second(work)?)
}
