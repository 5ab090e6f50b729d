//! `--replay`, by a program that knows nothing of it: the example `port-block` over captures.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::Scratch;
use nf_framework::capture::{CaptureReader, CaptureWriter, CapturedPacket};
use nf_framework::testing::Frame;
use program::{example, port_block};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const START: Duration = Duration::from_secs(1_700_000_000);

/// The example over captures, in a directory of its own.
struct Replay {
    scratch: Scratch,
}

/// Time since [`START`], interface, frame and comment.
type Packet = (Duration, u32, Vec<u8>, Option<String>);

impl Replay {
    fn new(name: &str) -> Self {
        let replay = Self { scratch: Scratch::new(&format!("offline-{name}")) };
        let text = "forwarding = \"wire\"\n[ports]\ninside = \"net_a\"\noutside = \"net_b\"\n\
                    [port-block]\nblocked = [9]\n";
        std::fs::write(replay.scratch.path("config.toml"), text).unwrap();
        replay
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path(name)
    }

    fn capture(&self, name: &str, packets: &[(Duration, Vec<u8>)]) -> String {
        let mut writer = CaptureWriter::new(Vec::new(), &["eth0"]).unwrap();
        for (time, frame) in packets {
            writer.write(&CapturedPacket::new(START + *time, frame)).unwrap();
        }
        let path = self.path(name);
        std::fs::write(&path, writer.finish().unwrap()).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = port_block();
        command.args(["--config", &self.path("config.toml")]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Replays these files, and returns what was said on stdout.
    fn replay(&self, captures: &str, more: &[&str]) -> String {
        let out = self.path("out");
        let output = self.run(&[&["--replay", captures, "--write", &out], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn written(&self, part: &str) -> Vec<Packet> {
        let path = self.path(&format!("out/{part}.pcapng"));
        let mut reader = CaptureReader::open(Path::new(&path)).unwrap();
        let mut packets = Vec::new();
        while let Some(packet) = reader.next_packet().unwrap() {
            let comment = packet.comment.map(str::to_owned);
            packets.push((packet.time - START, packet.interface, packet.data.to_vec(), comment));
        }
        packets
    }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

const HOST: [u8; 4] = [10, 0, 0, 5];
const SERVER: [u8; 4] = [198, 51, 100, 1];

fn out(number: u16, port: u16) -> Vec<u8> {
    Frame::new().ipv4(HOST, SERVER).udp(number, port).build()
}

fn back(number: u16) -> Vec<u8> {
    Frame::new().ipv4(SERVER, HOST).udp(53, number).build()
}

#[test]
fn two_captures_are_one_by_their_time_and_each_is_a_side() {
    let replay = Replay::new("two");
    let inside =
        replay.capture("in.pcapng", &[(micros(0), out(1, 53)), (micros(10), out(2, 9)), (micros(500), out(3, 53))]);
    // Packets of one time: that from inside first.
    let outside =
        replay.capture("out.pcapng", &[(micros(5), back(1)), (micros(500), back(3)), (micros(900), out(9, 53))]);
    let said = replay.replay(&format!("{inside},{outside}"), &[]);
    assert_eq!(
        replay.written("outside"),
        [(micros(0), 0, out(1, 53), None), (micros(500), 0, out(3, 53), None)],
        "{said}"
    );
    // The side says where it goes, and not its address.
    let expected = [(micros(5), 0, back(1), None), (micros(500), 0, back(3), None), (micros(900), 0, out(9, 53), None)];
    assert_eq!(replay.written("inside"), expected);
    let why = Some("policy: a function's rules forbid it".to_owned());
    assert_eq!(replay.written("dropped"), [(micros(10), 0, out(2, 9), why)]);
    for line in [
        "--- port-block has replayed 6 packets in 0.001 s of capture",
        "net_a (inside)          3     3       -        -",
        "net_b (outside)         3     2       -        -",
        "port-block.hits      1",
        "balance: 6 received + 0 originated = 5 sent + 1 dropped + 0 consumed + 0 held",
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
}

#[test]
fn of_one_capture_the_source_address_says_the_side() {
    let replay = Replay::new("one");
    let vlan =
        Frame::new().vlan(7).ipv6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0x20; 16]).udp(1, 53).build();
    let arp = Frame::new().arp_reply(SERVER, HOST).build();
    let strange = Frame::new().ether_type(0x88cc).payload(&[0; 46]).build();
    let frames = [out(1, 53), back(1), vlan.clone(), arp.clone(), strange.clone()];
    let packets: Vec<_> = (0..).map(Duration::from_secs).zip(frames).collect();
    let both = replay.capture("both.pcapng", &packets);
    let frames = |part: &str| replay.written(part).into_iter().map(|packet| packet.2).collect::<Vec<_>>();
    let said = replay.replay(&both, &[]);
    assert!(said.contains("\n3 from inside and 2 from outside, as private source addresses are inside\n"), "{said}");
    assert_eq!(
        (frames("outside"), frames("inside")),
        (vec![out(1, 53), vlan.clone(), strange.clone()], vec![back(1), arp.clone()])
    );
    let said = replay.replay(&both, &["--force", "--inside", "198.51.100.0/24,2001::/16"]);
    assert!(said.contains("\n3 from inside and 2 from outside, by --inside\n"), "{said}");
    assert_eq!((frames("outside"), frames("inside")), (vec![back(1), arp, strange], vec![out(1, 53), vlan]));
    // That all are of one side may be a mistake.
    let said = replay.replay(&replay.capture("back.pcapng", &[(micros(0), back(1))]), &["--force"]);
    let hint = "\n0 from inside and 1 from outside, as private source addresses are inside \
                (--inside PREFIX,PREFIX says whose addresses are inside)\n";
    assert!(said.contains(hint), "{said}");
}

#[test]
fn packets_of_one_side_within_a_tick_go_together_and_never_before_what_they_answer() {
    let replay = Replay::new("bursts");
    let mut packets = Vec::new();
    for number in 1000..1200 {
        let at = |more| micros(u64::from(number - 1000) * 4 + more);
        packets.extend([
            (at(0), out(number, 53)),
            (at(1), out(number, 54)),
            (at(2), back(number)),
            (at(3), back(number)),
        ]);
    }
    let both = replay.capture("both.pcapng", &packets);
    let said = replay.replay(&both, &[]);
    let (there, here) = (replay.written("outside"), replay.written("inside"));
    assert_eq!((there.len(), here.len()), (400, 400), "{said}");
    assert!(there.is_sorted_by_key(|packet| packet.0) && here.is_sorted_by_key(|packet| packet.0));
    for (asked, answered) in there.iter().zip(&here) {
        assert!(asked.0 < answered.0, "{:?} {:?}", asked.0, answered.0);
    }
}

#[test]
fn what_a_capture_does_not_have_whole_is_counted_and_what_does_not_fit_is_dropped() {
    let replay = Replay::new("lengths");
    let jumbo = Frame::new().ipv4(HOST, SERVER).udp(7, 53).payload(&[1; 4000]).build();
    let mut writer = CaptureWriter::new(Vec::new(), &["eth0"]).unwrap();
    for (time, frame, more) in
        [(5, out(1, 53), 0), (6, out(2, 53), 1), (7, jumbo.clone(), 0), (2, out(3, 53), 0), (8, out(4, 53), 0)]
    {
        let packet = CapturedPacket::new(START + Duration::from_secs(time), &frame);
        let length = packet.length + more;
        writer.write(&CapturedPacket { length, ..packet }).unwrap();
    }
    std::fs::write(replay.path("in.pcapng"), writer.finish().unwrap()).unwrap();
    let said = replay.replay(&replay.path("in.pcapng"), &[]);
    for line in [
        "has replayed 4 packets in 3.000 s of capture",
        "\n1 packets are not whole in the capture, and are left out",
        "\n1 packets are earlier than one before them: time stood still meanwhile",
        "balance: 4 received + 0 originated = 3 sent + 1 dropped + 0 consumed + 0 held",
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
    let seconds: Vec<_> = replay.written("outside").iter().map(|packet| packet.0.as_secs()).collect();
    assert_eq!(seconds, [5, 7, 8]);
    let why = Some("not-one-segment: arrived in several segments or with shared data".to_owned());
    assert_eq!(replay.written("dropped"), [(Duration::from_secs(7), 0, jumbo, why)]);
    // A port of a larger MTU takes it.
    let config = std::fs::read_to_string(replay.path("config.toml")).unwrap();
    std::fs::write(replay.path("config.toml"), config.replace("[ports]", "[ports]\nmtu = 9000")).unwrap();
    replay.replay(&replay.path("in.pcapng"), &["--force"]);
    assert_eq!((replay.written("outside").len(), replay.written("dropped").len()), (4, 0));
}

#[test]
fn at_its_own_pace_a_capture_takes_as_long_as_it_is() {
    let replay = Replay::new("pace");
    let path = replay.capture("in.pcapng", &[(micros(0), out(1, 53)), (micros(300_000), out(2, 53))]);
    let began = std::time::Instant::now();
    replay.replay(&path, &["--pace"]);
    // It may take longer on a busy machine.
    assert!(began.elapsed() >= micros(300_000));
    assert_eq!(replay.written("outside").len(), 2);
}

#[test]
fn a_time_beyond_all_clocks_is_waited_for_until_somebody_stops_it() {
    let replay = Replay::new("far");
    // A second packet, 2^64 s less one later: an interface that counts whole seconds, which no writer of ours makes.
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes(), &length, body, &length].concat()
    };
    let packet = |time: u64| {
        let (upper, lower) = ((time >> 32).to_le_bytes(), (time & 0xffff_ffff).to_le_bytes());
        let length = 60_u32.to_le_bytes();
        block(6, &[&[0; 4], &upper[..4], &lower[..4], &length, &length, &[0; 60][..]].concat())
    };
    let section = block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0], &[0xff; 8][..]].concat());
    let interface = block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0]);
    let far = replay.path("far.pcapng");
    std::fs::write(&far, [section, interface, packet(0), packet(u64::MAX)].concat()).unwrap();
    let mut command = replay.command(&["--replay", &far, "--write", &replay.path("out"), "--pace"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !Path::new(&replay.path("out/dropped.pcapng")).exists() {
        std::thread::yield_now();
    }
    let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && errors.starts_with("error: told to stop before"), "{errors}");
}

#[test]
fn a_replay_that_is_told_to_stop_closes_its_files_and_shows_its_counters() {
    let replay = Replay::new("stop");
    let path = replay.capture("in.pcapng", &[(micros(0), out(1, 53)), (Duration::from_secs(3600), out(2, 53))]);
    let mut child = replay.command(&["--replay", &path, "--write", &replay.path("out"), "--pace"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The files are there when signals are waited for.
    while !Path::new(&replay.path("out/dropped.pcapng")).exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended early");
        std::thread::yield_now();
    }
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let expected = "error: told to stop before the captures were at their end\n";
    assert_eq!((output.status.code(), errors.as_str()), (Some(1), expected));
    let sent = replay.written("outside").len();
    assert!(said.contains(&format!("balance: {sent} received + 0 originated = {sent} sent + ")) && sent < 2, "{said}");
}

/// A pipe with a name, as `<(zcat in.pcapng.gz)` makes one without.
fn pipe(replay: &Replay) -> String {
    let path = replay.path("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

#[test]
fn a_capture_may_come_by_a_pipe() {
    let replay = Replay::new("pipe");
    let packets: Vec<_> = (0..3000).map(|number| (micros(u64::from(number)), out(number, 53))).collect();
    // More than a pipe takes.
    let bytes = std::fs::read(replay.capture("in.pcapng", &packets)).unwrap();
    let pipe = pipe(&replay);
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&pipe, &bytes).unwrap());
        replay.replay(&pipe, &[]);
    });
    assert_eq!(replay.written("outside").len(), packets.len());
}

#[test]
fn one_signal_ends_the_wait_for_who_writes_to_a_pipe() {
    let replay = Replay::new("silent");
    let packets = [(micros(0), out(1, 53)), (micros(1), out(2, 53))];
    let capture = replay.capture("in.pcapng", &packets);
    let (pipe, to) = (pipe(&replay), replay.path("out"));
    // A pipe that nobody opens, and one whose writer has begun and says no more.
    for (arguments, written) in [
        (&["--replay", &pipe, "--write", &to][..], false),
        (&["--explain", &pipe], false),
        (&["--replay", &pipe, "--write", &to], true),
    ] {
        let mut command = replay.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let writer = written.then(|| {
            let mut writer = std::fs::File::options().write(true).open(&pipe).unwrap();
            writer.write_all(&std::fs::read(&capture).unwrap()).unwrap();
            writer
        });
        // It listens to signals, and what was written has come.
        let status = format!("/proc/{}/status", child.id());
        let caught = || {
            let status = std::fs::read_to_string(&status).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (2 - 1) != 0
        };
        while !caught() || written && !Path::new(&replay.path("out/dropped.pcapng")).exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended early");
            std::thread::yield_now();
        }
        let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        let output = child.wait_with_output().unwrap();
        let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let expected = "error: told to stop before the captures were at their end\n";
        assert_eq!((output.status.code(), errors.as_str()), (Some(1), expected), "{arguments:?}");
        assert_eq!(said.contains("balance: 2 received + 0 originated = 2 sent"), written, "{said}");
        drop(writer);
    }
}

#[test]
fn a_damaged_capture_is_replayed_up_to_there() {
    let replay = Replay::new("damaged");
    let packets: Vec<_> = (0..5).map(|number| (micros(u64::from(number) * 1000), out(number, 53))).collect();
    let inside = replay.capture("in.pcapng", &packets);
    let whole = std::fs::read(&inside).unwrap();
    std::fs::write(&inside, &whole[..whole.len() - 1]).unwrap();
    // What came in on the other side later is not replayed either.
    let outside = replay.capture("out.pcapng", &[(micros(2500), back(1)), (micros(3500), back(2))]);
    let captures = format!("{inside},{outside}");
    let output = replay.run(&["--replay", &captures, "--write", &replay.path("out")]);
    let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let at = whole.len() - 76;
    let expected = format!("error: {inside}: damaged at byte {at}: the file ends there, 1 bytes too early\n");
    assert_eq!((output.status.code(), errors), (Some(1), expected));
    assert!(said.contains("balance: 5 received + 0 originated = 5 sent + 0 dropped + 0 consumed + 0 held"), "{said}");
    assert_eq!((replay.written("outside").len(), replay.written("inside").len()), (4, 1));
}

#[test]
fn of_a_capture_without_packets_that_is_said() {
    let replay = Replay::new("none");
    let output = replay.run(&["--explain", &replay.capture("none.pcapng", &[])]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text == "there are no packets in the capture\n", "{text}");
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let replay = Replay::new("full");
    let capture = replay.capture("in.pcapng", &[(micros(0), out(1, 53))]);
    let to = replay.path("out");
    for arguments in [&["--explain", &capture][..], &["--replay", &capture, "--write", &to]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = replay.command(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.starts_with("error: the answer cannot be written: No space left on device"), "{errors}");
        // Who has seen enough has seen enough.
        std::fs::remove_dir_all(&to).unwrap_or_default();
        let mut child = replay.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(child.wait_with_output().unwrap().status.success(), "{arguments:?}");
        std::fs::remove_dir_all(&to).unwrap_or_default();
    }
}

#[test]
fn what_cannot_be_replayed_is_one_sentence() {
    let replay = Replay::new("bad");
    let good = replay.capture("good.pcapng", &[(micros(0), out(1, 53))]);
    let (text, radio, out) = (replay.path("text.pcap"), replay.path("radio.pcap"), replay.path("out"));
    std::fs::write(&text, "no capture").unwrap();
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 105].map(u32::to_le_bytes).concat();
    std::fs::write(&radio, header).unwrap();
    let missing = replay.path("missing.pcap");
    std::fs::create_dir_all(replay.path("there")).unwrap();
    let over = replay.capture("there/inside.pcapng", &[]);
    let there = replay.path("there");
    // The same file by another name.
    std::fs::create_dir_all(replay.path("linked")).unwrap();
    std::fs::hard_link(&good, replay.path("linked/outside.pcapng")).unwrap();
    let linked = replay.path("linked");
    let file = format!("{good}/out");
    let two = format!("{good},{good}");
    let three = format!("{two},{good}");
    for (arguments, code, sentence) in [
        (
            &["--replay", &text, "--write", &out][..],
            1,
            "text.pcap: neither a pcap nor a pcapng file: it begins with the octets 6e 6f 20 63",
        ),
        (&["--replay", &missing, "--write", &out], 1, "missing.pcap: cannot be read: No such file or directory"),
        (
            &["--replay", &radio, "--write", &out],
            1,
            "radio.pcap: its packets are of link type IEEE 802.11 (105), and only",
        ),
        (&["--replay", &three, "--write", &out], 1, "--replay takes one capture, or two: inside,outside"),
        (&["--replay", &two, "--write", &out, "--inside", "10.0.0.0/8"], 1, "--inside is for one capture"),
        (&["--replay", &good, "--write", &there], 1, "there/inside.pcapng: there is a file of this name already"),
        (&["--replay", &over, "--write", &there, "--force"], 1, "there/inside.pcapng: is to be replayed, and would be"),
        (
            &["--replay", &good, "--write", &linked, "--force"],
            1,
            "linked/outside.pcapng: is to be replayed, and would be",
        ),
        (&["--replay", &good, "--write", &file], 1, "good.pcapng/out: cannot be written: Not a directory"),
        (&["--replay", &good], 2, "--write <DIR>"),
        (&["--write", &out], 2, "--replay <IN.pcap[,IN2.pcap]>"),
        (&["--replay", &good, "--write", &out, "--check"], 2, "cannot be used with '--check'"),
        (&["--replay", &good, "--write", &out, "-l", "0"], 2, "--replay takes no EAL arguments"),
    ] {
        let output = replay.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {errors}");
        assert!(errors.contains(sentence), "{arguments:?}: {errors}");
        assert!(code == 2 || errors.lines().count() == 1, "{errors}");
        assert!(!Path::new(&replay.path("out/outside.pcapng")).exists(), "{arguments:?}");
    }
    // On one port there is one side.
    let config = replay.path("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("outside = \"net_b\"\n", "")).unwrap();
    let output = replay.run(&["--replay", &two, "--write", &out]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("the configuration has one port, so there is one capture to give"), "{errors}");
    replay.replay(&good, &[]);
    assert_eq!(replay.written("inside").len(), 1, "what came in by the only port leaves by it");
}

#[test]
fn a_function_that_knows_nothing_of_it_is_explained() {
    let replay = Replay::new("explained");
    let explain = |arguments: &[&str]| {
        let output = replay.run(&[&["--explain"], arguments].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = explain(&["udp 192.0.2.1:1000 > 198.51.100.1:9 from inside"]);
    let dropped = "\
#1 0.000000 udp 192.0.2.1:1000 > 198.51.100.1:9, 42 bytes
  arrives    by net_a (inside), worker 0
  port-block drop policy: a function's rules forbid it
";
    assert_eq!(said, dropped);
    let frame = |port| Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, port).build();
    let capture =
        replay.capture("explained.pcapng", &[(Duration::ZERO, frame(9)), (Duration::from_millis(1), frame(53))]);
    let passed = "\
#2 0.001000 udp 192.0.2.1:1000 > 198.51.100.1:53, 42 bytes
  arrives    by net_a (inside), worker 0
  port-block next
  (egress)   send by net_b (outside)
  leaves     by net_b (outside)
";
    assert_eq!(explain(&[&capture, "--inside", "192.0.2.0/24"]), format!("{dropped}{passed}"));
    let output = replay.run(&["--explain", "udp 192.0.2.1:1000"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && errors.starts_with("error: the \">\" between source and"), "{errors}");
}

#[test]
fn a_side_that_is_written_says_nothing_with_one_port() {
    let replay = Replay::new("sideless");
    std::fs::write(replay.path("config.toml"), "[ports]\ninside = \"net_a\"\n[port-block]\nblocked = [9]\n").unwrap();
    for (side, remark) in [("", ""), (" from outside", "with one port there are no sides: it comes by that port\n")] {
        let output = replay.run(&["--explain", &format!("udp 192.0.2.1:1000 > 198.51.100.1:9{side}")]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with(&format!("{remark}#1 0.000000 udp 192.0.2.1:1000 > ")), "{said}");
        assert!(said.contains("  arrives    by net_a, worker 0\n"), "{said}");
    }
}

#[test]
fn a_function_that_panics_is_named_with_the_packet_and_what_was_done_until_then_is_kept() {
    let replay = Replay::new("panic");
    let text = "forwarding = \"wire\"\n[ports]\ninside = \"net_a\"\noutside = \"net_b\"\n\
                [misbehave]\npanic_port = 9\nhang_port = 10\n";
    let (config, written) = (replay.path("config.toml"), replay.path("out"));
    std::fs::write(&config, text).unwrap();
    let times = [0, 1, 2, 3].map(Duration::from_millis);
    let ports = [1, 2, 9, 3];
    let packets: Vec<_> = times.into_iter().zip(ports.map(|port| out(port, port))).collect();
    let capture = replay.capture("captured.pcapng", &packets);
    let run = |arguments: &[&str]| {
        let output = example("misbehave").args(["--config", &config]).args(arguments).output().unwrap();
        let text = |octets| String::from_utf8(octets).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let place = "function misbehave, 1 of 1 from inside; packets from inside to outside";

    let (code, said, errors) = run(&["--replay", &capture, "--write", &written]);
    let sentence = format!("error: with 3 packets read: a panic: told to, from port 9 ({place})\n");
    assert!(code == Some(1) && errors.ends_with(&sentence), "{errors}");
    assert!(said.contains("balance: 3 received + 0 originated = 2 sent + 0 dropped"), "{said}");
    let before = packets[..2].iter().map(|(time, frame)| (*time, 0, frame.clone(), None));
    assert_eq!(replay.written("outside"), before.collect::<Vec<_>>());
    let files = std::fs::read_dir(&written).unwrap().map(|file| file.unwrap().path());
    let reports: Vec<_> = files.filter(|path| path.extension().is_some_and(|is| is == "txt")).collect();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(errors.contains(&format!("what is known of it is in {}\n", report.display())), "{errors}");
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains(&format!("# place: {place}\n# packets in hand: 1\n")), "{report}");

    let (code, said, errors) = run(&["--explain", &capture]);
    let sentence = format!("error: packet 3: a panic: told to, from port 9 ({place})\n");
    assert!(code == Some(1) && errors.ends_with(&sentence), "{errors}");
    assert!(
        said.contains("> 198.51.100.1:2, 42 bytes\n  arrives   by net_a (inside), worker 0\n  misbehave next\n"),
        "{said}"
    );
    assert!(said.ends_with("> 198.51.100.1:9, 42 bytes\n  arrives by net_a (inside), worker 0\n"), "{said}");
}
