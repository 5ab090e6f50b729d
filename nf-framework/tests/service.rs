//! A program as a service: what a manager hears of it, what its log looks like, what a panic leaves, and that it starts
//! again after it was killed. The program is the example `misbehave`.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::{Scratch, eal_arguments, write_capture};
use nf_framework::testing::Frame;
use program::{Program, example};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn configuration(scratch: &Scratch, devices: [&str; 2]) -> String {
    let [inside, outside] = devices;
    let path = scratch.path("misbehave.toml");
    let text = format!(
        "forwarding = \"wire\"\npackets = 4095\n[ports]\ninside = \"{inside}\"\noutside = \"{outside}\"\ndescriptors = 256\n\
         [misbehave]\npanic_port = 9\nhang_port = 10\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A UDP packet to this port.
fn frame(port: u16) -> Vec<u8> {
    Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(4000 + port, port).payload(b"to be seen").build()
}

/// A program to which these packets come from inside.
fn on_packets(scratch: &Scratch, ports: &[u16]) -> Command {
    let frames: Vec<Vec<u8>> = ports.iter().map(|port| frame(*port)).collect();
    write_capture(scratch.path("in0.pcap"), &frames);
    write_capture(scratch.path("in1.pcap"), &[]);
    let device = |port: u8| {
        let (rx, tx) = (scratch.path(&format!("in{port}.pcap")), scratch.path(&format!("out{port}.pcap")));
        format!("net_pcap{port},rx_pcap={rx},tx_pcap={tx}")
    };
    let mut command = example("misbehave");
    command.args(eal_arguments(1, &[&device(0), &device(1)]));
    command.args(["--", "--config", &configuration(scratch, ["net_pcap0", "net_pcap1"])]);
    command
}

/// The only file in a directory.
fn only_file(directory: &str) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    file.clone()
}

/// What `text2pcap` would make of a report: lines that begin with an offset, of which 0 begins a packet.
fn packets_of(report: &str) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap());
        if words.next().unwrap() == 0 {
            packets.push(Vec::new());
        }
        packets.last_mut().unwrap().extend(words.map(|byte| u8::try_from(byte).unwrap()));
    }
    packets
}

#[test]
fn a_panic_ends_the_program_and_leaves_what_it_had_in_hand() {
    let scratch = Scratch::new("service-panic");
    let crashes = scratch.path("made/anew");
    let mut command = on_packets(&scratch, &[1, 2, 9, 3]);
    let (status, _, log) = Program::start(command.args(["--crash-dir", &crashes])).end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.ends_with("error: worker 0 panicked: told to, from port 4009\n"), "{log}");

    let path = only_file(&crashes);
    assert!(log.contains(&format!("what is known of it is in {}", path.display())), "{log}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let report = std::fs::read_to_string(path).unwrap();
    assert_eq!(packets_of(&report), [1, 2, 9, 3].map(frame), "{report}");
    for line in [
        "# misbehave 0.1.0 panicked on worker 0 at ",
        "# message: told to, from port 4009\n# location: nf-framework/examples/misbehave/main.rs:",
        "# chain: [misbehave]\n",
        "# backtrace: none (RUST_BACKTRACE=1 asks for one)\n",
        "# place: function misbehave, 1 of 1 from inside; packets from inside to outside\n# packets in hand: 4\n",
        "# balance: 4 received",
        "# packet 1: 52 bytes, undecided\n",
        "# packet 2: 52 bytes, undecided; the function was looking at this one\n",
    ] {
        assert!(report.contains(line), "{line:?} is not in:\n{report}");
    }
}

#[test]
fn a_backtrace_is_in_the_report_if_it_was_asked_for() {
    let scratch = Scratch::new("service-backtrace");
    let crashes = scratch.path("crashes");
    let mut command = on_packets(&scratch, &[9]);
    // As a service has it.
    let (_, _, log) = Program::start(command.env("RUST_BACKTRACE", "1").env("STATE_DIRECTORY", &crashes)).end();
    let report = std::fs::read_to_string(only_file(&crashes)).unwrap();
    assert!(report.contains("misbehave::Misbehave as nf_framework::function::PacketFunction"), "{log}{report}");
}

#[test]
fn a_report_that_cannot_be_written_is_a_line_in_the_log() {
    let scratch = Scratch::new("service-nowhere");
    let mut command = on_packets(&scratch, &[9]);
    let (status, _, log) = Program::start(command.args(["--crash-dir", "/proc/nf-nowhere"])).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("the report of worker 0's panic could not be written: /proc/nf-nowhere: "), "{log}");
    assert!(log.ends_with("error: worker 0 panicked: told to, from port 4009\n"), "{log}");
}

#[test]
fn of_a_report_that_finds_no_room_the_beginning_is_left_and_never_an_empty_file() {
    let scratch = Scratch::new("service-full");
    for (blocks, remark) in [(0, "\n"), (1, " (the beginning of it is there)\n")] {
        let crashes = scratch.path(&format!("crashes{blocks}"));
        // More than the one block that a file may have.
        let mut program = on_packets(&scratch, &[[1; 31].as_slice(), &[9]].concat());
        program.args(["--crash-dir", &crashes]);
        let mut command = Command::new("sh");
        // Who ignores the signal has its write refused.
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
        command.arg(program.get_program()).args(program.get_args());
        let (status, _, log) = Program::start(&mut command).end();
        assert_eq!(status.code(), Some(1), "{log}");
        let said = format!("the report of worker 0's panic could not be written: {crashes}/misbehave-crash-");
        let line = log.split_inclusive('\n').find(|line| line.contains(&said)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(".txt: File too large (os error 27)") && line.ends_with(remark), "{line}");
        assert!(log.ends_with("error: worker 0 panicked: told to, from port 4009\n"), "{log}");
        if blocks == 0 {
            assert_eq!(std::fs::read_dir(&crashes).unwrap().count(), 0);
        } else {
            let report = std::fs::read_to_string(only_file(&crashes)).unwrap();
            assert!(report.contains("# message: told to, from port 4009\n"), "{report}");
        }
    }
}

/// A service manager that hears what it is told.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        // Nothing waits so long but a test that fails.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(socket)
    }

    /// Listens until a message has this line; returns it.
    fn wait_for(&self, line: &str) -> String {
        let mut buffer = [0; 1000];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {line}: {error}"));
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.lines().any(|of| of == line) {
                return message;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_of_the_start_a_reload_and_the_end() {
    let scratch = Scratch::new("service-notify");
    let path = scratch.path("notify");
    let name = format!("nf-service-test-{}", std::process::id());
    for (variable, address) in [
        (path.clone(), SocketAddr::from_pathname(&path).unwrap()),
        (format!("@{name}"), SocketAddr::from_abstract_name(&name).unwrap()),
    ] {
        let manager = Manager::at(&address);
        let mut command = on_packets(&scratch, &[]);
        let mut program = Program::start(command.env("NOTIFY_SOCKET", variable).env("WATCHDOG_USEC", "200000"));
        let ready = manager.wait_for("READY=1");
        assert!(ready.ends_with("WATCHDOG=1\nSTATUS=forwarding with 1 worker by generation 1"), "{ready}");
        manager.wait_for("WATCHDOG=1");
        program.signal("HUP");
        assert!(manager.wait_for("RELOADING=1").contains("\nMONOTONIC_USEC="));
        manager.wait_for("READY=1");
        program.signal("TERM");
        manager.wait_for("STOPPING=1");
        program.wait_for("");
        let (status, _, log) = program.end();
        assert!(status.success(), "{log}");
    }
}

#[test]
fn a_worker_that_hangs_is_said_and_the_watchdog_is_told_nothing() {
    let scratch = Scratch::new("service-hang");
    let path = scratch.path("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let mut command = on_packets(&scratch, &[10]);
    let mut program = Program::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000"));
    // Its first round does not end, so it is not ready either.
    program.wait_for("runs on net_pcap0 and net_pcap1");
    program.wait_for("worker 0 does not turn");
    manager.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1000];
    while let Ok(length) = manager.0.recv(&mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        assert!(!message.contains("READY=1") && !message.contains("WATCHDOG=1"), "{message}");
    }
}

#[test]
fn every_line_of_a_log_for_machines_is_an_object() {
    let scratch = Scratch::new("service-json");
    let mut command = on_packets(&scratch, &[9]);
    command.args(["--crash-dir", &scratch.path("crashes"), "--log-format", "json"]).env("RUST_LOG", "debug");
    let (status, _, log) = Program::start(command.env("RUST_BACKTRACE", "1")).end();
    assert_eq!(status.code(), Some(1), "{log}");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let has = |target: &str, level: &str, message: &str| {
        lines.iter().any(|line| {
            line["target"] == target && line["level"] == level && line["message"].as_str().unwrap().contains(message)
        })
    };
    assert!(has("nf_framework::app", "INFO", "misbehave runs on net_pcap0 and net_pcap1"), "{log}");
    assert!(has("dpdk", "INFO", ""), "{log}");
    assert!(has("nf_framework::crash", "ERROR", "panicked at nf-framework/examples/misbehave/main.rs"), "{log}");
    assert!(has("misbehave", "ERROR", "worker 0 panicked: told to, from port 4009"), "{log}");
}

#[test]
fn after_sigkill_the_same_command_starts_again() {
    let scratch = Scratch::new("service-kill");
    let config = configuration(&scratch, ["net_null0", "net_null1"]);
    let prefix = format!("nf-kill-{}", std::process::id());
    // With what the EAL keeps in files: its lock, its configuration, its telemetry's socket.
    let arguments: Vec<String> = eal_arguments(1, &["net_null0", "net_null1"])
        .into_iter()
        .filter(|argument| argument != "--no-shconf" && argument != "--no-telemetry")
        .chain([format!("--file-prefix={prefix}")])
        .collect();
    for _ in 0..3 {
        let mut command = example("misbehave");
        command.args(&arguments).args(["--", "--config", &config]).env("RUNTIME_DIRECTORY", &scratch.0);
        let mut program = Program::start(&mut command);
        program.wait_for("runs on net_null0 and net_null1");
        // The socket that the one before has left is replaced.
        let socket = format!("admin socket: {}\n", scratch.path("misbehave.sock"));
        if !program.logged().contains(&socket) {
            program.wait_for(&socket);
        }
        program.signal("KILL");
        let (status, _, log) = program.end();
        assert_eq!(status.code(), None, "{log}");
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_and_the_program_ends_in_order() {
    let scratch = Scratch::new("service-twice");
    for _ in 0..5 {
        let mut program = Program::start(&mut on_packets(&scratch, &[1]));
        program.wait_for("runs on net_pcap0 and net_pcap1");
        let (id, kill) = (program.id(), "kill -INT $0; kill -TERM $0; kill -INT $0");
        assert!(Command::new("sh").args(["-c", kill, &id.to_string()]).status().unwrap().success());
        let (status, _, log) = program.end();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}
