//! Packets that are dropped, in a pcapng file with the reason as comment.
//!
//! A worker copies the beginning of such a packet into a channel that has its room from the start, and never waits: what
//! finds none, or is more than was asked for, is counted. A thread of its own writes the file.

use crate::capture::{CaptureWriter, CapturedPacket};
use crate::counters::{Witness, WorkerCounters};
use crate::headers::on_the_link;
use crate::verdict::DropReason;
use dpdk_rs::{Mbuf, Ticks};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which packets that are dropped are to be written, and where.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropsRequest {
    /// The file, which must not be there yet.
    pub file: PathBuf,
    /// Reasons by name; all unless given. A form has them in one value, with commas between them.
    #[serde(default, deserialize_with = "names_of")]
    pub reasons: Vec<String>,
    /// Packets in a second at most, 1 to 10000.
    #[serde(default = "DropsRequest::usual_rate")]
    pub per_second: u32,
}

impl DropsRequest {
    /// Most packets in a second.
    pub const MOST: u32 = 10_000;

    fn usual_rate() -> u32 {
        100
    }
}

fn names_of<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of names, or names with commas between them")]
    enum Names {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Names::deserialize(from)? {
        Names::List(names) => names,
        Names::Text(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
    })
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DropsWritten {
    /// Packets in the file.
    pub written: u64,
    /// Packets that were meant and left out: there were too many.
    pub left_out: u64,
}

/// Why packets that are dropped are not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropsError {
    /// No reason has this name.
    #[error("there is no drop reason {0:?}")]
    Reason(String),
    /// The rate.
    #[error("{0} packets in a second cannot be written: 1 to {most} can", most = DropsRequest::MOST)]
    Rate(u32),
    /// They are written already.
    #[error("packets that are dropped are written already, to {0:?}")]
    Busy(PathBuf),
    /// They are not written.
    #[error("no packets that are dropped are being written")]
    Off,
    /// The file.
    #[error("{file:?} cannot be written: {error}")]
    File {
        /// Its name.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Bytes that are kept of a packet.
const KEPT: usize = 1518;
/// Packets that wait to be written, for each worker.
const WAITING: usize = 128;
/// How often the thread looks, and how often workers may go on.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS_PER_SECOND: u32 = 50;
/// Packets that come together and are all written, if there may be so many in a second.
const AT_ONCE: u32 = 100;
const REASONS: usize = crate::verdict::DropReasons::CAPACITY.div_ceil(64);

struct Lost {
    reason: DropReason,
    port: u16,
    at: Ticks,
    length: usize,
    bytes: [u8; KEPT],
}

/// What a worker does with what it drops.
#[derive(Debug, Default)]
struct Tap {
    on: AtomicBool,
    /// A bit for each reason that is meant.
    reasons: [AtomicU64; REASONS],
    /// Packets that may still be shown until the thread looks again.
    left: AtomicU32,
    left_out: AtomicU64,
}

impl Tap {
    fn see(&self, to: &SyncSender<Lost>, packet: &Mbuf, reason: DropReason) {
        let word = self.reasons.get(reason.index() / 64).map_or(0, |word| word.load(Ordering::Relaxed));
        if word >> (reason.index() % 64) & 1 == 0 {
            return;
        }
        let left = self.left.load(Ordering::Relaxed);
        let sent = left > 0 && {
            // Only this worker takes away; if the thread gives at the same moment, a few are too many or too few.
            self.left.store(left - 1, Ordering::Relaxed);
            let (mut bytes, octets) = ([0; KEPT], on_the_link(packet));
            let length = octets.clone().count();
            bytes.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
            let lost = Lost { reason, port: packet.port().0, at: Ticks::now(), length, bytes };
            to.try_send(lost).is_ok()
        };
        if !sent {
            crate::counters::bump(&self.left_out, 1);
        }
    }
}

/// All workers' taps. They stay when they were put in once.
#[derive(Debug)]
pub(crate) struct Taps {
    taps: Vec<Arc<Tap>>,
    /// Here while nothing is written.
    receivers: Option<Vec<Receiver<Lost>>>,
    writing: Option<Writing>,
}

/// What is left of the writing thread's channels, and how many packets are in the file.
type Written = (Vec<Receiver<Lost>>, io::Result<u64>);

#[derive(Debug)]
struct Writing {
    file: PathBuf,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<Written>>,
}

/// What numbers are called in the file.
#[derive(Clone, Debug)]
pub(crate) struct DropNames {
    /// DPDK's numbers of ports, and names.
    pub(crate) ports: Vec<(u16, String)>,
    pub(crate) reasons: Vec<String>,
    pub(crate) cycles_per_second: u64,
}

impl Taps {
    /// Nothing is seen yet.
    pub(crate) fn new(workers: &[Arc<WorkerCounters>]) -> Self {
        let (taps, receivers) = workers
            .iter()
            .map(|worker| {
                let tap = Arc::new(Tap::default());
                let (sender, receiver) = sync_channel(WAITING);
                let of_worker = Arc::clone(&tap);
                let see = move |packet: &Mbuf, reason| {
                    if of_worker.on.load(Ordering::Relaxed) {
                        of_worker.see(&sender, packet, reason);
                    }
                };
                // Nobody else puts one into a program with ports.
                let _ = worker.witness.set(Witness(Box::new(see)));
                (tap, receiver)
            })
            .unzip();
        Self { taps, receivers: Some(receivers), writing: None }
    }

    /// Begins to write.
    pub(crate) fn begin(&mut self, request: &DropsRequest, names: DropNames) -> Result<(), DropsError> {
        if let Some(writing) = &self.writing {
            return Err(DropsError::Busy(writing.file.clone()));
        }
        if !(1..=DropsRequest::MOST).contains(&request.per_second) {
            return Err(DropsError::Rate(request.per_second));
        }
        let mut meant = [if request.reasons.is_empty() { u64::MAX } else { 0 }; REASONS];
        for name in &request.reasons {
            let index = names.reasons.iter().position(|known| known == name);
            let index = index.ok_or_else(|| DropsError::Reason(name.clone()))?;
            meant[index / 64] |= 1 << (index % 64);
        }
        let failed = |error| DropsError::File { file: request.file.clone(), error };
        // For those who may open the door's socket: packets are nobody else's business.
        let file = File::options().write(true).create_new(true).mode(0o640).open(&request.file).map_err(failed)?;
        let interfaces: Vec<&str> = names.ports.iter().map(|(_, name)| name.as_str()).chain(["(no port)"]).collect();
        let writer = CaptureWriter::new(BufWriter::new(file), &interfaces).map_err(failed)?;
        let Some(receivers) = self.receivers.take() else { return Err(DropsError::Busy(request.file.clone())) };
        for tap in &self.taps {
            tap.reasons.iter().zip(meant).for_each(|(word, meant)| word.store(meant, Ordering::Relaxed));
            tap.left_out.store(0, Ordering::Relaxed);
        }
        let ending = Arc::new(AtomicBool::new(false));
        let (taps, until, rate) = (self.taps.clone(), Arc::clone(&ending), request.per_second);
        let path = request.file.clone();
        let thread = thread::spawn(move || {
            let written = write(&receivers, &taps, writer, &names, rate, &until);
            if let Err(error) = &written {
                log::error!("no more drops are written to {}: {error}", path.display());
            }
            (receivers, written)
        });
        self.taps.iter().for_each(|tap| tap.on.store(true, Ordering::Relaxed));
        self.writing = Some(Writing { file: request.file.clone(), ending, thread: Some(thread) });
        Ok(())
    }

    /// Ends the file.
    pub(crate) fn end(&mut self) -> Result<DropsWritten, DropsError> {
        let Some(mut writing) = self.writing.take() else { return Err(DropsError::Off) };
        self.taps.iter().for_each(|tap| tap.on.store(false, Ordering::Relaxed));
        writing.ending.store(true, Ordering::Relaxed);
        let file = writing.file.clone();
        let ended = writing.thread.take().and_then(|thread| thread.join().ok());
        let Some((receivers, written)) = ended else {
            return Err(DropsError::File { file, error: io::Error::other("the thread that writes it has panicked") });
        };
        // What came too late is not for the next file.
        receivers.iter().for_each(|receiver| receiver.try_iter().for_each(drop));
        self.receivers = Some(receivers);
        let written = written.map_err(|error| DropsError::File { file, error })?;
        Ok(DropsWritten { written, left_out: self.taps.iter().map(|tap| tap.left_out.load(Ordering::Relaxed)).sum() })
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        // A program that stops has all that was written in its file.
        if self.writing.is_some()
            && let Err(error) = self.end()
        {
            log::error!("{error}");
        }
    }
}

/// Writes what comes, until it is told to end and nothing is left.
fn write(
    receivers: &[Receiver<Lost>],
    taps: &[Arc<Tap>],
    mut writer: CaptureWriter<BufWriter<File>>,
    names: &DropNames,
    rate: u32,
    ending: &AtomicBool,
) -> io::Result<u64> {
    let began = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Ticks::now());
    // So many in a look as make the rate; at once those of a tenth of a second, of which few are always taken.
    let most = LOOKS_PER_SECOND * (rate / 10).max(rate.min(AT_ONCE));
    let (mut written, mut tokens) = (0, most);
    loop {
        let is_last = ending.load(Ordering::Relaxed);
        tokens = (tokens + rate).min(most);
        let whole = tokens / LOOKS_PER_SECOND;
        let share = whole.div_ceil(u32::try_from(taps.len()).unwrap_or(u32::MAX).max(1));
        taps.iter().for_each(|tap| tap.left.store(share, Ordering::Relaxed));
        for (receiver, tap) in receivers.iter().zip(taps) {
            for lost in receiver.try_iter() {
                if tokens < LOOKS_PER_SECOND {
                    tap.left_out.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                tokens -= LOOKS_PER_SECOND;
                writer.write(&packet(&lost, began, names))?;
                written += 1;
            }
        }
        if is_last {
            writer.finish()?;
            return Ok(written);
        }
        writer.flush()?;
        thread::sleep(LOOK);
    }
}

fn packet<'a>(lost: &'a Lost, (epoch, began): (Duration, Ticks), names: &'a DropNames) -> CapturedPacket<'a> {
    let nanoseconds = u128::from(lost.at.since(began)) * 1_000_000_000 / u128::from(names.cycles_per_second.max(1));
    let since = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let interface = names.ports.iter().position(|(port, _)| *port == lost.port).unwrap_or(names.ports.len());
    CapturedPacket {
        interface: u32::try_from(interface).unwrap_or(u32::MAX),
        length: lost.length,
        comment: names.reasons.get(lost.reason.index()).map(String::as_str),
        ..CapturedPacket::new(epoch + since, lost.bytes.get(..lost.length).unwrap_or(&lost.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureReader;
    use crate::testing::lab;
    use dpdk_rs::PortId;
    use std::os::unix::fs::PermissionsExt;

    fn names() -> DropNames {
        let reasons = crate::verdict::DropReasons::built_in().list().into_iter().map(|(name, _)| name).collect();
        DropNames { ports: vec![(3, "lan".to_owned()), (4, "wan".to_owned())], reasons, cycles_per_second: 1 << 30 }
    }

    fn request(name: &str, reasons: &[&str], per_second: u32) -> DropsRequest {
        let file = std::env::temp_dir().join(format!("drops-{}-{name}.pcapng", std::process::id()));
        DropsRequest { file, reasons: reasons.iter().map(|&reason| reason.to_owned()).collect(), per_second }
    }

    /// Drops so many packets once the worker may show some.
    fn drop_packets(counters: &WorkerCounters, taps: &Taps, pool: &dpdk_rs::Mempool, reasons: &[DropReason]) {
        while taps.taps[0].left.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        for (number, reason) in (0..).zip(reasons) {
            let mut packet = pool.alloc().unwrap();
            assert!(packet.set_contents(&[number; 60]));
            packet.set_port(PortId(u16::from(number) + 3));
            if number == 2 {
                packet.set_stripped_vlan(0xa007);
            }
            counters.count_drop(&packet, *reason);
        }
    }

    #[test]
    fn what_is_dropped_is_in_the_file_with_its_reason() {
        lab(|lab| {
            let counters = [Arc::new(WorkerCounters::new(2, 0))];
            let mut taps = Taps::new(&counters);
            let reasons = [DropReason::POLICY, DropReason::TX_FULL, DropReason::NO_ROUTE];
            // Nobody wants to see them.
            for reason in reasons {
                counters[0].count_drop(&lab.pool.alloc().unwrap(), reason);
            }
            let request = request("reasons", &["policy", "no-route"], 10_000);
            taps.begin(&request, names()).unwrap();
            assert!(matches!(taps.begin(&request, names()), Err(DropsError::Busy(_))));
            drop_packets(&counters[0], &taps, lab.pool, &reasons);
            assert_eq!(taps.end().unwrap(), DropsWritten { written: 2, left_out: 0 });
            let bytes = std::fs::read(&request.file).unwrap();
            let mode = std::fs::metadata(&request.file).unwrap().permissions().mode();
            assert_eq!(mode & 0o137, 0, "for its owner, and for its group to read: {mode:o}");
            std::fs::remove_file(&request.file).unwrap();
            let mut reader = CaptureReader::new(&bytes[..]).unwrap();
            // A tag that was taken out is in the file.
            let tagged = [&[2; 12][..], &[0x81, 0x00, 0xa0, 0x07], &[2; 48]].concat();
            for (frame, interface, reason) in [(&[0; 60][..], 0, "policy"), (&tagged, 2, "no-route")] {
                let packet = reader.next_packet().unwrap().unwrap();
                assert_eq!((packet.interface, packet.comment), (interface, Some(reason)));
                assert_eq!((packet.data, packet.length), (frame, frame.len()));
            }
            assert!(reader.next_packet().unwrap().is_none());
            assert!(matches!(taps.end(), Err(DropsError::Off)));
        });
    }

    #[test]
    fn of_few_that_come_together_all_are_written_that_a_second_may_have() {
        for (per_second, written) in [(1, 1), (5, 5), (7, 7)] {
            lab(move |lab| {
                let counters = [Arc::new(WorkerCounters::new(2, 0))];
                let mut taps = Taps::new(&counters);
                let request = request(&format!("few-{per_second}"), &[], per_second);
                taps.begin(&request, names()).unwrap();
                drop_packets(&counters[0], &taps, lab.pool, &[DropReason::POLICY; 7][..written]);
                assert_eq!(taps.end().unwrap(), DropsWritten { written: written as u64, left_out: 0 });
                std::fs::remove_file(&request.file).unwrap();
            });
        }
    }

    #[test]
    fn a_flood_is_written_as_far_as_was_asked_for_and_the_rest_is_counted() {
        lab(|lab| {
            let counters = [Arc::new(WorkerCounters::new(2, 0))];
            let mut taps = Taps::new(&counters);
            let request = request("flood", &[], 50);
            taps.begin(&request, names()).unwrap();
            drop_packets(&counters[0], &taps, lab.pool, &[DropReason::POLICY; 200]);
            let DropsWritten { written, left_out } = taps.end().unwrap();
            std::fs::remove_file(&request.file).unwrap();
            assert!((1..200).contains(&written), "{written}");
            assert_eq!(written + left_out, 200);
        });
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_leaves_no_file() {
        let mut taps = Taps::new(&[Arc::new(WorkerCounters::new(2, 0))]);
        for (request, says) in [
            (request("wrong", &["no-such"], 10), "there is no drop reason \"no-such\""),
            (request("wrong", &[], 0), "0 packets in a second cannot be written: 1 to 10000 can"),
        ] {
            assert_eq!(taps.begin(&request, names()).unwrap_err().to_string(), says);
            assert!(!request.file.exists());
        }
    }
}
