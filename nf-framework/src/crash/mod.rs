//! What is known when a function panics: where, with which packets, and what had been counted; in a file.
//!
//! While packets go through the chain, what a report needs lies on the worker's stack anyway. [`InHand`](in_hand::InHand) stands around
//! it and does something only while a panic unwinds: then it copies what there is, before packets go home and
//! functions are dropped. So a packet pays nothing for it.

pub(crate) mod in_hand;
pub(crate) mod scene;

use crate::report::Report;
use scene::{Panicked, Scene};
use std::any::Any;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

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
            Err(error) => log::error!("the report of worker {worker}'s panic could not be written: {error}"),
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
        if let Err(error) = file.write_all(text.as_bytes()) {
            // A part of it is better than none; nothing is not.
            let is_empty = file.metadata().is_ok_and(|written| written.len() == 0);
            if is_empty {
                let _ = std::fs::remove_file(&path);
            }
            let rest = if is_empty { "" } else { " (the beginning of it is there)" };
            return Err(io::Error::new(error.kind(), format!("{}: {error}{rest}", path.display())));
        }
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
        let panicked = scene.and_then(|scene| scene.panicked.as_ref());
        if let Some(Panicked { location, .. }) = panicked {
            line("location", location);
        }
        line("chain", &format!("[{}]", functions.join(", ")));
        line("place", &Scene::place(scene, functions));
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
        // Last, as it is long: of a disk that is nearly full it gets what is left.
        if let Some(Panicked { backtrace, .. }) = panicked {
            text += "# backtrace: ";
            text += backtrace.as_deref().map_or("none (RUST_BACKTRACE=1 asks for one)", |_| "");
            for line in backtrace.iter().flat_map(|text| text.lines()) {
                let _ = write!(text, "\n# {line}");
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::scene::{Doing, Packet, Place};
    use super::*;
    use crate::direction::Direction;
    use crate::position::Position;
    use crate::verdict::Verdict;

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
            "# message: bad\n# 0000 ff\n# location: src/nat.rs:7:1\n# chain: [firewall, nat]\n# place: in the worker itself, outside of the chain\n# packets in hand: 2\n",
            "# packet 0: 17 bytes, undecided\n",
            "# packet 1: 2 bytes, undecided; the function was looking at this one\n",
            "# backtrace: \n# 0: main\n# 1: start\n",
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
