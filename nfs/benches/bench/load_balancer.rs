//! The suite `load-balancer`: what a load balancer costs for packets of connections that it has, by how many it has
//! and how it sends them on, and what the first packet of one costs.
//!
//! The connections are begun before anything is measured, by the packets of their clients.

use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::{NULL, Setting, config, made, timed};
use crate::results::{Axis, Row};
use crate::scored::{self, Ends, HOT, SHARED, Stage};
use crate::source::{End, Flows, Kept, Shelf, Store, When, kept, no_stores};
use anyhow::{Context as _, anyhow, ensure};
use dpdk_rs::Eal;
use nf_framework::{
    Affinity, Direction, Function as _, Loaded, NetworkFunction, PortsConfig, Runtime, RuntimeConfig, SetupError,
    WorkerSetup,
};
use nfs::load_balancer::{Instance, LoadBalancer, Policy};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ABOUT: &str = "load balancer: packets of connections that are there, and first ones";

/// Beside the packets: tables for all the connections of each mode.
pub(crate) fn mebibytes(_quick: bool) -> u64 {
    scored::MEBIBYTES
        + MODES.len() as u64 * CONNECTIONS.iter().map(|(_, all)| (u64::from(*all) * 96) >> 20).sum::<u64>()
}

const CONNECTIONS: [(&str, u32); 3] = [("1k", 1 << 10), ("64k", 1 << 16), ("1M", 1 << 20)];

/// Names of modes in rows, and what is written in the service's table.
const MODES: [(&str, &str); 3] = [(DSR, "dsr"), (TUNNEL, "ipip"), ("GUE", "gue")];
pub(crate) const DSR: &str = "DSR";
pub(crate) const TUNNEL: &str = "IPIP";

const BACKENDS: u8 = 100;

pub(crate) fn row(mode: &str, connections: &str) -> String {
    format!("{mode}, {connections} connections")
}

/// The row of first packets.
pub(crate) fn first(connections: &str) -> String {
    format!("first packet, {connections} connections")
}

pub(crate) fn notes() -> Vec<String> {
    let own = [
        "packets of clients to one service of UDP with a hundred backends, from both sides; of each connection in the \
         table one after the other",
        "first packet: net_null, one port, every packet of a flow that has no connection, in a full table of so many: each \
         that begins takes the place of another one; score over the same worker and source with Wire",
    ];
    scored::notes().into_iter().chain(own.map(str::to_owned)).collect()
}

/// Makes an instance as a program's worker does.
struct Maker {
    balancer: Arc<LoadBalancer>,
    policy: Arc<Policy>,
}

impl Maker {
    fn new(mode: &str, connections: u32) -> anyhow::Result<Self> {
        let mut text = format!(
            "connections = {connections}\nconnections_ipv6 = 64\ninsertions_per_second = 4000000000\n\
             tunnel_sources = [\"10.255.0.0/16\"]\n[timeouts]\nudp = 86400\n\
             [[services]]\nname = \"service\"\naddress = \"192.0.2.1\"\nport = 443\nprotocol = \"udp\"\nmode = \"{mode}\"\n"
        );
        for backend in 1..=BACKENDS {
            writeln!(text, "[[services.backends]]\naddress = \"198.18.0.{backend}\"")?;
        }
        let balancer = LoadBalancer::new();
        let config = toml::from_str(&text).context("the load balancer's configuration")?;
        let policy = balancer.policy(config).map_err(|invalid| anyhow!("{}: {}", invalid.key, invalid.message))?;
        Ok(Self { balancer: Arc::new(balancer), policy: Arc::new(policy) })
    }

    fn instance(&self, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        self.balancer.instance(Arc::clone(&self.policy), worker)
    }
}

fn count(shelf: &Shelf<Instance>) -> u64 {
    shelf.take().and_then(|mut lent| Some(lent.get()?.sessions())).unwrap_or(0)
}

/// Begins a connection of each flow on each of so many workers, each of which has a load balancer of its own.
pub(crate) fn begin(eal: &Eal, workers: usize, mode: &str, connections: u32) -> anyhow::Result<Vec<Shelf<Instance>>> {
    let maker = Arc::new(Maker::new(mode, connections + connections / 4)?);
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
        let (firsts, maker) = (shelves.clone(), Arc::clone(&maker));
        // Made on the worker, and left on the shelf when that ends.
        let balancer = made("load-balancer", Affinity::Any, move |worker| {
            let first = firsts.get(worker.index()).ok_or("more workers than shelves")?;
            match first.take() {
                Some(lent) => Ok(Kept(lent)),
                None => Ok(Kept(first.lend(maker.instance(worker)?))),
            }
        });
        let chain = vec![source(Direction::Outbound, connections), balancer, source(Direction::Inbound, connections)];
        timed(Runtime::new(eal, &config(Setting::new(NULL)), chain)?, slice)?;
    }
    ensure!(least() >= enough, "{} of {connections} connections have begun", least());
    Ok(shelves)
}

/// Packets of so many flows of clients, at one end of the chain.
fn source(entrance: Direction, flows: u32) -> Loaded {
    let stores: [Shelf<Store>; 2] = no_stores();
    made(if entrance == Direction::Outbound { "inside-end" } else { "outside-end" }, Affinity::Any, move |_| {
        let store = stores.iter().find_map(Shelf::take).ok_or("more workers than stores")?;
        Ok(End::new(entrance, When::Arriving, Flows::All(flows), store).of_clients())
    })
}

/// A chain in which each worker has its own of these.
pub(crate) fn chain_of(begun: &[Shelf<Instance>], connections: u32) -> Vec<Loaded> {
    let shelves = begun.to_vec();
    let balancer = made("load-balancer", Affinity::Any, move |worker| {
        let shelf = shelves.get(worker.index()).ok_or("more workers than shelves")?;
        Ok(Kept(shelf.take().ok_or("another worker has the load balancer")?))
    });
    vec![source(Direction::Outbound, connections), balancer, source(Direction::Inbound, connections)]
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(memory)?;
    let mut variants = vec![stage.macswap()];
    let mut all = Vec::new();
    for (name, connections) in CONNECTIONS {
        for (mode, key) in MODES {
            let begun = begin(&stage.eal, 1, key, connections)?.pop().context("one worker has one load balancer")?;
            all.push((mode, name, connections, begun));
        }
    }
    for source in stage.rings()? {
        for (name, connections) in CONNECTIONS {
            let ends = Ends { of_clients: true, ..Flows::All(connections).into() };
            let base = format!("base, {name}");
            variants.push(stage.base_of(&source, &base, ends.clone()));
            for (mode, _, _, shelf) in all.iter().filter(|(_, of, ..)| *of == name) {
                let shelf = shelf.clone();
                let functions = move || kept("load-balancer", &shelf);
                let variant = stage.scored_over(&source, &row(mode, name), &base, ends.clone(), functions);
                let plotted = *mode == DSR && [HOT, SHARED].contains(&source.name);
                variants.push(if plotted { variant.at(Axis::Flows, source.name, connections.into()) } else { variant });
            }
        }
    }
    variants.push(first_packets(&stage.eal, BASE_FIRST, 1 << 22, Vec::new));
    for (name, connections) in CONNECTIONS.into_iter().skip(1) {
        variants.push(first_packets_of(&stage.eal, name, connections)?);
    }
    let rows = interleave(variants, plan)?;
    stage.stop()?;
    Ok(rows)
}

const BASE_FIRST: &str = "first packet, base";

fn first_packets_of<'a>(eal: &'a Eal, name: &str, connections: u32) -> anyhow::Result<Variant<'a>> {
    let maker = Maker::new("dsr", connections)?;
    let shelf = Shelf::empty();
    let on_shelf = shelf.clone();
    let functions = move || {
        let (balancer, policy, shelf) = (Arc::clone(&maker.balancer), Arc::clone(&maker.policy), shelf.clone());
        vec![made("load-balancer", Affinity::Any, move |worker| match shelf.take() {
            Some(lent) => Ok(Kept(lent)),
            None => Ok(Kept(shelf.lend(balancer.instance(Arc::clone(&policy), worker)?))),
        })]
    };
    // The same source goes on where this ends, so that none of its flows is known.
    let mut variant = first_packets(eal, &first(name), 4 * connections, functions);
    let enough = u64::from(connections) * 19 / 20;
    for _ in 0..20 {
        if count(&on_shelf) < enough {
            variant.once(Duration::from_millis(300))?;
        }
    }
    ensure!(count(&on_shelf) >= enough, "{} of {connections} have begun", count(&on_shelf));
    Ok(variant.score(BASE_FIRST, MACSWAP))
}

/// Packets by one port, each of another one of so many flows.
fn first_packets<'a>(eal: &'a Eal, name: &str, flows: u32, functions: impl Fn() -> Vec<Loaded> + 'a) -> Variant<'a> {
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
        ensure!(report.balance.dropped == report.dropped("stopped"), "packets began no connection: {report}");
        Ok(sample)
    })
}
