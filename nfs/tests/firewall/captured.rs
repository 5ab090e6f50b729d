//! A capture file explained, and the same packets on the packet path.

use super::bench::{
    A, A6, ACK, FIN_ACK, OUT, R, RST, SYN, SYN_ACK, X, X6, Y, config, packet, tcp, v4, v6, with_firewall,
};
use nf_framework::testing::Frame;
use nf_framework::{Direction, Function};
use nfs::firewall::{Firewall, InvalidCapture};

/// As tcpdump writes it on a machine of this byte order, with a packet in each second.
pub(crate) fn pcap<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>, big_endian: bool, nanoseconds: bool) -> Vec<u8> {
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
        (out, one(ACK, 900_000, 5000), "drop (firewall-tcp-window), sequence numbers that its sender cannot have now"),
        (out, one(RST, 1042, 0), "drop (firewall-tcp-reset), a reset without the exact number"),
        (out, one(0, 1000, 0), "drop (firewall-tcp-flags), a set of TCP flags that means nothing"),
        (back, other(SYN, 1, 0), "drop (firewall-tcp-state), a segment that its connection cannot have now"),
        (out, one(FIN_ACK, 1000, 5000), "accept, of the connection of #1 (FIN_WAIT)"),
        (
            out,
            tcp(A, X, 4001, 80, ACK).build(),
            "drop (firewall-no-connection), belongs to no connection and begins none",
        ),
        (
            back,
            tcp(Y, A, 80, 4000, SYN).build(),
            "drop (firewall-default), as no rule matches\n    not out: it comes from outside",
        ),
        (out, v4(A, X).udp(5001, 53).build(), "udp 192.168.1.10:5001 > 203.0.113.1:53 from inside: accept, by out"),
        (back, v4(X, A).udp(53, 5001).build(), "accept, of the connection of #12 (ANSWERED)"),
        (back, about(&v4(A, X).udp(5001, 53)), "icmp 203.0.113.200 > 192.168.1.10 from outside: accept, as no rule"),
        (
            back,
            about(&v4(A, X).udp(5002, 53)),
            "drop (firewall-unrelated), an ICMP error about nothing that is known here",
        ),
        (out, parts[0].clone(), "accept, by out"),
        (out, parts[1].clone(), "accept, of the connection of #16 (UNANSWERED)"),
        (back, v6(X6, A6).icmpv6_echo_request(1, 1).build(), "accept, by rfc4890\n    not out: it comes from outside"),
        (out, v6(A6, X6).icmpv6_echo_reply(1, 1).build(), "accept, of the connection of #18 (ANSWERED)"),
        (
            out,
            v6(A6, X6).icmpv6_echo_reply(2, 1).build(),
            "drop (firewall-no-connection), belongs to no connection and begins none",
        ),
        (out, v6(A6, X6).hop_limit(255).icmpv6(135, 0, [0; 4]).payload(&[0; 16]).build(), "accept, as Neighbor Discov"),
        (
            out,
            v6(A6, X6).icmpv6(135, 0, [0; 4]).payload(&[0; 16]).build(),
            "drop (firewall-neighbor-discovery), Neighbor Discovery that has been on another link",
        ),
        (out, Frame::new().arp_request(A, X).build(), "arp: accept, as the configuration has it"),
        (
            out,
            Frame::new().ether_type(0x88cc).payload(&[0; 46]).build(),
            "no IP packet: drop (firewall-ether-type), an Ethernet type that the configuration",
        ),
        (out, broken, "drop (firewall-checksum), a wrong checksum (where"),
        (
            out,
            v4(A, X).ipv4_options(&[131, 3, 4]).udp(1, 2).build(),
            "drop (firewall-source-route), an IPv4 source route",
        ),
        (back, v4([224, 0, 0, 1].into(), A).udp(1, 2).build(), "drop (firewall-address), from or to what is no host"),
        (
            out,
            v4(A, X).udp(1, 2).fragment(8, false).payload(&[0; 8]).build(),
            "drop (firewall-fragment), a fragment of a packet",
        ),
        (out, vec![0; 15], "no IP packet: drop (firewall-ether-type)"),
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
            let explained = policy.explain_capture(&capture[..], &inside).unwrap();
            assert_eq!(explained.len(), scene.len());
            for ((_, _, expected), found) in scene.iter().zip(&explained) {
                let text = found.to_string();
                assert!(text.contains(expected), "{text}\n{expected}");
                let begins = format!("#{0} {1}.000000 ", found.number, found.number - 1);
                assert!(text.starts_with(&begins), "{text}\n{begins}");
            }
            let cut = policy.explain_capture(&capture[..capture.len() - 1], &inside).unwrap();
            assert_eq!(cut[..scene.len() - 1], explained[..scene.len() - 1], "as far as it goes");
            let [.., last] = &cut[..] else { panic!("nothing") };
            let expected = format!(
                "#{} {}.000000 a packet: missing, as the file ends in the middle of it",
                scene.len(),
                scene.len() - 2
            );
            assert_eq!(last.to_string(), expected);
        }
        let capture = pcap(scene.iter().map(|(_, frame, _)| frame), false, false);
        let explained = policy.explain_capture(&capture[..], &inside).unwrap();
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
    let explained = policy.explain_capture(&pcap(frames, false, false)[..], &[]).unwrap();
    assert!(explained.iter().all(|of| of.passes), "answered, it lasts longer");
    let frames = [&question, &arp, &arp, &answer];
    let explained = policy.explain_capture(&pcap(frames, false, false)[..], &[]).unwrap();
    assert_eq!(explained.iter().map(|of| of.passes).collect::<Vec<_>>(), [true, true, true, false]);
}

#[test]
fn what_is_no_capture_is_told_so() {
    let policy = Firewall.policy(config(OUT)).unwrap();
    let mut other = pcap([], false, false);
    other[20] = 105;
    let unreadable = |text: &str| InvalidCapture::Unreadable(text.to_owned());
    // A packet that is sound, and one whose length is not.
    let whole = pcap([&v4(A, X).udp(1, 2).build()], false, false);
    let damaged = [&whole[..], &[0; 8], &[0xff; 8]].concat();
    let place = format!("damaged at byte {}: what begins there cannot have 4294967295 bytes", whole.len());
    for (bytes, expected) in [
        (Vec::new(), unreadable("neither a pcap nor a pcapng file: it is empty")),
        (
            b"\n\r\r\n with more".to_vec(),
            unreadable("damaged at byte 0: the section that begins there does not say in which byte order it is"),
        ),
        (pcap([], true, false)[..23].to_vec(), unreadable("damaged at byte 0: the file ends there, 1 bytes too early")),
        (damaged, unreadable(&place)),
        (other, InvalidCapture::LinkType(105)),
        (pcapng(105, &[&[0; 60]], true), InvalidCapture::LinkType(105)),
    ] {
        assert_eq!(policy.explain_capture(&bytes[..], &[]).unwrap_err(), expected);
    }
    let said = InvalidCapture::LinkType(105).to_string();
    assert!(said.contains("105 is not Ethernet (1), raw IP (101) or Linux cooked (113, 276)"), "{said}");
}

/// As Wireshark writes it, with a packet in each second.
fn pcapng(link_type: u16, packets: &[&[u8]], big_endian: bool) -> Vec<u8> {
    let word = |word: u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
    let half = |half: u16| if big_endian { half.to_be_bytes() } else { half.to_le_bytes() };
    let block = |block_type: u32, body: Vec<u8>| {
        let length = word(u32::try_from(body.len()).unwrap() + 12);
        [&word(block_type)[..], &length, &body, &length].concat()
    };
    let section = [&word(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat();
    // Time stamps count milliseconds.
    let interface = [&half(link_type)[..], &half(0), &word(0), &half(9), &half(1), &[3, 0, 0, 0], &[0; 4]].concat();
    let mut bytes = [block(0x0a0d_0d0a, section), block(1, interface), block(5, vec![0; 12])].concat();
    for (packet, second) in packets.iter().zip(1_000_000_u64..) {
        let length = u32::try_from(packet.len()).unwrap();
        let time = second * 1000;
        let time = [u32::try_from(time >> 32).unwrap(), u32::try_from(time & 0xffff_ffff).unwrap()];
        let mut body = [0, time[0], time[1], length, length].map(word).concat();
        body.extend(*packet);
        body.resize(body.len().next_multiple_of(4), 0);
        bytes.extend(block(6, body));
    }
    bytes
}

#[test]
fn each_format_and_link_type_holds_the_same_packets() {
    let policy = Firewall.policy(config(OUT)).unwrap();
    let question = v4(A, X).udp(5000, 53).payload(&[1]).build();
    let question6 = v6(A6, X6).udp(5000, 53).build();
    let answer = v4(X, A).udp(53, 5000).build();
    let inside = INSIDE.map(|prefix| prefix.parse().unwrap());
    let said = |bytes: &[u8]| {
        policy.explain_capture(bytes, &inside).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let frames = [question, question6, answer];
    let expected = said(&pcap(&frames, false, false));
    assert!(expected[2].starts_with("#3 2.000000 udp ") && expected[2].ends_with("of #1 (ANSWERED)"), "{expected:?}");
    // What a packet begins with in place of an Ethernet header.
    type Header = fn(&[u8]) -> Vec<u8>;
    let headers: [(u16, Header); 4] = [
        (1, |frame| frame[..14].to_vec()),
        (101, |_| Vec::new()),
        (113, |frame| [&[0; 14], &frame[12..14]].concat()),
        (276, |frame| [&frame[12..14], &[0; 18]].concat()),
    ];
    for (link_type, header) in headers {
        let packets: Vec<Vec<u8>> = frames.iter().map(|frame| [&header(frame)[..], &frame[14..]].concat()).collect();
        let slices: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        for big_endian in [false, true] {
            assert_eq!(said(&pcapng(link_type, &slices, big_endian)), expected, "pcapng, {link_type}");
        }
        let mut bytes = pcap(&packets, false, false);
        bytes[20..22].copy_from_slice(&link_type.to_le_bytes());
        assert_eq!(said(&bytes), expected, "pcap, {link_type}");
        // A packet that its link type's header does not fit in.
        let mut short = pcap(&[vec![0x45]], false, false);
        short[20..22].copy_from_slice(&link_type.to_le_bytes());
        assert!(said(&short)[0].contains(" malformed: drop (malformed), a header is cut short"), "{link_type}");
    }
    let whole = pcapng(1, &frames.each_ref().map(Vec::as_slice), false);
    let cut = said(&whole[..whole.len() - 5]);
    assert_eq!(cut[..2], expected[..2]);
    assert!(cut[2].ends_with("a packet: missing, as the file ends in the middle of it"), "{cut:?}");
}

#[test]
fn what_the_capture_has_cut_off_is_judged_by_its_headers() {
    let policy = Firewall.policy(config(OUT)).unwrap();
    let syn = tcp(A, X, 4000, 80, SYN).payload(&[7; 400]).build();
    let udp = v6(A6, X6).udp(5000, 53).payload(&[7; 400]).build();
    let echo = v4(A, X).icmp_echo_request(1, 1).payload(&[7; 400]).build();
    let about =
        v4(X, A).icmp(3, 1, [0; 4]).payload(&packet(&v4(A, X).icmp_echo_request(1, 1).payload(&[7; 400]))).build();
    let accepted = ", cut off by the capture: accept, by out";
    let unknown = " a packet: cut off by the capture before its headers end";
    for (before, frame, kept, expected) in [
        (None, &syn, 54, "tcp 192.168.1.10:4000 > 203.0.113.1:80 from inside, cut off by the capture: accept, by out"),
        (None, &syn, 53, unknown),
        (None, &syn, 10, unknown),
        (None, &udp, 62, accepted),
        (None, &udp, 61, unknown),
        (None, &echo, 42, accepted),
        (Some(&echo), &about, 110, ", cut off by the capture: accept, as no rule matches"),
        (Some(&echo), &about, 60, unknown),
    ] {
        let mut bytes = pcap(before, false, false);
        let one = pcap([frame], false, false);
        let mut record = one[24..40].to_vec();
        record[8..12].copy_from_slice(&u32::try_from(kept).unwrap().to_le_bytes());
        bytes.extend([&record, &frame[..kept]].concat());
        let inside = INSIDE.map(|prefix| prefix.parse().unwrap());
        let explained = policy.explain_capture(&bytes[..], &inside).unwrap();
        let text = explained.last().unwrap().to_string();
        assert!(text.contains(expected), "{kept}: {text}\n{expected}");
    }
}
