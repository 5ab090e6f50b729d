//! `--replay` by our programs: captures made here, through their configurations.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use nf_framework::capture::{CaptureReader, CaptureWriter, CapturedPacket};
use nf_framework::testing::Frame;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const NAT: &str = env!("CARGO_BIN_EXE_nat");
const FIREWALL: &str = env!("CARGO_BIN_EXE_firewall");
const LOAD_BALANCER: &str = env!("CARGO_BIN_EXE_load-balancer");

const START: Duration = Duration::from_secs(1_700_000_000);
const HOST: [u8; 4] = [10, 0, 0, 5];
const EXTERNAL: [u8; 4] = [198, 51, 100, 8];
const SERVER: [u8; 4] = [203, 0, 113, 9];

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Replayed {
    scratch: Scratch,
    said: String,
}

/// Runs a program with a configuration over one capture with a packet at each of these seconds.
fn replay(program: &str, config: &str, packets: &[(u64, Vec<u8>)]) -> Replayed {
    static DIRECTORIES: AtomicU32 = AtomicU32::new(0);
    let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
    let scratch = Scratch(std::env::temp_dir().join(format!("nfs-offline-{}-{number}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).unwrap();
    let config = config.replace("DIR", scratch.0.to_str().unwrap());
    std::fs::write(scratch.0.join("config.toml"), config).unwrap();
    let mut writer = CaptureWriter::new(Vec::new(), &["eth0"]).unwrap();
    for (second, frame) in packets {
        writer.write(&CapturedPacket::new(START + Duration::from_secs(*second), frame)).unwrap();
    }
    std::fs::write(scratch.0.join("in.pcapng"), writer.finish().unwrap()).unwrap();
    let mut command = Command::new(program);
    command.current_dir(&scratch.0).env("RUST_LOG", "error").stdin(Stdio::null());
    let output = command.args(["--config", "config.toml", "--replay", "in.pcapng", "--write", "out"]).output().unwrap();
    let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    assert!(said.contains("\nbalance: ") && !said.contains("unaccounted"), "{said}");
    Replayed { scratch, said }
}

impl Replayed {
    /// Second, frame and comment of each packet in a file of the output.
    fn written(&self, part: &str) -> Vec<(u64, Vec<u8>, Option<String>)> {
        let mut reader = CaptureReader::open(&self.path(part)).unwrap();
        let mut packets = Vec::new();
        while let Some(packet) = reader.next_packet().unwrap() {
            let comment = packet.comment.map(str::to_owned);
            packets.push(((packet.time - START).as_secs(), packet.data.to_vec(), comment));
        }
        packets
    }

    fn counter(&self, name: &str) -> u64 {
        let mut lines = self.said.lines().map(str::split_whitespace);
        lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next())?).unwrap().parse().unwrap()
    }

    fn path(&self, part: &str) -> PathBuf {
        self.scratch.0.join(format!("out/{part}.pcapng"))
    }
}

/// The packets of a pcapng file that was written here, without the help of what wrote it: the body of each enhanced
/// packet block, by draft-ietf-opsawg-pcapng section 4.3.
fn enhanced_packets(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut packets) = (0, Vec::new());
    while at < file.len() {
        let length = word(at + 4) as usize;
        assert_eq!(word(at + length - 4) as usize, length);
        if word(at) == 6 {
            let nanoseconds = u64::from(word(at + 12)) << 32 | u64::from(word(at + 16));
            packets.push((nanoseconds, file[at + 28..at + 28 + word(at + 20) as usize].to_vec()));
        }
        at += length;
    }
    packets
}

const NAT_ON_A_WIRE: &str = "
forwarding = 'wire'
[ports]
inside = 'net_tap0'
outside = 'net_tap1'
[nat]
port_selection = 'preserve'
[nat.log]
file = 'DIR/nat.jsonl'
[[nat.pools]]
addresses = ['198.51.100.8']
";

#[test]
fn nat_translates_a_capture_and_its_sessions_end_in_the_gaps_of_it() {
    let v4 = |from: [u8; 4], to: [u8; 4]| Frame::new().ipv4(from, to).dont_fragment();
    let out = |from: [u8; 4]| v4(from, SERVER).udp(5000, 53).payload(b"question").build();
    let back = |to: [u8; 4]| v4(SERVER, to).udp(53, 5000).payload(b"answer").build();
    let packets = [(0, out(HOST)), (1, back(EXTERNAL)), (250, back(EXTERNAL)), (700, back(EXTERNAL)), (800, out(HOST))];
    let replayed = replay(NAT, NAT_ON_A_WIRE, &packets);
    let expected: Vec<_> = [0, 800].map(|second| ((START.as_secs() + second) * 1_000_000_000, out(EXTERNAL))).into();
    assert_eq!(enhanced_packets(&replayed.path("outside")), expected, "{}", replayed.said);
    assert_eq!(replayed.written("outside").len(), 2);
    // Sessions of UDP last for 300 seconds.
    let inside: Vec<_> = replayed.written("inside").into_iter().map(|(second, frame, _)| (second, frame)).collect();
    assert_eq!(inside, [(1, back(HOST)), (250, back(HOST))], "{}", replayed.said);
    let dropped = replayed.written("dropped");
    assert_eq!(dropped.iter().map(|packet| packet.0).collect::<Vec<_>>(), [700]);
    assert!(dropped.iter().all(|packet| packet.1 == back(EXTERNAL) && packet.2.is_some()), "{dropped:?}");
    assert_eq!(replayed.counter("nat.sessions-created"), 2, "{}", replayed.said);
    assert_eq!(replayed.counter("nat.sessions-expired"), 1, "{}", replayed.said);
    assert_eq!(replayed.counter("nat.mappings"), 1, "as of the end: {}", replayed.said);
    // The log is a running program's.
    assert!(!replayed.scratch.0.join("nat.jsonl").exists());
}

#[test]
fn the_firewall_says_of_each_packet_why_it_is_dropped() {
    let config = "
forwarding = 'wire'
[ports]
inside = 'net_tap0'
outside = 'net_tap1'
[firewall]
[[firewall.rules]]
name = 'out'
from = 'inside'
destination_ports = [53]
protocol = 'udp'
action = 'accept'
[[firewall.rules]]
name = 'bad'
source = '203.0.113.66'
action = 'drop'
";
    let v4 = |from: [u8; 4], to: [u8; 4]| Frame::new().ipv4(from, to);
    let question = v4(HOST, SERVER).udp(5000, 53).build();
    let answer = v4(SERVER, HOST).udp(53, 5000).build();
    let (bad, other) = (v4([203, 0, 113, 66], HOST).udp(1, 2).build(), v4(SERVER, HOST).tcp(1, 2).flags(2).build());
    let packets =
        [(0, question.clone()), (0, answer.clone()), (1, bad.clone()), (2, other.clone()), (86_400, answer.clone())];
    let replayed = replay(FIREWALL, config, &packets);
    assert_eq!(replayed.written("outside"), [(0, question, None)]);
    assert_eq!(replayed.written("inside"), [(0, answer.clone(), None)]);
    let dropped = replayed.written("dropped");
    let found: Vec<_> = dropped.iter().map(|(second, frame, _)| (*second, frame.clone())).collect();
    assert_eq!(found, [(1, bad), (2, other), (86_400, answer)], "{}", replayed.said);
    let reasons: Vec<_> = dropped.iter().map(|packet| packet.2.as_deref().unwrap()).collect();
    let begins = |index: usize, text: &str| assert!(reasons[index].starts_with(text), "{reasons:?}");
    begins(0, "firewall-denied: a rule does not accept it");
    begins(1, "firewall-default: begins something that no rule accepts");
    begins(2, "firewall-default: ");
    assert_eq!(replayed.counter("firewall.connections-expired"), 1, "{}", replayed.said);
}

#[test]
fn a_router_without_neighbours_sends_to_one_that_stands_for_all() {
    let nat = include_str!("../examples/nat.toml");
    // As captured: to the MAC address that the real port had.
    let question =
        Frame::new().ethernet([2, 9, 9, 9, 9, 1], [2, 9, 9, 9, 9, 2]).ipv4(HOST, SERVER).udp(5000, 53).build();
    let replayed = replay(NAT, nat, &[(0, question.clone()), (1, question)]);
    let sent: Vec<_> = replayed.written("outside").into_iter().filter(|packet| packet.1[12..14] == [8, 0]).collect();
    assert_eq!(sent.len(), 2, "{}", replayed.said);
    for (_, frame, _) in sent {
        assert_eq!((&frame[..6], &frame[6..12]), (&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0, 1, 2][..]));
        assert_eq!((frame[22], &frame[30..34]), (63, &SERVER[..]), "a hop less");
    }
    assert!(replayed.said.contains(" 0 dropped + 0 consumed + 0 held"), "{}", replayed.said);
}

#[test]
fn backends_of_the_load_balancer_are_taken_for_up() {
    let config = include_str!("../examples/load-balancer.toml");
    assert!(config.contains("\naddress = \"203.0.113.80\""), "the service of the example");
    let syn = Frame::new().ipv4(SERVER, [203, 0, 113, 80]).tcp(5000, 80).flags(2).build();
    let replayed = replay(LOAD_BALANCER, config, &[(0, syn.clone()), (60, syn)]);
    assert_eq!(replayed.counter("load-balancer.connections-begun"), 2, "{}", replayed.said);
    assert_eq!(replayed.counter("load-balancer.connections-expired"), 1, "{}", replayed.said);
    assert!(replayed.said.contains(" 0 dropped + "), "{}", replayed.said);
}
