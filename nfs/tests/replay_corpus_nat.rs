//! A capture, made here, through the NAT as `scripts/replay-corpus --nat` replays it.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../nf-framework/examples/replay-corpus/capture.rs"]
mod capture;
#[path = "../examples/replay-corpus-nat/natted.rs"]
mod natted;
#[path = "../../nf-framework/examples/replay-corpus/replay.rs"]
mod replay;

use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use replay::{Options, Summary};

/// A capture file of these frames, a second apart.
fn capture_of(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1]);
    for (second, frame) in (0..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        file.extend(words(&[second, 0, length, length]));
        file.extend(frame);
    }
    file
}

fn replayed(name: &str, frames: &[Vec<u8>], flip: Option<u64>) -> Summary {
    let path = std::env::temp_dir().join(format!("replay-{name}-{}.pcap", std::process::id()));
    std::fs::write(&path, capture_of(frames)).unwrap();
    let summary = replay::replay(&path, &Options { flip, subject: || Box::new(natted::Natted::new()) });
    std::fs::remove_file(path).unwrap();
    summary.unwrap()
}

/// A conversation of each kind, a datagram in fragments, and an error about what a host sent.
fn conversations() -> Vec<Vec<u8>> {
    let (client, server) = ([172, 16, 0, 2], [198, 18, 0, 4]);
    let asks = || Frame::new().ipv4(client, server);
    let answers = || Frame::new().ipv4(server, client);
    let syn_ack = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    let mut frames = vec![
        asks().udp(5000, 53).payload(b"a question").build(),
        answers().udp(53, 5000).payload(b"an answer").build(),
        asks().tcp(6000, 443).flags(TcpFlags::SYN).build(),
        answers().tcp(443, 6000).flags(syn_ack).build(),
        asks().tcp(6000, 443).flags(TcpFlags::ACK).payload(b"hello").build(),
        asks().icmp_echo_request(7, 1).build(),
        answers().icmp_echo_reply(7, 1).build(),
    ];
    frames.extend(asks().udp(5001, 53).payload(&[7; 900]).build_fragments(512));
    let quoted = &frames[0][14..];
    frames.push(answers().icmp(3, 3, [0; 4]).payload(quoted).build());
    frames
}

#[test]
fn conversations_of_a_capture_are_translated_both_ways() {
    let summary = replayed("plain", &conversations(), None);
    assert_eq!(summary.failures, Vec::<String>::new());
    let [one, two] = &summary.runs;
    for run in [one, two] {
        assert_eq!(run.balance.unaccounted(), 0);
        // The client's two questions, SYN, segment and echo, and the server's answer as if it were inside.
        assert_eq!(run.counters["sources translated"], 6, "{run:?}");
        assert!(run.counters["hairpin-packets"] > 0, "{run:?}");
        // All comes in as it was, too: the error is about nobody then.
        assert_eq!((run.drops["nat-not-translated"], run.drops["nat-no-mapping"]), (9, 1), "{run:?}");
    }
    assert!(one.handed_over == 0 && two.handed_over > 0);
}

#[test]
fn whatever_is_flipped_nothing_leaks() {
    for seed in 1..6 {
        let summary = replayed("flipped", &conversations(), Some(seed));
        assert!(summary.failures.is_empty() && summary.changed > 0, "{summary:?}");
    }
}
