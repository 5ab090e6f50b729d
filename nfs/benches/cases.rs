//! The work whose instructions are counted, and nothing else: run by `scripts/budgets` and
//! `scripts/profile` under callgrind.
//!
//! `cases [--packets N] NAME..` runs cases one after the other. Each does the same for so many
//! packets, whenever and wherever it runs; what is counted lies between two calls of [`mark`].
//! `cases --list` says what there is.
#![forbid(unsafe_code)]

#[path = "shared/firewall_rules.rs"]
mod firewall_rules;
#[path = "shared/port_block.rs"]
mod port_block;
#[path = "shared/routed.rs"]
#[allow(dead_code, reason = "the other program has more uses for it")]
mod routed;

use anyhow::{Context as _, ensure};
use dpdk_rs::{Burst, Eal, HashKey, Mempool, MempoolConfig, PortBuilder, QueuePair, RssTableSize};
use nf_framework::headers::Headers;
use nf_framework::testing::Frame;
use nf_framework::{
    AdminConfig, Affinity, Batch, Class, Context, Counter, Direction, FlowTable, ForwardingKind, FragmentsConfig,
    Function, Handle, Instant, Invalid, Loaded, NetworkFunction, PortsConfig, Runtime, RuntimeConfig, SetupError,
    Steering, Tuple, WorkerSetup,
};
use nfs::{firewall, load_balancer, monitor, nat, rate_limit};
use port_block::PortBlock;
use routed::{Around, Destinations, Routed};
use std::array;
use std::hint::black_box;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Packets that are counted, unless told otherwise.
const PACKETS: u64 = 1 << 16;
/// Packets before those, so that caches of mempools and the like are as they stay.
const WARM_UP: u64 = 1 << 13;
const BURST: usize = Burst::USUAL;
/// A busy worker ticks after 64 rounds, each with a burst from two ports. It ticks after some
/// time too, and under callgrind everything takes that long.
const PACKETS_PER_TICK: u64 = 64 * 2 * BURST as u64;
/// Bursts on their way in each net_ring, whose rings hold 1023 packets.
const CIRCULATING: u32 = 4;
const RING: [&str; 2] = ["net_ring0", "net_ring1"];
const NULL: [&str; 2] = ["net_null0", "net_null1"];

/// Something to be counted.
struct Case {
    name: &'static str,
    /// What it is, for the table.
    help: &'static str,
    /// The case that it adds something to: what it adds has the budget.
    above: Option<&'static str>,
    run: Run,
}

/// Runs a case for so many packets.
type Run = fn(&Eal, u64) -> anyhow::Result<()>;

/// The empty worker, which functions are put into.
const EMPTY: &str = "worker";

/// The one that a NAT stands in.
const CLIENTS: &str = "worker-clients";

/// The one that a load balancer stands in that is not on the way back.
const REQUESTS: &str = "worker-requests";

/// The one that the router stands in, with packets of either family.
const ROUTED: &str = "worker-ipv4";
const ROUTED_V6: &str = "worker-ipv6";
const ROUTES: u32 = 1024;

/// Every case, in the order of the table.
const CASES: [Case; 31] = [
    case(EMPTY, "receive, Wire, send; net_ring", |eal, packets| worker(eal, RING, &[], packets)),
    case("worker-null", "the same on net_null, with the mempool's work", |eal, packets| {
        worker(eal, NULL, &[], packets)
    }),
    case("parse-ipv4-udp", "Headers::parse", |_, packets| parse(packets, &ipv4().udp(1000, 53).pad_to(64))),
    case("parse-ipv4-tcp", "Headers::parse", |_, packets| parse(packets, &ipv4().tcp(1000, 443).pad_to(64))),
    case("parse-ipv6-udp", "Headers::parse", |_, packets| {
        parse(packets, &Frame::new().ipv6([1; 16], [2; 16]).udp(1000, 53))
    }),
    case("parse-vlan", "Headers::parse, IPv4 UDP behind a tag", |_, packets| {
        parse(packets, &Frame::new().vlan(7).ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, 53))
    }),
    case("flow-table-hit", "FlowTable, look-up of 32 keys that are there", |eal, packets| look_up(eal, 0, packets)),
    case("flow-table-miss", "FlowTable, look-up of 32 keys that are not", |eal, packets| look_up(eal, FLOWS, packets)),
    case("flow-table-new", "FlowTable, an insertion and a removal", insert_and_remove),
    case("steering", "the owner of an IPv4 UDP frame", |_, packets| steering(packets)),
    function("fragments", "what looking for them adds to the worker", |eal, packets| {
        let idle = |_: &mut WorkerSetup| Ok(Idle);
        worker(eal, RING, &[Loaded::new(Made("idle", Affinity::Flow, idle), ())], packets)
    }),
    function("monitor", "what it adds to the worker", |eal, packets| {
        worker(eal, RING, &[Loaded::new(monitor::Monitor, ())], packets)
    }),
    function("rate-limit", "what it adds to the worker", |eal, packets| {
        let config = rate_limit::Config { packets_per_second: 1_000_000_000, burst: Some(1_000_000_000) };
        let policy = rate_limit::RateLimit.policy(config).map_err(|invalid| anyhow::anyhow!(invalid.message))?;
        worker(eal, RING, &[Loaded::new(rate_limit::RateLimit, policy)], packets)
    }),
    function("port-block", "what the example adds to the worker", |eal, packets| {
        worker(eal, RING, &[Loaded::new(Made("port-block", Affinity::Any, PortBlock::new), ())], packets)
    }),
    case(CLIENTS, "the worker with packets of 256 clients and replies to them, and Wire", |eal, packets| {
        worker(eal, RING, &clients([]), packets)
    }),
    Case {
        above: Some(CLIENTS),
        ..case("nat", "what NAT adds, all sessions known", |eal, packets| {
            let text = "[[pools]]\naddresses = [\"198.18.0.0/30\"]";
            let nat = nat::Nat::new();
            let policy = nat.policy(toml::from_str(text)?).map_err(|invalid| anyhow::anyhow!(invalid.message))?;
            worker(eal, RING, &clients([Loaded::new(nat, policy)]), packets)
        })
    },
    case("nat-new", "the worker with NAT, each packet a new session in place of the oldest", |eal, packets| {
        let text = "sessions = 4096\n[[pools]]\naddresses = [\"198.18.0.0/30\"]\n[timeouts]\nport_quiet = 0";
        let nat = nat::Nat::new();
        let policy = nat.policy(toml::from_str(text)?).map_err(|invalid| anyhow::anyhow!(invalid.message))?;
        let newcomers = Made("newcomers", Affinity::Any, |_: &mut WorkerSetup| Ok(Newcomers(0)));
        let config = config(RING, ForwardingKind::Wire);
        let one_armed = RuntimeConfig { ports: PortsConfig { outside: None, ..config.ports }, ..config };
        worker_as(eal, RING, one_armed, &[Loaded::new(newcomers, ()), Loaded::new(nat, policy)], packets)
    }),
    case(REQUESTS, "the worker with packets of 256 clients, from both sides, and Wire", |eal, packets| {
        worker(eal, RING, &requests([]), packets)
    }),
    balancer("load-balancer-dsr", "what a load balancer adds, all connections known, direct return", |eal, packets| {
        worker(eal, RING, &requests([balanced("dsr", "")?]), packets)
    }),
    balancer("load-balancer-ipip", "the same, each packet into a tunnel", |eal, packets| {
        worker(eal, RING, &requests([balanced("ipip", "tunnel_sources = [\"10.255.0.0/16\"]")?]), packets)
    }),
    balancer("load-balancer-dscp", "the same, each packet to its backend's own address", |eal, packets| {
        worker(eal, RING, &requests([balanced("dscp", "")?]), packets)
    }),
    Case {
        above: Some(CLIENTS),
        ..case(
            "load-balancer-full-nat",
            "what a load balancer adds, all connections known, full NAT",
            |eal, packets| {
                worker(eal, RING, &clients([balanced("full-nat", "source_addresses = [\"198.18.1.1\"]")?]), packets)
            },
        )
    },
    firewall("firewall", "what a firewall with 10 rules adds, all connections known", |eal, packets| {
        worker(eal, RING, &clients([firewall_with(10, "")?]), packets)
    }),
    firewall("firewall-1k", "the same with 1000 rules", |eal, packets| {
        worker(eal, RING, &clients([firewall_with(1000, "")?]), packets)
    }),
    firewall("firewall-10k", "the same with 10 000 rules", |eal, packets| {
        worker(eal, RING, &clients([firewall_with(10_000, "")?]), packets)
    }),
    case(
        "firewall-new",
        "the worker with a firewall, each packet a new connection in place of the oldest",
        |eal, packets| firewall_new(eal, 10, packets),
    ),
    case(ROUTED, "the worker with packets to be routed, and Wire", |eal, packets| {
        routed(eal, ForwardingKind::Wire, Destinations::V4(ROUTES), packets)
    }),
    case(ROUTED_V6, "the same with IPv6", |eal, packets| {
        routed(eal, ForwardingKind::Wire, Destinations::V6(ROUTES), packets)
    }),
    router("router-ipv4", ROUTED, "what the router adds, 1k routes", |eal, packets| {
        routed(eal, ForwardingKind::Router, Destinations::V4(ROUTES), packets)
    }),
    router("router-ipv6", ROUTED_V6, "what the router adds, 1k routes", |eal, packets| {
        routed(eal, ForwardingKind::Router, Destinations::V6(ROUTES), packets)
    }),
    router("router-neighbours", ROUTED, "what the router adds, 1k neighbours", |eal, packets| {
        routed(eal, ForwardingKind::Router, Destinations::Neighbours(1024), packets)
    }),
];

const fn case(name: &'static str, help: &'static str, run: Run) -> Case {
    Case { name, help, above: None, run }
}

const fn function(name: &'static str, help: &'static str, run: Run) -> Case {
    Case { name, help, above: Some(EMPTY), run }
}

const fn firewall(name: &'static str, help: &'static str, run: Run) -> Case {
    Case { name, help, above: Some(CLIENTS), run }
}

const fn router(name: &'static str, above: &'static str, help: &'static str, run: Run) -> Case {
    Case { name, help, above: Some(above), run }
}

const fn balancer(name: &'static str, help: &'static str, run: Run) -> Case {
    Case { name, help, above: Some(REQUESTS), run }
}

fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if names == ["--list"] {
        for Case { name, help, above, .. } in &CASES {
            println!("{name}\t{PACKETS}\t{PACKETS_PER_TICK}\t{}\t{help}", above.unwrap_or_default());
        }
        return Ok(());
    }
    let (packets, names) = match &names[..] {
        [option, packets, names @ ..] if option == "--packets" => (packets.parse()?, names),
        names => (PACKETS, names),
    };
    let find = |name: &String| CASES.iter().find(|case| case.name == name).with_context(|| format!("no case {name}"));
    run(&names.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?, packets)
}

/// Runs cases one after the other, each between two marks.
fn run(cases: &[&Case], packets: u64) -> anyhow::Result<()> {
    let fixed = ["budgets", "--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "128", "--log-level=error"];
    let devices = RING.iter().chain(&NULL).map(|device| format!("--vdev={device}"));
    let (eal, _) = Eal::init(fixed.map(str::to_owned).into_iter().chain([lcore()]).chain(devices))?;
    cases.iter().try_for_each(|case| (case.run)(&eal, packets).context(case.name))
}

/// One lcore, on any of the CPUs that this process may use.
fn lcore() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    format!("--lcores=0@({})", cpus.map_or("0", str::trim))
}

/// Callgrind writes down what it has counted whenever this is called, and begins anew.
#[inline(never)]
fn mark() {
    black_box(0);
}

fn ipv4() -> Frame {
    Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1])
}

/// Does something for a burst at a time, without a worker around it.
fn bursts(packets: u64, mut burst: impl FnMut()) {
    (0..WARM_UP / BURST as u64).for_each(|_| burst());
    mark();
    (0..packets / BURST as u64).for_each(|_| burst());
    mark();
}

fn parse(packets: u64, frame: &Frame) -> anyhow::Result<()> {
    let mut frames: [Vec<u8>; BURST] = array::from_fn(|_| frame.build());
    ensure!(Headers::parse(&mut frames[0]).is_ok_and(|headers| headers.transport.ports().is_some()), "no ports");
    bursts(packets, || {
        for frame in &mut frames {
            let Ok(headers) = Headers::parse(black_box(frame)) else { continue };
            black_box(headers.transport.ports());
        }
    });
    Ok(())
}

type Key = [u8; 16];

/// Flows in the table, which has room for a quarter more.
const FLOWS: u32 = 4096;

fn key(number: u32) -> Key {
    let mut key = *b"flow....192.0.2.";
    key[4..8].copy_from_slice(&number.to_be_bytes());
    key
}

fn flow_table(eal: &Eal) -> anyhow::Result<FlowTable<Key, u64>> {
    let capacity = FLOWS as usize + FLOWS as usize / 4;
    let mut table = FlowTable::with_capacity(&eal.memory(), capacity, HashKey::from_seed(1))?;
    for number in 0..FLOWS {
        let inserted = table.insert(key(number), 0, Class::KEPT, Instant::START, LATER, |_| ());
        ensure!(inserted.is_ok(), "the flow table is full");
    }
    Ok(table)
}

/// No flow expires.
const LATER: Instant = Instant::from_nanoseconds(1 << 40);

/// Keys of so many flows, from a number on, in an order that is not theirs.
fn keys(first: u32) -> Vec<Key> {
    (0..FLOWS).map(|number| key(first + number.wrapping_mul(2_654_435_761) % FLOWS)).collect()
}

fn look_up(eal: &Eal, first: u32, packets: u64) -> anyhow::Result<()> {
    let table = flow_table(eal)?;
    let keys = keys(first);
    let mut found: [Option<Handle>; BURST] = [None; BURST];
    table.lookup_batch(&keys[..BURST], &mut found);
    ensure!(found.iter().all(|found| found.is_some() == (first == 0)), "the look-ups are not what they should be");
    let mut batches = keys.chunks_exact(BURST).cycle();
    bursts(packets, || {
        if let Some(keys) = batches.next() {
            table.lookup_batch(black_box(keys), &mut found);
            black_box(&found);
        }
    });
    Ok(())
}

fn insert_and_remove(eal: &Eal, packets: u64) -> anyhow::Result<()> {
    let mut table = flow_table(eal)?;
    let keys = keys(FLOWS);
    let mut batches = keys.chunks_exact(BURST).cycle();
    bursts(packets, || {
        for key in batches.next().unwrap_or_default() {
            let inserted = table.insert(*key, 1, Class::EMBRYONIC, Instant::START, LATER, |_| ());
            if let Ok(inserted) = inserted {
                black_box(table.remove(inserted.handle()));
            }
        }
    });
    let counters = table.counters();
    ensure!(counters.removed == WARM_UP + packets, "not every key was inserted and removed: {counters:?}");
    Ok(())
}

fn steering(packets: u64) -> anyhow::Result<()> {
    let workers = NonZero::new(4).context("not zero")?;
    let steering = Steering::new(Affinity::Flow, workers, RssTableSize::new(128)?, 1)?;
    let mut frames: [Vec<u8>; BURST] = array::from_fn(|_| ipv4().udp(1000, 53).pad_to(64).build());
    bursts(packets, || {
        for frame in &mut frames {
            let tuple = Tuple::of_frame(black_box(frame));
            black_box(tuple.map(|tuple| steering.owner(Direction::Outbound, &tuple)));
        }
    });
    Ok(())
}

/// A whole worker as a program runs it: two ports, these functions, and `Wire`. Packets that
/// net_ring sends come back; net_null takes each from the pool and frees it.
fn worker(eal: &Eal, ports: [&str; 2], functions: &[Loaded], packets: u64) -> anyhow::Result<()> {
    worker_as(eal, ports, config(ports, ForwardingKind::Wire), functions, packets)
}

fn worker_as(
    eal: &Eal,
    ports: [&str; 2],
    config: RuntimeConfig,
    functions: &[Loaded],
    packets: u64,
) -> anyhow::Result<()> {
    let pool = circulating(eal)?;
    if ports == RING {
        fill_rings(eal, &pool)?;
    }
    let (meter, all_counted) = meter(packets);
    let runtime = Runtime::new(eal, &config, [&[meter], functions].concat())?;
    let (finished, report) = runtime.run(move |_| all_counted.recv().is_ok())?;
    ensure!(finished, "the worker ended early");
    let (balance, batches) = (report.balance, report.counter("meter", "batches").unwrap_or(0));
    ensure!(balance.sent == balance.received, "not every packet was sent: {balance:?}");
    ensure!(balance.received == batches * BURST as u64, "not every burst was full: {balance:?}");
    drain_rings(eal, &pool)
}

/// A worker whose packets a router can forward, which is as fast on a machine that has no time for it.
fn routed(eal: &Eal, forwarding: ForwardingKind, to: Destinations, packets: u64) -> anyhow::Result<()> {
    let pool = circulating(eal)?;
    fill_rings(eal, &pool)?;
    let mut macs = [[0; 6]; 2];
    for (mac, (port, queues)) in macs.iter_mut().zip(ring_queues(eal, &pool)?) {
        *mac = port.info()?.mac_address;
        port.stop(vec![queues])?;
    }
    let Routed { config: router, flows } = Routed::new(to, macs)?;
    let speaks = forwarding == ForwardingKind::Router;
    let (meter, all_counted) = meter(packets);
    let config = RuntimeConfig { router: speaks.then_some(router), ..config(RING, forwarding) };
    let runtime = Runtime::new(eal, &config, vec![meter])?;
    let runtime = runtime.around(move |inner| Box::new(Around::new(inner, &flows, speaks, ()).still()));
    let (finished, report) = runtime.run(move |_| all_counted.recv().is_ok())?;
    ensure!(finished, "the worker ended early");
    let batches = report.counter("meter", "batches").unwrap_or(0);
    let seen = report.functions.iter().find(|function| function.name == "meter").map_or(0, |meter| meter.seen);
    // Until its neighbours had spoken, and behind announcements, it had fewer.
    ensure!(seen + 64 * BURST as u64 >= batches * BURST as u64, "not every burst was full: {report}");
    drain_rings(eal, &pool)
}

/// A load balancer with one service, of UDP, and ten backends.
fn balanced(mode: &str, more: &str) -> anyhow::Result<Loaded> {
    let dscp = if mode == "dscp" { "dscp = 1\n" } else { "" };
    let backends: String =
        (1..=10).map(|number| format!("[[services.backends]]\naddress = \"198.18.0.{number}\"\n")).collect();
    let text = format!(
        "connections = 4096\nconnections_ipv6 = 64\n{more}\n[[services]]\nname = \"service\"\n\
         address = \"192.0.2.1\"\nport = 443\nprotocol = \"udp\"\nmode = \"{mode}\"\n{dscp}{backends}"
    );
    let balancer = load_balancer::LoadBalancer::new();
    let policy = balancer.policy(toml::from_str(&text)?).map_err(|invalid| anyhow::anyhow!(invalid.message))?;
    Ok(Loaded::new(balancer, policy))
}

/// Functions with clients on both sides.
fn requests<const N: usize>(functions: [Loaded; N]) -> Vec<Loaded> {
    let end = |name, entrance| {
        Loaded::new(
            Made(name, Affinity::Any, move |_: &mut WorkerSetup| Ok(Requests(Clients { next: 0, entrance }))),
            (),
        )
    };
    let (inside, outside) = (end("inside-clients", Direction::Outbound), end("outside-clients", Direction::Inbound));
    [inside].into_iter().chain(functions).chain([outside]).collect()
}

/// A firewall with so many rules, the last of which accepts what clients send.
fn firewall_with(rules: u32, keys: &str) -> anyhow::Result<Loaded> {
    let config = toml::from_str(&firewall_rules::with_rules(rules, keys))?;
    let policy = firewall::Firewall.policy(config).map_err(|invalid| anyhow::anyhow!(invalid.message))?;
    Ok(Loaded::new(firewall::Firewall, policy))
}

fn firewall_new(eal: &Eal, rules: u32, packets: u64) -> anyhow::Result<()> {
    let newcomers = Made("newcomers", Affinity::Any, |_: &mut WorkerSetup| Ok(Newcomers(0)));
    let config = config(RING, ForwardingKind::Wire);
    let one_armed = RuntimeConfig { ports: PortsConfig { outside: None, ..config.ports }, ..config };
    let functions = [Loaded::new(newcomers, ()), firewall_with(rules, "connections = 4096")?];
    worker_as(eal, RING, one_armed, &functions, packets)
}

/// Functions between clients and a server that answers what comes.
fn clients<const N: usize>(functions: [Loaded; N]) -> Vec<Loaded> {
    let entrance = Direction::Outbound;
    let client = Made("clients", Affinity::Any, move |_: &mut WorkerSetup| Ok(Clients { next: 0, entrance }));
    let server =
        Made("server", Affinity::Any, |_: &mut WorkerSetup| Ok(Server { heads: [[0; HEAD]; 256], came: 0, left: 0 }));
    [Loaded::new(client, ())].into_iter().chain(functions).chain([Loaded::new(server, ())]).collect()
}

/// Ethernet, IPv4, UDP, and four octets behind.
const HEAD: usize = 46;

/// Writes packets of one client after the other as they arrive on their side.
struct Clients {
    next: u8,
    entrance: Direction,
}

/// Takes off what a function has noted beside packets, as the router does: net_ring hands them round as they are.
fn forget(batch: &mut Batch) {
    for (_, packet) in batch.undecided_packets() {
        packet.set_annotation(None);
    }
}

/// Octets of a packet that circulates.
const FRAME: usize = 64;

/// Clients, and where packets leave that are addressed to backends: what a function has put before them, or noted
/// beside them, goes.
struct Requests(Clients);

impl NetworkFunction for Requests {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() == self.0.entrance {
            return self.0.batch(batch, cx);
        }
        for (_, packet) in batch.undecided_packets() {
            let _ = packet.adj(packet.len().saturating_sub(FRAME));
            packet.set_marked(false);
        }
        forget(batch);
    }
}

impl NetworkFunction for Clients {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() != self.entrance {
            forget(batch);
            return;
        }
        for slot in batch.undecided() {
            let Some(head) = batch.packet_mut(slot).and_then(|packet| packet.data_mut().first_chunk_mut::<HEAD>())
            else {
                continue;
            };
            *head = CLIENT;
            (head[29], head[35]) = (self.next, self.next);
            make_up_for_differences(head);
            self.next = self.next.wrapping_add(1);
        }
    }
}

/// Writes packets of a host and port that were not there before.
struct Newcomers(u32);

impl NetworkFunction for Newcomers {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        for (_, packet) in batch.undecided_packets() {
            let Some(head) = packet.data_mut().first_chunk_mut::<HEAD>() else { continue };
            *head = CLIENT;
            let [_, high, middle, low] = self.0.to_be_bytes();
            (head[29], head[34], head[35]) = (low, high | 0x10, middle);
            make_up_for_differences(head);
            self.0 = self.0.wrapping_add(1);
        }
    }
}

/// A packet of 10.0.0.0 port 4096 to 192.0.2.1 port 443, whose checksums are right for all clients.
const CLIENT: [u8; HEAD] = [
    2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 50, 0xff, 0xff, 0x40, 0, 64, 17, 0x6e, 0xba, 10, 0, 0, 0,
    192, 0, 2, 1, 16, 0, 1, 0xbb, 0, 30, 0x31, 0xf6, 0xff, 0xff, 0xef, 0xff,
];

/// The identification and the payload have the complements of the client's address and port.
fn make_up_for_differences(head: &mut [u8; HEAD]) {
    let (low, port) = ([!head[28], !head[29]], [!head[34], !head[35]]);
    head[18..20].copy_from_slice(&low);
    head[42..44].copy_from_slice(&low);
    head[44..46].copy_from_slice(&port);
}

/// Writes answers, as they arrive from outside, to what has left there.
struct Server {
    heads: [[u8; HEAD]; 256],
    came: u8,
    left: u8,
}

impl NetworkFunction for Server {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() == Direction::Outbound {
            forget(batch);
        }
        for slot in batch.undecided() {
            let Some(head) = batch.packet_mut(slot).and_then(|packet| packet.data_mut().first_chunk_mut::<HEAD>())
            else {
                continue;
            };
            if cx.direction() == Direction::Outbound {
                let answer = &mut self.heads[usize::from(self.left)];
                *answer = *head;
                answer[26..30].copy_from_slice(&head[30..34]);
                answer[30..34].copy_from_slice(&head[26..30]);
                answer[34..36].copy_from_slice(&head[36..38]);
                answer[36..38].copy_from_slice(&head[34..36]);
                self.left = self.left.wrapping_add(1);
            } else {
                *head = self.heads[usize::from(self.came)];
                self.came = self.came.wrapping_add(1);
            }
        }
    }
}

fn circulating(eal: &Eal) -> anyhow::Result<Mempool> {
    Ok(Mempool::new(eal, "circulating", MempoolConfig { size: 1023, ..MempoolConfig::default() })?)
}

fn meter(packets: u64) -> (Loaded, Receiver<()>) {
    let (counted, all_counted) = sync_channel(1);
    let meter = move |worker: &mut WorkerSetup| {
        Ok(Meter {
            batches: 0,
            last: (WARM_UP + packets) / BURST as u64,
            counter: worker.counter("batches"),
            counted: counted.clone(),
        })
    };
    (Loaded::new(Made("meter", Affinity::Any, meter), ()), all_counted)
}

fn config(ports: [&str; 2], forwarding: ForwardingKind) -> RuntimeConfig {
    let [inside, outside] = ports.map(str::to_owned);
    RuntimeConfig {
        chain: None,
        forwarding: Some(forwarding),
        ports: PortsConfig { outside: Some(outside), descriptors: Some(256), ..PortsConfig::new(inside) },
        burst: BURST,
        packets: Some(2047),
        fragments: FragmentsConfig::default(),
        admin: AdminConfig::default(),
        router: None,
    }
}

fn ring_queues(eal: &Eal, pool: &Mempool) -> anyhow::Result<Vec<(dpdk_rs::Port, QueuePair)>> {
    let start = |name: &&str| {
        let id = eal.port_by_name(name).with_context(|| format!("no port {name}"))?;
        let (port, queues) = PortBuilder::new(eal, id).pool(pool).start()?;
        Ok((port, queues.into_iter().next().context("no queues")?))
    };
    RING.iter().map(start).collect()
}

fn fill_rings(eal: &Eal, pool: &Mempool) -> anyhow::Result<()> {
    let frame = ipv4().udp(1000, 53).pad_to(FRAME).build();
    let mut burst = Burst::new();
    for (port, mut queues) in ring_queues(eal, pool)? {
        for _ in 0..CIRCULATING {
            ensure!(pool.alloc_bulk(&mut burst), "the pool is too small");
            ensure!(burst.iter_mut().all(|packet| packet.set_contents(&frame)), "the frame does not fit");
            queues.tx.send(&mut burst);
            ensure!(burst.is_empty(), "a ring is full");
        }
        port.stop(vec![queues])?;
    }
    Ok(())
}

fn drain_rings(eal: &Eal, pool: &Mempool) -> anyhow::Result<()> {
    let mut burst = Burst::new();
    for (port, mut queues) in ring_queues(eal, pool)? {
        while queues.rx.receive(&mut burst) > 0 {
            burst.clear();
        }
        port.stop(vec![queues])?;
    }
    Ok(())
}

/// Marks the beginning and the end of what is counted, and lets everything pass.
struct Meter {
    batches: u64,
    last: u64,
    /// The same for the report, by which it is seen that all of them were full.
    counter: Counter,
    counted: SyncSender<()>,
}

impl NetworkFunction for Meter {
    fn batch(&mut self, _: &mut Batch, _: &mut Context<'_>) {
        self.batches += 1;
        self.counter.add(1);
        if self.batches == WARM_UP / BURST as u64 {
            mark();
        } else if self.batches == self.last {
            mark();
            // The other end waits for this.
            let _ = self.counted.try_send(());
        }
    }
}

/// Does nothing, whatever it says that it needs.
struct Idle;

impl NetworkFunction for Idle {
    fn batch(&mut self, _: &mut Batch, _: &mut Context<'_>) {}
}

/// A control object that makes its instances and has no configuration.
struct Made<M>(&'static str, Affinity, M);

impl<I, M> Function for Made<M>
where
    I: NetworkFunction,
    M: Fn(&mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
{
    type Config = ();
    type Policy = ();
    type Instance = I;

    fn name(&self) -> &str {
        self.0
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn affinity(&self, (): &()) -> Affinity {
        self.1
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<I, SetupError> {
        (self.2)(worker)
    }

    fn adopt(_: &mut I, _: Arc<()>) {}
}
