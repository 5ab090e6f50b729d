//! How long mappings and sessions last: RFC 4787 section 4.3, RFC 5382 section 5, RFC 5508 section
//! 3.2, RFC 7857 section 2.

use super::bench::{
    A, Bench, P, SYN_ACK, X, Y, came, dropped, from, from_outside, inside, left, outside, packet, with_nat,
};
use nf_framework::headers::TcpFlags;
use std::net::Ipv4Addr;

const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);

/// Whether a datagram from this host comes through to A.
fn udp_lives(nat: &mut Bench, from: Ipv4Addr, port: u16) -> bool {
    lives(nat, &from_outside(from, P).udp(53, port))
}

/// Whether a segment of the server's comes through to A.
fn tcp_lives(nat: &mut Bench, port: u16) -> bool {
    lives(nat, &from_outside(X, P).tcp(80, port))
}

fn lives(nat: &mut Bench, frame: &nf_framework::testing::Frame) -> bool {
    let back = nat.back(frame);
    if back.inside.is_empty() {
        assert_eq!(dropped(&back), "nat-no-mapping");
        return false;
    }
    came(&back).destination == A
}

#[test]
fn n08_udp_mappings_last_as_long_as_configured() {
    for (text, alive, dead) in [
        ("", 299, 301),
        ("timeouts.udp = 120", 119, 121),
        ("timeouts.udp = 2", 1, 3),
        ("timeouts.udp = 1000000", 999_999, 1_000_001),
    ] {
        with_nat(text, move |nat| {
            let port = nat.udp_port(A, 5000, (X, 53));
            nat.pass(alive);
            assert!(udp_lives(nat, X, port), "{text}");
            assert_eq!(nat.sessions(), 1);
            nat.pass(dead - alive);
            assert!(!udp_lives(nat, X, port), "{text}");
            assert_eq!(nat.sessions(), 0);
        });
    }
}

#[test]
fn n09_outbound_traffic_refreshes_and_inbound_does_not() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        for _ in 0..5 {
            nat.pass(200);
            assert_eq!(nat.udp_port(A, 5000, (X, 53)), port);
        }
        // Inbound may not keep it: RFC 4787 REQ-6 leaves that open, and outsiders could hold it.
        for _ in 0..2 {
            nat.pass(149);
            assert!(udp_lives(nat, X, port));
            assert!(udp_lives(nat, Y, port));
        }
        nat.pass(3);
        assert!(!udp_lives(nat, X, port));
        // A mapping lasts as long as any of its sessions does.
        let port = nat.udp_port(A, 5000, (X, 53));
        nat.pass(200);
        assert_eq!(nat.udp_port(A, 5000, (Y, 53)), port);
        nat.pass(200);
        assert!(udp_lives(nat, X, port));
        assert_eq!(nat.sessions(), 1);
    });
}

#[test]
fn n10_errors_and_resets_that_answer_do_not_refresh() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        nat.pass(200);
        // Somebody asks, and the host says that nobody listens.
        assert!(udp_lives(nat, Y, port));
        let about = packet(&inside(Y, A).udp(53, 5000));
        let error = nat.out(&from(A, Y).icmp(3, 3, [0; 4]).payload(&about));
        let about = packet(&inside(Y, P).udp(53, port));
        assert_eq!(error.outside, [outside(P, Y).icmp(3, 3, [0; 4]).payload(&about).build()]);
        nat.pass(99);
        assert!(udp_lives(nat, Y, port));
        nat.pass(2);
        assert!(!udp_lives(nat, Y, port));

        let port = left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN))).source_port;
        nat.pass(200);
        let question = nat.back(&from_outside(Y, P).tcp(99, port).flags(TcpFlags::SYN));
        assert_eq!(came(&question).destination, A);
        let reset = nat.out(&from(A, Y).tcp(5000, 99).flags(TcpFlags::RST));
        assert_eq!(reset.outside, [outside(P, Y).tcp(port, 99).flags(TcpFlags::RST).build()]);
        assert_eq!(nat.sessions(), 1);
        nat.pass(39);
        assert!(tcp_lives(nat, port));
        nat.pass(2);
        assert!(!tcp_lives(nat, port));
        // Behind that there is nothing that a reset could belong to.
        assert_eq!(dropped(&nat.out(&from(A, Y).tcp(5000, 99).flags(TcpFlags::RST))), "nat-no-session");
    });
}

#[test]
fn n21_tcp_lasts_two_hours_and_four_minutes_or_four_minutes() {
    with_nat("", |nat| {
        let port = nat.connect(A, 5000, (X, 80));
        nat.pass(7439);
        assert!(tcp_lives(nat, port));
        left(&nat.out(&from(A, X).tcp(5000, 80)));
        nat.pass(7439);
        assert!(tcp_lives(nat, port));
        nat.pass(2);
        assert!(!tcp_lives(nat, port));
        let port = left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN))).source_port;
        nat.pass(239);
        assert!(tcp_lives(nat, port));
        nat.pass(2);
        assert!(!tcp_lives(nat, port));
    });
}

#[test]
fn n22_opening_established_and_closing_have_timers_of_their_own() {
    const TEXT: &str = "timeouts = { tcp_opening = 10, tcp_established = 100, tcp_closing = 30 }";
    with_nat(TEXT, |nat| {
        let syn = from(A, X).tcp(5000, 80).flags(TcpFlags::SYN);
        let out = |flags| from(A, X).tcp(5000, 80).flags(flags);
        let back = |port, flags| from_outside(X, P).tcp(80, port).flags(flags);
        // What is sent, which way, and how long it lasts.
        for (what, segments, seconds) in [
            ("opening", &[][..], 10),
            ("still opening", &[(true, TcpFlags::ACK)], 10),
            ("established", &[(false, SYN_ACK)], 100),
            ("half closed by the client", &[(false, SYN_ACK), (true, FIN)], 100),
            ("half closed by the server", &[(false, SYN_ACK), (false, FIN)], 100),
            ("closed", &[(false, SYN_ACK), (true, FIN), (false, FIN), (true, TcpFlags::ACK)], 30),
            ("closed by the server", &[(false, SYN_ACK), (false, FIN), (true, FIN), (false, TcpFlags::ACK)], 30),
            ("reset by the client", &[(false, SYN_ACK), (true, TcpFlags::RST)], 30),
            ("reset by the server", &[(false, SYN_ACK), (false, TcpFlags::RST)], 30),
            ("refused", &[(false, TcpFlags::RST)], 30),
        ] {
            let port = left(&nat.out(&syn)).source_port;
            for (is_out, flags) in segments {
                if *is_out {
                    assert_eq!(left(&nat.out(&out(*flags))).source_port, port, "{what}");
                } else {
                    assert_eq!(came(&nat.back(&back(port, *flags))).destination, A, "{what}");
                }
            }
            nat.pass(seconds - 1);
            assert!(tcp_lives(nat, port), "{what}");
            nat.pass(2);
            assert!(!tcp_lives(nat, port), "{what}");
            assert_eq!(dropped(&nat.out(&out(TcpFlags::ACK))), "nat-no-session", "{what}");
        }
    });
}

#[test]
fn n23_behind_a_reset_a_session_waits_for_four_minutes_and_goes_on_with_traffic() {
    with_nat("", |nat| {
        for is_out in [true, false] {
            let port = nat.connect(A, 5000, (X, 80));
            let reset = |nat: &mut Bench| {
                if is_out {
                    let out = nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::RST));
                    assert_eq!(out.outside, [outside(P, X).tcp(port, 80).flags(TcpFlags::RST).build()]);
                } else {
                    let back = nat.back(&from_outside(X, P).tcp(80, port).flags(TcpFlags::RST));
                    assert_eq!(back.inside, [inside(X, A).tcp(80, 5000).flags(TcpFlags::RST).build()]);
                }
            };
            reset(nat);
            nat.pass(239);
            assert!(tcp_lives(nat, port));
            // The reset was forged, and the client knows nothing of it.
            let data = nat.out(&from(A, X).tcp(5000, 80).payload(b"late"));
            assert_eq!(data.outside, [outside(P, X).tcp(port, 80).payload(b"late").build()]);
            nat.pass(7439);
            assert!(tcp_lives(nat, port));
            reset(nat);
            // What outsiders send proves nothing.
            nat.pass(239);
            assert!(tcp_lives(nat, port));
            nat.pass(2);
            assert!(!tcp_lives(nat, port));
        }
        // Both ends: no traffic makes that undone.
        let port = nat.connect(A, 5000, (X, 80));
        left(&nat.out(&from(A, X).tcp(5000, 80).flags(FIN)));
        came(&nat.back(&from_outside(X, P).tcp(80, port).flags(FIN)));
        nat.pass(100);
        let late = nat.back(&from_outside(X, P).tcp(80, port).flags(FIN));
        assert_eq!(late.inside, [inside(X, A).tcp(80, 5000).flags(FIN).build()]);
        left(&nat.out(&from(A, X).tcp(5000, 80)));
        nat.pass(239);
        assert!(tcp_lives(nat, port));
        nat.pass(2);
        assert!(!tcp_lives(nat, port));
    });
}

#[test]
fn n24_icmp_queries_pass_and_last_a_minute_or_as_configured() {
    const ECHO: (u8, u8) = (8, 0);
    const TIMESTAMP: (u8, u8) = (13, 14);
    for (text, seconds) in [("", 60), ("timeouts.icmp = 2", 2), ("timeouts.icmp = 200", 200)] {
        with_nat(text, move |nat| {
            for (request, reply) in [ECHO, TIMESTAMP] {
                let rest = |identifier: u16| [identifier.to_be_bytes(), [0, 9]].concat().try_into().unwrap();
                let times = [7; 12];
                let out = nat.out(&from(A, X).icmp(request, 0, rest(700)).payload(&times));
                let identifier = left(&out).source_port;
                assert_eq!(out.outside, [outside(P, X).icmp(request, 0, rest(identifier)).payload(&times).build()]);
                let answer = from_outside(X, P).icmp(reply, 0, rest(identifier)).payload(&times);
                nat.pass(seconds - 1);
                let back = nat.back(&answer);
                assert_eq!(back.inside, [inside(X, A).icmp(reply, 0, rest(700)).payload(&times).build()]);
                nat.pass(2);
                assert_eq!(dropped(&nat.back(&answer)), "nat-no-mapping");
            }
            // An answer that nobody asked for begins nothing.
            assert_eq!(dropped(&nat.out(&from(A, X).icmp_echo_reply(701, 1))), "nat-no-session");
        });
    }
}
