//! What is aimed at, and how far it is: the figures that a reader wants first.

use crate::results::{Relation, Results, Suite};
use crate::{chain, custom, io, workers};
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
    pub(crate) work: String,
    /// Hot, with 16k and with 64k mbufs in rotation.
    pub(crate) figures: [Option<f64>; 3],
    pub(crate) aim: Option<Aim>,
    pub(crate) verdict: &'static str,
    pub(crate) peer: &'static str,
}

impl Reached {
    fn new(work: impl Into<String>, figures: [Option<f64>; 3], aim: Option<Aim>, peer: &'static str) -> Self {
        let measured: Vec<f64> = figures.into_iter().flatten().collect();
        let reaches = |figures: &[f64]| aim.map(|aim: Aim| figures.iter().all(|figure| aim.reached(*figure)));
        let verdict = match reaches(&measured) {
            _ if measured.is_empty() => "not measured",
            None => "",
            Some(true) => "reached",
            Some(false) if reaches(&measured[..1]) == Some(true) => "reached with hot packets",
            Some(false) => "not reached",
        };
        Self { work: work.into(), figures, aim, verdict, peer }
    }

    fn not_built(work: &str, most: f64, peer: &'static str) -> Self {
        Self { verdict: "not built yet", ..Self::new(work, [None; 3], Some(Aim::AtMost(most)), peer) }
    }
}

/// Every kind of work that there is or will be. Peers' figures are scores too, converted from
/// nanoseconds that were measured on one machine with testpmd beside them.
pub(crate) fn reached(results: &Results) -> Vec<Reached> {
    let suite = |name: &str| results.suite(name);
    let ratio = |of: &str, row: &str, base: &str| suite(of).and_then(|suite| figure(suite, row, Some(base)));
    let scores = |of: &str, name: &str| {
        ["hot", "16k mbufs", "64k mbufs"].map(|source| figure(suite(of)?, &format!("{source}: {name}"), None))
    };
    let hot = |figure| [figure, None, None];
    let most = |most| Some(Aim::AtMost(most));
    let mut goals = vec![
        Reached::new(
            "bare receive and send, testpmd io's cost",
            hot(ratio("io", io::BARE, io::TESTPMD)),
            most(0.95),
            "0.85 (rpkt) to 1",
        ),
        Reached::new(
            "worker with Wire, testpmd macswap's cost",
            hot(ratio("io", io::WORKER, io::MACSWAP)),
            most(1.1),
            "0.97 (rpkt)",
        ),
        Reached::new("function of your own, per packet (score)", scores("custom", custom::PER_PACKET), most(1.3), "-"),
    ];
    for flows in ["1k", "64k", "1M"] {
        let work = format!("flow look-up per packet, {flows} flows (score)");
        goals.push(Reached::new(work, scores("custom", &custom::stateful(flows)), None, "-"));
    }
    goals.push(Reached::new(format!("{} (score)", chain::ALL), scores("chain", chain::ALL), None, "-"));
    let to_come = [
        ("router, IPv4, 1k routes (score)", 1.7, "1.6 (l3fwd LPM)"),
        ("NAT, 1k sessions (score)", 2.2, "5.4 (VPP)"),
        ("NAT, 64k sessions (score)", 2.8, "16 (VPP)"),
        ("NAT, 1M sessions (score)", 4.5, "17 (VPP)"),
        ("firewall, 1k established (score)", 2.2, "-"),
        ("firewall, 64k established (score)", 2.8, "5.9 (VPP)"),
        ("firewall, 1M established (score)", 4.5, "98 (FastClick)"),
        ("load balancer, 1k (score)", 2.2, "3.6 (VPP)"),
        ("load balancer, 64k (score)", 2.6, "5.1 (VPP)"),
        ("load balancer, 1M (score)", 4.2, "7.9 (VPP)"),
        ("firewall + NAT in one chain, 64k (score)", 4.2, "-"),
        ("first packet of a session, NAT, at 64k (score)", 15.0, "-"),
        ("first packet of a session, NAT, at 1M (score)", 30.0, "-"),
    ];
    goals.extend(to_come.map(|(work, most, peer)| Reached::not_built(work, most, peer)));
    goals.push(Reached::new(
        "gain of a second worker, testpmd's gain",
        hot(suite("workers").and_then(gain)),
        Some(Aim::AtLeast(0.95)),
        "1",
    ));
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

/// What our second worker gains in relation to what testpmd's second core does.
fn gain(suite: &Suite) -> Option<f64> {
    let cost_of_second = |name: &str| figure(suite, &workers::row(2, name), Some(&workers::row(1, name)));
    Some(cost_of_second(workers::TESTPMD)? / cost_of_second(workers::OURS)?)
}
