//! A program over captures: its chain, configured as always, without ports and on the time of the packets.
//!
//! [`source`] reads the captures in the order of time, from whatever [`input`] they have, [`clock`] is the time and has the functions tick, [`files`] takes
//! what leaves and what is dropped; [`explain`](mod@explain) follows each packet instead. What is in between is the [`Pipeline`](crate::worker::Pipeline) of every worker.
//!
//! # What is not as it is live
//!
//! - Nobody is out there. A router has every neighbour at 02:00:00:00:00:01 and asks for none, its own ports are
//!   02:00:00:00:01:01 and 02:00:00:00:01:02, and each frame that is for one station is for it, whatever its address: the
//!   one it has in the capture is that of the real port. There is no kernel beside it, and a function is told
//!   ([`WorkerSetup::is_offline`](crate::WorkerSetup::is_offline)) and not [tended](crate::Function::tend).
//! - There is one worker. Ports are never full, and never down.
//! - Packets that are captured where they are made may have checksums that a device was to complete: they are completed.
//! - Packets that come in within a tick (100 us) may come in together, at the time of the last one.
//!
//! # Time
//!
//! It begins with the first packet. Where the captures say nothing for a while the functions tick as they would, at first
//! every 100 us and later in steps of a 64th of the time that has gone: timers end at their time and 1.6 % of the gap,
//! and a gap of a year is a thousand ticks or two. Of a gap longer than [`clock::LONGEST_GAP`] that much is seen. Where
//! captures go back in time it stands still.

mod clock;
mod explain;
mod files;
mod input;
mod progress;
mod side;
mod source;

pub(crate) use explain::explain;
pub use side::is_inside;

use crate::batch::Batch;
use crate::classifier::Prefix;
use crate::counters::bump;
use crate::crash::scene::Scene;
use crate::crash::{CrashReports, panic_message};
use crate::direction::Direction;
use crate::eal_arguments::floating_lcore;
use crate::partial_checksums;
use crate::runtime::{Configuration, Portless, RuntimeError};
use crate::trace::TraceError;
use crate::verdict::DropReason;
use clock::Clock;
use dpdk_rs::{Burst, Eal, EalError, Mbuf, PortId};
use files::{Files, OutputError};
use progress::Progress;
use source::{Side, Source, SourceError, Sources};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as WallInstant};

/// What is replayed, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct OfflineOptions {
    /// Run the chain over captures (pcap or pcapng) and not over ports: what came in inside, and what outside; if it is
    /// one file, a packet's source address says from which side it came (--inside)
    #[arg(
        long,
        value_name = "IN.pcap[,IN2.pcap]",
        value_delimiter = ',',
        num_args = 1,
        requires = "write",
        conflicts_with_all = ["check", "stats_interval", "drain", "idle"]
    )]
    pub(crate) replay: Vec<PathBuf>,

    /// With --replay: into this directory goes what leaves (inside.pcapng, outside.pcapng) and what is dropped, with the
    /// reason as a comment (dropped.pcapng)
    #[arg(long, value_name = "DIR", requires = "replay")]
    pub(crate) write: Option<PathBuf>,

    /// With --replay: at the captures' own pace, and not at once
    #[arg(long, requires = "replay")]
    pub(crate) pace: bool,

    /// With --replay: write over files that are there
    #[arg(long, requires = "replay")]
    pub(crate) force: bool,

    /// Say what becomes of a packet, such as "tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside", or of each of a capture
    /// file (pcap or pcapng), and why, and start nothing
    #[arg(
        long,
        value_name = "PACKET|FILE",
        conflicts_with_all = ["replay", "check", "stats_interval", "drain", "idle"]
    )]
    pub(crate) explain: Option<String>,

    /// With --explain, and with --replay of one capture: what these prefixes send comes from inside; what private
    /// addresses send, unless given
    #[arg(long, value_name = "PREFIX,PREFIX", value_delimiter = ',', requires = "judged")]
    pub(crate) inside: Vec<Prefix>,
}

/// Why a replay is not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfflineError {
    #[error("--replay takes one capture, or two: inside,outside")]
    Files,
    #[error("--replay: the configuration has one port, so there is one capture to give")]
    OnePort,
    #[error("--inside is for one capture; of two, each is a side")]
    TwoSides,
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Eal(#[from] EalError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(
        "an error related to a live connection cannot be followed through the chain, as no connection is live there: give \
         a capture that has the connection too"
    )]
    Related,
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("{at}: a panic: {message} ({place})")]
    Panicked { at: String, message: String, place: String },
    #[error("told to stop before the captures were at their end")]
    Stopped,
}

/// Memory beyond what functions say that they need: what they build for their policies, and what the EAL has for itself.
/// It is taken from the system when it is used.
const SPARE: u64 = 512 << 20;

/// Runs a configuration over captures. The text is the counters, with what else there is to say; what follows it is why
/// they are not of all packets.
///
/// # Errors
///
/// When nothing was run.
pub(crate) fn run(
    name: &str,
    configuration: Configuration,
    options: &OfflineOptions,
    stop: &Arc<AtomicBool>,
    reports: &CrashReports,
) -> Result<(String, Result<(), OfflineError>), OfflineError> {
    let config = configuration.runtime().clone();
    let inside = &options.inside[..];
    let sides = match (&options.replay[..], config.has_two_sides()) {
        ([_], true) => vec![Side::BySource(inside.to_vec())],
        ([_], false) => vec![Side::Port(0)],
        ([_, _], true) if inside.is_empty() => vec![Side::Port(0), Side::Port(1)],
        ([_, _], true) => return Err(OfflineError::TwoSides),
        ([_, _], false) => return Err(OfflineError::OnePort),
        _ => return Err(OfflineError::Files),
    };
    let sources = options.replay.iter().zip(sides).map(|(path, side)| Source::open(path, side, stop));
    let sources = Sources::new(sources.collect::<Result<_, _>>().map_err(|error| unless_stopped(error, stop))?);
    let directory = options.write.clone().unwrap_or_default();
    let ports = config.port_names();
    files::prepare(&directory, &ports, &options.replay, options.force)?;

    let worker = start(name, configuration)?;
    let files = Files::create(&directory, &ports)?;
    files.witness(&worker);
    let progress = Progress::new(sources.length());
    let pace = options.pace.then(WallInstant::now);
    let mut replay = Replay {
        clock: Clock::new(sources.begin()),
        worker,
        sources,
        files,
        batch: Batch::with_limit(Burst::CAPACITY),
        between: Batch::with_limit(Burst::CAPACITY),
        burst: config.burst,
        progress,
        packets: 0,
        inside_given: !inside.is_empty(),
    };
    let began = replay.clock.stamp();
    let result = unless_it_panics(|| {
        let result = replay.run(pace, stop);
        result.and(replay.end())
    });
    let result = result.unwrap_or_else(|message| Err(replay.panicked(message, reports)));
    Ok((replay.describe(name, began), result))
}

/// Does what a function may end by a panic; what it said, then.
fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panic_message(payload.as_ref()))
}

/// Says of a panic where it was.
fn panicked(at: String, message: String, worker: &Portless) -> OfflineError {
    OfflineError::Panicked { at, message, place: Scene::place(worker.scene(), &worker.function_names()) }
}

/// Why a capture is not read further: that somebody did not wait for it says nothing about it.
fn unless_stopped(error: SourceError, stop: &AtomicBool) -> OfflineError {
    if stop.load(Ordering::Relaxed) { OfflineError::Stopped } else { error.into() }
}

/// Starts the EAL on nothing, and a worker without ports on it.
fn start(name: &str, configuration: Configuration) -> Result<Portless, OfflineError> {
    let bytes = configuration.bytes_without_ports();
    let mebibytes = bytes.saturating_add(bytes / 4).saturating_add(SPARE).div_ceil(1 << 20);
    let memory = ["-m".to_owned(), mebibytes.to_string()];
    let fixed = ["--no-huge", "--no-shconf", "--no-pci", "--no-telemetry"].map(str::to_owned);
    let arguments = [name.to_owned(), floating_lcore()].into_iter().chain(fixed).chain(memory);
    let (eal, _) = Eal::init(arguments)?;
    Ok(configuration.without_ports(&eal)?)
}

/// Makes a packet of a frame that has come in by a port; why it cannot be one, otherwise.
fn let_in(worker: &Portless, frame: &[u8], port: u16) -> Result<Mbuf, DropReason> {
    let Portless { pipeline, stations, .. } = worker;
    let counters = &pipeline.counters;
    if let Some(of_port) = counters.ports.get(usize::from(port)) {
        bump(&of_port.received, 1);
    }
    let lost = |reason: DropReason| {
        bump(&counters.drops[reason.index()], 1);
        reason
    };
    let mut packet = pipeline.pool.alloc().ok_or_else(|| lost(DropReason::NO_BUFFERS))?;
    if !packet.set_contents(frame) {
        return Err(lost(DropReason::NOT_ONE_SEGMENT));
    }
    packet.set_port(PortId(port));
    let station = stations.and_then(|stations| stations.get(usize::from(port)).copied());
    if let (Some(station), Some(destination)) = (station, packet.data_mut().first_chunk_mut::<6>())
        && destination[0] & 1 == 0
    {
        *destination = station.octets();
    }
    Ok(packet)
}

/// How many packets of one capture were taken as coming from which side; where one got none, what to do about it.
fn sides_taken([inside, outside]: [u64; 2], given: bool) -> String {
    let by = if given { "by --inside" } else { "as private source addresses are inside" };
    let none = (inside == 0) != (outside == 0);
    let hint = if none && !given { " (--inside PREFIX,PREFIX says whose addresses are inside)" } else { "" };
    format!("{inside} from inside and {outside} from outside, {by}{hint}")
}

/// Towards which side goes what has come in by a port.
fn direction_of(port: u16) -> Direction {
    if port == 0 { Direction::Outbound } else { Direction::Inbound }
}

/// A replay that is going on.
struct Replay {
    worker: Portless,
    sources: Sources,
    files: Files,
    clock: Clock,
    batch: Batch,
    /// For ticks while packets are in the other one.
    between: Batch,
    burst: usize,
    progress: Progress,
    packets: u64,
    /// Whether it was said who is inside.
    inside_given: bool,
}

impl Replay {
    fn run(&mut self, pace: Option<WallInstant>, stop: &AtomicBool) -> Result<(), OfflineError> {
        let began = self.clock.stamp();
        self.advance(began);
        while let Some((port, first)) = self.sources.next() {
            if let Some(start) = pace {
                self.wait_until(start, first.saturating_sub(began), stop);
            }
            if stop.load(Ordering::Relaxed) {
                return Err(OfflineError::Stopped);
            }
            self.advance(first);
            let last = self.take_in(port, first);
            self.advance(last);
            self.arrive(port);
            self.progress.burst(self.sources.position(), self.packets);
            self.files.check()?;
        }
        self.sources.fault().map_or(Ok(()), |fault| Err(unless_stopped(fault, stop)))
    }

    /// Fills the batch with the next packets of one side, within a tick of the first; when the last one comes in.
    fn take_in(&mut self, port: u16, first: Duration) -> Duration {
        let (mut last, within) = (first, first.saturating_add(crate::worker::TICK_TIME));
        for _ in 0..self.burst {
            let Some((_, time)) = self.sources.next().filter(|(next, time)| *next == port && *time < within) else {
                break;
            };
            last = time;
            self.packets += 1;
            self.let_in(port);
            self.sources.advance();
        }
        last
    }

    /// Makes a packet of the frame that is next.
    fn let_in(&mut self, port: u16) {
        let frame = self.sources.frame();
        match let_in(&self.worker, frame, port) {
            // There are no more packets in a burst than a batch has slots.
            Ok(packet) => drop(self.batch.push(packet)),
            Err(reason) => self.files.dropped(frame, port, reason),
        }
    }

    fn arrive(&mut self, port: u16) {
        if self.batch.is_empty() {
            return self.batch.empty();
        }
        partial_checksums::complete(&mut self.batch);
        self.worker.pipeline.arrive(&mut self.batch, direction_of(port), self.clock.now(), &mut self.files);
    }

    /// Lets time pass.
    fn advance(&mut self, to: Duration) {
        let Self { clock, worker, between, files, .. } = self;
        clock.advance(to, |clock, budget| {
            files.set_time(clock.stamp());
            worker.pipeline.tick_with(budget, between, clock.now(), files);
        });
        self.files.set_time(to);
    }

    /// Waits until so much time has gone since the start.
    fn wait_until(&mut self, start: WallInstant, gone: Duration, stop: &AtomicBool) {
        const LOOK: Duration = Duration::from_millis(50);
        while !stop.load(Ordering::Relaxed) {
            // A capture may say more than an instant has room for.
            let left = gone.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            self.progress.show(self.sources.position(), self.packets);
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// As a program stops.
    fn end(&mut self) -> Result<(), OfflineError> {
        let now = self.clock.now();
        let Self { worker, between, files, .. } = self;
        // What functions show is as of their last tick.
        worker.pipeline.tick(between, now, files);
        worker.pipeline.bring_to_rest(between, now, files);
        worker.pipeline.stop();
        self.progress.end();
        Ok(self.files.finish()?)
    }

    /// What was written stays, as far as it got, and what is known of the panic goes into a report.
    fn panicked(&mut self, message: String, reports: &CrashReports) -> OfflineError {
        let Self { worker, files, progress, .. } = self;
        progress.end();
        reports.write(0, &message, worker.scene(), &worker.function_names(), &worker.report());
        if let Err(error) = files.finish() {
            log::error!("{error}");
        }
        panicked(format!("with {} packets read", self.packets), message, &self.worker)
    }

    /// The counters, and before them what they do not say.
    fn describe(&self, name: &str, began: Duration) -> String {
        let seconds = self.clock.stamp().saturating_sub(began).as_secs_f64();
        // To a string nothing can fail.
        let packets = if self.packets == 1 { "1 packet".to_owned() } else { format!("{} packets", self.packets) };
        let mut text = format!("--- {name} has replayed {packets} in {seconds:.3} s of capture");
        if let Some(taken) = self.sources.taken() {
            let _ = write!(text, "\n{}", sides_taken(taken, self.inside_given));
        }
        let (truncated, backwards) = (self.sources.truncated(), self.sources.backwards());
        for (count, what) in [
            (truncated, "packets are not whole in the capture, and are left out (tcpdump -s 0 takes all of a packet)"),
            (backwards, "packets are earlier than one before them: time stood still meanwhile"),
            (self.clock.leaps(), "gaps were longer than functions were made to wait"),
        ] {
            if count > 0 {
                let _ = write!(text, "\n{count} {what}");
            }
        }
        text + &format!("\n{}", self.worker.report())
    }
}
