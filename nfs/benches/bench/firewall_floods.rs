//! The suite `firewall-floods`: what a firewall lets through of established connections, and how many new ones open,
//! while a second lcore floods it.
//!
//! Two workers on net_null. To the first come segments of its own connections, from both sides, and one client after
//! the other that opens a connection and resets it; to the second a flood, each packet of which goes to the worker
//! that owns it, so that half of it is the first one's work. Fragments come in at the second worker, as virtual
//! reassembly has to see them; all else is written behind it.

use crate::machine::Memory;
use crate::measure::{Plan, Variant, cpu_time, interleave};
use crate::nat_floods::{Packet, dropped, eventually, packet, put};
use crate::ours::{NULL, Setting, config, made, start_eal};
use crate::results::{Row, Sample};
use crate::statistics::Random;
use anyhow::{Context as _, anyhow, ensure};
use dpdk_rs::{Eal, Mempool};
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Batch, Budget, Context, Control, Direction, DropReason, Forwarding, Function as _, Loaded, Mbuf,
    NetworkFunction, Piece, Ports, Runtime, Tuple, Verdict, WorkerSetup,
};
use nfs::firewall::{ConnectionFilter, Firewall};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a firewall's connections while a second lcore floods it";
pub(crate) const MEBIBYTES: u64 = 256;

const QUIET: &str = "no flood";

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is the CPU time of the first worker for each segment of an established connection: goodput as a ratio to \
         that without a flood is the inverse of the ratio",
        "net_null, Wire, 512 TCP connections, both ways, and a client that opens a connection in 4 bursts; room for 32k \
         connections; a flood goes on for half a second before it is measured",
        "what was offered and dropped, new connections, packets and memory are said while it runs, of each flood's first \
         round",
    ]
    .map(str::to_owned)
    .into()
}

const SERVER: [u8; 4] = [192, 0, 2, 1];
/// Whom new connections are for.
const OTHER_SERVER: [u8; 4] = [192, 0, 2, 2];
const CONNECTIONS: usize = 512;
const ROOM: u64 = 32_768;

const CONFIG: &str = r#"
connections = 32768
connections_v6 = 64
[[rules]]
name = "out"
from = "inside"
action = "accept"
[[rules]]
name = "open"
from = "outside"
protocol = ["tcp", "udp"]
destination_ports = 443
action = "accept"
"#;

/// What a flood consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flood {
    /// From outside to the port that is open, of senders at random.
    Syn,
    /// The same, where such SYNs are answered by cookies.
    Cookies,
    /// To a port that is not.
    Denied,
    /// To the open port, of datagrams of which nothing else comes.
    FirstFragments,
    /// Of datagrams whose first one does not come.
    LaterFragments,
}

impl Flood {
    const ALL: [(&str, Option<Self>); 6] = [
        (QUIET, None),
        ("SYN to the open port", Some(Self::Syn)),
        ("SYN, answered by cookies", Some(Self::Cookies)),
        ("SYN to a closed port", Some(Self::Denied)),
        ("first fragments", Some(Self::FirstFragments)),
        ("later fragments", Some(Self::LaterFragments)),
    ];

    fn is_of_fragments(self) -> bool {
        matches!(self, Self::FirstFragments | Self::LaterFragments)
    }

    /// Its first packet.
    fn packet(self) -> anyhow::Result<Packet> {
        let frame = Frame::new().ipv4([198, 18, 0, 0], [10, 64, 0, 1]).identification(0);
        let datagram = |frame: Frame| frame.udp(0, 443).without_udp_checksum();
        packet(&match self {
            Self::Syn | Self::Cookies => frame.dont_fragment().tcp(0, 443).flags(TcpFlags::SYN).sequence_number(0),
            Self::Denied => frame.dont_fragment().tcp(0, 444).flags(TcpFlags::SYN).sequence_number(0),
            Self::FirstFragments => datagram(frame.fragment(0, true)).payload(&[0; 16]),
            Self::LaterFragments => frame.protocol(17).fragment(24, false).payload(&[0; 24]),
        })
    }

    /// Writes the next one: another sender, and of whole packets another port.
    fn write(self, packet: &mut Mbuf, frame: &Packet, random: &mut Random) -> bool {
        if !put(packet, frame) {
            return false;
        }
        let [a, b, c, d, ..] = random.next().to_le_bytes();
        let data = packet.data_mut();
        // The identification and the sequence number make up for address and port.
        let whole = [(34, [c, d]), (38, [!a, !b]), (40, [!c, !d])];
        let places = [(28, [a, b]), (18, [!a, !b])].into_iter().chain(whole);
        for (at, bytes) in places.take(if self.is_of_fragments() { 2 } else { 5 }) {
            data[at..at + 2].copy_from_slice(&bytes);
        }
        true
    }
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
    pool: Mutex<Option<Mempool>>,
    phase: AtomicU8,
    floods: AtomicBool,
    sent: AtomicU64,
    offered: AtomicU64,
    /// Connections that have opened, one after the other.
    opened: AtomicU64,
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
                [SERVER, OTHER_SERVER].iter().all(|server| {
                    let (ports, destination) = (Ports::Both(*port, 443), (*server).into());
                    worker.owns(Direction::Outbound, &Tuple { source: (*address).into(), destination, ports })
                })
            };
            let all =
                (0..1_u16 << 13).map(|number| (Ipv4Addr::from_bits(0x0a00_0100 + u32::from(number)), 5000 + number));
            let clients = all.filter(owns).take(CONNECTIONS).collect();
            shared.clients.set(clients).map_err(|_| "there are clients already")?;
            *shared.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker.pool().clone());
        }
        Ok(Onlooker)
    })
}

/// A segment of a connection whose client began with 1000, and whose server with 5000.
fn segment(client: (Ipv4Addr, u16), server: [u8; 4], side: Direction, flags: TcpFlags) -> anyhow::Result<Packet> {
    let (sequence, acknowledgment) = match (side, flags.contains(TcpFlags::SYN)) {
        (Direction::Outbound, true) => (1000, 0),
        (Direction::Outbound, false) => (1001, 5001),
        (Direction::Inbound, true) => (5000, 1001),
        (Direction::Inbound, false) => (5001, 1001),
    };
    let frame = match side {
        Direction::Outbound => Frame::new().ipv4(client.0, server).tcp(client.1, 443),
        Direction::Inbound => Frame::new().ipv4(server, client.0).tcp(443, client.1),
    };
    packet(
        &frame
            .dont_fragment()
            .sequence_number(sequence)
            .acknowledgment_number(acknowledgment)
            .window(8192)
            .flags(flags),
    )
}

const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

/// What a client that opens a connection and its server send, one after the other.
const STEPS: [(Direction, TcpFlags); 4] = [
    (Direction::Outbound, TcpFlags::SYN),
    (Direction::Inbound, SYN_ACK),
    (Direction::Outbound, TcpFlags::ACK),
    (Direction::Outbound, TcpFlags::RST),
];

/// The frames of the first worker, once it is known whom it owns.
struct Frames {
    /// By phase and side.
    established: [[Vec<Packet>; 2]; 3],
    /// By client and step.
    opening: Vec<[Packet; STEPS.len()]>,
}

impl Frames {
    fn new(clients: &[(Ipv4Addr, u16)]) -> anyhow::Result<Self> {
        let of = |phase, side| {
            let flags = match (phase, side) {
                (OPEN, Direction::Outbound) => TcpFlags::SYN,
                (ANSWER, Direction::Inbound) => SYN_ACK,
                _ => TcpFlags::ACK,
            };
            clients.iter().map(|client| segment(*client, SERVER, side, flags)).collect::<anyhow::Result<Vec<_>>>()
        };
        let both = |phase| anyhow::Ok([of(phase, Direction::Outbound)?, of(phase, Direction::Inbound)?]);
        let opening = clients.iter().map(|client| {
            let mut steps: [Packet; STEPS.len()] = [[0; 64]; STEPS.len()];
            for (step, (side, flags)) in steps.iter_mut().zip(STEPS) {
                *step = segment(*client, OTHER_SERVER, side, flags)?;
            }
            anyhow::Ok(steps)
        });
        let opening = opening.collect::<anyhow::Result<_>>()?;
        Ok(Self { established: [both(OPEN)?, both(ANSWER)?, both(TRANSFER)?], opening })
    }
}

/// Writes the packets that arrive at a worker.
struct Source {
    inner: Box<dyn Forwarding>,
    shared: Arc<Shared>,
    flood: Option<Flood>,
    /// Of the flood.
    packet: Packet,
    first: bool,
    random: Random,
    frames: Option<Frames>,
    /// By side.
    next: [usize; 2],
    /// The client that opens a connection, and how far it is.
    opening: (usize, usize),
    /// The batch came from the port, and is one of connections; whether its first packet completes a new one.
    own: Option<bool>,
}

impl Source {
    fn of_connections(&mut self, batch: &mut Batch, side: Direction, phase: u8) {
        if self.frames.is_none() {
            self.frames = self.shared.clients.get().and_then(|clients| Frames::new(clients).ok());
        }
        let inbound = usize::from(side == Direction::Inbound);
        let Some(frames) = self.frames.as_ref().filter(|_| side == Direction::Outbound || phase != OPEN) else {
            batch.decide_all(Verdict::Drop(DropReason::POLICY));
            return;
        };
        let list = &frames.established[usize::from(phase)][inbound];
        let (client, step) = self.opening;
        let mut opens = (phase == TRANSFER && STEPS[step].0 == side).then(|| frames.opening[client][step]);
        self.own = Some(opens.is_some() && step == 2);
        if opens.is_some() {
            self.opening = if step + 1 < STEPS.len() { (client, step + 1) } else { ((client + 1) % list.len(), 0) };
        }
        let next = &mut self.next[inbound];
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            *next = (*next + 1) % list.len();
            if !put(packet, &opens.take().unwrap_or(list[*next])) {
                batch.decide(slot, Verdict::Drop(DropReason::POLICY));
            }
        }
    }

    /// They go to their owners from here.
    fn of_flood(&mut self, batch: &mut Batch, flood: Flood, cx: &mut Context<'_>) {
        let mut written = 0;
        for slot in batch.undecided() {
            let Some(mut packet) = batch.take(slot) else { continue };
            if !flood.write(&mut packet, &self.packet, &mut self.random) {
                cx.drop_held(packet, DropReason::POLICY);
                continue;
            }
            cx.resume(packet, cx.position());
            written += 1;
        }
        self.shared.offered.fetch_add(written, Ordering::Relaxed);
    }

    fn floods(&self, side: Direction) -> Option<Flood> {
        let floods = !self.first && side == Direction::Inbound && self.shared.floods.load(Ordering::Relaxed);
        self.flood.filter(|_| floods)
    }
}

/// Whether a batch is one of fragments, that were written before.
fn is_written(batch: &Batch) -> bool {
    let first = batch.undecided().next().and_then(|slot| batch.packet(slot));
    first.is_some_and(|packet| packet.data()[12..14] == [8, 0])
}

impl Forwarding for Source {
    /// Fragments are written here, before what brings them together.
    fn separate(&mut self, batch: &mut Batch, direction: Direction, inbound: &mut Batch) {
        if let Some(flood) = self.floods(direction).filter(|flood| flood.is_of_fragments()) {
            let mut written = 0;
            for slot in batch.undecided() {
                let Some(packet) = batch.packet_mut(slot) else { continue };
                written += u64::from(flood.write(packet, &self.packet, &mut self.random));
            }
            self.shared.offered.fetch_add(written, Ordering::Relaxed);
        }
        self.inner.separate(batch, direction, inbound);
    }

    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let (side, phase) = (cx.direction(), self.shared.phase.load(Ordering::Relaxed));
        let is_written = self.flood.is_some_and(Flood::is_of_fragments) && is_written(batch);
        if self.first && !is_written {
            self.of_connections(batch, side, phase);
        } else if !is_written {
            if let Some(flood) = self.floods(side) {
                self.of_flood(batch, flood, cx);
            }
            batch.decide_all(Verdict::Drop(DropReason::POLICY));
        }
        self.inner.ingress(batch, cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if let Some(completes) = self.own.take() {
            let mut slots = batch.undecided();
            self.shared.sent.fetch_add(slots.count() as u64, Ordering::Relaxed);
            let to_other = |slot: usize| batch.packet(slot).is_some_and(|packet| packet.data()[30..34] == OTHER_SERVER);
            if completes && slots.any(to_other) {
                self.shared.opened.fetch_add(1, Ordering::Relaxed);
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

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let eal = start_eal(memory, 2)?;
    let mut variants = Vec::new();
    for (name, flood) in Flood::ALL {
        let (eal, mut told) = (&eal, false);
        let variant = Variant::new(name, move |slice| {
            let before = crate::floods::resident()?;
            let (sample, said) = once(eal, flood, slice)?;
            if !std::mem::replace(&mut told, true) {
                let after = crate::floods::resident()?;
                println!("note {name}: {said}; resident memory {before} KiB before, {after} after");
            }
            Ok(sample)
        });
        variants.push(if name == QUIET { variant } else { variant.ratio(QUIET) });
    }
    interleave(variants, plan)
}

fn once(eal: &Eal, flood: Option<Flood>, slice: Duration) -> anyhow::Result<(Sample, String)> {
    let cookies = if flood == Some(Flood::Cookies) { "syn_cookies = \"always\"" } else { "" };
    let policy = Firewall.policy(toml::from_str(&format!("{CONFIG}{cookies}"))?);
    let policy = policy.map_err(|invalid| anyhow!("{}: {}", invalid.key, invalid.message))?;
    let shared = Arc::new(Shared::default());
    let main = std::thread::current().id();
    let packet = flood.map_or(Ok([0; 64]), Flood::packet)?;
    let of_source = Arc::clone(&shared);
    let chain = vec![onlooker(&shared), Loaded::new(Firewall, policy)];
    let setting = Setting { queues: Some(2), ..Setting::new(NULL) };
    let runtime = Runtime::new(eal, &config(setting), chain)?.around(move |inner| {
        Box::new(Source {
            inner,
            shared: Arc::clone(&of_source),
            flood,
            packet,
            first: std::thread::current().id() == main,
            random: Random(7),
            frames: None,
            next: [0; 2],
            opening: (0, 0),
            own: None,
        })
    });
    let (measured, report) = runtime.run(|control| measure(control, &shared, slice))?;
    let (sample, said) = measured?;
    ensure!(report.balance.unaccounted() == 0, "packets are missing: {report}");
    Ok((sample, said))
}

/// Connections to the first server that are established.
fn established(control: &Control) -> anyhow::Result<usize> {
    let (mut count, mut next) = (0, Some(0));
    while let Some(from) = next {
        let filter = ConnectionFilter { address: Some("192.0.2.1/32".parse()?), ..ConnectionFilter::default() };
        let answers = control.command::<Firewall, _>("firewall", move |instance, _| instance.list(&filter, from))?;
        let Piece { items, next: more } = answers.into_iter().next().context("no worker")?;
        count += items.iter().filter(|(_, connection)| connection.state == "ESTABLISHED").count();
        next = more;
    }
    Ok(count)
}

fn measure(control: &Control, shared: &Shared, slice: Duration) -> anyhow::Result<(Sample, String)> {
    let set = |phase| shared.phase.store(phase, Ordering::Relaxed);
    let known = || {
        let all = control.command::<Firewall, _>("firewall", |instance, _| instance.sessions());
        anyhow::Ok(all?.into_iter().sum::<u64>())
    };
    eventually("connections begin", || Ok(known()? >= CONNECTIONS as u64))?;
    set(ANSWER);
    eventually("connections are established", || Ok(established(control)? == CONNECTIONS))?;
    set(TRANSFER);
    let pool = shared.pool.lock().unwrap_or_else(PoisonError::into_inner).take().context("no pool")?;
    let (free_before, drops_before) = (pool.available(), dropped(&control.report()));

    shared.floods.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    // The main lcore has the process's number.
    let main = PathBuf::from(format!("/proc/self/task/{}/schedstat", std::process::id()));
    let count = || [&shared.sent, &shared.offered, &shared.opened].map(|count| count.load(Ordering::Relaxed));
    let (cpu, start, before) = (cpu_time(&main)?, Instant::now(), count());
    std::thread::sleep(slice.max(Duration::from_millis(200)));
    let (cpu, wall, after) = (cpu_time(&main)?.saturating_sub(cpu), start.elapsed(), count());
    let (free_during, connections) = (pool.available(), known()?);
    shared.floods.store(false, Ordering::Relaxed);
    let [sent, offered, opened] = std::array::from_fn(|index| after[index] - before[index]);
    let left = established(control)?;
    ensure!(left == CONNECTIONS, "{left} of {CONNECTIONS} established connections outlived it");
    ensure!(
        connections <= 3 * ROOM,
        "{connections} connections are known, and there is room for {ROOM} at each worker"
    );
    let mut drops: Vec<_> = dropped(&control.report()).into_iter().filter(|(reason, _)| reason != "policy").collect();
    drops.iter_mut().for_each(|(reason, count)| *count -= drops_before.get(reason).copied().unwrap_or(0));
    drops.retain(|(_, count)| *count > 0);
    drops.sort();
    let millions = |count: u64| count as f64 / wall.as_micros() as f64;
    let said = format!(
        "{:.2} million packets offered in a second, {:.2} million segments passed, {:.0} new connections opened in a \
         second; {connections} connections known, all {CONNECTIONS} established ones among them; packets in the pool: \
         {free_before} before, {free_during} during; dropped: {drops:?}",
        millions(offered),
        millions(sent),
        opened as f64 / wall.as_secs_f64(),
    );
    Ok((Sample::new(sent, cpu, wall), said))
}
