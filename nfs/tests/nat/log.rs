//! Mappings as they are written down. The writer works in real time, so what is waited for is that it
//! has ended: it writes what it was told before it goes.

use super::bench::{A, B, Bench, P, ROUTER, X, config, from, left};
use nf_framework::Function;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::lab;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

/// A file of this test's own, gone when it ends.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("nat-log-{}-{name}", std::process::id())));
        let _ = std::fs::remove_file(&file.0);
        file
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a NAT with a log of its own, and gives what stands there when it has gone, and what was lost
/// before.
fn logged(name: &str, workers: u16, more: &str, test: impl Fn(&mut Bench) + Send + 'static) -> (Vec<Value>, u64) {
    let file = File::new(name);
    let text = format!("{more}\nlog.file = {:?}", file.0);
    let lost = lab(move |lab| {
        let mut nat = Bench::new(lab, workers, ROUTER, config(&text));
        test(&mut nat);
        nat.counter("log-lines-lost")
    });
    (file.lines(), lost)
}

#[test]
fn mappings_are_written_down_as_they_come_and_go() {
    for workers in [1, 2] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (lines, lost) = logged("lines", workers, "timeouts.udp = 10", move |nat| {
            let udp = nat.udp_port(A, 5000, (X, 53));
            // Another session of the same mapping is no event.
            nat.udp_port(A, 5000, (X, 54));
            let tcp = left(&nat.out(&from(A, X).tcp(5001, 80).flags(TcpFlags::SYN))).source_port;
            let icmp = left(&nat.out(&from(B, X).icmp_echo_request(5002, 1))).source_port;
            nat.pass(11);
            for (what, protocol, inside, port) in [
                ("mapping-created", "udp", "192.168.1.10:5000", udp),
                ("mapping-created", "tcp", "192.168.1.10:5001", tcp),
                ("mapping-created", "icmp", "192.168.1.20:5002", icmp),
                ("mapping-deleted", "udp", "192.168.1.10:5000", udp),
            ] {
                sender.send([what.to_owned(), protocol.to_owned(), inside.to_owned(), format!("{P}:{port}")]).unwrap();
            }
        });
        let mut expected: Vec<_> = receiver.iter().collect();
        let mut written: Vec<_> = lines
            .iter()
            .map(|line| ["event", "protocol", "inside", "outside"].map(|key| line[key].as_str().unwrap().to_owned()))
            .collect();
        // Of two workers one may be written down before the other.
        expected.sort();
        written.sort();
        assert_eq!((written, lost), (expected, 0));
        let times: Vec<_> = lines.iter().map(|line| line["time"].as_f64().unwrap()).collect();
        assert!(times.is_sorted() && times[0] > 1.7e9, "{times:?}");
    }
}

#[test]
fn what_is_too_much_is_lost_and_counted() {
    let (lines, lost) = logged("rate", 1, "log.lines_per_second = 1", |nat| {
        for port in 0..2000 {
            nat.udp_port(A, 5000 + port, (X, 53));
        }
    });
    let (told, events): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["event"] == "lost");
    let said: u64 = told.iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert_eq!(events.len() as u64 + said, 2000);
    // What the writer loses in the end is counted by nobody.
    assert!(!events.is_empty() && said >= lost);
    let mut seconds: Vec<_> = events.iter().map(|line| line["time"].as_f64().unwrap().floor()).collect();
    let all = seconds.len();
    seconds.dedup();
    assert_eq!(seconds.len(), all, "more than one in a second");
}

#[test]
fn what_the_writer_has_no_room_for_is_counted_by_the_worker() {
    const MAPPINGS: u16 = 20_000;
    let pipe = File::new("pipe");
    assert!(Command::new("mkfifo").arg(&pipe.0).status().unwrap().success());
    // Nobody reads until all is said, so the writer stands still and its channel fills.
    let (go_on, said) = std::sync::mpsc::channel();
    let path = pipe.0.clone();
    let reader = std::thread::spawn(move || {
        let file = std::fs::File::open(path).unwrap();
        said.recv().unwrap();
        let lines = BufReader::new(file).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let (told, events): (Vec<_>, Vec<_>) = lines.partition(|line| line["event"] == "lost");
        (events.len() as u64, told.iter().map(|line| line["lines"].as_u64().unwrap()).sum())
    });
    let text = format!("sessions = 40000\nlog = {{ file = {:?}, lines_per_second = 4000000000 }}", pipe.0);
    let lost = lab(move |lab| {
        let mut nat = Bench::new(lab, 1, ROUTER, config(&text));
        for port in 0..MAPPINGS {
            nat.udp_port(A, 1024 + port, (X, 53));
        }
        go_on.send(()).unwrap();
        nat.counter("log-lines-lost")
    });
    assert!(lost > 0);
    assert_eq!(reader.join().unwrap(), (u64::from(MAPPINGS) - lost, lost));
}

#[test]
fn a_log_that_is_renamed_before_a_reload_goes_on_under_its_name() {
    let (file, old) = (File::new("rotated"), File::new("rotated.1"));
    let (path, old_path) = (file.0.clone(), old.0.clone());
    lab(move |lab| {
        let text = |timeout| format!("timeouts.udp = {timeout}\nlog.file = {path:?}");
        let mut nat = Bench::new(lab, 1, ROUTER, config(&text(300)));
        nat.udp_port(A, 5000, (X, 53));
        // The writer looks every so often.
        while std::fs::metadata(&path).unwrap().len() == 0 {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &old_path).unwrap();
        nat.reload(config(&text(200))).unwrap();
        nat.udp_port(B, 5000, (X, 53));
    });
    for (file, inside) in [(old, "192.168.1.10:5000"), (file, "192.168.1.20:5000")] {
        let lines = file.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["inside"], inside);
    }
}

#[test]
fn a_log_that_cannot_be_is_refused_and_nothing_is_made() {
    let file = File::new("missing");
    let (missing, there) = (file.0.display(), std::env::temp_dir());
    for (path, message) in [
        (format!("{missing}/nat.jsonl"), format!("there is no directory {missing}: make it, or name another")),
        (there.display().to_string(), format!("{} is a directory: name a file in it", there.display())),
    ] {
        let invalid = nfs::nat::Nat::new().policy(config(&format!("log.file = {path:?}"))).err().unwrap();
        assert_eq!((invalid.key.as_str(), invalid.message), ("log.file", message));
    }
    for good in [missing.to_string(), "a-name-alone".to_owned()] {
        nfs::nat::Nat::new().policy(config(&format!("log.file = {good:?}"))).unwrap();
        assert!(!std::fs::exists(&good).unwrap());
    }
    assert!(!std::fs::exists(&file.0).unwrap());
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_at_the_start() {
    lab(|lab| {
        let nat = nfs::nat::Nat::new();
        let file = File::new("a-directory");
        let policy = nat.policy(config(&format!("log.file = {:?}", file.0))).unwrap();
        let policy = std::sync::Arc::new(policy);
        std::fs::create_dir(&file.0).unwrap();
        let mut message = None;
        drop(lab.trial(|worker| {
            message = nat.instance(policy, worker).err().map(|error| error.to_string());
            nf_framework::Chain::default()
        }));
        std::fs::remove_dir(&file.0).unwrap();
        assert!(message.unwrap().starts_with(&format!("log.file: {} cannot be written: ", file.0.display())));
    });
}
