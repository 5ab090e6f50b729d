//! A router on devices that do some of its work, as a program of its own, and the same on devices that
//! may not: the same bytes leave. Other devices on the far ends of the cables send and receive.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

#[path = "../../nf-framework/tests/common/namespace.rs"]
mod namespace;

use dpdk_rs::{Burst, Eal, Mempool, MempoolConfig, Port, PortBuilder, QueuePair};
use namespace::{in_a_namespace, ip, silence, skip};
use nf_framework::testing::Frame;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing has come before a neighbour says hello again: its link was not up.
const AGAIN: Duration = Duration::from_millis(200);

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
/// The router's own, on either side.
const ROUTER: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 1, 1]];
const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const OWN4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];

/// A router whose sides are in these VLANs.
fn config(ports: [&str; 2], vlans: [Option<u16>; 2], offloads: bool) -> String {
    let [inside, outside] = vlans.map(|vlan| vlan.map_or(String::new(), |vlan| format!("vlan = {vlan}\n")));
    let [first, second] = ports;
    format!(
        "forwarding = \"router\"\nchain = []\n\
         [ports]\ninside = \"{first}\"\noutside = \"{second}\"\noffloads = {offloads}\n\
         [router.interfaces.lan]\nside = \"inside\"\naddresses = [\"{}/24\"]\n{inside}\
         [router.interfaces.wan]\nside = \"outside\"\naddresses = [\"{}/24\"]\nmtu = 1400\n{outside}",
        OWN4[0], OWN4[1]
    )
}

/// One end of a cable, with the tags in its frames' bytes.
struct End {
    _port: Port,
    queues: Vec<QueuePair>,
    pool: Mempool,
    /// In how many pieces a packet arrives that was split in two.
    pieces: usize,
}

impl End {
    fn new(eal: &Eal, name: &str) -> Self {
        let pool = Mempool::new(eal, name, MempoolConfig { size: 1023, ..MempoolConfig::default() }).unwrap();
        let builder = PortBuilder::new(eal, eal.port_by_name(name).unwrap()).pool(&pool).descriptors(256, 256);
        let (port, queues) = builder.start().unwrap();
        // The kernel reassembles what it hands to net_af_packet (PACKET_FANOUT_FLAG_DEFRAG).
        let pieces = if name.starts_with("net_af_packet") { 1 } else { 2 };
        Self { _port: port, queues, pool, pieces }
    }

    /// Sends a frame; not before the other end is there.
    fn send(&mut self, frame: &[u8]) {
        let begin = Instant::now();
        let mut packet = self.pool.alloc().unwrap();
        assert!(packet.set_contents(frame));
        while let Err(refused) = self.queues[0].tx.send_one(packet) {
            assert!(begin.elapsed() < PATIENCE, "nobody is at the other end");
            packet = refused;
        }
    }

    /// What has come for this station.
    fn receive(&mut self, station: [u8; 6]) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.queues[0].rx.receive(&mut burst);
        burst.drain().map(|packet| packet.data().to_vec()).filter(|frame| frame.starts_with(&station)).collect()
    }
}

/// A program that does not outlive its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two hosts, and what they say and hear.
struct Hosts {
    ends: [End; 2],
    vlans: [Option<u16>; 2],
}

impl Hosts {
    const STATIONS: [[u8; 6]; 2] = [HOST, PEER];

    fn tagged(&self, side: usize, frame: Frame) -> Frame {
        self.vlans[side].into_iter().fold(frame, Frame::vlan)
    }

    /// Waits for so many IP packets, from whichever side, in the order that each side has them.
    fn hear(&mut self, count: usize, patience: Duration) -> Option<[Vec<Vec<u8>>; 2]> {
        let (begin, mut heard) = (Instant::now(), [Vec::new(), Vec::new()]);
        while heard.iter().map(Vec::len).sum::<usize>() < count {
            for (side, heard) in heard.iter_mut().enumerate() {
                let frames = self.ends[side].receive(Self::STATIONS[side]);
                if frames.iter().any(|frame| is_arp(frame, REQUEST)) {
                    self.answer(side);
                }
                // An answer to a second hello comes when it likes.
                heard.extend(frames.into_iter().filter(|frame| !is_arp(frame, REQUEST) && !is_arp(frame, REPLY)));
            }
            if begin.elapsed() > patience {
                return None;
            }
            std::thread::yield_now();
        }
        Some(heard)
    }

    /// Tells the router, which asks after a time, that this host is still there.
    fn answer(&mut self, side: usize) {
        let (station, address) = [(HOST, HOST4), (PEER, PEER4)][side];
        let answer = self.tagged(side, Frame::new().ethernet(station, ROUTER[side]));
        self.ends[side].send(&answer.arp_reply(address, OWN4[side]).build());
    }

    /// Says hello until there is an answer.
    fn greet(&mut self, side: usize) {
        let (station, address) = [(HOST, HOST4), (PEER, PEER4)][side];
        let hello = self.tagged(side, Frame::new().ethernet(station, [0xff; 6]));
        let hello = hello.arp_request(address, OWN4[side]).build();
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < PATIENCE, "no answer on side {side}");
            self.ends[side].send(&hello);
            let sent = Instant::now();
            while sent.elapsed() < AGAIN {
                let heard = self.ends[side].receive(station);
                if let Some(answer) = heard.iter().find(|frame| is_arp(frame, REPLY)) {
                    return assert_eq!(answer[6..12], ROUTER[side]);
                }
                std::thread::yield_now();
            }
        }
    }
}

const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// Whether a frame is ARP for IPv4 over Ethernet, with this operation, under a tag or not.
fn is_arp(frame: &[u8], operation: u8) -> bool {
    let start = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    frame.get(12..).is_some_and(|rest| rest.starts_with(&start) || rest[4..].starts_with(&start))
}

/// All that is said, and how many answers there are to each.
fn talk(hosts: &Hosts) -> Vec<(usize, Vec<u8>, usize)> {
    let from = |side: usize| hosts.tagged(side, Frame::new().ethernet(Hosts::STATIONS[side], ROUTER[side]));
    let there = || from(0).ipv4(HOST4, PEER4).identification(7).time_to_live(9);
    let header = if hosts.vlans[0].is_some() { 18 } else { 14 };
    let changed = |place: usize, mut frame: Vec<u8>| {
        frame[header + place] ^= 1;
        frame
    };
    let wrong = |vlan: u16| Frame::new().ethernet(HOST, ROUTER[0]).vlan(vlan).ipv4(HOST4, PEER4).udp(1, 2).build();
    vec![
        (0, there().udp(1, 2).build(), 1),
        (0, there().tcp(1, 2).payload(&[7; 1200]).build(), 1),
        (0, there().ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0]).udp(1, 2).build(), 1),
        (0, changed(10, there().udp(1, 2).build()), 0),
        (0, changed(11, there().ipv4_options(&[1; 4]).udp(1, 2).build()), 0),
        (0, wrong(30), 0),
        (0, wrong(0), 0),
        (0, there().udp(1, 2).payload(&[7; 1450]).build(), hosts.ends[1].pieces),
        (0, there().dont_fragment().udp(1, 2).payload(&[7; 1450]).build(), 1),
        (0, there().time_to_live(1).udp(1, 2).build(), 1),
        (0, from(0).ipv4(HOST4, OWN4[0]).icmp_echo_request(1, 2).payload(b"hello").build(), 1),
        (1, changed(11, from(1).ipv4(PEER4, HOST4).udp(1, 2).build()), 0),
        (1, from(1).ipv4(PEER4, HOST4).udp(1, 2).build(), 1),
        (0, there().udp(3, 4).build(), 1),
    ]
}

/// What a router on these devices sends, and what its program says at its end about what it dropped.
fn run(
    ends: [End; 2],
    devices: [&str; 2],
    vlans: [Option<u16>; 2],
    offloads: bool,
    device_does: &str,
) -> ([End; 2], Vec<Vec<Vec<u8>>>, Vec<String>) {
    let names = devices.map(|device| device.split(',').next().unwrap());
    let path: PathBuf = std::env::temp_dir().join(format!("nf-offloads-{}-{}.toml", std::process::id(), names[0]));
    std::fs::write(&path, config(names, vlans, offloads)).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-chain"));
    command.arg(format!("--lcores=0@({cpus})"));
    command.args(["--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "128"]);
    command.args(devices.map(|device| format!("--vdev={device}"))).args(["--", "--config"]).arg(&path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    let mut log = BufReader::new(program.0.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("with 1 worker") {
        assert!(log.read_line(&mut seen).unwrap() > 0, "it ended early: {seen}");
    }
    let left = format!("{}: left to the device: {device_does}\n", names[0]);
    assert_eq!(seen.contains(&left), offloads, "{left}{seen}");

    let mut hosts = Hosts { ends, vlans };
    hosts.greet(0);
    hosts.greet(1);
    let mut heard = Vec::new();
    for (side, frame, answers) in talk(&hosts) {
        hosts.ends[side].send(&frame);
        let answers = hosts.hear(answers, PATIENCE).unwrap_or_else(|| panic!("no answer to {frame:02x?}"));
        heard.extend(answers);
    }
    assert!(Command::new("kill").args(["-INT", &program.0.id().to_string()]).status().unwrap().success());
    let mut table = String::new();
    program.0.stdout.take().unwrap().read_to_string(&mut table).unwrap();
    log.read_to_string(&mut seen).unwrap();
    assert!(program.0.wait().unwrap().success(), "{seen}");
    std::fs::remove_file(path).unwrap();
    let counted =
        |line: &&str| ["bad-checksum", "unknown-vlan", "malformed", "no-headroom"].iter().any(|why| line.contains(why));
    let dropped = table.lines().filter(counted).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    (hosts.ends, heard, dropped.collect())
}

fn compare(eal: &Eal, ends: [&str; 2], devices: [&str; 2], vlans: [Option<u16>; 2], device_does: &str) {
    let ends = ends.map(|name| End::new(eal, name));
    let (ends, with, dropped) = run(ends, devices, vlans, true, device_does);
    let (_, without, dropped_without) = run(ends, devices, vlans, false, device_does);
    assert_eq!(dropped, dropped_without);
    assert!(dropped.iter().any(|line| line.contains("bad-checksum")), "{dropped:?}");
    assert_eq!(with.len(), without.len());
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(with, without);
    }
}

fn start(devices: &[&str]) -> Eal {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let lcores = format!("--lcores=0@({cpus})");
    let fixed =
        ["test", "--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "128", "--log-level=error", &lcores];
    let devices = devices.iter().map(|device| format!("--vdev={device}"));
    Eal::init(fixed.iter().map(|arg| (*arg).to_owned()).chain(devices)).unwrap().0
}

/// The kernel takes the tags off before a socket sees them, and the driver puts them on.
#[test]
fn on_net_af_packet_the_same_bytes_leave() {
    // The driver names its group of sockets by its process and the index of the interface, one XORed
    // with the other: with these indexes two processes that began soon after each other never agree.
    let cables = "link add in0 index 20480 address 02:00:00:00:01:00 type veth peer name in1\n\
                  link add out0 index 20481 address 02:00:00:00:01:01 type veth peer name out1\n\
                  link set in0 up\nlink set in1 up\nlink set out0 up\nlink set out1 up\n";
    in_a_namespace("on_net_af_packet_the_same_bytes_leave", || {
        silence();
        ip(cables);
        let eal = start(&["net_af_packet0,iface=in1", "net_af_packet1,iface=out1"]);
        let devices = ["net_af_packet2,iface=in0", "net_af_packet3,iface=out0"];
        let does = "taking VLAN tags off, putting VLAN tags on";
        compare(&eal, ["net_af_packet0", "net_af_packet1"], devices, [Some(10), Some(20)], does);
    });
}

/// The driver sums up the headers.
#[test]
fn on_net_tap_the_same_bytes_leave() {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return skip("on_net_tap_the_same_bytes_leave", "there is no /dev/net/tun");
    }
    let taps = "tuntap add dev in1 mode tap multi_queue\ntuntap add dev out1 mode tap multi_queue\n\
                link set in1 address 02:00:00:00:01:00 up\nlink set out1 address 02:00:00:00:01:01 up\n";
    in_a_namespace("on_net_tap_the_same_bytes_leave", || {
        silence();
        ip(taps);
        let eal = start(&["net_af_packet0,iface=in1", "net_af_packet1,iface=out1"]);
        let devices = ["net_tap0,iface=in1,mac=02:00:00:00:01:00", "net_tap1,iface=out1,mac=02:00:00:00:01:01"];
        compare(&eal, ["net_af_packet0", "net_af_packet1"], devices, [None, None], "checking IPv4 headers");
    });
}

/// Its driver takes tags off and puts them on.
#[test]
fn on_net_virtio_the_same_bytes_leave() {
    let sockets = ["0", "1"].map(|end| {
        let path = std::env::temp_dir().join(format!("nf-offloads-{}-{end}", std::process::id()));
        path.to_str().unwrap().to_owned()
    });
    let ends = [0, 1].map(|end| format!("net_vhost{end},iface={}", sockets[end]));
    let devices = [0, 1].map(|end| format!("net_virtio_user{end},path={},mac=02:00:00:00:01:0{end}", sockets[end]));
    let eal = start(&[&ends[0], &ends[1]]);
    let devices = [devices[0].as_str(), devices[1].as_str()];
    let does = "taking VLAN tags off, putting VLAN tags on";
    compare(&eal, ["net_vhost0", "net_vhost1"], devices, [Some(10), Some(20)], does);
}
