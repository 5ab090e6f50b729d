//! The suite `nat-floods`: what a NAT translates of established connections while a second lcore
//! floods it with packets that begin something.
//!
//! Two workers on net_null. To the first come segments of its own connections, from both sides; to
//! the second a flood, each packet of which goes to the worker that owns it, so that half of it is
//! the first one's work.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, cpu_time, interleave};
use crate::ours::{NULL, Setting, config, made, start_eal};
use crate::results::{Row, Sample};
use crate::statistics::Random;
use anyhow::{Context as _, anyhow, ensure};
use dpdk_rs::{Eal, Mbuf, Mempool};
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Batch, Budget, Context, Control, Direction, DropReason, Forwarding, Function as _, Loaded,
    NetworkFunction, Piece, Ports, Report, Runtime, Tuple, Verdict, WorkerSetup,
};
use nfs::nat::{Nat, Occupancy, SessionFilter, SessionView};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a NAT's established connections while a second lcore floods it";
pub(crate) const MEBIBYTES: u64 = 256;

const QUIET: &str = "no flood";

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is the CPU time of the first worker for each segment of an established connection: goodput as a ratio to \
         that without a flood is the inverse of the ratio",
        "net_null, Wire, 512 TCP connections, both ways; a flood goes on for half a second before it is measured; \
         timeouts of what it begins are 2 s, a port rests for 1 s",
        "what was offered and dropped, tables, packets and memory are said while it runs, of each flood's first round, \
         and how long after it a new session can begin at both workers",
    ]
    .map(str::to_owned)
    .into()
}

const SERVER: [u8; 4] = [192, 0, 2, 1];
const CONNECTIONS: usize = 512;
const FRAME: usize = 64;
pub(crate) type Packet = [u8; FRAME];

/// What a flood consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flood {
    /// Of hosts and ports at random, to servers at random.
    Udp,
    Syn,
    /// To ports of the pool at random.
    SynFromOutside,
    /// As `Udp`, and there are few ports.
    Ports,
}

impl Flood {
    fn side(self) -> Direction {
        if self == Self::SynFromOutside { Direction::Inbound } else { Direction::Outbound }
    }

    fn template(self) -> anyhow::Result<Packet> {
        let frame = match self {
            Self::Udp | Self::Ports => Frame::new().ipv4([10, 64, 0, 0], SERVER).udp(1, 9).without_udp_checksum(),
            Self::Syn => Frame::new().ipv4([10, 64, 0, 0], SERVER).tcp(1, 9).flags(TcpFlags::SYN),
            Self::SynFromOutside => Frame::new().ipv4(SERVER, [198, 18, 0, 0]).tcp(9, 1).flags(TcpFlags::SYN),
        };
        packet(&frame.dont_fragment())
    }

    /// Nobody looks at checksums here.
    fn fill(self, random: &mut Random, to: &mut [u8]) {
        let [a, b, c, d, e, f, ..] = random.next().to_le_bytes();
        let mut put = |at: usize, bytes: [u8; 2]| to[at..at + 2].copy_from_slice(&bytes);
        match self {
            Self::SynFromOutside => {
                put(28, [a, b]);
                put(32, [0, c & 3]);
            }
            _ => {
                // Some thousand hosts.
                put(28, [a & 7, b]);
                put(32, [2, c]);
            }
        }
        put(34, [d | 4, e]);
        put(36, [f | 4, a ^ e]);
    }
}

pub(crate) fn packet(frame: &Frame) -> anyhow::Result<Packet> {
    frame.clone().pad_to(FRAME).build().try_into().map_err(|_| anyhow!("a frame is too long"))
}

/// Writes a frame before where net_null's data begin: these stay zeros, and a packet that comes in
/// anew is nobody's and stays at its worker.
#[inline]
pub(crate) fn put(packet: &mut Mbuf, frame: &Packet) -> bool {
    let before = packet.len();
    match packet.prepend(FRAME) {
        Some(room) => room.copy_from_slice(frame),
        None => return false,
    }
    packet.trim(before)
}

/// What the first worker's hosts and servers do.
const OPEN: u8 = 0;
const ANSWER: u8 = 1;
const TRANSFER: u8 = 2;

/// What the workers and the control thread know together.
#[derive(Default)]
struct Shared {
    /// The first worker's own.
    clients: OnceLock<Vec<(Ipv4Addr, u16)>>,
    /// What stands for them outside.
    externals: OnceLock<Vec<(Ipv4Addr, u16)>>,
    pool: Mutex<Option<Mempool>>,
    phase: AtomicU8,
    floods: AtomicBool,
    /// Whether hosts that were never there send something, and the workers at which it got through.
    probes: AtomicBool,
    got_through: AtomicU8,
    sent: AtomicU64,
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
                let ports = Ports::Both(*port, 443);
                worker
                    .owns(Direction::Outbound, &Tuple { source: (*address).into(), destination: SERVER.into(), ports })
            };
            let all =
                (0..1_u16 << 12).map(|number| (Ipv4Addr::from_bits(0x0a00_0100 + u32::from(number)), 5000 + number));
            let clients = all.filter(owns).take(CONNECTIONS).collect();
            shared.clients.set(clients).map_err(|_| "there are clients already")?;
            *shared.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker.pool().clone());
        }
        Ok(Onlooker)
    })
}

/// Writes the packets that arrive at a worker.
struct Source {
    inner: Box<dyn Forwarding>,
    shared: Arc<Shared>,
    flood: Option<(Flood, Packet)>,
    first: bool,
    random: Random,
    /// By side.
    next: [usize; 2],
    /// By phase and side, once it is known.
    frames: HashMap<(u8, Direction), Vec<Packet>>,
    probe: Packet,
    /// The batch came from the port, and is one of connections.
    own: bool,
}

impl Source {
    /// What the first worker's batch is filled with.
    fn frames(&mut self, phase: u8, side: Direction) -> Option<&[Packet]> {
        if !self.frames.contains_key(&(phase, side)) {
            let clients = self.shared.clients.get()?;
            let flags = |out: bool| match (phase, out) {
                (OPEN, true) => TcpFlags::SYN,
                (ANSWER, false) => TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0),
                _ => TcpFlags::ACK,
            };
            let made: anyhow::Result<Vec<_>> = if side == Direction::Outbound {
                let frame = |(address, port): &(Ipv4Addr, u16)| {
                    packet(&Frame::new().ipv4(*address, SERVER).dont_fragment().tcp(*port, 443).flags(flags(true)))
                };
                clients.iter().map(frame).collect()
            } else {
                let frame = |(address, port): &(Ipv4Addr, u16)| {
                    packet(&Frame::new().ipv4(SERVER, *address).dont_fragment().tcp(443, *port).flags(flags(false)))
                };
                self.shared.externals.get()?.iter().map(frame).collect()
            };
            self.frames.insert((phase, side), made.ok()?);
        }
        self.frames.get(&(phase, side)).map(Vec::as_slice)
    }
}

/// To whom nobody else sends.
const PROBED: u16 = 7;

impl Forwarding for Source {
    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let (side, phase) = (cx.direction(), self.shared.phase.load(Ordering::Relaxed));
        let outbound = side == Direction::Outbound;
        self.own = self.first;
        if self.first && (outbound || phase != OPEN) {
            let mut next = self.next[usize::from(outbound)];
            if let Some(frames) = self.frames(phase, side).filter(|frames| !frames.is_empty()) {
                for slot in batch.undecided() {
                    let Some(packet) = batch.packet_mut(slot) else { continue };
                    next = next.wrapping_add(1);
                    if !put(packet, &frames[next % frames.len()]) {
                        batch.decide(slot, Verdict::Drop(DropReason::POLICY));
                    }
                }
                self.next[usize::from(outbound)] = next;
            }
        } else if !self.first && outbound && self.shared.probes.load(Ordering::Relaxed) {
            for slot in batch.undecided().take(1) {
                let Some(mut packet) = batch.take(slot) else { continue };
                let [a, b, ..] = self.random.next().to_le_bytes();
                self.probe[28..30].copy_from_slice(&[a, b]);
                if put(&mut packet, &self.probe) {
                    cx.resume(packet, cx.position());
                } else {
                    cx.drop_held(packet, DropReason::POLICY);
                }
            }
        } else if let Some((flood, template)) = self.flood.filter(|(flood, _)| !self.first && flood.side() == side)
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
                flood.fill(&mut self.random, packet.data_mut());
                cx.resume(packet, cx.position());
                written += 1;
            }
            self.shared.offered.fetch_add(written, Ordering::Relaxed);
        }
        if !self.first || !outbound && phase == OPEN {
            batch.decide_all(Verdict::Drop(DropReason::POLICY));
        }
        self.inner.ingress(batch, cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let slots = batch.undecided();
        if std::mem::take(&mut self.own) {
            self.shared.sent.fetch_add(slots.count() as u64, Ordering::Relaxed);
        } else if self.shared.probes.load(Ordering::Relaxed) {
            let is_probe =
                |slot| batch.packet(slot).is_some_and(|packet| packet.data()[36..38] == PROBED.to_be_bytes());
            if slots.clone().any(is_probe) {
                self.shared.got_through.fetch_or(if self.first { 1 } else { 2 }, Ordering::Relaxed);
            }
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
    let floods = [
        (QUIET, None),
        ("UDP from inside", Some(Flood::Udp)),
        ("SYN from inside", Some(Flood::Syn)),
        ("SYN from outside", Some(Flood::SynFromOutside)),
        ("UDP, ports exhausted", Some(Flood::Ports)),
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
                    "nat-floods: {name}: {}\n  resident memory {resident_before} KiB before, {after} after",
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
    let nat = Nat::new();
    let pool = if flood == Some(Flood::Ports) {
        "addresses = [\"198.18.0.0\"]\nports = \"1024-9215\""
    } else {
        "addresses = [\"198.18.0.0/30\"]"
    };
    let text = format!(
        "sessions = 32768\nsubscribers = 8192\n[[pools]]\n{pool}\n\
         [timeouts]\nudp = 2\ntcp_opening = 2\nport_quiet = 1\n"
    );
    let config_of_nat = toml::from_str(&text).context("the NAT's configuration")?;
    let policy = nat.policy(config_of_nat).map_err(|invalid| anyhow!("{}: {}", invalid.key, invalid.message))?;
    let shared = Arc::new(Shared::default());
    let main = std::thread::current().id();
    let probe =
        packet(&Frame::new().ipv4([10, 65, 0, 0], SERVER).dont_fragment().udp(5000, PROBED).without_udp_checksum())?;
    let template = flood.map(|flood| anyhow::Ok((flood, flood.template()?))).transpose()?;
    let of_source = Arc::clone(&shared);
    let chain = vec![onlooker(&shared), Loaded::new(nat, policy)];
    let runtime =
        Runtime::new(eal, &config(Setting { queues: Some(2), ..Setting::new(NULL) }), chain)?.around(move |inner| {
            Box::new(Source {
                inner,
                shared: Arc::clone(&of_source),
                flood: template,
                first: std::thread::current().id() == main,
                random: Random(7),
                next: [0; 2],
                frames: HashMap::new(),
                probe,
                own: false,
            })
        });
    let (toll, report) = runtime.run(|control| measure(control, &shared, slice, tells))?;
    let mut toll = toll?;
    ensure!(report.balance.unaccounted() == 0, "packets are missing: {report}");
    toll.said.push_str(&format!("\n  handed over {}, {}", report.handed_over, report.balance));
    Ok(toll)
}

/// A worker's occupancy in a few words.
fn occupied(all: &[Occupancy]) -> String {
    let worker = |of: &Occupancy| {
        let (used, resting) =
            of.addresses.iter().fold((0, 0), |(a, b), address| (a + address.in_use, b + address.resting));
        format!(
            "{}/{} sessions, {} hosts, {used} ports and {resting} resting",
            of.sessions, of.capacity, of.subscribers
        )
    };
    all.iter().map(worker).collect::<Vec<_>>().join("; ")
}

/// The connections that the first worker knows.
fn connections(control: &Control) -> anyhow::Result<Vec<SessionView>> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let filter = SessionFilter {
            protocol: Some(nfs::nat::Protocol::Tcp),
            remote: Some(SERVER.into()),
            ..SessionFilter::default()
        };
        let answers = control.command::<Nat, _>("nat", move |instance, _| instance.list(&filter, from))?;
        let Piece { items, next: more } = answers.into_iter().next().context("no worker")?;
        all.extend(items.into_iter().map(|(_, session)| session).filter(|session| session.remote.1 == 443));
        next = more;
    }
    Ok(all)
}

/// Waits for something that workers do, on a machine with others.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub(crate) fn dropped(report: &Report) -> HashMap<String, u64> {
    report.drops.iter().map(|drop| (drop.reason.clone(), drop.count)).collect()
}

fn measure(control: &Control, shared: &Shared, slice: Duration, tells: bool) -> anyhow::Result<Toll> {
    let established = || anyhow::Ok(connections(control)?.iter().filter(|session| session.established).count());
    let set = |phase| shared.phase.store(phase, Ordering::Relaxed);
    eventually("connections open", || Ok(connections(control)?.len() == CONNECTIONS))?;
    let by_client: HashMap<_, _> =
        connections(control)?.iter().map(|session| (session.inside, session.external)).collect();
    let clients = shared.clients.get().context("no clients")?;
    let externals = clients.iter().filter_map(|client| by_client.get(client).copied()).collect();
    shared.externals.set(externals).map_err(|_| anyhow!("twice"))?;
    set(ANSWER);
    eventually("connections are established", || Ok(established()? == CONNECTIONS))?;
    set(TRANSFER);
    let pool = shared.pool.lock().unwrap_or_else(PoisonError::into_inner).take().context("no pool")?;
    let (free_before, drops_before) = (pool.available(), dropped(&control.report()));
    let occupancy = || control.command::<Nat, _>("nat", |instance, _| instance.occupancy());

    shared.floods.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    // The main lcore has the process's number.
    let main = PathBuf::from(format!("/proc/self/task/{}/schedstat", std::process::id()));
    let count = || (shared.sent.load(Ordering::Relaxed), shared.offered.load(Ordering::Relaxed));
    let (cpu, start, (sent, offered)) = (cpu_time(&main)?, Instant::now(), count());
    std::thread::sleep(slice.max(Duration::from_millis(200)));
    let (cpu, wall, (sent_then, offered_then)) = (cpu_time(&main)?.saturating_sub(cpu), start.elapsed(), count());
    let (free_during, full, flood) = (pool.available(), occupancy()?, shared.floods.swap(false, Ordering::Relaxed));
    ensure!(flood, "there was no flood");
    let sample = Sample::new(sent_then - sent, cpu, wall);
    let lost = CONNECTIONS - established()?;
    ensure!(lost == 0, "{lost} established connections were lost");
    let mut said = String::new();
    if tells {
        let over = Instant::now();
        shared.probes.store(true, Ordering::Relaxed);
        while shared.got_through.load(Ordering::Relaxed) != 3 && over.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let recovery = over.elapsed();
        let got_through = shared.got_through.load(Ordering::Relaxed);
        shared.probes.store(false, Ordering::Relaxed);
        let mut drops: Vec<_> =
            dropped(&control.report()).into_iter().filter(|(reason, _)| reason != "policy").collect();
        drops.iter_mut().for_each(|(reason, count)| *count -= drops_before.get(reason).copied().unwrap_or(0));
        drops.retain(|(_, count)| *count > 0);
        drops.sort();
        let rate = (offered_then - offered) as f64 / wall.as_micros() as f64;
        said = format!(
            "{rate:.2} million packets offered in a second, {:.2} million segments translated\n  all {CONNECTIONS} \
             connections are there; {}\n  packets in the pool: {free_before} before, {free_during} during, {} after\n  \
             dropped: {drops:?}\n  a new session can begin after {} ms (at the workers {got_through:#b})",
            (sent_then - sent) as f64 / wall.as_micros() as f64,
            occupied(&full),
            pool.available(),
            recovery.as_millis(),
        );
    }
    Ok(Toll { sample, said })
}
