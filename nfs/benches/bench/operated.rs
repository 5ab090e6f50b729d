//! The suite `operated`: what it costs forwarding to be looked at. Clients of the admin door scrape the metrics every
//! second and query without end; beside that stand a door that nobody comes to, and no door.
//!
//! Clients, server and control thread are threads of this process that keep off the worker's CPU. What they do there
//! is not counted; what they do to the worker is: by what they share with it, counters, caches and memory.

use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::ours::{NULL, devices, start_eal, timed, timed_while};
use crate::results::Row;
use crate::routed::{Destinations, Routed};
use crate::router::{ensure_forwarded, runtime};
use crate::scored::HOT;
use crate::source::{CIRCULATING, Circulation};
use crate::testpmd::Testpmd;
use anyhow::{Context as _, ensure};
use dpdk_rs::Burst;
use nf_framework::{AdminConfig, AdminDoor, Control, ForwardingKind};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a router that is scraped and queried, and one that is left alone";
pub(crate) const MEBIBYTES: u64 = 160;

const ROUTES: u32 = 10_000;
const NO_DOOR: &str = "router, no door";
const LEFT_ALONE: &str = "router, nobody at the door";
const OPERATED: &str = "router, scraped every second and queried without end";

/// What is asked for in turn, each as soon as the one before is answered.
const QUERIES: [&str; 4] = ["/v1/stats", "/v1/routes?limit=1000", "/v1/chain?by=worker", "/v1/neighbours?limit=1000"];
const SCRAPES: Duration = Duration::from_secs(1);
/// So that each slice has scrapes in it.
const SHORTEST: Duration = Duration::from_millis(1100);
/// Of slices so long.
const MOST: usize = 10;

pub(crate) fn notes() -> Vec<String> {
    [
        "IPv4, 10 000 routes, 1792 mbufs in circulation, one worker; what the suite router has as hot",
        "two connections to the Unix socket: one asks for /metrics at the beginning of a slice and every second, the \
         other for /v1/stats, 1000 routes, /v1/chain and the neighbours in turn, as fast as they are answered",
        "score - 1 is what it adds in units of testpmd's macswap, over the router without a door; cost is the worker's CPU \
         time: clients, server and control have the other CPU",
        "a slice is at least 1.1 s here, and a process has at most 10 rounds",
    ]
    .map(str::to_owned)
    .into()
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    // Before the EAL pins this thread.
    let mut testpmd = Testpmd::start(memory, &devices(), 1, Burst::USUAL)?;
    let eal = start_eal(memory, 1)?;
    let circulation = Circulation::new(&eal, CIRCULATING, 1)?;
    circulation.fill(&eal, Circulation::HOT)?;
    let routed = Routed::new(Destinations::V4(ROUTES), circulation.macs(&eal)?)?;
    let fill = |side: usize, number: u32, packet: &mut _| routed.flows[side].fill(number as usize, packet);
    let stores = circulation.stores_of(CIRCULATING, fill)?;
    let router = || runtime(&eal, ForwardingKind::Router, &routed, &stores);
    let clients = Clients::default();
    let answered = Cell::new(Answered::default());

    let variants = vec![
        Variant::new(MACSWAP, |slice| testpmd.forward("macswap", NULL.numbers, Burst::USUAL, None, slice)),
        Variant::new(NO_DOOR, |slice| {
            let (sample, report) = timed(router()?, slice)?;
            ensure_forwarded(&report).map(|()| sample)
        }),
        Variant::new(LEFT_ALONE, |slice| {
            let runtime = router()?.admin(clients.door()?);
            let (sample, report, ()) = timed_while(runtime, |control| serve(control, slice))?;
            ensure_forwarded(&report).map(|()| sample)
        })
        .score(NO_DOOR, MACSWAP),
        Variant::new(OPERATED, |slice| {
            let runtime = router()?.admin(clients.door()?);
            let (sample, report, of_slice) = timed_while(runtime, |control| clients.visit(control, slice))?;
            answered.set(answered.get().and(of_slice?));
            ensure_forwarded(&report).map(|()| sample)
        })
        .score(NO_DOOR, MACSWAP)
        .net(LEFT_ALONE),
    ];
    let rows = interleave(variants, Plan { slice: plan.slice.max(SHORTEST), rounds: plan.rounds.min(MOST), ..plan })?;
    println!("note {HOT}: {}", answered.get().line());
    circulation.drain(&eal)?;
    Ok(rows)
}

/// What a program does for its door, for so long.
fn serve(control: &Control, slice: Duration) {
    let end = Instant::now() + slice;
    while Instant::now() < end && !control.stopping() {
        control.serve(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
        control.tend_ports();
    }
}

/// What clients got.
#[derive(Clone, Copy, Default)]
struct Answered {
    scrapes: u64,
    queries: u64,
    bytes: u64,
    time: Duration,
}

impl Answered {
    fn and(self, other: Self) -> Self {
        Self {
            scrapes: self.scrapes + other.scrapes,
            queries: self.queries + other.queries,
            bytes: self.bytes + other.bytes,
            time: self.time + other.time,
        }
    }

    fn line(self) -> String {
        let seconds = self.time.as_secs_f64();
        let [queries, mebibytes] = [self.queries as f64, self.bytes as f64 / 1048576.0].map(|sum| sum / seconds);
        format!("{} scrapes in {seconds:.0} s; {queries:.0} queries and {mebibytes:.1} MiB a second", self.scrapes)
    }
}

/// Those who come to the door, and where it is.
struct Clients {
    socket: PathBuf,
}

impl Default for Clients {
    fn default() -> Self {
        let name = std::env::var("BENCH_NAMESPACE").unwrap_or_else(|_| "bench".to_owned());
        Self { socket: std::env::temp_dir().join(format!("{name}-{}.sock", std::process::id())) }
    }
}

impl Clients {
    fn door(&self) -> anyhow::Result<AdminDoor> {
        let config = AdminConfig { socket: Some(self.socket.clone()), ..AdminConfig::default() };
        Ok(AdminDoor::open(&config, "bench", env!("CARGO_PKG_VERSION"), None)?)
    }

    /// Both of them come, and control serves them, for so long. To be called on the control thread, whose CPUs they
    /// get.
    fn visit(&self, control: &Control, slice: Duration) -> anyhow::Result<Answered> {
        let over = AtomicBool::new(false);
        let start = Instant::now();
        scope(|scope| {
            let scraping = scope.spawn(|| self.scrape(&over));
            let querying = scope.spawn(|| self.query(&over));
            serve(control, slice);
            over.store(true, Ordering::Relaxed);
            // Their last requests are answered too.
            while !(scraping.is_finished() && querying.is_finished()) {
                control.serve(Duration::from_millis(1));
            }
            let time = start.elapsed();
            let [scraped, queried] = [scraping, querying].map(std::thread::ScopedJoinHandle::join);
            let failed = |_| anyhow::anyhow!("a client panicked");
            Ok(Answered { time, ..scraped.map_err(failed)??.and(queried.map_err(failed)??) })
        })
    }

    fn scrape(&self, over: &AtomicBool) -> anyhow::Result<Answered> {
        let mut client = Client::connect(&self.socket)?;
        let mut answered = Answered::default();
        let mut next = Instant::now();
        while !over.load(Ordering::Relaxed) {
            if Instant::now() < next {
                sleep(Duration::from_millis(10));
                continue;
            }
            next += SCRAPES;
            answered.bytes += client.ask("/metrics")?;
            answered.scrapes += 1;
        }
        Ok(answered)
    }

    fn query(&self, over: &AtomicBool) -> anyhow::Result<Answered> {
        let mut client = Client::connect(&self.socket)?;
        let mut answered = Answered::default();
        for query in QUERIES.iter().cycle() {
            if over.load(Ordering::Relaxed) {
                break;
            }
            answered.bytes += client.ask(query)?;
            answered.queries += 1;
        }
        Ok(answered)
    }
}

/// One connection, with nothing of the server's.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The bytes of an answer.
    fn ask(&mut self, target: &str) -> anyhow::Result<u64> {
        self.0.get_mut().write_all(format!("GET {target} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes())?;
        let (mut line, mut length) = (String::new(), None);
        self.0.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200 "), "{target}: {line:?}");
        while line != "\r\n" {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "{target}: the answer was cut off");
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<u64>()?);
            }
        }
        let length = length.with_context(|| format!("{target}: an answer without a length"))?;
        let taken = std::io::copy(&mut (&mut self.0).take(length), &mut std::io::sink())?;
        ensure!(taken == length, "{target}: the answer was cut off");
        Ok(length)
    }
}
