//! The suite `load-balancer-floods`: what a load balancer forwards of established connections while a second lcore
//! floods it with packets of none, and whether one of them moves.
//!
//! Two workers on net_null. To the first come segments of clients whose connections it has; to the second a flood,
//! each packet of which goes to the worker that owns it, so that half of it is the first one's work. Backends are at
//! the ends of tunnels: so each packet that leaves says where it goes.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, cpu_time, interleave};
use crate::nat_floods::{Packet, dropped, eventually, packet, put};
use crate::ours::{NULL, Setting, config, made, start_eal};
use crate::results::{Row, Sample};
use crate::statistics::Random;
use anyhow::{Context as _, anyhow, ensure};
use dpdk_rs::{Eal, Mempool};
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Batch, Budget, Context, Control, Direction, DropReason, Forwarding, Function as _, Loaded,
    NetworkFunction, Ports, Runtime, Tuple, Verdict, WorkerSetup,
};
use nfs::load_balancer::LoadBalancer;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a load balancer's established connections while a second lcore floods it";
pub(crate) const MEBIBYTES: u64 = 256;

const QUIET: &str = "no flood";

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is the CPU time of the first worker for each segment of an established connection: goodput as a ratio to \
         that without a flood is the inverse of the ratio",
        "net_null, Wire, IPIP, ten backends, 512 TCP connections, room for 16384 on each worker; a flood goes on for half \
         a second before it is measured; guarded: insertions_per_second is 10000, else it is no limit, and the table is full",
        "each packet that leaves is compared with where its connection went first, and each connection is asked for \
         afterwards: if one has moved the suite fails",
        "what was offered and dropped, tables, packets and memory are said while it runs, of each flood's first round",
    ]
    .map(str::to_owned)
    .into()
}

const SERVICE: [u8; 4] = [192, 0, 2, 1];
const PORT: u16 = 443;
const CONNECTIONS: usize = 512;

/// What a flood consists of, of hosts and ports at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flood {
    flags: TcpFlags,
    insertions_per_second: u32,
}

impl Flood {
    fn template(self) -> anyhow::Result<Packet> {
        packet(&Frame::new().ipv4([10, 64, 0, 0], SERVICE).tcp(1, PORT).flags(self.flags).dont_fragment())
    }

    /// Nobody looks at checksums here.
    fn fill(random: &mut Random, to: &mut [u8]) {
        let [a, b, c, d, e, ..] = random.next().to_le_bytes();
        to[27..30].copy_from_slice(&[64 | a & 7, b, c]);
        to[34..36].copy_from_slice(&[d | 4, e]);
    }
}

/// What the workers and the control thread know together.
#[derive(Default)]
struct Shared {
    /// The first worker's own.
    clients: OnceLock<Vec<(Ipv4Addr, u16)>>,
    pool: Mutex<Option<Mempool>>,
    /// Whether connections are open.
    transfers: AtomicBool,
    floods: AtomicBool,
    sent: AtomicU64,
    /// Packets of connections that went elsewhere than those before.
    moved: AtomicU64,
    offered: AtomicU64,
}

/// Sees what a worker owns.
struct Onlooker;

impl NetworkFunction for Onlooker {
    fn batch(&mut self, _: &mut Batch, _: &mut Context<'_>) {}
}

fn onlooker(shared: &Arc<Shared>) -> Loaded {
    let shared = Arc::clone(shared);
    made("onlooker", Affinity::Any, move |worker: &mut WorkerSetup| {
        if worker.index() == 0 {
            let owns = |(address, port): &(Ipv4Addr, u16)| {
                let ports = Ports::Both(*port, PORT);
                let tuple = Tuple { source: (*address).into(), destination: SERVICE.into(), ports };
                worker.owns(Direction::Inbound, &tuple)
            };
            let all = (0..1_u16 << 12).map(|number| (Ipv4Addr::from_bits(0x0a00_0000), 5000 + number));
            let clients = all.filter(owns).take(CONNECTIONS).collect();
            shared.clients.set(clients).map_err(|_| "there are clients already")?;
            *shared.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker.pool().clone());
        }
        Ok(Onlooker)
    })
}

/// Writes the packets that arrive at a worker, and looks where those go that leave.
struct Source {
    inner: Box<dyn Forwarding>,
    shared: Arc<Shared>,
    flood: Option<Packet>,
    first: bool,
    random: Random,
    next: usize,
    /// Of SYNs, and of what follows.
    frames: Option<[Vec<Packet>; 2]>,
    /// By a client's port: where its connection goes.
    backends: Vec<u8>,
    /// The batch came from the port, and is one of connections.
    own: bool,
}

impl Source {
    /// What the first worker's batch is filled with.
    fn frames(&mut self) -> Option<&[Packet]> {
        if self.frames.is_none() {
            let clients = self.shared.clients.get()?;
            let of = |flags: TcpFlags| -> anyhow::Result<Vec<Packet>> {
                let frame = |(address, port): &(Ipv4Addr, u16)| {
                    packet(&Frame::new().ipv4(*address, SERVICE).dont_fragment().tcp(*port, PORT).flags(flags))
                };
                clients.iter().map(frame).collect()
            };
            self.frames = Some([of(TcpFlags::SYN).ok()?, of(TcpFlags::ACK).ok()?]);
        }
        let transfers = self.shared.transfers.load(Ordering::Relaxed);
        self.frames.as_ref().map(|frames| frames[usize::from(transfers)].as_slice())
    }
}

impl Forwarding for Source {
    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let from_clients = cx.direction() == Direction::Inbound;
        self.own = self.first && from_clients;
        if self.own {
            let mut next = self.next;
            if let Some(frames) = self.frames().filter(|frames| !frames.is_empty()) {
                for slot in batch.undecided() {
                    let Some(packet) = batch.packet_mut(slot) else { continue };
                    next = next.wrapping_add(1);
                    if !put(packet, &frames[next % frames.len()]) {
                        batch.decide(slot, Verdict::Drop(DropReason::POLICY));
                    }
                }
            }
            self.next = next;
        } else if let Some(template) = self.flood.filter(|_| !self.first && from_clients)
            && self.shared.floods.load(Ordering::Relaxed)
        {
            // They go to their owners from here.
            let mut written = 0;
            for slot in batch.undecided() {
                let Some(mut packet) = batch.take(slot) else { continue };
                if !put(&mut packet, &template) {
                    cx.drop_held(packet, DropReason::POLICY);
                    continue;
                }
                Flood::fill(&mut self.random, packet.data_mut());
                cx.resume(packet, cx.position());
                written += 1;
            }
            self.shared.offered.fetch_add(written, Ordering::Relaxed);
        }
        if !self.own {
            batch.decide_all(Verdict::Drop(DropReason::POLICY));
        }
        self.inner.ingress(batch, cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.own) {
            let (mut sent, mut moved) = (0, 0);
            for (_, packet) in batch.undecided_packets() {
                // The outer destination, and the port behind two IPv4 headers.
                let Some(head) = packet.data().first_chunk::<58>() else { continue };
                let (backend, port) = (head[33], usize::from(u16::from_be_bytes([head[54], head[55]])));
                if let Some(known) = self.backends.get_mut(port) {
                    moved += u64::from(*known != 0 && *known != backend);
                    *known = backend;
                    sent += 1;
                }
            }
            self.shared.sent.fetch_add(sent, Ordering::Relaxed);
            self.shared.moved.fetch_add(moved, Ordering::Relaxed);
        }
        self.inner.egress(batch, cx);
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.inner.tick(cx, budget);
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        self.inner.stop(cx);
    }

    fn held(&self) -> usize {
        self.inner.held()
    }
}

/// What a flood did to everything else.
struct Toll {
    sample: Sample,
    said: String,
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let eal = start_eal(memory, 2)?;
    let (guarded, not) = (10_000, 4_000_000_000);
    let flood = |flags, insertions_per_second| Some(Flood { flags, insertions_per_second });
    let floods = [
        (QUIET, None),
        ("SYN, guarded", flood(TcpFlags::SYN, guarded)),
        ("SYN, table full", flood(TcpFlags::SYN, not)),
        ("ACK, guarded", flood(TcpFlags::ACK, guarded)),
        ("ACK, table full", flood(TcpFlags::ACK, not)),
    ];
    let mut variants = Vec::new();
    for (name, flood) in floods {
        let (eal, mut told) = (&eal, false);
        let variant = Variant::new(name, move |slice| {
            let resident_before = crate::floods::resident()?;
            let toll = once(eal, flood, slice, !told)?;
            if !std::mem::replace(&mut told, true) {
                let after = crate::floods::resident()?;
                eprintln!(
                    "load-balancer-floods: {name}: {}\n  resident memory {resident_before} KiB before, {after} after",
                    toll.said
                );
            }
            Ok(toll.sample)
        });
        variants.push(if name == QUIET { variant } else { variant.ratio(QUIET) });
    }
    interleave(variants, plan)
}

fn once(eal: &Eal, flood: Option<Flood>, slice: Duration, tells: bool) -> anyhow::Result<Toll> {
    let balancer = LoadBalancer::new();
    let insertions = flood.map_or(10_000, |flood| flood.insertions_per_second);
    let mut text = format!(
        "connections = 16384\nconnections_ipv6 = 64\ninsertions_per_second = {insertions}\n\
         tunnel_sources = [\"10.255.0.0/16\"]\n[[services]]\nname = \"service\"\naddress = \"192.0.2.1\"\n\
         port = {PORT}\nmode = \"ipip\"\n"
    );
    for backend in 1..=10 {
        writeln!(text, "[[services.backends]]\naddress = \"198.18.0.{backend}\"")?;
    }
    let config_of_balancer = toml::from_str(&text).context("the load balancer's configuration")?;
    let policy =
        balancer.policy(config_of_balancer).map_err(|invalid| anyhow!("{}: {}", invalid.key, invalid.message))?;
    let shared = Arc::new(Shared::default());
    let main = std::thread::current().id();
    let template = flood.map(Flood::template).transpose()?;
    let of_source = Arc::clone(&shared);
    let chain = vec![onlooker(&shared), Loaded::new(balancer, policy)];
    let runtime =
        Runtime::new(eal, &config(Setting { queues: Some(2), ..Setting::new(NULL) }), chain)?.around(move |inner| {
            Box::new(Source {
                inner,
                shared: Arc::clone(&of_source),
                flood: template,
                first: std::thread::current().id() == main,
                random: Random(7),
                next: 0,
                frames: None,
                backends: vec![0; 1 << 16],
                own: false,
            })
        });
    let (toll, report) = runtime.run(|control| measure(control, &shared, flood, slice, tells))?;
    let mut toll = toll?;
    ensure!(report.balance.unaccounted() == 0, "packets are missing: {report}");
    toll.said.push_str(&format!("\n  handed over {}, {}", report.handed_over, report.balance));
    Ok(toll)
}

/// The backend of each connection of the first worker's that is established.
fn backends(control: &Control, shared: &Shared) -> anyhow::Result<Vec<Option<String>>> {
    let clients = shared.clients.get().context("no clients")?.clone();
    let answers = control.command::<LoadBalancer, _>("load-balancer", move |instance, _| {
        let backend = |(address, port): &(Ipv4Addr, u16)| {
            let (client, service) = (SocketAddr::from((*address, *port)), SocketAddr::from((SERVICE, PORT)));
            let connection = instance.connection(IpProtocol::TCP, client, service)?;
            connection.established.then_some(connection.backend)
        };
        clients.iter().map(backend).collect::<Vec<_>>()
    })?;
    answers.into_iter().next().context("no worker")
}

/// Connections that each worker has.
fn sessions(control: &Control) -> anyhow::Result<Vec<u64>> {
    Ok(control.command::<LoadBalancer, _>("load-balancer", |instance, _| NetworkFunction::sessions(instance))?)
}

fn measure(
    control: &Control,
    shared: &Shared,
    flood: Option<Flood>,
    slice: Duration,
    tells: bool,
) -> anyhow::Result<Toll> {
    eventually("connections open", || Ok(sessions(control)?.first() == Some(&(CONNECTIONS as u64))))?;
    shared.transfers.store(true, Ordering::Relaxed);
    let all_are_there = |all: &[Option<String>]| all.len() == CONNECTIONS && all.iter().all(Option::is_some);
    eventually("connections are established", || Ok(all_are_there(&backends(control, shared)?)))?;
    let before = backends(control, shared)?;
    let pool = shared.pool.lock().unwrap_or_else(PoisonError::into_inner).take().context("no pool")?;
    let (free_before, drops_before) = (pool.available(), dropped(&control.report()));

    shared.floods.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    // The main lcore has the process's number.
    let main = PathBuf::from(format!("/proc/self/task/{}/schedstat", std::process::id()));
    let count = || (shared.sent.load(Ordering::Relaxed), shared.offered.load(Ordering::Relaxed));
    let (cpu, start, (sent, offered)) = (cpu_time(&main)?, Instant::now(), count());
    std::thread::sleep(slice.max(Duration::from_millis(200)));
    let (cpu, wall, (sent_then, offered_then)) = (cpu_time(&main)?.saturating_sub(cpu), start.elapsed(), count());
    let (free_during, full) = (pool.available(), sessions(control)?);
    shared.floods.store(false, Ordering::Relaxed);
    ensure!(flood.is_none() || offered_then > offered, "there was no flood");
    let after = backends(control, shared)?;
    let elsewhere = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let packets = shared.moved.load(Ordering::Relaxed);
    ensure!(
        elsewhere == 0 && packets == 0,
        "{elsewhere} connections have moved or are lost, {packets} packets went elsewhere"
    );
    let sample = Sample::new(sent_then - sent, cpu, wall);
    let mut said = String::new();
    if tells {
        let mut drops: Vec<_> =
            dropped(&control.report()).into_iter().filter(|(reason, _)| reason != "policy").collect();
        drops.iter_mut().for_each(|(reason, count)| *count -= drops_before.get(reason).copied().unwrap_or(0));
        drops.retain(|(_, count)| *count > 0);
        drops.sort();
        let micros = wall.as_micros() as f64;
        said = format!(
            "{:.2} million packets offered in a second, {:.2} million segments forwarded\n  all {CONNECTIONS} \
             connections are where they were, by each of {sent_then} packets and when asked; by worker the tables have \
             {full:?}\n  packets in the pool: {free_before} before, {free_during} during, {} after\n  dropped: {drops:?}",
            (offered_then - offered) as f64 / micros,
            (sent_then - sent) as f64 / micros,
            pool.available(),
        );
    }
    Ok(Toll { sample, said })
}
