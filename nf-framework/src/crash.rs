//! What is known when a function panics: where, with which packets, and what had been counted; in a file.
//!
//! While packets go through the chain, what a report needs lies on the worker's stack anyway. [`InHand`] stands around
//! it and does something only while a panic unwinds: then it copies what there is, before packets go home and
//! functions are dropped. So a packet pays nothing for it.

use crate::batch::Batch;
use crate::context::Context;
use crate::direction::Direction;
use crate::position::Position;
use crate::report::Report;
use crate::verdict::Verdict;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where reports of crashes go: one file for each worker that panicked, `NAME-crash-TIME-PID-WORKER.txt`, that only
/// its owner can read. Its packets are as `text2pcap` reads them.
#[derive(Clone, Debug)]
pub struct CrashReports {
    directory: PathBuf,
    program: String,
    version: String,
}

impl CrashReports {
    /// Reports of this program. The directory is made when it is needed.
    pub fn new(directory: impl Into<PathBuf>, program: impl Into<String>, version: impl Into<String>) -> Self {
        Self { directory: directory.into(), program: program.into(), version: version.into() }
    }

    /// The directory that a service has for such things, or else the working directory, as for a core file.
    pub(crate) fn usual_directory(environment: impl Fn(&str) -> Option<String>) -> PathBuf {
        let given = |name| environment(name).and_then(|text| text.split(':').next().map(PathBuf::from));
        let is_place = |path: &PathBuf| !path.as_os_str().is_empty();
        ["STATE_DIRECTORY", "LOGS_DIRECTORY"].into_iter().filter_map(given).find(is_place).unwrap_or_else(|| ".".into())
    }

    /// Writes one. What cannot be written is a line in the log and nothing else.
    pub(crate) fn write(
        &self,
        worker: usize,
        message: &str,
        scene: Option<&Scene>,
        functions: &[String],
        report: &Report,
    ) {
        let text = self.text(worker, message, scene, functions, report);
        match self.write_file(worker, &text) {
            Ok(path) => log::error!("worker {worker} panicked: what is known of it is in {}", path.display()),
            Err(error) => log::error!("the report of worker {worker}'s panic was not written: {error}"),
        }
    }

    fn write_file(&self, worker: usize, text: &str) -> io::Result<PathBuf> {
        let within = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
        };
        if !self.directory.is_dir() {
            DirBuilder::new().recursive(true).mode(0o750).create(&self.directory).map_err(within(&self.directory))?;
        }
        let time = jiff::Timestamp::now().as_second();
        let name = format!("{}-crash-{time}-{}-{worker}.txt", self.program, std::process::id());
        let path = self.directory.join(name);
        // Packets are nobody else's business, and a link that somebody has put there is not followed.
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(within(&path))?;
        file.write_all(text.as_bytes()).map_err(within(&path))?;
        Ok(path)
    }

    /// All but the packets are comments, so that the whole file can be read by `text2pcap`.
    fn text(
        &self,
        worker: usize,
        message: &str,
        scene: Option<&Scene>,
        functions: &[String],
        report: &Report,
    ) -> String {
        let mut head =
            format!("{} {} panicked on worker {worker} at {:.6}\n", self.program, self.version, jiff::Timestamp::now());
        let mut line = |name: &str, text: &str| {
            let _ = writeln!(head, "{name}: {text}");
        };
        line("message", message);
        if let Some(Panicked { location, backtrace }) = scene.and_then(|scene| scene.panicked.as_ref()) {
            line("location", location);
            line(
                "backtrace",
                backtrace
                    .as_deref()
                    .map_or("none (RUST_BACKTRACE=1 asks for one)".to_owned(), |text| format!("\n{text}"))
                    .as_str(),
            );
        }
        line("chain", &format!("[{}]", functions.join(", ")));
        match scene.and_then(|scene| scene.place) {
            Some(place) => line("place", &place.describe(functions)),
            None => line("place", "in the worker itself, outside of the chain"),
        }
        let packets = scene.map_or(&[][..], |scene| &scene.packets);
        line("packets in hand", &packets.len().to_string());
        line("counters", &format!("\n{report}"));
        let mut text = String::new();
        for line in head.lines() {
            let _ = writeln!(text, "# {line}");
        }
        if !packets.is_empty() {
            text += "#\n# The packets in hand as they were then; `text2pcap FILE OUT.pcap` makes a capture of them.\n";
        }
        for (number, packet) in packets.iter().enumerate() {
            packet.write(number, &mut text);
        }
        text
    }
}

/// What the panic said, beside its message.
#[derive(Clone, Debug)]
struct Panicked {
    location: String,
    backtrace: Option<String>,
}

thread_local! {
    /// The last one on this thread.
    static PANICKED: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// Notes where panics happen, and logs them where people do not read them from a terminal.
pub(crate) fn listen(is_structured: bool) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let location = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        // Only if the environment asks for it.
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        if is_structured {
            let message = info.payload_as_str().unwrap_or("no message");
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let trace = backtrace.as_deref().map_or(String::new(), |text| format!("\n{text}"));
            log::error!("thread {thread} panicked at {location}: {message}{trace}");
        } else {
            usual(info);
        }
        PANICKED.with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some(Panicked { location, backtrace });
            }
        });
    }));
}

/// What a worker was at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    Batch,
    Tick,
    Letter,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    doing: Doing,
    position: Position,
}

impl Place {
    fn describe(self, functions: &[String]) -> String {
        let Self { doing, position: Position { at, direction, turned } } = self;
        let way = match (doing, direction, turned) {
            (Doing::Tick, ..) => "housekeeping",
            (Doing::Letter, ..) => "what control asks: a command, or a new policy",
            (Doing::Batch, Direction::Outbound, false) => "packets from inside to outside",
            (Doing::Batch, Direction::Inbound, false) => "packets from outside to inside",
            (Doing::Batch, Direction::Outbound, true) => "packets that turned, to outside",
            (Doing::Batch, Direction::Inbound, true) => "packets that turned, to inside",
        };
        let index = usize::try_from(at).ok().filter(|at| *at < functions.len());
        match index.and_then(|index| Some((index, functions.get(index)?))) {
            Some((index, name)) => format!("function {name}, {} of {} from inside; {way}", index + 1, functions.len()),
            None if doing != Doing::Batch => format!("around the functions; {way}"),
            None if Position::entrance(direction, functions.len()).at == at => {
                format!("before the first function; {way}")
            }
            None => format!("behind the last function; {way}"),
        }
    }
}

/// A copy of a packet.
#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    verdict: Verdict,
    /// Whether it is the one that the function was looking at.
    is_the_one: bool,
}

impl Packet {
    fn write(&self, number: usize, to: &mut String) {
        let state = match self.verdict {
            Verdict::Next => "undecided".to_owned(),
            verdict => format!("{verdict:?}"),
        };
        let remark = if self.is_the_one { "; the function was looking at this one" } else { "" };
        let _ = writeln!(to, "#\n# packet {number}: {} bytes, {state}{remark}", self.bytes.len());
        for (line, bytes) in self.bytes.chunks(16).enumerate() {
            let _ = write!(to, "{:06x}", line * 16);
            bytes.iter().for_each(|byte| {
                let _ = write!(to, " {byte:02x}");
            });
            to.push('\n');
        }
    }
}

/// What a worker knew when it panicked.
#[derive(Debug)]
pub(crate) struct Scene {
    panicked: Option<Panicked>,
    place: Option<Place>,
    packets: Vec<Packet>,
}

impl Scene {
    /// Of a panic that unwinds on this thread.
    fn now(place: Option<Place>, batch: Option<&Batch>) -> Self {
        let panicked = PANICKED.with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.take()));
        let packets = batch.map_or_else(Vec::new, |batch| {
            let copy = |(slot, packet): (usize, &dpdk_rs::Mbuf)| Packet {
                bytes: packet.data().to_vec(),
                verdict: batch.verdict(slot),
                is_the_one: batch.looked_at() == Some(slot),
            };
            batch.packets().map(copy).collect()
        });
        Self { panicked, place, packets }
    }

    fn keep(self, scene: &OnceLock<Box<Self>>) {
        // The first one knows best: what unwinds further out is its consequence.
        let _ = scene.set(Box::new(self));
    }
}

/// What a worker handles and what surrounds that, to be let go by [`InHand::done`]: otherwise a panic unwinds, and what
/// is known is kept.
pub(crate) struct InHand<'w, B: Packets> {
    /// A batch, or nothing.
    pub(crate) batch: B,
    pub(crate) cx: Context<'w>,
    doing: Doing,
}

/// What a worker may have in hand.
pub(crate) trait Packets {
    fn batch(&self) -> Option<&Batch>;
}

impl Packets for &mut Batch {
    fn batch(&self) -> Option<&Batch> {
        Some(self)
    }
}

impl Packets for () {
    fn batch(&self) -> Option<&Batch> {
        None
    }
}

impl<'w, B: Packets> InHand<'w, B> {
    #[inline(always)]
    pub(crate) fn new(batch: B, cx: Context<'w>, doing: Doing) -> Self {
        Self { batch, cx, doing }
    }

    #[inline(always)]
    pub(crate) fn done(self) {
        std::mem::forget(self);
    }
}

impl<B: Packets> Drop for InHand<'_, B> {
    #[cold]
    fn drop(&mut self) {
        let place = Place { doing: self.doing, position: self.cx.position };
        // A second panic would end the program here and now.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            Scene::now(Some(place), self.batch.batch()).keep(&self.cx.counters.scene);
        }));
    }
}

/// Keeps what is known of a panic outside of the chain.
pub(crate) struct Outermost<'w>(pub(crate) &'w OnceLock<Box<Scene>>);

impl Drop for Outermost<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| Scene::now(None, None).keep(self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions() -> Vec<String> {
        vec!["firewall".to_owned(), "nat".to_owned()]
    }

    #[test]
    fn a_place_is_said_in_words() {
        let (out, inbound) = (Direction::Outbound, Direction::Inbound);
        for (doing, at, direction, turned, expected) in [
            (Doing::Batch, 1, out, false, "function nat, 2 of 2 from inside; packets from inside to outside"),
            (Doing::Batch, 0, inbound, true, "function firewall, 1 of 2 from inside; packets that turned, to inside"),
            (Doing::Batch, -1, out, false, "before the first function; packets from inside to outside"),
            (Doing::Batch, 2, out, false, "behind the last function; packets from inside to outside"),
            (Doing::Batch, 2, inbound, false, "before the first function; packets from outside to inside"),
            (Doing::Batch, -1, inbound, false, "behind the last function; packets from outside to inside"),
            (Doing::Tick, 0, out, false, "function firewall, 1 of 2 from inside; housekeeping"),
            (Doing::Tick, -1, out, false, "around the functions; housekeeping"),
            (
                Doing::Letter,
                1,
                out,
                false,
                "function nat, 2 of 2 from inside; what control asks: a command, or a new policy",
            ),
        ] {
            let place = Place { doing, position: Position { at, direction, turned } };
            assert_eq!(place.describe(&functions()), expected, "{place:?}");
        }
    }

    #[test]
    fn all_but_the_packets_is_a_comment() {
        let packet =
            |length: u8, is_the_one| Packet { bytes: (0..length).collect(), verdict: Verdict::Next, is_the_one };
        let scene = Scene {
            panicked: Some(Panicked {
                location: "src/nat.rs:7:1".to_owned(),
                backtrace: Some("0: main\n1: start".to_owned()),
            }),
            place: None,
            packets: vec![packet(17, false), packet(2, true)],
        };
        let reports = CrashReports::new("/nowhere", "nat", "1.2.3");
        let text = reports.text(3, "bad\n0000 ff", Some(&scene), &functions(), &Report::default());
        let packets: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(packets, ["000000 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f", "000010 10", "000000 00 01",]);
        for part in [
            "# nat 1.2.3 panicked on worker 3 at ",
            "# message: bad\n# 0000 ff\n# location: src/nat.rs:7:1\n# backtrace: \n# 0: main\n# 1: start\n",
            "# chain: [firewall, nat]\n# place: in the worker itself, outside of the chain\n# packets in hand: 2\n",
            "# packet 0: 17 bytes, undecided\n",
            "# packet 1: 2 bytes, undecided; the function was looking at this one\n",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn a_report_goes_where_the_service_keeps_such_things() {
        let (state, logs) = (("STATE_DIRECTORY", "/var/lib/nf:/var/lib/b"), ("LOGS_DIRECTORY", "/var/log/nf"));
        for (variables, expected) in [
            (&[state, logs][..], "/var/lib/nf"),
            (&[logs], "/var/log/nf"),
            (&[("STATE_DIRECTORY", "")], "."),
            (&[], "."),
        ] {
            let environment =
                |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned());
            assert_eq!(CrashReports::usual_directory(environment), Path::new(expected));
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error_that_names_the_place() {
        let reports = CrashReports::new("/proc/nf-no-such-directory", "nat", "1");
        let error = reports.write_file(0, "").unwrap_err().to_string();
        assert!(error.starts_with("/proc/nf-no-such-directory: "), "{error}");
    }
}
