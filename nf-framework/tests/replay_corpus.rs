//! Capture files, made here, as `scripts/replay-corpus` reads and replays them.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/replay-corpus/capture.rs"]
mod capture;
mod common;
#[path = "../examples/replay-corpus/functions.rs"]
mod functions;
#[path = "../examples/replay-corpus/replay.rs"]
mod replay;

use capture::{Capture, Fault, Packet};
use common::Scratch;
use nf_framework::testing::Frame;
use nf_framework::{Context, Mbuf, PacketFunction, Verdict, WorkerSetup};
use replay::{Options, Summary};
use std::time::Duration;

/// Words of one byte order.
#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl File {
    fn new(big_endian: bool) -> Self {
        Self { bytes: Vec::new(), big_endian }
    }

    fn half(mut self, value: u16) -> Self {
        self.bytes.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn words(mut self, words: &[u32]) -> Self {
        for word in words {
            self.bytes.extend(if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
        }
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// A block of pcapng around this body, padded to words.
    fn block(mut self, block_type: u32, body: impl FnOnce(Self) -> Self) -> Self {
        let mut body = body(Self::new(self.big_endian)).bytes;
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(body.len() + 12).unwrap();
        self = self.words(&[block_type, length]).raw(&body);
        self.words(&[length])
    }

    fn pcap(big_endian: bool, magic: u32, link_type: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let header = Self::new(big_endian).words(&[magic]).half(2).half(4).words(&[0, 0, 65535, link_type]);
        let with = |file: Self, &(seconds, fraction, data): &(u32, u32, &[u8])| {
            let length = u32::try_from(data.len()).unwrap();
            file.words(&[seconds, fraction, length, length + 4]).raw(data)
        };
        packets.iter().fold(header, with).bytes
    }

    fn section(big_endian: bool) -> Self {
        Self::new(big_endian)
            .block(0x0a0d_0d0a, |body| body.words(&[0x1a2b_3c4d]).half(1).half(0).words(&[u32::MAX, u32::MAX]))
    }

    fn interface(self, link_type: u16, snap_length: u32, options: &[(u16, &[u8])]) -> Self {
        self.block(1, |body| {
            let body = body.half(link_type).half(0).words(&[snap_length]);
            options.iter().fold(body, |body, (code, value)| {
                let body = body.half(*code).half(u16::try_from(value.len()).unwrap()).raw(value);
                let padding = value.len().next_multiple_of(4) - value.len();
                body.raw(&[0; 4][..padding])
            })
        })
    }

    fn enhanced(self, interface: u32, time: u64, data: &[u8]) -> Self {
        let [high, low] = [time >> 32, time & 0xffff_ffff].map(|word| u32::try_from(word).unwrap());
        let length = u32::try_from(data.len()).unwrap();
        self.block(6, |body| body.words(&[interface, high, low, length, length]).raw(data))
    }
}

fn packet(nanoseconds: u64, link_type: u16, data: &[u8]) -> Packet {
    Packet { time: Duration::from_nanos(nanoseconds), link_type, data: data.to_vec() }
}

fn whole(packets: &[Packet]) -> Capture {
    Capture { packets: packets.to_vec(), fault: None }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

#[test]
fn pcap_is_read_in_both_byte_orders_and_both_resolutions() {
    for big_endian in [false, true] {
        let packets: &[(_, _, &[u8])] = &[(1, 2, b"one"), (3, 4, b"")];
        let file = File::pcap(big_endian, MICROSECONDS, 1, packets);
        assert_eq!(capture::read(&file), whole(&[packet(1_000_002_000, 1, b"one"), packet(3_000_004_000, 1, b"")]));
        // Frames of four more bytes, as the upper half says, are frames still.
        let file = File::pcap(big_endian, NANOSECONDS, 0xf400_0071, packets);
        assert_eq!(capture::read(&file), whole(&[packet(1_000_000_002, 113, b"one"), packet(3_000_000_004, 113, b"")]));
    }
}

#[test]
fn pcapng_is_read_in_both_byte_orders_with_all_kinds_of_packets() {
    for big_endian in [false, true] {
        let file = File::section(big_endian)
            .interface(1, 0, &[(2, b"eth"), (9, &[9]), (0, b"")])
            .interface(113, 3, &[(0, b"")])
            // Statistics, which nobody reads.
            .block(5, |body| body.words(&[0, 0, 0]))
            .enhanced(0, 5_000_000_007, b"enhanced")
            .enhanced(1, 6_000_001, b"cooked")
            .block(2, |body| body.half(0).half(9).words(&[0, 8, 3, 3]).raw(b"old"))
            .block(3, |body| body.words(&[4]).raw(b"bare"));
        let expected = [
            packet(5_000_000_007, 1, b"enhanced"),
            packet(6_000_001_000, 113, b"cooked"),
            packet(8, 1, b"old"),
            packet(8, 1, b"bare"),
        ];
        assert_eq!(capture::read(&file.bytes), whole(&expected));
        // A second section has its own byte order and interfaces; a short packet is as long as those of
        // its interface can be, and time may count in powers of two.
        let other = File::section(!big_endian)
            .interface(1, 2, &[(9, &[0x80 | 10])])
            .block(3, |body| body.words(&[4]).raw(b"ba"))
            .enhanced(0, 1024 + 512, b"half");
        let expected = [&expected[..], &[packet(8, 1, b"ba"), packet(1_500_000_000, 1, b"half")]].concat();
        assert_eq!(capture::read(&[file.bytes, other.bytes].concat()), whole(&expected));
    }
}

#[test]
fn a_file_that_breaks_off_or_lies_is_read_up_to_there() {
    let pcap = File::pcap(false, MICROSECONDS, 1, &[(0, 0, b"first"), (0, 0, b"second")]);
    let pcapng = File::section(true).interface(1, 0, &[]).enhanced(0, 0, b"first");
    let before = pcapng.bytes.len();
    let block_length = |length| pcapng.clone().words(&[6, length, 0, 0]).bytes;
    let cases = [
        ("within data", pcap[..pcap.len() - 2].to_vec(), 1, Fault::CutShort { at: 61, wanted: 6, missing: 2 }),
        ("within a record's header", pcap[..47].to_vec(), 1, Fault::CutShort { at: 45, wanted: 4, missing: 2 }),
        ("within the header", pcap[..23].to_vec(), 0, Fault::CutShort { at: 22, wanted: 2, missing: 1 }),
        ("no capture", b"GIF89a".to_vec(), 0, Fault::NoCapture(b"GIF8".to_vec())),
        ("empty", Vec::new(), 0, Fault::NoCapture(Vec::new())),
        ("a block that is too short", block_length(8), 1, Fault::BlockLength { at: before, length: 8 }),
        ("a block of no whole words", block_length(33), 1, Fault::BlockLength { at: before, length: 33 }),
        ("a block that is cut", block_length(64), 1, Fault::CutShort { at: before + 8, wanted: 52, missing: 44 }),
        (
            "an interface that nobody described",
            pcapng.clone().enhanced(1, 0, b"lost").bytes,
            1,
            Fault::NoInterface { at: before, interface: 1 },
        ),
        (
            "a packet that is longer than its block",
            pcapng.clone().block(6, |body| body.words(&[0, 0, 0, 99, 99])).bytes,
            1,
            Fault::CutShort { at: before + 28, wanted: 99, missing: 99 },
        ),
    ];
    for (what, bytes, packets, fault) in cases {
        let capture = capture::read(&bytes);
        assert_eq!((capture.packets.len(), capture.fault), (packets, Some(fault)), "{what}");
    }
}

/// A directory with a file of both formats, one that is cut short, and one that is none.
fn corpus(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    std::fs::create_dir(scratch.path("deep")).unwrap();
    let from = |host| Frame::new().ipv4([10, 0, 0, host], [198, 51, 100, 2]);
    let fragments = from(4).udp(1, 2).payload(&[7; 600]).build_fragments(256);
    let frames: Vec<_> = [
        from(4).udp(1, 2).payload(b"hello").build(),
        from(6).tcp(1, 2).payload(&[7; 1400]).dont_fragment().build(),
        Frame::new().arp_request([10, 0, 0, 4], [10, 255, 255, 1]).build(),
        vec![0; 3000],
    ]
    .into_iter()
    .chain(fragments.into_iter().rev())
    .collect();
    let records: Vec<_> = (0..).zip(&frames).map(|(second, frame)| (second, 0, &frame[..])).collect();
    let pcap = File::pcap(true, NANOSECONDS, 1, &records);
    std::fs::write(scratch.path("deep/one.pcap"), &pcap).unwrap();
    std::fs::write(scratch.path("cut.pcap"), &pcap[..pcap.len() - 1]).unwrap();
    std::fs::write(scratch.path("none.txt"), "no capture").unwrap();
    let pcapng = File::section(false).interface(1, 0, &[]).interface(113, 0, &[]);
    let pcapng = pcapng.enhanced(0, 0, &frames[0]).enhanced(1, 0, &frames[0]);
    std::fs::write(scratch.path("two.pcapng"), pcapng.bytes).unwrap();
    scratch
}

fn replay_all(scratch: &Scratch, options: Options) -> Summary {
    replay::replay(&scratch.0, &options).unwrap()
}

#[test]
fn every_capture_is_replayed_and_every_packet_accounted_for() {
    let scratch = corpus("replay");
    let summary = replay_all(&scratch, Options { flip: None, subject: || Box::new(functions::chain) });
    assert_eq!(summary.failures, Vec::<String>::new());
    assert_eq!((summary.files, summary.frames, summary.too_long), (4, 6 + 5 + 1, 2));
    assert_eq!(summary.other_links, [(113, 1)].into());
    assert_eq!(
        summary.faults,
        [
            "cut.pcap: cut short: 1 of 290 bytes are missing at byte 5099",
            "none.txt: neither pcap nor pcapng: it begins with [6e, 6f, 20, 63]"
        ]
    );
    let [one, two] = &summary.runs;
    for run in [one, two] {
        assert_eq!(run.balance.unaccounted(), 0);
        assert!(run.balance.received > 24 && run.balance.sent > 5, "{run:?}");
        // Fragments wait for their first one, and one packet is too long for its next link.
        assert!(run.most_held > 0 && run.drops["too-big"] == 2 && run.drops["other-station"] > 0, "{run:?}");
        assert!(run.counters["flows begun"] > 0);
    }
    assert_eq!(one.handed_over, 0);
    assert!(two.handed_over > 0);
}

#[test]
fn what_is_flipped_comes_from_the_seed() {
    let scratch = corpus("flip");
    let flipped = |seed| replay_all(&scratch, Options { flip: Some(seed), subject: || Box::new(functions::chain) });
    let first = flipped(1);
    assert!(first.failures.is_empty() && first.changed > 0, "{first:?}");
    assert_eq!(first.changed, flipped(1).changed);
    assert_eq!(first.runs[0].drops, flipped(1).runs[0].drops);
    assert!((2..9).any(|seed| flipped(seed).runs[0].drops != first.runs[0].drops), "other seeds, other bits");
}

/// Cannot stand TCP.
struct Picky;

impl PacketFunction for Picky {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        assert_ne!(packet.data()[23], 6, "not this protocol");
        Verdict::Next
    }
}

#[test]
fn a_failure_names_the_file_and_the_packet() {
    let scratch = corpus("failure");
    let summary =
        replay_all(&scratch, Options { flip: None, subject: || Box::new(|_: &mut WorkerSetup| Picky.into()) });
    let [cut, _, whole, _] = &summary.failures[..] else { panic!("{:?}", summary.failures) };
    assert!(cut.starts_with("cut.pcap: on 1 worker(s), packet 2: "), "{cut}");
    assert!(whole.starts_with("deep/one.pcap: on 1 worker(s), packet 2: ") && whole.contains("not this protocol"));
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let scratch = Scratch::new("nothing");
    let nothing = scratch.0.join("nothing");
    let summary = replay::replay(&nothing, &Options { flip: None, subject: || Box::new(functions::chain) }).unwrap();
    assert_eq!((summary.frames, summary.faults.len()), (0, 1), "{summary:?}");
}
