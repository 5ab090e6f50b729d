//! All captures of a directory through a router with functions in it, on the time of the captures, on
//! one worker and on two with every packet arriving at the wrong one. What the functions are, a
//! [`Subject`] says.

use nf_framework::capture::{CaptureReader, CapturedPacket, LinkType};
use nf_framework::headers::{Headers, MacAddress};
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Affinity, Balance, Chain, Direction, FragmentsConfig, Report, WorkerSetup};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What is replayed, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Whether bits and bytes of the frames are changed, by random numbers from a seed.
    pub(crate) flip: Option<u64>,
    /// Makes what they go through, for each run of a file.
    pub(crate) subject: fn() -> Box<dyn Subject>,
}

/// What captures go through. A function that makes a chain is one, in a router for all of them.
pub(crate) trait Subject: Send + Sync {
    /// A worker's functions.
    fn chain(&self, worker: &mut WorkerSetup) -> Chain;

    /// What they need.
    fn affinity(&self) -> Affinity {
        Affinity::Flow
    }

    /// The table `[router]`, and the addresses that the router takes packets for on behalf of functions.
    fn router(&self) -> (&'static str, Vec<String>) {
        (ROUTER, Vec::new())
    }

    /// A frame as it comes in on a side, once or more often.
    fn arriving(&self, frame: &[u8], direction: Direction) -> Vec<Vec<u8>> {
        vec![arriving(frame, direction)]
    }
}

impl<F: Fn(&mut WorkerSetup) -> Chain + Send + Sync> Subject for F {
    fn chain(&self, worker: &mut WorkerSetup) -> Chain {
        self(worker)
    }
}

/// Half of all addresses are on either side. Some destinations are neighbours, the others are behind
/// one; the links are of different length.
const ROUTER: &str = r#"
[interfaces.inside]
side = "inside"
addresses = ["10.255.255.1/8", "192.168.255.1/16", "2001:db8:ffff::1/32", "fe80::1/64"]

[interfaces.outside]
side = "outside"
addresses = ["172.31.255.1/12", "198.51.100.1/24", "3fff:ffff::1/20", "fe80::2/64"]
mtu = 1400

[[routes]]
to = "0.0.0.0/1"
via = "10.255.255.2"

[[routes]]
to = "128.0.0.0/1"
via = "198.51.100.2"

[[routes]]
to = "::/3"
via = "2001:db8:ffff::2"

[[routes]]
to = "2001::/16"
via = "2001:db8:ffff::2"

[[routes]]
to = "::/0"
via = "3fff:ffff::2"
"#;

/// Frames that come in together, at most, if they are less than this apart.
const TOGETHER: usize = 16;
const APART: Duration = Duration::from_millis(1);
/// Captures pause for days; nothing here waits for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What a packet of a program has room for.
const LONGEST_FRAME: usize = 2048;

/// What came about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) files: usize,
    /// Files that cannot be read, or not to their end, and why.
    pub(crate) faults: Vec<String>,
    /// Frames of Ethernet that were replayed.
    pub(crate) frames: usize,
    pub(crate) too_long: usize,
    /// Packets of other link types, by type.
    pub(crate) other_links: BTreeMap<LinkType, usize>,
    pub(crate) changed: usize,
    /// With one worker, and with two.
    pub(crate) runs: [Run; 2],
    /// What did not hold: the file, its packets, and what was said.
    pub(crate) failures: Vec<String>,
}

/// What became of all packets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Run {
    pub(crate) balance: Balance,
    pub(crate) drops: BTreeMap<String, u64>,
    /// What the functions counted.
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) handed_over: u64,
    /// The most packets that were held when a burst was through.
    pub(crate) most_held: u64,
}

impl Run {
    fn add(&mut self, report: &Report, most_held: u64) {
        let (all, one) = (&mut self.balance, &report.balance);
        all.received += one.received;
        all.originated += one.originated;
        all.sent += one.sent;
        all.dropped += one.dropped;
        all.consumed += one.consumed;
        all.held += one.held;
        for drop in &report.drops {
            *self.drops.entry(drop.reason.clone()).or_default() += drop.count;
        }
        for counter in &report.counters {
            *self.counters.entry(counter.name.clone()).or_default() += counter.value;
        }
        self.handed_over += report.handed_over;
        self.most_held = self.most_held.max(most_held);
    }
}

/// Replays every file under a directory, or one file.
///
/// # Errors
///
/// When a directory cannot be listed.
pub(crate) fn replay(directory: &Path, options: &Options) -> std::io::Result<Summary> {
    let mut files = Vec::new();
    list(directory, &mut files)?;
    files.sort();
    let mut summary = Summary::default();
    for path in files {
        summary.files += 1;
        let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
        let frames = Arc::new(summary.choose(&path, options.flip, &name));
        summary.frames += frames.len();
        for (workers, run) in [1, 2].into_iter().zip(&mut summary.runs) {
            match replay_file(&frames, workers, options.subject) {
                Ok((report, most_held)) => run.add(&report, most_held),
                Err(said) => summary.failures.push(format!("{name}: on {workers} worker(s), {said}")),
            }
        }
    }
    Ok(summary)
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        list(&entry?.path(), files)?;
    }
    Ok(())
}

/// A frame with its number in its file, from 1.
#[derive(Clone, Debug)]
struct Numbered {
    number: usize,
    time: Duration,
    data: Vec<u8>,
}

impl Summary {
    /// The frames of a file that can be replayed, changed if asked for.
    fn choose(&mut self, path: &Path, flip: Option<u64>, name: &str) -> Vec<Numbered> {
        let mut random = flip.map(|seed| Random::new(seed, name));
        let mut chosen = Vec::new();
        let read = CaptureReader::open(path).and_then(|mut file| {
            let mut number = 0;
            while let Some(CapturedPacket { time, link_type, data, .. }) = file.next_packet()? {
                number += 1;
                if link_type != LinkType::ETHERNET {
                    *self.other_links.entry(link_type).or_default() += 1;
                } else if data.len() > LONGEST_FRAME {
                    self.too_long += 1;
                } else {
                    let mut frame = data.to_vec();
                    if let Some(random) = &mut random {
                        random.spoil(&mut frame);
                        self.changed += usize::from(data != frame);
                    }
                    chosen.push(Numbered { number, time, data: frame });
                }
            }
            Ok(())
        });
        self.faults.extend(read.err().map(|fault| format!("{name}: {fault}")));
        chosen
    }
}

/// Replays a file, and if that fails once more, frame by frame, to name the one.
fn replay_file(
    frames: &Arc<Vec<Numbered>>,
    workers: u16,
    subject: fn() -> Box<dyn Subject>,
) -> Result<(Report, u64), String> {
    let once = |together| {
        let frames = Arc::clone(frames);
        let begun = Arc::new(AtomicUsize::new(0));
        let at = Arc::clone(&begun);
        let replay = move || lab(move |lab| through(lab, &frames, workers, together, &*subject(), &at));
        catch_unwind(AssertUnwindSafe(replay)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            (begun.load(Ordering::Relaxed), text.unwrap_or_default())
        })
    };
    once(TOGETHER).map_err(|(number, said)| match once(1) {
        Err((number, said)) => format!("packet {number}: {said}"),
        Ok(_) => format!("packets from {number} on, {TOGETHER} at once: {said}"),
    })
}

/// Takes frames from both sides through a chain, and looks that nothing is missing at the end.
fn through(
    lab: &Lab<'_>,
    frames: &[Numbered],
    workers: u16,
    together: usize,
    subject: &dyn Subject,
    begun: &AtomicUsize,
) -> (Report, u64) {
    let trial = match workers {
        1 => lab.trial(|worker| subject.chain(worker)).with_fragments(FragmentsConfig::default()),
        _ => lab.trial_at_wrong_workers(workers, subject.affinity(), |worker| subject.chain(worker)),
    };
    let (router, addresses) = subject.router();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut link = Links { trial: trial.with_router(router, &addresses), given: 0, held: 0, most_held: 0 };
    link.advance(Duration::ZERO);
    let mut last = frames.first().map_or(Duration::ZERO, |frame| frame.time);
    let mut rest = frames;
    while let Some(first) = rest.first() {
        let count = rest.iter().take(together).take_while(|frame| frame.time.abs_diff(first.time) < APART).count();
        let (burst, behind) = rest.split_at(count.max(1));
        begun.store(first.number, Ordering::Relaxed);
        link.advance(first.time.saturating_sub(last).min(LONGEST_PAUSE));
        for direction in [Direction::Outbound, Direction::Inbound] {
            let frames: Vec<_> = burst.iter().flat_map(|frame| subject.arriving(&frame.data, direction)).collect();
            link.send(direction, &frames);
        }
        (rest, last) = (behind, first.time);
    }
    for _ in 0..20 {
        link.advance(Duration::from_secs(4));
    }
    let Links { trial, given, most_held, .. } = link;
    let report = trial.report();
    assert_eq!((report.balance.unaccounted(), report.balance.held), (0, 0), "{}", report.balance);
    assert_eq!(report.balance.received, given, "{}", report.balance);
    trial.check_for_leaks();
    (report, most_held)
}

/// The links of the router, and stations there: those with an even address answer when asked.
struct Links {
    trial: Trial,
    given: u64,
    held: i64,
    most_held: u64,
}

impl Links {
    fn advance(&mut self, time: Duration) {
        let outcome = self.trial.advance(time);
        self.answer(outcome);
    }

    fn send(&mut self, direction: Direction, frames: &[Vec<u8>]) {
        let outcome = self.trial.send(direction, frames);
        self.given += frames.len() as u64;
        self.answer(outcome);
    }

    fn answer(&mut self, mut outcome: Outcome) {
        loop {
            self.held += outcome.held;
            self.most_held = self.most_held.max(self.held.unsigned_abs());
            let (frames, direction) = match (&mut outcome.inside, &mut outcome.outside) {
                (inside, _) if !inside.is_empty() => (std::mem::take(inside), Direction::Outbound),
                (_, outside) if !outside.is_empty() => (std::mem::take(outside), Direction::Inbound),
                _ => return,
            };
            let answers: Vec<_> = frames.iter().filter_map(|frame| answer(frame)).collect();
            for answers in answers.chunks(64) {
                let Outcome { inside, outside, held, .. } = self.trial.send(direction, answers);
                self.given += answers.len() as u64;
                outcome.inside.extend(inside);
                outcome.outside.extend(outside);
                self.held += held;
            }
            outcome.held = 0;
        }
    }
}

/// A frame as it comes in on a side: where its destination is on the other one it is for the router,
/// else for whom it was.
fn arriving(frame: &[u8], direction: Direction) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let towards = match frame.get(12..) {
        Some([0x08, 0x00, ip @ ..]) => ip.get(16).map_or(Direction::Outbound, |first| match first {
            0..=127 | 192 => Direction::Inbound,
            _ => Direction::Outbound,
        }),
        Some([0x86, 0xdd, ip @ ..]) => ip.get(24..26).map_or(Direction::Outbound, |first| match first {
            [0..=0x1f, _] | [0x20, 0x01] => Direction::Inbound,
            _ => Direction::Outbound,
        }),
        _ => Direction::Outbound,
    };
    if let (true, Some(destination)) = (towards == direction, frame.first_chunk_mut()) {
        *destination = if direction == Direction::Outbound { Trial::INSIDE_MAC } else { Trial::OUTSIDE_MAC }.0;
    }
    frame
}

/// What a neighbour says when it is asked for.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let router = MacAddress(*question.get(6..)?.first_chunk()?);
    let (asks_from, target): (IpAddr, IpAddr) = match question.get(12..)? {
        [0x08, 0x06, _, _, _, _, _, _, 0, 1, arp @ ..] => {
            let address = |at: usize| Some(Ipv4Addr::from(*arp.get(at..)?.first_chunk::<4>()?));
            (address(6)?.into(), address(16)?.into())
        }
        [0x86, 0xdd, ip @ ..] if ip.get(6) == Some(&58) && ip.get(40) == Some(&135) => {
            let address = |at: usize| Some(Ipv6Addr::from(*ip.get(at..)?.first_chunk::<16>()?));
            (address(8)?.into(), address(48)?.into())
        }
        _ => return None,
    };
    let last = match target {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    // Announcements, and questions whether somebody has an address already, are no questions.
    if last % 2 != 0 || asks_from == target || asks_from.is_unspecified() {
        return None;
    }
    let station = MacAddress([2, 0, 0, 0, 2, last]);
    let frame = Frame::new().ethernet(station, router);
    Some(match (asks_from, target) {
        (IpAddr::V4(asks_from), IpAddr::V4(target)) => frame.arp_reply(target, asks_from).build(),
        (IpAddr::V6(asks_from), IpAddr::V6(target)) => {
            let message = [&target.octets()[..], &[2, 1], &station.octets()].concat();
            frame.ipv6(target, asks_from).hop_limit(255).icmpv6(136, 0, [0x60, 0, 0, 0]).payload(&message).build()
        }
        _ => return None,
    })
}

/// Numbers that are the same for a seed and a file on every run (splitmix64).
struct Random(u64);

impl Random {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, so that a file is changed alike whatever others there are.
        Self(
            name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    /// Changes some bits or bytes, or cuts the frame, and makes its checksums right half of the time.
    fn spoil(&mut self, frame: &mut Vec<u8>) {
        let length = frame.len();
        for _ in 0..=self.below(4) {
            // Headers are where it matters.
            let within = if self.below(4) == 0 { length } else { length.min(80) };
            let (at, [value, bit, ..]) = (self.below(within), self.next().to_le_bytes());
            if let Some(byte) = frame.get_mut(at) {
                *byte = if bit & 0x80 == 0 { *byte ^ 1 << (bit & 7) } else { value };
            }
        }
        if self.below(16) == 0 {
            frame.truncate(self.below(length + 1));
        }
        if self.below(2) == 0
            && let Ok(mut headers) = Headers::parse(frame)
        {
            headers.fill_checksums();
        }
    }
}
