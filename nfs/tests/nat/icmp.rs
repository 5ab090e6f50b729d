//! ICMP errors: RFC 4787 sections 8 and 9, RFC 5508 sections 4 and 5.

use super::bench::{
    A, B, Bench, P, R, X, Y, came, dropped, from, from_outside, inside, left, mend_header, outside, packet, with_nat,
};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use std::net::Ipv4Addr;

/// A router inside.
const INNER: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 9);
const FILTERS: [&str; 3] = [
    "",
    "filtering = { udp = \"address-dependent\", tcp = \"address-dependent\" }",
    "filtering = { udp = \"address-and-port-dependent\", tcp = \"address-and-port-dependent\" }",
];

/// An error about the packet in a frame, of which it quotes so many octets.
fn about(frame: Frame, error: (u8, u8), quoted: &Frame, octets: usize) -> Frame {
    let quoted = packet(quoted);
    frame.icmp(error.0, error.1, [0; 4]).payload(&quoted[..octets.min(quoted.len())])
}

/// The errors that come through, and codes that matter.
const ERRORS: [(u8, u8); 13] =
    [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 9), (3, 13), (3, 15), (11, 0), (11, 1), (12, 0), (12, 2), (4, 0)];

#[test]
fn n15_no_error_ends_a_session_or_changes_how_long_it_lasts() {
    with_nat("timeouts.tcp_established = 1000", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        let tcp = nat.connect(A, 5001, (X, 80));
        let opening = left(&nat.out(&from(A, X).tcp(5002, 81).flags(TcpFlags::SYN))).source_port;
        let sent = |source: Ipv4Addr, ports: [u16; 3]| {
            let frame = || Frame::new().ipv4(source, X).dont_fragment();
            [frame().udp(ports[0], 53), frame().tcp(ports[1], 80), frame().tcp(ports[2], 81).flags(TcpFlags::SYN)]
        };
        nat.pass(150);
        for error in ERRORS {
            for (quoted, expected) in sent(P, [udp, tcp, opening]).iter().zip(&sent(A, [5000, 5001, 5002])) {
                let back = nat.back(&about(from_outside(R, P), error, quoted, 100));
                assert_eq!(back.inside, [about(inside(R, A), error, expected, 100).build()], "{error:?}");
            }
        }
        assert_eq!(nat.sessions(), 3);
        // Data passes both ways, where that changes nothing.
        for frame in [from_outside(X, P).udp(53, udp), from_outside(X, P).tcp(80, tcp)] {
            assert_eq!(came(&nat.back(&frame)).destination, A);
        }
        nat.pass(89);
        assert_eq!(nat.sessions(), 3);
        nat.pass(2);
        assert_eq!(nat.sessions(), 2, "the one that opens has gone after 240 s");
        nat.pass(58);
        assert_eq!(nat.sessions(), 2);
        nat.pass(2);
        assert_eq!(nat.sessions(), 1, "that of UDP after 300 s");
        nat.pass(698);
        left(&nat.out(&from(A, X).tcp(5001, 80)));
        nat.pass(999);
        assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, tcp))).destination, A);
    });
}

#[test]
fn n16_an_error_passes_whoever_sent_it() {
    for text in FILTERS {
        with_nat(text, move |nat| {
            let udp = nat.udp_port(A, 5000, (X, 53));
            let sent = |source, port| {
                Frame::new().ipv4(source, X).dont_fragment().time_to_live(7).udp(port, 53).payload(b"question")
            };
            for who in [R, X, Y] {
                let back = nat.back(&about(from_outside(who, P), (11, 0), &sent(P, udp), 100));
                assert_eq!(back.inside, [about(inside(who, A), (11, 0), &sent(A, 5000), 100).build()]);
            }
            // About what was never sent: with a filter that is nobody's.
            for (to, to_port) in [(X, 54), (Y, 53)] {
                let quoted = Frame::new().ipv4(P, to).udp(udp, to_port);
                let back = nat.back(&about(from_outside(R, P), (3, 3), &quoted, 100));
                let passes = text.is_empty();
                assert_eq!(back.inside.len(), usize::from(passes), "{text} {to}:{to_port}");
                if !passes {
                    assert_eq!(dropped(&back), "nat-no-mapping");
                }
            }
        });
    }
}

/// A frame with some of its octets changed.
fn changed(frame: &Frame, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = frame.build();
    change(&mut bytes);
    bytes
}

#[test]
fn n25_wrong_checksums_that_count_are_found() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        let error = about(from_outside(R, P), (3, 1), &Frame::new().ipv4(P, X).udp(udp, 53).payload(b"question"), 100);
        let inner = about(from(A, X), (3, 3), &inside(X, A).udp(53, 5000).payload(b"answer"), 100);
        for (frame, direction) in [(&error, Direction::Inbound), (&inner, Direction::Outbound)] {
            // Of ICMP itself: its checksum, and what that covers, to the last octet.
            for at in [36, 37, 41, 60, frame.build().len() - 1] {
                let wrong = changed(frame, |bytes| bytes[at] ^= 1);
                assert_eq!(dropped(&nat.burst(direction, &[wrong])), "nat-icmp-checksum", "{at}");
            }
            // Of the header that is quoted, with the error's own right again.
            for at in [42 + 1, 42 + 8, 42 + 10, 42 + 19] {
                let mut quoted = frame.build()[42..].to_vec();
                quoted[at - 42] ^= 1;
                let end = if direction == Direction::Inbound { from_outside(R, P) } else { from(A, X) };
                let wrong = end.icmp(3, 1, [0; 4]).payload(&quoted).build();
                assert_eq!(dropped(&nat.burst(direction, &[wrong])), "nat-icmp-checksum", "{at}");
            }
            let right = nat.burst(direction, &[frame.build()]);
            assert_eq!(right.inside.len() + right.outside.len(), 1);
        }
    });
}

#[test]
fn n25_quoted_options_are_stepped_over() {
    with_nat("", |nat| {
        let tcp = left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN))).source_port;
        for options in [&[1; 4][..], &[7, 11, 4, 1, 2, 3, 4, 5, 6, 7, 8, 0], &[1; 40]] {
            let sent = |source: Ipv4Addr, port| {
                Frame::new().ipv4(source, X).ipv4_options(options).tcp(port, 80).flags(TcpFlags::SYN).payload(b"data")
            };
            let back = nat.back(&about(from_outside(R, P), (12, 0), &sent(P, tcp), 200));
            assert_eq!(back.inside, [about(inside(R, A), (12, 0), &sent(A, 5000), 200).build()]);
        }
    });
}

#[test]
fn n25_a_quoted_transport_is_translated_as_far_as_it_is_there() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        let tcp = left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN))).source_port;
        let query = left(&nat.out(&from(A, X).icmp_echo_request(5000, 1))).source_port;
        let sent = |source: Ipv4Addr, udp, tcp, query| {
            let frame = || Frame::new().ipv4(source, X).time_to_live(3);
            [
                frame().udp(udp, 53).payload(b"question"),
                frame().udp(udp, 53).without_udp_checksum().payload(b"question"),
                frame().tcp(tcp, 80).payload(b"request"),
                frame().icmp_echo_request(query, 1).payload(b"ping"),
            ]
        };
        let (outer, inner) = (sent(P, udp, tcp, query), sent(A, 5000, 5000, 5000));
        for (quoted, expected) in outer.iter().zip(&inner) {
            // From the least that RFC 792 asks for, with and without the TCP checksum, to all.
            for octets in [28, 29, 35, 36, 38, 39, 40, 100] {
                let back = nat.back(&about(from_outside(R, P), (3, 3), quoted, octets));
                assert_eq!(back.inside, [about(inside(R, A), (3, 3), expected, octets).build()], "{octets} {quoted:?}");
            }
            // Less than that tells nobody's port.
            for octets in [0, 19, 20, 21, 27] {
                let back = nat.back(&about(from_outside(R, P), (3, 3), quoted, octets));
                assert_eq!(dropped(&back), "nat-no-mapping", "{octets} {quoted:?}");
            }
        }
        // A wrong checksum of the transport is the host's matter: it stays as wrong as it was.
        for (at, frame) in [(26, 0), (36, 2)] {
            let broken = |frame: &Frame| {
                let mut bytes = packet(frame);
                *bytes.last_mut().unwrap() ^= 1;
                assert!(bytes.len() > at + 2);
                bytes
            };
            let back = nat.back(&from_outside(R, P).icmp(3, 3, [0; 4]).payload(&broken(&outer[frame])));
            assert_eq!(back.inside, [inside(R, A).icmp(3, 3, [0; 4]).payload(&broken(&inner[frame])).build()]);
        }
    });
}

#[test]
fn n25_extensions_stay_as_they_are() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        // RFC 4884 section 7: an extension header and an object of MPLS labels, behind 128 octets.
        let extension = [0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0x01];
        let sent = |source, port| packet(&Frame::new().ipv4(source, X).udp(port, 53).payload(b"question"));
        for (kind, rest) in [(3, [0, 32, 0, 0]), (11, [0, 32, 0, 0]), (3, [0, 32, 5, 0])] {
            let message = |mut quoted: Vec<u8>| {
                quoted.resize(128, 0);
                [&quoted[..], &extension].concat()
            };
            let error = |frame: Frame, quoted| frame.icmp(kind, 0, rest).payload(&message(quoted));
            let back = nat.back(&error(from_outside(R, P), sent(P, udp)));
            assert_eq!(back.inside, [error(inside(R, A), sent(A, 5000)).build()], "{kind}");
        }
    });
}

#[test]
fn n26_an_error_without_a_mapping_is_dropped() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        let frame = |source, to| Frame::new().ipv4(source, to).time_to_live(9);
        for (what, quoted) in [
            ("another port", frame(P, X).udp(udp ^ 1, 53)),
            ("another protocol", frame(P, X).tcp(udp, 53)),
            ("a query that nobody sent", frame(P, X).icmp_echo_request(udp, 1)),
            ("another address", frame(Ipv4Addr::new(198, 51, 100, 101), X).udp(udp, 53)),
            ("a later fragment", frame(P, X).udp(udp, 53).fragment(8, false).payload(&[0; 16])),
            ("a protocol without ports", frame(P, X).protocol(47).payload(&[0; 20])),
            ("an error about an error", frame(P, X).icmp(3, 3, [0; 4]).payload(&packet(&frame(X, P).udp(53, udp)))),
            ("IPv6", Frame::new().ipv6([1; 8], [2; 8]).udp(udp, 53)),
        ] {
            let back = nat.back(&about(from_outside(R, P), (3, 3), &quoted, 100));
            assert_eq!(dropped(&back), "nat-no-mapping", "{what}");
        }
        for (what, quoted) in [
            ("a port without a mapping", frame(X, A).udp(53, 5001)),
            ("another protocol", frame(X, A).tcp(53, 5000)),
            ("another host", frame(X, B).udp(53, 5000)),
            ("a later fragment", frame(X, A).udp(53, 5000).fragment(8, false).payload(&[0; 16])),
        ] {
            let out = nat.out(&about(from(A, X), (3, 3), &quoted, 100));
            assert_eq!(dropped(&out), "nat-no-mapping", "{what}");
        }
        assert_eq!(nat.sessions(), 1);
    });
}

#[test]
fn n26_an_error_from_inside_has_the_mapped_address_whoever_sent_it() {
    for text in FILTERS {
        with_nat(text, move |nat| {
            let udp = nat.udp_port(A, 5000, (X, 53));
            let tcp = left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN))).source_port;
            let query = left(&nat.out(&from(A, X).icmp_echo_request(5000, 1))).source_port;
            let got = |to: Ipv4Addr, udp, tcp, query| {
                let frame = || Frame::new().ipv4(X, to).dont_fragment().time_to_live(5);
                [frame().udp(53, udp).payload(b"answer"), frame().tcp(80, tcp), frame().icmp_echo_reply(query, 1)]
            };
            for (quoted, expected) in got(A, 5000, 5000, 5000).iter().zip(&got(P, udp, tcp, query)) {
                for error in ERRORS {
                    for who in [A, INNER] {
                        let out = nat.out(&about(from(who, X), error, quoted, 100));
                        assert_eq!(out.outside, [about(outside(P, X), error, expected, 100).build()], "{error:?}");
                    }
                }
            }
            // About a packet that no filter would have let in, unless there is none.
            let out = nat.out(&about(from(A, Y), (3, 3), &Frame::new().ipv4(Y, A).udp(53, 5000), 100));
            if text.is_empty() {
                let expected = Frame::new().ipv4(Y, P).udp(53, udp);
                assert_eq!(out.outside, [about(outside(P, Y), (3, 3), &expected, 100).build()]);
            } else {
                assert_eq!(dropped(&out), "nat-no-mapping", "{text}");
            }
        });
    }
}

#[test]
fn n26_errors_about_hosts_with_addresses_and_ports_of_their_own_keep_them() {
    const TEXT: &str = r#"
one_to_one = [{ inside = "192.168.1.20", outside = "198.51.100.110" }, { inside = "192.168.9.9", outside = "198.51.100.119" }]
forward = [{ protocol = "tcp", outside = "198.51.100.100", ports = "80", to = ["192.168.1.10:8080"] }]"#;
    const OF_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 110);
    const OF_INNER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 119);
    with_nat(TEXT, |nat| {
        let between = |source, to| Frame::new().ipv4(source, to).time_to_live(9);
        // One to one: any protocol, and what has no ports too.
        for kind in [
            |frame: Frame| frame.udp(7, 53).payload(b"question"),
            |frame: Frame| frame.tcp(7, 53),
            |frame: Frame| frame.protocol(47).payload(&[9; 30]),
            |frame: Frame| frame.udp(7, 53).fragment(8, false).payload(&[0; 16]),
        ] {
            let back = nat.back(&about(from_outside(R, OF_B), (11, 0), &kind(between(OF_B, X)), 100));
            assert_eq!(back.inside, [about(inside(R, B), (11, 0), &kind(between(B, X)), 100).build()]);
            for (who, as_who) in [(B, OF_B), (A, OF_B), (INNER, OF_INNER)] {
                let out = nat.out(&about(from(who, X), (3, 1), &kind(between(X, B)), 100));
                assert_eq!(out.outside, [about(outside(as_who, X), (3, 1), &kind(between(X, OF_B)), 100).build()]);
            }
        }
        // A forward.
        let quoted = between(P, X).tcp(80, 999);
        let back = nat.back(&about(from_outside(R, P), (3, 4), &quoted, 100));
        assert_eq!(back.inside, [about(inside(R, A), (3, 4), &between(A, X).tcp(8080, 999), 100).build()]);
        let out = nat.out(&about(from(A, X), (3, 3), &between(X, A).tcp(999, 8080), 100));
        assert_eq!(out.outside, [about(outside(P, X), (3, 3), &between(X, P).tcp(999, 80), 100).build()]);
    });
}

#[test]
fn n34_errors_about_what_goes_untranslated_go_untranslated() {
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    with_nat("exclude = [\"10.0.0.0/8\"]", |nat| {
        let between = |source, to| Frame::new().ipv4(source, to).udp(5000, 53).payload(b"question");
        // Path MTU discovery, by a router that is not among them.
        for who in [FAR, R] {
            let back = nat.back(&about(from_outside(who, A), (3, 4), &between(A, FAR), 100));
            assert_eq!(back.inside, [about(inside(who, A), (3, 4), &between(A, FAR), 100).build()]);
        }
        for who in [A, INNER] {
            let out = nat.out(&about(from(who, FAR), (3, 4), &between(FAR, A), 100));
            assert_eq!(out.outside, [about(outside(who, FAR), (3, 4), &between(FAR, A), 100).build()]);
        }
        // Not to a host that did not send it, and not of those that are translated.
        for (to, quoted) in [(B, between(A, FAR)), (A, between(A, X)), (P, between(P, FAR))] {
            assert_eq!(dropped(&nat.back(&about(from_outside(R, to), (3, 4), &quoted, 100))), "nat-no-mapping");
        }
        for (to, quoted) in [(FAR, between(X, A)), (X, between(FAR, A)), (X, between(X, A))] {
            assert_eq!(dropped(&nat.out(&about(from(A, to), (3, 4), &quoted, 100))), "nat-no-mapping");
        }
        // What the same port is towards others does not matter.
        nat.udp_port(A, 53, (X, 53));
        let out = nat.out(&about(from(A, FAR), (3, 4), &between(FAR, A), 100));
        assert_eq!(out.outside, [about(outside(A, FAR), (3, 4), &between(FAR, A), 100).build()]);
    });
}

#[test]
fn n27_an_error_about_a_query_neither_prolongs_nor_ends_it() {
    with_nat("", |nat| {
        let identifier = left(&nat.out(&from(A, X).icmp_echo_request(77, 1))).source_port;
        nat.pass(30);
        let sent = |source, identifier| Frame::new().ipv4(source, X).icmp_echo_request(identifier, 1).payload(b"ping");
        for error in ERRORS {
            let back = nat.back(&about(from_outside(R, P), error, &sent(P, identifier), 100));
            assert_eq!(back.inside, [about(inside(R, A), error, &sent(A, 77), 100).build()], "{error:?}");
        }
        nat.pass(29);
        let reply = from_outside(X, P).icmp_echo_reply(identifier, 1);
        assert_eq!(nat.back(&reply).inside, [inside(X, A).icmp_echo_reply(77, 1).build()]);
        nat.pass(2);
        assert_eq!(dropped(&nat.back(&reply)), "nat-no-mapping");
        assert_eq!(dropped(&nat.back(&about(from_outside(R, P), (3, 3), &sent(P, identifier), 100))), "nat-no-mapping");
    });
}

#[test]
fn redirects_and_fragments_of_errors_do_not_pass() {
    with_nat("", |nat: &mut Bench| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        let (sent, got) =
            (Frame::new().ipv4(P, X).udp(udp, 53).payload(&[1; 100]), Frame::new().ipv4(X, A).udp(53, 5000));
        assert_eq!(dropped(&nat.back(&about(from_outside(R, P), (5, 1), &sent, 100))), "nat-protocol");
        assert_eq!(dropped(&nat.out(&about(from(A, X), (5, 1), &got, 100))), "nat-protocol");
        // A router's error is whole, and where it is not its checksum cannot be verified.
        let error = about(
            Frame::new().ethernet(super::bench::NEXT.0, nf_framework::testing::Trial::OUTSIDE_MAC.0).ipv4(R, P),
            (3, 3),
            &sent,
            128,
        );
        let back = nat.burst(Direction::Inbound, &error.build_fragments(64));
        assert_eq!(back.dropped.get("nat-icmp-fragment"), Some(&3), "{back:?}");
        let error = about(
            Frame::new().ethernet(super::bench::mac(A).0, nf_framework::testing::Trial::INSIDE_MAC.0).ipv4(A, X),
            (3, 3),
            &got.payload(&[1; 50]),
            128,
        );
        let out = nat.burst(Direction::Outbound, &error.build_fragments(48));
        assert_eq!(out.dropped.get("nat-icmp-fragment"), Some(&2), "{out:?}");
    });
}

#[test]
fn a_quotation_that_does_not_fit_its_options_is_dropped() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        // The header says 60 octets, and 28 are there.
        let mut quoted = packet(&Frame::new().ipv4(P, X).udp(udp, 53));
        quoted[0] = 0x4f;
        mend_header(&mut quoted[..20]);
        let back = nat.back(&from_outside(R, P).icmp(3, 3, [0; 4]).payload(&quoted));
        assert_eq!(dropped(&back), "nat-no-mapping");
    });
}
