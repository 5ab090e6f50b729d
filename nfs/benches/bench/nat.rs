//! The suites `nat` and `new-sessions`: what a NAT costs for packets of sessions that it has, by how
//! many it has and in either direction, and what the first packet of a session costs.
//!
//! The sessions are begun before anything is measured, by the packets of their inside hosts; then
//! the NAT is asked what stands for each of them outside, and the packets from outside are addressed
//! so.

use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::{NULL, Setting, config, made, timed};
use crate::results::{Axis, Row};
use crate::scored::{self, Ends, HOT, SHARED, Source, Stage};
use crate::source::{End, Externals, Flows, Kept, Shelf, Store, When, client, kept, no_stores};
use anyhow::{Context as _, anyhow, ensure};
use dpdk_rs::Eal;
use nf_framework::{
    Affinity, Batch, Budget, Context, Direction, DropReason, Function, Loaded, NetworkFunction, Piece, PortsConfig,
    Runtime, RuntimeConfig, SetupError, Verdict, WorkerSetup,
};
use nfs::nat::{Config, Instance, Nat, SessionFilter};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ABOUT: &str = "NAT: packets of sessions that are there";
pub(crate) const ABOUT_NEW: &str = "NAT: the first packet of a session";

/// Beside the packets: tables for all the sessions, and for their ports.
pub(crate) fn mebibytes(quick: bool) -> u64 {
    scored::MEBIBYTES + sizes(quick).map(|(_, sessions)| (u64::from(sessions) * 160) >> 20).sum::<u64>()
}

pub(crate) const MEBIBYTES_NEW: u64 = 768;

const SESSIONS: [(&str, u32); 4] = [("1k", 1 << 10), ("64k", 1 << 16), ("1M", 1 << 20), ("4M", 1 << 22)];
/// 4 million take a while to begin.
fn sizes(quick: bool) -> impl Iterator<Item = (&'static str, u32)> {
    SESSIONS.into_iter().take(if quick { 3 } else { 4 })
}

pub(crate) fn row(sessions: &str) -> String {
    format!("{sessions} sessions")
}

pub(crate) fn filtered(sessions: &str) -> String {
    format!("{sessions} sessions, filtered")
}

pub(crate) fn notes() -> Vec<String> {
    let own = [
        "both directions, UDP, a session for each flow and a mapping for each session: nobody shares a port; filtered: \
         filtering is address-and-port-dependent, else endpoint-independent",
    ];
    scored::notes().into_iter().chain(own.map(str::to_owned)).collect()
}

pub(crate) fn notes_new() -> Vec<String> {
    [
        "score = 1 + (own - base) / testpmd macswap; base is the same worker and source with Wire",
        "net_null, one port, packets from inside only, every one of a flow that has no session; 64 flows of a host, of \
         which a quarter has sessions",
        "first packet: there are so many sessions, and for each that begins one is ended, in the order of the table, \
         which the cost includes; in a full table: each session that begins evicts the one that is the least worth",
    ]
    .map(str::to_owned)
    .into()
}

/// Room for so many sessions and some more, so that none makes place for another, and ports for as many.
fn nat_config(sessions: u32, port_quiet: u16, filtering: &str) -> anyhow::Result<Config> {
    let addresses = sessions.div_ceil(40_000).next_power_of_two();
    let length = 32 - addresses.trailing_zeros();
    let text = format!(
        "sessions = {}\nsubscribers = {}\n{filtering}\n[[pools]]\naddresses = [\"198.18.0.0/{length}\"]\n\
         [timeouts]\nudp = 86400\nport_quiet = {port_quiet}\n",
        sessions + sessions / 4,
        (sessions / 8).max(64),
    );
    toml::from_str(&text).context("the NAT's configuration")
}

/// Makes an instance as a program's worker does.
struct Maker {
    nat: Arc<Nat>,
    policy: Arc<nfs::nat::Policy>,
}

impl Maker {
    fn new(config: Config) -> anyhow::Result<Self> {
        let nat = Nat::new();
        let policy = nat.policy(config).map_err(|invalid| anyhow!("{}: {}", invalid.key, invalid.message))?;
        Ok(Self { nat: Arc::new(nat), policy: Arc::new(policy) })
    }

    fn instance(&self, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        self.nat.instance(Arc::clone(&self.policy), worker)
    }
}

/// A NAT with sessions, and what stands for each flow outside.
pub(crate) type Begun = (Shelf<Instance>, Externals);

/// Begins a session of each flow on each of so many workers, each of which has a NAT of its own.
pub(crate) fn begin(eal: &Eal, workers: usize, sessions: u32, filtering: &str) -> anyhow::Result<Vec<Begun>> {
    let maker = Arc::new(Maker::new(nat_config(sessions, 120, filtering)?)?);
    let shelves: Vec<Shelf<Instance>> = (0..workers).map(|_| Shelf::empty()).collect();
    let slice = Duration::from_millis(200) + Duration::from_micros(u64::from(sessions));
    let begun = |shelf: &Shelf<Instance>| shelf.take().and_then(|mut lent| Some(lent.get()?.sessions())).unwrap_or(0);
    let least = || shelves.iter().map(begun).min().unwrap_or(0);
    // On a machine with others it takes longer.
    for _ in 0..10 {
        if least() > u64::from(sessions) - 1 {
            break;
        }
        let (firsts, maker) = (shelves.clone(), Arc::clone(&maker));
        // Made on the worker, and left on the shelf when that ends.
        let nat = made("nat", Affinity::Any, move |worker| {
            let first = firsts.get(worker.index()).ok_or("more workers than shelves")?;
            match first.take() {
                Some(lent) => Ok(Kept(lent)),
                None => Ok(Kept(first.lend(maker.instance(worker)?))),
            }
        });
        let stores: [Shelf<Store>; 2] = no_stores();
        let source = made("source", Affinity::Any, move |_| {
            let store = stores.iter().find_map(Shelf::take).ok_or("more workers than stores")?;
            Ok(End::new(Direction::Outbound, When::Arriving, Flows::All(sessions), store))
        });
        let nobody = made("nobody", Affinity::Any, |_| Ok(Outside));
        timed(Runtime::new(eal, &config(Setting::new(NULL)), vec![source, nat, nobody])?, slice)?;
    }
    let count = least();
    ensure!(count > u64::from(sessions) - 1, "{count} of {sessions} sessions have begun");
    shelves.into_iter().map(|shelf| Ok((shelf.clone(), externals(&shelf, sessions)?))).collect()
}

/// What stands for each flow outside.
fn externals(shelf: &Shelf<Instance>, sessions: u32) -> anyhow::Result<Externals> {
    let mut lent = shelf.take().context("the NAT is gone")?;
    let instance = lent.get().context("the NAT is gone")?;
    let (mut by_inside, mut next) = (HashMap::new(), Some(0));
    while let Some(from) = next {
        let Piece { items, next: more } = instance.list(&SessionFilter::default(), from);
        by_inside.extend(items.into_iter().map(|(_, session)| (session.inside, session.external)));
        next = more;
    }
    // The few that found no room are others once more.
    let any = by_inside.values().next().copied().context("no session has begun")?;
    let external = |number| {
        let (address, port) = client(number);
        by_inside.get(&(address.into(), port)).copied().unwrap_or(any)
    };
    Ok(Externals::new((0..sessions).map(external)))
}

fn begin_one(eal: &Eal, sessions: u32, filtering: &str) -> anyhow::Result<Begun> {
    begin(eal, 1, sessions, filtering)?.pop().context("one worker has one NAT")
}

/// A chain in which each worker has its own of these, with packets for its sessions from both sides.
pub(crate) fn chain_of(begun: &[Begun], sessions: u32) -> Vec<Loaded> {
    let end = |name, entrance| {
        let externals: Vec<_> = begun.iter().map(|(_, externals)| externals.clone()).collect();
        let stores: [Shelf<Store>; 2] = no_stores();
        made(name, Affinity::Any, move |worker| {
            let store = stores.iter().find_map(Shelf::take).ok_or("more workers than stores")?;
            let externals = externals.get(worker.index()).cloned().filter(|_| entrance == Direction::Inbound);
            Ok(End::new(entrance, When::Arriving, Flows::All(sessions), store).anew(externals))
        })
    };
    let shelves: Vec<_> = begun.iter().map(|(shelf, _)| shelf.clone()).collect();
    let nat = made("nat", Affinity::Any, move |worker| {
        let shelf = shelves.get(worker.index()).ok_or("more workers than shelves")?;
        Ok(Kept(shelf.take().ok_or("another worker has the NAT")?))
    });
    vec![end("inside-end", Direction::Outbound), nat, end("outside-end", Direction::Inbound)]
}

/// Stands at the outside end while sessions begin: nobody sends from there.
struct Outside;

impl NetworkFunction for Outside {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() == Direction::Inbound {
            batch.decide_all(Verdict::Drop(DropReason::POLICY));
        }
    }
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(memory)?;
    let mut variants = vec![stage.macswap()];
    let mut all = Vec::new();
    for (name, sessions) in sizes(plan.quick) {
        all.push((row(name), sessions, begin_one(&stage.eal, sessions, "")?));
    }
    let by_both = "filtering = { udp = \"address-and-port-dependent\" }";
    all.push((filtered("64k"), 1 << 16, begin_one(&stage.eal, 1 << 16, by_both)?));
    for source in stage.rings()? {
        for (name, sessions, (shelf, externals)) in &all {
            let ends = Ends { externals: Some(externals.clone()), ..Flows::All(*sessions).into() };
            let base = format!("base, {name}");
            variants.push(stage.base_of(&source, &base, ends.clone()));
            let shelf = shelf.clone();
            let variant = stage.scored_over(&source, name, &base, ends, move || kept("nat", &shelf));
            let filtered = name.ends_with("filtered");
            variants.push(if filtered { variant } else { over_sessions(variant, &source, *sessions) });
        }
    }
    let rows = interleave(variants, plan)?;
    stage.stop()?;
    Ok(rows)
}

fn over_sessions<'a>(variant: Variant<'a>, source: &Source, sessions: u32) -> Variant<'a> {
    if [HOT, SHARED].contains(&source.name) {
        variant.at(Axis::Flows, source.name, f64::from(sessions))
    } else {
        variant
    }
}

/// The row of first packets.
pub(crate) fn first(sessions: &str) -> String {
    format!("first packet, {sessions} sessions")
}

/// The row of first packets where there is no room.
fn first_of_full(sessions: &str) -> String {
    format!("first packet, {sessions} sessions, table full")
}

/// A NAT in which sessions end as others begin.
struct Turnover {
    nat: Kept<Instance>,
    /// Sessions that there are.
    most: u64,
    /// Where those stand that end next.
    next: usize,
}

impl NetworkFunction for Turnover {
    #[inline]
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.nat.batch(batch, cx);
        let Some(nat) = self.nat.0.get() else { return };
        while nat.sessions() > self.most {
            self.next = nat.clear(&SessionFilter::default(), self.next, cx.now()).next.unwrap_or(0);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.nat.tick(cx, budget);
    }
}

const BASE_NEW: &str = "base";

pub(crate) fn run_new(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(memory)?;
    let mut variants = vec![stage.macswap(), first_packets(&stage.eal, BASE_NEW, 1 << 22, Vec::new)];
    for (name, sessions) in [("64k", 1_u32 << 16), ("1M", 1 << 20)] {
        for (row, most) in [(first(name), u64::from(sessions)), (first_of_full(name), u64::MAX)] {
            let maker = Maker::new(nat_config(sessions, 0, "")?)?;
            let shelf = Shelf::empty();
            let on_shelf = shelf.clone();
            let functions = move || {
                let (nat, policy, shelf) = (Arc::clone(&maker.nat), Arc::clone(&maker.policy), shelf.clone());
                vec![made("nat", Affinity::Any, move |worker| {
                    let nat = match shelf.take() {
                        Some(lent) => Kept(lent),
                        None => Kept(shelf.lend(nat.instance(Arc::clone(&policy), worker)?)),
                    };
                    Ok(Turnover { nat, most, next: 0 })
                })]
            };
            let wanted = most.min(u64::from(sessions + sessions / 4)) * 19 / 20;
            let begun = || on_shelf.take().and_then(|mut lent| Some(lent.get()?.sessions())).unwrap_or(0);
            // The same source goes on where this ends, so that none of its flows is known.
            let mut variant = first_packets(&stage.eal, &row, 4 * sessions, functions);
            for _ in 0..20 {
                if begun() < wanted {
                    variant.once(Duration::from_millis(300))?;
                }
            }
            ensure!(begun() >= wanted, "{} of {wanted} sessions have begun", begun());
            variants.push(variant.score(BASE_NEW, MACSWAP));
        }
    }
    let rows = interleave(variants, plan)?;
    stage.stop()?;
    Ok(rows)
}

/// Packets from inside by one port, each of another one of so many flows.
pub(crate) fn first_packets<'a>(
    eal: &'a Eal,
    name: &str,
    flows: u32,
    functions: impl Fn() -> Vec<Loaded> + 'a,
) -> Variant<'a> {
    let [store, _] = no_stores();
    Variant::new(name, move |slice| {
        let ports = PortsConfig { outside: None, ..config(Setting::new(NULL)).ports };
        let config = RuntimeConfig { ports, ..config(Setting::new(NULL)) };
        let store = store.clone();
        let source = made("source", Affinity::Any, move |_| {
            let store = store.take().ok_or("another worker has the packets")?;
            Ok(End::new(Direction::Outbound, When::Arriving, Flows::All(flows), store))
        });
        let chain = [source].into_iter().chain(functions()).collect();
        let (sample, report) = timed(Runtime::new(eal, &config, chain)?, slice)?;
        ensure!(report.balance.dropped == report.dropped("stopped"), "packets began nothing: {report}");
        Ok(sample)
    })
}
