//! A capture file explained, and the same packets on the packet path.

use super::bench::{
    A, A6, ACK, FIN_ACK, OUT, R, RST, SYN, SYN_ACK, X, X6, Y, config, packet, tcp, v4, v6, with_firewall,
};
use nf_framework::testing::Frame;
use nf_framework::{Direction, Function};
use nfs::firewall::{Firewall, InvalidCapture};

/// As tcpdump writes it on a machine of this byte order, with a packet in each second.
fn pcap<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>, big_endian: bool, nanoseconds: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |word: u32| bytes.extend(if big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
    // Magic number, version 2.4, zone and accuracy, longest, Ethernet.
    let version = if big_endian { 0x0002_0004 } else { 0x0004_0002 };
    [if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }, version, 0, 0, 0xffff, 1].into_iter().for_each(&mut put);
    for (frame, second) in frames.into_iter().zip(1000..) {
        let length = u32::try_from(frame.len()).unwrap();
        let half = if nanoseconds { 500_000_000 } else { 500_000 };
        let mut header = Vec::new();
        for word in [second, half, length, length] {
            header.extend(if big_endian { word.to_be_bytes() } else { u32::to_le_bytes(word) });
        }
        bytes.extend(header);
        bytes.extend(frame);
    }
    bytes
}

/// Frames, each from its side, and what is said of them.
fn scene() -> Vec<(Direction, Vec<u8>, &'static str)> {
    let (out, back) = (Direction::Outbound, Direction::Inbound);
    let one = |flags, sequence, acknowledgment| {
        tcp(A, X, 4000, 80, flags).sequence_number(sequence).acknowledgment_number(acknowledgment).build()
    };
    let other = |flags, sequence, acknowledgment| {
        tcp(X, A, 80, 4000, flags).sequence_number(sequence).acknowledgment_number(acknowledgment).build()
    };
    let mut broken = v4(A, X).udp(1, 2).build();
    *broken.last_mut().unwrap() ^= 1;
    let about = |frame: &Frame| v4(R, A).icmp(3, 1, [0; 4]).payload(&packet(frame)).build();
    let parts = v4(A, X).udp(5000, 53).payload(&[1; 40]).identification(5).build_fragments(32);
    vec![
        (out, one(SYN, 999, 0), "tcp 192.168.1.10:4000 > 203.0.113.1:80 from inside: accept, by out"),
        (back, other(SYN_ACK, 4999, 1000), "accept, of the connection of #1 (SYN_RECV)"),
        (out, one(ACK, 1000, 5000), "accept, of the connection of #1 (ESTABLISHED)"),
        (back, other(ACK, 5000, 1000), "accept, of the connection of #1 (ESTABLISHED)"),
        (out, one(ACK, 900_000, 5000), "drop, its sender cannot have these sequence numbers now"),
        (out, one(RST, 1042, 0), "drop, it is a reset without the exact number"),
        (out, one(0, 1000, 0), "drop, its set of TCP flags means nothing"),
        (back, other(SYN, 1, 0), "drop, its connection cannot have such a segment now"),
        (out, one(FIN_ACK, 1000, 5000), "accept, of the connection of #1 (FIN_WAIT)"),
        (out, tcp(A, X, 4001, 80, ACK).build(), "drop, it belongs to no connection and begins none"),
        (back, tcp(Y, A, 80, 4000, SYN).build(), "drop, as no rule matches\n    not out: it comes from outside"),
        (out, v4(A, X).udp(5001, 53).build(), "udp 192.168.1.10:5001 > 203.0.113.1:53 from inside: accept, by out"),
        (back, v4(X, A).udp(53, 5001).build(), "accept, of the connection of #12 (ANSWERED)"),
        (back, about(&v4(A, X).udp(5001, 53)), "icmp 203.0.113.200 > 192.168.1.10 from outside: accept, as no rule"),
        (back, about(&v4(A, X).udp(5002, 53)), "drop, an ICMP error about nothing that is known here"),
        (out, parts[0].clone(), "accept, by out"),
        (out, parts[1].clone(), "accept, of the connection of #16 (UNANSWERED)"),
        (back, v6(X6, A6).icmpv6_echo_request(1, 1).build(), "accept, by rfc4890\n    not out: it comes from outside"),
        (out, v6(A6, X6).icmpv6_echo_reply(1, 1).build(), "accept, of the connection of #18 (ANSWERED)"),
        (out, v6(A6, X6).icmpv6_echo_reply(2, 1).build(), "drop, it belongs to no connection and begins none"),
        (out, v6(A6, X6).hop_limit(255).icmpv6(135, 0, [0; 4]).payload(&[0; 16]).build(), "accept, as Neighbor Discov"),
        (out, v6(A6, X6).icmpv6(135, 0, [0; 4]).payload(&[0; 16]).build(), "drop, it has been on another link"),
        (out, Frame::new().arp_request(A, X).build(), "arp: accept, as the configuration has it for ARP"),
        (
            out,
            Frame::new().ether_type(0x88cc).payload(&[0; 46]).build(),
            "no IP packet: drop, as the configuration has",
        ),
        (out, broken, "drop, a checksum is wrong"),
        (out, v4(A, X).ipv4_options(&[131, 3, 4]).udp(1, 2).build(), "drop, it has a source route"),
        (back, v4([224, 0, 0, 1].into(), A).udp(1, 2).build(), "drop, it is from or to what is no host"),
        (out, v4(A, X).udp(1, 2).fragment(8, false).payload(&[0; 8]).build(), "drop, its first one was not seen"),
        (out, vec![0; 15], "no IP packet: drop"),
    ]
}

/// Documentation addresses are inside as well as private ones, of IPv6 those of one network.
const INSIDE: [&str; 2] = ["192.168.0.0/16", "2001:db8:1::/48"];

#[test]
fn each_packet_of_a_capture_is_explained_as_it_is_judged() {
    with_firewall(OUT, |bench| {
        let scene = scene();
        let policy = Firewall.policy(config(OUT)).unwrap();
        let inside = INSIDE.map(|prefix| prefix.parse().unwrap());
        for (big_endian, nanoseconds) in [(false, false), (true, false), (false, true), (true, true)] {
            let capture = pcap(scene.iter().map(|(_, frame, _)| frame), big_endian, nanoseconds);
            let explained = policy.explain_capture(&capture, &inside).unwrap();
            assert_eq!(explained.len(), scene.len());
            for ((_, _, expected), found) in scene.iter().zip(&explained) {
                let text = found.to_string();
                assert!(text.contains(expected), "{text}\n{expected}");
                let begins = format!("#{0} {1}.000000 ", found.number, found.number - 1);
                assert!(text.starts_with(&begins), "{text}\n{begins}");
            }
            let cut = policy.explain_capture(&capture[..capture.len() - 1], &inside).unwrap();
            assert_eq!(cut[..], explained[..scene.len() - 1], "as far as it goes");
        }
        let capture = pcap(scene.iter().map(|(_, frame, _)| frame), false, false);
        let explained = policy.explain_capture(&capture, &inside).unwrap();
        for ((direction, frame, _), explained) in scene.into_iter().zip(explained) {
            let held = frame.get(20..22) == Some(&[0, 1]) && frame[12..14] == [8, 0];
            let outcome = bench.send(direction, &[frame]);
            let passed = outcome.inside.len() + outcome.outside.len() == 1;
            // A later fragment alone waits for its first one.
            assert!(held || passed == explained.passes, "{explained}\n{outcome:?}");
        }
    });
}

#[test]
fn private_addresses_are_inside_unless_told_otherwise_and_time_ends_connections() {
    let policy = Firewall.policy(config(&format!("timeouts = {{ udp = 3 }}\n{OUT}"))).unwrap();
    let question = v4(A, X).udp(5000, 53).build();
    let answer = v4(X, A).udp(53, 5000).build();
    let arp = Frame::new().arp_request(A, X).build();
    let frames = [&question, &answer, &question, &arp, &arp, &answer];
    let explained = policy.explain_capture(&pcap(frames, false, false), &[]).unwrap();
    assert!(explained.iter().all(|of| of.passes), "answered, it lasts longer");
    let frames = [&question, &arp, &arp, &answer];
    let explained = policy.explain_capture(&pcap(frames, false, false), &[]).unwrap();
    assert_eq!(explained.iter().map(|of| of.passes).collect::<Vec<_>>(), [true, true, true, false]);
}

#[test]
fn what_is_no_capture_is_told_so() {
    let policy = Firewall.policy(config(OUT)).unwrap();
    let mut other = pcap([], false, false);
    other[20] = 113;
    for (bytes, expected) in [
        (Vec::new(), InvalidCapture::Format),
        (b"\n\r\r\n with more".to_vec(), InvalidCapture::Format),
        (pcap([], true, false)[..23].to_vec(), InvalidCapture::Format),
        (other, InvalidCapture::LinkType(113)),
    ] {
        assert_eq!(policy.explain_capture(&bytes, &[]).unwrap_err(), expected);
    }
}
