//! The suite `firewall`: what a firewall costs for packets of connections that it knows, and for first packets, with
//! few rules and with many; the same with a NAT beside it; and what a worker sees of it when 10 000 rules are replaced.
//!
//! The connections are begun before anything is measured. How many rules there are is changed between slices, as a
//! reload does it: the same connections, in the same table, with other rules.

use crate::firewall_rules::with_rules;
use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::nat;
use crate::ours::{NULL, Setting, config, made, timed};
use crate::results::{Axis, Row};
use crate::scored::{self, Ends, HOT, SHARED, Stage};
use crate::source::{End, Flows, Kept, Shelf, Store, When, kept, no_stores};
use anyhow::{Context as _, anyhow, ensure};
use dpdk_rs::Eal;
use nf_framework::{
    Affinity, Batch, Context, Control, Direction, Function as _, Loaded, NetworkFunction, Runtime, WorkerSetup,
};
use nfs::firewall::{Firewall, Instance, Policy};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "firewall: packets of connections that are there, first ones, and with a NAT";

/// Beside the packets: tables of connections, and what is built of the rules.
pub(crate) const MEBIBYTES: u64 = scored::MEBIBYTES + 640;

const CONNECTIONS: [(&str, u32); 3] = [("1k", 1 << 10), ("64k", 1 << 16), ("1M", 1 << 20)];
const RULES: [(&str, u32); 3] = [("10", 10), ("1k", 1000), ("10k", 10_000)];

pub(crate) fn row(connections: &str, rules: &str) -> String {
    format!("{connections} connections, {rules} rules")
}

pub(crate) fn first(connections: &str, rules: &str) -> String {
    format!("first packet, {connections} connections, {rules} rules")
}

/// In one chain.
pub(crate) const WITH_NAT: &str = "firewall + NAT, 64k connections";

pub(crate) fn notes() -> Vec<String> {
    let own = [
        "both directions, UDP, a connection for each flow; the last of the rules has accepted it, and no other one is \
         about it; with NAT: 1k rules",
        "first packet: net_null, one port, every packet of a flow that has no connection, in a full table: each that \
         begins takes the place of another one; score over the same worker and source with Wire",
    ];
    scored::notes().into_iter().chain(own.map(str::to_owned)).collect()
}

/// So many rules, built.
fn policy(eal: &Eal, rules: u32, connections: u32) -> anyhow::Result<Arc<Policy>> {
    let policy = unbuilt(rules, connections)?;
    Firewall.build(&policy, &eal.memory()).map_err(|error| anyhow!("{rules} rules: {error}"))?;
    Ok(Arc::new(policy))
}

fn unbuilt(rules: u32, connections: u32) -> anyhow::Result<Policy> {
    let keys =
        format!("connections = {connections}\nconnections_v6 = 64\n[timeouts]\nudp = 86400\nudp_answered = 86400");
    let config = toml::from_str(&with_rules(rules, &keys)).context("the firewall's configuration")?;
    Firewall.policy(config).map_err(|invalid| anyhow!("{}: {}", invalid.key, invalid.message))
}

fn count(shelf: &Shelf<Instance>) -> u64 {
    shelf.take().and_then(|mut lent| Some(lent.get()?.sessions())).unwrap_or(0)
}

/// Begins a connection of each flow on each of so many workers, each of which has a firewall of its own.
pub(crate) fn begin(eal: &Eal, workers: usize, connections: u32) -> anyhow::Result<Vec<Shelf<Instance>>> {
    let policy = policy(eal, 10, connections + connections / 4)?;
    let shelves: Vec<Shelf<Instance>> = (0..workers).map(|_| Shelf::empty()).collect();
    let slice = Duration::from_millis(200) + Duration::from_micros(u64::from(connections));
    let least = || shelves.iter().map(count).min().unwrap_or(0);
    // One in a million may find that its part of the table is full.
    let enough = u64::from(connections - connections / 1000);
    // On a machine with others it takes longer.
    for _ in 0..10 {
        if least() >= enough {
            break;
        }
        let (firsts, policy) = (shelves.clone(), Arc::clone(&policy));
        // Made on the worker, and left on the shelf when that ends.
        let firewall = made("firewall", Affinity::Any, move |worker: &mut WorkerSetup| {
            let first = firsts.get(worker.index()).ok_or("more workers than shelves")?;
            match first.take() {
                Some(lent) => Ok(Kept(lent)),
                None => Ok(Kept(first.lend(Firewall.instance(Arc::clone(&policy), worker)?))),
            }
        });
        timed(Runtime::new(eal, &config(Setting::new(NULL)), between(connections, firewall))?, slice)?;
    }
    ensure!(least() >= enough, "{} of {connections} connections have begun", least());
    Ok(shelves)
}

/// Packets of so many flows from both sides of a function.
fn between(flows: u32, function: Loaded) -> Vec<Loaded> {
    let end = |name, entrance| {
        let stores: [Shelf<Store>; 2] = no_stores();
        made(name, Affinity::Any, move |_| {
            let store = stores.iter().find_map(Shelf::take).ok_or("more workers than stores")?;
            Ok(End::new(entrance, When::Arriving, Flows::All(flows), store))
        })
    };
    vec![end("inside-end", Direction::Outbound), function, end("outside-end", Direction::Inbound)]
}

/// A chain in which each worker has its own of these.
pub(crate) fn chain_of(begun: &[Shelf<Instance>], connections: u32) -> Vec<Loaded> {
    let shelves = begun.to_vec();
    let firewall = made("firewall", Affinity::Any, move |worker| {
        let shelf = shelves.get(worker.index()).ok_or("more workers than shelves")?;
        Ok(Kept(shelf.take().ok_or("another worker has the firewall")?))
    });
    between(connections, firewall)
}

/// The firewall on a shelf, with these rules.
fn with_policy(shelf: &Shelf<Instance>, policy: &Arc<Policy>) -> Vec<Loaded> {
    if let Some(mut lent) = shelf.take()
        && let Some(instance) = lent.get()
    {
        Firewall::adopt(instance, Arc::clone(policy));
    }
    kept("firewall", shelf)
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(memory)?;
    reload(&stage.eal)?;
    let policies = RULES.map(|(name, rules)| (name, rules, policy(&stage.eal, rules, 1 << 16)));
    let mut variants = vec![stage.macswap()];
    let begin_one = |connections| begin(&stage.eal, 1, connections)?.pop().context("one worker has one firewall");
    let all = CONNECTIONS.map(|(name, connections)| (name, connections, begin_one(connections)));
    let (translated, externals) = nat::begin(&stage.eal, 1, 1 << 16, "")?.pop().context("one worker has one NAT")?;
    for source in stage.rings()? {
        for (name, connections, shelf) in &all {
            let shelf = shelf.as_ref().map_err(|error| anyhow!("{name}: {error:#}"))?;
            let ends = Ends { anew: true, ..Flows::All(*connections).into() };
            let base = format!("base, {name}");
            variants.push(stage.base_of(&source, &base, ends.clone()));
            for (rules, number, policy) in &policies {
                let policy = Arc::clone(policy.as_ref().map_err(|error| anyhow!("{error:#}"))?);
                let shelf = shelf.clone();
                let functions = move || with_policy(&shelf, &policy);
                let variant = stage.scored_over(&source, &row(name, rules), &base, ends.clone(), functions);
                let plotted = *number == 10 && [HOT, SHARED].contains(&source.name);
                variants.push(match plotted {
                    true => variant.at(Axis::Flows, source.name, (*connections).into()),
                    false => variant,
                });
            }
        }
        let ends = Ends { externals: Some(externals.clone()), ..Flows::All(1 << 16).into() };
        let base = "base, NAT";
        variants.push(stage.base_of(&source, base, ends.clone()));
        let firewall = all[1].2.as_ref().map_err(|error| anyhow!("{error:#}"))?.clone();
        let (policy, translated) =
            (Arc::clone(policies[1].2.as_ref().map_err(|error| anyhow!("{error:#}"))?), translated.clone());
        let functions = move || [with_policy(&firewall, &policy), kept("nat", &translated)].concat();
        variants.push(stage.scored_over(&source, WITH_NAT, base, ends, functions));
    }
    variants.push(nat::first_packets(&stage.eal, BASE_FIRST, 1 << 22, Vec::new));
    for (name, connections) in CONNECTIONS.into_iter().skip(1) {
        for (rules, _, policy) in policies.iter().take(if connections == 1 << 16 { 3 } else { 1 }) {
            let policy = policy.as_ref().map_err(|error| anyhow!("{error:#}"))?;
            variants.push(first_packets_of(&stage.eal, &first(name, rules), connections, policy)?);
        }
    }
    let rows = interleave(variants, plan)?;
    stage.stop()?;
    Ok(rows)
}

const BASE_FIRST: &str = "first packet, base";

fn first_packets_of<'a>(eal: &'a Eal, name: &str, connections: u32, with: &Arc<Policy>) -> anyhow::Result<Variant<'a>> {
    let sized = policy(eal, 10, connections)?;
    let shelf = Shelf::empty();
    let on_shelf = shelf.clone();
    let with = Arc::clone(with);
    let functions = move || {
        let (shelf, sized) = (shelf.clone(), Arc::clone(&sized));
        let with = Arc::clone(&with);
        vec![made("firewall", Affinity::Any, move |worker: &mut WorkerSetup| match shelf.take() {
            Some(lent) => Ok(Kept(lent)),
            None => {
                let mut instance = Firewall.instance(Arc::clone(&sized), worker)?;
                Firewall::adopt(&mut instance, Arc::clone(&with));
                Ok(Kept(shelf.lend(instance)))
            }
        })]
    };
    // The same source goes on where this ends, so that none of its flows is known.
    let mut variant = nat::first_packets(eal, name, 4 * connections, functions);
    for _ in 0..20 {
        if count(&on_shelf) < u64::from(connections) {
            variant.once(Duration::from_millis(300))?;
        }
    }
    ensure!(count(&on_shelf) >= u64::from(connections), "{} of {connections} have begun", count(&on_shelf));
    Ok(variant.score(BASE_FIRST, MACSWAP))
}

/// Sees how long a worker has no batch.
struct Gaps {
    last: Option<nf_framework::Instant>,
    shared: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    packets: AtomicU64,
    longest: AtomicU64,
}

impl NetworkFunction for Gaps {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let now = cx.now();
        if let Some(last) = self.last.replace(now) {
            let gap = now.as_nanoseconds().saturating_sub(last.as_nanoseconds());
            self.shared.longest.fetch_max(gap, Ordering::Relaxed);
        }
        self.shared.packets.fetch_add(batch.undecided().count() as u64, Ordering::Relaxed);
    }
}

/// What a worker does in some time, and how long it did nothing at most.
struct Pace {
    packets_per_second: f64,
    longest: Duration,
}

impl Seen {
    fn during<T>(&self, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Pace)> {
        self.longest.store(0, Ordering::Relaxed);
        let (before, start) = (self.packets.load(Ordering::Relaxed), Instant::now());
        let done = act()?;
        let packets = self.packets.load(Ordering::Relaxed) - before;
        let packets_per_second = packets as f64 / start.elapsed().as_secs_f64();
        Ok((done, Pace { packets_per_second, longest: Duration::from_nanos(self.longest.load(Ordering::Relaxed)) }))
    }
}

/// Replaces 10 000 rules by others while packets of 64k connections go, and notes what that takes.
fn reload(eal: &Eal) -> anyhow::Result<()> {
    const CONNECTIONS: u32 = 1 << 16;
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    let gaps = made("gaps", Affinity::Any, move |_| Ok(Gaps { last: None, shared: Arc::clone(&shared) }));
    let policy = unbuilt(10_000, CONNECTIONS + CONNECTIONS / 4)?;
    let mut chain = between(CONNECTIONS, Loaded::new(Firewall, policy));
    chain.insert(1, gaps);
    let runtime = Runtime::new(eal, &config(Setting::new(NULL)), chain)?;
    let connections = |control: &Control| {
        let all = control.command::<Firewall, _>("firewall", |instance, _| instance.sessions());
        anyhow::Ok(all?.into_iter().sum::<u64>())
    };
    let memory = eal.memory();
    let (said, _) = runtime.run(|control| {
        let begun = Instant::now();
        while connections(control)? < u64::from(CONNECTIONS) {
            ensure!(begun.elapsed() < Duration::from_secs(20), "connections do not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
        let wait = || {
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        };
        let ((), quiet) = seen.during(wait)?;
        let start = Instant::now();
        let (policy, reading) = seen.during(|| unbuilt(10_000, CONNECTIONS + CONNECTIONS / 4))?;
        let read = start.elapsed();
        let (built, building) =
            seen.during(|| Firewall.build(&policy, &memory).map_err(|error| anyhow!("{error}")))?;
        let () = built;
        let build = start.elapsed() - read;
        let ((), adopting) = seen.during(|| Ok(control.publish::<Firewall>("firewall", Arc::new(policy))?))?;
        let adopt = start.elapsed() - read - build;
        let left = connections(control)?;
        ensure!(left >= u64::from(CONNECTIONS), "{left} of {CONNECTIONS} connections outlived a reload");
        let pace = |of: &Pace| format!("{:.1} million packets/s, longest gap {:.2} ms", of.packets_per_second / 1e6, of.longest.as_secs_f64() * 1e3);
        anyhow::Ok(format!(
            "reload of 10k rules, 64k connections: read and compared in {} ms, built in {} ms, in force {:.2} ms later; the \
             worker meanwhile: undisturbed {}; while they are read {}; while they are built {}; while they come into force \
             longest gap {:.2} ms",
            read.as_millis(),
            build.as_millis(),
            adopt.as_secs_f64() * 1e3,
            pace(&quiet),
            pace(&reading),
            pace(&building),
            adopting.longest.as_secs_f64() * 1e3,
        ))
    })?;
    println!("note {}", said?);
    Ok(())
}
