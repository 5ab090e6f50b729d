//! The suite `chain`: what functions cost in a row, and what each one more adds.

use crate::custom::PER_PACKET;
use crate::io::Pass;
use crate::machine::Memory;
use crate::measure::{Plan, interleave};
use crate::ours::made;
use crate::port_block::PortBlock;
use crate::results::{Axis, Row};
use crate::scored::{self, COLD, Stage, usual_flows};
use anyhow::anyhow;
use nf_framework::{Affinity, Function, Loaded};
use nfs::monitor::Monitor;
use nfs::rate_limit::{self, RateLimit};

pub(crate) const ABOUT: &str = "functions in a row: what each one more adds";
pub(crate) const MEBIBYTES: u64 = scored::MEBIBYTES;

/// More packets per second than there will be, so that none is dropped.
const PLENTY: u64 = 1_000_000_000;
/// Functions in a row that do nothing.
const EMPTY: [u32; 3] = [1, 2, 4];

pub(crate) const ALL: &str = "monitor + rate-limit + port-block";

pub(crate) fn notes() -> Vec<String> {
    let own = [
        "rate-limit lets a thousand million packets per second pass, so it drops none; monitor and port-block parse \
         every packet, each by itself",
        "n x empty: functions that look at no packet's bytes",
    ];
    scored::notes().into_iter().chain(own.map(str::to_owned)).collect()
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(memory)?;
    let policy = RateLimit.policy(rate_limit::Config { packets_per_second: PLENTY, burst: Some(PLENTY) });
    let policy = policy.map_err(|invalid| anyhow!("rate-limit: {invalid:?}"))?;
    let monitor = || Loaded::new(Monitor, ());
    let limit = move || Loaded::new(RateLimit, policy);
    let block = || made(PER_PACKET, Affinity::Any, PortBlock::new);

    let mut variants = vec![stage.macswap()];
    for source in stage.rings()?.iter().filter(|source| source.name != COLD) {
        let row = |name: &str| source.row(name);
        let scored =
            |name: &str, functions: Box<dyn Fn() -> Vec<Loaded>>| stage.scored(source, name, usual_flows(), functions);
        let base = stage.base(source).at(Axis::Functions, row("empty"), 0.0);
        variants.push(base.at(Axis::Functions, row("real"), 0.0));
        for count in EMPTY {
            let empty = move || (0..count).map(empty).collect();
            let variant = scored(&format!("{count} x empty"), Box::new(empty));
            variants.push(variant.at(Axis::Functions, row("empty"), f64::from(count)));
        }
        let one = scored("monitor", Box::new(move || vec![monitor()]));
        let two = scored("monitor + rate-limit", Box::new(move || vec![monitor(), limit()])).net(row("monitor"));
        let three = scored(ALL, Box::new(move || vec![monitor(), limit(), block()])).net(row("monitor + rate-limit"));
        for (count, variant) in [(1.0, one), (2.0, two), (3.0, three)] {
            variants.push(variant.at(Axis::Functions, row("real"), count));
        }
        variants.push(scored("rate-limit", Box::new(move || vec![limit()])));
    }
    let rows = interleave(variants, plan)?;
    stage.stop()?;
    Ok(rows)
}

fn empty(number: u32) -> Loaded {
    made(format!("empty{number}"), Affinity::Any, |_| Ok(Pass))
}
