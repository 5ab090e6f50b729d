//! Connections: RFC 5382 sections 4.2 and 4.3.

use super::bench::{
    A, Bench, P, SYN_ACK, X, Y, came, dropped, from, from_outside, inside, left, outside, packet, with_nat,
};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::{Frame, Outcome};
use std::net::Ipv4Addr;

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const RST: TcpFlags = TcpFlags::RST;
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
const DATA: TcpFlags = TcpFlags(TcpFlags::PSH.0 | TcpFlags::ACK.0);

#[test]
fn n19_every_valid_sequence_of_segments_passes() {
    // True: from inside.
    let sequences: [(&str, &[(bool, TcpFlags)]); 9] = [
        (
            "opened and closed from inside",
            &[
                (true, SYN),
                (false, SYN_ACK),
                (true, ACK),
                (true, DATA),
                (false, DATA),
                (true, FIN),
                (false, ACK),
                (false, FIN),
                (true, ACK),
            ],
        ),
        (
            "closed from outside",
            &[
                (true, SYN),
                (false, SYN_ACK),
                (true, ACK),
                (false, FIN),
                (true, ACK),
                (true, DATA),
                (false, ACK),
                (true, FIN),
                (false, ACK),
            ],
        ),
        (
            "closed at once by both",
            &[(true, SYN), (false, SYN_ACK), (true, ACK), (true, FIN), (false, FIN), (true, ACK), (false, ACK)],
        ),
        (
            "opened at once by both",
            &[
                (true, SYN),
                (false, SYN),
                (true, SYN_ACK),
                (false, SYN_ACK),
                (true, ACK),
                (false, ACK),
                (true, DATA),
                (false, DATA),
            ],
        ),
        (
            "opened at once by both, answered by acknowledgments",
            &[(true, SYN), (false, SYN), (true, ACK), (false, ACK), (true, DATA)],
        ),
        (
            "with segments sent again",
            &[
                (true, SYN),
                (true, SYN),
                (false, SYN_ACK),
                (false, SYN_ACK),
                (true, ACK),
                (true, ACK),
                (true, DATA),
                (true, DATA),
            ],
        ),
        ("refused", &[(true, SYN), (false, RST)]),
        (
            "reset and opened again",
            &[(true, SYN), (false, SYN_ACK), (true, RST), (true, SYN), (false, SYN_ACK), (true, ACK)],
        ),
        (
            "closed and opened again",
            &[
                (true, SYN),
                (false, SYN_ACK),
                (true, FIN),
                (false, FIN),
                (true, ACK),
                (true, SYN),
                (false, SYN_ACK),
                (true, DATA),
            ],
        ),
    ];
    const FILTERED: &str = "filtering.tcp = \"address-and-port-dependent\"";
    for text in ["", FILTERED] {
        with_nat(text, move |nat| {
            for ((what, segments), client) in sequences.into_iter().zip(5000..) {
                let mut external = None;
                for ((is_out, flags), number) in segments.iter().zip(1000..) {
                    let segment = |frame: Frame, ports: (u16, u16)| {
                        frame
                            .tcp(ports.0, ports.1)
                            .flags(*flags)
                            .sequence_number(number)
                            .acknowledgment_number(!number)
                            .window(77)
                    };
                    if *is_out {
                        let out = nat.out(&segment(from(A, X), (client, 80)));
                        let port = *external.get_or_insert_with(|| left(&out).source_port);
                        assert_eq!(out.outside, [segment(outside(P, X), (port, 80)).build()], "{what}: {number}");
                    } else {
                        let port = external.unwrap();
                        let back = nat.back(&segment(from_outside(X, P), (80, port)));
                        assert_eq!(back.inside, [segment(inside(X, A), (80, client)).build()], "{what}: {number}");
                    }
                }
            }
        });
    }
}

#[test]
fn n19_a_connection_opened_by_both_is_an_established_one() {
    with_nat("filtering.tcp = \"address-and-port-dependent\"", |nat| {
        let port = left(&nat.out(&from(A, X).tcp(5000, 80).flags(SYN))).source_port;
        assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, port).flags(SYN))).destination, A);
        left(&nat.out(&from(A, X).tcp(5000, 80).flags(SYN_ACK)));
        came(&nat.back(&from_outside(X, P).tcp(80, port).flags(SYN_ACK)));
        nat.pass(7439);
        assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, port))).destination, A);
    });
}

#[test]
fn segments_that_begin_nothing_begin_nothing() {
    with_nat("", |nat| {
        for flags in [
            ACK,
            SYN_ACK,
            FIN,
            RST,
            DATA,
            TcpFlags(0),
            TcpFlags(SYN.0 | TcpFlags::FIN.0),
            TcpFlags(SYN.0 | RST.0),
            TcpFlags(0xff),
        ] {
            let out = nat.out(&from(A, X).tcp(5000, 80).flags(flags));
            assert_eq!(dropped(&out), "nat-no-session", "{flags:?}");
            // Nobody is told: it may be a connection from before a restart.
            assert!(out.inside.is_empty());
        }
        assert_eq!(nat.sessions(), 0);
        let congestion = TcpFlags(SYN.0 | TcpFlags::ECE.0 | TcpFlags::CWR.0);
        left(&nat.out(&from(A, X).tcp(5000, 80).flags(congestion)));
        assert_eq!(nat.sessions(), 1);
    });
}

/// What an outside host is told of a SYN of its own.
fn refusal(who: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    // As it was sent, with its hops.
    let about = packet(&from_outside(who, P).tcp(ports.0, ports.1).flags(SYN));
    outside(P, who).traffic_class(0xc0).time_to_live(64).icmp(3, 3, [0; 4]).payload(&about).build()
}

fn nothing(outcome: &Outcome) {
    assert_eq!(*outcome, Outcome::default());
}

#[test]
fn n20_an_unsolicited_syn_is_answered_after_six_seconds() {
    with_nat("", |nat| {
        let held = nat.back(&from_outside(X, P).tcp(80, 4000).flags(SYN));
        assert_eq!(held, Outcome { held: 1, ..Outcome::default() });
        nothing(&nat.pass(5));
        let told = nat.pass(1);
        assert_eq!(told.outside, [refusal(X, (80, 4000))]);
        assert_eq!((dropped(&told), told.held, told.inside.len()), ("nat-unsolicited-syn", -1, 0));
        nothing(&nat.pass(60));
        // What is no first SYN is not held.
        for flags in [ACK, SYN_ACK, RST, FIN] {
            let back = nat.back(&from_outside(X, P).tcp(80, 4000).flags(flags));
            assert_eq!((dropped(&back), back.held), ("nat-no-mapping", 0), "{flags:?}");
        }
        assert_eq!(dropped(&nat.back(&from_outside(X, P).udp(80, 4000))), "nat-no-mapping");
    });
}

#[test]
fn n20_a_syn_of_the_inside_host_takes_its_place() {
    with_nat("filtering.tcp = \"address-and-port-dependent\"", |nat| {
        let port = nat.connect(A, 5000, (Y, 443));
        // X begins too early, and so does a stranger.
        for (who, its_port) in [(X, 80), (X, 81)] {
            let held = nat.back(&from_outside(who, P).tcp(its_port, port).flags(SYN));
            assert_eq!(held, Outcome { held: 1, ..Outcome::default() });
        }
        nothing(&nat.pass(5));
        let out = nat.out(&from(A, X).tcp(5000, 80).flags(SYN));
        assert_eq!(left(&out).source_port, port);
        assert_eq!((dropped(&out), out.held), ("nat-unsolicited-syn", -1));
        // Now both open it at once: nobody was told anything, and only the stranger is.
        let told = nat.pass(1);
        assert_eq!(told.outside, [refusal(X, (81, port))]);
        let again = nat.back(&from_outside(X, P).tcp(80, port).flags(SYN));
        assert_eq!(again.inside, [inside(X, A).tcp(80, 5000).flags(SYN).build()]);
        nothing(&nat.pass(60));
    });
}

#[test]
fn n20_so_many_are_held_and_no_more() {
    with_nat("", |nat| {
        let syns: Vec<_> = (0..66).map(|port| from_outside(X, P).tcp(1000 + port, 4000).flags(SYN).build()).collect();
        let held = nat.burst(Direction::Inbound, &syns[..64]);
        assert_eq!(held, Outcome { held: 64, ..Outcome::default() });
        for syn in &syns[64..] {
            let more = nat.burst(Direction::Inbound, std::slice::from_ref(syn));
            assert_eq!((dropped(&more), more.held), ("nat-no-mapping", 0));
        }
        let told = nat.pass(6);
        assert_eq!((told.outside.len(), told.held), (64, -64));
        assert_eq!(told.dropped["nat-unsolicited-syn"], 64);
        assert_eq!(nat.back(&from_outside(X, P).tcp(80, 4000).flags(SYN)).held, 1);
    });
}

#[test]
fn n20_or_nobody_is_told_anything() {
    const TEXT: &str = "unsolicited_syn = \"silent\"\nfiltering.tcp = \"address-dependent\"";
    with_nat(TEXT, |nat| {
        let port = nat.connect(A, 5000, (Y, 443));
        for (to, reason) in [(port, "nat-filtered"), (port ^ 1, "nat-no-mapping")] {
            let back = nat.back(&from_outside(X, P).tcp(80, to).flags(SYN));
            assert_eq!((dropped(&back), back.held), (reason, 0));
        }
        nothing(&nat.pass(7));
    });
}

/// A SYN with options that are up to a whole word.
fn with_options(frame: Frame, ports: (u16, u16), flags: TcpFlags, options: &[u8]) -> Frame {
    frame.tcp(ports.0, ports.1).flags(flags).tcp_options(options)
}

#[test]
fn the_maximum_segment_size_comes_down_where_it_is_offered() {
    // Options before and after, at even and odd places.
    let cases: [(&[u8], &[u8]); 8] = [
        (&[2, 4, 0x05, 0xb4], &[2, 4, 0x05, 0x00]),
        (&[2, 4, 0x05, 0x01], &[2, 4, 0x05, 0x00]),
        (&[2, 4, 0x05, 0x00], &[2, 4, 0x05, 0x00]),
        (&[2, 4, 0x02, 0x18], &[2, 4, 0x02, 0x18]),
        (&[1, 2, 4, 0x23, 0x00, 3, 3, 7], &[1, 2, 4, 0x05, 0x00, 3, 3, 7]),
        (&[3, 3, 7, 2, 4, 0xff, 0xff, 0], &[3, 3, 7, 2, 4, 0x05, 0x00, 0]),
        (&[4, 2, 2, 4, 0x05, 0xb4, 1, 1], &[4, 2, 2, 4, 0x05, 0x00, 1, 1]),
        (&[0, 2, 4, 0xff], &[0, 2, 4, 0xff]),
    ];
    with_nat("mss = 1280", move |nat| {
        for ((before, after), client) in cases.into_iter().zip(5000..) {
            let out = nat.out(&with_options(from(A, X), (client, 80), SYN, before));
            let port = left(&out).source_port;
            assert_eq!(out.outside, [with_options(outside(P, X), (port, 80), SYN, after).build()], "{before:?}");
            let back = nat.back(&with_options(from_outside(X, P), (80, port), SYN_ACK, before));
            assert_eq!(back.inside, [with_options(inside(X, A), (80, client), SYN_ACK, after).build()], "{before:?}");
            // Only a SYN offers one.
            let data = nat.out(&with_options(from(A, X), (client, 80), ACK, before));
            assert_eq!(data.outside, [with_options(outside(P, X), (port, 80), ACK, before).build()], "{before:?}");
        }
    });
    with_nat("", move |nat| {
        let (before, _) = cases[0];
        let out = nat.out(&with_options(from(A, X), (5000, 80), SYN, before));
        let port = left(&out).source_port;
        assert_eq!(out.outside, [with_options(outside(P, X), (port, 80), SYN, before).build()]);
    });
}

/// For rows whose sessions are of another test's making.
#[test]
fn a_connection_of_a_program_from_before_is_not_guessed() {
    with_nat("", |nat: &mut Bench| {
        let port = nat.connect(A, 5000, (X, 80));
        // Another port of the same host has no mapping, and gets none by an acknowledgment.
        assert_eq!(dropped(&nat.out(&from(A, X).tcp(5001, 80))), "nat-no-session");
        // With a mapping, what goes elsewhere is the answer to somebody that came in.
        assert_eq!(left(&nat.out(&from(A, Y).tcp(5000, 80))).source_port, port);
    });
}
