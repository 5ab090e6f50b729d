//! Capture files, made here, as `scripts/replay-corpus` reads and replays them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "../examples/replay-corpus/functions.rs"]
mod functions;
#[path = "../examples/replay-corpus/replay.rs"]
mod replay;

use common::Scratch;
use nf_framework::capture::{CaptureWriter, CapturedPacket, LinkType};
use nf_framework::testing::Frame;
use nf_framework::{Context, Mbuf, PacketFunction, Verdict, WorkerSetup};
use replay::{Options, Summary};
use std::time::Duration;

/// A pcap file of these frames, a second apart, in the other byte order.
fn pcap(frames: &[Vec<u8>], link_type: u32) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    let mut file = words(&[0xa1b2_3c4d, 0x0002_0004, 0, 0, 65535, link_type]);
    for (second, frame) in (0..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        file.extend(words(&[second, 0, length, length]));
        file.extend(frame);
    }
    file
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
    let file = pcap(&frames, 1);
    std::fs::write(scratch.path("deep/one.pcap"), &file).unwrap();
    std::fs::write(scratch.path("cut.pcap"), &file[..file.len() - 1]).unwrap();
    std::fs::write(scratch.path("none.txt"), "no capture").unwrap();
    std::fs::write(scratch.path("other.pcap"), pcap(&frames[..1], 113)).unwrap();
    let mut writer = CaptureWriter::new(Vec::new(), &["eth0"]).unwrap();
    writer.write(&CapturedPacket::new(Duration::ZERO, &frames[0])).unwrap();
    std::fs::write(scratch.path("two.pcapng"), writer.finish().unwrap()).unwrap();
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
    assert_eq!((summary.files, summary.frames, summary.too_long), (5, 6 + 5 + 1, 2));
    assert_eq!(summary.other_links, [(LinkType::LINUX_SLL, 1)].into());
    assert_eq!(
        summary.faults,
        [
            "cut.pcap: damaged at byte 5083: the file ends there, 1 bytes too early",
            "none.txt: neither a pcap nor a pcapng file: it begins with the octets 6e 6f 20 63"
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
