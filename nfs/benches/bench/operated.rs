//! The suite `operated`: what it costs forwarding to be looked at. Clients of the admin door scrape the metrics every
//! second and query without end; beside that stand a door that nobody comes to, and no door.
//!
//! Clients, server and control thread are threads of this process that keep off the worker's CPU. What they do there
//! is not counted; what they do to the worker is: by what they share with it, counters, caches and memory.

use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave};
use crate::nat::{self, Begun};
use crate::ours::{NULL, Setting, config, devices, ensure_forwarded, start_eal, timed, timed_while};
use crate::results::Row;
use crate::source::{Kept, Shelf};
use crate::testpmd::Testpmd;
use anyhow::{Context as _, ensure};
use dpdk_rs::{Burst, Eal};
use nf_framework::{
    AdminConfig, AdminDoor, Control, Function, Invalid, Loaded, Piece, Runtime, SetupError, Topic, WorkerSetup,
};
use nfs::nat::{Instance, SessionFilter};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a NAT that is scraped and queried, and one that is left alone";
pub(crate) const MEBIBYTES: u64 = 160;

const SESSIONS: u32 = 1 << 16;
const NO_DOOR: &str = "NAT, 64k sessions, no door";
const LEFT_ALONE: &str = "NAT, 64k sessions, nobody at the door";
const SCRAPED: &str = "NAT, 64k sessions, scraped every second";
const OPERATED: &str = "NAT, 64k sessions, scraped every second and queried without end";

const SCRAPES: Duration = Duration::from_secs(1);
/// So that each slice has scrapes in it.
const SHORTEST: Duration = Duration::from_millis(1100);
/// Of slices so long.
const MOST: usize = 10;

pub(crate) fn notes() -> Vec<String> {
    [
        "one worker, net_null, both directions, UDP, packets of known sessions",
        "scraped: /metrics at the beginning of a slice and a second later; queried: one more connection asks for \
         /v1/stats, for the next 1000 of all sessions and for /v1/chain in turn, as fast as they are answered",
        "score - 1 is what it adds in units of testpmd's macswap, over the NAT without a door; cost is the worker's CPU \
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
    let nats = nat::begin(&eal, 1, SESSIONS, "")?;
    let clients = Clients::default();
    let answered = Cell::new(Answered::default());

    let visited = |name, queries| {
        let (eal, nats, clients, answered) = (&eal, &nats, &clients, &answered);
        Variant::new(name, move |slice| {
            let runtime = runtime(eal, nats)?.admin(clients.door()?);
            let (sample, report, of_slice) = timed_while(runtime, |control| clients.visit(control, queries, slice))?;
            let of_slice = of_slice?;
            if queries {
                answered.set(answered.get().and(of_slice));
            }
            ensure_forwarded(&report).map(|()| sample)
        })
        .score(NO_DOOR, MACSWAP)
    };
    let variants = vec![
        Variant::new(MACSWAP, |slice| testpmd.forward("macswap", NULL.numbers, Burst::USUAL, None, slice)),
        Variant::new(NO_DOOR, |slice| {
            let (sample, report) = timed(runtime(&eal, &nats)?, slice)?;
            ensure_forwarded(&report).map(|()| sample)
        }),
        Variant::new(LEFT_ALONE, |slice| {
            let runtime = runtime(&eal, &nats)?.admin(clients.door()?);
            let (sample, report, ()) = timed_while(runtime, |control| serve(control, slice))?;
            ensure_forwarded(&report).map(|()| sample)
        })
        .score(NO_DOOR, MACSWAP),
        visited(SCRAPED, false),
        visited(OPERATED, true),
    ];
    let rows = interleave(variants, Plan { slice: plan.slice.max(SHORTEST), rounds: plan.rounds.min(MOST), ..plan })?;
    println!("note {OPERATED}: {}", answered.get().line());
    Ok(rows)
}

fn runtime<'a>(eal: &'a Eal, nats: &[Begun]) -> anyhow::Result<Runtime<'a>> {
    let mut chain = nat::chain_of(nats, SESSIONS);
    let shelf = nats.first().map(|(shelf, _)| shelf.clone()).context("one worker has one NAT")?;
    chain[1] = Loaded::new(Listed(shelf), ());
    Ok(Runtime::new(eal, &config(Setting::new(NULL)), chain)?)
}

/// The NAT on the shelf, whose sessions can be asked for as a program's can.
struct Listed(Shelf<Instance>);

impl Function for Listed {
    type Config = ();
    type Policy = ();
    type Instance = Kept<Instance>;

    fn name(&self) -> &str {
        "nat"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, _: &mut WorkerSetup) -> Result<Kept<Instance>, SetupError> {
        Ok(Kept(self.0.take().ok_or("another worker has the NAT")?))
    }

    fn adopt(_: &mut Kept<Instance>, _: Arc<()>) {}

    fn topics(&self) -> Vec<Topic<Self>> {
        vec![Topic::list(
            "sessions",
            "as the NAT has them",
            |kept: &mut Kept<Instance>, filter: &SessionFilter, from| {
                let none = Piece { items: Vec::new(), next: None };
                kept.0.get().map_or(none, |instance| instance.list(filter, from))
            },
        )]
    }
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
    sessions: u64,
    bytes: u64,
    time: Duration,
}

impl Answered {
    fn and(self, other: Self) -> Self {
        Self {
            scrapes: self.scrapes + other.scrapes,
            queries: self.queries + other.queries,
            sessions: self.sessions + other.sessions,
            bytes: self.bytes + other.bytes,
            time: self.time + other.time,
        }
    }

    fn line(self) -> String {
        let seconds = self.time.as_secs_f64();
        let each = |sum: u64| sum as f64 / seconds;
        format!(
            "{} scrapes in {seconds:.0} s; {:.0} queries a second, with {:.0} sessions, and {:.1} MiB",
            self.scrapes,
            each(self.queries),
            each(self.sessions),
            each(self.bytes) / 1048576.0,
        )
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

    /// They come, and control serves them, for so long. To be called on the control thread, whose CPUs they get.
    fn visit(&self, control: &Control, queries: bool, slice: Duration) -> anyhow::Result<Answered> {
        let over = AtomicBool::new(false);
        let start = Instant::now();
        scope(|scope| {
            let scraping = scope.spawn(|| self.scrape(&over));
            let querying = scope.spawn(|| if queries { self.query(&over) } else { Ok(Answered::default()) });
            serve(control, slice);
            over.store(true, Ordering::Relaxed);
            // Their last requests are answered too.
            while !(scraping.is_finished() && querying.is_finished()) {
                control.serve(Duration::from_millis(1));
            }
            let time = start.elapsed();
            let [scraped, queried] = [scraping, querying].map(ScopedJoinHandle::join);
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
            answered.bytes += client.ask("/metrics")?.len() as u64;
            answered.scrapes += 1;
        }
        Ok(answered)
    }

    fn query(&self, over: &AtomicBool) -> anyhow::Result<Answered> {
        let mut client = Client::connect(&self.socket)?;
        let mut answered = Answered::default();
        let mut cursor = String::new();
        while !over.load(Ordering::Relaxed) {
            for target in ["/v1/stats", &format!("/v1/functions/nat/sessions?limit=1000{cursor}"), "/v1/chain"] {
                let body = client.ask(target)?;
                answered.bytes += body.len() as u64;
                answered.queries += 1;
                if target.contains("sessions") {
                    let page: Page<'_> = serde_json::from_str(&body)?;
                    answered.sessions += page.items.len() as u64;
                    cursor = page.next.map_or_else(String::new, |next| format!("&cursor={next}"));
                }
            }
        }
        Ok(answered)
    }
}

/// Of a list.
#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a serde_json::value::RawValue>,
    next: Option<String>,
}

/// One connection, with nothing of the server's.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// What is answered.
    fn ask(&mut self, target: &str) -> anyhow::Result<String> {
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
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let mut body = vec![0; length.with_context(|| format!("{target}: an answer without a length"))?];
        self.0.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }
}
