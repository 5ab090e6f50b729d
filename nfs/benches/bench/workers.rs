//! The suite `workers`: what a second worker gains, beside what testpmd gains by a second core, alone
//! and with a NAT, and what it costs to hand packets over between two workers.
//!
//! An EAL has the lcores that it was started with, and every lcore is a worker, so one and two
//! workers are two processes, told by a pipe what to run.

use crate::firewall;
use crate::load_balancer;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::nat;
use crate::ours::{NULL, RING, Setting, devices, made, start_eal, worker_with_report};
use crate::parent::this_program;
use crate::results::{Axis, Row, Sample};
use crate::served::{self, Served};
use crate::source::{Circulation, End, Flows, Shelf, Store, When, client, no_stores};
use crate::testpmd::Testpmd;
use anyhow::{Context as _, bail};
use dpdk_rs::{Burst, Eal};
use nf_framework::{Affinity, Direction, Loaded, Ports, Tuple, WorkerSetup};
use nfs::load_balancer::Instance;
use std::cell::RefCell;
use std::time::Duration;

pub(crate) const ABOUT: &str = "two workers and one; packets handed over between two";
/// For all four processes.
pub(crate) const MEBIBYTES: u64 = 576;
/// For each of ours.
const MEBIBYTES_EACH: u64 = 160;

/// Bursts in each queue's ring. All of them together fit into the ring between two workers, so
/// that none is lost when one of them is not running.
const BURSTS: u32 = 3;

pub(crate) const OURS: &str = "worker, Wire";
pub(crate) const NAT: &str = "worker, NAT, 64k sessions each";
pub(crate) const BALANCER: &str = "worker, load balancer, 64k connections each";
pub(crate) const FIREWALL: &str = "worker, firewall, 64k connections each";
pub(crate) const TESTPMD: &str = "testpmd io";

const SESSIONS: u32 = 1 << 16;

pub(crate) fn row(workers: usize, name: &str) -> String {
    format!("{workers} x {name}")
}

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is the CPU time of all threads that forward, so two that do not hinder each other cost what one does: \
         gain = 2 x cost of one / cost of two",
        "net_null, a queue of each port for each core, burst 32",
        "NAT: packets of known sessions from both sides, as where a device has sorted them: each worker has sessions of \
         its own, and nothing is handed over",
        "firewall: the same with connections, 10 rules",
        "load balancer: direct return, the same with connections of one service",
        "handed over: two workers on two queues of net_ring, 384 packets in circulation, Affinity::Flow, steering in \
         software, over a base with the same source and any packet at any worker; the flows are such that none, half or all of the packets arrive at the worker that does not own them",
        "one queue: the first worker receives all packets and sends them, half of them for the second one",
        "a worker that waits for the other polls, which counts as CPU time: when others use the machine too, the rows \
         with hand-over show that most",
    ]
    .map(str::to_owned)
    .into()
}

/// What a process of ours can be told to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Null,
    Nat,
    Balancer,
    Firewall,
    Ring,
    /// With the ends that steered packets need, and any packet at any worker.
    Base,
    Steered(Share),
    OneQueue,
}

/// How many packets arrive at a worker that does not own them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Share {
    None,
    Half,
    All,
}

const WORK: [(&str, Work); 10] = [
    ("null", Work::Null),
    ("nat", Work::Nat),
    ("balancer", Work::Balancer),
    ("firewall", Work::Firewall),
    ("ring", Work::Ring),
    ("base", Work::Base),
    ("none", Work::Steered(Share::None)),
    ("half", Work::Steered(Share::Half)),
    ("all", Work::Steered(Share::All)),
    ("one-queue", Work::OneQueue),
];

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let peers = [1, 2].map(|cores| Testpmd::start(memory, &devices(), cores, Burst::USUAL).map(RefCell::new));
    let [one, two] = peers;
    let peers = [one?, two?];
    let [one, two] = [1, 2].map(|workers: usize| {
        Served::start(this_program().args(["--serve-workers", &workers.to_string()])).map(RefCell::new)
    });
    let ours = [one?, two?];

    let testpmd = |cores: usize| {
        let peer = &peers[cores - 1];
        let run = |slice| peer.borrow_mut().forward("io", NULL.numbers, Burst::USUAL, None, slice);
        Variant::new(row(cores, TESTPMD), run).at(Axis::Workers, TESTPMD, cores as f64)
    };
    let worker = |workers: usize, name: &str, work: &'static str| {
        let ours = &ours[workers - 1];
        Variant::new(row(workers, name), move |slice| ours.borrow_mut().run(work, slice))
    };
    let on_null = |workers: usize| worker(workers, OURS, "null").at(Axis::Workers, OURS, workers as f64);
    let with_nat = |workers: usize| worker(workers, NAT, "nat").at(Axis::Workers, NAT, workers as f64);
    let balanced = |workers: usize| worker(workers, BALANCER, "balancer").at(Axis::Workers, BALANCER, workers as f64);
    let guarded = |workers: usize| worker(workers, FIREWALL, "firewall").at(Axis::Workers, FIREWALL, workers as f64);
    let base = row(2, "ring: base");
    let variants = vec![
        testpmd(1),
        on_null(1).ratio(row(1, TESTPMD)),
        testpmd(2).ratio(row(1, TESTPMD)),
        on_null(2).ratio(row(1, OURS)).ratio(row(2, TESTPMD)),
        with_nat(1).ratio(row(1, OURS)),
        with_nat(2).ratio(row(1, NAT)),
        balanced(1).ratio(row(1, OURS)),
        balanced(2).ratio(row(1, BALANCER)),
        guarded(1).ratio(row(1, OURS)),
        guarded(2).ratio(row(1, FIREWALL)),
        worker(2, "ring: worker, Wire", "ring"),
        worker(2, "ring: base", "base").net(row(2, "ring: worker, Wire")),
        worker(2, "steered, none handed over", "none").ratio(&base).net(&base),
        worker(2, "steered, half handed over", "half").ratio(&base).net(&base),
        worker(2, "steered, all handed over", "all").ratio(&base).net(&base),
        worker(2, "one queue, half handed over", "one-queue").ratio(&base).net(&base),
    ];
    interleave(variants, plan)
}

/// A process with so many workers.
pub(crate) fn serve(workers: usize) -> anyhow::Result<()> {
    let memory = Memory::choose(MEBIBYTES_EACH).of_size(MEBIBYTES_EACH);
    let eal = start_eal(memory, workers)?;
    let circulation = Circulation::new(&eal, 0, u16::try_from(workers)?)?;
    let nats = nat::begin(&eal, workers, SESSIONS, "")?;
    let balancers = load_balancer::begin(&eal, workers, "dsr", SESSIONS)?;
    let firewalls = firewall::begin(&eal, workers, SESSIONS)?;
    served::serve(|work, slice| {
        let (_, work) = WORK.iter().find(|(name, _)| *name == work).with_context(|| format!("no work {work}"))?;
        // What was on its way between workers when the last slice ended is lost.
        circulation.drain(&eal)?;
        circulation.fill(&eal, BURSTS)?;
        work.run(&eal, (&nats, &balancers, &firewalls), slice)
    })?;
    circulation.drain(&eal)
}

impl Work {
    fn run(
        self,
        eal: &Eal,
        (nats, balancers, firewalls): (&[nat::Begun], &[Shelf<Instance>], &[Shelf<nfs::firewall::Instance>]),
        slice: Duration,
    ) -> anyhow::Result<Sample> {
        let usual = Setting::new(RING);
        let (setting, chain) = match self {
            Self::Null => (Setting::new(NULL), Vec::new()),
            Self::Nat => (Setting::new(NULL), nat::chain_of(nats, SESSIONS)),
            Self::Balancer => (Setting::new(NULL), load_balancer::chain_of(balancers, SESSIONS)),
            Self::Firewall => (Setting::new(NULL), firewall::chain_of(firewalls, SESSIONS)),
            Self::Ring => (usual, Vec::new()),
            Self::Base => (usual, ends(Affinity::Any, None)),
            Self::Steered(share) => (Setting { queues: Some(2), ..usual }, ends(Affinity::Flow, Some(share))),
            Self::OneQueue => (Setting { queues: Some(1), ..usual }, ends(Affinity::Flow, None)),
        };
        let (sample, report) = worker_with_report(eal, setting, chain, slice)?;
        let handed_over = report.handed_over as f64 / report.balance.received as f64;
        let expected = match self {
            Self::Null
            | Self::Nat
            | Self::Balancer
            | Self::Firewall
            | Self::Ring
            | Self::Base
            | Self::Steered(Share::None) => 0.0..=0.02,
            Self::Steered(Share::Half) => 0.35..=0.65,
            Self::Steered(Share::All) => 0.8..=1.0,
            // There, and back to be sent.
            Self::OneQueue => 0.7..=1.3,
        };
        // The first packets were filled in for whoever may come.
        const ENOUGH: u64 = 50_000;
        if report.balance.received > ENOUGH && !expected.contains(&handed_over) {
            bail!("{self:?}: {handed_over:.2} of the packets were handed over, and not {expected:?}");
        }
        Ok(sample)
    }
}

fn ends(affinity: Affinity, share: Option<Share>) -> Vec<Loaded> {
    let end = |name, entrance| {
        // One for each worker.
        let stores: [[Shelf<Store>; 2]; 1] = [no_stores()];
        made(name, affinity, move |worker| {
            let store = stores.iter().flatten().find_map(Shelf::take).ok_or("more workers than stores")?;
            Ok(End::new(entrance, When::Leaving, flows(share, entrance, worker), store))
        })
    };
    vec![end("inside-end", Direction::Outbound), end("outside-end", Direction::Inbound)]
}

/// Flows for packets that leave by a queue of this worker's, and so come back to it: its own, or
/// not.
fn flows(share: Option<Share>, entrance: Direction, worker: &WorkerSetup) -> Flows {
    const LISTED: usize = 1024;
    let Some(share) = share else { return Flows::All(1 << 16) };
    let owns = |number: &u32| {
        let (address, port) = client(*number);
        let tuple = Tuple { source: address.into(), destination: [192, 0, 2, 1].into(), ports: Ports::Both(port, 443) };
        worker.owns(entrance, &if entrance == Direction::Outbound { tuple } else { tuple.reversed() })
    };
    let all = 0..1_u32 << 16;
    let list = match share {
        Share::None => all.filter(owns).take(LISTED).collect(),
        Share::Half => {
            let (own, others): (Vec<u32>, Vec<u32>) = all.partition(owns);
            own.into_iter().take(LISTED / 2).chain(others.into_iter().take(LISTED / 2)).collect()
        }
        Share::All => all.filter(|number| !owns(number)).take(LISTED).collect(),
    };
    Flows::Listed(list)
}
