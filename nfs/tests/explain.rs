//! `--explain` by our programs: packets in words and captures, through their configurations, and what is said of them.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use nf_framework::capture::{CaptureReader, CaptureWriter, CapturedPacket};
use nf_framework::testing::Frame;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const NAT: &str = env!("CARGO_BIN_EXE_nat");
const NF_CHAIN: &str = env!("CARGO_BIN_EXE_nf-chain");
const LOAD_BALANCER: &str = env!("CARGO_BIN_EXE_load-balancer");

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn new(config: &str) -> Self {
        static DIRECTORIES: AtomicU32 = AtomicU32::new(0);
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let scratch = Self(std::env::temp_dir().join(format!("nfs-explain-{}-{number}", std::process::id())));
        std::fs::create_dir_all(&scratch.0).unwrap();
        std::fs::write(scratch.0.join("config.toml"), config).unwrap();
        scratch
    }

    /// Status, stdout and stderr of a program with these arguments.
    fn run(&self, program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(program);
        command.current_dir(&self.0).env("RUST_LOG", "error").stdin(Stdio::null());
        let output = command.args(["--config", "config.toml"]).args(arguments).output().unwrap();
        let [said, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), said, errors)
    }

    fn explain(&self, program: &str, arguments: &[&str]) -> String {
        let (status, said, errors) = self.run(program, &[&["--explain"], arguments].concat());
        assert!(status == Some(0) && errors.is_empty(), "{errors}");
        said
    }

    fn capture(&self, packets: &[(u64, Vec<u8>)]) {
        let mut writer = CaptureWriter::new(Vec::new(), &["eth0"]).unwrap();
        for (second, frame) in packets {
            writer.write(&CapturedPacket::new(Duration::from_secs(1_700_000_000 + *second), frame)).unwrap();
        }
        std::fs::write(self.0.join("in.pcapng"), writer.finish().unwrap()).unwrap();
    }
}

/// Identifications of packets that a NAT sends are random.
fn without_identifications(said: &str) -> String {
    said.lines()
        .map(|line| match line.split_once("identification ") {
            Some((before, _)) => format!("{before}identification ...\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

const WIRE: &str = "forwarding = 'wire'\n[ports]\ninside = 'net_a'\noutside = 'net_b'\n";
const POOL: &str = "[nat]\nport_selection = 'preserve'\n[[nat.pools]]\naddresses = ['198.51.100.8']\n";

#[test]
fn the_nat_shows_how_a_packet_is_translated() {
    let scratch = Scratch::new(&format!("{WIRE}{POOL}"));
    let said = scratch.explain(NAT, &["udp 10.0.0.5:5000 > 203.0.113.9:53"]);
    let expected = "\
taken to come from inside, as 10.0.0.5 is a private address (write \"from inside\" or \"from outside\")
#1 0.000000 udp 10.0.0.5:5000 > 203.0.113.9:53, 42 bytes
  arrives  by net_a (inside), worker 0
  nat      next; session behind 198.51.100.8:5000, begun; source 10.0.0.5:5000 -> 198.51.100.8:5000;
           identification ...
  (egress) send by net_b (outside)
  leaves   by net_b (outside)

nat:
  pools[0]
";
    assert_eq!(without_identifications(&said), expected);
    let said = scratch.explain(NAT, &["udp 203.0.113.9:53 > 198.51.100.8:5000 from outside"]);
    let expected = "\
#1 0.000000 udp 203.0.113.9:53 > 198.51.100.8:5000, 42 bytes
  arrives by net_b (outside), worker 0
  nat     drop nat-no-mapping: for an external port or identifier that nobody inside has

nat:
  pools[0] has 198.51.100.8: what comes in is for what hosts inside have begun
";
    assert_eq!(said, expected);
}

#[test]
fn of_what_the_nat_holds_it_is_said_what_comes_of_it() {
    let unsolicited = ["tcp 203.0.113.9:5000 > 198.51.100.8:8081 from outside"];
    let said = Scratch::new(&format!("{WIRE}{POOL}")).explain(NAT, &unsolicited);
    let held = "taken, and held; until a host inside begins it, 6 s at most;";
    let expected = format!("  nat     {held} then drop nat-unsolicited-syn\n");
    assert!(said.contains(&expected), "{said}");
    // A router tells the sender.
    let said = Scratch::new(include_str!("../examples/nat.toml")).explain(NAT, &unsolicited);
    let told = "then drop nat-unsolicited-syn; ICMP port unreachable after 6 s\n";
    let expected = format!("  nat       {held}\n            {told}");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn behind_a_router_every_neighbour_is_there() {
    let scratch = Scratch::new(include_str!("../examples/nat.toml"));
    let said = scratch.explain(NAT, &["udp 10.0.0.5:5000 > 203.0.113.9:53 from inside"]);
    let expected = "
  (egress)  send by net_tap1 (outside); next hop 198.51.100.254 on wan;
            source MAC 00:00:00:00:00:00 -> 02:00:00:00:01:02;
            destination MAC 02:00:00:00:01:01 -> 02:00:00:00:00:01
  leaves    by net_tap1 (outside)
";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_router_names_a_route_where_it_has_looked_for_one() {
    let scratch = Scratch::new(&format!(
        "chain = ['monitor']\n{}\
         [router.interfaces.lan]\nside = 'inside'\naddresses = ['10.0.0.1/24']\n\
         [router.interfaces.wan]\nside = 'outside'\naddresses = ['198.51.100.1/24']\n",
        WIRE.replace("wire", "router")
    ));
    for (packet, verdict, note) in [
        ("udp 10.0.0.5:5000 > 198.51.100.7:53 vlan 10", "drop unknown-vlan: ", ""),
        ("udp 127.0.0.1:5000 > 198.51.100.7:53 from inside", "drop martian: ", ""),
        ("udp 10.0.0.5:5000 > 10.0.0.7:53", "drop same-side: ", "; route 10.0.0.7 on lan"),
        ("udp 10.0.0.5:5000 > 192.0.2.7:53", "drop no-route: ", "; no route to 192.0.2.7"),
        ("udp 10.0.0.5:5000 > 198.51.100.1:53", "drop no-listener: ", "; 198.51.100.1 is the router's own"),
        ("udp 10.0.0.5:5000 > 198.51.100.7:53", "next", "; route 198.51.100.7 on wan"),
    ] {
        let said = scratch.explain(NF_CHAIN, &[packet]).replace("\n            ", " ");
        let ingress =
            said.lines().find_map(|line| line.strip_prefix("  (ingress) ")).unwrap_or_else(|| panic!("{said}"));
        assert!(ingress.starts_with(verdict) && ingress.contains(note), "{packet}: {said}");
        assert_eq!(ingress.contains("; "), verdict == "next" || !note.is_empty(), "{packet}: {said}");
    }
}

#[test]
fn between_vlans_a_packet_has_one_tag_and_then_the_other() {
    let scratch = Scratch::new(&format!(
        "chain = ['monitor']\n{}\
         [router.interfaces.lan]\nside = 'inside'\nvlan = 10\naddresses = ['10.0.0.1/24']\n\
         [router.interfaces.wan]\nside = 'outside'\nvlan = 20\naddresses = ['198.51.100.1/24']\n",
        WIRE.replace("wire", "router")
    ));
    let said = scratch.explain(NF_CHAIN, &["udp 10.0.0.5:5000 > 198.51.100.7:53 vlan 10"]);
    assert!(said.contains("next hop 198.51.100.7 on wan; length 42 -> 46; VLAN 10 -> 20;\n"), "{said}");
    // What is dropped is in the file as it came, so that it can be replayed.
    let frame = Frame::new().vlan(10).ipv4([10, 0, 0, 5], [192, 0, 2, 7]).udp(5000, 53).build();
    scratch.capture(&[(0, frame.clone())]);
    let (status, _, errors) = scratch.run(NF_CHAIN, &["--replay", "in.pcapng", "--write", "out"]);
    assert!(status == Some(0) && errors.is_empty(), "{errors}");
    let mut reader = CaptureReader::open(&scratch.0.join("out/dropped.pcapng")).unwrap();
    let dropped = reader.next_packet().unwrap().unwrap();
    assert!(dropped.comment.unwrap().starts_with("no-route: "), "{:?}", dropped.comment);
    assert_eq!(dropped.data[12..], frame[12..]);
}

#[test]
fn of_a_capture_answers_are_followed_too_at_their_time() {
    let scratch = Scratch::new(&format!("{WIRE}{POOL}"));
    let v4 = |from: [u8; 4], to: [u8; 4]| Frame::new().ipv4(from, to).dont_fragment();
    let out = v4([10, 0, 0, 5], [203, 0, 113, 9]).udp(5000, 53).build();
    let back = v4([203, 0, 113, 9], [198, 51, 100, 8]).udp(53, 5000).build();
    scratch.capture(&[(0, out), (1, back.clone()), (600, back)]);
    let said = scratch.explain(NAT, &["in.pcapng"]);
    let lines: Vec<&str> = said.lines().collect();
    let from = |text: &str| lines.iter().position(|line| *line == text).unwrap_or_else(|| panic!("{text}\n{said}"));
    assert_eq!(from("#1 0.000000 udp 10.0.0.5:5000 > 203.0.113.9:53, 42 bytes"), 0);
    let answer = from("#2 1.000000 udp 203.0.113.9:53 > 198.51.100.8:5000, 42 bytes");
    assert_eq!(
        lines[answer + 1..answer + 4],
        [
            "  arrives  by net_b (outside), worker 0",
            "  nat      next; mapping to 10.0.0.5:5000; destination 198.51.100.8:5000 -> 10.0.0.5:5000",
            "  (egress) send by net_a (inside)",
        ],
    );
    // Sessions of UDP last for 300 seconds.
    let late = from("#3 600.000000 udp 203.0.113.9:53 > 198.51.100.8:5000, 42 bytes");
    assert_eq!(
        lines[late + 2..],
        ["  nat     drop nat-no-mapping: for an external port or identifier that nobody inside has"],
        "{said}"
    );
    let said = scratch.explain(NAT, &["in.pcapng", "--inside", "203.0.113.0/24"]);
    assert!(
        said.contains("#2 1.000000 udp 203.0.113.9:53 > 198.51.100.8:5000, 42 bytes\n  arrives by net_a (inside)"),
        "{said}"
    );
}

#[test]
fn more_packets_than_are_followed_at_once_have_their_places() {
    let scratch = Scratch::new(&format!("{WIRE}{POOL}"));
    let out = |port| Frame::new().ipv4([10, 0, 0, 5], [203, 0, 113, 9]).udp(port, 53).build();
    scratch.capture(&(1..=250).map(|number| (number, out(5000 + u16::try_from(number).unwrap()))).collect::<Vec<_>>());
    let said = scratch.explain(NAT, &["in.pcapng"]);
    for number in 1..=250_u16 {
        let first =
            format!("#{number} {}.000000 udp 10.0.0.5:{} > 203.0.113.9:53, 42 bytes\n", number - 1, 5000 + number);
        assert!(said.contains(&first), "{first}{said}");
    }
    assert_eq!(said.matches("  leaves   by net_b (outside)").count(), 250, "{said}");
}

const RULES: &str = "
[[firewall.rules]]
name = 'no-mail'
from = 'inside'
protocol = 'tcp'
destination_ports = 25
action = 'reject'
[[firewall.rules]]
name = 'out'
from = 'inside'
action = 'accept'
[[firewall.rules]]
name = 'web'
from = 'outside'
destination = '10.0.0.10'
action = 'accept'
";
const FORWARD: &str =
    "[[nat.forward]]\nprotocol = 'tcp'\noutside = '198.51.100.8'\nports = '8080'\nto = ['10.0.0.10:80']\n";

#[test]
fn in_a_chain_each_function_speaks_of_the_packet_as_it_comes_to_it() {
    let scratch = Scratch::new(&format!("chain = ['firewall', 'nat']\n{WIRE}{RULES}{POOL}{FORWARD}"));
    let said = scratch.explain(NF_CHAIN, &["tcp 203.0.113.9:4000 > 198.51.100.8:8080 from outside"]);
    let expected = "\
#1 0.000000 tcp 203.0.113.9:4000 > 198.51.100.8:8080 [S], 54 bytes
  arrives  by net_b (outside), worker 0
  nat      next; destination 198.51.100.8:8080 -> 10.0.0.10:80
  firewall next; connection SYN_SENT, rule web
  (egress) send by net_a (inside)
  leaves   by net_a (inside)

nat:
  forward[0]

firewall:
    not no-mail: it comes from outside
    not out: it comes from outside
  accept, by web
";
    assert_eq!(said, expected);
    let said = scratch.explain(NF_CHAIN, &["tcp 10.0.0.5:4000 > 203.0.113.9:25 from inside"]);
    let expected = "\
#1 0.000000 tcp 10.0.0.5:4000 > 203.0.113.9:25 [S], 54 bytes
  arrives  by net_a (inside), worker 0
  firewall drop firewall-denied: a rule does not accept it; rule no-mail
made for #1: tcp 203.0.113.9:25 > 10.0.0.5:4000 [R.], 54 bytes
  made     at firewall
  enters   from firewall
  (egress) send by net_a (inside)
  leaves   by net_a (inside)

firewall:
  reject (firewall-denied), by no-mail
";
    assert_eq!(said, expected);
}

#[test]
fn the_load_balancer_shows_the_backend() {
    let example = include_str!("../examples/load-balancer-nat.toml");
    let scratch = Scratch::new(example);
    let said = scratch.explain(LOAD_BALANCER, &["tcp 192.0.2.9:4000 > 203.0.113.80:80"]);
    assert!(said.starts_with("taken to come from outside, as 192.0.2.9 is not a private address "), "{said}");
    let backend = ["10.0.0.11", "10.1.0.12"].into_iter().find(|backend| said.contains(backend)).unwrap();
    for expected in [
        format!("service web, backend {backend}:8080"),
        format!("destination 203.0.113.80:80 -> {backend}:8080"),
        "leaves        by net_tap0 (inside)".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}\n{said}");
    }
    let said = scratch.explain(LOAD_BALANCER, &["tcp 192.0.2.9:4000 > 203.0.113.80:81 from outside"]);
    assert!(said.contains("no service on port 81") && !said.contains("taken to come"), "{said}");
}

#[test]
fn what_cannot_be_explained_is_one_sentence() {
    let scratch = Scratch::new(&format!("{WIRE}{POOL}"));
    std::fs::write(scratch.0.join("none.pcap"), "nothing").unwrap();
    for (arguments, status, expected) in [
        (&["--explain", "udp 10.0.0.5 > 10.0.0.6"][..], 1, "error: \"10.0.0.5\" is not an address with a port"),
        (&["--explain", "what is this"], 1, "error: \"what\" is not a protocol: tcp, "),
        (&["--explain", "no.pcap"], 1, "error: no.pcap: no such file, and no packet (write, for example, \"tcp "),
        (&["--explain", "/tmp"], 1, "error: /tmp: this is a directory (name the capture file in it)"),
        (&["--explain", "none.pcap"], 1, "error: none.pcap: neither a pcap nor a pcapng file"),
        (
            &["--explain", "icmp 10.0.0.5 > 10.0.0.6 3/1 related"],
            1,
            "error: an error related to a live connection cannot be followed through the chain",
        ),
        (
            &["--explain", "in.pcap", "--check"],
            2,
            "error: the argument '--explain <PACKET|FILE>' cannot be used with '--check'",
        ),
        (&["--inside", "10.0.0.0/8"], 2, "error: the following required arguments were not provided:"),
        (&["-l", "0", "--", "--explain", "x"], 2, "error: "),
    ] {
        let (code, said, errors) = scratch.run(NAT, arguments);
        assert!(
            code == Some(status) && said.is_empty() && errors.starts_with(expected),
            "{arguments:?}: {code:?} {errors}"
        );
    }
}

#[test]
fn findings_are_warnings_with_file_line_and_key() {
    let unused = "[[nat.pools]]\naddresses = ['198.51.100.9']\n";
    let scratch = Scratch::new(&format!("{WIRE}{POOL}{unused}"));
    let mut command = Command::new(NAT);
    command.current_dir(&scratch.0).env("RUST_LOG", "warn").args(["--config", "config.toml"]);
    let output = command.args(["--explain", "udp 10.0.0.5:5000 > 203.0.113.9:53"]).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let warning = "config.toml:9: [nat] pools[1]: no host uses it: pools[0] before it is for all that it is for";
    assert!(output.status.success() && log.contains(warning), "{log}");
    let (_, _, check) = {
        let mut command = Command::new(NAT);
        command.current_dir(&scratch.0).env("RUST_LOG", "warn").args(["--", "--config", "config.toml", "--check"]);
        let output = command.output().unwrap();
        (output.status, output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    assert!(check.contains(warning), "{check}");
}
