//! A capture, made here, through our functions as `scripts/replay-corpus` replays it.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/replay-corpus-load-balancer/balanced.rs"]
mod balanced;
#[path = "../examples/replay-corpus-firewall/guarded.rs"]
mod guarded;
#[path = "../examples/replay-corpus-nat/natted.rs"]
mod natted;
#[path = "../examples/replay-corpus-nat/readdress.rs"]
mod readdress;
#[path = "../../nf-framework/examples/replay-corpus/replay.rs"]
mod replay;

use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use replay::{Options, Subject, Summary};

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

const CLIENT: [u8; 4] = [172, 16, 0, 2];
const SERVER: [u8; 4] = [198, 18, 0, 4];
const NAT: fn() -> Box<dyn Subject> = || Box::new(natted::Natted::new());
const LOAD_BALANCER: fn() -> Box<dyn Subject> = || Box::new(balanced::Balanced::new());
const FIREWALL: fn() -> Box<dyn Subject> = || Box::new(guarded::Guarded::new());

fn replayed(name: &str, frames: &[Vec<u8>], flip: Option<u64>, subject: fn() -> Box<dyn Subject>) -> Summary {
    let path = std::env::temp_dir().join(format!("replay-{name}-{}.pcap", std::process::id()));
    std::fs::write(&path, capture_of(frames)).unwrap();
    let summary = replay::replay(&path, &Options { flip, subject });
    std::fs::remove_file(path).unwrap();
    summary.unwrap()
}

/// A conversation of each kind, a datagram in fragments, and an error about what a host sent.
fn conversations(client: [u8; 4], server: [u8; 4]) -> Vec<Vec<u8>> {
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
    let summary = replayed("nat", &conversations(CLIENT, SERVER), None, NAT);
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

/// The same in IPv6, between hosts whose addresses end with these numbers.
fn conversations_v6(client: u16, server: u16) -> Vec<Vec<u8>> {
    let host = |number| std::net::Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, number);
    let asks = || Frame::new().ipv6(host(client), host(server));
    let answers = || Frame::new().ipv6(host(server), host(client));
    let syn_ack = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    vec![
        asks().udp(5000, 53).payload(b"a question").build(),
        answers().udp(53, 5000).payload(b"an answer").build(),
        asks().tcp(6000, 443).flags(TcpFlags::SYN).build(),
        answers().tcp(443, 6000).flags(syn_ack).build(),
        asks().tcp(6000, 443).flags(TcpFlags::ACK).payload(b"hello").build(),
    ]
}

#[test]
fn conversations_of_a_capture_come_to_backends_and_back_by_every_mode() {
    // The last part of an address says which service a host stands for.
    let of = |number: u8| {
        let v4 = conversations([172, 16, 0, 240], [198, 18, 0, number]);
        v4.into_iter().chain(conversations_v6(240, number.into()))
    };
    let frames: Vec<_> = (0..12).flat_map(of).collect();
    let summary = replayed("load-balancer", &frames, None, LOAD_BALANCER);
    assert_eq!(summary.failures, Vec::<String>::new());
    for run in &summary.runs {
        let count = |name: &str| run.counters[name];
        assert_eq!(run.balance.unaccounted(), 0);
        // Of each family a UDP and a TCP one at least, by the modes that translate and by the others.
        assert!(count("connections-begun") > 12 * 4 && count("connections translated") > 3 * 4, "{run:?}");
        assert!(count("answers translated") > 3 * 4, "{run:?}");
        // One for each service of a port, or of a protocol.
        assert!(run.drops["lb-no-service"] > 0 && run.drops["lb-icmp"] > 0, "{run:?}");
    }
    assert!(summary.runs[1].handed_over > 0);
}

#[test]
fn conversations_of_a_capture_pass_a_firewall_from_inside_and_not_from_outside() {
    let frames: Vec<_> = conversations(CLIENT, SERVER).into_iter().chain(conversations_v6(2, 4)).collect();
    let summary = replayed("firewall", &frames, None, FIREWALL);
    assert_eq!(summary.failures, Vec::<String>::new());
    for run in &summary.runs {
        // A question and a connection in each family, and an echo.
        assert!(run.counters["connections-accepted"] >= 5, "{run:?}");
        assert!(run.drops["firewall-denied"] > 0 && run.counters["rejections-sent"] > 0, "{run:?}");
    }
    assert!(summary.runs[1].handed_over > 0);
}

#[test]
fn whatever_is_flipped_nothing_leaks() {
    let frames: Vec<_> = conversations(CLIENT, SERVER).into_iter().chain(conversations_v6(2, 4)).collect();
    for seed in 1..4 {
        for (name, subject) in [("nat", NAT), ("load-balancer", LOAD_BALANCER), ("firewall", FIREWALL)] {
            let summary = replayed(&format!("flipped-{name}"), &frames, Some(seed), subject);
            assert!(summary.failures.is_empty() && summary.changed > 0, "{summary:?}");
        }
    }
}
